/* app.c: the layer above the stack: writes, reads slowly or at once, closes, aborts, and judges what it hears (the contract of struct
 * tcp_events). */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "world.h"

enum {
    PIECES_MAX = 24,
    PAGE_BYTES = 4096,
    CONNECT_TRIES_MAX = 40 * 1000, /* more than a user timeout's worth: a port may be held by a peer that vanished */
    MESSAGE_MAX = 6000,
    PATIENCE_US = 600 * 1000 * 1000,   /* the other end is gone and nothing is in flight that would tell */
    HALF_CLOSED_US = 60 * 1000 * 1000, /* tcp_close's promise */
    KEEPALIVES_MIN = 4,                /* probes without an answer before a connection is given up */
    KEEPALIVE_SLOWEST_US = 75 * 1000 * 1000,
};

struct owner {
    struct tcp_owner base;
    struct world *world;
    uint8_t *pages; /* freed with the last reference: a later read is a use after free */
};

static void owner_release(struct tcp_owner *base) {
    struct owner *owner = (struct owner *)(void *)base;
    owner->world->owners--;
    free(owner->pages);
    free(owner);
}

/* Queues a message as pieces with one owner, some of which outlive everything. */
static void app_send(struct side *side, uint32_t bytes) {
    struct world *world = side->link->world;
    struct app *app = &side->app;
    const uint8_t *stream = world_stream(side);
    struct tcp_piece pieces[PIECES_MAX];
    struct owner *owner = malloc(sizeof(*owner));
    if (owner == NULL) {
        abort();
    }
    *owner = (struct owner){.base = {.references = 1, .release = owner_release}, .world = world};
    /* Where pages end decides which pieces are joined: an offset drawn, so that the same seed gives the same run. */
    uint32_t offset = random_range(&world->random, 0, PAGE_BYTES - 1), pages = (offset + bytes + PAGE_BYTES - 1) / PAGE_BYTES;
    owner->pages = aligned_alloc(PAGE_BYTES, (size_t)pages * PAGE_BYTES);
    if (owner->pages == NULL) {
        abort();
    }
    uint8_t *copy = owner->pages + offset;
    memcpy(copy, stream + app->queued, bytes);
    world->owners++;
    uint32_t count = 0, at = 0;
    while (at < bytes) {
        uint32_t length = count == PIECES_MAX - 1 ? bytes - at : random_range(&world->random, 1, bytes - at);
        if (random_chance(&world->random, 300)) {
            length = 1 + length / 50;
        }
        length = length > bytes - at || count == PIECES_MAX - 1 ? bytes - at : length;
        bool lasting = random_chance(&world->random, 200);
        pieces[count++] = (struct tcp_piece){
            .bytes = lasting ? stream + app->queued + at : copy + at, .length = length, .owner = lasting ? NULL : &owner->base};
        at += length;
    }
    side->host->in_call = true;
    int rc = tcp_send(app->conn, pieces, count, world->now_us);
    side->host->in_call = false;
    if (rc == 0) {
        app->queued += bytes;
        side->checker.queued = app->queued;
    } else if (rc != -ENOBUFS && rc != -EPIPE) {
        world_fail(world, side, "tcp_send answers what it should not");
    }
    if (--owner->base.references == 0) {
        owner_release(&owner->base);
    }
}

static void app_abort(struct side *side, bool gave_up) {
    struct app *app = &side->app;
    app->aborted = true;
    app->gave_up = gave_up;
    side->checker.aborted = true;
    side->host->in_call = true;
    tcp_abort(app->conn, side->link->world->now_us);
    side->host->in_call = false;
}

static void check_numbers(struct side *side) {
    struct app *app = &side->app;
    if (app->conn == NULL || app->closed > 0 || app->aborted) {
        return;
    }
    uint32_t waits = tcp_unacknowledged(app->conn), unsent = tcp_unsent(app->conn);
    if (unsent > waits || waits > app->queued) {
        world_fail(side->link->world, side, "tcp_unacknowledged or tcp_unsent is wrong");
    }
}

