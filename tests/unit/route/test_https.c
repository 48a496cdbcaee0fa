/* test_https.c: which URLs are asked at all: anybody can publish one (RFC 8460 3), and none may lead into somebody's own network. */
#include "control/route/https.h"
#include <errno.h>
#include <event2/event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void on_done(void *context, const struct https_answer *answer) {
    fail_msg("nothing runs here");
}

struct world {
    struct event_base *base;
    struct dns *dns;
    struct https *https;
};

static struct world world_new(void) {
    static const struct config_address server = {.family = 4, .bytes = {127, 0, 0, 1}};
    char error[256] = "";
    struct world world = {.base = event_base_new()};
    struct dns_settings settings = {.servers = &server, .server_count = 1};
    world.dns = dns_create(world.base, &settings, error, sizeof error);
    if (!world.dns)
        fail_msg("%s", error);
    world.https = https_create(world.base, world.dns, NULL, &(struct https_guard){0});
    assert_non_null(world.https);
    return world;
}

static void world_free(struct world *world) {
    https_destroy(world->https);
    dns_destroy(world->dns);
    event_base_free(world->base);
}

static int start(struct world *world, const char *url, const char *domain) {
    return https_start(world->https, &(struct https_request){.url = url, .domain = domain, .done = on_done});
}

static void only_plain_names_are_hosts(void **state) {
    static const char *const GOOD[] = {"https://mta-sts.a.test/.well-known/mta-sts.txt", "https://A_b.test:8443/x?y=z",
                                       "https://a%2Etest/"};
    static const char *const BAD[] = {
        "http://a.test/",
        "ftp://a.test/",
        "file:///etc/passwd",
        "https://192.0.2.1/",
        "https://[2001:db8::1]/",
        "https://0x7f000001/", /* libcurl makes addresses of such */
        "https://127.1/",
        "https://user@a.test/",
        "https://user:word@a.test/",
        "https://-a.test/",          /* an order to forget, in CURLOPT_RESOLVE: then the system's resolver would be asked */
        "https://b%C3%BCcher.test/", /* is made IDNA later, and then is another name than the one resolved */
        "https://.a.test/",
        "https://a.test%00.b.test/",
        "https://a.test%0d%0ab/",

        "https://",
        ""};
    struct world world = world_new();
    for (size_t i = 0; i < sizeof GOOD / sizeof GOOD[0]; i++)
        if (start(&world, GOOD[i], NULL) != 0)
            fail_msg("%s is refused", GOOD[i]);
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++)
        if (start(&world, BAD[i], NULL) != -EINVAL)
            fail_msg("%s is taken", BAD[i]);
    world_free(&world);
}

/* Reserved names (RFC 2606, RFC 6761) may be had from loopback in tests: a public domain may not name them. */
static void public_domains_name_no_reserved_hosts(void **state) {
    struct world world = world_new();
    assert_int_equal(start(&world, "https://localhost:6379/", "evil.org"), -EPERM);
    assert_int_equal(start(&world, "https://web.test/", "evil.org"), -EPERM);
    assert_int_equal(start(&world, "https://web.test/", "a.test"), 0);
    assert_int_equal(start(&world, "https://reports.evil.org/", "evil.org"), 0);
    world_free(&world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_plain_names_are_hosts),
        cmocka_unit_test(public_domains_name_no_reserved_hosts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
