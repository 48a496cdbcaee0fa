/* smtp_scenario.c: what a seed stands for. */
#include "smtp_world.h"

#include "dataplane/smtp/capability.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MTU = 1500, SERVERS_NET_FIRST = 10 };

uint32_t mail_text(const struct mail_world *world, uint32_t index, uint8_t *to) {
    const struct mail_message *message = &world->messages[index];
    struct sim_random text;
    random_seed(&text, world->seed * 1000 + index);
    uint32_t length = (uint32_t)sprintf((char *)to, ".X-Message: %u\r\n", index);
    while (length < message->length) {
        uint32_t line = random_range(&text, 1, 90);
        for (uint32_t i = 0; i < line && length < message->length; i++, length++)
            to[length] = i == 0 && random_chance(&text, 100) ? '.' : (uint8_t)('a' + (length * 7 + line) % 26);
        if (length + 2 <= message->length) {
            to[length++] = '\r';
            to[length++] = '\n';
        }
    }
    if (message->whole)
        memcpy(to + length - 2, "\r\n", 2);
    return length;
}

static void draw_messages(struct mail_world *world) {
    static uint8_t text[1 << 18];
    struct sim_random *random = &world->random;
    world->message_count = random_range(random, 5, MAIL_MESSAGES_MAX / 2);
    uint32_t large = random_chance(random, 200) ? random_range(random, 20000, 150000) : 0, many = random_range(random, 1, 12);
    for (uint32_t i = 0; i < world->message_count; i++) {
        struct mail_message *message = &world->messages[i];
        bool is_large = large && random_chance(random, 100);
        *message = (struct mail_message){.length = is_large ? large : random_range(random, 20, random_chance(random, 200) ? 20000 : 2500),
                                         .flags = SLOT_HAS_LEADING_DOTS,
                                         .whole = random_chance(random, 700)};
        message->flags |= random_chance(random, 100) ? SLOT_BODY_8BIT : 0;
        message->flags |= random_chance(random, 100) ? SLOT_HIGH : 0;
        message->flags |= random_chance(random, 100) ? SLOT_REQUIRETLS : 0;
        message->length = mail_text(world, i, text);
        message->chunked = message->dotted = MAIL_DIGEST_BEGIN;
        mail_digest(&message->chunked, text, message->length);
        message->dotted = message->chunked;
        if (memcmp(text + message->length - 2, "\r\n", 2) != 0)
            mail_digest(&message->dotted, (const uint8_t *)"\r\n", 2);
        for (uint32_t j = random_chance(random, 500) ? 1 : random_range(random, 1, many); j > 0 && world->job_count < MAIL_JOBS_MAX; j--) {
            world->waiting[world->waiting_count++] = world->job_count;
            world->jobs[world->job_count++] = (struct mail_job){.message = i};
        }
    }
}

static void draw_wire(struct mail_world *world) {
    struct sim_random *random = &world->random;
    uint32_t loss = random_chance(random, 400) ? 0 : random_range(random, 1, random_chance(random, 200) ? 150 : 30);
    for (uint32_t i = 0; i < 2; i++)
        world->paths[i] = (struct wire_path){.loss = loss,
                                             .duplicate = random_chance(random, 200) ? random_range(random, 1, 50) : 0,
                                             .reorder = random_chance(random, 300) ? random_range(random, 1, 200) : 0,
                                             .burst_begins = random_chance(random, 100) ? 2 : 0,
                                             .burst_most_us = 3000000,
                                             .delay_us = random_range(random, 50, random_chance(random, 500) ? 2000 : 120000),
                                             .jitter_us = random_range(random, 1, 50000),
                                             .mtu = random_chance(random, 150) ? (uint16_t)random_range(random, 600, 1400) : 0,
                                             .icmp = random_chance(random, 800)};
    world->busy = random_chance(random, 150) ? random_range(random, 1, 50) : 0;
    world->unreachable = random_chance(random, 50) ? 3 : 0;
}

