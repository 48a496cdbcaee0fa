/* scenario.c: what a seed stands for: hosts, wires, connections, and the habits of everyone on them. */
#include "world.h"

#include <string.h>

enum {
    HEADERS_V4 = 40,
    HEADERS_V6 = 60,
    SHARE_STACKS = 450,  /* per thousand: both ends are the stack */
    SHARE_PASSIVE = 300, /* of connections with a model: the model opens */
    TINY_BUFFER = 3000,
    FILL_SLACK_US = 30000,
    PORTS_FEW = 2,
    CLASSES = 4,
    CLASS_PORTS = 16,
    CLASS_PORT_FIRST = 20000,
    PATH_MTU_MIN_V4 = 576,
    PATH_MTU_MIN_V6 = 1280, /* RFC 8200 section 5 */
};

static const uint8_t prefix_v6[2][8] = {{0x20, 0x01, 0x0d, 0xb8, 0, 1}, {0x20, 0x01, 0x0d, 0xb8, 0, 2}};

static struct tcp_address address_of(uint32_t host, uint8_t family, uint8_t number) {
    struct tcp_address address = {.family = family};
    if (family == 4) {
        memcpy(address.bytes, host == 0 ? (uint8_t[]){192, 0, 2, number} : (uint8_t[]){198, 51, 100, number}, 4);
    } else {
        memcpy(address.bytes, prefix_v6[host], sizeof(prefix_v6[host]));
        address.bytes[15] = number;
    }
    return address;
}

static void model_emit(void *context, const struct segment *segment) {
    world_carry(context, segment);
}

/* One direction of a path. `kind`: 0 clean, 1 loss alone, 2 everything. */
static void draw_path(struct world *world, struct wire_path *path, uint32_t kind, uint32_t delay_us) {
    struct sim_random *random = &world->random;
    *path = (struct wire_path){.delay_us = delay_us};
    if (kind == 0) {
        return;
    }
    path->loss = random_chance(random, 500) ? random_range(random, 0, 30) : random_range(random, 0, 200);
    if (random_chance(random, 200)) {
        path->loss /= 4;
        path->burst_begins = random_range(random, 1, 30);
        path->burst_most_us = random_range(random, 1000, 1000000);
    }
    if (kind == 1) {
        return;
    }
    path->duplicate = random_range(random, 0, 60);
    path->reorder = random_range(random, 0, 300);
    path->jitter_us = random_range(random, 1, delay_us * 3);
    path->corrupt = random_chance(random, 200) ? random_range(random, 1, 20) : 0;
    path->ack_loss = random_chance(random, 200) ? random_range(random, 1, 600) : 0;
}

/* A path that takes less than the device does, from the start or from some moment on, and a router that says so or does not. */
static void draw_mtu(struct world *world, struct wire_path *path, uint8_t family) {
    struct sim_random *random = &world->random;
    uint16_t mtu = (uint16_t)random_range(random, family == 4 ? PATH_MTU_MIN_V4 : PATH_MTU_MIN_V6, WORLD_MTU - 1);
    path->icmp = random_chance(random, 500);
    path->mtu = random_chance(random, 500) ? mtu : 0;
    path->mtu_then = random_chance(random, 300) ? 0 : mtu;
    path->mtu_at_us = world->now_us + random_range(random, 1, 3000000);
}

static void draw_bottleneck(struct world *world, struct wire_path *path) {
    path->bytes_per_ms = random_range(&world->random, 50, 3000);
    path->queue_us = random_range(&world->random, 5000, 200000);
}

static void draw_app(struct world *world, struct app *app, uint32_t most_bytes) {
    struct sim_random *random = &world->random;
    app->stream_bytes = random_chance(random, 100) ? 0 : random_range(random, 1, most_bytes);
    app->lazy = random_chance(random, 300);
    app->pauses = random_chance(random, 200);
    app->most_unacknowledged = random_range(random, 1, 200000);
    app->abort_at = random_chance(random, 40) ? random_range(random, 1, app->stream_bytes + 1) : UINT32_MAX;
    app->act_at = NEVER;
    app->user_timeout_us = random_chance(random, 60) ? random_range(random, 20, 90) * 1000000ULL : 0;
}

