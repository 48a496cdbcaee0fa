/* campaign_variables.c: reads the tags with the code that fills them in. */
#include "campaign_variables.h"
#include "control/bulk_field.h"
#include "control/render/merge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { COLUMNS_SHOWN = 12 };

bool variables_has(const struct variables *variables, const char *name) {
    for (uint32_t i = 0; i < variables->count; i++) {
        if (strcmp(variables->names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* {{bypost.NAME}}: what no message could fill in is refused. */
static bool built_in_check(const struct variables *variables, const char *name, char *error) {
    const char *own = name + sizeof(MERGE_BUILT_IN) - 1;
    bool is_url = strcmp(own, "unsubscribe_url") == 0, is_mailto = strcmp(own, "unsubscribe_mailto") == 0;
    if (!built_in_is_known(own)) {
        snprintf(error, ROW_ERROR_BYTES, "there is no variable {{%.64s}}; %s are there", name, BUILT_IN_NAMES);
        return false;
    }
    if ((is_url && !variables->has_url) || (is_mailto && !variables->has_mailto)) {
        snprintf(error, ROW_ERROR_BYTES,
                 "it uses {{%s}}, and has no such link; give it `list_unsubscribe`, or bypost.yaml `bulk: {%s: ...}`", name, own);
        return false;
    }
    return true;
}

static bool variable_add(struct variables *variables, const char *name, char *error) {
    char ignored[ROW_ERROR_BYTES];
    if (strncmp(name, MERGE_BUILT_IN, sizeof(MERGE_BUILT_IN) - 1) == 0) {
        return built_in_check(variables, name, error);
    }
    if (variables_has(variables, name) || merge_check(variables->global, name, ignored, sizeof ignored) == 0) {
        return true;
    }
    if (variables->count == VARIABLES_MAX) {
        snprintf(error, ROW_ERROR_BYTES, "it has more than %d variables", VARIABLES_MAX);
        return false;
    }
    variables->names[variables->count] = strdup(name);
    if (!variables->names[variables->count]) {
        snprintf(error, ROW_ERROR_BYTES, "out of memory");
        return false;
    }
    variables->count++;
    return true;
}

/* What is inside of a section is asked for only where the section is there: no recipient has to bring it. */
static bool text_read(struct variables *variables, const char *where, const char *text, char *error) {
    char fault[ROW_ERROR_BYTES / 2], name[MUSTACHE_NAME_BYTES];
    struct mustache program;
    if (!text || !merge_is_template(text)) {
        return true;
    }
    if (mustache_compile(&program, text, fault, sizeof fault) != 0) {
        snprintf(error, ROW_ERROR_BYTES, "%.60s: %s", where, fault);
        return false;
    }
    bool good = true;
    for (uint32_t i = 0; good && i < program.count; i++) {
        const struct mustache_op *op = &program.ops[i];
        if (op->kind == MUSTACHE_VARIABLE) {
            memcpy(name, op->text, op->length);
            name[op->length] = '\0';
            good = variable_add(variables, name, error);
        } else if (op->kind != MUSTACHE_LITERAL) {
            i = op->partner;
        }
    }
    mustache_free(&program);
    return good;
}

/* The links of List-Unsubscribe that a campaign's messages have: the content's, else the configuration's. */
static void links_read(struct variables *variables, const struct job *content, const struct config *config) {
    const char *own = content->list_unsubscribe;
    bool has_field = own != NULL || content->bulk == CHOICE_NO;
    for (uint32_t i = 0; i < content->header_count; i++) {
        has_field |= strcasecmp(content->headers[i].name, "List-Unsubscribe") == 0;
    }
    variables->has_url = own ? strcasestr(own, "https:") != NULL : !has_field && config->bulk.unsubscribe_url;
    variables->has_mailto = own ? strcasestr(own, "mailto:") != NULL : !has_field && config->bulk.unsubscribe_mailto;
}

bool variables_read(struct variables *variables, const struct job *content, const struct config *config, char *error) {
    *variables = (struct variables){.global = calloc(1, sizeof(struct merge))};
    links_read(variables, content, config);
    variables->global_text = content->merge_global_data ? strdup(content->merge_global_data) : NULL;
    if (!variables->global || (content->merge_global_data && !variables->global_text)) {
        snprintf(error, ROW_ERROR_BYTES, "out of memory");
        free(variables->global);
        variables->global = NULL;
        return false;
    }
    bool good = merge_open(variables->global, variables->global_text, NULL, error, ROW_ERROR_BYTES) == 0;
    if (!good) {
        free(variables->global);
        variables->global = NULL;
    }
    good = good && text_read(variables, "subject", content->subject, error) && text_read(variables, "text", content->text, error) &&
           text_read(variables, "html", content->html, error) &&
           text_read(variables, "list_unsubscribe", content->list_unsubscribe, error) &&
           text_read(variables, "list_id", content->list_id, error) && text_read(variables, "feedback_id", content->feedback_id, error);
    for (uint32_t i = 0; good && i < content->header_count; i++) {
        good = text_read(variables, content->headers[i].name, content->headers[i].value, error);
    }
    return good;
}

const char *variables_missing_column(const struct variables *variables, const struct rows *rows) {
    for (uint32_t i = 0; i < variables->count; i++) {
        if (!rows_merges(rows, variables->names[i])) {
            return variables->names[i];
        }
    }
    return NULL;
}

char *variables_columns(const struct rows *rows) {
    struct writer text = {.limit = SIZE_MAX / 4};
    for (uint32_t i = 0; i < rows->column_count && i < COLUMNS_SHOWN; i++) {
        writer_text(&text, i ? ", `" : "`");
        writer_text(&text, rows->columns[i].title);
        writer_byte(&text, '`');
    }
    writer_text(&text, rows->column_count > COLUMNS_SHOWN ? ", ..." : "");
    writer_byte(&text, 0);
    return (char *)text.bytes;
}

bool variables_given(const struct variables *variables, const char *merge_data, char *error) {
    if (variables->count == 0) {
        return true;
    }
    struct merge merge;
    if (merge_open_over(&merge, variables->global->global, merge_data, error, ROW_ERROR_BYTES) != 0) {
        return false;
    }
    bool good = true;
    for (uint32_t i = 0; good && i < variables->count; i++) {
        good = merge_check(&merge, variables->names[i], error, ROW_ERROR_BYTES) == 0;
    }
    merge_close(&merge);
    return good;
}

void variables_free(struct variables *variables) {
    for (uint32_t i = 0; i < variables->count; i++) {
        free(variables->names[i]);
    }
    if (variables->global) {
        merge_close(variables->global);
        free(variables->global);
    }
    free(variables->global_text);
    *variables = (struct variables){.count = 0};
}
