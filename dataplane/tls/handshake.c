/* handshake.c: a session from stream_secure to `secured` or `insecure`. */
#include "tls_private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <wolfssl/error-ssl.h>
#include <wolfssl/wolfcrypt/error-crypt.h>
#include <wolfssl/wolfcrypt/sha256.h>

/* Everything that makes one verdict on a certificate good for another connection, and nothing that does not. */
static int resumption_key(const struct tls_worker *worker, const struct tls_peer *peer, uint8_t *key) {
    struct wc_Sha256 sha;
    const uint32_t numbers[] = {peer->port, peer->identity, peer->version_min, peer->level == PATH_TLS_DANE};
    const char *name = peer->name != NULL ? peer->name : "", *names = peer->names != NULL ? peer->names : "";
    size_t names_length = 0;
    while (names[names_length] != '\0')
        names_length += strlen(names + names_length) + 1;
    int code = wc_InitSha256(&sha);
    if (code == 0)
        code = wc_Sha256Update(&sha, worker->secret, sizeof(worker->secret));
    if (code == 0)
        code = wc_Sha256Update(&sha, peer->address, sizeof(peer->address));
    if (code == 0)
        code = wc_Sha256Update(&sha, (const uint8_t *)numbers, sizeof(numbers));
    if (code == 0)
        code = wc_Sha256Update(&sha, (const uint8_t *)name, (word32)strlen(name) + 1);
    if (code == 0)
        code = wc_Sha256Update(&sha, (const uint8_t *)names, (word32)names_length + 1);
    if (code == 0 && peer->level == PATH_TLS_DANE)
        code = wc_Sha256Update(&sha, (const uint8_t *)peer->tlsa, (word32)(peer->tlsa_count * sizeof(peer->tlsa[0])));
    if (code == 0)
        code = wc_Sha256Final(&sha, key);
    wc_Sha256Free(&sha);
    return code;
}

static bool peer_is_valid(const struct tls_worker *worker, const struct tls_peer *peer) {
    bool named = peer->name != NULL && peer->name[0] != '\0';
    if (peer->level <= PATH_TLS_NONE || peer->level >= PATH_TLS_LEVELS || peer->identity > worker->identity_count || worker->server)
        return false;
    if (named && strlen(peer->name) > PATH_TEXT_MAX)
        return false;
    if (peer->level >= PATH_TLS_VERIFY && !named)
        return false;
    return peer->level != PATH_TLS_DANE || (peer->tlsa != NULL && peer->tlsa_count > 0 && peer->tlsa_count <= PATH_TLSA_MAX);
}

static struct tls_ask *ask_new(struct tls_worker *worker, const struct tls_peer *peer) {
    struct tls_ask *ask = tls_heap_take(&worker->heap, sizeof(*ask));
    if (ask == NULL)
        return NULL;
    memset(ask, 0, sizeof(*ask));
    ask->level = peer->level;
    ask->report = peer->report;
    if (peer->name != NULL)
        memcpy(ask->name, peer->name, strlen(peer->name));
    size_t used = 0;
    for (const char *name = peer->names; name != NULL && *name != '\0'; name += strlen(name) + 1) {
        size_t length = strlen(name) + 1;
        if (used + length + 1 > sizeof(ask->names))
            break; /* fewer names verify less, never more */
        memcpy(ask->names + used, name, length);
        used += length;
    }
    if (peer->level == PATH_TLS_DANE) {
        ask->tlsa_count = (uint8_t)peer->tlsa_count;
        memcpy(ask->tlsa, peer->tlsa, peer->tlsa_count * sizeof(peer->tlsa[0]));
    }
    return ask;
}

static bool name_is_address(const char *name) {
    uint8_t address[16];
    return inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;
}

static int make_ssl(struct tls_session *session, uint32_t identity) {
    wolfSSL_free(session->ssl);
    session->ssl = wolfSSL_new(session->worker->contexts[identity]);
    if (session->ssl == NULL)
        return -ENOBUFS;
    wolfSSL_SetIOReadCtx(session->ssl, session);
    wolfSSL_SetIOWriteCtx(session->ssl, session);
    return 0;
}