static void draw_habits(struct world *world, struct side *side) {
    struct sim_random *random = &world->random;
    static const uint16_t sizes[] = {0, 88, 300, 536, 1000, 1460, 1460, 1440, 9000};
    static const uint32_t buffers[] = {1, 20, 700, 3000, 16384, 65535, 65535, 1000000, 1000000};
    static const uint32_t acks[] = {1, 1, 2, 2, 2, 3, 8, 30};
    struct model_habits *habits = &side->peer.habits;
    *habits = (struct model_habits){.mss = sizes[random_range(random, 0, 8)],
                                    .mss_default = side->address.family == 4 ? MODEL_MSS_DEFAULT_V4 : MODEL_MSS_DEFAULT_V6,
                                    .shift = (int)random_range(random, 0, 10) - 1,
                                    .timestamps = random_chance(random, 500),
                                    .sack = random_chance(random, 700),
                                    .duplicate_sack = random_chance(random, 600),
                                    .buffer_bytes = buffers[random_range(random, 0, 8)],
                                    .window_updates = random_chance(random, 700),
                                    .ack_every = acks[random_range(random, 0, 7)],
                                    .ack_delay_us = random_range(random, 1000, 200000),
                                    .segment_bytes = random_chance(random, 300) ? random_range(random, 1, 200) : 1460,
                                    .segments_in_flight = random_range(random, 1, 12)};
    if (habits->shift > 0 && habits->buffer_bytes < TINY_BUFFER) {
        habits->shift = 0; /* a window that the unit hides would never open */
    }
    if (random_chance(random, 300)) {
        habits->read_every_us = random_range(random, 1000, 300000);
        habits->read_bytes = random_chance(random, 500) ? 0 : random_range(random, 1, habits->buffer_bytes);
    }
    habits->renege = random_chance(random, 80) ? random_range(random, 1, 100) : 0;
    habits->sack_lies = random_chance(random, 80) ? random_range(random, 10, 1000) : 0;
    habits->shrinks = random_chance(random, 80) && habits->buffer_bytes >= TINY_BUFFER ? random_range(random, 1, 300) : 0;
    habits->send_bytes = random_chance(random, 100) ? 0 : random_range(random, 1, habits->segment_bytes * 60);
    habits->opens = side->index == 0;
    habits->simultaneous = side->index == 1 && random_chance(random, 60);
}

/* How it ends other than in order, now and then. */
static void draw_trouble(struct world *world, struct side *side) {
    struct sim_random *random = &world->random;
    struct model_habits *habits = &side->peer.habits;
    if (side->index == 1 && random_chance(random, 40)) {
        habits->refuses = true;
    } else if (side->index == 1 && random_chance(random, 20)) {
        habits->silent = true;
    } else if (random_chance(random, 60)) {
        habits->reset_at_us = world->now_us + random_range(random, 1, 5000000);
        habits->vanishes = random_chance(random, 200);
    }
}

static void draw_model(struct world *world, struct side *side) {
    struct side *stack = side_other(side);
    const struct model_habits *habits = &side->peer.habits;
    draw_habits(world, side);
    uint32_t scale = habits->buffer_bytes < TINY_BUFFER ? habits->buffer_bytes * 40 : 200000;
    draw_app(world, &stack->app, scale < 200000 ? scale : 200000);
    if (habits->read_bytes > 0 && stack->app.stream_bytes / habits->read_bytes > 2000) {
        stack->app.stream_bytes = habits->read_bytes * 2000;
    }
    draw_trouble(world, side);
    side->peer.random = &world->random;
    side->peer.emit = model_emit;
    side->peer.context = side;
    side->peer.expected = world_stream(stack);
    side->peer.expected_bytes = stack->app.stream_bytes;
    side->peer.stream = world_stream(side);
    uint32_t closing = random_range(&world->random, 0, 2);
    stack->app.closes_first = closing != 0;
    side->peer.habits.closes_first = closing != 1;
    /* Near the wrap, but not where few ports are used: two connections of one name must not begin at one number. */
    bool wraps = stack->host->config.port_last - stack->host->config.port_first > PORTS_FEW && random_chance(&world->random, 300);
    model_init(&side->peer, wraps ? 0xfffff000U : (uint32_t)random_next(&world->random));
}

