/* mime.h: the MIME structure of a message (RFC 2045, 2046, 2387): one text, alternatives with plain first, inline images, attachments. */
#ifndef CONTROL_RENDER_MIME_H
#define CONTROL_RENDER_MIME_H

#include "control/job.h"
#include "writer.h"

struct mime_content {
    const char *text, *html; /* UTF-8, or NULL */
    uint32_t attachment_count;
    const struct job_attachment *attachments;
    const char *name; /* of the message: boundaries are made of it */
};

/* Writes MIME-Version, the Content fields, the empty line and the body. Returns the offset in the writer where the body begins. */
size_t mime_write(struct writer *writer, const struct mime_content *content);

/* About how many bytes a content will take. */
size_t mime_estimate(const struct mime_content *content);

#endif
