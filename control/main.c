/* main.c: bypost-control: reads the configuration, takes the journal's lock, and runs the shards. */
#include "control/config/config.h"
#include "control/observe/local.h"
#include "control/observe/log.h"
#include "control/observe/service.h"
#include "control/shard/shard.h"

#include <bypost/notify.h>
#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <event2/thread.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    ERROR_BYTES = 512,
    PRESS_CAPACITY = 8192,
    IDENTITY_BYTES = 32,
    TOKEN_INTERVAL_S = 10,
    EXIT_BUSY = 75,
    EXIT_CONFIGURATION = 78,
    EXIT_USAGE = 64,
};

struct control {
    struct config *config, *old_config; /* old: the first, once another was loaded; freed at the end */
    struct classifier *classifier, *old_classifier;
    struct journal journal;
    struct identity *identity;
    struct dkim_keys *keys;
    struct press *press;
    struct alarms *alarms;
    struct shard *shard;
    struct local_server *local;
    struct metrics_server *metrics; /* or NULL */
    struct service *service;
    char error[ERROR_BYTES];
};

static const char reload_kind[] = "reload_refused";

static void warn(void *context, const char *sentence) {
    log_write(LOG_LEVEL_WARNING, "sign", "%s", sentence);
}

/* Does a folder hold nothing but what bypost puts there? Only then may it be given to the user: "/run" itself never is. */
static bool is_ours(const char *folder) {
    static const char *const names[] = {".",        "..",          "journal",         "control.sock", "dataplane.sock", "identity.key",
                                        "delivery", "guard.state", "guard.state.new", "mta-sts",      "mta-sts.new"};
    DIR *directory = opendir(folder);
    bool ours = directory != NULL;
    for (struct dirent *entry; ours && (entry = readdir(directory)) != NULL;) {
        ours = false;
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
            ours |= strcmp(entry->d_name, names[i]) == 0 || (i == 6 && strncmp(entry->d_name, names[i], strlen(names[i])) == 0);
    }
    if (directory != NULL)
        closedir(directory);
    return ours;
}

static void give(const char *path, const struct passwd *user) {
    if (chown(path, user->pw_uid, user->pw_gid) != 0 && errno != ENOENT)
        log_write(LOG_LEVEL_WARNING, "control", "%s cannot be given to %s: %s", path, user->pw_name, strerror(errno));
}

/* Makes a folder that is missing, and gives it with its files to the user that this process becomes. */
static void prepare_folder(const struct config *config, const char *folder, mode_t mode, const char *const *files, size_t count) {
    const struct passwd *user = config->user != NULL && geteuid() == 0 ? getpwnam(config->user) : NULL;
    bool made = mkdir(folder, mode) == 0;
    if (user == NULL || (!made && !is_ours(folder)))
        return;
    give(folder, user);
    for (size_t i = 0; i < count; i++)
        give(files[i], user);
}

/* The key of Message-IDs and VERP tokens: made once, kept for good, so that a repeat is recognisable after any restart. */
static int ensure_identity_key(const char *path, char *error) {
    unsigned char key[IDENTITY_BYTES];
    struct stat status;
    /* One that a power cut left half written was never used: identity_load takes none so short. */
    if (lstat(path, &status) == 0 && S_ISREG(status.st_mode) && status.st_size < IDENTITY_BYTES)
        unlink(path);
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0)
        return errno == EEXIST ? 0 : (snprintf(error, ERROR_BYTES, "%s cannot be made: %s.", path, strerror(errno)), -errno);
    bool written =
        getrandom(key, sizeof(key), 0) == (ssize_t)sizeof(key) && write(file, key, sizeof(key)) == (ssize_t)sizeof(key) && fsync(file) == 0;
    close(file);
    if (written)
        return 0;
    unlink(path);
    snprintf(error, ERROR_BYTES, "%s cannot be written.", path);
    return -EIO;
}

