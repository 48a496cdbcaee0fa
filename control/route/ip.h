/* ip.h: IP addresses as DNS and jobs name them, and which of them no public domain's mail may go to. */
#ifndef CONTROL_ROUTE_IP_H
#define CONTROL_ROUTE_IP_H

#include "control/config/config.h"

/* "192.0.2.1", "2001:db8::1", "192.0.2.0/24"; without "/n" the prefix is the whole address. IPv4-mapped IPv6 becomes IPv4. 0 or -EINVAL. */
int ip_parse(const char *text, struct config_address *address);
/* Unspecified, loopback, link-local, multicast, reserved and broadcast (RFC 6890): never right for a public domain. */
bool ip_prohibited(const struct config_address *address);
/* In ranges of private networks, shared or translated ones (RFC 1918, 4193, 6052, 6598, 2544): nobody outside has servers there. */
bool ip_is_private(const struct config_address *address);

#endif
