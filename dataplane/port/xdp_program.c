/* xdp_program.c: takes away the sharing program that a killed dataplane left on its interface: net_af_xdp would refuse to replace it. */
#include "port_private.h"
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>
#include <string.h>
#include <unistd.h>

static const char xdp_program_ours[] = "bypost_share"; /* deploy/nic/bypost_xdp.bpf.c */

int xdp_program_forget(const char *interface) {
    int index = (int)if_nametoindex(interface);
    __u32 id = 0;
    if (bpf_xdp_query_id(index, 0, &id) != 0 || id == 0)
        return 0;
    int fd = bpf_prog_get_fd_by_id(id);
    if (fd < 0)
        return fd;
    struct bpf_prog_info info;
    __u32 length = sizeof info;
    memset(&info, 0, sizeof info);
    int rc = bpf_obj_get_info_by_fd(fd, &info, &length);
    if (rc == 0 && strcmp(info.name, xdp_program_ours) == 0) {
        LIBBPF_OPTS(bpf_xdp_attach_opts, only, .old_prog_fd = fd); /* not what somebody else put there meanwhile */
        rc = bpf_xdp_detach(index, XDP_FLAGS_REPLACE, &only);
    }
    close(fd);
    return rc;
}
