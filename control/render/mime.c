/* mime.c: writes multipart/mixed { multipart/alternative { text, multipart/related { html, images } }, attachments }, less what there is no
 * need of. */
#include "mime.h"
#include "content_type.h"
#include "encode.h"
#include "header.h"

enum { FILENAME_MAX_BYTES = 255 };

struct mime {
    const struct mime_output *output;
    const struct mime_content *content;
    struct writer *writer; /* the header's until the first empty line, then the body's */
    bool in_body, is_multipart;
    int result;
};

/* Ends the fields of an entity; the first time these are the message's own. */
static void end_fields(struct mime *mime) {
    writer_crlf(mime->writer);
    if (!mime->in_body) {
        mime->in_body = true;
        mime->writer = mime->output->body;
        mime->output->begin(mime->output->context);
    }
}

/* "=_" occurs in no quoted-printable and "_" in no base64, so a boundary is in no part (RFC 2045 6.7 note 2). */
static void write_boundary(struct mime *mime, char level) {
    writer_text(mime->writer, "=_");
    writer_text(mime->writer, mime->content->boundary);
    writer_byte(mime->writer, '_');
    writer_byte(mime->writer, level);
}

static void write_delimiter(struct mime *mime, char level, bool last) {
    writer_text(mime->writer, "--");
    write_boundary(mime, level);
    if (last)
        writer_text(mime->writer, "--");
    writer_crlf(mime->writer);
}

static void begin_multipart(struct mime *mime, const char *type, char level) {
    mime->is_multipart = true;
    writer_text(mime->writer, "Content-Type: multipart/");
    writer_text(mime->writer, type);
    writer_text(mime->writer, ";");
    writer_fold(mime->writer);
    writer_text(mime->writer, " boundary=\"");
    write_boundary(mime, level);
    writer_text(mime->writer, "\"");
    writer_crlf(mime->writer);
    end_fields(mime);
}

static void write_leaf(struct mime *mime, const char *type, const struct template *template) {
    writer_text(mime->writer, "Content-Type: text/");
    writer_text(mime->writer, type);
    writer_text(mime->writer, "; charset=utf-8");
    writer_crlf(mime->writer);
    writer_text(mime->writer, "Content-Transfer-Encoding: ");
    writer_text(mime->writer, template == NULL ? "7bit" : template_encoding_name(template));
    writer_crlf(mime->writer);
    end_fields(mime);
    if (template != NULL && mime->result == 0)
        mime->result = mime->output->text(mime->output->context, template);
    /* The line end before a delimiter belongs to it (RFC 2046 5.1.1), and the text keeps its own. */
    if (mime->is_multipart)
        writer_crlf(mime->writer);
}

/* Composite types may not be base64 (RFC 2046 5.2.1), so they travel as octets with their file name. */
static bool type_is_sendable(const char *type) {
    return strlen(type) <= CONTENT_TYPE_MAX && content_type_fault(type) == NULL && !content_type_is_composite(type);
}

/* The part of a file name behind its directories, cut at a whole character, and control characters replaced. */
static void filename_clean(const char *filename, char *out) {
    for (const char *at = filename; *at != '\0'; at++)
        if ((*at == '/' || *at == '\\') && at[1] != '\0')
            filename = at + 1;
    size_t used = 0, length = strlen(filename);
    for (size_t at = 0; at < length;) {
        size_t size = utf8_character(filename + at, length - at);
        if (used + (size == 0 ? 1 : size) > FILENAME_MAX_BYTES)
            break;
        bool bad = size == 0 || (size == 1 && ((unsigned char)filename[at] < 32 || filename[at] == 127));
        if (bad)
            out[used++] = '_';
        else
            memcpy(out + used, filename + at, size), used += size;
        at += size == 0 ? 1 : size;
    }
    out[used] = '\0';
}

