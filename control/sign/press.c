/* press.c: the pool of threads that renders and signs. One bounded queue in, one list for each shard out, an eventfd for each shard. */
#include "sign.h"
#include "control/clock.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum {
    PRESS_BATCH_MAX = 32,       /* tasks that a thread takes at once */
    PRESS_POST_AFTER_US = 1000, /* results wait for their batch no longer than this */
};

struct press_list {
    struct press_task *head, **tail;
};

struct press_shard {
    pthread_mutex_t lock;
    struct press_list done;
    int descriptor;
};

/* What a thread holds between taking a task and handing it back. */
struct press_item {
    struct press_task *task;
    uint32_t shard;
};

struct press {
    struct press_config config;
    size_t max_bytes;
    bool dkim_required;
    pthread_mutex_t lock; /* of everything down to `threads` */
    pthread_cond_t wanted;
    struct press_item *ring; /* [capacity] */
    uint32_t head, waiting;
    uint32_t idle; /* threads that sleep on `wanted` */
    bool stopping;
    uint32_t under_way; /* atomic: submitted and not collected */
    uint32_t thread_count;
    struct press_thread {
        struct press *press;
        pthread_t handle;
        struct dkim_signer *signer;
    } * threads;
    struct press_shard *shards;
};

static void list_init(struct press_list *list) {
    list->head = NULL;
    list->tail = &list->head;
}

static void run_task(struct press_thread *thread, struct press_task *task) {
    struct press *press = thread->press;
    task->error[0] = '\0';
    task->signatures = 0;
    task->status = render_message(task->job, task->index, task->date_s, press->config.identity, press->max_bytes, &task->message,
                                  task->error, sizeof(task->error));
    if (task->status != 0 || thread->signer == NULL)
        return;
    int signatures = dkim_sign(thread->signer, &task->message, task->job->tenant, clock_us(CLOCK_REALTIME) / 1000000);
    if (signatures > 0) {
        task->signatures = signatures;
    } else if (signatures < 0) {
        task->status = signatures;
        snprintf(task->error, sizeof(task->error), "DKIM signing for %.128s failed: %s", task->message.from_domain, strerror(-signatures));
    } else if (press->dkim_required) {
        task->status = -ENOKEY;
        snprintf(task->error, sizeof(task->error), "there is no DKIM key for %.128s, and the configuration requires one",
                 task->message.from_domain);
    }
}

/* Hands results back, shard by shard, in the order given. */
static void post(struct press *press, struct press_item *items, uint32_t count) {
    for (uint32_t at = 0; at < count;) {
        struct press_shard *shard = &press->shards[items[at].shard];
        uint32_t of = items[at].shard;
        pthread_mutex_lock(&shard->lock);
        bool was_empty = shard->done.head == NULL;
        for (; at < count && items[at].shard == of; at++) {
            items[at].task->next = NULL;
            *shard->done.tail = items[at].task;
            shard->done.tail = &items[at].task->next;
        }
        pthread_mutex_unlock(&shard->lock);
        uint64_t one = 1;
        if (was_empty && write(shard->descriptor, &one, sizeof(one)) < 0)
            assert(errno == EAGAIN); /* the counter is full, so it is readable */
    }
}

/* Waits for work and takes a fair part of it. 0: the press stops. */
static uint32_t take(struct press *press, struct press_item *items) {
    pthread_mutex_lock(&press->lock);
    while (press->waiting == 0 && !press->stopping) {
        press->idle++;
        pthread_cond_wait(&press->wanted, &press->lock);
        press->idle--;
    }
    uint32_t count = press->stopping ? 0 : (press->waiting + press->thread_count - 1) / press->thread_count;
    if (count > PRESS_BATCH_MAX)
        count = PRESS_BATCH_MAX;
    for (uint32_t i = 0; i < count; i++) {
        items[i] = press->ring[press->head];
        press->head = press->head + 1 == press->config.capacity ? 0 : press->head + 1;
    }
    press->waiting -= count;
    pthread_mutex_unlock(&press->lock);
    return count;
}

static void *press_run(void *argument) {
    struct press_thread *thread = argument;
    struct press_item items[PRESS_BATCH_MAX];
    uint32_t count;
    while ((count = take(thread->press, items)) > 0) {
        uint32_t posted = 0;
        uint64_t since_us = clock_us(CLOCK_MONOTONIC);
        for (uint32_t i = 0; i < count; i++) {
            run_task(thread, items[i].task);
            uint64_t at_us = clock_us(CLOCK_MONOTONIC);
            if (at_us - since_us >= PRESS_POST_AFTER_US || i + 1 == count) {
                post(thread->press, items + posted, i + 1 - posted);
                posted = i + 1;
                since_us = at_us;
            }
        }
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
        if (press->config.keys != NULL && (thread->signer = dkim_signer_create(press->config.keys)) == NULL)
            result = ENOMEM;
        else if ((result = pthread_create(&thread->handle, NULL, press_run, thread)) == 0)
            press->thread_count++;
        else
            dkim_signer_free(thread->signer);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result;
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
    press->dkim_required = config->config->dkim_required;
    press->ring = calloc(config->capacity, sizeof(*press->ring));
    press->threads = calloc(config->threads, sizeof(*press->threads));
    press->shards = calloc(config->shards, sizeof(*press->shards));
    pthread_mutex_init(&press->lock, NULL);
    pthread_cond_init(&press->wanted, NULL);
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
    pthread_mutex_destroy(&press->lock);
    free(press->shards);
    free(press->threads);
    free(press->ring);
    free(press);
}

int press_descriptor(struct press *press, uint32_t shard) {
    return press->shards[shard].descriptor;
}

bool press_submit(struct press *press, uint32_t shard, struct press_task *task) {
    assert(shard < press->config.shards);
    if (__atomic_fetch_add(&press->under_way, 1, __ATOMIC_RELAXED) >= press->config.capacity) {
        __atomic_fetch_sub(&press->under_way, 1, __ATOMIC_RELAXED);
        return false;
    }
    pthread_mutex_lock(&press->lock);
    uint32_t place = (press->head + press->waiting) % press->config.capacity;
    press->ring[place] = (struct press_item){.task = task, .shard = shard};
    press->waiting++;
    bool wake = press->idle > 0;
    pthread_mutex_unlock(&press->lock);
    if (wake)
        pthread_cond_signal(&press->wanted);
    return true;
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
