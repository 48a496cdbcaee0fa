/* port_probe.c: the program that test_ports runs inside its namespaces: EAL, one port, and either net and tcp against a kernel peer or
 * numbered frames against another probe. Prints name=value lines. */
#include "dataplane/net/net.h"
#include "dataplane/port/checksum.h"
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
#include <time.h>
#include <unistd.h>

enum {
    ARENA_BYTES = 4 << 20,
    QUEUED_BYTES_MAX = 256 << 10,
    PIECES_MAX = 8,
    WORKERS_MAX = 4,
    PORT_FIRST = 32768, /* local ports, divided between the workers */
    PORT_SPAN = 4096,
    FRAME_NUMBER_BYTES = 8,
    FRAME_PORT_BLAST = 4000,
    FRAME_PORT_DONE = 4001,
    FRAME_HEADERS = 14 + 20 + 20,
    DONE_FRAMES = 20,
    STALL_FRAMES_MAX = 5000,
    STALL_FLUSHES = 10,
    LINK_WAIT_S = 10,
    IDLE_S = 5,
};

/* A worker: all of them run in this one thread, in turn. */
struct station {
    struct port_queue *queue;
    struct counters counters;
    struct net *net;
    struct tcp_stack *stack;
    struct tcp_owner owner; /* of every byte of the arena that is sent */
    const uint8_t *arena;
    uint64_t total_bytes, sent_bytes, received_bytes, acknowledged_bytes, wrong_bytes;
    uint32_t piece_turn;
    bool connected, closed;
    enum tcp_error error;
};

struct probe {
    struct port port;
    uint8_t *arena;
    uint32_t workers;
    struct station stations[WORKERS_MAX];
    /* what to do */
    const char *address, *address6, *gateway, *gateway6, *peer;
    uint16_t peer_port, vlan;
    uint32_t seconds;
    bool wait;
    uint64_t total_bytes;
    /* numbered frames */
    uint64_t frames_total, frames_received, frames_wrong, frames_missing, next_number;
    uint32_t frame_bytes;
    bool only_count; /* for measuring: the frames are not looked at */
    bool done;
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
    fprintf(stderr, "port_probe: %s: %s\n", what, why);
    exit(1);
}

/* Period 4,194,301 (a prime below ARENA_BYTES): bytes from a wrong place differ. */
static uint8_t pattern(uint64_t offset) {
    uint32_t x = (uint32_t)(offset % 4194301u) * 2654435761u;
    return (uint8_t)(x >> 24 ^ x >> 11);
}

static void owner_released(struct tcp_owner *owner) {
    (void)owner;
}

/* Pieces as a message has them: short ones between long ones, at odd offsets. */
static uint32_t piece_length(struct station *station) {
    static const uint32_t lengths[] = {1400, 33, 255, 256, 4001, 1, 2900, 77, 8192, 300};
    return lengths[station->piece_turn++ % (sizeof lengths / sizeof lengths[0])];
}

static void echo_feed(struct station *station, struct tcp_conn *conn, uint64_t at_us) {
    while (station->sent_bytes < station->total_bytes && tcp_unacknowledged(conn) < QUEUED_BYTES_MAX) {
        struct tcp_piece pieces[PIECES_MAX];
        uint64_t offset = station->sent_bytes;
        uint32_t count = 0;
        while (count < PIECES_MAX && offset < station->total_bytes) {
            uint64_t at = offset % 4194301u;
            uint64_t length = piece_length(station);
            length = length < 4194301u - at ? length : 4194301u - at;
            length = length < station->total_bytes - offset ? length : station->total_bytes - offset;
            pieces[count++] = (struct tcp_piece){.bytes = station->arena + at, .length = (uint32_t)length, .owner = &station->owner};
            offset += length;
        }
        if (tcp_send(conn, pieces, count, at_us) != 0)
            break;
        station->sent_bytes = offset;
    }
    tcp_output(conn, at_us);
}

static void on_connected(void *user, struct tcp_conn *conn, uint64_t at_us) {
    struct station *station = user;
    station->connected = true;
    echo_feed(station, conn, at_us);
}

