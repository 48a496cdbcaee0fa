/* /metrics: the exposition formats (Prometheus text 0.0.4, OpenMetrics 1.0) and the addresses that are taken. The server runs in a thread
 * of its own, as control's loop would. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "control/observe/metrics.h"

#include <event2/thread.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

struct world {
    char folder[64], path[96], listen[112], error[256];
    struct event_base *base;
    struct metrics_server *server;
    pthread_t thread;
    struct histogram histogram;
};

static void fill(void *context, struct metrics_page *page) {
    const struct world *world = context;
    metrics_family(page, METRIC_COUNTER, "x_messages", "What is counted.");
    metrics_sample(page, 3, "site", "mx \"one\"\\two\nthree\xff", "pool", "a", NULL);
    metrics_sample(page, 1234567890123.0, "site", "b", NULL);
    metrics_one(page, METRIC_GAUGE, "x_share", "A share.", 0.25);
    metrics_family(page, METRIC_HISTOGRAM, "x_seconds", "A time.");
    metrics_histogram(page, &world->histogram, "kind", "k");
}

static void *serve(void *argument) {
    event_base_loop(((struct world *)argument)->base, EVLOOP_NO_EXIT_ON_EMPTY);
    return NULL;
}

static char *get(const struct world *world, const char *request) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char *text = calloc(1, 65536);
    size_t length = 0;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    strcpy(address.sun_path, world->path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(write(fd, request, strlen(request)), strlen(request));
    for (ssize_t count; length < 65535 && (count = read(fd, text + length, 65535 - length)) > 0;)
        length += (size_t)count;
    close(fd);
    return text;
}

static int setup(void **state) {
    struct world *world = calloc(1, sizeof(*world));
    strcpy(world->folder, "/tmp/bypost-metrics-XXXXXX");
    assert_non_null(mkdtemp(world->folder));
    snprintf(world->path, sizeof(world->path), "%s/metrics.sock", world->folder);
    snprintf(world->listen, sizeof(world->listen), "unix:%s", world->path);
    evthread_use_pthreads();
    world->base = event_base_new();
    histogram_add(&world->histogram, 100);                    /* at a bound: in its bucket */
    histogram_add(&world->histogram, 2000000);                /* 2 s */
    histogram_add(&world->histogram, UINT64_C(400000000000)); /* above all */
    world->server = metrics_create(world->base, world->listen, fill, world, world->error, sizeof(world->error));
    assert_non_null(world->server);
    pthread_create(&world->thread, NULL, serve, world);
    free(get(world, "GET /other HTTP/1.0\r\n\r\n")); /* the loop runs: it can be broken */
    *state = world;
    return 0;
}

static int teardown(void **state) {
    struct world *world = *state;
    event_base_loopbreak(world->base);
    pthread_join(world->thread, NULL);
    metrics_destroy(world->server);
    event_base_free(world->base);
    assert_int_not_equal(access(world->path, F_OK), 0); /* it takes its socket away */
    rmdir(world->folder);
    free(world);
    return 0;
}

static void has(const char *text, const char *line) {
    if (strstr(text, line) == NULL) {
        print_error("what is missing: ");
        print_error("%.200s", line);
        fail();
    }
}

static void text_format(void **state) {
    char *text = get(*state, "GET /metrics HTTP/1.0\r\nAccept: text/plain\r\n\r\n");
    has(text, "200 OK");
    has(text, "Content-Type: text/plain; version=0.0.4; charset=utf-8");
    has(text, "# HELP x_messages_total What is counted.\n# TYPE x_messages_total counter\n");
    has(text, "x_messages_total{site=\"mx \\\"one\\\"\\\\two?three?\",pool=\"a\"} 3\n");
    has(text, "x_messages_total{site=\"b\"} 1234567890123\n");
    has(text, "# TYPE x_share gauge\nx_share 0.25\n");
    has(text, "x_seconds_bucket{kind=\"k\",le=\"0.0001\"} 1\n");
    has(text, "x_seconds_bucket{kind=\"k\",le=\"1\"} 1\n");
    has(text, "x_seconds_bucket{kind=\"k\",le=\"2.5\"} 2\n");
    has(text, "x_seconds_bucket{kind=\"k\",le=\"259200\"} 2\n");
    has(text, "x_seconds_bucket{kind=\"k\",le=\"+Inf\"} 3\nx_seconds_sum{kind=\"k\"} 400002.0001\nx_seconds_count{kind=\"k\"} 3\n");
    assert_null(strstr(text, "# EOF"));
    free(text);
}

