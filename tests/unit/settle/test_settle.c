/* test_settle.c: what becomes of a recipient (SMTP.md section 6, QUEUE.md retry defaults), the record of it, and the log that keeps it. */
#include "control/settle/decide.h"
#include "control/settle/delivery_log.h"
#include "control/settle/pack.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { RANDOM_MIDDLE = INT32_MAX }; /* no jitter either way */
#define NOW  UINT64_C(1800000000000)
#define HOUR UINT64_C(3600000)

static struct config_queue queues[] = {{.name = "normal", .retry = {.first_ms = 300000, .max_ms = 7200000, .give_up_ms = 172800000}}};
static const struct config config = {.queue_count = 1, .queues = queues, .node = "n1"};

static struct settle_item item_of(enum verdict verdict, enum reply_class class, uint16_t attempt) {
    struct settle_item item = {.site = "", .provider = "", .pool = "", .slot = SLOT_NONE};
    item.outcome.kind = OUTCOME_REPLIED;
    item.classification = (struct classification){.class = class, .verdict = verdict};
    item.cookie = (struct settle_cookie){
        .attempt = attempt, .total = 1, .entry_pending = 1, .first_queued_ms = NOW, .origin = {7, 1}, .date_s = 9, .queue = "normal"};
    return item;
}

static struct decision decided(const struct settle_item *item, const struct job *job, uint32_t random) {
    struct decision decision;
    decide(item, job, &config, NOW, random, &decision);
    return decision;
}

static void test_verdicts(void **state) {
    static const struct {
        enum verdict verdict;
        enum reply_class class;
        enum settle_action action;
        enum event_type event;
    } cases[] = {{VERDICT_DELIVERED, CLASS_NONE, ACTION_DELIVERED, EVENT_DELIVERED},
                 {VERDICT_BOUNCED, CLASS_INVALID_RECIPIENT, ACTION_BOUNCED, EVENT_BOUNCED},
                 {VERDICT_BOUNCED, CLASS_SUPPRESSED, ACTION_SUPPRESSED, EVENT_SUPPRESSED},
                 {VERDICT_BOUNCED, CLASS_CANCELLED, ACTION_CANCELLED, EVENT_CANCELLED},
                 {VERDICT_BOUNCED, CLASS_EXPIRED, ACTION_EXPIRED, EVENT_EXPIRED},
                 {VERDICT_DEFERRED, CLASS_NO_ANSWER, ACTION_DEFERRED, EVENT_DEFERRED},
                 {VERDICT_HELD, CLASS_POLICY, ACTION_HELD, EVENT_DEFERRED}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct settle_item item = item_of(cases[i].verdict, cases[i].class, 0);
        struct decision decision = decided(&item, NULL, RANDOM_MIDDLE);
        assert_int_equal(decision.action, cases[i].action);
        assert_int_equal(decision.event, cases[i].event);
    }
}

/* QUEUE.md: normal 5 min, doubling to 2 h. */
static void test_delays_double_to_their_maximum(void **state) {
    static const uint64_t minutes[] = {5, 10, 20, 40, 80, 120, 120, 120};
    for (uint16_t attempt = 0; attempt < 8; attempt++) {
        struct settle_item item = item_of(VERDICT_DEFERRED, CLASS_NO_ANSWER, attempt);
        struct decision decision = decided(&item, NULL, RANDOM_MIDDLE);
        uint64_t delay = decision.next_attempt_ms - NOW;
        assert_in_range(delay, minutes[attempt] * 60000 - 1000, minutes[attempt] * 60000 + 60000);
        assert_int_equal(decision.history.attempt, attempt + 1);
        assert_int_equal(decision.history.origin.ms, 7);
        assert_int_equal(decision.history.date_s, 9);
    }
}

static void test_jitter_is_a_tenth_either_way(void **state) {
    struct settle_item item = item_of(VERDICT_DEFERRED, CLASS_NO_ANSWER, 0);
    assert_int_equal(decided(&item, NULL, 0).next_attempt_ms, NOW + 270000);
    assert_int_equal(decided(&item, NULL, UINT32_MAX).next_attempt_ms, NOW + 330000);
}

