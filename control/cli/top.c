/* top.c: `bypost top`: the terminal, the keys, the options. The terminal is as it was, whatever ends the program. */
#include "top.h"
#include "cli.h"

#include <errno.h>
#include <getopt.h>
#include <langinfo.h>
#include <locale.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static const char help[] = "Usage: bypost top [--once | --json] [--interval SECONDS] [--count N] [--config FILE]\n\n"
                           "Shows live what this node does: rates, queues, sites, providers, reasons, workers, alarms.\n"
                           "Queues are those in Redis, of all nodes; all else is this node's own.\n\n"
                           "      --interval SECONDS  between two looks (1; 0.2 to 60)\n"
                           "      --once              one screen as plain text, after one interval\n"
                           "      --json              one JSON object a line; one, or as many as --count says\n"
                           "  -n, --count N           end after N screens or lines\n"
                           "  -c, --config FILE       the configuration (/etc/bypost/bypost.yaml)\n"
                           "      --help, --version\n\n"
                           "Keys: 1 to 6 a panel alone, 0 all; s sort by the next column; space pause; + - interval; h help; q quit.\n\n"
                           "Exit status: 0 shown, 64 usage, 69 neither process runs, 78 the configuration has errors.\n";
static const char name[] = "top";

enum { ROWS_PLAIN = 60, COLUMNS_PLAIN = 110, ROWS_LEAST = 8, COLUMNS_LEAST = 40 };

/* What signal handlers must reach: a process has one terminal. */
static struct {
    struct termios before;
    volatile sig_atomic_t raw, ended, resized, stopped;
} terminal;

static void terminal_leave(void) {
    static const char leave[] = "\033[?25h\033[?1049l\033[0m";
    if (terminal.raw) {
        terminal.raw = 0;
        ssize_t written = write(STDOUT_FILENO, leave, sizeof leave - 1);
        (void)written;
        tcsetattr(STDIN_FILENO, TCSANOW, &terminal.before);
    }
}

static void terminal_enter(void) {
    static const char enter[] = "\033[?1049h\033[?25l";
    struct termios raw = terminal.before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    ssize_t written = write(STDOUT_FILENO, enter, sizeof enter - 1);
    (void)written;
    terminal.raw = 1;
}

static void on_end(int number) {
    terminal.ended = number;
}

static void on_resize(int number) {
    terminal.resized = 1;
}

static void on_suspend(int number) {
    terminal.stopped = 1;
}

/* A crash: the terminal first, then what would have happened. */
static void on_crash(int number) {
    terminal_leave();
    signal(number, SIG_DFL);
    raise(number);
}

static void signals_catch(void) {
    static const struct {
        int number;
        void (*handler)(int number);
    } wanted[] = {{SIGINT, on_end},      {SIGTERM, on_end},   {SIGHUP, on_end},    {SIGQUIT, on_end},  {SIGWINCH, on_resize},
                  {SIGTSTP, on_suspend}, {SIGSEGV, on_crash}, {SIGABRT, on_crash}, {SIGBUS, on_crash}, {SIGFPE, on_crash}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        struct sigaction action = {.sa_handler = wanted[i].handler};
        sigaction(wanted[i].number, &action, NULL);
    }
}

static void view_measure(struct top_view *view) {
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 && size.ws_col > 0) {
        view->rows = size.ws_row < ROWS_LEAST ? ROWS_LEAST : size.ws_row;
        view->columns = size.ws_col < COLUMNS_LEAST ? COLUMNS_LEAST : size.ws_col;
    }
}