static void app_write(struct side *side) {
    struct app *app = &side->app;
    struct world *world = side->link->world;
    if (app->conn == NULL || app->closed > 0 || app->close_called || app->aborted) {
        return;
    }
    while (app->queued < app->stream_bytes && tcp_unacknowledged(app->conn) < app->most_unacknowledged) {
        uint32_t left = app->stream_bytes - app->queued, most = left < MESSAGE_MAX ? left : MESSAGE_MAX, before = app->queued;
        app_send(side, random_range(&world->random, 1, most));
        if (app->queued >= app->abort_at) {
            app_abort(side, false);
            return;
        }
        if (app->queued == before || random_chance(&world->random, app->pauses ? 900 : 300)) {
            break;
        }
    }
    tcp_output(app->conn, world->now_us);
    if (app->connected && app->queued == app->stream_bytes && (app->closes_first || app->peer_closed)) {
        app->close_called = side->checker.close_called = true;
        app->fin_at_us = world->now_us;
        side->host->in_call = true;
        tcp_close(app->conn, world->now_us);
        side->host->in_call = false;
    }
    check_numbers(side);
}

static void expect_live(struct side *side, const char *what) {
    if (side->app.closed > 0 || !side->app.begun) {
        world_fail(side->link->world, side, what);
    }
}

static void set_patience(struct side *side, struct tcp_conn *conn) {
    side->app.acked_us = side->link->world->now_us;
    if (side->app.user_timeout_us > 0) {
        tcp_set_user_timeout(conn, side->app.user_timeout_us);
    }
}

static void on_connected(void *user, struct tcp_conn *conn, uint64_t now_us) {
    struct side *side = user;
    expect_live(side, "`connected` of a connection that is over");
    if (side->app.connected || !tcp_is_open(conn)) {
        world_fail(side->link->world, side, "`connected` came twice, or it is not open");
    }
    side->app.connected = side->checker.established = true;
    set_patience(side, conn);
    if (random_chance(&side->link->world->random, 500)) {
        app_write(side);
    }
}

static void *on_accepted(void *listener_user, struct tcp_conn *conn, uint64_t now_us) {
    struct host *host = listener_user;
    struct world *world = host->world;
    struct tcp_address local, remote;
    uint16_t local_port, remote_port;
    tcp_endpoints(conn, &local, &local_port, &remote, &remote_port);
    struct side *found = NULL;
    for (uint32_t i = 0; i < world->link_count; i++) {
        struct side *side = &world->links[i].sides[1];
        if (side->link->birth > 0 && !side->is_model && side->checker.syn_sent && side->port == local_port &&
            side_other(side)->port == remote_port && memcmp(&side->address, &local, sizeof(local)) == 0 &&
            memcmp(&side_other(side)->address, &remote, sizeof(remote)) == 0 && (found == NULL || side->link->birth > found->link->birth)) {
            found = side;
        }
    }
    if (found == NULL || found->app.begun) {
        world_fail(world, found, "`accepted` of an unknown connection, or twice");
        return NULL;
    }
    found->app.begun = found->app.connected = found->checker.established = true;
    found->app.conn = conn;
    set_patience(found, conn);
    found->app.act_at = world->now_us + random_range(&world->random, 1000, 50000);
    if (random_chance(&world->random, 500)) {
        app_write(found);
    }
    return found;
}

static uint32_t on_received(void *user, struct tcp_conn *conn, const uint8_t *bytes, uint32_t length, uint64_t now_us) {
    struct side *side = user;
    struct app *app = &side->app;
    struct world *world = side->link->world;
    uint32_t take = length, most = side->checker.incoming_bytes;
    expect_live(side, "`received` of a connection that is over");
    if (app->lazy && random_chance(&world->random, 400)) {
        take = random_range(&world->random, 0, length);
    }
    if (length == 0 || app->peer_closed || app->received + length > most ||
        memcmp(bytes, side->checker.incoming_stream + app->received, length) != 0) {
        world_fail(world, side, "received bytes are not the peer's");
        return length;
    }
    app->received += take;
    if (random_chance(&world->random, 300)) {
        app_write(side);
    }
    return take;
}

