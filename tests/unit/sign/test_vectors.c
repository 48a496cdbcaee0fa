/* RFC 8463 Appendix A: one message (that of RFC 6376 A.2), an Ed25519 and an RSA key, both signatures. A small verifier, built on the
 * signer's canonicalisation, accepts the RFC's signatures, and so the signer's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "control/sign/canonical.h"
#include "control/sign/sign.h"

#include <wolfssl/wolfcrypt/asn.h>
#include <wolfssl/wolfcrypt/coding.h>
#include <wolfssl/wolfcrypt/ed25519.h>
#include <wolfssl/wolfcrypt/rsa.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DIGEST = WC_SHA256_DIGEST_SIZE, FIELDS_MAX = 32, TEXT_MAX = 4096 };

/* RFC 8463 A.1, A.2: RFC 8032 7.1's first key as PKCS#8 (RFC 8410 7), the RSA key of 1024 bits, and what DNS has. */
static const char ed25519_pem[] = "-----BEGIN PRIVATE KEY-----\n"
                                  "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n"
                                  "-----END PRIVATE KEY-----\n";
static const char ed25519_record[] = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
static const char rsa_pem[] = "-----BEGIN RSA PRIVATE KEY-----\n"
                              "MIICXQIBAAKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQi\n"
                              "Y/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqM\n"
                              "KrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB\n"
                              "AoGAH0cxOhFZDgzXWhDhnAJDw5s4roOXN4OhjiXa8W7Y3rhX3FJqmJSPuC8N9vQm\n"
                              "6SVbaLAE4SG5mLMueHlh4KXffEpuLEiNp9Ss3O4YfLiQpbRqE7Tm5SxKjvvQoZZe\n"
                              "zHorimOaChRL2it47iuWxzxSiRMv4c+j70GiWdxXnxe4UoECQQDzJB/0U58W7RZy\n"
                              "6enGVj2kWF732CoWFZWzi1FicudrBFoy63QwcowpoCazKtvZGMNlPWnC7x/6o8Gc\n"
                              "uSe0ga2xAkEA8C7PipPm1/1fTRQvj1o/dDmZp243044ZNyxjg+/OPN0oWCbXIGxy\n"
                              "WvmZbXriOWoSALJTjExEgraHEgnXssuk7QJBALl5ICsYMu6hMxO73gnfNayNgPxd\n"
                              "WFV6Z7ULnKyV7HSVYF0hgYOHjeYe9gaMtiJYoo0zGN+L3AAtNP9huqkWlzECQE1a\n"
                              "licIeVlo1e+qJ6Mgqr0Q7Aa7falZ448ccbSFYEPD6oFxiOl9Y9se9iYHZKKfIcst\n"
                              "o7DUw1/hz2Ck4N5JrgUCQQCyKveNvjzkkd8HjYs0SwM0fPjK16//5qDZ2UiDGnOe\n"
                              "uEzxBDAr518Z8VFbR41in3W4Y3yCDgQlLlcETrS+zYcL\n"
                              "-----END RSA PRIVATE KEY-----\n";
static const char rsa_record[] =
    "v=DKIM1; k=rsa; "
    "p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutA"
    "CDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB";

/* RFC 8463 A.3. */
#define A3_ED25519                                                                                                                         \
    "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n"                                                                        \
    " d=football.example.com; i=@football.example.com;\r\n"                                                                                \
    " q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n"                                                                              \
    " subject : date : message-id : from : subject : date;\r\n"                                                                            \
    " bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"                                                                                \
    " b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\r\n"                                                                      \
    " Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\r\n"
#define A3_RSA                                                                                                                             \
    "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n"                                                                            \
    " d=football.example.com; i=@football.example.com;\r\n"                                                                                \
    " q=dns/txt; s=test; t=1528637909; h=from : to : subject :\r\n"                                                                        \
    " date : message-id : from : subject : date;\r\n"                                                                                      \
    " bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"                                                                                \
    " b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3\r\n"                                                                      \
    " DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz\r\n"                                                                      \
    " dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=\r\n"
#define A3_HEADER                                                                                                                          \
    "From: Joe SixPack <joe@football.example.com>\r\n"                                                                                     \
    "To: Suzie Q <suzie@shopping.example.net>\r\n"                                                                                         \
    "Subject: Is dinner ready?\r\n"                                                                                                        \
    "Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n"                                                                                      \
    "Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n"
