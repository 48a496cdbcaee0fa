/* campaign_fields.c: what users write for a campaign's weight, rate, times and window, in Redis's form. */
#include "campaign.h"
#include "control/config/units.h"
#include "control/job.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>

enum { VALUE_BYTES = 64 };

/* RFC 3339, Unix seconds, or +2h from now. */
static bool time_read(const char *text, uint64_t *ms) {
    struct tm tm = {0};
    char *end;
    int zone_hours = 0, zone_minutes = 0, used = 0;
    if (*text == '+') {
        bool good = units_duration(text + 1, ms);
        *ms += (uint64_t)time(NULL) * 1000;
        return good;
    }
    if (*text && text[strspn(text, "0123456789")] == 0) {
        errno = 0;
        *ms = strtoull(text, &end, 10) * 1000;
        return errno == 0;
    }
    const char *rest = strptime(text, "%Y-%m-%d", &tm);
    rest = rest && (*rest == 'T' || *rest == ' ') ? strptime(rest + 1, "%H:%M:%S", &tm) : NULL;
    if (!rest || (strcasecmp(rest, "Z") != 0 && (sscanf(rest + (*rest != 0), "%2d:%2d%n", &zone_hours, &zone_minutes, &used) != 2 ||
                                                 !strchr("+-", *rest) || rest[1 + used]))) {
        return false;
    }
    int64_t seconds = timegm(&tm) - (int64_t)(*rest == '-' ? -1 : 1) * (zone_hours * 60 + zone_minutes) * 60;
    *ms = (uint64_t)seconds * 1000;
    return seconds >= 0;
}

/* Minutes that a zone is ahead of UTC at this time: "", "UTC", "+02:00" or a name of the time zone database. */
static bool zone_read(const char *zone, int *minutes) {
    int hours, rest, used = 0;
    if (strcasecmp(zone, "UTC") == 0 || strcasecmp(zone, "Z") == 0) {
        *minutes = 0;
        return true;
    }
    if (*zone == '+' || *zone == '-') {
        bool good = sscanf(zone + 1, "%2d:%2d%n", &hours, &rest, &used) == 2 && !zone[1 + used] && hours <= 14 && hours >= 0 && rest >= 0 &&
                    rest < 60;
        *minutes = good ? (*zone == '-' ? -1 : 1) * (hours * 60 + rest) : 0;
        return good;
    }
    char path[256];
    struct stat status;
    snprintf(path, sizeof path, "/usr/share/zoneinfo/%s", zone);
    if (*zone && (strstr(zone, "..") || stat(path, &status) != 0 || !S_ISREG(status.st_mode))) {
        return false;
    }
    if (*zone) {
        setenv("TZ", zone, 1);
        tzset();
    }
    time_t now = time(NULL);
    struct tm tm;
    localtime_r(&now, &tm);
    *minutes = (int)(tm.tm_gmtoff / 60);
    return true;
}

/* "08:00-20:00 [ZONE]" -> "480-1200 60"; "none" -> "". */
static bool window_read(const char *text, char out[VALUE_BYTES]) {
    int from_hour, from_minute, to_hour, to_minute, used = 0, offset;
    if (strcasecmp(text, "none") == 0) {
        *out = 0;
        return true;
    }
    if (sscanf(text, "%2d:%2d-%2d:%2d%n", &from_hour, &from_minute, &to_hour, &to_minute, &used) != 4 || from_hour < 0 || from_minute < 0 ||
        to_hour < 0 || to_minute < 0 || from_hour > 23 || from_minute > 59 || to_minute > 59 || to_hour * 60 + to_minute > 1440 ||
        from_hour * 60 + from_minute == to_hour * 60 + to_minute || (text[used] && text[used] != ' ')) {
        return false;
    }
    const char *zone = text + used + strspn(text + used, " ");
    if (!zone_read(zone, &offset)) {
        return false;
    }
    snprintf(out, VALUE_BYTES, "%d-%d %d", from_hour * 60 + from_minute, to_hour * 60 + to_minute, offset);
    return true;
}

static bool refuse(const char *name, const char *value, const char *remedy) {
    cli_complain(CLI_USAGE, CAMPAIGN, "%s '%s': %s.", name, value, remedy);
    return false;
}

bool campaign_field(struct campaign_fields *fields, const char *name, const char *value) {
    char text[VALUE_BYTES] = "", *end;
    const char *out = text;
    double number;
    uint64_t ms = 0;
    if (strcmp(name, "weight") == 0) {
        number = strtod(value, &end);
        if (end == value || *end || !(number >= 0.01 && number <= 10000)) {
            return refuse(name, value, "write a number from 0.01 to 10000; another campaign has 1");
        }
        snprintf(text, sizeof text, "%g", number);
    } else if (strcmp(name, "rate") == 0) {
        if (!units_rate(value, &number) || number >= 1e9) {
            return refuse(name, value, "write for example 500/s, 100000/h, or unlimited");
        }
        snprintf(text, sizeof text, "%.6g", number);
    } else if (strcmp(name, "not_before") == 0 || strcmp(name, "expires_at") == 0) {
        if (strcasecmp(value, "none") != 0 && !time_read(value, &ms)) {
            return refuse(name, value, "write a time such as +2h, 2026-12-24T18:00:00+01:00, Unix seconds, or none");
        }
        snprintf(text, sizeof text, "%" PRIu64, ms);
    } else if (strcmp(name, "window") == 0) {
        if (!window_read(value, text)) {
            return refuse(name, value, "write for example 08:00-20:00, '08:00-20:00 Europe/Berlin', '22:00-06:00 +02:00', or none");
        }
    } else if (strcmp(name, "tenant") == 0 && (!*value || strlen(value) > TENANT_NAME_MAX)) {
        return refuse(name, value, "a tenant's name has 1 to 31 bytes");
    } else {
        out = value;
    }
    if (2 * fields->count + 2 > sizeof fields->argv / sizeof *fields->argv) {
        return refuse(name, value, "too much is set at once");
    }
    fields->argv[2 * fields->count] = strdup(name);
    fields->argv[2 * fields->count + 1] = strdup(out);
    fields->count++;
    return true;
}

void campaign_fields_free(struct campaign_fields *fields) {
    for (uint32_t i = 0; i < 2 * fields->count; i++) {
        free(fields->argv[i]);
    }
    fields->count = 0;
}
