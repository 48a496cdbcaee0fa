/* steering_probe.c: several workers that open connections, and a server that receives from and sends on all queues of its port from one
 * thread, as a NIC's hash would spread its replies. Counts which frames came to the worker that opened. Prints name=value lines. */
#include "dataplane/net/net.h"
#include "dataplane/port/port.h"
#include "dataplane/port/toeplitz.h"
#include "dataplane/tcp/tcp.h"
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <rte_eal.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    WORKERS_MAX = 8,
    CONNECTIONS_MAX = 65536,
    OPEN_AT_ONCE = 64, /* of a worker */
    ARENA_BYTES = 1 << 20,
    SERVER_PORTS = 4,
    SERVER_PORT = 2500,
    PORT_FIRST = 10000,
    PORT_LAST = 65535,
    HANDSHAKE_US = 5000000,
    PIECE_BYTES = 16384,
    LINK_WAIT_S = 10,
};

struct probe;

/* One connection at either end. */
struct talk {
    struct station *station;
    uint64_t received, sent;
    bool closing;
};

/* A worker, or the server. */
struct station {
    struct probe *probe;
    struct port_queue *queue;
    struct counters counters;
    struct net *net;
    struct tcp_stack *stack;
    uint32_t opened, open, done, failed;
    uint64_t wrong_bytes;
    uint64_t strays; /* segments that came here for another worker's connection */
    struct talk *talks;
    uint32_t talk_count;
};

struct probe {
    struct port port;
    struct port_rss rss; /* by which the server chooses its queue */
    uint32_t workers;
    bool serves;
    uint32_t connections; /* of each worker */
    uint64_t bytes;       /* each way */
    uint32_t seconds;
    const uint8_t *arena;
    struct station stations[WORKERS_MAX];
    struct counters queue_counters[WORKERS_MAX]; /* of the server's further queues */
    _Atomic uint32_t finished;
};

static volatile sig_atomic_t stopping;

static void on_signal(int number) {
    (void)number;
    stopping = 1;
}

static uint64_t now_us(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000u + (uint64_t)at.tv_nsec / 1000u;
}

static void die(const char *what, const char *why) {
    fprintf(stderr, "steering_probe: %s: %s\n", what, why);
    exit(1);
}

static struct tcp_address address(const char *text) {
    struct tcp_address result = {.family = strchr(text, ':') == NULL ? 4 : 6};
    if (inet_pton(result.family == 4 ? AF_INET : AF_INET6, text, result.bytes) != 1)
        die(text, "not an address");
    return result;
}

static void talk_feed(struct talk *talk, struct tcp_conn *conn, uint64_t at_us) {
    const struct probe *probe = talk->station->probe;
    while (talk->sent < probe->bytes) {
        uint64_t at = talk->sent % ARENA_BYTES, length = PIECE_BYTES - at % PIECE_BYTES;
        length = length < probe->bytes - talk->sent ? length : probe->bytes - talk->sent;
        struct tcp_piece piece = {.bytes = probe->arena + at, .length = (uint32_t)length};
        if (tcp_unacknowledged(conn) > 4 * PIECE_BYTES || tcp_send(conn, &piece, 1, at_us) != 0)
            break;
        talk->sent += length;
    }
    tcp_output(conn, at_us);
    if (probe->serves && talk->sent == probe->bytes && !talk->closing) { /* the server closes first, so that TIME_WAIT is its own */
        talk->closing = true;
        tcp_close(conn, at_us);
    }
}

static void on_connected(void *user, struct tcp_conn *conn, uint64_t at_us) {
    talk_feed(user, conn, at_us);
}

static uint32_t on_received(void *user, struct tcp_conn *conn, const uint8_t *bytes, uint32_t length, uint64_t at_us) {
    struct talk *talk = user;
    const struct probe *probe = talk->station->probe;
    for (uint32_t i = 0; i < length; i++)
        talk->station->wrong_bytes += bytes[i] != probe->arena[(talk->received + i) % ARENA_BYTES];
    talk->received += length;
    if (probe->serves && talk->received == probe->bytes)
        talk_feed(talk, conn, at_us);
    return length;
}

static void on_peer_closed(void *user, struct tcp_conn *conn, uint64_t at_us) {
    (void)user;
    tcp_close(conn, at_us);
}

static void on_acknowledged(void *user, struct tcp_conn *conn, uint32_t bytes, uint64_t at_us) {
    struct talk *talk = user;
    (void)bytes;
    if (!talk->closing && (!talk->station->probe->serves || talk->received == talk->station->probe->bytes))
        talk_feed(talk, conn, at_us);
}