#define A3_BODY      "Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n\r\n"
#define A3_BODY_HASH "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="

/* --- a verifier (RFC 6376 6.1) --- */

struct field {
    const char *text;
    size_t length;
    bool used;
};

static size_t split_header(const char *message, struct field *fields) {
    size_t count = 0;
    while (*message != '\r') {
        const char *end = message;
        do
            end = strstr(end, "\r\n") + 2;
        while (*end == ' ' || *end == '\t');
        assert_true(count < FIELDS_MAX);
        fields[count++] = (struct field){.text = message, .length = (size_t)(end - message)};
        message = end;
    }
    return count;
}

/* A tag of the signature, without its white space. */
static void tag_value(const struct field *signature, const char *name, char out[TEXT_MAX]) {
    size_t used = 0, length = strlen(name);
    const char *end = signature->text + signature->length, *at = memchr(signature->text, ':', signature->length);
    assert_non_null(at);
    for (at++; at < end; at++) {
        at += strspn(at, " \t\r\n");
        const char *stop = memchr(at, ';', (size_t)(end - at));
        stop = stop == NULL ? end : stop;
        if (strncmp(at, name, length) == 0 && at[length] == '=') {
            for (at += length + 1; at < stop; at++)
                if (strchr(" \t\r\n", *at) == NULL)
                    out[used++] = *at;
            break;
        }
        at = stop;
    }
    out[used] = '\0';
}

static const struct field *take_last(struct field *fields, size_t count, const char *name, size_t length) {
    for (size_t i = count; i-- > 0;)
        if (!fields[i].used && strncasecmp(fields[i].text, name, length) == 0 && strchr(": \t", fields[i].text[length]) != NULL) {
            fields[i].used = true;
            return &fields[i];
        }
    return NULL;
}

/* What a signature signs: the fields of h= from the bottom up, and the signature's own with an empty b=. */
static void header_digest(struct field *fields, size_t count, const struct field *signature, uint8_t digest[DIGEST]) {
    static struct canonical canonical;
    char names[TEXT_MAX], own[TEXT_MAX];
    tag_value(signature, "h", names);
    canonical_begin(&canonical);
    for (char *name = strtok(names, ":"); name != NULL; name = strtok(NULL, ":")) {
        const struct field *field = take_last(fields, count, name, strlen(name));
        if (field != NULL)
            canonical_field(&canonical, (const uint8_t *)field->text, field->length, 1);
    }
    snprintf(own, sizeof(own), "%.*s", (int)signature->length - 2, signature->text);
    char *b = strstr(own, "b=");
    while (b[-1] == 'b' || strchr(" \t;", b[-1]) == NULL) /* not the end of bh= or of base64 */
        b = strstr(b + 2, "b=");
    char *rest = strchr(b, ';');
    memmove(b + 2, rest == NULL ? "" : rest, rest == NULL ? 1 : strlen(rest) + 1);
    canonical_field(&canonical, (const uint8_t *)own, strlen(own), 0);
    assert_int_equal(canonical_end(&canonical, digest), 0);
}

static void body_hash(const char *body, char out[TEXT_MAX]) {
    static struct canonical canonical;
    uint8_t digest[DIGEST];
    word32 length = TEXT_MAX;
    canonical_begin(&canonical);
    canonical_body(&canonical, (const uint8_t *)body, strlen(body));
    assert_int_equal(canonical_end(&canonical, digest), 0);
    assert_int_equal(Base64_Encode_NoNl(digest, DIGEST, (uint8_t *)out, &length), 0);
    out[length] = '\0';
}

static bool ed25519_accepts(const uint8_t *key_bytes, word32 key_length, const uint8_t *digest, const uint8_t *bytes, word32 length) {
    ed25519_key key;
    int good = 0;
    wc_ed25519_init(&key);
    assert_int_equal(wc_ed25519_import_public(key_bytes, key_length, &key), 0);
    int status = wc_ed25519_verify_msg(bytes, length, digest, DIGEST, &good, &key);
    wc_ed25519_free(&key);
    return status == 0 && good == 1;
}

