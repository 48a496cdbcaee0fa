/* command.c: verbs, paths and parameters. */
#include "command.h"

#include <string.h>
#include <strings.h>

struct cursor {
    const char *at, *end;
};

static bool cursor_takes(struct cursor *cursor, const char *word) {
    size_t length = strlen(word);
    if ((size_t)(cursor->end - cursor->at) < length || strncasecmp(cursor->at, word, length) != 0)
        return false;
    cursor->at += length;
    return true;
}

/* Quoted local parts may hold anything printable; outside of quotes no space and no control character (RFC 5321 4.1.2). */
static bool path_is_good(struct command *command) {
    bool quoted = false;
    for (uint32_t i = 0; i < command->path_length; i++) {
        uint8_t c = (uint8_t)command->path[i];
        if (c >= 0x80)
            command->path_is_utf8 = true;
        if (c < ' ' || c == 0x7f)
            return false;
        if (quoted && c == '\\')
            i++;
        else if (c == '"')
            quoted = !quoted;
        else if (!quoted && (c == ' ' || c == '<' || c == '>' || c == '\\'))
            return false;
    }
    return !quoted && command->path_length <= COMMAND_PATH_BYTES_MAX;
}

static bool path_has_parts(const struct command *command) {
    const char *at = memrchr(command->path, '@', command->path_length);
    return at != NULL && at != command->path && at + 1 != command->path + command->path_length;
}

/* "<" path ">" up to the space before the parameters. Finds the ">" that no quotes hold. */
static bool take_path(struct command *command, struct cursor *cursor) {
    if (cursor->at == cursor->end || *cursor->at != '<')
        return false;
    const char *from = ++cursor->at;
    bool quoted = false;
    while (cursor->at < cursor->end && (quoted || *cursor->at != '>')) {
        if (quoted && *cursor->at == '\\' && cursor->at + 1 < cursor->end)
            cursor->at++;
        else if (*cursor->at == '"')
            quoted = !quoted;
        cursor->at++;
    }
    if (cursor->at == cursor->end)
        return false;
    const char *to = cursor->at++;
    const char *colon = *from == '@' ? memchr(from, ':', (size_t)(to - from)) : NULL;
    command->path = colon == NULL ? from : colon + 1; /* a source route is ignored (RFC 5321 4.1.1.3) */
    command->path_length = (uint32_t)(to - command->path);
    return path_is_good(command);
}

static bool read_number(const char *text, size_t length, uint64_t *number) {
    if (length == 0 || length > 18)
        return false;
    *number = 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        *number = *number * 10 + (uint64_t)(text[i] - '0');
    }
    return true;
}

static bool is_hex(char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F');
}

/* RFC 3461 section 4. */
static bool is_xtext(struct cursor text) {
    for (; text.at < text.end; text.at++) {
        if (*text.at == '+') {
            if (text.end - text.at < 3 || !is_hex(text.at[1]) || !is_hex(text.at[2]))
                return false;
            text.at += 2;
        } else if (*text.at < '!' || *text.at > '~' || *text.at == '=') {
            return false;
        }
    }
    return true;
}

static bool cursor_is(struct cursor cursor, const char *word) {
    return cursor_takes(&cursor, word) && cursor.at == cursor.end;
}

/* NOTIFY=NEVER, or a list of the others (RFC 3461 4.1). */
static bool is_notify(struct cursor list) {
    if (cursor_is(list, "NEVER"))
        return true;
    while (cursor_takes(&list, "SUCCESS") || cursor_takes(&list, "FAILURE") || cursor_takes(&list, "DELAY")) {
        if (list.at == list.end)
            return true;
        if (*list.at++ != ',')
            return false;
    }
    return false;
}

static enum command_error take_recipient_parameter(struct command *command, struct cursor word, uint16_t extensions) {
    if ((extensions & EXTENSION_DSN) != 0 && cursor_takes(&word, "NOTIFY=")) {
        command->notify = true;
        return is_notify(word) ? COMMAND_GOOD : COMMAND_BAD_VALUE;
    }
    if ((extensions & EXTENSION_DSN) != 0 && cursor_takes(&word, "ORCPT=")) {
        const char *type_end = memchr(word.at, ';', (size_t)(word.end - word.at));
        if (type_end == NULL || type_end == word.at || !is_xtext((struct cursor){type_end + 1, word.end}))
            return COMMAND_BAD_VALUE;
        return COMMAND_GOOD;
    }
    return COMMAND_BAD_PARAMETER;
}

