/* options.c: reads and checks bypost-sink's command line. */
#include "options.h"

#include "address.h"
#include "command.h"
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int complain(const char *option, const char *value, const char *remedy) {
    fprintf(stderr, "bypost-sink: --%s '%s': %s\n", option, value, remedy);
    return -1;
}

static int take_number(const char *option, const char *text, uint64_t low, uint64_t high, uint64_t *number) {
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || value < low || value > high) {
        char remedy[128];
        snprintf(remedy, sizeof(remedy), "give a whole number from %llu to %llu.", (unsigned long long)low, (unsigned long long)high);
        return complain(option, text, remedy);
    }
    *number = value;
    return 0;
}

static int take_number32(const char *option, const char *text, uint32_t low, uint32_t high, uint32_t *number) {
    uint64_t value = 0;
    if (take_number(option, text, low, high, &value) != 0)
        return -1;
    *number = (uint32_t)value;
    return 0;
}

static int take_list(const char *option, const char *text, uint32_t low, uint32_t high, uint32_t *numbers, uint32_t max, uint32_t *count) {
    char *copy = strdup(text), *rest = copy;
    int code = copy == NULL ? -1 : 0;
    for (char *field; code == 0 && (field = strsep(&rest, ",")) != NULL; (*count)++)
        code = *count == max ? complain(option, text, "there are too many.") : take_number32(option, field, low, high, &numbers[*count]);
    free(copy);
    return code;
}

static int take_listen(const char *option, const char *text, uint16_t *listen, uint32_t *listen_count) {
    uint32_t ports[SINK_LISTEN_MAX], count = 0;
    int code = take_list(option, text, 1, 65535, ports, SINK_LISTEN_MAX, &count);
    for (uint32_t i = 0; code == 0 && i < count; i++) {
        if (*listen_count == SINK_LISTEN_MAX)
            return complain(option, text, "at most 64 ports can be listened on.");
        listen[(*listen_count)++] = (uint16_t)ports[i];
    }
    return code;
}

/* NAME:FILE, whose first line is the secret. */
static int take_user(struct sink_options *options, const char *text) {
    const char *colon = strrchr(text, ':');
    if (colon == NULL || colon == text)
        return complain("user", text, "write NAME:PASSWORD-FILE.");
    if (options->users.count == AUTH_USERS_MAX)
        return complain("user", text, "there are too many.");
    char secret[AUTH_SECRET_BYTES_MAX + 2] = "";
    FILE *file = fopen(colon + 1, "re");
    bool got = file != NULL && fgets(secret, sizeof(secret), file) != NULL;
    if (file != NULL)
        fclose(file);
    secret[strcspn(secret, "\r\n")] = '\0';
    if (!got || secret[0] == '\0' || strlen(secret) > AUTH_SECRET_BYTES_MAX)
        return complain("user", text, "the file must be readable, its first line the password, of at most 2,048 bytes.");
    struct auth_user *user = &options->users.users[options->users.count++];
    user->name = strndup(text, (size_t)(colon - text));
    user->secret = strdup(secret);
    options->extensions |= EXTENSION_AUTH;
    return user->name == NULL || user->secret == NULL ? -1 : 0;
}

static int take_mechanisms(struct sink_options *options, const char *text) {
    options->mechanisms = 0;
    for (const char *at = text; *at != '\0'; at += strcspn(at, ","), at += *at == ',') {
        const char *rest;
        enum auth_mechanism mechanism = auth_mechanism_find(at, strcspn(at, ","), &rest);
        if (mechanism == AUTH_MECHANISMS || rest != NULL)
            return complain("auth", text, "use PLAIN, LOGIN, CRAM-MD5, XOAUTH2 and OAUTHBEARER, with commas between.");
        options->mechanisms |= (uint8_t)(1 << mechanism);
    }
    return 0;
}

