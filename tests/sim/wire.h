/* wire.h: the virtual wire: what happens to a segment between two hosts, and the queue of what is on its way. */
#ifndef TESTS_SIM_WIRE_H
#define TESTS_SIM_WIRE_H

#include "random.h"
#include "segment.h"

enum { WIRE_EVENTS_MAX = 1 << 16 };

/* One direction of a connection's path. Chances are per thousand. */
struct wire_path {
    uint32_t loss, ack_loss, duplicate, reorder, corrupt;
    uint32_t burst_begins, burst_most_us; /* within a burst nearly everything is lost */
    uint64_t burst_until_us;
    uint32_t delay_us, jitter_us;
    uint32_t bytes_per_ms, queue_us; /* a bottleneck and its queue; 0: none */
    uint64_t free_at_us;
    uint64_t strip_at_us; /* from then on a middlebox takes timestamps out of what is no SYN; 0: never */
    uint16_t mtu;         /* 0: any */
    bool icmp;            /* the router says so when a packet is too large */
    uint64_t mtu_at_us;   /* when `mtu_then` comes into force; 0: never */
    uint16_t mtu_then;
};

enum wire_kind { WIRE_SEGMENT, WIRE_STRANGER, WIRE_ICMP };

struct wire_event {
    uint64_t at_us, order;
    enum wire_kind kind;
    uint16_t link;
    uint8_t to; /* side of the link */
    bool hard;  /* an ICMP error's */
    uint16_t mtu;
    struct segment segment; /* its payload is the event's own */
};

struct wire {
    struct wire_event *events[WIRE_EVENTS_MAX];
    uint32_t count;
    uint64_t order;
    bool overflow;
    uint64_t carried, lost, late, doubled, too_big;
};

enum wire_fate { WIRE_CARRIED, WIRE_DOUBLED, WIRE_LOST, WIRE_QUEUE_FULL, WIRE_TOO_BIG };
const char *wire_fate_text(enum wire_fate fate);
/* Puts a segment on the wire; `headers` are the bytes of IP and TCP before options. WIRE_TOO_BIG: *mtu is what the router would say, or 0
 * when it says nothing. */
enum wire_fate wire_carry(struct wire *wire, struct wire_path *path, struct sim_random *random, const struct wire_event *what,
                          uint32_t headers, uint64_t now_us, uint16_t *mtu);
/* Puts it on its way as it is, to arrive at at_us. */
void wire_push(struct wire *wire, const struct wire_event *what, uint64_t at_us);
/* When the next one arrives, or UINT64_MAX. */
uint64_t wire_next(const struct wire *wire);
/* Takes it off; wire_event_free gives it back. */
struct wire_event *wire_pop(struct wire *wire);
void wire_event_free(struct wire_event *event);

#endif
