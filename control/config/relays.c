/* relays.c: a relay is a host, a list of hosts, or a mapping with TLS and credentials; and the secrets, which are read from files or from
 * the environment, never from bypost.yaml itself. */
#include "relays.h"
#include "address.h"
#include "check.h"
#include "lists.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SECRET_ERROR_BYTES = 512 };

#define AT(name) offsetof(struct config_relay, name)

/* --- reading --- */

static void hosts_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config_relay *relay = record;
    relay->hosts = texts_read(reader, node, "hosts", "`[\"[192.0.2.25]:25\"]`");
    for (; relay->hosts[relay->host_count]; relay->host_count++) {
        const char *fault = relay_host_fault(relay->hosts[relay->host_count]);
        if (fault) {
            reader_error(
                reader, reader_place(reader, relay->hosts[relay->host_count]),
                "`%s` is no relay host: %s; write \"[192.0.2.25]:2525\", \"[mx.example.net]:25\" (no MX lookup) or \"mx.example.net:587\".",
                relay->hosts[relay->host_count], fault);
        }
    }
}

static void tls_read(struct reader *reader, const struct yaml_node *node, void *record) {
    static const char *const levels[] = {"none", "may", "encrypt", "verify", NULL};
    static const struct field fields[] = {{.key = "tls", .kind = FIELD_CHOICE, .offset = AT(tls), .choices = levels}, {0}};
    struct config_relay *relay = record;
    field_read_one(reader, node, fields, relay);
    relay->tls_given = true;
}

static void implicit_read(struct reader *reader, const struct yaml_node *node, void *record) {
    static const struct field fields[] = {{.key = "implicit_tls", .kind = FIELD_BOOL, .offset = AT(implicit_tls)}, {0}};
    field_read_one(reader, node, fields, record);
}

static void names_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config_relay *relay = record;
    uint32_t count = 0;
    relay->tls_names = texts_read(reader, node, "tls_names", "`[smtp.example.net]`");
    for (char **at = relay->tls_names; *at; at++, count++) {
        const struct yaml_node *place = reader_place(reader, *at);
        char *ascii = host_to_ascii(*at);
        if (!ascii) {
            reader_error(reader, place,
                         "`%s` is no host name for `tls_names`; write a name that the certificate is for, such as smtp.example.net.", *at);
            continue;
        }
        free(*at);
        *at = ascii;
    }
    if (count > RELAY_NAMES_MAX) {
        reader_error(reader, node, "`tls_names` has %u names, and at most %d are looked at; remove some.", count, RELAY_NAMES_MAX);
    }
}

static void mechanisms_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config_relay *relay = record;
    char **texts = texts_read(reader, node, "mechanisms", "`[plain, login]`");
    reader_note(reader, &relay->auth_mechanisms, node);
    for (char **at = texts; *at; at++) {
        unsigned i = 0;
        while (config_mechanism_text(i) && strcasecmp(config_mechanism_text(i), *at) != 0) {
            i++;
        }
        if (config_mechanism_text(i)) {
            relay->auth_mechanisms |= (uint8_t)(1u << i);
        } else {
            reader_error(reader, reader_place(reader, *at), "`%s` is no mechanism; write plain, login, cram-md5, xoauth2 or oauthbearer.",
                         *at);
        }
    }
    texts_free(texts);
}

static const struct field auth_fields[] = {
    {.key = "username", .kind = FIELD_TEXT, .offset = AT(auth_user)},
    {.key = "password_file", .kind = FIELD_PATH, .offset = AT(auth_password_file)},
    {.key = "password_env", .kind = FIELD_TEXT, .offset = AT(auth_password_env)},
    {.key = "token_file", .kind = FIELD_PATH, .offset = AT(auth_token_file)},
    {.key = "token_env", .kind = FIELD_TEXT, .offset = AT(auth_token_env)},
    {.key = "mechanisms", .kind = FIELD_CUSTOM, .read = mechanisms_read},
    {.key = "without_tls", .kind = FIELD_BOOL, .offset = AT(auth_without_tls)},
    {0},
};