static int take_choice(const char *option, const char *value, const char *const *choices, unsigned count) {
    char remedy[128] = "use one of";
    for (unsigned i = 0; i < count; i++) {
        if (strcmp(value, choices[i]) == 0)
            return (int)i;
        snprintf(remedy + strlen(remedy), sizeof(remedy) - strlen(remedy), " %s", choices[i]);
    }
    complain(option, value, remedy);
    return -1;
}

static int take_rule(struct sink_options *options, const char *option, const char *line) {
    char where[64], error[512];
    snprintf(where, sizeof(where), "--%s", option);
    if (script_add(&options->script, line, where, error, sizeof(error)) == 0)
        return 0;
    fprintf(stderr, "bypost-sink: %s\n", error);
    return -1;
}

/* A rule with one value in it. */
static int take_short_rule(struct sink_options *options, const char *option, const char *format, const char *value) {
    char line[SCRIPT_LINE_BYTES_MAX];
    if (strlen(value) > 64 || strpbrk(value, " \t") != NULL)
        return complain(option, value, "give a number; --rule takes whole rules.");
    snprintf(line, sizeof(line), format, value);
    return take_rule(options, option, line);
}

static void print_help(void) {
    puts("Usage: bypost-sink --device VDEV_OR_PCI --address A/P [OPTIONS]\n"
         "An SMTP server on bypost's own TCP: takes mail, throws it away, and counts. bench/sink/README.md explains.\n"
         "\n"
         "  --device SPEC          net_vhost0,iface=PATH or any other DPDK device\n"
         "  --address A/P          an address; NETWORK/P: all its hosts; A-B/P: a range. May be repeated\n"
         "  --gateway A            next hop for what is not on the link, IPv4 and IPv6\n"
         "  --vlan N --mtu N       (none, 1500)\n"
         "  --listen PORT[,...]    (25)\n"
         "  --lcores A[,B...]      cores, a worker each (0); --main-lcore N (0)\n"
         "  --queues N             queue pairs of the device (one a worker); one worker serves them all\n"
         "  --steering toeplitz|none   which queue a segment leaves on: as a NIC at the other end would hash, or the one it came on "
         "(toeplitz)\n"
         "  --memory-mib N         EAL memory (256); --hugepages on|off (off)\n"
         "  --idle adaptive|poll   what a worker without work does (adaptive)\n"
         "  --sessions N           at a time, of a worker (65536); --transactions N (65536)\n"
         "  --messages N           Message-IDs to be told apart (4194304)\n"
         "  --receive-buffer N     bytes of TCP window (65536); --keepalive S: silent clients are probed (0: never)\n"
         "  --half-open N          handshakes at a time (65536); --time-wait N\n"
         "  --name NAME            in banner and EHLO (sink.test)\n"
         "  --size N               SIZE, bytes (52428800); --recipients N of a transaction (1000)\n"
         "  --no-pipelining --no-chunking --no-8bitmime --no-size --no-enhancedstatuscodes --no-smtputf8\n"
         "  --dsn --requiretls     offered too (RFC 3461, 8689); --limits: RCPTMAX=--recipients and MAILMAX=--mails (RFC 9422)\n"
         "  --mails N              transactions of a connection, 452 after (0: any number)\n"
         "  --tls-certificate FILE --tls-key FILE   PEM: STARTTLS is offered\n"
         "  --tls-test-ca DIR      makes a CA (DIR/ca.pem) and a certificate for --name and the addresses with `openssl`\n"
         "  --tls-names A[,B...]   further names in it; --tls-rsa: RSA-2048 in the place of ECDSA P-256\n"
         "  --tls-port PORT[,...]  listens there with TLS from the first byte; --no-starttls: only there\n"
         "  --tls-version-max 12|13 (13); --no-resumption: every handshake is a full one\n"
         "  --require-tls          before MAIL\n"
         "  --user NAME:FILE       AUTH is offered; the file's first line is the password, and the token. May be repeated\n"
         "  --auth PLAIN[,...]     of PLAIN, LOGIN, CRAM-MD5, XOAUTH2, OAUTHBEARER (all); --require-auth: before MAIL\n"
         "  --script FILE          what else it does than accept; --rule 'RULE': one line of it; --seed N (1)\n"
         "  --refuse PERCENT       recipients refused with 550\n"
         "  --defer PERCENT        recipients deferred once with 451\n"
         "  --drop PERCENT         messages whose final reply is a reset\n"
         "  --delay MS             before each final reply\n"
         "  --slow BYTES           read so many a second\n"
         "  --stats FILE           JSON, written at SIGUSR1, at the end and --interval S (0: not)\n"
         "  --record FILE          a line for each recipient of a message that was taken: MESSAGE-ID RECIPIENT\n"
         "  --eal ARG              a further argument for DPDK's EAL\n"
         "  --help, --version");
}

