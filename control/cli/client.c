/* client.c: the commands' connection to Redis: synchronous, bounded in time. */
#include "cli.h"
#include "control/config/address.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { CONNECT_TIMEOUT_S = 5, ANSWER_TIMEOUT_S = 30, PASSWORD_MAX = 4096 };

static redisContext *client_connect(const char *address) {
    const struct timeval timeout = {.tv_sec = CONNECT_TIMEOUT_S};
    char host[256];
    bool bracketed;
    unsigned long port = 6379;
    if (strncmp(address, "unix:", 5) == 0) {
        return redisConnectUnixWithTimeout(address + 5, timeout);
    }
    return host_split(address, host, sizeof host, &bracketed, &port) ? redisConnectWithTimeout(host, (int)port, timeout) : NULL;
}

/* Runs a command of the handshake. */
static int client_command(const char *command, redisContext *redis, int argc, const char **argv) {
    redisReply *reply = redisCommandArgv(redis, argc, argv, NULL);
    int code = !reply || reply->type == REDIS_REPLY_ERROR ? cli_redis_fault(command, redis, reply) : CLI_OK;
    if (reply) {
        freeReplyObject(reply);
    }
    return code;
}

static int client_authenticate(const char *command, redisContext *redis, const struct config *config) {
    size_t length;
    if (!config->redis.password_file) {
        return CLI_OK;
    }
    char *password = cli_read_file(command, config->redis.password_file, PASSWORD_MAX, &length);
    if (!password) {
        return CLI_CONFIG;
    }
    password[strcspn(password, "\r\n")] = 0;
    const char *argv[] = {"AUTH", config->redis.username ? config->redis.username : password, password};
    int code = client_command(command, redis, config->redis.username ? 3 : 2, argv);
    explicit_bzero(password, length);
    free(password);
    return code;
}

static int client_select(const char *command, redisContext *redis, uint32_t database) {
    char number[16];
    const char *argv[] = {"SELECT", number};
    snprintf(number, sizeof number, "%u", database);
    return database ? client_command(command, redis, 2, argv) : CLI_OK;
}

redisContext *cli_redis(const char *command, const struct config *config, int *code) {
    const char *fault = redis_address_fault(config->redis.address);
    if (fault) {
        *code =
            cli_complain(CLI_USAGE, command, "the address of Redis '%s' is wrong: %s; write 127.0.0.1:6379 or unix:/run/redis/redis.sock.",
                         config->redis.address, fault);
        return NULL;
    }
    redisContext *redis = client_connect(config->redis.address);
    if (!redis || redis->err) {
        *code = cli_complain(CLI_UNAVAILABLE, command, "Redis does not answer at %s: %s. See that it runs, or name another with --redis.",
                             config->redis.address, redis ? redis->errstr : "out of memory");
    } else {
        redisSetTimeout(redis, (struct timeval){.tv_sec = ANSWER_TIMEOUT_S});
        *code = client_authenticate(command, redis, config);
        if (*code == CLI_OK) {
            *code = client_select(command, redis, config->redis.database);
        }
    }
    if (*code != CLI_OK && redis) {
        redisFree(redis);
        redis = NULL;
    }
    return redis;
}

char *cli_key(const struct config *config, uint32_t shard, const char *name) {
    char *key = NULL;
    if (asprintf(&key, "%s:{%u}:%s", config->redis.prefix, shard, name) < 0) {
        abort();
    }
    return key;
}

int cli_redis_fault(const char *command, const redisContext *redis, const redisReply *reply) {
    static const struct {
        const char *prefix;
        int code;
        const char *remedy;
    } known[] = {
        {"OOM", CLI_TEMPORARY, "Redis is full: let bypost drain it, or raise its maxmemory."},
        {"QUEUE_FULL", CLI_TEMPORARY, "The queue is full: submit again later."},
        {"LOADING", CLI_TEMPORARY, "Redis is loading its data: try again soon."},
        {"BUSY", CLI_TEMPORARY, "A script holds Redis: try again soon."},
        {"MISCONF", CLI_TEMPORARY, "Redis cannot write to its disk: look at its log."},
        {"READONLY", CLI_UNAVAILABLE, "This is a replica: name the primary with --redis."},
        {"MASTERDOWN", CLI_UNAVAILABLE, "This replica has lost its primary: name the primary with --redis."},
        {"NOAUTH", CLI_CONFIG, "Redis asks for a password: set redis.password_file."},
        {"WRONGPASS", CLI_CONFIG, "Redis refuses the password: correct redis.username and redis.password_file."},
        {"NOPERM", CLI_CONFIG, "Redis does not permit this to the user: change its ACL."},
    };
    if (!reply && strcmp(redis->errstr, strerror(EAGAIN)) == 0) { /* what hiredis makes of the time that ran out */
        return cli_complain(CLI_UNAVAILABLE, command,
                            "Redis gave no answer within %d s. See what it does (`redis-cli slowlog get 3`, its log), and look what was "
                            "submitted before trying again.",
                            ANSWER_TIMEOUT_S);
    }
    if (!reply) {
        return cli_complain(CLI_UNAVAILABLE, command,
                            "the connection to Redis ended: %s. See that it runs, and look what was submitted before trying again.",
                            redis->errstr);
    }
    for (unsigned i = 0; i < sizeof known / sizeof *known; i++) {
        if (strncmp(reply->str, known[i].prefix, strlen(known[i].prefix)) == 0) {
            return cli_complain(known[i].code, command, "%s (%.200s)", known[i].remedy, reply->str);
        }
    }
    return cli_complain(CLI_FAILED, command, "Redis refused the command: %.200s", reply->str);
}
