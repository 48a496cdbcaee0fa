/* model_peer.c: the model peer: go-back-N sending, byte-map reassembly, windows and SACK blocks of its own mind. */
#include "model_peer.h"

#include <stdlib.h>
#include <string.h>

enum { RTO_FIRST_US = 300 * 1000, RTO_MAX_US = 10 * 1000 * 1000, MSS_TIMESTAMPS = 12 };
#define NEVER UINT64_MAX

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
    return peer->state < MODEL_SYN_RECEIVED || peer->have == NULL ? 0 : peer->rcv_nxt - peer->irs - 1 - (peer->fin_taken ? 1 : 0);
}

bool model_done(const struct model_peer *peer) {
    return peer->state == MODEL_GONE || (peer->fin_taken && peer->fin_acknowledged);
}

static bool model_deaf(const struct model_peer *peer) {
    return peer->habits.silent || (peer->habits.vanishes && peer->state == MODEL_GONE);
}

static void add_syn_options(struct model_peer *peer, struct segment *out) {
    bool opens = peer->state == MODEL_SYN_SENT;
    if (peer->habits.mss != 0) {
        segment_options_add(out, (uint8_t[]){2, 4, (uint8_t)(peer->habits.mss >> 8), (uint8_t)peer->habits.mss}, 4);
    }
    if (opens ? peer->habits.sack : peer->sacks) {
        segment_options_add(out, (uint8_t[]){1, 1, 4, 2}, 4);
    }
    if (opens ? peer->habits.shift >= 0 : peer->scaling) {
        segment_options_add(out, (uint8_t[]){1, 3, 3, (uint8_t)peer->habits.shift}, 4);
    }
}

/* The run of held bytes around `place`, as sequence numbers. */
static bool block_around(const struct model_peer *peer, uint32_t sequence, struct segment_block *block) {
    uint32_t base = peer->irs + 1, place = sequence - base;
    if (sequence_diff(sequence, peer->rcv_nxt) <= 0 || place >= peer->expected_bytes || !peer->have[place]) {
        return false;
    }
    const uint8_t *gap = memrchr(peer->have, 0, place), *end = memchr(peer->have + place, 0, peer->expected_bytes + 1 - place);
    block->left = gap == NULL ? base : base + (uint32_t)(gap - peer->have) + 1;
    block->right = base + (uint32_t)(end - peer->have);
    return sequence_diff(block->left, peer->rcv_nxt) > 0;
}

/* RFC 2018 section 4: the block of what came last, then those reported before; RFC 2883: first of all what came twice. */
static void add_sack(struct model_peer *peer, struct segment *out) {
    struct segment_block blocks[SEGMENT_BLOCKS_MAX + 2], fresh[SEGMENT_BLOCKS_MAX];
    uint32_t count = 0, kept = 0;
    if (random_chance(peer->random, peer->habits.sack_lies)) {
        uint32_t left = random_chance(peer->random, 300) ? (uint32_t)random_next(peer->random)
                                                         : peer->rcv_nxt + random_range(peer->random, 0, 40000) - 10000;
        blocks[count++] = (struct segment_block){left, left + random_range(peer->random, 0, 30000) - 3000};
    }
    if (peer->habits.duplicate_sack && peer->repeated.left != peer->repeated.right) {
        blocks[count++] = peer->repeated;
    }
    peer->repeated.left = peer->repeated.right;
    for (uint32_t i = 0; i < SEGMENT_BLOCKS_MAX; i++) {
        struct segment_block block;
        bool known = peer->recent[i].left == peer->recent[i].right || !block_around(peer, peer->recent[i].left, &block);
        for (uint32_t j = 0; j < kept && !known; j++) {
            known = fresh[j].left == block.left;
        }
        if (!known) {
            fresh[kept++] = block;
        }
    }
    memset(peer->recent, 0, sizeof(peer->recent));
    memcpy(peer->recent, fresh, kept * sizeof(fresh[0]));
    for (uint32_t i = 0; i < kept && count < SEGMENT_BLOCKS_MAX; i++) {
        blocks[count++] = fresh[i];
    }
    segment_options_sack(out, blocks, count);
}

