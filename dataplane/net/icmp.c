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
    MTU_NOT_TOLD = 1,     /* tcp_input_error: an old router's message (RFC 1191 section 5) */
};

static void icmp_echo(const struct received *in) {
    struct net *net = in->net;
    if (!net_rate_allows(&net->echo_rate_us, net->now_us, ECHO_PER_SECOND, ECHO_BURST)) {
        net->counters.echo_limited++;
        return;
    }
    uint8_t icmp[ICMP_BYTES] = {ICMP_ECHO_REPLY};
    memcpy(icmp + 4, in->bytes + 4, 4);
    if (reply_send(in, PROTOCOL_ICMP, icmp, in->bytes + ICMP_BYTES, in->length - ICMP_BYTES) == 0)
        net->counters.echo_replies++;
}

/* RFC 9293 3.9.2.2, with what is known of filters since (RFC 1812 5.2.7.1): nobody listens, or someone forbids it. A parameter problem and
 * time exceeded are soft. */
static bool icmp_is_hard(uint8_t type, uint8_t code) {
    return type == ICMP_UNREACHABLE && (code == UNREACHABLE_PROTOCOL || code == UNREACHABLE_PORT || code == UNREACHABLE_NET_PROHIBITED ||
                                        code == UNREACHABLE_HOST_PROHIBITED || code == UNREACHABLE_PROHIBITED);
}

/* The quoted header must be one that we could have sent: IPv4 without options, TCP, from the address that the error came to, and the first
 * fragment if a router cut it (tcp_segment.may_fragment). Its checksum is not asked for: routers quote it with their own TTL. TCP then
 * checks the sequence number (RFC 5927). */
static void icmp_error(const struct received *in) {
    struct net *net = in->net;
    const uint8_t *ip = in->bytes + ICMP_BYTES, *tcp = ip + IPV4_BYTES;
    if (in->length < ICMP_BYTES + IPV4_BYTES + QUOTED_TCP_BYTES || ip[0] != 0x45 || ip[9] != PROTOCOL_TCP ||
        (wire_get16(ip + 6) & IPV4_OFFSET_MASK) != 0 || wire_get32(ip + 12) != ip_v4(in->destination) ||
        wire_get16(ip + 2) < IPV4_BYTES + TCP_BYTES) {
        net_drop(net, &net->counters.bad_icmp);
        return;
    }
    uint16_t mtu = 0;
    if (in->bytes[0] == ICMP_UNREACHABLE && in->bytes[1] == UNREACHABLE_TOO_BIG) {
        mtu = wire_get16(in->bytes + 6);
        if (mtu == 0)
            mtu = MTU_NOT_TOLD;
        else if (mtu < MTU_MIN) {
            net_drop(net, &net->counters.bad_icmp);
            return;
        }
    }
    struct tcp_address local = {.family = 4}, remote = {.family = 4};
    memcpy(local.bytes, ip + 12, 4);
    memcpy(remote.bytes, ip + 16, 4);
    if (net_went_to_owner(in, true, &local, wire_get16(tcp), &remote, wire_get16(tcp + 2)))
        return;
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
        if (net_is_ours(in))
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
