/* reassembly.c: see reassembly.h. */
#include "reassembly.h"
#include <assert.h>
#include <stdlib.h>

enum {
    BLOCK_BYTES = 8, /* the unit of fragment offsets */
    BLOCKS = REASSEMBLY_BYTES_MAX / BLOCK_BYTES,
    BLOCK_WORDS = (BLOCKS + 63) / 64,
    LENGTH_UNKNOWN = UINT32_MAX,
};
static_assert(REASSEMBLY_BYTES_MAX % BLOCK_BYTES == 0, "the last block is whole");

enum datagram_state {
    DATAGRAM_FREE,
    DATAGRAM_OPEN,
    DATAGRAM_LOST, /* remembered, so that its later fragments are dropped too (RFC 5722 section 4) */
};

struct datagram {
    enum datagram_state state;
    struct ip source, destination;
    uint32_t identification;
    uint8_t key_protocol, protocol;
    uint32_t length; /* of the payload; LENGTH_UNKNOWN until the last fragment came */
    uint32_t blocks_present, blocks_end;
    uint64_t due_us;
    uint64_t present[BLOCK_WORDS]; /* blocks that came */
    uint8_t bytes[REASSEMBLY_BYTES_MAX];
};

struct reassembly {
    uint64_t due_us; /* nothing expires before; may be early */
    struct datagram datagrams[REASSEMBLY_DATAGRAMS];
};

struct reassembly *reassembly_create(void) {
    struct reassembly *reassembly = calloc(1, sizeof *reassembly);
    if (reassembly != NULL)
        reassembly->due_us = UINT64_MAX;
    return reassembly;
}

void reassembly_destroy(struct reassembly *reassembly) {
    free(reassembly);
}

static bool datagram_is(const struct datagram *datagram, const struct fragment *fragment, uint8_t key_protocol) {
    return datagram->state != DATAGRAM_FREE && datagram->identification == fragment->identification &&
           datagram->key_protocol == key_protocol && ip_same(datagram->source, fragment->source) &&
           ip_same(datagram->destination, fragment->destination);
}

/* The fragment's datagram, or a place for it: a free one, else a lost one, else the oldest. NULL: this source has its share. */
static struct datagram *datagram_get(struct reassembly *reassembly, const struct fragment *fragment, uint64_t now_us, bool *evicted) {
    struct datagram *place = NULL;
    uint32_t of_source = 0;
    uint8_t key_protocol = ip_is_v4(fragment->source) ? fragment->protocol : 0;
    for (uint32_t i = 0; i < REASSEMBLY_DATAGRAMS; i++) {
        struct datagram *datagram = &reassembly->datagrams[i];
        if (datagram_is(datagram, fragment, key_protocol))
            return datagram;
        of_source += datagram->state != DATAGRAM_FREE && ip_same(datagram->source, fragment->source);
        if (place == NULL || place->state == DATAGRAM_FREE)
            place = place == NULL ? datagram : place;
        else if (datagram->state == DATAGRAM_FREE || (datagram->state == place->state && datagram->due_us < place->due_us) ||
                 (datagram->state == DATAGRAM_LOST && place->state == DATAGRAM_OPEN))
            place = datagram;
    }
    if (of_source >= REASSEMBLY_PER_SOURCE)
        return NULL;
    *evicted = place->state == DATAGRAM_OPEN;
    place->state = DATAGRAM_OPEN;
    place->source = fragment->source;
    place->destination = fragment->destination;
    place->identification = fragment->identification;
    place->key_protocol = key_protocol;
    place->length = LENGTH_UNKNOWN;
    place->blocks_present = place->blocks_end = 0;
    place->due_us = now_us + REASSEMBLY_TIMEOUT_US;
    memset(place->present, 0, sizeof place->present);
    if (place->due_us < reassembly->due_us)
        reassembly->due_us = place->due_us;
    return place;
}

