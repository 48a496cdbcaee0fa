/* tcp_ports.c: which local ports of a (source, destination) pair are in use, and the choice of the next (RFC 6056). */
#include "tcp_ports.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

enum { BLOCK_PORTS = 64, HEADS_MIN = 64 };

static struct tcp_port_block *block_at(const struct tcp_ports *ports, uint32_t index) {
    return (struct tcp_port_block *)(void *)ports->blocks.items + index;
}

int tcp_ports_create(struct tcp_ports *ports, uint16_t first, uint16_t last, uint32_t users, const struct tcp_hash_key *key) {
    uint32_t heads = HEADS_MIN;
    while (heads < users && heads < 1U << 30) {
        heads <<= 1;
    }
    *ports = (struct tcp_ports){.mask = heads - 1, .first = first, .count = (uint32_t)last - first + 1, .key = *key};
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

static uint32_t *pair_bucket(const struct tcp_ports *ports, const uint8_t *local, const uint8_t *remote, uint8_t family,
                             uint16_t remote_port) {
    uint64_t words[5];
    unsigned count = tcp_tuple_words(words, local, remote, family, 0, remote_port);
    return &ports->pair_heads[tcp_hash_fast(&ports->key, words, count) & ports->mask];
}

static uint32_t *block_bucket(const struct tcp_ports *ports, uint32_t pair, uint32_t number) {
    uint64_t word = (uint64_t)pair << 32 | number;
    return &ports->block_heads[tcp_hash_fast(&ports->key, &word, 1) & ports->mask];
}

uint32_t tcp_ports_find(const struct tcp_ports *ports, const uint8_t local[16], const uint8_t remote[16], uint8_t family,
                        uint16_t remote_port) {
    uint32_t index = *pair_bucket(ports, local, remote, family, remote_port);
    while (index != TCP_NONE) {
        const struct tcp_pair *pair = tcp_ports_pair(ports, index);
        if (pair->remote_port == remote_port && pair->family == family && memcmp(pair->remote, remote, 16) == 0 &&
            memcmp(pair->local, local, 16) == 0) {
            return index;
        }
        index = pair->next;
    }
    return TCP_NONE;
}

static uint32_t block_find(const struct tcp_ports *ports, uint32_t pair, uint32_t number) {
    uint32_t index = *block_bucket(ports, pair, number);
    while (index != TCP_NONE && (block_at(ports, index)->pair != pair || block_at(ports, index)->number != number)) {
        index = block_at(ports, index)->next;
    }
    return index;
}

/* The bits of block `number` that are no ports of ours (the last block may be short). */
static uint64_t block_outside(const struct tcp_ports *ports, uint32_t number) {
    uint32_t left = ports->count - number * BLOCK_PORTS;
    return left >= BLOCK_PORTS ? 0 : ~0ULL << left;
}

static uint32_t pair_add(struct tcp_ports *ports, const uint8_t *local, const uint8_t *remote, uint8_t family, uint16_t remote_port) {
    uint32_t index = tcp_pool_take(&ports->pairs);
    if (index == TCP_NONE) {
        return TCP_NONE;
    }
    struct tcp_pair *pair = tcp_ports_pair(ports, index);
    uint32_t *head = pair_bucket(ports, local, remote, family, remote_port);
    *pair = (struct tcp_pair){.remote_port = remote_port, .family = family, .next = *head, .wait_head = TCP_NONE, .wait_tail = TCP_NONE};
    memcpy(pair->local, local, 16);
    memcpy(pair->remote, remote, 16);
    *head = index;
    return index;
}

static void pair_drop(struct tcp_ports *ports, uint32_t index) {
    const struct tcp_pair *pair = tcp_ports_pair(ports, index);
    uint32_t *link = pair_bucket(ports, pair->local, pair->remote, pair->family, pair->remote_port);
    while (*link != index) {
        link = &tcp_ports_pair(ports, *link)->next;
    }
    *link = pair->next;
    tcp_pool_give(&ports->pairs, index);
}

int tcp_ports_take(struct tcp_ports *ports, const uint8_t local[16], const uint8_t remote[16], uint8_t family, uint16_t remote_port,
                   uint64_t random, uint32_t *pair, uint16_t *port) {
    uint32_t owner = tcp_ports_find(ports, local, remote, family, remote_port);
    if (owner != TCP_NONE && tcp_ports_pair(ports, owner)->in_use >= ports->count) {
        return -EADDRNOTAVAIL;
    }
    if (tcp_pool_left(&ports->blocks) == 0) {
        return -ENOBUFS;
    }
    if (owner == TCP_NONE && (owner = pair_add(ports, local, remote, family, remote_port)) == TCP_NONE) {
        return -ENOBUFS;
    }
    uint32_t start = (uint32_t)(((random & UINT32_MAX) * ports->count) >> 32);
    uint32_t number = start / BLOCK_PORTS, blocks = (ports->count + BLOCK_PORTS - 1) / BLOCK_PORTS;
    unsigned turn = start % BLOCK_PORTS;
    for (uint32_t tried = 0; tried < blocks; tried++) {
        uint32_t index = block_find(ports, owner, number);
        uint64_t used = (index == TCP_NONE ? 0 : block_at(ports, index)->used) | block_outside(ports, number);
        if (~used != 0) {
            uint64_t turned = turn == 0 ? used : (used >> turn) | (used << (64 - turn));
            unsigned bit = ((unsigned)__builtin_ctzll(~turned) + turn) % BLOCK_PORTS;
            if (index == TCP_NONE) {
                index = tcp_pool_take(&ports->blocks);
                uint32_t *head = block_bucket(ports, owner, number);
                *block_at(ports, index) = (struct tcp_port_block){.pair = owner, .number = number, .next = *head};
                *head = index;
            }
            block_at(ports, index)->used |= 1ULL << bit;
            tcp_ports_pair(ports, owner)->in_use++;
            *pair = owner;
            *port = (uint16_t)(ports->first + number * BLOCK_PORTS + bit);
            return 0;
        }
        number = number + 1 == blocks ? 0 : number + 1;
    }
    assert(false); /* a pair below its limit has a free port */
    return -EADDRNOTAVAIL;
}

void tcp_ports_give(struct tcp_ports *ports, uint32_t pair, uint16_t port) {
    uint32_t number = (port - ports->first) / BLOCK_PORTS, bit = (port - ports->first) % BLOCK_PORTS;
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
    if (--tcp_ports_pair(ports, pair)->in_use == 0) {
        pair_drop(ports, pair);
    }
}
