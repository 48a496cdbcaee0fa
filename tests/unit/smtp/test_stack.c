/* test_stack.c: the room on the real TCP, against a server that speaks segments: the same bytes arrive, with and without loss, and every
 * record of both rooms comes back. */
#include "dataplane/smtp/smtp.h"
#include "dataplane/tcp/tcp.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { SLOTS = 256, ARENA_BYTES = 1 << 20, PEERS_MAX = 64, QUEUE_MAX = 1024, SEGMENT_BYTES = 2048, STEPS_MAX = 4000000 };

/* One segment on its way to the server. */
struct flying {
    uint16_t port;
    uint32_t sequence, acknowledgement;
    uint8_t flags;
    uint32_t length;
    uint8_t payload[SEGMENT_BYTES];
};

struct peer {
    bool used, in_body, fin_received, fin_sent;
    uint16_t port;
    uint32_t sequence, next; /* its next own number; the next it expects */
    char line[2048];
    uint32_t line_length;
};

struct site {
    struct journal journal;
    struct smtp_engine *engine;
    struct tcp_stack *stack;
    uint8_t *arena;
    uint64_t now_us;
    struct tcp_address ours, theirs;
    struct flying queue[QUEUE_MAX];
    uint32_t head, tail;
    struct peer peers[PEERS_MAX];
    uint64_t random;
    uint32_t lose_every;
    uint32_t mails, resets;
    uint64_t body_bytes, body_sum;
};

static int transmit(void *network, const struct tcp_segment *segment) {
    struct site *site = network;
    site->random = site->random * 6364136223846793005u + 1442695040888963407u;
    if (site->lose_every && (site->random >> 33) % site->lose_every == 0)
        return 0; /* lost on its way */
    if (site->tail - site->head == QUEUE_MAX)
        return -EAGAIN;
    struct flying *flying = &site->queue[site->tail++ % QUEUE_MAX];
    flying->port = segment->local_port;
    flying->sequence = segment->sequence;
    flying->acknowledgement = segment->acknowledgement;
    flying->flags = segment->flags;
    flying->length = 0;
    for (uint32_t i = 0; i < segment->piece_count; i++) {
        assert_true(flying->length + segment->pieces[i].length <= SEGMENT_BYTES);
        memcpy(flying->payload + flying->length, segment->pieces[i].bytes, segment->pieces[i].length);
        flying->length += segment->pieces[i].length;
    }
    return 0;
}

static void put32(uint8_t *to, uint32_t value) {
    to[0] = (uint8_t)(value >> 24);
    to[1] = (uint8_t)(value >> 16);
    to[2] = (uint8_t)(value >> 8);
    to[3] = (uint8_t)value;
}

/* A segment from the server; it loses none of its own. */
static void emit(struct site *site, struct peer *peer, uint8_t flags, const char *text) {
    uint8_t bytes[1024] = {0};
    uint32_t header = flags & TCP_SYN ? 24 : 20, length = text ? (uint32_t)strlen(text) : 0;
    bytes[1] = 25;
    bytes[2] = (uint8_t)(peer->port >> 8);
    bytes[3] = (uint8_t)peer->port;
    put32(bytes + 4, peer->sequence);
    put32(bytes + 8, peer->next);
    bytes[12] = (uint8_t)(header / 4 << 4);
    bytes[13] = flags | TCP_ACK;
    bytes[14] = bytes[15] = 0xff;
    if (flags & TCP_SYN)
        memcpy(bytes + 20, "\x02\x04\x05\xb4", 4); /* MSS 1460 */
    memcpy(bytes + header, text ? text : "", length);
    peer->sequence += length + ((flags & (TCP_SYN | TCP_FIN)) != 0);
    struct tcp_packet packet = {.local = site->ours, .remote = site->theirs, .header = bytes, .length = header + length};
    tcp_input(site->stack, &packet, site->now_us);
}

static void take_line(struct site *site, struct peer *peer) {
    static const struct {
        const char *verb, *reply;
    } replies[] = {{"EHLO", "250-mx.test\r\n250-SIZE 10000000\r\n250 PIPELINING\r\n"},
                   {"MAIL", "250 2.1.0 ok\r\n"},
                   {"RCPT", "250 2.1.5 ok\r\n"},
                   {"DATA", "354 go on\r\n"},
                   {"QUIT", "221 2.0.0 bye\r\n"}};
    if (peer->in_body) {
        if (strcmp(peer->line, ".") != 0)
            return;
        peer->in_body = false;
        site->mails++;
        emit(site, peer, TCP_PSH, "250 2.0.0 taken\r\n");
        return;
    }
    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        if (strncmp(peer->line, replies[i].verb, 4) != 0)
            continue;
        peer->in_body = i == 3;
        emit(site, peer, TCP_PSH, replies[i].reply);
        if (i == 4) {
            peer->fin_sent = true;
            emit(site, peer, TCP_FIN, NULL);
        }
        return;
    }
    fail_msg("the server was told '%s'", peer->line);
}

