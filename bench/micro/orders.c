/* orders.c: plays control's part for one worker of bypost-dataplane, by the journal alone: one path, messages that lie ready in the arena,
 * an order for every bit of credit. So Redis, rendering and signing are not measured. bench/messages, bench/latency and bench/tls run it.
 */
#include "bench/sink/address.h"
#include "bench/sink/digest.h"
#include <bypost/journal.h>
#include <errno.h>
#include <getopt.h>
#include <glob.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    ERROR_BYTES = 512,
    START_MS = 20000,
    STEP_US = 20, /* a rest when nothing came: the sink may live on the same core */
    TAKE = 256,
    MESSAGES_MAX = 1024, /* different ones, sent in turn */
    HEAD_BYTES = 512,
    RECIPIENTS_MAX = 1000,
    DIGEST_EVERY = 16, /* so many messages tell the digest of their body, which the sink checks */
    DONE_WAIT_US = 10000000,
    STRINGS_FIRST = 1,
    OWN_BYTES = 78, /* a personal line between two runs of what the messages share */
    RUNS_MAX = 64,
};

struct plan {
    const char *journal_path, *socket_path, *ehlo, *name;
    struct net_address endpoints[PATH_ENDPOINTS_MAX], sources[PATH_SOURCES_MAX];
    uint32_t endpoint_count, source_count, port;
    uint32_t slots, paths, sessions, size, recipients, pipelined, deliveries, idle, warm_ms, measure_ms, messages, idle_timeout_ms, runs;
    enum path_tls tls;
    uint8_t flags, version_min;
    const char *user, *secret;
    uint32_t mechanisms;
};

struct driver {
    struct plan plan;
    struct journal journal;
    struct link_hello hello;
    int link;
    int doorbells[JOURNAL_WORKERS_MAX];
    uint8_t *mapping, *arena;
    uint64_t arena_used;
    uint64_t tables[MESSAGES_MAX];                 /* of pieces */
    uint32_t messages;                             /* that there are */
    uint32_t groups, outstanding;                  /* transactions that the slots hold; ordered without an outcome */
    uint32_t *idle_groups, idle_first, idle_count; /* a queue: every slot and message is used in turn, as cold as control's would be */
    uint32_t *open_recipients;                     /* of each group */
    uint64_t orders, answered, delivered;
    uint64_t outcomes[OUTCOME_KINDS], events[PATH_EVENT_KINDS];
    char first_trouble[320];
    uint8_t tls_version;
};

static volatile sig_atomic_t stopped;

static void on_stop(int number) {
    stopped = 1;
}

static uint64_t clock_us(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000;
}

static void rest_us(uint32_t us) {
    nanosleep(&(struct timespec){.tv_nsec = (long)us * 1000}, NULL);
}

static int complain(char *error, const char *what, int code) {
    snprintf(error, ERROR_BYTES, "%s: %s", what, strerror(-code));
    return code;
}

/* The dataplane's hello, with the arena and the doorbells. */
static int receive_hello(struct driver *driver) {
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE((2 + JOURNAL_WORKERS_MAX) * sizeof(int))];
    } control;
    struct iovec vector = {.iov_base = &driver->hello, .iov_len = sizeof(driver->hello)};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    setsockopt(driver->link, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){.tv_sec = START_MS / 1000}, sizeof(struct timeval));
    ssize_t got;
    do {
        got = recvmsg(driver->link, &message, MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR && !stopped);
    if (got < 0)
        return -errno;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    int descriptors[3]; /* one worker, one shard */
    if (got != (ssize_t)sizeof(driver->hello) || header == NULL || header->cmsg_len != CMSG_LEN(sizeof(descriptors)))
        return -EPROTO;
    memcpy(descriptors, CMSG_DATA(header), sizeof(descriptors));
    driver->doorbells[0] = descriptors[1];
    const struct link_hello *hello = &driver->hello;
    uint64_t before = hello->arena_offset % hello->page_bytes;
    driver->mapping =
        mmap(NULL, before + hello->arena_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptors[0], (off_t)(hello->arena_offset - before));
    if (driver->mapping == MAP_FAILED)
        return -errno;
    driver->arena = driver->mapping + before;
    return 0;
}

