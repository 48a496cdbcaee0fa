/* session_fuzz.c: a worker's sessions, and the client's TLS under them, told anything by their servers, in any order and cut anywhere, with
 * orders, withdrawals, time and the connection's end in between. Each order is answered once, nothing is left over, and nothing goes in
 * plain that may not. The first three bytes choose the path and the orders; then each byte is a step, some with bytes behind it for the
 * server to say. */
#include "dataplane/smtp/engine.h"
#include "dataplane/tls/tls.h"
#include "tests/unit/smtp/fake_tcp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SLOTS = 32, ARENA_BYTES = 1 << 18, STEPS_MAX = 600, PASSES_MAX = 100, WAKES_MAX = 5000, SAID_MAX = 1 << 15 };
#define SECOND UINT64_C(1000000)

static struct journal journal;
static struct tls_worker *tls;
static struct tcp_stack stack;
static struct smtp_engine *engine;
static uint8_t arena[ARENA_BYTES];
static uint64_t now_us = 1000 * SECOND, wake_us;
static uint32_t generation, orders, answers[SLOTS], arena_used;
static uint8_t level;
static bool silent; /* servers acknowledge nothing */

static const char *const replies[] = {"220 mx ESMTP\r\n",
                                      "250-mx\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-SIZE\r\n250-8BITMIME\r\n250 STARTTLS\r\n",
                                      "250-mx\r\n250-PIPELINING\r\n250 LIMITS MAILMAX=2 RCPTMAX=1 RCPTDOMAINMAX=1\r\n",
                                      "250-mx\r\n250-DSN\r\n250 AUTH PLAIN LOGIN CRAM-MD5\r\n",
                                      "250 ok\r\n",
                                      "250 ok\r\n250 ok\r\n250 ok\r\n",
                                      "354 go\r\n",
                                      "550 5.1.1 no\r\n",
                                      "450 4.2.0 later\r\n",
                                      "452 4.5.3 many\r\n",
                                      "421 4.3.2 down\r\n",
                                      "503 5.5.1 order\r\n",
                                      "235 2.7.0 yes\r\n",
                                      "334 VXNlcm5hbWU6\r\n",
                                      "334 \r\n",
                                      "535 5.7.8 no\r\n",
                                      "221 bye\r\n",
                                      "250-part",
                                      "250",
                                      "220 go\r\n250 injected\r\n",
                                      "\x16\x03\x03",
                                      "\x15\x03\x03\x00\x02\x02\x28",
                                      "\x16\x03\x03\x00\x04\x0e\x00\x00\x00",
                                      "250-mx\r\n250 SIZE 10\r\n",
                                      "220-a\r\n220 b\r\n"};

static void check(bool good, const char *what) {
    if (good)
        return;
    fprintf(stderr, "broken: %s\n", what);
    abort();
}

static void ring_nothing(void *context, uint32_t shard) {}

static void start(void) {
    char file[] = "/tmp/bypost-fuzz-XXXXXX", error[256] = "";
    int fd = mkstemp(file);
    check(fd >= 0, "a temporary file");
    close(fd);
    unlink(file);
    struct journal_geometry geometry = {.workers = 1, .shards = 1, .slots = SLOTS, .paths = 1};
    check(journal_open(&journal, file, geometry, JOURNAL_DATAPLANE, error, sizeof(error)) == 0, error);
    unlink(file);
    check(tls_start() == 0, "tls_start");
    struct tls_config config = {.max_sessions = 8, .realtime_offset_us = 1893456000 * INT64_C(1000000), .now_us = now_us};
    tls = tls_worker_create(&config, error, sizeof(error));
    check(tls != NULL, error);
}

