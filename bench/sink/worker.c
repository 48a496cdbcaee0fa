/* worker.c: RX burst -> net -> tcp -> smtp; timers; TX burst; and a short sleep when there is nothing to do. */
#include "worker.h"

#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <time.h>

enum {
    TCP_BUDGET = 1024,
    BUSY_FRAMES = 4, /* as in dataplane/worker.c (DESIGN.md section 5) */
    SLEEP_FIRST_US = 50,
    SLEEP_MAX_US = 250,
    TIMER_SLACK_NS = 1000,
};

static uint64_t clock_us(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000;
}

static int open_queues(struct sink_worker *worker, const struct sink_options *options, struct port *port, struct net_interface *interface) {
    uint32_t workers = options->dataplane.geometry.workers;
    uint32_t queues = workers == 1 ? port->queues : 1;
    for (uint32_t i = 0; i < queues; i++) {
        struct port_queue *queue = port_queue_create(port, worker->index + i, options->queues, NULL, 0, &worker->counters);
        if (queue == NULL)
            return -errno;
        worker->queues[worker->queue_count++] = queue;
        if (i > 0)
            interface->more_queues[interface->more_queue_count++] = queue;
    }
    interface->queue = worker->queues[0];
    interface->rss = port->rss.hashes && queues > 1 ? &port->rss : NULL;
    return 0;
}

static int create_net(struct sink_worker *worker, const struct sink_options *options, struct port *port) {
    const struct port_options *wire = &options->dataplane.ports[0];
    static const struct net_config none;
    struct net_config net = none;
    net.interface_count = 1;
    net.worker = worker->index;
    net.workers = options->dataplane.geometry.workers;
    net.counters = &worker->counters;
    struct net_interface *interface = &net.interfaces[0];
    int code = open_queues(worker, options, port, interface);
    if (code != 0)
        return code;
    memcpy(interface->mac, port->mac, sizeof(interface->mac));
    interface->mtu = port->mtu;
    interface->vlan = wire->vlan;
    interface->address_count = wire->address_count;
    memcpy(interface->addresses, wire->addresses, sizeof(interface->addresses));
    interface->gateway = wire->gateway;
    interface->gateway6 = options->gateway6;
    worker->net = net_create(&net, clock_us());
    return worker->net == NULL ? -errno : 0;
}

static int listen_all(struct sink_worker *worker, const struct sink_options *options) {
    for (uint32_t i = 0; i < options->listen_count; i++) {
        for (uint8_t family = 4; family <= 6; family += 2) {
            struct tcp_address any = {.family = family};
            int code = tcp_listen(worker->stack, &any, options->listen[i], sink_listener(worker->sink, i >= options->plain_count));
            if (code != 0)
                return code;
        }
    }
    return 0;
}

static int create_stack(struct sink_worker *worker, const struct sink_options *options) {
    struct tcp_config tcp = {
        .max_connections = options->dataplane.max_sessions,
        .receive_buffer_bytes = options->receive_buffer_bytes,
        .mtu = options->dataplane.ports[0].mtu,
        .port_first = 1024,
        .port_last = 65535,
        .keepalive_us = (uint64_t)options->keepalive_s * 1000000,
        .max_half_open = options->half_open,
        .max_time_wait = options->time_wait,
        .transmit = net_transmit,
        .network = worker->net,
        .events = sink_events(),
    };
    if (getrandom(tcp.secret, sizeof(tcp.secret), 0) != (ssize_t)sizeof(tcp.secret))
        return -EIO;
    worker->stack = tcp_stack_create(&tcp, clock_us());
    return worker->stack == NULL ? -errno : 0;
}

static uint64_t realtime_us(void) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000;
}

static int create_tls(struct sink_worker *worker, const struct sink_options *options, char *error, size_t error_bytes) {
    struct tls_identity identity = {.certificate_file = options->tls_certificate, .key_file = options->tls_key};
    struct tls_config config = {.ca_file = options->tls_certificate, /* of clients nothing is asked */
                                .identity_count = 1,
                                .identities = &identity,
                                .server = true,
                                .no_resumption = options->tls_no_resumption,
                                .version_max = (uint8_t)options->tls_version_max,
                                .max_sessions = options->dataplane.max_sessions,
                                .realtime_offset_us = (int64_t)(realtime_us() - clock_us())};
    if (!sink_options_tls(options))
        return 0;
    if (getrandom(config.secret, sizeof(config.secret), 0) != (ssize_t)sizeof(config.secret))
        return -EIO;
    worker->tls = tls_worker_create(&config, error, error_bytes);
    return worker->tls == NULL ? -EINVAL : 0;
}