static void on_peer_closed(void *user, struct tcp_conn *conn, uint64_t now_us) {
    struct side *side = user;
    expect_live(side, "`peer_closed` of a connection that is over");
    if (side->app.peer_closed || side->app.received != side->checker.incoming_bytes || tcp_is_open(conn)) {
        world_fail(side->link->world, side, "`peer_closed` at the wrong time");
    }
    side->app.peer_closed = true;
    app_write(side);
}

static void on_acknowledged(void *user, struct tcp_conn *conn, uint32_t bytes, uint64_t now_us) {
    struct side *side = user;
    expect_live(side, "`acknowledged` of a connection that is over");
    side->app.acknowledged += bytes;
    side->app.acked_us = now_us;
    if (bytes == 0 || side->app.acknowledged > side->app.queued ||
        (!side->app.aborted && tcp_unacknowledged(conn) != side->app.queued - side->app.acknowledged)) {
        world_fail(side->link->world, side, "`acknowledged` counts wrongly");
    }
    if (random_chance(&side->link->world->random, 500)) {
        app_write(side);
    }
}

static void on_closed(void *user, struct tcp_conn *conn, enum tcp_error error, uint64_t now_us) {
    struct side *side = user;
    struct app *app = &side->app;
    if (side->host->in_call) {
        world_fail(side->link->world, side, "`closed` came from inside a call");
    }
    if (app->closed++ > 0) {
        world_fail(side->link->world, side, "`closed` came twice");
    }
    if (error == TCP_TIMED_OUT && app->connected) {
        uint64_t heard = side->checker.last_text_us > app->fin_at_us ? side->checker.last_text_us : app->fin_at_us;
        uint64_t keepalive_us = side->host->config.keepalive_us;
        bool probed =
            keepalive_us > 0 && now_us >= side->checker.last_in_us +
                                              KEEPALIVES_MIN * (keepalive_us < KEEPALIVE_SLOWEST_US ? keepalive_us : KEEPALIVE_SLOWEST_US);
        bool patient = app->user_timeout_us > 0 && now_us >= app->acked_us + app->user_timeout_us;
        if (!probed && !patient && now_us < heard + HALF_CLOSED_US) {
            world_fail(side->link->world, side, "timed out although the peer spoke");
        }
    }
    app->error = error;
    app->closed_at_us = now_us;
    app->act_at = NEVER;
    app->conn = NULL;
    side->checker.over = true;
    if (side->link->world->trace) {
        printf("%12.6f link %u side %u closed: %s\n", (double)(now_us - side->link->world->begun_us) / 1e6, side->link->index, side->index,
               tcp_error_text(error));
    }
}

const struct tcp_events app_events = {on_connected, on_received, on_peer_closed, on_acknowledged, on_closed, on_accepted};

void app_start(struct side *side) {
    struct link *link = side->link;
    struct world *world = link->world;
    struct app *app = &side->app;
    uint64_t timeout_us = side_other(side)->is_model && side_other(side)->peer.habits.silent ? 30ULL * 1000 * 1000 : 600ULL * 1000 * 1000;
    world->connecting = link;
    side->host->in_call = true;
    app->begun = true;
    int rc = tcp_connect(side->host->stack, &side->address, &side_other(side)->address, side_other(side)->port, timeout_us, side,
                         &app->conn, world->now_us);
    side->host->in_call = false;
    world->connecting = NULL;
    if (rc == 0) {
        struct tcp_address local, remote;
        uint16_t local_port, remote_port;
        tcp_endpoints(app->conn, &local, &local_port, &remote, &remote_port);
        if (local_port != side->port || remote_port != side_other(side)->port || memcmp(&local, &side->address, sizeof(local)) != 0) {
            world_fail(world, side, "tcp_endpoints tells other ends");
        }
        if (side->host->steered && !scenario_port_is_ours(side->host, local_port)) {
            world_fail(world, side, "a local port whose segments another worker gets");
        }
        world_check_reuse(side);
        side->checker.last_in_us = world->now_us;
        app->act_at = world->now_us + random_range(&world->random, 1000, 50000);
        link->start_at = NEVER;
        return;
    }
    app->begun = false;
    app->conn = NULL;
    if ((rc != -EADDRNOTAVAIL && rc != -ENOBUFS) || ++link->connect_tries > CONNECT_TRIES_MAX) {
        world_fail(world, side,
                   rc == -ENOBUFS         ? "tcp_connect: no room"
                   : rc == -EADDRNOTAVAIL ? "tcp_connect: no port"
                                          : "tcp_connect fails");
    }
    link->start_at = world->now_us + random_range(&world->random, 100, 400) * (1000 + 100ULL * link->connect_tries);
}

