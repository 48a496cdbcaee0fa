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
    FLIGHT_SACKED = 0x10,   /* the peer holds it; neighbours of this kind are one record */
    FLIGHT_CUT = 0x20,      /* only its beginning was sent again, for want of a record for the rest, which is lost once that arrived */
};

/* What one call of `transmit` sent and is not acknowledged: a segment, or several that the device split. In the order of sequence numbers
 * by next and previous. By list_next and list_previous it lies on one of two other lists: `sent` in the order of transmission (RFC 8985
 * section 5.2), or `lost` in the order of sequence numbers; one that the peer holds lies on neither. */
struct tcp_flight {
    uint32_t sequence;
    uint32_t length;        /* payload bytes; a FIN adds one sequence number */
    uint32_t range, offset; /* where its first byte lies */
    uint32_t sent_us;       /* low bits of the clock at the last transmission */
    uint32_t next, previous;
    uint32_t list_next, list_previous;
    uint8_t flags;
};

/* Sequence numbers [left, right) as a SACK option names them. */
struct tcp_span {
    uint32_t left, right;
};
enum { TCP_SACK_SPANS = 4 /* as many as an option can hold (RFC 2018 section 3) */ };

/* How the bytes lie that came out of order; kept in the first of their blocks. */
struct tcp_order {
    uint32_t tail, hint; /* the last block, and the one that was last filled before it */
    uint32_t span_count;
    struct tcp_span spans[TCP_SACK_SPANS]; /* the most recent first (RFC 2018 section 4) */
};

/* Bytes received that the layer above has not taken, or that came out of order. */
enum { TCP_BLOCK_BYTES = 1992 };
struct tcp_block {
    uint32_t next;
    uint32_t sequence;
    uint16_t start, length;
    struct tcp_order order; /* of the first block only */
    uint8_t bytes[TCP_BLOCK_BYTES];
};
static_assert(sizeof(struct tcp_block) == 2048, "blocks lie side by side in pages");

enum tcp_loss_state {
    LOSS_OPEN,     /* nothing is known to be lost */
    LOSS_RECOVERY, /* fast recovery: RFC 6675 and 9937, without SACK RFC 6582 */
    LOSS_TIMEOUT,  /* after a retransmission timeout, until all that was in flight then is acknowledged */
};

/* What passes at retransmit_at while something is in flight (RFC 8985 section 8: one timer for all). */
enum tcp_loss_timer { LOSS_TIMER_RTO, LOSS_TIMER_PROBE, LOSS_TIMER_REORDER };

enum tcp_loss_flag {
    LOSS_SACK = 0x0001,           /* both sides agreed on it */
    LOSS_REORDERED = 0x0002,      /* the path was seen to reorder */
    LOSS_RACK = 0x0004,           /* rack_sent_us and rack_end hold */
    LOSS_DSACK_ROUND = 0x0008,    /* dsack_round holds */
    LOSS_PROBED = 0x0010,         /* a tail loss probe is out, up to probe_end */
    LOSS_PROBE_REPEATED = 0x0020, /* and it repeated bytes */
    LOSS_UNDO = 0x0040,           /* the last reduction can be undone: undo_* hold */
    LOSS_STAMPED = 0x0080,        /* something was sent again in this recovery, first at `stamp` */
    LOSS_FRTO = 0x0100,           /* the timeout may prove spurious (RFC 5682) */
    LOSS_CWND_LIMITED = 0x0200,   /* the congestion window held something back since the last ACK */
    LOSS_EPOCH = 0x0400,          /* CUBIC's epoch runs */
    LOSS_FRTO_NEW = 0x0800,       /* new segments go before lost ones, this once (RFC 5682 section 3.1 step 2b) */
};

/* Loss detection and recovery. The first part moves with every segment, the second only when something is wrong. */
struct tcp_loss {
    uint32_t sent_head, sent_tail; /* flights by time of transmission */
    uint32_t lost_head, lost_tail; /* flights to be sent again */
    uint32_t lost_cursor;          /* where the last one was put in */
    uint32_t sack_cursor;          /* the flight that the peer last said it holds */
    uint32_t high_acked;           /* the highest sequence number acknowledged in any way (RACK.fack) */
    uint32_t rack_sent_us, rack_end, rack_rtt_us;
    uint32_t min_rtt_us, min_rtt_at; /* the smallest of some minutes; since when, in 1.024 ms */
    uint32_t probe_end;
    uint16_t flags;
    uint8_t state, timer;
    uint8_t reorder_quarters, reorder_persist; /* RFC 8985 section 6.2 step 4: reo_wnd_mult, reo_wnd_persist */
    uint32_t dsack_round;
    uint32_t prr_flight, prr_delivered, prr_out; /* RFC 9937 */
    uint32_t undo_from, undo_bytes;              /* sent again since then, and not yet reported as duplicate */
    uint32_t undo_cwnd, undo_ssthresh, undo_peak;
    uint32_t stamp; /* TSval of the first retransmission */
};

