/* text.c: 64 bytes at a time where a stretch has nothing but good lines, byte by byte around dots and faults. */
#include "text.h"

#include <string.h>
#ifdef __SSE2__
#include <immintrin.h>
#endif

enum { BLOCK_BYTES = 64 };

void text_start(struct text *text, bool dots) {
    *text = (struct text){.state = TEXT_LINE_START, .dots = dots};
}

/* A bit for each byte of the block. */
struct masks {
    uint64_t lf, cr, dot, eight_bit;
};

/* Reads a whole block. */
static inline struct masks block_masks(const uint8_t *bytes) {
    struct masks masks = {0};
#ifdef __SSE2__
    for (unsigned part = 0; part < BLOCK_BYTES; part += 16) {
        __m128i sixteen = _mm_loadu_si128((const __m128i *)(const void *)(bytes + part));
        masks.lf |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(sixteen, _mm_set1_epi8('\n'))) << part;
        masks.cr |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(sixteen, _mm_set1_epi8('\r'))) << part;
        masks.dot |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(sixteen, _mm_set1_epi8('.'))) << part;
        masks.eight_bit |= (uint64_t)(uint32_t)_mm_movemask_epi8(sixteen) << part;
    }
#else
    for (unsigned i = 0; i < BLOCK_BYTES; i++) {
        uint64_t bit = (uint64_t)1 << i;
        masks.lf |= bytes[i] == '\n' ? bit : 0;
        masks.cr |= bytes[i] == '\r' ? bit : 0;
        masks.dot |= bytes[i] == '.' ? bit : 0;
        masks.eight_bit |= bytes[i] >= 0x80 ? bit : 0;
    }
#endif
    return masks;
}

#ifdef __SSE2__
__attribute__((target("avx2"))) static inline struct masks block_masks_avx2(const uint8_t *bytes) {
    struct masks masks = {0};
    for (unsigned part = 0; part < BLOCK_BYTES; part += 32) {
        __m256i half = _mm256_loadu_si256((const __m256i *)(const void *)(bytes + part));
        masks.lf |= (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(half, _mm256_set1_epi8('\n'))) << part;
        masks.cr |= (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(half, _mm256_set1_epi8('\r'))) << part;
        masks.dot |= (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(half, _mm256_set1_epi8('.'))) << part;
        masks.eight_bit |= (uint64_t)(uint32_t)_mm256_movemask_epi8(half) << part;
    }
    return masks;
}
#endif

/* Passes over blocks, the last perhaps short, in which every CR and LF are a pair and no line begins with a dot. Returns the bytes passed
 * over. */
static inline __attribute__((always_inline)) uint32_t text_skip_by(struct text *text, const uint8_t *bytes, uint32_t length,
                                                                   struct masks (*masks_of)(const uint8_t *bytes)) {
    uint32_t at = 0;
    if (text->state > TEXT_AFTER_CR)
        return 0;
    uint64_t after_cr = text->state == TEXT_AFTER_CR, line_start = text->state == TEXT_LINE_START;
    uint32_t line_bytes = line_start ? 0 : text->line_bytes;
    while (at < length) {
        uint8_t short_block[BLOCK_BYTES];
        uint32_t count = length - at;
        const uint8_t *block = bytes + at;
        if (count < BLOCK_BYTES) {
            memset(short_block, 0, sizeof(short_block));
            block = memcpy(short_block, block, count);
        } else {
            count = BLOCK_BYTES;
        }
        struct masks masks = masks_of(block);
        uint64_t expected = (masks.cr << 1 | after_cr) & UINT64_MAX >> (BLOCK_BYTES - count);
        if (masks.lf != expected || (text->dots && (masks.dot & (masks.lf << 1 | line_start)) != 0))
            break;
        after_cr = masks.cr >> (count - 1) & 1;
        line_start = masks.lf >> (count - 1) & 1;
        if (masks.eight_bit != 0)
            text->faults |= TEXT_EIGHT_BIT;
        line_bytes += masks.lf == 0 ? count : (uint32_t)__builtin_ctzll(masks.lf) + 1;
        if (line_bytes > TEXT_LINE_BYTES_MAX)
            text->faults |= TEXT_OVERLONG;
        if (masks.lf != 0)
            line_bytes = (uint32_t)__builtin_clzll(masks.lf) - (BLOCK_BYTES - count);
        at += count;
    }
    if (at > 0) {
        text->state = after_cr ? TEXT_AFTER_CR : line_start ? TEXT_LINE_START : TEXT_IN_LINE;
        text->line_bytes = line_bytes;
    }
    return at;
}

