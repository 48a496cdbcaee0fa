/* bucket.h: a rate as GCRA (ITU-T I.371) in integers: no drift however long it runs. */
#ifndef CONTROL_SHAPE_BUCKET_H
#define CONTROL_SHAPE_BUCKET_H

#include <stdbool.h>
#include <stdint.h>

struct bucket {
    uint64_t rate_nano;          /* events in 10^9 s; 0: no limit */
    uint64_t step_us, step_part; /* one event's time: step_us + step_part / rate_nano */
    uint64_t next_us, next_part; /* the theoretical arrival time of the next event */
    uint32_t burst;              /* events at once after a pause */
    bool stopped;                /* none conforms */
};

/* Sets or changes the rate; 0 lifts it. What was taken before counts on. */
void bucket_set(struct bucket *bucket, double per_second);
/* The same for a part of a rate that changes often: what is owed counts on as so many events, not as their time. 0 stops it; from there it
 * starts with one event, not with a burst. */
void bucket_share(struct bucket *bucket, double per_second, uint64_t now_us);
/* When the next event conforms: a time not after `now_us` means at once; UINT64_MAX: it is stopped. */
uint64_t bucket_ready_us(const struct bucket *bucket);
/* How many events conform at now_us; UINT32_MAX without a limit. */
uint32_t bucket_tokens(const struct bucket *bucket, uint64_t now_us);
/* How many events conform between now and `ahead_us` later, one behind the other; UINT32_MAX without a limit. Taken now they are a debt. */
uint32_t bucket_ahead(const struct bucket *bucket, uint64_t now_us, uint64_t ahead_us);
/* Counts an event, whether it conforms or not: debt delays those that follow. */
void bucket_take(struct bucket *bucket, uint64_t now_us);
/* Takes one event back. */
void bucket_refund(struct bucket *bucket);

#endif
