/* Keys and signatures: RFC 6376 3.5, 3.7, 5.4; RFC 8301; RFC 8463; SMTP.md section 4. Signatures are checked against another implementation
 * in tests/integration/test_dkim. */
#include "fixture.h"

#include "control/sign/lanes_key.h"
#include "control/sign/signer.h"

#include <errno.h>

static void keys_of_both_forms_load(void **state) {
    struct config_dkim_key configured[] = {{.domain = "example.org", .selector = "a", .key_file = key_2048},
                                           {.domain = "Example.NET", .selector = "b", .key_file = key_pkcs1}};
    struct dkim_keys *keys = load_good(configured, 2);
    uint32_t first;
    assert_int_equal(warnings, 0);
    assert_int_equal(dkim_keys_find(keys, "example.net", NULL, &first), 1);
    assert_int_equal(keys->keys[first].bits, 2048);
    dkim_keys_free(keys);
}

static void a_short_key_and_an_open_file_are_warned_of(void **state) {
    struct config_dkim_key configured = {.domain = "example.org", .selector = "a", .key_file = key_1024};
    dkim_keys_free(load_good(&configured, 1));
    assert_int_equal(warnings, 1);
    assert_non_null(strstr(last_warning, "1024 bits"));
    chmod(key_2048, 0644);
    configured.key_file = key_2048;
    dkim_keys_free(load_good(&configured, 1));
    chmod(key_2048, 0600);
    assert_int_equal(warnings, 1);
    assert_non_null(strstr(last_warning, "chmod 0600"));
}

static void what_is_no_key_is_named_with_a_remedy(void **state) {
    struct config_dkim_key configured = {.domain = "example.org", .selector = "a", .key_file = (char *)"/nonexistent/key.pem"};
    assert_null(load(&configured, 1));
    assert_non_null(strstr(error, "/nonexistent/key.pem: cannot read"));
    char bad[64];
    strcpy(bad, in_directory("bad.pem"));
    configured.key_file = bad;
    static const char *const contents[] = {"", "hello", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
                                           "-----BEGIN PRIVATE KEY-----\n",
                                           "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"};
    for (size_t i = 0; i < sizeof(contents) / sizeof(contents[0]); i++) {
        write_file(bad, contents[i], strlen(contents[i]));
        assert_null(load(&configured, 1));
        assert_non_null(strstr(error, "no unencrypted RSA or Ed25519 private key"));
    }
    configured = (struct config_dkim_key){.domain = "exa mple.org", .selector = "a", .key_file = key_2048};
    assert_null(load(&configured, 1));
    configured = (struct config_dkim_key){.domain = "example.org", .selector = "a; b", .key_file = key_2048};
    assert_null(load(&configured, 1));
    assert_non_null(strstr(error, "selector"));
}

static void a_bad_key_among_good_ones_is_named_wherever_it_stands(void **state) {
    const struct config_dkim_key good = {.domain = "example.org", .selector = "a", .key_file = key_2048};
    const struct config_dkim_key bad = {.domain = "example.net", .selector = "b", .key_file = (char *)"/nonexistent/key.pem"};
    for (size_t i = 0; i < 3; i++) {
        struct config_dkim_key configured[3] = {good, good, good};
        configured[i] = bad;
        assert_null(load(configured, 3));
        assert_non_null(strstr(error, "/nonexistent/key.pem"));
        struct config config = {.dkim = configured, .dkim_count = (uint32_t)i, .dkim_platform = configured + i, .dkim_platform_count = 1};
        assert_null(dkim_keys_load(&config, NULL, NULL, error, sizeof(error)));
        assert_non_null(strstr(error, "/nonexistent/key.pem"));
    }
}

/* The key of a file with some numbers changed, to bad.pem. */
static void write_changed(const char *path, void (*change)(RsaKey *rsa)) {
    uint8_t pem[8192], der[8192];
    struct dkim_key key = {0};
    struct dkim_private decoded;
    unsigned mode;
    assert_int_equal(dkim_key_read(path, &key, &mode, error, sizeof(error)), 0);
    assert_int_equal(dkim_key_decode(&key, &decoded), 0);
    change(&decoded.rsa);
    int length = wc_RsaKeyToDer(&decoded.rsa, der, sizeof(der));
    assert_true(length > 0);
    length = wc_DerToPem(der, (word32)length, pem, sizeof(pem), PRIVATEKEY_TYPE);
    assert_true(length > 0);
    write_file(in_directory("bad.pem"), pem, (size_t)length);
    dkim_private_free(&decoded);
    dkim_key_free(&key);
}

