/* bulk.c: one endpoint of a bulk transfer on bypost's stack, opening or accepting connections: sends a pattern, verifies the one that
 * comes, reads slowly, half-closes and resets as it is told. bench/wan/peer.py is the same on the kernel's sockets. Prints JSON. */
#include "bench/wan/bench_eal.h"
#include "dataplane/net/net.h"
#include "dataplane/port/port.h"
#include "dataplane/tcp/tcp.h"
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <rte_eal.h>
#include <rte_malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum {
    PERIOD = 65521, /* of the pattern, a prime: bytes from a wrong place differ */
    PERIODS = 18,
    ARENA_BYTES = PERIOD * PERIODS,
    PIECE_BYTES = 16384,
    PIECES_MAX = 16,
    LINKS_MAX = 4096,
    ADDRESSES_MAX = 4,
    MEMORY_MIB = 96,
    WINDOW_BYTES = 16 << 20,
    QUEUE_BYTES = 32 << 20, /* handed to the stack and not acknowledged */
    SEGMENTS_MAX = 65536,
    BLOCKS_MAX = 16384,
    SLEEP_US = 50,
    POLL_BUDGET = 64,
    PORT_FIRST = 32768,
    PORT_LAST = 60999,
    CONNECT_TIMEOUT_US = 20000000,
    READ_STEP_BYTES = 1024, /* a slow reader reads no less at a time */
};

/* What one connection is to do: every connection the same. */
struct script {
    uint64_t send_bytes;
    bool send_after_eof, close_after_eof;
    uint64_t close_at_us, reset_after_bytes, read_wait_us, read_rate, run_us;
};

struct link {
    struct bulk *bulk;
    struct tcp_conn *conn;
    uint64_t begin_us, last_us;
    uint64_t queued_bytes, acknowledged_bytes, received_bytes, wrong_bytes;
    bool connected, eof, shut, ended, stopped, waits; /* waits: bytes were left with the stack */
    enum tcp_error error;
    uint64_t ended_us;
};

struct bulk {
    struct script script;
    struct port port;
    struct port_queue *queue;
    struct counters counters;
    struct net *net;
    struct tcp_stack *stack;
    uint8_t *arena; /* the pattern, several periods of it */
    struct tcp_owner owner;
    struct net_address addresses[ADDRESSES_MAX];
    uint32_t address_count;
    struct tcp_address remote, gateway, gateway6;
    bool listens, poll;
    uint16_t tcp_port, mtu;
    uint32_t count, started, ended, window_bytes, sleep_us;
    enum tcp_congestion congestion;
    uint64_t limit_us;
    struct link *links;
};

static volatile sig_atomic_t stopping;

static void on_stop(int number) {
    (void)number;
    stopping = 1;
}

static uint64_t now_us(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000u + (uint64_t)at.tv_nsec / 1000u;
}

static void die(const char *what, const char *why) {
    fprintf(stderr, "bulk: %s: %s\n", what, why);
    exit(1);
}

static void owner_released(struct tcp_owner *owner) {
    (void)owner;
}

static void link_reset(struct link *link, bool stopped, uint64_t at_us) {
    link->stopped = stopped;
    link->ended_us = at_us;
    tcp_abort(link->conn, at_us);
}

static void link_feed(struct link *link, uint64_t at_us) {
    const struct bulk *bulk = link->bulk;
    uint64_t total = link->shut || (bulk->script.send_after_eof && !link->eof) ? 0 : bulk->script.send_bytes;
    while (link->queued_bytes < total && tcp_unacknowledged(link->conn) < QUEUE_BYTES) {
        struct tcp_piece pieces[PIECES_MAX];
        uint64_t offset = link->queued_bytes;
        uint32_t count = 0;
        while (count < PIECES_MAX && offset < total) {
            uint64_t at = offset % PERIOD, length = total - offset < PIECE_BYTES ? total - offset : PIECE_BYTES;
            pieces[count++] = (struct tcp_piece){.bytes = bulk->arena + at, .length = (uint32_t)length, .owner = &link->bulk->owner};
            offset += length;
        }
        if (tcp_send(link->conn, pieces, count, at_us) != 0)
            break;
        link->queued_bytes = offset;
    }
    tcp_output(link->conn, at_us);
}

