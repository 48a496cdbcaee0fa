/* checker.c: RFC 9293, 5681, 5961, 6298, 7323, 2018 and 2883 as seen from outside. */
#include "checker.h"

#include <stdlib.h>
#include <string.h>

enum {
    MSS_MIN = 88, /* what the stack takes an announcement of less for */
    INITIAL_SEGMENTS = 10,
    INITIAL_BYTES = 14600,
    ACK_DUE_US = 500 * 1000, /* RFC 5681 4.2 */
    SLACK_US = 20 * 1000,    /* a wheel's tick, and a poll that is late */
    GAP_SLACK_US = 5000,
    RTO_LEAST_US = 190 * 1000,
    BACKOFF_MOST_US = 55 * 1000 * 1000,
};
#define NEVER UINT64_MAX

static void broken(struct checker *checker, const char *rule) {
    if (checker->broken == NULL) {
        checker->broken = rule;
    }
}

void checker_init(struct checker *checker) {
    checker->delivered = calloc(checker->incoming_bytes + 2, 1);
    checker->sacked = calloc(checker->stream_bytes + 1, 1);
    checker->ack_due_us = NEVER;
}

void checker_restart(struct checker *checker) {
    checker->syn_sent = checker->opened = checker->edge_known = checker->offered = checker->ts_sent = false;
    checker->right_edge = checker->syn_window;
    checker->repeats = 0;
}

void checker_free(struct checker *checker) {
    free(checker->delivered);
    free(checker->sacked);
    checker->delivered = checker->sacked = NULL;
}

static bool agreed_timestamps(const struct checker *checker) {
    return checker->ours.timestamps && checker->theirs.timestamps;
}
static bool agreed_sack(const struct checker *checker) {
    return checker->ours.sack_permitted && checker->theirs.sack_permitted;
}
static bool agreed_scaling(const struct checker *checker) {
    return checker->ours.shift >= 0 && checker->theirs.shift >= 0;
}

static uint32_t segment_limit(const struct checker *checker) {
    uint32_t mss = checker->theirs.mss != 0 ? checker->theirs.mss : checker->mss_default, link = checker->mtu - checker->headers;
    mss = mss < MSS_MIN ? MSS_MIN : mss;
    return mss < link ? mss : link;
}

static void send_reset(struct checker *checker, const struct segment *out) {
    if (out->length > 0 || (out->flags & (SEGMENT_SYN | SEGMENT_FIN)) != 0) {
        broken(checker, "a reset with text, SYN or FIN");
    }
    if (checker->opened && !checker->aborted && !checker->over && (out->flags & SEGMENT_ACK) != 0 && !checker->strangers) {
        broken(checker, "a reset without cause");
    }
    if (checker->aborted && (out->flags & SEGMENT_ACK) != 0) {
        checker->reset_sent = true;
    }
}

static void send_syn(struct checker *checker, const struct segment *out, const struct segment_options *options) {
    bool ack = (out->flags & SEGMENT_ACK) != 0;
    if (out->length > 0 || (out->flags & SEGMENT_FIN) != 0 || options->block_count > 0) {
        broken(checker, "a SYN with text, FIN or SACK blocks");
    }
    if (checker->over || checker->close_called) {
        broken(checker, "a SYN of a connection that is over");
    }
    if (checker->syn_sent && out->sequence != checker->iss) {
        broken(checker, "a second initial sequence number");
    }
    if (options->mss == 0 || options->mss > checker->mtu - checker->headers) {
        broken(checker, "a SYN announces no MSS or more than the device takes");
    }
    if (!checker->strangers && ack != checker->peer_syn_seen) {
        broken(checker, "a SYN answers what the peer did not send");
    }
    if (!checker->strangers && ack && out->acknowledgement != checker->irs + 1) {
        broken(checker, "a SYN acknowledges what the peer did not send");
    }
    if (ack && ((options->shift >= 0 && checker->theirs.shift < 0) || (options->timestamps && !checker->theirs.timestamps) ||
                (options->sack_permitted && !checker->theirs.sack_permitted))) {
        broken(checker, "a SYN-ACK with options that were not offered");
    }
    if (!checker->syn_sent) {
        checker->syn_sent = true;
        checker->iss = out->sequence;
        checker->snd_max = out->sequence + 1;
        checker->acked_max = out->sequence;
        if (ack) {
            checker->right_edge += out->sequence + 1; /* what the peer's SYN said was kept relative */
            checker->edge_known = true;
        }
    }
    checker->ours = *options;
    if (ack) {
        checker->offered_edge = out->acknowledgement + out->window;
        checker->last_ack = out->acknowledgement;
        checker->offered = true;
    } else {
        checker->offered_edge = out->window; /* relative until the peer's number is known */
    }
}

