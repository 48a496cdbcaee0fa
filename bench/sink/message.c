/* message.c: finds two header fields, then only hashes. */
#include "message.h"

#include <string.h>
#include <strings.h>

void message_start(struct message *message) {
    message->bytes = 0;
    message->in_body = false;
    message->field = MESSAGE_FIELD_OTHER;
    message->line_length = 0;
    message->line_bytes = 0;
    message->id_length = 0;
    message->digest.kind = DIGEST_NONE;
    text_start(&message->text, true);
}

static bool is_space(char c) {
    return c == ' ' || c == '\t';
}

static void field_take(struct message *message, const char *text, size_t length) {
    while (length > 0 && is_space(*text)) {
        text++;
        length--;
    }
    while (length > 0 && (is_space(text[length - 1]) || text[length - 1] == '\r'))
        length--;
    if (length == 0)
        return; /* the value comes on the next, folded line (RFC 5322 2.2.3) */
    if (message->field == MESSAGE_FIELD_ID) {
        if (length > sizeof(message->id))
            length = sizeof(message->id);
        memcpy(message->id, text, length);
        message->id_length = (uint16_t)length;
    } else if (message->field == MESSAGE_FIELD_DIGEST) {
        message->digest.kind = digest_parse(text, length, message->expected);
    }
    message->field = MESSAGE_FIELD_OTHER;
}

/* One header line, perhaps only its beginning, without the LF. */
static void header_line(struct message *message, const char *line, size_t length) {
    static const char id[] = "Message-ID:", digest[] = "X-Body-Digest:";
    if (length > 0 && is_space(line[0])) {
        field_take(message, line, length);
        return;
    }
    message->field = MESSAGE_FIELD_OTHER;
    if (length >= sizeof(id) - 1 && (line[0] | 0x20) == 'm' && strncasecmp(line, id, sizeof(id) - 1) == 0) {
        message->field = MESSAGE_FIELD_ID;
        field_take(message, line + sizeof(id) - 1, length - (sizeof(id) - 1));
    } else if (length >= sizeof(digest) - 1 && (line[0] | 0x20) == 'x' && strncasecmp(line, digest, sizeof(digest) - 1) == 0) {
        message->field = MESSAGE_FIELD_DIGEST;
        field_take(message, line + sizeof(digest) - 1, length - (sizeof(digest) - 1));
    }
}

static void header_keep(struct message *message, const uint8_t *bytes, size_t length) {
    size_t room = sizeof(message->line) - message->line_length;
    size_t some = length < room ? length : room;
    memcpy(message->line + message->line_length, bytes, some);
    message->line_length = (uint16_t)(message->line_length + some);
    message->line_bytes += (uint32_t)length;
}

/* Returns how many bytes belong to the header. */
static size_t header_take(struct message *message, const uint8_t *bytes, size_t length) {
    size_t at = 0;
    while (at < length) {
        const uint8_t *end = memchr(bytes + at, '\n', length - at);
        size_t some = end == NULL ? length - at : (size_t)(end - bytes) - at;
        if (end == NULL || message->line_bytes > 0)
            header_keep(message, bytes + at, some);
        const char *line = message->line_bytes > 0 ? message->line : (const char *)bytes + at;
        size_t line_length = message->line_bytes > 0 ? message->line_length : some;
        if (end == NULL)
            return length;
        at += some + 1;
        message->line_length = 0;
        message->line_bytes = 0;
        if (line_length == 0 || (line_length == 1 && line[0] == '\r')) {
            message->in_body = true;
            digest_start(&message->digest, message->digest.kind);
            return at;
        }
        header_line(message, line, line_length);
    }
    return at;
}

static void message_run(void *context, const uint8_t *bytes, uint32_t length) {
    struct message *message = context;
    message->bytes += length;
    size_t at = message->in_body ? 0 : header_take(message, bytes, length);
    if (message->in_body && at < length)
        digest_add(&message->digest, bytes + at, length - at);
}

uint32_t message_take(struct message *message, const uint8_t *bytes, uint32_t length, bool *ended) {
    return text_take(&message->text, bytes, length, message_run, message, ended);
}
