/* Steering of active opens (TCP.md): over random keys, tables and tuples every port that is offered hashes back to the worker that opens,
 * and every port that does so is offered, once. The judge is the bit-by-bit definition of the hash. */
#include "dataplane/net/steering.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { ROUNDS = 48, PORT_FIRST = 10000, PORT_COUNT = 55536, JUDGED_EACH = 61 };

static uint64_t dice = 88172645463325252u;

static uint32_t roll(void) {
    dice ^= dice << 13;
    dice ^= dice >> 7;
    dice ^= dice << 17;
    return (uint32_t)(dice >> 16);
}

/* For each one of the input, from the left, the 32 bits of the key that begin there. */
static uint32_t hash_by_definition(const uint8_t *key, const uint8_t *input, uint32_t length) {
    uint32_t hash = 0;
    for (uint32_t bit = 0; bit < length * 8; bit++) {
        uint32_t window = 0;
        for (uint32_t i = bit; i < bit + 32; i++)
            window = window << 1 | (key[i / 8] >> (7 - i % 8) & 1u);
        if ((input[bit / 8] >> (7 - bit % 8) & 1) != 0)
            hash ^= window;
    }
    return hash;
}

static uint32_t judge(const struct port_rss *rss, const struct tcp_address *local, uint16_t local_port, const struct tcp_address *remote,
                      uint16_t remote_port) {
    uint8_t input[36];
    uint32_t each = local->family == 4 ? 4 : 16;
    memcpy(input, remote->bytes, each);
    memcpy(input + each, local->bytes, each);
    input[2 * each] = (uint8_t)(remote_port >> 8);
    input[2 * each + 1] = (uint8_t)remote_port;
    input[2 * each + 2] = (uint8_t)(local_port >> 8);
    input[2 * each + 3] = (uint8_t)local_port;
    return rss->reta[hash_by_definition(rss->key, input, 2 * each + 4) % rss->reta_size];
}

static struct tcp_address random_address(uint8_t family) {
    struct tcp_address address = {.family = family};
    for (uint32_t i = 0; i < toeplitz_address_bytes(family); i++)
        address.bytes[i] = (uint8_t)roll();
    return address;
}

static struct port_rss random_rss(uint32_t workers) {
    static const uint16_t sizes[] = {64, 128, 512, 2048};
    struct port_rss rss = {.hashes = true, .key_length = 40, .reta_size = sizes[roll() % 4]};
    for (uint32_t i = 0; i < rss.key_length; i++)
        rss.key[i] = (uint8_t)roll();
    for (uint32_t i = 0; i < rss.reta_size; i++)
        rss.reta[i] = (uint16_t)(i < workers ? i : roll() % workers);
    return rss;
}

/* Marks the ports that `worker` is offered with 1 + worker; each must be unmarked. Returns how many. */
static uint32_t collect(const struct steering *steering, uint32_t worker, const struct tcp_address *local, const struct tcp_address *remote,
                        uint16_t remote_port, uint16_t *offered) {
    struct tcp_port_choice choice;
    uint64_t random = (uint64_t)roll() << 32 | roll();
    uint32_t count = 0, attempt = 0;
    for (; steering_choose(steering, local, remote, remote_port, random, attempt, &choice); attempt++) {
        assert_true(choice.first + choice.count <= choice.map->count);
        for (uint32_t place = choice.first; place < choice.first + choice.count; place++) {
            uint16_t port = choice.map->port_at[place];
            assert_int_equal(choice.map->index_of[port], place);
            assert_int_equal(offered[port], 0);
            offered[port] = (uint16_t)(1 + worker);
            count++;
        }
    }
    assert_true(attempt <= PORT_RETA_MAX);
    return count;
}