static bool rsa_accepts(const uint8_t *key_bytes, word32 key_length, const uint8_t *digest, const uint8_t *bytes, word32 length) {
    RsaKey key;
    word32 at = 0;
    wc_InitRsaKey(&key, NULL);
    assert_int_equal(wc_RsaPublicKeyDecode(key_bytes, &at, &key, key_length), 0);
    uint8_t info[DIGEST + 32], plain[512];
    int info_length = (int)wc_EncodeSignature(info, digest, DIGEST, SHA256h);
    bool same = wc_RsaSSL_Verify(bytes, length, plain, sizeof(plain), &key) == info_length && memcmp(plain, info, (size_t)info_length) == 0;
    wc_FreeRsaKey(&key);
    return same;
}

/* Does the signature of this selector hold? */
static bool verifies(const char *message, const char *selector, const char *record) {
    struct field fields[FIELDS_MAX];
    char text[TEXT_MAX], wanted[TEXT_MAX];
    uint8_t digest[DIGEST], signature[512], key[512];
    word32 signature_length = sizeof(signature), key_length = sizeof(key);
    size_t count = split_header(message, fields), found = count;
    for (size_t i = 0; i < count; i++) {
        if (strncmp(fields[i].text, "DKIM-Signature:", 15) == 0) {
            tag_value(&fields[i], "s", text);
            fields[i].used = true;
            found = strcmp(text, selector) == 0 ? i : found;
        }
    }
    assert_true(found < count);
    const struct field own = fields[found];
    tag_value(&own, "bh", text);
    body_hash(strstr(message, "\r\n\r\n") + 4, wanted);
    if (strcmp(text, wanted) != 0)
        return false;
    header_digest(fields, count, &own, digest);
    tag_value(&own, "b", text);
    assert_int_equal(Base64_Decode((const uint8_t *)text, (word32)strlen(text), signature, &signature_length), 0);
    const char *p = strstr(record, "p=") + 2;
    assert_int_equal(Base64_Decode((const uint8_t *)p, (word32)strlen(p), key, &key_length), 0);
    return (strstr(record, "k=ed25519") != NULL ? ed25519_accepts : rsa_accepts)(key, key_length, digest, signature, signature_length);
}

/* --- the RFC's message --- */

/* RFC 8463 A.3: both signatures of the printed message hold, and no longer where a letter changes. */
static void test_rfc_8463_signatures(void **state) {
    static const char message[] = A3_ED25519 A3_RSA A3_HEADER "\r\n" A3_BODY;
    assert_true(verifies(message, "brisbane", ed25519_record));
    assert_true(verifies(message, "test", rsa_record));
    static const char later[] = A3_ED25519 A3_RSA "From: Joe SixPack <joe@football.example.com>\r\n" A3_HEADER "\r\n" A3_BODY;
    assert_false(verifies(later, "brisbane", ed25519_record));
    assert_false(verifies(later, "test", rsa_record));
    static const char other[] = A3_ED25519 A3_RSA A3_HEADER "\r\n" A3_BODY "Ann\r\n";
    assert_false(verifies(other, "brisbane", ed25519_record));
    assert_false(verifies(other, "test", rsa_record));
}

/* Ed25519 (RFC 8032 5.1.6) and RSA with PKCS#1 v1.5 take no random numbers: over the RFC's digest the RFC's key gives the RFC's b=. */
static void test_rfc_8463_ed25519_is_repeated(void **state) {
    static const char message[] = A3_ED25519 A3_RSA A3_HEADER "\r\n" A3_BODY;
    static const uint8_t seed[ED25519_KEY_SIZE] = {0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a,
                                                   0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32,
                                                   0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60};
    struct field fields[FIELDS_MAX];
    uint8_t digest[DIGEST], public_key[ED25519_PUB_KEY_SIZE], signature[ED25519_SIG_SIZE];
    char wanted[TEXT_MAX], text[TEXT_MAX];
    word32 length = sizeof(signature), text_length = sizeof(text);
    size_t count = split_header(message, fields);
    fields[0].used = fields[1].used = true;
    header_digest(fields, count, &fields[0], digest);
    ed25519_key key;
    wc_ed25519_init(&key);
    assert_int_equal(wc_ed25519_import_private_only(seed, sizeof(seed), &key), 0);
    assert_int_equal(wc_ed25519_make_public(&key, public_key, sizeof(public_key)), 0);
    assert_int_equal(wc_ed25519_import_private_key(seed, sizeof(seed), public_key, sizeof(public_key), &key), 0);
    assert_int_equal(wc_ed25519_sign_msg(digest, DIGEST, signature, &length, &key), 0);
    wc_ed25519_free(&key);
    assert_int_equal(Base64_Encode_NoNl(signature, length, (uint8_t *)text, &text_length), 0);
    text[text_length] = '\0';
    tag_value(&fields[0], "b", wanted);
    assert_string_equal(text, wanted);
}

