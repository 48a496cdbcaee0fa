/* check_sender.h: what receivers will find in DNS of who sends: SPF, DKIM, DMARC, PTR, EHLO names. */
#ifndef CONTROL_CLI_CHECK_SENDER_H
#define CONTROL_CLI_CHECK_SENDER_H

#include "control/config/config.h"

/* Asks the configured name servers; tells on stderr what large receivers will hold against the senders of this configuration, with its
 * remedy, and counts warnings. False where DNS cannot be asked at all. */
bool check_sender(const struct config *config, unsigned *warnings);

#endif