static void draw_link(struct world *world, struct link *link, bool narrow) {
    struct sim_random *random = &world->random;
    uint8_t family = random_chance(random, 300) ? 6 : 4;
    bool both = world->hosts[1].stack != NULL;
    bool model_opens = !both && random_chance(random, SHARE_PASSIVE);
    uint32_t opener = both ? (narrow ? 0 : random_range(random, 0, 1)) : model_opens ? 1 : 0;
    link->world = world;
    link->start_at = world->now_us + (narrow ? random_range(random, 0, 3000000) : random_range(random, 0, 50000));
    for (uint32_t s = 0; s < 2; s++) {
        struct side *side = &link->sides[s];
        side->link = link;
        side->index = (uint8_t)s;
        side->host = &world->hosts[s == 0 ? opener : 1 - opener];
        side->is_model = side->host->stack == NULL;
        side->address = address_of(side->host->index, narrow ? 4 : family, narrow ? 1 : (uint8_t)random_range(random, 1, 2));
    }
    link->sides[0].port = model_opens ? (uint16_t)(30000 + link->index) : 0;
    link->sides[1].port = narrow ? 25 : (uint16_t)(25 + link->index);
    if (both) {
        for (uint32_t s = 0; s < 2; s++) {
            draw_app(world, &link->sides[s].app, random_chance(random, 300) ? 300000 : 20000);
        }
        uint32_t closing = random_range(random, 0, 2);
        link->sides[0].app.closes_first = closing != 0;
        link->sides[1].app.closes_first = closing != 1;
    } else {
        draw_model(world, &link->sides[model_opens ? 0 : 1]);
        link->sides[model_opens ? 0 : 1].app.act_at = NEVER;
    }
    uint32_t bytes[2];
    for (uint32_t s = 0; s < 2; s++) {
        const struct side *side = &link->sides[s];
        bytes[s] = side->is_model ? side->peer.habits.send_bytes : side->app.stream_bytes;
    }
    for (uint32_t s = 0; s < 2; s++) {
        struct side *side = &link->sides[s];
        const struct tcp_config *config = &side->host->config;
        if (side->is_model) {
            continue;
        }
        bool v4 = side->address.family == 4;
        side->checker = (struct checker){.stream = world_stream(side),
                                         .incoming_stream = world_stream(side_other(side)),
                                         .stream_bytes = bytes[s],
                                         .incoming_bytes = bytes[1 - s],
                                         .mtu = config->mtu,
                                         .headers = v4 ? HEADERS_V4 : HEADERS_V6,
                                         .mss_default = v4 ? MODEL_MSS_DEFAULT_V4 : MODEL_MSS_DEFAULT_V6,
                                         .listens = s == 1,
                                         .device_busy = world->busy > 0 || world->unreachable > 0,
                                         .lying = side_other(side)->is_model && side_other(side)->peer.habits.sack_lies > 0,
                                         .keepalive = config->keepalive_us > 0,
                                         .can_split = config->segmentation_bytes_max > 0,
                                         .split_most = config->segmentation_bytes_max};
        checker_init(&side->checker);
    }
}

/* Ports in four classes as a device's hash makes them; a host's worker has two (struct tcp_config, choose_ports). */
static uint16_t port_at[CLASSES * CLASS_PORTS], index_of[UINT16_MAX + 1];
static const struct tcp_port_map port_map = {.port_at = port_at, .index_of = index_of, .count = CLASSES * CLASS_PORTS};

static void draw_port_map(void) {
    for (uint32_t i = 0; i < CLASSES * CLASS_PORTS; i++) {
        port_at[i] = (uint16_t)(CLASS_PORT_FIRST + i % CLASS_PORTS * CLASSES + i / CLASS_PORTS);
        index_of[port_at[i]] = (uint16_t)i;
    }
}

bool scenario_port_is_ours(const struct host *host, uint16_t port) {
    return port >= CLASS_PORT_FIRST && port < CLASS_PORT_FIRST + CLASSES * CLASS_PORTS &&
           (port - CLASS_PORT_FIRST) % CLASSES % 2 == (int)host->index;
}

uint16_t scenario_foreign_port(const struct host *host, uint32_t number) {
    return (uint16_t)(CLASS_PORT_FIRST + number % CLASS_PORTS * CLASSES + 1 - host->index);
}

static bool choose_ports(void *network, const struct tcp_address *local, const struct tcp_address *remote, uint16_t remote_port,
                         uint64_t random, uint32_t attempt, struct tcp_port_choice *choice) {
    const struct host *host = network;
    uint32_t class = host->index + 2 * ((uint32_t)(random + attempt) % 2);
    *choice = (struct tcp_port_choice){.map = &port_map, .first = class * CLASS_PORTS, .count = CLASS_PORTS};
    return attempt < 2;
}

static bool unknown(void *network, const struct tcp_packet *packet) {
    struct host *host = network;
    uint16_t port = (uint16_t)(packet->header[2] << 8 | packet->header[3]);
    bool foreign = port >= CLASS_PORT_FIRST && port < CLASS_PORT_FIRST + CLASSES * CLASS_PORTS && !scenario_port_is_ours(host, port);
    host->handed += foreign;
    return foreign;
}