static void check_tuple(struct steering **steerings, uint32_t workers, const struct port_rss *rss, uint32_t ports_first,
                        uint32_t ports_count, uint8_t family) {
    static uint16_t offered[65536];
    struct tcp_address local = random_address(family), remote = random_address(family);
    uint16_t remote_port = roll() % 2 == 0 ? 25 : (uint16_t)roll();
    uint32_t count = 0;
    memset(offered, 0, sizeof offered);
    for (uint32_t worker = 0; worker < workers; worker++)
        count += collect(steerings[worker], worker, &local, &remote, remote_port, offered);
    assert_int_equal(count, ports_count); /* together all, each once */
    for (uint32_t port = ports_first; port < ports_first + ports_count; port++) {
        assert_int_equal(steering_owner(steerings[0], &local, (uint16_t)port, &remote, remote_port), offered[port] - 1);
        if (port % JUDGED_EACH == 0)
            assert_int_equal(judge(rss, &local, (uint16_t)port, &remote, remote_port), offered[port] - 1);
    }
}

static void check_device(const struct port_rss *rss, uint32_t workers, uint16_t ports_first, uint32_t ports_count) {
    struct steering *steerings[16];
    for (uint32_t worker = 0; worker < workers; worker++) {
        steerings[worker] = steering_create(rss, worker, ports_first, ports_count);
        assert_non_null(steerings[worker]);
    }
    check_tuple(steerings, workers, rss, ports_first, ports_count, 4);
    check_tuple(steerings, workers, rss, ports_first, ports_count, 6);
    for (uint32_t worker = 0; worker < workers; worker++)
        steering_destroy(steerings[worker]);
}

static void every_port_comes_home(void **state) {
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t workers = 1 + roll() % 16;
        struct port_rss rss = random_rss(workers);
        check_device(&rss, workers, PORT_FIRST, PORT_COUNT);
    }
}

static void default_key(void **state) {
    struct port_rss rss;
    (void)state;
    toeplitz_rss_default(&rss, 4);
    check_device(&rss, 4, PORT_FIRST, PORT_COUNT);
}

/* A key with few ones leaves classes without a port, and a narrow range too: they are offered empty, and no port is lost. */
static void empty_classes(void **state) {
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t workers = 1 + roll() % 4;
        struct port_rss rss = random_rss(workers);
        if (round % 2 == 0)
            memset(rss.key + 8, 0, 30);
        check_device(&rss, workers, (uint16_t)(1024 + roll() % 60000), 1 + roll() % 40);
    }
}

/* Successive opens of a pair begin at different classes. */
static void begins_anywhere(void **state) {
    struct port_rss rss;
    bool seen[PORT_COUNT] = {false};
    uint32_t classes = 0;
    (void)state;
    toeplitz_rss_default(&rss, 4);
    struct steering *steering = steering_create(&rss, 1, PORT_FIRST, PORT_COUNT);
    struct tcp_address local = random_address(4), remote = random_address(4);
    for (int i = 0; i < 2000; i++) {
        struct tcp_port_choice choice;
        assert_true(steering_choose(steering, &local, &remote, 25, (uint64_t)roll() << 32 | roll(), 0, &choice));
        classes += !seen[choice.first];
        seen[choice.first] = true;
    }
    assert_int_equal(classes, PORT_RSS_RETA_DEFAULT / 4);
    steering_destroy(steering);
}

static void refusals(void **state) {
    struct port_rss rss;
    (void)state;
    toeplitz_rss_default(&rss, 2);
    assert_null(steering_create(&rss, 2, PORT_FIRST, PORT_COUNT)); /* the table gives it nothing */
    assert_int_equal(errno, EINVAL);
    assert_null(steering_create(&rss, 0, PORT_FIRST, PORT_COUNT + 1));
    assert_null(steering_create(&rss, 0, PORT_FIRST, 0));
    rss.reta_size = 100;
    assert_null(steering_create(&rss, 0, PORT_FIRST, PORT_COUNT));
    rss.reta_size = 128;
    rss.hashes = false;
    assert_null(steering_create(&rss, 0, PORT_FIRST, PORT_COUNT));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_port_comes_home), cmocka_unit_test(default_key), cmocka_unit_test(empty_classes),
        cmocka_unit_test(begins_anywhere),       cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