enum {
    OPTION_DEVICE = 256,
    OPTION_ADDRESS,
    OPTION_GATEWAY,
    OPTION_VLAN,
    OPTION_MTU,
    OPTION_LISTEN,
    OPTION_LCORES,
    OPTION_MAIN_LCORE,
    OPTION_QUEUES,
    OPTION_STEERING,
    OPTION_MEMORY,
    OPTION_HUGEPAGES,
    OPTION_IDLE,
    OPTION_SESSIONS,
    OPTION_TRANSACTIONS,
    OPTION_MESSAGES,
    OPTION_RECEIVE_BUFFER,
    OPTION_KEEPALIVE,
    OPTION_HALF_OPEN,
    OPTION_TIME_WAIT,
    OPTION_NAME,
    OPTION_SIZE,
    OPTION_RECIPIENTS,
    OPTION_SCRIPT,
    OPTION_RULE,
    OPTION_SEED,
    OPTION_REFUSE,
    OPTION_DEFER,
    OPTION_DROP,
    OPTION_DELAY,
    OPTION_SLOW,
    OPTION_STATS,
    OPTION_INTERVAL,
    OPTION_RECORD,
    OPTION_EAL,
    OPTION_MAILS,
    OPTION_TLS_CERTIFICATE,
    OPTION_TLS_KEY,
    OPTION_TLS_TEST_CA,
    OPTION_TLS_NAMES,
    OPTION_TLS_RSA,
    OPTION_TLS_PORT,
    OPTION_NO_STARTTLS,
    OPTION_VERSION_MAX,
    OPTION_NO_RESUMPTION,
    OPTION_REQUIRE_TLS,
    OPTION_USER,
    OPTION_AUTH,
    OPTION_REQUIRE_AUTH,
    OPTION_HELP,
    OPTION_VERSION,
    OPTION_WITHOUT = 512, /* and an extension's bit */
    OPTION_WITH = 4096,   /* the same */
};

