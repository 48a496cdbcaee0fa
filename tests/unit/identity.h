/* identity.h: the identity of tests, fuzzers and probes: what identity_load makes of a file. */
#ifndef TESTS_UNIT_IDENTITY_H
#define TESTS_UNIT_IDENTITY_H

#include "control/render/render.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of 32 bytes: `text` over and over. Aborts where there is no room for the file. */
static inline struct identity *test_identity(const char *text) {
    char path[] = "/tmp/bypost-identity-XXXXXX", bytes[32];
    size_t length = strlen(text);
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = text[i % length];
    int file = mkstemp(path);
    if (file < 0 || write(file, bytes, sizeof(bytes)) != sizeof(bytes))
        abort();
    close(file);
    struct identity *identity = identity_load(path);
    unlink(path);
    if (identity == NULL)
        abort();
    return identity;
}

#endif
