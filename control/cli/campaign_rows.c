/* campaign_rows.c: CSV and JSON Lines, a row at a time out of one buffer. */
#include "campaign_rows.h"
#include "control/render/encode.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

/* Rows within these can break no bound of the decoder. */
enum { PLAIN_NAME_MAX = 200, PLAIN_ROW_BYTES = 3000, PLAIN_COLUMNS_MAX = 100 };

/* Reads on until `wanted` bytes are there, or the end. 0, or -errno. */
static int rows_fill(struct rows *rows, size_t wanted) {
    if (rows->begin > 0) {
        memmove(rows->bytes, rows->bytes + rows->begin, rows->end - rows->begin);
        rows->end -= rows->begin;
        rows->begin = 0;
    }
    while (!rows->ended && rows->end < wanted) {
        ssize_t got = read(rows->descriptor, rows->bytes + rows->end, rows->room - rows->end);
        if (got < 0 && errno != EINTR) {
            return -errno;
        }
        rows->ended = got == 0;
        rows->end += got > 0 ? (size_t)got : 0;
    }
    return 0;
}

/* What bytes are: the worst of them. */
enum quality { QUALITY_ASCII, QUALITY_UTF8, QUALITY_BAD };

static enum quality quality_of(const uint8_t *bytes, size_t length) {
    for (size_t i = 0; i < length;) {
        size_t size = bytes[i] ? utf8_character((const char *)bytes + i, length - i) : 0;
        if (size == 0) {
            return QUALITY_BAD;
        }
        i += size;
    }
    return QUALITY_UTF8;
}

/* RFC 8259 section 7; bytes beyond ASCII go as they are, for the decoder to judge. */
static enum quality json_write(struct writer *out, const uint8_t *bytes, size_t length, bool doubled) {
    static const char digits[] = "0123456789abcdef";
    size_t from = 0;
    uint8_t high = 0;
    bool control = false;
    writer_byte(out, '"');
    for (size_t i = 0; i < length; i++) {
        uint8_t byte = bytes[i];
        high |= byte;
        if (byte >= 0x20 && byte != '"' && byte != '\\') {
            continue;
        }
        writer_bytes(out, bytes + from, i - from);
        if (byte == '"' && doubled) {
            i++; /* its twin */
        }
        if (byte == '"' || byte == '\\') {
            const char escaped[] = {'\\', (char)byte};
            writer_bytes(out, escaped, sizeof escaped);
        } else {
            control = true;
            const char escaped[] = {'\\', 'u', '0', '0', digits[byte >> 4], digits[byte & 15]};
            writer_bytes(out, escaped, sizeof escaped);
        }
        from = i + 1;
    }
    if (from < length) {
        writer_bytes(out, bytes + from, length - from);
    }
    writer_byte(out, '"');
    return high < 0x80 && !control ? QUALITY_ASCII : quality_of(bytes, length);
}

/* -- CSV -- */

enum take { TAKE_ROW, TAKE_MORE, TAKE_BAD };

struct taking {
    size_t at;      /* how far the row goes, its line's end included */
    uint64_t lines; /* line ends in it */
};

