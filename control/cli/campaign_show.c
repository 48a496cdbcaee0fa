/* campaign_show.c: `bypost campaign list` and `show`. */
#include "campaign.h"
#include "control/clock.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    RATE_SAMPLE_MS = 500, /* between two looks, for the rate */
    REASON_EVENTS = 2000, /* of each shard are looked through for reasons */
    REASONS_SHOWN = 5,
    REASON_BYTES = 160,
    LIST_DEFAULT = 100,
};

static uint64_t count_of(const json_t *figures, const char *field) {
    json_int_t value = json_integer_value(json_object_get(figures, field));
    return value > 0 ? (uint64_t)value : 0;
}

static const char *text_of(const json_t *figures, const char *field) {
    const char *text = json_string_value(json_object_get(figures, field));
    return text ? text : "";
}

static void time_text(uint64_t ms, char out[32]) {
    time_t seconds = (time_t)(ms / 1000);
    struct tm tm;
    strftime(out, 32, "%Y-%m-%d %H:%M:%S", localtime_r(&seconds, &tm));
}

static void span_text(uint64_t seconds, char out[32]) {
    if (seconds >= 86400) {
        snprintf(out, 32, "%" PRIu64 "d %02" PRIu64 "h", seconds / 86400, seconds % 86400 / 3600);
    } else if (seconds >= 3600) {
        snprintf(out, 32, "%" PRIu64 "h %02" PRIu64 "m", seconds / 3600, seconds % 3600 / 60);
    } else {
        snprintf(out, 32, "%" PRIu64 "m %02" PRIu64 "s", seconds / 60, seconds % 60);
    }
}

/* -- list -- */

static void list_print(const json_t *list) {
    size_t index;
    json_t *figures;
    if (json_array_size(list) == 0) {
        puts("There is no campaign; `bypost campaign create` makes one.");
        return;
    }
    cli_print(stdout, "%-32s %-18s %11s %6s %11s %10s %11s  %s\n", "CAMPAIGN", "STATE", "SUBMITTED", "DONE", "DELIVERED", "BOUNCED", "OPEN",
              "CREATED");
    json_array_foreach(list, index, figures) {
        uint64_t submitted = count_of(figures, "submitted"), open = campaign_open_recipients(figures);
        char created[32];
        time_text(count_of(figures, "created"), created);
        cli_print(stdout, "%-32s %-18s %11" PRIu64 " %4.0f %% %11" PRIu64 " %10" PRIu64 " %11" PRIu64 "  %s\n",
                  text_of(figures, "campaign"), campaign_state(figures), submitted,
                  submitted ? (double)(submitted - open) * 100.0 / (double)submitted : 0.0, count_of(figures, "delivered"),
                  count_of(figures, "bounced"), open, created);
    }
}

struct view {
    struct campaign_options common;
    bool watch;
    double seconds;
    unsigned long count, skip;
};

/* The options; what stands behind them begins at argv[optind]. */
static int view_options(int argc, char **argv, struct view *view) {
    static const struct option options[] = {{"json", no_argument, NULL, 'j'},
                                            {"watch", optional_argument, NULL, 'w'},
                                            {"count", required_argument, NULL, 'n'},
                                            {"skip", required_argument, NULL, 's'},
                                            {"redis", required_argument, NULL, 'r'},
                                            {"config", required_argument, NULL, 'c'},
                                            {0}};
    *view = (struct view){.seconds = 1, .count = LIST_DEFAULT};
    for (int option; (option = getopt_long(argc, argv, "c:w::", options, NULL)) != -1;) {
        char *end = NULL;
        if (option == 'j') {
            view->common.json = true;
        } else if (option == 'w') {
            view->watch = true;
            view->seconds = optarg ? strtod(optarg, &end) : 1;
            if (optarg && (*end || end == optarg || !(view->seconds >= 0.1 && view->seconds <= 3600))) {
                return cli_complain(CLI_USAGE, CAMPAIGN, "--watch '%s': give seconds from 0.1 to 3600.", optarg);
            }
        } else if (option == 'n' || option == 's') {
            bool good = option == 'n' ? cli_number(CAMPAIGN, "count", optarg, 1, 10000, &view->count)
                                      : cli_number(CAMPAIGN, "skip", optarg, 0, 1000000000, &view->skip);
            if (!good) {
                return CLI_USAGE;
            }
        } else if (option == 'r') {
            view->common.redis = optarg;
        } else if (option == 'c') {
            view->common.config = optarg;
        } else {
            return cli_usage(CAMPAIGN);
        }
    }
    return CLI_OK;
}

