/* options.c: reads and checks the command line. */
#include "dataplane/options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int complain(const char *option, const char *value, const char *remedy) {
    fprintf(stderr, "bypost-dataplane: --%s '%s': %s\n", option, value, remedy);
    return -1;
}

static int parse_number(const char *option, const char *text, uint32_t low, uint32_t high, uint32_t *number) {
    char *end = NULL;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || value < low || value > high) {
        char remedy[96];
        snprintf(remedy, sizeof(remedy), "give a whole number from %u to %u.", low, high);
        return complain(option, text, remedy);
    }
    *number = (uint32_t)value;
    return 0;
}

/* "10.0.0.1" or "10.0.0.1/24", v4 or v6. */
static bool parse_address(const char *text, struct tcp_address *address, uint8_t *prefix_length) {
    char copy[64];
    if (strlen(text) >= sizeof(copy))
        return false;
    strcpy(copy, text);
    char *slash = strchr(copy, '/');
    if (slash != NULL)
        *slash = '\0';
    memset(address, 0, sizeof(*address));
    if (inet_pton(AF_INET, copy, address->bytes) == 1)
        address->family = 4;
    else if (inet_pton(AF_INET6, copy, address->bytes) == 1)
        address->family = 6;
    else
        return false;
    unsigned long bits = address->family == 4 ? 32 : 128;
    if (slash != NULL) {
        char *end = NULL;
        unsigned long given = strtoul(slash + 1, &end, 10);
        if (end == slash + 1 || *end != '\0' || given > bits)
            return false;
        bits = given;
    }
    if (prefix_length != NULL)
        *prefix_length = (uint8_t)bits;
    return true;
}

static int parse_port_field(struct port_options *port, char *field) {
    char *value = strchr(field, '=');
    if (value == NULL)
        return complain("port", field, "each part is KEY=VALUE, parts are separated by ';'.");
    *value++ = '\0';
    uint32_t number = 0;
    if (strcmp(field, "device") == 0) {
        if (value[0] == '\0' || strlen(value) >= sizeof(port->device))
            return complain("port device", value, "give a PCI address or a vdev of at most 255 bytes.");
        strcpy(port->device, value);
    } else if (strcmp(field, "mode") == 0) {
        if (strcmp(value, "auto") == 0)
            port->mode = PORT_MODE_AUTO;
        else if (strcmp(value, "copy") == 0)
            port->mode = PORT_MODE_COPY;
        else if (strcmp(value, "reference") == 0)
            port->mode = PORT_MODE_REFERENCE;
        else
            return complain("port mode", value, "use auto, copy or reference.");
    } else if (strcmp(field, "steering") == 0) {
        if (strcmp(value, "auto") == 0)
            port->steering = PORT_STEERING_AUTO;
        else if (strcmp(value, "toeplitz") == 0)
            port->steering = PORT_STEERING_TOEPLITZ;
        else if (strcmp(value, "ranges") == 0)
            port->steering = PORT_STEERING_RANGES;
        else
            return complain("port steering", value, "use auto, toeplitz or ranges.");
    } else if (strcmp(field, "mtu") == 0) {
        if (parse_number("port mtu", value, 576, 9216, &number) != 0)
            return -1;
        port->mtu = (uint16_t)number;
    } else if (strcmp(field, "vlan") == 0) {
        if (parse_number("port vlan", value, 0, 4094, &number) != 0)
            return -1;
        port->vlan = (uint16_t)number;
    } else if (strcmp(field, "address") == 0) {
        if (port->address_count == NET_ADDRESSES_MAX)
            return complain("port address", value, "a port has at most 64 addresses.");
        struct net_address *address = &port->addresses[port->address_count];
        if (!parse_address(value, &address->address, &address->prefix_length))
            return complain("port address", value, "write ADDRESS/PREFIX, as in 192.0.2.10/24.");
        port->address_count++;
    } else if (strcmp(field, "gateway") == 0) {
        struct tcp_address gateway;
        if (!parse_address(value, &gateway, NULL))
            return complain("port gateway", value, "write an address, as in 192.0.2.1.");
        *(gateway.family == 6 ? &port->gateway6 : &port->gateway) = gateway;
    } else {
        return complain("port", field, "known parts are device, mode, steering, mtu, vlan, address and gateway.");
    }
    return 0;
}

