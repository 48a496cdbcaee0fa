/* world.c: time goes from event to event: segments arrive, timers fire, applications act; after each step every rule is looked at. */
#include "world.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    STEPS_MAX = 4 * 1000 * 1000,
    HEADERS_V4 = 40,
    HEADERS_V6 = 60,
    TIME_WAIT_US = 59 * 1000 * 1000,
    TIME_WAIT_LEAST_US = 990 * 1000, /* with timestamps (RFC 6191), within a tick */
    FLOOD = 24,                      /* blind segments at once */
    OLD_TEXT_ANSWERS = 32,           /* in half a second, */
    OLD_TEXT_BYTES = 512,            /* or one for so much of the window */
    FLOOD_ANSWERS_MOST = 2,          /* RFC 5961 section 7: challenge ACKs are limited */
};
#define WORLD_END_US (48ULL * 3600 * 1000 * 1000)

static _Alignas(4096) uint8_t streams[2][STREAM_MAX + STREAM_SKEW * LINKS_MAX];

void world_streams(void) {
    struct sim_random random;
    random_seed(&random, 0);
    for (uint32_t i = 0; i < sizeof(streams[0]); i++) {
        streams[0][i] = (uint8_t)random_next(&random);
        streams[1][i] = (uint8_t)random_next(&random);
    }
}

const uint8_t *world_stream(const struct side *side) {
    return streams[side->index] + (size_t)side->link->index * STREAM_SKEW;
}

void world_fail(struct world *world, const struct side *side, const char *what) {
    if (world->failure[0] != '\0') {
        return;
    }
    if (side == NULL) {
        snprintf(world->failure, sizeof(world->failure), "%s", what);
    } else {
        snprintf(world->failure, sizeof(world->failure), "link %u side %u: %s", side->link->index, side->index, what);
    }
}

static uint32_t side_iss(const struct side *side) {
    return side->is_model ? side->peer.iss : side->checker.iss;
}

static void trace(const struct side *from, const struct segment *segment, const char *fate) {
    const struct world *world = from->link->world;
    const struct side *to = &from->link->sides[1 - from->index];
    if (!world->trace) {
        return;
    }
    struct segment_options options;
    segment_options_parse(&options, segment);
    printf("%12.6f link %u %s %c%c%c%c seq %d len %u ack %d win %u", (double)(world->now_us - world->begun_us) / 1e6, from->link->index,
           from->index == 0 ? "-->" : "<--", segment->flags & SEGMENT_SYN ? 'S' : '-', segment->flags & SEGMENT_FIN ? 'F' : '-',
           segment->flags & SEGMENT_RST ? 'R' : '-', segment->flags & SEGMENT_ACK ? 'A' : '-', (int)(segment->sequence - side_iss(from)),
           segment->length, (int)(segment->acknowledgement - side_iss(to)), segment->window);
    for (uint32_t i = 0; i < options.block_count; i++) {
        printf(" sack %d-%d", (int)(options.blocks[i].left - side_iss(to)), (int)(options.blocks[i].right - side_iss(to)));
    }
    printf(" %s\n", fate);
}

static bool same_name(const struct side *side, const struct tcp_segment *segment) {
    const struct side *other = &side->link->sides[1 - side->index];
    return side->link->birth > 0 && side->port == segment->local_port && other->port == segment->remote_port &&
           memcmp(&side->address, &segment->local, sizeof(side->address)) == 0 &&
           memcmp(&other->address, &segment->remote, sizeof(other->address)) == 0;
}

/* Whose segment it is: the latest connection of this name that has begun to speak; *raw: none has. */
static struct side *find_side(struct host *host, const struct tcp_segment *segment, bool *raw) {
    struct world *world = host->world;
    struct side *named = NULL, *found = NULL;
    bool syn_ack = (segment->flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK);
    *raw = false;
    if (world->connecting != NULL && segment->flags == TCP_SYN) {
        struct side *side = &world->connecting->sides[0];
        side->port = segment->local_port;
        world->connecting->birth = ++world->births;
        return side;
    }
    for (uint32_t i = 0; i < world->link_count; i++) {
        for (uint32_t s = 0; s < 2; s++) {
            struct side *side = &world->links[i].sides[s];
            if (side->is_model || side->host != host || !same_name(side, segment)) {
                continue;
            }
            bool answers = s == 1 && syn_ack && segment->acknowledgement == side_iss(side_other(side)) + 1;
            if (answers && side->checker.syn_sent && segment->sequence != side->checker.iss && !side->app.begun) {
                checker_restart(&side->checker); /* its handshake had made room for others */
            }
            if (side->ghost && segment->sequence - side->ghost_iss <= 1) {
                named = side;
                continue;
            }
            bool speaks = s == 0 || (side->checker.syn_sent ? !syn_ack || segment->sequence == side->checker.iss : answers);
            if (speaks && (found == NULL || side->link->birth > found->link->birth)) {
                found = side;
            }
            named = side;
        }
    }
    *raw = found == NULL;
    return found != NULL ? found : named;
}

