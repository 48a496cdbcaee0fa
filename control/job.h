/* job.h: the record that fetch hands on: one decoded entry of a queue, checked. Shared by all its deliveries and freed with the last. */
#ifndef CONTROL_JOB_H
#define CONTROL_JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    QUEUE_NAME_MAX = 47, /* bytes; fits the settle cookie */
    TENANT_NAME_MAX = 31,
    JOB_RECIPIENTS_MAX = 500,
    CONTENT_ID_MAX = 63,
};

/* The ID of a stream entry. */
struct entry_id {
    uint64_t ms, seq;
};

struct mailbox {
    char *email;        /* local@domain, checked (RFC 5321 4.1.2), domain lower case; U-labels kept for display */
    char *name;         /* UTF-8 display name, or NULL */
    const char *domain; /* inside email, behind the @ */
};

struct job_header {
    char *name, *value; /* checked: no CR, LF or NUL; name is a legal field name and none of those that bypost owns */
};

struct job_attachment {
    char *filename, *content_type, *content_id; /* content_id for inline images, or NULL */
    uint8_t *bytes;
    size_t length;
    bool is_inline;
};

enum recipient_kind { RECIPIENT_TO, RECIPIENT_CC, RECIPIENT_BCC, RECIPIENT_PRIVATE };

/* One envelope recipient: an outcome each. */
struct job_recipient {
    struct mailbox mailbox;
    enum recipient_kind kind;
    char *metadata;                /* JSON text, or NULL */
    char *merge_data;              /* JSON text, or NULL */
    uint32_t text_at, text_length; /* of recipients[]: where it stands in the job's text; 0, 0: not one of those */
    uint32_t header_count;
    struct job_header *headers; /* private headers of recipients[] */
};

/* Whence an entry came and how often it was tried. A retry entry carries these; a fresh one starts them. */
struct job_history {
    struct entry_id origin;   /* the first entry of this job: its identity when it has no `id` */
    uint16_t attempt;         /* 0 for a fresh one: attempts made so far */
    uint64_t first_queued_ms; /* CLOCK_REALTIME of the first entry, or its send_at when that is later: give-up counts from here */
    uint64_t date_s;          /* fixed at the first render; 0: none yet */
    bool uncertain;           /* an earlier attempt ended without a verdict after its whole body was sent */
    bool notified;            /* a notice of delay has been sent */
    bool content_counted;     /* the submit Function counted its recipients for their content */
    bool depth_counted;       /* and in the depth of the queue */
};

struct job;

/* What jobs and rendering threads see of a shared content (control/content). Immutable but for `references`, which belongs to the shard's
 * thread. */
struct content {
    uint32_t references;
    const struct job *fields;               /* decoded, without recipients: its own */
    const struct render_prepared *prepared; /* control/render: what all its messages have in common; or NULL */
    void (*unreferenced)(struct content *content);
};
/* One reference of a job to a content: dropped with the job (control/fetch/job.c). */
void content_release(struct content *content);

enum job_choice { CHOICE_NONE, CHOICE_NO, CHOICE_YES }; /* none: as the configuration has it */
enum job_precedence { PRECEDENCE_UNSET, PRECEDENCE_NONE, PRECEDENCE_BULK, PRECEDENCE_LIST };

enum { DSN_FAILURE = 1, DSN_DELAY = 2, DSN_SUCCESS = 4 }; /* RFC 3461 4.1 */

struct job {
    uint32_t references;
    uint32_t shard;
    char queue[QUEUE_NAME_MAX + 1];  /* the queue's name: "normal"; never "retry:..." */
    char stream[QUEUE_NAME_MAX + 9]; /* the stream's: the queue's, or "retry:" and the queue's */
    struct entry_id entry;           /* in that stream */
    uint32_t fence;                  /* the shard's: how often this node had been fenced when it was read; else it is others' by now */
    struct job_history history;

    uint8_t *source_text; /* the entry's `job` value as it came, for job_subset; its own. NULL: the job has no or one of recipients[] */
    size_t source_length;
    uint32_t recipients_at;  /* in source_text: where the array of recipients[] begins */
    char *content_id;        /* or NULL: it names a shared content */
    bool content_counted;    /* the submit Function counted its recipients for that content: settle takes them off */
    struct content *content; /* what contents_complete found: a reference; fields below may point into it */
    uint8_t dsn;             /* DSN_* bits: notices that the job asks for */
    bool dsn_full;           /* they carry the whole message, not its headers */
    bool require_tls;        /* RFC 8689: only over verified TLS, to servers that offer REQUIRETLS */

