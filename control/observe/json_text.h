/* json_text.h: a text as a JSON string, whatever bytes it holds. */
#ifndef CONTROL_OBSERVE_JSON_TEXT_H
#define CONTROL_OBSERVE_JSON_TEXT_H

#include <stddef.h>

/* Writes `text` with its quotes and a NUL into out[out_bytes] (at least 16): control characters escaped, bytes that are no UTF-8 as U+FFFD,
 * and what does not fit cut at a character with "..." in its place. Returns the length without the NUL. RFC 8259 section 7. */
size_t json_text(char *out, size_t out_bytes, const char *text);

#endif
