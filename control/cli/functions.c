/* functions.c: loads the Function library where control has not done so yet. */
#include "functions.h"
#include "control/job.h"
#include "control/library/library.h"

#include <string.h>

int functions_load(const char *command, redisContext *redis) {
    redisReply *reply = redisCommand(redis, "FCALL_RO bypost_version 0");
    bool missing = reply && reply->type == REDIS_REPLY_ERROR && strstr(reply->str, "unction not found");
    bool older = reply && reply->type == REDIS_REPLY_INTEGER && reply->integer < (long long)library_version();
    int code = CLI_OK;
    if (reply && reply->type == REDIS_REPLY_INTEGER && reply->integer > (long long)library_version()) {
        code = cli_complain(CLI_CONFIG, command,
                            "Redis serves a newer bypost (its Functions have version %lld, this program knows %u): update "
                            "this program.",
                            reply->integer, library_version());
    } else if (!missing && !older && (!reply || reply->type == REDIS_REPLY_ERROR)) {
        code = cli_redis_fault(command, redis, reply);
    }
    if (reply) {
        freeReplyObject(reply);
    }
    if (code == CLI_OK && (missing || older)) {
        const char *argv[] = {"FUNCTION", "LOAD", "REPLACE", library_text()};
        reply = redisCommandArgv(redis, 4, argv, NULL);
        code = !reply || reply->type == REDIS_REPLY_ERROR ? cli_redis_fault(command, redis, reply) : CLI_OK;
        if (reply) {
            freeReplyObject(reply);
        }
    }
    return code;
}

uint32_t functions_shard(const char *id, uint32_t shards) {
    uint32_t crc = 0;
    for (; *id; id++) {
        crc ^= (uint32_t)(uint8_t)*id << 8;
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc << 1) ^ (crc & 0x8000 ? 0x1021u : 0);
        }
        crc &= 0xffff;
    }
    return crc % shards;
}

bool functions_queue_valid(const char *queue) {
    return *queue && strlen(queue) <= QUEUE_NAME_MAX && strcmp(queue, "retry") != 0 && /* its stream would be that of retries */
           !queue[strspn(queue, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")];
}
