/* What is left in memory of private keys once they were loaded, had signed and were freed: nothing, in any mapping of the process, on no
 * stack and not in freed memory either. Another process makes the keys and the pieces of them that are looked for, in disguise. */
#include "fixture.h"

#include "control/sign/lanes_key.h"
#include "control/sign/signer.h"

#include <wolfssl/wolfcrypt/sha512.h>

#include <poll.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { PIECES_MAX = 128, PIECE_BYTES = 16, TASKS = 48, MAPPING_MAX = 64 << 20, PATIENCE_MS = 20000 };
#define DISGUISE UINT64_C(0xa51b93d7c2e84f69)

struct pieces {
    unsigned count;
    struct piece {
        uint64_t disguised[PIECE_BYTES / 8];
        char what[32];
    } of[PIECES_MAX];
};
static struct pieces *pieces; /* shared with the process that makes them */

/* -- in the other process -- */

static void add(const char *what, const void *bytes) {
    struct piece *piece = &pieces->of[pieces->count++];
    memcpy(piece->disguised, bytes, PIECE_BYTES);
    for (unsigned i = 0; i < PIECE_BYTES / 8; i++)
        piece->disguised[i] ^= DISGUISE;
    snprintf(piece->what, sizeof(piece->what), "%s", what);
}

/* Its middle, as files have it and as machines do. */
static void add_number(const char *what, mp_int *number) {
    uint8_t bytes[512], turned[PIECE_BYTES];
    int length = mp_unsigned_bin_size(number), middle = length / 2 / 8 * 8;
    mp_to_unsigned_bin(number, bytes);
    add(what, bytes + middle);
    for (int i = 0; i < PIECE_BYTES; i++)
        turned[i] = bytes[middle + PIECE_BYTES - 1 - i];
    add(what, turned);
}

/* As keys have it, and as a batch in which every lane has the same. */
static void add_digits(const char *what, const uint64_t *digits) {
    add(what, digits + 8);
    add(what, (const uint64_t[]){digits[9], digits[9]});
}

static void add_rsa(const struct dkim_key *key) {
    static struct dkim_private decoded;
    dkim_key_decode(key, &decoded);
    RsaKey *rsa = &decoded.rsa;
    mp_int *const numbers[] = {&rsa->d, &rsa->p, &rsa->q, &rsa->dP, &rsa->dQ, &rsa->u};
    static const char *const names[] = {"d", "p", "q", "dp", "dq", "qinv"};
    for (int i = 0; i < 6; i++)
        add_number(names[i], numbers[i]);
    for (int i = 0; key->lanes != NULL && i < 2; i++) {
        add_digits(i == 0 ? "digits of p" : "digits of q", key->lanes->halves[i].prime);
        add_digits(i == 0 ? "words of dp" : "words of dq", key->lanes->halves[i].exponent);
        add_digits(i == 0 ? "R^2 mod p" : "R^2 mod q", key->lanes->halves[i].r2);
    }
}

/* RFC 8032 5.1.5: the seed, the scalar and the prefix that it is hashed to. */
static void add_ed25519(const struct dkim_key *key) {
    uint8_t seed[ED25519_KEY_SIZE], hash[WC_SHA512_DIGEST_SIZE];
    word32 length = sizeof(seed);
    wc_ed25519_export_private_only(&key->decoded->ed25519, seed, &length);
    wc_Sha512Hash(seed, sizeof(seed), hash);
    add("seed", seed);
    add("seed", seed + PIECE_BYTES);
    add("scalar", hash + 8);
    add("prefix", hash + 32);
    add("prefix", hash + 48);
}

/* A line of it. */
static void add_pem(const char *path) {
    uint8_t text[8192];
    size_t length = read_whole(path, text, sizeof(text) - 1);
    text[length] = '\0';
    add("text of a file", strchr((char *)text, '\n') + 8);
}

static void make_keys(void) {
    const struct {
        const char *path;
        enum dkim_algorithm algorithm;
        uint32_t bits;
    } made[] = {{key_2048, DKIM_RSA, 2048}, {key_1024, DKIM_RSA, 1024}, {key_ed25519, DKIM_ED25519, 0}};
    for (size_t i = 0; i < sizeof(made) / sizeof(made[0]); i++) {
        struct dkim_key key = {0};
        unsigned mode;
        char *record;
        if (dkim_keygen(made[i].path, made[i].algorithm, made[i].bits, &record, error, sizeof(error)) < 0 ||
            dkim_key_read(made[i].path, &key, &mode, error, sizeof(error)) < 0 || dkim_key_prepare(&key) < 0)
            _exit(1);
        if (key.algorithm == DKIM_RSA)
            add_rsa(&key);
        else
            add_ed25519(&key);
        add_pem(made[i].path);
    }
    write_file(in_directory("identity"), "0123456789abcdef0123456789abcdef", 32);
    _exit(0);
}

