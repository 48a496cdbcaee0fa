/* notify.h: what both processes tell systemd (sd_notify(3)): a datagram to $NOTIFY_SOCKET. Without one nothing happens. */
#ifndef BYPOST_NOTIFY_H
#define BYPOST_NOTIFY_H

#include <stdint.h>

/* "READY=1", "STATUS=...", "STOPPING=1", "WATCHDOG=1", several with newlines between them. 0 sent, -ENOENT: no socket is named; -errno: it
 * could not be sent (never waits). An address that begins with '@' is in the abstract namespace. */
int notify_send(const char *state);
/* "RELOADING=1" with the time that systemd wants beside it; READY=1 ends it. */
int notify_reloading(void);
/* How often WATCHDOG=1 is due: half of what systemd waits ($WATCHDOG_USEC, when it is meant for this process); 0: never. */
uint64_t notify_watchdog_us(void);

#endif
