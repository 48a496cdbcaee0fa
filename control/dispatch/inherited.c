/* inherited.c: which recipients are in slots that an earlier control filled: a hash set of slots by their cookies, made by the harvest. */
#include "control/dispatch/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int inherited_create(struct dispatch *dispatch) {
    uint32_t places = 2;
    while (places < 2 * dispatch->slot_count)
        places *= 2;
    dispatch->inherited = malloc(places * sizeof(uint32_t));
    if (dispatch->inherited == NULL)
        return -ENOMEM;
    memset(dispatch->inherited, 0xff, places * sizeof(uint32_t)); /* SLOT_NONE */
    dispatch->inherited_mask = places - 1;
    return 0;
}

void inherited_destroy(struct dispatch *dispatch) {
    free(dispatch->inherited);
}

/* splitmix64's last steps: IDs count up, so that their bits need mixing. */
static uint64_t mix(uint64_t value) {
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
    value = (value ^ value >> 27) * 0x94d049bb133111ebu;
    return value ^ value >> 31;
}

static uint32_t first_place(const struct dispatch *dispatch, struct entry_id entry, uint32_t index) {
    return (uint32_t)mix(mix(entry.ms) ^ mix(entry.seq << 32 | index)) & dispatch->inherited_mask;
}

static void read_cookie(const struct dispatch *dispatch, uint32_t slot, struct settle_cookie *cookie) {
    memcpy(cookie, dispatch->journal->slots[slot].cookie, sizeof(*cookie));
    cookie->queue[QUEUE_NAME_MAX] = '\0';
}

void inherited_add(struct dispatch *dispatch, uint32_t slot) {
    struct settle_cookie cookie;
    read_cookie(dispatch, slot, &cookie);
    dispatch->flights[slot - dispatch->first_slot].inherited = true;
    /* A slot is added once at most, at the first harvest, and there are twice as many places. */
    uint32_t place = first_place(dispatch, cookie.entry, cookie.index);
    while (dispatch->inherited[place] != SLOT_NONE)
        place = (place + 1) & dispatch->inherited_mask;
    dispatch->inherited[place] = slot;
}

bool dispatch_in_flight(const struct dispatch *dispatch, uint32_t queue_shard, const char *stream, struct entry_id entry, uint32_t index) {
    bool is_retry = strncmp(stream, "retry:", 6) == 0;
    const char *queue = is_retry ? stream + 6 : stream;
    for (uint32_t place = first_place(dispatch, entry, index); dispatch->inherited[place] != SLOT_NONE;
         place = (place + 1) & dispatch->inherited_mask) {
        uint32_t slot = dispatch->inherited[place];
        struct settle_cookie cookie;
        if (!dispatch->flights[slot - dispatch->first_slot].inherited)
            continue; /* committed */
        read_cookie(dispatch, slot, &cookie);
        if (cookie.entry.ms == entry.ms && cookie.entry.seq == entry.seq && cookie.index == index && cookie.shard == queue_shard &&
            (cookie.is_retry != 0) == is_retry && strcmp(cookie.queue, queue) == 0)
            return true;
    }
    return false;
}
