/* bulk.c: checks the fields of bulk mail and the addresses of VERP. */
#include "bulk.h"
#include "address.h"
#include "control/bulk_field.h"
#include "control/render/render.h"
#include "control/render/token.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

enum { BULK_TEXT_MAX = 900 /* a header's line has 998 */, BULK_ERROR_BYTES = 512 };

/* Printable ASCII that may stand in a URI of a header; braces are variables'. */
static bool uri_is_clean(const char *uri, const char *scheme) {
    size_t length = strlen(uri);
    bool good = strncasecmp(uri, scheme, strlen(scheme)) == 0 && length > strlen(scheme) && length <= BULK_TEXT_MAX;
    for (size_t i = 0; i < length && good; i++) {
        good = (unsigned char)uri[i] > 32 && (unsigned char)uri[i] < 127 && !strchr("<>,", uri[i]);
    }
    return good;
}

static bool has_variables(const char *text) {
    return strstr(text, "{{") != NULL;
}

static void check_unsubscribe(struct reader *reader, const struct config *config) {
    const char *url = config->bulk.unsubscribe_url, *mailto = config->bulk.unsubscribe_mailto;
    if (url && !uri_is_clean(url, "https://")) {
        reader_error(reader, reader_place(reader, &config->bulk.unsubscribe_url),
                     "`unsubscribe_url` must be an https: URL without spaces, commas and `<>` (RFC 8058); write "
                     "`https://example.com/u/{{bypost.unsubscribe_token}}`.");
    } else if (url && !has_variables(url)) {
        reader_warn(reader, reader_place(reader, &config->bulk.unsubscribe_url),
                    "`unsubscribe_url` is the same for all recipients, so that one click cannot tell who it was; put "
                    "`{{bypost.unsubscribe_token}}` into it.");
    }
    if (mailto && !uri_is_clean(mailto, "mailto:")) {
        reader_error(reader, reader_place(reader, &config->bulk.unsubscribe_mailto),
                     "`unsubscribe_mailto` must be a mailto: URI without spaces, commas and `<>`; write "
                     "`mailto:unsubscribe@example.com?subject={{bypost.unsubscribe_token}}`.");
    }
}

static bool is_line(const char *text) {
    bool good = strlen(text) <= BULK_TEXT_MAX;
    for (const char *c = text; *c && good; c++) {
        good = (unsigned char)*c >= 32 && *c != 127;
    }
    return good;
}

static bool prefix_is_good(const char *prefix) {
    size_t length = strlen(prefix);
    bool good = length > 0 && length <= VERP_PREFIX_MAX;
    for (size_t i = 0; i < length && good; i++) {
        good = isalnum((unsigned char)prefix[i]) || prefix[i] == '-' || prefix[i] == '_';
    }
    return good;
}

static void check_verp(struct reader *reader, const struct config *config) {
    const char *domain = config->verp.domain, *prefix = config->verp.prefix;
    if (domain && !host_is_fqdn(domain)) {
        reader_error(reader, reader_place(reader, &config->verp.domain),
                     "verp.domain `%s` is no domain; write the one whose mail the bounces' reader gets, such as `bounces.example.com`.",
                     domain);
    }
    if (!prefix || !prefix_is_good(prefix)) {
        reader_error(
            reader, reader_place(reader, &config->verp.prefix),
            "verp.prefix must be 1 to %d letters, digits, `-` or `_`, because the token follows it and a local part has 64 octets; write "
            "for example `b`.",
            VERP_PREFIX_MAX);
    }
    if (!domain && (reader_given(reader, &config->verp.prefix) || reader_given(reader, &config->verp.jobs))) {
        reader_error(reader, reader_place(reader, &config->verp.prefix),
                     "verp has no `domain`; add the one that the bounces go to, such as `bounces.example.com`.");
    }
}

/* What is malformed would be the error of every recipient. */
static void check_template(struct reader *reader, char *const *place, const struct job *fields) {
    char sentence[BULK_ERROR_BYTES];
    if (*place && render_check(fields, sentence, sizeof sentence) == -EINVAL) {
        reader_error(reader, reader_place(reader, place), "%s; write a variable as `{{bypost.unsubscribe_token}}`.", sentence);
    }
}

static void check_templates(struct reader *reader, const struct config *config) {
    check_template(reader, &config->bulk.list_id, &(struct job){.list_id = config->bulk.list_id});
    check_template(reader, &config->bulk.feedback_id, &(struct job){.feedback_id = config->bulk.feedback_id});
    check_template(reader, &config->bulk.unsubscribe_url, &(struct job){.list_unsubscribe = config->bulk.unsubscribe_url});
    check_template(reader, &config->bulk.unsubscribe_mailto, &(struct job){.list_unsubscribe = config->bulk.unsubscribe_mailto});
}

void bulk_check(struct reader *reader, const struct config *config) {
    const char *list_id = config->bulk.list_id, *feedback_id = config->bulk.feedback_id;
    check_templates(reader, config);
    check_unsubscribe(reader, config);
    if (list_id && (!is_line(list_id) || (!has_variables(list_id) && !list_id_parse(list_id, NULL, NULL, NULL)))) {
        reader_error(reader, reader_place(reader, &config->bulk.list_id),
                     "`list_id` must be like `news.example.com` or `News of ours <news.example.com>` (RFC 2919).");
    }
    if (feedback_id && (!is_line(feedback_id) || (!has_variables(feedback_id) && !feedback_id_is_legal(feedback_id)))) {
        reader_error(
            reader, reader_place(reader, &config->bulk.feedback_id),
            "`feedback_id` must have four parts with colons and no spaces, the last (the sender's name) of %d to %d characters; write "
            "`{{bypost.campaign}}:{{bypost.tenant}}:bulk:example1`.",
            FEEDBACK_SENDER_MIN, FEEDBACK_SENDER_MAX);
    }
    check_verp(reader, config);
}
