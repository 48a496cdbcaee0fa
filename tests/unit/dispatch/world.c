/* world.c: the scripted shape, press and dataplane. */
#include "world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct journal_geometry geometry = {WORLD_WORKERS, 1, WORLD_SLOTS, WORLD_PATHS};

/* ---- shape, as its header says ---- */

static struct world *world_of_shape(struct shape *shape) {
    return (struct world *)(void *)shape;
}

static struct world_lane *lane_of(const struct delivery *delivery) {
    return (struct world_lane *)delivery->site->own;
}

static void push_front(struct world_lane *lane, struct delivery *delivery) {
    delivery->next = lane->first;
    lane->first = delivery;
    lane->lane.waiting++;
}

static struct delivery *take(struct world *world, struct world_lane *lane, struct delivery **list, uint64_t now_us, uint64_t *wake_us) {
    *wake_us = lane->wake_us != 0 ? now_us + lane->wake_us : UINT64_MAX;
    struct delivery *delivery = lane->wake_us != 0 ? NULL : *list;
    if (delivery == NULL)
        return NULL;
    *list = delivery->next;
    lane->lane.waiting--;
    lane->lane.outstanding++;
    world->fates[delivery->index].taken++;
    void (*on_take)(struct world *) = world->on_take;
    world->on_take = NULL;
    if (on_take != NULL)
        on_take(world);
    return delivery;
}

struct delivery *shape_take(struct shape *shape, struct lane *public_lane, uint64_t now_us, uint64_t *wake_us) {
    struct world_lane *lane = (struct world_lane *)(void *)public_lane;
    assert_non_null(lane);
    return take(world_of_shape(shape), lane, &lane->first, now_us, wake_us);
}

struct delivery *shape_take_aside(struct shape *shape, struct lane *public_lane, uint64_t now_us, uint64_t *wake_us) {
    struct world_lane *lane = (struct world_lane *)(void *)public_lane;
    assert_non_null(lane);
    struct delivery *delivery = take(world_of_shape(shape), lane, &lane->aside, now_us, wake_us);
    lane->lane.aside -= delivery != NULL;
    return delivery;
}

struct delivery *shape_take_like(struct shape *shape, struct lane *public_lane, const struct delivery *first,
                                 bool (*fits)(void *context, const struct delivery *first, const struct delivery *other), void *context,
                                 uint32_t maximum, uint32_t *count, uint64_t now_us) {
    struct world *world = world_of_shape(shape);
    struct world_lane *lane = (struct world_lane *)(void *)public_lane;
    struct delivery *taken = NULL, **last = &taken;
    *count = 0;
    for (struct delivery **at = &lane->first; *at != NULL && *count < maximum;) {
        struct delivery *delivery = *at;
        if (delivery->job != first->job || !fits(context, first, delivery)) {
            at = &delivery->next;
            continue;
        }
        *at = delivery->next;
        delivery->next = NULL;
        *last = delivery;
        last = &delivery->next;
        lane->lane.waiting--;
        lane->lane.outstanding++;
        world->fates[delivery->index].taken++;
        ++*count;
    }
    return taken;
}

void shape_give_back(struct shape *shape, struct delivery *delivery, uint64_t now_us) {
    struct world *world = world_of_shape(shape);
    struct world_lane *lane = lane_of(delivery);
    world->fates[delivery->index].back++;
    assert_true(lane->lane.outstanding > 0);
    lane->lane.outstanding--;
    push_front(lane, delivery);
    dispatch_lane_changed(world->dispatch, &lane->lane);
}

void shape_set_aside(struct shape *shape, struct delivery *delivery, uint64_t now_us) {
    struct world *world = world_of_shape(shape);
    struct world_lane *lane = lane_of(delivery);
    struct delivery **last = &lane->aside;
    world->fates[delivery->index].back++;
    assert_true(lane->lane.outstanding > 0);
    lane->lane.outstanding--;
    lane->lane.waiting++;
    lane->lane.aside++;
    while (*last != NULL)
        last = &(*last)->next;
    delivery->next = NULL;
    *last = delivery;
    dispatch_lane_changed(world->dispatch, &lane->lane);
}

