/* reader.c: the table-driven reading of mappings, and the words of its errors. */
#include "reader.h"
#include "faults.h"
#include "units.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static void reader_fault(struct reader *reader, const struct yaml_node *node, bool warning, const char *format, va_list arguments) {
    const char *file = node && node->file ? node->file : reader->file;
    faults_add(reader->errors, file, node ? node->line : 0, node ? node->column : 0, warning, format, arguments);
}

void reader_error(struct reader *reader, const struct yaml_node *node, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    reader_fault(reader, node, false, format, arguments);
    va_end(arguments);
}

void reader_warn(struct reader *reader, const struct yaml_node *node, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    reader_fault(reader, node, true, format, arguments);
    va_end(arguments);
}

void reader_note(struct reader *reader, const void *target, const struct yaml_node *node) {
    if (reader->place_count == reader->place_room) {
        reader->place_room = reader->place_room ? reader->place_room * 2 : 256;
        reader->places = reallocarray(reader->places, reader->place_room, sizeof *reader->places);
        if (!reader->places) {
            abort();
        }
    }
    reader->places[reader->place_count++] = (struct reader_place){target, node};
}

static const struct yaml_node *place_find(const struct reader *reader, const void *target) {
    for (uint32_t i = reader->place_count; i-- > 0;) {
        if (reader->places[i].target == target) {
            return reader->places[i].node;
        }
    }
    return NULL;
}

const struct yaml_node *reader_place(const struct reader *reader, const void *target) {
    const struct yaml_node *node = place_find(reader, target);
    return node ? node : reader->root;
}

bool reader_given(const struct reader *reader, const void *target) {
    return place_find(reader, target) != NULL;
}

void reader_free(struct reader *reader) {
    free(reader->places);
    reader->places = NULL;
    reader->place_count = reader->place_room = 0;
}

char *reader_path(const struct reader *reader, const char *path) {
    const char *slash = strrchr(reader->file, '/');
    char *joined = NULL, *folder = NULL;
    if (*path == '/') {
        return strdup(path);
    }
    if (*reader->file == '/') {
        folder = strndup(reader->file, (size_t)(slash - reader->file));
    } else {
        char *here = getcwd(NULL, 0);
        if (asprintf(&folder, "%s%s%.*s", here ? here : "", slash ? "/" : "", slash ? (int)(slash - reader->file) : 0, reader->file) < 0) {
            abort();
        }
        free(here);
    }
    if (asprintf(&joined, "%s/%s", folder, strncmp(path, "./", 2) == 0 ? path + 2 : path) < 0) {
        abort();
    }
    free(folder);
    return joined;
}

/* Levenshtein's distance, letters alike in any case. */
static unsigned word_distance(const char *a, const char *b) {
    enum { LONGEST = 63 };
    unsigned row[LONGEST + 1];
    size_t a_length = strlen(a), b_length = strlen(b);
    if (a_length > LONGEST || b_length > LONGEST) {
        return LONGEST;
    }
    for (unsigned j = 0; j <= b_length; j++) {
        row[j] = j;
    }
    for (unsigned i = 1; i <= a_length; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= b_length; j++) {
            unsigned change = diagonal + (strncasecmp(&a[i - 1], &b[j - 1], 1) != 0);
            diagonal = row[j];
            unsigned least = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
            row[j] = change < least ? change : least;
        }
    }
    return row[b_length];
}

const char *nearest_word(const char *word, const char *const *words, size_t stride) {
    const char *best = NULL;
    size_t length = strlen(word);
    unsigned best_distance = length <= 3 ? 2 : length <= 8 ? 3 : 4; /* farther is no help */
    for (const char *at = (const char *)words; *(const char *const *)at; at += stride) {
        const char *candidate = *(const char *const *)at;
        unsigned distance = word_distance(word, candidate);
        /* Half a name is as near as a slip of the finger. */
        if (length >= 4 && (strncasecmp(candidate, word, length) == 0 || strncasecmp(candidate, word, strlen(candidate)) == 0) &&
            distance > 1) {
            distance = 1;
        }
        if (distance < best_distance) {
            best_distance = distance;
            best = candidate;
        }
    }
    return best;
}

