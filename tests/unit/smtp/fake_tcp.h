/* fake_tcp.h: a stand-in for the TCP room with the same functions: perfect, instant, and obedient to the test. It counts the references of
 * owners as the real one does, and lets the test see each byte at the moment it is handed over. */
#ifndef TESTS_UNIT_SMTP_FAKE_TCP_H
#define TESTS_UNIT_SMTP_FAKE_TCP_H

#include "dataplane/tcp/tcp.h"

enum { FAKE_CONNS_MAX = 64, FAKE_RANGES_MAX = 4096, FAKE_WIRE_BYTES = 1 << 20, FAKE_HELD_BYTES = 1 << 16 };

enum fake_state { FAKE_FREE, FAKE_CONNECTING, FAKE_OPEN };

struct tcp_conn {
    struct tcp_stack *stack;
    enum fake_state state;
    void *user;
    struct tcp_address local, remote;
    uint16_t port;
    struct tcp_piece ranges[FAKE_RANGES_MAX]; /* queued and not acknowledged */
    uint32_t range_count, left_count;         /* left_count: of them, those that left */
    uint32_t unsent, unacknowledged;
    uint8_t wire[FAKE_WIRE_BYTES]; /* what left and the server has not read */
    uint32_t wire_length;
    bool fin_sent, peer_fin, aborted, closing;
    enum tcp_error error;
    uint8_t held[FAKE_HELD_BYTES]; /* arrived and not taken */
    uint32_t held_length;
    bool fin_held; /* peer_fin is to be told behind them */
    void *server;  /* the test's */
};

struct tcp_stack {
    struct tcp_events events;
    struct tcp_conn conns[FAKE_CONNS_MAX];
    int connect_error;           /* what tcp_connect answers */
    uint32_t send_refusals;      /* so many tcp_send say -ENOBUFS */
    uint32_t window;             /* bytes that may be unacknowledged and have left; 0: no bound */
    uint32_t acknowledge_ranges; /* fake_acknowledge takes at most so many ranges; 0: all */
    bool reaps_later;            /* `closed` waits, as for a poll with other things to do */
    uint32_t connects, sends;
    /* Sees the pieces as they are handed over. */
    void (*on_send)(void *context, struct tcp_conn *conn, const struct tcp_piece *pieces, uint32_t count);
    void *context;
};

/* The handshake ends well, or with an error. */
void fake_establish(struct tcp_conn *conn, uint64_t now_us);
void fake_end(struct tcp_conn *conn, enum tcp_error error, uint64_t now_us);
/* Bytes from the peer. What the layer above leaves is held until tcp_receive_resume. */
void fake_deliver(struct tcp_conn *conn, const uint8_t *bytes, uint32_t length, uint64_t now_us);
/* Acknowledges what left. */
void fake_acknowledge(struct tcp_conn *conn, uint64_t now_us);
/* The peer's FIN. */
void fake_peer_fin(struct tcp_conn *conn, uint64_t now_us);
/* Connections that ended are told so, as tcp_poll does. Returns how many. */
uint32_t fake_reap(struct tcp_stack *stack, uint64_t now_us);

#endif
