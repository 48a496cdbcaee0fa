/* cli.c: what the commands share. */
#include "cli.h"

#include "control/observe/local.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Bytes of the UTF-8 character at `text` (RFC 3629 section 4, but for surrogates and what is overlong by a bit), or 0. */
static size_t character_length(const unsigned char *text) {
    size_t length = *text < 0x80                    ? 1
                    : *text >= 0xc2 && *text < 0xe0 ? 2
                    : *text >= 0xe0 && *text < 0xf0 ? 3
                    : *text >= 0xf0 && *text < 0xf5 ? 4
                                                    : 0;
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80) {
            return 0; /* also the text's NUL */
        }
    }
    return length;
}

void cli_clean(char *text) {
    unsigned char *to = (unsigned char *)text;
    for (const unsigned char *at = to; *at;) {
        size_t length = character_length(at);
        bool bad = length == 0 || (*at < 0x20 && *at != '\n') || *at == 0x7f || (*at == 0xc2 && at[1] < 0xa0); /* C0, DEL, C1 */
        if (bad) {
            *to++ = '?';
            at += length ? length : 1;
        }
        for (size_t i = 0; !bad && i < length; i++) {
            *to++ = *at++;
        }
    }
    *to = 0;
}

static size_t newlines(const char *text) {
    size_t count = 0;
    for (; *text; text++) {
        count += *text == '\n';
    }
    return count;
}

static void print(FILE *out, bool flat, const char *format, va_list arguments) {
    char *text = NULL;
    if (vasprintf(&text, format, arguments) < 0) {
        return;
    }
    cli_clean(text);
    if (flat && newlines(text) > newlines(format)) { /* an argument brought some: no line of its own */
        char *end = text + strlen(text) - (*format && format[strlen(format) - 1] == '\n');
        for (char *at = text + strspn(format, "\n"); at < end; at++) {
            *at = *at == '\n' ? ' ' : *at;
        }
    }
    fputs(text, out);
    free(text);
}

void cli_print(FILE *out, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print(out, true, format, arguments);
    va_end(arguments);
}

int cli_complain(int code, const char *command, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "bypost %s: ", command);
    print(stderr, false, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    return code;
}

int cli_usage(const char *command) {
    return cli_complain(CLI_USAGE, command, "`bypost %s --help` shows the options.", command);
}

bool cli_number(const char *command, const char *option, const char *text, unsigned long min, unsigned long max, unsigned long *number) {
    char *end;
    errno = 0;
    *number = strtoul(text, &end, 10);
    if (errno || end == text || *end || *text == '-' || *number < min || *number > max) {
        cli_complain(CLI_USAGE, command, "--%s '%s': give a whole number from %lu to %lu.", option, text, min, max);
        return false;
    }
    return true;
}

const char *cli_config_path(const char *given) {
    const char *environment = getenv("BYPOST_CONFIG");
    return given ? given : environment && *environment ? environment : "/etc/bypost/bypost.yaml";
}

struct config *cli_config_load(const char *given) {
    struct config_errors errors;
    struct config *config = config_load(cli_config_path(given), &errors);
    config_errors_print(&errors, stderr);
    config_errors_free(&errors);
    return config;
}

struct config *cli_config_client(const char *command, const char *given, const char *redis, int *code) {
    struct config_errors errors = {0};
    const char *path = cli_config_path(given);
    struct config *config;
    if (redis && !given && access(path, R_OK) != 0) {
        config = config_shipped();
    } else {
        config = config_read(path, &errors);
        config_errors_print(&errors, stderr);
        config_errors_free(&errors);
    }
    *code = config ? CLI_OK : CLI_CONFIG;
    if (config && redis) {
        free(config->redis.address);
        config->redis.address = strdup(redis);
    }
    if (!config && !given && access(path, F_OK) != 0) {
        cli_complain(CLI_CONFIG, command,
                     "name a configuration with --config FILE, or, where the command takes it, Redis alone with --redis HOST:PORT.");
    }
    return config;
}

json_t *cli_control(const char *run_directory, const char *request, uint32_t timeout_ms, char *error) {
    char *path = NULL;
    if (asprintf(&path, "%s/control.sock", run_directory) < 0) {
        abort();
    }
    char *answer = local_request(path, request, timeout_ms, error, CLI_ERROR_BYTES);
    json_t *json = answer ? json_loads(answer, 0, NULL) : NULL;
    if (answer && !json) {
        snprintf(error, CLI_ERROR_BYTES, "control's answer makes no sense; is it of another version?");
    }
    free(answer);
    free(path);
    return json;
}

void cli_pool_tell(const char *command, const struct config *config, const char *pool) {
    if (pool && config->pool_count > 0 && !config_pool_named(config, pool)) {
        cli_print(stderr, "bypost %s: there is no pool '%s' in the configuration here: the mail waits where no sender has one.\n", command,
                  pool);
    }
}

char *cli_read_file(const char *command, const char *path, size_t max_bytes, size_t *length) {
    bool is_stdin = strcmp(path, "-") == 0;
    FILE *stream = is_stdin ? stdin : fopen(path, "re");
    size_t room = 65536, used = 0;
    char *bytes = stream ? malloc(room) : NULL;
    struct stat status;
    if (!stream || !bytes || (fstat(fileno(stream), &status) == 0 && S_ISDIR(status.st_mode))) {
        cli_complain(CLI_NO_INPUT, command, "%s cannot be read: %s.", path, stream ? strerror(bytes ? EISDIR : ENOMEM) : strerror(errno));
        free(bytes);
        bytes = NULL;
    }
    while (bytes) {
        used += fread(bytes + used, 1, room - used - 1, stream);
        if (used + 1 < room) {
            break; /* the end, or an error */
        }
        char *larger = used < max_bytes ? realloc(bytes, room *= 2) : NULL;
        if (!larger) {
            cli_complain(CLI_DATA, command, "%s is larger than %zu bytes.", path, max_bytes);
            free(bytes);
        }
        bytes = larger;
    }
    if (bytes && ferror(stream)) {
        cli_complain(CLI_NO_INPUT, command, "%s cannot be read: %s.", path, strerror(errno));
        free(bytes);
        bytes = NULL;
    }
    if (bytes) {
        bytes[used] = 0;
        *length = used;
    }
    if (stream && !is_stdin) {
        fclose(stream);
    }
    return bytes;
}
