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

/* Bare CR and LF become CRLF, NUL bytes go, the last line gets its end; Bcc and Return-Path go, as does white space before a colon; Date,
 * Message-ID and From are added where missing. 0, or -EINVAL (a line over 998 bytes, a header that is none, two From fields, no usable
 * From), -ENOMEM, with a sentence in error. */
int raw_write(struct writer *writer, const uint8_t *raw, size_t length, const struct raw_additions *additions, struct raw_facts *facts,
              char *error, size_t error_bytes);

#endif
