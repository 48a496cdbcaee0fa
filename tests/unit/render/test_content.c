/* Shared contents: a message of a prepared content is byte for byte what the same content gives unprepared, and, but for boundaries, the
 * same job with the content in it; its pieces are whole lines. */
#include "unit.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>

enum { ROUNDS = 20000, TEXT_BYTES = 6000, THREADS = 4, THREAD_ROUNDS = 300 };

#define WORDS         "many words and\tblanks  of one line, "
#define WORDS_8       WORDS WORDS WORDS WORDS WORDS WORDS WORDS WORDS
#define LONG_WORDS    WORDS_8 WORDS_8 WORDS_8 " "
#define LINE          "  a line of \xC3\xA9 its own  \n"
#define LINE_8        LINE LINE LINE LINE LINE LINE LINE LINE
#define LONG_LINES    "\n" LINE_8 LINE_8 LINE_8 LINE_8 "and"
#define LONG_CR       WORDS_8 WORDS_8 "\r"
#define CYRILLIC_WORD "\xD0\x9F\xD1\x80\xD0\xB8\xD0\xB2\xD0\xB5\xD1\x82\n"
#define CYRILLIC      CYRILLIC_WORD CYRILLIC_WORD CYRILLIC_WORD CYRILLIC_WORD CYRILLIC_WORD CYRILLIC_WORD CYRILLIC_WORD CYRILLIC_WORD

/* What texts are made of: everything that an encoding or a template treats in its own way. */
static const char *const fragments[] = {
    "Some words of prose. ",
    "\n",
    "\n",
    "\r\n",
    "\r",
    "{{name}}",
    "{{ shop }}",
    "{{{name}}}",
    "{{&name}}",
    "{{! note }}",
    "{{!\n two}}",
    "{{n}}",
    "\nFrom here ",
    "\n.dot",
    " \n",
    "\t\n",
    "\xC3\xA9t\xC3\xA9 ",
    "a=b ",
    "{ {",
    "<b>",
    "{{multi}}",
    "{{leading}}{{",
    "no tag}} }}",
    "x",
    "{{#list}}",
    "{{/list}}",
    "\n{{#name}}\n",
    "\n{{/name}}\n",
    "{{^multi}}",
    "{{/multi}}",
    "{{.}}",
    "{{=<% %>=}}<% n %><%={{ }}=%>",
    LONG_WORDS,
    LONG_WORDS,
    LONG_LINES,
    LONG_LINES,
    LONG_CR,
    CYRILLIC,
    "A line that is so long that quoted-printable has to break it somewhere in the middle, softly, and once more. ",
};

static const char *const values[] = {
    "{\"name\":\"Bob\",\"multi\":\"1\",\"n\":1,\"leading\":\"From \",\"list\":[1,\"two\\n\",\"\"]}",
    "{\"name\":\"\xC3\x89va <&>\",\"multi\":\"one\\ntwo\\r\\nthree \",\"n\":-2.5,\"leading\":\".\"}",
    "{\"name\":\"\",\"multi\":\"\",\"n\":null,\"leading\":\"\"}",
    "{\"name\":\"{{shop}}\",\"multi\":\"ends with CR\\r\",\"n\":true,\"leading\":\"\\n\"}",
    "{\"shop\":\"own\",\"name\":\"x\",\"multi\":\" \",\"n\":0,\"leading\":\"=\",\"list\":{\"name\":\"inner\"}}",
    NULL, /* its own variables are missing */
};

