/* command.h: an SMTP command line, read as strictly as RFC 5321 section 4.1.1 has it. */
#ifndef BENCH_SINK_COMMAND_H
#define BENCH_SINK_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* RFC 5321 4.5.3.1.4 has 512 with CRLF, and extensions add to it (SIZE 26, 8BITMIME 17, SMTPUTF8 10): a line may be twice as long. */
enum {
    COMMAND_LINE_BYTES_MAX = 1024,
    COMMAND_PATH_BYTES_MAX = 256,
    COMMAND_AUTH_BYTES_MAX = 4096, /* AUTH and the answers to its challenges, tokens of OAuth too (RFC 4954 4 would have 12,288) */
    COMMAND_ENVID_BYTES_MAX = 100, /* RFC 3461 4.4 */
};

enum command_verb {
    COMMAND_UNKNOWN,
    COMMAND_EHLO,
    COMMAND_HELO,
    COMMAND_MAIL,
    COMMAND_RCPT,
    COMMAND_DATA,
    COMMAND_BDAT,
    COMMAND_RSET,
    COMMAND_NOOP,
    COMMAND_VRFY,
    COMMAND_QUIT,
    COMMAND_STARTTLS,
    COMMAND_AUTH,
};

enum command_error {
    COMMAND_GOOD,
    COMMAND_BAD_SYNTAX,    /* 501 */
    COMMAND_BAD_PARAMETER, /* 555: a parameter that was not offered */
    COMMAND_BAD_VALUE,     /* 501 */
};

/* Which extensions are offered, and so which parameters may come. */
enum command_extension {
    EXTENSION_PIPELINING = 0x01,
    EXTENSION_CHUNKING = 0x02,
    EXTENSION_8BITMIME = 0x04,
    EXTENSION_SIZE = 0x08,
    EXTENSION_ENHANCEDSTATUSCODES = 0x10,
    EXTENSION_SMTPUTF8 = 0x20,
    EXTENSION_ALL = 0x3f, /* those that are offered unless left out; the others are offered by option */
    EXTENSION_DSN = 0x40,
    EXTENSION_LIMITS = 0x80,
    EXTENSION_REQUIRETLS = 0x100, /* within TLS only */
    EXTENSION_STARTTLS = 0x200,   /* without TLS only */
    EXTENSION_AUTH = 0x400,
};

struct command {
    enum command_verb verb;
    enum command_error error;
    const char *path; /* between < and >, source route taken off; of AUTH the mechanism and what follows it; in the line */
    uint32_t path_length;
    uint64_t size;     /* SIZE=, or of the chunk */
    bool eight_bit;    /* BODY=8BITMIME */
    bool utf8;         /* SMTPUTF8 */
    bool path_is_utf8; /* has bytes beyond ASCII: only good in an SMTPUTF8 transaction */
    bool last;         /* BDAT n LAST */
    bool require_tls;  /* REQUIRETLS (RFC 8689) */
    bool notify;       /* NOTIFY= (RFC 3461) */
};

/* `line` is without its CRLF. `extensions` are those that this session may use. */
void command_parse(struct command *command, const char *line, size_t length, uint16_t extensions);

#endif
