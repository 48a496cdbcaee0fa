/* alarm.h: what an operator must know now: each alarm has a kind, a subject and a sentence that says what to do; it is raised once, counted
 * while it lasts, cleared when it is over or by hand. Shown by `bypost alarms`, `bypost top`, /metrics and the log. */
#ifndef CONTROL_OBSERVE_ALARM_H
#define CONTROL_OBSERVE_ALARM_H

#include <stddef.h>
#include <stdint.h>

enum { ALARM_KIND_BYTES = 32, ALARM_SUBJECT_BYTES = 128, ALARM_TEXT_BYTES = 512, ALARMS_MAX = 256 };

struct alarm {
    char kind[ALARM_KIND_BYTES];       /* "false_invalid_recipient", "source_blocked", "relay_auth", "redis_full", "redis_away", ... */
    char subject[ALARM_SUBJECT_BYTES]; /* the provider, source, relay, campaign */
    char text[ALARM_TEXT_BYTES];       /* what happens, and the command that mends it */
    uint64_t since_ms, last_ms, times; /* CLOCK_REALTIME */
};

/* A table belongs to the thread of control's event loop. NULL in its place is taken everywhere and does nothing. */
struct alarms;
/* NULL without memory. */
struct alarms *alarms_create(void);
void alarms_destroy(struct alarms *alarms);
/* Raises it, or renews it (with the newest text). Logged as a warning when it is new. Of more than ALARMS_MAX, the one that was not renewed
 * for longest goes. Texts are copied, cut to their room. */
void alarm_raise(struct alarms *alarms, const char *kind, const char *subject, const char *text);
/* Nothing happens when it is not raised. Logged. */
void alarm_clear(struct alarms *alarms, const char *kind, const char *subject);
/* Those of this kind, whatever their subject, that were not renewed for `idle_ms`. */
void alarms_expire(struct alarms *alarms, const char *kind, uint64_t idle_ms);
uint32_t alarms_count(const struct alarms *alarms);
/* In the order they were raised. */
void alarms_each(const struct alarms *alarms, void (*each)(void *context, const struct alarm *alarm), void *context);

#endif