static int load_identity(struct control *control) {
    const struct config *config = control->config;
    char path[4096];
    if (config->identity_key_file != NULL)
        snprintf(path, sizeof(path), "%s", config->identity_key_file);
    else
        snprintf(path, sizeof(path), "%s/identity.key", config->state_directory);
    if (config->identity_key_file == NULL) {
        int code = ensure_identity_key(path, control->error);
        if (code != 0)
            return code;
        const struct passwd *user = config->user != NULL && geteuid() == 0 ? getpwnam(config->user) : NULL;
        if (user != NULL)
            give(path, user);
    }
    control->identity = identity_load(path);
    if (control->identity != NULL)
        return 0;
    snprintf(control->error, ERROR_BYTES, "the identity key %s cannot be read: %s. It needs at least %d bytes.", path, strerror(errno),
             IDENTITY_BYTES);
    return -errno;
}

static struct classifier *load_rules(const struct config *config, char *error) {
    return classifier_load(config->class_rules_path != NULL ? config->class_rules_path : classifier_default_path(), error, ERROR_BYTES);
}

static int drop_privileges(struct control *control) {
    const char *user = control->config->user;
    if (user == NULL || geteuid() != 0)
        return 0;
    const struct passwd *entry = getpwnam(user);
    const pid_t parent = getppid();
    int death_signal = 0;
    prctl(PR_GET_PDEATHSIG, &death_signal);
    if (entry == NULL || setgroups(0, NULL) != 0 || setgid(entry->pw_gid) != 0 || setuid(entry->pw_uid) != 0) {
        snprintf(control->error, ERROR_BYTES, "cannot become user '%s': create it, or change `user:` in bypost.yaml.", user);
        return -EPERM;
    }
    /* The kernel forgets it with the user: this process would outlive `bypost run`. */
    if (death_signal != 0 && (prctl(PR_SET_PDEATHSIG, death_signal) != 0 || getppid() != parent)) {
        snprintf(control->error, ERROR_BYTES, "the process that started this one is gone.");
        return -ECHILD;
    }
    return 0;
}

static void prepare_folders(const struct config *config) {
    prepare_folder(config, config->run_directory, 0755, NULL, 0);
    prepare_folder(config, config->state_directory, 0750, NULL, 0);
    if (config->logs.delivery_path == NULL)
        return;
    char folder[4096];
    snprintf(folder, sizeof(folder), "%s", config->logs.delivery_path);
    char *slash = strrchr(folder, '/');
    if (slash != NULL && slash != folder) {
        *slash = '\0';
        prepare_folder(config, folder, 0750, (const char *const *)&config->logs.delivery_path, 1);
    }
}

/* "alarm-clear KIND SUBJECT": by hand, from `bypost alarms --clear`. */
static char *answer_alarm_clear(struct alarms *alarms, const char *words) {
    char kind[ALARM_KIND_BYTES];
    uint32_t before = alarms_count(alarms);
    const char *space = strchr(words, ' ');
    if (space == NULL || (size_t)(space - words) >= sizeof(kind))
        return NULL;
    memcpy(kind, words, (size_t)(space - words));
    kind[space - words] = '\0';
    alarm_clear(alarms, kind, space + 1);
    return strdup(alarms_count(alarms) < before ? "{\"cleared\":true}" : "{\"cleared\":false}");
}

static char *answer(void *context, const char *request) {
    struct control *control = context;
    static const char alarm_clear_word[] = "alarm-clear ";
    static const char find_word[] = "find ", explain_word[] = "explain ";
    if (strcmp(request, "versions") == 0)
        return shard_versions(control->shard);
    if (strcmp(request, "hand") == 0)
        return shard_hand(control->shard);
    if (strncmp(request, find_word, sizeof(find_word) - 1) == 0)
        return shard_find(control->shard, request + sizeof(find_word) - 1);
    if (strncmp(request, explain_word, sizeof(explain_word) - 1) == 0)
        return shard_explain(control->shard, request + sizeof(explain_word) - 1);
    if (strcmp(request, "top") == 0)
        return shard_top(control->shard);
    if (strcmp(request, "alarms") == 0)
        return shard_alarms(control->shard);
    if (strncmp(request, alarm_clear_word, sizeof(alarm_clear_word) - 1) == 0)
        return answer_alarm_clear(control->alarms, request + sizeof(alarm_clear_word) - 1);
    if (strcmp(request, "ping") == 0)
        return strdup("{\"pong\":true}");
    return strcmp(request, "stats") == 0 ? shard_stats(control->shard) : NULL;
}

static void fill_metrics(void *context, struct metrics_page *page) {
    struct control *control = context;
    shard_metrics(control->shard, page);
}

