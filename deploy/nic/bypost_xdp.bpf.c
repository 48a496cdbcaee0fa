/* bypost_xdp.bpf.c: shares a NIC with the kernel. Frames that are bypost's go to its AF_XDP sockets, all others pass to the kernel
 * untouched. `deploy/nic/nic share` compiles it with a header that says what is bypost's; net_af_xdp loads it (xdp_prog=...). README.md has
 * the rules. */
#include <linux/bpf.h> /* the others need its types */

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

/* From the header that `nic share` writes:
 * SHARE_VLAN        0: untagged (and priority-tagged) frames, else the one VLAN
 * SHARE_PORT_FIRST  0: the addresses are bypost's own; else they are the kernel's, and TCP to these ports is bypost's
 * SHARE_PORT_LAST
 * SHARE_IPV4_CASES  `case 0xc0000202u:` for each address
 * SHARE_IPV6_TESTS  `SHARE_IPV6_TEST(0x20010db800000000ull, 0x2ull)` for each address */
#ifndef SHARE_PORT_FIRST
#define SHARE_VLAN       0
#define SHARE_PORT_FIRST 0
#define SHARE_PORT_LAST  0
#define SHARE_IPV4_CASES
#define SHARE_IPV6_TESTS
#endif

#define SHARE_IPV6_TEST(high, low)                                                                                                         \
    if (bpf_be64_to_cpu(words[0]) == (high) && bpf_be64_to_cpu(words[1]) == (low))                                                         \
        return 1;

enum {
    SHARE_QUEUES_MAX = 64,
    SHARE_FRAGMENTS_MAX = 1024,
    SHARE_NEIGHBOURS_MAX = 1024,
    IPV6_EXTENSIONS_MAX = 6,
    VLAN_TAG_BYTES = 4,
    VLAN_ID_MASK = 0x0fff,
    FRAGMENT_MORE = 0x2000,
    FRAGMENT_OFFSET_MASK = 0x1fff,
    FRAGMENT6_MORE = 0x0001,
    FRAGMENT6_OFFSET_MASK = 0xfff8,
    ARP_REPLY = 2,
    ICMP_HEADER_BYTES = 8,
};

/* A second answer of the same neighbour within this time is bypost's: the kernel has just had one. bypost asks three times, a second apart.
 */
#define SHARE_KERNEL_FRESH_NS 5000000000ull

enum share_count { COUNT_PASSED, COUNT_TAKEN, COUNT_UNSERVED, COUNT_NEIGHBOUR_KERNEL, COUNT_NEIGHBOUR_TAKEN, COUNT_MAX };

/* net_af_xdp puts its sockets in here, by queue; it finds the map by this name. */
struct {
    __uint(type, BPF_MAP_TYPE_XSKMAP);
    __uint(max_entries, SHARE_QUEUES_MAX);
    __type(key, __u32);
    __type(value, __u32);
} xsks_map SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, COUNT_MAX);
    __type(key, __u32);
    __type(value, __u64);
} share_counts SEC(".maps");

struct fragment_key {
    __u64 source[2], target[2];
    __u32 id, protocol;
};

#if SHARE_PORT_FIRST
/* Datagrams whose first fragment was bypost's: the others have no ports. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, SHARE_FRAGMENTS_MAX);
    __type(key, struct fragment_key);
    __type(value, __u8);
} share_fragments SEC(".maps");

struct neighbour_key {
    __u64 words[2];
};

struct neighbour_answer {
    __u64 kernel_ns; /* when the kernel last had one */
    __u64 taken;     /* since then bypost had one */
};

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, SHARE_NEIGHBOURS_MAX);
    __type(key, struct neighbour_key);
    __type(value, struct neighbour_answer);
} share_neighbours SEC(".maps");
#endif

struct arp_ipv4 {
    __be16 hardware, protocol;
    __u8 hardware_length, protocol_length;
    __be16 operation;
    __u8 sender_mac[6], sender[4], target_mac[6], target[4];
};

