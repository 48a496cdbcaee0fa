/* The local socket: answers, bounds, stale and living sockets. The server runs in a thread of its own, as control's loop would. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "control/observe/local.h"

#include <event2/thread.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

struct world {
    char folder[64], path[96], error[512];
    struct event_base *base;
    struct local_server *server;
    pthread_t thread;
    _Atomic bool slow;
};

static char *answer(void *context, const char *request) {
    struct world *world = context;
    if (world->slow) {
        usleep(500000);
    }
    if (strcmp(request, "big") == 0) {
        char *text = malloc((1 << 20) + 1);
        memset(text, 'x', 1 << 20);
        text[1 << 20] = 0;
        return text;
    }
    return strcmp(request, "ping") == 0 ? strdup("{\"pong\":true}") : NULL;
}

static void *serve(void *argument) {
    event_base_loop(((struct world *)argument)->base, EVLOOP_NO_EXIT_ON_EMPTY);
    return NULL;
}

static int setup(void **state) {
    struct world *world = calloc(1, sizeof *world);
    strcpy(world->folder, "/tmp/bypost-local-XXXXXX");
    assert_non_null(mkdtemp(world->folder));
    snprintf(world->path, sizeof world->path, "%s/control.sock", world->folder);
    evthread_use_pthreads();
    world->base = event_base_new();
    world->server = local_server_create(world->base, world->path, answer, world, world->error, sizeof world->error);
    assert_non_null(world->server);
    pthread_create(&world->thread, NULL, serve, world);
    char *reply = local_request(world->path, "ping", 5000, world->error, sizeof world->error); /* the loop runs: it can be broken */
    assert_non_null(reply);
    free(reply);
    *state = world;
    return 0;
}

static int teardown(void **state) {
    struct world *world = *state;
    event_base_loopbreak(world->base);
    pthread_join(world->thread, NULL);
    local_server_destroy(world->server);
    event_base_free(world->base);
    assert_int_not_equal(access(world->path, F_OK), 0); /* it takes its socket away */
    rmdir(world->folder);
    free(world);
    return 0;
}