/* What a secret of this kind can be used with. */
static uint8_t mechanisms_of(const struct config_relay *relay) {
    bool token = relay->auth_token_file || relay->auth_token_env;
    return token ? PATH_AUTH_XOAUTH2 | PATH_AUTH_OAUTHBEARER : PATH_AUTH_PLAIN | PATH_AUTH_LOGIN | PATH_AUTH_CRAM_MD5;
}

static bool has_control(const char *text) {
    for (; *text; text++) {
        if ((unsigned char)*text < 32 || *text == 127) {
            return true;
        }
    }
    return false;
}

static void auth_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config_relay *relay = record;
    if (node->kind == YAML_MAPPING && yaml_get(node, "password")) {
        reader_error(
            reader, node,
            "a password does not stand in bypost.yaml; put it into a file that only bypost can read, and write `password_file: PATH`.");
        return;
    }
    if (!reader_wants(reader, node, YAML_MAPPING, "auth", "`auth: {username: bypost, password_file: /etc/bypost/relay.password}`")) {
        return;
    }
    reader_note(reader, &relay->auth_user, node);
    section_read(reader, node, "auth", auth_fields, relay, NULL);
    int secrets = (relay->auth_password_file != NULL) + (relay->auth_password_env != NULL) + (relay->auth_token_file != NULL) +
                  (relay->auth_token_env != NULL);
    if (!relay->auth_user) {
        reader_error(reader, node, "`auth` has no `username`; add the name of the account at the relay.");
    } else if (strlen(relay->auth_user) > PATH_TEXT_MAX || has_control(relay->auth_user)) {
        reader_error(reader, reader_place(reader, &relay->auth_user),
                     "the `username` has more than %d bytes or a control character; write the account's name as the relay knows it.",
                     PATH_TEXT_MAX);
    }
    if (secrets != 1) {
        reader_error(reader, node, "`auth` has %s; write exactly one of `password_file`, `password_env`, `token_file` and `token_env`.",
                     secrets ? "more than one secret" : "no secret");
        return;
    }
    if (relay->auth_mechanisms & ~mechanisms_of(relay)) {
        bool token = relay->auth_token_file || relay->auth_token_env;
        reader_error(reader, reader_place(reader, &relay->auth_mechanisms),
                     token ? "a token serves xoauth2 and oauthbearer only; remove the other mechanisms, or give a `password_file`."
                           : "a password serves plain, login and cram-md5 only; remove the other mechanisms, or give a `token_file`.");
    }
    if (relay->auth_mechanisms == 0) {
        relay->auth_mechanisms = mechanisms_of(relay);
    }
}

static const struct field relay_fields[] = {
    {.key = "hosts", .kind = FIELD_CUSTOM, .read = hosts_read},
    {.key = "tls", .kind = FIELD_CUSTOM, .read = tls_read},
    {.key = "implicit_tls", .kind = FIELD_CUSTOM, .read = implicit_read},
    {.key = "tls_names", .kind = FIELD_CUSTOM, .read = names_read},
    {.key = "tls_certificate_file", .kind = FIELD_PATH, .offset = AT(tls_certificate_file)},
    {.key = "tls_key_file", .kind = FIELD_PATH, .offset = AT(tls_key_file)},
    {.key = "auth", .kind = FIELD_CUSTOM, .read = auth_read},
    {0},
};

/* RFC 8314 3.3: port 465 begins with TLS. All hosts of a relay are alike, because they share a path. */
static void implicit_complete(struct reader *reader, const struct yaml_node *key, struct config_relay *relay) {
    uint32_t implicit = 0;
    for (uint32_t i = 0; i < relay->host_count; i++) {
        char host[256];
        bool bracketed;
        unsigned long port = RELAY_DEFAULT_PORT;
        implicit += host_split(relay->hosts[i], host, sizeof host, &bracketed, &port) && port == RELAY_SUBMISSIONS_PORT;
    }
    if (!reader_given(reader, &relay->implicit_tls)) {
        relay->implicit_tls = implicit > 0;
        if (implicit > 0 && implicit < relay->host_count) {
            reader_error(
                reader, key,
                "the relay for `%s` has hosts with port 465, where TLS begins at once, beside others that use STARTTLS; give all the "
                "same kind of port, or say `implicit_tls: true` or `false` for all.",
                key->text);
        }
    }
    if (relay->implicit_tls && relay->tls_given && relay->tls == PATH_TLS_NONE) {
        reader_error(reader, key,
                     "the relay for `%s` has `tls: none`, but its port begins with TLS; write `tls: verify` or `encrypt`, or "
                     "`implicit_tls: false`.",
                     key->text);
    }
}