/* Sections are closed, most of the time. */
static void draw_text(char *out, uint64_t *seed) {
    size_t used = 0;
    bool open = unit_random(seed) % 8 == 0; /* some tags that never end */
    static const char *const opening[] = {"{{#list}}", "\n{{#name}}\n", "{{^multi}}"};
    static const char *const closing[] = {"{{/list}}", "\n{{/name}}\n", "{{/multi}}"};
    int stack[8], depth = 0;
    out[0] = '\0';
    for (uint32_t i = unit_random(seed) % 40; i > 0; i--) {
        const char *fragment = fragments[unit_random(seed) % (sizeof(fragments) / sizeof(*fragments))];
        if (strcmp(fragment, "{{leading}}{{") == 0 && !open)
            fragment = "{{leading}}";
        for (int kind = 0; kind < 3; kind++)
            if (strcmp(fragment, opening[kind]) == 0 && depth < 8)
                stack[depth++] = kind;
            else if (strcmp(fragment, closing[kind]) == 0 && !open)
                fragment = depth > 0 ? closing[stack[--depth]] : "";
        if (used + strlen(fragment) + 1 < TEXT_BYTES - 100) {
            strcpy(out + used, fragment);
            used += strlen(fragment);
        }
    }
    while (depth > 0 && !open)
        strcat(out, closing[stack[--depth]]);
}

/* 0: the content in the job itself; 1: of the content, unprepared; 2: prepared. */
struct pair {
    struct message messages[3];
    int results[3];
    char errors[3][256];
};

static void pair_free(struct pair *pair) {
    for (int i = 0; i < 3; i++)
        message_free(&pair->messages[i]);
}

static void render_all(const struct job *inlined, const struct job *shared, const struct identity *identity, struct pair *pair) {
    struct content unprepared = *shared->content;
    struct job bare = *shared;
    unprepared.prepared = NULL;
    bare.content = &unprepared;
    const struct job *jobs[] = {inlined, &bare, shared};
    for (int i = 0; i < 3; i++) {
        pair->errors[i][0] = '\0';
        pair->results[i] = render_message(jobs[i], 0, unit_date_s, identity, UNIT_MAX_BYTES, &pair->messages[i], pair->errors[i], 256);
    }
}

/* The relaxed form of a body (RFC 6376 3.4.4), but for empty lines at its end. */
static size_t relax(const uint8_t *in, size_t length, uint8_t *out) {
    size_t used = 0;
    for (size_t i = 0; i < length; i++) {
        bool blank = in[i] == ' ' || in[i] == '\t';
        if (blank && i + 1 < length && (in[i + 1] == ' ' || in[i + 1] == '\t' || in[i + 1] == '\r'))
            continue;
        out[used++] = blank ? ' ' : in[i];
    }
    return used;
}

static void assert_pieces(const struct message *message) {
    static uint8_t relaxed[UNIT_MAX_BYTES];
    size_t own = 0, all = 0;
    assert_int_equal(message->piece_count == 0, message->shared == NULL);
    for (uint32_t i = 0; i < message->piece_count; i++) {
        const struct message_piece *piece = &message->pieces[i];
        const uint8_t *bytes = piece->shared ? message->shared->bytes + piece->offset
                                             : message->bytes + message->start + message->header_length + piece->offset;
        assert_true(piece->length >= 2);
        assert_memory_equal(bytes + piece->length - 2, "\r\n", 2);
        all += piece->length;
        if (!piece->shared) {
            assert_int_equal(piece->offset, own);
            own += piece->length;
            continue;
        }
        assert_true(piece->offset + piece->length <= message->shared->length);
        assert_int_equal(relax(bytes, piece->length, relaxed), piece->relaxed_length);
        assert_memory_equal(message->shared->relaxed + piece->relaxed_offset, relaxed, piece->relaxed_length);
    }
    if (message->piece_count > 0) {
        assert_int_equal(message->own_length, message->header_length + own);
        assert_int_equal(message->length, message->header_length + all);
    } else {
        assert_int_equal(message->own_length, message->length);
    }
}

/* Boundaries of a job of its own are its own: they become the content's. */
static void replace_boundaries(struct message *message, const struct message *like) {
    uint8_t *bytes = message->bytes + message->start, *found;
    const uint8_t *mark = memmem(like->bytes + like->start, like->length, "boundary=\"=_", 12);
    const uint8_t *own = memmem(bytes, message->length, "boundary=\"=_", 12);
    if (mark == NULL || own == NULL)
        return;
    char name[36] = "=_";
    memcpy(name + 2, own + 12, 33);
    while ((found = memmem(bytes, message->length, name, 35)) != NULL)
        memcpy(found, mark + 10, 35);
}

