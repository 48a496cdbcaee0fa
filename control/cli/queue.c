/* queue.c: `bypost queue`: what waits, by queue, site, provider, age or reason: counters of Redis and what control has in hand, never a
 * look at each recipient. */
#include "control/clock.h"
#include "operator.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "Usage: bypost queue [--by queue|site|provider|age|reason] [--limit N] [--json]\n\n"
    "Shows what waits: in the queues' streams (ready), for a later try (retrying), for room in a site's window (parked),\n"
    "for the end of a hold or a decision (held), and what this node has in hand. From counters: as cheap for a hundred\n"
    "million recipients as for ten.\n\n"
    "      --by queue            a line a queue (the default): the fullest first\n"
    "      --by site, provider   who waits for whom, and what is in hand for them\n"
    "      --by age              waiting records by the time of their next try; the age of each queue's oldest entry\n"
    "      --by reason           waiting recipients by the class of their last reply\n"
    "  -n, --limit N             so many lines (50)\n"
    "      --json                one JSON object\n"
    "  -c, --config FILE         the configuration (/etc/bypost/bypost.yaml)\n"
    "      --redis ADDRESS       HOST:PORT or unix:PATH instead of the configuration's\n"
    "      --help, --version\n\n"
    "Exit status: 0 shown, 64 usage, 69 Redis does not answer, 75 Redis is busy, 78 the configuration has errors.\n";

static const char name[] = "queue";

enum { QUEUES_STEP = 100, DUE_STEP = 1000, CONTROL_TIMEOUT_MS = 3000, EDGES = 7, SCAN_COUNT = 1000 };

enum by { BY_QUEUE, BY_SITE, BY_PROVIDER, BY_AGE, BY_REASON, BY_KINDS };
static const char *const by_names[BY_KINDS] = {"queue", "site", "provider", "age", "reason"};
static const char *const edges[EDGES] = {"now", "within 1 min", "within 10 min", "within 1 h", "within 6 h", "within 24 h", "later"};

static json_int_t integer_of(const json_t *object, const char *key) {
    return json_integer_value(json_object_get(object, key));
}

static void add_to(json_t *object, const char *key, json_int_t more) {
    json_object_set_new(object, key, json_integer(integer_of(object, key) + more));
}

/* The rows of all shards added up, by name. */
static json_t *queues_read(struct operator_call *call) {
    json_t *queues = json_object();
    for (uint32_t shard = 0; shard < call->config->redis.shards; shard++) {
        for (long long offset = 0; offset >= 0;) {
            char from[24], count[16];
            snprintf(from, sizeof from, "%lld", offset);
            snprintf(count, sizeof count, "%d", QUEUES_STEP);
            const char *argv[] = {"queues", from, count};
            redisReply *reply = operator_function(call, shard, "bypost_inspect", 3, argv);
            if (!reply) {
                return queues;
            }
            json_t *rows = json_loads(operator_text(reply, 1), 0, NULL), *row;
            size_t index;
            long long next = operator_number(reply, 0);
            offset = next > offset ? next : -1;
            json_array_foreach(rows, index, row) {
                const char *queue = json_string_value(json_object_get(row, "queue")), *key;
                json_t *sum = queue ? json_object_get(queues, queue) : NULL, *value;
                if (queue && !sum) {
                    json_object_set(queues, queue, row);
                } else if (queue) {
                    json_object_foreach(row, key, value) {
                        json_int_t known = integer_of(sum, key);
                        if (strcmp(key, "oldest_ms") == 0) {
                            if (known == 0 || json_integer_value(value) < known) {
                                json_object_set(sum, key, value);
                            }
                        } else if (json_is_integer(value)) {
                            add_to(sum, key, json_integer_value(value));
                        }
                    }
                }
            }
            json_decref(rows);
            freeReplyObject(reply);
        }
    }
    return queues;
}

