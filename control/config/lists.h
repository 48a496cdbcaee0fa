/* lists.h: the parts of bypost.yaml that are lists, names of the operator's own, or have their own way of writing. */
#ifndef CONTROL_CONFIG_LISTS_H
#define CONTROL_CONFIG_LISTS_H

#include "reader.h"

/* Each is a field's `read`: `record` is the struct config, or the struct config_port for those of a port. */
#define LIST_READERS(X)                                                                                                                    \
    X(port_addresses_read)                                                                                                                 \
    X(port_gateway_read)                                                                                                                   \
    X(lcores_read)                                                                                                                         \
    X(hugepages_read)                                                                                                                      \
    X(idle_read) X(tcp_ports_read) X(eal_args_read) X(dns_servers_read) X(prohibited_hosts_read) X(dkim_keys_read) X(event_types_read)     \
        X(pools_read) X(relays_read) X(queues_read) X(on_block_read)
#define X(name) void name(struct reader *reader, const struct yaml_node *node, void *record);
LIST_READERS(X)
#undef X

void lists_defaults(struct config *config);
void lists_free(struct config *config);

#endif
