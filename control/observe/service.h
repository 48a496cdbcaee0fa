/* service.h: control as a service of systemd: ready, status, watchdog, all from the event loop itself, so that a loop that hangs is killed.
 */
#ifndef CONTROL_OBSERVE_SERVICE_H
#define CONTROL_OBSERVE_SERVICE_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>

struct service;
/* `status` writes a line for `systemctl status` and says whether everything is there. READY=1 goes out when it is, or after
 * SERVICE_READY_MS: what is missing is awaited then. NULL when no systemd listens, or without memory. */
enum { SERVICE_READY_MS = 3000 };
struct service *service_create(struct event_base *base, bool (*status)(void *context, char *text, size_t text_bytes), void *context);
void service_destroy(struct service *service);

#endif
