/* rendering.h: one rendering under way, as the files of this room share it. */
#ifndef CONTROL_RENDER_RENDERING_H
#define CONTROL_RENDER_RENDERING_H

#include "render.h"
#include "address.h"
#include "identity.h"
#include "merge.h"
#include "prepared.h"
#include "writer.h"

struct rendering {
    const struct job *job;
    const struct job_recipient *recipient;
    struct message *message;
    struct writer writer;
    struct merge *merge;                    /* NULL: texts are taken as they are */
    const struct render_prepared *prepared; /* of its content, or NULL */
    char name[IDENTITY_HEX_BYTES];
    char from_address[ADDRESS_BYTES];
    uint64_t date_s;
    size_t max_bytes;
    size_t body_offset;
    char *error;
    size_t error_bytes;
};

/* Puts a sentence into r->error and returns code. */
__attribute__((format(printf, 3, 4))) int rendering_fail(struct rendering *r, int code, const char *format, ...);

/* Text of a producer in a sentence of ours: short and printable, in out. */
const char *rendering_shown(const char *text, char *out, size_t out_bytes);

/* Fills a text's variables in. *out is the text itself, or *owned, which the caller frees. 0, or -errno with a sentence in r->error. */
int rendering_fill(struct rendering *r, const char *text, bool html, const char **out, char **owned);

#endif
