/* bulk.c: reads the tenants of VERP; checks the fields of bulk mail and the addresses of VERP. */
#include "bulk.h"
#include "address.h"
#include "control/bulk_field.h"
#include "control/job.h"
#include "control/render/render.h"
#include "control/render/token.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
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

static const struct field verp_tenant_fields[] = {
    {.key = "domain", .kind = FIELD_TEXT, .offset = offsetof(struct config_verp_tenant, domain)},
    {.key = "prefix", .kind = FIELD_TEXT, .offset = offsetof(struct config_verp_tenant, prefix)},
    {0},
};

static int key_compare(const void *a, const void *b) {
    const struct yaml_node *const *left = a, *const *right = b;
    int order = strcmp((*left)->text, (*right)->text);
    return order ? order : (*left > *right) - (*left < *right);
}

/* As a job may name one (control/fetch). */
static bool tenant_is_name(const char *name) {
    size_t length = strlen(name);
    return length > 0 && length <= TENANT_NAME_MAX &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == length;
}

void verp_tenants_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config *config = record;
    if (!reader_wants(reader, node, YAML_MAPPING, "tenants", "`shop: {domain: bounces.shop.example}`")) {
        return;
    }
    /* config_verp looks for one among many by its name. */
    const struct yaml_node **keys = calloc(node->count + 1, sizeof *keys);
    for (uint32_t i = 0; i < node->count; i++) {
        keys[i] = &node->keys[i];
    }
    qsort(keys, node->count, sizeof *keys, key_compare);
    config->verp.tenants = calloc(node->count + 1, sizeof *config->verp.tenants);
    for (uint32_t i = 0; i < node->count; i++) {
        struct config_verp_tenant *tenant = &config->verp.tenants[config->verp.tenant_count++];
        tenant->name = strdup(keys[i]->text);
        reader_note(reader, tenant, keys[i]);
        section_read(reader, &node->items[keys[i] - node->keys], "a tenant of verp", verp_tenant_fields, tenant, NULL);
        if (!tenant_is_name(tenant->name)) {
            reader_error(reader, keys[i], "`%s` is no tenant that a job can name; write letters, digits, `.`, `_` and `-`, at most %d.",
                         tenant->name, TENANT_NAME_MAX);
        }
        if (i > 0 && strcmp(keys[i - 1]->text, keys[i]->text) == 0) {
            reader_error(reader, keys[i], "the tenant `%s` stands twice in verp.tenants (first at line %u); remove one of them.",
                         tenant->name, keys[i - 1]->line);
        }
    }
    free(keys);
}

void verp_tenants_free(struct config *config) {
    for (uint32_t i = 0; i < config->verp.tenant_count; i++) {
        free(config->verp.tenants[i].name);
        section_free(verp_tenant_fields, &config->verp.tenants[i]);
    }
    free(config->verp.tenants);
}

static void check_verp_domain(struct reader *reader, char *const *domain) {
    if (*domain && !host_is_fqdn(*domain)) {
        reader_error(reader, reader_place(reader, domain),
                     "the domain `%s` of verp is none; write the one whose mail the bounces' reader gets, such as `bounces.example.com`.",
                     *domain);
    } else if (*domain && strlen(*domain) > VERP_DOMAIN_MAX) {
        reader_error(reader, reader_place(reader, domain),
                     "the domain of verp has more than %d characters, and an address with its token would have more than 254; write a "
                     "shorter one.",
                     VERP_DOMAIN_MAX);
    }
}

static void check_verp_prefix(struct reader *reader, char *const *prefix) {
    if (!*prefix || !prefix_is_good(*prefix)) {
        reader_error(reader, reader_place(reader, prefix),
                     "the prefix of verp must be 1 to %d letters, digits, `-` or `_`, because the token follows it and a local part has 64 "
                     "octets; write for example `b`.",
                     VERP_PREFIX_MAX);
    }
}

static void check_verp(struct reader *reader, const struct config *config) {
    check_verp_domain(reader, &config->verp.domain);
    check_verp_prefix(reader, &config->verp.prefix);
    for (uint32_t i = 0; i < config->verp.tenant_count; i++) {
        const struct config_verp_tenant *tenant = &config->verp.tenants[i];
        check_verp_domain(reader, &tenant->domain);
        if (tenant->prefix) {
            check_verp_prefix(reader, &tenant->prefix);
        }
        if (!tenant->domain && !tenant->prefix) {
            reader_error(reader, reader_place(reader, tenant),
                         "the tenant `%s` of verp has neither `domain` nor `prefix`; add one of them, or remove it.", tenant->name);
        } else if (!tenant->domain && !config->verp.domain) {
            reader_error(reader, reader_place(reader, tenant),
                         "the tenant `%s` of verp has no `domain`, and verp itself has none; add the one that its bounces go to, such as "
                         "`bounces.example.com`.",
                         tenant->name);
        }
    }
    if (!config->verp.domain && config->verp.tenant_count == 0 &&
        (reader_given(reader, &config->verp.prefix) || reader_given(reader, &config->verp.jobs))) {
        reader_error(
            reader,
            reader_place(reader, reader_given(reader, &config->verp.prefix) ? (const void *)&config->verp.prefix : &config->verp.jobs),
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
