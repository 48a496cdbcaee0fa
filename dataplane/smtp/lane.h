/* lane.h: this worker's side of a path: its sessions and the orders that wait for one. */
#ifndef DATAPLANE_SMTP_LANE_H
#define DATAPLANE_SMTP_LANE_H

#include "deadline.h"
#include "order.h"
#include "reply.h"
#include "session.h"
#include <bypost/path.h>
#include <sys/queue.h>

enum {
    LANE_BACKOFF_FIRST_US = 1000 * 1000, /* after an endpoint failed, doubling ... */
    LANE_BACKOFF_MAX_US = 30 * 1000 * 1000,
    LANE_PORTS_WAIT_US = 250 * 1000,      /* after the local ports, or a pool, ran out */
    LANE_AUTH_REST_US = 60 * 1000 * 1000, /* after credentials were refused; control has a longer rest */
    LANE_TRY_ADDRESSES_MAX = 5,           /* endpoints that fail before orders go back (SMTP.md section 2) */
    LANE_HOPE_US = 5 * 1000 * 1000,       /* orders wait so long while no session is there or on its way ... */
    LANE_HOPE_MAX_US = 30 * 1000 * 1000,  /* ... and so long while one is on its way */
};

enum lane_state { LANE_NONE, LANE_LIVE, LANE_RETIRED };

struct lane_endpoint {
    uint64_t retry_us;
    uint32_t backoff_us;
    uint64_t tls_broken_until_us; /* MAY: sessions go without TLS until then */
    uint16_t without_tls;         /* ... and so many, however long ago it was */
    uint8_t tls_failure;          /* enum tls_failure: why the last session did not become ready, where the path does without no TLS */
    bool known_good;              /* a session became ready since it last failed */
    bool takes_mail;              /* it gave a verdict since it last lost a transaction */
    bool verified;                /* with `offers` and `size_max_bytes`: of its last session, and good until ... */
    uint32_t sessions;            /* on their way to it, or ready */
    uint32_t offers;              /* enum capability_flag */
    uint64_t size_max_bytes;
    uint64_t known_until_us;
};

LIST_HEAD(session_list, smtp_session);

struct lane {
    struct smtp_engine *engine;
    uint32_t index, generation;
    uint8_t state; /* enum lane_state */
    bool active;   /* on the engine's list of lanes to look at */
    bool refused;  /* the path asks for TLS and this worker has none */
    uint8_t next_source;
    bool paced; /* next_connect_us is the last connect's and its interval's: a shorter interval brings it nearer */
    uint32_t open, greeting, ready, busy; /* sessions: all; not ready yet; ready or in a transaction; in a transaction */
    uint32_t capacity;                    /* sum of the sessions' */
    uint32_t held, waiting;               /* orders (recipients) claimed and unanswered; chains that no session has yet */
    uint32_t shown_capacity, shown_open, shown_ready;
    uint64_t opened_total, secured_total;
    uint64_t auth_rest_us; /* credentials were refused: no connection before then */
    uint32_t failures;     /* of endpoints, one after the other, since a session became ready or a try was given up */
    uint64_t next_connect_us;
    uint64_t hope_us; /* since when orders wait without a ready session; 0: they do not */
    struct order_queue high, normal, later;
    struct order_queue seeking;                /* those that the servers met so far cannot take (seek.h) */
    struct session_list sessions, idle, roomy; /* roomy: in a transaction, and can take another behind it */
    TAILQ_ENTRY(lane) activity;
    LIST_ENTRY(lane) loaded;
    struct deadline deadline;
    struct lane_endpoint endpoints[PATH_ENDPOINTS_MAX];
    struct path path; /* checked copy */
};

/* Looks at a path of the journal: loads, refreshes or retires its lane. NULL when it is not live. */
struct lane *lane_look(struct smtp_engine *engine, uint32_t path, uint64_t now_us);
/* Puts it on the list of lanes that the next poll serves. */
void lane_wake(struct lane *lane);
/* Binds orders, opens and ends sessions, returns what has no hope, publishes the cell. Steps taken. */
uint32_t lane_serve(struct lane *lane, uint64_t now_us);
/* A claimed chain waits for a session. */
void lane_enqueue(struct lane *lane, struct order *first);
/* Recipients of a chain wait for another transaction: before all others. */
void lane_requeue(struct lane *lane, struct order *first);
/* May a session with that endpoint be opened, as far as rests go? */
bool lane_can_connect(struct lane *lane, uint8_t endpoint, uint64_t now_us);
/* Opens one session to the first of these endpoints (a bit each) that may be tried. False: none now; next_connect_us says when to look
 * again. */
bool lane_connect(struct lane *lane, uint32_t endpoints, uint64_t now_us);
/* Control's cell: deliveries that wait. */
uint32_t lane_demand(const struct lane *lane);
/* Should a session that has just finished a transaction stay? */
bool lane_keeps(const struct lane *lane);
/* Posts what belongs to no order. `session` may be NULL; `reply` too. */
struct lane_event {
    enum path_event_kind kind;
    enum smtp_stage stage;
    uint8_t endpoint, source;
    uint32_t detail;
    const struct reply *reply;
    const char *text; /* without a reply */
};
void lane_post(struct lane *lane, const struct lane_event *event, uint64_t now_us);

#endif
