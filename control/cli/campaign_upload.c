/* campaign_upload.c: pipelines bypost_campaign_add; each chunk is kept until Redis has answered for it. */
#include "campaign_upload.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FULL_WAIT_FIRST_MS = 100, FULL_WAIT_MAX_MS = 2000 };

int upload_begin(struct upload *upload, struct campaign_client *client, const char *name, const char *content) {
    *upload = (struct upload){.client = client, .name = name, .content = content};
    for (uint32_t shard = 0; shard < client->config->redis.shards; shard++) {
        if (asprintf(&upload->streams[shard], "%sq:%s", client->bases[shard], name) < 0) {
            abort();
        }
        redisReply *reply = redisCommand(client->redis, "GET %schunks:%s", client->bases[shard], name);
        if (!reply || reply->type == REDIS_REPLY_ERROR) {
            int code = cli_redis_fault(CAMPAIGN, client->redis, reply);
            if (reply) {
                freeReplyObject(reply);
            }
            return code;
        }
        if (reply->type == REDIS_REPLY_STRING && reply->len <= UPLOAD_SHARD_BITMAP_MAX && reply->len > 0) {
            upload->bitmaps[shard] = malloc(reply->len);
            if (!upload->bitmaps[shard]) {
                abort();
            }
            memcpy(upload->bitmaps[shard], reply->str, reply->len);
            upload->bitmap_bytes[shard] = reply->len;
        }
        freeReplyObject(reply);
    }
    return CLI_OK;
}

static bool upload_has(const struct upload *upload, uint32_t shard, uint64_t number) {
    size_t byte = (size_t)(number / 8);
    return byte < upload->bitmap_bytes[shard] && upload->bitmaps[shard][byte] & 0x80u >> (number % 8);
}

/* The content stays while recipients come: its life of a day after the last one is taken back behind each chunk. */
static int chunk_send(struct upload *upload, const struct upload_chunk *chunk) {
    redisContext *redis = upload->client->redis;
    char number[24], recipients[16];
    snprintf(number, sizeof number, "%" PRIu64, chunk->number);
    snprintf(recipients, sizeof recipients, "%u", chunk->recipients);
    const char *argv[] = {"FCALL",
                          "bypost_campaign_add",
                          "1",
                          upload->streams[chunk->shard],
                          upload->client->bases[chunk->shard],
                          upload->name,
                          number,
                          (const char *)chunk->job.bytes,
                          recipients,
                          upload->content};
    enum { ARGUMENTS = sizeof argv / sizeof *argv, JOB_ARGUMENT = 7 };
    size_t lengths[ARGUMENTS];
    for (int i = 0; i < ARGUMENTS; i++) {
        lengths[i] = i == JOB_ARGUMENT ? chunk->job.at : strlen(argv[i]);
    }
    if (redisAppendCommandArgv(redis, ARGUMENTS, argv, lengths) != REDIS_OK ||
        redisAppendCommand(redis, "PERSIST %s:content:%s", upload->client->config->redis.prefix, upload->content) != REDIS_OK) {
        return cli_redis_fault(CAMPAIGN, redis, NULL);
    }
    return CLI_OK;
}

/* Is this an answer after which the same chunk can be sent again later? */
static bool is_full(const char *error) {
    return strncmp(error, "QUEUE_FULL", 10) == 0 || strncmp(error, "OOM", 3) == 0 || strncmp(error, "MISCONF", 7) == 0;
}

static void sleep_ms(unsigned ms) {
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000}, NULL);
}

/* Takes the answer for one chunk. *full: it was refused for want of room (`error` of ERROR_BYTES says how). */
enum { FULL_ERROR_BYTES = 256 };
static int chunk_answer(struct upload *upload, const struct upload_chunk *chunk, bool *full, char *error) {
    redisContext *redis = upload->client->redis;
    redisReply *reply = NULL, *persisted = NULL;
    int code = CLI_OK;
    *full = false;
    if (redisGetReply(redis, (void **)&reply) != REDIS_OK || redisGetReply(redis, (void **)&persisted) != REDIS_OK) {
        code = cli_redis_fault(CAMPAIGN, redis, NULL);
    } else if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 && reply->element[1]->type == REDIS_REPLY_STRING) {
        bool fresh = strcmp(reply->element[1]->str, "submitted") == 0;
        upload->chunks += fresh;
        upload->recipients += fresh ? chunk->recipients : 0;
        upload->chunks_before += !fresh;
        upload->recipients_before += fresh ? 0 : chunk->recipients;
    } else if (reply->type == REDIS_REPLY_ERROR && is_full(reply->str)) {
        *full = true;
        snprintf(error, FULL_ERROR_BYTES, "%s", reply->str);
    } else {
        code = cli_redis_fault(CAMPAIGN, redis, reply);
    }
    if (reply) {
        freeReplyObject(reply);
    }
    if (persisted) {
        freeReplyObject(persisted);
    }
    return code;
}

