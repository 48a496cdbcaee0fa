/* raw_fuzz.c: libFuzzer on raw messages: whatever a producer gives, what comes out has the form of the wire (RFC 5321 2.3.8, RFC
 * 5322 2.1.1), has the fields and the body that a plain reading of the input finds, less those that must not travel, and is left as it is
 * when it comes again. The first byte says whether the job has a From of its own. */
#include "control/render/render.h"
#include "tests/unit/identity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_MAX = 1 << 16, FIELDS_MAX = 4096, LINE_MAX_BYTES = 998 };

/* Not inlined: the stack of a failure names the line. */
__attribute__((noinline)) static void must(bool condition) {
    if (!condition)
        abort();
}

/* -- a plain reading -- */

struct field {
    char *name;
    char *value; /* its lines with CRLF between */
};

struct reading {
    bool is_broken; /* a line of the header that is none of it */
    size_t count;
    struct field fields[FIELDS_MAX];
    char *body; /* lines ended with CRLF */
};

static char *joined(char *one, const char *between, const char *line, size_t length) {
    char *out;
    must(asprintf(&out, "%s%s%.*s", one == NULL ? "" : one, between, (int)length, line) >= 0);
    free(one);
    return out;
}

/* The length of the line that begins here; *next: what its end takes. */
static size_t line_length(const char *text, size_t length, size_t *next) {
    size_t i = 0;
    while (i < length && text[i] != '\r' && text[i] != '\n')
        i++;
    *next = i == length ? 0 : text[i] == '\r' && i + 1 < length && text[i + 1] == '\n' ? 2 : 1;
    return i;
}

static bool is_blank(const char *line, size_t length) {
    return strspn(line, " \t") >= length;
}

static bool travels(const char *name) {
    return strcasecmp(name, "Bcc") != 0 && strcasecmp(name, "Return-Path") != 0 && strcasecmp(name, "Resent-Bcc") != 0 &&
           strcasecmp(name, "Content-Length") != 0;
}

/* One line of the header. */
static void header_line(struct reading *reading, const char *line, size_t length, bool *dropped) {
    if (line[0] == ' ' || line[0] == '\t') {
        struct field *last = reading->count == 0 ? NULL : &reading->fields[reading->count - 1];
        if (last == NULL && !*dropped)
            reading->is_broken = true;
        else if (!*dropped && !is_blank(line, length))
            last->value = joined(last->value, "\r\n", line, length);
        return;
    }
    size_t name = 0;
    while (name < length && line[name] > 32 && line[name] < 127 && line[name] != ':')
        name++;
    size_t colon = name + strspn(line + name, " \t");
    if (name == 0 || colon >= length || line[colon] != ':') {
        reading->is_broken = true;
        return;
    }
    char *own = strndup(line, name);
    must(own != NULL && reading->count < FIELDS_MAX);
    *dropped = !travels(own);
    if (*dropped) {
        free(own);
        return;
    }
    reading->fields[reading->count++] = (struct field){.name = own, .value = joined(NULL, "", line + colon + 1, length - colon - 1)};
}

/* `text` has no NUL inside. */
static void read_plainly(const char *text, size_t length, struct reading *reading) {
    size_t at = 0, next;
    bool dropped = false, first = true;
    reading->is_broken = false;
    reading->count = 0;
    reading->body = strdup("");
    for (; at < length; first = false) {
        size_t line = line_length(text + at, length - at, &next);
        if (line == 0) {
            at += next;
            break;
        }
        if (!first || line < 5 || memcmp(text + at, "From ", 5) != 0)
            header_line(reading, text + at, line, &dropped);
        at += line + next;
    }
    while (at < length) {
        size_t line = line_length(text + at, length - at, &next);
        reading->body = joined(reading->body, "", text + at, line);
        reading->body = joined(reading->body, "\r\n", "", 0);
        at += line + next;
    }
}

static void reading_free(struct reading *reading) {
    for (size_t i = 0; i < reading->count; i++) {
        free(reading->fields[i].name);
        free(reading->fields[i].value);
    }
    free(reading->body);
}

/* -- what came out -- */

static void wire_form(const struct message *message) {
    const uint8_t *bytes = message->bytes + message->start;
    size_t line = 0;
    bool dots = false, high = false;
    for (size_t i = 0; i < message->length; i++) {
        must(bytes[i] != 0 && (bytes[i] != '\r' || (i + 1 < message->length && bytes[i + 1] == '\n')));
        dots |= bytes[i] == '.' && i == line;
        high |= bytes[i] >= 0x80 && i >= message->header_length;
        if (bytes[i] == '\n') {
            must(i > 0 && bytes[i - 1] == '\r' && i - 1 - line <= LINE_MAX_BYTES);
            line = i + 1;
        }
    }
    must(line == message->length && dots == message->has_leading_dots && high == message->body_8bit);
    must(memmem(bytes, message->length, "\r\n\r\n", 4) == bytes + message->header_length - 4);
}

/* An address that the envelope has can end no line and no bracket. */
static void address_form(const char *address) {
    for (const char *at = address; *at != '\0'; at++)
        must((unsigned char)*at >= 32 && *at != 127);
    must(strlen(address) < 255 && (address[0] == '\0' || strrchr(address, '@') != NULL));
}

