/* sim_tcp.c: the stack against model peers over a virtual wire with loss, duplication, reordering and delay, in virtual time. One seed is
 * one world; the same seed gives the same run. Checked all the way: the bytes both ways, the rules of sequence numbers and windows on every
 * segment, one `closed` for each connection, and that nothing is left in a pool. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/tcp/tcp.h"
#include "model_peer.h"

enum {
    CONNECTIONS_MAX = 6,
    STREAM_MAX = 300 * 1000,
    EVENTS_MAX = 1 << 16,
    STEPS_MAX = 4 * 1000 * 1000,
    MTU = 1500,
    PATIENCE_US = 600 * 1000 * 1000,
};
#define NEVER        UINT64_MAX
#define WORLD_END_US (48ULL * 3600 * 1000 * 1000)

struct event { /* a segment on its way */
    uint64_t at_us, order;
    struct model_segment segment;
    uint8_t connection;
    bool to_stack;
};

struct owner {
    struct tcp_owner base;
    struct world *world;
    uint8_t *bytes; /* freed with the last reference: a later read is a use after free */
};

struct app { /* the layer above the stack, for one connection */
    struct world *world;
    struct tcp_conn *conn;
    struct model_peer peer;
    struct tcp_address local, remote;
    uint16_t local_port, remote_port;
    uint32_t iss;
    bool syn_seen;
    uint8_t shift;      /* that our SYN offered */
    uint8_t sent_shift; /* that is in force */
    uint32_t stream_bytes, queued, received;
    uint32_t sent_max; /* the highest sequence number sent */
    uint32_t offered_edge;
    bool offered;
    uint32_t last_ack;
    bool connected, closes_first, close_called, lazy, fin_sent, opened, peer_closed;
    uint32_t abort_at; /* bytes queued after which it aborts; UINT32_MAX: never */
    bool aborted;
    uint32_t closed;
    enum tcp_error error;
    uint64_t act_at;
    uint32_t most_unacknowledged;
};

struct world {
    uint64_t seed, now_us, order;
    struct sim_random random;
    struct tcp_stack *stack;
    struct event *events[EVENTS_MAX];
    uint32_t event_count;
    struct app apps[CONNECTIONS_MAX];
    uint32_t app_count;
    uint32_t loss, duplicate, reorder, busy; /* per thousand */
    uint32_t delay_us, jitter_us;
    bool strangers; /* blind segments are injected */
    uint32_t owners;
    bool trace;
    const char *failure;
};

/* What all worlds together came through: a simulator that never loses a segment proves nothing. */
struct totals {
    uint64_t segments, fast, timeouts, out_of_order, duplicates, challenges, time_wait, pool_exhausted, refused, resets;
};

static uint8_t stream_down[STREAM_MAX], stream_up[STREAM_MAX];

static void fail(struct world *world, const char *what) {
    if (world->failure == NULL) {
        world->failure = what;
    }
}

static void trace(const struct world *world, const char *way, const struct app *app, const struct model_segment *segment,
                  const char *fate) {
    if (!world->trace) {
        return;
    }
    printf("%12.6f %s c%ld %c%c%c%c seq %d len %u ack %d win %u %s\n", (double)world->now_us / 1e6, way, (long)(app - world->apps),
           segment->flags & MODEL_SYN ? 'S' : '-', segment->flags & MODEL_FIN ? 'F' : '-', segment->flags & MODEL_RST ? 'R' : '-',
           segment->flags & MODEL_ACK ? 'A' : '-', (int)(segment->sequence - (way[0] == '>' ? app->iss : app->peer.iss)), segment->length,
           (int)(segment->acknowledgement - (way[0] == '>' ? app->peer.iss : app->iss)), segment->window, fate);
}

