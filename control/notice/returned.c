/* returned.c: the message that a notice is about: rendered once more, which gives the same bytes but for signatures. */
#include "parts.h"

#include "control/render/encode.h"
#include "control/render/header.h"
#include "control/render/render.h"

#include <stdio.h>
#include <stdlib.h>

enum { RENDER_WHOLE_BYTES = 256 << 10 }; /* what is larger is rendered without its body, when only its header comes back */

/* Where the body of a raw message begins. */
static size_t raw_header_length(const uint8_t *raw, size_t length) {
    for (size_t i = 0; i + 1 < length; i++)
        if (raw[i] == '\n' && (raw[i + 1] == '\n' || (i + 2 < length && raw[i + 1] == '\r' && raw[i + 2] == '\n')))
            return i + (raw[i + 1] == '\n' ? 2 : 3);
    return length;
}

static size_t content_length(const struct job *job) {
    size_t length = (job->text != NULL ? strlen(job->text) : 0) + (job->html != NULL ? strlen(job->html) : 0);
    for (uint32_t i = 0; i < job->attachment_count; i++)
        length += job->attachments[i].length;
    return length;
}

/* The job without what the header does not need. */
static struct job job_thin(const struct job *job) {
    struct job thin = *job;
    if (job->raw != NULL) {
        thin.raw_length = raw_header_length(job->raw, job->raw_length);
    } else if (content_length(job) > RENDER_WHOLE_BYTES) {
        thin.attachments = NULL;
        thin.attachment_count = 0;
        thin.html = NULL;
        thin.text = (char *)"";
    }
    return thin;
}

/* Rendered, or false: what made it fail may be why there is a notice. */
static bool message_make(const struct notice *notice, bool whole, struct message *message) {
    char error[256];
    struct job job = whole ? *notice->job : job_thin(notice->job);
    uint64_t date_s = job.history.date_s != 0 ? job.history.date_s : notice->now_ms / 1000;
    message_init(message);
    if (notice->identity != NULL && render_message(&job, notice->index, date_s, notice->identity,
                                                   (size_t)notice->config->max_message_bytes * 2, message, error, sizeof(error)) == 0)
        return true;
    message_free(message);
    return false;
}

static bool is_utf8(const uint8_t *bytes, size_t length) {
    for (size_t at = 0, size; at < length; at += size)
        if ((size = utf8_character((const char *)bytes + at, length - at)) == 0)
            return false;
    return true;
}

static bool has_8bit(const uint8_t *bytes, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (bytes[i] >= 0x80)
            return true;
    return false;
}

static void part_begin(struct writer *writer, const struct notice *notice, const char *type, bool bits8) {
    writer_text(writer, "--");
    writer_text(writer, notice->boundary);
    writer_text(writer, "\r\nContent-Type: ");
    writer_text(writer, type);
    writer_text(writer, bits8 ? "\r\nContent-Transfer-Encoding: 8bit" : "");
    writer_text(writer, "\r\n\r\n");
}

static bool fits(const struct notice *notice, const uint8_t *bytes, size_t length, size_t room) {
    return length + NOTICE_TEXT_BYTES < room && memmem(bytes, length, notice->boundary, strlen(notice->boundary)) == NULL;
}

/* The whole message, when that was asked for and can be done. A job's notices together return no more than one of the largest: what failed
 * 500 times must not fill Redis, where producers are refused but outcomes never are. */
static bool whole_write(struct writer *writer, const struct notice *notice, size_t room) {
    struct message message;
    size_t most = NOTICE_FULL_BYTES_MAX / (notice->job->recipient_total > 0 ? notice->job->recipient_total : 1);
    if (!notice->job->dsn_full || notice->kind != NOTICE_FAILED || content_length(notice->job) + notice->job->raw_length > most ||
        !message_make(notice, true, &message))
        return false;
    if (message_flatten(&message) != 0) {
        message_free(&message);
        return false;
    }
    const uint8_t *bytes = message.bytes + message.start;
    /* A job's text is UTF-8, and this goes into one. */
    bool good = message.length <= most && is_utf8(bytes, message.length) && fits(notice, bytes, message.length, room);
    if (good) {
        bool global = has_8bit(bytes, message.header_length);
        part_begin(writer, notice, global ? "message/global" : "message/rfc822", global || message.body_8bit);
        writer_bytes(writer, bytes, message.length);
        writer_crlf(writer);
    }
    message_free(&message);
    return good;
}

/* From, To and Subject, when nothing better can be had. */
static void sketch_write(struct writer *writer, const struct notice *notice) {
    const struct mailbox *bad;
    bool utf8 = false;
    if (notice->job->from.email != NULL)
        header_mailboxes(writer, "From", &notice->job->from, 1, &utf8, &bad);
    header_mailboxes(writer, "To", &notice->recipient->mailbox, 1, &utf8, &bad);
    if (notice->job->subject != NULL)
        header_text(writer, "Subject", notice->job->subject);
}

/* A header field's bytes beyond ASCII (only raw messages have some) become question marks: text/rfc822-headers is 7-bit (RFC 6522 4). */
static void header_write(struct writer *writer, const uint8_t *bytes, size_t length) {
    if (!writer_room(writer, length))
        return;
    for (size_t i = 0; i < length; i++)
        writer->bytes[writer->at++] = bytes[i] < 0x80 ? bytes[i] : '?';
    writer->line = writer->at;
}

void returned_write(struct writer *writer, const struct notice *notice, size_t room) {
    struct message message;
    if (whole_write(writer, notice, room))
        return;
    bool made = message_make(notice, false, &message);
    if (made && fits(notice, message.bytes + message.start, message.header_length, room)) {
        part_begin(writer, notice, "text/rfc822-headers", false);
        header_write(writer, message.bytes + message.start, message.header_length);
        writer_crlf(writer);
    } else if (!made && notice->job->raw == NULL && room > 64 * NOTICE_TEXT_BYTES) {
        struct writer sketch = {.limit = room};
        sketch_write(&sketch, notice);
        if (sketch.error == 0) {
            part_begin(writer, notice, "text/rfc822-headers", false);
            header_write(writer, sketch.bytes, sketch.at);
            writer_crlf(writer);
        }
        free(sketch.bytes);
    }
    if (made)
        message_free(&message);
}

void returned_message_id(const struct notice *notice, char *out, size_t out_bytes) {
    static const char name[] = "\r\nmessage-id:";
    struct message message;
    out[0] = '\0';
    if (!message_make(notice, false, &message))
        return;
    const char *at = (const char *)message.bytes + message.start, *end = at + message.header_length;
    for (; at + sizeof(name) - 1 < end; at++) {
        if (strncasecmp(at, name, sizeof(name) - 1) == 0) {
            at += sizeof(name) - 1;
            at += strspn(at, " \t");
            size_t length = strcspn(at, " \t\r\n");
            bool good = length > 2 && length < out_bytes && at[0] == '<' && at[length - 1] == '>' && !has_8bit((const uint8_t *)at, length);
            if (good)
                snprintf(out, out_bytes, "%.*s", (int)length, at);
            break;
        }
    }
    message_free(&message);
}