int campaign_list_run(int argc, char **argv) {
    struct view view;
    struct campaign_client client = {.config = NULL};
    json_t *list = NULL;
    int code = view_options(argc, argv, &view);
    if (code == CLI_OK && optind < argc) {
        code = cli_complain(CLI_USAGE, CAMPAIGN, "list takes no name; `bypost campaign show NAME` shows one.");
    }
    code = code == CLI_OK ? campaign_open(&client, &view.common) : code;
    code = code == CLI_OK ? campaign_all(&client, (uint32_t)view.skip, (uint32_t)view.count, &list) : code;
    if (code == CLI_OK && view.common.json) {
        size_t index;
        json_t *figures;
        json_array_foreach(list, index, figures) {
            json_object_set_new(figures, "open", json_integer((json_int_t)campaign_open_recipients(figures)));
            json_object_set_new(figures, "shown_state", json_string(campaign_state(figures)));
        }
        json_dumpf(list, stdout, JSON_COMPACT | JSON_SORT_KEYS);
        putchar('\n');
    } else if (code == CLI_OK) {
        list_print(list);
    }
    json_decref(list);
    campaign_close(&client);
    return code;
}

/* -- show -- */

/* Why recipients are deferred or have bounced, by the last events: reason -> how many, and what was said to the newest. */
static void reasons_gather(const char *campaign, const redisReply *reply, json_t *reasons) {
    for (size_t i = 0; reply && reply->type == REDIS_REPLY_ARRAY && i < reply->elements; i++) {
        const redisReply *entry = reply->element[i];
        if (entry->type != REDIS_REPLY_ARRAY || entry->elements != 2 || entry->element[1]->elements < 2) {
            continue;
        }
        json_t *event = json_loads(entry->element[1]->element[1]->str, 0, NULL);
        const char *type = text_of(event, "type");
        if (event && strcmp(text_of(event, "queue"), campaign) == 0 && strcmp(type, "delivered") != 0 && strcmp(type, "accepted") != 0) {
            const json_t *response = json_object_get(event, "response");
            char reason[REASON_BYTES];
            int length = snprintf(reason, sizeof reason, "%s", type);
            if (*text_of(event, "class")) {
                length += snprintf(reason + length, sizeof reason - (size_t)length, ", %s", text_of(event, "class"));
            }
            if (count_of(response, "code")) {
                length += snprintf(reason + length, sizeof reason - (size_t)length, ": %" PRIu64 " %.12s", count_of(response, "code"),
                                   text_of(response, "enhanced_code"));
            }
            if (*text_of(event, "provider")) {
                snprintf(reason + length, sizeof reason - (size_t)length, " at %.40s", text_of(event, "provider"));
            }
            for (char *c = reason; *c; c++) {
                *c = (unsigned char)*c < ' ' || *c == 127 ? ' ' : *c; /* a peer's text moves no cursor */
            }
            json_t *before = json_object_get(reasons, reason);
            if (before) {
                json_object_set_new(before, "events", json_integer((json_int_t)count_of(before, "events") + 1));
            } else { /* events come newest first */
                json_object_set_new(reasons, reason, json_pack("{s:i,s:s}", "events", 1, "example", text_of(response, "content")));
            }
        }
        json_decref(event);
    }
}

static json_t *reasons_read(struct campaign_client *client, const char *campaign) {
    json_t *reasons = json_object(), *top = json_array();
    for (uint32_t shard = 0; shard < client->config->redis.shards; shard++) {
        redisReply *reply = redisCommand(client->redis, "XREVRANGE %sevents + - COUNT %d", client->bases[shard], REASON_EVENTS);
        reasons_gather(campaign, reply, reasons);
        if (reply) {
            freeReplyObject(reply);
        }
    }
    for (int i = 0; i < REASONS_SHOWN; i++) {
        const char *reason, *most = NULL;
        json_t *found;
        uint64_t highest = 0;
        json_object_foreach(reasons, reason, found) {
            if (count_of(found, "events") > highest) {
                highest = count_of(found, "events");
                most = reason;
            }
        }
        if (!most) {
            break;
        }
        json_array_append_new(top, json_pack("{s:s,s:I,s:s}", "reason", most, "events", (json_int_t)highest, "example",
                                             text_of(json_object_get(reasons, most), "example")));
        json_object_del(reasons, most);
    }
    json_decref(reasons);
    return top;
}

