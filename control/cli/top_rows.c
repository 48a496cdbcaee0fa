/* top_rows.c: two samples as tables of rates. */
#include "top.h"
#include "cli.h"
#include "control/clock.h"

#include <stdlib.h>
#include <string.h>

const char *const top_lines[LINES] = {"delivered", "deferred", "bounced", "new"};

const struct top_panel top_panels[PANELS] = {
    [PANEL_QUEUES] = {"QUEUE",
                      "1",
                      "waiting: entries in Redis, of all nodes; rates: this node's",
                      8,
                      4,
                      {{"WAITING", "waiting", TOP_COUNT, 9},
                       {"RETRYING", "retrying", TOP_COUNT, 9},
                       {"PARKED", "parked", TOP_COUNT, 8},
                       {"HELD", "held", TOP_COUNT, 8},
                       {"DELIV/s", "delivered_per_second", TOP_RATE, 9},
                       {"DEFER/s", "deferred_per_second", TOP_RATE, 8},
                       {"BOUNCE/s", "bounced_per_second", TOP_RATE, 9},
                       {"DELIVERED", "delivered", TOP_COUNT, 10}}},
    [PANEL_SITES] = {"SITE",
                     "2",
                     NULL,
                     7,
                     3,
                     {{"WAITING", "waiting", TOP_COUNT, 9},
                      {"ON WIRE", "outstanding", TOP_COUNT, 8},
                      {"SESSIONS", "sessions", TOP_COUNT, 9},
                      {"DELIV/s", "delivered_per_second", TOP_RATE, 9},
                      {"DEFER/s", "deferred_per_second", TOP_RATE, 8},
                      {"BOUNCE/s", "bounced_per_second", TOP_RATE, 9},
                      {"DELIVERED", "delivered", TOP_COUNT, 10}}},
    [PANEL_PROVIDERS] = {"PROVIDER",
                         "3",
                         NULL,
                         7,
                         3,
                         {{"WAITING", "waiting", TOP_COUNT, 9},
                          {"ON WIRE", "outstanding", TOP_COUNT, 8},
                          {"SESSIONS", "sessions", TOP_COUNT, 9},
                          {"DELIV/s", "delivered_per_second", TOP_RATE, 9},
                          {"DEFER/s", "deferred_per_second", TOP_RATE, 8},
                          {"BOUNCE/s", "bounced_per_second", TOP_RATE, 9},
                          {"DELIVERED", "delivered", TOP_COUNT, 10}}},
    [PANEL_REASONS] = {"REASON",
                       "4",
                       NULL,
                       4,
                       0,
                       {{"DEFER/s", "deferred_per_second", TOP_RATE, 9},
                        {"BOUNCE/s", "bounced_per_second", TOP_RATE, 9},
                        {"DEFERRED", "deferred", TOP_COUNT, 10},
                        {"BOUNCED", "bounced", TOP_COUNT, 10}}},
    [PANEL_WORKERS] = {"WORKER",
                       "5",
                       NULL,
                       8,
                       0,
                       {{"BUSY", "busy", TOP_SHARE, 6},
                        {"SESSIONS", "sessions", TOP_COUNT, 9},
                        {"READY", "ready", TOP_COUNT, 8},
                        {"TCP", "connections", TOP_COUNT, 8},
                        {"CONNECT/s", "connects_per_second", TOP_RATE, 10},
                        {"DELIV/s", "delivered_per_second", TOP_RATE, 9},
                        {"RETRANS/s", "retransmits_per_second", TOP_RATE, 10},
                        {"OUT/s", "sent_bytes_per_second", TOP_BYTES_RATE, 9}}},
    [PANEL_TENANTS] =
        {"TENANT",
         "6",
         NULL,
         4,
         0,
         {{"DELIV/s", "delivered_per_second", TOP_RATE, 9},
          {"DEFER/s", "deferred_per_second", TOP_RATE, 8},
          {"BOUNCE/s", "bounced_per_second", TOP_RATE, 9},
          {"DELIVERED", "delivered", TOP_COUNT, 10}}},
};

static const json_t *control_of(const struct sample *sample) {
    return sample ? sample->control : NULL;
}

static double number_of(const json_t *object, const char *key) {
    return (double)json_integer_value(json_object_get(object, key));
}

static double seconds_between(const struct top *top) {
    return top->before && top->now->time_ms > top->before->time_ms ? (double)(top->now->time_ms - top->before->time_ms) / 1000.0 : 0;
}

