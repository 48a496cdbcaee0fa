/* faults.h: gathers the faults of a configuration with their places. */
#ifndef CONTROL_CONFIG_FAULTS_H
#define CONTROL_CONFIG_FAULTS_H

#include "config.h"
#include <stdarg.h>

enum { FAULTS_MAX = 200 }; /* a file with more is not read further */

/* Adds one. `line` and `column` count from 1; 0 for the whole file. Past FAULTS_MAX only an error is still counted, by replacing nothing.
 */
void faults_add(struct config_errors *errors, const char *file, uint32_t line, uint32_t column, bool warning, const char *format,
                va_list arguments);
/* Sorted by file (in the order files were first named), then by place. */
void faults_sort(struct config_errors *errors);
/* Errors that are not warnings. */
uint32_t faults_fatal(const struct config_errors *errors);

#endif
