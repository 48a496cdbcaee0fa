/* smtp_control.c: a control that fills the journal by the rules of include/bypost/README.md and in no particular order, and judges what
 * comes back. */
#include "smtp_world.h"

#include "dataplane/smtp/capability.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TIMEOUT_MOST_MS = 20000, FREE_LATER_US = 2000000, BODY_RETRY = 3 };

static struct sim_random *dice(struct mail_world *world) {
    return &world->control_random;
}
static bool chance(struct mail_world *world, uint32_t per_thousand) {
    return random_chance(dice(world), per_thousand);
}
static uint32_t draw(struct mail_world *world, uint32_t low, uint32_t high) {
    return random_range(dice(world), low, high);
}

void mail_digest(uint64_t *digest, const uint8_t *bytes, uint32_t length) {
    for (uint32_t i = 0; i < length; i++)
        *digest = (*digest ^ bytes[i]) * UINT64_C(1099511628211);
}

struct mail_attempt *mail_attempt_of(struct mail_world *world, const char *recipient) {
    unsigned index;
    if (sscanf(recipient, "r%u@", &index) != 1 || index >= world->attempt_count)
        return NULL;
    return &world->attempts[index];
}

static struct slot *slot_of(struct mail_world *world, const struct mail_attempt *attempt) {
    return &world->journal.slots[attempt->slot];
}

static void hint_path(struct mail_world *world, uint32_t path) {
    struct path_cell *cell = journal_cell(&world->journal, path, 0);
    if (atomic_exchange(&cell->order.hinted, 1) == 0)
        ring_push(&world->journal, journal_order_ring(&world->journal, 0, 0), ring_entry(RING_PATH, path, world->sites[path].generation));
}

/* ---- paths ---- */

static uint16_t put_text(struct path *path, uint16_t *at, const char *text) {
    uint16_t offset = *at;
    size_t length = strlen(text) + 1;
    memcpy(path->strings + offset, text, length);
    *at = (uint16_t)(*at + length);
    return offset;
}

static uint32_t some_ms(struct mail_world *world) {
    return draw(world, 2000, TIMEOUT_MOST_MS);
}

static void draw_path(struct mail_world *world, uint32_t index, struct path *path) {
    uint16_t at = 1;
    *path = (struct path){.endpoint_count = draw(world, 1, 3), .source_count = draw(world, 1, 2)};
    path->pipelined_transactions = chance(world, 400) ? 1 : draw(world, 2, 8);
    path->max_deliveries_per_connection = chance(world, 300) ? draw(world, 1, 8) : 0;
    path->max_recipients_per_transaction = chance(world, 300) ? draw(world, 1, 4) : 0;
    path->tls_version_min = chance(world, 200) ? 13 : chance(world, 500) ? 12 : 0;
    path->broken_tls_s = chance(world, 500) ? draw(world, 1, 60) : 0;
    path->timeouts = (struct path_timeouts){.connect = some_ms(world),
                                            .banner = some_ms(world),
                                            .ehlo = some_ms(world),
                                            .mail = some_ms(world),
                                            .rcpt = some_ms(world),
                                            .data = some_ms(world),
                                            .block = some_ms(world),
                                            .final = some_ms(world),
                                            .rset = some_ms(world),
                                            .quit = some_ms(world),
                                            .idle = draw(world, 100, 5000)};
    bool auth = chance(world, 200), implicit = chance(world, 100);
    path->flags = (uint8_t)((implicit ? PATH_IMPLICIT_TLS : 0) | (chance(world, 150) ? PATH_TLS_TESTING : 0) |
                            (chance(world, 300) ? PATH_AUTH_PLAINTEXT : 0) | (chance(world, 150) ? PATH_NO_CHUNKING : 0));
    path->site = put_text(path, &at, "mail.test");
    if (auth) {
        path->auth_user = put_text(path, &at, "tim");
        path->auth_secret = put_text(path, &at, "tanstaaftanstaaf");
        path->auth_mechanisms = chance(world, 500) ? PATH_AUTH_PLAIN | PATH_AUTH_CRAM_MD5 : 0;
    }
    for (uint32_t i = 0; i < path->source_count; i++)
        path->sources[i] = (struct path_source){.address = {198, 51, 100, (uint8_t)(i + 1)},
                                                .family = 4,
                                                .ehlo = put_text(path, &at, i ? "out2.sender.test" : "out.sender.test")};
    uint32_t count = path->endpoint_count;
    for (path->endpoint_count = 0; path->endpoint_count < count; path->endpoint_count++) {
        struct mail_server *server =
            mail_draw_server(world, auth, path->flags & PATH_AUTH_PLAINTEXT, implicit, path->pipelined_transactions, path->tls_version_min);
        if (!server)
            break;
        server->path = index;
        server->generation = world->sites[index].generation;
        server->endpoint = path->endpoint_count;
        struct path_endpoint *endpoint = &path->endpoints[path->endpoint_count];
        *endpoint = (struct path_endpoint){.family = 4, .tls = (uint8_t)server->level, .port = server->port, .preference = 10};
        memcpy(endpoint->address, server->address.bytes, 4);
        endpoint->name = put_text(path, &at, "mx.test");
        if (server->level == PATH_TLS_DANE) {
            struct path_tlsa record = mail_tlsa(server->certificate == CERTIFICATE_OTHER ? CERTIFICATE_GOOD : server->certificate);
            memcpy(path->strings + at, &record, sizeof(record));
            endpoint->tlsa = at;
            endpoint->tlsa_count = 1;
            at = (uint16_t)(at + sizeof(record));
        }
    }
}