/* `waiting` of all shards: those fields that begin with "PREFIX:", by the rest. */
static json_t *waiting_read(struct operator_call *call, const char *prefix) {
    json_t *sums = json_object();
    size_t length = strlen(prefix);
    for (uint32_t shard = 0; shard < call->config->redis.shards; shard++) {
        char *key = cli_key(call->config, shard, "waiting"), cursor[24] = "0", count[16], pattern[64];
        snprintf(count, sizeof count, "%d", SCAN_COUNT);
        snprintf(pattern, sizeof pattern, "%s*", prefix);
        do {
            const char *argv[] = {"HSCAN", key, cursor, "MATCH", pattern, "COUNT", count};
            redisReply *reply = operator_run(call, 7, argv);
            if (!reply) {
                break;
            }
            snprintf(cursor, sizeof cursor, "%s", operator_text(reply, 0));
            const redisReply *found = reply->elements >= 2 ? reply->element[1] : NULL;
            for (size_t i = 0; found && i + 1 < found->elements; i += 2) {
                if (strlen(operator_text(found, i)) > length) {
                    add_to(sums, operator_text(found, i) + length, (json_int_t)operator_number(found, i + 1));
                }
            }
            freeReplyObject(reply);
        } while (strcmp(cursor, "0") != 0);
        free(key);
    }
    return sums;
}

/* Records by the time of their next try. */
static void ages_read(struct operator_call *call, uint64_t sums[EDGES]) {
    char now[24], rank[24], count[16];
    snprintf(now, sizeof now, "%" PRIu64, clock_ms(CLOCK_REALTIME));
    snprintf(count, sizeof count, "%d", DUE_STEP);
    for (uint32_t shard = 0; shard < call->config->redis.shards; shard++) {
        for (long long at = 0; at >= 0;) {
            snprintf(rank, sizeof rank, "%lld", at);
            const char *argv[] = {"due", rank, count, now};
            redisReply *reply = operator_function(call, shard, "bypost_inspect", 4, argv);
            if (!reply) {
                return;
            }
            at = operator_number(reply, 0);
            for (int i = 0; i < EDGES; i++) {
                sums[i] += (uint64_t)operator_number(reply, (size_t)i + 1);
            }
            freeReplyObject(reply);
        }
    }
}

/* A row and what it is sorted by. */
struct row {
    const char *name;
    const json_t *row;
    json_int_t weight;
};

static int row_compare(const void *a, const void *b) {
    const struct row *first = a, *second = b;
    return first->weight != second->weight ? (first->weight < second->weight) - (first->weight > second->weight)
                                           : strcmp(first->name, second->name);
}

static json_int_t row_waits(const json_t *row) {
    return integer_of(row, "ready") + integer_of(row, "retrying") + integer_of(row, "parked") + integer_of(row, "held");
}

/* The object's members, the heaviest first; free it. */
static struct row *rows_sorted(const json_t *object, const json_t *hand, size_t *count) {
    struct row *rows = calloc(json_object_size(object) + 1, sizeof *rows);
    const char *key;
    json_t *value;
    *count = 0;
    json_object_foreach((json_t *)object, key, value) {
        json_int_t weight = json_is_object(value) ? row_waits(value) : json_integer_value(value);
        rows[(*count)++] = (struct row){.name = key, .row = value, .weight = weight + integer_of(hand, key)};
    }
    qsort(rows, *count, sizeof *rows, row_compare);
    return rows;
}

static void text_print(const char *text, int width) {
    cli_print(stdout, "%-*s ", width - 1, text);
}

static void queues_print(const json_t *queues, const json_t *hand, bool answered, size_t limit) {
    static const char *const columns[] = {"ready", "retrying", "parked", "held"};
    size_t count, empty = 0, beyond = 0;
    json_int_t sums[5] = {0};
    struct row *rows = rows_sorted(queues, hand, &count);
    uint64_t now = clock_ms(CLOCK_REALTIME);
    printf("%-32s %-10s %12s %12s %12s %12s %10s %8s\n", "QUEUE", "STATE", "READY", "RETRYING", "PARKED", "HELD", "IN HAND", "OLDEST");
    for (size_t i = 0; i < count; i++) {
        const json_t *row = rows[i].row;
        const char *state = json_string_value(json_object_get(row, "state"));
        json_int_t oldest = integer_of(row, "oldest_ms");
        char span[32];
        for (int c = 0; c < 4; c++) {
            sums[c] += integer_of(row, columns[c]);
        }
        sums[4] += integer_of(hand, rows[i].name);
        bool is_empty = rows[i].weight == 0 && i >= 3 && strcmp(state ? state : "", "running") == 0;
        if (is_empty || i >= limit) {
            empty += is_empty;
            beyond += !is_empty;
            continue;
        }
        text_print(rows[i].name, 33);
        cli_print(stdout, "%-10s", state ? state : "?");
        for (int c = 0; c < 4; c++) {
            printf(" %12" JSON_INTEGER_FORMAT, integer_of(row, columns[c]));
        }
        if (answered) {
            printf(" %10" JSON_INTEGER_FORMAT, integer_of(hand, rows[i].name));
        } else {
            printf(" %10s", "-");
        }
        printf(" %8s\n", oldest > 0 ? operator_span(now > (uint64_t)oldest ? now - (uint64_t)oldest : 0, span) : "-");
    }
    printf("%-32s %-10s %12" JSON_INTEGER_FORMAT " %12" JSON_INTEGER_FORMAT " %12" JSON_INTEGER_FORMAT " %12" JSON_INTEGER_FORMAT
           " %10" JSON_INTEGER_FORMAT "\n",
           "total", "", sums[0], sums[1], sums[2], sums[3], sums[4]);
    if (empty > 0) {
        printf("(%zu more queue%s of which nothing waits)\n", empty, empty == 1 ? "" : "s");
    }
    if (beyond > 0) {
        printf("(%zu more queues; --limit shows more)\n", beyond);
    }
    puts("READY: recipients in streams, those in hand among them (an entry of a raw XADD counts one).");
    free(rows);
}

