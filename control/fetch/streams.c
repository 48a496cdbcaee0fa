/* streams.c: the streams of the queues that always exist, in reading order: high, retries, normal, bulk. */
#include "streams.h"

#include <stdio.h>
#include <string.h>

static const char RETRY[] = "retry:";

/* A queue's name as it may be. */
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

static enum stream_class class_of(const char *queue, bool is_retry) {
    if (strcmp(queue, "high") == 0) {
        return CLASS_STREAM_HIGH;
    }
    if (strcmp(queue, "normal") == 0) {
        return is_retry ? CLASS_STREAM_RETRY : CLASS_STREAM_NORMAL;
    }
    if (strcmp(queue, "bulk") == 0) {
        return is_retry ? CLASS_STREAM_RETRY : CLASS_STREAM_BULK;
    }
    return CLASS_STREAM_OTHERS;
}

bool stream_init(struct stream *stream, const char *prefix, const char *name) {
    bool is_retry = strncmp(name, RETRY, sizeof RETRY - 1) == 0;
    const char *queue = is_retry ? name + sizeof RETRY - 1 : name;
    *stream = (struct stream){.is_retry = is_retry};
    if (!queue_name_ok(queue)) {
        return false;
    }
    snprintf(stream->queue, sizeof stream->queue, "%s", queue);
    snprintf(stream->name, sizeof stream->name, "%s%s", is_retry ? RETRY : "", stream->queue);
    snprintf(stream->key, sizeof stream->key, "%.191sq:%s", prefix, stream->name);
    stream->class = class_of(stream->queue, is_retry);
    return true;
}

void streams_init(struct streams *streams, const char *prefix) {
    static const char *const names[STREAMS_MAX] = {"retry:high", "high", "retry:normal", "retry:bulk", "normal", "bulk"};
    streams->count = STREAMS_MAX;
    for (uint32_t i = 0; i < STREAMS_MAX; i++) {
        stream_init(&streams->items[i], prefix, names[i]);
    }
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
