/* command.h: command lines in buffers on loan: taken when a line is built, back in the pool when the last byte was acknowledged. */
#ifndef DATAPLANE_SMTP_COMMAND_H
#define DATAPLANE_SMTP_COMMAND_H

#include "dataplane/tcp/tcp.h"
#include "pool.h"
#include <stdbool.h>
#include <stdint.h>

enum {
    COMMAND_BUFFER_BYTES = 1024,
    COMMAND_TEXT_BYTES = COMMAND_BUFFER_BYTES - 40,
    COMMAND_ORCPT_MAX = 500, /* RFC 3461 4.2 */
    COMMAND_NOTIFY_BYTES = sizeof(" NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=") + COMMAND_ORCPT_MAX,
};

struct command {
    struct tcp_owner owner; /* first: a free buffer's link lies here */
    struct pool *pool;
    uint16_t length;
    char text[COMMAND_TEXT_BYTES];
};
static_assert(sizeof(struct command) <= COMMAND_BUFFER_BYTES, "command buffers are 1 KiB");

enum command_fault { COMMAND_FINE, COMMAND_FULL, COMMAND_BAD_ADDRESS, COMMAND_NEEDS_UTF8 };

/* An empty buffer with one reference, the caller's; NULL when all are on loan. */
struct command *command_take(struct pool *pool);
/* Gives the caller's reference up. */
void command_drop(struct command *command);

/* May these bytes stand between angle brackets? No control character, space, '<' or '>'; beyond ASCII only with `utf8` (RFC 6531). */
enum command_fault command_check_address(const char *address, uint32_t length, bool utf8);

/* Is it xtext (RFC 3461 section 4): printable ASCII, where '+' begins two hexadecimal digits and '=' is none? */
bool command_is_xtext(const char *text, uint32_t length);

/* Appends whole lines or nothing. Addresses are copied first and checked in the copy: their source is shared memory. */
enum command_fault command_line(struct command *command, const char *verb, const char *argument);
/* `MAIL FROM:<sender>` and its parameters (each with its leading blank); a sender of length 0 is the null sender. */
enum command_fault command_mail(struct command *command, const char *sender, uint32_t length, const char *parameters, bool utf8);
enum command_fault command_rcpt(struct command *command, const char *recipient, uint32_t length, const char *parameters, bool utf8);
/* Parameters of RCPT where DSN is asked (RFC 3461 4.1, 4.2): NOTIFY= from SLOT_NOTIFY_* and ORCPT= for the address, as RFC 6533 section 3
 * writes it when it goes beyond ASCII. Ends with a NUL; an ORCPT of more than 500 bytes is left out. `recipient` is a copy. */
void command_notify(char parameters[COMMAND_NOTIFY_BYTES], uint8_t dsn, const char *recipient, uint32_t length);

#endif
