/* campaign_batch.c: gathers rows, has the sender's decoder look at them, many at once, and leaves out what it refuses. */
#include "campaign_batch.h"
#include "control/fetch/fetch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ADDRESS_BYTES = 320 };
static const char check_prefix[] = "{\"from\":\"sender@example.org\",\"text\":\"-\",\"recipients\":[";

/* Recipients [from, to) as a job; NULL with the reason in batch->error. */
static struct job *batch_decode(struct batch *batch, uint32_t from, uint32_t to) {
    struct writer *check = &batch->check;
    size_t at = batch->recipients[from].at, end = to == batch->count ? batch->text.at : batch->recipients[to].at;
    char error[2 * ROW_ERROR_BYTES];
    check->at = 0;
    check->limit = SIZE_MAX / 4;
    writer_bytes(check, check_prefix, sizeof check_prefix - 1);
    writer_bytes(check, batch->text.bytes + at, end - at - 1);
    writer_bytes(check, "]}", 2);
    struct job *job = check->error ? NULL : job_decode(check->bytes, check->at, batch->config, error, sizeof error);
    if (job && job->recipient_total != to - from) {
        job_release(job);
        job = NULL;
        snprintf(error, sizeof error, "the line is not one JSON object");
    }
    if (!job) {
        static const char place[] = "recipients[0]";
        const char *reason = check->error ? "out of memory" : error;
        bool placed = strncmp(reason, place, sizeof place - 1) == 0;
        reason += placed ? sizeof place - 1 : 0;
        snprintf(batch->error, sizeof batch->error, "%s", reason + strspn(reason, placed ? ".: " : ""));
    }
    return job;
}

/* The address of recipient i for the comparison, NULL when the decoder refuses the recipient (batch->error). `whole`: all of them decoded.
 */
static const char *batch_address(struct batch *batch, const struct job *whole, uint32_t from, uint32_t i, struct job **one,
                                 char out[ADDRESS_BYTES]) {
    if (whole) {
        return whole->recipients[i - from].mailbox.email;
    }
    if (batch->recipients[i].plain && batch->sampled) {
        size_t length = batch->recipients[i].address_length < ADDRESS_BYTES ? batch->recipients[i].address_length : ADDRESS_BYTES - 1;
        memcpy(out, batch->text.bytes + batch->recipients[i].address_at, length);
        out[length] = 0;
        return out;
    }
    *one = batch_decode(batch, i, i + 1);
    return *one ? (*one)->recipients[0].mailbox.email : NULL;
}

/* Keeps of the recipients from `from` on those that the decoder takes, and of each address the first. Plain ones cost no decoding once the
 * decoder has taken one of the file, for what all have in common; where most are not plain they are decoded together. */
static bool batch_judge(struct batch *batch, uint32_t from) {
    uint32_t kept = from, count = batch->count, others = 0;
    size_t at = batch->recipients[from].at, end = batch->text.at;
    for (uint32_t i = from; i < count; i++) {
        others += !batch->recipients[i].plain;
    }
    struct job *whole = others > (count - from) / 8 || !batch->sampled ? batch_decode(batch, from, count) : NULL;
    bool good = true;
    batch->sampled |= whole != NULL;
    batch->recipients[count].at = end;
    for (uint32_t i = from; i < count && good; i++) {
        size_t begin = batch->recipients[i].at, length = batch->recipients[i + 1].at - begin;
        struct job *one = NULL;
        char address[ADDRESS_BYTES];
        batch->text.at = end; /* the bytes behind `at` are still those that were read */
        const char *email = batch_address(batch, whole, from, i, &one, address);
        const struct job_recipient *decoded = whole ? &whole->recipients[i - from] : one ? &one->recipients[0] : NULL;
        if (email && decoded && batch->complete && !batch->complete(batch->context, decoded, batch->error)) {
            email = NULL;
        }
        enum dedupe_answer answer = email && batch->dedupe ? dedupe_add(batch->dedupe, email) : DEDUPE_NEW;
        if (!email) {
            batch->rejected(batch->context, batch->recipients[i].line, batch->error);
        } else if (answer == DEDUPE_SEEN) {
            batch->repeated++;
        } else if (answer == DEDUPE_FULL) {
            snprintf(batch->error, sizeof batch->error,
                     "%zu different addresses fill the %zu MiB that --dedupe may take: give more with --dedupe-memory", batch->dedupe->used,
                     batch->dedupe->max_bytes >> 20);
            good = false;
        } else {
            if (begin != at) {
                memmove(batch->text.bytes + at, batch->text.bytes + begin, length);
            }
            batch->recipients[kept].at = at;
            batch->recipients[kept++].line = batch->recipients[i].line;
            at += length;
            batch->sampled |= one != NULL;
        }
        job_release(one);
    }
    job_release(whole);
    batch->count = kept;
    batch->text.at = at;
    return good;
}

enum batch_result batch_next(struct batch *batch) {
    enum row_result result = ROW_GOOD;
    batch->count = 0;
    batch->text.at = 0;
    batch->text.error = 0;
    batch->text.limit = CHUNK_BYTES_MAX + ROW_MAX_BYTES * 2;
    while (result != ROW_END && batch->count < batch->chunk && batch->text.at < CHUNK_BYTES_MAX) {
        uint32_t from = batch->count;
        while (batch->count < batch->chunk && batch->text.at < CHUNK_BYTES_MAX && result != ROW_END) {
            uint64_t line;
            size_t at = batch->text.at;
            result = rows_next(batch->rows, &batch->text, &line, batch->error);
            if (result == ROW_GOOD) {
                batch->recipients[batch->count].at = at;
                batch->recipients[batch->count].plain = batch->rows->plain;
                batch->recipients[batch->count].address_at = batch->rows->address_at;
                batch->recipients[batch->count].address_length = batch->rows->address_length;
                batch->recipients[batch->count++].line = line;
                writer_byte(&batch->text, ',');
            } else if (result == ROW_BAD) {
                batch->rejected(batch->context, line, batch->error);
            } else if (result == ROW_FAULT) {
                return BATCH_FAULT;
            }
            if (batch->text.error) {
                snprintf(batch->error, sizeof batch->error, "out of memory");
                return BATCH_FAULT;
            }
        }
        if (batch->count > from && !batch_judge(batch, from)) {
            return BATCH_FAULT;
        }
    }
    return batch->count > 0 ? BATCH_CHUNK : BATCH_END;
}

void batch_free(struct batch *batch) {
    free(batch->text.bytes);
    free(batch->check.bytes);
}
