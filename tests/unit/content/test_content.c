/* test_content.c: shared contents against a Redis of the test's own: loaded once for all who wait, lent to jobs, counted and expired. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "control/clock.h"
#include "control/content/content.h"
#include "control/fetch/fetch.h"
#include "control/render/render.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SHARDS = 2, PATIENCE_MS = 20000, JANITOR_TEST_MS = 20 };

struct world {
    char directory[64], address[96];
    pid_t server;
    struct config *config;
    struct event_base *base;
    struct redis *redis[SHARDS];
    struct identity *identity;
    struct contents *contents;
    redisContext *client; /* the test's own */
    uint32_t done, temporary;
    char error[768];
    struct job *last;
};

static void server_start(struct world *w) {
    char path[96];
    snprintf(path, sizeof path, "%s/redis.sock", w->directory);
    w->server = fork();
    assert_true(w->server >= 0);
    if (w->server == 0) {
        execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", path, "--dir", w->directory, "--save", "", "--logfile",
               "/dev/null", (char *)NULL);
        _exit(127);
    }
    uint64_t until = clock_ms(CLOCK_MONOTONIC) + PATIENCE_MS;
    do {
        usleep(5000);
        w->client = redisConnectUnix(path);
        if (w->client && w->client->err) {
            redisFree(w->client);
            w->client = NULL;
        }
    } while (!w->client && clock_ms(CLOCK_MONOTONIC) < until);
    assert_non_null(w->client);
}

static void server_stop(struct world *w) {
    if (w->server > 0) {
        kill(w->server, SIGKILL);
        waitpid(w->server, NULL, 0);
        w->server = 0;
    }
    if (w->client) {
        redisFree(w->client);
        w->client = NULL;
    }
}

static bool all_up(struct world *w) {
    return redis_state(w->redis[0]) == REDIS_UP && redis_state(w->redis[1]) == REDIS_UP;
}

