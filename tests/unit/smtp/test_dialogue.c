/* test_dialogue.c: phase by phase, each way in which a server can misbehave, and what becomes of the message: SMTP.md's table of replies.
 */
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum phase { BANNER, EHLO, MAIL, RCPT, DATA, BODY, FINAL, RSET_, QUIT_, PHASES };
static const char *const phase_names[] = {"BANNER", "EHLO", "MAIL", "RCPT", "DATA", "BODY", "FINAL", "RSET", "QUIT"};

static void misbehave(struct script *script, enum phase phase, const char *reply) {
    const char **places[PHASES] = {&script->banner, &script->ehlo,  &script->mail, &script->rcpt, &script->data,
                                   &script->body,   &script->final, &script->rset, &script->quit};
    *places[phase] = reply;
    if (phase == EHLO)
        script->helo = reply;
    if (phase == RSET_)
        script->rcpt = "550 5.1.1 no\r\n"; /* without PIPELINING, a refused recipient leaves a transaction open */
}

static char overlong[3000];

#define GARBAGE "\x16\x03\x01 what?\r\n"
#define MIXED4  "550-5.7.1 no\r\n451 4.3.0 later\r\n" /* the last line decides */

/* The expected cell: what becomes of the message; then, after a plus sign, the event that says so where it belongs to no order.
 * "elsewhere": nothing of it was attempted, it waits for another session and goes back when none comes. */
struct row {
    enum phase phase;
    const char *reply, *expected;
};

