/* relays.h: `relays` of bypost.yaml: hosts, TLS and credentials, with the files that hold secrets. */
#ifndef CONTROL_CONFIG_RELAYS_H
#define CONTROL_CONFIG_RELAYS_H

#include "reader.h"

enum {
    RELAY_IDENTITIES_MAX = 64,    /* pairs of certificate and key of all relays together: what a dataplane takes */
    RELAY_NAMES_MAX = 16,         /* tls_names of one relay */
    RELAY_DEFAULT_PORT = 25,      /* of a host without one */
    RELAY_SUBMISSIONS_PORT = 465, /* RFC 8314 3.3: implicit TLS */
};

/* A field's `read`: `record` is the struct config. */
void relays_read(struct reader *reader, const struct yaml_node *node, void *record);
/* What needs this machine: reads the secrets, looks for the files, and tells what does not fit together. The configuration may be
 * half-read. */
void relays_check(struct reader *reader, struct config *config);
void relays_free(struct config *config);

#endif
