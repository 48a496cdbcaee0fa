/* reply.c: whole lines are read where they lie; only a line that the network cut is gathered in the reply's own buffer. */
#include "reply.h"

#include <stdbool.h>
#include <string.h>

static bool is_digit(char byte) {
    return byte >= '0' && byte <= '9';
}

void reply_begin(struct reply *reply, struct capabilities *capabilities) {
    reply->code = 0;
    memset(reply->enhanced, 0, sizeof(reply->enhanced));
    reply->text_length = 0;
    reply->line_length = 0;
    reply->lines = 0;
    reply->fault = REPLY_FINE;
    reply->capabilities = capabilities;
}

const char *reply_fault_text(unsigned fault) {
    switch (fault) {
    case REPLY_FINE:
        return "no fault";
    case REPLY_GARBAGE:
        return "not an SMTP reply";
    case REPLY_LINE_TOO_LONG:
        return "a reply line is too long";
    case REPLY_TOO_MANY_LINES:
        return "a reply has too many lines";
    }
    return "unknown fault";
}

static enum reply_status bad(struct reply *reply, enum reply_fault fault) {
    reply->fault = (uint8_t)fault;
    return REPLY_BAD;
}

/* Can these bytes begin a line: a digit of 1 to 5, two digits, then a space, a hyphen or the line's end? */
static bool begins_well(const char *bytes, uint32_t length) {
    if (length >= 1 && (bytes[0] < '1' || bytes[0] > '5'))
        return false;
    if ((length >= 2 && !is_digit(bytes[1])) || (length >= 3 && !is_digit(bytes[2])))
        return false;
    return length < 4 || bytes[3] == ' ' || bytes[3] == '-' || bytes[3] == '\r' || bytes[3] == '\n';
}

/* Up to three digits; how many there were. */
static uint32_t take_number(const char *bytes, uint32_t length, uint16_t *number) {
    uint32_t digits = 0;
    *number = 0;
    while (digits < length && digits < 3 && is_digit(bytes[digits])) {
        *number = (uint16_t)(*number * 10 + (bytes[digits] - '0'));
        digits++;
    }
    return digits;
}

/* RFC 3463: class.subject.detail. The length of the code and the blank behind it, or 0. */
static uint32_t take_enhanced(const char *text, uint32_t length, uint16_t code, uint16_t enhanced[3]) {
    if (length < 5 || (text[0] != '2' && text[0] != '4' && text[0] != '5') || text[1] != '.' || text[0] - '0' != code / 100)
        return 0;
    uint16_t subject, detail;
    uint32_t at = 2, digits = take_number(text + at, length - at, &subject);
    at += digits;
    if (!digits || at >= length || text[at] != '.')
        return 0;
    at++;
    digits = take_number(text + at, length - at, &detail);
    at += digits;
    if (!digits || (at < length && text[at] != ' '))
        return 0;
    enhanced[0] = (uint16_t)(code / 100);
    enhanced[1] = subject;
    enhanced[2] = detail;
    return at < length ? at + 1 : at;
}

static void keep_text(struct reply *reply, const char *text, uint32_t length) {
    if (!length)
        return;
    if (reply->text_length && reply->text_length < REPLY_TEXT_MAX)
        reply->text[reply->text_length++] = ' ';
    uint32_t room = REPLY_TEXT_MAX - reply->text_length;
    if (length > room)
        length = room;
    char *to = reply->text + reply->text_length;
    for (uint32_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)text[i];
        to[i] = byte == '\t' ? ' ' : byte < 0x20 || byte == 0x7f ? '?' : (char)byte;
    }
    reply->text_length = (uint16_t)(reply->text_length + length);
}

/* A whole line, its line feed included. */
static enum reply_status take_line(struct reply *reply, const char *line, uint32_t length) {
    length--;
    if (length && line[length - 1] == '\r')
        length--;
    if (length < 3 || !begins_well(line, length) || (length > 3 && line[3] == '\r'))
        return bad(reply, REPLY_GARBAGE);
    if (reply->lines == REPLY_LINES_MAX)
        return bad(reply, REPLY_TOO_MANY_LINES);
    reply->lines++;
    reply->code = (uint16_t)((line[0] - '0') * 100 + (line[1] - '0') * 10 + (line[2] - '0'));
    bool last = length == 3 || line[3] == ' ';
    const char *text = line + (length > 3 ? 4 : 3);
    uint32_t text_length = length > 3 ? length - 4 : 0;
    if (reply->capabilities && reply->lines > 1)
        capability_line(reply->capabilities, text, text_length);
    uint32_t skip = take_enhanced(text, text_length, reply->code, reply->enhanced);
    keep_text(reply, text + skip, text_length - skip);
    if (!last)
        return REPLY_MORE;
    if (reply->enhanced[0] != reply->code / 100)
        memset(reply->enhanced, 0, sizeof(reply->enhanced));
    return REPLY_DONE;
}

enum reply_status reply_take(struct reply *reply, const uint8_t *bytes, uint32_t length, uint32_t *consumed) {
    uint32_t at = 0;
    enum reply_status status = REPLY_MORE;
    while (at < length && status == REPLY_MORE) {
        const char *from = (const char *)bytes + at;
        const char *end = memchr(from, '\n', length - at);
        uint32_t part = end ? (uint32_t)(end - from) + 1 : length - at;
        if (part > (uint32_t)REPLY_LINE_MAX - reply->line_length) {
            status = bad(reply, REPLY_LINE_TOO_LONG);
            break;
        }
        at += part;
        if (end && !reply->line_length) {
            status = take_line(reply, from, part);
            continue;
        }
        memcpy(reply->line + reply->line_length, from, part);
        reply->line_length = (uint16_t)(reply->line_length + part);
        if (end) {
            uint32_t whole = reply->line_length;
            reply->line_length = 0;
            status = take_line(reply, reply->line, whole);
        } else if (!begins_well(reply->line, reply->line_length)) {
            status = bad(reply, REPLY_GARBAGE);
        }
    }
    *consumed = at;
    return status;
}
