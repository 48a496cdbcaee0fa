/* programs.c: finds bypost's other binaries. */
#include "programs.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The folder of this binary, without its last slash. */
static void own_folder(char *folder, size_t bytes) {
    ssize_t length = readlink("/proc/self/exe", folder, bytes - 1);
    folder[length > 0 ? length : 0] = 0;
    char *slash = strrchr(folder, '/');
    if (slash) {
        *slash = 0;
    }
}

static char *program_environment(const char *name) {
    char variable[64];
    size_t length = (size_t)snprintf(variable, sizeof variable, "BYPOST_%s", name);
    for (size_t i = 0; i < length && i < sizeof variable; i++) {
        variable[i] = (char)toupper((unsigned char)variable[i]);
    }
    const char *value = getenv(variable);
    return value && *value ? strdup(value) : NULL;
}

char *program_find(const char *name, char **tried) {
    char folder[PATH_MAX], *candidates[2] = {NULL, NULL};
    *tried = program_environment(name);
    if (*tried) {
        return access(*tried, X_OK) == 0 ? strdup(*tried) : NULL;
    }
    own_folder(folder, sizeof folder);
    /* Installed: side by side. In the build tree: build/control/cli/bypost, build/control/bypost-control, build/dataplane/bypost-dataplane.
     */
    if (asprintf(&candidates[0], "%s/bypost-%s", folder, name) < 0 ||
        asprintf(&candidates[1], "%s/../../%s/bypost-%s", folder, name, name) < 0 ||
        asprintf(tried, "%s and %s", candidates[0], candidates[1]) < 0) {
        abort();
    }
    for (unsigned i = 0; i < 2; i++) {
        if (access(candidates[i], X_OK) == 0) {
            free(candidates[!i]);
            return candidates[i];
        }
    }
    free(candidates[0]);
    free(candidates[1]);
    return NULL;
}
