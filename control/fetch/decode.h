/* decode.h: what the parts of the decoder share. Private to fetch. Every function returns false after it has written the job's one error.
 */
#ifndef CONTROL_FETCH_DECODE_H
#define CONTROL_FETCH_DECODE_H

#include "control/config/config.h"
#include "control/job.h"
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PLACE_BYTES = 160,
    TEMPLATE_FAULT_BYTES = 512,
    QUOTE_BYTES = 80,
    JOB_DEPTH_MAX = 16,
    JOB_VALUES_MAX = 200000, /* JSON and MessagePack values in one job: bounds what a small text can cost in memory */
    ID_MAX = 128,
    CAMPAIGN_NAME_MAX = QUEUE_NAME_MAX,
    POOL_NAME_MAX = 63,
    SUBJECT_MAX = 4096,
    DISPLAY_NAME_MAX = 256,
    HEADERS_MAX = 100,
    HEADER_NAME_MAX = 76,
    HEADER_VALUE_MAX = 8192,
    ATTACHMENTS_MAX = 100,
    FILENAME_MAX_BYTES = 255,
    ATTACHMENT_ID_MAX = 255,
    TAGS_MAX = 50,
    TAG_MAX = 128,
    METADATA_MAX = 4096, /* it travels in every event */
    MERGE_DATA_MAX = 65536,
    LIST_UNSUBSCRIBE_MAX = 1000,
    LIST_UNSUBSCRIBE_URIS_MAX = 2, /* a link and an address */
    LIST_ID_MAX = 512,             /* words and identifier; RFC 2919 allows the latter 255 */
    FEEDBACK_ID_MAX = 255,
};

/* MessagePack's binary under `content` takes this name in the tree, which no JSON text can give it. */
#define CONTENT_BYTES_KEY                                                                                                                  \
    "\x01"                                                                                                                                 \
    "content"

struct decoder {
    const struct config *config;
    struct job *job;
    char *error;
    size_t error_bytes;
    bool is_msgpack;
    bool is_content; /* a shared content, not a job */
    bool has_raw, has_recipients, dedupe;
    uint64_t message_bytes; /* of text, html, raw and attachments as they will travel */
    struct mailbox *bcc;    /* until they become recipients */
    uint32_t bcc_count;
    json_t *recipients; /* borrowed: decoded when all other fields are known */
    /* Where recipients[] and its elements stand in the text: the readers of both formats note it. */
    size_t recipients_at;
    uint32_t range_count; /* elements seen; ranges of the first JOB_RECIPIENTS_MAX are kept */
    struct text_range {
        uint32_t at, end;
    } ranges[JOB_RECIPIENTS_MAX];
};

/* Writes "PLACE: sentence" and returns false. A place of "" leaves the prefix away. */
/* The whole sentence where it is not the job's fault. */
#define DECODE_STARVED "Out of memory."
bool decode_fail(struct decoder *decoder, const char *place, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* A value for an error's text: shortened, without control characters or broken UTF-8. */
const char *decode_quote(const char *bytes, size_t length, char out[QUOTE_BYTES]);
/* "a string", "an object", ... */
const char *decode_kind(const json_t *value);
/* The nearest of names[count] to what was written, or NULL when none is near. */
const char *decode_nearest(const char *written, const char *const *names, size_t count);
/* "place[index]", "place.name" */
void place_index(char out[PLACE_BYTES], const char *place, size_t index);
void place_member(char out[PLACE_BYTES], const char *place, const char *member);

/* A string of at most `maximum` bytes without control characters (they would end or forge a header); *out is malloc'd. */
bool decode_line(struct decoder *decoder, const char *place, const json_t *value, size_t minimum, size_t maximum, char **out);

/* decode_tree.c: bytes -> tree, or NULL. Duplicate keys, bad UTF-8, NUL, depth and size are refused here. */
json_t *decode_tree(struct decoder *decoder, const uint8_t *bytes, size_t length);
/* decode_json.c: the same for JSON. */
json_t *decode_json(struct decoder *decoder, const uint8_t *bytes, size_t length);

/* An element of recipients[] has been read: text[at..end). */
void decode_range(struct decoder *decoder, size_t at, size_t end);

/* decode_address.c: RFC 5321 4.1.2 with RFC 6531: local@domain. NULL, or what is wrong with it, to stand behind the quoted address.
 * *domain_at: where the domain begins. */
const char *address_fault(const char *address, size_t length, size_t *domain_at);
/* A string `a@b` or `Name <a@b>`, or an object {email, name}. */
bool decode_mailbox(struct decoder *decoder, const char *place, const json_t *value, struct mailbox *out);
/* One of those or an array of them. */
bool decode_mailboxes(struct decoder *decoder, const char *place, const json_t *value, struct mailbox **out, uint32_t *count);
/* A bare address, or "" or "<>" for the null sender. */
bool decode_envelope_sender(struct decoder *decoder, const char *place, const json_t *value);

/* decode_content.c */
bool decode_attachments(struct decoder *decoder, const char *place, const json_t *value);
/* An object of name -> string or array of strings. `sender` may be NULL: then Sender is refused too. */
bool decode_headers(struct decoder *decoder, const char *place, const json_t *value, struct job_header **out, uint32_t *count,
                    struct mailbox *sender);
/* One URI, or an array of two of different schemes. */
bool decode_list_unsubscribe(struct decoder *decoder, const char *place, const json_t *value);
bool decode_list_id(struct decoder *decoder, const char *place, const json_t *value);
bool decode_feedback_id(struct decoder *decoder, const char *place, const json_t *value);
bool decode_precedence(struct decoder *decoder, const char *place, const json_t *value);
/* bulk.c: notes whether its own members name variables of ours. */
void bulk_note_built_ins(struct job *job);
/* Text of a body: anything but NUL. */
bool decode_body(struct decoder *decoder, const char *place, const json_t *value, char **out);
bool decode_raw(struct decoder *decoder, const char *place, const json_t *value);

/* decode_dsn.c: true, a word, an array of words, or {notify, return}. */
bool decode_dsn(struct decoder *decoder, const char *place, const json_t *value);

/* decode_time.c: RFC 3339, or Unix seconds. */
bool decode_time(struct decoder *decoder, const char *place, const json_t *value, uint64_t *out_ms);

#endif
