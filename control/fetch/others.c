/* others.c: the queues besides high, normal and bulk, of which there may be thousands. Redis keeps their order (bypost_take); here is only
 * what to do with what comes, and the search for entries that were this node's before it started. */
#include "state.h"

#include "control/observe/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    HEAD_WEIGHT,
    HEAD_TAKEN,
    HEAD_HIGH_STATE,
    HEAD_NORMAL_STATE,
    HEAD_BULK_STATE,
    HEAD_NORMAL_WEIGHT,
    HEAD_BULK_WEIGHT,
    HEAD_MORE,
    HEAD_FIELDS /* of bypost_take's first element */
};

/* --- pending entries --- */

struct stream *others_by_name(struct fetch *fetch, const char *name) {
    for (uint32_t i = 0; i < fetch->others.count; i++) {
        if (strcmp(fetch->others.items[i].name, name) == 0) {
            return &fetch->others.items[i];
        }
    }
    return NULL;
}

void others_add(struct fetch *fetch, const char *name) {
    struct others *others = &fetch->others;
    struct stream stream, *known = others_by_name(fetch, name);
    if (known) {
        known->let_go = true; /* what it gave already is read once more */
        return;
    }
    if (!stream_init(&stream, fetch->prefix, name) || stream.class != CLASS_STREAM_OTHERS) {
        return;
    }
    stream.state = STREAM_PENDING;
    if (others->count == others->size) {
        uint32_t size = others->size ? others->size * 2 : 16;
        struct stream *grown = realloc(others->items, size * sizeof *grown);
        if (!grown) {
            fetch_reread(fetch);
            return;
        }
        others->items = grown;
        others->size = size;
    }
    others->items[others->count++] = stream;
}

void others_remove(struct fetch *fetch, struct stream *stream) {
    *stream = fetch->others.items[--fetch->others.count];
}

struct stream *others_pending(struct fetch *fetch) {
    for (uint32_t i = 0; i < fetch->others.count; i++) {
        if (fetch_reads(fetch, &fetch->others.items[i])) {
            return &fetch->others.items[i];
        }
    }
    return NULL;
}

void others_sweep_again(struct fetch *fetch) {
    fetch->others.sweeping = true;
    fetch->others.position[0] = 0;
}

/* bypost_pending: the next position, and streams. */
static void on_swept(void *context, redisReply *reply) {
    struct fetch *fetch = context;
    if (!fetch_answered(fetch) || fetch->state != FETCH_READING || !reply) {
        return;
    }
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements < 1 || reply->element[0]->type != REDIS_REPLY_STRING) {
        if (!fetch_is_fenced(fetch, redis_error(reply))) {
            reading_failed(fetch, redis_error(reply));
        }
        return;
    }
    for (size_t i = 1; i < reply->elements; i++) {
        if (reply->element[i]->type == REDIS_REPLY_STRING) {
            others_add(fetch, reply->element[i]->str);
        }
    }
    snprintf(fetch->others.position, sizeof fetch->others.position, "%s", reply->element[0]->str);
    fetch->others.sweeping = fetch->others.position[0] != 0;
    fetch_next(fetch);
}

bool others_sweep(struct fetch *fetch) {
    char key[REDIS_KEY_MAX + 16], epoch[24];
    if (!fetch->others.sweeping) {
        return false;
    }
    snprintf(key, sizeof key, "%sactive", fetch->prefix);
    fetch_epoch(fetch, epoch);
    const char *argv[] = {"FCALL", "bypost_pending", "1", key, fetch->prefix, fetch_consumer(fetch), epoch, fetch->others.position};
    fetch_enter(fetch, FETCH_READING);
    if (!fetch_send(fetch, fetch->config.redis, on_swept, 8, argv, NULL)) {
        fetch_pause(fetch, PAUSE_MS);
    }
    return true;
}

/* --- fair order --- */

static double number_of(const redisReply *head, size_t field) {
    return head->element[field]->type == REDIS_REPLY_STRING ? strtod(head->element[field]->str, NULL) : 0;
}

