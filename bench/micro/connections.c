/* connections.c: an SMTP client on the stack that opens and closes connections as fast as it can, or opens very many and keeps them, or
 * sends messages over a few. bench/connections runs it against bypost-sink. Prints JSON. */
#include "bench/sink/address.h"
#include "bench/sink/digest.h"
#include "dataplane/eal.h"
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum {
    ERROR_BYTES = 512,
    WORKERS_MAX = 16,
    TCP_BUDGET = 1024,
    CONNECT_TIMEOUT_US = 20000000,
    LINE_WAIT_US = 20000000,
    OPENS_A_PASS = 32,    /* so that answers are read in between */
    HANDSHAKES_MAX = 512, /* at a time, while very many are opened: below what the device's rings hold */
    SAMPLES = 1000,       /* idle connections that are asked again */
    RESOLVE_US = 300000,  /* for ARP and Neighbour Discovery of the servers before anything is measured */
};

/* What a connection waits for. */
enum link_state {
    LINK_FREE,
    LINK_BANNER,
    LINK_EHLO,
    LINK_IDLE,
    LINK_NOOP,
    LINK_MESSAGE,
    LINK_BYE,
    LINK_CLOSING,
};

struct worker;

struct link {
    struct worker *worker;
    struct tcp_conn *conn;
    uint32_t next; /* free list */
    uint8_t state;
    uint8_t lines; /* of a message's replies that came */
};

enum exchange { EXCHANGE_BANNER, EXCHANGE_QUIT, EXCHANGE_MESSAGES };

/* Messages that are sent in turn, each with its envelope and BDAT in front: one flight (RFC 3030). */
enum { TEXTS = 1024, TEXT_BYTES = 4096, TEXT_ROOM = TEXT_BYTES + 400, MESSAGE_REPLIES = 3 };
struct text {
    uint32_t length;
    uint8_t bytes[TEXT_ROOM];
};

struct plan {
    struct options dataplane;
    uint32_t server_count, ports[16], port_count;
    struct net_address servers[NET_ADDRESSES_MAX];
    uint32_t parallel, concurrent;
    uint32_t warm_ms, measure_ms;
    enum exchange exchange;
    enum port_steering steering;
    uint32_t hold_ms;
    const struct text *texts;
};

struct worker {
    const struct plan *plan;
    uint32_t index;
    struct net *net;
    struct tcp_stack *stack;
    struct port_queue *queue;
    struct counters counters;
    struct link *links;
    uint32_t link_count, fresh, free_head, open, opening;
    uint64_t turn; /* of the pairs */
    uint64_t completed, failed, refused;
    uint32_t ready, asked, answered; /* idle connections; samples */
    _Atomic uint64_t completed_shown;
    _Atomic uint32_t ready_shown, answered_shown;
    _Atomic bool stop, opens, samples;
};

static uint64_t clock_us(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000;
}

static void say(struct link *link, const char *text, uint64_t now_us) {
    struct tcp_piece piece = {.bytes = (const uint8_t *)text, .length = (uint32_t)strlen(text)};
    if (tcp_send(link->conn, &piece, 1, now_us) == 0)
        tcp_output(link->conn, now_us);
    else
        tcp_abort(link->conn, now_us);
}

static void send_message(struct link *link, uint64_t now_us) {
    struct worker *worker = link->worker;
    const struct text *text = &worker->plan->texts[worker->turn++ % TEXTS];
    struct tcp_piece piece = {.bytes = text->bytes, .length = text->length};
    link->state = LINK_MESSAGE;
    link->lines = 0;
    if (tcp_send(link->conn, &piece, 1, now_us) == 0)
        tcp_output(link->conn, now_us);
    else
        tcp_abort(link->conn, now_us);
}

