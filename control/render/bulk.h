/* bulk.h: what a message of many says of itself: List-Id, List-Unsubscribe, Feedback-ID, Precedence; the variables {{bypost.NAME}}; the
 * VERP sender. */
#ifndef CONTROL_RENDER_BULK_H
#define CONTROL_RENDER_BULK_H

#include "rendering.h"

/* Are variables to be filled into these fields (whether they are into texts or not)? */
bool bulk_has_templates(const struct job *job);
/* A header field that is one of these, and left out where the job's own member writes it. */
bool bulk_owns(const struct job *job, const char *name);
/* Some field of that list could be among them. */
bool bulk_field_name(const char *name);

/* Whether the tags of a list_unsubscribe (or NULL) are well-formed. 0; -EINVAL or -ENOMEM with a sentence. */
int bulk_check_unsubscribe(const char *list_unsubscribe, char *error, size_t error_bytes);

/* Compiles the tags of a content's list_unsubscribe, as far as there is memory. */
void bulk_prepare(struct render_prepared *prepared);

/* The first variable {{bypost.NAME}} of which there is none, or NULL. */
const struct mustache_op *bulk_unknown_variable(const struct mustache *program);

/* Writes the fields. 0, or -EINVAL with a sentence in r->error. */
int bulk_write(struct rendering *r);

/* The text of {{bypost.NAME}}, or NULL; `context` is the struct rendering, which keeps it. */
const char *bulk_built_in(void *context, const char *name);
void bulk_free(struct rendering *r);

/* Puts the token into the envelope sender where the job has VERP and no null sender. 0, or -EINVAL with a sentence in r->error. */
int bulk_verp(struct rendering *r);

#endif
