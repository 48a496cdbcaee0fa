/* policy_fuzz.c: libFuzzer on what other domains publish: MTA-STS policies (RFC 8461 3.2), TXT records that announce them and where reports
 * go (RFC 8460 3), TLSA records (RFC 6698). What is taken is asked and written as a file keeps it, and is then the same. */
#include "control/report/mail.h"
#include "control/route/dane.h"
#include "control/route/sts_policy.h"
#include "control/route/txt.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool condition) {
    if (!condition)
        abort();
}

static void policy(const char *text, size_t size) {
    const char *flaw;
    struct sts_policy *policy = sts_policy_parse(text, size, &flaw);
    must((policy == NULL) == (flaw != NULL));
    if (!policy)
        return;
    must(policy->max_age_s <= STS_AGE_MAX_S && policy->mx_count <= STS_MX_MAX);
    struct sts_policy *again = calloc(1, sizeof *again);
    again->mode = policy->mode;
    again->max_age_s = policy->max_age_s;
    uint32_t count = 0;
    for (const char *mx = sts_policy_next(policy, NULL); mx; mx = sts_policy_next(policy, mx), count++) {
        must(mx[0] == '*' || sts_policy_allows(policy, mx));
        struct sts_policy *more = sts_policy_add(again, mx, strlen(mx));
        must(more != NULL);
        again = more;
    }
    must(count == policy->mx_count && sts_policy_same(policy, again));
    must(!sts_policy_allows(policy, ""));
    free(again);
    free(policy);
}

static void records(const uint8_t *data, size_t size) {
    char text[TXT_BYTES_MAX], id[STS_ID_MAX + 1], rua[TXT_RUA_BYTES], address[320];
    int length = txt_join(data, size, text);
    if (length < 0)
        return;
    must((size_t)length == strlen(text));
    if (sts_record_read(text, (size_t)length, id) == 0)
        must(strlen(id) > 0 && strlen(id) <= STS_ID_MAX);
    if (tlsrpt_record_read(text, (size_t)length, rua) == 0) {
        must(rua[0] != '\0');
        for (const char *at = rua; *at; at += strlen(at) + 1) {
            must(strchr(at, ' ') == NULL);
            if (report_mailto(at, address, sizeof address) == 0)
                must(strchr(address, '@') != NULL && strpbrk(address, "\r\n <>") == NULL);
        }
    }
}

static void tlsa(const uint8_t *data, size_t size) {
    struct path_tlsa tlsa[PATH_TLSA_MAX];
    uint8_t *rdata[64];
    int lengths[64];
    uint32_t count = 0;
    for (size_t at = 0; at < size && count < 64;) {
        size_t length = data[at++];
        length = length < size - at ? length : size - at;
        rdata[count] = (uint8_t *)(uintptr_t)(data + at);
        lengths[count++] = (int)length;
        at += length;
    }
    uint32_t chosen = tlsa_choose(rdata, lengths, count, tlsa);
    must(chosen <= PATH_TLSA_MAX);
    for (uint32_t i = 0; i < chosen; i++) {
        must((tlsa[i].usage == 2 || tlsa[i].usage == 3) && tlsa[i].selector <= 1 && (tlsa[i].matching == 1 || tlsa[i].matching == 2));
        must(tlsa[i].length == (tlsa[i].matching == 1 ? 32 : 64));
    }
}

/* The first byte says what the rest is. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    uint8_t *copy = malloc(size); /* its end is where a sanitizer sees it */
    memcpy(copy, data + 1, size - 1);
    if (data[0] == 'p')
        policy((const char *)copy, size - 1);
    else if (data[0] == 't')
        records(copy, size - 1);
    else
        tlsa(copy, size - 1);
    free(copy);
    return 0;
}
