/* check.c: the checks across keys, and against this machine: addresses, lcores, files, users. */
#include "check.h"
#include "address.h"
#include "bulk.h"
#include "control/job.h"
#include "dkim.h"
#include "relays.h"
#include "share.h"

#include <bypost/path.h>
#include <ctype.h>
#include <errno.h>
#include <net/if.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    RUN_DIRECTORY_MAX = 90, /* a Unix socket's path has 107 bytes, and ours adds /dataplane.sock */
    TCP_PORTS_MIN = 256,    /* for each worker, which holds ports in blocks */
    IPV6_MTU_MIN = 1280,    /* RFC 8200 5 */
    IDENTITY_KEY_MIN = 32,
    PORTS_MAX = 8, /* as many as a dataplane opens, with so many addresses each ... */
    PORT_ADDRESSES_MAX = 64,
    DEVICE_MAX = 255,
    EAL_ARGS_MAX = 32,
    ARENA_SPARE_BYTES = 16 << 20, /* ... and this much memory beside the arena */
};

/* Opens what the configuration names, to see that it can be read. 0 or an errno; its status in *status. */
static int file_look(const char *path, struct stat *status) {
    FILE *stream = fopen(path, "re");
    if (!stream) {
        return errno;
    }
    int error = fstat(fileno(stream), status) != 0 ? errno : S_ISREG(status->st_mode) ? 0 : EISDIR;
    fclose(stream);
    return error;
}

/* May the user that the processes become read it? Asked only where they will change. */
static bool user_reads(const struct config *config, const struct stat *status) {
    const struct passwd *entry = config->user && geteuid() == 0 ? getpwnam(config->user) : NULL;
    if (!entry || entry->pw_uid == 0) {
        return true;
    }
    mode_t wanted = status->st_uid == entry->pw_uid ? S_IRUSR : status->st_gid == entry->pw_gid ? S_IRGRP : S_IROTH;
    return status->st_mode & wanted;
}

void check_secret(struct reader *reader, const struct config *config, const struct yaml_node *node, const char *what, const char *path,
                  const char *remedy) {
    struct stat status;
    int error = file_look(path, &status);
    if (error) {
        reader_error(reader, node, "%s %s cannot be read: %s; %s.", what, path, error == EISDIR ? "it is no regular file" : strerror(error),
                     remedy);
    } else if (!user_reads(config, &status)) {
        reader_error(reader, node, "%s %s cannot be read by user `%s`, which the processes become; run `chown %s %s`.", what, path,
                     config->user, config->user, path);
    } else if (status.st_mode & (S_IRWXO | S_IWGRP)) {
        reader_warn(reader, node, "%s %s is open to other users (mode %04o); run `chmod 640 %s`.", what, path,
                    (unsigned)status.st_mode & 07777u, path);
    }
}

void check_readable(struct reader *reader, const struct yaml_node *node, const char *what, const char *path, const char *remedy) {
    struct stat status;
    int error = file_look(path, &status);
    if (error) {
        reader_error(reader, node, "%s %s cannot be read: %s; %s.", what, path, error == EISDIR ? "it is no regular file" : strerror(error),
                     remedy);
    }
}

static void check_identity_key(struct reader *reader, const struct config *config, const struct yaml_node *node, const char *path,
                               const char *remedy) {
    struct stat status;
    check_secret(reader, config, node, "the identity key", path, remedy);
    if (file_look(path, &status) == 0 && status.st_size < IDENTITY_KEY_MIN) {
        reader_error(reader, node, "the identity key has %lld bytes and needs %d; make it with `head -c 32 /dev/urandom`.",
                     (long long)status.st_size, IDENTITY_KEY_MIN);
    }
}

