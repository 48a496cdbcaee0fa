/* delivery.h: the record from route to dispatch: one recipient of one job on its way. */
#ifndef CONTROL_DELIVERY_H
#define CONTROL_DELIVERY_H

#include "control/job.h"
#include <stdint.h>

struct site; /* route's: domains that share an MX set */

struct delivery {
    struct job *job;  /* holds a reference */
    uint32_t index;   /* of the recipient */
    uint16_t attempt; /* attempts made before this one */
    bool high;
    bool uncertain;        /* an earlier attempt ended uncertain: events carry the mark */
    bool begun;            /* in this attempt: a connection ended within its transaction, and it went back for the next host */
    struct site *site;     /* holds a reference */
    uint64_t queued_ms;    /* CLOCK_REALTIME: when fetched */
    struct delivery *next; /* in the queue that holds it */
    void *taken_from;      /* shape's: the lane that counts it as outstanding */
};

#endif
