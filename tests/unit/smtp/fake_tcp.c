/* fake_tcp.c: the functions of tcp.h that the SMTP room calls. */
#include "fake_tcp.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

const char *tcp_error_text(enum tcp_error error) {
    static const char *const texts[] = {"ok", "refused", "reset", "timed out", "unreachable", "aborted"};
    return texts[error];
}

int tcp_connect(struct tcp_stack *stack, const struct tcp_address *local, const struct tcp_address *remote, uint16_t remote_port,
                uint64_t timeout_us, void *user, struct tcp_conn **conn, uint64_t now_us) {
    if (stack->connect_error)
        return stack->connect_error;
    for (uint32_t i = 0; i < FAKE_CONNS_MAX; i++) {
        struct tcp_conn *free = &stack->conns[i];
        if (free->state != FAKE_FREE)
            continue;
        memset(free, 0, offsetof(struct tcp_conn, wire));
        free->wire_length = 0;
        free->held_length = 0;
        free->fin_held = false;
        free->fin_sent = free->peer_fin = free->aborted = free->closing = false;
        free->error = TCP_OK;
        free->server = NULL;
        free->stack = stack;
        free->state = FAKE_CONNECTING;
        free->user = user;
        free->local = *local;
        free->remote = *remote;
        free->port = remote_port;
        stack->connects++;
        *conn = free;
        return 0;
    }
    return -ENOBUFS;
}

int tcp_send(struct tcp_conn *conn, const struct tcp_piece *pieces, uint32_t count, uint64_t now_us) {
    struct tcp_stack *stack = conn->stack;
    assert(conn->state == FAKE_OPEN);
    if (conn->fin_sent || conn->aborted)
        return -EPIPE;
    if (stack->send_refusals) {
        stack->send_refusals--;
        return -ENOBUFS;
    }
    if (conn->range_count + count > FAKE_RANGES_MAX)
        return -ENOBUFS;
    if (stack->on_send)
        stack->on_send(stack->context, conn, pieces, count);
    stack->sends++;
    for (uint32_t i = 0; i < count; i++) {
        assert(pieces[i].length > 0);
        conn->ranges[conn->range_count++] = pieces[i];
        if (pieces[i].owner)
            pieces[i].owner->references++;
        conn->unsent += pieces[i].length;
        conn->unacknowledged += pieces[i].length;
    }
    return 0;
}

void tcp_output(struct tcp_conn *conn, uint64_t now_us) {
    assert(conn->state != FAKE_FREE);
    while (conn->left_count < conn->range_count && !conn->aborted) {
        const struct tcp_piece *piece = &conn->ranges[conn->left_count];
        uint32_t flying = conn->unacknowledged - conn->unsent;
        if (conn->stack->window && flying && flying + piece->length > conn->stack->window)
            return;
        assert(conn->wire_length + piece->length <= FAKE_WIRE_BYTES);
        memcpy(conn->wire + conn->wire_length, piece->bytes, piece->length);
        conn->wire_length += piece->length;
        conn->unsent -= piece->length;
        conn->left_count++;
    }
}

static void release(struct tcp_owner *owner) {
    if (owner && --owner->references == 0)
        owner->release(owner);
}

static void hand_up(struct tcp_conn *conn, uint64_t now_us) {
    while (conn->held_length > 0 && conn->state == FAKE_OPEN && !conn->aborted) {
        uint32_t taken = conn->stack->events.received(conn->user, conn, conn->held, conn->held_length, now_us);
        assert(taken <= conn->held_length);
        if (taken == 0)
            return;
        conn->held_length -= taken;
        memmove(conn->held, conn->held + taken, conn->held_length);
    }
    if (conn->fin_held && conn->held_length == 0) {
        conn->fin_held = false;
        conn->stack->events.peer_closed(conn->user, conn, now_us);
    }
}

