/* tcp_options.h: TCP options to and from bytes (RFC 9293 3.1, RFC 7323, RFC 2018). */
#ifndef DATAPLANE_TCP_TCP_OPTIONS_H
#define DATAPLANE_TCP_TCP_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

enum {
    TCP_SHIFT_MAX = 14, /* RFC 7323 2.3 */
    TCP_TIMESTAMP_BYTES = 12,
    TCP_SACK_PREFIX_BYTES = 4, /* with the padding in front; each block adds eight */
    TCP_SACK_BLOCK_BYTES = 8,
};

struct tcp_options {
    uint16_t mss; /* 0: not present */
    uint8_t shift;
    bool has_shift, has_timestamps, sack_permitted;
    uint8_t sack_count;  /* blocks of eight bytes at `sack` */
    const uint8_t *sack; /* within the bytes that were read; NULL: not present */
    uint32_t ts_value, ts_echo;
};

/* Reads `length` bytes of options. A malformed option ends the reading; what came before it counts. */
void tcp_options_parse(struct tcp_options *options, const uint8_t *bytes, uint32_t length);
/* Writes the options of a SYN, those that are present, in the order that Linux has; returns the bytes written, a multiple of four. */
uint8_t tcp_options_write_syn(uint8_t *bytes, const struct tcp_options *options);
/* Writes the timestamps of any other segment: TCP_TIMESTAMP_BYTES. */
uint8_t tcp_options_write(uint8_t *bytes, uint32_t ts_value, uint32_t ts_echo);
/* The head of a SACK option of so many blocks (RFC 2018 section 3), which the caller writes after it: TCP_SACK_PREFIX_BYTES. */
uint8_t tcp_options_write_sack(uint8_t *bytes, uint32_t blocks);

#endif