static int meet(struct driver *driver, char *error) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", driver->plan.socket_path);
    driver->link = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    int code = -ETIMEDOUT;
    for (uint32_t waited = 0; waited < START_MS; waited += 10) {
        code = connect(driver->link, (struct sockaddr *)&address, sizeof(address)) == 0 ? 0 : -errno;
        if (code == 0)
            break;
        rest_us(10000);
    }
    if (code == 0)
        code = receive_hello(driver);
    if (code != 0)
        return complain(error, driver->plan.socket_path, code);
    struct journal_geometry geometry = {.workers = 1, .shards = 1, .slots = driver->plan.slots, .paths = driver->plan.paths};
    code = journal_open(&driver->journal, driver->plan.journal_path, geometry, JOURNAL_CONTROL, error, ERROR_BYTES);
    if (code != 0)
        return code;
    journal_begin_control(&driver->journal);
    for (uint32_t i = 0; i < driver->plan.slots; i++)
        if (slot_word_state(slot_load(&driver->journal.slots[i])) != SLOT_FREE)
            return complain(error, "the journal holds orders", -EBUSY);
    ring_forget(journal_outcome_ring(&driver->journal, 0, 0));
    atomic_store_explicit(&driver->journal.header->harvested[0], driver->hello.dataplane_generation, memory_order_release);
    return 0;
}

/* A place that no page's end cuts. UINT64_MAX: the arena is full. */
static uint64_t arena_take(struct driver *driver, uint64_t bytes) {
    uint64_t page = driver->hello.page_bytes, at = (driver->arena_used + 63) & ~(uint64_t)63;
    uint64_t from = driver->hello.arena_offset + at;
    if (from / page != (from + bytes - 1) / page)
        at += page - from % page;
    if (at + bytes > driver->hello.arena_bytes)
        return UINT64_MAX;
    driver->arena_used = at + bytes;
    return at;
}

/* The pieces of one message: its header, and runs of the body that all share with a line of its own between two; without runs the whole
 * body is its own. Returns how many. */
static uint32_t cut(const struct driver *driver, uint64_t head, uint64_t body, uint32_t body_bytes, struct arena_piece *pieces) {
    uint32_t runs = driver->plan.runs, part = runs > 0 ? body_bytes / runs : 0;
    uint64_t own = head + HEAD_BYTES;
    pieces[0] = (struct arena_piece){.offset = head, .length = HEAD_BYTES};
    if (runs == 0) {
        memcpy(driver->arena + own, driver->arena + body, body_bytes);
        pieces[0].length += body_bytes;
        return 1;
    }
    pieces[1] = (struct arena_piece){.offset = body, .length = runs == 1 ? body_bytes : part};
    for (uint32_t run = 1; run < runs; run++, own += OWN_BYTES) {
        uint32_t from = part * run, to = run + 1 == runs ? body_bytes : from + part;
        memcpy(driver->arena + own, driver->arena + body + from, OWN_BYTES);
        pieces[2 * run] = (struct arena_piece){.offset = own, .length = OWN_BYTES};
        pieces[2 * run + 1] = (struct arena_piece){.offset = body + from + OWN_BYTES, .length = to - from - OWN_BYTES};
    }
    return 2 * runs;
}

