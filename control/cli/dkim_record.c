/* dkim_record.c: tag lists (RFC 6376 3.2) and key records (3.6.1, RFC 8463 4) as verifiers read them. */
#include "dkim_record.h"
#include "control/route/txt.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/coding.h>
#include <wolfssl/wolfcrypt/rsa.h>

enum { ED25519_BYTES = 32, RSA_BITS_ENOUGH = 2048, RSA_BITS_MIN = 1024 };

const char *dkim_verdict_text(enum dkim_verdict verdict) {
    static const char *const texts[] = {[DKIM_GOOD] = "good", [DKIM_WARNING] = "warning", [DKIM_UNKNOWN] = "unknown", [DKIM_BAD] = "bad"};
    return texts[verdict];
}

void dkim_findings_add(struct dkim_findings *findings, enum dkim_verdict level, const char *code, const char *format, ...) {
    va_list arguments;
    findings->verdict = level > findings->verdict ? level : findings->verdict;
    if (findings->count == DKIM_FINDINGS_MAX) {
        return;
    }
    struct dkim_finding *finding = &findings->list[findings->count++];
    finding->level = level;
    finding->code = code;
    va_start(arguments, format);
    vsnprintf(finding->text, sizeof finding->text, format, arguments);
    va_end(arguments);
}

/* --- tag lists --- */

/* Names are compared with this many before them; a record of more tags is none that anybody publishes. */
enum { TAGS_COMPARED = 32 };

struct tag {
    const char *name, *value;
    size_t name_length, value_length;
};