static void on_closed(void *user, struct tcp_conn *conn, enum tcp_error error, uint64_t at_us) {
    struct talk *talk = user;
    (void)conn;
    (void)at_us;
    talk->station->open--;
    if (error == TCP_OK && talk->received == talk->station->probe->bytes)
        talk->station->done++;
    else
        talk->station->failed++;
}

static void *on_accepted(void *listener_user, struct tcp_conn *conn, uint64_t at_us) {
    struct station *station = listener_user;
    (void)conn;
    (void)at_us;
    if (station->talk_count == CONNECTIONS_MAX)
        return NULL;
    struct talk *talk = &station->talks[station->talk_count++];
    talk->station = station;
    station->open++;
    return talk;
}

/* Between TCP and net: counts. */
static int station_transmit(void *network, const struct tcp_segment *segment) {
    struct station *station = network;
    return net_transmit(station->net, segment);
}

static bool station_choose_ports(void *network, const struct tcp_address *local, const struct tcp_address *remote, uint16_t remote_port,
                                 uint64_t random, uint32_t attempt, struct tcp_port_choice *choice) {
    struct station *station = network;
    return net_choose_ports(station->net, local, remote, remote_port, random, attempt, choice);
}

static bool station_unknown(void *network, const struct tcp_packet *packet) {
    struct station *station = network;
    bool stray = net_unknown(station->net, packet);
    station->strays += stray;
    return stray;
}

static void station_start(struct probe *probe, uint32_t worker) {
    struct station *station = &probe->stations[worker];
    uint16_t span = (uint16_t)((PORT_LAST - PORT_FIRST + 1) / probe->workers);
    struct net_config config = {.interface_count = 1, .worker = probe->serves ? 0 : worker, .counters = &station->counters};
    config.workers = probe->serves ? 1 : probe->workers;
    config.port_first = PORT_FIRST;
    config.port_span = probe->serves ? 0 : span;
    struct net_interface *interface = &config.interfaces[0];
    interface->queue = station->queue;
    for (uint32_t i = 1; probe->serves && i < probe->workers; i++)
        interface->more_queues[interface->more_queue_count++] = probe->stations[i].queue;
    interface->rss = probe->serves ? &probe->rss : &probe->port.rss;
    interface->mtu = probe->port.mtu;
    memcpy(interface->mac, probe->port.mac, sizeof interface->mac);
    interface->address_count = 2;
    interface->addresses[0] = (struct net_address){address(probe->serves ? "10.99.0.1" : "10.99.0.2"), 24};
    interface->addresses[1] = (struct net_address){address(probe->serves ? "2001:db8:99::1" : "2001:db8:99::2"), 64};
    station->net = net_create(&config, now_us());
    if (station->net == NULL)
        die("net_create", strerror(errno));
    struct tcp_config tcp = {
        .max_connections = probe->serves ? 4096 : 256,
        .receive_buffer_bytes = 65535,
        .mtu = probe->port.mtu,
        .port_first = (uint16_t)(PORT_FIRST + worker * span),
        .port_last = (uint16_t)(PORT_FIRST + (worker + 1) * span - 1),
        .segmentation_bytes_max = probe->port.segmentation_bytes_max,
        .transmit = station_transmit,
        .choose_ports = station_choose_ports,
        .unknown = station_unknown,
        .network = station,
        .events = {on_connected, on_received, on_peer_closed, on_acknowledged, on_closed, on_accepted},
    };
    memcpy(tcp.secret, &(uint64_t){now_us() + worker}, sizeof(uint64_t));
    station->stack = tcp_stack_create(&tcp, now_us());
    station->talks = calloc(CONNECTIONS_MAX, sizeof *station->talks);
    if (station->stack == NULL || station->talks == NULL)
        die("tcp_stack_create", strerror(errno));
    net_attach(station->net, station->stack);
    for (uint16_t port = 0; probe->serves && port < SERVER_PORTS; port++)
        for (uint32_t i = 0; i < 2; i++) {
            int rc = tcp_listen(station->stack, &interface->addresses[i].address, (uint16_t)(SERVER_PORT + port), station);
            if (rc != 0)
                die("tcp_listen", strerror(-rc));
        }
}

