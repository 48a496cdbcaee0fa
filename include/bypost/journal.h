/* journal.h: the small shared file that outlives both processes: geometry, generations, slots, rings, paths, counters.
 * Both sides map it; what a broken peer wrote is checked before use. README.md beside this file is the contract in words. */
#ifndef BYPOST_JOURNAL_H
#define BYPOST_JOURNAL_H

#include <bypost/counters.h>
#include <bypost/path.h>
#include <bypost/slot.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    JOURNAL_ABI = 3,
    JOURNAL_WORKERS_MAX = 64,
    JOURNAL_SHARDS_MAX = 16,
    JOURNAL_SLOTS_MAX = 1 << 22,
    JOURNAL_PATHS_MAX = 1 << 16,
    JOURNAL_EVENTS = 1024, /* path events that a worker may have unread by a shard */
};

struct journal_geometry {
    uint32_t workers, shards, slots, paths; /* slots and paths are divided evenly between the shards */
};

struct journal_header {
    uint64_t magic;
    uint32_t abi;
    struct journal_geometry geometry;
    uint64_t file_bytes;
    /* Counted up by each start of a dataplane, under its lock. */
    _Alignas(64) _Atomic uint32_t dataplane_generation;
    _Atomic uint32_t control_generation;
    /* Per shard, the dataplane generation up to which that shard has harvested; a worker takes no order before all have. */
    _Atomic uint32_t harvested[JOURNAL_SHARDS_MAX];
    _Atomic uint32_t draining; /* 1: workers finish what is on the wire, return the rest, and close */
};

/* A ring entry: kind in the top 4 bits, index in the next 28, generation in the lower 32. */
enum ring_kind {
    RING_ORDER = 1, /* control -> worker: a queued slot */
    RING_PATH,      /* control -> worker: look at this path (published, retired, or its cell changed) */
    RING_OUTCOME,   /* worker -> control: an answered slot */
    RING_CREDIT,    /* worker -> control: look at this path's worker cell */
    RING_EVENT,     /* worker -> control: a path event; the index is its place, the generation its sequence's lower half */
};
static inline uint64_t ring_entry(enum ring_kind kind, uint32_t index, uint32_t generation) {
    return (uint64_t)kind << 60 | (uint64_t)(index & 0x0fffffffu) << 32 | generation;
}
static inline unsigned ring_entry_kind(uint64_t entry) {
    return (unsigned)(entry >> 60);
}
static inline uint32_t ring_entry_index(uint64_t entry) {
    return (uint32_t)(entry >> 32) & 0x0fffffffu;
}
static inline uint32_t ring_entry_generation(uint64_t entry) {
    return (uint32_t)entry;
}

/* One producer, one consumer, in shared memory. `head` and `tail` count up without end; the capacity is a power of two. */
struct ring {
    _Alignas(64) _Atomic uint64_t head;           /* producer */
    _Alignas(64) _Atomic uint64_t tail;           /* consumer */
    _Atomic uint64_t events_read;                 /* consumer: path events read so far (outcome rings) */
    _Alignas(64) _Atomic uint64_t events_written; /* producer: path events written so far (outcome rings) */
};

/* A mapped journal. `capacity` of the rings covers every slot, one hint for each path and every event, so that posting cannot fail. */
struct journal {
    int fd;
    struct journal_geometry geometry;
    struct journal_header *header;
    struct slot *slots;        /* [slots] */
    struct path *paths;        /* [paths] */
    struct path_rests *rests;  /* [paths] */
    struct path_cell *cells;   /* [paths][workers] */
    uint8_t *counters;         /* [workers][COUNTERS_BYTES] */
    uint8_t *order_rings;      /* [workers][shards], each struct ring and capacity entries */
    uint8_t *outcome_rings;    /* the same */
    struct path_event *events; /* [workers][shards][JOURNAL_EVENTS] */
    uint32_t ring_capacity;
    size_t ring_bytes;
    size_t mapped_bytes;
};

/* Who opens it. Each role holds a lock on the file while it lives: the kernel's word that it is alive (DESIGN.md section 4). */
enum journal_role { JOURNAL_DATAPLANE, JOURNAL_CONTROL, JOURNAL_OBSERVER };

/* Opens the journal at `path` (mode 0600, made if missing) and takes the role's lock. An observer takes none and needs no geometry (zeros).
 * 0, or -errno with a sentence in error: -EBUSY another process has the role; -EPROTO made by another version or damaged; -ESTALE its
 * geometry differs and it still holds undelivered slots (a journal without any is made anew); -EINVAL the geometry asked for is impossible.
 */
int journal_open(struct journal *journal, const char *path, struct journal_geometry geometry, enum journal_role role, char *error,
                 size_t error_bytes);
