/* pack.c: outcomes sorted into sections: entries of one recipient with the same end as a run of IDs, entries of several with their
 * outcomes as bits. What a recipient ended with takes a few bytes then, which Redis need not take apart one by one. */
#include "pack.h"

#include "control/fetch/entry.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    EVENTS_MARK = UINT32_MAX, /* in place of a length: behind the next argument, a number, go so many events */
    SUBSET_FIXED_BYTES = 512, /* a record has a text of its own while what is in it besides its recipients is no more than this */
    SUBSET_FIXED_EACH = 128,  /* and this for each of them; else the whole job is kept, once for all of its records */
    BITS_BYTES = JOB_RECIPIENTS_MAX / 8 + 2,
    CHARGE_BYTES = 96,
};

/* --- arguments --- */

static void argument(struct commit *commit, const char *value, size_t length) {
    uint32_t prefix = (uint32_t)length;
    text_add(&commit->packed, (const char *)&prefix, sizeof prefix);
    text_add(&commit->packed, value, length);
    commit->arguments++;
}

static void argument_text(struct commit *commit, const char *value) {
    argument(commit, value, strlen(value));
}

static void argument_number(struct commit *commit, uint64_t number) {
    char text[24];
    argument(commit, text, (size_t)snprintf(text, sizeof text, "%" PRIu64, number));
}

/* The events of these items, all or none: 0 or as many as there are items, then they. */
static void argument_events(struct commit *commit, const struct commit_item *const *items, uint32_t count) {
    uint32_t mark = EVENTS_MARK, some = 0;
    for (uint32_t i = 0; i < count; i++) {
        some += items[i]->event != NULL;
    }
    if (some == 0) {
        argument(commit, "0", 1);
        return;
    }
    text_add(&commit->packed, (const char *)&mark, sizeof mark);
    text_add(&commit->packed, (const char *)&count, sizeof count);
    argument_number(commit, count);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t length = (uint32_t)items[i]->event_length;
        text_add(&commit->events, (const char *)&length, sizeof length);
        text_add(&commit->events, items[i]->event, length);
    }
    commit->event_count += count;
}

static uint32_t length_take(const char **at) {
    uint32_t length;
    memcpy(&length, *at, sizeof length);
    *at += sizeof length;
    return length;
}

size_t pack_arguments(const struct commit *commit, const char **values, size_t *lengths) {
    size_t count = 0;
    const char *event = commit->events.bytes;
    for (const char *at = commit->packed.bytes, *end = at + commit->packed.length; at < end;) {
        uint32_t length = length_take(&at), events = 0;
        bool dropped = length == EVENTS_MARK && commit->event_count == 0;
        if (length == EVENTS_MARK) {
            events = length_take(&at);
            length = length_take(&at);
        }
        values[count] = dropped ? "0" : at;
        lengths[count++] = dropped ? 1 : length;
        at += length;
        for (uint32_t i = 0; i < events && !dropped; i++) {
            lengths[count] = length_take(&event);
            values[count++] = event;
            event += lengths[count - 1];
        }
    }
    return count;
}

/* --- order --- */

/* The letters of sections, in the order in which they are packed. */
static char item_section(const struct commit_item *item) {
    return item->entry_pending != 1 ? 'E' : item->wait || item->notice ? 'W' : 'S';
}

/* How the submit Function counted the recipient: "" not at all, else n (in depth) or - and the ID of a counted content. */
static void charge_write(const struct job *job, char out[CHARGE_BYTES]) {
    bool content = job && job->content_counted && job->content_id;
    bool depth = job && job->history.depth_counted;
    snprintf(out, CHARGE_BYTES, "%s%.64s", depth ? "n" : content ? "-" : "", content ? job->content_id : "");
}

static int numbers_compare(uint64_t a, uint64_t b) {
    return a < b ? -1 : a > b;
}

static int wait_compare(const struct commit_wait *a, const struct commit_wait *b) {
    if (!a || !b) {
        return (a != NULL) - (b != NULL);
    }
    int order = numbers_compare(a->ms, b->ms);
    order = order ? order : numbers_compare(a->history.attempt, b->history.attempt);
    order = order ? order : numbers_compare(a->history.date_s, b->history.date_s);
    order = order ? order : numbers_compare(a->history.first_queued_ms, b->history.first_queued_ms);
    order = order ? order : numbers_compare(a->history.notified, b->history.notified);
    order = order ? order : numbers_compare(a->history.uncertain, b->history.uncertain);
    order = order ? order : strcmp(a->where, b->where);
    return order ? order : strcmp(a->tail, b->tail);
}

