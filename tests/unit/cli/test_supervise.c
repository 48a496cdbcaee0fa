/* Supervision of two processes, with shells in their places: order of the end, restarts, what no restart mends. */
#include "../config/fixture.h"

#include "control/cli/cli.h"
#include "control/cli/supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

enum { PATIENCE_MS = 10000 };

struct world {
    char folder[64], record[96];
    char scripts[2][512];
    char *argv[2][4];
    struct supervise_config config;
    pid_t pid;
};

/* Starts a supervisor in a process of its own; scripts write what happens into $RECORD. */
static struct world *world_start(const char *dataplane, const char *control, uint32_t restarts) {
    struct world *world = calloc(1, sizeof *world);
    const char *const scripts[2] = {dataplane, control};
    strcpy(world->folder, "/tmp/bypost-supervise-XXXXXX");
    assert_non_null(mkdtemp(world->folder));
    snprintf(world->record, sizeof world->record, "%s/record", world->folder);
    setenv("RECORD", world->record, 1);
    world->config = (struct supervise_config){.restarts_a_minute = restarts, .drain_timeout_ms = 2000};
    for (unsigned i = 0; i < 2; i++) {
        snprintf(world->scripts[i], sizeof world->scripts[i], "%s", scripts[i]);
        world->argv[i][0] = (char *)"sh";
        world->argv[i][1] = (char *)"-c";
        world->argv[i][2] = world->scripts[i];
        world->config.processes[i] =
            (struct supervise_process){.name = i ? "control" : "dataplane", .path = "/bin/sh", .argv = world->argv[i]};
    }
    world->pid = fork();
    if (world->pid == 0) {
        dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
        signal(SIGHUP, SIG_DFL); /* under nohup a shell could not trap it */
        _exit(supervise(&world->config));
    }
    return world;
}

static void pause_ms(unsigned ms) {
    usleep(ms * 1000);
}

static unsigned record_count(const struct world *world, const char *word) {
    char line[256];
    unsigned count = 0;
    FILE *file = fopen(world->record, "r");
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        count += strcmp(line, word) == 0;
    }
    if (file) {
        fclose(file);
    }
    return count;
}

static bool record_wait(const struct world *world, const char *word, unsigned count) {
    for (unsigned waited = 0; waited < PATIENCE_MS; waited += 10) {
        if (record_count(world, word) >= count) {
            return true;
        }
        pause_ms(10);
    }
    return false;
}

/* The line's number, from 1; 0 when it is not there. */
static unsigned record_line(const struct world *world, const char *word) {
    char line[256];
    unsigned number = 0, found = 0;
    FILE *file = fopen(world->record, "r");
    while (file && !found && fgets(line, sizeof line, file)) {
        number++;
        line[strcspn(line, "\n")] = 0;
        found = strcmp(line, word) == 0 ? number : 0;
    }
    if (file) {
        fclose(file);
    }
    return found;
}

/* Its exit code, or -1 when it does not end in time (it is killed then). */
static int world_end(struct world *world) {
    int status = 0, code = -1;
    for (unsigned waited = 0; waited < PATIENCE_MS && code < 0; waited += 10) {
        if (waitpid(world->pid, &status, WNOHANG) == world->pid) {
            code = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
        } else {
            pause_ms(10);
        }
    }
    if (code < 0) {
        kill(world->pid, SIGKILL);
        waitpid(world->pid, &status, 0);
    }
    unlink(world->record);
    rmdir(world->folder);
    free(world);
    return code;
}

#define SERVE(name)                                                                                                                        \
    "trap 'echo " name "-term >>$RECORD; exit 0' TERM; trap 'echo " name "-hup >>$RECORD' HUP; echo " name                                 \
    " >>$RECORD; while :; do sleep 0.02; done"

