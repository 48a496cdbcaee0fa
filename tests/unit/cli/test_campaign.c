/* Files of recipients: CSV (RFC 4180), JSON Lines, what is refused and why, and that the decoder is passed over only where it has nothing
 * to refuse. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "control/cli/campaign.h"
#include "control/cli/campaign_batch.h"
#include "control/fetch/fetch.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A file's rows, taken to the end: recipients joined by newlines, refusals as "LINE: reason" joined by newlines. */
struct taken {
    char good[8192], bad[4096], fault[ROW_ERROR_BYTES];
    unsigned good_count, bad_count;
    bool opened;
};

static int file_of(const void *bytes, size_t length) {
    char path[] = "/tmp/bypost-test-rows-XXXXXX";
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    unlink(path);
    assert_int_equal(write(descriptor, bytes, length), (ssize_t)length);
    assert_int_equal(lseek(descriptor, 0, SEEK_SET), 0);
    return descriptor;
}

static void take(struct taken *taken, const void *bytes, size_t length, const char *const *maps, uint32_t map_count) {
    struct rows *rows = calloc(1, sizeof *rows);
    struct writer out = {.limit = 1 << 20};
    uint64_t line;
    char error[ROW_ERROR_BYTES];
    int descriptor = file_of(bytes, length);
    memset(taken, 0, sizeof *taken);
    taken->opened = rows_open(rows, descriptor, maps, map_count, taken->fault);
    for (enum row_result result = ROW_GOOD; taken->opened && result != ROW_END;) {
        out.at = 0;
        result = rows_next(rows, &out, &line, error);
        assert_int_not_equal(result, ROW_FAULT);
        if (result == ROW_GOOD) {
            taken->good_count++;
            size_t used = strlen(taken->good);
            snprintf(taken->good + used, sizeof taken->good - used, "%.*s\n", (int)out.at, (char *)out.bytes);
        } else if (result == ROW_BAD) {
            taken->bad_count++;
            size_t used = strlen(taken->bad);
            snprintf(taken->bad + used, sizeof taken->bad - used, "%u: %s\n", (unsigned)line, error);
        }
    }
    rows_close(rows);
    free(rows);
    free(out.bytes);
    close(descriptor);
}

static void take_text(struct taken *taken, const char *text) {
    take(taken, text, strlen(text), NULL, 0);
}

/* RFC 4180 section 2: quotes, doubled quotes, line breaks and commas within quotes; the last line may lack its end. */
static void quotes(void **state) {
    struct taken taken;
    take_text(&taken, "email,word\r\nann@example.org,\"a, \"\"b\"\"\r\nc\"\r\nbob@example.org,\"\"");
    assert_string_equal(taken.good, "{\"to\":\"ann@example.org\",\"merge_data\":{\"word\":\"a, \\\"b\\\"\\u000d\\u000ac\"}}\n"
                                    "{\"to\":\"bob@example.org\",\"merge_data\":{\"word\":\"\"}}\n");
    assert_int_equal(taken.bad_count, 0);
}

/* Byte order mark, semicolons, blank lines, spaces around addresses, names, a backslash and UTF-8. */
static void habits(void **state) {
    struct taken taken;
    take_text(&taken, "\xef\xbb\xbf\n\nE-Mail;Name\n");
    assert_false(taken.opened);
    take_text(&taken, "\xef\xbb\xbf\nEmail;Name;x\n\n  ann@example.org ;Ann \xc3\x9cnal;a\\b\n\nbob@example.org;;\n");
    assert_string_equal(taken.good, "{\"to\":{\"email\":\"ann@example.org\",\"name\":\"Ann \xc3\x9cnal\"},\"merge_data\":{\"Name\":\"Ann "
                                    "\xc3\x9cnal\",\"x\":\"a\\\\b\"}}\n"
                                    "{\"to\":\"bob@example.org\",\"merge_data\":{\"Name\":\"\",\"x\":\"\"}}\n");
}

