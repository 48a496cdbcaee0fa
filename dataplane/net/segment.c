/* segment.c: a TCP segment, of either family, on its way to the stack. */
#include "dataplane/port/checksum.h"
#include "net_private.h"

bool net_checksum_right(const struct received *in, uint8_t protocol) {
    uint8_t pseudo[2 * 16 + 8];
    uint32_t at;
    if (ip_is_v4(in->source)) {
        wire_put32(pseudo, ip_v4(in->source));
        wire_put32(pseudo + 4, ip_v4(in->destination));
        at = 8;
    } else {
        ip_put6(pseudo, in->source);
        ip_put6(pseudo + 16, in->destination);
        at = 32;
    }
    wire_put32(pseudo + at, in->length);
    wire_put32(pseudo + at + 4, protocol);
    return checksum_finish(checksum_add(checksum_add(0, pseudo, at + 8), in->bytes, in->length)) == 0;
}

void segment_input(const struct received *in) {
    struct net *net = in->net;
    const uint8_t *tcp = in->bytes;
    uint32_t header_length = in->length < TCP_BYTES ? 0 : (uint32_t)(tcp[12] >> 4) * 4;
    if (header_length < TCP_BYTES || header_length > in->length) {
        net_drop(net, &net->counters.bad_tcp);
        return;
    }
    struct tcp_packet packet = {.header = tcp, .length = in->length, .hash = net_announced(net, tcp)};
    ip_to(in->destination, &packet.local);
    ip_to(in->source, &packet.remote);
    if (net->config.workers > 1 && net_went_to_owner(in, false, &packet.local, wire_get16(tcp + 2), &packet.remote, wire_get16(tcp)))
        return;
    if ((in->reassembled || !port_checksum_good(in->queue)) && !net_checksum_right(in, PROTOCOL_TCP)) {
        net_drop(net, &net->counters.bad_tcp_checksum);
        return;
    }
    if (net->stack != NULL)
        tcp_input(net->stack, &packet, net->now_us);
}
