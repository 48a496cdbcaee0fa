/* verify.c: what a server's certificate is worth: the chain to a root (RFC 5280), its names (RFC 6125) and TLSA records (RFC 7672). The
 * trusted roots are one manager that never changes; what a server presents is tried against a manager of its own, so that no server can
 * add to what is trusted. */
#include "tls_private.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <wolfssl/wolfcrypt/asn.h>
#include <wolfssl/wolfcrypt/sha256.h>
#include <wolfssl/wolfcrypt/sha512.h>

enum {
    PRESENTED_MAX = 9,           /* wolfSSL hands over no more */
    CHECKS_MAX = 24,             /* signatures opened for one chain, however crosswise it was issued */
    RSA_MODULUS_BYTES_MAX = 513, /* with the sign's byte */
    RSA_EXPONENT_BYTES_MAX = 9,
};

struct certificate {
    const uint8_t *bytes;
    size_t length;
    DecodedCert decoded;
    bool parsed, used;
};

struct chain {
    struct tls_worker *worker;
    struct certificate certificates[PRESENTED_MAX];
    uint32_t count, checks;
    int anchor; /* the presented certificate that a TLSA record of usage 2 names; -1: the roots */
    bool expired, bad;
};

static char lower(char letter) {
    return letter >= 'A' && letter <= 'Z' ? (char)(letter - 'A' + 'a') : letter;
}

static bool same_text(const char *a, const char *b, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (lower(a[i]) != lower(b[i]) || a[i] == '\0')
            return false;
    return true;
}

bool tls_name_matches(const char *pattern, size_t length, const char *host) {
    size_t host_length = strlen(host);
    if (host_length > 0 && host[host_length - 1] == '.')
        host_length--;
    if (length > 0 && pattern[length - 1] == '.')
        length--;
    if (length == 0 || host_length == 0)
        return false;
    if (length > 2 && pattern[0] == '*' && pattern[1] == '.') {
        /* One whole label, and never directly under a name of a single label. */
        const char *dot = memchr(host, '.', host_length);
        if (dot == NULL || dot == host || memchr(pattern + 2, '.', length - 2) == NULL)
            return false;
        size_t rest = host_length - (size_t)(dot - host);
        return rest == length - 1 && same_text(pattern + 1, dot, rest);
    }
    return length == host_length && same_text(pattern, host, length);
}

/* One element of DER at *at; its contents are [*from, *to), and *at moves behind it. */
static bool element(const uint8_t **at, const uint8_t *end, uint8_t *tag, const uint8_t **from) {
    if (end - *at < 2)
        return false;
    *tag = (*at)[0];
    size_t length = (*at)[1];
    const uint8_t *content = *at + 2;
    if (length & 0x80) {
        size_t bytes = length & 0x7f;
        if (bytes == 0 || bytes > 3 || (size_t)(end - content) < bytes)
            return false;
        length = 0;
        while (bytes-- > 0)
            length = length << 8 | *content++;
    }
    if ((size_t)(end - content) < length)
        return false;
    *from = content;
    *at = content + length;
    return true;
}

bool tls_public_key_info(const uint8_t *certificate, size_t length, const uint8_t **info, size_t *info_length) {
    const uint8_t *at = certificate, *end = certificate + length, *from;
    uint8_t tag;
    if (!element(&at, end, &tag, &from) || tag != 0x30)
        return false;
    end = at;
    at = from;
    if (!element(&at, end, &tag, &from) || tag != 0x30)
        return false;
    end = at;
    at = from;
    /* version [0], where there is one, serialNumber, signature, issuer, validity, subject */
    for (int skipped = 0; skipped < 5; skipped++) {
        if (!element(&at, end, &tag, &from))
            return false;
        if (skipped == 0 && tag == 0xa0)
            skipped--;
    }
    *info = at;
    if (!element(&at, end, &tag, &from) || tag != 0x30)
        return false;
    *info_length = (size_t)(at - *info);
    return true;
}

/* An RSA key whose exponent is as long as its modulus makes each signature cost 30 ms and more, of a worker that others wait for. */
static bool key_is_bearable(const uint8_t *certificate, size_t length) {
    static const uint8_t rsa[] = {0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01}; /* and one number, by the padding */
    const uint8_t *at, *end, *from, *next;
    uint8_t tag;
    if (!tls_public_key_info(certificate, length, &at, &length))
        return false;
    end = at + length;
    if (!element(&at, end, &tag, &from))
        return false;
    at = from;
    if (!element(&at, end, &tag, &from) || tag != 0x30)
        return false;
    next = at;
    at = from;
    if (!element(&at, next, &tag, &from) || tag != 0x06)
        return false;
    if ((size_t)(at - from) != sizeof(rsa) + 1 || memcmp(from, rsa, sizeof(rsa)) != 0)
        return true;
    at = next;
    if (!element(&at, end, &tag, &from) || tag != 0x03 || at - from < 1)
        return false;
    end = at;
    at = from + 1; /* bits that are not used */
    if (!element(&at, end, &tag, &from) || tag != 0x30)
        return false;
    at = from;
    return element(&at, end, &tag, &from) && tag == 0x02 && at - from <= RSA_MODULUS_BYTES_MAX && element(&at, end, &tag, &from) &&
           tag == 0x02 && at - from <= RSA_EXPONENT_BYTES_MAX;
}

