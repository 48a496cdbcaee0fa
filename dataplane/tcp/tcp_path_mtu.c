/* tcp_path_mtu.c: how large a segment may be on the way to this peer: what routers say (RFC 1191, 8201; checked as RFC 5927 asks), black
 * holes that say nothing (RFC 4821), and a small memory of it for the next connection to that host. */
#include <errno.h>
#include <stdlib.h>

#include "tcp_conn.h"

enum {
    MTU_MIN_V4 = 576, /* below it fragments are the lesser evil (RFC 1191 section 3) */
    MTU_MIN_V6 = 1280,
    MTU_LEAST_V4 = 68,     /* RFC 791: no link is smaller, whatever a message claims */
    MTU_BLACK_HOLE = 1280, /* what passes nearly every tunnel */
    MSS_MIN = 88,          /* a peer that asks for less would have us send more headers than bytes */
    SETS = 1024,
    WAYS = 4,
    TIMEOUTS_UNPROVEN = 2, /* of a segment larger than all that ever arrived */
    TIMEOUTS_PROVEN = 4,   /* of one that used to pass: more likely nothing passes */
};
#define LOWERED_US    (10ULL * 60 * 1000 * 1000) /* RFC 8201 section 4 */
#define BLACK_HOLE_US (30ULL * 60 * 1000 * 1000) /* finding it again costs seconds */

int tcp_path_mtu_create(struct tcp_paths *paths) {
    *paths = (struct tcp_paths){.items = calloc(SETS * WAYS, sizeof(struct tcp_path))};
    return paths->items == NULL ? -ENOMEM : 0;
}

void tcp_path_mtu_destroy(struct tcp_paths *paths) {
    free(paths->items);
    paths->items = NULL;
}

size_t tcp_path_mtu_memory_bytes(void) {
    return SETS * WAYS * sizeof(struct tcp_path);
}

static struct tcp_path *set_of(const struct tcp_conn *conn) {
    static const uint8_t none[16];
    uint64_t words[5];
    unsigned count = tcp_tuple_words(words, none, conn->remote, conn->family, 0, 0);
    return &conn->stack->paths.items[tcp_hash_fast(&conn->stack->table_key, words, count) % SETS * WAYS];
}

static bool is_for(const struct tcp_path *path, const struct tcp_conn *conn) {
    return path->family == conn->family && memcmp(path->remote, conn->remote, 16) == 0;
}

static void remember(const struct tcp_conn *conn, uint64_t now_us) {
    uint64_t until_us = now_us + ((uint64_t)(conn->path_until - tcp_tick(now_us)) << TCP_TICK_SHIFT);
    struct tcp_paths *paths = &conn->stack->paths;
    struct tcp_path *set = set_of(conn), *place = set;
    for (unsigned i = 0; i < WAYS; i++) {
        if (is_for(&set[i], conn)) {
            place = &set[i];
            break;
        }
        place = set[i].until_us < place->until_us ? &set[i] : place;
    }
    *place = (struct tcp_path){
        .until_us = until_us, .mtu = conn->path_mtu, .family = conn->family, .may_fragment = (conn->path_flags & PATH_MAY_FRAGMENT) != 0};
    memcpy(place->remote, conn->remote, 16);
    paths->until_us = until_us > paths->until_us ? until_us : paths->until_us;
}

void tcp_path_mtu_start(struct tcp_conn *conn, uint64_t now_us) {
    if (now_us >= conn->stack->paths.until_us) {
        return;
    }
    const struct tcp_path *set = set_of(conn);
    for (unsigned i = 0; i < WAYS; i++) {
        if (is_for(&set[i], conn) && now_us < set[i].until_us) {
            conn->path_mtu = set[i].mtu;
            conn->path_until = tcp_tick(set[i].until_us);
            conn->path_flags = set[i].may_fragment ? PATH_MAY_FRAGMENT : 0;
        }
    }
}

static uint32_t headers(const struct tcp_conn *conn) {
    return conn->family == 4 ? TCP_HEADERS_V4 : TCP_HEADERS_V6;
}

/* Payload bytes of a segment in a packet of so many bytes (RFC 6691: the options count). */
static uint32_t payload_in(const struct tcp_conn *conn, uint32_t packet_bytes) {
    uint32_t taken = headers(conn) + ((conn->flags & CONN_TIMESTAMPS) != 0 ? TCP_TIMESTAMP_BYTES : 0);
    return packet_bytes > taken ? packet_bytes - taken : 0;
}

static uint32_t packet_limit(const struct tcp_conn *conn) {
    uint32_t device = conn->stack->config.mtu;
    return conn->path_mtu != 0 && conn->path_mtu < device ? conn->path_mtu : device;
}

void tcp_path_mtu_apply(struct tcp_conn *conn) {
    uint32_t asked = payload_in(conn, tcp_max(conn->peer_mss, MSS_MIN) + headers(conn));
    conn->mss = (uint16_t)tcp_min(asked, payload_in(conn, packet_limit(conn)));
    if (conn->cwnd != 0) {
        /* A window below one segment would send none; and no recovery ends below two (RFC 5681 equation 4). */
        conn->cwnd = tcp_max(conn->cwnd, conn->mss);
        conn->ssthresh = tcp_max(conn->ssthresh, 2U * conn->mss);
    }
}

