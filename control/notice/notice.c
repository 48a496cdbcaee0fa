/* notice.c: whether a notice is wanted, its envelope and its frame: multipart/report (RFC 6522) as a raw message in a job. */
#include "parts.h"

#include "control/render/address.h"
#include "control/render/encode.h"
#include "control/render/header.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

void notice_date(uint64_t ms, char out[NOTICE_DATE_BYTES]) {
    struct writer writer = {.limit = 256};
    header_date(&writer, ms / 1000);
    static const char name[] = "Date: ";
    out[0] = '\0';
    if (writer.error == 0 && writer.at > sizeof(name) + 1)
        snprintf(out, NOTICE_DATE_BYTES, "%.*s", (int)(writer.at - sizeof(name) - 1), (const char *)writer.bytes + sizeof(name) - 1);
    free(writer.bytes);
}

void notice_server(const struct notice *notice, char out[NOTICE_TEXT_BYTES]) {
    const struct outcome *outcome = notice->outcome;
    char address[INET6_ADDRSTRLEN] = "";
    if (outcome->peer_family == 4 || outcome->peer_family == 6)
        inet_ntop(outcome->peer_family == 4 ? AF_INET : AF_INET6, outcome->peer_address, address, sizeof(address));
    snprintf(out, NOTICE_TEXT_BYTES, "%s%s%s%s%s", outcome->peer_name, outcome->peer_name[0] && address[0] ? " " : "",
             address[0] ? "[" : "", address, address[0] ? "]" : "");
}

void notice_status(const struct notice *notice, char out[24]) {
    const struct outcome *outcome = notice->outcome;
    unsigned class = notice->kind == NOTICE_FAILED ? 5 : notice->kind == NOTICE_DELAYED ? 4 : 2;
    if (outcome->enhanced[0] >= 2 && outcome->enhanced[0] <= 5 && outcome->enhanced[1] <= 999 && outcome->enhanced[2] <= 999)
        snprintf(out, 24, "%u.%u.%u", outcome->enhanced[0], outcome->enhanced[1], outcome->enhanced[2]);
    else if (notice->expired)
        snprintf(out, 24, "4.4.7"); /* RFC 3463 3.5: delivery time expired */
    else
        snprintf(out, 24, "%u.0.0", class);
}

/* The bits of RFC 3461 4.1 that an event answers, and the kind; 0 when there is no notice of it. */
static uint8_t event_bits(enum event_type event, enum notice_kind *kind) {
    switch (event) {
    case EVENT_BOUNCED:
    case EVENT_EXPIRED:
        *kind = NOTICE_FAILED;
        return DSN_FAILURE;
    case EVENT_DEFERRED:
        *kind = NOTICE_DELAYED;
        return DSN_DELAY;
    case EVENT_DELIVERED:
        *kind = NOTICE_RELAYED;
        return DSN_SUCCESS;
    default:
        return 0;
    }
}

/* When the queue gives up, or the job expires. */
static uint64_t give_up_ms(const struct config *config, const struct job *job) {
    const struct config_queue *queue = config_queue_named(config, job->queue);
    uint64_t until = queue != NULL && queue->retry.give_up_ms != 0 ? job->history.first_queued_ms + queue->retry.give_up_ms : 0;
    return until == 0 || (job->expires_at_ms != 0 && job->expires_at_ms < until) ? job->expires_at_ms : until;
}

/* Whose name the node has among mail servers. */
static const char *reporting_mta(const struct config *config, const struct job *job) {
    const struct config_pool *pool = config_pool_named(config, job->pool != NULL ? job->pool : config->default_pool);
    if (pool != NULL && pool->source_count > 0 && pool->sources[0].ehlo != NULL)
        return pool->sources[0].ehlo;
    return config->node != NULL ? config->node : "localhost";
}

/* The configured address, or MAILER-DAEMON at the domain of the message's From, for which there is a key and a policy. False when none is
 * an address. */
static bool daemon_address(const struct notice *notice, char *out, size_t out_bytes) {
    if (notice->config->notices.from != NULL) {
        snprintf(out, out_bytes, "%s", notice->config->notices.from);
        return true;
    }
    char address[ADDRESS_BYTES];
    bool utf8 = false;
    const char *email = notice->job->from.email != NULL ? notice->job->from.email : notice->sender;
    if (address_format(email, address, &utf8) < 0)
        return false;
    snprintf(out, out_bytes, "MAILER-DAEMON@%s", strrchr(address, '@') + 1);
    return true;
}