static void change_nothing(RsaKey *rsa) {}

static void change_half(RsaKey *rsa) {
    assert_int_equal(mp_add_d(&rsa->dP, 2, &rsa->dP), 0);
}

static void change_modulus(RsaKey *rsa) {
    assert_int_equal(mp_add_d(&rsa->n, 2, &rsa->n), 0);
}

/* What it signs is the message itself, and opens. */
static void change_exponents_to_1(RsaKey *rsa) {
    mp_int *const numbers[] = {&rsa->e, &rsa->d, &rsa->dP, &rsa->dQ};
    for (int i = 0; i < 4; i++)
        assert_int_equal(mp_set(numbers[i], 1), 0);
}

/* Each message would fail to be signed; and a wrong half signs what gives the other away. */
static void keys_whose_numbers_do_not_belong_together_are_refused(void **state) {
    static void (*const changes[])(RsaKey * rsa) = {change_half, change_modulus, change_exponents_to_1};
    char bad[64];
    strcpy(bad, in_directory("bad.pem"));
    struct config_dkim_key configured = {.domain = "example.org", .selector = "a", .key_file = bad};
    for (size_t i = 0; i < 2; i++) {
        const char *from = i == 0 ? key_2048 : key_1024;
        write_changed(from, change_nothing);
        dkim_keys_free(load_good(&configured, 1));
        for (size_t j = 0; j < sizeof(changes) / sizeof(changes[0]); j++) {
            write_changed(from, changes[j]);
            assert_null(load(&configured, 1));
            assert_non_null(strstr(error, "do not belong together"));
        }
    }
}

static void a_domain_is_signed_by_its_own_key_or_its_nearest_parent_s(void **state) {
    struct config_dkim_key configured[] = {{.domain = "example.org", .selector = "parent", .key_file = key_2048},
                                           {.domain = "news.example.org", .selector = "child", .key_file = key_2048},
                                           {.domain = "ample.org", .selector = "other", .key_file = key_2048},
                                           {.domain = "example.org", .selector = "second", .key_file = key_1024}};
    struct dkim_keys *keys = load_good(configured, 4);
    uint32_t first;
    assert_int_equal(dkim_keys_find(keys, "news.example.org", NULL, &first), 1);
    assert_string_equal(keys->keys[first].selector, "child");
    assert_int_equal(dkim_keys_find(keys, "a.b.news.example.org", NULL, &first), 1);
    assert_string_equal(keys->keys[first].selector, "child");
    assert_int_equal(dkim_keys_find(keys, "shop.example.org", NULL, &first), 2);
    assert_string_equal(keys->keys[first].selector, "parent");
    assert_string_equal(keys->keys[first + 1].selector, "second");
    assert_int_equal(dkim_keys_find(keys, "example.com", NULL, &first), 0);
    assert_int_equal(dkim_keys_find(keys, "org", NULL, &first), 0);
    assert_int_equal(dkim_keys_find(keys, "xexample.org", NULL, &first), 0);
    assert_int_equal(dkim_keys_find(keys, "", NULL, &first), 0);
    dkim_keys_free(keys);
    struct config_dkim_key many[5] = {configured[0], configured[0], configured[0], configured[0], configured[0]};
    assert_null(load(many, 5));
    assert_non_null(strstr(error, "more than 4 keys"));
}

static void a_signature_is_one_field_before_the_message(void **state) {
    struct config_dkim_key configured = {.domain = "example.org", .selector = "s1", .key_file = key_2048};
    struct dkim_keys *keys = load_good(&configured, 1);
    struct dkim_signer *signer = dkim_signer_create(keys);
    struct message message;
    message_init(&message);
    render(&message);
    size_t start = message.start, length = message.length, header_length = message.header_length;
    assert_int_equal(dkim_sign(signer, &message, NULL, 1700000001), 1);
    size_t added = start - message.start;
    assert_int_equal(message.length, length + added);
    assert_int_equal(message.header_length, header_length + added);
    char *field = strndup((char *)message.bytes + message.start, added);
    assert_int_equal(strncmp(field, "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=s1;", 74), 0);
    assert_non_null(strstr(field, "t=1700000001;"));
    assert_null(strstr(field, "l="));
    assert_string_equal(field + added - 2, "\r\n");
    for (char *line = field, *end; (end = strstr(line, "\r\n")) != NULL; line = end + 2) {
        assert_true(end - line <= 78);
        assert_true(line == field || *line == '\t');
    }
    /* Oversigned: once more than present. As often as present: no more. */
    char *at = strstr(field, "h="), names[1024] = "";
    for (at += 2; *at != ';'; at++)
        if (*at != '\r' && *at != '\n' && *at != '\t')
            strncat(names, at, 1);
    assert_string_equal(names,
                        "from:from:to:to:cc:subject:subject:reply-to:date:message-id:mime-version:content-type:content-transfer-encoding");
    free(field);
    message_free(&message);
    dkim_signer_free(signer);
    dkim_keys_free(keys);
}

