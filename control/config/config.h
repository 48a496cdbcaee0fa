/* config.h: bypost.yaml and shaping.yaml, read and checked. A configuration is immutable once loaded; a reload makes another. */
#ifndef CONTROL_CONFIG_CONFIG_H
#define CONTROL_CONFIG_CONFIG_H

#include <bypost/path.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

/* An IPv4 or IPv6 address in network byte order; family 0: none. */
struct config_address {
    uint8_t bytes[16];
    uint8_t family; /* 4, 6 */
    uint8_t prefix_length;
    uint16_t port; /* where one makes sense, else 0 */
};

enum config_idle { IDLE_ADAPTIVE, IDLE_POLL };
enum config_port_mode { CONFIG_PORT_AUTO, CONFIG_PORT_COPY, CONFIG_PORT_REFERENCE };
enum config_steering { CONFIG_STEERING_AUTO, CONFIG_STEERING_TOEPLITZ, CONFIG_STEERING_RANGES };
enum config_congestion { CONFIG_CUBIC, CONFIG_NEWRENO };
enum config_verp { CONFIG_VERP_BULK, CONFIG_VERP_ALL, CONFIG_VERP_ASKED };
enum config_uncertain { UNCERTAIN_RESEND, UNCERTAIN_HOLD };

struct config_port {
    char *device;
    enum config_port_mode mode;
    enum config_steering steering;
    uint32_t mtu; /* 1500 */
    uint16_t vlan;
    uint32_t address_count;
    struct config_address *addresses;        /* with prefix_length */
    struct config_address gateway, gateway6; /* the router of each family */
};

struct config_source {
    struct config_address address;        /* one of a port's addresses */
    struct config_address public_address; /* what the world sees behind a cloud NAT; family 0: the same */
    char *ehlo;                           /* an FQDN */
};

struct config_pool {
    char *name;
    uint32_t source_count;
    struct config_source *sources;
};

struct config_dkim_key {
    char *domain; /* of From: this domain, compared without case */
    char *selector;
    char *key_file; /* PEM, RSA or Ed25519 */
    char *tenant;   /* whose jobs' messages it signs; NULL: everyone's. A tenant's own keys for a domain are used instead of everyone's */
};

/* Where bounces of a tenant's jobs go. NULL: as `verp` has it for all. */
struct config_verp_tenant {
    char *name, *domain, *prefix;
};

struct config_retry {
    uint64_t first_ms, max_ms, give_up_ms; /* QUEUE.md's table */
};

struct config_queue {
    char *name; /* "high", "normal", "bulk" or a pattern for campaigns: "*" */
    struct config_retry retry;
};

/* Limits of a site or a provider; KumoMTA's names where it has them. 0 means no limit for rates and counts. */
struct shaping_limits {
    uint32_t connection_limit;              /* concurrent, site and source pool: 10 */
    double max_connection_rate;             /* per second: 100/min */
    double max_message_rate;                /* per second: 100/s */
    uint32_t max_deliveries_per_connection; /* 100 */
    uint32_t provider_connection_limit;     /* for all sites of a provider together */
    double provider_max_connection_rate;
    double provider_max_message_rate;
    uint32_t pipelined_transactions; /* 1 */
    uint32_t connect_timeout_ms, banner_timeout_ms, ehlo_timeout_ms, mail_from_timeout_ms, rcpt_to_timeout_ms, data_timeout_ms,
        data_block_timeout_ms, data_dot_timeout_ms, rset_timeout_ms, quit_timeout_ms, idle_timeout_ms;
    uint16_t port; /* 25 */
    /* TLS (SMTP.md section 1). */
    enum path_tls tls;              /* `tls`: none, may (default), encrypt, verify */
    bool enable_mta_sts;            /* true: policies are looked for, and may raise `tls` */
    bool enable_dane;               /* false: it needs a resolver that lets DNSSEC through */
    uint32_t remember_broken_tls_s; /* 15 min; 0: every connection tries again */
    uint8_t tls_version_min;        /* `tls_min_version`: 12 or 13 */
    bool use_chunking;              /* true: BDAT where it is offered */
    /* Recipients of one message that share a transaction. */
    uint32_t max_recipients_per_batch; /* 100; 1: each its own */
    bool batch_by_site;                /* `batch_by`: domain (default), or site */
};

struct shaping_provider {
    char *name;
    uint32_t match_count;
    char **match; /* suffixes of MX host names, without a leading dot, in A-labels and lower case: "google.com" */
    struct shaping_limits limits;
};

/* For one recipient domain, or for a site by one of its MX host names. */
struct shaping_domain {
    char *domain;
    struct shaping_limits limits;  /* over the defaults, for a site without a provider */
    uint64_t given;                /* which limits the file names: a bit a field, config's own */
    struct shaping_limits *merged; /* [provider_count + 1]: over each provider's, last over the defaults; config's own */
};

