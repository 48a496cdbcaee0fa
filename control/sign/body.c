/* body.c: hashes bodies of own and shared pieces. What bodies of a content begin with in common is hashed once. */
#include "body.h"

#include <errno.h>
#include <string.h>

/* The shared pieces that a body begins with, adjacent ones as one. */
struct lead {
    uint32_t pieces;
    uint32_t range_count;
    struct body_range ranges[BODY_RANGES];
};

static void lead_find(const struct message *message, struct lead *lead) {
    *lead = (struct lead){0};
    for (; lead->pieces < message->piece_count && message->pieces[lead->pieces].shared; lead->pieces++) {
        const struct message_piece *piece = &message->pieces[lead->pieces];
        struct body_range *last = lead->range_count > 0 ? &lead->ranges[lead->range_count - 1] : NULL;
        if (last != NULL && last->offset + last->length == piece->offset)
            last->length += piece->length;
        else if (lead->range_count < BODY_RANGES)
            lead->ranges[lead->range_count++] = (struct body_range){piece->offset, piece->length};
        else
            break;
    }
}

static struct body_entry *entry_find(struct body_cache *cache, const struct message *message, const struct lead *lead) {
    for (uint32_t i = 0; i < BODY_ENTRIES; i++) {
        struct body_entry *entry = &cache->entries[i];
        if (entry->used != 0 && entry->id == message->shared->id && entry->range_count == lead->range_count &&
            memcmp(entry->ranges, lead->ranges, lead->range_count * sizeof(lead->ranges[0])) == 0) {
            entry->used = ++cache->clock;
            return entry;
        }
    }
    return NULL;
}

static void entry_clear(struct body_entry *entry) {
    if (entry->used != 0)
        canonical_midstate_free(&entry->midstate);
    entry->used = 0;
}

/* In the place of the one that was not needed for longest. NULL: it could not be kept, which costs only time. */
static struct body_entry *entry_keep(struct body_cache *cache, const struct message *message, const struct lead *lead,
                                     struct canonical *canonical) {
    struct body_entry *entry = &cache->entries[0];
    for (uint32_t i = 1; i < BODY_ENTRIES; i++)
        if (cache->entries[i].used < entry->used)
            entry = &cache->entries[i];
    entry_clear(entry);
    if (canonical_midstate(canonical, &entry->midstate) < 0)
        return NULL;
    entry->used = ++cache->clock;
    entry->id = message->shared->id;
    entry->range_count = lead->range_count;
    memcpy(entry->ranges, lead->ranges, sizeof(lead->ranges));
    entry->whole = false;
    return entry;
}

static bool ends_line(const uint8_t *bytes, size_t length) {
    return length >= 2 && bytes[length - 2] == '\r' && bytes[length - 1] == '\n';
}

static void add_piece(struct canonical *canonical, const struct message *message, const struct message_piece *piece) {
    const struct shared_bytes *shared = message->shared;
    if (!piece->shared)
        canonical_body_add(canonical, message->bytes + message->start + message->header_length + piece->offset, piece->length);
    else if (canonical_between_lines(canonical) && ends_line(shared->bytes + piece->offset, piece->length))
        canonical_body_add_relaxed(canonical, shared->relaxed + piece->relaxed_offset, piece->relaxed_length);
    else /* no whole lines, which would be a fault of the renderer; the signature is to hold all the same */
        canonical_body_add(canonical, shared->bytes + piece->offset, piece->length);
}

int body_hash(struct body_cache *cache, struct canonical *canonical, const struct message *message, uint8_t *digest) {
    struct lead lead;
    struct body_entry *entry = NULL;
    uint32_t at = 0;
    int result = 0;
    cache->bytes += message->length - message->header_length;
    lead_find(message, &lead);
    if (lead.range_count > 0)
        entry = entry_find(cache, message, &lead);
    bool whole = lead.pieces > 0 && lead.pieces == message->piece_count;
    if (entry != NULL && whole && entry->whole) {
        memcpy(digest, entry->digest, BODY_DIGEST_BYTES);
        return 0;
    }
    if (entry != NULL) {
        result = canonical_resume(canonical, &entry->midstate);
        at = lead.pieces;
    } else {
        canonical_begin(canonical);
    }
    for (; at < message->piece_count; at++) {
        add_piece(canonical, message, &message->pieces[at]);
        if (at + 1 == lead.pieces && canonical_between_lines(canonical))
            entry = entry_keep(cache, message, &lead, canonical);
    }
    if (message->piece_count == 0)
        canonical_body_add(canonical, message->bytes + message->start + message->header_length,
                           message->own_length - message->header_length);
    canonical_body_end(canonical);
    if (canonical_end(canonical, digest) < 0)
        result = -1;
    cache->hashed += canonical->hashed;
    if (result == 0 && entry != NULL && whole) {
        entry->whole = true;
        memcpy(entry->digest, digest, BODY_DIGEST_BYTES);
    }
    return result == 0 ? 0 : -EIO;
}

void body_cache_free(struct body_cache *cache) {
    for (uint32_t i = 0; i < BODY_ENTRIES; i++)
        entry_clear(&cache->entries[i]);
}
