/* world.c: the loop that a worker would run, with its journal and arena. The servers stand in server.c. */
#include "world.h"

#include "server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { STEPS_MAX = 200000 };

static void bell(void *context, uint32_t shard) {
    ((struct world *)context)->bells++;
}

/* The rule of DESIGN.md section 4, checked at the moment of handing over: MAIL only after "envelope sent", the body's last byte only after
 * "body sent". */
static void watch(void *context, struct tcp_conn *conn, const struct tcp_piece *pieces, uint32_t count) {
    struct world *world = context;
    if (!world->strict || world->watch_slot == SLOT_NONE)
        return;
    enum slot_state state = slot_word_state(slot_load(world_at(world, world->watch_slot)));
    for (uint32_t i = 0; i < count; i++) {
        if (pieces[i].length >= 4 && memcmp(pieces[i].bytes, "MAIL", 4) == 0)
            assert_in_range(state, SLOT_ENVELOPE_SENT, SLOT_BODY_SENT); /* under BDAT the body may be in the same flight */
        if (pieces[i].bytes >= world->arena && pieces[i].bytes < world->arena + WORLD_ARENA_BYTES) {
            world->watched_bytes += pieces[i].length;
            if (world->watched_bytes == world->watch_body_bytes)
                assert_int_equal(state, SLOT_BODY_SENT);
            else if (i == count - 1)
                assert_int_equal(state, SLOT_ENVELOPE_SENT);
        }
    }
}

struct world *world_new(void) {
    return world_new_with(NULL);
}

struct world *world_new_with(struct tls_worker *tls) {
    struct world *world = calloc(1, sizeof(*world));
    assert_non_null(world);
    char file[] = "/tmp/bypost-smtp-XXXXXX", error[256] = "";
    int fd = mkstemp(file);
    assert_true(fd >= 0);
    close(fd);
    unlink(file);
    struct journal_geometry geometry = {.workers = 2, .shards = 1, .slots = WORLD_SLOTS, .paths = WORLD_PATHS};
    if (journal_open(&world->journal, file, geometry, JOURNAL_DATAPLANE, error, sizeof(error)) != 0)
        fail_msg("%s", error);
    unlink(file);
    world->now_us = 1000 * SECOND;
    world->script = script_good;
    world->watch_slot = SLOT_NONE;
    world->strict = true;
    struct smtp_config config = {.journal = &world->journal,
                                 .worker = 1,
                                 .dataplane_generation = 7,
                                 .arena = world->arena,
                                 .arena_bytes = WORLD_ARENA_BYTES,
                                 .max_sessions = 32,
                                 .max_orders = 1200,
                                 .tls = tls,
                                 .realtime_offset_us = 5,
                                 .ring_doorbell = bell,
                                 .context = world};
    world->engine = smtp_engine_create(&config, &world->tcp.events);
    assert_non_null(world->engine);
    smtp_engine_attach(world->engine, &world->tcp);
    world->tcp.on_send = watch;
    world->tcp.context = world;
    return world;
}

void world_free(struct world *world) {
    for (uint32_t i = 0; i < FAKE_CONNS_MAX; i++) {
        struct tcp_conn *conn = &world->tcp.conns[i];
        if (conn->state != FAKE_FREE)
            fake_end(conn, TCP_ABORTED, world->now_us);
        free(conn->server);
        conn->server = NULL;
    }
    fake_reap(&world->tcp, world->now_us);
    smtp_engine_destroy(world->engine);
    journal_close(&world->journal);
    free(world);
}

struct path *world_path_record(struct world *world) {
    return &world->journal.paths[0];
}

struct path_cell *world_cell(struct world *world) {
    return journal_cell(&world->journal, 0, 1);
}

void world_path(struct world *world, uint32_t endpoints, uint32_t sessions, uint32_t demand) {
    struct path *path = world_path_record(world);
    memcpy(path->strings + 1, "out.sender.test", sizeof("out.sender.test"));
    memcpy(path->strings + 32, "mx.test", sizeof("mx.test"));
    path->endpoint_count = endpoints;
    for (uint32_t i = 0; i < endpoints && i < PATH_ENDPOINTS_MAX; i++)
        path->endpoints[i] =
            (struct path_endpoint){.address = {192, 0, 2, (uint8_t)(i + 1)}, .family = 4, .port = 25, .preference = 10, .name = 32};
    path->source_count = 2;
    for (uint32_t i = 0; i < 2; i++)
        path->sources[i] = (struct path_source){.address = {198, 51, 100, (uint8_t)(i + 1)}, .family = 4, .ehlo = 1};
    path->pipelined_transactions = 1;
    world_cell(world)->order.sessions_allowed = sessions;
    world_cell(world)->order.demand = demand;
}

