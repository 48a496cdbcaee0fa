/* supervise.h: keeps bypost's two processes running, and ends them in the order that loses nothing. */
#ifndef CONTROL_CLI_SUPERVISE_H
#define CONTROL_CLI_SUPERVISE_H

#include <stdint.h>

struct supervise_process {
    const char *name; /* "dataplane", "control" */
    const char *path;
    char *const *argv;
};

struct supervise_config {
    /* They start in this order and end in the reverse one: control settles what the dataplane still answers. */
    struct supervise_process processes[2];
    uint32_t restarts_a_minute; /* of both together; more end everything. Deaths by SIGKILL, which comes from outside, count a twentieth */
    uint64_t drain_timeout_ms;  /* each may take this long and SUPERVISE_GRACE_MS more before it is killed */
};

enum { SUPERVISE_GRACE_MS = 10000, SUPERVISE_BACKOFF_MIN_MS = 100, SUPERVISE_BACKOFF_MAX_MS = 5000 };

/* Runs until SIGTERM or SIGINT (a second one ends all at once, without draining), or until a process dies for good. SIGHUP goes to control.
 * 0 when both ended well; else the exit code of the one that could not go on, or 70 when they died too often. */
int supervise(const struct supervise_config *config);

#endif