static void take_bytes(struct site *site, struct peer *peer, const uint8_t *bytes, uint32_t length) {
    for (uint32_t i = 0; i < length; i++) {
        if (peer->in_body) {
            site->body_bytes++;
            site->body_sum = site->body_sum * 31 + bytes[i];
        }
        assert_true(peer->line_length < sizeof(peer->line));
        peer->line[peer->line_length++] = (char)bytes[i];
        if (bytes[i] == '\n') {
            peer->line[peer->line_length < 2 ? 0 : peer->line_length - 2] = '\0';
            peer->line_length = 0;
            take_line(site, peer);
        }
    }
}

static struct peer *peer_of(struct site *site, const struct flying *flying) {
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        if (site->peers[i].used && site->peers[i].port == flying->port)
            return &site->peers[i];
    }
    for (uint32_t i = 0; i < PEERS_MAX && flying->flags & TCP_SYN; i++) {
        if (site->peers[i].used)
            continue;
        site->peers[i] = (struct peer){.used = true, .port = flying->port, .sequence = 1000000};
        return &site->peers[i];
    }
    return NULL;
}

static void arrive(struct site *site, const struct flying *flying) {
    struct peer *peer = peer_of(site, flying);
    if (!peer)
        return;
    if (flying->flags & TCP_RST) {
        site->resets++;
        peer->used = false;
    } else if (flying->flags & TCP_SYN) {
        peer->next = flying->sequence + 1;
        peer->sequence = 1000000;
        emit(site, peer, TCP_SYN, NULL);
        emit(site, peer, TCP_PSH, "220 mx.test\r\n"); /* at once: our last ACK of the handshake may get lost */
    } else if (flying->length || flying->flags & TCP_FIN) {
        uint32_t old = peer->next - flying->sequence; /* bytes that it had already; huge when some before are missing */
        if (old <= flying->length) {
            peer->next += flying->length - old;
            take_bytes(site, peer, flying->payload + old, flying->length - old);
            if (flying->flags & TCP_FIN) {
                peer->next++;
                peer->fin_received = true;
            }
        }
        emit(site, peer, TCP_ACK, NULL);
        if (peer->fin_received && !peer->fin_sent) {
            peer->fin_sent = true;
            emit(site, peer, TCP_FIN, NULL);
        }
        if (peer->fin_received && peer->fin_sent)
            peer->used = false;
    }
}

static void ring_nothing(void *context, uint32_t shard) {}

static struct site *site_new(uint32_t lose_every) {
    struct site *site = calloc(1, sizeof(*site));
    assert_non_null(site);
    site->arena = calloc(1, ARENA_BYTES);
    assert_non_null(site->arena);
    for (uint32_t i = 0; i < ARENA_BYTES / 2; i++)
        site->arena[i] = i % 80 == 78 ? '\r' : i % 80 == 79 ? '\n' : (uint8_t)('a' + i % 23);
    char file[] = "/tmp/bypost-smtp-XXXXXX", error[256] = "";
    int fd = mkstemp(file);
    assert_true(fd >= 0);
    close(fd);
    unlink(file);
    struct journal_geometry geometry = {.workers = 1, .shards = 1, .slots = SLOTS, .paths = 2};
    if (journal_open(&site->journal, file, geometry, JOURNAL_DATAPLANE, error, sizeof(error)) != 0)
        fail_msg("%s", error);
    unlink(file);
    site->now_us = 1000000;
    site->lose_every = lose_every;
    site->ours = (struct tcp_address){.bytes = {198, 51, 100, 1}, .family = 4};
    site->theirs = (struct tcp_address){.bytes = {192, 0, 2, 1}, .family = 4};
    struct smtp_config smtp = {.journal = &site->journal,
                               .dataplane_generation = 1,
                               .arena = site->arena,
                               .arena_bytes = ARENA_BYTES,
                               .max_sessions = 32,
                               .max_orders = SLOTS,
                               .ring_doorbell = ring_nothing};
    struct tcp_config tcp = {.max_connections = 64,
                             .receive_buffer_bytes = 16384,
                             .mtu = 1500,
                             .port_first = 20000,
                             .port_last = 30000,
                             .transmit = transmit,
                             .network = site};
    site->engine = smtp_engine_create(&smtp, &tcp.events);
    assert_non_null(site->engine);
    site->stack = tcp_stack_create(&tcp, site->now_us);
    assert_non_null(site->stack);
    smtp_engine_attach(site->engine, site->stack);
    struct path *path = &site->journal.paths[0];
    memcpy(path->strings + 1, "out.test", 9);
    path->endpoint_count = path->source_count = 1;
    path->endpoints[0] = (struct path_endpoint){.address = {192, 0, 2, 1}, .family = 4, .port = 25};
    path->sources[0] = (struct path_source){.address = {198, 51, 100, 1}, .family = 4, .ehlo = 1};
    path->max_deliveries_per_connection = 10;
    atomic_store(&path->word, path_word(1, PATH_LIVE));
    journal_cell(&site->journal, 0, 0)->order.sessions_allowed = 4;
    smtp_engine_hint(site->engine, ring_entry(RING_PATH, 0, 1), site->now_us);
    return site;
}