bool tls_keys_are_bearable(const WOLFSSL_BUFFER_INFO *certificates, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        if (!key_is_bearable(certificates[i].buffer, certificates[i].length))
            return false;
    return true;
}

static bool record_matches(const struct path_tlsa *record, const struct certificate *certificate) {
    const uint8_t *bytes = certificate->bytes;
    size_t length = certificate->length;
    uint8_t digest[WC_SHA512_DIGEST_SIZE];
    if (record->selector > 1 || (record->selector == 1 && !tls_public_key_info(certificate->bytes, certificate->length, &bytes, &length)))
        return false;
    if (record->matching == 1 && record->length == WC_SHA256_DIGEST_SIZE)
        return wc_Sha256Hash(bytes, (word32)length, digest) == 0 && memcmp(digest, record->data, WC_SHA256_DIGEST_SIZE) == 0;
    if (record->matching == 2 && record->length == WC_SHA512_DIGEST_SIZE)
        return wc_Sha512Hash(bytes, (word32)length, digest) == 0 && memcmp(digest, record->data, WC_SHA512_DIGEST_SIZE) == 0;
    return false;
}

static bool any_record_matches(const struct tls_ask *ask, uint8_t usage, const struct certificate *certificate) {
    for (uint32_t i = 0; i < ask->tlsa_count; i++)
        if (ask->tlsa[i].usage == usage && record_matches(&ask->tlsa[i], certificate))
            return true;
    return false;
}

/* RFC 6125 6.4.4: the subject's common name counts only where the certificate holds no DNS name. */
static bool certificate_is_for(const DecodedCert *decoded, const char *host) {
    bool has_dns_name = false;
    for (const DNS_entry *name = decoded->altNames; name != NULL; name = name->next) {
        if (name->type != ASN_DNS_TYPE)
            continue;
        has_dns_name = true;
        if (tls_name_matches(name->name, (size_t)name->len, host))
            return true;
    }
    return !has_dns_name && decoded->subjectCN != NULL && tls_name_matches(decoded->subjectCN, (size_t)decoded->subjectCNLen, host);
}

static bool certificate_is_for_any(const struct tls_ask *ask, const DecodedCert *decoded) {
    if (ask->name[0] != '\0' && certificate_is_for(decoded, ask->name))
        return true;
    for (const char *name = ask->names; *name != '\0'; name += strlen(name) + 1)
        if (certificate_is_for(decoded, name))
            return true;
    return false;
}

/* What a certificate's signature, dates and constraints are worth under a manager. */
static bool check(struct chain *chain, WOLFSSL_CERT_MANAGER *manager, const struct certificate *certificate, bool *no_signer) {
    chain->checks++;
    int result = wolfSSL_CertManagerVerifyBuffer(manager, certificate->bytes, (long)certificate->length, WOLFSSL_FILETYPE_ASN1);
    *no_signer = result == ASN_NO_SIGNER_E || result == ASN_SELF_SIGNED_E;
    if (result == ASN_BEFORE_DATE_E || result == ASN_AFTER_DATE_E)
        chain->expired = true;
    else if (result != WOLFSSL_SUCCESS && !*no_signer)
        chain->bad = true;
    return result == WOLFSSL_SUCCESS;
}

/* Is `issuer` a CA that may have as many CAs below it, and did it sign `certificate`? */
static bool issued_by(struct chain *chain, const struct certificate *certificate, const struct certificate *issuer, uint32_t below) {
    const DecodedCert *decoded = &issuer->decoded;
    bool no_signer;
    if (!decoded->isCA || (decoded->extKeyUsageSet && (decoded->extKeyUsage & KEYUSE_KEY_CERT_SIGN) == 0) ||
        (decoded->pathLengthSet && decoded->pathLength < below))
        return false;
    WOLFSSL_CERT_MANAGER *manager = wolfSSL_CertManagerNew();
    if (manager == NULL)
        return false;
    chain->checks++; /* a self-signed one is opened as it is loaded */
    int loaded = wolfSSL_CertManagerLoadCABuffer(manager, issuer->bytes, (long)issuer->length, WOLFSSL_FILETYPE_ASN1);
    if (loaded == ASN_BEFORE_DATE_E || loaded == ASN_AFTER_DATE_E)
        chain->expired = true;
    bool good = loaded == WOLFSSL_SUCCESS && check(chain, manager, certificate, &no_signer);
    wolfSSL_CertManagerFree(manager);
    return good;
}