static const struct row rows[] = {
    /* phase, what the server does, what becomes of the message */
    {BANNER, "220 mx.test\r\n", "REPLIED FINAL 250 2.0.0"},
    {BANNER, "250 mx.test\r\n", "REPLIED FINAL 250 2.0.0"}, /* 2xx: go on */
    {BANNER, "450 4.3.2 busy\r\n", "elsewhere +GREETING_REFUSED 450"},
    {BANNER, "554 5.7.1 go away\r\n", "elsewhere +GREETING_REFUSED 554"},
    {BANNER, "421 4.7.0 too many\r\n", "elsewhere +GREETING_REFUSED 421"},
    {BANNER, "354 what\r\n", "elsewhere +PROTOCOL_ERROR 354"},
    {BANNER, SAY_EOF, "elsewhere +CLOSED_EARLY"},
    {BANNER, SAY_RST, "elsewhere +CLOSED_EARLY"},
    {BANNER, STALL, "elsewhere +CLOSED_EARLY"},
    {BANNER, GARBAGE, "elsewhere +PROTOCOL_ERROR"},
    {BANNER, overlong, "elsewhere +PROTOCOL_ERROR"},
    {BANNER, "554-no\r\n220 yes\r\n", "REPLIED FINAL 250 2.0.0"},                 /* mixed: the last line's */
    {BANNER, "220 a\r\n250 b\r\n", "elsewhere +PROTOCOL_ERROR 250"},              /* an answer to EHLO before EHLO left */
    {BANNER, "220 OUT.sender.test ESMTP\r\n", "elsewhere +GREETING_REFUSED 554"}, /* our own name: a loop, 5.4.6 */

    {EHLO, "451 4.3.0 later\r\n", "elsewhere +GREETING_REFUSED 451"},
    {EHLO, "550 5.7.1 never\r\n", "elsewhere +GREETING_REFUSED 550"}, /* HELO was tried too */
    {EHLO, "421 4.3.2 down\r\n", "elsewhere +GREETING_REFUSED 421"},
    {EHLO, "354 what\r\n", "elsewhere +PROTOCOL_ERROR 354"},
    {EHLO, SAY_EOF, "elsewhere +CLOSED_EARLY"},
    {EHLO, SAY_RST, "elsewhere +CLOSED_EARLY"},
    {EHLO, STALL, "elsewhere +CLOSED_EARLY"},
    {EHLO, GARBAGE, "elsewhere +PROTOCOL_ERROR"},
    {EHLO, overlong, "elsewhere +PROTOCOL_ERROR"},
    {EHLO, "250 a\r\n250 b\r\n", "elsewhere +PROTOCOL_ERROR 250"},
    {EHLO, "250 out.sender.test\r\n", "elsewhere +GREETING_REFUSED 554"},

    {MAIL, "451 4.3.0 later\r\n", "REPLIED MAIL 451 4.3.0"},
    {MAIL, "550 5.7.1 not you\r\n", "REPLIED MAIL 550 5.7.1"},
    {MAIL, "421 4.7.0 bye\r\n", "REPLIED MAIL 421 4.7.0"},
    {MAIL, SAY_EOF, "LOST MAIL"},
    {MAIL, SAY_RST, "LOST MAIL"},
    {MAIL, STALL, "LOST MAIL"},
    {MAIL, GARBAGE, "LOST MAIL +PROTOCOL_ERROR"},
    {MAIL, overlong, "LOST MAIL +PROTOCOL_ERROR"},
    {MAIL, MIXED4, "REPLIED MAIL 451 4.3.0"},
    {MAIL, "354 what\r\n", "LOST MAIL +PROTOCOL_ERROR 354"}, /* a class that does not fit */
    {MAIL, "150 what\r\n", "LOST MAIL +PROTOCOL_ERROR 150"},

    {RCPT, "451 4.2.0 greylisted\r\n", "REPLIED RCPT 451 4.2.0"},
    {RCPT, "550 5.1.1 no such user\r\n", "REPLIED RCPT 550 5.1.1"},
    {RCPT, "251 2.1.5 forwarded\r\n", "REPLIED FINAL 250 2.0.0"},
    {RCPT, "421 4.7.0 bye\r\n", "REPLIED RCPT 421 4.7.0"},
    {RCPT, SAY_EOF, "LOST RCPT"},
    {RCPT, SAY_RST, "LOST RCPT"},
    {RCPT, STALL, "LOST RCPT"},
    {RCPT, GARBAGE, "LOST RCPT +PROTOCOL_ERROR"},
    {RCPT, overlong, "LOST RCPT +PROTOCOL_ERROR"},
    {RCPT, MIXED4, "REPLIED RCPT 451 4.3.0"},
    {RCPT, "354 what\r\n", "LOST RCPT +PROTOCOL_ERROR 354"},

    {DATA, "451 4.3.0 later\r\n", "REPLIED DATA 451 4.3.0"},
    {DATA, "554 5.5.1 no\r\n", "REPLIED DATA 554 5.5.1"},
    {DATA, "421 4.7.0 bye\r\n", "REPLIED DATA 421 4.7.0"},
    {DATA, "250 2.0.0 already\r\n", "LOST DATA +PROTOCOL_ERROR 250"}, /* never taken for a delivery */
    {DATA, "350 go on\r\n", "LOST DATA +PROTOCOL_ERROR 350"},
    {DATA, SAY_EOF, "LOST DATA"},
    {DATA, SAY_RST, "LOST DATA"},
    {DATA, STALL, "LOST DATA"},
    {DATA, GARBAGE, "LOST DATA +PROTOCOL_ERROR"},
    {DATA, overlong, "LOST DATA +PROTOCOL_ERROR"},
    {DATA, MIXED4, "REPLIED DATA 451 4.3.0"},
    {DATA, "354 go\r\n250 2.0.0 taken\r\n", "LOST FINAL +PROTOCOL_ERROR 250"}, /* a verdict before the body left */
    {DATA, "354 go\r\n552 5.3.4 too big\r\n", "REPLIED BODY 552 5.3.4"},       /* a refusal of what is about to come */

    /* in the midst of a large body */
    {BODY, "552 5.3.4 too big\r\n", "REPLIED BODY 552 5.3.4"}, /* the 5xx that explains the end */
    {BODY, "421 4.3.2 down\r\n", "REPLIED BODY 421 4.3.2"},
    {BODY, "250 2.0.0 taken\r\n", "LOST BODY +PROTOCOL_ERROR 250"},
    {BODY, SAY_EOF, "LOST BODY"},
    {BODY, SAY_RST, "LOST BODY"},
    {BODY, GARBAGE, "LOST BODY +PROTOCOL_ERROR"},

    {FINAL, "250 2.0.0 ok\r\n", "REPLIED FINAL 250 2.0.0"},
    {FINAL, "451 4.3.0 later\r\n", "REPLIED FINAL 451 4.3.0"},
    {FINAL, "554 5.7.1 spam\r\n", "REPLIED FINAL 554 5.7.1"},
    {FINAL, "421 4.7.28 rate\r\n", "REPLIED FINAL 421 4.7.28"},
    {FINAL, SAY_EOF, "UNCERTAIN FINAL"},
    {FINAL, SAY_RST, "UNCERTAIN FINAL"},
    {FINAL, STALL, "UNCERTAIN FINAL"},
    {FINAL, GARBAGE, "UNCERTAIN FINAL +PROTOCOL_ERROR"},
    {FINAL, overlong, "UNCERTAIN FINAL +PROTOCOL_ERROR"},
    {FINAL, "354 what\r\n", "UNCERTAIN FINAL +PROTOCOL_ERROR 354"},
    {FINAL, MIXED4, "REPLIED FINAL 451 4.3.0"},
    {FINAL, "250 2.0.0 ok\r\n250 again\r\n", "REPLIED FINAL 250 2.0.0 +PROTOCOL_ERROR 250"}, /* one reply too many: close, nothing lost */

    /* what happens after the verdict never touches it */
    {RSET_, "250 ok\r\n", "REPLIED RCPT 550 5.1.1"},
    {RSET_, "500 what\r\n", "REPLIED RCPT 550 5.1.1"},
    {RSET_, "421 bye\r\n", "REPLIED RCPT 550 5.1.1"},
    {RSET_, SAY_EOF, "REPLIED RCPT 550 5.1.1"},
    {RSET_, SAY_RST, "REPLIED RCPT 550 5.1.1"},
    {RSET_, STALL, "REPLIED RCPT 550 5.1.1"},
    {RSET_, GARBAGE, "REPLIED RCPT 550 5.1.1 +PROTOCOL_ERROR"},
    {QUIT_, "500 what\r\n", "REPLIED FINAL 250 2.0.0"},
    {QUIT_, SAY_EOF, "REPLIED FINAL 250 2.0.0"},
    {QUIT_, SAY_RST, "REPLIED FINAL 250 2.0.0"},
    {QUIT_, STALL, "REPLIED FINAL 250 2.0.0"},
    {QUIT_, GARBAGE, "REPLIED FINAL 250 2.0.0"},
};