/* The place of its certificate among those of all relays: each pair of files once. */
static void identity_complete(struct reader *reader, const struct yaml_node *key, struct config *config, struct config_relay *relay) {
    uint32_t highest = 0;
    if (!relay->tls_certificate_file || !relay->tls_key_file) {
        if (relay->tls_certificate_file || relay->tls_key_file) {
            reader_error(reader, key, "the relay for `%s` has a `%s` without its `%s`; add it, or remove both.", key->text,
                         relay->tls_key_file ? "tls_key_file" : "tls_certificate_file",
                         relay->tls_key_file ? "tls_certificate_file" : "tls_key_file");
        }
        return;
    }
    if (strchr(relay->tls_certificate_file, ':')) {
        reader_error(reader, key,
                     "the path %s has a colon, which stands between certificate and key on the dataplane's command line; move it.",
                     relay->tls_certificate_file);
    }
    for (uint32_t i = 0; i < config->relay_count; i++) {
        const struct config_relay *other = &config->relays[i];
        highest = other->tls_identity > highest ? other->tls_identity : highest;
        if (other != relay && other->tls_identity && strcmp(other->tls_certificate_file, relay->tls_certificate_file) == 0 &&
            strcmp(other->tls_key_file, relay->tls_key_file) == 0) {
            relay->tls_identity = other->tls_identity;
            return;
        }
    }
    if (highest == RELAY_IDENTITIES_MAX) {
        reader_error(reader, key, "relays have more than %d client certificates; let some of them share one.", RELAY_IDENTITIES_MAX);
        return;
    }
    relay->tls_identity = highest + 1;
}

static void relay_read(struct reader *reader, const struct yaml_node *key, const struct yaml_node *node, struct config *config,
                       struct config_relay *relay) {
    if (node->kind == YAML_MAPPING) {
        section_read(reader, node, "a relay", relay_fields, relay, NULL);
    } else {
        hosts_read(reader, node, relay);
    }
    relay->domain = strcmp(key->text, "*") == 0 ? strdup("*") : host_to_ascii(key->text);
    if (!relay->domain) {
        reader_error(reader, key, "`%s` is no domain; write the recipients' domain such as `example.com`, or `\"*\"` for all.", key->text);
        relay->domain = strdup(key->text);
    }
    if (relay->host_count == 0 && node->kind != YAML_SCALAR) {
        reader_error(reader, key, "the relay for `%s` has no host; write one such as \"[192.0.2.25]:25\", or remove it.", key->text);
    }
    implicit_complete(reader, key, relay);
    reader_note(reader, relay, key);
    identity_complete(reader, key, config, relay);
}

void relays_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config *config = record;
    if (node->kind == YAML_NULL || (node->kind == YAML_MAPPING && node->count == 0)) {
        return;
    }
    if (!reader_wants(reader, node, YAML_MAPPING, "relays", "`example.test: \"[192.0.2.25]:25\"`")) {
        return;
    }
    config->relays = calloc(node->count, sizeof *config->relays);
    for (uint32_t i = 0; i < node->count; i++) {
        struct config_relay *relay = &config->relays[config->relay_count++];
        relay_read(reader, &node->keys[i], &node->items[i], config, relay);
        for (uint32_t j = 0; j < i; j++) {
            if (strcmp(config->relays[j].domain, relay->domain) == 0) {
                reader_error(reader, &node->keys[i],
                             "the relay for `%s` stands twice in relays (first at line %u); write one list of hosts.", relay->domain,
                             node->keys[j].line);
            }
        }
    }
}

/* --- secrets --- */

static void secret_wipe(char *secret) {
    if (secret) {
        explicit_bzero(secret, strlen(secret));
        free(secret);
    }
}