void shape_sessions(struct shape *shape, struct lane *lane, uint32_t worker, uint32_t open, uint32_t ready, uint64_t opened_total,
                    uint64_t now_us) {
    assert_true(worker < WORLD_WORKERS);
    ((struct world_lane *)(void *)lane)->sessions_calls++;
}

void shape_path_event(struct shape *shape, struct lane *lane, const struct path_event *event, uint64_t now_us) {
    assert_true(event->kind < PATH_EVENT_KINDS && event->endpoint < PATH_ENDPOINTS_MAX && event->source < PATH_SOURCES_MAX);
    ((struct world_lane *)(void *)lane)->events++;
}

void shape_lanes(struct shape *shape, void (*each)(void *context, struct lane *lane), void *context) {
    for (uint32_t i = 0; i < WORLD_LANES; i++)
        each(context, &world_of_shape(shape)->lanes[i].lane);
}

/* ---- press ---- */

static struct world *world_of_press(struct press *press) {
    return (struct world *)(void *)press;
}

void message_init(struct message *message) {
    *message = (struct message){.bytes = NULL};
}
void message_free(struct message *message) {
    free(message->bytes);
    free(message->pieces);
    message_init(message);
}

static uint8_t byte_of(uint32_t index, size_t at) {
    return (uint8_t)('a' + (index * 7 + at) % 26);
}

/* Those of a run, which repeat. */
static void fill(uint8_t *to, uint32_t index, size_t count) {
    size_t done = count < 26 ? count : 26;
    for (size_t at = 0; at < done; at++)
        to[at] = byte_of(index, at);
    for (size_t part; done < count; done += part) {
        part = done < count - done ? done : count - done; /* whole periods, but for the last */
        memcpy(to + done, to, part);
    }
}

/* How a message with a content is made: its own bytes, and pieces of its body. */
struct plan {
    size_t header, own, length;
    uint32_t piece_count;
    struct message_piece pieces[2 * WORLD_PIECES_MAX];
    const struct shared_bytes *shared;
};

/* The same for each rendering: many runs of some hundred bytes and few of some thousand, with and without gaps and own bytes between. */
static void plan_message(const struct world *world, uint32_t index, struct plan *plan) {
    plan->piece_count = 0;
    plan->shared = NULL;
    plan->own = plan->header = plan->length = world->message_bytes != 0 ? world->message_bytes : 100 + (size_t)index * 37 % 3000;
    if (world->huge_bytes[index] != 0)
        plan->own = plan->header = plan->length = world->huge_bytes[index];
    if (world->content_count == 0 || world->huge_bytes[index] != 0)
        return;
    plan->shared = &world->contents[index % world->content_count].shared;
    uint32_t state = index * 2654435761u + 1, at = 0, runs = 0;
    while (at < plan->shared->length && runs++ < WORLD_PIECES_MAX) {
        state = state * 1664525u + 1013904223u;
        uint32_t own = state >> 28 & 1 ? state >> 8 & 127 : 0, shared = world->run_bytes, gap = state >> 30 == 0 ? state >> 16 & 63 : 0;
        if (shared == 0)
            shared = state >> 29 & 1 ? state >> 10 & 511 : state >> 10 & 4095;
        shared = shared < plan->shared->length - at ? shared : plan->shared->length - at;
        if (own > 0)
            plan->pieces[plan->piece_count++] = (struct message_piece){.offset = (uint32_t)(plan->own - plan->header), .length = own};
        plan->pieces[plan->piece_count++] = (struct message_piece){.shared = true, .offset = at, .length = shared};
        plan->own += own;
        plan->length += own + shared;
        at += shared + gap;
    }
}

static size_t bytes_of(const struct world *world, uint32_t index) {
    struct plan plan;
    plan_message(world, index, &plan);
    return plan.length;
}

/* The whole message in one run, to free. */
static uint8_t *text_of(const struct world *world, uint32_t index) {
    struct plan plan;
    plan_message(world, index, &plan);
    uint8_t *text = malloc(plan.length), *to = text;
    assert_non_null(text);
    fill(to, index, plan.header);
    to += plan.header;
    for (uint32_t i = 0; i < plan.piece_count; i++)
        for (uint32_t j = 0; j < plan.pieces[i].length; j++)
            *to++ = plan.pieces[i].shared ? plan.shared->bytes[plan.pieces[i].offset + j]
                                          : byte_of(index, plan.header + plan.pieces[i].offset + j);
    assert_int_equal(to - text, plan.length);
    return text;
}