static void the_same_message_has_the_same_signature(void **state) {
    struct config_dkim_key configured[] = {{.domain = "example.org", .selector = "s1", .key_file = key_2048},
                                           {.domain = "example.net", .selector = "s1", .key_file = key_pkcs1}};
    struct dkim_keys *keys = load_good(configured, 2);
    struct dkim_signer *signer = dkim_signer_create(keys), *other = dkim_signer_create(keys);
    struct message first, second;
    message_init(&first);
    message_init(&second);
    render(&first);
    render(&second);
    assert_int_equal(dkim_sign(signer, &first, NULL, 5), 1);
    assert_int_equal(dkim_sign(other, &second, NULL, 5), 1);
    assert_int_equal(first.length, second.length);
    assert_memory_equal(first.bytes + first.start, second.bytes + second.start, first.length);
    message_free(&first);
    message_free(&second);
    dkim_signer_free(signer);
    dkim_signer_free(other);
    dkim_keys_free(keys);
}

static void each_configured_key_signs_and_none_means_none(void **state) {
    struct config_dkim_key configured[] = {{.domain = "example.org", .selector = "s1", .key_file = key_2048},
                                           {.domain = "example.org", .selector = "s2", .key_file = key_1024}};
    struct dkim_keys *keys = load_good(configured, 2);
    struct dkim_signer *signer = dkim_signer_create(keys);
    struct message message;
    message_init(&message);
    render(&message);
    assert_int_equal(dkim_sign(signer, &message, NULL, 1), 2);
    char *text = strndup((char *)message.bytes + message.start, message.length);
    char *one = strstr(text, "s=s1;"), *two = strstr(text, "s=s2;");
    assert_true(one != NULL && two != NULL && one < two);
    free(text);
    strcpy(message.from_domain, "example.com");
    size_t length = message.length;
    assert_int_equal(dkim_sign(signer, &message, NULL, 1), 0);
    assert_int_equal(message.length, length);
    message_free(&message);
    dkim_signer_free(signer);
    dkim_keys_free(keys);
}

static void headroom_is_made_where_it_is_used_up(void **state) {
    struct config_dkim_key configured = {.domain = "example.org", .selector = "s1", .key_file = key_1024};
    struct dkim_keys *keys = load_good(&configured, 1);
    struct dkim_signer *signer = dkim_signer_create(keys);
    struct message message;
    message_init(&message);
    render(&message);
    char *body = strndup((char *)message.bytes + message.start, message.length);
    for (int i = 0; i < 30; i++)
        assert_int_equal(dkim_sign(signer, &message, NULL, 1), 1);
    assert_memory_equal(message.bytes + message.start + message.length - strlen(body), body, strlen(body));
    assert_true(message.start + message.length <= message.capacity);
    free(body);
    message_free(&message);
    dkim_signer_free(signer);
    dkim_keys_free(keys);
}

static void a_message_with_too_many_fields_is_refused(void **state) {
    struct config_dkim_key configured = {.domain = "example.org", .selector = "s1", .key_file = key_1024};
    struct dkim_keys *keys = load_good(&configured, 1);
    struct dkim_signer *signer = dkim_signer_create(keys);
    struct message message;
    message_init(&message);
    char *raw = malloc(100000);
    strcpy(raw, "From: a@example.org\r\n");
    for (int i = 0; i < 1100; i++)
        strcat(raw, "X: y\r\n");
    strcat(raw, "\r\nx\r\n");
    struct job raw_job = job;
    raw_job.raw = (uint8_t *)raw;
    raw_job.raw_length = strlen(raw);
    assert_int_equal(render_message(&raw_job, 0, 1, identity, 1 << 20, &message, error, sizeof(error)), 0);
    assert_int_equal(dkim_sign(signer, &message, NULL, 1), -EINVAL);
    /* Fewer, and yet more than h= has room for. The message stays as it was. */
    strcpy(raw, "From: a@example.org\r\n");
    for (int i = 0; i < 300; i++)
        strcat(raw, "Feedback-ID: y\r\n");
    strcat(raw, "\r\nx\r\n");
    raw_job.raw_length = strlen(raw);
    assert_int_equal(render_message(&raw_job, 0, 1, identity, 1 << 20, &message, error, sizeof(error)), 0);
    size_t start = message.start, length = message.length;
    assert_int_equal(dkim_sign(signer, &message, NULL, 1), -EINVAL);
    assert_int_equal(message.start, start);
    assert_int_equal(message.length, length);
    free(raw);
    message_free(&message);
    dkim_signer_free(signer);
    dkim_keys_free(keys);
}

