/* top_screen.c: draws `bypost top` with plain ANSI escapes: every line is cut to the terminal's width, and only what is there is written.
 */
#include "cli.h"
#include "top.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LINE_BYTES = 2048, SPARK_MAX = 40, ALARMS_SHOWN = 3, FIELD_BYTES = 32 };

struct canvas {
    const struct top *top;
    const struct top_view *view;
    FILE *out;
    int left; /* lines that may still be written */
};

#define BOLD   "\033[1m"
#define DIM    "\033[2m"
#define RED    "\033[31m"
#define GREEN  "\033[32m"
#define YELLOW "\033[33m"
#define CYAN   "\033[36m"
#define INVERT "\033[7m"
#define PLAIN  "\033[0m"

/* A line: escapes take no room (and are left out without colour), a UTF-8 character takes one place; the rest is cut off. */
static void line_write(struct canvas *canvas, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void line_write(struct canvas *canvas, const char *format, ...) {
    char text[LINE_BYTES];
    va_list arguments;
    int places = 0;
    if (canvas->left <= 0) {
        return;
    }
    canvas->left--;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (const char *at = text; *at;) {
        if (*at == '\033') {
            size_t length = strcspn(at, "m");
            length += at[length] != 0;
            if (canvas->view->color) {
                fwrite(at, 1, length, canvas->out);
            }
            at += length;
            continue;
        }
        size_t length = 1;
        while (((unsigned char)at[length] & 0xc0) == 0x80) {
            length++;
        }
        if (places++ >= canvas->view->columns) {
            break;
        }
        fwrite(at, 1, length, canvas->out);
        at += length;
    }
    fputs(canvas->view->color ? PLAIN "\033[K" : "", canvas->out);
    if (canvas->left > 0 || !canvas->view->color) {
        fputc('\n', canvas->out);
    }
}

/* 12,345 or 1.23M: never wider than seven places. */
static const char *count_text(double value, char out[FIELD_BYTES]) {
    static const char units[] = "kMGT";
    if (value < 100000) {
        unsigned long whole = (unsigned long)(value + 0.5);
        snprintf(out, FIELD_BYTES, whole >= 1000 ? "%lu,%03lu" : "%lu", whole >= 1000 ? whole / 1000 : whole, whole % 1000);
        return out;
    }
    int unit = -1;
    while (value >= 1000 && unit < 3) {
        value /= 1000;
        unit++;
    }
    snprintf(out, FIELD_BYTES, value < 10 ? "%.2f%c" : value < 100 ? "%.1f%c" : "%.0f%c", value, units[unit]);
    return out;
}

static const char *field_text(enum top_format format, double value, char out[FIELD_BYTES]) {
    switch (format) {
    case TOP_RATE:
        if (value > 0 && value < 10) {
            snprintf(out, FIELD_BYTES, "%.1f", value);
            return out;
        }
        return value > 0 ? count_text(value, out) : strcpy(out, "-");
    case TOP_SHARE:
        snprintf(out, FIELD_BYTES, "%.0f%%", value * 100);
        return out;
    case TOP_BYTES_RATE:
        snprintf(out, FIELD_BYTES,
                 value < 1e6   ? "%.1f kB"
                 : value < 1e9 ? "%.1f MB"
                               : "%.2f GB",
                 value / (value < 1e6   ? 1e3
                          : value < 1e9 ? 1e6
                                        : 1e9));
        return out;
    case TOP_COUNT:
    default:
        return value > 0 ? count_text(value, out) : strcpy(out, "-");
    }
}

/* The last rates, scaled to their own peak. */
static const char *spark_text(const struct canvas *canvas, enum top_line line, int places, char *out, size_t room) {
    static const char *const blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    static const char *const letters[] = {"_", ".", "-", "=", "+", "*", "%", "#"};
    const double *history = canvas->top->history[line] + TOP_HISTORY - places;
    double peak = 0;
    for (int i = 0; i < places; i++) {
        peak = history[i] > peak ? history[i] : peak;
    }
    size_t length = 0;
    for (int i = 0; i < places && length + 4 < room; i++) {
        bool known = places - i <= (int)canvas->top->history_count;
        unsigned level = peak > 0 ? (unsigned)(history[i] / peak * 7.999) : 0;
        const char *mark = !known || history[i] <= 0 ? " " : canvas->view->utf8 ? blocks[level] : letters[level];
        length += (size_t)snprintf(out + length, room - length, "%s", mark);
    }
    out[length] = 0;
    return out;
}

/* A bar of so many places, filled by a share. */
static const char *bar_text(const struct canvas *canvas, double share, int places, char *out, size_t room) {
    size_t length = 0;
    int filled = (int)(share * places + 0.5);
    for (int i = 0; i < places && length + 4 < room; i++) {
        const char *mark = i < filled ? canvas->view->utf8 ? "█" : "#" : canvas->view->utf8 ? "░" : ".";
        length += (size_t)snprintf(out + length, room - length, "%s", mark);
    }
    out[length] = 0;
    return out;
}

static double number_of(const json_t *object, const char *key) {
    return (double)json_integer_value(json_object_get(object, key));
}

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static const char *uptime_text(double seconds, char out[FIELD_BYTES]) {
    uint64_t whole = (uint64_t)seconds;
    if (whole >= 86400) {
        snprintf(out, FIELD_BYTES, "%" PRIu64 "d %02" PRIu64 ":%02" PRIu64, whole / 86400, whole / 3600 % 24, whole / 60 % 60);
    } else {
        snprintf(out, FIELD_BYTES, "%" PRIu64 ":%02" PRIu64 ":%02" PRIu64, whole / 3600, whole / 60 % 60, whole % 60);
    }
    return out;
}

static void head_draw(struct canvas *canvas) {
    const json_t *control = canvas->top->now->control;
    char clock[16], uptime[FIELD_BYTES];
    time_t now = time(NULL);
    struct tm parts;
    localtime_r(&now, &parts);
    strftime(clock, sizeof clock, "%T", &parts);
    line_write(canvas, BOLD CYAN "bypost top" PLAIN "  node " BOLD "%s" PLAIN "  %s  up %s  " DIM "%s  every %.3g s%s" PLAIN,
               control ? text_of(control, "node") : "?", control ? text_of(control, "version") : "",
               uptime_text(number_of(control, "uptime_seconds"), uptime), clock, canvas->view->interval_s,
               canvas->view->paused ? ", paused" : "");
}

static void state_draw(struct canvas *canvas) {
    const struct sample *sample = canvas->top->now;
    const json_t *control = sample->control, *store = json_object_get(control, "store");
    char used[FIELD_BYTES], most[FIELD_BYTES], bar[64], redis[256] = "";
    if (!control) {
        line_write(canvas, RED "control does not answer" PLAIN ": %s", sample->control_error);
    } else {
        bool up = strcmp(text_of(control, "redis"), "up") == 0;
        double memory = number_of(store, "memory_bytes"), maximum = number_of(store, "memory_max_bytes");
        int length = snprintf(redis, sizeof redis, "Redis %s%s" PLAIN, up ? GREEN : RED, text_of(control, "redis"));
        if (up && memory > 0) {
            length += snprintf(redis + length, sizeof redis - (size_t)length, " %.1f ms  %sB", number_of(store, "latency_us") / 1000,
                               count_text(memory, used));
        }
        if (up && maximum > 0) {
            snprintf(redis + length, sizeof redis - (size_t)length, "/%sB %s", count_text(maximum, most),
                     bar_text(canvas, memory / maximum, 10, bar, sizeof bar));
        }
    }
    bool running = sample->journal && sample->running;
    line_write(canvas, "%s%sDataplane %s%s" PLAIN "  %u worker%s, %u slots in use%s%s", redis, control ? "   " : "", running ? GREEN : RED,
               running ? "up" : "down", sample->workers, sample->workers == 1 ? "" : "s", sample->slots_used,
               json_is_true(json_object_get(control, "draining")) ? YELLOW "  draining" PLAIN : "",
               running && sample->draining ? YELLOW "  dataplane drains" PLAIN : "");
}

static void rates_draw(struct canvas *canvas) {
    static const char *const colors[LINES] = {GREEN, YELLOW, RED, CYAN};
    static const char *const keys[LINES] = {"delivered", "deferred", "bounced", "recipients"};
    const json_t *control = canvas->top->now->control, *held = json_object_get(control, "held"), *store = json_object_get(control, "store");
    int places = canvas->view->columns - 62;
    places = places < 0 ? 0 : places > SPARK_MAX ? SPARK_MAX : places;
    for (unsigned i = 0; i < LINES; i++) {
        char rate[FIELD_BYTES], total[FIELD_BYTES], side[FIELD_BYTES], spark[SPARK_MAX * 4 + 1];
        double values[LINES] = {number_of(store, "depth"),
                                number_of(held, "shaped") + number_of(held, "parked") + number_of(held, "routing"),
                                number_of(held, "in_progress"), number_of(control, "lanes")};
        static const char *const sides[LINES] = {"in Redis", "in control", "on the wire", "sites in use"};
        line_write(canvas, "%s%-10s" PLAIN BOLD "%9s/s " PLAIN DIM "%8s " PLAIN "%s%s" PLAIN "  %8s " DIM "%s" PLAIN, colors[i],
                   top_lines[i], field_text(TOP_RATE, canvas->top->rates[i], rate),
                   count_text(number_of(json_object_get(control, i == LINE_NEW ? "fetch" : "settle"), keys[i]), total), colors[i],
                   spark_text(canvas, i, places, spark, sizeof spark), count_text(values[i], side), sides[i]);
    }
}

static void alarms_draw(struct canvas *canvas) {
    const json_t *alarms = json_object_get(canvas->top->now->control, "alarms"), *alarm;
    size_t index;
    json_array_foreach(alarms, index, alarm) {
        if (index == ALARMS_SHOWN) {
            line_write(canvas, RED "! %zu more: `bypost alarms`" PLAIN, json_array_size(alarms) - index);
            break;
        }
        char safe[LINE_BYTES / 2];
        snprintf(safe, sizeof safe, "%s %s: %s", text_of(alarm, "kind"), text_of(alarm, "subject"), text_of(alarm, "text"));
        cli_clean(safe);
        for (char *at = safe; *at; at++) {
            *at = *at == '\n' ? ' ' : *at;
        }
        size_t places = canvas->view->columns > 8 ? (size_t)canvas->view->columns - 2 : 0; /* behind the "! " */
        if (strlen(safe) > places && places > 0) {
            size_t end = places - 3;
            while (end > 0 && ((unsigned char)safe[end] & 0xc0) == 0x80) {
                end--;
            }
            snprintf(safe + end, sizeof safe - end, "...");
        }
        line_write(canvas, BOLD RED "! %s" PLAIN, safe);
    }
}

/* Columns that do not fit are left out from the right, the name gets what is over. */
static uint32_t panel_columns(const struct canvas *canvas, const struct top_panel *panel, int *name_width) {
    uint32_t count = 0;
    int used = 0, least = 18;
    while (count < panel->column_count && used + panel->columns[count].width + 1 + least <= canvas->view->columns) {
        used += panel->columns[count++].width + 1;
    }
    *name_width = canvas->view->columns - used;
    *name_width = *name_width > 48 ? 48 : *name_width;
    return count;
}

/* A name cut or filled to a width counted in characters. */
static void name_pad(char *out, size_t room, const char *name, const char *state, int width) {
    char both[TOP_NAME_BYTES + 32];
    snprintf(both, sizeof both, "%s%s%s%s", name, *state ? " (" : "", state, *state ? ")" : "");
    size_t length = 0;
    int places = 0;
    for (const char *at = both; *at && places < width - 1 && length + 8 < room; places++) {
        do {
            out[length++] = *at++;
        } while (((unsigned char)*at & 0xc0) == 0x80);
    }
    for (; places < width && length + 1 < room; places++) {
        out[length++] = ' ';
    }
    out[length] = 0;
}

static void panel_draw(struct canvas *canvas, enum top_panel_kind kind, int rows) {
    const struct top_panel *panel = &top_panels[kind];
    char line[LINE_BYTES], name[TOP_NAME_BYTES * 2], field[FIELD_BYTES];
    int width;
    uint32_t columns = panel_columns(canvas, panel, &width);
    name_pad(name, sizeof name, panel->title, panel->key, width);
    int length = snprintf(line, sizeof line, "%s", name);
    for (uint32_t c = 0; c < columns; c++) {
        bool sorted = canvas->view->sort[kind] == (int)c;
        length += snprintf(line + length, sizeof line - (size_t)length, " %s%*s%s", sorted ? BOLD : "", panel->columns[c].width,
                           panel->columns[c].head, sorted ? PLAIN INVERT : "");
    }
    line_write(canvas, INVERT "%s%*s", line, canvas->view->columns, "");
    for (uint32_t i = 0; i < canvas->top->row_count[kind] && (int)i < rows; i++) {
        const struct top_row *row = &canvas->top->rows[kind][i];
        bool bad = *row->state && strcmp(row->state, "running") != 0;
        name_pad(name, sizeof name, row->name, bad ? row->state : "", width);
        length = snprintf(line, sizeof line, "%s%s%s", bad ? YELLOW : "", name, bad ? PLAIN : "");
        for (uint32_t c = 0; c < columns; c++) {
            length += snprintf(line + length, sizeof line - (size_t)length, " %*s", panel->columns[c].width,
                               field_text(panel->columns[c].format, row->values[c], field));
        }
        line_write(canvas, "%s", line);
    }
    if (canvas->top->row_count[kind] == 0) {
        line_write(canvas, DIM "  nothing yet" PLAIN);
    }
}

/* Each panel gets what it needs; what is short is shared evenly. */
static void panels_draw(struct canvas *canvas) {
    int room = canvas->left - 1, wanted[PANELS], panels = 0;
    bool shown[PANELS] = {0};
    for (unsigned p = 0; p < PANELS; p++) {
        shown[p] = canvas->top->row_count[p] > 0 || p == PANEL_QUEUES || p == PANEL_SITES;
        wanted[p] = shown[p] ? 1 : 0;
        panels += shown[p];
    }
    room -= panels * 2; /* a head and at least one row */
    for (bool given = true; given && room > 0;) {
        given = false;
        for (unsigned p = 0; p < PANELS && room > 0; p++) {
            if (shown[p] && wanted[p] < (int)canvas->top->row_count[p]) {
                wanted[p]++;
                room--;
                given = true;
            }
        }
    }
    for (unsigned p = 0; p < PANELS; p++) {
        if (shown[p] && canvas->left > 2) {
            panel_draw(canvas, p, wanted[p]);
        }
    }
}

static void help_draw(struct canvas *canvas) {
    static const char *const lines[] = {
        "1 queues   2 sites   3 providers   4 reasons   5 workers   6 tenants   0 all of them",
        "s          sort by the next column (its head is bold); S by name",
        "+ -        longer or shorter between looks    space  pause    q  quit",
        "",
        "Rates and sites are this node's own; every node has its own socket. What waits in queues is in Redis, for all nodes.",
        "BUSY is the share of a worker's passes that moved something. (rests): no session may be opened there now.",
        "The busiest and the fullest are listed: control keeps 1,024 names of each kind.",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        line_write(canvas, "  %s", lines[i]);
    }
}

void top_draw(const struct top *top, const struct top_view *view, FILE *out) {
    struct canvas canvas = {.top = top, .view = view, .out = out, .left = view->rows};
    head_draw(&canvas);
    state_draw(&canvas);
    rates_draw(&canvas);
    alarms_draw(&canvas);
    line_write(&canvas, "%s", "");
    if (view->help) {
        help_draw(&canvas);
    } else if (view->zoom >= 0) {
        panel_draw(&canvas, view->zoom, canvas.left - 2);
        if (top_panels[view->zoom].note) {
            line_write(&canvas, DIM "%s" PLAIN, top_panels[view->zoom].note);
        }
    } else {
        panels_draw(&canvas);
    }
    if (view->color) {
        while (canvas.left > 1) {
            line_write(&canvas, "%s", "");
        }
        line_write(&canvas, DIM "q quit  h help  0-6 panel  s sort  space pause  +/- interval" PLAIN);
    }
}