/* Two replies in one segment to a server without PIPELINING: the second answers a command that has not left. */
static const struct row early_rows[] = {
    {MAIL, "250 ok\r\n250 again\r\n", "LOST RCPT +PROTOCOL_ERROR 250"},
    {MAIL, "250 ok\r\n550 5.1.1 no\r\n", "LOST RCPT +PROTOCOL_ERROR 550"},
    {RCPT, "250 ok\r\n354 go\r\n", "LOST DATA +PROTOCOL_ERROR 354"},
};

static void first_event(const struct world *world, char *text, size_t text_bytes) {
    static const char *const kinds[] = {"CONNECT_FAILED", "GREETING_REFUSED", "CLOSED_EARLY",   "SHUTDOWN_REPLY", "TLS_FAILED",
                                        "AUTH_FAILED",    "PORTS_EXHAUSTED",  "PROTOCOL_ERROR", "READY"};
    *text = '\0';
    for (uint32_t i = 0; i < world->event_count; i++) {
        const struct path_event *event = &world->events[i];
        if (event->kind == PATH_EVENT_READY)
            continue;
        if (event->code)
            snprintf(text, text_bytes, " +%s %u", kinds[event->kind], event->code);
        else
            snprintf(text, text_bytes, " +%s", kinds[event->kind]);
        return;
    }
}

static char large_body[600 * 1024];

static void play(const struct row *row, bool pipelining, bool byte_by_byte) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    if (!pipelining)
        world->script.ehlo = "250-mx.test\r\n250 SIZE 1000000\r\n";
    misbehave(&world->script, row->phase, row->reply);
    world->script.byte_by_byte = byte_by_byte;
    world->script.body_bytes = 1000;
    world_publish(world);
    uint32_t slot = world_slot(world, "b@example.test", row->phase == BODY ? large_body : "Subject: x\r\n\r\nhello\r\n", 1000);
    world->watch_slot = slot;
    world->watch_body_bytes = world_at(world, slot)->size_bytes;
    world_order(world, slot);
    world_until_answered(world, slot);
    world_run(world, 30 * SECOND);
    if (strncmp(row->expected, "elsewhere", 9) == 0)
        world_run(world, 700 * SECOND);

    char got[160], event[64];
    const char *outcome = world_outcome(world, slot);
    first_event(world, event, sizeof(event));
    snprintf(got, sizeof(got), "%s%s", strcmp(outcome, "RETURNED") == 0 ? "elsewhere" : outcome, event);
    if (strcmp(got, row->expected) != 0)
        fail_msg("%s answered '%.40s' (%s%s): expected '%s', got '%s'", phase_names[row->phase], row->reply ? row->reply : "nothing",
                 pipelining ? "pipelining" : "one at a time", byte_by_byte ? ", byte by byte" : "", row->expected, got);

    /* Whatever happened: answered once, nothing held, no reference left on the body, and in time no session. */
    assert_int_equal(world->outcomes, 1);
    assert_int_equal(world_cell(world)->worker.orders_held, 0);
    smtp_engine_drain(world->engine, world->now_us);
    world_run(world, 60 * SECOND);
    assert_true(smtp_engine_idle(world->engine));
    assert_int_equal(world_connections(world), 0);
    assert_int_equal(COUNTED(world, wild_values), 0);
    world_free(world);
}

static void every_misbehaviour_has_its_outcome(void **state) {
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        bool alone = rows[i].phase == RSET_; /* with PIPELINING there is DATA between the refusal and RSET */
        for (int byte_by_byte = 0; byte_by_byte <= 1; byte_by_byte++) {
            play(&rows[i], false, byte_by_byte);
            if (!alone)
                play(&rows[i], true, byte_by_byte);
        }
    }
}

static void a_reply_to_what_has_not_left_is_unasked(void **state) {
    for (size_t i = 0; i < sizeof(early_rows) / sizeof(early_rows[0]); i++)
        play(&early_rows[i], false, false);
}

/* ---- what is said ---- */

