/* order.c: slots become orders, and orders answered slots. Everything that control wrote is copied, and the copy is checked. */
#include "order.h"

#include "command.h"
#include "engine.h"

/* What is read of a slot, once, after it was claimed. */
struct envelope {
    uint32_t next, next_generation, path, path_generation, dataplane_generation;
    uint32_t piece_count, size_bytes;
    uint16_t worker, sender_length, recipient_length;
    uint8_t flags, dsn, envid_length;
    uint64_t pieces, not_before_us;
};

static void release_body(struct tcp_owner *owner);

static struct slot *slot_of(const struct smtp_engine *engine, uint32_t index) {
    return &engine->config.journal->slots[index];
}

static void read_envelope(const struct slot *slot, struct envelope *envelope) {
    *envelope = (struct envelope){
        .next = slot->next,
        .next_generation = slot->next_generation,
        .path = slot->path,
        .path_generation = slot->path_generation,
        .dataplane_generation = slot->dataplane_generation,
        .piece_count = slot->piece_count,
        .size_bytes = slot->size_bytes,
        .worker = slot->worker,
        .sender_length = slot->sender_length,
        .recipient_length = slot->recipient_length,
        .flags = slot->flags,
        .dsn = slot->dsn,
        .envid_length = slot->envid_length,
        .pieces = slot->pieces,
        .not_before_us = slot->not_before_us,
    };
}

static void count_verdict(struct smtp_engine *engine, const struct verdict *verdict) {
    struct counters *counters = engine->counters;
    switch (verdict->outcome) {
    case OUTCOME_RETURNED:
        counter_add(&counters->orders_returned, 1);
        break;
    case OUTCOME_LOST:
        counter_add(&counters->messages_lost, 1);
        break;
    case OUTCOME_UNCERTAIN:
        counter_add(&counters->messages_uncertain, 1);
        break;
    default:
        if (verdict->code / 100 == 2)
            counter_add(&counters->messages_delivered, 1);
        else if (verdict->code / 100 == 5)
            counter_add(&counters->messages_bounced, 1);
        else
            counter_add(&counters->messages_deferred, 1);
    }
}

/* Fills the slot's reply. The text lies behind the addresses, whose lengths are those of the checked copy. */
static void write_reply(struct smtp_engine *engine, struct slot *slot, uint32_t addresses_length, const struct verdict *verdict,
                        uint8_t flags, const struct smtp_session *session, uint64_t now_us) {
    struct slot_reply reply = {
        .outcome = verdict->outcome,
        .stage = verdict->stage,
        .code = verdict->code,
        .enhanced = {verdict->enhanced[0], verdict->enhanced[1], verdict->enhanced[2]},
        .worker = engine->config.worker,
        .finished_us = engine_realtime(engine, now_us),
        .flags = flags,
    };
    uint32_t room = slot_reply_room(addresses_length);
    reply.text_length = (uint16_t)(verdict->text_length < room ? verdict->text_length : room);
    if (session) {
        const struct path_endpoint *endpoint = &session->lane->path.endpoints[session->endpoint];
        memcpy(reply.peer_address, endpoint->address, sizeof(reply.peer_address));
        reply.peer_family = endpoint->family;
        reply.endpoint = session->endpoint;
        reply.source = session->source;
        reply.tls_version = session->tls_version;
        reply.tls_cipher = session->tls_cipher;
        reply.flags |= (uint8_t)((session->security & SESSION_TLS_VERIFIED ? REPLY_TLS_VERIFIED : 0) |
                                 (session->security & SESSION_TLS_RESUMED ? REPLY_TLS_RESUMED : 0));
        reply.connected_us = session->connected_us ? engine_realtime(engine, session->connected_us) : 0;
    }
    slot->reply = reply;
    if (reply.text_length)
        memcpy(slot->text + addresses_length, verdict->text, reply.text_length);
    count_verdict(engine, verdict);
}

static void publish(struct smtp_engine *engine, uint32_t slot, uint32_t generation) {
    slot_advance(slot_of(engine, slot), generation, SLOT_ANSWERED);
    engine_push(engine, journal_slot_shard(engine->config.journal, slot), ring_entry(RING_OUTCOME, slot, generation));
}

