/* smtp_server.c: servers that keep their word about what they store, and have every other fault: what they say is drawn at each place. */
#include "smtp_world.h"

#include "dataplane/smtp/capability.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { WIRE_BYTES = 65536, CLOSE_LATER_US = 3000000, SILENT_MOST_US = 500 * 1000000, TOKEN_BYTES = 64 };

static struct sim_random *dice(struct mail_conn *conn) {
    return &conn->world->server_random;
}
static bool chance(struct mail_conn *conn, uint32_t per_thousand) {
    return random_chance(dice(conn), per_thousand);
}
static uint32_t draw(struct mail_conn *conn, uint32_t low, uint32_t high) {
    return random_range(dice(conn), low, high);
}

/* ---- saying ---- */

struct block {
    struct tcp_owner owner;
    struct mail_world *world;
    uint8_t bytes[];
};

static void block_released(struct tcp_owner *owner) {
    struct block *block = (struct block *)owner;
    block->world->blocks--;
    free(block);
}

static void transmit(struct mail_conn *conn, const void *bytes, uint32_t length) {
    struct mail_world *world = conn->world;
    struct block *block = malloc(sizeof(*block) + length);
    if (!block)
        abort();
    world->blocks++;
    block->owner = (struct tcp_owner){.references = 1, .release = block_released};
    block->world = world;
    memcpy(block->bytes, bytes, length);
    struct tcp_piece piece = {.bytes = block->bytes, .length = length, .owner = &block->owner};
    if (tcp_send(conn->conn, &piece, 1, world->now_us) == 0)
        tcp_output(conn->conn, world->now_us);
    if (--block->owner.references == 0)
        block_released(&block->owner);
}

/* What OpenSSL wants on the wire. */
static void transmit_tls(struct mail_conn *conn) {
    static uint8_t wire[WIRE_BYTES];
    uint32_t length;
    while (conn->tls && (length = openssl_peer_give(conn->tls, wire, sizeof(wire)))) {
        if (conn->shakes_badly && !openssl_peer_ready(conn->tls)) {
            conn->shakes_badly = false;
            conn->dead = true;
            switch (draw(conn, 0, 3)) {
            case 0: /* other bytes */
                wire[draw(conn, 0, length - 1)] ^= 0x55;
                break;
            case 1: /* half of it, then the end */
                transmit(conn, wire, (length + 1) / 2);
                tcp_close(conn->conn, conn->world->now_us);
                return;
            case 2: /* nothing ever */
                conn->silent = true;
                return;
            default:
                tcp_abort(conn->conn, conn->world->now_us);
                conn->closing = true;
                return;
            }
        }
        transmit(conn, wire, length);
    }
}

static void push(struct mail_conn *conn, enum mail_item_kind kind, const char *bytes, uint32_t length, uint64_t later_us, bool reply,
                 bool ends) {
    struct mail_item *item = malloc(sizeof(*item) + length + 1);
    if (!item)
        abort();
    uint64_t at_us = conn->world->now_us + later_us;
    if (at_us < conn->last_at_us)
        at_us = conn->last_at_us;
    conn->last_at_us = at_us;
    *item = (struct mail_item){.at_us = at_us, .kind = kind, .reply = reply, .ends = ends, .length = length};
    memcpy(item->bytes, bytes, length);
    if (conn->last_item)
        conn->last_item->next = item;
    else
        conn->items = item;
    conn->last_item = item;
}

static uint32_t latency(struct mail_conn *conn) {
    if (chance(conn, conn->server->trouble / 4)) {
        conn->world->totals->slow++;
        return draw(conn, 100000, 30000000);
    }
    return draw(conn, 0, conn->server->latency_us);
}