static const struct option long_options[] = {
    {"device", required_argument, NULL, OPTION_DEVICE},
    {"address", required_argument, NULL, OPTION_ADDRESS},
    {"gateway", required_argument, NULL, OPTION_GATEWAY},
    {"vlan", required_argument, NULL, OPTION_VLAN},
    {"mtu", required_argument, NULL, OPTION_MTU},
    {"listen", required_argument, NULL, OPTION_LISTEN},
    {"lcores", required_argument, NULL, OPTION_LCORES},
    {"main-lcore", required_argument, NULL, OPTION_MAIN_LCORE},
    {"queues", required_argument, NULL, OPTION_QUEUES},
    {"steering", required_argument, NULL, OPTION_STEERING},
    {"memory-mib", required_argument, NULL, OPTION_MEMORY},
    {"hugepages", required_argument, NULL, OPTION_HUGEPAGES},
    {"idle", required_argument, NULL, OPTION_IDLE},
    {"sessions", required_argument, NULL, OPTION_SESSIONS},
    {"transactions", required_argument, NULL, OPTION_TRANSACTIONS},
    {"messages", required_argument, NULL, OPTION_MESSAGES},
    {"receive-buffer", required_argument, NULL, OPTION_RECEIVE_BUFFER},
    {"keepalive", required_argument, NULL, OPTION_KEEPALIVE},
    {"half-open", required_argument, NULL, OPTION_HALF_OPEN},
    {"time-wait", required_argument, NULL, OPTION_TIME_WAIT},
    {"name", required_argument, NULL, OPTION_NAME},
    {"size", required_argument, NULL, OPTION_SIZE},
    {"recipients", required_argument, NULL, OPTION_RECIPIENTS},
    {"script", required_argument, NULL, OPTION_SCRIPT},
    {"rule", required_argument, NULL, OPTION_RULE},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"refuse", required_argument, NULL, OPTION_REFUSE},
    {"defer", required_argument, NULL, OPTION_DEFER},
    {"drop", required_argument, NULL, OPTION_DROP},
    {"delay", required_argument, NULL, OPTION_DELAY},
    {"slow", required_argument, NULL, OPTION_SLOW},
    {"stats", required_argument, NULL, OPTION_STATS},
    {"interval", required_argument, NULL, OPTION_INTERVAL},
    {"record", required_argument, NULL, OPTION_RECORD},
    {"eal", required_argument, NULL, OPTION_EAL},
    {"mails", required_argument, NULL, OPTION_MAILS},
    {"tls-certificate", required_argument, NULL, OPTION_TLS_CERTIFICATE},
    {"tls-key", required_argument, NULL, OPTION_TLS_KEY},
    {"tls-test-ca", required_argument, NULL, OPTION_TLS_TEST_CA},
    {"tls-names", required_argument, NULL, OPTION_TLS_NAMES},
    {"tls-rsa", no_argument, NULL, OPTION_TLS_RSA},
    {"tls-port", required_argument, NULL, OPTION_TLS_PORT},
    {"no-starttls", no_argument, NULL, OPTION_NO_STARTTLS},
    {"tls-version-max", required_argument, NULL, OPTION_VERSION_MAX},
    {"no-resumption", no_argument, NULL, OPTION_NO_RESUMPTION},
    {"require-tls", no_argument, NULL, OPTION_REQUIRE_TLS},
    {"user", required_argument, NULL, OPTION_USER},
    {"auth", required_argument, NULL, OPTION_AUTH},
    {"require-auth", no_argument, NULL, OPTION_REQUIRE_AUTH},
    {"dsn", no_argument, NULL, OPTION_WITH + EXTENSION_DSN},
    {"limits", no_argument, NULL, OPTION_WITH + EXTENSION_LIMITS},
    {"requiretls", no_argument, NULL, OPTION_WITH + EXTENSION_REQUIRETLS},
    {"help", no_argument, NULL, OPTION_HELP},
    {"version", no_argument, NULL, OPTION_VERSION},
    {"no-pipelining", no_argument, NULL, OPTION_WITHOUT + EXTENSION_PIPELINING},
    {"no-chunking", no_argument, NULL, OPTION_WITHOUT + EXTENSION_CHUNKING},
    {"no-8bitmime", no_argument, NULL, OPTION_WITHOUT + EXTENSION_8BITMIME},
    {"no-size", no_argument, NULL, OPTION_WITHOUT + EXTENSION_SIZE},
    {"no-enhancedstatuscodes", no_argument, NULL, OPTION_WITHOUT + EXTENSION_ENHANCEDSTATUSCODES},
    {"no-smtputf8", no_argument, NULL, OPTION_WITHOUT + EXTENSION_SMTPUTF8},
    {NULL, 0, NULL, 0},
};

static int take_address(struct port_options *port, const char *value) {
    char error[256];
    if (address_take(port->addresses, NET_ADDRESSES_MAX, &port->address_count, value, error, sizeof(error)) == 0)
        return 0;
    return complain("address", value, error);
}

static int take_gateway(struct sink_options *options, const char *value) {
    struct tcp_address address;
    if (!address_read(value, &address))
        return complain("gateway", value, "write an address, as in 192.0.2.1.");
    if (address.family == 4)
        options->dataplane.ports[0].gateway = address;
    else
        options->gateway6 = address;
    return 0;
}

