/* tcp_ports.h: local ports for each (source, destination) pair (RFC 6056): a class of ports that the network allows, a random place in it,
 * then the next free place by bitmap. Where the network says nothing the class is the whole configured range. A pair whose classes are all
 * full is remembered as such and costs nothing. */
#ifndef DATAPLANE_TCP_TCP_PORTS_H
#define DATAPLANE_TCP_TCP_PORTS_H

#include "dataplane/tcp/tcp.h"
#include "tcp_hash.h"
#include "tcp_pool.h"

/* One pair that has ports in use; it goes when the last of them does. For TIME_WAIT of connections that a listener accepted the record is
 * turned around: `port` is then our own and the ports in use are the peer's (`turned`), and no bitmap is kept. */
struct tcp_pair {
    const struct tcp_port_map *map; /* NULL: the configured range */
    uint8_t local[16], remote[16];
    uint16_t port; /* of the remote address */
    uint8_t family;
    bool turned, exhausted;
    uint32_t in_use;
    uint32_t next;                 /* in its hash bucket */
    uint32_t wait_head, wait_tail; /* its TIME_WAIT records, oldest first */
};

/* 64 places of one pair, present while one of them is in use. */
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
    bool (*choose)(void *network, const struct tcp_address *local, const struct tcp_address *remote, uint16_t remote_port, uint64_t random,
                   uint32_t attempt, struct tcp_port_choice *choice);
    void *network;
};

/* Takes the range, choose_ports and network of `config`. `users`: how many ports may be in use at once over all pairs. 0 or -ENOMEM. */
int tcp_ports_create(struct tcp_ports *ports, const struct tcp_config *config, uint32_t users, const struct tcp_hash_key *key);
void tcp_ports_destroy(struct tcp_ports *ports);
/* The pair's record, or TCP_NONE when it has no port in use. */
uint32_t tcp_ports_find(const struct tcp_ports *ports, const struct tcp_address *local, const struct tcp_address *remote,
                        uint16_t remote_port);
/* Takes a port of this pair near a random place of the first class that has one. 0 with *pair and *port, -EADDRNOTAVAIL when all are in
 * use, -ENOBUFS. */
int tcp_ports_take(struct tcp_ports *ports, const struct tcp_address *local, const struct tcp_address *remote, uint16_t remote_port,
                   uint64_t random, uint32_t *pair, uint16_t *port);
/* One more user of the turned pair, for TIME_WAIT. TCP_NONE when no record is left. */
uint32_t tcp_ports_take_turned(struct tcp_ports *ports, const uint8_t local[16], const uint8_t remote[16], uint8_t family,
                               uint16_t local_port);
/* `port` is of no account for a turned pair. */
void tcp_ports_give(struct tcp_ports *ports, uint32_t pair, uint16_t port);

static inline struct tcp_pair *tcp_ports_pair(const struct tcp_ports *ports, uint32_t index) {
    return (struct tcp_pair *)(void *)ports->pairs.items + index;
}

#endif
