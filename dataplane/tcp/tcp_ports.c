/* tcp_ports.c: which local ports of a (source, destination) pair are in use, and the choice of the next (RFC 6056). */
#include "tcp_ports.h"

#include <errno.h>
#include <stdlib.h>

enum {
    BLOCK_PLACES = 64,
    HEADS_MIN = 64,
    PLACES_MAX = 65536,
    ATTEMPTS_MAX = 65536, /* classes that are asked for: a port is at most a class of its own */
};

static struct tcp_port_block *block_at(const struct tcp_ports *ports, uint32_t index) {
    return (struct tcp_port_block *)(void *)ports->blocks.items + index;
}

int tcp_ports_create(struct tcp_ports *ports, const struct tcp_config *config, uint32_t users, const struct tcp_hash_key *key) {
    uint32_t heads = HEADS_MIN;
    while (heads <= users / 2) { /* few pairs have one port each: two to a head at the very worst */
        heads <<= 1;
    }
    *ports = (struct tcp_ports){.mask = heads - 1,
                                .first = config->port_first,
                                .count = (uint32_t)config->port_last - config->port_first + 1,
                                .key = *key,
                                .choose = config->choose_ports,
                                .network = config->network};
    ports->pair_heads = malloc(heads * sizeof(uint32_t));
    ports->block_heads = malloc(heads * sizeof(uint32_t));
    if (ports->pair_heads == NULL || ports->block_heads == NULL || tcp_pool_create(&ports->pairs, users, sizeof(struct tcp_pair)) != 0 ||
        tcp_pool_create(&ports->blocks, users, sizeof(struct tcp_port_block)) != 0) {
        tcp_ports_destroy(ports);
        return -ENOMEM;
    }
    memset(ports->pair_heads, 0xff, heads * sizeof(uint32_t));
    memset(ports->block_heads, 0xff, heads * sizeof(uint32_t));
    return 0;
}

void tcp_ports_destroy(struct tcp_ports *ports) {
    tcp_pool_destroy(&ports->pairs);
    tcp_pool_destroy(&ports->blocks);
    free(ports->pair_heads);
    free(ports->block_heads);
    ports->pair_heads = ports->block_heads = NULL;
}

static uint32_t *pair_bucket(const struct tcp_ports *ports, const uint8_t *local, const uint8_t *remote, uint8_t family, uint16_t port,
                             bool turned) {
    uint64_t words[5];
    unsigned count = tcp_tuple_words(words, local, remote, family, turned, port);
    return &ports->pair_heads[tcp_hash_fast(&ports->key, words, count) & ports->mask];
}

/* No stranger chooses the numbers of pairs and blocks, so that a multiplication spreads them well enough. */
static uint32_t *block_bucket(const struct tcp_ports *ports, uint32_t pair, uint32_t number) {
    enum { NUMBER_BITS = 10 }; /* 65,536 places in blocks of 64 */
    uint64_t word = ((uint64_t)pair << NUMBER_BITS | number) * 0x9e3779b97f4a7c15ULL;
    return &ports->block_heads[word >> 32 & ports->mask];
}

static uint32_t pair_find(const struct tcp_ports *ports, uint32_t index, const uint8_t *local, const uint8_t *remote, uint8_t family,
                          uint16_t port, bool turned) {
    while (index != TCP_NONE) {
        const struct tcp_pair *pair = tcp_ports_pair(ports, index);
        if (pair->port == port && pair->family == family && pair->turned == turned && memcmp(pair->remote, remote, 16) == 0 &&
            memcmp(pair->local, local, 16) == 0) {
            return index;
        }
        index = pair->next;
    }
    return TCP_NONE;
}

uint32_t tcp_ports_find(const struct tcp_ports *ports, const struct tcp_address *local, const struct tcp_address *remote,
                        uint16_t remote_port) {
    uint32_t head = *pair_bucket(ports, local->bytes, remote->bytes, local->family, remote_port, false);
    return pair_find(ports, head, local->bytes, remote->bytes, local->family, remote_port, false);
}

