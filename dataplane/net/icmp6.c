/* icmp6.c: ICMPv6 (RFC 4443): ping is answered, errors about our segments go to TCP, Neighbour Discovery to nd.c, the rest is dropped. */
#include "net_private.h"

enum {
    ICMP6_UNREACHABLE = 1,
    ICMP6_TOO_BIG = 2,
    ICMP6_TIME_EXCEEDED = 3,
    ICMP6_PARAMETER_PROBLEM = 4,
    ICMP6_ECHO = 128,
    ICMP6_LISTENER_QUERY = 130,
    ICMP6_ECHO_REPLY = 129,
    ICMP6_NEIGHBOUR_SOLICITATION = 135,
    ICMP6_NEIGHBOUR_ADVERTISEMENT = 136,
    UNREACHABLE_PROHIBITED = 1,
    UNREACHABLE_PORT = 4,
    UNREACHABLE_SOURCE_POLICY = 5,
    UNREACHABLE_REJECTED = 6,
    PROBLEM_NEXT_HEADER = 1,
    QUOTED_TCP_BYTES = 8,
};

/* RFC 4443 4.2 would let an echo to a group be answered; that would multiply what strangers send. */
static void icmp6_echo(const struct received *in) {
    struct net *net = in->net;
    if (ip_is_multicast6(in->destination)) {
        net_drop(net, &net->counters.ignored);
        return;
    }
    if (!net_rate_allows(&net->echo_rate_us, net->now_us, ECHO_PER_SECOND, ECHO_BURST)) {
        net->counters.echo_limited++;
        return;
    }
    uint8_t icmp[ICMP_BYTES] = {ICMP6_ECHO_REPLY};
    memcpy(icmp + 4, in->bytes + 4, 4);
    if (reply_send(in, PROTOCOL_ICMP6, icmp, in->bytes + ICMP_BYTES, in->length - ICMP_BYTES) == 0)
        net->counters.echo_replies++;
}

/* RFC 9293 3.9.2.2 and RFC 5461: forbidden, nobody listens, or no TCP there. */
static bool icmp6_is_hard(uint8_t type, uint8_t code) {
    if (type == ICMP6_PARAMETER_PROBLEM)
        return code == PROBLEM_NEXT_HEADER;
    return type == ICMP6_UNREACHABLE && (code == UNREACHABLE_PROHIBITED || code == UNREACHABLE_PORT || code == UNREACHABLE_SOURCE_POLICY ||
                                         code == UNREACHABLE_REJECTED);
}

/* The quoted header must be one that we could have sent: TCP without extension headers, from the address that the error came to. RFC 8201
 * section 4: no path's MTU is below 1280, whoever says so. */
static void icmp6_error(const struct received *in) {
    struct net *net = in->net;
    const uint8_t *ip = in->bytes + ICMP_BYTES, *tcp = ip + IPV6_BYTES;
    uint32_t mtu = in->bytes[0] == ICMP6_TOO_BIG ? wire_get32(in->bytes + 4) : 0;
    if (in->length < ICMP_BYTES + IPV6_BYTES + QUOTED_TCP_BYTES || ip[0] >> 4 != 6 || ip[6] != PROTOCOL_TCP ||
        !ip_same(ip_from_bytes6(ip + 8), in->destination) || wire_get16(ip + 4) < TCP_BYTES ||
        (in->bytes[0] == ICMP6_TOO_BIG && (mtu < IPV6_MTU_MIN || mtu > UINT16_MAX))) {
        net_drop(net, &net->counters.bad_icmp);
        return;
    }
    struct tcp_address local = {.family = 6}, remote = {.family = 6};
    memcpy(local.bytes, ip + 8, 16);
    memcpy(remote.bytes, ip + 24, 16);
    if (net_went_to_owner(in, true, &local, wire_get16(tcp), &remote, wire_get16(tcp + 2)))
        return;
    net->counters.icmp_errors++;
    if (net->stack != NULL)
        tcp_input_error(net->stack, &local, wire_get16(tcp), &remote, wire_get16(tcp + 2), wire_get32(tcp + 4),
                        icmp6_is_hard(in->bytes[0], in->bytes[1]), (uint16_t)mtu, net->now_us);
}

void icmp6_input(const struct received *in) {
    struct net *net = in->net;
    if (in->length < ICMP_BYTES) {
        net_drop(net, &net->counters.bad_icmp);
        return;
    }
    if (!net_checksum_right(in, PROTOCOL_ICMP6)) {
        net_drop(net, &net->counters.bad_icmp_checksum);
        return;
    }
    uint8_t type = in->bytes[0];
    bool discovery = type == ICMP6_NEIGHBOUR_SOLICITATION || (type == ICMP6_NEIGHBOUR_ADVERTISEMENT && !ip_is_none(in->source));
    if (!discovery && !net_source_pass(in)) {
        net_drop(net, &net->counters.bad_source);
        return;
    }
    switch (type) {
    case ICMP6_ECHO:
        if (net_is_ours(in))
            icmp6_echo(in);
        return;
    case ICMP6_UNREACHABLE:
    case ICMP6_TOO_BIG:
    case ICMP6_TIME_EXCEEDED:
    case ICMP6_PARAMETER_PROBLEM:
        icmp6_error(in);
        return;
    case ICMP6_NEIGHBOUR_SOLICITATION:
    case ICMP6_NEIGHBOUR_ADVERTISEMENT:
        nd_input(in);
        return;
    case ICMP6_LISTENER_QUERY:
        mld_query(in);
        return;
    default: /* router advertisements and redirects are not followed */
        net_drop(net, &net->counters.ignored);
    }
}
