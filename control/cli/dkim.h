/* dkim.h: what the parts of `bypost dkim` share. */
#ifndef CONTROL_CLI_DKIM_H
#define CONTROL_CLI_DKIM_H

#include "cli.h"
#include "resolver.h"

/* Prints a key's record as web forms want it and as a zone file has it. */
void dkim_record_print(const char *selector, const char *domain, const char *record);

/* Asks for the key's record ahead of dkim_check_key. */
void dkim_ask_ahead(struct resolver *resolver, const struct config_dkim_key *key);
/* Is this key published as the private key wants it? NULL; else the worst of what is wrong, a sentence, to free. */
char *dkim_check_key(struct resolver *resolver, const struct config_dkim_key *key);

/* argv[0] is "check" and the like. Return an exit code. */
int dkim_check_run(int argc, char **argv);

#endif
