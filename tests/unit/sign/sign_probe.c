/* sign_probe.c: what a signer's steps cost on this machine, in microseconds of one thread: sign_probe DIRECTORY [SECONDS a step]. The
 * directory gets keys. */
#include "control/sign/signer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { HTML_BYTES = 60000, TEXT_BYTES = 4000, LINE = 72, BURST = 8, SLOTS = 12 };

static double seconds_a_step = 1;

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void die(const char *what, const char *why) {
    fprintf(stderr, "sign_probe: %s: %s\n", what, why);
    exit(1);
}

static struct dkim_keys *make_keys(const char *directory, const char *name, enum dkim_algorithm algorithm, uint32_t bits) {
    char path[512], error[512], *record = NULL;
    snprintf(path, sizeof(path), "%s/%s.pem", directory, name);
    if (dkim_keygen(path, algorithm, bits, &record, error, sizeof(error)) < 0 && strstr(error, "exists") == NULL)
        die("keygen", error);
    free(record);
    struct config_dkim_key key = {.domain = "example.org", .selector = "probe", .key_file = path};
    struct config config = {.dkim = &key, .dkim_count = 1};
    struct dkim_keys *keys = dkim_keys_load(&config, NULL, NULL, error, sizeof(error));
    if (keys == NULL)
        die("keys", error);
    return keys;
}

static const char header[] = "Date: Sun, 22 Nov 2026 09:46:59 +0000\r\n"
                             "From: News of the Day <news@example.org>\r\n"
                             "To: Bob Builder <bob.builder@example.net>\r\n"
                             "Subject: Twelve things that you did not know about the sea\r\n"
                             "Message-ID: <0123456789abcdef0123456789abcdef@example.org>\r\n"
                             "List-Unsubscribe: <https://example.org/u/0123456789abcdef0123456789abcdef0123456789abcdef>\r\n"
                             "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
                             "List-Id: <news.example.org>\r\n"
                             "Feedback-ID: c1:acme:news:example\r\n"
                             "Precedence: bulk\r\n"
                             "MIME-Version: 1.0\r\n"
                             "Content-Type: text/html; charset=utf-8\r\n"
                             "Content-Transfer-Encoding: quoted-printable\r\n\r\n";

/* Lines of prose with words of four letters; a page of HTML without double blanks. */
static void fill(uint8_t *text, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) {
        size_t column = i % LINE;
        text[i] = column == LINE - 2 ? '\r' : column == LINE - 1 ? '\n' : column % 5 == 4 && column < LINE - 4 ? ' ' : 'a';
    }
}

/* A body of its own, or of shared lines with `slots` lines of its own between them, the first at a third. */
static void make_message(struct message *message, struct shared_bytes *shared, size_t bytes, unsigned slots) {
    static uint8_t body[HTML_BYTES];
    size_t header_length = sizeof(header) - 1, own = slots == 0 ? bytes : (size_t)slots * LINE;
    bytes -= bytes % LINE;
    fill(body, bytes);
    message_init(message);
    message->start = MESSAGE_HEADROOM_BYTES;
    message->capacity = message->start + header_length + own;
    message->bytes = malloc(message->capacity);
    memcpy(message->bytes + message->start, header, header_length);
    message->header_length = header_length;
    strcpy(message->from_domain, "example.org");
    if (slots == 0) {
        memcpy(message->bytes + message->start + header_length, body, bytes);
        message->own_length = message->length = header_length + bytes;
        return;
    }
    *shared = (struct shared_bytes){.id = 7, .bytes = body, .length = (uint32_t)bytes, .relaxed = body};
    fill(message->bytes + message->start + header_length, own);
    message->shared = shared;
    message->pieces = calloc(2 * slots + 1, sizeof(*message->pieces));
    message->piece_capacity = 2 * slots + 1;
    size_t part = bytes / 3 / LINE * LINE, at = 0;
    for (unsigned i = 0; i <= slots; i++) {
        size_t length = i == slots ? bytes - at : i == 0 ? part : part * 2 / slots / LINE * LINE;
        message->pieces[message->piece_count++] = (struct message_piece){.shared = true,
                                                                         .offset = (uint32_t)at,
                                                                         .length = (uint32_t)length,
                                                                         .relaxed_offset = (uint32_t)at,
                                                                         .relaxed_length = (uint32_t)length};
        at += length;
        if (i < slots)
            message->pieces[message->piece_count++] = (struct message_piece){.offset = i * LINE, .length = LINE};
    }
    message->own_length = header_length + own;
    message->length = header_length + own + bytes;
}

