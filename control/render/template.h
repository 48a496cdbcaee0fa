/* template.h: the text of a part, compiled: which transfer encoding it travels in, and which of its static text is encoded by itself, so
 * that the messages of a content share it. All of it depends on the text alone, so a job and a content of the same text give the same
 * bytes. */
#ifndef CONTROL_RENDER_TEMPLATE_H
#define CONTROL_RENDER_TEMPLATE_H

#include "body.h"
#include "merge.h"
#include "mustache.h"
#include "quoted.h"
#include "stretch.h"

enum {
    TEMPLATE_BASE64_MIN = 256, /* bytes of static text: a short text stays readable */
    TEMPLATE_BLOCK_MIN = 64,   /* bytes of whole lines that are encoded by themselves */
    TEMPLATE_SOFT_MIN = 512,   /* bytes within a line that are: soft line breaks part them from the variables around */
};

enum template_encoding { TEMPLATE_7BIT, TEMPLATE_QUOTED_PRINTABLE, TEMPLATE_BASE64 };

/* What of a literal is encoded by itself. The rest has its line's variables for neighbours. */
struct template_block {
    uint32_t begin, end; /* equal: nothing */
    bool soft_end;       /* its last line goes on behind it */
    struct shared_range range;
    struct quoted_ahead before, behind; /* the rest */
    struct stretch *stretch;            /* in base64 with variables, where it is recorded: instead of the range; or NULL */
};

/* It points into itself: it stays where it was opened. */
struct template {
    struct mustache program;
    char *joined;                  /* the literals around comments in one, or NULL */
    struct template_block *blocks; /* [program.count] where template_record has put them; or NULL */
    struct writer ahead;           /* what is encoded ahead beside them */
    struct stretch *stretches;     /* [stretch_count] that blocks point at, or NULL */
    uint32_t stretch_count;
    enum template_encoding encoding;
    bool html, has_variables;
};

/* Compiles a text, which must outlive it; without `merges` tags are text. 0; -EINVAL or -ENOMEM with a sentence. template_close after 0
 * only. */
int template_open(struct template *template, const char *text, bool html, bool merges, char *error, size_t error_bytes);
void template_close(struct template *template);
/* Memory that it has beside itself. */
size_t template_bytes(const struct template *template);
const char *template_encoding_name(const struct template *template);

/* Encodes the blocks into a writer and keeps their place in it: template_write then refers to them. 0 or -ENOMEM. */
int template_record(struct template *template, struct writer *writer);

/* Their places go; NULL is none. */
void template_forget(struct template *template);

/* Writes one message's text, encoded. `merge` may be NULL where there are no variables. 0; or -EINVAL, -E2BIG (over max_bytes), -ENOMEM
 * with a sentence; the writer of the body may have an error of its own. */
int template_write(const struct template *template, struct merge *merge, size_t max_bytes, struct body *body, char *error,
                   size_t error_bytes);

#endif
