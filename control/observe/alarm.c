/* alarm.c: a bounded table of what is wrong. It is small and rarely written, so it is searched from the front. */
#include "alarm.h"

#include "control/clock.h"
#include "log.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct alarm_entry {
    struct alarm alarm;
    uint64_t renewed_ms; /* CLOCK_MONOTONIC: a jump of the clock ends no alarm */
};

struct alarms {
    uint32_t count;
    struct alarm_entry entries[ALARMS_MAX]; /* in the order they were raised */
};

/* Cut to the room there is, at a character. */
static void text_copy(char *to, size_t to_bytes, const char *from) {
    size_t length = strnlen(from, to_bytes);
    if (length == to_bytes) {
        length--;
        while (length > 0 && ((unsigned char)from[length] & 0xc0) == 0x80)
            length--;
    }
    memcpy(to, from, length);
    to[length] = '\0';
}

static struct alarm_entry *entry_find(struct alarms *alarms, const char *kind, const char *subject) {
    char short_kind[ALARM_KIND_BYTES], short_subject[ALARM_SUBJECT_BYTES];
    text_copy(short_kind, sizeof(short_kind), kind); /* as they are kept: a long subject is found again */
    text_copy(short_subject, sizeof(short_subject), subject);
    for (uint32_t i = 0; i < alarms->count; i++)
        if (strcmp(alarms->entries[i].alarm.kind, short_kind) == 0 && strcmp(alarms->entries[i].alarm.subject, short_subject) == 0)
            return &alarms->entries[i];
    return NULL;
}

static void entry_remove(struct alarms *alarms, struct alarm_entry *entry, const char *why) {
    log_write(LOG_LEVEL_INFO, "alarm", "%s %s: %s after %llu s", entry->alarm.kind, entry->alarm.subject, why,
              (unsigned long long)((clock_ms(CLOCK_REALTIME) - entry->alarm.since_ms) / 1000));
    uint32_t index = (uint32_t)(entry - alarms->entries);
    memmove(entry, entry + 1, (--alarms->count - index) * sizeof(*entry));
}

struct alarms *alarms_create(void) {
    return calloc(1, sizeof(struct alarms));
}

void alarms_destroy(struct alarms *alarms) {
    free(alarms);
}

void alarm_raise(struct alarms *alarms, const char *kind, const char *subject, const char *text) {
    if (alarms == NULL)
        return;
    struct alarm_entry *entry = entry_find(alarms, kind, subject);
    uint64_t now_ms = clock_ms(CLOCK_REALTIME);
    if (entry == NULL) {
        if (alarms->count == ALARMS_MAX) { /* the one that was silent for longest makes room */
            struct alarm_entry *oldest = &alarms->entries[0];
            for (uint32_t i = 1; i < ALARMS_MAX; i++)
                if (alarms->entries[i].renewed_ms < oldest->renewed_ms)
                    oldest = &alarms->entries[i];
            entry_remove(alarms, oldest, "dropped, there are too many");
        }
        entry = &alarms->entries[alarms->count++];
        *entry = (struct alarm_entry){.alarm = {.since_ms = now_ms}};
        text_copy(entry->alarm.kind, sizeof(entry->alarm.kind), kind);
        text_copy(entry->alarm.subject, sizeof(entry->alarm.subject), subject);
        log_write(LOG_LEVEL_WARNING, "alarm", "%s %s: %s", entry->alarm.kind, entry->alarm.subject, text);
    }
    text_copy(entry->alarm.text, sizeof(entry->alarm.text), text);
    entry->alarm.last_ms = now_ms;
    entry->alarm.times++;
    entry->renewed_ms = clock_ms(CLOCK_MONOTONIC);
}

void alarm_clear(struct alarms *alarms, const char *kind, const char *subject) {
    struct alarm_entry *entry = alarms != NULL ? entry_find(alarms, kind, subject) : NULL;
    if (entry != NULL)
        entry_remove(alarms, entry, "over");
}

void alarms_expire(struct alarms *alarms, const char *kind, uint64_t idle_ms) {
    uint64_t now_ms = clock_ms(CLOCK_MONOTONIC);
    for (uint32_t i = alarms != NULL ? alarms->count : 0; i > 0; i--) {
        struct alarm_entry *entry = &alarms->entries[i - 1];
        if (strcmp(entry->alarm.kind, kind) == 0 && now_ms - entry->renewed_ms >= idle_ms)
            entry_remove(alarms, entry, "not seen again, over");
    }
}

uint32_t alarms_count(const struct alarms *alarms) {
    return alarms != NULL ? alarms->count : 0;
}

void alarms_each(const struct alarms *alarms, void (*each)(void *context, const struct alarm *alarm), void *context) {
    for (uint32_t i = 0; i < alarms_count(alarms); i++)
        each(context, &alarms->entries[i].alarm);
}
