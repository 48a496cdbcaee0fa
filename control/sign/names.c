/* names.c: what is signed of a header, as shipped or as configured. */
#include "names.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

/* Never Return-Path, Received, Bcc: they change on the way. */
static char *const shipped_oversign[] = {"from", "to", "cc", "subject", "reply-to", NULL};
/* Only as often as present: mailing lists add theirs. */
static char *const shipped_sign[] = {"date",
                                     "message-id",
                                     "in-reply-to",
                                     "references",
                                     "mime-version",
                                     "content-type",
                                     "content-transfer-encoding",
                                     "list-id",
                                     "list-unsubscribe",
                                     "list-unsubscribe-post",
                                     "feedback-id",
                                     NULL};

static int add_name(struct dkim_names *names, const char *text, bool oversigned) {
    size_t length = strlen(text);
    if (names->count == DKIM_NAMES_ROOM || length > DKIM_NAME_BYTES)
        return -EINVAL;
    struct dkim_name *name = &names->items[names->count];
    memcpy(name->text, text, length + 1);
    name->length = (uint8_t)length;
    name->oversigned = oversigned;
    names->by_length[length] |= UINT64_C(1) << names->count++;
    return 0;
}

static bool has_from(char *const *list) {
    for (; *list != NULL; list++)
        if (strcasecmp(*list, "from") == 0)
            return true;
    return false;
}

int dkim_names_make(struct dkim_names *names, char *const *oversign, char *const *sign) {
    int result = 0;
    memset(names, 0, sizeof(*names));
    oversign = oversign != NULL ? oversign : shipped_oversign;
    sign = sign != NULL ? sign : shipped_sign;
    if (!has_from(oversign) && !has_from(sign))
        result = add_name(names, "from", true);
    for (; result == 0 && *oversign != NULL; oversign++)
        result = add_name(names, *oversign, true);
    for (; result == 0 && *sign != NULL; sign++)
        result = add_name(names, *sign, false);
    return result;
}

int dkim_names_find(const struct dkim_names *names, const uint8_t *name, size_t length) {
    uint64_t candidates = length <= DKIM_NAME_BYTES ? names->by_length[length] : 0;
    for (; candidates != 0; candidates &= candidates - 1) {
        int at = __builtin_ctzll(candidates);
        if (strncasecmp(names->items[at].text, (const char *)name, length) == 0)
            return at;
    }
    return -1;
}
