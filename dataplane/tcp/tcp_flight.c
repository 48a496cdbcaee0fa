/* tcp_flight.c: a record for each transmission in flight, in the order of sequence numbers; what is in the network also in the order of
 * transmission (RFC 8985 section 5.2), what is lost also by itself, so that no ACK looks at all of a long flight. */
#include "tcp_conn.h"

enum {
    LOST_STEPS_MAX = 64, /* looked at to find a lost flight's place among the lost: beyond that the order is not worth more */
    TIME_AHEAD_MAX_US = 1000 * 1000,
};

static void list_insert(struct tcp_conn *conn, uint32_t *head, uint32_t *tail, uint32_t index, uint32_t previous) {
    struct tcp_flight *flight = flight_at(conn->stack, index);
    uint32_t next = previous == TCP_NONE ? *head : flight_at(conn->stack, previous)->list_next;
    flight->list_previous = previous;
    flight->list_next = next;
    *(previous == TCP_NONE ? head : &flight_at(conn->stack, previous)->list_next) = index;
    *(next == TCP_NONE ? tail : &flight_at(conn->stack, next)->list_previous) = index;
}

static void list_remove(struct tcp_conn *conn, uint32_t *head, uint32_t *tail, const struct tcp_flight *flight) {
    uint32_t next = flight->list_next, previous = flight->list_previous;
    *(previous == TCP_NONE ? head : &flight_at(conn->stack, previous)->list_next) = next;
    *(next == TCP_NONE ? tail : &flight_at(conn->stack, next)->list_previous) = previous;
}

/* Off the list that it is on, and out of the sums. */
static void detach(struct tcp_conn *conn, uint32_t index) {
    struct tcp_loss *loss = &conn->loss;
    struct tcp_flight *flight = flight_at(conn->stack, index);
    if ((flight->flags & FLIGHT_SACKED) != 0) {
        conn->arrived_bytes -= flight_space(flight);
        flight->flags &= (uint8_t)~FLIGHT_SACKED;
    } else if ((flight->flags & FLIGHT_LOST) != 0) {
        conn->lost_bytes -= flight_space(flight);
        flight->flags &= (uint8_t)~FLIGHT_LOST;
        if (loss->lost_cursor == index) {
            loss->lost_cursor = flight->list_previous;
        }
        list_remove(conn, &loss->lost_head, &loss->lost_tail, flight);
    } else {
        list_remove(conn, &loss->sent_head, &loss->sent_tail, flight);
    }
}

/* The list is in the order of times and, at equal times, of sequence numbers (RFC 8985 section 5.2). All that leaves in one pass leaves at
 * one time: what is sent again among it gets a microsecond more, or the arrival of higher numbers sent before it would call it lost. */
static void order_time(struct tcp_conn *conn, struct tcp_flight *flight) {
    if (conn->loss.sent_tail == TCP_NONE) {
        return;
    }
    const struct tcp_flight *last = flight_at(conn->stack, conn->loss.sent_tail);
    int32_t ahead_us = (int32_t)(last->sent_us - flight->sent_us);
    if (ahead_us >= 0 && ahead_us < TIME_AHEAD_MAX_US) {
        flight->sent_us = last->sent_us + (SEQ_LT(flight->sequence, last->sequence) ? 1 : 0);
    }
}

void tcp_flight_append(struct tcp_conn *conn, uint32_t index) {
    struct tcp_flight *flight = flight_at(conn->stack, index);
    flight->next = TCP_NONE;
    flight->previous = conn->flight_tail;
    *(conn->flight_tail == TCP_NONE ? &conn->flight_head : &flight_at(conn->stack, conn->flight_tail)->next) = index;
    conn->flight_tail = index;
    order_time(conn, flight);
    list_insert(conn, &conn->loss.sent_head, &conn->loss.sent_tail, index, conn->loss.sent_tail);
}

void tcp_flight_sent_again(struct tcp_conn *conn, uint32_t index, uint64_t now_us) {
    struct tcp_flight *flight = flight_at(conn->stack, index);
    detach(conn, index);
    flight->flags = (uint8_t)((flight->flags & ~FLIGHT_CUT) | FLIGHT_REPEATED);
    flight->sent_us = (uint32_t)now_us;
    order_time(conn, flight);
    list_insert(conn, &conn->loss.sent_head, &conn->loss.sent_tail, index, conn->loss.sent_tail);
}

/* The lost flight after which one with this sequence number belongs. Losses are found in bursts of rising numbers, so the place is near
 * the last one, or at an end. */
