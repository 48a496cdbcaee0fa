/* world.h: a worker's SMTP with a journal, an arena and a server that says what the test wrote down, under virtual time. */
#ifndef TESTS_UNIT_SMTP_WORLD_H
#define TESTS_UNIT_SMTP_WORLD_H

#include "dataplane/smtp/smtp.h"
#include "fake_tcp.h"

enum { WORLD_SLOTS = 2048, WORLD_PATHS = 4, WORLD_ARENA_BYTES = 1 << 21, WORLD_EVENTS_MAX = 512, WORLD_MAILS_MAX = 64 };

#define SECOND UINT64_C(1000000)

/* What the server says at each place. Several lines are one string; these have a meaning of their own: */
#define STALL   ((const char *)0)
#define SAY_EOF "<eof>" /* the server closes */
#define SAY_RST "<rst>" /* the connection is reset */

struct script {
    const char *banner, *ehlo, *helo, *mail, *rcpt, *data, *body, *final, *rset, *quit;
    const char *rcpts[4];             /* instead of `rcpt`, for the first, second ... of a transaction, where not NULL */
    const char *starttls, *handshake; /* to STARTTLS, and to the hello (fake_stream.h) */
    const char *ehlo_secure;          /* instead of `ehlo` under TLS */
    const char *ehlos[4];             /* instead of either where there is no STARTTLS left to do: at 192.0.2.1, .2 ..., where not NULL */
    const char *auth[12];             /* to AUTH and each line that follows, one after the other */
    bool implicit_tls;                /* the handshake comes before the banner */
    const char *idle;                 /* said by itself once the first message was answered */
    bool byte_by_byte;                /* each reply arrives one byte at a time */
    bool keeps_open;                  /* no FIN after 221 */
    bool never_acknowledges_body;
    bool final_unacknowledged; /* the verdict comes before the last bytes were acknowledged */
    uint32_t body_bytes;       /* `body` is said after so many bytes of the body */
    const char *chunk;         /* to a BDAT that is not the last; `final` to the last */
    bool keeps_sequence; /* 503 to what comes out of its order: MAIL within a transaction, RCPT without one, a body without recipients */
    bool keeps_refused;  /* a BDAT without recipients leaves the transaction open, as Exim does */
};

/* What `on_reply` is asked of. */
enum place { PLACE_MAIL, PLACE_RCPT, PLACE_DATA, PLACE_CHUNK, PLACE_FINAL, PLACE_RSET };
struct delivery {
    char sender[64], recipient[64], body[64];
};
/* A server that takes everything, with PIPELINING and SIZE. */
extern const struct script script_good;

/* The servers' side of real TLS, each at its place among the connections. */
struct world_tls {
    void (*begin)(void *context, uint32_t place);
    bool (*ready)(void *context, uint32_t place);
    /* From the wire to plaintext, and back; how many bytes came out. */
    uint32_t (*take)(void *context, uint32_t place, const uint8_t *bytes, uint32_t length, uint8_t *plain, uint32_t size);
    uint32_t (*give)(void *context, uint32_t place, const void *plain, uint32_t length, uint8_t *wire, uint32_t size);
    bool (*poll)(void *context, uint64_t now_us); /* tls_worker_poll */
    void *context;
};

struct world {
    struct world_tls tls; /* without `begin`: none */
    struct journal journal;
    struct smtp_engine *engine;
    struct tcp_stack tcp;
    uint8_t arena[WORLD_ARENA_BYTES];
    uint64_t arena_used;
    uint64_t now_us;
    struct script script;
    uint32_t bells;
    uint32_t outcomes, credits; /* entries popped */
    struct path_event events[WORLD_EVENTS_MAX];
    uint32_t event_count;
    char commands[1 << 16];           /* every line that the servers read outside of bodies, CRLF as | */
    char mail[WORLD_MAILS_MAX][4096]; /* bodies as received, unstuffed */
    uint32_t mail_length[WORLD_MAILS_MAX], mails;
    uint64_t body_bytes_received;
    uint32_t flights;    /* times that a server found commands to read */
    bool strict;         /* on_send checks the order of states (on by default) */
    uint32_t watch_slot; /* the slot whose state is checked */
    uint64_t watch_body_bytes, watched_bytes;
    uint32_t next_slot;
    uint64_t wakeup_us;
    /* Says something else than the script: NULL, SAY_EOF and the like too. *stores: it keeps the message, whatever it says of it. */
    const char *(*on_reply)(struct world *world, enum place place, const char *reply, bool *stores);
    struct delivery deliveries[WORLD_SLOTS]; /* what servers with `keeps_sequence` stored, a recipient each */
    uint32_t delivery_count;
};

struct world *world_new(void);
/* With a TLS room, which fake_stream.c makes; NULL: without. */
struct world *world_new_with(struct tls_worker *tls);
void world_free(struct world *world);
/* Path 0, live, with `endpoints` addresses 192.0.2.1, .2 ... port 25 and two sources; allows `sessions` and wants `demand`. */
void world_path(struct world *world, uint32_t endpoints, uint32_t sessions, uint32_t demand);
struct path *world_path_record(struct world *world); /* to change it before world_publish */
void world_publish(struct world *world);
void world_retire(struct world *world);
struct path_cell *world_cell(struct world *world);

/* Fills a slot (not yet queued): from a@sender.test to `recipient`, with the text as its body cut into pieces of `piece_bytes` (0: whole).
 */
uint32_t world_slot(struct world *world, const char *recipient, const char *text, uint32_t piece_bytes);
struct slot *world_at(struct world *world, uint32_t slot);
/* `next` is another recipient of the same message. */
void world_chain(struct world *world, uint32_t slot, uint32_t next);
/* Queues it, and with it the chain behind, and hints the first. */
void world_order(struct world *world, uint32_t slot);
/* world_slot and world_order with an ordinary body. */
uint32_t world_send(struct world *world, const char *recipient);

/* One pass of the worker's loop. Did anything move? */
bool world_step(struct world *world);
/* Runs until nothing moves at this time. */
void world_settle(struct world *world);
/* Runs for so long, jumping from wake-up to wake-up. */
void world_run(struct world *world, uint64_t us);
/* Runs until the slot is answered, at most an hour. */
void world_until_answered(struct world *world, uint32_t slot);

/* "REPLIED RCPT 550 5.1.1", "LOST BODY", "UNCERTAIN FINAL", "RETURNED", "LOCAL 552 5.3.4", or "claimed" and the like. */
const char *world_outcome(struct world *world, uint32_t slot);
const char *world_text(struct world *world, uint32_t slot);
/* How many events of that kind. */
uint32_t world_events(const struct world *world, enum path_event_kind kind);
uint64_t world_counter(const struct world *world, size_t offset);
#define COUNTED(world, name) world_counter(world, offsetof(struct counters, name))
uint32_t world_connections(const struct world *world);

#endif
