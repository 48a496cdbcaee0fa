/* raw.c: normalises a message that the producer made (RFC 5322 2.1, 2.3; RFC 5321 2.3.8). */
#include "raw.h"
#include "header.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { FROM_VALUE_BYTES = 2048 };

struct line {
    const char *text;
    size_t length; /* without its end */
};

/* Takes the next line; LF, CR and CRLF end one. False at the end. */
static bool next_line(const char *raw, size_t length, size_t *at, struct line *line) {
    if (*at >= length)
        return false;
    const char *start = raw + *at, *newline = memchr(start, '\n', length - *at);
    size_t span = newline == NULL ? length - *at : (size_t)(newline - start);
    const char *carriage = memchr(start, '\r', span);
    line->text = start;
    line->length = carriage == NULL ? span : (size_t)(carriage - start);
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

struct raw_header {
    bool has_date, has_message_id;
    unsigned from_count;
    char from[FROM_VALUE_BYTES]; /* the value, unfolded */
    size_t from_length;
};

static void append_from(struct raw_header *header, const char *text, size_t length) {
    if (length > sizeof(header->from) - 1 - header->from_length)
        length = sizeof(header->from) - 1 - header->from_length;
    memcpy(header->from + header->from_length, text, length);
    header->from_length += length;
    header->from[header->from_length] = '\0';
}

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
            if (in_from && !is_blank_line(&line))
                append_from(header, line.text, line.length);
            continue;
        }
        size_t name = field_name(&line);
        if (name == 0) {
            snprintf(error, error_bytes, "line %u of the raw message is neither a header field nor the empty line before the body", number);
            return -EINVAL;
        }
        in_field = true;
        in_from = is_field(&line, name, "From");
        header->has_date |= is_field(&line, name, "Date");
        header->has_message_id |= is_field(&line, name, "Message-ID");
        if (in_from && ++header->from_count == 1) {
            const char *value = (const char *)memchr(line.text, ':', line.length) + 1;
            append_from(header, value, line.length - (size_t)(value - line.text));
        }
    }
    *body = at;
    return 0;
}

/* The first address of a From value: what stands in angle brackets, else all of it, without comments (RFC 5322 3.4). */
static int first_address(const char *value, char *out, size_t out_bytes) {
    size_t used = 0;
    int comment = 0;
    bool quoted = false, bracket = false;
    for (; *value != '\0'; value++) {
        char byte = *value;
        if (byte == '\\' && value[1] != '\0' && (quoted || comment > 0)) {
            value++;
            if (comment == 0 && used + 2 < out_bytes)
                out[used++] = '\\', out[used++] = *value;
            continue;
        }
        if (!quoted && byte == '(') {
            comment++;
        } else if (comment > 0) {
            comment -= byte == ')';
        } else {
            if (byte == '"')
                quoted = !quoted;
            if (!quoted && byte == '<') {
                used = 0;
                bracket = true;
            } else if (!quoted && ((byte == '>' && bracket) || byte == ',')) {
                break;
            } else if ((quoted || !is_wsp(byte)) && used + 1 < out_bytes) {
                out[used++] = byte;
            }
        }
    }
    out[used] = '\0';
    return used > 0 ? 0 : -EINVAL;
}

static int find_from(const struct raw_header *header, const struct mailbox *added, struct raw_facts *facts, char *error,
                     size_t error_bytes) {
    char address[FROM_VALUE_BYTES];
    const char *email = address;
    if (header->from_count > 1) {
        snprintf(error, error_bytes, "the raw message has %u From fields; RFC 5322 3.6 allows one", header->from_count);
        return -EINVAL;
    }
    if (header->from_count == 0)
        email = added == NULL ? NULL : added->email;
    else if (first_address(header->from, address, sizeof(address)) < 0)
        email = NULL;
    if (email == NULL || address_format(email, facts->from_address, &facts->from_utf8) < 0) {
        snprintf(error, error_bytes, "the raw message's From is not an address; give one there or in \"from\"");
        return -EINVAL;
    }
    strcpy(facts->from_domain, strrchr(facts->from_address, '@') + 1);
    return 0;
}

