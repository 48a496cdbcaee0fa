/* template_fuzz.c: libFuzzer on templates and merge data: a job of a shared content, whose texts and values are anything, is rendered from
 * what was prepared and from its texts alone. Both say the same, have the form of the wire, no field but those that were asked for, no part
 * but those, and stay within the limit; the pieces are what they say they are. Input: a byte of switches, then texts with NUL between:
 * subject, text, html, a header's value, list_unsubscribe, merge data of all, merge data of the recipient. */
#include "control/render/render.h"
#include "tests/unit/identity.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_MAX = 1 << 14, MESSAGE_MAX = 1 << 18, LINE_MAX_BYTES = 998, TEXTS = 7, FIELDS_MAX = 64 };

/* Not inlined: the stack of a failure names the line. */
__attribute__((noinline)) static void must(bool condition) {
    if (!condition)
        abort();
}

static void wire_form(const struct message *message) {
    const uint8_t *bytes = message->bytes + message->start;
    size_t line = 0;
    must(message->length <= MESSAGE_MAX && !message->body_8bit && !message->needs_smtputf8 && !message->has_leading_dots);
    for (size_t i = 0; i < message->length; i++) {
        must(bytes[i] != 0 && bytes[i] < 0x80 && (bytes[i] != '\r' || (i + 1 < message->length && bytes[i + 1] == '\n')));
        must(bytes[i] != '.' || i != line);
        if (bytes[i] == '\n') {
            must(i > 0 && bytes[i - 1] == '\r' && i - 1 - line <= LINE_MAX_BYTES);
            must(message->length - i < 6 || memcmp(bytes + i + 1, "From ", 5) != 0 || i < message->header_length);
            line = i + 1;
        }
    }
    must(line == message->length && memmem(bytes, message->length, "\r\n\r\n", 4) == bytes + message->header_length - 4);
}

/* The fields' names, in order, each with a colon behind it. */
static void field_names(const struct message *message, char *out, size_t out_bytes) {
    const char *at = (const char *)message->bytes + message->start, *end = at + message->header_length - 2;
    size_t used = 0;
    out[0] = '\0';
    while (at < end) {
        if (*at != ' ' && *at != '\t') {
            size_t name = strcspn(at, ": \t\r\n");
            must(name > 0 && at[name] == ':' && used + name + 2 < out_bytes);
            memcpy(out + used, at, name + 1);
            used += name + 1;
            out[used] = '\0';
        }
        at = (const char *)memchr(at, '\n', (size_t)(end - at)) + 1;
    }
}

/* Lines that begin with the message's boundary: "--=_" and the rest. As many as its structure has. */
static size_t delimiters(const struct message *message) {
    const char *at = (const char *)message->bytes + message->start, *end = at + message->length;
    const char *begin = NULL; /* the header's last one: others are in values */
    for (const char *next = at; (next = memmem(next, (size_t)(at + message->header_length - next), "boundary=\"", 10)) != NULL; next += 10)
        begin = next;
    size_t count = 0;
    if (begin == NULL)
        return 0;
    begin += 10;
    size_t length = strcspn(begin, "\"") - 1; /* less its level */
    must(length > 8 && length < 60);
    for (const char *line = at; line < end; line = (const char *)memchr(line, '\n', (size_t)(end - line)) + 1)
        count += (size_t)(end - line) > length + 2 && memcmp(line, "--", 2) == 0 && memcmp(line + 2, begin, length) == 0;
    return count;
}

static bool is_wsp(uint8_t byte) {
    return byte == ' ' || byte == '\t';
}

/* RFC 6376 3.4.4 of whole lines; empty ones stay. */
static size_t relax_lines(const uint8_t *bytes, size_t length, uint8_t *out) {
    size_t used = 0;
    for (size_t i = 0; i < length; i++) {
        if (is_wsp(bytes[i])) {
            while (i + 1 < length && is_wsp(bytes[i + 1]))
                i++;
            if (i + 1 < length && bytes[i + 1] != '\r')
                out[used++] = ' ';
        } else {
            out[used++] = bytes[i];
        }
    }
    return used;
}

/* Whole lines of what is shared, and the message's own bytes, each once and in order. */
static void pieces_form(const struct message *message) {
    size_t own = 0, all = 0;
    uint8_t *relaxed = malloc(message->length + 1);
    must(relaxed != NULL && (message->piece_count == 0 || message->shared != NULL));
    for (uint32_t i = 0; i < message->piece_count; i++) {
        const struct message_piece *piece = &message->pieces[i];
        must(piece->length > 0);
        all += piece->length;
        if (!piece->shared) {
            must(piece->offset == own);
            own += piece->length;
            continue;
        }
        const struct shared_bytes *shared = message->shared;
        must((size_t)piece->offset + piece->length <= shared->length);
        const uint8_t *lines = shared->bytes + piece->offset;
        must(lines[piece->length - 1] == '\n' && (piece->offset == 0 || lines[-1] == '\n'));
        must(relax_lines(lines, piece->length, relaxed) == piece->relaxed_length);
        must(memcmp(relaxed, shared->relaxed + piece->relaxed_offset, piece->relaxed_length) == 0);
    }
    must(message->piece_count == 0 ||
         (message->header_length + own == message->own_length && message->header_length + all == message->length));
    must(message->piece_count > 0 || message->own_length == message->length);
    free(relaxed);
}

