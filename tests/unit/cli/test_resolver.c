/* test_resolver.c: what a name server that never answers costs, and names that need none. */
#include "control/cli/resolver.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { TIMEOUT_MS = 300, QUESTIONS = 200 };

/* A socket on loopback that nobody reads. */
struct silence {
    int socket;
    struct config_address server;
    struct config config;
    struct resolver *resolver;
};

static int silence_begin(void **state) {
    struct silence *silence = calloc(1, sizeof *silence);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    char error[256] = "";
    *state = silence;
    silence->socket = socket(AF_INET, SOCK_DGRAM, 0);
    assert_int_equal(bind(silence->socket, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(silence->socket, (struct sockaddr *)&address, &length), 0);
    silence->server = (struct config_address){.family = 4, .bytes = {127, 0, 0, 1}, .port = ntohs(address.sin_port)};
    silence->config.dns.servers = &silence->server;
    silence->config.dns.server_count = 1;
    silence->config.dns.timeout_ms = TIMEOUT_MS;
    silence->resolver = resolver_create(&silence->config, error, sizeof error);
    assert_non_null(silence->resolver);
    return 0;
}

static int silence_end(void **state) {
    struct silence *silence = *state;
    resolver_free(silence->resolver);
    close(silence->socket);
    free(silence);
    return 0;
}

static long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static enum dns_status ask(struct resolver *resolver, const char *name, int type) {
    struct resolver_answer answer;
    resolver_ask(resolver, name, type, &answer);
    enum dns_status status = answer.status;
    resolver_forget(&answer);
    return status;
}

static void what_was_asked_ahead_is_waited_for_once(void **state) {
    struct silence *silence = *state;
    char name[64];
    long begun_ms = now_ms();
    for (unsigned i = 0; i < QUESTIONS; i++) {
        snprintf(name, sizeof name, "n%u.test", i);
        resolver_ask_ahead(silence->resolver, name, DNS_TYPE_TXT);
    }
    assert_null(resolver_mute(silence->resolver));
    resolver_settle(silence->resolver);
    for (unsigned i = 0; i < QUESTIONS; i++) {
        snprintf(name, sizeof name, "N%u.test", i);
        assert_int_equal(ask(silence->resolver, name, DNS_TYPE_TXT), DNS_FAILED);
    }
    assert_true(now_ms() - begun_ms < QUESTIONS * TIMEOUT_MS / 2); /* one after the other: twice that */
    assert_string_equal(resolver_mute(silence->resolver), "the name servers did not answer in time");
    assert_false(resolver_gave_up(silence->resolver));
}

static void silence_is_bounded_in_all(void **state) {
    struct silence *silence = *state;
    char name[64];
    long begun_ms = now_ms();
    assert_int_equal(resolver_silence_max_ms(silence->resolver), RESOLVER_SILENCE_TIMEOUTS * TIMEOUT_MS);
    for (unsigned i = 0; i < QUESTIONS; i++) {
        snprintf(name, sizeof name, "n%u.test", i);
        assert_int_equal(ask(silence->resolver, name, DNS_TYPE_A), DNS_FAILED);
    }
    assert_true(resolver_gave_up(silence->resolver));
    assert_true(now_ms() - begun_ms < QUESTIONS * TIMEOUT_MS / 2);
}

static void names_that_cannot_be_in_dns_are_not_asked_for(void **state) { /* RFC 1035 2.3.4 */
    struct silence *silence = *state;
    char label[65], name[300];
    memset(label, 'a', 64);
    label[64] = '\0';
    snprintf(name, sizeof name, "%.63s.%.63s.%.63s.%.63s", label, label, label, label);
    const char *const bad[] = {"", ".", "a..test", ".test", "a.test..", label, name};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(ask(silence->resolver, bad[i], DNS_TYPE_A), DNS_NO_NAME);
    }
    assert_null(resolver_mute(silence->resolver));
}

static void a_name_on_the_wire_is_read_within_its_bounds(void **state) { /* RFC 1035 3.1 */
    char text[RESOLVER_NAME_BYTES];
    assert_true(resolver_name((const uint8_t *)"\4Mail\4test", 11, text));
    assert_string_equal(text, "mail.test");
    assert_true(resolver_name((const uint8_t *)"", 1, text));
    assert_string_equal(text, "");
    assert_false(resolver_name((const uint8_t *)"\4Mail\4test", 10, text)); /* no end */
    assert_false(resolver_name((const uint8_t *)"\4Mai", 4, text));
    assert_false(resolver_name((const uint8_t *)"\300\14", 2, text)); /* compressed */
    assert_false(resolver_name((const uint8_t *)"\3a.b\0", 5, text));
    assert_false(resolver_name((const uint8_t *)"\3a b\0", 5, text));
    assert_false(resolver_name((const uint8_t *)"", 0, text));
    uint8_t longest[300] = {0};
    for (size_t i = 0; i < 256; i += 2) {
        memcpy(longest + i, "\1a", 2);
    }
    assert_false(resolver_name(longest, 257, text));
    longest[254] = 0;
    assert_true(resolver_name(longest, 255, text));
    assert_int_equal(strlen(text), 253);
}

static void an_address_has_a_name_of_its_own(void **state) { /* RFC 1035 3.5, RFC 3596 2.5 */
    char name[RESOLVER_NAME_BYTES];
    resolver_reverse(&(struct config_address){.family = 4, .bytes = {192, 0, 2, 10}}, name);
    assert_string_equal(name, "10.2.0.192.in-addr.arpa");
    resolver_reverse(&(struct config_address){.family = 6, .bytes = {0x20, 1, 0xd, 0xb8, [15] = 0x1f}}, name);
    assert_string_equal(name, "f.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_asked_ahead_is_waited_for_once, silence_begin, silence_end),
        cmocka_unit_test_setup_teardown(silence_is_bounded_in_all, silence_begin, silence_end),
        cmocka_unit_test_setup_teardown(names_that_cannot_be_in_dns_are_not_asked_for, silence_begin, silence_end),
        cmocka_unit_test(a_name_on_the_wire_is_read_within_its_bounds),
        cmocka_unit_test(an_address_has_a_name_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
