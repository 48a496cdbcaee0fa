/* check_tls.h: the certificates that a configuration names. */
#ifndef CONTROL_CLI_CHECK_TLS_H
#define CONTROL_CLI_CHECK_TLS_H

#include "control/config/config.h"

/* Tells every fault on stderr with its place and remedy, and counts warnings. False where the dataplane would not start with them. */
bool check_tls(const struct config *config, unsigned *warnings);

#endif