static int take_device(struct sink_options *options, const char *value) {
    struct port_options *port = &options->dataplane.ports[0];
    if (value[0] == '\0' || strlen(value) >= sizeof(port->device))
        return complain("device", value, "give a PCI address or a vdev of at most 255 bytes.");
    strcpy(port->device, value);
    return 0;
}

/* Where the wire and the machine are. 1: not one of these. */
static int take_machine(struct sink_options *options, int option, const char *value) {
    static const char *const yes_no[] = {"off", "on"}, *const idle[] = {"adaptive", "poll"}, *const steering[] = {"toeplitz", "none"};
    struct options *dataplane = &options->dataplane;
    struct port_options *port = &dataplane->ports[0];
    uint32_t number = 0;
    int code;
    switch (option) {
    case OPTION_DEVICE:
        return take_device(options, value);
    case OPTION_ADDRESS:
        return take_address(port, value);
    case OPTION_GATEWAY:
        return take_gateway(options, value);
    case OPTION_VLAN:
        code = take_number32("vlan", value, 0, 4094, &number);
        port->vlan = (uint16_t)number;
        return code;
    case OPTION_MTU:
        code = take_number32("mtu", value, 576, 9216, &number);
        port->mtu = (uint16_t)number;
        return code;
    case OPTION_LCORES:
        dataplane->geometry.workers = 0;
        return take_list("lcores", value, 0, 1023, dataplane->lcores, SINK_QUEUES_MAX, &dataplane->geometry.workers);
    case OPTION_MAIN_LCORE:
        return take_number32("main-lcore", value, 0, 1023, &dataplane->main_lcore);
    case OPTION_QUEUES:
        return take_number32("queues", value, 1, SINK_QUEUES_MAX, &options->queues);
    case OPTION_STEERING:
        code = take_choice("steering", value, steering, 2);
        options->steering = code == 1 ? PORT_STEERING_RANGES : PORT_STEERING_TOEPLITZ;
        return code < 0 ? -1 : 0;
    case OPTION_MEMORY:
        return take_number32("memory-mib", value, 32, 1 << 20, &dataplane->memory_mib);
    case OPTION_HUGEPAGES:
        code = take_choice("hugepages", value, yes_no, 2);
        dataplane->hugepages = code == 1;
        return code < 0 ? -1 : 0;
    case OPTION_IDLE:
        code = take_choice("idle", value, idle, 2);
        dataplane->poll = code == 1;
        return code < 0 ? -1 : 0;
    case OPTION_EAL:
        if (dataplane->eal_count == OPTIONS_EAL_MAX)
            return complain("eal", value, "at most 32 such arguments.");
        dataplane->eal[dataplane->eal_count++] = value;
        return 0;
    default:
        return 1;
    }
}

/* What the script says. 1: not one of these. */
static int take_script(struct sink_options *options, int option, const char *value) {
    char error[512];
    switch (option) {
    case OPTION_SCRIPT:
        if (script_read(&options->script, value, error, sizeof(error)) == 0)
            return 0;
        fprintf(stderr, "bypost-sink: %s\n", error);
        return -1;
    case OPTION_RULE:
        return take_rule(options, "rule", value);
    case OPTION_SEED:
        return take_number("seed", value, 0, UINT64_MAX, &options->script.seed);
    case OPTION_REFUSE:
        return take_short_rule(options, "refuse", "refuse rcpt share=%s", value);
    case OPTION_DEFER:
        return take_short_rule(options, "defer", "defer rcpt attempts=1 share=%s", value);
    case OPTION_DROP:
        return take_short_rule(options, "drop", "drop final share=%s", value);
    case OPTION_DELAY:
        return take_short_rule(options, "delay", "delay final ms=%s", value);
    case OPTION_SLOW:
        return take_short_rule(options, "slow", "slow connect bytes=%s", value);
    default:
        return 1;
    }
}