/* ICMP goes back to who sent the packet, if it is not lost itself. */
static void router_says(struct side *from, const struct segment *segment, uint16_t mtu) {
    struct world *world = from->link->world;
    const struct wire_path *back = &from->link->paths[1 - from->index];
    if (from->is_model || random_chance(&world->random, back->loss)) {
        return;
    }
    struct wire_event event = {
        .kind = WIRE_ICMP, .link = from->link->index, .to = from->index, .mtu = mtu, .segment = {.sequence = segment->sequence}};
    wire_push(&world->wire, &event, world->now_us + back->delay_us);
}

static void carry(struct side *from, const struct segment *segment, enum wire_kind kind) {
    struct world *world = from->link->world;
    struct wire_event event = {.kind = kind, .link = from->link->index, .to = (uint8_t)(1 - from->index), .segment = *segment};
    uint16_t mtu;
    uint64_t strip_at_us = from->link->paths[from->index].strip_at_us;
    if (strip_at_us != 0 && world->now_us >= strip_at_us && (segment->flags & SEGMENT_SYN) == 0) {
        segment_options_strip_timestamps(&event.segment);
    }
    enum wire_fate fate = wire_carry(&world->wire, &from->link->paths[from->index], &world->random, &event,
                                     from->address.family == 4 ? HEADERS_V4 : HEADERS_V6, world->now_us, &mtu);
    trace(from, segment, wire_fate_text(fate));
    if (mtu != 0) {
        router_says(from, segment, mtu);
    }
}

void world_carry(struct side *from, const struct segment *segment) {
    carry(from, segment, WIRE_SEGMENT);
}

/* What the device makes of a super-segment (TSO): the flags of the last segment only on the last. */
static void carry_split(struct side *from, const struct segment *whole, uint32_t segment_bytes) {
    for (uint32_t at = 0; at < whole->length; at += segment_bytes) {
        struct segment part = *whole;
        uint32_t left = whole->length - at;
        part.length = left < segment_bytes ? left : segment_bytes;
        part.sequence += at;
        part.payload += at;
        if (at + part.length < whole->length) {
            part.flags &= (uint8_t) ~(SEGMENT_FIN | SEGMENT_PSH);
        }
        world_carry(from, &part);
    }
}

int world_transmit(void *network, const struct tcp_segment *segment) {
    struct host *host = network;
    struct world *world = host->world;
    static uint8_t payload[SEGMENT_PAYLOAD_MAX];
    bool raw;
    struct side *side = find_side(host, segment, &raw);
    struct segment out;
    if (side == NULL) {
        world_fail(world, NULL, "a segment of no connection");
        return 0;
    }
    if (!segment_take(&out, segment, payload)) {
        world_fail(world, side, "payload_length is not the sum of the pieces");
        return 0;
    }
    if (random_chance(&world->random, world->busy)) {
        return -EAGAIN;
    }
    /* An old SYN may reach the listener again: it cannot know. */
    bool old_syn = side->index == 1 && ((out.flags & SEGMENT_SYN) != 0 || (side->ghost && out.sequence == side->ghost_iss + 1));
    if (raw && old_syn && (out.flags & SEGMENT_SYN) != 0) {
        side->ghost = true;
        side->ghost_iss = out.sequence;
    }
    host->answers += (out.flags & SEGMENT_RST) == 0;
    if (raw && (((out.flags & SEGMENT_RST) == 0 && !old_syn) || out.length > 0)) {
        world_fail(world, side, "a segment of no connection that is no reset");
    }
    if (out.may_fragment && segment->local.family == 6) {
        world_fail(world, side, "IPv6 has no fragments on the way");
    }
    if (!raw) {
        checker_sends(&side->checker, &out, segment->first_transmission, segment->segment_bytes, world->now_us);
    }
    if (side->checker.opened && random_chance(&world->random, world->unreachable)) {
        return -EHOSTUNREACH; /* as if lost on the way */
    }
    if (segment->segment_bytes > 0 && out.length > segment->segment_bytes) {
        carry_split(side, &out, segment->segment_bytes);
    } else {
        carry(side, &out, raw && (out.flags & SEGMENT_RST) == 0 ? WIRE_STRANGER : WIRE_SEGMENT);
    }
    return 0;
}

