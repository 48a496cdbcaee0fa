/* Eight RSA-2048 signatures at once (RFC 8017 5.2.1, RSASP1): equal to wolfSSL's, checked before they are given out, and only for keys
 * whose numbers belong together (RFC 8017 3.2). Both ways to compute, where the processor has AVX-512 IFMA. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "control/sign/lanes_key.h"
#include "lanes_rsa.h"

#include <stdio.h>
#include <string.h>

enum { KEYS = 3, ALL_LANES = (1 << LANES) - 1, UNTOUCHED = 0xa5 };

static WC_RNG rng;
static struct lanes_rsa made[KEYS];
static uint8_t encoded[LANES][LANES_BYTES], signatures[LANES][LANES_BYTES];
static const struct lanes_key *keys[LANES];

static int set_up(void **state) {
    if (wc_InitRng(&rng) != 0)
        return -1;
    for (unsigned i = 0; i < KEYS; i++)
        if (!lanes_rsa_make(&made[i], &rng, LANES_BITS, LANES_EXPONENT) || made[i].key == NULL)
            return -1;
    return 0;
}

static int tear_down(void **state) {
    for (unsigned i = 0; i < KEYS; i++)
        lanes_rsa_free(&made[i]);
    wc_FreeRng(&rng);
    return 0;
}

static enum lanes_way way_of(void **state) {
    return *(const enum lanes_way *)*state;
}

static void skip_unless_possible(enum lanes_way way) {
    if (!lanes_can(way)) {
        print_message("this processor has no AVX-512 IFMA\n");
        skip();
    }
}

/* Random numbers below 2^2040, so below every n; every lane has a key. */
static void fill(void) {
    assert_int_equal(wc_RNG_GenerateBlock(&rng, encoded[0], sizeof(encoded)), 0);
    for (unsigned lane = 0; lane < LANES; lane++) {
        encoded[lane][0] = 0;
        keys[lane] = made[lane % KEYS].key;
    }
    memset(signatures, UNTOUCHED, sizeof(signatures));
}

static void assert_is_wolfssl(unsigned lane) {
    uint8_t expected[LANES_BYTES];
    assert_true(lanes_rsa_sign(&made[lane % KEYS], &rng, encoded[lane], expected));
    assert_memory_equal(signatures[lane], expected, LANES_BYTES);
}

static void assert_is_filled(unsigned lane, uint8_t with) {
    for (unsigned i = 0; i < LANES_BYTES; i++)
        assert_int_equal(signatures[lane][i], with);
}

static void is_available(void **state) {
    assert_true(lanes_can(LANES_PLAIN));
    assert_int_equal(lanes_can(LANES_IFMA), lanes_can(LANES_IFMA));
    assert_false(lanes_can((enum lanes_way)(LANES_IFMA + 1)));
}

/* A way that is not there gives no signature, and nothing that could be taken for one. */
static void refuses_ways_it_has_not(void **state) {
    fill();
    assert_int_equal(lanes_sign((enum lanes_way)(LANES_IFMA + 1), keys, encoded, signatures), 0);
    for (unsigned lane = 0; lane < LANES; lane++)
        assert_is_filled(lane, 0);
}

static void equals_wolfssl(void **state) {
    enum lanes_way way = way_of(state);
    skip_unless_possible(way);
    for (unsigned round = 0; round < (way == LANES_IFMA ? 8 : 2); round++) {
        fill();
        if (round % 2 == 1)
            for (unsigned lane = 0; lane < LANES; lane++)
                assert_true(lanes_random_encoded(&rng, encoded[lane]));
        assert_int_equal(lanes_sign(way, keys, encoded, signatures), ALL_LANES);
        for (unsigned lane = 0; lane < LANES; lane++)
            assert_is_wolfssl(lane);
    }
}

static void leaves_lanes_without_a_key(void **state) {
    const unsigned present = 0x8a;
    enum lanes_way way = way_of(state);
    skip_unless_possible(way);
    fill();
    for (unsigned lane = 0; lane < LANES; lane++)
        if ((present >> lane & 1) == 0)
            keys[lane] = NULL;
    assert_int_equal(lanes_sign(way, keys, encoded, signatures), present);
    for (unsigned lane = 0; lane < LANES; lane++)
        if ((present >> lane & 1) != 0)
            assert_is_wolfssl(lane);
        else
            assert_is_filled(lane, UNTOUCHED);
    memset(keys, 0, sizeof(keys));
    assert_int_equal(lanes_sign(way, keys, encoded, signatures), 0);
}

