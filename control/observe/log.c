/* log.c: one JSON line an entry on stderr. Entries of one room and format share a budget, whatever names and numbers they fill in, so that
 * a flood of one failure costs a few lines; what was held back is told with its count. A process has one log: this file's state is the
 * exception to the rule that state hangs off a thread's struct. */
#include "log.h"
#include "control/clock.h"
#include "json_text.h"

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    LOG_MESSAGE_BYTES = 2048,
    LOG_KINDS = 64,        /* kinds of message remembered at once */
    LOG_BURST = 10,        /* of one kind ... */
    LOG_WINDOW_MS = 10000, /* ... in this time */
};

struct log_kind {
    uint64_t hash; /* 0: unused */
    uint64_t began_ms;
    uint32_t written, held;
    enum log_level level;
    char room[32];
    char message[256]; /* the last one held back */
};

static struct {
    pthread_mutex_t lock;
    char program[32];
    enum log_level level;
    struct log_kind kinds[LOG_KINDS];
} state = {.lock = PTHREAD_MUTEX_INITIALIZER, .program = "bypost", .level = LOG_LEVEL_INFO};

/* Does a format say anything itself? "%s:%u: %s" does not: its entries are of one kind when their texts are. */
static bool format_speaks(const char *format) {
    for (const char *at = format; *at; at++) {
        if (*at == '%') {
            at += strspn(at + 1, "%-+ #0123456789.*hljzt") + 1;
            if (!*at) {
                break;
            }
        } else if (isalpha((unsigned char)*at)) {
            return true;
        }
    }
    return false;
}

/* FNV-1a over everything but digits. */
static uint64_t kind_hash(const char *room, const char *text) {
    uint64_t hash = 0xcbf29ce484222325u;
    const char *const texts[] = {room, text};
    for (unsigned i = 0; i < 2; i++) {
        for (const char *at = texts[i]; *at; at++) {
            if (!isdigit((unsigned char)*at)) {
                hash = (hash ^ (unsigned char)*at) * 0x100000001b3u;
            }
        }
        hash = (hash ^ 0xff) * 0x100000001b3u;
    }
    return hash ? hash : 1;
}

/* Cut to the room there is: the log's own words for what it cannot hold. */
static void text_copy(char *to, size_t to_bytes, const char *from) {
    size_t length = strnlen(from, to_bytes - 1);
    memcpy(to, from, length);
    to[length] = 0;
}

/* One write, so that lines of several processes on one pipe stay whole. A log that cannot be written must not stop the sender. */
static void line_write(enum log_level level, const char *room, const char *message, uint32_t held) {
    static const char *const levels[] = {"error", "warning", "info", "debug"};
    char program_json[80], room_json[80], message_json[LOG_MESSAGE_BYTES * 2], stamp[32], repeated[48] = "", told[384];
    char line[sizeof message_json + 512];
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &parts);
    json_text(program_json, sizeof program_json, state.program);
    json_text(room_json, sizeof room_json, room);
    if (held) {
        snprintf(repeated, sizeof repeated, ",\"repeated\":%u", held);
        snprintf(told, sizeof told, "repeated %u times, last: %s", held, message);
    }
    json_text(message_json, sizeof message_json, held ? told : message);
    int length = snprintf(line, sizeof line, "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"program\":%s,\"room\":%s,\"message\":%s%s}\n",
                          stamp, now.tv_nsec / 1000000, levels[level], program_json, room_json, message_json, repeated);
    for (int done = 0; done < length;) {
        ssize_t written = write(STDERR_FILENO, line + done, (size_t)(length - done));
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            return;
        }
        done += (int)written;
    }
}

static void kind_end(struct log_kind *kind) {
    if (kind->held) {
        line_write(kind->level, kind->room, kind->message, kind->held);
    }
    kind->hash = 0;
}

static void kinds_expire(uint64_t now) {
    for (struct log_kind *kind = state.kinds; kind < state.kinds + LOG_KINDS; kind++) {
        if (kind->hash && now - kind->began_ms >= LOG_WINDOW_MS) {
            kind_end(kind);
        }
    }
}

/* Which place is given away first: an unused one, then the oldest that is not held back, or a flood would begin anew. */
static bool kind_goes_before(const struct log_kind *kind, const struct log_kind *other) {
    if (!kind->hash || !other->hash) {
        return !kind->hash && other->hash;
    }
    return (kind->held > 0) != (other->held > 0) ? other->held > 0 : kind->began_ms < other->began_ms;
}

/* Ends the kinds whose time is over, then says whether this message may be written. */
static bool kind_admit(enum log_level level, const char *room, const char *format, const char *message) {
    uint64_t hash = kind_hash(room, format_speaks(format) ? format : message), now = clock_ms(CLOCK_MONOTONIC);
    struct log_kind *mine = NULL, *oldest = &state.kinds[0];
    kinds_expire(now);
    for (struct log_kind *kind = state.kinds; kind < state.kinds + LOG_KINDS; kind++) {
        if (kind->hash == hash) {
            mine = kind;
        }
        if (kind_goes_before(kind, oldest)) {
            oldest = kind;
        }
    }
    if (!mine) {
        mine = oldest;
        if (mine->hash) {
            kind_end(mine);
        }
        *mine = (struct log_kind){.hash = hash, .began_ms = now};
    }
    if (mine->written < LOG_BURST) {
        mine->written++;
        return true;
    }
    mine->held++;
    mine->level = level;
    text_copy(mine->room, sizeof mine->room, room);
    text_copy(mine->message, sizeof mine->message, message);
    return false;
}

void log_start(const char *program, enum log_level level) {
    pthread_mutex_lock(&state.lock);
    text_copy(state.program, sizeof state.program, program);
    state.level = level;
    pthread_mutex_unlock(&state.lock);
}

void log_write(enum log_level level, const char *room, const char *format, ...) {
    char message[LOG_MESSAGE_BYTES];
    int kept_errno = errno;
    va_list arguments;
    if (level > LOG_LEVEL_DEBUG || level > state.level) {
        return;
    }
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    pthread_mutex_lock(&state.lock);
    if (kind_admit(level, room, format, message)) {
        line_write(level, room, message, 0);
    }
    pthread_mutex_unlock(&state.lock);
    errno = kept_errno;
}

void log_tick(void) {
    pthread_mutex_lock(&state.lock);
    kinds_expire(clock_ms(CLOCK_MONOTONIC));
    pthread_mutex_unlock(&state.lock);
}

void log_flush(void) {
    pthread_mutex_lock(&state.lock);
    for (struct log_kind *kind = state.kinds; kind < state.kinds + LOG_KINDS; kind++) {
        if (kind->hash) {
            kind_end(kind);
        }
    }
    pthread_mutex_unlock(&state.lock);
}
