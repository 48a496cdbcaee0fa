/* bulk.c: the fields of bulk mail, the variables that render knows itself, and VERP senders. */
#include "bulk.h"
#include "control/bulk_field.h"
#include "encode.h"
#include "header.h"
#include "token.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { UNSUBSCRIBE_URIS_MAX = 8, UNSUBSCRIBE_TAGS_MAX = 16, TAG_BYTES = 160 };

bool bulk_has_templates(const struct job *job) {
    return merge_is_template(job->list_unsubscribe) || merge_is_template(job->list_id) || merge_is_template(job->feedback_id);
}

static const char *const field_names[] = {"List-Unsubscribe", "List-Unsubscribe-Post", "List-Id", "Feedback-ID", "Precedence"};

bool bulk_field_name(const char *name) {
    for (size_t i = 0; i < sizeof(field_names) / sizeof(field_names[0]); i++)
        if (strcasecmp(name, field_names[i]) == 0)
            return true;
    return false;
}

bool bulk_owns(const struct job *job, const char *name) {
    const bool given[] = {job->list_unsubscribe != NULL, job->list_unsubscribe != NULL, job->list_id != NULL, job->feedback_id != NULL,
                          job->precedence != PRECEDENCE_UNSET};
    for (size_t i = 0; i < sizeof(field_names) / sizeof(field_names[0]); i++)
        if (given[i] && strcasecmp(name, field_names[i]) == 0)
            return true;
    return false;
}

/* -- filling in -- */

/* A value within a URI: all but RFC 3986's unreserved characters are escaped (2.3), so that it stays one part of it. */
static void write_escaped(struct writer *writer, const char *value, size_t length) {
    static const bool unreserved[256] = {
        ['A' ... 'Z'] = true, ['a' ... 'z'] = true, ['0' ... '9'] = true, ['-'] = true, ['.'] = true, ['_'] = true, ['~'] = true};
    for (const char *end = value + length;; value++) {
        const char *plain = value;
        while (value < end && unreserved[(uint8_t)*value])
            value++;
        writer_bytes(writer, plain, (size_t)(value - plain));
        if (value == end)
            return;
        const char escaped[3] = {'%', encode_hex[(uint8_t)*value >> 4], encode_hex[(uint8_t)*value & 15]};
        writer_bytes(writer, escaped, sizeof(escaped));
    }
}

static void put_escaped(void *context, const char *text, size_t length) {
    write_escaped(context, text, length);
}

/* One tag of a URI, in out[TAG_BYTES]: {{name}}, which is escaped, or {{{name}}} and {{&name}}, which go in as they are (*raw). Its length,
 * or 0: it is none. */
static size_t take_tag(const char *tag, char *out, bool *raw) {
    char sign = tag[2 + strspn(tag + 2, " \t")];
    bool triple = sign == '{';
    const char *end = strstr(tag + 2, triple ? "}}}" : "}}");
    size_t length = end == NULL ? 0 : (size_t)(end - tag) + (triple ? 3 : 2);
    *raw = triple || sign == '&';
    if (length >= TAG_BYTES)
        return 0;
    memcpy(out, tag, length);
    out[length] = '\0';
    return length;
}

static const char tag_fault[] = "a tag \"{{\" of list_unsubscribe has no name or no end";

const struct mustache_op *bulk_unknown_variable(const struct mustache *program) {
    static const char ours[] = MERGE_BUILT_IN;
    char name[MUSTACHE_NAME_BYTES];
    for (uint32_t i = 0; i < program->count; i++) {
        const struct mustache_op *op = &program->ops[i];
        if (op->kind != MUSTACHE_VARIABLE || op->length < sizeof(ours) || memcmp(op->text, ours, sizeof(ours) - 1) != 0)
            continue;
        snprintf(name, sizeof(name), "%.*s", (int)(op->length - (sizeof(ours) - 1)), op->text + sizeof(ours) - 1);
        if (!built_in_is_known(name))
            return op;
    }
    return NULL;
}