static void open_metrics(void **state) {
    char *text = get(*state, "GET /metrics HTTP/1.0\r\nAccept: application/openmetrics-text; version=1.0.0\r\n\r\n");
    has(text, "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8");
    has(text, "# HELP x_messages What is counted.\n# TYPE x_messages counter\n");
    has(text, "x_messages_total{site=\"b\"} 1234567890123\n");
    has(text, "x_seconds_bucket{kind=\"k\",le=\"1.0\"} 1\n"); /* bounds are floats there */
    assert_string_equal(text + strlen(text) - strlen("# EOF\n"), "# EOF\n");
    free(text);
}

static void refused(void **state) {
    char *text = get(*state, "GET /other HTTP/1.0\r\n\r\n");
    has(text, "404");
    free(text);
    text = get(*state, "POST /metrics HTTP/1.0\r\nContent-Length: 0\r\n\r\n");
    assert_null(strstr(text, "200 OK"));
    free(text);
}

static unsigned descriptors_open(void) {
    unsigned count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* Those who connect and say nothing, or a byte now and then, keep nobody out, and take no more descriptors than are meant for them. */
static void crowd(void **state) {
    enum { CROWD = 200, SERVED = 40 };
    const struct world *world = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fds[CROWD];
    unsigned others = 0, before = descriptors_open();
    strcpy(address.sun_path, world->path);
    while (others < CROWD) {
        int connected = -1;
        fds[others] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        for (unsigned tries = 0; tries < 100 && connected != 0; tries++) { /* the backlog is short */
            connected = connect(fds[others], (struct sockaddr *)&address, sizeof(address));
            usleep(connected == 0 ? 0 : 1000);
        }
        (void)!write(fds[others], "GET /metr", 9);
        others++;
        if (connected != 0)
            break;
    }
    usleep(100000);
    assert_in_range(descriptors_open(), before + others, before + others + SERVED);
    for (unsigned i = SERVED; i < others; i++) /* what waits in the backlog would only take time */
        close(fds[i]);
    char *text = get(world, "GET /metrics HTTP/1.0\r\n\r\n");
    has(text, "200 OK");
    free(text);
    for (unsigned i = 0; i < SERVED && i < others; i++)
        close(fds[i]);
    for (unsigned i = 0; i < 100; i++) /* a hundred after one another: each leaves its place */
        free(get(world, "GET /other HTTP/1.0\r\n\r\n"));
    unsigned left = 0;
    for (unsigned i = 0; i < 100 && (left = descriptors_open()) > before; i++)
        usleep(50000);
    assert_in_range(left, 0, before); /* below: the setup's own has gone too */
}

static void addresses(void **state) {
    struct world *world = *state;
    struct event_base *base = event_base_new();
    char listen[128];
    assert_null(metrics_create(base, world->listen, fill, world, world->error, sizeof(world->error))); /* a living one is left alone */
    assert_non_null(strstr(world->error, "there already"));
    assert_int_equal(access(world->path, F_OK), 0);
    assert_null(metrics_create(base, "unix:/tmp", fill, world, world->error, sizeof(world->error)));
    assert_null(metrics_create(base, "203.0.113.77:9465", fill, world, world->error, sizeof(world->error))); /* none of ours */
    assert_null(metrics_create(base, "nothing", fill, world, world->error, sizeof(world->error)));
    /* A socket that a killed process left is replaced. */
    snprintf(listen, sizeof(listen), "unix:%s/stale", world->folder);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, listen + 5);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    struct metrics_server *server = metrics_create(base, listen, fill, world, world->error, sizeof(world->error));
    assert_non_null(server);
    struct stat status;
    assert_int_equal(stat(listen + 5, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0660);
    metrics_destroy(server);
    event_base_free(base);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(text_format, setup, teardown), cmocka_unit_test_setup_teardown(open_metrics, setup, teardown),
        cmocka_unit_test_setup_teardown(refused, setup, teardown), cmocka_unit_test_setup_teardown(crowd, setup, teardown),
        cmocka_unit_test_setup_teardown(addresses, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