static bool earlier(const struct event *a, const struct event *b) {
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

static void event_push(struct world *world, struct event *event) {
    if (world->event_count == EVENTS_MAX) {
        fail(world, "more segments on the wire than a world holds");
        free(event->segment.payload);
        free(event);
        return;
    }
    uint32_t at = world->event_count++;
    while (at > 0 && earlier(event, world->events[(at - 1) / 2])) {
        world->events[at] = world->events[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    world->events[at] = event;
}

static struct event *event_pop(struct world *world) {
    struct event *top = world->events[0], *last = world->events[--world->event_count];
    uint32_t at = 0;
    while (2 * at + 1 < world->event_count) {
        uint32_t child = 2 * at + 1;
        if (child + 1 < world->event_count && earlier(world->events[child + 1], world->events[child])) {
            child++;
        }
        if (!earlier(world->events[child], last)) {
            break;
        }
        world->events[at] = world->events[child];
        at = child;
    }
    world->events[at] = last;
    return top;
}

/* Puts a segment on the wire; it may be lost, doubled, late. Corruption is loss: checksums are checked below TCP. */
static void wire_carry(struct world *world, struct app *app, const struct model_segment *segment, bool to_stack) {
    const char *way = to_stack ? "<" : ">";
    if (random_chance(&world->random, world->loss)) {
        trace(world, way, app, segment, "lost");
        return;
    }
    uint32_t copies = random_chance(&world->random, world->duplicate) ? 2 : 1;
    trace(world, way, app, segment, copies == 2 ? "doubled" : "");
    for (uint32_t i = 0; i < copies; i++) {
        struct event *event = malloc(sizeof(*event));
        event->segment = *segment;
        event->segment.payload = malloc(segment->length + 1);
        if (segment->length > 0) {
            memcpy(event->segment.payload, segment->payload, segment->length);
        }
        event->connection = (uint8_t)(app - world->apps);
        event->to_stack = to_stack;
        event->at_us = world->now_us + world->delay_us;
        if (random_chance(&world->random, world->reorder)) {
            event->at_us += random_range(&world->random, 0, world->jitter_us);
        }
        event->order = world->order++;
        event_push(world, event);
    }
}

/* The rules that every segment of ours keeps, whatever happens. */
static void check_segment(struct world *world, struct app *app, const struct model_segment *out, bool first) {
    const struct model_peer *peer = &app->peer;
    uint32_t space = out->length + ((out->flags & MODEL_FIN) != 0), end = out->sequence + space;
    if ((out->flags & MODEL_SYN) != 0) {
        return;
    }
    if ((out->flags & MODEL_RST) != 0) {
        return;
    }
    uint32_t base = app->iss + 1, last = base + app->queued;
    if ((int32_t)(out->sequence - base) < 0 ||
        (int32_t)(out->sequence + out->length - last) > (app->fin_sent && out->length == 0 ? 1 : 0)) {
        fail(world, "bytes outside the stream");
        return;
    }
    if (out->length > 0 && memcmp(out->payload, stream_up + (out->sequence - base), out->length) != 0) {
        fail(world, "a segment does not carry its stream's bytes");
    }
    uint32_t mss = peer->habits.mss == 0 ? 536 : peer->habits.mss;
    if (out->length + out->options_length > (mss < 88 ? 88 : mss)) {
        fail(world, "a segment beyond the peer's MSS");
    }
    if ((out->flags & MODEL_FIN) != 0) {
        if (!app->close_called || out->sequence + out->length != last) {
            fail(world, "FIN where the stream does not end");
        }
        app->fin_sent = true;
    } else if (out->length == 0 && (int32_t)(out->sequence - app->sent_max) > 0) {
        fail(world, "an ACK from a sequence number never sent");
    }
    if (space > 1 && (int32_t)(end - peer->max_right_edge) > 0) {
        fail(world, "beyond the peer's window");
    }
    bool unsent = (int32_t)(out->sequence - app->sent_max) >= 0;
    if (space > 0 && first != unsent) {
        fail(world, "first_transmission is wrong");
    }
    if ((int32_t)(end - app->sent_max) > 0) {
        app->sent_max = end;
    }
    if (app->opened && (int32_t)(out->acknowledgement - app->last_ack) < 0) {
        fail(world, "the acknowledgement went back");
    }
    app->last_ack = out->acknowledgement;
    app->opened = true;
    uint32_t edge = out->acknowledgement + ((uint32_t)out->window << app->sent_shift);
    if (app->closed == 0 && app->offered && (int32_t)(edge + (1U << app->sent_shift) - 1 - app->offered_edge) < 0 && !app->peer_closed) {
        fail(world, "the offered window shrank");
    }
    if (!app->offered || (int32_t)(edge - app->offered_edge) > 0) {
        app->offered_edge = edge;
        app->offered = true;
    }
}

static struct app *find_app(struct world *world, const struct tcp_segment *segment) {
    for (uint32_t i = 0; i < world->app_count; i++) {
        struct app *app = &world->apps[i];
        if (app->remote_port == segment->remote_port && (!app->syn_seen || app->local_port == segment->local_port)) {
            return app;
        }
    }
    return NULL;
}

static int world_transmit(void *network, const struct tcp_segment *segment) {
    struct world *world = network;
    struct app *app = find_app(world, segment);
    if (app == NULL) {
        fail(world, "a segment of no connection");
        return 0;
    }
    if (random_chance(&world->random, world->busy)) {
        return -EAGAIN;
    }
    if (!app->syn_seen) {
        if (segment->flags != TCP_SYN) {
            fail(world, "the first segment is no SYN");
        }
        app->syn_seen = true;
        app->local = segment->local;
        app->local_port = segment->local_port;
        app->iss = segment->sequence;
        app->sent_max = segment->sequence + 1;
    }
    uint8_t payload[65536];
    struct model_segment out = {.sequence = segment->sequence,
                                .acknowledgement = segment->acknowledgement,
                                .window = segment->window,
                                .flags = segment->flags,
                                .options_length = segment->options_length,
                                .payload = payload};
    if (segment->options_length > 0) {
        memcpy(out.options, segment->options, segment->options_length);
    }
    for (uint32_t i = 0; i < segment->piece_count; i++) {
        memcpy(payload + out.length, segment->pieces[i].bytes, segment->pieces[i].length);
        out.length += segment->pieces[i].length;
    }
    if (out.length != segment->payload_length) {
        fail(world, "payload_length is not the sum of the pieces");
    }
    if ((out.flags & MODEL_SYN) != 0) {
        app->shift = segment->options[segment->options_length - 1];
    }
    check_segment(world, app, &out, segment->first_transmission);
    wire_carry(world, app, &out, false);
    return 0;
}

static void peer_emit(void *context, struct model_peer *peer, const struct model_segment *segment) {
    struct world *world = context;
    struct app *app = &world->apps[0];
    while (&app->peer != peer) {
        app++;
    }
    if (app->offered && segment->length > 1 && (int32_t)(segment->sequence + segment->length - app->offered_edge) > 0) {
        fail(world, "the model sent beyond our window: the model is wrong");
    }
    wire_carry(world, app, segment, true);
}

static void owner_release(struct tcp_owner *base) {
    struct owner *owner = (struct owner *)(void *)base;
    owner->world->owners--;
    free(owner->bytes);
    free(owner);
}

/* Queues a message as pieces with one owner, some of which outlive everything. */
static void app_send(struct app *app, uint32_t bytes) {
    struct world *world = app->world;
    struct tcp_piece pieces[24];
    struct owner *owner = malloc(sizeof(*owner));
    *owner = (struct owner){.base = {.references = 1, .release = owner_release}, .world = world, .bytes = malloc(bytes)};
    memcpy(owner->bytes, stream_up + app->queued, bytes);
    world->owners++;
    uint32_t count = 0, at = 0;
    while (at < bytes) {
        uint32_t length = count == 23 ? bytes - at : random_range(&world->random, 1, bytes - at);
        if (random_chance(&world->random, 300)) {
            length = 1 + length / 50;
        }
        length = length > bytes - at || count == 23 ? bytes - at : length;
        bool lasting = random_chance(&world->random, 200);
        pieces[count++] = (struct tcp_piece){
            .bytes = lasting ? stream_up + app->queued + at : owner->bytes + at, .length = length, .owner = lasting ? NULL : &owner->base};
        at += length;
    }
    int rc = tcp_send(app->conn, pieces, count, world->now_us);
    if (rc == 0) {
        app->queued += bytes;
    } else if (rc != -ENOBUFS && rc != -EPIPE) {
        fail(world, "tcp_send answers what it should not");
    }
    if (--owner->base.references == 0) {
        owner_release(&owner->base);
    }
}

static void app_write(struct app *app) {
    struct world *world = app->world;
    if (app->conn == NULL || app->closed > 0 || app->close_called || app->aborted) {
        return;
    }
    while (app->queued < app->stream_bytes && tcp_unacknowledged(app->conn) < app->most_unacknowledged) {
        uint32_t left = app->stream_bytes - app->queued, most = left < 6000 ? left : 6000, before = app->queued;
        app_send(app, random_range(&world->random, 1, most));
        if (app->queued >= app->abort_at) {
            app->aborted = true;
            tcp_abort(app->conn, world->now_us);
            return;
        }
        if (app->queued == before || random_chance(&world->random, 300)) {
            break;
        }
    }
    tcp_output(app->conn, world->now_us);
    if (app->connected && app->queued == app->stream_bytes && (app->closes_first || app->peer_closed)) {
        app->close_called = true;
        tcp_close(app->conn, world->now_us);
    }
}

static void on_connected(void *user, struct tcp_conn *conn, uint64_t now_us) {
    struct app *app = user;
    app->connected = true;
    app->sent_shift = app->peer.scaling ? app->shift : 0;
    if (random_chance(&app->world->random, 500)) {
        app_write(app);
    }
}

static uint32_t on_received(void *user, struct tcp_conn *conn, const uint8_t *bytes, uint32_t length, uint64_t now_us) {
    struct app *app = user;
    struct world *world = app->world;
    uint32_t take = length;
    if (app->lazy && random_chance(&world->random, 400)) {
        take = random_range(&world->random, 0, length);
    }
    if (app->received + length > app->peer.habits.send_bytes || memcmp(bytes, stream_down + app->received, length) != 0) {
        fail(world, "received bytes are not the peer's");
        return length;
    }
    app->received += take;
    if (random_chance(&world->random, 300)) {
        app_write(app);
    }
    return take;
}

static void on_peer_closed(void *user, struct tcp_conn *conn, uint64_t now_us) {
    struct app *app = user;
    if (app->peer_closed || app->received != app->peer.habits.send_bytes) {
        fail(app->world, "peer_closed at the wrong time");
    }
    app->peer_closed = true;
    app_write(app);
}

static void on_acknowledged(void *user, struct tcp_conn *conn, uint32_t bytes, uint64_t now_us) {
    struct app *app = user;
    if (random_chance(&app->world->random, 500)) {
        app_write(app);
    }
}

static void on_closed(void *user, struct tcp_conn *conn, enum tcp_error error, uint64_t now_us) {
    struct app *app = user;
    app->closed++;
    app->error = error;
    app->act_at = NEVER;
    app->conn = NULL;
    if (app->world->trace) {
        printf("%12.6f c%ld closed: %s\n", (double)now_us / 1e6, (long)(app - app->world->apps), tcp_error_text(error));
    }
}

static void app_act(struct app *app) {
    struct world *world = app->world;
    app->act_at = world->now_us + random_range(&world->random, 1000, 50000);
    if (app->conn == NULL) {
        return;
    }
    if (app->peer.was_reset && world->now_us > app->peer.habits.reset_at_us + PATIENCE_US) {
        app->aborted = true; /* the RST was lost and nothing is in flight that would bring another: only time tells */
        tcp_abort(app->conn, world->now_us);
        return;
    }
    if (app->lazy) {
        tcp_receive_resume(app->conn, world->now_us);
    }
    if (app->conn != NULL) {
        app_write(app);
    }
}

/* Bytes on the wire for a segment towards the stack. */
static void deliver_to_stack(struct world *world, struct app *app, const struct model_segment *in) {
    uint32_t header = 20U + in->options_length, length = header + in->length;
    uint8_t *bytes = malloc(length);
    uint16_t ports[2] = {app->remote_port, app->local_port};
    uint32_t numbers[2] = {in->sequence, in->acknowledgement};
    for (int i = 0; i < 2; i++) {
        bytes[2 * i] = (uint8_t)(ports[i] >> 8);
        bytes[2 * i + 1] = (uint8_t)ports[i];
        for (int b = 0; b < 4; b++) {
            bytes[4 + 4 * i + b] = (uint8_t)(numbers[i] >> (24 - 8 * b));
        }
    }
    bytes[12] = (uint8_t)(header / 4 << 4);
    bytes[13] = in->flags;
    bytes[14] = (uint8_t)(in->window >> 8);
    bytes[15] = (uint8_t)in->window;
    memset(bytes + 16, 0, 4);
    memcpy(bytes + 20, in->options, in->options_length);
    if (in->length > 0) {
        memcpy(bytes + header, in->payload, in->length);
    }
    struct tcp_packet packet = {.local = app->local, .remote = app->remote, .header = bytes, .length = length};
    tcp_input(world->stack, &packet, world->now_us);
    free(bytes);
}

/* A segment from one who sees neither side's numbers (RFC 5961): it may earn an answer, and changes nothing. */
static void inject_stranger(struct world *world) {
    struct app *app = &world->apps[random_range(&world->random, 0, world->app_count - 1)];
    static const uint8_t kinds[] = {MODEL_RST, MODEL_RST | MODEL_ACK, MODEL_SYN, MODEL_SYN | MODEL_ACK, MODEL_FIN | MODEL_ACK, MODEL_ACK};
    struct model_segment blind = {.sequence = app->last_ack + 1000000 + (uint32_t)(random_next(&world->random) & 0x3fffffff),
                                  .acknowledgement = (uint32_t)random_next(&world->random),
                                  .window = (uint16_t)random_next(&world->random),
                                  .flags = kinds[random_range(&world->random, 0, 5)]};
    if (!app->syn_seen || !app->opened || app->closed > 0) {
        return;
    }
    if (random_chance(&world->random, 300) && (blind.flags & (MODEL_RST | MODEL_SYN)) != 0) {
        blind.sequence = app->last_ack + random_range(&world->random, 2, 900); /* within the window: a challenge ACK, no more */
    }
    deliver_to_stack(world, app, &blind);
}

static void draw_habits(struct world *world, struct app *app) {
    struct sim_random *random = &world->random;
    static const uint16_t sizes[] = {0, 88, 300, 536, 1000, 1460, 1460, 1460, 9000};
    static const uint32_t buffers[] = {1, 20, 700, 3000, 16384, 65535, 65535, 1000000, 1000000};
    struct model_habits *habits = &app->peer.habits;
    *habits = (struct model_habits){.mss = sizes[random_range(random, 0, 8)],
                                    .shift = (int)random_range(random, 0, 10) - 1,
                                    .timestamps = random_chance(random, 500),
                                    .buffer_bytes = buffers[random_range(random, 0, 8)],
                                    .window_updates = random_chance(random, 700),
                                    .ack_every = random_range(random, 1, 3),
                                    .ack_delay_us = random_range(random, 1000, 200000),
                                    .segment_bytes = random_chance(random, 300) ? random_range(random, 1, 200) : 1460,
                                    .segments_in_flight = random_range(random, 1, 12)};
    if (habits->shift > 0 && habits->buffer_bytes < 3000) {
        habits->shift = 0; /* a window that the unit hides would never open */
    }
    if (random_chance(random, 300)) {
        habits->read_every_us = random_range(random, 1000, 300000);
        habits->read_bytes = random_chance(random, 500) ? 0 : random_range(random, 1, habits->buffer_bytes);
    }
    uint32_t scale = habits->buffer_bytes < 3000 ? habits->buffer_bytes * 40 : 200000;
    app->stream_bytes = random_chance(random, 100) ? 0 : random_range(random, 1, scale < 200000 ? scale : 200000);
    if (habits->read_bytes > 0 && app->stream_bytes / habits->read_bytes > 2000) {
        app->stream_bytes = habits->read_bytes * 2000;
    }
    habits->send_bytes = random_chance(random, 100) ? 0 : random_range(random, 1, habits->segment_bytes * 60);
    uint32_t closing = random_range(random, 0, 2);
    app->closes_first = closing != 0;
    habits->closes_first = closing != 1;
    app->lazy = random_chance(random, 300);
    app->most_unacknowledged = random_range(random, 1, 200000);
    app->abort_at = UINT32_MAX;
    if (random_chance(random, 60)) {
        app->abort_at = random_range(random, 1, app->stream_bytes + 1);
    }
    if (random_chance(random, 40)) {
        habits->refuses = true;
    } else if (random_chance(random, 20)) {
        habits->silent = true;
    } else if (random_chance(random, 60)) {
        habits->reset_at_us = world->now_us + random_range(random, 1, 5000000);
    }
    app->peer.random = random;
    app->peer.emit = peer_emit;
    app->peer.world = world;
    app->peer.expected = stream_up;
    app->peer.expected_bytes = app->stream_bytes;
    app->peer.stream = stream_down;
    model_init(&app->peer, random_chance(random, 300) ? 0xfffff000U : (uint32_t)random_next(random));
}

static void world_open(struct world *world, uint64_t seed, bool traced) {
    memset(world, 0, sizeof(*world));
    world->seed = seed;
    world->trace = traced;
    random_seed(&world->random, seed);
    struct sim_random *random = &world->random;
    world->now_us = 1000000 + (random_next(random) & 0xffffffffffULL);
    bool clean = random_chance(random, 150);
    world->loss = clean ? 0 : random_chance(random, 500) ? random_range(random, 0, 30) : random_range(random, 0, 200);
    world->duplicate = clean ? 0 : random_range(random, 0, 60);
    world->reorder = clean ? 0 : random_range(random, 0, 300);
    world->busy = random_chance(random, 300) ? random_range(random, 1, 300) : 0;
    world->delay_us = random_range(random, 50, random_chance(random, 500) ? 2000 : 200000);
    world->jitter_us = random_range(random, 1, world->delay_us * 3);
    world->strangers = random_chance(random, 300);
    static const uint32_t buffers[] = {1024, 4096, 16384, 16384, 65535, 300000};
    struct tcp_config config = {.max_connections = CONNECTIONS_MAX,
                                .max_segments_in_flight = random_chance(random, 200) ? random_range(random, 2, 20) : 0,
                                .max_ranges = random_chance(random, 200) ? random_range(random, 24, 100) : 0,
                                .max_receive_blocks = random_chance(random, 200) ? random_range(random, 1, 8) : 0,
                                .receive_buffer_bytes = buffers[random_range(random, 0, 5)],
                                .mtu = MTU,
                                .port_first = 1024,
                                .port_last = 65535,
                                .user_timeout_us = 3600ULL * 1000 * 1000,
                                .transmit = world_transmit,
                                .network = world,
                                .events = {on_connected, on_received, on_peer_closed, on_acknowledged, on_closed}};
    for (uint32_t i = 0; i < sizeof(config.secret); i++) {
        config.secret[i] = (uint8_t)random_next(random);
    }
    world->stack = tcp_stack_create(&config, world->now_us);
    if (world->stack == NULL) {
        fail(world, "no stack");
        return;
    }
    world->app_count = random_range(random, 1, CONNECTIONS_MAX);
    for (uint32_t i = 0; i < world->app_count; i++) {
        struct app *app = &world->apps[i];
        app->world = world;
        app->remote = (struct tcp_address){.bytes = {198, 51, 100, 1}, .family = 4};
        app->remote_port = (uint16_t)(25 + i);
        draw_habits(world, app);
    }
    for (uint32_t i = 0; i < world->app_count; i++) {
        struct app *app = &world->apps[i];
        struct tcp_address local = {.bytes = {192, 0, 2, 1}, .family = 4};
        uint64_t timeout_us = app->peer.habits.silent ? 30000000 : 600000000;
        if (tcp_connect(world->stack, &local, &app->remote, app->remote_port, timeout_us, app, &app->conn, world->now_us) != 0) {
            fail(world, "tcp_connect fails");
        }
        app->act_at = world->now_us + random_range(random, 1000, 50000);
    }
}

static bool all_closed(const struct world *world) {
    for (uint32_t i = 0; i < world->app_count; i++) {
        if (world->apps[i].closed == 0) {
            return false;
        }
    }
    return true;
}

static uint64_t world_step(struct world *world, uint64_t poll_at) {
    uint64_t next = poll_at;
    if (world->event_count > 0 && world->events[0]->at_us < next) {
        next = world->events[0]->at_us;
    }
    for (uint32_t i = 0; i < world->app_count; i++) {
        uint64_t peer = model_next(&world->apps[i].peer), act = world->apps[i].act_at;
        next = peer < next ? peer : next;
        next = act < next ? act : next;
    }
    if (next == NEVER) {
        return NEVER;
    }
    world->now_us = next > world->now_us ? next : world->now_us;
    /* A burst: what arrived in the same 50 us is one pass. */
    while (world->event_count > 0 && world->events[0]->at_us <= world->now_us + (world->seed % 3 == 0 ? 50 : 0)) {
        struct event *event = event_pop(world);
        struct app *app = &world->apps[event->connection];
        if (event->to_stack) {
            deliver_to_stack(world, app, &event->segment);
        } else {
            model_input(&app->peer, &event->segment, world->now_us);
        }
        free(event->segment.payload);
        free(event);
    }
    for (uint32_t i = 0; i < world->app_count; i++) {
        struct app *app = &world->apps[i];
        if (model_next(&app->peer) <= world->now_us) {
            model_timer(&app->peer, world->now_us);
        }
        if (app->act_at <= world->now_us) {
            app_act(app);
        }
        if (app->peer.complaint != NULL) {
            fail(world, app->peer.complaint);
        }
    }
    if (world->strangers && random_chance(&world->random, 30)) {
        inject_stranger(world);
    }
    return tcp_poll(world->stack, random_range(&world->random, 1, 64), world->now_us);
}

static void check_end(struct world *world) {
    for (uint32_t i = 0; i < world->app_count; i++) {
        const struct app *app = &world->apps[i];
        const struct model_habits *habits = &app->peer.habits;
        if (app->closed != 1) {
            fail(world, app->closed == 0 ? "a connection did not end" : "closed came twice");
        }
        bool complete = app->received == habits->send_bytes && model_received(&app->peer) == app->stream_bytes;
        bool troubled = habits->refuses || habits->silent || habits->reset_at_us != 0 || app->abort_at != UINT32_MAX;
        if (app->error == TCP_OK && (!complete || !app->peer.fin_acknowledged) && !troubled) {
            fail(world, "ended in order without all bytes");
        }
        if (app->error != TCP_OK && !troubled) {
            fail(world, "ended by an error without cause");
        }
        if ((app->error == TCP_REFUSED) != habits->refuses && !app->aborted && habits->reset_at_us == 0) {
            fail(world, "refused without cause, or not refused");
        }
        if (app->error == TCP_ABORTED && !app->aborted) {
            fail(world, "aborted without being told");
        }
    }
    struct tcp_usage usage;
    tcp_stack_usage(world->stack, &usage);
    if (memcmp(&usage, &(struct tcp_usage){0}, sizeof(usage)) != 0) {
        fail(world, "records were left in a pool");
    }
    if (world->owners != 0) {
        fail(world, "an owner was not released");
    }
}

static void add_totals(struct totals *totals, const struct tcp_counters *counters) {
    totals->segments += counters->segments_out;
    totals->fast += counters->retransmits_fast;
    totals->timeouts += counters->retransmits_timeout;
    totals->out_of_order += counters->out_of_order;
    totals->duplicates += counters->duplicates;
    totals->challenges += counters->challenge_acks;
    totals->time_wait += counters->time_wait;
    totals->pool_exhausted += counters->pool_exhausted;
    totals->refused += counters->refused;
    totals->resets += counters->resets_received;
}

static const char *world_run(struct world *world, uint64_t seed, bool traced, struct totals *totals) {
    world_open(world, seed, traced);
    uint64_t poll_at = world->failure == NULL ? tcp_poll(world->stack, 1, world->now_us) : NEVER;
    uint64_t end = world->now_us + WORLD_END_US;
    for (uint32_t step = 0; world->failure == NULL; step++) {
        poll_at = world_step(world, poll_at);
        if (all_closed(world) && poll_at == NEVER) {
            break;
        }
        if (step == STEPS_MAX || world->now_us > end) {
            fail(world, "it goes on for ever");
        }
    }
    if (world->failure == NULL) {
        check_end(world);
    }
    while (world->event_count > 0) {
        struct event *event = event_pop(world);
        free(event->segment.payload);
        free(event);
    }
    if (world->stack != NULL) {
        add_totals(totals, tcp_stack_counters(world->stack));
    }
    tcp_stack_destroy(world->stack);
    for (uint32_t i = 0; i < world->app_count; i++) {
        model_free(&world->apps[i].peer);
    }
    return world->failure;
}

int main(int argc, char **argv) {
    enum { SEEDS_TO_JUDGE = 100 };
    struct totals totals = {0};
    uint64_t seeds = 200, first = 1, failures = 0;
    bool traced = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--seeds") == 0 && i + 1 < argc) {
            seeds = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--first") == 0 && i + 1 < argc) {
            first = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            first = strtoull(argv[++i], NULL, 10);
            seeds = 1;
        } else if (strcmp(argv[i], "--trace") == 0) {
            traced = true;
        } else {
            fprintf(stderr, "usage: sim_tcp [--seeds N] [--first S] [--seed S [--trace]]\n");
            return 2;
        }
    }
    struct sim_random random;
    random_seed(&random, 0);
    for (uint32_t i = 0; i < STREAM_MAX; i++) {
        stream_down[i] = (uint8_t)random_next(&random);
        stream_up[i] = (uint8_t)random_next(&random);
    }
    static struct world world;
    for (uint64_t seed = first; seed < first + seeds; seed++) {
        const char *failure = world_run(&world, seed, traced, &totals);
        if (failure != NULL) {
            failures++;
            printf("seed %" PRIu64 ": %s (replay: tests/sim/run --seed %" PRIu64 " --trace)\n", seed, failure, seed);
        }
    }
    printf("%" PRIu64 " seeds, %" PRIu64 " failures; %" PRIu64 " segments, sent again: %" PRIu64 " fast, %" PRIu64 " by timeout; %" PRIu64
           " out of order, %" PRIu64 " duplicates, %" PRIu64 " challenges, %" PRIu64 " TIME_WAIT, %" PRIu64 " pools empty, %" PRIu64
           " refused, %" PRIu64 " reset\n",
           seeds, failures, totals.segments, totals.fast, totals.timeouts, totals.out_of_order, totals.duplicates, totals.challenges,
           totals.time_wait, totals.pool_exhausted, totals.refused, totals.resets);
    if (seeds >= SEEDS_TO_JUDGE && (totals.fast == 0 || totals.timeouts == 0 || totals.out_of_order == 0 || totals.challenges == 0 ||
                                    totals.time_wait == 0 || totals.pool_exhausted == 0 || totals.refused == 0 || totals.resets == 0)) {
        printf("the worlds were too kind\n");
        return 1;
    }
    return failures == 0 ? 0 : 1;
}