/* Mail goes on without /metrics: an address that is taken is an alarm, not an end. */
static void listen_metrics(struct control *control) {
    static const char kind[] = "metrics_listen";
    const char *listen = control->config->metrics.listen;
    char error[ERROR_BYTES], text[ERROR_BYTES + 128];
    metrics_destroy(control->metrics);
    control->metrics = NULL;
    alarms_expire(control->alarms, kind, 0);
    if (listen == NULL || strcmp(listen, "none") == 0)
        return;
    control->metrics = metrics_create(shard_base(control->shard), listen, fill_metrics, control, error, sizeof(error));
    if (control->metrics != NULL)
        return;
    snprintf(text, sizeof(text), "/metrics cannot be served: %s. Choose another `metrics: listen:` in bypost.yaml and reload.", error);
    alarm_raise(control->alarms, kind, listen, text);
}

static uint32_t signing_threads(const struct config *config) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (config->signing_threads != 0)
        return config->signing_threads;
    return cores > (long)config->dataplane.lcore_count ? (uint32_t)cores - config->dataplane.lcore_count : 1;
}

static int set_up(struct control *control) {
    const struct config *config = control->config;
    prepare_folders(config);
    struct journal_geometry geometry = {
        .workers = config->dataplane.lcore_count, .shards = 1, .slots = config->journal.slots, .paths = config->journal.paths};
    int code = journal_open(&control->journal, config->journal.path, geometry, JOURNAL_CONTROL, control->error, ERROR_BYTES);
    if (code == 0)
        code = load_identity(control);
    if (code != 0)
        return code;
    journal_begin_control(&control->journal);
    control->keys = dkim_keys_load(config, warn, NULL, control->error, ERROR_BYTES);
    control->classifier = load_rules(config, control->error);
    if (control->keys == NULL || control->classifier == NULL || drop_privileges(control) != 0)
        return -EINVAL;
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* a core would hold keys, passwords and messages; nor may others of this user look in */
    struct press_config press = {.threads = signing_threads(config),
                                 .capacity = PRESS_CAPACITY,
                                 .config = config,
                                 .identity = control->identity,
                                 .keys = control->keys,
                                 .shards = 1};
    control->press = press_create(&press);
    if (control->press == NULL) {
        snprintf(control->error, ERROR_BYTES, "the signing threads cannot start: %s.", strerror(errno));
        return -errno;
    }
    control->alarms = alarms_create();
    if (control->alarms == NULL) {
        snprintf(control->error, ERROR_BYTES, "out of memory.");
        return -ENOMEM;
    }
    struct shard_config shard = {.config = config,
                                 .journal = &control->journal,
                                 .press = control->press,
                                 .classifier = control->classifier,
                                 .identity = control->identity,
                                 .alarms = control->alarms};
    control->shard = shard_create(&shard, control->error, ERROR_BYTES);
    if (control->shard == NULL)
        return -EINVAL;
    char socket_path[4096];
    snprintf(socket_path, sizeof(socket_path), "%s/control.sock", config->run_directory);
    control->local = local_server_create(shard_base(control->shard), socket_path, answer, control, control->error, ERROR_BYTES);
    if (control->local == NULL)
        return -EINVAL;
    listen_metrics(control);
    return 0;
}

static void tear_down(struct control *control) {
    if (control->local != NULL)
        local_server_destroy(control->local);
    metrics_destroy(control->metrics);
    if (control->press != NULL) /* its threads borrow jobs: first of all */
        press_destroy(control->press);
    if (control->shard != NULL)
        shard_destroy(control->shard);
    alarms_destroy(control->alarms);
    if (control->keys != NULL)
        dkim_keys_free(control->keys);
    if (control->identity != NULL)
        identity_free(control->identity);
    if (control->classifier != NULL)
        classifier_free(control->classifier);
    if (control->old_classifier != NULL)
        classifier_free(control->old_classifier);
    if (control->journal.header != NULL)
        journal_close(&control->journal);
    config_free(control->config);
    if (control->old_config != NULL)
        config_free(control->old_config);
}

static void on_stop(evutil_socket_t number, short what, void *argument) {
    struct control *control = argument;
    notify_send("STOPPING=1");
    log_write(LOG_LEVEL_INFO, "control", "draining: no new messages; those on the wire finish");
    shard_stop(control->shard);
}

