/* options.c: the command line: each impairment applies to the directions named before it. */
#include "options.h"
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

enum {
    PENDING_FRAMES = 32768,
    PENDING_FRAMES_MAX = 4 << 20,
    PORT_MTU = 1500,
    MEMORY_MIB = 64,
    SLEEP_US = 50,
    SLEEP_US_MAX = 10000,
    QUEUE_BYTES_MIN = 10 * 1514, /* a queue given in bandwidth-delay products holds a few frames at least, as any router does */
    MTU_MIN = 68,                /* RFC 791 */
};

enum wan_option {
    OPTION_A = 1,
    OPTION_B,
    OPTION_BOTH,
    OPTION_A_TO_B,
    OPTION_B_TO_A,
    OPTION_LOSS,
    OPTION_BURST_LOSS,
    OPTION_DELAY,
    OPTION_JITTER,
    OPTION_JITTER_REORDERS,
    OPTION_REORDER,
    OPTION_DUPLICATE,
    OPTION_CORRUPT,
    OPTION_CORRUPT_PART,
    OPTION_RATE,
    OPTION_QUEUE,
    OPTION_MTU,
    OPTION_ICMP,
    OPTION_SEED,
    OPTION_PENDING,
    OPTION_PORT_MTU,
    OPTION_ROUTER4,
    OPTION_ROUTER6,
    OPTION_HARM_ALL,
    OPTION_IDLE,
    OPTION_SLEEP,
    OPTION_SECONDS,
    OPTION_LCORE,
    OPTION_STATS,
    OPTION_MEMORY,
    OPTION_HELP
};

void options_usage(FILE *out) {
    fputs("usage: bypost-wan --a DEVICE --b DEVICE [options]\n"
          "Forwards frames between two DPDK devices (net_af_packet0,iface=veth1; net_tap0,iface=tp0; net_vhost0,iface=/tmp/s; a PCI\n"
          "address) as a long, narrow or bad path would. SIGTERM lets what is under way arrive, prints JSON statistics and ends; SIGUSR1\n"
          "prints them. The same seed makes the same decisions for the same frames of a direction, in order.\n"
          "\n"
          "for which direction (the options after it; both at first):\n"
          "  --both | --a-to-b | --b-to-a\n"
          "a direction's path:\n"
          "  --loss PERCENT             lost at random\n"
          "  --burst-loss IN,OUT[,BAD[,GOOD]]  lost in bursts: percent of frames at which a burst begins and ends, and the loss\n"
          "                             within it (100) and outside (0)\n"
          "  --delay MS, --jitter MS    one way; the jitter is uniform and adds to the delay\n"
          "  --jitter-reorders          frames may overtake each other by jitter\n"
          "  --reorder PERCENT,MS       so many frames come so much later\n"
          "  --duplicate PERCENT\n"
          "  --corrupt PERCENT, --corrupt-part any|headers|payload   one bit flipped\n"
          "  --rate MBIT                a bottleneck\n"
          "  --queue BYTES|Nbdp         in front of it (1bdp: rate times the delays of both directions, 15,140 bytes at least)\n"
          "  --mtu BYTES, --icmp on|off larger IP packets are answered by a router (on), or vanish (off)\n"
          "all:\n"
          "  --seed N (1)  --seconds N  --idle poll|sleep  --sleep-us N (50)  --harm-all (ARP and Neighbour Discovery too)\n"
          "  --router4 ADDRESS (192.0.2.1)  --router6 ADDRESS (2001:db8::1)  what ICMP errors come from\n"
          "  --stats FILE  --pending FRAMES (32768)  --port-mtu BYTES (1500)  --lcore CPU  --memory MIB (64)\n",
          out);
}

static int refuse(char *error, size_t error_bytes, const char *name, const char *value, const char *wanted) {
    snprintf(error, error_bytes, "--%s %s: wants %s", name, value, wanted);
    return -EINVAL;
}

/* `count` numbers at most, between commas. Returns how many, or 0 when the text is anything else. */
static int numbers(const char *text, double *values, int count, double low, double high) {
    int got = 0;
    while (got < count) {
        char *end;
        double value = strtod(text, &end);
        if (end == text || !(value >= low && value <= high))
            return 0;
        values[got++] = value;
        if (*end == '\0')
            return got;
        if (*end != ',')
            return 0;
        text = end + 1;
    }
    return 0;
}

static int parse_queue(struct impairment_config *config, double *bdps, const char *text) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || !(value > 0 && value <= 1e10) || (*end != '\0' && strcmp(end, "bdp") != 0))
        return -EINVAL;
    *bdps = *end != '\0' ? value : 0;
    config->queue_bytes = *end != '\0' ? 0 : (uint64_t)value;
    return 0;
}

