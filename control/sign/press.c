/* press.c: the pool of threads that renders and signs. One bounded queue in, one list for each shard out, an eventfd for each shard. Each
 * thread fills the eight lanes of its signer across messages, and makes full ones at once. */
#include "keys.h"
#include "control/clock.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum {
    PRESS_BATCH_MAX = 32,       /* tasks that a thread takes at once, and that wake one by themselves */
    PRESS_POST_AFTER_US = 1000, /* results wait for their batch no longer than this */
    /* Signatures that do not fill the lanes wait so long for company when the queue is empty, and only while tasks have been coming faster
     * than that: eight take as long as one, some 0.7 ms, so that a wait of a third of it pays when it brings one more. */
    PRESS_COMPANY_US = 250,
    PRESS_GAP_MAX_US = 10000, /* longer gaps between tasks count as this: 30 tasks on end make the press wait for company */
    PRESS_GAP_WEIGHT = 8,     /* of the average of gaps before, to one */
    PRESS_TIMER_SLACK_NS = 10000,
};

struct press_list {
    struct press_task *head, **tail;
};

struct press_shard {
    pthread_mutex_t lock;
    struct press_list done;
    int descriptor;
};

struct press {
    struct press_config config;
    size_t max_bytes;
    pthread_mutex_t lock; /* of everything down to `threads` */
    pthread_cond_t wanted, company;
    struct press_task **ring; /* [capacity] */
    uint32_t head, waiting;
    uint32_t idle;         /* threads that sleep on `wanted` */
    uint32_t unannounced;  /* tasks that came since a thread was last woken for them: press_announce */
    uint32_t company_need; /* tasks that would fill the lanes of the thread that sleeps on `company`; 0: none does */
    uint64_t submitted_us; /* the last task */
    uint32_t gap_us;       /* between tasks, on average */
    bool stopping;
    struct dkim_keys *keys; /* a reference; NULL: nothing is signed */
    uint32_t keys_version;
    uint32_t unit;      /* tasks that are cheaper together: of the lanes, or 1 */
    uint32_t under_way; /* atomic: submitted and not collected */
    uint32_t thread_count;
    struct press_thread {
        struct press *press;
        pthread_t handle;
        struct dkim_signer *signer;
        uint32_t keys_version;
        uint64_t oldest_us; /* since when the lanes have waited for company */
        uint64_t posted_us;
        struct press_list done; /* to be posted */
    } * threads;
    struct press_shard *shards;
};

static void list_init(struct press_list *list) {
    list->head = NULL;
    list->tail = &list->head;
}

static void list_add(struct press_list *list, struct press_task *task) {
    task->next = NULL;
    *list->tail = task;
    list->tail = &task->next;
}

/* Hands results back, in the order given, runs of one shard at once. */
static void post(struct press_thread *thread) {
    struct press *press = thread->press;
    struct press_task *task = thread->done.head;
    list_init(&thread->done);
    while (task != NULL) {
        struct press_shard *shard = &press->shards[task->shard];
        uint32_t of = task->shard;
        pthread_mutex_lock(&shard->lock);
        bool was_empty = shard->done.head == NULL;
        for (struct press_task *next; task != NULL && task->shard == of; task = next) {
            next = task->next;
            list_add(&shard->done, task);
        }
        pthread_mutex_unlock(&shard->lock);
        uint64_t one = 1;
        if (was_empty && write(shard->descriptor, &one, sizeof(one)) < 0)
            assert(errno == EAGAIN); /* the counter is full, so it is readable */
    }
}

static void sign_failed(struct press_task *task, int status) {
    task->status = status;
    task->signatures = 0;
    if (status == -ENOKEY)
        snprintf(task->error, sizeof(task->error), "there is no DKIM key for %.128s, and the configuration requires one",
                 task->message.from_domain);
    else if (status == -EINVAL)
        snprintf(task->error, sizeof(task->error),
                 "the header has more fields than a DKIM signature of %.128s can name: remove some, or names from dkim.sign",
                 task->message.from_domain);
    else
        snprintf(task->error, sizeof(task->error), "DKIM signing for %.128s failed: %s", task->message.from_domain, strerror(-status));
}

/* Takes the messages whose signatures are made. */
static void drain(struct press_thread *thread) {
    void *user;
    int status;
    while (thread->signer != NULL && dkim_next(thread->signer, &user, &status)) {
        struct press_task *task = user;
        if (status < 0)
            sign_failed(task, status);
        list_add(&thread->done, task);
    }
}

