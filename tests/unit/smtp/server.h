/* server.h: the servers of a world, one at the other end of each connection. */
#ifndef TESTS_UNIT_SMTP_SERVER_H
#define TESTS_UNIT_SMTP_SERVER_H

#include "world.h"

/* Accepts, reads and answers on every connection. Did anything move? */
bool server_serve_all(struct world *world);
/* Frees those whose connection is over. */
void server_reap(struct world *world);

#endif