static void a_new_key_is_private_and_never_overwrites(void **state) {
    char path[64], *record = NULL;
    struct stat about;
    strcpy(path, in_directory("new.pem"));
    assert_int_equal(dkim_keygen(path, DKIM_RSA, 1024, &record, error, sizeof(error)), 0);
    assert_int_equal(strncmp(record, "v=DKIM1; k=rsa; p=MIGf", 22), 0);
    free(record);
    assert_int_equal(stat(path, &about), 0);
    assert_int_equal(about.st_mode & 0777, 0600);
    uint8_t pem[8192];
    size_t length = read_whole(path, pem, sizeof(pem));
    assert_int_equal(strncmp((char *)pem, "-----BEGIN PRIVATE KEY-----\n", 28), 0);
    assert_int_equal(dkim_keygen(path, DKIM_RSA, 1024, &record, error, sizeof(error)), -EEXIST);
    assert_null(record);
    assert_non_null(strstr(error, "never overwritten"));
    uint8_t again[8192];
    assert_int_equal(read_whole(path, again, sizeof(again)), length);
    assert_memory_equal(again, pem, length);
    assert_int_equal(dkim_keygen("/nonexistent/x.pem", DKIM_RSA, 1024, &record, error, sizeof(error)), -ENOENT);
    assert_int_equal(dkim_keygen(path, DKIM_RSA, 512, &record, error, sizeof(error)), -EINVAL);
    assert_int_equal(dkim_keygen(path, DKIM_RSA, 1000, &record, error, sizeof(error)), -EINVAL);
}

static struct dkim_keys *load_config(const struct config *config) {
    struct dkim_keys *keys = dkim_keys_load(config, NULL, NULL, error, sizeof(error));
    if (keys == NULL)
        fail_msg("%s", error);
    return keys;
}

/* The selectors that sign for a domain and a tenant, and behind a "|" the platform's. */
static const char *who_signs(const struct dkim_keys *keys, const char *domain, const char *tenant) {
    static char text[256];
    const struct dkim_key *chosen[DKIM_SIGNATURES_MAX];
    uint32_t own, count = dkim_keys_choose(keys, domain, tenant, chosen, &own);
    text[0] = '\0';
    for (uint32_t i = 0; i < count; i++) {
        if (i == own)
            strcat(text, "|");
        strcat(text, chosen[i]->selector);
        strcat(text, " ");
    }
    return text;
}

