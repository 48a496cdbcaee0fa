/* test_body.c: the body by reference: dot-stuffing (RFC 5321 4.5.2) and its end, over pieces cut anywhere. */
#include "dataplane/smtp/body.h"
#include "dataplane/smtp/command.h"

#include <bypost/slot.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ARENA_BYTES = 1 << 16 };

struct message {
    uint8_t *arena;
    struct body_source source;
    uint32_t at;
};

static void begin(struct message *message, const char *text, uint32_t length) {
    message->arena = calloc(1, ARENA_BYTES);
    assert_non_null(message->arena);
    memcpy(message->arena, text, length);
    message->at = 0;
    message->source = (struct body_source){.arena = message->arena, .arena_bytes = ARENA_BYTES, .table = 1 << 15, .leading_dots = true};
}

static void add(struct message *message, uint32_t length) {
    struct arena_piece piece = {.offset = message->at, .length = length};
    memcpy(message->arena + message->source.table + message->source.piece_count++ * sizeof(piece), &piece, sizeof(piece));
    message->at += length;
}

/* All that would go on the wire, taken in bites of at most `budget` bytes. */
static uint32_t drain(const struct message *message, uint32_t budget, char *wire, uint32_t wire_bytes) {
    struct body_cursor cursor = {0};
    uint32_t length = 0;
    for (int rounds = 0; !cursor.ended; rounds++) {
        struct tcp_piece pieces[BODY_BATCH];
        assert_true(rounds < 100000);
        int count = body_next(&message->source, &cursor, pieces, budget);
        assert_true(count > 0 && count <= BODY_BATCH);
        for (int i = 0; i < count; i++) {
            assert_true(length + pieces[i].length < wire_bytes);
            memcpy(wire + length, pieces[i].bytes, pieces[i].length);
            length += pieces[i].length;
        }
    }
    wire[length] = '\0';
    return length;
}

static const struct {
    const char *text, *wire;
} messages[] = {
    {"", ".\r\n"},
    {"a\r\n", "a\r\n.\r\n"},
    {"a", "a\r\n.\r\n"},
    {"a\r\n.\r\nb\r\n", "a\r\n..\r\nb\r\n.\r\n"},
    {".a\r\n..b\r\nc.d\r\n", "..a\r\n...b\r\nc.d\r\n.\r\n"},
    {"\r\n.", "\r\n..\r\n.\r\n"},
    {".", "..\r\n.\r\n"},
    {"x\r\n.x\r\n", "x\r\n..x\r\n.\r\n"},
    {"x\r.x\r\n", "x\r.x\r\n.\r\n"}, /* only CRLF begins a line */
    {"x\r\r\n.y\r\n", "x\r\r\n..y\r\n.\r\n"},
};

static void stuffing_is_the_same_for_every_cut_into_three_pieces(void **state) {
    for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++) {
        uint32_t length = (uint32_t)strlen(messages[i].text);
        for (uint32_t first = 0; first <= length; first++) {
            for (uint32_t second = first; second <= length; second++) {
                struct message message;
                begin(&message, messages[i].text, length);
                add(&message, first);
                add(&message, second - first); /* empty pieces too */
                add(&message, length - second);
                for (uint32_t budget = 1; budget <= length + 1; budget++) {
                    char wire[128];
                    drain(&message, budget, wire, sizeof(wire));
                    assert_string_equal(wire, messages[i].wire);
                }
                free(message.arena);
            }
        }
    }
}

static void without_the_flag_nothing_is_looked_at(void **state) {
    struct message message;
    char wire[64];
    begin(&message, "a\r\n.b\r\n", 7);
    add(&message, 7);
    message.source.leading_dots = false;
    drain(&message, 1000, wire, sizeof(wire));
    assert_string_equal(wire, "a\r\n.b\r\n.\r\n");
    free(message.arena);
}

static void a_thousand_dots_do_not_overrun_the_batch(void **state) {
    struct message message;
    char text[3000], wire[8192];
    for (uint32_t i = 0; i < sizeof(text); i += 3)
        memcpy(text + i, ".\r\n", 3);
    begin(&message, text, sizeof(text));
    add(&message, sizeof(text));
    assert_int_equal(drain(&message, 1 << 20, wire, sizeof(wire)), 4003);
    free(message.arena);
}