static const char *article(enum yaml_kind kind) {
    return kind == YAML_MAPPING ? "a mapping (`key: value` lines)" : kind == YAML_SEQUENCE ? "a list (`- item` lines)" : "a single value";
}

bool reader_wants(struct reader *reader, const struct yaml_node *node, enum yaml_kind kind, const char *name, const char *example) {
    if (node->kind == kind && (kind == YAML_SCALAR || node->count > 0)) {
        return true;
    }
    if (node->kind == kind || node->kind == YAML_NULL) {
        reader_error(reader, node, "`%s` is empty; write %s such as %s, or remove the key.", name, article(kind), example);
    } else {
        reader_error(reader, node, "`%s` is %s, but must be %s; write for example %s.", name, yaml_kind_text(node->kind), article(kind),
                     example);
    }
    return false;
}

struct number {
    uint64_t whole;
    double rate;
};

/* What to write for each kind. */
static const char *kind_example(enum field_kind kind) {
    switch (kind) {
    case FIELD_BOOL:
        return "`true` or `false`";
    case FIELD_COUNT16:
    case FIELD_COUNT:
        return "a whole number such as 100";
    case FIELD_SIZE32:
    case FIELD_SIZE:
        return "a size such as 64K, 512M or 4G";
    case FIELD_DURATION32:
    case FIELD_SECONDS32:
    case FIELD_DURATION:
        return "a duration with its unit such as 500ms, 30s, 5m or 2h";
    case FIELD_RATE:
        return "a rate such as 100/s, 100/min or 5000/h";
    case FIELD_PATH:
        return "a path such as /etc/bypost/key.pem";
    default:
        return "a text";
    }
}

static bool number_parse(enum field_kind kind, const char *text, struct number *number) {
    number->whole = 0;
    number->rate = 0;
    switch (kind) {
    case FIELD_COUNT16:
    case FIELD_COUNT:
        return units_count(text, &number->whole);
    case FIELD_SIZE32:
    case FIELD_SIZE:
        return units_size(text, &number->whole);
    case FIELD_DURATION32:
    case FIELD_SECONDS32:
    case FIELD_DURATION:
        return units_duration(text, &number->whole);
    case FIELD_RATE:
        return units_rate(text, &number->rate);
    default:
        return false;
    }
}

static bool number_below(enum field_kind kind, const struct number *a, const struct number *b) {
    return kind == FIELD_RATE ? a->rate < b->rate : a->whole < b->whole;
}

/* The bound that the field's own width sets where the table has none. */
static uint64_t kind_limit(enum field_kind kind) {
    return kind == FIELD_COUNT16                                                     ? UINT16_MAX
           : kind == FIELD_COUNT || kind == FIELD_SIZE32 || kind == FIELD_DURATION32 ? UINT32_MAX
                                                                                     : UINT64_MAX;
}

static void number_store(enum field_kind kind, const struct number *number, void *target) {
    switch (kind) {
    case FIELD_COUNT16:
        *(uint16_t *)target = (uint16_t)number->whole;
        break;
    case FIELD_COUNT:
    case FIELD_SIZE32:
    case FIELD_DURATION32:
        *(uint32_t *)target = (uint32_t)number->whole;
        break;
    case FIELD_SECONDS32:
        *(uint32_t *)target = (uint32_t)((number->whole + 999) / 1000);
        break;
    case FIELD_RATE:
        *(double *)target = number->rate;
        break;
    default:
        *(uint64_t *)target = number->whole;
    }
}

