/* link.h: the Unix socket on which bypost-control connects (the contract is struct link_hello in <bypost/journal.h>). */
#ifndef DATAPLANE_LINK_H
#define DATAPLANE_LINK_H

#include "dataplane/eal.h"
#include <bypost/journal.h>
#include <stddef.h>
#include <sys/types.h>

struct link {
    int listener;
    int peer; /* -1: no control is connected */
    uid_t user;
    struct link_hello hello;
    int arena_fd;
    int worker_doorbells[JOURNAL_WORKERS_MAX]; /* eventfds */
    int shard_doorbells[JOURNAL_SHARDS_MAX];
    uint32_t workers, shards;
};

/* Makes the socket at `path` (0600, owned by `user`) and the doorbells; an old socket file of a dead dataplane is replaced (the journal's
 * lock says that it is dead).
 */
int link_open(struct link *link, const char *path, uid_t user, gid_t group, const struct journal *journal, const struct arena *arena,
              uint32_t dataplane_generation, char *error, size_t error_bytes);
/* From here on control can connect: when link_serve is about to be called, so that it never waits for the rest of the start. 0 or -errno.
 */
int link_listen(struct link *link);
/* Waits up to timeout_ms for control to come or go, and answers it. */
void link_serve(struct link *link, int timeout_ms);
void link_close(struct link *link, const char *path);

#endif
