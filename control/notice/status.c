/* status.c: message/delivery-status (RFC 3464): fields in printable ASCII, folded. */
#include "parts.h"

#include "control/render/encode.h"

#include <stdio.h>

enum { FIELD_LINE_BYTES = 76, WORD_BYTES_MAX = 900 };

/* "Name: " and words; what is not printable ASCII becomes a question mark. */
static void field_write(struct writer *writer, const char *name, const char *value) {
    size_t begin = writer->at;
    writer_text(writer, name);
    writer_byte(writer, ':');
    for (const char *at = value; *at != '\0';) {
        at += strspn(at, " \t\r\n");
        size_t length = strcspn(at, " \t\r\n");
        if (length > WORD_BYTES_MAX)
            length = WORD_BYTES_MAX;
        if (length == 0)
            break;
        if (writer->at - begin + 1 + length > FIELD_LINE_BYTES && writer_column(writer) > strlen(name) + 1)
            writer_fold(writer), begin = writer->at;
        writer_byte(writer, ' ');
        for (size_t i = 0; i < length; i++)
            writer_byte(writer, (char)(at[i] > 32 && at[i] < 127 ? at[i] : '?'));
        at += length;
    }
    writer_crlf(writer);
}

/* utf-8-addr-xtext (RFC 6533 3): QCHAR as it is, all else by its number. */
static void address_write(const char *address, char *out, size_t out_bytes) {
    size_t used = 0, length = strlen(address);
    for (size_t at = 0; at < length && used + 16 < out_bytes;) {
        unsigned char byte = (unsigned char)address[at];
        size_t size = utf8_character(address + at, length - at);
        if (byte > 32 && byte < 127 && byte != '+' && byte != '=' && byte != '\\') {
            out[used++] = (char)byte;
            at++;
            continue;
        }
        uint32_t point = size < 2 ? byte : byte & (0x7fu >> size);
        for (size_t i = 1; i < size; i++)
            point = point << 6 | ((unsigned char)address[at + i] & 0x3f);
        used += (size_t)snprintf(out + used, out_bytes - used, "\\x{%02X}", point);
        at += size == 0 ? 1 : size;
    }
    out[used] = '\0';
}

static void date_field(struct writer *writer, const char *name, uint64_t ms) {
    char date[NOTICE_DATE_BYTES];
    if (ms != 0) {
        notice_date(ms, date);
        field_write(writer, name, date);
    }
}

static void diagnostic_field(struct writer *writer, const struct outcome *outcome) {
    char text[sizeof(outcome->text) + 64];
    if (outcome->kind != OUTCOME_REPLIED || outcome->code == 0)
        snprintf(text, sizeof(text), "x-bypost; %s", outcome->text);
    else if (outcome->enhanced[0] == 0)
        snprintf(text, sizeof(text), "smtp; %03u %s", outcome->code, outcome->text);
    else
        snprintf(text, sizeof(text), "smtp; %03u %u.%u.%u %s", outcome->code, outcome->enhanced[0], outcome->enhanced[1],
                 outcome->enhanced[2], outcome->text);
    if (outcome->text[0] != '\0' || outcome->code != 0)
        field_write(writer, "Diagnostic-Code", text);
}

void status_write(struct writer *writer, const struct notice *notice) {
    static const char *const actions[] = {"failed", "delayed", "relayed"};
    const struct outcome *outcome = notice->outcome;
    char text[6 * 256 + 16], server[NOTICE_TEXT_BYTES], status[24];
    snprintf(text, sizeof(text), "dns; %.255s", notice->mta);
    field_write(writer, "Reporting-MTA", text);
    if (notice->job->id != NULL)
        field_write(writer, "Original-Envelope-Id", notice->job->id);
    date_field(writer, "Arrival-Date", notice->job->history.first_queued_ms);
    writer_crlf(writer);

    size_t type = (size_t)snprintf(text, sizeof(text), notice->address_utf8 ? "utf-8; " : "rfc822; ");
    if (notice->address_utf8)
        address_write(notice->address, text + type, sizeof(text) - type);
    else
        snprintf(text + type, sizeof(text) - type, "%s", notice->address);
    field_write(writer, "Final-Recipient", text);
    field_write(writer, "Action", actions[notice->kind]);
    notice_status(notice, status);
    field_write(writer, "Status", status);
    notice_server(notice, server);
    if (server[0] != '\0') {
        snprintf(text, sizeof(text), "dns; %s", outcome->peer_name[0] != '\0' ? outcome->peer_name : server);
        field_write(writer, "Remote-MTA", text);
    }
    diagnostic_field(writer, outcome);
    date_field(writer, "Last-Attempt-Date", outcome->finished_us / 1000);
    if (notice->kind == NOTICE_DELAYED)
        date_field(writer, "Will-Retry-Until", notice->give_up_ms);
}
