/* outcome.h: the record that ends a recipient's attempt, and the cookie by which a slot is settled with no other memory. */
#ifndef CONTROL_OUTCOME_H
#define CONTROL_OUTCOME_H

#include "control/job.h"
#include <assert.h>
#include <bypost/slot.h>
#include <stdbool.h>
#include <stdint.h>

/* What lies in struct slot's cookie. */
struct settle_cookie {
    uint16_t shard;         /* of the queue (redis.shards) */
    uint16_t attempt;       /* attempts made before this one */
    uint32_t index, total;  /* recipient in its job, and how many the job has */
    uint32_t entry_pending; /* recipients of this entry: it is done when so many bits are set */
    struct entry_id entry, origin;
    uint64_t first_queued_ms, date_s;
    uint8_t uncertain_before;
    uint8_t is_retry; /* the entry is in stream retry:QUEUE */
    uint8_t reserved[6];
    char queue[QUEUE_NAME_MAX + 1];
    char tenant[TENANT_NAME_MAX + 1];
};
static_assert(sizeof(struct settle_cookie) <= SLOT_COOKIE_BYTES, "the cookie fits its slot");

enum event_type {
    EVENT_ACCEPTED,
    EVENT_DELIVERED,
    EVENT_DEFERRED,
    EVENT_BOUNCED,
    EVENT_EXPIRED,
    EVENT_SUPPRESSED,
    EVENT_CANCELLED,
    EVENT_DEAD,
    EVENT_TYPES
};
const char *event_type_text(enum event_type type); /* control/settle */

/* SMTP.md section 6. */
enum reply_class {
    CLASS_NONE, /* delivered */
    CLASS_INVALID_RECIPIENT,
    CLASS_BAD_DOMAIN,
    CLASS_INACTIVE_MAILBOX,
    CLASS_QUOTA,
    CLASS_GREYLISTED,
    CLASS_RATE_LIMITED,
    CLASS_IP_REPUTATION,
    CLASS_AUTH_FAILED,
    CLASS_PTR_MISSING,
    CLASS_TLS_REQUIRED,
    CLASS_TOO_MANY_RECIPIENTS,
    CLASS_TOO_MANY_MESSAGES,
    CLASS_SPAM_CONTENT,
    CLASS_POLICY,
    CLASS_VIRUS,
    CLASS_ATTACHMENT,
    CLASS_MESSAGE_TOO_LARGE,
    CLASS_CONTENT_FORMAT,
    CLASS_SENDER_INVALID,
    CLASS_RELAY_DENIED,
    CLASS_PROTOCOL_ERROR,
    CLASS_NO_ANSWER,
    CLASS_CONNECTION_FAILED,
    CLASS_DNS_FAILURE,
    CLASS_SYSTEM_ERROR,
    CLASS_EXPIRED,
    CLASS_SUPPRESSED,
    CLASS_CANCELLED,
    CLASS_UNCATEGORIZED,
    CLASS_KINDS
};
const char *reply_class_text(enum reply_class class); /* control/classify */

enum class_scope {
    SCOPE_RECIPIENT,
    SCOPE_DOMAIN,
    SCOPE_HOST,
    SCOPE_SOURCE_AT_PROVIDER,
    SCOPE_SENDER_AT_PROVIDER,
    SCOPE_CAMPAIGN,
    SCOPE_MESSAGE,
    SCOPE_PATH
};

/* One attempt's end, wherever it came from: a slot, or a decision before any slot (no MX, bad render, expired). Text is copied in. */
struct outcome {
    enum slot_outcome kind;
    enum smtp_stage stage;
    uint16_t code;
    uint16_t enhanced[3];
    char text[SLOT_TEXT_BYTES + 1]; /* UTF-8 safe, no control characters */
    uint8_t peer_address[16];
    uint8_t peer_family;
    uint8_t source_address[16];
    uint8_t source_family;
    uint8_t tls_version;
    uint8_t flags; /* REPLY_* of the slot: DSN passed on, TLS verified, resumed */
    uint16_t tls_cipher;
    uint32_t size_bytes;
    uint64_t connected_us, finished_us; /* CLOCK_REALTIME, or 0 */
    char peer_name[256];                /* the endpoint's host name, or "" */
};

/* What becomes of the recipient. */
enum verdict {
    VERDICT_DELIVERED,
    VERDICT_DEFERRED,
    VERDICT_BOUNCED,
    VERDICT_RETURNED /* costs no attempt: goes back at once */,
    VERDICT_HELD,  /* waits for a hold's end, or for a decision */
    VERDICT_PARKED /* its site's window is full: waits in Redis; costs no attempt */
};

struct classification {
    enum reply_class class;
    enum verdict verdict; /* DELIVERED, DEFERRED or BOUNCED by the reply alone; settle turns DEFERRED into expired where its time is up */
    enum class_scope scope;
    uint32_t retry_after_s; /* 0: by the queue's schedule; greylisted: 360 */
    bool suppress;
    bool unattempted; /* its site rests: deferred, seen in events, but no attempt (QUEUE.md, parking) */
    const char *rule; /* name of the text rule that decided, or NULL */
};

#endif
