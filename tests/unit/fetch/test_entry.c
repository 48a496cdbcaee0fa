/* test_entry.c: entries of streams, the history that a retry carries, and the table of jobs that live here. */
#include "control/fetch/entry.h"
#include "control/fetch/fetch.h"
#include "control/library/library.h"
#include "control/fetch/live.h"
#include "control/fetch/streams.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static const struct config config = {.max_message_bytes = 1 << 20, .max_recipients_per_job = 500};
static const char ten[] = "{\"from\":\"a@b.test\",\"text\":\"t\",\"to\":[\"0@x.test\",\"1@x.test\",\"2@x.test\",\"3@x.test\",\"4@x.test\","
                          "\"5@x.test\",\"6@x.test\",\"7@x.test\",\"8@x.test\",\"9@x.test\"]}";

static struct job *decode(const char *history, const uint8_t *bits, size_t bits_length, bool is_retry, char error[256]) {
    struct entry_view view = {.id = {5, 1},
                              .job = ten,
                              .job_length = sizeof ten - 1,
                              .history = history,
                              .history_length = history ? strlen(history) : 0,
                              .bits = bits,
                              .bits_length = bits_length};
    return entry_decode(&view, &config, 3, "normal", is_retry, error, 256);
}

static void test_ids(void **state) {
    struct entry_id id;
    assert_true(entry_id_parse("18446744073709551615-7", 22, &id));
    assert_true(id.ms == UINT64_MAX && id.seq == 7);
    assert_false(entry_id_parse("18446744073709551616-7", 22, &id));
    assert_false(entry_id_parse("12", 2, &id));
    assert_false(entry_id_parse("1-2x", 4, &id));
    assert_false(entry_id_parse("", 0, &id));
}

static void test_a_fresh_entry_begins_its_history(void **state) {
    char error[256];
    struct job *job = decode(NULL, NULL, 0, false, error);
    assert_string_equal(job->stream, "normal");
    assert_int_equal(job->history.origin.ms, 5);
    assert_int_equal(job->history.attempt, 0);
    assert_int_equal(job->entry_recipients, 10);
    /* An ID that a producer made up does not make the job a day of 1970 old. */
    assert_true(job->history.first_queued_ms > ((uint64_t)time(NULL) - 10) * 1000);
    job_release(job);
}

static void test_a_retry_carries_its_history(void **state) {
    char error[256];
    struct job *job = decode("1700000000000-4 3 1700000000001 1700000002 1 0,2-4,9", NULL, 0, true, error);
    assert_non_null(job);
    assert_string_equal(job->stream, "retry:normal");
    assert_string_equal(job->queue, "normal");
    assert_int_equal(job->history.origin.ms, UINT64_C(1700000000000));
    assert_int_equal(job->history.origin.seq, 4);
    assert_int_equal(job->history.attempt, 3);
    assert_int_equal(job->history.first_queued_ms, UINT64_C(1700000000001));
    assert_int_equal(job->history.date_s, 1700000002);
    assert_true(job->history.uncertain);
    assert_int_equal(job->entry_recipients, 5);
    assert_int_equal(job->pending_count, 5);
    assert_int_equal(job->pending[4], 9);
    char head[HISTORY_HEAD_BYTES], ranges[RANGES_BYTES];
    history_head_write(&job->history, head);
    ranges_write(job->pending, job->pending_count, ranges);
    assert_string_equal(head, "1700000000000-4 3 1700000000001 1700000002 1");
    assert_string_equal(ranges, "0,2-4,9");
    job_release(job);
}

/* QUEUE.md, keys: progress is entry -> bits a recipient. */
static void test_settled_recipients_are_not_pending(void **state) {
    char error[256];
    const uint8_t bits[] = {0x05, 0x02}; /* 0, 2, 9 */
    struct job *job = decode(NULL, bits, 2, false, error);
    assert_int_equal(job->entry_recipients, 10);
    assert_int_equal(job->pending_count, 7);
    assert_int_equal(job->pending[0], 1);
    assert_int_equal(job->pending[6], 8);
    job_release(job);
    job = decode(NULL, bits, 1, false, error); /* bits that do not reach so far are unset */
    assert_int_equal(job->pending_count, 8);
    job_release(job);
}

