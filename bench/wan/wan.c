/* wan.c: bypost-wan: receives from two ports, asks what becomes of each frame, and sends it at its time. */
#include "bench_eal.h"
#include "dataplane/port/port.h"
#include "impairment.h"
#include "options.h"
#include "packet.h"
#include "pending.h"
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum {
    SPIN_NS = 8000,     /* a shorter sleep ends too late */
    LATE_NS = 50000,    /* a release later than this is counted */
    RELEASE_BURST = 64, /* frames sent in one pass of a direction */
    ERROR_BUCKETS = 40, /* release errors by powers of the square root of two, from 1 us */
    DRAIN_NS_MAX = 1000000000,
    VLAN_BYTES = 4,
    SLOT_ALIGN = 64,
};

struct direction {
    struct wan *wan;
    struct impairment impairment;
    struct pending pending;
    struct port_queue *from, *to;
    struct direction *back;
    uint64_t frames_in, bytes_in, frames_out, bytes_out;
    uint64_t fates[IMPAIRMENT_FATES];
    uint64_t housekeeping, duplicated, corrupted, reordered, icmp_sent, fragments, no_memory;
    uint64_t first_in_ns, last_in_ns, first_out_ns, last_out_ns;
    /* How late frames left. */
    uint64_t released, late, error_sum_ns, error_max_ns, error_buckets[ERROR_BUCKETS];
};

struct wan {
    struct options options;
    struct port ports[OPTIONS_DIRECTIONS];
    struct port_queue *queues[OPTIONS_DIRECTIONS];
    struct counters counters[OPTIONS_DIRECTIONS];
    struct direction directions[OPTIONS_DIRECTIONS];
    uint8_t *scratch; /* a frame that is made here */
    uint32_t frame_bytes_max;
    uint64_t start_ns;
};

static volatile sig_atomic_t stopping, reporting;

static void on_stop(int number) {
    (void)number;
    stopping = (sig_atomic_t)(stopping + 1);
}

static void on_report(int number) {
    (void)number;
    reporting = 1;
}

static uint64_t now_ns(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * UINT64_C(1000000000) + (uint64_t)at.tv_nsec;
}

static void die(const char *what) {
    fprintf(stderr, "bypost-wan: %s\n", what);
    exit(1);
}

static uint8_t *direction_add(struct direction *direction, const uint8_t *frame, uint32_t length, uint64_t release_ns) {
    uint8_t *bytes = pending_add(&direction->pending, frame, length, release_ns);
    if (bytes == NULL)
        direction->no_memory++;
    return bytes;
}

static void answer_too_big(struct direction *direction, const struct packet *packet, const uint8_t *frame, uint64_t at_ns) {
    struct wan *wan = direction->wan;
    const struct impairment_config *config = &direction->impairment.config;
    if (!config->icmp)
        return;
    if (!packet->dont_fragment) {
        uint32_t offset = 0, length;
        uint64_t release_ns;
        while ((length = packet_fragment(packet, frame, config->mtu, &offset, wan->scratch)) > 0) {
            if (impairment_admit(&direction->impairment, length, at_ns, &release_ns) &&
                direction_add(direction, wan->scratch, length, release_ns) != NULL)
                direction->fragments++;
        }
        return;
    }
    const uint8_t *router = packet->family == 4 ? wan->options.router4 : wan->options.router6;
    uint32_t length = packet_too_big(packet, frame, config->mtu, router, wan->scratch);
    /* The router is where the limit is: its answer has the way back before it, and does not wait in that way's queue. */
    if (length > 0 && direction_add(direction->back, wan->scratch, length, at_ns + direction->back->impairment.config.delay_ns) != NULL)
        direction->icmp_sent++;
}

