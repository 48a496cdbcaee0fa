/* Keys, signatures and the pool: RFC 6376 3.5, 3.7, 5.4; RFC 8301; SMTP.md section 4. Signatures are checked against another implementation
 * in tests/integration/test_dkim. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "control/sign/keys.h"
#include "control/sign/sign.h"

#include <wolfssl/wolfcrypt/asn_public.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[] = "/tmp/bypost-sign-XXXXXX";
static char key_2048[64], key_1024[64], key_pkcs1[64];
static char error[512];
static struct identity *identity;

static const char *in_directory(const char *name) {
    static char path[128];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    return path;
}

static void write_file(const char *path, const void *bytes, size_t length) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    fclose(file);
    chmod(path, 0600);
}

static size_t read_whole(const char *path, uint8_t *bytes, size_t room) {
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t length = fread(bytes, 1, room, file);
    fclose(file);
    return length;
}

static int set_up(void **state) {
    char *record;
    if (mkdtemp(directory) == NULL)
        return -1;
    strcpy(key_2048, in_directory("2048.pem"));
    strcpy(key_1024, in_directory("1024.pem"));
    strcpy(key_pkcs1, in_directory("pkcs1.pem"));
    if (dkim_keygen(key_2048, DKIM_RSA, 2048, &record, error, sizeof(error)) < 0)
        return -1;
    free(record);
    if (dkim_keygen(key_1024, DKIM_RSA, 1024, &record, error, sizeof(error)) < 0)
        return -1;
    free(record);
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

static int tear_down(void **state) {
    static const char *const names[] = {"2048.pem", "1024.pem", "pkcs1.pem", "identity", "bad.pem", "new.pem"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        unlink(in_directory(names[i]));
    identity_free(identity);
    return rmdir(directory);
}

static unsigned warnings;
static char last_warning[512];
static void count_warning(void *context, const char *sentence) {
    warnings++;
    snprintf(last_warning, sizeof(last_warning), "%s", sentence);
}

static struct dkim_keys *load(struct config_dkim_key *keys, uint32_t count) {
    struct config config = {.dkim = keys, .dkim_count = count};
    warnings = 0;
    error[0] = '\0';
    return dkim_keys_load(&config, count_warning, NULL, error, sizeof(error));
}

static struct dkim_keys *load_good(struct config_dkim_key *keys, uint32_t count) {
    struct dkim_keys *loaded = load(keys, count);
    if (loaded == NULL)
        fail_msg("%s", error);
    return loaded;
}

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

static struct job_recipient recipient = {.mailbox = {.email = (char *)"bob@example.net"}, .kind = RECIPIENT_PRIVATE};
static struct job job = {.queue = "normal",
                         .from = {.email = (char *)"ann@news.example.org"},
                         .subject = (char *)"Hello",
                         .text = (char *)"Hi\n",
                         .recipients = &recipient,
                         .recipient_total = 1};

static void render(struct message *message) {
    assert_int_equal(render_message(&job, 0, 1700000000, identity, 1 << 20, message, error, sizeof(error)), 0);
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

enum { TASKS = 300, SHARDS = 3, CAPACITY = 64, PATIENCE_MS = 20000 };

static void wait_for(struct press *press, uint32_t shard) {
    struct pollfd wait = {.fd = press_descriptor(press, shard), .events = POLLIN};
    assert_int_equal(poll(&wait, 1, PATIENCE_MS), 1);
}

static void the_press_gives_every_task_back_to_its_shard(void **state) {
    struct config_dkim_key configured = {.domain = "example.org", .selector = "s1", .key_file = key_1024};
    struct config config = {.dkim = &configured, .dkim_count = 1, .max_message_bytes = 1 << 20};
    struct dkim_keys *keys = load_good(&configured, 1);
    struct press_config press_config = {
        .threads = 3, .capacity = CAPACITY, .config = &config, .identity = identity, .keys = keys, .shards = SHARDS};
    struct press *press = press_create(&press_config);
    static struct press_task tasks[TASKS];
    unsigned submitted = 0, collected = 0, full = 0, of_shard[SHARDS] = {0};
    assert_non_null(press);
    memset(tasks, 0, sizeof(tasks));
    while (collected < TASKS) {
        while (submitted < TASKS) {
            struct press_task *task = &tasks[submitted];
            task->job = &job;
            task->index = submitted % 10 == 9 ? 5 : 0; /* some have no such recipient */
            task->date_s = 1700000000;
            task->user = task;
            if (!press_submit(press, submitted % SHARDS, task)) {
                full++;
                break;
            }
            submitted++;
            assert_true(submitted - collected <= CAPACITY);
        }
        for (uint32_t shard = 0; shard < SHARDS; shard++) {
            if (submitted == TASKS && of_shard[shard] < TASKS / SHARDS)
                wait_for(press, shard);
            for (struct press_task *task = press_collect(press, shard), *next; task != NULL; task = next) {
                next = task->next;
                size_t number = (size_t)(task - tasks);
                assert_int_equal(number % SHARDS, shard);
                assert_ptr_equal(task->user, task);
                if (number % 10 == 9) {
                    assert_int_equal(task->status, -EINVAL);
                    assert_true(task->error[0] != '\0');
                } else {
                    assert_int_equal(task->status, 0);
                    assert_int_equal(task->signatures, 1);
                    assert_memory_equal(task->message.bytes + task->message.start, "DKIM-Signature:", 15);
                }
                task->user = NULL; /* once only */
                message_free(&task->message);
                collected++;
                of_shard[shard]++;
            }
        }
    }
    assert_int_equal(collected, TASKS);
    assert_true(full > 0);
    for (uint32_t shard = 0; shard < SHARDS; shard++) {
        struct pollfd quiet = {.fd = press_descriptor(press, shard), .events = POLLIN};
        assert_int_equal(poll(&quiet, 1, 0), 0);
        assert_null(press_collect(press, shard));
    }
    press_destroy(press);
    dkim_keys_free(keys);
}

