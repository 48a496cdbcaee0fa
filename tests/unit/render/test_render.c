/* Whole messages: RFC 5322 3.6, RFC 2045, 2046, 2387, 8058; SMTP.md section 5; DESIGN.md section 6 (identity is stable). */
#include "unit.h"

#include <errno.h>
#include <time.h>

static void a_text_message_is_short_and_complete(void **state) {
    struct unit_job u;
    unit_job_init(&u);
    const char *text = unit_render(&u.job, 0);
    const char *id = strstr(text, "Message-ID: <");
    assert_non_null(id);
    assert_int_equal(strcspn(id + 13, "@"), 32);
    char expected[1024];
    snprintf(
        expected, sizeof(expected),
        "Date: Tue, 14 Nov 2023 22:13:20 +0000\r\nMessage-ID: <%.32s@example.org>\r\nFrom: Ann <ann@example.org>\r\nTo: bob@example.net\r\n"
        "Subject: Hello\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\nHi "
        "Bob\r\n",
        id + 13);
    assert_string_equal(text, expected);
}

static void a_repeat_is_the_same_message_byte_for_byte(void **state) {
    struct unit_job u;
    unit_job_init(&u);
    u.job.html = (char *)"<p>Hi</p>";
    char *first = strdup(unit_render(&u.job, 0));
    u.job.history.attempt = 7; /* a retry: another entry, the same origin */
    u.job.entry = (struct entry_id){99, 1};
    strcpy(u.job.stream, "retry:normal");
    assert_string_equal(unit_render(&u.job, 0), first);
    free(first);
}

static char *message_id(const struct job *job, uint32_t index) {
    const char *id = strstr(unit_render(job, index), "Message-ID: <");
    return strndup(id + 13, 32);
}

static void assert_ids(const struct job *job, uint32_t index, const char *other, bool same) {
    char *id = message_id(job, index);
    if (same)
        assert_string_equal(id, other);
    else
        assert_string_not_equal(id, other);
    free(id);
}

static void the_message_id_names_the_job_and_the_private_recipient(void **state) {
    struct unit_job u;
    unit_job_init(&u);
    u.recipients[1] = u.recipients[0];
    u.job.recipient_total = 2;
    char *id = message_id(&u.job, 0);
    assert_ids(&u.job, 0, id, true);
    assert_ids(&u.job, 1, id, false);
    u.job.history.origin.seq++;
    assert_ids(&u.job, 0, id, false);
    u.job.history.origin.seq--;
    u.job.shard = 1;
    assert_ids(&u.job, 0, id, false);
    u.job.shard = 0;
    strcpy(u.job.queue, "bulk");
    assert_ids(&u.job, 0, id, false);
    free(id);
    /* The producer's id counts alone, under its tenant: the same from whatever entry. */
    u.job.id = (char *)"order-1";
    id = message_id(&u.job, 0);
    u.job.history.origin.seq++;
    strcpy(u.job.queue, "normal");
    assert_ids(&u.job, 0, id, true);
    u.job.tenant = (char *)"t1";
    assert_ids(&u.job, 0, id, false);
    free(id);
    /* to, cc and bcc share one message. */
    u.recipients[0].kind = RECIPIENT_TO;
    u.recipients[1].kind = RECIPIENT_BCC;
    id = message_id(&u.job, 0);
    assert_ids(&u.job, 1, id, true);
    free(id);
}

static void the_message_id_is_keyed(void **state) {
    struct unit_job u;
    unit_job_init(&u);
    char *id = message_id(&u.job, 0), error[256];
    struct identity *other = unit_identity('z');
    struct message message;
    message_init(&message);
    assert_int_equal(render_message(&u.job, 0, unit_date_s, other, UNIT_MAX_BYTES, &message, error, sizeof(error)), 0);
    unit_assert_lacks(unit_text(&message), id);
    message_free(&message);
    identity_free(other);
    free(id);
}

static void an_identity_needs_32_bytes(void **state) {
    assert_null(identity_load("/nonexistent/key"));
    assert_int_equal(errno, ENOENT);
    assert_null(identity_load("/dev/null"));
    assert_int_equal(errno, EINVAL);
}

