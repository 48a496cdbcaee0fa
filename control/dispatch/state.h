/* state.h: the inside of dispatch, shared by its files. */
#ifndef CONTROL_DISPATCH_STATE_H
#define CONTROL_DISPATCH_STATE_H

#include "control/clock.h"
#include "control/dispatch/arena.h"
#include "control/dispatch/dispatch.h"
#include "control/dispatch/residents.h"

/* A slot as this control knows it. */
struct flight {
    struct delivery *delivery; /* NULL: dispatched by an earlier control, withdrawn, or none */
    struct lane *lane;
    struct chain *chain; /* while there is no outcome */
    uint32_t next;       /* of the chain's members, or SLOT_NONE */
    uint32_t generation; /* of the slot: what the shared word must say */
    bool used;           /* not on the free list */
    bool answered;       /* its outcome is in the slot and waits for those of its chain */
    bool ended;          /* its outcome was handed on: only the commit is missing */
    bool withdrawn;      /* its delivery went back; the slot stays for its link */
    bool inherited;      /* dispatched by an earlier control */
};

enum { CHAIN_RECIPIENTS_MAX = JOB_RECIPIENTS_MAX };
/* The slots of one transaction: its members, whose outcomes are handed on together. */
struct chain {
    uint32_t first;           /* the slot by which workers claim the others; SLOT_NONE: it has left */
    uint32_t members;         /* by flight.next, in the chain's order */
    uint32_t open, withdrawn; /* of the members: neither answered nor withdrawn; withdrawn */
    uint32_t path, path_generation;
    uint16_t worker;
    bool counted;   /* in the path's `outstanding` */
    bool inherited; /* its extent is what an earlier control's slot says */
    uint64_t extent;
    uint32_t extent_bytes;     /* 0: no arena memory */
    struct resident *resident; /* what its message shares with others, or NULL */
    struct chain *next;        /* free */
};

enum lane_path_state { LANE_PATH_FREE, LANE_PATH_LIVE, LANE_PATH_RETIRING };

/* Control's side of one path record. */
struct lane_path {
    enum lane_path_state state;
    bool attention; /* in the list */
    uint32_t generation, site_generation;
    const struct shaping_limits *limits; /* what the record was made from */
    const struct config_pool *pool;
    const struct config_relay *relay;
    uint32_t secret_version;                    /* the relay's */
    uint32_t endpoint_count;                    /* of the record: ... */
    uint8_t site_endpoints[PATH_ENDPOINTS_MAX]; /* ... and their places among the site's */
    struct lane *lane;                          /* NULL when retiring */
    struct lane_path *next;
    bool huge_waits; /* in the list of those that wait for huge room */
    struct lane_path *huge_next;
    uint32_t huge_orders; /* huge orders of it before their slots */
    struct event *wake;   /* when shape wants to be asked again */
    struct dispatch *dispatch;
    uint64_t *secured;     /* [workers]: sessions_secured_total as it was read last */
    uint32_t *outstanding; /* [workers]: orders (chains) without their last outcome, rendered ones included */
};

/* A message on its way through the press, and whom it is for. */
struct press_order {
    struct press_task task;
    struct delivery *deliveries; /* by `next`: they share the message */
    uint32_t delivery_count;
    struct lane *lane;
    uint32_t path, path_generation;
    uint16_t worker;
    bool huge;         /* by what was expected in the press, by what it is behind it */
    bool waited;       /* for room in the arena */
    uint64_t bytes;    /* that it counts with: the message's own */
    uint64_t sequence; /* in the backlog */
    struct press_order *next;
};

struct order_list {
    struct press_order *first, *last;
    uint32_t count;
    uint64_t bytes;
};

enum {
    HUGE_BYTES_MAX = 64 << 20,  /* of huge messages' own before their slots: with so many, or one, no more are rendered ... */
    HUGE_DELIVERIES_MAX = 1024, /* ... nor with so many recipients */
};

