/* decode_time.c: points in time: RFC 3339 strings and Unix seconds. */
#include "decode.h"

#include <string.h>
#include <time.h>

/* 2000-01-01 and 2100-01-01: outside them a unit was mistaken. */
static const uint64_t TIME_MIN_S = 946684800, TIME_MAX_S = 4102444800;

/* Exactly `count` digits. */
static bool digits(const char **at, unsigned count, int *out) {
    int value = 0;
    for (unsigned i = 0; i < count; i++, (*at)++) {
        if (**at < '0' || **at > '9') {
            return false;
        }
        value = value * 10 + (**at - '0');
    }
    *out = value;
    return true;
}

static bool literal(const char **at, const char *any) {
    if (!**at || !strchr(any, **at)) {
        return false;
    }
    (*at)++;
    return true;
}

static int days_in_month(int year, int month) {
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : days[month - 1];
}

/* RFC 3339 5.6 date-time. */
static bool rfc3339_parse(const char *at, int64_t *out_ms) {
    int year, month, day, hour, minute, second, offset_hour = 0, offset_minute = 0, milliseconds = 0;
    if (!digits(&at, 4, &year) || !literal(&at, "-") || !digits(&at, 2, &month) || !literal(&at, "-") || !digits(&at, 2, &day) ||
        !literal(&at, "Tt ") || !digits(&at, 2, &hour) || !literal(&at, ":") || !digits(&at, 2, &minute) || !literal(&at, ":") ||
        !digits(&at, 2, &second)) {
        return false;
    }
    if (*at == '.') {
        int scale = 100;
        at++;
        if (*at < '0' || *at > '9') {
            return false;
        }
        for (; *at >= '0' && *at <= '9'; at++, scale /= 10) {
            milliseconds += (*at - '0') * scale;
        }
    }
    int sign = *at == '-' ? -1 : 1;
    if (!literal(&at, "Zz") &&
        (!literal(&at, "+-") || !digits(&at, 2, &offset_hour) || !literal(&at, ":") || !digits(&at, 2, &offset_minute))) {
        return false;
    }
    if (*at || month < 1 || month > 12 || day < 1 || day > days_in_month(year, month) || hour > 23 || minute > 59 || second > 60 ||
        offset_hour > 23 || offset_minute > 59) {
        return false;
    }
    struct tm tm = {.tm_year = year - 1900, .tm_mon = month - 1, .tm_mday = day, .tm_hour = hour, .tm_min = minute, .tm_sec = second};
    *out_ms = ((int64_t)timegm(&tm) - sign * (offset_hour * 3600 + offset_minute * 60)) * 1000 + milliseconds;
    return true;
}

bool decode_time(struct decoder *decoder, const char *place, const json_t *value, uint64_t *out_ms) {
    char quote[QUOTE_BYTES];
    int64_t ms = 0;
    if (json_is_string(value)) {
        const char *text = json_string_value(value);
        if (!rfc3339_parse(text, &ms)) {
            return decode_fail(
                decoder, place,
                "\"%s\" is not a time: write it like 2027-01-31T09:30:00Z or with an offset like +02:00, or as Unix seconds.",
                decode_quote(text, json_string_length(value), quote));
        }
    } else if (json_is_number(value)) {
        double seconds = json_number_value(value);
        if (seconds >= (double)TIME_MIN_S * 1000) {
            return decode_fail(decoder, place, "The number looks like milliseconds; Unix time is given in seconds.");
        }
        if (!(seconds >= 0 && seconds < 1e12)) {
            return decode_fail(decoder, place, "The time is not between the years 2000 and 2100.");
        }
        ms = (int64_t)(seconds * 1000 + 0.5);
    } else {
        return decode_fail(decoder, place, "A time must be an RFC 3339 string or Unix seconds, not %s.", decode_kind(value));
    }
    if (ms < (int64_t)TIME_MIN_S * 1000 || ms >= (int64_t)TIME_MAX_S * 1000) {
        return decode_fail(decoder, place, "The time is not between the years 2000 and 2100.");
    }
    *out_ms = (uint64_t)ms;
    return true;
}
