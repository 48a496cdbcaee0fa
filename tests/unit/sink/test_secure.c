/* What a client must be before it may send: STARTTLS (RFC 3207), AUTH (RFC 4954) with its mechanisms, and the extensions that are offered
 * by option: DSN (3461), LIMITS (9422), REQUIRETLS (8689). Handshakes themselves are in tests/integration/test_sink, with real clients. */
#include "bench/sink/auth.h"
#include "fake_wire.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/coding.h>
#include <wolfssl/wolfcrypt/hmac.h>

#define HELLO    "EHLO client.test\r\n"
#define ENVELOPE "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\n"
static const struct auth_users joe = {.count = 2, .users = {{"joe", "secret"}, {"ann", "other"}}};
static const struct sink_config with_auth = {
    .extensions = EXTENSION_ALL | EXTENSION_AUTH, .users = &joe, .mechanisms = (1 << AUTH_MECHANISMS) - 1, .require_auth = true};

static void begin(struct wire *wire, const struct sink_config *config) {
    wire_create(wire, config, NULL, 0);
    assert_true(wire_connect(wire));
    wire_say(wire, HELLO);
    wire_hears_codes(wire, "220 250");
}

static void encode(const void *bytes, size_t length, char *text, size_t room) {
    word32 wanted = (word32)room - 1;
    assert_int_equal(Base64_Encode_NoNl(bytes, (word32)length, (byte *)text, &wanted), 0);
    text[wanted] = '\0';
}

/* Says a line of base64. */
static void answer(struct wire *wire, const char *before, const void *bytes, size_t length) {
    char text[1024], line[1100];
    encode(bytes, length, text, sizeof(text));
    snprintf(line, sizeof(line), "%s%s\r\n", before, text);
    wire_say(wire, line);
}

static void mail_wants_auth(void **state) {
    struct wire wire;
    begin(&wire, &with_auth);
    wire_say(&wire, "MAIL FROM:<a@example.org>\r\n");
    wire_hears(&wire, "530 5.7.0 Authentication required\r\n");
    answer(&wire, "AUTH PLAIN ", "\0joe\0secret", 11);
    wire_hears_codes(&wire, "235");
    wire_say(&wire, "MAIL FROM:<a@example.org> AUTH=<>\r\n");
    wire_hears_codes(&wire, "250");
    wire_say(&wire, "AUTH PLAIN\r\n"); /* RFC 4954 section 4: once, and not within a transaction */
    wire_hears_codes(&wire, "503");
    assert_int_equal(wire_tally(&wire)->auth_ok, 1);
    wire_destroy(&wire);
}

/* However the lines are cut. */
static void plain_in_two_steps(void **state) {
    for (uint32_t step = 0; step < 8; step++) {
        struct wire wire;
        begin(&wire, &with_auth);
        wire.step = step;
        wire_say(&wire, "auth plain\r\n");
        wire_hears(&wire, "334 \r\n");
        answer(&wire, "", "ann\0ann\0other", 13);
        wire_hears_codes(&wire, "235");
        wire_destroy(&wire);
    }
}

static void wrong_secrets_are_refused(void **state) {
    static const struct {
        const char *bytes;
        size_t length;
    } wrong[] = {{"\0joe\0secreT", 11}, {"\0joe\0secret\0", 12}, {"\0joe\0", 5},      {"\0\0", 2}, {"joe", 3},
                 {"\0bob\0secret", 11}, {"\0joe\0other", 10},    {"\0jo\0secret", 10}};
    struct wire wire;
    begin(&wire, &with_auth);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        answer(&wire, "AUTH PLAIN ", wrong[i].bytes, wrong[i].length);
        wire_hears_codes(&wire, "535");
    }
    wire_say(&wire, "AUTH PLAIN =\r\nAUTH PLAIN !!!!\r\n");
    wire_hears_codes(&wire, "535 535");
    wire_say(&wire, "MAIL FROM:<a@example.org>\r\n");
    wire_hears_codes(&wire, "530");
    assert_int_equal(wire_tally(&wire)->auth_failed, 10);
    assert_int_equal(wire_tally(&wire)->auth_ok, 0);
    wire_destroy(&wire);
}

