/* raw.c: normalises a message that the producer made (RFC 5322 2.1, 2.3; RFC 5321 2.3.8). */
#include "raw.h"
#include "encode.h"
#include "header.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { FROM_ADDRESS_BYTES = 2048, ERROR_BYTES = 256 };

struct line {
    const char *text;
    size_t length; /* without its end */
};

/* Takes the next line; LF, CR and CRLF end one. False at the end. */
static bool next_line(const char *raw, size_t length, size_t *at, struct line *line) {
    if (*at >= length)
        return false;
    line->text = raw + *at;
    line->length = encode_line_length(line->text, length - *at);
    *at += line->length;
    if (*at < length)
        *at += raw[*at] == '\r' && *at + 1 < length && raw[*at + 1] == '\n' ? 2 : 1;
    return true;
}

static bool is_wsp(char byte) {
    return byte == ' ' || byte == '\t';
}

static bool is_blank_line(const struct line *line) {
    for (size_t i = 0; i < line->length; i++)
        if (!is_wsp(line->text[i]))
            return false;
    return true;
}

static bool has_8bit(const char *text, size_t length) {
    size_t at = 0;
    for (; at + 8 <= length; at += 8) {
        uint64_t word;
        memcpy(&word, text + at, sizeof(word));
        if ((word & 0x8080808080808080u) != 0)
            return true;
    }
    for (; at < length; at++)
        if ((unsigned char)text[at] >= 0x80)
            return true;
    return false;
}

/* The length of the field's name, or 0 when this line begins no field. White space before the colon is obsolete but legal (RFC 5322 4.5).
 */
static size_t field_name(const struct line *line) {
    size_t length = 0;
    while (length < line->length && line->text[length] > 32 && line->text[length] < 127 && line->text[length] != ':')
        length++;
    size_t colon = length;
    while (colon < line->length && is_wsp(line->text[colon]))
        colon++;
    return colon < line->length && line->text[colon] == ':' ? length : 0;
}

static bool is_field(const struct line *line, size_t name_length, const char *name) {
    return strlen(name) == name_length && strncasecmp(line->text, name, name_length) == 0;
}

/* Fields that a message has once (RFC 5322 3.6, RFC 2045 3 to 6): of two, one reader shows the first and another the last. */
enum { FIELD_FROM, FIELD_DATE, FIELD_MESSAGE_ID, FIELD_MIME_VERSION, FIELD_TYPE, FIELD_ENCODING, SINGLE_FIELDS = 11 };
static const char *const single_fields[SINGLE_FIELDS] = {
    "From", "Date", "Message-ID", "MIME-Version", "Content-Type", "Content-Transfer-Encoding", "Subject", "To", "Cc", "Sender", "Reply-To"};

/* What no recipient may see, and the length of a mailbox file. */
static const char *const dropped_fields[] = {"Bcc", "Resent-Bcc", "Return-Path", "Content-Length"};

struct raw_header {
    unsigned count[SINGLE_FIELDS];
    struct line from; /* the value as it stands there, with the ends of its lines */
};

/* Reads the header; *body is where the text behind the empty line begins. */
static int read_header(const char *raw, size_t length, size_t *start, size_t *body, struct raw_header *header, char *error,
                       size_t error_bytes) {
    struct line line;
    size_t at = 0;
    bool in_from = false, in_field = false;
    *start = 0;
    for (unsigned number = 1; next_line(raw, length, &at, &line); number++) {
        if (line.length == 0)
            break;
        if (number == 1 && line.length >= 5 && memcmp(line.text, "From ", 5) == 0) {
            *start = at; /* the separator of a mailbox file */
            continue;
        }
        if (is_wsp(line.text[0]) && in_field) {
            if (in_from && header->count[FIELD_FROM] == 1 && !is_blank_line(&line))
                header->from.length = (size_t)(line.text + line.length - header->from.text);
            continue;
        }
        size_t name = field_name(&line);
        if (name == 0) {
            snprintf(error, error_bytes, "line %u of the raw message is neither a header field nor the empty line before the body", number);
            return -EINVAL;
        }
        in_field = true;
        in_from = is_field(&line, name, "From");
        for (unsigned i = 0; i < SINGLE_FIELDS; i++)
            header->count[i] += is_field(&line, name, single_fields[i]);
        if (in_from && header->count[FIELD_FROM] == 1) {
            const char *value = (const char *)memchr(line.text, ':', line.length) + 1;
            header->from = (struct line){.text = value, .length = line.length - (size_t)(value - line.text)};
        }
    }
    *body = at;
    return 0;
}

