/* context.c: one worker's TLS: its contexts, roots, identities and resumption store. Files are read here and nowhere else. */
#include "tls_private.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SYSTEM_CA_FILE "/etc/ssl/certs/ca-certificates.crt"

enum { FILE_BYTES_MAX = 16 << 20, RSA_BITS_MIN = 1024 };

/* GCM and ChaCha first; CBC for servers that have nothing else. All with forward secrecy. */
static const char ciphers[] = "TLS13-AES128-GCM-SHA256:TLS13-AES256-GCM-SHA384:TLS13-CHACHA20-POLY1305-SHA256:"
                              "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
                              "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
                              "DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-SHA256:ECDHE-RSA-AES128-SHA256:"
                              "ECDHE-ECDSA-AES256-SHA384:ECDHE-RSA-AES256-SHA384:ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA:"
                              "ECDHE-ECDSA-AES256-SHA:ECDHE-RSA-AES256-SHA";

static char *read_file(const char *path, size_t *length) {
    struct stat about;
    FILE *file = fopen(path, "rbe");
    if (file == NULL)
        return NULL;
    char *text = NULL;
    if (fstat(fileno(file), &about) != 0 || !S_ISREG(about.st_mode) || about.st_size > FILE_BYTES_MAX) {
        errno = EINVAL;
    } else if ((text = malloc((size_t)about.st_size + 1)) != NULL) {
        *length = fread(text, 1, (size_t)about.st_size, file);
        text[*length] = '\0';
    }
    fclose(file);
    return text;
}

static void forget_file(char *text, size_t length) {
    if (text != NULL)
        explicit_bzero(text, length);
    free(text);
}

/* The certificates of a PEM text one by one: one that wolfSSL does not understand, or that has expired, is no reason to lose the others. */
static void trust_text(struct tls_worker *worker, const char *text) {
    static const char begin[] = "-----BEGIN CERTIFICATE-----", end[] = "-----END CERTIFICATE-----";
    for (const char *from = text, *to; (from = strstr(from, begin)) != NULL && (to = strstr(from, end)) != NULL; from = to) {
        to += sizeof(end) - 1;
        if (wolfSSL_CertManagerLoadCABuffer(worker->trust, (const unsigned char *)from, to - from, WOLFSSL_FILETYPE_PEM) == WOLFSSL_SUCCESS)
            worker->trusted++;
    }
}

static int trust_file(struct tls_worker *worker, const char *path) {
    size_t length = 0;
    char *text = read_file(path, &length);
    if (text == NULL)
        return -errno;
    trust_text(worker, text);
    free(text);
    return 0;
}

static int trust_directory(struct tls_worker *worker, const char *path) {
    DIR *directory = opendir(path);
    if (directory == NULL)
        return -errno;
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        char name[4096];
        if (entry->d_name[0] != '.' && snprintf(name, sizeof(name), "%s/%s", path, entry->d_name) < (int)sizeof(name))
            trust_file(worker, name);
    }
    closedir(directory);
    return 0;
}

static int open_trust(struct tls_worker *worker, const char *given, char *error, size_t error_bytes) {
    const char *path = given != NULL ? given : SYSTEM_CA_FILE;
    struct stat about;
    worker->trust = wolfSSL_CertManagerNew();
    if (worker->trust == NULL) {
        snprintf(error, error_bytes, "no memory for the trusted certificates.");
        return -ENOMEM;
    }
    int code = stat(path, &about) != 0 ? -errno : S_ISDIR(about.st_mode) ? trust_directory(worker, path) : trust_file(worker, path);
    if (worker->trusted > 0)
        return 0;
    if (given != NULL) {
        snprintf(error, error_bytes, "no trusted certificate in '%s': %s. Name a PEM file or a directory of such files.", path,
                 code != 0 ? strerror(-code) : "it holds no valid certificate of a CA");
        return -EINVAL;
    }
    /* Most mail needs none. */
    snprintf(worker->trust_why, sizeof(worker->trust_why),
             "this machine has no trusted certificates (%s): install the package ca-certificates, or name a file of them", path);
    return 0;
}