static void visible_recipients_are_seen_and_bcc_is_not(void **state) {
    struct unit_job u;
    unit_job_init(&u);
    u.to[0] = (struct mailbox){.email = (char *)"bob@example.net", .name = (char *)"Bob"};
    u.to[1] = (struct mailbox){.email = (char *)"carl@example.net"};
    u.cc[0] = (struct mailbox){.email = (char *)"dora@example.net"};
    u.job.to_count = 2;
    u.job.cc_count = 1;
    u.recipients[0].kind = RECIPIENT_TO;
    u.recipients[1] = (struct job_recipient){.mailbox = {.email = (char *)"hidden@example.net"}, .kind = RECIPIENT_BCC};
    u.job.recipient_total = 2;
    for (uint32_t i = 0; i < 2; i++) {
        const char *text = unit_render(&u.job, i);
        unit_assert_has(text, "\r\nTo: Bob <bob@example.net>, carl@example.net\r\nCc: dora@example.net\r\n");
        unit_assert_lacks(text, "hidden");
        unit_assert_lacks(text, "Bcc");
    }
    u.job.to_count = u.job.cc_count = 0;
    unit_assert_has(unit_render(&u.job, 1), "\r\nTo: undisclosed-recipients:;\r\n");
    unit_assert_lacks(unit_render(&u.job, 1), "hidden");
}

/* SMTP.md section 3: what recipients share a transaction for is one message, whoever of them it is rendered for and however often. */
static void shared_messages_are_the_same_byte_for_byte(void **state) {
    struct unit_job u;
    unit_job_init(&u);
    char envelope[255];
    u.to[0] = (struct mailbox){.email = (char *)"bob@example.net"};
    u.job.to_count = 1;
    u.job.html = (char *)"<p>Hi {{name}}</p>";
    u.job.merge_global_data = (char *)"{\"name\": \"all\"}";
    u.job.recipient_total = 4;
    static const enum recipient_kind kinds[] = {RECIPIENT_TO, RECIPIENT_CC, RECIPIENT_BCC, RECIPIENT_BCC};
    static const char *const addresses[] = {"bob@example.net", "dora@b\303\274cher.example", "eve@example.net", "j\303\266rg@example.net"};
    for (uint32_t i = 0; i < 4; i++)
        u.recipients[i] = (struct job_recipient){.mailbox = {.email = (char *)(uintptr_t)addresses[i]}, .kind = kinds[i]};
    char *first = strdup(unit_render(&u.job, 0));
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(render_is_shared(&u.job, 0, i) && render_is_shared(&u.job, i, 0));
        assert_string_equal(unit_render(&u.job, i), first);
    }
    assert_int_equal(render_recipient(&u.job, 1, envelope), 0);
    assert_string_equal(envelope, "dora@xn--bcher-kva.example");
    /* One that needs SMTPUTF8 would ask it of a server for the others too: RFC 6531 3.6. */
    assert_false(render_is_shared(&u.job, 0, 3));
    assert_true(render_is_shared(&u.job, 3, 3));
    /* A retry of two of them, from another entry. */
    u.job.history.attempt = 1;
    u.job.entry = (struct entry_id){99, 1};
    assert_string_equal(unit_render(&u.job, 2), first);
    free(first);
}

static void a_message_of_ones_own_is_not_shared(void **state) {
    struct unit_job u;
    unit_job_init(&u);
    struct job_header header = {(char *)"X-Row", (char *)"7"};
    char envelope[255];
    u.job.recipient_total = 2;
    u.recipients[1] = u.recipients[0];
    assert_false(render_is_shared(&u.job, 0, 1)); /* recipients[]: a To field each */
    assert_false(render_is_shared(&u.job, 0, 0));
    u.recipients[0].kind = RECIPIENT_TO;
    assert_false(render_is_shared(&u.job, 0, 1));
    u.recipients[1].kind = RECIPIENT_BCC;
    assert_true(render_is_shared(&u.job, 0, 1));
    u.recipients[1].merge_data = (char *)"{}";
    assert_false(render_is_shared(&u.job, 0, 1));
    u.recipients[1].merge_data = NULL;
    u.recipients[1].headers = &header;
    u.recipients[1].header_count = 1;
    assert_false(render_is_shared(&u.job, 0, 1));
    u.recipients[1].header_count = 0;
    u.recipients[1].mailbox.email = (char *)"no address";
    assert_false(render_is_shared(&u.job, 0, 1)); /* its error, and nobody else's */
    assert_int_equal(render_recipient(&u.job, 1, envelope), -EINVAL);
    assert_false(render_is_shared(&u.job, 0, 2));
    assert_int_equal(render_recipient(&u.job, 2, envelope), -EINVAL);
}

