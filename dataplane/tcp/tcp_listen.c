/* tcp_listen.c: passive open (RFC 9293 3.5): listeners by address and port, and their handshakes that are not yet complete. These are
 * connections of the ordinary pool in SYN_RECEIVED, in order of age and limited in number: the oldest goes first, so that a flood of SYNs
 * costs only other handshakes. */
#include <errno.h>
#include <stdlib.h>

#include "tcp_conn.h"

enum { HANDSHAKE_US = 60 * 1000 * 1000 /* the SYN-ACK and five repetitions */ };

int tcp_listen_create(struct tcp_listeners *listeners) {
    *listeners = (struct tcp_listeners){.half_oldest = TCP_NONE, .half_newest = TCP_NONE};
    memset(listeners->heads, 0xff, sizeof(listeners->heads));
    listeners->items = calloc(TCP_LISTENERS_MAX, sizeof(struct tcp_listener));
    return listeners->items == NULL ? -ENOMEM : 0;
}

void tcp_listen_destroy(struct tcp_listeners *listeners) {
    free(listeners->items);
    listeners->items = NULL;
}

/* By port and the address, or by port alone for those of any address. */
static unsigned bucket_of(const struct tcp_stack *stack, const uint8_t local[16], uint8_t family, uint16_t port) {
    static const uint8_t none[16];
    uint64_t words[5];
    unsigned count = tcp_tuple_words(words, local == NULL ? none : local, none, family, port, 0);
    return (unsigned)tcp_hash_fast(&stack->table_key, words, count) % TCP_LISTENER_HEADS;
}

static struct tcp_listener *find(const struct tcp_stack *stack, const uint8_t *local, uint8_t family, uint16_t port) {
    unsigned index = stack->listeners.heads[bucket_of(stack, local, family, port)];
    while (index != TCP_NO_LISTENER) {
        struct tcp_listener *listener = &stack->listeners.items[index];
        if (listener->port == port && listener->family == family && listener->any == (local == NULL) &&
            (local == NULL || memcmp(listener->local, local, 16) == 0)) {
            return listener;
        }
        index = listener->next;
    }
    return NULL;
}

struct tcp_listener *tcp_listen_find(const struct tcp_stack *stack, const uint8_t local[16], uint8_t family, uint16_t port) {
    if (stack->listeners.count == 0) {
        return NULL;
    }
    struct tcp_listener *exact = find(stack, local, family, port);
    return exact != NULL ? exact : find(stack, NULL, family, port);
}

int tcp_listen(struct tcp_stack *stack, const struct tcp_address *local, uint16_t port, void *user) {
    static const uint8_t none[16];
    struct tcp_listeners *listeners = &stack->listeners;
    if ((local->family != 4 && local->family != 6) || port == 0 || stack->config.events.accepted == NULL) {
        return -EINVAL;
    }
    const uint8_t *bytes = memcmp(local->bytes, none, sizeof(none)) == 0 ? NULL : local->bytes;
    if (find(stack, bytes, local->family, port) != NULL) {
        return -EADDRINUSE;
    }
    if (listeners->count == TCP_LISTENERS_MAX) {
        return -ENOBUFS;
    }
    uint16_t *head = &listeners->heads[bucket_of(stack, bytes, local->family, port)];
    struct tcp_listener *listener = &listeners->items[listeners->count];
    *listener = (struct tcp_listener){.user = user, .port = port, .next = *head, .family = local->family, .any = bytes == NULL};
    memcpy(listener->local, local->bytes, sizeof(listener->local));
    *head = (uint16_t)listeners->count++;
    return 0;
}

static void link_newest(struct tcp_conn *conn) {
    struct tcp_stack *stack = conn->stack;
    struct tcp_listeners *listeners = &stack->listeners;
    uint32_t index = conn_index(conn);
    uint32_t before = listeners->half_newest;
    conn->growth.half.next = TCP_NONE;
    conn->growth.half.previous = before;
    *(before == TCP_NONE ? &listeners->half_oldest : &conn_at(stack, before)->growth.half.next) = index;
    listeners->half_newest = index;
    listeners->half_open++;
}

void tcp_listen_unlink(struct tcp_conn *conn) {
    struct tcp_stack *stack = conn->stack;
    struct tcp_listeners *listeners = &stack->listeners;
    uint32_t before = conn->growth.half.previous, after = conn->growth.half.next;
    *(before == TCP_NONE ? &listeners->half_oldest : &conn_at(stack, before)->growth.half.next) = after;
    *(after == TCP_NONE ? &listeners->half_newest : &conn_at(stack, after)->growth.half.previous) = before;
    listeners->half_open--;
}

bool tcp_listen_evict(struct tcp_stack *stack) {
    uint32_t index = stack->listeners.half_oldest;
    if (index == TCP_NONE) {
        return false;
    }
    struct tcp_conn *conn = conn_at(stack, index);
    tcp_stack_remove(stack, conn);
    tcp_timer_remove(conn);
    tcp_output_unlist_ack(conn);
    tcp_listen_unlink(conn);
    tcp_conn_release(conn);
    conn->state = TCP_STATE_FREE;
    tcp_pool_give(&stack->conns, index);
    stack->counters.listen_dropped++;
    return true;
}

void tcp_listen_syn(struct tcp_stack *stack, struct tcp_listener *listener, const struct tcp_packet *packet, const struct tcp_incoming *in,
                    uint32_t hash, uint16_t remote_port, uint32_t after, uint64_t now_us) {
    if (stack->listeners.half_open >= stack->config.max_half_open || tcp_pool_left(&stack->conns) == 0) {
        if (!tcp_listen_evict(stack)) {
            stack->counters.listen_dropped++;
            return;
        }
    }
    struct tcp_conn *conn =
        tcp_conn_create(stack, &packet->local, &packet->remote, listener->port, remote_port, hash, after, HANDSHAKE_US, now_us);
    conn->user = listener;
    conn->flags = CONN_EMBRYO;
    /* Text and FIN of a SYN come again: nothing is kept for a stranger who has not shown that he hears us. */
    conn->irs = in->sequence;
    conn->rcv_nxt = in->sequence + 1;
    tcp_conn_options(conn, &in->options);
    conn->snd_wnd = conn->max_snd_wnd = in->window; /* a SYN's window is never scaled (RFC 7323 2.2) */
    conn->snd_wl1 = in->sequence;
    conn->snd_wl2 = conn->iss;
    tcp_conn_enter(conn, TCP_STATE_SYN_RECEIVED);
    link_newest(conn);
    tcp_timer_arm(conn, conn->limit_at);
    tcp_output_syn(conn, now_us);
}

bool tcp_listen_accept(struct tcp_conn *conn, uint64_t now_us) {
    struct tcp_stack *stack = conn->stack;
    const struct tcp_listener *listener = conn->user;
    conn->flags &= (uint16_t)~CONN_EMBRYO;
    void *user = stack->config.events.accepted(listener->user, conn, now_us);
    conn->user = user;
    if (user != NULL) {
        stack->counters.accepted++;
        return true;
    }
    stack->counters.listen_dropped++;
    if (conn->state != TCP_STATE_CLOSED) {
        tcp_output_reset(conn, now_us);
        tcp_conn_end(conn, TCP_ABORTED);
    }
    conn->flags |= CONN_EMBRYO; /* it never was the layer above's: `closed` does not come */
    return false;
}