static void publish(const uint8_t *options) {
    struct path *path = &journal.paths[0];
    struct path_cell *cell = journal_cell(&journal, 0, 0);
    memset(path, 0, sizeof(*path));
    memset(cell, 0, sizeof(*cell));
    memset(&journal.rests[0], 0, sizeof(journal.rests[0]));
    memset(journal.slots, 0, SLOTS * sizeof(struct slot));
    level = options[0] & 3;
    memcpy(path->strings + 1, "out.test\0mx.test\0tim\0tanstaaftanstaaf", 38);
    path->endpoint_count = path->source_count = 1 + (options[0] >> 2 & 1);
    for (uint32_t i = 0; i < path->endpoint_count; i++) {
        path->endpoints[i] =
            (struct path_endpoint){.address = {192, 0, 2, (uint8_t)(1 + i)}, .family = 4, .port = 25, .name = 10, .tls = level};
        path->sources[i] = (struct path_source){.address = {198, 51, 100, 1}, .family = 4, .ehlo = 1};
    }
    path->flags = (uint8_t)((options[0] & 8 ? PATH_IMPLICIT_TLS : 0) | (options[0] & 16 ? PATH_TLS_TESTING : 0) |
                            (options[0] & 32 ? PATH_NO_CHUNKING : 0));
    if (options[0] & 64) {
        path->auth_user = 18;
        path->auth_secret = 22;
    }
    /* Short, because the wheel of deadlines walks through the time that passes. */
    path->timeouts = (struct path_timeouts){3000, 3000, 3000, 3000, 3000, 3000, 3000, 3000, 3000, 3000, 3000, 0};
    path->broken_tls_s = options[0] & 128 ? 10 : 0;
    path->pipelined_transactions = 1 + (options[1] & 7);
    path->max_recipients_per_transaction = options[1] >> 3 & 3;
    path->max_deliveries_per_connection = options[1] >> 5 & 3;
    cell->order.sessions_allowed = 1 + (options[1] >> 7);
    generation++;
    atomic_store(&path->word, path_word(generation, PATH_LIVE));
    smtp_engine_hint(engine, ring_entry(RING_PATH, 0, generation), now_us);
}

/* A message for some recipients, from the numbers in `how`. */
static void order(uint8_t how) {
    uint32_t members = 1 + (how & 3), length = how & 4 ? 20000 : 20 + how, pieces = how & 8 ? 7 : 1, first = orders;
    uint64_t table = (arena_used + length + 7) & ~(uint64_t)7;
    if (orders + members > SLOTS || table + pieces * sizeof(struct arena_piece) > ARENA_BYTES)
        return;
    for (uint32_t i = 0; i < length; i++)
        arena[arena_used + i] = i % 19 == 0 ? '.' : i % 19 == 17 ? '\r' : i % 19 == 18 ? '\n' : 'x';
    struct arena_piece *piece = (struct arena_piece *)(arena + table);
    for (uint32_t i = 0; i < pieces; i++)
        piece[i] = (struct arena_piece){.offset = arena_used + i * (length / pieces),
                                        .length = i + 1 < pieces ? length / pieces : length - i * (length / pieces)};
    for (uint32_t i = 0; i < members; i++) {
        struct slot *slot = &journal.slots[orders++];
        slot->next = i + 1 < members ? orders : SLOT_NONE;
        slot->path_generation = generation;
        slot->dataplane_generation = 1;
        slot->flags = (uint8_t)(SLOT_HAS_LEADING_DOTS | (how & 16 ? SLOT_BODY_8BIT : 0) | (how & 32 ? SLOT_REQUIRETLS : 0));
        slot->dsn = how & 64 ? SLOT_NOTIFY_FAILURE | SLOT_RET_HDRS : 0;
        slot->piece_count = pieces;
        slot->pieces = table;
        slot->size_bytes = length;
        slot->not_before_us = how & 128 && !i ? now_us + SECOND : 0;
        slot->sender_length = slot->recipient_length = 6;
        memcpy(slot->text, "a@b.tec@d.te", 12);
    }
    arena_used = (uint32_t)(table + pieces * sizeof(struct arena_piece));
    for (uint32_t i = orders; i > first; i--)
        slot_queue(&journal.slots[i - 1]);
    smtp_engine_hint(engine, ring_entry(RING_ORDER, first, 0), now_us);
}