/* Huge messages before their slots. */
struct huge {
    uint32_t orders, deliveries;
    uint64_t bytes;                 /* in the press, as far as one knows, and behind it */
    uint64_t unforeseen_bytes;      /* of the last one that was found to be huge only when it was rendered */
    struct lane_path *first, *last; /* lanes that wait for room here */
    struct lane_path *turn;         /* whose it is to take some */
    bool turn_taken;                /* it has taken one: the others have theirs first */
    /* What was found of a job last: its recipients come one behind the other. */
    const struct job *sized;
    struct entry_id sized_entry;
    uint64_t sized_bytes;
    bool sized_huge;
    /* When a run was looked for in vain: not before then again, as long as huge runs take as much and the window is in use. */
    uint64_t look_us;
    uint32_t looked_used;
    struct event *look;
    /* The first of those that are rendered, while it waits for the arena: since when (CLOCK_MONOTONIC), and whether the log has it. */
    const struct press_order *watched;
    uint64_t since_us;
    bool warned;
    struct event *warning;
};

struct dispatch {
    struct dispatch_config config;
    struct journal *journal;
    uint32_t workers, shard;
    uint32_t first_slot, slot_count, first_path, path_count;
    struct flight *flights; /* [slot_count] */
    uint32_t *free_slots;   /* a stack */
    uint32_t free_slot_count;
    struct chain *chains, *free_chains; /* [slot_count] */
    uint32_t *inherited;                /* a hash set of slots, by their cookies: SLOT_NONE or an index */
    uint32_t inherited_mask;
    struct lane_path *paths; /* [path_count] */
    uint32_t free_path_hint, free_path_count;
    struct lane_path *attention_first, *attention_last;
    struct event *attention_event, *backlog_event, *press_event, *doorbell_event, *link_event, *link_timer;
    struct press_order *free_orders;
    struct order_list backlog, huge_backlog;
    uint64_t sequence;             /* of the last order that came into one of them */
    uint32_t in_press;             /* messages that are not expected to be huge */
    uint32_t before_slots, queued; /* deliveries: in press and backlog; in slots without an outcome, ours */
    uint64_t message_bytes;        /* of late messages; up at once, down slowly */
    struct huge huge;
    bool draining, held, harvested, press_full, lanes_starved;
    uint64_t press_retry_us; /* it refused a task: not before then again */
    /* The dataplane. */
    bool up;
    int link, arena_fd;
    uint32_t dataplane_generation;
    uint8_t *mapping, *arena;
    size_t mapping_bytes;
    uint64_t page_bytes;
    bool pieces_in_page;
    struct arena_map map;
    struct residents residents;
    uint64_t arena_offset;
    int worker_doorbells[JOURNAL_WORKERS_MAX];
    int shard_doorbells[JOURNAL_SHARDS_MAX];
    uint64_t ring_wanted; /* bit a worker: has new entries */
    char socket_path[108];
    struct dispatch_counters counters;
    uint64_t wild_logged; /* so many of counters.wild_values are in the log */
};

/* Logs the wild values that were counted since the last call. */
void dispatch_log_wild(struct dispatch *dispatch);

/* paths.c */
int paths_create(struct dispatch *dispatch);
void paths_destroy(struct dispatch *dispatch);
/* The lane's live path, published if need be; NULL when there is none to be had now. */
struct lane_path *paths_of_lane(struct dispatch *dispatch, struct lane *lane);
/* Does the record still say how to reach the lane's site? */
bool paths_current(struct dispatch *dispatch, struct lane_path *path);
void paths_retire(struct dispatch *dispatch, struct lane_path *path);
/* Writes what changed of the lane to its cells and hints the workers. */
void paths_update(struct dispatch *dispatch, struct lane_path *path);
/* A worker's RING_CREDIT: reads its cell; a retiring path that all have acknowledged becomes free. NULL when it is not live. */
struct lane_path *paths_credit(struct dispatch *dispatch, uint32_t index, uint32_t worker);
/* The dataplane is gone, or an earlier control's paths are found: forgets all (dead) or retires all (alive). */
void paths_forget(struct dispatch *dispatch);
void paths_retire_inherited(struct dispatch *dispatch);
/* Lets go of a path that its lane does not need at the moment while other lanes wait for one. */
void paths_yield(struct dispatch *dispatch, struct lane_path *path);
uint32_t paths_index(const struct dispatch *dispatch, const struct lane_path *path);
/* The path of an order if it is still the same one. */
struct lane_path *paths_same(struct dispatch *dispatch, uint32_t index, uint32_t generation);
void paths_attention(struct dispatch *dispatch, struct lane_path *path);

