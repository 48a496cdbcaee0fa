/* redis.h: a shard's connection to Redis: hiredis on the shard's event loop, reconnecting by itself. Used by fetch and settle. */
#ifndef CONTROL_FETCH_REDIS_H
#define CONTROL_FETCH_REDIS_H

#include "control/config/config.h"
#include <event2/event.h>
#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>

struct redis;

enum { REDIS_LISTENERS_MAX = 8, REDIS_KEY_MAX = 192 };

enum redis_state { REDIS_DOWN, REDIS_LOADING, REDIS_UP };

struct redis_events {
    /* Connected, authenticated, not LOADING, the Function library there and of our version. `run_id_changed`: another server, or a
     * restarted one, than last time: the last commits may be gone. */
    void (*up)(void *context, bool run_id_changed);
    /* The connection ended: every command without a reply has been called back with NULL. */
    void (*down)(void *context, const char *reason);
    void *context;
};

/* Starts connecting; retries with backoff to 2 s as long as it lives. The process must ignore SIGPIPE: hiredis writes to sockets that may
 * be closed. NULL with a sentence in error (bad address). */
struct redis *redis_create(struct event_base *base, const struct config *config, char *error, size_t error_bytes);
/* Several listeners may be added (fetch, settle, main): called in the order they were added. 0 or -ENOSPC. */
int redis_listen(struct redis *redis, const struct redis_events *events);
/* Another configuration, for the next handshake's user and password; the address and the database stay. */
void redis_reconfigure(struct redis *redis, const struct config *config);
/* Takes away the listeners with this context; commands that it has under way must end by themselves. */
void redis_ignore(struct redis *redis, const void *context);
/* Every command without a reply is called back with NULL. Not from within a callback of this connection. */
void redis_destroy(struct redis *redis);
enum redis_state redis_state(const struct redis *redis);
/* Sends a command. `done` is called once: with the reply (valid during the call), or NULL when the connection went first (whether it was
 * executed is unknown). An answer that says that this server cannot serve (loading, read-only, busy with a script, functions gone) counts
 * as a lost connection. 0, or -ENOTCONN, or -ENOBUFS when more than 256 MiB wait for answers (done is not called). */
int redis_send(struct redis *redis, void (*done)(void *context, redisReply *reply), void *context, int argc, const char *const *argv,
               const size_t *lengths);
/* Ends this connection and makes another: for a caller who was told something that only a new handshake mends. */
void redis_reconnect(struct redis *redis, const char *reason);
/* When the server answered last: CLOCK_MONOTONIC; 0: never. */
uint64_t redis_heard_ms(const struct redis *redis);
/* Does this reply hold an error? Its text, or NULL. */
const char *redis_error(const redisReply *reply);
/* "PREFIX:{SHARD}:", in front of every key of a shard (QUEUE.md). */
void redis_shard_prefix(const struct config *config, uint32_t shard, char out[REDIS_KEY_MAX]);

#endif
