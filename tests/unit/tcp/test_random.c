/* test_random.c: any segments, any ICMP errors and any calls in any state, drawn from a seed: nothing crashes, `closed` comes once for each
 * connection that the layer above knows, owners are released, and nothing is left in a pool. Most segments are nearly right, so that they
 * reach far. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "dataplane/tcp/tcp_conn.h"

enum { SEEN = 64, CONNS = 64, STEPS = 6000, SEEDS = 60, PAYLOAD_MAX = 3000, CONNECTIONS_MAX = 24 };

struct seen { /* the last segment of ours for a name */
    bool used;
    struct tcp_address local, remote;
    uint16_t local_port, remote_port;
    uint32_t next, acknowledgement, start;
    uint8_t flags;
};

struct known {
    struct chaos *chaos;
    struct tcp_conn *conn;
    bool open;
};

struct chaos {
    uint64_t state, now_us;
    struct tcp_stack *stack;
    struct seen seen[SEEN];
    struct known known[CONNS];
    uint32_t owners, depth;
    uint64_t accepted, connected, closed;
    bool quiet; /* calls nothing more */
};

static uint8_t bytes[1 << 16];

static uint32_t draw(struct chaos *chaos, uint32_t bound) {
    chaos->state = chaos->state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)(((chaos->state >> 33) * bound) >> 31);
}

static bool chance(struct chaos *chaos, uint32_t percent) {
    return draw(chaos, 100) < percent;
}

static void release(struct tcp_owner *owner) {
    struct chaos **chaos = (struct chaos **)(void *)(owner + 1);
    (*chaos)->owners--;
    free(owner);
}

/* Anything that a layer above may do. */
static void act(struct known *known) {
    struct chaos *chaos = known->chaos;
    if (!known->open || known->conn == NULL || chaos->quiet || chaos->depth > 3) {
        return;
    }
    chaos->depth++;
    switch (draw(chaos, 8)) {
    case 0:
    case 1:
    case 2: {
        struct tcp_owner *owner = malloc(sizeof(*owner) + sizeof(chaos));
        *owner = (struct tcp_owner){.references = 1, .release = release};
        memcpy(owner + 1, &chaos, sizeof(chaos));
        chaos->owners++;
        struct tcp_piece pieces[20];
        uint32_t count = 1 + draw(chaos, 20);
        for (uint32_t i = 0; i < count; i++) {
            pieces[i] = (struct tcp_piece){.bytes = bytes + draw(chaos, 30000), .length = draw(chaos, chance(chaos, 20) ? 9000 : 200)};
            pieces[i].owner = chance(chaos, 50) ? owner : NULL;
        }
        tcp_send(known->conn, pieces, count, chaos->now_us);
        tcp_output(known->conn, chaos->now_us);
        if (--owner->references == 0) {
            release(owner);
        }
        break;
    }
    case 3:
        tcp_receive_resume(known->conn, chaos->now_us);
        break;
    case 4:
        if (chance(chaos, 20)) {
            tcp_close(known->conn, chaos->now_us);
        }
        break;
    case 5:
        if (chance(chaos, 5)) {
            tcp_abort(known->conn, chaos->now_us);
        }
        break;
    case 6:
        tcp_set_user_timeout(known->conn, draw(chaos, 100) * 1000000ULL);
        break;
    default:
        assert_true(tcp_unsent(known->conn) <= tcp_unacknowledged(known->conn));
        tcp_is_open(known->conn);
        tcp_rtt_us(known->conn);
    }
    chaos->depth--;
}

static struct known *known_new(struct chaos *chaos) {
    for (uint32_t i = 0; i < CONNS; i++) {
        if (!chaos->known[i].open) {
            chaos->known[i] = (struct known){.chaos = chaos, .open = true};
            return &chaos->known[i];
        }
    }
    return NULL;
}

static void on_connected(void *user, struct tcp_conn *conn, uint64_t now_us) {
    struct known *known = user;
    assert_true(known->open);
    known->chaos->connected++;
    act(known);
}