/* The whole screen in one write: no flicker over a slow line. False: the terminal is gone. */
static bool screen_show(struct top *top, const struct top_view *view) {
    char *text = NULL;
    size_t length = 0, done = 0;
    FILE *out = open_memstream(&text, &length);
    if (!out) {
        return false;
    }
    for (unsigned p = 0; p < PANELS; p++) {
        top_sort(top, p, view->sort[p]);
    }
    fputs(view->color ? "\033[H" : "", out);
    top_draw(top, view, out);
    fputs(view->color ? "\033[J" : "", out);
    fclose(out);
    while (done < length) {
        ssize_t written = write(STDOUT_FILENO, text + done, length - done);
        if (written < 0 && errno != EINTR) {
            break;
        }
        done += written > 0 ? (size_t)written : 0;
    }
    free(text);
    return done == length;
}

/* False: the user has seen enough. */
static bool key_take(struct top_view *view, char key) {
    int panel = view->zoom >= 0 ? view->zoom : PANEL_SITES;
    switch (key) {
    case 'q':
    case 'Q':
    case 3: /* Ctrl-C, where the terminal sends no signal */
        return false;
    case 'h':
    case '?':
        view->help = !view->help;
        break;
    case ' ':
    case 'p':
        view->paused = !view->paused;
        break;
    case 's': /* in the panel alone; of all panels, in each */
        for (int p = view->zoom >= 0 ? panel : 0; p < (view->zoom >= 0 ? panel + 1 : PANELS); p++) {
            view->sort[p] = (view->sort[p] + 1) % (int)top_panels[p].column_count;
        }
        break;
    case 'S':
        for (int p = view->zoom >= 0 ? panel : 0; p < (view->zoom >= 0 ? panel + 1 : PANELS); p++) {
            view->sort[p] = -1;
        }
        break;
    case '+':
        view->interval_s = fmin(view->interval_s * 2, 60);
        break;
    case '-':
        view->interval_s = fmax(view->interval_s / 2, 0.2);
        break;
    default:
        if (key >= '0' && key <= '0' + PANELS) {
            view->zoom = key - '1';
            view->help = false;
        }
    }
    return true;
}

/* Waits for a key, a signal or the time. Signals come through only here, so that none is missed between a look at its flag and the wait. */
static int key_wait(int64_t wait_us, const sigset_t *open) {
    struct pollfd entry = {.fd = STDIN_FILENO, .events = POLLIN};
    struct timespec wait = {.tv_sec = wait_us / 1000000, .tv_nsec = wait_us % 1000000 * 1000};
    char key;
    if (ppoll(&entry, 1, &wait, open) <= 0) {
        return 0;
    }
    ssize_t count = read(STDIN_FILENO, &key, 1);
    return count == 1 ? (unsigned char)key : -1; /* the terminal went away */
}

static void terminal_suspend(void) {
    terminal.stopped = 0;
    terminal_leave();
    raise(SIGSTOP);
    terminal_enter();
}

