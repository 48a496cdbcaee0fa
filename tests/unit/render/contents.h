/* contents.h: what tests of shared contents have in common: a job with its content in three ways, and what DKIM hashes of a message. */
#ifndef TESTS_UNIT_RENDER_CONTENTS_H
#define TESTS_UNIT_RENDER_CONTENTS_H

#include "unit.h"
#include "control/render/prepared.h"
#include "control/sign/body.h"

/* A job with everything in it; the same with a shared content; and with one that was prepared. */
enum { WAY_JOB, WAY_CONTENT, WAY_PREPARED, WAYS };

struct ways {
    struct job fields, jobs[WAYS];
    struct content contents[WAYS];
    struct render_prepared *prepared;
    struct identity *identity;
    struct message messages[WAYS];
    int results[WAYS];
    char errors[WAYS][256];
};

/* `u` outlives the ways. */
static inline void ways_open(struct ways *ways, const struct unit_job *u) {
    memset(ways, 0, sizeof(*ways));
    ways->identity = unit_identity('k');
    ways->fields = u->job;
    ways->prepared = render_prepare(&ways->fields, "spring", ways->identity);
    assert_non_null(ways->prepared);
    for (int way = 0; way < WAYS; way++) {
        ways->contents[way] =
            (struct content){.references = 1, .fields = &ways->fields, .prepared = way == WAY_PREPARED ? ways->prepared : NULL};
        ways->jobs[way] = u->job;
        ways->jobs[way].content = way == WAY_JOB ? NULL : &ways->contents[way];
        ways->jobs[way].content_id = way == WAY_JOB ? NULL : (char *)"spring";
        message_init(&ways->messages[way]);
    }
}

static inline void ways_close(struct ways *ways) {
    for (int way = 0; way < WAYS; way++)
        message_free(&ways->messages[way]);
    render_prepared_free(ways->prepared);
    identity_free(ways->identity);
}

/* The prepared one stays in pieces. */
static inline void ways_render(struct ways *ways, uint32_t index, size_t max_bytes) {
    for (int way = 0; way < WAYS; way++) {
        ways->errors[way][0] = '\0';
        ways->results[way] = render_message(&ways->jobs[way], index, unit_date_s, ways->identity, max_bytes, &ways->messages[way],
                                            ways->errors[way], sizeof(ways->errors[way]));
    }
}

/* A message in pieces and in one run have the same body for DKIM (RFC 6376 3.4.4); it is in one run afterwards. */
static inline void assert_body_hash(struct message *message) {
    static struct body_cache cache;
    static struct canonical canonical;
    uint8_t pieces[BODY_DIGEST_BYTES], again[BODY_DIGEST_BYTES], whole[BODY_DIGEST_BYTES];
    assert_int_equal(body_hash(&cache, &canonical, message, pieces), 0);
    assert_int_equal(body_hash(&cache, &canonical, message, again), 0); /* from what the first left in the cache */
    assert_int_equal(message_flatten(message), 0);
    canonical_begin(&canonical);
    canonical_body(&canonical, message->bytes + message->start + message->header_length, message->length - message->header_length);
    assert_int_equal(canonical_end(&canonical, whole), 0);
    assert_memory_equal(pieces, whole, sizeof(whole));
    assert_memory_equal(again, whole, sizeof(whole));
}

/* All three are one message, or fail alike; they are in one run afterwards. True: there is one. Boundaries must not be in it. */
static inline bool assert_ways_agree(struct ways *ways) {
    struct message *prepared = &ways->messages[WAY_PREPARED];
    for (int way = 0; way < WAYS; way++) {
        assert_int_equal(ways->results[way], ways->results[WAY_PREPARED]);
        assert_string_equal(ways->errors[way], ways->errors[WAY_PREPARED]);
    }
    if (ways->results[WAY_PREPARED] != 0)
        return false;
    assert_body_hash(prepared);
    unit_assert_wire_form(prepared);
    for (int way = 0; way < WAY_PREPARED; way++) {
        struct message *message = &ways->messages[way];
        assert_int_equal(message_flatten(message), 0);
        assert_int_equal(message->length, prepared->length);
        assert_memory_equal(message->bytes + message->start, prepared->bytes + prepared->start, prepared->length);
        assert_int_equal(message->header_length, prepared->header_length);
        assert_int_equal(message->needs_smtputf8, prepared->needs_smtputf8);
        assert_int_equal(message->body_8bit, prepared->body_8bit);
        assert_int_equal(message->has_leading_dots, prepared->has_leading_dots);
        assert_string_equal(message->from_domain, prepared->from_domain);
        assert_string_equal(message->sender, prepared->sender);
        assert_string_equal(message->recipient, prepared->recipient);
    }
    return true;
}

#endif
