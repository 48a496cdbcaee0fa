/* tcp_timer.h: a hierarchical wheel of one entry for each connection. An entry may fire early: whoever is called looks at its
 * own deadlines and arms again, so that moving a deadline further away (each ACK does) costs nothing. */
#ifndef DATAPLANE_TCP_TCP_TIMER_H
#define DATAPLANE_TCP_TCP_TIMER_H

#include <stdint.h>

struct tcp_stack;
struct tcp_conn;

enum { TCP_WHEEL_LEVELS = 4, TCP_WHEEL_SLOTS = 256, TCP_WHEEL_TICK_SHIFT = 10 /* a tick is 1024 us */ };
#define TCP_NEVER UINT64_MAX

/* An entry lies on the level of the highest byte in which its tick differs from `tick`, so that within a level nothing wraps. */
struct tcp_wheel {
    uint64_t tick;
    uint64_t occupied[TCP_WHEEL_LEVELS][TCP_WHEEL_SLOTS / 64];
    uint32_t heads[TCP_WHEEL_LEVELS * TCP_WHEEL_SLOTS];
};

struct tcp_timer_link {
    uint32_t tick; /* its low bits: it lies ahead of the wheel's by less than 2^32 */
    uint32_t next, previous;
    uint32_t slot; /* TCP_NONE when not on the wheel */
};

void tcp_wheel_init(struct tcp_wheel *wheel, uint64_t now_us);
/* Makes sure that the connection's timer is looked at no earlier than at_us and not much later; an earlier entry stays. */
void tcp_timer_arm(struct tcp_conn *conn, uint64_t at_us);
void tcp_timer_remove(struct tcp_conn *conn);
/* Fires what is due, at most `budget` entries; returns how many fired. */
uint32_t tcp_timer_run(struct tcp_stack *stack, uint32_t budget, uint64_t now_us);
/* A lower bound of the next expiry (absolute, us), or TCP_NEVER. */
uint64_t tcp_timer_next(const struct tcp_stack *stack);

#endif