/* n - 1 is its own signature, because d is odd; 0 and 1 are theirs. p and q are 0 in one of the halves. */
static void signs_edges(void **state) {
    enum lanes_way way = way_of(state);
    skip_unless_possible(way);
    fill();
    memset(encoded, 0, sizeof(encoded));
    encoded[1][LANES_BYTES - 1] = 1;
    memcpy(encoded[2], made[2].numbers.n, LANES_BYTES);
    encoded[2][LANES_BYTES - 1] -= 1;
    memcpy(encoded[3] + LANES_HALF_BYTES, made[0].numbers.p, LANES_HALF_BYTES);
    memcpy(encoded[4] + LANES_HALF_BYTES, made[1].numbers.q, LANES_HALF_BYTES);
    memcpy(encoded[5] + 1, made[2].numbers.p, LANES_HALF_BYTES);
    memset(encoded[6] + 1, 0xff, LANES_BYTES - 1);
    encoded[7][1] = 0x80;
    assert_int_equal(lanes_sign(way, keys, encoded, signatures), ALL_LANES);
    for (unsigned lane = 0; lane < 3; lane++)
        assert_memory_equal(signatures[lane], encoded[lane], LANES_BYTES);
    for (unsigned lane = 3; lane < LANES; lane++) {
        uint8_t opened[LANES_BYTES];
        assert_true(lanes_rsa_open(&made[lane % KEYS], &rng, signatures[lane], opened));
        assert_memory_equal(opened, encoded[lane], LANES_BYTES);
    }
}

/* What is not below n has no signature (RFC 8017 5.2.1, step 1). */
static void refuses_what_is_not_below_n(void **state) {
    enum lanes_way way = way_of(state);
    skip_unless_possible(way);
    fill();
    memcpy(encoded[1], made[1].numbers.n, LANES_BYTES);
    memset(encoded[2], 0xff, LANES_BYTES);
    assert_int_equal(lanes_sign(way, keys, encoded, signatures), ALL_LANES & ~0x06);
    assert_is_filled(1, 0);
    assert_is_filled(2, 0);
    assert_is_wolfssl(3);
}

/* A signature with a fault in one half factors n (Boneh, DeMillo, Lipton 1997): it must not leave. */
static void holds_back_faults(void **state) {
    enum lanes_way way = way_of(state);
    uint64_t *const places[] = {&made[0].key->halves[0].exponent[3],
                                &made[0].key->halves[1].exponent[0],
                                &made[0].key->halves[0].r2[7],
                                &made[0].key->halves[1].prime[19],
                                &made[0].key->qinv[11],
                                &made[0].key->modulus[30]};
    skip_unless_possible(way);
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i += way == LANES_IFMA ? 1 : 3) {
        fill();
        *places[i] ^= 1 << 5;
        uint32_t good = lanes_sign(way, keys, encoded, signatures);
        *places[i] ^= 1 << 5;
        for (unsigned lane = 0; lane < LANES; lane++) {
            assert_int_equal(good >> lane & 1, lane % KEYS != 0);
            if (lane % KEYS == 0)
                assert_is_filled(lane, 0);
            else
                assert_is_wolfssl(lane);
        }
    }
}

static void refuses(struct lanes_numbers *numbers) {
    assert_null(lanes_key_from(numbers));
    *numbers = made[0].numbers;
}

static void refuses_numbers_that_do_not_belong_together(void **state) {
    const struct lanes_numbers *other = &made[1].numbers;
    struct lanes_numbers numbers = made[0].numbers;
    numbers.e = 3;
    refuses(&numbers);
    numbers.n[LANES_BYTES - 1] ^= 2;
    refuses(&numbers);
    memcpy(numbers.n, other->n, LANES_BYTES);
    refuses(&numbers);
    numbers.p[LANES_HALF_BYTES - 1] ^= 1; /* even */
    refuses(&numbers);
    numbers.q[0] &= 0x7f; /* 1023 bits */
    refuses(&numbers);
    memcpy(numbers.q, other->q, LANES_HALF_BYTES);
    refuses(&numbers);
    memcpy(numbers.dp, other->dp, LANES_HALF_BYTES);
    refuses(&numbers);
    numbers.dp[LANES_HALF_BYTES - 1] ^= 2;
    refuses(&numbers);
    memcpy(numbers.dq, numbers.dp, LANES_HALF_BYTES);
    refuses(&numbers);
    memset(numbers.dq, 0, LANES_HALF_BYTES);
    refuses(&numbers);
    memset(numbers.dq, 0xff, LANES_HALF_BYTES); /* not below q - 1 */
    refuses(&numbers);
    numbers.qinv[5] ^= 1;
    refuses(&numbers);
    memset(numbers.qinv, 0xff, LANES_HALF_BYTES); /* not below p */
    refuses(&numbers);
    /* Primes the other way round want another qinv. */
    memcpy(numbers.p, made[0].numbers.q, LANES_HALF_BYTES);
    memcpy(numbers.q, made[0].numbers.p, LANES_HALF_BYTES);
    memcpy(numbers.dp, made[0].numbers.dq, LANES_HALF_BYTES);
    memcpy(numbers.dq, made[0].numbers.dp, LANES_HALF_BYTES);
    refuses(&numbers);
    memcpy(numbers.q, numbers.p, LANES_HALF_BYTES); /* one prime twice */
    memcpy(numbers.dq, numbers.dp, LANES_HALF_BYTES);
    refuses(&numbers);
    struct lanes_key *key = lanes_key_from(&numbers);
    assert_non_null(key);
    lanes_key_free(key);
    lanes_key_free(NULL);
}