/* Both families and all the server's ports in turn. */
static void station_open(struct station *station, uint64_t at_us) {
    const struct probe *probe = station->probe;
    while (station->opened < probe->connections && station->open < OPEN_AT_ONCE) {
        bool six = station->opened % 2 != 0;
        struct tcp_address local = address(six ? "2001:db8:99::2" : "10.99.0.2"), remote = address(six ? "2001:db8:99::1" : "10.99.0.1");
        struct talk *talk = &station->talks[station->opened];
        struct tcp_conn *conn;
        talk->station = station;
        if (tcp_connect(station->stack, &local, &remote, (uint16_t)(SERVER_PORT + station->opened / 2 % SERVER_PORTS), HANDSHAKE_US, talk,
                        &conn, at_us) != 0)
            return;
        station->opened++;
        station->open++;
    }
}

static int station_run(void *argument) {
    struct probe *probe = argument;
    unsigned worker = rte_lcore_id();
    if (worker >= probe->workers || (probe->serves && worker > 0))
        return 0;
    struct station *station = &probe->stations[worker];
    uint64_t end_us = now_us() + (uint64_t)probe->seconds * 1000000u;
    bool finished = false;
    for (uint64_t at_us = now_us(); !stopping && at_us < end_us; at_us = now_us()) {
        uint32_t frames = net_receive(station->net, at_us);
        if (!probe->serves)
            station_open(station, at_us);
        tcp_poll(station->stack, 256, at_us);
        net_poll(station->net, at_us);
        if (!finished && !probe->serves && station->done + station->failed == probe->connections) {
            finished = true; /* the others may still need what comes to us */
            atomic_fetch_add(&probe->finished, 1);
        }
        if (!probe->serves && atomic_load(&probe->finished) == probe->workers)
            break;
        if (frames == 0)
            usleep(20);
    }
    return 0;
}

static void station_report(const struct station *station, uint32_t worker) {
    const struct tcp_counters *tcp = tcp_stack_counters(station->stack);
    const struct net_counters *net = net_counters(station->net);
    printf("worker=%u\nopened=%u\nconnections_done=%u\nconnections_failed=%u\nwrong=%" PRIu64 "\naccepted=%" PRIu64 "\n", worker,
           station->opened, station->done, station->failed, station->wrong_bytes, tcp->accepted);
    printf("segments_in=%" PRIu64 "\nsegments_out=%" PRIu64 "\nstrays=%" PRIu64 "\nhanded_over=%" PRIu64 "\nno_connection=%" PRIu64
           "\nresets_sent=%" PRIu64 "\nretransmits=%" PRIu64 "\nbad_checksum=%" PRIu64 "\nframes_in=%" PRIu64 "\nframes_out=%" PRIu64 "\n",
           tcp->segments_in, tcp->segments_out, station->strays, counter_get(&station->counters.frames_handed_over), tcp->no_connection,
           tcp->resets_sent, tcp->retransmits_fast + tcp->retransmits_timeout, net->bad_tcp_checksum,
           counter_get(&station->counters.frames_in), counter_get(&station->counters.frames_out));
}

/* A worker a logical core, all on one CPU: EAL's lcore 0 is the main thread. */
static void start_eal(uint32_t lcores, const char *cpu, const char *prefix) {
    char map[256] = "", file_prefix[96];
    size_t used = 0;
    for (uint32_t i = 0; i < lcores; i++)
        used += (size_t)snprintf(map + used, sizeof map - used, "%s%u@%s", i > 0 ? "," : "", i, cpu);
    snprintf(file_prefix, sizeof file_prefix, "--file-prefix=%s", prefix);
    const char *arguments[] = {"steering_probe",
                               "--lcores",
                               map,
                               "--no-huge",
                               "-m",
                               "320",
                               "--no-pci",
                               "--no-telemetry",
                               "--no-shconf",
                               "--single-file-segments",
                               "--log-level=lib.eal:error",
                               "--log-level=*:error",
                               file_prefix};
    if (rte_eal_init((int)(sizeof arguments / sizeof arguments[0]), (char **)(uintptr_t)arguments) < 0)
        die("rte_eal_init", "failed");
}

static void usage(void) {
    fprintf(stderr,
            "usage: steering_probe --device D --role open|serve [--workers N] [--steering auto|toeplitz|ranges] [--replies hash|other]\n"
            "  [--connections N] [--bytes N] [--seconds N] [--cpu N] [--prefix P]\n");
    exit(2);
}

