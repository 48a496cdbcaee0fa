/* link.c: the connection to the dataplane: its arena and doorbells, and its death (the socket's end and then the journal's lock: never a
 * heartbeat). */
#include "control/dispatch/state.h"

#include "control/observe/log.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { RETRY_MS = 50, HELLO_WAIT_MS = 2000, DESCRIPTORS_MAX = 1 + JOURNAL_WORKERS_MAX + JOURNAL_SHARDS_MAX };

static void schedule(struct dispatch *dispatch) {
    struct timeval wait = {.tv_usec = RETRY_MS * 1000};
    evtimer_add(dispatch->link_timer, &wait);
}

static void close_all(int *descriptors, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        if (descriptors[i] >= 0) {
            close(descriptors[i]);
            descriptors[i] = -1;
        }
}

static void let_go(struct dispatch *dispatch) {
    /* Events first: a closed descriptor whose file another process holds open cannot be taken out of epoll. */
    if (dispatch->link_event != NULL)
        event_free(dispatch->link_event);
    if (dispatch->doorbell_event != NULL)
        event_free(dispatch->doorbell_event);
    dispatch->link_event = dispatch->doorbell_event = NULL;
    close_all(&dispatch->link, 1);
    if (dispatch->mapping != NULL)
        munmap(dispatch->mapping, dispatch->mapping_bytes);
    dispatch->mapping = dispatch->arena = NULL;
    close_all(&dispatch->arena_fd, 1);
    close_all(dispatch->worker_doorbells, JOURNAL_WORKERS_MAX);
    close_all(dispatch->shard_doorbells, JOURNAL_SHARDS_MAX);
    residents_forget(&dispatch->residents);
    arena_map_free(&dispatch->map);
}

/* No dataplane lives (the kernel says so): what the dead one had is decided now. */
static void bury(struct dispatch *dispatch) {
    bool first = !dispatch->harvested;
    outcomes_harvest(dispatch, 0);
    paths_forget(dispatch);
    dispatch->harvested = true;
    if (first)
        dispatch->config.harvested(dispatch->config.context);
}

static void on_doorbell(evutil_socket_t descriptor, short what, void *argument) {
    struct dispatch *dispatch = argument;
    uint64_t rung;
    ssize_t got = read(dispatch->shard_doorbells[dispatch->shard], &rung, sizeof(rung));
    (void)got;
    outcomes_read(dispatch);
    orders_ring(dispatch);
}

static void on_link(evutil_socket_t descriptor, short what, void *argument) {
    struct dispatch *dispatch = argument;
    char byte;
    ssize_t got = recv(dispatch->link, &byte, 1, MSG_DONTWAIT);
    if (got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR)))
        return;
    log_write(LOG_LEVEL_WARNING, "dispatch", "the dataplane's socket closed; waiting for its end");
    dispatch->up = false;
    event_del(dispatch->link_event);
    schedule(dispatch);
}

static bool hello_valid(const struct dispatch *dispatch, const struct link_hello *hello) {
    return hello->magic == LINK_MAGIC && hello->abi == JOURNAL_ABI && hello->workers == dispatch->workers &&
           hello->shards == dispatch->journal->geometry.shards && hello->arena_bytes >= ARENA_UNIT_BYTES && hello->page_bytes >= 4096 &&
           (hello->page_bytes & (hello->page_bytes - 1)) == 0 && hello->arena_bytes <= (1ull << 40);
}

/* What a connection brings. */
struct hello {
    struct link_hello record;
    int link, count;
    int descriptors[DESCRIPTORS_MAX + 2]; /* as many as its control message has room for */
};

static void hello_drop(struct hello *hello) {
    close_all(hello->descriptors, (uint32_t)hello->count);
    close_all(&hello->link, 1);
}

