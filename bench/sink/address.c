/* address.c: one address, all hosts of a network, or from one to another. */
#include "address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool address_read(const char *text, struct tcp_address *address) {
    memset(address, 0, sizeof(*address));
    if (inet_pton(AF_INET, text, address->bytes) == 1)
        address->family = 4;
    else if (inet_pton(AF_INET6, text, address->bytes) == 1)
        address->family = 6;
    return address->family != 0;
}

static void address_next(struct tcp_address *address) {
    for (int i = (address->family == 4 ? 4 : 16) - 1; i >= 0 && ++address->bytes[i] == 0; i--)
        ;
}

/* An address with nothing behind its prefix is the network, and stands for all its hosts. */
static bool is_network(const struct tcp_address *address, unsigned prefix) {
    unsigned bits = address->family == 4 ? 32 : 128;
    for (unsigned bit = prefix; bit < bits; bit++)
        if ((address->bytes[bit / 8] >> (7 - bit % 8) & 1) != 0)
            return false;
    return prefix + 1 < bits;
}

/* What was written, taken apart. */
struct range {
    struct tcp_address from;
    uint64_t count;
    uint8_t prefix;
};

static bool range_read(const char *text, uint64_t most, struct range *range) {
    char copy[128];
    if (strlen(text) >= sizeof(copy))
        return false;
    strcpy(copy, text);
    char *slash = strchr(copy, '/'), *dash = strchr(copy, '-'), *end = NULL;
    if (slash == NULL || (dash != NULL && dash > slash))
        return false;
    *slash++ = '\0';
    if (dash != NULL)
        *dash++ = '\0';
    struct tcp_address to;
    if (!address_read(copy, &range->from) || (dash != NULL && (!address_read(dash, &to) || to.family != range->from.family)))
        return false;
    unsigned bits = range->from.family == 4 ? 32 : 128;
    unsigned long prefix = strtoul(slash, &end, 10);
    if (end == slash || *end != '\0' || prefix > bits)
        return false;
    range->prefix = (uint8_t)prefix;
    range->count = 1;
    if (dash != NULL) {
        for (struct tcp_address at = range->from; range->count <= most && memcmp(at.bytes, to.bytes, sizeof(at.bytes)) != 0; range->count++)
            address_next(&at);
    } else if (is_network(&range->from, range->prefix)) {
        unsigned host_bits = bits - range->prefix;
        range->count = host_bits > 31 ? UINT32_MAX : ((uint64_t)1 << host_bits) - 2; /* neither the network nor its broadcast */
        address_next(&range->from);
    }
    return true;
}

int address_take(struct net_address *addresses, uint32_t max, uint32_t *count, const char *text, char *error, size_t error_bytes) {
    struct range range;
    if (!range_read(text, max, &range)) {
        snprintf(error, error_bytes, "write ADDRESS/PREFIX, NETWORK/PREFIX for all its hosts, or FIRST-LAST/PREFIX.");
        return -1;
    }
    if (range.count > max - *count) {
        snprintf(error, error_bytes, "there are more than %u addresses: write FIRST-LAST/PREFIX, or a longer prefix.", max);
        return -1;
    }
    for (; range.count > 0; range.count--, address_next(&range.from))
        addresses[(*count)++] = (struct net_address){.address = range.from, .prefix_length = range.prefix};
    return 0;
}