/* A domain that goes to fixed hosts instead of its MX. "*" for all: a smarthost. */
struct config_relay {
    char *domain;
    uint32_t host_count;
    char **hosts; /* "[192.0.2.1]:2525", "[mx.example.net]:25", "mx.example.net:587": brackets mean no MX lookup */
    /* What follows may be given where the relay is a mapping with `hosts`. */
    bool tls_given;                            /* `tls`: this level instead of the limits' one */
    enum path_tls tls;                         /* with credentials and without `tls`: verify */
    bool implicit_tls;                         /* `implicit_tls`; true where all hosts have port 465 */
    char **tls_names;                          /* further names that its certificates may be for; NULL-terminated, or NULL */
    char *tls_certificate_file, *tls_key_file; /* client certificate, or NULL */
    uint32_t tls_identity;                     /* its place from 1 among those of all relays, each pair of files once; 0: none */
    char *auth_user;                           /* or NULL: no AUTH */
    char *auth_secret; /* password or token, read from one of the next four by config_load; never printed, wiped when freed */
    char *auth_password_file, *auth_password_env, *auth_token_file, *auth_token_env;
    struct timespec auth_changed; /* of the file, when it was read */
    uint32_t auth_version;        /* counts up when config_tokens_read finds another token */
    uint8_t auth_mechanisms;      /* enum path_auth: those that suit the secret, or some of them; 0 without AUTH */
    bool auth_without_tls;        /* `auth: {without_tls: true}`: credentials may go in plain */
};

struct config {
    char *path, *shaping_path;
    char *node;
    bool sandbox;
    char *run_directory; /* sockets, journal */
    char *user;          /* to drop to, or NULL */

    struct {
        char *address; /* "unix:/path" or "host:port" or "[v6]:port" */
        char *username, *password_file;
        char *prefix; /* "bypost" */
        uint32_t database;
        uint32_t shards; /* 1 */
    } redis;

    struct {
        uint32_t lcore_count;
        uint32_t lcores[64];
        uint32_t main_lcore; /* where EAL's main thread sits: the lowest lcore not used by a worker, or 0 */
        uint64_t memory_bytes, arena_bytes;
        bool hugepages;
        bool hugepages_auto; /* use them when enough are free */
        enum config_idle idle;
        bool idle_set; /* false: by device */
        enum config_congestion congestion;
        uint32_t max_sessions; /* for each worker */
        uint32_t port_count;
        struct config_port *ports;
        uint16_t port_first, port_last; /* local TCP ports, all workers together: 10000-65535 */
        uint64_t drain_timeout_ms;
        char **eal_args; /* extra, for experts; NULL-terminated or NULL */
    } dataplane;

    struct {
        char *path;
        uint32_t slots, paths; /* 16384, 2048 */
    } journal;

    struct {
        uint32_t server_count;
        struct config_address *servers; /* none: /etc/resolv.conf */
        uint32_t timeout_ms;
        char **
            prohibited_hosts; /* CIDR; NULL-terminated; the defaults (loopback, unspecified, multicast...) always hold for public domains */
        char *trust_anchor_file; /* for enable_dane: /usr/share/dns/root.key */
    } dns;

    uint32_t pool_count;
    struct config_pool *pools;
    char *default_pool;

    uint32_t dkim_count;
    struct config_dkim_key *dkim;
    uint32_t dkim_platform_count;
    struct config_dkim_key *dkim_platform; /* sign every message too that is not signed by their domain already */
    bool dkim_required;                    /* a message without a key for its From domain: error of that message, instead of unsigned */
    char **dkim_oversign, **dkim_sign;     /* names of fields, lower case, NULL-terminated: `oversign` also against being added; NULL: the
                                              signer's own lists. From is oversigned in any case unless `sign` has it */
    uint32_t dkim_expire_s;                /* x= is so much later than t=; 0: none */
    uint32_t signing_threads;              /* 0: one for each core but the workers' */

    uint32_t relay_count;
    struct config_relay *relays;

    uint32_t queue_count;
    struct config_queue *queues;
    enum config_uncertain on_uncertain;
    bool suppress_on_block_defer;    /* on_block: defer (true, default) or bounce */
    uint32_t max_message_bytes;      /* 25 MiB */
    uint32_t max_recipients_per_job; /* 500 */

    char *identity_key_file;     /* 32 bytes or more for Message-IDs and tokens; made in state_directory at first start when not given */
    char **former_identity_keys; /* paths of keys that tokens were made with before; NULL-terminated, or NULL */
    char *state_directory;       /* /var/lib/bypost */
    char *class_rules_path;      /* text rules; NULL: the shipped file */

    struct {
        char *delivery_path; /* the local delivery log, JSON lines; NULL: none */
        uint64_t rotate_bytes;
        uint32_t rotate_keep;
        char *level; /* "error", "warning", "info", "debug" */
    } logs;