static enum command_error take_rare_parameter(struct command *command, struct cursor word, uint16_t extensions) {
    if ((extensions & EXTENSION_DSN) != 0 && cursor_takes(&word, "RET="))
        return cursor_is(word, "FULL") || cursor_is(word, "HDRS") ? COMMAND_GOOD : COMMAND_BAD_VALUE;
    if ((extensions & EXTENSION_DSN) != 0 && cursor_takes(&word, "ENVID="))
        return word.at < word.end && word.end - word.at <= COMMAND_ENVID_BYTES_MAX && is_xtext(word) ? COMMAND_GOOD : COMMAND_BAD_VALUE;
    if ((extensions & EXTENSION_AUTH) != 0 && cursor_takes(&word, "AUTH=")) /* RFC 4954 section 5 */
        return cursor_is(word, "<>") || (word.at < word.end && is_xtext(word)) ? COMMAND_GOOD : COMMAND_BAD_VALUE;
    if ((extensions & EXTENSION_REQUIRETLS) != 0 && cursor_is(word, "REQUIRETLS")) {
        command->require_tls = true;
        return COMMAND_GOOD;
    }
    return COMMAND_BAD_PARAMETER;
}

static enum command_error take_parameter(struct command *command, struct cursor word, uint16_t extensions) {
    if (command->verb == COMMAND_RCPT)
        return take_recipient_parameter(command, word, extensions);
    if ((extensions & EXTENSION_SIZE) != 0 && cursor_takes(&word, "SIZE="))
        return read_number(word.at, (size_t)(word.end - word.at), &command->size) ? COMMAND_GOOD : COMMAND_BAD_VALUE;
    if ((extensions & EXTENSION_8BITMIME) != 0 && cursor_takes(&word, "BODY=")) {
        command->eight_bit = cursor_takes(&word, "8BITMIME");
        return (command->eight_bit || cursor_takes(&word, "7BIT")) && word.at == word.end ? COMMAND_GOOD : COMMAND_BAD_VALUE;
    }
    if ((extensions & EXTENSION_SMTPUTF8) != 0 && cursor_takes(&word, "SMTPUTF8") && word.at == word.end) {
        command->utf8 = true;
        return COMMAND_GOOD;
    }
    return take_rare_parameter(command, word, extensions);
}

static enum command_error take_parameters(struct command *command, struct cursor *cursor, uint16_t extensions) {
    while (cursor->at < cursor->end) {
        if (*cursor->at != ' ')
            return COMMAND_BAD_SYNTAX;
        cursor->at++;
        struct cursor word = {cursor->at, cursor->at};
        while (word.end < cursor->end && *word.end != ' ')
            word.end++;
        cursor->at = word.end;
        if (word.at == word.end) { /* trailing white space is tolerated (RFC 5321 4.1.1) */
            while (cursor->at < cursor->end && *cursor->at == ' ')
                cursor->at++;
            return cursor->at == cursor->end ? COMMAND_GOOD : COMMAND_BAD_SYNTAX;
        }
        enum command_error error = take_parameter(command, word, extensions);
        if (error != COMMAND_GOOD)
            return error;
    }
    return COMMAND_GOOD;
}

static enum command_error parse_mail(struct command *command, struct cursor *cursor, uint16_t extensions) {
    if (!cursor_takes(cursor, " FROM:") || !take_path(command, cursor) || (command->path_length > 0 && !path_has_parts(command)))
        return COMMAND_BAD_SYNTAX;
    enum command_error error = take_parameters(command, cursor, extensions);
    return error == COMMAND_GOOD && command->path_is_utf8 && !command->utf8 ? COMMAND_BAD_SYNTAX : error;
}

static enum command_error parse_rcpt(struct command *command, struct cursor *cursor, uint16_t extensions) {
    if (!cursor_takes(cursor, " TO:") || !take_path(command, cursor))
        return COMMAND_BAD_SYNTAX;
    bool postmaster = command->path_length == 10 && strncasecmp(command->path, "postmaster", 10) == 0; /* RFC 5321 4.5.1 */
    return postmaster || path_has_parts(command) ? take_parameters(command, cursor, extensions) : COMMAND_BAD_SYNTAX;
}