static void frame_input(void *context, const uint8_t *frame, uint32_t length) {
    struct direction *direction = context;
    uint64_t at_ns = now_ns();
    struct packet packet;
    struct impairment_verdict verdict;
    direction->frames_in++;
    direction->bytes_in += length;
    packet_read(&packet, frame, length);
    if (packet.housekeeping && !direction->wan->options.harm_all) {
        direction->housekeeping++;
        direction_add(direction, frame, length, at_ns);
        return;
    }
    direction->last_in_ns = at_ns;
    if (direction->first_in_ns == 0)
        direction->first_in_ns = at_ns;
    impairment_decide(&direction->impairment, &packet, length, at_ns, &verdict);
    direction->fates[verdict.fate]++;
    if (verdict.fate == IMPAIRMENT_TOO_BIG)
        answer_too_big(direction, &packet, frame, at_ns);
    if (verdict.copies == 0)
        return;
    direction->duplicated += verdict.copies > 1;
    direction->reordered += verdict.reordered;
    for (uint32_t copy = 0; copy < verdict.copies; copy++) {
        uint8_t *bytes = direction_add(direction, frame, length, verdict.release_ns[copy]);
        if (bytes != NULL && verdict.corrupt && copy == 0)
            direction->corrupted += packet_flip(&packet, bytes, direction->impairment.config.corrupt_part, verdict.bit);
    }
}

static void note_release(struct direction *direction, uint64_t error_ns) {
    uint32_t bucket = error_ns < 1000 ? 0 : (uint32_t)(2.0 * log2((double)error_ns / 1000.0)) + 1;
    direction->error_buckets[bucket < ERROR_BUCKETS ? bucket : ERROR_BUCKETS - 1]++;
    direction->released++;
    direction->late += error_ns > LATE_NS;
    direction->error_sum_ns += error_ns;
    if (error_ns > direction->error_max_ns)
        direction->error_max_ns = error_ns;
}

/* Sends what is due. Returns how many. */
static uint32_t direction_release(struct direction *direction, uint64_t at_ns) {
    uint32_t sent = 0;
    const struct pending_entry *entry;
    while (sent < RELEASE_BURST && (entry = pending_first(&direction->pending)) != NULL && entry->release_ns <= at_ns) {
        const uint8_t *bytes = pending_bytes(&direction->pending, entry);
        struct tcp_piece piece = {.bytes = bytes + PACKET_ETHERNET_BYTES, .length = entry->length - PACKET_ETHERNET_BYTES};
        struct frame frame = {.header = bytes,
                              .header_length = PACKET_ETHERNET_BYTES,
                              .l2_length = PACKET_ETHERNET_BYTES,
                              .piece_count = 1,
                              .payload_length = (uint16_t)piece.length,
                              .pieces = &piece};
        if (port_send(direction->to, &frame) != 0)
            break; /* the device is full: it waits where it is */
        note_release(direction, at_ns - entry->release_ns);
        direction->frames_out++;
        direction->bytes_out += entry->length;
        pending_remove_first(&direction->pending);
        sent++;
    }
    port_flush(direction->to);
    if (sent > 0) {
        direction->last_out_ns = at_ns;
        if (direction->first_out_ns == 0)
            direction->first_out_ns = at_ns;
    }
    return sent;
}

/* Upper edge of the bucket in which that share of the releases lies. */
static double error_us(const struct direction *direction, double share) {
    uint64_t sum = 0;
    for (uint32_t bucket = 0; bucket < ERROR_BUCKETS; bucket++) {
        sum += direction->error_buckets[bucket];
        if ((double)sum >= share * (double)direction->released)
            return exp2((double)bucket / 2.0);
    }
    return 0;
}