/* One option of a direction's path. 0, or what it wants instead. */
static const char *parse_path(struct impairment_config *config, double *bdps, enum wan_option option, const char *value) {
    double v[4] = {0, 0, 100, 0};
    switch (option) {
    case OPTION_LOSS:
        return numbers(value, &config->loss_percent, 1, 0, 100) == 1 ? NULL : "a percentage";
    case OPTION_BURST_LOSS:
        if (numbers(value, v, 4, 0, 100) < 2)
            return "percentages: IN,OUT[,BAD[,GOOD]]";
        config->bad_percent = v[0];
        config->good_percent = v[1];
        config->bad_loss_percent = v[2];
        config->good_loss_percent = v[3];
        return NULL;
    case OPTION_DELAY:
        if (numbers(value, v, 1, 0, 1e5) != 1)
            return "milliseconds";
        config->delay_ns = (uint64_t)(v[0] * 1e6);
        return NULL;
    case OPTION_JITTER:
        if (numbers(value, v, 1, 0, 1e5) != 1)
            return "milliseconds";
        config->jitter_ns = (uint64_t)(v[0] * 1e6);
        return NULL;
    case OPTION_JITTER_REORDERS:
        config->jitter_reorders = true;
        return NULL;
    case OPTION_REORDER:
        if (numbers(value, v, 2, 0, 1e5) != 2 || v[0] > 100)
            return "a percentage and milliseconds: PERCENT,MS";
        config->reorder_percent = v[0];
        config->reorder_ns = (uint64_t)(v[1] * 1e6);
        return NULL;
    case OPTION_DUPLICATE:
        return numbers(value, &config->duplicate_percent, 1, 0, 100) == 1 ? NULL : "a percentage";
    case OPTION_CORRUPT:
        return numbers(value, &config->corrupt_percent, 1, 0, 100) == 1 ? NULL : "a percentage";
    case OPTION_CORRUPT_PART:
        config->corrupt_part = strcmp(value, "headers") == 0 ? PACKET_HEADERS : strcmp(value, "payload") == 0 ? PACKET_PAYLOAD : PACKET_ANY;
        return config->corrupt_part != PACKET_ANY || strcmp(value, "any") == 0 ? NULL : "any, headers or payload";
    case OPTION_RATE:
        if (numbers(value, v, 1, 0.001, 1e6) != 1)
            return "megabits a second";
        config->rate_bits = (uint64_t)(v[0] * 1e6);
        return NULL;
    case OPTION_QUEUE:
        return parse_queue(config, bdps, value) == 0 ? NULL : "bytes, or bandwidth-delay products as in 1bdp";
    case OPTION_MTU:
        if (numbers(value, v, 1, MTU_MIN, 65535) != 1)
            return "bytes, from 68";
        config->mtu = (uint16_t)v[0];
        return NULL;
    case OPTION_ICMP:
        config->icmp = strcmp(value, "on") == 0;
        return config->icmp || strcmp(value, "off") == 0 ? NULL : "on or off";
    default:
        return "another name";
    }
}

static const char *parse_common(struct options *options, enum wan_option option, const char *value) {
    double number = 0;
    char *end;
    switch (option) {
    case OPTION_SEED:
        options->seed = strtoull(value, &end, 0);
        return end != value && *end == '\0' ? NULL : "a number";
    case OPTION_PENDING:
        if (numbers(value, &number, 1, 16, PENDING_FRAMES_MAX) != 1)
            return "a number of frames, 16 to 4194304";
        options->pending_frames = (uint32_t)number;
        return NULL;
    case OPTION_PORT_MTU:
        if (numbers(value, &number, 1, 576, 9216) != 1)
            return "bytes, 576 to 9216";
        options->port_mtu = (uint16_t)number;
        return NULL;
    case OPTION_MEMORY:
        if (numbers(value, &number, 1, 16, 65536) != 1)
            return "MiB, from 16";
        options->memory_mib = (uint32_t)number;
        return NULL;
    case OPTION_ROUTER4:
        return inet_pton(AF_INET, value, options->router4) == 1 ? NULL : "an IPv4 address";
    case OPTION_ROUTER6:
        return inet_pton(AF_INET6, value, options->router6) == 1 ? NULL : "an IPv6 address";
    case OPTION_IDLE:
        options->poll = strcmp(value, "poll") == 0;
        return options->poll || strcmp(value, "sleep") == 0 ? NULL : "poll or sleep";
    case OPTION_SLEEP:
        if (numbers(value, &number, 1, 1, SLEEP_US_MAX) != 1)
            return "microseconds, 1 to 10000";
        options->sleep_us = (uint32_t)number;
        return NULL;
    case OPTION_SECONDS:
        return numbers(value, &options->seconds, 1, 0, 1e6) == 1 ? NULL : "seconds";
    default:
        return "another name";
    }
}

