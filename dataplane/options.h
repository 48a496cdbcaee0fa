/* options.h: the dataplane's command line. `bypost run` writes it from bypost.yaml, so that this process reads no configuration file. */
#ifndef DATAPLANE_OPTIONS_H
#define DATAPLANE_OPTIONS_H

#include "dataplane/net/net.h"
#include "dataplane/port/port.h"
#include "dataplane/tls/tls.h"
#include <bypost/journal.h>
#include <stdbool.h>
#include <stdint.h>

enum { OPTIONS_EAL_MAX = 32 };

struct port_options {
    char device[256];
    enum port_mode mode;
    enum port_steering steering;
    uint16_t mtu, vlan;
    uint32_t address_count;
    struct net_address addresses[NET_ADDRESSES_MAX];
    struct tcp_address gateway, gateway6; /* by the family that was written */
};

struct options {
    const char *journal_path, *socket_path, *user;
    struct journal_geometry geometry; /* workers: the number of lcores */
    uint32_t lcores[JOURNAL_WORKERS_MAX];
    uint32_t main_lcore;
    uint32_t memory_mib, arena_mib;
    bool hugepages;
    bool poll; /* idle: spin */
    uint32_t max_sessions;
    uint16_t port_first, port_last;
    enum tcp_congestion congestion;
    uint32_t drain_timeout_ms;
    uint32_t port_count;
    struct port_options ports[PORTS_MAX];
    const char *tls_ca; /* NULL: the system's */
    uint32_t tls_identity_count;
    struct tls_identity tls_identities[TLS_IDENTITIES_MAX];
    uint32_t eal_count;
    const char *eal[OPTIONS_EAL_MAX];
};

/* 0 to go on; 1 when --help or --version was answered; -1 after a sentence on stderr. */
int options_parse(struct options *options, int argc, char **argv);

#endif
