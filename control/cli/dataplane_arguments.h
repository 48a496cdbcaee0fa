/* dataplane_arguments.h: the command line of bypost-dataplane that follows from a configuration. */
#ifndef CONTROL_CLI_DATAPLANE_ARGUMENTS_H
#define CONTROL_CLI_DATAPLANE_ARGUMENTS_H

#include "control/config/config.h"

/* argv, NULL-terminated, beginning with "bypost-dataplane". `hugepages: auto` and `idle: auto` are decided here. Free with
 * dataplane_arguments_free. */
char **dataplane_arguments(const struct config *config);
void dataplane_arguments_free(char **arguments);

/* Are so many bytes free in hugepages, all sizes and nodes together? */
bool hugepages_free(uint64_t bytes);
/* A device of DPDK's own making (net_tap0, net_af_packet0, ...) rather than a PCI one. */
bool device_virtual(const char *device);

#endif
