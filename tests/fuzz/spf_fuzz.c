/* spf_fuzz.c: libFuzzer on what DNS says of SPF (RFC 7208). Each line of the input answers one question, in their order; what is asked
 * stays within the limits of 4.6.4, and an answer that is no answer has its words. */
#include "control/cli/spf.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    /* The record, then of each term that may ask its MX and its hosts; the next term is one too many. */
    QUESTIONS_MAX = 1 + SPF_LOOKUPS_MAX * (1 + SPF_MX_MAX),
    ANSWERS_MAX = 16,
    NAME_MAX_CHARACTERS = 254, /* with the dot at its end */
    INPUT_MAX = 8192,
};

static struct script {
    const uint8_t *at, *end;
    unsigned questions;
} script;

static void must(bool condition) {
    if (!condition)
        abort();
}

/* A TXT record's strings, or RDATA as it stands where that cannot be. */
static void record_add(struct resolver_answer *answer, int type, const uint8_t *bytes, size_t length) {
    uint8_t *rdata = malloc(length + length / 255 + 2);
    size_t used = 0;
    must(rdata != NULL);
    if (type != DNS_TYPE_TXT || (length > 0 && *bytes < ' ')) {
        memcpy(rdata, bytes, used = length);
    } else {
        for (size_t at = 0, piece; at < length; at += piece) {
            piece = length - at < 255 ? length - at : 255;
            rdata[used++] = (uint8_t)piece;
            memcpy(rdata + used, bytes + at, piece);
            used += piece;
        }
    }
    answer->data[answer->count] = malloc(used ? used : 1); /* its end is where a sanitizer sees it */
    must(answer->data[answer->count] != NULL);
    memcpy(answer->data[answer->count], rdata, used);
    answer->lengths[answer->count++] = used;
    free(rdata);
}

/* An empty line: no data; "!": no answer; "?": no such name; else records between bars. */
void resolver_ask(struct resolver *resolver, const char *name, int type, struct resolver_answer *answer) {
    const uint8_t *line = script.at, *end = script.end > line ? memchr(line, '\n', (size_t)(script.end - line)) : NULL;
    end = end ? end : script.end;
    script.at = end < script.end ? end + 1 : end;
    must(++script.questions <= QUESTIONS_MAX);
    must(*name && strlen(name) <= NAME_MAX_CHARACTERS && strchr(name, ' ') == NULL && strstr(name, "..") == NULL);
    *answer = (struct resolver_answer){.status = line == end ? DNS_NO_DATA : DNS_FOUND};
    if (end - line == 1 && (*line == '!' || *line == '?')) {
        answer->status = *line == '!' ? DNS_FAILED : DNS_NO_NAME;
        return;
    }
    answer->data = calloc(ANSWERS_MAX, sizeof *answer->data);
    answer->lengths = calloc(ANSWERS_MAX, sizeof *answer->lengths);
    must(answer->data && answer->lengths);
    while (line < end && answer->count < ANSWERS_MAX) {
        const uint8_t *bar = memchr(line, '|', (size_t)(end - line)), *to = bar ? bar : end;
        record_add(answer, type, line, (size_t)(to - line));
        line = bar ? bar + 1 : end;
    }
}

void resolver_forget(struct resolver_answer *answer) {
    for (uint32_t i = 0; i < answer->count; i++)
        free(answer->data[i]);
    free(answer->data);
    free(answer->lengths);
}

static enum spf_result check(const uint8_t *data, size_t size, uint8_t family, struct spf *spf) {
    script = (struct script){.at = data, .end = data + size};
    *spf = (struct spf){.address = {.family = family, .bytes = {192, 0, 2, 10}}};
    enum spf_result result = spf_check(spf, "d.test");
    bool has_words = result == SPF_TEMPERROR || result == SPF_PERMERROR || result == SPF_UNSURE;
    must(strlen(spf_result_text(result)) > 0 && has_words == (*spf->why != '\0') && strnlen(spf->why, SPF_WHY_BYTES) < SPF_WHY_BYTES);
    must(spf->lookups <= SPF_LOOKUPS_MAX && spf->voids <= SPF_VOIDS_MAX + 1);
    must(spf->voids <= SPF_VOIDS_MAX || result == SPF_PERMERROR);
    return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct spf spf;
    if (size == 0 || size > INPUT_MAX)
        return 0;
    uint8_t *copy = malloc(size);
    must(copy != NULL);
    memcpy(copy, data, size);
    enum spf_result result = check(copy, size, 4, &spf);
    must(result == check(copy, size, 4, &spf)); /* it keeps nothing */
    check(copy, size, 6, &spf);
    free(copy);
    return 0;
}