void world_content(struct world *world, uint32_t which, uint64_t id, uint32_t bytes) {
    struct world_content *content = &world->contents[which];
    assert_true(which < WORLD_CONTENTS && bytes <= sizeof(content->bytes));
    for (uint32_t i = 0; i < bytes; i++)
        content->bytes[i] = (uint8_t)('A' + (id * 5 + world->contents_salt + i) % 26);
    content->shared = (struct shared_bytes){.id = id, .bytes = content->bytes, .length = bytes};
    world->content_count = which >= world->content_count ? which + 1 : world->content_count;
}

static void render(struct world *world, struct press_task *task) {
    struct message *message = &task->message;
    uint32_t of = world->alike ? 0 : task->index;
    struct plan plan;
    plan_message(world, of, &plan);
    message_free(message);
    message->start = 16;
    message->header_length = plan.header;
    message->own_length = plan.own;
    message->length = plan.length;
    message->capacity = message->start + plan.own;
    message->bytes = malloc(message->capacity);
    assert_non_null(message->bytes);
    fill(message->bytes + message->start, of, plan.own);
    if (plan.piece_count > 0) {
        message->pieces = malloc(plan.piece_count * sizeof(plan.pieces[0]));
        assert_non_null(message->pieces);
        memcpy(message->pieces, plan.pieces, plan.piece_count * sizeof(plan.pieces[0]));
        message->piece_count = message->piece_capacity = plan.piece_count;
        message->shared = plan.shared;
    }
    snprintf(message->sender, sizeof(message->sender), "news-%u@from.example", of);
    snprintf(message->recipient, sizeof(message->recipient), "user%u@to.example", task->index);
    task->status = world->status;
    if (task->status != 0)
        snprintf(task->error, sizeof(task->error), "line 3 is wrong");
    task->signatures = 1;
}

/* ---- render ---- */

bool render_is_shared(const struct job *job, uint32_t index_a, uint32_t index_b) {
    const struct world *world =
        (const void *)((const char *)job - (job->id != NULL ? offsetof(struct world, huge_job) : offsetof(struct world, job)));
    return index_a != world->alone && index_b != world->alone;
}

int render_recipient(const struct job *job, uint32_t index, char *out) {
    snprintf(out, 255, "user%u@to.example", index);
    return 0;
}

size_t render_prepared_bytes(const struct render_prepared *prepared) {
    return 0;
}

int press_descriptor(struct press *press, uint32_t shard) {
    return world_of_press(press)->press_descriptor;
}

static void append(struct press_task **list, struct press_task *task) {
    task->next = NULL;
    while (*list != NULL)
        list = &(*list)->next;
    *list = task;
}

bool press_add(struct press *press, uint32_t shard, struct press_task *task) {
    struct world *world = world_of_press(press);
    world->submitted++;
    if (world->press_refuses)
        return false;
    render(world, task);
    append(&world->held, task);
    world->unannounced++;
    return true;
}

void press_announce(struct press *press) {
    struct world *world = world_of_press(press);
    world->unannounced = 0;
    if (!world->press_holds && world->held != NULL)
        world_press_release(world);
}

void world_press_release(struct world *world) {
    uint64_t one = 1;
    if (world->done == NULL)
        world->done = world->held;
    else
        append(&world->done, world->held);
    world->held = NULL;
    assert_int_equal(write(world->press_descriptor, &one, sizeof(one)), sizeof(one));
}

struct press_task *press_collect(struct press *press, uint32_t shard) {
    struct world *world = world_of_press(press);
    struct press_task *done = world->done;
    world->done = NULL;
    return done;
}

/* ---- what dispatch tells ---- */

