/* bulk_field.h: what the identifiers of bulk mail must look like: for the decoder, the configuration and render alike. */
#ifndef CONTROL_BULK_FIELD_H
#define CONTROL_BULK_FIELD_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

enum { LIST_IDENTIFIER_MAX = 255, FEEDBACK_SENDER_MIN = 5, FEEDBACK_SENDER_MAX = 15 };

/* RFC 2919 2: "name.example.org", or words and "<name.example.org>": dot-atom text with a dot. Tells where both stand (NULL: not wanted).
 */
static inline bool list_id_parse(const char *text, size_t *words_length, const char **id, size_t *id_length) {
    const char *open = strrchr(text, '<'), *at = open ? open + 1 : text;
    size_t length = open ? strcspn(at, ">") : strlen(at), words = open ? (size_t)(open - text) : 0;
    bool dotted = false, good = length > 0 && length <= LIST_IDENTIFIER_MAX && (!open || strcmp(at + length, ">") == 0);
    for (size_t i = 0; i < length && good; i++) {
        bool alnum = (at[i] >= '0' && at[i] <= '9') || (at[i] >= 'a' && at[i] <= 'z') || (at[i] >= 'A' && at[i] <= 'Z');
        bool dot = at[i] == '.';
        dotted |= dot;
        good = alnum || (dot ? i > 0 && i + 1 < length && at[i - 1] != '.' : strchr("!#$%&'*+-/=?^_`{|}~", at[i]) != NULL);
    }
    while (words > 0 && (text[words - 1] == ' ' || text[words - 1] == '\t')) {
        words--;
    }
    if (words_length) {
        *words_length = words;
    }
    if (id) {
        *id = at;
    }
    if (id_length) {
        *id_length = length;
    }
    return good && dotted;
}

/* NAME of {{bypost.NAME}}: what render knows of each message without being told. */
#define BUILT_IN_NAMES "email, unsubscribe_token, unsubscribe_url, unsubscribe_mailto, message_id, list_id, tenant, campaign, id, job"
static inline bool built_in_is_known(const char *name) {
    static const char names[] = BUILT_IN_NAMES;
    size_t length = strlen(name);
    for (const char *at = names; length > 0 && (at = strstr(at, name)) != NULL; at += length) {
        if ((at == names || at[-1] == ' ') && (at[length] == ',' || at[length] == 0)) {
            return true;
        }
    }
    return false;
}

/* Google's Feedback-ID: three parts that may be empty and the sender's, with colons between them; printable, without spaces. */
static inline bool feedback_id_is_legal(const char *text) {
    const char *last = text;
    unsigned colons = 0;
    for (const char *at = text; *at; at++) {
        if ((unsigned char)*at <= 32 || (unsigned char)*at >= 127) {
            return false;
        }
        if (*at == ':') {
            colons++;
            last = at + 1;
        }
    }
    size_t sender = strlen(last);
    return colons == 3 && sender >= FEEDBACK_SENDER_MIN && sender <= FEEDBACK_SENDER_MAX;
}

#endif