static int open_identity(WOLFSSL_CTX *context, const struct tls_identity *identity, char *error, size_t error_bytes) {
    size_t chain_length = 0, key_length = 0;
    char *chain = read_file(identity->certificate_file, &chain_length);
    int code = -EINVAL;
    if (chain == NULL) {
        snprintf(error, error_bytes, "the certificate '%s' cannot be read: %s.", identity->certificate_file, strerror(errno));
        return -EINVAL;
    }
    char *key = read_file(identity->key_file, &key_length);
    if (key == NULL)
        snprintf(error, error_bytes, "the key '%s' cannot be read: %s.", identity->key_file, strerror(errno));
    else if (wolfSSL_CTX_use_certificate_chain_buffer(context, (const unsigned char *)chain, (long)chain_length) != WOLFSSL_SUCCESS)
        snprintf(error, error_bytes, "'%s' is no chain of PEM certificates, the server's or client's own first.",
                 identity->certificate_file);
    else if (wolfSSL_CTX_use_PrivateKey_buffer(context, (const unsigned char *)key, (long)key_length, WOLFSSL_FILETYPE_PEM) !=
             WOLFSSL_SUCCESS)
        snprintf(error, error_bytes, "'%s' is no PEM private key without a passphrase.", identity->key_file);
    else if (wolfSSL_CTX_check_private_key(context) != WOLFSSL_SUCCESS)
        snprintf(error, error_bytes, "the key '%s' does not belong to the certificate '%s'.", identity->key_file,
                 identity->certificate_file);
    else
        code = 0;
    free(chain);
    forget_file(key, key_length);
    return code;
}

static WOLFSSL_METHOD *method_of(const struct tls_config *config) {
    if (!config->server)
        return wolfSSLv23_client_method();
    return config->version_max == 12 ? wolfTLSv1_2_server_method() : wolfSSLv23_server_method();
}

static int open_context(struct tls_worker *worker, WOLFSSL_CTX **to, const struct tls_config *config, const struct tls_identity *identity,
                        char *error, size_t error_bytes) {
    static const int groups[] = {WOLFSSL_ECC_SECP256R1, WOLFSSL_ECC_X25519, WOLFSSL_ECC_SECP384R1, WOLFSSL_ECC_SECP521R1};
    int copied[sizeof(groups) / sizeof(groups[0])];
    memcpy(copied, groups, sizeof(groups));
    WOLFSSL_CTX *context = wolfSSL_CTX_new(method_of(config));
    if (context == NULL) {
        snprintf(error, error_bytes, "no memory for TLS.");
        return -ENOMEM;
    }
    *to = context;
    /* wolfSSL's own cache is one for all threads. A server keeps it for clients of TLS 1.2, which resume by session ID. */
    if (!config->server || config->no_resumption) {
        wolfSSL_CTX_set_session_cache_mode(context, WOLFSSL_SESS_CACHE_OFF);
    }
    wolfSSL_CTX_set_timeout(context, TLS_STORE_AGE_S);
    wolfSSL_CTX_set_group_messages(context);
    wolfSSL_CTX_SetIORecv(context, tls_on_read);
    wolfSSL_CTX_SetIOSend(context, tls_on_write);
    wolfSSL_CTX_SetMinVersion(context, WOLFSSL_TLSV1_2);
    wolfSSL_CTX_SetMinRsaKey_Sz(context, RSA_BITS_MIN);
    if (wolfSSL_CTX_set_cipher_list(context, ciphers) != WOLFSSL_SUCCESS ||
        wolfSSL_CTX_set_groups(context, copied, sizeof(groups) / sizeof(groups[0])) != WOLFSSL_SUCCESS) {
        snprintf(error, error_bytes, "this wolfSSL lacks the ciphers that are needed: deploy/setup builds one that has them.");
        return -ENOTSUP;
    }
    if (worker->server) {
        wolfSSL_CTX_set_verify(context, WOLFSSL_VERIFY_NONE, NULL);
        if (config->no_resumption) {
            wolfSSL_CTX_NoTicketTLSv12(context);
            wolfSSL_CTX_no_ticket_TLSv13(context);
        }
    } else {
        /* Never NONE: then a server need not prove that the certificate is its own. No tickets in TLS 1.2, session IDs only: this wolfSSL
         * takes a server that does not know its ticket any more for one that breaks the protocol. TLS 1.3 has its tickets. */
        wolfSSL_CTX_set_verify(context, WOLFSSL_VERIFY_PEER, tls_on_verify);
    }
    return identity == NULL ? 0 : open_identity(context, identity, error, error_bytes);
}

