/* speech.h: the words of a transaction, queued in groups as large as the server's extensions allow. */
#ifndef DATAPLANE_SMTP_SPEECH_H
#define DATAPLANE_SMTP_SPEECH_H

#include "lane.h"

/* BDAT takes the place of DATA on this session (RFC 3030): no dot is stuffed, and with PIPELINING too a message is one flight. */
static inline bool speech_is_chunked(const struct smtp_session *session) {
    return session->capabilities.flags & CAP_CHUNKING && !(session->lane->path.flags & PATH_NO_CHUNKING);
}

/* What `saying` has to say next, all of a group or nothing: with PIPELINING all up to DATA, or up to the first BDAT and its bytes; else the
 * command that the state waits for. 0 or -errno; then the same again. */
int speech_envelope(struct smtp_session *session, uint64_t now_us);
/* As much of the body as the bounds of transaction.h allow; enters SESSION_FINAL behind its last byte. */
int speech_body(struct smtp_session *session, uint64_t now_us);
/* The dot of a message without recipients. */
int speech_dot(struct smtp_session *session, uint64_t now_us);

#endif