/* What follows from what has happened; the rules of peer.py. */
static void link_rules(struct link *link, uint64_t at_us) {
    const struct script *script = &link->bulk->script;
    uint64_t age_us = at_us - link->begin_us;
    if (!link->connected || link->ended || link->ended_us != 0)
        return;
    if (script->reset_after_bytes != 0 && link->acknowledged_bytes + link->received_bytes >= script->reset_after_bytes) {
        link_reset(link, false, at_us);
        return;
    }
    if (script->run_us != 0 && age_us >= script->run_us) {
        link_reset(link, true, at_us);
        return;
    }
    bool sent_all = link->queued_bytes >= script->send_bytes && (link->eof || !script->send_after_eof);
    bool closes = script->close_at_us != 0 ? age_us >= script->close_at_us : sent_all && (link->eof || !script->close_after_eof);
    if (closes && !link->shut) {
        link->shut = true;
        tcp_close(link->conn, at_us);
    }
}

static void on_connected(void *user, struct tcp_conn *conn, uint64_t at_us) {
    struct link *link = user;
    link->connected = true;
    link->begin_us = link->last_us = at_us;
    link_feed(link, at_us);
    link_rules(link, at_us);
}

/* Bytes that may be read at this time. */
static uint64_t link_allowance(const struct link *link, uint64_t at_us) {
    const struct script *script = &link->bulk->script;
    uint64_t age_us = at_us - link->begin_us;
    if (!link->connected || age_us < script->read_wait_us)
        return 0;
    if (script->read_rate == 0)
        return UINT64_MAX;
    uint64_t allowed = (age_us - script->read_wait_us) * script->read_rate / 1000000;
    return allowed > link->received_bytes ? allowed - link->received_bytes : 0;
}

static uint32_t on_received(void *user, struct tcp_conn *conn, const uint8_t *bytes, uint32_t length, uint64_t at_us) {
    struct link *link = user;
    uint64_t allowed = link_allowance(link, at_us);
    uint32_t taken = allowed < length ? (uint32_t)allowed : length;
    link->waits = taken < length;
    const uint8_t *wanted = link->bulk->arena + link->received_bytes % PERIOD;
    if (taken > 0 && memcmp(bytes, wanted, taken) != 0)
        for (uint32_t i = 0; i < taken; i++)
            link->wrong_bytes += bytes[i] != wanted[i];
    link->received_bytes += taken;
    link->last_us = taken > 0 ? at_us : link->last_us;
    return taken;
}

static void on_peer_closed(void *user, struct tcp_conn *conn, uint64_t at_us) {
    struct link *link = user;
    link->eof = true;
    link_feed(link, at_us);
    link_rules(link, at_us);
}

static void on_acknowledged(void *user, struct tcp_conn *conn, uint32_t bytes, uint64_t at_us) {
    struct link *link = user;
    link->acknowledged_bytes += bytes;
    if (!link->shut)
        link_feed(link, at_us);
}

static void on_closed(void *user, struct tcp_conn *conn, enum tcp_error error, uint64_t at_us) {
    struct link *link = user;
    link->ended = true;
    link->ended_us = at_us;
    link->error = error;
    link->bulk->ended++;
}

static struct link *link_new(struct bulk *bulk, struct tcp_conn *conn, uint64_t at_us) {
    struct link *link = &bulk->links[bulk->started++];
    link->bulk = bulk;
    link->conn = conn;
    link->begin_us = link->last_us = at_us;
    return link;
}

static void *on_accepted(void *user, struct tcp_conn *conn, uint64_t at_us) {
    struct bulk *bulk = user;
    if (bulk->started == bulk->count)
        return NULL;
    struct link *link = link_new(bulk, conn, at_us);
    on_connected(link, conn, at_us);
    return link;
}

static const struct tcp_address *bulk_local(const struct bulk *bulk, uint8_t family) {
    for (uint32_t i = 0; i < bulk->address_count; i++)
        if (bulk->addresses[i].address.family == family)
            return &bulk->addresses[i].address;
    die("--address", "none of the peer's family");
    return NULL;
}

