/* campaign_variables.c: reads the tags with the code that fills them in. */
#include "campaign_variables.h"
#include "control/render/merge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS_SHOWN = 12 };

bool variables_has(const struct variables *variables, const char *name) {
    for (uint32_t i = 0; i < variables->count; i++) {
        if (strcmp(variables->names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

static bool variable_add(struct variables *variables, const char *name, char *error) {
    struct writer value = {.limit = SIZE_MAX / 4};
    char ignored[ROW_ERROR_BYTES];
    bool there = variables_has(variables, name) ||
                 (variables->global && merge_value(variables->global, name, false, &value, ignored, sizeof ignored) == 0);
    free(value.bytes);
    if (there) {
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

static bool text_read(struct variables *variables, const char *where, const char *text, char *error) {
    char fault[ROW_ERROR_BYTES / 2];
    for (const char *at = text ? merge_next_tag(text) : NULL; at; at = merge_next_tag(at)) {
        struct merge_tag tag;
        at = merge_tag_read(at + 2, &tag, fault, sizeof fault);
        if (!at) {
            snprintf(error, ROW_ERROR_BYTES, "%.60s: %s", where, fault);
            return false;
        }
        if (!tag.is_comment && !variable_add(variables, tag.name, error)) {
            return false;
        }
    }
    return true;
}

bool variables_read(struct variables *variables, const struct job *content, char *error) {
    *variables = (struct variables){.global = merge_create(content->merge_global_data, NULL, error, ROW_ERROR_BYTES)};
    bool good = variables->global && text_read(variables, "subject", content->subject, error) &&
                text_read(variables, "text", content->text, error) && text_read(variables, "html", content->html, error) &&
                text_read(variables, "list_unsubscribe", content->list_unsubscribe, error);
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
    struct merge *merge = merge_create_over(variables->global, merge_data, error, ROW_ERROR_BYTES);
    struct writer value = {.limit = SIZE_MAX / 4};
    bool good = merge != NULL;
    for (uint32_t i = 0; good && i < variables->count; i++) {
        value.at = 0;
        good = merge_value(merge, variables->names[i], false, &value, error, ROW_ERROR_BYTES) == 0;
    }
    free(value.bytes);
    merge_free(merge);
    return good;
}

void variables_free(struct variables *variables) {
    for (uint32_t i = 0; i < variables->count; i++) {
        free(variables->names[i]);
    }
    merge_free(variables->global);
    *variables = (struct variables){.count = 0};
}