/* Does a path lead from a presented certificate to a root, or to the anchor? `below`: CAs on the path so far. */
static bool leads_to_trust(struct chain *chain, uint32_t index, uint32_t below) {
    struct certificate *certificate = &chain->certificates[index];
    bool no_signer = true;
    if (chain->checks >= CHECKS_MAX)
        return false;
    if (chain->anchor == (int)index)
        return true;
    if (chain->anchor < 0 && check(chain, chain->worker->trust, certificate, &no_signer))
        return true;
    certificate->used = true;
    bool found = false;
    for (uint32_t i = 1; no_signer && !found && i < chain->count && chain->checks < CHECKS_MAX; i++) {
        struct certificate *issuer = &chain->certificates[i];
        if (issuer->used || !issuer->parsed ||
            memcmp(issuer->decoded.subjectHash, certificate->decoded.issuerHash, sizeof(issuer->decoded.subjectHash)) != 0)
            continue;
        bool self_issued = memcmp(issuer->decoded.subjectHash, issuer->decoded.issuerHash, sizeof(issuer->decoded.subjectHash)) == 0;
        found = issued_by(chain, certificate, issuer, below) && leads_to_trust(chain, i, below + (self_issued ? 0 : 1));
    }
    certificate->used = false;
    return found;
}

static void verdict(struct tls_ask *ask, enum tls_failure flaw, const char *why) {
    ask->flaw = flaw;
    snprintf(ask->why, sizeof(ask->why), "%s", why);
}

static void judge_chain(struct chain *chain, struct tls_ask *ask) {
    const DecodedCert *leaf = &chain->certificates[0].decoded;
    if (chain->anchor < 0 && chain->worker->trusted == 0) {
        verdict(ask, TLS_FAILURE_NOT_TRUSTED, chain->worker->trust_why);
    } else if (!leads_to_trust(chain, 0, 0)) {
        bool self_signed = chain->count == 1 && memcmp(leaf->subjectHash, leaf->issuerHash, sizeof(leaf->subjectHash)) == 0;
        if (chain->expired)
            verdict(ask, TLS_FAILURE_EXPIRED, "a certificate of the server's chain has expired or is not valid yet");
        else
            verdict(ask, TLS_FAILURE_NOT_TRUSTED,
                    self_signed  ? "the server's certificate is self-signed"
                    : chain->bad ? "the server's chain of certificates is damaged or breaks its own constraints"
                                 : "the server's certificate leads to no trusted root");
    } else if (leaf->extExtKeyUsageSet && (leaf->extExtKeyUsage & (EXTKEYUSE_ANY | EXTKEYUSE_SERVER_AUTH)) == 0) {
        verdict(ask, TLS_FAILURE_NOT_TRUSTED, "the server's certificate is not for servers");
    } else if (!certificate_is_for_any(ask, leaf)) {
        snprintf(ask->why, sizeof(ask->why), "the server's certificate is not for %.100s",
                 ask->name[0] != '\0' ? ask->name : "any name asked for");
        ask->flaw = TLS_FAILURE_HOST_MISMATCH;
    } else {
        verdict(ask, TLS_FAILURE_NONE, "");
    }
}

static void judge_dane(struct chain *chain, struct tls_ask *ask) {
    if (any_record_matches(ask, 3, &chain->certificates[0])) {
        verdict(ask, TLS_FAILURE_NONE, ""); /* names, dates and chain are the record's (RFC 7672 3.1.1) */
        return;
    }
    verdict(ask, TLS_FAILURE_TLSA_MISMATCH, "no TLSA record names the server's certificate or a CA that it presents");
    for (uint32_t i = 1; i < chain->count && ask->flaw != TLS_FAILURE_NONE; i++) {
        if (!chain->certificates[i].parsed || !any_record_matches(ask, 2, &chain->certificates[i]))
            continue;
        chain->anchor = (int)i;
        judge_chain(chain, ask);
    }
}

void tls_judge(struct tls_worker *worker, struct tls_ask *ask, const WOLFSSL_BUFFER_INFO *certificates, uint32_t count) {
    ask->judged = true;
    verdict(ask, TLS_FAILURE_NOT_TRUSTED, "the server's certificate cannot be read");
    struct chain *chain = count == 0 ? NULL : tls_heap_take(&worker->heap, sizeof(*chain));
    if (chain == NULL) {
        if (count != 0)
            verdict(ask, TLS_FAILURE_LOCAL, "out of memory");
        return;
    }
    memset(chain, 0, sizeof(*chain));
    chain->worker = worker;
    chain->anchor = -1;
    chain->count = count < PRESENTED_MAX ? count : PRESENTED_MAX;
    for (uint32_t i = 0; i < chain->count; i++) {
        struct certificate *certificate = &chain->certificates[i];
        certificate->bytes = certificates[i].buffer;
        certificate->length = certificates[i].length;
        wc_InitDecodedCert(&certificate->decoded, certificate->bytes, (word32)certificate->length, NULL);
        certificate->parsed = wc_ParseCert(&certificate->decoded, CERT_TYPE, NO_VERIFY, NULL) == 0;
    }
    if (chain->certificates[0].parsed) {
        if (ask->level == PATH_TLS_DANE)
            judge_dane(chain, ask);
        else
            judge_chain(chain, ask);
    }
    for (uint32_t i = 0; i < chain->count; i++)
        wc_FreeDecodedCert(&chain->certificates[i].decoded);
    tls_heap_give(&worker->heap, chain);
}
