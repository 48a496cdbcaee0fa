/* log.h: control's own log: one JSON line an entry on stderr. Thread safe. Of what one place says (room and format) the first ten are
 * written in ten seconds, and the rest as one line, `repeated K times` with the last text. Never give it a secret. */
#ifndef CONTROL_OBSERVE_LOG_H
#define CONTROL_OBSERVE_LOG_H

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
/* The level below which nothing is written; "control" or "bypost" as the program's name. */
void log_start(const char *program, enum log_level level);
void log_write(enum log_level level, const char *room, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Tells what was held back in times that are over: call every second or so, or it waits for the next entry. */
void log_tick(void);
/* Tells what was held back, and begins anew: call before the process ends. */
void log_flush(void);

#endif
