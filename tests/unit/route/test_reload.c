/* test_reload.c: a reload while a question is on its way: the answer is judged by the configuration of the day, and nothing of the old one
 * is touched any more. The name server is this test: a UDP socket on loopback that knows no name. */
#include "control/route/route.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { STEPS_MAX = 5000, QUERY_BYTES = 512, DNS_HEADER_BYTES = 12 };

struct world {
    struct event_base *base;
    struct config config;
    struct config_address server;
    struct route *route;
    int socket;
    uint32_t answers;
    struct route_result result;
};

static void on_route(void *context, const struct route_result *result) {
    struct world *world = context;
    world->answers++;
    world->result = *result;
}

static void start(struct world *world) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    char error[256];
    memset(world, 0, sizeof *world);
    world->socket = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(world->socket, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(world->socket, (struct sockaddr *)&address, &length), 0);
    world->server = (struct config_address){.family = 4, .bytes = {127, 0, 0, 1}, .port = ntohs(address.sin_port), .prefix_length = 32};
    world->config.dns.servers = &world->server;
    world->config.dns.server_count = 1;
    world->base = event_base_new();
    world->route = route_create(world->base, &world->config, error, sizeof error);
    assert_non_null(world->route);
}

static void stop(struct world *world) {
    route_destroy(world->route);
    event_base_free(world->base);
    close(world->socket);
}

/* Waits for a question. Its length. */
static ssize_t question(struct world *world, uint8_t *query, struct sockaddr_in *from) {
    for (uint32_t step = 0; step < STEPS_MAX; step++) {
        socklen_t length = sizeof *from;
        event_base_loop(world->base, EVLOOP_NONBLOCK);
        ssize_t got = recvfrom(world->socket, query, QUERY_BYTES, 0, (struct sockaddr *)from, &length);
        if (got > DNS_HEADER_BYTES)
            return got;
        usleep(1000);
    }
    fail_msg("nobody asked");
    return 0;
}

/* NXDOMAIN (RFC 1035 4.1.1) for this question and all that follow, until the answer has come. */
static void deny(struct world *world, uint8_t *query, struct sockaddr_in *from) {
    for (uint32_t step = 0; step < STEPS_MAX && world->answers == 0; step++) {
        size_t end = DNS_HEADER_BYTES;
        while (query[end] != 0)
            end += query[end] + 1u;
        query[2] |= 0x80;
        query[3] = 0x83;
        memset(query + 6, 0, 6); /* no records */
        sendto(world->socket, query, end + 5, 0, (struct sockaddr *)from, sizeof *from);
        socklen_t length = sizeof *from;
        do {
            event_base_loop(world->base, EVLOOP_NONBLOCK);
            usleep(1000);
        } while (world->answers == 0 && ++step < STEPS_MAX &&
                 recvfrom(world->socket, query, QUERY_BYTES, 0, (struct sockaddr *)from, &length) < DNS_HEADER_BYTES);
    }
    assert_int_equal(world->answers, 1);
}

/* A relay that went while its name was asked for: the domain is asked for itself. */
static void test_a_relay_that_went(void **state) {
    struct world world;
    uint8_t query[QUERY_BYTES];
    struct sockaddr_in from;
    start(&world);
    char *hosts[] = {strdup("relay.example.test:2525")};
    struct config_relay *relay = calloc(1, sizeof *relay);
    *relay = (struct config_relay){.domain = strdup("shop.example.test"), .host_count = 1, .hosts = hosts};
    struct config with_relay = world.config;
    with_relay.relays = relay;
    with_relay.relay_count = 1;
    route_reconfigure(world.route, &with_relay);
    route_find(world.route, "shop.example.test", on_route, &world);
    assert_true(question(&world, query, &from) > 0);
    route_reconfigure(world.route, &world.config);
    free(hosts[0]);
    free(relay->domain);
    memset(relay, 0xa5, sizeof *relay); /* as freed memory is */
    free(relay);
    deny(&world, query, &from);
    assert_int_equal(world.result.status, ROUTE_PERMANENT); /* a relay without hosts would be temporary */
    assert_int_equal(world.result.code, 550);
    assert_int_equal(world.result.enhanced[1] * 10 + world.result.enhanced[2], 12);
    stop(&world);
}

/* A sandbox that was closed while a public domain was asked for. */
static void test_a_sandbox_that_closed(void **state) {
    struct world world;
    uint8_t query[QUERY_BYTES];
    struct sockaddr_in from;
    start(&world);
    route_find(world.route, "shop.example.fr", on_route, &world);
    assert_true(question(&world, query, &from) > 0);
    struct config sandbox = world.config;
    sandbox.sandbox = true;
    route_reconfigure(world.route, &sandbox);
    deny(&world, query, &from);
    assert_int_equal(world.result.status, ROUTE_PERMANENT);
    assert_int_equal(world.result.enhanced[1] * 10 + world.result.enhanced[2], 71);
    stop(&world);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_relay_that_went), cmocka_unit_test(test_a_sandbox_that_closed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