/* Begins and flushes bursts; what only the signatures take is known from the bursts without. */
static void step_messages(const char *what, struct dkim_keys *keys, size_t bytes, unsigned slots, bool alone) {
    struct dkim_signer *signer = dkim_signer_create(keys);
    struct message messages[BURST];
    struct shared_bytes shared = {0};
    uint64_t rounds = 0;
    double begun_s = 0, flushed_s = 0, quickest_s = 1;
    for (int i = 0; i < BURST; i++)
        make_message(&messages[i], &shared, bytes, slots);
    for (double from = now_s(); now_s() - from < seconds_a_step; rounds++) {
        size_t start = messages[0].start;
        double at = now_s();
        for (int i = 0; i < (alone ? 1 : BURST); i++)
            if (dkim_begin(signer, &messages[i], NULL, 1700000000, NULL) != 1)
                die(what, "did not begin");
        begun_s += now_s() - at;
        at = now_s();
        dkim_flush(signer, true);
        at = now_s() - at;
        flushed_s += at;
        quickest_s = at < quickest_s ? at : quickest_s;
        void *user;
        int status;
        while (dkim_next(signer, &user, &status))
            if (status != 0)
                die(what, "failed");
        for (int i = 0; i < (alone ? 1 : BURST); i++) { /* as it was */
            size_t added = start - messages[i].start;
            messages[i].start += added;
            messages[i].length -= added;
            messages[i].own_length -= added;
            messages[i].header_length -= added;
        }
    }
    struct dkim_counters counters = {0};
    dkim_signer_counters(signer, &counters);
    double count = (double)rounds * (alone ? 1 : BURST);
    printf("%-52s %8.2f us begun, %8.2f us flushed (a flush %.0f us at best); %.0f of %.0f body bytes hashed\n", what,
           begun_s / count * 1e6, flushed_s / count * 1e6, quickest_s * 1e6, (double)counters.body_bytes_hashed / count,
           (double)counters.body_bytes / count);
    for (int i = 0; i < BURST; i++)
        message_free(&messages[i]);
    dkim_signer_free(signer);
}

static void step_ed25519(struct dkim_keys *keys) {
    uint8_t digest[SIGNER_DIGEST_BYTES] = {1}, signature[ED25519_SIG_SIZE];
    ed25519_key *key = &keys->keys[0].decoded->ed25519;
    uint64_t rounds = 0;
    double from = now_s(), to;
    for (; (to = now_s()) - from < seconds_a_step; rounds++) {
        word32 length = sizeof(signature);
        wc_ed25519_sign_msg(digest, sizeof(digest), signature, &length, key);
    }
    printf("%-52s %8.2f us\n", "ed25519, signature", (to - from) / (double)rounds * 1e6);
    from = now_s();
    for (rounds = 0; (to = now_s()) - from < seconds_a_step; rounds++) {
        int good = 0;
        wc_ed25519_verify_msg(signature, sizeof(signature), digest, sizeof(digest), &good, key);
        if (good != 1)
            die("ed25519", "does not verify");
    }
    printf("%-52s %8.2f us\n", "ed25519, verification", (to - from) / (double)rounds * 1e6);
}

static void step_rsa_alone(struct dkim_keys *keys) {
    struct dkim_signer *signer = dkim_signer_create(keys);
    dkim_signer_force(signer, false, LANES_PLAIN);
    struct message message;
    make_message(&message, NULL, TEXT_BYTES, 0);
    uint64_t rounds = 0;
    double from = now_s(), to, before = from, quickest_s = 1;
    for (size_t start = message.start; (to = now_s()) - from < seconds_a_step; rounds++) {
        quickest_s = rounds > 0 && to - before < quickest_s ? to - before : quickest_s;
        before = to;
        if (dkim_sign(signer, &message, NULL, 1700000000) != 1)
            die("rsa", "failed");
        size_t added = start - message.start;
        message.start += added;
        message.length -= added;
        message.own_length -= added;
        message.header_length -= added;
    }
    printf("%-52s %8.2f us (%.0f us at best)\n", "rsa-2048 by wolfCrypt, a 4 KB message in all", (to - from) / (double)rounds * 1e6,
           quickest_s * 1e6);
    message_free(&message);
    dkim_signer_free(signer);
}

int main(int argc, char **argv) {
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: sign_probe DIRECTORY [SECONDS]\n");
        return 2;
    }
    if (argc == 3)
        seconds_a_step = strtod(argv[2], NULL);
    struct dkim_keys *rsa = make_keys(argv[1], "rsa", DKIM_RSA, 2048), *ed25519 = make_keys(argv[1], "ed25519", DKIM_ED25519, 0);
    printf("eight lanes: %s\n", lanes_can(LANES_IFMA) ? "yes" : "no");
    step_ed25519(ed25519);
    step_rsa_alone(rsa);
    step_messages("rsa-2048, 4 KB, one alone", rsa, TEXT_BYTES, 0, true);
    step_messages("rsa-2048, 4 KB, eight together", rsa, TEXT_BYTES, 0, false);
    step_messages("rsa-2048, 60 KB of its own, eight together", rsa, HTML_BYTES, 0, false);
    step_messages("rsa-2048, 60 KB shared with 12 slots, eight together", rsa, HTML_BYTES, SLOTS, false);
    step_messages("ed25519, 4 KB", ed25519, TEXT_BYTES, 0, false);
    dkim_keys_free(rsa);
    dkim_keys_free(ed25519);
    return 0;
}