/* Receives the record and its descriptors. 0 or -errno. */
static int receive_hello(const struct dispatch *dispatch, struct hello *hello) {
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
    } control;
    static_assert(sizeof(control.bytes) - CMSG_LEN(0) <= sizeof(hello->descriptors), "whatever comes fits");
    struct iovec vector = {.iov_base = &hello->record, .iov_len = sizeof(hello->record)};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    struct timeval patience = {.tv_sec = HELLO_WAIT_MS / 1000};
    setsockopt(hello->link, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    ssize_t got = recvmsg(hello->link, &message, MSG_CMSG_CLOEXEC);
    int code = got < 0 ? -errno : 0;
    struct cmsghdr *header = got < 0 ? NULL : CMSG_FIRSTHDR(&message);
    if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
        hello->count = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(hello->descriptors, CMSG_DATA(header), (size_t)hello->count * sizeof(int));
    }
    if (code == 0 && (got != (ssize_t)sizeof(hello->record) || !hello_valid(dispatch, &hello->record) ||
                      hello->count != (int)(1 + dispatch->workers + hello->record.shards)))
        code = -EPROTO;
    return code;
}

/* Connects and receives. 0, or -errno and nothing is kept. */
static int meet(const struct dispatch *dispatch, struct hello *hello) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", dispatch->socket_path);
    hello->count = 0;
    hello->link = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (hello->link < 0)
        return -errno;
    int code = connect(hello->link, (struct sockaddr *)&address, sizeof(address)) == 0 ? receive_hello(dispatch, hello) : -errno;
    if (code != 0)
        hello_drop(hello);
    return code;
}

/* The offset that mmap takes is a multiple of the memory's page. */
static int map_arena(struct dispatch *dispatch, const struct link_hello *hello) {
    uint64_t before = hello->arena_offset % hello->page_bytes;
    uint64_t length = (before + hello->arena_bytes + hello->page_bytes - 1) / hello->page_bytes * hello->page_bytes;
    struct stat status;
    if (fstat(dispatch->arena_fd, &status) != 0 || hello->arena_offset > (uint64_t)status.st_size ||
        (uint64_t)status.st_size - hello->arena_offset < hello->arena_bytes)
        return -EPROTO; /* writing behind its end would be SIGBUS */
    void *mapping = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, dispatch->arena_fd, (off_t)(hello->arena_offset - before));
    if (mapping == MAP_FAILED)
        return -errno;
    dispatch->mapping = mapping;
    dispatch->mapping_bytes = length;
    dispatch->arena = dispatch->mapping + before;
    dispatch->arena_offset = hello->arena_offset;
    dispatch->page_bytes = hello->page_bytes;
    dispatch->pieces_in_page = hello->pieces_in_page != 0;
    return arena_map_create(&dispatch->map, hello->arena_bytes, dispatch->shard, dispatch->journal->geometry.shards);
}

static void lane_up(void *context, struct lane *lane) {
    dispatch_lane_changed(context, lane);
}

static int come_up(struct dispatch *dispatch) {
    struct hello met;
    int code = meet(dispatch, &met);
    if (code != 0)
        return code;
    const struct link_hello hello = met.record;
    dispatch->link = met.link;
    dispatch->arena_fd = met.descriptors[0];
    memcpy(dispatch->worker_doorbells, met.descriptors + 1, dispatch->workers * sizeof(int));
    memcpy(dispatch->shard_doorbells, met.descriptors + 1 + dispatch->workers, hello.shards * sizeof(int));
    code = map_arena(dispatch, &hello);
    if (code != 0) {
        let_go(dispatch);
        return code;
    }
    dispatch->link_event = event_new(dispatch->config.base, dispatch->link, EV_READ | EV_PERSIST, on_link, dispatch);
    dispatch->doorbell_event =
        event_new(dispatch->config.base, dispatch->shard_doorbells[dispatch->shard], EV_READ | EV_PERSIST, on_doorbell, dispatch);
    if (dispatch->link_event == NULL || dispatch->doorbell_event == NULL) {
        let_go(dispatch);
        return -ENOMEM;
    }
    dispatch->up = true;
    dispatch->dataplane_generation = hello.dataplane_generation;
    bool first = !dispatch->harvested;
    outcomes_harvest(dispatch, hello.dataplane_generation);
    dispatch->harvested = true;
    /* A new dataplane has no path yet and has been told of none; a living one must let go of those that it has. */
    if (atomic_load(&dispatch->journal->header->harvested[dispatch->shard]) != hello.dataplane_generation)
        paths_forget(dispatch);
    else
        paths_retire_inherited(dispatch);
    atomic_store_explicit(&dispatch->journal->header->harvested[dispatch->shard], hello.dataplane_generation, memory_order_release);
    event_add(dispatch->link_event, NULL);
    event_add(dispatch->doorbell_event, NULL);
    log_write(LOG_LEVEL_INFO, "dispatch", "connected to dataplane %u: arena of %llu MiB", hello.dataplane_generation,
              (unsigned long long)(hello.arena_bytes >> 20));
    if (first)
        dispatch->config.harvested(dispatch->config.context);
    dispatch->config.dataplane(dispatch->config.context, true);
    shape_lanes(dispatch->config.shape, lane_up, dispatch);
    outcomes_read(dispatch);
    orders_ring(dispatch);
    return 0;
}

