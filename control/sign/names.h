/* names.h: the header fields that are signed (RFC 6376 5.4). */
#ifndef CONTROL_SIGN_NAMES_H
#define CONTROL_SIGN_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DKIM_NAMES_ROOM = 64, DKIM_NAME_BYTES = 64 };

struct dkim_names {
    uint32_t count;
    struct dkim_name {
        char text[DKIM_NAME_BYTES + 1]; /* lower case */
        uint8_t length;
        bool oversigned; /* named once more than present, so that none can be added (8.15) */
    } items[DKIM_NAMES_ROOM];
    uint64_t by_length[DKIM_NAME_BYTES + 1]; /* a bit for each item of that length */
};

/* From lists of names, NULL-terminated; a list that is NULL: the shipped one. From is added to the oversigned ones where neither list has
 * it. 0, or -EINVAL: too many or too long. */
int dkim_names_make(struct dkim_names *names, char *const *oversign, char *const *sign);
/* Which of them a field's name is, without case; or -1. */
int dkim_names_find(const struct dkim_names *names, const uint8_t *name, size_t length);

#endif
