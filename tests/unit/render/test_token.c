/* Tokens of links and of VERP addresses: control/render/README.md says what they are. Two texts were made by another program (Python's
 * cryptography), so that the construction is what the page says. */
#include "unit.h"

#include "control/render/token.h"

#include <ctype.h>
#include <errno.h>

static struct identity *ours, *others;

static struct token whole_token(void) {
    return (struct token){.recipient = "bob@example.net",
                          .tenant = "shop",
                          .campaign = "spring",
                          .list = "news.example.org",
                          .id = "order-1",
                          .has_entry = true,
                          .shard = 2,
                          .entry = {1700000000123, 4},
                          .index = 499};
}

static void assert_same(const struct token *a, const struct token *b) {
    assert_string_equal(a->recipient, b->recipient);
    assert_string_equal(a->tenant, b->tenant);
    assert_string_equal(a->campaign, b->campaign);
    assert_string_equal(a->list, b->list);
    assert_string_equal(a->id, b->id);
    assert_int_equal(a->has_entry, b->has_entry);
    assert_int_equal(a->shard, b->shard);
    assert_int_equal(a->entry.ms, b->entry.ms);
    assert_int_equal(a->entry.seq, b->entry.seq);
    assert_int_equal(a->index, b->index);
}

static void a_token_holds_what_was_put_in(void **state) {
    struct token token = whole_token(), read;
    char text[TOKEN_TEXT_BYTES];
    for (int without = 0; without < 6; without++) {
        char *texts[] = {token.recipient, token.tenant, token.campaign, token.list, token.id};
        int length = token_write(ours, &token, text);
        assert_int_equal(length, strlen(text));
        assert_int_equal(token_read(ours, text, (size_t)length, &read), 0);
        assert_same(&token, &read);
        if (without < 5)
            texts[without][0] = '\0';
    }
}

static void the_longest_members_fit_and_longer_ones_are_refused(void **state) {
    struct token token = whole_token(), read;
    char text[TOKEN_TEXT_BYTES];
    memset(token.recipient, 'r', sizeof(token.recipient) - 1);
    memset(token.tenant, 't', sizeof(token.tenant) - 1);
    memset(token.campaign, 'c', sizeof(token.campaign) - 1);
    memset(token.list, 'l', sizeof(token.list) - 1);
    memset(token.id, 'i', sizeof(token.id) - 1);
    int length = token_write(ours, &token, text);
    assert_in_range(length, 900, TOKEN_TEXT_BYTES - 1);
    assert_int_equal(token_read(ours, text, (size_t)length, &read), 0);
    assert_same(&token, &read);
    token.index = 65536;
    assert_int_equal(token_write(ours, &token, text), -EINVAL);
}

static void a_repeat_is_the_same_and_nothing_can_be_read(void **state) {
    struct token token = whole_token();
    char first[TOKEN_TEXT_BYTES], again[TOKEN_TEXT_BYTES], foreign[TOKEN_TEXT_BYTES];
    token_write(ours, &token, first);
    token_write(ours, &token, again);
    assert_string_equal(first, again);
    token_write(others, &token, foreign);
    assert_string_not_equal(first, foreign);
    token.recipient[0] = 'c'; /* one letter, and no part of the text stays but the version */
    token_write(ours, &token, again);
    assert_memory_not_equal(first + 2, again + 2, 8);
    assert_memory_not_equal(first + 20, again + 20, 8);
    for (const char *at = first; *at != '\0'; at++)
        assert_true(isalnum((unsigned char)*at) || *at == '-' || *at == '_'); /* RFC 3986 2.3: nothing to escape in a URL */
}

/* Every character of it, changed to every other, cut or doubled. */
static void damage_is_seen(void **state) {
    struct token token = whole_token(), read;
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=. ";
    char text[TOKEN_TEXT_BYTES];
    size_t length = (size_t)token_write(ours, &token, text);
    for (size_t i = 0; i < length; i++) {
        char kept = text[i];
        for (const char *digit = digits; *digit != '\0'; digit++) {
            text[i] = *digit;
            if (*digit != kept)
                assert_int_not_equal(token_read(ours, text, length, &read), 0);
        }
        text[i] = kept;
        assert_int_not_equal(token_read(ours, text, i, &read), 0);
    }
    assert_int_equal(token_read(ours, text, length, &read), 0);
    assert_int_equal(token_read(others, text, length, &read), -EBADMSG);
    assert_int_equal(token_read(ours, "", 0, &read), -EINVAL);
    assert_int_equal(token_read(ours, "not a token", 11, &read), -EINVAL);
    text[1] = 'g'; /* the version, 2 */
    assert_int_equal(token_read(ours, text, length, &read), -ENOTSUP);
}