/* One whole reply is there, or a message's last. */
static void take_reply(struct link *link, uint64_t now_us) {
    struct worker *worker = link->worker;
    switch ((enum link_state)link->state) {
    case LINK_BANNER:
        if (worker->plan->concurrent > 0 || worker->plan->exchange == EXCHANGE_MESSAGES) {
            link->state = LINK_EHLO;
            say(link, "EHLO client.test\r\n", now_us);
        } else if (worker->plan->exchange == EXCHANGE_QUIT) {
            link->state = LINK_BYE;
            say(link, "QUIT\r\n", now_us);
        } else {
            link->state = LINK_CLOSING;
            tcp_close(link->conn, now_us);
        }
        break;
    case LINK_EHLO:
        if (worker->plan->concurrent == 0) {
            send_message(link, now_us);
            break;
        }
        link->state = LINK_IDLE;
        worker->ready++;
        worker->opening--;
        break;
    case LINK_MESSAGE:
        worker->completed++;
        send_message(link, now_us);
        break;
    case LINK_NOOP:
        link->state = LINK_IDLE;
        worker->answered++;
        break;
    case LINK_BYE:
        link->state = LINK_CLOSING; /* the server's FIN comes first, so that TIME_WAIT is its own */
        break;
    case LINK_FREE:
    case LINK_IDLE:
    case LINK_CLOSING:
        break;
    }
}

static uint32_t on_received(void *user, struct tcp_conn *conn, const uint8_t *bytes, uint32_t length, uint64_t now_us) {
    struct link *link = user;
    if (link->state != LINK_MESSAGE) { /* every reply of bypost-sink comes as one segment and ends it */
        if (length > 0 && bytes[length - 1] == '\n')
            take_reply(link, now_us);
        return length;
    }
    for (uint32_t i = 0; i < length; i++)
        if (bytes[i] == '\n' && ++link->lines == MESSAGE_REPLIES)
            take_reply(link, now_us);
    return length;
}

static void on_connected(void *user, struct tcp_conn *conn, uint64_t now_us) {}

static void on_acknowledged(void *user, struct tcp_conn *conn, uint32_t bytes, uint64_t now_us) {}

static void on_peer_closed(void *user, struct tcp_conn *conn, uint64_t now_us) {
    tcp_close(conn, now_us);
}

static void on_closed(void *user, struct tcp_conn *conn, enum tcp_error error, uint64_t now_us) {
    struct link *link = user;
    struct worker *worker = link->worker;
    if (link->state == LINK_CLOSING && error == TCP_OK)
        worker->completed++;
    else
        worker->failed++;
    if (link->state == LINK_IDLE || link->state == LINK_NOOP)
        worker->ready--;
    else if (worker->plan->concurrent > 0)
        worker->opening--;
    link->state = LINK_FREE;
    link->next = worker->free_head;
    worker->free_head = (uint32_t)(link - worker->links);
    worker->open--;
}

/* The next pair of (our address, server, port) in turn. False: nothing more can be opened now. */
static bool open_one(struct worker *worker, uint64_t now_us) {
    const struct plan *plan = worker->plan;
    uint32_t index = worker->free_head != UINT32_MAX ? worker->free_head : worker->fresh;
    if (index >= worker->link_count)
        return false;
    struct link *link = &worker->links[index];
    uint64_t turn = worker->turn++;
    uint32_t ours = plan->dataplane.ports[0].address_count;
    const struct tcp_address *local = &plan->dataplane.ports[0].addresses[turn % ours].address;
    const struct tcp_address *remote = &plan->servers[turn / ours % plan->server_count].address;
    uint16_t port = (uint16_t)plan->ports[turn / ours / plan->server_count % plan->port_count];
    if (local->family != remote->family)
        return true; /* each address has its turn with each server: only equal families speak */
    uint32_t next = link->next;
    link->worker = worker;
    link->state = LINK_BANNER;
    int code = tcp_connect(worker->stack, local, remote, port, CONNECT_TIMEOUT_US, link, &link->conn, now_us);
    if (code != 0) {
        link->state = LINK_FREE;
        worker->refused++;
        return false;
    }
    if (index == worker->fresh)
        worker->fresh++;
    else
        worker->free_head = next;
    worker->open++;
    worker->opening += plan->concurrent > 0;
    return true;
}

static void open_some(struct worker *worker, uint64_t now_us) {
    const struct plan *plan = worker->plan;
    uint32_t workers = plan->dataplane.geometry.workers;
    uint32_t most = (plan->concurrent > 0 ? plan->concurrent : plan->parallel) / workers;
    for (uint32_t i = 0; i < OPENS_A_PASS && worker->open < most; i++)
        if ((plan->concurrent > 0 && worker->opening >= HANDSHAKES_MAX) || !open_one(worker, now_us))
            return;
}