/* "480-1200 60" as people write it. */
static void window_text(const char *window, char out[48]) {
    int from, to, offset;
    *out = 0;
    if (sscanf(window, "%d-%d %d", &from, &to, &offset) == 3) {
        snprintf(out, 48, "%02d:%02d-%02d:%02d (UTC%c%02d:%02d)", from / 60, from % 60, to / 60, to % 60, offset < 0 ? '-' : '+',
                 abs(offset) / 60, abs(offset) % 60);
    }
}

static void line_print(const char *label, uint64_t count, uint64_t of) {
    cli_print(stdout, "  %-12s %12" PRIu64 "  %5.1f %%\n", label, count, of ? (double)count * 100.0 / (double)of : 0.0);
}

static void show_print(const json_t *figures) {
    uint64_t submitted = count_of(figures, "submitted"), open = count_of(figures, "open");
    double rate = json_number_value(json_object_get(figures, "rate_now"));
    char text[48], span[32];
    cli_print(stdout, "%s: %s", text_of(figures, "campaign"), text_of(figures, "shown_state"));
    if (*text_of(figures, "reason") && strcmp(text_of(figures, "state"), "running") != 0) {
        cli_print(stdout, " (%s)", text_of(figures, "reason"));
    }
    time_text(count_of(figures, "state_ms"), span);
    cli_print(stdout, ", since %s\n", span);
    if (strcmp(text_of(figures, "state"), "cancelled") == 0) {
        uint64_t grace = json_object_get(figures, "grace_ms") ? count_of(figures, "grace_ms") : 3600000;
        time_text(count_of(figures, "state_ms") + grace, span);
        cli_print(stdout, "  `bypost campaign resume %s` undoes it until %s\n", text_of(figures, "campaign"), span);
    }
    cli_print(stdout, "  %-12s %12" PRIu64 "  in %" PRIu64 " chunks\n", "submitted", submitted, count_of(figures, "chunks"));
    static const char *const finals[] = {"delivered", "bounced", "expired", "suppressed", "cancelled", "dead"};
    for (unsigned i = 0; i < sizeof finals / sizeof *finals; i++) {
        if (i < 2 || count_of(figures, finals[i])) {
            line_print(finals[i], count_of(figures, finals[i]), submitted);
        }
    }
    line_print("open", open, submitted);
    static const char *const waits[][2] = {{"retrying", "  retrying"}, {"parked", "  parked"}, {"held", "  held"}};
    for (unsigned i = 0; i < sizeof waits / sizeof *waits; i++) {
        if (count_of(figures, waits[i][0])) {
            line_print(waits[i][1], count_of(figures, waits[i][0]), submitted);
        }
    }
    if (count_of(figures, "held")) {
        puts("               `bypost holds` says what holds them; without a hold they await `bypost retry` (on_uncertain: hold)");
    }
    cli_print(stdout, "  %-12s %12.0f/s", "rate", rate);
    if (json_object_get(figures, "rate")) {
        double limit = json_number_value(json_object_get(figures, "rate"));
        if (limit > 0) {
            cli_print(stdout, "  of at most %.6g/s", limit);
        }
    }
    if (json_object_get(figures, "finish_in")) {
        span_text(count_of(figures, "finish_in"), span);
        cli_print(stdout, "  about %s left", span);
    }
    putchar('\n');
    if (json_object_get(figures, "weight")) {
        cli_print(stdout, "  %-12s %12.6g\n", "weight", json_number_value(json_object_get(figures, "weight")));
    }
    window_text(text_of(figures, "window"), text);
    if (*text) {
        cli_print(stdout, "  %-12s %s\n", "window", text);
    }
    static const char *const times[] = {"not_before", "expires_at", "created", "finished"};
    for (unsigned i = 0; i < sizeof times / sizeof *times; i++) {
        if (count_of(figures, times[i])) {
            time_text(count_of(figures, times[i]), span);
            cli_print(stdout, "  %-12s %s\n", times[i], span);
        }
    }
    if (*text_of(figures, "tenant")) {
        cli_print(stdout, "  %-12s %s\n", "tenant", text_of(figures, "tenant"));
    }
    size_t index;
    json_t *reason;
    json_array_foreach(json_object_get(figures, "reasons"), index, reason) {
        fputs(index == 0 ? "reasons, of the last events:\n" : "", stdout);
        cli_print(stdout, *text_of(reason, "example") ? "  %6" PRIu64 "  %s, such as: %.*s\n" : "  %6" PRIu64 "  %s%.*s\n",
                  count_of(reason, "events"), text_of(reason, "reason"), REASON_BYTES, text_of(reason, "example"));
    }
}