static uint32_t on_received(void *user, struct tcp_conn *conn, const uint8_t *bytes, uint32_t length, uint64_t at_us) {
    struct station *station = user;
    for (uint32_t i = 0; i < length; i++)
        station->wrong_bytes += bytes[i] != pattern(station->received_bytes + i);
    station->received_bytes += length;
    if (station->received_bytes == station->total_bytes)
        tcp_close(conn, at_us);
    return length;
}

static void on_peer_closed(void *user, struct tcp_conn *conn, uint64_t at_us) {
    tcp_close(conn, at_us);
}

static void on_acknowledged(void *user, struct tcp_conn *conn, uint32_t bytes, uint64_t at_us) {
    struct station *station = user;
    station->acknowledged_bytes += bytes;
    echo_feed(station, conn, at_us);
}

static void on_closed(void *user, struct tcp_conn *conn, enum tcp_error error, uint64_t at_us) {
    struct station *station = user;
    station->closed = true;
    station->error = error;
}

static void parse_address(const char *text, struct net_address *address) {
    char number[64];
    snprintf(number, sizeof number, "%s", text);
    char *slash = strchr(number, '/');
    address->prefix_length = 24;
    if (slash != NULL) {
        *slash = '\0';
        address->prefix_length = (uint8_t)atoi(slash + 1);
    }
    bool six = strchr(number, ':') != NULL;
    address->address = (struct tcp_address){.family = six ? 6 : 4};
    if (inet_pton(six ? AF_INET6 : AF_INET, number, address->address.bytes) != 1)
        die(text, "not an address");
}

static void station_start(struct probe *probe, uint32_t worker) {
    struct station *station = &probe->stations[worker];
    struct net_config config = {.interface_count = 1, .worker = worker, .workers = probe->workers, .counters = &station->counters};
    config.port_first = PORT_FIRST;
    config.port_span = PORT_SPAN;
    struct net_interface *interface = &config.interfaces[0];
    interface->queue = station->queue;
    interface->mtu = probe->port.mtu;
    interface->vlan = probe->vlan;
    interface->address_count = 1;
    memcpy(interface->mac, probe->port.mac, sizeof interface->mac);
    parse_address(probe->address, &interface->addresses[0]);
    if (probe->address6 != NULL)
        parse_address(probe->address6, &interface->addresses[interface->address_count++]);
    struct net_address gateway;
    if (probe->gateway != NULL) {
        parse_address(probe->gateway, &gateway);
        interface->gateway = gateway.address;
    }
    if (probe->gateway6 != NULL) {
        parse_address(probe->gateway6, &gateway);
        interface->gateway6 = gateway.address;
    }
    station->net = net_create(&config, now_us());
    if (station->net == NULL)
        die("net_create", strerror(errno));
    struct tcp_config tcp = {
        .max_connections = 16,
        .receive_buffer_bytes = 65535,
        .mtu = probe->port.mtu,
        .port_first = (uint16_t)(PORT_FIRST + worker * PORT_SPAN),
        .port_last = (uint16_t)(PORT_FIRST + worker * PORT_SPAN + PORT_SPAN - 1),
        .transmit = net_transmit,
        .network = station->net,
        .events = {on_connected, on_received, on_peer_closed, on_acknowledged, on_closed, NULL},
    };
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    memcpy(tcp.secret, &at, sizeof at < sizeof tcp.secret ? sizeof at : sizeof tcp.secret);
    station->stack = tcp_stack_create(&tcp, now_us());
    if (station->stack == NULL)
        die("tcp_stack_create", strerror(errno));
    net_attach(station->net, station->stack);
    if (probe->peer == NULL)
        return;
    struct net_address remote;
    struct tcp_conn *conn;
    parse_address(probe->peer, &remote);
    const struct net_address *local = &interface->addresses[remote.address.family == 6 ? interface->address_count - 1 : 0];
    int rc = tcp_connect(station->stack, &local->address, &remote.address, probe->peer_port, 10000000, station, &conn, now_us());
    if (rc != 0)
        die("tcp_connect", strerror(-rc));
}

