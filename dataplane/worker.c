/* worker.c: RX burst -> net -> tcp -> smtp; orders; timers; TX burst; and what to do when there is nothing to do. */
#include "dataplane/worker.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum {
    HINTS_A_PASS = 64,
    TCP_BUDGET = 256,
    SMTP_BUDGET = 256,
    RECEIVE_BUFFER_BYTES = 16384, /* replies are short */
    BUSY_FRAMES = 4,              /* a pass that moved fewer may be followed by a sleep (DESIGN.md section 5) */
    SLEEP_FIRST_US = 50,
    SLEEP_MAX_US = 250,
    TIMER_SLACK_NS = 1000, /* the default slack adds 50 us to every sleep */
    COUNT_EVERY_US = 100000,
};

static uint64_t clock_us(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000;
}

static void ring_shard(void *context, uint32_t shard) {
    struct worker *worker = context;
    if (shard >= worker->journal->geometry.shards || !doorbell_take(journal_shard_waiting(worker->journal, shard)))
        return;
    uint64_t one = 1;
    ssize_t written = write(worker->shard_doorbells[shard], &one, sizeof(one));
    (void)written; /* full means that it is ringing already */
}

static int create_tls(struct worker *worker, const struct options *options, char *error, size_t error_bytes) {
    char why[256] = "the kernel gives no random numbers.";
    struct tls_config tls = {
        .ca_file = options->tls_ca,
        .identity_count = options->tls_identity_count,
        .identities = options->tls_identities,
        .max_sessions = options->max_sessions,
        .realtime_offset_us = (int64_t)(clock_us(CLOCK_REALTIME) - clock_us(CLOCK_MONOTONIC)),
        .now_us = clock_us(CLOCK_MONOTONIC),
    };
    if (getrandom(tls.secret, sizeof(tls.secret), 0) == (ssize_t)sizeof(tls.secret))
        worker->tls = tls_worker_create(&tls, why, sizeof(why));
    explicit_bzero(tls.secret, sizeof(tls.secret));
    if (worker->tls != NULL)
        return 0;
    snprintf(error, error_bytes, "worker %u has no TLS: %s", worker->index, why);
    return -EINVAL;
}

static int create_engine(struct worker *worker, const struct options *options, const struct arena *arena, struct tcp_config *tcp) {
    struct smtp_config smtp = {
        .journal = worker->journal,
        .worker = worker->index,
        .dataplane_generation = worker->dataplane_generation,
        .arena = arena->bytes,
        .arena_bytes = arena->length,
        .max_sessions = options->max_sessions,
        .max_orders = worker->journal->geometry.slots,
        .tls = worker->tls,
        .realtime_offset_us = (int64_t)(clock_us(CLOCK_REALTIME) - clock_us(CLOCK_MONOTONIC)),
        .ring_doorbell = ring_shard,
        .context = worker,
    };
    if (getrandom(smtp.secret, sizeof(smtp.secret), 0) != (ssize_t)sizeof(smtp.secret) ||
        getrandom(tcp->secret, sizeof(tcp->secret), 0) != (ssize_t)sizeof(tcp->secret))
        return -EIO;
    worker->engine = smtp_engine_create(&smtp, &tcp->events);
    return worker->engine == NULL ? -ENOMEM : 0;
}

static void fill_interface(struct net_interface *interface, const struct port_options *options, const struct port *port,
                           struct port_queue *queue) {
    interface->queue = queue;
    memcpy(interface->mac, port->mac, sizeof(interface->mac));
    interface->mtu = port->mtu;
    interface->vlan = options->vlan;
    interface->address_count = options->address_count;
    memcpy(interface->addresses, options->addresses, sizeof(interface->addresses));
    interface->gateway = options->gateway;
    interface->gateway6 = options->gateway6;
    interface->rss = &port->rss;
}

