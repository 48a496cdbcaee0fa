/* rendering.h: one rendering under way, as the files of this room share it. */
#ifndef CONTROL_RENDER_RENDERING_H
#define CONTROL_RENDER_RENDERING_H

#include "render.h"
#include "address.h"
#include "identity.h"
#include "merge.h"
#include "prepared.h"
#include "token.h"
#include "writer.h"

/* What bulk.c has made already: each once a message, and only where it is asked for. */
struct bulk {
    char *unsubscribe;                          /* list_unsubscribe with its variables, or NULL */
    char *unsubscribe_url, *unsubscribe_mailto; /* the first of each kind in it, or NULL */
    bool unsubscribe_begun, list_begun;
    /* What is behind is not zeroed for each message but begun with "". */
    char list[TOKEN_LIST_BYTES];
    char token[TOKEN_TEXT_BYTES];
    char message_id[IDENTITY_HEX_BYTES + DOMAIN_BYTES];
    char entry[48];
};

struct rendering {
    const struct job *job;
    const struct job_recipient *recipient;
    struct message *message;
    struct writer writer;
    const struct identity *identity;
    uint32_t index;                         /* of the recipient */
    bool has_recipient;                     /* message->recipient is it */
    struct merge *merge;                    /* NULL: nothing is filled in */
    bool fills_texts;                       /* else only the fields of bulk.c are templates */
    const struct render_prepared *prepared; /* of its content, or NULL */
    char name[IDENTITY_HEX_BYTES];
    char from_address[ADDRESS_BYTES];
    uint64_t date_s;
    size_t max_bytes;
    size_t body_offset;
    size_t shared_length; /* of the body's shared pieces */
    char *error;
    size_t error_bytes;
    struct bulk bulk;
};

/* Puts a sentence into r->error and returns code. */
__attribute__((format(printf, 3, 4))) int rendering_fail(struct rendering *r, int code, const char *format, ...);

/* Text of a producer in a sentence of ours: short and printable, in out. */
const char *rendering_shown(const char *text, char *out, size_t out_bytes);

/* Are variables to be filled into the job's texts? Where it or any of its recipients brings some, where a text names one of ours, and in
 * every job with a shared content; elsewhere "{{" is text like any other. */
bool rendering_wants_merge(const struct job *job);

enum { RENDERING_FIELD_MAX = 16384 }; /* bytes of a field's value with its variables: servers refuse mail for long headers */

/* Fills the variables of a header field in. *out is the text itself, or *owned, which the caller frees. 0, or -errno with a sentence in
 * r->error. */
int rendering_fill(struct rendering *r, const char *text, bool html, const char **out, char **owned);

#endif
