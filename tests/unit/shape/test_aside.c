/* test_aside.c: deliveries that are set aside wait in their lane like the others and are given only to who asks for them. */
#include "harness.h"
#include <stdlib.h>
#include <string.h>

struct scene {
    struct harness harness;
    struct site *site;
    struct lane *lane;
};

static int set_up(void **state) {
    struct scene *scene = calloc(1, sizeof *scene);
    harness_start(&scene->harness, 1);
    scene->harness.config.defaults.max_message_rate = 0;
    scene->site = site_make(&scene->harness, "mx.example.net", 1);
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

static struct delivery *take(struct scene *scene) {
    uint64_t wake_us;
    return shape_take(scene->harness.shape, scene->lane, scene->harness.now_us, &wake_us);
}

static struct delivery *take_aside(struct scene *scene) {
    uint64_t wake_us;
    return shape_take_aside(scene->harness.shape, scene->lane, scene->harness.now_us, &wake_us);
}

/* So many, of which the first `aside` are set aside. */
static void fill(struct scene *scene, uint32_t count, uint32_t aside) {
    harness_fill(&scene->harness, scene->site, count);
    scene->lane = harness_lane(&scene->harness, scene->site);
    for (uint32_t i = 0; i < aside; i++)
        shape_set_aside(scene->harness.shape, take(scene), scene->harness.now_us);
    assert_int_equal(scene->lane->aside, aside);
    assert_int_equal(scene->lane->waiting, count);
    assert_int_equal(scene->lane->outstanding, 0);
    assert_int_equal(shape_room(scene->harness.shape), SHAPE_TOTAL_MAX - count);
}

static void end(struct scene *scene, struct delivery *delivery) {
    harness_end(&scene->harness, scene->lane, delivery, CLASS_NONE, 0);
}

static void the_others_go_first(void **state) {
    struct scene *scene = *state;
    fill(scene, 10, 4);
    for (uint32_t i = 4; i < 10; i++) {
        struct delivery *delivery = take(scene);
        assert_int_equal(delivery->index, i);
        end(scene, delivery);
    }
    assert_null(take(scene));
    assert_int_equal(scene->lane->waiting, 4);
    assert_true(scene->lane->sessions > 0); /* they are demand like any */
    for (uint32_t i = 0; i < 4; i++) {
        struct delivery *delivery = take_aside(scene);
        assert_int_equal(delivery->index, i); /* in their order */
        end(scene, delivery);
    }
    assert_null(take_aside(scene));
    assert_int_equal(scene->lane->waiting + scene->lane->aside + scene->lane->outstanding, 0);
}

/* Who is told of a lane takes what is there: the first that comes behind those aside is news, however many they are. */
static void the_next_one_is_told(void **state) {
    struct scene *scene = *state;
    fill(scene, 100, 100);
    for (uint32_t i = 0; i < 5; i++) {
        uint32_t changed = scene->harness.changed;
        harness_fill(&scene->harness, scene->site, 1);
        assert_true(scene->harness.changed > changed);
        end(scene, take(scene));
        assert_null(take(scene));
    }
}

static void high_ones_first(void **state) {
    struct scene *scene = *state;
    fill(scene, 3, 3);
    struct delivery *high = delivery_make(&scene->harness, scene->site, &scene->harness.job);
    high->high = true;
    assert_int_equal(shape_enqueue(scene->harness.shape, high, scene->harness.now_us), 0);
    assert_ptr_equal(take(scene), high);
    shape_set_aside(scene->harness.shape, high, scene->harness.now_us);
    assert_null(take(scene));
    assert_ptr_equal(take_aside(scene), high);
    end(scene, high);
    struct delivery *later = delivery_make(&scene->harness, scene->site, &scene->harness.job);
    later->high = true;
    assert_int_equal(shape_enqueue(scene->harness.shape, later, scene->harness.now_us), 0);
    assert_null(take_aside(scene)); /* those are of normal priority */
    assert_ptr_equal(take(scene), later);
    end(scene, later);
    end(scene, take_aside(scene));
}

/* They cost tokens when they are taken for good, not when they are set aside. */
static void rates_hold_for_them(void **state) {
    struct scene *scene = *state;
    uint64_t wake_us;
    uint32_t taken = 0;
    scene->harness.config.defaults.max_message_rate = 10;
    fill(scene, 1, 0);
    end(scene, take(scene));
    harness_advance(&scene->harness, SECOND);
    harness_fill(&scene->harness, scene->site, 50);
    for (uint32_t i = 0; i < 20; i++) { /* set aside again and again: nothing is used up */
        struct delivery *delivery = i == 0 ? take(scene) : take_aside(scene);
        assert_non_null(delivery);
        shape_set_aside(scene->harness.shape, delivery, scene->harness.now_us);
    }
    for (struct delivery *delivery; (delivery = taken == 0 ? take_aside(scene) : take(scene)) != NULL; taken++)
        end(scene, delivery);
    assert_true(taken >= 1 && taken <= 3);
    assert_null(shape_take_aside(scene->harness.shape, scene->lane, scene->harness.now_us, &wake_us));
    assert_null(shape_take(scene->harness.shape, scene->lane, scene->harness.now_us, &wake_us));
    assert_true(wake_us > scene->harness.now_us && wake_us <= scene->harness.now_us + SECOND);
}

/* A rate binds as long as one waits for it: those aside wait for something else. */
static void a_rate_binds_no_longer_than_others_wait(void **state) {
    struct scene *scene = *state;
    scene->harness.config.defaults.max_message_rate = 10;
    fill(scene, 12, 2);
    for (uint32_t i = 0; i < 30 && scene->lane->waiting > 2; i++) {
        for (struct delivery *delivery; (delivery = take(scene)) != NULL;)
            end(scene, delivery);
        assert_int_equal(scene->lane->rate_binds, scene->lane->waiting > 2);
        harness_advance(&scene->harness, SECOND / 5);
    }
    assert_int_equal(scene->lane->aside, 2);
    assert_int_equal(scene->lane->waiting, 2);
}

static bool fits(void *context, const struct delivery *first, const struct delivery *other) {
    return true;
}

static void those_of_its_transaction_come_along(void **state) {
    struct scene *scene = *state;
    uint32_t count;
    fill(scene, 10, 6);
    struct delivery *first = take_aside(scene);
    struct delivery *others = shape_take_like(scene->harness.shape, scene->lane, first, fits, NULL, 7, &count, scene->harness.now_us);
    assert_int_equal(count, 7);
    assert_int_equal(scene->lane->aside, 0);
    assert_int_equal(scene->lane->waiting, 2);
    end(scene, first);
    for (struct delivery *next; others != NULL; others = next) {
        next = others->next;
        end(scene, others);
    }
}

static bool is_even(void *context, const struct delivery *delivery) {
    return delivery->index % 2 == 0;
}

static void on_withdrawn(void *context, struct delivery *delivery) {
    struct scene *scene = context;
    delivery_free(&scene->harness, delivery);
}

static void they_are_withdrawn_and_drained_like_the_others(void **state) {
    struct scene *scene = *state;
    fill(scene, 10, 5);
    shape_withdraw(scene->harness.shape, is_even, on_withdrawn, scene, scene->harness.now_us);
    assert_int_equal(scene->lane->waiting, 5);
    assert_int_equal(scene->lane->aside, 2);
    shape_drain(scene->harness.shape, on_withdrawn, scene);
    assert_int_equal(scene->lane->waiting + scene->lane->aside, 0);
}

static void they_expire_like_the_others(void **state) {
    struct scene *scene = *state;
    scene->harness.job.expires_at_ms = scene->harness.real_ms + scene->harness.now_us / 1000 + 5000;
    fill(scene, 4, 4);
    harness_advance(&scene->harness, 7 * SECOND);
    assert_int_equal(scene->harness.expired, 4);
    assert_int_equal(scene->lane->waiting + scene->lane->aside, 0);
}

/* A lane that rests for long has nothing to hold them for. */
static void they_are_deferred_like_the_others(void **state) {
    struct scene *scene = *state;
    fill(scene, 6, 3);
    for (uint32_t i = 0; i < 12 && scene->harness.deferred == 0; i++) { /* the rest doubles until it is long */
        harness_event(&scene->harness, scene->lane, PATH_EVENT_CONNECT_FAILED, 0, 0);
        harness_advance(&scene->harness, 31 * SECOND);
        scene->lane = harness_lane(&scene->harness, scene->site);
    }
    assert_int_equal(scene->harness.deferred, 6);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(the_others_go_first),
        TEST(the_next_one_is_told),
        TEST(high_ones_first),
        TEST(rates_hold_for_them),
        TEST(a_rate_binds_no_longer_than_others_wait),
        TEST(those_of_its_transaction_come_along),
        TEST(they_are_withdrawn_and_drained_like_the_others),
        TEST(they_expire_like_the_others),
        TEST(they_are_deferred_like_the_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