static void a_private_recipient_sees_itself_alone(void **state) {
    struct unit_job u;
    unit_job_init(&u);
    u.recipients[1] =
        (struct job_recipient){.mailbox = {.email = (char *)"eve@example.net", .name = (char *)"Eve"}, .kind = RECIPIENT_PRIVATE};
    u.job.recipient_total = 2;
    unit_assert_has(unit_render(&u.job, 1), "\r\nTo: Eve <eve@example.net>\r\n");
    unit_assert_lacks(unit_render(&u.job, 1), "bob@");
}

static void sender_reply_to_and_headers_stand_in_order(void **state) {
    struct unit_job u;
    unit_job_init(&u);
    u.job.sender_header = (struct mailbox){.email = (char *)"desk@example.org"};
    u.reply_to[0] = (struct mailbox){.email = (char *)"answers@example.org"};
    u.job.reply_to_count = 1;
    u.headers[0] = (struct job_header){(char *)"X-Campaign", (char *)"spring"};
    u.headers[1] = (struct job_header){(char *)"Feedback-ID", (char *)"a:b:c:d"};
    u.job.header_count = 2;
    struct job_header own = {(char *)"x-campaign", (char *)"autumn"};
    u.recipients[1] = u.recipients[0];
    u.recipients[1].headers = &own;
    u.recipients[1].header_count = 1;
    u.job.recipient_total = 2;
    const char *text = unit_render(&u.job, 0);
    unit_assert_has(text,
                    "From: Ann <ann@example.org>\r\nSender: desk@example.org\r\nReply-To: answers@example.org\r\nTo: bob@example.net\r\n"
                    "Subject: Hello\r\nX-Campaign: spring\r\nFeedback-ID: a:b:c:d\r\nMIME-Version: 1.0\r\n");
    /* A recipient's own header replaces the job's. */
    unit_assert_has(unit_render(&u.job, 1), "Subject: Hello\r\nFeedback-ID: a:b:c:d\r\nx-campaign: autumn\r\nMIME-Version: 1.0\r\n");
    unit_assert_lacks(unit_render(&u.job, 1), "spring");
}

static void injection_is_impossible(void **state) {
    struct unit_job u;
    const char *evil[] = {"x\r\nBcc: eve@example.com", "x\nBcc: eve@example.com", "x\rBcc: eve@example.com", "x\r\n\r\nBcc: body"};
    for (size_t i = 0; i < 4; i++) {
        /* A header is refused; free text is put on one line. */
        unit_job_init(&u);
        u.headers[0] = (struct job_header){(char *)"X-Test", (char *)evil[i]};
        u.job.header_count = 1;
        unit_assert_has(unit_render_error(&u.job, 0, -EINVAL), "line break");
        unit_job_init(&u);
        u.headers[0] = (struct job_header){(char *)evil[i], (char *)"x"};
        u.job.header_count = 1;
        unit_assert_has(unit_render_error(&u.job, 0, -EINVAL), "cannot be set");
        unit_job_init(&u);
        u.job.subject = (char *)evil[i];
        u.job.from.name = (char *)evil[i];
        u.recipients[0].mailbox.name = (char *)evil[i];
        u.job.text = (char *)"x\n";
        const char *text = unit_render(&u.job, 0);
        unit_assert_lacks(text, "\nBcc");
        assert_ptr_equal(strstr(text, "\r\n\r\n"), text + strlen(text) - 7);
        unit_job_init(&u);
        u.job.list_unsubscribe = (char *)"https://example.org/u\r\nBcc: eve@example.com";
        unit_assert_has(unit_render_error(&u.job, 0, -EINVAL), "list_unsubscribe");
        unit_job_init(&u);
        u.recipients[0].mailbox.email = (char *)"bob@example.net\r\nBcc: eve@example.com";
        unit_render_error(&u.job, 0, -EINVAL);
        unit_job_init(&u);
        u.job.envelope_sender = (char *)"ann@example.org> SIZE=1\r\nRCPT TO:<eve@example.com";
        unit_render_error(&u.job, 0, -EINVAL);
        unit_job_init(&u);
        struct job_attachment attachment = {.filename = (char *)evil[i],
                                            .content_type = (char *)evil[i],
                                            .content_id = (char *)evil[i],
                                            .bytes = (uint8_t *)"x",
                                            .length = 1};
        u.job.attachments = &attachment;
        u.job.attachment_count = 1;
        unit_assert_lacks(unit_render(&u.job, 0), "\nBcc");
    }
    static const char *const owned[] = {"From",         "from",         "TO",          "Bcc",      "Date", "Message-Id", "DKIM-Signature",
                                        "Content-Type", "MIME-Version", "Return-Path", "Received", "",     "X Y",        "X:"};
    for (size_t i = 0; i < sizeof(owned) / sizeof(owned[0]); i++) {
        unit_job_init(&u);
        u.headers[0] = (struct job_header){(char *)owned[i], (char *)"x"};
        u.job.header_count = 1;
        unit_assert_has(unit_render_error(&u.job, 0, -EINVAL), "cannot be set");
    }
}