static int raw_connect(const struct world *world) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    strcpy(address.sun_path, world->path);
    const struct timeval patience = {.tv_sec = 5};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void answers(void **state) {
    struct world *world = *state;
    char *text = local_request(world->path, "ping", 2000, world->error, sizeof world->error);
    assert_non_null(text);
    assert_string_equal(text, "{\"pong\":true}");
    free(text);
    text = local_request(world->path, "what", 2000, world->error, sizeof world->error);
    assert_string_equal(text, "{\"error\":\"unknown request\"}");
    free(text);
    text = local_request(world->path, "big", 5000, world->error, sizeof world->error);
    assert_non_null(text);
    assert_int_equal(strlen(text), 1 << 20);
    free(text);
    struct stat status;
    assert_int_equal(stat(world->path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0660);
}

/* Several requests in one write, one of them in two; and what was asked before the client's end of writing is answered. */
static void pipelined(void **state) {
    const struct world *world = *state;
    char text[256];
    size_t length = 0;
    int fd = raw_connect(world);
    assert_int_equal(write(fd, "ping\nping\r\npi", 13), 13);
    usleep(20000);
    assert_int_equal(write(fd, "ng\n", 3), 3);
    shutdown(fd, SHUT_WR);
    for (ssize_t count; (count = read(fd, text + length, sizeof text - length)) > 0;) {
        length += (size_t)count;
    }
    assert_int_equal(length, 3 * strlen("{\"pong\":true}\n"));
    close(fd);
}

/* An answer larger than the socket takes at once, to a client that has ended its side: it comes whole. */
static void half_closed(void **state) {
    const struct world *world = *state;
    char text[65536];
    size_t length = 0;
    int fd = raw_connect(world);
    assert_int_equal(write(fd, "big\n", 4), 4);
    shutdown(fd, SHUT_WR);
    usleep(100000);
    for (ssize_t count; (count = read(fd, text, sizeof text)) > 0;) {
        length += (size_t)count;
    }
    assert_int_equal(length, (1 << 20) + 1);
    close(fd);
}

/* A line without an end, or over the bound, ends the connection: not the server. */
static void too_long(void **state) {
    struct world *world = *state;
    char text[8192];
    memset(text, 'p', sizeof text);
    for (int with_end = 0; with_end < 2; with_end++) {
        int fd = raw_connect(world);
        text[sizeof text - 1] = with_end ? '\n' : 'p';
        assert_int_equal(send(fd, text, sizeof text, MSG_NOSIGNAL), sizeof text);
        assert_true(read(fd, text, 1) <= 0);
        memset(text, 'p', sizeof text);
        close(fd);
    }
    char *reply = local_request(world->path, "ping", 2000, world->error, sizeof world->error);
    assert_non_null(reply);
    free(reply);
    text[sizeof text - 1] = 0;
    assert_null(local_request(world->path, text, 2000, world->error, sizeof world->error));
    assert_null(local_request(world->path, "ping\nping", 2000, world->error, sizeof world->error));
}

static void many_clients(void **state) {
    struct world *world = *state;
    int fds[80];
    for (unsigned i = 0; i < 80; i++) {
        fds[i] = raw_connect(world);
        usleep(1000);
    }
    for (unsigned i = 0; i < 80; i++) {
        close(fds[i]);
    }
    usleep(50000);
    char *reply = local_request(world->path, "ping", 2000, world->error, sizeof world->error);
    assert_non_null(reply);
    free(reply);
}

static void timeouts(void **state) {
    struct world *world = *state;
    world->slow = true;
    assert_null(local_request(world->path, "ping", 50, world->error, sizeof world->error));
    assert_non_null(strstr(world->error, "gave no answer"));
    world->slow = false;
}

/* A living process's socket is not taken away; a dead one's is. */
static void living_and_stale(void **state) {
    struct world *world = *state;
    assert_null(local_server_create(world->base, world->path, answer, world, world->error, sizeof world->error));
    assert_non_null(strstr(world->error, "Another control process listens"));
    char *reply = local_request(world->path, "ping", 2000, world->error, sizeof world->error);
    assert_non_null(reply);
    free(reply);

    char stale[96];
    snprintf(stale, sizeof stale, "%s/stale.sock", world->folder);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, stale);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd); /* the name stays, as after kill -9 */
    assert_null(local_request(stale, "ping", 2000, world->error, sizeof world->error));
    assert_non_null(strstr(world->error, "bypost run"));
    struct local_server *server = local_server_create(world->base, stale, answer, world, world->error, sizeof world->error);
    assert_non_null(server);
    local_server_destroy(server);
}

static void no_socket(void **state) {
    struct world *world = *state;
    char path[256];
    snprintf(path, sizeof path, "%s/plain", world->folder);
    fclose(fopen(path, "w"));
    assert_null(local_server_create(world->base, path, answer, world, world->error, sizeof world->error));
    assert_non_null(strstr(world->error, "is no socket"));
    assert_int_equal(access(path, F_OK), 0); /* a file of someone else's is left alone */
    unlink(path);
    memset(path, 'a', sizeof path - 1);
    path[0] = '/';
    path[sizeof path - 1] = 0;
    assert_null(local_server_create(world->base, path, answer, world, world->error, sizeof world->error));
    assert_null(local_server_create(world->base, "/nonexistent/x.sock", answer, world, world->error, sizeof world->error));
    assert_non_null(strstr(world->error, "See that the folder exists"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(answers, setup, teardown),          cmocka_unit_test_setup_teardown(pipelined, setup, teardown),
        cmocka_unit_test_setup_teardown(half_closed, setup, teardown),      cmocka_unit_test_setup_teardown(too_long, setup, teardown),
        cmocka_unit_test_setup_teardown(many_clients, setup, teardown),     cmocka_unit_test_setup_teardown(timeouts, setup, teardown),
        cmocka_unit_test_setup_teardown(living_and_stale, setup, teardown), cmocka_unit_test_setup_teardown(no_socket, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
