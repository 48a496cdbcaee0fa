/* asked.c: what a job asks of the next server beyond delivery: REQUIRETLS (RFC 8689) and notices of delivery (RFC 3461). */
#include "control/dispatch/state.h"

#include <string.h>

uint8_t asked_flags(const struct job *job) {
    return job->require_tls ? SLOT_REQUIRETLS : 0;
}

uint8_t asked_dsn(const struct job *job) {
    uint8_t bits = 0;
    if (job->dsn == 0)
        return 0;
    bits |= job->dsn & DSN_SUCCESS ? SLOT_NOTIFY_SUCCESS : 0;
    bits |= job->dsn & DSN_FAILURE ? SLOT_NOTIFY_FAILURE : 0;
    bits |= job->dsn & DSN_DELAY ? SLOT_NOTIFY_DELAY : 0;
    return (uint8_t)(bits | (job->dsn_full ? SLOT_RET_FULL : SLOT_RET_HDRS));
}

uint8_t asked_envid(const struct job *job, char out[SLOT_ENVID_MAX]) {
    static const char digits[] = "0123456789ABCDEF";
    uint8_t used = 0;
    if (job->dsn == 0 || job->id == NULL)
        return 0;
    /* xtext (RFC 3461 4): printable ASCII without "+" and "=" as it is, all else as "+" and two digits. */
    for (const char *at = job->id; *at != '\0'; at++) {
        unsigned char byte = (unsigned char)*at;
        bool plain = byte > 32 && byte < 127 && byte != '+' && byte != '=';
        if (used + (plain ? 1 : 3) > SLOT_ENVID_MAX)
            return 0; /* half an identifier would be another's */
        if (plain) {
            out[used++] = (char)byte;
        } else {
            out[used++] = '+';
            out[used++] = digits[byte >> 4];
            out[used++] = digits[byte & 15];
        }
    }
    return used;
}
