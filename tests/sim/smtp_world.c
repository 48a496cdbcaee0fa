/* smtp_world.c: time goes from event to event; the worker is polled only when something came or when it said that it wants to be. */
#include "smtp_world.h"

#include "dataplane/smtp/engine.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/rand.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum {
    STEPS_MAX = 1000000,
    PASSES_MAX = 5000, /* without that time goes on */
    HEADERS_BYTES = 40,
    ENTRY_BYTES = 16384, /* of a session that can be resumed, with its certificate */
    WORKER_BUDGET = 256,
};
#define LIVE_MOST_US  (4 * 3600 * SECOND) /* a world that is not done by then is stuck */
#define DRAIN_MOST_US (900 * SECOND)

static struct openssl_identity *authority, *identities[CERTIFICATE_KINDS];
static struct openssl_peer *servers_tls[CERTIFICATE_KINDS][3]; /* whose contexts all connections share: tickets too */
static char authority_file[64];
static struct sim_random entropy;

/* ---- random numbers that repeat ---- */

/* In the place of the C library's: wolfSSL seeds its generators with it. */
ssize_t getrandom(void *bytes, size_t length, unsigned flags) {
    for (size_t i = 0; i < length; i++)
        ((uint8_t *)bytes)[i] = (uint8_t)(random_next(&entropy) >> 32);
    return (ssize_t)length;
}

static int openssl_bytes(unsigned char *bytes, int length) {
    getrandom(bytes, (size_t)length, 0);
    return 1;
}
static int openssl_status(void) {
    return 1;
}

void mail_start(void) {
    static const struct openssl_wants wants[CERTIFICATE_KINDS] = {
        [CERTIFICATE_GOOD] = {.dns = {"mx.test"}},
        [CERTIFICATE_OTHER] = {.dns = {"elsewhere.test"}},
        [CERTIFICATE_EXPIRED] = {.dns = {"mx.test"}, .from_s = OPENSSL_NOW_S - 200000, .to_s = OPENSSL_NOW_S - 100000},
    };
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    static const RAND_METHOD method = {.bytes = openssl_bytes, .pseudorand = openssl_bytes, .status = openssl_status};
    RAND_set_rand_method(&method);
#pragma GCC diagnostic pop
    random_seed(&entropy, 0);
    if (tls_start() != 0)
        abort();
    authority = openssl_identity_make(NULL, &(struct openssl_wants){.name = "Test CA", .ca = true});
    snprintf(authority_file, sizeof(authority_file), "/tmp/bypost-sim-%d.pem", (int)getpid());
    for (uint32_t i = 0; i < CERTIFICATE_KINDS; i++) {
        identities[i] = openssl_identity_make(authority, &wants[i]);
        for (int version = 0; version < 3; version++)
            servers_tls[i][version] = openssl_peer_new(&(struct openssl_options){.server = true,
                                                                                 .identity = identities[i],
                                                                                 .version_min = version ? version + 11 : 0,
                                                                                 .version_max = version ? version + 11 : 0});
    }
}

struct openssl_peer *mail_server_tls(const struct mail_server *server) {
    uint32_t version = server->version ? server->version - 11 : 0;
    return openssl_peer_new(&(struct openssl_options){.server = true, .resumes = servers_tls[server->certificate][version]});
}

struct path_tlsa mail_tlsa(enum mail_certificate certificate) {
    return openssl_identity_tlsa(identities[certificate], 3, 1, 1);
}

/* ---- telling ---- */

void mail_fail(struct mail_world *world, const char *format, ...) {
    va_list arguments;
    if (world->failure[0])
        return;
    va_start(arguments, format);
    vsnprintf(world->failure, sizeof(world->failure), format, arguments);
    va_end(arguments);
    mail_trace(world, "FAILED: %s", world->failure);
}

void mail_trace(const struct mail_world *world, const char *format, ...) {
    char text[2048];
    va_list arguments;
    if (!world->trace)
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    for (char *byte = text; *byte; byte++)
        *byte = *byte == '\n' ? '|' : *byte == '\r' ? '~' : *byte;
    printf("%12.6f %s\n", (double)(world->now_us - MAIL_BEGIN_US) / 1e6, text);
}

/* ---- the wire ---- */

static bool is_server(const struct tcp_address *address) {
    return address->bytes[0] == 192;
}

