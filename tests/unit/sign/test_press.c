/* The pool: every task comes back, lanes are filled across messages, nothing waits for long, and keys change under way. */
#include "fixture.h"

#include <errno.h>
#include <poll.h>

enum { TASKS = 300, SHARDS = 3, CAPACITY = 64, PATIENCE_MS = 20000 };

static void wait_for(struct press *press, uint32_t shard) {
    struct pollfd wait = {.fd = press_descriptor(press, shard), .events = POLLIN};
    assert_int_equal(poll(&wait, 1, PATIENCE_MS), 1);
}

static void the_press_gives_every_task_back_to_its_shard(void **state) {
    struct config_dkim_key configured = {.domain = "example.org", .selector = "s1", .key_file = key_1024};
    struct config config = {.dkim = &configured, .dkim_count = 1, .max_message_bytes = 1 << 20};
    struct dkim_keys *keys = load_good(&configured, 1);
    struct press_config press_config = {
        .threads = 3, .capacity = CAPACITY, .config = &config, .identity = identity, .keys = keys, .shards = SHARDS};
    struct press *press = press_create(&press_config);
    static struct press_task tasks[TASKS];
    unsigned submitted = 0, collected = 0, full = 0, of_shard[SHARDS] = {0};
    assert_non_null(press);
    memset(tasks, 0, sizeof(tasks));
    while (collected < TASKS) {
        while (submitted < TASKS) {
            struct press_task *task = &tasks[submitted];
            task->job = &job;
            task->index = submitted % 10 == 9 ? 5 : 0; /* some have no such recipient */
            task->date_s = 1700000000;
            task->user = task;
            if (!press_submit(press, submitted % SHARDS, task)) {
                full++;
                break;
            }
            submitted++;
            assert_true(submitted - collected <= CAPACITY);
        }
        for (uint32_t shard = 0; shard < SHARDS; shard++) {
            if (submitted == TASKS && of_shard[shard] < TASKS / SHARDS)
                wait_for(press, shard);
            for (struct press_task *task = press_collect(press, shard), *next; task != NULL; task = next) {
                next = task->next;
                size_t number = (size_t)(task - tasks);
                assert_int_equal(number % SHARDS, shard);
                assert_ptr_equal(task->user, task);
                if (number % 10 == 9) {
                    assert_int_equal(task->status, -EINVAL);
                    assert_true(task->error[0] != '\0');
                } else {
                    assert_int_equal(task->status, 0);
                    assert_int_equal(task->signatures, 1);
                    assert_memory_equal(task->message.bytes + task->message.start, "DKIM-Signature:", 15);
                }
                task->user = NULL; /* once only */
                message_free(&task->message);
                collected++;
                of_shard[shard]++;
            }
        }
    }
    assert_int_equal(collected, TASKS);
    assert_true(full > 0);
    for (uint32_t shard = 0; shard < SHARDS; shard++) {
        struct pollfd quiet = {.fd = press_descriptor(press, shard), .events = POLLIN};
        assert_int_equal(poll(&quiet, 1, 0), 0);
        assert_null(press_collect(press, shard));
    }
    press_destroy(press);
    dkim_keys_free(keys);
}

static void a_required_key_that_is_missing_is_that_message_s_error(void **state) {
    struct config config = {.max_message_bytes = 1 << 20, .dkim_required = true};
    struct dkim_keys *keys = dkim_keys_load(&config, NULL, NULL, error, sizeof(error));
    struct press_config press_config = {.threads = 1, .capacity = 4, .config = &config, .identity = identity, .keys = keys, .shards = 1};
    struct press *press = press_create(&press_config);
    struct press_task task = {.job = &job};
    assert_true(press_submit(press, 0, &task));
    wait_for(press, 0);
    assert_ptr_equal(press_collect(press, 0), &task);
    assert_int_equal(task.status, -ENOKEY);
    assert_non_null(strstr(task.error, "news.example.org"));
    message_free(&task.message);
    press_destroy(press);
    dkim_keys_free(keys);
}

