/* journal.c: makes, checks and maps the journal; the rings; the texts of the shared enums. Linked by both processes. */
#include <bypost/journal.h>

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define JOURNAL_MAGIC 0x6c6e726a74737079ull /* "ypstjrnl" */

enum {
    PAGE = 4096,
    LOCK_BASE = 1 << 30, /* locks lie on offsets that no journal reaches, one for each role, one for formatting */
    LOCK_FORMAT = LOCK_BASE + 8,
    LOCK_TRIES = 500,
    LOCK_WAIT_NS = 10 * 1000 * 1000,
};

/* Where each part lies; the same sum on both sides, from the geometry alone. */
struct layout {
    size_t doorbells, slots, paths, rests, cells, counters, order_rings, outcome_rings, events, total;
    uint32_t ring_capacity;
    size_t ring_bytes;
};

static size_t place(size_t *at, size_t bytes) {
    size_t here = *at;
    *at += (bytes + PAGE - 1) / PAGE * PAGE;
    return here;
}

static bool layout_of(struct journal_geometry geometry, struct layout *layout) {
    if (geometry.workers == 0 || geometry.workers > JOURNAL_WORKERS_MAX || geometry.shards == 0 || geometry.shards > JOURNAL_SHARDS_MAX ||
        geometry.slots == 0 || geometry.slots > JOURNAL_SLOTS_MAX || geometry.paths == 0 || geometry.paths > JOURNAL_PATHS_MAX ||
        geometry.slots % geometry.shards != 0 || geometry.paths % geometry.shards != 0)
        return false;
    /* Every slot and path of the shard, and every event, so that posting cannot fail. */
    uint32_t entries = geometry.slots / geometry.shards + geometry.paths / geometry.shards + JOURNAL_EVENTS;
    layout->ring_capacity = 1;
    while (layout->ring_capacity < entries)
        layout->ring_capacity *= 2;
    layout->ring_bytes = sizeof(struct ring) + (size_t)layout->ring_capacity * sizeof(uint64_t);
    size_t pairs = (size_t)geometry.workers * geometry.shards;
    size_t at = PAGE;
    layout->doorbells = place(&at, (size_t)(JOURNAL_WORKERS_MAX + JOURNAL_SHARDS_MAX) * 64);
    layout->slots = place(&at, (size_t)geometry.slots * SLOT_BYTES);
    layout->paths = place(&at, (size_t)geometry.paths * PATH_BYTES);
    layout->rests = place(&at, (size_t)geometry.paths * sizeof(struct path_rests));
    layout->cells = place(&at, (size_t)geometry.paths * geometry.workers * sizeof(struct path_cell));
    layout->counters = place(&at, (size_t)geometry.workers * COUNTERS_BYTES);
    layout->order_rings = place(&at, pairs * layout->ring_bytes);
    layout->outcome_rings = place(&at, pairs * layout->ring_bytes);
    layout->events = place(&at, pairs * JOURNAL_EVENTS * sizeof(struct path_event));
    layout->total = at;
    return true;
}
static_assert(sizeof(struct journal_header) <= PAGE, "the header is one page");

size_t journal_bytes(struct journal_geometry geometry) {
    struct layout layout;
    return layout_of(geometry, &layout) ? layout.total : 0;
}

static int fail(char *error, size_t error_bytes, int code, const char *format, ...) __attribute__((format(printf, 4, 5)));
static int fail(char *error, size_t error_bytes, int code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error, error_bytes, format, arguments);
    va_end(arguments);
    return code;
}

static int lock_at(int fd, off_t offset, short type) {
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = offset, .l_len = 1};
    return fcntl(fd, F_OFD_SETLK, &lock) == 0 ? 0 : -errno;
}

int journal_role_alive(const struct journal *journal, enum journal_role role) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_BASE + (off_t)role, .l_len = 1};
    if (fcntl(journal->fd, F_OFD_GETLK, &lock) != 0)
        return -errno;
    return lock.l_type != F_UNLCK;
}

static bool geometry_equal(struct journal_geometry a, struct journal_geometry b) {
    return a.workers == b.workers && a.shards == b.shards && a.slots == b.slots && a.paths == b.paths;
}