    char *id;                           /* the producer's, or NULL */
    char *tenant, *campaign, *pool;     /* or NULL */
    struct mailbox from, sender_header; /* sender_header.email NULL: none */
    char *envelope_sender;              /* NULL: from.email; "" is the null sender */
    uint32_t reply_to_count, to_count, cc_count;
    struct mailbox *reply_to, *to, *cc; /* for the visible headers */
    char *subject, *text, *html;        /* UTF-8, or NULL */
    uint8_t *raw;                       /* a whole message, or NULL */
    size_t raw_length;
    uint32_t header_count;
    struct job_header *headers;
    uint32_t attachment_count;
    struct job_attachment *attachments;
    char *merge_global_data, *metadata; /* JSON text, or NULL */
    uint32_t tag_count;
    char **tags;
    /* What job_bulk_fill completes from the configuration. */
    char *list_unsubscribe;             /* "https://..." or "mailto:...", or several: "<https://...>, <mailto:...>"; or NULL */
    char *list_id;                      /* "name.example.org" or "Words <name.example.org>", or NULL */
    char *feedback_id;                  /* four parts with colons, or NULL */
    enum job_precedence precedence;     /* UNSET: as NONE, no such field */
    enum job_choice bulk, verp;         /* does the configuration's `bulk` hold for it; is its envelope sender a VERP one */
    char *verp_address;                 /* "prefix@domain", which the token goes into; NULL: the envelope sender stays as it is */
    bool has_built_ins;                 /* some member names variables of our own ({{bypost.NAME}}): copies for two recipients differ */
    bool fills_built_ins;               /* subject, text, html or a header does: they are templates */
    bool high;                          /* queue or priority */
    uint64_t send_at_ms, expires_at_ms; /* 0: none */

    uint32_t recipient_total;  /* of the original entry: indexes are below it */
    uint32_t entry_recipients; /* recipients of this entry, those settled before included: what goes into the cookie's entry_pending */
    uint32_t pending_count;    /* recipients of this entry that are still to be settled, by index: a retry has a few of the total */
    uint32_t *pending;         /* [pending_count] indexes into recipients */
    /* By their place in the document, which is the index unless `places` is there: use job_recipient. */
    struct job_recipient *recipients;
    uint32_t place_count; /* of an entry whose history is `s` (job_place): recipients there are; else 0 */
    uint32_t *places;     /* [place_count] their indexes in the original job, ascending; else NULL */
};

/* How many of `recipients` there are. */
static inline uint32_t job_recipient_count(const struct job *job) {
    return job->places ? job->place_count : job->recipient_total;
}

/* The recipient of this index of the original job, or NULL when the document does not hold it. */
static inline struct job_recipient *job_recipient(const struct job *job, uint32_t index) {
    if (!job->places) {
        return index < job->recipient_total ? &job->recipients[index] : NULL;
    }
    uint32_t low = 0, high = job->place_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (job->places[middle] < index) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < job->place_count && job->places[low] == index ? &job->recipients[low] : NULL;
}

/* For an entry with a history `s`: the document's recipients[] are those of these indexes (ascending, below recipient_total) of the
 * original job, in this order. recipient_total becomes the one given, all of them are pending, and job_recipient finds them by their
 * indexes, which are their identity. 0, or -EINVAL (there are not `count` of recipients[], or the indexes are not ascending or too large)
 * or -ENOMEM: the job is as it was. Called once, behind job_decode (control/fetch/job.c). */
int job_place(struct job *job, const uint32_t *indexes, uint32_t count, uint32_t recipient_total);

/* Gives a complete job (its content's fields are in it) what the configuration has for bulk mail and VERP, where it says nothing itself
 * (control/fetch/bulk.c). NULL, or a sentence: the job asks for what the configuration has not, or (job_decode_starved) there is no memory:
 * then the job is good, and may be given it again. */
struct config;
const char *job_bulk_fill(struct job *job, const struct config *config);

static inline void job_hold(struct job *job) {
    job->references++;
}
/* Drops one reference; frees with the last (control/fetch/job.c). Jobs belong to one shard's thread; rendering threads borrow them while
 * the delivery holds its reference. */
void job_release(struct job *job);

/* The text of a job (malloc'd, the caller's) that is this one with only those of its recipients[] (indexes of the original job, ascending),
 * for an entry or a record whose field is `s` (control/library/README.md): a retry or a parked chunk is as small as its recipients. NULL
 * with *length 0 when the job has no recipients[] or one only (then the entry's whole text is used, and its field stays: `s` when
 * job->places is there, else `r`), when it does not hold one of the indexes, or without memory. */
char *job_subset(const struct job *job, const uint32_t *indexes, uint32_t count, size_t *length);

#endif