void journal_close(struct journal *journal);
/* Bytes of a journal of this geometry; 0 when it is impossible. */
size_t journal_bytes(struct journal_geometry geometry);
/* Is some process alive in that role? Asks the kernel for its lock. 1, 0, or -errno. */
int journal_role_alive(const struct journal *journal, enum journal_role role);

/* Counts the generation up: call once after journal_open in that role. Returns the new one. */
uint32_t journal_begin_dataplane(struct journal *journal);
uint32_t journal_begin_control(struct journal *journal);
/* May workers of this dataplane generation take orders? */
bool journal_harvested(const struct journal *journal, uint32_t dataplane_generation);

static inline struct ring *journal_order_ring(const struct journal *journal, uint32_t worker, uint32_t shard) {
    return (struct ring *)(journal->order_rings + ((size_t)worker * journal->geometry.shards + shard) * journal->ring_bytes);
}
static inline struct ring *journal_outcome_ring(const struct journal *journal, uint32_t worker, uint32_t shard) {
    return (struct ring *)(journal->outcome_rings + ((size_t)worker * journal->geometry.shards + shard) * journal->ring_bytes);
}
static inline struct path_cell *journal_cell(const struct journal *journal, uint32_t path, uint32_t worker) {
    return &journal->cells[(size_t)path * journal->geometry.workers + worker];
}
static inline struct counters *journal_counters(const struct journal *journal, uint32_t worker) {
    return (struct counters *)(journal->counters + (size_t)worker * COUNTERS_BYTES);
}
/* The shard that owns a slot or a path: each has an equal share of the indexes. */
static inline uint32_t journal_slot_shard(const struct journal *journal, uint32_t slot) {
    return slot / (journal->geometry.slots / journal->geometry.shards);
}
static inline uint32_t journal_path_shard(const struct journal *journal, uint32_t path) {
    return path / (journal->geometry.paths / journal->geometry.shards);
}

/* Producer: appends. False when full, which a correct peer never causes (see `capacity`). */
bool ring_push(const struct journal *journal, struct ring *ring, uint64_t entry);
/* Consumer: takes up to `count` entries; returns how many. A wild head from a broken producer is taken as empty. */
uint32_t ring_pop(const struct journal *journal, struct ring *ring, uint64_t *entries, uint32_t count);
/* Is there something to take? False also for a wild head, of which ring_pop gives nothing. */
bool ring_waiting(const struct journal *journal, const struct ring *ring);
/* Consumer after a restart: forgets what is in the ring; the slots are scanned instead. */
void ring_forget(struct ring *ring);

/* Worker: posts what belongs to no order (the caller fills all but `sequence` and `worker`). False when control has not read the last
 * JOURNAL_EVENTS: the event is dropped, the caller counts it. */
bool path_event_post(const struct journal *journal, uint32_t worker, uint32_t shard, const struct path_event *event);
/* Control: the event of a RING_EVENT entry, copied and checked. False for a stale or wild one. */
bool path_event_read(const struct journal *journal, uint32_t worker, uint32_t shard, uint64_t entry, struct path_event *event);

/* Doorbells. A consumer sets `waiting`, looks once more, then sleeps; a producer writes the consumer's eventfd only when it was set.
 * They live behind the header: one for each worker, one for each shard. */
_Atomic uint32_t *journal_worker_waiting(const struct journal *journal, uint32_t worker);
_Atomic uint32_t *journal_shard_waiting(const struct journal *journal, uint32_t shard);
/* Producer, after pushing: rings when the consumer sleeps. */
static inline bool doorbell_take(_Atomic uint32_t *waiting) {
    atomic_thread_fence(memory_order_seq_cst);
    return atomic_load_explicit(waiting, memory_order_relaxed) != 0 && atomic_exchange_explicit(waiting, 0, memory_order_acq_rel) != 0;
}
/* Consumer, before its last look. */
static inline void doorbell_arm(_Atomic uint32_t *waiting) {
    atomic_store_explicit(waiting, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
}

/* The Unix socket between the processes. The dataplane listens; control connects; the dataplane answers with one struct link_hello and, as
 * SCM_RIGHTS, the arena's descriptor, then one eventfd for each worker, then one for each shard. After that the socket carries nothing:
 * its end is the other side's death. */
enum { LINK_MAGIC = 0x42594c4b };
struct link_hello {
    uint32_t magic, abi;
    uint32_t dataplane_generation;
    uint32_t workers, shards;
    uint32_t pid;
    uint64_t arena_offset; /* in the descriptor */
    uint64_t arena_bytes;
    uint64_t page_bytes; /* a piece never crosses such a page when `pieces_in_page` */
    uint32_t pieces_in_page;
    uint32_t reserved;
};

#endif