static void on_ended(void *context, const struct dispatch_end *end) {
    struct world *world = context;
    world->last_end = *end;
    if (end->delivery == NULL) {
        assert_null(end->lane);
        world->ended_without_delivery++;
        if (world->commits_strangers)
            dispatch_committed(world->dispatch, end->slot, end->slot_generation);
        return;
    }
    struct world_fate *fate = &world->fates[end->delivery->index];
    assert_ptr_equal(end->lane, &lane_of(end->delivery)->lane);
    assert_true(end->lane->outstanding > 0);
    end->lane->outstanding--;
    fate->ended++;
    fate->end = *end;
}

static bool on_stopped(void *context, const struct delivery *delivery) {
    const struct world *world = context;
    return delivery->index < 500 && world->stopped[delivery->index];
}

static void on_dataplane(void *context, bool up) {
    struct world *world = context;
    world->up += up;
    world->down += !up;
}

static void on_harvested(void *context) {
    ((struct world *)context)->harvested++;
}

/* ---- life ---- */

void world_control_start(struct world *world) {
    char error[512] = "";
    if (journal_open(&world->journal, world->journal_path, geometry, JOURNAL_CONTROL, error, sizeof(error)) != 0)
        fail_msg("%s", error);
    journal_begin_control(&world->journal);
    struct dispatch_config config = {.base = world->base,
                                     .config = &world->config,
                                     .journal = &world->journal,
                                     .shape = (struct shape *)(void *)world,
                                     .press = (struct press *)(void *)world,
                                     .ended = on_ended,
                                     .stopped = on_stopped,
                                     .dataplane = on_dataplane,
                                     .harvested = on_harvested,
                                     .context = world};
    world->dispatch = dispatch_create(&config, error, sizeof(error));
    if (world->dispatch == NULL)
        fail_msg("%s", error);
    dispatch_start(world->dispatch);
}

static void free_tasks(struct press_task *task) {
    while (task != NULL) {
        struct press_task *next = task->next;
        message_free(&task->message);
        free(task->user);
        task = next;
    }
}

void world_control_die(struct world *world) {
    uint64_t count;
    dispatch_destroy(world->dispatch);
    world->dispatch = NULL;
    journal_close(&world->journal);
    free_tasks(world->held);
    free_tasks(world->done);
    world->held = world->done = NULL;
    ssize_t got = read(world->press_descriptor, &count, sizeof(count));
    (void)got;
    for (uint32_t i = 0; i < WORLD_LANES; i++) {
        struct world_lane *lane = &world->lanes[i];
        lane->first = lane->aside = NULL;
        lane->lane.waiting = lane->lane.outstanding = lane->lane.aside = 0;
        lane->lane.path = NULL;
    }
    memset(world->fates, 0, sizeof(world->fates));
    world->delivery_count = 0;
    world->ended_without_delivery = world->harvested = world->up = world->down = 0;
}

static void *serve(void *argument) {
    struct world_dataplane *dataplane = argument;
    while (!dataplane->stop)
        link_serve(&dataplane->link, 2);
    return NULL;
}

void world_dataplane_start_bent(struct world *world, void (*bend)(struct link *link)) {
    struct world_dataplane *dataplane = &world->dataplane;
    char error[512] = "";
    memset(dataplane, 0, sizeof(*dataplane));
    if (journal_open(&dataplane->journal, world->journal_path, geometry, JOURNAL_DATAPLANE, error, sizeof(error)) != 0)
        fail_msg("%s", error);
    dataplane->generation = journal_begin_dataplane(&dataplane->journal);
    /* The arena begins in the middle of a page of its file, as EAL's may. */
    dataplane->arena.fd = memfd_create("arena", MFD_CLOEXEC);
    dataplane->arena.fd_offset = WORLD_PAGE_BYTES + 512;
    dataplane->arena.length = world->arena_bytes;
    dataplane->arena.page_bytes = WORLD_PAGE_BYTES;
    size_t file_bytes = world->arena_bytes + 3 * WORLD_PAGE_BYTES;
    assert_int_equal(ftruncate(dataplane->arena.fd, (off_t)file_bytes), 0);
    dataplane->arena.bytes = mmap(NULL, file_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, dataplane->arena.fd, 0);
    assert_ptr_not_equal(dataplane->arena.bytes, MAP_FAILED);
    if (link_open(&dataplane->link, world->socket_path, geteuid(), getegid(), &dataplane->journal, &dataplane->arena, dataplane->generation,
                  error, sizeof(error)) != 0)
        fail_msg("%s", error);
    if (bend != NULL)
        bend(&dataplane->link);
    assert_int_equal(link_listen(&dataplane->link), 0);
    assert_int_equal(pthread_create(&dataplane->server, NULL, serve, dataplane), 0);
    dataplane->lives = true;
    memset(world->order_count, 0, sizeof(world->order_count));
}

