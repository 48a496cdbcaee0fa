/* mail.h: a report on its way: gzip, and the mail that carries it (RFC 8460 5.1 to 5.3). */
#ifndef CONTROL_REPORT_MAIL_H
#define CONTROL_REPORT_MAIL_H

#include "control/config/config.h"
#include "control/job.h"
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

/* The JSON text of a report, compressed. malloc'd, *bytes its length; NULL without memory. */
uint8_t *report_gzip(const json_t *document, size_t *bytes);
/* The address of "mailto:a@example.net?subject=x", decoded, into out. 0 or -EINVAL. */
int report_mailto(const char *uri, char *out, size_t out_bytes);
/* A job, as JSON, that mails a compressed report to `to`. malloc'd; NULL without memory. */
char *report_mail(const struct config *config, const char *domain, const char *day, const uint8_t *gzip, size_t gzip_bytes, const char *to,
                  const char *job_id);
/* Is this job such a mail? It is delivered whatever its domain's policies say, and counts in no report (RFC 8460 section 3). */
bool report_is_mail(const struct job *job);

#endif
