/* streams.c: the table of streams, kept in reading order: high, retries, normal, bulk and campaigns. */
#include "streams.h"

#include <stdio.h>
#include <string.h>

static void stream_insert(struct streams *streams, const char *prefix, const char *queue, bool is_retry, bool is_campaign,
                          uint64_t now_ms) {
    struct stream stream = {.is_retry = is_retry, .is_campaign = is_campaign, .seen = true, .read_ms = now_ms};
    snprintf(stream.queue, sizeof stream.queue, "%s", queue);
    snprintf(stream.name, sizeof stream.name, "%s%s", is_retry ? "retry:" : "", stream.queue);
    snprintf(stream.key, sizeof stream.key, "%.191sq:%s", prefix, stream.name);
    stream.class = strcmp(queue, "high") == 0     ? CLASS_STREAM_HIGH
                   : is_retry                     ? CLASS_STREAM_RETRY
                   : strcmp(queue, "normal") == 0 ? CLASS_STREAM_NORMAL
                                                  : CLASS_STREAM_BULK;
    uint32_t at = 0;
    while (at < streams->count && streams->items[at].class <= stream.class) {
        at++;
    }
    memmove(&streams->items[at + 1], &streams->items[at], (streams->count - at) * sizeof stream);
    streams->items[at] = stream;
    streams->count++;
}

void streams_init(struct streams *streams, const char *prefix, uint64_t now_ms) {
    static const char *const standard[] = {"high", "normal", "bulk"};
    streams->count = 0;
    for (size_t i = 0; i < 3; i++) {
        stream_insert(streams, prefix, standard[i], false, false, now_ms);
        stream_insert(streams, prefix, standard[i], true, false, now_ms);
    }
}

/* A queue's name as a campaign may have it. */
static bool queue_name_ok(const char *queue) {
    size_t length = strlen(queue);
    if (length == 0 || length > QUEUE_NAME_MAX) {
        return false;
    }
    for (const char *c = queue; *c; c++) {
        if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || strchr("._-", *c))) {
            return false;
        }
    }
    return strcmp(queue, "retry") != 0;
}

bool streams_add_campaign(struct streams *streams, const char *prefix, const char *queue, uint64_t now_ms) {
    bool known = false;
    for (uint32_t i = 0; i < streams->count; i++) {
        if (strcmp(streams->items[i].queue, queue) == 0) {
            streams->items[i].seen = true;
            known = true;
        }
    }
    if (known) {
        return true;
    }
    if (!queue_name_ok(queue) || streams->count + 2 > STREAMS_MAX) {
        return false;
    }
    stream_insert(streams, prefix, queue, false, true, now_ms);
    stream_insert(streams, prefix, queue, true, true, now_ms);
    return true;
}

void streams_forget_unseen(struct streams *streams) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < streams->count; i++) {
        if (streams->items[i].seen || !streams->items[i].is_campaign) {
            if (kept != i) {
                streams->items[kept] = streams->items[i];
            }
            streams->items[kept++].seen = false;
        }
    }
    streams->count = kept;
}

void streams_reread(struct streams *streams) {
    for (uint32_t i = 0; i < streams->count; i++) {
        struct stream *stream = &streams->items[i];
        if (stream->state == STREAM_READY) {
            stream->state = STREAM_PENDING;
            stream->cursor = (struct entry_id){0, 0};
        }
    }
}

struct stream *streams_by_key(struct streams *streams, const char *key) {
    for (uint32_t i = 0; i < streams->count; i++) {
        if (strcmp(streams->items[i].key, key) == 0) {
            return &streams->items[i];
        }
    }
    return NULL;
}

struct stream *streams_by_name(struct streams *streams, const char *name) {
    for (uint32_t i = 0; i < streams->count; i++) {
        if (strcmp(streams->items[i].name, name) == 0) {
            return &streams->items[i];
        }
    }
    return NULL;
}