/* record.c */
/* Everything of a path's record but its word. `filled` gets endpoint_count and site_endpoints: an endpoint that TLS would have to verify,
 * but whose name or TLSA records do not fit, is left out. Returns endpoint_count. */
uint32_t record_fill(struct path *record, const struct lane *lane, struct lane_path *filled);
/* Wipes the password or token. */
void record_forget_secret(struct path *record);

/* orders.c */
int orders_create(struct dispatch *dispatch);
void orders_destroy(struct dispatch *dispatch);
/* Renders what the lane has credit for. The press is told by press_announce, when all lanes have had their turn. */
void orders_pump(struct dispatch *dispatch, struct lane_path *path);
void orders_collect(struct dispatch *dispatch);
/* The order is over without reaching a slot's end: outstanding goes down. */
void orders_uncount(struct dispatch *dispatch, uint32_t path, uint32_t generation, uint16_t worker);
void orders_ring(struct dispatch *dispatch);
/* So many of the order's deliveries are before no slot any more. */
void orders_leave(struct dispatch *dispatch, struct press_order *order, uint32_t deliveries);
/* The order leaves without a slot: it has no deliveries any more, and what it was counted for is over. */
void orders_done(struct dispatch *dispatch, struct press_order *order);
/* It has one, and is free for the next. */
void orders_free(struct dispatch *dispatch, struct press_order *order);
/* A message that cannot be rendered, signed or held by any arena is the end of those it was for, without a slot. */
void orders_end(struct dispatch *dispatch, struct press_order *order);
/* The press was full and is so no longer: the lanes that were turned away get their turn. */
void orders_relieved(struct dispatch *dispatch);

/* backlog.c: rendered orders that have no slot yet. */
void backlog_destroy(struct dispatch *dispatch);
void backlog_add(struct dispatch *dispatch, struct press_order *order);
/* Gives those a slot that there is one for, and room in the arena. */
void backlog_place(struct dispatch *dispatch);
/* Has that done soon: slots or bytes came free. */
void backlog_resume(struct dispatch *dispatch);
static inline bool backlog_waits(const struct dispatch *dispatch) {
    return dispatch->backlog.first != NULL || dispatch->huge_backlog.first != NULL;
}
/* Orders that match (NULL: all) go back to shape. How many deliveries. */
uint32_t backlog_withdraw(struct dispatch *dispatch, bool (*match)(void *context, const struct delivery *delivery), void *context);
/* All but the first so many of the order's deliveries go back. */
void backlog_shorten(struct dispatch *dispatch, struct press_order *order, uint32_t deliveries);
void backlog_each(const struct dispatch *dispatch,
                  void (*each)(void *context, const struct delivery *delivery, int worker, enum slot_state state), void *context);

/* huge.c: messages that take a good part of the arena, before they have it. */
int huge_create(struct dispatch *dispatch);
void huge_destroy(struct dispatch *dispatch);
/* How many bytes of its own a message of this job will have, more or less, and whether it will be huge. Asked for the deliveries of one job
 * in a row. */
uint64_t huge_expected(struct dispatch *dispatch, const struct job *job, bool *is_huge);
/* May the lane have a huge message rendered now? No further one is taken where those that wait have all the room, lanes that were turned
 * away before have their turn first, and a lane keeps half of a worker's credit for others. */