/* As a campaign has them: of all the body is the same. */
static int make_messages(struct driver *driver, char *error) {
    uint32_t size = driver->plan.size, body_bytes = size - HEAD_BYTES;
    uint64_t body = arena_take(driver, body_bytes);
    if (body == UINT64_MAX)
        return complain(error, "the arena", -ENOSPC);
    char *text = (char *)driver->arena + body;
    for (uint32_t i = 0; i < body_bytes; i++)
        text[i] = (char)('a' + (i * 7 + i / 78) % 26);
    for (uint32_t i = 78; i <= body_bytes; i += 78)
        memcpy(text + i - 2, "\r\n", 2);
    memcpy(text + body_bytes - 2, "\r\n", 2);
    uint64_t digest = xxh64(text, body_bytes, 0);
    uint32_t runs = driver->plan.runs, own = HEAD_BYTES + (runs == 0 ? body_bytes : (runs - 1) * OWN_BYTES);
    for (uint32_t i = 0; i < MESSAGES_MAX; i++) {
        struct arena_piece pieces[2 * RUNS_MAX];
        uint64_t head = arena_take(driver, own), table = arena_take(driver, sizeof(pieces));
        if ((head == UINT64_MAX || table == UINT64_MAX) && i > 0)
            break;
        if (head == UINT64_MAX || table == UINT64_MAX)
            return complain(error, "the arena", -ENOSPC);
        char *at = (char *)driver->arena + head;
        int length =
            snprintf(at, HEAD_BYTES,
                     "From: <a@example.org>\r\nTo: <b%u@example.net>\r\nMessage-ID: <%u@example.org>\r\nSubject: %u\r\n%s%016" PRIx64
                     "\r\nX-Filler: ",
                     i, i, i, i % DIGEST_EVERY == 0 ? "X-Body-Digest: xxh64=" : "X-Nothing: ", digest);
        memset(at + length, 'x', HEAD_BYTES - (size_t)length);
        memcpy(at + HEAD_BYTES - 4, "\r\n\r\n", 4);
        memcpy(driver->arena + table, pieces, cut(driver, head, body, body_bytes, pieces) * sizeof(pieces[0]));
        driver->tables[i] = table;
        driver->messages++;
    }
    return 0;
}

static uint16_t string_add(struct path *path, uint32_t *used, const char *text) {
    uint32_t at = *used;
    if (text == NULL || text[0] == '\0' || at + strlen(text) + 1 > PATH_STRINGS_BYTES)
        return 0;
    strcpy(path->strings + at, text);
    *used = at + (uint32_t)strlen(text) + 1;
    return (uint16_t)at;
}

static void hint(struct driver *driver, uint64_t entry) {
    ring_push(&driver->journal, journal_order_ring(&driver->journal, 0, 0), entry);
    if (doorbell_take(journal_worker_waiting(&driver->journal, 0))) {
        uint64_t one = 1;
        ssize_t written = write(driver->doorbells[0], &one, sizeof(one));
        (void)written;
    }
}

static void publish_path(struct driver *driver) {
    const struct plan *plan = &driver->plan;
    struct path *path = &driver->journal.paths[0];
    uint32_t used = STRINGS_FIRST, generation = path_word_generation(atomic_load(&path->word)) + 1;
    memset((uint8_t *)path + sizeof(path->word), 0, sizeof(*path) - sizeof(path->word));
    uint16_t ehlo = string_add(path, &used, plan->ehlo), name = string_add(path, &used, plan->name);
    path->endpoint_count = plan->endpoint_count;
    for (uint32_t i = 0; i < plan->endpoint_count; i++) {
        const struct tcp_address *address = &plan->endpoints[i].address;
        struct path_endpoint *endpoint = &path->endpoints[i];
        *endpoint = (struct path_endpoint){
            .family = address->family, .tls = (uint8_t)plan->tls, .port = (uint16_t)plan->port, .preference = 10, .name = name};
        memcpy(endpoint->address, address->bytes, sizeof(endpoint->address));
    }
    path->source_count = plan->source_count;
    for (uint32_t i = 0; i < plan->source_count; i++) {
        path->sources[i] = (struct path_source){.family = plan->sources[i].address.family, .ehlo = ehlo};
        memcpy(path->sources[i].address, plan->sources[i].address.bytes, sizeof(path->sources[i].address));
    }
    path->max_deliveries_per_connection = plan->deliveries;
    path->max_recipients_per_transaction = plan->recipients;
    path->pipelined_transactions = plan->pipelined;
    path->flags = plan->flags;
    path->tls_version_min = plan->version_min;
    path->site = name;
    path->auth_user = string_add(path, &used, plan->user);
    path->auth_secret = string_add(path, &used, plan->secret);
    path->auth_mechanisms = (uint8_t)plan->mechanisms;
    path->timeouts = (struct path_timeouts){.connect = 10000,
                                            .banner = 10000,
                                            .ehlo = 10000,
                                            .mail = 10000,
                                            .rcpt = 10000,
                                            .data = 10000,
                                            .block = 10000,
                                            .final = 10000,
                                            .rset = 10000,
                                            .quit = 5000,
                                            .idle = plan->idle_timeout_ms};
    struct path_cell *cell = journal_cell(&driver->journal, 0, 0);
    atomic_store(&cell->order.sessions_allowed, plan->idle > 0 ? plan->idle : plan->sessions);
    atomic_store(&cell->order.demand, plan->idle > 0 ? plan->idle * (plan->pipelined + 1) : plan->sessions * (plan->pipelined + 1));
    atomic_store(&cell->order.hinted, 1);
    atomic_store_explicit(&path->word, path_word(generation, PATH_LIVE), memory_order_release);
    hint(driver, ring_entry(RING_PATH, 0, generation));
}