void world_dataplane_start(struct world *world) {
    world_dataplane_start_bent(world, NULL);
}

/* As SIGKILL does it: the descriptors close, the socket's file stays. */
void world_dataplane_die(struct world *world) {
    struct world_dataplane *dataplane = &world->dataplane;
    dataplane->stop = true;
    pthread_join(dataplane->server, NULL);
    if (dataplane->link.peer >= 0)
        close(dataplane->link.peer);
    close(dataplane->link.listener);
    for (uint32_t i = 0; i < WORLD_WORKERS; i++)
        close(dataplane->link.worker_doorbells[i]);
    close(dataplane->link.shard_doorbells[0]);
    munmap(dataplane->arena.bytes, world->arena_bytes + 3 * WORLD_PAGE_BYTES);
    close(dataplane->arena.fd);
    journal_close(&dataplane->journal);
    dataplane->lives = false;
}

void world_start(struct world *world) {
    world_dataplane_start(world);
    world_control_start(world);
    WORLD_UNTIL(world, world->up == 1 && world->harvested == 1);
}

int world_set_up(void **state) {
    struct world *world = calloc(1, sizeof(*world));
    if (world == NULL)
        return -1;
    alarm(120); /* a loop that spins does not come back by itself */
    strcpy(world->directory, "/tmp/bypost-dispatch-XXXXXX");
    if (mkdtemp(world->directory) == NULL)
        return -1;
    snprintf(world->journal_path, sizeof(world->journal_path), "%s/journal", world->directory);
    snprintf(world->socket_path, sizeof(world->socket_path), "%s/dataplane.sock", world->directory);
    world->config.run_directory = world->directory;
    world->base = event_base_new();
    world->press_descriptor = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    world->limits = (struct shaping_limits){.max_deliveries_per_connection = 100, .pipelined_transactions = 1};
    world->job = (struct job){.references = 1, .entry = {1700000000000, 0}, .recipient_total = 500, .entry_recipients = 500};
    strcpy(world->job.queue, "normal");
    strcpy(world->job.stream, "normal");
    world->job.tenant = (char *)(uintptr_t) "acme";
    world->job.recipients = world->recipients;
    world->huge_job = world->job;
    world->huge_job.id = (char *)(uintptr_t) "huge";
    world->huge_job.entry.seq = 1;
    world->huge_job.raw = (uint8_t *)(uintptr_t) "";
    world->arena_bytes = WORLD_ARENA_BYTES;
    world->alone = SLOT_NONE;
    for (uint32_t i = 0; i < 500; i++)
        world->recipients[i].mailbox.domain = "to.example";
    for (uint32_t i = 0; i < WORLD_LANES; i++) {
        struct world_lane *lane = &world->lanes[i];
        snprintf(lane->site.name, sizeof(lane->site.name), "mx%u.to.example", i);
        lane->site.limits = &world->limits;
        lane->site.endpoint_count = 2;
        lane->site.own = lane;
        for (uint8_t j = 0; j < 2; j++) {
            lane->site.endpoints[j].address = (struct config_address){.bytes = {192, 0, 2, (uint8_t)(10 + j)}, .family = 4, .port = 25};
            snprintf(lane->site.endpoints[j].name, sizeof(lane->site.endpoints[j].name), "mx%u-%u.to.example", i, j);
            lane->sources[j] = (struct config_source){.address = {.bytes = {198, 51, 100, (uint8_t)(20 + j)}, .family = 4},
                                                      .ehlo = (char *)(uintptr_t) "out.from.example"};
        }
        lane->pool = (struct config_pool){.name = (char *)(uintptr_t) "pool", .source_count = 2, .sources = lane->sources};
        lane->lane.site = &lane->site;
        lane->lane.pool = &lane->pool;
        lane->lane.sessions = 2 * WORLD_WORKERS;
        for (uint32_t worker = 0; worker < WORLD_WORKERS; worker++)
            lane->lane.sessions_allowed[worker] = 2;
    }
    *state = world;
    return world->base == NULL || world->press_descriptor < 0 ? -1 : 0;
}

