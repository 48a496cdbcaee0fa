/* fixture.h: configurations written to a folder of the test's own. */
#ifndef TESTS_UNIT_CONFIG_FIXTURE_H
#define TESTS_UNIT_CONFIG_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "control/config/config.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What every configuration needs: a port and a pool. */
#define FIXTURE_BASE                                                                                                                       \
    "dataplane:\n"                                                                                                                         \
    "  lcores: [0]\n"                                                                                                                      \
    "  ports:\n"                                                                                                                           \
    "    - {device: 'net_tap0,iface=tap9', addresses: [192.0.2.10/24, '2001:db8::10/64'], gateway: [192.0.2.1, 'fe80::1']}\n"              \
    "pools:\n"                                                                                                                             \
    "  main:\n"                                                                                                                            \
    "    - {address: 192.0.2.10, ehlo: mta1.example.com}\n"

struct fixture {
    char folder[64], path[96], shaping[96];
    struct config_errors errors;
    struct config *config;
};

static inline void fixture_write(const char *path, const char *text) {
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    fputs(text, out);
    fclose(out);
}

/* Loads `text`; `shaping` may be NULL. */
static inline struct fixture *fixture_load(const char *text, const char *shaping) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    strcpy(fixture->folder, "/tmp/bypost-config-XXXXXX");
    assert_non_null(mkdtemp(fixture->folder));
    snprintf(fixture->path, sizeof fixture->path, "%s/bypost.yaml", fixture->folder);
    snprintf(fixture->shaping, sizeof fixture->shaping, "%s/shaping.yaml", fixture->folder);
    fixture_write(fixture->path, text);
    if (shaping) {
        fixture_write(fixture->shaping, shaping);
    }
    fixture->config = config_load(fixture->path, &fixture->errors);
    return fixture;
}

static inline void fixture_free(struct fixture *fixture) {
    config_free(fixture->config);
    config_errors_free(&fixture->errors);
    unlink(fixture->path);
    unlink(fixture->shaping);
    rmdir(fixture->folder);
    free(fixture);
}

/* One that must be good. */
static inline struct fixture *fixture_good(const char *text, const char *shaping) {
    struct fixture *fixture = fixture_load(text, shaping);
    if (!fixture->config) {
        config_errors_print(&fixture->errors, stderr);
    }
    assert_non_null(fixture->config);
    return fixture;
}

/* The error (or warning) at that line whose message holds `words`. */
static inline const struct config_error *fixture_fault(const struct fixture *fixture, uint32_t line, const char *words) {
    for (uint32_t i = 0; i < fixture->errors.count; i++) {
        if (fixture->errors.items[i].line == line && strstr(fixture->errors.items[i].message, words)) {
            return &fixture->errors.items[i];
        }
    }
    config_errors_print(&fixture->errors, stderr);
    fprintf(stderr, "no fault at line %u with \"%s\"\n", line, words);
    return NULL;
}

#endif