static void *on_accepted(void *listener_user, struct tcp_conn *conn, uint64_t now_us) {
    struct chaos *chaos = listener_user;
    struct known *known = chance(chaos, 10) ? NULL : known_new(chaos);
    if (known != NULL) {
        known->conn = conn;
        chaos->accepted++;
    }
    if (known != NULL) {
        act(known);
    } else if (chance(chaos, 30)) {
        tcp_abort(conn, now_us);
    }
    return known;
}

static uint32_t on_received(void *user, struct tcp_conn *conn, const uint8_t *text, uint32_t length, uint64_t now_us) {
    struct known *known = user;
    assert_true(known->open && length > 0);
    volatile uint8_t sum = 0;
    for (uint32_t i = 0; i < length; i++) {
        sum = (uint8_t)(sum + text[i]); /* all of it may be read */
    }
    act(known);
    return known->chaos->quiet || chance(known->chaos, 70) ? length : draw(known->chaos, length + 1);
}

static void on_peer_closed(void *user, struct tcp_conn *conn, uint64_t now_us) {
    assert_true(((struct known *)user)->open);
    act(user);
}

static void on_acknowledged(void *user, struct tcp_conn *conn, uint32_t count, uint64_t now_us) {
    assert_true(((struct known *)user)->open && count > 0);
    act(user);
}

static void on_closed(void *user, struct tcp_conn *conn, enum tcp_error error, uint64_t now_us) {
    struct known *known = user;
    assert_true(known->open);
    known->open = false;
    known->conn = NULL;
    known->chaos->closed++;
}

static int transmit(void *network, const struct tcp_segment *segment) {
    struct chaos *chaos = network;
    uint32_t length = 0;
    for (uint32_t i = 0; i < segment->piece_count; i++) {
        length += segment->pieces[i].length;
    }
    assert_int_equal(length, segment->payload_length);
    if (chance(chaos, 5)) {
        return chance(chaos, 80) ? -EAGAIN : -EHOSTUNREACH;
    }
    struct seen *place = &chaos->seen[draw(chaos, SEEN)];
    for (uint32_t i = 0; i < SEEN; i++) {
        struct seen *seen = &chaos->seen[i];
        if (seen->used && seen->local_port == segment->local_port && seen->remote_port == segment->remote_port &&
            seen->local.family == segment->local.family) {
            place = seen;
        }
    }
    *place = (struct seen){.used = true,
                           .local = segment->local,
                           .remote = segment->remote,
                           .local_port = segment->local_port,
                           .remote_port = segment->remote_port,
                           .start = segment->sequence,
                           .next = segment->sequence + length + ((segment->flags & (TCP_SYN | TCP_FIN)) != 0),
                           .acknowledgement = segment->acknowledgement,
                           .flags = segment->flags};
    return 0;
}

static void put32(uint8_t *to, uint32_t value) {
    to[0] = (uint8_t)(value >> 24);
    to[1] = (uint8_t)(value >> 16);
    to[2] = (uint8_t)(value >> 8);
    to[3] = (uint8_t)value;
}

static uint32_t near(struct chaos *chaos, uint32_t number) {
    switch (draw(chaos, 10)) {
    case 0:
        return number + 1;
    case 1:
        return number - 1;
    case 2:
        return number + draw(chaos, 20000);
    case 3:
        return number - draw(chaos, 20000);
    case 4:
        return chance(chaos, 10) ? (uint32_t)chaos->state : number;
    default:
        return number;
    }
}