static int map_file(struct journal *journal, const struct layout *layout, int protection) {
    void *base = mmap(NULL, layout->total, protection, MAP_SHARED, journal->fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    uint8_t *bytes = base;
    journal->mapped_bytes = layout->total;
    journal->ring_capacity = layout->ring_capacity;
    journal->ring_bytes = layout->ring_bytes;
    journal->header = base;
    journal->slots = (struct slot *)(bytes + layout->slots);
    journal->paths = (struct path *)(bytes + layout->paths);
    journal->rests = (struct path_rests *)(bytes + layout->rests);
    journal->cells = (struct path_cell *)(bytes + layout->cells);
    journal->counters = bytes + layout->counters;
    journal->order_rings = bytes + layout->order_rings;
    journal->outcome_rings = bytes + layout->outcome_rings;
    journal->events = (struct path_event *)(bytes + layout->events);
    return 0;
}

/* An empty file (all zeros is a valid state of every part) with the header's page written last. */
static int format_file(int fd, struct journal_geometry geometry, size_t total) {
    if (ftruncate(fd, 0) != 0 || ftruncate(fd, (off_t)total) != 0)
        return -errno;
    int code = posix_fallocate(fd, 0, (off_t)total); /* a full disk shows here, not as SIGBUS later */
    if (code != 0)
        return -code;
    struct journal_header header = {.magic = JOURNAL_MAGIC, .abi = JOURNAL_ABI, .geometry = geometry, .file_bytes = total};
    ssize_t written = pwrite(fd, &header, sizeof(header), 0);
    return written == (ssize_t)sizeof(header) ? 0 : written < 0 ? -errno : -EIO;
}

/* How many slots of a journal with another geometry are not free. */
static uint64_t count_live(int fd, struct journal_geometry geometry) {
    struct layout layout;
    if (!layout_of(geometry, &layout))
        return 0;
    uint64_t live = 0;
    for (uint32_t i = 0; i < geometry.slots; i++) {
        uint64_t word = 0;
        if (pread(fd, &word, sizeof(word), (off_t)(layout.slots + (size_t)i * SLOT_BYTES)) == (ssize_t)sizeof(word) &&
            slot_word_state(word) != SLOT_FREE)
            live++;
    }
    return live;
}

/* With the format lock held: makes the file what `geometry` asks for, or says why not. */
static int prepare(struct journal *journal, const char *path, struct journal_geometry geometry, size_t total, char *error,
                   size_t error_bytes) {
    struct stat status;
    if (fstat(journal->fd, &status) != 0)
        return fail(error, error_bytes, -errno, "%s: %s.", path, strerror(errno));
    struct journal_header header;
    memset(&header, 0, sizeof(header));
    if (status.st_size >= (off_t)sizeof(header) && pread(journal->fd, &header, sizeof(header), 0) != (ssize_t)sizeof(header))
        return fail(error, error_bytes, -EIO, "%s cannot be read.", path);
    bool empty = status.st_size == 0 || header.magic == 0;
    if (!empty && (header.magic != JOURNAL_MAGIC || header.abi != JOURNAL_ABI))
        return fail(error, error_bytes, -EPROTO,
                    "%s is not a journal of this version of bypost. Let the version that made it drain (SIGTERM), then remove the file.",
                    path);
    if (!empty && geometry_equal(header.geometry, geometry) && status.st_size == (off_t)total && header.file_bytes == total)
        return 0;
    if (!empty) {
        for (int role = JOURNAL_DATAPLANE; role <= JOURNAL_CONTROL; role++) {
            struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_BASE + role, .l_len = 1};
            if (fcntl(journal->fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK)
                return fail(error, error_bytes, -ESTALE,
                            "%s is in use with another number of workers, shards, slots or paths. Restart both processes together.", path);
        }
        uint64_t live = count_live(journal->fd, header.geometry);
        if (live != 0)
            return fail(error, error_bytes, -ESTALE,
                        "%s holds %llu unfinished recipients under another number of workers, shards, slots or paths. Start once with the "
                        "old settings and stop with SIGTERM, then change them.",
                        path, (unsigned long long)live);
    }
    int code = format_file(journal->fd, geometry, total);
    return code == 0 ? 0 : fail(error, error_bytes, code, "%s: %zu bytes cannot be reserved: %s.", path, total, strerror(-code));
}

static int open_observer(struct journal *journal, const char *path, char *error, size_t error_bytes) {
    struct journal_header header;
    struct layout layout;
    struct stat status;
    if (fstat(journal->fd, &status) != 0 || pread(journal->fd, &header, sizeof(header), 0) != (ssize_t)sizeof(header) ||
        header.magic != JOURNAL_MAGIC || header.abi != JOURNAL_ABI || !layout_of(header.geometry, &layout) ||
        status.st_size != (off_t)layout.total)
        return fail(error, error_bytes, -EPROTO, "%s is not a journal of this version of bypost.", path);
    journal->geometry = header.geometry;
    int code = map_file(journal, &layout, PROT_READ);
    return code == 0 ? 0 : fail(error, error_bytes, code, "%s cannot be mapped: %s.", path, strerror(-code));
}

static int open_role(struct journal *journal, const char *path, struct journal_geometry geometry, enum journal_role role, char *error,
                     size_t error_bytes) {
    struct layout layout;
    if (!layout_of(geometry, &layout))
        return fail(
            error, error_bytes, -EINVAL,
            "impossible journal: %u workers (1-%d), %u shards (1-%d), %u slots (1-%d), %u paths (1-%d); slots and paths divide evenly "
            "between the shards.",
            geometry.workers, JOURNAL_WORKERS_MAX, geometry.shards, JOURNAL_SHARDS_MAX, geometry.slots, JOURNAL_SLOTS_MAX, geometry.paths,
            JOURNAL_PATHS_MAX);
    int code = -EAGAIN;
    for (int tries = 0; tries < LOCK_TRIES && (code = lock_at(journal->fd, LOCK_FORMAT, F_WRLCK)) == -EAGAIN; tries++)
        nanosleep(&(struct timespec){.tv_nsec = LOCK_WAIT_NS}, NULL);
    if (code != 0)
        return fail(error, error_bytes, code, "%s cannot be locked: %s.", path, strerror(-code));
    code = prepare(journal, path, geometry, layout.total, error, error_bytes);
    if (code == 0 && lock_at(journal->fd, LOCK_BASE + (off_t)role, F_WRLCK) != 0)
        code = fail(error, error_bytes, -EBUSY, "%s: another bypost-%s uses it. Stop that one first.", path,
                    role == JOURNAL_DATAPLANE ? "dataplane" : "control");
    lock_at(journal->fd, LOCK_FORMAT, F_UNLCK);
    if (code != 0)
        return code;
    journal->geometry = geometry;
    code = map_file(journal, &layout, PROT_READ | PROT_WRITE);
    return code == 0 ? 0 : fail(error, error_bytes, code, "%s cannot be mapped: %s.", path, strerror(-code));
}

int journal_open(struct journal *journal, const char *path, struct journal_geometry geometry, enum journal_role role, char *error,
                 size_t error_bytes) {
    memset(journal, 0, sizeof(*journal));
    bool observer = role == JOURNAL_OBSERVER;
    journal->fd = open(path, (observer ? O_RDONLY : O_RDWR | O_CREAT) | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (journal->fd < 0)
        return fail(error, error_bytes, -errno, "%s cannot be opened: %s.", path, strerror(errno));
    int code = observer ? open_observer(journal, path, error, error_bytes) : open_role(journal, path, geometry, role, error, error_bytes);
    if (code != 0) {
        close(journal->fd);
        journal->fd = -1;
    }
    return code;
}

void journal_close(struct journal *journal) {
    if (journal->header != NULL)
        munmap(journal->header, journal->mapped_bytes);
    if (journal->fd >= 0)
        close(journal->fd); /* and with it the role's lock */
    memset(journal, 0, sizeof(*journal));
    journal->fd = -1;
}

uint32_t journal_begin_dataplane(struct journal *journal) {
    /* Orders and hints for the dataplane before this one. */
    for (uint32_t worker = 0; worker < journal->geometry.workers; worker++)
        for (uint32_t shard = 0; shard < journal->geometry.shards; shard++)
            ring_forget(journal_order_ring(journal, worker, shard));
    atomic_store_explicit(&journal->header->draining, 0, memory_order_relaxed);
    return atomic_fetch_add_explicit(&journal->header->dataplane_generation, 1, memory_order_acq_rel) + 1;
}

uint32_t journal_begin_control(struct journal *journal) {
    return atomic_fetch_add_explicit(&journal->header->control_generation, 1, memory_order_acq_rel) + 1;
}

bool journal_harvested(const struct journal *journal, uint32_t dataplane_generation) {
    for (uint32_t shard = 0; shard < journal->geometry.shards; shard++)
        if (atomic_load_explicit(&journal->header->harvested[shard], memory_order_acquire) != dataplane_generation)
            return false;
    return true;
}

static _Atomic uint32_t *doorbell(const struct journal *journal, uint32_t index) {
    return (_Atomic uint32_t *)((uint8_t *)journal->header + PAGE + (size_t)index * 64);
}
_Atomic uint32_t *journal_worker_waiting(const struct journal *journal, uint32_t worker) {
    return doorbell(journal, worker);
}
_Atomic uint32_t *journal_shard_waiting(const struct journal *journal, uint32_t shard) {
    return doorbell(journal, JOURNAL_WORKERS_MAX + shard);
}

static _Atomic uint64_t *ring_entries(struct ring *ring) {
    return (_Atomic uint64_t *)(ring + 1);
}

bool ring_push(const struct journal *journal, struct ring *ring, uint64_t entry) {
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    if (head - tail >= journal->ring_capacity)
        return false;
    atomic_store_explicit(&ring_entries(ring)[head & (journal->ring_capacity - 1)], entry, memory_order_relaxed);
    atomic_store_explicit(&ring->head, head + 1, memory_order_release);
    return true;
}

uint32_t ring_pop(const struct journal *journal, struct ring *ring, uint64_t *entries, uint32_t count) {
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    uint64_t available = atomic_load_explicit(&ring->head, memory_order_acquire) - tail;
    if (available == 0 || available > journal->ring_capacity)
        return 0;
    uint32_t taken = available < count ? (uint32_t)available : count;
    for (uint32_t i = 0; i < taken; i++)
        entries[i] = atomic_load_explicit(&ring_entries(ring)[(tail + i) & (journal->ring_capacity - 1)], memory_order_relaxed);
    atomic_store_explicit(&ring->tail, tail + taken, memory_order_release);
    return taken;
}

bool ring_waiting(const struct journal *journal, const struct ring *ring) {
    uint64_t available = atomic_load_explicit(&ring->head, memory_order_acquire) - atomic_load_explicit(&ring->tail, memory_order_relaxed);
    return available != 0 && available <= journal->ring_capacity;
}

void ring_forget(struct ring *ring) {
    atomic_store_explicit(&ring->events_read, atomic_load_explicit(&ring->events_written, memory_order_acquire), memory_order_release);
    atomic_store_explicit(&ring->tail, atomic_load_explicit(&ring->head, memory_order_acquire), memory_order_release);
}

static struct path_event *event_place(const struct journal *journal, uint32_t worker, uint32_t shard, uint32_t index) {
    return &journal->events[((size_t)worker * journal->geometry.shards + shard) * JOURNAL_EVENTS + index];
}

bool path_event_post(const struct journal *journal, uint32_t worker, uint32_t shard, const struct path_event *event) {
    struct ring *ring = journal_outcome_ring(journal, worker, shard);
    uint64_t sequence = atomic_load_explicit(&ring->events_written, memory_order_relaxed);
    if (sequence - atomic_load_explicit(&ring->events_read, memory_order_acquire) >= JOURNAL_EVENTS)
        return false;
    uint32_t index = (uint32_t)(sequence % JOURNAL_EVENTS);
    struct path_event *place = event_place(journal, worker, shard, index);
    *place = *event;
    place->sequence = sequence;
    place->worker = (uint16_t)worker;
    atomic_store_explicit(&ring->events_written, sequence + 1, memory_order_release);
    return ring_push(journal, ring, ring_entry(RING_EVENT, index, (uint32_t)sequence));
}

bool path_event_read(const struct journal *journal, uint32_t worker, uint32_t shard, uint64_t entry, struct path_event *event) {
    uint32_t index = ring_entry_index(entry);
    if (index >= JOURNAL_EVENTS)
        return false;
    struct ring *ring = journal_outcome_ring(journal, worker, shard);
    *event = *event_place(journal, worker, shard, index);
    if ((uint32_t)event->sequence != ring_entry_generation(entry))
        return false;
    atomic_store_explicit(&ring->events_read, event->sequence + 1, memory_order_release);
    return event->kind < PATH_EVENT_KINDS && event->stage < STAGE_KINDS && event->path < journal->geometry.paths &&
           event->endpoint < PATH_ENDPOINTS_MAX && event->source < PATH_SOURCES_MAX && event->text_length <= PATH_EVENT_TEXT_BYTES;
}

const char *smtp_stage_text(unsigned stage) {
    static const char *const texts[STAGE_KINDS] = {"connect", "banner", "ehlo",  "starttls", "auth", "mail", "rcpt",
                                                   "data",    "body",   "final", "rset",     "quit", "idle"};
    return stage < STAGE_KINDS ? texts[stage] : "unknown";
}

const char *path_event_text(unsigned kind) {
    static const char *const texts[PATH_EVENT_KINDS] = {"connect failed",  "greeting refused", "closed early",
                                                        "shutdown reply",  "TLS failed",       "AUTH failed",
                                                        "ports exhausted", "protocol error",   "ready"};
    return kind < PATH_EVENT_KINDS ? texts[kind] : "unknown";
}

const char *tls_failure_text(unsigned failure) {
    static const char *const texts[TLS_FAILURES] = {"no failure",
                                                    "STARTTLS is not offered",
                                                    "STARTTLS was refused",
                                                    "plaintext behind the reply to STARTTLS",
                                                    "the TLS handshake failed",
                                                    "the TLS handshake timed out",
                                                    "the certificate is for other names",
                                                    "the certificate has expired or is not valid yet",
                                                    "the certificate is not of a trusted chain",
                                                    "no TLSA record names the certificate",
                                                    "TLS could not be begun here"};
    return failure < TLS_FAILURES ? texts[failure] : "unknown";
}