/* The end of a quoted field that begins at `at`; what stands behind it must be a delimiter or a line's end. */
static enum take quoted_take(const struct rows *rows, struct taking *taking, struct rows_field *field, char *error) {
    const uint8_t *row = rows->bytes + rows->begin;
    size_t length = rows->end - rows->begin, at = taking->at + 1;
    *field = (struct rows_field){.at = at};
    for (;; at++) {
        const uint8_t *quote = memchr(row + at, '"', length - at);
        if (!quote || (quote == row + length - 1 && !rows->ended)) {
            snprintf(error, ROW_ERROR_BYTES, "a quote that begins in column %u does not end", rows->field_count + 1);
            return rows->ended || length >= ROW_MAX_BYTES ? TAKE_BAD : TAKE_MORE;
        }
        at = (size_t)(quote - row);
        if (at + 1 < length && row[at + 1] == '"') {
            field->doubled = true;
            at++;
            continue;
        }
        break;
    }
    field->end = at;
    for (const uint8_t *newline = row + field->at; (newline = memchr(newline, '\n', (size_t)(row + at - newline))); newline++) {
        taking->lines++;
    }
    taking->at = at + 1;
    if (taking->at < length && row[taking->at] == '\r') {
        if (taking->at + 1 == length && !rows->ended) {
            snprintf(error, ROW_ERROR_BYTES, "the row is longer than %d bytes", ROW_MAX_BYTES);
            return length >= ROW_MAX_BYTES ? TAKE_BAD : TAKE_MORE;
        }
        taking->at++;
    }
    if (taking->at < length && row[taking->at] != (uint8_t)rows->delimiter && row[taking->at] != '\n') {
        snprintf(error, ROW_ERROR_BYTES, "there is text behind the closing quote of column %u", rows->field_count + 1);
        return TAKE_BAD;
    }
    return TAKE_ROW;
}

static void plain_take(const struct rows *rows, struct taking *taking, struct rows_field *field) {
    const uint8_t *row = rows->bytes + rows->begin;
    size_t length = rows->end - rows->begin, at = taking->at;
    uint8_t delimiter = (uint8_t)rows->delimiter;
    while (at < length && row[at] != delimiter && row[at] != '\n') {
        at++;
    }
    *field = (struct rows_field){.at = taking->at, .end = at};
    if (at > field->at && row[at - 1] == '\r' && (at == length || row[at] == '\n')) {
        field->end--;
    }
    taking->at = at;
}

/* Takes the row at `begin` apart. `begin` stays. */
static enum take csv_take(struct rows *rows, struct taking *taking, char *error) {
    size_t length = rows->end - rows->begin;
    bool too_many = false;
    *taking = (struct taking){.at = 0};
    rows->field_count = 0;
    for (;;) {
        const uint8_t *row = rows->bytes + rows->begin;
        struct rows_field *field = &rows->fields[rows->field_count];
        if (taking->at < length && row[taking->at] == '"') {
            enum take result = quoted_take(rows, taking, field, error);
            if (result != TAKE_ROW) {
                return result;
            }
        } else {
            plain_take(rows, taking, field);
        }
        if (taking->at == length && !rows->ended) {
            snprintf(error, ROW_ERROR_BYTES, "the row is longer than %d bytes", ROW_MAX_BYTES);
            return length >= ROW_MAX_BYTES ? TAKE_BAD : TAKE_MORE;
        }
        if (rows->field_count + 1 < ROWS_COLUMNS_MAX) {
            rows->field_count++;
        } else {
            too_many = true;
        }
        if (taking->at == length || row[taking->at] == '\n') {
            taking->at += taking->at < length;
            taking->lines++;
            snprintf(error, ROW_ERROR_BYTES, "the row has more than %d columns", ROWS_COLUMNS_MAX - 1);
            return too_many ? TAKE_BAD : TAKE_ROW;
        }
        taking->at++;
    }
}

static void rows_advance(struct rows *rows, size_t bytes, uint64_t lines) {
    rows->begin += bytes;
    rows->taken += bytes;
    rows->line += lines;
}

/* Leaves out the rest of a line that makes no sense; the next one is a row of its own again. */
static enum row_result rows_skip(struct rows *rows, char *error) {
    for (;;) {
        const uint8_t *newline = memchr(rows->bytes + rows->begin, '\n', rows->end - rows->begin);
        size_t bytes = newline ? (size_t)(newline - rows->bytes) + 1 - rows->begin : rows->end - rows->begin;
        rows_advance(rows, bytes, newline != NULL);
        if (newline || rows->ended) {
            return ROW_BAD;
        }
        int result = rows_fill(rows, 1);
        if (result < 0) {
            snprintf(error, ROW_ERROR_BYTES, "%s", strerror(-result));
            return ROW_FAULT;
        }
    }
}

