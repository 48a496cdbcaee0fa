/* domain.c: names from jobs and from DNS are untrusted text; what passes here may go into a query or a log. */
#include "domain.h"

#include "ip.h"
#include <errno.h>
#include <idn2.h>
#include <string.h>
#include <strings.h>

enum { LABEL_MAX = 63, NAME_MAX_CHARACTERS = 253 };

static char lower(char c) {
    return (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

int domain_ascii(const char *name, char out[DOMAIN_BYTES]) {
    size_t length = strlen(name);
    if (length > 0 && name[length - 1] == '.')
        length--;
    if (length == 0 || length > NAME_MAX_CHARACTERS)
        return -EINVAL;
    size_t label = 0;
    for (size_t i = 0; i < length; i++) {
        char c = lower(name[i]);
        if (c == '.') {
            if (label == 0)
                return -EINVAL;
            label = 0;
        } else {
            bool good = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
            if (!good || ++label > LABEL_MAX)
                return -EINVAL;
        }
        out[i] = c;
    }
    if (label == 0)
        return -EINVAL;
    out[length] = '\0';
    return 0;
}

bool domain_is_askable(const char *name) {
    size_t length = strlen(name), label = 0;
    length -= length > 0 && name[length - 1] == '.';
    for (size_t i = 0; i <= length; i++) {
        if (i < length && name[i] != '.')
            label++;
        else if (label == 0 || label > LABEL_MAX)
            return false;
        else
            label = 0;
    }
    return length <= NAME_MAX_CHARACTERS;
}

int domain_normalise(const char *domain, char out[DOMAIN_BYTES]) {
    if (domain[0] == '[') {
        size_t length = strlen(domain);
        if (length >= DOMAIN_BYTES)
            return -EINVAL;
        for (size_t i = 0; i <= length; i++)
            out[i] = lower(domain[i]);
        return 0;
    }
    bool plain = true;
    for (const char *c = domain; *c; c++)
        plain = plain && (unsigned char)*c < 0x80;
    if (plain)
        return domain_ascii(domain, out);
    char *ascii = NULL;
    if (idn2_lookup_u8((const uint8_t *)domain, (uint8_t **)&ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) != IDN2_OK)
        return -EINVAL;
    int rc = domain_ascii(ascii, out);
    idn2_free(ascii);
    return rc;
}

bool domain_is_reserved(const char *domain) {
    static const char *const RESERVED[] = {"test", "example", "invalid", "localhost", "example.com", "example.net", "example.org"};
    size_t length = strlen(domain);
    for (size_t i = 0; i < sizeof RESERVED / sizeof RESERVED[0]; i++) {
        size_t suffix = strlen(RESERVED[i]);
        if (length >= suffix && strcasecmp(domain + length - suffix, RESERVED[i]) == 0 &&
            (length == suffix || domain[length - suffix - 1] == '.'))
            return true;
    }
    return false;
}

int domain_literal(const char *domain, struct config_address *address) {
    if (domain[0] != '[')
        return 0;
    char text[64];
    size_t length = strlen(domain);
    if (length < 3 || domain[length - 1] != ']' || length - 2 >= sizeof text)
        return -EINVAL;
    memcpy(text, domain + 1, length - 2);
    text[length - 2] = '\0';
    bool v6 = strncasecmp(text, "IPv6:", 5) == 0;
    const char *host = v6 ? text + 5 : text;
    if (strchr(host, '/') || (strchr(host, ':') != NULL) != v6 || ip_parse(host, address) != 0)
        return -EINVAL;
    return 1;
}
