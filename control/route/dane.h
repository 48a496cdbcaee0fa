/* dane.h: which TLSA records of an answer may be used (RFC 6698, RFC 7671, RFC 7672). */
#ifndef CONTROL_ROUTE_DANE_H
#define CONTROL_ROUTE_DANE_H

#include <bypost/path.h>
#include <stddef.h>
#include <stdint.h>

enum { DANE_NAME_BYTES = 264 }; /* "_65535._tcp." and a host name */

/* Reads one RDATA, untrusted bytes. 0 for a usable record: usage 2 or 3 (RFC 7672 3.1), selector 0 or 1, matching 0, 1 or 2 with data of
 * the right length; matching 0 becomes the SHA-256 of its data. -EINVAL: not usable. */
int tlsa_read(const uint8_t *rdata, size_t rdata_bytes, struct path_tlsa *tlsa);
/* The usable ones of an answer, sorted so that the order of the answer does not matter, each once, PATH_TLSA_MAX at most (keys of the
 * server before those of an authority). Returns how many. */
uint32_t tlsa_choose(uint8_t *const *data, const int *lengths, uint32_t count, struct path_tlsa tlsa[PATH_TLSA_MAX]);
/* "_25._tcp.mx.example.net". 0, or -EINVAL when that is too long for a name. */
int tlsa_name(const char *host, uint16_t port, char out[DANE_NAME_BYTES]);

#endif