static int set_up_apart(void **state) {
    int status;
    if (mkdtemp(directory) == NULL)
        return -1;
    strcpy(key_2048, in_directory("2048.pem"));
    strcpy(key_1024, in_directory("1024.pem"));
    strcpy(key_ed25519, in_directory("ed25519.pem"));
    pieces = mmap(NULL, sizeof(*pieces), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t child = pieces == MAP_FAILED ? -1 : fork();
    if (child == 0)
        make_keys();
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
        return -1;
    identity = identity_load(in_directory("identity"));
    return identity == NULL;
}

/* -- in this one -- */

/* Tells which piece lies there, without making a copy of it. */
static __attribute__((no_sanitize("address", "undefined"))) const struct piece *piece_at(const uint8_t *at) {
    uint64_t first = *(const uint64_t *)(const void *)at ^ DISGUISE, second = *(const uint64_t *)(const void *)(at + 8) ^ DISGUISE;
    for (unsigned i = 0; i < pieces->count; i++)
        if (pieces->of[i].disguised[0] == first && pieces->of[i].disguised[1] == second)
            return &pieces->of[i];
    return NULL;
}

static bool wanted[1 << 16]; /* the first two bytes of pieces */

static __attribute__((no_sanitize("address", "undefined"))) unsigned scan(const uint8_t *at, const uint8_t *end, const char *name) {
    unsigned found = 0;
    for (; at + PIECE_BYTES <= end; at++) {
        const struct piece *piece = wanted[*(const uint16_t *)(const void *)at] ? piece_at(at) : NULL;
        if (piece == NULL)
            continue;
        if (name != NULL)
            print_message("%s at %p in %s\n", piece->what, (const void *)at, name);
        found++;
    }
    return found;
}

/* In all memory that this process can write. */
static unsigned find_pieces(bool tell) {
    char line[512], access[8], name[256];
    unsigned long from, to;
    unsigned found = 0;
    for (unsigned i = 0; i < pieces->count; i++)
        wanted[(uint16_t)(pieces->of[i].disguised[0] ^ DISGUISE)] = true;
    FILE *maps = fopen("/proc/self/maps", "r");
    assert_non_null(maps);
    while (fgets(line, sizeof(line), maps) != NULL) {
        strcpy(name, "memory without a name");
        if (sscanf(line, "%lx-%lx %7s %*s %*s %*s %255[^\n]", &from, &to, access, name) < 3 || strncmp(access, "rw-p", 4) != 0 ||
            to - from > MAPPING_MAX)
            continue;
        found += scan((const uint8_t *)from, (const uint8_t *)to, tell ? name : NULL);
    }
    fclose(maps);
    return found;
}

static void sign_all(struct dkim_signer *signer, bool has_lanes, enum lanes_way way) {
    static struct message messages[TASKS];
    void *user;
    int status;
    dkim_signer_force(signer, has_lanes, way);
    for (int i = 0; i < TASKS; i++) {
        message_init(&messages[i]);
        render(&messages[i]);
        assert_int_equal(dkim_begin(signer, &messages[i], NULL, 1700000000, &messages[i]), 3);
        dkim_flush(signer, i % 16 == 15);
        while (dkim_next(signer, &user, &status)) {
            assert_int_equal(status, 0);
            message_free(user);
        }
    }
}

static struct config_dkim_key configured[] = {{.domain = "example.org", .selector = "a", .key_file = key_2048},
                                              {.domain = "example.org", .selector = "b", .key_file = key_1024},
                                              {.domain = "example.org", .selector = "c", .key_file = key_ed25519}};

static void nothing_is_left_of_keys_that_have_signed(void **state) {
    assert_int_equal(find_pieces(true), 0);
    struct dkim_keys *keys = load_good(configured, 3);
    struct dkim_signer *signer = dkim_signer_create(keys);
    sign_all(signer, false, LANES_PLAIN);
    if (lanes_can(LANES_IFMA))
        sign_all(signer, true, LANES_IFMA);
    assert_true(find_pieces(false) > 0); /* else what is looked for is not what keys consist of */
    dkim_signer_free(signer);
    dkim_keys_free(keys);
    assert_int_equal(find_pieces(true), 0);
}

static void nothing_is_left_on_the_stacks_of_a_press(void **state) {
    struct config config = {.max_message_bytes = 1 << 20};
    static struct press_task tasks[TASKS];
    struct dkim_keys *keys = load_good(configured, 3);
    struct press_config press_config = {
        .threads = 2, .capacity = TASKS, .config = &config, .identity = identity, .keys = keys, .shards = 1};
    struct press *press = press_create(&press_config);
    for (int i = 0; i < TASKS; i++) {
        tasks[i] = (struct press_task){.job = &job};
        assert_true(press_submit(press, 0, &tasks[i]));
    }
    for (int count = 0; count < TASKS;) {
        struct pollfd wait = {.fd = press_descriptor(press, 0), .events = POLLIN};
        assert_int_equal(poll(&wait, 1, PATIENCE_MS), 1);
        for (struct press_task *task = press_collect(press, 0); task != NULL; task = task->next, count++)
            assert_int_equal(task->signatures, 3);
    }
    for (int i = 0; i < TASKS; i++)
        message_free(&tasks[i].message);
    press_destroy(press);
    dkim_keys_free(keys);
    assert_int_equal(find_pieces(true), 0);
}

/* With an error on the way. */
static void nothing_is_left_of_keys_that_are_refused(void **state) {
    struct config_dkim_key with_bad[] = {configured[0], configured[1], configured[2], configured[0]};
    with_bad[3].key_file = (char *)"/nonexistent/key.pem";
    assert_null(load(with_bad, 4));
    struct config_dkim_key many[] = {configured[0], configured[1], configured[2], configured[0], configured[1]};
    assert_null(load(many, 5));
    assert_int_equal(find_pieces(true), 0);
}

static void nothing_is_left_of_a_key_whose_record_was_asked_for(void **state) {
    for (int i = 0; i < 3; i++) {
        char *record;
        assert_int_equal(dkim_public_record(configured[i].key_file, &record, error, sizeof(error)), 0);
        free(record);
    }
    assert_int_equal(find_pieces(true), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_left_of_keys_that_have_signed),
        cmocka_unit_test(nothing_is_left_on_the_stacks_of_a_press),
        cmocka_unit_test(nothing_is_left_of_keys_that_are_refused),
        cmocka_unit_test(nothing_is_left_of_a_key_whose_record_was_asked_for),
    };
    return cmocka_run_group_tests_name("sign/wiped", tests, set_up_apart, tear_down);
}
