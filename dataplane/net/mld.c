/* mld.c: Multicast Listener Discovery (RFC 3810): switches that watch it bring the solicited-node groups only to who asked for them, and
 * without those no neighbour finds us (RFC 4861 7.2.1). */
#include "dataplane/port/checksum.h"
#include "net_private.h"

enum {
    MLD_REPORT = 143,
    MLD_QUERY_BYTES = 24, /* of version 1; version 2 says more, and we want every group in any case */
    MLD_HEADER_BYTES = 8,
    MLD_RECORD_BYTES = 20,
    MLD_RECORDS_MAX = 60, /* in a report of at most 1280 bytes */
    MLD_HOP_LIMIT = 1,
    MLD_QUIET_US = 1000000, /* one answer to as many queries as come in that time */
    RECORD_TO_EXCLUDE = 4,  /* "everything for this group": of a change, and right in an answer too */
    HOP_BY_HOP_BYTES = 8,
};

static void mld_send(struct net *net, struct link *link, const uint8_t *records, uint32_t count) {
    static const uint8_t all_routers_mac[6] = {0x33, 0x33, 0, 0, 0, 0x16};
    static const uint8_t router_alert[HOP_BY_HOP_BYTES] = {PROTOCOL_ICMP6, 0, 5, 2, 0, 0, 1, 0};
    const struct ip all_routers = {(uint64_t)0xff02 << 48, 0x16};
    uint8_t header[ETHERNET_BYTES + VLAN_TAG_BYTES + IPV6_BYTES + HOP_BY_HOP_BYTES + MLD_HEADER_BYTES] = {0}, rest[8] = {0};
    uint32_t length = MLD_HEADER_BYTES + count * MLD_RECORD_BYTES;
    uint8_t l2_length = transmit_ethernet(link, header, all_routers_mac, ETHERTYPE_IPV6);
    uint8_t *ip = header + l2_length, *mld = ip + IPV6_BYTES + HOP_BY_HOP_BYTES;
    transmit_ipv6(ip, PROTOCOL_HOP_BY_HOP, HOP_BY_HOP_BYTES + length, link->link_local, all_routers, MLD_HOP_LIMIT, 0);
    memcpy(ip + IPV6_BYTES, router_alert, sizeof router_alert);
    mld[0] = MLD_REPORT;
    wire_put16(mld + 6, (uint16_t)count);
    wire_put32(rest, length);
    rest[7] = PROTOCOL_ICMP6;
    uint64_t sum = checksum_add(checksum_add(0, ip + 8, 32), rest, sizeof rest);
    sum = checksum_add(checksum_add(sum, mld, MLD_HEADER_BYTES), records, (size_t)count * MLD_RECORD_BYTES);
    uint16_t checksum = checksum_finish(sum);
    memcpy(mld + 2, &checksum, sizeof checksum);
    struct tcp_piece piece = {.bytes = records, .length = count * MLD_RECORD_BYTES};
    struct frame frame = {.header = header,
                          .header_length = (uint16_t)(l2_length + IPV6_BYTES + HOP_BY_HOP_BYTES + MLD_HEADER_BYTES),
                          .l2_length = l2_length,
                          .l3_length = IPV6_BYTES + HOP_BY_HOP_BYTES,
                          .family = 6,
                          .piece_count = 1,
                          .payload_length = (uint16_t)piece.length,
                          .pieces = &piece};
    port_send(link->config.queue, &frame);
    net->counters.mld_reports++;
}

void mld_report(struct net *net, struct link *link) {
    uint8_t records[MLD_RECORDS_MAX * MLD_RECORD_BYTES] = {0};
    uint32_t count = 0;
    for (uint32_t i = 0; i <= link->config.address_count; i++) {
        struct ip ours = i == 0 ? link->link_local : ip_from(&link->config.addresses[i - 1].address);
        if (ip_is_v4(ours))
            continue;
        if (count == MLD_RECORDS_MAX) {
            mld_send(net, link, records, count);
            count = 0;
        }
        uint8_t *record = records + (size_t)count++ * MLD_RECORD_BYTES;
        record[0] = RECORD_TO_EXCLUDE;
        ip_put6(record + 4, ip_solicited_node(ours));
    }
    mld_send(net, link, records, count);
}

void mld_query(const struct received *in) {
    struct net *net = in->net;
    /* RFC 3810 5.1.14: of this link only. */
    if (in->length < MLD_QUERY_BYTES || in->hop_limit != MLD_HOP_LIMIT || !ip_is_link_local(in->source) || in->reassembled) {
        net_drop(net, &net->counters.bad_nd);
        return;
    }
    net_tell_workers(in);
    if (net->config.worker != 0 || net->now_us < in->link->mld_quiet_until_us)
        return;
    in->link->mld_quiet_until_us = net->now_us + MLD_QUIET_US;
    mld_report(net, in->link);
}
