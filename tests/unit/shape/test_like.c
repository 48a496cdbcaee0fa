/* test_like.c: recipients that share a transaction (shape_take_like): who comes along, what that costs in rates and turns. */
#include "harness.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct scene {
    struct harness harness;
    struct site *site;
    struct lane *lane;
    struct job jobs[3];
    uint32_t asked;          /* `fits` */
    const struct job *alone; /* its deliveries fit nobody */
    uint32_t odd;            /* indexes divisible by this do not fit; 0: all do */
};

static int set_up(void **state) {
    struct scene *scene = calloc(1, sizeof *scene);
    harness_start(&scene->harness, 1);
    scene->harness.config.defaults.max_message_rate = 0;
    scene->site = site_make(&scene->harness, "mx.example.net", 1);
    for (uint32_t i = 0; i < 3; i++)
        snprintf(scene->jobs[i].queue, sizeof scene->jobs[i].queue, "%s", i < 2 ? "normal" : "bulk");
    *state = scene;
    return 0;
}

static int tear_down(void **state) {
    struct scene *scene = *state;
    harness_stop(&scene->harness);
    site_unmake(scene->site);
    free(scene);
    return 0;
}

static void enqueue(struct scene *scene, struct job *job, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(shape_enqueue(scene->harness.shape, delivery_make(&scene->harness, scene->site, job), scene->harness.now_us), 0);
    scene->lane = harness_lane(&scene->harness, scene->site);
}

static struct delivery *take(struct scene *scene) {
    uint64_t wake_us;
    return shape_take(scene->harness.shape, scene->lane, scene->harness.now_us, &wake_us);
}

static bool fits(void *context, const struct delivery *first, const struct delivery *other) {
    struct scene *scene = context;
    scene->asked++;
    assert_ptr_equal(first->job, other->job); /* others are not asked for */
    return first->job != scene->alone && (scene->odd == 0 || other->index % scene->odd != 0);
}

static struct delivery *take_like(struct scene *scene, const struct delivery *first, uint32_t maximum, uint32_t *count) {
    return shape_take_like(scene->harness.shape, scene->lane, first, fits, scene, maximum, count, scene->harness.now_us);
}

/* Ends a list of them; returns how many there were. */
static uint32_t end_all(struct scene *scene, struct delivery *delivery) {
    uint32_t count = 0;
    for (struct delivery *next; delivery; delivery = next, count++) {
        next = delivery->next;
        harness_end(&scene->harness, scene->lane, delivery, CLASS_NONE, 0);
    }
    return count;
}

/* Takes a whole transaction and ends it; how many recipients it had. */
static uint32_t share(struct scene *scene, uint32_t maximum, struct job **job) {
    uint32_t count;
    struct delivery *first = take(scene);
    if (!first)
        return 0;
    *job = first->job;
    first->next = take_like(scene, first, maximum - 1, &count);
    assert_int_equal(end_all(scene, first), count + 1);
    return count + 1;
}

static void those_of_the_job_come_along_in_their_order(void **state) {
    struct scene *scene = *state;
    uint32_t count;
    enqueue(scene, &scene->jobs[0], 10);
    enqueue(scene, &scene->jobs[1], 3);
    struct delivery *first = take(scene), *others = take_like(scene, first, 4, &count);
    assert_int_equal(count, 4);
    uint32_t index = first->index;
    for (const struct delivery *other = others; other; other = other->next)
        assert_int_equal(other->index, ++index);
    assert_int_equal(scene->lane->outstanding, 5);
    assert_int_equal(scene->lane->waiting, 8);
    assert_int_equal(shape_room(scene->harness.shape), SHAPE_TOTAL_MAX - 8);
    harness_end(&scene->harness, scene->lane, first, CLASS_NONE, 0);
    assert_int_equal(end_all(scene, others), 4);
    struct job *job;
    assert_int_equal(share(scene, 100, &job), 5); /* the rest, and nobody else's */
    assert_ptr_equal(job, &scene->jobs[0]);
    assert_int_equal(share(scene, 100, &job), 3);
    assert_int_equal(scene->lane->outstanding, 0);
    assert_null(take(scene));
}

