/* script.h: what a sink does instead of accepting. Rules, one a line; bench/sink/README.md has the language. Immutable once read, so that
 * all workers share it. */
#ifndef BENCH_SINK_SCRIPT_H
#define BENCH_SINK_SCRIPT_H

#include "reply.h"
#include "seen.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

enum { SCRIPT_RULES_MAX = 64, SCRIPT_TEXT_BYTES = 512, SCRIPT_PATTERN_BYTES = 128, SCRIPT_LINE_BYTES_MAX = 1024 };

enum script_stage {
    SCRIPT_CONNECT, /* the connection has come, no byte was exchanged */
    SCRIPT_BANNER,
    SCRIPT_EHLO,
    SCRIPT_STARTTLS,  /* in place of 220 */
    SCRIPT_HANDSHAKE, /* TLS is about to begin */
    SCRIPT_AUTH,      /* in place of the verdict on the credentials */
    SCRIPT_MAIL,
    SCRIPT_RCPT,
    SCRIPT_DATA,  /* the reply to DATA, or the first chunk of BDAT */
    SCRIPT_FINAL, /* the whole message is there */
    SCRIPT_STAGES,
};

enum script_action {
    SCRIPT_REFUSE, /* 5xx */
    SCRIPT_DEFER,  /* 4xx */
    SCRIPT_CLOSE,  /* 421 and FIN */
    SCRIPT_DROP,   /* RST or FIN */
    SCRIPT_STALL,
    SCRIPT_SLOW,
    SCRIPT_DELAY,
    SCRIPT_ACTIONS,
};

struct script_rule {
    enum script_action action;
    enum script_stage stage;
    uint64_t share;    /* applies when the hash is at most this: UINT64_MAX always */
    bool by_fin;       /* drop: FIN rather than RST */
    uint32_t attempts; /* applies to the first so many attempts of a recipient; 0: to all */
    uint32_t bytes_per_second;
    uint64_t delay_us;
    char pattern[SCRIPT_PATTERN_BYTES]; /* of recipients; empty: all */
    char text[SCRIPT_TEXT_BYTES];
    struct reply reply;
    _Atomic uint64_t applied;
};

struct script {
    uint64_t seed;
    uint32_t count;
    uint32_t stages; /* a bit for each stage that has a rule */
    bool counts_attempts;
    struct seen *attempts; /* the caller's; needed where counts_attempts */
    struct script_rule rules[SCRIPT_RULES_MAX];
};

const char *script_action_text(enum script_action action);
const char *script_stage_text(enum script_stage stage);

/* Adds one line's rule; an empty line or a comment adds none. `where` begins the sentence of an error. 0, or -EINVAL with the sentence. */
int script_add(struct script *script, const char *line, const char *where, char *error, size_t error_bytes);
/* Adds a file's rules. 0 or -errno with a sentence that names file and line. */
int script_read(struct script *script, const char *path, char *error, size_t error_bytes);

/* What one occasion calls for. */
struct script_verdict {
    struct script_rule *rule;  /* NULL: go on as usual. Never a DELAY or SLOW */
    uint64_t delay_us;         /* before the reply, whatever it is */
    uint32_t bytes_per_second; /* from here on; 0: no change */
};

/* The rules with a pattern that fits this recipient, as bits, and all those without one. `recipient` is in lower case. */
uint64_t script_match(const struct script *script, const char *recipient);
/* `key` decides the share: of a recipient at RCPT, DATA and FINAL, of the connection or transaction before. `matched` is from script_match,
 * or UINT64_MAX. */
void script_decide(struct script *script, enum script_stage stage, uint64_t key, uint64_t matched, struct script_verdict *verdict);

#endif
