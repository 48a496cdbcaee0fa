/* header.h: header fields (RFC 5322, RFC 2047, RFC 2231). No value, whatever it holds, can end its field: line ends in values become
 * spaces. */
#ifndef CONTROL_RENDER_HEADER_H
#define CONTROL_RENDER_HEADER_H

#include "control/job.h"
#include "writer.h"

enum {
    HEADER_LINE_BYTES = 76, /* where folding begins: the limit of lines with encoded-words (RFC 2047 2) */
    HEADER_LINE_MAX = 998,  /* required */
    HEADER_NAME_MAX = 76,
};

/* A legal field name (RFC 5322 3.6.8) of bearable length. */
bool header_name_is_legal(const char *name);

/* "Name: value", folded at white space; words that are not printable ASCII become encoded-words of at most 75 (RFC 2047), whole characters
 * each. */
void header_text(struct writer *writer, const char *name, const char *value);

/* "Name: " and mailboxes with commas. 0, or -EINVAL with the culprit in *bad. *utf8 is set when an address needs SMTPUTF8. */
int header_mailboxes(struct writer *writer, const char *name, const struct mailbox *mailboxes, uint32_t count, bool *utf8,
                     const struct mailbox **bad);

/* The same of one, whose address in A-labels goes to address[ADDRESS_BYTES] (address.h). 0 or -EINVAL. */
int header_mailbox(struct writer *writer, const char *name, const struct mailbox *mailbox, char *address, bool *utf8);

/* "Name: words <text>" (either may be empty but not both): the words as a phrase (RFC 5322 3.2.5), the text as it is. */
void header_phrase(struct writer *writer, const char *name, const char *words, size_t words_length, const char *text, size_t length);

/* "Date: Thu, 01 Jan 1970 00:00:00 +0000" (RFC 5322 3.3). */
void header_date(struct writer *writer, uint64_t date_s);

/* "Message-ID: <name@domain>" (RFC 5322 3.6.4). */
void header_message_id(struct writer *writer, const char *name, const char *domain);

/* "; name=value" on a line of its own, quoted, or extended and continued (RFC 2231) when it is long or not ASCII. */
void header_parameter(struct writer *writer, const char *name, const char *value);

#endif
