/* event.c: the record of an attempt, for the events stream and the delivery log alike. */
#include "decide.h"

#include "control/fetch/entry.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

/* Numbers with dots between them, terminated. */
static void dotted(char *out, const uint16_t *numbers, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        out += text_digits(out, numbers[i]);
        *out++ = i + 1 < count ? '.' : '\0';
    }
}

static void address_member(struct text *text, const char *name, const uint8_t bytes[16], uint8_t family) {
    char address[INET6_ADDRSTRLEN];
    if (family == 4) {
        dotted(address, (const uint16_t[]){bytes[0], bytes[1], bytes[2], bytes[3]}, 4);
        text_member(text, name, address);
    } else if (family == 6 && inet_ntop(AF_INET6, bytes, address, sizeof address)) {
        text_member(text, name, address);
    }
}

static void response_write(struct text *text, const struct outcome *outcome) {
    text_open(text, "response");
    if (outcome->code) {
        text_member_number(text, "code", outcome->code);
    }
    if (outcome->enhanced[0]) {
        char enhanced[24];
        dotted(enhanced, outcome->enhanced, 3);
        text_member(text, "enhanced_code", enhanced);
    }
    text_member(text, "content", outcome->text);
    text_member(text, "stage", smtp_stage_text(outcome->stage));
    text_close(text);
}

static void times_write(struct text *text, const struct settle_item *item) {
    text_open(text, "times");
    text_member_time(text, "queued", item->cookie.first_queued_ms);
    text_member_time(text, "first_attempt", item->cookie.date_s * 1000);
    text_member_time(text, "connected", item->outcome.connected_us / 1000);
    text_member_time(text, "finished", item->outcome.finished_us / 1000);
    text_close(text);
}

/* Who it was for and from whom; nothing for a job that could not be looked up. */
static void job_write(struct text *text, const struct settle_item *item, const struct job *job) {
    const struct job_recipient *recipient = job_recipient(job, item->cookie.index);
    text_member(text, "recipient", recipient ? recipient->mailbox.email : NULL);
    text_member(text, "sender", job->envelope_sender ? job->envelope_sender : job->from.email);
    text_member(text, "campaign", job->campaign);
    text_member_json(text, "metadata", recipient && recipient->metadata ? recipient->metadata : job->metadata);
}

/* The names of what wolfSSL negotiates, as IANA registers them; the number of any other. */
static void cipher_write(struct text *text, uint16_t cipher) {
    static const struct {
        uint16_t number;
        const char *name;
    } names[] = {
        {0x1301, "TLS_AES_128_GCM_SHA256"},
        {0x1302, "TLS_AES_256_GCM_SHA384"},
        {0x1303, "TLS_CHACHA20_POLY1305_SHA256"},
        {0x1304, "TLS_AES_128_CCM_SHA256"},
        {0xc02b, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"},
        {0xc02c, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"},
        {0xc02f, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"},
        {0xc030, "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"},
        {0xcca8, "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"},
        {0xcca9, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"},
        {0x009e, "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256"},
        {0x009f, "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384"},
    };
    char number[8];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (names[i].number == cipher) {
            text_member(text, "tls_cipher", names[i].name);
            return;
        }
    }
    snprintf(number, sizeof number, "0x%04X", cipher);
    text_member(text, "tls_cipher", number);
}

/* Nothing for a session in the clear. */
static void tls_write(struct text *text, const struct outcome *outcome) {
    if (outcome->tls_version != 12 && outcome->tls_version != 13) {
        return;
    }
    text_member(text, "tls_version", outcome->tls_version == 12 ? "TLSv1.2" : "TLSv1.3");
    if (outcome->tls_cipher) {
        cipher_write(text, outcome->tls_cipher);
    }
    if (outcome->flags & REPLY_TLS_VERIFIED) {
        text_member_true(text, "tls_verified");
    }
    if (outcome->flags & REPLY_TLS_RESUMED) {
        text_member_true(text, "tls_resumed");
    }
}

void event_write(struct text *text, const struct settle_item *item, const struct job *job, const struct decision *decision,
                 const struct config *config) {
    const struct outcome *outcome = &item->outcome;
    char origin[ENTRY_ID_BYTES];
    text->length = 0;
    entry_id_write(item->cookie.origin, origin);
    text_open(text, NULL);
    text_member(text, "type", event_type_text(decision->event));
    text_member(text, "id", job ? job->id : NULL);
    text_member(text, "job", origin);
    text_member_number(text, "index", item->cookie.index);
    if (job) {
        job_write(text, item, job);
    }
    text_member(text, "queue", item->cookie.queue);
    text_member(text, "tenant", item->cookie.tenant);
    text_member(text, "site", item->site);
    text_member(text, "provider", item->provider);
    response_write(text, outcome);
    if (item->classification.class != CLASS_NONE) {
        text_member(text, "class", reply_class_text(item->classification.class));
    }
    text_member(text, "rule", item->classification.rule);
    text_member_number(text, "attempt", item->cookie.attempt + !item->classification.unattempted);
    text_member_time(text, "next_attempt", decision->action == ACTION_DEFERRED ? decision->next_attempt_ms : 0);
    if (decision->history.uncertain) {
        text_member_true(text, "uncertain");
    }
    if (decision->action == ACTION_HELD) {
        text_member_true(text, "held");
    }
    text_member(text, "peer_name", outcome->peer_name);
    address_member(text, "peer_address", outcome->peer_address, outcome->peer_family);
    address_member(text, "source_address", outcome->source_address, outcome->source_family);
    text_member(text, "pool", item->pool);
    tls_write(text, outcome);
    if (outcome->size_bytes) {
        text_member_number(text, "size", outcome->size_bytes);
    }
    times_write(text, item);
    text_member(text, "node", config->node);
    text_close(text);
}
