/* share.h: what this node may use of the limits of one site or provider while other nodes send too. Private to shape. */
#ifndef CONTROL_SHAPE_SHARE_H
#define CONTROL_SHAPE_SHARE_H

#include "bucket.h"
#include "shape.h"
#include <sys/queue.h>

struct shape_site;
struct shape_provider;

enum {
    SHARE_DUE_US = 200000,       /* asked for anew while it binds, or what is wanted changes */
    SHARE_CALM_US = 1000000,     /* the same where it does not */
    SHARE_URGENT_US = 10000,     /* no sooner than this after the last time */
    SHARE_WAIT_US = 1000000,     /* without an answer for so long: an equal part of the limit */
    SHARE_CONNECTS_US = 1000000, /* so long after the last connect its rate is still wanted whole */
    SHARE_BUSY = 10,             /* a node that uses more than this part of a rate says every time how much */
    SHARE_FIRST = 20,            /* this part of a rate is asked for until it turns out to bind: sessions are still to be opened */
    SHARE_FLOOR = 5000,          /* kept of a rate by a node that has something to send */
};

struct share {
    TAILQ_ENTRY(share) link;
    struct shape_site *site; /* one of the two; both NULL: it outlives them until its answer comes */
    struct shape_provider *provider;
    bool listed, asked, idle; /* idle: nothing but sessions that linger */
    bool refused;             /* a message found no token since the last question */
    bool narrow;              /* more sessions were wanted than there are */
    uint64_t due_us;          /* when to ask next */
    uint64_t asked_us;        /* the last question */
    uint64_t until_us;        /* what follows holds so long */
    uint64_t connect_us;      /* the last connect */
    uint32_t used;            /* messages since the last question */
    double used_per_second;   /* of late */
    uint32_t parts[SHARE_PARTS];
};
TAILQ_HEAD(share_list, share);

/* NULL: out of memory. */
struct share *share_create(struct shape *shape, struct shape_site *site, struct shape_provider *provider, uint64_t now_us);
void share_release(struct shape *shape, struct share *share);
/* There is something to send: a part is asked for. */
void share_want(struct shape *shape, struct share *share, uint64_t now_us);
/* A message found no token. */
void share_refused(struct shape *shape, struct share *share, uint64_t now_us);
/* What may be used of `limit`; 0 for a limit that is none. A leased part may be nothing: *shut. */
uint32_t share_connections(const struct shape *shape, const struct share *share, uint32_t limit, bool *shut);
/* The same of a rate, for intervals: never 0 for a limit that is one. */
double share_connects(const struct shape *shape, const struct share *share, double rate);
/* Sets the bucket to this node's part of `rate`. */
void share_bucket(const struct shape *shape, const struct share *share, struct bucket *bucket, double rate, enum share_part part,
                  uint64_t now_us);

#endif
