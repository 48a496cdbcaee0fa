/* test_entry.c: entries of streams, the history that a retry carries, and the table of jobs that live here. */
#include "control/fetch/entry.h"
#include "control/fetch/fetch.h"
#include "control/fetch/flows.h"
#include "control/fetch/live.h"
#include "control/fetch/streams.h"
#include "control/library/library.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
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
    char text[ENTRY_ID_BYTES];
    entry_id_write((struct entry_id){UINT64_MAX, UINT64_MAX}, text);
    assert_string_equal(text, "18446744073709551615-18446744073709551615");
    entry_id_write((struct entry_id){0, 10}, text);
    assert_string_equal(text, "0-10");
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

/* control/library/README.md, a record of a list: FLAGS is a sum, and goes the way back as it came. */
static void test_flags_are_a_sum(void **state) {
    char error[256], head[HISTORY_HEAD_BYTES];
    for (int flags = 0; flags <= HISTORY_FLAGS; flags++) {
        char history[64];
        snprintf(history, sizeof history, "1-1 0 5 0 %d 0-9", flags);
        struct job *job = decode(history, NULL, 0, true, error);
        assert_int_equal(job->history.uncertain, (flags & 1) != 0);
        assert_int_equal(job->content_counted, (flags & 2) != 0);
        assert_int_equal(job->history.notified, (flags & 4) != 0);
        assert_int_equal(job->history.depth_counted, (flags & 8) != 0);
        history_head_write(&job->history, head);
        assert_memory_equal(head, history, strlen(head));
        job_release(job);
    }
}

/* The same, field `s`: the document holds the recipients of the indexes, in that order. */
static void test_a_subset_keeps_its_indexes(void **state) {
    static const char two[] = "{\"from\":\"a@b.test\",\"text\":\"t\",\"recipients\":[{\"to\":\"3@x.test\"},{\"to\":\"499@x.test\"}]}";
    char error[256];
    struct entry_view view = {.id = {5, 1}, .job = two, .job_length = sizeof two - 1, .history = "1-1 0 5 0 0 3,499", .is_subset = true};
    view.history_length = strlen(view.history);
    struct job *job = entry_decode(&view, &config, 0, "march", false, error, sizeof error);
    assert_non_null(job);
    assert_string_equal(job->stream, "march"); /* a history may stand in a queue's own stream too */
    assert_int_equal(job->entry_recipients, 2);
    assert_int_equal(job->pending[1], 499);
    assert_string_equal(job_recipient(job, 499)->mailbox.email, "499@x.test");
    assert_null(job_recipient(job, 0));
    job_release(job);
    view.history = "1-1 0 5 0 0 3,4,5"; /* three, and the document has two */
    view.history_length = strlen(view.history);
    assert_null(entry_decode(&view, &config, 0, "march", true, error, sizeof error));
}