static void flush(struct press_thread *thread, bool all) {
    post(thread); /* a use of the lanes is long: results do not wait for it */
    dkim_flush(thread->signer, all);
    drain(thread);
    post(thread);
    thread->oldest_us = thread->posted_us = clock_us(CLOCK_MONOTONIC);
}

static void run_task(struct press_thread *thread, struct press_task *task) {
    struct press *press = thread->press;
    task->error[0] = '\0';
    task->signatures = 0;
    task->status = render_message(task->job, task->index, task->date_s, press->config.identity, press->max_bytes, &task->message,
                                  task->error, sizeof(task->error));
    if (task->status == 0 && thread->signer != NULL) {
        uint32_t before = dkim_waiting(thread->signer);
        task->signatures = dkim_begin(thread->signer, &task->message, task->job->tenant, clock_us(CLOCK_REALTIME) / 1000000, task);
        if (before == 0)
            thread->oldest_us = clock_us(CLOCK_MONOTONIC);
    }
    if (task->signatures < 0)
        sign_failed(task, task->signatures);
    if (task->signatures == 0)
        list_add(&thread->done, task);
    if (thread->signer != NULL && dkim_waiting(thread->signer) >= DKIM_LANES)
        flush(thread, false);
    else
        drain(thread);
    uint64_t now_us = clock_us(CLOCK_MONOTONIC);
    if (now_us - thread->posted_us >= PRESS_POST_AFTER_US) {
        post(thread);
        thread->posted_us = now_us;
    }
}

enum taken { TAKEN_STOP, TAKEN_TASKS, TAKEN_NOTHING /* and nothing comes soon */, TAKEN_KEYS /* there are others */ };

/* A fair part of the queue: what fills the lanes, and multiples of that while much waits. */
static uint32_t fair_part(const struct press *press, uint32_t held) {
    uint32_t part = (press->waiting + press->thread_count - 1) / press->thread_count;
    uint32_t want = (held + part + press->unit - 1) / press->unit * press->unit - held;
    if (want > PRESS_BATCH_MAX)
        want = PRESS_BATCH_MAX;
    return want < press->waiting ? want : press->waiting;
}

/* Sleeps until there is enough to fill the lanes, or until the deadline of what waits in them. False: there is no use in it, or the
 * deadline has come. */
static bool wait_for_company(struct press_thread *thread, uint32_t held) {
    struct press *press = thread->press;
    uint64_t now_us = clock_us(CLOCK_MONOTONIC), until_us = thread->oldest_us + PRESS_COMPANY_US;
    if (press->company_need > 0 || press->gap_us > PRESS_COMPANY_US / 2 || now_us - press->submitted_us > PRESS_COMPANY_US ||
        now_us >= until_us)
        return false;
    struct timespec until = {.tv_sec = (time_t)(until_us / 1000000), .tv_nsec = (long)(until_us % 1000000) * 1000};
    press->company_need = press->unit - held % press->unit;
    pthread_cond_timedwait(&press->company, &press->lock, &until);
    press->company_need = 0;
    return true;
}

/* Waits for work and takes a part of it. */
static enum taken take(struct press_thread *thread, struct press_task **tasks, uint32_t *count) {
    struct press *press = thread->press;
    uint32_t held = thread->signer == NULL ? 0 : dkim_waiting(thread->signer);
    enum taken taken = TAKEN_TASKS;
    *count = 0;
    pthread_mutex_lock(&press->lock);
    while (!press->stopping && thread->keys_version == press->keys_version) {
        bool enough = press->waiting > 0 && (held == 0 || held + press->waiting >= press->unit);
        if (enough || (held > 0 && !wait_for_company(thread, held)))
            break;
        if (held == 0) {
            press->idle++;
            pthread_cond_wait(&press->wanted, &press->lock);
            press->idle--;
        }
    }
    if (press->stopping)
        taken = TAKEN_STOP;
    else if (thread->keys_version != press->keys_version)
        taken = TAKEN_KEYS;
    else if (press->waiting == 0)
        taken = TAKEN_NOTHING;
    else
        *count = fair_part(press, held);
    for (uint32_t i = 0; i < *count; i++) {
        tasks[i] = press->ring[press->head];
        press->head = press->head + 1 == press->config.capacity ? 0 : press->head + 1;
    }
    press->waiting -= *count;
    bool more = press->waiting > 0 && press->idle > 0;
    pthread_mutex_unlock(&press->lock);
    if (more)
        pthread_cond_signal(&press->wanted);
    return taken;
}