static void who_does_not_fit_waits_where_it_was(void **state) {
    struct scene *scene = *state;
    uint32_t count;
    enqueue(scene, &scene->jobs[0], 10);
    scene->odd = 3;
    struct delivery *first = take(scene);
    assert_int_equal(first->index, 0);
    struct delivery *others = take_like(scene, first, 100, &count);
    assert_int_equal(count, 6); /* 1 2 4 5 7 8 */
    scene->odd = 0;
    for (uint32_t i = 3; i < 10; i += 3) {
        struct delivery *left = take(scene);
        assert_int_equal(left->index, i);
        harness_end(&scene->harness, scene->lane, left, CLASS_NONE, 0);
    }
    first->next = others;
    end_all(scene, first);
}

/* A few deliveries of others in between do not part a job; a long way is not gone. */
static void the_search_is_bounded(void **state) {
    struct scene *scene = *state;
    struct job *job;
    for (uint32_t i = 0; i < 5; i++) {
        enqueue(scene, &scene->jobs[0], 1);
        enqueue(scene, &scene->jobs[1], 20);
    }
    assert_int_equal(share(scene, 100, &job), 5);
    while (share(scene, 1, &job) > 0)
        ;
    enqueue(scene, &scene->jobs[0], 1);
    enqueue(scene, &scene->jobs[1], 1000);
    enqueue(scene, &scene->jobs[0], 1);
    scene->asked = 0;
    assert_int_equal(share(scene, 100, &job), 1);
    assert_int_equal(scene->asked, 0);
}

/* What came back goes first, and together again. */
static void those_that_came_back_share_again(void **state) {
    struct scene *scene = *state;
    uint32_t count;
    enqueue(scene, &scene->jobs[1], 2);
    enqueue(scene, &scene->jobs[0], 6);
    struct job *job;
    assert_int_equal(share(scene, 2, &job), 2);
    struct delivery *first = take(scene), *others = take_like(scene, first, 3, &count);
    first->next = others;
    for (struct delivery *next; first; first = next) {
        next = first->next;
        shape_give_back(scene->harness.shape, first, scene->harness.now_us);
    }
    assert_int_equal(scene->lane->outstanding, 0);
    assert_int_equal(scene->lane->waiting, 6);
    assert_int_equal(share(scene, 100, &job), 6); /* those and the ones that never left */
}

static void high_does_not_share_with_normal(void **state) {
    struct scene *scene = *state;
    struct job *job;
    scene->jobs[0].high = true;
    enqueue(scene, &scene->jobs[0], 2);
    scene->jobs[0].high = false;
    enqueue(scene, &scene->jobs[0], 3);
    assert_int_equal(share(scene, 100, &job), 2);
    assert_int_equal(share(scene, 100, &job), 3);
}

/* One whose time is up does not come along; it ends when its turn comes. */
static void the_expired_stay_behind(void **state) {
    struct scene *scene = *state;
    uint32_t count;
    scene->jobs[0].expires_at_ms = scene->harness.real_ms + scene->harness.now_us / 1000 + 1000;
    enqueue(scene, &scene->jobs[0], 3);
    struct delivery *first = take(scene);
    scene->harness.now_us += 2 * SECOND;
    assert_null(take_like(scene, first, 100, &count));
    assert_int_equal(count, 0);
    assert_int_equal(scene->lane->waiting, 2);
    assert_null(take(scene));
    assert_int_equal(scene->harness.expired, 2);
    harness_end(&scene->harness, scene->lane, first, CLASS_NONE, 0);
}

/* README.md: each recipient is a message for the rates: the mean holds, whoever shares; a transaction runs ahead by 10 s at most. */
static void a_rate_counts_recipients(void **state) {
    static const struct {
        double rate;
        uint32_t first; /* recipients of the first transaction: the tokens of 10.12 s, and the one that is there */
    } CASES[] = {{100, 100}, {5, 51}, {0.5, 6}, {0.05, 1}};
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        tear_down(state);
        set_up(state);
        struct scene *scene = *state;
        struct job *job;
        scene->harness.config.defaults.max_message_rate = CASES[i].rate;
        enqueue(scene, &scene->jobs[0], 100);
        uint64_t begin_us = scene->harness.now_us, end_us = begin_us + 60 * SECOND;
        uint32_t sent = share(scene, 100, &job);
        assert_int_equal(sent, CASES[i].first);
        for (; scene->harness.now_us < end_us; harness_advance(&scene->harness, SECOND / 100)) {
            while (scene->lane->waiting < 100 && shape_window_room(scene->harness.shape, scene->site, NULL, scene->harness.now_us) > 0)
                enqueue(scene, &scene->jobs[0], 1);
            sent += share(scene, 100, &job);
            double bound = CASES[i].rate * (double)(scene->harness.now_us - begin_us) / SECOND;
            assert_true(sent <= bound + CASES[i].rate * 10.12 + 1);
            assert_true(sent + CASES[i].rate * 0.2 + 1 >= bound);
        }
    }
}