/* What the end of a line at `at` and a blank line behind it take: neither is of the value. */
static size_t line_end_at(const struct line *value, size_t at) {
    size_t end = at, blank;
    while (end < value->length && (value->text[end] == '\r' || value->text[end] == '\n')) {
        at = ++end;
        for (blank = end; blank < value->length && is_wsp(value->text[blank]); blank++)
            ;
        end = blank;
    }
    return at;
}

/* The first address of a From value: what stands in angle brackets, else all of it, without comments (RFC 5322 3.4). */
static int first_address(const struct line *value, char *out, size_t out_bytes) {
    size_t used = 0;
    int comment = 0;
    bool quoted = false, bracket = false, literal = false;
    for (size_t at = line_end_at(value, 0); at < value->length; at = line_end_at(value, at + 1)) {
        char byte = value->text[at];
        if (byte == '\\' && (quoted || comment > 0)) {
            at = line_end_at(value, at + 1);
            if (comment == 0 && at < value->length && used + 2 < out_bytes)
                out[used++] = '\\', out[used++] = value->text[at];
            continue;
        }
        if (!quoted && byte == '(') {
            comment++;
        } else if (comment > 0) {
            comment -= byte == ')';
        } else {
            if (byte == '"')
                quoted = !quoted;
            if (!quoted && (byte == '[' || byte == ']'))
                literal = byte == '[';
            /* A group's name may stand in front (RFC 6854); the colons of [IPv6:2001:db8::1] end none. */
            if (!quoted && (byte == '<' || (byte == ':' && !bracket && !literal))) {
                used = 0;
                bracket |= byte == '<';
            } else if (!quoted && ((byte == '>' && bracket) || byte == ',' || byte == ';')) {
                break;
            } else if ((quoted || !is_wsp(byte)) && used + 1 < out_bytes) {
                out[used++] = byte;
            }
        }
    }
    out[used] = '\0';
    return used > 0 ? 0 : -EINVAL;
}

static int check_single(const struct raw_header *header, char *error, size_t error_bytes) {
    for (unsigned i = 0; i < SINGLE_FIELDS; i++) {
        if (header->count[i] > 1) {
            snprintf(error, error_bytes, "the raw message has %u %s fields; RFC 5322 3.6 allows one", header->count[i], single_fields[i]);
            return -EINVAL;
        }
    }
    return 0;
}

static int find_from(const struct raw_header *header, const struct mailbox *added, struct raw_facts *facts, char *error,
                     size_t error_bytes) {
    char address[FROM_ADDRESS_BYTES];
    const char *email = address;
    if (header->count[FIELD_FROM] == 0)
        email = added == NULL ? NULL : added->email;
    else if (first_address(&header->from, address, sizeof(address)) < 0)
        email = NULL;
    if (email == NULL || address_format(email, facts->from_address, &facts->from_utf8) < 0) {
        snprintf(error, error_bytes, "the raw message's From is not an address; give one there or in \"from\"");
        return -EINVAL;
    }
    strcpy(facts->from_domain, strrchr(facts->from_address, '@') + 1);
    return 0;
}

/* One line as it is. */
static int write_line(struct writer *writer, const struct line *line, unsigned number, char *error, size_t error_bytes) {
    if (line->length > HEADER_LINE_MAX) {
        snprintf(error, error_bytes, "line %u of the raw message has %zu bytes; RFC 5322 2.1.1 allows %d: encode it", number, line->length,
                 HEADER_LINE_MAX);
        return -EINVAL;
    }
    if (line->length > 0 && line->text[0] == '.')
        writer->leading_dot = true;
    writer_bytes(writer, line->text, line->length);
    writer_crlf(writer);
    return 0;
}

static int write_body(struct writer *writer, const char *raw, size_t at, size_t length, unsigned number, char *error, size_t error_bytes) {
    struct line line;
    int result = 0;
    for (; result == 0 && next_line(raw, length, &at, &line); number++)
        result = write_line(writer, &line, number, error, error_bytes);
    return result;
}

static bool is_dropped(const struct line *line, size_t name) {
    for (size_t i = 0; i < sizeof(dropped_fields) / sizeof(dropped_fields[0]); i++)
        if (is_field(line, name, dropped_fields[i]))
            return true;
    return false;
}

/* The field whose first line ends before *at: its further lines are taken too. Is any byte of it beyond ASCII? */
static bool field_end(const char *raw, size_t length, const struct line *first, size_t *at, unsigned *lines) {
    struct line line = *first;
    bool is_8bit = false;
    size_t next = *at;
    do {
        is_8bit |= has_8bit(line.text, line.length);
        *at = next;
        ++*lines;
    } while (next_line(raw, length, &next, &line) && line.length > 0 && is_wsp(line.text[0]));
    return is_8bit;
}

