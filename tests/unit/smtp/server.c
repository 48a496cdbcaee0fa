/* server.c: the scripted servers: each reads what a session says and answers as the script has it. */
#include "server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

const struct script script_good = {
    .banner = "220 mx.test ESMTP\r\n",
    .ehlo = "250-mx.test\r\n250-PIPELINING\r\n250-SIZE 1000000\r\n250 ENHANCEDSTATUSCODES\r\n",
    .helo = "250 mx.test\r\n",
    .mail = "250 2.1.0 ok\r\n",
    .rcpt = "250 2.1.5 ok\r\n",
    .data = "354 go on\r\n",
    .chunk = "250 2.0.0 a chunk\r\n",
    .final = "250 2.0.0 taken as 4711\r\n",
    .rset = "250 2.0.0 ok\r\n",
    .quit = "221 2.0.0 bye\r\n",
};

struct server {
    bool in_body, had_body, idle_said, body_said, stalled, in_auth, secure, crypted, greeted;
    uint32_t auth_lines;
    uint32_t recipient, lines, taken;
    uint64_t body_bytes;
    char line[16384];
    uint32_t line_length;
    uint64_t chunk_left; /* of a BDAT */
    bool in_chunk, last_chunk, chunk_refused;
    /* keeps_sequence: */
    bool opened, dead; /* dead: it reads no more */
    uint32_t accepted;
    char sender[64], recipients[8][64], body[64];
    uint32_t stored_bytes;
};

static void deliver(struct world *world, struct tcp_conn *conn, const uint8_t *bytes, uint32_t length) {
    uint32_t step = world->script.byte_by_byte ? 1 : length;
    for (uint32_t at = 0; at < length && !conn->closing; at += step)
        fake_deliver(conn, bytes + at, step, world->now_us);
}

/* Text, or with none what the handshake has to say, through the server's TLS. */
static void say_secured(struct world *world, struct tcp_conn *conn, const char *text, uint32_t length) {
    static uint8_t wire[FAKE_HELD_BYTES / 2];
    deliver(world, conn, wire, world->tls.give(world->tls.context, (uint32_t)(conn - world->tcp.conns), text, length, wire, sizeof(wire)));
}

static void begin_tls(struct world *world, struct tcp_conn *conn) {
    struct server *server = conn->server;
    if (!world->tls.begin || conn->closing)
        return;
    world->tls.begin(world->tls.context, (uint32_t)(conn - world->tcp.conns));
    server->secure = server->crypted = true;
}

static void say(struct world *world, struct tcp_conn *conn, const char *text) {
    struct server *server = conn->server;
    server->stalled |= !text;
    if (server->stalled || conn->closing)
        return;
    if (strcmp(text, SAY_EOF) == 0) {
        fake_peer_fin(conn, world->now_us);
        return;
    }
    if (strcmp(text, SAY_RST) == 0) {
        fake_end(conn, TCP_RESET, world->now_us);
        return;
    }
    uint32_t length = (uint32_t)strlen(text), step = world->script.byte_by_byte ? 1 : length;
    if (server->crypted) {
        say_secured(world, conn, text, length);
        return;
    }
    uint8_t *copy = malloc(length); /* exactly as long, so that a read past the end is seen */
    assert_non_null(copy);
    for (uint32_t at = 0; at < length && !conn->closing; at += step) {
        memcpy(copy, text + at, step);
        assert_int_equal(world->tcp.events.received(conn->user, conn, copy, step, world->now_us), step);
    }
    free(copy);
}

static bool is_good(const char *reply) {
    return reply && reply[0] == '2';
}

/* Says what the script or the test wants, unless the command is out of order. Is it good news? */
static bool answer(struct world *world, struct tcp_conn *conn, enum place place, const char *reply, bool in_order, bool *stores) {
    struct server *server = conn->server;
    if (world->script.keeps_sequence && !in_order && (is_good(reply) || (reply && reply[0] == '3')))
        reply = "503 5.5.1 bad sequence\r\n";
    *stores = is_good(reply);
    if (world->on_reply)
        reply = world->on_reply(world, place, reply, stores);
    *stores &= in_order;
    bool goes_on = reply && reply[0] >= '2' && reply[0] <= '5' && strncmp(reply, "421", 3) != 0;
    server->dead |= world->script.keeps_sequence && reply && !goes_on; /* a stalled one goes on, silently */
    say(world, conn, reply);
    if (reply && strncmp(reply, "421", 3) == 0 && world->script.keeps_sequence)
        fake_peer_fin(conn, world->now_us);
    return is_good(reply) || (!reply && in_order);
}

