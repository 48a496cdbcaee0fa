/* txt.c: RFC 8461 3.1 and RFC 8460 3 have one form of record. */
#include "txt.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

static bool is_blank(char c) {
    return c == ' ' || c == '\t';
}

static bool is_alphanumeric(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

int txt_join(const uint8_t *rdata, size_t rdata_bytes, char out[TXT_BYTES_MAX]) {
    size_t used = 0, at = 0;
    while (at < rdata_bytes) {
        size_t length = rdata[at++];
        if (at + length > rdata_bytes || used + length >= TXT_BYTES_MAX || memchr(rdata + at, '\0', length))
            return -EINVAL;
        memcpy(out + used, rdata + at, length);
        used += length;
        at += length;
    }
    out[used] = '\0';
    return (int)used;
}

int txt_version(const char *text, size_t bytes, const char *version, size_t *at) {
    size_t length = strlen(version);
    if (bytes < length || memcmp(text, version, length) != 0)
        return -ENOENT;
    while (length < bytes && is_blank(text[length]))
        length++;
    if (length == bytes || text[length] != ';')
        return -ENOENT;
    *at = length;
    return 0;
}

int txt_next(const char *text, size_t bytes, size_t *at, struct txt_field *field) {
    size_t begin = *at < bytes ? *at + 1 : bytes; /* behind the semicolon */
    while (begin < bytes && is_blank(text[begin]))
        begin++;
    if (begin == bytes) { /* a semicolon may end the record */
        *at = bytes;
        return 0;
    }
    size_t end = begin, last, equals = begin;
    while (end < bytes && text[end] != ';')
        end++;
    for (last = end; last > begin && is_blank(text[last - 1]);)
        last--;
    while (equals < last && (is_alphanumeric(text[equals]) || (equals > begin && strchr("_-.", text[equals]) && text[equals])))
        equals++;
    *field = (struct txt_field){.name = text + begin,
                                .name_length = equals - begin,
                                .value = text + equals + 1,
                                .value_length = last > equals ? last - equals - 1 : 0};
    if (equals == last || text[equals] != '=' || field->name_length == 0 || field->name_length > TXT_NAME_MAX || field->value_length == 0)
        return -EINVAL;
    for (size_t i = 0; i < field->value_length; i++) {
        unsigned char c = (unsigned char)field->value[i];
        if (!is_blank(field->value[i]) && (c <= 0x20 || c >= 0x7f))
            return -EINVAL;
    }
    *at = end;
    return 1;
}

/* Adds those of a list of addresses that can be used to rua[], *used of which are taken. */
static void take_addresses(const struct txt_field *field, char *rua, size_t *used, unsigned *count) {
    size_t at = 0;
    while (at < field->value_length) {
        size_t end = at;
        while (end < field->value_length && field->value[end] != ',')
            end++;
        size_t from = at, to = end;
        while (from < to && is_blank(field->value[from]))
            from++;
        while (to > from && is_blank(field->value[to - 1]))
            to--;
        const char *uri = field->value + from;
        size_t length = to - from;
        bool mail = length > 7 && strncasecmp(uri, "mailto:", 7) == 0, web = length > 8 && strncasecmp(uri, "https://", 8) == 0;
        bool blank = memchr(uri, ' ', length) || memchr(uri, '\t', length);
        if ((mail || web) && !blank && *count < TXT_RUA_MAX && *used + length + 2 <= TXT_RUA_BYTES) {
            memcpy(rua + *used, uri, length);
            rua[*used + length] = '\0';
            *used += length + 1;
            ++*count;
        }
        at = end + 1;
    }
}

int tlsrpt_record_read(const char *text, size_t bytes, char rua[TXT_RUA_BYTES]) {
    size_t at, used = 0;
    struct txt_field field;
    unsigned count = 0;
    bool seen = false;
    int rc = txt_version(text, bytes, "v=TLSRPTv1", &at);
    if (rc != 0)
        return rc;
    while ((rc = txt_next(text, bytes, &at, &field)) > 0)
        if (!seen && field.name_length == 3 && memcmp(field.name, "rua", 3) == 0) {
            seen = true;
            take_addresses(&field, rua, &used, &count);
        }
    if (rc < 0 || count == 0)
        return -EINVAL;
    rua[used] = '\0';
    return 0;
}