static int make_client(struct tls_session *session, const struct tls_peer *peer) {
    const char *name = session->ask->name;
    int code = make_ssl(session, peer->identity);
    if (code != 0)
        return code;
    wolfSSL_SetCertCbCtx(session->ssl, session);
    if (peer->version_min >= 13 && wolfSSL_SetMinVersion(session->ssl, WOLFSSL_TLSV1_3) != WOLFSSL_SUCCESS)
        return -EINVAL;
    if (name[0] != '\0' && !name_is_address(name) && /* RFC 6066 3 */
        wolfSSL_UseSNI(session->ssl, WOLFSSL_SNI_HOST_NAME, name, (unsigned short)strlen(name)) != WOLFSSL_SUCCESS)
        return -ENOBUFS;
    return 0;
}

/* False: wolfSSL does not take it, and is left with half of it. */
static bool offer(struct tls_session *session, const struct tls_entry *entry) {
    WOLFSSL_SESSION *copy = wolfSSL_SESSION_dup(entry->session); /* a new ticket would change it under other connections */
    session->offered = copy != NULL && wolfSSL_set_session(session->ssl, copy) == WOLFSSL_SUCCESS;
    wolfSSL_SESSION_free(copy);
    if (!session->offered)
        return false;
    session->state.verified = entry->verified;
    session->state.flaw = entry->flaw;
    session->made_us = entry->made_us;
    uint32_t length;
    session->ticket_mark = tls_session_ticket(session, &length);
    return true;
}

static int prepare_client(struct tls_session *session, const struct tls_peer *peer) {
    struct tls_worker *worker = session->worker;
    if (resumption_key(worker, peer, session->key) != 0 || (session->ask = ask_new(worker, peer)) == NULL)
        return -ENOBUFS;
    int code = make_client(session, peer);
    struct tls_entry *entry = code == 0 ? tls_store_find(worker, session->key) : NULL;
    if (entry == NULL || (!entry->verified && peer->level >= PATH_TLS_VERIFY) || offer(session, entry))
        return code;
    tls_store_drop(worker, entry);
    return make_client(session, peer);
}

int tls_session_begin(struct stream *stream, struct tls_worker *worker, const struct tls_peer *peer, uint64_t now_us) {
    if (stream->tls != NULL || (peer != NULL ? !peer_is_valid(worker, peer) : !worker->server))
        return -EINVAL;
    if (worker->usage.sessions >= worker->max_sessions)
        return -ENOBUFS;
    worker->now_us = now_us;
    struct tls_session *session = tls_heap_take(&worker->heap, sizeof(*session));
    if (session == NULL)
        return -ENOBUFS;
    memset(session, 0, sizeof(*session));
    session->worker = worker;
    session->stream = stream;
    session->client = peer != NULL;
    session->phase = peer != NULL ? TLS_HELLO : TLS_HANDSHAKE;
    STAILQ_INIT(&session->waiting);
    worker->usage.sessions++;
    LIST_INSERT_HEAD(&worker->alive, session, alive);
    int code = peer != NULL ? prepare_client(session, peer) : make_ssl(session, 0);
    if (code != 0) {
        tls_session_free(session);
        return code;
    }
    stream->tls = session;
    if (peer != NULL)
        tls_session_take_turn(session);
    return 0;
}

void tls_session_free(struct tls_session *session) {
    struct tls_worker *worker = session->worker;
    if (session->takes_turn)
        TAILQ_REMOVE(&worker->turns, session, turn);
    if (session->leaves)
        TAILQ_REMOVE(&worker->leaving, session, leave);
    struct tls_block *block;
    while ((block = STAILQ_FIRST(&session->waiting)) != NULL) {
        STAILQ_REMOVE_HEAD(&session->waiting, next);
        tls_block_free(block);
    }
    if (session->out != NULL)
        tls_block_free(session->out);
    LIST_REMOVE(session, alive);
    wolfSSL_free(session->ssl);
    tls_heap_give(&worker->heap, session->ask);
    explicit_bzero(session, sizeof(*session));
    tls_heap_give(&worker->heap, session);
    worker->usage.sessions--;
}

