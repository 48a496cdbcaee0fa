/* test_subset.c: job_subset and job_place: the text of some recipients is a job again, with the same recipients under the same indexes. */
#include "control/fetch/fetch.h"

#include "tests/unit/fetch/msgpack_write.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROUNDS = 2000, RECIPIENTS_DRAWN_MAX = 40 };

static const struct config config = {.max_message_bytes = 1 << 20, .max_recipients_per_job = 500};

static struct job *decode(const void *text, size_t length) {
    char error[512];
    uint8_t *exact = malloc(length); /* so that the sanitizer sees a read behind the end */
    memcpy(exact, text, length);
    struct job *job = job_decode(exact, length, &config, error, sizeof error);
    free(exact);
    if (!job) {
        fail_msg("%s: %.*s", error, (int)length, (const char *)text);
    }
    return job;
}

static void assert_same_text(const char *a, const char *b) {
    if (!a || !b) {
        assert_ptr_equal(a, b);
    } else {
        assert_string_equal(a, b);
    }
}

/* A subset keeps what any recipient's merge data make of the texts: templates. */
static bool any_merges(const struct job *job) {
    bool any = false;
    for (uint32_t i = 0; i < job_recipient_count(job); i++) {
        any |= job->recipients[i].merge_data != NULL;
    }
    return any;
}

static void assert_same_recipient(const struct job_recipient *a, const struct job_recipient *b) {
    assert_non_null(a);
    assert_non_null(b);
    assert_string_equal(a->mailbox.email, b->mailbox.email);
    assert_same_text(a->mailbox.name, b->mailbox.name);
    if (!a->merge_data || strcmp(a->merge_data, "{}") != 0) { /* empty ones stand for those who are left out */
        assert_same_text(a->merge_data, b->merge_data);
    }
    assert_same_text(a->metadata, b->metadata);
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->header_count, b->header_count);
    for (uint32_t i = 0; i < a->header_count; i++) {
        assert_string_equal(a->headers[i].name, b->headers[i].name);
        assert_string_equal(a->headers[i].value, b->headers[i].value);
    }
}

/* Takes the subset, reads it as an entry with a history `s` is read, and compares it with what was asked for. */
static struct job *assert_subset(const struct job *job, const uint32_t *indexes, uint32_t count) {
    size_t length;
    char *text = job_subset(job, indexes, count, &length);
    assert_non_null(text);
    struct job *part = decode(text, length);
    free(text);
    assert_int_equal(part->recipient_total, count);
    assert_int_equal(job_place(part, indexes, count, job->recipient_total), 0);
    assert_int_equal(part->recipient_total, job->recipient_total);
    assert_int_equal(part->pending_count, count);
    assert_int_equal(part->entry_recipients, count);
    assert_string_equal(part->subject, job->subject);
    assert_same_text(part->metadata, job->metadata);
    assert_int_equal(any_merges(part), any_merges(job));
    for (uint32_t i = 0, at = 0; i < job->recipient_total; i++) {
        bool chosen = at < count && indexes[at] == i;
        if (chosen) {
            assert_int_equal(part->pending[at++], i);
            assert_same_recipient(job_recipient(part, i), job_recipient(job, i));
        } else {
            assert_null(job_recipient(part, i));
        }
    }
    return part;
}

static const char whole[] =
    " {\"from\":\"a@b.test\", \"subject\":\"\\u00e4 recipients: [\", \"tags\":[\"recipients\"],\n \"recip\\u0069ents\" : [ "
    "{\"to\":\"r0@x.test\"} ,\n\t{\"merge_data\":{\"recipients\":[{\"a\":\"]}\"}]},\"to\":\"r1@x.test\"}, "
    "{\"to\":{\"email\":\"r2@x.test\",\"name\":\"\xc3\xa4\"}}, {\"to\":\"r3@x.test\",\"headers\":{\"X-A\":\"1\"}} ], "
    "\"metadata\":{\"recipients\":[1,{}]}, \"text\":\"{{a}}\"} ";

