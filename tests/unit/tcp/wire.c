/* wire.c: the stack under test and the hand that plays its peer. */
#include "wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static int take_segment(void *network, const struct tcp_segment *segment) {
    struct wire *wire = network;
    if (wire->transmit_result != 0) {
        return wire->transmit_result;
    }
    assert_true(wire->segment_count < WIRE_SEGMENTS_MAX);
    struct wire_segment *copy = &wire->segments[wire->segment_count++];
    copy->local = segment->local;
    copy->remote = segment->remote;
    copy->local_port = segment->local_port;
    copy->remote_port = segment->remote_port;
    copy->sequence = segment->sequence;
    copy->acknowledgement = segment->acknowledgement;
    copy->flags = segment->flags;
    copy->first_transmission = segment->first_transmission;
    copy->may_fragment = segment->may_fragment;
    copy->segment_bytes = segment->segment_bytes;
    copy->window = segment->window;
    copy->options_length = segment->options_length;
    copy->piece_count = segment->piece_count;
    copy->length = segment->payload_length;
    assert_true(segment->options_length % 4 == 0 && segment->options_length <= TCP_OPTIONS_BYTES_MAX);
    assert_true(segment->piece_count <= TCP_SEGMENT_PIECES_MAX);
    if (segment->options_length > 0) {
        memcpy(copy->options, segment->options, segment->options_length);
    }
    uint32_t at = 0;
    for (uint32_t i = 0; i < segment->piece_count; i++) {
        assert_true(segment->pieces[i].length > 0 && at + segment->pieces[i].length <= WIRE_PAYLOAD_MAX);
        memcpy(copy->payload + at, segment->pieces[i].bytes, segment->pieces[i].length);
        at += segment->pieces[i].length;
    }
    assert_int_equal(at, segment->payload_length);
    return 0;
}

static void on_connected(void *user, struct tcp_conn *conn, uint64_t now_us) {
    struct wire *wire = user;
    assert_false(wire->in_call);
    wire->connected++;
    if (wire->on_connected != NULL) {
        wire->on_connected(wire);
    }
}

static uint32_t on_received(void *user, struct tcp_conn *conn, const uint8_t *bytes, uint32_t length, uint64_t now_us) {
    struct wire *wire = user;
    uint32_t take = length < wire->take_limit ? length : wire->take_limit;
    assert_true(wire->text_length + take <= WIRE_TEXT_MAX);
    memcpy(wire->text + wire->text_length, bytes, take);
    wire->text_length += take;
    wire->take_limit -= take;
    if (wire->on_received != NULL) {
        wire->on_received(wire);
    }
    return take;
}

static void on_peer_closed(void *user, struct tcp_conn *conn, uint64_t now_us) {
    struct wire *wire = user;
    wire->peer_closed++;
    if (wire->on_peer_closed != NULL) {
        wire->on_peer_closed(wire);
    }
}

static void on_acknowledged(void *user, struct tcp_conn *conn, uint32_t bytes, uint64_t now_us) {
    struct wire *wire = user;
    wire->acknowledged_bytes += bytes;
    wire->acknowledged_calls++;
    if (wire->on_acknowledged != NULL) {
        wire->on_acknowledged(wire);
    }
}

static void on_closed(void *user, struct tcp_conn *conn, enum tcp_error error, uint64_t now_us) {
    struct wire *wire = user;
    assert_false(wire->in_call);
    wire->closed++;
    wire->error = error;
    if (wire->conn == conn) {
        wire->conn = NULL;
    }
}

static struct wire *listening; /* the user of a listener is the test's: it need not be the wire */

static void *on_accepted(void *listener_user, struct tcp_conn *conn, uint64_t now_us) {
    struct wire *wire = listening;
    wire->accepted++;
    wire->listener_user = listener_user;
    if (wire->refuse) {
        return NULL;
    }
    wire->conn = conn;
    if (wire->on_connected != NULL) {
        wire->on_connected(wire);
    }
    return wire;
}