static void hint_path(struct world *world) {
    world_cell(world)->order.hinted = 1;
    smtp_engine_hint(world->engine, ring_entry(RING_PATH, 0, 3), world->now_us);
    assert_int_equal(world_cell(world)->order.hinted, 0);
}

void world_publish(struct world *world) {
    atomic_store(&world_path_record(world)->word, path_word(3, PATH_LIVE));
    hint_path(world);
}

void world_retire(struct world *world) {
    atomic_store(&world_path_record(world)->word, path_word(3, PATH_RETIRED));
    hint_path(world);
}

struct slot *world_at(struct world *world, uint32_t slot) {
    return &world->journal.slots[slot];
}

uint32_t world_slot(struct world *world, const char *recipient, const char *text, uint32_t piece_bytes) {
    static const char sender[] = "a@sender.test";
    uint32_t index = world->next_slot++, length = (uint32_t)strlen(text), count = 0;
    struct slot *slot = world_at(world, index);
    uint8_t *body = world->arena + world->arena_used;
    memcpy(body, text, length);
    uint64_t table = (world->arena_used + length + 7) & ~(uint64_t)7;
    struct arena_piece *pieces = (struct arena_piece *)(world->arena + table);
    for (uint32_t at = 0; at < length;) {
        uint32_t part = piece_bytes && length - at > piece_bytes ? piece_bytes : length - at;
        pieces[count++] = (struct arena_piece){.offset = world->arena_used + at, .length = part};
        at += part;
    }
    world->arena_used = table + count * sizeof(struct arena_piece);
    assert_true(world->arena_used <= WORLD_ARENA_BYTES);
    slot->next = SLOT_NONE;
    slot->path = 0;
    slot->path_generation = 3;
    slot->dataplane_generation = 7;
    slot->worker = 1;
    slot->flags = 0;
    slot->piece_count = count;
    slot->pieces = table;
    slot->size_bytes = length;
    slot->not_before_us = 0;
    slot->sender_length = sizeof(sender) - 1;
    slot->recipient_length = (uint16_t)strlen(recipient);
    memcpy(slot->text, sender, slot->sender_length);
    memcpy(slot->text + slot->sender_length, recipient, slot->recipient_length);
    return index;
}

void world_chain(struct world *world, uint32_t slot, uint32_t next) {
    world_at(world, slot)->next = next;
    world_at(world, slot)->next_generation = slot_word_generation(slot_load(world_at(world, next)));
    world_at(world, next)->pieces = world_at(world, slot)->pieces;
    world_at(world, next)->piece_count = world_at(world, slot)->piece_count;
    world_at(world, next)->size_bytes = world_at(world, slot)->size_bytes;
}

void world_order(struct world *world, uint32_t slot) {
    for (uint32_t i = slot, members = 0; i < WORLD_SLOTS && members < WORLD_SLOTS; i = world_at(world, i)->next, members++) {
        if (slot_word_state(slot_load(world_at(world, i))) == SLOT_FREE)
            slot_queue(world_at(world, i));
    }
    smtp_engine_hint(world->engine, ring_entry(RING_ORDER, slot, slot_word_generation(slot_load(world_at(world, slot)))), world->now_us);
}

uint32_t world_send(struct world *world, const char *recipient) {
    uint32_t slot = world_slot(world, recipient, "Subject: x\r\n\r\nhello\r\n", 0);
    world_order(world, slot);
    return slot;
}

/* ---- the loop ---- */

static void pop(struct world *world) {
    struct ring *ring = journal_outcome_ring(&world->journal, 1, 0);
    uint64_t entries[64];
    uint32_t count;
    while ((count = ring_pop(&world->journal, ring, entries, 64))) {
        for (uint32_t i = 0; i < count; i++) {
            switch (ring_entry_kind(entries[i])) {
            case RING_OUTCOME: {
                /* Control's view: the hint is never early, and comes once. */
                struct slot *slot = world_at(world, ring_entry_index(entries[i]));
                assert_true(slot_load(slot) == slot_word(ring_entry_generation(entries[i]), SLOT_ANSWERED));
                world->outcomes++;
                break;
            }
            case RING_CREDIT:
                world->credits++;
                world_cell(world)->worker.hinted = 0;
                break;
            case RING_EVENT:
                assert_true(world->event_count < WORLD_EVENTS_MAX);
                assert_true(path_event_read(&world->journal, 1, 0, entries[i], &world->events[world->event_count]));
                world->event_count++;
                break;
            default:
                fail_msg("kind %u in the outcome ring", ring_entry_kind(entries[i]));
            }
        }
    }
}