/* A claimed slot that gets no record. */
static void answer_slot(struct smtp_engine *engine, uint32_t slot, uint32_t generation, uint32_t addresses_length,
                        const struct verdict *verdict, uint64_t now_us) {
    write_reply(engine, slot_of(engine, slot), addresses_length, verdict, 0, NULL, now_us);
    publish(engine, slot, generation);
}

#define LOCAL_VERDICT(stage_, code_, subject_, detail_, text_)                                                                             \
    ((struct verdict){.outcome = OUTCOME_LOCAL,                                                                                            \
                      .stage = (stage_),                                                                                                   \
                      .code = (code_),                                                                                                     \
                      .enhanced = {(code_) / 100, (subject_), (detail_)},                                                                  \
                      .text = (text_),                                                                                                     \
                      .text_length = sizeof(text_) - 1})

static const struct verdict *wild(struct smtp_engine *engine) {
    static const struct verdict verdict = {.outcome = OUTCOME_LOCAL,
                                           .stage = STAGE_CONNECT,
                                           .code = 554,
                                           .enhanced = {5, 3, 0},
                                           .text = "the order holds impossible values",
                                           .text_length = sizeof("the order holds impossible values") - 1};
    counter_add(&engine->counters->wild_values, 1);
    return &verdict;
}

static const struct verdict returned_unattempted = {.outcome = OUTCOME_RETURNED, .stage = STAGE_CONNECT};

/* Can the texts go on the wire? Checked again in the copy that goes out. */
static bool check_addresses(const struct slot *slot, const struct envelope *envelope, struct verdict *verdict) {
    char copy[2 * SLOT_ADDRESS_MAX + SLOT_ENVID_MAX];
    bool utf8 = envelope->flags & SLOT_SMTPUTF8;
    uint32_t addresses_length = (uint32_t)envelope->sender_length + envelope->recipient_length;
    memcpy(copy, slot->text, (size_t)addresses_length + envelope->envid_length);
    enum command_fault sender = command_check_address(copy, envelope->sender_length, utf8);
    enum command_fault recipient = command_check_address(copy + envelope->sender_length, envelope->recipient_length, utf8);
    if (sender == COMMAND_BAD_ADDRESS)
        *verdict = LOCAL_VERDICT(STAGE_MAIL, 553, 1, 7, "the sender address has bytes that no address may have");
    else if (recipient == COMMAND_BAD_ADDRESS)
        *verdict = LOCAL_VERDICT(STAGE_RCPT, 553, 1, 3, "the recipient address has bytes that no address may have");
    else if (sender == COMMAND_NEEDS_UTF8 || recipient == COMMAND_NEEDS_UTF8)
        *verdict = LOCAL_VERDICT(STAGE_MAIL, 553, 6, 7, "an address beyond ASCII in an order that does not ask for SMTPUTF8");
    else if (!command_is_xtext(copy + addresses_length, envelope->envid_length))
        *verdict = LOCAL_VERDICT(STAGE_MAIL, 554, 5, 4, "the envelope identifier is not xtext");
    else
        return true;
    return false;
}

static struct order *make_order(struct smtp_engine *engine, struct lane *lane, uint32_t slot, uint32_t generation,
                                const struct envelope *envelope) {
    struct order *order = pool_take(&engine->orders);
    if (!order)
        return NULL;
    *order = (struct order){.owner = {.references = 1, .release = release_body},
                            .lane = lane,
                            .slot = slot,
                            .generation = generation,
                            .sender_length = envelope->sender_length,
                            .recipient_length = envelope->recipient_length,
                            .slot_flags = envelope->flags,
                            .dsn = envelope->dsn,
                            .envid_length = envelope->envid_length,
                            .piece_count = envelope->piece_count,
                            .size_bytes = envelope->size_bytes,
                            .pieces = envelope->pieces,
                            .not_before_us = envelope->not_before_us};
    lane->held++;
    return order;
}

