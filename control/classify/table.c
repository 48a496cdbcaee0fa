/* table.c: classes, and the codes that stand for them. */
#include "table.h"

#include <string.h>

static const struct class_row rows[CLASS_KINDS] = {
    [CLASS_NONE] = {"none", SCOPE_RECIPIENT, ENDING_BY_CODE, false, 0},
    [CLASS_INVALID_RECIPIENT] = {"invalid_recipient", SCOPE_RECIPIENT, ENDING_BY_CODE, true, 0},
    [CLASS_BAD_DOMAIN] = {"bad_domain", SCOPE_DOMAIN, ENDING_BY_CODE, false, 0},
    [CLASS_INACTIVE_MAILBOX] = {"inactive_mailbox", SCOPE_RECIPIENT, ENDING_BY_CODE, false, 0},
    [CLASS_QUOTA] = {"quota", SCOPE_RECIPIENT, ENDING_NEVER, false, 0},
    [CLASS_GREYLISTED] = {"greylisted", SCOPE_RECIPIENT, ENDING_NEVER, false, 360},
    [CLASS_RATE_LIMITED] = {"rate_limited", SCOPE_SOURCE_AT_PROVIDER, ENDING_SENDER, false, 0},
    [CLASS_IP_REPUTATION] = {"ip_reputation", SCOPE_SOURCE_AT_PROVIDER, ENDING_SENDER, false, 0},
    [CLASS_AUTH_FAILED] = {"auth_failed", SCOPE_SENDER_AT_PROVIDER, ENDING_SENDER, false, 0},
    [CLASS_PTR_MISSING] = {"ptr_missing", SCOPE_SENDER_AT_PROVIDER, ENDING_SENDER, false, 0},
    [CLASS_TLS_REQUIRED] = {"tls_required", SCOPE_PATH, ENDING_NEVER, false, 0},
    [CLASS_TOO_MANY_RECIPIENTS] = {"too_many_recipients", SCOPE_PATH, ENDING_NEVER, false, 0},
    [CLASS_TOO_MANY_MESSAGES] = {"too_many_messages", SCOPE_PATH, ENDING_NEVER, false, 0},
    [CLASS_SPAM_CONTENT] = {"spam_content", SCOPE_CAMPAIGN, ENDING_BY_CODE, false, 0},
    [CLASS_POLICY] = {"policy", SCOPE_CAMPAIGN, ENDING_BY_CODE, false, 0},
    [CLASS_VIRUS] = {"virus", SCOPE_CAMPAIGN, ENDING_BY_CODE, false, 0},
    [CLASS_ATTACHMENT] = {"attachment", SCOPE_CAMPAIGN, ENDING_BY_CODE, false, 0},
    [CLASS_MESSAGE_TOO_LARGE] = {"message_too_large", SCOPE_MESSAGE, ENDING_BY_CODE, false, 0},
    [CLASS_CONTENT_FORMAT] = {"content_format", SCOPE_MESSAGE, ENDING_BY_CODE, false, 0},
    [CLASS_SENDER_INVALID] = {"sender_invalid", SCOPE_MESSAGE, ENDING_BY_CODE, false, 0},
    [CLASS_RELAY_DENIED] = {"relay_denied", SCOPE_MESSAGE, ENDING_BY_CODE, false, 0},
    [CLASS_PROTOCOL_ERROR] = {"protocol_error", SCOPE_MESSAGE, ENDING_BY_CODE, false, 0},
    [CLASS_NO_ANSWER] = {"no_answer", SCOPE_HOST, ENDING_NEVER, false, 0},
    [CLASS_CONNECTION_FAILED] = {"connection_failed", SCOPE_HOST, ENDING_NEVER, false, 0},
    [CLASS_DNS_FAILURE] = {"dns_failure", SCOPE_HOST, ENDING_NEVER, false, 0},
    [CLASS_SYSTEM_ERROR] = {"system_error", SCOPE_HOST, ENDING_NEVER, false, 0},
    [CLASS_EXPIRED] = {"expired", SCOPE_RECIPIENT, ENDING_BY_CODE, false, 0},
    [CLASS_SUPPRESSED] = {"suppressed", SCOPE_RECIPIENT, ENDING_BY_CODE, false, 0},
    [CLASS_CANCELLED] = {"cancelled", SCOPE_CAMPAIGN, ENDING_BY_CODE, false, 0},
    [CLASS_UNCATEGORIZED] = {"uncategorized", SCOPE_RECIPIENT, ENDING_BY_CODE, false, 0},
};

const struct class_row *class_row(enum reply_class class) {
    return &rows[(unsigned)class < CLASS_KINDS ? class : CLASS_UNCATEGORIZED];
}