static void scripts_of_the_world_travel_in_7_bits(void **state) {
    const char *texts[] = {"Fu\xC3\x9F aus K\xC3\xB6ln",
                           "\xD0\x9F\xD1\x80\xD0\xB8\xD0\xB2\xD0\xB5\xD1\x82, \xD0\x91\xD0\xBE\xD1\x80\xD0\xB8\xD1\x81",
                           "\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E\xE3\x81\xAE\xE4\xBB\xB6\xE5\x90\x8D",
                           "\xD7\xA9\xD7\x9C\xD7\x95\xD7\x9D",
                           "\xD9\x85\xD8\xB1\xD8\xAD\xD8\xA8\xD8\xA7",
                           "\xE0\xA4\xA8\xE0\xA4\xAE\xE0\xA4\xB8\xE0\xA5\x8D\xE0\xA4\xA4\xE0\xA5\x87",
                           "\xF0\x9F\x8E\x89\xF0\x9F\x8E\x89 party"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct unit_job u;
        unit_job_init(&u);
        u.job.subject = u.job.text = u.job.html = u.job.from.name = u.recipients[0].mailbox.name = (char *)texts[i];
        const char *text = unit_render(&u.job, 0);
        for (const char *at = text; *at != '\0'; at++)
            assert_true((unsigned char)*at < 0x80);
        unit_assert_has(text, "=?utf-8?");
        unit_assert_has(text, "quoted-printable");
    }
}

static void parts_are_nested_plain_first(void **state) {
    struct unit_job u;
    unit_job_init(&u);
    struct job_attachment attachments[3] = {
        {.filename = (char *)"r\xC3\xA9sum\xC3\xA9.pdf",
         .content_type = (char *)"application/pdf",
         .bytes = (uint8_t *)"%PDF",
         .length = 4},
        {.filename = (char *)"logo.png",
         .content_type = (char *)"image/png",
         .content_id = (char *)"<logo@x>",
         .is_inline = true,
         .bytes = (uint8_t *)"PNG",
         .length = 3},
        {.filename = (char *)"C:\\dir\\note.eml", .content_type = (char *)"message/rfc822", .bytes = (uint8_t *)"", .length = 0},
    };
    u.job.html = (char *)"<img src=\"cid:logo@x\">";
    u.job.attachments = attachments;
    u.job.attachment_count = 3;
    const char *text = unit_render(&u.job, 0);
    static const char *const order[] = {
        "MIME-Version: 1.0\r\nContent-Type: multipart/mixed;\r\n boundary=\"=_", "Content-Type: multipart/alternative;\r\n boundary=\"=_",
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\nHi Bob\r\n\r\n--=_",
        "Content-Type: multipart/related; type=\"text/html\";\r\n boundary=\"=_",
        "Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n<img",
        "Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: inline;\r\n "
        "filename=\"logo.png\"\r\nContent-ID: <logo@x>\r\n\r\nUE5H\r\n--=_",
        "_r--\r\n--=_", "_a--\r\n--=_",
        "Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: "
        "attachment;\r\n filename*=utf-8''r%C3%A9sum%C3%A9.pdf\r\n\r\nJVBERg==\r\n--=_",
        /* RFC 2046 5.2.1: a message may not be base64; a path is no file name. */
        "Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: "
        "base64\r\nContent-Disposition: attachment;\r\n filename=\"note.eml\"\r\n\r\n--=_",
        "_m--\r\n"};
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        text = strstr(text, order[i]);
        if (text == NULL)
            fail_msg("part %zu is missing or out of order: %s", i, order[i]);
        text += strlen(order[i]);
    }
    assert_string_equal(text, "");
}

