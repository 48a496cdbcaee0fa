/* mx.c: sorting, naming and cutting MX sets. */
#include "mx.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int host_compare(const struct mx_host *left, const struct mx_host *right) {
    if (left->preference != right->preference)
        return left->preference < right->preference ? -1 : 1;
    int by_name = strcmp(left->name, right->name);
    return by_name != 0 ? by_name : (int)left->port - (int)right->port;
}

static void remove_at(struct mx_set *set, uint32_t at) {
    memmove(&set->hosts[at], &set->hosts[at + 1], (set->count - at - 1) * sizeof set->hosts[0]);
    set->count--;
}

void mx_add(struct mx_set *set, const struct mx_host *host) {
    for (uint32_t i = 0; i < set->count; i++) {
        if (set->hosts[i].port != host->port || strcmp(set->hosts[i].name, host->name) != 0)
            continue;
        if (set->hosts[i].preference <= host->preference)
            return;
        remove_at(set, i);
        break;
    }
    uint32_t at = 0;
    while (at < set->count && host_compare(&set->hosts[at], host) < 0)
        at++;
    if (at == MX_HOSTS_MAX)
        return;
    if (set->count == MX_HOSTS_MAX)
        set->count--;
    memmove(&set->hosts[at + 1], &set->hosts[at], (set->count - at) * sizeof set->hosts[0]);
    set->hosts[at] = *host;
    set->count++;
}

int mx_add_rdata(struct mx_set *set, const uint8_t *rdata, size_t rdata_bytes) {
    if (rdata_bytes < 3)
        return -EINVAL;
    struct mx_host host = {.preference = (uint16_t)(rdata[0] << 8 | rdata[1])};
    char text[DOMAIN_BYTES];
    size_t used = 0, at = 2;
    for (;;) {
        if (at >= rdata_bytes)
            return -EINVAL;
        size_t label = rdata[at++];
        if (label == 0)
            break;
        if (label > 63 || label > rdata_bytes - at || used + label + 1 >= sizeof text || memchr(rdata + at, '\0', label) ||
            memchr(rdata + at, '.', label))
            return -EINVAL;
        memcpy(text + used, rdata + at, label);
        used += label;
        at += label;
        text[used++] = '.';
    }
    if (used == 0) {
        set->null_mx = true;
        return 0;
    }
    text[used] = '\0';
    int rc = domain_ascii(text, host.name);
    if (rc == 0)
        mx_add(set, &host);
    return rc;
}

void mx_normalise(struct mx_set *set) {
    uint16_t rank = 0, last = set->count > 0 ? set->hosts[0].preference : 0;
    for (uint32_t i = 0; i < set->count; i++) {
        if (set->hosts[i].preference != last) {
            last = set->hosts[i].preference;
            rank++;
        }
        set->hosts[i].preference = rank;
    }
}

void mx_cut(struct mx_set *set, uint16_t preference) {
    while (set->count > 0 && set->hosts[set->count - 1].preference >= preference)
        set->count--;
}

bool mx_cut_self(struct mx_set *set, bool (*is_self)(const void *context, const char *name), const void *context) {
    for (uint32_t i = 0; i < set->count; i++) {
        if (is_self(context, set->hosts[i].name)) {
            mx_cut(set, set->hosts[i].preference);
            return true;
        }
    }
    return false;
}

void mx_name(const struct mx_set *set, char *out, size_t out_bytes) {
    if (set->count == 0)
        snprintf(out, out_bytes, "-");
    else if (set->count == 1)
        snprintf(out, out_bytes, "%s", set->hosts[0].name);
    else
        snprintf(out, out_bytes, "%.240s+%u", set->hosts[0].name, set->count - 1);
}

size_t mx_key(const struct mx_set *set, char *out, size_t out_bytes) {
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < set->count && used < out_bytes; i++) {
        int wrote = snprintf(out + used, out_bytes - used, "%u %s %u\n", set->hosts[i].preference, set->hosts[i].name, set->hosts[i].port);
        used += (size_t)wrote;
    }
    return used < out_bytes ? used : out_bytes - 1;
}