/* Reads a number, or says why not. False leaves the target alone. */
static bool number_read(struct reader *reader, const struct yaml_node *node, const struct field *field, void *target) {
    struct number number, bound;
    if (!number_parse(field->kind, node->text, &number) || number.whole > kind_limit(field->kind)) {
        reader_error(reader, node, "`%s` is no value for `%s`; write %s.", node->text, field->key, kind_example(field->kind));
        return false;
    }
    bool low = field->min && number_parse(field->kind, field->min, &bound) && number_below(field->kind, &number, &bound);
    bool high = field->max && number_parse(field->kind, field->max, &bound) && number_below(field->kind, &bound, &number);
    if (low || high) {
        if (field->min && field->max) {
            reader_error(reader, node, "`%s` is %s, outside its range; write a value from %s to %s.", field->key, node->text, field->min,
                         field->max);
        } else {
            reader_error(reader, node, "`%s` is %s, which is too %s; write %s or %s.", field->key, node->text, low ? "small" : "large",
                         low ? field->min : field->max, low ? "more" : "less");
        }
        return false;
    }
    number_store(field->kind, &number, target);
    return true;
}

static void choice_fault(struct reader *reader, const struct yaml_node *node, const struct field *field) {
    char list[256] = "";
    size_t length = 0;
    for (unsigned i = 0; field->choices[i]; i++) {
        length += (size_t)snprintf(list + length, sizeof list - length, "%s`%s`",
                                   i == 0                  ? ""
                                   : field->choices[i + 1] ? ", "
                                                           : " or ",
                                   field->choices[i]);
    }
    reader_error(reader, node, "`%s` is no value for `%s`; write %s.", node->text, field->key, list);
}

static int choice_find(const struct field *field, const char *text) {
    for (int i = 0; field->choices[i]; i++) {
        if (strcasecmp(field->choices[i], text) == 0) {
            return i;
        }
    }
    return -1;
}

static void text_store(char **target, char *text) {
    free(*target);
    *target = text;
}

static void field_read(struct reader *reader, const struct yaml_node *node, const struct field *field, void *record) {
    void *target = (char *)record + field->offset;
    if (field->kind == FIELD_CUSTOM) {
        field->read(reader, node, record);
        return;
    }
    reader_note(reader, target, node);
    if (node->kind == YAML_NULL && (field->kind == FIELD_TEXT || field->kind == FIELD_PATH)) {
        text_store(target, NULL); /* `key: null` takes a default away */
        return;
    }
    if (node->kind != YAML_SCALAR) {
        reader_error(reader, node, "`%s` is %s; write %s.", field->key, node->kind == YAML_NULL ? "empty" : yaml_kind_text(node->kind),
                     kind_example(field->kind));
        return;
    }
    switch (field->kind) {
    case FIELD_TEXT:
    case FIELD_PATH:
        if (!*node->text) {
            reader_error(reader, node, "`%s` is an empty text; write %s, or remove the key.", field->key, kind_example(field->kind));
            return;
        }
        text_store(target, field->kind == FIELD_PATH ? reader_path(reader, node->text) : strdup(node->text));
        return;
    case FIELD_WORD:
    case FIELD_CHOICE8:
    case FIELD_CHOICE: {
        int choice = choice_find(field, node->text);
        if (choice < 0) {
            choice_fault(reader, node, field);
        } else if (field->kind == FIELD_WORD) {
            text_store(target, strdup(field->choices[choice]));
        } else if (field->kind == FIELD_CHOICE8) {
            *(uint8_t *)target = (uint8_t)(field->base + choice);
        } else {
            *(unsigned *)target = (unsigned)choice;
        }
        return;
    }
    case FIELD_BOOL:
        if (!units_bool(node->text, target)) {
            reader_error(reader, node, "`%s` is no value for `%s`; write %s.", node->text, field->key, kind_example(field->kind));
        }
        return;
    default:
        number_read(reader, node, field, target);
    }
}