static bool is_fws(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* tval: visible characters, and folding white space between them. */
static bool value_good(const struct tag *tag) {
    for (size_t i = 0; i < tag->value_length; i++) {
        if (!is_fws(tag->value[i]) && (tag->value[i] < 0x21 || tag->value[i] > 0x7e)) {
            return false;
        }
    }
    return true;
}

/* The next tag of the text. 1; 0: that was all; -1: malformed. */
static int tag_next(const char **at, struct tag *tag) {
    const char *from = *at + strspn(*at, " \t\r\n");
    if (*from == '\0') {
        return 0;
    }
    const char *end = from + strcspn(from, ";"), *equals = memchr(from, '=', (size_t)(end - from)), *last = end;
    *at = *end == ';' ? end + 1 : end;
    if (!equals) {
        return -1;
    }
    const char *name_end = equals, *value = equals + 1;
    while (name_end > from && is_fws(name_end[-1])) {
        name_end--;
    }
    while (value < last && is_fws(*value)) {
        value++;
    }
    while (last > value && is_fws(last[-1])) {
        last--;
    }
    *tag = (struct tag){.name = from, .name_length = (size_t)(name_end - from), .value = value, .value_length = (size_t)(last - value)};
    for (const char *c = from; c < name_end; c++) {
        bool letter = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z'), digit = (*c >= '0' && *c <= '9') || *c == '_';
        if (!letter && !(digit && c > from)) {
            return -1;
        }
    }
    return name_end > from && value_good(tag) ? 1 : -1;
}

struct record {
    struct tag v, k, p, t, s, h, g;
    bool v_first, malformed, repeated;
};

static struct tag *tag_place(struct record *record, const struct tag *tag) {
    struct tag *const places[] = {&record->v, &record->k, &record->p, &record->t, &record->s, &record->h, &record->g};
    const char *at = tag->name_length == 1 ? strchr("vkptshg", *tag->name) : NULL;
    return at ? places[at - "vkptshg"] : NULL;
}

static void record_read(const char *text, struct record *record) {
    struct tag tag, before[TAGS_COMPARED];
    unsigned count = 0;
    int status;
    *record = (struct record){0};
    for (unsigned number = 0; (status = tag_next(&text, &tag)) != 0; number++) {
        struct tag *place = status > 0 ? tag_place(record, &tag) : NULL;
        record->malformed |= status < 0;
        for (unsigned i = 0; i < count && status > 0; i++) {
            record->repeated |= before[i].name_length == tag.name_length && memcmp(before[i].name, tag.name, tag.name_length) == 0;
        }
        if (status > 0 && count < TAGS_COMPARED) {
            before[count++] = tag;
        }
        if (place && !place->name) { /* the first of those that stand twice */
            *place = tag;
            record->v_first |= place == &record->v && number == 0;
        }
    }
}

static bool tag_is(const struct tag *tag, const char *text) {
    return tag->name && tag->value_length == strlen(text) && strncasecmp(tag->value, text, tag->value_length) == 0;
}

/* Is `word` one of those between colons? */
static bool tag_lists(const struct tag *tag, const char *word) {
    const char *at = tag->value, *end = at + tag->value_length;
    while (at < end) {
        const char *colon = memchr(at, ':', (size_t)(end - at)), *to = colon ? colon : end, *next = colon ? colon + 1 : end;
        while (at < to && is_fws(*at)) {
            at++;
        }
        while (to > at && is_fws(to[-1])) {
            to--;
        }
        if ((size_t)(to - at) == strlen(word) && strncasecmp(at, word, strlen(word)) == 0) {
            return true;
        }
        at = next;
    }
    return false;
}

/* --- keys --- */

struct public_key {
    bool rsa, readable, pkcs1; /* pkcs1: bare, where verifiers expect SubjectPublicKeyInfo */
    uint32_t bits;
    uint32_t e_length;
    size_t length;
    uint8_t bytes[TXT_BYTES_MAX]; /* as published */
    uint8_t n[1024], e[8];        /* RSA, big-endian */
};

static size_t base64_read(const struct tag *tag, uint8_t *out, size_t room) {
    char text[TXT_BYTES_MAX];
    size_t used = 0;
    word32 length = (word32)room;
    for (size_t i = 0; i < tag->value_length && used < sizeof text; i++) {
        if (!is_fws(tag->value[i])) {
            text[used++] = tag->value[i];
        }
    }
    return used > 0 && Base64_Decode((const byte *)text, (word32)used, out, &length) == 0 ? length : 0;
}

/* SEQUENCE { n, e } directly, or within SubjectPublicKeyInfo. */
static void rsa_read(struct public_key *key) {
    RsaKey rsa;
    word32 at = 0, e_length = sizeof key->e, n_length = sizeof key->n;
    if (wc_InitRsaKey(&rsa, NULL) != 0) {
        return;
    }
    if (wc_RsaPublicKeyDecode(key->bytes, &at, &rsa, (word32)key->length) == 0 &&
        wc_RsaFlattenPublicKey(&rsa, key->e, &e_length, key->n, &n_length) == 0) {
        key->readable = true;
        key->bits = (uint32_t)wc_RsaEncryptSize(&rsa) * 8;
        key->e_length = e_length;
        /* SubjectPublicKeyInfo begins with a SEQUENCE of the algorithm, RSAPublicKey with the INTEGER n. */
        size_t inner = key->length > 2 && (key->bytes[1] & 0x80) ? 2 + (key->bytes[1] & 0x7fu) : 2;
        key->pkcs1 = inner < key->length && key->bytes[inner] == 0x02;
    }
    wc_FreeRsaKey(&rsa);
}

static void key_read(const struct record *record, struct public_key *key) {
    *key = (struct public_key){.rsa = !record->k.name || tag_is(&record->k, "rsa")};
    key->length = record->p.name ? base64_read(&record->p, key->bytes, sizeof key->bytes) : 0;
    if (key->rsa && key->length > 0) {
        rsa_read(key);
    } else if (tag_is(&record->k, "ed25519")) {
        key->readable = key->length == ED25519_BYTES;
        key->bits = key->readable ? ED25519_BYTES * 8 : 0;
    }
}

static bool key_same(const struct public_key *a, const struct public_key *b) {
    if (a->rsa != b->rsa || !a->readable || !b->readable) {
        return false;
    }
    return a->rsa ? a->bits == b->bits && memcmp(a->n, b->n, a->bits / 8) == 0 && a->e_length == b->e_length &&
                        memcmp(a->e, b->e, a->e_length) == 0
                  : a->length == b->length && memcmp(a->bytes, b->bytes, a->length) == 0;
}

static const char *key_text(const struct public_key *key, char text[32]) {
    if (!key->readable) {
        snprintf(text, 32, "unknown");
    } else if (key->rsa) {
        snprintf(text, 32, "RSA of %u bits", key->bits);
    } else {
        snprintf(text, 32, "Ed25519");
    }
    return text;
}

uint32_t dkim_record_size(const char *published, char text[32]) {
    struct record record;
    struct public_key key;
    record_read(published, &record);
    key_read(&record, &key);
    key_text(&key, text);
    return key.bits;
}

bool dkim_record_is_key(const char *published) {
    struct record record;
    record_read(published, &record);
    return record.p.name || (record.v_first && record.v.value_length >= 4 && strncasecmp(record.v.value, "DKIM", 4) == 0);
}

/* --- judgement --- */

/* How much of a value a sentence quotes, so that its remedy fits behind. */
enum { TAG_SHOWN_BYTES = 64 };
static int tag_shown(const struct tag *tag) {
    return tag->value_length < TAG_SHOWN_BYTES ? (int)tag->value_length : TAG_SHOWN_BYTES;
}

/* What makes a verifier pass over the record before it looks at the key. */
static void form_judge(const struct record *record, struct dkim_findings *findings) {
    if (record->malformed) {
        dkim_findings_add(
            findings, DKIM_BAD, "malformed",
            "The record is no list of `tag=value` between semicolons (RFC 6376 3.2); publish it as `bypost dkim record` prints it.");
    }
    if (record->repeated) {
        dkim_findings_add(findings, DKIM_BAD, "repeated", "A tag stands twice in the record (RFC 6376 3.2); leave one of them.");
    }
    if (record->v.name && (!record->v_first || record->v.value_length != 5 || memcmp(record->v.value, "DKIM1", 5) != 0)) {
        dkim_findings_add(findings, DKIM_BAD, "version",
                          "The record has a `v=` that is not `v=DKIM1` in the first place (RFC 6376 3.6.1), and is ignored; correct it.");
    }
    if (record->h.name && !tag_lists(&record->h, "sha256")) {
        dkim_findings_add(findings, DKIM_BAD, "hash",
                          "The record's `h=%.*s` does not allow sha256, which bypost signs with (RFC 8301 3.1); remove `h=`.",
                          tag_shown(&record->h), record->h.value);
    }
    if (record->s.name && !tag_lists(&record->s, "*") && !tag_lists(&record->s, "email")) {
        dkim_findings_add(findings, DKIM_BAD, "service",
                          "The record's `s=%.*s` does not allow mail (RFC 6376 3.6.1); remove `s=`, or write `s=email`.",
                          tag_shown(&record->s), record->s.value);
    }
    if (record->g.name && !tag_is(&record->g, "*")) {
        dkim_findings_add(findings, DKIM_WARNING, "granularity",
                          "The record's `g=` was dropped from DKIM, and verifiers that still read it refuse other senders; remove it.");
    }
    if (record->t.name && tag_lists(&record->t, "y")) {
        dkim_findings_add(findings, DKIM_WARNING, "testing",
                          "The record says `t=y`, testing: receivers may treat signed mail as unsigned (RFC 6376 3.6.1); remove it once "
                          "signatures verify.");
    }
    if (record->t.name && tag_lists(&record->t, "s")) {
        dkim_findings_add(findings, DKIM_GOOD, "strict", "The record says `t=s`: that suits bypost, which signs without `i=`.");
    }
}

static void key_judge(const struct record *record, const struct public_key *ours, struct dkim_findings *findings) {
    struct public_key theirs;
    char theirs_text[32], ours_text[32];
    key_read(record, &theirs);
    key_text(&theirs, theirs_text);
    key_text(ours, ours_text);
    if (!record->p.name) {
        dkim_findings_add(findings, DKIM_BAD, "no-key",
                          "The record has no `p=` (RFC 6376 3.6.1); publish it as `bypost dkim record` prints it.");
    } else if (record->p.value_length == 0) {
        dkim_findings_add(findings, DKIM_BAD, "revoked",
                          "The key was revoked: `p=` is empty (RFC 6376 3.6.1); sign with another selector, or publish the key's record.");
    } else if (record->k.name && !tag_is(&record->k, "rsa") && !tag_is(&record->k, "ed25519")) {
        dkim_findings_add(findings, DKIM_BAD, "type",
                          "The record's `k=%.*s` is no type of key that verifiers know; publish the key's record.", tag_shown(&record->k),
                          record->k.value);
    } else if (theirs.rsa != ours->rsa) {
        dkim_findings_add(findings, DKIM_BAD, "type",
                          "The record is for %s (`k=%s`), the private key is %s; publish the key's record, or name the right key file.",
                          theirs.rsa ? "RSA" : "Ed25519", theirs.rsa ? "rsa" : "ed25519", ours_text);
    } else if (!theirs.readable) {
        dkim_findings_add(findings, DKIM_BAD, "unreadable",
                          "The record's `p=` holds no whole %s key: it was cut or changed on its way into DNS; publish the key's record.",
                          theirs.rsa ? "RSA" : "Ed25519");
    } else if (!key_same(&theirs, ours)) {
        dkim_findings_add(findings, DKIM_BAD, "other-key",
                          "The record holds another key (%s) than the private key's (%s); publish the key's record, or name the key file "
                          "that belongs to it.",
                          theirs_text, ours_text);
    } else if (theirs.pkcs1) {
        dkim_findings_add(findings, DKIM_WARNING, "pkcs1",
                          "The record holds the key as bare RSAPublicKey, which some verifiers cannot read; publish the key's record.");
    }
}

static void size_judge(const struct public_key *ours, struct dkim_findings *findings) {
    if (ours->rsa && ours->readable && ours->bits < RSA_BITS_MIN) {
        dkim_findings_add(findings, DKIM_BAD, "short",
                          "The key has %u bits, and verifiers refuse those under %d (RFC 8301 3.2); make one of %d.", ours->bits,
                          RSA_BITS_MIN, RSA_BITS_ENOUGH);
    } else if (ours->rsa && ours->readable && ours->bits < RSA_BITS_ENOUGH) {
        dkim_findings_add(findings, DKIM_WARNING, "short",
                          "The key has %u bits, and large receivers ask for %d (RFC 8301 3.2); make a new one on a new selector.",
                          ours->bits, RSA_BITS_ENOUGH);
    }
}

void dkim_record_judge(const char *published, const char *wanted, struct dkim_findings *findings) {
    struct record record, wanted_record;
    struct public_key ours;
    record_read(wanted, &wanted_record);
    key_read(&wanted_record, &ours);
    record_read(published, &record);
    form_judge(&record, findings);
    key_judge(&record, &ours, findings);
    size_judge(&ours, findings);
}
