/* raw.h: a message that the producer made: sent as it is once its line ends are right and what must not travel is gone. */
#ifndef CONTROL_RENDER_RAW_H
#define CONTROL_RENDER_RAW_H

#include "control/job.h"
#include "address.h"
#include "writer.h"

/* What is written before the message's own fields when they are missing. */
struct raw_additions {
    uint64_t date_s;
    const char *message_name;   /* left of the @ of a Message-ID */
    const struct mailbox *from; /* or NULL */
};

struct raw_facts {
    size_t body_offset; /* in the writer */
    bool header_8bit, body_8bit;
    char from_domain[DOMAIN_BYTES]; /* A-labels */
    char from_address[ADDRESS_BYTES];
    bool from_utf8; /* its local part is not ASCII */
};

/* Bare CR and LF become CRLF, NUL bytes go, the last line gets its end; Bcc, Resent-Bcc, Return-Path and Content-Length go, as does white
 * space before a colon; Date, Message-ID, From and what MIME wants are added where missing; 8-bit texts and names become encoded-words. 0,
 * or -EINVAL (a line over 998 bytes, a header that is none, a field twice that may be there once, no usable From), -ENOMEM, with a sentence
 * in error. */
int raw_write(struct writer *writer, const uint8_t *raw, size_t length, const struct raw_additions *additions, struct raw_facts *facts,
              char *error, size_t error_bytes);

/* What the messages of a raw content have in common: facts, its own fields as they travel. */
struct raw_prepared;
/* Reads it once; its body goes to `body`, as it travels. NULL: raw_write says why, or there is no memory. */
struct raw_prepared *raw_prepare(const uint8_t *raw, size_t length, struct writer *body);
void raw_prepared_free(struct raw_prepared *prepared);
/* Memory it takes. */
size_t raw_prepared_bytes(const struct raw_prepared *prepared);
/* What raw_write writes, but for the body, and returns. writer->leading_dot is set for the body's, too. */
int raw_write_prepared(struct writer *writer, const struct raw_prepared *prepared, const struct raw_additions *additions,
                       struct raw_facts *facts, char *error, size_t error_bytes);

/* raw_encode.c: writes a field of `length` bytes (with its line ends; its name has `name` bytes) whose text is beyond ASCII as one in
 * encoded-words. False: it is none of those that readers decode, and nothing was written. *is_8bit is set when an address in it stays
 * beyond ASCII. */
bool raw_encode(struct writer *writer, const char *field, size_t length, size_t name, bool *is_8bit);

#endif
