/* device.c: from the name that an operator wrote to a DPDK port id, attaching the device when EAL does not have it. */
#include "port_private.h"
#include <errno.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <stdio.h>
#include <string.h>

enum { DEVICE_ARGUMENTS_BYTES = 512 };

enum device_kind { DEVICE_VIRTUAL, DEVICE_PCI, DEVICE_PCI_SHORT };

static enum device_kind device_kind(const char *device) {
    unsigned domain, bus, slot, function;
    if (sscanf(device, "%x:%x:%x.%x", &domain, &bus, &slot, &function) == 4)
        return DEVICE_PCI;
    return sscanf(device, "%x:%x.%x", &bus, &slot, &function) == 3 ? DEVICE_PCI_SHORT : DEVICE_VIRTUAL;
}

static const char *device_domain(const char *device) {
    return device_kind(device) == DEVICE_PCI_SHORT ? "0000:" : "";
}

/* DPDK lists a port by the vdev's name, or by the PCI address with its domain. */
static int device_find(const char *device, uint16_t *id) {
    char name[RTE_ETH_NAME_MAX_LEN];
    snprintf(name, sizeof name, "%s%.*s", device_domain(device), (int)strcspn(device, ","), device);
    return rte_eth_dev_get_port_by_name(name, id);
}

int port_device_attach(struct port *port, struct port_device *device, uint32_t workers, char *error, size_t error_bytes) {
    uint16_t id;
    if (device_find(port->device, &id) == 0) {
        port->id = id;
        return 0;
    }
    char arguments[DEVICE_ARGUMENTS_BYTES];
    int rc = 0;
    if (af_packet_is(port->device))
        rc = af_packet_arguments(port->device, port->mtu, workers, arguments, sizeof arguments, error, error_bytes);
    else if (af_xdp_is(port->device))
        rc = af_xdp_arguments(port->device, workers, arguments, sizeof arguments, error, error_bytes);
    else
        snprintf(arguments, sizeof arguments, "%s%s", device_domain(port->device), port->device);
    if (rc != 0)
        return rc;
    rc = rte_dev_probe(arguments);
    if (rc != 0 && rc != -EEXIST) {
        snprintf(error, error_bytes,
                 device_kind(port->device) != DEVICE_VIRTUAL
                     ? "%s: DPDK cannot take this device (%s); bind it to vfio-pci (dpdk-devbind.py --status shows it) and start without "
                       "--no-pci"
                     : "%s: DPDK cannot make this device (%s); check the driver's name and its arguments, and that this process may use it",
                 port->device, strerror(-rc));
        return rc;
    }
    device->attached_here = rc == 0;
    if (device_find(port->device, &id) != 0) {
        snprintf(error, error_bytes, "%s: attached, but it is not an Ethernet device", port->device);
        return -ENODEV;
    }
    port->id = id;
    return 0;
}

void port_device_detach(struct port *port, struct port_device *device) {
    struct rte_eth_dev_info info;
    struct rte_device *handle = rte_eth_dev_info_get(port->id, &info) == 0 ? info.device : NULL;
    rte_eth_dev_close(port->id);
    if (device->attached_here && handle != NULL)
        rte_dev_remove(handle);
}
