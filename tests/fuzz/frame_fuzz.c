/* frame_fuzz.c: frames into net, with a TCP stack behind it whose connections are in several states, while neighbours are being resolved,
 * fragments wait and time goes on. The input is a program: each step is a byte that says what to do and the bytes that it takes. */
#include "dataplane/net/net.h"
#include "dataplane/tcp/tcp.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    FRAME_MAX = 2048,
    MTU = 1500,
    FLOWS = 8,
    CONNECTIONS = 8,
    PROGRAM_MAX = 4096,
    ETHERNET = 14,
    LISTEN_PORT = 25,
    STEP_LIMIT = 400,
};

/* What our side sent last on a connection, so that the peer's frames can hit its windows. */
struct flow {
    bool six;
    uint16_t local_port, remote_port;
    uint32_t sequence_next, acknowledgement;
};

struct port_queue {
    bool handed_over, checksum_good, full, gone;
    const uint8_t *arrived; /* what the next port_receive_ahead brings */
    uint32_t arrived_bytes;
};

struct world {
    struct net *net;
    struct tcp_stack *stack;
    struct port_queue queue;
    struct counters counters;
    uint64_t now_us;
    uint8_t take; /* what `received` consumes */
    uint32_t flow_count;
    struct flow flows[FLOWS];
    struct tcp_conn *connections[CONNECTIONS];
    uint32_t identification;
};

static struct world *world;
static const uint8_t our_mac[6] = {2, 0, 0, 0, 0, 2}, peer_mac[6] = {2, 0, 0, 0, 0, 9}, broadcast_mac[6] = {255, 255, 255, 255, 255, 255};
static const uint8_t our_ip[4] = {10, 99, 0, 2}, peer_ip[4] = {10, 99, 0, 9}, gateway_ip[4] = {10, 99, 0, 1}, far_ip[4] = {192, 0, 2, 25};
static const uint8_t our_ip6[16] = {0x20, 1, 0xd, 0xb8, [15] = 2}, peer_ip6[16] = {0x20, 1, 0xd, 0xb8, [15] = 9},
                     far_ip6[16] = {0x20, 1, 0xd, 0xb8, 0, 5, [15] = 0x25}, gateway_ip6[16] = {0xfe, 0x80, [15] = 1},
                     our_link_local[16] = {0xfe, 0x80, [11] = 0xff, 0xfe, [15] = 2};

static void check(bool right) {
    if (!right)
        abort();
}

static uint16_t get16(const uint8_t *at) {
    return (uint16_t)(at[0] << 8 | at[1]);
}

static uint32_t get32(const uint8_t *at) {
    return (uint32_t)get16(at) << 16 | get16(at + 2);
}

static void put16(uint8_t *at, uint32_t value) {
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value) {
    put16(at, value >> 16);
    put16(at + 2, value);
}