/* RFC 9438. Times in 1/1024 s. */
struct tcp_cubic {
    uint64_t credit;        /* square bytes on the way to the next segment of cwnd */
    uint32_t epoch, active; /* in 1.024 ms: the beginning, moved on by pauses; and the last ACK */
    uint32_t plateau_at;    /* K */
    uint32_t origin;        /* cwnd at the plateau */
    uint32_t reno, reno_credit;
};
/* RFC 9406 */
struct tcp_hystart {
    uint32_t round_end, last_min_us, round_min_us, baseline_us;
    uint8_t samples, css_rounds;
    bool css;
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
    uint32_t arrived_bytes; /* what the peer holds out of order: by SACK, or an estimate from duplicate ACKs */
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
    uint8_t challenge_backoff; /* challenge ACKs since the peer last said something acceptable */
    uint64_t sent_us;          /* when a segment with data last left */
    uint32_t unacked_bytes;    /* received since our last ACK */
    uint32_t ts_recent;
    uint32_t heard; /* when an acceptable segment last came, in ticks */
    /* Line 3 and on: what moves rarely. */
    struct tcp_timer_link timer;
    uint64_t progress_us; /* when the peer last acknowledged something, or the first byte after a pause was sent */
    uint32_t challenge;   /* when the last challenge ACK went, in ticks */
    void *user;
    uint32_t recover, max_snd_wnd;
    uint32_t ts_offset, last_ack_sent;
    uint32_t block_head, block_count, backlog_bytes;
    uint32_t peer_fin, iss, irs;
    uint32_t refused_since, refused; /* text that was not acceptable: when the count began, in ticks, and how often it was answered */
    uint32_t rcv_mss;                /* largest payload that came: what a full segment is to the peer */
    uint32_t hash, hash_next;
    uint32_t ack_next, ack_previous;
    uint32_t closed_next;
    uint32_t pair;             /* TCP_NONE: the port is a listener's */
    uint32_t user_timeout_ms;  /* 0: the stack's */
    uint8_t error;             /* enum tcp_error, for `closed` */
    uint8_t keepalive_probes;  /* unanswered so far */
    uint8_t path_flags;        /* the path's MTU (tcp_path_mtu.c): enum tcp_path_flag */
    uint8_t path_timeouts;     /* timeouts in a row of segments that a smaller MTU would have split */
    uint16_t path_mtu;         /* 0: the device's */
    uint16_t peer_mss;         /* as announced */
    uint16_t passed_bytes;     /* payload of the largest segment acknowledged */
    uint32_t path_until;       /* path_mtu is believed until then, in ticks */
    struct tcp_span duplicate; /* bytes that came twice, for the next ACK (RFC 2883); left == right: none */
    struct tcp_loss loss;
    uint32_t cwnd_peak; /* CUBIC's W_max */
    union {
        struct tcp_cubic cubic;
        struct tcp_hystart hystart; /* in the first slow start: while ssthresh is UINT32_MAX */
        struct {
            uint32_t next, previous;
        } half; /* before it is established: a listener's handshakes, by age */
    } growth;
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
    uint32_t answered; /* when something was last answered, in ticks */
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

enum { TCP_AHEAD = 2 /* packets between the two steps of tcp_prefetch */ };
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
    uint32_t ahead[TCP_AHEAD]; /* hashes of the last packets of tcp_prefetch */
    uint32_t ahead_at;
};

#define SEQ_LT(a, b)  ((int32_t)((uint32_t)(a) - (uint32_t)(b)) < 0)
#define SEQ_LEQ(a, b) ((int32_t)((uint32_t)(a) - (uint32_t)(b)) <= 0)
#define SEQ_GT(a, b)  ((int32_t)((uint32_t)(a) - (uint32_t)(b)) > 0)
#define SEQ_GEQ(a, b) ((int32_t)((uint32_t)(a) - (uint32_t)(b)) >= 0)