static void publish(struct mail_world *world, uint32_t index) {
    struct mail_path *site = &world->sites[index];
    struct path *path = &world->journal.paths[index];
    struct path_cell *cell = journal_cell(&world->journal, index, 0);
    struct path drawn;
    site->generation++;
    draw_path(world, index, &drawn);
    if (!drawn.endpoint_count)
        return;
    memcpy((char *)path + sizeof(path->word), (char *)&drawn + sizeof(path->word), sizeof(*path) - sizeof(path->word));
    memset(&world->journal.rests[index], 0, sizeof(struct path_rests));
    atomic_store(&cell->order.sessions_allowed, draw(world, 1, 4));
    atomic_store(&cell->order.demand, 0);
    atomic_store(&cell->order.connect_interval_us, chance(world, 500) ? 0 : draw(world, 1000, 500000));
    atomic_store(&path->word, path_word(site->generation, PATH_LIVE));
    site->state = PATH_SIM_LIVE;
    site->retire_at_us = world->now_us + (world->restless ? draw(world, 1, 120) * SECOND : 100000 * SECOND);
    hint_path(world, index);
}

static void retire(struct mail_world *world, uint32_t index) {
    world->totals->retired++;
    world->sites[index].state = PATH_SIM_RETIRING;
    atomic_store(&world->journal.paths[index].word, path_word(world->sites[index].generation, PATH_RETIRED));
    hint_path(world, index);
}

static void look_at_paths(struct mail_world *world) {
    for (uint32_t i = 0; i < MAIL_PATHS; i++) {
        struct mail_path *site = &world->sites[i];
        struct path_cell *cell = journal_cell(&world->journal, i, 0);
        if (site->state == PATH_SIM_RETIRING && !site->outstanding &&
            atomic_load(&cell->worker.acknowledged_generation) == site->generation)
            site->state = PATH_SIM_FREE;
        if (site->state == PATH_SIM_FREE && !world->draining && world->server_count + 3 < MAIL_SERVERS_MAX)
            publish(world, i);
        else if (site->state == PATH_SIM_LIVE && world->now_us >= site->retire_at_us)
            retire(world, i);
        if (site->state != PATH_SIM_LIVE || !chance(world, 50))
            continue;
        struct path *path = &world->journal.paths[i];
        switch (draw(world, 0, 3)) {
        case 0:
            world->totals->rests++;
            atomic_store(&world->journal.rests[i].endpoint_us[draw(world, 0, path->endpoint_count - 1)],
                         world->now_us + draw(world, 1, 10) * SECOND);
            break;
        case 1:
            atomic_store(&cell->order.sessions_allowed, draw(world, 0, 5));
            break;
        case 2:
            atomic_store(&cell->order.demand, draw(world, 0, 10));
            break;
        default:
            atomic_store(&cell->order.connect_interval_us, draw(world, 0, 1000000));
        }
        hint_path(world, i);
    }
}

/* ---- orders ---- */

