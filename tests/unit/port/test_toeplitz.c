/* The hash against its published verification vectors ("Verifying the RSS Hash Calculation", Windows driver documentation), and its
 * linearity, on which the choice of ports rests. */
#include "dataplane/port/toeplitz.h"
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

struct vector {
    const char *source, *destination;
    uint16_t source_port, destination_port;
    uint32_t addresses_only, with_ports;
};

static const struct vector vectors[] = {
    {"66.9.149.187", "161.142.100.80", 2794, 1766, 0x323e8fc2, 0x51ccc178},
    {"199.92.111.2", "65.69.140.83", 14230, 4739, 0xd718262a, 0xc626b0ea},
    {"24.19.198.95", "12.22.207.184", 12898, 38024, 0xd2d0a5de, 0x5c2b394a},
    {"38.27.205.30", "209.142.163.6", 48228, 2217, 0x82989176, 0xafc7327f},
    {"153.39.163.191", "202.188.127.2", 44251, 1303, 0x5d1809c5, 0x10e828a2},
    {"3ffe:2501:200:1fff::7", "3ffe:2501:200:3::1", 2794, 1766, 0x2cc18cd5, 0x40207d3d},
    {"3ffe:501:8::260:97ff:fe40:efab", "ff02::1", 14230, 4739, 0x0f0c461c, 0xdde51bbf},
    {"3ffe:1900:4545:3:200:f8ff:fe21:67cf", "fe80::200:f8ff:fe21:67cf", 44251, 38024, 0x4b61e985, 0x02d1feef},
};

static struct tcp_address address(const char *text) {
    struct tcp_address result = {.family = strchr(text, ':') == NULL ? 4 : 6};
    assert_int_equal(inet_pton(result.family == 4 ? AF_INET : AF_INET6, text, result.bytes), 1);
    return result;
}

static void published_vectors(void **state) {
    struct toeplitz toeplitz;
    (void)state;
    toeplitz_set_up(&toeplitz, PORT_RSS_KEY_DEFAULT, 40);
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        const struct vector *vector = &vectors[i];
        struct tcp_address source = address(vector->source), destination = address(vector->destination);
        uint32_t bytes = toeplitz_address_bytes(source.family);
        assert_int_equal(toeplitz_part(&toeplitz, 0, source.bytes, bytes) ^ toeplitz_part(&toeplitz, bytes, destination.bytes, bytes),
                         vector->addresses_only);
        assert_int_equal(toeplitz_tuple(&toeplitz, &source, &destination, vector->source_port, vector->destination_port),
                         vector->with_ports);
    }
}

/* A tuple needs 36 + 4 bytes of key: a longer key hashes alike, a shorter one as if zeros followed. */
static void key_length(void **state) {
    struct toeplitz forty, all, zeros, twenty;
    uint8_t key[40] = {0};
    (void)state;
    toeplitz_set_up(&forty, PORT_RSS_KEY_DEFAULT, 40);
    toeplitz_set_up(&all, PORT_RSS_KEY_DEFAULT, PORT_RSS_KEY_DEFAULT_BYTES);
    assert_memory_equal(&forty, &all, sizeof all);
    memcpy(key, PORT_RSS_KEY_DEFAULT, 20);
    toeplitz_set_up(&zeros, key, 40);
    toeplitz_set_up(&twenty, PORT_RSS_KEY_DEFAULT, 20);
    assert_memory_equal(&zeros, &twenty, sizeof zeros);
}

static void linear(void **state) {
    struct toeplitz toeplitz;
    uint8_t key[40];
    (void)state;
    srandom(1);
    for (int round = 0; round < 1000; round++) {
        struct tcp_address source = {.family = round % 2 == 0 ? 4 : 6}, destination = {.family = source.family};
        for (size_t i = 0; i < sizeof key; i++)
            key[i] = (uint8_t)random();
        toeplitz_set_up(&toeplitz, key, sizeof key);
        for (uint32_t i = 0; i < toeplitz_address_bytes(source.family); i++) {
            source.bytes[i] = (uint8_t)random();
            destination.bytes[i] = (uint8_t)random();
        }
        uint16_t from = (uint16_t)random(), to = (uint16_t)random();
        assert_int_equal(toeplitz_tuple(&toeplitz, &source, &destination, from, to),
                         toeplitz_tuple(&toeplitz, &source, &destination, from, 0) ^
                             toeplitz_port_part(&toeplitz, toeplitz_destination_port_offset(source.family), to));
    }
}

static void default_table(void **state) {
    struct port_rss rss;
    uint32_t entries[3] = {0};
    (void)state;
    toeplitz_rss_default(&rss, 3);
    assert_true(rss.hashes);
    for (uint32_t hash = 0; hash < 4 * PORT_RSS_RETA_DEFAULT; hash++) {
        uint16_t queue = toeplitz_queue(&rss, hash | 0xffff0000u);
        assert_int_equal(queue, hash % PORT_RSS_RETA_DEFAULT % 3);
        entries[queue]++;
    }
    assert_int_equal(entries[0] + entries[1] + entries[2], 4 * PORT_RSS_RETA_DEFAULT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_vectors),
        cmocka_unit_test(key_length),
        cmocka_unit_test(linear),
        cmocka_unit_test(default_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
