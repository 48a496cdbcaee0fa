/* tcp_timer.c: the wheel. */
#include "tcp_timer.h"

#include "tcp_conn.h"

enum {
    SLOT_BITS = 8,
    SLOT_MASK = TCP_WHEEL_SLOTS - 1,
    MOVES_PER_UNIT = 4, /* moving an entry down a level costs a fraction of what firing it does */
};

void tcp_wheel_init(struct tcp_wheel *wheel, uint64_t now_us) {
    memset(wheel, 0, sizeof(*wheel));
    memset(wheel->heads, 0xff, sizeof(wheel->heads));
    wheel->tick = now_us >> TCP_WHEEL_TICK_SHIFT;
}

static uint64_t due_of(const struct tcp_wheel *wheel, const struct tcp_conn *conn) {
    return wheel->tick + (uint32_t)(conn->timer.tick - (uint32_t)wheel->tick);
}

static void wheel_insert(struct tcp_stack *stack, struct tcp_conn *conn, uint64_t tick) {
    struct tcp_wheel *wheel = &stack->wheel;
    uint64_t differs = tick ^ wheel->tick;
    if (differs >> 32 != 0) { /* too far for the wheel: looked at again when its last slot comes */
        tick = wheel->tick | UINT32_MAX;
        differs = tick ^ wheel->tick;
    }
    unsigned level = differs == 0 ? 0 : (63U - (unsigned)__builtin_clzll(differs)) / SLOT_BITS;
    unsigned place = (unsigned)(tick >> (level * SLOT_BITS)) & SLOT_MASK;
    uint32_t slot = level * TCP_WHEEL_SLOTS + place, index = conn_index(conn), head = wheel->heads[slot];
    conn->timer = (struct tcp_timer_link){.tick = (uint32_t)tick, .next = head, .previous = TCP_NONE, .slot = slot};
    if (head != TCP_NONE) {
        conn_at(stack, head)->timer.previous = index;
    }
    wheel->heads[slot] = index;
    wheel->occupied[level][place >> 6] |= 1ULL << (place & 63);
}

void tcp_timer_remove(struct tcp_conn *conn) {
    struct tcp_timer_link *link = &conn->timer;
    if (link->slot == TCP_NONE) {
        return;
    }
    struct tcp_stack *stack = conn->stack;
    if (link->next != TCP_NONE) {
        conn_at(stack, link->next)->timer.previous = link->previous;
    }
    if (link->previous != TCP_NONE) {
        conn_at(stack, link->previous)->timer.next = link->next;
    } else {
        stack->wheel.heads[link->slot] = link->next;
        if (link->next == TCP_NONE) {
            unsigned place = link->slot & SLOT_MASK;
            stack->wheel.occupied[link->slot / TCP_WHEEL_SLOTS][place >> 6] &= ~(1ULL << (place & 63));
        }
    }
    link->slot = TCP_NONE;
}

void tcp_timer_arm(struct tcp_conn *conn, uint64_t at_us) {
    if (at_us == TCP_NEVER) {
        return;
    }
    uint64_t tick = (at_us >> TCP_WHEEL_TICK_SHIFT) + 1; /* rounded up: never before its time */
    if (tick <= conn->stack->wheel.tick) {
        tick = conn->stack->wheel.tick + 1;
    }
    if (conn->timer.slot != TCP_NONE) {
        if (due_of(&conn->stack->wheel, conn) <= tick) {
            return;
        }
        tcp_timer_remove(conn);
    }
    wheel_insert(conn->stack, conn, tick);
}

/* First occupied place at or after `from`, or -1. */
static int level_next(const struct tcp_wheel *wheel, unsigned level, unsigned from) {
    if (from > SLOT_MASK) {
        return -1;
    }
    unsigned word = from >> 6;
    uint64_t bits = wheel->occupied[level][word] & (~0ULL << (from & 63));
    while (bits == 0) {
        if (++word == TCP_WHEEL_SLOTS / 64) {
            return -1;
        }
        bits = wheel->occupied[level][word];
    }
    return (int)(word * 64 + (unsigned)__builtin_ctzll(bits));
}

/* The tick at which the next occupied slot begins, and its number; false when the wheel is empty. Slots of a lower level always begin
 * before the next one of a higher level, except for what is left of a slot that was reached and not yet moved down. */
static bool wheel_next(const struct tcp_wheel *wheel, uint64_t *tick, uint32_t *slot) {
    for (unsigned level = TCP_WHEEL_LEVELS - 1; level > 0; level--) {
        unsigned here = (unsigned)(wheel->tick >> (level * SLOT_BITS)) & SLOT_MASK;
        if ((wheel->occupied[level][here >> 6] >> (here & 63) & 1) != 0) {
            *tick = wheel->tick;
            *slot = level * TCP_WHEEL_SLOTS + here;
            return true;
        }
    }
    for (unsigned level = 0; level < TCP_WHEEL_LEVELS; level++) {
        unsigned shift = level * SLOT_BITS, here = (unsigned)(wheel->tick >> shift) & SLOT_MASK;
        int place = level_next(wheel, level, level == 0 ? here : here + 1);
        if (place >= 0) {
            uint64_t base = wheel->tick >> (shift + SLOT_BITS) << (shift + SLOT_BITS);
            *tick = base | (uint64_t)place << shift;
            *slot = level * TCP_WHEEL_SLOTS + (unsigned)place;
            return true;
        }
    }
    return false;
}

uint32_t tcp_timer_run(struct tcp_stack *stack, uint32_t budget, uint64_t now_us) {
    struct tcp_wheel *wheel = &stack->wheel;
    uint64_t target = now_us >> TCP_WHEEL_TICK_SHIFT, tick;
    uint32_t slot, fired = 0, moved = 0;
    while (fired + moved / MOVES_PER_UNIT < budget) {
        if (!wheel_next(wheel, &tick, &slot) || tick > target) {
            if (target > wheel->tick) {
                wheel->tick = target;
            }
            break;
        }
        wheel->tick = tick;
        struct tcp_conn *conn = conn_at(stack, wheel->heads[slot]);
        uint64_t due = due_of(wheel, conn);
        tcp_timer_remove(conn);
        if (due > tick) {
            wheel_insert(stack, conn, due); /* moves down a level */
            moved++;
        } else {
            tcp_expire(conn, now_us);
            fired++;
        }
    }
    return fired + moved / MOVES_PER_UNIT;
}

uint64_t tcp_timer_next(const struct tcp_stack *stack) {
    uint64_t tick;
    uint32_t slot;
    return wheel_next(&stack->wheel, &tick, &slot) ? tick << TCP_WHEEL_TICK_SHIFT : TCP_NEVER;
}
