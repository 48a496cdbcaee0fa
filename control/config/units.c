/* units.c: numbers with units, without overflow and without surprises: a unit that is missing is an error, not a guess. */
#include "units.h"

#include <ctype.h>
#include <math.h>
#include <string.h>
#include <strings.h>

struct unit {
    const char *names; /* separated by spaces */
    uint64_t factor;
};

static const struct unit duration_units[] = {
    {"ms millisecond milliseconds", 1},   {"s sec secs second seconds", 1000}, {"m min mins minute minutes", 60 * 1000},
    {"h hr hrs hour hours", 3600 * 1000}, {"d day days", 86400 * 1000},        {NULL, 0}};
static const struct unit size_units[] = {
    {"b byte bytes", 1}, {"k kib", 1ull << 10}, {"m mib", 1ull << 20}, {"g gib", 1ull << 30}, {"t tib", 1ull << 40},
    {"kb", 1000},        {"mb", 1000000},       {"gb", 1000000000},    {"tb", 1000000000000}, {NULL, 0}};

/* Takes a whole number, with _ between digits as YAML writers like it. */
static bool take_number(const char **at, uint64_t *number) {
    const char *p = *at;
    uint64_t value = 0;
    if (!isdigit((unsigned char)*p)) {
        return false;
    }
    for (; isdigit((unsigned char)*p) || (*p == '_' && isdigit((unsigned char)p[1])); p++) {
        if (*p == '_') {
            continue;
        }
        if (__builtin_mul_overflow(value, 10u, &value) || __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value)) {
            return false;
        }
    }
    *at = p;
    *number = value;
    return true;
}

/* Takes a word of letters that is one of the units. */
static const struct unit *take_unit(const char **at, const struct unit *units) {
    size_t length = 0;
    while (isalpha((unsigned char)(*at)[length])) {
        length++;
    }
    for (const struct unit *unit = units; length && unit->names; unit++) {
        for (const char *name = unit->names; *name;) {
            size_t name_length = strcspn(name, " ");
            if (name_length == length && strncasecmp(name, *at, length) == 0) {
                *at += length;
                return unit;
            }
            name += name_length + (name[name_length] == ' ');
        }
    }
    return NULL;
}

static const char *skip_space(const char *at) {
    return at + strspn(at, " ");
}

bool units_duration(const char *text, uint64_t *ms) {
    uint64_t total = 0;
    const char *at = text;
    if (strcmp(text, "0") == 0) {
        *ms = 0;
        return true;
    }
    do {
        uint64_t number;
        if (!take_number(&at, &number)) {
            return false;
        }
        at = skip_space(at);
        const struct unit *unit = take_unit(&at, duration_units);
        if (!unit || __builtin_mul_overflow(number, unit->factor, &number) || __builtin_add_overflow(total, number, &total)) {
            return false;
        }
        at = skip_space(at);
    } while (*at);
    *ms = total;
    return true;
}

bool units_size(const char *text, uint64_t *bytes) {
    const char *at = text;
    uint64_t number;
    if (!take_number(&at, &number)) {
        return false;
    }
    at = skip_space(at);
    if (*at) {
        const struct unit *unit = take_unit(&at, size_units);
        if (!unit || *at || __builtin_mul_overflow(number, unit->factor, &number)) {
            return false;
        }
    }
    *bytes = number;
    return true;
}

bool units_rate(const char *text, double *per_second) {
    const char *at = text;
    uint64_t number;
    if (strcmp(text, "0") == 0 || strcasecmp(text, "unlimited") == 0) {
        *per_second = 0;
        return true;
    }
    if (!take_number(&at, &number) || number == 0) {
        return false;
    }
    at = skip_space(at);
    if (*at != '/') {
        return false;
    }
    at = skip_space(at + 1);
    const struct unit *unit = take_unit(&at, duration_units);
    if (!unit || *at || unit->factor < 1000) {
        return false;
    }
    *per_second = (double)number * 1000.0 / (double)unit->factor;
    return true;
}

bool units_count(const char *text, uint64_t *count) {
    const char *at = text;
    if (strcasecmp(text, "unlimited") == 0) {
        *count = 0;
        return true;
    }
    return take_number(&at, count) && !*at;
}

bool units_bool(const char *text, bool *value) {
    static const char *const yes[] = {"true", "yes", "on"}, *const no[] = {"false", "no", "off"};
    for (unsigned i = 0; i < 3; i++) {
        if (strcasecmp(text, yes[i]) == 0 || strcasecmp(text, no[i]) == 0) {
            *value = strcasecmp(text, yes[i]) == 0;
            return true;
        }
    }
    return false;
}
