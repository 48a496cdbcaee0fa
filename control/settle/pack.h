/* pack.h: the outcomes of a commit as arguments of bypost_settle (control/library/settle.lua). Private to settle. */
#ifndef CONTROL_SETTLE_PACK_H
#define CONTROL_SETTLE_PACK_H

#include "commit.h"

/* Sorts the items (commit->order) and writes commit->packed and commit->events. False without memory. */
bool commit_pack(struct commit *commit);
/* Points into what was packed, with the events where they are still there. Returns how many: at most arguments + event_count. */
size_t pack_arguments(const struct commit *commit, const char **values, size_t *lengths);

#endif