static void a_required_key_that_is_missing_is_that_message_s_error(void **state) {
    struct config config = {.max_message_bytes = 1 << 20, .dkim_required = true};
    struct dkim_keys *keys = dkim_keys_load(&config, NULL, NULL, error, sizeof(error));
    struct press_config press_config = {.threads = 1, .capacity = 4, .config = &config, .identity = identity, .keys = keys, .shards = 1};
    struct press *press = press_create(&press_config);
    struct press_task task = {.job = &job};
    assert_true(press_submit(press, 0, &task));
    wait_for(press, 0);
    assert_ptr_equal(press_collect(press, 0), &task);
    assert_int_equal(task.status, -ENOKEY);
    assert_non_null(strstr(task.error, "news.example.org"));
    message_free(&task.message);
    press_destroy(press);
    dkim_keys_free(keys);
}

static void a_press_can_be_destroyed_with_work_under_way(void **state) {
    struct config_dkim_key configured = {.domain = "example.org", .selector = "s1", .key_file = key_2048};
    struct config config = {.max_message_bytes = 1 << 20};
    struct dkim_keys *keys = load_good(&configured, 1);
    struct press_config press_config = {.threads = 2, .capacity = 100, .config = &config, .identity = identity, .keys = keys, .shards = 1};
    static struct press_task tasks[100];
    memset(tasks, 0, sizeof(tasks));
    struct press *press = press_create(&press_config);
    for (int i = 0; i < 100; i++) {
        tasks[i].job = &job;
        assert_true(press_submit(press, 0, &tasks[i]));
    }
    press_destroy(press); /* the tasks stay their owner's */
    for (int i = 0; i < 100; i++)
        message_free(&tasks[i].message);
    dkim_keys_free(keys);
    press_config.threads = 0;
    assert_null(press_create(&press_config));
    assert_int_equal(errno, EINVAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_of_both_forms_load),
        cmocka_unit_test(a_short_key_and_an_open_file_are_warned_of),
        cmocka_unit_test(what_is_no_key_is_named_with_a_remedy),
        cmocka_unit_test(a_domain_is_signed_by_its_own_key_or_its_nearest_parent_s),
        cmocka_unit_test(a_signature_is_one_field_before_the_message),
        cmocka_unit_test(the_same_message_has_the_same_signature),
        cmocka_unit_test(each_configured_key_signs_and_none_means_none),
        cmocka_unit_test(headroom_is_made_where_it_is_used_up),
        cmocka_unit_test(a_message_with_too_many_fields_is_refused),
        cmocka_unit_test(a_new_key_is_private_and_never_overwrites),
        cmocka_unit_test(the_press_gives_every_task_back_to_its_shard),
        cmocka_unit_test(a_required_key_that_is_missing_is_that_message_s_error),
        cmocka_unit_test(a_press_can_be_destroyed_with_work_under_way),
    };
    return cmocka_run_group_tests_name("sign", tests, set_up, tear_down);
}
