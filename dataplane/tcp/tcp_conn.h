/* tcp_conn.h: private to the room. One connection, its send queue (ranges of bytes) and what is in flight (a record a segment), the
 * stack that holds them, and what the files of the room call of each other. */
#ifndef DATAPLANE_TCP_TCP_CONN_H
#define DATAPLANE_TCP_TCP_CONN_H

#include "dataplane/tcp/tcp.h"
#include "tcp_hash.h"
#include "tcp_options.h"
#include "tcp_pool.h"
#include "tcp_ports.h"
#include "tcp_timer.h"

enum tcp_state {
    TCP_STATE_FREE,   /* not a connection: in the pool */
    TCP_STATE_CLOSED, /* over; `closed` follows from tcp_poll */
    TCP_STATE_SYN_SENT,
    TCP_STATE_SYN_RECEIVED, /* by a listener, or by simultaneous open (RFC 9293 3.5) */
    TCP_STATE_ESTABLISHED,
    TCP_STATE_FIN_WAIT_1,
    TCP_STATE_FIN_WAIT_2,
    TCP_STATE_CLOSE_WAIT,
    TCP_STATE_CLOSING,
    TCP_STATE_LAST_ACK,
    TCP_STATE_TIME_WAIT, /* only while the layer above has not taken all bytes; afterwards a struct tcp_time_wait */
};

enum tcp_conn_flag {
    CONN_FIN_QUEUED = 0x0001, /* tcp_close was called */
    CONN_FIN_SENT = 0x0002,
    CONN_PEER_FIN = 0x0004,       /* a FIN was seen; peer_fin is its sequence number */
    CONN_PEER_FIN_TAKEN = 0x0008, /* it is in order and counted in rcv_nxt */
    CONN_PEER_FIN_TOLD = 0x0010,  /* peer_closed was called */
    CONN_ACK_PENDING = 0x0020,
    CONN_ACK_LISTED = 0x0040,
    CONN_RECOVERY = 0x0080,   /* fast recovery (RFC 6582) */
    CONN_DELIVERING = 0x0100, /* inside `received` */
    CONN_RESUME = 0x0200,     /* tcp_receive_resume was called inside `received` */
    CONN_TIMESTAMPS = 0x0400,
    CONN_SYN_REPEATED = 0x0800,
    CONN_SCALING = 0x2000,    /* both sides scale windows */
    CONN_SOFT_ERROR = 0x1000, /* ICMP said that the peer cannot be reached for now */
    CONN_EMBRYO = 0x4000,     /* of a listener, and the layer above has not accepted it: `user` is the listener */
};

/* A stretch of queued bytes; one reference of the owner. */
struct tcp_range {
    const uint8_t *bytes;
    struct tcp_owner *owner;
    uint32_t length;
    uint32_t next;
};

enum tcp_path_flag {
    PATH_MAY_FRAGMENT = 0x01,
    PATH_SUSPECT = 0x02, /* lowered because nothing came back, and nothing has yet */
};

enum tcp_flight_flag {
    FLIGHT_FIN = 0x01,
    FLIGHT_LOST = 0x02,     /* to be sent again */
    FLIGHT_REPEATED = 0x04, /* was sent more than once: no round-trip sample from it (RFC 6298 section 3) */
    FLIGHT_PROBE = 0x08,    /* an octet beyond a closed window (RFC 9293 3.8.6.1) */
};

/* One segment in flight. SACK, RACK-TLP and pacing read and mark these. */
struct tcp_flight {
    uint32_t sequence;
    uint32_t range, offset; /* where its first byte lies */
    uint32_t sent_us;       /* low bits of the clock at the last transmission */
    uint32_t next;
    uint16_t length; /* payload bytes; a FIN adds one sequence number */
    uint8_t flags;
};

/* Bytes received that the layer above has not taken, or that came out of order. */
enum { TCP_BLOCK_BYTES = 2032 };
struct tcp_block {
    uint32_t next;
    uint32_t sequence;
    uint16_t start, length;
    uint32_t unused;
    uint8_t bytes[TCP_BLOCK_BYTES];
};