static void login_asks_twice(void **state) {
    static const char *const passwords[] = {"secret", "other", ""}, *const codes[] = {"235", "535", "535"};
    for (int i = 0; i < 3; i++) {
        struct wire wire;
        begin(&wire, &with_auth);
        wire_say(&wire, "AUTH LOGIN\r\n");
        wire_hears(&wire, "334 VXNlcm5hbWU6\r\n");
        answer(&wire, "", "joe", 3);
        wire_hears(&wire, "334 UGFzc3dvcmQ6\r\n");
        answer(&wire, "", passwords[i], strlen(passwords[i]));
        wire_hears_codes(&wire, codes[i]);
        wire_destroy(&wire);
    }
    struct wire wire;
    begin(&wire, &with_auth);
    answer(&wire, "AUTH LOGIN ", "nobody", 6); /* who is known is not told */
    wire_hears_codes(&wire, "334");
    answer(&wire, "", "secret", 6);
    wire_hears_codes(&wire, "535");
    wire_destroy(&wire);
}

/* RFC 2195: the digest of the challenge, which is another for each connection. */
static void cram_md5_proves_the_secret(void **state) {
    static const char *const secrets[] = {"secret", "other"}, *const codes[] = {"235", "535"};
    char challenges[2][256];
    for (int i = 0; i < 2; i++) {
        struct wire wire;
        begin(&wire, &with_auth);
        wire_say(&wire, "AUTH CRAM-MD5\r\n");
        const char *line = wire_said(&wire);
        assert_memory_equal(line, "334 ", 4);
        word32 length = sizeof(challenges[i]) - 1;
        assert_int_equal(Base64_Decode((const byte *)line + 4, (word32)strcspn(line, "\r") - 4, (byte *)challenges[i], &length), 0);
        challenges[i][length] = '\0';
        wire_hears_codes(&wire, "334");
        Hmac hmac;
        uint8_t digest[WC_MD5_DIGEST_SIZE];
        assert_int_equal(wc_HmacInit(&hmac, NULL, INVALID_DEVID), 0);
        assert_int_equal(wc_HmacSetKey(&hmac, WC_MD5, (const byte *)secrets[i], (word32)strlen(secrets[i])), 0);
        assert_int_equal(wc_HmacUpdate(&hmac, (const byte *)challenges[i], length), 0);
        assert_int_equal(wc_HmacFinal(&hmac, digest), 0);
        wc_HmacFree(&hmac);
        char text[64] = "joe ";
        for (int at = 0; at < WC_MD5_DIGEST_SIZE; at++)
            snprintf(text + 4 + 2 * at, 3, "%02x", digest[at]);
        answer(&wire, "", text, strlen(text));
        wire_hears_codes(&wire, codes[i]);
        wire_destroy(&wire);
    }
    assert_string_not_equal(challenges[0], challenges[1]);
}

/* RFC 7628 3.2.3: a token that is refused is explained, and the client must answer before the verdict. */
static void bearers_show_a_token(void **state) {
    static const char *const good[] = {"user=joe\1auth=Bearer secret\1\1", "n,a=joe,\1host=mx.test\1port=25\1auth=Bearer secret\1\1"};
    static const char *const bad[] = {"user=joe\1auth=Bearer other\1\1", "n,a=joe,\1auth=Bearer\1\1"};
    static const char *const verbs[] = {"AUTH XOAUTH2 ", "AUTH OAUTHBEARER "};
    for (int i = 0; i < 2; i++) {
        struct wire wire;
        begin(&wire, &with_auth);
        answer(&wire, verbs[i], bad[i], strlen(bad[i]));
        wire_hears_codes(&wire, "334");
        wire_say(&wire, i == 0 ? "\r\n" : "AQ==\r\n");
        wire_hears_codes(&wire, "535");
        answer(&wire, verbs[i], good[i], strlen(good[i]));
        wire_hears_codes(&wire, "235");
        wire_destroy(&wire);
    }
}