static int parse_port(struct options *options, const char *text) {
    if (options->port_count == PORTS_MAX)
        return complain("port", text, "at most 8 ports can be used.");
    struct port_options *port = &options->ports[options->port_count];
    memset(port, 0, sizeof(*port));
    port->mtu = 1500;
    char *copy = strdup(text), *rest = copy;
    int code = copy == NULL ? -1 : 0;
    for (char *field; code == 0 && (field = strsep(&rest, ";")) != NULL;)
        if (field[0] != '\0')
            code = parse_port_field(port, field);
    free(copy);
    if (code == 0 && port->device[0] == '\0')
        return complain("port", text, "device= is missing.");
    if (code == 0 && port->address_count == 0)
        return complain("port", text, "address= is missing: a port needs at least one address of its own.");
    options->port_count++;
    return code;
}

static int parse_lcores(struct options *options, const char *text) {
    char *copy = strdup(text), *rest = copy;
    int code = copy == NULL ? -1 : 0;
    uint32_t count = 0;
    for (char *field; code == 0 && (field = strsep(&rest, ",")) != NULL; count++) {
        if (count == JOURNAL_WORKERS_MAX)
            code = complain("lcores", text, "at most 64 workers can run.");
        else
            code = parse_number("lcores", field, 0, 1023, &options->lcores[count]);
        for (uint32_t i = 0; code == 0 && i < count; i++)
            if (options->lcores[i] == options->lcores[count])
                code = complain("lcores", text, "a core is named twice.");
    }
    free(copy);
    options->geometry.workers = count;
    return code;
}

static int parse_tcp_ports(struct options *options, const char *text) {
    unsigned first = 0, last = 0;
    char end = 0;
    if (sscanf(text, "%u-%u%c", &first, &last, &end) != 2 || first < 1024 || last > 65535 || first > last)
        return complain("tcp-ports", text, "write FIRST-LAST within 1024-65535.");
    options->port_first = (uint16_t)first;
    options->port_last = (uint16_t)last;
    return 0;
}

static int parse_identity(struct options *options, const char *text) {
    const char *colon = strrchr(text, ':');
    if (options->tls_identity_count == TLS_IDENTITIES_MAX)
        return complain("tls-identity", text, "at most 64 can be used.");
    if (colon == NULL || colon == text || colon[1] == '\0')
        return complain("tls-identity", text, "write CERTIFICATE:KEY, two PEM files.");
    char *file = strndup(text, (size_t)(colon - text)); /* for the life of the process */
    if (file == NULL)
        return -1;
    options->tls_identities[options->tls_identity_count++] = (struct tls_identity){.certificate_file = file, .key_file = colon + 1};
    return 0;
}

static void print_help(void) {
    puts("Usage: bypost-dataplane --journal PATH --socket PATH --lcores LIST --port 'device=...;address=...' [OPTIONS]\n"
         "The packet side of bypost. `bypost run` starts it with the options that follow from bypost.yaml.\n"
         "\n"
         "  --journal PATH          the journal shared with bypost-control\n"
         "  --socket PATH           Unix socket on which bypost-control connects\n"
         "  --shards N --slots N --paths N   the journal's geometry (1, 16384, 2048)\n"
         "  --lcores A[,B...]       cores, a worker each\n"
         "  --main-lcore N          core of the main thread (0)\n"
         "  --memory-mib N          EAL memory (512); --arena-mib N of it hold messages (128)\n"
         "  --hugepages on|off      (off)\n"
         "  --idle adaptive|poll    what a worker without work does (adaptive)\n"
         "  --max-sessions N        SMTP sessions of a worker at most (16384)\n"
         "  --tcp-ports A-B         local ports, all workers together (10000-65535)\n"
         "  --congestion cubic|newreno   congestion control (cubic)\n"
         "  --drain-timeout-ms N    how long SIGTERM waits for transactions in progress (30000)\n"
         "  --user NAME             user to become after set-up\n"
         "  --port SPEC             device=VDEV_OR_PCI;mode=auto|copy|reference;steering=auto|toeplitz|ranges;mtu=N;vlan=N;\n"
         "                          address=A/N[;address=...];gateway=A[;gateway=A6]\n"
         "  --tls-ca PATH           trusted certificates, a PEM file or a directory (the system's)\n"
         "  --tls-identity CERT:KEY a client certificate with its chain and its key, PEM files; may be repeated, paths name them from 1\n"
         "  --eal ARG               a further argument for DPDK's EAL\n"
         "  --help, --version");
}

