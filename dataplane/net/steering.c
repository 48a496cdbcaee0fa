/* steering.c: H(reply tuple) = H(addresses and remote port, local port 0) xor H(local port alone), and a device looks at the low bits only.
 * So the local ports are sorted once by those bits of their own part; a connect takes a table entry that is ours, and entry xor base names
 * the ports that lead to it. */
#include "steering.h"
#include <errno.h>
#include <stdlib.h>

enum { PORT_NUMBERS = 65536 };

/* Local ports sorted by class: the low bits of what they add to the hash. Class c is map places [starts[c], starts[c + 1]). They differ by
 * family because the port lies at another place of the key. */
struct steering_map {
    struct tcp_port_map map;
    uint16_t *port_at, *index_of;
    uint32_t *starts;
};

struct steering {
    struct toeplitz toeplitz;
    struct port_rss rss;
    uint32_t owned_count;
    uint16_t owned[PORT_RETA_MAX]; /* the entries that lead to this worker */
    uint32_t port_count;
    struct steering_map maps[2]; /* IPv4, IPv6 */
};

/* Primes above PORT_RETA_MAX: a walk by one of them visits every owned entry once, however many there are. */
static const uint16_t strides[] = {2053, 2063, 2069, 2081, 2083, 2087, 2089, 2099};

static uint32_t class_of(const struct steering *steering, uint8_t family, uint16_t port) {
    return toeplitz_port_part(&steering->toeplitz, toeplitz_destination_port_offset(family), port) &
           (uint32_t)(steering->rss.reta_size - 1);
}

static int map_set_up(struct steering *steering, uint8_t family, uint16_t port_first) {
    struct steering_map *map = &steering->maps[family == 6];
    uint32_t classes = steering->rss.reta_size;
    map->port_at = calloc(steering->port_count, sizeof *map->port_at);
    map->index_of = calloc(PORT_NUMBERS, sizeof *map->index_of);
    map->starts = calloc(classes + 1, sizeof *map->starts);
    uint32_t *next = calloc(classes, sizeof *next);
    if (map->port_at == NULL || map->index_of == NULL || map->starts == NULL || next == NULL) {
        free(next);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < steering->port_count; i++)
        map->starts[class_of(steering, family, (uint16_t)(port_first + i)) + 1]++;
    for (uint32_t class = 0; class < classes; class ++) {
        map->starts[class + 1] += map->starts[class];
        next[class] = map->starts[class];
    }
    for (uint32_t i = 0; i < steering->port_count; i++) {
        uint16_t port = (uint16_t)(port_first + i);
        uint32_t place = next[class_of(steering, family, port)]++;
        map->port_at[place] = port;
        map->index_of[port] = (uint16_t)place;
    }
    free(next);
    map->map = (struct tcp_port_map){.port_at = map->port_at, .index_of = map->index_of, .count = steering->port_count};
    return 0;
}

struct steering *steering_create(const struct port_rss *rss, uint32_t worker, uint16_t port_first, uint32_t port_count) {
    if (!rss->hashes || rss->reta_size == 0 || rss->reta_size > PORT_RETA_MAX || (rss->reta_size & (rss->reta_size - 1)) != 0 ||
        rss->key_length > PORT_RSS_KEY_MAX || port_count == 0 || port_first + port_count > PORT_NUMBERS) {
        errno = EINVAL;
        return NULL;
    }
    struct steering *steering = calloc(1, sizeof *steering);
    if (steering == NULL)
        return NULL;
    steering->rss = *rss;
    steering->port_count = port_count;
    toeplitz_set_up(&steering->toeplitz, rss->key, rss->key_length);
    for (uint16_t entry = 0; entry < rss->reta_size; entry++)
        if (rss->reta[entry] == worker)
            steering->owned[steering->owned_count++] = entry;
    int rc = steering->owned_count == 0 ? -EINVAL : map_set_up(steering, 4, port_first);
    if (rc == 0)
        rc = map_set_up(steering, 6, port_first);
    if (rc != 0) {
        steering_destroy(steering);
        errno = -rc;
        return NULL;
    }
    return steering;
}

void steering_destroy(struct steering *steering) {
    if (steering == NULL)
        return;
    for (uint32_t i = 0; i < 2; i++) {
        free(steering->maps[i].port_at);
        free(steering->maps[i].index_of);
        free(steering->maps[i].starts);
    }
    free(steering);
}

/* The hash of a reply: from `remote` to `local`. */
static uint32_t reply_hash(const struct steering *steering, const struct tcp_address *local, uint16_t local_port,
                           const struct tcp_address *remote, uint16_t remote_port) {
    return toeplitz_tuple(&steering->toeplitz, remote, local, remote_port, local_port);
}

bool steering_choose(const struct steering *steering, const struct tcp_address *local, const struct tcp_address *remote,
                     uint16_t remote_port, uint64_t random, uint32_t attempt, struct tcp_port_choice *choice) {
    if (attempt >= steering->owned_count)
        return false;
    uint32_t base = reply_hash(steering, local, 0, remote, remote_port);
    uint32_t start = (uint32_t)random % steering->owned_count;
    uint32_t stride = strides[random >> 32 & 7];
    uint32_t entry = steering->owned[(start + attempt * stride) % steering->owned_count];
    uint32_t class = (entry ^ base) & (uint32_t)(steering->rss.reta_size - 1);
    const struct steering_map *map = &steering->maps[local->family == 6];
    *choice = (struct tcp_port_choice){.map = &map->map, .first = map->starts[class], .count = map->starts[class + 1] - map->starts[class]};
    return true;
}

uint32_t steering_owner(const struct steering *steering, const struct tcp_address *local, uint16_t local_port,
                        const struct tcp_address *remote, uint16_t remote_port) {
    return toeplitz_queue(&steering->rss, reply_hash(steering, local, local_port, remote, remote_port));
}
