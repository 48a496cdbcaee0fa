/* af_packet.c: the one driver that blocks. net_af_packet calls poll() without a timeout when the next slot of its TX ring is still with
 * the kernel; this file makes the ring large, bypasses the queueing discipline and looks at the socket before each burst. */
#include "port_private.h"
#include <errno.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum {
    AF_PACKET_FRAMES = 2048,
    AF_PACKET_BLOCK_BYTES = 65536,
    AF_PACKET_SLOT_OVERHEAD = 128, /* tpacket2_hdr and sockaddr_ll */
    AF_PACKET_SLOT_BYTES_MIN = 2048,
    AF_PACKET_DESCRIPTORS_SEARCHED = 4096,
};

bool af_packet_is(const char *device) {
    return strncmp(device, "net_af_packet", 13) == 0 || strncmp(device, "eth_af_packet", 13) == 0;
}

/* The vdev string with the arguments that the operator left to us. */
int af_packet_arguments(const char *device, uint16_t mtu, uint32_t workers, char *arguments, size_t arguments_bytes, char *error,
                        size_t error_bytes) {
    char name[IF_NAMESIZE];
    int rc = interface_name(device, name, error, error_bytes);
    if (rc != 0)
        return rc;
    uint32_t slot = AF_PACKET_SLOT_BYTES_MIN;
    while (slot < (uint32_t)mtu + PORT_FRAME_OVERHEAD + AF_PACKET_SLOT_OVERHEAD)
        slot *= 2;
    char queues[32] = "", ring[96] = "";
    if (strstr(device, "qpairs=") == NULL)
        snprintf(queues, sizeof queues, ",qpairs=%u", workers);
    if (strstr(device, "blocksz=") == NULL && strstr(device, "framesz=") == NULL && strstr(device, "framecnt=") == NULL)
        snprintf(ring, sizeof ring, ",blocksz=%d,framesz=%u,framecnt=%d", AF_PACKET_BLOCK_BYTES, slot, AF_PACKET_FRAMES);
    int length = snprintf(arguments, arguments_bytes, "%s%s%s%s", device, strstr(device, "qdisc_bypass=") == NULL ? ",qdisc_bypass=1" : "",
                          queues, ring);
    if (length < 0 || (size_t)length >= arguments_bytes) {
        snprintf(error, error_bytes, "%s: the device string is too long", device);
        return -EINVAL;
    }
    return 0;
}

/* The driver keeps its sockets to itself, so they are found among the descriptors of this process: packet sockets with a TX ring bound to
 * the interface, in the order of the queues because the driver opens them so. Not finding as many as there are queues leaves the driver as
 * it is. */
void af_packet_find_sockets(struct port *port, struct port_device *device) {
    char name[IF_NAMESIZE], error[128];
    if (interface_name(port->device, name, error, sizeof error) != 0)
        return;
    unsigned index = if_nametoindex(name);
    uint32_t found = 0;
    int sockets[PORT_WORKERS_MAX];
    for (int fd = 0; fd < AF_PACKET_DESCRIPTORS_SEARCHED && index != 0; fd++) {
        struct sockaddr_ll bound;
        socklen_t length = sizeof bound;
        int version = 0;
        socklen_t version_length = sizeof version;
        if (getsockname(fd, (struct sockaddr *)&bound, &length) != 0 || bound.sll_family != AF_PACKET || bound.sll_ifindex != (int)index)
            continue;
        if (getsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, &version_length) != 0 || version != TPACKET_V2)
            continue;
        if (found < PORT_WORKERS_MAX)
            sockets[found] = fd;
        found++;
    }
    struct rte_eth_dev_info info;
    if (found == 0 || rte_eth_dev_info_get(port->id, &info) != 0 || found != info.max_tx_queues)
        return;
    int send_bytes = 0;
    socklen_t length = sizeof send_bytes;
    if (getsockopt(sockets[0], SOL_SOCKET, SO_SNDBUF, &send_bytes, &length) != 0)
        return;
    device->socket_send_bytes = send_bytes;
    memcpy(device->sockets, sockets, found * sizeof sockets[0]);
}

/* The kernel's poll() reports a packet socket writable while less than half of its send buffer is in use, and a burst adds to that only by
 * its final sendto(): so below half no poll() of the burst can wait. */
bool af_packet_has_room(const struct port_device *device, uint16_t queue) {
    if (device->sockets[queue] < 0)
        return true;
    int queued = 0;
    if (ioctl(device->sockets[queue], SIOCOUTQ, &queued) != 0)
        return true;
    return queued < device->socket_send_bytes / 2;
}