static void test_the_bytes_are_exact(void **state) {
    struct job *job = decode(whole, strlen(whole));
    const uint32_t indexes[] = {1, 3};
    size_t length;
    char *text = job_subset(job, indexes, 2, &length);
    const char *expected =
        " {\"from\":\"a@b.test\", \"subject\":\"\\u00e4 recipients: [\", \"tags\":[\"recipients\"],\n \"recip\\u0069ents\" : [ "
        "{\"merge_data\":{\"recipients\":[{\"a\":\"]}\"}]},\"to\":\"r1@x.test\"},"
        "{\"to\":\"r3@x.test\",\"headers\":{\"X-A\":\"1\"}} ], "
        "\"metadata\":{\"recipients\":[1,{}]}, \"text\":\"{{a}}\"} ";
    assert_int_equal(length, strlen(expected));
    assert_memory_equal(text, expected, length);
    free(text);
    struct job *part = assert_subset(job, indexes, 2);
    /* A part of a part: the indexes stay those of the original. */
    const uint32_t last[] = {3};
    struct job *rest = assert_subset(part, last, 1);
    assert_null(rest->source_text);
    const uint32_t missing[] = {0, 3}, descending[] = {3, 1}, twice[] = {1, 1};
    assert_null(job_subset(part, missing, 2, &length));
    assert_null(job_subset(job, descending, 2, &length));
    assert_null(job_subset(job, twice, 2, &length));
    assert_null(job_subset(job, twice, 0, &length));
    job_release(rest);
    job_release(part);
    job_release(job);
}

/* to, cc and bcc are one message: there is no smaller text. One recipient: the text is as small as it gets. */
static void test_no_subset(void **state) {
    static const char *const texts[] = {
        "{\"from\":\"a@b.test\",\"to\":[\"a@x.test\",\"b@x.test\"],\"text\":\"t\"}",
        "{\"from\":\"a@b.test\",\"recipients\":[{\"to\":\"a@x.test\"}],\"text\":\"t\"}",
    };
    for (size_t i = 0; i < 2; i++) {
        struct job *job = decode(texts[i], strlen(texts[i]));
        const uint32_t first = 0;
        size_t length = 1;
        assert_null(job_subset(job, &first, 1, &length));
        assert_int_equal(length, 0);
        assert_null(job->source_text);
        job_release(job);
    }
}

static void test_places_are_checked(void **state) {
    struct job *job = decode(whole, strlen(whole));
    const uint32_t good[] = {2, 7, 8, 499}, descending[] = {2, 8, 7, 9}, twice[] = {2, 2, 3, 4};
    assert_int_equal(job_place(job, good, 3, 500), -EINVAL);
    assert_int_equal(job_place(job, good, 4, 499), -EINVAL);
    assert_int_equal(job_place(job, descending, 4, 500), -EINVAL);
    assert_int_equal(job_place(job, twice, 4, 500), -EINVAL);
    assert_int_equal(job->recipient_total, 4);
    assert_null(job->places);
    assert_int_equal(job_place(job, good, 4, 500), 0);
    assert_string_equal(job_recipient(job, 499)->mailbox.email, "r3@x.test");
    assert_null(job_recipient(job, 3));
    assert_null(job_recipient(job, 500));
    assert_int_equal(job_place(job, good, 4, 500), -EINVAL); /* once */
    job_release(job);
    static const char visible[] = "{\"from\":\"a@b.test\",\"to\":\"a@x.test\",\"text\":\"t\"}";
    job = decode(visible, sizeof visible - 1);
    assert_int_equal(job_place(job, good, 1, 500), -EINVAL);
    job_release(job);
}

static uint32_t next_random(uint64_t *seed) {
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*seed >> 33);
}

static json_t *draw_job(uint32_t count, uint64_t *seed) {
    json_t *job = json_pack("{s:s, s:s}", "from", "a@b.test", "subject", "[{\"recipients\":[{}]}]"), *recipients = json_array();
    for (uint32_t i = 0; i < count; i++) {
        char address[32];
        snprintf(address, sizeof address, "r%u@x.test", next_random(seed) % 30);
        json_t *recipient = json_pack("{s:s}", "to", address);
        if (next_random(seed) % 2) {
            json_object_set_new(recipient, "merge_data", json_pack("{s:[{s:i}], s:s}", "recipients", "a", (int)i, "s", "\\\",]}[{"));
        }
        if (next_random(seed) % 4 == 0) {
            json_object_set_new(recipient, "headers", json_pack("{s:s}", "X-Own", "\xe2\x82\xac"));
        }
        if (next_random(seed) % 4 == 0) {
            json_object_set_new(recipient, "metadata", json_pack("{s:i}", "n", (int)i));
        }
        json_array_append_new(recipients, recipient);
    }
    if (next_random(seed) % 2) {
        json_object_set_new(job, "metadata", json_pack("{s:[{}]}", "recipients"));
    }
    json_object_set_new(job, "recipients", recipients);
    json_object_set_new(job, next_random(seed) % 2 ? "text" : "html", json_string("t"));
    return job;
}

