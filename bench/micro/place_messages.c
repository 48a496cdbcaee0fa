/* place_messages.c: what control spends on putting a rendered message into the arena and its slot: a body of `size` bytes in so many runs
 * that all messages share, with a line of each message's own between two. Without runs the body is each message's own, and copied whole.
 *     place_messages SIZE RUNS MESSAGES */
#include "control/dispatch/state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
    SLOTS = 1024,
    HELD = 500,     /* orders in flight: slots and bytes come free in the order in which they were taken */
    RENDERED = 256, /* messages that wait, so that each is read from memory that was not touched lately */
    ARENA_BYTES = 64 << 20,
    HEADER_BYTES = 1500, /* with a signature */
    OWN_BYTES = 78,
    RUNS_MAX = 1000,
};

static uint64_t cpu_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void message_make(struct message *message, const struct shared_bytes *shared, uint32_t runs) {
    uint32_t own = runs == 0 ? shared->length : (runs - 1) * OWN_BYTES;
    message_init(message);
    message->header_length = HEADER_BYTES;
    message->own_length = HEADER_BYTES + own;
    message->length = HEADER_BYTES + (runs == 0 ? 0 : shared->length) + own;
    message->capacity = message->own_length;
    message->bytes = malloc(message->capacity);
    message->pieces = calloc(2 * RUNS_MAX, sizeof(struct message_piece));
    if (message->bytes == NULL || message->pieces == NULL)
        abort();
    memset(message->bytes, 'x', message->capacity);
    strcpy(message->sender, "bounces@example.org");
    strcpy(message->recipient, "bob@example.net");
    message->shared = runs == 0 ? NULL : shared;
    for (uint32_t run = 0; run < runs; run++) {
        uint32_t part = shared->length / runs, from = part * run, to = run + 1 == runs ? shared->length : from + part;
        message->pieces[message->piece_count++] = (struct message_piece){.shared = true, .offset = from, .length = to - from};
        if (run + 1 < runs)
            message->pieces[message->piece_count++] = (struct message_piece){.offset = run * OWN_BYTES, .length = OWN_BYTES};
    }
}

static int dispatch_make(struct dispatch *dispatch, struct journal *journal, const char *path) {
    char error[512];
    const struct journal_geometry geometry = {.workers = 1, .shards = 1, .slots = SLOTS, .paths = 2};
    if (journal_open(journal, path, geometry, JOURNAL_CONTROL, error, sizeof(error)) != 0) {
        fprintf(stderr, "place_messages: %s\n", error);
        return -1;
    }
    dispatch->journal = journal;
    dispatch->workers = 1;
    dispatch->slot_count = SLOTS;
    dispatch->page_bytes = 2 << 20;
    dispatch->arena = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (dispatch->arena == MAP_FAILED || orders_create(dispatch) != 0 || chains_create(dispatch) != 0 ||
        arena_map_create(&dispatch->map, ARENA_BYTES, 0, 1) != 0)
        return -1;
    for (uint32_t i = SLOTS; i-- > 0;)
        dispatch->free_slots[dispatch->free_slot_count++] = i;
    return 0;
}

int main(int count, char **arguments) {
    uint32_t size = count == 4 ? (uint32_t)atoi(arguments[1]) : 0, runs = count == 4 ? (uint32_t)atoi(arguments[2]) : 0;
    uint32_t messages = count == 4 ? (uint32_t)atoi(arguments[3]) : 0;
    if (size < 1024 || size > ARENA_BYTES / 1000 || runs > RUNS_MAX || runs > size || messages == 0) {
        fprintf(stderr, "usage: place_messages SIZE RUNS MESSAGES (a size from 1024 to %d, at most %d runs)\n", ARENA_BYTES / 1000,
                RUNS_MAX);
        return 2;
    }
    static struct dispatch dispatch;
    static struct journal journal;
    static struct press_order orders[RENDERED];
    char path[] = "/tmp/bypost-place-XXXXXX";
    int file = mkstemp(path);
    uint8_t *bytes = malloc(size);
    if (file < 0 || bytes == NULL || dispatch_make(&dispatch, &journal, path) != 0)
        return 1;
    memset(bytes, 'y', size);
    struct shared_bytes shared = {.id = 1, .bytes = bytes, .length = size};
    struct job job = {.recipient_total = 1, .entry_recipients = 1};
    struct delivery delivery = {.job = &job};
    for (uint32_t i = 0; i < RENDERED; i++)
        message_make(&orders[i].task.message, &shared, runs);
    uint32_t held[HELD], pieces = 0;
    uint64_t placing = 0;
    for (uint32_t i = 0; i < messages; i++) {
        struct press_order *order = &orders[i % RENDERED];
        uint64_t entry;
        if (i >= HELD)
            outcomes_release(&dispatch, held[i % HELD]);
        order->deliveries = &delivery;
        order->delivery_count = 1;
        held[i % HELD] = dispatch.free_slots[dispatch.free_slot_count - 1];
        uint64_t from = cpu_ns();
        uint64_t room_bytes;
        bool placed = slots_place(&dispatch, order, false, &room_bytes) == PLACED;
        placing += cpu_ns() - from;
        if (!placed || ring_pop(&journal, journal_order_ring(&journal, 0, 0), &entry, 1) != 1)
            return 1;
        pieces = journal.slots[held[i % HELD]].piece_count;
    }
    printf("{\"size\": %u, \"runs\": %u, \"pieces\": %u, \"us_per_message\": %.3f, \"copied_bytes\": %" PRIu64
           ", \"shared_bytes\": %" PRIu64 "}\n",
           size, runs, pieces, (double)placing / messages / 1000, dispatch.counters.arena_copied_bytes / messages,
           dispatch.counters.arena_shared_bytes / messages);
    unlink(path);
    close(file);
    return 0;
}