static uint32_t free_slot(struct mail_world *world) {
    for (uint32_t i = 0; i < MAIL_SLOTS; i++) {
        if (world->slot_attempt[i] == MAIL_NONE)
            return i;
    }
    return MAIL_NONE;
}

/* A body of its own for each chain, so that the bytes may be spoilt as soon as it is over. */
static void fill_body(struct mail_world *world, uint32_t index, uint64_t *begin, uint64_t *bytes, struct slot *slot) {
    uint64_t offset = world->arena_used;
    uint32_t length = mail_text(world, index, world->arena + offset);
    uint64_t table = (offset + length + 7) & ~UINT64_C(7);
    struct arena_piece *pieces = (struct arena_piece *)(world->arena + table);
    uint32_t count = 0, most = chance(world, 500) ? length : draw(world, 1 + length / 200, 1 + length / 3);
    for (uint32_t at = 0; at < length; count++) {
        uint32_t part = length - at < most ? length - at : most;
        pieces[count] = (struct arena_piece){.offset = offset + at, .length = part};
        at += part;
    }
    slot->pieces = table;
    slot->piece_count = count;
    slot->size_bytes = length;
    *begin = offset;
    *bytes = table + count * sizeof(*pieces) - offset;
    world->arena_used = (offset + *bytes + 63) & ~UINT64_C(63);
}

static void fill_slot(struct mail_world *world, struct mail_attempt *attempt, const struct slot *first) {
    struct slot *slot = slot_of(world, attempt);
    uint32_t index = (uint32_t)(attempt - world->attempts);
    char sender[64], recipient[64];
    if (first) {
        slot->pieces = first->pieces;
        slot->piece_count = first->piece_count;
        slot->size_bytes = first->size_bytes;
    }
    slot->next = SLOT_NONE;
    slot->path = attempt->path;
    slot->path_generation = attempt->path_generation;
    slot->dataplane_generation = 1;
    slot->worker = 0;
    slot->flags = world->messages[attempt->message].flags;
    slot->not_before_us = first || !chance(world, 100) ? 0 : world->now_us + draw(world, 0, 5000000);
    int sender_length = snprintf(sender, sizeof(sender), "s%u@snd.test", attempt->message);
    int recipient_length = snprintf(recipient, sizeof(recipient), "r%u@d%u.test", index, attempt->job % 3);
    slot->sender_length = (uint16_t)sender_length;
    slot->recipient_length = (uint16_t)recipient_length;
    slot->dsn = (uint8_t)(chance(world, 300) ? SLOT_NOTIFY_FAILURE | (first ? 0 : SLOT_RET_HDRS) : 0);
    slot->envid_length = 0;
    memcpy(slot->text, sender, slot->sender_length);
    memcpy(slot->text + slot->sender_length, recipient, slot->recipient_length);
    memset(&slot->reply, 0, sizeof(slot->reply));
}

static uint32_t pick_path(struct mail_world *world) {
    for (uint32_t i = 0, at = draw(world, 0, MAIL_PATHS - 1); i < MAIL_PATHS; i++, at++) {
        uint32_t path = at % MAIL_PATHS;
        const struct path_worker_cell *cell = &journal_cell(&world->journal, path, 0)->worker;
        if (world->sites[path].state != PATH_SIM_LIVE)
            continue;
        if (world->overcommits || world->sites[path].outstanding < 2 || world->sites[path].outstanding < atomic_load(&cell->ready_capacity))
            return path;
    }
    return MAIL_NONE;
}

static uint32_t add_attempt(struct mail_world *world, uint32_t job, uint32_t path, uint32_t first) {
    uint32_t slot = free_slot(world);
    if (slot == MAIL_NONE || world->attempt_count == MAIL_ATTEMPTS_MAX)
        return MAIL_NONE;
    uint32_t index = world->attempt_count++;
    world->slot_attempt[slot] = index;
    world->attempts[index] = (struct mail_attempt){.job = job,
                                                   .message = world->jobs[job].message,
                                                   .slot = slot,
                                                   .generation = slot_word_generation(slot_load(&world->journal.slots[slot])),
                                                   .path = path,
                                                   .path_generation = world->sites[path].generation,
                                                   .first = first == MAIL_NONE ? index : first,
                                                   .next = MAIL_NONE,
                                                   .live = true};
    world->jobs[job].tries++;
    world->sites[path].outstanding++;
    world->live_attempts++;
    return index;
}

