/* sink.h: the SMTP server of one worker (RFC 5321, 2920, 3030, 6152, 1870, 2034, 6531; 3207, 4954, 3461, 9422, 8689), above dataplane/tls.
 * It keeps no message. */
#ifndef BENCH_SINK_SINK_H
#define BENCH_SINK_SINK_H

#include "auth.h"
#include "command.h"
#include "dataplane/tcp/tcp.h"
#include "dataplane/tls/tls.h"
#include "script.h"
#include "seen.h"
#include "tally.h"
#include <stdio.h>

struct sink;

struct sink_config {
    const char *name;    /* in banner and EHLO */
    uint16_t extensions; /* enum command_extension */
    uint64_t size_max;
    uint32_t recipients_max; /* of a transaction; more are answered 452 */
    uint32_t mails_max;      /* transactions of a connection; more are answered 452; 0: any number */
    uint32_t max_sessions;
    uint32_t max_transactions; /* at a time; as many command lines may be cut by segments at a time */
    struct script *script;     /* shared by the workers, as is seen */
    struct seen *seen;
    struct tls_worker *tls;         /* the caller's; NULL: no TLS */
    const struct auth_users *users; /* NULL: no AUTH */
    uint8_t mechanisms;             /* those that are offered, a bit for each enum auth_mechanism */
    bool require_auth, require_tls; /* before MAIL */
    FILE *record;                   /* "MESSAGE-ID RECIPIENT", a line for each recipient of a kept message; NULL: none. This worker's own */
};

/* All memory is reserved here. NULL with errno. */
struct sink *sink_create(const struct sink_config *config);
void sink_destroy(struct sink *sink);
/* What the stack is to call; the user of its listeners is sink_listener's. */
struct tcp_events sink_events(void);
/* Of ports where TLS begins with the first byte (RFC 8314), and of all others. */
void *sink_listener(struct sink *sink, bool implicit);
/* Timers of delays and slow readers, and TLS handshakes that wait for their turn. Returns when it wants to be called again (absolute us),
 * or UINT64_MAX. */
uint64_t sink_poll(struct sink *sink, uint64_t now_us);
const struct tally *sink_tally(const struct sink *sink);
uint32_t sink_sessions(const struct sink *sink);
/* Bytes of a session between transactions, without TCP's. */
size_t sink_session_bytes(void);
size_t sink_memory_bytes(const struct sink *sink);

#endif