/* Bytes [left, right) have all reached this side. */
static bool has_arrived(const struct checker *checker, uint32_t left, uint32_t right) {
    uint32_t base = checker->irs + 1, from = left - base, count = right - left;
    return from <= checker->incoming_bytes + 1 && count <= checker->incoming_bytes + 1 - from &&
           memchr(checker->delivered + from, 0, count) == NULL;
}

static bool inside(const struct segment_block *inner, const struct segment_block *outer) {
    return sequence_diff(inner->left, outer->left) >= 0 && sequence_diff(inner->right, outer->right) <= 0;
}

/* RFC 2018 section 4, RFC 2883 section 4. */
static void check_sack(struct checker *checker, const struct segment *out, const struct segment_options *options) {
    const struct segment_block *blocks = options->blocks;
    uint32_t count = options->block_count, first = 0, ack = out->acknowledgement;
    if (count == 0) {
        return;
    }
    checker->sack_blocks += count;
    if (!agreed_sack(checker)) {
        broken(checker, "SACK blocks that were not agreed on");
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (sequence_diff(blocks[i].right, blocks[i].left) <= 0 || !has_arrived(checker, blocks[i].left, blocks[i].right)) {
            broken(checker, "a SACK block of bytes that did not come");
            return;
        }
    }
    if (sequence_diff(blocks[0].right, ack) <= 0 || (count > 1 && inside(&blocks[0], &blocks[1]))) {
        first = 1; /* a duplicate's report */
    }
    /* The latest comes first, but for what a duplicate above the acknowledgement is a part of. */
    uint32_t latest_most = first + (first == 1 && sequence_diff(blocks[0].right, ack) > 0);
    for (uint32_t i = first; i < count; i++) {
        if (sequence_diff(blocks[i].left, ack) <= 0) {
            broken(checker, "a SACK block that the acknowledgement covers or touches");
        }
        for (uint32_t j = first; j < i; j++) {
            if (sequence_diff(blocks[i].left, blocks[j].right) < 0 && sequence_diff(blocks[j].left, blocks[i].right) < 0) {
                broken(checker, "SACK blocks that overlap");
            }
        }
        if (out->length == 0 && i > latest_most && checker->latest.left != checker->latest.right &&
            sequence_diff(checker->latest.left, ack) > 0 && inside(&checker->latest, &blocks[i])) {
            broken(checker, "the block of what came last is not the first");
        }
    }
}

static void check_options(struct checker *checker, const struct segment *out, const struct segment_options *options) {
    if (options->mss != 0 || options->shift >= 0 || options->sack_permitted) {
        broken(checker, "options of a SYN on another segment");
    }
    if (options->timestamps != agreed_timestamps(checker)) {
        broken(checker, "timestamps other than agreed");
    }
    if (options->timestamps) {
        if (checker->ts_sent && sequence_diff(options->ts_value, checker->ts_last) < 0) {
            broken(checker, "the timestamp clock went back");
        }
        checker->ts_last = options->ts_value;
        if (sequence_diff(options->ts_echo, checker->peer_ts_max) > 0) {
            broken(checker, "echoes a timestamp that the peer did not send");
        }
        if (checker->ts_sent && sequence_diff(options->ts_echo, checker->echo_last) < 0) {
            broken(checker, "echoes an older timestamp than before");
        }
        checker->echo_last = options->ts_echo;
        checker->ts_sent = true;
    }
    check_sack(checker, out, options);
}

