/* render.h: job + recipient -> RFC 5322 bytes. Thread safe: no state but the identity key. */
#ifndef CONTROL_RENDER_RENDER_H
#define CONTROL_RENDER_RENDER_H

#include "control/job.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A rendered message: CRLF line ends everywhere, no bare CR or LF, no NUL, ends with CRLF, no line over 998 bytes. Grown with malloc. */
struct message {
    uint8_t *bytes; /* the signature, when there is one, is put before `header_start` by sign: see `headroom` */
    size_t capacity;
    size_t start;          /* the message begins here: bytes[0..start) is headroom for header fields prepended by sign */
    size_t length;         /* from start */
    size_t header_length;  /* with the empty line behind the header */
    bool has_leading_dots; /* some line begins with "." */
    bool body_8bit;
    bool needs_smtputf8;
    char from_domain[256]; /* A-labels, lower case: chooses the DKIM key */
    char sender[255];      /* the envelope's, "" for null */
    char recipient[255];
};
void message_init(struct message *message);
void message_free(struct message *message);

enum { MESSAGE_HEADROOM_BYTES = 4096 };

struct identity; /* the key of Message-IDs and VERP tokens */
/* Reads it from a file of at least 32 bytes. NULL with errno. */
struct identity *identity_load(const char *path);
void identity_free(struct identity *identity);

/* What the messages of a shared content (job->content) have in common. Immutable, so that all threads share it; `fields` must outlive it.
 * NULL for a raw message, which has nothing to prepare, or without memory: messages are rendered all the same, only slower. */
struct render_prepared *render_prepare(const struct job *fields);
void render_prepared_free(struct render_prepared *prepared);
/* Memory it takes. */
size_t render_prepared_bytes(const struct render_prepared *prepared);

/* Renders for one recipient. `date_s`: the Date field (fixed at the first render and kept). Message-ID is a keyed hash of the job and the
 * recipient's index under the sender's domain (the index only counts for RECIPIENT_PRIVATE: to/cc/bcc recipients share one message), so
 * that a repeat is the same message. 0; or -EINVAL (this recipient's error) or -E2BIG (over max_bytes) with a sentence in error. */
int render_message(const struct job *job, uint32_t index, uint64_t date_s, const struct identity *identity, size_t max_bytes,
                   struct message *message, char *error, size_t error_bytes);

/* Is what render_message makes the same message, byte for byte and with the same envelope but for the recipient, for these two? True of
 * to/cc/bcc recipients of one job whose addresses can go into an envelope and both need SMTPUTF8 or both do not; never of recipients[],
 * which have a To field and a Message-ID of their own. With index_a = index_b: may it share with others at all? */
bool render_is_shared(const struct job *job, uint32_t index_a, uint32_t index_b);
/* The recipient's address as its envelope has it, to out[255]. 0 or -EINVAL. */
int render_recipient(const struct job *job, uint32_t index, char *out);

#endif