    struct {
        uint64_t max_bytes; /* 512 MiB */
        uint32_t type_mask; /* bits of enum event_type that go to the Redis stream */
    } events;

    struct {
        uint32_t max_depth;          /* recipients that may wait, of all shards; 0: no limit */
        uint32_t max_memory_percent; /* of maxmemory, that producers may fill */
    } queue;

    /* For jobs with a campaign, and others that say `bulk`, where they say nothing else. Texts may hold variables. NULL: no such field. */
    struct {
        char *unsubscribe_url, *unsubscribe_mailto; /* "https:..." with a token, "mailto:..." */
        char *list_id, *feedback_id;
        uint32_t precedence; /* 0: none, 1: bulk (the default), 2: list */
    } bulk;

    struct {
        char *domain; /* of envelope senders that name job and recipient; NULL: none do but those of tenants with a domain of their own */
        char *prefix; /* "b": in front of "+TOKEN" */
        enum config_verp jobs;
        uint32_t tenant_count;
        struct config_verp_tenant *tenants; /* by name */
    } verp;

    struct {
        char *listen; /* "127.0.0.1:9465", "unix:/path"; NULL or "none": no /metrics */
    } metrics;

    struct {
        char *ca_file; /* PEM roots for verify and MTA-STS; NULL: the system's */
    } tls;

    struct {
        bool enabled; /* TLS-RPT (RFC 8460): false until `from` is given */
        char *from;   /* the reports' sender; its domain is the submitter's */
        char *organization, *contact;
    } tls_reports;

    struct {
        char *from;        /* whom delivery notices are from; NULL: MAILER-DAEMON at the domain of the message's From */
        uint64_t delay_ms; /* a message that waits longer is told of, once, where its job asks for that: 4 h */
    } notices;

    struct shaping_limits defaults;
    uint32_t provider_count;
    struct shaping_provider *providers;
    uint32_t domain_count;
    struct shaping_domain *domains;
};

/* A fault of the configuration, with its place and what to do. */
struct config_error {
    char *file;
    uint32_t line, column; /* from 1; 0 when it concerns the whole file */
    bool warning;
    char *message; /* what is wrong and the remedy, one sentence each */
};

struct config_errors {
    uint32_t count, warning_count; /* count: all of them */
    struct config_error *items;
};

/* Reads and checks everything (all faults are gathered, not only the first). NULL when there is an error that is not a warning. Free with
 * config_free and config_errors_free. */
struct config *config_load(const char *path, struct config_errors *errors);
/* The same without the checks across keys and against this machine: for clients, which may run elsewhere and read less. */
struct config *config_read(const char *path, struct config_errors *errors);
/* The shipped defaults alone: no ports, no pools. NULL without memory. */
struct config *config_shipped(void);
void config_free(struct config *config);
/* Wipes the secrets of relays: of a configuration that nobody sends by any more, but that is still read. */
void config_forget_secrets(struct config *config);
/* Reads the token files of relays again that have changed since. How many tokens are others now: their paths are to be published anew. What
 * cannot be read is told to `failed`, and the token before stays. The one exception to a configuration's immutability: for its owner's
 * thread, while no other reads it. */
uint32_t config_tokens_read(struct config *config, void (*failed)(void *context, const char *sentence), void *context);
void config_errors_free(struct config_errors *errors);
/* "file:line:column: error: message" a line each. */
void config_errors_print(const struct config_errors *errors, FILE *out);

/* The limits that hold for a site: a domain's own, else the provider's (NULL for none), else the defaults. */
const struct shaping_limits *config_limits(const struct config *config, const char *domain, const struct shaping_provider *provider);
/* The provider whose suffix matches this MX host name, or NULL. */
const struct shaping_provider *config_provider(const struct config *config, const char *mx_host);
/* Does it ask for anything beyond hosts: TLS, names, a certificate, credentials? */
bool config_relay_has_settings(const struct config_relay *relay);
/* The TLS that the configuration asks for: a relay's own level, else the limits' one; with credentials verify where the relay says nothing,
 * with implicit TLS no less than encrypt. relay: or NULL. */
enum path_tls config_tls(const struct shaping_limits *limits, const struct config_relay *relay);
/* "none", "may", "encrypt", "verify", "dane". */
const char *config_tls_text(enum path_tls level);
/* "plain", ... of one bit of enum path_auth; NULL past the last. */
const char *config_mechanism_text(unsigned bit);
/* A relay with this client certificate (its place from 1), or NULL past the last. */
const struct config_relay *config_identity(const struct config *config, uint32_t place);
/* The VERP senders of a tenant's jobs (tenant NULL: of jobs without one). domain NULL: they have none. */
struct config_verp_sender {
    const char *prefix, *domain;
};
struct config_verp_sender config_verp(const struct config *config, const char *tenant);
const struct config_pool *config_pool_named(const struct config *config, const char *name);
const struct config_queue *config_queue_named(const struct config *config, const char *name);

#endif
