/* tcp_time_wait.c: connections that are over but whose last segments may still be on their way (RFC 9293 3.6.1): a small record each, in
 * order of age, in a capped pool where the oldest makes room. */
#include "tcp_conn.h"

enum {
    TIME_WAIT_US = 60 * 1000 * 1000, /* 2 MSL with the MSL of 30 s that others use */
    REUSE_AFTER_US = 1000 * 1000,    /* RFC 6191: the timestamp clock has ticked for certain */
};

static uint32_t *bucket_of(const struct tcp_stack *stack, const struct tcp_pair *pair, uint16_t local_port) {
    uint64_t words[5];
    unsigned count = tcp_tuple_words(words, pair->local, pair->remote, pair->family, local_port, pair->remote_port);
    return &stack->wait_heads[tcp_hash_fast(&stack->table_key, words, count) & stack->wait_mask];
}

static void age_append(struct tcp_stack *stack, uint32_t index) {
    struct tcp_time_wait *wait = wait_at(stack, index);
    struct tcp_pair *pair = tcp_ports_pair(&stack->ports, wait->pair);
    wait->next = wait->pair_next = TCP_NONE;
    wait->previous = stack->wait_newest;
    wait->pair_previous = pair->wait_tail;
    *(wait->previous == TCP_NONE ? &stack->wait_oldest : &wait_at(stack, wait->previous)->next) = index;
    *(wait->pair_previous == TCP_NONE ? &pair->wait_head : &wait_at(stack, wait->pair_previous)->pair_next) = index;
    stack->wait_newest = pair->wait_tail = index;
}

static void age_unlink(struct tcp_stack *stack, uint32_t index) {
    struct tcp_time_wait *wait = wait_at(stack, index);
    struct tcp_pair *pair = tcp_ports_pair(&stack->ports, wait->pair);
    *(wait->previous == TCP_NONE ? &stack->wait_oldest : &wait_at(stack, wait->previous)->next) = wait->next;
    *(wait->next == TCP_NONE ? &stack->wait_newest : &wait_at(stack, wait->next)->previous) = wait->previous;
    *(wait->pair_previous == TCP_NONE ? &pair->wait_head : &wait_at(stack, wait->pair_previous)->pair_next) = wait->pair_next;
    *(wait->pair_next == TCP_NONE ? &pair->wait_tail : &wait_at(stack, wait->pair_next)->pair_previous) = wait->pair_previous;
}

/* Forgets a record; its port stays taken for the caller to give back or to use. */
static void forget(struct tcp_stack *stack, uint32_t index) {
    const struct tcp_time_wait *wait = wait_at(stack, index);
    uint32_t *link = bucket_of(stack, tcp_ports_pair(&stack->ports, wait->pair), wait->local_port);
    while (*link != index) {
        link = &wait_at(stack, *link)->hash_next;
    }
    *link = wait->hash_next;
    age_unlink(stack, index);
    tcp_pool_give(&stack->waits, index);
}

static void drop_oldest(struct tcp_stack *stack) {
    const struct tcp_time_wait *wait = wait_at(stack, stack->wait_oldest);
    uint32_t pair = wait->pair;
    uint16_t port = wait->local_port;
    forget(stack, stack->wait_oldest);
    tcp_ports_give(&stack->ports, pair, port);
}

void tcp_time_wait_enter(struct tcp_conn *conn, uint64_t now_us) {
    struct tcp_stack *stack = conn->stack;
    if (tcp_pool_left(&stack->waits) == 0) {
        drop_oldest(stack);
    }
    uint32_t index = tcp_pool_take(&stack->waits);
    uint32_t *head = bucket_of(stack, tcp_ports_pair(&stack->ports, conn->pair), conn->local_port);
    *wait_at(stack, index) = (struct tcp_time_wait){.pair = conn->pair,
                                                    .local_port = conn->local_port,
                                                    .timestamps = (conn->flags & CONN_TIMESTAMPS) != 0,
                                                    .snd_nxt = conn->snd_nxt,
                                                    .rcv_nxt = conn->rcv_nxt,
                                                    .ts_recent = conn->ts_recent,
                                                    .ts_offset = conn->ts_offset,
                                                    .hash_next = *head,
                                                    .since_us = now_us};
    *head = index;
    age_append(stack, index);
    conn->pair = TCP_NONE;
    stack->counters.time_wait++;
}

bool tcp_time_wait_input(struct tcp_stack *stack, const struct tcp_packet *packet, const struct tcp_incoming *in, uint16_t local_port,
                         uint16_t remote_port, uint64_t now_us) {
    if (stack->waits.in_use == 0) {
        return false;
    }
    uint32_t pair = tcp_ports_find(&stack->ports, packet->local.bytes, packet->remote.bytes, packet->local.family, remote_port);
    if (pair == TCP_NONE) {
        return false;
    }
    uint32_t index = *bucket_of(stack, tcp_ports_pair(&stack->ports, pair), local_port);
    while (index != TCP_NONE && (wait_at(stack, index)->pair != pair || wait_at(stack, index)->local_port != local_port)) {
        index = wait_at(stack, index)->hash_next;
    }
    if (index == TCP_NONE) {
        return false;
    }
    struct tcp_time_wait *wait = wait_at(stack, index);
    /* A reset would cut the wait short (RFC 1337); a bare ACK needs no answer, and two sides that answer each other never stop. */
    if ((in->flags & TCP_RST) != 0 || (in->length == 0 && (in->flags & (TCP_SYN | TCP_FIN)) == 0)) {
        return true;
    }
    uint8_t options[TCP_OPTIONS_BYTES_MAX], length = 0;
    if (wait->timestamps) {
        length = tcp_options_write(options, (uint32_t)(now_us >> TCP_TIMESTAMP_SHIFT) + wait->ts_offset, wait->ts_recent);
    }
    if ((in->flags & TCP_FIN) != 0 && in->sequence + in->length + 1 == wait->rcv_nxt) { /* the FIN again: the wait begins anew */
        age_unlink(stack, index);
        wait->since_us = now_us;
        age_append(stack, index);
    }
    tcp_output_raw(stack, packet->local.bytes, packet->remote.bytes, packet->local.family, local_port, remote_port, wait->snd_nxt,
                   wait->rcv_nxt, TCP_ACK, options, length);
    return true;
}

bool tcp_time_wait_reuse(struct tcp_stack *stack, uint32_t pair, uint64_t now_us, uint16_t *port, uint32_t *after) {
    uint32_t index = tcp_ports_pair(&stack->ports, pair)->wait_head;
    if (index == TCP_NONE) {
        return false;
    }
    const struct tcp_time_wait *wait = wait_at(stack, index);
    if (!wait->timestamps || now_us - wait->since_us < REUSE_AFTER_US) {
        return false;
    }
    *port = wait->local_port;
    *after = wait->snd_nxt;
    forget(stack, index);
    return true;
}

uint32_t tcp_time_wait_expire(struct tcp_stack *stack, uint32_t budget, uint64_t now_us) {
    uint32_t done = 0;
    while (done < budget && stack->wait_oldest != TCP_NONE && now_us - wait_at(stack, stack->wait_oldest)->since_us >= TIME_WAIT_US) {
        drop_oldest(stack);
        done++;
    }
    return done;
}

uint64_t tcp_time_wait_next(const struct tcp_stack *stack) {
    return stack->wait_oldest == TCP_NONE ? TCP_NEVER : wait_at(stack, stack->wait_oldest)->since_us + TIME_WAIT_US;
}
