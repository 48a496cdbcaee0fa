/* token.h: the keys that tokens of links and VERP addresses are opened with. */
#ifndef CONTROL_CLI_TOKEN_H
#define CONTROL_CLI_TOKEN_H

#include "control/config/config.h"

struct identity;

/* The path of the key in use, malloc'd. */
char *identity_key_path(const struct config *config);

/* The entry ("1795317974799-0") and index that a VERP address names, opened with the key in use or a former one. False when it is none, or
 * no key opens it. */
bool verp_entry(const struct config *config, const char *address, char entry[48], uint32_t *index);

#endif