/* The row of the same name in a list of the sample before, or NULL. */
static const json_t *row_before(const struct top *top, const char *list, const char *name) {
    size_t index;
    const json_t *row;
    json_array_foreach(json_object_get(control_of(top->before), list), index, row) {
        const char *other = json_string_value(json_object_get(row, "name"));
        if (other && strcmp(other, name) == 0) {
            return row;
        }
    }
    return NULL;
}

/* A count that went back belongs to another life of the row. */
static double rate_of(const struct top *top, const json_t *before, const json_t *now, const char *key) {
    double seconds = seconds_between(top), from = number_of(before, key), to = number_of(now, key);
    return before && seconds > 0 && to > from ? (to - from) / seconds : 0;
}

/* Texts come from peers: nothing that moves a terminal's cursor passes. */
static void name_copy(char *out, size_t room, const char *text) {
    size_t length = 0;
    for (; text && *text && length + 1 < room; text++) {
        out[length++] = (unsigned char)*text < 0x20 || *text == 0x7f ? ' ' : *text;
    }
    while (length > 0 && text && *text && ((unsigned char)out[length - 1] & 0xc0) == 0x80) {
        length--; /* no half characters at the cut */
    }
    out[length] = 0;
    cli_clean(out);
}

static struct top_row *row_add(struct top *top, enum top_panel_kind panel, const char *name) {
    for (uint32_t i = 0; i < top->row_count[panel]; i++) {
        if (strcmp(top->rows[panel][i].name, name) == 0) {
            return &top->rows[panel][i];
        }
    }
    if (top->row_count[panel] == TOP_ROWS_MAX) {
        return NULL;
    }
    struct top_row *row = &top->rows[panel][top->row_count[panel]++];
    *row = (struct top_row){0};
    name_copy(row->name, sizeof row->name, name);
    return row;
}

/* Sites and providers have what waits in front of their rates; tenants have not. */
static void rows_read(struct top *top, enum top_panel_kind panel, const char *list, bool waiting) {
    size_t index;
    const json_t *entry;
    json_array_foreach(json_object_get(control_of(top->now), list), index, entry) {
        const char *name = json_string_value(json_object_get(entry, "name"));
        struct top_row *row = name ? row_add(top, panel, name) : NULL;
        if (!row) {
            continue;
        }
        const json_t *before = row_before(top, list, name);
        double *values = row->values;
        if (waiting) {
            *values++ = number_of(entry, "waiting");
            *values++ = number_of(entry, "outstanding");
            *values++ = number_of(entry, "sessions");
            snprintf(row->state, sizeof row->state, "%s", number_of(entry, "resting") > 0 ? "rests" : "");
        }
        *values++ = rate_of(top, before, entry, "delivered");
        *values++ = rate_of(top, before, entry, "deferred");
        *values++ = rate_of(top, before, entry, "bounced");
        *values = number_of(entry, "delivered");
    }
}

static void reasons_read(struct top *top) {
    size_t index;
    const json_t *entry;
    json_array_foreach(json_object_get(control_of(top->now), "classes"), index, entry) {
        const char *name = json_string_value(json_object_get(entry, "name"));
        struct top_row *row = name ? row_add(top, PANEL_REASONS, name) : NULL;
        const json_t *before = name ? row_before(top, "classes", name) : NULL;
        if (row) {
            row->values[0] = rate_of(top, before, entry, "deferred");
            row->values[1] = rate_of(top, before, entry, "bounced");
            row->values[2] = number_of(entry, "deferred");
            row->values[3] = number_of(entry, "bounced");
        }
    }
}

/* Depths from Redis, rates of this node. */
static void queues_read(struct top *top) {
    size_t index;
    const json_t *entry;
    json_array_foreach(json_object_get(json_object_get(control_of(top->now), "store"), "queues"), index, entry) {
        const char *name = json_string_value(json_object_get(entry, "name"));
        struct top_row *row = name ? row_add(top, PANEL_QUEUES, name) : NULL;
        if (row) {
            name_copy(row->state, sizeof row->state, json_string_value(json_object_get(entry, "state")));
            row->values[0] = number_of(entry, "entries") + number_of(entry, "retry_entries");
            row->values[1] = number_of(entry, "retrying");
            row->values[2] = number_of(entry, "parked");
            row->values[3] = number_of(entry, "held");
        }
    }
    json_array_foreach(json_object_get(control_of(top->now), "queues"), index, entry) {
        const char *name = json_string_value(json_object_get(entry, "name"));
        struct top_row *row = name ? row_add(top, PANEL_QUEUES, name) : NULL;
        const json_t *before = name ? row_before(top, "queues", name) : NULL;
        if (row) {
            row->values[4] = rate_of(top, before, entry, "delivered");
            row->values[5] = rate_of(top, before, entry, "deferred");
            row->values[6] = rate_of(top, before, entry, "bounced");
            row->values[7] = number_of(entry, "delivered");
        }
    }
}

