/* packet.c: frames as a router reads them. */
#include "packet.h"
#include "dataplane/port/checksum.h"
#include <string.h>

enum {
    TYPE_IPV4 = 0x0800,
    TYPE_ARP = 0x0806,
    TYPE_VLAN = 0x8100,
    TYPE_IPV6 = 0x86dd,
    PROTOCOL_ICMP = 1,
    PROTOCOL_TCP = 6,
    PROTOCOL_UDP = 17,
    PROTOCOL_FRAGMENT6 = 44,
    PROTOCOL_ICMP6 = 58,
    IPV4_BYTES = 20,
    IPV6_BYTES = 40,
    ICMP_BYTES = 8,
    ICMP4_QUOTE_BYTES = 576 - IPV4_BYTES - ICMP_BYTES, /* RFC 1812 4.3.2.3 */
    ICMP6_QUOTE_BYTES = 1280 - IPV6_BYTES - ICMP_BYTES,
    NEIGHBOUR_FIRST = 133, /* router solicitation ... redirect */
    NEIGHBOUR_LAST = 137,
    TTL = 64,
};

static uint16_t read16(const uint8_t *at) {
    return (uint16_t)(at[0] << 8 | at[1]);
}

static void write16(uint8_t *at, uint16_t value) {
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void read_transport(struct packet *packet, const uint8_t *frame, uint32_t l4, bool first) {
    uint32_t header = 0;
    if (first && packet->protocol == PROTOCOL_TCP && packet->end >= l4 + 20)
        header = (uint32_t)(frame[l4 + 12] >> 4) * 4;
    else if (first && packet->protocol == PROTOCOL_UDP)
        header = 8;
    packet->payload = l4 + header <= packet->end ? l4 + header : packet->end;
}

static void read_ipv4(struct packet *packet, const uint8_t *frame, uint32_t length) {
    const uint8_t *ip = frame + packet->l3;
    uint32_t header = (uint32_t)(ip[0] & 15) * 4, total = read16(ip + 2);
    if (ip[0] >> 4 != 4 || header < IPV4_BYTES || total < header || packet->l3 + total > length)
        return;
    packet->family = 4;
    packet->protocol = ip[9];
    packet->dont_fragment = (ip[6] & 0x40) != 0;
    packet->end = packet->l3 + total;
    read_transport(packet, frame, packet->l3 + header, (read16(ip + 6) & 0x1fff) == 0);
}

static void read_ipv6(struct packet *packet, const uint8_t *frame, uint32_t length) {
    const uint8_t *ip = frame + packet->l3;
    uint32_t total = IPV6_BYTES + (uint32_t)read16(ip + 4), l4 = packet->l3 + IPV6_BYTES;
    if (ip[0] >> 4 != 6 || packet->l3 + total > length)
        return;
    packet->family = 6;
    packet->protocol = ip[6];
    packet->dont_fragment = true;
    packet->end = packet->l3 + total;
    bool to_link = ip[24] == 0xff && (ip[25] & 15) == 2; /* multicast of link-local scope: solicitations, listener reports */
    packet->housekeeping =
        to_link || (ip[6] == PROTOCOL_ICMP6 && packet->end > l4 && frame[l4] >= NEIGHBOUR_FIRST && frame[l4] <= NEIGHBOUR_LAST);
    read_transport(packet, frame, l4, true);
}

void packet_read(struct packet *packet, const uint8_t *frame, uint32_t length) {
    memset(packet, 0, sizeof *packet);
    packet->l3 = packet->payload = PACKET_ETHERNET_BYTES;
    packet->end = length;
    if (length < PACKET_ETHERNET_BYTES)
        return;
    uint16_t type = read16(frame + 12);
    if (type == TYPE_VLAN && length >= PACKET_ETHERNET_BYTES + 4) {
        type = read16(frame + 16);
        packet->l3 = packet->payload = PACKET_ETHERNET_BYTES + 4;
    }
    packet->housekeeping = type == TYPE_ARP;
    if (type == TYPE_IPV4 && length >= packet->l3 + IPV4_BYTES)
        read_ipv4(packet, frame, length);
    else if (type == TYPE_IPV6 && length >= packet->l3 + IPV6_BYTES)
        read_ipv6(packet, frame, length);
}

bool packet_flip(const struct packet *packet, uint8_t *frame, enum packet_part part, uint64_t draw) {
    uint32_t first = part == PACKET_PAYLOAD ? packet->payload : packet->l3;
    uint32_t end = part == PACKET_HEADERS ? packet->payload : packet->end;
    if (first >= end)
        return false;
    uint64_t bit = draw % ((uint64_t)(end - first) * 8);
    frame[first + bit / 8] ^= (uint8_t)(1u << bit % 8);
    return true;
}

/* RFC 1122 3.2.2: no error about an error, a later fragment or what went to many. */
static bool may_answer(const struct packet *packet, const uint8_t *frame) {
    const uint8_t *ip = frame + packet->l3;
    if ((frame[0] & 1) != 0 || packet->family == 0)
        return false;
    if (packet->family == 4) {
        uint32_t l4 = packet->l3 + (uint32_t)(ip[0] & 15) * 4;
        bool query = packet->protocol != PROTOCOL_ICMP || (l4 < packet->end && (frame[l4] == 0 || frame[l4] == 8));
        return (read16(ip + 6) & 0x1fff) == 0 && query;
    }
    return packet->protocol != PROTOCOL_ICMP6 || packet->end <= packet->l3 + IPV6_BYTES || frame[packet->l3 + IPV6_BYTES] >= 128;
}

static uint32_t too_big4(const struct packet *packet, const uint8_t *frame, uint16_t mtu, const uint8_t *router, uint8_t *ip) {
    uint32_t quote = packet->end - packet->l3;
    quote = quote < ICMP4_QUOTE_BYTES ? quote : ICMP4_QUOTE_BYTES;
    memset(ip, 0, IPV4_BYTES + ICMP_BYTES);
    ip[0] = 0x45;
    ip[1] = 0xc0; /* internetwork control (RFC 1812 4.3.2.5) */
    write16(ip + 2, (uint16_t)(IPV4_BYTES + ICMP_BYTES + quote));
    ip[8] = TTL;
    ip[9] = PROTOCOL_ICMP;
    memcpy(ip + 12, router, 4);
    memcpy(ip + 16, frame + packet->l3 + 12, 4);
    uint16_t sum = checksum_finish(checksum_add(0, ip, IPV4_BYTES));
    memcpy(ip + 10, &sum, 2);
    uint8_t *icmp = ip + IPV4_BYTES;
    icmp[0] = 3;
    icmp[1] = 4;
    write16(icmp + 6, mtu);
    memcpy(icmp + ICMP_BYTES, frame + packet->l3, quote);
    sum = checksum_finish(checksum_add(0, icmp, ICMP_BYTES + quote));
    memcpy(icmp + 2, &sum, 2);
    return IPV4_BYTES + ICMP_BYTES + quote;
}

static uint32_t too_big6(const struct packet *packet, const uint8_t *frame, uint16_t mtu, const uint8_t *router, uint8_t *ip) {
    uint32_t quote = packet->end - packet->l3;
    quote = quote < ICMP6_QUOTE_BYTES ? quote : ICMP6_QUOTE_BYTES;
    memset(ip, 0, IPV6_BYTES + ICMP_BYTES);
    ip[0] = 0x60;
    write16(ip + 4, (uint16_t)(ICMP_BYTES + quote));
    ip[6] = PROTOCOL_ICMP6;
    ip[7] = TTL;
    memcpy(ip + 8, router, 16);
    memcpy(ip + 24, frame + packet->l3 + 8, 16);
    uint8_t *icmp = ip + IPV6_BYTES;
    icmp[0] = 2;
    write16(icmp + 6, mtu);
    memcpy(icmp + ICMP_BYTES, frame + packet->l3, quote);
    uint8_t pseudo[8] = {0}; /* RFC 8200 8.1: length and next header; the addresses are summed in place */
    write16(pseudo + 2, (uint16_t)(ICMP_BYTES + quote));
    pseudo[7] = PROTOCOL_ICMP6;
    uint64_t total = checksum_add(checksum_add(0, ip + 8, 32), pseudo, sizeof pseudo);
    uint16_t sum = checksum_finish(checksum_add(total, icmp, ICMP_BYTES + quote));
    memcpy(icmp + 2, &sum, 2);
    return IPV6_BYTES + ICMP_BYTES + quote;
}

uint32_t packet_too_big(const struct packet *packet, const uint8_t *frame, uint16_t mtu, const uint8_t *router, uint8_t *reply) {
    if (!may_answer(packet, frame))
        return 0;
    memcpy(reply, frame + 6, 6);
    memcpy(reply + 6, frame, 6);
    write16(reply + 12, packet->family == 4 ? TYPE_IPV4 : TYPE_IPV6);
    return PACKET_ETHERNET_BYTES + (packet->family == 4 ? too_big4(packet, frame, mtu, router, reply + PACKET_ETHERNET_BYTES)
                                                        : too_big6(packet, frame, mtu, router, reply + PACKET_ETHERNET_BYTES));
}

uint32_t packet_fragment(const struct packet *packet, const uint8_t *frame, uint16_t mtu, uint32_t *offset, uint8_t *fragment) {
    const uint8_t *ip = frame + packet->l3;
    uint32_t header = (uint32_t)(ip[0] & 15) * 4, total = packet->end - packet->l3 - header;
    if (*offset >= total || mtu < header + 8)
        return 0;
    uint32_t part = (mtu - header) & ~7u;
    bool last = part >= total - *offset;
    part = last ? total - *offset : part;
    memcpy(fragment, frame, packet->l3 + header);
    memcpy(fragment + packet->l3 + header, ip + header + *offset, part);
    uint8_t *out = fragment + packet->l3;
    uint16_t before = read16(ip + 6);
    write16(out + 2, (uint16_t)(header + part));
    write16(out + 6, (uint16_t)((before & 0xe000) | ((before & 0x1fff) + *offset / 8) | (last ? 0 : 0x2000)));
    memset(out + 10, 0, 2);
    uint16_t sum = checksum_finish(checksum_add(0, out, header));
    memcpy(out + 10, &sum, 2);
    *offset += part;
    return packet->l3 + header + part;
}