static void station_report(const struct station *station) {
    const struct tcp_counters *tcp = tcp_stack_counters(station->stack);
    const struct net_counters *net = net_counters(station->net);
    printf("connected=%d\nclosed=%d\nerror=%s\nsent=%" PRIu64 "\nacknowledged=%" PRIu64 "\nreceived=%" PRIu64 "\nwrong=%" PRIu64 "\n",
           station->connected, station->closed, station->closed ? tcp_error_text(station->error) : "none", station->sent_bytes,
           station->acknowledged_bytes, station->received_bytes, station->wrong_bytes);
    printf("retransmits=%" PRIu64 "\necho_replies=%" PRIu64 "\nbad_tcp_checksum=%" PRIu64 "\narp_requests=%" PRIu64 "\nunreachable=%" PRIu64
           "\nreset_sent=%" PRIu64 "\nhanded_over=%" PRIu64 "\n",
           tcp->retransmits_fast + tcp->retransmits_timeout, net->echo_replies, net->bad_tcp_checksum, net->arp_requests, net->unreachable,
           tcp->resets_sent, counter_get(&station->counters.frames_handed_over));
    printf("icmp_errors=%" PRIu64 "\npath_mtu_lowered=%" PRIu64 "\nfragments=%" PRIu64 "\nreassembled=%" PRIu64
           "\nnd_solicitations=%" PRIu64 "\nnd_advertisements=%" PRIu64 "\naddress_conflicts=%" PRIu64 "\nbad_nd=%" PRIu64 "\n",
           net->icmp_errors, tcp->path_mtu_lowered, net->fragments, net->reassembled, net->nd_solicitations, net->nd_advertisements,
           net->address_conflicts, net->bad_nd);
}

/* One pass of each worker. Returns how many connections have closed. */
static uint32_t stations_pass(struct probe *probe) {
    uint32_t frames = 0, closed = 0;
    for (uint32_t i = 0; i < probe->workers; i++) {
        struct station *station = &probe->stations[i];
        uint64_t at_us = now_us();
        frames += net_receive(station->net, at_us);
        tcp_poll(station->stack, 64, at_us);
        net_poll(station->net, at_us);
        closed += station->closed;
    }
    if (frames == 0)
        usleep(20);
    return closed;
}

static void wait_for_line(void) {
    while (!stopping && getchar() != '\n' && !feof(stdin))
        ;
}

/* Runs net and tcp until every worker's connection has closed, or, without a peer, until it is told to stop. A worker's values follow the
 * line worker=N. */
static int run_stack(struct probe *probe) {
    printf("ready=1\n");
    fflush(stdout);
    if (probe->wait) /* the other end is being set up */
        wait_for_line();
    uint64_t start_us = now_us(), end_us = start_us + (uint64_t)probe->seconds * 1000000u;
    for (uint32_t i = 0; i < probe->workers; i++)
        station_start(probe, i);
    while (!stopping && now_us() < end_us && stations_pass(probe) < probe->workers)
        ;
    printf("microseconds=%" PRIu64 "\n", now_us() - start_us);
    for (uint32_t i = 0; i < probe->workers; i++) {
        printf("worker=%u\n", i);
        station_report(&probe->stations[i]);
        tcp_stack_destroy(probe->stations[i].stack);
        net_destroy(probe->stations[i].net);
        printf("references=%u\n", probe->stations[i].owner.references);
    }
    return 0;
}

