/* test_kill.c: kills the writer at every store of an order's whole life and checks what a new control would make of it: the table "What a
 * crash means" of include/bypost/README.md. The child is single-stepped; whenever the shared memory has changed since the last step a store
 * has happened. */
#include <bypost/journal.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const struct journal_geometry geometry = {.workers = 1, .shards = 1, .slots = 4, .paths = 2};
enum { SLOT = 2, STEPS_MAX = 200000, STORES_MAX = 2000 };

/* What the outside world has seen, in shared memory of its own: the wire and Redis. */
struct world {
    _Atomic uint32_t mail_on_wire, last_byte_on_wire, verdict_received, committed;
};

struct scene {
    char path[64], error[256];
    struct journal journal;
    struct world *world;
};

static void fill(struct slot *slot) {
    slot->next = SLOT_NONE;
    slot->path = 1;
    slot->dataplane_generation = 1;
    slot->piece_count = 1;
    slot->size_bytes = 4096;
    slot->arena_extent = 512;
    slot->arena_extent_bytes = 600;
    slot->shared_extent = 2048;
    slot->shared_extent_bytes = 3500;
    slot->sender_length = 3;
    slot->recipient_length = 3;
    memcpy(slot->text, "a@bc@d", 6);
    memset(slot->cookie, 0x5a, SLOT_COOKIE_BYTES);
}

/* One whole life, as control and worker write it. */
static void live(struct scene *scene) {
    struct slot *slot = &scene->journal.slots[SLOT];
    struct ring *orders = journal_order_ring(&scene->journal, 0, 0), *outcomes = journal_outcome_ring(&scene->journal, 0, 0);
    uint64_t entry;
    fill(slot);
    slot_queue(slot);
    ring_push(&scene->journal, orders, ring_entry(RING_ORDER, SLOT, 0));
    ring_pop(&scene->journal, orders, &entry, 1);
    if (!slot_claim(slot, ring_entry_generation(entry)))
        _exit(3);
    slot_advance(slot, 0, SLOT_ENVELOPE_SENT);
    atomic_store(&scene->world->mail_on_wire, 1);
    slot_advance(slot, 0, SLOT_BODY_SENT);
    atomic_store(&scene->world->last_byte_on_wire, 1);
    atomic_store(&scene->world->verdict_received, 1);
    slot->reply.outcome = OUTCOME_REPLIED;
    slot->reply.stage = STAGE_FINAL;
    slot->reply.code = 250;
    memcpy(slot->text + 6, "2.0.0 Ok", 8);
    slot->reply.text_length = 8;
    slot_advance(slot, 0, SLOT_ANSWERED);
    ring_push(&scene->journal, outcomes, ring_entry(RING_OUTCOME, SLOT, 0));
    ring_pop(&scene->journal, outcomes, &entry, 1);
    atomic_store(&scene->world->committed, 1);
    slot_free(slot);
}

/* What a new control finds, the dataplane being dead too: nothing lost, nothing sent twice unless marked uncertain. */
static void check(const struct scene *scene, uint32_t store) {
    const struct slot *slot = &scene->journal.slots[SLOT];
    const struct world *world = scene->world;
    uint64_t word = slot_load(slot);
    enum slot_fate fate = slot_fate(word, true);
    bool mail = atomic_load(&world->mail_on_wire), last = atomic_load(&world->last_byte_on_wire),
         verdict = atomic_load(&world->verdict_received), committed = atomic_load(&world->committed);
    const char *wrong = NULL;
    if (last && !committed && fate != FATE_UNCERTAIN && fate != FATE_SETTLE)
        wrong = "the whole body may have arrived, yet it would be sent again unmarked";
    if (!verdict && fate == FATE_SETTLE)
        wrong = "settled without a verdict";
    if (mail && (fate == FATE_GIVE_BACK || (fate == FATE_FREE && !committed)))
        wrong = "MAIL was out, yet it counts as never attempted";
    if (fate == FATE_FREE && slot_word_generation(word) != (committed ? 1u : 0u))
        wrong = "free with the wrong generation";
    if (committed && fate != FATE_FREE && fate != FATE_SETTLE)
        wrong = "committed, yet neither free nor settled again (which changes nothing)";
    if (fate == FATE_SETTLE && (slot->reply.code != 250 || slot->reply.text_length != 8 || memcmp(slot->text + 6, "2.0.0 Ok", 8) != 0))
        wrong = "answered before the reply was whole";
    if (fate != FATE_FREE && (slot->cookie[0] != 0x5a || slot->cookie[SLOT_COOKIE_BYTES - 1] != 0x5a || slot->size_bytes != 4096))
        wrong = "queued before the order was whole";
    if (fate != FATE_FREE &&
        (slot->arena_extent != 512 || slot->arena_extent_bytes != 600 || slot->shared_extent != 2048 || slot->shared_extent_bytes != 3500))
        wrong = "in flight, and a new control would not know which bytes it needs";
    if (wrong != NULL)
        fail_msg("killed after store %u, state %d: %s", store, slot_word_state(word), wrong);
}