/* What follows from two looks at the counters. */
static void figures_complete(struct campaign_client *client, json_t *figures, uint64_t ended_before, uint64_t passed_ms) {
    uint64_t open = campaign_open_recipients(figures), submitted = count_of(figures, "submitted"), ended = submitted - open;
    double rate = passed_ms && ended > ended_before ? (double)(ended - ended_before) * 1000.0 / (double)passed_ms : 0;
    json_object_set_new(figures, "open", json_integer((json_int_t)open));
    json_object_set_new(figures, "shown_state", json_string(campaign_state(figures)));
    json_object_set_new(figures, "rate_now", json_real(rate));
    if (rate > 0 && open > 0) {
        json_object_set_new(figures, "finish_in", json_integer((json_int_t)((double)open / rate)));
    }
    json_object_set_new(figures, "reasons", reasons_read(client, text_of(figures, "campaign")));
}

static bool moves(const json_t *figures) {
    const char *state = campaign_state(figures);
    return (strcmp(state, "running") == 0 || strcmp(state, "uploading") == 0) && campaign_open_recipients(figures) > 0;
}

static int show(struct campaign_client *client, const struct view *view, const char *name) {
    uint64_t ended_before = 0, before_ms = 0;
    for (bool first = true;; first = false) {
        json_t *figures = NULL;
        int code = campaign_figures(client, name, &figures);
        if (code != CLI_OK) {
            return code;
        }
        uint64_t now = clock_ms(CLOCK_MONOTONIC), ended = count_of(figures, "submitted") - campaign_open_recipients(figures);
        bool again = view->watch || (first && moves(figures)), print = !again || !first;
        if (print) {
            figures_complete(client, figures, before_ms ? ended_before : ended, before_ms ? now - before_ms : 0);
            if (view->common.json) {
                json_dumpf(figures, stdout, JSON_COMPACT | JSON_SORT_KEYS);
                putchar('\n');
            } else {
                fputs(view->watch && isatty(STDOUT_FILENO) ? "\x1b[H\x1b[J" : "", stdout);
                show_print(figures);
            }
            fflush(stdout);
        }
        bool finished = json_object_get(figures, "finished") != NULL;
        json_decref(figures);
        if ((!view->watch && print) || ferror(stdout) || (view->watch && finished && print)) {
            return CLI_OK;
        }
        ended_before = ended;
        before_ms = now;
        uint64_t wait_us = print || view->watch ? (uint64_t)(view->seconds * 1e6) : RATE_SAMPLE_MS * 1000;
        wait_us = first ? RATE_SAMPLE_MS * 1000 : wait_us;
        nanosleep(&(struct timespec){.tv_sec = (time_t)(wait_us / 1000000), .tv_nsec = (long)(wait_us % 1000000) * 1000}, NULL);
    }
}

int campaign_show_run(int argc, char **argv) {
    struct view view;
    struct campaign_client client = {.config = NULL};
    int code = view_options(argc, argv, &view);
    if (code == CLI_OK && argc - optind != 1) {
        code = cli_complain(CLI_USAGE, CAMPAIGN, "name one campaign; `bypost campaign list` shows them.");
    }
    code = code == CLI_OK ? campaign_open(&client, &view.common) : code;
    code = code == CLI_OK ? show(&client, &view, argv[optind]) : code;
    campaign_close(&client);
    return code;
}