/* Chunks that were refused for want of room, all of them again until all are in. */
static int chunks_insist(struct upload *upload, struct upload_chunk **refused, uint32_t count, char *error) {
    unsigned wait_ms = FULL_WAIT_FIRST_MS;
    int code = CLI_OK;
    while (code == CLI_OK && count > 0) {
        uint32_t left = 0;
        if (upload->waiting) {
            upload->waiting(upload->context, error);
        }
        sleep_ms(wait_ms);
        for (uint32_t i = 0; code == CLI_OK && i < count; i++) {
            code = chunk_send(upload, refused[i]);
        }
        for (uint32_t i = 0; code == CLI_OK && i < count; i++) {
            bool full;
            code = chunk_answer(upload, refused[i], &full, error);
            if (full) {
                refused[left++] = refused[i];
            }
        }
        wait_ms = left < count ? FULL_WAIT_FIRST_MS : wait_ms * 2 > FULL_WAIT_MAX_MS ? FULL_WAIT_MAX_MS : wait_ms * 2;
        count = left;
    }
    return code;
}

/* Takes answers until at most `left` chunks are in flight. Refused ones are sent again when nothing is in flight any more. */
static int upload_reap(struct upload *upload, uint32_t left) {
    struct upload_chunk *refused[UPLOAD_WINDOW];
    uint32_t refused_count = 0;
    char error[FULL_ERROR_BYTES] = "";
    int code = CLI_OK;
    while (code == CLI_OK && upload->in_flight > left) {
        struct upload_chunk *chunk = &upload->window[upload->oldest];
        bool full;
        code = chunk_answer(upload, chunk, &full, error);
        upload->oldest = (upload->oldest + 1) % UPLOAD_WINDOW;
        upload->in_flight--;
        upload->in_flight_bytes -= chunk->job.at;
        if (full) {
            refused[refused_count++] = chunk;
            left = 0;
        }
    }
    return code == CLI_OK ? chunks_insist(upload, refused, refused_count, error) : code;
}

int upload_chunk(struct upload *upload, uint64_t number, const char *prefix, const uint8_t *recipients, size_t length, uint32_t count) {
    uint32_t shard = (uint32_t)(number % upload->client->config->redis.shards);
    if (upload_has(upload, shard, number)) {
        upload->chunks_before++;
        upload->recipients_before += count;
        return CLI_OK;
    }
    int code = CLI_OK;
    if (upload->in_flight == UPLOAD_WINDOW || upload->in_flight_bytes > UPLOAD_WINDOW_BYTES) {
        code = upload_reap(upload, upload->in_flight_bytes > UPLOAD_WINDOW_BYTES ? 0 : UPLOAD_WINDOW / 2);
    }
    if (code != CLI_OK) {
        return code;
    }
    struct upload_chunk *chunk = &upload->window[(upload->oldest + upload->in_flight) % UPLOAD_WINDOW];
    chunk->job.at = 0;
    chunk->job.limit = UPLOAD_WINDOW_BYTES;
    chunk->number = number;
    chunk->shard = shard;
    chunk->recipients = count;
    writer_text(&chunk->job, prefix);
    writer_bytes(&chunk->job, recipients, length);
    writer_text(&chunk->job, "]}");
    if (chunk->job.error) {
        return cli_complain(CLI_FAILED, CAMPAIGN, "out of memory.");
    }
    upload->in_flight++;
    upload->in_flight_bytes += chunk->job.at;
    code = chunk_send(upload, chunk);
    int done = 0;
    if (code == CLI_OK && redisBufferWrite(upload->client->redis, &done) != REDIS_OK) { /* Redis works while the next is made */
        code = cli_redis_fault(CAMPAIGN, upload->client->redis, NULL);
    }
    return code;
}

int upload_finish(struct upload *upload) {
    return upload_reap(upload, 0);
}

void upload_free(struct upload *upload) {
    for (uint32_t i = 0; i < CAMPAIGN_SHARDS_MAX; i++) {
        free(upload->streams[i]);
        free(upload->bitmaps[i]);
    }
    for (uint32_t i = 0; i < UPLOAD_WINDOW; i++) {
        free(upload->window[i].job.bytes);
    }
    *upload = (struct upload){.client = NULL};
}