int world_tear_down(void **state) {
    struct world *world = *state;
    if (world->dispatch != NULL)
        world_control_die(world);
    if (world->dataplane.lives)
        world_dataplane_die(world);
    event_base_free(world->base);
    close(world->press_descriptor);
    unlink(world->journal_path);
    unlink(world->socket_path);
    rmdir(world->directory);
    free(world);
    alarm(0);
    return 0;
}

void world_settle(struct world *world) {
    for (int i = 0; i < 8; i++)
        event_base_loop(world->base, EVLOOP_NONBLOCK);
}

static uint32_t wait_of(struct world *world, uint32_t lane, uint32_t count, size_t huge_bytes, struct job *job) {
    uint32_t first = world->delivery_count;
    struct delivery **last = &world->lanes[lane].first;
    while (*last != NULL)
        last = &(*last)->next;
    for (uint32_t i = 0; i < count; i++) {
        assert_true(world->delivery_count < WORLD_DELIVERIES);
        uint32_t index = world->delivery_count++;
        struct delivery *delivery = &world->deliveries[index];
        *delivery = (struct delivery){.job = job, .index = index, .attempt = 2, .site = &world->lanes[lane].site};
        world->huge_bytes[index] = huge_bytes;
        *last = delivery;
        last = &delivery->next;
        world->lanes[lane].lane.waiting++;
    }
    dispatch_lane_changed(world->dispatch, &world->lanes[lane].lane);
    world_settle(world);
    return first;
}

uint32_t world_wait(struct world *world, uint32_t lane, uint32_t count) {
    return wait_of(world, lane, count, 0, &world->job);
}

uint32_t world_wait_huge(struct world *world, uint32_t lane, uint32_t count, size_t bytes, bool foretold) {
    world->huge_job.raw_length = bytes;
    return wait_of(world, lane, count, bytes, foretold ? &world->huge_job : &world->job);
}

/* ---- a worker ---- */

uint32_t world_path(struct world *world, uint32_t lane) {
    const struct lane_path *path = world->lanes[lane].lane.path;
    assert_non_null(path);
    return paths_index(world->dispatch, path);
}

void world_push(struct world *world, uint32_t worker, uint64_t entry) {
    const struct journal *journal = &world->dataplane.journal;
    assert_true(ring_push(journal, journal_outcome_ring(journal, worker, 0), entry));
    if (doorbell_take(journal_shard_waiting(journal, 0))) {
        uint64_t one = 1;
        assert_int_equal(write(world->dataplane.link.shard_doorbells[0], &one, sizeof(one)), sizeof(one));
    }
}

static void hint_credit(struct world *world, uint32_t worker, uint32_t path) {
    const struct journal *journal = &world->dataplane.journal;
    if (atomic_exchange(&journal_cell(journal, path, worker)->worker.hinted, 1) == 0)
        world_push(world, worker, ring_entry(RING_CREDIT, path, path_word_generation(journal->paths[path].word)));
}

void world_show(struct world *world, uint32_t worker, uint32_t path, uint32_t capacity, uint32_t ready) {
    struct path_worker_cell *cell = &journal_cell(&world->dataplane.journal, path, worker)->worker;
    atomic_store(&cell->ready_capacity, capacity);
    atomic_store(&cell->sessions_ready, ready);
    atomic_store(&cell->sessions_open, ready);
    hint_credit(world, worker, path);
    world_settle(world);
}