/* A whole reply, perhaps in parts. `ends`: the transaction is over for the client. */
static void say(struct mail_conn *conn, bool ends, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void say(struct mail_conn *conn, bool ends, const char *format, ...) {
    char text[1024];
    va_list arguments;
    if (conn->silent)
        return;
    va_start(arguments, format);
    uint32_t length = (uint32_t)vsnprintf(text, sizeof(text), format, arguments), at = 0;
    va_end(arguments);
    conn->owed++;
    uint64_t later_us = latency(conn);
    while (at < length) {
        uint32_t part = conn->server->splits && length - at > 1 ? draw(conn, 1, length - at) : length - at;
        bool last = at + part == length;
        push(conn, ITEM_BYTES, text + at, part, later_us, last, last && ends);
        at += part;
        later_us += conn->server->splits ? draw(conn, 0, 20000) : 0;
    }
}

static void hang_up(struct mail_conn *conn, enum mail_item_kind kind) {
    conn->dead = true;
    push(conn, kind, "", 0, draw(conn, 0, 2) ? 0 : latency(conn), false, false);
}

static struct mail_item *take_item(struct mail_conn *conn) {
    struct mail_item *item = conn->items;
    conn->items = item->next;
    if (!conn->items)
        conn->last_item = NULL;
    return item;
}

/* ---- trouble ---- */

enum trouble {
    TROUBLE_NONE,    /* the reply may be said */
    TROUBLE_TOLD,    /* it was answered otherwise */
    TROUBLE_UNCLEAR, /* nobody can tell what the server did */
};

/* What may stand in the place of a reply. */
static enum trouble has_trouble(struct mail_conn *conn, const char *token, bool ends) {
    struct mail_totals *totals = conn->world->totals;
    if (!chance(conn, conn->server->trouble))
        return TROUBLE_NONE;
    switch (draw(conn, 0, conn->server->liar ? 10 : 7)) {
    case 0:
        totals->fins++;
        hang_up(conn, ITEM_FIN);
        return TROUBLE_UNCLEAR;
    case 1:
        totals->resets++;
        hang_up(conn, ITEM_RST);
        return TROUBLE_UNCLEAR;
    case 2:
        totals->stalls++;
        conn->silent = true; /* but it listens, and stores */
        return TROUBLE_UNCLEAR;
    case 3:
    case 4:
        totals->shutdowns++;
        say(conn, ends, "421 4.3.2 %s is where it ends\r\n", token);
        if (!conn->silent)
            hang_up(conn, ITEM_FIN);
        return TROUBLE_TOLD;
    case 5: {
        static const char *const garbage[] = {"what?\r\n", "999 x\r\n", "\r\n", "2", "250_ok\r\n", "25\r\n", "250-ok\r\nxx\r\n"};
        totals->garbled++;
        say(conn, ends, "%s", garbage[draw(conn, 0, 6)]);
        conn->dead = true;
        return TROUBLE_UNCLEAR;
    }
    case 6: {
        static const char *const wrong[] = {"354 go on\r\n", "334 VXNlcm5hbWU6\r\n", "150 wait\r\n", "251-%\r\n 251\r\n"};
        totals->wrong++;
        say(conn, ends, "%s", wrong[draw(conn, 0, 3)]);
        conn->dead = true;
        return TROUBLE_UNCLEAR;
    }
    case 7:
        totals->slow++;
        conn->paused_us = conn->world->now_us + draw(conn, 1000, 20000000); /* it reads no more for a while */
        return TROUBLE_NONE;
    case 8: /* in place of one, two */
        totals->doubled++;
        say(conn, false, "250 2.0.0 twice\r\n");
        return TROUBLE_NONE;
    case 9: /* one that comes before its command */
        totals->early++;
        say(conn, false, "%s", chance(conn, 500) ? "250 2.0.0 ahead\r\n" : "354 ahead\r\n");
        return TROUBLE_NONE;
    default: /* a part of a reply, and its rest at another time */
        say(conn, false, "250-more\r\n");
        return TROUBLE_NONE;
    }
}

/* ---- storing ---- */

static struct mail_attempt *attempt(struct mail_conn *conn, uint32_t index) {
    return &conn->world->attempts[index];
}

static enum slot_state state_of(struct mail_conn *conn, const struct mail_attempt *attempt) {
    return slot_word_state(slot_load(&conn->world->journal.slots[attempt->slot]));
}

/* Its body is here, whole. */
static void check_body(struct mail_conn *conn, bool chunked) {
    struct mail_world *world = conn->world;
    const struct mail_message *message = &world->messages[conn->message];
    if (conn->digest != (chunked ? message->chunked : message->dotted) && conn->accepted)
        mail_fail(world, "server %u read other bytes than those of message %u (%" PRIu64 " of %u)", conn->server->index, conn->message,
                  conn->body_bytes, message->length);
    for (uint32_t i = 0; i < conn->accepted; i++) {
        struct mail_attempt *one = attempt(conn, conn->recipients[i]);
        if (one->live && !one->answered && state_of(conn, one) < SLOT_BODY_SENT)
            mail_fail(world, "attempt %u: all of its body was read and its slot does not say so", conn->recipients[i]);
    }
}

static void store(struct mail_conn *conn) {
    for (uint32_t i = 0; i < conn->accepted; i++) {
        struct mail_attempt *one = attempt(conn, conn->recipients[i]);
        one->stored++;
        if (one->stored > 1)
            mail_fail(conn->world, "attempt %u was stored twice", conn->recipients[i]);
        mail_trace(conn->world, "server %u stores message %u for r%u", conn->server->index, conn->message, conn->recipients[i]);
    }
}

static void forget(struct mail_conn *conn) {
    conn->opened = conn->chunk_failed = conn->last_chunk = false;
    conn->accepted = conn->said = 0;
    conn->message = MAIL_NONE;
    conn->digest = MAIL_DIGEST_BEGIN;
    conn->body_bytes = 0;
    conn->body_state = 0;
    conn->early_at = 0;
}

/* The verdict on a body that was read. */
static void judge(struct mail_conn *conn, bool chunked) {
    char token[TOKEN_BYTES];
    bool good = conn->accepted > 0 && !conn->chunk_failed, kept = conn->server->keeps_refused && !good;
    enum trouble trouble;
    snprintf(token, sizeof(token), "m%u", conn->message);
    if (good)
        check_body(conn, chunked);
    if (!good) {
        conn->world->totals->after_refusal++;
        if (has_trouble(conn, token, true) == TROUBLE_NONE)
            say(conn, true, "554 5.5.1 %s no valid recipients\r\n", token);
    } else if (chance(conn, conn->server->refuse)) {
        say(conn, true, chance(conn, 500) ? "554 5.7.1 %s is not liked\r\n" : "451-4.3.0 %s\r\n451 4.3.0 later\r\n", token);
        kept = conn->server->keeps_refused && chunked;
    } else if ((trouble = has_trouble(conn, token, true)) != TROUBLE_NONE) {
        if (trouble == TROUBLE_UNCLEAR && chance(conn, 500))
            store(conn);
    } else {
        store(conn);
        say(conn, true, "250 2.0.0 %s taken\r\n", token);
    }
    if (kept && chunked)
        conn->chunk_failed = true; /* as Exim does: the transaction stands until RSET */
    else
        forget(conn);
}

/* A refusal in the midst of a body, after which nothing is read. */
static void refuse_early(struct mail_conn *conn) {
    conn->world->totals->early++;
    say(conn, true, "552 5.3.4 m%u is too much\r\n", conn->message);
    conn->accepted = 0;
    hang_up(conn, chance(conn, 700) ? ITEM_FIN : ITEM_RST);
}

/* ---- commands ---- */

static bool is(const char *line, const char *verb) {
    return strncasecmp(line, verb, strlen(verb)) == 0;
}

static uint32_t offers(const struct mail_conn *conn) {
    if (conn->helo)
        return 0;
    return conn->secure ? conn->server->offers_secure : conn->server->offers;
}

static void take_ehlo(struct mail_conn *conn) {
    static const struct {
        uint32_t flag;
        const char *word;
    } words[] = {{CAP_PIPELINING, "PIPELINING"},
                 {CAP_8BITMIME, "8BITMIME"},
                 {CAP_SMTPUTF8, "SMTPUTF8"},
                 {CAP_CHUNKING, "CHUNKING"},
                 {CAP_STARTTLS, "STARTTLS"},
                 {CAP_REQUIRETLS, "REQUIRETLS"},
                 {CAP_DSN, "DSN"}};
    const struct mail_server *server = conn->server;
    char text[600];
    uint32_t can = offers(conn);
    int length = snprintf(text, sizeof(text), "250-mx%u.test hello\r\n", server->index);
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (can & words[i].flag)
            length += snprintf(text + length, sizeof(text) - (size_t)length, "250-%s\r\n", words[i].word);
    }
    if (can & CAP_SIZE)
        length += snprintf(text + length, sizeof(text) - (size_t)length, "250-SIZE %u\r\n", server->size_max);
    if (can & CAP_LIMITS) {
        length += snprintf(text + length, sizeof(text) - (size_t)length, "250-LIMITS");
        if (server->mail_max)
            length += snprintf(text + length, sizeof(text) - (size_t)length, " MAILMAX=%u", server->mail_max);
        if (server->rcpt_max)
            length += snprintf(text + length, sizeof(text) - (size_t)length, " RCPTMAX=%u", server->rcpt_max);
        if (server->domain_max)
            length += snprintf(text + length, sizeof(text) - (size_t)length, " RCPTDOMAINMAX=%u", server->domain_max);
        length += snprintf(text + length, sizeof(text) - (size_t)length, "\r\n");
    }
    if (can & (CAP_AUTH_PLAIN | CAP_AUTH_LOGIN | CAP_AUTH_CRAM_MD5))
        length += snprintf(text + length, sizeof(text) - (size_t)length, "250-AUTH%s%s%s\r\n", can & CAP_AUTH_PLAIN ? " PLAIN" : "",
                           can & CAP_AUTH_LOGIN ? " LOGIN" : "", can & CAP_AUTH_CRAM_MD5 ? " CRAM-MD5" : "");
    snprintf(text + length, sizeof(text) - (size_t)length, "250 ENHANCEDSTATUSCODES\r\n");
    conn->hello_done = true;
    if (server->helo_only && !conn->secure)
        say(conn, false, "502 5.5.1 HELO, if you please\r\n");
    else
        say(conn, false, "%s", text);
}

