/* yaml.h: a YAML document as a plain tree with positions. The only place that knows libfyaml. */
#ifndef CONTROL_CONFIG_YAML_H
#define CONTROL_CONFIG_YAML_H

#include "config.h"

enum yaml_kind { YAML_NULL, YAML_SCALAR, YAML_SEQUENCE, YAML_MAPPING };

struct yaml_node {
    enum yaml_kind kind;
    uint32_t line, column;   /* from 1 */
    const char *file;        /* the name given to yaml_read, which must outlive the tree */
    char *text;              /* of a scalar: UTF-8 without NUL */
    uint32_t count;          /* items of a sequence, pairs of a mapping */
    struct yaml_node *keys;  /* [count] of a mapping: scalars */
    struct yaml_node *items; /* [count]: items, or values */
};

enum { YAML_FILE_MAX_BYTES = 8 << 20, YAML_DEPTH_MAX = 16 };

/* Reads a file. False when it cannot be read or is no YAML: the reason is among the errors. An empty file is a YAML_NULL. */
bool yaml_read(const char *file, struct yaml_node *root, struct config_errors *errors);
void yaml_free(struct yaml_node *root);
/* "a text", "a list", "a mapping", "nothing". */
const char *yaml_kind_text(enum yaml_kind kind);
/* The value of a key (the first of that name), or NULL. */
const struct yaml_node *yaml_get(const struct yaml_node *mapping, const char *key);

#endif
