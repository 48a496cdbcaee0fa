/* document.h: what one domain's TLS report of one day says (RFC 8460 section 4), from the counts that lie in Redis. Control and the command
 * line both make it. */
#ifndef CONTROL_REPORT_DOCUMENT_H
#define CONTROL_REPORT_DOCUMENT_H

#include "control/config/config.h"
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

enum { REPORT_DAY_BYTES = 11, REPORT_ID_BYTES = 400, REPORT_KEY_BYTES = 512, REPORT_DOMAIN_BYTES = 256, REPORT_POLICIES = 3 };

/* RFC 8460 4.2: the words of policy-type, in the order of enum route_policy. */
extern const char *const report_policy_words[REPORT_POLICIES];

/* "2026-11-22" of a time in seconds, UTC. */
void report_day(uint64_t time_s, char day[REPORT_DAY_BYTES]);
/* Is it such a day? */
bool report_day_valid(const char *day);
/* The set of domains of a day whose report waits, or has been sent, and the counts of one (control/library/README.md). */
void report_day_key(const struct config *config, const char *day, bool sent, char key[REPORT_KEY_BYTES]);
void report_domain_key(const struct config *config, const char *day, const char *domain, char key[REPORT_KEY_BYTES]);
/* The domain of tls_reports.from: the submitter. "" without one. */
void report_submitter(const struct config *config, char domain[REPORT_DOMAIN_BYTES]);

/* A field of the counts with its value, as HGETALL gives them. */
struct report_field {
    const char *name, *value;
};
/* The report, or NULL when no session was counted, or without memory. The caller's reference. */
json_t *report_document(const struct config *config, const char *domain, const char *day, const struct report_field *fields,
                        size_t field_count);
/* Where it goes: the text of field `rua`, addresses with a space between; NULL: nowhere. */
const char *report_addresses(const struct report_field *fields, size_t field_count);

#endif
