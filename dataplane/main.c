/* main.c: bypost-dataplane: takes the journal's lock, starts EAL and the ports, launches a worker on each lcore, and waits for its end. */
#include "dataplane/eal.h"
#include "dataplane/link.h"
#include "dataplane/options.h"
#include "dataplane/worker.h"

#include <bypost/notify.h>
#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { ERROR_BYTES = 512, SERVE_MS = 100, EXIT_SETUP = 1, EXIT_USAGE = 64, EXIT_BUSY = 75 };

static volatile sig_atomic_t stop_wanted;

static void on_signal(int number) {
    (void)number;
    stop_wanted = 1;
}

static void catch_signals(void) {
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
}

struct dataplane {
    struct options options;
    struct journal journal;
    struct arena arena;
    struct port ports[PORTS_MAX];
    uint32_t port_count;
    struct link link;
    struct worker workers[JOURNAL_WORKERS_MAX];
    uid_t user;
    gid_t group;
};

static int find_user(struct dataplane *dataplane, char *error) {
    dataplane->user = geteuid();
    dataplane->group = getegid();
    if (dataplane->options.user == NULL)
        return 0;
    errno = 0;
    const struct passwd *entry = getpwnam(dataplane->options.user);
    if (entry == NULL) {
        snprintf(error, ERROR_BYTES, "there is no user '%s': create it, or change `user:` in bypost.yaml.", dataplane->options.user);
        return -ENOENT;
    }
    dataplane->user = entry->pw_uid;
    dataplane->group = entry->pw_gid;
    return 0;
}

/* Set-up is over: what is left needs no privilege. glibc changes every thread, the workers' included. */
static int drop_privileges(const struct dataplane *dataplane, char *error) {
    if (geteuid() == 0 && dataplane->user != 0 &&
        (fchown(dataplane->journal.fd, dataplane->user, dataplane->group) != 0 || setgroups(0, NULL) != 0 ||
         setgid(dataplane->group) != 0 || setuid(dataplane->user) != 0)) {
        snprintf(error, ERROR_BYTES, "cannot become user '%s': %s.", dataplane->options.user, strerror(errno));
        return -errno;
    }
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    return 0;
}

static int open_ports(struct dataplane *dataplane, char *error) {
    const struct options *options = &dataplane->options;
    for (uint32_t i = 0; i < options->port_count; i++, dataplane->port_count++) {
        const struct port_options *port = &options->ports[i];
        const struct port_request request = {
            .device = port->device,
            .mode = port->mode,
            .steering = port->steering,
            .mtu = port->mtu,
            .workers = options->geometry.workers,
        };
        int code = port_open(&dataplane->ports[i], &request, error, ERROR_BYTES);
        if (code != 0)
            return code;
    }
    return 0;
}

static int create_workers(struct dataplane *dataplane, uint32_t generation, char *error) {
    const struct options *options = &dataplane->options;
    for (uint32_t i = 0; i < options->geometry.workers; i++) {
        struct worker *worker = &dataplane->workers[i];
        worker->index = i;
        worker->workers = options->geometry.workers;
        worker->dataplane_generation = generation;
        worker->poll = options->poll;
        worker->journal = &dataplane->journal;
        worker->counters = journal_counters(&dataplane->journal, i);
        memset(worker->counters, 0, sizeof(*worker->counters));
        worker->doorbell = dataplane->link.worker_doorbells[i];
        worker->shard_doorbells = dataplane->link.shard_doorbells;
        int code = worker_create(worker, options, dataplane->ports, &dataplane->arena, error, ERROR_BYTES);
        if (code != 0)
            return code;
    }
    return 0;
}

static int set_up(struct dataplane *dataplane, char *error) {
    struct options *options = &dataplane->options;
    int code = find_user(dataplane, error);
    if (code == 0)
        code = journal_open(&dataplane->journal, options->journal_path, options->geometry, JOURNAL_DATAPLANE, error, ERROR_BYTES);
    if (code == 0)
        code = eal_start(options, &dataplane->arena, error, ERROR_BYTES);
    if (code == 0)
        code = open_ports(dataplane, error);
    if (code != 0)
        return code;
    uint32_t generation = journal_begin_dataplane(&dataplane->journal);
    code = link_open(&dataplane->link, options->socket_path, dataplane->user, dataplane->group, &dataplane->journal, &dataplane->arena,
                     generation, error, ERROR_BYTES);
    if (code == 0 && (code = tls_start()) != 0)
        snprintf(error, ERROR_BYTES, "wolfSSL does not start: %s.", strerror(-code));
    if (code == 0)
        code = create_workers(dataplane, generation, error);
    if (code == 0)
        code = drop_privileges(dataplane, error);
    if (code == 0 && (code = link_listen(&dataplane->link)) != 0)
        snprintf(error, ERROR_BYTES, "the socket %s cannot listen: %s.", options->socket_path, strerror(-code));
    return code;
}

static double mebibytes(uint64_t bytes) {
    return (double)bytes / 1048576.0;
}

static void report_port(const struct port *port, uint32_t workers) {
    struct port_memory memory;
    port_memory(port, &memory);
    fprintf(stderr, "bypost-dataplane: port %s: %s, MTU %u, %u queue pair(s), %u mbufs in %.1f MiB\n", port->device,
            port->mode == PORT_MODE_REFERENCE ? "by reference" : "by copy", port->mtu, port->queues, memory.mbufs, mebibytes(memory.bytes));
    fprintf(stderr, "bypost-dataplane: port %s: checksums in %s; ", port->device, port->checksum_offload ? "the device" : "software");
    if (port->segmentation_bytes_max != 0)
        fprintf(stderr, "the device splits up to %u bytes into segments; ", port->segmentation_bytes_max);
    if (workers == 1)
        fprintf(stderr, "one worker receives all\n");
    else if (port->rss.hashes)
        fprintf(stderr, "replies come to the worker that opened, by the device's hash over %u entries\n", port->rss.reta_size);
    else
        fprintf(stderr, "%s, local ports are divided between the workers by range\n",
                port->queues > 1 ? "the device's hash is not known" : "one queue, which worker 0 receives for all");
}

