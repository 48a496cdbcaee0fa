/* functions.h: the commands' way to the Function library in Redis (control/library). */
#ifndef CONTROL_CLI_FUNCTIONS_H
#define CONTROL_CLI_FUNCTIONS_H

#include "cli.h"

/* Sees that the library is in Redis, in this program's version; loads it where it is missing or older, as control does. An exit code, after
 * the error was printed. */
int functions_load(const char *command, redisContext *redis);

/* The shard of an id, where its repeat meets it: CRC16 (XMODEM) modulo the shards, as every client of bypost_submit takes it. */
uint32_t functions_shard(const char *id, uint32_t shards);

/* A queue's name: 1 to QUEUE_NAME_MAX letters, digits, '.', '_' or '-', not "retry". */
bool functions_queue_valid(const char *queue);

#endif