/* A provider's rate is that of all its sites: the transaction of one delays the other. */
static void a_providers_rate_counts_recipients_too(void **state) {
    struct scene *scene = *state;
    struct harness *harness = &scene->harness;
    struct job *job;
    uint64_t wake_us;
    harness->providers[0].limits.provider_max_message_rate = 1;
    struct site *other = site_make(harness, "mx.example.com", 1);
    scene->site->provider = other->provider = &harness->providers[0];
    enqueue(scene, &scene->jobs[0], 8);
    assert_int_equal(shape_enqueue(harness->shape, delivery_make(harness, other, NULL), harness->now_us), 0);
    struct lane *others = harness_lane(harness, other);
    assert_int_equal(share(scene, 100, &job), 8);
    assert_null(shape_take(harness->shape, others, harness->now_us, &wake_us));
    harness_advance(harness, 7 * SECOND);
    assert_null(shape_take(harness->shape, others, harness->now_us, &wake_us));
    harness_advance(harness, 2 * SECOND);
    assert_true(harness_send(harness, others));
    harness_stop(harness);
    site_unmake(other);
    site_unmake(scene->site);
    free(scene);
    set_up(state);
}

static void tokens_of_the_unattempted_come_back(void **state) {
    struct scene *scene = *state;
    uint32_t count;
    scene->harness.config.defaults.max_message_rate = 1;
    enqueue(scene, &scene->jobs[0], 6);
    struct delivery *first = take(scene), *others = take_like(scene, first, 100, &count);
    assert_int_equal(count, 5);
    assert_null(take(scene));
    for (struct delivery *next; others; others = next) {
        next = others->next;
        shape_give_back(scene->harness.shape, others, scene->harness.now_us);
    }
    harness_advance(&scene->harness, SECOND);
    struct job *job;
    assert_int_equal(share(scene, 100, &job), 5); /* only the first one's second was to wait for */
    harness_end(&scene->harness, scene->lane, first, CLASS_NONE, 0);
}

/* Turns go by recipients: a queue of jobs with ten sends as many recipients as one of single ones, no more. */
static void sharing_takes_the_queues_next_turns(void **state) {
    struct scene *scene = *state;
    struct job *job;
    uint32_t shared = 0, single = 0;
    scene->alone = &scene->jobs[2];
    for (uint32_t i = 0; i < 20; i++)
        enqueue(scene, &scene->jobs[0], 10);
    enqueue(scene, &scene->jobs[2], 200);
    while (single < 100) {
        uint32_t count = share(scene, 10, &job);
        assert_int_equal(count, job == &scene->jobs[0] ? 10 : 1);
        shared += job == &scene->jobs[0] ? count : 0;
        single += job == &scene->jobs[0] ? 0 : count;
        assert_true(shared <= single + 10 && single <= shared + 10);
    }
    assert_true(shared >= 90);
}

/* Nobody else is there: turns that others had are no debt. */
static void a_queue_that_is_alone_owes_nothing(void **state) {
    struct scene *scene = *state;
    struct job *job;
    enqueue(scene, &scene->jobs[0], 300);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(share(scene, 100, &job), 100);
    enqueue(scene, &scene->jobs[0], 200);
    assert_int_equal(share(scene, 100, &job), 100);
    assert_int_equal(share(scene, 50, &job), 50); /* this one forgives the first */
    enqueue(scene, &scene->jobs[2], 100);
    uint32_t until = 0;
    do {
        assert_int_equal(share(scene, 1, &job), 1);
        until++;
    } while (job != &scene->jobs[0]);
    assert_true(until <= 51);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(those_of_the_job_come_along_in_their_order),
        TEST(who_does_not_fit_waits_where_it_was),
        TEST(the_search_is_bounded),
        TEST(those_that_came_back_share_again),
        TEST(high_does_not_share_with_normal),
        TEST(the_expired_stay_behind),
        TEST(a_rate_counts_recipients),
        TEST(a_providers_rate_counts_recipients_too),
        TEST(tokens_of_the_unattempted_come_back),
        TEST(sharing_takes_the_queues_next_turns),
        TEST(a_queue_that_is_alone_owes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