static bool same_ends(const struct link *a, const struct link *b) {
    for (int i = 0; i < 2; i++) {
        if (a->sides[i].port != b->sides[i].port || memcmp(&a->sides[i].address, &b->sides[i].address, sizeof(struct tcp_address)) != 0) {
            return false;
        }
    }
    return a->birth > 0 && b->birth > 0;
}

void world_check_reuse(const struct side *opener) {
    const struct world *world = opener->link->world;
    for (uint32_t i = 0; i < world->link_count; i++) {
        const struct link *older = &world->links[i];
        const struct side *side = &older->sides[0];
        bool stamps = side->checker.ours.timestamps && side->checker.theirs.timestamps;
        if (older->birth < opener->link->birth && same_ends(older, opener->link) && !side->is_model && side->app.closed > 0 &&
            side->app.error == TCP_OK && side->checker.ended_first &&
            world->now_us < side->app.closed_at_us + (stamps ? TIME_WAIT_LEAST_US : TIME_WAIT_US)) {
            world_fail(opener->link->world, opener, "a port in TIME_WAIT was used too early");
        }
    }
}

static void give_stack(struct side *to, const struct segment *segment, bool stranger) {
    struct world *world = to->link->world;
    struct side *from = side_other(to);
    uint32_t length;
    uint8_t *bytes = segment_encode(segment, from->port, to->port, &length);
    if (stranger) {
        checker_disturbed(&to->checker, world->now_us);
    } else {
        checker_takes(&to->checker, segment, world->now_us);
    }
    /* A later connection by the same name may be the one that gets it. */
    for (uint32_t i = 0; i < world->link_count; i++) {
        if (world->links[i].birth > to->link->birth && same_ends(to->link, &world->links[i])) {
            checker_disturbed(&world->links[i].sides[to->index].checker, world->now_us);
        }
    }
    struct tcp_packet packet = {.local = to->address, .remote = from->address, .header = bytes, .length = length};
    tcp_input(to->host->stack, &packet, world->now_us);
    checker_taken(&to->checker);
    free(bytes);
}

/* A model's host has one model for each connection: an older one of the same name that is not done comes first. */
static struct side *living_model(struct side *to) {
    struct world *world = to->link->world;
    for (uint32_t i = 0; to->peer.state == MODEL_LISTEN && i < world->link_count; i++) {
        struct side *older = &world->links[i].sides[to->index];
        if (older->is_model && world->links[i].birth < to->link->birth && same_ends(to->link, &world->links[i]) &&
            older->peer.state != MODEL_LISTEN && !model_done(&older->peer)) {
            return older;
        }
    }
    return to;
}

static void deliver(struct world *world, const struct wire_event *event) {
    struct side *to = &world->links[event->link].sides[event->to];
    if (event->kind == WIRE_ICMP) {
        if (world->trace) {
            printf("%12.6f link %u ICMP to side %u: mtu %u seq %d\n", (double)(world->now_us - world->begun_us) / 1e6, event->link,
                   event->to, event->mtu, (int)(event->segment.sequence - side_iss(to)));
        }
        checker_disturbed(&to->checker, world->now_us);
        tcp_input_error(to->host->stack, &to->address, to->port, &side_other(to)->address, side_other(to)->port, event->segment.sequence,
                        event->hard, event->mtu, world->now_us);
        return;
    }
    if (world->trace) {
        const struct segment *segment = &event->segment;
        printf("%12.6f link %u got %s seq %d len %u ack %d\n", (double)(world->now_us - world->begun_us) / 1e6, event->link,
               event->to == 1 ? "-->" : "<--", (int)(segment->sequence - side_iss(side_other(to))), segment->length,
               (int)(segment->acknowledgement - side_iss(to)));
    }
    if (to->is_model && event->kind == WIRE_STRANGER) {
        return; /* a model believes what it hears */
    }
    if (to->is_model) {
        model_input(&living_model(to)->peer, &event->segment, world->now_us);
    } else {
        give_stack(to, &event->segment, event->kind == WIRE_STRANGER);
    }
}

