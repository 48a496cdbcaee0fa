/* tcp.h: the TCP of one worker. Pure protocol: bytes and `now` in, segments out; no clock, no I/O, no globals, no DPDK header,
 * so that it runs whole in a simulator under virtual time. Times are microseconds of one monotonic clock. */
#ifndef DATAPLANE_TCP_TCP_H
#define DATAPLANE_TCP_TCP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tcp_stack;
struct tcp_conn;

/* An address in network byte order; an IPv4 address uses the first four bytes and the others are zero. */
struct tcp_address {
    uint8_t bytes[16];
    uint8_t family; /* 4 or 6 */
};

/* Who owns bytes that were queued for sending. The stack holds one reference for each queued range and calls `release` when the
 * last one goes: the bytes were acknowledged, or the connection is gone. NULL stands for bytes that outlive the stack. */
struct tcp_owner {
    uint32_t references;
    void (*release)(struct tcp_owner *owner);
};

struct tcp_piece {
    const uint8_t *bytes;
    uint32_t length;
    struct tcp_owner *owner;
};

enum { TCP_FIN = 0x01, TCP_SYN = 0x02, TCP_RST = 0x04, TCP_PSH = 0x08, TCP_ACK = 0x10 };
enum { TCP_SEGMENT_PIECES_MAX = 16, TCP_OPTIONS_BYTES_MAX = 40, TCP_LISTENERS_MAX = 1024 };

/* One segment on its way out, valid only during the call of `transmit`. The device may keep referring to the payload's bytes after
 * the call only when `first_transmission`: a segment that repeats bytes must be copied, so that an acknowledgement always proves
 * that no device still needs the owner's memory (DESIGN.md section 4). */
struct tcp_segment {
    struct tcp_address local, remote;
    uint16_t local_port, remote_port;
    uint32_t sequence, acknowledgement;
    uint8_t flags;
    bool first_transmission;
    uint16_t window;         /* as on the wire: already scaled */
    uint16_t segment_bytes;  /* payload_length beyond it: the device splits the payload into segments of so many bytes (TSO) */
    bool may_fragment;       /* IPv4 without DF: the path's MTU is below what is worth discovering (RFC 1191 section 3) */
    uint8_t options_length;  /* a multiple of 4, at most TCP_OPTIONS_BYTES_MAX */
    uint8_t piece_count;     /* at most TCP_SEGMENT_PIECES_MAX */
    uint16_t payload_length; /* sum of the pieces; beyond segment_bytes only as far as tcp_config.segmentation_bytes_max */
    const uint8_t *options;
    const struct tcp_piece *pieces;
};

/* A segment that came in, its checksum already verified; `header` starts at the source port. */
struct tcp_packet {
    struct tcp_address local, remote; /* local: our address, the packet's destination */
    const uint8_t *header;
    uint32_t length; /* TCP header and payload, bytes */
    uint32_t hash;   /* of the connection's name, from tcp_prefetch; 0: not known */
};

enum tcp_error {
    TCP_OK,          /* orderly: both directions ended by FIN */
    TCP_REFUSED,     /* RST in answer to our SYN */
    TCP_RESET,       /* RST in a synchronised state */
    TCP_TIMED_OUT,   /* no answer to SYN, or the retransmission limit was reached (RFC 9293 3.8.3) */
    TCP_UNREACHABLE, /* ICMP said so before the connection was established, or no route or neighbour */
    TCP_ABORTED,     /* tcp_abort was called */
};
const char *tcp_error_text(enum tcp_error error);

/* What the layer above hears. Any of these may call back into tcp_send, tcp_close and tcp_abort of that connection. After `closed` the
 * stack forgets the connection: the pointer must not be used again. `closed` comes exactly once for each connection that tcp_connect
 * returned, never from inside tcp_connect, tcp_send or tcp_close themselves, but it may come from inside tcp_abort's caller's next
 * tcp_poll. */
struct tcp_events {
    void (*connected)(void *user, struct tcp_conn *conn, uint64_t now_us);
    /* In-order bytes, valid during the call. Returns how many were consumed; the stack keeps the rest (its receive buffer, which
     * closes the window) until tcp_receive_resume. */
    uint32_t (*received)(void *user, struct tcp_conn *conn, const uint8_t *bytes, uint32_t length, uint64_t now_us);
    void (*peer_closed)(void *user, struct tcp_conn *conn, uint64_t now_us);                  /* the peer's FIN, after all its bytes */
    void (*acknowledged)(void *user, struct tcp_conn *conn, uint32_t bytes, uint64_t now_us); /* send queue shrank by so many */
    void (*closed)(void *user, struct tcp_conn *conn, enum tcp_error error, uint64_t now_us);
    /* A listener's connection has become established. Returns the user of all its later events; NULL refuses it with RST, and `closed` does
     * not come. May call tcp_send. */
    void *(*accepted)(void *listener_user, struct tcp_conn *conn, uint64_t now_us);
};

