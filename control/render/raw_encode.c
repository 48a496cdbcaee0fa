/* raw_encode.c: header fields of raw messages with bytes beyond ASCII, which need SMTPUTF8 as they are (RFC 6532) and none as encoded-words
 * (RFC 2047). */
#include "header.h"
#include "raw.h"

#include <stdlib.h>
#include <strings.h>

enum { ENCODE_MAILBOXES_MAX = 1000 };

static const char *const text_fields[] = {"Subject", "Comments", "Keywords"};
static const char *const address_fields[] = {"From",        "Sender",        "Reply-To",  "To",       "Cc",
                                             "Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc"};

static bool is_one_of(const char *name, const char *const *names, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (strcasecmp(name, names[i]) == 0)
            return true;
    return false;
}

/* The value on one line, malloc'd: line ends go, the white space that follows them stays (RFC 5322 2.2.3). */
static char *unfold(const char *value, size_t length) {
    char *out = malloc(length + 1);
    size_t used = 0;
    for (size_t i = 0; out != NULL && i < length; i++)
        if (value[i] != '\r' && value[i] != '\n')
            out[used++] = value[i];
    if (out == NULL)
        return NULL;
    while (used > 0 && (out[used - 1] == ' ' || out[used - 1] == '\t'))
        used--;
    out[used] = '\0';
    return out;
}

/* -- address lists -- */

struct list {
    struct mailbox *items;
    uint32_t count;
    char *at; /* what is read; names and addresses are cut out of it */
};

static void skip_blanks(struct list *list) {
    list->at += strspn(list->at, " \t");
}

/* A display name, up to its <; quotes and backslashes are taken away in place. False: a comment, a group or what is no name. */
static bool take_name(struct list *list, char **name) {
    char *out = list->at, *end = out;
    bool quoted = false;
    *name = out;
    for (; *list->at != '\0' && (quoted || *list->at != '<'); list->at++) {
        char byte = *list->at;
        if (byte == '"') {
            quoted = !quoted;
            continue;
        }
        if (!quoted && strchr("()>:;", byte) != NULL)
            return false;
        if (quoted && byte == '\\' && list->at[1] != '\0')
            byte = *++list->at;
        *out++ = byte;
        if (quoted || (byte != ' ' && byte != '\t'))
            end = out;
    }
    if (*list->at != '<')
        return false;
    list->at++;
    *end = '\0'; /* at the < at the latest */
    return true;
}

static bool take_mailbox(struct list *list, bool *more) {
    struct mailbox *mailbox = &list->items[list->count];
    char *start = list->at;
    bool has_bracket = false;
    for (bool quoted = false; *start != '\0' && (quoted || *start != ','); start++) {
        if (*start == '\\' && quoted && start[1] != '\0')
            start++;
        else if (*start == '"')
            quoted = !quoted;
        else if (*start == '<' && !quoted)
            has_bracket = true;
    }
    *mailbox = (struct mailbox){.email = NULL};
    if (!has_bracket) { /* an address alone: as it is, quotes and all */
        *more = *start == ',';
        *start = '\0';
        mailbox->email = list->at;
        size_t length = strlen(mailbox->email);
        while (length > 0 && (mailbox->email[length - 1] == ' ' || mailbox->email[length - 1] == '\t'))
            mailbox->email[--length] = '\0';
        list->at = start + *more;
        return length > 0;
    }
    if (!take_name(list, &mailbox->name))
        return false;
    mailbox->email = list->at;
    list->at += strcspn(list->at, ">");
    if (*list->at != '>')
        return false;
    *list->at++ = '\0';
    skip_blanks(list);
    *more = *list->at == ',';
    list->at += *more;
    return *more || *list->at == '\0';
}

/* Name and addresses of a value, which is cut into them. */
static bool take_list(struct list *list) {
    bool more = true;
    while (more) {
        skip_blanks(list);
        if (list->count == ENCODE_MAILBOXES_MAX || !take_mailbox(list, &more))
            return false;
        list->count++;
    }
    return true;
}

static bool encode_list(struct writer *writer, const char *name, char *value, bool *is_8bit) {
    struct list list = {.at = value, .items = calloc(ENCODE_MAILBOXES_MAX, sizeof(*list.items))};
    const struct mailbox *bad;
    struct writer before = *writer;
    bool good = list.items != NULL && take_list(&list), utf8 = false;
    if (good && header_mailboxes(writer, name, list.items, list.count, &utf8, &bad) != 0) {
        good = false; /* the bytes stay its own; what was written is forgotten */
        writer->at = before.at;
        writer->line = before.line;
        writer->leading_dot = before.leading_dot;
    }
    *is_8bit |= good && utf8;
    free(list.items);
    return good;
}

bool raw_encode(struct writer *writer, const char *field, size_t length, size_t name, bool *is_8bit) {
    char field_name[HEADER_NAME_MAX + 1];
    const char *colon = memchr(field, ':', length);
    if (name > HEADER_NAME_MAX || colon == NULL)
        return false;
    memcpy(field_name, field, name);
    field_name[name] = '\0';
    bool text = is_one_of(field_name, text_fields, sizeof(text_fields) / sizeof(text_fields[0])) || strncasecmp(field_name, "X-", 2) == 0;
    if (!text && !is_one_of(field_name, address_fields, sizeof(address_fields) / sizeof(address_fields[0])))
        return false;
    if (memmem(field, length, "=?", 2) != NULL) /* half of it is encoded already */
        return false;
    char *value = unfold(colon + 1, length - (size_t)(colon + 1 - field));
    bool good = value != NULL;
    if (good && text)
        header_text(writer, field_name, value + strspn(value, " \t"));
    else if (good)
        good = encode_list(writer, field_name, value, is_8bit);
    free(value);
    return good;
}
