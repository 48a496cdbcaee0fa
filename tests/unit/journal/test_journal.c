/* test_journal.c: the shared file: who may open it, what is kept, and how rings and events behave (include/bypost/README.md). */
#include <bypost/journal.h>

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const struct journal_geometry small = {.workers = 2, .shards = 1, .slots = 64, .paths = 8};

struct place {
    char directory[64], path[96], error[512];
};

static int set_up(void **state) {
    struct place *place = calloc(1, sizeof(*place));
    strcpy(place->directory, "/tmp/bypost-journal-XXXXXX");
    assert_non_null(mkdtemp(place->directory));
    snprintf(place->path, sizeof(place->path), "%s/journal", place->directory);
    *state = place;
    return 0;
}

static int tear_down(void **state) {
    struct place *place = *state;
    unlink(place->path);
    rmdir(place->directory);
    free(place);
    return 0;
}

static void open_as(struct place *place, struct journal *journal, enum journal_role role) {
    assert_int_equal(journal_open(journal, place->path, small, role, place->error, sizeof(place->error)), 0);
}

static void both_roles_share_one_file(void **state) {
    struct place *place = *state;
    struct journal dataplane, control;
    open_as(place, &dataplane, JOURNAL_DATAPLANE);
    open_as(place, &control, JOURNAL_CONTROL);
    dataplane.slots[5].size_bytes = 4711;
    assert_int_equal(control.slots[5].size_bytes, 4711);
    assert_int_equal(journal_role_alive(&control, JOURNAL_DATAPLANE), 1);
    journal_close(&dataplane);
    assert_int_equal(journal_role_alive(&control, JOURNAL_DATAPLANE), 0);
    journal_close(&control);
}

static void a_role_has_one_holder(void **state) {
    struct place *place = *state;
    struct journal first, second;
    open_as(place, &first, JOURNAL_CONTROL);
    assert_int_equal(journal_open(&second, place->path, small, JOURNAL_CONTROL, place->error, sizeof(place->error)), -EBUSY);
    assert_non_null(strstr(place->error, "another bypost-control"));
    journal_close(&first);
    open_as(place, &second, JOURNAL_CONTROL);
    journal_close(&second);
}

static void a_killed_holder_frees_its_role(void **state) {
    struct place *place = *state;
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        struct journal journal;
        char byte = (char)journal_open(&journal, place->path, small, JOURNAL_DATAPLANE, place->error, sizeof(place->error));
        if (write(ready[1], &byte, 1) != 1)
            _exit(1);
        pause();
        _exit(0);
    }
    char byte = 1;
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(byte, 0);
    struct journal control;
    open_as(place, &control, JOURNAL_CONTROL);
    assert_int_equal(journal_role_alive(&control, JOURNAL_DATAPLANE), 1);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_int_equal(journal_role_alive(&control, JOURNAL_DATAPLANE), 0);
    journal_close(&control);
    close(ready[0]);
    close(ready[1]);
}

static void what_is_in_it_survives_both(void **state) {
    struct place *place = *state;
    struct journal journal;
    open_as(place, &journal, JOURNAL_CONTROL);
    assert_int_equal(journal_begin_dataplane(&journal), 1);
    slot_queue(&journal.slots[3]);
    journal_close(&journal);
    open_as(place, &journal, JOURNAL_DATAPLANE);
    assert_int_equal(slot_word_state(slot_load(&journal.slots[3])), SLOT_QUEUED);
    assert_int_equal(journal_begin_dataplane(&journal), 2);
    journal_close(&journal);
}

static void another_geometry_never_loses_a_live_slot(void **state) {
    struct place *place = *state;
    struct journal journal;
    struct journal_geometry wider = small;
    wider.slots = 128;
    open_as(place, &journal, JOURNAL_CONTROL);
    slot_queue(&journal.slots[3]);
    journal_close(&journal);
    assert_int_equal(journal_open(&journal, place->path, wider, JOURNAL_CONTROL, place->error, sizeof(place->error)), -ESTALE);
    assert_non_null(strstr(place->error, "1 unfinished"));
    open_as(place, &journal, JOURNAL_CONTROL);
    assert_true(slot_withdraw(&journal.slots[3], 0));
    slot_free(&journal.slots[3]);
    journal_close(&journal);
    assert_int_equal(journal_open(&journal, place->path, wider, JOURNAL_CONTROL, place->error, sizeof(place->error)), 0);
    assert_int_equal(journal.geometry.slots, 128);
    journal_close(&journal);
}

