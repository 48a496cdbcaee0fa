/* neighbour.h: whom we know on a link: the table, its states and its timers, and frames that wait for an answer. Knows no frame formats. */
#ifndef DATAPLANE_NET_NEIGHBOUR_H
#define DATAPLANE_NET_NEIGHBOUR_H

#include "dataplane/port/frame.h"
#include "ip.h"
#include <stdbool.h>
#include <stdint.h>

enum {
    NEIGHBOURS_MAX = 1024,       /* each link; mail leaves through a gateway or two */
    NEIGHBOUR_WAITING_MAX = 4,   /* frames that wait for one neighbour: RFC 1122 2.3.2.2 asks for one; TCP keeps what finds no place */
    NEIGHBOUR_WAITING_POOL = 64, /* for all neighbours of a worker */
    NEIGHBOUR_TRIES = 3,
    NEIGHBOUR_RETRY_US = 1000000,
    NEIGHBOUR_CONFIRMED_US = 60000000, /* RFC 1122 2.3.2.1: about a minute, then asked again if in use */
    NEIGHBOUR_FAILED_US = 3000000,     /* until it may be asked again */
};

enum neighbour_state {
    NEIGHBOUR_FREE,
    NEIGHBOUR_INCOMPLETE, /* asked by broadcast or multicast, no MAC yet */
    NEIGHBOUR_REACHABLE,
    NEIGHBOUR_PROBING, /* has a MAC that is asked for confirmation by unicast, and used meanwhile */
    NEIGHBOUR_FAILED,  /* did not answer */
};

struct neighbour {
    struct ip address;
    uint16_t next; /* in its hash chain */
    uint8_t mac[6];
    enum neighbour_state state;
    uint8_t tries;
    bool pinned; /* the gateway: always kept confirmed */
    uint8_t waiting_count;
    uint8_t waiting[NEIGHBOUR_WAITING_MAX]; /* slots of the pool, oldest first */
    uint64_t due_us, used_us;
};

static inline bool neighbour_has_mac(const struct neighbour *neighbour) {
    return neighbour->state == NEIGHBOUR_REACHABLE || neighbour->state == NEIGHBOUR_PROBING;
}

struct neighbours;
struct frame_waiting_pool;

/* `key` is secret: strangers make neighbours. */
struct neighbours *neighbours_create(const uint64_t key[2]);
void neighbours_destroy(struct neighbours *table, struct frame_waiting_pool *pool);
struct neighbour *neighbour_find(struct neighbours *table, struct ip address);
/* The neighbour, made if it is new: INCOMPLETE and due at once. When the table is full the one that was used longest ago goes, of those
 * that have not answered if there are any: strangers make many of them (RFC 6583 section 6). */
struct neighbour *neighbour_get(struct neighbours *table, struct frame_waiting_pool *pool, struct ip address, uint64_t now_us);
/* It answered (or asked us) with this MAC, as we wanted to know. */
void neighbour_confirm(struct neighbours *table, struct neighbour *neighbour, const uint8_t mac[6], uint64_t now_us);
/* Someone claims its address with another MAC: the MAC that we have is asked first, and only when it is silent everyone is. */
void neighbour_doubt(struct neighbours *table, struct neighbour *neighbour, uint64_t now_us);
/* Runs the timers that are due. `ask` sends a request (unicast while PROBING), `failed` hears of each that gave no answer. Returns the next
 * due time or UINT64_MAX. */
uint64_t neighbours_poll(struct neighbours *table, struct frame_waiting_pool *pool, uint64_t now_us,
                         void (*ask)(void *context, struct neighbour *neighbour),
                         void (*failed)(void *context, struct neighbour *neighbour), void *context);

struct frame_waiting_pool *waiting_pool_create(uint32_t frame_bytes);
void waiting_pool_destroy(struct frame_waiting_pool *pool);
/* Keeps a copy of the frame until the neighbour answers. 0, or -EAGAIN when enough wait for it or the pool is empty. */
int neighbour_wait(struct frame_waiting_pool *pool, struct neighbour *neighbour, const struct frame *frame);
/* Gives the waiting frames, oldest first, to `send` with the header writable; they are gone afterwards. `send` NULL: dropped. Returns how
 * many. */
uint32_t neighbour_waiting_end(struct frame_waiting_pool *pool, struct neighbour *neighbour,
                               void (*send)(void *context, uint8_t *header, const struct frame *frame), void *context);

#endif