static void assert_equal(const struct message *a, const struct message *b) {
    assert_int_equal(a->length, b->length);
    assert_memory_equal(a->bytes + a->start, b->bytes + b->start, a->length);
    assert_int_equal(a->header_length, b->header_length);
    assert_int_equal(a->needs_smtputf8, b->needs_smtputf8);
    assert_int_equal(a->has_leading_dots, b->has_leading_dots);
    assert_string_equal(a->from_domain, b->from_domain);
    assert_string_equal(a->sender, b->sender);
    assert_string_equal(a->recipient, b->recipient);
}

static void assert_same(struct pair *pair) {
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pair->results[i], pair->results[2]);
        assert_string_equal(pair->errors[i], pair->errors[2]);
    }
    if (pair->results[2] != 0)
        return;
    struct message *flat = &pair->messages[2];
    assert_pieces(flat);
    assert_int_equal(message_flatten(flat), 0);
    unit_assert_wire_form(flat);
    assert_equal(&pair->messages[1], flat);
    replace_boundaries(&pair->messages[0], flat);
    assert_equal(&pair->messages[0], flat);
}

/* A content, and a job that names it: the fields are lent as contents_complete lends them. */
struct shared_job {
    struct unit_job job;
    struct job fields;
    struct content content;
    struct render_prepared *prepared;
};

static void share(struct shared_job *shared, const struct unit_job *from) {
    shared->job = *from;
    shared->job.job.recipients = shared->job.recipients;
    shared->fields = from->job;
    struct identity *identity = unit_identity('k');
    shared->prepared = render_prepare(&shared->fields, "spring", identity);
    identity_free(identity);
    assert_non_null(shared->prepared);
    assert_true(render_prepared_bytes(shared->prepared) > 0);
    shared->content = (struct content){.references = 1, .fields = &shared->fields, .prepared = shared->prepared};
    shared->job.job.content = &shared->content;
    shared->job.job.content_id = (char *)"spring";
}

static void a_shared_content_changes_no_byte(void **state) {
    uint64_t seed = 1;
    static char text[TEXT_BYTES], html[TEXT_BYTES];
    static const uint8_t image[100] = {1, 2, 3};
    struct job_attachment attachments[] = {
        {.filename = (char *)"a.png",
         .content_type = (char *)"image/png",
         .content_id = (char *)"a",
         .bytes = (uint8_t *)image,
         .length = 100,
         .is_inline = true},
        {.filename = (char *)"b.bin", .content_type = (char *)"application/x", .bytes = (uint8_t *)image, .length = 57}};
    struct pair pair = {.results = {0}};
    struct identity *identity = unit_identity('k');
    uint32_t good = 0, sharing = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct unit_job u;
        struct shared_job shared;
        unit_job_init(&u);
        draw_text(text, &seed);
        draw_text(html, &seed);
        uint32_t parts = unit_random(&seed) % 3;
        u.job.text = parts == 1 ? NULL : text;
        u.job.html = parts == 0 ? NULL : html;
        u.job.subject = (char *)(unit_random(&seed) % 2 ? "For {{name}} \xE2\x82\xAC" : "For all");
        u.job.merge_global_data = (char *)"{\"shop\":\"Shop & Co\"}";
        u.recipients[0].merge_data = (char *)values[unit_random(&seed) % (sizeof(values) / sizeof(*values))];
        u.headers[0] = (struct job_header){(char *)"X-A", (char *)(unit_random(&seed) % 2 ? "{{name}}" : "fixed")};
        u.headers[1] = (struct job_header){(char *)".dot", (char *)"y"};
        u.job.header_count = unit_random(&seed) % 3;
        u.job.list_unsubscribe = (char *)(unit_random(&seed) % 2 ? "https://example.org/{{n}}" : NULL);
        struct job_header own = {(char *)"X-A", (char *)"own {{shop}}"};
        u.recipients[0].headers = &own;
        u.recipients[0].header_count = unit_random(&seed) % 4 == 0;
        u.job.attachment_count = unit_random(&seed) % 3;
        u.job.attachments = attachments;
        share(&shared, &u);
        /* Some jobs bring fields of their own. */
        if (unit_random(&seed) % 4 == 0)
            u.job.text = shared.job.job.text = (char *)"Mine, {{name}}\n";
        render_all(&u.job, &shared.job.job, identity, &pair);
        sharing += pair.messages[2].piece_count > 0;
        assert_same(&pair);
        good += pair.results[0] == 0;
        render_prepared_free(shared.prepared);
    }
    assert_true(good > ROUNDS / 4 && good < ROUNDS);
    assert_true(!RENDER_SHARES || sharing > ROUNDS / 10);
    pair_free(&pair);
    identity_free(identity);
}