static struct side *open_side(struct world *world) {
    struct side *side = &world->links[random_range(&world->random, 0, world->link_count - 1)].sides[random_range(&world->random, 0, 1)];
    return side->is_model || !side->app.connected || side->app.closed > 0 || !side->checker.opened ? NULL : side;
}

/* Segments from one who sees neither side's numbers (RFC 5961): they may earn an answer, and change nothing. */
static void inject_strangers(struct world *world) {
    static const uint8_t kinds[] = {
        SEGMENT_RST, SEGMENT_RST | SEGMENT_ACK, SEGMENT_SYN, SEGMENT_SYN | SEGMENT_ACK, SEGMENT_FIN | SEGMENT_ACK, SEGMENT_ACK};
    static uint8_t nonsense[64];
    struct sim_random *random = &world->random;
    struct side *side = open_side(world);
    if (side == NULL) {
        return;
    }
    struct checker *checker = &side->checker;
    struct segment blind = {.sequence = checker->offered_edge + 1000000 + (uint32_t)(random_next(random) & 0x3fffffff),
                            .acknowledgement = (uint32_t)random_next(random),
                            .window = (uint16_t)random_next(random),
                            .flags = kinds[random_range(random, 0, 5)],
                            .payload = nonsense};
    bool in_window = random_chance(random, 400) && sequence_diff(checker->offered_edge, checker->last_ack) > 3;
    if (in_window) {
        uint32_t most = checker->offered_edge - checker->last_ack - 1;
        blind.sequence = checker->last_ack + random_range(random, 1 + (most > 2 ? most / 2 : 0), most);
        /* The next number expected may have moved past last_ack, but never so that the peer's own reset is hit. */
        uint32_t peer_sent = side_other(side)->is_model ? side_other(side)->peer.max : side_other(side)->checker.snd_max;
        if (sequence_diff(blind.sequence, peer_sent) <= 0) {
            return;
        }
        if ((blind.flags & (SEGMENT_RST | SEGMENT_SYN)) == 0) { /* text in the window is refused by its acknowledgement (section 5) */
            blind.acknowledgement = checker->snd_max + random_range(random, 1, 1 << 30);
        }
    }
    blind.length = (blind.flags & (SEGMENT_RST | SEGMENT_SYN)) == 0 && random_chance(random, 500) ? random_range(random, 1, 64) : 0;
    bool challenges = in_window && (blind.flags & (SEGMENT_RST | SEGMENT_SYN)) != 0;
    bool floods = (challenges || (blind.flags & SEGMENT_SYN) != 0) && tcp_is_open(side->app.conn); /* a listener answers SYNs */
    uint32_t count = floods && random_chance(random, 300) ? FLOOD : 1;
    uint64_t before = side->host->answers;
    for (uint32_t i = 0; i < count; i++) {
        give_stack(side, &blind, true);
    }
    if (count > 1 && side->host->answers - before > FLOOD_ANSWERS_MOST) {
        world_fail(world, side, "answers a flood of blind segments without a limit");
    }
}

/* A segment for a port of another worker: it goes there, and nothing is answered here. */
static void inject_foreign(struct world *world, struct host *host) {
    static const struct tcp_address local = {.family = 4, .bytes = {192, 0, 2, 1}}, remote = {.family = 4, .bytes = {198, 51, 100, 1}};
    struct segment stray = {.sequence = (uint32_t)random_next(&world->random), .flags = SEGMENT_ACK};
    uint32_t length;
    uint64_t handed = host->handed, sent = tcp_stack_counters(host->stack)->segments_out;
    uint8_t *bytes = segment_encode(&stray, 25, scenario_foreign_port(host, random_range(&world->random, 0, UINT16_MAX)), &length);
    tcp_input(host->stack, &(struct tcp_packet){.local = local, .remote = remote, .header = bytes, .length = length}, world->now_us);
    free(bytes);
    if (host->handed != handed + 1 || tcp_stack_counters(host->stack)->segments_out != sent) {
        world_fail(world, NULL, "a segment of another worker was not handed on, or was answered");
    }
}