/* What stays the same whenever a slot is used again. */
static int fill_slots(struct driver *driver, char *error) {
    const struct plan *plan = &driver->plan;
    static const char sender[] = "a@example.org";
    driver->groups = plan->slots / plan->recipients;
    driver->idle_groups = calloc(driver->groups, sizeof(uint32_t));
    driver->open_recipients = calloc(driver->groups, sizeof(uint32_t));
    if (driver->idle_groups == NULL || driver->open_recipients == NULL)
        return complain(error, "memory", -ENOMEM);
    uint32_t path_generation = path_word_generation(atomic_load(&driver->journal.paths[0].word));
    for (uint32_t i = 0; i < driver->groups * plan->recipients; i++) {
        struct slot *slot = &driver->journal.slots[i];
        uint32_t group = i / plan->recipients;
        slot->path = 0;
        slot->path_generation = path_generation;
        slot->dataplane_generation = driver->hello.dataplane_generation;
        slot->worker = 0;
        slot->flags = 0;
        slot->piece_count = plan->runs == 0 ? 1 : 2 * plan->runs;
        slot->size_bytes = plan->size;
        slot->pieces = driver->tables[group % driver->messages];
        slot->not_before_us = 0;
        slot->dsn = 0;
        slot->envid_length = 0;
        slot->sender_length = sizeof(sender) - 1;
        memcpy(slot->text, sender, sizeof(sender) - 1);
        slot->recipient_length = (uint16_t)snprintf(slot->text + slot->sender_length, SLOT_ADDRESS_MAX, "b%u@example.net", i);
    }
    for (uint32_t group = 0; group < driver->groups; group++)
        driver->idle_groups[driver->idle_count++] = group;
    return 0;
}

static void order(struct driver *driver, uint32_t group) {
    uint32_t recipients = driver->plan.recipients, first = group * recipients, next_generation = 0;
    for (uint32_t i = recipients; i-- > 0;) { /* from the last to the first, as the contract has it */
        struct slot *slot = &driver->journal.slots[first + i];
        slot->next = i + 1 < recipients ? first + i + 1 : SLOT_NONE;
        slot->next_generation = next_generation;
        next_generation = slot_word_generation(atomic_load_explicit(&slot->word, memory_order_relaxed));
        slot_queue(slot);
    }
    driver->open_recipients[group] = recipients;
    driver->outstanding++;
    driver->orders++;
    hint(driver, ring_entry(RING_ORDER, first, next_generation));
}

static void trouble(struct driver *driver, const char *what, const char *text, uint32_t length) {
    if (driver->first_trouble[0] != '\0')
        return;
    snprintf(driver->first_trouble, sizeof(driver->first_trouble), "%s: %.*s", what, (int)(length < 200 ? length : 200), text);
    for (char *at = driver->first_trouble; *at != '\0'; at++)
        if (*at < ' ' || *at == '"' || *at == '\\' || *at > '~')
            *at = ' ';
}