int worker_create(struct worker *worker, const struct options *options, struct port *ports, const struct arena *arena, char *error,
                  size_t error_bytes) {
    uint64_t now_us = clock_us(CLOCK_MONOTONIC);
    uint16_t span = (uint16_t)((uint32_t)(options->port_last - options->port_first + 1) / worker->workers);
    struct net_config net = {
        .interface_count = options->port_count,
        .worker = worker->index,
        .workers = worker->workers,
        .port_first = options->port_first,
        .port_span = span,
        .counters = worker->counters,
    };
    uint16_t mtu = UINT16_MAX;
    uint32_t segmentation_bytes_max = UINT32_MAX; /* the stack does not know the ports apart */
    for (uint32_t i = 0; i < options->port_count; i++) {
        worker->queues[i] = port_queue_create(&ports[i], worker->index, worker->workers, arena->bytes, arena->length, worker->counters);
        if (worker->queues[i] == NULL) {
            snprintf(error, error_bytes, "worker %u gets no queue of %s: %s. More dataplane.memory may help.", worker->index,
                     ports[i].device, strerror(errno));
            return -ENOMEM;
        }
        worker->port_count++;
        fill_interface(&net.interfaces[i], &options->ports[i], &ports[i], worker->queues[i]);
        if (ports[i].mtu < mtu)
            mtu = ports[i].mtu;
        if (ports[i].segmentation_bytes_max < segmentation_bytes_max)
            segmentation_bytes_max = ports[i].segmentation_bytes_max;
    }
    worker->net = net_create(&net, now_us);
    if (worker->net == NULL) {
        int reason = errno;
        snprintf(error, error_bytes, "worker %u gets no network: %s. %s", worker->index, strerror(reason),
                 reason == EINVAL ? "An address stands twice, a gateway is on no port's network, or IPv6 has an MTU below 1280."
                                  : "Add memory.");
        return -reason;
    }
    struct tcp_config tcp = {
        .max_connections = options->max_sessions,
        .receive_buffer_bytes = RECEIVE_BUFFER_BYTES,
        .mtu = mtu,
        .port_first = (uint16_t)(options->port_first + worker->index * span),
        .port_last = (uint16_t)(options->port_first + (worker->index + 1) * span - 1),
        .segmentation_bytes_max = segmentation_bytes_max,
        .congestion = options->congestion,
        .transmit = net_transmit,
        .choose_ports = net_choose_ports,
        .unknown = net_unknown,
        .network = worker->net,
    };
    int code = create_tls(worker, options, error, error_bytes);
    if (code != 0)
        return code;
    code = create_engine(worker, options, arena, &tcp);
    if (code == 0) {
        worker->stack = tcp_stack_create(&tcp, now_us);
        code = worker->stack == NULL ? -ENOMEM : 0;
    }
    if (code != 0) {
        snprintf(error, error_bytes, "worker %u cannot be made: %s. Lower dataplane.max_sessions or add memory.", worker->index,
                 strerror(-code));
        return code;
    }
    net_attach(worker->net, worker->stack);
    smtp_engine_attach(worker->engine, worker->stack);
    worker->tcp_bytes = tcp_stack_memory_bytes(worker->stack);
    worker->smtp_bytes = smtp_engine_memory_bytes(worker->engine);
    return 0;
}

void worker_destroy(struct worker *worker) {
    if (worker->stack != NULL)
        tcp_stack_destroy(worker->stack);
    if (worker->engine != NULL)
        smtp_engine_destroy(worker->engine);
    tls_worker_destroy(worker->tls);
    if (worker->net != NULL)
        net_destroy(worker->net);
    for (uint32_t i = 0; i < worker->port_count; i++)
        port_queue_destroy(worker->queues[i]);
}

/* Orders and path hints of every shard. */
static uint32_t take_hints(struct worker *worker, uint64_t now_us) {
    uint32_t taken = 0;
    for (uint32_t shard = 0; shard < worker->journal->geometry.shards; shard++) {
        uint64_t entries[HINTS_A_PASS];
        uint32_t count = ring_pop(worker->journal, journal_order_ring(worker->journal, worker->index, shard), entries, HINTS_A_PASS);
        for (uint32_t i = 0; i < count; i++)
            smtp_engine_hint(worker->engine, entries[i], now_us);
        taken += count;
    }
    return taken;
}

static bool hints_wait(const struct worker *worker) {
    for (uint32_t shard = 0; shard < worker->journal->geometry.shards; shard++)
        if (ring_waiting(worker->journal, journal_order_ring(worker->journal, worker->index, shard)))
            return true;
    return false;
}

