/* content_type.c: reads content types by RFC 2045's grammar, without its comments, and writes them folded. */
#include "content_type.h"
#include "header.h"

#include <string.h>
#include <strings.h>

/* What a value of `length` bytes at `text` stands for; `raw` and `raw_length` are "name=value" as it is written. */
struct parameter {
    const char *name, *value, *raw;
    size_t name_length, value_length, raw_length;
    bool quoted;
};

static bool is_alnum(char byte) {
    return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z');
}

/* RFC 2045 5.1. */
static bool is_token(char byte) {
    return byte > 32 && byte < 127 && strchr("()<>@,;:\\\"/[]?=", byte) == NULL;
}

static size_t token_length(const char *text) {
    size_t length = 0;
    while (is_token(text[length]))
        length++;
    return length;
}

/* RFC 6838 4.2. */
static size_t name_length(const char *text) {
    size_t length = 0;
    while (is_alnum(text[length]) || (text[length] != '\0' && strchr("!#$&-^_.+", text[length]) != NULL))
        length++;
    return length;
}

static const char *skip_blanks(const char *at) {
    return at + strspn(at, " \t");
}

static size_t type_length(const char *text) {
    size_t type = name_length(text), subtype = text[type] == '/' ? name_length(text + type + 1) : 0;
    return type > 0 && subtype > 0 ? type + 1 + subtype : 0;
}

/* Behind the closing quote, or NULL. */
static const char *quoted_end(const char *at) {
    for (at++; *at != '"'; at++)
        if (*at == '\0' || (*at == '\\' && *++at == '\0'))
            return NULL;
    return at + 1;
}

/* The next parameter at the semicolon *at, which moves behind it. NULL, or what is wrong. */
static const char *parameter_take(const char **at, struct parameter *out) {
    static const char form[] = "has a parameter that is neither like charset=utf-8 nor like title=\"a title\" (RFC 2045 5.1)";
    const char *name = skip_blanks(*at + 1);
    *out = (struct parameter){.name = name, .raw = name, .name_length = token_length(name)};
    const char *value = name + out->name_length + 1;
    if (out->name_length == 0 || value[-1] != '=')
        return form;
    if (strcspn(name, "*'%") < out->name_length)
        return "has a parameter whose name holds *, ' or %: give the value itself in quotes, it is extended where need be (RFC 2231)";
    if (out->name_length > CONTENT_TYPE_NAME_MAX)
        return "has a parameter with a name of more than 40 characters";
    const char *end = *value == '"' ? quoted_end(value) : value + token_length(value);
    if (end == NULL)
        return "has a quoted value without its closing quote";
    if (end == value)
        return form;
    out->quoted = *value == '"';
    out->value = value + out->quoted;
    out->value_length = (size_t)(end - value) - 2 * out->quoted;
    out->raw_length = (size_t)(end - name);
    *at = skip_blanks(end);
    if (**at != '\0' && **at != ';')
        return out->quoted ? form : "has a value that must stand in quotes: it is no token (RFC 2045 5.1)";
    return NULL;
}

static bool is_given(const struct parameter *parameters, uint32_t count, const struct parameter *parameter) {
    for (uint32_t i = 0; i < count; i++)
        if (parameters[i].name_length == parameter->name_length &&
            strncasecmp(parameters[i].name, parameter->name, parameter->name_length) == 0)
            return true;
    return false;
}

const char *content_type_fault(const char *text) {
    struct parameter parameters[CONTENT_TYPE_PARAMETERS_MAX];
    size_t length = type_length(text);
    const char *at = skip_blanks(text + length);
    if (length == 0 || (*at != '\0' && *at != ';'))
        return "is not a content type like application/pdf";
    for (uint32_t count = 0; *at == ';' && *skip_blanks(at + 1) != '\0'; count++) { /* many write a semicolon behind the last too */
        if (count == CONTENT_TYPE_PARAMETERS_MAX)
            return "has more than 32 parameters";
        const char *fault = parameter_take(&at, &parameters[count]);
        if (fault != NULL)
            return fault;
        if (is_given(parameters, count, &parameters[count]))
            return "has a parameter twice";
    }
    return NULL;
}

bool content_type_is_composite(const char *text) {
    return strncasecmp(text, "multipart/", 10) == 0 || strncasecmp(text, "message/", 8) == 0;
}

/* Can it stand as it is? Readers decode encoded-words in quotes too (RFC 2047 5 forbids them there). */
static bool is_plain(const struct parameter *parameter) {
    for (size_t i = 0; i < parameter->raw_length; i++)
        if (parameter->raw[i] < 32 || parameter->raw[i] > 126)
            return false;
    return memmem(parameter->raw, parameter->raw_length, "=?", 2) == NULL;
}

static void parameter_write(struct writer *writer, const struct parameter *parameter) {
    char name[CONTENT_TYPE_NAME_MAX + 1], value[CONTENT_TYPE_MAX + 1];
    size_t used = 0;
    if (is_plain(parameter) && writer_column(writer) + 2 + parameter->raw_length < HEADER_LINE_BYTES) {
        writer_text(writer, "; ");
        writer_bytes(writer, parameter->raw, parameter->raw_length);
        return;
    }
    memcpy(name, parameter->name, parameter->name_length);
    name[parameter->name_length] = '\0';
    for (size_t i = 0; i < parameter->value_length && used < CONTENT_TYPE_MAX; i++) {
        i += parameter->quoted && parameter->value[i] == '\\';
        value[used++] = parameter->value[i];
    }
    value[used] = '\0';
    header_parameter(writer, name, value);
}

void content_type_write(struct writer *writer, const char *text) {
    struct parameter parameter;
    size_t length = type_length(text);
    const char *at = skip_blanks(text + length);
    if (writer_column(writer) + 1 + length > HEADER_LINE_BYTES)
        writer_fold(writer);
    writer_byte(writer, ' ');
    writer_bytes(writer, text, length);
    while (*at == ';' && parameter_take(&at, &parameter) == NULL)
        parameter_write(writer, &parameter);
}