/* What of [left, right) lies in the window has come. True: all of it. */
static bool note_delivered(struct checker *checker, uint32_t left, uint32_t right, uint64_t now_us) {
    uint32_t base = checker->irs + 1;
    bool all = sequence_diff(left, base) >= 0;
    for (uint32_t sequence = left; sequence != right; sequence++) {
        uint32_t place = sequence - base;
        if (place > checker->incoming_bytes || sequence_diff(sequence, checker->offered_edge) >= 0) {
            all = false;
            continue;
        }
        checker->last_text_us = checker->delivered[place] || now_us == NEVER ? checker->last_text_us : now_us;
        checker->delivered[place] = 1;
        checker->fin_got |= place == checker->incoming_bytes;
    }
    return all;
}

/* The acknowledgement covers what came and no more, and never goes back; the window's right edge never moves left (RFC 9293 3.8.6). */
static void check_acknowledgement(struct checker *checker, const struct segment *out) {
    if (checker->offered && sequence_diff(out->acknowledgement, checker->last_ack) < 0) {
        broken(checker, "the acknowledgement went back");
    }
    uint32_t base = checker->irs + 1, moved = out->acknowledgement - checker->last_ack;
    if (moved > 0 && !has_arrived(checker, checker->last_ack, out->acknowledgement)) {
        broken(checker, "acknowledges what did not come");
    }
    checker->last_ack = out->acknowledgement;
    uint32_t unit = agreed_scaling(checker) ? 1U << checker->ours.shift : 1;
    uint32_t edge = out->acknowledgement + out->window * unit;
    bool ended = out->acknowledgement - base > checker->incoming_bytes;
    if (!checker->over && !ended && checker->offered && sequence_diff(edge + unit - 1, checker->offered_edge) < 0) {
        broken(checker, "the offered window shrank");
    }
    if (!checker->offered || sequence_diff(edge, checker->offered_edge) > 0) {
        checker->offered_edge = edge;
        checker->offered = true;
        note_delivered(checker, checker->in_hand.left, checker->in_hand.right, NEVER);
    }
    checker->ack_due_us = NEVER;
}

/* How far the congestion window can have opened at most: the initial window, and as much as was said to have arrived (RFC 5681, 6928). */
static void check_congestion(struct checker *checker, uint32_t end) {
    uint32_t mss = segment_limit(checker), initial = INITIAL_SEGMENTS * mss;
    uint32_t base = checker->iss + 1, least = 2 * mss > INITIAL_BYTES ? 2 * mss : INITIAL_BYTES;
    uint64_t acked = sequence_diff(checker->acked_max, base) > 0 ? checker->acked_max - base : 0;
    uint64_t most =
        (initial < least ? initial : least) + 2 * (acked + checker->sacked_bytes) + (uint64_t)checker->duplicate_acks * mss + 3 * mss;
    if (!checker->lying && end - base > most) {
        broken(checker, "more in flight than the congestion window can be");
    }
}

