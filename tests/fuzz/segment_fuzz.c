/* segment_fuzz.c: segments, ICMP errors, calls of the layer above and time, in any order and any state: nothing is read or written that is
 * not the stack's, what it says keeps the rules of sequence numbers, every connection ends once, and no record is left. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/tcp/tcp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    VIEWS = 6,        /* peers by remote port; the latter half opens towards us */
    CONNS_MAX = 48,   /* ever */
    STREAM_MOD = 251, /* byte n of every stream is n modulo this */
    OPERATIONS_MAX = 400,
    LISTEN_PORT = 25,
    PAYLOAD_MAX = 1500,
    DRAIN_STEPS = 4000,
};

static void require(int true_statement) {
    if (!true_statement) {
        abort();
    }
}

struct owner {
    struct tcp_owner base;
    uint32_t *alive;
    uint8_t bytes[];
};

/* A connection as the layer above sees it. */
struct user {
    struct tcp_conn *conn;
    struct fuzz *fuzz;
    uint32_t queued, acknowledged, take, closed, view;
    int connected, peer_closed;
};

/* What the peer's end has heard, to speak from. */
struct view {
    uint16_t local_port;
    uint32_t iss, next, ack, edge, ts;
    int known, opened, stamps, shift, fin_sent;
    struct user *user;
};

struct fuzz {
    const uint8_t *data;
    size_t size;
    struct tcp_stack *stack;
    struct tcp_config config;
    uint64_t now_us;
    uint32_t owners, user_count;
    int busy, ending;
    struct user users[CONNS_MAX];
    struct view views[VIEWS];
};

static uint32_t take8(struct fuzz *fuzz) {
    if (fuzz->size == 0) {
        return 0;
    }
    fuzz->size--;
    return *fuzz->data++;
}

static uint32_t take16(struct fuzz *fuzz) {
    uint32_t high = take8(fuzz);
    return high << 8 | take8(fuzz);
}

/* Mostly small, now and then anything. */
static uint32_t take_delta(struct fuzz *fuzz) {
    uint32_t kind = take8(fuzz);
    if (kind < 160) {
        return 0;
    }
    if (kind < 240) {
        return (uint32_t)(int16_t)take16(fuzz);
    }
    uint32_t high = take16(fuzz);
    return high << 16 | take16(fuzz);
}

static struct tcp_address address(uint32_t number) {
    struct tcp_address result = {.family = number % 2 == 0 ? 4 : 6};
    result.bytes[0] = 192;
    result.bytes[result.family == 4 ? 3 : 15] = (uint8_t)number;
    return result;
}
static struct tcp_address local_of(uint32_t view) {
    return address(view % 2);
}
static struct tcp_address remote_of(uint32_t view) {
    return address(100 + view % 2);
}
static int listens(uint32_t view) {
    return view >= VIEWS / 2;
}

static void check_text(const struct view *view, const struct tcp_segment *segment) {
    uint32_t at = segment->sequence - view->iss - 1;
    for (uint32_t i = 0; i < segment->piece_count; i++) {
        for (uint32_t j = 0; j < segment->pieces[i].length; j++, at++) {
            require(segment->pieces[i].bytes[j] == at % STREAM_MOD);
        }
    }
}