enum tcp_congestion { TCP_CUBIC, TCP_NEWRENO };

/* Local ports in an order of their own, so that ports which mean the same to a device's hash lie together and the free ones of a class are
 * found by bitmap. `port_at` holds `count` ports, each once; index_of[port] is its place (65,536 entries; undefined for other ports). Lives
 * as long as the stack. */
struct tcp_port_map {
    const uint16_t *port_at, *index_of;
    uint32_t count;
};
/* Places [first, first + count) of a map. */
struct tcp_port_choice {
    const struct tcp_port_map *map;
    uint32_t first, count;
};

struct tcp_config {
    uint32_t max_connections;
    uint32_t max_segments_in_flight; /* pool of per-flight records shared by the connections; 0: a default from max_connections */
    uint32_t max_ranges;             /* pool of queued send ranges; 0: a default */
    uint32_t receive_buffer_bytes;   /* offered window, for each connection; SMTP replies need little: 16,384 */
    uint16_t mtu;                    /* of the device: the IPv4 MSS that we announce is mtu - 40 */
    uint16_t port_first, port_last;  /* local ports that this stack may use where choose_ports says nothing: shared with no other worker */
    uint32_t max_time_wait;          /* pool of TIME_WAIT records, the oldest goes first; 0: a default from max_connections */
    uint32_t max_receive_blocks;     /* pool of 2 KiB blocks for bytes out of order or not yet taken; 0: a default */
    uint64_t user_timeout_us;        /* unacknowledged for so long ends a connection (RFC 9293 3.8.3); 0: 100 s */
    uint64_t keepalive_us;           /* an established connection silent for so long is probed (RFC 9293 3.8.4); 0: never */
    uint32_t segmentation_bytes_max; /* the most payload that `transmit` takes at once where the device splits it (TSO); 0: a segment */
    enum tcp_congestion congestion;
    uint32_t max_half_open; /* handshakes of listeners not yet complete; 0: a default. The oldest goes first */
    uint8_t secret[16];     /* for initial sequence numbers (RFC 6528) and port choice (RFC 6056) */
    /* Gives a segment to the network. 0, or -EAGAIN when the device or the neighbour cannot take it now (the stack sends it again
     * by its own timers), or -EHOSTUNREACH (counts as an ICMP unreachable). */
    int (*transmit)(void *network, const struct tcp_segment *segment);
    /* May be NULL. Which local ports of this pair bring the replies to this worker's queue: the class number `attempt` (0, 1, ...) in the
     * order of `random`. False: no further class, and then, if none was given at all, [port_first, port_last] is used. */
    bool (*choose_ports)(void *network, const struct tcp_address *local, const struct tcp_address *remote, uint16_t remote_port,
                         uint64_t random, uint32_t attempt, struct tcp_port_choice *choice);
    /* May be NULL. A segment for no connection, TIME_WAIT record or listener of this stack: true when it went to the worker it belongs to,
     * and must not be answered. */
    bool (*unknown)(void *network, const struct tcp_packet *packet);
    void *network;
    struct tcp_events events;
};

struct tcp_counters {
    uint64_t connects, established, refused, resets_received, resets_sent, timeouts, segments_in, segments_out, bytes_in, bytes_out,
        retransmits_fast, retransmits_timeout, out_of_order, duplicates, bad_segments, no_connection, ports_exhausted, pool_exhausted,
        challenge_acks, time_wait, accepted, listen_dropped, tail_probes, spurious_recoveries, path_mtu_lowered, black_holes, keepalives;
};

/* Creates a stack with all its pools: nothing is allocated afterwards. NULL with errno ENOMEM or EINVAL. */
struct tcp_stack *tcp_stack_create(const struct tcp_config *config, uint64_t now_us);
/* Frees it; every connection ends without a word on the wire, every owner is released. */
void tcp_stack_destroy(struct tcp_stack *stack);
const struct tcp_counters *tcp_stack_counters(const struct tcp_stack *stack);
uint32_t tcp_stack_connections(const struct tcp_stack *stack);
size_t tcp_stack_memory_bytes(const struct tcp_stack *stack);