enum {
    OPTION_JOURNAL = 1,
    OPTION_SOCKET,
    OPTION_SHARDS,
    OPTION_SLOTS,
    OPTION_PATHS,
    OPTION_LCORES,
    OPTION_MAIN_LCORE,
    OPTION_MEMORY,
    OPTION_ARENA,
    OPTION_HUGEPAGES,
    OPTION_IDLE,
    OPTION_SESSIONS,
    OPTION_TCP_PORTS,
    OPTION_CONGESTION,
    OPTION_DRAIN,
    OPTION_USER,
    OPTION_PORT,
    OPTION_TLS_CA,
    OPTION_TLS_IDENTITY,
    OPTION_EAL,
    OPTION_HELP,
    OPTION_VERSION
};

static const struct option long_options[] = {
    {"journal", required_argument, NULL, OPTION_JOURNAL},
    {"socket", required_argument, NULL, OPTION_SOCKET},
    {"shards", required_argument, NULL, OPTION_SHARDS},
    {"slots", required_argument, NULL, OPTION_SLOTS},
    {"paths", required_argument, NULL, OPTION_PATHS},
    {"lcores", required_argument, NULL, OPTION_LCORES},
    {"main-lcore", required_argument, NULL, OPTION_MAIN_LCORE},
    {"memory-mib", required_argument, NULL, OPTION_MEMORY},
    {"arena-mib", required_argument, NULL, OPTION_ARENA},
    {"hugepages", required_argument, NULL, OPTION_HUGEPAGES},
    {"idle", required_argument, NULL, OPTION_IDLE},
    {"max-sessions", required_argument, NULL, OPTION_SESSIONS},
    {"tcp-ports", required_argument, NULL, OPTION_TCP_PORTS},
    {"congestion", required_argument, NULL, OPTION_CONGESTION},
    {"drain-timeout-ms", required_argument, NULL, OPTION_DRAIN},
    {"user", required_argument, NULL, OPTION_USER},
    {"port", required_argument, NULL, OPTION_PORT},
    {"tls-ca", required_argument, NULL, OPTION_TLS_CA},
    {"tls-identity", required_argument, NULL, OPTION_TLS_IDENTITY},
    {"eal", required_argument, NULL, OPTION_EAL},
    {"help", no_argument, NULL, OPTION_HELP},
    {"version", no_argument, NULL, OPTION_VERSION},
    {NULL, 0, NULL, 0},
};

static int take_choice(const char *option, const char *value, const char *yes, const char *no, bool *flag) {
    *flag = strcmp(value, yes) == 0;
    if (*flag || strcmp(value, no) == 0)
        return 0;
    char remedy[64];
    snprintf(remedy, sizeof(remedy), "use %s or %s.", yes, no);
    return complain(option, value, remedy);
}

