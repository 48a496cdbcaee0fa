/* harvest.h: outcomes that come without their job (a slot that outlived control): the entry is read again, bounded in number. Private to
 * settle. */
#ifndef CONTROL_SETTLE_HARVEST_H
#define CONTROL_SETTLE_HARVEST_H

#include "settle.h"

struct harvest;

/* `found` is called for each item once, with its job, or NULL when the entry is gone (*gone) or makes no sense. The job is borrowed. */
struct harvest *harvest_create(const struct settle_config *config,
                               void (*found)(void *context, const struct settle_item *item, struct job *job, bool gone), void *context);
void harvest_destroy(struct harvest *harvest);
/* 0 or -ENOMEM. */
int harvest_add(struct harvest *harvest, const struct settle_item *item);
/* Redis is up again, or there is something to look up. */
void harvest_pump(struct harvest *harvest);
void harvest_reconfigure(struct harvest *harvest, const struct config *config);

#endif