static void emit(struct model_peer *peer, uint8_t flags, uint32_t sequence, const uint8_t *payload, uint32_t length, uint64_t now_us) {
    struct segment out = {.sequence = sequence, .acknowledgement = peer->rcv_nxt, .flags = flags, .length = length};
    bool syn = (flags & SEGMENT_SYN) != 0;
    uint32_t free_bytes = peer->habits.buffer_bytes > peer->unread ? peer->habits.buffer_bytes - peer->unread : 0;
    if (sequence_diff(peer->rcv_nxt + free_bytes, peer->adv) > 0) {
        peer->adv = peer->rcv_nxt + free_bytes;
    }
    uint32_t shift = peer->scaling && !syn ? (uint32_t)peer->habits.shift : 0;
    uint32_t window = (peer->adv - peer->rcv_nxt) >> shift;
    if (!syn && random_chance(peer->random, peer->habits.shrinks)) {
        window = random_range(peer->random, 0, window);
    }
    out.window = (uint16_t)(window > UINT16_MAX ? UINT16_MAX : window);
    peer->edge = syn ? peer->adv : peer->rcv_nxt + ((uint32_t)out.window << shift);
    if ((flags & SEGMENT_ACK) == 0) {
        out.acknowledgement = 0;
    }
    if (syn) {
        add_syn_options(peer, &out);
    }
    if (peer->state == MODEL_SYN_SENT ? peer->habits.timestamps : peer->stamps) {
        segment_options_timestamps(&out, (uint32_t)(now_us / 1000) + peer->iss, peer->ts_recent);
    }
    if (peer->sacks && !syn && (flags & SEGMENT_RST) == 0) {
        add_sack(peer, &out);
    }
    out.payload = (uint8_t *)(uintptr_t)payload;
    if ((flags & SEGMENT_ACK) != 0) {
        peer->unacked_segments = 0;
        peer->ack_at = NEVER;
    }
    peer->emit(peer->context, &out);
}

static void take_syn(struct model_peer *peer, const struct segment *in) {
    struct segment_options options;
    segment_options_parse(&options, in);
    peer->mss = options.mss != 0 ? options.mss : peer->habits.mss_default;
    peer->scaling = options.shift >= 0 && peer->habits.shift >= 0;
    peer->stamps = options.timestamps && peer->habits.timestamps;
    peer->sacks = options.sack_permitted && peer->habits.sack;
    peer->peer_shift = peer->scaling ? (uint8_t)options.shift : 0;
    peer->mss -= peer->stamps ? MSS_TIMESTAMPS : 0;
    peer->ts_recent = options.ts_value;
    peer->irs = in->sequence;
    peer->rcv_nxt = peer->adv = peer->edge = in->sequence + 1;
    peer->window = in->window;
}

/* Sends what its small fixed window and the stack's allow. */
static void send_data(struct model_peer *peer, uint64_t now_us) {
    uint32_t base = peer->iss + 1, end = base + peer->habits.send_bytes;
    bool may_fin = peer->habits.closes_first || peer->fin_taken;
    for (;;) {
        uint32_t most = peer->habits.segment_bytes < peer->mss ? peer->habits.segment_bytes : peer->mss;
        most -= peer->sacks && most > 100 ? 36 : 0; /* room for SACK blocks (RFC 6691) */
        uint32_t limit = peer->una + peer->habits.segments_in_flight * most, edge = peer->una + peer->window;
        if (sequence_diff(edge, limit) < 0) {
            limit = edge;
        }
        uint32_t left = sequence_diff(end, peer->nxt) > 0 ? end - peer->nxt : 0;
        uint32_t room = sequence_diff(limit, peer->nxt) > 0 ? limit - peer->nxt : 0;
        uint32_t length = left < most ? left : most;
        length = length < room ? length : room;
        if (length > 0) {
            bool fin = may_fin && length == left && length < room && random_chance(peer->random, 500);
            emit(peer, (uint8_t)(SEGMENT_ACK | (fin ? SEGMENT_FIN : 0)), peer->nxt, peer->stream + (peer->nxt - base), length, now_us);
            peer->nxt += length + (fin ? 1 : 0);
        } else if (left == 0 && peer->nxt == end && may_fin && room > 0) {
            emit(peer, SEGMENT_ACK | SEGMENT_FIN, peer->nxt, NULL, 0, now_us);
            peer->nxt++;
        } else {
            break;
        }
        if (sequence_diff(peer->nxt, peer->max) > 0) {
            peer->max = peer->nxt;
        }
    }
    bool waits = peer->una != peer->max || peer->nxt != end + 1;
    bool has = sequence_diff(end, peer->nxt) > 0 || (may_fin && peer->nxt == end) || peer->una != peer->max;
    if (waits && has && peer->resend_at == NEVER) {
        peer->resend_at = now_us + peer->rto_us;
    }
}