static uint16_t sum16(const uint8_t *bytes, uint32_t length, uint32_t start) {
    uint32_t sum = start;
    for (uint32_t i = 0; i < length; i++)
        sum += (i & 1) == 0 ? (uint32_t)bytes[i] << 8 : bytes[i];
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

static uint16_t l4_sum(const uint8_t *ip, const uint8_t *l4, uint32_t length, uint8_t protocol) {
    bool six = ip[0] >> 4 == 6;
    if (protocol == 1)
        return sum16(l4, length, 0);
    return sum16(l4, length, (uint16_t)~sum16(ip + (six ? 8 : 12), six ? 32 : 8, protocol + length));
}

/* port.h: what leaves must be what frame.h promises. */

static void flow_note(const uint8_t *ip, const uint8_t *tcp, uint32_t payload) {
    bool six = ip[0] >> 4 == 6;
    uint32_t i = 0;
    while (i < world->flow_count &&
           (world->flows[i].six != six || world->flows[i].local_port != get16(tcp) || world->flows[i].remote_port != get16(tcp + 2)))
        i++;
    if (i == world->flow_count)
        i = world->flow_count < FLOWS ? world->flow_count++ : get16(tcp) % FLOWS;
    world->flows[i] = (struct flow){.six = six,
                                    .local_port = get16(tcp),
                                    .remote_port = get16(tcp + 2),
                                    .sequence_next = get32(tcp + 4) + payload + ((tcp[13] & (TCP_SYN | TCP_FIN)) != 0),
                                    .acknowledgement = get32(tcp + 8)};
}

int port_send(struct port_queue *queue, const struct frame *frame) {
    static uint8_t bytes[1 << 16];
    uint32_t length = frame->header_length;
    if (queue->full)
        return -11; /* EAGAIN */
    check(frame->header_length <= FRAME_HEADER_BYTES_MAX);
    memcpy(bytes, frame->header, length);
    for (uint32_t i = 0; i < frame->piece_count; i++) {
        memcpy(bytes + length, frame->pieces[i].bytes, frame->pieces[i].length);
        length += frame->pieces[i].length;
    }
    check(length == (uint32_t)frame->header_length + frame->payload_length);
    check(length <= frame->l2_length + (uint32_t)MTU && (bytes[0] & 1) == (memcmp(bytes, our_mac, 6) != 0 && (bytes[0] & 1)));
    check(memcmp(bytes + 6, our_mac, 6) == 0);
    const uint8_t *ip = bytes + frame->l2_length;
    if (frame->family == 4) {
        check(sum16(ip, 20, 0) == 0 && (bytes[0] & 1) == 0 && get16(ip + 2) == length - frame->l2_length);
    } else if (frame->family == 6) {
        check(get16(ip + 4) + 40u == length - frame->l2_length);
        /* Only Neighbour Discovery and MLD speak to groups. */
        check((bytes[0] & 1) == 0 || (ip[6] == 58 && ip[7] == 255) || (ip[6] == 0 && ip[7] == 1));
    }
    if (frame->l4_protocol == 6)
        flow_note(ip, ip + frame->l3_length, frame->payload_length);
    return 0;
}

void port_flush(struct port_queue *queue) {
    (void)queue;
}

uint32_t port_receive_ahead(struct port_queue *queue, void (*ahead)(void *context, const uint8_t *frame, uint32_t length),
                            void (*input)(void *context, const uint8_t *frame, uint32_t length), void *context) {
    ahead(context, queue->arrived, queue->arrived_bytes);
    input(context, queue->arrived, queue->arrived_bytes);
    return 1;
}

bool port_checksum_good(const struct port_queue *queue) {
    return queue->checksum_good;
}

bool port_frame_handed_over(const struct port_queue *queue) {
    return queue->handed_over;
}

int port_hand_over(struct port_queue *queue, uint32_t worker) {
    check(worker == 1 || worker == 2);
    check(!queue->gone && !queue->handed_over);
    queue->gone = true;
    return 0;
}

void port_hand_over_all(struct port_queue *queue) {
    check(!queue->gone && !queue->handed_over);
}

/* tcp.h's events */

static void on_connected(void *user, struct tcp_conn *conn, uint64_t now_us) {}

static uint32_t on_received(void *user, struct tcp_conn *conn, const uint8_t *bytes, uint32_t length, uint64_t now_us) {
    uint8_t all = 0;
    for (uint32_t i = 0; i < length; i++)
        all |= bytes[i]; /* every byte can be read */
    return world->take == 0 ? (uint32_t)(all != 0) % (length + 1) : length;
}

static void on_peer_closed(void *user, struct tcp_conn *conn, uint64_t now_us) {}

static void on_acknowledged(void *user, struct tcp_conn *conn, uint32_t bytes, uint64_t now_us) {}

static void forget(const struct tcp_conn *conn) {
    for (uint32_t i = 0; i < CONNECTIONS; i++)
        if (world->connections[i] == conn)
            world->connections[i] = NULL;
}

static void on_closed(void *user, struct tcp_conn *conn, enum tcp_error error, uint64_t now_us) {
    check(tcp_error_text(error) != NULL);
    forget(conn);
}

static void *on_accepted(void *listener_user, struct tcp_conn *conn, uint64_t now_us) {
    for (uint32_t i = 0; i < CONNECTIONS; i++) {
        if (world->connections[i] == NULL) {
            world->connections[i] = conn;
            return world;
        }
    }
    return NULL;
}

/* The peer's frames. */

static void frame_in(const uint8_t *bytes, uint32_t length) {
    uint8_t *exact = malloc(length > 0 ? length : 1); /* so that a read past the end is seen */
    check(exact != NULL);
    memcpy(exact, bytes, length);
    world->queue.gone = false;
    world->queue.arrived = exact;
    world->queue.arrived_bytes = length;
    net_receive(world->net, world->now_us);
    free(exact);
}

/* Ethernet and IP before `length` bytes of payload that lie at frame + 14 + 20 or + 40. */
static uint32_t put_ip(uint8_t *frame, bool six, uint8_t protocol, bool far, uint32_t length) {
    memcpy(frame, our_mac, 6);
    memcpy(frame + 6, peer_mac, 6);
    uint8_t *ip = frame + ETHERNET;
    if (six) {
        put16(frame + 12, 0x86dd);
        put32(ip, 0x60000000);
        put16(ip + 4, length);
        ip[6] = protocol;
        ip[7] = 255;
        memcpy(ip + 8, far ? far_ip6 : peer_ip6, 16);
        memcpy(ip + 24, our_ip6, 16);
        return ETHERNET + 40 + length;
    }
    put16(frame + 12, 0x0800);
    memset(ip, 0, 20);
    ip[0] = 0x45;
    put16(ip + 2, 20 + length);
    ip[8] = 60;
    ip[9] = protocol;
    memcpy(ip + 12, far ? far_ip : peer_ip, 4);
    memcpy(ip + 16, our_ip, 4);
    return ETHERNET + 20 + length;
}

static void fix_sums(uint8_t *frame, uint32_t length) {
    uint8_t *ip = frame + ETHERNET;
    if (length >= 34 && get16(frame + 12) == 0x0800) {
        uint32_t head = (uint32_t)(ip[0] & 15) * 4, total = get16(ip + 2);
        if (head < 20 || head > length - ETHERNET || total < head || total > length - ETHERNET)
            return;
        put16(ip + 10, 0);
        put16(ip + 10, sum16(ip, head, 0));
        uint32_t at = ip[9] == 6 ? 16 : 2;
        if ((get16(ip + 6) & 0x3fff) != 0 || total - head < at + 2 || (ip[9] != 6 && ip[9] != 1))
            return;
        put16(ip + head + at, 0);
        put16(ip + head + at, l4_sum(ip, ip + head, total - head, ip[9]));
    } else if (length >= 54 && get16(frame + 12) == 0x86dd) {
        uint32_t total = get16(ip + 4), at = ip[6] == 6 ? 16 : 2;
        if (total > length - 54 || total < at + 2 || (ip[6] != 6 && ip[6] != 58))
            return;
        put16(ip + 40 + at, 0);
        put16(ip + 40 + at, l4_sum(ip, ip + 40, total, ip[6]));
    }
}

struct program {
    const uint8_t *bytes;
    size_t left;
};

static uint8_t take8(struct program *program) {
    if (program->left == 0)
        return 0;
    program->left--;
    return *program->bytes++;
}

static uint32_t take16(struct program *program) {
    uint32_t high = take8(program);
    return high << 8 | take8(program);
}

static uint32_t take_bytes(struct program *program, uint8_t *to, uint32_t length) {
    uint32_t given = length < program->left ? length : (uint32_t)program->left;
    memcpy(to, program->bytes, given);
    memset(to + given, 0, length - given);
    program->bytes += given;
    program->left -= given;
    return given;
}

/* A few bytes of the finished frame become others; then the sums are mended, mostly. */
static uint32_t patch(struct program *program, uint8_t *frame, uint32_t length, uint8_t how) {
    for (uint32_t changes = how & 3; changes > 0; changes--) {
        uint32_t at = take8(program);
        uint8_t value = take8(program);
        if (at < length)
            frame[at] = value;
    }
    if ((how & 4) != 0)
        length = length * take8(program) / 255;
    if ((how & 8) == 0)
        fix_sums(frame, length);
    return length;
}

/* A segment of a connection that we know, near what it expects. */
static uint32_t make_segment(struct program *program, uint8_t *frame) {
    uint8_t which = take8(program), flags = take8(program), options = take8(program) % 11;
    struct flow flow = {.local_port = LISTEN_PORT, .remote_port = (uint16_t)(30000 + which % 4), .six = (which & 128) != 0};
    if (world->flow_count > 0 && (which & 64) == 0)
        flow = world->flows[which % world->flow_count];
    uint32_t payload = take16(program) % 1200, head = flow.six ? 54 : 34;
    uint8_t *tcp = frame + head;
    memset(tcp, 0, 20);
    put16(tcp, flow.remote_port);
    put16(tcp + 2, flow.local_port);
    put32(tcp + 4, flow.acknowledgement + (uint32_t)(int8_t)take8(program) * ((which & 32) != 0 ? 1000u : 1u));
    put32(tcp + 8, flow.sequence_next + (uint32_t)(int8_t)take8(program) * ((which & 16) != 0 ? 1000u : 1u));
    tcp[12] = (uint8_t)((5 + options) << 4);
    tcp[13] = flags & 0x3f;
    put16(tcp + 14, take16(program));
    take_bytes(program, tcp + 20, 4u * options);
    memset(tcp + 20 + 4 * options, 'x', payload);
    return put_ip(frame, flow.six, 6, true, 20 + 4u * options + payload);
}

static uint32_t make_error(struct program *program, uint8_t *frame) {
    uint8_t type = take8(program), code = take8(program);
    bool six = (type & 128) != 0;
    struct flow flow = {.local_port = 10000, .remote_port = 25, .six = six};
    if (world->flow_count > 0)
        flow = world->flows[code % world->flow_count];
    uint32_t head = flow.six ? 54 : 34, quoted_head = flow.six ? 40 : 20;
    uint8_t quoted[FRAME_MAX] = {0}, *icmp = frame + head;
    put_ip(quoted, flow.six, 6, true, 20);
    uint8_t *ip = quoted + ETHERNET;
    if (flow.six) {
        memcpy(ip + 8, our_ip6, 16);
        memcpy(ip + 24, far_ip6, 16);
    } else {
        memcpy(ip + 12, our_ip, 4);
        memcpy(ip + 16, far_ip, 4);
    }
    put16(ip + quoted_head, flow.local_port);
    put16(ip + quoted_head + 2, flow.remote_port);
    put32(ip + quoted_head + 4, flow.sequence_next - take8(program));
    memset(icmp, 0, 8);
    icmp[0] = (uint8_t)(flow.six ? 1 + type % 4 : (uint8_t[]){3, 11, 12, 3}[type % 4]);
    icmp[1] = code % 16;
    put16(icmp + 6, take16(program));
    memcpy(icmp + 8, ip, quoted_head + 20);
    return put_ip(frame, flow.six, flow.six ? 58 : 1, true, 8 + quoted_head + 20);
}

static uint32_t make_echo(struct program *program, uint8_t *frame) {
    uint32_t which = take8(program), length = take16(program) % 1400;
    bool six = which & 1;
    uint8_t *icmp = frame + (six ? 54 : 34);
    memset(icmp, 0, 8 + length);
    icmp[0] = six ? 128 : 8;
    return put_ip(frame, six, six ? 58 : 1, which & 2, 8 + length);
}

static uint32_t make_neighbour(struct program *program, uint8_t *frame) {
    uint8_t which = take8(program);
    if ((which & 1) == 0) { /* ARP: a reply of the gateway, a request of the peer, a claim of ours */
        memcpy(frame, which & 2 ? broadcast_mac : our_mac, 6);
        memcpy(frame + 6, peer_mac, 6);
        memcpy(frame + 12, "\x08\x06\0\1\x08\0\6\4\0", 9);
        frame[21] = 1 + (which >> 2) % 2;
        memcpy(frame + 22, peer_mac, 6);
        memcpy(frame + 28, (const uint8_t *[]){gateway_ip, peer_ip, our_ip, gateway_ip}[which >> 3 & 3], 4);
        memset(frame + 32, 0, 6);
        memcpy(frame + 38, our_ip, 4);
        return 42;
    }
    uint8_t *nd = frame + 54;
    memset(nd, 0, 32);
    nd[0] = (uint8_t)(135 + (which >> 1 & 1));
    nd[4] = take8(program);
    memcpy(nd + 8, (const uint8_t *[]){gateway_ip6, peer_ip6, our_ip6, our_link_local}[which >> 2 & 3], 16);
    nd[24] = (uint8_t)(1 + (which >> 1 & 1));
    nd[25] = 1;
    memcpy(nd + 26, peer_mac, 6);
    uint32_t length = put_ip(frame, true, 58, false, which & 16 ? 24 : 32);
    uint8_t *ip = frame + ETHERNET;
    if (which & 32)
        memcpy(ip + 24, our_link_local, 16);
    if (which & 64) {
        memcpy(ip + 24, "\xff\x02\0\0\0\0\0\0\0\0\0\1\xff\0\0\2", 16);
        memcpy(frame, "\x33\x33\xff\0\0\2", 6);
    }
    if (which & 128)
        memset(ip + 8, 0, 16);
    return length;
}

/* One fragment of a datagram of 'y's, or of a segment; places and lengths as the input says. */
static uint32_t make_fragment(struct program *program, uint8_t *frame) {
    uint8_t which = take8(program);
    bool six = which & 1, more = which & 2;
    uint32_t offset = take8(program) * (which & 4 ? 64u : 1u), length = take16(program) % 1400, head = six ? 62 : 34;
    if (more && (which & 8) == 0)
        length &= ~7u;
    memset(frame + head, 'y', length);
    if (offset == 0)
        take_bytes(program, frame + head, length < 40 ? length : 40);
    uint8_t protocol = which & 16 ? 6 : six ? 58 : 1;
    uint32_t total = put_ip(frame, six, six ? 44 : protocol, which & 32, length + (six ? 8 : 0));
    if (six) {
        memset(frame + 54, 0, 8);
        frame[54] = protocol;
        put16(frame + 56, offset * 8 | more);
        put32(frame + 58, which >> 6);
    } else {
        put16(frame + 18, which >> 6);
        put16(frame + 20, (offset & 0x1fff) | (uint32_t)more << 13);
    }
    return total;
}

/* Headers of the input's choice before a segment. */
static uint32_t make_extended(struct program *program, uint8_t *frame) {
    uint32_t first = take8(program), length = take8(program) % 96;
    take_bytes(program, frame + 54, length);
    uint8_t *tcp = frame + 54 + length;
    memset(tcp, 0, 20);
    put16(tcp, 25);
    put16(tcp + 2, LISTEN_PORT);
    tcp[12] = 0x50;
    tcp[13] = TCP_SYN;
    uint32_t total = put_ip(frame, true, (uint8_t)first, true, length + 20);
    put16(tcp + 16, l4_sum(frame + ETHERNET, tcp, 20, 6));
    return total;
}

static void do_tcp(struct program *program) {
    static const uint8_t text[1 << 12] = {'m'};
    uint8_t which = take8(program);
    struct tcp_conn **slot = &world->connections[which % CONNECTIONS];
    struct tcp_piece piece = {.bytes = text, .length = 1 + take16(program) % sizeof text};
    if (*slot == NULL) {
        bool six = which & 32;
        struct tcp_address local = {.family = six ? 6 : 4}, remote = {.family = six ? 6 : 4};
        memcpy(local.bytes, six ? our_ip6 : our_ip, six ? 16 : 4);
        memcpy(remote.bytes, six ? (which & 64 ? far_ip6 : peer_ip6) : (which & 64 ? far_ip : peer_ip), six ? 16 : 4);
        if (tcp_connect(world->stack, &local, &remote, 25, 5000000, world, slot, world->now_us) != 0)
            *slot = NULL;
        return;
    }
    switch (which >> 5 & 3) {
    case 0:
    case 1:
        if (tcp_send(*slot, &piece, 1, world->now_us) == 0)
            tcp_output(*slot, world->now_us);
        return;
    case 2:
        if ((which & 128) != 0)
            tcp_receive_resume(*slot, world->now_us);
        else
            tcp_close(*slot, world->now_us);
        return;
    default:
        tcp_abort(*slot, world->now_us);
    }
}

static void step(struct program *program) {
    static uint8_t frame[FRAME_MAX];
    static uint32_t (*const makers[])(struct program *, uint8_t *) = {make_segment,   make_error,    make_echo,
                                                                      make_neighbour, make_fragment, make_extended};
    uint8_t what = take8(program);
    uint32_t length;
    switch (what & 15) {
    case 0: /* whatever it is */
        length = take16(program) % (FRAME_MAX + 1);
        take_bytes(program, frame, length);
        frame_in(frame, length);
        return;
    case 1: /* whatever it is, for us and with right sums */
        length = take16(program) % (FRAME_MAX - 54);
        take_bytes(program, frame + 12, length);
        memcpy(frame, our_mac, 6);
        memcpy(frame + 6, peer_mac, 6);
        fix_sums(frame, length + 12);
        frame_in(frame, length + 12);
        return;
    case 2:
        world->now_us += (uint64_t)take16(program) * (what & 16 ? 1000 : what & 32 ? 20 : 1);
        tcp_poll(world->stack, 16, world->now_us);
        net_poll(world->net, world->now_us);
        return;
    case 3:
        do_tcp(program);
        return;
    case 4:
        world->queue.handed_over = what & 16;
        world->queue.checksum_good = what & 32;
        world->queue.full = what & 64;
        world->take = what >> 7;
        return;
    default:
        length = makers[((what & 15) - 5) % 6](program, frame);
        frame_in(frame, patch(program, frame, length, what >> 4));
        /* Unless the device lies, the next steps have their sums verified. */
        if (world->queue.checksum_good && (what & 1) != 0)
            world->queue.checksum_good = false;
    }
}

static void begin(uint8_t kind) {
    static struct net_config config;
    memset(&config, 0, sizeof config);
    config = (struct net_config){.interface_count = 1, .workers = kind & 1 ? 3 : 1, .counters = &world->counters, .secret = {1, 2, 3}};
    config.port_first = 10000;
    config.port_span = 1000;
    struct net_interface *interface = &config.interfaces[0];
    interface->queue = &world->queue;
    interface->mtu = MTU;
    memcpy(interface->mac, our_mac, 6);
    interface->address_count = 2;
    interface->addresses[0] = (struct net_address){.address.family = 4, .prefix_length = 24};
    memcpy(interface->addresses[0].address.bytes, our_ip, 4);
    interface->addresses[1] = (struct net_address){.address.family = 6, .prefix_length = 64};
    memcpy(interface->addresses[1].address.bytes, our_ip6, 16);
    interface->gateway.family = 4;
    memcpy(interface->gateway.bytes, gateway_ip, 4);
    interface->gateway6.family = 6;
    memcpy(interface->gateway6.bytes, gateway_ip6, 16);
    world->net = net_create(&config, world->now_us);
    check(world->net != NULL);
    struct tcp_config tcp = {
        .max_connections = CONNECTIONS,
        .max_segments_in_flight = 64,
        .max_ranges = 32,
        .max_time_wait = 8,
        .max_receive_blocks = 32,
        .max_half_open = 4,
        .receive_buffer_bytes = 16384,
        .mtu = MTU,
        .port_first = 10000,
        .port_last = 10999,
        .keepalive_us = kind & 2 ? 60000000 : 0,
        .secret = {1},
        .transmit = net_transmit,
        .network = world->net,
        .choose_ports = net_choose_ports,
        .unknown = net_unknown,
        .events = {on_connected, on_received, on_peer_closed, on_acknowledged, on_closed, on_accepted},
    };
    world->stack = tcp_stack_create(&tcp, world->now_us);
    check(world->stack != NULL);
    net_attach(world->net, world->stack);
    struct tcp_address any = {.family = 4};
    check(tcp_listen(world->stack, &any, LISTEN_PORT, world) == 0);
    any.family = 6;
    check(tcp_listen(world->stack, &any, LISTEN_PORT, world) == 0);
    /* Both gateways are known: what waits for them is the rarer case, and has its own steps. */
    static const uint8_t arp[42] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 9, 10, 99, 0, 1};
    uint8_t frame[FRAME_MAX];
    struct program nd = {.bytes = (const uint8_t[]){3 | 32, 0x60}, .left = 2};
    memcpy(frame, arp, sizeof arp);
    memcpy(frame + 38, our_ip, 4);
    if ((kind & 4) == 0) {
        frame_in(frame, sizeof arp);
        uint32_t length = make_neighbour(&nd, frame);
        fix_sums(frame, length);
        frame_in(frame, length);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct world here;
    if (size < 2 || size > PROGRAM_MAX)
        return 0;
    memset(&here, 0, sizeof here);
    world = &here;
    world->take = 1;
    world->now_us = 1000000000;
    begin(data[0]);
    struct program program = {.bytes = data + 1, .left = size - 1};
    for (uint32_t steps = 0; program.left > 0 && steps < STEP_LIMIT; steps++)
        step(&program);
    world->queue.full = false;
    for (uint32_t i = 0; i < 20; i++) {
        world->now_us += 100000;
        tcp_poll(world->stack, 64, world->now_us);
        net_poll(world->net, world->now_us);
    }
    tcp_stack_destroy(world->stack);
    net_destroy(world->net);
    return 0;
}
