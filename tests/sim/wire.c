/* wire.c: loss at random and in bursts, duplication, reordering, jitter, a bottleneck with a queue, an MTU. */
#include "wire.h"

#include <stdlib.h>
#include <string.h>

enum { BURST_LOSS = 900, DOUBLED_LATER_US = 2000 };

const char *wire_fate_text(enum wire_fate fate) {
    static const char *const texts[] = {"", "doubled", "lost", "queue full", "too big"};
    return texts[fate];
}

static bool earlier(const struct wire_event *a, const struct wire_event *b) {
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

void wire_push(struct wire *wire, const struct wire_event *what, uint64_t at_us) {
    if (wire->count == WIRE_EVENTS_MAX) {
        wire->overflow = true;
        return;
    }
    struct wire_event *event = malloc(sizeof(*event));
    if (event == NULL) {
        abort();
    }
    *event = *what;
    event->at_us = at_us;
    event->order = wire->order++;
    event->segment.payload = malloc(what->segment.length + 1);
    if (event->segment.payload == NULL) {
        abort();
    }
    if (what->segment.length > 0) {
        memcpy(event->segment.payload, what->segment.payload, what->segment.length);
    }
    uint32_t at = wire->count++;
    while (at > 0 && earlier(event, wire->events[(at - 1) / 2])) {
        wire->events[at] = wire->events[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    wire->events[at] = event;
}

uint64_t wire_next(const struct wire *wire) {
    return wire->count > 0 ? wire->events[0]->at_us : UINT64_MAX;
}

struct wire_event *wire_pop(struct wire *wire) {
    struct wire_event *top = wire->events[0], *last = wire->events[--wire->count];
    uint32_t at = 0;
    while (2 * at + 1 < wire->count) {
        uint32_t child = 2 * at + 1;
        if (child + 1 < wire->count && earlier(wire->events[child + 1], wire->events[child])) {
            child++;
        }
        if (!earlier(wire->events[child], last)) {
            break;
        }
        wire->events[at] = wire->events[child];
        at = child;
    }
    wire->events[at] = last;
    return top;
}

void wire_event_free(struct wire_event *event) {
    free(event->segment.payload);
    free(event);
}

static bool is_lost(struct wire_path *path, struct sim_random *random, const struct segment *segment, uint64_t now_us) {
    if (random_chance(random, path->burst_begins)) {
        path->burst_until_us = now_us + random_range(random, 1, path->burst_most_us);
    }
    if (now_us < path->burst_until_us && random_chance(random, BURST_LOSS)) {
        return true;
    }
    /* Corruption is loss: checksums are checked below TCP. */
    if (random_chance(random, path->loss) || random_chance(random, path->corrupt)) {
        return true;
    }
    return segment_space(segment) == 0 && random_chance(random, path->ack_loss);
}

enum wire_fate wire_carry(struct wire *wire, struct wire_path *path, struct sim_random *random, const struct wire_event *what,
                          uint32_t headers, uint64_t now_us, uint16_t *mtu) {
    uint32_t bytes = headers + what->segment.options_length + what->segment.length;
    *mtu = 0;
    if (path->mtu_at_us != 0 && now_us >= path->mtu_at_us) {
        path->mtu = path->mtu_then;
        path->mtu_at_us = 0;
    }
    wire->carried++;
    if (path->mtu != 0 && bytes > path->mtu && !what->segment.may_fragment) {
        wire->too_big++;
        *mtu = path->icmp ? path->mtu : 0;
        return WIRE_TOO_BIG;
    }
    if (is_lost(path, random, &what->segment, now_us)) {
        wire->lost++;
        return WIRE_LOST;
    }
    uint64_t at = now_us + path->delay_us;
    if (path->bytes_per_ms > 0) {
        uint64_t begin = path->free_at_us > now_us ? path->free_at_us : now_us;
        if (begin - now_us > path->queue_us) {
            wire->lost++;
            return WIRE_QUEUE_FULL;
        }
        path->free_at_us = begin + (uint64_t)bytes * 1000 / path->bytes_per_ms;
        at = path->free_at_us + path->delay_us;
    }
    if (random_chance(random, path->reorder)) {
        at += random_range(random, 0, path->jitter_us);
        wire->late++;
    }
    wire_push(wire, what, at);
    if (random_chance(random, path->duplicate)) {
        wire_push(wire, what, at + random_range(random, 0, random_chance(random, 500) ? 0 : DOUBLED_LATER_US));
        wire->doubled++;
        return WIRE_DOUBLED;
    }
    return WIRE_CARRIED;
}
