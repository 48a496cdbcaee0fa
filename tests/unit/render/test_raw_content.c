/* Raw messages of a shared content: normalised once, and for each recipient what the same message in a job of its own becomes. */
#include "contents.h"

#include <errno.h>

enum { ROUNDS = 6000, RAW_BYTES = 16 << 10, BODY_BYTES = 60 << 10 };

/* What a header is made of: lines that are good, that are mended, and some that are refused. */
static const char *const fields[] = {"Date: Mon, 01 Jan 2024 00:00:00 +0000",
                                     "Message-ID: <a@b>",
                                     "From: Ann <ann@Example.ORG>",
                                     "from : \xC3\x89va <eva@example.com>",
                                     "Subject: x",
                                     "Subject: caf\xC3\xA9\n au lait",
                                     "To: bob@example.net,\n\tcarl@example.net",
                                     "Bcc: eve@example.com",
                                     "Return-Path: <x@y>",
                                     "MIME-Version: 1.0",
                                     "Content-Type: text/html",
                                     "Content-Transfer-Encoding: 8bit",
                                     "References: <caf\xC3\xA9@x>",
                                     ".dot: y",
                                     "X-Long: a\n \n b",
                                     "Received: a\n b"};
static const char *const odd_fields[] = {"From: nobody", "no field", " begins with a blank", "From ann Mon Jan 1", "\xC3\xA9: x"};
static const char *const lines[] = {"Some words of prose.",
                                    "",
                                    "",
                                    ".",
                                    "..dots",
                                    "  indented\tand  wide  ",
                                    "caf\xC3\xA9",
                                    "From here",
                                    " ",
                                    "<td>0123456789012345678901234567890123456789</td>"};
static const char *const ends[] = {"\n", "\r\n", "\r", "\n"};

enum { FIELDS = sizeof(fields) / sizeof(*fields), ODD = sizeof(odd_fields) / sizeof(*odd_fields), LINES = sizeof(lines) / sizeof(*lines) };

static size_t put(char *raw, size_t used, const char *text, const char *end) {
    for (; *text != '\0'; text++)
        if (*text == '\n')
            used += (size_t)sprintf(raw + used, "%s", end);
        else
            raw[used++] = *text;
    return used + (size_t)sprintf(raw + used, "%s", end);
}

static size_t draw_raw(uint64_t *seed, char *raw) {
    const char *end = ends[unit_random(seed) % 4];
    size_t used = 0;
    for (size_t i = 0; i < FIELDS; i++)
        if (unit_random(seed) % 2 == 0)
            used = put(raw, used, fields[i], end);
    if (unit_random(seed) % 8 == 0)
        used = put(raw, used, odd_fields[unit_random(seed) % ODD], end);
    if (unit_random(seed) % 16 == 0)
        return used; /* no body */
    used = put(raw, used, "", end);
    static const uint32_t counts[] = {0, 1, 5, 40, 200};
    for (uint32_t i = counts[unit_random(seed) % 5]; i > 0; i--)
        used = put(raw, used, lines[unit_random(seed) % LINES], unit_random(seed) % 4 == 0 ? ends[unit_random(seed) % 4] : end);
    if (unit_random(seed) % 8 == 0)
        raw[used++] = 'x'; /* the last line has no end */
    if (unit_random(seed) % 40 == 0) {
        memset(raw + used, 'x', 999);
        used += 999;
    }
    if (unit_random(seed) % 8 == 0)
        raw[unit_random(seed) % used] = '\0';
    return used;
}

/* Bob has the message of a job of his own, and so has Eve. */
static void a_raw_content_changes_no_byte(void **state) {
    static char raw[RAW_BYTES];
    uint64_t seed = 3;
    uint32_t good = 0, sharing = 0, dots = 0, high = 0, smtputf8 = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct unit_job u;
        struct ways ways;
        unit_job_init(&u);
        u.job.subject = u.job.text = NULL;
        u.job.raw = (uint8_t *)raw;
        u.job.raw_length = draw_raw(&seed, raw);
        u.recipients[1] = (struct job_recipient){.mailbox = {.email = (char *)"eve@example.net"}, .kind = RECIPIENT_PRIVATE};
        u.job.recipient_total = 2;
        ways_open(&ways, &u);
        for (uint32_t index = 0; index < 2; index++) {
            struct message *message = &ways.messages[WAY_PREPARED];
            ways_render(&ways, index, UNIT_MAX_BYTES);
            bool shares = message->piece_count > 0;
            if (!assert_ways_agree(&ways))
                continue;
            good++;
            sharing += shares;
            dots += message->has_leading_dots;
            high += message->body_8bit;
            smtputf8 += message->needs_smtputf8;
        }
        ways_close(&ways);
    }
    assert_true(good > ROUNDS / 2 && good < 2 * ROUNDS);
    assert_true(!RENDER_SHARES || sharing > ROUNDS / 10);
    assert_true(dots > ROUNDS / 10 && high > ROUNDS / 10 && smtputf8 > ROUNDS / 10);
    assert_true(dots < good && high < good && smtputf8 < good);
}