static void bulk_connect(struct bulk *bulk, uint64_t at_us) {
    struct link *link = link_new(bulk, NULL, at_us);
    int rc = tcp_connect(bulk->stack, bulk_local(bulk, bulk->remote.family), &bulk->remote, bulk->tcp_port, CONNECT_TIMEOUT_US, link,
                         &link->conn, at_us);
    if (rc != 0)
        die("tcp_connect", strerror(-rc));
}

static void bulk_listen(struct bulk *bulk) {
    for (uint32_t i = 0; i < bulk->address_count; i++) {
        int rc = tcp_listen(bulk->stack, &bulk->addresses[i].address, bulk->tcp_port, bulk);
        if (rc != 0)
            die("tcp_listen", strerror(-rc));
    }
}

/* What time alone brings about. The connections of a client come one after the other, those of a server may lie side by side. */
static void bulk_tick(struct bulk *bulk, uint64_t at_us) {
    for (uint32_t i = 0; i < bulk->started; i++) {
        struct link *link = &bulk->links[i];
        if (link->ended || !link->connected)
            continue;
        if (link->waits && link_allowance(link, at_us) >= READ_STEP_BYTES) {
            link->waits = false;
            tcp_receive_resume(link->conn, at_us);
        }
        link_rules(link, at_us);
    }
    if (!bulk->listens && bulk->started == bulk->ended && bulk->started < bulk->count)
        bulk_connect(bulk, at_us);
}

static void bulk_run(struct bulk *bulk) {
    uint64_t end_us = now_us() + bulk->limit_us;
    if (bulk->listens)
        bulk_listen(bulk);
    while (!stopping && bulk->ended < bulk->count) {
        uint64_t at_us = now_us();
        if (at_us > end_us)
            break;
        uint32_t frames = net_receive(bulk->net, at_us);
        tcp_poll(bulk->stack, POLL_BUDGET, at_us);
        bulk_tick(bulk, at_us);
        net_poll(bulk->net, at_us);
        if (frames == 0 && !bulk->poll)
            usleep(bulk->sleep_us);
    }
    /* The last ACK and RST leave. */
    for (int i = 0; i < 8; i++) {
        uint64_t at_us = now_us();
        net_receive(bulk->net, at_us);
        tcp_poll(bulk->stack, POLL_BUDGET, at_us);
        net_poll(bulk->net, at_us);
    }
}

static const char *link_error(const struct link *link) {
    if (!link->ended)
        return "unfinished";
    switch (link->error) {
    case TCP_OK:
        return "none";
    case TCP_REFUSED:
        return "refused";
    case TCP_RESET:
        return "reset";
    case TCP_TIMED_OUT:
        return "timed out";
    case TCP_UNREACHABLE:
        return "unreachable";
    case TCP_ABORTED:
        return link->stopped ? "stopped" : "aborted";
    }
    return "unknown";
}

