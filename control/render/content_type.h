/* content_type.h: the content types of attachments: type/subtype and parameters (RFC 2045 5.1, RFC 6838 4.2), checked for the decoder and
 * written. */
#ifndef CONTROL_RENDER_CONTENT_TYPE_H
#define CONTROL_RENDER_CONTENT_TYPE_H

#include "writer.h"

#include <stdbool.h>

enum {
    CONTENT_TYPE_MAX = 255,     /* bytes of the whole */
    CONTENT_TYPE_NAME_MAX = 40, /* of a parameter's name: its extended value keeps room on its line */
    CONTENT_TYPE_PARAMETERS_MAX = 32,
};

/* NULL, or what is wrong with a text of at most CONTENT_TYPE_MAX bytes, to stand behind it in a sentence: "has a parameter ...". Values in
 * quotes may hold any UTF-8. */
const char *content_type_fault(const char *text);

/* May an attachment of this type travel in base64? Not composite ones (RFC 2045 6.4). */
bool content_type_is_composite(const char *text);

/* Writes one that has no fault, behind "Content-Type:": its parameters as they are where they fit the line, else on lines of their own,
 * extended where they are long or not ASCII (RFC 2231). */
void content_type_write(struct writer *writer, const char *text);

#endif
