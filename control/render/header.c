/* header.c: folding, encoded-words, address lists, dates and parameters of header fields. */
#include "header.h"
#include "address.h"
#include "encode.h"

#include <errno.h>

enum {
    ENCODED_WORD_MAX = 75,    /* RFC 2047 2 */
    ENCODED_LINE_MAX = 76,    /* the same: a line with an encoded-word */
    ENCODED_FRAME_BYTES = 12, /* =?utf-8?Q? and ?= */
    ENCODED_ROOM_MIN = 16,    /* less than this left on the line: begin another */
    PLAIN_WORD_MAX = 900,     /* longer words are encoded, because an encoded-word can be split */
    BLANKS_MAX = 32,          /* white space between two words; longer runs become one space */
    QUOTED_NAME_MAX = 60,
    PARAMETER_ROOM = 60, /* of a value on a line of 78, beside a name of */
    PARAMETER_NAME = 8,  /* characters; a longer one has less: */
    PARAMETER_ROOM_MIN = 24,
};

static bool is_blank(char byte) {
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

static bool is_alnum(char byte) {
    return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z');
}

/* What Q stands for itself: the set that is allowed in phrases too (RFC 2047 5 (3)). */
static bool is_q_safe(char byte) {
    return is_alnum(byte) || (byte != '\0' && strchr("!*+-/", byte) != NULL);
}

bool header_name_is_legal(const char *name) {
    size_t length = strlen(name);
    if (length == 0 || length > HEADER_NAME_MAX)
        return false;
    for (size_t i = 0; i < length; i++)
        if (name[i] <= 32 || name[i] > 126 || name[i] == ':')
            return false;
    return true;
}

static void header_begin(struct writer *writer, const char *name) {
    if (name[0] == '.')
        writer->leading_dot = true;
    writer_text(writer, name);
    writer_byte(writer, ':');
}

/* The next character of a text to encode: line ends and tabs count as spaces, what is no UTF-8 as U+FFFD. Returns the bytes taken. */
static size_t take_character(const char *text, size_t length, char *out, size_t *out_length) {
    size_t size = utf8_character(text, length);
    if (size == 0) {
        memcpy(out, "\xEF\xBF\xBD", 3);
        *out_length = 3;
        return 1;
    }
    memcpy(out, text, size);
    *out_length = size;
    if (is_blank(out[0]))
        out[0] = ' ';
    return size;
}

static size_t q_cost(const char *bytes, size_t length) {
    return length > 1 ? 3 * length : bytes[0] == ' ' || is_q_safe(bytes[0]) ? 1 : 3;
}

/* Whole characters of a text for one encoded-word. */
struct encoded_part {
    uint8_t bytes[ENCODED_WORD_MAX];
    size_t length;
    size_t taken; /* of the text */
};

/* Takes as many as there is room for. Base64 of what is not the text's end takes no more than needs no padding, and false when it would:
 * some readers (GMime) decode the base64 of words in a row as one, and stop at padding. */
static bool part_take(struct encoded_part *part, const char *text, size_t length, bool use_q, size_t room) {
    char character[4];
    size_t size = 0, cost = 0, whole_length = 0, whole_taken = 0;
    part->length = part->taken = 0;
    while (part->taken < length) {
        size_t taken = take_character(text + part->taken, length - part->taken, character, &size);
        cost += q_cost(character, size);
        if (use_q ? cost > room : (part->length + size + 2) / 3 * 4 > room)
            break;
        memcpy(part->bytes + part->length, character, size);
        part->length += size;
        part->taken += taken;
        if (part->length % 3 == 0) {
            whole_length = part->length;
            whole_taken = part->taken;
        }
    }
    if (use_q || part->taken == length)
        return true;
    part->length = whole_length;
    part->taken = whole_taken;
    return whole_length > 0;
}

static void part_write(struct writer *writer, const struct encoded_part *part, bool use_q) {
    if (!writer_room(writer, ENCODED_WORD_MAX + 1))
        return;
    writer_text(writer, use_q ? " =?utf-8?Q?" : " =?utf-8?B?");
    char *out = (char *)writer->bytes + writer->at;
    if (!use_q) {
        writer->at += base64_write(out, part->bytes, part->length);
    } else {
        for (size_t i = 0; i < part->length; i++) {
            char byte = (char)part->bytes[i];
            if (byte == ' ') {
                *out++ = '_';
            } else if (is_q_safe(byte)) {
                *out++ = byte;
            } else {
                *out++ = '=';
                *out++ = encode_hex[part->bytes[i] >> 4];
                *out++ = encode_hex[part->bytes[i] & 15];
            }
        }
        writer->at = (size_t)((uint8_t *)out - writer->bytes);
    }
    writer_text(writer, "?=");
}

/* Writes a text as encoded-words, each of whole characters, folded between them. The first is preceded by a space, or by a fold when the
 * line is full. */
static void encoded_words(struct writer *writer, const char *text, size_t length) {
    char character[4];
    size_t size = 0, q_total = 0, total = 0;
    for (size_t at = 0; at < length; total += size) {
        at += take_character(text + at, length - at, character, &size);
        q_total += q_cost(character, size);
    }
    bool use_q = q_total <= total * 2; /* as long as a reader of the source recognises it */
    for (size_t at = 0; at < length && writer->error == 0;) {
        size_t column = writer_column(writer) + 1;
        if (column > 1 && column + ENCODED_FRAME_BYTES + ENCODED_ROOM_MIN > ENCODED_LINE_MAX) {
            writer_fold(writer);
            column = 1;
        }
        size_t room = ENCODED_LINE_MAX - column < ENCODED_WORD_MAX ? ENCODED_LINE_MAX - column : ENCODED_WORD_MAX;
        struct encoded_part part;
        bool part_q = use_q || !part_take(&part, text + at, length - at, false, room - ENCODED_FRAME_BYTES);
        if (part_q)
            part_take(&part, text + at, length - at, true, room - ENCODED_FRAME_BYTES);
        part_write(writer, &part, part_q);
        at += part.taken;
        if (at < length)
            writer_fold(writer);
    }
}

/* One word of an unstructured value: whether it must become an encoded-word. */
static bool word_needs_encoding(const char *word, size_t length) {
    if (length > PLAIN_WORD_MAX)
        return true;
    for (size_t i = 0; i < length; i++)
        if (word[i] < 33 || word[i] > 126 || (word[i] == '=' && i + 1 < length && word[i + 1] == '?'))
            return true;
    return false;
}

/* The white space before a word, as it was asked for or as a fold. */
static void write_blanks(struct writer *writer, const char *blanks, size_t length, size_t word_length, bool may_fold) {
    bool as_is = length > 0 && length <= BLANKS_MAX;
    for (size_t i = 0; i < length && as_is; i++)
        as_is = blanks[i] == ' ' || blanks[i] == '\t';
    if (!as_is) {
        blanks = " ";
        length = 1;
    }
    if (may_fold && writer_column(writer) + length + word_length > HEADER_LINE_BYTES)
        writer_fold(writer);
    writer_bytes(writer, blanks, length);
}

void header_text(struct writer *writer, const char *name, const char *value) {
    header_begin(writer, name);
    bool first = true;
    const char *at = value;
    for (;;) {
        const char *blanks = at;
        while (is_blank(*at))
            at++;
        if (*at == '\0')
            break;
        const char *word = at;
        while (*at != '\0' && !is_blank(*at))
            at++;
        if (!word_needs_encoding(word, (size_t)(at - word))) {
            if (first)
                write_blanks(writer, " ", 1, (size_t)(at - word), writer_column(writer) + (size_t)(at - word) > HEADER_LINE_MAX - 2);
            else
                write_blanks(writer, blanks, (size_t)(word - blanks), (size_t)(at - word), true);
            writer_bytes(writer, word, (size_t)(at - word));
            first = false;
            continue;
        }
        /* White space between two encoded-words does not count (RFC 2047 6.2), so a run of such words is encoded with what lies between. */
        for (const char *next = at;;) {
            while (is_blank(*next))
                next++;
            const char *next_word = next;
            while (*next != '\0' && !is_blank(*next))
                next++;
            if (next == next_word || !word_needs_encoding(next_word, (size_t)(next - next_word)))
                break;
            at = next;
        }
        /* One space is written with the first encoded-word; what more there is goes before it, on the same line. */
        size_t more = first || word - blanks > BLANKS_MAX ? 0 : (size_t)(word - blanks) - 1;
        if (more > 0 && writer_column(writer) + more + 1 + ENCODED_FRAME_BYTES + ENCODED_ROOM_MIN > ENCODED_LINE_MAX)
            writer_fold(writer);
        for (size_t i = 0; i < more; i++)
            writer_byte(writer, ' ');
        encoded_words(writer, word, (size_t)(at - word));
        first = false;
    }
    if (first)
        writer_byte(writer, ' ');
    writer_crlf(writer);
}

enum phrase_form { PHRASE_ATOMS, PHRASE_QUOTED, PHRASE_ENCODED };

static enum phrase_form phrase_form(const char *name, size_t length) {
    bool atoms = true;
    size_t quoted = 2;
    for (size_t i = 0; i < length; i++, quoted++) {
        char byte = name[i];
        if (byte < 32 || byte > 126 || (byte == '=' && i + 1 < length && name[i + 1] == '?'))
            return PHRASE_ENCODED;
        if (byte == '"' || byte == '\\')
            quoted++;
        if (!is_alnum(byte) && strchr("!#$%&'*+-/=?^_`{|}~", byte) == NULL && !(byte == ' ' && i > 0 && name[i - 1] != ' '))
            atoms = false;
    }
    if (quoted > QUOTED_NAME_MAX)
        return PHRASE_ENCODED;
    return atoms ? PHRASE_ATOMS : PHRASE_QUOTED;
}

static void write_quoted(struct writer *writer, const char *text, size_t length) {
    writer_byte(writer, '"');
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '"' || text[i] == '\\')
            writer_byte(writer, '\\');
        writer_byte(writer, text[i]);
    }
    writer_byte(writer, '"');
}