struct tcp_conn {
    /* Line 0: what every segment in or out touches. */
    struct tcp_stack *stack;
    uint8_t local[16], remote[16];
    uint16_t local_port, remote_port;
    uint8_t family, state;
    uint16_t flags;
    uint32_t snd_una, snd_nxt, snd_wnd;
    uint32_t rcv_nxt;
    /* Line 1: sending and the window. */
    uint32_t snd_end; /* the sequence number after the last queued byte */
    uint32_t snd_wl1, snd_wl2;
    uint32_t rcv_adv; /* right edge of the window that we offered; never moves left */
    uint32_t cwnd, ssthresh;
    uint32_t lost_bytes;    /* sequence space of flights marked lost */
    uint32_t arrived_bytes; /* estimate from duplicate ACKs of what the peer holds out of order */
    uint32_t range_head, range_tail, head_offset;
    uint32_t unsent_range, unsent_offset; /* first byte never sent; TCP_NONE when all were */
    uint32_t flight_head, flight_tail;
    uint16_t mss; /* payload bytes a segment, options already taken off */
    uint8_t snd_shift, rcv_shift;
    /* Line 2: time. */
    uint64_t retransmit_at; /* RTO, SYN or persist timer */
    uint64_t ack_at, retry_at, limit_at;
    uint32_t srtt_us, rttvar_us; /* srtt 0: no sample */
    uint32_t rto_us;             /* without backoff */
    uint8_t backoff, dup_acks, syn_retries;
    uint64_t sent_us;       /* when a segment with data last left */
    uint32_t unacked_bytes; /* received since our last ACK */
    uint32_t ts_recent;
    uint64_t heard_us; /* when an acceptable segment last came */
    /* Line 3 and on: what moves rarely. */
    struct tcp_timer_link timer;
    uint64_t progress_us; /* when the peer last acknowledged something, or the first byte after a pause was sent */
    uint64_t challenge_us;
    void *user;
    uint32_t recover, cwnd_credit, max_snd_wnd;
    uint32_t ts_offset, last_ack_sent;
    uint32_t block_head, block_count, backlog_bytes;
    uint32_t peer_fin, iss;
    uint32_t rcv_mss; /* largest payload that came: what a full segment is to the peer */
    uint32_t hash, hash_next;
    uint32_t ack_next, ack_previous;
    uint32_t closed_next;
    uint32_t half_next, half_previous; /* handshakes of listeners, by age */
    uint32_t pair;                     /* TCP_NONE: the port is a listener's */
    uint8_t error; /* enum tcp_error, for `closed` */
    /* The path's MTU (tcp_path_mtu.c). */
    uint8_t path_flags, path_timeouts; /* timeouts in a row of segments that a smaller MTU would have split */
    uint16_t path_mtu;                 /* 0: the device's */
    uint16_t peer_mss;                 /* as announced */
    uint16_t passed_bytes;             /* payload of the largest segment acknowledged */
    uint64_t path_until_us;            /* path_mtu is believed until then */
    uint32_t user_timeout_ms;          /* 0: the stack's */
    uint8_t keepalive_probes;          /* unanswered so far */
};
static_assert(offsetof(struct tcp_conn, snd_end) == 64, "line 0 holds what every segment touches");
static_assert(offsetof(struct tcp_conn, retransmit_at) == 128, "line 1 holds sending");
static_assert(sizeof(struct tcp_conn) <= 512, "an idle session fits 1 KiB with SMTP's part");

/* What is left of a connection for 2 MSL (RFC 9293 3.6.1). Addresses and the other port are in its pair. */
struct tcp_time_wait {
    uint32_t pair;
    uint32_t hash;
    uint16_t port; /* the local one; of a turned pair the remote one */
    uint8_t timestamps;
    uint32_t snd_nxt, rcv_nxt;
    uint32_t ts_recent, ts_offset;
    uint32_t hash_next;
    uint32_t next, previous;           /* by age, over the stack */
    uint32_t pair_next, pair_previous; /* by age, within the pair */
    uint64_t since_us;
};
static_assert(sizeof(struct tcp_time_wait) <= 64, "TIME_WAIT is a cache line at most");