static uint32_t lost_place(struct tcp_conn *conn, uint32_t sequence) {
    struct tcp_loss *loss = &conn->loss;
    uint32_t at = loss->lost_tail;
    if (at == TCP_NONE || SEQ_LT(flight_at(conn->stack, at)->sequence, sequence)) {
        return at;
    }
    if (SEQ_LT(sequence, flight_at(conn->stack, loss->lost_head)->sequence)) {
        return TCP_NONE;
    }
    at = loss->lost_cursor != TCP_NONE ? loss->lost_cursor : loss->lost_head;
    for (uint32_t step = 0; step < LOST_STEPS_MAX; step++) {
        const struct tcp_flight *flight = flight_at(conn->stack, at);
        if (SEQ_GT(flight->sequence, sequence)) {
            if (flight->list_previous == TCP_NONE) {
                return TCP_NONE;
            }
            at = flight->list_previous;
        } else if (flight->list_next == TCP_NONE || SEQ_GT(flight_at(conn->stack, flight->list_next)->sequence, sequence)) {
            return at;
        } else {
            at = flight->list_next;
        }
    }
    return at;
}

void tcp_flight_mark_lost(struct tcp_conn *conn, uint32_t index) {
    struct tcp_flight *flight = flight_at(conn->stack, index);
    if ((flight->flags & (FLIGHT_LOST | FLIGHT_SACKED)) != 0) {
        return;
    }
    detach(conn, index);
    flight->flags |= FLIGHT_LOST;
    conn->lost_bytes += flight_space(flight);
    list_insert(conn, &conn->loss.lost_head, &conn->loss.lost_tail, index, lost_place(conn, flight->sequence));
    conn->loss.lost_cursor = index;
}

void tcp_flight_unmark_lost(struct tcp_conn *conn) {
    struct tcp_loss *loss = &conn->loss;
    uint32_t place = TCP_NONE;
    /* What was lost left before what was sent since, and lies in that order itself but for what was sent again: one pass merges. */
    for (uint32_t index = loss->lost_head, next_lost; index != TCP_NONE; index = next_lost) {
        struct tcp_flight *flight = flight_at(conn->stack, index);
        next_lost = flight->list_next;
        if (flight->length > conn->mss) {
            continue; /* the path's MTU became smaller since it left: this one is lost whatever the others are */
        }
        detach(conn, index);
        for (;;) {
            uint32_t next = place == TCP_NONE ? loss->sent_head : flight_at(conn->stack, place)->list_next;
            if (next == TCP_NONE || (int32_t)(flight_at(conn->stack, next)->sent_us - flight->sent_us) > 0) {
                break;
            }
            place = next;
        }
        list_insert(conn, &loss->sent_head, &loss->sent_tail, index, place);
        place = index;
    }
}

static void unlink_sequence(struct tcp_conn *conn, const struct tcp_flight *flight) {
    uint32_t next = flight->next, previous = flight->previous;
    *(previous == TCP_NONE ? &conn->flight_head : &flight_at(conn->stack, previous)->next) = next;
    *(next == TCP_NONE ? &conn->flight_tail : &flight_at(conn->stack, next)->previous) = previous;
}

/* Two neighbours that the peer holds become the first of them. */
static void join(struct tcp_conn *conn, uint32_t first, uint32_t second) {
    struct tcp_flight *into = flight_at(conn->stack, first), *from = flight_at(conn->stack, second);
    into->length += from->length;
    into->flags |= from->flags;
    unlink_sequence(conn, from);
    if (conn->loss.sack_cursor == second) {
        conn->loss.sack_cursor = first;
    }
    tcp_pool_give(&conn->stack->flights, second);
}

uint32_t tcp_flight_mark_sacked(struct tcp_conn *conn, uint32_t index) {
    struct tcp_flight *flight = flight_at(conn->stack, index);
    detach(conn, index);
    flight->flags |= FLIGHT_SACKED;
    conn->arrived_bytes += flight_space(flight);
    uint32_t next = flight->next, previous = flight->previous;
    if (next != TCP_NONE && (flight_at(conn->stack, next)->flags & FLIGHT_SACKED) != 0) {
        join(conn, index, next);
    }
    if (previous != TCP_NONE && (flight_at(conn->stack, previous)->flags & FLIGHT_SACKED) != 0) {
        join(conn, previous, index);
        index = previous;
    }
    return index;
}

void tcp_flight_renege(struct tcp_conn *conn) {
    for (uint32_t i = conn->flight_head; i != TCP_NONE; i = flight_at(conn->stack, i)->next) {
        struct tcp_flight *flight = flight_at(conn->stack, i);
        if ((flight->flags & FLIGHT_SACKED) != 0) {
            detach(conn, i);
            list_insert(conn, &conn->loss.sent_head, &conn->loss.sent_tail, i, conn->loss.sent_tail);
        }
        tcp_flight_mark_lost(conn, i);
    }
}

