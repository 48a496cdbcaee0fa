/* certificate.c: three calls of `openssl`, each bounded. */
#include "certificate.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORDS_MAX = 32 };

extern char **environ;

static int run(const char *const *words, char *error, size_t error_bytes) {
    posix_spawn_file_actions_t actions;
    pid_t pid = 0;
    int status = -1;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    int code = posix_spawnp(&pid, words[0], &actions, NULL, (char *const *)words, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (code != 0) {
        snprintf(error, error_bytes,
                 "`openssl` cannot be run: %s. Install it (apt install openssl), or give --tls-certificate and --tls-key.", strerror(code));
        return -code;
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (status == 0)
        return 0;
    snprintf(error, error_bytes, "`openssl %s` failed: is the directory of --tls-test-ca writable, and its ca.pem whole?", words[1]);
    return -EIO;
}

/* An openssl call: words up to NULL. */
static int call(char *error, size_t error_bytes, const char *const *first, const char *const *rest) {
    const char *words[WORDS_MAX] = {"openssl"};
    int count = 1;
    for (; *first != NULL && count < WORDS_MAX - 1; first++)
        words[count++] = *first;
    for (; *rest != NULL && count < WORDS_MAX - 1; rest++)
        words[count++] = *rest;
    return run(words, error, error_bytes);
}

static void write_names(FILE *file, const struct certificate_request *request) {
    fprintf(file,
            "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment\nextendedKeyUsage=serverAuth\n"
            "subjectAltName=DNS:%s",
            request->name);
    for (const char *at = request->more; at != NULL && *at != '\0';) {
        size_t length = strcspn(at, ",");
        if (length > 0)
            fprintf(file, ",DNS:%.*s", (int)length, at);
        at += length + (at[length] == ',');
    }
    uint32_t named[2] = {0};
    for (uint32_t i = 0; i < request->address_count; i++) {
        char text[INET6_ADDRSTRLEN];
        const struct tcp_address *address = &request->addresses[i].address;
        if (named[address->family == 6]++ < CERTIFICATE_ADDRESSES_MAX &&
            inet_ntop(address->family == 6 ? AF_INET6 : AF_INET, address->bytes, text, sizeof(text)) != NULL)
            fprintf(file, ",IP:%s", text);
    }
    fputc('\n', file);
}

static int path_make(char *path, const struct certificate_request *request, const char *name, const char *suffix) {
    int length = snprintf(path, CERTIFICATE_PATH_BYTES, "%s/%s%s", request->directory, name, suffix);
    return length < 0 || length >= CERTIFICATE_PATH_BYTES ? -ENAMETOOLONG : 0;
}

int certificate_make(const struct certificate_request *request, struct certificate_files *files, char *error, size_t error_bytes) {
    char ca_key[CERTIFICATE_PATH_BYTES], wanted[CERTIFICATE_PATH_BYTES], names[CERTIFICATE_PATH_BYTES], subject[300];
    if (mkdir(request->directory, 0755) != 0 && errno != EEXIST) {
        snprintf(error, error_bytes, "%s: %s", request->directory, strerror(errno));
        return -errno;
    }
    if (path_make(files->ca, request, "ca", ".pem") != 0 || path_make(ca_key, request, "ca", ".key") != 0 ||
        path_make(files->certificate, request, request->name, ".pem") != 0 || path_make(files->key, request, request->name, ".key") != 0 ||
        path_make(wanted, request, request->name, ".csr") != 0 || path_make(names, request, request->name, ".names") != 0) {
        snprintf(error, error_bytes, "%s: the path is too long.", request->directory);
        return -ENAMETOOLONG;
    }
    static const char *const ecdsa[] = {"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", NULL};
    static const char *const rsa[] = {"-newkey", "rsa:2048", "-nodes", NULL};
    mode_t before = umask(077); /* keys */
    int code = 0;
    if (access(files->ca, R_OK) != 0 || access(ca_key, R_OK) != 0)
        code = call(error, error_bytes,
                    (const char *const[]){"req", "-x509", "-days", "30", "-subj", "/CN=bypost-sink test CA", "-addext",
                                          "keyUsage=critical,keyCertSign,cRLSign", "-keyout", ca_key, "-out", files->ca, NULL},
                    ecdsa);
    snprintf(subject, sizeof(subject), "/CN=%.64s", request->name);
    if (code == 0)
        code = call(error, error_bytes, (const char *const[]){"req", "-subj", subject, "-keyout", files->key, "-out", wanted, NULL},
                    request->rsa ? rsa : ecdsa);
    FILE *file = code == 0 ? fopen(names, "we") : NULL;
    if (file != NULL) {
        write_names(file, request);
        fclose(file);
    }
    if (code == 0)
        code = call(error, error_bytes,
                    (const char *const[]){"x509", "-req", "-days", "30", "-in", wanted, "-CA", files->ca, "-CAkey", ca_key,
                                          "-CAcreateserial", NULL},
                    (const char *const[]){"-extfile", names, "-out", files->certificate, NULL});
    umask(before);
    if (code == 0)
        chmod(files->ca, 0644); /* others are to trust it */
    return code;
}