/* What was learned of a destination. */
struct tcp_path {
    uint8_t remote[16];
    uint64_t until_us;
    uint16_t mtu;
    uint8_t family;
    bool may_fragment;
};
struct tcp_paths {
    struct tcp_path *items;
    uint64_t until_us; /* of the last to be forgotten */
};

struct tcp_listener {
    uint8_t local[16];
    void *user;
    uint16_t port, next;
    uint8_t family;
    bool any; /* every address of the family */
};

enum { TCP_LISTENER_HEADS = 256, TCP_NO_LISTENER = UINT16_MAX };
struct tcp_listeners {
    struct tcp_listener *items;
    uint32_t count;
    uint16_t heads[TCP_LISTENER_HEADS];
    uint32_t half_open, half_oldest, half_newest; /* handshakes not yet complete */
};

struct tcp_stack {
    struct tcp_config config;
    struct tcp_counters counters;
    struct tcp_pool conns, ranges, flights, blocks, waits;
    uint32_t *conn_heads, *wait_heads;
    uint32_t conn_mask, wait_mask;
    struct tcp_hash_key table_key, isn_key, clock_key, random_key;
    uint64_t random_count;
    struct tcp_ports ports;
    struct tcp_listeners listeners;
    struct tcp_paths paths;
    struct tcp_wheel wheel;
    uint32_t ack_head;
    uint32_t closed_head, closed_tail;
    uint32_t wait_oldest, wait_newest;
    uint8_t rcv_shift;
    size_t memory_bytes;
};

#define SEQ_LT(a, b)  ((int32_t)((uint32_t)(a) - (uint32_t)(b)) < 0)
#define SEQ_LEQ(a, b) ((int32_t)((uint32_t)(a) - (uint32_t)(b)) <= 0)
#define SEQ_GT(a, b)  ((int32_t)((uint32_t)(a) - (uint32_t)(b)) > 0)
#define SEQ_GEQ(a, b) ((int32_t)((uint32_t)(a) - (uint32_t)(b)) >= 0)

static inline uint32_t tcp_min(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}
static inline uint32_t tcp_max(uint32_t a, uint32_t b) {
    return a > b ? a : b;
}

static inline struct tcp_conn *conn_at(const struct tcp_stack *stack, uint32_t index) {
    return (struct tcp_conn *)(void *)stack->conns.items + index;
}
static inline uint32_t conn_index(const struct tcp_conn *conn) {
    return (uint32_t)(conn - (const struct tcp_conn *)(const void *)conn->stack->conns.items);
}
static inline struct tcp_range *range_at(const struct tcp_stack *stack, uint32_t index) {
    return (struct tcp_range *)(void *)stack->ranges.items + index;
}
static inline struct tcp_flight *flight_at(const struct tcp_stack *stack, uint32_t index) {
    return (struct tcp_flight *)(void *)stack->flights.items + index;
}
static inline struct tcp_block *block_at(const struct tcp_stack *stack, uint32_t index) {
    return (struct tcp_block *)(void *)stack->blocks.items + index;
}
static inline struct tcp_time_wait *wait_at(const struct tcp_stack *stack, uint32_t index) {
    return (struct tcp_time_wait *)(void *)stack->waits.items + index;
}
static inline uint32_t flight_space(const struct tcp_flight *flight) {
    return flight->length + (flight->flags & FLIGHT_FIN ? 1U : 0U);
}
static inline bool conn_synchronized(const struct tcp_conn *conn) {
    return conn->state >= TCP_STATE_ESTABLISHED;
}
/* Our direction still carries bytes or a FIN that are not acknowledged. */
static inline bool conn_sends(const struct tcp_conn *conn) {
    return conn->state >= TCP_STATE_ESTABLISHED && conn->state != TCP_STATE_FIN_WAIT_2 && conn->state != TCP_STATE_TIME_WAIT;
}

