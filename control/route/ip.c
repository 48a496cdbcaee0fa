/* ip.c: parsing, matching, and the special-purpose ranges of RFC 6890 that mail must not be sent to. */
#include "ip.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t V4_MAPPED[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

int ip_parse(const char *text, struct config_address *address) {
    char host[64];
    size_t length = strcspn(text, "/");
    if (length >= sizeof host)
        return -EINVAL;
    memcpy(host, text, length);
    host[length] = '\0';
    memset(address, 0, sizeof *address);
    unsigned bits;
    if (inet_pton(AF_INET, host, address->bytes) == 1) {
        address->family = 4;
        bits = 32;
    } else if (inet_pton(AF_INET6, host, address->bytes) == 1) {
        address->family = 6;
        bits = 128;
    } else {
        return -EINVAL;
    }
    unsigned long prefix = bits;
    if (text[length] == '/') {
        char *end;
        errno = 0;
        prefix = strtoul(text + length + 1, &end, 10);
        if (errno != 0 || end == text + length + 1 || *end != '\0' || prefix > bits)
            return -EINVAL;
    }
    if (address->family == 6 && prefix >= 96 && memcmp(address->bytes, V4_MAPPED, sizeof V4_MAPPED) == 0) {
        memmove(address->bytes, address->bytes + 12, 4);
        memset(address->bytes + 4, 0, 12);
        address->family = 4;
        prefix -= 96;
    }
    address->prefix_length = (uint8_t)prefix;
    return 0;
}

bool ip_equal(const struct config_address *left, const struct config_address *right) {
    return left->family == right->family && memcmp(left->bytes, right->bytes, left->family == 4 ? 4 : 16) == 0;
}

bool ip_in(const struct config_address *address, const struct config_address *range) {
    if (address->family != range->family)
        return false;
    unsigned whole = range->prefix_length / 8u, rest = range->prefix_length % 8u;
    if (memcmp(address->bytes, range->bytes, whole) != 0)
        return false;
    return rest == 0 || ((address->bytes[whole] ^ range->bytes[whole]) & (0xff00u >> rest) & 0xffu) == 0;
}

bool ip_prohibited(const struct config_address *address) {
    static const struct config_address RANGES[] = {
        {.family = 4, .prefix_length = 8, .bytes = {0}},           /* "this network", unspecified */
        {.family = 4, .prefix_length = 8, .bytes = {127}},         /* loopback */
        {.family = 4, .prefix_length = 16, .bytes = {169, 254}},   /* link-local */
        {.family = 4, .prefix_length = 4, .bytes = {224}},         /* multicast */
        {.family = 4, .prefix_length = 4, .bytes = {240}},         /* reserved, with 255.255.255.255 */
        {.family = 6, .prefix_length = 128, .bytes = {0}},         /* unspecified */
        {.family = 6, .prefix_length = 128, .bytes = {[15] = 1}},  /* loopback */
        {.family = 6, .prefix_length = 10, .bytes = {0xfe, 0x80}}, /* link-local */
        {.family = 6, .prefix_length = 8, .bytes = {0xff}},        /* multicast */
    };
    if (address->family == 6 && memcmp(address->bytes, V4_MAPPED, sizeof V4_MAPPED) == 0) {
        struct config_address mapped = {.family = 4, .prefix_length = 32};
        memcpy(mapped.bytes, address->bytes + 12, 4);
        return ip_prohibited(&mapped);
    }
    for (size_t i = 0; i < sizeof RANGES / sizeof RANGES[0]; i++)
        if (ip_in(address, &RANGES[i]))
            return true;
    return false;
}