static const struct option long_options[] = {
    {"a", 1, NULL, OPTION_A},
    {"b", 1, NULL, OPTION_B},
    {"both", 0, NULL, OPTION_BOTH},
    {"a-to-b", 0, NULL, OPTION_A_TO_B},
    {"b-to-a", 0, NULL, OPTION_B_TO_A},
    {"loss", 1, NULL, OPTION_LOSS},
    {"burst-loss", 1, NULL, OPTION_BURST_LOSS},
    {"delay", 1, NULL, OPTION_DELAY},
    {"jitter", 1, NULL, OPTION_JITTER},
    {"jitter-reorders", 0, NULL, OPTION_JITTER_REORDERS},
    {"reorder", 1, NULL, OPTION_REORDER},
    {"duplicate", 1, NULL, OPTION_DUPLICATE},
    {"corrupt", 1, NULL, OPTION_CORRUPT},
    {"corrupt-part", 1, NULL, OPTION_CORRUPT_PART},
    {"rate", 1, NULL, OPTION_RATE},
    {"queue", 1, NULL, OPTION_QUEUE},
    {"mtu", 1, NULL, OPTION_MTU},
    {"icmp", 1, NULL, OPTION_ICMP},
    {"seed", 1, NULL, OPTION_SEED},
    {"pending", 1, NULL, OPTION_PENDING},
    {"port-mtu", 1, NULL, OPTION_PORT_MTU},
    {"router4", 1, NULL, OPTION_ROUTER4},
    {"router6", 1, NULL, OPTION_ROUTER6},
    {"harm-all", 0, NULL, OPTION_HARM_ALL},
    {"idle", 1, NULL, OPTION_IDLE},
    {"sleep-us", 1, NULL, OPTION_SLEEP},
    {"seconds", 1, NULL, OPTION_SECONDS},
    {"lcore", 1, NULL, OPTION_LCORE},
    {"stats", 1, NULL, OPTION_STATS},
    {"memory", 1, NULL, OPTION_MEMORY},
    {"help", 0, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

/* A queue in bandwidth-delay products becomes bytes. */
static int finish(struct options *options, char *error, size_t error_bytes) {
    uint64_t round_trip_ns = options->directions[0].delay_ns + options->directions[1].delay_ns;
    for (uint32_t direction = 0; direction < OPTIONS_DIRECTIONS; direction++) {
        struct impairment_config *config = &options->directions[direction];
        if (config->rate_bits == 0 && (config->queue_bytes != 0 || options->queue_bdps[direction] > 0)) {
            snprintf(error, error_bytes, "--queue without --rate: a queue forms only in front of a bottleneck");
            return -EINVAL;
        }
        if (config->rate_bits != 0 && config->queue_bytes == 0) {
            double bdps = options->queue_bdps[direction] > 0 ? options->queue_bdps[direction] : 1;
            config->queue_bytes = (uint64_t)(bdps * (double)config->rate_bits / 8e9 * (double)round_trip_ns);
            config->queue_bytes = config->queue_bytes > QUEUE_BYTES_MIN ? config->queue_bytes : QUEUE_BYTES_MIN;
        }
    }
    if (options->devices[0] == NULL || options->devices[1] == NULL) {
        snprintf(error, error_bytes, "--a and --b name the two devices");
        return -EINVAL;
    }
    return 0;
}

int options_parse(struct options *options, int argc, char **argv, char *error, size_t error_bytes) {
    memset(options, 0, sizeof *options);
    options->seed = 1;
    options->pending_frames = PENDING_FRAMES;
    options->port_mtu = PORT_MTU;
    options->memory_mib = MEMORY_MIB;
    options->sleep_us = SLEEP_US;
    inet_pton(AF_INET, "192.0.2.1", options->router4);
    inet_pton(AF_INET6, "2001:db8::1", options->router6);
    bool chosen[OPTIONS_DIRECTIONS] = {true, true};
    optind = 0;
    opterr = 0;
    int index = -1;
    for (int option; (option = getopt_long(argc, argv, "", long_options, &index)) != -1; index = -1) {
        const char *wanted = NULL;
        switch (option) {
        case OPTION_A:
        case OPTION_B:
            options->devices[option == OPTION_B] = optarg;
            break;
        case OPTION_BOTH:
        case OPTION_A_TO_B:
        case OPTION_B_TO_A:
            chosen[0] = option != OPTION_B_TO_A;
            chosen[1] = option != OPTION_A_TO_B;
            break;
        case OPTION_HARM_ALL:
            options->harm_all = true;
            break;
        case OPTION_LCORE:
            options->lcore = optarg;
            break;
        case OPTION_STATS:
            options->stats = optarg;
            break;
        case OPTION_HELP:
            options->help = true;
            return 0;
        case '?':
            snprintf(error, error_bytes, "%s: no such option, or its value is missing; --help lists them", argv[optind - 1]);
            return -EINVAL;
        default:
            if (option >= OPTION_SEED)
                wanted = parse_common(options, (enum wan_option)option, optarg);
            for (uint32_t direction = 0; option < OPTION_SEED && direction < OPTIONS_DIRECTIONS && wanted == NULL; direction++)
                if (chosen[direction])
                    wanted = parse_path(&options->directions[direction], &options->queue_bdps[direction], (enum wan_option)option, optarg);
        }
        if (wanted != NULL)
            return refuse(error, error_bytes, long_options[index].name, optarg, wanted);
    }
    if (optind < argc) {
        snprintf(error, error_bytes, "%s: not an option; --help lists them", argv[optind]);
        return -EINVAL;
    }
    return finish(options, error, error_bytes);
}
