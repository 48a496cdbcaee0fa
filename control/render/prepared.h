/* prepared.h: what the messages of a shared content have in common, made once: compiled texts, the body's shared bytes, header fields.
 * Private to render. A part counts only where the job's own member is the content's (the same pointer). */
#ifndef CONTROL_RENDER_PREPARED_H
#define CONTROL_RENDER_PREPARED_H

#include "address.h"
#include "body.h"
#include "identity.h"
#include "mime.h"
#include "template.h"

enum { PREPARED_VERBATIM_MIN = 64 << 10 }; /* an attachment of at least so many bytes has no relaxed form of its own: base64 is one */

/* Header fields that are written already. */
struct prepared_fields {
    struct writer writer;
    bool there, utf8;
};

/* A tag of list_unsubscribe. */
struct prepared_tag {
    const char *at;
    uint32_t length;
    bool raw;
    struct mustache_op variable;
};

/* A part of the body: a text, or shared bytes. */
struct prepared_item {
    const struct template *template; /* or NULL */
    struct shared_range range;
};

/* The body of a message that takes all of its content. */
struct prepared_body {
    bool there;
    struct writer header; /* MIME-Version, the Content fields, the empty line */
    struct shared_bytes shared;
    uint32_t item_count, item_capacity;
    struct prepared_item *items;
    struct shared_range *attachments; /* [attachment_count], in base64 */
};

struct raw_prepared;

struct render_prepared {
    const struct job *fields; /* the content's */
    char boundary[IDENTITY_HEX_BYTES];
    struct value_names names;     /* those of its texts */
    struct values *global;        /* merge_global_data, or NULL: it has none, or it is no JSON */
    struct template *text, *html; /* or NULL: there is none, or it is malformed */
    struct prepared_body body;
    struct raw_prepared *raw; /* of a raw content: its body is all that body.shared has; or NULL */
    struct shared_range raw_body;
    struct prepared_fields senders; /* From, Sender, Reply-To */
    struct prepared_fields subject; /* there where it has no variables */
    struct prepared_fields custom;  /* the same for all headers */
    uint32_t tag_count;             /* of list_unsubscribe, */
    struct prepared_tag *tags;      /* the first of them; one that is malformed is not there */
    bool custom_templates;          /* some header has variables */
    bool custom_bulk;               /* some header is one of bulk.h's, which a job's own member may replace */
    char from_address[ADDRESS_BYTES], from_domain[DOMAIN_BYTES];
    size_t bytes;
};

/* Whether the body of a job is all the content's. */
bool prepared_body_is(const struct render_prepared *prepared, const struct job *job);

#endif
