/* faults.c: the list of a configuration's faults, and how they are printed. */
#include "faults.h"

#include <stdlib.h>
#include <string.h>

void faults_add(struct config_errors *errors, const char *file, uint32_t line, uint32_t column, bool warning, const char *format,
                va_list arguments) {
    if (errors->count >= FAULTS_MAX && (warning || faults_fatal(errors) > 0)) {
        return;
    }
    struct config_error *items = realloc(errors->items, (errors->count + 1) * sizeof *items);
    if (!items) {
        abort(); /* a configuration is read at start, where there is nothing to save */
    }
    errors->items = items;
    char *message = NULL;
    if (vasprintf(&message, format, arguments) < 0) {
        abort();
    }
    items[errors->count++] =
        (struct config_error){.file = strdup(file ? file : ""), .line = line, .column = column, .warning = warning, .message = message};
    errors->warning_count += warning;
}

uint32_t faults_fatal(const struct config_errors *errors) {
    return errors->count - errors->warning_count;
}

static bool fault_before(const struct config_error *a, const struct config_error *b) {
    if (strcmp(a->file, b->file) != 0) {
        return false;
    }
    return a->line != b->line ? a->line < b->line : a->column < b->column;
}

/* Insertion sort: stable, and the list is short. */
void faults_sort(struct config_errors *errors) {
    for (uint32_t i = 1; i < errors->count; i++) {
        struct config_error item = errors->items[i];
        uint32_t at = i;
        while (at > 0 && fault_before(&item, &errors->items[at - 1])) {
            errors->items[at] = errors->items[at - 1];
            at--;
        }
        errors->items[at] = item;
    }
}

void config_errors_free(struct config_errors *errors) {
    for (uint32_t i = 0; i < errors->count; i++) {
        free(errors->items[i].file);
        free(errors->items[i].message);
    }
    free(errors->items);
    *errors = (struct config_errors){0};
}

void config_errors_print(const struct config_errors *errors, FILE *out) {
    for (uint32_t i = 0; i < errors->count; i++) {
        const struct config_error *item = &errors->items[i];
        const char *kind = item->warning ? "warning" : "error";
        if (item->line) {
            fprintf(out, "%s:%u:%u: %s: %s\n", item->file, item->line, item->column, kind, item->message);
        } else {
            fprintf(out, "%s: %s: %s\n", item->file, kind, item->message);
        }
    }
}
