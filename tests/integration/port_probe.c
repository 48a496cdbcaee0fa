/* port_probe.c: the program that test_ports runs inside its namespaces: EAL, one port, and either net and tcp against a kernel peer or
 * numbered frames against another probe. Prints name=value lines. */
#include "dataplane/net/net.h"
#include "dataplane/port/checksum.h"
#include "dataplane/port/port.h"
#include "dataplane/tcp/tcp.h"
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
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
    FRAME_NUMBER_BYTES = 8,
    FRAME_PORT_BLAST = 4000,
    FRAME_PORT_DONE = 4001,
    FRAME_HEADERS = 14 + 20 + 20,
    DONE_FRAMES = 20,
    LINK_WAIT_S = 10,
    IDLE_S = 5,
};

struct probe {
    struct port port;
    struct port_queue *queue;
    struct counters counters;
    uint8_t *arena;
    struct tcp_owner owner; /* of every byte of the arena that is sent */
    /* echo */
    uint64_t total_bytes, sent_bytes, received_bytes, acknowledged_bytes, wrong_bytes;
    uint32_t piece_turn;
    bool connected, peer_closed, closed, keep_alive;
    enum tcp_error error;
    /* numbered frames */
    uint64_t frames_total, frames_received, frames_wrong, frames_missing, next_number;
    uint32_t frame_bytes;
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
static uint32_t piece_length(struct probe *probe) {
    static const uint32_t lengths[] = {1400, 33, 255, 256, 4001, 1, 2900, 77, 8192, 300};
    return lengths[probe->piece_turn++ % (sizeof lengths / sizeof lengths[0])];
}

static void echo_feed(struct probe *probe, struct tcp_conn *conn, uint64_t at_us) {
    while (probe->sent_bytes < probe->total_bytes && tcp_unacknowledged(conn) < QUEUED_BYTES_MAX) {
        struct tcp_piece pieces[PIECES_MAX];
        uint64_t offset = probe->sent_bytes;
        uint32_t count = 0;
        while (count < PIECES_MAX && offset < probe->total_bytes) {
            uint64_t at = offset % 4194301u;
            uint64_t length = piece_length(probe);
            length = length < 4194301u - at ? length : 4194301u - at;
            length = length < probe->total_bytes - offset ? length : probe->total_bytes - offset;
            pieces[count++] = (struct tcp_piece){.bytes = probe->arena + at, .length = (uint32_t)length, .owner = &probe->owner};
            offset += length;
        }
        if (tcp_send(conn, pieces, count, at_us) != 0)
            break;
        probe->sent_bytes = offset;
    }
    tcp_output(conn, at_us);
}

static void on_connected(void *user, struct tcp_conn *conn, uint64_t at_us) {
    struct probe *probe = user;
    probe->connected = true;
    echo_feed(probe, conn, at_us);
}

static uint32_t on_received(void *user, struct tcp_conn *conn, const uint8_t *bytes, uint32_t length, uint64_t at_us) {
    struct probe *probe = user;
    for (uint32_t i = 0; i < length; i++)
        probe->wrong_bytes += bytes[i] != pattern(probe->received_bytes + i);
    probe->received_bytes += length;
    if (probe->received_bytes == probe->total_bytes)
        tcp_close(conn, at_us);
    return length;
}

static void on_peer_closed(void *user, struct tcp_conn *conn, uint64_t at_us) {
    ((struct probe *)user)->peer_closed = true;
    tcp_close(conn, at_us);
}

static void on_acknowledged(void *user, struct tcp_conn *conn, uint32_t bytes, uint64_t at_us) {
    struct probe *probe = user;
    probe->acknowledged_bytes += bytes;
    echo_feed(probe, conn, at_us);
}

static void on_closed(void *user, struct tcp_conn *conn, enum tcp_error error, uint64_t at_us) {
    struct probe *probe = user;
    probe->closed = true;
    probe->error = error;
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
    address->address = (struct tcp_address){.family = 4};
    if (inet_pton(AF_INET, number, address->address.bytes) != 1)
        die(text, "not an address");
}

static struct net *probe_net(struct probe *probe, const char *address, uint16_t vlan) {
    struct net_config config = {.interface_count = 1, .workers = 1, .counters = &probe->counters};
    struct net_interface *interface = &config.interfaces[0];
    interface->queue = probe->queue;
    interface->mtu = probe->port.mtu;
    interface->vlan = vlan;
    interface->address_count = 1;
    memcpy(interface->mac, probe->port.mac, sizeof interface->mac);
    parse_address(address, &interface->addresses[0]);
    struct net *net = net_create(&config, now_us());
    if (net == NULL)
        die("net_create", strerror(errno));
    return net;
}

static struct tcp_stack *probe_stack(struct probe *probe, struct net *net) {
    struct tcp_config config = {
        .max_connections = 16,
        .receive_buffer_bytes = 65535,
        .mtu = probe->port.mtu,
        .port_first = 32768,
        .port_last = 60999,
        .transmit = net_transmit,
        .network = net,
        .events = {on_connected, on_received, on_peer_closed, on_acknowledged, on_closed},
    };
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    memcpy(config.secret, &at, sizeof at < sizeof config.secret ? sizeof at : sizeof config.secret);
    struct tcp_stack *stack = tcp_stack_create(&config, now_us());
    if (stack == NULL)
        die("tcp_stack_create", strerror(errno));
    net_attach(net, stack);
    return stack;
}

/* Runs net and tcp until the connection has closed, or, without one, until it is told to stop. */
static int run_stack(struct probe *probe, const char *address, uint16_t vlan, const char *peer, uint16_t peer_port, uint32_t seconds,
                     bool wait) {
    struct net *net = probe_net(probe, address, vlan);
    struct tcp_stack *stack = probe_stack(probe, net);
    printf("ready=1\n");
    fflush(stdout);
    if (wait) /* for a line: the other end is being set up */
        while (!stopping && getchar() != '\n' && !feof(stdin))
            ;
    uint64_t start_us = now_us(), end_us = start_us + (uint64_t)seconds * 1000000u;
    if (peer != NULL) {
        struct net_address local, remote;
        struct tcp_conn *conn;
        parse_address(address, &local);
        parse_address(peer, &remote);
        int rc = tcp_connect(stack, &local.address, &remote.address, peer_port, 10000000, probe, &conn, start_us);
        if (rc != 0)
            die("tcp_connect", strerror(-rc));
    }
    while (!stopping && !probe->closed && now_us() < end_us) {
        uint64_t at_us = now_us();
        uint32_t frames = net_receive(net, at_us);
        tcp_poll(stack, 64, at_us);
        net_poll(net, at_us);
        if (frames == 0)
            usleep(20);
    }
    uint64_t took_us = now_us() - start_us;
    const struct tcp_counters *tcp = tcp_stack_counters(stack);
    const struct net_counters *counted = net_counters(net);
    printf("connected=%d\nclosed=%d\nerror=%s\nsent=%llu\nacknowledged=%llu\nreceived=%llu\nwrong=%llu\n", probe->connected, probe->closed,
           probe->closed ? tcp_error_text(probe->error) : "none", (unsigned long long)probe->sent_bytes,
           (unsigned long long)probe->acknowledged_bytes, (unsigned long long)probe->received_bytes,
           (unsigned long long)probe->wrong_bytes);
    printf("retransmits=%llu\necho_replies=%llu\nbad_tcp_checksum=%llu\narp_requests=%llu\nunreachable=%llu\nmicroseconds=%llu\n",
           (unsigned long long)(tcp->retransmits_fast + tcp->retransmits_timeout), (unsigned long long)counted->echo_replies,
           (unsigned long long)counted->bad_tcp_checksum, (unsigned long long)counted->arp_requests,
           (unsigned long long)counted->unreachable, (unsigned long long)took_us);
    tcp_stack_destroy(stack);
    printf("references=%u\n", probe->owner.references);
    net_destroy(net);
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
    return port_send(probe->queue, &frame);
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
    if (!port_checksum_good(probe->queue))
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
    while (!stopping && now_us() < end_us && (answered ? !probe->done : counter_get(&probe->counters.frames_out) < probe->frames_total)) {
        port_flush(probe->queue);
        port_receive(probe->queue, frame_input, probe);
    }
    printf("frames_out=%llu\nrefused=%llu\ndone=%d\nmicroseconds=%llu\nframes_per_second=%.0f\n",
           (unsigned long long)counter_get(&probe->counters.frames_out), (unsigned long long)refused, probe->done,
           (unsigned long long)took_us, (double)probe->frames_total * 1e6 / (double)(took_us + 1));
    return 0;
}

static int run_verify(struct probe *probe) {
    wait_for_link(probe);
    printf("ready=1\n");
    fflush(stdout);
    uint64_t first_us = 0, last_us = now_us() + 5000000u;
    while (!stopping && probe->frames_received < probe->frames_total && now_us() < last_us + (uint64_t)IDLE_S * 1000000u) {
        if (port_receive(probe->queue, frame_input, probe) > 0) {
            last_us = now_us();
            first_us = first_us == 0 ? last_us : first_us;
        }
    }
    for (int i = 0; i < DONE_FRAMES; i++) {
        frame_send(probe, FRAME_PORT_DONE, 0);
        port_flush(probe->queue);
        usleep(10000);
    }
    printf("frames_received=%llu\nframes_wrong=%llu\nframes_missing=%llu\nframes_per_second=%.0f\n",
           (unsigned long long)probe->frames_received, (unsigned long long)probe->frames_wrong, (unsigned long long)probe->frames_missing,
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
            "usage: port_probe --device D --mode copy|reference|auto --run answer|echo|blast|throw|verify [--address A/N] [--peer A]\n"
            "  [--peer-port N] [--bytes N] [--frames N] [--frame-bytes N] [--vlan N] [--seconds N] [--lcore N] [--prefix P] [--mtu N] "
            "[--wait]\n");
    exit(2);
}

int main(int argc, char **argv) {
    enum { DEVICE = 1, MODE, RUN, ADDRESS, PEER, PEER_PORT, BYTES, FRAMES, FRAME_BYTES, VLAN, SECONDS, LCORE, PREFIX, MTU, WAIT };
    static const struct option options[] = {
        {"device", 1, NULL, DEVICE},
        {"mode", 1, NULL, MODE},
        {"run", 1, NULL, RUN},
        {"address", 1, NULL, ADDRESS},
        {"peer", 1, NULL, PEER},
        {"peer-port", 1, NULL, PEER_PORT},
        {"bytes", 1, NULL, BYTES},
        {"frames", 1, NULL, FRAMES},
        {"frame-bytes", 1, NULL, FRAME_BYTES},
        {"vlan", 1, NULL, VLAN},
        {"seconds", 1, NULL, SECONDS},
        {"lcore", 1, NULL, LCORE},
        {"prefix", 1, NULL, PREFIX},
        {"mtu", 1, NULL, MTU},
        {"wait", 0, NULL, WAIT},
        {NULL, 0, NULL, 0},
    };
    struct probe *probe = calloc(1, sizeof *probe);
    if (probe == NULL)
        die("calloc", "no memory");
    const char *device = NULL, *run = "answer", *address = "10.99.0.2/24", *peer = NULL, *lcore = "0", *prefix = "port_probe";
    enum port_mode mode = PORT_MODE_AUTO;
    uint16_t peer_port = 7, vlan = 0, mtu = 1500;
    uint32_t seconds = 30;
    bool wait = false;
    probe->frame_bytes = 1400;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case DEVICE:
            device = optarg;
            break;
        case MODE:
            mode = strcmp(optarg, "copy") == 0 ? PORT_MODE_COPY : strcmp(optarg, "reference") == 0 ? PORT_MODE_REFERENCE : PORT_MODE_AUTO;
            break;
        case RUN:
            run = optarg;
            break;
        case ADDRESS:
            address = optarg;
            break;
        case PEER:
            peer = optarg;
            break;
        case PEER_PORT:
            peer_port = (uint16_t)atoi(optarg);
            break;
        case BYTES:
            probe->total_bytes = strtoull(optarg, NULL, 10);
            break;
        case FRAMES:
            probe->frames_total = strtoull(optarg, NULL, 10);
            break;
        case FRAME_BYTES:
            probe->frame_bytes = (uint32_t)atoi(optarg);
            break;
        case VLAN:
            vlan = (uint16_t)atoi(optarg);
            break;
        case SECONDS:
            seconds = (uint32_t)atoi(optarg);
            break;
        case LCORE:
            lcore = optarg;
            break;
        case PREFIX:
            prefix = optarg;
            break;
        case WAIT:
            wait = true;
            break;
        case MTU:
            mtu = (uint16_t)atoi(optarg);
            break;
        default:
            usage();
        }
    }
    if (device == NULL || probe->frame_bytes < FRAME_HEADERS + FRAME_NUMBER_BYTES || probe->frame_bytes > 1514)
        usage();
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* a vhost peer that has gone */
    start_eal(lcore, prefix);
    probe->owner.release = owner_released;
    probe->arena = rte_malloc("arena", ARENA_BYTES, 4096);
    if (probe->arena == NULL)
        die("rte_malloc", "no memory for the arena");
    for (uint64_t i = 0; i < ARENA_BYTES; i++)
        probe->arena[i] = pattern(i);
    char error[512] = "";
    if (port_open(&probe->port, device, mode, mtu, 1, error, sizeof error) != 0)
        die("port_open", error);
    probe->queue = port_queue_create(&probe->port, 0, 1, probe->arena, ARENA_BYTES, &probe->counters);
    if (probe->queue == NULL)
        die("port_queue_create", strerror(errno));
    printf("mode=%s\nchecksum_offload=%d\n", probe->port.mode == PORT_MODE_REFERENCE ? "reference" : "copy", probe->port.checksum_offload);
    fflush(stdout);
    int rc = 0;
    if (strcmp(run, "blast") == 0 || strcmp(run, "throw") == 0)
        rc = run_blast(probe, strcmp(run, "blast") == 0);
    else if (strcmp(run, "verify") == 0)
        rc = run_verify(probe);
    else
        rc = run_stack(probe, address, vlan, strcmp(run, "echo") == 0 ? peer : NULL, peer_port, seconds, wait);
    printf("frames_in=%llu\nframes_bad=%llu\nframes_refused=%llu\n", (unsigned long long)counter_get(&probe->counters.frames_in),
           (unsigned long long)counter_get(&probe->counters.frames_bad), (unsigned long long)counter_get(&probe->counters.frames_refused));
    port_queue_destroy(probe->queue);
    port_close(&probe->port);
    rte_free(probe->arena);
    rte_eal_cleanup();
    free(probe);
    return rc;
}
