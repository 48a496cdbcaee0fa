/* yaml.c: builds the tree from libfyaml's events, which carry positions in all of its versions. Aliases, tags and further documents
 * are refused: a configuration needs none, and each would hide where a value comes from. */
#include "yaml.h"
#include "faults.h"

#include <errno.h>
#include <libfyaml.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct builder {
    const char *file;
    struct fy_parser *parser;
    struct config_errors *errors;
    bool failed;
};

static void builder_fault(struct builder *builder, uint32_t line, uint32_t column, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static void builder_fault(struct builder *builder, uint32_t line, uint32_t column, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    faults_add(builder->errors, builder->file, line, column, false, format, arguments);
    va_end(arguments);
    builder->failed = true;
}

const char *yaml_kind_text(enum yaml_kind kind) {
    static const char *const texts[] = {"nothing", "a single value", "a list", "a mapping"};
    return texts[kind];
}

const struct yaml_node *yaml_get(const struct yaml_node *mapping, const char *key) {
    if (!mapping || mapping->kind != YAML_MAPPING) {
        return NULL;
    }
    for (uint32_t i = 0; i < mapping->count; i++) {
        if (mapping->keys[i].text && strcmp(mapping->keys[i].text, key) == 0) {
            return &mapping->items[i];
        }
    }
    return NULL;
}

static void node_place(struct builder *builder, struct yaml_node *node, struct fy_event *event) {
    const struct fy_mark *mark = fy_event_start_mark(event);
    node->file = builder->file;
    node->line = mark ? (uint32_t)mark->line + 1 : 1;
    node->column = mark ? (uint32_t)mark->column + 1 : 1;
}

static void node_append(struct yaml_node *parent, const struct yaml_node *key, const struct yaml_node *item) {
    if ((parent->count & (parent->count + 1)) == 0) { /* grows at 0, 1, 3, 7...: doubling */
        size_t room = 2 * (size_t)parent->count + 1;
        parent->items = reallocarray(parent->items, room, sizeof *parent->items);
        if (key) {
            parent->keys = reallocarray(parent->keys, room, sizeof *parent->keys);
        }
        if (!parent->items || (key && !parent->keys)) {
            abort();
        }
    }
    parent->items[parent->count] = *item;
    if (key) {
        parent->keys[parent->count] = *key;
    }
    parent->count++;
}

static struct yaml_node build(struct builder *builder, struct fy_event *event, unsigned depth);

static struct fy_event *builder_next(struct builder *builder) {
    return builder->failed ? NULL : fy_parser_parse(builder->parser);
}

static void build_scalar(struct builder *builder, struct yaml_node *node, struct fy_event *event) {
    size_t length = 0;
    const char *text = event->scalar.value ? fy_token_get_text(event->scalar.value, &length) : NULL;
    bool plain = !event->scalar.value || fy_token_scalar_style(event->scalar.value) == FYSS_PLAIN;
    if (event->scalar.tag) {
        builder_fault(builder, node->line, node->column,
                      "YAML tags have no use in this file; remove the tag and write the value as it is.");
        return;
    }
    if (!text || (plain && (length == 0 || (length == 1 && *text == '~') || (length == 4 && memcmp(text, "null", 4) == 0)))) {
        return;
    }
    if (memchr(text, 0, length)) {
        builder_fault(builder, node->line, node->column, "the value holds a NUL character; remove it.");
        return;
    }
    node->kind = YAML_SCALAR;
    node->text = strndup(text, length);
}

static void build_collection(struct builder *builder, struct yaml_node *node, enum fy_event_type end, unsigned depth) {
    bool mapping = node->kind == YAML_MAPPING;
    for (struct fy_event *event; (event = builder_next(builder)) != NULL;) {
        if (event->type == end) {
            fy_parser_event_free(builder->parser, event);
            return;
        }
        struct yaml_node key = {0};
        if (mapping) {
            key = build(builder, event, depth + 1);
            if (!builder->failed && key.kind != YAML_SCALAR) {
                builder_fault(builder, key.line, key.column, "a key must be a plain word; write `key: value`.");
            }
            event = builder_next(builder);
        }
        struct yaml_node item = {.file = builder->file, .line = key.line, .column = key.column};
        if (event) {
            item = build(builder, event, depth + 1);
        }
        node_append(node, mapping ? &key : NULL, &item);
    }
}

/* Takes the event and those that belong to it. */
static struct yaml_node build(struct builder *builder, struct fy_event *event, unsigned depth) {
    struct yaml_node node = {.kind = YAML_NULL};
    enum fy_event_type type = event->type;
    node_place(builder, &node, event);
    if (depth > YAML_DEPTH_MAX) {
        builder_fault(builder, node.line, node.column, "values are nested more than %d deep; no key of this file needs that.",
                      YAML_DEPTH_MAX);
    } else if (type == FYET_SCALAR) {
        build_scalar(builder, &node, event);
    } else if (type == FYET_ALIAS) {
        builder_fault(builder, node.line, node.column, "YAML aliases (*name) are not followed here; write the value out.");
    }
    fy_parser_event_free(builder->parser, event);
    if (builder->failed) {
        return node;
    }
    if (type == FYET_MAPPING_START) {
        node.kind = YAML_MAPPING;
        build_collection(builder, &node, FYET_MAPPING_END, depth);
    } else if (type == FYET_SEQUENCE_START) {
        node.kind = YAML_SEQUENCE;
        build_collection(builder, &node, FYET_SEQUENCE_END, depth);
    }
    return node;
}

static void node_free(struct yaml_node *node) {
    for (uint32_t i = 0; i < node->count; i++) {
        node_free(&node->items[i]);
        if (node->keys) {
            node_free(&node->keys[i]);
        }
    }
    free(node->items);
    free(node->keys);
    free(node->text);
}

void yaml_free(struct yaml_node *root) {
    node_free(root);
    *root = (struct yaml_node){0};
}

/* libfyaml says what and where; it does not say what to do. */
static void builder_syntax(struct builder *builder, struct fy_diag *diag) {
    void *iterator = NULL;
    struct fy_diag_error *error;
    while ((error = fy_diag_errors_iterate(diag, &iterator)) != NULL) {
        if (error->type == FYET_ERROR) {
            builder_fault(builder, error->line > 0 ? (uint32_t)error->line : 1, error->column > 0 ? (uint32_t)error->column : 1,
                          "not valid YAML: %s. Look at the indentation, colons, quotes and brackets here and on the line before.",
                          error->msg);
            return; /* what follows the first is mostly its echo */
        }
    }
    if (!builder->failed) {
        builder_fault(builder, 0, 0, "not valid YAML. Look at the indentation, colons, quotes and brackets.");
    }
}

static char *file_read(const char *file, size_t *length, const char **reason) {
    FILE *stream = fopen(file, "re");
    struct stat status;
    char *bytes = NULL;
    if (!stream || fstat(fileno(stream), &status) != 0) {
        *reason = strerror(errno);
    } else if (!S_ISREG(status.st_mode)) {
        *reason = "it is no regular file";
    } else if (status.st_size > YAML_FILE_MAX_BYTES) {
        *reason = "it is larger than 8 MiB";
    } else if (!(bytes = malloc((size_t)status.st_size + 1))) {
        *reason = strerror(errno);
    } else {
        *length = fread(bytes, 1, (size_t)status.st_size, stream);
        bytes[*length] = 0;
    }
    if (stream) {
        fclose(stream);
    }
    return bytes;
}

static void builder_document(struct builder *builder, struct yaml_node *root) {
    bool seen = false;
    for (struct fy_event *event; (event = builder_next(builder)) != NULL;) {
        enum fy_event_type type = event->type;
        if (type == FYET_DOCUMENT_START || type == FYET_DOCUMENT_END || type == FYET_STREAM_START || type == FYET_STREAM_END) {
            fy_parser_event_free(builder->parser, event);
            if (type == FYET_STREAM_END) {
                break;
            }
            continue;
        }
        struct yaml_node node = build(builder, event, 0);
        if (seen) {
            builder_fault(builder, node.line, node.column,
                          "a second YAML document begins here; a configuration is one. Remove the `---` line.");
            node_free(&node);
            return;
        }
        *root = node;
        seen = true;
    }
}

bool yaml_read(const char *file, struct yaml_node *root, struct config_errors *errors) {
    struct builder builder = {.file = file, .errors = errors};
    *root = (struct yaml_node){.file = file, .line = 1, .column = 1};
    size_t length = 0;
    const char *reason = NULL;
    char *bytes = file_read(file, &length, &reason);
    if (!bytes) {
        builder_fault(&builder, 0, 0, "cannot be read: %s. Give the path of a configuration that this user may read.", reason);
        return false;
    }
    struct fy_diag_cfg diag_config;
    fy_diag_cfg_default(&diag_config);
    struct fy_diag *diag = fy_diag_create(&diag_config);
    fy_diag_set_collect_errors(diag, true);
    struct fy_parse_cfg config = {.flags = FYPCF_QUIET | FYPCF_COLLECT_DIAG, .diag = diag};
    builder.parser = diag ? fy_parser_create(&config) : NULL;
    if (!builder.parser || fy_parser_set_string(builder.parser, bytes, length) != 0) {
        builder_fault(&builder, 0, 0, "cannot be parsed: out of memory. Free some memory and try again.");
    } else {
        builder_document(&builder, root);
        if (!builder.failed && fy_parser_get_stream_error(builder.parser)) {
            builder_syntax(&builder, diag);
        }
    }
    fy_parser_destroy(builder.parser);
    fy_diag_destroy(diag);
    free(bytes);
    if (builder.failed) {
        yaml_free(root);
    }
    return !builder.failed;
}
