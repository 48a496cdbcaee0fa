/* segment.h: one segment on the virtual wire, and its options read by a parser of the simulator's own. */
#ifndef TESTS_SIM_SEGMENT_H
#define TESTS_SIM_SEGMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "dataplane/tcp/tcp.h"

enum { SEGMENT_FIN = 1, SEGMENT_SYN = 2, SEGMENT_RST = 4, SEGMENT_PSH = 8, SEGMENT_ACK = 16 };
enum { SEGMENT_OPTIONS_MAX = 40, SEGMENT_BLOCKS_MAX = 4, SEGMENT_HEADER_MAX = 60, SEGMENT_PAYLOAD_MAX = 65536 };

struct segment {
    uint32_t sequence, acknowledgement;
    uint16_t window;
    uint8_t flags;
    uint8_t options_length;
    uint8_t options[SEGMENT_OPTIONS_MAX];
    bool may_fragment;
    uint32_t length;
    uint8_t *payload;
};

struct segment_block {
    uint32_t left, right;
};

struct segment_options {
    uint16_t mss; /* 0: not present */
    int shift;    /* -1: not present */
    bool sack_permitted, timestamps, malformed;
    uint32_t ts_value, ts_echo;
    uint8_t block_count;
    struct segment_block blocks[SEGMENT_BLOCKS_MAX];
};

/* a - b in sequence space (RFC 9293 3.4). */
static inline int32_t sequence_diff(uint32_t a, uint32_t b) {
    return (int32_t)(a - b);
}
/* Sequence numbers that the segment takes. */
static inline uint32_t segment_space(const struct segment *segment) {
    return segment->length + ((segment->flags & SEGMENT_SYN) != 0) + ((segment->flags & SEGMENT_FIN) != 0);
}

void segment_options_parse(struct segment_options *options, const struct segment *segment);
void segment_options_add(struct segment *segment, const uint8_t *bytes, uint32_t length);
void segment_options_timestamps(struct segment *segment, uint32_t value, uint32_t echo);
/* Puts no-operations in their place, as middleboxes do. */
void segment_options_strip_timestamps(struct segment *segment);
void segment_options_sack(struct segment *segment, const struct segment_block *blocks, uint32_t count);
/* The TCP header and payload as they lie in a packet, exactly `*length` bytes, so that a read past them is seen; the caller frees it. */
uint8_t *segment_encode(const struct segment *segment, uint16_t from_port, uint16_t to_port, uint32_t *length);
/* Copies a segment that a stack sends; `payload` has room for SEGMENT_PAYLOAD_MAX. False: the pieces do not sum up. */
bool segment_take(struct segment *out, const struct tcp_segment *in, uint8_t *payload);

#endif