static bool field_blank(const struct rows *rows, const struct rows_field *field) {
    for (size_t i = field->at; i < field->end; i++) {
        uint8_t byte = rows->bytes[rows->begin + i];
        if (byte != ' ' && byte != '\t') {
            return false;
        }
    }
    return true;
}

static enum quality field_write(const struct rows *rows, const struct rows_field *field, struct writer *out, bool trimmed) {
    const uint8_t *row = rows->bytes + rows->begin;
    size_t at = field->at, end = field->end;
    while (trimmed && at < end && (row[at] == ' ' || row[at] == '\t')) {
        at++;
    }
    while (trimmed && end > at && (row[end - 1] == ' ' || row[end - 1] == '\t')) {
        end--;
    }
    return json_write(out, row + at, end - at, field->doubled);
}

/* local@domain of letters, digits and the commonest signs (RFC 5321 4.1.2 allows more): for the others the decoder is asked. */
static bool address_is_plain(const uint8_t *text, size_t length) {
    size_t label = 0, at = 0;
    bool signs = false;
    for (size_t i = 0; i <= length; i++) {
        uint8_t c = i < length ? text[i] : '.';
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        bool sign = at ? c == '-' : c == '-' || c == '_' || c == '+';
        if (letter || (sign && (!at || label > 0))) {
            label++;
            signs = sign && !letter;
        } else if (label == 0 || label > 63 || (at && signs) || (c != '.' && (c != '@' || at || i > 64))) {
            return false;
        } else {
            at = c == '@' ? i : at;
            label = 0;
        }
    }
    return at > 0 && length <= 254;
}

/* What is merge data: a name that is shown is one to be greeted by, too. */
static bool column_merges(const struct rows *rows, const struct rows_column *column) {
    return column->role == COLUMN_MERGE || column->role == COLUMN_NAME || (column->role == COLUMN_ADDRESS && rows->address_merges);
}

static enum quality object_write(const struct rows *rows, struct writer *out, enum column_role role, const char *name) {
    enum quality worst = QUALITY_ASCII;
    bool open = false;
    for (uint32_t i = 0; i < rows->column_count; i++) {
        const struct rows_column *column = &rows->columns[i];
        if (role == COLUMN_MERGE ? column_merges(rows, column) : column->role == role) {
            writer_text(out, open ? "," : name);
            writer_text(out, column->key);
            enum quality quality = field_write(rows, &rows->fields[i], out, column->role != role);
            worst = quality > worst ? quality : worst;
            open = true;
        }
    }
    if (open) {
        writer_byte(out, '}');
    }
    return worst;
}

/* The fields that were taken apart, as an object of recipients[]. */
static bool recipient_write(struct rows *rows, struct writer *out, char *error) {
    const struct rows_field *address = NULL, *display = NULL;
    enum quality named = QUALITY_ASCII;
    size_t begin = out->at;
    for (uint32_t i = 0; i < rows->column_count; i++) {
        address = rows->columns[i].role == COLUMN_ADDRESS ? &rows->fields[i] : address;
        display = rows->columns[i].role == COLUMN_NAME ? &rows->fields[i] : display;
    }
    if (!address || field_blank(rows, address)) {
        snprintf(error, ROW_ERROR_BYTES, "there is no address");
        return false;
    }
    bool has_name = display && !field_blank(rows, display);
    writer_text(out, has_name ? "{\"to\":{\"email\":" : "{\"to\":");
    rows->address_at = out->at + 1;
    field_write(rows, address, out, true);
    rows->address_length = out->at - 1 - rows->address_at;
    if (has_name) {
        writer_text(out, ",\"name\":");
        named = field_write(rows, display, out, true);
        writer_byte(out, '}');
    }
    enum quality merged = object_write(rows, out, COLUMN_MERGE, ",\"merge_data\":{");
    enum quality noted = object_write(rows, out, COLUMN_METADATA, ",\"metadata\":{");
    writer_byte(out, '}');
    rows->plain = out->error == 0 && named == QUALITY_ASCII && merged != QUALITY_BAD && noted != QUALITY_BAD &&
                  (!display || display->end - display->at <= PLAIN_NAME_MAX) && out->at - begin <= PLAIN_ROW_BYTES &&
                  rows->column_count <= PLAIN_COLUMNS_MAX && address_is_plain(out->bytes + rows->address_at, rows->address_length);
    if (!rows->plain && quality_of(out->bytes + begin, out->at - begin) == QUALITY_BAD) {
        snprintf(error, ROW_ERROR_BYTES, "it is not valid UTF-8: convert the file, for example with `iconv -f WINDOWS-1252 -t UTF-8`");
        return false;
    }
    return true;
}

