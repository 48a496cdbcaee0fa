/* interface.c: what net_af_packet and net_af_xdp have in common: a socket on an interface of the kernel. */
#include "port_private.h"
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

bool interface_is_behind(const char *device) {
    return af_packet_is(device) || af_xdp_is(device);
}

int interface_name(const char *device, char name[static IF_NAMESIZE], char *error, size_t error_bytes) {
    const char *at = strstr(device, "iface=");
    size_t length = at == NULL ? 0 : strcspn(at + strlen("iface="), ",");
    if (length == 0 || length >= IF_NAMESIZE) {
        snprintf(error, error_bytes, "%s: name the kernel's interface, as in %.*s,iface=eth1", device, (int)strcspn(device, ","), device);
        return -EINVAL;
    }
    memcpy(name, at + strlen("iface="), length);
    name[length] = '\0';
    if (if_nametoindex(name) == 0) {
        snprintf(error, error_bytes, "%s: there is no interface %s in this network namespace; `ip link` lists them", device, name);
        return -ENODEV;
    }
    return 0;
}

/* One question of the kernel about an interface. */
static int interface_ask(const char *name, unsigned long what, struct ifreq *request) {
    snprintf(request->ifr_name, sizeof request->ifr_name, "%s", name);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int rc = ioctl(fd, what, request) == 0 ? 0 : -errno;
    close(fd);
    return rc;
}

uint32_t interface_queues(const char *name) {
    struct ethtool_channels channels = {.cmd = ETHTOOL_GCHANNELS};
    struct ifreq request = {.ifr_data = (void *)&channels};
    if (interface_ask(name, SIOCETHTOOL, &request) != 0)
        return 1;
    uint32_t queues = channels.combined_count + channels.rx_count;
    return queues == 0 ? 1 : queues;
}

uint32_t interface_mtu(const char *name) {
    struct ifreq request = {0};
    return interface_ask(name, SIOCGIFMTU, &request) == 0 && request.ifr_mtu > 0 ? (uint32_t)request.ifr_mtu : 0;
}

int interface_hold_multicast(const char *name) {
    struct packet_mreq membership = {.mr_ifindex = (int)if_nametoindex(name), .mr_type = PACKET_MR_ALLMULTI};
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0); /* protocol 0: receives nothing */
    if (fd < 0)
        return -errno;
    if (setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &membership, sizeof membership) != 0) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    return fd;
}