int bulk_check_unsubscribe(const char *list_unsubscribe, char *error, size_t error_bytes) {
    char one[TAG_BYTES], fault[TAG_BYTES];
    struct mustache program;
    bool raw;
    for (const char *tag = list_unsubscribe; tag != NULL && (tag = strstr(tag, "{{")) != NULL;) {
        size_t length = take_tag(tag, one, &raw);
        int result = length == 0 ? -EINVAL : mustache_compile(&program, one, fault, sizeof(fault));
        if (length == 0)
            snprintf(error, error_bytes, "%s", tag_fault);
        else if (result != 0)
            snprintf(error, error_bytes, "list_unsubscribe, in \"%s\": %s", one, fault);
        if (result != 0)
            return result;
        bool known = bulk_unknown_variable(&program) == NULL;
        mustache_free(&program);
        if (!known) {
            snprintf(error, error_bytes, "list_unsubscribe: there is no variable %s; of bypost there are " BUILT_IN_NAMES, one);
            return -EINVAL;
        }
        tag += length;
    }
    return 0;
}

void bulk_prepare(struct render_prepared *prepared) {
    const char *tag = prepared->fields->list_unsubscribe;
    char one[TAG_BYTES], fault[TAG_BYTES];
    struct mustache program;
    while (tag != NULL && (tag = strstr(tag, "{{")) != NULL && prepared->tag_count < UNSUBSCRIBE_TAGS_MAX) {
        bool raw;
        size_t length = take_tag(tag, one, &raw);
        if (length == 0 || mustache_compile(&program, one, fault, sizeof(fault)) != 0)
            return;
        if (program.count == 1 && program.ops[0].kind == MUSTACHE_VARIABLE) {
            program.ops[0].text = tag + (program.ops[0].text - one); /* `one` goes */
            merge_number(&program, &prepared->names);
            if (prepared->tags == NULL)
                prepared->tags = calloc(UNSUBSCRIBE_TAGS_MAX, sizeof(*prepared->tags));
            if (prepared->tags != NULL)
                prepared->tags[prepared->tag_count++] =
                    (struct prepared_tag){.at = tag, .length = (uint32_t)length, .raw = raw, .variable = program.ops[0]};
        }
        mustache_free(&program);
        tag += length;
    }
}

static const struct prepared_tag *prepared_tag(const struct rendering *r, const char *tag) {
    for (uint32_t i = 0; r->prepared != NULL && i < r->prepared->tag_count; i++)
        if (r->prepared->tags[i].at == tag)
            return &r->prepared->tags[i];
    return NULL;
}

/* Writes a tag's value. Returns what is behind the tag, or NULL. */
static const char *write_tag(struct rendering *r, struct writer *writer, const char *tag) {
    char one[TAG_BYTES], *value;
    bool raw;
    const struct prepared_tag *known = prepared_tag(r, tag);
    struct value found;
    if (known != NULL) {
        if (merge_variable(r->merge, &known->variable, &found, r->error, r->error_bytes) != 0)
            return NULL;
        if (known->raw)
            value_write(&found, false, writer);
        else
            value_put(&found, false, put_escaped, writer);
        return tag + known->length;
    }
    size_t length = take_tag(tag, one, &raw);
    if (length == 0) {
        rendering_fail(r, -EINVAL, "%s", tag_fault);
        return NULL;
    }
    if (merge_expand(r->merge, one, false, r->max_bytes, &value, r->error, r->error_bytes) != 0)
        return NULL;
    if (raw)
        writer_text(writer, value);
    else
        write_escaped(writer, value, strlen(value));
    free(value);
    return tag + length;
}