static enum row_result csv_next(struct rows *rows, struct writer *out, uint64_t *line, char *error) {
    for (;;) {
        struct taking taking;
        enum take take = rows->begin == rows->end ? TAKE_MORE : csv_take(rows, &taking, error);
        if (take == TAKE_MORE) {
            if (rows->ended) {
                return ROW_END;
            }
            int result = rows_fill(rows, rows->end - rows->begin + 1);
            if (result < 0) {
                snprintf(error, ROW_ERROR_BYTES, "%s", strerror(-result));
                return ROW_FAULT;
            }
            continue;
        }
        *line = rows->line;
        if (take == TAKE_BAD) {
            return rows_skip(rows, error);
        }
        bool blank = rows->field_count == 1 && field_blank(rows, &rows->fields[0]) && (rows->column_count != 1 || taking.at <= 2);
        bool good = false;
        if (!blank && rows->field_count != rows->column_count) {
            snprintf(error, ROW_ERROR_BYTES, "the row has %u fields and the header %u", rows->field_count, rows->column_count);
        } else if (!blank) {
            good = recipient_write(rows, out, error);
        }
        rows_advance(rows, taking.at, taking.lines);
        if (!blank) {
            return good ? ROW_GOOD : ROW_BAD;
        }
    }
}

/* -- JSON Lines -- */

/* Does the object that begins the line end with it? What stands behind it would stand beside the recipients of the job, among the fields
 * that are the sender's to set. Whether it is JSON is the decoder's to say. */
static bool is_one_object(const uint8_t *text, size_t length) {
    size_t depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < length; i++) {
        switch (text[i]) {
        case '\\':
            i += quoted;
            break;
        case '"':
            quoted = !quoted;
            break;
        case '{':
        case '[':
            depth += !quoted;
            break;
        case '}':
        case ']':
            depth -= !quoted;
            break;
        }
        if (depth == 0) {
            return i + 1 == length && text[0] == '{';
        }
    }
    return false;
}

static enum row_result json_next(struct rows *rows, struct writer *out, uint64_t *line, char *error) {
    for (;;) {
        const uint8_t *row = rows->bytes + rows->begin;
        size_t length = rows->end - rows->begin;
        const uint8_t *newline = memchr(row, '\n', length);
        if (!newline && length >= ROW_MAX_BYTES) {
            *line = rows->line;
            snprintf(error, ROW_ERROR_BYTES, "the line is longer than %d bytes", ROW_MAX_BYTES);
            return rows_skip(rows, error);
        }
        if (!newline && !rows->ended) {
            int result = rows_fill(rows, length + 1);
            if (result < 0) {
                snprintf(error, ROW_ERROR_BYTES, "%s", strerror(-result));
                return ROW_FAULT;
            }
            continue;
        }
        if (!newline && length == 0) {
            return ROW_END;
        }
        size_t at = 0, end = newline ? (size_t)(newline - row) : length, whole = end + (newline != NULL);
        while (at < end && strchr(" \t\r", row[at]) && row[at]) {
            at++;
        }
        while (end > at && strchr(" \t\r", row[end - 1]) && row[end - 1]) {
            end--;
        }
        *line = rows->line;
        bool good = end > at && is_one_object(row + at, end - at);
        if (good) {
            writer_bytes(out, row + at, end - at);
        }
        rows_advance(rows, whole, newline != NULL);
        if (end > at) {
            snprintf(error, ROW_ERROR_BYTES, "the line is not one JSON object");
            return good ? ROW_GOOD : ROW_BAD;
        }
    }
}

