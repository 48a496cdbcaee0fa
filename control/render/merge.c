/* merge.c: fills the variables of a recipient into a text. Values are never read as templates themselves. */
#include "merge.h"
#include "writer.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

struct merge {
    json_t *global, *own; /* or NULL */
    bool is_global_borrowed;
    const char *(*built_in)(void *context, const char *name); /* or NULL */
    void *context;
};

static json_t *load_object(const char *json, const char *what, char *error, size_t error_bytes) {
    json_error_t fault;
    json_t *object = json_loads(json, JSON_REJECT_DUPLICATES, &fault);
    if (object == NULL)
        snprintf(error, error_bytes, "%s is not JSON: %s at byte %d", what, fault.text, fault.position);
    else if (!json_is_object(object))
        snprintf(error, error_bytes, "%s is not a JSON object", what);
    if (!json_is_object(object)) {
        json_decref(object);
        return NULL;
    }
    return object;
}

struct merge *merge_create(const char *global, const char *own, char *error, size_t error_bytes) {
    struct merge *merge = calloc(1, sizeof(*merge));
    if (merge == NULL) {
        snprintf(error, error_bytes, "out of memory");
        return NULL;
    }
    if ((global != NULL && (merge->global = load_object(global, "merge_global_data", error, error_bytes)) == NULL) ||
        (own != NULL && (merge->own = load_object(own, "merge_data", error, error_bytes)) == NULL)) {
        merge_free(merge);
        return NULL;
    }
    return merge;
}

struct merge *merge_create_over(const struct merge *global, const char *own, char *error, size_t error_bytes) {
    struct merge *merge = merge_create(NULL, own, error, error_bytes);
    if (merge != NULL) {
        merge->global = global->global;
        merge->is_global_borrowed = true;
    }
    return merge;
}

void merge_free(struct merge *merge) {
    if (merge == NULL)
        return;
    if (!merge->is_global_borrowed)
        json_decref(merge->global);
    json_decref(merge->own);
    free(merge);
}

void merge_built_in(struct merge *merge, const char *(*look_up)(void *context, const char *name), void *context) {
    merge->built_in = look_up;
    merge->context = context;
}

static bool is_built_in(const char *name) {
    return strncmp(name, MERGE_BUILT_IN, sizeof(MERGE_BUILT_IN) - 1) == 0;
}

/* strchr is vectorised, strstr is not. */
const char *merge_next_tag(const char *text) {
    while ((text = strchr(text, '{')) != NULL && text[1] != '{')
        text++;
    return text;
}

bool merge_is_template(const char *text) {
    return text != NULL && merge_next_tag(text) != NULL;
}

/* The whole name first, then object by object along its dots. */
static json_t *look_up(json_t *object, const char *name) {
    json_t *value = json_object_get(object, name);
    const char *dot = strchr(name, '.');
    if (value != NULL || dot == NULL)
        return value;
    char head[MERGE_NAME_BYTES];
    memcpy(head, name, (size_t)(dot - name));
    head[dot - name] = '\0';
    return look_up(json_object_get(object, head), dot + 1);
}

static void write_escaped(struct writer *writer, const char *text) {
    for (;;) {
        size_t plain = strcspn(text, "&<>\"'");
        writer_bytes(writer, text, plain);
        text += plain;
        switch (*text++) {
        case '&':
            writer_text(writer, "&amp;");
            break;
        case '<':
            writer_text(writer, "&lt;");
            break;
        case '>':
            writer_text(writer, "&gt;");
            break;
        case '"':
            writer_text(writer, "&quot;");
            break;
        case '\'':
            writer_text(writer, "&#39;");
            break;
        default:
            return;
        }
    }
}

static int write_value(struct writer *writer, const json_t *value, bool escape) {
    char number[64] = "";
    const char *text = number;
    if (json_is_string(value))
        text = json_string_value(value);
    else if (json_is_integer(value))
        snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        snprintf(number, sizeof(number), "%.15g", json_real_value(value));
    else if (json_is_boolean(value))
        text = json_is_true(value) ? "true" : "false";
    else if (!json_is_null(value))
        return -EINVAL;
    if (escape)
        write_escaped(writer, text);
    else
        writer_text(writer, text);
    return 0;
}