static int transmit(void *network, const struct tcp_segment *segment) {
    struct fuzz *fuzz = network;
    uint32_t index = segment->remote_port - 1000U, length = 0;
    require(segment->options_length % 4 == 0 && segment->options_length <= TCP_OPTIONS_BYTES_MAX);
    require(segment->piece_count <= TCP_SEGMENT_PIECES_MAX);
    for (uint32_t i = 0; i < segment->piece_count; i++) {
        length += segment->pieces[i].length;
    }
    require(length == segment->payload_length);
    if (fuzz->busy > 0) {
        fuzz->busy--;
        return -EAGAIN;
    }
    if (index >= VIEWS) {
        require((segment->flags & TCP_RST) != 0); /* only an answer to a stranger */
        return 0;
    }
    struct view *view = &fuzz->views[index];
    if ((segment->flags & TCP_SYN) != 0) {
        require(length == 0 && (segment->flags & (TCP_FIN | TCP_RST)) == 0);
        if (!view->known || view->iss != segment->sequence) {
            *view = (struct view){.known = 1, .iss = segment->sequence, .next = segment->sequence + 1, .shift = 0};
        }
        view->local_port = segment->local_port;
        view->ack = segment->acknowledgement;
        return 0;
    }
    if ((segment->flags & TCP_RST) != 0 || !view->known || segment->local_port != view->local_port) {
        return 0;
    }
    uint32_t place = segment->sequence - view->iss;
    if (place - 1 > 1U << 30) {
        return 0; /* of an older connection, or the answer of its record */
    }
    require((segment->flags & TCP_ACK) != 0);
    if (length == 0 && (segment->flags & TCP_FIN) == 0 && (int32_t)(segment->sequence - view->next) > 0) {
        return 0; /* of a connection whose SYN the device has not taken yet */
    }
    if (length > 0 && (fuzz->config.keepalive_us == 0 || length > 1)) {
        check_text(view, segment);
        require(!view->fin_sent || (int32_t)(segment->sequence + length - view->next) <= 0);
    }
    view->fin_sent |= (segment->flags & TCP_FIN) != 0;
    uint32_t end = segment->sequence + length + ((segment->flags & TCP_FIN) != 0);
    if ((int32_t)(end - view->next) > 0) {
        require(segment->first_transmission || (segment->flags & TCP_FIN) != 0);
        view->next = end;
    }
    if (view->opened) {
        require((int32_t)(segment->acknowledgement - view->ack) >= 0);
    }
    view->opened = 1;
    view->ack = segment->acknowledgement;
    return 0;
}

static void owner_release(struct tcp_owner *base) {
    struct owner *owner = (struct owner *)(void *)base;
    --*owner->alive;
    free(owner);
}

static void user_send(struct user *user, uint32_t length, uint32_t pieces) {
    struct fuzz *fuzz = user->fuzz;
    struct owner *owner = malloc(sizeof(*owner) + length);
    if (owner == NULL) {
        abort();
    }
    owner->base = (struct tcp_owner){.references = 1, .release = owner_release};
    owner->alive = &fuzz->owners;
    fuzz->owners++;
    for (uint32_t i = 0; i < length; i++) {
        owner->bytes[i] = (uint8_t)((user->queued + i) % STREAM_MOD);
    }
    struct tcp_piece list[20];
    uint32_t count = 0, at = 0;
    while (at < length) {
        uint32_t part = count + 1 == pieces ? length - at : 1 + (length - at) / pieces;
        part = part > length - at ? length - at : part;
        list[count++] = (struct tcp_piece){.bytes = owner->bytes + at, .length = part, .owner = &owner->base};
        at += part;
    }
    int rc = tcp_send(user->conn, list, count, fuzz->now_us);
    require(rc == 0 || rc == -ENOBUFS || rc == -EPIPE);
    user->queued += rc == 0 ? length : 0;
    if (--owner->base.references == 0) {
        owner_release(&owner->base);
    }
}

static void on_connected(void *context, struct tcp_conn *conn, uint64_t now_us) {
    struct user *user = context;
    require(!user->connected && user->closed == 0);
    user->connected = 1;
}

static void *on_accepted(void *context, struct tcp_conn *conn, uint64_t now_us) {
    struct fuzz *fuzz = context;
    struct tcp_address local, remote;
    uint16_t local_port, remote_port;
    tcp_endpoints(conn, &local, &local_port, &remote, &remote_port);
    require(local_port == LISTEN_PORT);
    if (fuzz->user_count == CONNS_MAX || remote_port < 1000 || remote_port >= 1000 + VIEWS) {
        return NULL;
    }
    struct user *user = &fuzz->users[fuzz->user_count++];
    *user = (struct user){.conn = conn, .fuzz = fuzz, .take = UINT32_MAX, .view = remote_port - 1000U, .connected = 1};
    fuzz->views[user->view].user = user;
    return user;
}

static uint32_t on_received(void *context, struct tcp_conn *conn, const uint8_t *bytes, uint32_t length, uint64_t now_us) {
    struct user *user = context;
    volatile uint8_t sum = 0;
    require(user->closed == 0 && !user->peer_closed && length > 0);
    for (uint32_t i = 0; i < length; i++) {
        sum = (uint8_t)(sum + bytes[i]);
    }
    uint32_t taken = length < user->take ? length : user->take;
    user->take -= user->take == UINT32_MAX ? 0 : taken;
    if (sum == 77 && user->queued < 100000) {
        user_send(user, 100, 3); /* from inside */
        tcp_output(user->conn, user->fuzz->now_us);
    } else if (sum == 78) {
        tcp_abort(user->conn, user->fuzz->now_us);
    } else if (sum == 79) {
        tcp_close(user->conn, user->fuzz->now_us);
    }
    return taken;
}

