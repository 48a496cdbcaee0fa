/* checker.h: the rules that one side of a connection keeps on every segment, whatever happens; judged from outside, from what it sends and
 * from what reaches it. */
#ifndef TESTS_SIM_CHECKER_H
#define TESTS_SIM_CHECKER_H

#include "segment.h"

enum { CHECKER_GAPS_KEPT = 3 };

struct checker {
    /* Given by the scenario. */
    const uint8_t *stream, *incoming_stream;
    uint32_t stream_bytes, incoming_bytes;
    uint16_t mtu, headers, mss_default;
    bool listens;                                  /* answers a SYN */
    bool device_busy;                              /* the device says -EAGAIN: deadlines move */
    bool lying;                                    /* the peer's SACK blocks or windows are not to be trusted */
    bool strangers;                                /* segments arrive that the peer did not send */
    bool keepalive;                                /* probes of an octet below snd_nxt */
    uint32_t fill_us;                              /* within so long such a hole is filled; 0: no telling */
    bool can_split;                                /* segments larger than the MSS go to a device that splits them */
    uint32_t split_most;                           /* payload bytes */
    uint32_t queued;                               /* bytes that the layer above queued */
    bool established, close_called, aborted, over; /* what the layer above did and heard; over: `closed` came */
    /* Found out. */
    bool syn_sent, opened, peer_syn_seen, fin_sent, reset_sent;
    uint32_t iss, irs;
    struct segment_options ours, theirs; /* of the SYNs */
    uint32_t snd_max, acked_max, right_edge;
    bool edge_known;
    uint16_t syn_window;
    uint32_t offered_edge, last_ack;
    bool offered;
    uint32_t ts_last, echo_last, peer_ts_max;
    bool ts_sent;
    uint8_t *sacked;                       /* bytes that the peer once said it holds */
    uint32_t sacked_bytes, duplicate_acks; /* said to have arrived, counted generously */
    uint8_t *delivered;                    /* bytes that reached it within its window, by place; +1 for the FIN */
    struct segment_block in_hand;          /* the text that the stack is looking at: its window may open meanwhile */
    struct segment_block latest;           /* the last piece of text that reached it */
    uint64_t ack_due_us;                   /* when text that reached it must have been acknowledged; UINT64_MAX: nothing waits */
    uint64_t last_in_us, last_out_us, last_text_us;
    uint64_t repeat_us;              /* when the head was last sent again in silence */
    uint64_t gap_us;                 /* between the last two of these */
    uint32_t repeats, repeat_length; /* silent repeats of the head since something came in */
    uint32_t loss_window_bytes;      /* sent since the last of them */
    bool fin_got, ended_first;       /* its FIN went before the peer's came: TIME_WAIT is on this side */
    uint64_t hole_us;                /* since when the head is known to be missing under three segments that arrived; 0: it is not */
    uint32_t hole, again_most;       /* the head then; the end of what was sent again */
    uint64_t sent_segments, sent_again, sack_blocks;
    const char *broken; /* the rule that was broken first */
};

void checker_init(struct checker *checker);
/* A listener's handshake begins anew, with another initial sequence number. */
void checker_restart(struct checker *checker);
void checker_free(struct checker *checker);
/* One segment on its way out, before the device splits it. `first`: what the stack says of it; segment_bytes: what a device would split by.
 */
void checker_sends(struct checker *checker, const struct segment *segment, bool first, uint32_t segment_bytes, uint64_t now_us);
/* The peer's segment is about to be given to the stack. */
void checker_takes(struct checker *checker, const struct segment *segment, uint64_t now_us);
/* The stack has looked at it. */
void checker_taken(struct checker *checker);
/* A segment from elsewhere is about to be given to the stack under this connection's name. */
void checker_disturbed(struct checker *checker, uint64_t now_us);
/* After a pass: what is due by now must have been done. */
void checker_pass(struct checker *checker, uint64_t now_us);

#endif