static void a_tenant_s_own_keys_win_and_the_platform_signs_too(void **state) {
    struct config_dkim_key configured[] = {
        {.domain = "example.org", .selector = "all1", .key_file = key_2048},
        {.domain = "example.org", .selector = "acme1", .key_file = key_other, .tenant = (char *)"acme"},
        {.domain = "example.org", .selector = "all2", .key_file = key_ed25519},
        {.domain = "example.org", .selector = "acme2", .key_file = key_ed25519, .tenant = (char *)"acme"},
        {.domain = "only.example", .selector = "beta1", .key_file = key_2048, .tenant = (char *)"beta"},
    };
    struct config_dkim_key platform[] = {{.domain = "mail.example.net", .selector = "p1", .key_file = key_2048},
                                         {.domain = "example.org", .selector = "p2", .key_file = key_2048}};
    struct config config = {.dkim = configured, .dkim_count = 5, .dkim_platform = platform, .dkim_platform_count = 2};
    struct dkim_keys *keys = load_config(&config);
    assert_string_equal(who_signs(keys, "example.org", NULL), "all1 all2 |p1 ");
    assert_string_equal(who_signs(keys, "example.org", "beta"), "all1 all2 |p1 ");
    assert_string_equal(who_signs(keys, "example.org", "acme"), "acme1 acme2 |p1 ");
    assert_string_equal(who_signs(keys, "shop.example.org", "acme"), "acme1 acme2 |p1 ");
    assert_string_equal(who_signs(keys, "only.example", "beta"), "beta1 |p1 p2 ");
    assert_string_equal(who_signs(keys, "only.example", "acme"), "|p1 p2 ");
    assert_string_equal(who_signs(keys, "only.example", NULL), "|p1 p2 ");
    dkim_keys_free(keys);
    config.dkim_platform_count = 0;
    keys = load_config(&config);
    assert_string_equal(who_signs(keys, "only.example", "acme"), "");
    dkim_keys_free(keys);
    /* As many as have room, the platform's among them. */
    struct config_dkim_key three[] = {configured[0], configured[2], {.domain = "example.org", .selector = "all3", .key_file = key_1024}};
    struct config_dkim_key platforms[] = {platform[0], {.domain = "mail.example.net", .selector = "p3", .key_file = key_ed25519}};
    config = (struct config){.dkim = three, .dkim_count = 3, .dkim_platform = platforms, .dkim_platform_count = 2};
    assert_null(dkim_keys_load(&config, NULL, NULL, error, sizeof(error)));
    assert_non_null(strstr(error, "more than 4 keys with the platform's"));
    config.dkim_count = 2;
    dkim_keys_free(load_config(&config));
}

/* A field of the message without white space. */
static char *unfolded(const struct message *message, unsigned number) {
    const char *at = (const char *)message->bytes + message->start;
    for (; number > 0; number--)
        do
            at = strstr(at, "\r\n") + 2;
        while (*at == '\t');
    char *out = calloc(1, 8192), *to = out;
    for (; !(at[0] == '\r' && at[2] != '\t'); at++)
        if (*at != '\r' && *at != '\n' && *at != '\t' && *at != ' ')
            *to++ = *at;
    return out;
}

static void both_algorithms_sign_beside_each_other(void **state) {
    struct config_dkim_key configured[] = {{.domain = "example.org", .selector = "r1", .key_file = key_2048},
                                           {.domain = "example.org", .selector = "e1", .key_file = key_ed25519}};
    struct config_dkim_key platform = {.domain = "mail.example.net", .selector = "p1", .key_file = key_ed25519};
    struct config config = {
        .dkim = configured, .dkim_count = 2, .dkim_platform = &platform, .dkim_platform_count = 1, .dkim_expire_s = 86400};
    struct dkim_keys *keys = load_config(&config);
    struct dkim_signer *signer = dkim_signer_create(keys);
    struct message message;
    message_init(&message);
    render(&message);
    assert_int_equal(dkim_sign(signer, &message, NULL, 1700000001), 3);
    static const char *const begins[] = {
        "DKIM-Signature:v=1;a=rsa-sha256;c=relaxed/relaxed;d=example.org;s=r1;t=1700000001;x=1700086401;h=from:",
        "DKIM-Signature:v=1;a=ed25519-sha256;c=relaxed/relaxed;d=example.org;s=e1;t=1700000001;x=1700086401;h=from:",
        "DKIM-Signature:v=1;a=ed25519-sha256;c=relaxed/relaxed;d=mail.example.net;s=p1;t=1700000001;x=1700086401;h=from:"};
    char *fields[3];
    for (unsigned i = 0; i < 3; i++) {
        fields[i] = unfolded(&message, i);
        if (strncmp(fields[i], begins[i], strlen(begins[i])) != 0)
            fail_msg("%s", fields[i]);
        assert_int_equal(strlen(strstr(strstr(fields[i], "bh="), ";b=") + 3), i == 0 ? 344 : 88);
    }
    /* One body, one h=. */
    char *h = strstr(fields[0], "h="), *end = strstr(h, ";b=");
    assert_int_equal(strncmp(h, strstr(fields[1], "h="), (size_t)(end - h)), 0);
    for (unsigned i = 0; i < 3; i++)
        free(fields[i]);
    struct dkim_counters counters = {0};
    dkim_signer_counters(signer, &counters);
    assert_int_equal(counters.rsa, 1);
    assert_int_equal(counters.ed25519, 2);
    assert_int_equal(counters.lanes + counters.wolfssl, 3);
    assert_int_equal(counters.faults, 0);
    message_free(&message);
    dkim_signer_free(signer);
    dkim_keys_free(keys);
}