void tls_session_enter(struct tls_session *session, enum tls_phase phase) {
    session->phase = phase;
    if (phase != TLS_HELLO && phase != TLS_HANDSHAKE) {
        if (session->takes_turn) {
            TAILQ_REMOVE(&session->worker->turns, session, turn);
            session->takes_turn = false;
        }
        tls_heap_give(&session->worker->heap, session->ask);
        session->ask = NULL;
    }
}

/* wolfSSL goes on with any certificate that it can use; whether it is good enough is tls_judge's word. Errors that are not about trust
 * stay errors. */
static bool error_is_about_trust(int error) {
    switch (error) {
    case 0:
    case ASN_NO_SIGNER_E:
    case ASN_SELF_SIGNED_E:
    case ASN_BEFORE_DATE_E:
    case ASN_AFTER_DATE_E:
    case ASN_SIG_CONFIRM_E:
    case ASN_SIG_HASH_E:
    case ASN_SIG_KEY_E:
    case ASN_SIG_OID_E:
    case ASN_PATHLEN_SIZE_E:
    case ASN_PATHLEN_INV_E:
    case ASN_NAME_INVALID_E:
    case ASN_CRIT_EXT_E:
    case EXTKEYUSE_AUTH_E:
    case KEYUSE_SIGNATURE_E:
        return true;
    default:
        return error > 0; /* the distribution's wolfSSL gives OpenSSL's numbers, and those only to errors of this kind */
    }
}

int tls_on_verify(int verified, WOLFSSL_X509_STORE_CTX *store) {
    struct tls_session *session = store->userCtx;
    struct tls_ask *ask = session->ask;
    (void)verified; /* against no roots at all */
    if (ask == NULL || !error_is_about_trust(store->error))
        return 0;
    uint32_t count = store->totalCerts > 0 ? (uint32_t)store->totalCerts : 0;
    if (!ask->looked && !tls_keys_are_bearable(store->certs, count)) {
        snprintf(ask->why, sizeof(ask->why), "a key in the server's chain of certificates is too costly, or cannot be read");
        return 0;
    }
    ask->looked = true;
    if (store->error_depth != 0)
        return 1;
    tls_judge(session->worker, ask, store->certs, count);
    return ask->level < PATH_TLS_VERIFY || ask->flaw == TLS_FAILURE_NONE;
}

static const char *alert_text(int code) {
    switch (code) {
    case 10:
        return "unexpected message";
    case 20:
        return "bad record MAC";
    case 40:
        return "handshake failure: no common cipher or parameter, or a certificate is wanted";
    case 42:
        return "bad certificate";
    case 43:
        return "unsupported certificate";
    case 45:
        return "certificate expired";
    case 46:
        return "certificate unknown";
    case 47:
        return "illegal parameter";
    case 48:
        return "unknown CA";
    case 49:
        return "access denied";
    case 50:
        return "decode error";
    case 51:
        return "decrypt error";
    case 70:
        return "protocol version";
    case 71:
        return "insufficient security";
    case 80:
        return "internal error";
    case 112:
        return "unrecognized name";
    case 116:
        return "certificate required";
    default:
        return "an alert";
    }
}

void tls_session_fail(struct tls_session *session, enum tls_failure failure, const char *why, uint64_t now_us) {
    char sentence[TLS_WHY_BYTES]; /* `why` may lie in what is freed now */
    struct stream *stream = session->stream;
    snprintf(sentence, sizeof(sentence), "%s", why);
    /* It may have failed because of the session that was offered, as where another host of another version answers now. */
    struct tls_entry *entry = session->offered ? tls_store_find(session->worker, session->key) : NULL;
    if (entry != NULL)
        tls_store_drop(session->worker, entry);
    tls_session_enter(session, TLS_FAILED);
    session->worker->usage.failed++;
    stream->events->insecure(stream, failure, sentence, now_us);
}

