/* tcp_cycles.c: what TCP alone costs: messages on connections that stay, connections with one exchange each, and memory of idle ones,
 * against a peer that keeps no state and answers from the segment itself. Cycles include that peer and the loop; callgrind tells them
 * apart. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <x86intrin.h>

#include "dataplane/tcp/tcp.h"

enum {
    AHEAD = 4,
    BURST = 32,
    QUEUE_MIN = 4096,
    MESSAGE_BYTES = 4096,
    REPLY_BYTES = 30,
    ENVELOPE_BYTES = 120,
    MSS = 1448,
    SEGMENT_MAX = 128,
    STRIDE = 7919
};

struct answer {
    struct tcp_address local, remote;
    uint32_t length;
    uint8_t bytes[SEGMENT_MAX];
};

struct bench {
    struct tcp_stack *stack;
    struct tcp_conn **conns;
    uint64_t now_us, established, replies, closed;
    struct answer *queue;
    uint32_t head, tail, queue_size; /* a power of two */
    uint32_t burst;                  /* packets a pass */
    bool connections;                /* one exchange a connection */
    uint64_t segments;
    bool prefetch;
    uint64_t wanted; /* replies; each is followed by the next message until then */
};

static bool prefetch = true;
static uint32_t destinations = 64;
static uint8_t payload[MESSAGE_BYTES + ENVELOPE_BYTES];

static uint64_t clock_ns(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000ULL + (uint64_t)time.tv_nsec;
}

/* Cycles of this thread's own time: what others had of the core is not counted. */
struct stopwatch {
    uint64_t tsc, real_ns, own_ns;
};

static void stopwatch_start(struct stopwatch *watch) {
    *watch = (struct stopwatch){__rdtsc(), clock_ns(CLOCK_MONOTONIC), clock_ns(CLOCK_THREAD_CPUTIME_ID)};
}

static double stopwatch_cycles(const struct stopwatch *watch) {
    double own = (double)(clock_ns(CLOCK_THREAD_CPUTIME_ID) - watch->own_ns);
    return own * (double)(__rdtsc() - watch->tsc) / (double)(clock_ns(CLOCK_MONOTONIC) - watch->real_ns);
}

static void put16(uint8_t *bytes, uint32_t value) {
    bytes[0] = (uint8_t)(value >> 8);
    bytes[1] = (uint8_t)value;
}

static void put32(uint8_t *bytes, uint32_t value) {
    put16(bytes, value >> 16);
    put16(bytes + 2, value);
}

static uint8_t *answer_begin(struct bench *bench, const struct tcp_segment *segment, uint32_t options, uint32_t text, uint8_t flags,
                             uint32_t sequence) {
    struct answer *answer = &bench->queue[bench->tail++ % bench->queue_size];
    uint8_t *bytes = answer->bytes;
    answer->local = segment->local;
    answer->remote = segment->remote;
    answer->length = 20 + options + text;
    put16(bytes, segment->remote_port);
    put16(bytes + 2, segment->local_port);
    put32(bytes + 4, sequence);
    put32(bytes + 8, segment->sequence + segment->payload_length + ((segment->flags & (TCP_SYN | TCP_FIN)) != 0));
    bytes[12] = (uint8_t)((20 + options) / 4 << 4);
    bytes[13] = flags;
    put16(bytes + 14, 65535);
    put32(bytes + 16, 0);
    return bytes + 20;
}

/* The peer. Timestamps are echoed: 12 bytes. */
static int transmit(void *network, const struct tcp_segment *segment) {
    struct bench *bench = network;
    bench->segments++;
    if (bench->tail - bench->head == bench->queue_size) {
        return -EAGAIN;
    }
    if ((segment->flags & TCP_SYN) != 0) {
        uint8_t *options = answer_begin(bench, segment, 20, 0, TCP_SYN | TCP_ACK, 0x1000);
        static const uint8_t head[8] = {2, 4, (MSS + 12) >> 8, (MSS + 12) & 0xff, 1, 1, 8, 10}, scale[4] = {1, 3, 3, 4};
        memcpy(options, head, 8);
        put32(options + 8, (uint32_t)(bench->now_us >> 10));
        memcpy(options + 12, segment->options + 8, 4);
        memcpy(options + 16, scale, 4);
        return 0;
    }
    bool last = segment->payload_length > 0 && (segment->flags & TCP_PSH) != 0, fin = (segment->flags & TCP_FIN) != 0;
    if (!last && !fin) {
        return 0;
    }
    uint32_t text = last ? REPLY_BYTES : 0;
    uint8_t flags = TCP_ACK | (last ? TCP_PSH : 0) | (last && bench->connections ? TCP_FIN : 0);
    uint8_t *options = answer_begin(bench, segment, 12, text, flags, segment->acknowledgement);
    static const uint8_t stamp[4] = {1, 1, 8, 10};
    memcpy(options, stamp, 4);
    put32(options + 4, (uint32_t)(bench->now_us >> 10));
    memcpy(options + 8, segment->options + 4, 4);
    memset(options + 12, 'x', text);
    return 0;
}

