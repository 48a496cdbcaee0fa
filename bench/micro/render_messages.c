/* render_messages.c: instructions that the rendering of a message takes, and bytes that it copies: a text of 4 KB with three variables, a
 * newsletter of 60 KB in HTML with twelve, one in Japanese, or a raw message of 60 KB; in the job itself or in a shared content. Run it by
 * callgrind with two counts; the difference is the messages': for n in 1000 2000; do valgrind --tool=callgrind
 * --callgrind-out-file=/dev/null render_messages inline|shared text|html|newsletter|japanese|raw $n; done */
#include "control/render/render.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_BYTES = 4096, NEWSLETTER_BYTES = 60 << 10, RECIPIENTS = 500, MAX_BYTES = 1 << 20 };

static void text_write(char *out, bool utf8) {
    size_t used = (size_t)sprintf(out, "Hello {{name}},\n\n");
    while (used < TEXT_BYTES - 200)
        used += (size_t)sprintf(out + used, "%s of prose that fill a line as mail of this kind has it\n",
                                utf8 ? "Some w\xC3\xB6rds" : "Some words");
    sprintf(out + used, "\nYour code is {{code}}; it is good until {{until}}.\n");
}

static const char *const newsletter_fields[] = {"first_name", "last_name", "city",         "points",  "level",   "since",
                                                "last_order", "shop",      "shop_address", "voucher", "expires", "preferences"};
enum { NEWSLETTER_FIELDS = sizeof(newsletter_fields) / sizeof(*newsletter_fields) };

#define PRODUCT "\xE6\x96\xB0\xE5\x95\x86\xE5\x93\x81\xE3\x81\xAE\xE3\x81\x8A\xE7\x9F\xA5\xE3\x82\x89\xE3\x81\x9B\xE3\x80\x82"

static int row_write(char *out, size_t row, bool japanese) {
    if (japanese)
        return sprintf(out, "  <p>%zu. " PRODUCT PRODUCT PRODUCT "</p>\n", row);
    return sprintf(out,
                   "  <tr><td class=\"item\" width=\"50%%\">Product %zu, h\xC3\xBC"
                   "bsch</td><td><a href=\"https://shop.example.org/p/%zu\">see it</a></td></tr>\n",
                   row, row * 7);
}

/* Rows of a table, and a field every few of them. */
static void newsletter_write(char *out, bool japanese) {
    size_t used = (size_t)sprintf(out, "<html>\n<body style=\"margin: 0; padding: 0\">\n"), field = 0;
    for (size_t row = 0; used < NEWSLETTER_BYTES; row++) {
        used += (size_t)row_write(out + used, row, japanese);
        if (used > field * (NEWSLETTER_BYTES / NEWSLETTER_FIELDS) && field < NEWSLETTER_FIELDS)
            used += (size_t)sprintf(out + used, "  <p>A line of prose with {{%s}} in it.</p>\n", newsletter_fields[field++]);
    }
}

static void newsletter_data_write(char *out) {
    size_t used = (size_t)sprintf(out, "{");
    for (size_t i = 0; i < NEWSLETTER_FIELDS; i++)
        used += (size_t)sprintf(out + used, "\"%s\":\"Value no %zu\",", newsletter_fields[i], i);
    out[used - 1] = '}';
}

static void raw_write(char *out) {
    size_t used = (size_t)sprintf(out, "From: Ann <ann@example.org>\r\nTo: readers@example.org\r\nSubject: News of the week\r\n"
                                       "MIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n");
    while (used < NEWSLETTER_BYTES)
        used += (size_t)sprintf(out + used, "Some words of prose that fill a line as mail of this kind has it\r\n");
}

static struct identity *identity_make(void) {
    char path[] = "/tmp/bypost-identity-XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0 || write(fd, path, sizeof(path)) != sizeof(path) || write(fd, path, sizeof(path)) != sizeof(path))
        return NULL;
    close(fd);
    struct identity *identity = identity_load(path);
    unlink(path);
    return identity;
}

int main(int count, char **arguments) {
    if (count != 4) {
        fprintf(stderr, "usage: render_messages inline|shared text|html|newsletter|japanese|raw MESSAGES\n");
        return 2;
    }
    static char text[NEWSLETTER_BYTES + 1024];
    static struct job_recipient recipients[RECIPIENTS];
    char merge_data[1024] = "{\"name\":\"Bob Example\",\"code\":\"X7-2231\",\"until\":\"1 May\"}", error[256];
    bool japanese = strcmp(arguments[2], "japanese") == 0, raw = strcmp(arguments[2], "raw") == 0;
    bool newsletter = japanese || strcmp(arguments[2], "newsletter") == 0, html = newsletter || strcmp(arguments[2], "html") == 0;
    if (newsletter)
        newsletter_data_write(merge_data);
    for (int i = 0; i < RECIPIENTS; i++)
        recipients[i] =
            (struct job_recipient){.mailbox = {.email = (char *)"bob@example.net"}, .kind = RECIPIENT_PRIVATE, .merge_data = merge_data};
    if (newsletter)
        newsletter_write(text, japanese);
    else if (raw)
        raw_write(text);
    else
        text_write(text, html);
    struct job fields = {.from = {.email = (char *)"ann@example.org", .name = (char *)"Ann"},
                         .subject = (char *)"News of the week",
                         .list_unsubscribe = (char *)(newsletter ? "https://example.org/u/{{voucher}}" : "https://example.org/u/{{code}}")};
    if (newsletter)
        fields.text = (char *)"Dear {{first_name}},\n\nplease look at the other part of this message.\n";
    if (raw)
        fields = (struct job){.from = fields.from, .raw = (uint8_t *)text, .raw_length = strlen(text)};
    else
        *(html ? &fields.html : &fields.text) = text;
    struct content content = {.references = 1, .fields = &fields};
    struct job job = fields;
    strcpy(job.queue, "spring");
    job.recipients = recipients;
    job.recipient_total = RECIPIENTS;
    job.content = strcmp(arguments[1], "shared") == 0 ? &content : NULL;
    struct identity *identity = identity_make();
    content.prepared = render_prepare(&fields, "spring", identity);
    struct message message;
    message_init(&message);
    size_t bytes = 0, own = 0;
    for (int i = 0, messages = atoi(arguments[3]); i < messages; i++) {
        if (render_message(&job, (uint32_t)(i % RECIPIENTS), 1700000000, identity, MAX_BYTES, &message, error, sizeof(error)) != 0) {
            fprintf(stderr, "render_messages: %s\n", error);
            return 1;
        }
        bytes += message.length;
        own += message.own_length;
    }
    printf("%zu bytes, %zu of them of each message's own\n", bytes, own);
    message_free(&message);
    identity_free(identity);
    render_prepared_free((struct render_prepared *)content.prepared);
    return 0;
}