void wire_open(struct wire *wire, const struct tcp_config *changes) {
    memset(wire, 0, sizeof(*wire));
    wire->now_us = 1000 * 1000 * 1000ULL;
    wire->segments = calloc(WIRE_SEGMENTS_MAX, sizeof(*wire->segments));
    wire->text = malloc(WIRE_TEXT_MAX);
    wire->take_limit = UINT32_MAX;
    wire->local = (struct tcp_address){.bytes = {192, 0, 2, 1}, .family = 4};
    wire->remote = (struct tcp_address){.bytes = {198, 51, 100, 7}, .family = 4};
    wire->remote_port = 25;
    wire->window = 65535;
    struct tcp_config config = changes != NULL ? *changes : (struct tcp_config){0};
    config.max_connections = config.max_connections != 0 ? config.max_connections : 8;
    config.receive_buffer_bytes = config.receive_buffer_bytes != 0 ? config.receive_buffer_bytes : 16384;
    config.mtu = config.mtu != 0 ? config.mtu : 1500;
    config.port_first = config.port_first != 0 ? config.port_first : 20000;
    config.port_last = config.port_last != 0 ? config.port_last : 20999;
    memcpy(config.secret, "0123456789abcdef", 16);
    config.transmit = take_segment;
    config.network = wire;
    config.events = (struct tcp_events){on_connected, on_received, on_peer_closed, on_acknowledged, on_closed, on_accepted};
    listening = wire;
    wire->config = config;
    wire->stack = tcp_stack_create(&config, wire->now_us);
    assert_non_null(wire->stack);
}

void wire_free(struct wire *wire) {
    tcp_stack_destroy(wire->stack);
    free(wire->segments);
    free(wire->text);
}

void wire_clear(struct wire *wire) {
    wire->segment_count = 0;
}

struct wire_segment *wire_last(struct wire *wire) {
    assert_true(wire->segment_count > 0);
    return &wire->segments[wire->segment_count - 1];
}

void wire_connect(struct wire *wire) {
    wire->in_call = true;
    assert_int_equal(
        tcp_connect(wire->stack, &wire->local, &wire->remote, wire->remote_port, 30 * 1000 * 1000, wire, &wire->conn, wire->now_us), 0);
    wire->in_call = false;
    const struct wire_segment *syn = wire_last(wire);
    assert_int_equal(syn->flags, TCP_SYN);
    wire->iss = syn->sequence;
    wire->local_port = syn->local_port;
    wire->acknowledgement = syn->sequence + 1;
    wire->sequence = 0x70000000;
}

static void put16(uint8_t *bytes, uint32_t value) {
    bytes[0] = (uint8_t)(value >> 8);
    bytes[1] = (uint8_t)value;
}

static void put32(uint8_t *bytes, uint32_t value) {
    put16(bytes, value >> 16);
    put16(bytes + 2, value & 0xffff);
}

void wire_put_options(struct wire *wire, uint8_t flags, uint32_t sequence, uint32_t acknowledgement, const uint8_t *options,
                      uint8_t options_length, const void *payload, uint32_t length) {
    /* Of its exact size, so that AddressSanitizer sees a read beyond it. */
    uint8_t *bytes = malloc(20U + options_length + length);
    put16(bytes, wire->remote_port);
    put16(bytes + 2, wire->local_port);
    put32(bytes + 4, sequence);
    put32(bytes + 8, acknowledgement);
    bytes[12] = (uint8_t)((5 + options_length / 4) << 4);
    bytes[13] = flags;
    put16(bytes + 14, wire->window);
    put32(bytes + 16, 0);
    if (options_length > 0) {
        memcpy(bytes + 20, options, options_length);
    }
    if (length > 0) {
        memcpy(bytes + 20 + options_length, payload, length);
    }
    struct tcp_packet packet = {.local = wire->local, .remote = wire->remote, .header = bytes, .length = 20U + options_length + length};
    if (wire->puts++ % 2 == 1) { /* announced or not, it must be all the same */
        tcp_prefetch(wire->stack, &packet);
    }
    tcp_input(wire->stack, &packet, wire->now_us);
    free(bytes);
}

void wire_put(struct wire *wire, uint8_t flags, uint32_t sequence, uint32_t acknowledgement, const void *payload, uint32_t length) {
    uint8_t options[12] = {1, 1, 8, 10};
    put32(options + 4, wire->ts_value);
    put32(options + 8, wire->ts_echo);
    wire_put_options(wire, flags, sequence, acknowledgement, options, wire->timestamps ? sizeof(options) : 0, payload, length);
}

void wire_syn(struct wire *wire, uint32_t sequence) {
    uint8_t options[16] = {2, 4, 0x05, 0xb4, 1, 1, 8, 10};
    put32(options + 8, wire->ts_value);
    wire_put_options(wire, TCP_SYN, sequence, 0, options, wire->ts_value != 0 ? 16 : 4, NULL, 0);
    wire->sequence = sequence + 1;
}

void wire_say(struct wire *wire, const void *payload, uint32_t length) {
    uint32_t sequence = wire->sequence;
    wire->sequence += length;
    wire_put(wire, TCP_ACK, sequence, wire->acknowledgement, payload, length);
}