/* Writes lines from *at, counting from `number`; in the header it leaves out what must not travel, and stops behind the empty line. */
static int write_lines(struct writer *writer, const char *raw, size_t length, size_t at, size_t end, bool in_header, unsigned *number,
                       bool *is_8bit, char *error, size_t error_bytes) {
    struct line line;
    bool dropped = false;
    for (; at < end && next_line(raw, length, &at, &line); ++*number) {
        if (in_header) {
            if (line.length == 0)
                break;
            if (!is_wsp(line.text[0])) {
                size_t name = field_name(&line);
                dropped = is_field(&line, name, "Bcc") || is_field(&line, name, "Return-Path");
            }
            /* A line of white space alone would end the header for some readers and not for others. */
            if (dropped || is_blank_line(&line))
                continue;
        }
        if (line.length > HEADER_LINE_MAX) {
            snprintf(error, error_bytes, "line %u of the raw message has %zu bytes; RFC 5322 2.1.1 allows %d: encode it", *number,
                     line.length, HEADER_LINE_MAX);
            return -EINVAL;
        }
        if (line.length > 0 && line.text[0] == '.')
            writer->leading_dot = true;
        if (!*is_8bit)
            *is_8bit = has_8bit(line.text, line.length);
        if (in_header && !is_wsp(line.text[0])) {
            /* White space before the colon is obsolete, and not every reader takes it. */
            size_t name = field_name(&line), colon = name;
            while (line.text[colon] != ':')
                colon++;
            writer_bytes(writer, line.text, name);
            line.text += colon;
            line.length -= colon;
        }
        writer_bytes(writer, line.text, line.length);
        writer_crlf(writer);
    }
    return 0;
}

static void write_additions(struct writer *writer, const struct raw_header *header, const struct raw_additions *additions,
                            const struct raw_facts *facts, bool *utf8) {
    const struct mailbox *bad;
    if (!header->has_date)
        header_date(writer, additions->date_s);
    if (!header->has_message_id)
        header_message_id(writer, additions->message_name, facts->from_domain);
    if (header->from_count == 0)
        header_mailboxes(writer, "From", additions->from, 1, utf8, &bad);
}

static int write_clean(struct writer *writer, const char *raw, size_t length, const struct raw_additions *additions,
                       struct raw_facts *facts, char *error, size_t error_bytes) {
    struct raw_header header = {.from_count = 0};
    size_t start = 0, body = 0;
    bool utf8 = false;
    unsigned number = 1;
    int result = read_header(raw, length, &start, &body, &header, error, error_bytes);
    if (result == 0)
        result = find_from(&header, additions->from, facts, error, error_bytes);
    if (result != 0)
        return result;
    number += start > 0;
    write_additions(writer, &header, additions, facts, &utf8);
    result = write_lines(writer, raw, length, start, body, true, &number, &facts->header_8bit, error, error_bytes);
    if (result != 0)
        return result;
    writer_crlf(writer);
    number++;
    facts->body_offset = writer->at;
    return write_lines(writer, raw, length, body, length, false, &number, &facts->body_8bit, error, error_bytes);
}

int raw_write(struct writer *writer, const uint8_t *raw, size_t length, const struct raw_additions *additions, struct raw_facts *facts,
              char *error, size_t error_bytes) {
    *facts = (struct raw_facts){.body_offset = 0};
    if (length == 0 || memchr(raw, '\0', length) == NULL)
        return write_clean(writer, (const char *)raw, length, additions, facts, error, error_bytes);
    char *clean = malloc(length);
    size_t used = 0;
    if (clean == NULL) {
        snprintf(error, error_bytes, "out of memory");
        return -ENOMEM;
    }
    for (size_t i = 0; i < length; i++)
        if (raw[i] != '\0')
            clean[used++] = (char)raw[i];
    int result = write_clean(writer, clean, used, additions, facts, error, error_bytes);
    free(clean);
    return result;
}
