/* tls_peer.c: OpenSSL between two memory buffers. */
#include "tls_peer.h"

#include <assert.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct openssl_identity {
    X509 *certificate;
    EVP_PKEY *key;
    const struct openssl_identity *issuer;
};

struct openssl_peer {
    SSL_CTX *context;
    SSL *ssl;
    BIO *in, *out;
    bool server, failed, closed, ready;
    char error[256];
};

static void extend(X509 *certificate, X509 *issuer, int kind, const char *value) {
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, kind, value);
    assert(extension != NULL);
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
}

/* The modulus of the key, and two less than it as exponent. */
static void set_costly_key(X509 *certificate, const EVP_PKEY *key) {
    BIGNUM *number = NULL, *exponent;
    EVP_PKEY *costly = NULL;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    OSSL_PARAM_BLD *builder = OSSL_PARAM_BLD_new();
    EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_N, &number);
    exponent = BN_dup(number);
    BN_sub_word(exponent, 2);
    OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_N, number);
    OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_E, exponent);
    OSSL_PARAM *parameters = OSSL_PARAM_BLD_to_param(builder);
    EVP_PKEY_fromdata_init(context);
    int made = EVP_PKEY_fromdata(context, &costly, EVP_PKEY_PUBLIC_KEY, parameters);
    assert(made == 1);
    (void)made;
    X509_set_pubkey(certificate, costly);
    EVP_PKEY_free(costly);
    EVP_PKEY_CTX_free(context);
    OSSL_PARAM_free(parameters);
    OSSL_PARAM_BLD_free(builder);
    BN_free(exponent);
    BN_free(number);
}

struct openssl_identity *openssl_identity_make(const struct openssl_identity *issuer, const struct openssl_wants *wants) {
    static long serial = 1000;
    struct openssl_identity *identity = calloc(1, sizeof(*identity));
    identity->issuer = issuer;
    identity->key = wants->costly ? EVP_RSA_gen(3000) : wants->rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256");
    X509 *certificate = identity->certificate = X509_new();
    assert(identity->key != NULL && certificate != NULL);
    X509_set_version(certificate, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial);
    ASN1_TIME_set(X509_getm_notBefore(certificate), wants->from_s != 0 ? wants->from_s : OPENSSL_NOW_S - 86400);
    ASN1_TIME_set(X509_getm_notAfter(certificate), wants->to_s != 0 ? wants->to_s : OPENSSL_NOW_S + 90 * 86400);
    if (wants->costly)
        set_costly_key(certificate, identity->key);
    else
        X509_set_pubkey(certificate, identity->key);
    X509_NAME *name = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)(wants->name != NULL ? wants->name : "bypost test"), -1, -1,
                               0);
    X509 *signer = issuer != NULL ? issuer->certificate : certificate;
    X509_set_issuer_name(certificate, X509_get_subject_name(signer));
    extend(certificate, signer, NID_subject_key_identifier, "hash");
    if (issuer != NULL)
        extend(certificate, signer, NID_authority_key_identifier, "keyid:always");
    if (wants->ca) {
        extend(certificate, signer, NID_basic_constraints, wants->path_length_zero ? "critical,CA:TRUE,pathlen:0" : "critical,CA:TRUE");
        extend(certificate, signer, NID_key_usage, "critical,keyCertSign,cRLSign");
    }
    if (wants->usage != NULL)
        extend(certificate, signer, NID_ext_key_usage, wants->usage);
    char names[1200] = "";
    for (int i = 0; i < 4 && wants->dns[i] != NULL; i++)
        snprintf(names + strlen(names), sizeof(names) - strlen(names), "%sDNS:%s", i > 0 ? "," : "", wants->dns[i]);
    if (names[0] != '\0')
        extend(certificate, signer, NID_subject_alt_name, names);
    int signed_bytes = X509_sign(certificate, issuer != NULL ? issuer->key : identity->key, EVP_sha256());
    assert(signed_bytes > 0);
    (void)signed_bytes;
    return identity;
}

