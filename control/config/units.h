/* units.h: numbers with units as people write them: 30s, 5m, 512M, 100/min. All return false for anything else. */
#ifndef CONTROL_CONFIG_UNITS_H
#define CONTROL_CONFIG_UNITS_H

#include <stdbool.h>
#include <stdint.h>

/* "500ms", "30s", "5m", "1h30m", "2 hours", "3d"; a bare "0". In milliseconds. */
bool units_duration(const char *text, uint64_t *ms);
/* "4096", "16K", "512M", "4G" (powers of 1024, also as KiB, MiB, GiB), "25MB" (powers of 1000). In bytes. */
bool units_size(const char *text, uint64_t *bytes);
/* "100/s", "100/min", "5000/h", "1_000_000/day"; "0" or "unlimited": no limit. Per second. */
bool units_rate(const char *text, double *per_second);
/* "100", "10_000"; "unlimited" is 0. */
bool units_count(const char *text, uint64_t *count);
/* "true", "yes", "on" and their opposites. */
bool units_bool(const char *text, bool *value);

#endif