struct mail_server *mail_draw_server(struct mail_world *world, bool auth, bool auth_plaintext, bool implicit, uint32_t pipelined,
                                     uint8_t version_min) {
    struct sim_random *random = &world->control_random;
    if (world->server_count == MAIL_SERVERS_MAX)
        return NULL;
    struct mail_server *server = &world->servers[world->server_count];
    static const uint8_t levels[] = {PATH_TLS_NONE, PATH_TLS_NONE,    PATH_TLS_NONE,   PATH_TLS_MAY,
                                     PATH_TLS_MAY,  PATH_TLS_ENCRYPT, PATH_TLS_VERIFY, PATH_TLS_DANE};
    bool kind = random_chance(random, 300);
    *server = (struct mail_server){.index = world->server_count,
                                   .address = {.bytes = {192, 0, 2, (uint8_t)(SERVERS_NET_FIRST + world->server_count)}, .family = 4},
                                   .port = implicit ? 465 : MAIL_PORT,
                                   .level = (enum path_tls)levels[random_range(random, 0, sizeof(levels) - 1)],
                                   .auth = auth,
                                   .auth_plaintext = auth_plaintext,
                                   .implicit = implicit,
                                   .pipelined = pipelined,
                                   .version = random_chance(random, 250)   ? 12
                                              : random_chance(random, 100) ? 13
                                                                           : 0,
                                   .refuse = kind ? 0 : random_range(random, 0, 120),
                                   .trouble = kind ? 0 : random_range(random, 0, random_chance(random, 300) ? 80 : 15),
                                   .latency_us = random_range(random, 0, 200000),
                                   .splits = random_chance(random, 200),
                                   .liar = random_chance(random, 80),
                                   .keeps_open = random_chance(random, 100),
                                   .data_anyway = random_chance(random, 400),
                                   .helo_only = random_chance(random, 40),
                                   .keeps_refused = random_chance(random, 300),
                                   .listens = !random_chance(random, 60)};
    if (server->liar)
        server->trouble += 30;
    if (implicit && server->level < PATH_TLS_ENCRYPT)
        server->level = PATH_TLS_ENCRYPT;
    server->certificate = random_chance(random, 750)   ? CERTIFICATE_GOOD
                          : random_chance(random, 500) ? CERTIFICATE_OTHER
                                                       : CERTIFICATE_EXPIRED;
    bool version = server->version == 0 || server->version >= version_min;
    /* The records of a DANE server name its certificate but where it shows another one; DANE-EE looks at no dates. */
    bool certificate = server->level < PATH_TLS_VERIFY || server->certificate == CERTIFICATE_GOOD ||
                       (server->level == PATH_TLS_DANE && server->certificate == CERTIFICATE_EXPIRED);
    server->believed = version && certificate;
    const struct {
        uint32_t flag, chance;
    } words[] = {{CAP_PIPELINING, 700}, {CAP_CHUNKING, 500}, {CAP_8BITMIME, 800}, {CAP_SIZE, 700}, {CAP_DSN, 300}, {CAP_LIMITS, 200}};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        server->offers |= random_chance(random, words[i].chance) ? words[i].flag : 0;
        server->offers_secure |= random_chance(random, words[i].chance) ? words[i].flag : 0;
    }
    server->offers |= random_chance(random, 850) ? CAP_STARTTLS : 0;
    server->offers_secure |= random_chance(random, 600) ? CAP_REQUIRETLS : 0;
    if (auth) {
        static const uint32_t mechanisms[] = {CAP_AUTH_PLAIN, CAP_AUTH_LOGIN, CAP_AUTH_CRAM_MD5};
        for (uint32_t i = 0; i < 3; i++) {
            server->offers |= random_chance(random, 500) ? mechanisms[i] : 0;
            server->offers_secure |= random_chance(random, 800) ? mechanisms[i] : 0;
        }
    }
    server->size_max = random_chance(random, 200) ? random_range(random, 1000, 30000) : 0;
    server->mail_max = random_chance(random, 500) ? random_range(random, 1, 20) : 0;
    server->rcpt_max = random_chance(random, 500) ? random_range(random, 1, 5) : 0;
    server->domain_max = random_chance(random, 300) ? random_range(random, 1, 3) : 0;
    if (server->listens && tcp_listen(world->server, &server->address, server->port, world) != 0)
        return NULL;
    world->server_count++;
    return server;
}

static bool draw_stacks(struct mail_world *world, struct tcp_events events) {
    struct sim_random *random = &world->random;
    struct tcp_config config = {.max_connections = 64,
                                .max_segments_in_flight = random_chance(random, 100) ? random_range(random, 8, 60) : 0,
                                .max_ranges = random_chance(random, 150) ? random_range(random, 150, 300) : 0,
                                .max_receive_blocks = random_chance(random, 100) ? random_range(random, 8, 20) : 0,
                                .receive_buffer_bytes = 16384,
                                .mtu = MTU,
                                .port_first = 20000,
                                .port_last = random_chance(random, 50) ? 20003 : 60000,
                                .transmit = mail_transmit,
                                .network = world,
                                .events = events};
    for (uint32_t i = 0; i < sizeof(config.secret); i++)
        config.secret[i] = (uint8_t)random_next(random);
    world->client = tcp_stack_create(&config, world->now_us);
    config.max_segments_in_flight = config.max_ranges = config.max_receive_blocks = 0;
    config.max_connections = 2 * MAIL_CONNS_MAX;
    config.receive_buffer_bytes = random_chance(random, 300) ? 4096 : 65535;
    config.user_timeout_us = 100 * SECOND;
    config.keepalive_us = 60 * SECOND;
    config.events = mail_server_events;
    world->server = tcp_stack_create(&config, world->now_us);
    return world->client && world->server;
}

bool mail_draw(struct mail_world *world) {
    struct sim_random *random = &world->random;
    struct tcp_events events = {0};
    draw_wire(world);
    draw_messages(world);
    world->overcommits = random_chance(random, 400);
    world->restless = random_chance(random, 500);
    world->drain_at = random_chance(random, 200) ? world->now_us + random_range(random, 1, 60) * SECOND : NEVER;
    struct smtp_config config = {.journal = &world->journal,
                                 .dataplane_generation = 1,
                                 .arena = world->arena,
                                 .arena_bytes = MAIL_ARENA_BYTES,
                                 .max_sessions = random_chance(random, 100) ? random_range(random, 1, 4) : 32,
                                 .max_orders = random_chance(random, 100) ? random_range(random, 2, 20) : MAIL_SLOTS,
                                 .tls = world->tls,
                                 .realtime_offset_us = OPENSSL_NOW_S * 1000000 - (int64_t)MAIL_BEGIN_US,
                                 .context = world};
    extern void mail_ring(void *context, uint32_t shard);
    config.ring_doorbell = mail_ring;
    world->engine = smtp_engine_create(&config, &events);
    if (!world->engine || !draw_stacks(world, events))
        return false;
    smtp_engine_attach(world->engine, world->client);
    return true;
}