static void print_errors(const struct config_errors *errors) {
    for (uint32_t i = 0; i < errors->count; i++)
        log_write(errors->items[i].warning ? LOG_LEVEL_WARNING : LOG_LEVEL_ERROR, "config", "%s:%u: %s", errors->items[i].file,
                  errors->items[i].line, errors->items[i].message);
}

/* The dataplane has read the client certificates at its start, and paths name them by their places. */
static bool same_identities(const struct config *a, const struct config *b) {
    for (uint32_t place = 1;; place++) {
        const struct config_relay *of_a = config_identity(a, place), *of_b = config_identity(b, place);
        if (of_a == NULL || of_b == NULL)
            return of_a == of_b;
        if (strcmp(of_a->tls_certificate_file, of_b->tls_certificate_file) != 0 || strcmp(of_a->tls_key_file, of_b->tls_key_file) != 0)
            return false;
    }
}

static bool same_text(const char *a, const char *b) {
    return strcmp(a != NULL ? a : "", b != NULL ? b : "") == 0;
}

static void token_failed(void *context, const char *sentence) {
    log_write(LOG_LEVEL_ERROR, "config", "%s", sentence);
}

/* Tokens of relays live for an hour or less, and who renews them need not tell us. */
static void on_tokens(evutil_socket_t number, short what, void *argument) {
    struct control *control = argument;
    uint32_t changed = config_tokens_read(control->config, token_failed, NULL);
    if (changed == 0)
        return;
    log_write(LOG_LEVEL_INFO, "config", "%u relay%s another token", changed, changed == 1 ? " has" : "s have");
    shard_tokens_changed(control->shard);
}

/* What was read for a reload that is not to be: all that ran goes on. */
static void refuse_reload(struct control *control, struct config *config, struct classifier *classifier, const char *reason) {
    char text[ERROR_BYTES + 128];
    snprintf(text, sizeof(text), "nothing was reloaded: %s", reason);
    log_write(LOG_LEVEL_ERROR, "config", "%s", text);
    snprintf(text, sizeof(text), "nothing was reloaded: %s. `bypost check` shows every fault; mend them and reload again.", reason);
    alarm_raise(control->alarms, reload_kind, control->config->path, text);
    if (classifier != NULL)
        classifier_free(classifier);
    if (config != NULL)
        config_free(config);
}

/* SIGHUP: limits, providers, relays, class rules and DKIM's keys: all or nothing. */
static void reload(struct control *control) {
    struct config_errors errors = {0};
    shard_reopen_logs(control->shard);
    struct config *config = config_load(control->config->path, &errors);
    print_errors(&errors);
    config_errors_free(&errors);
    struct classifier *classifier = config == NULL ? NULL : load_rules(config, control->error);
    if (config == NULL || classifier == NULL) {
        refuse_reload(control, config, classifier, config == NULL ? "bypost.yaml has errors" : control->error);
        return;
    }
    if (!same_identities(config, control->config)) {
        refuse_reload(control, config, classifier,
                      "the client certificates of relays are others, which the dataplane reads at its start; restart bypost");
        return;
    }
    struct dkim_keys *keys = dkim_keys_load(config, warn, NULL, control->error, ERROR_BYTES);
    if (keys == NULL) {
        refuse_reload(control, config, classifier, control->error);
        return;
    }
    press_set_keys(control->press, keys);
    dkim_keys_free(control->keys);
    control->keys = keys;
    alarm_clear(control->alarms, reload_kind, control->config->path);
    if (!same_text(config->tls.ca_file, control->config->tls.ca_file))
        log_write(LOG_LEVEL_WARNING, "config", "tls.ca_file holds for SMTP sessions after a restart of bypost");
    shard_reconfigure(control->shard, config, classifier);
    config_forget_secrets(control->config);
    bool metrics_moved = !same_text(config->metrics.listen, control->config->metrics.listen);
    /* Press and dispatch were made from the first configuration and keep it; the shard's other parts have just moved to the new one. */
    if (control->old_config == NULL) {
        control->old_config = control->config;
        control->old_classifier = control->classifier;
    } else {
        config_free(control->config);
        classifier_free(control->classifier);
    }
    control->config = config;
    control->classifier = classifier;
    if (metrics_moved)
        listen_metrics(control);
    log_write(LOG_LEVEL_INFO, "config", "reloaded limits, providers, relays, class rules and DKIM keys from %s", config->path);
}