/* Idle connections, spread over all of them, are asked once more. */
static void sample(struct worker *worker, uint64_t now_us) {
    uint32_t step = worker->fresh < SAMPLES ? 1 : worker->fresh / SAMPLES;
    for (uint32_t i = 0; i < worker->fresh && worker->asked < SAMPLES; i += step) {
        if (worker->links[i].state != LINK_IDLE)
            continue;
        worker->links[i].state = LINK_NOOP;
        worker->asked++;
        say(&worker->links[i], "NOOP\r\n", now_us);
    }
}

static int run(void *argument) {
    struct worker *worker = argument;
    while (!atomic_load_explicit(&worker->stop, memory_order_relaxed)) {
        uint64_t now_us = clock_us();
        net_receive(worker->net, now_us);
        tcp_poll(worker->stack, TCP_BUDGET, now_us);
        if (atomic_load_explicit(&worker->opens, memory_order_relaxed))
            open_some(worker, now_us);
        if (worker->asked == 0 && atomic_load_explicit(&worker->samples, memory_order_relaxed))
            sample(worker, now_us);
        net_poll(worker->net, now_us);
        counter_add(&worker->counters.loops, 1);
        atomic_store_explicit(&worker->completed_shown, worker->completed, memory_order_relaxed);
        atomic_store_explicit(&worker->ready_shown, worker->ready, memory_order_relaxed);
        atomic_store_explicit(&worker->answered_shown, worker->answered, memory_order_relaxed);
    }
    return 0;
}

static int create_worker(struct worker *worker, const struct plan *plan, struct port *port, uint32_t index) {
    const struct port_options *wire = &plan->dataplane.ports[0];
    uint32_t workers = plan->dataplane.geometry.workers;
    uint16_t span = (uint16_t)((65536 - plan->dataplane.port_first) / workers);
    worker->plan = plan;
    worker->index = index;
    worker->free_head = UINT32_MAX;
    worker->link_count = (plan->concurrent > 0 ? plan->concurrent : plan->parallel) / workers + OPENS_A_PASS;
    worker->links =
        mmap(NULL, worker->link_count * sizeof(struct link), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    worker->queue = port_queue_create(port, index, workers, NULL, 0, &worker->counters);
    if (worker->links == MAP_FAILED || worker->queue == NULL)
        return -ENOMEM;
    static struct net_config net; /* large, and copied */
    memset(&net, 0, sizeof(net));
    net.interface_count = 1;
    net.worker = index;
    net.workers = workers;
    net.port_first = plan->dataplane.port_first;
    net.port_span = span;
    net.counters = &worker->counters;
    struct net_interface *interface = &net.interfaces[0];
    interface->queue = worker->queue;
    interface->rss = &port->rss;
    interface->mtu = port->mtu;
    interface->address_count = wire->address_count;
    memcpy(interface->mac, port->mac, sizeof(interface->mac));
    memcpy(interface->addresses, wire->addresses, sizeof(interface->addresses));
    worker->net = net_create(&net, clock_us());
    if (worker->net == NULL)
        return -errno;
    struct tcp_config tcp = {
        .max_connections = worker->link_count,
        .max_time_wait = plan->concurrent > 0 ? 1024 : 1 << 20,
        .receive_buffer_bytes = 16384,
        .mtu = port->mtu,
        .port_first = (uint16_t)(plan->dataplane.port_first + index * span),
        .port_last = (uint16_t)(plan->dataplane.port_first + (index + 1) * span - 1),
        .transmit = net_transmit,
        .choose_ports = net_choose_ports,
        .unknown = net_unknown,
        .network = worker->net,
        .events = {.connected = on_connected,
                   .received = on_received,
                   .peer_closed = on_peer_closed,
                   .acknowledged = on_acknowledged,
                   .closed = on_closed},
    };
    if (getrandom(tcp.secret, sizeof(tcp.secret), 0) != (ssize_t)sizeof(tcp.secret))
        return -EIO;
    worker->stack = tcp_stack_create(&tcp, clock_us());
    if (worker->stack == NULL)
        return -errno;
    net_attach(worker->net, worker->stack);
    return 0;
}

static uint64_t resident_bytes(void) {
    unsigned long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL || fscanf(file, "%*u %llu", &pages) != 1)
        pages = 0;
    if (file != NULL)
        fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Of this process: workers spin, so that less than one a worker means that others had the cores. */
static double processor_seconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void sleep_us(uint64_t us) {
    struct timespec time = {.tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000) * 1000};
    nanosleep(&time, NULL);
}