static struct mail_link *find_link(struct mail_world *world, const struct tcp_segment *segment, bool from_server) {
    const struct tcp_address *client = from_server ? &segment->remote : &segment->local,
                             *server = from_server ? &segment->local : &segment->remote;
    uint16_t client_port = from_server ? segment->remote_port : segment->local_port;
    uint16_t server_port = from_server ? segment->local_port : segment->remote_port;
    for (uint32_t i = world->link_count; i > 0; i--) {
        struct mail_link *link = &world->links[i - 1];
        if (link->client_port == client_port && link->server_port == server_port && memcmp(&link->client, client, sizeof(*client)) == 0 &&
            memcmp(&link->server, server, sizeof(*server)) == 0)
            return link;
    }
    if (world->link_count == MAIL_LINKS_MAX)
        return NULL;
    struct mail_link *link = &world->links[world->link_count++];
    *link = (struct mail_link){.client = *client, .server = *server, .client_port = client_port, .server_port = server_port};
    return link;
}

int mail_transmit(void *network, const struct tcp_segment *out) {
    static uint8_t payload[SEGMENT_PAYLOAD_MAX];
    struct mail_world *world = network;
    bool from_server = is_server(&out->local);
    struct mail_link *link = find_link(world, out, from_server);
    struct wire_event event = {.kind = WIRE_SEGMENT, .to = !from_server};
    uint16_t mtu;
    if (random_chance(&world->wire_random, world->busy))
        return -EAGAIN;
    if (random_chance(&world->wire_random, world->unreachable))
        return -EHOSTUNREACH;
    if (!link || !segment_take(&event.segment, out, payload))
        return 0;
    event.link = (uint16_t)(link - world->links);
    struct wire_path *path = &world->paths[from_server];
    enum wire_fate fate = wire_carry(&world->wire, path, &world->wire_random, &event, HEADERS_BYTES, world->now_us, &mtu);
    mail_trace(world, "link %u %s %s%s%s%s seq %u ack %u len %u %s", event.link, from_server ? "<--" : "-->",
               out->flags & TCP_SYN ? "S" : "", out->flags & TCP_FIN ? "F" : "", out->flags & TCP_RST ? "R" : "",
               out->flags & TCP_ACK ? "A" : "", out->sequence, out->acknowledgement, event.segment.length, wire_fate_text(fate));
    if (mtu) {
        struct wire_event back = {
            .kind = WIRE_ICMP, .to = from_server, .link = event.link, .mtu = mtu, .segment = {.sequence = out->sequence}};
        wire_push(&world->wire, &back, world->now_us + path->delay_us);
    }
    return 0;
}

/* `to`: 1 is the servers' side of it. */
static void arrive(struct mail_world *world, const struct wire_event *event) {
    const struct mail_link *link = &world->links[event->link];
    bool to_server = event->to;
    struct tcp_stack *stack = to_server ? world->server : world->client;
    const struct tcp_address *local = to_server ? &link->server : &link->client, *remote = to_server ? &link->client : &link->server;
    uint16_t local_port = to_server ? link->server_port : link->client_port,
             remote_port = to_server ? link->client_port : link->server_port;
    if (event->kind == WIRE_ICMP) {
        world->totals->icmp++;
        /* Sent back to who sent it. */
        tcp_input_error(stack, local, local_port, remote, remote_port, event->segment.sequence, false, event->mtu, world->now_us);
    } else {
        uint32_t length;
        uint8_t *bytes = segment_encode(&event->segment, remote_port, local_port, &length);
        struct tcp_packet packet = {.local = *local, .remote = *remote, .header = bytes, .length = length};
        tcp_input(stack, &packet, world->now_us);
        free(bytes);
    }
    if (to_server)
        world->server_at = 0;
    else
        world->touched = true;
}

/* ---- the worker's loop ---- */

void mail_ring(void *context, uint32_t shard);
void mail_ring(void *context, uint32_t shard) {}

static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static void pop_orders(struct mail_world *world) {
    uint64_t entries[32];
    uint32_t count;
    while ((count = ring_pop(&world->journal, journal_order_ring(&world->journal, 0, 0), entries, 32))) {
        for (uint32_t i = 0; i < count; i++)
            smtp_engine_hint(world->engine, entries[i], world->now_us);
        world->touched = true;
    }
}

