/* share.c: reads the record that deploy/nic keeps beside its XDP program. */
#include "share.h"
#include "address.h"

#include <jansson.h>
#include <string.h>

static bool share_program(const char *device, char path[static SHARE_PATH_BYTES]) {
    static const char key[] = "xdp_prog=";
    const char *at = strncmp(device, "net_af_xdp", 10) == 0 ? strstr(device, key) : NULL;
    size_t length = at ? strcspn(at + strlen(key), ",") : 0;
    if (length < 3 || length + 4 > SHARE_PATH_BYTES) { /* ".json" is longer than ".o" */
        return false;
    }
    memcpy(path, at + strlen(key), length);
    path[length] = '\0';
    return strcmp(path + length - 2, ".o") == 0;
}

bool share_read(const char *device, struct share *share) {
    char record[SHARE_PATH_BYTES + 4];
    const char *name = NULL;
    json_t *ports = NULL, *addresses = NULL, *entry;
    size_t index;
    memset(share, 0, sizeof *share);
    if (!share_program(device, share->program)) {
        return false;
    }
    snprintf(record, sizeof record, "%.*s.json", (int)strlen(share->program) - 2, share->program);
    json_t *root = json_load_file(record, 0, NULL);
    if (root == NULL) {
        return false;
    }
    bool right = json_unpack(root, "{s:s, s:o, s:o}", "device", &name, "ports", &ports, "addresses", &addresses) == 0;
    if (right) {
        snprintf(share->device, sizeof share->device, "%s", name);
        share->port_first = (uint16_t)json_integer_value(json_array_get(ports, 0));
        share->port_last = (uint16_t)json_integer_value(json_array_get(ports, 1));
    }
    json_array_foreach(addresses, index, entry) {
        const char *text = json_string_value(entry);
        if (share->address_count == sizeof share->addresses / sizeof *share->addresses || text == NULL ||
            !address_parse(text, &share->addresses[share->address_count])) {
            right = false;
            break;
        }
        share->address_count++;
    }
    json_decref(root);
    return right;
}

bool share_takes(const struct share *share, const struct config_address *address) {
    for (uint32_t i = 0; i < share->address_count; i++) {
        if (address_equal(&share->addresses[i], address)) {
            return true;
        }
    }
    return false;
}