static void wild_pieces_are_not_followed(void **state) {
    static const struct {
        uint64_t table, offset;
        uint32_t count, length;
    } wild[] = {
        {.table = ARENA_BYTES, .count = 1},
        {.table = ARENA_BYTES - 8, .count = 1},
        {.table = UINT64_MAX, .count = 1},
        {.table = UINT64_MAX - 15, .count = 1},
        {.table = 1 << 15, .count = BODY_PIECES_MAX + 1},
        {.table = 1 << 15, .count = UINT32_MAX},
        {.table = 1 << 15, .count = 1, .offset = ARENA_BYTES, .length = 1},
        {.table = 1 << 15, .count = 1, .offset = ARENA_BYTES - 1, .length = 2},
        {.table = 1 << 15, .count = 1, .offset = UINT64_MAX, .length = 2},
        {.table = 1 << 15, .count = 1, .offset = UINT64_MAX - 10, .length = UINT32_MAX},
        {.table = 1 << 15, .count = 1, .offset = 0, .length = UINT32_MAX},
    };
    for (size_t i = 0; i < sizeof(wild) / sizeof(wild[0]); i++) {
        struct message message;
        uint64_t total;
        begin(&message, "a\r\n", 3);
        struct arena_piece piece = {.offset = wild[i].offset, .length = wild[i].length};
        memcpy(message.arena + (1 << 15), &piece, sizeof(piece));
        message.source.table = wild[i].table;
        message.source.piece_count = wild[i].count;
        assert_false(body_check(&message.source, &total));
        free(message.arena);
    }
}

static void a_piece_that_turns_wild_after_the_check_is_caught_when_used(void **state) {
    struct message message;
    struct body_cursor cursor = {0};
    struct tcp_piece pieces[BODY_BATCH];
    uint64_t total;
    begin(&message, "a\r\n", 3);
    add(&message, 3);
    assert_true(body_check(&message.source, &total));
    assert_int_equal(total, 3);
    message.arena[(1 << 15) + 7] = 0xff; /* the offset's top byte */
    assert_int_equal(body_next(&message.source, &cursor, pieces, 1000), -1);
    free(message.arena);
}

/* RFC 5321 4.1.2: what would end the path or the line early never stands in it. */
static void addresses_cannot_break_out_of_their_brackets(void **state) {
    static const char *const bad[] = {
        "a@b.test>\r\nRCPT TO:<c@d.test", "a\nb@c.test", "a\rb@c.test", "a b@c.test", "<a@b.test", "a@b.test>", "a\x7f@b.test"};
    struct pool pool;
    assert_int_equal(pool_create(&pool, sizeof(struct command), 4), 0);
    struct command *command = command_take(&pool);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(command_rcpt(command, bad[i], (uint32_t)strlen(bad[i]), "", true), COMMAND_BAD_ADDRESS);
        assert_int_equal(command_mail(command, bad[i], (uint32_t)strlen(bad[i]), "", true), COMMAND_BAD_ADDRESS);
        assert_int_equal(command->length, 0);
    }
    assert_int_equal(command_rcpt(command, "a\0b@c.test", 10, "", true), COMMAND_BAD_ADDRESS);
    assert_int_equal(command_rcpt(command, "gr\xc3\xbc\xc3\x9f@c.test", 13, "", false), COMMAND_NEEDS_UTF8);
    assert_int_equal(command_rcpt(command, "gr\xc3\xbc\xc3\x9f@c.test", 13, "", true), COMMAND_FINE);
    assert_int_equal(command_mail(command, "", 0, " SIZE=5", false), COMMAND_FINE);
    command->text[command->length] = '\0';
    assert_string_equal(command->text, "RCPT TO:<gr\xc3\xbc\xc3\x9f@c.test>\r\nMAIL FROM:<> SIZE=5\r\n");
    command_drop(command);
    assert_int_equal(pool.used, 0);
    pool_destroy(&pool);
}

static void a_full_buffer_takes_whole_lines_only(void **state) {
    struct pool pool;
    char address[SLOT_ADDRESS_MAX];
    memset(address, 'x', sizeof(address));
    assert_int_equal(pool_create(&pool, sizeof(struct command), 1), 0);
    struct command *command = command_take(&pool);
    assert_null(command_take(&pool));
    uint32_t lines = 0;
    while (command_rcpt(command, address, sizeof(address), "", false) == COMMAND_FINE)
        lines++;
    assert_int_equal(lines, COMMAND_TEXT_BYTES / (sizeof(address) + 12));
    assert_int_equal(command->length, lines * (sizeof(address) + 12));
    command_drop(command);
    pool_destroy(&pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stuffing_is_the_same_for_every_cut_into_three_pieces),
        cmocka_unit_test(without_the_flag_nothing_is_looked_at),
        cmocka_unit_test(a_thousand_dots_do_not_overrun_the_batch),
        cmocka_unit_test(wild_pieces_are_not_followed),
        cmocka_unit_test(a_piece_that_turns_wild_after_the_check_is_caught_when_used),
        cmocka_unit_test(addresses_cannot_break_out_of_their_brackets),
        cmocka_unit_test(a_full_buffer_takes_whole_lines_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