/* The jobs of one message that wait, as one chain. */
static void order_chain(struct mail_world *world) {
    uint32_t at = draw(world, 0, world->waiting_count - 1), message = world->jobs[world->waiting[at]].message, path = pick_path(world);
    if (path == MAIL_NONE || world->arena_used + 3 * world->messages[message].length + 10000 > MAIL_ARENA_BYTES)
        return;
    uint32_t most = chance(world, 300) ? 1 : 30, first = MAIL_NONE, last = MAIL_NONE, count = 0, kept = 0;
    for (uint32_t i = 0; i < world->waiting_count; i++) {
        uint32_t job = world->waiting[i], index = MAIL_NONE;
        if (world->jobs[job].message == message && count < most)
            index = add_attempt(world, job, path, first);
        if (index == MAIL_NONE) {
            world->waiting[kept++] = job;
            continue;
        }
        struct mail_attempt *attempt = &world->attempts[index];
        if (first == MAIL_NONE) {
            first = index;
            fill_body(world, message, &attempt->arena, &attempt->arena_bytes, slot_of(world, attempt));
            fill_slot(world, attempt, NULL);
        } else {
            fill_slot(world, attempt, slot_of(world, &world->attempts[first]));
            world->attempts[last].next = index;
            slot_of(world, &world->attempts[last])->next = attempt->slot;
            slot_of(world, &world->attempts[last])->next_generation = attempt->generation;
        }
        last = index;
        count++;
    }
    world->waiting_count = kept;
    for (uint32_t i = last; i != MAIL_NONE && i + 1 > first; i--) { /* attempts of a chain are neighbours */
        slot_queue(slot_of(world, &world->attempts[i]));
        world->attempts[i].seen = SLOT_QUEUED;
        if (i == first)
            break;
    }
    if (first != MAIL_NONE)
        world->attempts[first].hint_at_us = world->now_us + (chance(world, 500) ? 0 : draw(world, 0, 100000));
}

/* The job waits again, or that was it. */
static void again(struct mail_world *world, uint32_t index) {
    struct mail_job *job = &world->jobs[index];
    if (job->tries < MAIL_TRIES_MAX && !world->draining)
        world->waiting[world->waiting_count++] = index;
    else
        job->over = true;
}

static void withdraw(struct mail_world *world, struct mail_attempt *attempt) {
    if (attempt->answered || attempt->withdrawn || !slot_withdraw(slot_of(world, attempt), attempt->generation))
        return;
    world->totals->withdrawn++;
    attempt->withdrawn = true;
    attempt->seen = SLOT_WITHDRAWN;
    attempt->free_at_us = world->now_us;
    again(world, attempt->job);
}

static void free_attempt(struct mail_world *world, struct mail_attempt *attempt) {
    struct slot *slot = slot_of(world, attempt);
    const uint8_t *reply = (const uint8_t *)&slot->reply, *answered = (const uint8_t *)&attempt->reply;
    if (attempt->answered && memcmp(reply, answered, sizeof(slot->reply)) != 0)
        mail_fail(world, "attempt %u: its reply was changed after it was answered", (uint32_t)(attempt - world->attempts));
    slot_free(slot);
    world->slot_attempt[attempt->slot] = MAIL_NONE;
    attempt->live = false;
    world->live_attempts--;
    world->sites[attempt->path].outstanding--;
}

/* A chain's members are freed when none of it is queued any more; the first one's going spoils the body. */
static void look_at_attempts(struct mail_world *world) {
    for (uint32_t i = 0; i < MAIL_SLOTS; i++) {
        uint32_t index = world->slot_attempt[i];
        if (index == MAIL_NONE)
            continue;
        struct mail_attempt *attempt = &world->attempts[index], *first = &world->attempts[attempt->first];
        if (attempt->first == index && !attempt->hinted && world->now_us >= attempt->hint_at_us) {
            attempt->hinted = true;
            ring_push(&world->journal, journal_order_ring(&world->journal, 0, 0),
                      ring_entry(RING_ORDER, attempt->slot, attempt->generation));
        }
        if (world->restless && !attempt->answered && chance(world, attempt->first == index ? 3 : 10))
            withdraw(world, attempt);
        /* Nobody claims the others of a first one that was withdrawn, or that is answered. */
        if (attempt->first != index && (first->withdrawn || first->answered))
            withdraw(world, attempt);
        if (!(attempt->answered || attempt->withdrawn) || world->now_us < attempt->free_at_us)
            continue;
        bool queued = false;
        for (uint32_t j = attempt->first; j != MAIL_NONE; j = world->attempts[j].next)
            queued |= world->attempts[j].live && world->attempts[j].seen == SLOT_QUEUED;
        if (queued)
            continue;
        if (attempt->first == index)
            memset(world->arena + attempt->arena, 0xee, attempt->arena_bytes);
        free_attempt(world, attempt);
    }
}

