/* dkim.c: who signs, and what of a header is signed (RFC 6376 5.4). */
#include "dkim.h"
#include "address.h"
#include "control/job.h"
#include "lists.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const struct field key_fields[] = {
    {.key = "domain", .kind = FIELD_TEXT, .offset = offsetof(struct config_dkim_key, domain)},
    {.key = "selector", .kind = FIELD_TEXT, .offset = offsetof(struct config_dkim_key, selector)},
    {.key = "key", .kind = FIELD_PATH, .offset = offsetof(struct config_dkim_key, key_file)},
    {.key = "tenant", .kind = FIELD_TEXT, .offset = offsetof(struct config_dkim_key, tenant)},
    {0},
};
enum { KEY_FIELDS_NEEDED = 3 };

static void key_read(struct reader *reader, const struct yaml_node *item, struct config_dkim_key *key) {
    reader_note(reader, key, item);
    section_read(reader, item, "a DKIM key", key_fields, key, NULL);
    for (unsigned i = 0; item->kind == YAML_MAPPING && i < KEY_FIELDS_NEEDED; i++) {
        if (!yaml_get(item, key_fields[i].key)) {
            reader_error(reader, item, "this DKIM key has no `%s`; add it (`bypost dkim keygen` makes a key and prints what to write).",
                         key_fields[i].key);
        }
    }
    char *domain = key->domain ? host_to_ascii(key->domain) : NULL;
    if (key->domain && !domain) {
        reader_error(reader, reader_place(reader, &key->domain),
                     "`%s` is no domain; write the domain of the From: address, such as `example.com`.", key->domain);
    }
    if (domain) {
        free(key->domain);
        key->domain = domain;
    }
    if (key->selector && !host_is_name(key->selector)) {
        reader_error(reader, reader_place(reader, &key->selector),
                     "`%s` is no selector; write letters, digits and hyphens, such as `s2026`.", key->selector);
    }
    if (key->tenant && strlen(key->tenant) > TENANT_NAME_MAX) {
        reader_error(reader, reader_place(reader, &key->tenant), "the tenant `%s` has more than %d bytes, and no job can name it.",
                     key->tenant, TENANT_NAME_MAX);
    }
}

void dkim_keys_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config *config = record;
    if (node->kind == YAML_SEQUENCE && node->count == 0) {
        return;
    }
    if (!reader_wants(reader, node, YAML_SEQUENCE, "keys", "`- {domain: example.com, selector: s1, key: /etc/bypost/dkim/s1.pem}`")) {
        return;
    }
    config->dkim = calloc(node->count, sizeof *config->dkim);
    for (uint32_t i = 0; i < node->count; i++) {
        key_read(reader, &node->items[i], &config->dkim[config->dkim_count++]);
    }
}

/* One key stands for a list of one. */
void dkim_platform_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config *config = record;
    bool several = node->kind == YAML_SEQUENCE;
    uint32_t count = several ? node->count : 1;
    config->dkim_platform = calloc(count + 1, sizeof *config->dkim_platform);
    for (uint32_t i = 0; i < count; i++) {
        struct config_dkim_key *key = &config->dkim_platform[config->dkim_platform_count++];
        key_read(reader, several ? &node->items[i] : node, key);
        if (key->tenant) {
            reader_error(reader, reader_place(reader, &key->tenant),
                         "the platform's keys sign the messages of every tenant; remove `tenant`, or move the key to `keys`.");
        }
    }
}

/* Why a field of this name cannot be signed; NULL: it can. */
static const char *name_fault(const char *name) {
    static const char *const changing[] = {"return-path", "received", "bcc", "dkim-signature"};
    if (!*name) {
        return "is no name of a header field; remove it";
    }
    for (const char *at = name; *at; at++) {
        if (*at <= ' ' || *at > '~' || *at == ':' || *at == ';') { /* RFC 5322 2.2; a semicolon would end h= */
            return "is no name of a header field; write it without colon, such as `list-id`";
        }
    }
    for (unsigned i = 0; i < sizeof changing / sizeof *changing; i++) {
        if (strcasecmp(name, changing[i]) == 0) {
            return "is never signed: it is added, changed or taken away on the way; remove it";
        }
    }
    return strlen(name) > DKIM_NAME_MAX ? "is too long for the name of a header field that is signed; remove it" : NULL;
}

static void names_read(struct reader *reader, const struct yaml_node *node, const char *key, char ***names) {
    *names = texts_read(reader, node, key, "`[from, to, subject]`");
    for (char **at = *names; *at; at++) {
        const char *fault = name_fault(*at);
        if (fault) {
            reader_error(reader, reader_place(reader, *at), "`%s` %s.", *at, fault);
        }
        for (char *letter = *at; *letter; letter++) {
            *letter = (char)tolower((unsigned char)*letter);
        }
    }
}

void dkim_oversign_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config *config = record;
    names_read(reader, node, "oversign", &config->dkim_oversign);
}

void dkim_sign_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config *config = record;
    names_read(reader, node, "sign", &config->dkim_sign);
}

void config_dkim_check(struct reader *reader, const struct config *config) {
    char *const *const lists[] = {config->dkim_oversign, config->dkim_sign};
    const char *seen[DKIM_NAMES_MAX];
    uint32_t count = 0;
    for (unsigned list = 0; list < 2; list++) {
        for (char *const *at = lists[list]; at && *at; at++) {
            for (uint32_t i = 0; i < count; i++) {
                if (strcmp(seen[i], *at) == 0) {
                    reader_error(reader, reader_place(reader, *at), "`%s` stands twice in `oversign` and `sign`; remove one of them.", *at);
                }
            }
            if (count == DKIM_NAMES_MAX) {
                reader_error(reader, reader_place(reader, *at), "`oversign` and `sign` have more than %d names together; remove some.",
                             DKIM_NAMES_MAX);
                return;
            }
            seen[count++] = *at;
        }
    }
}

void config_dkim_free(struct config *config) {
    for (uint32_t i = 0; i < config->dkim_count; i++) {
        section_free(key_fields, &config->dkim[i]);
    }
    for (uint32_t i = 0; i < config->dkim_platform_count; i++) {
        section_free(key_fields, &config->dkim_platform[i]);
    }
    free(config->dkim);
    free(config->dkim_platform);
    texts_free(config->dkim_oversign);
    texts_free(config->dkim_sign);
}
