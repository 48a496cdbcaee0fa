/* path_check.h: a worker's copy of a path's record, checked and settled before anything reads it. */
#ifndef DATAPLANE_SMTP_PATH_CHECK_H
#define DATAPLANE_SMTP_PATH_CHECK_H

#include <bypost/path.h>
#include <stdbool.h>

/* Every count, index and string of the copy lies within its bounds. */
bool path_fits(const struct path *path);
/* What control left open gets its default; what is beyond bounds is held within. */
void path_settle(struct path *path);

#endif
