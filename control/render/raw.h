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

/* raw_encode.c: writes a field of `length` bytes (with its line ends; its name has `name` bytes) whose text is beyond ASCII as one in
 * encoded-words. False: it is none of those that readers decode, and nothing was written. *is_8bit is set when an address in it stays
 * beyond ASCII. */
bool raw_encode(struct writer *writer, const char *field, size_t length, size_t name, bool *is_8bit);

#endif