/* decode(subset(job, S)) placed at S is the job's recipients S, in both formats. */
static void test_any_subset(void **state) {
    uint64_t seed = 7;
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t count = 2 + next_random(&seed) % RECIPIENTS_DRAWN_MAX;
        json_t *tree = draw_job(count, &seed);
        struct bytes packed = {.length = 0};
        struct job *job;
        if (round % 2) {
            char *text = json_dumps(tree, round % 4 == 1 ? JSON_COMPACT : JSON_INDENT(2));
            job = decode(text, strlen(text));
            free(text);
        } else {
            msgpack_write(&packed, tree);
            job = decode(packed.at, packed.length);
        }
        uint32_t indexes[RECIPIENTS_DRAWN_MAX + 2], chosen = 0, share = 1 + next_random(&seed) % 4;
        for (uint32_t i = 0; i < count; i++) {
            if (next_random(&seed) % share == 0) {
                indexes[chosen++] = i;
            }
        }
        if (chosen > 0) {
            struct job *part = assert_subset(job, indexes, chosen);
            uint32_t half = (chosen + 1) / 2;
            if (chosen > 1) {
                job_release(assert_subset(part, indexes, half));
            }
            job_release(part);
        }
        job_release(job);
        free(packed.at);
        json_decref(tree);
    }
}

/* Those who stay bring no merge data: their texts are templates all the same, as they were with the others. */
static void test_texts_stay_templates(void **state) {
    static const char *const firsts[] = {"{\"to\":\"a@x.test\"}", "{\"to\":\"a@x.test\",\"headers\":{\"A\":\"1\"},\"metadata\":{}}"};
    for (size_t i = 0; i < 4; i++) {
        char text[512];
        snprintf(
            text, sizeof text,
            "{\"from\":\"a@b.test\",\"subject\":\"s\",\"text\":\"t\",\"recipients\":[%s,{\"to\":\"b@x.test\",\"merge_data\":{\"a\":1}}]}",
            firsts[i % 2]);
        struct bytes packed = {.length = 0};
        json_t *tree = json_loads(text, 0, NULL);
        msgpack_write(&packed, tree);
        struct job *job = i < 2 ? decode(text, strlen(text)) : decode(packed.at, packed.length);
        const uint32_t first = 0, second = 1;
        struct job *part = assert_subset(job, &first, 1);
        assert_string_equal(part->recipients[0].merge_data, "{}");
        job_release(part);
        part = assert_subset(job, &second, 1);
        assert_string_equal(part->recipients[0].merge_data, "{\"a\":1}");
        job_release(part);
        job_release(job);
        free(packed.at);
        json_decref(tree);
    }
}

/* An array header wider than it need be is a header all the same (MessagePack: array 32 of two elements). */
static void test_wide_array_header(void **state) {
    static const char packed[] =
        "\x84\xa4"
        "from\xa8"
        "a@b.test\xa7subject\xa1s\xaarecipients\xdd\x00\x00\x00\x02\x81\xa2to\xa5x@y.z\x81\xa2to\xa5u@v.w\xa4text\xa1t";
    struct job *job = decode(packed, sizeof packed - 1);
    const uint32_t second = 1;
    job_release(assert_subset(job, &second, 1));
    job_release(job);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_bytes_are_exact),  cmocka_unit_test(test_no_subset),
        cmocka_unit_test(test_places_are_checked),   cmocka_unit_test(test_any_subset),
        cmocka_unit_test(test_texts_stay_templates), cmocka_unit_test(test_wide_array_header),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