static void on_peer_closed(void *context, struct tcp_conn *conn, uint64_t now_us) {
    struct user *user = context;
    require(user->closed == 0 && !user->peer_closed);
    user->peer_closed = 1;
}

static void on_acknowledged(void *context, struct tcp_conn *conn, uint32_t bytes, uint64_t now_us) {
    struct user *user = context;
    user->acknowledged += bytes;
    require(user->closed == 0 && bytes > 0 && user->acknowledged <= user->queued);
}

static void on_closed(void *context, struct tcp_conn *conn, enum tcp_error error, uint64_t now_us) {
    struct user *user = context;
    require(user->closed++ == 0);
    user->conn = NULL;
    if (user->fuzz->views[user->view].user == user) {
        user->fuzz->views[user->view].user = NULL;
    }
}

static int setup(struct fuzz *fuzz) {
    static const uint32_t buffers[] = {1024, 4096, 16384, 100000};
    static const uint32_t splits[] = {0, 0, 5000, 65000};
    uint32_t kind = take8(fuzz), pools = take8(fuzz);
    fuzz->now_us = 1000000 + ((uint64_t)take8(fuzz) << 24);
    fuzz->config = (struct tcp_config){.max_connections = 8,
                                       .max_segments_in_flight = (pools & 1) != 0 ? 3 + (pools >> 4) : 0,
                                       .max_ranges = (pools & 2) != 0 ? 24 + (pools >> 4) : 0,
                                       .max_receive_blocks = (pools & 4) != 0 ? 1 + (pools >> 4) : 0,
                                       .max_time_wait = (pools & 8) != 0 ? 1 : 0,
                                       .receive_buffer_bytes = buffers[kind & 3],
                                       .mtu = 1500,
                                       .port_first = 40000,
                                       .port_last = 40003,
                                       .user_timeout_us = 50ULL * 1000 * 1000,
                                       .keepalive_us = (kind & 4) != 0 ? 2000000 : 0,
                                       .segmentation_bytes_max = splits[kind >> 3 & 3],
                                       .congestion = (kind & 32) != 0 ? TCP_NEWRENO : TCP_CUBIC,
                                       .max_half_open = (kind & 64) != 0 ? 2 : 0,
                                       .transmit = transmit,
                                       .network = fuzz,
                                       .events = {on_connected, on_received, on_peer_closed, on_acknowledged, on_closed, on_accepted}};
    fuzz->stack = tcp_stack_create(&fuzz->config, fuzz->now_us);
    if (fuzz->stack == NULL) {
        return 0;
    }
    for (uint8_t family = 4; family <= 6; family += 2) {
        struct tcp_address any = {.family = family};
        require(tcp_listen(fuzz->stack, &any, LISTEN_PORT, fuzz) == 0);
    }
    return 1;
}

static void put32(uint8_t *bytes, uint32_t value) {
    for (int i = 0; i < 4; i++) {
        bytes[i] = (uint8_t)(value >> (24 - 8 * i));
    }
}

/* Options as a peer has them, or any bytes. */
static uint32_t options(struct fuzz *fuzz, const struct view *view, uint8_t *bytes, int syn) {
    uint32_t kind = take8(fuzz), length = 0;
    if (kind == 255) {
        length = take8(fuzz) % 11 * 4;
        for (uint32_t i = 0; i < length; i++) {
            bytes[i] = (uint8_t)take8(fuzz);
        }
        return length;
    }
    if (syn && (kind & 1) != 0) {
        memcpy(bytes, (uint8_t[]){2, 4, 5, 180, 1, 1, 4, 2}, 8);
        bytes[2] = (uint8_t)(kind >> 5);
        length = 8;
    }
    if (syn && (kind & 2) != 0) {
        memcpy(bytes + length, (uint8_t[]){1, 3, 3, (uint8_t)(kind >> 4)}, 4);
        length += 4;
    }
    if ((kind & 4) != 0) {
        memcpy(bytes + length, (uint8_t[]){1, 1, 8, 10}, 4);
        put32(bytes + length + 4, (uint32_t)(fuzz->now_us / 1000) + take_delta(fuzz));
        put32(bytes + length + 8, take_delta(fuzz));
        length += 12;
    }
    if (!syn && (kind & 8) != 0) {
        uint32_t blocks = 1 + (kind >> 4) % 3;
        memcpy(bytes + length, (uint8_t[]){1, 1, 5, (uint8_t)(2 + 8 * blocks)}, 4);
        length += 4;
        for (uint32_t i = 0; i < blocks; i++, length += 8) {
            uint32_t left = view->next - take16(fuzz);
            put32(bytes + length, left);
            put32(bytes + length + 4, left + take16(fuzz));
        }
    }
    return length;
}