bool class_named(const char *text, enum reply_class *class) {
    for (int i = CLASS_NONE + 1; i < CLASS_KINDS; i++) {
        if (i == CLASS_EXPIRED || i == CLASS_SUPPRESSED || i == CLASS_CANCELLED || strcmp(rows[i].text, text) != 0)
            continue;
        *class = (enum reply_class)i;
        return true;
    }
    return false;
}

/* One enhanced status code: class for 4.y.z and for 5.y.z (RFC 3463; the registry of RFC 5248). */
struct enhanced_row {
    uint16_t subject, detail;
    enum reply_class temporary, permanent;
};

static const struct enhanced_row enhanced_rows[] = {
    {1, 0, CLASS_UNCATEGORIZED, CLASS_UNCATEGORIZED}, /* "other address status": as often of the sender */
    {1, 1, CLASS_INVALID_RECIPIENT, CLASS_INVALID_RECIPIENT},
    {1, 2, CLASS_DNS_FAILURE, CLASS_BAD_DOMAIN},
    {1, 3, CLASS_INVALID_RECIPIENT, CLASS_INVALID_RECIPIENT},
    {1, 4, CLASS_INVALID_RECIPIENT, CLASS_INVALID_RECIPIENT},
    {1, 6, CLASS_INVALID_RECIPIENT, CLASS_INVALID_RECIPIENT},
    {1, 7, CLASS_SENDER_INVALID, CLASS_SENDER_INVALID},
    {1, 8, CLASS_SENDER_INVALID, CLASS_SENDER_INVALID},
    {1, 9, CLASS_SENDER_INVALID, CLASS_SENDER_INVALID},
    {1, 10, CLASS_BAD_DOMAIN, CLASS_BAD_DOMAIN},         /* null MX: RFC 7505 4.1 */
    {2, 1, CLASS_INACTIVE_MAILBOX, CLASS_UNCATEGORIZED}, /* 5.2.1 can mean a receiving rate: only a text says more */
    {2, 2, CLASS_QUOTA, CLASS_QUOTA},
    {2, 3, CLASS_MESSAGE_TOO_LARGE, CLASS_MESSAGE_TOO_LARGE},
    {3, 0, CLASS_SYSTEM_ERROR, CLASS_UNCATEGORIZED},
    {3, 1, CLASS_SYSTEM_ERROR, CLASS_SYSTEM_ERROR},
    {3, 2, CLASS_SYSTEM_ERROR, CLASS_SYSTEM_ERROR},
    {3, 3, CLASS_PROTOCOL_ERROR, CLASS_PROTOCOL_ERROR},
    {3, 4, CLASS_MESSAGE_TOO_LARGE, CLASS_MESSAGE_TOO_LARGE},
    {3, 5, CLASS_SYSTEM_ERROR, CLASS_UNCATEGORIZED},
    {4, 0, CLASS_CONNECTION_FAILED, CLASS_UNCATEGORIZED},
    {4, 1, CLASS_NO_ANSWER, CLASS_UNCATEGORIZED},
    {4, 2, CLASS_CONNECTION_FAILED, CLASS_UNCATEGORIZED},
    {4, 3, CLASS_DNS_FAILURE, CLASS_DNS_FAILURE},
    {4, 4, CLASS_DNS_FAILURE, CLASS_BAD_DOMAIN},
    {4, 5, CLASS_SYSTEM_ERROR, CLASS_RATE_LIMITED},
    {4, 6, CLASS_PROTOCOL_ERROR, CLASS_PROTOCOL_ERROR}, /* a loop */
    {4, 7, CLASS_SYSTEM_ERROR, CLASS_UNCATEGORIZED},
    {5, 0, CLASS_PROTOCOL_ERROR, CLASS_PROTOCOL_ERROR},
    {5, 1, CLASS_PROTOCOL_ERROR, CLASS_PROTOCOL_ERROR},
    {5, 2, CLASS_PROTOCOL_ERROR, CLASS_PROTOCOL_ERROR},
    {5, 3, CLASS_TOO_MANY_RECIPIENTS, CLASS_TOO_MANY_RECIPIENTS},
    {5, 4, CLASS_PROTOCOL_ERROR, CLASS_PROTOCOL_ERROR},
    {5, 5, CLASS_PROTOCOL_ERROR, CLASS_PROTOCOL_ERROR},
    {5, 6, CLASS_PROTOCOL_ERROR, CLASS_PROTOCOL_ERROR},
    {7, 0, CLASS_POLICY, CLASS_POLICY},
    {7, 1, CLASS_POLICY, CLASS_POLICY},
    {7, 2, CLASS_POLICY, CLASS_POLICY},
    {7, 7, CLASS_CONTENT_FORMAT, CLASS_CONTENT_FORMAT},
    {7, 8, CLASS_AUTH_FAILED, CLASS_AUTH_FAILED}, /* RFC 4954 6: this side's login, at whatever stage it is said */
    {7, 9, CLASS_AUTH_FAILED, CLASS_AUTH_FAILED},
    {7, 10, CLASS_TLS_REQUIRED, CLASS_TLS_REQUIRED},
    {7, 11, CLASS_TLS_REQUIRED, CLASS_TLS_REQUIRED},
    {7, 13, CLASS_INACTIVE_MAILBOX, CLASS_INACTIVE_MAILBOX},   /* RFC 5248's registry: user account disabled */
    {7, 17, CLASS_INVALID_RECIPIENT, CLASS_INVALID_RECIPIENT}, /* RFC 7293 14.1: the mailbox has another owner */
    {7, 18, CLASS_BAD_DOMAIN, CLASS_BAD_DOMAIN},
    {7, 20, CLASS_AUTH_FAILED, CLASS_AUTH_FAILED}, /* RFC 7372 3.1 to 3.4 */
    {7, 21, CLASS_AUTH_FAILED, CLASS_AUTH_FAILED},
    {7, 22, CLASS_AUTH_FAILED, CLASS_AUTH_FAILED},
    {7, 23, CLASS_AUTH_FAILED, CLASS_AUTH_FAILED},
    {7, 24, CLASS_AUTH_FAILED, CLASS_AUTH_FAILED},
    {7, 25, CLASS_PTR_MISSING, CLASS_PTR_MISSING},
    {7, 26, CLASS_AUTH_FAILED, CLASS_AUTH_FAILED},
    {7, 27, CLASS_SENDER_INVALID, CLASS_SENDER_INVALID}, /* RFC 7505 4.2: the sender's domain takes no mail */
    {7, 28, CLASS_RATE_LIMITED, CLASS_RATE_LIMITED},     /* RFC 5248's registry: mail flood */
    {7, 29, CLASS_AUTH_FAILED, CLASS_AUTH_FAILED},       /* RFC 8617: ARC */
    {7, 30, CLASS_TLS_REQUIRED, CLASS_TLS_REQUIRED},     /* RFC 8689 */
    {7, 515, CLASS_AUTH_FAILED, CLASS_AUTH_FAILED},      /* Microsoft: what it demands of bulk senders */
};