static void take_starttls(struct mail_conn *conn) {
    struct mail_world *world = conn->world;
    if (conn->secure || !(offers(conn) & CAP_STARTTLS)) {
        mail_fail(world, "STARTTLS to server %u, which does not offer it", conn->server->index);
        return;
    }
    if (chance(conn, conn->server->refuse)) {
        say(conn, false, chance(conn, 500) ? "454 4.7.0 no TLS today\r\n" : "502 5.5.1 no TLS\r\n");
        return;
    }
    if (chance(conn, conn->server->trouble)) {
        world->totals->injected++;
        conn->injected = true;
        say(conn, false, "220 2.0.0 go on\r\n250-x\r\n250 PIPELINING\r\n");
        push(conn, ITEM_TLS, "", 0, 0, false, false);
        return;
    }
    conn->shakes_badly = chance(conn, conn->server->trouble);
    say(conn, false, "220 2.0.0 go on\r\n");
    push(conn, ITEM_TLS, "", 0, 0, false, false);
}

static void take_auth(struct mail_conn *conn, const char *line) {
    struct mail_world *world = conn->world;
    if (conn->mode == MODE_COMMAND) {
        uint32_t mechanism = is(line, "AUTH PLAIN") ? CAP_AUTH_PLAIN : is(line, "AUTH LOGIN") ? CAP_AUTH_LOGIN : CAP_AUTH_CRAM_MD5;
        conn->auth_step = mechanism == CAP_AUTH_PLAIN ? 0 : mechanism == CAP_AUTH_LOGIN ? 2 : 1;
        if (!(offers(conn) & mechanism))
            mail_fail(world, "AUTH to server %u with what it does not offer: %s", conn->server->index, line);
        if (!conn->secure && mechanism != CAP_AUTH_CRAM_MD5 && !conn->server->auth_plaintext)
            mail_fail(world, "credentials in plain to server %u", conn->server->index);
        if (!conn->server->auth)
            mail_fail(world, "AUTH to server %u, for which there are no credentials", conn->server->index);
        conn->mode = MODE_AUTH;
    } else if (strcmp(line, "*") == 0) {
        conn->mode = MODE_COMMAND;
        say(conn, false, "501 5.0.0 as you like\r\n");
        return;
    } else if (conn->auth_step) {
        conn->auth_step--;
    }
    if (has_trouble(conn, "auth", false))
        return;
    if (conn->auth_step) {
        say(conn, false, "334 PHNpbUB0ZXN0Pg==\r\n");
        return;
    }
    conn->mode = MODE_COMMAND;
    if (chance(conn, conn->server->refuse)) {
        say(conn, false, chance(conn, 300) ? "535 5.7.8 no\r\n" : "454 4.7.0 later\r\n");
        return;
    }
    world->totals->credentials++;
    conn->authenticated = true;
    say(conn, false, "235 2.7.0 welcome\r\n");
}

