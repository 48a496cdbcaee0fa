/* test_session.c: handshakes and records against OpenSSL, in TLS 1.2 (RFC 5246) and 1.3 (RFC 8446). */
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int versions[] = {12, 13};

static void both_versions_carry_bytes_both_ways(void **state) {
    for (int i = 0; i < 2; i++) {
        struct world *world = world_new();
        struct talk *talk =
            talk_new(world, &(struct openssl_options){.server = true, .version_min = versions[i], .version_max = versions[i]});
        assert_int_equal(talk_state(talk).version, 0);
        talk_secure(talk, PATH_TLS_VERIFY);
        if (talk->insecure)
            fail_msg("%s", talk->why);
        assert_int_equal(talk->secured, 1);
        assert_int_equal(talk_state(talk).version, versions[i]);
        assert_true(talk_state(talk).verified);
        assert_false(talk_state(talk).resumed);
        assert_int_equal(talk_state(talk).cipher >> 8, versions[i] == 13 ? 0x13 : 0xc0);
        assert_string_equal(openssl_peer_sni(talk->peer), "mx.example.test");
        talk_check_both_ways(talk);
        talk_free(talk);
        world_free(world);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_versions_carry_bytes_both_ways),
    };
    return cmocka_run_group_tests_name("tls_session", tests, NULL, NULL);
}