static uint32_t pair_add(struct tcp_ports *ports, uint32_t *head, const uint8_t *local, const uint8_t *remote, uint8_t family,
                         uint16_t port, bool turned) {
    uint32_t index = tcp_pool_take(&ports->pairs);
    if (index == TCP_NONE) {
        return TCP_NONE;
    }
    struct tcp_pair *pair = tcp_ports_pair(ports, index);
    *pair =
        (struct tcp_pair){.port = port, .family = family, .turned = turned, .next = *head, .wait_head = TCP_NONE, .wait_tail = TCP_NONE};
    memcpy(pair->local, local, 16);
    memcpy(pair->remote, remote, 16);
    *head = index;
    return index;
}

static void pair_drop(struct tcp_ports *ports, uint32_t index) {
    const struct tcp_pair *pair = tcp_ports_pair(ports, index);
    uint32_t *link = pair_bucket(ports, pair->local, pair->remote, pair->family, pair->port, pair->turned);
    while (*link != index) {
        link = &tcp_ports_pair(ports, *link)->next;
    }
    *link = pair->next;
    tcp_pool_give(&ports->pairs, index);
}

/* The bits of block `number` that lie outside of places [first, first + count). */
static uint64_t block_outside(uint32_t number, uint32_t first, uint32_t count) {
    uint32_t base = number * BLOCK_PLACES, end = first + count;
    uint64_t outside = base < first ? (1ULL << (first - base)) - 1 : 0;
    return end < base + BLOCK_PLACES ? outside | ~0ULL << (end - base) : outside;
}

/* Takes a free place of [first, first + count), the one at or after `turn` in the block that is begun with. False when there is none. */
static bool take_place(struct tcp_ports *ports, uint32_t pair, uint32_t first, uint32_t count, uint32_t start, uint32_t *place) {
    uint32_t number = start / BLOCK_PLACES, lowest = first / BLOCK_PLACES, highest = (first + count - 1) / BLOCK_PLACES;
    unsigned turn = start % BLOCK_PLACES;
    for (uint32_t tried = 0; tried <= highest - lowest; tried++) {
        uint32_t *head = block_bucket(ports, pair, number), index = *head;
        while (index != TCP_NONE && (block_at(ports, index)->pair != pair || block_at(ports, index)->number != number)) {
            index = block_at(ports, index)->next;
        }
        uint64_t used = (index == TCP_NONE ? 0 : block_at(ports, index)->used) | block_outside(number, first, count);
        if (~used != 0) {
            uint64_t turned = turn == 0 ? used : (used >> turn) | (used << (64 - turn));
            unsigned bit = ((unsigned)__builtin_ctzll(~turned) + turn) % BLOCK_PLACES;
            if (index == TCP_NONE) {
                index = tcp_pool_take(&ports->blocks);
                *block_at(ports, index) = (struct tcp_port_block){.pair = pair, .number = number, .next = *head};
                *head = index;
            }
            block_at(ports, index)->used |= 1ULL << bit;
            *place = number * BLOCK_PLACES + bit;
            return true;
        }
        number = number == highest ? lowest : number + 1;
    }
    return false;
}

static bool choice_valid(const struct tcp_port_choice *choice) {
    return choice->map != NULL && choice->map->count <= PLACES_MAX && choice->first < choice->map->count && choice->count > 0 &&
           choice->count <= choice->map->count - choice->first;
}

static uint32_t random_place(uint64_t random, uint32_t first, uint32_t count) {
    /* The choice of the class has used the same bits: others, or only some places of a class would ever begin. */
    uint64_t other = (random ^ random >> 29) * 0x9e3779b97f4a7c15ULL;
    return first + (uint32_t)(((other >> 32) * count) >> 32);
}

