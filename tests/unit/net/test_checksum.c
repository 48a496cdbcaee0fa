/* test_checksum.c: the internet checksum against the plain definition (RFC 1071), in place, while copying, and joined from pieces. */
#include "dataplane/port/checksum.h"
#include "peer.h"
#include <stdlib.h>
#include <string.h>

enum { BYTES = 4096 };

static uint8_t bytes[BYTES];
static uint32_t random_state;

/* xorshift: the same numbers everywhere. */
static uint32_t random_next(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state;
}

static void fill(unsigned seed, int ones) {
    random_state = seed * 2654435761u + 1;
    for (uint32_t i = 0; i < BYTES; i++)
        bytes[i] = ones ? 0xff : (uint8_t)random_next();
}

static uint16_t finished(uint64_t sum) {
    uint16_t checksum = checksum_finish(sum);
    uint8_t stored[2];
    memcpy(stored, &checksum, 2);
    return (uint16_t)(stored[0] << 8 | stored[1]);
}

/* RFC 1071 section 3: the words 0001 f203 f4f5 f6f7 sum to ddf2. */
static void test_example_of_the_rfc(void **state) {
    static const uint8_t example[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
    assert_int_equal(finished(checksum_add(0, example, sizeof example)), (uint16_t)~0xddf2);
}

static void test_every_length(void **state) {
    for (int ones = 0; ones < 2; ones++) {
        fill(1, ones);
        for (uint32_t length = 0; length < 300; length++)
            for (uint32_t offset = 0; offset < 4; offset++)
                assert_int_equal(finished(checksum_add(0, bytes + offset, length)), sum16(bytes + offset, length, 0));
        assert_int_equal(finished(checksum_add(0, bytes, BYTES)), sum16(bytes, BYTES, 0));
    }
}

static void test_copy_is_exact(void **state) {
    uint8_t copy[BYTES + 2];
    fill(2, 0);
    for (uint32_t length = 0; length < 200; length++) {
        memset(copy, 0xa5, sizeof copy);
        assert_int_equal(finished(checksum_pass(copy + 1, bytes, length)), sum16(bytes, length, 0));
        assert_memory_equal(copy + 1, bytes, length);
        assert_int_equal(copy[0], 0xa5);
        assert_int_equal(copy[length + 1], 0xa5);
    }
}

/* RFC 1071 2 (B): a block at an odd offset counts with its bytes swapped. */
static void test_pieces_of_any_length_join(void **state) {
    fill(3, 0);
    for (unsigned seed = 0; seed < 200; seed++) {
        random_state = seed * 2654435761u + 1;
        uint64_t sum = 0;
        uint32_t offset = 0;
        while (offset < 1460) {
            uint32_t length = random_next() % 97;
            length = length < 1460 - offset ? length : 1460 - offset;
            sum = checksum_join(sum, checksum_pass(NULL, bytes + offset, length), offset);
            offset += length;
        }
        assert_int_equal(finished(sum), sum16(bytes, 1460, 0));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_example_of_the_rfc),
        cmocka_unit_test(test_every_length),
        cmocka_unit_test(test_copy_is_exact),
        cmocka_unit_test(test_pieces_of_any_length_join),
    };
    return cmocka_run_group_tests_name("net_checksum", tests, NULL, NULL);
}