static void others_can_make_one(void **state) {
    static const char text[] =
        "AQABAgMEBQYHCAkKCzdA3I92-P_pOVY84mMtCdwdj1ax3dHzCiA5KpqS2gd61vdmMndeQ_AsukknOLnR4NXHlzrqdLMIaFFRii3Hc2_EzeETSwvDNSvxqL4FcA";
    struct token token = whole_token(), read;
    token.has_entry = false;
    token.entry = (struct entry_id){.ms = 0};
    token.shard = 0;
    token.index = 3;
    assert_int_equal(token_read(ours, text, sizeof(text) - 1, &read), 0);
    assert_same(&token, &read);
}

static void a_verp_token_names_job_and_recipient(void **state) {
    struct token token = {.has_entry = true, .shard = 2, .entry = {1700000000123, 4}, .index = 499}, read;
    char text[VERP_TOKEN_CHARACTERS + 1], address[320];
    static const char *const forms[] = {"%s", "b+%s", "b+%s@bounces.example.com", "a.b+c+%s@BOUNCES.example.com"};
    assert_int_equal(verp_write(ours, &token, text), 0);
    assert_string_equal(text, "aagf47zlipmaaaaaeaia7gckx3pf2t26wqh3sq");
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        for (int upper = 0; upper < 2; upper++) { /* RFC 5321 2.4: some servers change the case of a local part */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(address, sizeof(address), forms[i], text);
#pragma GCC diagnostic pop
            for (char *at = address; upper && *at != '\0'; at++)
                *at = (char)toupper((unsigned char)*at);
            assert_int_equal(verp_read(ours, address, &read), 0);
            assert_same(&token, &read);
        }
    }
}

static void a_verp_token_fits_a_local_part(void **state) {
    struct token token = {.has_entry = true, .shard = 255, .entry = {(1ull << 48) - 1, UINT32_MAX}, .index = 65535}, read;
    char text[VERP_TOKEN_CHARACTERS + 1];
    assert_int_equal(verp_write(ours, &token, text), 0);
    assert_int_equal(strlen(text), VERP_TOKEN_CHARACTERS);
    assert_true(VERP_PREFIX_MAX + 1 + VERP_TOKEN_CHARACTERS <= 64); /* RFC 5321 4.5.3.1.1 */
    assert_true(VERP_PREFIX_MAX >= 16);
    assert_int_equal(verp_read(ours, text, &read), 0);
    assert_same(&token, &read);
    token.entry.seq++;
    assert_int_equal(verp_write(ours, &token, text), -EINVAL);
    token.entry = (struct entry_id){1ull << 48, 0};
    assert_int_equal(verp_write(ours, &token, text), -EINVAL);
}

static void damage_to_a_verp_token_is_seen(void **state) {
    struct token token = {.has_entry = true, .shard = 2, .entry = {1700000000123, 4}, .index = 499}, read;
    char text[VERP_TOKEN_CHARACTERS + 2];
    static const char digits[] = "abcdefghijklmnopqrstuvwxyz23456701+@";
    verp_write(ours, &token, text);
    for (size_t i = 0; i < VERP_TOKEN_CHARACTERS; i++) {
        char kept = text[i];
        for (const char *digit = digits; *digit != '\0'; digit++) {
            text[i] = *digit;
            if (*digit != kept)
                assert_int_not_equal(verp_read(ours, text, &read), 0);
        }
        text[i] = kept;
    }
    assert_int_equal(verp_read(ours, text, &read), 0);
    assert_int_equal(verp_read(others, text, &read), -EBADMSG);
    strcat(text, "a");
    assert_int_equal(verp_read(ours, text, &read), -EINVAL);
    assert_int_equal(verp_read(ours, "bob@example.net", &read), -EINVAL);
    assert_int_equal(verp_read(ours, "", &read), -EINVAL);
}

static int set_up(void **state) {
    ours = unit_identity('k');
    others = unit_identity('o');
    return 0;
}

static int tear_down(void **state) {
    identity_free(ours);
    identity_free(others);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_holds_what_was_put_in),
        cmocka_unit_test(the_longest_members_fit_and_longer_ones_are_refused),
        cmocka_unit_test(a_repeat_is_the_same_and_nothing_can_be_read),
        cmocka_unit_test(damage_is_seen),
        cmocka_unit_test(others_can_make_one),
        cmocka_unit_test(a_verp_token_names_job_and_recipient),
        cmocka_unit_test(a_verp_token_fits_a_local_part),
        cmocka_unit_test(damage_to_a_verp_token_is_seen),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