/* A TCP segment by hand: number and payload, so that checksum, order and bytes can be verified at the other end. */
static int frame_send(struct probe *probe, uint16_t to_port, uint64_t number) {
    uint8_t header[FRAME_HEADERS] = {0}, number_bytes[FRAME_NUMBER_BYTES];
    uint32_t payload = probe->frame_bytes - FRAME_HEADERS;
    memset(header, 0xff, 6);
    memcpy(header + 6, probe->port.mac, 6);
    header[12] = 0x08;
    uint8_t *ip = header + 14, *tcp = ip + 20;
    ip[0] = 0x45;
    ip[2] = (uint8_t)((40 + payload) >> 8);
    ip[3] = (uint8_t)(40 + payload);
    ip[6] = 0x40;
    ip[8] = 64;
    ip[9] = 6;
    memcpy(ip + 12, "\x0a\x63\x00\x01\x0a\x63\x00\x02", 8);
    uint16_t sum = checksum_finish(checksum_add(0, ip, 20));
    memcpy(ip + 10, &sum, 2);
    tcp[2] = (uint8_t)(to_port >> 8);
    tcp[3] = (uint8_t)to_port;
    tcp[12] = 0x50;
    tcp[13] = TCP_ACK;
    uint8_t pseudo[12] = {0};
    memcpy(pseudo, ip + 12, 8);
    pseudo[9] = 6;
    pseudo[10] = (uint8_t)((20 + payload) >> 8);
    pseudo[11] = (uint8_t)(20 + payload);
    sum = checksum_fold(checksum_add(0, pseudo, sizeof pseudo));
    memcpy(tcp + 16, &sum, 2);
    memcpy(number_bytes, &number, sizeof number_bytes);
    struct tcp_piece pieces[4] = {{.bytes = number_bytes, .length = FRAME_NUMBER_BYTES}};
    uint64_t at = number * 7 % (ARENA_BYTES - 2048);
    uint32_t left = payload - FRAME_NUMBER_BYTES, count = 1;
    /* One long piece, or a short one before it, or two long ones: by number. */
    uint32_t cuts[2] = {number % 3 == 1 ? 31 : number % 3 == 2 ? left / 2 : left, left};
    for (uint32_t i = 0; i < 2 && left > 0; i++) {
        uint32_t length = cuts[i] < left ? cuts[i] : left;
        pieces[count++] = (struct tcp_piece){.bytes = probe->arena + at, .length = length};
        at += length;
        left -= length;
    }
    struct frame frame = {.header = header,
                          .header_length = FRAME_HEADERS,
                          .l2_length = 14,
                          .l3_length = 20,
                          .l4_length = 20,
                          .family = 4,
                          .l4_protocol = 6,
                          .by_reference_allowed = true,
                          .piece_count = (uint8_t)count,
                          .payload_length = (uint16_t)payload,
                          .pieces = pieces};
    return port_send(probe->stations[0].queue, &frame);
}

static void frame_input(void *context, const uint8_t *frame, uint32_t length) {
    struct probe *probe = context;
    if (length < FRAME_HEADERS + FRAME_NUMBER_BYTES || frame[12] != 0x08 || frame[13] != 0x00 || frame[23] != 6)
        return;
    uint16_t port = (uint16_t)(frame[36] << 8 | frame[37]);
    if (port == FRAME_PORT_DONE)
        probe->done = true;
    if (port != FRAME_PORT_BLAST)
        return;
    if (probe->only_count) {
        probe->frames_received++;
        return;
    }
    const uint8_t *tcp = frame + 34;
    uint32_t l4 = length - 34;
    uint8_t pseudo[12] = {0};
    memcpy(pseudo, frame + 26, 8);
    pseudo[9] = 6;
    pseudo[10] = (uint8_t)(l4 >> 8);
    pseudo[11] = (uint8_t)l4;
    uint64_t number;
    memcpy(&number, frame + FRAME_HEADERS, sizeof number);
    const uint8_t *payload = frame + FRAME_HEADERS + FRAME_NUMBER_BYTES;
    uint32_t left = length - FRAME_HEADERS - FRAME_NUMBER_BYTES;
    bool right = length == probe->frame_bytes && memcmp(payload, probe->arena + number * 7 % (ARENA_BYTES - 2048), left) == 0;
    if (!port_checksum_good(probe->stations[0].queue))
        right = right && checksum_finish(checksum_add(checksum_add(0, pseudo, sizeof pseudo), tcp, l4)) == 0;
    probe->frames_wrong += !right;
    if (number > probe->next_number)
        probe->frames_missing += number - probe->next_number;
    if (number >= probe->next_number)
        probe->next_number = number + 1;
    probe->frames_received++;
}