/* A segment from the peer of a view; `flags` as drawn. Copied to its exact size, so that a read past it is seen. */
static void put_segment(struct fuzz *fuzz, uint32_t index, uint8_t flags) {
    struct view *view = &fuzz->views[index];
    uint8_t header[60] = {0};
    uint32_t sequence = view->ack + take_delta(fuzz), ack = view->next + take_delta(fuzz);
    uint32_t local_port = listens(index) ? LISTEN_PORT : view->local_port;
    header[0] = (uint8_t)((1000 + index) >> 8);
    header[1] = (uint8_t)(1000 + index);
    header[2] = (uint8_t)(local_port >> 8);
    header[3] = (uint8_t)local_port;
    put32(header + 4, sequence);
    put32(header + 8, ack);
    header[13] = flags;
    uint32_t window = take8(fuzz) << 8;
    header[14] = (uint8_t)(window >> 8);
    header[15] = (uint8_t)(window == 0 ? take8(fuzz) : 255);
    uint32_t length = 20 + options(fuzz, view, header + 20, (flags & TCP_SYN) != 0), size = take8(fuzz);
    size = size < 128 ? 0 : size < 224 ? size - 127 : (size - 223) * 46;
    header[12] = (uint8_t)(length / 4 << 4);
    uint8_t *bytes = malloc(length + size);
    if (bytes == NULL) {
        abort();
    }
    memcpy(bytes, header, length);
    memset(bytes + length, (int)take8(fuzz), size);
    struct tcp_packet packet = {.local = local_of(index), .remote = remote_of(index), .header = bytes, .length = length + size};
    tcp_input(fuzz->stack, &packet, fuzz->now_us);
    free(bytes);
}

static void put_raw(struct fuzz *fuzz, uint32_t index) {
    uint32_t length = take8(fuzz) % 64;
    uint8_t *bytes = malloc(length + 1);
    if (bytes == NULL) {
        abort();
    }
    for (uint32_t i = 0; i < length; i++) {
        bytes[i] = (uint8_t)take8(fuzz);
    }
    uint8_t *exact = malloc(length);
    if (exact == NULL && length > 0) {
        abort();
    }
    if (length > 0) {
        memcpy(exact, bytes, length);
    }
    free(bytes);
    struct tcp_packet packet = {.local = local_of(index), .remote = remote_of(index), .header = exact, .length = length};
    tcp_input(fuzz->stack, &packet, fuzz->now_us);
    free(exact);
}

static void connect_view(struct fuzz *fuzz, uint32_t index) {
    struct tcp_address local = local_of(index), remote = remote_of(index);
    if (fuzz->user_count == CONNS_MAX || listens(index) || fuzz->views[index].user != NULL) {
        return;
    }
    struct user *user = &fuzz->users[fuzz->user_count];
    *user = (struct user){.fuzz = fuzz, .take = UINT32_MAX, .view = index};
    fuzz->views[index].known = 0;
    int rc = tcp_connect(fuzz->stack, &local, &remote, (uint16_t)(1000 + index), 30000000, user, &user->conn, fuzz->now_us);
    require(rc == 0 || rc == -ENOBUFS || rc == -EADDRNOTAVAIL);
    if (rc == 0) {
        fuzz->user_count++;
        fuzz->views[index].user = user;
    }
}