/* The messages that have begun are signed with the keys they began with; those are then wiped, unless others still use them. */
static void change_keys(struct press_thread *thread) {
    struct press *press = thread->press;
    flush(thread, true);
    pthread_mutex_lock(&press->lock);
    struct dkim_keys *keys = dkim_keys_hold(press->keys);
    thread->keys_version = press->keys_version;
    pthread_mutex_unlock(&press->lock);
    bool changed = dkim_signer_use(thread->signer, keys);
    assert(changed);
    (void)changed;
    dkim_keys_free(keys);
}

static void *press_run(void *argument) {
    struct press_thread *thread = argument;
    struct press_task *tasks[PRESS_BATCH_MAX];
    enum taken taken;
    uint32_t count;
    prctl(PR_SET_TIMERSLACK, (unsigned long)PRESS_TIMER_SLACK_NS);
    while ((taken = take(thread, tasks, &count)) != TAKEN_STOP) {
        thread->posted_us = clock_us(CLOCK_MONOTONIC);
        for (uint32_t i = 0; i < count; i++)
            run_task(thread, tasks[i]);
        if (taken == TAKEN_KEYS)
            change_keys(thread);
        else if (taken == TAKEN_NOTHING)
            flush(thread, true);
        post(thread);
    }
    return NULL;
}