struct figures {
    uint64_t completed;
    uint32_t ready, answered;
};

static struct figures add_up(struct worker *workers, uint32_t count) {
    struct figures sum = {0};
    for (uint32_t i = 0; i < count; i++) {
        sum.completed += atomic_load_explicit(&workers[i].completed_shown, memory_order_relaxed);
        sum.ready += atomic_load_explicit(&workers[i].ready_shown, memory_order_relaxed);
        sum.answered += atomic_load_explicit(&workers[i].answered_shown, memory_order_relaxed);
    }
    return sum;
}

static void set_all(struct worker *workers, uint32_t count, bool opens, bool samples) {
    for (uint32_t i = 0; i < count; i++) {
        atomic_store(&workers[i].opens, opens);
        atomic_store(&workers[i].samples, samples);
    }
}

/* A line on standard input, from the command that runs us, which looks at the sink's memory in between. */
static void wait_for_line(void) {
    char line[64];
    printf("\n");
    fflush(stdout);
    if (fgets(line, sizeof(line), stdin) == NULL)
        return;
}

static void measure_rate(const struct plan *plan, struct worker *workers) {
    uint32_t count = plan->dataplane.geometry.workers;
    set_all(workers, count, true, false);
    sleep_us((uint64_t)plan->warm_ms * 1000);
    struct figures before = add_up(workers, count);
    uint64_t from_us = clock_us();
    double processor_s = processor_seconds();
    sleep_us((uint64_t)plan->measure_ms * 1000);
    struct figures after = add_up(workers, count);
    double seconds = (double)(clock_us() - from_us) / 1e6;
    processor_s = processor_seconds() - processor_s;
    set_all(workers, count, false, false);
    sleep_us(500000); /* what is open ends */
    printf("{\"%s_per_second\": %.0f, \"seconds\": %.2f, \"parallel\": %u, \"client_cores\": %.2f, ",
           plan->exchange == EXCHANGE_MESSAGES ? "messages" : "connections", (double)(after.completed - before.completed) / seconds,
           seconds, plan->parallel, processor_s / seconds);
}

static void measure_concurrent(const struct plan *plan, struct worker *workers) {
    uint32_t count = plan->dataplane.geometry.workers;
    uint64_t before_bytes = resident_bytes(), from_us = clock_us();
    set_all(workers, count, true, false);
    struct figures sum = add_up(workers, count);
    uint32_t most = plan->concurrent / count * count, last_ready = 0;
    for (uint64_t progress_us = from_us; sum.ready < most && clock_us() - progress_us < LINE_WAIT_US; sum = add_up(workers, count)) {
        if (sum.ready != last_ready) {
            last_ready = sum.ready;
            progress_us = clock_us();
        }
        sleep_us(20000);
    }
    double seconds = (double)(clock_us() - from_us) / 1e6;
    sleep_us((uint64_t)plan->hold_ms * 1000);
    uint64_t bytes = resident_bytes() - before_bytes;
    set_all(workers, count, false, true);
    uint32_t samples = plan->concurrent < SAMPLES ? plan->concurrent : SAMPLES;
    for (uint64_t until_us = clock_us() + LINE_WAIT_US; clock_us() < until_us; sleep_us(20000)) {
        sum = add_up(workers, count);
        if (sum.answered >= samples * count)
            break;
    }
    struct tcp_usage usage;
    tcp_stack_usage(workers[0].stack, &usage);
    printf(
        "{\"concurrent\": %u, \"open_seconds\": %.2f, \"opened_per_second\": %.0f, \"client_bytes_per_connection\": %.1f, \"asked\": %u, "
        "\"answered\": %u, \"ranges_used\": %u, \"segments_in_flight_used\": %u, \"receive_blocks_used\": %u, ",
        sum.ready, seconds, (double)sum.ready / seconds, sum.ready == 0 ? 0.0 : (double)bytes / sum.ready, samples * count, sum.answered,
        usage.ranges, usage.segments_in_flight, usage.receive_blocks);
}