/* --- the signer with the RFC's keys --- */

static char directory[] = "/tmp/bypost-vectors-XXXXXX", ed25519_path[64], rsa_path[64];

static void write_key(const char *path, const char *pem) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(pem, file) >= 0);
    fclose(file);
    chmod(path, 0600);
}

static int set_up(void **state) {
    if (mkdtemp(directory) == NULL)
        return -1;
    snprintf(ed25519_path, sizeof(ed25519_path), "%s/ed25519.pem", directory);
    snprintf(rsa_path, sizeof(rsa_path), "%s/rsa.pem", directory);
    write_key(ed25519_path, ed25519_pem);
    write_key(rsa_path, rsa_pem);
    return 0;
}

static int tear_down(void **state) {
    unlink(ed25519_path);
    unlink(rsa_path);
    return rmdir(directory);
}

/* RFC 8463 A.2, RFC 6376 3.6.1: the records that belong to those private keys. */
static void test_records(void **state) {
    char error[256], *record = NULL;
    assert_int_equal(dkim_public_record(ed25519_path, &record, error, sizeof(error)), 0);
    assert_string_equal(record, ed25519_record);
    free(record);
    assert_int_equal(dkim_public_record(rsa_path, &record, error, sizeof(error)), 0);
    assert_string_equal(record, rsa_record);
    free(record);
}

/* The signer signs the RFC's message with the RFC's keys: its body hash is the RFC's, and the verifier that accepts the RFC's signatures
 * accepts its. */
static void test_signer_signs_it(void **state) {
    static const char unsigned_message[] = A3_HEADER "\r\n" A3_BODY;
    struct config_dkim_key keys[] = {{.domain = "football.example.com", .selector = "brisbane", .key_file = ed25519_path},
                                     {.domain = "football.example.com", .selector = "test", .key_file = rsa_path}};
    struct config config = {.dkim = keys, .dkim_count = 2, .max_message_bytes = 1 << 20};
    char error[256] = "", signed_text[TEXT_MAX * 2];
    struct dkim_keys *loaded = dkim_keys_load(&config, NULL, NULL, error, sizeof(error));
    assert_non_null(loaded);
    struct dkim_signer *signer = dkim_signer_create(loaded);
    struct message message;
    message_init(&message);
    size_t length = sizeof(unsigned_message) - 1;
    message.bytes = malloc(length);
    memcpy(message.bytes, unsigned_message, length);
    message.start = 0;
    message.capacity = message.length = message.own_length = length;
    message.header_length = sizeof(A3_HEADER "\r\n") - 1;
    strcpy(message.from_domain, "football.example.com");
    assert_int_equal(dkim_sign(signer, &message, NULL, 1528637909), 2);
    assert_true(message.length < sizeof(signed_text));
    memcpy(signed_text, message.bytes + message.start, message.length);
    signed_text[message.length] = '\0';
    assert_non_null(strstr(signed_text, "bh=" A3_BODY_HASH));
    assert_non_null(strstr(signed_text, "t=1528637909"));
    assert_true(verifies(signed_text, "brisbane", ed25519_record));
    assert_true(verifies(signed_text, "test", rsa_record));
    strstr(signed_text, "hungry")[0] = 'a';
    assert_false(verifies(signed_text, "brisbane", ed25519_record));
    assert_false(verifies(signed_text, "test", rsa_record));
    message_free(&message);
    dkim_signer_free(signer);
    dkim_keys_free(loaded);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rfc_8463_signatures),
        cmocka_unit_test(test_rfc_8463_ed25519_is_repeated),
        cmocka_unit_test(test_records),
        cmocka_unit_test(test_signer_signs_it),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
