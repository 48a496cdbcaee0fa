/* words.c: what happened, in plain words. */
#include "parts.h"

#include "control/render/encode.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { QUOTED_LINE_BYTES = 72 };

/* "3 days", "4 hours", "20 minutes". */
static void duration_text(uint64_t ms, char out[32]) {
    uint64_t minutes = ms / 60000;
    uint64_t number = minutes >= 2880 ? minutes / 1440 : minutes >= 120 ? minutes / 60 : minutes;
    const char *unit = minutes >= 2880 ? "day" : minutes >= 120 ? "hour" : "minute";
    snprintf(out, 32, "%llu %s%s", (unsigned long long)number, unit, number == 1 ? "" : "s");
}

/* The reply as it came, indented and broken at spaces. */
static void quote_write(FILE *out, const char *text) {
    while (*text != '\0') {
        size_t length = strlen(text), line = length;
        if (length > QUOTED_LINE_BYTES) {
            line = QUOTED_LINE_BYTES;
            while (line > 0 && text[line] != ' ')
                line--;
            if (line == 0)
                line = strcspn(text, " ");
        }
        fprintf(out, "    %.*s\n", (int)line, text);
        text += line;
        text += strspn(text, " ");
    }
}

static void reply_write(FILE *out, const struct notice *notice, const char *introduction) {
    const struct outcome *outcome = notice->outcome;
    char server[NOTICE_TEXT_BYTES], reply[sizeof(outcome->text) + 48] = "";
    notice_server(notice, server);
    if (outcome->kind == OUTCOME_REPLIED && outcome->code != 0) {
        int used = snprintf(reply, sizeof(reply), "%u ", outcome->code);
        if (outcome->enhanced[0] != 0)
            used += snprintf(reply + used, sizeof(reply) - (size_t)used, "%u.%u.%u ", outcome->enhanced[0], outcome->enhanced[1],
                             outcome->enhanced[2]);
        snprintf(reply + used, sizeof(reply) - (size_t)used, "%s", outcome->text);
        fprintf(out, "%s%s%s:\n\n", introduction, server[0] != '\0' ? " by the mail server " : " by the mail server", server);
    } else {
        snprintf(reply, sizeof(reply), "%s", outcome->text);
        if (reply[0] != '\0')
            fprintf(out, "The reason%s%s:\n\n", server[0] != '\0' ? ", at the mail server " : "", server);
    }
    if (reply[0] != '\0') {
        quote_write(out, reply);
        fprintf(out, "\n");
    }
}

static void failed_write(FILE *out, const struct notice *notice, const char *address) {
    char waited[32];
    fprintf(out, "Your message could not be delivered to this address:\n\n    %s\n\n", address);
    if (notice->expired) {
        duration_text(notice->now_ms - notice->job->history.first_queued_ms, waited);
        fprintf(out, "It was tried for %s without success.\n\n", waited);
        reply_write(out, notice, "It was answered last");
    } else {
        reply_write(out, notice, "It was refused");
    }
    fprintf(out, "It is not tried again: nobody has received it at this address. If the\n"
                 "address is right, reach the recipient in another way, or send the\n"
                 "message again later.\n\n");
}

static void delayed_write(FILE *out, const struct notice *notice, const char *address) {
    char waited[32], date[NOTICE_DATE_BYTES];
    duration_text(notice->now_ms - notice->job->history.first_queued_ms, waited);
    fprintf(out, "Your message has waited for %s and is not delivered to this address yet:\n\n    %s\n\n", waited, address);
    reply_write(out, notice, "It was answered last");
    fprintf(out, "You need not do anything: it is tried again");
    if (notice->next_attempt_ms != 0) {
        notice_date(notice->next_attempt_ms, date);
        fprintf(out, " at\n%s", date);
    }
    if (notice->give_up_ms != 0) {
        notice_date(notice->give_up_ms, date);
        fprintf(out, ", and until\n%s", date);
    }
    fprintf(out, ".\nIf it cannot be delivered by then, you are told.\n\n");
}

static void relayed_write(FILE *out, const struct notice *notice, const char *address) {
    char server[NOTICE_TEXT_BYTES];
    notice_server(notice, server);
    fprintf(out, "Your message to this address was accepted by the mail server%s%s:\n\n    %s\n\n", server[0] != '\0' ? "\n" : "", server,
            address);
    fprintf(out,
            "That server is responsible for it from here on. Whether it has reached\nthe mailbox, or was read, is not known here.\n\n");
}

void words_write(struct writer *writer, const struct notice *notice) {
    char *text = NULL, date[NOTICE_DATE_BYTES];
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    if (out == NULL) {
        writer->error = -ENOMEM;
        return;
    }
    const char *address = notice->recipient->mailbox.email;
    if (notice->kind == NOTICE_FAILED)
        failed_write(out, notice, address);
    else if (notice->kind == NOTICE_DELAYED)
        delayed_write(out, notice, address);
    else
        relayed_write(out, notice, address);
    notice_date(notice->job->history.first_queued_ms, date);
    if (notice->job->subject != NULL && strstr(notice->job->subject, "{{") == NULL)
        fprintf(out, "Subject: %s\n", notice->job->subject);
    fprintf(out, "Sent:    %s\n", date);
    if (notice->message_id[0] != '\0')
        fprintf(out, "ID:      %s\n", notice->message_id);
    fprintf(out, "\nThis notice was written by %s,\nwhich sends mail with bypost.\n", notice->mta);
    fclose(out);
    if (text == NULL) {
        writer->error = -ENOMEM;
        return;
    }
    bool plain = encode_is_plain(text, length);
    writer_text(writer, "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: ");
    writer_text(writer, plain ? "7bit\r\n\r\n" : "quoted-printable\r\n\r\n");
    if (plain)
        encode_plain(writer, text, length);
    else
        encode_quoted_printable(writer, text, length);
    free(text);
}