/* A job's own members count, whatever was prepared. */
static void own_fields_stand(void **state) {
    struct unit_job u;
    struct shared_job shared;
    unit_job_init(&u);
    u.job.text = (char *)"The content's\n";
    share(&shared, &u);
    struct mailbox carl = {.email = (char *)"carl@example.com"};
    shared.job.job.subject = (char *)"Own subject";
    shared.job.job.text = (char *)"Own text\n";
    shared.job.job.from = carl;
    const char *message = unit_render(&shared.job.job, 0);
    unit_assert_has(message, "From: carl@example.com\r\n");
    unit_assert_has(message, "@example.com>\r\n");
    unit_assert_has(message, "Subject: Own subject\r\n");
    unit_assert_has(message, "Own text\r\n");
    unit_assert_lacks(message, "ann@");
    render_prepared_free(shared.prepared);
}

/* In a shared content a tag is one, even where no recipient of the chunk brings a variable: chunks are cut in pieces. */
static void a_content_is_always_a_template(void **state) {
    struct unit_job u;
    struct shared_job shared;
    unit_job_init(&u);
    u.job.text = (char *)"Hi {{name}}\n";
    share(&shared, &u);
    unit_assert_has(unit_render_error(&shared.job.job, 0, -EINVAL), "\"name\" is missing");
    render_prepared_free(shared.prepared);
}

/* More lines with variables than there are runs. */
static void many_lines_with_variables(void **state) {
    static char text[40 * 1024];
    struct unit_job u;
    struct shared_job shared;
    struct pair pair = {.results = {0}};
    struct identity *identity = unit_identity('k');
    unit_job_init(&u);
    for (int i = 0; i < 1000; i++)
        strcat(text, i % 2 == 0 ? "Line {{name}} of many\n" : "and one \xC3\xA9 without\n");
    u.job.text = text;
    u.job.merge_global_data = (char *)"{\"name\":\"x\"}";
    share(&shared, &u);
    render_all(&u.job, &shared.job.job, identity, &pair);
    assert_int_equal(pair.results[2], 0);
    assert_same(&pair);
    pair_free(&pair);
    identity_free(identity);
    render_prepared_free(shared.prepared);
}

/* The cache of contents is bounded by what they say of themselves. */
static void memory_is_told(void **state) {
    enum { TAGS = 20000 };
    static char text[TAGS * 6 + 1];
    struct unit_job u;
    struct identity *identity = unit_identity('k');
    unit_job_init(&u);
    for (int i = 0; i < TAGS; i++)
        memcpy(text + i * 6, "{{a}}\n", 6);
    u.job.text = text;
    u.job.merge_global_data =
        (char *)"{\"a\":[[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35]]}";
    size_t before = mallinfo2().uordblks;
    struct render_prepared *prepared = render_prepare(&u.job, "c", identity);
    size_t taken = mallinfo2().uordblks - before;
    assert_non_null(prepared);
    assert_true(render_prepared_bytes(prepared) >= taken - taken / 16);
    render_prepared_free(prepared);
    identity_free(identity);
}

