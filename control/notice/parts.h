/* parts.h: what the files of this folder share. Private to notice. */
#ifndef CONTROL_NOTICE_PARTS_H
#define CONTROL_NOTICE_PARTS_H

#include "control/render/writer.h"
#include "notice.h"

enum {
    NOTICE_TEXT_BYTES = 512,
    NOTICE_DATE_BYTES = 40,
    NOTICE_FULL_BYTES_MAX = 1 << 20, /* a larger message comes back as its headers; divided by the recipients of its job */
};

enum notice_kind { NOTICE_FAILED, NOTICE_DELAYED, NOTICE_RELAYED };

/* One notice under way. */
struct notice {
    const struct config *config;
    const struct identity *identity;
    const struct job *job;
    const struct job_recipient *recipient;
    uint32_t index;
    enum notice_kind kind;
    bool expired; /* failed because its time was up */
    const struct outcome *outcome;
    uint16_t attempt;
    uint64_t next_attempt_ms, give_up_ms, now_ms;
    const char *sender;   /* whom it goes to */
    char daemon[256];     /* whom it is from */
    const char *mta;      /* this node's name */
    char address[255];    /* the recipient's, its domain in A-labels */
    bool address_utf8;    /* its local part is not ASCII */
    char message_id[320]; /* of the message, or "" */
    char boundary[128];
};

/* "Tue, 14 Nov 2023 22:13:20 +0000" */
void notice_date(uint64_t ms, char out[NOTICE_DATE_BYTES]);
/* The server that answered: "mx.example.net [192.0.2.1]", or "". */
void notice_server(const struct notice *notice, char out[NOTICE_TEXT_BYTES]);
/* "5.1.1": the server's, or what its code or the kind of notice says (RFC 3463). */
void notice_status(const struct notice *notice, char out[24]);

/* words.c: the part for people. */
void words_write(struct writer *writer, const struct notice *notice);
/* status.c: the fields of message/delivery-status (RFC 3464 2.2, 2.3). */
void status_write(struct writer *writer, const struct notice *notice);
/* returned.c: the message or its header, as a part with its fields and the delimiter before it; nothing when it cannot be made again or
 * would not fit `room` bytes. */
void returned_write(struct writer *writer, const struct notice *notice, size_t room);
/* The Message-ID of the message as it was sent; "" when it cannot be made again. */
void returned_message_id(const struct notice *notice, char *out, size_t out_bytes);

#endif
