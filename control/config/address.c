/* address.c: addresses, prefixes and host names: parsing and the questions that checks ask about them. */
#include "address.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <idn2.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

bool address_parse(const char *text, struct config_address *address) {
    *address = (struct config_address){0};
    if (inet_pton(AF_INET, text, address->bytes) == 1) {
        address->family = 4;
        address->prefix_length = 32;
    } else if (inet_pton(AF_INET6, text, address->bytes) == 1) {
        address->family = 6;
        address->prefix_length = 128;
    }
    return address->family != 0;
}

/* A decimal number up to `max` that fills the text. */
static bool parse_number(const char *text, unsigned long max, unsigned long *number) {
    char *end;
    if (!isdigit((unsigned char)*text) || strlen(text) > 5) {
        return false;
    }
    *number = strtoul(text, &end, 10);
    return !*end && *number <= max;
}

bool address_parse_prefix(const char *text, struct config_address *address) {
    char bare[ADDRESS_TEXT_BYTES];
    const char *slash = strchr(text, '/');
    size_t length = slash ? (size_t)(slash - text) : strlen(text);
    unsigned long prefix;
    *address = (struct config_address){0};
    if (length >= sizeof bare) {
        return false;
    }
    memcpy(bare, text, length);
    bare[length] = 0;
    if (!address_parse(bare, address)) {
        return false;
    }
    if (slash) {
        if (!parse_number(slash + 1, address->prefix_length, &prefix)) {
            return false;
        }
        address->prefix_length = (uint8_t)prefix;
    }
    return true;
}

bool host_split(const char *text, char *host, size_t host_bytes, bool *bracketed, unsigned long *port) {
    const char *end, *after;
    *bracketed = *text == '[';
    if (*bracketed) {
        end = strchr(++text, ']');
        if (!end) {
            return false;
        }
        after = end + 1;
    } else {
        end = after = text + strcspn(text, ":");
    }
    size_t length = (size_t)(end - text);
    if (length == 0 || length >= host_bytes) {
        return false;
    }
    memcpy(host, text, length);
    host[length] = 0;
    if (!*after) {
        return true;
    }
    return *after == ':' && parse_number(after + 1, 65535, port) && *port > 0;
}

bool address_parse_port(const char *text, uint16_t port, struct config_address *address) {
    char host[ADDRESS_TEXT_BYTES];
    bool bracketed;
    unsigned long number = port;
    if (!address_parse(text, address) && (!host_split(text, host, sizeof host, &bracketed, &number) || !address_parse(host, address))) {
        return false;
    }
    address->port = (uint16_t)number;
    return true;
}

const char *address_text(const struct config_address *address, char *text) {
    if (!inet_ntop(address->family == 6 ? AF_INET6 : AF_INET, address->bytes, text, ADDRESS_TEXT_BYTES)) {
        *text = 0;
    }
    return text;
}

static size_t address_bytes(const struct config_address *address) {
    return address->family == 6 ? 16 : 4;
}

bool address_equal(const struct config_address *a, const struct config_address *b) {
    return a->family == b->family && memcmp(a->bytes, b->bytes, address_bytes(a)) == 0;
}

bool address_on_link(const struct config_address *network, const struct config_address *address) {
    unsigned whole = network->prefix_length / 8, rest = network->prefix_length % 8;
    if (network->family != address->family || memcmp(network->bytes, address->bytes, whole) != 0) {
        return false;
    }
    return rest == 0 || (network->bytes[whole] ^ address->bytes[whole]) >> (8 - rest) == 0;
}

static bool address_in(const struct config_address *address, const char *const *networks) {
    for (; *networks; networks++) {
        struct config_address network;
        if (address_parse_prefix(*networks, &network) && address_on_link(&network, address)) {
            return true;
        }
    }
    return false;
}

bool address_private(const struct config_address *address) {
    static const char *const networks[] = {"10.0.0.0/8",     "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10",
                                           "169.254.0.0/16", "fc00::/7",      "fe80::/10",      NULL};
    return address_in(address, networks);
}

bool address_usable(const struct config_address *address) {
    static const char *const networks[] = {"0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::/127", "ff00::/8", NULL};
    return !address_in(address, networks);
}

bool address_documentation(const struct config_address *address) {
    static const char *const networks[] = {"192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", NULL};
    return address_in(address, networks);
}