/* ---- outcomes ---- */

static const struct mail_server *server_of(const struct mail_world *world, const struct mail_attempt *attempt) {
    for (uint32_t i = 0; i < world->server_count; i++) {
        const struct mail_server *server = &world->servers[i];
        if (server->path == attempt->path && server->generation == attempt->path_generation && server->endpoint == attempt->reply.endpoint)
            return server;
    }
    return NULL;
}

/* A refusal names whom the server refused. */
static void check_blame(struct mail_world *world, const struct mail_attempt *attempt) {
    const struct slot *slot = slot_of(world, attempt);
    const struct slot_reply *reply = &attempt->reply;
    const struct mail_server *server = server_of(world, attempt);
    char text[SLOT_TEXT_BYTES + 1];
    uint32_t at = slot_addresses_length(slot->sender_length, slot->recipient_length, slot->envid_length), number;
    memcpy(text, slot->text + at, reply->text_length);
    text[reply->text_length] = '\0';
    if (reply->outcome != OUTCOME_REPLIED || !server || server->liar)
        return;
    /* 421 ends the transaction for all. */
    bool blames = sscanf(text, "r%u", &number) == 1;
    if (blames && reply->code == 421 && number < world->attempt_count && world->attempts[number].message == attempt->message)
        blames = false;
    if (blames && (reply->stage != STAGE_RCPT || number != (uint32_t)(attempt - world->attempts)))
        mail_fail(world, "attempt %u is told what was said of r%u: %s", (uint32_t)(attempt - world->attempts), number, text);
    if (sscanf(text, "m%u", &number) == 1 && number != attempt->message)
        mail_fail(world, "attempt %u of message %u is told what was said of m%u: %s", (uint32_t)(attempt - world->attempts),
                  attempt->message, number, text);
    if (reply->code / 100 == 2 && reply->stage != STAGE_FINAL)
        mail_fail(world, "attempt %u: delivered at stage %u", (uint32_t)(attempt - world->attempts), reply->stage);
    if (reply->tls_version == 0 && server->level > PATH_TLS_MAY)
        mail_fail(world, "attempt %u: answered in plain where the level is %u", (uint32_t)(attempt - world->attempts), server->level);
}

/* A server that takes such messages, whatever befalls it. */
static bool takes(const struct mail_server *server, const struct mail_message *message) {
    uint32_t both = server->offers & server->offers_secure, either = server->offers | server->offers_secure;
    if (server->trouble || server->helo_only)
        return false;
    if (either & CAP_SIZE && server->size_max && message->length > server->size_max)
        return false;
    if (message->flags & SLOT_BODY_8BIT && !(both & CAP_8BITMIME))
        return false;
    if (message->flags & SLOT_REQUIRETLS)
        return server->level != PATH_TLS_NONE && (server->implicit || server->offers & CAP_STARTTLS) && server->believed &&
               server->certificate == CERTIFICATE_GOOD && server->offers_secure & CAP_REQUIRETLS;
    return true;
}

/* What this side refuses for good, no server of the path can take, and each could be asked (RFC 8689 4.2.1). */
static void check_refusal(struct mail_world *world, const struct mail_attempt *attempt) {
    const struct slot_reply *reply = &attempt->reply;
    uint32_t index = (uint32_t)(attempt - world->attempts);
    if (reply->outcome != OUTCOME_LOCAL || reply->stage > STAGE_MAIL)
        return;
    world->totals->lacking += reply->code / 100 == 5;
    world->totals->not_asked += reply->code == 451;
    for (uint32_t i = 0; i < world->server_count && reply->code / 100 == 5; i++) {
        const struct mail_server *server = &world->servers[i];
        if (server->path != attempt->path || server->generation != attempt->path_generation)
            continue;
        if (!server->listens)
            mail_fail(world, "attempt %u is refused with %u, and server %u could not be asked", index, reply->code, i);
        else if (takes(server, &world->messages[attempt->message]))
            mail_fail(world, "attempt %u is refused with %u, and server %u takes such messages", index, reply->code, i);
    }
}