static void run_worker(struct mail_world *world) {
    pop_orders(world);
    bool due = world->touched || world->engine_at <= world->now_us || world->tls_at <= world->now_us || world->client_at <= world->now_us;
    if (!due)
        return;
    world->touched = false;
    world->tls_at = tls_worker_poll(world->tls, world->now_us) ? world->now_us : NEVER;
    world->engine_at = smtp_engine_poll(world->engine, WORKER_BUDGET, world->now_us);
    uint32_t active = world->engine->active_count, work = world->engine->work_count;
    uint64_t due_us = deadlines_next(&world->engine->deadlines);
    world->client_at = tcp_poll(world->client, WORKER_BUDGET, world->now_us);
    if (deadlines_next(&world->engine->deadlines) < due_us)
        world->engine_at = least(world->engine_at, deadlines_next(&world->engine->deadlines));
    if (world->engine->active_count > active || world->engine->work_count > work)
        world->engine_at = world->now_us; /* what TCP told is looked at in the next pass */
}

static void run_servers(struct mail_world *world) {
    mail_servers_act(world);
    if (world->server_at <= world->now_us)
        world->server_at = tcp_poll(world->server, WORKER_BUDGET, world->now_us);
}

static uint64_t next_time(const struct mail_world *world) {
    uint64_t next = least(wire_next(&world->wire), least(world->engine_at, world->tls_at));
    next = least(next, least(world->client_at, world->server_at));
    next = least(next, least(mail_servers_next(world), mail_control_next(world)));
    if (!world->draining)
        next = least(next, world->drain_at);
    return next < world->now_us || world->touched ? world->now_us : next;
}

static void begin_drain(struct mail_world *world) {
    mail_trace(world, "control drains");
    world->totals->drained += !mail_control_is_done(world);
    mail_control_drain(world);
    world->drain_at = world->now_us;
    smtp_engine_drain(world->engine, world->now_us);
    world->touched = true;
}

static void step(struct mail_world *world) {
    /* It is polled for other reasons too, so that a wake-up which it did not ask for would hardly be missed. */
    if (world->engine->clock_known && deadlines_next(&world->engine->deadlines) < world->now_us && world->engine_at > world->now_us)
        mail_fail(world, "the worker slept past what it had to do");
    while (wire_next(&world->wire) <= world->now_us) {
        struct wire_event *event = wire_pop(&world->wire);
        arrive(world, event);
        wire_event_free(event);
    }
    if (!world->draining && (world->now_us >= world->drain_at || mail_control_is_done(world)))
        begin_drain(world);
    mail_control_act(world);
    run_worker(world);
    run_servers(world);
    mail_control_look(world);
}

static bool is_over(const struct mail_world *world) {
    return world->draining && !world->live_attempts && smtp_engine_idle(world->engine) && !tcp_stack_connections(world->client) &&
           !tcp_stack_connections(world->server) && !world->conn_count && !world->touched && world->engine_at > world->now_us;
}

static void run(struct mail_world *world) {
    uint32_t passes = 0;
    for (uint32_t steps = 0; !world->failure[0]; steps++) {
        step(world);
        if (is_over(world))
            return;
        uint64_t next = next_time(world);
        passes = next > world->now_us ? 0 : passes + 1;
        if (steps == STEPS_MAX || passes == PASSES_MAX)
            mail_fail(world, passes == PASSES_MAX ? "the loop spins" : "too many steps");
        if (next == NEVER)
            mail_fail(world, "nothing will happen any more, and %u attempts are not over, the worker %s", world->live_attempts,
                      smtp_engine_idle(world->engine) ? "is idle" : "is not idle");
        if (world->draining && world->now_us > world->drain_at + DRAIN_MOST_US)
            mail_fail(world, "still not drained: %u attempts, worker %s, %u connections, %u of the servers", world->live_attempts,
                      smtp_engine_idle(world->engine) ? "idle" : "busy", tcp_stack_connections(world->client), world->conn_count);
        if (next != NEVER)
            world->now_us = next;
        if (!world->draining && world->now_us > MAIL_BEGIN_US + LIVE_MOST_US)
            mail_fail(world, "not done after hours: %u attempts live, %u jobs wait", world->live_attempts, world->waiting_count);
    }
}

/* ---- begin and end ---- */

