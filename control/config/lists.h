/* lists.h: the parts of bypost.yaml that are lists, names of the operator's own, or have their own way of writing. */
#ifndef CONTROL_CONFIG_LISTS_H
#define CONTROL_CONFIG_LISTS_H

#include "reader.h"

/* Each is a field's `read`: `record` is the struct config, or the struct config_port for those of a port. */
void port_addresses_read(struct reader *reader, const struct yaml_node *node, void *record);
void port_gateway_read(struct reader *reader, const struct yaml_node *node, void *record);
void lcores_read(struct reader *reader, const struct yaml_node *node, void *record);
void hugepages_read(struct reader *reader, const struct yaml_node *node, void *record);
void idle_read(struct reader *reader, const struct yaml_node *node, void *record);
void tcp_ports_read(struct reader *reader, const struct yaml_node *node, void *record);
void eal_args_read(struct reader *reader, const struct yaml_node *node, void *record);
void dns_servers_read(struct reader *reader, const struct yaml_node *node, void *record);
void former_identity_keys_read(struct reader *reader, const struct yaml_node *node, void *record);
void prohibited_hosts_read(struct reader *reader, const struct yaml_node *node, void *record);
void event_types_read(struct reader *reader, const struct yaml_node *node, void *record);
void pools_read(struct reader *reader, const struct yaml_node *node, void *record);
void queues_read(struct reader *reader, const struct yaml_node *node, void *record);
void on_block_read(struct reader *reader, const struct yaml_node *node, void *record);

/* A text or a list of texts, NULL-terminated and malloc'd; each has its place noted. */
char **texts_read(struct reader *reader, const struct yaml_node *node, const char *name, const char *example);
void texts_free(char **texts);

void lists_defaults(struct config *config);
void lists_free(struct config *config);

#endif
