/* world.h: a dispatch between a scripted shape and press on one side and a scripted dataplane on the other, over a real journal, a real
 * socket (dataplane/link.c) and a memfd as arena. */
#ifndef TEST_DISPATCH_WORLD_H
#define TEST_DISPATCH_WORLD_H

#include "control/dispatch/state.h"
#include "dataplane/link.h"

#include <pthread.h>
/* cmocka wants these before itself */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    WORLD_WORKERS = 2,
    WORLD_SLOTS = 32,
    WORLD_PATHS = 4,
    WORLD_LANES = 6,
    WORLD_DELIVERIES = 6000,
    WORLD_ARENA_BYTES = 128 * 1024, /* unless a test asks for more: nothing is huge in so small an arena */
    WORLD_PAGE_BYTES = 4096,
    WORLD_STEPS = 3000, /* of 1 ms: the bound of every wait */
    WORLD_CONTENTS = 8,
    WORLD_CONTENT_BYTES = 1 << 20,
    WORLD_PIECES_MAX = 100, /* runs of shared bytes in a message */
};

struct world_content {
    struct shared_bytes shared;
    uint8_t bytes[WORLD_CONTENT_BYTES];
};

/* What has become of one delivery. Taken = ended + back + under way, always. */
struct world_fate {
    uint32_t taken, ended, back;
    struct dispatch_end end; /* the last */
};

struct world_lane {
    struct lane lane;
    struct site site;
    struct config_pool pool;
    struct config_source sources[2];
    struct delivery *first, *aside;
    uint32_t sessions_calls, events;
    uint64_t wake_us; /* what shape_take says when it gives nothing although some wait; 0: it gives */
};

struct world_dataplane {
    bool lives;
    struct journal journal;
    struct arena arena;
    struct link link;
    uint32_t generation;
    pthread_t server;
    _Atomic bool stop;
};

/* An order that a worker has popped. */
struct world_order {
    uint32_t slot, generation;
};

struct world {
    char directory[64], journal_path[96], socket_path[96];
    struct event_base *base;
    struct config config;
    struct shaping_limits limits;
    struct journal journal; /* control's */
    struct dispatch *dispatch;
    struct world_dataplane dataplane;
    size_t arena_bytes;
    /* shape */
    struct world_lane lanes[WORLD_LANES];
    void (*on_take)(struct world *world); /* once, from inside shape_take */
    /* press */
    int press_descriptor;
    struct press_task *held, *done;
    bool press_holds, press_refuses;
    uint32_t submitted, unannounced;
    int status;                                    /* of the next renderings */
    size_t message_bytes;                          /* 0: by index; with a content those of the header */
    size_t huge_bytes[WORLD_DELIVERIES];           /* of this delivery's message; 0: as of any */
    struct world_content contents[WORLD_CONTENTS]; /* by index */
    uint32_t content_count;                        /* 0: no message shares bytes with others */
    uint32_t run_bytes;                            /* of shared bytes; 0: by index */
    uint64_t contents_salt;                        /* so that an identifier means other bytes in another life */
    /* deliveries */
    struct job job, huge_job;             /* the second by its `id`: messages of it are expected to be huge */
    struct job_recipient recipients[500]; /* of the job */
    uint32_t alone;                       /* this recipient shares with nobody; SLOT_NONE: all share */
    bool alike;                           /* every message is as the first delivery's */
    bool leavers;                         /* whom a message was made for may have left the backlog: its sender tells who it was */
    bool stopped[500];                    /* these may not go into a slot */
    struct delivery deliveries[WORLD_DELIVERIES];
    struct world_fate fates[WORLD_DELIVERIES];
    uint32_t delivery_count;
    bool commits_strangers; /* at once what ends without a delivery */
    uint32_t ended_without_delivery, harvested, up, down;
    struct dispatch_end last_end;
    /* what the workers popped and have not claimed */
    struct world_order orders[WORLD_WORKERS][256];
    uint32_t order_count[WORLD_WORKERS];
};

int world_set_up(void **state);
int world_tear_down(void **state);
/* A new control over the same journal; the old one dies without a word (its deliveries are lost with it). */
void world_control_die(struct world *world);
void world_control_start(struct world *world);
void world_dataplane_start(struct world *world);
/* Like world_dataplane_start, but `bend` may spoil what it says at the link. */
void world_dataplane_start_bent(struct world *world, void (*bend)(struct link *link));
void world_dataplane_die(struct world *world);
/* Both, and connected. */
void world_start(struct world *world);
/* Runs control's loop until nothing moves by itself. */
void world_settle(struct world *world);
/* Puts `count` deliveries into the lane and says so. Returns the first one's number. */
uint32_t world_wait(struct world *world, uint32_t lane, uint32_t count);
/* The same of huge messages of so many bytes each, which the job foretells or does not. */
uint32_t world_wait_huge(struct world *world, uint32_t lane, uint32_t count, size_t bytes, bool foretold);
void world_press_release(struct world *world);

/* A worker. */
uint32_t world_path(struct world *world, uint32_t lane); /* the journal's index */
void world_show(struct world *world, uint32_t worker, uint32_t path, uint32_t capacity, uint32_t ready);
void world_push(struct world *world, uint32_t worker, uint64_t entry);
void world_pop(struct world *world, uint32_t worker); /* orders go to `orders`, path hints are cleared and acknowledged when retired */
struct slot *world_claim(struct world *world, uint32_t worker, struct world_order *order); /* the oldest popped; checks its contents */
/* A worker on its way along a chain, as dataplane/smtp/order.c goes. */
struct world_walk {
    uint32_t worker, slot, generation; /* of the next member; SLOT_NONE: the end */
    uint32_t first;                    /* the first one's number: whose message it is */
};
/* Claims the first of the oldest popped order that is not withdrawn. False: there is none. */
bool world_walk_begin(struct world *world, uint32_t worker, struct world_walk *walk, struct world_order *order);
/* Claims the next member that is not withdrawn and checks its contents. False: the end. */
bool world_walk_on(struct world *world, struct world_walk *walk, struct world_order *order);
/* All of it. How many were claimed. */
uint32_t world_claim_chain(struct world *world, uint32_t worker, struct world_order *orders);
void world_answer(struct world *world, uint32_t worker, const struct world_order *order, enum slot_outcome outcome, uint16_t code,
                  const char *text);
/* Makes a content: messages of deliveries whose number leaves `which` refer to it. */
void world_content(struct world *world, uint32_t which, uint64_t id, uint32_t bytes);
/* What lies in the arena for a claimed order is still the message of delivery `first`. */
void world_look(const struct world *world, const struct world_order *order, uint32_t first);
uint32_t world_message(const struct slot *slot); /* whose message it is, by its sender */
uint32_t world_index(const struct slot *slot);   /* the delivery's number, by its cookie */
/* Every delivery that was taken has come to exactly one end or is under way `under_way` times in all. */
void world_check(const struct world *world, uint32_t under_way);
uint32_t world_slots_in(const struct world *world, enum slot_state state);

#define WORLD_UNTIL(world, condition)                                                                                                      \
    do {                                                                                                                                   \
        for (int step_ = 0; step_ < WORLD_STEPS && !(condition); step_++) {                                                                \
            world_settle(world);                                                                                                           \
            usleep(1000);                                                                                                                  \
        }                                                                                                                                  \
        assert_true(condition);                                                                                                            \
    } while (0)

#endif