static void a_press_can_be_destroyed_with_work_under_way(void **state) {
    struct config_dkim_key configured = {.domain = "example.org", .selector = "s1", .key_file = key_2048};
    struct config config = {.max_message_bytes = 1 << 20};
    struct dkim_keys *keys = load_good(&configured, 1);
    struct press_config press_config = {.threads = 2, .capacity = 100, .config = &config, .identity = identity, .keys = keys, .shards = 1};
    static struct press_task tasks[100];
    memset(tasks, 0, sizeof(tasks));
    struct press *press = press_create(&press_config);
    for (int i = 0; i < 100; i++) {
        tasks[i].job = &job;
        assert_true(press_submit(press, 0, &tasks[i]));
    }
    press_destroy(press); /* the tasks stay their owner's */
    for (int i = 0; i < 100; i++)
        message_free(&tasks[i].message);
    dkim_keys_free(keys);
    press_config.threads = 0;
    assert_null(press_create(&press_config));
    assert_int_equal(errno, EINVAL);
}

static struct press *press_with(const struct config *config, struct dkim_keys *keys, uint32_t threads, uint32_t capacity) {
    struct press_config press_config = {
        .threads = threads, .capacity = capacity, .config = config, .identity = identity, .keys = keys, .shards = 1};
    struct press *press = press_create(&press_config);
    assert_non_null(press);
    return press;
}

/* Waits until so many are collected; each goes to `check`. */
static void collect(struct press *press, unsigned count, void (*check)(struct press_task *task)) {
    while (count > 0) {
        wait_for(press, 0);
        for (struct press_task *task = press_collect(press, 0), *next; task != NULL; task = next) {
            next = task->next;
            assert_true(count-- > 0);
            check(task);
            message_free(&task->message);
        }
    }
}

static struct press_counters counters_of(struct press *press) {
    struct press_counters counters;
    press_counters(press, &counters);
    return counters;
}

static void check_signed(struct press_task *task) {
    assert_int_equal(task->status, 0);
    assert_int_equal(task->signatures, *(const int *)task->user);
    assert_memory_equal(task->message.bytes + task->message.start, "DKIM-Signature:", 15);
}

static void lanes_are_filled_across_messages_of_all_keys(void **state) {
    static const int one = 1, two = 2;
    enum { ATTEMPTS = 20 };
    struct config_dkim_key configured[] = {{.domain = "a.example", .selector = "s1", .key_file = key_2048},
                                           {.domain = "b.example", .selector = "s1", .key_file = key_other},
                                           {.domain = "b.example", .selector = "s2", .key_file = key_ed25519},
                                           {.domain = "c.example", .selector = "s1", .key_file = key_1024},
                                           {.domain = "d.example", .selector = "s1", .key_file = key_ed25519}};
    struct config config = {.max_message_bytes = 1 << 26};
    struct dkim_keys *keys = load_good(configured, 5);
    static const char *const from[] = {"x@a.example", "x@b.example", "x@c.example", "x@d.example"};
    static struct job jobs[4], plug;
    static struct press_task tasks[200], first;
    for (int i = 0; i < 4; i++) {
        jobs[i] = job;
        jobs[i].from.email = (char *)(uintptr_t)from[i];
    }
    /* Rendering it takes so long that all others are there when it is done, but where this thread is kept from running. */
    plug = jobs[3];
    plug.raw_length = 8 << 20;
    plug.raw = malloc(plug.raw_length);
    memset(plug.raw, '\n', plug.raw_length);
    memcpy(plug.raw, "From: x@d.example\n\n", 19);
    memset(tasks, 0, sizeof(tasks));
    bool filled = !lanes_can(LANES_IFMA);
    for (int attempt = 0; attempt < ATTEMPTS && (attempt == 0 || !filled); attempt++) {
        struct press *press = press_with(&config, keys, 1, 256);
        first = (struct press_task){.job = &plug, .user = (void *)(uintptr_t)&one};
        assert_true(press_submit(press, 0, &first));
        for (int i = 0; i < 200; i++) {
            tasks[i] =
                (struct press_task){.job = &jobs[i % 4], .date_s = 1700000000, .user = (void *)(uintptr_t)(i % 4 == 1 ? &two : &one)};
            assert_true(press_submit(press, 0, &tasks[i]));
        }
        collect(press, 201, check_signed);
        struct press_counters counters = counters_of(press);
        assert_int_equal(counters.dkim.rsa, 150);
        assert_int_equal(counters.dkim.ed25519, 101);
        assert_int_equal(counters.dkim.lanes + counters.dkim.wolfssl, 251);
        assert_true(counters.dkim.lanes >= 2 * counters.dkim.flushes); /* one alone has no use for them */
        assert_int_equal(counters.threads, 1);
        assert_int_equal(counters.waiting, 0);
        filled |= counters.dkim.lanes == 100 && counters.dkim.flushes == 13; /* 12 times eight, and four */
        press_destroy(press);
    }
    assert_true(filled);
    dkim_keys_free(keys);
    free(plug.raw);
}