/* Of what is rarely looked at, time is kept in ticks of 1.024 ms, which last 49 days. */
enum { TCP_TICK_SHIFT = 10 };
static inline uint32_t tcp_tick(uint64_t now_us) {
    return (uint32_t)(now_us >> TCP_TICK_SHIFT);
}

/* RFC 5961 section 7: what may come from a stranger, or from a peer that disagrees, is answered no more often than that. */
enum { TCP_CHALLENGE_TICKS = 100000 >> TCP_TICK_SHIFT };

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
/* How long ago it was sent. Its time may be a few microseconds ahead of the clock (tcp_flight.c). */
static inline uint32_t flight_age_us(const struct tcp_flight *flight, uint64_t now_us) {
    int32_t age_us = (int32_t)((uint32_t)now_us - flight->sent_us);
    return age_us > 0 ? (uint32_t)age_us : 0;
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

/* What one ACK told. */
struct tcp_ack {
    uint32_t number, before; /* the acknowledgement, and snd_una before it */
    uint32_t high_acked_before;
    uint32_t flight_before;    /* bytes in flight before */
    uint32_t delivered;        /* sequence space first acknowledged by it, in either way */
    uint32_t sacked;           /* of this by SACK */
    uint32_t sample_us;        /* a valid round trip (RFC 6298 section 3), or 0 */
    uint32_t sacked_sample_us; /* the same of what a SACK block told */
    uint32_t echo;             /* TSecr, if has_echo */
    bool has_echo;
    bool advanced;  /* new data acknowledged */
    bool duplicate; /* as RFC 5681 section 2 defines it, without regard to SACK */
    bool repeated;  /* covers what was sent more than once */
    bool late;      /* and answers a copy from before this recovery */
    bool original;  /* covers what was taken for lost, and not sent again */
    bool dsack;
    struct tcp_span dsacked;
    bool undo; /* everything that was sent again arrived twice */
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
void tcp_path_mtu_proven(struct tcp_conn *conn, uint64_t now_us);
void tcp_path_mtu_raise(struct tcp_conn *conn);
static inline void tcp_path_mtu_age(struct tcp_conn *conn, uint64_t now_us) {
    if (conn->path_mtu != 0 && (int32_t)(tcp_tick(now_us) - conn->path_until) >= 0) {
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

/* tcp_flight.c: what is in flight */
/* A record from the pool as the last in flight; the caller has filled what is not a link. */
void tcp_flight_append(struct tcp_conn *conn, uint32_t flight);
/* It was given to the network again. */
void tcp_flight_sent_again(struct tcp_conn *conn, uint32_t flight, uint64_t now_us);
void tcp_flight_mark_lost(struct tcp_conn *conn, uint32_t flight);
/* Whatever is marked lost is in the network after all, unless it was too large for the path. */
void tcp_flight_unmark_lost(struct tcp_conn *conn);
/* The peer holds it. Returns the record that it is part of afterwards. */
uint32_t tcp_flight_mark_sacked(struct tcp_conn *conn, uint32_t flight);
/* Believes no SACK any more: everything is lost (RFC 2018 section 8). */
void tcp_flight_renege(struct tcp_conn *conn);
/* Cuts a flight: `bytes` of payload (fewer than it has) stay, the rest is a flight after it with the same history. False when the pool has
 * no record to spare. */
bool tcp_flight_split(struct tcp_conn *conn, uint32_t flight, uint32_t bytes);
/* Takes off what the acknowledgement covers, and notes it in `ack`. */
void tcp_flight_drop(struct tcp_conn *conn, struct tcp_ack *ack, uint64_t now_us);
void tcp_flight_release(struct tcp_conn *conn);

/* tcp_sack.c */
/* Enters the peer's SACK blocks into the scoreboard; before the cumulative acknowledgement is. */
void tcp_sack_take(struct tcp_conn *conn, const struct tcp_options *options, struct tcp_ack *ack, uint64_t now_us);

/* tcp_rack.c: RFC 8985 */
/* A flight was acknowledged in any way. */
void tcp_rack_update(struct tcp_conn *conn, const struct tcp_flight *flight, struct tcp_ack *ack, uint64_t now_us);
/* Marks lost what should have been acknowledged by now. Returns after how many us to look again, or 0. */
uint32_t tcp_rack_detect(struct tcp_conn *conn, uint64_t now_us);
/* The reordering window after an ACK with a D-SACK (section 6.2 step 4). */
void tcp_rack_duplicate(struct tcp_conn *conn, const struct tcp_ack *ack);
/* A recovery has ended: the widened window wears off. */
void tcp_rack_recovered(struct tcp_conn *conn);
/* The answer to a tail loss probe (section 7.4). */
void tcp_rack_probe_answer(struct tcp_conn *conn, const struct tcp_ack *ack);
/* The probe timeout has passed. */
void tcp_rack_probe(struct tcp_conn *conn, uint64_t now_us);
/* After how many us a tail loss probe is due, or 0 for none. */
uint32_t tcp_rack_probe_after(const struct tcp_conn *conn);

/* tcp_recovery.c */
void tcp_recovery_start(struct tcp_conn *conn);
/* An ACK was entered: detects losses, enters, goes on with and leaves recovery, moves the windows and the timer. */
void tcp_recovery_ack(struct tcp_conn *conn, struct tcp_ack *ack, uint64_t now_us);
/* The retransmission timer has passed: marks what is lost. */
void tcp_recovery_timeout(struct tcp_conn *conn, uint64_t now_us);
/* The reordering timer has passed. */
void tcp_recovery_reorder(struct tcp_conn *conn, uint64_t now_us);
/* A segment with this sequence space left; `repeats` bytes that left before. */
void tcp_recovery_sent(struct tcp_conn *conn, uint32_t space, bool repeats, uint64_t now_us);
/* Sets the timer for what is in flight (RFC 6298 section 5, RFC 8985 section 7.2); `rto_from_us`: what the RTO counts from. */
void tcp_recovery_arm(struct tcp_conn *conn, uint64_t rto_from_us, uint64_t now_us);
/* When the oldest flight was sent. */
uint64_t tcp_recovery_oldest(const struct tcp_conn *conn, uint64_t now_us);

/* tcp_output.c */
void tcp_output_run(struct tcp_conn *conn, uint64_t now_us);
/* Sends a flight again: what of it fits one transmission, in which case it is cut there. */
int tcp_output_flight(struct tcp_conn *conn, uint32_t flight, uint64_t now_us);
/* A tail loss probe: a new segment, or the last one again (RFC 8985 section 7.3). 0 with *repeats, or -errno. */
int tcp_output_tail(struct tcp_conn *conn, bool *repeats, uint64_t now_us);
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
uint64_t tcp_keepalive_next(const struct tcp_conn *conn, uint64_t now_us);
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
/* Blocks that one connection may hold. */
uint32_t tcp_receive_blocks_max(const struct tcp_config *config);
/* An ACK is owed, and may wait (RFC 5681 section 4.2). */
void tcp_receive_ack_later(struct tcp_conn *conn, uint64_t now_us);
/* Bytes came again that were here already: the next ACK says so (RFC 2883). */
void tcp_receive_duplicate(struct tcp_conn *conn, uint32_t left, uint32_t right, uint64_t now_us);
/* What a SACK option says now; returns how many of `max` spans. */
uint32_t tcp_receive_spans(const struct tcp_conn *conn, struct tcp_span *spans, uint32_t max);
uint32_t tcp_receive_room(const struct tcp_conn *conn);

/* tcp_congestion.c */
void tcp_congestion_start(struct tcp_conn *conn);
uint32_t tcp_congestion_pipe(const struct tcp_conn *conn);
void tcp_congestion_sample(struct tcp_conn *conn, uint32_t rtt_us);
/* One that is exact, not from an echo: for the smallest round trip and for slow start. */
void tcp_congestion_exact_sample(struct tcp_conn *conn, uint32_t rtt_us, uint64_t now_us);
/* Bytes were delivered, `flight_before` were in flight before. */
void tcp_congestion_grow(struct tcp_conn *conn, uint32_t delivered, uint32_t flight_before, uint64_t now_us);
/* Something was lost: remembers the windows for tcp_congestion_undo and sets ssthresh. */
void tcp_congestion_reduce(struct tcp_conn *conn);
void tcp_congestion_undo(struct tcp_conn *conn);
void tcp_congestion_restart(struct tcp_conn *conn, uint64_t now_us);

/* tcp_cubic.c: RFC 9438 */
void tcp_cubic_grow(struct tcp_conn *conn, uint32_t delivered, uint64_t now_us);
/* The connection was idle, or limited by something else than the congestion window: the epoch does not count that time (section 5.8). */
void tcp_cubic_pause(struct tcp_conn *conn, uint64_t now_us);
/* Remembers W_max with fast convergence (section 4.7); returns ssthresh (section 4.6). */
uint32_t tcp_cubic_reduce(struct tcp_conn *conn);
uint32_t tcp_cubic_root(uint64_t value);

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
