/* guard.h: watches the classes of replies and keeps a receiver's mistake, or our own, from doing harm (SMTP.md section 6): suppression is
 * held while a class runs wild at a provider, a sender domain or a campaign that is refused on all sides is held, a relay whose password is
 * wrong rests. Each with an alarm that names the command which mends it. */
#ifndef CONTROL_GUARD_GUARD_H
#define CONTROL_GUARD_GUARD_H

#include "control/config/config.h"
#include "control/job.h"
#include "control/observe/alarm.h"
#include "control/outcome.h"
#include "control/hold/hold.h"
#include "control/suppress/suppress.h"
#include <stdint.h>

struct guard_config {
    const struct config *config;
    struct suppress *suppress;
    struct hold *hold;
    struct alarms *alarms;
};

struct guard;
struct guard *guard_create(const struct guard_config *config);
void guard_destroy(struct guard *guard);
void guard_reconfigure(struct guard *guard, const struct config *config);
/* One attempt's end, classified, before it is settled: feeds suppression and the guards. May change `classification` (a reply that a guard
 * distrusts defers instead of ending). job may be NULL (harvested). */
void guard_outcome(struct guard *guard, const struct job *job, uint32_t index, const char *provider, const struct outcome *outcome,
                   struct classification *classification, uint64_t now_ms);
/* A message was made. Messages of the same campaign that cannot be are compared with it. */
void guard_rendered(struct guard *guard, const struct job *job, uint64_t now_ms);
/* A message could not be made, and its recipient would end: defers where it looks as if the whole campaign were wrong, which is then held.
 * `attempt`: how many there were before. job may be NULL. */
void guard_unrendered(struct guard *guard, const struct job *job, uint32_t attempt, const struct outcome *outcome,
                      struct classification *classification, uint64_t now_ms);
/* A session with a relay ended at its login (a path event: no message was in it). */
void guard_relay_refused(struct guard *guard, const char *site, uint16_t code, const char *text);
/* TLS with a relay is not as the configuration wants it; `why` in words. */
void guard_relay_insecure(struct guard *guard, const char *site, const char *host, const char *why);
/* A session became ready: its TLS and its login are good. */
void guard_relay_ready(struct guard *guard, const char *site);
struct guard_counters {
    uint64_t suppressed, held_suppressions, holds, distrusted;
};
const struct guard_counters *guard_counters(const struct guard *guard);

#endif
