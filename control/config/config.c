/* config.c: loads bypost.yaml and shaping.yaml, and answers what other rooms ask of a configuration. */
#include "config.h"
#include "check.h"
#include "faults.h"
#include "sections.h"
#include "shaping.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* Without `shaping:` in the file: the one beside it, if there is one. */
static void shaping_path_find(const struct reader *reader, struct config *config) {
    const char *slash = strrchr(reader->file, '/');
    if (config->shaping_path) {
        return;
    }
    if (asprintf(&config->shaping_path, "%.*sshaping.yaml", slash ? (int)(slash - reader->file) + 1 : 0, reader->file) < 0) {
        abort();
    }
    if (access(config->shaping_path, F_OK) != 0) {
        free(config->shaping_path);
        config->shaping_path = NULL;
    }
}

static void shaping_load(struct reader *reader, struct config *config, struct yaml_node *tree) {
    const char *main_file = reader->file;
    const struct yaml_node *main_root = reader->root;
    shaping_path_find(reader, config);
    if (!config->shaping_path || !yaml_read(config->shaping_path, tree, reader->errors)) {
        return;
    }
    reader->file = config->shaping_path;
    reader->root = tree;
    shaping_read(reader, tree, config);
    reader->file = main_file;
    reader->root = main_root;
}

struct config *config_shipped(void) {
    struct config *config = calloc(1, sizeof *config);
    if (config) {
        sections_defaults(config);
        shaping_defaults(&config->defaults);
    }
    return config;
}

static struct config *load(const char *path, bool check, struct config_errors *errors) {
    struct yaml_node root, shaping = {0};
    struct config *config = config_shipped();
    *errors = (struct config_errors){0};
    if (!config) {
        return NULL;
    }
    config->path = strdup(path);
    if (yaml_read(config->path, &root, errors)) {
        struct reader reader = {.errors = errors, .file = config->path, .root = &root};
        sections_read(&reader, &root, config);
        sections_complete(config);
        shaping_load(&reader, config, &shaping);
        if (check) {
            check_config(&reader, config);
        }
        reader_free(&reader);
    }
    shaping_merge(config);
    yaml_free(&root);
    yaml_free(&shaping);
    faults_sort(errors);
    if (faults_fatal(errors) > 0) {
        config_free(config);
        return NULL;
    }
    return config;
}

struct config *config_load(const char *path, struct config_errors *errors) {
    return load(path, true, errors);
}

struct config *config_read(const char *path, struct config_errors *errors) {
    return load(path, false, errors);
}

void config_free(struct config *config) {
    if (!config) {
        return;
    }
    sections_free(config);
    shaping_free(config);
    free(config->path);
    free(config);
}

bool config_relay_has_settings(const struct config_relay *relay) {
    return relay->tls_given || relay->implicit_tls || relay->tls_names || relay->tls_identity || relay->auth_user;
}

enum path_tls config_tls(const struct shaping_limits *limits, const struct config_relay *relay) {
    enum path_tls level = limits->tls;
    if (relay && (relay->tls_given || relay->auth_user))
        level = relay->tls_given ? relay->tls : PATH_TLS_VERIFY;
    return relay && relay->implicit_tls && level < PATH_TLS_ENCRYPT ? PATH_TLS_ENCRYPT : level;
}

const char *config_tls_text(enum path_tls level) {
    static const char *const texts[PATH_TLS_LEVELS] = {"none", "may", "encrypt", "verify", "dane"};
    return (unsigned)level < PATH_TLS_LEVELS ? texts[level] : "?";
}

const char *config_mechanism_text(unsigned bit) {
    static const char *const texts[] = {"plain", "login", "cram-md5", "xoauth2", "oauthbearer"};
    return bit < sizeof texts / sizeof *texts ? texts[bit] : NULL;
}

const struct config_relay *config_identity(const struct config *config, uint32_t place) {
    for (uint32_t i = 0; i < config->relay_count; i++) {
        if (config->relays[i].tls_identity == place) {
            return &config->relays[i];
        }
    }
    return NULL;
}

static int verp_tenant_compare(const void *name, const void *tenant) {
    return strcmp(name, ((const struct config_verp_tenant *)tenant)->name);
}

struct config_verp_sender config_verp(const struct config *config, const char *tenant) {
    const struct config_verp_tenant *own = NULL;
    if (tenant && config->verp.tenant_count > 0) {
        own = bsearch(tenant, config->verp.tenants, config->verp.tenant_count, sizeof *own, verp_tenant_compare);
    }
    return (struct config_verp_sender){.prefix = own && own->prefix ? own->prefix : config->verp.prefix,
                                       .domain = own && own->domain ? own->domain : config->verp.domain};
}

const struct config_pool *config_pool_named(const struct config *config, const char *name) {
    for (uint32_t i = 0; i < config->pool_count; i++) {
        if (config->pools[i].name && strcmp(config->pools[i].name, name) == 0) {
            return &config->pools[i];
        }
    }
    return NULL;
}

const struct config_queue *config_queue_named(const struct config *config, const char *name) {
    for (uint32_t i = 0; i < config->queue_count; i++) {
        if (strcmp(config->queues[i].name, name) == 0) {
            return &config->queues[i];
        }
    }
    for (uint32_t i = 0; i < config->queue_count; i++) {
        if (fnmatch(config->queues[i].name, name, 0) == 0) {
            return &config->queues[i]; /* the last is "*" */
        }
    }
    return NULL;
}
