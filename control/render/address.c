/* address.c: checks an address and turns its domain into A-labels with libidn2; ASCII domains take a short way. */
#include "address.h"
#include "encode.h"

#include <errno.h>
#include <idn2.h>
#include <string.h>

static bool is_alnum(char byte) {
    return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z');
}

static const bool domain_byte[256] = {
    ['a' ... 'z'] = true, ['A' ... 'Z'] = true, ['0' ... '9'] = true, ['.'] = true, ['-'] = true, ['_'] = true,
};

/* Letters, digits, hyphens, and the underscore that real mail domains have, in labels of 1 to 63. */
static int domain_ascii(const char *domain, size_t length, char *out) {
    const char *end = domain + length, *label = domain;
    if (length == 0 || length >= DOMAIN_BYTES)
        return -EINVAL;
    for (const char *at = domain;; at++) {
        if (at == end || *at == '.') {
            if (at == label || at - label > 63)
                return -EINVAL;
            label = at + 1;
        }
        if (at == end)
            break;
        if (!domain_byte[(uint8_t)*at])
            return -EINVAL;
        *out++ = (char)(*at >= 'A' && *at <= 'Z' ? *at + ('a' - 'A') : *at);
    }
    *out = '\0';
    return (int)length;
}

static int domain_literal(const char *domain, size_t length, char *out) {
    if (length < 3 || length >= DOMAIN_BYTES || domain[length - 1] != ']')
        return -EINVAL;
    for (size_t i = 1; i + 1 < length; i++)
        if (!is_alnum(domain[i]) && strchr(".:-", domain[i]) == NULL)
            return -EINVAL;
    memcpy(out, domain, length);
    out[length] = '\0';
    return (int)length;
}

int address_domain(const char *domain, size_t length, char *out) {
    bool ascii = true, clean = true;
    int result = domain_ascii(domain, length, out);
    if (result >= 0)
        return result;
    if (length > 0 && domain[0] == '[')
        return domain_literal(domain, length, out);
    for (size_t i = 0; i < length; i++) {
        bool beyond = (uint8_t)domain[i] >= 0x80;
        ascii &= !beyond;
        clean &= beyond || domain_byte[(uint8_t)domain[i]];
    }
    if (!clean || ascii) /* libidn2 would leave such a character out of a U-label */
        return -EINVAL;

    char copy[DOMAIN_BYTES * 4], *labels = NULL;
    if (length >= sizeof(copy))
        return -EINVAL;
    memcpy(copy, domain, length);
    copy[length] = '\0';
    result = -EINVAL;
    if (idn2_to_ascii_8z(copy, &labels, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL | IDN2_USE_STD3_ASCII_RULES) == IDN2_OK)
        result = domain_ascii(labels, strlen(labels), out);
    idn2_free(labels);
    return result;
}

/* atext and dots (RFC 5322 3.2.3), or UTF-8 (RFC 6532 3.2). Where the dots may stand was checked when the job was read. */
static int local_dot_atom(const char *local, size_t length, bool *utf8) {
    for (size_t i = 0; i < length;) {
        if ((unsigned char)local[i] >= 0x80) {
            size_t size = utf8_character(local + i, length - i);
            if (size == 0)
                return -EINVAL;
            *utf8 = true;
            i += size;
        } else if (!is_alnum(local[i]) && (local[i] == '\0' || strchr("!#$%&'*+-/=?^_`{|}~.", local[i]) == NULL)) {
            return -EINVAL;
        } else {
            i++;
        }
    }
    return 0;
}

/* A quoted string (RFC 5321 4.1.2): printable characters and spaces, with \ before " and \. */
static int local_quoted(const char *local, size_t length, bool *utf8) {
    if (length < 2 || local[length - 1] != '"')
        return -EINVAL;
    for (size_t i = 1; i + 1 < length;) {
        if ((unsigned char)local[i] >= 0x80) {
            size_t size = utf8_character(local + i, length - 1 - i);
            if (size == 0)
                return -EINVAL;
            *utf8 = true;
            i += size;
            continue;
        }
        if (local[i] == '"' || (local[i] == '\\' && ++i + 1 >= length))
            return -EINVAL;
        if (local[i] < 32 || local[i] > 126)
            return -EINVAL;
        i++;
    }
    return 0;
}

int address_format(const char *email, char *out, bool *utf8) {
    const char *at = strrchr(email, '@');
    if (at == NULL || at == email)
        return -EINVAL;
    size_t local = (size_t)(at - email);
    char domain[DOMAIN_BYTES];
    int domain_length = address_domain(at + 1, strlen(at + 1), domain);
    if (domain_length < 0 || local + 1 + (size_t)domain_length >= ADDRESS_BYTES)
        return -EINVAL;
    if ((email[0] == '"' ? local_quoted(email, local, utf8) : local_dot_atom(email, local, utf8)) < 0)
        return -EINVAL;
    memcpy(out, email, local + 1);
    memcpy(out + local + 1, domain, (size_t)domain_length + 1);
    return (int)local + 1 + domain_length;
}
