/* bucket.c: the interval is a whole number of microseconds and a fraction of 1/rate, so that a million events take exactly a million
 * intervals. */
#include "bucket.h"

/* How early an event may come, and so how late the caller may ask without losing rate: the shard's loop looks at its timers every 100 ms.
 * It is also what comes at once after a pause. */
enum { TOLERANCE_US = 120000 };
static const double RATE_MAX = 1e6; /* per second; more is no limit to speak of */
static const uint64_t NANO = 1000000000;

void bucket_set(struct bucket *bucket, double per_second) {
    if (!(per_second > 0)) {
        bucket->rate_nano = 0;
        return;
    }
    if (per_second > RATE_MAX)
        per_second = RATE_MAX;
    uint64_t rate_nano = (uint64_t)(per_second * 1e9 + 0.5);
    if (rate_nano == 0)
        rate_nano = 1;
    if (rate_nano == bucket->rate_nano)
        return;
    bucket->rate_nano = rate_nano;
    bucket->step_us = NANO * 1000000 / rate_nano;
    bucket->step_part = NANO * 1000000 % rate_nano;
    if (bucket->next_part > 0)
        bucket->next_us++;
    bucket->next_part = 0;
    bucket->burst = 1 + (uint32_t)(bucket->step_us > 0 ? TOLERANCE_US / bucket->step_us : TOLERANCE_US);
}

void bucket_share(struct bucket *bucket, double per_second, uint64_t now_us) {
    if (!(per_second > 0)) {
        bucket->stopped = true;
        return;
    }
    uint64_t rate_nano = bucket->rate_nano;
    bucket_set(bucket, per_second);
    if (bucket->next_us > now_us && rate_nano > 0 && rate_nano != bucket->rate_nano)
        bucket->next_us = now_us + (uint64_t)((double)(bucket->next_us - now_us) * (double)rate_nano / (double)bucket->rate_nano);
    if (bucket->stopped && bucket->next_us < now_us + TOLERANCE_US)
        bucket->next_us = now_us + TOLERANCE_US;
    bucket->stopped = false;
}

uint64_t bucket_ready_us(const struct bucket *bucket) {
    if (bucket->stopped)
        return UINT64_MAX;
    if (bucket->rate_nano == 0)
        return 0;
    uint64_t next_us = bucket->next_us + (bucket->next_part > 0);
    return next_us > TOLERANCE_US ? next_us - TOLERANCE_US : 0;
}

uint32_t bucket_tokens(const struct bucket *bucket, uint64_t now_us) {
    if (bucket->stopped)
        return 0;
    if (bucket->rate_nano == 0)
        return UINT32_MAX;
    uint64_t ready_us = bucket_ready_us(bucket);
    if (ready_us > now_us)
        return 0;
    uint64_t tokens = bucket->step_us > 0 ? 1 + (now_us - ready_us) / bucket->step_us : bucket->burst;
    return tokens > bucket->burst ? bucket->burst : (uint32_t)tokens;
}

uint32_t bucket_ahead(const struct bucket *bucket, uint64_t now_us, uint64_t ahead_us) {
    if (bucket->stopped)
        return 0;
    if (bucket->rate_nano == 0)
        return UINT32_MAX;
    uint64_t next_us = bucket->next_us > now_us ? bucket->next_us + (bucket->next_part > 0) : now_us;
    uint64_t last_us = now_us + ahead_us + TOLERANCE_US;
    if (next_us > last_us)
        return 0;
    double events = 1 + (double)(last_us - next_us) * (double)bucket->rate_nano / 1e15;
    return events < UINT32_MAX ? (uint32_t)events : UINT32_MAX;
}

void bucket_take(struct bucket *bucket, uint64_t now_us) {
    if (bucket->rate_nano == 0)
        return;
    if (bucket->next_us < now_us) {
        bucket->next_us = now_us;
        bucket->next_part = 0;
    }
    bucket->next_us += bucket->step_us;
    bucket->next_part += bucket->step_part;
    if (bucket->next_part >= bucket->rate_nano) {
        bucket->next_part -= bucket->rate_nano;
        bucket->next_us++;
    }
}

void bucket_refund(struct bucket *bucket) {
    if (bucket->rate_nano == 0 || bucket->next_us <= bucket->step_us)
        return;
    if (bucket->next_part < bucket->step_part) {
        bucket->next_part += bucket->rate_nano;
        bucket->next_us--;
    }
    bucket->next_part -= bucket->step_part;
    bucket->next_us -= bucket->step_us;
}