static void wait_for_link(struct probe *probe) {
    uint64_t end_us = now_us() + (uint64_t)LINK_WAIT_S * 1000000u;
    while (!port_link_up(&probe->port) && now_us() < end_us)
        usleep(10000);
    if (!port_link_up(&probe->port))
        die(probe->port.device, "the link did not come up");
    usleep(200000); /* virtual rings are enabled a moment after the link */
}

static int run_blast(struct probe *probe, bool answered) {
    wait_for_link(probe);
    uint64_t refused = 0, start_us = now_us(), progress_us = start_us, last_us = start_us;
    for (uint64_t number = 0; number < probe->frames_total && !stopping;) {
        if (frame_send(probe, FRAME_PORT_BLAST, number) == 0) {
            number++;
            progress_us = last_us;
            continue;
        }
        refused++;
        last_us = now_us();
        if (last_us - progress_us > (uint64_t)IDLE_S * 1000000u)
            die("blast", "the device takes nothing");
    }
    uint64_t end_us = now_us() + (uint64_t)IDLE_S * 1000000u, took_us = now_us() - start_us;
    while (!stopping && now_us() < end_us &&
           (answered ? !probe->done : counter_get(&probe->stations[0].counters.frames_out) < probe->frames_total)) {
        port_flush(probe->stations[0].queue);
        port_receive(probe->stations[0].queue, frame_input, probe);
    }
    printf("frames_out=%" PRIu64 "\nrefused=%" PRIu64 "\ndone=%d\nmicroseconds=%" PRIu64 "\nframes_per_second=%.0f\n",
           counter_get(&probe->stations[0].counters.frames_out), refused, probe->done, took_us,
           (double)probe->frames_total * 1e6 / (double)(took_us + 1));
    return 0;
}

/* Sends to a peer that takes nothing yet until no more is taken, gives the backlog time, and then puts other bytes where the payloads are,
 * as after an abort: what still goes out of the backlog must be the bytes that were sent. */
static int run_stall(struct probe *probe) {
    wait_for_link(probe);
    uint64_t queued = 0, end_us = now_us() + (uint64_t)IDLE_S * 2000000u;
    while (queued < STALL_FRAMES_MAX && frame_send(probe, FRAME_PORT_BLAST, queued) == 0)
        queued++;
    for (int i = 0; i < STALL_FLUSHES; i++) {
        port_flush(probe->stations[0].queue);
        usleep(1000);
    }
    uint64_t in_device = counter_get(&probe->stations[0].counters.frames_out);
    memset(probe->arena, 0xee, ARENA_BYTES);
    printf("queued=%" PRIu64 "\nin_device=%" PRIu64 "\nready=1\n", queued, in_device);
    fflush(stdout);
    while (!stopping && now_us() < end_us && counter_get(&probe->stations[0].counters.frames_out) < queued) {
        port_flush(probe->stations[0].queue);
        usleep(100);
    }
    usleep(1000000); /* the peer reads the last from our memory */
    return 0;
}

static int run_verify(struct probe *probe) {
    wait_for_link(probe);
    printf("ready=1\n");
    fflush(stdout);
    if (probe->wait)
        wait_for_line();
    uint64_t first_us = 0, last_us = now_us() + 5000000u;
    while (!stopping && probe->frames_received < probe->frames_total && now_us() < last_us + (uint64_t)IDLE_S * 1000000u) {
        if (port_receive(probe->stations[0].queue, frame_input, probe) > 0) {
            last_us = now_us();
            first_us = first_us == 0 ? last_us : first_us;
        }
    }
    for (int i = 0; i < DONE_FRAMES; i++) {
        frame_send(probe, FRAME_PORT_DONE, 0);
        port_flush(probe->stations[0].queue);
        usleep(10000);
    }
    printf("frames_received=%" PRIu64 "\nframes_wrong=%" PRIu64 "\nframes_missing=%" PRIu64 "\nframes_per_second=%.0f\n",
           probe->frames_received, probe->frames_wrong, probe->frames_missing,
           (double)probe->frames_received * 1e6 / (double)(last_us - first_us + 1));
    return 0;
}