/* A wrong row is told with its line, and the next one is a row of its own again. */
static void wrong_rows(void **state) {
    struct taken taken;
    take_text(&taken, "email,x\nann@example.org\nbob@example.org,1,2\n,3\ncy@example.org,\"4\"5\ndee@example.org,6\neve@example.org,\"7\n"
                      "fay@example.org,8\n");
    assert_string_equal(taken.bad,
                        "2: the row has 1 fields and the header 2\n3: the row has 3 fields and the header 2\n4: there is no address\n"
                        "5: there is text behind the closing quote of column 2\n7: a quote that begins in column 2 does not end\n");
    assert_string_equal(
        taken.good,
        "{\"to\":\"dee@example.org\",\"merge_data\":{\"x\":\"6\"}}\n{\"to\":\"fay@example.org\",\"merge_data\":{\"x\":\"8\"}}\n");
}

static void headers(void **state) {
    struct taken taken;
    static const char *const maps[] = {"E-Mail=email", "No=metadata.number", "secret=-", "Vorname=first_name"};
    static const char text[] = "E-Mail,No,secret,Vorname\nann@example.org,17,s,Ann\n";
    take(&taken, text, sizeof text - 1, maps, 4);
    assert_string_equal(taken.good,
                        "{\"to\":\"ann@example.org\",\"merge_data\":{\"first_name\":\"Ann\"},\"metadata\":{\"number\":\"17\"}}\n");
    take(&taken, text, sizeof text - 1, maps + 1, 3);
    assert_non_null(strstr(taken.fault, "email"));
    static const char *const absent[] = {"Nowhere=email"};
    take(&taken, text, sizeof text - 1, absent, 1);
    assert_non_null(strstr(taken.fault, "Nowhere"));
    take_text(&taken, "email,a,a\n");
    assert_non_null(strstr(taken.fault, "two columns"));
    take_text(&taken, "email,to\n");
    assert_non_null(strstr(taken.fault, "two columns"));
    take_text(&taken, "");
    assert_non_null(strstr(taken.fault, "empty"));
    take_text(&taken, "\xef\xbb\xbf\r\n \r\n");
    assert_non_null(strstr(taken.fault, "empty"));
    take(&taken, "\xff\xfe\x65\x00", 4, NULL, 0);
    assert_non_null(strstr(taken.fault, "UTF-16"));
    take_text(&taken, "email\n");
    assert_true(taken.opened && taken.good_count == 0 && taken.bad_count == 0);
}

static void json_lines(void **state) {
    struct taken taken;
    take_text(&taken, "\n {\"to\":\"ann@example.org\"} \r\n\n{\"to\":\"bob@example.org\"}");
    assert_string_equal(taken.good, "{\"to\":\"ann@example.org\"}\n{\"to\":\"bob@example.org\"}\n");
}

/* A row that never ends is left behind, however long. */
static void endless(void **state) {
    size_t length = ROWS_BLOCK_BYTES * 3;
    char *text = malloc(length + 64);
    struct taken taken;
    strcpy(text, "email,x\nann@example.org,\"");
    size_t at = strlen(text);
    memset(text + at, 'x', length);
    strcpy(text + at + length, "\nbob@example.org,1\n");
    take_text(&taken, text);
    assert_int_equal(taken.bad_count, 1);
    assert_string_equal(taken.good, "{\"to\":\"bob@example.org\",\"merge_data\":{\"x\":\"1\"}}\n");
    memcpy(text, "{}     ", 7);
    strcpy(text + at + length, "\n{}\n");
    take_text(&taken, text);
    assert_true(taken.bad_count == 1 && taken.good_count == 2);
    free(text);
}

/* Rows that lie across the ends of what is read at a time come out the same. */
static void blocks(void **state) {
    enum { ROWS = 60000 };
    char *text = malloc(ROWS * 48);
    size_t at = (size_t)sprintf(text, "email,x\r\n");
    for (unsigned i = 0; i < ROWS; i++) {
        at += (size_t)sprintf(text + at, "u%u@example.org,\"%u,\r\n\"\"%u\"\r\n", i, i, i);
    }
    struct rows *rows = calloc(1, sizeof *rows);
    struct writer out = {.limit = 1 << 20};
    char error[ROW_ERROR_BYTES], wanted[128];
    uint64_t line;
    int descriptor = file_of(text, at);
    assert_true(rows_open(rows, descriptor, NULL, 0, error));
    for (unsigned i = 0; i < ROWS; i++) {
        out.at = 0;
        assert_int_equal(rows_next(rows, &out, &line, error), ROW_GOOD);
        snprintf(wanted, sizeof wanted, "{\"to\":\"u%u@example.org\",\"merge_data\":{\"x\":\"%u,\\u000d\\u000a\\\"%u\"}}", i, i, i);
        assert_int_equal(out.at, strlen(wanted));
        assert_memory_equal(out.bytes, wanted, out.at);
        assert_int_equal(line, 2 + 2 * i);
    }
    assert_int_equal(rows_next(rows, &out, &line, error), ROW_END);
    assert_int_equal(rows->taken, at);
    rows_close(rows);
    free(rows);
    free(out.bytes);
    free(text);
    close(descriptor);
}

