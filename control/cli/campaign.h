/* campaign.h: what the files of `bypost campaign` share. */
#ifndef CONTROL_CLI_CAMPAIGN_H
#define CONTROL_CLI_CAMPAIGN_H

#include "cli.h"

#include <jansson.h>

enum { CAMPAIGN_SHARDS_MAX = 16 };
#define CAMPAIGN "campaign" /* in front of complaints */

struct campaign_client {
    struct config *config;
    redisContext *redis;
    char *bases[CAMPAIGN_SHARDS_MAX]; /* PREFIX:{SHARD}: */
};

/* The options that every subcommand takes. */
struct campaign_options {
    const char *config, *redis;
    bool json;
};

/* Reads the configuration, connects, sees to the Function library. An exit code after the error was printed. */
int campaign_open(struct campaign_client *client, const struct campaign_options *options);
void campaign_close(struct campaign_client *client);
/* FCALLs a campaign's function on a shard: its stream as key, base and name, then `argv`. *reply (the caller's) is no error when CLI_OK
 * comes back. */
int campaign_call(struct campaign_client *client, uint32_t shard, const char *function, const char *name, int argc, const char *const *argv,
                  redisReply **reply);
/* The same on every shard; replies are thrown away. */
int campaign_call_all(struct campaign_client *client, const char *function, const char *name, int argc, const char *const *argv);

/* A campaign over all shards: texts as the first shard has them, numbers summed up. NULL with CLI_FAILED: there is none. */
int campaign_figures(struct campaign_client *client, const char *name, json_t **figures);
/* The newest `count` of them behind the first `skip`, as an array. */
int campaign_all(struct campaign_client *client, uint32_t skip, uint32_t count, json_t **list);
/* How many recipients have no final outcome. */
uint64_t campaign_open_recipients(const json_t *figures);
/* "running", "paused", ..., "finished", "uploading": what a reader wants to know first. */
const char *campaign_state(const json_t *figures);

/* The subcommands: argv[0] is their name. */
int campaign_create_run(int argc, char **argv);
int campaign_list_run(int argc, char **argv);
int campaign_show_run(int argc, char **argv);
int campaign_change_run(int argc, char **argv); /* pause, resume, cancel, set, delete */

extern const char campaign_create_help[];

/* Fields and values for bypost_campaign_create and _set, checked and brought into Redis's form. */
struct campaign_fields {
    uint32_t count; /* of names with values: argv has two for each */
    char *argv[32];
};
/* weight, rate, not_before, expires_at, window, tenant and what goes as it is. False after the error was printed. */
bool campaign_field(struct campaign_fields *fields, const char *name, const char *value);
void campaign_fields_free(struct campaign_fields *fields);

#endif