bool address_kernel_interface(const struct config_address *address, char *name) {
    struct ifaddrs *list = NULL;
    bool found = false;
    if (getifaddrs(&list) != 0) {
        return false;
    }
    for (const struct ifaddrs *item = list; item && !found; item = item->ifa_next) {
        struct config_address have = {0};
        if (item->ifa_addr && item->ifa_addr->sa_family == AF_INET) {
            have.family = 4;
            memcpy(have.bytes, &((const struct sockaddr_in *)item->ifa_addr)->sin_addr, 4);
        } else if (item->ifa_addr && item->ifa_addr->sa_family == AF_INET6) {
            have.family = 6;
            memcpy(have.bytes, &((const struct sockaddr_in6 *)item->ifa_addr)->sin6_addr, 16);
        } else {
            continue;
        }
        if (address_equal(&have, address)) {
            found = true;
            snprintf(name, IF_NAMESIZE, "%s", item->ifa_name);
        }
    }
    freeifaddrs(list);
    return found;
}

/* The number of labels, or 0 when it is no host name. */
static unsigned host_labels(const char *name) {
    size_t length = strlen(name);
    unsigned labels = 0;
    if (length == 0 || length > 253) {
        return 0;
    }
    for (const char *at = name;; at++) {
        size_t label = strcspn(at, ".");
        if (label == 0 || label > 63 || at[0] == '-' || at[label - 1] == '-') {
            return 0;
        }
        for (size_t i = 0; i < label; i++) {
            if (!isalnum((unsigned char)at[i]) && at[i] != '-') {
                return 0;
            }
        }
        labels++;
        at += label;
        if (!*at) {
            /* A name whose last label is a number would be an address (RFC 3696 2). */
            return strspn(at - label, "0123456789") == label ? 0 : labels;
        }
    }
}

bool host_is_name(const char *name) {
    return host_labels(name) > 0;
}

bool host_is_fqdn(const char *name) {
    return host_labels(name) > 1;
}

bool host_is_literal(const char *name) {
    char text[ADDRESS_TEXT_BYTES];
    size_t length = strlen(name);
    struct config_address address;
    if (length < 3 || length >= sizeof text || name[0] != '[' || name[length - 1] != ']') {
        return false;
    }
    memcpy(text, name + 1, length - 2);
    text[length - 2] = 0;
    if (strncasecmp(text, "IPv6:", 5) == 0) {
        return address_parse(text + 5, &address) && address.family == 6;
    }
    return address_parse(text, &address) && address.family == 4;
}

char *host_to_ascii(const char *name) {
    char *ascii = NULL;
    size_t length = strlen(name);
    char *bare = strndup(name, length > 1 && name[length - 1] == '.' ? length - 1 : length);
    int status = bare ? idn2_to_ascii_8z(bare, &ascii, IDN2_NONTRANSITIONAL) : IDN2_MALLOC;
    free(bare);
    if (status != IDN2_OK) {
        return NULL;
    }
    char *copy = host_is_name(ascii) ? strdup(ascii) : NULL;
    idn2_free(ascii);
    for (char *at = copy; at && *at; at++) {
        *at = (char)tolower((unsigned char)*at);
    }
    return copy;
}

const char *redis_address_fault(const char *text) {
    char host[256];
    bool bracketed;
    unsigned long port = 0;
    struct config_address address;
    if (strncmp(text, "unix:", 5) == 0) {
        return text[5] != '/'           ? "the path behind `unix:` must begin with a slash"
               : strlen(text + 5) > 107 ? "a socket's path has at most 107 bytes"
                                        : NULL;
    }
    if (strstr(text, "://")) {
        return "it is a URL";
    }
    if (!host_split(text, host, sizeof host, &bracketed, &port)) {
        return "the host or the port is malformed";
    }
    if (port == 0) {
        return "it has no port";
    }
    if (bracketed ? !address_parse(host, &address) : !(address_parse(host, &address) || host_is_name(host))) {
        return "the host is neither a name nor an address";
    }
    return NULL;
}

const char *relay_host_fault(const char *text) {
    char host[256];
    bool bracketed;
    unsigned long port = 25;
    struct config_address address;
    if (!host_split(text, host, sizeof host, &bracketed, &port)) {
        return "the host, its brackets or the port (1 to 65535) are malformed";
    }
    if (address_parse(host, &address)) {
        return bracketed ? NULL : "an address must stand in brackets";
    }
    return host_is_name(host) ? NULL : "the host is neither a name nor an address";
}