static void forget(struct server *server) {
    server->opened = server->chunk_refused = false;
    server->accepted = server->stored_bytes = 0;
    memset(server->body, 0, sizeof(server->body));
}

static void keep_argument(char to[64], const char *line) {
    const char *begin = strchr(line, '<'), *end = begin ? strchr(begin, '>') : NULL;
    assert_non_null(end);
    snprintf(to, 64, "%.*s", (int)(end - begin - 1), begin + 1);
}

static void keep_body(struct server *server, const char *bytes, uint32_t length) {
    for (uint32_t i = 0; i < length && server->stored_bytes < sizeof(server->body) - 1; i++)
        server->body[server->stored_bytes++] = bytes[i];
}

static void keep_mail(struct world *world, const char *bytes, uint32_t length) {
    uint32_t at = world->mail_length[world->mails];
    if (at + length < sizeof(world->mail[0])) {
        memcpy(world->mail[world->mails] + at, bytes, length);
        world->mail_length[world->mails] += length;
    }
}

/* The body is whole: one message for each accepted recipient, if the verdict is good. */
static void judge(struct world *world, struct tcp_conn *conn, bool in_order) {
    struct server *server = conn->server;
    bool stores;
    if (world->mails < WORLD_MAILS_MAX - 1)
        world->mails++;
    /* Who answers has read, and who has read has acknowledged: the verdict's segment says so. */
    while (world->script.final && !world->script.final_unacknowledged && conn->left_count)
        fake_acknowledge(conn, world->now_us);
    bool keeps = !in_order && world->script.keeps_refused;
    uint32_t accepted = server->accepted;
    struct server had = *server;
    if (!keeps)
        forget(server);
    answer(world, conn, PLACE_FINAL, world->script.final, in_order, &stores);
    for (uint32_t i = 0; stores && world->script.keeps_sequence && i < accepted; i++) {
        struct delivery *delivery = &world->deliveries[world->delivery_count++];
        memcpy(delivery->sender, had.sender, sizeof(had.sender));
        memcpy(delivery->recipient, had.recipients[i], sizeof(had.recipients[i]));
        memcpy(delivery->body, had.body, sizeof(had.body));
    }
}

static void begin_chunk(struct server *server) {
    char last[8] = "";
    unsigned long bytes;
    assert_in_range(sscanf(server->line, "BDAT %lu %7s", &bytes, last), 1, 2);
    server->chunk_left = bytes;
    server->last_chunk = strcmp(last, "LAST") == 0;
    server->in_chunk = server->had_body = true;
    server->body_bytes = 0;
    server->body_said = false;
}

static void end_chunk(struct world *world, struct tcp_conn *conn, struct server *server) {
    bool in_order = server->accepted && !server->chunk_refused, stores;
    server->in_chunk = false;
    if (server->last_chunk)
        judge(world, conn, in_order);
    else
        server->chunk_refused |= !answer(world, conn, PLACE_CHUNK, world->script.chunk, in_order, &stores);
}

static bool is_command(const struct server *server, const char *verb) {
    return strncmp(server->line, verb, strlen(verb)) == 0;
}

/* AUTH, and the lines that are no commands until a reply other than 334. */
static void take_auth(struct world *world, struct tcp_conn *conn, struct server *server) {
    assert_true(server->auth_lines < sizeof(world->script.auth) / sizeof(world->script.auth[0]));
    const char *reply = world->script.auth[server->auth_lines++];
    server->in_auth = !reply || strncmp(reply, "334", 3) == 0;
    say(world, conn, reply);
}