/* What no mail may go without. */
static void check_mail(struct mail_conn *conn, const char *line) {
    struct mail_world *world = conn->world;
    const struct mail_server *server = conn->server;
    uint32_t can = offers(conn);
    const char *size = strstr(line, " SIZE=");
    if (conn->injected)
        mail_fail(world, "mail to server %u behind injected text", server->index);
    if (!conn->secure && server->level > PATH_TLS_MAY)
        mail_fail(world, "mail in plain to server %u, level %u", server->index, server->level);
    if (conn->secure && !server->believed && server->level > PATH_TLS_MAY)
        mail_fail(world, "mail to server %u, whose TLS is not what level %u asks for", server->index, server->level);
    if (server->auth && !conn->authenticated)
        mail_fail(world, "mail to server %u without AUTH", server->index);
    if ((size && !(can & CAP_SIZE)) || (strstr(line, "BODY=8BITMIME") && !(can & CAP_8BITMIME)) ||
        (strstr(line, "RET=") && !(can & CAP_DSN)) || (strstr(line, "REQUIRETLS") && !(can & CAP_REQUIRETLS)))
        mail_fail(world, "a parameter that server %u does not offer: %s", server->index, line);
    if (size && server->size_max && strtoul(size + 6, NULL, 10) > server->size_max)
        mail_fail(world, "server %u takes no message of this size: %s", server->index, line);
    if (server->mail_max && can & CAP_LIMITS && conn->mails > server->mail_max)
        mail_fail(world, "server %u takes %u messages a session", server->index, server->mail_max);
}