int sink_worker_create(struct sink_worker *worker, struct sink_options *options, struct port *port, struct seen *seen, char *error,
                       size_t error_bytes) {
    if (create_tls(worker, options, error, error_bytes) != 0)
        return -EINVAL;
    struct sink_config config = {
        .name = options->name,
        .extensions = options->extensions,
        .size_max = options->size_max,
        .recipients_max = options->recipients_max,
        .mails_max = options->mails_max,
        .tls = worker->tls,
        .users = options->users.count == 0 ? NULL : &options->users,
        .mechanisms = options->mechanisms,
        .require_auth = options->require_auth,
        .require_tls = options->require_tls,
        .max_sessions = options->dataplane.max_sessions,
        .max_transactions = options->transactions,
        .script = &options->script,
        .seen = seen,
        .record = worker->record,
    };
    int code = create_net(worker, options, port);
    if (code == 0)
        code = create_stack(worker, options);
    if (code == 0) {
        worker->sink = sink_create(&config);
        code = worker->sink == NULL ? -errno : listen_all(worker, options);
    }
    if (code != 0) {
        snprintf(error, error_bytes, "worker %u cannot be made: %s. More --memory-mib, or fewer --sessions, may help.", worker->index,
                 strerror(-code));
        return code;
    }
    net_attach(worker->net, worker->stack);
    worker->memory_bytes = tcp_stack_memory_bytes(worker->stack) + sink_memory_bytes(worker->sink);
    return 0;
}

void sink_worker_destroy(struct sink_worker *worker) {
    if (worker->stack != NULL)
        tcp_stack_destroy(worker->stack);
    if (worker->tls != NULL)
        tls_worker_destroy(worker->tls);
    if (worker->sink != NULL)
        sink_destroy(worker->sink);
    if (worker->net != NULL)
        net_destroy(worker->net);
    for (uint32_t i = 0; i < worker->queue_count; i++)
        port_queue_destroy(worker->queues[i]);
}

static void show(struct sink_worker *worker, uint32_t wanted) {
    struct sink_snapshot *snapshot = &worker->snapshot;
    snapshot->tally = *sink_tally(worker->sink);
    snapshot->tcp = *tcp_stack_counters(worker->stack);
    snapshot->net = *net_counters(worker->net);
    tcp_stack_usage(worker->stack, &snapshot->usage);
    snapshot->sessions = sink_sessions(worker->sink);
    if (worker->tls != NULL)
        tls_worker_usage(worker->tls, &snapshot->tls);
    if (worker->record != NULL)
        fflush(worker->record);
    atomic_store_explicit(&worker->shown, wanted, memory_order_release);
}

int sink_worker_run(void *argument) {
    struct sink_worker *worker = argument;
    struct counters *counters = &worker->counters;
    uint32_t sleep_us = SLEEP_FIRST_US;
    prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS);
    while (!atomic_load_explicit(&worker->stop, memory_order_relaxed)) {
        uint64_t now_us = clock_us();
        uint32_t moved = net_receive(worker->net, now_us);
        uint64_t due_us = sink_poll(worker->sink, now_us);
        uint64_t tcp_us = tcp_poll(worker->stack, TCP_BUDGET, now_us);
        uint64_t net_us = net_poll(worker->net, now_us);
        due_us = tcp_us < due_us ? tcp_us : due_us;
        due_us = net_us < due_us ? net_us : due_us;
        counter_add(&counters->loops, 1);
        if (moved != 0)
            counter_add(&counters->loops_busy, 1);
        uint32_t wanted = atomic_load_explicit(&worker->wanted, memory_order_relaxed);
        if (wanted != atomic_load_explicit(&worker->shown, memory_order_relaxed))
            show(worker, wanted);
        if (moved >= BUSY_FRAMES || worker->poll || due_us <= now_us) {
            sleep_us = SLEEP_FIRST_US;
            continue;
        }
        uint64_t rest_us = due_us - now_us < sleep_us ? due_us - now_us : sleep_us;
        nanosleep(&(struct timespec){.tv_nsec = (long)rest_us * 1000}, NULL);
        counter_add(&counters->sleeps, 1);
        sleep_us = sleep_us * 2 > SLEEP_MAX_US ? SLEEP_MAX_US : sleep_us * 2;
    }
    show(worker, atomic_load(&worker->wanted));
    return 0;
}