static void judge(struct mail_world *world) {
    struct tcp_usage usage;
    struct tls_usage tls;
    mail_control_judge(world);
    tcp_stack_usage(world->client, &usage);
    if (usage.connections || usage.ranges || usage.segments_in_flight || usage.receive_blocks)
        mail_fail(world, "TCP keeps %u connections, %u ranges, %u segments, %u blocks", usage.connections, usage.ranges,
                  usage.segments_in_flight, usage.receive_blocks);
    tls_worker_usage(world->tls, &tls);
    if (tls.sessions || tls.heap_bytes > world->heap_bytes + (uint64_t)world->resumption_entries * ENTRY_BYTES)
        mail_fail(world, "TLS keeps %u sessions and %" PRIu64 " bytes", tls.sessions, tls.heap_bytes - world->heap_bytes);
    const struct smtp_engine *engine = world->engine;
    if (engine->sessions.used || engine->orders.used || engine->replies.used || engine->commands.used)
        mail_fail(world, "SMTP keeps %u sessions, %u orders, %u replies, %u commands", engine->sessions.used, engine->orders.used,
                  engine->replies.used, engine->commands.used);
    if (world->blocks)
        mail_fail(world, "the servers' stack keeps %u blocks", world->blocks);
    const struct counters *counters = journal_counters(&world->journal, 0);
    if (counter_get(&counters->wild_values))
        mail_fail(world, "%" PRIu64 " wild values", counter_get(&counters->wild_values));
    const struct tcp_counters *tcp = tcp_stack_counters(world->client);
    world->totals->retransmits += tcp->retransmits_fast + tcp->retransmits_timeout;
    world->totals->pools_empty += tcp->pool_exhausted;
    world->totals->segments_lost += world->wire.lost;
    world->totals->doubled_segments += world->wire.doubled;
}

static bool open_journal(struct mail_world *world) {
    char file[] = "/tmp/bypost-sim-XXXXXX", error[256] = "";
    int fd = mkstemp(file);
    if (fd < 0)
        return false;
    close(fd);
    unlink(file);
    struct journal_geometry geometry = {.workers = 1, .shards = 1, .slots = MAIL_SLOTS, .paths = MAIL_PATHS};
    int code = journal_open(&world->journal, file, geometry, JOURNAL_DATAPLANE, error, sizeof(error));
    unlink(file);
    return code == 0;
}

static bool open_tls(struct mail_world *world) {
    char error[256];
    struct tls_usage usage;
    world->resumption_entries = 1 + (uint32_t)(world->seed % 6);
    struct tls_config config = {.ca_file = authority_file,
                                .max_sessions = random_chance(&world->random, 100) ? 2 : 64,
                                .resumption_entries = world->resumption_entries,
                                .secret = {(uint8_t)world->seed},
                                .realtime_offset_us = OPENSSL_NOW_S * 1000000 - (int64_t)MAIL_BEGIN_US,
                                .now_us = MAIL_BEGIN_US};
    openssl_identity_write(authority, authority_file, NULL);
    world->tls = tls_worker_create(&config, error, sizeof(error));
    unlink(authority_file);
    if (!world->tls)
        return false;
    tls_worker_usage(world->tls, &usage);
    world->heap_bytes = usage.heap_bytes;
    return true;
}

const char *mail_run(struct mail_world *world, uint64_t seed, bool traced, struct mail_totals *totals) {
    static _Alignas(4096) uint8_t arena[MAIL_ARENA_BYTES];
    memset(world, 0, sizeof(*world));
    world->seed = seed;
    world->trace = traced;
    world->totals = totals;
    world->arena = arena;
    world->now_us = world->act_at = MAIL_BEGIN_US;
    random_seed(&world->random, seed);
    random_seed(&world->wire_random, seed ^ 0x11111111);
    random_seed(&world->server_random, seed ^ 0x22222222);
    random_seed(&world->control_random, seed ^ 0x33333333);
    random_seed(&entropy, seed ^ 0x44444444);
    memset(world->slot_attempt, 0xff, sizeof(world->slot_attempt));
    totals->worlds++;
    if (!open_journal(world) || !open_tls(world) || !mail_draw(world))
        return "the world could not be made";
    run(world);
    if (!world->failure[0])
        judge(world);
    /* The stacks go first: they release what they hold of the others. */
    tcp_stack_destroy(world->client);
    smtp_engine_destroy(world->engine);
    tls_worker_destroy(world->tls);
    while (world->conn_count)
        mail_server_events.closed(world->conns[0], world->conns[0]->conn, TCP_ABORTED, world->conns[0]->progress_us);
    tcp_stack_destroy(world->server);
    while (world->wire.count)
        wire_event_free(wire_pop(&world->wire));
    journal_close(&world->journal);
    return world->failure[0] ? world->failure : NULL;
}