int main(int argc, char **argv) {
    enum { DEVICE = 1, ROLE, WORKERS, STEERING, REPLIES, CONNECTIONS, BYTES, SECONDS, CPU, PREFIX };
    static const struct option options[] = {
        {"device", 1, NULL, DEVICE},
        {"role", 1, NULL, ROLE},
        {"workers", 1, NULL, WORKERS},
        {"steering", 1, NULL, STEERING},
        {"replies", 1, NULL, REPLIES},
        {"connections", 1, NULL, CONNECTIONS},
        {"bytes", 1, NULL, BYTES},
        {"seconds", 1, NULL, SECONDS},
        {"cpu", 1, NULL, CPU},
        {"prefix", 1, NULL, PREFIX},
        {NULL, 0, NULL, 0},
    };
    static struct probe probe = {.workers = 4, .connections = 400, .bytes = 3000, .seconds = 30};
    struct port_request request = {.steering = PORT_STEERING_AUTO, .mtu = 1500};
    const char *cpu = "0", *prefix = "steering_probe";
    bool other = false;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case DEVICE:
            request.device = optarg;
            break;
        case ROLE:
            probe.serves = strcmp(optarg, "serve") == 0;
            break;
        case WORKERS:
            probe.workers = (uint32_t)atoi(optarg);
            break;
        case STEERING:
            request.steering = strcmp(optarg, "toeplitz") == 0 ? PORT_STEERING_TOEPLITZ
                               : strcmp(optarg, "ranges") == 0 ? PORT_STEERING_RANGES
                                                               : PORT_STEERING_AUTO;
            break;
        case REPLIES:
            other = strcmp(optarg, "other") == 0;
            break;
        case CONNECTIONS:
            probe.connections = (uint32_t)atoi(optarg);
            break;
        case BYTES:
            probe.bytes = strtoull(optarg, NULL, 10);
            break;
        case SECONDS:
            probe.seconds = (uint32_t)atoi(optarg);
            break;
        case CPU:
            cpu = optarg;
            break;
        case PREFIX:
            prefix = optarg;
            break;
        default:
            usage();
        }
    }
    if (request.device == NULL || probe.workers == 0 || probe.workers > WORKERS_MAX || probe.connections > CONNECTIONS_MAX)
        usage();
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    start_eal(probe.serves ? 1 : probe.workers, cpu, prefix);
    uint8_t *arena = rte_malloc("arena", ARENA_BYTES, 4096);
    if (arena == NULL)
        die("rte_malloc", "no memory for the arena");
    for (uint32_t i = 0; i < ARENA_BYTES; i++)
        arena[i] = (uint8_t)(i * 2654435761u >> 23);
    probe.arena = arena;
    request.workers = probe.workers;
    char error[512] = "";
    if (port_open(&probe.port, &request, error, sizeof error) != 0)
        die("port_open", error);
    toeplitz_rss_default(&probe.rss, (uint16_t)probe.workers);
    for (uint32_t i = 0; other && i < probe.rss.key_length; i++)
        probe.rss.key[i] ^= 0xa5; /* the replies go where another key says */
    for (uint32_t i = 0; i < probe.workers; i++) {
        struct station *station = &probe.stations[i];
        station->probe = &probe;
        station->queue = port_queue_create(&probe.port, i, probe.workers, arena, ARENA_BYTES, &station->counters);
        if (station->queue == NULL)
            die("port_queue_create", strerror(errno));
    }
    uint64_t end_us = now_us() + (uint64_t)LINK_WAIT_S * 1000000u;
    printf("queues=%u\nhashes=%d\nsegmentation=%u\n", probe.port.queues, probe.port.rss.hashes, probe.port.segmentation_bytes_max);
    fflush(stdout);
    while (!port_link_up(&probe.port) && now_us() < end_us && !stopping)
        usleep(10000);
    usleep(200000); /* virtual rings are enabled a moment after the link */
    uint32_t stations = probe.serves ? 1 : probe.workers;
    for (uint32_t i = 0; i < stations; i++)
        station_start(&probe, i);
    printf("ready=1\n");
    fflush(stdout);
    uint64_t start_us = now_us();
    rte_eal_mp_remote_launch(station_run, &probe, CALL_MAIN);
    rte_eal_mp_wait_lcore();
    printf("microseconds=%" PRIu64 "\n", now_us() - start_us);
    for (uint32_t i = 0; i < stations; i++) {
        station_report(&probe.stations[i], i);
        tcp_stack_destroy(probe.stations[i].stack);
        net_destroy(probe.stations[i].net);
        free(probe.stations[i].talks);
    }
    for (uint32_t i = 0; i < probe.workers; i++)
        port_queue_destroy(probe.stations[i].queue);
    port_close(&probe.port);
    rte_free(arena);
    rte_eal_cleanup();
    return 0;
}