static void content_types_keep_their_parameters(void **state) {
    static const struct {
        const char *asked, *sent;
    } cases[] = {{"text/calendar; method=REQUEST; charset=utf-8", "text/calendar; method=REQUEST; charset=utf-8"},
                 {"application/pdf", "application/pdf"},
                 {"nonsense", "application/octet-stream"},
                 {"/x", "application/octet-stream"},
                 {"x/", "application/octet-stream"},
                 {"a b/c", "application/octet-stream"},
                 {"text/x; a=b\r\nBcc: x", "application/octet-stream"},
                 /* RFC 2045 5.1: white space around semicolons is none of the values. */
                 {"text/x ;a=b\t; c=\"d;\\\"e\"", "text/x; a=b; c=\"d;\\\"e\""},
                 {"text/x; a=\"b", "application/octet-stream"},
                 {"text/x; a=b c", "application/octet-stream"},
                 {"text/x;", "text/x"},
                 {"text/x; a=b; ", "text/x; a=b"},
                 {"text/x; a=b;;", "application/octet-stream"},
                 /* RFC 2231 4: not ASCII; 3: too long for a line. RFC 2047 5: what looks like an encoded-word is decoded in quotes too. */
                 {"text/x; t=\"Gr\xC3\xB6\xC3\x9F"
                  "e\"; v=1",
                  "text/x;\r\n t*=utf-8''Gr%C3%B6%C3%9F"
                  "e; v=1"},
                 {"text/x; t=\"=?utf-8?Q?a?=\"", "text/x;\r\n t*=utf-8''%3D%3Futf-8%3FQ%3Fa%3F%3D"},
                 {"text/x; a=\"123456789012345678901234567890123456789012345678901\\\"\"; b=2",
                  "text/x;\r\n a=\"123456789012345678901234567890123456789012345678901\\\"\"; b=2"},
                 {"text/x; a=1234567890123456789012345678901234567890123456789012345678901; b=2",
                  "text/x;\r\n a*0*=utf-8''123456789012345678901234567890123456789012345678;\r\n a*1*=9012345678901; b=2"},
                 {"application/vnd.openxmlformats-officedocument.presentationml.presentation; a=1",
                  "\r\n application/vnd.openxmlformats-officedocument.presentationml.presentation;\r\n a=\"1\""},
                 {"Multipart/mixed", "application/octet-stream"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct unit_job u;
        char expected[256];
        unit_job_init(&u);
        struct job_attachment attachment = {.content_type = (char *)cases[i].asked, .bytes = (uint8_t *)"x", .length = 1};
        u.job.attachments = &attachment;
        u.job.attachment_count = 1;
        snprintf(expected, sizeof(expected), "\r\nContent-Type:%s%s\r\nContent-Transfer-Encoding: base64\r\n",
                 cases[i].sent[0] == '\r' ? "" : " ", cases[i].sent);
        unit_assert_has(unit_render(&u.job, 0), expected);
    }
}

static void no_part_is_there_without_need(void **state) {
    struct unit_job u;
    unit_job_init(&u);
    u.job.html = (char *)"<p>x";
    unit_assert_lacks(unit_render(&u.job, 0), "mixed");
    unit_assert_lacks(unit_render(&u.job, 0), "related");
    u.job.text = NULL;
    unit_assert_lacks(unit_render(&u.job, 0), "multipart");
    u.job.html = NULL;
    const char *text = unit_render(&u.job, 0);
    unit_assert_has(text, "\r\n\r\n");
    assert_string_equal(strstr(text, "\r\n\r\n"), "\r\n\r\n"); /* an empty body */
    struct job_attachment attachment = {.bytes = (uint8_t *)"x", .length = 1, .is_inline = true, .content_id = (char *)"a@b"};
    u.job.attachments = &attachment;
    u.job.attachment_count = 1;
    unit_assert_has(unit_render(&u.job, 0), "multipart/mixed"); /* no HTML to belong to */
    unit_assert_lacks(unit_render(&u.job, 0), "text/plain");
}

static void one_click_unsubscription_goes_with_https(void **state) {
    struct unit_job u;
    unit_job_init(&u);
    u.job.list_unsubscribe = (char *)"https://example.org/u?id=1,2";
    unit_assert_has(unit_render(&u.job, 0),
                    "\r\nList-Unsubscribe: <https://example.org/u?id=1,2>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n");
    u.job.list_unsubscribe = (char *)"mailto:u@example.org?subject=x";
    unit_assert_has(unit_render(&u.job, 0), "\r\nList-Unsubscribe: <mailto:u@example.org?subject=x>\r\nMIME");
    u.job.list_unsubscribe = (char *)"<mailto:u@example.org>, <https://example.org/u>";
    unit_assert_has(unit_render(&u.job, 0), "\r\nList-Unsubscribe: <mailto:u@example.org>,\r\n "
                                            "<https://example.org/u>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n");
    static const char *const bad[] = {
        "", "example.org", "javascript:x", "https://exa mple.org", "<https://example.org", "https://x>", "<>", "https://\xC3\xBC.example/"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        u.job.list_unsubscribe = (char *)bad[i];
        unit_render_error(&u.job, 0, -EINVAL);
    }
}

static void the_envelope_is_in_a_labels(void **state) {
    struct unit_job u;
    struct message message;
    char error[256];
    struct identity *identity = unit_identity('k');
    message_init(&message);
    unit_job_init(&u);
    u.job.from.email = (char *)"ann@M\xC3\xBCller.example";
    u.recipients[0].mailbox.email = (char *)"bob@b\xC3\xBC"
                                            "cher.example";
    assert_int_equal(render_message(&u.job, 0, unit_date_s, identity, UNIT_MAX_BYTES, &message, error, sizeof(error)), 0);
    assert_string_equal(message.sender, "ann@xn--mller-kva.example");
    assert_string_equal(message.recipient, "bob@xn--bcher-kva.example");
    assert_string_equal(message.from_domain, "xn--mller-kva.example");
    assert_false(message.needs_smtputf8); /* a domain never needs it */
    u.job.envelope_sender = (char *)"bounces@Example.ORG";
    assert_int_equal(render_message(&u.job, 0, unit_date_s, identity, UNIT_MAX_BYTES, &message, error, sizeof(error)), 0);
    assert_string_equal(message.sender, "bounces@example.org");
    u.job.envelope_sender = (char *)"";
    assert_int_equal(render_message(&u.job, 0, unit_date_s, identity, UNIT_MAX_BYTES, &message, error, sizeof(error)), 0);
    assert_string_equal(message.sender, "");
    u.recipients[0].mailbox.email = (char *)"b\xC3\xB6"
                                            "b@example.net";
    assert_int_equal(render_message(&u.job, 0, unit_date_s, identity, UNIT_MAX_BYTES, &message, error, sizeof(error)), 0);
    assert_true(message.needs_smtputf8); /* RFC 6531 */
    assert_false(message.body_8bit);
    message_free(&message);
    identity_free(identity);
}

static void sizes_are_bounded(void **state) {
    struct unit_job u;
    struct message message;
    char error[256];
    struct identity *identity = unit_identity('k');
    message_init(&message);
    unit_job_init(&u);
    char *big = malloc(100001);
    memset(big, 'x', 100000);
    big[100000] = '\0';
    u.job.text = big;
    assert_int_equal(render_message(&u.job, 0, unit_date_s, identity, 100000, &message, error, sizeof(error)), -E2BIG);
    assert_int_equal(render_message(&u.job, 0, unit_date_s, identity, 1, &message, error, sizeof(error)), -E2BIG);
    assert_int_equal(render_message(&u.job, 0, unit_date_s, identity, 200000, &message, error, sizeof(error)), 0);
    size_t exact = message.length;
    assert_int_equal(render_message(&u.job, 0, unit_date_s, identity, exact - 1, &message, error, sizeof(error)), -E2BIG);
    assert_int_equal(render_message(&u.job, 0, unit_date_s, identity, exact, &message, error, sizeof(error)), 0);
    assert_int_equal(render_message(&u.job, 1, unit_date_s, identity, exact, &message, error, sizeof(error)),
                     -EINVAL); /* no such recipient */
    message_free(&message);
    identity_free(identity);
    free(big);
}

static void a_buffer_is_used_again(void **state) {
    struct unit_job u;
    struct message message;
    char error[256];
    struct identity *identity = unit_identity('k');
    message_init(&message);
    unit_job_init(&u);
    assert_int_equal(render_message(&u.job, 0, unit_date_s, identity, UNIT_MAX_BYTES, &message, error, sizeof(error)), 0);
    uint8_t *bytes = message.bytes;
    for (int i = 0; i < 100; i++)
        assert_int_equal(render_message(&u.job, 0, unit_date_s, identity, UNIT_MAX_BYTES, &message, error, sizeof(error)), 0);
    assert_ptr_equal(message.bytes, bytes);
    message_free(&message);
    identity_free(identity);
}

static void report_speed(const char *what, const struct job *job) {
    struct message message;
    struct timespec from, to;
    char error[256];
    enum { ROUNDS = 200 };
    struct identity *identity = unit_identity('k');
    double best_us = 1e9;
    for (int k = 0; k < 20; k++) {
        clock_gettime(CLOCK_MONOTONIC, &from);
        for (int i = 0; i < ROUNDS; i++) {
            message_init(&message);
            assert_int_equal(render_message(job, 0, unit_date_s, identity, UNIT_MAX_BYTES, &message, error, sizeof(error)), 0);
            message_free(&message);
        }
        clock_gettime(CLOCK_MONOTONIC, &to);
        double us = ((double)(to.tv_sec - from.tv_sec) * 1e6 + (double)(to.tv_nsec - from.tv_nsec) / 1e3) / ROUNDS;
        best_us = us < best_us ? us : best_us;
    }
    identity_free(identity);
    print_message("%s: %.1f us\n", what, best_us);
    assert_true(best_us < 2000); /* a message must never cost what a signature does, with sanitizers and on a loaded machine */
}

static void a_message_takes_microseconds(void **state) {
    struct unit_job u;
    unit_job_init(&u);
    char text[4096] = "";
    for (int i = 0; i < 57; i++)
        strcat(text, i % 2 == 0 ? "Some words of prose that fill a line as mail of this kind has it\n"
                                : "and here are more of them, so that we get 4 KB in the end.\n");
    u.job.text = text;
    report_speed("4 KB of plain text, 7bit", &u.job);
    memcpy(text + 100, "\xC3\xA9", 2);
    report_speed("4 KB of text, quoted-printable", &u.job);
    u.job.html = text;
    report_speed("4 KB of text and 4 KB of HTML", &u.job);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_message_is_short_and_complete),
        cmocka_unit_test(a_repeat_is_the_same_message_byte_for_byte),
        cmocka_unit_test(the_message_id_names_the_job_and_the_private_recipient),
        cmocka_unit_test(the_message_id_is_keyed),
        cmocka_unit_test(an_identity_needs_32_bytes),
        cmocka_unit_test(visible_recipients_are_seen_and_bcc_is_not),
        cmocka_unit_test(shared_messages_are_the_same_byte_for_byte),
        cmocka_unit_test(a_message_of_ones_own_is_not_shared),
        cmocka_unit_test(a_private_recipient_sees_itself_alone),
        cmocka_unit_test(sender_reply_to_and_headers_stand_in_order),
        cmocka_unit_test(injection_is_impossible),
        cmocka_unit_test(scripts_of_the_world_travel_in_7_bits),
        cmocka_unit_test(parts_are_nested_plain_first),
        cmocka_unit_test(content_types_keep_their_parameters),
        cmocka_unit_test(no_part_is_there_without_need),
        cmocka_unit_test(one_click_unsubscription_goes_with_https),
        cmocka_unit_test(the_envelope_is_in_a_labels),
        cmocka_unit_test(sizes_are_bounded),
        cmocka_unit_test(a_buffer_is_used_again),
        cmocka_unit_test(a_message_takes_microseconds),
    };
    return cmocka_run_group_tests_name("render", tests, NULL, NULL);
}