static void report(const struct dataplane *dataplane) {
    const struct options *options = &dataplane->options;
    fprintf(stderr, "bypost-dataplane: %u worker(s), arena %u MiB, journal %.1f MiB, congestion control %s\n", options->geometry.workers,
            options->arena_mib, mebibytes(dataplane->journal.mapped_bytes), options->congestion == TCP_NEWRENO ? "NewReno" : "CUBIC");
    for (uint32_t i = 0; i < options->geometry.workers; i++) {
        const struct worker *worker = &dataplane->workers[i];
        fprintf(stderr,
                "bypost-dataplane: worker %u: up to %u sessions: TCP %.1f MiB (%" PRIu64 " bytes a session), SMTP %.1f MiB (%" PRIu64
                " bytes a session)\n",
                i, options->max_sessions, mebibytes(worker->tcp_bytes), worker->tcp_bytes / options->max_sessions,
                mebibytes(worker->smtp_bytes), worker->smtp_bytes / options->max_sessions);
        struct tcp_usage pools;
        tcp_stack_capacity(worker->stack, &pools);
        fprintf(stderr,
                "bypost-dataplane: worker %u: pools of TCP: %u connections, %u ranges to send, %u segments in flight, %u blocks received, "
                "%u TIME_WAIT, %u address pairs, %u blocks of ports\n",
                i, pools.connections, pools.ranges, pools.segments_in_flight, pools.receive_blocks, pools.time_wait, pools.pairs,
                pools.port_blocks);
    }
    for (uint32_t i = 0; i < dataplane->port_count; i++)
        report_port(&dataplane->ports[i], options->geometry.workers);
}

static bool all_stopped(struct dataplane *dataplane) {
    for (uint32_t i = 0; i < dataplane->options.geometry.workers; i++)
        if (!atomic_load(&dataplane->workers[i].stopped))
            return false;
    return true;
}

static uint64_t now_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

/* The watchdog is told that all is well only while every worker's loop turns: systemd kills a hung process, and the next one starts. */
struct pulse {
    uint64_t every_ms, due_ms;
    uint64_t loops[JOURNAL_WORKERS_MAX];
};

static void pulse_beat(struct pulse *pulse, const struct dataplane *dataplane) {
    uint64_t now = now_ms();
    if (pulse->every_ms == 0 || now < pulse->due_ms)
        return;
    pulse->due_ms = now + pulse->every_ms;
    bool turning = true;
    for (uint32_t i = 0; i < dataplane->options.geometry.workers; i++) {
        uint64_t loops = counter_get(&dataplane->workers[i].counters->loops);
        turning = turning && (loops != pulse->loops[i] || atomic_load(&dataplane->workers[i].stopped));
        pulse->loops[i] = loops;
    }
    if (turning)
        notify_send("WATCHDOG=1");
}

static void serve(struct dataplane *dataplane) {
    uint32_t workers = dataplane->options.geometry.workers;
    const uint64_t every_ms = notify_watchdog_us() / 1000;
    struct pulse pulse = {.every_ms = every_ms, .due_ms = now_ms() + every_ms};
    notify_send("READY=1\nSTATUS=the workers run");
    while (!stop_wanted) {
        link_serve(&dataplane->link, SERVE_MS);
        pulse_beat(&pulse, dataplane);
    }
    notify_send("STOPPING=1\nSTATUS=draining: what is on the wire finishes");
    atomic_store(&dataplane->journal.header->draining, 1);
    for (uint32_t i = 0; i < workers; i++)
        atomic_store(&dataplane->workers[i].draining, true);
    uint64_t deadline_ms = now_ms() + dataplane->options.drain_timeout_ms;
    while (!all_stopped(dataplane) && now_ms() < deadline_ms) {
        link_serve(&dataplane->link, 10);
        pulse_beat(&pulse, dataplane);
    }
    for (uint32_t i = 0; i < workers; i++)
        atomic_store(&dataplane->workers[i].kill, true);
    for (uint32_t i = 0; i < workers; i++)
        eal_wait(i);
}

int main(int argc, char **argv) {
    static struct dataplane dataplane;
    char error[ERROR_BYTES] = "";
    int code = options_parse(&dataplane.options, argc, argv);
    if (code != 0)
        return code > 0 ? 0 : EXIT_USAGE;
    catch_signals();
    prctl(PR_SET_NAME, "bypost-dp");
    code = set_up(&dataplane, error);
    if (code != 0) {
        fprintf(stderr, "bypost-dataplane: %s\n", error);
        return code == -EBUSY ? EXIT_BUSY : EXIT_SETUP;
    }
    report(&dataplane);
    for (uint32_t i = 0; i < dataplane.options.geometry.workers; i++) {
        code = eal_launch(i, worker_run, &dataplane.workers[i]);
        if (code != 0) {
            fprintf(stderr, "bypost-dataplane: worker %u cannot start: %s\n", i, strerror(-code));
            return EXIT_SETUP;
        }
    }
    serve(&dataplane);
    for (uint32_t i = 0; i < dataplane.options.geometry.workers; i++)
        worker_destroy(&dataplane.workers[i]);
    for (uint32_t i = 0; i < dataplane.port_count; i++)
        port_close(&dataplane.ports[i]);
    link_close(&dataplane.link, dataplane.options.socket_path);
    journal_close(&dataplane.journal);
    eal_stop();
    return 0;
}