static void site_free(struct site *site) {
    tcp_stack_destroy(site->stack);
    smtp_engine_destroy(site->engine);
    journal_close(&site->journal);
    free(site->arena);
    free(site);
}

static uint32_t body_length(uint32_t index, uint32_t longest) {
    return 3 + (index * 7919) % longest;
}

static void send_one(struct site *site, uint32_t index, uint32_t longest) {
    struct slot *slot = &site->journal.slots[index];
    uint32_t length = body_length(index, longest);
    slot->next = SLOT_NONE;
    slot->path_generation = slot->dataplane_generation = 1;
    slot->sender_length = slot->recipient_length = 3;
    memcpy(slot->text, "a@bc@d", 6);
    slot->piece_count = 2;
    slot->size_bytes = length;
    slot->pieces = ARENA_BYTES / 2 + index * 2 * sizeof(struct arena_piece);
    struct arena_piece *pieces = (struct arena_piece *)(site->arena + slot->pieces);
    pieces[0] = (struct arena_piece){.offset = index, .length = length / 2};
    pieces[1] = (struct arena_piece){.offset = index + length / 2, .length = length - length / 2};
    slot_queue(slot);
    smtp_engine_hint(site->engine, ring_entry(RING_ORDER, index, 0), site->now_us);
}

static bool all_done(struct site *site, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        if (slot_word_state(slot_load(&site->journal.slots[i])) != SLOT_ANSWERED)
            return false;
    }
    return smtp_engine_idle(site->engine);
}

static void run(struct site *site, uint32_t count) {
    for (uint32_t steps = 0; steps < STEPS_MAX; steps++) {
        uint64_t wake_us = smtp_engine_poll(site->engine, 256, site->now_us);
        uint64_t tcp_us = tcp_poll(site->stack, 256, site->now_us);
        if (site->head != site->tail) {
            struct flying flying = site->queue[site->head++ % QUEUE_MAX];
            arrive(site, &flying);
            continue;
        }
        if (all_done(site, count))
            return;
        wake_us = tcp_us < wake_us ? tcp_us : wake_us;
        site->now_us = wake_us > site->now_us ? wake_us : site->now_us + 1;
    }
    fail_msg("not done after %u steps", STEPS_MAX);
}

static void deliver(uint32_t longest, uint32_t lose_every) {
    enum { COUNT = 100 };
    struct site *site = site_new(lose_every);
    uint64_t expected_bytes = 0;
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t length = body_length(i, longest);
        const uint8_t *end = site->arena + i + length;
        expected_bytes += length + (end[-2] == '\r' && end[-1] == '\n' ? 3 : 5);
        send_one(site, i, longest);
    }
    run(site, COUNT);
    for (uint32_t i = 0; i < COUNT; i++) {
        const struct slot_reply *reply = &site->journal.slots[i].reply;
        if (reply->outcome != OUTCOME_REPLIED)
            fail_msg("message %u: outcome %u: %.*s", i, reply->outcome, reply->text_length, site->journal.slots[i].text + 6);
        assert_int_equal(reply->code, 250);
        assert_int_equal(reply->stage, STAGE_FINAL);
    }
    assert_int_equal(site->mails, COUNT);
    assert_int_equal(site->body_bytes, expected_bytes);
    assert_int_equal(counter_get(&journal_counters(&site->journal, 0)->sessions_open), 0);
    assert_int_equal(counter_get(&journal_counters(&site->journal, 0)->sessions_ready), 0);
    struct tcp_usage usage;
    tcp_stack_usage(site->stack, &usage);
    assert_int_equal(usage.connections, 0);
    assert_int_equal(usage.ranges, 0);
    assert_int_equal(usage.segments_in_flight, 0);
    /* The server closed first, so that it holds TIME_WAIT. */
    if (!lose_every) {
        assert_int_equal(usage.time_wait, 0);
        assert_int_equal(site->resets, 0);
    }
    site_free(site);
}

static void small_messages_arrive_whole(void **state) {
    deliver(4096, 0);
}
static void large_messages_arrive_whole(void **state) {
    deliver(400000, 0);
}
static void messages_arrive_whole_through_loss(void **state) {
    deliver(20000, 50);
    deliver(20000, 20);
}

/* A worker that stops with work on the wire: no owner is left behind, no record is touched late. */
static void a_stack_that_goes_first_takes_its_references_along(void **state) {
    struct site *site = site_new(0);
    for (uint32_t i = 0; i < 20; i++)
        send_one(site, i, 200000);
    for (uint32_t steps = 0; steps < 300; steps++) {
        smtp_engine_poll(site->engine, 256, site->now_us);
        tcp_poll(site->stack, 256, site->now_us);
        if (site->head != site->tail) {
            struct flying flying = site->queue[site->head++ % QUEUE_MAX];
            arrive(site, &flying);
        } else {
            site->now_us += 1000;
        }
    }
    site_free(site);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_messages_arrive_whole),
        cmocka_unit_test(large_messages_arrive_whole),
        cmocka_unit_test(messages_arrive_whole_through_loss),
        cmocka_unit_test(a_stack_that_goes_first_takes_its_references_along),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
