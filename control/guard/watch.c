/* watch.c: two tests against three times the usual share: a cumulative sum that a short run of refusals moves (a provider that fails), and
 * the share of the last minutes (one that fails in part). */
#include "watch.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Before anything is known: 2 in a hundred, with the weight of a thousand replies. A clean list has fewer, and learns so. */
#define PRIOR_SHARE   0.02
#define PRIOR_REPLIES 1000.0
/* A provider that never refused may do so now and then. */
#define SHARE_MIN     0.01
#define THRESHOLD_MAX 0.6
/* The usual share is that of about so many replies: what is older weighs less. */
#define MEMORY_REPLIES 200000.0
/* The sum of log likelihood ratios: one in a million by chance closes; two refusals in a row are worth a second question. */
#define SCORE_CLOSES         14.0
#define SCORE_SUSPICIOUS     3.5
#define SCORE_MAX            20.0
#define SCORE_FADES_A_MINUTE 0.9

enum { MINUTE_MS = 60000 };

struct minute {
    uint32_t replies, invalid;
};

struct recent {
    char *tenant, *address;
    uint64_t at_ms;
};

struct watch {
    char provider[64];
    double invalid, replies; /* that made the usual share */
    double score;
    bool closed;
    uint64_t minute; /* number of the newest in `minutes` */
    struct minute minutes[WATCH_MINUTES];
    struct recent recent[WATCH_RECENT];
    uint32_t recent_next;
};

struct watches {
    uint32_t count;
    struct watch *watches[WATCHES_MAX];
};

struct watches *watches_create(void) {
    return calloc(1, sizeof(struct watches));
}

static void recent_clear(struct recent *recent) {
    free(recent->tenant);
    free(recent->address);
    *recent = (struct recent){0};
}

void watches_destroy(struct watches *watches) {
    for (uint32_t i = 0; watches != NULL && i < watches->count; i++) {
        for (uint32_t k = 0; k < WATCH_RECENT; k++)
            recent_clear(&watches->watches[i]->recent[k]);
        free(watches->watches[i]);
    }
    free(watches);
}

static struct watch *watch_find(const struct watches *watches, const char *provider) {
    for (uint32_t i = 0; i < watches->count; i++)
        if (strcmp(watches->watches[i]->provider, provider) == 0)
            return watches->watches[i];
    return NULL;
}

static struct watch *watch_get(struct watches *watches, const char *provider) {
    struct watch *watch = watch_find(watches, provider);
    if (watch != NULL || watches->count == WATCHES_MAX)
        return watch;
    watch = calloc(1, sizeof(*watch));
    if (watch == NULL)
        return NULL;
    snprintf(watch->provider, sizeof(watch->provider), "%s", provider);
    watches->watches[watches->count++] = watch;
    return watch;
}

int watches_load(struct watches *watches, const char *path) {
    FILE *file = fopen(path, "re");
    char line[256], provider[64];
    double invalid, replies;
    if (file == NULL)
        return -errno;
    while (fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, "%63s %lf %lf", provider, &invalid, &replies) != 3 || !(invalid >= 0) || !(replies >= invalid) ||
            !(replies <= MEMORY_REPLIES))
            continue;
        struct watch *watch = watch_get(watches, provider);
        if (watch != NULL) {
            watch->invalid = invalid;
            watch->replies = replies;
        }
    }
    fclose(file);
    return 0;
}

int watches_save(const struct watches *watches, const char *path) {
    char other[4096 + 8];
    snprintf(other, sizeof(other), "%s.new", path);
    FILE *file = fopen(other, "we");
    if (file == NULL)
        return -errno;
    for (uint32_t i = 0; i < watches->count; i++)
        fprintf(file, "%s %.1f %.1f\n", watches->watches[i]->provider, watches->watches[i]->invalid, watches->watches[i]->replies);
    if (fclose(file) != 0 || rename(other, path) != 0)
        return -errno;
    return 0;
}

static double usual_of(const struct watch *watch) {
    return (watch->invalid + PRIOR_SHARE * PRIOR_REPLIES) / (watch->replies + PRIOR_REPLIES);
}

