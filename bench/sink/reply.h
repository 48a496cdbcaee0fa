/* reply.h: a reply's bytes; they outlive every connection, so that nothing is copied or released. */
#ifndef BENCH_SINK_REPLY_H
#define BENCH_SINK_REPLY_H

#include <stdint.h>

struct reply {
    const char *text; /* with CRLF */
    uint32_t length;
};
#define REPLY(text) ((struct reply){(text), sizeof(text) - 1})

#endif
