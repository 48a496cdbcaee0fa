/* mime.h: the MIME structure of a message (RFC 2045, 2046, 2387): one text, alternatives with plain first, inline images, attachments. */
#ifndef CONTROL_RENDER_MIME_H
#define CONTROL_RENDER_MIME_H

#include "control/job.h"
#include "template.h"
#include "writer.h"

struct mime_content {
    const struct template *text, *html; /* or NULL */
    uint32_t attachment_count;
    const struct job_attachment *attachments;
    const char *boundary; /* what boundaries are made of */
};

/* Where the structure goes. */
struct mime_output {
    struct writer *header; /* its fields */
    struct writer *body;   /* what is between texts and attachments: whole lines at a time; may be the same */
    void *context;
    void (*begin)(void *context);                                /* the body begins: behind the empty line */
    int (*text)(void *context, const struct template *template); /* writes an encoded text. 0 or -errno */
    void (*attachment)(void *context, uint32_t index);           /* writes it in base64 */
};

/* Writes MIME-Version, the Content fields, the empty line and the body. 0 or what output->text returned. */
int mime_write(const struct mime_output *output, const struct mime_content *content);

#endif