static const char *ehlo_of(const struct script *script, const struct tcp_conn *conn) {
    const struct server *server = conn->server;
    uint32_t place = conn->remote.bytes[3] - 1u;
    bool last = server->secure || !script->ehlo || !strstr(script->ehlo, "STARTTLS");
    if (last && place < sizeof(script->ehlos) / sizeof(script->ehlos[0]) && script->ehlos[place])
        return script->ehlos[place];
    return server->secure ? script->ehlo_secure : script->ehlo;
}

static void take_command(struct world *world, struct tcp_conn *conn, struct server *server) {
    const struct script *script = &world->script;
    strncat(world->commands, server->line, sizeof(world->commands) - strlen(world->commands) - 2);
    strcat(world->commands, "|");
    if (server->in_auth || is_command(server, "AUTH")) {
        take_auth(world, conn, server);
    } else if (is_command(server, "EHLO")) {
        say(world, conn, ehlo_of(script, conn));
    } else if (is_command(server, "STARTTLS")) {
        say(world, conn, script->starttls);
        if (script->starttls && strncmp(script->starttls, "220", 3) == 0)
            begin_tls(world, conn);
    } else if (is_command(server, "\x16hello")) {
        server->secure = true;
        say(world, conn, script->handshake);
        if (script->implicit_tls && !conn->closing)
            say(world, conn, script->banner);
    } else if (is_command(server, "HELO")) {
        say(world, conn, script->helo);
    } else if (is_command(server, "MAIL")) {
        bool in_order = !server->opened, stores;
        if (in_order)
            server->recipient = server->accepted = 0;
        if (answer(world, conn, PLACE_MAIL, script->mail, in_order, &stores) && in_order) {
            server->opened = true;
            keep_argument(server->sender, server->line);
        }
    } else if (is_command(server, "RCPT")) {
        const char *reply = server->recipient < 4 && script->rcpts[server->recipient] ? script->rcpts[server->recipient] : script->rcpt;
        server->recipient++;
        bool in_order = server->opened, stores;
        if (answer(world, conn, PLACE_RCPT, reply, in_order, &stores) && in_order) {
            keep_argument(server->recipients[server->accepted % 8], server->line);
            server->accepted++;
        }
    } else if (is_command(server, "DATA")) {
        const char *reply = script->data;
        bool stores = false;
        if (script->keeps_sequence && !server->accepted && reply && reply[0] == '3')
            reply = "554 5.5.1 no valid recipients\r\n";
        if (world->on_reply)
            reply = world->on_reply(world, PLACE_DATA, reply, &stores);
        server->in_body = reply && strstr(reply, "354") == reply;
        server->had_body |= server->in_body;
        server->body_bytes = 0;
        server->body_said = false;
        server->dead |= script->keeps_sequence && reply && (reply[0] < '2' || reply[0] > '5' || strncmp(reply, "421", 3) == 0);
        say(world, conn, reply);
    } else if (is_command(server, "BDAT")) {
        begin_chunk(server);
        if (!server->chunk_left)
            end_chunk(world, conn, server);
    } else if (is_command(server, "RSET")) {
        bool stores;
        forget(server);
        answer(world, conn, PLACE_RSET, script->rset, true, &stores);
    } else if (is_command(server, "QUIT")) {
        say(world, conn, script->quit);
        if (script->quit && !script->keeps_open)
            fake_peer_fin(conn, world->now_us);
    } else {
        fail_msg("the server was told '%s'", server->line);
    }
}

static void take_body_line(struct world *world, struct tcp_conn *conn, struct server *server) {
    if (strcmp(server->line, ".") == 0) {
        server->in_body = false;
        judge(world, conn, server->accepted > 0 || !world->script.keeps_sequence);
        if (world->script.idle && !server->idle_said) {
            server->idle_said = true;
            /* Not in one segment with the verdict: the session has to be at rest. */
            smtp_engine_poll(world->engine, 100, world->now_us);
            say(world, conn, world->script.idle);
        }
        return;
    }
    const char *text = server->line[0] == '.' ? server->line + 1 : server->line;
    uint32_t length = (uint32_t)strlen(text);
    keep_mail(world, text, length);
    keep_mail(world, "\r\n", 2);
    keep_body(server, text, length);
    keep_body(server, "\r\n", 2);
}