/* The value of List-Unsubscribe with its variables, kept in r->bulk.unsubscribe; NULL with a sentence. */
static const char *unsubscribe_value(struct rendering *r) {
    const char *at = r->job->list_unsubscribe;
    if (at == NULL || r->bulk.unsubscribe != NULL || r->merge == NULL || !merge_is_template(at))
        return r->bulk.unsubscribe != NULL ? r->bulk.unsubscribe : at;
    struct writer writer = {.limit = r->max_bytes};
    r->bulk.unsubscribe_begun = true; /* {{bypost.unsubscribe_url}} in it would be itself */
    for (const char *tag; at != NULL && (tag = strstr(at, "{{")) != NULL;) {
        writer_bytes(&writer, at, (size_t)(tag - at));
        at = write_tag(r, &writer, tag);
    }
    r->bulk.unsubscribe_begun = false;
    if (at != NULL) {
        writer_text(&writer, at);
        writer_byte(&writer, '\0');
        if (writer.error != 0)
            rendering_fail(r, -EINVAL, "list_unsubscribe is too long with its variables filled in");
    }
    if (at == NULL || writer.error != 0) {
        free(writer.bytes);
        return NULL;
    }
    r->bulk.unsubscribe = (char *)writer.bytes;
    return r->bulk.unsubscribe;
}

/* A header's text with its variables. 0, or -EINVAL with a sentence; *owned is the caller's. */
static int fill(struct rendering *r, const char *text, const char **out, char **owned) {
    *out = text;
    *owned = NULL;
    if (r->merge == NULL || !merge_is_template(text))
        return 0;
    int result = merge_expand(r->merge, text, false, r->max_bytes, owned, r->error, r->error_bytes);
    *out = *owned;
    return result;
}

/* -- List-Unsubscribe -- */

struct uri {
    const char *text;
    size_t length;
};

static bool uri_begins(const struct uri *uri, const char *scheme) {
    return uri->length > strlen(scheme) && strncasecmp(uri->text, scheme, strlen(scheme)) == 0;
}

static bool uri_is_clean(const struct uri *uri) {
    static const bool dirty[256] = {[0 ... ' '] = true, ['<'] = true, ['>'] = true, [127 ... 255] = true};
    bool any = false;
    for (size_t i = 0; i < uri->length; i++)
        any |= dirty[(uint8_t)uri->text[i]];
    if (any)
        return false;
    return uri->length <= HEADER_LINE_MAX - 32 && (uri_begins(uri, "https://") || uri_begins(uri, "mailto:") || uri_begins(uri, "http://"));
}

/* One URI, or several in angle brackets with commas. How many; -EINVAL: it is neither. */
static int uris_parse(const char *value, struct uri *uris) {
    bool bracketed = value[0] == '<';
    int count = 0;
    for (const char *at = value; count < UNSUBSCRIBE_URIS_MAX;) {
        const char *text = at + bracketed;
        struct uri *uri = &uris[count++];
        *uri = (struct uri){.text = text, .length = bracketed ? strcspn(text, ">") : strlen(text)};
        if (!uri_is_clean(uri) || (bracketed && text[uri->length] != '>'))
            return -EINVAL;
        at = text + uri->length + bracketed;
        at += strspn(at, ", \t");
        if (*at == '\0')
            return count;
        if (!bracketed || *at != '<')
            return -EINVAL;
    }
    return -EINVAL;
}

/* RFC 2369 3.2; with an https: URI, of which there may be one and no http: one beside it, also one-click (RFC 8058 3.1). */
static int write_list_unsubscribe(struct rendering *r) {
    struct uri uris[UNSUBSCRIBE_URIS_MAX];
    char text[80];
    const char *value = unsubscribe_value(r);
    if (value == NULL)
        return -EINVAL;
    int count = uris_parse(value, uris), links = 0;
    if (count < 0)
        return rendering_fail(r, -EINVAL, "list_unsubscribe is not an https: or mailto: URI: \"%s\"",
                              rendering_shown(value, text, sizeof(text)));
    bool one_click = false;
    for (int i = 0; i < count; i++) {
        links += uri_begins(&uris[i], "http");
        one_click |= uri_begins(&uris[i], "https:");
    }
    if (links > 1)
        return rendering_fail(r, -EINVAL, "list_unsubscribe has %d links; RFC 8058 3.1 wants one https: URI", links);
    writer_text(&r->writer, "List-Unsubscribe:");
    for (int i = 0; i < count; i++) {
        if (i > 0) {
            writer_byte(&r->writer, ',');
            writer_fold(&r->writer);
        }
        writer_text(&r->writer, " <");
        writer_bytes(&r->writer, uris[i].text, uris[i].length);
        writer_byte(&r->writer, '>');
    }
    writer_crlf(&r->writer);
    if (one_click) {
        writer_text(&r->writer, "List-Unsubscribe-Post: List-Unsubscribe=One-Click");
        writer_crlf(&r->writer);
    }
    return 0;
}