bool world_step(struct world *world) {
    world->wakeup_us = smtp_engine_poll(world->engine, 1000, world->now_us);
    bool moved = world->tls.poll && world->tls.poll(world->tls.context, world->now_us);
    moved |= server_serve_all(world);
    server_reap(world);
    moved |= fake_reap(&world->tcp, world->now_us) > 0;
    pop(world);
    return moved || world->wakeup_us <= world->now_us;
}

void world_settle(struct world *world) {
    for (int i = 0; i < STEPS_MAX; i++) {
        if (!world_step(world))
            return;
    }
    fail_msg("the worker spins");
}

void world_run(struct world *world, uint64_t us) {
    uint64_t until_us = world->now_us + us;
    for (int i = 0; i < STEPS_MAX; i++) {
        world_settle(world);
        if (world->wakeup_us > until_us) {
            world->now_us = until_us;
            world_settle(world);
            return;
        }
        world->now_us = world->wakeup_us > world->now_us ? world->wakeup_us : world->now_us + 1;
    }
    fail_msg("too many wake-ups");
}

void world_until_answered(struct world *world, uint32_t slot) {
    uint64_t until_us = world->now_us + 3600 * SECOND;
    world_settle(world);
    while (slot_word_state(slot_load(world_at(world, slot))) != SLOT_ANSWERED && world->now_us < until_us) {
        world->now_us = world->wakeup_us < until_us ? world->wakeup_us : until_us;
        world_settle(world);
    }
}

/* ---- what the test asks ---- */

const char *world_outcome(struct world *world, uint32_t index) {
    static char text[128];
    static const char *const outcomes[] = {"REPLIED", "RETURNED", "LOST", "UNCERTAIN", "LOCAL"};
    static const char *const stages[] = {"CONNECT", "BANNER", "EHLO",  "STARTTLS", "AUTH", "MAIL", "RCPT",
                                         "DATA",    "BODY",   "FINAL", "RSET",     "QUIT", "IDLE"};
    static const char *const states[] = {"free", "queued", "claimed", "envelope sent", "body sent", "answered", "withdrawn"};
    struct slot *slot = world_at(world, index);
    enum slot_state state = slot_word_state(slot_load(slot));
    const struct slot_reply *reply = &slot->reply;
    if (state != SLOT_ANSWERED)
        return states[state];
    int length = snprintf(text, sizeof(text), "%s", outcomes[reply->outcome]);
    if (reply->outcome == OUTCOME_REPLIED || reply->outcome == OUTCOME_LOST || reply->outcome == OUTCOME_UNCERTAIN)
        length += snprintf(text + length, sizeof(text) - (size_t)length, " %s", stages[reply->stage]);
    if (reply->code)
        length += snprintf(text + length, sizeof(text) - (size_t)length, " %u", reply->code);
    if (reply->code && reply->enhanced[0])
        snprintf(text + length, sizeof(text) - (size_t)length, " %u.%u.%u", reply->enhanced[0], reply->enhanced[1], reply->enhanced[2]);
    return text;
}

const char *world_text(struct world *world, uint32_t index) {
    static char text[SLOT_TEXT_BYTES + 1];
    const struct slot *slot = world_at(world, index);
    uint32_t at = slot_addresses_length(slot->sender_length, slot->recipient_length, slot->envid_length);
    memcpy(text, slot->text + at, slot->reply.text_length);
    text[slot->reply.text_length] = '\0';
    return text;
}

uint32_t world_events(const struct world *world, enum path_event_kind kind) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < world->event_count; i++)
        count += world->events[i].kind == kind;
    return count;
}

uint64_t world_counter(const struct world *world, size_t offset) {
    return counter_get((const _Atomic uint64_t *)((const char *)journal_counters(&world->journal, 1) + offset));
}

uint32_t world_connections(const struct world *world) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < FAKE_CONNS_MAX; i++)
        count += world->tcp.conns[i].state != FAKE_FREE;
    return count;
}