static void take_outcome(struct driver *driver, uint64_t entry) {
    static const char *const names[OUTCOME_KINDS] = {"replied", "returned", "lost", "uncertain", "local"};
    uint32_t index = ring_entry_index(entry), group = index / driver->plan.recipients;
    struct slot *slot = &driver->journal.slots[index];
    if (index >= driver->groups * driver->plan.recipients || slot_load(slot) != slot_word(ring_entry_generation(entry), SLOT_ANSWERED))
        return;
    const struct slot_reply *reply = &slot->reply;
    driver->answered++;
    driver->outcomes[reply->outcome < OUTCOME_KINDS ? reply->outcome : 0]++;
    driver->tls_version = reply->tls_version;
    if (reply->outcome == OUTCOME_REPLIED && reply->code / 100 == 2)
        driver->delivered++;
    else if (driver->first_trouble[0] == '\0')
        trouble(driver, names[reply->outcome < OUTCOME_KINDS ? reply->outcome : 0],
                slot->text + slot_addresses_length(slot->sender_length, slot->recipient_length, 0), reply->text_length);
    slot_free(slot);
    if (--driver->open_recipients[group] == 0) {
        driver->outstanding--;
        driver->idle_groups[(driver->idle_first + driver->idle_count++) % driver->groups] = group;
    }
}

static void take_event(struct driver *driver, uint64_t entry) {
    struct path_event event;
    if (!path_event_read(&driver->journal, 0, 0, entry, &event))
        return;
    driver->events[event.kind < PATH_EVENT_KINDS ? event.kind : 0]++;
    if (event.kind != PATH_EVENT_READY)
        trouble(driver, path_event_text(event.kind), event.text, event.text_length < PATH_EVENT_TEXT_BYTES ? event.text_length : 0);
}

static uint32_t take_all(struct driver *driver) {
    uint64_t entries[TAKE];
    uint32_t count = ring_pop(&driver->journal, journal_outcome_ring(&driver->journal, 0, 0), entries, TAKE);
    for (uint32_t i = 0; i < count; i++) {
        switch (ring_entry_kind(entries[i])) {
        case RING_OUTCOME:
            take_outcome(driver, entries[i]);
            break;
        case RING_CREDIT:
            atomic_store(&journal_cell(&driver->journal, 0, 0)->worker.hinted, 0);
            break;
        case RING_EVENT:
            take_event(driver, entries[i]);
            break;
        default:
            break;
        }
    }
    return count;
}

/* Turns the worker's credit into orders. */
static uint32_t give_all(struct driver *driver) {
    uint32_t given = 0, ready = atomic_load_explicit(&journal_cell(&driver->journal, 0, 0)->worker.ready_capacity, memory_order_relaxed);
    uint64_t most = driver->plan.messages > 0 ? driver->plan.messages : UINT64_MAX;
    while (driver->outstanding < ready && driver->idle_count > 0 && driver->orders < most && given < TAKE) {
        uint32_t group = driver->idle_groups[driver->idle_first];
        driver->idle_first = (driver->idle_first + 1) % driver->groups;
        driver->idle_count--;
        order(driver, group);
        given++;
    }
    return given;
}

/* Moves orders and outcomes until `until_us`, or until `messages` have their outcomes. */
static void run(struct driver *driver, uint64_t until_us) {
    while (!stopped && clock_us(CLOCK_MONOTONIC) < until_us) {
        uint32_t moved = take_all(driver);
        moved += give_all(driver);
        if (driver->plan.messages > 0 && driver->answered >= (uint64_t)driver->plan.messages * driver->plan.recipients)
            return;
        if (moved == 0)
            rest_us(STEP_US);
    }
}

static const char *const counter_names[] = {
#define X(name, help) #name,
    BYPOST_COUNTERS(X)
#undef X
};
enum { COUNTERS = sizeof(counter_names) / sizeof(counter_names[0]) };

static void read_counters(const struct driver *driver, uint64_t values[COUNTERS]) {
    const struct counters *counters = journal_counters(&driver->journal, 0);
    uint64_t all[COUNTERS] = {
#define X(name, help) counter_get(&counters->name),
        BYPOST_COUNTERS(X)
#undef X
    };
    memcpy(values, all, sizeof(all));
}

