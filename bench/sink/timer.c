/* timer.c: a wheel of milliseconds for the few sessions that wait; one that waits longer than a turn stays in its slot. */
#include "session.h"

void timer_cancel(struct sink *sink, struct session *session) {
    if ((session->flags & SESSION_TIMED) == 0)
        return;
    session->flags &= (uint8_t)~SESSION_TIMED;
    if (session->timer_previous != POOL_NONE)
        session_at(sink, session->timer_previous)->timer_next = session->timer_next;
    else
        sink->wheel[session->due_us / WHEEL_TICK_US % WHEEL_SLOTS] = session->timer_next;
    if (session->timer_next != POOL_NONE)
        session_at(sink, session->timer_next)->timer_previous = session->timer_previous;
    sink->timers--;
}

void timer_set(struct sink *sink, struct session *session, uint64_t due_us) {
    timer_cancel(sink, session);
    if (due_us / WHEEL_TICK_US <= sink->ticked) /* its slot was looked at */
        due_us = (sink->ticked + 1) * WHEEL_TICK_US;
    uint32_t *slot = &sink->wheel[due_us / WHEEL_TICK_US % WHEEL_SLOTS];
    session->due_us = due_us;
    session->timer_previous = POOL_NONE;
    session->timer_next = *slot;
    if (*slot != POOL_NONE)
        session_at(sink, *slot)->timer_previous = session_index(sink, session);
    *slot = session_index(sink, session);
    session->flags |= SESSION_TIMED;
    sink->timers++;
}

/* What happens to a session at its time sets and cancels no other session's timer: the list stays as it is behind it. */
static void wheel_turn(struct sink *sink, uint64_t tick) {
    uint32_t next = POOL_NONE;
    for (uint32_t index = sink->wheel[tick % WHEEL_SLOTS]; index != POOL_NONE; index = next) {
        struct session *session = session_at(sink, index);
        next = session->timer_next;
        if (session->due_us / WHEEL_TICK_US <= tick) {
            timer_cancel(sink, session);
            session_timer(session);
        }
    }
}

/* Handshakes whose turn came, and what they said. Are there more? */
static bool poll_tls(struct sink *sink) {
    sink->polls = true;
    bool more = tls_worker_poll(sink->config.tls, sink->now_us);
    sink->polls = false;
    while (sink->flush_count > 0) {
        struct session *session = sink->to_flush[--sink->flush_count];
        if (session->state != SESSION_ENDING)
            stream_flush(&session->stream, sink->now_us);
    }
    return more;
}

uint64_t sink_poll(struct sink *sink, uint64_t now_us) {
    sink->now_us = now_us;
    uint64_t now_tick = now_us / WHEEL_TICK_US;
    if (sink->timers == 0 || now_tick > sink->ticked + WHEEL_SLOTS) {
        /* One whole turn at most, however long we were away. */
        uint64_t last = sink->timers == 0 || now_tick < WHEEL_SLOTS ? now_tick : now_tick - WHEEL_SLOTS;
        sink->ticked = last > sink->ticked ? last : sink->ticked;
    }
    while (sink->ticked < now_tick)
        wheel_turn(sink, ++sink->ticked);
    if (sink->config.tls != NULL && poll_tls(sink))
        return now_us;
    return sink->timers == 0 ? UINT64_MAX : now_us + WHEEL_TICK_US;
}