/* TLS and AUTH. 1: not one of these. */
static int take_security(struct sink_options *options, int option, const char *value) {
    switch (option) {
    case OPTION_TLS_CERTIFICATE:
        options->tls_certificate = value;
        return 0;
    case OPTION_TLS_KEY:
        options->tls_key = value;
        return 0;
    case OPTION_TLS_TEST_CA:
        options->tls_test_ca = value;
        return 0;
    case OPTION_TLS_NAMES:
        if (strpbrk(value, " \t\r\n:") != NULL)
            return complain("tls-names", value, "give host names with commas between.");
        options->tls_names = value;
        return 0;
    case OPTION_TLS_RSA:
        options->tls_rsa = true;
        return 0;
    case OPTION_TLS_PORT:
        return take_listen("tls-port", value, options->tls_listen, &options->tls_count);
    case OPTION_NO_STARTTLS:
        options->tls_no_starttls = true;
        return 0;
    case OPTION_VERSION_MAX:
        return take_number32("tls-version-max", value, 12, 13, &options->tls_version_max);
    case OPTION_NO_RESUMPTION:
        options->tls_no_resumption = true;
        return 0;
    case OPTION_REQUIRE_TLS:
        options->require_tls = true;
        return 0;
    case OPTION_USER:
        return take_user(options, value);
    case OPTION_AUTH:
        return take_mechanisms(options, value);
    case OPTION_REQUIRE_AUTH:
        options->require_auth = true;
        return 0;
    default:
        return 1;
    }
}

static int take(struct sink_options *options, int option, const char *value) {
    switch (option) {
    case OPTION_LISTEN:
        return take_listen("listen", value, options->listen, &options->listen_count);
    case OPTION_MAILS:
        return take_number32("mails", value, 0, 1 << 30, &options->mails_max);
    case OPTION_SESSIONS:
        return take_number32("sessions", value, 1, 8 << 20, &options->dataplane.max_sessions);
    case OPTION_TRANSACTIONS:
        return take_number32("transactions", value, 1, 8 << 20, &options->transactions);
    case OPTION_MESSAGES:
        return take_number("messages", value, 1, (uint64_t)1 << 32, &options->messages);
    case OPTION_RECEIVE_BUFFER:
        return take_number32("receive-buffer", value, 4096, 1 << 30, &options->receive_buffer_bytes);
    case OPTION_KEEPALIVE:
        return take_number32("keepalive", value, 0, 86400, &options->keepalive_s);
    case OPTION_HALF_OPEN:
        return take_number32("half-open", value, 1, 8 << 20, &options->half_open);
    case OPTION_TIME_WAIT:
        return take_number32("time-wait", value, 1, 64 << 20, &options->time_wait);
    case OPTION_NAME:
        if (value[0] == '\0' || strlen(value) > 255 || strpbrk(value, " \t\r\n") != NULL)
            return complain("name", value, "give a host name.");
        options->name = value;
        return 0;
    case OPTION_SIZE:
        return take_number("size", value, 0, (uint64_t)1 << 40, &options->size_max);
    case OPTION_RECIPIENTS:
        return take_number32("recipients", value, 1, 1 << 20, &options->recipients_max);
    case OPTION_STATS:
        options->stats_path = value;
        return 0;
    case OPTION_INTERVAL:
        return take_number32("interval", value, 0, 86400, &options->interval_s);
    case OPTION_RECORD:
        options->record_path = value;
        return 0;
    case OPTION_HELP:
        print_help();
        return 1;
    case OPTION_VERSION:
        puts("bypost-sink " BYPOST_VERSION);
        return 1;
    default:
        break;
    }
    if (option >= OPTION_WITH) {
        options->extensions |= (uint16_t)(option - OPTION_WITH);
        return 0;
    }
    if (option >= OPTION_WITHOUT) {
        options->extensions &= (uint16_t) ~(option - OPTION_WITHOUT);
        return 0;
    }
    int code = take_machine(options, option, value);
    if (code == 1)
        code = take_security(options, option, value);
    if (code == 1)
        code = take_script(options, option, value);
    if (code == 1)
        fprintf(stderr, "bypost-sink: --help shows the options.\n");
    return code == 1 ? -1 : code;
}