static void what_is_signed_of_a_header_can_be_configured(void **state) {
    static char *oversign[] = {(char *)"to", (char *)"x-tag", NULL}, *sign[] = {(char *)"subject", (char *)"date", NULL}, *none[] = {NULL},
                *with_from[] = {(char *)"from", NULL};
    struct config_dkim_key configured = {.domain = "example.org", .selector = "s1", .key_file = key_ed25519};
    const struct {
        char **oversign, **sign;
        const char *names;
    } cases[] = {{oversign, sign, "h=from:from:to:to:x-tag:subject:date;"}, /* From in any case */
                 {none, none, "h=from:from;"},
                 {none, with_from, "h=from;"},
                 {with_from, sign, "h=from:from:subject:date;"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct config config = {.dkim = &configured, .dkim_count = 1, .dkim_oversign = cases[i].oversign, .dkim_sign = cases[i].sign};
        struct dkim_keys *keys = load_config(&config);
        struct dkim_signer *signer = dkim_signer_create(keys);
        struct message message;
        message_init(&message);
        render(&message);
        assert_int_equal(dkim_sign(signer, &message, NULL, 1), 1);
        char *field = unfolded(&message, 0);
        assert_non_null(strstr(field, cases[i].names));
        free(field);
        message_free(&message);
        dkim_signer_free(signer);
        dkim_keys_free(keys);
    }
}

enum { MIXED = 23 };

/* Which keys sign: RSA-2048 twice, of 1024 bits, Ed25519, several at once. */
static struct dkim_keys *mixed_keys(void) {
    static struct config_dkim_key configured[7];
    memcpy(configured,
           (struct config_dkim_key[]){{.domain = "a.example", .selector = "s1", .key_file = key_2048},
                                      {.domain = "b.example", .selector = "s1", .key_file = key_other},
                                      {.domain = "c.example", .selector = "s1", .key_file = key_1024},
                                      {.domain = "d.example", .selector = "s1", .key_file = key_ed25519},
                                      {.domain = "e.example", .selector = "s1", .key_file = key_2048},
                                      {.domain = "e.example", .selector = "s2", .key_file = key_ed25519},
                                      {.domain = "e.example", .selector = "s3", .key_file = key_other}},
           sizeof(configured));
    return load_good(configured, 7);
}

static void mixed_message(struct message *message, int number) {
    message_init(message);
    render(message);
    snprintf(message->from_domain, sizeof(message->from_domain), "%c.example", 'a' + number % 5);
}

/* The lanes' signatures are those of wolfCrypt: PKCS#1 v1.5 and Ed25519 have one signature for a digest (RFC 8017 8.2, RFC 8032 5.1.6). */
static void begun_messages_are_signed_as_single_ones_are(void **state) {
    struct dkim_keys *keys = mixed_keys();
    struct dkim_signer *alone = dkim_signer_create(keys);
    static struct message expected[MIXED], messages[MIXED];
    dkim_signer_force(alone, false, LANES_PLAIN);
    for (int i = 0; i < MIXED; i++) {
        mixed_message(&expected[i], i);
        assert_int_equal(dkim_sign(alone, &expected[i], NULL, 1700000000), i % 5 == 4 ? 3 : 1);
    }
    dkim_signer_free(alone);
    for (int way = 0; way < 3; way++) {
        if (way == 2 && !lanes_can(LANES_IFMA)) {
            print_message("skipped: this processor has no AVX-512 IFMA\n");
            continue;
        }
        struct dkim_signer *signer = dkim_signer_create(keys);
        bool lanes = way > 0, seen[MIXED] = {false};
        dkim_signer_force(signer, lanes, way == 2 ? LANES_IFMA : LANES_PLAIN);
        unsigned waiting = 0, finished = 0;
        for (int i = 0; i < MIXED; i++) {
            mixed_message(&messages[i], i);
            assert_int_equal(dkim_begin(signer, &messages[i], NULL, 1700000000, &messages[i]), i % 5 == 4 ? 3 : 1);
            waiting += !lanes ? 0 : i % 5 < 2 ? 1 : i % 5 == 4 ? 2 : 0;
            assert_int_equal(dkim_waiting(signer), waiting);
            if (waiting >= DKIM_LANES) {
                dkim_flush(signer, false);
                waiting -= DKIM_LANES;
                assert_int_equal(dkim_waiting(signer), waiting);
            }
        }
        dkim_flush(signer, false);
        assert_int_equal(dkim_waiting(signer), waiting);
        dkim_flush(signer, true);
        assert_int_equal(dkim_waiting(signer), 0);
        void *user;
        for (int status; dkim_next(signer, &user, &status); finished++) {
            long at = (struct message *)user - messages;
            assert_int_equal(status, 0);
            assert_false(seen[at]);
            seen[at] = true;
            assert_int_equal(messages[at].length, expected[at].length);
            assert_memory_equal(messages[at].bytes + messages[at].start, expected[at].bytes + expected[at].start, expected[at].length);
        }
        assert_int_equal(finished, MIXED);
        struct dkim_counters counters = {0};
        dkim_signer_counters(signer, &counters);
        assert_int_equal(counters.lanes > 0, lanes);
        assert_int_equal(counters.flushes, lanes ? 3 : 0); /* 18 signatures for lanes: 8, 8 and two together */
        assert_int_equal(counters.lanes + counters.wolfssl, counters.rsa + counters.ed25519);
        for (int i = 0; i < MIXED; i++)
            message_free(&messages[i]);
        dkim_signer_free(signer);
    }
    for (int i = 0; i < MIXED; i++)
        message_free(&expected[i]);
    dkim_keys_free(keys);
}

static void no_more_begin_than_have_room_and_single_ones_find_theirs(void **state) {
    struct dkim_keys *keys = mixed_keys();
    struct dkim_signer *signer = dkim_signer_create(keys);
    static struct message messages[DKIM_BEGUN_MAX + 1];
    dkim_signer_force(signer, true, LANES_PLAIN);
    for (int i = 0; i <= DKIM_BEGUN_MAX; i++) {
        mixed_message(&messages[i], 3); /* Ed25519: whole at once, and not taken */
        assert_int_equal(dkim_begin(signer, &messages[i], NULL, 1, &messages[i]), i < DKIM_BEGUN_MAX ? 1 : -EBUSY);
    }
    void *user;
    int status;
    assert_true(dkim_next(signer, &user, &status));
    assert_ptr_equal(user, &messages[0]);
    /* One place is free: the last message is signed in one go, while others are still to be taken. */
    assert_int_equal(dkim_sign(signer, &messages[DKIM_BEGUN_MAX], NULL, 1), 1);
    for (int i = 1; i < DKIM_BEGUN_MAX; i++) {
        assert_true(dkim_next(signer, &user, &status));
        assert_ptr_equal(user, &messages[i]);
    }
    assert_false(dkim_next(signer, &user, &status));
    assert_memory_equal(messages[0].bytes + messages[0].start, messages[DKIM_BEGUN_MAX].bytes + messages[DKIM_BEGUN_MAX].start,
                        messages[0].length);
    for (int i = 0; i <= DKIM_BEGUN_MAX; i++)
        message_free(&messages[i]);
    dkim_signer_free(signer);
    dkim_keys_free(keys);
}

/* Neither with some of its signatures nor unsigned: it is an error of that message, which passes (a machine's fault). */
static void a_message_with_a_fault_in_one_signature_has_none(void **state) {
    struct config_dkim_key configured[] = {{.domain = "example.org", .selector = "good", .key_file = key_ed25519},
                                           {.domain = "example.org", .selector = "bad", .key_file = key_2048},
                                           {.domain = "example.org", .selector = "fine", .key_file = key_1024}};
    for (int with_lanes = 0; with_lanes < 2; with_lanes++) {
        struct dkim_keys *keys = load_good(configured, 3);
        struct dkim_signer *signer = dkim_signer_create(keys);
        struct message message;
        struct dkim_counters counters = {0};
        /* As when its memory had decayed: the lanes find it, then wolfCrypt cannot decode it. */
        assert_non_null(keys->keys[1].lanes);
        keys->keys[1].lanes->halves[0].exponent[3] ^= 1;
        keys->keys[1].der[8] ^= 0xff;
        dkim_signer_force(signer, with_lanes, LANES_PLAIN);
        message_init(&message);
        render(&message);
        size_t start = message.start, length = message.length;
        assert_int_equal(dkim_begin(signer, &message, NULL, 1, &message), 3);
        while (dkim_waiting(signer) > 0 && dkim_waiting(signer) < 2) { /* two, so that the lanes take them */
            static struct message other;
            message_init(&other);
            render(&other);
            assert_int_equal(dkim_begin(signer, &other, NULL, 1, &other), 3);
        }
        dkim_flush(signer, true);
        void *user;
        int status;
        unsigned whole = 0;
        for (; dkim_next(signer, &user, &status); whole++) {
            assert_int_equal(status, -EIO);
            if (user != &message)
                message_free(user);
        }
        assert_int_equal(whole, with_lanes ? 2 : 1);
        assert_int_equal(message.start, start);
        assert_int_equal(message.length, length);
        dkim_signer_counters(signer, &counters);
        assert_int_equal(counters.faults, with_lanes ? 4 : 1);
        message_free(&message);
        dkim_signer_free(signer);
        dkim_keys_free(keys);
    }
}

static void keys_change_only_when_nothing_waits(void **state) {
    struct config_dkim_key configured = {.domain = "example.org", .selector = "new", .key_file = key_other};
    struct dkim_keys *keys = mixed_keys(), *others = load_good(&configured, 1);
    struct dkim_signer *signer = dkim_signer_create(keys);
    struct message message;
    mixed_message(&message, 0);
    dkim_signer_force(signer, true, LANES_PLAIN);
    assert_int_equal(dkim_begin(signer, &message, NULL, 1, NULL), 1);
    assert_false(dkim_signer_use(signer, others));
    dkim_flush(signer, true);
    assert_true(dkim_signer_use(signer, others));
    assert_int_equal(keys->references, 1); /* the signer's is dropped, and with the last the keys are wiped */
    assert_int_equal(others->references, 2);
    message_free(&message);
    mixed_message(&message, 0);
    assert_int_equal(dkim_begin(signer, &message, NULL, 1, NULL), 0);
    strcpy(message.from_domain, "example.org");
    assert_int_equal(dkim_sign(signer, &message, NULL, 1), 1);
    message_free(&message);
    dkim_signer_free(signer);
    assert_int_equal(others->references, 1);
    dkim_keys_free(others);
    dkim_keys_free(keys);
}

static void a_key_tells_its_record(void **state) {
    char path[64], *made = NULL, *told = NULL;
    strcpy(path, in_directory("new.pem"));
    unlink(path);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(dkim_keygen(path, i == 0 ? DKIM_ED25519 : DKIM_RSA, 1024, &made, error, sizeof(error)), 0);
        assert_int_equal(dkim_public_record(path, &told, error, sizeof(error)), 0);
        assert_string_equal(made, told);
        /* RFC 8463 4: 32 bytes as they are. */
        assert_int_equal(strncmp(told, i == 0 ? "v=DKIM1; k=ed25519; p=" : "v=DKIM1; k=rsa; p=", i == 0 ? 22 : 18), 0);
        if (i == 0)
            assert_int_equal(strlen(told), 22 + 44);
        free(made);
        free(told);
        unlink(path);
    }
    assert_int_equal(dkim_public_record(path, &told, error, sizeof(error)), -ENOENT);
    assert_null(told);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_of_both_forms_load),
        cmocka_unit_test(a_short_key_and_an_open_file_are_warned_of),
        cmocka_unit_test(what_is_no_key_is_named_with_a_remedy),
        cmocka_unit_test(a_bad_key_among_good_ones_is_named_wherever_it_stands),
        cmocka_unit_test(keys_whose_numbers_do_not_belong_together_are_refused),
        cmocka_unit_test(a_domain_is_signed_by_its_own_key_or_its_nearest_parent_s),
        cmocka_unit_test(a_signature_is_one_field_before_the_message),
        cmocka_unit_test(the_same_message_has_the_same_signature),
        cmocka_unit_test(each_configured_key_signs_and_none_means_none),
        cmocka_unit_test(headroom_is_made_where_it_is_used_up),
        cmocka_unit_test(a_message_with_too_many_fields_is_refused),
        cmocka_unit_test(a_new_key_is_private_and_never_overwrites),
        cmocka_unit_test(a_tenant_s_own_keys_win_and_the_platform_signs_too),
        cmocka_unit_test(both_algorithms_sign_beside_each_other),
        cmocka_unit_test(what_is_signed_of_a_header_can_be_configured),
        cmocka_unit_test(begun_messages_are_signed_as_single_ones_are),
        cmocka_unit_test(no_more_begin_than_have_room_and_single_ones_find_theirs),
        cmocka_unit_test(a_message_with_a_fault_in_one_signature_has_none),
        cmocka_unit_test(keys_change_only_when_nothing_waits),
        cmocka_unit_test(a_key_tells_its_record),
    };
    return cmocka_run_group_tests_name("sign", tests, set_up, tear_down);
}
