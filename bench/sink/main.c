/* main.c: bypost-sink: EAL, one device, a worker on each lcore, and the statistics. */
#include "certificate.h"
#include "dataplane/eal.h"
#include "report.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ERROR_BYTES = 512, EXIT_SETUP = 1, EXIT_USAGE = 64, WAIT_MS = 50, SHOW_WAIT_MS = 1000, RECORD_BUFFER_BYTES = 1 << 20 };

static volatile sig_atomic_t stop_wanted, report_wanted;

static void on_stop(int number) {
    stop_wanted = 1;
}

static void on_report(int number) {
    report_wanted = 1;
}

static void catch_signals(void) {
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_stop}, NULL);
    sigaction(SIGINT, &(struct sigaction){.sa_handler = on_stop}, NULL);
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = on_report}, NULL);
    signal(SIGPIPE, SIG_IGN); /* net_vhost writes to a socket whose peer may be gone */
    signal(SIGHUP, SIG_IGN);
}

struct program {
    struct sink_options options;
    struct arena arena;
    struct port port;
    bool port_is_open;
    struct seen seen, attempts;
    FILE *record;
    struct sink_worker workers[SINK_QUEUES_MAX];
    double started_s;
    struct report_rate rate;
    struct certificate_files certificate;
};

static double clock_s(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int open_record(struct program *program, char *error) {
    if (program->options.record_path == NULL)
        return 0;
    program->record = fopen(program->options.record_path, "we");
    if (program->record == NULL) {
        snprintf(error, ERROR_BYTES, "%s: %s", program->options.record_path, strerror(errno));
        return -errno;
    }
    setvbuf(program->record, NULL, _IOFBF, RECORD_BUFFER_BYTES);
    return 0;
}

static int open_tls(struct program *program, char *error) {
    struct sink_options *options = &program->options;
    if (!sink_options_tls(options))
        return 0;
    if (options->tls_test_ca != NULL) {
        const struct port_options *wire = &options->dataplane.ports[0];
        const struct certificate_request request = {.directory = options->tls_test_ca,
                                                    .name = options->name,
                                                    .more = options->tls_names,
                                                    .address_count = wire->address_count,
                                                    .addresses = wire->addresses,
                                                    .rsa = options->tls_rsa};
        int code = certificate_make(&request, &program->certificate, error, ERROR_BYTES);
        if (code != 0)
            return code;
        options->tls_certificate = program->certificate.certificate;
        options->tls_key = program->certificate.key;
        fprintf(stderr, "bypost-sink: CA: %s (made by openssl), for tls.ca_file\n", program->certificate.ca);
    }
    int code = tls_start();
    if (code != 0)
        snprintf(error, ERROR_BYTES, "TLS cannot start: %s", strerror(-code));
    return code;
}

static int set_up(struct program *program, char *error) {
    struct sink_options *options = &program->options;
    int code = seen_create(&program->seen, options->messages);
    if (code == 0 && options->script.counts_attempts)
        code = seen_create(&program->attempts, options->messages);
    if (code != 0) {
        snprintf(error, ERROR_BYTES, "no memory for %llu Message-IDs: lower --messages.", (unsigned long long)options->messages);
        return code;
    }
    options->script.attempts = &program->attempts;
    code = open_record(program, error);
    if (code == 0)
        code = open_tls(program, error);
    if (code == 0)
        code = eal_start(&options->dataplane, &program->arena, error, ERROR_BYTES);
    if (code != 0)
        return code;
    struct port_request request = {.device = options->dataplane.ports[0].device,
                                   .mode = PORT_MODE_COPY,
                                   .steering = options->steering,
                                   .mtu = options->dataplane.ports[0].mtu,
                                   .workers = options->queues};
    code = port_open(&program->port, &request, error, ERROR_BYTES);
    program->port_is_open = code == 0;
    if (code == 0 && program->port.queues != options->queues) {
        snprintf(error, ERROR_BYTES, "the device gives %u queue pair(s), not %u; net_vhost wants queues=%u in --device.",
                 program->port.queues, options->queues, options->queues);
        code = -EINVAL;
    }
    for (uint32_t i = 0; code == 0 && i < options->dataplane.geometry.workers; i++) {
        struct sink_worker *worker = &program->workers[i];
        worker->index = i;
        worker->poll = options->dataplane.poll;
        worker->record = program->record;
        code = sink_worker_create(worker, options, &program->port, &program->seen, error, ERROR_BYTES);
    }
    return code;
}

static void report(struct program *program) {
    uint32_t count = program->options.dataplane.geometry.workers;
    for (uint32_t i = 0; i < count; i++)
        atomic_fetch_add(&program->workers[i].wanted, 1);
    for (uint32_t waited = 0, i = 0; waited < SHOW_WAIT_MS && i < count;) {
        struct sink_worker *worker = &program->workers[i];
        if (atomic_load_explicit(&worker->shown, memory_order_acquire) == atomic_load(&worker->wanted)) {
            i++;
        } else {
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
            waited++;
        }
    }
    if (program->options.stats_path == NULL)
        return;
    int code = report_write(program->options.stats_path, program->workers, count, &program->options.script, clock_s() - program->started_s,
                            &program->rate);
    if (code != 0)
        fprintf(stderr, "bypost-sink: %s: %s\n", program->options.stats_path, strerror(-code));
}

static void serve(struct program *program) {
    double report_at_s = clock_s() + program->options.interval_s;
    while (!stop_wanted) {
        nanosleep(&(struct timespec){.tv_nsec = WAIT_MS * 1000000L}, NULL);
        bool due = program->options.interval_s != 0 && clock_s() >= report_at_s;
        if (!report_wanted && !due)
            continue;
        report_wanted = 0;
        if (due)
            report_at_s += program->options.interval_s;
        report(program);
    }
    report(program);
    for (uint32_t i = 0; i < program->options.dataplane.geometry.workers; i++)
        atomic_store(&program->workers[i].stop, true);
    for (uint32_t i = 0; i < program->options.dataplane.geometry.workers; i++)
        eal_wait(i);
}

static void tear_down(struct program *program) {
    for (uint32_t i = 0; i < program->options.dataplane.geometry.workers; i++)
        sink_worker_destroy(&program->workers[i]);
    if (program->port_is_open)
        port_close(&program->port);
    if (program->record != NULL)
        fclose(program->record);
    seen_destroy(&program->seen);
    seen_destroy(&program->attempts);
}

int main(int argc, char **argv) {
    static struct program program;
    char error[ERROR_BYTES] = "";
    int code = sink_options_parse(&program.options, argc, argv);
    if (code != 0)
        return code > 0 ? 0 : EXIT_USAGE;
    catch_signals();
    program.started_s = clock_s();
    code = set_up(&program, error);
    if (code != 0) {
        fprintf(stderr, "bypost-sink: %s\n", error);
        return EXIT_SETUP;
    }
    uint32_t workers = program.options.dataplane.geometry.workers;
    for (uint32_t i = 0; i < workers; i++) {
        code = eal_launch(i, sink_worker_run, &program.workers[i]);
        if (code != 0) {
            fprintf(stderr, "bypost-sink: worker %u cannot start: %s\n", i, strerror(-code));
            return EXIT_SETUP;
        }
    }
    fprintf(stderr, "bypost-sink: ready: %u worker(s), %u queue pair(s), %u address(es), up to %u sessions each in %.1f MiB\n", workers,
            program.options.queues, program.options.dataplane.ports[0].address_count, program.options.dataplane.max_sessions,
            (double)program.workers[0].memory_bytes / 1048576.0);
    serve(&program);
    tear_down(&program);
    eal_stop();
    return 0;
}