static void set_defaults(struct sink_options *options) {
    memset(options, 0, sizeof(*options));
    struct options *dataplane = &options->dataplane;
    dataplane->geometry.workers = 1;
    dataplane->memory_mib = 256;
    dataplane->arena_mib = 1; /* replies are short, and copied */
    dataplane->max_sessions = 65536;
    dataplane->port_count = 1;
    dataplane->ports[0].mtu = 1500;
    options->steering = PORT_STEERING_TOEPLITZ;
    options->name = "sink.test";
    options->extensions = EXTENSION_ALL;
    options->size_max = 50 << 20;
    options->messages = 4 << 20;
    options->recipients_max = 1000;
    options->transactions = 65536;
    options->receive_buffer_bytes = 65536;
    options->half_open = 65536;
    options->mechanisms = (1 << AUTH_MECHANISMS) - 1;
    options->script.seed = 1;
}

bool sink_options_tls(const struct sink_options *options) {
    return options->tls_certificate != NULL || options->tls_test_ca != NULL;
}

/* What belongs together. */
static int check_security(struct sink_options *options) {
    bool tls = sink_options_tls(options);
    const char *flaw = NULL;
    if ((options->tls_certificate == NULL) != (options->tls_key == NULL))
        flaw = "--tls-certificate and --tls-key go together.";
    else if (options->tls_certificate != NULL && options->tls_test_ca != NULL)
        flaw = "--tls-test-ca makes a certificate: leave --tls-certificate out.";
    else if (!tls && (options->tls_count > 0 || options->require_tls || (options->extensions & EXTENSION_REQUIRETLS) != 0))
        flaw = "--tls-port, --require-tls and --requiretls want a certificate: --tls-test-ca DIR makes one.";
    else if (options->require_auth && options->users.count == 0)
        flaw = "--require-auth wants a --user.";
    else if (options->listen_count + options->tls_count > SINK_LISTEN_MAX)
        flaw = "at most 64 ports can be listened on.";
    if (flaw != NULL) {
        fprintf(stderr, "bypost-sink: %s\n", flaw);
        return -1;
    }
    if (tls && !options->tls_no_starttls)
        options->extensions |= EXTENSION_STARTTLS;
    options->plain_count = options->listen_count;
    for (uint32_t i = 0; i < options->tls_count; i++)
        options->listen[options->listen_count++] = options->tls_listen[i];
    return 0;
}

int sink_options_parse(struct sink_options *options, int argc, char **argv) {
    set_defaults(options);
    for (int option; (option = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        int code = take(options, option, optarg);
        if (code != 0)
            return code;
    }
    if (optind < argc) {
        fprintf(stderr, "bypost-sink: '%s' is not an option; --help shows them.\n", argv[optind]);
        return -1;
    }
    if (options->dataplane.ports[0].device[0] == '\0' || options->dataplane.ports[0].address_count == 0) {
        fprintf(stderr, "bypost-sink: --device and --address are needed; --help shows the options.\n");
        return -1;
    }
    if (options->listen_count == 0 && !(options->tls_count > 0 && options->tls_no_starttls))
        options->listen[options->listen_count++] = 25;
    if (check_security(options) != 0)
        return -1;
    if (options->queues == 0)
        options->queues = options->dataplane.geometry.workers;
    if (options->dataplane.geometry.workers != 1 && options->dataplane.geometry.workers != options->queues) {
        fprintf(stderr, "bypost-sink: --queues %u with %u lcores: use one lcore for all queues, or as many as there are queues.\n",
                options->queues, options->dataplane.geometry.workers);
        return -1;
    }
    return 0;
}