static uint32_t put_options(struct chaos *chaos, const struct seen *seen, uint8_t flags, uint8_t *to) {
    uint32_t at = 0;
    if (chance(chaos, 5)) {
        at = draw(chaos, 11) * 4;
        for (uint32_t i = 0; i < at; i++) {
            to[i] = (uint8_t)draw(chaos, chance(chaos, 50) ? 12 : 256);
        }
        return at;
    }
    if ((flags & TCP_SYN) != 0) {
        static const uint8_t syn[] = {2, 4, 5, 0xb4, 4, 2, 1, 1, 1, 3, 3, 7};
        at = 4 * draw(chaos, 4);
        memcpy(to, syn, at);
        if (at > 0) {
            to[2] = (uint8_t)draw(chaos, 8);
        }
    }
    if (chance(chaos, 70)) {
        memcpy(to + at, "\x01\x01\x08\x0a", 4);
        put32(to + at + 4, (uint32_t)(chaos->now_us >> 10) - (chance(chaos, 10) ? draw(chaos, 100000) : 0));
        put32(to + at + 8, (uint32_t)draw(chaos, 1 << 30));
        at += 12;
    }
    if (chance(chaos, 20)) {
        memcpy(to + at, "\x01\x01\x05\x0a", 4);
        uint32_t left = seen->start - draw(chaos, 5000);
        put32(to + at + 4, left);
        put32(to + at + 8, left + draw(chaos, 5000));
        at += 12;
    }
    return at;
}

/* To one of our names, or to a listener. */
static void put_segment(struct chaos *chaos) {
    static const uint8_t kinds[] = {TCP_ACK, TCP_ACK,           TCP_ACK, TCP_ACK | TCP_PSH, TCP_ACK | TCP_FIN,
                                    TCP_RST, TCP_RST | TCP_ACK, TCP_SYN, TCP_SYN | TCP_ACK, 0};
    struct seen stranger = {.local = {.bytes = {192, 0, 2, 1}, .family = 4},
                            .remote = {.bytes = {198, 51, 100, 9}, .family = 4},
                            .local_port = 25,
                            .remote_port = (uint16_t)(1000 + draw(chaos, 12))};
    const struct seen *seen = &chaos->seen[draw(chaos, SEEN)];
    uint8_t flags = kinds[draw(chaos, sizeof(kinds))];
    if (!seen->used || chance(chaos, 10)) {
        seen = &stranger;
        flags = chance(chaos, 80) ? TCP_SYN : flags;
    } else if (seen->flags == TCP_SYN && chance(chaos, 80)) {
        flags = TCP_SYN | TCP_ACK;
    } else if ((flags & TCP_RST) != 0 && chance(chaos, 80)) {
        flags = TCP_ACK;
    }
    uint32_t length = chance(chaos, 50) ? 0 : draw(chaos, chance(chaos, 20) ? PAYLOAD_MAX : 300);
    uint8_t options[60];
    uint32_t options_length = put_options(chaos, seen, flags, options), header = 20 + options_length;
    header = header > 60 ? 60 : header;
    uint32_t size = header + length;
    uint8_t *segment = malloc(size);
    segment[0] = (uint8_t)(seen->remote_port >> 8);
    segment[1] = (uint8_t)seen->remote_port;
    segment[2] = (uint8_t)(seen->local_port >> 8);
    segment[3] = (uint8_t)seen->local_port;
    put32(segment + 4, near(chaos, seen->acknowledgement));
    put32(segment + 8, near(chaos, seen->next));
    segment[12] = (uint8_t)(header / 4 << 4);
    segment[13] = flags;
    segment[14] = (uint8_t)(chance(chaos, 10) ? 0 : draw(chaos, 256));
    segment[15] = (uint8_t)(chance(chaos, 10) ? 0 : draw(chaos, 256));
    memset(segment + 16, 0, 4);
    memcpy(segment + 20, options, header - 20);
    memset(segment + header, 'x', length);
    if (chance(chaos, 1)) {
        size = draw(chaos, size + 1); /* cut short */
    } else if (chance(chaos, 1)) {
        segment[12] = (uint8_t)draw(chaos, 256);
    }
    uint8_t *exact = malloc(size > 0 ? size : 1);
    memcpy(exact, segment, size);
    free(segment);
    struct tcp_packet packet = {.local = seen->local, .remote = seen->remote, .header = exact, .length = size};
    if (chance(chaos, 30)) {
        tcp_prefetch(chaos->stack, &packet);
    }
    tcp_input(chaos->stack, &packet, chaos->now_us);
    free(exact);
}