/* SMTP.md section 6: greylisted is tried again in 6 min, never earlier. */
static void test_a_class_may_ask_for_its_own_delay(void **state) {
    struct settle_item item = item_of(VERDICT_DEFERRED, CLASS_GREYLISTED, 3);
    item.classification.retry_after_s = 360;
    assert_int_equal(decided(&item, NULL, 0).next_attempt_ms, NOW + 360000);
    assert_in_range(decided(&item, NULL, UINT32_MAX).next_attempt_ms, NOW + 390000, NOW + 400000);
}

static void test_time_is_up_at_give_up_or_at_expires_at(void **state) {
    struct settle_item item = item_of(VERDICT_DEFERRED, CLASS_NO_ANSWER, 9);
    item.cookie.first_queued_ms = NOW - 45 * HOUR;
    assert_int_equal(decided(&item, NULL, RANDOM_MIDDLE).action, ACTION_DEFERRED);
    item.cookie.first_queued_ms = NOW - 47 * HOUR; /* the next attempt would be at 49 h */
    assert_int_equal(decided(&item, NULL, RANDOM_MIDDLE).event, EVENT_EXPIRED);
    struct job job = {.expires_at_ms = NOW + HOUR};
    item.cookie.first_queued_ms = NOW;
    assert_int_equal(decided(&item, &job, RANDOM_MIDDLE).event, EVENT_EXPIRED);
}

/* DESIGN.md section 6: uncertain is resent and marked, or held, as configured. */
static void test_uncertain_is_resent_and_marked_or_held(void **state) {
    struct settle_item item = item_of(VERDICT_DEFERRED, CLASS_NO_ANSWER, 0);
    item.outcome.kind = OUTCOME_UNCERTAIN;
    struct decision decision = decided(&item, NULL, RANDOM_MIDDLE);
    assert_int_equal(decision.action, ACTION_DEFERRED);
    assert_true(decision.history.uncertain);
    struct config holding = config;
    holding.on_uncertain = UNCERTAIN_HOLD;
    decide(&item, NULL, &holding, NOW, 0, &decision);
    assert_int_equal(decision.action, ACTION_HELD);
    /* The mark stays with every later attempt. */
    item = item_of(VERDICT_DELIVERED, CLASS_NONE, 1);
    item.cookie.uncertain_before = 1;
    assert_true(decided(&item, NULL, 0).history.uncertain);
}

/* A return costs no attempt and waits for nothing. */
static void test_returned_goes_back_as_it_was(void **state) {
    struct settle_item item = item_of(VERDICT_RETURNED, CLASS_NONE, 4);
    struct decision decision = decided(&item, NULL, RANDOM_MIDDLE);
    assert_int_equal(decision.action, ACTION_RETURNED);
    assert_int_equal(decision.history.attempt, 4);
    assert_true(decision.next_attempt_ms <= NOW);
}

/* A site that rests defers its mail without an attempt; the time to give up counts on. */
static void test_a_rest_is_no_attempt(void **state) {
    struct settle_item item = item_of(VERDICT_DEFERRED, CLASS_CONNECTION_FAILED, 3);
    item.classification.retry_after_s = 120;
    item.classification.unattempted = true;
    struct decision decision = decided(&item, NULL, 0);
    assert_int_equal(decision.action, ACTION_DEFERRED);
    assert_int_equal(decision.history.attempt, 3);
    assert_in_range(decision.next_attempt_ms, NOW + 119000, NOW + 180000);
    item.cookie.first_queued_ms = NOW - 48 * HOUR;
    assert_int_equal(decided(&item, NULL, 0).action, ACTION_EXPIRED);
}

