/* fake_wire.c: the few functions of dataplane/tcp that the sink calls. */
#include "fake_wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct tcp_conn {
    void *user;
    bool open, fin, reset, client_fin, told_fin;
    uint32_t backlog_bytes, said_bytes;
    uint8_t backlog[WIRE_BYTES];
    char said[WIRE_BYTES + 1];
};

int tcp_send(struct tcp_conn *conn, const struct tcp_piece *pieces, uint32_t count, uint64_t now_us) {
    assert_false(conn->fin || conn->reset);
    for (uint32_t i = 0; i < count; i++) {
        assert_true(conn->said_bytes + pieces[i].length <= WIRE_BYTES);
        memcpy(conn->said + conn->said_bytes, pieces[i].bytes, pieces[i].length);
        conn->said_bytes += pieces[i].length;
    }
    conn->said[conn->said_bytes] = '\0';
    return 0;
}

void tcp_output(struct tcp_conn *conn, uint64_t now_us) {}

/* What dataplane/tls calls besides; nothing here needs an answer. */
int tcp_connect(struct tcp_stack *stack, const struct tcp_address *local, const struct tcp_address *remote, uint16_t remote_port,
                uint64_t timeout_us, void *user, struct tcp_conn **conn, uint64_t now_us) {
    return -1;
}

void tcp_set_user_timeout(struct tcp_conn *conn, uint64_t timeout_us) {}

bool tcp_is_open(const struct tcp_conn *conn) {
    return !conn->fin && !conn->reset;
}

uint32_t tcp_unsent(const struct tcp_conn *conn) {
    return 0;
}

uint32_t tcp_unacknowledged(const struct tcp_conn *conn) {
    return 0;
}

void tcp_close(struct tcp_conn *conn, uint64_t now_us) {
    conn->fin = true;
}

void tcp_abort(struct tcp_conn *conn, uint64_t now_us) {
    conn->reset = true;
}

void tcp_receive_resume(struct tcp_conn *conn, uint64_t now_us) {
    uint32_t taken = sink_events().received(conn->user, conn, conn->backlog, conn->backlog_bytes, now_us);
    memmove(conn->backlog, conn->backlog + taken, conn->backlog_bytes - taken);
    conn->backlog_bytes -= taken;
    if (conn->backlog_bytes == 0 && conn->client_fin && !conn->told_fin) {
        conn->told_fin = true;
        sink_events().peer_closed(conn->user, conn, now_us);
    }
}

void wire_create(struct wire *wire, const struct sink_config *config, const char *const *rules, unsigned count) {
    char error[256] = "";
    memset(wire, 0, sizeof(*wire));
    struct sink_config full = *config;
    full.name = config->name == NULL ? "sink.test" : config->name;
    full.recipients_max = config->recipients_max == 0 ? 100 : config->recipients_max;
    full.max_sessions = 2;
    full.max_transactions = config->max_transactions == 0 ? 2 : config->max_transactions;
    full.script = &wire->script;
    full.seen = &wire->seen;
    assert_int_equal(seen_create(&wire->seen, 1000), 0);
    assert_int_equal(seen_create(&wire->attempts, 1000), 0);
    wire->script.attempts = &wire->attempts;
    for (unsigned i = 0; i < count; i++)
        if (script_add(&wire->script, rules[i], "rule", error, sizeof(error)) != 0)
            fail_msg("%s", error);
    wire->sink = sink_create(&full);
    assert_non_null(wire->sink);
    wire->conn = calloc(1, sizeof(*wire->conn));
    assert_non_null(wire->conn);
    wire->now_us = 1000000;
    sink_poll(wire->sink, wire->now_us);
}

void wire_close(struct wire *wire) {
    struct tcp_conn *conn = wire->conn;
    if (conn->open)
        sink_events().closed(conn->user, conn, conn->reset ? TCP_ABORTED : conn->fin ? TCP_OK : TCP_RESET, wire->now_us);
    memset(conn, 0, sizeof(*conn));
    assert_int_equal(sink_sessions(wire->sink), 0);
}

void wire_destroy(struct wire *wire) {
    wire_close(wire);
    sink_destroy(wire->sink);
    seen_destroy(&wire->seen);
    seen_destroy(&wire->attempts);
    free(wire->conn);
}

bool wire_connect(struct wire *wire) {
    wire_close(wire);
    wire->conn->user = sink_events().accepted(sink_listener(wire->sink, wire->implicit), wire->conn, wire->now_us);
    wire->conn->open = wire->conn->user != NULL;
    return wire->conn->open;
}

void wire_say_bytes(struct wire *wire, const char *bytes, uint32_t length) {
    struct tcp_conn *conn = wire->conn;
    uint32_t step = wire->step == 0 ? length : wire->step;
    for (uint32_t at = 0; at < length; at += step) {
        uint32_t some = length - at < step ? length - at : step;
        assert_true(conn->backlog_bytes + some <= sizeof(conn->backlog));
        memcpy(conn->backlog + conn->backlog_bytes, bytes + at, some);
        bool waits = conn->backlog_bytes > 0; /* the stack tells of new bytes only when the old ones were taken */
        conn->backlog_bytes += some;
        if (!waits)
            tcp_receive_resume(conn, wire->now_us);
    }
}

void wire_say(struct wire *wire, const char *text) {
    wire_say_bytes(wire, text, (uint32_t)strlen(text));
}

void wire_hears(struct wire *wire, const char *text) {
    assert_string_equal(wire->conn->said, text);
    wire->conn->said_bytes = 0;
    wire->conn->said[0] = '\0';
}

void wire_hears_codes(struct wire *wire, const char *codes) {
    char heard[1024] = "";
    size_t length = 0;
    for (const char *at = wire->conn->said; *at != '\0'; at = strchr(at, '\n') + 1) {
        assert_non_null(strstr(at, "\r\n"));
        if (at[3] == '-')
            continue;
        assert_true(length + 5 < sizeof(heard));
        if (length > 0)
            heard[length++] = ' ';
        memcpy(heard + length, at, 3);
        length += 3;
        heard[length] = '\0';
    }
    assert_string_equal(heard, codes);
    wire->conn->said_bytes = 0;
    wire->conn->said[0] = '\0';
}

const char *wire_said(const struct wire *wire) {
    return wire->conn->said;
}

void wire_wait(struct wire *wire, uint32_t ms) {
    for (uint32_t i = 0; i < ms; i++) {
        wire->now_us += 1000;
        sink_poll(wire->sink, wire->now_us);
    }
}

void wire_finish(struct wire *wire) {
    wire->conn->client_fin = true;
    if (wire->conn->backlog_bytes == 0)
        tcp_receive_resume(wire->conn, wire->now_us);
}

bool wire_has_fin(const struct wire *wire) {
    return wire->conn->fin;
}

bool wire_is_reset(const struct wire *wire) {
    return wire->conn->reset;
}

uint32_t wire_backlog(const struct wire *wire) {
    return wire->conn->backlog_bytes;
}

const struct tally *wire_tally(const struct wire *wire) {
    return sink_tally(wire->sink);
}
