/* notice.h: delivery status notices (RFC 3464) to the envelope sender, where a job asks for them. Never for a null sender. */
#ifndef CONTROL_NOTICE_NOTICE_H
#define CONTROL_NOTICE_NOTICE_H

#include "control/config/config.h"
#include "control/job.h"
#include "control/outcome.h"
#include "control/render/render.h"
#include <stddef.h>

/* The notice of this recipient's event as the JSON text of a job (malloc'd, the caller's; *length its bytes), or NULL when none is asked
 * for: bounced, expired: failure; deferred: delay, once, after config->notices.delay_ms; delivered: success (relayed, as bypost does not
 * know of the mailbox). It goes into the queue in the same step as the outcome (settle), so that it is neither lost nor doubled. `attempt`:
 * attempts made, this one included. `identity`: so that the returned header has the message's own Message-ID. */
char *notice_write(const struct config *config, const struct identity *identity, const struct job *job, uint32_t index,
                   enum event_type event, const struct outcome *outcome, uint16_t attempt, uint64_t next_attempt_ms, uint64_t now_ms,
                   size_t *length);

#endif
