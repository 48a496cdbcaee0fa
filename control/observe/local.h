/* local.h: control's local socket, run_directory/control.sock (0660): one request a line, one JSON line back. */
#ifndef CONTROL_OBSERVE_LOCAL_H
#define CONTROL_OBSERVE_LOCAL_H

#include <event2/event.h>
#include <stddef.h>

struct local_server;
/* `answer` is called for each request line (without its end; at most 4,096 bytes) and returns a malloc'd JSON text without a newline, or
 * NULL for an unknown one. "stats" and "ping" are the first words in use. NULL with a sentence in error. */
struct local_server *local_server_create(struct event_base *base, const char *socket_path,
                                         char *(*answer)(void *context, const char *request), void *context, char *error,
                                         size_t error_bytes);
void local_server_destroy(struct local_server *server);
/* Client side: sends one request and returns the malloc'd answer line, or NULL with a sentence in error. Waits at most timeout_ms. */
char *local_request(const char *socket_path, const char *request, int timeout_ms, char *error, size_t error_bytes);

#endif