/* The length of a tag's name, trimmed; it must be of one word. 0: none. */
static size_t trim_name(const char **name, size_t length) {
    while (length > 0 && (**name == ' ' || **name == '\t'))
        (*name)++, length--;
    while (length > 0 && ((*name)[length - 1] == ' ' || (*name)[length - 1] == '\t'))
        length--;
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)(*name)[i] <= 32 || (*name)[i] == '{' || (*name)[i] == '}' || (*name)[i] == 127)
            return 0;
    return length < MERGE_NAME_BYTES ? length : 0;
}

const char *merge_tag_read(const char *at, struct merge_tag *tag, char *error, size_t error_bytes) {
    bool triple = *at == '{';
    tag->is_raw = *at == '{' || *at == '&';
    tag->is_comment = *at == '!';
    if (tag->is_comment) {
        const char *end = strstr(at, "}}");
        if (end == NULL)
            snprintf(error, error_bytes, "a comment \"{{!\" has no end \"}}\"");
        return end == NULL ? NULL : end + 2;
    }
    if (*at != '\0' && strchr("#^/>=", *at) != NULL) {
        snprintf(error, error_bytes, "\"{{%c\" is not supported: only plain variables are", *at);
        return NULL;
    }
    const char *name = at + tag->is_raw, *end = strstr(name, triple ? "}}}" : "}}");
    size_t length = end == NULL ? 0 : trim_name(&name, (size_t)(end - name));
    if (length == 0) {
        snprintf(error, error_bytes, "a tag \"{{\" has no name or no end \"%s\"", triple ? "}}}" : "}}");
        return NULL;
    }
    memcpy(tag->name, name, length);
    tag->name[length] = '\0';
    return end + (triple ? 3 : 2);
}

static int write_built_in(const struct merge *merge, const char *name, bool escape, struct writer *writer, char *error,
                          size_t error_bytes) {
    const char *text = merge->built_in(merge->context, name + sizeof(MERGE_BUILT_IN) - 1);
    if (text == NULL) {
        snprintf(error, error_bytes, "there is no variable \"%s\" for this message", name);
        return -EINVAL;
    }
    if (escape)
        write_escaped(writer, text);
    else
        writer_text(writer, text);
    return 0;
}

int merge_value(const struct merge *merge, const char *name, bool escape, struct writer *writer, char *error, size_t error_bytes) {
    if (merge->built_in != NULL && is_built_in(name))
        return write_built_in(merge, name, escape, writer, error, error_bytes);
    json_t *value = look_up(merge->own, name);
    if (value == NULL)
        value = look_up(merge->global, name);
    if (value == NULL) {
        snprintf(error, error_bytes, "the variable \"%s\" is missing: give it in merge_data or merge_global_data", name);
        return -EINVAL;
    }
    if (write_value(writer, value, escape) < 0) {
        snprintf(error, error_bytes, "the variable \"%s\" is a list or an object, not a text or a number", name);
        return -EINVAL;
    }
    return 0;
}

int merge_expand(const struct merge *merge, const char *text, bool html, size_t max_bytes, char **out, char *error, size_t error_bytes) {
    struct writer writer = {.limit = max_bytes};
    *out = NULL;
    for (;;) {
        const char *tag = merge_next_tag(text);
        writer_bytes(&writer, text, tag == NULL ? strlen(text) : (size_t)(tag - text));
        if (tag == NULL)
            break;
        struct merge_tag read;
        text = merge_tag_read(tag + 2, &read, error, error_bytes);
        if (text == NULL || (!read.is_comment && merge_value(merge, read.name, html && !read.is_raw, &writer, error, error_bytes) < 0)) {
            free(writer.bytes);
            return -EINVAL;
        }
    }
    writer_byte(&writer, '\0');
    if (writer.error == 0 && writer.at - 1 > max_bytes)
        writer.error = -E2BIG;
    if (writer.error != 0) {
        snprintf(error, error_bytes,
                 writer.error == -E2BIG ? "a text is over %zu bytes with its variables filled in" : "out of memory (%zu)", max_bytes);
        free(writer.bytes);
        return writer.error;
    }
    *out = (char *)writer.bytes;
    return 0;
}
