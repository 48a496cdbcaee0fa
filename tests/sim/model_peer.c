/* model_peer.c: the model peer: go-back-N sending, byte-map reassembly, windows of its own mind. */
#include "model_peer.h"

#include <stdlib.h>
#include <string.h>

enum { RTO_FIRST_US = 300 * 1000, RTO_MAX_US = 10 * 1000 * 1000 };
#define NEVER UINT64_MAX

static int32_t seq_diff(uint32_t a, uint32_t b) {
    return (int32_t)(a - b);
}

static uint32_t get32(const uint8_t *b) {
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static void put32(uint8_t *b, uint32_t v) {
    for (int i = 0; i < 4; i++) {
        b[i] = (uint8_t)(v >> (24 - 8 * i));
    }
}

void model_init(struct model_peer *peer, uint32_t iss) {
    peer->iss = iss;
    peer->una = peer->nxt = peer->max = iss;
    peer->have = calloc(peer->expected_bytes + 1, 1);
    peer->ack_at = peer->resend_at = peer->read_at = NEVER;
    peer->rto_us = RTO_FIRST_US;
    peer->state = MODEL_LISTEN;
}

void model_free(struct model_peer *peer) {
    free(peer->have);
    peer->have = NULL;
}

uint32_t model_received(const struct model_peer *peer) {
    return peer->rcv_nxt - peer->irs - 1 - (peer->fin_taken ? 1 : 0);
}

static void emit(struct model_peer *peer, uint8_t flags, uint32_t sequence, const uint8_t *payload, uint32_t length, uint64_t now_us) {
    struct model_segment out = {.sequence = sequence, .acknowledgement = peer->rcv_nxt, .flags = flags, .length = length};
    bool syn = (flags & MODEL_SYN) != 0;
    uint32_t free_bytes = peer->habits.buffer_bytes > peer->unread ? peer->habits.buffer_bytes - peer->unread : 0;
    if (seq_diff(peer->rcv_nxt + free_bytes, peer->adv) > 0) {
        peer->adv = peer->rcv_nxt + free_bytes;
    }
    uint32_t shift = peer->scaling && !syn ? (uint32_t)peer->habits.shift : 0;
    uint32_t window = (peer->adv - peer->rcv_nxt) >> shift;
    out.window = (uint16_t)(window > 65535 ? 65535 : window);
    uint32_t edge = peer->rcv_nxt + ((uint32_t)out.window << shift);
    if (seq_diff(edge, peer->max_right_edge) > 0) {
        peer->max_right_edge = edge;
    }
    if (syn && peer->habits.mss != 0) {
        out.options[0] = 2;
        out.options[1] = 4;
        out.options[2] = (uint8_t)(peer->habits.mss >> 8);
        out.options[3] = (uint8_t)peer->habits.mss;
        out.options_length = 4;
    }
    if (syn && peer->scaling) {
        uint8_t *at = out.options + out.options_length;
        at[0] = 3;
        at[1] = 3;
        at[2] = (uint8_t)peer->habits.shift;
        at[3] = 0;
        if (peer->stamps) { /* an end-of-options byte would hide what follows */
            at[3] = 1;
        }
        out.options_length += 4;
    }
    if (peer->stamps) {
        uint8_t *at = out.options + out.options_length;
        memcpy(at, "\x01\x01\x08\x0a", 4);
        put32(at + 4, (uint32_t)(now_us / 1000) + peer->iss);
        put32(at + 8, peer->ts_recent);
        out.options_length += 12;
    }
    out.payload = (uint8_t *)(uintptr_t)payload;
    if ((flags & MODEL_ACK) != 0) {
        peer->unacked_segments = 0;
        peer->ack_at = NEVER;
    }
    peer->emit(peer->world, peer, &out);
}

static void parse_syn(struct model_peer *peer, const struct model_segment *in) {
    peer->mss = 536;
    bool scale = false, stamps = false;
    for (uint32_t at = 0; at < in->options_length && in->options[at] != 0;) {
        if (in->options[at] == 1) {
            at++;
            continue;
        }
        if (in->options[at] == 2) {
            peer->mss = (uint32_t)in->options[at + 2] << 8 | in->options[at + 3];
        } else if (in->options[at] == 3) {
            scale = true;
            peer->peer_shift = in->options[at + 2];
        } else if (in->options[at] == 8) {
            stamps = true;
            peer->ts_recent = get32(in->options + at + 2);
        }
        at += in->options[at + 1];
    }
    peer->scaling = scale && peer->habits.shift >= 0;
    peer->stamps = stamps && peer->habits.timestamps;
    if (!peer->scaling) {
        peer->peer_shift = 0;
    }
    if (peer->stamps) {
        peer->mss -= 12;
    }
}

/* Sends what its small fixed window and the stack's allow. */
static void send_data(struct model_peer *peer, uint64_t now_us) {
    uint32_t base = peer->iss + 1, end = base + peer->habits.send_bytes;
    bool may_fin = peer->habits.closes_first || peer->fin_taken;
    for (;;) {
        uint32_t most = peer->habits.segment_bytes < peer->mss ? peer->habits.segment_bytes : peer->mss;
        uint32_t limit = peer->una + peer->habits.segments_in_flight * most, edge = peer->una + peer->window;
        if (seq_diff(edge, limit) < 0) {
            limit = edge;
        }
        uint32_t left = seq_diff(end, peer->nxt) > 0 ? end - peer->nxt : 0;
        uint32_t room = seq_diff(limit, peer->nxt) > 0 ? limit - peer->nxt : 0;
        uint32_t length = left < most ? left : most;
        length = length < room ? length : room;
        if (length > 0) {
            bool fin = may_fin && length == left && length < room && random_chance(peer->random, 500);
            emit(peer, (uint8_t)(MODEL_ACK | (fin ? MODEL_FIN : 0)), peer->nxt, peer->stream + (peer->nxt - base), length, now_us);
            peer->nxt += length + (fin ? 1 : 0);
        } else if (left == 0 && peer->nxt == end && may_fin && room > 0) {
            emit(peer, MODEL_ACK | MODEL_FIN, peer->nxt, NULL, 0, now_us);
            peer->nxt++;
        } else {
            break;
        }
        if (seq_diff(peer->nxt, peer->max) > 0) {
            peer->max = peer->nxt;
        }
    }
    bool waits = peer->una != peer->max || peer->nxt != end + 1;
    bool has = seq_diff(end, peer->nxt) > 0 || (may_fin && peer->nxt == end) || peer->una != peer->max;
    if (waits && has && peer->resend_at == NEVER) {
        peer->resend_at = now_us + peer->rto_us;
    }
}

static void take_ack(struct model_peer *peer, const struct model_segment *in, uint64_t now_us) {
    int32_t moved = seq_diff(in->acknowledgement, peer->una);
    if (seq_diff(in->acknowledgement, peer->max) > 0) {
        peer->complaint = "acknowledges what was never sent";
        return;
    }
    if (moved < 0) {
        return;
    }
    uint32_t window = (uint32_t)in->window << ((in->flags & MODEL_SYN) != 0 ? 0 : peer->peer_shift);
    if (moved > 0) {
        peer->una = in->acknowledgement;
        if (seq_diff(peer->una, peer->nxt) > 0) {
            peer->nxt = peer->una;
        }
        peer->rto_us = RTO_FIRST_US;
        peer->resend_at = NEVER;
        peer->duplicates = 0;
        if (peer->una == peer->iss + 2 + peer->habits.send_bytes) {
            peer->fin_acknowledged = true;
        }
    } else if (in->length == 0 && peer->una != peer->max && ++peer->duplicates == 3) {
        peer->nxt = peer->una;
    }
    /* No wl1, wl2: the larger right edge is the later one, for the stack never moves it left. */
    uint32_t edge = in->acknowledgement + window;
    if (seq_diff(edge, peer->una + peer->window) > 0 || moved > 0) {
        peer->window = seq_diff(edge, peer->una) > 0 ? edge - peer->una : 0;
    }
    (void)now_us;
}

static void take_text(struct model_peer *peer, const struct model_segment *in, uint64_t now_us) {
    uint32_t base = peer->irs + 1, before = peer->rcv_nxt;
    bool fin = (in->flags & MODEL_FIN) != 0;
    for (uint32_t i = 0; i < in->length; i++) {
        uint32_t sequence = in->sequence + i, place = sequence - base;
        if (place >= peer->expected_bytes && seq_diff(sequence, base) >= 0) {
            peer->complaint = "sent more than was queued";
            return;
        }
        if (seq_diff(sequence, base) < 0 || seq_diff(sequence, peer->adv) >= 0) {
            continue;
        }
        if (in->payload[i] != peer->expected[place]) {
            peer->complaint = "sent a wrong byte";
            return;
        }
        peer->have[place] = 1;
    }
    if (fin) {
        if (in->sequence + in->length != base + peer->expected_bytes) {
            peer->complaint = "FIN is not after the last byte";
            return;
        }
        if (seq_diff(in->sequence + in->length, peer->adv) < 0) {
            peer->fin_seen = true;
        }
    }
    while (!peer->fin_taken && peer->rcv_nxt - base < peer->expected_bytes && peer->have[peer->rcv_nxt - base]) {
        peer->rcv_nxt++;
    }
    if (peer->habits.read_bytes == 0 && peer->habits.read_every_us == 0) {
        peer->unread = 0;
    } else {
        peer->unread += peer->rcv_nxt - before;
        if (peer->read_at == NEVER) {
            peer->read_at = now_us + peer->habits.read_every_us;
        }
    }
    if (peer->fin_seen && !peer->fin_taken && peer->rcv_nxt == base + peer->expected_bytes) {
        peer->fin_taken = true;
        peer->rcv_nxt++;
    }
    bool in_order = peer->rcv_nxt == in->sequence + in->length + (fin ? 1 : 0) && peer->rcv_nxt != before;
    peer->unacked_segments++;
    if (!in_order || fin || peer->unacked_segments >= peer->habits.ack_every) {
        emit(peer, MODEL_ACK, peer->nxt, NULL, 0, now_us);
    } else if (peer->ack_at == NEVER) {
        peer->ack_at = now_us + peer->habits.ack_delay_us;
    }
}

static void become_reset(struct model_peer *peer) {
    peer->state = MODEL_GONE;
    peer->was_reset = true;
    peer->ack_at = peer->resend_at = peer->read_at = NEVER;
}

void model_input(struct model_peer *peer, const struct model_segment *in, uint64_t now_us) {
    bool syn = (in->flags & MODEL_SYN) != 0, ack = (in->flags & MODEL_ACK) != 0;
    if (peer->habits.silent) {
        return;
    }
    if (peer->state == MODEL_GONE) {
        if ((in->flags & MODEL_RST) == 0 && ack) {
            struct model_segment reset = {.sequence = in->acknowledgement, .flags = MODEL_RST};
            peer->emit(peer->world, peer, &reset);
        }
        return;
    }
    if (peer->state == MODEL_LISTEN || (peer->state == MODEL_SYN_RECEIVED && syn)) {
        if (!syn || ack) {
            return;
        }
        if (peer->habits.refuses) {
            struct model_segment reset = {.acknowledgement = in->sequence + 1, .flags = MODEL_RST | MODEL_ACK};
            peer->emit(peer->world, peer, &reset);
            return;
        }
        parse_syn(peer, in);
        peer->irs = in->sequence;
        peer->rcv_nxt = peer->adv = peer->max_right_edge = in->sequence + 1;
        peer->window = in->window;
        peer->state = MODEL_SYN_RECEIVED;
        emit(peer, MODEL_SYN | MODEL_ACK, peer->iss, NULL, 0, now_us);
        peer->nxt = peer->max = peer->iss + 1;
        peer->resend_at = now_us + peer->rto_us;
        return;
    }
    if ((in->flags & MODEL_RST) != 0) {
        if (in->sequence == peer->rcv_nxt || seq_diff(in->sequence, peer->rcv_nxt) > 0) {
            become_reset(peer);
        }
        return;
    }
    if (seq_diff(in->sequence + in->length, peer->irs) < 0) {
        peer->complaint = "sequence number before the SYN";
        return;
    }
    if (syn) { /* an old SYN: answered as RFC 5961 says */
        emit(peer, MODEL_ACK, peer->nxt, NULL, 0, now_us);
        return;
    }
    if (!ack) {
        peer->complaint = "no ACK flag";
        return;
    }
    if (peer->stamps && in->options_length >= 12) {
        uint32_t value = get32(in->options + 4);
        if (seq_diff(value, peer->ts_recent) > 0) {
            peer->ts_recent = value;
        }
    } else if (peer->stamps) {
        peer->complaint = "timestamps were agreed and are missing";
        return;
    }
    take_ack(peer, in, now_us);
    if (peer->state == MODEL_SYN_RECEIVED && peer->una == peer->iss + 1) {
        peer->state = MODEL_OPEN;
    }
    if (peer->complaint != NULL) {
        return;
    }
    if (in->length > 0 || (in->flags & MODEL_FIN) != 0) {
        take_text(peer, in, now_us);
    } else if (seq_diff(in->sequence, peer->rcv_nxt) < 0 && random_chance(peer->random, 100)) {
        emit(peer, MODEL_ACK, peer->nxt, NULL, 0, now_us);
    }
    if (peer->state == MODEL_OPEN && peer->complaint == NULL) {
        send_data(peer, now_us);
    }
}

void model_timer(struct model_peer *peer, uint64_t now_us) {
    if (peer->habits.silent || peer->state == MODEL_GONE) {
        return;
    }
    if (peer->habits.reset_at_us != 0 && now_us >= peer->habits.reset_at_us && peer->state != MODEL_LISTEN) {
        emit(peer, MODEL_RST | MODEL_ACK, peer->nxt, NULL, 0, now_us);
        become_reset(peer);
        return;
    }
    if (now_us >= peer->ack_at) {
        emit(peer, MODEL_ACK, peer->nxt, NULL, 0, now_us);
    }
    if (now_us >= peer->read_at) {
        uint32_t take = peer->habits.read_bytes == 0 || peer->habits.read_bytes > peer->unread ? peer->unread : peer->habits.read_bytes;
        peer->unread -= take;
        peer->read_at = peer->unread > 0 ? now_us + peer->habits.read_every_us : NEVER;
        if (take > 0 && peer->habits.window_updates) {
            emit(peer, MODEL_ACK, peer->nxt, NULL, 0, now_us);
        }
    }
    if (now_us >= peer->resend_at) {
        peer->resend_at = NEVER;
        peer->rto_us = peer->rto_us * 2 > RTO_MAX_US ? RTO_MAX_US : peer->rto_us * 2;
        if (peer->state == MODEL_SYN_RECEIVED) {
            emit(peer, MODEL_SYN | MODEL_ACK, peer->iss, NULL, 0, now_us);
            peer->resend_at = now_us + peer->rto_us;
            return;
        }
        peer->nxt = peer->una;
        uint32_t end = peer->iss + 1 + peer->habits.send_bytes;
        if (peer->window == 0 && seq_diff(end, peer->nxt) > 0) { /* a probe */
            emit(peer, MODEL_ACK, peer->nxt, peer->stream + (peer->nxt - peer->iss - 1), 1, now_us);
            peer->nxt++;
            if (seq_diff(peer->nxt, peer->max) > 0) {
                peer->max = peer->nxt;
            }
        } else if (peer->window == 0) { /* only a FIN waits: ask as a keepalive does */
            emit(peer, MODEL_ACK, peer->nxt - 1, NULL, 0, now_us);
        }
        send_data(peer, now_us);
        if (peer->resend_at == NEVER && peer->una != peer->max) {
            peer->resend_at = now_us + peer->rto_us;
        }
    }
}

uint64_t model_next(const struct model_peer *peer) {
    if (peer->habits.silent || peer->state == MODEL_GONE) {
        return NEVER;
    }
    uint64_t at = peer->ack_at < peer->read_at ? peer->ack_at : peer->read_at;
    at = peer->resend_at < at ? peer->resend_at : at;
    if (peer->habits.reset_at_us != 0 && peer->state != MODEL_LISTEN && peer->habits.reset_at_us < at) {
        at = peer->habits.reset_at_us;
    }
    return at;
}