static void start_eal(const char *lcore, const char *prefix) {
    char file_prefix[96];
    snprintf(file_prefix, sizeof file_prefix, "--file-prefix=%s", prefix);
    const char *arguments[] = {"port_probe",
                               "-l",
                               lcore,
                               "--no-huge",
                               "-m",
                               "192",
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
            "usage: port_probe --device D --mode copy|reference|auto --run answer|echo|blast|throw|stall|verify|count [--address A/N] "
            "[--peer A]\n"
            "  [--peer-port N] [--bytes N] [--frames N] [--frame-bytes N] [--vlan N] [--seconds N] [--lcore N] [--prefix P] [--mtu N] "
            "[--wait] [--workers N] [--address6 A/N] [--gateway A] [--gateway6 A]\n");
    exit(2);
}

int main(int argc, char **argv) {
    enum {
        OPTION_DEVICE = 1,
        OPTION_MODE,
        OPTION_RUN,
        OPTION_ADDRESS,
        OPTION_PEER,
        OPTION_PEER_PORT,
        OPTION_BYTES,
        OPTION_FRAMES,
        OPTION_FRAME_BYTES,
        OPTION_VLAN,
        OPTION_SECONDS,
        OPTION_LCORE,
        OPTION_PREFIX,
        OPTION_MTU,
        OPTION_WAIT,
        OPTION_WORKERS,
        OPTION_ADDRESS6,
        OPTION_GATEWAY,
        OPTION_GATEWAY6
    };
    static const struct option options[] = {
        {"device", 1, NULL, OPTION_DEVICE},
        {"mode", 1, NULL, OPTION_MODE},
        {"run", 1, NULL, OPTION_RUN},
        {"address", 1, NULL, OPTION_ADDRESS},
        {"peer", 1, NULL, OPTION_PEER},
        {"peer-port", 1, NULL, OPTION_PEER_PORT},
        {"bytes", 1, NULL, OPTION_BYTES},
        {"frames", 1, NULL, OPTION_FRAMES},
        {"frame-bytes", 1, NULL, OPTION_FRAME_BYTES},
        {"vlan", 1, NULL, OPTION_VLAN},
        {"seconds", 1, NULL, OPTION_SECONDS},
        {"lcore", 1, NULL, OPTION_LCORE},
        {"prefix", 1, NULL, OPTION_PREFIX},
        {"mtu", 1, NULL, OPTION_MTU},
        {"wait", 0, NULL, OPTION_WAIT},
        {"workers", 1, NULL, OPTION_WORKERS},
        {"address6", 1, NULL, OPTION_ADDRESS6},
        {"gateway", 1, NULL, OPTION_GATEWAY},
        {"gateway6", 1, NULL, OPTION_GATEWAY6},
        {NULL, 0, NULL, 0},
    };
    struct probe *probe = calloc(1, sizeof *probe);
    if (probe == NULL)
        die("calloc", "no memory");
    const char *device = NULL, *run = "answer", *lcore = "0", *prefix = "port_probe";
    enum port_mode mode = PORT_MODE_AUTO;
    uint16_t mtu = 1500;
    probe->address = "10.99.0.2/24";
    probe->peer_port = 7;
    probe->seconds = 30;
    probe->workers = 1;
    probe->frame_bytes = 1400;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case OPTION_DEVICE:
            device = optarg;
            break;
        case OPTION_MODE:
            mode = strcmp(optarg, "copy") == 0 ? PORT_MODE_COPY : strcmp(optarg, "reference") == 0 ? PORT_MODE_REFERENCE : PORT_MODE_AUTO;
            break;
        case OPTION_RUN:
            run = optarg;
            break;
        case OPTION_ADDRESS:
            probe->address = optarg;
            break;
        case OPTION_PEER:
            probe->peer = optarg;
            break;
        case OPTION_PEER_PORT:
            probe->peer_port = (uint16_t)atoi(optarg);
            break;
        case OPTION_BYTES:
            probe->total_bytes = strtoull(optarg, NULL, 10);
            break;
        case OPTION_FRAMES:
            probe->frames_total = strtoull(optarg, NULL, 10);
            break;
        case OPTION_FRAME_BYTES:
            probe->frame_bytes = (uint32_t)atoi(optarg);
            break;
        case OPTION_VLAN:
            probe->vlan = (uint16_t)atoi(optarg);
            break;
        case OPTION_SECONDS:
            probe->seconds = (uint32_t)atoi(optarg);
            break;
        case OPTION_LCORE:
            lcore = optarg;
            break;
        case OPTION_PREFIX:
            prefix = optarg;
            break;
        case OPTION_WAIT:
            probe->wait = true;
            break;
        case OPTION_WORKERS:
            probe->workers = (uint32_t)atoi(optarg);
            break;
        case OPTION_ADDRESS6:
            probe->address6 = optarg;
            break;
        case OPTION_GATEWAY:
            probe->gateway = optarg;
            break;
        case OPTION_GATEWAY6:
            probe->gateway6 = optarg;
            break;
        case OPTION_MTU:
            mtu = (uint16_t)atoi(optarg);
            break;
        default:
            usage();
        }
    }
    if (device == NULL || probe->frame_bytes < FRAME_HEADERS + FRAME_NUMBER_BYTES || probe->frame_bytes > 1514 || probe->workers == 0 ||
        probe->workers > WORKERS_MAX)
        usage();
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* a vhost peer that has gone */
    start_eal(lcore, prefix);
    probe->arena = rte_malloc("arena", ARENA_BYTES, 4096);
    if (probe->arena == NULL)
        die("rte_malloc", "no memory for the arena");
    for (uint64_t i = 0; i < ARENA_BYTES; i++)
        probe->arena[i] = pattern(i);
    char error[512] = "";
    if (port_open(&probe->port, &(struct port_request){.device = device, .mode = mode, .mtu = mtu, .workers = probe->workers}, error,
                  sizeof error) != 0)
        die("port_open", error);
    for (uint32_t i = 0; i < probe->workers; i++) {
        struct station *station = &probe->stations[i];
        station->owner.release = owner_released;
        station->arena = probe->arena;
        station->total_bytes = probe->total_bytes;
        station->queue = port_queue_create(&probe->port, i, probe->workers, probe->arena, ARENA_BYTES, &station->counters);
        if (station->queue == NULL)
            die("port_queue_create", strerror(errno));
    }
    printf("queues=%u\nmode=%s\nchecksum_offload=%d\n", probe->port.queues, probe->port.mode == PORT_MODE_REFERENCE ? "reference" : "copy",
           probe->port.checksum_offload);
    fflush(stdout);
    int rc = 0;
    if (strcmp(run, "blast") == 0 || strcmp(run, "throw") == 0)
        rc = run_blast(probe, strcmp(run, "blast") == 0);
    else if (strcmp(run, "stall") == 0)
        rc = run_stall(probe);
    else if (strcmp(run, "verify") == 0 || (probe->only_count = strcmp(run, "count") == 0))
        rc = run_verify(probe);
    else {
        probe->peer = strcmp(run, "echo") == 0 ? probe->peer : NULL;
        rc = run_stack(probe);
    }
    for (uint32_t i = 0; i < probe->workers; i++) {
        const struct counters *counters = &probe->stations[i].counters;
        printf("frames_in=%" PRIu64 "\nframes_bad=%" PRIu64 "\nframes_refused=%" PRIu64 "\n", counter_get(&counters->frames_in),
               counter_get(&counters->frames_bad), counter_get(&counters->frames_refused));
        port_queue_destroy(probe->stations[i].queue);
    }
    port_close(&probe->port);
    rte_free(probe->arena);
    rte_eal_cleanup();
    free(probe);
    return rc;
}
