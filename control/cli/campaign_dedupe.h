/* campaign_dedupe.h: has this address been seen in the file? 128-bit keyed fingerprints, 16 bytes a slot: exact but for an accident that no
 * file is large enough for (2^-70 for a thousand million addresses), bounded in memory. */
#ifndef CONTROL_CLI_CAMPAIGN_DEDUPE_H
#define CONTROL_CLI_CAMPAIGN_DEDUPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dedupe {
    uint8_t key[16];
    uint64_t (*slots)[2]; /* open addressing; 0, 0: empty */
    size_t size, used, max_bytes;
};

/* False without memory or randomness. */
bool dedupe_begin(struct dedupe *dedupe, size_t max_bytes);
enum dedupe_answer { DEDUPE_NEW, DEDUPE_SEEN, DEDUPE_FULL };
/* Letters of the address count without case. FULL: max_bytes would be passed. */
enum dedupe_answer dedupe_add(struct dedupe *dedupe, const char *address);
void dedupe_end(struct dedupe *dedupe);

#endif
