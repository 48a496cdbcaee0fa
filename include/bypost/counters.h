/* counters.h: what each worker counts. Written by that worker alone, read by anyone; they never go back while a dataplane lives. */
#ifndef BYPOST_COUNTERS_H
#define BYPOST_COUNTERS_H

#include <assert.h>
#include <stdatomic.h>
#include <stdint.h>

#define BYPOST_COUNTERS(X)                                                                                                                 \
    X(loops, "passes of the worker's loop")                                                                                                \
    X(loops_busy, "passes that moved something")                                                                                           \
    X(sleeps, "adaptive sleeps")                                                                                                           \
    X(frames_in, "frames received")                                                                                                        \
    X(frames_out, "frames sent")                                                                                                           \
    X(bytes_in, "bytes received")                                                                                                          \
    X(bytes_out, "bytes sent")                                                                                                             \
    X(frames_refused, "frames that the device did not take at once")                                                                       \
    X(frames_bad, "frames dropped: damaged or not for us")                                                                                 \
    X(frames_handed_over, "frames passed to the worker that owns the connection")                                                          \
    X(tcp_connects, "connections attempted")                                                                                               \
    X(tcp_established, "connections established")                                                                                          \
    X(tcp_failed, "connections refused, reset or timed out")                                                                               \
    X(tcp_retransmits, "segments sent again")                                                                                              \
    X(tcp_connections, "connections alive")                                                                                                \
    X(sessions_open, "SMTP sessions alive")                                                                                                \
    X(sessions_ready, "SMTP sessions that can take an order")                                                                              \
    X(tls_handshakes, "TLS handshakes that succeeded, resumed ones included")                                                              \
    X(tls_resumed, "of these, sessions resumed")                                                                                           \
    X(tls_failed, "TLS handshakes that failed, and certificates that were not good enough")                                                \
    X(tls_sessions, "TLS sessions alive")                                                                                                  \
    X(tls_memory_bytes, "heap that TLS holds")                                                                                             \
    X(transactions, "transactions begun")                                                                                                  \
    X(orders_claimed, "orders claimed")                                                                                                    \
    X(orders_returned, "orders given back unattempted")                                                                                    \
    X(messages_delivered, "recipients answered 2xx after the body")                                                                        \
    X(messages_deferred, "recipients answered 4xx")                                                                                        \
    X(messages_bounced, "recipients answered 5xx")                                                                                         \
    X(messages_lost, "recipients whose session ended before the body's end")                                                               \
    X(messages_uncertain, "recipients whose session ended after the body and before the verdict")                                          \
    X(message_bytes, "message bytes delivered")                                                                                            \
    X(path_events, "path events posted")                                                                                                   \
    X(path_events_dropped, "path events dropped because control did not read")                                                             \
    X(wild_values, "values out of range in the shared region: counted, never followed")

struct counters {
#define X(name, help) _Alignas(8) _Atomic uint64_t name;
    BYPOST_COUNTERS(X)
#undef X
};
enum { COUNTERS_BYTES = 512 };
static_assert(sizeof(struct counters) <= COUNTERS_BYTES, "the journal reserves this much for each worker");

/* Only the owner adds: a plain load and store, no locked instruction. */
static inline void counter_add(_Atomic uint64_t *counter, uint64_t count) {
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + count, memory_order_relaxed);
}
static inline void counter_set(_Atomic uint64_t *counter, uint64_t value) {
    atomic_store_explicit(counter, value, memory_order_relaxed);
}
static inline uint64_t counter_get(const _Atomic uint64_t *counter) {
    return atomic_load_explicit(counter, memory_order_relaxed);
}

#endif
