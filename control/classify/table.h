/* table.h: what each class means for a delivery, and the classes that codes alone stand for (SMTP.md section 6; RFC 5321 4.2, RFC 3463, RFC
 * 7372). */
#ifndef CONTROL_CLASSIFY_TABLE_H
#define CONTROL_CLASSIFY_TABLE_H

#include "control/outcome.h"

/* When a class ends an attempt for good. */
enum class_ending {
    ENDING_BY_CODE, /* 5xx ends, 4xx is tried again */
    ENDING_NEVER,   /* tried again whatever the code; the queue's time ends it */
    ENDING_SENDER,  /* speaks of the sender: 5xx ends only where the configuration does not defer */
};

struct class_row {
    const char *text;
    enum class_scope scope;
    enum class_ending ending;
    bool suppress; /* at once, when it ends the recipient */
    uint32_t retry_after_s;
};

const struct class_row *class_row(enum reply_class class);

/* Whether a text names a class that a reply can have. */
bool class_named(const char *text, enum reply_class *class);

/* The class of codes; enhanced zeros when it is missing or does not agree. */
enum reply_class class_of_codes(uint16_t code, const uint16_t *enhanced, enum smtp_stage stage);

#endif
