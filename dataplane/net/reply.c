/* reply.c: an answer by ICMP, whole or in fragments. */
#include "dataplane/port/checksum.h"
#include "net_private.h"

struct reply {
    const struct received *in;
    uint8_t protocol;
    uint32_t identification;
    struct tcp_piece pieces[2]; /* the ICMP header and its data */
};

/* Bytes [offset, offset + length) of the message as one frame; `whole`: there is no other. */
static int reply_send_part(const struct reply *reply, uint32_t offset, uint32_t length, bool whole, bool more) {
    const struct received *in = reply->in;
    bool v4 = ip_is_v4(in->source);
    uint8_t header[FRAME_HEADER_BYTES_MAX];
    uint8_t l2_length = transmit_ethernet(in->link, header, in->source_mac, v4 ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6);
    uint8_t *ip = header + l2_length, l3_length = IPV4_BYTES;
    if (v4) {
        uint16_t fragment = (uint16_t)(offset / 8 | (more ? IPV4_MORE_FRAGMENTS : 0));
        transmit_ipv4(ip, reply->protocol, length, in->destination, in->source, (uint16_t)reply->identification,
                      whole ? IPV4_DONT_FRAGMENT : fragment);
    } else {
        l3_length = whole ? IPV6_BYTES : IPV6_BYTES + IPV6_FRAGMENT_BYTES;
        transmit_ipv6(ip, whole ? reply->protocol : PROTOCOL_FRAGMENT, length + l3_length - IPV6_BYTES, in->destination, in->source,
                      TTL_SENT, 0);
        if (!whole) {
            wire_put16(ip + IPV6_BYTES, (uint16_t)(reply->protocol << 8));
            wire_put16(ip + IPV6_BYTES + 2, (uint16_t)(offset | more));
            wire_put32(ip + IPV6_BYTES + 4, reply->identification);
        }
    }
    struct tcp_piece pieces[2];
    uint8_t count = 0;
    uint32_t at = 0, end = offset + length;
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t from = offset > at ? offset - at : 0, to = end - at < reply->pieces[i].length ? end - at : reply->pieces[i].length;
        if (end > at && from < to)
            pieces[count++] = (struct tcp_piece){.bytes = reply->pieces[i].bytes + from, .length = to - from};
        at += reply->pieces[i].length;
    }
    struct frame frame = {
        .header = header,
        .header_length = (uint16_t)(l2_length + l3_length),
        .l2_length = l2_length,
        .l3_length = l3_length,
        .family = v4 ? 4 : 6,
        .piece_count = count,
        .payload_length = (uint16_t)length,
        .pieces = pieces,
    };
    return port_send(in->queue, &frame);
}

static uint64_t pseudo_sum(const struct received *in, uint8_t protocol, uint32_t length) {
    uint8_t pseudo[2 * 16 + 8] = {0};
    ip_put6(pseudo, in->destination);
    ip_put6(pseudo + 16, in->source);
    wire_put32(pseudo + 32, length);
    pseudo[39] = protocol;
    return checksum_add(0, pseudo, sizeof pseudo);
}

int reply_send(const struct received *in, uint8_t protocol, const uint8_t icmp[ICMP_BYTES], const uint8_t *data, uint32_t length) {
    uint8_t head[ICMP_BYTES];
    bool v4 = ip_is_v4(in->source);
    uint32_t total = ICMP_BYTES + length, room = (uint32_t)in->link->config.mtu - (v4 ? IPV4_BYTES : IPV6_BYTES);
    memcpy(head, icmp, sizeof head);
    memset(head + 2, 0, 2);
    uint64_t sum = checksum_add(v4 ? 0 : pseudo_sum(in, protocol, total), head, sizeof head);
    uint16_t checksum = checksum_finish(checksum_add(sum, data, length));
    memcpy(head + 2, &checksum, sizeof checksum);
    struct reply reply = {
        .in = in,
        .protocol = protocol,
        .pieces = {{.bytes = head, .length = sizeof head}, {.bytes = data, .length = length}},
    };
    if (total <= room)
        return reply_send_part(&reply, 0, total, true, false);
    reply.identification = transmit_identification(in->net, in->destination, in->source);
    uint32_t part = (room - (v4 ? 0 : IPV6_FRAGMENT_BYTES)) & ~7u;
    int rc = 0;
    for (uint32_t offset = 0; rc == 0 && offset < total; offset += part) {
        bool more = offset + part < total;
        rc = reply_send_part(&reply, offset, more ? part : total - offset, false, more);
    }
    return rc;
}
