/* lanes_probe: what takes the lanes longer than a unit test has.
 *
 * usage: lanes_probe million [SIGNATURES]     random signatures over many keys, each opened by wolfSSL with the public key, 20,000 of them
 *                                             compared with wolfSSL's own byte for byte; a third of the batches have empty lanes
 *        lanes_probe timing [SECONDS of each] whether the time of a batch depends on what it signs and with what (Welch's t, as dudect
 * does) lanes_probe prepare FILE             a key, messages and their signatures, for valgrind lanes_probe secret FILE     the lanes in
 * plain C with the key and the messages marked as undefined: memcheck tells every branch and every address that depends on them valgrind
 * lanes_probe leaky FILE      the same with a fault, which memcheck must tell Status: 0 when all is as it should be. */
#include "control/sign/lanes_key.h"
#include "lanes_leaky.h"
#include "lanes_rsa.h"

#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#endif

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { KEYS = 64, SIGNATURES = 1000000, COMPARED = 20000, ALL_LANES = (1 << LANES) - 1 };

static WC_RNG rng;
static struct lanes_rsa made[KEYS];

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static bool keys_make(unsigned count) {
    for (unsigned i = 0; i < count; i++)
        if (!lanes_rsa_make(&made[i], &rng, LANES_BITS, LANES_EXPONENT) || made[i].key == NULL)
            return false;
    return true;
}

/* Numbers below 2^2040; every other one padded as DKIM's are. */
static bool message_make(uint8_t encoded[LANES_BYTES], bool padded) {
    bool good = padded ? lanes_random_encoded(&rng, encoded) : wc_RNG_GenerateBlock(&rng, encoded, LANES_BYTES) == 0;
    encoded[0] = 0;
    return good;
}

static uint32_t random_number(void) {
    uint32_t number = 0;
    if (wc_RNG_GenerateBlock(&rng, (uint8_t *)&number, sizeof(number)) != 0)
        abort();
    return number;
}

/* ---- million ---- */

static int million(unsigned long wanted) {
    static uint8_t encoded[LANES][LANES_BYTES], signatures[LANES][LANES_BYTES];
    enum lanes_way way = lanes_can(LANES_IFMA) ? LANES_IFMA : LANES_PLAIN;
    unsigned long signed_all = 0, compared = 0, wrong = 0, batches = 0, every = wanted > COMPARED ? wanted / COMPARED : 1;
    double from = seconds_now();
    if (!keys_make(KEYS))
        return 2;
    printf("%u keys in %.0f s; %s\n", KEYS, seconds_now() - from, way == LANES_IFMA ? "AVX-512 IFMA" : "plain C: no AVX-512 IFMA here");
    for (; signed_all < wanted; batches++) {
        const struct lanes_key *keys[LANES];
        unsigned which[LANES];
        uint32_t present = batches % 3 == 0 ? random_number() & ALL_LANES : ALL_LANES;
        for (unsigned lane = 0; lane < LANES; lane++) {
            which[lane] = random_number() % KEYS;
            keys[lane] = (present >> lane & 1) != 0 ? made[which[lane]].key : NULL;
            if (!message_make(encoded[lane], lane % 2 == 0))
                return 2;
        }
        wrong += lanes_sign(way, keys, encoded, signatures) != present;
        for (unsigned lane = 0; lane < LANES; lane++) {
            uint8_t other[LANES_BYTES];
            if (keys[lane] == NULL)
                continue;
            struct lanes_rsa *key = &made[which[lane]];
            wrong += !lanes_rsa_open(key, &rng, signatures[lane], other) || memcmp(other, encoded[lane], LANES_BYTES) != 0;
            if (signed_all++ % every == 0 && compared < COMPARED) {
                wrong += !lanes_rsa_sign(key, &rng, encoded[lane], other) || memcmp(other, signatures[lane], LANES_BYTES) != 0;
                compared++;
            }
        }
    }
    printf("%lu signatures in %lu batches, each opened with its public key, %lu equal to wolfSSL's; %lu wrong; %.0f s\n", signed_all,
           batches, compared, wrong, seconds_now() - from);
    return wrong != 0;
}

/* ---- timing ---- */

enum { SAMPLES_MAX = 400000, POOL = 12 };
/* Beyond this the two classes differ (Reparaz, Balasch, Verbauwhede 2016). */
static const double T_MAX = 4.5;
/* The slowest samples were interrupted, and tell nothing: of several shares that are kept the worst t counts. */
static const double KEPT[] = {0.95, 0.75, 0.5};

struct sample {
    uint64_t cycles;
    int class;
};
struct contest {
    const char *name;
    uint32_t (*sign)(const struct lanes_key *const keys[LANES], const uint8_t encoded[LANES][LANES_BYTES],
                     uint8_t signatures[LANES][LANES_BYTES]);
    /* Fills one batch of the class: 0 is the fixed one. */
    void (*fill)(struct lanes_key *key, uint8_t encoded[LANES][LANES_BYTES], int class);
    bool leaks;
};

