/* The log: whole JSON lines whatever the text holds (RFC 8259 section 7), the level, and a bound on floods. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "control/observe/json_text.h"
#include "control/observe/log.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct capture {
    FILE *file;
    int kept;
};

/* stderr goes to a file until capture_end. */
static struct capture capture_begin(void) {
    struct capture capture = {.file = tmpfile(), .kept = dup(STDERR_FILENO)};
    assert_non_null(capture.file);
    dup2(fileno(capture.file), STDERR_FILENO);
    return capture;
}

/* The lines as JSON objects, in an array. */
static json_t *capture_end(struct capture *capture) {
    json_t *lines = json_array();
    char line[16384];
    dup2(capture->kept, STDERR_FILENO);
    close(capture->kept);
    rewind(capture->file);
    while (fgets(line, sizeof line, capture->file)) {
        json_t *entry = json_loads(line, 0, NULL);
        assert_non_null(entry);
        assert_int_equal(line[strlen(line) - 1], '\n');
        json_array_append_new(lines, entry);
    }
    fclose(capture->file);
    return lines;
}

static const char *text_of(json_t *lines, size_t index, const char *key) {
    const char *text = json_string_value(json_object_get(json_array_get(lines, index), key));
    assert_non_null(text);
    return text;
}

static void line_shape(void **state) {
    struct capture capture = capture_begin();
    log_start("control", LOG_LEVEL_INFO);
    errno = EAGAIN;
    log_write(LOG_LEVEL_WARNING, "fetch", "Redis at %s went away", "192.0.2.1");
    assert_int_equal(errno, EAGAIN); /* logging a failure does not hide it */
    json_t *lines = capture_end(&capture);
    assert_int_equal(json_array_size(lines), 1);
    assert_string_equal(text_of(lines, 0, "level"), "warning");
    assert_string_equal(text_of(lines, 0, "program"), "control");
    assert_string_equal(text_of(lines, 0, "room"), "fetch");
    assert_string_equal(text_of(lines, 0, "message"), "Redis at 192.0.2.1 went away");
    assert_int_equal(strlen(text_of(lines, 0, "time")), strlen("2026-01-02T03:04:05.678Z"));
    json_decref(lines);
}

static void levels(void **state) {
    struct capture capture = capture_begin();
    log_start("control", LOG_LEVEL_WARNING);
    log_write(LOG_LEVEL_INFO, "x", "not written");
    log_write(LOG_LEVEL_DEBUG, "x", "nor this");
    log_write(LOG_LEVEL_ERROR, "x", "this");
    json_t *lines = capture_end(&capture);
    assert_int_equal(json_array_size(lines), 1);
    json_decref(lines);
    log_start("control", LOG_LEVEL_INFO);
}

/* A peer's reply may hold anything; it must neither end the line nor forge a field. */
static void hostile_text(void **state) {
    struct capture capture = capture_begin();
    log_write(LOG_LEVEL_INFO, "smtp", "a\"b\\c\nd\te\x01\x7f g\xc3\xbc \xff\xc0\xaf \xed\xa0\x80 \",\"level\":\"error\"}\r\n{");
    json_t *lines = capture_end(&capture);
    assert_int_equal(json_array_size(lines), 1);
    assert_string_equal(text_of(lines, 0, "level"), "info");
    assert_string_equal(text_of(lines, 0, "message"), "a\"b\\c\nd\te\x01\x7f g\xc3\xbc \xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd "
                                                      "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd \",\"level\":\"error\"}\r\n{");
    json_decref(lines);
}

static void long_text(void **state) {
    char text[8192];
    memset(text, '\n', sizeof text - 1); /* each takes two bytes */
    text[sizeof text - 1] = 0;
    struct capture capture = capture_begin();
    log_write(LOG_LEVEL_INFO, "long", "%s", text);
    json_t *lines = capture_end(&capture);
    assert_int_equal(json_array_size(lines), 1);
    assert_true(strlen(text_of(lines, 0, "message")) > 1000);
    json_decref(lines);
}

