/* subset.c: a job with some of its recipients[] only: its text, and the job that such a text becomes again. */
#include "control/job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { FIXARRAY_MAX = 15, ARRAY16_BYTES = 3, FIXMAP_MAX = 15, MAP16_BYTES = 3, MAP32_BYTES = 5, MERGES_BYTES_MAX = 24 };

/* The part of the text that stands between the selected elements and what is before and behind all of them. */
struct frame {
    size_t prefix; /* bytes before the first element, without MessagePack's array header */
    size_t suffix_at;
    uint8_t header[ARRAY16_BYTES];
    size_t header_length;
    bool is_json;
};

static struct frame frame_of(const struct job *job, uint32_t count) {
    const struct job_recipient *first = &job->recipients[0], *last = &job->recipients[job_recipient_count(job) - 1];
    struct frame frame = {.prefix = first->text_at, .suffix_at = (size_t)last->text_at + last->text_length};
    frame.is_json = job->source_text[job->recipients_at] == '[';
    if (!frame.is_json) {
        frame.prefix = job->recipients_at;
        if (count <= FIXARRAY_MAX) {
            frame.header[frame.header_length++] = (uint8_t)(0x90 | count);
        } else {
            frame.header[frame.header_length++] = 0xdc;
            frame.header[frame.header_length++] = (uint8_t)(count >> 8);
            frame.header[frame.header_length++] = (uint8_t)count;
        }
    }
    return frame;
}

static char *put(char *at, const void *bytes, size_t length) {
    memcpy(at, bytes, length);
    return at + length;
}

/* Merge data of any recipient make templates of the job's texts (control/render). Where those who have them are left out, the texts would
 * be something else for those who stay. */
static bool loses_merge_data(const struct job *job, const uint32_t *indexes, uint32_t count) {
    bool any = false, stays = job->merge_global_data || job->content_id;
    for (uint32_t i = 0; i < job_recipient_count(job); i++) {
        any = any || job->recipients[i].merge_data;
    }
    for (uint32_t i = 0; i < count && any && !stays; i++) {
        const struct job_recipient *recipient = job_recipient(job, indexes[i]);
        stays = recipient && recipient->merge_data;
    }
    return any && !stays;
}

/* What an element begins with when it gets empty merge data: out[MERGES_BYTES_MAX]. *taken bytes of the element are in it already. */
static size_t merges_write(const uint8_t *element, char *out, size_t *taken) {
    static const char json[] = "{\"merge_data\":{},", packed[] = "\xaamerge_data\x80";
    uint32_t members = element[0] & 0x0f;
    char *at = out;
    *taken = 1;
    if (element[0] == '{') {
        return (size_t)(put(at, json, sizeof json - 1) - out);
    }
    if (element[0] == 0xde) {
        *taken = MAP16_BYTES;
        members = (uint32_t)element[1] << 8 | element[2];
    } else if (element[0] == 0xdf) {
        *taken = MAP32_BYTES;
        members = (uint32_t)element[1] << 24 | (uint32_t)element[2] << 16 | (uint32_t)element[3] << 8 | element[4];
    }
    members++;
    if (members <= FIXMAP_MAX) {
        *at++ = (char)(0x80 | members);
    } else {
        *at++ = (char)0xdf;
        for (int shift = 24; shift >= 0; shift -= 8) {
            *at++ = (char)(members >> shift);
        }
    }
    at = put(at, packed, sizeof packed - 1);
    return (size_t)(at - out);
}

char *job_subset(const struct job *job, const uint32_t *indexes, uint32_t count, size_t *length) {
    *length = 0;
    if (!job->source_text || count == 0 || count > job_recipient_count(job)) {
        return NULL;
    }
    struct frame frame = frame_of(job, count);
    size_t bytes = frame.prefix + frame.header_length + (job->source_length - frame.suffix_at) + (frame.is_json ? count - 1 : 0);
    for (uint32_t i = 0; i < count; i++) {
        const struct job_recipient *recipient = job_recipient(job, indexes[i]);
        if (!recipient || (i > 0 && indexes[i] <= indexes[i - 1])) {
            return NULL;
        }
        bytes += recipient->text_length;
    }
    char merges[MERGES_BYTES_MAX] = {0};
    size_t merges_length = 0, taken = 0;
    if (loses_merge_data(job, indexes, count)) {
        merges_length = merges_write(job->source_text + job_recipient(job, indexes[0])->text_at, merges, &taken);
        bytes += merges_length - taken;
    }
    char *text = malloc(bytes);
    if (!text) {
        return NULL;
    }
    char *at = put(text, job->source_text, frame.prefix);
    at = put(at, frame.header, frame.header_length);
    for (uint32_t i = 0; i < count; i++) {
        const struct job_recipient *recipient = job_recipient(job, indexes[i]);
        if (i > 0 && frame.is_json) {
            *at++ = ',';
        }
        size_t from = i == 0 ? taken : 0;
        if (i == 0) {
            at = put(at, merges, merges_length);
        }
        at = put(at, job->source_text + recipient->text_at + from, recipient->text_length - from);
    }
    put(at, job->source_text + frame.suffix_at, job->source_length - frame.suffix_at);
    *length = bytes;
    return text;
}

int job_place(struct job *job, const uint32_t *indexes, uint32_t count, uint32_t recipient_total) {
    if (job->places || count != job->recipient_total || job->recipients[0].kind != RECIPIENT_PRIVATE) {
        return -EINVAL;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (indexes[i] >= recipient_total || (i > 0 && indexes[i] <= indexes[i - 1])) {
            return -EINVAL;
        }
    }
    uint32_t *places = malloc(count * sizeof *places), *pending = malloc(count * sizeof *pending);
    if (!places || !pending) {
        free(places);
        free(pending);
        return -ENOMEM;
    }
    memcpy(places, indexes, count * sizeof *places);
    memcpy(pending, indexes, count * sizeof *pending);
    free(job->pending);
    job->pending = pending;
    job->places = places;
    job->place_count = count;
    job->pending_count = count;
    job->entry_recipients = count;
    job->recipient_total = recipient_total;
    return 0;
}
