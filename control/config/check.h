/* check.h: what the parts of a configuration must be to each other and to this machine. */
#ifndef CONTROL_CONFIG_CHECK_H
#define CONTROL_CONFIG_CHECK_H

#include "reader.h"

/* Adds every fault to the reader's errors. The configuration may be half-read. */
void check_config(struct reader *reader, const struct config *config);

#endif