/* `first`: nothing but the field's name is on the line, and folding would win little. */
static void write_mailbox(struct writer *writer, const char *name, size_t name_length, const char *address, size_t address_length,
                          bool first) {
    enum phrase_form form = name_length == 0 ? PHRASE_ATOMS : phrase_form(name, name_length);
    size_t whole = address_length + 3 + (name_length > 0 ? name_length + 3 : 0);
    if (!first && form != PHRASE_ENCODED && writer_column(writer) + whole > HEADER_LINE_BYTES)
        writer_fold(writer);
    if (name_length == 0) {
        writer_byte(writer, ' ');
        writer_bytes(writer, address, address_length);
        return;
    }
    if (form == PHRASE_ENCODED) {
        encoded_words(writer, name, name_length);
    } else {
        writer_byte(writer, ' ');
        if (form == PHRASE_QUOTED)
            write_quoted(writer, name, name_length);
        else
            writer_bytes(writer, name, name_length);
    }
    if (writer_column(writer) + address_length + 4 > HEADER_LINE_BYTES)
        writer_fold(writer);
    writer_text(writer, " <");
    writer_bytes(writer, address, address_length);
    writer_byte(writer, '>');
}

/* One of a list; its address goes to address[ADDRESS_BYTES]. 0 or -EINVAL. */
static int add_mailbox(struct writer *writer, const struct mailbox *mailbox, bool first, char *address, bool *utf8) {
    int address_length = mailbox->email == NULL ? -EINVAL : address_format(mailbox->email, address, utf8);
    if (address_length < 0)
        return address_length;
    const char *display = mailbox->name == NULL ? "" : mailbox->name;
    while (is_blank(*display))
        display++;
    size_t display_length = strlen(display);
    while (display_length > 0 && is_blank(display[display_length - 1]))
        display_length--;
    if (!first)
        writer_byte(writer, ',');
    write_mailbox(writer, display, display_length, address, (size_t)address_length, first);
    return 0;
}