/* {queue, 'retry' or '', expires_at, entries}. */
static void group_take(struct fetch *fetch, const redisReply *group) {
    char name[STREAM_NAME_BYTES + 8];
    struct stream stream;
    if (group->type != REDIS_REPLY_ARRAY || group->elements < 4 || group->element[0]->type != REDIS_REPLY_STRING ||
        group->element[1]->type != REDIS_REPLY_STRING || group->element[2]->type != REDIS_REPLY_STRING ||
        group->element[3]->type != REDIS_REPLY_ARRAY) {
        return;
    }
    snprintf(name, sizeof name, "%s%.*s", group->element[1]->len ? "retry:" : "", QUEUE_NAME_MAX + 1, group->element[0]->str);
    if (!stream_init(&stream, fetch->prefix, name)) {
        log_write(LOG_LEVEL_ERROR, "fetch", "a queue's name is none: %.60s: its entries stay pending", name);
        return;
    }
    uint64_t expires_ms = strtoull(group->element[2]->str, NULL, 10);
    for (size_t i = 0; i < group->element[3]->elements; i++) {
        fetch_take(fetch, &stream, group->element[3]->element[i], expires_ms);
    }
}

static void on_taken(void *context, redisReply *reply) {
    struct fetch *fetch = context;
    if (!fetch_answered(fetch) || fetch->state != FETCH_READING || !reply) {
        return;
    }
    const redisReply *head = reply->type == REDIS_REPLY_ARRAY && reply->elements > 0 ? reply->element[0] : NULL;
    if (!head || head->type != REDIS_REPLY_ARRAY || head->elements < HEAD_FIELDS ||
        head->element[HEAD_TAKEN]->type != REDIS_REPLY_INTEGER) {
        if (!fetch_is_fenced(fetch, redis_error(reply))) {
            reading_failed(fetch, redis_error(reply));
        }
        return;
    }
    fetch->counters.takes++;
    fetch->flows.weight[FLOW_OTHERS] = number_of(head, HEAD_WEIGHT);
    fetch->flows.weight[FLOW_NORMAL] = number_of(head, HEAD_NORMAL_WEIGHT);
    fetch->flows.weight[FLOW_BULK] = number_of(head, HEAD_BULK_WEIGHT);
    if (fetch->unknown) {
        fetch->unknown = false;
        fetch_next(fetch);
        return;
    }
    uint64_t before = fetch->counters.recipients_read;
    for (size_t i = 1; i < reply->elements; i++) {
        group_take(fetch, reply->element[i]);
    }
    bool any = reply->elements > 1 || head->element[HEAD_MORE]->integer == 1;
    fetch->pass_entries += any;
    uint64_t recipients = fetch->counters.recipients_read - before;
    excess_move(fetch);
    flows_charge(&fetch->flows, FLOW_OTHERS, recipients, any);
    fetch->tried |= any ? 0 : 1u << FLOW_OTHERS;
    fetch->class = any ? STREAM_CLASSES : CLASS_STREAM_NORMAL;
    fetch_next(fetch);
}

void others_take(struct fetch *fetch, uint32_t recipients) {
    char key[REDIS_KEY_MAX + 16], epoch[24], number[16];
    snprintf(key, sizeof key, "%sactive", fetch->prefix);
    snprintf(number, sizeof number, "%" PRIu32, recipients < TAKE_RECIPIENTS ? recipients : TAKE_RECIPIENTS);
    fetch_epoch(fetch, epoch);
    const char *argv[] = {"FCALL", "bypost_take", "1", key, fetch->prefix, fetch_consumer(fetch), epoch, number};
    fetch_enter(fetch, FETCH_READING);
    if (!fetch_send(fetch, fetch->config.redis, on_taken, 8, argv, NULL)) {
        fetch_pause(fetch, PAUSE_MS);
    }
}

/* EXISTS: is there anything in the order, resting or draining? */
static void on_polled(void *context, redisReply *reply) {
    struct fetch *fetch = context;
    if (!fetch_answered(fetch)) {
        return;
    }
    fetch->polling = false;
    uint32_t room = fetch->state == FETCH_WAITING ? reading_room(fetch, false) : 0;
    if (room > 0 && reply && reply->type == REDIS_REPLY_INTEGER && reply->integer > 0) {
        fetch->pass_entries = 0;
        fetch->tried = 1u << FLOW_NORMAL | 1u << FLOW_BULK; /* the second connection waits for those */
        others_take(fetch, room);
    }
}

void others_poll(struct fetch *fetch) {
    char active[REDIS_KEY_MAX + 16], resting[REDIS_KEY_MAX + 16], draining[REDIS_KEY_MAX + 16];
    snprintf(active, sizeof active, "%sactive", fetch->prefix);
    snprintf(resting, sizeof resting, "%sresting", fetch->prefix);
    snprintf(draining, sizeof draining, "%sdraining", fetch->prefix);
    const char *argv[] = {"EXISTS", active, resting, draining};
    fetch->polling = fetch->polling || fetch_send(fetch, fetch->config.redis, on_polled, 4, argv, NULL);
}