static enum reply_class class_of_enhanced(const uint16_t *enhanced, enum smtp_stage stage) {
    /* 6: what is wrong with the message's form, whatever the detail. */
    if (enhanced[1] == 6)
        return CLASS_CONTENT_FORMAT;
    /* An answer to MAIL speaks of the sender. */
    if (stage == STAGE_MAIL && enhanced[1] == 1)
        return CLASS_SENDER_INVALID;
    for (size_t i = 0; i < sizeof(enhanced_rows) / sizeof(enhanced_rows[0]); i++)
        if (enhanced_rows[i].subject == enhanced[1] && enhanced_rows[i].detail == enhanced[2])
            return enhanced[0] == 4 ? enhanced_rows[i].temporary : enhanced_rows[i].permanent;
    return enhanced[1] == 7 ? CLASS_POLICY : CLASS_NONE;
}

static enum reply_class class_of_code(uint16_t code, enum smtp_stage stage) {
    switch (code) {
    case 421: /* RFC 5321 3.8: the service closes */
    case 451:
        return CLASS_SYSTEM_ERROR;
    case 452:
        return stage == STAGE_RCPT ? CLASS_TOO_MANY_RECIPIENTS : CLASS_SYSTEM_ERROR; /* RFC 5321 4.5.3.1.10 */
    case 455:
    case 500:
    case 501:
    case 502:
    case 503:
    case 504:
    case 555:
        return CLASS_PROTOCOL_ERROR;
    case 521: /* RFC 7504 */
    case 556:
        return CLASS_BAD_DOMAIN;
    case 530:
        return CLASS_RELAY_DENIED;
    case 534: /* RFC 4954 6 */
    case 535:
    case 538:
        return CLASS_AUTH_FAILED;
    case 551: /* "user not local" */
        return CLASS_INVALID_RECIPIENT;
    case 552:
        return stage == STAGE_RCPT ? CLASS_QUOTA : CLASS_MESSAGE_TOO_LARGE;
    case 553:
        return stage == STAGE_MAIL ? CLASS_SENDER_INVALID : CLASS_UNCATEGORIZED;
    case 571:
        return CLASS_POLICY;
    default:
        return CLASS_UNCATEGORIZED;
    }
}

enum reply_class class_of_codes(uint16_t code, const uint16_t *enhanced, enum smtp_stage stage) {
    enum reply_class class = enhanced[0] == 0 ? CLASS_NONE : class_of_enhanced(enhanced, stage);
    return class != CLASS_NONE ? class : class_of_code(code, stage);
}