static void publish_counters(struct worker *worker) {
    const struct tcp_counters *tcp = tcp_stack_counters(worker->stack);
    struct counters *counters = worker->counters;
    counter_set(&counters->tcp_connects, tcp->connects);
    counter_set(&counters->tcp_established, tcp->established);
    counter_set(&counters->tcp_failed, tcp->refused + tcp->resets_received + tcp->timeouts);
    counter_set(&counters->tcp_retransmits, tcp->retransmits_fast + tcp->retransmits_timeout);
    counter_set(&counters->tcp_connections, tcp_stack_connections(worker->stack));
    struct tls_usage tls;
    tls_worker_usage(worker->tls, &tls);
    counter_set(&counters->tls_handshakes, tls.handshakes);
    counter_set(&counters->tls_resumed, tls.resumed);
    counter_set(&counters->tls_failed, tls.failed);
    counter_set(&counters->tls_sessions, tls.sessions);
    counter_set(&counters->tls_memory_bytes, tls.heap_bytes);
}

/* Sleeps until the doorbell, the next deadline or `sleep_us`, whichever comes first. */
static void rest(struct worker *worker, bool admitted, uint64_t now_us, uint64_t deadline_us, uint32_t sleep_us) {
    if (deadline_us <= now_us)
        return;
    if (deadline_us - now_us < sleep_us)
        sleep_us = (uint32_t)(deadline_us - now_us);
    _Atomic uint32_t *waiting = journal_worker_waiting(worker->journal, worker->index);
    doorbell_arm(waiting);
    if (!admitted || !hints_wait(worker)) {
        struct pollfd bell = {.fd = worker->doorbell, .events = POLLIN};
        struct timespec timeout = {.tv_nsec = (long)sleep_us * 1000};
        if (ppoll(&bell, 1, &timeout, NULL) > 0) {
            uint64_t rung;
            ssize_t got = read(worker->doorbell, &rung, sizeof(rung));
            (void)got;
        }
        counter_add(&worker->counters->sleeps, 1);
    }
    atomic_store_explicit(waiting, 0, memory_order_relaxed);
}

int worker_run(void *argument) {
    struct worker *worker = argument;
    struct counters *counters = worker->counters;
    prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS);
    bool admitted = false, draining = false;
    uint32_t sleep_us = SLEEP_FIRST_US;
    uint64_t count_at_us = 0;
    while (!atomic_load_explicit(&worker->kill, memory_order_relaxed)) {
        uint64_t now_us = clock_us(CLOCK_MONOTONIC);
        uint32_t moved = net_receive(worker->net, now_us);
        /* A new dataplane takes nothing before control has harvested what the one before left. */
        admitted = admitted || journal_harvested(worker->journal, worker->dataplane_generation);
        if (admitted)
            moved += take_hints(worker, now_us);
        if (!draining && atomic_load_explicit(&worker->draining, memory_order_relaxed)) {
            draining = true;
            smtp_engine_drain(worker->engine, now_us);
        }
        bool handshakes_wait = tls_worker_poll(worker->tls, now_us); /* before SMTP, which then hears of them in this pass */
        uint64_t deadline_us = smtp_engine_poll(worker->engine, SMTP_BUDGET, now_us);
        uint64_t tcp_us = tcp_poll(worker->stack, TCP_BUDGET, now_us);
        uint64_t net_us = net_poll(worker->net, now_us);
        deadline_us = tcp_us < deadline_us ? tcp_us : deadline_us;
        deadline_us = net_us < deadline_us ? net_us : deadline_us;
        counter_add(&counters->loops, 1);
        if (moved != 0)
            counter_add(&counters->loops_busy, 1);
        if (now_us >= count_at_us) {
            publish_counters(worker);
            count_at_us = now_us + COUNT_EVERY_US;
        }
        if (draining && smtp_engine_idle(worker->engine))
            break;
        if (moved >= BUSY_FRAMES || worker->poll || handshakes_wait) {
            sleep_us = SLEEP_FIRST_US;
            continue;
        }
        rest(worker, admitted, now_us, deadline_us, sleep_us);
        sleep_us = sleep_us * 2 > SLEEP_MAX_US ? SLEEP_MAX_US : sleep_us * 2;
    }
    publish_counters(worker);
    atomic_store(&worker->stopped, true);
    return 0;
}
