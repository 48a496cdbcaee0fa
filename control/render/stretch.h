/* stretch.h: a text with variables in base64 (RFC 2045 6.8). Its long static stretches are encoded ahead, once for each of the three places
 * in a group of three bytes that the text before them can end at; what is in between is each message's own. */
#ifndef CONTROL_RENDER_STRETCH_H
#define CONTROL_RENDER_STRETCH_H

#include "body.h"
#include "mustache.h"
#include "writer.h"

enum {
    STRETCH_MIN = 128, /* bytes of static text: to encode fewer costs less than two short lines, which each takes, make of the message */
    STRETCH_PLACES = 3,
};

/* Static text with CRLF line ends, encoded. At place `skip` its first `skip` bytes complete the group that the message's own text before it
 * has begun; all whole groups behind them are ranges[skip], in lines of their own; the bytes left over begin the own text that follows. */
struct stretch {
    uint32_t length; /* before it is encoded */
    uint8_t head[STRETCH_PLACES - 1], tail[STRETCH_PLACES - 1];
    bool begins, ends; /* the text: it has place 0 only; nothing is left over, for its lines are padded */
    struct shared_range ranges[STRETCH_PLACES];
};

/* What of the program's literal `index` is a stretch: begin = end: nothing. A line end that a value's last or first byte may belong to
 * stays outside (CR and LF are one). */
void stretch_cut(const struct mustache *program, uint32_t index, uint32_t *begin, uint32_t *end);
/* Encodes that into a writer, and keeps its places in it. Lines of base64 are their own relaxed form (RFC 6376 3.4.4): only a stretch that
 * begins the text is left without one, so that it can be put behind its neighbour's. 0 or -ENOMEM. */
int stretch_record(struct stretch *stretch, const struct mustache *program, uint32_t index, struct writer *writer);

/* One message's text under way. Zeroed memory is the begin. */
struct stretch_run {
    struct writer text; /* its own, with CRLF line ends, not encoded yet */
    bool in_line;       /* the last stretch has not ended its line */
};

/* Text of the message's own. */
void stretch_own(struct stretch_run *run, const char *text, size_t length);
/* A stretch: what was recorded, or the same bytes without. Errors are those of the body's writer. */
void stretch_share(struct stretch_run *run, const struct stretch *stretch, struct body *body);
void stretch_encode(struct stretch_run *run, const struct mustache *program, uint32_t index, struct body *body);
/* The end of the text, which ends its last line. Once, whatever happened. */
void stretch_end(struct stretch_run *run, struct body *body);

#endif