enum { TCP_HEADERS_V4 = 40, TCP_HEADERS_V6 = 60 }; /* IP and TCP, without options */
enum { TCP_TIMESTAMP_SHIFT = 10 };                 /* our clock's tick is 1.024 ms: within RFC 7323 5.4 */

/* The last quarter of the pools of ranges and flights is for connections that have none: peers that take small segments and acknowledge
 * nothing cannot stop the others. */
enum { TCP_RESERVE_SHIFT = 2 };

/* A parsed segment. */
struct tcp_incoming {
    uint32_t sequence, acknowledgement, window;
    uint8_t flags;
    const uint8_t *payload;
    uint32_t length;
    struct tcp_options options;
};

/* tcp_stack.c */
/* One hash of a connection's name serves the tables of connections and of TIME_WAIT records. */
uint32_t tcp_stack_hash(const struct tcp_stack *stack, const uint8_t local[16], const uint8_t remote[16], uint8_t family,
                        uint16_t local_port, uint16_t remote_port);
uint32_t tcp_stack_find(const struct tcp_stack *stack, uint32_t hash, const uint8_t local[16], const uint8_t remote[16], uint8_t family,
                        uint16_t local_port, uint16_t remote_port);
/* By conn->hash. */
void tcp_stack_insert(struct tcp_stack *stack, struct tcp_conn *conn);
void tcp_stack_remove(struct tcp_stack *stack, struct tcp_conn *conn);
uint64_t tcp_stack_random(struct tcp_stack *stack);

/* tcp_listen.c */
int tcp_listen_create(struct tcp_listeners *listeners);
void tcp_listen_destroy(struct tcp_listeners *listeners);
/* The listener for a segment to this address and port, or NULL. */
struct tcp_listener *tcp_listen_find(const struct tcp_stack *stack, const uint8_t local[16], uint8_t family, uint16_t port);
/* A SYN for it (RFC 9293 3.10.7.2). The new initial sequence number exceeds `after` where that is not 0. */
void tcp_listen_syn(struct tcp_stack *stack, struct tcp_listener *listener, const struct tcp_packet *packet, const struct tcp_incoming *in,
                    uint32_t hash, uint16_t remote_port, uint32_t after, uint64_t now_us);
/* The handshake is complete: asks the layer above. False when it refused, and the connection is over. */
bool tcp_listen_accept(struct tcp_conn *conn, uint64_t now_us);
/* The handshake is no longer under way. */
void tcp_listen_unlink(struct tcp_conn *conn);
/* Gives the oldest handshake up, to make room. False when there is none. */
bool tcp_listen_evict(struct tcp_stack *stack);

/* tcp_path_mtu.c */
int tcp_path_mtu_create(struct tcp_paths *paths);
void tcp_path_mtu_destroy(struct tcp_paths *paths);
size_t tcp_path_mtu_memory_bytes(void);
/* A new connection begins with what is known of its destination. */
void tcp_path_mtu_start(struct tcp_conn *conn, uint64_t now_us);
/* Sets mss from the peer's, the path's and the device's limits. */
void tcp_path_mtu_apply(struct tcp_conn *conn);
/* A router says that the segment with this sequence number is too large (RFC 1191, 8201); 1: it does not say for what. */
void tcp_path_mtu_error(struct tcp_conn *conn, uint32_t sequence, uint32_t mtu, uint64_t now_us);
/* The retransmission timer fired for a segment of `length` bytes: a black hole, perhaps (RFC 4821 section 7.7). */
void tcp_path_mtu_timeout(struct tcp_conn *conn, uint32_t length, uint64_t now_us);
/* New data was acknowledged after path_timeouts or in doubt. */
void tcp_path_mtu_proven(struct tcp_conn *conn);
void tcp_path_mtu_raise(struct tcp_conn *conn);
static inline void tcp_path_mtu_age(struct tcp_conn *conn, uint64_t now_us) {
    if (conn->path_mtu != 0 && now_us >= conn->path_until_us) {
        tcp_path_mtu_raise(conn);
    }
}

