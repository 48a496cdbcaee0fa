/* address_fuzz.c: libFuzzer on addresses as jobs give them and as they stand in header fields and envelopes. What the decoder takes is
 * written as one field of one form, from which a plain reading (RFC 5322 3.4, RFC 2047) gets the same names and addresses again, as the
 * decoder does from each mailbox; and a raw message's From is understood as what it was made of. Input: mailboxes, one a line. */
#include "control/fetch/decode.h"
#include "control/render/address.h"
#include "control/render/encode.h"
#define HEADER_NAME_MAX RENDER_HEADER_NAME_MAX /* both rooms have one of that name */
#include "control/render/header.h"
#undef HEADER_NAME_MAX
#include "control/render/raw.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_MAX = 4096, MAILBOXES_MAX = 32, NAME_MAX_BYTES = 1024 };

/* Not inlined: the stack of a failure names the line. */
__attribute__((noinline)) static void must(bool condition) {
    if (!condition)
        abort();
}

struct entry {
    struct mailbox mailbox;
    char address[ADDRESS_BYTES];
    char name[NAME_MAX_BYTES]; /* as it must be read: blanks at the ends are gone, tabs are spaces */
};

static void mailbox_free(struct mailbox *mailbox) {
    free(mailbox->email);
    free(mailbox->name);
    *mailbox = (struct mailbox){.email = NULL};
}

static bool take(const char *text, size_t length, struct mailbox *out) {
    char error[256] = "";
    struct decoder decoder = {.error = error, .error_bytes = sizeof(error)};
    json_t *value = json_stringn(text, length);
    bool ok = value != NULL && decode_mailbox(&decoder, "to", value, out);
    must(value == NULL || ok == (error[0] == '\0'));
    json_decref(value);
    if (!ok)
        mailbox_free(out); /* half of it may be there */
    return ok;
}

static void no_controls(const char *text) {
    for (; *text != '\0'; text++)
        must(((unsigned char)*text >= 32 || *text == '\t') && *text != 127);
}

static void expect_name(const char *name, char *out) {
    size_t length = name == NULL ? 0 : strlen(name);
    must(length < NAME_MAX_BYTES);
    size_t start = 0;
    while (start < length && (name[start] == ' ' || name[start] == '\t'))
        start++;
    while (length > start && (name[length - 1] == ' ' || name[length - 1] == '\t'))
        length--;
    for (size_t i = start; i < length; i++)
        *out++ = name[i] == '\t' ? ' ' : name[i];
    *out = '\0';
}

/* -- a plain reading of the field -- */

static int hex(char digit) {
    return digit >= '0' && digit <= '9' ? digit - '0' : digit >= 'A' && digit <= 'F' ? digit - 'A' + 10 : -1;
}

static int base64_digit(char digit) {
    return digit >= 'A' && digit <= 'Z'   ? digit - 'A'
           : digit >= 'a' && digit <= 'z' ? digit - 'a' + 26
           : digit >= '0' && digit <= '9' ? digit - '0' + 52
           : digit == '+'                 ? 62
           : digit == '/'                 ? 63
                                          : -1;
}

/* One encoded-word of whole characters; what is behind it. */
static const char *read_encoded_word(const char *at, char **out) {
    const char *text = at + 10, *end = strstr(text, "?=");
    char *start = *out;
    must(end != NULL && end + 2 - at <= 75);
    if (at[8] == 'Q') {
        for (; text < end; text++) {
            if (*text == '=') {
                must(end - text >= 3 && hex(text[1]) >= 0 && hex(text[2]) >= 0);
                *(*out)++ = (char)(hex(text[1]) << 4 | hex(text[2]));
                text += 2;
            } else {
                must(strchr("?()<>@,;:\\\". ", *text) == NULL); /* RFC 2047 5 (3) */
                *(*out)++ = *text == '_' ? ' ' : *text;
            }
        }
    } else {
        must(at[8] == 'B' && (end - text) % 4 == 0);
        for (; text < end; text += 4) {
            uint32_t group = 0;
            int count = text[2] == '=' ? 1 : text[3] == '=' ? 2 : 3;
            must(count == 3 || text + 4 == end);
            for (int i = 0; i < 4; i++) {
                must(i > count || base64_digit(text[i]) >= 0);
                group = group << 6 | (i > count ? 0 : (uint32_t)base64_digit(text[i]));
            }
            for (int i = 0; i < count; i++)
                *(*out)++ = (char)(group >> (16 - 8 * i));
        }
    }
    for (const char *character = start; character < *out;) {
        size_t length = utf8_character(character, (size_t)(*out - character));
        must(length > 0);
        character += length;
    }
    return end + 2;
}