static void with_pipelining_the_envelope_is_one_flight(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world_publish(world);
    uint32_t slot = world_send(world, "b@example.test");
    world_until_answered(world, slot);
    assert_string_equal(world_outcome(world, slot), "REPLIED FINAL 250 2.0.0");
    assert_string_equal(world_text(world, slot), "taken as 4711");
    assert_string_equal(world->commands, "EHLO out.sender.test|MAIL FROM:<a@sender.test> SIZE=21|RCPT TO:<b@example.test>|DATA|");
    assert_int_equal(world->flights, 2); /* EHLO; MAIL, RCPT and DATA */
    assert_string_equal(world->mail[0], "Subject: x\r\n\r\nhello\r\n");
    const struct slot_reply *reply = &world_at(world, slot)->reply;
    assert_int_equal(reply->peer_family, 4);
    assert_int_equal(reply->peer_address[3], 1);
    assert_int_equal(reply->worker, 1);
    assert_int_equal(reply->connected_us, world->now_us + 5);
    assert_int_equal(reply->finished_us, world->now_us + 5);
    assert_int_equal(COUNTED(world, messages_delivered), 1);
    assert_int_equal(COUNTED(world, message_bytes), 21);
    assert_true(world->bells > 0);
    world_free(world);
}

static void without_pipelining_one_command_at_a_time(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world->script.ehlo = "500 what?\r\n"; /* RFC 5321 3.2: then HELO, and no extension is used */
    world_publish(world);
    uint32_t slot = world_send(world, "b@example.test");
    world_until_answered(world, slot);
    assert_string_equal(world_outcome(world, slot), "REPLIED FINAL 250 2.0.0");
    assert_string_equal(world->commands,
                        "EHLO out.sender.test|HELO out.sender.test|MAIL FROM:<a@sender.test>|RCPT TO:<b@example.test>|DATA|");
    assert_int_equal(world->flights, 5);
    world_free(world);
}

static void the_null_sender_is_empty_brackets(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world_publish(world);
    uint32_t slot = world_slot(world, "b@example.test", "x\r\n", 0);
    memmove(world_at(world, slot)->text, world_at(world, slot)->text + world_at(world, slot)->sender_length, 14);
    world_at(world, slot)->sender_length = 0;
    world_order(world, slot);
    world_until_answered(world, slot);
    assert_non_null(strstr(world->commands, "MAIL FROM:<> SIZE=3|RCPT TO:<b@example.test>|"));
    assert_string_equal(world_text(world, slot), "taken as 4711");
    world_free(world);
}

static void a_source_without_a_name_greets_with_its_address(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world_path_record(world)->sources[0].ehlo = 0;
    world_publish(world);
    world_until_answered(world, world_send(world, "b@example.test"));
    assert_non_null(strstr(world->commands, "EHLO [198.51.100.1]|"));
    world_free(world);
}

/* RFC 1870, 6152, 6531: parameters only where offered; without them the message stays unsent. */
static void extensions_are_used_only_where_offered(void **state) {
    static const struct {
        const char *ehlo;
        uint8_t flags;
        uint32_t size_bytes;
        const char *expected, *mail;
    } cases[] = {
        {"250-x\r\n250 SIZE 100\r\n", 0, 100, "REPLIED FINAL 250 2.0.0", "MAIL FROM:<a@sender.test> SIZE=100|"},
        {"250-x\r\n250 SIZE 100\r\n", 0, 101, "LOCAL 552 5.3.4", NULL},
        {"250-x\r\n250 SIZE 0\r\n", 0, 101, "REPLIED FINAL 250 2.0.0", "MAIL FROM:<a@sender.test> SIZE=101|"},
        {"250 x\r\n", 0, 101, "REPLIED FINAL 250 2.0.0", "MAIL FROM:<a@sender.test>|"},
        {"250 x\r\n", SLOT_BODY_8BIT, 10, "LOCAL 554 5.6.3", NULL},
        {"250-x\r\n250 8BITMIME\r\n", SLOT_BODY_8BIT, 10, "REPLIED FINAL 250 2.0.0", "MAIL FROM:<a@sender.test> BODY=8BITMIME|"},
        {"250-x\r\n250 8BITMIME\r\n", 0, 10, "REPLIED FINAL 250 2.0.0", "MAIL FROM:<a@sender.test>|"},
        {"250-x\r\n250 8BITMIME\r\n", SLOT_SMTPUTF8, 10, "LOCAL 553 5.6.7", NULL},
        {"250-x\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n", SLOT_SMTPUTF8 | SLOT_BODY_8BIT, 10, "REPLIED FINAL 250 2.0.0",
         "MAIL FROM:<a@sender.test> BODY=8BITMIME SMTPUTF8|"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world *world = world_new();
        world_path(world, 1, 1, 0);
        world->script.ehlo = cases[i].ehlo;
        world_publish(world);
        uint32_t slot = world_slot(world, "b@example.test", "x\r\n", 0);
        world_at(world, slot)->flags = cases[i].flags;
        world_at(world, slot)->size_bytes = cases[i].size_bytes;
        world_order(world, slot);
        world_until_answered(world, slot);
        assert_string_equal(world_outcome(world, slot), cases[i].expected);
        if (cases[i].mail)
            assert_non_null(strstr(world->commands, cases[i].mail));
        else
            assert_null(strstr(world->commands, "MAIL"));
        world_free(world);
    }
}

static void every_byte_of_a_message_arrives_stuffed_and_unstuffed(void **state) {
    static const char text[] = ".one\r\n..\r\nthree.\r\n.\r\n\r\n.x\r\n";
    for (uint32_t piece_bytes = 1; piece_bytes < sizeof(text); piece_bytes++) {
        struct world *world = world_new();
        world_path(world, 1, 1, 0);
        world_publish(world);
        uint32_t slot = world_slot(world, "b@example.test", text, piece_bytes);
        world_at(world, slot)->flags = SLOT_HAS_LEADING_DOTS;
        world->watch_slot = slot;
        world->watch_body_bytes = sizeof(text) - 1;
        world_order(world, slot);
        world_until_answered(world, slot);
        assert_string_equal(world_outcome(world, slot), "REPLIED FINAL 250 2.0.0");
        assert_string_equal(world->mail[0], text);
        assert_int_equal(world->watched_bytes, sizeof(text) - 1);
        world_free(world);
    }
}

static void bounded(uint32_t window, uint32_t acknowledge_ranges) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world->tcp.window = window;
    world->tcp.acknowledge_ranges = acknowledge_ranges;
    world_publish(world);
    uint32_t slot = world_slot(world, "b@example.test", large_body, 7000), most = 0;
    world->watch_slot = slot;
    world->watch_body_bytes = sizeof(large_body) - 1;
    world_order(world, slot);
    for (int i = 0; i < 100000 && slot_word_state(slot_load(world_at(world, slot))) != SLOT_ANSWERED; i++) {
        world_step(world);
        if (world->tcp.conns[0].unacknowledged > most)
            most = world->tcp.conns[0].unacknowledged;
        world->now_us += 1000;
    }
    assert_string_equal(world_outcome(world, slot), "REPLIED FINAL 250 2.0.0");
    assert_int_equal(world->body_bytes_received, sizeof(large_body) - 1 + 3);
    assert_in_range(most, 64 * 1024, 256 * 1024 + 64 * 1024);
    world_free(world);
}