static void a_foreign_file_is_refused(void **state) {
    struct place *place = *state;
    int file = open(place->path, O_CREAT | O_WRONLY, 0600);
    char page[8192];
    memset(page, 'x', sizeof(page));
    assert_int_equal(write(file, page, sizeof(page)), sizeof(page));
    close(file);
    struct journal journal;
    assert_int_equal(journal_open(&journal, place->path, small, JOURNAL_CONTROL, place->error, sizeof(place->error)), -EPROTO);
    assert_int_equal(journal_open(&journal, place->path, small, JOURNAL_OBSERVER, place->error, sizeof(place->error)), -EPROTO);
}

static void impossible_geometries_are_refused(void **state) {
    struct place *place = *state;
    struct journal journal;
    struct journal_geometry bad[] = {{0, 1, 64, 8}, {1, 0, 64, 8},  {1, 1, 0, 8},  {1, 1, 64, 0},
                                     {1, 3, 64, 9}, {65, 1, 64, 8}, {1, 17, 64, 8}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(journal_bytes(bad[i]), 0);
        assert_int_equal(journal_open(&journal, place->path, bad[i], JOURNAL_CONTROL, place->error, sizeof(place->error)), -EINVAL);
    }
}

static void an_observer_reads_and_locks_nothing(void **state) {
    struct place *place = *state;
    struct journal control, observer;
    open_as(place, &control, JOURNAL_CONTROL);
    counter_add(&journal_counters(&control, 1)->messages_delivered, 42);
    assert_int_equal(
        journal_open(&observer, place->path, (struct journal_geometry){0}, JOURNAL_OBSERVER, place->error, sizeof(place->error)), 0);
    assert_int_equal(observer.geometry.slots, small.slots);
    assert_int_equal(counter_get(&journal_counters(&observer, 1)->messages_delivered), 42);
    journal_close(&observer);
    journal_close(&control);
}

static void a_ring_keeps_order_and_says_when_full(void **state) {
    struct place *place = *state;
    struct journal journal;
    open_as(place, &journal, JOURNAL_CONTROL);
    struct ring *ring = journal_order_ring(&journal, 1, 0);
    uint64_t entries[16];
    assert_int_equal(ring_pop(&journal, ring, entries, 16), 0);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < journal.ring_capacity; i++)
            assert_true(ring_push(&journal, ring, ring_entry(RING_ORDER, i, round)));
        assert_false(ring_push(&journal, ring, 1));
        for (uint32_t i = 0; i < journal.ring_capacity;) {
            uint32_t count = ring_pop(&journal, ring, entries, 16);
            assert_true(count > 0);
            for (uint32_t k = 0; k < count; k++, i++) {
                assert_int_equal(ring_entry_kind(entries[k]), RING_ORDER);
                assert_int_equal(ring_entry_index(entries[k]), i);
                assert_int_equal(ring_entry_generation(entries[k]), round);
            }
        }
        assert_false(ring_waiting(&journal, ring));
    }
    journal_close(&journal);
}

static void a_ring_holds_every_slot_path_and_event(void **state) {
    struct place *place = *state;
    struct journal journal;
    open_as(place, &journal, JOURNAL_CONTROL);
    assert_true(journal.ring_capacity >= small.slots + small.paths + JOURNAL_EVENTS);
    journal_close(&journal);
}

static void a_wild_head_reads_as_empty(void **state) {
    struct place *place = *state;
    struct journal journal;
    open_as(place, &journal, JOURNAL_CONTROL);
    struct ring *ring = journal_outcome_ring(&journal, 0, 0);
    uint64_t entries[4];
    atomic_store(&ring->head, 1ull << 60);
    assert_int_equal(ring_pop(&journal, ring, entries, 4), 0);
    assert_false(ring_waiting(&journal, ring));
    atomic_store(&ring->head, 0);
    atomic_store(&ring->tail, 5); /* behind its own reader */
    assert_int_equal(ring_pop(&journal, ring, entries, 4), 0);
    assert_false(ring_push(&journal, ring, 1));
    journal_close(&journal);
}