/* Threads take no signals: those are the main thread's. */
static int start_threads(struct press *press) {
    sigset_t all, before;
    int result = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (uint32_t i = 0; i < press->config.threads && result == 0; i++) {
        struct press_thread *thread = &press->threads[i];
        thread->press = press;
        list_init(&thread->done);
        if (press->keys != NULL && (thread->signer = dkim_signer_create(press->keys)) == NULL)
            result = ENOMEM;
        else if ((result = pthread_create(&thread->handle, NULL, press_run, thread)) == 0)
            press->thread_count++;
        else
            dkim_signer_free(thread->signer);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result;
}

/* How many tasks a thread does well to take together. */
static uint32_t keys_unit(const struct dkim_keys *keys) {
    return keys != NULL && lanes_can(LANES_IFMA) && dkim_keys_have_lanes(keys) ? DKIM_LANES : 1;
}

struct press *press_create(const struct press_config *config) {
    struct press *press = calloc(1, sizeof(*press));
    if (press == NULL || config->threads == 0 || config->shards == 0 || config->capacity == 0) {
        errno = press == NULL ? ENOMEM : EINVAL;
        free(press);
        return NULL;
    }
    press->config = *config;
    press->max_bytes = config->config->max_message_bytes;
    press->gap_us = PRESS_GAP_MAX_US;
    press->keys = config->keys != NULL ? dkim_keys_hold(config->keys) : NULL;
    press->unit = keys_unit(press->keys);
    press->ring = calloc(config->capacity, sizeof(*press->ring));
    press->threads = calloc(config->threads, sizeof(*press->threads));
    press->shards = calloc(config->shards, sizeof(*press->shards));
    pthread_mutex_init(&press->lock, NULL);
    pthread_cond_init(&press->wanted, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&press->company, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int failure = press->ring == NULL || press->threads == NULL || press->shards == NULL ? ENOMEM : 0;
    for (uint32_t i = 0; i < config->shards && press->shards != NULL; i++) {
        pthread_mutex_init(&press->shards[i].lock, NULL);
        list_init(&press->shards[i].done);
        press->shards[i].descriptor = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (press->shards[i].descriptor < 0)
            failure = errno;
    }
    if (failure == 0)
        failure = start_threads(press);
    if (failure != 0) {
        press_destroy(press);
        errno = failure;
        return NULL;
    }
    return press;
}

void press_destroy(struct press *press) {
    if (press == NULL)
        return;
    pthread_mutex_lock(&press->lock);
    press->stopping = true;
    pthread_cond_broadcast(&press->wanted);
    pthread_cond_broadcast(&press->company);
    pthread_mutex_unlock(&press->lock);
    for (uint32_t i = 0; i < press->thread_count; i++) {
        pthread_join(press->threads[i].handle, NULL);
        dkim_signer_free(press->threads[i].signer);
    }
    for (uint32_t i = 0; press->shards != NULL && i < press->config.shards; i++) {
        if (press->shards[i].descriptor >= 0)
            close(press->shards[i].descriptor);
        pthread_mutex_destroy(&press->shards[i].lock);
    }
    pthread_cond_destroy(&press->wanted);
    pthread_cond_destroy(&press->company);
    dkim_keys_free(press->keys);
    pthread_mutex_destroy(&press->lock);
    free(press->shards);
    free(press->threads);
    free(press->ring);
    free(press);
}

int press_descriptor(struct press *press, uint32_t shard) {
    return press->shards[shard].descriptor;
}

/* Whether a thread that sleeps has to come: under the lock, and then signalled without it. The thread that waits for company comes for
 * what is less than it needs by itself. Whoever comes wakes the next one where there is more than its part. */
static bool announce(struct press *press) {
    press->unannounced = 0;
    return press->idle > 0 && press->waiting > press->company_need;
}

static bool add(struct press *press, uint32_t shard, struct press_task *task, bool last) {
    assert(shard < press->config.shards);
    if (__atomic_fetch_add(&press->under_way, 1, __ATOMIC_RELAXED) >= press->config.capacity) {
        __atomic_fetch_sub(&press->under_way, 1, __ATOMIC_RELAXED);
        return false;
    }
    task->shard = shard;
    pthread_mutex_lock(&press->lock);
    press->ring[(press->head + press->waiting) % press->config.capacity] = task;
    press->waiting++;
    if (press->unit > 1) { /* else there is no company to wait for */
        uint64_t now_us = clock_us(CLOCK_MONOTONIC), gap_us = now_us - press->submitted_us;
        press->submitted_us = now_us;
        gap_us = gap_us < PRESS_GAP_MAX_US ? gap_us : PRESS_GAP_MAX_US;
        press->gap_us = (uint32_t)((press->gap_us * (PRESS_GAP_WEIGHT - 1) + gap_us) / PRESS_GAP_WEIGHT);
    }
    bool company = press->company_need > 0 && press->waiting == press->company_need;
    bool wake = (++press->unannounced >= PRESS_BATCH_MAX || last) && announce(press);
    pthread_mutex_unlock(&press->lock);
    if (company)
        pthread_cond_signal(&press->company);
    if (wake)
        pthread_cond_signal(&press->wanted);
    return true;
}

bool press_submit(struct press *press, uint32_t shard, struct press_task *task) {
    return add(press, shard, task, true);
}

bool press_add(struct press *press, uint32_t shard, struct press_task *task) {
    return add(press, shard, task, false);
}

void press_announce(struct press *press) {
    pthread_mutex_lock(&press->lock);
    bool wake = press->unannounced > 0 && announce(press);
    pthread_mutex_unlock(&press->lock);
    if (wake)
        pthread_cond_signal(&press->wanted);
}

void press_set_keys(struct press *press, struct dkim_keys *keys) {
    pthread_mutex_lock(&press->lock);
    struct dkim_keys *before = press->keys;
    if (before != NULL) {
        press->keys = dkim_keys_hold(keys);
        press->unit = keys_unit(keys);
        press->keys_version++;
        pthread_cond_broadcast(&press->wanted);
        pthread_cond_broadcast(&press->company);
    }
    pthread_mutex_unlock(&press->lock);
    dkim_keys_free(before);
}

void press_counters(struct press *press, struct press_counters *out) {
    *out = (struct press_counters){.threads = press->thread_count};
    for (uint32_t i = 0; i < press->thread_count; i++)
        if (press->threads[i].signer != NULL)
            dkim_signer_counters(press->threads[i].signer, &out->dkim);
    pthread_mutex_lock(&press->lock);
    out->waiting = press->waiting;
    pthread_mutex_unlock(&press->lock);
}

struct press_task *press_collect(struct press *press, uint32_t shard) {
    struct press_shard *of = &press->shards[shard];
    uint64_t count;
    uint32_t taken = 0;
    /* Before the list: a result that comes later makes it readable again. */
    if (read(of->descriptor, &count, sizeof(count)) < 0)
        assert(errno == EAGAIN);
    pthread_mutex_lock(&of->lock);
    struct press_task *head = of->done.head;
    list_init(&of->done);
    pthread_mutex_unlock(&of->lock);
    for (const struct press_task *task = head; task != NULL; task = task->next)
        taken++;
    __atomic_fetch_sub(&press->under_way, taken, __ATOMIC_RELAXED);
    return head;
}