/* What no wire may carry. */
static void look_at_wire(struct tcp_conn *conn) {
    static const char secret[] = "AHRpbQB0YW5zdGFhZnRhbnN0YWFm";
    if (!conn->wire_length)
        return;
    if (level > PATH_TLS_MAY || journal.paths[0].flags & PATH_IMPLICIT_TLS)
        check(!memmem(conn->wire, conn->wire_length, "MAIL FROM:", 10), "mail in plain");
    check(!memmem(conn->wire, conn->wire_length, secret, sizeof(secret) - 1), "a password in plain");
    conn->wire_length = 0;
}

static void look_at_answers(void) {
    uint64_t entries[16];
    uint32_t count;
    while ((count = ring_pop(&journal, journal_outcome_ring(&journal, 0, 0), entries, 16))) {
        for (uint32_t i = 0; i < count; i++) {
            struct path_event event;
            if (ring_entry_kind(entries[i]) == RING_OUTCOME)
                answers[ring_entry_index(entries[i]) % SLOTS]++;
            else if (ring_entry_kind(entries[i]) == RING_EVENT)
                check(path_event_read(&journal, 0, 0, entries[i], &event), "an event");
            else
                journal_cell(&journal, 0, 0)->worker.hinted = 0;
        }
    }
}

static void pass(void) {
    for (uint32_t passes = 0; passes < PASSES_MAX; passes++) {
        bool more = tls_worker_poll(tls, now_us);
        wake_us = smtp_engine_poll(engine, 256, now_us);
        for (uint32_t i = 0; i < FAKE_CONNS_MAX; i++) {
            struct tcp_conn *conn = &stack.conns[i];
            if (conn->state == FAKE_FREE || conn->closing)
                continue;
            look_at_wire(conn);
            if (!silent && conn->left_count)
                fake_acknowledge(conn, now_us);
        }
        more |= fake_reap(&stack, now_us) > 0;
        look_at_answers();
        if (!more && wake_us > now_us)
            return;
    }
}

static struct tcp_conn *talking(uint32_t which) {
    struct tcp_conn *found = NULL;
    for (uint32_t i = 0; i < FAKE_CONNS_MAX; i++) {
        struct tcp_conn *conn = &stack.conns[i];
        if (conn->state == FAKE_FREE || conn->closing || conn->peer_fin)
            continue;
        if (!found || which-- == 1)
            found = conn;
    }
    return found;
}

static void say(struct tcp_conn *conn, const uint8_t *bytes, uint32_t length) {
    if (!conn || conn->state != FAKE_OPEN || conn->held_length + length > SAID_MAX)
        return;
    uint8_t *copy = malloc(length ? length : 1); /* no more than that, so that a read past it is seen */
    if (!copy)
        abort();
    memcpy(copy, bytes, length);
    fake_deliver(conn, copy, length, now_us);
    free(copy);
}

static void happen(uint8_t what) {
    struct tcp_conn *conn = talking(0);
    switch (what) {
    case 0:
        if (conn && conn->state == FAKE_OPEN)
            fake_peer_fin(conn, now_us);
        break;
    case 1:
        if (conn)
            fake_end(conn, conn->state == FAKE_OPEN ? TCP_RESET : TCP_REFUSED, now_us);
        break;
    case 2:
        silent = !silent;
        break;
    case 3:
        stack.send_refusals = 3;
        break;
    case 4:
        stack.window = stack.window ? 0 : 100;
        break;
    case 5:
        stack.reaps_later = !stack.reaps_later;
        break;
    case 6:
        atomic_store(&journal.paths[0].word, path_word(generation, PATH_RETIRED));
        smtp_engine_hint(engine, ring_entry(RING_PATH, 0, generation), now_us);
        break;
    case 7:
        smtp_engine_drain(engine, now_us);
        break;
    case 8:
        now_us = wake_us > now_us && wake_us - now_us < 3600 * SECOND ? wake_us : now_us + SECOND;
        break;
    default:
        now_us += (uint64_t)(what - 8) * (what - 8) * 1000;
    }
}