struct icmp_start {
    __u8 type, code;
    __be16 checksum;
    __be32 rest;
};

struct ports {
    __be16 source, target;
};

struct extension {
    __u8 next, length;
    __be16 offset; /* these two only in a fragment header */
    __be32 id;
};

static __always_inline void count(__u32 what) {
    __u64 *value = bpf_map_lookup_elem(&share_counts, &what);
    if (value)
        (*value)++;
}

static __always_inline int pass(void) {
    count(COUNT_PASSED);
    return XDP_PASS;
}

/* Without a socket on this queue the frame is dropped, never passed: the kernel would answer it with a reset. */
static __always_inline int take(struct xdp_md *frame) {
    int verdict = (int)bpf_redirect_map(&xsks_map, frame->rx_queue_index, XDP_DROP);
    count(verdict == XDP_REDIRECT ? COUNT_TAKEN : COUNT_UNSERVED);
    return verdict;
}

static __always_inline int has_ipv4(__be32 address) {
    switch (bpf_ntohl(address)) {
        SHARE_IPV4_CASES
        return 1;
    default:
        return 0;
    }
}

static __always_inline int has_ipv6(const void *address) {
    __u64 words[2];
    __builtin_memcpy(words, address, sizeof words);
    SHARE_IPV6_TESTS
    return 0;
}

#if SHARE_PORT_FIRST

static __always_inline int has_port(__be16 port) {
    __u16 number = bpf_ntohs(port);
    return number >= SHARE_PORT_FIRST && number <= SHARE_PORT_LAST;
}

/* An answer to whoever asked: nothing in it tells, and XDP cannot copy. The kernel is served first; what the same neighbour says again soon
 * after goes to bypost and to the kernel in turn. Either takes an answer that it did not ask for just then, and asks three times, a second
 * apart: so each has its own after two questions. */
static __always_inline int neighbour(struct xdp_md *frame, const struct neighbour_key *key) {
    struct neighbour_answer fresh = {.kernel_ns = bpf_ktime_get_ns()};
    struct neighbour_answer *last = bpf_map_lookup_elem(&share_neighbours, key);
    if (last && !last->taken && fresh.kernel_ns - last->kernel_ns < SHARE_KERNEL_FRESH_NS) {
        int verdict = (int)bpf_redirect_map(&xsks_map, frame->rx_queue_index, XDP_PASS);
        last->taken = verdict == XDP_REDIRECT;
        count(verdict == XDP_REDIRECT ? COUNT_NEIGHBOUR_TAKEN : COUNT_NEIGHBOUR_KERNEL);
        return verdict;
    }
    bpf_map_update_elem(&share_neighbours, key, &fresh, BPF_ANY);
    count(COUNT_NEIGHBOUR_KERNEL);
    return XDP_PASS;
}

static __always_inline int fragment_first(struct xdp_md *frame, const struct fragment_key *key, int ours) {
    __u8 one = 1;
    if (ours)
        bpf_map_update_elem(&share_fragments, key, &one, BPF_ANY);
    else
        bpf_map_delete_elem(&share_fragments, key);
    return ours ? take(frame) : pass();
}

static __always_inline int fragment_later(struct xdp_md *frame, const struct fragment_key *key) {
    return bpf_map_lookup_elem(&share_fragments, key) ? take(frame) : pass();
}

/* An ICMP error is bypost's when the segment that it quotes was (RFC 792; RFC 4443 3). */
static __always_inline int icmp4_error(struct xdp_md *frame, void *icmp, void *end) {
    struct icmp_start *start = icmp;
    struct iphdr *quoted = icmp + ICMP_HEADER_BYTES;
    if ((void *)(quoted + 1) > end)
        return pass();
    if (start->type != 3 && start->type != 4 && start->type != 11 && start->type != 12)
        return pass();
    if (quoted->version != 4 || quoted->ihl < 5 || quoted->protocol != IPPROTO_TCP ||
        (quoted->frag_off & bpf_htons(FRAGMENT_OFFSET_MASK)) != 0 || !has_ipv4(quoted->saddr))
        return pass();
    struct ports *ports = (void *)quoted + quoted->ihl * 4;
    if ((void *)(ports + 1) > end || !has_port(ports->source))
        return pass();
    return take(frame);
}