/* A timeout doubles (RFC 6298 5.5), and while nothing comes back no more than a segment's worth is sent (RFC 5681 3.1: the loss window). */
static void check_silence(struct checker *checker, const struct segment *out, uint64_t now_us) {
    uint32_t head = checker->acked_max;
    if (out->sequence == head && sequence_diff(head, checker->snd_max) < 0) {
        uint64_t gap = now_us - checker->repeat_us;
        bool same = checker->repeat_length == out->length; /* a search for the path's MTU may begin anew with smaller segments */
        /* Sooner than any timeout: loss found by time (RFC 8985), not a timeout. */
        checker->repeats = same && gap >= RTO_LEAST_US ? checker->repeats : 0;
        if (checker->repeats > 1 && gap + GAP_SLACK_US < checker->gap_us) {
            broken(checker, "a timeout shorter than the one before it");
        }
        if (checker->repeats > 2 && gap + GAP_SLACK_US < BACKOFF_MOST_US && gap + GAP_SLACK_US < checker->gap_us + checker->gap_us / 2) {
            broken(checker, "a timeout that does not back off");
        }
        checker->repeat_length = out->length;
        checker->gap_us = gap;
        checker->repeat_us = now_us;
        checker->repeats++;
        checker->loss_window_bytes = out->length;
        return;
    }
    checker->loss_window_bytes += out->length;
    if (checker->repeats > 1 && checker->loss_window_bytes > segment_limit(checker)) {
        broken(checker, "more than a segment after a timeout, and nothing came back");
    }
}

static bool is_keepalive(const struct checker *checker, const struct segment *out) {
    return checker->keepalive && out->length <= 1 && (out->flags & SEGMENT_FIN) == 0 && out->sequence + 1 == checker->snd_max &&
           checker->acked_max == checker->snd_max;
}

static void check_text(struct checker *checker, const struct segment *out, bool first, uint32_t segment_bytes, uint32_t options_bytes,
                       uint64_t now_us) {
    uint32_t space = segment_space(out), end = out->sequence + space, base = checker->iss + 1, last = base + checker->queued;
    uint32_t place = out->sequence - base;
    if (checker->over || checker->reset_sent) {
        broken(checker, "text or FIN after the end");
    }
    if (place > checker->queued || out->length > checker->queued - place) {
        broken(checker, "bytes outside the stream");
        return;
    }
    if (out->length > 0 && memcmp(out->payload, checker->stream + place, out->length) != 0) {
        broken(checker, "a segment does not carry its stream's bytes");
    }
    bool split = segment_bytes > 0 && out->length > segment_bytes;
    if ((split ? segment_bytes : out->length) + options_bytes > segment_limit(checker)) {
        broken(checker, "a segment beyond the peer's MSS");
    }
    if (split && (!checker->can_split || out->length > checker->split_most)) {
        broken(checker, "a segment larger than the device splits");
    }
    if ((out->flags & SEGMENT_FIN) != 0) {
        if (!checker->close_called || out->sequence + out->length != last) {
            broken(checker, "FIN where the stream does not end");
        }
        checker->ended_first |= !checker->fin_sent && !checker->fin_got;
        checker->fin_sent = true;
    }
    /* One octet may probe a closed window (RFC 9293 3.8.6.1). */
    if (space > 1 && sequence_diff(end, checker->right_edge) > 0) {
        broken(checker, "beyond the peer's window");
    }
    bool fresh = sequence_diff(out->sequence, checker->snd_max) >= 0;
    if (first != fresh) {
        broken(checker, "first_transmission is wrong");
    }
    if (sequence_diff(out->sequence, checker->snd_max) > 0) {
        broken(checker, "a gap in the sequence numbers");
    }
    if (!fresh && sequence_diff(end, checker->snd_max) > 0) {
        broken(checker, "old and new bytes in one segment");
    }
    checker->sent_segments++;
    checker->sent_again += !fresh;
    if (!fresh && (checker->sent_again == 1 || sequence_diff(end, checker->again_most) > 0)) {
        checker->again_most = end;
    }
    if (sequence_diff(out->sequence, checker->hole) <= 0 && sequence_diff(end, checker->hole) > 0) {
        checker->hole_us = 0;
    }
    if (!checker->device_busy) {
        check_silence(checker, out, now_us);
    }
    if (fresh) {
        check_congestion(checker, end);
        checker->snd_max = end;
    }
}