/* -- the header -- */

static bool column_fault(char *error, const char *format, const char *what) {
    snprintf(error, ROW_ERROR_BYTES, format, what);
    return false;
}

/* What a column of this name becomes. The key of merge data is its name. */
static bool column_set(struct rows *rows, uint32_t index, const char *field, char *error) {
    struct rows_column *column = &rows->columns[index];
    const char *key = field;
    if (*field == 0 || strcmp(field, "-") == 0) {
        column->role = COLUMN_IGNORED;
    } else if (strcasecmp(field, "email") == 0 || strcasecmp(field, "to") == 0) {
        column->role = COLUMN_ADDRESS;
    } else if (strcasecmp(field, "name") == 0) {
        column->role = COLUMN_NAME;
    } else if (strncmp(field, "metadata.", 9) == 0 && field[9]) {
        column->role = COLUMN_METADATA;
        key += 9;
    } else {
        column->role = COLUMN_MERGE;
    }
    struct writer text = {.limit = ROW_MAX_BYTES};
    json_write(&text, (const uint8_t *)key, strlen(key), false);
    writer_bytes(&text, ":", 2); /* with its NUL */
    column->key = (char *)text.bytes;
    for (uint32_t i = 0; i < index; i++) {
        const struct rows_column *other = &rows->columns[i];
        bool same = other->role == column->role &&
                    (column->role == COLUMN_ADDRESS || column->role == COLUMN_NAME || strcmp(other->key, column->key) == 0);
        if (same && column->role != COLUMN_IGNORED) {
            return column_fault(error, "two columns are `%s`: leave one of them out with --map COLUMN=-", field);
        }
    }
    return column->key != NULL || column_fault(error, "%s", "out of memory");
}

static bool column_read(struct rows *rows, uint32_t index, const char *const *maps, uint32_t map_count, bool *used, char *error) {
    const struct rows_field *field = &rows->fields[index];
    struct writer text = {.limit = ROW_MAX_BYTES};
    for (size_t i = field->at; i < field->end; i++) {
        uint8_t byte = rows->bytes[rows->begin + i];
        i += field->doubled && byte == '"';
        writer_byte(&text, (char)byte);
    }
    while (text.at > 0 && (text.bytes[text.at - 1] == ' ' || text.bytes[text.at - 1] == '\t')) {
        text.at--;
    }
    writer_byte(&text, 0);
    char *name = (char *)text.bytes;
    if (!name) {
        return column_fault(error, "%s", "out of memory");
    }
    const char *trimmed = name + strspn(name, " \t"), *becomes = trimmed;
    for (uint32_t i = 0; i < map_count; i++) {
        const char *equals = strrchr(maps[i], '=');
        if (equals && strlen(trimmed) == (size_t)(equals - maps[i]) && strncmp(maps[i], trimmed, strlen(trimmed)) == 0) {
            becomes = equals + 1;
            used[i] = true;
        }
    }
    rows->columns[index].title = strdup(trimmed);
    bool good = rows->columns[index].title ? column_set(rows, index, becomes, error) : column_fault(error, "%s", "out of memory");
    free(name);
    return good;
}

static bool header_read(struct rows *rows, const char *const *maps, uint32_t map_count, char *error) {
    struct taking taking;
    bool used[ROWS_MAPS_MAX] = {false}, addressed = false;
    const uint8_t *newline = memchr(rows->bytes + rows->begin, '\n', rows->end - rows->begin);
    size_t first = newline ? (size_t)(newline - rows->bytes) - rows->begin : rows->end - rows->begin;
    const char candidates[] = {',', ';', '\t'};
    rows->delimiter = ',';
    for (size_t i = 0; i < sizeof candidates; i++) { /* spreadsheets of some countries write semicolons */
        if (memchr(rows->bytes + rows->begin, candidates[i], first)) {
            rows->delimiter = candidates[i];
            break;
        }
    }
    if (csv_take(rows, &taking, error) != TAKE_ROW) {
        return false;
    }
    rows->column_count = rows->field_count;
    for (uint32_t i = 0; i < rows->column_count; i++) {
        if (!column_read(rows, i, maps, map_count, used, error)) {
            return false;
        }
        addressed |= rows->columns[i].role == COLUMN_ADDRESS;
    }
    for (uint32_t i = 0; i < map_count; i++) {
        if (!used[i]) {
            return column_fault(error, "--map %s: the file has no such column", maps[i]);
        }
    }
    rows_advance(rows, taking.at, taking.lines);
    return addressed || column_fault(error, "%s",
                                     "its first line names no column `email` or `to`: add a header, or name the column with --map "
                                     "COLUMN=email");
}

