/* entry.h: an entry of a queue's stream as Redis answers it, and the history that it carries when it is not its job's first, in its field
 * `r` (the job is whole) or `s` (it holds only the recipients of the history's indexes): ORIGIN ATTEMPT FIRST_QUEUED_MS DATE_S FLAGS
 * INDEXES            for example  1700000000000-0 2 1700000000000 1700000001 0 0-3,7 Used by fetch, and by settle for what it must look up
 * again. */
#ifndef CONTROL_FETCH_ENTRY_H
#define CONTROL_FETCH_ENTRY_H

#include "control/config/config.h"
#include "control/job.h"
#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    ENTRY_ID_BYTES = 42,
    HISTORY_HEAD_BYTES = 128,
    RANGES_BYTES = JOB_RECIPIENTS_MAX * 4 + 1, /* "0,2,4,..." is the longest list there is */
    PROGRESS_COUNT_BYTES = 2,                  /* in front of the bits: how many are set */
};

/* Pointers into the reply. */
struct entry_view {
    struct entry_id id;
    const char *job, *history;
    size_t job_length, history_length;
    bool is_subset;       /* its history is `s` */
    bool depth_counted;   /* it has `n` or `c`: the submit Function wrote it */
    bool content_counted; /* it has `c` */
    uint32_t recipients;  /* what its producer said in `n`; 0: nothing, or nonsense */
    const uint8_t *bits;  /* of the recipients settled or moved; behind the count */
    size_t bits_length;
};

/* "ms-seq". False when it is none. */
bool entry_id_parse(const char *text, size_t length, struct entry_id *out);
void entry_id_write(struct entry_id id, char out[ENTRY_ID_BYTES]);
/* {ID, fields} of XREADGROUP and XRANGE, {ID, fields, progress} of bypost_read. False when the reply has another shape; job NULL when the
 * field is missing. */
bool entry_view_take(const redisReply *reply, struct entry_view *out);
/* FLAGS of a history are a sum of these (control/library/README.md). */
enum { HISTORY_UNCERTAIN = 1, HISTORY_CONTENT_COUNTED = 2, HISTORY_NOTIFIED = 4, HISTORY_DEPTH_COUNTED = 8, HISTORY_FLAGS = 15 };

/* Decodes an entry of `queue`, or of its retry stream. pending holds what the entry is about, without the recipients whose bits are set;
 * entry_recipients counts both. NULL with the dead letter's reason. */
struct job *entry_decode(const struct entry_view *view, const struct config *config, uint32_t shard, const char *queue, bool is_retry,
                         char *error, size_t error_bytes);
/* The history without its indexes: what the Function library calls the head. */
void history_head_write(const struct job_history *history, char out[HISTORY_HEAD_BYTES]);
/* "0-3,7" for ascending indexes. */
void ranges_write(const uint32_t *indexes, uint32_t count, char out[RANGES_BYTES]);

#endif