static void on_reload(evutil_socket_t number, short what, void *argument) {
    notify_reloading();
    reload(argument);
    notify_send("READY=1"); /* also when nothing was taken over: what ran goes on, and the log says why */
}

static bool service_status(void *context, char *text, size_t text_bytes) {
    struct control *control = context;
    return shard_status(control->shard, text, text_bytes);
}

static enum log_level level_of(const char *text) {
    static const char *const names[] = {"error", "warning", "info", "debug"};
    for (int i = 0; text != NULL && i < 4; i++)
        if (strcmp(names[i], text) == 0)
            return (enum log_level)i;
    return LOG_LEVEL_INFO;
}

static int run(struct control *control) {
    struct event_base *base = shard_base(control->shard);
    struct event *term = evsignal_new(base, SIGTERM, on_stop, control), *interrupt = evsignal_new(base, SIGINT, on_stop, control),
                 *hangup = evsignal_new(base, SIGHUP, on_reload, control), *tokens = event_new(base, -1, EV_PERSIST, on_tokens, control);
    struct timeval token_interval = {.tv_sec = TOKEN_INTERVAL_S};
    if (term == NULL || interrupt == NULL || hangup == NULL || tokens == NULL)
        return 1;
    event_add(tokens, &token_interval);
    event_add(term, NULL);
    event_add(interrupt, NULL);
    event_add(hangup, NULL);
    log_write(LOG_LEVEL_INFO, "control", "bypost-control %s started%s", BYPOST_VERSION,
              control->config->sandbox ? " in the sandbox: only reserved test domains and configured relays are contacted" : "");
    control->service = service_create(base, service_status, control);
    int result = shard_run(control->shard);
    service_destroy(control->service);
    log_write(LOG_LEVEL_INFO, "control", "stopped");
    event_free(term);
    event_free(interrupt);
    event_free(hangup);
    event_free(tokens);
    return result;
}

int main(int argc, char **argv) {
    static struct control control;
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"help", no_argument, NULL, 'h'},
                                            {"version", no_argument, NULL, 'v'},
                                            {NULL, 0, NULL, 0}};
    const char *path = "/etc/bypost/bypost.yaml";
    for (int option; (option = getopt_long(argc, argv, "c:h", options, NULL)) != -1;) {
        switch (option) {
        case 'c':
            path = optarg;
            break;
        case 'v':
            puts("bypost-control " BYPOST_VERSION);
            return 0;
        case 'h':
            puts("Usage: bypost-control [--config FILE]\n"
                 "The deciding side of bypost: reads jobs from Redis, shapes, renders, signs and settles. `bypost run` starts it.\n\n"
                 "  -c, --config FILE   bypost.yaml (/etc/bypost/bypost.yaml)\n"
                 "  --help, --version\n\n"
                 "SIGTERM drains, SIGHUP reloads limits, providers, relays, class rules and DKIM keys and reopens the delivery log.\n"
                 "Exit status: 0 drained, 1 stopped with work left for the next start, 64 usage, 75 another one runs, 78 configuration.");
            return 0;
        default:
            fprintf(stderr, "bypost-control: --help shows the options.\n");
            return EXIT_USAGE;
        }
    }
    struct config_errors errors = {0};
    control.config = config_load(path, &errors);
    log_start("control", level_of(control.config != NULL ? control.config->logs.level : NULL));
    print_errors(&errors);
    config_errors_free(&errors);
    if (control.config == NULL)
        return EXIT_CONFIGURATION;
    signal(SIGPIPE, SIG_IGN);
    evthread_use_pthreads();
    prctl(PR_SET_NAME, "bypost-ctl");
    umask(0027);
    int code = set_up(&control);
    int result = 0;
    if (code == 0)
        result = run(&control);
    else
        log_write(LOG_LEVEL_ERROR, "control", "%s", control.error);
    tear_down(&control);
    log_flush();
    if (code == -ENOMEM || code == -EAGAIN) /* a full machine: another start may do better */
        return EXIT_FAILURE;
    return code == 0 ? result : code == -EBUSY ? EXIT_BUSY : EXIT_CONFIGURATION;
}