static void take_mail(struct mail_conn *conn, const char *line) {
    struct mail_world *world = conn->world;
    char token[TOKEN_BYTES];
    unsigned message;
    conn->mails++;
    conn->in_flight = conn->owed ? conn->in_flight + 1 : 1;
    if (conn->in_flight > conn->server->pipelined && !conn->server->liar)
        mail_fail(world, "%u transactions are on their way to server %u, which is to have %u", conn->in_flight, conn->server->index,
                  conn->server->pipelined);
    world->totals->behind += conn->in_flight > 1;
    check_mail(conn, line);
    if (sscanf(line, "MAIL FROM:<s%u@", &message) != 1 || message >= world->message_count) {
        mail_fail(world, "a sender that nobody is: %s", line);
        return;
    }
    snprintf(token, sizeof(token), "m%u", message);
    if (conn->opened) {
        conn->world->totals->after_refusal++;
        say(conn, false, "503 5.5.1 %s within another\r\n", token);
        return;
    }
    if (chance(conn, conn->server->refuse / 2)) {
        say(conn, false, chance(conn, 500) ? "550 5.7.1 %s is not welcome\r\n" : "451 4.7.1 %s may come later\r\n", token);
        return;
    }
    if (has_trouble(conn, token, false))
        return;
    forget(conn);
    conn->opened = true;
    conn->message = message;
    conn->requires_tls = strstr(line, "REQUIRETLS") != NULL;
    world->totals->requiretls += conn->requires_tls;
    if (!conn->requires_tls && world->messages[message].flags & SLOT_REQUIRETLS)
        mail_fail(world, "message %u requires TLS and nothing says so: %s", message, line);
    say(conn, false, "250 2.1.0 %s goes on\r\n", token);
}

static void take_rcpt(struct mail_conn *conn, const char *line) {
    struct mail_world *world = conn->world;
    const struct mail_server *server = conn->server;
    char token[TOKEN_BYTES];
    struct mail_attempt *one = mail_attempt_of(world, line + strlen("RCPT TO:<"));
    if (!one) {
        mail_fail(world, "a recipient that nobody is: %s", line);
        return;
    }
    uint32_t index = (uint32_t)(one - world->attempts);
    snprintf(token, sizeof(token), "r%u", index);
    conn->said++;
    if (one->live && !one->answered && state_of(conn, one) < SLOT_ENVELOPE_SENT)
        mail_fail(world, "attempt %u: its RCPT was read and its slot does not say so", index);
    if (strstr(line, "NOTIFY=")) {
        world->totals->dsn++;
        if (!(offers(conn) & CAP_DSN))
            mail_fail(world, "NOTIFY to server %u, which does not offer DSN", server->index);
    }
    if (offers(conn) & CAP_LIMITS && server->rcpt_max && conn->said > server->rcpt_max && conn->opened)
        mail_fail(world, "server %u takes %u recipients", server->index, server->rcpt_max);
    int domain = atoi(strchr(line, '@') + 2);
    conn->domains += domain != conn->domain;
    conn->domain = domain;
    if (offers(conn) & CAP_LIMITS && server->domain_max && conn->domains > server->domain_max)
        mail_fail(world, "server %u takes %u domains", server->index, server->domain_max);
    if (!conn->opened || conn->chunk_failed) {
        say(conn, false, "503 5.5.1 %s without MAIL\r\n", token);
        return;
    }
    if (one->message != conn->message)
        mail_fail(world, "attempt %u of message %u stands in a transaction of message %u", index, one->message, conn->message);
    if (chance(conn, server->refuse)) {
        say(conn, false, chance(conn, 500) ? "550-5.1.1 %s\r\n550 5.1.1 is unknown\r\n" : "452 4.5.3 %s is too many\r\n", token);
        return;
    }
    if (has_trouble(conn, token, false))
        return;
    if (conn->accepted < MAIL_RECIPIENTS_MAX)
        conn->recipients[conn->accepted++] = index;
    say(conn, false, "250 2.1.5 %s is fine\r\n", token);
}

static void begin_body(struct mail_conn *conn, enum mail_mode mode) {
    conn->mode = mode;
    if (mode == MODE_DATA) {
        conn->digest = MAIL_DIGEST_BEGIN;
        conn->body_bytes = 0;
        conn->body_state = 0;
    }
    conn->early_at = conn->accepted && chance(conn, conn->server->trouble) ? draw(conn, 1, 3000) : 0;
}

static void take_data(struct mail_conn *conn) {
    char token[TOKEN_BYTES];
    snprintf(token, sizeof(token), "m%u", conn->message);
    conn->world->totals->datas++;
    if (!conn->opened) {
        say(conn, true, "503 5.5.1 DATA without MAIL\r\n");
    } else if (!conn->accepted && !conn->server->data_anyway) {
        say(conn, true, "554 5.5.1 %s no valid recipients\r\n", token);
    } else if (conn->accepted && chance(conn, conn->server->refuse / 2)) {
        say(conn, true, "%s 5.7.1 %s is not to be read\r\n", chance(conn, 500) ? "550" : "451", token);
    } else if (!has_trouble(conn, token, true)) {
        say(conn, false, "354 go on\r\n");
        begin_body(conn, MODE_DATA);
    }
}