static int stream_compare(const struct commit_item *a, const struct commit_item *b) {
    int order = strcmp(a->queue, b->queue);
    return order ? order : numbers_compare(a->is_retry, b->is_retry);
}

static int entry_compare(const struct commit_item *a, const struct commit_item *b) {
    int order = numbers_compare(a->entry.ms, b->entry.ms);
    return order ? order : numbers_compare(a->entry.seq, b->entry.seq);
}

/* What may go into one run of IDs, or one group of an entry, stands together. */
static int group_compare(const struct commit_item *a, const struct commit_item *b) {
    int order = numbers_compare((uint64_t)a->action, (uint64_t)b->action);
    order = order ? order : numbers_compare(a->alone, b->alone);
    order = order ? order : numbers_compare(a->event != NULL, b->event != NULL);
    order = order ? order : numbers_compare(a->notice != NULL, b->notice != NULL);
    return order ? order : wait_compare(a->wait, b->wait);
}

static int singles_compare(const struct commit_item *a, const struct commit_item *b) {
    char ours[CHARGE_BYTES], theirs[CHARGE_BYTES];
    int order = group_compare(a, b);
    if (order || (!a->job && !b->job)) {
        return order;
    }
    charge_write(a->job, ours);
    charge_write(b->job, theirs);
    return strcmp(ours, theirs);
}

static int items_compare(const void *first, const void *second) {
    const struct commit_item *a = *(const struct commit_item *const *)first, *b = *(const struct commit_item *const *)second;
    int order = numbers_compare((uint64_t)item_section(a), (uint64_t)item_section(b));
    order = order ? order : stream_compare(a, b);
    if (item_section(a) == 'S' && order == 0) {
        order = singles_compare(a, b);
        return order ? order : numbers_compare((uintptr_t)a, (uintptr_t)b);
    }
    order = order ? order : entry_compare(a, b);
    order = order ? order : group_compare(a, b);
    order = order ? order : numbers_compare(a->index, b->index);
    return order ? order : numbers_compare((uintptr_t)a, (uintptr_t)b);
}

/* --- sections --- */

static void section_begin(struct commit *commit, const char *letter, const struct commit_item *item) {
    char stream[QUEUE_NAME_MAX + 9], charge[CHARGE_BYTES];
    snprintf(stream, sizeof stream, "%s%s", item->is_retry ? "retry:" : "", item->queue);
    charge_write(item->job, charge);
    argument_text(commit, letter);
    argument_text(commit, stream);
    argument_text(commit, item->queue);
    argument_text(commit, charge);
}

static void argument_letter(struct commit *commit, enum settle_action action) {
    char letter = (char)action;
    argument(commit, &letter, 1);
}

static void argument_entry(struct commit *commit, struct entry_id id) {
    char text[ENTRY_ID_BYTES];
    entry_id_write(id, text);
    argument_text(commit, text);
}

/* Where it waits and the record's first line but its kind. */
static void argument_wait(struct commit *commit, const struct commit_wait *wait, const uint32_t *indexes, uint32_t count) {
    char head[HISTORY_HEAD_BYTES], ranges[RANGES_BYTES], history[sizeof head + sizeof ranges];
    history_head_write(&wait->history, head);
    ranges_write(indexes, count, ranges);
    snprintf(history, sizeof history, "%s %s", head, ranges);
    argument_number(commit, wait->ms);
    argument_text(commit, wait->where);
    argument_text(commit, history);
    argument_text(commit, wait->tail);
}

/* A run of entries of one recipient with the same end. */
static uint32_t singles_pack(struct commit *commit, const struct commit_item *const *items, uint32_t left) {
    uint32_t count = 1;
    while (count < left && item_section(items[count]) == 'S' && stream_compare(items[0], items[count]) == 0 &&
           singles_compare(items[0], items[count]) == 0) {
        count++;
    }
    section_begin(commit, "S", items[0]);
    argument_letter(commit, items[0]->action);
    argument_number(commit, count);
    for (uint32_t i = 0; i < count; i++) {
        argument_entry(commit, items[i]->entry);
    }
    argument_events(commit, items, count);
    return count;
}