int header_mailboxes(struct writer *writer, const char *name, const struct mailbox *mailboxes, uint32_t count, bool *utf8,
                     const struct mailbox **bad) {
    char address[ADDRESS_BYTES];
    header_begin(writer, name);
    for (uint32_t i = 0; i < count; i++) {
        int result = add_mailbox(writer, &mailboxes[i], i == 0, address, utf8);
        if (result != 0) {
            *bad = &mailboxes[i];
            return result;
        }
    }
    writer_crlf(writer);
    return 0;
}

int header_mailbox(struct writer *writer, const char *name, const struct mailbox *mailbox, char *address, bool *utf8) {
    header_begin(writer, name);
    int result = add_mailbox(writer, mailbox, true, address, utf8);
    writer_crlf(writer);
    return result;
}

void header_phrase(struct writer *writer, const char *name, const char *words, size_t words_length, const char *text, size_t length) {
    while (words_length > 0 && is_blank(*words))
        words++, words_length--;
    while (words_length > 0 && is_blank(words[words_length - 1]))
        words_length--;
    if (words_length > 1 && words[0] == '"' && words[words_length - 1] == '"')
        words++, words_length -= 2;
    header_begin(writer, name);
    if (words_length > 0) {
        write_mailbox(writer, words, words_length, text, length, true);
    } else {
        writer_text(writer, " <");
        writer_bytes(writer, text, length);
        writer_byte(writer, '>');
    }
    writer_crlf(writer);
}

static void write_two_digits(char *out, unsigned number) {
    out[0] = (char)('0' + number / 10 % 10);
    out[1] = (char)('0' + number % 10);
}

