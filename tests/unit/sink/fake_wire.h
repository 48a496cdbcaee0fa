/* fake_wire.h: one client connection of a sink over a perfect TCP: what the client says goes in, cut as the test wants, what the sink says
 * is kept until the test looks. */
#ifndef TESTS_UNIT_SINK_FAKE_WIRE_H
#define TESTS_UNIT_SINK_FAKE_WIRE_H

#include "bench/sink/sink.h"

enum { WIRE_BYTES = 1 << 16 };

struct wire {
    struct sink *sink;
    struct script script;
    struct seen seen, attempts;
    struct tcp_conn *conn;
    uint64_t now_us;
    uint32_t step; /* bytes of a segment; 0: all at once */
    bool implicit; /* the port is one of those with TLS from the first byte */
};

/* A sink with what `config` says (zero: a default), and the rules, one a line. */
void wire_create(struct wire *wire, const struct sink_config *config, const char *const *rules, unsigned count);
void wire_destroy(struct wire *wire);
/* A client connects, after the one before has gone. False: it was reset at once. */
bool wire_connect(struct wire *wire);
void wire_say(struct wire *wire, const char *text);
void wire_say_bytes(struct wire *wire, const char *bytes, uint32_t length);
/* What the sink has said since the last look is `text`. */
void wire_hears(struct wire *wire, const char *text);
/* `count` codes, as "250 250 354"; the texts do not matter. Lines that go on ("250-") are left out. */
void wire_hears_codes(struct wire *wire, const char *codes);
/* Time passes, a millisecond at a time. */
void wire_wait(struct wire *wire, uint32_t ms);
/* The same text, to be read; wire_hears_codes forgets it. */
const char *wire_said(const struct wire *wire);
/* The client's FIN. */
void wire_finish(struct wire *wire);
bool wire_has_fin(const struct wire *wire);
bool wire_is_reset(const struct wire *wire);
/* Bytes said by the client that the sink has not taken. */
uint32_t wire_backlog(const struct wire *wire);
/* The connection ends; wire_connect and wire_destroy do so, too. */
void wire_close(struct wire *wire);
const struct tally *wire_tally(const struct wire *wire);

#endif