/* Old text of this connection, or of an earlier one by its name: acknowledged, but not each of a flood (RFC 9293 3.10.7.4). */
static void inject_old_text(struct world *world) {
    static uint8_t nonsense[64];
    struct sim_random *random = &world->random;
    struct side *side = open_side(world);
    if (side == NULL) {
        return;
    }
    struct checker *checker = &side->checker;
    uint32_t got = checker->last_ack - checker->irs - 1, length = random_range(random, 1, sizeof(nonsense));
    bool earlier = got < length || random_chance(random, 300);
    struct segment old = {.sequence = earlier ? checker->irs + 1 - length - random_range(random, 0, 5000)
                                              : checker->irs + 1 + random_range(random, 0, got - length),
                          .acknowledgement = checker->acked_max,
                          .flags = SEGMENT_ACK,
                          .length = length,
                          .payload = nonsense};
    uint32_t limit = side->host->config.receive_buffer_bytes / OLD_TEXT_BYTES;
    limit = limit < OLD_TEXT_ANSWERS ? OLD_TEXT_ANSWERS : limit;
    uint32_t count = random_chance(random, 200) ? limit + FLOOD : 1;
    uint64_t before = side->host->answers;
    for (uint32_t i = 0; i < count; i++) {
        give_stack(side, &old, true);
    }
    if (side->host->answers - before > limit) {
        world_fail(world, side, "answers a flood of old text without a limit");
    }
}

/* The sequence numbers have gone once around: in the window, acknowledging what is in flight, with other bytes. Only the timestamp tells
 * (RFC 7323 section 5). */
static void inject_wrapped(struct world *world) {
    static uint8_t nonsense[64];
    struct sim_random *random = &world->random;
    struct side *side = open_side(world);
    struct checker *checker = side == NULL ? NULL : &side->checker;
    if (side == NULL || !checker->ours.timestamps || !checker->theirs.timestamps ||
        sequence_diff(checker->offered_edge, checker->last_ack) <= 0) {
        return;
    }
    uint32_t window = checker->offered_edge - checker->last_ack;
    struct segment old = {.sequence = checker->last_ack + (random_chance(random, 500) ? 0 : random_range(random, 0, window - 1)),
                          .acknowledgement = checker->acked_max,
                          .window = (uint16_t)random_next(random),
                          .flags = SEGMENT_ACK,
                          .length = random_range(random, 1, sizeof(nonsense)),
                          .payload = nonsense};
    for (uint32_t i = 0; i < sizeof(nonsense); i++) {
        nonsense[i] = (uint8_t)random_next(random);
    }
    segment_options_timestamps(&old, checker->theirs.ts_value - random_range(random, 1, 1 << 30), 0);
    give_stack(side, &old, true);
}

/* ICMP errors: forged ones, which change nothing, and true ones, which change nothing either once the connection is established. */
static void inject_icmp(struct world *world) {
    struct sim_random *random = &world->random;
    struct side *side = open_side(world);
    if (side == NULL) {
        return;
    }
    struct checker *checker = &side->checker;
    bool forged = random_chance(random, 500);
    uint32_t flight = checker->snd_max - checker->acked_max;
    uint32_t sequence = forged       ? checker->snd_max + random_range(random, 1, 1 << 30)
                        : flight > 0 ? checker->acked_max + random_range(random, 0, flight - 1)
                                     : checker->snd_max;
    uint16_t mtu = forged && random_chance(random, 500) ? (uint16_t)random_range(random, 1, 1500) : 0;
    tcp_input_error(side->host->stack, &side->address, side->port, &side_other(side)->address, side_other(side)->port, sequence,
                    random_chance(random, 500), mtu, world->now_us);
}

/* One who sees the numbers in flight claims that the path is small (RFC 5927 section 7): believed down to what IP must carry, and once. */
static void inject_small_path(struct world *world) {
    struct sim_random *random = &world->random;
    struct side *side = open_side(world);
    if (side == NULL || side->checker.snd_max == side->checker.acked_max) {
        return;
    }
    struct checker *checker = &side->checker;
    uint32_t sequence = checker->acked_max + random_range(random, 0, checker->snd_max - checker->acked_max - 1);
    uint16_t mtu = (uint16_t)random_range(random, 2, WORLD_MTU);
    checker_disturbed(checker, world->now_us);
    for (uint32_t i = 0; i < FLOOD; i++) {
        uint64_t before = side->host->answers;
        tcp_input_error(side->host->stack, &side->address, side->port, &side_other(side)->address, side_other(side)->port, sequence, false,
                        mtu, world->now_us);
        if (i > 0 && side->host->answers != before && world->busy == 0 && world->unreachable == 0) {
            world_fail(world, side, "sends for the same ICMP error again");
        }
    }
}