static void report(const struct bulk *bulk) {
    printf("{\"stack\": \"bypost\", \"connections\": [");
    for (uint32_t i = 0; i < bulk->started; i++) {
        const struct link *link = &bulk->links[i];
        uint64_t end_us = link->ended ? link->ended_us : now_us();
        double busy_us = link->last_us > link->begin_us ? (double)(link->last_us - link->begin_us) : 1;
        printf("%s{\"sent\": %" PRIu64 ", \"acknowledged\": %" PRIu64 ", \"received\": %" PRIu64 ", \"wrong\": %" PRIu64
               ", \"eof\": %s, \"error\": \"%s\", \"seconds\": %.6f, \"mbps_received\": %.3f}",
               i > 0 ? ",\n  " : "", link->queued_bytes, link->acknowledged_bytes, link->received_bytes, link->wrong_bytes,
               link->eof ? "true" : "false", link_error(link), (double)(end_us - link->begin_us) / 1e6,
               (double)link->received_bytes * 8 / busy_us);
    }
    const struct tcp_counters *c = tcp_stack_counters(bulk->stack);
    printf("],\n \"counters\": {\"segments_in\": %" PRIu64 ", \"segments_out\": %" PRIu64 ", \"retransmits_fast\": %" PRIu64
           ", \"retransmits_timeout\": %" PRIu64 ", \"out_of_order\": %" PRIu64 ", \"duplicates\": %" PRIu64 ", \"bad_segments\": %" PRIu64
           ", \"resets_in\": %" PRIu64 ", \"resets_out\": %" PRIu64 ", \"pool_exhausted\": %" PRIu64,
           c->segments_in, c->segments_out, c->retransmits_fast, c->retransmits_timeout, c->out_of_order, c->duplicates, c->bad_segments,
           c->resets_received, c->resets_sent, c->pool_exhausted);
    printf(", \"tail_probes\": %" PRIu64 ", \"spurious_recoveries\": %" PRIu64 ", \"path_mtu_lowered\": %" PRIu64
           ", \"black_holes\": %" PRIu64 ", \"challenge_acks\": %" PRIu64 ", \"bad_tcp_checksum\": %" PRIu64
           ", \"frames_refused\": %" PRIu64 "}}\n",
           c->tail_probes, c->spurious_recoveries, c->path_mtu_lowered, c->black_holes, c->challenge_acks,
           net_counters(bulk->net)->bad_tcp_checksum, counter_get(&bulk->counters.frames_refused));
}

static void parse_address(const char *text, struct tcp_address *address, uint8_t *prefix_length) {
    char number[64];
    snprintf(number, sizeof number, "%s", text);
    char *slash = strchr(number, '/');
    memset(address, 0, sizeof *address);
    address->family = strchr(text, ':') != NULL ? 6 : 4;
    if (slash != NULL)
        *slash = '\0';
    if (prefix_length != NULL)
        *prefix_length = slash != NULL ? (uint8_t)atoi(slash + 1) : address->family == 6 ? 64 : 24;
    if (inet_pton(address->family == 6 ? AF_INET6 : AF_INET, number, address->bytes) != 1)
        die(text, "not an address");
}

static void bulk_open(struct bulk *bulk, const char *device) {
    char error[512];
    bulk->arena = rte_malloc("pattern", ARENA_BYTES, 4096);
    if (bulk->arena == NULL)
        die("rte_malloc", "no memory");
    for (uint32_t i = 0; i < ARENA_BYTES; i++) {
        uint32_t x = i % PERIOD * 2654435761u;
        bulk->arena[i] = (uint8_t)(x >> 24 ^ x >> 11);
    }
    struct port_request request = {.device = device, .mtu = bulk->mtu, .workers = 1};
    if (port_open(&bulk->port, &request, error, sizeof error) != 0)
        die("port_open", error);
    bulk->queue = port_queue_create(&bulk->port, 0, 1, bulk->arena, ARENA_BYTES, &bulk->counters);
    if (bulk->queue == NULL)
        die("port_queue_create", strerror(errno));
    struct net_config net = {.interface_count = 1, .workers = 1, .counters = &bulk->counters};
    struct net_interface *interface = &net.interfaces[0];
    interface->queue = bulk->queue;
    interface->mtu = bulk->mtu;
    interface->gateway = bulk->gateway;
    interface->gateway6 = bulk->gateway6;
    interface->address_count = bulk->address_count;
    memcpy(interface->addresses, bulk->addresses, sizeof bulk->addresses[0] * bulk->address_count);
    memcpy(interface->mac, bulk->port.mac, sizeof interface->mac);
    bulk->net = net_create(&net, now_us());
    if (bulk->net == NULL)
        die("net_create", strerror(errno));
    struct tcp_config tcp = {
        .max_connections = LINKS_MAX,
        .max_segments_in_flight = SEGMENTS_MAX,
        .max_ranges = SEGMENTS_MAX,
        .max_receive_blocks = BLOCKS_MAX,
        .receive_buffer_bytes = bulk->window_bytes,
        .mtu = bulk->mtu,
        .port_first = PORT_FIRST,
        .port_last = PORT_LAST,
        .segmentation_bytes_max = bulk->port.segmentation_bytes_max,
        .congestion = bulk->congestion,
        .transmit = net_transmit,
        .network = bulk->net,
        .events = {on_connected, on_received, on_peer_closed, on_acknowledged, on_closed, on_accepted},
    };
    if (getrandom(tcp.secret, sizeof tcp.secret, 0) != sizeof tcp.secret)
        die("getrandom", strerror(errno));
    bulk->stack = tcp_stack_create(&tcp, now_us());
    bulk->links = calloc(bulk->count, sizeof bulk->links[0]);
    if (bulk->stack == NULL || bulk->links == NULL)
        die("tcp_stack_create", strerror(errno));
    net_attach(bulk->net, bulk->stack);
    bulk->owner.release = owner_released;
}

