/* ipv4.c: IPv4 received (RFC 791, RFC 1122 3.2.1): what is damaged, foreign or a trick goes no further. */
#include "dataplane/port/checksum.h"
#include "net_private.h"

enum { OPTION_END = 0, OPTION_NOP = 1, OPTION_LOOSE_SOURCE_ROUTE = 131, OPTION_STRICT_SOURCE_ROUTE = 137 };

/* RFC 1122 3.2.1.8: options that a host does not know are skipped; source routes are an attack (RFC 7126 4.3, 4.4). */
static bool ipv4_options_pass(const uint8_t *options, uint32_t length) {
    uint32_t at = 0;
    while (at < length && options[at] != OPTION_END) {
        if (options[at] == OPTION_NOP) {
            at++;
            continue;
        }
        if (length - at < 2 || options[at + 1] < 2 || options[at + 1] > length - at || options[at] == OPTION_LOOSE_SOURCE_ROUTE ||
            options[at] == OPTION_STRICT_SOURCE_ROUTE)
            return false;
        at += options[at + 1];
    }
    return true;
}

static bool ipv4_checksum_right(const uint8_t *ip, uint32_t header_length) {
    uint32_t words[IPV4_BYTES / 4];
    memcpy(words, ip, sizeof words);
    uint64_t sum = (uint64_t)words[0] + words[1] + words[2] + words[3] + words[4];
    if (header_length > IPV4_BYTES)
        sum = checksum_add(sum, ip + IPV4_BYTES, header_length - IPV4_BYTES);
    return checksum_finish(sum) == 0;
}

static void ipv4_deliver(const struct received *in, uint8_t protocol) {
    if (protocol == PROTOCOL_TCP)
        segment_input(in);
    else if (protocol == PROTOCOL_ICMP)
        icmp_input(in);
    else
        net_drop(in->net, &in->net->counters.ignored);
}

void ipv4_input(struct received *in) {
    struct net *net = in->net;
    const uint8_t *ip = in->bytes;
    if (in->length < IPV4_BYTES) {
        net_drop(net, &net->counters.bad_ipv4);
        return;
    }
    uint32_t header_length = (uint32_t)(ip[0] & 0x0f) * 4, total_length = wire_get16(ip + 2);
    if (ip[0] >> 4 != 4 || header_length < IPV4_BYTES || total_length < header_length || total_length > in->length) {
        net_drop(net, &net->counters.bad_ipv4);
        return;
    }
    if (!ipv4_checksum_right(ip, header_length)) {
        net_drop(net, &net->counters.bad_ipv4_checksum);
        return;
    }
    in->source = ip_from_v4(wire_get32(ip + 12));
    in->destination = ip_from_v4(wire_get32(ip + 16));
    if (!net_addresses_pass(in))
        return;
    if (header_length != IPV4_BYTES && !ipv4_options_pass(ip + IPV4_BYTES, header_length - IPV4_BYTES)) {
        net_drop(net, &net->counters.ipv4_options);
        return;
    }
    uint8_t protocol = ip[9];
    uint16_t fragment = wire_get16(ip + 6);
    in->bytes = ip + header_length;
    in->length = total_length - header_length;
    if ((fragment & (IPV4_MORE_FRAGMENTS | IPV4_OFFSET_MASK)) != 0 &&
        !net_reassembled(in, wire_get16(ip + 4), (uint32_t)(fragment & IPV4_OFFSET_MASK) * 8, (fragment & IPV4_MORE_FRAGMENTS) != 0,
                         &protocol))
        return;
    ipv4_deliver(in, protocol);
}