void wire_ack(struct wire *wire, uint32_t acknowledgement) {
    wire->acknowledgement = acknowledgement;
    wire_put(wire, TCP_ACK, wire->sequence, acknowledgement, NULL, 0);
}

void wire_sack(struct wire *wire, uint32_t acknowledgement, const uint32_t (*spans)[2], uint32_t count) {
    uint8_t options[TCP_OPTIONS_BYTES_MAX] = {1, 1, 8, 10};
    uint8_t length = wire->timestamps ? 12 : 0;
    put32(options + 4, wire->ts_value);
    put32(options + 8, wire->ts_echo);
    options[length] = options[length + 1] = 1;
    options[length + 2] = 5;
    options[length + 3] = (uint8_t)(2 + 8 * count);
    for (uint32_t i = 0; i < count; i++) {
        put32(options + length + 4 + 8 * i, wire->iss + 1 + spans[i][0]);
        put32(options + length + 8 + 8 * i, wire->iss + 1 + spans[i][1]);
    }
    length = (uint8_t)(length + 4 + 8 * count);
    wire->acknowledgement = wire->iss + 1 + acknowledgement;
    wire_put_options(wire, TCP_ACK, wire->sequence, wire->acknowledgement, options, length, NULL, 0);
}

static uint32_t get32(const uint8_t *bytes) {
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

uint32_t wire_spans(const struct wire_segment *segment, uint32_t (*spans)[2]) {
    for (uint32_t at = 0; at < segment->options_length;) {
        if (segment->options[at] == 1) {
            at++;
            continue;
        }
        uint32_t size = segment->options[at + 1];
        if (segment->options[at] == 5) {
            for (uint32_t i = 0; i < (size - 2) / 8; i++) {
                spans[i][0] = get32(segment->options + at + 2 + 8 * i);
                spans[i][1] = get32(segment->options + at + 6 + 8 * i);
            }
            return (size - 2) / 8;
        }
        at += size;
    }
    return 0;
}

void wire_establish(struct wire *wire, const struct wire_peer *peer) {
    uint8_t options[24];
    uint8_t length = 0;
    if (peer->mss != 0) {
        options[0] = 2;
        options[1] = 4;
        put16(options + 2, peer->mss);
        length = 4;
    }
    if (peer->timestamps) {
        static const uint8_t prefix[4] = {1, 1, 8, 10};
        memcpy(options + length, prefix, 4);
        put32(options + length + 4, wire->ts_value);
        put32(options + length + 8, 0);
        length = (uint8_t)(length + 12);
    }
    if (peer->shift >= 0) {
        options[length] = 1;
        options[length + 1] = 3;
        options[length + 2] = 3;
        options[length + 3] = (uint8_t)peer->shift;
        length = (uint8_t)(length + 4);
    }
    if (peer->sack) {
        memcpy(options + length, "\x01\x01\x04\x02", 4);
        length = (uint8_t)(length + 4);
    }
    wire->timestamps = peer->timestamps;
    wire->sequence = 0x70000001;
    wire_put_options(wire, TCP_SYN | TCP_ACK, wire->sequence - 1, wire->iss + 1, options, length, NULL, 0);
    assert_int_equal(wire->connected, 1);
    wire_poll(wire);
    assert_int_equal(wire_last(wire)->flags & TCP_ACK, TCP_ACK);
    wire_clear(wire);
}

int wire_send(struct wire *wire, const void *bytes, uint32_t length) {
    struct tcp_piece piece = {.bytes = bytes, .length = length};
    wire->in_call = true;
    int rc = tcp_send(wire->conn, &piece, 1, wire->now_us);
    if (rc == 0) {
        tcp_output(wire->conn, wire->now_us);
    }
    wire->in_call = false;
    return rc;
}

void wire_poll(struct wire *wire) {
    tcp_poll(wire->stack, 1000, wire->now_us);
}

void wire_wait(struct wire *wire, uint64_t us) {
    uint64_t until = wire->now_us + us;
    for (;;) {
        uint64_t next = tcp_poll(wire->stack, 1000, wire->now_us);
        if (next > until) {
            break;
        }
        wire->now_us = next > wire->now_us ? next : wire->now_us + 1;
    }
    wire->now_us = until;
    wire_poll(wire);
}

const uint8_t *wire_pattern(void) {
    static uint8_t pattern[1 << 18];
    if (pattern[1] == 0) {
        for (uint32_t i = 0; i < sizeof(pattern); i++) {
            pattern[i] = (uint8_t)(i * 31 + (i >> 8) * 7 + 1);
        }
    }
    return pattern;
}