static void fill_messages(uint8_t encoded[LANES][LANES_BYTES], bool fixed) {
    for (unsigned lane = 0; lane < LANES; lane++)
        if (!message_make(encoded[lane], true))
            abort();
    if (fixed)
        for (unsigned lane = 0; lane < LANES; lane++)
            memset(encoded[lane] + LANES_BYTES / 2, 0x5a, LANES_BYTES / 2);
}

static void fill_keys(struct lanes_key *key, uint8_t encoded[LANES][LANES_BYTES], int class) {
    uint32_t which = random_number() % (POOL - 1);
    memcpy(key, made[class == 0 ? 0 : which + 1].key, sizeof(*key));
    fill_messages(encoded, false);
}

static void fill_numbers(struct lanes_key *key, uint8_t encoded[LANES][LANES_BYTES], int class) {
    memcpy(key, made[0].key, sizeof(*key));
    fill_messages(encoded, class == 0);
}

/* Messages 0: every digit of every intermediate is zero. */
static void fill_zeros(struct lanes_key *key, uint8_t encoded[LANES][LANES_BYTES], int class) {
    memcpy(key, made[0].key, sizeof(*key));
    fill_messages(encoded, false);
    if (class == 0)
        memset(encoded, 0, LANES * LANES_BYTES);
}

/* Exponents without a bit, which no key has: what such a batch gives is refused, but it takes its time. */
static void fill_exponents(struct lanes_key *key, uint8_t encoded[LANES][LANES_BYTES], int class) {
    fill_keys(key, encoded, 1);
    if (class == 0)
        for (unsigned i = 0; i < 2; i++)
            memset(key->halves[i].exponent, 0, sizeof(key->halves[i].exponent));
}

static uint64_t cycles_now(void) {
#if defined(__x86_64__)
    __builtin_ia32_lfence();
    uint64_t now = __builtin_ia32_rdtsc();
    __builtin_ia32_lfence();
    return now;
#else
    return (uint64_t)(seconds_now() * 1e9);
#endif
}

static int sample_compare(const void *a, const void *b) {
    const struct sample *one = a, *other = b;
    return (one->cycles > other->cycles) - (one->cycles < other->cycles);
}

static double welch(const struct sample *samples, unsigned long count) {
    double sum[2] = {0}, squares[2] = {0}, n[2] = {0};
    for (unsigned long i = 0; i < count; i++) {
        n[samples[i].class]++;
        sum[samples[i].class] += (double)samples[i].cycles;
    }
    for (unsigned long i = 0; i < count; i++) {
        double off = (double)samples[i].cycles - sum[samples[i].class] / n[samples[i].class];
        squares[samples[i].class] += off * off;
    }
    if (n[0] < 2 || n[1] < 2)
        return 0;
    double of_means = squares[0] / (n[0] - 1) / n[0] + squares[1] / (n[1] - 1) / n[1];
    return of_means > 0 ? (sum[0] / n[0] - sum[1] / n[1]) / sqrt(of_means) : 0;
}

static bool contest_run(const struct contest *contest, struct sample *samples, double seconds) {
    static uint8_t encoded[LANES][LANES_BYTES], signatures[LANES][LANES_BYTES];
    static struct lanes_key key; /* at one address for both classes */
    const struct lanes_key *keys[LANES];
    unsigned long count = 0;
    for (unsigned lane = 0; lane < LANES; lane++)
        keys[lane] = &key;
    for (double until = seconds_now() + seconds; count < SAMPLES_MAX && seconds_now() < until; count++) {
        samples[count].class = (int)(random_number() & 1);
        contest->fill(&key, encoded, samples[count].class);
        uint64_t from = cycles_now();
        contest->sign(keys, encoded, signatures);
        samples[count].cycles = cycles_now() - from;
    }
    qsort(samples, count, sizeof(*samples), sample_compare);
    double t = 0;
    for (size_t i = 0; i < sizeof(KEPT) / sizeof(KEPT[0]); i++) {
        double one = welch(samples, (unsigned long)((double)count * KEPT[i]));
        t = fabs(one) > fabs(t) ? one : t;
    }
    bool as_expected = contest->leaks == (fabs(t) > T_MAX);
    printf("%-46s t = %8.2f  %lu samples, median %.0f cycles%s\n", contest->name, t, count,
           count > 0 ? (double)samples[count / 2].cycles : 0,
           as_expected      ? ""
           : contest->leaks ? "  NOT FOUND"
                            : "  LEAKS");
    fflush(stdout);
    return as_expected;
}