/* A whole key, but a smaller one: its primes have 512 bits. */
static void refuses_other_sizes(void **state) {
    struct lanes_rsa small;
    assert_true(lanes_rsa_make(&small, &rng, 1024, LANES_EXPONENT));
    assert_null(small.key);
    lanes_rsa_free(&small);
}

static void put_number(mp_int *number, uint8_t *bytes, int length) {
    int have = mp_unsigned_bin_size(number);
    assert_true(have <= length);
    memset(bytes, 0, (size_t)length);
    assert_int_equal(mp_to_unsigned_bin(number, bytes + length - have), MP_OKAY);
}

/* A composite of 1024 bits for p, with n, dp and qinv made to belong to it: only that nothing signed with it opens tells. */
static void refuses_a_composite(void **state) {
    struct lanes_numbers numbers = made[0].numbers;
    struct lanes_rsa small;
    mp_int e, less, dp, qinv, n;
    assert_true(lanes_rsa_make(&small, &rng, 1024, LANES_EXPONENT));
    mp_int *p = &small.rsa.n, *q = &made[0].rsa.q;
    assert_int_equal(mp_count_bits(p), 8 * LANES_HALF_BYTES);
    assert_int_equal(mp_init_multi(&e, &less, &dp, &qinv, &n, NULL), MP_OKAY);
    assert_int_equal(mp_set_int(&e, LANES_EXPONENT), MP_OKAY);
    assert_int_equal(mp_sub_d(p, 1, &less), MP_OKAY);
    assert_int_equal(mp_invmod(&e, &less, &dp), MP_OKAY);
    assert_int_equal(mp_invmod(q, p, &qinv), MP_OKAY);
    assert_int_equal(mp_mul(p, q, &n), MP_OKAY);
    put_number(p, numbers.p, LANES_HALF_BYTES);
    put_number(&dp, numbers.dp, LANES_HALF_BYTES);
    put_number(&qinv, numbers.qinv, LANES_HALF_BYTES);
    put_number(&n, numbers.n, LANES_BYTES);
    refuses(&numbers);
    mp_clear(&e);
    mp_clear(&less);
    mp_clear(&dp);
    mp_clear(&qinv);
    mp_clear(&n);
    lanes_rsa_free(&small);
}

static void carries_bytes_and_digits(void **state) {
    uint8_t bytes[LANES_BYTES], again[LANES_BYTES];
    uint64_t digits[WHOLE_DIGITS];
    assert_int_equal(wc_RNG_GenerateBlock(&rng, bytes, sizeof(bytes)), 0);
    digits_from_bytes(digits, WHOLE_DIGITS, bytes, LANES_BYTES);
    for (unsigned i = 0; i < WHOLE_DIGITS; i++)
        assert_true(digits[i] <= DIGIT_MASK);
    digits_to_bytes(digits, WHOLE_DIGITS, again, LANES_BYTES);
    assert_memory_equal(bytes, again, LANES_BYTES);
}

int main(void) {
    static enum lanes_way ways[] = {LANES_PLAIN, LANES_IFMA};
#define BOTH_WAYS(test)                                                                                                                    \
    {#test " in plain C", test, NULL, NULL, &ways[0]}, {                                                                                   \
#test " on AVX-512 IFMA", test, NULL, NULL, &ways[1]                                                                               \
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_available),
        cmocka_unit_test(refuses_ways_it_has_not),
        BOTH_WAYS(equals_wolfssl),
        BOTH_WAYS(leaves_lanes_without_a_key),
        BOTH_WAYS(signs_edges),
        BOTH_WAYS(refuses_what_is_not_below_n),
        BOTH_WAYS(holds_back_faults),
        cmocka_unit_test(refuses_numbers_that_do_not_belong_together),
        cmocka_unit_test(refuses_other_sizes),
        cmocka_unit_test(refuses_a_composite),
        cmocka_unit_test(carries_bytes_and_digits),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