bool huge_may_take(const struct dispatch *dispatch, const struct lane_path *path, uint32_t capacity);
/* It may not: it gets its turn, or is looked at when one of its own has left. */
void huge_wait(struct dispatch *dispatch, struct lane_path *path, uint32_t capacity);
/* The turn is over, if it was this lane's, and the next one's if there is room. */
void huge_next(struct dispatch *dispatch, const struct lane_path *path);
/* The lane's path is none any more. */
void huge_forget(struct dispatch *dispatch, struct lane_path *path);
void huge_forget_all(struct dispatch *dispatch);
void huge_count(struct dispatch *dispatch, struct press_order *order, uint64_t bytes);
void huge_uncount(struct dispatch *dispatch, struct press_order *order);
/* Is a run to be looked for? Where not, that is done a little later. */
bool huge_may_look(struct dispatch *dispatch);
/* There was none. */
void huge_looked(struct dispatch *dispatch);
/* The first of those that are rendered waits for room in the arena; or none does (NULL). Tells the log when that takes long. */
void huge_watch(struct dispatch *dispatch, const struct press_order *first);

/* asked.c: what a slot carries of its job's wishes: SLOT_REQUIRETLS, NOTIFY and RET, and the envelope identifier in xtext (its length; 0:
 * none). NOTIFY is each recipient's; RET and the identifier count in the first slot of a transaction. */
uint8_t asked_flags(const struct job *job);
uint8_t asked_dsn(const struct job *job);
uint8_t asked_envid(const struct job *job, char out[SLOT_ENVID_MAX]);

/* slots.c */
/* Would it fit an empty arena? */
bool slots_fit(const struct dispatch *dispatch, const struct press_order *order);
/* Does the message, or what it shares, take a huge run of the arena? */
bool slots_huge(const struct dispatch *dispatch, const struct message *message);
enum placing {
    PLACED,          /* the order has no deliveries any more; when there were slots for some of them only, the others went back */
    WAITS_FOR_SLOTS, /* there is none */
    WAITS_FOR_ROOM,  /* there is no run of the arena, or none outside the window */
    WAITS_FOR_HUGE,  /* huge messages have their share of the arena: some must end first */
};
/* `high`: the order may take the window. *room_bytes is what it needs of the arena, where it is not for slots that it waits. */
enum placing slots_place(struct dispatch *dispatch, struct press_order *order, bool high, uint64_t *room_bytes);

/* chains.c */
int chains_create(struct dispatch *dispatch);
void chains_destroy(struct dispatch *dispatch);
/* A chain without members. It has the extent and the reference from here on, and gives both back with its last member. */
struct chain *chain_begin(struct dispatch *dispatch, uint64_t extent, uint32_t extent_bytes, struct resident *resident);
void chain_join(struct dispatch *dispatch, struct chain *chain, uint32_t slot);
/* The slot's outcome is there. With the last of its chain all are handed on: what is to be tried again shares a transaction again. */
void chain_answered(struct dispatch *dispatch, uint32_t slot);
/* The slot's outcome is handed on, or it is freed: it is no member any more. With the first member go those that are still queued: nobody
 * can claim them. */
void chain_leave(struct dispatch *dispatch, uint32_t slot);
/* Takes a member back if no worker has claimed it, and with the first all others: shape has them again. How many. */
uint32_t chain_withdraw(struct dispatch *dispatch, uint32_t slot);
/* The links behind an inherited first slot: members in flight that have no bytes of their own join its chain. */
void chain_inherit(struct dispatch *dispatch, uint32_t first);

/* outcomes.c */
void outcomes_read(struct dispatch *dispatch);
void outcomes_release(struct dispatch *dispatch, uint32_t slot);
/* Hands an answered slot's outcome on. */
void outcomes_end(struct dispatch *dispatch, uint32_t slot);
/* Looks at every slot: `living` is the generation of the dataplane that lives, 0 for none. */
void outcomes_harvest(struct dispatch *dispatch, uint32_t living);

/* inherited.c */
int inherited_create(struct dispatch *dispatch);
void inherited_destroy(struct dispatch *dispatch);
/* The slot was filled by an earlier control and is not settled yet. */
void inherited_add(struct dispatch *dispatch, uint32_t slot);

/* link.c */
int link_create(struct dispatch *dispatch, char *error, size_t error_bytes);
void link_destroy(struct dispatch *dispatch);
void link_start(struct dispatch *dispatch);

#endif
