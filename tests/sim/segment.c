/* segment.c: segments to and from bytes, written apart from the stack under test. */
#include "segment.h"

#include <stdlib.h>
#include <string.h>

static uint32_t get32(const uint8_t *b) {
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static void put16(uint8_t *b, uint32_t v) {
    b[0] = (uint8_t)(v >> 8);
    b[1] = (uint8_t)v;
}

static void put32(uint8_t *b, uint32_t v) {
    put16(b, v >> 16);
    put16(b + 2, v);
}

void segment_options_parse(struct segment_options *options, const struct segment *segment) {
    const uint8_t *at = segment->options, *end = at + segment->options_length;
    *options = (struct segment_options){.shift = -1, .malformed = segment->options_length % 4 != 0};
    while (at < end && *at != 0) {
        if (*at == 1) {
            at++;
            continue;
        }
        if (end - at < 2 || at[1] < 2 || at[1] > end - at) {
            options->malformed = true;
            return;
        }
        if (at[0] == 2 && at[1] == 4) {
            options->mss = (uint16_t)(at[2] << 8 | at[3]);
        } else if (at[0] == 3 && at[1] == 3) {
            options->shift = at[2];
        } else if (at[0] == 4 && at[1] == 2) {
            options->sack_permitted = true;
        } else if (at[0] == 8 && at[1] == 10) {
            options->timestamps = true;
            options->ts_value = get32(at + 2);
            options->ts_echo = get32(at + 6);
        } else if (at[0] == 5 && at[1] >= 10 && (at[1] - 2) % 8 == 0 && at[1] <= 34) {
            for (const uint8_t *block = at + 2; block < at + at[1]; block += 8) {
                options->blocks[options->block_count++] = (struct segment_block){get32(block), get32(block + 4)};
            }
        } else {
            options->malformed = true;
        }
        at += at[1];
    }
}

void segment_options_add(struct segment *segment, const uint8_t *bytes, uint32_t length) {
    memcpy(segment->options + segment->options_length, bytes, length);
    segment->options_length = (uint8_t)(segment->options_length + length);
}

void segment_options_timestamps(struct segment *segment, uint32_t value, uint32_t echo) {
    uint8_t bytes[12] = {1, 1, 8, 10};
    put32(bytes + 4, value);
    put32(bytes + 8, echo);
    segment_options_add(segment, bytes, sizeof(bytes));
}

void segment_options_sack(struct segment *segment, const struct segment_block *blocks, uint32_t count) {
    uint8_t bytes[SEGMENT_OPTIONS_MAX] = {1, 1, 5};
    uint32_t most = (SEGMENT_OPTIONS_MAX - 4U - segment->options_length) / 8;
    count = count < most ? count : most;
    bytes[3] = (uint8_t)(2 + 8 * count);
    for (uint32_t i = 0; i < count; i++) {
        put32(bytes + 4 + 8 * i, blocks[i].left);
        put32(bytes + 8 + 8 * i, blocks[i].right);
    }
    if (count > 0) {
        segment_options_add(segment, bytes, 4 + 8 * count);
    }
}

uint8_t *segment_encode(const struct segment *segment, uint16_t from_port, uint16_t to_port, uint32_t *length) {
    uint32_t header = 20U + segment->options_length;
    uint8_t *bytes = malloc(header + segment->length);
    if (bytes == NULL) {
        abort();
    }
    *length = header + segment->length;
    put16(bytes, from_port);
    put16(bytes + 2, to_port);
    put32(bytes + 4, segment->sequence);
    put32(bytes + 8, segment->acknowledgement);
    bytes[12] = (uint8_t)(header / 4 << 4);
    bytes[13] = segment->flags;
    put16(bytes + 14, segment->window);
    put32(bytes + 16, 0);
    memcpy(bytes + 20, segment->options, segment->options_length);
    if (segment->length > 0) {
        memcpy(bytes + header, segment->payload, segment->length);
    }
    return bytes;
}

bool segment_take(struct segment *out, const struct tcp_segment *in, uint8_t *payload) {
    *out = (struct segment){.sequence = in->sequence,
                            .acknowledgement = in->acknowledgement,
                            .window = in->window,
                            .flags = in->flags,
                            .may_fragment = in->may_fragment,
                            .payload = payload};
    if (in->options_length > SEGMENT_OPTIONS_MAX || in->piece_count > TCP_SEGMENT_PIECES_MAX) {
        return false;
    }
    if (in->options_length > 0) {
        segment_options_add(out, in->options, in->options_length);
    }
    for (uint32_t i = 0; i < in->piece_count; i++) {
        if (in->pieces[i].length > SEGMENT_PAYLOAD_MAX - out->length) {
            return false;
        }
        memcpy(payload + out->length, in->pieces[i].bytes, in->pieces[i].length);
        out->length += in->pieces[i].length;
    }
    return out->length == in->payload_length;
}

void segment_options_strip_timestamps(struct segment *segment) {
    for (uint32_t at = 0; at < segment->options_length;) {
        uint8_t kind = segment->options[at], length = kind <= 1 || at + 1 == segment->options_length ? 1 : segment->options[at + 1];
        if (kind == 0 || length == 0) {
            return;
        }
        if (kind == 8 && at + length <= segment->options_length) {
            memset(segment->options + at, 1, length);
        }
        at += length;
    }
}