static void put_error(struct chaos *chaos) {
    static const uint16_t mtus[] = {0, 0, 1, 68, 296, 576, 1000, 1280, 1400, 1499, 1500, 9000, 65535};
    const struct seen *seen = &chaos->seen[draw(chaos, SEEN)];
    if (seen->used) {
        tcp_input_error(chaos->stack, &seen->local, seen->local_port, &seen->remote, seen->remote_port, near(chaos, seen->start),
                        chance(chaos, 50), mtus[draw(chaos, sizeof(mtus) / sizeof(mtus[0]))], chaos->now_us);
    }
}

static void open_one(struct chaos *chaos) {
    struct tcp_address local = {.bytes = {192, 0, 2, 1}, .family = 4}, remote = {.bytes = {198, 51, 100, 1}, .family = 4};
    if (chance(chaos, 30)) {
        local = (struct tcp_address){.bytes = {0x20, 1, 0xd, 0xb8, [15] = 1}, .family = 6};
        remote = (struct tcp_address){.bytes = {0x20, 1, 0xd, 0xb8, [15] = 2}, .family = 6};
    }
    struct known *known = known_new(chaos);
    if (known != NULL && tcp_connect(chaos->stack, &local, &remote, (uint16_t)(25 + draw(chaos, 3)), 1000000ULL * (1 + draw(chaos, 60)),
                                     known, &known->conn, chaos->now_us) != 0) {
        known->open = false;
    }
}

/* Whatever waits for something has a deadline of its own, and the wheel knows of it in time: one timer serves the timeout, the probes and
 * the reordering window, and none of them may end without another where something is in flight or may not go. */
static void expect_deadline(const struct tcp_stack *stack, const struct tcp_conn *conn) {
    bool sends = conn->flight_head != TCP_NONE || (conn_sends(conn) && tcp_output_waits(conn));
    if (!conn_synchronized(conn) || sends) {
        assert_true(conn->retransmit_at != TCP_NEVER || conn->retry_at != TCP_NEVER);
    }
    if (conn->state == TCP_STATE_FIN_WAIT_2 || conn->state == TCP_STATE_TIME_WAIT || !conn_synchronized(conn)) {
        assert_true(conn->limit_at != TCP_NEVER);
    }
    if (conn_synchronized(conn) && (conn->flags & CONN_ACK_PENDING) != 0) { /* in the handshake the SYN-ACK says the same */
        assert_true((conn->flags & CONN_ACK_LISTED) != 0 || conn->ack_at != TCP_NEVER || conn->retry_at != TCP_NEVER);
    }
    uint64_t at = conn->retransmit_at < conn->retry_at ? conn->retransmit_at : conn->retry_at;
    at = conn->ack_at < at ? conn->ack_at : at;
    at = conn->limit_at < at ? conn->limit_at : at;
    if (at != TCP_NEVER) {
        assert_true(conn->timer.slot != TCP_NONE);
        uint64_t tick = (at >> TCP_WHEEL_TICK_SHIFT) + 1, least = stack->wheel.tick + 1;
        assert_true(stack->wheel.tick + (uint32_t)(conn->timer.tick - (uint32_t)stack->wheel.tick) <= (tick > least ? tick : least));
    }
}

static void expect_deadlines(const struct tcp_stack *stack) {
    for (uint32_t bucket = 0; bucket <= stack->conn_mask; bucket++) {
        for (uint32_t i = stack->conn_heads[bucket]; i != TCP_NONE; i = conn_at(stack, i)->hash_next) {
            expect_deadline(stack, conn_at(stack, i));
        }
    }
}

static void live(struct chaos *chaos) {
    for (uint32_t step = 0; step < STEPS; step++) {
        uint32_t what = draw(chaos, 100);
        if (what < 70) {
            put_segment(chaos);
        } else if (what < 74) {
            put_error(chaos);
        } else if (what < 78) {
            open_one(chaos);
        } else if (what < 90) {
            act(&chaos->known[draw(chaos, CONNS)]);
        } else {
            tcp_poll(chaos->stack, 1 + draw(chaos, 30), chaos->now_us);
            chaos->now_us += chance(chaos, 90) ? draw(chaos, 20000) : chance(chaos, 90) ? draw(chaos, 3000000) : draw(chaos, 1000000000);
        }
        expect_deadlines(chaos->stack);
    }
}