static void sums_print(const char *title, const json_t *sums, const json_t *hand, bool with_hand, bool answered, size_t limit) {
    size_t count;
    json_t *all = json_copy((json_t *)sums);
    const char *key;
    json_t *value;
    json_int_t waiting = 0, held = 0;
    json_object_foreach((json_t *)(with_hand ? hand : NULL), key, value) {
        if (!json_object_get(all, key)) {
            json_object_set_new(all, key, json_integer(0));
        }
    }
    struct row *rows = rows_sorted(all, with_hand ? hand : NULL, &count);
    printf("%-48s %14s%s\n", title, "WAITING", with_hand ? "    IN HAND" : "");
    for (size_t i = 0; i < count; i++) {
        waiting += json_integer_value(rows[i].row);
        held += integer_of(hand, rows[i].name);
        if (i >= limit) {
            continue;
        }
        text_print(rows[i].name, 49);
        printf("%14" JSON_INTEGER_FORMAT, json_integer_value(rows[i].row));
        if (with_hand && answered) {
            printf(" %10" JSON_INTEGER_FORMAT, integer_of(hand, rows[i].name));
        }
        putchar('\n');
    }
    printf("%-48s %14" JSON_INTEGER_FORMAT, "total", waiting);
    if (with_hand && answered) {
        printf(" %10" JSON_INTEGER_FORMAT, held);
    }
    putchar('\n');
    if (count > limit) {
        printf("(%zu more; --limit shows more)\n", count - limit);
    }
    free(rows);
    json_decref(all);
}

static void ages_print(const uint64_t sums[EDGES], const json_t *queues, size_t limit) {
    size_t count, shown = 0;
    struct row *rows = rows_sorted(queues, NULL, &count);
    uint64_t now = clock_ms(CLOCK_REALTIME);
    printf("%-20s %14s\n", "NEXT TRY", "RECORDS");
    for (int i = 0; i < EDGES; i++) {
        printf("%-20s %14" PRIu64 "\n", edges[i], sums[i]);
    }
    printf("\n%-32s %10s\n", "QUEUE", "OLDEST");
    for (size_t i = 0; i < count && shown < limit; i++) {
        json_int_t oldest = integer_of(rows[i].row, "oldest_ms");
        char span[32];
        if (oldest > 0) {
            text_print(rows[i].name, 33);
            printf("%10s\n", operator_span(now > (uint64_t)oldest ? now - (uint64_t)oldest : 0, span));
            shown++;
        }
    }
    if (shown == 0) {
        puts("(all streams are empty)");
    }
    free(rows);
}

/* The members of an object up to a limit, heaviest first, as an array of {name, ...}. */
static json_t *rows_json(const json_t *object, const json_t *hand, bool answered, size_t limit) {
    size_t count;
    struct row *rows = rows_sorted(object, hand, &count);
    json_t *list = json_array();
    for (size_t i = 0; i < count && i < limit; i++) {
        json_t *one = json_is_object(rows[i].row)
                          ? json_copy((json_t *)rows[i].row)
                          : json_pack("{s:s, s:I}", "name", rows[i].name, "waiting", json_integer_value(rows[i].row));
        if (answered && hand) {
            json_object_set_new(one, "in_hand", json_integer(integer_of(hand, rows[i].name)));
        }
        json_array_append_new(list, one);
    }
    free(rows);
    return list;
}

