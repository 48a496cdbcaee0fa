/* merge.h: the variables of a recipient, and a compiled template run over them: {{name}} (escaped in HTML), {{{name}}} and {{&name}} (as
 * they are), sections. */
#ifndef CONTROL_RENDER_MERGE_H
#define CONTROL_RENDER_MERGE_H

#include "mustache.h"
#include "values.h"
#include "writer.h"

#include <stdbool.h>
#include <stddef.h>

/* What filling in a message has cost so far, in all its texts together: MUSTACHE_STEPS_MAX, MUSTACHE_MEMBERS_MAX. */
struct merge_work {
    uint32_t steps;
    uint64_t members; /* that were compared with names */
};

/* Two JSON objects, either of which may be missing: what `own` lacks is looked for in `global`. */
struct merge {
    const struct values *global;
    bool has_own, has_global;
    struct values own;
    struct values read_global;                                /* where global is its own */
    const char *(*built_in)(void *context, const char *name); /* or NULL */
    void *context;
    struct merge_work work; /* of the message that it is for */
};

/* Reads both objects (either may be NULL); they must outlive it. 0; -EINVAL or -ENOMEM with a sentence. merge_close after 0 only. */
int merge_open(struct merge *merge, const char *global, const char *own, char *error, size_t error_bytes);
/* The same with a global object that was read already (or NULL) and is only read: many threads may share it. */
int merge_open_over(struct merge *merge, const struct values *global, const char *own, char *error, size_t error_bytes);
/* Each of the two, with `names` (or NULL) for the recipient's object. */
int merge_open_named(struct merge *merge, const struct values *read_global, const char *global, const char *own,
                     const struct value_names *names, char *error, size_t error_bytes);
void merge_close(struct merge *merge);

/* What render itself knows of a message: {{bypost.NAME}}, which merge data never covers. `look_up` gives the text of NAME, which must live
 * until merge_close, or NULL: there is none of this name. */
#define MERGE_BUILT_IN "bypost."
void merge_built_in(struct merge *merge, const char *(*look_up)(void *context, const char *name), void *context);

/* Gives the names of a template numbers: from then on it runs over objects that were read with these names, or with none. */
void merge_number(struct mustache *program, struct value_names *names);

/* Whether a text may hold variables at all. */
bool merge_is_template(const char *text);

/* One run of a template. */
struct merge_run {
    const struct mustache *program;
    const struct merge *merge;
    struct merge_work *work;
    const struct values *own; /* the recipient's, where they are read with names; or NULL */
    const struct mustache_op *next, *end;
    uint32_t depth;
    struct merge_frame {
        const struct value *item, *end; /* the context, and the end of the list that it is in */
        struct value built_in;          /* where the context is one of render's */
    } frames[MUSTACHE_DEPTH_MAX];
    struct value built_in; /* the last that was asked for */
};

/* The next piece of output. */
struct merge_step {
    const struct mustache_op *op; /* a literal, or the variable */
    const struct value *value;    /* of a variable: no list, no object */
};

/* `merge` may be NULL where there are no variables; the run counts in `work`. */
void merge_run_begin(struct merge_run *run, const struct mustache *program, const struct merge *merge, struct merge_work *work);
/* What merge_run_next does where it takes more than a look. */
int merge_run_on(struct merge_run *run, struct merge_step *step, char *error, size_t error_bytes);
/* 1: *step is one; 0: the end; -EINVAL with a sentence: a variable that is missing or is no plain value, or too much work. */
static inline int merge_run_next(struct merge_run *run, struct merge_step *step, char *error, size_t error_bytes) {
    struct merge_work *work = run->work;
    const struct mustache_op *op = run->next;
    const struct value *value = NULL;
    uint64_t members = work->members;
    if (op == run->end)
        return 0;
    bool found = op->kind == MUSTACHE_LITERAL;
    if (op->kind == MUSTACHE_VARIABLE && run->depth == 0 && run->own != NULL) {
        value = values_numbered(run->own, op->number, &members);
        found = value != NULL && value->kind <= VALUE_STRING;
    }
    if (!found || work->steps >= MUSTACHE_STEPS_MAX || members > MUSTACHE_MEMBERS_MAX)
        return merge_run_on(run, step, error, error_bytes);
    work->steps++;
    work->members = members;
    run->next++;
    *step = (struct merge_step){.op = op, .value = value};
    return 1;
}

/* Whether a variable of that name, outside of sections, has a value. 0, or -EINVAL with the sentence that a message would have. */
int merge_check(const struct merge *merge, const char *name, char *error, size_t error_bytes);

/* The value of a variable outside of sections. 0, or -EINVAL with a sentence. */
int merge_variable(struct merge *merge, const struct mustache_op *variable, struct value *value, char *error, size_t error_bytes);

/* Writes the text with its variables filled in to *out (malloc'd, the caller's). -EINVAL for what merge_run_next refuses or a malformed
 * template; -E2BIG over max_bytes; -ENOMEM; each with a sentence in error. */
int merge_expand(struct merge *merge, const char *text, bool html, size_t max_bytes, char **out, char *error, size_t error_bytes);
/* The same of a compiled one into a writer that may have its own limit. 0 or -EINVAL; the writer's error is its own. */
int merge_write(struct merge *merge, const struct mustache *program, bool html, struct writer *writer, char *error, size_t error_bytes);

#endif