/* -- List-Id, Feedback-ID, Precedence -- */

static int write_list_id(struct rendering *r) {
    const char *value, *id;
    char *owned, text[80];
    size_t words, length;
    int result = fill(r, r->job->list_id, &value, &owned);
    if (result == 0 && !list_id_parse(value, &words, &id, &length))
        result = rendering_fail(r, -EINVAL, "list_id is not like news.example.com (RFC 2919): \"%s\"",
                                rendering_shown(value, text, sizeof(text)));
    if (result == 0)
        header_phrase(&r->writer, "List-Id", value, words, id, length);
    free(owned);
    return result;
}

static int write_feedback_id(struct rendering *r) {
    const char *value;
    char *owned, text[80];
    int result = fill(r, r->job->feedback_id, &value, &owned);
    if (result == 0 && !feedback_id_is_legal(value))
        result = rendering_fail(r, -EINVAL, "feedback_id has not four parts with colons, the last of 5 to 15 characters: \"%s\"",
                                rendering_shown(value, text, sizeof(text)));
    if (result == 0)
        header_text(&r->writer, "Feedback-ID", value);
    free(owned);
    return result;
}

int bulk_write(struct rendering *r) {
    const struct job *job = r->job;
    int result = job->list_id == NULL ? 0 : write_list_id(r);
    if (result == 0 && job->list_unsubscribe != NULL)
        result = write_list_unsubscribe(r);
    if (result == 0 && job->feedback_id != NULL)
        result = write_feedback_id(r);
    if (result == 0 && (job->precedence == PRECEDENCE_BULK || job->precedence == PRECEDENCE_LIST)) {
        writer_text(&r->writer, job->precedence == PRECEDENCE_BULK ? "Precedence: bulk" : "Precedence: list");
        writer_crlf(&r->writer);
    }
    return result;
}

/* -- variables -- */

static void copy(char *out, size_t out_bytes, const char *text) {
    snprintf(out, out_bytes, "%s", text == NULL ? "" : text);
}

/* The identifier of List-Id alone, or "". A list_id that is made of the token is not in the token. */
static const char *list_identifier(struct rendering *r) {
    const char *value, *id;
    char *owned;
    size_t length;
    if (r->bulk.list[0] != '\0' || r->job->list_id == NULL || r->bulk.list_begun)
        return r->bulk.list;
    r->bulk.list_begun = true;
    if (fill(r, r->job->list_id, &value, &owned) == 0 && list_id_parse(value, NULL, &id, &length) && length < sizeof(r->bulk.list)) {
        memcpy(r->bulk.list, id, length);
        r->bulk.list[length] = '\0';
    }
    r->bulk.list_begun = false;
    free(owned);
    return r->bulk.list;
}

static void token_entry(const struct job *job, uint32_t index, struct token *token) {
    token->has_entry = true;
    token->entry = job->history.origin;
    token->shard = job->shard;
    token->index = index;
}

