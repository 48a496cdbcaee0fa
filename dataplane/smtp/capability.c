/* capability.c: EHLO keywords. The bytes are the server's: every comparison is bounded by the line. */
#include "capability.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

struct word {
    const char *bytes;
    uint32_t length;
};

static bool is_blank(char byte) {
    return byte == ' ' || byte == '\t';
}

/* Takes the next word off the line; false at its end. */
static bool next_word(struct word *line, struct word *word) {
    while (line->length && is_blank(*line->bytes)) {
        line->bytes++;
        line->length--;
    }
    uint32_t length = 0;
    while (length < line->length && !is_blank(line->bytes[length]))
        length++;
    *word = (struct word){line->bytes, length};
    line->bytes += length;
    line->length -= length;
    return length > 0;
}

static bool word_is(struct word word, const char *text) {
    size_t length = strlen(text);
    return word.length == length && strncasecmp(word.bytes, text, length) == 0;
}

/* A decimal number, saturated; 0 for anything else. */
static uint64_t word_number(struct word word) {
    uint64_t number = 0;
    for (uint32_t i = 0; i < word.length; i++) {
        if (word.bytes[i] < '0' || word.bytes[i] > '9')
            return 0;
        uint64_t digit = (uint64_t)(word.bytes[i] - '0');
        number = number > (UINT64_MAX - digit) / 10 ? UINT64_MAX : number * 10 + digit;
    }
    return number;
}

static void take_auth(struct capabilities *capabilities, struct word line) {
    static const struct {
        const char *name;
        uint32_t flag;
    } mechanisms[] = {{"PLAIN", CAP_AUTH_PLAIN},
                      {"LOGIN", CAP_AUTH_LOGIN},
                      {"CRAM-MD5", CAP_AUTH_CRAM_MD5},
                      {"XOAUTH2", CAP_AUTH_XOAUTH2},
                      {"OAUTHBEARER", CAP_AUTH_OAUTHBEARER}};
    struct word word;
    while (next_word(&line, &word)) {
        for (size_t i = 0; i < sizeof(mechanisms) / sizeof(mechanisms[0]); i++) {
            if (word_is(word, mechanisms[i].name))
                capabilities->flags |= mechanisms[i].flag;
        }
    }
}

/* RFC 9422: NAME=number, in any order. */
static void take_limits(struct capabilities *capabilities, struct word line) {
    struct word word;
    while (next_word(&line, &word)) {
        const char *equals = memchr(word.bytes, '=', word.length);
        if (!equals)
            continue;
        struct word name = {word.bytes, (uint32_t)(equals - word.bytes)};
        uint64_t number = word_number((struct word){equals + 1, word.length - name.length - 1});
        uint32_t limit = number > UINT32_MAX ? UINT32_MAX : (uint32_t)number;
        if (word_is(name, "MAILMAX"))
            capabilities->mail_max = limit;
        else if (word_is(name, "RCPTMAX"))
            capabilities->rcpt_max = limit;
        else if (word_is(name, "RCPTDOMAINMAX"))
            capabilities->rcpt_domain_max = limit;
    }
}

void capability_line(struct capabilities *capabilities, const char *bytes, uint32_t length) {
    static const struct {
        const char *name;
        uint32_t flag;
    } keywords[] = {{"PIPELINING", CAP_PIPELINING},
                    {"8BITMIME", CAP_8BITMIME},
                    {"SMTPUTF8", CAP_SMTPUTF8},
                    {"CHUNKING", CAP_CHUNKING},
                    {"STARTTLS", CAP_STARTTLS},
                    {"ENHANCEDSTATUSCODES", CAP_ENHANCED},
                    {"DSN", CAP_DSN},
                    {"REQUIRETLS", CAP_REQUIRETLS}};
    struct word line = {bytes, length}, keyword, value;
    if (!next_word(&line, &keyword))
        return;
    for (size_t i = 0; i < sizeof(keywords) / sizeof(keywords[0]); i++) {
        if (word_is(keyword, keywords[i].name)) {
            capabilities->flags |= keywords[i].flag;
            return;
        }
    }
    if (word_is(keyword, "SIZE")) {
        capabilities->flags |= CAP_SIZE;
        if (next_word(&line, &value))
            capabilities->size_max_bytes = word_number(value);
    } else if (word_is(keyword, "LIMITS")) {
        capabilities->flags |= CAP_LIMITS;
        take_limits(capabilities, line);
    } else if (word_is(keyword, "AUTH")) {
        take_auth(capabilities, line);
    } else if (keyword.length >= 5 && strncasecmp(keyword.bytes, "AUTH=", 5) == 0) {
        /* An old form, where the first mechanism sticks to the keyword. */
        uint32_t rest = (uint32_t)(line.bytes + line.length - (keyword.bytes + 5));
        take_auth(capabilities, (struct word){keyword.bytes + 5, rest});
    }
}