static bool draw_host(struct world *world, struct host *host, bool narrow) {
    struct sim_random *random = &world->random;
    static const uint32_t buffers[] = {1024, 4096, 16384, 16384, 65535, 300000};
    static const uint32_t splits[] = {0, 0, 8000, 65000};
    host->config = (struct tcp_config){.max_connections = LINKS_MAX + 2,
                                       .max_segments_in_flight = random_chance(random, 200) ? random_range(random, 2, 20) : 0,
                                       .max_ranges = random_chance(random, 200) ? random_range(random, 32, 100) : 0,
                                       .max_receive_blocks = random_chance(random, 200) ? random_range(random, 1, 8) : 0,
                                       .receive_buffer_bytes = buffers[random_range(random, 0, 5)],
                                       .mtu = WORLD_MTU,
                                       .max_half_open = random_chance(random, 100) ? 1 : LINKS_MAX,
                                       .port_first = narrow ? 40000 : 1024,
                                       .port_last = narrow ? (uint16_t)random_range(random, 40000, 40001) : 65535,
                                       .user_timeout_us = 3600ULL * 1000 * 1000,
                                       .keepalive_us = random_chance(random, 200) ? random_range(random, 1000000, 60000000) : 0,
                                       .segmentation_bytes_max = splits[random_range(random, 0, 3)],
                                       .congestion = random_chance(random, 500) ? TCP_NEWRENO : TCP_CUBIC,
                                       .transmit = world_transmit,
                                       .network = host,
                                       .events = app_events};
    for (uint32_t i = 0; i < sizeof(host->config.secret); i++) {
        host->config.secret[i] = (uint8_t)random_next(random);
    }
    host->steered = !narrow && random_chance(random, 150);
    if (host->steered) {
        host->config.choose_ports = choose_ports;
        host->config.unknown = unknown;
    }
    host->stack = tcp_stack_create(&host->config, world->now_us);
    return host->stack != NULL;
}

static bool listen_all(struct world *world) {
    for (uint32_t i = 0; i < world->link_count; i++) {
        struct side *side = &world->links[i].sides[1];
        if (side->is_model) {
            continue;
        }
        struct tcp_address any = {.family = side->address.family};
        int rc = tcp_listen(side->host->stack, random_chance(&world->random, 500) ? &any : &side->address, side->port, side->host);
        bool again = i > 0 && world->links[i - 1].sides[1].port == side->port;
        if (rc != 0 && !again) {
            return false;
        }
    }
    return true;
}

bool scenario_draw(struct world *world) {
    struct sim_random *random = &world->random;
    world->now_us = world->begun_us = 1000000 + (random_next(random) & 0xffffffffffULL);
    for (uint32_t i = 0; i < 2; i++) {
        world->hosts[i] = (struct host){.world = world, .index = i, .poll_at = NEVER};
    }
    world->busy = random_chance(random, 200) ? random_range(random, 1, 300) : 0;
    world->unreachable = random_chance(random, 40) ? random_range(random, 1, 100) : 0;
    world->strangers = random_chance(random, 300) ? random_range(random, 5, 60) : 0;
    world->icmp = random_chance(random, 200) ? random_range(random, 5, 60) : 0;
    world->burst_us = random_chance(random, 300) ? 50 : 0; /* a burst: what arrived meanwhile is one pass */
    bool narrow = random_chance(random, 100);
    draw_port_map();
    if (!draw_host(world, &world->hosts[0], narrow) ||
        (random_chance(random, SHARE_STACKS) && !draw_host(world, &world->hosts[1], false))) {
        return false;
    }
    uint32_t kind = random_chance(random, 150) ? 0 : random_chance(random, 200) ? 1 : 2;
    uint32_t delay_us = random_range(random, 50, random_chance(random, 500) ? 2000 : 200000);
    bool bottleneck = random_chance(random, 150), small = random_chance(random, 200), strips = random_chance(random, 60);
    world->link_count = random_range(random, narrow ? 3 : 1, narrow ? LINKS_MAX : 6);
    for (uint32_t i = 0; i < world->link_count; i++) {
        struct link *link = &world->links[i];
        link->index = (uint16_t)i;
        draw_link(world, link, narrow);
        for (uint32_t s = 0; s < 2; s++) {
            draw_path(world, &link->paths[s], kind, delay_us);
            if (small && !link->sides[s].is_model) {
                draw_mtu(world, &link->paths[s], link->sides[s].address.family);
            }
            if (strips && !link->sides[1 - s].is_model) {
                link->paths[s].strip_at_us = world->now_us + random_range(random, 1, 2000000);
            }
            if (bottleneck) {
                draw_bottleneck(world, &link->paths[s]);
            }
        }
        if (kind < 2 && !bottleneck && !small && world->busy == 0 && world->unreachable == 0) {
            for (uint32_t s = 0; s < 2; s++) {
                link->sides[s].checker.fill_us = 3 * delay_us + FILL_SLACK_US; /* a reordering window is a round trip at most */
            }
        }
    }
    return listen_all(world);
}
