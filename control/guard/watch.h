/* watch.h: does a provider call many more recipients unknown than it usually does? Private to guard; pure but for load and save. */
#ifndef CONTROL_GUARD_WATCH_H
#define CONTROL_GUARD_WATCH_H

#include <stdbool.h>
#include <stdint.h>

enum {
    WATCHES_MAX = 256,
    WATCH_MINUTES = 10,  /* of replies that a provider is judged by */
    WATCH_TIMES = 3,     /* so many times its usual share is too much (SMTP.md section 6) */
    WATCH_REPLIES = 50,  /* a share of fewer says nothing, */
    WATCH_INVALID = 20,  /* nor one with fewer unknown ones */
    WATCH_RECENT = 1024, /* suppressions that can be taken back */
};

struct watch_state {
    bool closed;               /* its word about recipients is not believed */
    bool suspicious;           /* not enough for an alarm, but this refusal had better be asked again */
    uint32_t replies, invalid; /* of the last minutes */
    double usual;              /* share of unknown recipients */
};

enum watch_change { WATCH_SAME, WATCH_CLOSED, WATCH_OPENED };

struct watches;
struct watches *watches_create(void);
void watches_destroy(struct watches *watches);
/* The usual shares, a line a provider. 0 or -errno; what cannot be read is not there. */
int watches_load(struct watches *watches, const char *path);
int watches_save(const struct watches *watches, const char *path);
/* A reply about a recipient: accepted, or called unknown for good. */
enum watch_change watch_note(struct watches *watches, const char *provider, bool invalid, uint64_t now_ms, struct watch_state *state);
bool watch_is_closed(const struct watches *watches, const char *provider);
/* Remembers that an address was suppressed at this provider's word; calls `each` for those of the last minutes, once. */
void watch_suppressed(struct watches *watches, const char *provider, const char *tenant, const char *address, uint64_t now_ms);
void watch_suppressed_each(struct watches *watches, const char *provider, uint64_t now_ms,
                           void (*each)(void *context, const char *tenant, const char *address), void *context);

#endif