static void count_body(struct world *world, struct tcp_conn *conn, struct server *server) {
    server->body_bytes++;
    world->body_bytes_received++;
    if (world->script.body && !server->body_said && server->body_bytes > world->script.body_bytes) {
        server->body_said = true;
        say(world, conn, world->script.body);
    }
}

static void take_chunk_byte(struct world *world, struct tcp_conn *conn, struct server *server, char byte) {
    keep_mail(world, &byte, 1);
    keep_body(server, &byte, 1);
    count_body(world, conn, server);
    if (--server->chunk_left == 0 && !conn->closing)
        end_chunk(world, conn, server);
}

static uint8_t *decrypt(struct world *world, struct tcp_conn *conn, uint8_t *bytes, uint32_t *length) {
    uint8_t *plain = malloc(FAKE_WIRE_BYTES);
    assert_non_null(plain);
    *length = world->tls.take(world->tls.context, (uint32_t)(conn - world->tcp.conns), bytes, *length, plain, FAKE_WIRE_BYTES);
    free(bytes);
    if (!((struct server *)conn->server)->stalled)
        say_secured(world, conn, NULL, 0);
    return plain;
}

static void serve(struct world *world, struct tcp_conn *conn) {
    struct server *server = conn->server;
    uint32_t length = conn->wire_length;
    if (!length)
        return;
    uint8_t *bytes = malloc(length);
    assert_non_null(bytes);
    memcpy(bytes, conn->wire, length);
    conn->wire_length = 0;
    if (server->crypted) {
        bytes = decrypt(world, conn, bytes, &length);
        if (world->script.implicit_tls && !server->greeted && world->tls.ready(world->tls.context, (uint32_t)(conn - world->tcp.conns))) {
            server->greeted = true;
            say(world, conn, world->script.banner);
        }
    }
    if (!server->in_body && !server->in_chunk)
        world->flights++;
    for (uint32_t i = 0; i < length && !conn->closing && !server->dead; i++) {
        if (server->in_chunk) {
            take_chunk_byte(world, conn, server, (char)bytes[i]);
            continue;
        }
        if (server->in_body)
            count_body(world, conn, server);
        assert_true(server->line_length < sizeof(server->line) - 1);
        server->line[server->line_length++] = (char)bytes[i];
        if (bytes[i] != '\n')
            continue;
        assert_true(server->line_length >= 2 && server->line[server->line_length - 2] == '\r'); /* never a bare LF */
        server->line[server->line_length - 2] = '\0';
        server->line_length = 0;
        if (server->in_body)
            take_body_line(world, conn, server);
        else
            take_command(world, conn, server);
    }
    free(bytes);
}

bool server_serve_all(struct world *world) {
    bool moved = false;
    for (uint32_t i = 0; i < FAKE_CONNS_MAX; i++) {
        struct tcp_conn *conn = &world->tcp.conns[i];
        if (conn->state == FAKE_FREE || conn->closing)
            continue;
        if (conn->state == FAKE_CONNECTING && !conn->server) {
            conn->server = calloc(1, sizeof(struct server));
            assert_non_null(conn->server);
            moved = true;
            fake_establish(conn, world->now_us);
            if (world->script.implicit_tls)
                begin_tls(world, conn);
            else
                say(world, conn, world->script.banner);
            continue;
        }
        if (conn->state != FAKE_OPEN)
            continue;
        if (conn->fin_sent && !conn->unacknowledged && !conn->peer_fin && !world->script.keeps_open) {
            fake_peer_fin(conn, world->now_us);
            moved = true;
            continue;
        }
        bool has_body = ((struct server *)conn->server)->had_body;
        if (conn->left_count && !(world->script.never_acknowledges_body && has_body)) {
            fake_acknowledge(conn, world->now_us);
            moved = true;
        }
        moved |= conn->wire_length > 0;
        serve(world, conn);
    }
    return moved;
}

void server_reap(struct world *world) {
    for (uint32_t i = 0; i < FAKE_CONNS_MAX; i++) {
        struct tcp_conn *conn = &world->tcp.conns[i];
        if (conn->state != FAKE_FREE && conn->closing) {
            free(conn->server);
            conn->server = NULL;
        }
    }
}