/* Attachments and texts without variables are encoded once, and a recipient costs its header alone. */
static void what_is_shared_is_not_copied(void **state) {
    enum { ATTACHMENT_BYTES = 2 << 20, OWN_BYTES_MAX = 2048, MOST_BYTES = 8 << 20 };
    struct unit_job u;
    struct shared_job shared;
    struct message message;
    char error[256] = "";
    uint8_t *bytes = calloc(1, ATTACHMENT_BYTES);
    struct job_attachment attachment = {
        .filename = (char *)"a.bin", .content_type = (char *)"application/x", .bytes = bytes, .length = ATTACHMENT_BYTES};
    struct identity *identity = unit_identity('k');
    assert_non_null(bytes);
    unit_job_init(&u);
    u.job.text = (char *)CYRILLIC CYRILLIC CYRILLIC CYRILLIC; /* base64 is smaller */
    u.job.html = (char *)"<p>" LONG_WORDS "</p>" LONG_LINES;
    u.job.attachments = &attachment;
    u.job.attachment_count = 1;
    share(&shared, &u);
    message_init(&message);
    assert_int_equal(render_message(&shared.job.job, 0, unit_date_s, identity, MOST_BYTES, &message, error, sizeof(error)), 0);
    assert_true(message.length > ATTACHMENT_BYTES / 3 * 4);
    if (RENDER_SHARES) {
        assert_true(message.own_length < OWN_BYTES_MAX);
        assert_true(message.piece_count > 0 && message.piece_count < 8);
    }
    assert_int_equal(message_flatten(&message), 0);
    assert_non_null(
        memmem(message.bytes + message.start, message.length, "text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64", 59));
    assert_int_equal(render_message(&shared.job.job, 0, unit_date_s, identity, ATTACHMENT_BYTES, &message, error, sizeof(error)), -E2BIG);
    /* A text of the job's own leaves the attachment shared. */
    shared.job.job.text = (char *)"Mine\n";
    assert_int_equal(render_message(&shared.job.job, 0, unit_date_s, identity, MOST_BYTES, &message, error, sizeof(error)), 0);
    assert_true(!RENDER_SHARES || message.own_length < ATTACHMENT_BYTES / 64);
    message_free(&message);
    identity_free(identity);
    render_prepared_free(shared.prepared);
    free(bytes);
}

struct race {
    const struct job *job;
    const struct identity *identity;
    uint64_t sum;
};

static void *race_run(void *argument) {
    struct race *race = argument;
    struct message message;
    char error[256];
    message_init(&message);
    for (int i = 0; i < THREAD_ROUNDS; i++) {
        if (render_message(race->job, (uint32_t)i % 2, unit_date_s, race->identity, UNIT_MAX_BYTES, &message, error, sizeof(error)) != 0)
            return NULL;
        for (size_t at = 0; at < message.length; at++)
            race->sum = race->sum * 31 + message.bytes[message.start + at];
    }
    message_free(&message);
    return NULL;
}

/* The pool of threads renders one content at the same time. */
static void threads_share_a_content(void **state) {
    struct unit_job u;
    struct shared_job shared;
    struct race races[THREADS];
    pthread_t threads[THREADS];
    struct identity *identity = unit_identity('k');
    unit_job_init(&u);
    u.job.html = (char *)"<p>{{name}} \xC3\xA9 {{shop}}</p>\n<p>more</p>\n";
    u.job.merge_global_data = (char *)"{\"shop\":\"s\"}";
    u.recipients[0].merge_data = (char *)"{\"name\":\"Bob\"}";
    u.recipients[1] = (struct job_recipient){
        .mailbox = {.email = (char *)"eve@example.net"}, .kind = RECIPIENT_PRIVATE, .merge_data = (char *)"{\"name\":\"Eve\"}"};
    u.job.recipient_total = 2;
    share(&shared, &u);
    for (int i = 0; i < THREADS; i++) {
        races[i] = (struct race){.job = &shared.job.job, .identity = identity};
        assert_int_equal(pthread_create(&threads[i], NULL, race_run, &races[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS; i++) {
        assert_true(races[i].sum != 0);
        assert_true(races[i].sum == races[0].sum);
    }
    identity_free(identity);
    render_prepared_free(shared.prepared);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_shared_content_changes_no_byte),
        cmocka_unit_test(own_fields_stand),
        cmocka_unit_test(a_content_is_always_a_template),
        cmocka_unit_test(many_lines_with_variables),
        cmocka_unit_test(memory_is_told),
        cmocka_unit_test(what_is_shared_is_not_copied),
        cmocka_unit_test(threads_share_a_content),
    };
    return cmocka_run_group_tests_name("content", tests, NULL, NULL);
}
