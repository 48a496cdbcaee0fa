/* Bodies of shared and own pieces: whatever the layout, the signature is that of the same message in one run (RFC 6376 3.4.4, 3.7); and
 * what bodies begin with in common is hashed once. */
#include "fixture.h"

#include "control/sign/signer.h"

#include <wolfssl/wolfcrypt/sha256.h>

enum { LINES_MAX = 60, LINE_BYTES = 40, PIECES_MAX = 40, BODY_MAX = 8192, ROUNDS = 4000 };

static uint64_t seed = 5;
static uint32_t dice(uint32_t sides) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % sides;
}

/* A content's shared lines, and the same in relaxed form, line by line. */
struct content_lines {
    struct shared_bytes shared;
    uint8_t bytes[LINES_MAX * (LINE_BYTES + 2)], relaxed[LINES_MAX * (LINE_BYTES + 2)];
    uint32_t line_count, at[LINES_MAX + 1], relaxed_at[LINES_MAX + 1];
};

static size_t random_line(uint8_t *out) {
    size_t length = dice(3) == 0 ? 0 : dice(LINE_BYTES);
    uint32_t blanks = dice(3); /* none, few, many */
    for (size_t i = 0; i < length; i++)
        out[i] = blanks > 0 && dice(blanks == 1 ? 12 : 2) == 0 ? (dice(3) == 0 ? '\t' : ' ') : (uint8_t)('a' + dice(26));
    memcpy(out + length, "\r\n", 2);
    return length + 2;
}

/* The rule said another way: white space runs are one space, and none at the end. */
static size_t relax_line(uint8_t *out, const uint8_t *line, size_t length) {
    size_t used = 0;
    for (size_t i = 0; i < length - 2; i++) {
        uint8_t byte = line[i] == '\t' ? ' ' : line[i];
        if (byte != ' ' || used == 0 || out[used - 1] != ' ')
            out[used++] = byte;
    }
    while (used > 0 && out[used - 1] == ' ')
        used--;
    memcpy(out + used, "\r\n", 2);
    return used + 2;
}

static void make_lines(struct content_lines *lines, uint64_t id) {
    uint32_t used = 0, relaxed_used = 0;
    lines->line_count = dice(LINES_MAX);
    for (uint32_t i = 0; i < lines->line_count; i++) {
        lines->at[i] = used;
        lines->relaxed_at[i] = relaxed_used;
        size_t length = random_line(lines->bytes + used);
        relaxed_used += (uint32_t)relax_line(lines->relaxed + relaxed_used, lines->bytes + used, length);
        used += (uint32_t)length;
    }
    lines->at[lines->line_count] = used;
    lines->relaxed_at[lines->line_count] = relaxed_used;
    lines->shared = (struct shared_bytes){.id = id, .bytes = lines->bytes, .length = used, .relaxed = lines->relaxed};
}

/* A message: header, then pieces. Own bytes are appended as they come. */
struct layout {
    struct message_piece pieces[PIECES_MAX];
    uint32_t count;
    uint8_t own[BODY_MAX];
    uint32_t own_length;
};

static void add_shared(struct layout *layout, const struct content_lines *lines, uint32_t from, uint32_t to) {
    if (layout->count < PIECES_MAX)
        layout->pieces[layout->count++] = (struct message_piece){.shared = true,
                                                                 .offset = lines->at[from],
                                                                 .length = lines->at[to] - lines->at[from],
                                                                 .relaxed_offset = lines->relaxed_at[from],
                                                                 .relaxed_length = lines->relaxed_at[to] - lines->relaxed_at[from]};
}

/* Lines of its own, in pieces that may end anywhere, a CR and its LF apart among them. */
static void add_own(struct layout *layout, uint32_t lines) {
    uint32_t first = layout->own_length;
    for (uint32_t i = 0; i < lines && layout->own_length + LINE_BYTES + 2 <= BODY_MAX; i++)
        layout->own_length += (uint32_t)random_line(layout->own + layout->own_length);
    for (uint32_t at = first; at < layout->own_length && layout->count < PIECES_MAX;) {
        uint32_t rest = layout->own_length - at;
        uint32_t length = layout->count + 1 == PIECES_MAX || dice(2) == 0 ? rest : 1 + dice(rest);
        layout->pieces[layout->count++] = (struct message_piece){.offset = at, .length = length};
        at += length;
    }
}

static void random_layout(struct layout *layout, const struct content_lines *lines) {
    layout->count = layout->own_length = 0;
    for (uint32_t parts = 1 + dice(8); parts > 0 && layout->count < PIECES_MAX - 1; parts--) {
        if (lines->line_count > 0 && dice(3) > 0) {
            uint32_t from = dice(lines->line_count), to = from + dice(lines->line_count - from + 1);
            if (dice(3) == 0) { /* in two, adjacent */
                uint32_t middle = from + dice(to - from + 1);
                add_shared(layout, lines, from, middle);
                from = middle;
            }
            add_shared(layout, lines, from, to);
        } else {
            add_own(layout, 1 + dice(4));
        }
    }
}

