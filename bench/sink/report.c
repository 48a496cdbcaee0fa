/* report.c: one flat object, with the parts of TCP, net and the workers under names of their own. */
#include "report.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TCP_COUNTERS(X)                                                                                                                    \
    X(established)                                                                                                                         \
    X(accepted)                                                                                                                            \
    X(listen_dropped)                                                                                                                      \
    X(resets_received)                                                                                                                     \
    X(resets_sent)                                                                                                                         \
    X(timeouts)                                                                                                                            \
    X(segments_in)                                                                                                                         \
    X(segments_out)                                                                                                                        \
    X(bytes_in)                                                                                                                            \
    X(bytes_out)                                                                                                                           \
    X(retransmits_fast)                                                                                                                    \
    X(retransmits_timeout)                                                                                                                 \
    X(out_of_order)                                                                                                                        \
    X(duplicates)                                                                                                                          \
    X(bad_segments)                                                                                                                        \
    X(no_connection)                                                                                                                       \
    X(pool_exhausted)                                                                                                                      \
    X(challenge_acks)                                                                                                                      \
    X(time_wait)                                                                                                                           \
    X(keepalives)

#define TCP_USAGE(X)                                                                                                                       \
    X(connections)                                                                                                                         \
    X(ranges)                                                                                                                              \
    X(segments_in_flight)                                                                                                                  \
    X(receive_blocks)

static void add_rules(FILE *file, const struct script *script) {
    fprintf(file, "  \"rules\": [");
    for (uint32_t i = 0; i < script->count; i++)
        fprintf(file, "%s{\"action\": \"%s\", \"stage\": \"%s\", \"applied\": %llu}", i == 0 ? "" : ", ",
                script_action_text(script->rules[i].action), script_stage_text(script->rules[i].stage),
                (unsigned long long)atomic_load_explicit(&script->rules[i].applied, memory_order_relaxed));
    fprintf(file, "],\n");
}

static void add_workers(FILE *file, const struct sink_worker *workers, uint32_t count) {
    fprintf(file, "  \"workers\": [");
    for (uint32_t i = 0; i < count; i++) {
        const struct counters *counters = &workers[i].counters;
        fprintf(file,
                "%s{\"sessions\": %u, \"messages\": %llu, \"frames_in\": %llu, \"frames_out\": %llu, \"frames_refused\": %llu,"
                " \"frames_bad\": %llu, \"loops\": %llu, \"loops_busy\": %llu}",
                i == 0 ? "" : ", ", workers[i].snapshot.sessions, (unsigned long long)workers[i].snapshot.tally.messages,
                (unsigned long long)counter_get(&counters->frames_in), (unsigned long long)counter_get(&counters->frames_out),
                (unsigned long long)counter_get(&counters->frames_refused), (unsigned long long)counter_get(&counters->frames_bad),
                (unsigned long long)counter_get(&counters->loops), (unsigned long long)counter_get(&counters->loops_busy));
    }
    fprintf(file, "]\n");
}

static uint64_t resident_bytes(void) {
    unsigned long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%*u %llu", &pages) != 1)
        pages = 0;
    fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void report_print(FILE *file, const struct sink_worker *workers, uint32_t count, const struct script *script, double uptime_s,
                         struct report_rate *rate) {
    struct sink_snapshot sum = {0};
    for (uint32_t i = 0; i < count; i++) {
        const struct sink_snapshot *one = &workers[i].snapshot;
        sum.sessions += one->sessions;
        sum.tls.sessions += one->tls.sessions;
        sum.tls.heap_bytes += one->tls.heap_bytes;
#define X(name, help) sum.tally.name += one->tally.name;
        SINK_TALLY(X)
#undef X
#define X(name) sum.tcp.name += one->tcp.name;
        TCP_COUNTERS(X)
#undef X
#define X(name) sum.usage.name += one->usage.name;
        TCP_USAGE(X)
#undef X
    }
    fprintf(file, "{\n  \"uptime_seconds\": %.3f,\n  \"resident_bytes\": %llu,\n  \"session_bytes\": %zu,\n  \"sessions\": %u,\n", uptime_s,
            (unsigned long long)resident_bytes(), sink_session_bytes(), sum.sessions);
#define X(name, help) fprintf(file, "  \"%s\": %llu,\n", #name, (unsigned long long)sum.tally.name);
    SINK_TALLY(X)
#undef X
    fprintf(file, "  \"recipients_per_transaction\": %.3f,\n  \"tls_sessions_alive\": %u,\n  \"tls_memory_bytes\": %llu,\n",
            sum.tally.transactions == 0 ? 0.0 : (double)sum.tally.recipients / (double)sum.tally.transactions, sum.tls.sessions,
            (unsigned long long)sum.tls.heap_bytes);
    rate->handshakes_per_second =
        uptime_s > rate->at_s ? (double)(sum.tally.tls_sessions - rate->handshakes) / (uptime_s - rate->at_s) : 0.0;
    rate->handshakes = sum.tally.tls_sessions;
    rate->at_s = uptime_s;
    fprintf(file, "  \"tls_handshakes_per_second\": %.1f,\n", rate->handshakes_per_second);
    fprintf(file, "  \"tcp\": {");
#define X(name) fprintf(file, "\"%s\": %llu, ", #name, (unsigned long long)sum.tcp.name);
    TCP_COUNTERS(X)
#undef X
#define X(name) fprintf(file, "%s\"%s_used\": %u", strcmp(#name, "connections") == 0 ? "" : ", ", #name, sum.usage.name);
    TCP_USAGE(X)
#undef X
    fprintf(file, "},\n");
    add_rules(file, script);
    add_workers(file, workers, count);
    fprintf(file, "}\n");
}

int report_write(const char *path, const struct sink_worker *workers, uint32_t count, const struct script *script, double uptime_s,
                 struct report_rate *rate) {
    char beside[4096];
    if (snprintf(beside, sizeof(beside), "%s.new", path) >= (int)sizeof(beside))
        return -ENAMETOOLONG;
    FILE *file = fopen(beside, "we");
    if (file == NULL)
        return -errno;
    report_print(file, workers, count, script, uptime_s, rate);
    if (fclose(file) != 0 || rename(beside, path) != 0)
        return -errno;
    return 0;
}