static void one_message_alone_is_not_kept(void **state) {
    static const int one = 1;
    struct config_dkim_key configured = {.domain = "example.org", .selector = "s1", .key_file = key_2048};
    struct config config = {.max_message_bytes = 1 << 20};
    struct dkim_keys *keys = load_good(&configured, 1);
    struct press *press = press_with(&config, keys, 2, 8);
    for (int i = 0; i < 5; i++) {
        struct press_task task = {.job = &job, .user = (void *)(uintptr_t)&one};
        assert_true(press_submit(press, 0, &task));
        collect(press, 1, check_signed);
    }
    /* One in the lanes would cost as much as eight. */
    struct press_counters counters = counters_of(press);
    assert_int_equal(counters.dkim.wolfssl, 5);
    assert_int_equal(counters.dkim.flushes, 0);
    press_destroy(press);
    dkim_keys_free(keys);
}

/* Few at a time, fast on end: the press learns that company comes and waits for it, but never for long. */
static void what_waits_for_company_is_signed_without_it(void **state) {
    static const int one = 1;
    struct config_dkim_key configured = {.domain = "example.org", .selector = "s1", .key_file = key_2048};
    struct config config = {.max_message_bytes = 1 << 20};
    struct dkim_keys *keys = load_good(&configured, 1);
    struct press *press = press_with(&config, keys, 2, 64);
    static struct press_task tasks[43];
    for (int round = 0; round < 6; round++) {
        for (int i = 0; i < 43; i++) {
            tasks[i] = (struct press_task){.job = &job, .user = (void *)(uintptr_t)&one};
            assert_true(press_submit(press, 0, &tasks[i]));
        }
        collect(press, 43, check_signed); /* with nothing behind them */
    }
    assert_int_equal(counters_of(press).dkim.rsa, 6 * 43);
    press_destroy(press);
    dkim_keys_free(keys);
}

static void check_made(struct press_task *task) {
    assert_int_equal(task->status, 0);
}

/* Threads that sleep hear once of many tasks, and none of them is left behind, however the threads and their end of sleep meet. */
static void what_is_added_is_made_when_announced(void **state) {
    enum { ROUNDS = 3000, MANY = 70, BATCH = 32 /* as many wake a thread by themselves */ };
    struct config_dkim_key configured = {.domain = "example.org", .selector = "s1", .key_file = key_ed25519};
    struct config config = {.max_message_bytes = 1 << 20};
    struct dkim_keys *keys = load_good(&configured, 1);
    static struct press_task tasks[MANY];
    for (uint32_t threads = 1; threads <= 3; threads++) {
        struct press *press = press_with(&config, threads == 2 ? keys : NULL, threads, MANY);
        uint32_t seed = threads;
        for (uint32_t round = 0; round < ROUNDS / (threads == 2 ? 20 : 1); round++) {
            seed = seed * 1664525u + 1013904223u;
            uint32_t count = round % 8 == 0 ? BATCH : 1 + (seed >> 8) % (round % 16 == 1 ? MANY : 3);
            memset(tasks, 0, count * sizeof(tasks[0]));
            for (uint32_t i = 0; i < count; i++) {
                tasks[i].job = &job;
                assert_true(press_add(press, 0, &tasks[i]));
            }
            if (count != BATCH)
                press_announce(press);
            collect(press, count, check_made);
            press_announce(press); /* of nothing */
        }
        assert_int_equal(counters_of(press).waiting, 0);
        press_destroy(press);
    }
    dkim_keys_free(keys);
}

