/* compose.h: a job made from the options of `bypost submit`. */
#ifndef CONTROL_CLI_COMPOSE_H
#define CONTROL_CLI_COMPOSE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Each adds to the job; false after the error was printed, with *code the exit code. */
bool compose_text(json_t *job, const char *field, const char *value, int *code);
bool compose_append(json_t *job, const char *field, const char *value, int *code);
bool compose_file(json_t *job, const char *field, const char *path, int *code);
/* "Name: value". */
bool compose_header(json_t *job, const char *line, int *code);
bool compose_attachment(json_t *job, const char *path, int *code);
/* An attachment as jobs have them, of a file; NULL after the error was printed. */
json_t *compose_attached(const char *command, const char *path, int *code);
/* A JSON object given as text. */
bool compose_json(json_t *job, const char *field, const char *text, int *code);
/* RFC 3339, Unix seconds, or "+10m" from now. */
bool compose_time(json_t *job, const char *field, const char *text, int *code);
/* A whole message: bytes that are no UTF-8 are kept apart, because JSON cannot hold them. */
struct compose_raw {
    uint8_t *bytes;
    size_t length;
};
bool compose_raw(json_t *job, const char *path, struct compose_raw *raw, int *code);

/* The job as JSON, or as MessagePack when there are raw bytes; malloc'd. */
uint8_t *compose_bytes(const json_t *job, const struct compose_raw *raw, size_t *length);

#endif
