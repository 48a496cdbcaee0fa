/* fixture.h: keys, an identity and a job, for the tests of this folder. */
#ifndef TESTS_UNIT_SIGN_FIXTURE_H
#define TESTS_UNIT_SIGN_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "control/sign/keys.h"
#include "control/sign/sign.h"

#include <wolfssl/wolfcrypt/asn_public.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[] = "/tmp/bypost-sign-XXXXXX";
static char key_2048[64], key_1024[64], key_pkcs1[64], key_ed25519[64], key_other[64];
static char error[512];
static struct identity *identity;

static inline const char *in_directory(const char *name) {
    static char path[128];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    return path;
}

static inline void write_file(const char *path, const void *bytes, size_t length) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    fclose(file);
    chmod(path, 0600);
}

static inline size_t read_whole(const char *path, uint8_t *bytes, size_t room) {
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t length = fread(bytes, 1, room, file);
    fclose(file);
    return length;
}

static inline int set_up(void **state) {
    char *record;
    if (mkdtemp(directory) == NULL)
        return -1;
    strcpy(key_2048, in_directory("2048.pem"));
    strcpy(key_1024, in_directory("1024.pem"));
    strcpy(key_pkcs1, in_directory("pkcs1.pem"));
    strcpy(key_ed25519, in_directory("ed25519.pem"));
    strcpy(key_other, in_directory("other.pem"));
    const struct {
        const char *path;
        enum dkim_algorithm algorithm;
        uint32_t bits;
    } made[] = {{key_2048, DKIM_RSA, 2048}, {key_1024, DKIM_RSA, 1024}, {key_other, DKIM_RSA, 2048}, {key_ed25519, DKIM_ED25519, 0}};
    for (size_t i = 0; i < sizeof(made) / sizeof(made[0]); i++) {
        if (dkim_keygen(made[i].path, made[i].algorithm, made[i].bits, &record, error, sizeof(error)) < 0)
            return -1;
        free(record);
    }
    /* The same key as the other form of PEM. */
    uint8_t pem[8192], der[8192], inner[8192];
    size_t length = read_whole(key_2048, pem, sizeof(pem));
    int der_length = wc_KeyPemToDer(pem, (int)length, der, sizeof(der), NULL);
    RsaKey rsa;
    word32 at = 0;
    wc_InitRsaKey(&rsa, NULL);
    if (wc_RsaPrivateKeyDecode(der, &at, &rsa, (word32)der_length) != 0)
        return -1;
    int inner_length = wc_RsaKeyToDer(&rsa, inner, sizeof(inner));
    int pem_length = wc_DerToPem(inner, (word32)inner_length, pem, sizeof(pem), PRIVATEKEY_TYPE);
    wc_FreeRsaKey(&rsa);
    write_file(key_pkcs1, pem, (size_t)pem_length);
    write_file(in_directory("identity"), "0123456789abcdef0123456789abcdef", 32);
    identity = identity_load(in_directory("identity"));
    return identity == NULL;
}

static inline int tear_down(void **state) {
    static const char *const names[] = {"2048.pem", "1024.pem", "pkcs1.pem", "ed25519.pem", "other.pem", "identity", "bad.pem", "new.pem"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        unlink(in_directory(names[i]));
    identity_free(identity);
    return rmdir(directory);
}

static unsigned warnings;
static char last_warning[512];
static inline void count_warning(void *context, const char *sentence) {
    warnings++;
    snprintf(last_warning, sizeof(last_warning), "%s", sentence);
}

static inline struct dkim_keys *load(struct config_dkim_key *keys, uint32_t count) {
    struct config config = {.dkim = keys, .dkim_count = count};
    warnings = 0;
    error[0] = '\0';
    return dkim_keys_load(&config, count_warning, NULL, error, sizeof(error));
}

static inline struct dkim_keys *load_good(struct config_dkim_key *keys, uint32_t count) {
    struct dkim_keys *loaded = load(keys, count);
    if (loaded == NULL)
        fail_msg("%s", error);
    return loaded;
}

static struct job_recipient recipient = {.mailbox = {.email = (char *)"bob@example.net"}, .kind = RECIPIENT_PRIVATE};
static struct job job = {.queue = "normal",
                         .from = {.email = (char *)"ann@news.example.org"},
                         .subject = (char *)"Hello",
                         .text = (char *)"Hi\n",
                         .recipients = &recipient,
                         .recipient_total = 1};

static inline void render(struct message *message) {
    assert_int_equal(render_message(&job, 0, 1700000000, identity, 1 << 20, message, error, sizeof(error)), 0);
}

#endif
