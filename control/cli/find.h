/* find.h: what the files of `bypost find` share. */
#ifndef CONTROL_CLI_FIND_H
#define CONTROL_CLI_FIND_H

#include "operator.h"

enum { FINDINGS_MAX = 500 };

enum find_kind { FIND_RECIPIENT, FIND_ID, FIND_ENTRY, FIND_MESSAGE };

struct find {
    struct operator_call call;
    enum find_kind kind;
    const char *given;
    char *wanted, *needle; /* needle: in lower case */
    char job[64];          /* only of this job, or "" */
    bool has_index;        /* only the recipient of this index, which a VERP address names */
    uint32_t index;
    bool deep;
    uint64_t records, entries;
    json_t *findings, *searched; /* arrays: of objects with a status, of texts */
};

extern const char find_name[];

/* Takes the finding over. */
void find_add(struct find *find, json_t *finding);
void find_searched(struct find *find, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* find_history.c: events and delivery logs. */
void find_history(struct find *find);

#endif
