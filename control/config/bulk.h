/* bulk.h: what `bulk` and `verp` of bypost.yaml must be. */
#ifndef CONTROL_CONFIG_BULK_H
#define CONTROL_CONFIG_BULK_H

#include "reader.h"

/* Reads `tenants` of verp: a field's `read`, its record the struct config. */
void verp_tenants_read(struct reader *reader, const struct yaml_node *node, void *record);
void verp_tenants_free(struct config *config);

/* Adds every fault to the reader's errors. */
void bulk_check(struct reader *reader, const struct config *config);

#endif
