/* bulk.c: what a job takes from the configuration when it says nothing itself: the fields of bulk mail, and VERP. */
#include "control/config/config.h"
#include "decode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* A tag of ours somewhere in the text: "{{", perhaps "{", "&", "#", "^" or blanks, "bypost.". */
static bool names_built_in(const char *text) {
    static const char name[] = "bypost.";
    for (const char *at = text; at && (at = strstr(at, name)) != NULL; at += sizeof name - 1) {
        const char *before = at;
        while (before > text && strchr(" \t{&#^", before[-1])) {
            before--;
        }
        if (memmem(before, (size_t)(at - before), "{{", 2)) {
            return true;
        }
    }
    return false;
}

/* A message that may name one is its recipient's own: a tag may also have other delimiters, or line ends within. */
static bool may_name_built_in(const char *text) {
    return text && strstr(text, "bypost.") && strstr(text, "{{");
}

static bool fields_name_built_ins(const struct job *job) {
    return may_name_built_in(job->list_unsubscribe) || may_name_built_in(job->list_id) || may_name_built_in(job->feedback_id);
}

void bulk_note_built_ins(struct job *job) {
    bool texts = names_built_in(job->subject) || names_built_in(job->text) || names_built_in(job->html);
    bool may = may_name_built_in(job->subject) || may_name_built_in(job->text) || may_name_built_in(job->html);
    for (uint32_t i = 0; i < job->header_count; i++) {
        texts = texts || names_built_in(job->headers[i].value);
        may = may || may_name_built_in(job->headers[i].value);
    }
    job->fills_built_ins = texts;
    job->has_built_ins = may || fields_name_built_ins(job);
}

static bool has_header(const struct job *job, const char *name) {
    for (uint32_t i = 0; i < job->header_count; i++) {
        if (strcasecmp(job->headers[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* The configuration's text, where there is one and the job has no field of that name. False without memory. */
static bool text_give(struct job *job, char **field, const char *name, const char *text) {
    if (*field || !text || has_header(job, name)) {
        return true;
    }
    *field = strdup(text);
    return *field != NULL;
}

static bool unsubscribe_give(struct job *job, const struct config *config) {
    const char *url = config->bulk.unsubscribe_url, *mailto = config->bulk.unsubscribe_mailto;
    if (!url || !mailto) {
        return text_give(job, &job->list_unsubscribe, "List-Unsubscribe", url ? url : mailto);
    }
    if (job->list_unsubscribe || has_header(job, "List-Unsubscribe")) {
        return true;
    }
    if (asprintf(&job->list_unsubscribe, "<%s>, <%s>", url, mailto) < 0) {
        job->list_unsubscribe = NULL;
    }
    return job->list_unsubscribe != NULL;
}

/* NULL, or what is wrong. */
static const char *verp_give(struct job *job, const struct config *config, bool is_bulk) {
    bool wanted = job->verp == CHOICE_YES || (job->verp == CHOICE_NONE &&
                                              (config->verp.jobs == CONFIG_VERP_ALL || (config->verp.jobs == CONFIG_VERP_BULK && is_bulk)));
    bool null_sender = job->envelope_sender && job->envelope_sender[0] == 0;
    struct config_verp_sender sender = config_verp(config, job->tenant);
    if (!wanted || null_sender || job->verp_address) {
        return NULL;
    }
    if (!sender.domain) {
        /* A configuration without pools is a client's, who need not know what the sender has. */
        return job->verp == CHOICE_YES && config->pool_count > 0
                   ? "verp: The sender's configuration has no domain for it: set `verp: {domain: bounces.example.com}` there (or the "
                     "tenant's own, below `tenants`), or leave verp out."
                   : NULL;
    }
    if (asprintf(&job->verp_address, "%s@%s", sender.prefix, sender.domain) < 0) {
        job->verp_address = NULL;
        return DECODE_STARVED;
    }
    return NULL;
}

const char *job_bulk_fill(struct job *job, const struct config *config) {
    bool is_bulk = job->bulk == CHOICE_YES || (job->bulk == CHOICE_NONE && job->campaign);
    const char *fault = verp_give(job, config, is_bulk);
    if (fault || !is_bulk || job->raw) {
        return fault;
    }
    if (!unsubscribe_give(job, config) || !text_give(job, &job->list_id, "List-Id", config->bulk.list_id) ||
        !text_give(job, &job->feedback_id, "Feedback-ID", config->bulk.feedback_id)) {
        return DECODE_STARVED;
    }
    if (job->precedence == PRECEDENCE_UNSET && !has_header(job, "Precedence")) {
        job->precedence = (enum job_precedence)(PRECEDENCE_NONE + config->bulk.precedence);
    }
    job->has_built_ins |= fields_name_built_ins(job);
    return NULL;
}
