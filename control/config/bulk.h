/* bulk.h: what `bulk` and `verp` of bypost.yaml must be. */
#ifndef CONTROL_CONFIG_BULK_H
#define CONTROL_CONFIG_BULK_H

#include "reader.h"

/* Adds every fault to the reader's errors. */
void bulk_check(struct reader *reader, const struct config *config);

#endif
