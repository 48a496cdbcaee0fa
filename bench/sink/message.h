/* message.h: what a sink wants to know of a message while it passes: its Message-ID, its X-Body-Digest and whether that is true. The body
 * is what follows the empty line behind the header, as transmitted, after dot-unstuffing, with the CRLF before the final dot. */
#ifndef BENCH_SINK_MESSAGE_H
#define BENCH_SINK_MESSAGE_H

#include "digest.h"
#include "text.h"

/* Of a header line only so much is looked at: long enough for every Message-ID that fits a line of RFC 5322's recommended length twice. */
enum { MESSAGE_LINE_BYTES = 256, MESSAGE_ID_BYTES_MAX = 200 };

enum message_field { MESSAGE_FIELD_OTHER, MESSAGE_FIELD_ID, MESSAGE_FIELD_DIGEST };

struct message {
    struct text text;
    uint64_t bytes; /* header and body, unstuffed */
    bool in_body;
    uint8_t field;                   /* enum message_field: of the header line at hand and what continues it */
    uint16_t line_length, id_length; /* gathered in line; of id */
    uint32_t line_bytes;             /* of the whole line */
    uint8_t expected[DIGEST_BYTES_MAX];
    struct digest digest;
    char id[MESSAGE_ID_BYTES_MAX];
    char line[MESSAGE_LINE_BYTES]; /* a line that is cut by a segment's end */
};

void message_start(struct message *message);
/* Bytes of DATA (dots) or of a BDAT chunk; text_start says which. Returns how many were taken; *ended only for DATA. */
uint32_t message_take(struct message *message, const uint8_t *bytes, uint32_t length, bool *ended);

#endif