static void auth_can_be_cancelled_and_limited(void **state) {
    struct wire wire;
    struct sink_config config = with_auth;
    config.mechanisms = 1 << AUTH_PLAIN;
    begin(&wire, &config);
    wire_say(&wire, "AUTH LOGIN\r\nAUTH NTLM\r\n");
    wire_hears_codes(&wire, "504 504");
    wire_say(&wire, "AUTH PLAIN\r\n");
    wire_hears_codes(&wire, "334");
    wire_say(&wire, "*\r\n");
    wire_hears_codes(&wire, "501");
    wire_say(&wire, "NOOP\r\nAUTH\r\n");
    wire_hears_codes(&wire, "250 501");
    wire_destroy(&wire);
    begin(&wire, &(struct sink_config){.extensions = EXTENSION_ALL});
    wire_say(&wire, "AUTH PLAIN\r\nSTARTTLS\r\n");
    wire_hears_codes(&wire, "502 502");
    wire_destroy(&wire);
}

/* A token may be longer than a command line, up to a bound, behind which nothing is taken for a command. */
static void long_tokens_fit(void **state) {
    static char token[2049], line[8192];
    memset(token, 't', sizeof(token) - 1);
    struct auth_users users = {.count = 1, .users = {{"joe", token}}};
    struct sink_config config = with_auth;
    config.users = &users;
    struct wire wire;
    begin(&wire, &config);
    wire.step = 700;
    int length = snprintf(line, sizeof(line), "user=joe\1auth=Bearer %s\1\1", token);
    static char text[4096];
    encode(line, (size_t)length, text, sizeof(text));
    snprintf(line, sizeof(line), "AUTH XOAUTH2 %s\r\n", text);
    wire_say(&wire, line);
    wire_hears_codes(&wire, "235");
    wire_destroy(&wire);
    begin(&wire, &config);
    wire_say(&wire, "AUTH XOAUTH2\r\n");
    memset(line, 'A', 5000);
    strcpy(line + 5000, "\r\nNOOP\r\n");
    wire_say(&wire, line);
    wire_hears_codes(&wire, "334 500 250");
    assert_int_equal(wire_tally(&wire)->errors_command_overlong, 1);
    wire_destroy(&wire);
}

/* RFC 3207 section 6: what lies behind STARTTLS was not said by whom TLS proves. */
static void plaintext_behind_starttls_is_refused(void **state) {
    char error[256] = "";
    struct tls_config tls = {.max_sessions = 4};
    struct tls_worker *worker =
        tls_start() == 0 ? tls_worker_create(&tls, error, sizeof(error)) : NULL; /* a client's: no handshake begins */
    assert_non_null(worker);
    struct sink_config config = {
        .extensions = EXTENSION_ALL | EXTENSION_STARTTLS | EXTENSION_REQUIRETLS, .tls = worker, .require_tls = true};
    struct wire wire;
    begin(&wire, &config);
    wire_say(&wire, "MAIL FROM:<a@example.org>\r\nMAIL FROM:<a@example.org> REQUIRETLS\r\n"); /* RFC 8689: within TLS only */
    wire_hears_codes(&wire, "530 555");
    wire_say(&wire, "STARTTLS\r\nMAIL FROM:<evil@example.org>\r\n");
    wire_hears(&wire, "554 5.5.1 Plaintext behind STARTTLS\r\n");
    assert_true(wire_has_fin(&wire));
    assert_int_equal(wire_tally(&wire)->tls_injected, 1);
    assert_int_equal(wire_tally(&wire)->tls_sessions, 0);
    assert_true(wire_connect(&wire));
    wire_say(&wire, HELLO "STARTTLS now\r\n");
    wire_hears_codes(&wire, "220 250 501");
    wire_say(&wire, "STARTTLS\r\n");
    wire_hears_codes(&wire, "220");
    assert_true(wire_is_reset(&wire)); /* no handshake could begin: nothing goes on in plain */
    assert_int_equal(wire_tally(&wire)->tls_failed, 1);
    wire_destroy(&wire);
    tls_worker_destroy(worker);
}