/* -- chunks -- */

struct refusals {
    char text[4096];
    unsigned count;
};

static void on_rejected(void *context, uint64_t line, const char *reason) {
    struct refusals *refusals = context;
    size_t used = strlen(refusals->text);
    snprintf(refusals->text + used, sizeof refusals->text - used, "%u: %s\n", (unsigned)line, reason);
    refusals->count++;
}

/* The chunks of a text, joined by "|"; refusals in order. */
static void chunks(const char *text, uint32_t chunk, struct dedupe *dedupe, char *out, size_t bytes, struct refusals *refusals) {
    struct rows *rows = calloc(1, sizeof *rows);
    struct batch *batch = calloc(1, sizeof *batch);
    struct config *config = config_shipped();
    char error[ROW_ERROR_BYTES];
    int descriptor = file_of(text, strlen(text));
    assert_true(rows_open(rows, descriptor, NULL, 0, error));
    *batch = (struct batch){.config = config, .rows = rows, .dedupe = dedupe, .chunk = chunk, .rejected = on_rejected, .context = refusals};
    *out = 0;
    for (enum batch_result result; (result = batch_next(batch)) != BATCH_END;) {
        assert_int_equal(result, BATCH_CHUNK);
        size_t used = strlen(out);
        snprintf(out + used, bytes - used, "%.*s|", (int)batch->text.at - 1, (char *)batch->text.bytes);
    }
    batch_free(batch);
    free(batch);
    rows_close(rows);
    free(rows);
    config_free(config);
    close(descriptor);
}

/* What the decoder refuses is left out, and chunks stay full. */
static void refused(void **state) {
    char out[4096];
    struct refusals refusals = {.count = 0};
    chunks("email\na@example.org\nno address\nb@example.org\n\"\xff@example.org\"\nc@example.org\nd@example..org\ne@example.org\n", 2, NULL,
           out, sizeof out, &refusals);
    assert_string_equal(out,
                        "{\"to\":\"a@example.org\"},{\"to\":\"b@example.org\"}|{\"to\":\"c@example.org\"},{\"to\":\"e@example.org\"}|");
    assert_int_equal(refusals.count, 3);
    assert_non_null(strstr(refusals.text, "3: "));
    assert_non_null(strstr(refusals.text, "5: "));
    assert_non_null(strstr(refusals.text, "7: "));
}

/* A line is one object: what would make two recipients of one, or join lines, is refused. */
static void smuggled(void **state) {
    char out[4096];
    struct refusals refusals = {.count = 0};
    chunks("{\"to\":\"a@example.org\"},{\"to\":\"x@example.org\"}\n{\"to\":\"b@example.org\"}\n{\"to\":\"c@example.org\"\n}\n", 10, NULL,
           out, sizeof out, &refusals);
    assert_string_equal(out, "{\"to\":\"b@example.org\"}|");
    assert_int_equal(refusals.count, 3);
}

