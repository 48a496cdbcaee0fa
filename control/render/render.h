/* render.h: job + recipient -> RFC 5322 bytes. Thread safe: no state but the identity key. */
#ifndef CONTROL_RENDER_RENDER_H
#define CONTROL_RENDER_RENDER_H

#include "control/job.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that the bodies of one content's messages have in common: encoded once, never changed, referred to by each of those messages. They
 * live as long as the content, which the message's job holds. No process uses an `id` twice, so who keeps a copy (the arena) knows it by
 * that. */
struct shared_bytes {
    uint64_t id;
    const uint8_t *bytes;
    uint32_t length;
    const uint8_t *relaxed; /* the same lines in DKIM's relaxed form (RFC 6376 3.4.4), but for empty lines at the end of a body */
};

/* A part of a body, in order: whole lines of the content's shared bytes, or bytes of the message's own. */
struct message_piece {
    bool shared;
    uint32_t offset; /* shared: in shared->bytes; else from the body's first own byte, bytes + start + header_length */
    uint32_t length;
    uint32_t relaxed_offset, relaxed_length; /* shared: the same lines in shared->relaxed */
};

/* A rendered message: CRLF line ends everywhere, no bare CR or LF, no NUL, ends with CRLF, no line over 998 bytes. Grown with malloc.
 * The header is its own; the body is `pieces` in order, or without any what follows the header in `bytes`. */
struct message {
    uint8_t *bytes; /* the signature, when there is one, is put before `start` by sign: bytes[0..start) is headroom for it */
    size_t capacity;
    size_t start;          /* the message begins here */
    size_t own_length;     /* of the bytes at start: the header, then the body's own pieces one behind the other */
    size_t length;         /* of the whole message; own_length when nothing is shared */
    size_t header_length;  /* with the empty line behind the header */
    bool has_leading_dots; /* some line begins with "." */
    bool body_8bit;
    bool needs_smtputf8;
    uint32_t piece_count; /* 0: the body is its own */
    uint32_t piece_capacity;
    struct message_piece *pieces;      /* malloc'd, the message's */
    const struct shared_bytes *shared; /* what shared pieces lie in; NULL without any */
    char from_domain[256];             /* A-labels, lower case: chooses the DKIM key */
    char sender[255];                  /* the envelope's, "" for null */
    char recipient[255];
};
void message_init(struct message *message);
void message_free(struct message *message);
/* Makes the whole message its own bytes, for those that want it in one run. 0 or -ENOMEM (it is as it was). */
int message_flatten(struct message *message);

enum { MESSAGE_HEADROOM_BYTES = 4096 };

/* Messages of a content refer to what they share; 0 copies it into each of them. */
enum { RENDER_SHARES = 1 };

struct identity; /* the key of Message-IDs, of tokens in links and of VERP addresses */
/* Reads it from a file of at least 32 bytes. NULL with errno. */
struct identity *identity_load(const char *path);
void identity_free(struct identity *identity);

/* Whether the texts of a shared content are well-formed templates: one that is not would be the error of each recipient. 0; -EINVAL or
 * -ENOMEM with a sentence (which text, line and column). */
int render_check(const struct job *fields, char *error, size_t error_bytes);

/* The same of a job's own texts, before its content's are in it: those that will be templates. Not of its recipients' own header fields:
 * each of those is one recipient's. */
int render_check_job(const struct job *job, char *error, size_t error_bytes);

/* What the messages of a shared content (job->content) have in common. Immutable, so that all threads share it; `fields` must outlive it,
 * and it every message that refers to its bytes. `content_id` is the one that its jobs name (job->content_id): boundaries are a keyed hash
 * of it. NULL without memory: messages are rendered all the same, only slower. */
struct render_prepared *render_prepare(const struct job *fields, const char *content_id, const struct identity *identity);
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
 * which have a To field and a Message-ID of their own, nor where the job has VERP or names variables of ours ({{bypost.NAME}}). With
 * index_a = index_b: may it share with others at all? */
bool render_is_shared(const struct job *job, uint32_t index_a, uint32_t index_b);
/* The recipient's address as its envelope has it, to out[255]. 0 or -EINVAL. */
int render_recipient(const struct job *job, uint32_t index, char *out);

#endif
