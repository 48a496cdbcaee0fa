/* top.h: what the files of `bypost top` share: tables of rates, and the screen they are drawn on. */
#ifndef CONTROL_CLI_TOP_H
#define CONTROL_CLI_TOP_H

#include "sample.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { TOP_NAME_BYTES = 128, TOP_ROWS_MAX = 192, TOP_COLUMNS_MAX = 10, TOP_HISTORY = 120 };

enum top_format { TOP_COUNT, TOP_RATE, TOP_SHARE, TOP_BYTES_RATE };
struct top_column {
    const char *head, *key; /* on the screen, in JSON */
    enum top_format format;
    int width;
};
struct top_row {
    char name[TOP_NAME_BYTES], state[16];
    double values[TOP_COLUMNS_MAX];
};
enum top_panel_kind { PANEL_QUEUES, PANEL_SITES, PANEL_PROVIDERS, PANEL_REASONS, PANEL_WORKERS, PANEL_TENANTS, PANELS };
struct top_panel {
    const char *title, *key, *note;
    uint32_t column_count, default_sort;
    struct top_column columns[TOP_COLUMNS_MAX];
};
extern const struct top_panel top_panels[PANELS];

enum top_line { LINE_DELIVERED, LINE_DEFERRED, LINE_BOUNCED, LINE_NEW, LINES };
extern const char *const top_lines[LINES];

/* What is shown: rates between two samples. */
struct top {
    struct sample *before, *now;
    uint32_t row_count[PANELS];
    struct top_row rows[PANELS][TOP_ROWS_MAX];
    double rates[LINES];
    double history[LINES][TOP_HISTORY]; /* the newest last */
    uint32_t history_count;
};
/* Takes over the sample, and computes what is shown. */
void top_advance(struct top *top, struct sample *sample);
/* Sorts a panel by a column, the largest first; ties and column -1 by name. */
void top_sort(struct top *top, enum top_panel_kind panel, int column);
json_t *top_json(const struct top *top);
void top_free(struct top *top);

/* How it is drawn. */
struct top_view {
    int rows, columns;
    bool color, utf8;
    int zoom; /* a panel alone, or -1: all of them */
    int sort[PANELS];
    bool paused, help;
    double interval_s;
};
void top_draw(const struct top *top, const struct top_view *view, FILE *out);

#endif
