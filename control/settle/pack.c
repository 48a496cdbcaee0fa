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
    BITS_BYTES = UINT8_MAX + 1,
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
    char digits[TEXT_DIGITS_MAX];
    argument(commit, digits, text_digits(digits, number));
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

/* What is packed as one: a whole entry's end ('S'), one outcome with what belongs to it ('W'), or some outcomes of an entry ('E'). */
struct unit {
    const struct commit_item *const *items;
    uint32_t count;
    char section;
    char charge[CHARGE_BYTES];
};

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
    order = order ? order : numbers_compare(a->entry.seq, b->entry.seq);
    return order ? order : stream_compare(a, b);
}

/* What may go into one group of an entry stands together. */
static int group_compare(const struct commit_item *a, const struct commit_item *b) {
    int order = numbers_compare((uint64_t)a->action, (uint64_t)b->action);
    order = order ? order : numbers_compare(a->alone, b->alone);
    order = order ? order : numbers_compare(a->event != NULL, b->event != NULL);
    order = order ? order : numbers_compare(a->notice != NULL, b->notice != NULL);
    return order ? order : wait_compare(a->wait, b->wait);
}

static int items_compare(const void *first, const void *second) {
    const struct commit_item *a = *(const struct commit_item *const *)first, *b = *(const struct commit_item *const *)second;
    int order = entry_compare(a, b);
    order = order ? order : group_compare(a, b);
    order = order ? order : numbers_compare(a->index, b->index);
    return order ? order : numbers_compare((uintptr_t)a, (uintptr_t)b);
}

/* May these stand in one section? */
static int section_compare(const struct unit *a, const struct unit *b) {
    int order = numbers_compare((uint64_t)a->section, (uint64_t)b->section);
    order = order ? order : stream_compare(a->items[0], b->items[0]);
    order = order ? order : strcmp(a->charge, b->charge);
    return order || a->section != 'S' ? order : group_compare(a->items[0], b->items[0]);
}

static int units_compare(const void *first, const void *second) {
    int order = section_compare(first, second);
    return order ? order : numbers_compare((uintptr_t)((const struct unit *)first)->items, (uintptr_t)((const struct unit *)second)->items);
}

/* How many of these, all of one entry, make one group. */
static uint32_t group_size(const struct commit_item *const *items, uint32_t left) {
    const struct commit_item *first = items[0];
    uint32_t count = 1;
    while (count < left && !first->alone && !first->notice && group_compare(first, items[count]) == 0 &&
           items[count]->index > items[count - 1]->index) {
        count++;
    }
    return count;
}

/* The unit that begins with the first of these. */
static struct unit unit_take(const struct commit_item *const *items, uint32_t left) {
    const struct commit_item *first = items[0];
    struct unit unit = {.items = items, .count = 1, .section = 'E'};
    charge_write(first->job, unit.charge);
    if (first->entry_pending == 1) {
        unit.section = first->wait || first->notice ? 'W' : 'S';
        return unit;
    }
    while (unit.count < left && entry_compare(first, items[unit.count]) == 0) {
        unit.count++;
    }
    if (unit.count == first->entry_pending && !first->wait && !first->notice && !first->alone &&
        group_size(items, unit.count) == unit.count) {
        unit.section = 'S';
    }
    return unit;
}

/* --- sections --- */