/* The other end has forgotten the connection. */
static bool other_gone(struct side *side) {
    const struct side *other = side_other(side);
    if (other->is_model) {
        return other->peer.state == MODEL_GONE;
    }
    return other->app.closed > 0 || !other->app.begun;
}

void app_act(struct side *side) {
    struct app *app = &side->app;
    struct world *world = side->link->world;
    app->act_at = world->now_us + random_range(&world->random, 1000, app->pauses ? 400000 : 50000);
    if (app->conn == NULL) {
        return;
    }
    if (other_gone(side) && world->now_us > side->checker.last_in_us + PATIENCE_US && !app->aborted) {
        app_abort(side, true); /* its RST was lost and nothing is in flight that would bring another: only time tells */
        return;
    }
    if (app->lazy && !app->aborted) {
        tcp_receive_resume(app->conn, world->now_us);
    }
    if (app->conn != NULL) {
        app_write(side);
    }
}

/* A reason why this side may end other than in order. */
static bool has_trouble(const struct side *side) {
    const struct link *link = side->link;
    for (int i = 0; i < 2; i++) {
        const struct side *one = &link->sides[i];
        if (one->is_model) {
            const struct model_habits *habits = &one->peer.habits;
            if (habits->refuses || habits->silent || habits->reset_at_us != 0) {
                return true;
            }
        } else if (one->app.aborted || link->refused_by_icmp) {
            return true;
        } else if (i == 1 && !one->app.begun &&
                   (one->host->config.max_half_open < LINKS_MAX || one->host->config.max_segments_in_flight != 0 ||
                    one->host->config.max_ranges != 0 || link->paths[0].loss > 0 || link->paths[0].burst_begins > 0)) {
            return true; /* its handshake made room for others, or only its end was lost */
        } else if (one->app.closed > 0 && one->app.error == TCP_TIMED_OUT) {
            return true; /* judged where it happened */
        }
    }
    return false;
}

void app_judge(struct side *side) {
    struct app *app = &side->app;
    struct world *world = side->link->world;
    struct side *other = side_other(side);
    bool trouble = has_trouble(side);
    if (!app->begun) {
        if (app->closed > 0) {
            world_fail(world, side, "`closed` of a connection that was never accepted");
        } else if (!trouble) {
            world_fail(world, side, "was never accepted");
        }
        return;
    }
    uint32_t got = other->is_model ? model_received(&other->peer) : other->app.received;
    bool complete = app->received == side->checker.incoming_bytes && got == app->stream_bytes && app->queued == app->stream_bytes;
    if (app->closed != 1) {
        world_fail(world, side, app->closed == 0 ? "a connection did not end" : "closed came twice");
    } else if (app->error == TCP_OK && !complete && !trouble) {
        world_fail(world, side, "ended in order without all bytes");
    } else if (app->error == TCP_OK && app->acknowledged != app->queued) {
        world_fail(world, side, "ended in order with bytes that were not acknowledged");
    } else if (app->error == TCP_RESET && complete && !other->is_model && other->app.error == TCP_OK) {
        return; /* the other end has it all and is gone, and its last acknowledgements were lost (RFC 9293 3.6.1) */
    } else if (app->error != TCP_OK && !trouble) {
        world_fail(world, side, "ended by an error without cause");
    } else if (app->error == TCP_ABORTED && !app->aborted) {
        world_fail(world, side, "aborted without being told");
    } else if (other->is_model && !app->aborted && other->peer.habits.reset_at_us == 0 && !side->link->refused_by_icmp &&
               side->index == 0 && (app->error == TCP_REFUSED) != other->peer.habits.refuses) {
        world_fail(world, side, "refused without cause, or not refused");
    }
}
