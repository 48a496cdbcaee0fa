/* suppress.h: what the files of `bypost suppress` share. */
#ifndef CONTROL_CLI_SUPPRESS_H
#define CONTROL_CLI_SUPPRESS_H

#include "cli.h"
#include "control/suppress/address.h"

/* One call: where the lists are and what was asked. Times in seconds since 1970. */
struct suppress_call {
    const char *config_path, *redis_address;
    struct config *config;
    redisContext *redis;
    char *base, *key;   /* PREFIX:{u}:suppress: and the key that Functions are called with */
    const char *tenant; /* NULL: not given */
    const char *reason, *provider, *class;
    uint64_t since, until, expires; /* expires 0: never */
    uint64_t for_ms;
    unsigned long from_line;
    bool json, dry_run, all, end;
    int code; /* of the first fault */
};

/* An entry as it lies in Redis. */
struct suppress_row {
    const char *tenant, *address;
    char reason[64], source[32], provider[64];
    uint64_t since, expires;
};

extern const char suppress_name[];

/* --- suppress_lists.c --- */

/* Runs a Function: its base, then `argv` (with lengths, or NULL). NULL after the fault was printed, with call->code. */
redisReply *suppress_function(struct suppress_call *call, const char *function, int argc, const char *const *argv);
/* Calls `each` for every entry of a list (NULL: of all lists) that suppresses. False after a fault was printed. */
bool suppress_walk(struct suppress_call *call, const char *tenant, bool (*each)(void *context, const struct suppress_row *row),
                   void *context);
/* "2026-11-22T03:04:05Z", or "-" for 0. */
const char *suppress_time(uint64_t seconds, char out[24]);
/* Seconds since 1970, a date of UTC ("2026-11-22", with "T03:04:05Z"), or a duration from now: back in time or, `ahead`, forth. */
bool suppress_when(const char *text, bool ahead, uint64_t *seconds);

/* {list, size, ...} of all lists; NULL after the fault was printed. */
redisReply *suppress_lists(struct suppress_call *call);
/* What a list's size says: entries, and hashes that they lie in. */
void suppress_size(const char *text, uint64_t *entries, uint64_t *hashes);
/* An entry's value into all of the row but whose and which; false: none that suppresses. */
bool suppress_row_parse(struct suppress_row *row, const char *value);

/* suppress_file.c */
int suppress_import(struct suppress_call *call, const char *path);
int suppress_export(struct suppress_call *call);

#endif
