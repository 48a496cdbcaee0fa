/* test_memory.c: no memory, at each allocation in turn that this room or wolfSSL makes for a connection: it fails in words or goes on, and
 * nothing is lost. The linker puts __wrap_malloc and __wrap_mallocx between heap.c and the allocator. */
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

enum { REFUSED_MAX = 5000 };

static bool counting, once;
static uint32_t taken, refused_at; /* 0: none */

static bool refuses(void) {
    if (!counting)
        return false;
    taken++;
    return refused_at != 0 && (once ? taken == refused_at : taken >= refused_at);
}

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes) {
    return refuses() ? NULL : __real_malloc(bytes);
}
void *__real_mallocx(size_t bytes, int flags) __attribute__((weak)); /* not where AddressSanitizer watches malloc */
void *__wrap_mallocx(size_t bytes, int flags);
void *__wrap_mallocx(size_t bytes, int flags) {
    return refuses() ? NULL : __real_mallocx(bytes, flags);
}

/* One connection from stream_secure to its end. The other side's OpenSSL is a shared library, which the linker's wrap does not see. */
static void converse(struct world *world, int version, enum path_tls level) {
    const struct tls_peer peer = talk_peer(level);
    struct talk *talk = talk_new(world, &(struct openssl_options){.server = true, .version_min = version, .version_max = version});
    counting = true;
    int error = stream_secure(&talk->stream, world->worker, &peer, world->now_us);
    if (error == 0) {
        stream_flush(&talk->stream, world->now_us);
        talk_run(talk);
        counting = false;
        if (talk->secured + talk->insecure != 1)
            fail_msg("refused at %u of TLS 1.%d: neither secured nor insecure", refused_at, version - 10);
        counting = true;
        if (talk->insecure)
            assert_true(talk->why[0] != '\0');
    }
    if (talk->secured) {
        assert_true(level < PATH_TLS_VERIFY || talk_state(talk).verified);
        if (talk_say(talk, "EHLO a.test\r\n", 13) == 0 && !talk->closed) {
            openssl_peer_write(talk->peer, "250 ok\r\n", 8);
            talk_run(talk);
        }
    }
    counting = false;
    talk_free(talk);
}

static void each_allocation(int version, enum path_tls level, bool just_once) {
    uint32_t runs = 0;
    once = just_once;
    for (refused_at = 1; refused_at < REFUSED_MAX; refused_at++, runs++) {
        struct world *world = world_new();
        taken = 0;
        converse(world, version, level);
        uint32_t needed = taken, at = refused_at;
        refused_at = 0;
        converse(world, version, level); /* the worker is none the worse */
        refused_at = at;
        world_free(world);
        if (needed < refused_at)
            break;
    }
    print_message("TLS 1.%d, level %d: %u allocations\n", version - 10, (int)level, runs);
    assert_true(runs > 10 && runs < REFUSED_MAX - 1);
}

static void no_memory_in_tls_1_2(void **state) {
    each_allocation(12, PATH_TLS_VERIFY, true);
    each_allocation(12, PATH_TLS_MAY, false);
}
static void no_memory_in_tls_1_3(void **state) {
    each_allocation(13, PATH_TLS_VERIFY, true);
    each_allocation(13, PATH_TLS_MAY, false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_memory_in_tls_1_2),
        cmocka_unit_test(no_memory_in_tls_1_3),
    };
    return cmocka_run_group_tests_name("tls_memory", tests, NULL, NULL);
}