static void call_user(struct fuzz *fuzz, struct user *user, uint32_t what) {
    switch (what % 6) {
    case 0:
        if (user->queued < 200000) {
            user_send(user, 1 + take16(fuzz) % 9000, 1 + take8(fuzz) % 18);
        }
        tcp_output(user->conn, fuzz->now_us);
        break;
    case 1:
        tcp_close(user->conn, fuzz->now_us);
        break;
    case 2:
        tcp_abort(user->conn, fuzz->now_us);
        break;
    case 3:
        user->take = take16(fuzz);
        break;
    case 4:
        user->take = UINT32_MAX;
        tcp_receive_resume(user->conn, fuzz->now_us);
        break;
    default:
        require(tcp_unsent(user->conn) <= tcp_unacknowledged(user->conn));
        tcp_is_open(user->conn);
        break;
    }
}

static void step(struct fuzz *fuzz) {
    static const uint8_t flags[] = {TCP_ACK,           TCP_ACK, TCP_ACK | TCP_PSH, TCP_ACK | TCP_FIN,
                                    TCP_SYN | TCP_ACK, TCP_SYN, TCP_RST | TCP_ACK, TCP_RST};
    uint32_t what = take8(fuzz), index = (what >> 5) % VIEWS;
    struct user *user = fuzz->views[index].user;
    switch (what & 15) {
    case 0:
        connect_view(fuzz, index);
        break;
    case 1:
        put_segment(fuzz, index, (uint8_t)take8(fuzz));
        break;
    case 2:
        put_raw(fuzz, index);
        break;
    case 3:
    case 4:
        if (user != NULL) {
            call_user(fuzz, user, take8(fuzz));
        }
        break;
    case 5: {
        struct tcp_address local = local_of(index), remote = remote_of(index);
        uint16_t port = listens(index) ? LISTEN_PORT : fuzz->views[index].local_port, mtu = (uint16_t)take16(fuzz);
        uint32_t sequence = fuzz->views[index].next - 1 - take_delta(fuzz);
        tcp_input_error(fuzz->stack, &local, port, &remote, (uint16_t)(1000 + index), sequence, (mtu & 1) != 0, (mtu & 3) == 3 ? 0 : mtu,
                        fuzz->now_us);
        break;
    }
    case 6:
        fuzz->busy = (int)take8(fuzz) % 8;
        break;
    case 7:
    case 8: {
        uint32_t scale = take8(fuzz);
        fuzz->now_us += (uint64_t)(1 + scale % 16) << (scale / 16 * 5 / 3);
        tcp_poll(fuzz->stack, 1 + take8(fuzz) % 32, fuzz->now_us);
        break;
    }
    default:
        put_segment(fuzz, index, flags[take8(fuzz) % 8]);
        break;
    }
}

/* Everything is aborted, and TIME_WAIT and half-open handshakes run out. */
static void finish(struct fuzz *fuzz) {
    fuzz->busy = 0;
    for (uint32_t i = 0; i < fuzz->user_count; i++) {
        if (fuzz->users[i].conn != NULL) {
            tcp_abort(fuzz->users[i].conn, fuzz->now_us);
        }
    }
    uint64_t next = fuzz->now_us;
    for (uint32_t i = 0; i < DRAIN_STEPS && next != UINT64_MAX; i++) {
        fuzz->now_us = next > fuzz->now_us ? next : fuzz->now_us;
        next = tcp_poll(fuzz->stack, 64, fuzz->now_us);
    }
    struct tcp_usage usage;
    tcp_stack_usage(fuzz->stack, &usage);
    require(memcmp(&usage, &(struct tcp_usage){0}, sizeof(usage)) == 0);
    for (uint32_t i = 0; i < fuzz->user_count; i++) {
        require(fuzz->users[i].closed == 1);
    }
    require(fuzz->owners == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct fuzz fuzz;
    memset(&fuzz, 0, sizeof(fuzz));
    fuzz.data = data;
    fuzz.size = size;
    if (size < 4 || !setup(&fuzz)) {
        return 0;
    }
    bool abandon = data[0] >= 240; /* the stack goes with everything still open */
    for (uint32_t i = 0; i < OPERATIONS_MAX && fuzz.size > 0; i++) {
        step(&fuzz);
    }
    if (!abandon) {
        finish(&fuzz);
    }
    tcp_stack_destroy(fuzz.stack);
    require(fuzz.owners == 0);
    return 0;
}