void checker_sends(struct checker *checker, const struct segment *out, bool first, uint32_t segment_bytes, uint64_t now_us) {
    struct segment_options options;
    segment_options_parse(&options, out);
    checker->last_out_us = now_us;
    if (options.malformed) {
        broken(checker, "malformed options");
    }
    if ((out->flags & SEGMENT_RST) != 0) {
        send_reset(checker, out);
        return;
    }
    if ((out->flags & SEGMENT_SYN) != 0) {
        bool again = checker->syn_sent;
        send_syn(checker, out, &options);
        if (again && !checker->device_busy && !checker->peer_syn_seen) {
            check_silence(checker, out, now_us);
        }
        return;
    }
    if ((out->flags & SEGMENT_ACK) == 0 || !checker->peer_syn_seen) {
        broken(checker, "a segment without ACK, or before the peer's SYN");
        return;
    }
    if (checker->reset_sent) {
        broken(checker, "a segment after the reset");
    }
    checker->opened = true;
    if (segment_space(out) == 0 && !is_keepalive(checker, out)) {
        if (out->sequence != checker->snd_max) {
            broken(checker, "an ACK from another number than the next");
        }
    } else if (!is_keepalive(checker, out)) {
        check_text(checker, out, first, segment_bytes, out->options_length, now_us);
    }
    check_options(checker, out, &options);
    check_acknowledgement(checker, out);
}

static void take_syn(struct checker *checker, const struct segment *in) {
    if (checker->peer_syn_seen) {
        return;
    }
    if (!checker->listens && (in->flags & SEGMENT_ACK) != 0 && in->acknowledgement != checker->iss + 1) {
        return; /* of an older connection */
    }
    checker->peer_syn_seen = true;
    checker->irs = in->sequence;
    segment_options_parse(&checker->theirs, in);
    checker->peer_ts_max = checker->theirs.ts_value;
    checker->syn_window = in->window;
    checker->right_edge = (checker->syn_sent ? checker->iss + 1 : 0) + in->window;
    checker->edge_known = checker->syn_sent;
    if (checker->syn_sent) {
        checker->offered_edge += in->sequence + 1;
        checker->last_ack = in->sequence + 1;
        checker->offered = true;
    }
}

static void take_acknowledgement(struct checker *checker, const struct segment *in, const struct segment_options *options) {
    uint32_t ack = in->acknowledgement, shift = 0;
    if ((in->flags & SEGMENT_ACK) == 0 || sequence_diff(ack, checker->snd_max) > 0) {
        return;
    }
    if (sequence_diff(ack, checker->acked_max) > 0) {
        checker->acked_max = ack;
    } else if (ack == checker->acked_max) {
        checker->duplicate_acks++;
    }
    for (uint32_t i = 0; i < options->block_count; i++) {
        for (uint32_t at = options->blocks[i].left - checker->iss - 1; at < options->blocks[i].right - checker->iss - 1; at++) {
            if (at >= checker->stream_bytes) {
                break;
            }
            checker->sacked_bytes += !checker->sacked[at];
            checker->sacked[at] = 1;
        }
    }
    if (agreed_scaling(checker) && (in->flags & SEGMENT_SYN) == 0) {
        shift = checker->theirs.shift > 14 ? 14 : (uint32_t)checker->theirs.shift;
    }
    uint32_t edge = ack + ((uint32_t)in->window << shift);
    if (!checker->edge_known || sequence_diff(edge, checker->right_edge) > 0) {
        checker->right_edge = edge;
        checker->edge_known = true;
    }
}

