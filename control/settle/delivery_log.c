/* delivery_log.c: buffered appends of whole lines; several shards may write to one file, each with its own buffer and descriptor. */
#include "delivery_log.h"

#include "control/observe/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LOG_BUFFER_BYTES = 64 << 10, LOG_MODE = 0640 };

struct delivery_log {
    char *path;
    uint64_t rotate_bytes, size;
    uint32_t rotate_keep;
    int fd;         /* -1: not open */
    uint32_t lines; /* buffered */
    uint64_t errors;
    size_t length;
    char buffer[LOG_BUFFER_BYTES];
};

struct delivery_log *delivery_log_create(const char *path, uint64_t rotate_bytes, uint32_t rotate_keep) {
    struct delivery_log *log = calloc(1, sizeof *log);
    if (!log || !(log->path = strdup(path))) {
        free(log);
        return NULL;
    }
    log->rotate_bytes = rotate_bytes;
    log->rotate_keep = rotate_keep;
    log->fd = -1;
    return log;
}

static bool log_open(struct delivery_log *log) {
    if (log->fd >= 0) {
        return true;
    }
    log->fd = open(log->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, LOG_MODE);
    struct stat status;
    if (log->fd < 0) {
        log_write(LOG_LEVEL_ERROR, "settle", "the delivery log %s cannot be opened: %s", log->path, strerror(errno));
        return false;
    }
    log->size = fstat(log->fd, &status) == 0 ? (uint64_t)status.st_size : 0;
    return true;
}

static void log_close(struct delivery_log *log) {
    if (log->fd >= 0) {
        close(log->fd);
    }
    log->fd = -1;
}

/* PATH.N goes, the others move up. Another shard may have done it a moment ago: then the name is another file's already. */
static void log_rotate(struct delivery_log *log) {
    struct stat ours, named;
    bool same = fstat(log->fd, &ours) == 0 && stat(log->path, &named) == 0 && ours.st_ino == named.st_ino && ours.st_dev == named.st_dev;
    log_close(log);
    if (!same) {
        return;
    }
    char from[PATH_MAX], to[PATH_MAX];
    for (uint32_t i = log->rotate_keep; i > 0; i--) {
        snprintf(to, sizeof to, "%s.%" PRIu32, log->path, i);
        if (i > 1) {
            snprintf(from, sizeof from, "%s.%" PRIu32, log->path, i - 1);
        } else {
            snprintf(from, sizeof from, "%s", log->path);
        }
        if (rename(from, to) != 0 && errno != ENOENT) {
            log_write(LOG_LEVEL_ERROR, "settle", "the delivery log %s cannot be renamed: %s", from, strerror(errno));
        }
    }
    if (log->rotate_keep == 0) {
        unlink(log->path);
    }
}

void delivery_log_flush(struct delivery_log *log) {
    if (log->length == 0) {
        return;
    }
    size_t done = 0;
    bool ok = log_open(log);
    while (ok && done < log->length) {
        ssize_t n = write(log->fd, log->buffer + done, log->length - done);
        if (n > 0) {
            done += (size_t)n;
        } else if (n < 0 && errno != EINTR) {
            log_write(LOG_LEVEL_ERROR, "settle", "the delivery log %s cannot be written: %s", log->path, strerror(errno));
            ok = false;
        }
    }
    log->size += done;
    log->errors += ok ? 0 : log->lines;
    log->length = 0;
    log->lines = 0;
    if (ok && log->rotate_bytes > 0 && log->size >= log->rotate_bytes) {
        log_rotate(log);
    }
}

void delivery_log_write(struct delivery_log *log, const char *line, size_t length) {
    if (length + 1 > LOG_BUFFER_BYTES) {
        log->errors++;
        return;
    }
    if (log->length + length + 1 > LOG_BUFFER_BYTES ||
        (log->rotate_bytes > 0 && log->length > 0 && log->size + log->length >= log->rotate_bytes)) {
        delivery_log_flush(log);
    }
    memcpy(log->buffer + log->length, line, length);
    log->buffer[log->length + length] = '\n';
    log->length += length + 1;
    log->lines++;
}

void delivery_log_reopen(struct delivery_log *log) {
    delivery_log_flush(log);
    log_close(log);
}

void delivery_log_destroy(struct delivery_log *log) {
    if (log) {
        delivery_log_reopen(log);
        free(log->path);
        free(log);
    }
}

uint64_t delivery_log_errors(const struct delivery_log *log) {
    return log->errors;
}