static void direction_report(FILE *out, const struct direction *direction, const struct counters *sent) {
    const struct impairment *impairment = &direction->impairment;
    double in_s = (double)(direction->last_in_ns - direction->first_in_ns) / 1e9;
    double out_s = (double)(direction->last_out_ns - direction->first_out_ns) / 1e9;
    fprintf(out, "{\"frames_in\": %" PRIu64 ", \"bytes_in\": %" PRIu64 ", \"frames_out\": %" PRIu64 ", \"bytes_out\": %" PRIu64 ",\n",
            direction->frames_in, direction->bytes_in, direction->frames_out, direction->bytes_out);
    fprintf(out, "  \"mbps_in\": %.3f, \"mbps_out\": %.3f,\n", in_s > 0 ? (double)direction->bytes_in * 8e-6 / in_s : 0,
            out_s > 0 ? (double)direction->bytes_out * 8e-6 / out_s : 0);
    fprintf(out,
            "  \"impaired\": %" PRIu64 ", \"housekeeping\": %" PRIu64 ", \"lost\": %" PRIu64 ", \"lost_burst\": %" PRIu64
            ", \"queue_full\": %" PRIu64 ", \"too_big\": %" PRIu64 ", \"no_memory\": %" PRIu64 ",\n",
            impairment->frames, direction->housekeeping, direction->fates[IMPAIRMENT_LOST], direction->fates[IMPAIRMENT_LOST_BURST],
            direction->fates[IMPAIRMENT_QUEUE_FULL], direction->fates[IMPAIRMENT_TOO_BIG], direction->no_memory);
    fprintf(out,
            "  \"icmp_sent\": %" PRIu64 ", \"fragments\": %" PRIu64 ", \"duplicated\": %" PRIu64 ", \"corrupted\": %" PRIu64
            ", \"reordered\": %" PRIu64 ",\n",
            direction->icmp_sent, direction->fragments, direction->duplicated, direction->corrupted, direction->reordered);
    fprintf(out,
            "  \"pending\": %u, \"pending_max\": %u, \"queue_bytes\": %" PRIu64 ", \"queue_bytes_max\": %" PRIu64 ", \"refused\": %" PRIu64
            ",\n",
            direction->pending.count, direction->pending.count_max, impairment->config.queue_bytes, impairment->queue_bytes_max,
            counter_get(&sent->frames_refused));
    fprintf(out,
            "  \"release_error_us\": {\"mean\": %.2f, \"p50\": %.1f, \"p99\": %.1f, \"max\": %.1f, \"late_share\": %.6f}, \"digest\": "
            "\"%016" PRIx64 "\"}",
            direction->released > 0 ? (double)direction->error_sum_ns / 1e3 / (double)direction->released : 0, error_us(direction, 0.5),
            error_us(direction, 0.99), (double)direction->error_max_ns / 1e3,
            direction->released > 0 ? (double)direction->late / (double)direction->released : 0, impairment->digest);
}

static void report(const struct wan *wan) {
    FILE *out = wan->options.stats != NULL ? fopen(wan->options.stats, "w") : stdout;
    if (out == NULL) {
        fprintf(stderr, "bypost-wan: %s: %s\n", wan->options.stats, strerror(errno));
        return;
    }
    fprintf(out, "{\"seed\": %" PRIu64 ", \"seconds\": %.3f,\n \"a_to_b\": ", wan->options.seed, (double)(now_ns() - wan->start_ns) / 1e9);
    direction_report(out, &wan->directions[0], &wan->counters[1]);
    fprintf(out, ",\n \"b_to_a\": ");
    direction_report(out, &wan->directions[1], &wan->counters[0]);
    fprintf(out, "}\n");
    if (out != stdout)
        fclose(out);
    else
        fflush(out);
}

static void wan_open(struct wan *wan) {
    char error[512];
    const struct options *options = &wan->options;
    wan->frame_bytes_max = PACKET_ETHERNET_BYTES + VLAN_BYTES + (uint32_t)options->port_mtu;
    uint32_t slot_bytes = (wan->frame_bytes_max + SLOT_ALIGN - 1) / SLOT_ALIGN * SLOT_ALIGN;
    wan->scratch = malloc(slot_bytes > PACKET_ICMP_BYTES_MAX ? slot_bytes : PACKET_ICMP_BYTES_MAX);
    if (wan->scratch == NULL)
        die("no memory");
    for (uint32_t i = 0; i < OPTIONS_DIRECTIONS; i++) {
        struct port_request request = {.device = options->devices[i], .mode = PORT_MODE_COPY, .mtu = options->port_mtu, .workers = 1};
        if (port_open(&wan->ports[i], &request, error, sizeof error) != 0)
            die(error);
        rte_eth_promiscuous_enable(wan->ports[i].id); /* the frames are for others; virtual devices that cannot switch receive all */
        wan->queues[i] = port_queue_create(&wan->ports[i], 0, 1, NULL, 0, &wan->counters[i]);
        if (wan->queues[i] == NULL)
            die("no memory for the frames of a port; give --memory more");
    }
    for (uint32_t i = 0; i < OPTIONS_DIRECTIONS; i++) {
        struct direction *direction = &wan->directions[i];
        direction->wan = wan;
        direction->from = wan->queues[i];
        direction->to = wan->queues[1 - i];
        direction->back = &wan->directions[1 - i];
        impairment_init(&direction->impairment, &options->directions[i], options->seed, i);
        if (pending_create(&direction->pending, options->pending_frames, slot_bytes) != 0)
            die("no memory for the frames under way; lower --pending");
    }
}

