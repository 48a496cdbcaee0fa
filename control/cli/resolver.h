/* resolver.h: questions of the command line to the configured name servers: many ahead, each once, and bounded in all. */
#ifndef CONTROL_CLI_RESOLVER_H
#define CONTROL_CLI_RESOLVER_H

#include "control/config/config.h"
#include "control/route/dns.h"
#include "control/route/txt.h"

/* Silent name servers are waited for six times `dns.timeout` in all, whatever the number of questions. */
enum { RESOLVER_SILENCE_TIMEOUTS = 6 };

struct resolver;
/* By `dns` of the configuration, without DNSSEC: whoever reads such records does without. NULL with a sentence in `error`. */
struct resolver *resolver_create(const struct config *config, char *error, size_t error_bytes);
void resolver_free(struct resolver *resolver);

enum { RESOLVER_WHY_BYTES = 96, RESOLVER_NAME_BYTES = 256 };
struct resolver_answer {
    enum dns_status status;
    uint32_t count;
    uint8_t **data; /* [count] RDATA */
    size_t *lengths;
    char why[RESOLVER_WHY_BYTES];        /* DNS_FAILED: in words */
    char canonical[RESOLVER_NAME_BYTES]; /* the name behind the CNAMEs; empty when unknown */
};
/* Asks and waits for the answer, within the configured timeout; give it to resolver_forget. What was asked before is answered as it was
 * then, failures too. A name that cannot be in DNS (RFC 1035 2.3.4) does not exist, without a question. */
void resolver_ask(struct resolver *resolver, const char *name, int type, struct resolver_answer *answer);
void resolver_forget(struct resolver_answer *answer);
/* Asks and does not wait: a later resolver_ask takes its answer. Those asked ahead are in flight together. */
void resolver_ask_ahead(struct resolver *resolver, const char *name, int type);
/* Waits for all that were asked ahead. */
void resolver_settle(struct resolver *resolver);
/* NULL; once nothing but failures came: why the last of them was one. */
const char *resolver_mute(const struct resolver *resolver);
/* Has the bound on silence been reached? Further questions fail without being asked. */
bool resolver_gave_up(const struct resolver *resolver);
/* What that bound is. */
uint32_t resolver_silence_max_ms(const struct resolver *resolver);

/* A name in wire form (RFC 1035 3.1), as PTR and MX have it, as text in lower case without its last dot. False: malformed. */
bool resolver_name(const uint8_t *wire, size_t bytes, char text[RESOLVER_NAME_BYTES]);
/* The name of an address in in-addr.arpa or ip6.arpa (RFC 1035 3.5, RFC 3596 2.5). */
void resolver_reverse(const struct config_address *address, char name[RESOLVER_NAME_BYTES]);

#endif
