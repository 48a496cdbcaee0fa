/* limits.c: tells the Functions in Redis how much producers may put there (control/library: `limits`), and says which state of queues and
 * holds this process has taken, for those who changed it. */
#include "state.h"

#include "control/observe/log.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void on_limits(void *context, redisReply *reply) {
    if (reply != NULL && redis_error(reply) != NULL)
        log_write(LOG_LEVEL_WARNING, "control", "the limits for producers could not be written: %.200s", redis_error(reply));
}

void limits_write(struct shard *shard) {
    const struct config *config = shard->config.config;
    char key[REDIS_KEY_MAX + 8], prefix[REDIS_KEY_MAX], depth[24], memory[24];
    snprintf(depth, sizeof(depth), "%u", config->queue.max_depth / shard->queue_count);
    snprintf(memory, sizeof(memory), "%.2f", config->queue.max_memory_percent / 100.0);
    for (uint32_t i = 0; i < shard->queue_count; i++) {
        if (redis_state(shard->queues[i].redis) != REDIS_UP)
            continue;
        redis_shard_prefix(config, i, prefix);
        snprintf(key, sizeof(key), "%slimits", prefix);
        const char *argv[] = {"HSET", key, "max_depth", depth, "max_memory", memory};
        size_t lengths[6];
        for (int a = 0; a < 6; a++)
            lengths[a] = strlen(argv[a]);
        redis_send(shard->queues[i].redis, on_limits, NULL, 6, argv, lengths);
    }
}

static void on_up(void *context, bool run_id_changed) {
    limits_write(context);
}

int limits_listen(struct shard *shard, uint32_t index) {
    const struct redis_events events = {.up = on_up, .context = shard};
    return redis_listen(shard->queues[index].redis, &events);
}

char *shard_versions(struct shard *shard) {
    char text[QUEUE_SHARDS_MAX * 24 + 4] = "[";
    size_t length = 1;
    for (uint32_t i = 0; i < shard->queue_count; i++)
        length += (size_t)snprintf(text + length, sizeof(text) - length, "%s%" PRIu64, i > 0 ? "," : "", hold_version(shard->hold, i));
    snprintf(text + length, sizeof(text) - length, "]");
    return strdup(text);
}
