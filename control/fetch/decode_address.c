/* decode_address.c: mail addresses: RFC 5321 4.1.2, internationalised by RFC 6531, and the forms in which a job may give them. */
#include "decode.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

enum { LOCAL_PART_MAX = 64, DOMAIN_MAX = 255, ADDRESS_MAX = 254, LABEL_MAX = 63 };

/* RFC 5322 3.2.3, and any UTF-8 beyond ASCII (RFC 6531 3.3). */
static bool is_atext(unsigned char c) {
    return c >= 0x80 || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr("!#$%&'*+-/=?^_`{|}~", c));
}

static bool is_let_dig(unsigned char c) {
    return c >= 0x80 || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static const char *literal_fault(const char *domain, size_t length) {
    char text[64];
    uint8_t binary[16];
    if (length < 3 || domain[length - 1] != ']' || length - 2 >= sizeof text) {
        return "has an address literal that does not end with ]";
    }
    memcpy(text, domain + 1, length - 2);
    text[length - 2] = 0;
    if (strncasecmp(text, "IPv6:", 5) == 0 ? inet_pton(AF_INET6, text + 5, binary) == 1 : inet_pton(AF_INET, text, binary) == 1) {
        return NULL;
    }
    return "has an address literal that is neither [192.0.2.1] nor [IPv6:2001:db8::1]";
}

static const char *domain_fault(const char *domain, size_t length) {
    if (length == 0) {
        return "has no domain after the @";
    }
    if (length > DOMAIN_MAX) {
        return "has a domain of more than 255 bytes";
    }
    if (*domain == '[') {
        return literal_fault(domain, length);
    }
    size_t label = 0;
    for (size_t i = 0; i <= length; i++) {
        if (i == length || domain[i] == '.') {
            if (label == 0) {
                return i == length ? "has a domain that ends with a dot" : "has a domain with an empty label";
            }
            if (label > LABEL_MAX) {
                return "has a domain label of more than 63 bytes";
            }
            if (domain[i - 1] == '-' || domain[i - label] == '-') {
                return "has a domain label that begins or ends with a hyphen";
            }
            label = 0;
        } else if (is_let_dig((unsigned char)domain[i]) || domain[i] == '-') {
            label++;
        } else if (domain[i] == '@') {
            return "has more than one @";
        } else {
            return "has a domain with a character that domains cannot hold";
        }
    }
    return NULL;
}

/* A quoted local part: *end is behind its closing quote. */
static const char *quoted_fault(const char *address, size_t length, size_t *end) {
    size_t i = 1;
    while (i < length && address[i] != '"') {
        unsigned char c = (unsigned char)address[i];
        if (c == '\\' && i + 1 < length) {
            c = (unsigned char)address[++i];
        }
        if (c < 32 || c == 127) {
            return "has a control character in its quoted local part";
        }
        i++;
    }
    if (i >= length) {
        return "has a quoted local part without its closing quote";
    }
    *end = i + 1;
    return NULL;
}

static const char *dot_string_fault(const char *address, size_t length, size_t *end) {
    size_t i = 0;
    for (; i < length && address[i] != '@'; i++) {
        if (address[i] == '.') {
            if (i == 0 || address[i - 1] == '.' || i + 1 == length || address[i + 1] == '@') {
                return "has a dot at the beginning or end of its local part, or two in a row";
            }
        } else if (!is_atext((unsigned char)address[i])) {
            return "has a character before the @ that must be quoted";
        }
    }
    *end = i;
    return NULL;
}

const char *address_fault(const char *address, size_t length, size_t *domain_at) {
    if (length == 0) {
        return "is empty";
    }
    if (!memchr(address, '@', length)) {
        return "has no @";
    }
    size_t local = 0;
    const char *fault = *address == '"' ? quoted_fault(address, length, &local) : dot_string_fault(address, length, &local);
    if (fault) {
        return fault;
    }
    if (local == 0) {
        return "has nothing before the @";
    }
    if (local >= length || address[local] != '@') {
        return "has no @ behind its quoted local part";
    }
    if (local > LOCAL_PART_MAX) {
        return "has more than 64 bytes before the @";
    }
    /* RFC 2047 5 (3) keeps encoded-words out of addresses, and readers must not look for them there. Python's email.policy does (in atoms
     * and in quotes), and who decodes a whole field finds them even across two addresses: both would answer to somebody else. */
    if (memmem(address, local, "=?", 2)) {
        return "has =? before the @, which readers take for an encoded-word (RFC 2047 5)";
    }
    if ((fault = domain_fault(address + local + 1, length - local - 1))) {
        return fault;
    }
    if (length > ADDRESS_MAX) {
        return "has more than 254 bytes";
    }
    *domain_at = local + 1;
    return NULL;
}

static bool is_space(char c) {
    return c == ' ' || c == '\t';
}

static void trim(const char **text, size_t *length) {
    while (*length > 0 && is_space(**text)) {
        (*text)++;
        (*length)--;
    }
    while (*length > 0 && is_space((*text)[*length - 1])) {
        (*length)--;
    }
}

/* The address part; the domain becomes lower case. */
static bool email_take(struct decoder *decoder, const char *place, const char *text, size_t length, struct mailbox *out) {
    size_t domain_at = 0;
    char quote[QUOTE_BYTES];
    const char *fault = address_fault(text, length, &domain_at);
    if (fault) {
        return decode_fail(decoder, place, "\"%s\" %s.", decode_quote(text, length, quote), fault);
    }
    out->email = strndup(text, length);
    if (!out->email) {
        return decode_fail(decoder, place, DECODE_STARVED);
    }
    for (char *c = out->email + domain_at; *c; c++) {
        *c = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
    }
    out->domain = out->email + domain_at;
    return true;
}

/* Control characters and length of what stands in a header. */
static bool text_check(struct decoder *decoder, const char *place, const char *text, size_t length, size_t maximum) {
    char quote[QUOTE_BYTES];
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if ((c < 32 && c != '\t') || c == 127) {
            return decode_fail(decoder, place, "\"%s\" holds a line break or another control character.",
                               decode_quote(text, length, quote));
        }
    }
    if (length > maximum) {
        return decode_fail(decoder, place, "\"%s\" has %zu bytes; at most %zu are allowed.", decode_quote(text, length, quote), length,
                           maximum);
    }
    return true;
}