/* One byte, and what it takes behind it. */
static void step(const uint8_t **data, const uint8_t *end) {
    uint8_t op = *(*data)++, number = op >> 3;
    switch (op & 7) {
    case 0:
    case 1: {
        uint32_t length = 1u + number, left = (uint32_t)(end - *data);
        length = length < left ? length : left;
        say(talking(op & 1), *data, length);
        *data += length;
        break;
    }
    case 2:
    case 3: {
        const char *reply = replies[number % (sizeof(replies) / sizeof(replies[0]))];
        say(talking(op & 1), (const uint8_t *)reply, (uint32_t)strlen(reply));
        break;
    }
    case 4: {
        struct tcp_conn *conn = talking(number & 1);
        if (conn && conn->state == FAKE_CONNECTING)
            fake_establish(conn, now_us);
        break;
    }
    case 5:
        if (*data < end)
            order(*(*data)++);
        break;
    case 6:
        if (orders)
            slot_withdraw(&journal.slots[number % orders], 0);
        break;
    default:
        happen(number);
    }
    pass();
}

/* No server says anything more: every session ends by itself. */
static void finish(void) {
    stack.reaps_later = silent = false;
    stack.send_refusals = stack.window = 0;
    for (uint32_t wakes = 0; wakes < WAKES_MAX && !(smtp_engine_idle(engine) && wakes); wakes++) {
        pass();
        if (wakes == WAKES_MAX / 2)
            smtp_engine_drain(engine, now_us);
        for (uint32_t i = 0; i < FAKE_CONNS_MAX; i++) { /* the network gives up on what we closed */
            if (stack.conns[i].state == FAKE_OPEN && stack.conns[i].fin_sent && !stack.conns[i].closing)
                fake_end(&stack.conns[i], TCP_TIMED_OUT, now_us);
        }
        now_us = wake_us > now_us && wake_us - now_us < 7200 * SECOND ? wake_us : now_us + SECOND;
    }
    smtp_engine_drain(engine, now_us);
    for (uint32_t i = 0; i < 3; i++) {
        pass();
        now_us += 15 * SECOND; /* longer than anything that we closed is waited for */
    }
}

static void judge(void) {
    struct tls_usage usage;
    check(smtp_engine_idle(engine), "a session or an order is left");
    check(!engine->replies.used && !engine->commands.used, "a reply or a command is left");
    for (uint32_t i = 0; i < orders; i++) {
        enum slot_state state = slot_word_state(slot_load(&journal.slots[i]));
        check(answers[i] == (state == SLOT_ANSWERED), "an outcome for each answer");
        /* Those behind a first one that was withdrawn are claimed by nobody. */
        check(state == SLOT_ANSWERED || state == SLOT_WITHDRAWN || state == SLOT_QUEUED, "an order is not answered");
    }
    for (uint32_t i = 0; i < FAKE_CONNS_MAX; i++)
        check(stack.conns[i].state == FAKE_FREE, "a connection is left");
    tls_worker_usage(tls, &usage);
    check(!usage.sessions, "a TLS session is left");
    check(counter_get(&journal_counters(&journal, 0)->wild_values) == 0, "wild values");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 4 || size > 1 << 14)
        return 0;
    if (!tls)
        start();
    struct smtp_config config = {.journal = &journal,
                                 .dataplane_generation = 1,
                                 .arena = arena,
                                 .arena_bytes = sizeof(arena),
                                 .max_sessions = 4,
                                 .max_orders = 16,
                                 .tls = tls,
                                 .ring_doorbell = ring_nothing};
    engine = smtp_engine_create(&config, &stack.events);
    check(engine != NULL, "an engine");
    smtp_engine_attach(engine, &stack);
    stack.connect_error = 0;
    orders = arena_used = 0;
    memset(answers, 0, sizeof(answers));
    publish(data);
    order(data[2]);
    const uint8_t *at = data + 3, *end = data + size;
    for (uint32_t steps = 0; at < end && steps < STEPS_MAX; steps++)
        step(&at, end);
    finish();
    judge();
    smtp_engine_destroy(engine);
    return 0;
}