/* Control ends first: it settles what the dataplane still answers. */
static void order_of_the_end(void **state) {
    struct world *world = world_start(SERVE("dataplane"), SERVE("control"), 5);
    assert_true(record_wait(world, "dataplane", 1) && record_wait(world, "control", 1));
    kill(world->pid, SIGTERM);
    assert_true(record_wait(world, "dataplane-term", 1));
    assert_true(record_line(world, "control-term") > 0);
    assert_true(record_line(world, "control-term") < record_line(world, "dataplane-term"));
    assert_int_equal(world_end(world), 0);
}

static void hangup_is_controls(void **state) {
    struct world *world = world_start(SERVE("dataplane"), SERVE("control"), 5);
    assert_true(record_wait(world, "dataplane", 1) && record_wait(world, "control", 1));
    kill(world->pid, SIGHUP);
    assert_true(record_wait(world, "control-hup", 1));
    pause_ms(100);
    assert_int_equal(record_count(world, "dataplane-hup"), 0);
    kill(world->pid, SIGINT);
    assert_int_equal(world_end(world), 0);
}

static void dead_ones_start_again(void **state) {
    struct world *world = world_start("echo dataplane >>$RECORD; sleep 0.1; exit 3", SERVE("control"), 5);
    assert_true(record_wait(world, "dataplane", 3));
    assert_int_equal(record_count(world, "control"), 1); /* the other one is not disturbed */
    kill(world->pid, SIGTERM);
    assert_true(world_end(world) <= 1);
}

static void too_many_deaths(void **state) {
    struct world *world = world_start(SERVE("dataplane"), "echo control >>$RECORD; exit 1", 2);
    assert_true(record_wait(world, "dataplane-term", 1)); /* the other one is ended in order */
    assert_int_equal(record_count(world, "control"), 3);  /* the first, and two restarts */
    assert_int_equal(world_end(world), CLI_SOFTWARE);
}

/* kill -9 comes from outside: it is not held against the process. */
static void killed_from_outside(void **state) {
    struct world *world = world_start(SERVE("dataplane"), "echo control >>$RECORD; kill -9 $$", 1);
    assert_true(record_wait(world, "control", 4));
    kill(world->pid, SIGTERM);
    assert_true(world_end(world) <= 1);
}

/* What a wrong configuration says once it says again. */
static void final_exits(void **state) {
    static const int codes[] = {CLI_USAGE, CLI_TEMPORARY, CLI_CONFIG};
    for (unsigned i = 0; i < 3; i++) {
        char script[64];
        snprintf(script, sizeof script, "echo control >>$RECORD; exit %d", codes[i]);
        struct world *world = world_start(SERVE("dataplane"), script, 5);
        assert_true(record_wait(world, "control", 1));
        assert_int_equal(world_end(world), codes[i]);
    }
}

static void a_second_signal(void **state) {
    struct world *world = world_start(SERVE("dataplane"), "trap '' TERM; echo control >>$RECORD; while :; do sleep 0.02; done", 5);
    assert_true(record_wait(world, "control", 1) && record_wait(world, "dataplane", 1));
    kill(world->pid, SIGTERM);
    pause_ms(200);
    assert_int_equal(record_count(world, "dataplane-term"), 0); /* it waits for control, which drains */
    kill(world->pid, SIGTERM);
    assert_int_equal(world_end(world), CLI_FAILED); /* long before drain_timeout and the grace */
}

/* The supervisor's own death takes both along: nothing is left that nobody watches. */
static void supervisor_killed(void **state) {
    struct world *world = world_start(SERVE("dataplane"), SERVE("control"), 5);
    assert_true(record_wait(world, "dataplane", 1) && record_wait(world, "control", 1));
    kill(world->pid, SIGKILL);
    assert_true(record_wait(world, "dataplane-term", 1) && record_wait(world, "control-term", 1));
    assert_int_equal(world_end(world), 1000 + SIGKILL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(order_of_the_end),      cmocka_unit_test(hangup_is_controls),
                                       cmocka_unit_test(dead_ones_start_again), cmocka_unit_test(too_many_deaths),
                                       cmocka_unit_test(killed_from_outside),   cmocka_unit_test(final_exits),
                                       cmocka_unit_test(a_second_signal),       cmocka_unit_test(supervisor_killed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