/* Runs the loop until the condition holds. */
#define RUN_UNTIL(w, condition)                                                                                                            \
    do {                                                                                                                                   \
        uint64_t until = clock_ms(CLOCK_MONOTONIC) + PATIENCE_MS;                                                                          \
        while (!(condition)) {                                                                                                             \
            struct timeval tick = {.tv_usec = 2000};                                                                                       \
            event_base_loopexit((w)->base, &tick);                                                                                         \
            event_base_dispatch((w)->base);                                                                                                \
            if (clock_ms(CLOCK_MONOTONIC) > until)                                                                                         \
                fail_msg("waited in vain for %s", #condition);                                                                             \
        }                                                                                                                                  \
    } while (0)

static int setup(void **state) {
    struct world *w = calloc(1, sizeof *w);
    char error[512];
    signal(SIGPIPE, SIG_IGN);
    strcpy(w->directory, "/tmp/bypost-content-XXXXXX");
    assert_non_null(mkdtemp(w->directory));
    snprintf(w->address, sizeof w->address, "unix:%s/redis.sock", w->directory);
    server_start(w);
    w->config = config_shipped();
    assert_non_null(w->config);
    free(w->config->redis.address);
    w->config->redis.address = strdup(w->address);
    w->config->redis.shards = SHARDS;
    w->identity = identity_load("/proc/self/exe"); /* any file of enough bytes */
    w->base = event_base_new();
    for (int i = 0; i < SHARDS; i++) {
        w->redis[i] = redis_create(w->base, w->config, error, sizeof error);
        if (!w->redis[i])
            fail_msg("%s", error);
    }
    struct contents_config config = {
        .base = w->base, .config = w->config, .redis = w->redis, .shards = SHARDS, .identity = w->identity, .janitor_ms = JANITOR_TEST_MS};
    w->contents = contents_create(&config);
    assert_non_null(w->contents);
    RUN_UNTIL(w, all_up(w));
    *state = w;
    return 0;
}

static int teardown(void **state) {
    struct world *w = *state;
    contents_destroy(w->contents);
    for (int i = 0; i < SHARDS; i++)
        redis_destroy(w->redis[i]);
    event_base_free(w->base);
    config_free(w->config);
    identity_free(w->identity);
    server_stop(w);
    char path[96];
    snprintf(path, sizeof path, "%s/redis.sock", w->directory);
    unlink(path);
    rmdir(w->directory);
    free(w);
    return 0;
}

__attribute__((format(printf, 2, 3))) static long long command(struct world *w, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    redisReply *reply = redisvCommand(w->client, format, arguments);
    va_end(arguments);
    assert_non_null(reply);
    if (reply->type == REDIS_REPLY_ERROR)
        fail_msg("%s", reply->str);
    long long number = reply->type == REDIS_REPLY_INTEGER  ? reply->integer
                       : reply->type == REDIS_REPLY_STRING ? strtoll(reply->str, NULL, 10)
                                                           : -1;
    freeReplyObject(reply);
    return number;
}

static void store(struct world *w, const char *id, const char *text) {
    command(w, "SET bypost:content:%s %s", id, text);
}

static void on_done(void *context, struct job *job, const char *error, bool temporary) {
    struct world *w = context;
    w->done++;
    w->temporary += temporary;
    snprintf(w->error, sizeof w->error, "%s", error ? error : "");
    if (w->last)
        job_release(w->last);
    w->last = job;
}

static struct job *job_of(struct world *w, const char *text) {
    char error[512];
    struct job *job = job_decode((const uint8_t *)text, strlen(text), w->config, error, sizeof error);
    if (!job)
        fail_msg("%s: %s", error, text);
    return job;
}

static void complete(struct world *w, const char *text) {
    uint32_t before = w->done;
    contents_complete(w->contents, job_of(w, text), on_done, w);
    RUN_UNTIL(w, w->done > before);
}

static void drop(struct world *w) {
    job_release(w->last);
    w->last = NULL;
}

static const char spring[] =
    "{\"from\":{\"email\":\"ann@example.org\",\"name\":\"Ann\"},\"reply_to\":\"r@example.org\",\"subject\":\"S "
    "{{name}}\",\"text\":\"Hi {{name}} of {{shop}}\\n\",\"headers\":{\"X-C\":\"1\",\"Sender\":\"s@example.org\"},"
    "\"attachments\":[{\"filename\":\"a\",\"content\":\"QUI=\"}],\"tags\":[\"t\"],\"merge_global_data\":{\"shop\":\"Shop\"},"
    "\"metadata\":{\"a\":1,\"b\":2},\"pool\":\"p\",\"envelope_sender\":\"b@example.org\",\"dsn\":{\"return\":\"full\"},"
    "\"list_unsubscribe\":\"https://example.org/u\"}";

static void a_job_takes_what_it_has_not(void **state) {
    struct world *w = *state;
    store(w, "spring", spring);
    complete(w, "{\"content\":\"spring\",\"recipients\":[{\"to\":\"x@y.test\",\"merge_data\":{\"name\":\"Bob\"},\"metadata\":{\"b\":3}},{"
                "\"to\":\"z@y.test\"}]}");
    assert_string_equal(w->error, "");
    struct job *job = w->last;
    assert_string_equal(job->from.email, "ann@example.org");
    assert_string_equal(job->from.domain, "example.org");
    assert_int_equal(job->reply_to_count, 1);
    assert_string_equal(job->text, "Hi {{name}} of {{shop}}\n");
    assert_null(job->html);
    assert_string_equal(job->headers[0].name, "X-C");
    assert_string_equal(job->sender_header.email, "s@example.org");
    assert_int_equal(job->attachment_count, 1);
    assert_string_equal(job->tags[0], "t");
    assert_string_equal(job->pool, "p");
    assert_string_equal(job->envelope_sender, "b@example.org");
    assert_int_equal(job->dsn, DSN_FAILURE);
    assert_true(job->dsn_full);
    assert_string_equal(job->metadata, "{\"a\":1,\"b\":2}");
    assert_string_equal(job->recipients[0].metadata, "{\"a\":1,\"b\":3}"); /* over the content's, as over a job's own */
    assert_null(job->recipients[1].metadata);
    assert_non_null(job->content->prepared);
    /* ... and nothing else. */
    complete(
        w,
        "{\"content\":\"spring\",\"to\":\"x@y.test\",\"from\":\"own@example.net\",\"text\":\"mine\",\"subject\":\"own\",\"tags\":[\"u\"],"
        "\"headers\":{\"X-D\":\"2\"},\"metadata\":{\"c\":1},\"envelope_sender\":\"\",\"dsn\":\"delay\",\"merge_global_data\":{}}");
    job = w->last;
    assert_string_equal(job->from.email, "own@example.net");
    assert_null(job->from.name);
    assert_string_equal(job->text, "mine");
    assert_string_equal(job->subject, "own");
    assert_int_equal(job->header_count, 1);
    assert_string_equal(job->headers[0].name, "X-D");
    assert_null(job->sender_header.email);
    assert_string_equal(job->metadata, "{\"c\":1}");
    assert_string_equal(job->envelope_sender, "");
    assert_int_equal(job->dsn, DSN_DELAY);
    assert_false(job->dsn_full);
    assert_string_equal(job->list_unsubscribe, "https://example.org/u");
    assert_string_equal(job->merge_global_data, "{}");
    drop(w);
    assert_int_equal(contents_counters(w->contents)->loaded, 1);
    assert_int_equal(contents_counters(w->contents)->hits, 1);
    assert_int_equal(contents_counters(w->contents)->held, 0);
}

/* A thousand chunks that come at once ask Redis once. */
static void concurrent_requests_are_one(void **state) {
    struct world *w = *state;
    store(w, "many", "{\"from\":\"a@b.test\",\"text\":\"t\"}");
    command(w, "CONFIG RESETSTAT");
    for (int i = 0; i < 1000; i++)
        contents_complete(w->contents, job_of(w, "{\"content\":\"many\",\"to\":\"x@y.test\"}"), on_done, w);
    assert_int_equal(w->done, 0);
    RUN_UNTIL(w, w->done == 1000);
    assert_string_equal(w->error, "");
    redisReply *stats = redisCommand(w->client, "INFO commandstats");
    assert_non_null(strstr(stats->str, "cmdstat_get:calls=1,"));
    freeReplyObject(stats);
    drop(w);
}

static void faults_are_told(void **state) {
    struct world *w = *state;
    static const struct {
        const char *content, *job, *error;
    } cases[] = {
        {NULL, "{\"content\":\"c\",\"to\":\"x@y.test\"}",
         "content c: There is none of this name (any more): store it as bypost:content:c before the jobs that name it."},
        {"{\"text\":", "{\"content\":\"c\",\"to\":\"x@y.test\"}",
         "content c: The job is not valid JSON: premature EOF (line 1, column 9)."},
        {"{\"to\":\"a@b.test\",\"text\":\"t\"}", "{\"content\":\"c\",\"to\":\"x@y.test\"}",
         "content c: to: A shared content has no such field: it belongs into the jobs that name the content."},
        {"{\"text\":\"t\"}", "{\"content\":\"c\",\"to\":\"x@y.test\"}", "The job has no from, and its content neither."},
        {"{\"from\":\"a@b.test\"}", "{\"content\":\"c\",\"to\":\"x@y.test\"}", "content: It has neither text, html nor raw."},
        {"{\"raw\":\"From: a@b.test\\n\\nx\"}", "{\"content\":\"c\",\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"subject\":\"s\"}",
         "content: It is a raw message, which is sent as it is: the job must not have subject beside it."},
        {"{\"raw\":\"From: a@b.test\\n\\nx\"}",
         "{\"content\":\"c\",\"from\":\"a@b.test\",\"recipients\":[{\"to\":\"x@y.test\",\"merge_data\":{\"a\":1}}]}",
         "content: It is a raw message, which is sent as it is: the job must not have merge_data beside it."},
        /* A malformed template would be each recipient's error: a million bounces. */
        {"{\"text\":\"t\",\"html\":\"<p>\\n {{#a}}x\"}", "{\"content\":\"c\",\"from\":\"a@b.test\",\"to\":\"x@y.test\"}",
         "content 7: html, line 2, column 2: the section \"a\" has no end"},
        {"{\"text\":\"t\",\"headers\":{\"X-A\":\"{{a\"}}", "{\"content\":\"c\",\"from\":\"a@b.test\",\"to\":\"x@y.test\"}",
         "content 8: X-A, line 1, column 1: a tag \"{{\" has no name or no end \"}}\""},
        {"{\"text\":\"t\",\"list_unsubscribe\":\"https://u.test/{{#a}}{{/a}}\"}",
         "{\"content\":\"c\",\"from\":\"a@b.test\",\"to\":\"x@y.test\"}",
         "content 9: list_unsubscribe, in \"{{#a}}\": line 1, column 1: the section \"a\" has no end"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (cases[i].content)
            store(w, "c", cases[i].content);
        /* What failed is asked for again by the next job; what was loaded stays: another name. */
        char job[512];
        snprintf(job, sizeof job, "%s", cases[i].job);
        if (cases[i].content && i >= 3) {
            char id[8];
            snprintf(id, sizeof id, "%zu", i);
            store(w, id, cases[i].content);
            *strstr(job, "\"c\"") = '"';
            strstr(job, "\"c\"")[1] = id[0];
        }
        complete(w, job);
        assert_string_equal(w->error, cases[i].error);
        assert_int_equal(w->temporary, 0);
        drop(w);
    }
    command(w, "LPUSH bypost:content:list x");
    complete(w, "{\"content\":\"list\",\"to\":\"x@y.test\"}");
    assert_non_null(strstr(w->error, "WRONGTYPE"));
    assert_int_equal(w->temporary, 0);
    drop(w);
    assert_int_equal(contents_counters(w->contents)->held, 0);
}

/* Only a complete job knows what it asks of the configuration. */
static void a_content_may_ask_for_too_much(void **state) {
    struct world *w = *state;
    store(w, "v", "{\"text\":\"t\",\"verp\":true}");
    w->config->pool_count = 1; /* a sender's */
    complete(w, "{\"content\":\"v\",\"from\":\"a@b.test\",\"to\":\"x@y.test\"}");
    w->config->pool_count = 0;
    assert_non_null(strstr(w->error, "verp: The sender's configuration has no domain for it"));
    assert_int_equal(w->temporary, 0);
    complete(w, "{\"content\":\"v\",\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"verp\":false}");
    assert_string_equal(w->error, "");
    drop(w);
}

static void without_redis_it_is_temporary(void **state) {
    struct world *w = *state;
    contents_complete(w->contents, job_of(w, "{\"content\":\"c\",\"to\":\"x@y.test\"}"), on_done, w);
    assert_int_equal(w->done, 0);
    server_stop(w); /* the question is out */
    RUN_UNTIL(w, w->done == 1);
    complete(w, "{\"content\":\"c\",\"to\":\"x@y.test\"}");
    assert_int_equal(w->temporary, 2);
    drop(w);
    server_start(w);
    RUN_UNTIL(w, all_up(w));
    store(w, "c", "{\"from\":\"a@b.test\",\"text\":\"t\"}");
    complete(w, "{\"content\":\"c\",\"to\":\"x@y.test\"}");
    assert_string_equal(w->error, "");
    drop(w);
}

/* What jobs hold stays; the rest goes, the longest unused first, when there is more than CONTENTS_BYTES_MAX. */
static void memory_is_bounded(void **state) {
    struct world *w = *state;
    enum { TEXT_BYTES = 10 << 20, CONTENTS = 20 };
    char *text = malloc(TEXT_BYTES + 64), job[128];
    int head = sprintf(text, "{\"from\":\"a@b.test\",\"text\":\"");
    for (size_t i = 0; i < TEXT_BYTES; i++)
        text[(size_t)head + i] = i % 64 == 63 ? ' ' : 'x';
    strcpy(text + head + TEXT_BYTES, "\"}");
    struct job *first = NULL;
    for (int i = 0; i < CONTENTS; i++) {
        char id[16];
        snprintf(id, sizeof id, "big%d", i);
        store(w, id, text);
        snprintf(job, sizeof job, "{\"content\":\"%s\",\"to\":\"x@y.test\"}", id);
        complete(w, job);
        assert_string_equal(w->error, "");
        if (i == 0) {
            first = w->last;
            w->last = NULL;
        } else {
            drop(w);
        }
        command(w, "DEL bypost:content:%s", id);
        assert_true(contents_counters(w->contents)->bytes <= CONTENTS_BYTES_MAX + (64u << 20));
    }
    assert_true(contents_counters(w->contents)->bytes > CONTENTS_BYTES_MAX / 2);
    assert_int_equal(first->text[0], 'x'); /* held all the time */
    complete(w, "{\"content\":\"big1\",\"to\":\"x@y.test\"}");
    assert_non_null(strstr(w->error, "There is none"));
    complete(w, "{\"content\":\"big19\",\"to\":\"x@y.test\"}");
    assert_string_equal(w->error, "");
    drop(w);
    job_release(first);
    free(text);
}

/* A job outlives the cache with its content. */
static void jobs_outlive_the_cache(void **state) {
    struct world *w = *state;
    store(w, "c", spring);
    complete(w, "{\"content\":\"c\",\"to\":\"x@y.test\"}");
    contents_complete(w->contents, job_of(w, "{\"content\":\"d\",\"to\":\"x@y.test\"}"), on_done, w);
    struct job *job = w->last;
    w->last = NULL;
    contents_destroy(w->contents);
    assert_int_equal(w->temporary, 1); /* the other was handed back */
    drop(w);
    assert_string_equal(job->subject, "S {{name}}");
    job_release(job);
    struct contents_config config = {
        .base = w->base, .config = w->config, .redis = w->redis, .shards = SHARDS, .identity = w->identity, .janitor_ms = JANITOR_TEST_MS};
    w->contents = contents_create(&config);
    assert_non_null(w->contents);
}

/* The last day begins when no shard counts the content any more, and it is taken back when one does again. */
static void what_nobody_needs_expires(void **state) {
    struct world *w = *state;
    store(w, "used", "x");
    store(w, "half", "x");
    store(w, "over", "x");
    store(w, "alone", "x");
    command(w, "HSET bypost:{0}:contents used 5 half 0 over 0");
    command(w, "HSET bypost:{1}:contents half 1 over 0");
    command(w, "EXPIRE bypost:content:used 5000");
    RUN_UNTIL(w, command(w, "TTL bypost:content:over") > 0 && command(w, "TTL bypost:content:used") == -1);
    assert_in_range(command(w, "TTL bypost:content:over"), 86390, 86400);
    RUN_UNTIL(w, command(w, "HEXISTS bypost:{0}:contents over") == 0 && command(w, "HEXISTS bypost:{1}:contents over") == 0);
    assert_int_equal(command(w, "TTL bypost:content:half"), -1);
    assert_int_equal(command(w, "TTL bypost:content:alone"), -1); /* never counted: its owner's affair */
    assert_int_equal(command(w, "HGET bypost:{1}:contents half"), 1);
    /* Needed again. */
    command(w, "HINCRBY bypost:{1}:contents over 3");
    RUN_UNTIL(w, command(w, "TTL bypost:content:over") == -1);
    command(w, "HINCRBY bypost:{1}:contents over -3");
    RUN_UNTIL(w, command(w, "TTL bypost:content:over") > 0);
    RUN_UNTIL(w, contents_counters(w->contents)->expired == 2);
}

/* The Function that takes a count away sees one that a producer has just raised. */
static void a_count_that_came_back_is_not_forgotten(void **state) {
    struct world *w = *state;
    command(w, "HSET bypost:{9}:contents a 0 b 2"); /* a shard that no janitor looks at */
    assert_int_equal(command(w, "FCALL bypost_content_forget 1 bypost:{9}:contents bypost:{9}: a"), 0);
    assert_int_equal(command(w, "FCALL bypost_content_forget 1 bypost:{9}:contents bypost:{9}: b"), 2);
    assert_int_equal(command(w, "FCALL bypost_content_forget 1 bypost:{9}:contents bypost:{9}: c"), 0);
    assert_int_equal(command(w, "HLEN bypost:{9}:contents"), 1);
}

/* Producers count and settle takes off while the janitor works: a content with a count never stays with a last day. */
static void counting_and_expiring_at_once(void **state) {
    struct world *w = *state;
    uint64_t seed = 3;
    for (int i = 0; i < 8; i++)
        command(w, "SET bypost:content:r%d x", i);
    for (int round = 0; round < 300; round++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
        uint32_t draw = (uint32_t)(seed >> 33);
        int shard = (int)(draw >> 8 & 1), id = (int)(draw >> 4 & 7);
        if (draw & 1)
            command(w, "HINCRBY bypost:{%d}:contents r%d 1", shard, id);
        else
            command(w, "HSET bypost:{%d}:contents r%d 0", shard, id);
        struct timeval tick = {.tv_usec = 1500};
        event_base_loopexit(w->base, &tick);
        event_base_dispatch(w->base);
    }
    for (int id = 0; id < 8; id++) {
        bool needed = command(w, "HGET bypost:{0}:contents r%d", id) > 0 || command(w, "HGET bypost:{1}:contents r%d", id) > 0;
        if (needed)
            RUN_UNTIL(w, command(w, "TTL bypost:content:r%d", id) == -1);
        else
            RUN_UNTIL(w, command(w, "HEXISTS bypost:{0}:contents r%d", id) + command(w, "HEXISTS bypost:{1}:contents r%d", id) == 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_job_takes_what_it_has_not, setup, teardown),
        cmocka_unit_test_setup_teardown(concurrent_requests_are_one, setup, teardown),
        cmocka_unit_test_setup_teardown(faults_are_told, setup, teardown),
        cmocka_unit_test_setup_teardown(a_content_may_ask_for_too_much, setup, teardown),
        cmocka_unit_test_setup_teardown(without_redis_it_is_temporary, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(jobs_outlive_the_cache, setup, teardown),
        cmocka_unit_test_setup_teardown(what_nobody_needs_expires, setup, teardown),
        cmocka_unit_test_setup_teardown(a_count_that_came_back_is_not_forgotten, setup, teardown),
        cmocka_unit_test_setup_teardown(counting_and_expiring_at_once, setup, teardown),
    };
    return cmocka_run_group_tests_name("content", tests, NULL, NULL);
}