/* RFC 3461 section 4. */
static void dsn_parameters_are_read(void **state) {
    static const char *const lines[][2] = {
        {"MAIL FROM:<a@b> RET=HDRS ENVID=QQ+2B314", "250"},
        {"RCPT TO:<c@d> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;c+40d@e", "250"},
        {"RCPT TO:<c@d> NOTIFY=NEVER", "250"},
        {"RCPT TO:<c@d> NOTIFY=NEVER,DELAY", "501"},
        {"RCPT TO:<c@d> NOTIFY=", "501"},
        {"RCPT TO:<c@d> NOTIFY=DELAY,", "501"},
        {"RCPT TO:<c@d> ORCPT=rfc822", "501"},
        {"RCPT TO:<c@d> ORCPT=rfc822;a+4", "501"},
        {"RCPT TO:<c@d> SIZE=3", "555"},
        {"RSET", "250"},
        {"MAIL FROM:<a@b> RET=BODY", "501"},
        {"MAIL FROM:<a@b> ENVID=", "501"},
        {"MAIL FROM:<a@b> ENVID=a=b", "501"},
        {"MAIL FROM:<a@b> NOTIFY=NEVER", "555"},
    };
    struct wire wire;
    begin(&wire, &(struct sink_config){.extensions = EXTENSION_ALL | EXTENSION_DSN});
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        wire_say(&wire, lines[i][0]);
        wire_say(&wire, "\r\n");
        wire_hears_codes(&wire, lines[i][1]);
    }
    assert_int_equal(wire_tally(&wire)->recipients_notify, 2);
    assert_int_equal(wire_tally(&wire)->transactions_several, 1);
    wire_destroy(&wire);
}

/* RFC 9422: what is announced is kept. */
static void limits_are_announced_and_kept(void **state) {
    struct wire wire;
    wire_create(&wire, &(struct sink_config){.extensions = EXTENSION_LIMITS, .recipients_max = 2, .mails_max = 2}, NULL, 0);
    assert_true(wire_connect(&wire));
    wire_say(&wire, HELLO);
    wire_hears(&wire, "220 sink.test ESMTP bypost-sink\r\n250-sink.test\r\n250 LIMITS RCPTMAX=2 MAILMAX=2\r\n");
    for (int i = 0; i < 2; i++) {
        wire_say(&wire, ENVELOPE "RCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nRSET\r\n");
        wire_hears_codes(&wire, "250 250 250 452 250");
    }
    wire_say(&wire, "MAIL FROM:<a@b>\r\n");
    wire_hears_codes(&wire, "452");
    wire_destroy(&wire);
}

/* RFC 3030 with RFC 2920: eight transactions in one flight, however it is cut; a body that looks like commands is none. */
static void transactions_are_pipelined(void **state) {
    static const struct sink_config config = {.extensions = EXTENSION_ALL};
    for (uint32_t step = 0; step < 1500; step += step < 5 ? 1 : 211) {
        struct wire wire;
        begin(&wire, &config);
        wire.step = step;
        char flight[2048] = "", codes[256] = "";
        for (int i = 0; i < 8; i++) {
            char one[200], body[64];
            snprintf(body, sizeof(body), "Message-ID: <%d@x>\r\n\r\nQUIT\r\nBDAT 9\r\n.\r\n", i);
            snprintf(one, sizeof(one), ENVELOPE "BDAT %zu LAST\r\n%s", strlen(body), body);
            strcat(flight, one);
            strcat(codes, i == 0 ? "250 250 250" : " 250 250 250");
        }
        wire_say(&wire, flight);
        wire_hears_codes(&wire, codes);
        assert_int_equal(wire_tally(&wire)->messages_unique, 8);
        assert_int_equal(wire_tally(&wire)->errors_pipelining, 0);
        assert_false(wire_has_fin(&wire));
        wire_destroy(&wire);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mail_wants_auth),
        cmocka_unit_test(plain_in_two_steps),
        cmocka_unit_test(wrong_secrets_are_refused),
        cmocka_unit_test(login_asks_twice),
        cmocka_unit_test(cram_md5_proves_the_secret),
        cmocka_unit_test(bearers_show_a_token),
        cmocka_unit_test(auth_can_be_cancelled_and_limited),
        cmocka_unit_test(long_tokens_fit),
        cmocka_unit_test(plaintext_behind_starttls_is_refused),
        cmocka_unit_test(dsn_parameters_are_read),
        cmocka_unit_test(limits_are_announced_and_kept),
        cmocka_unit_test(transactions_are_pipelined),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