static const char *own_token(struct rendering *r) {
    const struct job *job = r->job;
    struct token token = {.index = r->index};
    if (r->bulk.token[0] != '\0')
        return r->bulk.token;
    copy(token.recipient, sizeof(token.recipient), r->recipient->mailbox.email);
    copy(token.tenant, sizeof(token.tenant), job->tenant);
    copy(token.campaign, sizeof(token.campaign), job->campaign);
    copy(token.list, sizeof(token.list), list_identifier(r));
    if (job->id != NULL && job->id[0] != '\0' && strlen(job->id) < sizeof(token.id))
        copy(token.id, sizeof(token.id), job->id);
    else
        token_entry(job, r->index, &token);
    return token_write(r->identity, &token, r->bulk.token) > 0 ? r->bulk.token : NULL;
}

/* The first URI of that scheme, cut out of the list. */
static const char *unsubscribe_uri(struct rendering *r, const char *scheme, char **kept) {
    struct uri uris[UNSUBSCRIBE_URIS_MAX];
    if (*kept != NULL || r->bulk.unsubscribe_begun || r->job->list_unsubscribe == NULL)
        return *kept;
    const char *value = unsubscribe_value(r);
    int count = value == NULL ? 0 : uris_parse(value, uris);
    for (int i = 0; i < count && *kept == NULL; i++)
        if (uri_begins(&uris[i], scheme))
            *kept = strndup(uris[i].text, uris[i].length);
    return *kept;
}

const char *bulk_built_in(void *context, const char *name) {
    struct rendering *r = context;
    const struct job *job = r->job;
    if (strcmp(name, "unsubscribe_url") == 0)
        return unsubscribe_uri(r, "https:", &r->bulk.unsubscribe_url);
    if (strcmp(name, "unsubscribe_mailto") == 0)
        return unsubscribe_uri(r, "mailto:", &r->bulk.unsubscribe_mailto);
    if (strcmp(name, "unsubscribe_token") == 0)
        return own_token(r);
    if (strcmp(name, "email") == 0)
        return r->recipient->mailbox.email;
    if (strcmp(name, "message_id") == 0) {
        snprintf(r->bulk.message_id, sizeof(r->bulk.message_id), "%s@%s", r->name, r->message->from_domain);
        return r->bulk.message_id;
    }
    if (strcmp(name, "job") == 0) {
        snprintf(r->bulk.entry, sizeof(r->bulk.entry), "%" PRIu64 "-%" PRIu64, job->history.origin.ms, job->history.origin.seq);
        return r->bulk.entry;
    }
    if (strcmp(name, "list_id") == 0)
        return list_identifier(r);
    const char *text = strcmp(name, "id") == 0         ? job->id
                       : strcmp(name, "tenant") == 0   ? job->tenant
                       : strcmp(name, "campaign") == 0 ? job->campaign
                                                       : "\n";
    return text == NULL ? "" : text[0] == '\n' ? NULL : text;
}

void bulk_free(struct rendering *r) {
    free(r->bulk.unsubscribe);
    free(r->bulk.unsubscribe_url);
    free(r->bulk.unsubscribe_mailto);
}

/* -- VERP -- */

int bulk_verp(struct rendering *r) {
    const struct job *job = r->job;
    struct message *message = r->message;
    char text[VERP_TOKEN_CHARACTERS + 1];
    if (message->sender[0] == '\0' || (job->verp_address == NULL && job->verp != CHOICE_YES))
        return 0;
    if (job->verp_address == NULL)
        return rendering_fail(r, -EINVAL, "the job asks for verp, and the configuration has no domain for it (verp.domain)");
    struct token token = {.index = 0};
    token_entry(job, r->index, &token);
    size_t prefix = strcspn(job->verp_address, "@");
    if (prefix > VERP_PREFIX_MAX || strlen(job->verp_address) + 1 + VERP_TOKEN_CHARACTERS >= sizeof(message->sender) ||
        verp_write(r->identity, &token, text) != 0)
        return rendering_fail(r, -EINVAL, "the job's entry cannot be put into a VERP address");
    snprintf(message->sender, sizeof(message->sender), "%.*s+%s%s", (int)prefix, job->verp_address, text, job->verp_address + prefix);
    return 0;
}
