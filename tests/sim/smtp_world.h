/* smtp_world.h: one seed's world of mail: a worker (smtp/ over tls/ over tcp/), a control that fills its journal, and servers on a stack of
 * their own, with a wire between. */
#ifndef TESTS_SIM_SMTP_WORLD_H
#define TESTS_SIM_SMTP_WORLD_H

#include "dataplane/smtp/smtp.h"
#include "dataplane/tls/tls.h"
#include "random.h"
#include "tests/unit/tls/tls_peer.h"
#include "wire.h"

enum {
    MAIL_SLOTS = 256,
    MAIL_PATHS = 4,
    MAIL_SERVERS_MAX = 96,
    MAIL_CONNS_MAX = 128,
    MAIL_LINKS_MAX = 2048,
    MAIL_ATTEMPTS_MAX = 1024,
    MAIL_MESSAGES_MAX = 64,
    MAIL_JOBS_MAX = 320,
    MAIL_RECIPIENTS_MAX = 64,
    MAIL_ARENA_BYTES = 12 << 20,
    MAIL_LINE_BYTES = 12400,
    MAIL_TRIES_MAX = 4,
    MAIL_PORT = 25,
    MAIL_HOPS_US = 100000,
};
#define SECOND        UINT64_C(1000000)
#define NEVER         UINT64_MAX
#define MAIL_BEGIN_US (UINT64_C(1000) * SECOND)

/* What a server's certificate is. */
enum mail_certificate { CERTIFICATE_GOOD, CERTIFICATE_OTHER, CERTIFICATE_EXPIRED, CERTIFICATE_KINDS };

/* A server: one endpoint of one path, and what it is like. Chances are per thousand. */
struct mail_server {
    uint32_t index, path, generation, endpoint;
    struct tcp_address address;
    uint16_t port;
    /* What the path asks of it. */
    enum path_tls level;
    bool auth, auth_plaintext, implicit;
    uint32_t pipelined;
    /* What it is. */
    uint32_t offers, offers_secure; /* enum capability_flag, before and under TLS */
    uint32_t size_max, rcpt_max, mail_max, domain_max;
    enum mail_certificate certificate;
    uint32_t version; /* 12, 13 or 0 */
    bool believed;    /* the certificate and version are what the level asks for */
    uint32_t refuse;  /* honest refusals */
    uint32_t trouble; /* everything else */
    uint32_t latency_us;
    bool liar; /* says more replies than it is asked for, so that nothing it says proves anything */
    bool splits, keeps_open, data_anyway, helo_only, keeps_refused;
    bool listens;
};

struct mail_message {
    uint32_t length;
    uint8_t flags;            /* SLOT_* */
    bool whole;               /* ends with a line's end */
    uint64_t dotted, chunked; /* digests of what a server reads under DATA and under BDAT */
};

struct mail_job {
    uint32_t message, tries;
    bool over, delivered;
};

/* A job's one way through a slot. */
struct mail_attempt {
    uint32_t job, message;
    uint32_t slot, generation, path, path_generation;
    uint32_t first, next; /* attempts of the chain, or MAIL_NONE */
    bool live;            /* its slot is not freed */
    bool answered, withdrawn, hinted;
    enum slot_state seen;
    uint32_t stored;
    uint64_t hint_at_us, free_at_us;
    struct slot_reply reply; /* as it was when it was answered */
    uint64_t arena, arena_bytes;
};
#define MAIL_NONE UINT32_MAX

enum mail_item_kind { ITEM_BYTES, ITEM_FIN, ITEM_RST, ITEM_TLS };
struct mail_item {
    struct mail_item *next;
    uint64_t at_us;
    enum mail_item_kind kind;
    bool reply, ends; /* the last piece of a reply; of one that ends a transaction */
    uint32_t length;
    char bytes[];
};

enum mail_mode { MODE_COMMAND, MODE_DATA, MODE_CHUNK, MODE_AUTH };

/* A connection as its server sees it. */
struct mail_conn {
    struct mail_world *world;
    struct mail_server *server;
    struct tcp_conn *conn;
    struct openssl_peer *tls;
    bool secure, greeted, dead, silent, injected, helo, closing, ended, hello_done, authenticated, shakes_badly;
    enum mail_mode mode;
    char line[MAIL_LINE_BYTES];
    uint32_t line_length;
    struct mail_item *items, *last_item;
    uint64_t last_at_us, paused_us, progress_us, close_at_us;
    uint32_t owed; /* replies not said yet */
    uint32_t in_flight, mails, domains;
    int domain;
    /* Of the transaction. */
    bool opened, chunk_failed, last_chunk, requires_tls;
    uint32_t message, recipients[MAIL_RECIPIENTS_MAX], accepted, said;
    uint32_t body_state;
    uint64_t digest, body_bytes, chunk_left;
    uint32_t early_at; /* so many bytes of a body, and it is refused; 0: no */
    uint32_t auth_step;
};

