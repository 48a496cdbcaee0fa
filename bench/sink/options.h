/* options.h: bypost-sink's command line. */
#ifndef BENCH_SINK_OPTIONS_H
#define BENCH_SINK_OPTIONS_H

#include "auth.h"
#include "dataplane/options.h"
#include "script.h"

enum { SINK_LISTEN_MAX = 64, SINK_QUEUES_MAX = NET_MORE_QUEUES_MAX + 1 };

struct sink_options {
    struct options dataplane; /* EAL, lcores, one port with its addresses, sessions, idle: as eal_start and the worker want them */
    uint32_t queues;          /* of the device, divided among the workers; with one worker it serves all */
    enum port_steering steering;
    uint32_t listen_count, plain_count; /* the first plain_count begin without TLS */
    uint16_t listen[SINK_LISTEN_MAX];
    uint32_t tls_count;
    uint16_t tls_listen[SINK_LISTEN_MAX];
    const char *tls_certificate, *tls_key, *tls_test_ca, *tls_names;
    bool tls_rsa, tls_no_starttls, tls_no_resumption;
    uint32_t tls_version_max;
    struct auth_users users;
    uint8_t mechanisms;
    bool require_auth, require_tls;
    struct tcp_address gateway6;
    const char *name;
    uint16_t extensions;
    uint64_t size_max, messages;
    uint32_t recipients_max, mails_max, transactions, receive_buffer_bytes, keepalive_s, half_open, time_wait;
    const char *stats_path, *record_path;
    uint32_t interval_s;
    struct script script;
};

/* Is there a certificate, or is one to be made? */
bool sink_options_tls(const struct sink_options *options);
/* 0 to go on; 1 when --help or --version was answered; -1 after a sentence on stderr. */
int sink_options_parse(struct sink_options *options, int argc, char **argv);

#endif