static int open_contexts(struct tls_worker *worker, const struct tls_config *config, char *error, size_t error_bytes) {
    int code = 0;
    if (worker->server) {
        if (config->identity_count == 0) {
            snprintf(error, error_bytes, "a server needs a certificate and its key.");
            return -EINVAL;
        }
        return open_context(worker, &worker->contexts[0], config, &config->identities[0], error, error_bytes);
    }
    for (uint32_t i = 0; code == 0 && i <= config->identity_count; i++)
        code = open_context(worker, &worker->contexts[i], config, i == 0 ? NULL : &config->identities[i - 1], error, error_bytes);
    return code;
}

struct tls_worker *tls_worker_create(const struct tls_config *config, char *error, size_t error_bytes) {
    if (config->identity_count > TLS_IDENTITIES_MAX) {
        snprintf(error, error_bytes, "%u certificates of clients are named, %u can be used.", config->identity_count,
                 (unsigned)TLS_IDENTITIES_MAX);
        return NULL;
    }
    struct tls_worker *worker = calloc(1, sizeof(*worker));
    int code = worker == NULL ? -ENOMEM : tls_heap_open(&worker->heap);
    if (code != 0) {
        snprintf(error, error_bytes, "no memory for TLS.");
        free(worker);
        return NULL;
    }
    worker->server = config->server;
    worker->max_sessions = config->max_sessions;
    worker->identity_count = config->identity_count;
    worker->realtime_offset_us = config->realtime_offset_us;
    worker->now_us = config->now_us;
    worker->steps_left = TLS_STEP_PACKETS_MAX;
    memcpy(worker->secret, config->secret, sizeof(worker->secret));
    TAILQ_INIT(&worker->turns);
    TAILQ_INIT(&worker->leaving);
    struct tls_worker *before = tls_enter(worker);
    code = tls_store_open(&worker->store, &worker->heap, config->resumption_entries);
    if (code != 0)
        snprintf(error, error_bytes, "no memory for TLS.");
    if (code == 0 && !worker->server)
        code = open_trust(worker, config->ca_file, error, error_bytes);
    if (code == 0)
        code = open_contexts(worker, config, error, error_bytes);
    tls_leave(before);
    if (code == 0)
        return worker;
    tls_worker_destroy(worker);
    return NULL;
}

void tls_worker_destroy(struct tls_worker *worker) {
    if (worker == NULL)
        return;
    struct tls_worker *before = tls_enter(worker);
    struct tls_session *session;
    while ((session = LIST_FIRST(&worker->alive)) != NULL) /* a stack that was destroyed told nobody of its connections' end */
        tls_session_free(session);
    tls_store_close(&worker->store, &worker->heap);
    for (uint32_t i = 0; i <= TLS_IDENTITIES_MAX; i++)
        wolfSSL_CTX_free(worker->contexts[i]);
    if (worker->trust != NULL)
        wolfSSL_CertManagerFree(worker->trust);
    tls_leave(before);
#ifndef OPENSSL_EXTRA                /* the distribution's wolfSSL has tables of its own that outlive everything */
    assert(worker->heap.bytes == 0); /* no stack holds anything of it any more */
#endif
    tls_heap_close(&worker->heap);
    explicit_bzero(worker, sizeof(*worker));
    free(worker);
}

void tls_worker_usage(const struct tls_worker *worker, struct tls_usage *usage) {
    *usage = worker->usage;
    usage->heap_bytes = worker->heap.bytes;
}