bool tcp_flight_split(struct tcp_conn *conn, uint32_t index, uint32_t bytes) {
    struct tcp_stack *stack = conn->stack;
    struct tcp_flight *flight = flight_at(stack, index);
    assert(bytes > 0 && bytes < flight->length && (flight->flags & FLIGHT_SACKED) == 0);
    if (tcp_pool_left(&stack->flights) <= stack->flights.capacity >> TCP_RESERVE_SHIFT) {
        return false;
    }
    uint32_t rest_index = tcp_pool_take(&stack->flights);
    struct tcp_flight *rest = flight_at(stack, rest_index);
    *rest = *flight;
    rest->sequence += bytes;
    rest->length -= bytes;
    tcp_queue_advance(stack, &rest->range, &rest->offset, bytes);
    flight->length = bytes;
    flight->flags &= (uint8_t)~FLIGHT_FIN;
    rest->previous = index;
    *(rest->next == TCP_NONE ? &conn->flight_tail : &flight_at(stack, rest->next)->previous) = rest_index;
    flight->next = rest_index;
    if ((flight->flags & FLIGHT_LOST) != 0) {
        list_insert(conn, &conn->loss.lost_head, &conn->loss.lost_tail, rest_index, index);
    } else {
        list_insert(conn, &conn->loss.sent_head, &conn->loss.sent_tail, rest_index, index);
    }
    return true;
}

/* Moves a flight's beginning to `ack`, which lies inside it. */
static void flight_trim(struct tcp_conn *conn, struct tcp_flight *flight, uint32_t ack) {
    uint32_t bytes = ack - flight->sequence;
    flight->sequence = ack;
    flight->length -= bytes;
    if ((flight->flags & FLIGHT_SACKED) != 0) {
        conn->arrived_bytes -= bytes;
    } else if ((flight->flags & FLIGHT_LOST) != 0) {
        conn->lost_bytes -= bytes;
    }
    tcp_queue_advance(conn->stack, &flight->range, &flight->offset, bytes);
}

/* Eifel detection (RFC 3522): the acknowledgement of what this recovery sent again answers what left before the recovery did so. */
static bool answers_earlier(const struct tcp_conn *conn, const struct tcp_flight *flight, const struct tcp_ack *ack, uint64_t now_us) {
    const struct tcp_loss *loss = &conn->loss;
    uint32_t age_us = flight_age_us(flight, now_us);
    return (loss->flags & LOSS_STAMPED) != 0 && ack->has_echo && SEQ_LT(ack->echo, loss->stamp) &&
           SEQ_GEQ(tcp_output_timestamp(conn, now_us - age_us), loss->stamp);
}

/* What the acknowledgement of a flight tells, unless a SACK told it before. */
static void note(struct tcp_conn *conn, const struct tcp_flight *flight, struct tcp_ack *ack, uint64_t now_us) {
    ack->delivered += flight_space(flight);
    conn->passed_bytes = (uint16_t)tcp_max(conn->passed_bytes, tcp_min(flight->length, conn->mss));
    if ((flight->flags & (FLIGHT_REPEATED | FLIGHT_PROBE)) != 0) {
        ack->repeated = true;
        ack->late |= answers_earlier(conn, flight, ack, now_us);
    } else {
        ack->sample_us = tcp_max(flight_age_us(flight, now_us), 1);
    }
    if ((conn->loss.flags & LOSS_SACK) != 0) {
        tcp_rack_update(conn, flight, ack, now_us);
    }
}

void tcp_flight_drop(struct tcp_conn *conn, struct tcp_ack *ack, uint64_t now_us) {
    struct tcp_stack *stack = conn->stack;
    struct tcp_loss *loss = &conn->loss;
    while (conn->flight_head != TCP_NONE) {
        uint32_t index = conn->flight_head;
        struct tcp_flight *flight = flight_at(stack, index);
        if (SEQ_GT(flight->sequence + flight_space(flight), ack->number)) {
            if (SEQ_LT(flight->sequence, ack->number)) {
                ack->delivered += (flight->flags & FLIGHT_SACKED) != 0 ? 0 : ack->number - flight->sequence;
                flight_trim(conn, flight, ack->number);
                if ((flight->flags & FLIGHT_CUT) != 0) {
                    flight->flags &= (uint8_t)~FLIGHT_CUT;
                    tcp_flight_mark_lost(conn, index);
                }
            }
            break;
        }
        if ((flight->flags & FLIGHT_SACKED) == 0) {
            note(conn, flight, ack, now_us);
        }
        detach(conn, index);
        unlink_sequence(conn, flight);
        if (loss->sack_cursor == index) {
            loss->sack_cursor = conn->flight_head;
        }
        tcp_pool_give(&stack->flights, index);
    }
    if (ack->repeated) {
        ack->sample_us = 0;
    }
    if (conn->flight_head == TCP_NONE) {
        loss->flags &= (uint16_t)~LOSS_RACK; /* whatever leaves next leaves later */
    }
}

void tcp_flight_release(struct tcp_conn *conn) {
    while (conn->flight_head != TCP_NONE) {
        uint32_t index = conn->flight_head;
        conn->flight_head = flight_at(conn->stack, index)->next;
        tcp_pool_give(&conn->stack->flights, index);
    }
}