void openssl_identity_free(struct openssl_identity *identity) {
    if (identity == NULL)
        return;
    X509_free(identity->certificate);
    EVP_PKEY_free(identity->key);
    free(identity);
}

void openssl_identity_write(const struct openssl_identity *identity, const char *certificate_path, const char *key_path) {
    if (certificate_path != NULL) {
        FILE *file = fopen(certificate_path, "we");
        assert(file != NULL);
        PEM_write_X509(file, identity->certificate);
        for (const struct openssl_identity *up = identity->issuer; up != NULL && up->issuer != NULL; up = up->issuer)
            PEM_write_X509(file, up->certificate);
        fclose(file);
    }
    if (key_path != NULL) {
        FILE *file = fopen(key_path, "we");
        assert(file != NULL);
        PEM_write_PrivateKey(file, identity->key, NULL, NULL, 0, NULL, NULL);
        fclose(file);
    }
}

struct path_tlsa openssl_identity_tlsa(const struct openssl_identity *identity, uint8_t usage, uint8_t selector, uint8_t matching) {
    struct path_tlsa record = {.usage = usage, .selector = selector, .matching = matching};
    unsigned char *bytes = NULL;
    unsigned length = 0;
    int encoded = selector == 0 ? i2d_X509(identity->certificate, &bytes) : i2d_PUBKEY(identity->key, &bytes);
    assert(encoded > 0);
    EVP_Digest(bytes, (size_t)encoded, record.data, &length, matching == 2 ? EVP_sha512() : EVP_sha256(), NULL);
    record.length = (uint8_t)length;
    OPENSSL_free(bytes);
    return record;
}

static int take_any(int good, X509_STORE_CTX *store) {
    (void)good;
    (void)store;
    return 1;
}

static int version_of(int version) {
    return version == 12 ? TLS1_2_VERSION : version == 13 ? TLS1_3_VERSION : 0;
}

struct openssl_peer *openssl_peer_new(const struct openssl_options *options) {
    struct openssl_peer *peer = calloc(1, sizeof(*peer));
    peer->server = options->server;
    if (options->resumes != NULL && SSL_CTX_up_ref(options->resumes->context)) {
        peer->context = options->resumes->context;
    } else {
        peer->context = SSL_CTX_new(options->server ? TLS_server_method() : TLS_client_method());
        SSL_CTX_set_min_proto_version(peer->context, version_of(options->version_min));
        SSL_CTX_set_max_proto_version(peer->context, version_of(options->version_max));
        SSL_CTX_set_session_id_context(peer->context, (const unsigned char *)"test", 4);
        if (options->ciphers != NULL)
            SSL_CTX_set_cipher_list(peer->context, options->ciphers);
        if (options->no_tickets) {
            SSL_CTX_set_options(peer->context, SSL_OP_NO_TICKET);
            SSL_CTX_set_num_tickets(peer->context, 0);
            SSL_CTX_set_session_cache_mode(peer->context, SSL_SESS_CACHE_OFF);
        }
        if (options->asks_client || options->demands_client)
            SSL_CTX_set_verify(peer->context, SSL_VERIFY_PEER | (options->demands_client ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), take_any);
        if (options->identity != NULL) {
            SSL_CTX_use_certificate(peer->context, options->identity->certificate);
            SSL_CTX_use_PrivateKey(peer->context, options->identity->key);
            SSL_CTX_set_mode(peer->context, SSL_MODE_NO_AUTO_CHAIN);
            for (const struct openssl_identity *up = options->identity->issuer; up != NULL && !options->hides_chain; up = up->issuer)
                if (up->issuer != NULL || options->sends_root)
                    SSL_CTX_add1_chain_cert(peer->context, up->certificate);
        }
    }
    peer->ssl = SSL_new(peer->context);
    peer->in = BIO_new(BIO_s_mem());
    peer->out = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(peer->in, -1);
    BIO_set_mem_eof_return(peer->out, -1);
    SSL_set_bio(peer->ssl, peer->in, peer->out);
    if (options->server) {
        SSL_set_accept_state(peer->ssl);
    } else {
        SSL_set_connect_state(peer->ssl);
        if (options->sni != NULL)
            SSL_set_tlsext_host_name(peer->ssl, options->sni);
        if (options->resumes != NULL) {
            SSL_SESSION *session = SSL_get1_session(options->resumes->ssl);
            SSL_set_session(peer->ssl, session);
            SSL_SESSION_free(session);
        }
        openssl_peer_take(peer, NULL, 0);
    }
    return peer;
}