static void print_counters(const char *title, const uint64_t *before, const uint64_t *after) {
    printf("\"%s\": {", title);
    for (uint32_t i = 0; i < COUNTERS; i++)
        printf("%s\"%s\": %" PRIu64, i == 0 ? "" : ", ", counter_names[i], after[i] - (before == NULL ? 0 : before[i]));
    printf("}");
}

/* Processor seconds of all threads of the dataplane, to the nanosecond: its main thread sleeps. */
static double dataplane_seconds(const struct driver *driver) {
    char pattern[64];
    glob_t tasks;
    double seconds = 0;
    snprintf(pattern, sizeof(pattern), "/proc/%u/task/*/schedstat", driver->hello.pid);
    if (glob(pattern, 0, NULL, &tasks) != 0)
        return 0;
    for (size_t i = 0; i < tasks.gl_pathc; i++) {
        unsigned long long nanoseconds = 0;
        FILE *file = fopen(tasks.gl_pathv[i], "re");
        if (file != NULL && fscanf(file, "%llu", &nanoseconds) == 1)
            seconds += (double)nanoseconds / 1e9;
        if (file != NULL)
            fclose(file);
    }
    globfree(&tasks);
    return seconds;
}

static double counter_hz(void) {
#ifdef __x86_64__
    uint64_t from_us = clock_us(CLOCK_MONOTONIC), from = __builtin_ia32_rdtsc();
    rest_us(20000);
    return (double)(__builtin_ia32_rdtsc() - from) * 1e6 / (double)(clock_us(CLOCK_MONOTONIC) - from_us);
#else
    return 0;
#endif
}

static void print_trouble(const struct driver *driver) {
    printf("\"tls_version\": %u, \"outcomes\": {\"replied\": %" PRIu64 ", \"returned\": %" PRIu64 ", \"lost\": %" PRIu64
           ", \"uncertain\": %" PRIu64 ", \"local\": %" PRIu64 "}, \"delivered_total\": %" PRIu64 ", \"events\": {",
           driver->tls_version, driver->outcomes[0], driver->outcomes[1], driver->outcomes[2], driver->outcomes[3], driver->outcomes[4],
           driver->delivered);
    bool any = false;
    for (unsigned i = 0; i < PATH_EVENT_KINDS; i++) {
        if (driver->events[i] == 0)
            continue;
        printf("%s\"%s\": %" PRIu64, any ? ", " : "", path_event_text(i), driver->events[i]);
        any = true;
    }
    printf("}, \"first_trouble\": \"%s\"", driver->first_trouble);
}

static void measure_messages(struct driver *driver) {
    const struct plan *plan = &driver->plan;
    uint64_t before[COUNTERS], after[COUNTERS];
    run(driver, clock_us(CLOCK_MONOTONIC) + (uint64_t)plan->warm_ms * 1000);
    double hz = counter_hz(), processor_s = dataplane_seconds(driver);
    uint64_t from_us = clock_us(CLOCK_MONOTONIC), answered = driver->answered, delivered = driver->delivered;
    read_counters(driver, before);
    run(driver, from_us + (uint64_t)plan->measure_ms * 1000);
    double seconds = (double)(clock_us(CLOCK_MONOTONIC) - from_us) / 1e6;
    processor_s = dataplane_seconds(driver) - processor_s;
    answered = driver->answered - answered;
    delivered = driver->delivered - delivered;
    read_counters(driver, after);
    double messages = (double)delivered / plan->recipients;
    printf("{\"seconds\": %.3f, \"messages_per_second\": %.2f, \"recipients_per_second\": %.2f, \"answered\": %" PRIu64
           ", \"delivered\": %" PRIu64 ", \"processor_seconds\": %.2f, \"hz\": %.0f, \"cycles_per_message\": %.0f, ",
           seconds, messages / seconds, (double)delivered / seconds, answered, delivered, processor_s, hz,
           messages == 0 ? 0.0 : processor_s * hz / messages);
    print_counters("counters", before, after);
    printf(", ");
    /* Nothing is left under way, so that the sink's count can be compared. */
    driver->plan.messages = 1;
    for (uint64_t until_us = clock_us(CLOCK_MONOTONIC) + DONE_WAIT_US; driver->outstanding > 0 && clock_us(CLOCK_MONOTONIC) < until_us;)
        if (take_all(driver) == 0)
            rest_us(STEP_US);
    print_trouble(driver);
    printf("}\n");
}