/* Until the next frame is due, or a little, because nothing tells when one comes. */
static void rest(const struct wan *wan, uint64_t at_ns) {
    uint64_t wait_ns = (uint64_t)wan->options.sleep_us * 1000;
    for (uint32_t i = 0; i < OPTIONS_DIRECTIONS; i++) {
        const struct pending_entry *entry = pending_first(&wan->directions[i].pending);
        if (entry != NULL && entry->release_ns < at_ns + wait_ns)
            wait_ns = entry->release_ns > at_ns ? entry->release_ns - at_ns : 0;
    }
    if (wait_ns < SPIN_NS)
        return;
    struct timespec time = {.tv_nsec = (long)(wait_ns - SPIN_NS / 2)};
    nanosleep(&time, NULL);
}

static void wan_run(struct wan *wan) {
    uint64_t end_ns = wan->options.seconds > 0 ? wan->start_ns + (uint64_t)(wan->options.seconds * 1e9) : UINT64_MAX;
    uint64_t drained_ns = 0;
    for (;;) {
        uint64_t at_ns = now_ns();
        uint32_t moved = 0;
        if (stopping > 1)
            return;
        if (stopping == 0 && at_ns < end_ns) {
            moved += port_receive(wan->directions[0].from, frame_input, &wan->directions[0]);
            moved += port_receive(wan->directions[1].from, frame_input, &wan->directions[1]);
        } else if (drained_ns == 0) {
            drained_ns = at_ns + DRAIN_NS_MAX;
            for (uint32_t i = 0; i < OPTIONS_DIRECTIONS; i++) /* the longest that a frame may still have to wait */
                drained_ns += wan->directions[i].impairment.config.delay_ns + wan->directions[i].impairment.config.jitter_ns +
                              wan->directions[i].impairment.config.reorder_ns;
            for (uint32_t i = 0; i < OPTIONS_DIRECTIONS; i++)
                if (wan->directions[i].impairment.link_free_ns > at_ns)
                    drained_ns += wan->directions[i].impairment.link_free_ns - at_ns;
        } else if ((wan->directions[0].pending.count == 0 && wan->directions[1].pending.count == 0) || at_ns > drained_ns) {
            return;
        }
        at_ns = now_ns();
        moved += direction_release(&wan->directions[0], at_ns);
        moved += direction_release(&wan->directions[1], at_ns);
        if (reporting) {
            reporting = 0;
            report(wan);
        }
        if (moved == 0 && !wan->options.poll)
            rest(wan, at_ns);
    }
}

static void handle(int number, void (*handler)(int)) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    sigaction(number, &action, NULL);
}

int main(int argc, char **argv) {
    char error[512];
    struct wan *wan = calloc(1, sizeof *wan);
    if (wan == NULL)
        die("no memory");
    if (options_parse(&wan->options, argc, argv, error, sizeof error) != 0) {
        fprintf(stderr, "bypost-wan: %s\n", error);
        free(wan);
        return 2;
    }
    if (wan->options.help) {
        options_usage(stdout);
        free(wan);
        return 0;
    }
    handle(SIGTERM, on_stop);
    handle(SIGINT, on_stop);
    handle(SIGUSR1, on_report);
    handle(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    bool pci = strncmp(wan->options.devices[0], "net_", 4) != 0 || strncmp(wan->options.devices[1], "net_", 4) != 0;
    if (bench_eal_start("bypost-wan", wan->options.lcore, wan->options.memory_mib, pci) != 0)
        die("DPDK did not start; its own message is above. Is --lcore a CPU of this machine, and --memory free?");
    wan_open(wan);
    wan->start_ns = now_ns();
    fprintf(stderr, "bypost-wan: ready\n");
    wan_run(wan);
    report(wan);
    for (uint32_t i = 0; i < OPTIONS_DIRECTIONS; i++) {
        pending_destroy(&wan->directions[i].pending);
        port_queue_destroy(wan->queues[i]);
    }
    for (uint32_t i = 0; i < OPTIONS_DIRECTIONS; i++)
        port_close(&wan->ports[i]);
    free(wan->scratch);
    free(wan);
    rte_eal_cleanup();
    return 0;
}