static void deliver(struct bench *bench) {
    struct tcp_packet packets[AHEAD];
    uint32_t end = bench->tail - bench->head > bench->burst ? bench->head + bench->burst : bench->tail;
    for (uint32_t at = bench->head; at != end + AHEAD; at++) {
        if (at - bench->head >= AHEAD) {
            tcp_input(bench->stack, &packets[at % AHEAD], bench->now_us);
        }
        if ((int32_t)(end - at) > 0) {
            const struct answer *answer = &bench->queue[at % bench->queue_size];
            packets[at % AHEAD] =
                (struct tcp_packet){.local = answer->local, .remote = answer->remote, .header = answer->bytes, .length = answer->length};
            if (bench->prefetch) {
                tcp_prefetch(bench->stack, &packets[at % AHEAD]);
            }
        }
    }
    bench->head = end;
}

static void say(struct bench *bench, struct tcp_conn *conn) {
    struct tcp_piece pieces[3] = {{.bytes = payload, .length = ENVELOPE_BYTES},
                                  {.bytes = payload + ENVELOPE_BYTES, .length = 600},
                                  {.bytes = payload + ENVELOPE_BYTES + 600, .length = MESSAGE_BYTES - 600}};
    if (tcp_send(conn, pieces, bench->connections ? 1 : 3, bench->now_us) != 0) {
        fprintf(stderr, "tcp_send refuses\n");
        exit(1);
    }
}

static void on_connected(void *user, struct tcp_conn *conn, uint64_t now_us) {
    struct bench *bench = user;
    bench->established++;
    if (bench->connections) {
        say(bench, conn);
    }
}

static uint32_t on_received(void *user, struct tcp_conn *conn, const uint8_t *bytes, uint32_t length, uint64_t now_us) {
    struct bench *bench = user;
    if (++bench->replies < bench->wanted) {
        say(bench, conn); /* tcp_input sends it */
    }
    return length;
}

static void on_peer_closed(void *user, struct tcp_conn *conn, uint64_t now_us) {
    tcp_close(conn, now_us);
}

static void on_closed(void *user, struct tcp_conn *conn, enum tcp_error error, uint64_t now_us) {
    struct bench *bench = user;
    bench->closed++;
    if (error != TCP_OK) {
        fprintf(stderr, "closed: %s\n", tcp_error_text(error));
        exit(1);
    }
}

/* `waiting`: answers that may wait for their turn. */
static void bench_open(struct bench *bench, uint32_t connections, uint32_t waiting, bool each) {
    *bench = (struct bench){.now_us = 1000000, .connections = each, .prefetch = prefetch};
    bench->burst = each ? 4 * BURST : BURST;
    bench->queue_size = QUEUE_MIN;
    while (bench->queue_size < waiting) {
        bench->queue_size <<= 1;
    }
    bench->queue = calloc(bench->queue_size, sizeof(*bench->queue));
    bench->conns = calloc(connections, sizeof(*bench->conns));
    struct tcp_config config = {
        .max_connections = connections,
        .max_time_wait = 1024,
        .receive_buffer_bytes = 16384,
        .mtu = 1500,
        .port_first = 1024,
        .port_last = 65535,
        .secret = "0123456789abcde",
        .transmit = transmit,
        .network = bench,
        .events = {.connected = on_connected, .received = on_received, .peer_closed = on_peer_closed, .closed = on_closed}};
    bench->stack = tcp_stack_create(&config, bench->now_us);
    if (bench->stack == NULL || bench->queue == NULL || bench->conns == NULL) {
        fprintf(stderr, "no memory\n");
        exit(1);
    }
}

static void bench_close(struct bench *bench) {
    tcp_stack_destroy(bench->stack);
    free(bench->queue);
    free(bench->conns);
}

static void connect_one(struct bench *bench, uint32_t number) {
    struct tcp_address local = {.bytes = {10, 0, 0, 1}, .family = 4};
    uint32_t host = number % destinations;
    struct tcp_address remote = {.bytes = {11, (uint8_t)(host >> 16), (uint8_t)(host >> 8), (uint8_t)host}, .family = 4};
    int rc = tcp_connect(bench->stack, &local, &remote, 25, 30 * 1000 * 1000, bench, &bench->conns[number], bench->now_us);
    if (rc != 0) {
        fprintf(stderr, "tcp_connect: %s\n", strerror(-rc));
        exit(1);
    }
}

static void pass(struct bench *bench) {
    bench->now_us += 20;
    deliver(bench);
    tcp_poll(bench->stack, 256, bench->now_us);
}