/* A quoted string, its quotes and backslashes left where `raw`. */
static const char *read_quoted(const char *at, char **out, bool raw) {
    const char *start = at++;
    for (; *at != '"'; at++) {
        must(*at != '\0');
        if (*at == '\\') {
            at++;
            must(*at != '\0');
        }
        if (!raw)
            *(*out)++ = *at;
    }
    at++;
    if (raw) {
        memcpy(*out, start, (size_t)(at - start));
        *out += at - start;
    }
    return at;
}

/* One mailbox of an unfolded field, up to its comma. */
static const char *read_mailbox(const char *at, char *name, char *address) {
    bool encoded = false, first = true, bracket = false;
    char *name_end = name, *address_end = address;
    /* Without brackets the one word is the address. */
    const char *end = at;
    for (bool quoted = false; *end != '\0' && (quoted || *end != ','); end++) {
        if (quoted && *end == '\\')
            end++;
        else if (*end == '"')
            quoted = !quoted;
        bracket |= !quoted && *end == '<';
        must(*end != '\0');
    }
    while (at < end && bracket && *at != '<') {
        at += strspn(at, " \t");
        if (*at == '<')
            break;
        bool is_encoded = strncmp(at, "=?utf-8?", 8) == 0;
        if (!first && !(encoded && is_encoded))
            *name_end++ = ' ';
        if (is_encoded) {
            at = read_encoded_word(at, &name_end);
        } else if (*at == '"') {
            at = read_quoted(at, &name_end, false);
        } else {
            size_t length = strcspn(at, " \t<,\"");
            for (size_t i = 0; i < length; i++)
                must(strchr("()<>[]:;@\\,.\"", at[i]) == NULL);
            memcpy(name_end, at, length);
            name_end += length;
            at += length;
        }
        encoded = is_encoded;
        first = false;
    }
    *name_end = '\0';
    at += bracket ? 1 : strspn(at, " \t");
    if (*at == '"')
        at = read_quoted(at, &address_end, true);
    size_t length = strcspn(at, bracket ? ">" : ",");
    memcpy(address_end, at, length);
    address_end[length] = '\0';
    must(strpbrk(address_end, " \t<>\",\\()") == NULL);
    return at + length + bracket;
}

static void read_field(const struct writer *writer, const struct entry *entries, size_t count) {
    char *unfolded = malloc(writer->at + 1), name[4 * NAME_MAX_BYTES], address[4 * NAME_MAX_BYTES];
    size_t length = 0, line = 0;
    must(unfolded != NULL && writer->at > 4 && memcmp(writer->bytes, "To:", 3) == 0);
    for (size_t i = 3; i < writer->at; i++) {
        uint8_t byte = writer->bytes[i];
        must((byte >= 32 && byte != 127) || byte == '\r' || byte == '\n' || byte == '\t');
        if (byte == '\n') {
            must(writer->bytes[i - 1] == '\r' && i - line <= HEADER_LINE_MAX);
            must(i + 1 == writer->at || writer->bytes[i + 1] == ' ' || writer->bytes[i + 1] == '\t');
            line = i + 1;
        } else if (byte == '\r') {
            must(i + 1 < writer->at && writer->bytes[i + 1] == '\n');
        } else {
            unfolded[length++] = (char)byte;
        }
    }
    must(line == writer->at);
    unfolded[length] = '\0';
    const char *at = unfolded;
    for (size_t i = 0; i < count; i++) {
        at = read_mailbox(at, name, address);
        must(strcmp(name, entries[i].name) == 0 && strcmp(address, entries[i].address) == 0);
        must(*at == (i + 1 < count ? ',' : '\0'));
        at++;
    }
    free(unfolded);
}

/* -- what else must hold of a mailbox -- */

