/* sections.h: reads bypost.yaml into a configuration. */
#ifndef CONTROL_CONFIG_SECTIONS_H
#define CONTROL_CONFIG_SECTIONS_H

#include "reader.h"

/* Every default of bypost.yaml. */
void sections_defaults(struct config *config);
/* Reads the tree; *shaping_path gets the path in `shaping:`, or stays. */
void sections_read(struct reader *reader, const struct yaml_node *root, struct config *config);
/* What follows from what was read: paths under run_directory, queues' schedules, main lcore. */
void sections_complete(struct config *config);
void sections_free(struct config *config);

#endif