/* How many of the blocks [first, end) came already. */
static uint32_t datagram_present(const struct datagram *datagram, uint32_t first, uint32_t end) {
    uint32_t count = 0;
    for (uint32_t block = first; block < end; block++)
        count += (datagram->present[block / 64] >> block % 64 & 1) != 0;
    return count;
}

static bool fragment_is_possible(const struct datagram *datagram, const struct fragment *fragment) {
    uint32_t end = fragment->offset + fragment->length;
    if (fragment->length == 0 || fragment->length > REASSEMBLY_BYTES_MAX || end > REASSEMBLY_BYTES_MAX)
        return false;
    if (fragment->more)
        return fragment->length % BLOCK_BYTES == 0 && (datagram->length == LENGTH_UNKNOWN || end < datagram->length);
    if (datagram->length != LENGTH_UNKNOWN)
        return end == datagram->length;
    return datagram->blocks_end * BLOCK_BYTES <= fragment->offset; /* nothing came from beyond */
}

enum reassembly_result reassembly_add(struct reassembly *reassembly, const struct fragment *fragment, uint64_t now_us, bool *evicted,
                                      const uint8_t **bytes, uint32_t *length, uint8_t *protocol) {
    *evicted = false;
    struct datagram *datagram = datagram_get(reassembly, fragment, now_us, evicted);
    if (datagram == NULL)
        return REASSEMBLY_LIMITED;
    if (datagram->state == DATAGRAM_LOST)
        return REASSEMBLY_BAD;
    uint32_t first = fragment->offset / BLOCK_BYTES, end = first + (fragment->length + BLOCK_BYTES - 1) / BLOCK_BYTES;
    if (fragment->offset <= REASSEMBLY_BYTES_MAX && fragment->length <= REASSEMBLY_BYTES_MAX && end <= BLOCKS && fragment->length > 0) {
        uint32_t present = datagram_present(datagram, first, end);
        if (present == end - first && (fragment->more || fragment->offset + fragment->length == datagram->length) &&
            memcmp(datagram->bytes + fragment->offset, fragment->bytes, fragment->length) == 0)
            return REASSEMBLY_WAITS;
        if (present == 0 && fragment_is_possible(datagram, fragment)) {
            memcpy(datagram->bytes + fragment->offset, fragment->bytes, fragment->length);
            for (uint32_t block = first; block < end; block++)
                datagram->present[block / 64] |= (uint64_t)1 << block % 64;
            datagram->blocks_present += end - first;
            datagram->blocks_end = end > datagram->blocks_end ? end : datagram->blocks_end;
            if (fragment->offset == 0)
                datagram->protocol = fragment->protocol;
            if (!fragment->more)
                datagram->length = fragment->offset + fragment->length;
            if (datagram->length == LENGTH_UNKNOWN || datagram->blocks_present < (datagram->length + BLOCK_BYTES - 1) / BLOCK_BYTES)
                return REASSEMBLY_WAITS;
            datagram->state = DATAGRAM_FREE;
            *bytes = datagram->bytes;
            *length = datagram->length;
            *protocol = datagram->protocol;
            return REASSEMBLY_WHOLE;
        }
    }
    datagram->state = DATAGRAM_LOST;
    return REASSEMBLY_BAD;
}

uint64_t reassembly_poll(struct reassembly *reassembly, uint64_t now_us, uint64_t *timeouts) {
    if (now_us < reassembly->due_us)
        return reassembly->due_us;
    uint64_t due_us = UINT64_MAX;
    for (uint32_t i = 0; i < REASSEMBLY_DATAGRAMS; i++) {
        struct datagram *datagram = &reassembly->datagrams[i];
        if (datagram->state == DATAGRAM_FREE)
            continue;
        if (datagram->due_us <= now_us) {
            *timeouts += datagram->state == DATAGRAM_OPEN;
            datagram->state = DATAGRAM_FREE;
        } else if (datagram->due_us < due_us) {
            due_us = datagram->due_us;
        }
    }
    reassembly->due_us = due_us;
    return due_us;
}
