/* sts_policy.h: MTA-STS: the policy body, the TXT record that announces it, and which MX hosts it allows (RFC 8461 3.1, 3.2, 4.1). All of
 * it comes from the network. */
#ifndef CONTROL_ROUTE_STS_POLICY_H
#define CONTROL_ROUTE_STS_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    STS_BODY_BYTES_MAX = 65536, /* RFC 8461 3.3 */
    STS_MX_MAX = 256,           /* patterns; a policy with more is refused */
    STS_AGE_MAX_S = 31557600,   /* RFC 8461 3.2: a year */
    STS_ID_MAX = 32,
};

enum sts_mode { STS_NONE, STS_TESTING, STS_ENFORCE };
const char *sts_mode_text(enum sts_mode mode);
/* 0, or -EINVAL. */
int sts_mode_read(const char *text, enum sts_mode *mode);

struct sts_policy {
    enum sts_mode mode;
    uint32_t max_age_s;
    uint32_t mx_count;
    size_t pattern_bytes;
    char patterns[]; /* mx_count names, lower case, NUL-terminated each: "mx1.example.net", "*.example.net" */
};

/* The caller frees it. NULL with the flaw in words (constant), or without memory. */
struct sts_policy *sts_policy_parse(const char *body, size_t bytes, const char **flaw);
/* Adds a pattern when it is one. The policy, perhaps moved; NULL: not a pattern, too many, or no memory: the old one is still the caller's.
 */
struct sts_policy *sts_policy_add(struct sts_policy *policy, const char *pattern, size_t length);
struct sts_policy *sts_policy_copy(const struct sts_policy *policy);
bool sts_policy_same(const struct sts_policy *left, const struct sts_policy *right);
/* Does one of its patterns match this host (RFC 8461 4.1)? A wildcard stands for exactly one label, the leftmost. */
bool sts_policy_allows(const struct sts_policy *policy, const char *host);
/* The pattern behind this one; NULL: that was the last. Begins with NULL. */
const char *sts_policy_next(const struct sts_policy *policy, const char *pattern);

/* The id of a TXT record "v=STSv1; id=20160831085700Z;". 0; -ENOENT: of another kind; -EINVAL: malformed. */
int sts_record_read(const char *text, size_t bytes, char id[STS_ID_MAX + 1]);

#endif