void field_read_one(struct reader *reader, const struct yaml_node *node, const struct field *field, void *record) {
    field_read(reader, node, field, record);
}

void section_read(struct reader *reader, const struct yaml_node *node, const char *name, const struct field *fields, void *record,
                  uint64_t *given) {
    if (node->kind == YAML_NULL) {
        return; /* a heading without keys: all defaults */
    }
    if (node->kind != YAML_MAPPING) {
        reader_error(reader, node, "`%s` is %s, but must be a mapping; write its keys below it, indented.", name,
                     yaml_kind_text(node->kind));
        return;
    }
    for (uint32_t i = 0; i < node->count; i++) {
        const struct yaml_node *key = &node->keys[i];
        const struct field *field = fields;
        while (field->key && strcmp(field->key, key->text) != 0) {
            field++;
        }
        const struct yaml_node *first = yaml_get(node, key->text);
        if (!field->key) {
            const char *nearest = nearest_word(key->text, &fields->key, sizeof *fields);
            if (!nearest && strncmp(key->text, "enable_", 7) == 0) {
                nearest = nearest_word(key->text + 7, &fields->key, sizeof *fields); /* KumoMTA's enable_tls */
            }
            reader_error(reader, key, "unknown key `%s` in %s; %s%s%s", key->text, name,
                         nearest ? "did you mean `" : "remove it, or look the name up in deploy/examples", nearest ? nearest : "",
                         nearest ? "`?" : ".");
        } else if (first != &node->items[i]) {
            reader_error(reader, key, "the key `%s` stands twice in %s (first at line %u); remove one of them.", key->text, name,
                         first->line);
        } else {
            if (given) {
                *given |= 1ull << (field - fields);
            }
            field_read(reader, &node->items[i], field, record);
        }
    }
}

void section_defaults(const struct field *fields, void *record) {
    for (const struct field *field = fields; field->key; field++) {
        void *target = (char *)record + field->offset;
        struct number number;
        if (!field->fallback) {
            continue;
        }
        if (field->kind == FIELD_TEXT || field->kind == FIELD_WORD || field->kind == FIELD_PATH) {
            text_store(target, strdup(field->fallback));
        } else if (field->kind == FIELD_BOOL) {
            units_bool(field->fallback, target);
        } else if (field->kind == FIELD_CHOICE) {
            *(unsigned *)target = (unsigned)choice_find(field, field->fallback);
        } else if (field->kind == FIELD_CHOICE8) {
            *(uint8_t *)target = (uint8_t)(field->base + choice_find(field, field->fallback));
        } else if (number_parse(field->kind, field->fallback, &number)) {
            number_store(field->kind, &number, target);
        }
    }
}

static size_t kind_bytes(enum field_kind kind) {
    switch (kind) {
    case FIELD_BOOL:
        return sizeof(bool);
    case FIELD_CHOICE8:
        return 1;
    case FIELD_COUNT16:
        return 2;
    case FIELD_COUNT:
    case FIELD_SIZE32:
    case FIELD_DURATION32:
    case FIELD_SECONDS32:
    case FIELD_CHOICE:
        return 4;
    case FIELD_SIZE:
    case FIELD_DURATION:
    case FIELD_RATE:
        return 8;
    default:
        return 0;
    }
}

void section_copy(const struct field *fields, uint64_t given, const void *from, void *to) {
    for (unsigned i = 0; fields[i].key; i++) {
        if (given >> i & 1) {
            memcpy((char *)to + fields[i].offset, (const char *)from + fields[i].offset, kind_bytes(fields[i].kind));
        }
    }
}

void section_free(const struct field *fields, void *record) {
    for (const struct field *field = fields; field->key; field++) {
        if (field->kind == FIELD_TEXT || field->kind == FIELD_WORD || field->kind == FIELD_PATH) {
            char **target = (char **)((char *)record + field->offset);
            free(*target);
            *target = NULL;
        }
    }
}