static __always_inline int icmp6_error(struct xdp_md *frame, void *icmp, void *end) {
    struct ipv6hdr *quoted = icmp + ICMP_HEADER_BYTES;
    struct ports *ports = (void *)(quoted + 1);
    if ((void *)(ports + 1) > end || quoted->nexthdr != IPPROTO_TCP || !has_ipv6(&quoted->saddr) || !has_port(ports->source))
        return pass();
    return take(frame);
}

static __always_inline int ipv4(struct xdp_md *frame, void *at, void *end) {
    struct iphdr *ip = at;
    if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5 || !has_ipv4(ip->daddr))
        return pass();
    void *next = at + ip->ihl * 4;
    __u16 fragment = bpf_ntohs(ip->frag_off);
    if (ip->protocol == IPPROTO_ICMP && (fragment & (FRAGMENT_MORE | FRAGMENT_OFFSET_MASK)) == 0)
        return icmp4_error(frame, next, end);
    if (ip->protocol != IPPROTO_TCP)
        return pass();
    struct fragment_key key = {.source = {ip->saddr}, .target = {ip->daddr}, .id = ip->id, .protocol = IPPROTO_TCP};
    if ((fragment & FRAGMENT_OFFSET_MASK) != 0)
        return fragment_later(frame, &key);
    struct ports *ports = next;
    if ((void *)(ports + 1) > end)
        return pass();
    int ours = has_port(ports->target);
    if ((fragment & FRAGMENT_MORE) != 0)
        return fragment_first(frame, &key, ours);
    return ours ? take(frame) : pass();
}

static __always_inline int icmp6(struct xdp_md *frame, struct ipv6hdr *ip, void *at, void *end) {
    struct icmp_start *start = at;
    if ((void *)(start + 1) > end)
        return pass();
    if (start->type >= 1 && start->type <= 4)
        return icmp6_error(frame, at, end);
    if (start->type == 136 && ip->hop_limit == 255) { /* Neighbour Advertisement to our address: an answer (RFC 4861 4.4) */
        struct neighbour_key key;
        if (at + ICMP_HEADER_BYTES + sizeof key > end)
            return pass();
        __builtin_memcpy(&key, at + ICMP_HEADER_BYTES, sizeof key);
        return neighbour(frame, &key);
    }
    return pass();
}

static __always_inline int ipv6(struct xdp_md *frame, void *at, void *end) {
    struct ipv6hdr *ip = at;
    if ((void *)(ip + 1) > end || ip->version != 6 || !has_ipv6(&ip->daddr))
        return pass();
    struct fragment_key key = {.protocol = IPPROTO_TCP};
    __builtin_memcpy(key.source, &ip->saddr, sizeof key.source);
    __builtin_memcpy(key.target, &ip->daddr, sizeof key.target);
    __u8 protocol = ip->nexthdr;
    int more = 0;
    at = ip + 1;
#pragma unroll
    for (int i = 0; i < IPV6_EXTENSIONS_MAX; i++) {
        struct extension *extension = at;
        if (protocol != IPPROTO_HOPOPTS && protocol != IPPROTO_ROUTING && protocol != IPPROTO_DSTOPTS && protocol != IPPROTO_FRAGMENT)
            break;
        if ((void *)(extension + 1) > end)
            return pass();
        if (protocol == IPPROTO_FRAGMENT) {
            key.id = extension->id;
            if ((bpf_ntohs(extension->offset) & FRAGMENT6_OFFSET_MASK) != 0)
                return fragment_later(frame, &key);
            more = bpf_ntohs(extension->offset) & FRAGMENT6_MORE;
            at += sizeof *extension;
        } else
            at += (extension->length + 1) * 8;
        protocol = extension->next;
    }
    if (protocol == IPPROTO_ICMPV6 && !more)
        return icmp6(frame, ip, at, end);
    struct ports *ports = at;
    if (protocol != IPPROTO_TCP || (void *)(ports + 1) > end)
        return pass();
    int ours = has_port(ports->target);
    if (more)
        return fragment_first(frame, &key, ours);
    return ours ? take(frame) : pass();
}