static void take_ack(struct model_peer *peer, const struct segment *in) {
    int32_t moved = sequence_diff(in->acknowledgement, peer->una);
    if (sequence_diff(in->acknowledgement, peer->max) > 0) {
        peer->complaint = "acknowledges what was never sent";
        return;
    }
    if (moved < 0) {
        return;
    }
    uint32_t window = (uint32_t)in->window << ((in->flags & SEGMENT_SYN) != 0 ? 0 : peer->peer_shift);
    if (moved > 0) {
        peer->una = in->acknowledgement;
        if (sequence_diff(peer->una, peer->nxt) > 0) {
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
    if (sequence_diff(edge, peer->una + peer->window) > 0 || moved > 0) {
        peer->window = sequence_diff(edge, peer->una) > 0 ? edge - peer->una : 0;
    }
}

static void renege(struct model_peer *peer) {
    uint32_t place = peer->rcv_nxt - peer->irs - 1;
    if (place < peer->expected_bytes && !peer->fin_taken) {
        memset(peer->have + place, 0, peer->expected_bytes - place);
        peer->fin_seen = false;
    }
}

/* Marks what came; false when a rule was broken. */
static bool take_bytes(struct model_peer *peer, const struct segment *in) {
    uint32_t base = peer->irs + 1, fresh = 0, taken = 0;
    for (uint32_t i = 0; i < in->length; i++) {
        uint32_t sequence = in->sequence + i, place = sequence - base;
        if (place >= peer->expected_bytes && sequence_diff(sequence, base) >= 0) {
            peer->complaint = "sent more than was queued";
            return false;
        }
        if (sequence_diff(sequence, base) < 0) {
            continue; /* a keepalive's octet */
        }
        if (in->payload[i] != peer->expected[place]) {
            peer->complaint = "sent a wrong byte";
            return false;
        }
        if (sequence_diff(sequence, peer->habits.shrinks > 0 ? peer->edge : peer->adv) < 0) {
            fresh += !peer->have[place];
            taken++;
            peer->have[place] = 1;
        }
    }
    if (taken > 0 && fresh == 0) {
        peer->repeated = (struct segment_block){in->sequence, in->sequence + taken};
    }
    if (taken > 0) {
        memmove(peer->recent + 1, peer->recent, sizeof(peer->recent) - sizeof(peer->recent[0]));
        peer->recent[0] = (struct segment_block){in->sequence, in->sequence + taken};
    }
    return true;
}

static void take_text(struct model_peer *peer, const struct segment *in, uint64_t now_us) {
    uint32_t base = peer->irs + 1, before = peer->rcv_nxt;
    bool fin = (in->flags & SEGMENT_FIN) != 0;
    if (fin && in->sequence + in->length != base + peer->expected_bytes) {
        peer->complaint = "FIN is not after the last byte";
        return;
    }
    if (!take_bytes(peer, in)) {
        return;
    }
    if (fin && sequence_diff(in->sequence + in->length, peer->habits.shrinks > 0 ? peer->edge : peer->adv) < 0) {
        peer->fin_seen = true;
    }
    if (!peer->fin_taken) {
        const uint8_t *gap = memchr(peer->have + (peer->rcv_nxt - base), 0, peer->expected_bytes + 1 - (peer->rcv_nxt - base));
        peer->rcv_nxt = base + (uint32_t)(gap - peer->have);
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
        emit(peer, SEGMENT_ACK, peer->nxt, NULL, 0, now_us);
    } else if (peer->ack_at == NEVER) {
        peer->ack_at = now_us + peer->habits.ack_delay_us;
    }
    if (random_chance(peer->random, peer->habits.renege)) {
        renege(peer);
    }
}

static void become_reset(struct model_peer *peer) {
    peer->state = MODEL_GONE;
    peer->was_reset = true;
    peer->ack_at = peer->resend_at = peer->read_at = NEVER;
}

static void answer_reset(struct model_peer *peer, const struct segment *in) {
    struct segment reset = {.flags = SEGMENT_RST};
    if ((in->flags & SEGMENT_RST) != 0) {
        return;
    }
    if ((in->flags & SEGMENT_ACK) != 0) {
        reset.sequence = in->acknowledgement;
    } else {
        reset.acknowledgement = in->sequence + segment_space(in);
        reset.flags |= SEGMENT_ACK;
    }
    peer->emit(peer->context, &reset);
}

void model_open(struct model_peer *peer, uint64_t now_us) {
    peer->state = MODEL_SYN_SENT;
    peer->rcv_nxt = peer->adv = 0;
    emit(peer, SEGMENT_SYN, peer->iss, NULL, 0, now_us);
    peer->nxt = peer->max = peer->iss + 1;
    peer->resend_at = now_us + peer->rto_us;
}

/* The handshake (RFC 9293 3.10.7.2 and 3.10.7.3). True: the segment is dealt with. */
static bool input_opening(struct model_peer *peer, const struct segment *in, uint64_t now_us) {
    bool syn = (in->flags & SEGMENT_SYN) != 0, ack = (in->flags & SEGMENT_ACK) != 0;
    if (peer->state == MODEL_LISTEN) {
        if (!syn || ack) {
            answer_reset(peer, in);
            return true;
        }
        if (peer->habits.refuses) {
            answer_reset(peer, in);
            return true;
        }
        take_syn(peer, in);
        peer->state = MODEL_SYN_RECEIVED;
        emit(peer, peer->habits.simultaneous ? SEGMENT_SYN : SEGMENT_SYN | SEGMENT_ACK, peer->iss, NULL, 0, now_us);
        peer->nxt = peer->max = peer->iss + 1;
        peer->resend_at = now_us + peer->rto_us;
        return true;
    }
    if (peer->state == MODEL_SYN_SENT) {
        if (ack && in->acknowledgement != peer->iss + 1) {
            answer_reset(peer, in);
            return true;
        }
        if ((in->flags & SEGMENT_RST) != 0) {
            if (ack) {
                become_reset(peer);
            }
            return true;
        }
        if (!syn) {
            return true;
        }
        take_syn(peer, in);
        if (!ack) {
            peer->state = MODEL_SYN_RECEIVED;
            emit(peer, SEGMENT_SYN | SEGMENT_ACK, peer->iss, NULL, 0, now_us);
            return true;
        }
        peer->state = MODEL_OPEN;
        peer->una = peer->iss + 1;
        peer->resend_at = NEVER;
        peer->rto_us = RTO_FIRST_US;
        emit(peer, SEGMENT_ACK, peer->nxt, NULL, 0, now_us);
        send_data(peer, now_us);
        return true;
    }
    if (syn && !ack && in->sequence == peer->irs) { /* its SYN again */
        emit(peer, SEGMENT_SYN | SEGMENT_ACK, peer->iss, NULL, 0, now_us);
        return true;
    }
    if (syn && ack && in->sequence == peer->irs && in->acknowledgement == peer->iss + 1) { /* both opened at once */
        peer->state = MODEL_OPEN;
        peer->una = peer->iss + 1;
        peer->resend_at = NEVER;
        peer->rto_us = RTO_FIRST_US;
        emit(peer, SEGMENT_ACK, peer->nxt, NULL, 0, now_us);
        send_data(peer, now_us);
        return true;
    }
    return false;
}

static void take_timestamp(struct model_peer *peer, const struct segment *in) {
    struct segment_options options;
    segment_options_parse(&options, in);
    if (peer->stamps && !options.timestamps) {
        peer->complaint = "timestamps were agreed and are missing";
    } else if (peer->stamps && sequence_diff(options.ts_value, peer->ts_recent) > 0) {
        peer->ts_recent = options.ts_value;
    }
}

void model_input(struct model_peer *peer, const struct segment *in, uint64_t now_us) {
    if (model_deaf(peer)) {
        return;
    }
    if (peer->state == MODEL_GONE) {
        answer_reset(peer, in);
        return;
    }
    if (peer->state != MODEL_OPEN && input_opening(peer, in, now_us)) {
        return;
    }
    if ((in->flags & SEGMENT_RST) != 0) {
        if (sequence_diff(in->sequence, peer->rcv_nxt) >= 0) {
            become_reset(peer);
        }
        return;
    }
    if ((in->flags & SEGMENT_SYN) != 0) { /* an old SYN: answered as RFC 5961 says */
        emit(peer, SEGMENT_ACK, peer->nxt, NULL, 0, now_us);
        return;
    }
    if (sequence_diff(in->sequence + in->length, peer->irs) < 0) {
        peer->complaint = "sequence number before the SYN";
        return;
    }
    if ((in->flags & SEGMENT_ACK) == 0) {
        peer->complaint = "no ACK flag";
        return;
    }
    take_timestamp(peer, in);
    take_ack(peer, in);
    if (peer->state == MODEL_SYN_RECEIVED && peer->una == peer->iss + 1) {
        peer->state = MODEL_OPEN;
    }
    if (peer->complaint != NULL) {
        return;
    }
    if (in->length > 0 || (in->flags & SEGMENT_FIN) != 0) {
        take_text(peer, in, now_us);
    } else if (sequence_diff(in->sequence, peer->rcv_nxt) < 0 &&
               random_chance(peer->random, in->sequence + 1 == peer->rcv_nxt ? 1000 : 100)) {
        emit(peer, SEGMENT_ACK, peer->nxt, NULL, 0, now_us); /* a keepalive, or something old */
    }
    if (peer->state == MODEL_OPEN && peer->complaint == NULL) {
        send_data(peer, now_us);
    }
}

static void resend(struct model_peer *peer, uint64_t now_us) {
    peer->resend_at = NEVER;
    peer->rto_us = peer->rto_us * 2 > RTO_MAX_US ? RTO_MAX_US : peer->rto_us * 2;
    if (peer->state != MODEL_OPEN) {
        bool bare = peer->state == MODEL_SYN_SENT || (peer->habits.simultaneous && random_chance(peer->random, 500));
        emit(peer, bare ? SEGMENT_SYN : SEGMENT_SYN | SEGMENT_ACK, peer->iss, NULL, 0, now_us);
        peer->resend_at = now_us + peer->rto_us;
        return;
    }
    peer->nxt = peer->una;
    uint32_t end = peer->iss + 1 + peer->habits.send_bytes;
    if (peer->window == 0 && sequence_diff(end, peer->nxt) > 0) { /* a probe */
        emit(peer, SEGMENT_ACK, peer->nxt, peer->stream + (peer->nxt - peer->iss - 1), 1, now_us);
        peer->nxt++;
        if (sequence_diff(peer->nxt, peer->max) > 0) {
            peer->max = peer->nxt;
        }
    } else if (peer->window == 0) { /* only a FIN waits: ask as a keepalive does */
        emit(peer, SEGMENT_ACK, peer->nxt - 1, NULL, 0, now_us);
    }
    send_data(peer, now_us);
    if (peer->resend_at == NEVER && peer->una != peer->max) {
        peer->resend_at = now_us + peer->rto_us;
    }
}

void model_timer(struct model_peer *peer, uint64_t now_us) {
    if (peer->habits.silent || peer->state == MODEL_GONE) {
        return;
    }
    if (peer->habits.reset_at_us != 0 && now_us >= peer->habits.reset_at_us && peer->state > MODEL_SYN_SENT) {
        if (!peer->habits.vanishes) {
            emit(peer, SEGMENT_RST | SEGMENT_ACK, peer->nxt, NULL, 0, now_us);
        }
        become_reset(peer);
        return;
    }
    if (now_us >= peer->ack_at) {
        emit(peer, SEGMENT_ACK, peer->nxt, NULL, 0, now_us);
    }
    if (now_us >= peer->read_at) {
        uint32_t take = peer->habits.read_bytes == 0 || peer->habits.read_bytes > peer->unread ? peer->unread : peer->habits.read_bytes;
        peer->unread -= take;
        peer->read_at = peer->unread > 0 ? now_us + peer->habits.read_every_us : NEVER;
        if (take > 0 && peer->habits.window_updates) {
            emit(peer, SEGMENT_ACK, peer->nxt, NULL, 0, now_us);
        }
    }
    if (now_us >= peer->resend_at) {
        resend(peer, now_us);
    }
}

uint64_t model_next(const struct model_peer *peer) {
    if (peer->habits.silent || peer->state == MODEL_GONE) {
        return NEVER;
    }
    uint64_t at = peer->ack_at < peer->read_at ? peer->ack_at : peer->read_at;
    at = peer->resend_at < at ? peer->resend_at : at;
    if (peer->habits.reset_at_us != 0 && peer->state > MODEL_SYN_SENT && peer->habits.reset_at_us < at) {
        at = peer->habits.reset_at_us;
    }
    return at;
}