/* A display name as it stands before the <: quoted or not. */
static bool name_take(struct decoder *decoder, const char *place, const char *text, size_t length, struct mailbox *out) {
    char quote[QUOTE_BYTES];
    trim(&text, &length);
    if (length == 0) {
        return true;
    }
    bool quoted = text[0] == '"';
    if (quoted && (length < 2 || text[length - 1] != '"')) {
        return decode_fail(decoder, place, "\"%s\" is a quoted name without its closing quote.", decode_quote(text, length, quote));
    }
    out->name = malloc(length + 1);
    if (!out->name) {
        return decode_fail(decoder, place, DECODE_STARVED);
    }
    size_t used = 0;
    for (size_t i = quoted ? 1 : 0; i < (quoted ? length - 1 : length); i++) {
        if (quoted && text[i] == '\\' && i + 2 < length) {
            i++;
        } else if (!quoted && strchr("@,;<>\"", text[i])) {
            return decode_fail(decoder, place, "\"%s\": a name with @ , ; < > goes in quotes, and several addresses go in an array.",
                               decode_quote(text, length, quote));
        }
        out->name[used++] = text[i];
    }
    out->name[used] = 0;
    if (used == 0) {
        free(out->name);
        out->name = NULL;
    }
    return true;
}

static bool mailbox_text(struct decoder *decoder, const char *place, const char *text, size_t length, struct mailbox *out) {
    if (!text_check(decoder, place, text, length, DISPLAY_NAME_MAX + ADDRESS_MAX + 16)) {
        return false;
    }
    trim(&text, &length);
    char quote[QUOTE_BYTES];
    if (length > 0 && text[length - 1] == '>') {
        const char *open = memrchr(text, '<', length);
        if (!open) {
            return decode_fail(decoder, place, "\"%s\" has a > without its <.", decode_quote(text, length, quote));
        }
        size_t name_length = (size_t)(open - text);
        if (name_length > DISPLAY_NAME_MAX) {
            return decode_fail(decoder, place, "The name has %zu bytes; at most %d are allowed.", name_length, DISPLAY_NAME_MAX);
        }
        return email_take(decoder, place, open + 1, length - name_length - 2, out) && name_take(decoder, place, text, name_length, out);
    }
    if (memchr(text, ',', length) && text[0] != '"') {
        return decode_fail(decoder, place, "\"%s\": several addresses go in an array, one string each.", decode_quote(text, length, quote));
    }
    return email_take(decoder, place, text, length, out);
}