static void usage(FILE *out) {
    fputs("usage: bulk --device D --address A/N... (--connect ADDRESS | --listen) [options]\n"
          "  --port N (5001)  --count N connections, one after the other  --send BYTES  --send-after-eof  --close-after-eof\n"
          "  --close-at-ms MS  --reset-after BYTES (acknowledged and received)  --read-wait-ms MS  --read-rate BYTES (a second)\n"
          "  --seconds S (then the connection is reset and the figures stand)  --limit S (60)  --window BYTES  --congestion cubic|newreno\n"
          "  --gateway A  --gateway6 A  --mtu N  --idle poll|sleep  --sleep-us N (50)  --lcore CPU\n",
          out);
}

enum bulk_option {
    OPTION_DEVICE = 1,
    OPTION_ADDRESS,
    OPTION_CONNECT,
    OPTION_LISTEN,
    OPTION_PORT,
    OPTION_COUNT,
    OPTION_SEND,
    OPTION_SEND_AFTER_EOF,
    OPTION_CLOSE_AFTER_EOF,
    OPTION_CLOSE_AT,
    OPTION_RESET_AFTER,
    OPTION_READ_WAIT,
    OPTION_READ_RATE,
    OPTION_SECONDS,
    OPTION_LIMIT,
    OPTION_WINDOW,
    OPTION_CONGESTION,
    OPTION_GATEWAY,
    OPTION_GATEWAY6,
    OPTION_MTU,
    OPTION_IDLE,
    OPTION_SLEEP,
    OPTION_LCORE,
    OPTION_HELP
};

static void parse_script(struct script *script, enum bulk_option option, const char *value) {
    switch (option) {
    case OPTION_SEND:
        script->send_bytes = strtoull(value, NULL, 10);
        break;
    case OPTION_SEND_AFTER_EOF:
        script->send_after_eof = true;
        break;
    case OPTION_CLOSE_AFTER_EOF:
        script->close_after_eof = true;
        break;
    case OPTION_CLOSE_AT:
        script->close_at_us = (uint64_t)(strtod(value, NULL) * 1e3);
        break;
    case OPTION_RESET_AFTER:
        script->reset_after_bytes = strtoull(value, NULL, 10);
        break;
    case OPTION_READ_WAIT:
        script->read_wait_us = (uint64_t)(strtod(value, NULL) * 1e3);
        break;
    case OPTION_READ_RATE:
        script->read_rate = strtoull(value, NULL, 10);
        break;
    default:
        script->run_us = (uint64_t)(strtod(value, NULL) * 1e6);
    }
}

