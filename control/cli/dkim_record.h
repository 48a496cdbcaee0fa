/* dkim_record.h: what is published as a DKIM key (RFC 6376 3.6.1), judged against the key that signs. */
#ifndef CONTROL_CLI_DKIM_RECORD_H
#define CONTROL_CLI_DKIM_RECORD_H

#include <stdbool.h>
#include <stdint.h>

/* From best to worst. */
enum dkim_verdict {
    DKIM_GOOD,    /* receivers verify with it; as a finding: worth knowing */
    DKIM_WARNING, /* they do, and something is to be mended */
    DKIM_UNKNOWN, /* DNS gave no answer */
    DKIM_BAD,     /* signatures fail */
};
const char *dkim_verdict_text(enum dkim_verdict verdict);

enum { DKIM_FINDINGS_MAX = 16, DKIM_FINDING_BYTES = 512 };
struct dkim_findings {
    enum dkim_verdict verdict; /* the worst of them */
    uint32_t count;
    struct dkim_finding {
        enum dkim_verdict level;
        const char *code; /* one word, for programs */
        char text[DKIM_FINDING_BYTES];
    } list[DKIM_FINDINGS_MAX];
};
/* Adds a sentence with its remedy; those past the last are dropped, their level counts. */
void dkim_findings_add(struct dkim_findings *findings, enum dkim_verdict level, const char *code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* A TXT record's text, untrusted, against `wanted`, the record that belongs to the private key (sign.h, dkim_public_record). */
void dkim_record_judge(const char *published, const char *wanted, struct dkim_findings *findings);
/* Is it meant as a DKIM key: does it have p=, or begin with v=DKIM? */
bool dkim_record_is_key(const char *published);
/* "RSA of 2048 bits", "Ed25519" or "unknown" of a record into text[32]; the bits, 0 when unknown. */
uint32_t dkim_record_size(const char *record, char text[32]);

#endif
