/* shaping.h: reads shaping.yaml into a configuration. */
#ifndef CONTROL_CONFIG_SHAPING_H
#define CONTROL_CONFIG_SHAPING_H

#include "reader.h"

/* The shipped limits, which hold where no file says otherwise. */
void shaping_defaults(struct shaping_limits *limits);
/* Reads the tree of shaping.yaml; config->defaults must hold the shipped limits. */
void shaping_read(struct reader *reader, const struct yaml_node *root, struct config *config);
/* Makes what config_limits looks up: each domain's limits over each provider's over the defaults; domains sorted. */
void shaping_merge(struct config *config);
void shaping_free(struct config *config);

#endif