static void a_large_body_is_queued_in_bounded_amounts(void **state) {
    bounded(20000, 0); /* a small window: little waits unsent */
    bounded(0, 1);     /* a peer that acknowledges slowly: little waits unacknowledged */
}

/* RFC 5321 4.5.3.2: the verdict's ten minutes begin when the server has everything; until then progress counts. */
static void a_server_that_stops_reading_is_given_up_and_the_message_is_lost_not_uncertain(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world->tcp.window = 5000;
    world->script.never_acknowledges_body = true;
    world_publish(world);
    uint32_t slot = world_slot(world, "b@example.test", large_body, 4000);
    world_order(world, slot);
    uint64_t begin_us = world->now_us;
    world_until_answered(world, slot);
    assert_string_equal(world_outcome(world, slot), "LOST BODY");
    assert_in_range(world->now_us - begin_us, 180 * SECOND, 181 * SECOND);
    world_free(world);
}

/* All of it left and no acknowledgement comes: not the ten minutes of a verdict, and nobody knows what arrived. */
static void a_body_never_acknowledged_is_uncertain_after_the_block_timeout(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world->script.never_acknowledges_body = true;
    world->script.final = STALL;
    world_publish(world);
    uint64_t begin_us = world->now_us;
    uint32_t slot = world_send(world, "b@example.test");
    world_until_answered(world, slot);
    assert_string_equal(world_outcome(world, slot), "UNCERTAIN FINAL");
    assert_in_range(world->now_us - begin_us, 180 * SECOND, 181 * SECOND);
    world_free(world);
}