/* The same, fields `n` and `c`: the submit Function counted the entry. */
static void test_what_submit_counted(void **state) {
    static const char *const fields[][4] = {{"n", "10", NULL, NULL}, {"c", "july", NULL, NULL}, {"n", "10", "c", "july"}, {NULL}};
    for (size_t i = 0; i < 4; i++) {
        redisReply parts[6], *pointers[6], id = {.type = REDIS_REPLY_STRING, .str = (char *)(uintptr_t) "5-1", .len = 3};
        size_t count = 0;
        const char *const job_field[] = {"job", ten};
        for (size_t j = 0; j < 6; j++) {
            const char *text = j < 2 ? job_field[j] : fields[i][j - 2];
            if (!text) {
                break;
            }
            parts[j] = (redisReply){.type = REDIS_REPLY_STRING, .str = (char *)(uintptr_t)text, .len = strlen(text)};
            pointers[count++] = &parts[j];
        }
        redisReply list = {.type = REDIS_REPLY_ARRAY, .elements = count, .element = pointers};
        redisReply *both[] = {&id, &list};
        redisReply entry = {.type = REDIS_REPLY_ARRAY, .elements = 2, .element = both};
        struct entry_view view;
        char error[256];
        assert_true(entry_view_take(&entry, &view));
        struct job *job = entry_decode(&view, &config, 0, "march", false, error, sizeof error);
        assert_int_equal(job->history.depth_counted, i < 3);
        assert_int_equal(job->content_counted, i == 1 || i == 2);
        job_release(job);
    }
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
                                         "1-1 0 0 0 16 0",
                                         "1-1 65536 0 0 0 0",
                                         "1-1 -1 0 0 0 0",
                                         "1-1 0 0 0 0 0 0"};
    for (size_t i = 0; i < sizeof forged / sizeof *forged; i++) {
        char error[256];
        if (decode(forged[i], NULL, 0, true, error)) {
            fail_msg("taken for good: %s", forged[i]);
        }
        assert_string_equal(error, "The entry's history (field r or s) makes no sense.");
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

/* QUEUE.md, the job: a tenant's excess in `normal` moves; what counts is what of it waits here. */
static void test_tenants_are_counted_while_their_jobs_live(void **state) {
    struct live *live = live_create();
    struct job *jobs[4];
    static const char *const tenants[] = {"ann", "ann", "bob", "ann"};
    for (uint64_t i = 0; i < 4; i++) {
        jobs[i] = job_create();
        jobs[i]->tenant = strdup(tenants[i]);
        strcpy(jobs[i]->queue, i == 3 ? "bulk" : "normal");
        jobs[i]->entry.ms = i;
        jobs[i]->pending_count = 10;
        live_add(live, jobs[i], 1);
    }
    assert_int_equal(live_tenant_recipients(live, "ann"), 20); /* bulk does not count */
    assert_int_equal(live_tenant_recipients(live, "bob"), 10);
    assert_int_equal(live_recipients(live), 40);
    jobs[0]->pending_count = 3; /* it leaves with what it came with */
    job_release(jobs[0]);
    assert_int_equal(live_tenant_recipients(live, "ann"), 10);
    job_release(jobs[1]);
    assert_int_equal(live_tenant_recipients(live, "ann"), 0);
    live_destroy(live);
    job_release(jobs[2]);
    job_release(jobs[3]);
}

static void test_streams_stand_in_reading_order(void **state) {
    struct streams streams;
    struct stream campaign;
    streams_init(&streams, "bypost:{0}:");
    for (uint32_t i = 1; i < streams.count; i++) {
        assert_true(streams.items[i - 1].class <= streams.items[i].class);
    }
    assert_string_equal(streams.items[0].queue, "high");
    assert_true(stream_init(&campaign, "bypost:{0}:", "retry:march"));
    assert_string_equal(campaign.key, "bypost:{0}:q:retry:march");
    assert_string_equal(campaign.queue, "march");
    assert_int_equal(campaign.class, CLASS_STREAM_OTHERS);
    assert_false(stream_init(&campaign, "bypost:{0}:", "a:b"));
    assert_false(stream_init(&campaign, "bypost:{0}:", "retry:"));
}

/* Reads whoever is next, `rounds` times, 100 recipients each; counts them. */
static void flows_run(struct flows *flows, const bool has[FLOWS], unsigned rounds, uint64_t read[FLOWS]) {
    for (unsigned i = 0; i < rounds; i++) {
        uint32_t tried = 0;
        enum flow flow;
        while ((flow = flows_next(flows, tried)) != FLOWS) {
            flows_charge(flows, flow, has[flow] ? 100 : 0, has[flow]);
            tried |= 1u << flow;
            if (has[flow]) {
                read[flow] += 100;
                break;
            }
        }
    }
}

/* QUEUE.md, keys: weighted fair order. With 3,000 campaigns normal is not starved by default; with a weight of its own it is one among
 * them. */
static void test_flows_share_by_weight(void **state) {
    struct flows flows = {.weight = {0, 0, 3000}};
    uint64_t read[FLOWS] = {0};
    flows_run(&flows, (const bool[]){true, true, true}, 100000, read);
    assert_in_range(read[FLOW_NORMAL], 7900000, 8100000);
    assert_in_range(read[FLOW_OTHERS], 1900000, 2100000);
    assert_in_range(read[FLOW_BULK], 500, 900);
    flows = (struct flows){.weight = {6, 2, 2}};
    memset(read, 0, sizeof read);
    flows_run(&flows, (const bool[]){true, true, true}, 1000, read);
    assert_in_range(read[FLOW_NORMAL], 59500, 60500);
    assert_in_range(read[FLOW_BULK], 19500, 20500);
}

/* Who was empty for long does not catch up when it comes back. */
static void test_a_flow_that_was_empty_starts_with_the_others(void **state) {
    struct flows flows = {.weight = {1, 1, 1}};
    uint64_t read[FLOWS] = {0};
    flows_run(&flows, (const bool[]){true, false, false}, 5000, read);
    assert_int_equal(read[FLOW_NORMAL], 500000);
    memset(read, 0, sizeof read);
    flows_run(&flows, (const bool[]){true, false, true}, 1000, read);
    assert_in_range(read[FLOW_NORMAL], 49500, 50500);
    flows_run(&flows, (const bool[]){false, true, false}, 5000, read);
    memset(read, 0, sizeof read);
    flows_run(&flows, (const bool[]){true, true, true}, 3000, read);
    for (int i = 0; i < FLOWS; i++) {
        assert_in_range(read[i], 99500, 100500);
    }
}

static void test_the_library_tells_its_version(void **state) {
    assert_true(library_version() > 0);
    assert_non_null(strstr(library_text(), "#!lua name=bypost\n"));
    assert_non_null(strstr(library_text(), "'^([^\\n]*)\\n([JSK])(.*)$'")); /* its backslashes survive the embedding */
}

/* What is being grouped or read already stays as it is. */
static void test_what_is_pending_is_read_again(void **state) {
    struct streams streams;
    streams_init(&streams, "bypost:{0}:");
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
        cmocka_unit_test(test_flags_are_a_sum),
        cmocka_unit_test(test_a_subset_keeps_its_indexes),
        cmocka_unit_test(test_what_submit_counted),
        cmocka_unit_test(test_settled_recipients_are_not_pending),
        cmocka_unit_test(test_forged_histories),
        cmocka_unit_test(test_live_jobs_leave_with_their_last_reference),
        cmocka_unit_test(test_tenants_are_counted_while_their_jobs_live),
        cmocka_unit_test(test_streams_stand_in_reading_order),
        cmocka_unit_test(test_flows_share_by_weight),
        cmocka_unit_test(test_a_flow_that_was_empty_starts_with_the_others),
        cmocka_unit_test(test_what_is_pending_is_read_again),
        cmocka_unit_test(test_the_library_tells_its_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
