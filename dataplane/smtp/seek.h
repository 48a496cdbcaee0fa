/* seek.h: orders that one server cannot take and another of the path may: for want of an extension, or because of its SIZE. */
#ifndef DATAPLANE_SMTP_SEEK_H
#define DATAPLANE_SMTP_SEEK_H

#include "lane.h"

enum {
    SEEK_KNOWN_US = 300 * 1000 * 1000, /* so long counts what a server said in its last session, for orders that come later */
    SEEK_LIMIT_US =
        900 * 1000 * 1000, /* an order looks for a server so long in all, then it is deferred: a session may be at work so long ... */
    SEEK_WAIT_US = 60 * 1000 * 1000,    /* ... so long while it waits for leave to open one ... */
    SEEK_PATIENCE_US = 2 * 1000 * 1000, /* ... and so long for an idle session's place, while other orders can use that */
    SEEK_ORDERS_MAX = 64,               /* that are looked after in one look */
    SEEK_SESSIONS_MAX = 64,             /* that are looked at for one of them */
};

/* What a server lacks for an order. */
enum seek_lack {
    LACK_NOTHING,
    LACK_SIZE,       /* RFC 1870: the message is larger than it takes */
    LACK_8BITMIME,   /* RFC 6152 */
    LACK_SMTPUTF8,   /* RFC 6531 */
    LACK_TLS,        /* REQUIRETLS, and TLS fails there at present: this passes */
    LACK_REQUIRETLS, /* RFC 8689: not offered, or the certificate is not good */
    LACKS
};

/* Gives a due order to the session, or to another that can take it. When none can it waits for a session with an endpoint that it does not
 * know yet, and when every endpoint is known it is answered. */
void seek_bind(struct smtp_session *session, struct order *order, uint64_t now_us);
/* A session became ready: remembers what its server offers. */
void seek_heard(const struct smtp_session *session, uint64_t now_us);
/* Looks after the orders that wait so: binds, opens a session for them or makes room for one, answers. *look_us falls to when to look
 * again. Returns the steps taken. */
uint32_t seek_serve(struct lane *lane, uint32_t allowed, uint64_t now_us, uint64_t *look_us);
/* Returns them all: no session is to be opened any more. */
void seek_give_back(struct lane *lane, uint64_t now_us);

#endif
