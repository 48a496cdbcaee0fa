/* check_tls.c: what `bypost check` says of certificates: those of relays' clients, and the trusted ones, as the dataplane will want them.
 */
#include "check_tls.h"
#include "cli.h"
#include "control/config/yaml.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <wolfssl/options.h>
#include <wolfssl/ssl.h>
#include <wolfssl/wolfcrypt/asn.h>

enum { CERTIFICATE_BYTES = 1 << 16, EXPIRES_SOON_S = 14 * 86400 };

/* --- where it stands --- */

static const struct yaml_node *key_of(const struct yaml_node *mapping, const char *key) {
    for (uint32_t i = 0; mapping && mapping->kind == YAML_MAPPING && i < mapping->count; i++) {
        if (mapping->keys[i].text && strcasecmp(mapping->keys[i].text, key) == 0) {
            return &mapping->keys[i];
        }
    }
    return NULL;
}

/* FILE:LINE:COLUMN of section.key, or of the section, or FILE. */
static void place_print(const struct config *config, const char *section, const char *key) {
    struct config_errors errors = {0};
    struct yaml_node root = {0};
    if (!yaml_read(config->path, &root, &errors)) {
        root = (struct yaml_node){0};
    }
    const struct yaml_node *place = key_of(yaml_get(&root, section), key);
    place = place ? place : key_of(&root, section);
    if (place) {
        fprintf(stderr, "%s:%u:%u: ", config->path, place->line, place->column);
    } else {
        fprintf(stderr, "%s: ", config->path);
    }
    yaml_free(&root);
    config_errors_free(&errors);
}

/* --- clients' certificates --- */

/* Seconds until the first certificate of a PEM file ends; false where that cannot be read. */
static bool ends_in(const char *path, double *seconds) {
    unsigned char *pem = malloc(CERTIFICATE_BYTES), *der = malloc(CERTIFICATE_BYTES);
    FILE *file = fopen(path, "re");
    size_t length = file && pem && der ? fread(pem, 1, CERTIFICATE_BYTES, file) : 0;
    int der_length = length > 0 ? wc_CertPemToDer(pem, (int)length, der, CERTIFICATE_BYTES, CERT_TYPE) : -1;
    bool known = false;
    if (der_length > 0) {
        DecodedCert decoded;
        struct tm end;
        wc_InitDecodedCert(&decoded, der, (word32)der_length, NULL);
        if (wc_ParseCert(&decoded, CERT_TYPE, NO_VERIFY, NULL) == 0 && decoded.afterDateLen > 2 &&
            wc_GetDateAsCalendarTime(decoded.afterDate + 2, decoded.afterDateLen - 2, decoded.afterDate[0], &end) == 0) {
            *seconds = difftime(timegm(&end), time(NULL));
            known = true;
        }
        wc_FreeDecodedCert(&decoded);
    }
    if (file) {
        fclose(file);
    }
    free(pem);
    free(der);
    return known;
}

static bool identity_check(const struct config *config, const struct config_relay *relay, unsigned *warnings) {
    double seconds;
    WOLFSSL_CTX *context = wolfSSL_CTX_new(wolfTLS_client_method());
    const char *fault = !context ? "out of memory"
                        : wolfSSL_CTX_use_certificate_chain_file(context, relay->tls_certificate_file) != WOLFSSL_SUCCESS
                            ? "it is no certificate chain in PEM"
                        : wolfSSL_CTX_use_PrivateKey_file(context, relay->tls_key_file, WOLFSSL_FILETYPE_PEM) != WOLFSSL_SUCCESS
                            ? "its key is no private key in PEM without a passphrase"
                        : wolfSSL_CTX_check_private_key(context) != WOLFSSL_SUCCESS ? "its key belongs to another certificate"
                                                                                    : NULL;
    wolfSSL_CTX_free(context);
    if (fault) {
        place_print(config, "relays", relay->domain);
        fprintf(stderr, "error: the certificate %s (key %s) of the relay for `%s` cannot be used: %s; correct the files.\n",
                relay->tls_certificate_file, relay->tls_key_file, relay->domain, fault);
    } else if (ends_in(relay->tls_certificate_file, &seconds) && seconds < EXPIRES_SOON_S) {
        place_print(config, "relays", relay->domain);
        fprintf(stderr, "warning: the certificate %s of the relay for `%s` %s; put a new one there and restart bypost.\n",
                relay->tls_certificate_file, relay->domain, seconds < 0 ? "has expired" : "expires within two weeks");
        (*warnings)++;
    }
    return !fault;
}

/* --- trusted certificates --- */

static bool holds_trust(WOLFSSL_CERT_MANAGER *manager, const char *path) {
    static const char begin[] = "-----BEGIN CERTIFICATE-----", end[] = "-----END CERTIFICATE-----";
    FILE *file = fopen(path, "re");
    char *text = NULL;
    size_t bytes = 0;
    bool found = false;
    if (file && getdelim(&text, &bytes, '\0', file) > 0) {
        for (const char *from = text, *to; !found && (from = strstr(from, begin)) && (to = strstr(from, end)); from = to) {
            to += sizeof end - 1;
            found =
                wolfSSL_CertManagerLoadCABuffer(manager, (const unsigned char *)from, to - from, WOLFSSL_FILETYPE_PEM) == WOLFSSL_SUCCESS;
        }
    }
    free(text);
    if (file) {
        fclose(file);
    }
    return found;
}

static bool trust_check(const struct config *config) {
    const char *path = config->tls.ca_file;
    WOLFSSL_CERT_MANAGER *manager = path ? wolfSSL_CertManagerNew() : NULL;
    DIR *directory = path ? opendir(path) : NULL;
    bool found = !path || (!directory && holds_trust(manager, path));
    for (const struct dirent *entry; directory && !found && (entry = readdir(directory));) {
        char name[4096];
        struct stat status;
        if (snprintf(name, sizeof name, "%s/%s", path, entry->d_name) < (int)sizeof name && stat(name, &status) == 0 &&
            S_ISREG(status.st_mode)) {
            found = holds_trust(manager, name);
        }
    }
    if (!found) {
        place_print(config, "tls", "ca_file");
        fprintf(stderr,
                "error: %s holds no valid certificate of a CA in PEM; correct `ca_file`, or remove it to use the system's (package "
                "ca-certificates).\n",
                path);
    }
    if (directory) {
        closedir(directory);
    }
    wolfSSL_CertManagerFree(manager);
    return found;
}

/* RFC 8460 section 3: a report that is not signed may be ignored. */
static void reports_check(const struct config *config, unsigned *warnings) {
    const char *at = config->tls_reports.enabled && config->tls_reports.from ? strrchr(config->tls_reports.from, '@') : NULL;
    bool signs = !at;
    for (uint32_t i = 0; i < config->dkim_count; i++) {
        signs |= at && strcasecmp(config->dkim[i].domain, at + 1) == 0;
    }
    if (!signs) {
        place_print(config, "tls_reports", "from");
        fprintf(stderr,
                "warning: TLS reports from %s are not signed, and who gets them may ignore such ones; make a key: `bypost dkim keygen "
                "--domain %s --selector NAME --out FILE`.\n",
                config->tls_reports.from, at + 1);
        (*warnings)++;
    }
}

bool check_tls(const struct config *config, unsigned *warnings) {
    const struct config_relay *relay;
    bool good = true;
    wolfSSL_Init();
    for (uint32_t place = 1; (relay = config_identity(config, place)); place++) {
        good &= identity_check(config, relay, warnings);
    }
    good &= trust_check(config);
    wolfSSL_Cleanup();
    reports_check(config, warnings);
    return good;
}
