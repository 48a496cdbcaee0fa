/* delivery_log.h: the local delivery log: JSON lines, one an attempt, rotated by size. */
#ifndef CONTROL_SETTLE_DELIVERY_LOG_H
#define CONTROL_SETTLE_DELIVERY_LOG_H

#include <stddef.h>
#include <stdint.h>

struct delivery_log;

/* rotate_bytes 0: never rotated here. rotate_keep: old files kept as PATH.1 (the youngest) to PATH.N. NULL without memory; a file that
 * cannot be opened is tried again at each flush. */
struct delivery_log *delivery_log_create(const char *path, uint64_t rotate_bytes, uint32_t rotate_keep);
/* Writes what is buffered. */
void delivery_log_destroy(struct delivery_log *log);
/* Appends a line (its newline is added). Buffered until 64 KiB or delivery_log_flush. */
void delivery_log_write(struct delivery_log *log, const char *line, size_t length);
void delivery_log_flush(struct delivery_log *log);
/* Closes and opens the file by its name. */
void delivery_log_reopen(struct delivery_log *log);
/* Lines that could not be written. */
uint64_t delivery_log_errors(const struct delivery_log *log);

#endif