static void end_chunk(struct mail_conn *conn) {
    conn->mode = MODE_COMMAND;
    if (conn->last_chunk) {
        judge(conn, true);
    } else if (!conn->accepted || conn->chunk_failed) {
        conn->chunk_failed = true;
        say(conn, false, "503 5.5.1 m%u a chunk for nobody\r\n", conn->message);
    } else if (chance(conn, conn->server->refuse)) {
        conn->chunk_failed = true;
        say(conn, false, "552 5.3.4 m%u has a chunk too much\r\n", conn->message);
    } else if (!has_trouble(conn, "chunk", false)) {
        say(conn, false, "250 2.0.0 a chunk\r\n");
    }
}

static void take_bdat(struct mail_conn *conn, const char *line) {
    char last[8] = "";
    unsigned long bytes;
    conn->world->totals->chunks++;
    if (!(offers(conn) & CAP_CHUNKING) || sscanf(line, "BDAT %lu %7s", &bytes, last) < 1) {
        mail_fail(conn->world, "server %u was told '%s'", conn->server->index, line);
        return;
    }
    conn->chunk_left = bytes;
    conn->last_chunk = strcmp(last, "LAST") == 0;
    begin_body(conn, MODE_CHUNK);
    if (!bytes)
        end_chunk(conn);
}

static void take_command(struct mail_conn *conn, const char *line) {
    struct mail_world *world = conn->world;
    mail_trace(world, "server %u%s hears %s", conn->server->index, conn->secure ? " (TLS)" : "", line);
    if (conn->owed && !conn->server->liar && !(offers(conn) & CAP_PIPELINING && conn->hello_done))
        mail_fail(world, "server %u heard '%.20s' before it had answered, and does not offer PIPELINING", conn->server->index, line);
    if (conn->mode == MODE_AUTH || is(line, "AUTH ")) {
        take_auth(conn, line);
    } else if (is(line, "EHLO ")) {
        conn->hello_done = false;
        if (chance(conn, conn->server->refuse / 4))
            say(conn, false, "450 4.7.0 not now\r\n");
        else if (!has_trouble(conn, "ehlo", false))
            take_ehlo(conn);
    } else if (is(line, "HELO ")) {
        world->totals->hellos++;
        conn->helo = true;
        if (!has_trouble(conn, "helo", false))
            say(conn, false, "250 mx%u.test\r\n", conn->server->index);
    } else if (is(line, "STARTTLS")) {
        take_starttls(conn);
    } else if (is(line, "MAIL FROM:")) {
        take_mail(conn, line);
    } else if (is(line, "RCPT TO:<")) {
        take_rcpt(conn, line);
    } else if (is(line, "DATA")) {
        take_data(conn);
    } else if (is(line, "BDAT ")) {
        take_bdat(conn, line);
    } else if (is(line, "RSET")) {
        forget(conn);
        if (!has_trouble(conn, "rset", false))
            say(conn, false, "250 2.0.0 forgotten\r\n");
    } else if (is(line, "QUIT")) {
        say(conn, false, "221 2.0.0 bye\r\n");
        conn->dead = true;
        if (!conn->server->keeps_open && !conn->silent)
            push(conn, ITEM_FIN, "", 0, 0, false, false);
    } else {
        mail_fail(world, "server %u was told '%.60s'", conn->server->index, line);
    }
}

/* ---- hearing ---- */

static void add_body(struct mail_conn *conn, const char *bytes, uint32_t length) {
    mail_digest(&conn->digest, (const uint8_t *)bytes, length);
    conn->body_bytes += length;
}

/* One byte under DATA; RFC 5321 4.5.2. */
static void take_data_byte(struct mail_conn *conn, char byte) {
    enum { LINE_BEGIN, DOT, DOT_CR, WITHIN, WITHIN_CR };
    switch (conn->body_state) {
    case LINE_BEGIN:
        if (byte == '.') {
            conn->body_state = DOT;
            return;
        }
        break;
    case DOT:
        if (byte == '\r') {
            conn->body_state = DOT_CR;
            return;
        }
        break;
    case DOT_CR:
        if (byte == '\n') {
            conn->mode = MODE_COMMAND;
            judge(conn, false);
            return;
        }
        add_body(conn, "\r", 1);
        break;
    case WITHIN_CR:
        if (byte == '\n') {
            add_body(conn, &byte, 1);
            conn->body_state = LINE_BEGIN;
            return;
        }
        break;
    default:
        break;
    }
    add_body(conn, &byte, 1);
    conn->body_state = byte == '\r' ? WITHIN_CR : WITHIN;
}