static void fail_by_error(struct tls_session *session, int error, uint64_t now_us) {
    char why[TLS_WHY_BYTES];
    WOLFSSL_ALERT_HISTORY alerts = {0};
    const struct tls_ask *ask = session->ask;
    if (ask != NULL && ask->judged && ask->level >= PATH_TLS_VERIFY && ask->flaw != TLS_FAILURE_NONE) {
        tls_session_fail(session, ask->flaw, ask->why, now_us);
        return;
    }
    if (error == MEMORY_E) {
        tls_session_fail(session, TLS_FAILURE_LOCAL, "out of memory", now_us);
        return;
    }
    if (ask != NULL && !ask->judged && ask->why[0] != '\0') {
        tls_session_fail(session, TLS_FAILURE_HANDSHAKE, ask->why, now_us);
        return;
    }
    wolfSSL_get_alert_history(session->ssl, &alerts);
    if (error == FATAL_ERROR && alerts.last_rx.code >= 0)
        snprintf(why, sizeof(why), "the TLS handshake failed: the peer's alert %d: %s", alerts.last_rx.code,
                 alert_text(alerts.last_rx.code));
    else
        snprintf(why, sizeof(why), "the TLS handshake failed: %s (%d)", wolfSSL_ERR_reason_error_string((unsigned long)error), error);
    tls_session_fail(session, TLS_FAILURE_HANDSHAKE, why, now_us);
}

static void finish(struct tls_session *session, uint64_t now_us) {
    struct tls_worker *worker = session->worker;
    struct stream *stream = session->stream;
    struct tls_ask *ask = session->ask;
    struct tls_state *state = &session->state;
    char why[TLS_WHY_BYTES] = "";
    state->version = wolfSSL_GetVersion(session->ssl) == WOLFSSL_TLSV1_3 ? 13 : 12;
    state->cipher = (uint16_t)wolfSSL_get_current_cipher_suite(session->ssl);
    state->resumed = wolfSSL_session_reused(session->ssl) == 1 && (ask == NULL || !ask->judged); /* a certificate that was shown rules */
    bool report = false;
    if (session->client) {
        if (!state->resumed) {
            session->made_us = now_us;
            state->verified = ask->judged && ask->flaw == TLS_FAILURE_NONE;
            state->flaw = ask->judged ? ask->flaw : TLS_FAILURE_NOT_TRUSTED;
        }
        if (ask->level >= PATH_TLS_VERIFY && !state->verified) { /* no certificate was shown, or a session taken up that may not be */
            tls_session_fail(session, TLS_FAILURE_NOT_TRUSTED, "the server showed no certificate", now_us);
            return;
        }
        report = ask->report && !state->verified && stream->events->tls_flaw != NULL;
        snprintf(why, sizeof(why), "%s", ask->judged ? ask->why : "the certificate was not good when this session began");
    }
    worker->usage.handshakes++;
    if (state->resumed)
        worker->usage.resumed++;
    tls_session_enter(session, TLS_OPEN);
    if (session->client && state->version == 12 && !state->resumed) /* a resumed one has nothing newer */
        tls_session_keep(session, now_us);
    if (report)
        stream->events->tls_flaw(stream, state->flaw, why, now_us);
    if (session->phase == TLS_OPEN)
        stream->events->secured(stream, now_us);
}

void tls_session_shake(struct tls_session *session, uint64_t now_us) {
    bool asked = session->ask != NULL && session->ask->judged;
    if (session->phase == TLS_HELLO)
        tls_session_enter(session, TLS_HANDSHAKE);
    int result = session->client ? wolfSSL_connect(session->ssl) : wolfSSL_accept(session->ssl);
    int error = result == WOLFSSL_SUCCESS ? 0 : wolfSSL_get_error(session->ssl, result);
    tls_clean_vectors();
    /* wolfSSL has put the server's own CAs into the context's manager; so it does where the leaf is none that could be judged. */
    if (session->client && ((session->ask != NULL && session->ask->judged && !asked) || (error != 0 && error != WOLFSSL_ERROR_WANT_READ)))
        wolfSSL_CertManagerUnloadCAs(wolfSSL_CTX_GetCertManager(wolfSSL_get_SSL_CTX(session->ssl)));
    tls_session_dispatch(session, now_us);
    if (error == WOLFSSL_ERROR_WANT_READ)
        return;
    if (error == 0)
        finish(session, now_us);
    else
        fail_by_error(session, error, now_us);
}