static bool notice_begin(struct notice *notice, enum event_type event) {
    const struct job *job = notice->job;
    uint8_t bits = event_bits(event, &notice->kind);
    /* RFC 3461 5.2.2: who passed NOTIFY on to a server that knows it leaves the success for that one to tell. */
    if (notice->kind == NOTICE_RELAYED && notice->outcome->flags & REPLY_DSN_PASSED_ON)
        return false;
    if ((job->dsn & bits) == 0 || (notice->recipient = job_recipient(job, notice->index)) == NULL)
        return false;
    if (notice->kind == NOTICE_DELAYED &&
        (job->history.notified || notice->now_ms < job->history.first_queued_ms + notice->config->notices.delay_ms))
        return false;
    notice->sender = job->envelope_sender != NULL ? job->envelope_sender : job->from.email;
    if (notice->sender == NULL || notice->sender[0] == '\0') /* RFC 5321 4.5.5: no notice of a notice */
        return false;
    if (address_format(notice->recipient->mailbox.email, notice->address, &notice->address_utf8) < 0 ||
        !daemon_address(notice, notice->daemon, sizeof(notice->daemon)))
        return false;
    notice->expired = event == EVENT_EXPIRED;
    notice->mta = reporting_mta(notice->config, job);
    notice->give_up_ms = give_up_ms(notice->config, job);
    snprintf(notice->boundary, sizeof(notice->boundary), "=_notice_%" PRIu64 "-%" PRIu64 "_%" PRIu32 "_%u_%u", job->history.origin.ms,
             job->history.origin.seq, notice->index, notice->attempt, (unsigned)notice->kind);
    returned_message_id(notice, notice->message_id, sizeof(notice->message_id));
    return true;
}

static void write_line(struct writer *writer, const char *line) {
    writer_text(writer, line);
    writer_crlf(writer);
}

static void write_header(struct writer *writer, const struct notice *notice) {
    static const char *const subjects[] = {"Your message could not be delivered", "Your message is delayed", "Your message was handed on"};
    struct mailbox from = {.email = (char *)notice->daemon, .name = (char *)"Mail delivery"}, to = {.email = (char *)notice->sender};
    const struct mailbox *bad;
    bool utf8 = false;
    header_mailboxes(writer, "From", &from, 1, &utf8, &bad);
    header_mailboxes(writer, "To", &to, 1, &utf8, &bad);
    header_text(writer, "Subject", subjects[notice->kind]);
    write_line(writer, "Auto-Submitted: auto-replied"); /* RFC 3834 5 */
    if (notice->message_id[0] != '\0') {
        header_text(writer, "In-Reply-To", notice->message_id);
        header_text(writer, "References", notice->message_id);
    }
    write_line(writer, "MIME-Version: 1.0");
    write_line(writer, "Content-Type: multipart/report; report-type=delivery-status;");
    writer_text(writer, " boundary=\"");
    writer_text(writer, notice->boundary);
    write_line(writer, "\"");
    writer_crlf(writer);
}

static void write_delimiter(struct writer *writer, const struct notice *notice, const char *end) {
    writer_text(writer, "--");
    writer_text(writer, notice->boundary);
    write_line(writer, end);
}

static void notice_compose(struct writer *writer, const struct notice *notice) {
    write_header(writer, notice);
    write_delimiter(writer, notice, "");
    words_write(writer, notice);
    writer_crlf(writer);
    write_delimiter(writer, notice, "");
    write_line(writer, "Content-Type: message/delivery-status");
    writer_crlf(writer);
    status_write(writer, notice);
    writer_crlf(writer);
    size_t maximum = notice->config->max_message_bytes, needed = writer->at + sizeof(notice->boundary);
    returned_write(writer, notice, maximum > needed ? maximum - needed : 0);
    write_delimiter(writer, notice, "--");
}

/* The job: its sender is null, so that it is never answered by another notice. */
static char *job_text(const struct notice *notice, const struct writer *message) {
    static const char *const kinds[] = {"failure", "delay", "success"};
    const struct job *job = notice->job;
    char origin[64];
    snprintf(origin, sizeof(origin), "%" PRIu64 "-%" PRIu64, job->history.origin.ms, job->history.origin.seq);
    json_t *metadata =
        json_pack("{s:s, s:s, s:s}", "notice", kinds[notice->kind], "job", origin, "recipient", notice->recipient->mailbox.email);
    json_t *text = json_stringn((const char *)message->bytes, message->at);
    json_t *tree = metadata != NULL && text != NULL
                       ? json_pack("{s:s, s:s, s:s, s:O, s:O, s:s*, s:s*}", "from", notice->daemon, "envelope_sender", "", "to",
                                   notice->sender, "raw", text, "metadata", metadata, "tenant", job->tenant, "pool", job->pool)
                       : NULL;
    char *out = tree != NULL ? json_dumps(tree, JSON_COMPACT) : NULL;
    json_decref(metadata);
    json_decref(text);
    json_decref(tree);
    return out;
}

char *notice_write(const struct config *config, const struct identity *identity, const struct job *job, uint32_t index,
                   enum event_type event, const struct outcome *outcome, uint16_t attempt, uint64_t next_attempt_ms, uint64_t now_ms,
                   size_t *length) {
    struct notice notice = {.config = config,
                            .identity = identity,
                            .job = job,
                            .index = index,
                            .outcome = outcome,
                            .attempt = attempt,
                            .next_attempt_ms = next_attempt_ms,
                            .now_ms = now_ms};
    *length = 0;
    if (!notice_begin(&notice, event))
        return NULL;
    struct writer message = {.limit = (size_t)config->max_message_bytes + NOTICE_FULL_BYTES_MAX};
    notice_compose(&message, &notice);
    char *text = message.error == 0 ? job_text(&notice, &message) : NULL;
    free(message.bytes);
    *length = text != NULL ? strlen(text) : 0;
    return text;
}
