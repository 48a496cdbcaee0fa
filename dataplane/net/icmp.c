/* icmp.c: ICMP (RFC 792, RFC 1122 3.2.2): ping is answered, errors about our segments go to TCP, everything else is dropped. */
#include "dataplane/port/checksum.h"
#include "net_private.h"

enum {
    ICMP_ECHO_REPLY = 0,
    ICMP_UNREACHABLE = 3,
    ICMP_ECHO = 8,
    ICMP_TIME_EXCEEDED = 11,
    ICMP_PARAMETER_PROBLEM = 12,
    UNREACHABLE_PROTOCOL = 2,
    UNREACHABLE_PORT = 3,
    UNREACHABLE_TOO_BIG = 4,
    UNREACHABLE_NET_PROHIBITED = 9,
    UNREACHABLE_HOST_PROHIBITED = 10,
    UNREACHABLE_PROHIBITED = 13,
    QUOTED_TCP_BYTES = 8, /* what an error must quote: the ports and the sequence number */
    MTU_MIN = 68,         /* RFC 791: every link carries this much */
};

/* RFC 1191 section 7: what to try when a router tells no MTU. */
static uint16_t mtu_plateau_below(uint16_t length) {
    static const uint16_t plateaus[] = {32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, MTU_MIN};
    for (size_t i = 0; i < sizeof plateaus / sizeof plateaus[0]; i++)
        if (plateaus[i] < length)
            return plateaus[i];
    return MTU_MIN;
}

/* A token bucket without tokens: the time at which the bucket was last empty moves on with each reply, and never lies back further than a
 * burst. */
static bool icmp_echo_allowed(struct net *net) {
    const uint64_t step_us = 1000000 / ECHO_PER_SECOND, burst_us = ECHO_BURST * step_us;
    if (net->echo_tokens_at_us + burst_us < net->now_us)
        net->echo_tokens_at_us = net->now_us - burst_us;
    if (net->echo_tokens_at_us + step_us > net->now_us)
        return false;
    net->echo_tokens_at_us += step_us;
    return true;
}

/* Answered to the MAC that asked: nothing is learned from it, and nobody has to be asked for. */
static void icmp_echo(const struct received *in) {
    struct net *net = in->net;
    if (!icmp_echo_allowed(net) || in->length + IPV4_BYTES > in->link->config.mtu) {
        net->counters.echo_limited++;
        return;
    }
    uint8_t header[FRAME_HEADER_BYTES_MAX];
    uint8_t l2_length = transmit_ethernet(in->link, header, in->source_mac, ETHERTYPE_IPV4);
    transmit_ipv4(header + l2_length, PROTOCOL_ICMP, in->length, in->destination, in->source);
    uint8_t *icmp = header + l2_length + IPV4_BYTES;
    memcpy(icmp, in->bytes, ICMP_BYTES);
    icmp[0] = ICMP_ECHO_REPLY;
    icmp[1] = 0;
    memset(icmp + 2, 0, 2);
    struct tcp_piece data = {.bytes = in->bytes + ICMP_BYTES, .length = in->length - ICMP_BYTES};
    uint16_t checksum = checksum_finish(checksum_add(checksum_add(0, icmp, ICMP_BYTES), data.bytes, data.length));
    memcpy(icmp + 2, &checksum, sizeof checksum);
    struct frame frame = {
        .header = header,
        .header_length = (uint16_t)(l2_length + IPV4_BYTES + ICMP_BYTES),
        .l2_length = l2_length,
        .l3_length = IPV4_BYTES,
        .family = 4,
        .piece_count = data.length > 0,
        .payload_length = (uint16_t)data.length,
        .pieces = &data,
    };
    if (port_send(in->link->config.queue, &frame) == 0)
        net->counters.echo_replies++;
}

/* RFC 1122 4.2.3.9 with what is now known of filters (RFC 1812 5.2.7.1): nobody listens, or someone forbids it. */
static bool icmp_is_hard(uint8_t type, uint8_t code) {
    if (type == ICMP_PARAMETER_PROBLEM)
        return true;
    return type == ICMP_UNREACHABLE && (code == UNREACHABLE_PROTOCOL || code == UNREACHABLE_PORT || code == UNREACHABLE_NET_PROHIBITED ||
                                        code == UNREACHABLE_HOST_PROHIBITED || code == UNREACHABLE_PROHIBITED);
}

/* The quoted header must be one that we could have sent: IPv4 without options, unfragmented, TCP, from the address that the error came to.
 * Its checksum is not asked for: routers quote it with their own TTL. TCP then checks the sequence number (RFC 5927). */
static void icmp_error(const struct received *in) {
    struct net *net = in->net;
    const uint8_t *ip = in->bytes + ICMP_BYTES, *tcp = ip + IPV4_BYTES;
    if (in->length < ICMP_BYTES + IPV4_BYTES + QUOTED_TCP_BYTES || ip[0] != 0x45 || ip[9] != PROTOCOL_TCP ||
        (wire_get16(ip + 6) & 0x3fff) != 0 || wire_get32(ip + 12) != in->destination || wire_get16(ip + 2) < IPV4_BYTES + TCP_BYTES) {
        net_drop(net, &net->counters.bad_icmp);
        return;
    }
    if (net_handed_over_to_owner(in, wire_get16(tcp)))
        return;
    uint16_t mtu = 0;
    if (in->bytes[0] == ICMP_UNREACHABLE && in->bytes[1] == UNREACHABLE_TOO_BIG) {
        mtu = wire_get16(in->bytes + 6);
        if (mtu == 0)
            mtu = mtu_plateau_below(wire_get16(ip + 2));
        if (mtu < MTU_MIN) {
            net_drop(net, &net->counters.bad_icmp);
            return;
        }
    }
    struct tcp_address local = {.family = 4}, remote = {.family = 4};
    memcpy(local.bytes, ip + 12, 4);
    memcpy(remote.bytes, ip + 16, 4);
    net->counters.icmp_errors++;
    if (net->stack != NULL)
        tcp_input_error(net->stack, &local, wire_get16(tcp), &remote, wire_get16(tcp + 2), wire_get32(tcp + 4),
                        icmp_is_hard(in->bytes[0], in->bytes[1]), mtu, net->now_us);
}

void icmp_input(const struct received *in) {
    struct net *net = in->net;
    if (in->length < ICMP_BYTES) {
        net_drop(net, &net->counters.bad_icmp);
        return;
    }
    if (checksum_finish(checksum_add(0, in->bytes, in->length)) != 0) {
        net_drop(net, &net->counters.bad_icmp_checksum);
        return;
    }
    switch (in->bytes[0]) {
    case ICMP_ECHO:
        icmp_echo(in);
        return;
    case ICMP_UNREACHABLE:
    case ICMP_TIME_EXCEEDED:
    case ICMP_PARAMETER_PROBLEM:
        icmp_error(in);
        return;
    default: /* source quench is obsolete (RFC 6633), redirects are not followed */
        net_drop(net, &net->counters.ignored);
    }
}