/* A line may not close the array of recipients: what would stand beside it are the fields of the job, the sender's own. */
static void beside_the_recipients(void **state) {
    static const char *const lines[] = {"{\"to\":\"a@example.org\"}],\"subject\":\"x\",\"tags\":[\"y\"",
                                        "{\"to\":\"a@example.org\"}],\"envelope_sender\":\"x@example.net\",\"reply_to\":[\"y@example.net\"",
                                        "{\"to\":\"a@example.org\",\"merge_data\":{\"k\":\"\\\\\"}}],\"tags\":[\"y\"",
                                        "{\"to\":\"a@example.org\"} {}"};
    struct refusals refusals = {.count = 0};
    char out[4096];
    for (unsigned i = 0; i < sizeof lines / sizeof *lines; i++) {
        refusals.count = 0;
        chunks(lines[i], 10, NULL, out, sizeof out, &refusals);
        assert_string_equal(out, "");
        assert_int_equal(refusals.count, 1);
    }
    refusals.count = 0; /* brackets and quotes in strings are text */
    chunks("{\"to\":\"a@example.org\",\"merge_data\":{\"k\":\"}]\\\"{\\\\\"}}", 10, NULL, out, sizeof out, &refusals);
    assert_string_equal(out, "{\"to\":\"a@example.org\",\"merge_data\":{\"k\":\"}]\\\"{\\\\\"}}|");
    assert_int_equal(refusals.count, 0);
}

/* A row that fills the buffer and ends with a carriage return is too long; the rows behind it are read. */
static void carriage_return_at_the_end_of_the_buffer(void **state) {
    static const char header[] = "email,x\n", begin[] = "ann@example.org,\"";
    size_t length = sizeof header - 1 + ROWS_BLOCK_BYTES;
    char *text = malloc(length + 64);
    struct taken taken;
    if (!text) {
        abort();
    }
    memset(text, 'x', length);
    memcpy(text, header, sizeof header - 1);
    memcpy(text + sizeof header - 1, begin, sizeof begin - 1);
    strcpy(text + length - 2, "\"\r\nbob@example.org,1\n");
    take_text(&taken, text);
    assert_int_equal(taken.bad_count, 1);
    assert_string_equal(taken.good, "{\"to\":\"bob@example.org\",\"merge_data\":{\"x\":\"1\"}}\n");
    free(text);
}

static void dedupe(void **state) {
    char out[4096];
    struct refusals refusals = {.count = 0};
    struct dedupe dedupe;
    assert_true(dedupe_begin(&dedupe, 1 << 24));
    chunks("email\na@example.org\nb@example.org\nA@Example.org\nc@example.org\nb@example.org\n\"B\"@example.org\n", 2, &dedupe, out,
           sizeof out, &refusals);
    assert_string_equal(out, "{\"to\":\"a@example.org\"},{\"to\":\"b@example.org\"}|{\"to\":\"c@example.org\"}|");
    dedupe_end(&dedupe);
    /* Growth keeps what was there; the bound holds. */
    assert_true(dedupe_begin(&dedupe, 1 << 22));
    char address[32];
    unsigned added = 0;
    enum dedupe_answer answer = DEDUPE_NEW;
    for (unsigned i = 0; i < 400000 && answer == DEDUPE_NEW; i++) {
        snprintf(address, sizeof address, "u%u@example.org", i);
        answer = dedupe_add(&dedupe, address);
        added += answer == DEDUPE_NEW;
    }
    assert_int_equal(answer, DEDUPE_FULL);
    assert_true(added == (1 << 18) / 4 * 3); /* 16 bytes a slot, three quarters full */
    for (unsigned i = 0; i < added; i++) {
        snprintf(address, sizeof address, "U%u@example.ORG", i);
        assert_int_equal(dedupe_add(&dedupe, address), DEDUPE_SEEN);
    }
    dedupe_end(&dedupe);
}