/* A field's lines. White space before the colon is obsolete, and not every reader takes it; a line of white space alone would end the
 * header for some readers and not for others. */
static int write_field(struct writer *writer, const char *raw, size_t start, size_t end, unsigned number, char *error, size_t error_bytes) {
    struct line line;
    int result = 0;
    for (size_t at = start; result == 0 && at < end && next_line(raw, end, &at, &line); number++) {
        if (is_blank_line(&line))
            continue;
        if (!is_wsp(line.text[0])) {
            size_t name = field_name(&line), colon = name;
            while (line.text[colon] != ':')
                colon++;
            if (name != colon && line.length <= HEADER_LINE_MAX) {
                writer->leading_dot |= line.text[0] == '.';
                writer_bytes(writer, line.text, name);
                line.text += colon;
                line.length -= colon;
            }
        }
        result = write_line(writer, &line, number, error, error_bytes);
    }
    return result;
}

/* All fields but those that must not travel; what is beyond ASCII becomes encoded-words where a reader decodes them. */
static int write_header(struct writer *writer, const char *raw, size_t start, size_t end, unsigned *number, bool *is_8bit, char *error,
                        size_t error_bytes) {
    struct line line;
    int result = 0;
    for (size_t at = start, field = start; result == 0 && next_line(raw, end, &at, &line) && line.length > 0; field = at) {
        unsigned lines = 0;
        size_t name = field_name(&line);
        bool beyond = field_end(raw, end, &line, &at, &lines);
        if (!is_dropped(&line, name) && (!beyond || !raw_encode(writer, raw + field, at - field, name, is_8bit))) {
            result = write_field(writer, raw, field, at, *number, error, error_bytes);
            *is_8bit |= beyond;
        }
        *number += lines;
    }
    return result;
}

static bool is_utf8(const char *text, size_t length) {
    for (size_t at = 0, size; at < length; at += size)
        if ((size = (unsigned char)text[at] < 0x80 ? 1 : utf8_character(text + at, length - at)) == 0)
            return false;
    return true;
}

/* What is missing. MIME-Version goes with any field that needs it; a body beyond ASCII that says nothing of itself is UTF-8 when it can be,
 * and 8bit in any case (RFC 2045 4, 5.2, 6.1). */
static void write_additions(struct writer *writer, const struct raw_header *header, const struct raw_additions *additions,
                            const struct raw_facts *facts, bool utf8_body) {
    const struct mailbox *bad;
    bool utf8 = false; /* facts know */
    bool typed = header->count[FIELD_TYPE] > 0, encoded = header->count[FIELD_ENCODING] > 0;
    bool adds_type = facts->body_8bit && !typed && !encoded && utf8_body,
         adds_encoding = facts->body_8bit && !encoded && (typed || utf8_body);
    if (header->count[FIELD_DATE] == 0)
        header_date(writer, additions->date_s);
    if (header->count[FIELD_MESSAGE_ID] == 0)
        header_message_id(writer, additions->message_name, facts->from_domain);
    if (header->count[FIELD_FROM] == 0)
        header_mailboxes(writer, "From", additions->from, 1, &utf8, &bad);
    if (header->count[FIELD_MIME_VERSION] == 0 && (typed || encoded || adds_type))
        writer_text(writer, "MIME-Version: 1.0\r\n");
    if (adds_type)
        writer_text(writer, "Content-Type: text/plain; charset=utf-8\r\n");
    if (adds_encoding)
        writer_text(writer, "Content-Transfer-Encoding: 8bit\r\n");
    writer->line = writer->at;
}

/* A raw message on its way. */
struct reading {
    const char *raw;
    size_t length;
    char *without_nul; /* it, where it had some; its own */
    size_t start, body;
    unsigned number; /* of the line at start */
    bool utf8_body;
    struct raw_header header;
};

static int remove_nul(struct reading *reading, char *error, size_t error_bytes) {
    if (reading->length == 0 || memchr(reading->raw, '\0', reading->length) == NULL)
        return 0;
    size_t used = 0;
    reading->without_nul = malloc(reading->length);
    if (reading->without_nul == NULL) {
        snprintf(error, error_bytes, "out of memory");
        return -ENOMEM;
    }
    for (size_t i = 0; i < reading->length; i++)
        if (reading->raw[i] != '\0')
            reading->without_nul[used++] = reading->raw[i];
    reading->raw = reading->without_nul;
    reading->length = used;
    return 0;
}

