/* af_xdp.c: net_af_xdp's arguments. Its frames are in the receive queues' pools and go out in one segment (README.md). */
#include "port_private.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

bool af_xdp_is(const char *device) {
    return strncmp(device, "net_af_xdp", 10) == 0;
}

/* One socket for each worker where the kernel drives the interface with so many queues, which the driver demands. Busy polling would be a
 * system call for every pass that finds nothing: only on request. */
int af_xdp_arguments(const char *device, uint32_t workers, char *arguments, size_t arguments_bytes, char *error, size_t error_bytes) {
    char name[IF_NAMESIZE], queues[32] = "";
    int rc = interface_name(device, name, error, error_bytes);
    if (rc != 0)
        return rc;
    if (strstr(device, "queue_count=") == NULL && workers > 1 && strstr(device, "start_queue=") == NULL &&
        interface_queues(name) >= workers)
        snprintf(queues, sizeof queues, ",queue_count=%u", workers);
    if (strstr(device, "xdp_prog=") != NULL && (rc = xdp_program_forget(name)) != 0) {
        snprintf(error, error_bytes,
                 "%s: the program of a dataplane before cannot be taken away (%s); run `deploy/nic/nic unshare %s --force`", device,
                 strerror(-rc), name);
        return rc;
    }
    int length =
        snprintf(arguments, arguments_bytes, "%s%s%s", device, queues, strstr(device, "busy_budget=") == NULL ? ",busy_budget=0" : "");
    if (length < 0 || (size_t)length >= arguments_bytes) {
        snprintf(error, error_bytes, "%s: the device string is too long", device);
        return -EINVAL;
    }
    return 0;
}
