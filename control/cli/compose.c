/* compose.c: options into a job. What the values must be is the decoder's to say; this only puts them in their places. */
#include "compose.h"
#include "cli.h"
#include "control/config/units.h"

#include <ctype.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FILE_MAX_BYTES = 256 << 20 };
static const char name[] = "submit";

/* Takes over `value`. */
static bool set(json_t *job, const char *field, json_t *value, int *code) {
    if (!value || json_object_set_new(job, field, value) != 0) {
        *code = cli_complain(CLI_DATA, name, "%s: the text is not valid UTF-8; convert it, or submit it as MessagePack.", field);
        return false;
    }
    return true;
}

bool compose_text(json_t *job, const char *field, const char *value, int *code) {
    if (json_object_get(job, field)) {
        *code = cli_complain(CLI_USAGE, name, "%s was given twice; give it once.", field);
        return false;
    }
    return set(job, field, json_string(value), code);
}

bool compose_append(json_t *job, const char *field, const char *value, int *code) {
    json_t *list = json_object_get(job, field);
    if (!list && !set(job, field, list = json_array(), code)) {
        return false;
    }
    if (json_array_append_new(list, json_string(value)) != 0) {
        *code = cli_complain(CLI_DATA, name, "%s: the text is not valid UTF-8; convert it.", field);
        return false;
    }
    return true;
}

bool compose_file(json_t *job, const char *field, const char *path, int *code) {
    size_t length;
    char *text = cli_read_file(name, path, FILE_MAX_BYTES, &length);
    *code = CLI_NO_INPUT;
    bool good = text && set(job, field, json_stringn(text, length), code);
    free(text);
    return good;
}

bool compose_header(json_t *job, const char *line, int *code) {
    const char *colon = strchr(line, ':');
    json_t *headers = json_object_get(job, "headers");
    if (!colon || colon == line) {
        *code = cli_complain(CLI_USAGE, name, "--header '%s': write it as 'Name: value'.", line);
        return false;
    }
    if (!headers && !set(job, "headers", headers = json_object(), code)) {
        return false;
    }
    char *key = strndup(line, (size_t)(colon - line));
    const char *text = colon + 1 + strspn(colon + 1, " \t");
    json_t *before = json_object_get(headers, key), *value = json_string(text);
    bool good;
    if (json_is_array(before)) {
        good = json_array_append_new(before, value) == 0;
    } else if (before) {
        good = value && json_object_set_new(headers, key, json_pack("[O,o]", before, value)) == 0;
    } else {
        good = json_object_set_new(headers, key, value) == 0;
    }
    free(key);
    if (!good) {
        *code = cli_complain(CLI_DATA, name, "--header: the text is not valid UTF-8; convert it.");
    }
    return good;
}

bool compose_json(json_t *job, const char *option, const char *field, const char *text, int *code) {
    json_error_t error;
    size_t length;
    char *read = *text == '@' ? cli_read_file(name, text + 1, FILE_MAX_BYTES, &length) : NULL;
    if (*text == '@' && !read) {
        *code = CLI_NO_INPUT;
        return false;
    }
    if (json_object_get(job, field)) {
        *code = cli_complain(CLI_USAGE, name, "--%s was given twice; give it once.", option);
        free(read);
        return false;
    }
    json_t *value = json_loads(read ? read : text, JSON_REJECT_DUPLICATES, &error);
    if (!value) {
        *code = cli_complain(read ? CLI_DATA : CLI_USAGE, name, "--%s: %s%sit is not JSON: %s; write for example '{\"order\": 17}'.",
                             option, read ? text + 1 : "", read ? ": " : "", error.text);
    }
    free(read);
    return value && set(job, field, value, code);
}

bool compose_flag(json_t *job, const char *field, bool value, int *code) {
    if (json_object_get(job, field)) {
        *code = cli_complain(CLI_USAGE, name, "%s was given twice; give it once.", field);
        return false;
    }
    return set(job, field, json_boolean(value), code);
}

bool compose_time(json_t *job, const char *field, const char *text, int *code) {
    uint64_t ms;
    if (*text == '+') {
        if (!units_duration(text + 1, &ms)) {
            *code = cli_complain(CLI_USAGE, name, "%s '%s': write a time such as +10m, +2h, 2026-12-24T18:00:00Z, or Unix seconds.", field,
                                 text);
            return false;
        }
        return set(job, field, json_integer((json_int_t)time(NULL) + (json_int_t)(ms / 1000)), code);
    }
    if (*text && strspn(text, "0123456789") == strlen(text)) {
        return set(job, field, json_integer(strtoll(text, NULL, 10)), code);
    }
    return compose_text(job, field, text, code);
}

bool compose_raw(json_t *job, const char *path, struct compose_raw *raw, int *code) {
    size_t length;
    *code = CLI_NO_INPUT;
    char *bytes = cli_read_file(name, path, FILE_MAX_BYTES, &length);
    if (!bytes) {
        return false;
    }
    json_t *text = json_stringn(bytes, length);
    if (text && !raw->bytes) {
        free(bytes);
        return set(job, "raw", text, code);
    }
    json_decref(text);
    free(raw->bytes);
    *raw = (struct compose_raw){(uint8_t *)bytes, length};
    return true;
}

static void pack_text(msgpack_packer *packer, const char *text, size_t length) {
    msgpack_pack_str(packer, length);
    msgpack_pack_str_body(packer, text, length);
}

/* What compose makes: objects, arrays, strings, integers, and whatever JSON stood in metadata. */
static void pack(msgpack_packer *packer, const json_t *value) {
    const char *key;
    json_t *item;
    size_t index;
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        msgpack_pack_map(packer, json_object_size(value));
        json_object_foreach((json_t *)value, key, item) {
            pack_text(packer, key, strlen(key));
            pack(packer, item);
        }
        return;
    case JSON_ARRAY:
        msgpack_pack_array(packer, json_array_size(value));
        json_array_foreach(value, index, item) {
            pack(packer, item);
        }
        return;
    case JSON_STRING:
        pack_text(packer, json_string_value(value), json_string_length(value));
        return;
    case JSON_INTEGER:
        msgpack_pack_int64(packer, json_integer_value(value));
        return;
    case JSON_REAL:
        msgpack_pack_double(packer, json_real_value(value));
        return;
    case JSON_TRUE:
        msgpack_pack_true(packer);
        return;
    case JSON_FALSE:
        msgpack_pack_false(packer);
        return;
    default:
        msgpack_pack_nil(packer);
    }
}

uint8_t *compose_bytes(const json_t *job, const struct compose_raw *raw, size_t *length) {
    const char *key;
    json_t *item;
    if (!raw->bytes) {
        char *text = json_dumps(job, JSON_COMPACT);
        *length = text ? strlen(text) : 0;
        return (uint8_t *)text;
    }
    msgpack_sbuffer buffer;
    msgpack_packer packer;
    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
    msgpack_pack_map(&packer, json_object_size(job) + 1);
    json_object_foreach((json_t *)job, key, item) {
        pack_text(&packer, key, strlen(key));
        pack(&packer, item);
    }
    pack_text(&packer, "raw", 3);
    msgpack_pack_bin(&packer, raw->length);
    msgpack_pack_bin_body(&packer, raw->bytes, raw->length);
    *length = buffer.size;
    return (uint8_t *)msgpack_sbuffer_release(&buffer);
}