void world_pop(struct world *world, uint32_t worker) {
    const struct journal *journal = &world->dataplane.journal;
    uint64_t entries[64];
    uint32_t count;
    while ((count = ring_pop(journal, journal_order_ring(journal, worker, 0), entries, 64)) > 0)
        for (uint32_t i = 0; i < count; i++) {
            uint32_t index = ring_entry_index(entries[i]);
            if (ring_entry_kind(entries[i]) == RING_ORDER) {
                assert_true(world->order_count[worker] < 256 && index < WORLD_SLOTS);
                world->orders[worker][world->order_count[worker]++] =
                    (struct world_order){.slot = index, .generation = ring_entry_generation(entries[i])};
                continue;
            }
            assert_int_equal(ring_entry_kind(entries[i]), RING_PATH);
            assert_true(index < WORLD_PATHS);
            struct path_cell *cell = journal_cell(journal, index, worker);
            atomic_exchange(&cell->order.hinted, 0); /* a control that came back may have hinted twice */
            uint64_t word = journal->paths[index].word;
            if (path_word_state(word) != PATH_RETIRED)
                continue;
            atomic_store(&cell->worker.acknowledged_generation, path_word_generation(word));
            hint_credit(world, worker, index);
        }
}

uint32_t world_index(const struct slot *slot) {
    struct settle_cookie cookie;
    memcpy(&cookie, slot->cookie, sizeof(cookie));
    return cookie.index;
}

uint32_t world_message(const struct slot *slot) {
    char sender[64] = "";
    unsigned of = UINT32_MAX;
    memcpy(sender, slot->text, slot->sender_length < sizeof(sender) ? slot->sender_length : sizeof(sender) - 1);
    assert_int_equal(sscanf(sender, "news-%u@", &of), 1);
    return of;
}

/* Whose message it is by what the worker knows, and by what the test does. */
static uint32_t message_of(const struct world *world, const struct slot *slot, uint32_t first) {
    return world->alike ? 0 : world->leavers ? world_message(slot) : first;
}

void world_look(const struct world *world, const struct world_order *order, uint32_t first) {
    const struct slot *slot = &world->dataplane.journal.slots[order->slot];
    const uint8_t *arena = world->dataplane.arena.bytes + world->dataplane.arena.fd_offset;
    first = message_of(world, slot, first);
    assert_int_equal(slot->size_bytes, bytes_of(world, first));
    const struct arena_piece *pieces = (const void *)(arena + slot->pieces);
    uint8_t *text = text_of(world, first);
    size_t at = 0;
    for (uint32_t i = 0; i < slot->piece_count; i++) {
        assert_true(pieces[i].length > 0 && pieces[i].offset + pieces[i].length <= world->arena_bytes);
        if (world->dataplane.link.hello.pieces_in_page) {
            uint64_t begin = world->dataplane.arena.fd_offset + pieces[i].offset;
            assert_int_equal(begin / WORLD_PAGE_BYTES, (begin + pieces[i].length - 1) / WORLD_PAGE_BYTES);
        }
        assert_true(at + pieces[i].length <= slot->size_bytes);
        if (memcmp(arena + pieces[i].offset, text + at, pieces[i].length) != 0)
            fail_msg("piece %u of delivery %u is not its own", i, world_index(slot));
        at += pieces[i].length;
    }
    free(text);
    assert_int_equal(at, slot->size_bytes);
}

/* `first`: whose message it is. */
static void check_slot(const struct world *world, uint32_t worker, const struct world_order *order, uint32_t first) {
    const struct journal *journal = &world->dataplane.journal;
    const struct slot *slot = &journal->slots[order->slot];
    uint32_t index = world_index(slot);
    char text[128];
    assert_int_equal(slot->worker, worker);
    assert_int_equal(slot->dataplane_generation, world->dataplane.generation);
    assert_true(slot->path < WORLD_PATHS);
    assert_int_equal(slot->path_generation, path_word_generation(journal->paths[slot->path].word));
    assert_int_equal(slot->arena_extent_bytes != 0, index == first);
    assert_true(slot->shared_extent_bytes == 0 || index == first);
    int length = snprintf(text, sizeof(text), "news-%u@from.exampleuser%u@to.example", message_of(world, slot, first), index);
    assert_int_equal(slot->sender_length + slot->recipient_length, length);
    assert_memory_equal(slot->text, text, length);
    world_look(world, order, first);
}

