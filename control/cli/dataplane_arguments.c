/* dataplane_arguments.c: turns a configuration into bypost-dataplane's options. */
#include "dataplane_arguments.h"
#include "control/config/address.h"

#include <glob.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct builder {
    char **items;
    size_t count, room;
};

static void add(struct builder *builder, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct builder *builder, const char *format, ...) {
    va_list arguments;
    if (builder->count + 1 >= builder->room) {
        builder->room = builder->room ? builder->room * 2 : 64;
        builder->items = reallocarray(builder->items, builder->room, sizeof *builder->items);
    }
    va_start(arguments, format);
    if (!builder->items || vasprintf(&builder->items[builder->count], format, arguments) < 0) {
        abort();
    }
    va_end(arguments);
    builder->items[++builder->count] = NULL;
}

bool hugepages_free(uint64_t bytes) {
    glob_t found;
    uint64_t total = 0;
    if (glob("/sys/kernel/mm/hugepages/hugepages-*kB/free_hugepages", 0, NULL, &found) != 0) {
        return false;
    }
    for (size_t i = 0; i < found.gl_pathc; i++) {
        uint64_t size_kib = 0, pages = 0;
        FILE *stream = fopen(found.gl_pathv[i], "re");
        if (stream && fscanf(stream, "%" SCNu64, &pages) == 1 &&
            sscanf(strstr(found.gl_pathv[i], "hugepages-"), "hugepages-%" SCNu64, &size_kib) == 1) {
            total += pages * size_kib * 1024;
        }
        if (stream) {
            fclose(stream);
        }
    }
    globfree(&found);
    return total >= bytes;
}

bool device_virtual(const char *device) {
    return strncmp(device, "net_", 4) == 0 || strncmp(device, "virtio_user", 11) == 0;
}

/* Spinning costs a whole core, which only a real device repays (DESIGN.md section 5). */
static bool idle_polls(const struct config *config) {
    if (config->dataplane.idle_set) {
        return config->dataplane.idle == IDLE_POLL;
    }
    for (uint32_t i = 0; i < config->dataplane.port_count; i++) {
        if (device_virtual(config->dataplane.ports[i].device)) {
            return false;
        }
    }
    return true;
}

static char *port_text(const struct config_port *port) {
    static const char *const modes[] = {[CONFIG_PORT_AUTO] = "auto", [CONFIG_PORT_COPY] = "copy", [CONFIG_PORT_REFERENCE] = "reference"};
    static const char *const steerings[] = {[CONFIG_STEERING_TOEPLITZ] = "toeplitz", [CONFIG_STEERING_RANGES] = "ranges"};
    char text[ADDRESS_TEXT_BYTES], *result = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&result, &length);
    if (!out) {
        abort();
    }
    fprintf(out, "device=%s;mode=%s;mtu=%u;vlan=%u", port->device, modes[port->mode], port->mtu, port->vlan);
    if (port->steering != CONFIG_STEERING_AUTO) {
        fprintf(out, ";steering=%s", steerings[port->steering]);
    }
    for (uint32_t i = 0; i < port->address_count; i++) {
        fprintf(out, ";address=%s/%u", address_text(&port->addresses[i], text), port->addresses[i].prefix_length);
    }
    if (port->gateway.family) {
        fprintf(out, ";gateway=%s", address_text(&port->gateway, text));
    }
    if (port->gateway6.family) {
        fprintf(out, ";gateway=%s", address_text(&port->gateway6, text));
    }
    fclose(out);
    return result;
}

static uint64_t mebibytes(uint64_t bytes) {
    return (bytes + (1 << 20) - 1) >> 20;
}

char **dataplane_arguments(const struct config *config) {
    struct builder builder = {0};
    char lcores[64 * 6] = "";
    size_t length = 0;
    bool hugepages = config->dataplane.hugepages_auto ? hugepages_free(config->dataplane.memory_bytes) : config->dataplane.hugepages;
    for (uint32_t i = 0; i < config->dataplane.lcore_count; i++) {
        length += (size_t)snprintf(lcores + length, sizeof lcores - length, "%s%u", i ? "," : "", config->dataplane.lcores[i]);
    }
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"--shards", 1}, /* control is one thread, whatever the queue's shards */
        {"--slots", config->journal.slots},
        {"--paths", config->journal.paths},
        {"--main-lcore", config->dataplane.main_lcore},
        {"--memory-mib", mebibytes(config->dataplane.memory_bytes)},
        {"--arena-mib", mebibytes(config->dataplane.arena_bytes)},
        {"--max-sessions", config->dataplane.max_sessions},
        {"--drain-timeout-ms", config->dataplane.drain_timeout_ms},
    };
    add(&builder, "bypost-dataplane");
    add(&builder, "--journal");
    add(&builder, "%s", config->journal.path);
    add(&builder, "--socket");
    add(&builder, "%s/dataplane.sock", config->run_directory);
    add(&builder, "--lcores");
    add(&builder, "%s", lcores);
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        add(&builder, "%s", numbers[i].name);
        add(&builder, "%" PRIu64, numbers[i].value);
    }
    add(&builder, "--hugepages");
    add(&builder, "%s", hugepages ? "on" : "off");
    add(&builder, "--idle");
    add(&builder, "%s", idle_polls(config) ? "poll" : "adaptive");
    add(&builder, "--congestion");
    add(&builder, "%s", config->dataplane.congestion == CONFIG_NEWRENO ? "newreno" : "cubic");
    add(&builder, "--tcp-ports");
    add(&builder, "%u-%u", config->dataplane.port_first, config->dataplane.port_last);
    if (config->user) {
        add(&builder, "--user");
        add(&builder, "%s", config->user);
    }
    for (uint32_t i = 0; i < config->dataplane.port_count; i++) {
        char *text = port_text(&config->dataplane.ports[i]);
        add(&builder, "--port");
        add(&builder, "%s", text);
        free(text);
    }
    if (config->tls.ca_file) {
        add(&builder, "--tls-ca");
        add(&builder, "%s", config->tls.ca_file);
    }
    const struct config_relay *relay;
    for (uint32_t place = 1; (relay = config_identity(config, place)); place++) {
        add(&builder, "--tls-identity");
        add(&builder, "%s:%s", relay->tls_certificate_file, relay->tls_key_file);
    }
    for (char **at = config->dataplane.eal_args; at && *at; at++) {
        add(&builder, "--eal");
        add(&builder, "%s", *at);
    }
    return builder.items;
}

void dataplane_arguments_free(char **arguments) {
    for (char **at = arguments; at && *at; at++) {
        free(*at);
    }
    free(arguments);
}
