/* check.c: whether the texts of a content can be filled in at all: what no recipient's data would mend is told once. */
#include "bulk.h"
#include "merge.h"
#include "render.h"
#include "rendering.h"

#include <errno.h>
#include <stdio.h>

enum { CHECK_ERROR_BYTES = 256, CHECK_NAME_BYTES = 80 };

static int check_text(const char *what, const char *text, char *error, size_t error_bytes) {
    char fault[CHECK_ERROR_BYTES], shown[CHECK_NAME_BYTES];
    struct mustache program;
    if (!merge_is_template(text))
        return 0;
    int result = mustache_compile(&program, text, fault, sizeof(fault));
    if (result == 0)
        mustache_free(&program);
    else
        snprintf(error, error_bytes, "%s, %s", rendering_shown(what, shown, sizeof(shown)), fault);
    return result;
}

int render_check(const struct job *fields, char *error, size_t error_bytes) {
    const struct {
        const char *what, *text;
    } texts[] = {{"subject", fields->subject},
                 {"text", fields->text},
                 {"html", fields->html},
                 {"list_id", fields->list_id},
                 {"feedback_id", fields->feedback_id}};
    int result = 0;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]) && result == 0; i++)
        result = check_text(texts[i].what, texts[i].text, error, error_bytes);
    for (uint32_t i = 0; i < fields->header_count && result == 0; i++)
        result = check_text(fields->headers[i].name, fields->headers[i].value, error, error_bytes);
    return result == 0 ? bulk_check_unsubscribe(fields->list_unsubscribe, error, error_bytes) : result;
}