/* Whatever a row holds: when it counts as plain, the decoder takes it. */
static void plain_is_good(void **state) {
    static const char letters[] = "aB9.-_+@@\"\\ '<>,;\n\r\t\x01\xc3\xbc\xff(";
    struct config *config = config_shipped();
    uint64_t random = 88172645463325252u;
    unsigned plain = 0, refused_plain = 0, good_others = 0;
    for (unsigned i = 0; i < 60000; i++) {
        char text[256];
        size_t at = (size_t)sprintf(text, "email,name,x\n");
        for (unsigned f = 0; f < 3; f++) {
            text[at++] = '"';
            unsigned length = (unsigned)(random % 9) + (f == 0);
            for (unsigned c = 0; c < length; c++) {
                random ^= random << 13, random ^= random >> 7, random ^= random << 17;
                char letter = letters[random % (i % 2 ? 7 : sizeof letters - 1)];
                if (f == 0 && c == length / 2) {
                    letter = '@';
                }
                text[at++] = letter;
                if (letter == '"') {
                    text[at++] = '"';
                }
            }
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            text[at++] = '"';
            text[at++] = f < 2 ? ',' : '\n';
        }
        struct rows *rows = calloc(1, sizeof *rows);
        struct writer out = {.limit = 1 << 20};
        char error[ROW_ERROR_BYTES];
        uint64_t line;
        int descriptor = file_of(text, at);
        assert_true(rows_open(rows, descriptor, NULL, 0, error));
        writer_text(&out, "{\"from\":\"a@example.org\",\"text\":\"-\",\"recipients\":[");
        if (rows_next(rows, &out, &line, error) == ROW_GOOD) {
            writer_text(&out, "]}");
            char reason[512];
            struct job *job = job_decode(out.bytes, out.at, config, reason, sizeof reason);
            plain += rows->plain;
            good_others += job && !rows->plain;
            if (rows->plain && !job) {
                refused_plain++;
                print_message("%.*s: %s\n", (int)out.at, (char *)out.bytes, reason);
            }
            job_release(job);
        }
        rows_close(rows);
        free(rows);
        free(out.bytes);
        close(descriptor);
    }
    assert_int_equal(refused_plain, 0);
    assert_true(plain > 1000 && good_others > 10); /* both ways were taken */
    config_free(config);
}

/* -- fields -- */

static const char *field_becomes(const char *name, const char *value) {
    static char out[64];
    struct campaign_fields fields = {.count = 0};
    if (!campaign_field(&fields, name, value)) {
        return NULL;
    }
    snprintf(out, sizeof out, "%s", fields.argv[1]);
    campaign_fields_free(&fields);
    return out;
}

static void fields(void **state) {
    assert_string_equal(field_becomes("window", "08:00-20:00 UTC"), "480-1200 0");
    assert_string_equal(field_becomes("window", "22:30-06:00 +05:30"), "1350-360 330");
    assert_string_equal(field_becomes("window", "00:00-24:00 -08:00"), "0-1440 -480");
    assert_string_equal(field_becomes("window", "none"), "");
    assert_string_equal(field_becomes("rate", "500/s"), "500");
    assert_string_equal(field_becomes("rate", "unlimited"), "0");
    assert_string_equal(field_becomes("weight", "2.5"), "2.5");
    assert_string_equal(field_becomes("not_before", "2026-12-24T18:00:00+01:00"), "1798131600000");
    assert_string_equal(field_becomes("not_before", "2026-12-24T17:00:00Z"), "1798131600000");
    assert_string_equal(field_becomes("expires_at", "1798131600"), "1798131600000");
    assert_string_equal(field_becomes("expires_at", "none"), "0");
    static const char *const wrong[][2] = {{"window", "8-20"},
                                           {"window", "08:00-08:00"},
                                           {"window", "25:00-26:00"},
                                           {"window", "08:00-20:00 Nowhere/Else"},
                                           {"window", "08:00-20:00 ../../etc/passwd"},
                                           {"rate", "fast"},
                                           {"weight", "0"},
                                           {"weight", "nan"},
                                           {"not_before", "tomorrow"},
                                           {"not_before", "2026-12-24T18:00:00"},
                                           {"tenant", ""}};
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        if (field_becomes(wrong[i][0], wrong[i][1])) {
            fail_msg("%s '%s' was taken", wrong[i][0], wrong[i][1]);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(quotes),
                                       cmocka_unit_test(habits),
                                       cmocka_unit_test(wrong_rows),
                                       cmocka_unit_test(headers),
                                       cmocka_unit_test(json_lines),
                                       cmocka_unit_test(endless),
                                       cmocka_unit_test(blocks),
                                       cmocka_unit_test(refused),
                                       cmocka_unit_test(smuggled),
                                       cmocka_unit_test(beside_the_recipients),
                                       cmocka_unit_test(carriage_return_at_the_end_of_the_buffer),
                                       cmocka_unit_test(dedupe),
                                       cmocka_unit_test(plain_is_good),
                                       cmocka_unit_test(fields)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