static void test_forged_histories(void **state) {
    static const char *const forged[] = {"",
                                         "x",
                                         "1-1 0 0 0 0",
                                         "1-1 0 0 0 0 ",
                                         "1-1 0 0 0 0 10",
                                         "1-1 0 0 0 0 3,3",
                                         "1-1 0 0 0 0 4,3",
                                         "1-1 0 0 0 0 5-2",
                                         "1-1 0 0 0 0 0-4294967295",
                                         "1-1 0 0 0 0 0-99999999999999999999",
                                         "1-1 0 0 0 0 0-",
                                         "1-1 0 0 0 0 0,",
                                         "1-1 0 0 0 2 0",
                                         "1-1 65536 0 0 0 0",
                                         "1-1 -1 0 0 0 0",
                                         "1-1 0 0 0 0 0 0"};
    for (size_t i = 0; i < sizeof forged / sizeof *forged; i++) {
        char error[256];
        if (decode(forged[i], NULL, 0, true, error)) {
            fail_msg("taken for good: %s", forged[i]);
        }
        assert_string_equal(error, "The retry's history (field r) makes no sense.");
    }
}

static void test_live_jobs_leave_with_their_last_reference(void **state) {
    struct live *live = live_create();
    struct job *jobs[5000];
    for (uint64_t i = 0; i < 5000; i++) {
        jobs[i] = job_create();
        strcpy(jobs[i]->stream, i % 2 ? "normal" : "retry:normal");
        jobs[i]->entry = (struct entry_id){1700000000000 + i / 4, i % 4};
        assert_int_equal(live_add(live, jobs[i], i), 0);
    }
    assert_int_equal(live_count(live), 5000);
    assert_int_equal(live_bytes(live), 5000 * 4999 / 2);
    assert_true(live_has(live, "normal", jobs[7]->entry));
    assert_false(live_has(live, "retry:normal", jobs[7]->entry));
    job_hold(jobs[7]);
    job_release(jobs[7]);
    assert_true(live_has(live, "normal", jobs[7]->entry));
    struct entry_id seventh = jobs[7]->entry;
    for (uint64_t i = 0; i < 4999; i++) {
        job_release(jobs[i]);
    }
    assert_false(live_has(live, "normal", seventh));
    assert_int_equal(live_count(live), 1);
    live_destroy(live); /* the last job outlives the table */
    job_release(jobs[4999]);
}

static void test_streams_stand_in_reading_order(void **state) {
    struct streams streams;
    streams_init(&streams, "bypost:{0}:", 0);
    assert_true(streams_add_campaign(&streams, "bypost:{0}:", "march", 0));
    assert_false(streams_add_campaign(&streams, "bypost:{0}:", "a:b", 0));
    assert_int_equal(streams.count, 8);
    for (uint32_t i = 1; i < streams.count; i++) {
        assert_true(streams.items[i - 1].class <= streams.items[i].class);
    }
    assert_string_equal(streams.items[0].queue, "high");
    assert_string_equal(streams_by_name(&streams, "retry:march")->key, "bypost:{0}:q:retry:march");
    streams_forget_unseen(&streams); /* seen when added */
    assert_int_equal(streams.count, 8);
    streams_forget_unseen(&streams);
    assert_int_equal(streams.count, 6);
}

static void test_the_library_tells_its_version(void **state) {
    assert_true(library_version() > 0);
    assert_non_null(strstr(library_text(), "#!lua name=bypost\n"));
    assert_non_null(strstr(library_text(), "'^([^\\n]*)\\n(.)(.*)$'")); /* its backslashes survive the embedding */
}

/* What is being grouped or read already stays as it is; a campaign's streams are read again like all. */
static void test_what_is_pending_is_read_again(void **state) {
    struct streams streams;
    streams_init(&streams, "bypost:{0}:", 0);
    streams_by_name(&streams, "normal")->state = STREAM_READY;
    streams_by_name(&streams, "normal")->cursor = (struct entry_id){9, 9};
    streams_by_name(&streams, "bulk")->state = STREAM_GROUPING;
    streams_by_name(&streams, "high")->state = STREAM_PENDING;
    streams_by_name(&streams, "high")->cursor = (struct entry_id){7, 7};
    streams_reread(&streams);
    assert_int_equal(streams_by_name(&streams, "normal")->state, STREAM_PENDING);
    assert_int_equal(streams_by_name(&streams, "normal")->cursor.ms, 0);
    assert_int_equal(streams_by_name(&streams, "bulk")->state, STREAM_GROUPING);
    assert_int_equal(streams_by_name(&streams, "high")->cursor.ms, 7);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_a_fresh_entry_begins_its_history),
        cmocka_unit_test(test_a_retry_carries_its_history),
        cmocka_unit_test(test_settled_recipients_are_not_pending),
        cmocka_unit_test(test_forged_histories),
        cmocka_unit_test(test_live_jobs_leave_with_their_last_reference),
        cmocka_unit_test(test_streams_stand_in_reading_order),
        cmocka_unit_test(test_what_is_pending_is_read_again),
        cmocka_unit_test(test_the_library_tells_its_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