static bool lengths_fit(const struct envelope *envelope) {
    return envelope->sender_length <= SLOT_ADDRESS_MAX && envelope->recipient_length >= 1 &&
           envelope->recipient_length <= SLOT_ADDRESS_MAX && envelope->envid_length <= SLOT_ENVID_MAX;
}

static uint32_t texts_length(const struct envelope *envelope) {
    return slot_addresses_length(envelope->sender_length, envelope->recipient_length, envelope->envid_length);
}

/* Follows the chain behind `first`. A withdrawn member is skipped: its link is valid while its word says that it is withdrawn. */
static void claim_chain(struct smtp_engine *engine, struct order *first, uint32_t next, uint32_t next_generation, uint32_t path,
                        uint64_t now_us) {
    const struct journal *journal = engine->config.journal;
    struct order *last = first;
    for (uint32_t members = 1; next != SLOT_NONE; members++) {
        if (next >= journal->geometry.slots || journal_slot_shard(journal, next) != journal_slot_shard(journal, first->slot) ||
            members == ORDER_RECIPIENTS_MAX) {
            counter_add(&engine->counters->wild_values, 1);
            return;
        }
        uint32_t index = next, generation = next_generation;
        struct slot *slot = slot_of(engine, index);
        bool claimed = slot_claim(slot, generation);
        struct envelope envelope;
        read_envelope(slot, &envelope);
        atomic_thread_fence(memory_order_acquire);
        if (!claimed && slot_load(slot) != slot_word(generation, SLOT_WITHDRAWN))
            return;
        next = envelope.next;
        next_generation = envelope.next_generation;
        if (!claimed)
            continue;
        counter_add(&engine->counters->orders_claimed, 1);
        struct verdict verdict;
        if (!lengths_fit(&envelope)) {
            answer_slot(engine, index, generation, SLOT_TEXT_BYTES, wild(engine), now_us);
            continue;
        }
        uint32_t addresses_length = texts_length(&envelope);
        if (envelope.path != path || envelope.pieces != first->pieces || envelope.piece_count != first->piece_count) {
            /* Not of this message: the link was stale. Nobody may get another one's mail. */
            counter_add(&engine->counters->wild_values, 1);
            answer_slot(engine, index, generation, addresses_length, &returned_unattempted, now_us);
            return;
        }
        if (!check_addresses(slot, &envelope, &verdict)) {
            answer_slot(engine, index, generation, addresses_length, &verdict, now_us);
            continue;
        }
        struct order *order = make_order(engine, first->lane, index, generation, &envelope);
        if (!order) {
            answer_slot(engine, index, generation, addresses_length, &returned_unattempted, now_us);
            continue;
        }
        last->next_recipient = order;
        last = order;
    }
}

void order_hint(struct smtp_engine *engine, uint32_t index, uint32_t generation, uint64_t now_us) {
    const struct journal *journal = engine->config.journal;
    if (index >= journal->geometry.slots) {
        counter_add(&engine->counters->wild_values, 1);
        return;
    }
    struct slot *slot = slot_of(engine, index);
    if (!slot_claim(slot, generation))
        return; /* withdrawn, or a hint of an earlier life of the slot */
    counter_add(&engine->counters->orders_claimed, 1);

    struct envelope envelope;
    read_envelope(slot, &envelope);
    bool fits = lengths_fit(&envelope);
    uint32_t addresses_length = fits ? texts_length(&envelope) : SLOT_TEXT_BYTES;
    struct body_source source = {.arena = engine->config.arena,
                                 .arena_bytes = engine->config.arena_bytes,
                                 .table = envelope.pieces,
                                 .piece_count = envelope.piece_count};
    uint64_t total_bytes;
    if (!fits || envelope.worker != engine->config.worker || envelope.path >= journal->geometry.paths ||
        (envelope.next != SLOT_NONE && envelope.next >= journal->geometry.slots) || !body_check(&source, &total_bytes) ||
        (envelope.not_before_us > now_us && envelope.not_before_us - now_us > ORDER_WAIT_MAX_US)) {
        answer_slot(engine, index, generation, addresses_length, wild(engine), now_us);
        return;
    }

    struct lane *lane = &engine->lanes[envelope.path];
    if (lane->state == LANE_NONE || lane->generation != envelope.path_generation)
        lane = lane_look(engine, envelope.path, now_us);
    bool stale =
        !lane || lane->generation != envelope.path_generation || envelope.dataplane_generation != engine->config.dataplane_generation;
    struct order *order = stale || engine->draining ? NULL : make_order(engine, lane, index, generation, &envelope);
    if (!order) {
        answer_slot(engine, index, generation, addresses_length, &returned_unattempted, now_us);
        return;
    }
    order->flags = ORDER_FIRST;
    order->body_bytes = (uint32_t)total_bytes;
    claim_chain(engine, order, envelope.next, envelope.next_generation, envelope.path, now_us);
    struct verdict verdict;
    if (!check_addresses(slot, &envelope, &verdict)) {
        if (verdict.stage != STAGE_RCPT || !order->next_recipient) {
            order_answer_all(order, &verdict, NULL, now_us);
            return;
        }
        order_answer(order, &verdict, NULL, now_us); /* it still carries the message for the others */
    }
    lane_enqueue(lane, order);
}