static void single_pack(struct commit *commit, const struct commit_item *item) {
    section_begin(commit, "W", item);
    argument_letter(commit, item->action);
    argument_entry(commit, item->entry);
    argument(commit, item->notice ? item->notice : "", item->notice_length);
    argument(commit, item->event ? item->event : "", item->event_length);
    if (item->wait) {
        argument_wait(commit, item->wait, &item->index, 1);
    }
}

/* Are these recipients worth a text of their own? */
static bool subset_is_small(const struct job *job, uint32_t count) {
    size_t fixed = job->source_length;
    for (uint32_t i = 0; i < job_recipient_count(job); i++) {
        size_t own = job->recipients[i].text_length;
        fixed -= own < fixed ? own : fixed;
    }
    return job->places || fixed <= SUBSET_FIXED_BYTES + count * (size_t)SUBSET_FIXED_EACH;
}

static void argument_job(struct commit *commit, const struct job *job, const uint32_t *indexes, uint32_t count) {
    size_t length = 0;
    char *text = job && job->source_text && subset_is_small(job, count) ? job_subset(job, indexes, count, &length) : NULL;
    argument(commit, text ? text : "", length);
    free(text);
}

static bool entry_same(const struct commit_item *a, const struct commit_item *b) {
    return item_section(b) == 'E' && stream_compare(a, b) == 0 && entry_compare(a, b) == 0;
}

/* How many of these make one group. */
static uint32_t group_size(const struct commit_item *const *items, uint32_t left) {
    const struct commit_item *first = items[0];
    uint32_t count = 1;
    while (count < left && !first->alone && !first->notice && entry_same(first, items[count]) && group_compare(first, items[count]) == 0 &&
           items[count]->index > items[count - 1]->index && items[count]->index / 8 - first->index / 8 < BITS_BYTES) {
        count++;
    }
    return count;
}

/* Outcomes of one entry that are the same: their indexes as bits. */
static void group_pack(struct commit *commit, const struct commit_item *const *items, uint32_t count) {
    uint8_t bits[BITS_BYTES] = {0};
    uint32_t indexes[COMMIT_ITEMS_MAX], skip = items[0]->index / 8, bytes = 0;
    for (uint32_t i = 0; i < count; i++) {
        indexes[i] = items[i]->index;
        bytes = indexes[i] / 8 - skip + 1;
        bits[bytes - 1] |= (uint8_t)(1 << indexes[i] % 8);
    }
    argument_letter(commit, items[0]->action);
    argument_number(commit, skip);
    argument(commit, (const char *)bits, bytes);
    argument_number(commit, count);
    argument(commit, items[0]->notice ? items[0]->notice : "", items[0]->notice_length);
    argument_events(commit, items, count);
    if (items[0]->wait) {
        argument_wait(commit, items[0]->wait, indexes, count);
        argument_job(commit, items[0]->job, indexes, count);
    }
}

/* The outcomes of an entry of several recipients. */
static uint32_t several_pack(struct commit *commit, const struct commit_item *const *items, uint32_t left) {
    const struct commit_item *first = items[0];
    uint32_t count = 0, groups = 0;
    while (count < left && entry_same(first, items[count])) {
        count += group_size(items + count, left - count);
        groups++;
    }
    section_begin(commit, "E", first);
    argument_entry(commit, first->entry);
    argument_number(commit, first->entry_pending);
    argument_number(commit, groups);
    for (uint32_t at = 0, size; at < count; at += size) {
        size = group_size(items + at, count - at);
        group_pack(commit, items + at, size);
    }
    return count;
}

bool commit_pack(struct commit *commit) {
    const struct commit_item *items[COMMIT_ITEMS_MAX];
    for (uint32_t i = 0; i < commit->count; i++) {
        items[i] = &commit->items[i];
    }
    qsort(items, commit->count, sizeof items[0], items_compare);
    commit->arguments = commit->event_count = 0;
    for (uint32_t at = 0; at < commit->count;) {
        char section = item_section(items[at]);
        uint32_t left = commit->count - at;
        if (section == 'S') {
            at += singles_pack(commit, items + at, left);
        } else if (section == 'E') {
            at += several_pack(commit, items + at, left);
        } else {
            single_pack(commit, items[at++]);
        }
    }
    for (uint32_t i = 0; i < commit->count; i++) {
        commit->order[i] = (uint32_t)(items[i] - commit->items);
    }
    if (commit->packed.failed || commit->events.failed) {
        text_free(&commit->packed);
        text_free(&commit->events);
        return false;
    }
    return true;
}