/* QUEUE.md: parking and resting never count as attempts; neither tells an event. */
static void test_parked_costs_no_attempt(void **state) {
    struct settle_item item = item_of(VERDICT_PARKED, CLASS_NONE, 2);
    item.waits_for = "mx.example.net";
    item.waits_until_ms = NOW + 4321;
    struct decision decision = decided(&item, NULL, 0);
    assert_int_equal(decision.action, ACTION_PARKED);
    assert_int_equal(decision.event, EVENT_TYPES);
    assert_int_equal(decision.history.attempt, 2);
    assert_int_equal(decision.next_attempt_ms, NOW + 4321);
}

/* What a hold stops before its attempt has had none; what it keeps after one has. */
static void test_a_hold_costs_an_attempt_only_where_there_was_one(void **state) {
    struct settle_item item = item_of(VERDICT_HELD, CLASS_NONE, 1);
    item.waits_for = "h1";
    item.outcome.kind = OUTCOME_LOCAL;
    struct decision decision = decided(&item, NULL, 0);
    assert_int_equal(decision.action, ACTION_HELD);
    assert_int_equal(decision.event, EVENT_TYPES);
    assert_int_equal(decision.history.attempt, 1);
    assert_true(decision.next_attempt_ms > NOW + 1000 * HOUR); /* until it is taken away */
    item.waits_until_ms = NOW + 1500;
    assert_int_equal(decided(&item, NULL, 0).next_attempt_ms, NOW + 2000);
    item.outcome.kind = OUTCOME_REPLIED;
    decision = decided(&item, NULL, 0);
    assert_int_equal(decision.event, EVENT_DEFERRED);
    assert_int_equal(decision.history.attempt, 2);
}

/* SMTP.md section 6: a full mailbox is tried for 24 h, from the first attempt, however long the recipient waited before. */
static void test_quota_gives_up_after_a_day(void **state) {
    struct settle_item item = item_of(VERDICT_DEFERRED, CLASS_QUOTA, 3);
    item.cookie.first_queued_ms = NOW - 40 * HOUR;
    item.cookie.date_s = (NOW - 20 * HOUR) / 1000;
    assert_int_equal(decided(&item, NULL, RANDOM_MIDDLE).action, ACTION_DEFERRED);
    item.cookie.date_s = (NOW - 24 * HOUR) / 1000;
    assert_int_equal(decided(&item, NULL, RANDOM_MIDDLE).action, ACTION_EXPIRED);
    item.classification.class = CLASS_NO_ANSWER;
    assert_int_equal(decided(&item, NULL, RANDOM_MIDDLE).action, ACTION_DEFERRED);
}

/* What was counted at submit, and what the sender was told, stays with every later attempt. */
static void test_marks_of_the_history_are_kept(void **state) {
    struct settle_item item = item_of(VERDICT_DEFERRED, CLASS_NO_ANSWER, 0);
    struct job job = {.history = {.notified = true, .content_counted = true, .depth_counted = true}};
    struct decision decision = decided(&item, &job, 0);
    assert_true(decision.history.notified && decision.history.content_counted && decision.history.depth_counted);
    assert_int_equal(decision.history.attempt, 1);
}

static struct commit_item *outcome(struct commit *commit, uint64_t entry, uint32_t pending, uint32_t index, enum settle_action action) {
    struct commit_item *item = &commit->items[commit->count++];
    *item = (struct commit_item){
        .queue = "normal", .action = action, .entry = {entry, 0}, .entry_pending = pending, .index = index, .slot = SLOT_NONE};
    return item;
}

/* The arguments in one line; what is not printable as <hex>. */
static const char *packed(const struct commit *commit, char *out, size_t bytes) {
    const char *values[64];
    size_t lengths[64], used = 0;
    assert_true(commit->arguments + commit->event_count <= 64);
    size_t count = pack_arguments(commit, values, lengths);
    for (size_t i = 0; i < count; i++) {
        used += (size_t)snprintf(out + used, bytes - used, "%s", i ? "|" : "");
        for (size_t j = 0; j < lengths[i]; j++) {
            unsigned char c = (unsigned char)values[i][j];
            used += (size_t)snprintf(out + used, bytes - used, c > 32 && c < 127 ? "%c" : "<%02x>", c);
        }
    }
    return out;
}