/* What is queued of a body whose fate is told must not go out: its end could make it a delivery after all. */
static void after_the_verdict_no_more_of_the_body_leaves(void **state) {
    static const struct {
        const char *body, *expected;
    } cases[] = {{"552 5.3.4 too big\r\n", "REPLIED BODY 552 5.3.4"}, {SAY_EOF, "LOST BODY"}, {GARBAGE, "LOST BODY"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world *world = world_new();
        world_path(world, 1, 1, 0);
        world->tcp.window = 5000;
        world->script.body = cases[i].body;
        world->script.body_bytes = 1000;
        world_publish(world);
        uint32_t slot = world_slot(world, "b@example.test", large_body, 1000);
        world_order(world, slot);
        world_until_answered(world, slot);
        world_run(world, 20 * SECOND);
        assert_string_equal(world_outcome(world, slot), cases[i].expected);
        assert_true(world->body_bytes_received <= 10000);
        assert_int_equal(world->mails, 0);
        world_free(world);
    }
}

/* A reset that comes while the end of the body still waits for the window: the server cannot have taken the message. */
static void a_reset_before_the_end_left_is_lost_not_uncertain(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world->tcp.window = 5000;
    world->script.body = SAY_RST;
    world->script.body_bytes = 1000;
    world_publish(world);
    char *text = strndup(large_body, 20000); /* all of it is queued */
    uint32_t slot = world_slot(world, "b@example.test", text, 1000);
    free(text);
    world_order(world, slot);
    world_until_answered(world, slot);
    assert_string_equal(world_outcome(world, slot), "LOST FINAL");
    world_free(world);
}

/* A verdict on bytes that the server has not acknowledged is none: a 2xx is no delivery, and after a refusal the rest of the body could be
 * read as commands of the next transaction. */
static void a_verdict_before_the_dot_was_acknowledged_is_early(void **state) {
    static const struct {
        const char *final, *expected;
        uint32_t protocol_errors;
    } cases[] = {{"250 2.0.0 taken\r\n", "UNCERTAIN FINAL", 1}, {"451 4.3.0 later\r\n", "REPLIED BODY 451 4.3.0", 0}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world *world = world_new();
        world_path(world, 1, 1, 1);
        world->script.final = cases[i].final;
        world->script.final_unacknowledged = world->script.never_acknowledges_body = true;
        world_publish(world);
        uint32_t slot = world_send(world, "b@example.test");
        world_until_answered(world, slot);
        assert_string_equal(world_outcome(world, slot), cases[i].expected);
        assert_int_equal(world_events(world, PATH_EVENT_PROTOCOL_ERROR), cases[i].protocol_errors);
        assert_int_equal(COUNTED(world, messages_delivered), 0);
        world->script = script_good;
        uint32_t next = world_send(world, "c@example.test");
        world_until_answered(world, next);
        assert_string_equal(world_outcome(world, next), "REPLIED FINAL 250 2.0.0");
        assert_int_equal(world->tcp.connects, 2);
        world_free(world);
    }
}

/* Nor is it one where the dot only ends a transaction without recipients: what the server says to it later would be taken for the next
 * order's answer. */
static void an_early_verdict_on_a_lone_dot_touches_no_other_order(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world->script.rcpt = "550 5.1.1 unknown\r\n";
    world->script.data = "354 go\r\n250 2.0.0 early\r\n";
    world->script.final = "554 5.5.1 nobody\r\n";
    world_publish(world);
    uint32_t first = world_send(world, "b@example.test"), second = world_send(world, "c@example.test");
    world_until_answered(world, first);
    world_until_answered(world, second);
    assert_string_equal(world_outcome(world, first), "REPLIED RCPT 550 5.1.1");
    assert_string_equal(world_outcome(world, second), "REPLIED RCPT 550 5.1.1"); /* its own, of another connection */
    assert_int_equal(world->tcp.connects, 2);
    world_free(world);
}

/* Each byte that a server takes counts as progress, but not for ever: below 500 bytes a second on the whole it is given up. */
static void a_server_that_trickles_is_given_up(void **state) {
    for (int whole = 0; whole <= 1; whole++) {
        struct world *world = world_new();
        world_path(world, 1, 1, 0);
        world->tcp.acknowledge_ranges = 1;
        world->script.final = STALL;
        world_publish(world);
        uint32_t bytes = whole ? 60000 : sizeof(large_body) - 1; /* all of it queued at once, or not */
        char *text = strndup(large_body, bytes);
        uint32_t slot = world_slot(world, "b@example.test", text, 1000);
        free(text);
        world_order(world, slot);
        uint64_t begin_us = world->now_us, most_us = (180 + bytes / 500 + 30) * SECOND;
        while (slot_word_state(slot_load(world_at(world, slot))) != SLOT_ANSWERED && world->now_us - begin_us < 2 * most_us) {
            world_step(world);
            world->now_us +=
                slot_word_state(slot_load(world_at(world, slot))) == SLOT_BODY_SENT || world->mails || world->body_bytes_received
                    ? 10 * SECOND
                    : 1000;
        }
        assert_string_equal(world_outcome(world, slot), whole ? "UNCERTAIN FINAL" : "LOST BODY");
        assert_in_range(world->now_us - begin_us, 180 * SECOND, most_us);
        world_free(world);
    }
}

static void timeouts_are_those_of_the_path(void **state) {
    static const struct {
        enum phase phase;
        uint32_t seconds;
    } cases[] = {{MAIL, 300}, {RCPT, 300}, {DATA, 120}, {FINAL, 600}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (uint32_t own = 0; own <= 1; own++) {
            struct world *world = world_new();
            world_path(world, 1, 1, 0);
            if (own)
                world_path_record(world)->timeouts = (struct path_timeouts){.mail = 7000, .rcpt = 7000, .data = 7000, .final = 7000};
            misbehave(&world->script, cases[i].phase, STALL);
            world_publish(world);
            uint64_t begin_us = world->now_us;
            world_until_answered(world, world_send(world, "b@example.test"));
            uint64_t seconds = own ? 7 : cases[i].seconds;
            assert_in_range(world->now_us - begin_us, seconds * SECOND, seconds * SECOND + 10000);
            world_free(world);
        }
    }
}

/* ---- several recipients ---- */

static void mixed_verdicts(bool pipelining) {
    struct world *world = world_new();
    uint32_t slots[4];
    static const char *const expected[] = {"REPLIED RCPT 550 5.1.1", "REPLIED FINAL 250 2.0.0", "REPLIED RCPT 452 4.5.3",
                                           "REPLIED FINAL 250 2.0.0"};
    world_path(world, 1, 1, 0);
    if (!pipelining)
        world->script.ehlo = "250 mx.test\r\n";
    world->script.rcpts[0] = "550 5.1.1 unknown\r\n";
    world->script.rcpts[2] = "452 4.5.3 too many\r\n";
    world_publish(world);
    for (uint32_t i = 0; i < 4; i++) {
        char recipient[32];
        snprintf(recipient, sizeof(recipient), "r%u@example.test", i);
        slots[i] = world_slot(world, recipient, "x\r\n", 0);
        if (i)
            world_chain(world, slots[i - 1], slots[i]);
    }
    world_order(world, slots[0]);
    world_until_answered(world, slots[0]);
    for (uint32_t i = 0; i < 4; i++)
        assert_string_equal(world_outcome(world, slots[i]), expected[i]);
    assert_string_equal(world_text(world, slots[0]), "unknown");
    assert_int_equal(world->outcomes, 4);
    assert_int_equal(world->mails, 1);
    assert_non_null(strstr(world->commands, "RCPT TO:<r0@example.test>|RCPT TO:<r1@example.test>|RCPT TO:<r2@example.test>|RCPT TO:<r3@"));
    assert_null(strstr(world->commands, "RSET"));
    world_free(world);
}

static void each_recipient_has_its_own_verdict(void **state) {
    mixed_verdicts(true);
    mixed_verdicts(false);
}

/* RFC 2920 3.1: 354 with no accepted recipient: only the dot, and its verdict means nothing. */
static void data_accepted_without_recipients_sends_only_the_dot(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world->script.rcpt = "550 5.1.1 unknown\r\n";
    world_publish(world);
    uint32_t first = world_send(world, "b@example.test");
    world_until_answered(world, first);
    world_settle(world);
    assert_string_equal(world_outcome(world, first), "REPLIED RCPT 550 5.1.1");
    assert_int_equal(world->mails, 1);
    assert_int_equal(world->mail_length[0], 0);
    world->script.rcpt = script_good.rcpt;
    uint32_t second = world_send(world, "c@example.test");
    world_until_answered(world, second);
    assert_string_equal(world_outcome(world, second), "REPLIED FINAL 250 2.0.0");
    assert_int_equal(world->tcp.connects, 1);
    assert_null(strstr(world->commands, "RSET"));
    world_free(world);
}

static void rset_only_where_a_transaction_was_left_open(void **state) {
    static const struct {
        const char *mail, *rcpt, *data;
        bool pipelining, rset;
    } cases[] = {
        {"250 ok\r\n", "550 no\r\n", "354 go\r\n", false, true},   {"550 no\r\n", "250 ok\r\n", "354 go\r\n", false, false},
        {"250 ok\r\n", "550 no\r\n", "503 none\r\n", true, true},  {"550 no\r\n", "503 no\r\n", "503 none\r\n", true, false},
        {"250 ok\r\n", "250 ok\r\n", "451 later\r\n", true, true}, {"550 no\r\n", "503 no\r\n", "354 go\r\n", true, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world *world = world_new();
        world_path(world, 1, 1, 0);
        if (!cases[i].pipelining)
            world->script.ehlo = "250 mx.test\r\n";
        world->script.mail = cases[i].mail;
        world->script.rcpt = cases[i].rcpt;
        world->script.data = cases[i].data;
        world_publish(world);
        world_until_answered(world, world_send(world, "b@example.test"));
        world_settle(world);
        assert_int_equal(strstr(world->commands, "RSET|") != NULL, cases[i].rset);
        world->script = script_good;
        uint32_t next = world_send(world, "c@example.test");
        world_until_answered(world, next);
        assert_string_equal(world_outcome(world, next), "REPLIED FINAL 250 2.0.0");
        assert_int_equal(world->tcp.connects, 1);
        world_free(world);
    }
}

static void a_thousand_recipients_are_one_group(void **state) {
    struct world *world = world_new();
    char recipient[SLOT_ADDRESS_MAX + 1];
    memset(recipient, 'r', sizeof(recipient) - 1);
    recipient[sizeof(recipient) - 1] = '\0';
    world_path(world, 1, 1, 0);
    world_publish(world);
    for (uint32_t i = 0; i < 1000; i++) {
        uint32_t slot = world_slot(world, recipient, "x\r\n", 0);
        if (i)
            world_chain(world, slot - 1, slot);
    }
    world->tcp.send_refusals = 1; /* EHLO has to be said again */
    world_order(world, 0);
    world_until_answered(world, 0);
    assert_int_equal(world->outcomes, 1000);
    assert_int_equal(COUNTED(world, messages_delivered), 1000);
    assert_int_equal(world->mails, 1);
    world_free(world);
}

/* RFC 9422: recipients beyond the limit go in another transaction, which follows at once. */
static void limits_of_the_server_and_of_the_path_cut_the_chain(void **state) {
    for (int own = 0; own <= 1; own++) {
        struct world *world = world_new();
        world_path(world, 1, 1, 0);
        if (own)
            world_path_record(world)->max_recipients_per_transaction = 2;
        else
            world->script.ehlo = "250-mx.test\r\n250 LIMITS RCPTMAX=2\r\n";
        world_publish(world);
        for (uint32_t i = 0; i < 3; i++) {
            uint32_t slot = world_slot(world, "r@example.test", "x\r\n", 0);
            if (i)
                world_chain(world, slot - 1, slot);
        }
        world_order(world, 0);
        world_until_answered(world, 0);
        assert_string_equal(world_outcome(world, 0), "REPLIED FINAL 250 2.0.0");
        assert_string_equal(world_outcome(world, 1), "REPLIED FINAL 250 2.0.0");
        assert_string_equal(world_outcome(world, 2), "REPLIED FINAL 250 2.0.0");
        assert_int_equal(world->mails, 2);
        assert_int_equal(world->tcp.connects, 1);
        world_free(world);
    }
}

/* ---- the stack says no ---- */

static void an_empty_pool_of_the_stack_only_delays(void **state) {
    for (uint32_t after = 0; after < 4; after++) {
        struct world *world = world_new();
        world_path(world, 1, 1, 0);
        world_publish(world);
        uint32_t slot = world_slot(world, "b@example.test", "x\r\n", 0);
        world->watch_slot = slot;
        world->watch_body_bytes = 3;
        world->strict = false;
        world->tcp.send_refusals = after;
        world_order(world, slot);
        for (int i = 0; i < 20; i++) {
            world->tcp.send_refusals = world->tcp.send_refusals ? world->tcp.send_refusals : (i % 2 ? after : 0);
            world_run(world, 2000);
        }
        world_until_answered(world, slot);
        assert_string_equal(world_outcome(world, slot), "REPLIED FINAL 250 2.0.0");
        assert_string_equal(world->mail[0], "x\r\n");
        world_free(world);
    }
}

/* A verdict does not give the arena back while the stack may still read it. */
static void the_first_slot_waits_for_the_last_reference(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world->script.never_acknowledges_body = true;
    world->script.body = "552 5.3.4 too big\r\n";
    world->tcp.reaps_later = true;
    world_publish(world);
    uint32_t first = world_slot(world, "b@example.test", "x\r\n", 0), second = world_slot(world, "c@example.test", "x\r\n", 0);
    world_chain(world, first, second);
    world_order(world, first);
    world_settle(world);
    assert_string_equal(world_outcome(world, second), "REPLIED BODY 552 5.3.4"); /* it does not hold the arena */
    assert_string_equal(world_outcome(world, first), "body sent");
    assert_int_equal(world_cell(world)->worker.orders_held, 1);
    world->tcp.reaps_later = false;
    world_settle(world);
    assert_string_equal(world_outcome(world, first), "REPLIED BODY 552 5.3.4");
    assert_int_equal(world->outcomes, 2);
    assert_int_equal(world_cell(world)->worker.orders_held, 0);
    world_free(world);
}

int main(void) {
    memset(overlong, 'x', sizeof(overlong) - 1);
    memcpy(overlong, "250 ", 4);
    for (size_t i = 0; i < sizeof(large_body) - 1; i++)
        large_body[i] = i % 64 == 62 ? '\r' : i % 64 == 63 ? '\n' : 'x';
    memcpy(large_body + sizeof(large_body) - 3, "\r\n", 2);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_misbehaviour_has_its_outcome),
        cmocka_unit_test(a_reply_to_what_has_not_left_is_unasked),
        cmocka_unit_test(with_pipelining_the_envelope_is_one_flight),
        cmocka_unit_test(without_pipelining_one_command_at_a_time),
        cmocka_unit_test(the_null_sender_is_empty_brackets),
        cmocka_unit_test(a_source_without_a_name_greets_with_its_address),
        cmocka_unit_test(extensions_are_used_only_where_offered),
        cmocka_unit_test(every_byte_of_a_message_arrives_stuffed_and_unstuffed),
        cmocka_unit_test(a_large_body_is_queued_in_bounded_amounts),
        cmocka_unit_test(a_server_that_stops_reading_is_given_up_and_the_message_is_lost_not_uncertain),
        cmocka_unit_test(a_body_never_acknowledged_is_uncertain_after_the_block_timeout),
        cmocka_unit_test(after_the_verdict_no_more_of_the_body_leaves),
        cmocka_unit_test(a_reset_before_the_end_left_is_lost_not_uncertain),
        cmocka_unit_test(a_verdict_before_the_dot_was_acknowledged_is_early),
        cmocka_unit_test(an_early_verdict_on_a_lone_dot_touches_no_other_order),
        cmocka_unit_test(a_server_that_trickles_is_given_up),
        cmocka_unit_test(timeouts_are_those_of_the_path),
        cmocka_unit_test(each_recipient_has_its_own_verdict),
        cmocka_unit_test(data_accepted_without_recipients_sends_only_the_dot),
        cmocka_unit_test(rset_only_where_a_transaction_was_left_open),
        cmocka_unit_test(a_thousand_recipients_are_one_group),
        cmocka_unit_test(limits_of_the_server_and_of_the_path_cut_the_chain),
        cmocka_unit_test(an_empty_pool_of_the_stack_only_delays),
        cmocka_unit_test(the_first_slot_waits_for_the_last_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