struct mail_link {
    struct tcp_address client, server;
    uint16_t client_port, server_port;
};

struct mail_path {
    enum { PATH_SIM_FREE, PATH_SIM_LIVE, PATH_SIM_RETIRING } state;
    uint32_t generation;
    uint32_t outstanding; /* slots that are not freed */
    uint64_t retire_at_us;
    uint64_t opened_before;
};

struct mail_totals {
    uint64_t worlds, sessions, handshakes, resumed, delivered, refused, lost, uncertain, returned, local, withdrawn, retired, drained,
        segments_lost, retransmits, tls_failed, injected, stalls, resets, fins, garbled, doubled, early, wrong, shutdowns, chunks, datas,
        behind, credentials, requiretls, dsn, rests, failures[TLS_FAILURES], pools_empty, empty_lines, after_refusal,
        events[PATH_EVENT_KINDS], implicit, hellos, cut_chains, slow, icmp, doubled_segments, uncertain_stored, testing, lacking, not_asked;
};

struct mail_world {
    uint64_t seed, now_us;
    struct sim_random random, wire_random, server_random, control_random;
    bool trace;
    char failure[256];
    struct mail_totals *totals;
    /* The worker. */
    struct journal journal;
    struct smtp_engine *engine;
    struct tls_worker *tls;
    struct tcp_stack *client;
    uint8_t *arena;
    uint64_t arena_used;
    uint64_t engine_at, tls_at, client_at;
    uint64_t heap_bytes; /* of TLS with nothing going on */
    uint32_t resumption_entries;
    bool touched;
    /* The wire: paths[0] from the worker, [1] to it. */
    struct wire wire;
    struct wire_path paths[2];
    struct mail_link links[MAIL_LINKS_MAX];
    uint32_t link_count, busy, unreachable;
    /* The servers. */
    struct tcp_stack *server;
    uint64_t server_at;
    struct mail_server servers[MAIL_SERVERS_MAX];
    uint32_t server_count;
    struct mail_conn *conns[MAIL_CONNS_MAX];
    uint32_t conn_count, blocks;
    /* Control. */
    struct mail_path sites[MAIL_PATHS];
    struct mail_message messages[MAIL_MESSAGES_MAX];
    struct mail_job jobs[MAIL_JOBS_MAX];
    struct mail_attempt attempts[MAIL_ATTEMPTS_MAX];
    uint32_t message_count, job_count, attempt_count, live_attempts;
    uint32_t waiting[MAIL_JOBS_MAX], waiting_count; /* jobs that wait for an attempt */
    uint32_t slot_attempt[MAIL_SLOTS];
    uint64_t act_at, drain_at;
    bool draining, overcommits, restless;
    uint32_t level_mask;
};

void mail_fail(struct mail_world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));
void mail_trace(const struct mail_world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* smtp_world.c */
/* Certificates, and random numbers that repeat: once before all worlds. */
void mail_start(void);
/* Runs one seed; NULL when every rule was kept, otherwise what was broken. */
const char *mail_run(struct mail_world *world, uint64_t seed, bool traced, struct mail_totals *totals);
int mail_transmit(void *network, const struct tcp_segment *segment);
struct openssl_peer *mail_server_tls(const struct mail_server *server);
struct path_tlsa mail_tlsa(enum mail_certificate certificate);

/* smtp_scenario.c */
/* Draws the wire, the worker, the messages. False: out of memory. */
bool mail_draw(struct mail_world *world);
/* A server for an endpoint of a path: draws what it is like. NULL: no more. */
struct mail_server *mail_draw_server(struct mail_world *world, bool auth, bool auth_plaintext, bool implicit, uint32_t pipelined,
                                     uint8_t version_min);

/* Writes a message's text and returns its length. */
uint32_t mail_text(const struct mail_world *world, uint32_t message, uint8_t *to);

/* smtp_server.c */
extern const struct tcp_events mail_server_events;
/* Says what is due. */
void mail_servers_act(struct mail_world *world);
uint64_t mail_servers_next(const struct mail_world *world);

/* smtp_control.c */
void mail_control_act(struct mail_world *world);
/* Takes what the worker answered, and looks at every slot. */
void mail_control_look(struct mail_world *world);
uint64_t mail_control_next(const struct mail_world *world);
/* Nothing is left to do but to drain. */
bool mail_control_is_done(const struct mail_world *world);
void mail_control_drain(struct mail_world *world);
/* The end of the world. */
void mail_control_judge(struct mail_world *world);
void mail_digest(uint64_t *digest, const uint8_t *bytes, uint32_t length);
#define MAIL_DIGEST_BEGIN UINT64_C(14695981039346656037)
/* The attempt that a recipient's address names, or MAIL_NONE. */
struct mail_attempt *mail_attempt_of(struct mail_world *world, const char *recipient);

#endif
