/* check.c: whether the texts of a content or of a job can be filled in at all: what no recipient's data would mend is told once. */
#include "bulk.h"
#include "control/bulk_field.h"
#include "merge.h"
#include "render.h"
#include "rendering.h"

#include <errno.h>
#include <stdio.h>

enum { CHECK_ERROR_BYTES = 512, CHECK_NAME_BYTES = 80 };

/* A variable of ours that there is not would be missing for everybody. */
static int check_variables(const struct mustache *program, const char *text, char fault[CHECK_ERROR_BYTES]) {
    const struct mustache_op *unknown = bulk_unknown_variable(program);
    uint32_t line = 1, column = 1;
    if (unknown == NULL)
        return 0;
    for (const char *before = text; before < unknown->text; before++) {
        column = *before == '\n' ? 1 : column + ((*before & 0xC0) != 0x80);
        line += *before == '\n';
    }
    snprintf(fault, CHECK_ERROR_BYTES, "line %u, column %u: there is no variable \"%.*s\"; of bypost there are " BUILT_IN_NAMES, line,
             column, (int)unknown->length, unknown->text);
    return -EINVAL;
}

static int check_text(const char *what, const char *text, char *error, size_t error_bytes) {
    char fault[CHECK_ERROR_BYTES], shown[CHECK_NAME_BYTES];
    struct mustache program;
    if (!merge_is_template(text))
        return 0;
    int result = mustache_compile(&program, text, fault, sizeof(fault));
    if (result == 0) {
        result = check_variables(&program, text, fault);
        mustache_free(&program);
    }
    if (result != 0)
        snprintf(error, error_bytes, "%s, %s", rendering_shown(what, shown, sizeof(shown)), fault);
    return result;
}

/* What has variables where merge data is brought. */
static int check_texts(const struct job *job, char *error, size_t error_bytes) {
    int result = check_text("subject", job->subject, error, error_bytes);
    if (result == 0)
        result = check_text("text", job->text, error, error_bytes);
    if (result == 0)
        result = check_text("html", job->html, error, error_bytes);
    for (uint32_t i = 0; i < job->header_count && result == 0; i++)
        result = check_text(job->headers[i].name, job->headers[i].value, error, error_bytes);
    return result;
}

/* What has them in any case. */
static int check_bulk(const struct job *job, char *error, size_t error_bytes) {
    int result = check_text("list_id", job->list_id, error, error_bytes);
    if (result == 0)
        result = check_text("feedback_id", job->feedback_id, error, error_bytes);
    return result == 0 ? bulk_check_unsubscribe(job->list_unsubscribe, error, error_bytes) : result;
}

int render_check(const struct job *fields, char *error, size_t error_bytes) {
    int result = check_texts(fields, error, error_bytes);
    return result == 0 ? check_bulk(fields, error, error_bytes) : result;
}

int render_check_job(const struct job *job, char *error, size_t error_bytes) {
    if (job->raw != NULL)
        return 0;
    return rendering_wants_merge(job) ? render_check(job, error, error_bytes) : check_bulk(job, error, error_bytes);
}
