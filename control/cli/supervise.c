/* supervise.c: starts, watches, restarts and ends the two processes. One thread, one signalfd. */
#include "supervise.h"
#include "cli.h"
#include "control/clock.h"
#include "control/observe/log.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    PROCESSES = 2,
    RESTARTS_WINDOW_MS = 60000,
    RESTARTS_MAX = 20000, /* remembered */
    DEATH_WEIGHT = 20,    /* SIGKILL comes from outside (an operator, a full machine) and weighs 1: a process is not to blame for it */
    SETTLED_MS = 1000,    /* one that lived so long starts again without waiting */
};

enum child_state { CHILD_WAITING, CHILD_RUNNING, CHILD_STOPPING, CHILD_ENDED };

struct child {
    const struct supervise_process *process;
    enum child_state state;
    pid_t pid;
    uint64_t start_ms; /* CHILD_WAITING: when it starts (again) */
    uint64_t kill_ms;  /* CHILD_STOPPING: when patience ends */
    uint32_t backoff_ms;
};

struct restart {
    uint64_t when_ms;
    uint32_t weight;
};

struct supervisor {
    const struct supervise_config *config;
    struct child children[PROCESSES];
    struct restart restarts[RESTARTS_MAX]; /* a ring */
    uint32_t restart_count;
    bool stopping;
    int code;
};

/* In the child: a group of its own, so that a terminal's Ctrl-C reaches only the supervisor; and no life after the supervisor's. */
static void child_become(const struct child *child, pid_t supervisor) {
    sigset_t none;
    sigemptyset(&none);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    if (getppid() == supervisor) {
        execv(child->process->path, child->process->argv);
        dprintf(STDERR_FILENO, "bypost run: %s cannot be executed: %s\n", child->process->path, strerror(errno));
    }
    _exit(CLI_NO_BINARY);
}

static void child_start(struct child *child) {
    pid_t supervisor = getpid();
    child->pid = fork();
    if (child->pid == 0) {
        child_become(child, supervisor);
    }
    if (child->pid < 0) {
        child->start_ms = clock_ms(CLOCK_MONOTONIC) + SUPERVISE_BACKOFF_MAX_MS;
        log_write(LOG_LEVEL_ERROR, "run", "%s cannot be started: %s", child->process->name, strerror(errno));
        return;
    }
    child->state = CHILD_RUNNING;
    child->start_ms = clock_ms(CLOCK_MONOTONIC);
    log_write(LOG_LEVEL_INFO, "run", "%s started as process %d", child->process->name, (int)child->pid);
}

static void child_stop(struct supervisor *supervisor, struct child *child) {
    if (child->state == CHILD_WAITING) {
        child->state = CHILD_ENDED;
    } else if (child->state == CHILD_RUNNING) {
        child->state = CHILD_STOPPING;
        child->kill_ms = clock_ms(CLOCK_MONOTONIC) + supervisor->config->drain_timeout_ms + SUPERVISE_GRACE_MS;
        kill(child->pid, SIGTERM);
    }
}

/* The last that started is the first to end; the others wait for it. */
static void supervisor_stop_next(struct supervisor *supervisor) {
    for (unsigned i = PROCESSES; i-- > 0;) {
        child_stop(supervisor, &supervisor->children[i]);
        if (supervisor->children[i].state == CHILD_STOPPING) {
            return;
        }
    }
}

static void supervisor_stop(struct supervisor *supervisor, int code) {
    if (!supervisor->stopping) {
        supervisor->stopping = true;
        supervisor->code = code;
    }
    supervisor_stop_next(supervisor);
}

/* More restarts in a minute than allowed? Counts this one. */
static bool restarts_exhausted(struct supervisor *supervisor, uint64_t now, uint32_t weight) {
    uint32_t limit = supervisor->config->restarts_a_minute * DEATH_WEIGHT, recent = weight;
    for (uint32_t i = 0; i < supervisor->restart_count && i < RESTARTS_MAX; i++) {
        const struct restart *restart = &supervisor->restarts[i];
        recent += now - restart->when_ms < RESTARTS_WINDOW_MS ? restart->weight : 0;
    }
    supervisor->restarts[supervisor->restart_count++ % RESTARTS_MAX] = (struct restart){now, weight};
    return recent > limit;
}

/* What no restart can mend: wrong usage, configuration, another instance, no binary. */
static bool exit_is_final(int status) {
    if (!WIFEXITED(status)) {
        return false;
    }
    int code = WEXITSTATUS(status);
    return code == CLI_USAGE || code == CLI_CONFIG || code == CLI_TEMPORARY || code == CLI_NO_BINARY;
}

