/* decode_dsn.c: which notices a job asks for (RFC 3461). */
#include "decode.h"

#include <string.h>

/* One of RFC 3461 4.1's words. */
static bool dsn_word(struct decoder *decoder, const char *place, const json_t *value) {
    static const struct {
        const char *word;
        uint8_t bits;
    } words[] = {{"failure", DSN_FAILURE}, {"delay", DSN_DELAY}, {"success", DSN_SUCCESS}, {"never", 0}};
    const char *text = json_string_value(value);
    char quote[QUOTE_BYTES];
    if (!text) {
        return decode_fail(decoder, place, "It must be a string, not %s.", decode_kind(value));
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(text, words[i].word) == 0) {
            decoder->job->dsn |= words[i].bits;
            return true;
        }
    }
    return decode_fail(decoder, place, "\"%s\" must be failure, delay, success or never.", decode_quote(text, strlen(text), quote));
}

/* One word or an array of them. */
static bool dsn_notify(struct decoder *decoder, const char *place, const json_t *value) {
    if (!json_is_array(value)) {
        return dsn_word(decoder, place, value);
    }
    if (json_array_size(value) == 0) {
        return decode_fail(decoder, place, "It is empty: give failure, delay or success, or leave dsn out.");
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        char below[PLACE_BYTES];
        place_index(below, place, i);
        if (!dsn_word(decoder, below, json_array_get(value, i))) {
            return false;
        }
        if (strcmp(json_string_value(json_array_get(value, i)), "never") == 0 && json_array_size(value) > 1) {
            return decode_fail(decoder, below, "never stands alone (RFC 3461 section 4.1).");
        }
    }
    return true;
}

bool decode_dsn(struct decoder *decoder, const char *place, const json_t *value) {
    static const char *const names[] = {"notify", "return"};
    struct job *job = decoder->job;
    char quote[QUOTE_BYTES];
    if (json_is_boolean(value)) {
        job->dsn = json_is_true(value) ? DSN_FAILURE : 0;
        return true;
    }
    if (!json_is_object(value)) {
        return dsn_notify(decoder, place, value);
    }
    const char *key;
    json_t *member;
    bool has_notify = false;
    json_object_foreach((json_t *)value, key, member) {
        char below[PLACE_BYTES];
        place_member(below, place, key);
        const char *text = json_string_value(member);
        if (strcmp(key, "notify") == 0) {
            has_notify = true;
            if (!dsn_notify(decoder, below, member)) {
                return false;
            }
        } else if (strcmp(key, "return") == 0) {
            job->dsn_full = text && strcmp(text, "full") == 0;
            if (!text) {
                return decode_fail(decoder, below, "It must be a string, not %s.", decode_kind(member));
            }
            if (!job->dsn_full && strcmp(text, "headers") != 0) {
                return decode_fail(decoder, below, "\"%s\" must be headers or full.", decode_quote(text, strlen(text), quote));
            }
        } else {
            const char *near = decode_nearest(key, names, 2);
            return decode_fail(decoder, below, "dsn has no such field%s%s%s", near ? "; did you mean " : ".", near ? near : "",
                               near ? "?" : "");
        }
    }
    if (!has_notify) {
        job->dsn = DSN_FAILURE;
    }
    return true;
}
