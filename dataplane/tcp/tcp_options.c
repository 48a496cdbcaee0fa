/* tcp_options.c: reading and writing TCP options. */
#include "tcp_options.h"

#include <string.h>

#include "tcp_bytes.h"

enum {
    OPTION_END = 0,
    OPTION_NOP = 1,
    OPTION_MSS = 2,
    OPTION_SHIFT = 3,
    OPTION_SACK_PERMITTED = 4,
    OPTION_SACK = 5,
    OPTION_TIMESTAMPS = 8
};

void tcp_options_parse(struct tcp_options *options, const uint8_t *bytes, uint32_t length) {
    *options = (struct tcp_options){0};
    if (length == TCP_TIMESTAMP_BYTES && bytes[0] == OPTION_NOP && bytes[1] == OPTION_NOP && bytes[2] == OPTION_TIMESTAMPS &&
        bytes[3] == 10) { /* the form that nearly every segment has */
        options->has_timestamps = true;
        options->ts_value = tcp_get32(bytes + 4);
        options->ts_echo = tcp_get32(bytes + 8);
        return;
    }
    for (uint32_t at = 0; at < length && bytes[at] != OPTION_END;) {
        if (bytes[at] == OPTION_NOP) {
            at++;
            continue;
        }
        if (length - at < 2 || bytes[at + 1] < 2 || bytes[at + 1] > length - at) {
            return;
        }
        const uint8_t *value = bytes + at + 2;
        uint8_t size = bytes[at + 1];
        if (bytes[at] == OPTION_MSS && size == 4) {
            options->mss = tcp_get16(value);
        } else if (bytes[at] == OPTION_SHIFT && size == 3) {
            options->has_shift = true;
            options->shift = value[0] > TCP_SHIFT_MAX ? TCP_SHIFT_MAX : value[0];
        } else if (bytes[at] == OPTION_SACK_PERMITTED && size == 2) {
            options->sack_permitted = true;
        } else if (bytes[at] == OPTION_SACK && size > 2 && (size - 2) % TCP_SACK_BLOCK_BYTES == 0) {
            options->sack = value;
            options->sack_count = (uint8_t)((size - 2) / TCP_SACK_BLOCK_BYTES);
        } else if (bytes[at] == OPTION_TIMESTAMPS && size == 10) {
            options->has_timestamps = true;
            options->ts_value = tcp_get32(value);
            options->ts_echo = tcp_get32(value + 4);
        }
        at += size;
    }
}

uint8_t tcp_options_write_syn(uint8_t *bytes, const struct tcp_options *options) {
    uint8_t *at = bytes;
    *at++ = OPTION_MSS;
    *at++ = 4;
    tcp_put16(at, options->mss);
    at += 2;
    if (options->sack_permitted) {
        if (!options->has_timestamps) {
            *at++ = OPTION_NOP;
            *at++ = OPTION_NOP;
        }
        *at++ = OPTION_SACK_PERMITTED;
        *at++ = 2;
    }
    if (options->has_timestamps) {
        uint8_t *padding = at; /* which the timestamps have where SACK-permitted does not take its place */
        at += tcp_options_write(at, options->ts_value, options->ts_echo);
        if (options->sack_permitted) {
            memmove(padding, padding + 2, TCP_TIMESTAMP_BYTES - 2);
            at -= 2;
        }
    }
    if (options->has_shift) {
        *at++ = OPTION_NOP;
        *at++ = OPTION_SHIFT;
        *at++ = 3;
        *at++ = options->shift;
    }
    return (uint8_t)(at - bytes);
}

uint8_t tcp_options_write(uint8_t *bytes, uint32_t ts_value, uint32_t ts_echo) {
    static const uint8_t prefix[4] = {OPTION_NOP, OPTION_NOP, OPTION_TIMESTAMPS, 10};
    memcpy(bytes, prefix, sizeof(prefix));
    tcp_put32(bytes + 4, ts_value);
    tcp_put32(bytes + 8, ts_echo);
    return TCP_TIMESTAMP_BYTES;
}

uint8_t tcp_options_write_sack(uint8_t *bytes, uint32_t blocks) {
    bytes[0] = bytes[1] = OPTION_NOP;
    bytes[2] = OPTION_SACK;
    bytes[3] = (uint8_t)(2 + blocks * TCP_SACK_BLOCK_BYTES);
    return TCP_SACK_PREFIX_BYTES;
}