static void print_workers(const struct plan *plan, struct worker *workers) {
    printf("\"workers\": [");
    for (uint32_t i = 0; i < plan->dataplane.geometry.workers; i++) {
        const struct tcp_counters *tcp = tcp_stack_counters(workers[i].stack);
        const struct counters *counters = &workers[i].counters;
        printf("%s{\"completed\": %llu, \"failed\": %llu, \"open_refused\": %llu, \"established\": %llu, \"handed_over\": %llu, "
               "\"no_connection\": %llu, \"segments_in\": %llu, \"frames_in\": %llu, \"frames_out\": %llu, \"frames_refused\": %llu, "
               "\"frames_bad\": %llu, "
               "\"retransmits\": %llu, \"resets_received\": %llu, \"resets_sent\": %llu, \"timeouts\": %llu, \"ports_exhausted\": %llu, "
               "\"pool_exhausted\": %llu}",
               i == 0 ? "" : ", ", (unsigned long long)workers[i].completed, (unsigned long long)workers[i].failed,
               (unsigned long long)workers[i].refused, (unsigned long long)tcp->established,
               (unsigned long long)counter_get(&counters->frames_handed_over), (unsigned long long)tcp->no_connection,
               (unsigned long long)tcp->segments_in, (unsigned long long)counter_get(&counters->frames_in),
               (unsigned long long)counter_get(&counters->frames_out), (unsigned long long)counter_get(&counters->frames_refused),
               (unsigned long long)counter_get(&counters->frames_bad), (unsigned long long)tcp->retransmits_fast + tcp->retransmits_timeout,
               (unsigned long long)tcp->resets_received, (unsigned long long)tcp->resets_sent, (unsigned long long)tcp->timeouts,
               (unsigned long long)tcp->ports_exhausted, (unsigned long long)tcp->pool_exhausted);
    }
    printf("]}\n");
}

static int complain(const char *option, const char *value, const char *remedy) {
    fprintf(stderr, "connections: --%s '%s': %s\n", option, value, remedy);
    return -1;
}

static struct text *make_texts(void) {
    struct text *texts = calloc(TEXTS, sizeof(*texts));
    if (texts == NULL)
        return NULL;
    char *body = malloc(TEXT_BYTES + 1), message[TEXT_ROOM];
    for (unsigned i = 0; body != NULL && i < TEXTS; i++) {
        unsigned length = 0;
        while (length + 80 <= TEXT_BYTES)
            length += (unsigned)snprintf(body + length, TEXT_BYTES + 1 - length, "%078u\r\n", i * length);
        int bytes = snprintf(message, sizeof(message),
                             "From: <a@example.org>\r\nTo: <b@example.net>\r\nMessage-ID: <%u@example.org>\r\nX-Body-Digest: "
                             "xxh64=%016llx\r\n\r\n%s",
                             i, (unsigned long long)xxh64(body, length, 0), body);
        texts[i].length =
            (uint32_t)snprintf((char *)texts[i].bytes, TEXT_ROOM,
                               "MAIL FROM:<a@example.org>\r\nRCPT TO:<b%u@example.net>\r\nBDAT %d LAST\r\n%s", i, bytes, message);
    }
    free(body);
    return texts;
}

static uint32_t number(const char *text) {
    return (uint32_t)strtoul(text, NULL, 10);
}

static uint32_t list(const char *text, uint32_t *numbers, uint32_t max) {
    uint32_t count = 0;
    for (char *end; count < max; text = end + 1) {
        numbers[count++] = (uint32_t)strtoul(text, &end, 10);
        if (*end != ',')
            break;
    }
    return count;
}