static void take_bytes(struct mail_conn *conn, const uint8_t *bytes, uint32_t length) {
    for (uint32_t i = 0; i < length && !conn->dead && !conn->world->failure[0]; i++) {
        char byte = (char)bytes[i];
        if (conn->early_at && (conn->mode == MODE_DATA || conn->mode == MODE_CHUNK) && --conn->early_at == 0) {
            refuse_early(conn);
            return;
        }
        if (conn->mode == MODE_CHUNK) {
            add_body(conn, &byte, 1);
            if (--conn->chunk_left == 0)
                end_chunk(conn);
            continue;
        }
        if (conn->mode == MODE_DATA) {
            take_data_byte(conn, byte);
            continue;
        }
        if (conn->line_length == sizeof(conn->line)) {
            mail_fail(conn->world, "server %u hears a line without end", conn->server->index);
            return;
        }
        conn->line[conn->line_length++] = byte;
        if (byte != '\n')
            continue;
        if (conn->line_length < 2 || conn->line[conn->line_length - 2] != '\r')
            mail_fail(conn->world, "a line that ends with LF alone");
        else
            conn->line[conn->line_length - 2] = '\0';
        conn->line_length = 0;
        take_command(conn, conn->line);
    }
}

static void greet(struct mail_conn *conn) {
    conn->greeted = true;
    if (chance(conn, conn->server->refuse / 4)) {
        say(conn, false, chance(conn, 500) ? "554 5.7.1 go away\r\n" : "421 4.7.0 too busy\r\n");
        if (chance(conn, 500))
            hang_up(conn, ITEM_FIN);
    } else if (!has_trouble(conn, "hello", false)) {
        say(conn, false, chance(conn, 300) ? "220-mx%u.test\r\n220 welcome\r\n" : "220 mx%u.test ESMTP\r\n", conn->server->index);
    }
}

static void begin_tls(struct mail_conn *conn) {
    if (conn->line_length || conn->tls)
        mail_fail(conn->world, "server %u: text behind STARTTLS", conn->server->index);
    conn->tls = mail_server_tls(conn->server);
    conn->mode = MODE_COMMAND;
    conn->hello_done = conn->authenticated = false;
    forget(conn);
}

static void take_secured(struct mail_conn *conn, const uint8_t *bytes, uint32_t length) {
    static uint8_t plain[WIRE_BYTES];
    struct mail_world *world = conn->world;
    bool ready = openssl_peer_ready(conn->tls);
    openssl_peer_take(conn->tls, bytes, length);
    if (!conn->silent)
        transmit_tls(conn);
    if (openssl_peer_failed(conn->tls)) {
        conn->dead = true;
        tcp_close(conn->conn, world->now_us);
        return;
    }
    if (!ready && openssl_peer_ready(conn->tls)) {
        world->totals->handshakes++;
        world->totals->resumed += openssl_peer_resumed(conn->tls);
        conn->secure = true;
        if (conn->injected)
            mail_fail(world, "server %u: a handshake behind injected text", conn->server->index);
        if (conn->server->implicit)
            greet(conn);
    }
    uint32_t count;
    while (!conn->dead && (count = openssl_peer_read(conn->tls, plain, sizeof(plain))))
        take_bytes(conn, plain, count);
}

static uint32_t on_received(void *user, struct tcp_conn *tcp, const uint8_t *bytes, uint32_t length, uint64_t now_us) {
    struct mail_conn *conn = user;
    conn->progress_us = now_us;
    if (conn->dead || (conn->injected && !conn->tls))
        return length;
    if (conn->paused_us > now_us)
        return 0;
    if (conn->tls)
        take_secured(conn, bytes, length);
    else
        take_bytes(conn, bytes, length);
    return length;
}

static void *on_accepted(void *listener, struct tcp_conn *tcp, uint64_t now_us) {
    struct mail_world *world = listener;
    struct tcp_address local, remote;
    uint16_t local_port, remote_port;
    struct mail_server *server = NULL;
    tcp_endpoints(tcp, &local, &local_port, &remote, &remote_port);
    for (uint32_t i = 0; i < world->server_count; i++) {
        if (memcmp(&world->servers[i].address, &local, sizeof(local)) == 0)
            server = &world->servers[i];
    }
    if (!server || world->conn_count == MAIL_CONNS_MAX || !server->listens)
        return NULL;
    struct mail_conn *conn = calloc(1, sizeof(*conn));
    if (!conn)
        abort();
    *conn = (struct mail_conn){.world = world, .server = server, .conn = tcp, .progress_us = now_us, .message = MAIL_NONE, .domain = -1};
    forget(conn);
    world->conns[world->conn_count++] = conn;
    world->totals->sessions++;
    mail_trace(world, "server %u accepts", server->index);
    if (server->implicit) {
        world->totals->implicit++;
        conn->shakes_badly = chance(conn, server->trouble);
        begin_tls(conn);
    } else {
        greet(conn);
    }
    return conn;
}