static void events_arrive_once_and_never_crowd_out_outcomes(void **state) {
    struct place *place = *state;
    struct journal journal;
    open_as(place, &journal, JOURNAL_CONTROL);
    struct ring *ring = journal_outcome_ring(&journal, 0, 0);
    struct path_event event = {.kind = PATH_EVENT_CONNECT_FAILED, .path = 3, .text_length = 5, .text = "hello"}, copy;
    for (uint32_t i = 0; i < JOURNAL_EVENTS; i++)
        assert_true(path_event_post(&journal, 0, 0, &event));
    assert_false(path_event_post(&journal, 0, 0, &event));
    for (uint32_t i = 0; i < small.slots; i++)
        assert_true(ring_push(&journal, ring, ring_entry(RING_OUTCOME, i, 0)));
    uint64_t entry;
    assert_int_equal(ring_pop(&journal, ring, &entry, 1), 1);
    assert_true(path_event_read(&journal, 0, 0, entry, &copy));
    assert_memory_equal(copy.text, "hello", 5);
    assert_true(path_event_post(&journal, 0, 0, &event));        /* its place was used again ... */
    assert_false(path_event_read(&journal, 0, 0, entry, &copy)); /* ... so the old hint is stale */
    assert_false(path_event_read(&journal, 0, 0, ring_entry(RING_EVENT, JOURNAL_EVENTS, 0), &copy));
    journal_close(&journal);
}

static void wild_events_are_refused(void **state) {
    struct place *place = *state;
    struct journal journal;
    open_as(place, &journal, JOURNAL_CONTROL);
    struct path_event good = {.kind = PATH_EVENT_READY}, bad[5], copy;
    for (int i = 0; i < 5; i++)
        bad[i] = good;
    bad[0].kind = PATH_EVENT_KINDS;
    bad[1].stage = STAGE_KINDS;
    bad[2].path = small.paths;
    bad[3].endpoint = PATH_ENDPOINTS_MAX;
    bad[4].text_length = PATH_EVENT_TEXT_BYTES + 1;
    for (int i = 0; i < 5; i++) {
        uint64_t entry;
        assert_true(path_event_post(&journal, 1, 0, &bad[i]));
        assert_int_equal(ring_pop(&journal, journal_outcome_ring(&journal, 1, 0), &entry, 1), 1);
        assert_false(path_event_read(&journal, 1, 0, entry, &copy));
    }
    journal_close(&journal);
}

static void claim_and_withdraw_exclude_each_other(void **state) {
    struct slot slot;
    (void)state;
    for (int first = 0; first < 2; first++) {
        memset(&slot, 0, sizeof(slot));
        slot_queue(&slot);
        assert_true(first == 0 ? slot_claim(&slot, 0) : slot_withdraw(&slot, 0));
        assert_false(slot_claim(&slot, 0));
        assert_false(slot_withdraw(&slot, 0));
    }
    slot_free(&slot);
    slot_queue(&slot);
    assert_false(slot_claim(&slot, 0)); /* a stale generation */
    assert_true(slot_claim(&slot, 1));
}

static void dataplane_waits_for_every_shard(void **state) {
    struct place *place = *state;
    struct journal journal;
    struct journal_geometry two = {.workers = 1, .shards = 2, .slots = 64, .paths = 8};
    assert_int_equal(journal_open(&journal, place->path, two, JOURNAL_DATAPLANE, place->error, sizeof(place->error)), 0);
    uint32_t generation = journal_begin_dataplane(&journal);
    assert_false(journal_harvested(&journal, generation));
    atomic_store(&journal.header->harvested[0], generation);
    assert_false(journal_harvested(&journal, generation));
    atomic_store(&journal.header->harvested[1], generation);
    assert_true(journal_harvested(&journal, generation));
    assert_int_equal(journal_slot_shard(&journal, 31), 0);
    assert_int_equal(journal_slot_shard(&journal, 32), 1);
    journal_close(&journal);
}

static void a_doorbell_rings_once(void **state) {
    _Atomic uint32_t waiting = 0;
    (void)state;
    assert_false(doorbell_take(&waiting));
    doorbell_arm(&waiting);
    assert_true(doorbell_take(&waiting));
    assert_false(doorbell_take(&waiting));
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
int main(void) {
    const struct CMUnitTest tests[] = {
        T(both_roles_share_one_file),
        T(a_role_has_one_holder),
        T(a_killed_holder_frees_its_role),
        T(what_is_in_it_survives_both),
        T(another_geometry_never_loses_a_live_slot),
        T(a_foreign_file_is_refused),
        T(impossible_geometries_are_refused),
        T(an_observer_reads_and_locks_nothing),
        T(a_ring_keeps_order_and_says_when_full),
        T(a_ring_holds_every_slot_path_and_event),
        T(a_wild_head_reads_as_empty),
        T(events_arrive_once_and_never_crowd_out_outcomes),
        T(wild_events_are_refused),
        T(claim_and_withdraw_exclude_each_other),
        T(dataplane_waits_for_every_shard),
        T(a_doorbell_rings_once),
    };
    return cmocka_run_group_tests_name("journal", tests, NULL, NULL);
}