static int parse(struct plan *plan, int argc, char **argv) {
    static const struct option long_options[] = {{"device", required_argument, NULL, 'd'},
                                                 {"address", required_argument, NULL, 'a'},
                                                 {"server", required_argument, NULL, 's'},
                                                 {"port", required_argument, NULL, 'p'},
                                                 {"lcores", required_argument, NULL, 'l'},
                                                 {"parallel", required_argument, NULL, 'n'},
                                                 {"concurrent", required_argument, NULL, 'c'},
                                                 {"warm-ms", required_argument, NULL, 'w'},
                                                 {"measure-ms", required_argument, NULL, 'm'},
                                                 {"exchange", required_argument, NULL, 'x'},
                                                 {"hugepages", no_argument, NULL, 'h'},
                                                 {"memory-mib", required_argument, NULL, 'M'},
                                                 {"steering", required_argument, NULL, 't'},
                                                 {"hold-ms", required_argument, NULL, 'H'},
                                                 {NULL, 0, NULL, 0}};
    struct port_options *wire = &plan->dataplane.ports[0];
    char error[256];
    for (int option; (option = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        switch (option) {
        case 'd':
            snprintf(wire->device, sizeof(wire->device), "%s", optarg);
            break;
        case 'a':
            if (address_take(wire->addresses, NET_ADDRESSES_MAX, &wire->address_count, optarg, error, sizeof(error)) != 0)
                return complain("address", optarg, error);
            break;
        case 's':
            if (address_take(plan->servers, NET_ADDRESSES_MAX, &plan->server_count, optarg, error, sizeof(error)) != 0)
                return complain("server", optarg, error);
            break;
        case 'p':
            plan->port_count = list(optarg, plan->ports, sizeof(plan->ports) / sizeof(plan->ports[0]));
            break;
        case 'l':
            plan->dataplane.geometry.workers = list(optarg, plan->dataplane.lcores, WORKERS_MAX);
            break;
        case 'n':
            plan->parallel = number(optarg);
            break;
        case 'c':
            plan->concurrent = number(optarg);
            break;
        case 'w':
            plan->warm_ms = number(optarg);
            break;
        case 'm':
            plan->measure_ms = number(optarg);
            break;
        case 'H':
            plan->hold_ms = number(optarg);
            break;
        case 'x':
            plan->exchange = strcmp(optarg, "quit") == 0       ? EXCHANGE_QUIT
                             : strcmp(optarg, "messages") == 0 ? EXCHANGE_MESSAGES
                                                               : EXCHANGE_BANNER;
            break;
        case 'h':
            plan->dataplane.hugepages = true;
            break;
        case 'M':
            plan->dataplane.memory_mib = number(optarg);
            break;
        case 't':
            plan->steering = strcmp(optarg, "toeplitz") == 0 ? PORT_STEERING_TOEPLITZ : PORT_STEERING_RANGES;
            break;
        default:
            return -1;
        }
    }
    if (wire->device[0] == '\0' || wire->address_count == 0 || plan->server_count == 0)
        return complain("device, --address and --server", "", "are needed.");
    return 0;
}

int main(int argc, char **argv) {
    static struct plan plan = {.parallel = 4096, .warm_ms = 2000, .measure_ms = 10000, .hold_ms = 1000, .ports = {25}, .port_count = 1};
    static struct worker workers[WORKERS_MAX];
    static struct arena arena;
    static struct port port;
    char error[ERROR_BYTES] = "";
    signal(SIGPIPE, SIG_IGN);
    plan.dataplane.geometry.workers = 1;
    plan.dataplane.memory_mib = 128;
    plan.dataplane.arena_mib = 1;
    plan.dataplane.port_count = 1;
    plan.dataplane.port_first = 1024;
    if (parse(&plan, argc, argv) != 0)
        return 64;
    plan.texts = make_texts();
    if (plan.texts == NULL)
        return 1;
    uint32_t count = plan.dataplane.geometry.workers;
    int code = eal_start(&plan.dataplane, &arena, error, sizeof(error));
    struct port_request request = {
        .device = plan.dataplane.ports[0].device, .mode = PORT_MODE_COPY, .steering = plan.steering, .mtu = 1500, .workers = count};
    if (code == 0)
        code = port_open(&port, &request, error, sizeof(error));
    for (uint32_t i = 0; code == 0 && i < count; i++) {
        code = create_worker(&workers[i], &plan, &port, i);
        if (code != 0)
            snprintf(error, sizeof(error), "worker %u cannot be made: %s", i, strerror(-code));
    }
    if (code != 0) {
        fprintf(stderr, "connections: %s\n", error);
        return 1;
    }
    for (uint32_t i = 0; i < count; i++)
        eal_launch(i, run, &workers[i]);
    sleep_us(RESOLVE_US);
    if (plan.concurrent > 0) {
        measure_concurrent(&plan, workers);
        wait_for_line();
    } else {
        measure_rate(&plan, workers);
    }
    for (uint32_t i = 0; i < count; i++)
        atomic_store(&workers[i].stop, true);
    for (uint32_t i = 0; i < count; i++)
        eal_wait(i);
    print_workers(&plan, workers);
    fflush(stdout);
    return 0;
}
