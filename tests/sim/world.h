/* world.h: one seed's world: hosts, connections between them, and what all of it adds up to. */
#ifndef TESTS_SIM_WORLD_H
#define TESTS_SIM_WORLD_H

#include "checker.h"
#include "dataplane/tcp/tcp.h"
#include "model_peer.h"
#include "random.h"
#include "wire.h"

enum {
    LINKS_MAX = 10,
    STREAM_MAX = 400 * 1000,
    STREAM_SKEW = 4099, /* a connection's stream begins elsewhere than its neighbour's, so that bytes of another are seen */
    WORLD_MTU = 1500,
};
#define NEVER UINT64_MAX

struct world;
struct link;

struct host {
    struct world *world;
    struct tcp_stack *stack; /* NULL: only models live here */
    struct tcp_config config;
    uint64_t poll_at;
    uint32_t index;
    uint64_t answers; /* segments sent that are no resets */
    bool steered;     /* local ports come in classes, and half of them are another worker's */
    uint64_t handed;  /* segments that went there */
    bool in_call;     /* inside tcp_connect, tcp_send, tcp_close or tcp_abort: `closed` must not come */
};

/* The layer above one end of a connection. */
struct app {
    struct tcp_conn *conn;
    uint32_t stream_bytes, queued, acknowledged, received;
    uint32_t most_unacknowledged;
    bool closes_first, lazy, pauses; /* lazy: does not take all at once; pauses: writes with breaks in between */
    uint32_t abort_at;               /* bytes queued after which it aborts; UINT32_MAX: never */
    bool begun, connected, close_called, aborted, peer_closed;
    bool gave_up; /* the abort was out of patience */
    uint64_t act_at, fin_at_us, closed_at_us, acked_us;
    uint64_t user_timeout_us; /* 0: the host's */
    uint32_t closed;
    enum tcp_error error;
};

struct side {
    struct link *link;
    uint8_t index;
    struct host *host;
    struct tcp_address address;
    uint16_t port;
    bool is_model;
    struct model_peer peer;
    struct app app;
    struct checker checker;
    bool ghost; /* an old SYN opened a half-connection beside it, of another number */
    uint32_t ghost_iss;
};

struct link {
    struct world *world;
    uint16_t index;
    struct side sides[2]; /* sides[0] opens */
    struct wire_path paths[2];
    uint64_t start_at;
    uint32_t birth; /* the how many-th connection of the world; 0: its ports are not known yet */
    bool refused_by_icmp;
    uint32_t connect_tries;
};

struct world {
    uint64_t seed, now_us, begun_us;
    struct sim_random random;
    struct host hosts[2];
    struct link links[LINKS_MAX];
    uint32_t link_count, births;
    struct link *connecting;
    struct wire wire;
    uint32_t busy, unreachable; /* per thousand: the device says -EAGAIN, -EHOSTUNREACH */
    uint32_t strangers, icmp;   /* per thousand a step */
    uint32_t burst_us;          /* what arrives within so long is one pass */
    uint32_t owners;
    bool trace;
    char failure[256];
};

/* What all worlds together came through: a simulator that never loses a segment proves nothing. */
struct totals {
    uint64_t segments, fast, timeouts, out_of_order, duplicates, challenges, time_wait, pool_exhausted, refused, resets, accepted, handed,
        tail_probes, spurious, mtu_lowered, black_holes, keepalives, sack_blocks, links, completed;
};

const uint8_t *world_stream(const struct side *side);
void world_fail(struct world *world, const struct side *side, const char *what);
static inline struct side *side_other(struct side *side) {
    return &side->link->sides[1 - side->index];
}

/* world.c */
/* Runs one seed; NULL when every rule was kept, otherwise what was broken. `world` is overwritten. */
const char *world_run(struct world *world, uint64_t seed, bool traced, struct totals *totals);
/* Fills the streams; once before all worlds. */
void world_streams(void);
/* Gives what a side says to the wire. */
void world_carry(struct side *from, const struct segment *segment);
/* A connection has opened by this name: an older one's TIME_WAIT must have lasted (RFC 9293 3.6.1, 6191). */
void world_check_reuse(const struct side *opener);
int world_transmit(void *network, const struct tcp_segment *segment);

/* scenario.c */
/* Draws everything from the world's seed and opens the stacks. False: a stack could not be made. */
bool scenario_draw(struct world *world);
/* This port's segments come to this host's worker. */
bool scenario_port_is_ours(const struct host *host, uint16_t port);
/* One whose segments do not. */
uint16_t scenario_foreign_port(const struct host *host, uint32_t number);

/* app.c */
extern const struct tcp_events app_events;
void app_start(struct side *side);
/* Its clock struck. */
void app_act(struct side *side);
/* The end of the world: every expectation that only time can judge. */
void app_judge(struct side *side);

#endif