/* `length` bytes as a secret, malloc'd; or NULL with what is wrong with them. One line's end is no part of it. */
static char *secret_of(const char *bytes, size_t length, const char **fault) {
    length -= length > 0 && bytes[length - 1] == '\n';
    length -= length > 0 && bytes[length - 1] == '\r';
    *fault = length == 0                           ? "is empty"
             : length > PATH_SECRET_MAX            ? "is longer than 3072 bytes"
             : memchr(bytes, '\0', length) != NULL ? "holds a NUL byte"
                                                   : NULL;
    for (size_t i = 0; i < length && !*fault; i++) {
        if ((unsigned char)bytes[i] < 32 || bytes[i] == 127) {
            *fault = "holds a line break or another control character";
        }
    }
    char *secret = *fault ? NULL : strndup(bytes, length);
    return secret;
}
static_assert(PATH_SECRET_MAX == 3072, "the sentence above");

static char *secret_file(const char *path, struct timespec *changed, const char **fault) {
    char bytes[PATH_SECRET_MAX + 8];
    struct stat status;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    ssize_t length = descriptor < 0 || fstat(descriptor, &status) != 0 ? -1
                     : !S_ISREG(status.st_mode)                        ? -2
                                                                       : read(descriptor, bytes, sizeof bytes);
    *fault = length == -2 ? "is no regular file" : length < 0 ? strerror(errno) : NULL;
    char *secret = length < 0 ? NULL : secret_of(bytes, (size_t)length, fault);
    if (descriptor >= 0) {
        close(descriptor);
    }
    explicit_bzero(bytes, sizeof bytes);
    if (length >= 0) {
        *changed = status.st_mtim;
    }
    return secret;
}

static const char *secret_path(const struct config_relay *relay) {
    return relay->auth_password_file ? relay->auth_password_file : relay->auth_token_file;
}

uint32_t config_tokens_read(struct config *config, void (*failed)(void *context, const char *sentence), void *context) {
    uint32_t changed = 0;
    for (uint32_t i = 0; i < config->relay_count; i++) {
        struct config_relay *relay = &config->relays[i];
        struct stat status;
        struct timespec time;
        const char *fault;
        if (!relay->auth_token_file || !relay->auth_secret || stat(relay->auth_token_file, &status) != 0 ||
            (status.st_mtim.tv_sec == relay->auth_changed.tv_sec && status.st_mtim.tv_nsec == relay->auth_changed.tv_nsec)) {
            continue;
        }
        char *secret = secret_file(relay->auth_token_file, &time, &fault);
        relay->auth_changed = status.st_mtim; /* a bad one is told of once */
        if (!secret) {
            char sentence[SECRET_ERROR_BYTES];
            snprintf(sentence, sizeof sentence, "the token file %s of the relay for %s %s: the token before goes on being used.",
                     relay->auth_token_file, relay->domain, fault);
            failed(context, sentence);
            continue;
        }
        changed += strcmp(secret, relay->auth_secret) != 0;
        relay->auth_version += strcmp(secret, relay->auth_secret) != 0;
        secret_wipe(relay->auth_secret);
        relay->auth_secret = secret;
    }
    return changed;
}

void config_forget_secrets(struct config *config) {
    for (uint32_t i = 0; i < config->relay_count; i++) {
        secret_wipe(config->relays[i].auth_secret);
        config->relays[i].auth_secret = NULL;
    }
}

static void secret_read(struct reader *reader, const struct config *config, struct config_relay *relay) {
    bool token = relay->auth_token_file || relay->auth_token_env;
    const char *what = token ? "token" : "password", *path = secret_path(relay), *fault = NULL;
    const char *variable = relay->auth_password_env ? relay->auth_password_env : relay->auth_token_env;
    const struct yaml_node *place = reader_place(reader, &relay->auth_user);
    if (path) {
        char of_file[64];
        snprintf(of_file, sizeof of_file, "the %s file", what);
        check_secret(reader, config, place, of_file, path, "correct the path, or let this user read it");
        struct stat status;
        if (stat(path, &status) != 0 || !S_ISREG(status.st_mode) || access(path, R_OK) != 0) {
            return; /* told */
        }
        relay->auth_secret = secret_file(path, &relay->auth_changed, &fault);
        if (fault) {
            reader_error(reader, place, "the %s file %s %s; write the %s alone into it, as one line.", what, path, fault, what);
        }
    } else if (variable) {
        const char *value = getenv(variable);
        relay->auth_secret = value ? secret_of(value, strlen(value), &fault) : NULL;
        if (!value) {
            reader_error(
                reader, place,
                "the environment variable `%s` is not set; set it where bypost is started (systemd: LoadCredential and %s_file, or "
                "EnvironmentFile=).",
                variable, what);
        } else if (fault) {
            reader_error(reader, place, "the environment variable `%s` %s; put the %s alone into it.", variable, fault, what);
        }
    }
}