/* Two messages but for their boundaries, which a content's messages share. */
static void same_bytes(const struct message *a, const struct message *b) {
    const uint8_t *one = a->bytes + a->start, *two = b->bytes + b->start;
    must(a->length == b->length && a->header_length == b->header_length);
    for (size_t i = 0; i < a->length; i++) {
        if (i + 34 < a->length && one[i] == '=' && one[i + 1] == '_' && two[i] == '=' && two[i + 1] == '_')
            i += 34;
        must(one[i] == two[i]);
    }
}

static int render(const struct job *job, const struct identity *identity, struct message *message) {
    char error[256] = "";
    int result = render_message(job, 0, 1700000000, identity, MESSAGE_MAX, message, error, sizeof(error));
    must(result == 0 || ((result == -22 || result == -7) && error[0] != '\0'));
    for (const char *at = error; *at != '\0'; at++)
        must((unsigned char)*at >= 32 && *at != 127);
    return result;
}

/* An object as the decoder keeps it, or NULL. */
static char *merge_data(char *text) {
    json_t *value = text == NULL ? NULL : json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    char *out = json_is_object(value) ? json_dumps(value, JSON_COMPACT) : NULL;
    json_decref(value);
    free(text);
    return out;
}

static void unreferenced(struct content *content) {
    (void)content;
}

/* What is asked for, whatever stands in it. */
static void fields_expected(const struct job *job, char *out, size_t out_bytes) {
    bool link = job->list_unsubscribe != NULL, custom = job->header_count > 0;
    snprintf(out, out_bytes, "Date:Message-ID:From:To:%s%s%s", job->subject == NULL ? "" : "Subject:", custom ? "X-Thing:" : "",
             link ? "List-Unsubscribe:" : "");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct identity *identity;
    static struct message message, plain;
    char *texts[TEXTS] = {NULL}, expected[256], names[512];
    if (size < 2 || size > INPUT_MAX)
        return 0;
    if (identity == NULL)
        identity = test_identity("f");
    for (size_t i = 0, at = 1; i < TEXTS && at < size; i++) {
        const uint8_t *end = memchr(data + at, 0, size - at);
        size_t length = end == NULL ? size - at : (size_t)(end - data) - at;
        texts[i] = strndup((const char *)data + at, length);
        at += length + 1;
    }
    texts[5] = merge_data(texts[5]);
    texts[6] = merge_data(texts[6]);
    uint8_t switches = data[0];
    struct job_header header = {.name = (char *)"X-Thing", .value = texts[3]};
    struct job_attachment attachment = {.filename = (char *)"a.bin",
                                        .content_type = (char *)"image/png",
                                        .content_id = (char *)"logo",
                                        .bytes = (uint8_t *)(uintptr_t)data,
                                        .length = size,
                                        .is_inline = switches & 1};
    struct job fields = {.from = {.email = (char *)"ann@example.org", .name = (char *)"Ann"},
                         .subject = texts[0],
                         .text = switches & 2 || texts[2] == NULL ? texts[1] : NULL,
                         .html = texts[2],
                         .headers = &header,
                         .header_count = texts[3] != NULL && strpbrk(texts[3], "\r\n") == NULL,
                         .attachments = &attachment,
                         .attachment_count = switches >> 2 & 1,
                         .list_unsubscribe = texts[4] != NULL && texts[4][0] != '\0' ? texts[4] : NULL,
                         .merge_global_data = texts[5]};
    struct job_recipient recipient = {.mailbox = {.email = (char *)"bob@example.net"}, .kind = RECIPIENT_PRIVATE, .merge_data = texts[6]};
    struct content content = {.references = 1, .fields = &fields, .unreferenced = unreferenced};
    struct job job = fields;
    strcpy(job.queue, "normal");
    job.content_id = (char *)"c";
    job.content = &content;
    job.recipients = &recipient;
    job.recipient_total = 1;
    struct render_prepared *prepared = render_prepare(&fields, job.content_id, identity);
    int unprepared_result = render(&job, identity, &plain);
    content.prepared = prepared;
    int result = render(&job, identity, &message);
    must((result == 0) == (unprepared_result == 0)); /* of two faults, one of them the size, either may be met first */
    if (result == 0) {
        pieces_form(&message);
        pieces_form(&plain);
        must(message_flatten(&message) == 0 && message_flatten(&plain) == 0);
        wire_form(&message);
        same_bytes(&message, &plain);
        bool parts = (fields.text != NULL && fields.html != NULL) || fields.attachment_count > 0;
        fields_expected(&fields, expected, sizeof(expected));
        field_names(&message, names, sizeof(names));
        size_t length = strlen(expected);
        must(strncmp(names, expected, length) == 0);
        const char *rest = names + length;
        if (fields.list_unsubscribe != NULL && strncmp(rest, "List-Unsubscribe-Post:", 22) == 0)
            rest += 22;
        must(strcmp(rest, parts ? "MIME-Version:Content-Type:" : "MIME-Version:Content-Type:Content-Transfer-Encoding:") == 0);
        bool related = fields.attachment_count > 0 && attachment.is_inline && fields.html != NULL;
        bool mixed = fields.attachment_count > 0 && !related, alternative = fields.text != NULL && fields.html != NULL;
        size_t leaves_of_mixed = (size_t)(fields.text != NULL || fields.html != NULL) + 1;
        if (parts)
            must(delimiters(&message) == (mixed ? leaves_of_mixed + 1 : 0u) + (alternative ? 3u : 0u) + (related ? 3u : 0u));
    }
    render_prepared_free(prepared);
    for (size_t i = 0; i < TEXTS; i++)
        free(texts[i]);
    return 0;
}