static void child_died(struct supervisor *supervisor, struct child *child, int status) {
    uint64_t now = clock_ms(CLOCK_MONOTONIC);
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    char how[64];
    snprintf(how, sizeof how, WIFSIGNALED(status) ? "was killed by signal %d" : "exited with status %d",
             WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    if (exit_is_final(status)) {
        log_write(LOG_LEVEL_ERROR, "run", "%s %s, which a restart cannot mend; its message above says why", child->process->name, how);
        child->state = CHILD_ENDED;
        supervisor_stop(supervisor, WEXITSTATUS(status));
    } else if (restarts_exhausted(supervisor, now, killed ? 1 : DEATH_WEIGHT)) {
        log_write(LOG_LEVEL_ERROR, "run", "%s %s; after %u restarts in a minute bypost ends", child->process->name, how,
                  supervisor->config->restarts_a_minute);
        child->state = CHILD_ENDED;
        supervisor_stop(supervisor, CLI_SOFTWARE);
    } else {
        bool lived = now - child->start_ms >= SETTLED_MS;
        uint32_t doubled = child->backoff_ms * 2 < SUPERVISE_BACKOFF_MAX_MS ? child->backoff_ms * 2 : SUPERVISE_BACKOFF_MAX_MS;
        child->backoff_ms = lived || child->backoff_ms == 0 ? SUPERVISE_BACKOFF_MIN_MS : doubled;
        child->state = CHILD_WAITING;
        child->start_ms = now + child->backoff_ms;
        log_write(LOG_LEVEL_ERROR, "run", "%s %s; it starts again in %u ms", child->process->name, how, child->backoff_ms);
    }
}

static void child_ended(struct supervisor *supervisor, struct child *child, int status) {
    child->pid = 0;
    if (child->state != CHILD_STOPPING) {
        child_died(supervisor, child, status);
        return;
    }
    child->state = CHILD_ENDED;
    bool good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (good) {
        log_write(LOG_LEVEL_INFO, "run", "%s ended", child->process->name);
    } else {
        log_write(LOG_LEVEL_WARNING, "run", WIFSIGNALED(status) ? "%s was ended by signal %d" : "%s ended with status %d",
                  child->process->name, WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        if (supervisor->code == CLI_OK) {
            supervisor->code = CLI_FAILED; /* work is left for the next start */
        }
    }
    supervisor_stop_next(supervisor);
}

static void supervisor_reap(struct supervisor *supervisor) {
    for (unsigned i = 0; i < PROCESSES; i++) {
        struct child *child = &supervisor->children[i];
        int status;
        if (child->pid > 0 && waitpid(child->pid, &status, WNOHANG) == child->pid) {
            child_ended(supervisor, child, status);
        }
    }
}

static void supervisor_signal(struct supervisor *supervisor, int number) {
    if (number == SIGHUP) {
        struct child *control = &supervisor->children[PROCESSES - 1];
        if (control->state == CHILD_RUNNING) {
            kill(control->pid, SIGHUP); /* it reads the configuration again, and says what is wrong with it */
        }
    } else if (number == SIGTERM || number == SIGINT) {
        if (supervisor->stopping) {
            log_write(LOG_LEVEL_WARNING, "run", "asked twice: ending at once");
            for (unsigned i = 0; i < PROCESSES; i++) {
                child_stop(supervisor, &supervisor->children[i]);
                supervisor->children[i].kill_ms = clock_ms(CLOCK_MONOTONIC);
            }
        } else {
            log_write(LOG_LEVEL_INFO, "run", "stopping: what is on the wire finishes first");
        }
        supervisor_stop(supervisor, CLI_OK);
    }
}

/* Starts and kills what is due; returns when to look again, in ms from now, or -1. */
static int supervisor_timers(struct supervisor *supervisor) {
    uint64_t now = clock_ms(CLOCK_MONOTONIC), next = UINT64_MAX;
    for (unsigned i = 0; i < PROCESSES; i++) {
        struct child *child = &supervisor->children[i];
        if (child->state == CHILD_WAITING && child->start_ms <= now) {
            child_start(child);
        }
        if (child->state == CHILD_STOPPING && child->kill_ms <= now) {
            log_write(LOG_LEVEL_WARNING, "run", "%s does not end and is killed", child->process->name);
            kill(child->pid, SIGKILL);
            child->kill_ms = now + SUPERVISE_GRACE_MS;
        }
        uint64_t due = child->state == CHILD_WAITING ? child->start_ms : child->state == CHILD_STOPPING ? child->kill_ms : UINT64_MAX;
        next = due < next ? due : next;
    }
    return next == UINT64_MAX ? -1 : next <= now ? 0 : (int)(next - now < 3600000 ? next - now : 3600000);
}

static bool supervisor_done(const struct supervisor *supervisor) {
    return supervisor->stopping && supervisor->children[0].state == CHILD_ENDED && supervisor->children[1].state == CHILD_ENDED;
}

static void supervisor_loop(struct supervisor *supervisor, int signals) {
    while (!supervisor_done(supervisor)) {
        struct pollfd entry = {.fd = signals, .events = POLLIN};
        struct signalfd_siginfo information;
        int timeout = supervisor_timers(supervisor);
        if (poll(&entry, 1, timeout) > 0 && read(signals, &information, sizeof information) == sizeof information) {
            supervisor_signal(supervisor, (int)information.ssi_signo);
        }
        supervisor_reap(supervisor); /* SIGCHLD may stand for several */
    }
}

int supervise(const struct supervise_config *config) {
    struct supervisor *supervisor = calloc(1, sizeof *supervisor);
    sigset_t wanted, before;
    sigemptyset(&wanted);
    for (const int *number = (const int[]){SIGTERM, SIGINT, SIGHUP, SIGCHLD, 0}; *number; number++) {
        sigaddset(&wanted, *number);
    }
    sigprocmask(SIG_BLOCK, &wanted, &before);
    int signals = signalfd(-1, &wanted, SFD_CLOEXEC);
    if (!supervisor || signals < 0) {
        free(supervisor);
        return cli_complain(CLI_FAILED, "run", "no signals can be received: %s.", strerror(errno));
    }
    supervisor->config = config;
    for (unsigned i = 0; i < PROCESSES; i++) {
        supervisor->children[i] = (struct child){.process = &config->processes[i], .state = CHILD_WAITING};
    }
    supervisor_loop(supervisor, signals);
    int code = supervisor->code;
    close(signals);
    sigprocmask(SIG_SETMASK, &before, NULL);
    free(supervisor);
    return code;
}
