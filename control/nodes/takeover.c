/* takeover.c: a dead node's pending entries become this one's, in steps that Redis does not feel. Every living node does it: each entry
 * goes to one of them. */
#include "state.h"

#include "control/observe/log.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void tell(struct member *member) {
    struct nodes *nodes = member->nodes;
    struct takeover *takeover = &member->takeover;
    if (takeover->untold > 0)
        nodes->config.taken_over(nodes->config.context, member->index, takeover->name, takeover->untold);
    takeover->untold = 0;
}

static void finish(struct member *member) {
    struct takeover *takeover = &member->takeover;
    takeover->active = false;
    member->nodes->counters.taken_over_nodes += takeover->moved > 0;
    log_write(LOG_LEVEL_WARNING, "nodes", "shard %" PRIu32 ": node '%s' is gone; this node has taken over %" PRIu64 " of its entries",
              member->index, takeover->name, takeover->moved);
    member->beat_due_ms = 0; /* to see it gone */
}

static int64_t reply_number(const redisReply *reply, size_t at) {
    bool is_number = reply && reply->type == REDIS_REPLY_ARRAY && at < reply->elements && reply->element[at]->type == REDIS_REPLY_INTEGER;
    return is_number ? reply->element[at]->integer : -1;
}

static void on_step(void *context, redisReply *reply) {
    struct member *member = context;
    struct takeover *takeover = &member->takeover;
    if (!nodes_answered(member->nodes))
        return;
    member->taking = false;
    if (!takeover->active)
        return;
    const char *status = reply_word(reply, 0), *cursor = reply_word(reply, 2);
    int64_t moved = reply_number(reply, 1);
    if (moved < 0) {
        if (redis_error(reply) != NULL)
            log_write(LOG_LEVEL_ERROR, "nodes", "taking over the work of '%s' failed: %.200s", takeover->name, redis_error(reply));
        takeover->active = false; /* begun anew by and by */
        return;
    }
    if (strcmp(status, "ok") != 0) {
        tell(member);
        takeover->active = false;
        if (strcmp(status, "fenced") == 0)
            member_fence(member, "this node was taken for dead");
        else
            member->beat_due_ms = 0; /* it lives, or somebody else has done it */
        return;
    }
    takeover->moved += (uint64_t)moved;
    takeover->pass_moved += (uint64_t)moved;
    takeover->untold += (uint64_t)moved;
    member->nodes->counters.taken_over_entries += (uint64_t)moved;
    if (strcmp(takeover->cursor, "e") == 0) {
        finish(member);
    } else if (cursor[0] == '\0') {
        tell(member);
        snprintf(takeover->cursor, sizeof(takeover->cursor), "%s", takeover->pass_moved > 0 ? "s" : "e");
        takeover->pass_moved = 0;
    } else {
        snprintf(takeover->cursor, sizeof(takeover->cursor), "%s", cursor);
        if (takeover->untold >= TAKEOVER_TELL)
            tell(member);
    }
    takeover_next(member);
}

static bool choose(struct member *member, uint64_t now_ms) {
    for (uint32_t i = 0; i < member->peer_count; i++) {
        const struct peer *peer = &member->peers[i];
        if (!peer_is_dead(peer, now_ms))
            continue;
        member->takeover = (struct takeover){.active = true, .epoch = peer->epoch, .beat_ms = peer->beat_ms, .cursor = "s"};
        memcpy(member->takeover.name, peer->name, sizeof(peer->name));
        return true;
    }
    return false;
}

void takeover_next(struct member *member) {
    struct takeover *takeover = &member->takeover;
    uint64_t now_ms = monotonic_ms();
    if (member->state != MEMBER_HOLDS || member->taking || member->leaving || now_ms - member->answered_ms > GAP_MS ||
        (!takeover->active && (member->beat_due_ms == 0 || !choose(member, now_ms))))
        return;
    char epoch[NUMBER_BYTES], peer_epoch[NUMBER_BYTES], beat[NUMBER_BYTES], step[NUMBER_BYTES];
    snprintf(epoch, sizeof(epoch), "%" PRIu64, member->epoch);
    snprintf(peer_epoch, sizeof(peer_epoch), "%" PRIu64, takeover->epoch);
    snprintf(beat, sizeof(beat), "%" PRIu64, takeover->beat_ms);
    snprintf(step, sizeof(step), "%d", TAKEOVER_STEP);
    const char *argv[] = {member->nodes->name, epoch, takeover->name, peer_epoch, beat, takeover->cursor, step};
    member->taking = nodes_call(member, on_step, "bypost_takeover", 7, argv);
}

static void on_orphans(void *context, redisReply *reply) {
    struct member *member = context;
    if (!nodes_answered(member->nodes))
        return;
    member->looking = false;
    int64_t found = reply_number(reply, 0);
    if (found > 0)
        log_write(LOG_LEVEL_WARNING, "nodes",
                  "shard %" PRIu32 ": %" PRId64 " consumers that never registered have entries: they count as dead nodes", member->index,
                  found);
    const char *cursor = reply_word(reply, 1);
    snprintf(member->orphans_cursor, sizeof(member->orphans_cursor), "%s", cursor);
    if (cursor[0] == '\0')
        member->orphans_due_ms = monotonic_ms() + ORPHANS_MS;
}

/* A step a tick. */
void orphans_look(struct member *member, uint64_t now_ms) {
    if (member->state != MEMBER_HOLDS || member->looking || now_ms < member->orphans_due_ms)
        return;
    char life[NUMBER_BYTES];
    snprintf(life, sizeof(life), "%d", NODES_LIFE_MS);
    const char *argv[] = {life, member->orphans_cursor[0] != '\0' ? member->orphans_cursor : "s"};
    member->looking = nodes_call(member, on_orphans, "bypost_orphans", 2, argv);
}