static int timing(double seconds) {
    const bool fast = lanes_can(LANES_IFMA);
    struct contest contests[] = {
        {"one key / others", lanes_sign_plain, fill_keys, false},
        {"one half of the message / any", lanes_sign_plain, fill_numbers, false},
        {"message 0 / any", lanes_sign_plain, fill_zeros, false},
        {"exponents 0 / any", lanes_sign_plain, fill_exponents, false},
        {"leaky: exponents 0 / any; must be found", lanes_sign_leaky, fill_exponents, true},
    };
    struct sample *samples = calloc(SAMPLES_MAX, sizeof(*samples));
    int failed = 0;
    if (samples == NULL || !keys_make(POOL))
        return 2;
    for (size_t i = 0; i < sizeof(contests) / sizeof(contests[0]); i++) {
#ifdef LANES_HAVE_IFMA
        if (fast)
            contests[i].sign = contests[i].leaks ? lanes_sign_leaky_ifma : lanes_sign_ifma;
#endif
        failed += !contest_run(&contests[i], samples, seconds);
    }
    printf("%s; |t| < %.1f says that no difference was found\n", fast ? "AVX-512 IFMA" : "plain C: no AVX-512 IFMA here", T_MAX);
    free(samples);
    return failed != 0;
}

/* ---- secret ---- */

struct prepared {
    struct lanes_key key;
    uint8_t encoded[LANES][LANES_BYTES], signatures[LANES][LANES_BYTES];
};

static int prepare(const char *path) {
    static struct prepared prepared;
    if (!keys_make(1))
        return 2;
    memcpy(&prepared.key, made[0].key, sizeof(prepared.key));
    for (unsigned lane = 0; lane < LANES; lane++)
        if (!message_make(prepared.encoded[lane], true) ||
            !lanes_rsa_sign(&made[0], &rng, prepared.encoded[lane], prepared.signatures[lane]))
            return 2;
    FILE *file = fopen(path, "w");
    bool written = file != NULL && fwrite(&prepared, sizeof(prepared), 1, file) == 1;
    if (file != NULL && fclose(file) != 0)
        written = false;
    if (!written)
        perror(path);
    return written ? 0 : 2;
}

static int secret(const char *path, bool leaky) {
#ifdef VALGRIND_MAKE_MEM_UNDEFINED
    static struct prepared prepared;
    static uint8_t signatures[LANES][LANES_BYTES];
    const struct lanes_key *keys[LANES];
    FILE *file = fopen(path, "r");
    if (!RUNNING_ON_VALGRIND || file == NULL || fread(&prepared, sizeof(prepared), 1, file) != 1) {
        fprintf(stderr, "lanes_probe: run it under valgrind, with a FILE that `lanes_probe prepare FILE` wrote\n");
        return 2;
    }
    fclose(file);
    for (unsigned lane = 0; lane < LANES; lane++)
        keys[lane] = &prepared.key;
    (void)VALGRIND_MAKE_MEM_UNDEFINED(&prepared.key, sizeof(prepared.key));
    (void)VALGRIND_MAKE_MEM_UNDEFINED(prepared.encoded, sizeof(prepared.encoded));
    uint32_t good = (leaky ? lanes_sign_leaky : lanes_sign_plain)(keys, prepared.encoded, signatures);
    /* Signatures, and whether they are good, are for everybody. */
    (void)VALGRIND_MAKE_MEM_DEFINED(&good, sizeof(good));
    (void)VALGRIND_MAKE_MEM_DEFINED(signatures, sizeof(signatures));
    bool right = good == ALL_LANES && memcmp(signatures, prepared.signatures, sizeof(signatures)) == 0;
    printf("%lu places depended on a secret; the signatures are %s\n", (unsigned long)VALGRIND_COUNT_ERRORS, right ? "right" : "wrong");
    return right && VALGRIND_COUNT_ERRORS == 0 ? 0 : 1;
#else
    fprintf(stderr, "lanes_probe: built without valgrind's headers\n");
    return 2;
#endif
}

int main(int count, char **arguments) {
    const char *what = count > 1 ? arguments[1] : "", *more = count > 2 ? arguments[2] : NULL;
    if (more != NULL && (strcmp(what, "secret") == 0 || strcmp(what, "leaky") == 0))
        return secret(more, what[0] == 'l');
    if (wc_InitRng(&rng) != 0)
        return 2;
    if (strcmp(what, "million") == 0)
        return million(more != NULL ? strtoul(more, NULL, 10) : SIGNATURES);
    if (strcmp(what, "timing") == 0)
        return timing(more != NULL ? atof(more) : 60);
    if (strcmp(what, "prepare") == 0 && more != NULL)
        return prepare(more);
    fprintf(stderr, "usage: lanes_probe million [SIGNATURES] | timing [SECONDS] | prepare FILE | secret FILE | leaky FILE\n");
    return 2;
}