void header_date(struct writer *writer, uint64_t date_s) {
    static const char days[] = "ThuFriSatSunMonTueWed"; /* 1 January 1970 was a Thursday */
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    char text[] = "Date: Thu, 01 Jan 1970 00:00:00 +0000";
    uint64_t day = date_s / 86400, second = date_s % 86400;
    /* The calendar in years that begin in March (Hinnant, days to civil): no lock and no time zone, unlike gmtime_r. */
    uint64_t shifted = day + 719468, era = shifted / 146097, day_of_era = shifted % 146097;
    uint64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    uint64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    uint64_t month_shifted = (5 * day_of_year + 2) / 153;
    unsigned day_of_month = (unsigned)(day_of_year - (153 * month_shifted + 2) / 5 + 1);
    unsigned month = (unsigned)(month_shifted < 10 ? month_shifted + 2 : month_shifted - 10);
    uint64_t year = year_of_era + era * 400 + (month < 2 ? 1 : 0);

    memcpy(text + 6, days + day % 7 * 3, 3);
    write_two_digits(text + 11, day_of_month);
    memcpy(text + 14, months + (size_t)month * 3, 3);
    write_two_digits(text + 18, (unsigned)(year / 100 % 100));
    write_two_digits(text + 20, (unsigned)(year % 100));
    write_two_digits(text + 23, (unsigned)(second / 3600));
    write_two_digits(text + 26, (unsigned)(second / 60 % 60));
    write_two_digits(text + 29, (unsigned)(second % 60));
    writer_bytes(writer, text, sizeof(text) - 1);
    writer_crlf(writer);
}

void header_message_id(struct writer *writer, const char *name, const char *domain) {
    writer_text(writer, "Message-ID: <");
    writer_text(writer, name);
    writer_byte(writer, '@');
    writer_text(writer, domain);
    writer_byte(writer, '>');
    writer_crlf(writer);
}

/* One character as an extended value has it (RFC 2231 7). Returns its length. */
static size_t percent_encode(const char *character, size_t size, char *out) {
    size_t length = 0;
    for (size_t i = 0; i < size; i++) {
        if (is_alnum(character[i]) || (character[i] != '\0' && strchr("-._", character[i]) != NULL)) {
            out[length++] = character[i];
        } else {
            out[length++] = '%';
            out[length++] = encode_hex[(uint8_t)character[i] >> 4];
            out[length++] = encode_hex[(uint8_t)character[i] & 15];
        }
    }
    return length;
}

static void parameter_begin(struct writer *writer, const char *name) {
    writer_byte(writer, ';');
    writer_fold(writer);
    writer_byte(writer, ' ');
    writer_text(writer, name);
}

static size_t parameter_room(const char *name) {
    size_t length = strlen(name), over = length > PARAMETER_NAME ? length - PARAMETER_NAME : 0;
    return over < PARAMETER_ROOM - PARAMETER_ROOM_MIN ? PARAMETER_ROOM - over : PARAMETER_ROOM_MIN;
}

static void parameter_extended(struct writer *writer, const char *name, const char *value, size_t length) {
    char line[PARAMETER_ROOM + 16];
    size_t room = parameter_room(name) - 12;
    size_t at = 0;
    for (unsigned section = 0; at < length; section++) {
        size_t used = 0;
        size_t from = at;
        while (at < length) {
            char character[4], encoded[12];
            size_t size = 0, taken = take_character(value + at, length - at, character, &size);
            size_t encoded_length = percent_encode(character, size, encoded);
            if (used + encoded_length > room)
                break;
            memcpy(line + used, encoded, encoded_length);
            used += encoded_length;
            at += taken;
        }
        parameter_begin(writer, name);
        if (from > 0 || at < length) {
            char number[8] = "*";
            size_t digits = 1;
            if (section >= 100)
                number[digits++] = (char)('0' + section / 100 % 10);
            if (section >= 10)
                number[digits++] = (char)('0' + section / 10 % 10);
            number[digits++] = (char)('0' + section % 10);
            writer_bytes(writer, number, digits);
        }
        writer_text(writer, "*=");
        if (section == 0)
            writer_text(writer, "utf-8''");
        writer_bytes(writer, line, used);
    }
}

void header_parameter(struct writer *writer, const char *name, const char *value) {
    size_t length = strlen(value);
    bool plain = length <= parameter_room(name);
    for (size_t i = 0; i < length && plain; i++)
        plain = value[i] >= 32 && value[i] <= 126 && !(value[i] == '=' && value[i + 1] == '?'); /* readers decode RFC 2047 here too */
    if (plain) {
        parameter_begin(writer, name);
        writer_byte(writer, '=');
        write_quoted(writer, value, length);
    } else {
        parameter_extended(writer, name, value, length);
    }
}
