/* share.h: what deploy/nic wrote down about a device that bypost shares with the kernel by AF_XDP. */
#ifndef CONTROL_CONFIG_SHARE_H
#define CONTROL_CONFIG_SHARE_H

#include "config.h"

enum { SHARE_DEVICE_BYTES = 16, SHARE_PATH_BYTES = 256 };

/* `nic share DEVICE` keeps DEVICE.json beside the program DEVICE.o. */
struct share {
    char program[SHARE_PATH_BYTES], device[SHARE_DEVICE_BYTES];
    uint16_t port_first, port_last; /* 0: addresses of bypost's own; else the kernel's, and these ports are bypost's */
    uint32_t address_count;
    struct config_address addresses[64]; /* a port has no more */
};

/* From a device string such as "net_af_xdp0,iface=eth0,xdp_prog=/var/lib/bypost-nic/eth0.o". False without a program, and for one that
 * `nic share` did not make: then nobody can say what it takes. */
bool share_read(const char *device, struct share *share);
bool share_takes(const struct share *share, const struct config_address *address);

#endif
