/* sign.h: DKIM (RFC 6376) for rendered messages, and the pool of threads that renders and signs. */
#ifndef CONTROL_SIGN_SIGN_H
#define CONTROL_SIGN_SIGN_H

#include "control/config/config.h"
#include "control/render/render.h"
#include <stddef.h>
#include <stdint.h>

struct dkim_keys; /* immutable; shared by threads */
/* Loads every key of the configuration. NULL with a sentence in error (file, reason, remedy). Warns by `warn` for keys under 2048 bits. */
struct dkim_keys *dkim_keys_load(const struct config *config, void (*warn)(void *context, const char *sentence), void *context, char *error,
                                 size_t error_bytes);
/* Drops a reference; press and signers hold their own. The keys are wiped with the last. */
void dkim_keys_free(struct dkim_keys *keys);

struct dkim_signer; /* one for each thread: random number generator, scratch, the signatures that wait for company */
struct dkim_signer *dkim_signer_create(struct dkim_keys *keys);
void dkim_signer_free(struct dkim_signer *signer);
/* Signs with other keys from now on; those before are wiped. False while signatures wait for a flush: nothing has changed. */
bool dkim_signer_use(struct dkim_signer *signer, struct dkim_keys *keys);
/* Prepends DKIM-Signature fields (rsa-sha256 or ed25519-sha256, relaxed/relaxed) to a message: keys are chosen by message->from_domain and
 * `tenant` (NULL: none), and the platform's sign too. Returns the number of signatures made (0: no key), or -errno: -ENOKEY where there is
 * none for the From domain and the configuration requires one, -EINVAL where the header has more fields than a signature can name. `time_s`
 * is t=. Each RSA signature is verified with the public key before it leaves. */
int dkim_sign(struct dkim_signer *signer, struct message *message, const char *tenant, uint64_t time_s);

/* The same in two halves, so that the RSA signatures of many messages are made at once (lanes.h). dkim_begin hashes and composes; the
 * message stays where it is until dkim_next gives it back. Returns the number of signatures it will have, or 0 or -errno: then it has not
 * begun. At most DKIM_BEGUN_MAX may have begun: -EBUSY. */
enum { DKIM_BEGUN_MAX = 64, DKIM_LANES = 8 };
int dkim_begin(struct dkim_signer *signer, struct message *message, const char *tenant, uint64_t time_s, void *user);
/* Makes the signatures that wait while they fill all lanes; with `all` the rest too. */
void dkim_flush(struct dkim_signer *signer, bool all);
/* RSA signatures that wait for a flush: none where there are no lanes, and of keys that the lanes do not take. */
uint32_t dkim_waiting(const struct dkim_signer *signer);
/* The next message that is whole: its user, and 0 or -errno (then it has no new fields). False: none. */
bool dkim_next(struct dkim_signer *signer, void **user, int *status);

/* What signers have done. */
struct dkim_counters {
    uint64_t rsa, ed25519;                  /* signatures by algorithm ... */
    uint64_t lanes, wolfssl;                /* ... and by the way they were made */
    uint64_t flushes;                       /* uses of the eight lanes: lanes / flushes of eight were filled */
    uint64_t part_flushes;                  /* times that fewer than eight were made because no others came in time: lanes or not */
    uint64_t faults;                        /* signatures that did not verify, and were made again or not at all */
    uint64_t body_bytes, body_bytes_hashed; /* of bodies, and those of them that were not known already */
};
/* Adds a signer's to a sum; from any thread. */
void dkim_signer_counters(const struct dkim_signer *signer, struct dkim_counters *sum);

enum dkim_algorithm { DKIM_RSA, DKIM_ED25519 };
/* As k= of a key record has it (RFC 6376 3.6.1, RFC 8463 4): "rsa", "ed25519". */
const char *dkim_algorithm_text(enum dkim_algorithm algorithm);
/* A new key: writes the private key (PEM, PKCS#8, mode 0600, never over an existing file) and gives the DNS record's text ("v=DKIM1; k=rsa;
 * p=...") to free. `bits` is RSA's alone. 0, or -errno with a sentence in error. */
int dkim_keygen(const char *key_path, enum dkim_algorithm algorithm, uint32_t bits, char **record, char *error, size_t error_bytes);
/* The same text for the private key in a file, to free. 0, or -errno with a sentence in error. */
int dkim_public_record(const char *key_path, char **record, char *error, size_t error_bytes);

/* The pool. A task is rendered and signed by some thread; `done` is then called on the shard's own thread from press_collect. */
struct press;
struct press_task {
    struct press_task *next;
    uint32_t shard;  /* the press's own */
    struct job *job; /* borrowed */
    uint32_t index;
    uint64_t date_s;
    struct message message; /* the result */
    int status;             /* 0, or -errno with `error` */
    int signatures;
    char error[256];
    void *user;
};
struct press_config {
    uint32_t threads;
    uint32_t capacity; /* tasks under way at most */
    const struct config *config;
    const struct identity *identity;
    struct dkim_keys *keys; /* NULL: nothing is signed */
    uint32_t shards;        /* results are collected by shard */
};
struct press *press_create(const struct press_config *config);
void press_destroy(struct press *press);
/* The descriptor (eventfd) that becomes readable when results wait for this shard. */
int press_descriptor(struct press *press, uint32_t shard);
/* Submits; false when `capacity` are under way. */
bool press_submit(struct press *press, uint32_t shard, struct press_task *task);
/* The same for one of many: threads that sleep may hear of it only by press_announce, which whoever adds calls before it waits. One
 * wake-up serves all that were added before it. */
bool press_add(struct press *press, uint32_t shard, struct press_task *task);
void press_announce(struct press *press);
/* Signs with other keys from now on: tasks that no thread has taken yet, too. The keys before are wiped as soon as no thread uses them. A
 * press that was made without keys stays without. */
void press_set_keys(struct press *press, struct dkim_keys *keys);
struct press_counters {
    struct dkim_counters dkim;
    uint32_t threads;
    uint32_t waiting; /* tasks in the queue */
};
void press_counters(struct press *press, struct press_counters *out);
/* Takes all finished tasks of this shard as a list in the order they finished. */
struct press_task *press_collect(struct press *press, uint32_t shard);

#endif