/* The decoder takes again what it gave, in both forms. */
static void again(const struct mailbox *mailbox) {
    struct mailbox second = {.email = NULL};
    must(take(mailbox->email, strlen(mailbox->email), &second) && strcmp(second.email, mailbox->email) == 0 && second.name == NULL);
    mailbox_free(&second);
    if (mailbox->name == NULL)
        return;
    char text[4 * NAME_MAX_BYTES], *end = text;
    *end++ = '"';
    for (const char *at = mailbox->name; *at != '\0'; at++) {
        if (*at == '"' || *at == '\\')
            *end++ = '\\';
        *end++ = *at;
    }
    end += sprintf(end, "\" <%s>", mailbox->email);
    if (end - text - (ptrdiff_t)strlen(mailbox->email) - 2 > DISPLAY_NAME_MAX)
        return; /* the limit counts what stands there */
    must(take(text, (size_t)(end - text), &second));
    must(strcmp(second.email, mailbox->email) == 0 && second.name != NULL && strcmp(second.name, mailbox->name) == 0);
    mailbox_free(&second);
}

/* raw.c finds the same address in a From field that header.c wrote. */
static void as_from(const struct entry *entry, bool utf8) {
    struct writer field = {.limit = 1 << 16}, out = {.limit = 1 << 16};
    const struct mailbox *bad = NULL;
    struct raw_additions additions = {.message_name = "m"};
    struct raw_facts facts;
    char error[256];
    bool again_utf8 = false;
    must(header_mailboxes(&field, "From", &entry->mailbox, 1, &again_utf8, &bad) == 0 && again_utf8 == utf8);
    must(raw_write(&out, field.bytes, field.at, &additions, &facts, error, sizeof(error)) == 0);
    must(strcmp(facts.from_address, entry->address) == 0 && facts.from_utf8 == utf8);
    free(field.bytes);
    free(out.bytes);
}

/* Taken, and written as an envelope has it. */
static bool entry_take(const char *text, size_t length, struct entry *entry, bool *utf8) {
    if (!take(text, length, &entry->mailbox))
        return false;
    const struct mailbox *mailbox = &entry->mailbox;
    no_controls(mailbox->email);
    must(mailbox->domain > mailbox->email && mailbox->domain[-1] == '@');
    must(memmem(mailbox->email, (size_t)(mailbox->domain - mailbox->email), "=?", 2) == NULL); /* RFC 2047 5 (3) */
    if (mailbox->name != NULL)
        no_controls(mailbox->name);
    again(mailbox);
    expect_name(mailbox->name, entry->name);
    bool own_utf8 = false, second_utf8 = false;
    char second[ADDRESS_BYTES];
    int written = address_format(mailbox->email, entry->address, &own_utf8);
    if (written < 0) { /* a domain that IDNA refuses */
        mailbox_free(&entry->mailbox);
        return false;
    }
    must((size_t)written == strlen(entry->address) && written < ADDRESS_BYTES);
    must(address_format(entry->address, second, &second_utf8) == written && strcmp(second, entry->address) == 0 && second_utf8 == own_utf8);
    for (const char *at = strrchr(entry->address, '@'); *at != '\0'; at++)
        must((unsigned char)*at > 32 && (unsigned char)*at < 127);
    as_from(entry, own_utf8);
    *utf8 |= own_utf8;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct entry entries[MAILBOXES_MAX];
    struct mailbox mailboxes[MAILBOXES_MAX];
    size_t count = 0;
    bool utf8 = false, written_utf8 = false;
    if (size > INPUT_MAX)
        return 0;
    for (size_t at = 0; at < size && count < MAILBOXES_MAX;) {
        const uint8_t *end = memchr(data + at, '\n', size - at);
        size_t length = end == NULL ? size - at : (size_t)(end - data) - at;
        char *copy = malloc(length == 0 ? 1 : length);
        must(copy != NULL);
        memcpy(copy, data + at, length);
        if (entry_take(copy, length, &entries[count], &utf8)) {
            mailboxes[count] = entries[count].mailbox;
            count++;
        }
        free(copy);
        at += length + 1;
    }
    if (count > 0) {
        struct writer writer = {.limit = 1 << 20};
        const struct mailbox *bad = NULL;
        must(header_mailboxes(&writer, "To", mailboxes, (uint32_t)count, &written_utf8, &bad) == 0 && writer.error == 0);
        must(written_utf8 == utf8);
        read_field(&writer, entries, count);
        free(writer.bytes);
    }
    for (size_t i = 0; i < count; i++)
        mailbox_free(&entries[i].mailbox);
    return 0;
}