static void take_outcome(struct mail_world *world, uint32_t slot, uint32_t generation) {
    struct mail_totals *totals = world->totals;
    uint32_t index = slot < MAIL_SLOTS ? world->slot_attempt[slot] : MAIL_NONE;
    struct mail_attempt *attempt = index == MAIL_NONE ? NULL : &world->attempts[index];
    if (!attempt || attempt->generation != generation || attempt->answered || attempt->withdrawn ||
        slot_load(&world->journal.slots[slot]) != slot_word(generation, SLOT_ANSWERED)) {
        mail_fail(world, "slot %u: an outcome that nobody waits for", slot);
        return;
    }
    attempt->answered = true;
    attempt->seen = SLOT_ANSWERED;
    attempt->reply = world->journal.slots[slot].reply;
    attempt->free_at_us = world->now_us + (chance(world, 500) ? 0 : draw(world, 0, FREE_LATER_US));
    const struct slot_reply *reply = &attempt->reply;
    mail_trace(world, "attempt %u of message %u: outcome %u stage %s code %u: %.*s", index, attempt->message, reply->outcome,
               smtp_stage_text(reply->stage), reply->code, reply->text_length,
               world->journal.slots[slot].text + world->journal.slots[slot].sender_length + world->journal.slots[slot].recipient_length);
    bool delivered = reply->outcome == OUTCOME_REPLIED && reply->code / 100 == 2;
    totals->delivered += delivered;
    totals->refused += reply->outcome == OUTCOME_REPLIED && !delivered;
    totals->returned += reply->outcome == OUTCOME_RETURNED;
    totals->lost += reply->outcome == OUTCOME_LOST;
    totals->uncertain += reply->outcome == OUTCOME_UNCERTAIN;
    totals->local += reply->outcome == OUTCOME_LOCAL;
    if (reply->outcome >= OUTCOME_KINDS)
        mail_fail(world, "attempt %u: outcome %u", index, reply->outcome);
    check_blame(world, attempt);
    check_refusal(world, attempt);
    world->jobs[attempt->job].delivered |= delivered;
    if (delivered || reply->code / 100 == 5)
        world->jobs[attempt->job].over = true;
    else
        again(world, attempt->job);
}

/* States go forward only. */
static void look_at_slots(struct mail_world *world) {
    for (uint32_t i = 0; i < MAIL_SLOTS; i++) {
        uint32_t index = world->slot_attempt[i];
        if (index == MAIL_NONE || world->attempts[index].answered || world->attempts[index].withdrawn)
            continue;
        struct mail_attempt *attempt = &world->attempts[index];
        uint64_t word = slot_load(&world->journal.slots[i]);
        if (slot_word_generation(word) != attempt->generation || slot_word_state(word) < attempt->seen ||
            slot_word_state(word) > SLOT_ANSWERED)
            mail_fail(world, "attempt %u went from state %u to %u", index, attempt->seen, slot_word_state(word));
        if (slot_word_state(word) == SLOT_ANSWERED)
            mail_fail(world, "attempt %u is answered and nothing says so", index);
        attempt->seen = slot_word_state(word);
    }
}

static void look_at_cells(struct mail_world *world) {
    for (uint32_t i = 0; i < MAIL_PATHS; i++) {
        const struct path_worker_cell *cell = &journal_cell(&world->journal, i, 0)->worker;
        uint32_t open = atomic_load(&cell->sessions_open), ready = atomic_load(&cell->sessions_ready);
        uint32_t each = world->journal.paths[i].pipelined_transactions + 1;
        if (ready > open || open > 64 || atomic_load(&cell->ready_capacity) > ready * each || atomic_load(&cell->orders_held) > MAIL_SLOTS)
            mail_fail(world, "path %u: %u sessions, %u ready, capacity %u, %u orders", i, open, ready, atomic_load(&cell->ready_capacity),
                      atomic_load(&cell->orders_held));
    }
}