/* Records in use of each pool: all zero when no connection and no TIME_WAIT is left. */
struct tcp_usage {
    uint32_t connections, ranges, segments_in_flight, receive_blocks, time_wait, pairs, port_blocks;
};
void tcp_stack_usage(const struct tcp_stack *stack, struct tcp_usage *usage);
/* How many records each pool has, in use or not. */
void tcp_stack_capacity(const struct tcp_stack *stack, struct tcp_usage *capacity);

/* Active open (RFC 9293 3.5). The SYN leaves now. On success *conn is set and 0 returned; -EADDRNOTAVAIL when every local port of
 * this (source, destination) pair is in use, -ENOBUFS when the pools are full. `timeout_us` bounds the handshake. */
int tcp_connect(struct tcp_stack *stack, const struct tcp_address *local, const struct tcp_address *remote, uint16_t remote_port,
                uint64_t timeout_us, void *user, struct tcp_conn **conn, uint64_t now_us);

/* Passive open (RFC 9293 3.5): accepts on `port` of `local`, or of every address of that family when its bytes are zero. `user` goes to
 * `accepted`. 0; -EADDRINUSE; -ENOBUFS (TCP_LISTENERS_MAX); -EINVAL. */
int tcp_listen(struct tcp_stack *stack, const struct tcp_address *local, uint16_t port, void *user);

/* Unacknowledged for so long ends the connection, in the place of tcp_config.user_timeout_us; 0: that one again (RFC 9293 3.8.3). */
void tcp_set_user_timeout(struct tcp_conn *conn, uint64_t timeout_us);

/* Established, and neither side has ended its direction or reset it, as far as is known. */
bool tcp_is_open(const struct tcp_conn *conn);

/* Queues ranges for sending, all or none. The stack takes one reference for each piece that has an owner (pieces of one owner that continue
 * one another within a page are one). 0, -ENOBUFS (pool of ranges exhausted), -EPIPE (closed for sending). Bytes leave at the next
 * tcp_output or from timers and ACKs. */
int tcp_send(struct tcp_conn *conn, const struct tcp_piece *pieces, uint32_t count, uint64_t now_us);
/* Sends what windows allow now. `push` sets PSH on the last segment. */
void tcp_output(struct tcp_conn *conn, uint64_t now_us);
/* Bytes queued and not yet acknowledged, and of these the ones never transmitted. */
uint32_t tcp_unacknowledged(const struct tcp_conn *conn);
uint32_t tcp_unsent(const struct tcp_conn *conn);
/* Ends our direction after what is queued (FIN). Received bytes still come; a peer that has taken our FIN and then says nothing for
 * 60 s ends the connection with TCP_TIMED_OUT. Before the peer answered our SYN it ends at once, with TCP_ABORTED. */
void tcp_close(struct tcp_conn *conn, uint64_t now_us);
/* Ends it at once with RST; `closed` follows from tcp_poll with TCP_ABORTED. */
void tcp_abort(struct tcp_conn *conn, uint64_t now_us);
/* Takes again what `received` left (see there). */
void tcp_receive_resume(struct tcp_conn *conn, uint64_t now_us);
void tcp_endpoints(const struct tcp_conn *conn, struct tcp_address *local, uint16_t *local_port, struct tcp_address *remote,
                   uint16_t *remote_port);
/* Smoothed round-trip time, or 0 when none was measured. */
uint32_t tcp_rtt_us(const struct tcp_conn *conn);

/* May be called for each packet of a burst some four packets before its tcp_input: brings its connection's lines into the cache, in two
 * steps spread over these calls, and notes the hash in the packet. `header` must be in the cache already. */
void tcp_prefetch(struct tcp_stack *stack, struct tcp_packet *packet);
/* One segment in. A segment for no connection is answered with RST where RFC 9293 3.10.7.1 says so. */
void tcp_input(struct tcp_stack *stack, const struct tcp_packet *packet, uint64_t now_us);
/* An ICMP error about a segment that we sent (RFC 5927: ignored unless `sequence` is in flight). `hard` before establishment ends the
 * attempt with TCP_UNREACHABLE; afterwards it is only remembered (RFC 9293 3.9.2.2). mtu: the next hop's (RFC 1191, 8201; an old router's
 * message without one comes as 1), or 0 for an error of another kind. */
void tcp_input_error(struct tcp_stack *stack, const struct tcp_address *local, uint16_t local_port, const struct tcp_address *remote,
                     uint16_t remote_port, uint32_t sequence, bool hard, uint16_t mtu, uint64_t now_us);
/* Timers, delayed ACKs and queued `closed` events: at most `budget` of them. Returns when it wants to be called again (absolute, us), or
 * UINT64_MAX. */
uint64_t tcp_poll(struct tcp_stack *stack, uint32_t budget, uint64_t now_us);

#endif
