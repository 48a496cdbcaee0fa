/* address.h: addresses, prefixes and host names as they are written in a configuration. */
#ifndef CONTROL_CONFIG_ADDRESS_H
#define CONTROL_CONFIG_ADDRESS_H

#include "config.h"

enum { ADDRESS_TEXT_BYTES = 64 };

/* "192.0.2.1" or "2001:db8::1"; no prefix, no port. */
bool address_parse(const char *text, struct config_address *address);
/* The same with a prefix: "192.0.2.1/24". Without one: the whole address (32, 128). */
bool address_parse_prefix(const char *text, struct config_address *address);
/* The same with a port: "192.0.2.1:53", "[2001:db8::1]:53", or without one: `port`. */
bool address_parse_port(const char *text, uint16_t port, struct config_address *address);
/* "192.0.2.1" into text[ADDRESS_TEXT_BYTES]; returns text. Prefix and port are left out. */
const char *address_text(const struct config_address *address, char *text);
bool address_equal(const struct config_address *a, const struct config_address *b);
/* Do both lie in the same network of a's prefix length? */
bool address_on_link(const struct config_address *network, const struct config_address *address);
/* RFC 1918, RFC 6598, link-local, unique local: not seen by receivers. */
bool address_private(const struct config_address *address);
/* Unicast that a source can have: not unspecified, loopback, multicast or broadcast. */
bool address_usable(const struct config_address *address);
/* The documentation networks of RFC 5737 and RFC 3849. */
bool address_documentation(const struct config_address *address);
/* The network interface of the kernel that has this address, into name[IF_NAMESIZE]; false when none has. */
bool address_kernel_interface(const struct config_address *address, char *name);

/* A host name with at least two labels, RFC 5321 4.1.2 (letters, digits, inner hyphens; RFC 1035 lengths). */
bool host_is_fqdn(const char *name);
/* A host name of any number of labels. */
bool host_is_name(const char *name);
/* RFC 5321 4.1.3: "[192.0.2.1]" or "[IPv6:2001:db8::1]". */
bool host_is_literal(const char *name);
/* A domain in lower case A-labels (IDNA 2008), malloc'd, or NULL when it is none. */
char *host_to_ascii(const char *name);
/* "unix:/path", "host:port", "[v6]:port": NULL when right, else what is wrong with it. */
const char *redis_address_fault(const char *text);
/* Splits "host", "host:port" and "[host]:port" into host[host_bytes]; without a port *port stays. False when the brackets or the port are
 * wrong. */
bool host_split(const char *text, char *host, size_t host_bytes, bool *bracketed, unsigned long *port);
/* A relay: "[192.0.2.1]:2525", "[mx.example.net]:25", "mx.example.net:587", "mx.example.net": NULL when right, else what is wrong with it.
 */
const char *relay_host_fault(const char *text);

#endif