static void workers_read(struct top *top) {
    for (uint32_t w = 0; top->now->journal && w < top->now->workers; w++) {
        char name[16];
        snprintf(name, sizeof name, "%u", w);
        struct top_row *row = row_add(top, PANEL_WORKERS, name);
        const uint64_t *values = top->now->values[w];
        double loops = row ? sample_rate(top->before, top->now, w, SAMPLE_loops) : 0;
        if (row) {
            row->values[0] = loops > 0 ? sample_rate(top->before, top->now, w, SAMPLE_loops_busy) / loops : 0;
            row->values[1] = (double)values[SAMPLE_sessions_open];
            row->values[2] = (double)values[SAMPLE_sessions_ready];
            row->values[3] = (double)values[SAMPLE_tcp_connections];
            row->values[4] = sample_rate(top->before, top->now, w, SAMPLE_tcp_connects);
            row->values[5] = sample_rate(top->before, top->now, w, SAMPLE_messages_delivered);
            row->values[6] = sample_rate(top->before, top->now, w, SAMPLE_tcp_retransmits);
            row->values[7] = sample_rate(top->before, top->now, w, SAMPLE_bytes_out);
        }
    }
}

void top_advance(struct top *top, struct sample *sample) {
    static const struct {
        const char *group, *key;
    } totals[LINES] = {{"settle", "delivered"}, {"settle", "deferred"}, {"settle", "bounced"}, {"fetch", "recipients"}};
    sample_free(top->before);
    top->before = top->now;
    top->now = sample;
    memset(top->row_count, 0, sizeof top->row_count);
    queues_read(top);
    rows_read(top, PANEL_SITES, "sites", true);
    rows_read(top, PANEL_PROVIDERS, "providers", true);
    rows_read(top, PANEL_TENANTS, "tenants", false);
    reasons_read(top);
    workers_read(top);
    for (unsigned i = 0; i < LINES; i++) {
        top->rates[i] = rate_of(top, json_object_get(control_of(top->before), totals[i].group),
                                json_object_get(control_of(top->now), totals[i].group), totals[i].key);
        if (top->before) {
            memmove(top->history[i], top->history[i] + 1, (TOP_HISTORY - 1) * sizeof(double));
            top->history[i][TOP_HISTORY - 1] = top->rates[i];
        }
    }
    top->history_count += top->before && top->history_count < TOP_HISTORY;
}

struct order {
    int column;
};

static int row_compare(const void *a, const void *b, void *context) {
    const struct top_row *left = a, *right = b;
    int column = ((const struct order *)context)->column;
    if (column >= 0 && left->values[column] != right->values[column]) {
        return left->values[column] < right->values[column] ? 1 : -1;
    }
    return strcmp(left->name, right->name);
}

void top_sort(struct top *top, enum top_panel_kind panel, int column) {
    struct order order = {column};
    qsort_r(top->rows[panel], top->row_count[panel], sizeof top->rows[panel][0], row_compare, &order);
}

json_t *top_json(const struct top *top) {
    json_t *root = json_object(), *rates = json_object();
    json_object_set_new(root, "time", json_real((double)clock_ms(CLOCK_REALTIME) / 1000.0));
    for (unsigned i = 0; i < LINES; i++) {
        json_object_set_new(rates, top_lines[i], json_real(top->rates[i]));
    }
    json_object_set_new(root, "rates", rates);
    for (unsigned p = 0; p < PANELS; p++) {
        json_t *rows = json_array();
        for (uint32_t i = 0; i < top->row_count[p]; i++) {
            json_t *row = json_object();
            json_object_set_new(row, "name", json_string(top->rows[p][i].name));
            json_object_set_new(row, "state", json_string(top->rows[p][i].state));
            for (uint32_t c = 0; c < top_panels[p].column_count; c++) {
                json_object_set_new(row, top_panels[p].columns[c].key, json_real(top->rows[p][i].values[c]));
            }
            json_array_append_new(rows, row);
        }
        static const char *const keys[PANELS] = {"queues", "sites", "providers", "reasons", "workers", "tenants"};
        json_object_set_new(root, keys[p], rows);
    }
    json_object_set_new(root, "control", top->now->control ? json_incref(top->now->control) : json_null());
    return root;
}

void top_free(struct top *top) {
    sample_free(top->before);
    sample_free(top->now);
    free(top);
}