static void check_general(struct reader *reader, const struct config *config) {
    if (!config->node || strlen(config->node) > 63 ||
        config->node[strspn(config->node, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")]) {
        reader_error(reader, reader_place(reader, &config->node),
                     "`node` must be 1 to 63 letters, digits, `.`, `_` or `-`; write a name that no other node has.");
    }
    if (!config->run_directory || strlen(config->run_directory) > RUN_DIRECTORY_MAX) {
        reader_error(
            reader, reader_place(reader, &config->run_directory),
            "`run_directory` must be a path of at most %d bytes, because sockets lie there; write a shorter one such as /run/bypost.",
            RUN_DIRECTORY_MAX);
    }
    if (!config->state_directory) {
        reader_error(reader, reader_place(reader, &config->state_directory),
                     "`state_directory` cannot be taken away; write a path such as /var/lib/bypost.");
    }
    if (config->user && !getpwnam(config->user)) {
        reader_error(reader, reader_place(reader, &config->user),
                     "there is no user `%s`; make it with `useradd --system %s`, or remove the key.", config->user, config->user);
    }
    if (config->identity_key_file) {
        check_identity_key(reader, config, reader_place(reader, &config->identity_key_file), config->identity_key_file,
                           "make it with `head -c 32 /dev/urandom`, or remove the key to have one made");
    }
    for (char **at = config->former_identity_keys; at && *at; at++) {
        check_identity_key(reader, config, reader_place(reader, *at), *at,
                           "correct the path, or remove it: tokens made with it are no longer opened");
    }
    struct stat status;
    int error = config->class_rules_path ? file_look(config->class_rules_path, &status) : 0;
    if (error) {
        reader_error(reader, reader_place(reader, &config->class_rules_path),
                     "the class rules %s cannot be read: %s; correct the path, or remove the key to use the shipped rules.",
                     config->class_rules_path, strerror(error));
    }
    if (config->max_message_bytes > config->dataplane.arena_bytes / 2) {
        reader_error(reader, reader_place(reader, &config->max_message_bytes),
                     "`max_message_size` is more than half of dataplane.arena, which holds the messages under way; make the arena larger "
                     "or the message smaller.");
    }
}

static void check_metrics(struct reader *reader, const struct config *config) {
    struct config_address address;
    const char *listen = config->metrics.listen;
    if (listen && strcmp(listen, "none") != 0 && (strncmp(listen, "unix:/", 6) != 0 || !listen[6]) &&
        (!address_parse_port(listen, 0, &address) || address.port == 0)) {
        reader_error(reader, reader_place(reader, &config->metrics.listen),
                     "`listen` of metrics is '%s'; write an address of this machine with a port, as `127.0.0.1:9465` or `[::1]:9465`, a "
                     "socket as `unix:/run/bypost/metrics.sock`, or `none`.",
                     listen);
    }
}

/* local@domain of plain characters. */
static bool address_plain(const char *address) {
    const char *at = strchr(address, '@');
    bool good = at && at > address && at - address <= 64 && host_is_fqdn(at + 1);
    for (const char *c = address; good && c < at; c++) {
        good = isalnum((unsigned char)*c) || strchr("+-_", *c) || (*c == '.' && c > address && c[-1] != '.' && c + 1 < at);
    }
    return good;
}

/* Whom notices are from. */
static void check_notices(struct reader *reader, const struct config *config) {
    const char *from = config->notices.from;
    if (from && !address_plain(from)) {
        reader_error(reader, reader_place(reader, &config->notices.from),
                     "notices.from `%s` is no address; write one such as MAILER-DAEMON@mta1.example.com, or leave it out.", from);
    }
}

static bool limits_dane(const struct config *config) {
    bool wanted = config->defaults.enable_dane;
    for (uint32_t i = 0; i < config->provider_count; i++) {
        wanted |= config->providers[i].limits.enable_dane;
    }
    for (uint32_t i = 0; i < config->domain_count; i++) {
        wanted |= config->domains[i].limits.enable_dane; /* what the entry does not give is false here */
    }
    return wanted;
}

/* Any record of the kinds that a trust anchor can be (RFC 4033 section 2). */
static bool holds_anchor(const char *path) {
    FILE *file = fopen(path, "re");
    char line[4096];
    bool found = false;
    while (file && !found && fgets(line, sizeof line, file)) {
        char *end = NULL, *word = line[0] == ';' ? NULL : strtok_r(line, " \t\r\n", &end);
        while (word && !found) {
            found = strcasecmp(word, "DNSKEY") == 0 || strcasecmp(word, "DS") == 0;
            word = strtok_r(NULL, " \t\r\n", &end);
        }
    }
    if (file) {
        fclose(file);
    }
    return found;
}

static void check_tls(struct reader *reader, const struct config *config) {
    struct stat status;
    if (config->tls.ca_file && (stat(config->tls.ca_file, &status) != 0 || access(config->tls.ca_file, R_OK) != 0)) {
        reader_error(reader, reader_place(reader, &config->tls.ca_file),
                     "the CA file %s cannot be read: %s; correct `ca_file`, or remove it to use the system's (package ca-certificates).",
                     config->tls.ca_file, strerror(errno));
    }
    if (limits_dane(config) && !config->dns.trust_anchor_file) {
        reader_error(reader, reader_place(reader, &config->dns.trust_anchor_file),
                     "`enable_dane` is on but dns has no `trust_anchor_file`; write /usr/share/dns/root.key (package dns-root-data).");
    } else if (limits_dane(config)) {
        check_readable(reader, reader_place(reader, &config->dns.trust_anchor_file), "the trust anchor", config->dns.trust_anchor_file,
                       "install the package dns-root-data, correct `trust_anchor_file`, or switch `enable_dane` off");
        if (file_look(config->dns.trust_anchor_file, &status) == 0 && !holds_anchor(config->dns.trust_anchor_file)) {
            reader_error(reader, reader_place(reader, &config->dns.trust_anchor_file),
                         "the trust anchor %s holds no DNSKEY or DS record; write /usr/share/dns/root.key (package dns-root-data).",
                         config->dns.trust_anchor_file);
        }
    }
    const char *from = config->tls_reports.from, *contact = config->tls_reports.contact;
    if (config->tls_reports.enabled && !from) {
        reader_error(reader, reader_place(reader, &config->tls_reports.enabled),
                     "tls_reports are enabled but have no `from`; write the address that sends them, such as tls-reports@example.com.");
    }
    if (from && !address_plain(from)) {
        reader_error(reader, reader_place(reader, &config->tls_reports.from),
                     "tls_reports.from `%s` is no address; write one such as tls-reports@example.com.", from);
    }
    if (contact && !address_plain(contact)) {
        reader_error(reader, reader_place(reader, &config->tls_reports.contact),
                     "tls_reports.contact `%s` is no address; write one such as postmaster@example.com, or leave it out.", contact);
    }
}

static void check_redis(struct reader *reader, const struct config *config) {
    const char *fault = config->redis.address ? redis_address_fault(config->redis.address) : "it is missing";
    if (fault) {
        reader_error(reader, reader_place(reader, &config->redis.address),
                     "`address` of redis is wrong: %s; write `127.0.0.1:6379`, `[::1]:6379` or `unix:/run/redis/redis.sock`.", fault);
    }
    if (config->redis.username && !config->redis.password_file) {
        reader_error(reader, reader_place(reader, &config->redis.username),
                     "redis has a `username` but no `password_file`; add the path of a file that holds the password.");
    }
    if (config->redis.password_file) {
        check_secret(reader, config, reader_place(reader, &config->redis.password_file), "the password file", config->redis.password_file,
                     "correct the path, or let this user read it");
    }
    if (!config->redis.prefix || strlen(config->redis.prefix) > 63 || config->redis.prefix[strcspn(config->redis.prefix, "{} \t\r\n")]) {
        reader_error(reader, reader_place(reader, &config->redis.prefix),
                     "`prefix` of redis must be 1 to 63 characters without braces or spaces; write for example `bypost`.");
    }
}

static void check_lcores(struct reader *reader, const struct config *config) {
    long cpus = sysconf(_SC_NPROCESSORS_CONF);
    for (uint32_t i = 0; i < config->dataplane.lcore_count; i++) {
        uint32_t lcore = config->dataplane.lcores[i];
        const struct yaml_node *node = reader_place(reader, &config->dataplane.lcores[i]);
        if (lcore >= (uint32_t)cpus) {
            reader_error(reader, node, "this machine has no lcore %u; write some of 0 to %ld.", lcore, cpus - 1);
        }
        for (uint32_t j = 0; j < i; j++) {
            if (config->dataplane.lcores[j] == lcore) {
                reader_error(reader, node, "lcore %u stands twice in lcores; remove one, for each worker has its own.", lcore);
                break;
            }
        }
    }
    uint32_t ports = (uint32_t)config->dataplane.port_last - config->dataplane.port_first + 1;
    if (ports < TCP_PORTS_MIN * config->dataplane.lcore_count) {
        reader_error(reader, reader_place(reader, &config->dataplane.port_first),
                     "tcp_ports has %u ports for %u workers; write a range of at least %u.", ports, config->dataplane.lcore_count,
                     TCP_PORTS_MIN * config->dataplane.lcore_count);
    }
    if (config->dataplane.arena_bytes + ARENA_SPARE_BYTES > config->dataplane.memory_bytes) {
        reader_error(reader, reader_place(reader, &config->dataplane.arena_bytes),
                     "`arena` is a part of `memory`, which must be at least 16M larger; write a smaller arena or more memory.");
    }
}

/* A device shared by AF_XDP: its program must take the address, and where the kernel has it too, all our local ports. */
static void check_shared_address(struct reader *reader, const struct config *config, const struct config_address *address,
                                 const struct share *share, bool kernels) {
    const struct yaml_node *node = reader_place(reader, address);
    char text[ADDRESS_TEXT_BYTES];
    address_text(address, text);
    if (!share_takes(share, address)) {
        reader_error(
            reader, node,
            "%s is shared without %s, whose frames would go to the kernel; run `deploy/nic/nic share %s` with all the addresses of "
            "this port.",
            share->device, text, share->device);
    } else if (kernels && share->port_first == 0) {
        reader_error(reader, node,
                     "%s is also the kernel's, and %s is shared by addresses, so that the kernel would hear nothing more there; run "
                     "`deploy/nic/nic share %s --ports FIRST-LAST`.",
                     text, share->device, share->device);
    } else if (!kernels && share->port_first != 0) {
        reader_error(
            reader, node,
            "%s is shared by ports, and the kernel does not have %s, so that nobody would answer for it; run `deploy/nic/nic share "
            "%s --address %s`.",
            share->device, text, share->device, text);
    } else if (share->port_first != 0 &&
               (config->dataplane.port_first < share->port_first || config->dataplane.port_last > share->port_last)) {
        reader_error(reader, reader_place(reader, &config->dataplane.port_first),
                     "tcp_ports %u-%u is not within %u-%u, the ports of %s that are bypost's, and the kernel would reset the others' "
                     "connections; write `tcp_ports: %u-%u`.",
                     config->dataplane.port_first, config->dataplane.port_last, share->port_first, share->port_last, share->device,
                     share->port_first, share->port_last);
    }
}

static void check_port_addresses(struct reader *reader, const struct config *config, const struct config_port *port) {
    char text[ADDRESS_TEXT_BYTES], interface[IF_NAMESIZE];
    struct share share;
    for (uint32_t i = 0; i < port->address_count; i++) {
        const struct config_address *address = &port->addresses[i];
        const struct yaml_node *node = reader_place(reader, address);
        address_text(address, text);
        if (address->family == 6 && port->mtu < IPV6_MTU_MIN) {
            reader_error(reader, node, "IPv6 needs an `mtu` of at least %d (RFC 8200); raise the port's mtu, or remove %s.", IPV6_MTU_MIN,
                         text);
        }
        if (address_equal(address, address->family == 6 ? &port->gateway6 : &port->gateway)) {
            reader_error(reader, node, "%s is this port's address and its gateway; write the router's address as `gateway`.", text);
        }
        for (const struct config_port *other = config->dataplane.ports; other <= port; other++) {
            for (uint32_t j = 0; j < (other == port ? i : other->address_count); j++) {
                if (address_equal(address, &other->addresses[j])) {
                    reader_error(reader, node, "%s stands twice among the ports' addresses; remove one.", text);
                }
            }
        }
        bool kernels = address_kernel_interface(address, interface);
        if (share_read(port->device ? port->device : "", &share)) {
            check_shared_address(reader, config, address, &share, kernels);
        } else if (kernels) {
            /* The kernel would answer our peers' segments with RST (DESIGN.md section 7). */
            (config->sandbox ? reader_warn : reader_error)(reader, node,
                                                           "%s is also the kernel's, on %s, which would reset bypost's connections; give "
                                                           "bypost an address of its own, run `ip address del %s/%u dev %s`, or share it "
                                                           "with `deploy/nic/nic share %s --ports FIRST-LAST`.",
                                                           text, interface, text, address->prefix_length, interface, interface);
        }
    }
}

static void check_gateway(struct reader *reader, const struct config_port *port, const struct config_address *gateway) {
    static const struct config_address link_local = {.bytes = {0xfe, 0x80}, .family = 6, .prefix_length = 10};
    char text[ADDRESS_TEXT_BYTES];
    bool on_link = false;
    for (uint32_t i = 0; i < port->address_count; i++) { /* IPv6 routers are usually named by their link-local address (RFC 4861) */
        on_link |=
            address_on_link(&port->addresses[i], gateway) || (port->addresses[i].family == 6 && address_on_link(&link_local, gateway));
    }
    if (gateway->family && !on_link && port->address_count > 0) {
        reader_error(reader, reader_place(reader, gateway),
                     "the gateway %s lies in no network of this port's addresses; correct it, or the prefix lengths.",
                     address_text(gateway, text));
    }
}

static void check_gateways(struct reader *reader, const struct config_port *port) {
    bool has_v6 = false, has_v4 = false;
    for (uint32_t i = 0; i < port->address_count; i++) {
        *(port->addresses[i].family == 6 ? &has_v6 : &has_v4) = true;
    }
    if (port->gateway.family == 0 && port->gateway6.family == 0 && !reader_given(reader, &port->gateway)) {
        reader_warn(reader, reader_place(reader, port),
                    "this port has no `gateway`, so only its own network can be reached; add the router's address.");
    } else if (has_v6 && port->gateway.family != 0 && port->gateway6.family == 0) {
        reader_warn(
            reader, reader_place(reader, port),
            "this port has IPv6 addresses and no IPv6 router, so with them only its own network can be reached; write `gateway: [%s, "
            "ROUTER6]`.",
            address_text(&port->gateway, (char[ADDRESS_TEXT_BYTES]){0}));
    } else if (has_v4 && port->gateway6.family != 0 && port->gateway.family == 0) {
        reader_warn(
            reader, reader_place(reader, port),
            "this port has IPv4 addresses and no IPv4 router, so with them only its own network can be reached; write `gateway: [ROUTER, "
            "%s]`.",
            address_text(&port->gateway6, (char[ADDRESS_TEXT_BYTES]){0}));
    }
    check_gateway(reader, port, &port->gateway);
    check_gateway(reader, port, &port->gateway6);
}

static void check_ports(struct reader *reader, const struct config *config) {
    if (config->dataplane.port_count == 0 && !reader_given(reader, &config->dataplane.ports)) {
        reader_error(
            reader, reader->root,
            "dataplane has no `ports`; add one such as `- {device: \"0000:3b:00.0\", addresses: [192.0.2.10/24], gateway: 192.0.2.1}`.");
    }
    if (config->dataplane.port_count > PORTS_MAX) {
        reader_error(reader, reader_place(reader, &config->dataplane.ports),
                     "there are %u ports, and a dataplane opens at most %d; remove some.", config->dataplane.port_count, PORTS_MAX);
    }
    uint32_t eal_args = 0;
    while (config->dataplane.eal_args && config->dataplane.eal_args[eal_args]) {
        eal_args++;
    }
    if (eal_args > EAL_ARGS_MAX) {
        reader_error(reader, reader_place(reader, config->dataplane.eal_args[0]),
                     "there are %u eal_args, and at most %d are passed on; remove some.", eal_args, EAL_ARGS_MAX);
    }
    for (uint32_t i = 0; i < config->dataplane.port_count; i++) {
        const struct config_port *port = &config->dataplane.ports[i];
        const struct yaml_node *node = reader_place(reader, &port->device);
        if (port->device && strlen(port->device) > DEVICE_MAX) {
            reader_error(reader, node, "the device has more than %d characters; write a shorter one.", DEVICE_MAX);
        }
        if (port->address_count > PORT_ADDRESSES_MAX) {
            reader_error(reader, reader_place(reader, &port->addresses),
                         "this port has %u addresses, and at most %d are used; remove some.", port->address_count, PORT_ADDRESSES_MAX);
        }
        if (!port->device) {
            reader_error(reader, reader_place(reader, port),
                         "this port has no `device`; add its PCI address (`deploy/nic/nic list` shows them) or a virtual one such as "
                         "net_af_packet0,iface=eth1.");
        } else if (port->device[strcspn(port->device, "; \t\r\n")]) {
            reader_error(reader, node,
                         "the device `%s` has a space or a semicolon; write it as DPDK does, such as net_af_packet0,iface=eth1.",
                         port->device);
        }
        for (uint32_t j = 0; port->device && j < i; j++) {
            if (config->dataplane.ports[j].device && strcmp(config->dataplane.ports[j].device, port->device) == 0) {
                reader_error(reader, node, "the device `%s` stands twice in ports; join their addresses into one port.", port->device);
            }
        }
        if (port->address_count == 0 && !reader_given(reader, &port->addresses)) {
            reader_error(reader, reader_place(reader, port), "this port has no `addresses`; add at least one such as `[192.0.2.10/24]`.");
        }
        check_port_addresses(reader, config, port);
        check_gateways(reader, port);
    }
}

static const struct config_address *port_address(const struct config *config, const struct config_address *address) {
    for (uint32_t i = 0; i < config->dataplane.port_count; i++) {
        for (uint32_t j = 0; j < config->dataplane.ports[i].address_count; j++) {
            if (address_equal(address, &config->dataplane.ports[i].addresses[j])) {
                return &config->dataplane.ports[i].addresses[j];
            }
        }
    }
    return NULL;
}

static void check_source(struct reader *reader, const struct config *config, const struct config_pool *pool, uint32_t index) {
    const struct config_source *source = &pool->sources[index];
    const struct yaml_node *node = reader_place(reader, source);
    char text[ADDRESS_TEXT_BYTES];
    if (source->address.family) {
        address_text(&source->address, text);
        if (!port_address(config, &source->address)) {
            reader_error(reader, node, "the source %s is no address of a port; add it to dataplane.ports[].addresses, or use one of those.",
                         text);
        }
        for (uint32_t j = 0; j < index; j++) {
            if (address_equal(&source->address, &pool->sources[j].address)) {
                reader_error(reader, node, "the source %s stands twice in pool `%s`; remove one.", text, pool->name);
            }
        }
        if (!config->sandbox && address_private(&source->address) && source->public_address.family == 0) {
            reader_warn(
                reader, node,
                "the source %s is a private address; add the `public_address` that receivers see, so that events and checks name it.",
                text);
        }
        if (!config->sandbox && address_documentation(&source->address)) {
            reader_warn(reader, node, "the source %s is an address for documentation, which no receiver can answer; write one of your own.",
                        text);
        }
    }
    node = reader_place(reader, &source->ehlo);
    if (source->ehlo && !host_is_fqdn(source->ehlo) && !host_is_literal(source->ehlo)) {
        reader_error(reader, node,
                     "the ehlo `%s` is no full host name (RFC 5321 4.1.1.1); write the name that the address's PTR record gives, such as "
                     "mta1.example.com.",
                     source->ehlo);
    } else if (source->ehlo && !config->sandbox && host_is_literal(source->ehlo)) {
        reader_warn(reader, node,
                    "the ehlo `%s` is an address literal, which Gmail and Microsoft distrust; write the name of the address's PTR record.",
                    source->ehlo);
    }
}

static void check_pools(struct reader *reader, const struct config *config) {
    if (config->pool_count == 0 && !reader_given(reader, &config->pools)) {
        reader_error(reader, reader->root,
                     "there are no `pools`; add one such as `main: [{address: 192.0.2.10, ehlo: mta1.example.com}]`.");
    }
    for (uint32_t i = 0; i < config->pool_count; i++) {
        const struct config_pool *pool = &config->pools[i];
        if (pool->source_count > PATH_SOURCES_MAX) {
            reader_error(reader, reader_place(reader, pool),
                         "the pool `%s` has %u sources, more than the %d that a path can hold; split it.", pool->name, pool->source_count,
                         PATH_SOURCES_MAX);
        }
        for (uint32_t j = 0; j < pool->source_count; j++) {
            check_source(reader, config, pool, j);
        }
    }
    if (!config->default_pool && config->pool_count > 0) {
        reader_error(reader, reader_place(reader, &config->pools),
                     "there are %u pools and no `default_pool`; add the name of the one for jobs that name none.", config->pool_count);
    } else if (config->default_pool && config->pool_count > 0 && !config_pool_named(config, config->default_pool)) {
        const char *names[config->pool_count + 1];
        for (uint32_t i = 0; i < config->pool_count; i++) {
            names[i] = config->pools[i].name;
        }
        names[config->pool_count] = NULL;
        const char *nearest = nearest_word(config->default_pool, names, sizeof *names);
        reader_error(reader, reader_place(reader, &config->default_pool), "there is no pool `%s` for `default_pool`; write %s`%s`.",
                     config->default_pool, nearest ? "" : "one of pools, such as ", nearest ? nearest : names[0]);
    }
}

/* Is it PEM that says it is a private key? What is inside is the signer's to judge. */
static bool file_is_pem_key(const char *path) {
    char line[80] = "";
    FILE *stream = fopen(path, "re");
    bool found = false;
    for (unsigned i = 0; stream && !found && i < 64 && fgets(line, sizeof line, stream); i++) {
        found = strstr(line, "PRIVATE KEY-----") != NULL;
    }
    if (stream) {
        fclose(stream);
    }
    return found;
}

static void check_dkim_keys(struct reader *reader, const struct config *config, const struct config_dkim_key *keys, uint32_t count) {
    struct stat status;
    for (uint32_t i = 0; i < count; i++) {
        const struct config_dkim_key *key = &keys[i];
        for (uint32_t j = 0; j < i && key->domain && key->selector && key->key_file; j++) {
            const struct config_dkim_key *other = &keys[j];
            if (!other->domain || !other->selector || !other->key_file || strcasecmp(key->domain, other->domain) != 0 ||
                strcasecmp(key->selector, other->selector) != 0) {
                continue;
            }
            if (strcmp(key->tenant ? key->tenant : "", other->tenant ? other->tenant : "") == 0) {
                reader_error(reader, reader_place(reader, key), "the key %s of %s stands twice; give one another selector, or remove it.",
                             key->selector, key->domain);
            } else if (strcmp(key->key_file, other->key_file) != 0) {
                reader_error(reader, reader_place(reader, key),
                             "the selector %s of %s has two keys, and DNS can publish one; give one of them another selector.",
                             key->selector, key->domain);
            }
        }
        if (key->key_file) {
            const struct yaml_node *node = reader_place(reader, &key->key_file);
            check_secret(reader, config, node, "the DKIM key", key->key_file, "make one with `bypost dkim keygen`, or correct the path");
            if (file_look(key->key_file, &status) == 0 && !file_is_pem_key(key->key_file)) {
                reader_error(reader, node, "the DKIM key %s holds no private key in PEM; make one with `bypost dkim keygen`.",
                             key->key_file);
            }
        }
    }
}

static void check_dkim(struct reader *reader, const struct config *config) {
    check_dkim_keys(reader, config, config->dkim, config->dkim_count);
    check_dkim_keys(reader, config, config->dkim_platform, config->dkim_platform_count);
    config_dkim_check(reader, config);
    if (!config->sandbox && config->dkim_count == 0) {
        reader_warn(reader, reader->root,
                    "there is no DKIM key, and Gmail, Yahoo and Microsoft refuse bulk mail without a signature; make one with `bypost dkim "
                    "keygen`.");
    }
    if (config->dkim_required && config->dkim_count == 0) {
        reader_error(reader, reader_place(reader, &config->dkim_required),
                     "dkim.required is on and there is no key, so every message would fail; add `keys`, or switch it off.");
    }
}

/* Limits that contradict each other. */
static void check_limits(struct reader *reader, const struct config *config) {
    for (uint32_t i = 0; i < config->provider_count; i++) {
        const struct shaping_provider *provider = &config->providers[i];
        const struct shaping_limits *limits = &provider->limits;
        if (limits->provider_connection_limit && limits->connection_limit > limits->provider_connection_limit) {
            reader_warn(reader, reader_place(reader, provider),
                        "provider `%s` allows %u connections to one site but %u to all its sites together; lower connection_limit, or "
                        "raise provider_connection_limit.",
                        provider->name ? provider->name : "?", limits->connection_limit, limits->provider_connection_limit);
        }
    }
}

void check_config(struct reader *reader, struct config *config) {
    check_general(reader, config);
    check_redis(reader, config);
    check_metrics(reader, config);
    check_notices(reader, config);
    check_lcores(reader, config);
    check_ports(reader, config);
    check_pools(reader, config);
    check_dkim(reader, config);
    bulk_check(reader, config);
    check_limits(reader, config);
    check_tls(reader, config);
    relays_check(reader, config);
}
