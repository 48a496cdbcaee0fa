/* engine.h: what the files of this room share: one worker's pools, wheel and lists. */
#ifndef DATAPLANE_SMTP_ENGINE_H
#define DATAPLANE_SMTP_ENGINE_H

#include "command.h"
#include "deadline.h"
#include "lane.h"
#include "order.h"
#include "pool.h"
#include "session.h"
#include "smtp.h"

enum { DEADLINE_OF_SESSION, DEADLINE_OF_LANE };
enum { ENGINE_REFUSALS_MAX = 16 }; /* a pass, then who waits for a pool waits for the next one: each try prepares up to 64 KB for nothing */

struct smtp_engine {
    struct smtp_config config;
    struct counters *counters;
    struct tcp_stack *stack;
    struct deadlines deadlines;
    struct pool sessions, orders, replies, commands, lanes_pool;
    struct lane *lanes; /* [paths], each page touched when its path is first seen */
    TAILQ_HEAD(, lane) active;
    TAILQ_HEAD(, smtp_session) work;
    LIST_HEAD(, lane) loaded;
    uint32_t active_count, work_count;
    uint32_t refusals; /* by pools, in this pass */
    bool draining;
    bool clock_known; /* the wheel was set to the first `now` */
};

/* Pushes to the outcome ring of a shard and rings its bell. */
void engine_push(struct smtp_engine *engine, uint32_t shard, uint64_t entry);
static inline uint64_t engine_realtime(const struct smtp_engine *engine, uint64_t now_us) {
    return now_us + (uint64_t)engine->config.realtime_offset_us;
}

#endif