static __always_inline int arp(struct xdp_md *frame, const struct ethhdr *ethernet, void *at, void *end) {
    struct arp_ipv4 *arp = at;
    __be32 target;
    struct neighbour_key key = {.words = {0}};
    if ((void *)(arp + 1) > end || arp->protocol != bpf_htons(ETH_P_IP) || arp->operation != bpf_htons(ARP_REPLY))
        return pass(); /* the kernel answers questions about the address, which is its own */
    __builtin_memcpy(&target, arp->target, sizeof target);
    if ((ethernet->h_dest[0] & 1) != 0 || !has_ipv4(target))
        return pass();
    __builtin_memcpy(&key.words[0], arp->sender, sizeof arp->sender);
    return neighbour(frame, &key);
}

#else /* addresses of bypost's own */

static __always_inline int ipv4(struct xdp_md *frame, void *at, void *end) {
    struct iphdr *ip = at;
    if ((void *)(ip + 1) > end || ip->version != 4 || !has_ipv4(ip->daddr))
        return pass();
    return take(frame);
}

static __always_inline int ipv6(struct xdp_md *frame, void *at, void *end) {
    struct ipv6hdr *ip = at;
    struct icmp_start *icmp = (void *)(ip + 1);
    if ((void *)(ip + 1) > end || ip->version != 6)
        return pass();
    if (has_ipv6(&ip->daddr))
        return take(frame);
    /* Multicast: who asks for our address, and who claims it (RFC 4861 4.3, 4.4; RFC 4862 5.4). */
    if (ip->daddr.s6_addr[0] != 0xff || ip->nexthdr != IPPROTO_ICMPV6 || (void *)(icmp + 1) + 16 > end)
        return pass();
    if ((icmp->type != 135 && icmp->type != 136) || !has_ipv6(icmp + 1))
        return pass();
    return take(frame);
}

/* Who asks for our address, who answers us, and who claims it (RFC 826; RFC 5227 2.4). */
static __always_inline int arp(struct xdp_md *frame, const struct ethhdr *ethernet, void *at, void *end) {
    struct arp_ipv4 *arp = at;
    __be32 sender, target;
    if ((void *)(arp + 1) > end || arp->protocol != bpf_htons(ETH_P_IP))
        return pass();
    __builtin_memcpy(&sender, arp->sender, sizeof sender);
    __builtin_memcpy(&target, arp->target, sizeof target);
    return has_ipv4(target) || has_ipv4(sender) ? take(frame) : pass();
}

#endif

SEC("xdp")
int bypost_share(struct xdp_md *frame) {
    void *end = (void *)(long)frame->data_end;
    struct ethhdr *ethernet = (void *)(long)frame->data;
    void *at = ethernet + 1;
    if (at > end)
        return pass();
    __be16 protocol = ethernet->h_proto;
    __u16 vlan = 0;
    if (protocol == bpf_htons(ETH_P_8021Q)) {
        __be16 *tag = at;
        if (at + VLAN_TAG_BYTES > end)
            return pass();
        vlan = bpf_ntohs(tag[0]) & VLAN_ID_MASK;
        protocol = tag[1];
        at += VLAN_TAG_BYTES;
    }
    if (vlan != SHARE_VLAN)
        return pass();
    if (protocol == bpf_htons(ETH_P_IP))
        return ipv4(frame, at, end);
    if (protocol == bpf_htons(ETH_P_IPV6))
        return ipv6(frame, at, end);
    if (protocol == bpf_htons(ETH_P_ARP))
        return arp(frame, ethernet, at, end);
    return pass();
}

char share_license[] SEC("license") = "GPL";
