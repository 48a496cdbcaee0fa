/* text.h: a growing text into which JSON is written. Private to settle. */
#ifndef CONTROL_SETTLE_TEXT_H
#define CONTROL_SETTLE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text {
    char *bytes; /* not terminated */
    size_t length, size;
    bool failed; /* out of memory: what follows is left out */
};

void text_free(struct text *text);
/* Gives back the room that it does not use. */
void text_shrink(struct text *text);
void text_add(struct text *text, const char *bytes, size_t length);
void text_number(struct text *text, uint64_t number);
enum { TEXT_DIGITS_MAX = 20 };
/* The number in decimal, not terminated; returns how many digits, TEXT_DIGITS_MAX at most. */
size_t text_digits(char *digits, uint64_t number);
/* A JSON string with its quotes (RFC 8259 section 7): control characters escaped, bytes that are no UTF-8 (RFC 3629) replaced by U+FFFD. */
void text_string(struct text *text, const char *bytes, size_t length);

/* Members of the object that is being written: a comma goes before all but the first, which follows its brace. */
void text_open(struct text *text, const char *name); /* "name":{ , or { when name is NULL */
void text_close(struct text *text);
void text_member(struct text *text, const char *name, const char *value); /* left out when value is NULL or "" */
void text_member_number(struct text *text, const char *name, uint64_t value);
void text_member_true(struct text *text, const char *name);
void text_member_json(struct text *text, const char *name, const char *json);      /* JSON text as it is; left out when NULL */
void text_member_time(struct text *text, const char *name, uint64_t milliseconds); /* Unix seconds with three decimals; left out when 0 */

#endif