static void parse(struct bulk *bulk, int argc, char **argv, const char **device, const char **lcore) {
    static const struct option options[] = {
        {"device", 1, NULL, OPTION_DEVICE},
        {"address", 1, NULL, OPTION_ADDRESS},
        {"connect", 1, NULL, OPTION_CONNECT},
        {"listen", 0, NULL, OPTION_LISTEN},
        {"port", 1, NULL, OPTION_PORT},
        {"count", 1, NULL, OPTION_COUNT},
        {"send", 1, NULL, OPTION_SEND},
        {"send-after-eof", 0, NULL, OPTION_SEND_AFTER_EOF},
        {"close-after-eof", 0, NULL, OPTION_CLOSE_AFTER_EOF},
        {"close-at-ms", 1, NULL, OPTION_CLOSE_AT},
        {"reset-after", 1, NULL, OPTION_RESET_AFTER},
        {"read-wait-ms", 1, NULL, OPTION_READ_WAIT},
        {"read-rate", 1, NULL, OPTION_READ_RATE},
        {"seconds", 1, NULL, OPTION_SECONDS},
        {"limit", 1, NULL, OPTION_LIMIT},
        {"window", 1, NULL, OPTION_WINDOW},
        {"congestion", 1, NULL, OPTION_CONGESTION},
        {"gateway", 1, NULL, OPTION_GATEWAY},
        {"gateway6", 1, NULL, OPTION_GATEWAY6},
        {"mtu", 1, NULL, OPTION_MTU},
        {"idle", 1, NULL, OPTION_IDLE},
        {"sleep-us", 1, NULL, OPTION_SLEEP},
        {"lcore", 1, NULL, OPTION_LCORE},
        {"help", 0, NULL, OPTION_HELP},
        {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case OPTION_DEVICE:
            *device = optarg;
            break;
        case OPTION_ADDRESS:
            if (bulk->address_count == ADDRESSES_MAX)
                die(optarg, "too many addresses");
            struct net_address *address = &bulk->addresses[bulk->address_count++];
            parse_address(optarg, &address->address, &address->prefix_length);
            break;
        case OPTION_CONNECT:
            parse_address(optarg, &bulk->remote, NULL);
            break;
        case OPTION_LISTEN:
            bulk->listens = true;
            break;
        case OPTION_PORT:
            bulk->tcp_port = (uint16_t)atoi(optarg);
            break;
        case OPTION_COUNT:
            bulk->count = (uint32_t)atoi(optarg);
            break;
        case OPTION_LIMIT:
            bulk->limit_us = (uint64_t)(strtod(optarg, NULL) * 1e6);
            break;
        case OPTION_WINDOW:
            bulk->window_bytes = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case OPTION_CONGESTION:
            bulk->congestion = strcmp(optarg, "newreno") == 0 ? TCP_NEWRENO : TCP_CUBIC;
            break;
        case OPTION_GATEWAY:
            parse_address(optarg, &bulk->gateway, NULL);
            break;
        case OPTION_GATEWAY6:
            parse_address(optarg, &bulk->gateway6, NULL);
            break;
        case OPTION_MTU:
            bulk->mtu = (uint16_t)atoi(optarg);
            break;
        case OPTION_IDLE:
            bulk->poll = strcmp(optarg, "poll") == 0;
            break;
        case OPTION_SLEEP:
            bulk->sleep_us = (uint32_t)atoi(optarg);
            break;
        case OPTION_LCORE:
            *lcore = optarg;
            break;
        case OPTION_HELP:
            usage(stdout);
            exit(0);
        case '?':
            usage(stderr);
            exit(2);
        default:
            parse_script(&bulk->script, (enum bulk_option)option, optarg);
        }
    }
    if (*device == NULL || bulk->address_count == 0 || bulk->listens == (bulk->remote.family != 0) || bulk->count == 0 ||
        bulk->count > LINKS_MAX) {
        usage(stderr);
        exit(2);
    }
}

int main(int argc, char **argv) {
    const char *device = NULL, *lcore = NULL;
    struct bulk *bulk = calloc(1, sizeof *bulk);
    if (bulk == NULL)
        die("calloc", "no memory");
    bulk->count = 1;
    bulk->tcp_port = 5001;
    bulk->mtu = 1500;
    bulk->sleep_us = SLEEP_US;
    bulk->window_bytes = WINDOW_BYTES;
    bulk->limit_us = 60000000;
    parse(bulk, argc, argv, &device, &lcore);
    struct sigaction action = {.sa_handler = on_stop};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    if (bench_eal_start("bypost-bulk", lcore, MEMORY_MIB, strncmp(device, "net_", 4) != 0) != 0)
        die("DPDK", "did not start");
    bulk_open(bulk, device);
    printf("ready\n");
    fflush(stdout);
    bulk_run(bulk);
    report(bulk);
    tcp_stack_destroy(bulk->stack);
    net_destroy(bulk->net);
    port_queue_destroy(bulk->queue);
    port_close(&bulk->port);
    rte_free(bulk->arena);
    free(bulk->links);
    free(bulk);
    rte_eal_cleanup();
    return 0;
}