static void check_broken(struct world *world, struct side *side) {
    if (side->is_model) {
        if (side->peer.complaint != NULL) {
            world_fail(world, side, side->peer.complaint);
        }
        return;
    }
    checker_pass(&side->checker, world->now_us);
    if (side->checker.broken != NULL) {
        world_fail(world, side, side->checker.broken);
    }
}

static void start_link(struct link *link) {
    struct side *opener = &link->sides[0];
    if (!opener->is_model) {
        app_start(opener);
        return;
    }
    link->birth = ++link->world->births;
    link->start_at = NEVER;
    model_open(&opener->peer, link->world->now_us);
}

static void side_time(struct side *side) {
    struct world *world = side->link->world;
    if (side->is_model) {
        if (model_next(&side->peer) <= world->now_us) {
            model_timer(&side->peer, world->now_us);
        }
    } else if (side->app.act_at <= world->now_us) {
        app_act(side);
    }
}

static uint64_t next_time(const struct world *world) {
    uint64_t next = wire_next(&world->wire);
    for (uint32_t i = 0; i < 2; i++) {
        next = world->hosts[i].poll_at < next ? world->hosts[i].poll_at : next;
    }
    for (uint32_t i = 0; i < world->link_count; i++) {
        const struct link *link = &world->links[i];
        next = link->start_at < next ? link->start_at : next;
        for (uint32_t s = 0; s < 2; s++) {
            const struct side *side = &link->sides[s];
            uint64_t at = side->is_model ? model_next(&side->peer) : side->app.act_at;
            next = at < next ? at : next;
        }
    }
    return next;
}

static void world_step(struct world *world) {
    uint64_t next = next_time(world);
    world->now_us = next > world->now_us && next != NEVER ? next : world->now_us;
    while (wire_next(&world->wire) <= world->now_us + world->burst_us) {
        struct wire_event *event = wire_pop(&world->wire);
        deliver(world, event);
        wire_event_free(event);
    }
    for (uint32_t i = 0; i < world->link_count; i++) {
        struct link *link = &world->links[i];
        if (link->start_at <= world->now_us) {
            start_link(link);
        }
        side_time(&link->sides[0]);
        side_time(&link->sides[1]);
    }
    if (random_chance(&world->random, world->strangers)) {
        struct host *host = &world->hosts[random_range(&world->random, 0, 1)];
        if (host->steered) {
            inject_foreign(world, host);
        }
        switch (random_range(&world->random, 0, 3)) {
        case 0:
            inject_old_text(world);
            break;
        case 1:
            inject_wrapped(world);
            break;
        default:
            inject_strangers(world);
        }
    }
    if (random_chance(&world->random, world->icmp)) {
        if (random_chance(&world->random, 100)) {
            inject_small_path(world);
        } else {
            inject_icmp(world);
        }
    }
    for (uint32_t i = 0; i < 2; i++) {
        struct host *host = &world->hosts[i];
        if (host->stack != NULL) {
            host->poll_at = tcp_poll(host->stack, random_range(&world->random, 1, 64), world->now_us);
        }
    }
    for (uint32_t i = 0; i < world->link_count; i++) {
        check_broken(world, &world->links[i].sides[0]);
        check_broken(world, &world->links[i].sides[1]);
    }
    if (world->wire.overflow) {
        world_fail(world, NULL, "more segments on the wire than a world holds");
    }
}

/* Where the stack's side never began (its handshake made room for another) and the reset that says so was lost, a model that has nothing to
 * say waits for nothing. */
static bool side_over(struct side *side) {
    if (side->is_model) {
        return true; /* a model's own timers end when the stack's side has */
    }
    return side->app.begun              ? side->app.closed > 0
           : side_other(side)->is_model ? model_done(&side_other(side)->peer) || model_next(&side_other(side)->peer) == NEVER
                                        : side_other(side)->app.closed > 0;
}