static const char *selector_of(const struct press_task *task) {
    static char selector[16];
    const char *at = strstr((const char *)task->message.bytes + task->message.start, "s=");
    assert_non_null(at);
    snprintf(selector, sizeof(selector), "%.*s", (int)strcspn(at + 2, ";"), at + 2);
    return selector;
}

/* The keys a task must at least be signed with: those that were set when it was submitted, or later ones. */
static int newest;
static void check_selector(struct press_task *task) {
    int asked = (int)(intptr_t)task->user, got = atoi(selector_of(task) + 1);
    assert_int_equal(task->status, 0);
    assert_int_equal(task->signatures, 1);
    assert_in_range(got, asked, newest);
}

static void keys_change_under_way_without_a_gap(void **state) {
    enum { GENERATIONS = 12, EACH = 40, PATIENCE = 20000 };
    struct config config = {.max_message_bytes = 1 << 20};
    static struct press_task tasks[GENERATIONS * EACH];
    struct dkim_keys *sets[GENERATIONS];
    char selectors[GENERATIONS][16];
    char *const files[] = {key_2048, key_ed25519, key_other, key_1024};
    for (int i = 0; i < GENERATIONS; i++) {
        snprintf(selectors[i], sizeof(selectors[i]), "s%d", i);
        struct config_dkim_key configured = {.domain = "example.org", .selector = selectors[i], .key_file = files[i % 4]};
        sets[i] = load_good(&configured, 1);
    }
    struct press *press = press_with(&config, sets[0], 3, GENERATIONS * EACH);
    unsigned submitted = 0;
    for (newest = 0; newest < GENERATIONS; newest++) {
        if (newest > 0)
            press_set_keys(press, sets[newest]);
        for (int i = 0; i < EACH; i++, submitted++) {
            tasks[submitted] = (struct press_task){.job = &job, .user = (void *)(intptr_t)newest};
            assert_true(press_submit(press, 0, &tasks[submitted]));
        }
    }
    newest = GENERATIONS - 1;
    collect(press, submitted, check_selector);
    /* Nobody uses the old ones any more, not even the threads that sleep: ours is the last reference, and wipes them. */
    for (int i = 0; i < GENERATIONS - 1; i++) {
        for (int patience = PATIENCE; __atomic_load_n(&sets[i]->references, __ATOMIC_ACQUIRE) > 1; patience--) {
            assert_true(patience > 0);
            poll(NULL, 0, 1);
        }
        dkim_keys_free(sets[i]);
    }
    dkim_keys_free(sets[GENERATIONS - 1]);
    press_destroy(press);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_press_gives_every_task_back_to_its_shard),
        cmocka_unit_test(a_required_key_that_is_missing_is_that_message_s_error),
        cmocka_unit_test(a_press_can_be_destroyed_with_work_under_way),
        cmocka_unit_test(lanes_are_filled_across_messages_of_all_keys),
        cmocka_unit_test(one_message_alone_is_not_kept),
        cmocka_unit_test(what_waits_for_company_is_signed_without_it),
        cmocka_unit_test(what_is_added_is_made_when_announced),
        cmocka_unit_test(keys_change_under_way_without_a_gap),
    };
    return cmocka_run_group_tests_name("sign/press", tests, set_up, tear_down);
}