static uint32_t text_skip_plain(struct text *text, const uint8_t *bytes, uint32_t length) {
    return text_skip_by(text, bytes, length, block_masks);
}

#ifdef __SSE2__
__attribute__((target("avx2"))) static uint32_t text_skip_avx2(struct text *text, const uint8_t *bytes, uint32_t length) {
    return text_skip_by(text, bytes, length, block_masks_avx2);
}
#endif

static uint32_t text_skip(struct text *text, const uint8_t *bytes, uint32_t length) {
#ifdef __SSE2__
    if (__builtin_cpu_supports("avx2"))
        return text_skip_avx2(text, bytes, length);
#endif
    return text_skip_plain(text, bytes, length);
}

/* A byte within a line, or one that begins it and is no dot. */
static enum text_state text_ordinary(struct text *text, uint8_t byte) {
    if (byte == '\r')
        return TEXT_AFTER_CR;
    if (byte != '\n')
        return TEXT_IN_LINE;
    text->faults |= TEXT_BARE_LF;
    return TEXT_ODD_START;
}

static enum text_state text_after_cr(struct text *text, uint8_t byte) {
    if (byte == '\n')
        return TEXT_LINE_START;
    text->faults |= TEXT_BARE_CR;
    return byte == '.' ? TEXT_ODD_DOT : text_ordinary(text, byte);
}

static enum text_state text_odd_dot(struct text *text, uint8_t byte) {
    if (byte == '\r' || byte == '\n')
        text->faults |= TEXT_SMUGGLED;
    return text_ordinary(text, byte);
}

/* Behind a dot that began a line and was not passed on. */
static enum text_state text_dot(struct text *text, uint8_t byte) {
    if (byte == '\r')
        return TEXT_DOT_CR;
    if (byte == '\n')
        text->faults |= TEXT_SMUGGLED;
    else if (byte != '.')
        text->faults |= TEXT_UNSTUFFED_DOT;
    return byte == '.' ? TEXT_IN_LINE : text_ordinary(text, byte);
}

static enum text_state text_step(struct text *text, uint8_t byte) {
    switch (text->state) {
    case TEXT_LINE_START:
        text->line_bytes = 0;
        return text->dots && byte == '.' ? TEXT_DOT : text_ordinary(text, byte);
    case TEXT_ODD_START:
        return byte == '.' ? TEXT_ODD_DOT : text_ordinary(text, byte);
    case TEXT_AFTER_CR:
        return text_after_cr(text, byte);
    case TEXT_ODD_DOT:
        return text_odd_dot(text, byte);
    case TEXT_DOT:
        return text_dot(text, byte);
    case TEXT_IN_LINE:
    case TEXT_DOT_CR:
        break;
    }
    return text_ordinary(text, byte);
}

uint32_t text_take(struct text *text, const uint8_t *bytes, uint32_t length,
                   void (*run)(void *context, const uint8_t *bytes, uint32_t length), void *context, bool *ended) {
    static const uint8_t held_cr[1] = {'\r'};
    uint32_t at = 0, from = 0, steps = 0;
    *ended = false;
    while (at < length) {
        if (steps == 0) {
            at += text_skip(text, bytes + at, length - at);
            steps = BLOCK_BYTES; /* what stopped it lies within */
            continue;
        }
        steps--;
        uint8_t byte = bytes[at];
        if (text->state == TEXT_DOT_CR) {
            if (byte == '\n') {
                *ended = true;
                return at + 1;
            }
            text->faults |= TEXT_BARE_CR | TEXT_SMUGGLED;
            run(context, held_cr, 1);
            from = at;
            text->state = TEXT_AFTER_CR;
        }
        if (byte >= 0x80)
            text->faults |= TEXT_EIGHT_BIT;
        text->state = text_step(text, byte);
        if (++text->line_bytes > TEXT_LINE_BYTES_MAX)
            text->faults |= TEXT_OVERLONG;
        if (text->state == TEXT_DOT || text->state == TEXT_DOT_CR) {
            if (at > from)
                run(context, bytes + from, at - from);
            from = at + 1;
        }
        at++;
    }
    if (at > from)
        run(context, bytes + from, at - from);
    return at;
}