static void section_begin(struct commit *commit, const struct unit *unit) {
    const struct commit_item *first = unit->items[0];
    char stream[QUEUE_NAME_MAX + 9];
    snprintf(stream, sizeof stream, "%s%s", first->is_retry ? "retry:" : "", first->queue);
    argument(commit, &unit->section, 1);
    argument_text(commit, stream);
    argument_text(commit, first->queue);
    argument_text(commit, unit->charge);
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

static void argument_entries(struct commit *commit, const struct unit *units, uint32_t count) {
    argument_number(commit, count);
    for (uint32_t i = 0; i < count; i++) {
        argument_entry(commit, units[i].items[0]->entry);
    }
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

/* Entries that end whole, all in the same way. */
static void whole_pack(struct commit *commit, const struct unit *units, uint32_t count) {
    const struct commit_item *items[COMMIT_ITEMS_MAX];
    uint8_t sizes[2 * COMMIT_ITEMS_MAX];
    uint32_t total = 0;
    section_begin(commit, units);
    argument_letter(commit, units[0].items[0]->action);
    argument_entries(commit, units, count);
    for (uint32_t i = 0; i < count; i++) {
        sizes[2 * i] = (uint8_t)units[i].count;
        sizes[2 * i + 1] = (uint8_t)(units[i].count >> 8);
        memcpy(items + total, units[i].items, units[i].count * sizeof items[0]);
        total += units[i].count;
    }
    argument(commit, (const char *)sizes, total > count ? 2 * (size_t)count : 0);
    argument_events(commit, items, total);
}

static void single_pack(struct commit *commit, const struct unit *unit) {
    const struct commit_item *item = unit->items[0];
    section_begin(commit, unit);
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

/* Outcomes of one entry that are the same: the letter, and their indexes as bits, each byte of them that is not 0 behind its position. */
static void group_pack(struct commit *commit, const struct commit_item *const *items, uint32_t count) {
    const struct commit_item *first = items[0];
    uint8_t bits[1 + 2 * BITS_BYTES] = {(uint8_t)(first->notice ? (int)first->action - 'a' + 'A' : (int)first->action)};
    uint32_t indexes[COMMIT_ITEMS_MAX], bytes = 1;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t index = indexes[i] = items[i]->index;
        if (i == 0 || index / 8 != indexes[i - 1] / 8) {
            bits[bytes] = (uint8_t)(index / 8 < UINT8_MAX ? index / 8 : UINT8_MAX); /* beyond JOB_RECIPIENTS_MAX: nobody's */
            bytes += 2;
        }
        bits[bytes - 1] |= (uint8_t)(1 << index % 8);
    }
    argument(commit, (const char *)bits, bytes);
    if (first->notice) {
        argument(commit, first->notice, first->notice_length);
    }
    argument_events(commit, items, count);
    if (first->wait) {
        argument_wait(commit, first->wait, indexes, count);
        argument_job(commit, first->job, indexes, count);
    }
}

/* Some outcomes of entries of several recipients. */
static void several_pack(struct commit *commit, const struct unit *units, uint32_t count) {
    section_begin(commit, units);
    argument_entries(commit, units, count);
    for (uint32_t i = 0; i < count; i++) {
        const struct unit *unit = &units[i];
        uint32_t groups = 0;
        for (uint32_t at = 0; at < unit->count; at += group_size(unit->items + at, unit->count - at)) {
            groups++;
        }
        argument_number(commit, unit->items[0]->entry_pending);
        argument_number(commit, groups);
        for (uint32_t at = 0, size; at < unit->count; at += size) {
            size = group_size(unit->items + at, unit->count - at);
            group_pack(commit, unit->items + at, size);
        }
    }
}

bool commit_pack(struct commit *commit) {
    const struct commit_item *items[COMMIT_ITEMS_MAX];
    struct unit units[COMMIT_ITEMS_MAX];
    uint32_t unit_count = 0, ordered = 0;
    for (uint32_t i = 0; i < commit->count; i++) {
        items[i] = &commit->items[i];
    }
    qsort(items, commit->count, sizeof items[0], items_compare);
    for (uint32_t at = 0; at < commit->count; at += units[unit_count++].count) {
        units[unit_count] = unit_take(items + at, commit->count - at);
    }
    qsort(units, unit_count, sizeof units[0], units_compare);
    commit->arguments = commit->event_count = 0;
    for (uint32_t at = 0, count; at < unit_count; at += count) {
        for (count = 1; at + count < unit_count && units[at].section != 'W' && section_compare(&units[at], &units[at + count]) == 0;
             count++) {
            ;
        }
        if (units[at].section == 'S') {
            whole_pack(commit, units + at, count);
        } else if (units[at].section == 'E') {
            several_pack(commit, units + at, count);
        } else {
            single_pack(commit, units + at);
        }
    }
    for (uint32_t i = 0; i < unit_count; i++) {
        for (uint32_t j = 0; j < units[i].count; j++) {
            commit->order[ordered++] = (uint32_t)(units[i].items[j] - commit->items);
        }
    }
    if (commit->packed.failed || commit->events.failed) {
        text_free(&commit->packed);
        text_free(&commit->events);
        return false;
    }
    return true;
}
