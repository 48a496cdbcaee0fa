/* prepared.h: what the messages of a shared content have in common, made once: compiled texts, encoded attachments, header fields. Private
 * to render. A part counts only where the job's own member is the content's (the same pointer). */
#ifndef CONTROL_RENDER_PREPARED_H
#define CONTROL_RENDER_PREPARED_H

#include "address.h"
#include "mime.h"
#include "template.h"

/* Header fields that are written already. */
struct prepared_fields {
    struct writer writer;
    bool there, utf8;
};

struct render_prepared {
    const struct job *fields; /* the content's */
    struct merge *global;     /* merge_global_data, or NULL: it has none, or it is no JSON */
    struct template *text, *html;
    struct mime_encoded *encoded;   /* attachments, or NULL */
    struct prepared_fields senders; /* From, Sender, Reply-To */
    struct prepared_fields subject; /* there where it has no variables */
    struct prepared_fields custom;  /* the same for all headers */
    bool custom_templates;          /* some header has variables */
    bool custom_bulk;               /* some header is of bulk.h's, which a job's own member may replace */
    char from_address[ADDRESS_BYTES], from_domain[DOMAIN_BYTES];
    size_t bytes;
};

#endif