/* Messages on `connections` connections in turn. */
static void run_messages(uint32_t connections, uint64_t count) {
    struct bench bench;
    bench_open(&bench, connections, connections, false);
    for (uint32_t i = 0; i < connections; i++) {
        connect_one(&bench, i);
        if (i % BURST == BURST - 1 || i + 1 == connections) {
            pass(&bench);
        }
    }
    while (bench.established < connections) {
        pass(&bench);
    }
    uint64_t segments = bench.segments;
    struct stopwatch watch;
    stopwatch_start(&watch);
    bench.wanted = count;
    for (uint32_t i = 0, next = 0; i < connections && i < count; i++) {
        say(&bench, bench.conns[next]);
        tcp_output(bench.conns[next], bench.now_us);
        next = (next + STRIDE) % connections; /* not in the order of memory */
    }
    while (bench.replies < count) {
        pass(&bench);
    }
    double cycles = stopwatch_cycles(&watch);
    uint64_t messages = bench.replies;
    printf("messages: %" PRIu64 " of %d bytes on %u connections: %.0f cycles a message, %.2f segments sent for each\n", messages,
           MESSAGE_BYTES, connections, cycles / (double)messages, (double)(bench.segments - segments) / (double)messages);
    bench_close(&bench);
}

/* Open, one exchange, close; the server closes first. */
static void run_connections(uint64_t count) {
    struct bench bench;
    bench_open(&bench, QUEUE_MIN, QUEUE_MIN, true);
    struct stopwatch watch;
    stopwatch_start(&watch);
    uint32_t next = 0;
    for (uint64_t done = 0; done < count; done += BURST) {
        for (uint32_t i = 0; i < BURST; i++) {
            connect_one(&bench, next);
            next = (next + 1) % QUEUE_MIN;
        }
        pass(&bench);
    }
    while (bench.closed < bench.established || bench.established == 0) {
        pass(&bench);
    }
    double cycles = stopwatch_cycles(&watch);
    printf("connections: %" PRIu64 " opened, one exchange, closed: %.0f cycles each, %.2f segments sent for each\n", bench.closed,
           cycles / (double)bench.closed, (double)bench.segments / (double)bench.closed);
    bench_close(&bench);
}

static uint64_t resident_bytes(void) {
    unsigned long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%lu %lu", &pages, &resident) != 2) {
        resident = 0;
    }
    if (file != NULL) {
        fclose(file);
    }
    return resident * 4096ULL;
}

/* Memory of connections that are open and idle. */
static void run_idle(uint32_t connections) {
    struct bench bench;
    uint64_t before = resident_bytes();
    bench_open(&bench, connections, QUEUE_MIN, false);
    for (uint32_t i = 0; i < connections; i++) {
        connect_one(&bench, i);
        if (i % BURST == BURST - 1 || i + 1 == connections) {
            pass(&bench);
        }
    }
    for (uint32_t i = 0; i < connections; i++) { /* each has sent and got its answer */
        say(&bench, bench.conns[i]);
        tcp_output(bench.conns[i], bench.now_us);
        if (i % BURST == BURST - 1 || i + 1 == connections) {
            pass(&bench);
        }
    }
    uint64_t used = resident_bytes() - before - connections * sizeof(struct tcp_conn *);
    printf("idle: %" PRIu64 " connections, %.0f resident bytes each; %.0f bytes each with every pool full\n", bench.established,
           (double)used / connections, (double)tcp_stack_memory_bytes(bench.stack) / connections);
    bench_close(&bench);
}

int main(int argc, char **argv) {
    uint64_t messages = 200000, connections = 200000;
    uint32_t open = 1000, idle = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        uint64_t value = strtoull(argv[i + 1], NULL, 10);
        if (strcmp(argv[i], "--messages") == 0) {
            messages = value;
        } else if (strcmp(argv[i], "--connections") == 0) {
            connections = value;
        } else if (strcmp(argv[i], "--open") == 0) {
            open = (uint32_t)value;
        } else if (strcmp(argv[i], "--destinations") == 0) {
            destinations = value > 0 ? (uint32_t)value : 1;
        } else if (strcmp(argv[i], "--prefetch") == 0) {
            prefetch = value != 0;
        } else if (strcmp(argv[i], "--idle") == 0) {
            idle = (uint32_t)value;
        } else {
            fprintf(stderr, "usage: tcp_cycles [--messages N] [--open CONNECTIONS] [--connections N] [--idle CONNECTIONS] [--destinations "
                            "N] [--prefetch 0|1]\n");
            return 2;
        }
    }
    memset(payload, 'm', sizeof(payload));
    if (messages > 0) {
        run_messages(open, messages);
    }
    if (connections > 0) {
        run_connections(connections);
    }
    if (idle > 0) {
        run_idle(idle);
    }
    return 0;
}