static bool mailbox_object(struct decoder *decoder, const char *place, const json_t *value, struct mailbox *out) {
    static const char *const names[] = {"email", "name"};
    const char *key;
    json_t *member;
    char below[PLACE_BYTES];
    json_object_foreach((json_t *)value, key, member) {
        place_member(below, place, key);
        if (strcmp(key, "email") != 0 && strcmp(key, "name") != 0) {
            const char *near = decode_nearest(key, names, 2);
            return decode_fail(decoder, below, "An address has only email and name%s%s%s", near ? "; did you mean " : ".", near ? near : "",
                               near ? "?" : "");
        }
        if (!json_is_string(member)) {
            return decode_fail(decoder, below, "It must be a string, not %s.", decode_kind(member));
        }
    }
    const json_t *email = json_object_get(value, "email"), *name = json_object_get(value, "name");
    if (!email) {
        return decode_fail(decoder, place, "The address has no email.");
    }
    place_member(below, place, "email");
    const char *text = json_string_value(email);
    size_t length = json_string_length(email);
    if (!text_check(decoder, below, text, length, ADDRESS_MAX + 16)) {
        return false;
    }
    trim(&text, &length);
    if (!email_take(decoder, below, text, length, out)) {
        return false;
    }
    if (name && json_string_length(name) > 0) {
        place_member(below, place, "name");
        if (!text_check(decoder, below, json_string_value(name), json_string_length(name), DISPLAY_NAME_MAX)) {
            return false;
        }
        out->name = strdup(json_string_value(name));
    }
    return true;
}

bool decode_mailbox(struct decoder *decoder, const char *place, const json_t *value, struct mailbox *out) {
    if (json_is_string(value)) {
        return mailbox_text(decoder, place, json_string_value(value), json_string_length(value), out);
    }
    if (json_is_object(value)) {
        return mailbox_object(decoder, place, value, out);
    }
    return decode_fail(decoder, place, "An address must be a string or an object {email, name}, not %s.", decode_kind(value));
}

bool decode_mailboxes(struct decoder *decoder, const char *place, const json_t *value, struct mailbox **out, uint32_t *count) {
    size_t number = json_is_array(value) ? json_array_size(value) : 1;
    if (number > JOB_RECIPIENTS_MAX) {
        return decode_fail(decoder, place, "It has %zu addresses; at most %d are allowed.", number, JOB_RECIPIENTS_MAX);
    }
    *out = calloc(number ? number : 1, sizeof **out);
    if (!*out) {
        return decode_fail(decoder, place, DECODE_STARVED);
    }
    *count = (uint32_t)number;
    if (!json_is_array(value)) {
        return decode_mailbox(decoder, place, value, *out);
    }
    for (size_t i = 0; i < number; i++) {
        char below[PLACE_BYTES];
        place_index(below, place, i);
        if (!decode_mailbox(decoder, below, json_array_get(value, i), &(*out)[i])) {
            return false;
        }
    }
    return true;
}

bool decode_envelope_sender(struct decoder *decoder, const char *place, const json_t *value) {
    if (!json_is_string(value)) {
        return decode_fail(decoder, place, "It must be a string, not %s.", decode_kind(value));
    }
    const char *text = json_string_value(value);
    size_t length = json_string_length(value);
    if (length == 0 || strcmp(text, "<>") == 0) {
        decoder->job->envelope_sender = strdup("");
        return true;
    }
    if (!text_check(decoder, place, text, length, ADDRESS_MAX + 16)) {
        return false;
    }
    struct mailbox mailbox = {.email = NULL};
    if (!email_take(decoder, place, text, length, &mailbox)) {
        return false;
    }
    decoder->job->envelope_sender = mailbox.email;
    return true;
}
