/* dkim.h: the lists of bypost.yaml's `dkim` section: keys, the platform's keys, names of header fields. */
#ifndef CONTROL_CONFIG_DKIM_H
#define CONTROL_CONFIG_DKIM_H

#include "reader.h"

enum { DKIM_NAMES_MAX = 64, DKIM_NAME_MAX = 64 /* header fields that are signed, both lists together, and bytes of a name */ };

/* Each is a field's `read`: `record` is the struct config. */
void dkim_keys_read(struct reader *reader, const struct yaml_node *node, void *record);
void dkim_platform_read(struct reader *reader, const struct yaml_node *node, void *record);
void dkim_oversign_read(struct reader *reader, const struct yaml_node *node, void *record);
void dkim_sign_read(struct reader *reader, const struct yaml_node *node, void *record);
/* What the lists must be to one another. */
void config_dkim_check(struct reader *reader, const struct config *config);
void config_dkim_free(struct config *config);

#endif