/* control/library/settle.lua: runs of entries that end whole, bytes of bits of the others; events go with their outcomes, or not at all. */
static void test_a_commit_is_packed_in_sections(void **state) {
    char line[1024];
    struct commit *commit = commit_create(NULL);
    outcome(commit, 5, 1, 0, ACTION_DELIVERED);
    outcome(commit, 9, 20, 17, ACTION_DELIVERED);
    outcome(commit, 7, 3, 2, ACTION_DELIVERED);
    outcome(commit, 9, 20, 1, ACTION_DELIVERED);
    outcome(commit, 7, 3, 0, ACTION_DELIVERED);
    outcome(commit, 9, 20, 3, ACTION_BOUNCED);
    outcome(commit, 7, 3, 1, ACTION_DELIVERED);
    assert_true(commit_pack(commit));
    assert_string_equal(packed(commit, line, sizeof line),
                        "E|normal|normal||1|9-0|20|2|b<00><08>|0|d<00><02><02><02>|0|S|normal|normal||d|2|5-0|7-0|<01><00><03><00>|0");
    static const uint32_t order[] = {5, 3, 1, 0, 4, 6, 2};
    assert_memory_equal(commit->order, order, sizeof order);
    commit_free(commit);
}

static void test_what_is_kept_of_a_commit_is_small(void **state) {
    char line[1024];
    struct commit *commit = commit_create(NULL);
    for (uint64_t entry = 10; entry < 12; entry++) {
        struct commit_item *item = outcome(commit, entry, 1, 0, ACTION_DELIVERED);
        item->event = strdup("{}");
        item->event_length = 2;
    }
    assert_true(commit_pack(commit));
    assert_string_equal(packed(commit, line, sizeof line), "S|normal|normal||d|2|10-0|11-0||2|{}|{}");
    commit = commit_shrink(commit);
    assert_string_equal(packed(commit, line, sizeof line), "S|normal|normal||d|2|10-0|11-0||2|{}|{}");
    commit_drop_events(commit);
    assert_string_equal(packed(commit, line, sizeof line), "S|normal|normal||d|2|10-0|11-0||0");
    commit_free(commit);

    /* 10 s at 60,000/s fit into 64 MiB without their events, even when each outcome of a batch is of another chunk. */
    commit = commit_create(NULL);
    for (uint32_t i = 0; i < COMMIT_ITEMS_MAX; i++) {
        outcome(commit, 1700000000000 + i, 200, i % 200, ACTION_DELIVERED);
    }
    assert_true(commit_pack(commit));
    commit = commit_shrink(commit);
    assert_in_range(commit->bytes, 1, COMMIT_ITEMS_MAX * (UINT64_C(64) << 20) / 600000);
    commit_free(commit);
}

static void test_buckets_are_never_early(void **state) {
    assert_int_equal(bucket_ms(1001, 500), 2000);
    assert_int_equal(bucket_ms(0, 59999), 60000);
    assert_int_equal(bucket_ms(1, 60000), 70000);
    assert_int_equal(bucket_ms(1, HOUR), HOUR + 60000);
    assert_int_equal(bucket_ms(0, HOUR), HOUR);
}

