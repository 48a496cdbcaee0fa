/* check.h: what the parts of a configuration must be to each other and to this machine. */
#ifndef CONTROL_CONFIG_CHECK_H
#define CONTROL_CONFIG_CHECK_H

#include "reader.h"

/* Adds every fault to the reader's errors, and reads the secrets of relays. The configuration may be half-read. */
void check_config(struct reader *reader, struct config *config);
/* A file that the processes must be able to read, and nobody else should. `what`: "the password file". */
void check_secret(struct reader *reader, const struct config *config, const struct yaml_node *node, const char *what, const char *path,
                  const char *remedy);
/* One that must be readable. */
void check_readable(struct reader *reader, const struct yaml_node *node, const char *what, const char *path, const char *remedy);

#endif