/* Date, Message-ID, From are a recipient's or his job's; all else is the content's. */
static void what_is_missing_is_the_recipient_s(void **state) {
    static char raw[] = "Subject: x\n\nbody\n";
    char names[3][64];
    struct unit_job u;
    struct ways ways;
    unit_job_init(&u);
    u.job.raw = (uint8_t *)raw;
    u.job.raw_length = sizeof(raw) - 1;
    u.recipients[1] = (struct job_recipient){.mailbox = {.email = (char *)"eve@example.net"}, .kind = RECIPIENT_PRIVATE};
    u.job.recipient_total = 2;
    ways_open(&ways, &u);
    for (int i = 0; i < 3; i++) {
        struct job *job = &ways.jobs[WAY_PREPARED];
        if (i == 2)
            job->from = (struct mailbox){.email = (char *)"carl@example.com", .name = (char *)"Carl"};
        const char *text = unit_render(job, (uint32_t)i % 2);
        unit_assert_has(text, "Date: Tue, 14 Nov 2023 22:13:20 +0000\r\nMessage-ID: <");
        unit_assert_has(text, i == 2 ? "@example.com>\r\nFrom: Carl <carl@example.com>\r\nSubject: x\r\n\r\nbody\r\n"
                                     : "@example.org>\r\nFrom: Ann <ann@example.org>\r\nSubject: x\r\n\r\nbody\r\n");
        snprintf(names[i], sizeof(names[i]), "%.33s", strstr(text, "Message-ID: <") + 12);
    }
    assert_string_not_equal(names[0], names[1]);
    assert_string_equal(names[0], names[2]);
    /* An address that is none is told as in a job of its own. */
    ways.jobs[WAY_PREPARED].from.email = (char *)"nobody";
    unit_assert_has(unit_render_error(&ways.jobs[WAY_PREPARED], 0, -EINVAL), "From is not an address");
    ways_close(&ways);
}

/* A recipient costs the header; a content its message, and its body once more where DKIM reads another one. */
static void a_raw_body_is_shared(void **state) {
    static const char *const bodies[] = {"A line of a newsletter, as it is.\r\n", "A line that  is not relaxed. \r\n"};
    static char raw[BODY_BYTES + 1024];
    for (int i = 0; i < 2; i++) {
        struct unit_job u;
        struct ways ways;
        unit_job_init(&u);
        size_t used = (size_t)sprintf(raw, "From: Ann <ann@example.org>\r\nSubject: x\r\n\r\n");
        while (used < BODY_BYTES)
            used += (size_t)sprintf(raw + used, "%s", bodies[i]);
        u.job.raw = (uint8_t *)raw;
        u.job.raw_length = used;
        ways_open(&ways, &u);
        ways_render(&ways, 0, UNIT_MAX_BYTES);
        struct message *message = &ways.messages[WAY_PREPARED];
        assert_int_equal(ways.results[WAY_PREPARED], 0);
        if (RENDER_SHARES) {
            assert_int_equal(message->piece_count, 1);
            assert_int_equal(message->own_length, message->header_length);
        }
        assert_true(render_prepared_bytes(ways.prepared) > (size_t)(i + 1) * BODY_BYTES - 4096);
        assert_true(render_prepared_bytes(ways.prepared) < (size_t)(i + 1) * BODY_BYTES + 16384);
        assert_true(assert_ways_agree(&ways));
        ways_close(&ways);
    }
}

/* The limit is that of the message, whatever room was thought to be needed. */
static void a_message_as_large_as_allowed_is_sent(void **state) {
    enum { LARGE_BYTES = 900 << 10 };
    char *raw = malloc(LARGE_BYTES + 100);
    struct unit_job u;
    struct ways ways;
    assert_non_null(raw);
    unit_job_init(&u);
    size_t used = (size_t)sprintf(raw, "From: a@example.org\r\nDate: x\r\nMessage-ID: <a@b>\r\n\r\n");
    while (used < LARGE_BYTES)
        used += (size_t)sprintf(raw + used, "0123456789012345678901234567890123456789\r\n");
    u.job.raw = (uint8_t *)raw;
    u.job.raw_length = used;
    ways_open(&ways, &u);
    ways_render(&ways, 0, used);
    assert_true(assert_ways_agree(&ways));
    assert_int_equal(ways.messages[WAY_PREPARED].length, used);
    ways_render(&ways, 0, used - 1);
    assert_false(assert_ways_agree(&ways));
    assert_int_equal(ways.results[WAY_PREPARED], -E2BIG);
    ways_close(&ways);
    free(raw);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_raw_content_changes_no_byte),
        cmocka_unit_test(what_is_missing_is_the_recipient_s),
        cmocka_unit_test(a_raw_body_is_shared),
        cmocka_unit_test(a_message_as_large_as_allowed_is_sent),
    };
    return cmocka_run_group_tests_name("render/raw_content", tests, NULL, NULL);
}