/* tcp_conn.c */
/* A new connection in the table, its state not yet entered. NULL when the pool is empty. */
struct tcp_conn *tcp_conn_create(struct tcp_stack *stack, const struct tcp_address *local, const struct tcp_address *remote,
                                 uint16_t local_port, uint16_t remote_port, uint32_t hash, uint32_t after, uint64_t timeout_us,
                                 uint64_t now_us);
/* The one place where the state changes. */
void tcp_conn_enter(struct tcp_conn *conn, enum tcp_state state);
/* Ends the connection: off the table and the timers; `closed` follows from tcp_poll. */
void tcp_conn_end(struct tcp_conn *conn, enum tcp_error error);
/* Both FINs are through: ends it, into TIME_WAIT where that is due, once the layer above has taken every byte. */
void tcp_conn_finish(struct tcp_conn *conn, uint64_t now_us);
/* Our FIN is acknowledged and the peer's has not come: it is waited for, but not for ever. */
void tcp_conn_half_closed(struct tcp_conn *conn, uint64_t now_us);
void tcp_conn_established(struct tcp_conn *conn, uint64_t now_us);
void tcp_conn_options(struct tcp_conn *conn, const struct tcp_options *options);
/* Calls `closed` and gives the records back. */
uint32_t tcp_conn_reap(struct tcp_stack *stack, uint32_t budget, uint64_t now_us);
void tcp_conn_release(struct tcp_conn *conn);

/* tcp_queue.c */
/* Fills `pieces` from (range, offset), which move on; returns the bytes gathered, fewer than `length` when the pieces run out. */
uint32_t tcp_queue_gather(const struct tcp_stack *stack, uint32_t *range, uint32_t *offset, uint32_t length, struct tcp_piece *pieces,
                          uint8_t *piece_count);
void tcp_queue_drop_bytes(struct tcp_conn *conn, uint32_t bytes);
/* Moves a place in the queue forward; a range of TCP_NONE is the end. */
void tcp_queue_advance(const struct tcp_stack *stack, uint32_t *range, uint32_t *offset, uint32_t bytes);
/* Takes off what `ack` covers; *sample_us is a valid round-trip sample or 0 (RFC 6298 section 3). */
void tcp_queue_drop_flights(struct tcp_conn *conn, uint32_t ack, uint64_t now_us, uint32_t *sample_us);
void tcp_queue_mark_lost(struct tcp_conn *conn, struct tcp_flight *flight);
/* Makes two of a flight: it keeps its first `bytes`, the next one is the rest and has its flags. False when no record is left. */
bool tcp_queue_split(struct tcp_conn *conn, uint32_t flight, uint32_t bytes);

/* tcp_output.c */
void tcp_output_run(struct tcp_conn *conn, uint64_t now_us);
int tcp_output_flight(struct tcp_conn *conn, uint32_t flight, uint64_t now_us);
/* Bytes or a FIN were never sent. */
bool tcp_output_waits(const struct tcp_conn *conn);
/* Sends what fits a window that silly window avoidance held back, or one octet beyond a closed one. */
void tcp_output_probe(struct tcp_conn *conn, uint64_t now_us);
void tcp_output_syn(struct tcp_conn *conn, uint64_t now_us);
/* What TSval says now. */
uint32_t tcp_output_timestamp(const struct tcp_conn *conn, uint64_t now_us);
void tcp_output_ack(struct tcp_conn *conn, uint64_t now_us);
/* An ACK from a number that the peer has seen, which it must answer (RFC 9293 3.8.4). */
void tcp_output_keepalive(struct tcp_conn *conn, uint64_t now_us);
/* An ACK in doubt of what came (RFC 5961), limited in rate. */
void tcp_output_challenge(struct tcp_conn *conn, uint64_t now_us);
void tcp_output_reset(struct tcp_conn *conn, uint64_t now_us);
/* Room between what we offered and what we could offer is worth an ACK of its own (RFC 9293 3.8.6.2.2). */
bool tcp_output_window_grew(const struct tcp_conn *conn);
/* An ACK is due at the next tcp_poll, unless a segment carries it before. */
void tcp_output_list_ack(struct tcp_conn *conn);
void tcp_output_unlist_ack(struct tcp_conn *conn);
void tcp_output_flush_acks(struct tcp_stack *stack, uint64_t now_us);
void tcp_output_raw(struct tcp_stack *stack, const uint8_t local[16], const uint8_t remote[16], uint8_t family, uint16_t local_port,
                    uint16_t remote_port, uint32_t sequence, uint32_t acknowledgement, uint8_t flags, const uint8_t *options,
                    uint8_t options_length);
