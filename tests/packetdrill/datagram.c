/* datagram.c: IP headers around segments, and ICMP errors (RFC 792, 4443) taken apart. */
#include "datagram.h"

#include "dataplane/port/checksum.h"
#include <string.h>

enum { IPV4_HEADER = 20, IPV6_HEADER = 40, TCP_HEADER = 20, PROTOCOL_TCP = 6, PROTOCOL_ICMP = 1, PROTOCOL_ICMPV6 = 58, ICMP_HEADER = 8 };

static void put16(uint8_t *at, uint32_t value) {
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}
static void put32(uint8_t *at, uint32_t value) {
    put16(at, value >> 16);
    put16(at + 2, value);
}
static uint16_t get16(const uint8_t *at) {
    return (uint16_t)(at[0] << 8 | at[1]);
}
static uint32_t get32(const uint8_t *at) {
    return (uint32_t)get16(at) << 16 | get16(at + 2);
}

static uint32_t write_ip(uint8_t *bytes, const struct tcp_segment *segment, uint32_t l4_bytes) {
    if (segment->local.family == 4) {
        memset(bytes, 0, IPV4_HEADER);
        bytes[0] = 0x45;
        put16(bytes + 2, IPV4_HEADER + l4_bytes);
        bytes[6] = segment->may_fragment ? 0 : 0x40;
        bytes[8] = 64;
        bytes[9] = PROTOCOL_TCP;
        memcpy(bytes + 12, segment->local.bytes, 4);
        memcpy(bytes + 16, segment->remote.bytes, 4);
        uint16_t sum = checksum_finish(checksum_add(0, bytes, IPV4_HEADER));
        memcpy(bytes + 10, &sum, sizeof(sum));
        return IPV4_HEADER;
    }
    memset(bytes, 0, 8);
    bytes[0] = 0x60;
    put16(bytes + 4, l4_bytes);
    bytes[6] = PROTOCOL_TCP;
    bytes[7] = 64;
    memcpy(bytes + 8, segment->local.bytes, 16);
    memcpy(bytes + 24, segment->remote.bytes, 16);
    return IPV6_HEADER;
}

uint32_t datagram_write(uint8_t *bytes, const struct tcp_segment *segment) {
    uint32_t header = TCP_HEADER + (uint32_t)segment->options_length, l4_bytes = header + segment->payload_length;
    uint32_t ip = write_ip(bytes, segment, l4_bytes), address = segment->local.family == 4 ? 4 : 16;
    uint8_t *tcp = bytes + ip;
    put16(tcp, segment->local_port);
    put16(tcp + 2, segment->remote_port);
    put32(tcp + 4, segment->sequence);
    put32(tcp + 8, segment->acknowledgement);
    tcp[12] = (uint8_t)(header / 4 << 4);
    tcp[13] = segment->flags;
    put16(tcp + 14, segment->window);
    put32(tcp + 16, 0);
    if (segment->options_length > 0)
        memcpy(tcp + TCP_HEADER, segment->options, segment->options_length);
    uint32_t at = header;
    for (uint32_t i = 0; i < segment->piece_count; i++) {
        memcpy(tcp + at, segment->pieces[i].bytes, segment->pieces[i].length);
        at += segment->pieces[i].length;
    }
    uint8_t pseudo[40] = {0};
    memcpy(pseudo, segment->local.bytes, address);
    memcpy(pseudo + address, segment->remote.bytes, address);
    put32(pseudo + 2 * address, l4_bytes);
    put32(pseudo + 2 * address + 4, PROTOCOL_TCP);
    uint16_t sum = checksum_finish(checksum_add(checksum_add(0, pseudo, 2 * address + 8), tcp, l4_bytes));
    memcpy(tcp + 16, &sum, sizeof(sum));
    return ip + l4_bytes;
}

struct addresses {
    struct tcp_address source, destination;
    uint8_t protocol;
    const uint8_t *payload;
    uint32_t length;
};

static bool read_ip(const uint8_t *bytes, uint32_t length, bool quoted, struct addresses *out) {
    memset(out, 0, sizeof(*out));
    if (length >= IPV4_HEADER && bytes[0] >> 4 == 4) {
        uint32_t header = (uint32_t)(bytes[0] & 15) * 4, total = get16(bytes + 2);
        if (header < IPV4_HEADER || header > length || total < header || (!quoted && total > length))
            return false;
        out->protocol = bytes[9];
        out->source.family = out->destination.family = 4;
        memcpy(out->source.bytes, bytes + 12, 4);
        memcpy(out->destination.bytes, bytes + 16, 4);
        out->payload = bytes + header;
        out->length = (total < length ? total : length) - header;
        return true;
    }
    if (length >= IPV6_HEADER && bytes[0] >> 4 == 6) {
        uint32_t payload = get16(bytes + 4);
        if (!quoted && IPV6_HEADER + payload > length)
            return false;
        out->protocol = bytes[6];
        out->source.family = out->destination.family = 6;
        memcpy(out->source.bytes, bytes + 8, 16);
        memcpy(out->destination.bytes, bytes + 24, 16);
        out->payload = bytes + IPV6_HEADER;
        out->length = length - IPV6_HEADER < payload ? length - IPV6_HEADER : payload;
        return true;
    }
    return false;
}

static bool read_error(const struct addresses *outer, struct datagram_error *error) {
    struct addresses inner;
    if (outer->length < ICMP_HEADER || !read_ip(outer->payload + ICMP_HEADER, outer->length - ICMP_HEADER, true, &inner) ||
        inner.protocol != PROTOCOL_TCP || inner.length < 8)
        return false;
    uint8_t type = outer->payload[0], code = outer->payload[1];
    *error = (struct datagram_error){.local = inner.source,
                                     .remote = inner.destination,
                                     .local_port = get16(inner.payload),
                                     .remote_port = get16(inner.payload + 2),
                                     .sequence = get32(inner.payload + 4)};
    if (outer->protocol == PROTOCOL_ICMP) {
        error->hard = type == 3 && (code == 2 || code == 3 || code == 9 || code == 10 || code == 13);
        if (type == 3 && code == 4)
            error->mtu = get16(outer->payload + 6) == 0 ? 1 : get16(outer->payload + 6);
    } else {
        error->hard = type == 1 && (code == 1 || code == 4);
        if (type == 2)
            error->mtu = get32(outer->payload + 4) > UINT16_MAX ? UINT16_MAX : (uint16_t)get32(outer->payload + 4);
    }
    return true;
}

enum datagram_kind datagram_read(const uint8_t *bytes, uint32_t length, struct tcp_packet *packet, struct datagram_error *error) {
    struct addresses ip;
    if (!read_ip(bytes, length, false, &ip))
        return DATAGRAM_OTHER;
    if (ip.protocol == PROTOCOL_TCP) {
        *packet = (struct tcp_packet){.local = ip.destination, .remote = ip.source, .header = ip.payload, .length = ip.length};
        return DATAGRAM_TCP;
    }
    if ((ip.protocol == PROTOCOL_ICMP || ip.protocol == PROTOCOL_ICMPV6) && read_error(&ip, error))
        return DATAGRAM_ERROR;
    return DATAGRAM_OTHER;
}
