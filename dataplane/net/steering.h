/* steering.h: which worker a device brings a TCP tuple to, and the local ports that bring a connection's replies to this one (TCP.md
 * "Steering active opens"). One for each interface whose device hashes; pure, no DPDK. */
#ifndef DATAPLANE_NET_STEERING_H
#define DATAPLANE_NET_STEERING_H

#include "dataplane/port/toeplitz.h"
#include "dataplane/tcp/tcp.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct steering;

/* For ports [port_first, port_first + port_count); `rss` is copied, queue w is worker w's. NULL with errno: EINVAL (the device does not
 * hash, its table gives this worker nothing, no ports), ENOMEM. */
struct steering *steering_create(const struct port_rss *rss, uint32_t worker, uint16_t port_first, uint32_t port_count);
void steering_destroy(struct steering *steering);

/* tcp_config.choose_ports: the ports of class number `attempt` of this pair, each of which brings the replies to this worker; every port
 * that does so belongs to one of the classes. Constant time. A class may be empty (count 0). False after the last. */
bool steering_choose(const struct steering *steering, const struct tcp_address *local, const struct tcp_address *remote,
                     uint16_t remote_port, uint64_t random, uint32_t attempt, struct tcp_port_choice *choice);
/* The worker that the device brings frames from `remote` to `local` to. */
uint32_t steering_owner(const struct steering *steering, const struct tcp_address *local, uint16_t local_port,
                        const struct tcp_address *remote, uint16_t remote_port);

#endif