static int top_watch(struct top *top, const struct config *config, struct top_view *view, unsigned long times) {
    sigset_t all, open;
    sigfillset(&all);
    for (const int *crash = (const int[]){SIGSEGV, SIGABRT, SIGBUS, SIGFPE, 0}; *crash; crash++) {
        sigdelset(&all, *crash);
    }
    tcgetattr(STDIN_FILENO, &terminal.before);
    sigprocmask(SIG_BLOCK, &all, &open);
    signals_catch();
    atexit(terminal_leave);
    terminal_enter();
    view_measure(view);
    unsigned long shown = 0;
    for (bool going = true, look = true; going && !terminal.ended;) {
        if (look && !view->paused) {
            top_advance(top, sample_take(config, "top"));
            shown++;
        }
        going = screen_show(top, view) && (times == 0 || shown < times);
        uint64_t age_ms = top->now->time_ms;
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        int64_t wait_us = (int64_t)(view->interval_s * 1e6) - ((int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000 - (int64_t)age_ms * 1000);
        wait_us = view->paused ? 1000000 : wait_us > 0 ? wait_us : 1;
        int key = going ? key_wait(wait_us, &open) : 0;
        look = key == 0 && !terminal.resized && !terminal.stopped;
        if (key != 0) {
            going = key > 0 && key_take(view, (char)key);
        }
        if (terminal.resized) {
            terminal.resized = 0;
            view_measure(view);
        }
        if (terminal.stopped) {
            terminal_suspend();
        }
    }
    terminal_leave();
    return CLI_OK;
}

/* For scripts: two samples an interval apart, then one more for each line. */
static int top_print(struct top *top, const struct config *config, struct top_view *view, unsigned long times, bool json) {
    struct timespec wait = {.tv_sec = (time_t)view->interval_s, .tv_nsec = (long)(fmod(view->interval_s, 1) * 1e9)};
    top_advance(top, sample_take(config, "top"));
    for (unsigned long i = 0; i < (times ? times : 1); i++) {
        nanosleep(&wait, NULL);
        top_advance(top, sample_take(config, "top"));
        if (json) {
            json_t *root = top_json(top);
            json_dumpf(root, stdout, JSON_COMPACT | JSON_REAL_PRECISION(14));
            putchar('\n');
            json_decref(root);
        } else if (fflush(stdout) != 0 || !screen_show(top, view)) {
            break;
        }
        if (fflush(stdout) != 0) {
            break; /* the reader went */
        }
    }
    if (!top->now->control) { /* the screen may have had no room for all of it */
        cli_complain(CLI_UNAVAILABLE, name, "%s", top->now->control_error);
    }
    return !top->now->running && !top->now->control ? CLI_UNAVAILABLE : CLI_OK;
}

static bool interval_parse(const char *text, double *interval_s) {
    char *end;
    *interval_s = strtod(text, &end);
    if (end == text || *end || !(*interval_s >= 0.2 && *interval_s <= 60)) {
        cli_complain(CLI_USAGE, name, "--interval '%s': give seconds from 0.2 to 60.", text);
        return false;
    }
    return true;
}

static int top_run(int argc, char **argv) {
    enum { JSON = 1, ONCE, INTERVAL };
    static const struct option options[] = {
        {"json", no_argument, NULL, JSON},       {"once", no_argument, NULL, ONCE},        {"interval", required_argument, NULL, INTERVAL},
        {"count", required_argument, NULL, 'n'}, {"config", required_argument, NULL, 'c'}, {NULL, 0, NULL, 0}};
    struct top_view view = {.rows = ROWS_PLAIN, .columns = COLUMNS_PLAIN, .zoom = -1, .interval_s = 1};
    const char *path = NULL;
    unsigned long times = 0;
    bool json = false, once = false;
    for (int option; (option = getopt_long(argc, argv, "n:c:", options, NULL)) != -1;) {
        switch (option) {
        case JSON:
            json = true;
            break;
        case ONCE:
            once = true;
            break;
        case INTERVAL:
            if (!interval_parse(optarg, &view.interval_s)) {
                return CLI_USAGE;
            }
            break;
        case 'n':
            if (!cli_number(name, "count", optarg, 1, 1000000000, &times)) {
                return CLI_USAGE;
            }
            break;
        case 'c':
            path = optarg;
            break;
        default:
            return cli_usage(name);
        }
    }
    if (optind < argc) {
        return cli_complain(CLI_USAGE, name, "'%s' is not an option; --help shows them.", argv[optind]);
    }
    int code;
    struct config *config = cli_config_client(name, path, NULL, &code);
    struct top *top = calloc(1, sizeof *top);
    for (unsigned p = 0; p < PANELS; p++) {
        view.sort[p] = (int)top_panels[p].default_sort;
    }
    setlocale(LC_CTYPE, "");
    view.utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    if (config && top) {
        bool live = !json && !once && isatty(STDOUT_FILENO) && isatty(STDIN_FILENO);
        view.color = live;
        code = live ? top_watch(top, config, &view, times) : top_print(top, config, &view, times, json);
    }
    if (top) {
        top_free(top);
    }
    config_free(config);
    return code;
}

const struct cli_command top_command = {"top", "show live rates, queues, sites, reasons, workers", help, top_run};
