/* reassembly.h: fragments become datagrams again (RFC 815's aim, RFC 8200 4.5), in a bounded pool. Knows no frame formats. */
#ifndef DATAPLANE_NET_REASSEMBLY_H
#define DATAPLANE_NET_REASSEMBLY_H

#include "ip.h"
#include <stdbool.h>
#include <stdint.h>

enum {
    REASSEMBLY_BYTES_MAX = 9000, /* RFC 1122 3.3.2 and RFC 8200 5 ask for 576 and 1500; what a connection brings is no longer than a link */
    REASSEMBLY_DATAGRAMS = 64,   /* open at once */
    REASSEMBLY_PER_SOURCE = 4,   /* of these from one source */
    REASSEMBLY_TIMEOUT_US = 30000000, /* RFC 1122 3.3.2 and RFC 8200 4.5 say 60 s; real fragments arrive together */
};

struct fragment {
    struct ip source, destination;
    uint32_t identification;
    uint8_t protocol; /* of the payload; IPv4: part of the identity (RFC 791) */
    bool more;
    uint32_t offset; /* bytes, a multiple of 8 */
    const uint8_t *bytes;
    uint32_t length;
};

/* One open datagram that is given up counts in the first that applies. */
enum reassembly_result {
    REASSEMBLY_WAITS,
    REASSEMBLY_WHOLE,
    REASSEMBLY_BAD,     /* its datagram is lost, with what may still come of it */
    REASSEMBLY_LIMITED, /* REASSEMBLY_PER_SOURCE */
};

struct reassembly;
/* NULL: ENOMEM. */
struct reassembly *reassembly_create(void);
void reassembly_destroy(struct reassembly *reassembly);
/* Takes a copy. WHOLE: *bytes, *length and *protocol (the first fragment's) are the datagram's payload, valid until the next call. A full
 * pool gives up the oldest datagram: *evicted is set. Overlaps lose the datagram in both families (RFC 5722); an exact repetition is
 * ignored. */
enum reassembly_result reassembly_add(struct reassembly *reassembly, const struct fragment *fragment, uint64_t now_us, bool *evicted,
                                      const uint8_t **bytes, uint32_t *length, uint8_t *protocol);
/* Gives up what is too old: adds to *timeouts. Returns the next due time, or UINT64_MAX. */
uint64_t reassembly_poll(struct reassembly *reassembly, uint64_t now_us, uint64_t *timeouts);

#endif