bool rows_open(struct rows *rows, int descriptor, const char *const *maps, uint32_t map_count, char *error) {
    *rows = (struct rows){.descriptor = descriptor, .line = 1, .room = ROWS_BLOCK_BYTES};
    rows->bytes = malloc(rows->room);
    int result = rows->bytes ? rows_fill(rows, rows->room) : -ENOMEM;
    if (result < 0) {
        return column_fault(error, "%s", strerror(-result));
    }
    if (rows->end >= 3 && memcmp(rows->bytes, "\xef\xbb\xbf", 3) == 0) { /* a byte order mark */
        rows_advance(rows, 3, 0);
    }
    if (rows->end >= 2 && (memcmp(rows->bytes, "\xff\xfe", 2) == 0 || memcmp(rows->bytes, "\xfe\xff", 2) == 0)) {
        return column_fault(error, "%s", "it is UTF-16: convert it with `iconv -f UTF-16 -t UTF-8`");
    }
    size_t at = rows->begin;
    while (at < rows->end && (rows->bytes[at] == ' ' || rows->bytes[at] == '\n' || rows->bytes[at] == '\r' || rows->bytes[at] == '\t')) {
        at++;
    }
    if (at == rows->end) {
        return column_fault(error, "%s", "it is empty: write a header with a column `email` and a line a recipient, or JSON Lines");
    }
    rows->format = rows->bytes[at] == '{' ? ROWS_JSON : ROWS_CSV;
    if (rows->format == ROWS_JSON && map_count > 0) {
        return column_fault(error, "%s", "--map is for CSV: JSON Lines name their fields themselves");
    }
    for (size_t i = rows->begin; rows->format == ROWS_CSV && i < at; i++) { /* blank lines before the header */
        if (rows->bytes[i] == '\n') {
            rows_advance(rows, i + 1 - rows->begin, 1);
        }
    }
    return rows->format == ROWS_JSON || header_read(rows, maps, map_count, error);
}

void rows_close(struct rows *rows) {
    for (uint32_t i = 0; i < rows->column_count; i++) {
        free(rows->columns[i].key);
        free(rows->columns[i].title);
    }
    free(rows->bytes);
    *rows = (struct rows){.descriptor = -1};
}

bool rows_merges(const struct rows *rows, const char *name) {
    struct writer key = {.limit = ROW_MAX_BYTES};
    bool found = false;
    json_write(&key, (const uint8_t *)name, strlen(name), false);
    writer_bytes(&key, ":", 2);
    for (uint32_t i = 0; i < rows->column_count && key.bytes && !found; i++) {
        found = column_merges(rows, &rows->columns[i]) && strcmp(rows->columns[i].key, (const char *)key.bytes) == 0;
    }
    free(key.bytes);
    return found;
}

enum row_result rows_next(struct rows *rows, struct writer *out, uint64_t *line, char *error) {
    size_t before = out->at;
    rows->plain = false;
    enum row_result result = rows->format == ROWS_JSON ? json_next(rows, out, line, error) : csv_next(rows, out, line, error);
    if (result == ROW_GOOD && out->error) {
        snprintf(error, ROW_ERROR_BYTES, "the row is longer than %d bytes", ROW_MAX_BYTES);
        result = ROW_BAD;
    }
    if (result != ROW_GOOD) {
        out->at = before;
    }
    return result;
}
