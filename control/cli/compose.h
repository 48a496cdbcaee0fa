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
/* FILE or FILE:TYPE; without a type by the file's suffix. */
bool compose_attachment(json_t *job, const char *value, int *code);
/* The same, or ID=FILE and ID=FILE:TYPE: shown where the HTML has cid:ID; without an ID it is the file's name. */
bool compose_inline(json_t *job, const char *value, int *code);
/* An attachment as jobs have them, of a file; NULL after the error was printed. */
json_t *compose_attached(const char *command, const char *path, int *code);
/* A JSON object given as text, or in a file: "@FILE". `option`: what it is called in errors. */
bool compose_json(json_t *job, const char *option, const char *field, const char *text, int *code);
bool compose_flag(json_t *job, const char *field, bool value, int *code);
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