/* The socket closed though its dataplane lives, which speaks to one peer at a time and met another. What it gave is still good. */
static bool come_back(struct dispatch *dispatch) {
    struct hello met;
    if (meet(dispatch, &met) != 0)
        return false;
    struct event *event = met.record.dataplane_generation != dispatch->dataplane_generation
                              ? NULL
                              : event_new(dispatch->config.base, met.link, EV_READ | EV_PERSIST, on_link, dispatch);
    if (event == NULL) {
        hello_drop(&met);
        return false;
    }
    close_all(met.descriptors, (uint32_t)met.count);
    event_free(dispatch->link_event);
    close(dispatch->link);
    dispatch->link = met.link;
    dispatch->link_event = event;
    event_add(event, NULL);
    dispatch->up = true;
    log_write(LOG_LEVEL_INFO, "dispatch", "connected to dataplane %u again", dispatch->dataplane_generation);
    shape_lanes(dispatch->config.shape, lane_up, dispatch);
    orders_ring(dispatch);
    return true;
}

/* Runs while there is no connection. */
static void on_timer(evutil_socket_t descriptor, short what, void *argument) {
    struct dispatch *dispatch = argument;
    if (dispatch->link >= 0 && !dispatch->up) { /* its socket closed */
        int alive = journal_role_alive(dispatch->journal, JOURNAL_DATAPLANE);
        uint32_t generation = atomic_load(&dispatch->journal->header->dataplane_generation);
        if (alive != 0 && generation == dispatch->dataplane_generation) {
            if (!come_back(dispatch))
                schedule(dispatch);
            return;
        }
        bury(dispatch);
        backlog_withdraw(dispatch, NULL, NULL);
        let_go(dispatch);
        log_write(LOG_LEVEL_WARNING, "dispatch", "dataplane %u has ended: %llu given back, %llu lost, %llu uncertain",
                  dispatch->dataplane_generation, (unsigned long long)dispatch->counters.harvested_returned,
                  (unsigned long long)dispatch->counters.harvested_lost, (unsigned long long)dispatch->counters.harvested_uncertain);
        dispatch->config.dataplane(dispatch->config.context, false);
    }
    if (come_up(dispatch) == 0)
        return;
    if (!dispatch->harvested && journal_role_alive(dispatch->journal, JOURNAL_DATAPLANE) == 0)
        bury(dispatch);
    schedule(dispatch);
}

int link_create(struct dispatch *dispatch, char *error, size_t error_bytes) {
    dispatch->link = dispatch->arena_fd = -1;
    for (uint32_t i = 0; i < JOURNAL_WORKERS_MAX; i++)
        dispatch->worker_doorbells[i] = -1;
    for (uint32_t i = 0; i < JOURNAL_SHARDS_MAX; i++)
        dispatch->shard_doorbells[i] = -1;
    int length =
        snprintf(dispatch->socket_path, sizeof(dispatch->socket_path), "%s/dataplane.sock", dispatch->config.config->run_directory);
    if (length < 0 || (size_t)length >= sizeof(dispatch->socket_path)) {
        snprintf(error, error_bytes, "run_directory %s is too long for a socket's path: use one of at most 90 bytes.",
                 dispatch->config.config->run_directory);
        return -ENAMETOOLONG;
    }
    dispatch->link_timer = evtimer_new(dispatch->config.base, on_timer, dispatch);
    return dispatch->link_timer == NULL ? -ENOMEM : 0;
}

void link_destroy(struct dispatch *dispatch) {
    let_go(dispatch);
    if (dispatch->link_timer != NULL)
        event_free(dispatch->link_timer);
}

void link_start(struct dispatch *dispatch) {
    struct timeval at_once = {0};
    evtimer_add(dispatch->link_timer, &at_once);
}
