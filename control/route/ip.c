/* ip.c: IPv4-mapped addresses as IPv4, and the special-purpose ranges of RFC 6890 that mail must not be sent to. */
#include "ip.h"

#include "control/config/address.h"
#include <errno.h>
#include <string.h>

static const uint8_t V4_MAPPED[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

int ip_parse(const char *text, struct config_address *address) {
    if (!address_parse_prefix(text, address))
        return -EINVAL;
    if (address->family == 6 && address->prefix_length >= 96 && memcmp(address->bytes, V4_MAPPED, sizeof V4_MAPPED) == 0) {
        memmove(address->bytes, address->bytes + 12, 4);
        memset(address->bytes + 4, 0, 12);
        address->family = 4;
        address->prefix_length = (uint8_t)(address->prefix_length - 96);
    }
    return 0;
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
        if (address_on_link(&RANGES[i], address))
            return true;
    return false;
}

bool ip_is_private(const struct config_address *address) {
    static const struct config_address RANGES[] = {
        {.family = 4, .prefix_length = 8, .bytes = {10}},
        {.family = 4, .prefix_length = 12, .bytes = {172, 16}},
        {.family = 4, .prefix_length = 16, .bytes = {192, 168}},
        {.family = 4, .prefix_length = 10, .bytes = {100, 64}},                   /* of carriers */
        {.family = 4, .prefix_length = 24, .bytes = {192, 0, 0}},                 /* of protocols */
        {.family = 4, .prefix_length = 15, .bytes = {198, 18}},                   /* of benchmarks */
        {.family = 6, .prefix_length = 7, .bytes = {0xfc}},                       /* unique local */
        {.family = 6, .prefix_length = 10, .bytes = {0xfe, 0xc0}},                /* site-local */
        {.family = 6, .prefix_length = 48, .bytes = {0, 0x64, 0xff, 0x9b, 0, 1}}, /* NAT64 of one's own */
    };
    static const uint8_t NAT64[12] = {0, 0x64, 0xff, 0x9b}, COMPATIBLE[12] = {0};
    if (address->family == 6 && (memcmp(address->bytes, V4_MAPPED, 12) == 0 || memcmp(address->bytes, NAT64, 12) == 0 ||
                                 memcmp(address->bytes, COMPATIBLE, 12) == 0)) {
        struct config_address inner = {.family = 4, .prefix_length = 32};
        memcpy(inner.bytes, address->bytes + 12, 4);
        return ip_prohibited(&inner) || ip_is_private(&inner);
    }
    for (size_t i = 0; i < sizeof RANGES / sizeof RANGES[0]; i++)
        if (address_on_link(&RANGES[i], address))
            return true;
    return false;
}
