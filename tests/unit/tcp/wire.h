/* wire.h: a stack under test with a wire that keeps what was sent and a hand that writes what comes in. */
#ifndef TESTS_UNIT_TCP_WIRE_H
#define TESTS_UNIT_TCP_WIRE_H

#include "dataplane/tcp/tcp.h"

enum { WIRE_SEGMENTS_MAX = 4096, WIRE_PAYLOAD_MAX = 9216, WIRE_TEXT_MAX = 1 << 18 };

struct wire_segment {
    struct tcp_address local, remote;
    uint16_t local_port, remote_port;
    uint32_t sequence, acknowledgement;
    uint8_t flags;
    bool first_transmission, may_fragment;
    uint16_t segment_bytes;
    uint16_t window;
    uint8_t options_length, options[TCP_OPTIONS_BYTES_MAX];
    uint8_t piece_count;
    uint16_t length;
    uint8_t payload[WIRE_PAYLOAD_MAX];
};

/* A connection as the layer above sees it, and the numbers of the peer that the test plays. */
struct wire {
    struct tcp_stack *stack;
    struct tcp_conn *conn;
    struct tcp_config config;
    uint64_t now_us;
    struct wire_segment *segments; /* what was sent since the last wire_clear */
    uint32_t segment_count;
    int transmit_result; /* what transmit answers */
    struct tcp_address local, remote;
    uint16_t local_port, remote_port;
    uint32_t sequence;        /* of the peer: the next that it sends */
    uint32_t acknowledgement; /* of the peer: the next that it expects */
    uint32_t window;          /* as on the wire */
    uint32_t last_ack;        /* that a bent segment carried */
    uint32_t iss;             /* ours */
    bool timestamps;          /* the peer sends them */
    uint32_t ts_value, ts_echo;
    uint8_t *text;                    /* what `received` took */
    uint32_t text_length, take_limit; /* take_limit: bytes that `received` takes from now on */
    uint32_t connected, peer_closed, closed, acknowledged_bytes, acknowledged_calls;
    enum tcp_error error;
    bool in_call; /* inside tcp_connect, tcp_send or tcp_close */
    void (*on_received)(struct wire *wire);
    void (*on_connected)(struct wire *wire);
    void (*on_acknowledged)(struct wire *wire);
    void (*on_peer_closed)(struct wire *wire);
    uint32_t puts;       /* segments from the peer so far */
    uint32_t accepted;   /* connections of a listener; the last one is `conn` */
    bool refuse;         /* `accepted` answers NULL */
    void *listener_user; /* that `accepted` was called with */
};

/* Options of the SYN-ACK that the test's peer sends. */
struct wire_peer {
    uint16_t mss;
    int shift; /* -1: none */
    bool timestamps;
    bool sack;
};

void wire_open(struct wire *wire, const struct tcp_config *changes);
void wire_free(struct wire *wire);
void wire_clear(struct wire *wire);
/* The last segment sent. */
struct wire_segment *wire_last(struct wire *wire);
/* A SYN to a listener from the peer's remote_port, with timestamps if ts_value is not 0. */
void wire_syn(struct wire *wire, uint32_t sequence);
/* tcp_connect, which must succeed; takes our numbers from the SYN. */
void wire_connect(struct wire *wire);
/* A segment from the peer with these flags, numbers and bytes. */
void wire_put(struct wire *wire, uint8_t flags, uint32_t sequence, uint32_t acknowledgement, const void *payload, uint32_t length);
void wire_put_options(struct wire *wire, uint8_t flags, uint32_t sequence, uint32_t acknowledgement, const uint8_t *options,
                      uint8_t options_length, const void *payload, uint32_t length);
/* The next segment in order from the peer: ACK, and the bytes. */
void wire_say(struct wire *wire, const void *payload, uint32_t length);
/* An ACK up to `acknowledgement`. */
void wire_ack(struct wire *wire, uint32_t acknowledgement);
/* The same with SACK blocks, given as pairs of left and right in bytes of our stream. */
void wire_sack(struct wire *wire, uint32_t acknowledgement, const uint32_t (*spans)[2], uint32_t count);
/* The SACK blocks of a segment that was sent, as they are; returns how many. */
uint32_t wire_spans(const struct wire_segment *segment, uint32_t (*spans)[2]);
/* SYN-ACK; then the connection is established and what it sent is cleared. */
void wire_establish(struct wire *wire, const struct wire_peer *peer);
/* tcp_send of bytes that outlive the stack. */
int wire_send(struct wire *wire, const void *bytes, uint32_t length);
/* Lets time go by, polling as the stack asks. */
void wire_wait(struct wire *wire, uint64_t us);
void wire_poll(struct wire *wire);
/* A buffer of patterned bytes that outlives all tests. */
const uint8_t *wire_pattern(void);

#endif
