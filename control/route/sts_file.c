/* sts_file.c: state_directory/mta-sts: a restart must not lose a policy that is enforced (RFC 8461 5.1, 10.2). */
#include "sts_state.h"

#include "control/observe/log.h"
#include "domain.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_TEXT_BYTES = 4096, LINES_SPARE = 10000 };

static void file_path(const struct sts *sts, const char *suffix, char path[PATH_TEXT_BYTES]) {
    snprintf(path, PATH_TEXT_BYTES, "%s/mta-sts%s", sts->config.state_directory, suffix);
}

static bool number(char **save, uint64_t max, uint64_t *value) {
    char *end, *word = strtok_r(NULL, " \n", save);
    if (!word || *word < '0' || *word > '9')
        return false;
    errno = 0;
    *value = strtoull(word, &end, 10);
    return errno == 0 && *end == '\0' && *value <= max;
}

int sts_file_read_line(struct sts *sts, char *line) {
    char domain[DOMAIN_BYTES], *save, *word = strtok_r(line, " \n", &save), *id = word ? strtok_r(NULL, " \n", &save) : NULL;
    uint64_t fetched_s, max_age_s;
    enum sts_mode mode;
    if (!id || domain_ascii(word, domain) != 0 || strlen(id) > STS_ID_MAX || !number(&save, UINT32_MAX, &fetched_s) ||
        !number(&save, STS_AGE_MAX_S, &max_age_s))
        return -EINVAL;
    word = strtok_r(NULL, " \n", &save);
    if (!word || sts_mode_read(word, &mode) != 0)
        return -EINVAL;
    uint64_t now_s = route_wall_s();
    struct sts_policy *policy = calloc(1, sizeof *policy);
    if (!policy)
        return -EINVAL;
    policy->mode = mode;
    policy->max_age_s = (uint32_t)max_age_s;
    while ((word = strtok_r(NULL, " \n", &save))) {
        struct sts_policy *more = sts_policy_add(policy, word, strlen(word));
        if (!more) {
            free(policy);
            return -EINVAL;
        }
        policy = more;
    }
    struct sts_entry *entry = mode == STS_NONE || policy->mx_count > 0 ? sts_entry_make(sts, domain) : NULL;
    if (!entry) {
        free(policy);
        return -EINVAL;
    }
    free(entry->policy);
    entry->policy = policy;
    entry->fetched_s = fetched_s < now_s ? fetched_s : now_s; /* never longer than from now */
    snprintf(entry->id, sizeof entry->id, "%s", id);
    return 0;
}

static void line_write(FILE *out, const struct sts_entry *entry) {
    fprintf(out, "%s %s %llu %u %s", entry->domain, entry->id, (unsigned long long)entry->fetched_s, entry->policy->max_age_s,
            sts_mode_text(entry->policy->mode));
    for (const char *mx = sts_policy_next(entry->policy, NULL); mx; mx = sts_policy_next(entry->policy, mx))
        fprintf(out, " %s", mx);
    fputc('\n', out);
}

struct writing {
    FILE *out;
    uint32_t lines;
};

static void write_live(void *context, struct table_node *node) {
    struct writing *writing = context;
    const struct sts_entry *entry = TABLE_ENTRY(node, struct sts_entry, node);
    if (!entry->policy || route_wall_s() >= entry->fetched_s + entry->policy->max_age_s)
        return;
    line_write(writing->out, entry);
    writing->lines++;
}

/* Whole, or not at all. */
static void file_rewrite(struct sts *sts) {
    char path[PATH_TEXT_BYTES], fresh[PATH_TEXT_BYTES];
    file_path(sts, "", path);
    file_path(sts, ".new", fresh);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    struct writing writing = {.out = fd < 0 ? NULL : fdopen(fd, "w")};
    if (!writing.out) {
        log_write(LOG_LEVEL_WARNING, "route", "%s cannot be written (%s): MTA-STS policies are forgotten at the next start", fresh,
                  strerror(errno));
        if (fd >= 0)
            close(fd);
        return;
    }
    table_each(&sts->domains, write_live, &writing);
    bool good = fflush(writing.out) == 0 && fsync(fd) == 0;
    good = fclose(writing.out) == 0 && good && rename(fresh, path) == 0;
    if (!good) {
        log_write(LOG_LEVEL_WARNING, "route", "%s cannot be written (%s): MTA-STS policies are forgotten at the next start", path,
                  strerror(errno));
        return;
    }
    sts_file_close(sts);
    sts->file_lines = writing.lines;
    sts->file = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
}

void sts_file_load(struct sts *sts) {
    char path[PATH_TEXT_BYTES], *line = NULL;
    size_t line_bytes = 0;
    uint32_t bad = 0;
    if (!sts->config.state_directory)
        return;
    file_path(sts, "", path);
    FILE *in = fopen(path, "re");
    while (in && getline(&line, &line_bytes, in) > 0)
        if (sts_file_read_line(sts, line) != 0)
            bad++;
    free(line);
    if (in)
        fclose(in);
    if (bad > 0)
        log_write(LOG_LEVEL_WARNING, "route", "%s: %u lines cannot be read and are left out", path, bad);
}

void sts_keep(struct sts *sts) {
    if (sts->config.state_directory)
        file_rewrite(sts);
}

void sts_file_append(struct sts *sts, const struct sts_entry *entry) {
    char *text = NULL;
    size_t bytes = 0;
    if (sts->file < 0)
        return;
    if (sts->file_lines > 2 * sts->domains.count + LINES_SPARE) {
        file_rewrite(sts); /* with this one */
        return;
    }
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return;
    line_write(out, entry);
    /* One write of one line: a line that a crash cut is left out at the next start. */
    if (fclose(out) != 0 || write(sts->file, text, bytes) != (ssize_t)bytes)
        log_write(LOG_LEVEL_WARNING, "route", "the MTA-STS policy of %s cannot be kept: %s", entry->domain, strerror(errno));
    sts->file_lines++;
    free(text);
}

void sts_file_close(struct sts *sts) {
    if (sts->file >= 0)
        close(sts->file);
    sts->file = -1;
}