static enum command_error parse_bdat(struct command *command, struct cursor *cursor) {
    if (cursor->at == cursor->end || *cursor->at != ' ')
        return COMMAND_BAD_SYNTAX;
    const char *from = ++cursor->at;
    while (cursor->at < cursor->end && *cursor->at != ' ')
        cursor->at++;
    if (!read_number(from, (size_t)(cursor->at - from), &command->size))
        return COMMAND_BAD_SYNTAX;
    command->last = cursor_takes(cursor, " LAST");
    return cursor->at == cursor->end ? COMMAND_GOOD : COMMAND_BAD_SYNTAX;
}

/* A name or an address literal: something without spaces. */
static enum command_error parse_hello(struct command *command, const struct cursor *cursor) {
    size_t length = (size_t)(cursor->end - cursor->at);
    if (length < 2 || *cursor->at != ' ')
        return COMMAND_BAD_SYNTAX;
    command->path = cursor->at + 1;
    command->path_length = (uint32_t)length - 1;
    for (uint32_t i = 0; i < command->path_length; i++)
        if (command->path[i] <= ' ' || command->path[i] == 0x7f) /* bytes beyond ASCII are negative: not a domain either */
            return COMMAND_BAD_SYNTAX;
    return COMMAND_GOOD;
}

/* AUTH mechanism [initial-response]. */
static enum command_error parse_auth(struct command *command, const struct cursor *cursor) {
    if (cursor->end - cursor->at < 2 || *cursor->at != ' ')
        return COMMAND_BAD_SYNTAX;
    command->path = cursor->at + 1;
    command->path_length = (uint32_t)(cursor->end - command->path);
    return COMMAND_GOOD;
}

static enum command_verb find_verb(struct cursor *cursor) {
    static const struct {
        char name[5];
        enum command_verb verb;
    } verbs[] = {{"MAIL", COMMAND_MAIL}, {"RCPT", COMMAND_RCPT}, {"DATA", COMMAND_DATA}, {"BDAT", COMMAND_BDAT},
                 {"EHLO", COMMAND_EHLO}, {"QUIT", COMMAND_QUIT}, {"RSET", COMMAND_RSET}, {"NOOP", COMMAND_NOOP},
                 {"HELO", COMMAND_HELO}, {"VRFY", COMMAND_VRFY}, {"AUTH", COMMAND_AUTH}};
    if (cursor->end - cursor->at < 4 || (cursor->end - cursor->at > 4 && cursor->at[4] != ' '))
        return cursor_takes(cursor, "STARTTLS") ? COMMAND_STARTTLS : COMMAND_UNKNOWN;
    char upper[4];
    for (int i = 0; i < 4; i++)
        upper[i] = (char)(cursor->at[i] & ~0x20);
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
        if (memcmp(upper, verbs[i].name, 4) == 0) {
            cursor->at += 4;
            return verbs[i].verb;
        }
    }
    return COMMAND_UNKNOWN;
}

void command_parse(struct command *command, const char *line, size_t length, uint16_t extensions) {
    *command = (struct command){.error = COMMAND_GOOD};
    struct cursor cursor = {line, line + length};
    command->verb = find_verb(&cursor);
    switch (command->verb) {
    case COMMAND_EHLO:
    case COMMAND_HELO:
        command->error = parse_hello(command, &cursor);
        break;
    case COMMAND_MAIL:
        command->error = parse_mail(command, &cursor, extensions);
        break;
    case COMMAND_RCPT:
        command->error = parse_rcpt(command, &cursor, extensions);
        break;
    case COMMAND_BDAT:
        command->error = parse_bdat(command, &cursor);
        break;
    case COMMAND_DATA:
    case COMMAND_RSET:
    case COMMAND_QUIT:
    case COMMAND_STARTTLS:
        while (cursor.at < cursor.end && *cursor.at == ' ')
            cursor.at++;
        command->error = cursor.at == cursor.end ? COMMAND_GOOD : COMMAND_BAD_SYNTAX;
        break;
    case COMMAND_AUTH:
        command->error = parse_auth(command, &cursor);
        break;
    case COMMAND_VRFY:
        command->error = cursor.end - cursor.at > 1 ? COMMAND_GOOD : COMMAND_BAD_SYNTAX;
        break;
    case COMMAND_NOOP:
    case COMMAND_UNKNOWN:
        break;
    }
}