static inline uint64_t tcp_output_rto(const struct tcp_conn *conn, uint32_t backoff) {
    enum { RTO_MAX_US = 60 * 1000 * 1000, BACKOFF_MAX = 12 };
    uint64_t rto = (uint64_t)conn->rto_us << (backoff > BACKOFF_MAX ? BACKOFF_MAX : backoff);
    return rto > RTO_MAX_US ? RTO_MAX_US : rto;
}

/* tcp_keepalive.c */
/* When the connection is to be probed or given up for its silence, or TCP_NEVER. */
uint64_t tcp_keepalive_next(const struct tcp_conn *conn);
void tcp_keepalive_expire(struct tcp_conn *conn, uint64_t now_us);
static inline uint64_t tcp_conn_user_timeout(const struct tcp_conn *conn) {
    return conn->user_timeout_ms != 0 ? conn->user_timeout_ms * 1000ULL : conn->stack->config.user_timeout_us;
}

/* tcp_expire.c: the deadlines of a connection */
void tcp_expire(struct tcp_conn *conn, uint64_t now_us);

/* tcp_receive.c */
/* Takes a segment's text and FIN that begin within or before the window. */
void tcp_receive(struct tcp_conn *conn, uint32_t sequence, const uint8_t *bytes, uint32_t length, bool fin, uint64_t now_us);
void tcp_receive_drop(struct tcp_conn *conn);
uint32_t tcp_receive_room(const struct tcp_conn *conn);

/* tcp_congestion.c */
void tcp_congestion_start(struct tcp_conn *conn);
uint32_t tcp_congestion_pipe(const struct tcp_conn *conn);
void tcp_congestion_sample(struct tcp_conn *conn, uint32_t rtt_us);
void tcp_congestion_acked(struct tcp_conn *conn, uint32_t acked, uint32_t flight_before, uint64_t now_us);
void tcp_congestion_duplicate(struct tcp_conn *conn, uint64_t now_us);
void tcp_congestion_timeout(struct tcp_conn *conn);
void tcp_congestion_restart(struct tcp_conn *conn, uint64_t now_us);

/* tcp_time_wait.c */
/* Turns a connection that is over into a record, which then owns its port. */
void tcp_time_wait_enter(struct tcp_conn *conn, uint64_t now_us);
enum tcp_time_wait_answer {
    TIME_WAIT_NONE,     /* no record of this name */
    TIME_WAIT_ANSWERED, /* nothing is left to do */
    TIME_WAIT_REOPENED, /* a SYN of a new connection (RFC 6191): the record is gone, the initial sequence number must exceed *after */
};
/* A segment for no connection. `listens`: somebody accepts connections on its port. Options were parsed. */
enum tcp_time_wait_answer tcp_time_wait_input(struct tcp_stack *stack, const struct tcp_packet *packet, const struct tcp_incoming *in,
                                              uint32_t hash, uint16_t local_port, uint16_t remote_port, bool listens, uint32_t *after,
                                              uint64_t now_us);
/* Frees the oldest record of the pair if a new connection may safely use its port (RFC 6191): true with *port and what the
 * new initial sequence number must exceed. The port stays taken. */
bool tcp_time_wait_reuse(struct tcp_stack *stack, uint32_t pair, uint64_t now_us, uint16_t *port, uint32_t *after);
uint32_t tcp_time_wait_expire(struct tcp_stack *stack, uint32_t budget, uint64_t now_us);
uint64_t tcp_time_wait_next(const struct tcp_stack *stack);

#endif