struct slot *world_claim(struct world *world, uint32_t worker, struct world_order *order) {
    while (world->order_count[worker] > 0) {
        *order = world->orders[worker][0];
        memmove(&world->orders[worker][0], &world->orders[worker][1], --world->order_count[worker] * sizeof(*order));
        struct slot *slot = &world->dataplane.journal.slots[order->slot];
        if (!slot_claim(slot, order->generation))
            continue; /* withdrawn */
        check_slot(world, worker, order, world_index(slot));
        assert_int_equal(slot->next, SLOT_NONE);
        return slot;
    }
    return NULL;
}

bool world_walk_begin(struct world *world, uint32_t worker, struct world_walk *walk, struct world_order *order) {
    while (world->order_count[worker] > 0) {
        *order = world->orders[worker][0];
        memmove(&world->orders[worker][0], &world->orders[worker][1], --world->order_count[worker] * sizeof(*order));
        const struct slot *slot = &world->dataplane.journal.slots[order->slot];
        if (!slot_claim(&world->dataplane.journal.slots[order->slot], order->generation))
            continue; /* withdrawn */
        check_slot(world, worker, order, world_index(slot));
        *walk = (struct world_walk){.worker = worker, .slot = slot->next, .generation = slot->next_generation, .first = world_index(slot)};
        return true;
    }
    return false;
}

bool world_walk_on(struct world *world, struct world_walk *walk, struct world_order *order) {
    while (walk->slot != SLOT_NONE) {
        struct slot *slot = &world->dataplane.journal.slots[walk->slot];
        *order = (struct world_order){walk->slot, walk->generation};
        bool claimed = slot_claim(slot, walk->generation);
        if (!claimed && slot_load(slot) != slot_word(walk->generation, SLOT_WITHDRAWN)) {
            walk->slot = SLOT_NONE; /* it is not there any more: the chain ends here */
            return false;
        }
        walk->slot = slot->next;
        walk->generation = slot->next_generation;
        if (!claimed)
            continue;
        check_slot(world, walk->worker, order, walk->first);
        return true;
    }
    return false;
}

uint32_t world_claim_chain(struct world *world, uint32_t worker, struct world_order *orders) {
    struct world_walk walk;
    uint32_t count = 0;
    if (!world_walk_begin(world, worker, &walk, &orders[0]))
        return 0;
    do
        count++;
    while (world_walk_on(world, &walk, &orders[count]));
    return count;
}

void world_answer(struct world *world, uint32_t worker, const struct world_order *order, enum slot_outcome outcome, uint16_t code,
                  const char *text) {
    struct slot *slot = &world->dataplane.journal.slots[order->slot];
    struct slot_reply *reply = &slot->reply;
    memset(reply, 0, sizeof(*reply));
    reply->outcome = (uint8_t)outcome;
    reply->stage = STAGE_FINAL;
    reply->code = code;
    reply->enhanced[0] = code / 100;
    reply->enhanced[1] = 7;
    reply->enhanced[2] = 1;
    reply->text_length = (uint16_t)strlen(text);
    memcpy(slot->text + slot->sender_length + slot->recipient_length, text, reply->text_length);
    memcpy(reply->peer_address, "\xc0\x00\x02\x0b", 4);
    reply->peer_family = 4;
    reply->endpoint = 1;
    reply->source = 1;
    reply->tls_version = 13;
    reply->worker = worker;
    reply->connected_us = 1000;
    reply->finished_us = 2000;
    slot_advance(slot, order->generation, SLOT_ANSWERED);
    world_push(world, worker, ring_entry(RING_OUTCOME, order->slot, order->generation));
}

void world_check(const struct world *world, uint32_t under_way) {
    uint32_t open = 0;
    for (uint32_t i = 0; i < world->delivery_count; i++) {
        const struct world_fate *fate = &world->fates[i];
        if (fate->ended > 1 || fate->taken < fate->ended + fate->back)
            fail_msg("delivery %u: taken %u times, ended %u, given back %u", i, fate->taken, fate->ended, fate->back);
        open += fate->taken - fate->ended - fate->back;
    }
    assert_int_equal(open, under_way);
    assert_int_equal(dispatch_in_progress(world->dispatch), under_way);
}

uint32_t world_slots_in(const struct world *world, enum slot_state state) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < WORLD_SLOTS; i++)
        count += slot_word_state(slot_load(&world->journal.slots[i])) == state;
    return count;
}
