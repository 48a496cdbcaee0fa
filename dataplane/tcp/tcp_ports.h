/* tcp_ports.h: local ports for each (source, destination) pair (RFC 6056): a random start, then the next free port by bitmap, so that a
 * nearly full pair costs at most one pass over a thousand words and a full one costs nothing. */
#ifndef DATAPLANE_TCP_TCP_PORTS_H
#define DATAPLANE_TCP_TCP_PORTS_H

#include "tcp_hash.h"
#include "tcp_pool.h"

/* One pair that has ports in use; it goes when the last of them does. */
struct tcp_pair {
    uint8_t local[16], remote[16];
    uint16_t remote_port;
    uint8_t family;
    uint32_t in_use;
    uint32_t next;                 /* in its hash bucket */
    uint32_t wait_head, wait_tail; /* its TIME_WAIT records, oldest first */
};

/* 64 ports of one pair, present while one of them is in use. */
struct tcp_port_block {
    uint64_t used;
    uint32_t pair, next;
    uint32_t number;
};

struct tcp_ports {
    struct tcp_pool pairs, blocks;
    uint32_t *pair_heads, *block_heads;
    uint32_t mask; /* of both tables */
    uint32_t first, count;
    struct tcp_hash_key key;
};

/* `users`: how many ports may be in use at once over all pairs. 0 or -ENOMEM. */
int tcp_ports_create(struct tcp_ports *ports, uint16_t first, uint16_t last, uint32_t users, const struct tcp_hash_key *key);
void tcp_ports_destroy(struct tcp_ports *ports);
/* The pair's record, or TCP_NONE when it has no port in use. */
uint32_t tcp_ports_find(const struct tcp_ports *ports, const uint8_t local[16], const uint8_t remote[16], uint8_t family,
                        uint16_t remote_port);
/* Takes a port of this pair near the random place. 0 with *pair and *port, -EADDRNOTAVAIL when all are in use, -ENOBUFS. */
int tcp_ports_take(struct tcp_ports *ports, const uint8_t local[16], const uint8_t remote[16], uint8_t family, uint16_t remote_port,
                   uint64_t random, uint32_t *pair, uint16_t *port);
void tcp_ports_give(struct tcp_ports *ports, uint32_t pair, uint16_t port);

static inline struct tcp_pair *tcp_ports_pair(const struct tcp_ports *ports, uint32_t index) {
    return (struct tcp_pair *)(void *)ports->pairs.items + index;
}

#endif
