/* dkim_record_fuzz.c: libFuzzer on what DNS says of a DKIM key: the RDATA of a TXT record, judged as the key of two private keys. What is
 * taken is taken folded too; a tag that nobody knows changes nothing. */
#include "control/cli/dkim_record.h"
#include "control/route/txt.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const wanted[] = {
    "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", /* RFC 8463 A.2 */
    /* RFC 6376 C */
    "v=DKIM1; "
    "p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/"
    "RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB"};

static void must(bool condition) {
    if (!condition)
        abort();
}

static enum dkim_verdict judge(const char *published, const char *own) {
    struct dkim_findings findings = {.count = 0};
    enum dkim_verdict worst = DKIM_GOOD;
    dkim_record_judge(published, own, &findings);
    must(findings.count <= DKIM_FINDINGS_MAX);
    for (uint32_t i = 0; i < findings.count; i++) {
        const struct dkim_finding *finding = &findings.list[i];
        size_t length = strnlen(finding->text, sizeof finding->text);
        must(finding->code && *finding->code && length > 0 && length < sizeof finding->text && finding->text[length - 1] == '.');
        worst = finding->level > worst ? finding->level : worst;
    }
    must(findings.verdict == worst);
    return worst;
}

/* The same with white space around every semicolon. */
static char *fold(const char *text) {
    char *folded = calloc(1, 4 * strlen(text) + 8), *end = folded;
    must(folded != NULL);
    for (; *text; text++) {
        if (*text == ';')
            end = strcpy(end, " ;\t") + 3;
        else
            *end++ = *text;
    }
    return folded;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char text[TXT_BYTES_MAX], key[32];
    uint8_t *copy = malloc(size + 1); /* its end is where a sanitizer sees it */
    must(copy != NULL);
    memcpy(copy, data, size);
    int length = txt_join(copy, size, text);
    free(copy);
    if (length < 0)
        return 0;
    char *published = strdup(text), *folded = fold(text);
    must(published != NULL);
    uint32_t bits = dkim_record_size(published, key);
    must((bits == 0) == (strcmp(key, "unknown") == 0));
    bool is_key = dkim_record_is_key(published);
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        enum dkim_verdict verdict = judge(published, wanted[i]);
        must(verdict == judge(folded, wanted[i]));
        must(verdict != DKIM_GOOD || (is_key && bits > 0 && verdict == judge(wanted[i], wanted[i])));
        must(verdict != DKIM_UNKNOWN);
        if (verdict != DKIM_BAD && !strstr(text, "zz")) {
            char *more = calloc(1, strlen(text) + 16);
            must(more != NULL);
            strcat(strcpy(more, text),
                   text[strspn(text, " \t\r\n")] && strrchr(text, ';') && !strchr(strrchr(text, ';'), '=') ? "zz=1" : ";zz=1");
            must(judge(more, wanted[i]) == verdict);
            free(more);
        }
    }
    free(folded);
    free(published);
    return 0;
}
