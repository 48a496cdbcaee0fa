/* metrics.h: /metrics over HTTP for Prometheus: the text format 0.0.4, or OpenMetrics 1.0 where the client asks for it. */
#ifndef CONTROL_OBSERVE_METRICS_H
#define CONTROL_OBSERVE_METRICS_H

#include "control/observe/histogram.h"
#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct metrics_page;
enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

/* Begins a metric: its name without "_total", in base units, and a sentence. Its samples follow at once. */
void metrics_family(struct metrics_page *page, enum metric_type type, const char *name, const char *help);
/* A sample of the family that was begun last. `labels`: pairs of name and value, ended by NULL; values may hold any bytes. */
void metrics_sample(struct metrics_page *page, double value, ...) __attribute__((sentinel));
/* A family of one sample without labels. */
void metrics_one(struct metrics_page *page, enum metric_type type, const char *name, const char *help, double value);
/* The buckets of a histogram, in seconds, with at most one label (label NULL: none). */
void metrics_histogram(struct metrics_page *page, const struct histogram *histogram, const char *label, const char *value);

struct metrics_server;
/* Listens at "ADDRESS:PORT", "[ADDRESS]:PORT" or "unix:/PATH" (mode 0660, a stale one is replaced). `fill` writes the page for each scrape,
 * on the loop's thread: it must not take more than a few ms. NULL with a sentence in error. */
struct metrics_server *metrics_create(struct event_base *base, const char *listen, void (*fill)(void *context, struct metrics_page *page),
                                      void *context, char *error, size_t error_bytes);
void metrics_destroy(struct metrics_server *server);

#endif