void fake_deliver(struct tcp_conn *conn, const uint8_t *bytes, uint32_t length, uint64_t now_us) {
    if (conn->aborted || conn->closing)
        return;
    assert(conn->held_length + length <= FAKE_HELD_BYTES);
    bool behind = conn->held_length > 0;
    memcpy(conn->held + conn->held_length, bytes, length);
    conn->held_length += length;
    if (!behind)
        hand_up(conn, now_us);
}

void tcp_receive_resume(struct tcp_conn *conn, uint64_t now_us) {
    hand_up(conn, now_us);
}

void fake_acknowledge(struct tcp_conn *conn, uint64_t now_us) {
    uint32_t count = conn->left_count, bytes = 0;
    if (conn->stack->acknowledge_ranges && count > conn->stack->acknowledge_ranges)
        count = conn->stack->acknowledge_ranges;
    if (!count)
        return;
    struct tcp_owner *owners[FAKE_RANGES_MAX];
    for (uint32_t i = 0; i < count; i++) {
        owners[i] = conn->ranges[i].owner;
        bytes += conn->ranges[i].length;
    }
    memmove(conn->ranges, conn->ranges + count, (conn->range_count - count) * sizeof(conn->ranges[0]));
    conn->range_count -= count;
    conn->left_count -= count;
    conn->unacknowledged -= bytes;
    for (uint32_t i = 0; i < count; i++)
        release(owners[i]);
    conn->stack->events.acknowledged(conn->user, conn, bytes, now_us);
    tcp_output(conn, now_us);
    if (conn->fin_sent && conn->peer_fin && !conn->unacknowledged)
        conn->closing = true;
}

void tcp_set_user_timeout(struct tcp_conn *conn, uint64_t timeout_us) {}

bool tcp_is_open(const struct tcp_conn *conn) {
    return conn->state == FAKE_OPEN && !conn->fin_sent && !conn->peer_fin && !conn->aborted && !conn->closing;
}

uint32_t tcp_unacknowledged(const struct tcp_conn *conn) {
    return conn->unacknowledged;
}
uint32_t tcp_unsent(const struct tcp_conn *conn) {
    return conn->unsent;
}
void tcp_close(struct tcp_conn *conn, uint64_t now_us) {
    conn->fin_sent = true;
    if (conn->peer_fin && !conn->unacknowledged)
        conn->closing = true; /* else once what is queued was acknowledged */
}
void tcp_abort(struct tcp_conn *conn, uint64_t now_us) {
    conn->aborted = true;
    conn->closing = true;
    conn->error = TCP_ABORTED;
}

void fake_establish(struct tcp_conn *conn, uint64_t now_us) {
    conn->state = FAKE_OPEN;
    conn->stack->events.connected(conn->user, conn, now_us);
}

void fake_end(struct tcp_conn *conn, enum tcp_error error, uint64_t now_us) {
    conn->closing = true;
    conn->error = error;
}

void fake_peer_fin(struct tcp_conn *conn, uint64_t now_us) {
    if (conn->peer_fin || conn->closing)
        return;
    conn->peer_fin = true;
    if (conn->fin_sent && !conn->unacknowledged)
        conn->closing = true;
    if (conn->held_length > 0)
        conn->fin_held = true;
    else
        conn->stack->events.peer_closed(conn->user, conn, now_us);
}

uint32_t fake_reap(struct tcp_stack *stack, uint64_t now_us) {
    uint32_t reaped = 0;
    for (uint32_t i = 0; i < FAKE_CONNS_MAX && !stack->reaps_later; i++) {
        struct tcp_conn *conn = &stack->conns[i];
        if (conn->state == FAKE_FREE || !conn->closing)
            continue;
        for (uint32_t j = 0; j < conn->range_count; j++)
            release(conn->ranges[j].owner);
        conn->range_count = 0;
        conn->state = FAKE_FREE;
        stack->events.closed(conn->user, conn, conn->error, now_us);
        reaped++;
    }
    return reaped;
}