static uint64_t resident_bytes(const struct driver *driver) {
    char path[64];
    unsigned long long pages = 0;
    snprintf(path, sizeof(path), "/proc/%u/statm", driver->hello.pid);
    FILE *file = fopen(path, "re");
    if (file == NULL || fscanf(file, "%*u %llu", &pages) != 1)
        pages = 0;
    if (file != NULL)
        fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Sessions without work: how many are ready, and what they hold. */
static void measure_idle(struct driver *driver, uint64_t resident_before) {
    const struct plan *plan = &driver->plan;
    struct path_worker_cell *cell = &journal_cell(&driver->journal, 0, 0)->worker;
    uint64_t from_us = clock_us(CLOCK_MONOTONIC), until_us = from_us + (uint64_t)plan->measure_ms * 1000;
    uint32_t ready = 0;
    while (!stopped && ready < plan->idle && clock_us(CLOCK_MONOTONIC) < until_us) {
        if (take_all(driver) == 0)
            rest_us(1000);
        ready = atomic_load(&cell->sessions_ready);
    }
    double seconds = (double)(clock_us(CLOCK_MONOTONIC) - from_us) / 1e6;
    rest_us(500000); /* counters are published ten times a second */
    take_all(driver);
    uint64_t counters[COUNTERS];
    read_counters(driver, counters);
    printf("{\"ready\": %u, \"seconds\": %.3f, \"resident_before\": %" PRIu64 ", \"resident_bytes\": %" PRIu64 ", ", ready, seconds,
           resident_before, resident_bytes(driver));
    print_counters("counters", NULL, counters);
    printf(", ");
    print_trouble(driver);
    printf("}\n");
    fflush(stdout);
    char line[16]; /* the command that runs us looks at the sink in between */
    if (fgets(line, sizeof(line), stdin) == NULL)
        return;
}

static const struct option long_options[] = {{"journal", required_argument, NULL, 'j'},
                                             {"socket", required_argument, NULL, 's'},
                                             {"slots", required_argument, NULL, 'S'},
                                             {"paths", required_argument, NULL, 'P'},
                                             {"to", required_argument, NULL, 't'},
                                             {"port", required_argument, NULL, 'p'},
                                             {"from", required_argument, NULL, 'f'},
                                             {"sessions", required_argument, NULL, 'n'},
                                             {"size", required_argument, NULL, 'z'},
                                             {"recipients", required_argument, NULL, 'r'},
                                             {"pipelined", required_argument, NULL, 'l'},
                                             {"deliveries", required_argument, NULL, 'd'},
                                             {"idle", required_argument, NULL, 'i'},
                                             {"warm-ms", required_argument, NULL, 'w'},
                                             {"measure-ms", required_argument, NULL, 'm'},
                                             {"messages", required_argument, NULL, 'M'},
                                             {"tls", required_argument, NULL, 'T'},
                                             {"tls-version", required_argument, NULL, 'V'},
                                             {"implicit", no_argument, NULL, 'I'},
                                             {"no-chunking", no_argument, NULL, 'c'},
                                             {"name", required_argument, NULL, 'N'},
                                             {"user", required_argument, NULL, 'u'},
                                             {"secret", required_argument, NULL, 'k'},
                                             {"runs", required_argument, NULL, 'R'},
                                             {NULL, 0, NULL, 0}};

static int parse(struct plan *plan, int argc, char **argv) {
    static const char *const levels[] = {"none", "may", "encrypt", "verify"};
    char error[256] = "";
    for (int option; (option = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        uint32_t number = optarg == NULL ? 0 : (uint32_t)strtoul(optarg, NULL, 10);
        int code = 0;
        switch (option) {
        case 'j':
            plan->journal_path = optarg;
            break;
        case 's':
            plan->socket_path = optarg;
            break;
        case 'S':
            plan->slots = number;
            break;
        case 'P':
            plan->paths = number;
            break;
        case 't':
            code = address_take(plan->endpoints, PATH_ENDPOINTS_MAX, &plan->endpoint_count, optarg, error, sizeof(error));
            break;
        case 'f':
            code = address_take(plan->sources, PATH_SOURCES_MAX, &plan->source_count, optarg, error, sizeof(error));
            break;
        case 'p':
            plan->port = number;
            break;
        case 'n':
            plan->sessions = number;
            break;
        case 'z':
            plan->size = number;
            break;
        case 'r':
            plan->recipients = number;
            break;
        case 'l':
            plan->pipelined = number;
            break;
        case 'd':
            plan->deliveries = number;
            break;
        case 'i':
            plan->idle = number;
            break;
        case 'w':
            plan->warm_ms = number;
            break;
        case 'm':
            plan->measure_ms = number;
            break;
        case 'M':
            plan->messages = number;
            break;
        case 'V':
            plan->version_min = (uint8_t)number;
            break;
        case 'I':
            plan->flags |= PATH_IMPLICIT_TLS;
            break;
        case 'c':
            plan->flags |= PATH_NO_CHUNKING;
            break;
        case 'N':
            plan->name = optarg;
            break;
        case 'R':
            plan->runs = number;
            break;
        case 'u':
            plan->user = optarg;
            break;
        case 'k':
            plan->secret = optarg;
            break;
        case 'T':
            for (unsigned i = 0; i < 4; i++)
                if (strcmp(optarg, levels[i]) == 0)
                    plan->tls = (enum path_tls)i;
            break;
        default:
            code = -1;
        }
        if (code != 0) {
            fprintf(stderr, "orders: %s %s\n", optarg == NULL ? "" : optarg, error);
            return -1;
        }
    }
    if (plan->journal_path == NULL || plan->socket_path == NULL || plan->endpoint_count == 0 || plan->source_count == 0 ||
        plan->recipients == 0 || plan->recipients > RECIPIENTS_MAX || plan->size < 2 * HEAD_BYTES || plan->pipelined == 0 ||
        plan->slots < plan->recipients || plan->runs > RUNS_MAX || (plan->size - HEAD_BYTES) / (plan->runs + 1) <= OWN_BYTES) {
        fprintf(stderr,
                "orders: --journal, --socket, --to A/N and --from A/N are needed; --size is at least %d; --runs at most %d of more than %d "
                "bytes.\n",
                2 * HEAD_BYTES, RUNS_MAX, OWN_BYTES);
        return -1;
    }
    return 0;
}

int main(int argc, char **argv) {
    static struct driver driver = {.plan = {.ehlo = "sender.example.org",
                                            .name = "sink.test",
                                            .port = 25,
                                            .slots = 16384,
                                            .paths = 16,
                                            .sessions = 32,
                                            .size = 4096,
                                            .recipients = 1,
                                            .pipelined = 1,
                                            .runs = 1,
                                            .warm_ms = 500,
                                            .measure_ms = 3000,
                                            .idle_timeout_ms = 600000}};
    char error[ERROR_BYTES] = "";
    if (parse(&driver.plan, argc, argv) != 0)
        return 64;
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_stop}, NULL);
    sigaction(SIGINT, &(struct sigaction){.sa_handler = on_stop}, NULL);
    int code = meet(&driver, error);
    if (code == 0)
        code = make_messages(&driver, error);
    if (code == 0) {
        uint64_t resident = resident_bytes(&driver);
        publish_path(&driver);
        code = fill_slots(&driver, error);
        if (code == 0 && driver.plan.idle > 0)
            measure_idle(&driver, resident);
        else if (code == 0)
            measure_messages(&driver);
    }
    if (code != 0)
        fprintf(stderr, "orders: %s\n", error);
    return code == 0 ? 0 : 1;
}