static bool world_over(struct world *world) {
    for (uint32_t i = 0; i < world->link_count; i++) {
        struct link *link = &world->links[i];
        if (link->start_at != NEVER || !side_over(&link->sides[0]) || !side_over(&link->sides[1])) {
            return false;
        }
    }
    return world->hosts[0].poll_at == NEVER && world->hosts[1].poll_at == NEVER && world->wire.count == 0;
}

static void judge(struct world *world) {
    for (uint32_t i = 0; i < world->link_count; i++) {
        for (uint32_t s = 0; s < 2; s++) {
            if (!world->links[i].sides[s].is_model) {
                app_judge(&world->links[i].sides[s]);
            }
        }
    }
    for (uint32_t i = 0; i < 2; i++) {
        struct tcp_usage usage = {0};
        if (world->hosts[i].stack != NULL) {
            tcp_stack_usage(world->hosts[i].stack, &usage);
        }
        if (memcmp(&usage, &(struct tcp_usage){0}, sizeof(usage)) != 0) {
            snprintf(world->failure, sizeof(world->failure),
                     "records were left in a pool: %u connections, %u ranges, %u in flight, %u blocks, %u TIME_WAIT, %u pairs, %u ports",
                     usage.connections, usage.ranges, usage.segments_in_flight, usage.receive_blocks, usage.time_wait, usage.pairs,
                     usage.port_blocks);
        }
    }
    if (world->owners != 0) {
        world_fail(world, NULL, "an owner was not released");
    }
}

static void add_totals(struct world *world, struct totals *totals) {
    for (uint32_t i = 0; i < 2; i++) {
        if (world->hosts[i].stack == NULL) {
            continue;
        }
        const struct tcp_counters *counters = tcp_stack_counters(world->hosts[i].stack);
        totals->segments += counters->segments_out;
        totals->handed += world->hosts[i].handed;
        totals->fast += counters->retransmits_fast;
        totals->timeouts += counters->retransmits_timeout;
        totals->out_of_order += counters->out_of_order;
        totals->duplicates += counters->duplicates;
        totals->challenges += counters->challenge_acks;
        totals->time_wait += counters->time_wait;
        totals->pool_exhausted += counters->pool_exhausted;
        totals->refused += counters->refused;
        totals->resets += counters->resets_received;
        totals->accepted += counters->accepted;
        totals->tail_probes += counters->tail_probes;
        totals->spurious += counters->spurious_recoveries;
        totals->mtu_lowered += counters->path_mtu_lowered;
        totals->black_holes += counters->black_holes;
        totals->keepalives += counters->keepalives;
    }
    for (uint32_t i = 0; i < world->link_count; i++) {
        const struct link *link = &world->links[i];
        totals->links++;
        for (uint32_t s = 0; s < 2; s++) {
            totals->sack_blocks += link->sides[s].checker.sack_blocks;
            totals->completed += !link->sides[s].is_model && link->sides[s].app.closed > 0 && link->sides[s].app.error == TCP_OK;
        }
    }
}

const char *world_run(struct world *world, uint64_t seed, bool traced, struct totals *totals) {
    memset(world, 0, sizeof(*world));
    world->seed = seed;
    world->trace = traced;
    random_seed(&world->random, seed);
    if (!scenario_draw(world)) {
        world_fail(world, NULL, "no stack");
    }
    uint64_t end = world->now_us + WORLD_END_US;
    for (uint32_t step = 0; world->failure[0] == '\0' && !world_over(world); step++) {
        world_step(world);
        if (step == STEPS_MAX || world->now_us > end) {
            world_fail(world, NULL, "it goes on for ever");
        }
    }
    if (world->failure[0] == '\0') {
        judge(world);
    }
    while (world->wire.count > 0) {
        wire_event_free(wire_pop(&world->wire));
    }
    add_totals(world, totals);
    tcp_stack_destroy(world->hosts[0].stack);
    tcp_stack_destroy(world->hosts[1].stack);
    for (uint32_t i = 0; i < world->link_count; i++) {
        for (uint32_t s = 0; s < 2; s++) {
            model_free(&world->links[i].sides[s].peer);
            checker_free(&world->links[i].sides[s].checker);
        }
    }
    return world->failure[0] == '\0' ? NULL : world->failure;
}