static const char header[] = "From: ann@example.org\r\nTo: bob@example.net\r\nSubject:  a\r\n\t b\r\n\r\n";

static void make_message(struct message *message, const struct layout *layout, const struct content_lines *lines) {
    message_init(message);
    message->start = MESSAGE_HEADROOM_BYTES;
    message->header_length = sizeof(header) - 1;
    message->own_length = message->header_length + layout->own_length;
    message->length = message->header_length;
    message->capacity = message->start + message->own_length;
    message->bytes = malloc(message->capacity);
    memcpy(message->bytes + message->start, header, message->header_length);
    memcpy(message->bytes + message->start + message->header_length, layout->own, layout->own_length);
    message->pieces = calloc(layout->count + 1, sizeof(*message->pieces));
    memcpy(message->pieces, layout->pieces, layout->count * sizeof(*message->pieces));
    message->piece_count = layout->count;
    message->piece_capacity = layout->count + 1;
    message->shared = &lines->shared;
    for (uint32_t i = 0; i < layout->count; i++)
        message->length += layout->pieces[i].length;
    strcpy(message->from_domain, "example.org");
}

static struct dkim_signer *signer_with(struct dkim_keys **keys) {
    struct config_dkim_key configured = {.domain = "example.org", .selector = "s1", .key_file = key_ed25519};
    *keys = load_good(&configured, 1);
    return dkim_signer_create(*keys);
}

/* Signs the message as it is, and flattened by another signer; the fields and all else must be the same. */
static void assert_same_signature(struct dkim_signer *signer, struct dkim_signer *plain, const struct layout *layout,
                                  const struct content_lines *lines) {
    struct message message, flat;
    make_message(&message, layout, lines);
    make_message(&flat, layout, lines);
    assert_int_equal(message_flatten(&flat), 0);
    assert_int_equal(dkim_sign(signer, &message, NULL, 1), 1);
    assert_int_equal(dkim_sign(plain, &flat, NULL, 1), 1);
    assert_int_equal(message.header_length, flat.header_length);
    assert_memory_equal(message.bytes + message.start, flat.bytes + flat.start, flat.header_length);
    assert_int_equal(message_flatten(&message), 0);
    assert_int_equal(message.length, flat.length);
    assert_memory_equal(message.bytes + message.start, flat.bytes + flat.start, flat.length);
    message_free(&message);
    message_free(&flat);
}

static void random_layouts_are_signed_as_the_flat_message(void **state) {
    struct dkim_keys *keys, *plain_keys;
    struct dkim_signer *signer = signer_with(&keys), *plain = signer_with(&plain_keys);
    static struct content_lines contents[3];
    static struct layout layout;
    for (int round = 0; round < ROUNDS; round++) {
        if (round % 20 == 0)
            for (int i = 0; i < 3; i++)
                make_lines(&contents[i], (uint64_t)round * 3 + (uint64_t)i + 1);
        const struct content_lines *lines = &contents[dice(3)];
        random_layout(&layout, lines);
        assert_same_signature(signer, plain, &layout, lines);
        if (dice(3) == 0) /* known now */
            assert_same_signature(signer, plain, &layout, lines);
    }
    struct dkim_counters counters = {0};
    dkim_signer_counters(signer, &counters);
    assert_true(counters.body_bytes_hashed < counters.body_bytes);
    dkim_signer_free(signer);
    dkim_signer_free(plain);
    dkim_keys_free(keys);
    dkim_keys_free(plain_keys);
}

/* Lines whose white space makes no difference: the relaxed form is as long as the lines. */
static void make_plain_lines(struct content_lines *lines, uint64_t id, const char *const *texts) {
    uint32_t used = 0;
    for (lines->line_count = 0; texts[lines->line_count] != NULL; lines->line_count++) {
        lines->at[lines->line_count] = lines->relaxed_at[lines->line_count] = used;
        used += (uint32_t)snprintf((char *)lines->bytes + used, sizeof(lines->bytes) - used, "%s\r\n", texts[lines->line_count]);
    }
    lines->at[lines->line_count] = lines->relaxed_at[lines->line_count] = used;
    memcpy(lines->relaxed, lines->bytes, used);
    lines->shared = (struct shared_bytes){.id = id, .bytes = lines->bytes, .length = used, .relaxed = lines->relaxed};
}