static void queue_show(struct operator_call *call, enum by by, size_t limit, bool json) {
    static const char *const prefixes[BY_KINDS] = {NULL, "site:", "provider:", NULL, "class:"};
    static const char *const groups[BY_KINDS] = {"queues", "sites", "providers", NULL, NULL};
    char error[CLI_ERROR_BYTES];
    json_t *hand = by == BY_REASON || by == BY_AGE ? NULL : cli_control(call->config->run_directory, "hand", CONTROL_TIMEOUT_MS, error);
    const json_t *group = groups[by] ? json_object_get(hand, groups[by]) : NULL;
    bool answered = hand != NULL;
    json_t *rows = prefixes[by] ? waiting_read(call, prefixes[by]) : queues_read(call);
    uint64_t ages[EDGES] = {0};
    if (by == BY_AGE) {
        ages_read(call, ages);
    }
    if (call->code != CLI_OK) {
        json_decref(hand);
        json_decref(rows);
        return;
    }
    if (json) {
        json_t *root = json_pack("{s:s, s:b}", "by", by_names[by], "control", answered);
        const char *key;
        json_t *value;
        json_object_foreach((json_t *)(prefixes[by] ? group : NULL), key, value) {
            if (!json_object_get(rows, key)) {
                json_object_set_new(rows, key, json_integer(0));
            }
        }
        json_object_set_new(root, "rows", rows_json(rows, group, answered, limit));
        json_t *next = json_object();
        for (int i = 0; by == BY_AGE && i < EDGES; i++) {
            json_object_set_new(next, edges[i], json_integer((json_int_t)ages[i]));
        }
        if (by == BY_AGE) {
            json_object_set(root, "next_try", next);
        }
        json_decref(next);
        json_dumpf(root, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(root);
    } else if (by == BY_QUEUE) {
        queues_print(rows, group, answered, limit);
    } else if (by == BY_AGE) {
        ages_print(ages, rows, limit);
    } else {
        sums_print(by == BY_SITE       ? "SITE"
                   : by == BY_PROVIDER ? "PROVIDER"
                                       : "REASON (class of the last reply)",
                   rows, group, by != BY_REASON, answered, limit);
    }
    if (!json && !answered && groups[by]) {
        cli_print(stderr, "bypost queue: what this node has in hand is not shown: %s\n", error);
    }
    json_decref(hand);
    json_decref(rows);
}

static int queue_run(int argc, char **argv) {
    enum { OPTION_BY = 1, OPTION_JSON, OPTION_REDIS };
    static const struct option options[] = {{"by", required_argument, NULL, OPTION_BY}, {"limit", required_argument, NULL, 'n'},
                                            {"json", no_argument, NULL, OPTION_JSON},   {"redis", required_argument, NULL, OPTION_REDIS},
                                            {"config", required_argument, NULL, 'c'},   {NULL, 0, NULL, 0}};
    const char *config = NULL, *redis = NULL;
    unsigned long limit = 50;
    enum by by = BY_QUEUE;
    bool json = false;
    struct operator_call call;
    for (int option; (option = getopt_long(argc, argv, "n:c:", options, NULL)) != -1;) {
        switch (option) {
        case OPTION_BY:
            for (by = 0; by < BY_KINDS && strcmp(by_names[by], optarg) != 0; by++) {
            }
            if (by == BY_KINDS) {
                return cli_complain(CLI_USAGE, name, "--by '%s': queue, site, provider, age or reason.", optarg);
            }
            break;
        case 'n':
            if (!cli_number(name, "limit", optarg, 1, 10000000, &limit)) {
                return CLI_USAGE;
            }
            break;
        case OPTION_JSON:
            json = true;
            break;
        case OPTION_REDIS:
            redis = optarg;
            break;
        case 'c':
            config = optarg;
            break;
        default:
            return cli_usage(name);
        }
    }
    if (optind < argc) {
        return cli_complain(CLI_USAGE, name, "'%s' is not an option; --help shows them.", argv[optind]);
    }
    if (!operator_open(&call, name, config, redis)) {
        return call.code;
    }
    queue_show(&call, by, limit, json);
    operator_close(&call);
    return call.code;
}

const struct cli_command queue_command = {"queue", "show what waits", help, queue_run};