static void lower(struct tcp_conn *conn, uint32_t mtu, bool may_fragment, uint64_t until_us) {
    conn->path_mtu = (uint16_t)mtu;
    conn->path_until = tcp_tick(until_us);
    conn->path_flags |= may_fragment ? PATH_MAY_FRAGMENT : 0;
    conn->path_timeouts = 0;
    conn->stack->counters.path_mtu_lowered++;
    tcp_path_mtu_apply(conn);
}

void tcp_path_mtu_raise(struct tcp_conn *conn) {
    conn->path_mtu = 0;
    conn->path_flags = 0;
    tcp_path_mtu_apply(conn);
}

/* RFC 1191 section 7.1: what links have, for a router that does not say. */
static uint32_t plateau_below(uint32_t mtu) {
    static const uint16_t plateaus[] = {32000, 17914, 8166, 4352, 2002, 1492, 1006, MTU_MIN_V4};
    for (unsigned i = 0; i < sizeof(plateaus) / sizeof(plateaus[0]); i++) {
        if (plateaus[i] < mtu) {
            return plateaus[i];
        }
    }
    return MTU_LEAST_V4;
}

/* Payload bytes of the segment in flight that holds this sequence number, or 0. */
static uint32_t segment_at(const struct tcp_conn *conn, uint32_t sequence) {
    for (uint32_t i = conn->flight_head; i != TCP_NONE; i = flight_at(conn->stack, i)->next) {
        const struct tcp_flight *flight = flight_at(conn->stack, i);
        if (SEQ_LT(sequence, flight->sequence + flight_space(flight))) {
            return (flight->flags & FLIGHT_SACKED) != 0 ? 0 : flight->length; /* what arrived was not too large */
        }
    }
    return 0;
}

void tcp_path_mtu_error(struct tcp_conn *conn, uint32_t sequence, uint32_t mtu, uint64_t now_us) {
    if (!conn_synchronized(conn)) {
        return;
    }
    uint32_t now = packet_limit(conn), least = MTU_MIN_V6;
    if (conn->family == 4) {
        least = MTU_MIN_V4;
        mtu = mtu == 1 ? plateau_below(now) : tcp_max(mtu, MTU_LEAST_V4);
    } else if (mtu < MTU_MIN_V6) {
        return; /* no IPv6 link is smaller (RFC 8200 section 5, RFC 8201 section 4) */
    }
    bool fragments = mtu < least, news = tcp_max(mtu, least) < now || (fragments && (conn->path_flags & PATH_MAY_FRAGMENT) == 0);
    uint32_t passes = payload_in(conn, mtu);
    if (!news || segment_at(conn, sequence) <= passes) { /* nothing that we sent was too large for it */
        return;
    }
    lower(conn, tcp_max(mtu, least), fragments, now_us + LOWERED_US);
    remember(conn, now_us);
    /* They were too large, which says nothing about congestion (RFC 1191 section 6.4, RFC 8201 section 5.4). */
    for (uint32_t i = conn->flight_head; i != TCP_NONE; i = flight_at(conn->stack, i)->next) {
        if (flight_at(conn->stack, i)->length > passes) {
            tcp_flight_mark_lost(conn, i);
        }
    }
    conn->backoff = 0;
    conn->retransmit_at = TCP_NEVER;
    tcp_output_run(conn, now_us);
    if (conn->state > TCP_STATE_CLOSED && conn->flight_head != TCP_NONE && conn->retransmit_at == TCP_NEVER) {
        tcp_recovery_arm(conn, now_us, now_us);
    }
}

void tcp_path_mtu_timeout(struct tcp_conn *conn, uint32_t length, uint64_t now_us) {
    uint32_t now = packet_limit(conn), next = conn->family == 4 ? MTU_MIN_V4 : MTU_MIN_V6;
    if (now > MTU_BLACK_HOLE && length > payload_in(conn, MTU_BLACK_HOLE)) {
        next = MTU_BLACK_HOLE; /* what makes this segment smaller at all */
    }
    if (next >= now || length <= payload_in(conn, next)) {
        return;
    }
    if (conn->path_timeouts < UINT8_MAX) {
        conn->path_timeouts++;
    }
    if (conn->path_timeouts >= (length > conn->passed_bytes ? TIMEOUTS_UNPROVEN : TIMEOUTS_PROVEN)) {
        lower(conn, next, next == MTU_MIN_V4, now_us + BLACK_HOLE_US);
        conn->path_flags |= PATH_SUSPECT;
    }
}

void tcp_path_mtu_proven(struct tcp_conn *conn, uint64_t now_us) {
    conn->path_timeouts = 0;
    if ((conn->path_flags & PATH_SUSPECT) != 0) {
        conn->path_flags &= (uint8_t)~PATH_SUSPECT;
        conn->stack->counters.black_holes++;
        remember(conn, now_us);
    }
}