static void empty_lines_count_only_before_others_wherever_they_lie(void **state) {
    static const char *const texts[] = {"a", "", "", "b", "", "", NULL};
    static struct content_lines lines;
    static struct layout layout;
    struct dkim_keys *keys, *plain_keys;
    struct dkim_signer *signer = signer_with(&keys), *plain = signer_with(&plain_keys);
    make_plain_lines(&lines, 9, texts);
    /* Shared lines [from, to), then own lines, then shared ones again: each with empty lines at its end, or of nothing else. */
    static const char *const own[] = {"", "\r\n", "x\r\n", "\r\nx\r\n\r\n", " \r\n", "x \r\n\t\r\n"};
    for (uint32_t from = 0; from <= 6; from++) {
        for (uint32_t to = from; to <= 6; to++) {
            for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++) {
                for (uint32_t last = 0; last <= 6; last += 2) {
                    layout.count = 0;
                    layout.own_length = (uint32_t)strlen(own[i]);
                    memcpy(layout.own, own[i], layout.own_length);
                    add_shared(&layout, &lines, from, to);
                    layout.pieces[layout.count++] = (struct message_piece){.length = layout.own_length};
                    add_shared(&layout, &lines, last, 6);
                    assert_same_signature(signer, plain, &layout, &lines);
                }
            }
        }
    }
    dkim_signer_free(signer);
    dkim_signer_free(plain);
    dkim_keys_free(keys);
    dkim_keys_free(plain_keys);
}

static uint64_t hashed_by(struct dkim_signer *signer, const struct layout *layout, const struct content_lines *lines) {
    struct dkim_counters before = {0}, after = {0};
    struct message message;
    dkim_signer_counters(signer, &before);
    make_message(&message, layout, lines);
    assert_int_equal(dkim_sign(signer, &message, NULL, 1), 1);
    message_free(&message);
    dkim_signer_counters(signer, &after);
    return after.body_bytes_hashed - before.body_bytes_hashed;
}

static void what_bodies_begin_with_in_common_is_hashed_once(void **state) {
    static const char *const texts[] = {"0123456789", "0123456789", "0123456789", "0123456789", NULL};
    static struct content_lines lines, other;
    static struct layout layout;
    struct dkim_keys *keys;
    struct dkim_signer *signer = signer_with(&keys);
    make_plain_lines(&lines, 1, texts);
    make_plain_lines(&other, 2, texts);
    /* Three shared lines (36 bytes, in two pieces), one of its own (4), a shared one (12). */
    layout.own_length = 4;
    memcpy(layout.own, "me\r\n", 4);
    add_shared(&layout, &lines, 0, 1);
    add_shared(&layout, &lines, 1, 3);
    layout.pieces[layout.count++] = (struct message_piece){.length = 4};
    add_shared(&layout, &lines, 3, 4);
    assert_int_equal(hashed_by(signer, &layout, &lines), 52);
    assert_int_equal(hashed_by(signer, &layout, &lines), 16);
    memcpy(layout.own, "it\r\n", 4);
    assert_int_equal(hashed_by(signer, &layout, &lines), 16);
    assert_int_equal(hashed_by(signer, &layout, &other), 52); /* another content: another id */
    layout.pieces[0].length = 12;
    layout.pieces[1] = layout.pieces[2]; /* it begins with less: another state */
    layout.pieces[2] = layout.pieces[3];
    layout.count = 3;
    assert_int_equal(hashed_by(signer, &layout, &lines), 28);
    assert_int_equal(hashed_by(signer, &layout, &lines), 16);
    /* Wholly shared: not at all the second time. */
    layout.count = layout.own_length = 0;
    add_shared(&layout, &lines, 0, 4);
    assert_int_equal(hashed_by(signer, &layout, &lines), 48);
    assert_int_equal(hashed_by(signer, &layout, &lines), 0);
    /* As many contents at a time as are remembered, and one more takes the place of the oldest. */
    static struct content_lines many[BODY_ENTRIES + 1];
    for (uint64_t i = 0; i <= BODY_ENTRIES; i++) {
        make_plain_lines(&many[i], 100 + i, texts);
        assert_int_equal(hashed_by(signer, &layout, &many[i]), 48);
    }
    assert_int_equal(hashed_by(signer, &layout, &many[1]), 0);
    assert_int_equal(hashed_by(signer, &layout, &many[0]), 48);
    assert_int_equal(hashed_by(signer, &layout, &many[1]), 0);
    assert_int_equal(hashed_by(signer, &layout, &many[2]), 48);
    dkim_signer_free(signer);
    dkim_keys_free(keys);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_layouts_are_signed_as_the_flat_message),
        cmocka_unit_test(empty_lines_count_only_before_others_wherever_they_lie),
        cmocka_unit_test(what_bodies_begin_with_in_common_is_hashed_once),
    };
    return cmocka_run_group_tests_name("sign/pieces", tests, set_up, tear_down);
}