/* Whatever is left ends by itself or is aborted; two minutes later nothing is left. */
static void settle(struct chaos *chaos) {
    chaos->quiet = true;
    for (uint32_t i = 0; i < CONNS; i++) {
        if (chaos->known[i].open && chaos->known[i].conn != NULL) {
            tcp_abort(chaos->known[i].conn, chaos->now_us);
        }
    }
    for (uint32_t i = 0; i < 2000; i++) {
        tcp_poll(chaos->stack, 1000, chaos->now_us);
        chaos->now_us += 100000;
    }
    struct tcp_usage usage;
    tcp_stack_usage(chaos->stack, &usage);
    assert_memory_equal(&usage, &(struct tcp_usage){0}, sizeof(usage));
    for (uint32_t i = 0; i < CONNS; i++) {
        assert_false(chaos->known[i].open);
    }
    assert_int_equal(chaos->owners, 0);
}

static void any_segments_in_any_state(void **state) {
    uint64_t accepted = 0, connected = 0, closed = 0;
    uint64_t first = getenv("SEED") != NULL ? strtoull(getenv("SEED"), NULL, 10) : 1;
    uint64_t seeds = getenv("SEEDS") != NULL ? strtoull(getenv("SEEDS"), NULL, 10) : SEEDS;
    for (uint64_t seed = first; seed < first + seeds; seed++) {
        static struct chaos chaos;
        chaos = (struct chaos){.state = seed * 0x9e3779b97f4a7c15ULL, .now_us = 5000000000ULL};
        struct tcp_config config = {.max_connections = CONNECTIONS_MAX,
                                    .max_half_open = draw(&chaos, 6),
                                    .max_time_wait = 1 + draw(&chaos, 20),
                                    .max_segments_in_flight = chance(&chaos, 30) ? 2 + draw(&chaos, 30) : 0,
                                    .max_ranges = chance(&chaos, 30) ? 30 + draw(&chaos, 100) : 0,
                                    .max_receive_blocks = chance(&chaos, 30) ? 1 + draw(&chaos, 8) : 0,
                                    .receive_buffer_bytes = chance(&chaos, 50) ? 16384 : 200000,
                                    .mtu = chance(&chaos, 80) ? 1500 : 9000,
                                    .port_first = 20000,
                                    .port_last = (uint16_t)(20000 + draw(&chaos, 30)),
                                    .keepalive_us = chance(&chaos, 50) ? 2000000 : 0,
                                    .user_timeout_us = 20000000,
                                    .segmentation_bytes_max = chance(&chaos, 50) ? draw(&chaos, 65536) : 0,
                                    .congestion = chance(&chaos, 50) ? TCP_CUBIC : TCP_NEWRENO,
                                    .secret = "0123456789abcde",
                                    .transmit = transmit,
                                    .network = &chaos,
                                    .events = {.connected = on_connected,
                                               .received = on_received,
                                               .peer_closed = on_peer_closed,
                                               .acknowledged = on_acknowledged,
                                               .closed = on_closed,
                                               .accepted = on_accepted}};
        chaos.stack = tcp_stack_create(&config, chaos.now_us);
        assert_non_null(chaos.stack);
        assert_int_equal(tcp_listen(chaos.stack, &(struct tcp_address){.family = 4}, 25, &chaos), 0);
        assert_int_equal(tcp_listen(chaos.stack, &(struct tcp_address){.family = 6}, 25, &chaos), 0);
        live(&chaos);
        if (seed % 4 != 0) { /* else it is destroyed as it is */
            settle(&chaos);
        }
        tcp_stack_destroy(chaos.stack);
        assert_int_equal(chaos.owners, 0);
        accepted += chaos.accepted;
        connected += chaos.connected;
        closed += chaos.closed;
    }
    print_message("%llu accepted, %llu connected, %llu closed\n", (unsigned long long)accepted, (unsigned long long)connected,
                  (unsigned long long)closed);
    if (seeds >= SEEDS) { /* it got somewhere */
        assert_true(accepted > seeds && connected > seeds);
    }
}

int main(void) {
    for (uint32_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)i;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(any_segments_in_any_state)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