static double threshold_of(const struct watch *watch) {
    double usual = usual_of(watch);
    double threshold = WATCH_TIMES * (usual < SHARE_MIN ? SHARE_MIN : usual);
    return threshold > THRESHOLD_MAX ? THRESHOLD_MAX : threshold;
}

/* Minutes that passed: those of a provider that behaved make its usual share. */
static void roll(struct watch *watch, uint64_t minute) {
    if (minute <= watch->minute)
        return;
    uint64_t steps = minute - watch->minute < WATCH_MINUTES ? minute - watch->minute : WATCH_MINUTES;
    const struct minute *ended = &watch->minutes[watch->minute % WATCH_MINUTES];
    double share_max = threshold_of(watch) * ended->replies;
    if (!watch->closed && ended->replies > 0) {
        watch->replies += ended->replies;
        watch->invalid += ended->invalid < share_max ? ended->invalid : share_max;
    }
    if (watch->replies > MEMORY_REPLIES) {
        watch->invalid *= MEMORY_REPLIES / 2 / watch->replies;
        watch->replies = MEMORY_REPLIES / 2;
    }
    for (uint64_t i = 1; i <= steps; i++)
        watch->minutes[(watch->minute + i) % WATCH_MINUTES] = (struct minute){0};
    watch->score *= pow(SCORE_FADES_A_MINUTE, (double)(minute - watch->minute));
    watch->minute = minute;
}

enum watch_change watch_note(struct watches *watches, const char *provider, bool invalid, uint64_t now_ms, struct watch_state *state) {
    struct watch *watch = watch_get(watches, provider);
    *state = (struct watch_state){0};
    if (watch == NULL)
        return WATCH_SAME;
    if (watch->minute == 0)
        watch->minute = now_ms / MINUTE_MS;
    roll(watch, now_ms / MINUTE_MS);
    struct minute *minute = &watch->minutes[watch->minute % WATCH_MINUTES];
    minute->replies++;
    minute->invalid += invalid;
    for (uint32_t i = 0; i < WATCH_MINUTES; i++) {
        state->replies += watch->minutes[i].replies;
        state->invalid += watch->minutes[i].invalid;
    }
    double threshold = threshold_of(watch), wild = 0.5 + threshold / 2;
    watch->score += invalid ? log(wild / threshold) : log((1 - wild) / (1 - threshold));
    watch->score = watch->score < 0 ? 0 : watch->score > SCORE_MAX ? SCORE_MAX : watch->score;
    bool too_many = state->replies >= WATCH_REPLIES && state->invalid >= WATCH_INVALID && state->invalid > threshold * state->replies;
    bool closed = watch->closed ? watch->score > 0.5 || too_many : watch->score >= SCORE_CLOSES || too_many;
    enum watch_change change = closed == watch->closed ? WATCH_SAME : closed ? WATCH_CLOSED : WATCH_OPENED;
    watch->closed = closed;
    state->closed = closed;
    state->suspicious = watch->score >= SCORE_SUSPICIOUS;
    state->usual = usual_of(watch);
    return change;
}

bool watch_is_closed(const struct watches *watches, const char *provider) {
    const struct watch *watch = watch_find(watches, provider);
    return watch != NULL && watch->closed;
}

void watch_suppressed(struct watches *watches, const char *provider, const char *tenant, const char *address, uint64_t now_ms) {
    struct watch *watch = watch_get(watches, provider);
    if (watch == NULL)
        return;
    struct recent *recent = &watch->recent[watch->recent_next++ % WATCH_RECENT];
    recent_clear(recent);
    *recent = (struct recent){.tenant = strdup(tenant != NULL ? tenant : ""), .address = strdup(address), .at_ms = now_ms};
}

void watch_suppressed_each(struct watches *watches, const char *provider, uint64_t now_ms,
                           void (*each)(void *context, const char *tenant, const char *address), void *context) {
    struct watch *watch = watch_find(watches, provider);
    for (uint32_t i = 0; watch != NULL && i < WATCH_RECENT; i++) {
        struct recent *recent = &watch->recent[i];
        if (recent->address != NULL && recent->tenant != NULL && now_ms - recent->at_ms <= (uint64_t)WATCH_MINUTES * MINUTE_MS)
            each(context, recent->tenant, recent->address);
        recent_clear(recent);
    }
}