static int take(struct options *options, int option, const char *value) {
    switch (option) {
    case OPTION_JOURNAL:
        options->journal_path = value;
        return 0;
    case OPTION_SOCKET:
        options->socket_path = value;
        return 0;
    case OPTION_USER:
        options->user = value;
        return 0;
    case OPTION_SHARDS:
        return parse_number("shards", value, 1, JOURNAL_SHARDS_MAX, &options->geometry.shards);
    case OPTION_SLOTS:
        return parse_number("slots", value, 1, JOURNAL_SLOTS_MAX, &options->geometry.slots);
    case OPTION_PATHS:
        return parse_number("paths", value, 1, JOURNAL_PATHS_MAX, &options->geometry.paths);
    case OPTION_LCORES:
        return parse_lcores(options, value);
    case OPTION_MAIN_LCORE:
        return parse_number("main-lcore", value, 0, 1023, &options->main_lcore);
    case OPTION_MEMORY:
        return parse_number("memory-mib", value, 32, 1 << 20, &options->memory_mib);
    case OPTION_ARENA:
        return parse_number("arena-mib", value, 1, 1 << 20, &options->arena_mib);
    case OPTION_HUGEPAGES:
        return take_choice("hugepages", value, "on", "off", &options->hugepages);
    case OPTION_IDLE:
        return take_choice("idle", value, "poll", "adaptive", &options->poll);
    case OPTION_SESSIONS:
        return parse_number("max-sessions", value, 1, 4 << 20, &options->max_sessions);
    case OPTION_TCP_PORTS:
        return parse_tcp_ports(options, value);
    case OPTION_CONGESTION: {
        bool newreno = false;
        int code = take_choice("congestion", value, "newreno", "cubic", &newreno);
        options->congestion = newreno ? TCP_NEWRENO : TCP_CUBIC;
        return code;
    }
    case OPTION_DRAIN:
        return parse_number("drain-timeout-ms", value, 0, 3600 * 1000, &options->drain_timeout_ms);
    case OPTION_PORT:
        return parse_port(options, value);
    case OPTION_TLS_CA:
        options->tls_ca = value;
        return 0;
    case OPTION_TLS_IDENTITY:
        return parse_identity(options, value);
    case OPTION_EAL:
        if (options->eal_count == OPTIONS_EAL_MAX)
            return complain("eal", value, "at most 32 such arguments.");
        options->eal[options->eal_count++] = value;
        return 0;
    case OPTION_HELP:
        print_help();
        return 1;
    case OPTION_VERSION:
        puts("bypost-dataplane " BYPOST_VERSION);
        return 1;
    default:
        fprintf(stderr, "bypost-dataplane: --help shows the options.\n");
        return -1;
    }
}

static int demand(bool given, const char *option) {
    if (given)
        return 0;
    fprintf(stderr, "bypost-dataplane: --%s is missing; --help shows the options.\n", option);
    return -1;
}

int options_parse(struct options *options, int argc, char **argv) {
    memset(options, 0, sizeof(*options));
    options->geometry = (struct journal_geometry){.shards = 1, .slots = 16384, .paths = 2048};
    options->memory_mib = 512;
    options->arena_mib = 128;
    options->max_sessions = 16384;
    options->port_first = 10000;
    options->port_last = 65535;
    options->drain_timeout_ms = 30000;
    for (int option; (option = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        int code = take(options, option, optarg);
        if (code != 0)
            return code;
    }
    if (optind < argc) {
        fprintf(stderr, "bypost-dataplane: '%s' is not an option; --help shows them.\n", argv[optind]);
        return -1;
    }
    if (demand(options->journal_path != NULL, "journal") != 0 || demand(options->socket_path != NULL, "socket") != 0 ||
        demand(options->geometry.workers != 0, "lcores") != 0 || demand(options->port_count != 0, "port") != 0)
        return -1;
    if (options->arena_mib + 16 > options->memory_mib) {
        fprintf(stderr, "bypost-dataplane: --arena-mib %u does not fit in --memory-mib %u with 16 MiB to spare.\n", options->arena_mib,
                options->memory_mib);
        return -1;
    }
    uint32_t span = (uint32_t)(options->port_last - options->port_first + 1) / options->geometry.workers;
    if (span == 0)
        return complain("tcp-ports", "the range", "needs at least one port for each worker.");
    return 0;
}