/* --- checks --- */

static void check_auth(struct reader *reader, const struct config_relay *relay) {
    const struct yaml_node *place = reader_place(reader, &relay->auth_user);
    enum path_tls level = config_tls(&(struct shaping_limits){0}, relay);
    if (level < PATH_TLS_ENCRYPT && !relay->auth_without_tls) {
        reader_error(reader, place,
                     "the relay for `%s` would get the credentials without TLS (`tls: %s`); write `tls: verify`, or `without_tls: true` in "
                     "`auth` if its network is your own.",
                     relay->domain, level == PATH_TLS_NONE ? "none" : "may");
    } else if (level < PATH_TLS_ENCRYPT) {
        reader_warn(
            reader, place,
            "the credentials for the relay of `%s` may go over the network in plain (`without_tls: true`); write `tls: verify` unless "
            "its network is your own.",
            relay->domain);
    } else if (relay->auth_without_tls) {
        reader_warn(
            reader, place,
            "`without_tls: true` of the relay for `%s` changes nothing, because TLS is required there; remove it, or write `tls: may`.",
            relay->domain);
    } else if (level == PATH_TLS_ENCRYPT) {
        reader_warn(
            reader, place,
            "the relay for `%s` gets the credentials over TLS with any certificate (`tls: encrypt`), so that whoever stands between can "
            "read them; write `tls: verify`.",
            relay->domain);
    }
}

/* Verification needs names that a certificate can be for. */
static void check_names(struct reader *reader, const struct config_relay *relay) {
    for (uint32_t i = 0; i < relay->host_count; i++) {
        char host[256];
        bool bracketed = false;
        unsigned long port = RELAY_DEFAULT_PORT;
        struct config_address address;
        if (!host_split(relay->hosts[i], host, sizeof host, &bracketed, &port)) {
            continue;
        }
        const char *literal = strncasecmp(host, "IPv6:", 5) == 0 ? host + 5 : host;
        if (address_parse(literal, &address) && !(relay->tls_names && *relay->tls_names)) {
            reader_warn(reader, reader_place(reader, relay->hosts[i]),
                        "the certificate of `%s` can hardly be for an address; write the host's name in brackets, or add `tls_names: "
                        "[smtp.example.net]`.",
                        relay->hosts[i]);
        } else if (!bracketed && relay->auth_user) {
            reader_warn(reader, reader_place(reader, relay->hosts[i]),
                        "`%s` without brackets is looked up by MX, so that whoever forges DNS chooses who gets the credentials; write "
                        "\"[%s]:%lu\".",
                        relay->hosts[i], host, port);
        }
    }
}

void relays_check(struct reader *reader, struct config *config) {
    for (uint32_t i = 0; i < config->relay_count; i++) {
        struct config_relay *relay = &config->relays[i];
        const struct yaml_node *place = reader_place(reader, relay);
        if (relay->auth_user) {
            secret_read(reader, config, relay);
            check_auth(reader, relay);
        }
        if (config_tls(&config->defaults, relay) >= PATH_TLS_VERIFY) {
            check_names(reader, relay);
        }
        if (relay->tls_identity) {
            check_readable(reader, place, "the certificate", relay->tls_certificate_file, "correct `tls_certificate_file`");
            check_secret(reader, config, place, "the certificate's key", relay->tls_key_file, "correct `tls_key_file`");
        }
    }
}

void relays_free(struct config *config) {
    for (uint32_t i = 0; i < config->relay_count; i++) {
        struct config_relay *relay = &config->relays[i];
        free(relay->domain);
        texts_free(relay->hosts);
        texts_free(relay->tls_names);
        section_free(relay_fields, relay);
        section_free(auth_fields, relay);
        secret_wipe(relay->auth_secret);
    }
    free(config->relays);
}