static void publish_order(struct order *order) {
    order->flags |= ORDER_PUBLISHED;
    order->lane->held--;
    publish(order->lane->engine, order->slot, order->generation);
    lane_wake(order->lane);
}

void order_answer(struct order *order, const struct verdict *verdict, const struct smtp_session *session, uint64_t now_us) {
    struct smtp_engine *engine = order->lane->engine;
    assert(!(order->flags & ORDER_ANSWERED));
    uint32_t texts = slot_addresses_length(order->sender_length, order->recipient_length, order->envid_length);
    bool passed_on = order->flags & ORDER_DSN_SAID && verdict->outcome == OUTCOME_REPLIED && verdict->code / 100 == 2;
    write_reply(engine, slot_of(engine, order->slot), texts, verdict, passed_on ? REPLY_DSN_PASSED_ON : 0, session, now_us);
    order->flags |= ORDER_ANSWERED;
    if (!(order->flags & ORDER_FIRST))
        publish_order(order);
}

/* The records of the chain go; the first one's slot is published last. */
static void let_go(struct order *first) {
    struct smtp_engine *engine = first->lane->engine;
    publish_order(first);
    while (first) {
        struct order *next = first->next_recipient;
        pool_give(&engine->orders, first);
        first = next;
    }
}

static void release_body(struct tcp_owner *owner) {
    struct order *first = (struct order *)owner;
    assert(first->flags & ORDER_FINISHED);
    let_go(first);
}
static_assert(offsetof(struct order, owner) == 0, "the owner is the order");

void order_finish(struct order *first) {
    first->flags |= ORDER_FINISHED;
    if (--first->owner.references == 0)
        let_go(first);
}

void order_answer_all(struct order *first, const struct verdict *verdict, const struct smtp_session *session, uint64_t now_us) {
    for (struct order *order = first; order; order = order->next_recipient) {
        if (!(order->flags & ORDER_ANSWERED))
            order_answer(order, verdict, session, now_us);
    }
    order_finish(first);
}

void order_advance(const struct order *first, enum slot_state state) {
    for (const struct order *order = first; order; order = order->next_recipient) {
        if ((order->flags & (ORDER_TAKEN | ORDER_ANSWERED)) == ORDER_TAKEN)
            slot_advance(slot_of(order->lane->engine, order->slot), order->generation, state);
    }
}

const char *order_sender(const struct order *order) {
    return slot_of(order->lane->engine, order->slot)->text;
}

const char *order_recipient(const struct order *order) {
    return order_sender(order) + order->sender_length;
}

const char *order_envid(const struct order *order) {
    return order_recipient(order) + order->recipient_length;
}

void order_body(const struct order *first, struct body_source *source) {
    const struct smtp_config *config = &first->lane->engine->config;
    *source = (struct body_source){.arena = config->arena,
                                   .arena_bytes = config->arena_bytes,
                                   .table = first->pieces,
                                   .piece_count = first->piece_count,
                                   .leading_dots = (first->slot_flags & SLOT_HAS_LEADING_DOTS) != 0,
                                   .owner = (struct tcp_owner *)&first->owner};
}
