/* operator.h: what the commands that look into the queue and change it share: selectors, calls of Functions, a progress bar. */
#ifndef CONTROL_CLI_OPERATOR_H
#define CONTROL_CLI_OPERATOR_H

#include "cli.h"
#include "control/hold/hold.h"
#include <getopt.h>
#include <jansson.h>

/* One command's connection, and what it was asked for. */
struct operator_call {
    const char *command;
    struct config *config;
    redisContext *redis;
    int code;            /* of the first fault */
    bool answers_errors; /* the caller looks at error replies itself */
};

/* Opens the configuration and the connection. False with call->code after the error was printed. */
bool operator_open(struct operator_call *call, const char *command, const char *config_path, const char *redis);
void operator_close(struct operator_call *call);
/* Runs a command. NULL after the fault was printed, with call->code. Free with freeReplyObject. */
redisReply *operator_run(struct operator_call *call, int argc, const char *const *argv);
/* FCALL of a Function of one shard: its base and then `argv`. */
redisReply *operator_function(struct operator_call *call, uint32_t shard, const char *function, int argc, const char *const *argv);
/* The text of an array's element, "" for another type. */
const char *operator_text(const redisReply *reply, size_t index);
long long operator_number(const redisReply *reply, size_t index);

/* --queue, --site, ... : an option that names what is meant. False: it is none of them. */
enum { OPERATOR_SELECTORS = 8, OPERATOR_SELECTOR_FIRST = 1000 };
#define OPERATOR_SELECTOR_OPTIONS                                                                                                          \
    {"queue", required_argument, NULL, 1000}, {"site", required_argument, NULL, 1001}, {"provider", required_argument, NULL, 1002},        \
        {"domain", required_argument, NULL, 1003}, {"tenant", required_argument, NULL, 1004}, {"campaign", required_argument, NULL, 1005}, \
        {"sender", required_argument, NULL, 1006}, {                                                                                       \
        "recipient", required_argument, NULL, 1007                                                                                         \
    }
bool operator_select(struct hold_match *match, int option, char *argument);
/* How many selectors are given. */
int operator_selects(const struct hold_match *match);
/* "site mx.example.net, sender ann@example.org" in out. */
void operator_describe(const struct hold_match *match, char *out, size_t bytes);

/* A bar on standard error when it is a terminal. done == total ends its line. */
void operator_progress(const char *what, uint64_t done, uint64_t total);
/* "2h05m", "12s", "3d4h" of milliseconds. */
const char *operator_span(uint64_t ms, char out[32]);

#endif