/* Three segments above the head have arrived and the head has not: it is lost (RFC 6675 section 4, RFC 8985 section 6.2). */
static void take_hole(struct checker *checker, const struct segment_options *options, uint64_t now_us) {
    uint32_t head = checker->acked_max, above = 0;
    if (options->block_count > 0 && (sequence_diff(options->blocks[0].right, head) <= 0 ||
                                     (options->block_count > 1 && inside(&options->blocks[0], &options->blocks[1])))) {
        checker->fill_us = 0; /* something was sent again in vain: the window for reordering widens (RFC 8985 section 6.2) */
    }
    for (uint32_t i = 0; i < options->block_count; i++) {
        bool valid = sequence_diff(options->blocks[i].left, head) > 0 && sequence_diff(options->blocks[i].right, checker->snd_max) <= 0;
        above += valid ? options->blocks[i].right - options->blocks[i].left : 0;
    }
    bool repeated = checker->sent_again > 0 && sequence_diff(head, checker->again_most) < 0;
    if (head - checker->iss - 1 >= checker->stream_bytes || checker->sacked[head - checker->iss - 1]) {
        checker->hole_us = 0; /* a FIN, or the peer said once that it has it */
        return;
    }
    if (above <= 3 * segment_limit(checker) || repeated) {
        checker->hole_us = checker->hole == head && !repeated ? checker->hole_us : 0;
    } else if (checker->hole_us == 0 || checker->hole != head) {
        checker->hole_us = now_us;
        checker->hole = head;
    }
}

/* `old`: its timestamp is older than another's that came: PAWS may drop it (RFC 7323 section 5). */
static void take_text(struct checker *checker, const struct segment *in, bool old, uint64_t now_us) {
    uint32_t space = segment_space(in);
    if (space == 0 || (in->flags & SEGMENT_SYN) != 0) {
        return;
    }
    bool all = note_delivered(checker, in->sequence, in->sequence + space, now_us);
    checker->in_hand = (struct segment_block){in->sequence, in->sequence + space};
    if (in->length > 0) {
        checker->latest = (struct segment_block){in->sequence, in->sequence + (all && !old ? in->length : 0)};
    }
    if (checker->ack_due_us == NEVER && checker->established && !checker->over) {
        checker->ack_due_us = now_us + ACK_DUE_US;
    }
}

void checker_takes(struct checker *checker, const struct segment *in, uint64_t now_us) {
    struct segment_options options;
    segment_options_parse(&options, in);
    checker->repeats = 0;
    checker->repeat_us = now_us;
    if ((in->flags & SEGMENT_SYN) != 0) {
        take_syn(checker, in);
    }
    if (!checker->peer_syn_seen || (in->flags & SEGMENT_RST) != 0) {
        return;
    }
    checker->last_in_us = sequence_diff(in->sequence, checker->last_ack) >= 0 ? now_us : checker->last_in_us;
    bool old = options.timestamps && sequence_diff(options.ts_value, checker->peer_ts_max) < 0;
    if (options.timestamps && !old) {
        checker->peer_ts_max = options.ts_value;
    }
    if (checker->syn_sent) {
        take_acknowledgement(checker, in, &options);
        take_hole(checker, &options, now_us);
        take_text(checker, in, old, now_us);
    }
}

void checker_taken(struct checker *checker) {
    checker->in_hand.left = checker->in_hand.right;
}

void checker_disturbed(struct checker *checker, uint64_t now_us) {
    checker->strangers = true;
    checker->repeats = 0;
    checker->repeat_us = now_us;
}

void checker_pass(struct checker *checker, uint64_t now_us) {
    if (checker->ack_due_us != NEVER && now_us > checker->ack_due_us + SLACK_US && !checker->over && !checker->aborted &&
        !checker->device_busy) {
        broken(checker, "an ACK later than half a second");
    }
    if (checker->fill_us > 0 && checker->hole_us > 0 && now_us > checker->hole_us + checker->fill_us && !checker->over &&
        !checker->aborted && !checker->strangers && !checker->lying && sequence_diff(checker->acked_max, checker->hole) == 0) {
        broken(checker, "a hole under three segments that arrived is not filled");
    }
}