static size_t count_of(const struct reading *reading, const char *name) {
    size_t count = 0;
    for (size_t i = 0; i < reading->count; i++)
        count += strcasecmp(reading->fields[i].name, name) == 0;
    return count;
}

static bool is_beyond_ascii(const char *text) {
    while (*text != '\0' && (unsigned char)*text < 0x80)
        text++;
    return *text != '\0';
}

/* The input's fields in order, behind those that it lacked. */
static void same_fields(const struct reading *in, const struct reading *out) {
    must(!out->is_broken && out->count >= in->count);
    size_t added = out->count - in->count;
    for (size_t i = 0; i < added; i++) {
        const char *name = out->fields[i].name;
        must((strcmp(name, "Date") == 0 || strcmp(name, "Message-ID") == 0 || strcmp(name, "From") == 0 ||
              strcmp(name, "MIME-Version") == 0 || strcmp(name, "Content-Type") == 0 || strcmp(name, "Content-Transfer-Encoding") == 0) &&
             count_of(in, name) == 0);
    }
    for (size_t i = 0; i < in->count; i++) {
        must(strcmp(in->fields[i].name, out->fields[added + i].name) == 0);
        /* What is beyond ASCII may have become encoded-words, and a domain A-labels. */
        must(strcmp(in->fields[i].value, out->fields[added + i].value) == 0 || is_beyond_ascii(in->fields[i].value));
    }
    must(count_of(out, "From") == 1 && count_of(out, "Date") >= 1 && count_of(out, "Message-ID") >= 1);
    must(count_of(out, "Bcc") == 0 && count_of(out, "Return-Path") == 0);
    must(strcmp(in->body, out->body) == 0);
}

static struct identity *fuzz_identity(void) {
    static struct identity *identity;
    if (identity == NULL)
        identity = test_identity("f");
    return identity;
}

/* `content`: what has the message, or NULL. */
static int render(const uint8_t *raw, size_t length, const char *from, struct content *content, struct message *message) {
    struct job_recipient recipient = {.mailbox = {.email = (char *)"bob@example.net"}, .kind = RECIPIENT_TO};
    struct job job = {.queue = "normal",
                      .from = {.email = (char *)from, .name = (char *)(from == NULL ? NULL : "Ann, \xC3\xA4")},
                      .raw = (uint8_t *)(uintptr_t)raw,
                      .raw_length = length,
                      .content = content,
                      .recipients = &recipient,
                      .recipient_total = 1};
    char error[256] = "";
    int result = render_message(&job, 0, 1700000000, fuzz_identity(), 1 << 20, message, error, sizeof(error));
    must(result == 0 || (result < 0 && error[0] != '\0'));
    for (const char *at = error; *at != '\0'; at++)
        must(*at >= 32 && *at < 127);
    return result;
}

/* A recipient of a content with this message has the same, byte for byte. */
static void same_of_content(const uint8_t *raw, size_t length, const char *from, int result, const struct message *message) {
    static struct message other;
    struct job fields = {.raw = (uint8_t *)(uintptr_t)raw, .raw_length = length};
    struct render_prepared *prepared = render_prepare(&fields, "c", fuzz_identity());
    struct content content = {.references = 1, .fields = &fields, .prepared = prepared};
    must(prepared != NULL);
    must(render(raw, length, from, &content, &other) == result);
    if (result == 0) {
        must(other.piece_count <= 1 && (other.piece_count == 0 || other.own_length == other.header_length));
        must(message_flatten(&other) == 0);
        must(other.length == message->length && other.header_length == message->header_length);
        must(memcmp(other.bytes + other.start, message->bytes + message->start, message->length) == 0);
        must(other.has_leading_dots == message->has_leading_dots && other.body_8bit == message->body_8bit);
        must(other.needs_smtputf8 == message->needs_smtputf8 && strcmp(other.from_domain, message->from_domain) == 0);
        must(strcmp(other.sender, message->sender) == 0 && strcmp(other.recipient, message->recipient) == 0);
    }
    render_prepared_free(prepared);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct reading in, out;
    static struct message message, again;
    if (size < 2 || size > INPUT_MAX)
        return 0;
    const char *from = data[0] % 2 == 0 ? NULL : "ann@example.org";
    uint8_t *raw = malloc(size - 1); /* its end is where a sanitizer sees it */
    char *text = malloc(size);
    size_t length = 0;
    must(raw != NULL && text != NULL);
    memcpy(raw, data + 1, size - 1);
    for (size_t i = 1; i < size; i++)
        if (data[i] != 0)
            text[length++] = (char)data[i];
    text[length] = '\0';
    int result = render(raw, size - 1, from, NULL, &message);
    same_of_content(raw, size - 1, from, result, &message);
    if (result == 0) {
        wire_form(&message);
        address_form(message.sender);
        address_form(message.recipient);
        must(message.piece_count == 0 && message.own_length == message.length);
        read_plainly(text, length, &in);
        read_plainly((const char *)message.bytes + message.start, message.length, &out);
        must(!in.is_broken);
        same_fields(&in, &out);
        must(render(message.bytes + message.start, message.length, from, NULL, &again) == 0);
        must(again.length == message.length && memcmp(again.bytes + again.start, message.bytes + message.start, message.length) == 0);
        must(strcmp(again.from_domain, message.from_domain) == 0 && strcmp(again.sender, message.sender) == 0);
        reading_free(&in);
        reading_free(&out);
    }
    free(raw);
    free(text);
    return 0;
}
