/* tcp_sack.c: what the peer says it holds out of order (RFC 2018) or has twice (RFC 2883), checked and entered into the scoreboard, which
 * is the records of what is in flight (RFC 6675 section 3). */
#include "tcp_bytes.h"
#include "tcp_conn.h"

enum {
    STEPS_MAX = 512, /* records looked at for one ACK: a peer that names ranges at random gets no more of our time. Honest ones name what
                      * is next to what they named before; what is left out, a later ACK repeats (RFC 2018 section 4) */
    UNDO_BYTES_MAX = 1 << 28, /* duplicates of what was sent longer ago prove nothing */
};

/* Reports of duplicates: the first block only, and it lies below the acknowledgement or within the second (RFC 2883 section 4). */
static bool is_duplicate_report(const struct tcp_span *spans, uint32_t count, const struct tcp_ack *ack) {
    if (SEQ_LEQ(spans[0].right, ack->number)) {
        return true;
    }
    return count > 1 && SEQ_GEQ(spans[0].left, spans[1].left) && SEQ_LEQ(spans[0].right, spans[1].right);
}

static void take_duplicate(struct tcp_conn *conn, const struct tcp_span *span, struct tcp_ack *ack) {
    struct tcp_loss *loss = &conn->loss;
    /* Nothing that was never sent, and nothing of a window long past. */
    if (SEQ_GT(span->right, conn->snd_nxt) || SEQ_LT(span->left, conn->snd_una - tcp_max(conn->max_snd_wnd, UINT16_MAX))) {
        return;
    }
    ack->dsack = true;
    ack->dsacked = *span;
    if ((loss->flags & LOSS_UNDO) == 0) {
        return;
    }
    if (conn->snd_una - loss->undo_from > UNDO_BYTES_MAX) {
        loss->flags &= (uint16_t)~LOSS_UNDO;
    } else if (SEQ_GT(span->right, loss->undo_from) && loss->undo_bytes > 0) {
        loss->undo_bytes -= tcp_min(loss->undo_bytes, span->right - span->left);
        ack->undo = loss->undo_bytes == 0;
    }
}

/* A record at or before the one where `sequence` lies, from which the walk is short. */
static uint32_t near(const struct tcp_conn *conn, uint32_t sequence) {
    uint32_t cursor = conn->loss.sack_cursor;
    if (cursor == TCP_NONE || sequence - conn->snd_una < 1) {
        return conn->flight_head;
    }
    uint32_t at = flight_at(conn->stack, cursor)->sequence;
    uint32_t from_cursor = SEQ_LT(at, sequence) ? sequence - at : at - sequence;
    return sequence - conn->snd_una < from_cursor ? conn->flight_head : cursor;
}

static void sack_flight(struct tcp_conn *conn, uint32_t index, struct tcp_ack *ack, uint64_t now_us) {
    const struct tcp_flight *flight = flight_at(conn->stack, index);
    uint32_t space = flight_space(flight);
    ack->delivered += space;
    ack->sacked += space;
    conn->passed_bytes = (uint16_t)tcp_max(conn->passed_bytes, tcp_min(flight->length, conn->mss));
    if ((flight->flags & FLIGHT_REPEATED) == 0) {
        ack->sacked_sample_us = tcp_max(flight_age_us(flight, now_us), 1);
    }
    tcp_rack_update(conn, flight, ack, now_us);
    conn->loss.sack_cursor = tcp_flight_mark_sacked(conn, index);
}

/* The part of a flight that the span covers, in whole segments: a peer that names single bytes must not break the flight into as many
 * records. Returns the record of that part, or TCP_NONE. */
static uint32_t cut(struct tcp_conn *conn, uint32_t index, const struct tcp_span *span) {
    struct tcp_flight *flight = flight_at(conn->stack, index);
    uint32_t mss = conn->mss;
    if (SEQ_GT(span->left, flight->sequence)) {
        uint32_t before = (span->left - flight->sequence + mss - 1) / mss * mss;
        if (before >= flight->length || !tcp_flight_split(conn, index, before)) {
            return TCP_NONE;
        }
        index = flight->next;
        flight = flight_at(conn->stack, index);
    }
    if (SEQ_LT(span->right, flight->sequence + flight_space(flight))) {
        uint32_t covered = SEQ_GT(span->right, flight->sequence) ? (span->right - flight->sequence) / mss * mss : 0;
        if (covered == flight->length && (flight->flags & FLIGHT_FIN) != 0) {
            covered -= mss; /* a FIN by itself is a record that nobody needs */
        }
        if (covered == 0 || covered >= flight->length || !tcp_flight_split(conn, index, covered)) {
            return TCP_NONE;
        }
    }
    return index;
}

static void take_span(struct tcp_conn *conn, const struct tcp_span *span, uint32_t *steps, struct tcp_ack *ack, uint64_t now_us) {
    struct tcp_stack *stack = conn->stack;
    uint32_t index = near(conn, span->left);
    while (*steps > 0 && index != TCP_NONE && SEQ_GT(flight_at(stack, index)->sequence, span->left) &&
           flight_at(stack, index)->previous != TCP_NONE) {
        index = flight_at(stack, index)->previous;
        (*steps)--;
    }
    while (index != TCP_NONE && *steps > 0) {
        const struct tcp_flight *flight = flight_at(stack, index);
        uint32_t end = flight->sequence + flight_space(flight);
        if (SEQ_GEQ(flight->sequence, span->right)) {
            break;
        }
        (*steps)--;
        if (SEQ_GT(end, span->left) && (flight->flags & (FLIGHT_SACKED | FLIGHT_PROBE)) == 0) {
            if (SEQ_GEQ(flight->sequence, span->left) && SEQ_LEQ(end, span->right)) {
                sack_flight(conn, index, ack, now_us);
                index = conn->loss.sack_cursor;
            } else if (flight->length > conn->mss) {
                uint32_t part = cut(conn, index, span);
                if (part != TCP_NONE) {
                    sack_flight(conn, part, ack, now_us);
                    index = conn->loss.sack_cursor;
                }
            }
        }
        index = flight_at(stack, index)->next;
    }
    if (*steps == 0 && index != TCP_NONE) {
        conn->loss.sack_cursor = index; /* the next ACK goes on from here */
    }
}

void tcp_sack_take(struct tcp_conn *conn, const struct tcp_options *options, struct tcp_ack *ack, uint64_t now_us) {
    struct tcp_span spans[TCP_SACK_SPANS];
    uint32_t count = tcp_min(options->sack_count, TCP_SACK_SPANS), steps = STEPS_MAX;
    uint32_t base = SEQ_GT(ack->number, conn->snd_una) ? ack->number : conn->snd_una;
    for (uint32_t i = 0; i < count; i++) {
        spans[i] = (struct tcp_span){.left = tcp_get32(options->sack + 8 * i), .right = tcp_get32(options->sack + 8 * i + 4)};
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct tcp_span *span = &spans[i];
        if (!SEQ_LT(span->left, span->right)) {
            continue;
        }
        if (i == 0 && is_duplicate_report(spans, count, ack)) {
            take_duplicate(conn, span, ack);
            continue;
        }
        /* RFC 2018 section 3 and 5: above the acknowledgement, and sent. */
        if (SEQ_GT(span->left, base) && SEQ_LEQ(span->right, conn->snd_nxt)) {
            take_span(conn, span, &steps, ack, now_us);
        }
    }
}
