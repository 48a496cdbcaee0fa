/* mime.h: the MIME structure of a message (RFC 2045, 2046, 2387): one text, alternatives with plain first, inline images, attachments. */
#ifndef CONTROL_RENDER_MIME_H
#define CONTROL_RENDER_MIME_H

#include "control/job.h"
#include "writer.h"

struct template_filled;

/* Bytes that are encoded already. */
struct mime_encoded {
    uint8_t *bytes;
    size_t length;
};

struct mime_content {
    const char *text, *html;                             /* UTF-8, or NULL */
    const struct template_filled *text_leaf, *html_leaf; /* what to write in their stead, or NULL */
    const struct mime_encoded *encoded;                  /* [attachment_count] in base64, or NULL */
    uint32_t attachment_count;
    const struct job_attachment *attachments;
    const char *name; /* of the message: boundaries are made of it */
};

/* Writes MIME-Version, the Content fields, the empty line and the body. Returns the offset in the writer where the body begins. */
size_t mime_write(struct writer *writer, const struct mime_content *content);

/* About how many bytes a content will take. */
size_t mime_estimate(const struct mime_content *content);

#endif