/* Names are those of QUEUE.md, "Events and the delivery log". */
static void test_the_record_holds_what_is_known(void **state) {
    struct mailbox mailbox = {.email = "bob@example.net"};
    struct job_recipient recipient = {.mailbox = mailbox, .metadata = "{\"k\":[1]}"};
    struct job job = {.id = "one", .from = {.email = "ann@example.org"}, .campaign = "c", .recipient_total = 1, .recipients = &recipient};
    struct settle_item item = item_of(VERDICT_DEFERRED, CLASS_GREYLISTED, 1);
    item.site = "mx.example.net";
    item.provider = "example";
    item.pool = "main";
    item.classification.rule = "grey";
    item.outcome.code = 451;
    item.outcome.enhanced[0] = 4, item.outcome.enhanced[1] = 7, item.outcome.enhanced[2] = 1;
    item.outcome.stage = STAGE_RCPT;
    strcpy(item.outcome.text, "say \"again\"\\ \xff\xc3\xbc \xed\xa0\x80 later\n\x01");
    item.outcome.peer_family = 6;
    item.outcome.peer_address[15] = 1;
    item.outcome.tls_version = 12;
    item.outcome.tls_cipher = 0xc02f;
    item.outcome.flags = REPLY_TLS_VERIFIED;
    item.outcome.size_bytes = 77;
    item.outcome.connected_us = 1800000000123456;
    strcpy(item.cookie.tenant, "t1");
    struct decision decision = decided(&item, &job, RANDOM_MIDDLE);
    struct text text = {.length = 0};
    event_write(&text, &item, &job, &decision, &config);
    json_error_t error;
    json_t *record = json_loadb(text.bytes, text.length, JSON_REJECT_DUPLICATES, &error);
    if (!record) {
        fail_msg("%s: %.*s", error.text, (int)text.length, text.bytes);
    }
    static const char *const texts[][2] = {{"type", "deferred"},
                                           {"id", "one"},
                                           {"job", "7-1"},
                                           {"recipient", "bob@example.net"},
                                           {"sender", "ann@example.org"},
                                           {"queue", "normal"},
                                           {"tenant", "t1"},
                                           {"campaign", "c"},
                                           {"site", "mx.example.net"},
                                           {"provider", "example"},
                                           {"class", "greylisted"},
                                           {"rule", "grey"},
                                           {"peer_address", "::1"},
                                           {"pool", "main"},
                                           {"tls_version", "TLSv1.2"},
                                           {"tls_cipher", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"},
                                           {"node", "n1"}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_string_equal(json_string_value(json_object_get(record, texts[i][0])), texts[i][1]);
    }
    assert_true(json_is_true(json_object_get(record, "tls_verified")));
    assert_null(json_object_get(record, "tls_resumed"));
    const json_t *response = json_object_get(record, "response");
    assert_int_equal(json_integer_value(json_object_get(response, "code")), 451);
    assert_string_equal(json_string_value(json_object_get(response, "enhanced_code")), "4.7.1");
    assert_string_equal(json_string_value(json_object_get(response, "stage")), "rcpt");
    assert_string_equal(json_string_value(json_object_get(response, "content")),
                        "say \"again\"\\ \xef\xbf\xbd\xc3\xbc \xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd later\n\x01");
    assert_int_equal(json_integer_value(json_object_get(record, "attempt")), 2);
    assert_int_equal(json_integer_value(json_object_get(record, "size")), 77);
    assert_int_equal((json_int_t)json_real_value(json_object_get(record, "next_attempt")), decision.next_attempt_ms / 1000);
    assert_int_equal(json_array_size(json_object_get(json_object_get(record, "metadata"), "k")), 1);
    assert_int_equal((json_int_t)(json_real_value(json_object_get(json_object_get(record, "times"), "connected")) * 1000), 1800000000123);
    json_decref(record);
    text_free(&text);
}

static void test_a_record_without_its_job(void **state) {
    struct settle_item item = item_of(VERDICT_DELIVERED, CLASS_NONE, 0);
    struct decision decision = decided(&item, NULL, 0);
    struct text text = {.length = 0};
    event_write(&text, &item, NULL, &decision, &config);
    json_t *record = json_loadb(text.bytes, text.length, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(record);
    assert_null(json_object_get(record, "recipient"));
    json_decref(record);
    text_free(&text);
}

static long file_size(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 ? (long)status.st_size : -1;
}

static void test_the_log_rotates_by_size_and_keeps_some(void **state) {
    char directory[] = "/tmp/bypost-log-XXXXXX", path[64], name[80];
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/delivery.log", directory);
    struct delivery_log *log = delivery_log_create(path, 1000, 2);
    char line[100];
    memset(line, 'x', 99);
    for (int i = 0; i < 45; i++) { /* 100 bytes each with its newline: ten a file */
        delivery_log_write(log, line, 99);
    }
    delivery_log_flush(log);
    assert_int_equal(file_size(path), 500);
    snprintf(name, sizeof name, "%s.1", path);
    assert_int_equal(file_size(name), 1000);
    snprintf(name, sizeof name, "%s.2", path);
    assert_int_equal(file_size(name), 1000);
    snprintf(name, sizeof name, "%s.3", path);
    assert_int_equal(file_size(name), -1);
    struct stat status;
    stat(path, &status);
    assert_int_equal(status.st_mode & 0777 & ~0640, 0);
    /* After others moved it away, reopening makes a new one. */
    snprintf(name, sizeof name, "%s.moved", path);
    rename(path, name);
    delivery_log_reopen(log);
    delivery_log_write(log, line, 99);
    assert_int_equal(delivery_log_errors(log), 0);
    delivery_log_destroy(log);
    assert_int_equal(file_size(path), 100);
    static const char *const ends[] = {"", ".1", ".2", ".moved"};
    for (size_t i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%s%s", path, ends[i]);
        unlink(name);
    }
    rmdir(directory);
}

static void test_a_log_that_cannot_be_written_counts(void **state) {
    struct delivery_log *log = delivery_log_create("/nonexistent/delivery.log", 0, 0);
    delivery_log_write(log, "x", 1);
    delivery_log_flush(log);
    assert_int_equal(delivery_log_errors(log), 1);
    delivery_log_destroy(log);
}

/* RFC 8259 section 7: every byte of ASCII at every place of two words of eight comes back as it was. */
static void test_every_ascii_byte_in_every_place(void **state) {
    for (int byte = 1; byte < 128; byte++) {
        for (size_t at = 0; at < 17; at++) {
            struct text text = {.length = 0};
            char plain[] = "abcdefgh ijklmnop";
            plain[at] = (char)byte;
            text_open(&text, NULL);
            text_member(&text, "t", plain);
            text_member_number(&text, "n", (uint64_t)byte);
            text_close(&text);
            assert_false(text.failed);
            json_t *record = json_loadb(text.bytes, text.length, JSON_REJECT_DUPLICATES, NULL);
            assert_non_null(record);
            assert_string_equal(json_string_value(json_object_get(record, "t")), plain);
            assert_int_equal(json_integer_value(json_object_get(record, "n")), byte);
            json_decref(record);
            text_free(&text);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_every_ascii_byte_in_every_place),
        cmocka_unit_test(test_delays_double_to_their_maximum),
        cmocka_unit_test(test_jitter_is_a_tenth_either_way),
        cmocka_unit_test(test_a_class_may_ask_for_its_own_delay),
        cmocka_unit_test(test_time_is_up_at_give_up_or_at_expires_at),
        cmocka_unit_test(test_uncertain_is_resent_and_marked_or_held),
        cmocka_unit_test(test_returned_goes_back_as_it_was),
        cmocka_unit_test(test_a_rest_is_no_attempt),
        cmocka_unit_test(test_parked_costs_no_attempt),
        cmocka_unit_test(test_a_hold_costs_an_attempt_only_where_there_was_one),
        cmocka_unit_test(test_quota_gives_up_after_a_day),
        cmocka_unit_test(test_marks_of_the_history_are_kept),
        cmocka_unit_test(test_a_commit_is_packed_in_sections),
        cmocka_unit_test(test_what_is_kept_of_a_commit_is_small),
        cmocka_unit_test(test_buckets_are_never_early),
        cmocka_unit_test(test_the_record_holds_what_is_known),
        cmocka_unit_test(test_a_record_without_its_job),
        cmocka_unit_test(test_the_log_rotates_by_size_and_keeps_some),
        cmocka_unit_test(test_a_log_that_cannot_be_written_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