static void open_scene(struct scene *scene) {
    strcpy(scene->path, "/tmp/bypost-kill-XXXXXX");
    int file = mkstemp(scene->path);
    assert_true(file >= 0);
    close(file);
    assert_int_equal(journal_open(&scene->journal, scene->path, geometry, JOURNAL_CONTROL, scene->error, sizeof(scene->error)), 0);
    scene->world = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(scene->world != MAP_FAILED);
}

static void close_scene(struct scene *scene) {
    journal_close(&scene->journal);
    munmap(scene->world, 4096);
    unlink(scene->path);
}

/* The parts that a life writes, to see stores: the slot, both rings' headers and first entries, and the world. */
enum { RING_SEEN = 512, SEEN_BYTES = SLOT_BYTES + 2 * RING_SEEN + (int)sizeof(struct world) };
static void look(const struct scene *scene, uint8_t seen[SEEN_BYTES]) {
    memcpy(seen, (const void *)&scene->journal.slots[SLOT], SLOT_BYTES);
    memcpy(seen + SLOT_BYTES, journal_order_ring(&scene->journal, 0, 0), RING_SEEN);
    memcpy(seen + SLOT_BYTES + RING_SEEN, journal_outcome_ring(&scene->journal, 0, 0), RING_SEEN);
    memcpy(seen + SLOT_BYTES + 2 * RING_SEEN, (const void *)scene->world, sizeof(struct world));
}

/* Runs a life and kills it after its `store`-th store. False when it ended before. */
static bool kill_after(struct scene *scene, uint32_t store) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(4);
        raise(SIGSTOP);
        live(scene);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSTOPPED(status));
    uint8_t before[SEEN_BYTES], now[SEEN_BYTES];
    look(scene, before);
    uint32_t stores = 0;
    for (uint32_t step = 0; step < STEPS_MAX; step++) {
        assert_int_equal(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WIFEXITED(status)) {
            assert_int_equal(WEXITSTATUS(status), 0);
            return false;
        }
        look(scene, now);
        if (memcmp(before, now, sizeof(now)) == 0)
            continue;
        memcpy(before, now, sizeof(now));
        if (++stores == store) {
            kill(child, SIGKILL);
            waitpid(child, &status, 0);
            return true;
        }
    }
    fail_msg("the life did not end within %d steps", STEPS_MAX);
    return false;
}

static void every_store_may_be_the_last(void **state) {
    (void)state;
    bool seen[SLOT_STATES] = {false};
    uint32_t store = 1;
    for (; store < STORES_MAX; store++) {
        struct scene scene;
        open_scene(&scene);
        bool killed = kill_after(&scene, store);
        check(&scene, store);
        seen[slot_word_state(slot_load(&scene.journal.slots[SLOT]))] = true;
        close_scene(&scene);
        if (!killed)
            break;
    }
    assert_true(store < STORES_MAX);
    print_message("killed at each of %u stores\n", store - 1);
    /* The test has teeth only if it stopped in every state that a life goes through. */
    for (int wanted = SLOT_FREE; wanted <= SLOT_ANSWERED; wanted++)
        assert_true(seen[wanted]);
    assert_true(store > 25);
}

static void the_table_of_fates(void **state) {
    static const enum slot_fate living[SLOT_STATES] = {FATE_FREE,      FATE_WITHDRAW, FATE_IN_FLIGHT, FATE_IN_FLIGHT,
                                                       FATE_IN_FLIGHT, FATE_SETTLE,   FATE_GIVE_BACK};
    static const enum slot_fate dead[SLOT_STATES] = {FATE_FREE,      FATE_GIVE_BACK, FATE_GIVE_BACK, FATE_LOST,
                                                     FATE_UNCERTAIN, FATE_SETTLE,    FATE_GIVE_BACK};
    (void)state;
    for (int i = 0; i < SLOT_STATES; i++) {
        assert_int_equal(slot_fate(slot_word(9, (enum slot_state)i), false), living[i]);
        assert_int_equal(slot_fate(slot_word(9, (enum slot_state)i), true), dead[i]);
    }
    assert_int_equal(slot_fate(slot_word(9, SLOT_STATES), true), FATE_FREE); /* a wild state is never acted on */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_store_may_be_the_last),
        cmocka_unit_test(the_table_of_fates),
    };
    return cmocka_run_group_tests_name("journal_kill", tests, NULL, NULL);
}