static void write_content_id(struct writer *writer, const char *content_id) {
    size_t length = strlen(content_id);
    if (length > 2 && content_id[0] == '<' && content_id[length - 1] == '>')
        content_id++, length -= 2;
    bool good = length > 0 && length < HEADER_LINE_MAX / 2;
    for (size_t i = 0; i < length && good; i++)
        good = content_id[i] > 32 && content_id[i] < 127 && content_id[i] != '<' && content_id[i] != '>';
    if (!good)
        return;
    writer_text(writer, "Content-ID: <");
    writer_bytes(writer, content_id, length);
    writer_text(writer, ">");
    writer_crlf(writer);
}

static void write_attachment(struct mime *mime, uint32_t index) {
    const struct job_attachment *attachment = &mime->content->attachments[index];
    struct writer *writer = mime->writer;
    char filename[FILENAME_MAX_BYTES + 1] = "";
    bool sendable = attachment->content_type != NULL && type_is_sendable(attachment->content_type);
    writer_text(writer, "Content-Type:");
    content_type_write(writer, sendable ? attachment->content_type : "application/octet-stream");
    writer_crlf(writer);
    writer_text(writer, "Content-Transfer-Encoding: base64");
    writer_crlf(writer);
    writer_text(writer, attachment->is_inline ? "Content-Disposition: inline" : "Content-Disposition: attachment");
    if (attachment->filename != NULL)
        filename_clean(attachment->filename, filename);
    if (filename[0] != '\0')
        header_parameter(writer, "filename", filename);
    writer_crlf(writer);
    if (attachment->content_id != NULL)
        write_content_id(writer, attachment->content_id);
    end_fields(mime);
    mime->output->attachment(mime->output->context, index);
}

/* Belongs to the HTML part: the HTML names it by cid:. */
static bool is_related(const struct mime_content *content, const struct job_attachment *attachment) {
    return content->html != NULL && attachment->is_inline && attachment->content_id != NULL;
}

static uint32_t related_count(const struct mime_content *content) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < content->attachment_count; i++)
        count += is_related(content, &content->attachments[i]);
    return count;
}

static void write_attachments(struct mime *mime, bool related, char level) {
    for (uint32_t i = 0; i < mime->content->attachment_count; i++) {
        const struct job_attachment *attachment = &mime->content->attachments[i];
        if (is_related(mime->content, attachment) == related) {
            write_delimiter(mime, level, false);
            write_attachment(mime, i);
        }
    }
    write_delimiter(mime, level, true);
}

static void write_html(struct mime *mime) {
    if (related_count(mime->content) == 0) {
        write_leaf(mime, "html", mime->content->html);
        return;
    }
    begin_multipart(mime, "related; type=\"text/html\"", 'r');
    write_delimiter(mime, 'r', false);
    write_leaf(mime, "html", mime->content->html);
    write_attachments(mime, true, 'r');
}

static void write_texts(struct mime *mime) {
    const struct mime_content *content = mime->content;
    if (content->html == NULL) {
        write_leaf(mime, "plain", content->text);
    } else if (content->text == NULL) {
        write_html(mime);
    } else {
        begin_multipart(mime, "alternative", 'a');
        write_delimiter(mime, 'a', false);
        write_leaf(mime, "plain", content->text);
        write_delimiter(mime, 'a', false);
        write_html(mime);
        write_delimiter(mime, 'a', true);
    }
}

int mime_write(const struct mime_output *output, const struct mime_content *content) {
    struct mime mime = {.output = output, .content = content, .writer = output->header};
    writer_text(mime.writer, "MIME-Version: 1.0");
    writer_crlf(mime.writer);
    if (content->attachment_count == related_count(content)) {
        write_texts(&mime);
    } else {
        begin_multipart(&mime, "mixed", 'm');
        if (content->text != NULL || content->html != NULL) {
            write_delimiter(&mime, 'm', false);
            write_texts(&mime);
        }
        write_attachments(&mime, false, 'm');
    }
    return mime.result;
}