void mail_control_look(struct mail_world *world) {
    struct ring *ring = journal_outcome_ring(&world->journal, 0, 0);
    uint64_t entries[64];
    uint32_t count;
    while ((count = ring_pop(&world->journal, ring, entries, 64))) {
        for (uint32_t i = 0; i < count; i++) {
            struct path_event event;
            switch (ring_entry_kind(entries[i])) {
            case RING_OUTCOME:
                take_outcome(world, ring_entry_index(entries[i]), ring_entry_generation(entries[i]));
                break;
            case RING_CREDIT:
                atomic_store(&journal_cell(&world->journal, ring_entry_index(entries[i]), 0)->worker.hinted, 0);
                break;
            case RING_EVENT:
                if (!path_event_read(&world->journal, 0, 0, entries[i], &event) || event.kind >= PATH_EVENT_KINDS) {
                    mail_fail(world, "an event that cannot be read");
                    break;
                }
                world->totals->events[event.kind]++;
                if (event.kind == PATH_EVENT_TLS_FAILED && event.detail < TLS_FAILURES)
                    world->totals->failures[event.detail]++;
                mail_trace(world, "path %u: %s %u: %.*s", event.path, path_event_text(event.kind), event.detail, event.text_length,
                           event.text);
                if (memmem(event.text, event.text_length, "tanstaaf", 8))
                    mail_fail(world, "a secret in an event");
                break;
            default:
                mail_fail(world, "kind %u in the outcome ring", ring_entry_kind(entries[i]));
            }
        }
    }
    look_at_slots(world);
    look_at_cells(world);
}

/* ---- time ---- */

void mail_control_act(struct mail_world *world) {
    if (world->now_us < world->act_at)
        return;
    world->act_at = world->now_us + draw(world, 1000, 400000);
    look_at_paths(world);
    for (uint32_t i = draw(world, 0, 4); i > 0 && world->waiting_count && !world->draining; i--)
        order_chain(world);
    look_at_attempts(world);
}

uint64_t mail_control_next(const struct mail_world *world) {
    return world->draining && !world->live_attempts ? NEVER : world->act_at;
}

bool mail_control_is_done(const struct mail_world *world) {
    return !world->live_attempts && !world->waiting_count;
}

void mail_control_drain(struct mail_world *world) {
    world->draining = true;
    for (uint32_t i = 0; i < world->waiting_count; i++)
        world->jobs[world->waiting[i]].over = true;
    world->waiting_count = 0;
}

void mail_control_judge(struct mail_world *world) {
    for (uint32_t i = 0; i < world->attempt_count; i++) {
        const struct mail_attempt *attempt = &world->attempts[i];
        const struct slot_reply *reply = &attempt->reply;
        const struct mail_server *server = server_of(world, attempt);
        if (attempt->live || !(attempt->answered || attempt->withdrawn)) {
            mail_fail(world, "attempt %u is not over: state %u", i, attempt->seen);
            continue;
        }
        if (attempt->withdrawn && attempt->stored)
            mail_fail(world, "attempt %u was stored, and withdrawn", i);
        if (attempt->withdrawn || (server && server->liar))
            continue;
        bool delivered = reply->outcome == OUTCOME_REPLIED && reply->code / 100 == 2;
        if (delivered && !attempt->stored)
            mail_fail(world, "attempt %u counts as delivered, and no server stored it", i);
        if (attempt->stored && !delivered && reply->outcome != OUTCOME_UNCERTAIN)
            mail_fail(world, "attempt %u was stored, and counts as outcome %u, stage %u, code %u", i, reply->outcome, reply->stage,
                      reply->code);
        world->totals->uncertain_stored += attempt->stored && !delivered;
    }
    for (uint32_t i = 0; i < world->job_count; i++) {
        if (!world->jobs[i].over)
            mail_fail(world, "job %u is not over", i);
    }
    for (uint32_t i = 0; i < MAIL_PATHS; i++) {
        const struct path_worker_cell *cell = &journal_cell(&world->journal, i, 0)->worker;
        if (atomic_load(&cell->sessions_open) || atomic_load(&cell->sessions_ready) || atomic_load(&cell->ready_capacity) ||
            atomic_load(&cell->orders_held))
            mail_fail(world, "path %u: its cell is not empty at the end", i);
    }
}