/* All that is known before anything is written, but for From. reading_close in any case. */
static int reading_open(struct reading *reading, const uint8_t *raw, size_t length, struct raw_facts *facts, char *error,
                        size_t error_bytes) {
    *reading = (struct reading){.raw = (const char *)raw, .length = length, .number = 1};
    *facts = (struct raw_facts){.body_offset = 0};
    int result = remove_nul(reading, error, error_bytes);
    if (result == 0)
        result = read_header(reading->raw, reading->length, &reading->start, &reading->body, &reading->header, error, error_bytes);
    if (result == 0)
        result = check_single(&reading->header, error, error_bytes);
    if (result != 0)
        return result;
    const char *body = reading->raw + reading->body;
    size_t body_length = reading->length - reading->body;
    reading->number += reading->start > 0;
    facts->body_8bit = has_8bit(body, body_length);
    reading->utf8_body = facts->body_8bit && is_utf8(body, body_length);
    return 0;
}

static void reading_close(struct reading *reading) {
    free(reading->without_nul);
}

/* Its own fields with the empty line, and its body, which may go elsewhere. */
static int write_read(struct reading *reading, struct writer *fields, struct writer *body, struct raw_facts *facts, char *error,
                      size_t error_bytes) {
    int result =
        write_header(fields, reading->raw, reading->start, reading->body, &reading->number, &facts->header_8bit, error, error_bytes);
    if (result != 0)
        return result;
    writer_crlf(fields);
    facts->body_offset = fields->at;
    return write_body(body, reading->raw, reading->body, reading->length, reading->number + 1, error, error_bytes);
}

int raw_write(struct writer *writer, const uint8_t *raw, size_t length, const struct raw_additions *additions, struct raw_facts *facts,
              char *error, size_t error_bytes) {
    struct reading reading;
    int result = reading_open(&reading, raw, length, facts, error, error_bytes);
    if (result == 0)
        result = find_from(&reading.header, additions->from, facts, error, error_bytes);
    if (result == 0) {
        write_additions(writer, &reading.header, additions, facts, reading.utf8_body);
        result = write_read(&reading, writer, writer, facts, error, error_bytes);
    }
    reading_close(&reading);
    return result;
}

/* -- once for a content -- */

struct raw_prepared {
    struct raw_header header;
    struct raw_facts facts; /* without From where that is missing */
    bool utf8_body, body_dots;
    struct writer fields;
};

struct raw_prepared *raw_prepare(const uint8_t *raw, size_t length, struct writer *body) {
    char error[ERROR_BYTES];
    struct reading reading;
    struct raw_prepared *prepared = calloc(1, sizeof(*prepared));
    if (prepared == NULL)
        return NULL;
    prepared->fields.limit = SIZE_MAX / 2;
    int result = reading_open(&reading, raw, length, &prepared->facts, error, sizeof(error));
    if (result == 0 && reading.header.count[FIELD_FROM] > 0)
        result = find_from(&reading.header, NULL, &prepared->facts, error, sizeof(error));
    if (result == 0)
        result = write_read(&reading, &prepared->fields, body, &prepared->facts, error, sizeof(error));
    if (result == 0)
        result = prepared->fields.error != 0 ? prepared->fields.error : body->error;
    prepared->header = reading.header;
    prepared->utf8_body = reading.utf8_body;
    prepared->body_dots = body->leading_dot;
    reading_close(&reading);
    if (result == 0)
        return prepared;
    raw_prepared_free(prepared);
    return NULL;
}

void raw_prepared_free(struct raw_prepared *prepared) {
    if (prepared == NULL)
        return;
    free(prepared->fields.bytes);
    free(prepared);
}

size_t raw_prepared_bytes(const struct raw_prepared *prepared) {
    return prepared == NULL ? 0 : sizeof(*prepared) + prepared->fields.capacity;
}

int raw_write_prepared(struct writer *writer, const struct raw_prepared *prepared, const struct raw_additions *additions,
                       struct raw_facts *facts, char *error, size_t error_bytes) {
    *facts = prepared->facts;
    int result = prepared->header.count[FIELD_FROM] > 0 ? 0 : find_from(&prepared->header, additions->from, facts, error, error_bytes);
    if (result != 0)
        return result;
    write_additions(writer, &prepared->header, additions, facts, prepared->utf8_body);
    writer_bytes(writer, prepared->fields.bytes, prepared->fields.at);
    writer->line = writer->at;
    writer->leading_dot |= prepared->fields.leading_dot || prepared->body_dots;
    facts->body_offset = writer->at;
    return 0;
}