static void on_peer_closed(void *user, struct tcp_conn *tcp, uint64_t now_us) {
    struct mail_conn *conn = user;
    conn->dead = true;
    conn->close_at_us = conn->server->keeps_open ? now_us + 20 * SECOND : now_us + draw(conn, 0, CLOSE_LATER_US);
}

static void on_acknowledged(void *user, struct tcp_conn *tcp, uint32_t bytes, uint64_t now_us) {}
static void on_connected(void *user, struct tcp_conn *tcp, uint64_t now_us) {}

static void on_closed(void *user, struct tcp_conn *tcp, enum tcp_error error, uint64_t now_us) {
    struct mail_conn *conn = user;
    struct mail_world *world = conn->world;
    mail_trace(world, "server %u: the connection ends: %s", conn->server->index, tcp_error_text(error));
    if (now_us > conn->progress_us + SILENT_MOST_US)
        mail_fail(world, "server %u was silent for %" PRIu64 " s and was waited for", conn->server->index,
                  (now_us - conn->progress_us) / SECOND);
    while (conn->items)
        free(take_item(conn));
    openssl_peer_free(conn->tls);
    for (uint32_t i = 0; i < world->conn_count; i++) {
        if (world->conns[i] == conn)
            world->conns[i] = world->conns[--world->conn_count];
    }
    free(conn);
}

const struct tcp_events mail_server_events = {.connected = on_connected,
                                              .received = on_received,
                                              .peer_closed = on_peer_closed,
                                              .acknowledged = on_acknowledged,
                                              .closed = on_closed,
                                              .accepted = on_accepted};

/* ---- time ---- */

static uint64_t conn_next(const struct mail_conn *conn) {
    uint64_t next = conn->items && !conn->closing ? conn->items->at_us : NEVER;
    if (conn->paused_us && conn->paused_us < next)
        next = conn->paused_us;
    if (conn->close_at_us && conn->close_at_us < next)
        next = conn->close_at_us;
    return next;
}

static void say_item(struct mail_conn *conn, const struct mail_item *item) {
    struct mail_world *world = conn->world;
    switch (item->kind) {
    case ITEM_BYTES:
        mail_trace(world, "server %u says %.*s", conn->server->index, (int)item->length, item->bytes);
        if (item->reply)
            conn->owed--;
        if (item->ends && conn->in_flight)
            conn->in_flight--;
        if (conn->tls) {
            if (openssl_peer_ready(conn->tls))
                openssl_peer_write(conn->tls, item->bytes, item->length);
            transmit_tls(conn);
        } else {
            transmit(conn, item->bytes, item->length);
        }
        break;
    case ITEM_FIN:
        if (conn->tls && chance(conn, 500)) {
            openssl_peer_close(conn->tls);
            transmit_tls(conn);
        }
        tcp_close(conn->conn, world->now_us);
        break;
    case ITEM_RST:
        tcp_abort(conn->conn, world->now_us);
        conn->closing = true;
        break;
    case ITEM_TLS:
        begin_tls(conn);
        break;
    }
}

void mail_servers_act(struct mail_world *world) {
    for (uint32_t i = 0; i < world->conn_count; i++) {
        struct mail_conn *conn = world->conns[i];
        while (conn->items && conn->items->at_us <= world->now_us && !conn->closing) {
            struct mail_item *item = take_item(conn);
            conn->progress_us = world->now_us;
            say_item(conn, item);
            free(item);
            world->server_at = 0;
        }
        if (conn->paused_us && conn->paused_us <= world->now_us) {
            conn->paused_us = 0;
            if (!conn->closing)
                tcp_receive_resume(conn->conn, world->now_us);
            world->server_at = 0;
        }
        if (conn->close_at_us && conn->close_at_us <= world->now_us) {
            conn->close_at_us = 0;
            if (!conn->closing)
                tcp_close(conn->conn, world->now_us);
            world->server_at = 0;
        }
    }
}

uint64_t mail_servers_next(const struct mail_world *world) {
    uint64_t next = NEVER;
    for (uint32_t i = 0; i < world->conn_count; i++) {
        uint64_t at_us = conn_next(world->conns[i]);
        next = at_us < next ? at_us : next;
    }
    return next;
}