void openssl_peer_free(struct openssl_peer *peer) {
    if (peer == NULL)
        return;
    SSL_set_shutdown(peer->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); /* else the session could not be resumed */
    SSL_free(peer->ssl);
    SSL_CTX_free(peer->context);
    free(peer);
}

static void note(struct openssl_peer *peer, int result) {
    int error = SSL_get_error(peer->ssl, result);
    if (error == SSL_ERROR_ZERO_RETURN)
        peer->closed = true;
    if (error != SSL_ERROR_SSL && error != SSL_ERROR_SYSCALL)
        return;
    peer->failed = true;
    ERR_error_string_n(ERR_peek_error(), peer->error, sizeof(peer->error));
    ERR_clear_error();
}

void openssl_peer_take(struct openssl_peer *peer, const uint8_t *bytes, uint32_t length) {
    if (length > 0)
        BIO_write(peer->in, bytes, (int)length);
    if (peer->ready || peer->failed)
        return;
    ERR_clear_error();
    int result = SSL_do_handshake(peer->ssl);
    if (result == 1)
        peer->ready = true;
    else
        note(peer, result);
}

uint32_t openssl_peer_give(struct openssl_peer *peer, uint8_t *bytes, uint32_t size) {
    int length = BIO_read(peer->out, bytes, (int)size);
    return length > 0 ? (uint32_t)length : 0;
}

bool openssl_peer_ready(const struct openssl_peer *peer) {
    return peer->ready;
}
bool openssl_peer_resumed(const struct openssl_peer *peer) {
    return SSL_session_reused(peer->ssl);
}
bool openssl_peer_failed(const struct openssl_peer *peer) {
    return peer->failed;
}
bool openssl_peer_saw_close(const struct openssl_peer *peer) {
    return peer->closed;
}
bool openssl_peer_saw_client(const struct openssl_peer *peer) {
    return SSL_get0_peer_certificate(peer->ssl) != NULL;
}
int openssl_peer_version(const struct openssl_peer *peer) {
    return SSL_version(peer->ssl) == TLS1_3_VERSION ? 13 : SSL_version(peer->ssl) == TLS1_2_VERSION ? 12 : 0;
}
const char *openssl_peer_sni(const struct openssl_peer *peer) {
    return SSL_get_servername(peer->ssl, TLSEXT_NAMETYPE_host_name);
}
const char *openssl_peer_error(const struct openssl_peer *peer) {
    return peer->error;
}

void openssl_peer_write(struct openssl_peer *peer, const void *bytes, uint32_t length) {
    ERR_clear_error();
    int written = SSL_write(peer->ssl, bytes, (int)length);
    if (written <= 0)
        note(peer, written);
}

uint32_t openssl_peer_read(struct openssl_peer *peer, void *bytes, uint32_t size) {
    uint32_t length = 0;
    while (length < size && peer->ready && !peer->failed) {
        ERR_clear_error();
        int got = SSL_read(peer->ssl, (char *)bytes + length, (int)(size - length));
        if (got <= 0) {
            note(peer, got);
            break;
        }
        length += (uint32_t)got;
    }
    return length;
}

void openssl_peer_close(struct openssl_peer *peer) {
    SSL_shutdown(peer->ssl);
}
void openssl_peer_key_update(struct openssl_peer *peer) {
    SSL_key_update(peer->ssl, SSL_KEY_UPDATE_REQUESTED);
    SSL_do_handshake(peer->ssl);
}
