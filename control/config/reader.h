/* reader.h: reads mappings by tables of fields, so that a key, its kind, its default and its range are written once. */
#ifndef CONTROL_CONFIG_READER_H
#define CONTROL_CONFIG_READER_H

#include "config.h"
#include "yaml.h"

enum field_kind {
    FIELD_TEXT,       /* char *; not empty */
    FIELD_WORD,       /* char *, one of `choices` */
    FIELD_PATH,       /* char *, made absolute: a relative one counts from the file's own folder */
    FIELD_BOOL,       /* bool */
    FIELD_CHOICE,     /* unsigned: the index in `choices` (an enum) */
    FIELD_CHOICE8,    /* uint8_t or bool: `base` + the index in `choices` */
    FIELD_COUNT16,    /* uint16_t */
    FIELD_COUNT,      /* uint32_t */
    FIELD_SIZE32,     /* uint32_t, bytes */
    FIELD_SIZE,       /* uint64_t, bytes */
    FIELD_DURATION32, /* uint32_t, ms */
    FIELD_SECONDS32,  /* uint32_t, s: whole ones */
    FIELD_DURATION,   /* uint64_t, ms */
    FIELD_RATE,       /* double, per second */
    FIELD_CUSTOM,     /* `read` does it */
};

struct reader;

struct field {
    const char *key;
    enum field_kind kind;
    size_t offset;
    const char *fallback;       /* the default as one would write it; NULL: zeros */
    const char *min, *max;      /* of numbers, as one would write them; NULL: none */
    const char *const *choices; /* NULL-terminated */
    uint8_t base;               /* of FIELD_CHOICE8 */
    void (*read)(struct reader *reader, const struct yaml_node *node, void *record);
};

struct reader_place {
    const void *target;
    const struct yaml_node *node;
};

struct reader {
    struct config_errors *errors;
    const char *file;
    const struct yaml_node *root;
    struct reader_place *places;
    uint32_t place_count, place_room;
};

void reader_error(struct reader *reader, const struct yaml_node *node, const char *format, ...) __attribute__((format(printf, 3, 4)));
void reader_warn(struct reader *reader, const struct yaml_node *node, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Remembers where a value came from, for the checks that follow; and tells it again (the document's start when it was not given). */
void reader_note(struct reader *reader, const void *target, const struct yaml_node *node);
const struct yaml_node *reader_place(const struct reader *reader, const void *target);
bool reader_given(const struct reader *reader, const void *target);
void reader_free(struct reader *reader);

/* Reads a mapping into `record` by its table (ended by a NULL key). `name` is how messages call it: "dns". *given (may be NULL) gets a bit
 * for each field that was there. What is absent is left as it is. */
void section_read(struct reader *reader, const struct yaml_node *node, const char *name, const struct field *fields, void *record,
                  uint64_t *given);
/* Reads one value by the first field of the table, for a `read` that does more than that. */
void field_read_one(struct reader *reader, const struct yaml_node *node, const struct field *field, void *record);
/* Sets the defaults of a table. */
void section_defaults(const struct field *fields, void *record);
/* Copies from `from` the fields whose bit is set; not for tables with texts. */
void section_copy(const struct field *fields, uint64_t given, const void *from, void *to);
/* Frees the texts of a record. */
void section_free(const struct field *fields, void *record);

/* True when the node is a mapping, a list (of at least one item), or a text; otherwise an error that says what to write (`example`). */
bool reader_wants(struct reader *reader, const struct yaml_node *node, enum yaml_kind kind, const char *name, const char *example);
/* The nearest of the keys to a word, or NULL when none is near. `stride`: distance between the `const char *` in bytes. */
const char *nearest_word(const char *word, const char *const *words, size_t stride);
/* A path counted from the file's own folder, malloc'd. */
char *reader_path(const struct reader *reader, const char *path);

#endif