int tcp_ports_take(struct tcp_ports *ports, const struct tcp_address *local, const struct tcp_address *remote, uint16_t remote_port,
                   uint64_t random, uint32_t *pair_out, uint16_t *port) {
    uint32_t *head = pair_bucket(ports, local->bytes, remote->bytes, local->family, remote_port, false);
    uint32_t owner = pair_find(ports, *head, local->bytes, remote->bytes, local->family, remote_port, false), place;
    if (owner != TCP_NONE && tcp_ports_pair(ports, owner)->exhausted) {
        return -EADDRNOTAVAIL;
    }
    if (tcp_pool_left(&ports->blocks) == 0) {
        return -ENOBUFS;
    }
    if (owner == TCP_NONE && (owner = pair_add(ports, head, local->bytes, remote->bytes, local->family, remote_port, false)) == TCP_NONE) {
        return -ENOBUFS;
    }
    struct tcp_pair *pair = tcp_ports_pair(ports, owner);
    bool fresh = pair->in_use == 0, found = false, chosen = false;
    for (uint32_t attempt = 0; ports->choose != NULL && !found && attempt < ATTEMPTS_MAX; attempt++) {
        struct tcp_port_choice choice;
        if (!ports->choose(ports->network, local, remote, remote_port, random, attempt, &choice)) {
            break;
        }
        chosen = true;
        if (!choice_valid(&choice) || (!fresh && choice.map != pair->map)) {
            continue; /* places of another map would be other ports: a pair keeps the map of its first port */
        }
        pair->map = choice.map;
        fresh = false;
        found = take_place(ports, owner, choice.first, choice.count, random_place(random, choice.first, choice.count), &place);
    }
    if (!found && !chosen && pair->map == NULL) {
        found = take_place(ports, owner, 0, ports->count, random_place(random, 0, ports->count), &place);
    }
    if (!found) {
        pair->exhausted = true;
        if (pair->in_use == 0) {
            pair_drop(ports, owner);
        }
        return -EADDRNOTAVAIL;
    }
    pair->in_use++;
    *pair_out = owner;
    *port = pair->map != NULL ? pair->map->port_at[place] : (uint16_t)(ports->first + place);
    return 0;
}

uint32_t tcp_ports_take_turned(struct tcp_ports *ports, const uint8_t local[16], const uint8_t remote[16], uint8_t family,
                               uint16_t local_port) {
    uint32_t *head = pair_bucket(ports, local, remote, family, local_port, true);
    uint32_t owner = pair_find(ports, *head, local, remote, family, local_port, true);
    if (owner == TCP_NONE && (owner = pair_add(ports, head, local, remote, family, local_port, true)) == TCP_NONE) {
        return TCP_NONE;
    }
    tcp_ports_pair(ports, owner)->in_use++;
    return owner;
}

static void place_give(struct tcp_ports *ports, uint32_t pair, uint32_t place) {
    uint32_t number = place / BLOCK_PLACES, bit = place % BLOCK_PLACES;
    uint32_t *link = block_bucket(ports, pair, number);
    while (*link != TCP_NONE && (block_at(ports, *link)->pair != pair || block_at(ports, *link)->number != number)) {
        link = &block_at(ports, *link)->next;
    }
    assert(*link != TCP_NONE && (block_at(ports, *link)->used >> bit & 1) != 0);
    struct tcp_port_block *block = block_at(ports, *link);
    block->used &= ~(1ULL << bit);
    if (block->used == 0) {
        uint32_t index = *link;
        *link = block->next;
        tcp_pool_give(&ports->blocks, index);
    }
}

void tcp_ports_give(struct tcp_ports *ports, uint32_t index, uint16_t port) {
    struct tcp_pair *pair = tcp_ports_pair(ports, index);
    if (!pair->turned) {
        place_give(ports, index, pair->map != NULL ? pair->map->index_of[port] : (uint32_t)(port - ports->first));
    }
    pair->exhausted = false;
    if (--pair->in_use == 0) {
        pair_drop(ports, index);
    }
}