/* Every length of room: the result is always a whole JSON string. */
static void json_text_cuts(void **state) {
    static const char text[] = "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \x01 \xff \"quoted\"";
    for (size_t room = 16; room < 128; room++) {
        char out[128];
        size_t length = json_text(out, room, text);
        assert_true(length < room);
        assert_int_equal(strlen(out), length);
        json_t *value = json_loads(out, JSON_DECODE_ANY, NULL);
        assert_non_null(value);
        json_decref(value);
    }
}

/* Alike but for their numbers: ten in the window, and then their count. */
static void floods(void **state) {
    struct capture capture = capture_begin();
    log_flush();
    for (int i = 0; i < 1000; i++) {
        log_write(LOG_LEVEL_ERROR, "port", "frame %d from 192.0.2.%d is damaged", i, i % 256);
    }
    log_write(LOG_LEVEL_ERROR, "port", "another matter");
    log_write(LOG_LEVEL_ERROR, "tcp", "frame 1 from 192.0.2.1 is damaged"); /* another room's */
    log_flush();
    json_t *lines = capture_end(&capture);
    assert_int_equal(json_array_size(lines), 10 + 1 + 1 + 1);
    assert_string_equal(text_of(lines, 10, "message"), "another matter");
    assert_string_equal(text_of(lines, 11, "room"), "tcp");
    assert_int_equal(json_integer_value(json_object_get(json_array_get(lines, 12), "repeated")), 990);
    assert_string_equal(text_of(lines, 12, "message"), "repeated 990 times, last: frame 999 from 192.0.2.231 is damaged");
    json_decref(lines);
}

/* One format is one kind, whatever names it fills in; a format without words is as many as its texts. */
static void names(void **state) {
    struct capture capture = capture_begin();
    log_flush();
    for (int i = 0; i < 100; i++) {
        char word[3] = {(char)('a' + i / 26), (char)('a' + i % 26), 0};
        log_write(LOG_LEVEL_WARNING, "names", "no connection to %s", word);
        log_write(LOG_LEVEL_WARNING, "names", "%s:%u: %s", word, i, "x");
    }
    log_flush();
    json_t *lines = capture_end(&capture);
    assert_int_equal(json_array_size(lines), 10 + 100 + 1);
    assert_string_equal(text_of(lines, 110, "message"), "repeated 90 times, last: no connection to dv");
    json_decref(lines);
}

/* More kinds of message than are remembered: none is lost. */
static void many_kinds(void **state) {
    struct capture capture = capture_begin();
    log_flush();
    for (int i = 0; i < 300; i++) {
        char word[4] = {(char)('a' + i % 26), (char)('a' + i / 26 % 26), 'x', 0};
        log_write(LOG_LEVEL_INFO, "kinds", "%s", word);
    }
    json_t *lines = capture_end(&capture);
    assert_int_equal(json_array_size(lines), 300);
    json_decref(lines);
}

static void *writer(void *argument) {
    for (int i = 0; i < 200; i++) {
        char word[8];
        snprintf(word, sizeof word, "%c%c%c", 'a' + i % 26, 'a' + i / 26, *(const char *)argument);
        log_write(LOG_LEVEL_INFO, "threads", "%s", word);
    }
    return NULL;
}

static void threads(void **state) {
    struct capture capture = capture_begin();
    pthread_t ids[4];
    for (unsigned i = 0; i < 4; i++) {
        pthread_create(&ids[i], NULL, writer, (void *)&"wxyz"[i]);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(ids[i], NULL);
    }
    json_t *lines = capture_end(&capture); /* every line is whole, or this fails */
    assert_int_equal(json_array_size(lines), 800);
    json_decref(lines);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(line_shape), cmocka_unit_test(levels),         cmocka_unit_test(hostile_text),
                                       cmocka_unit_test(long_text),  cmocka_unit_test(json_text_cuts), cmocka_unit_test(floods),
                                       cmocka_unit_test(names),      cmocka_unit_test(many_kinds),     cmocka_unit_test(threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
