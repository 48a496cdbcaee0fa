/* sd_notify(3): a datagram to a path or to a name in the abstract namespace; nothing where nobody asks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <bypost/notify.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* A socket bound to what NOTIFY_SOCKET then says. */
static int listen_at(const char *name) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    memcpy(address.sun_path, name, strlen(name));
    if (name[0] == '@')
        address.sun_path[0] = '\0';
    assert_int_equal(bind(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name))), 0);
    setenv("NOTIFY_SOCKET", name, 1);
    return fd;
}

static void heard(int fd, const char *wanted) {
    char text[256] = "";
    assert_true(recv(fd, text, sizeof(text) - 1, 0) > 0);
    assert_memory_equal(text, wanted, strlen(wanted));
}

static void path_and_abstract(void **state) {
    char path[64], name[64];
    snprintf(path, sizeof(path), "/tmp/bypost-notify-%d", (int)getpid());
    snprintf(name, sizeof(name), "@bypost-notify-%d", (int)getpid());
    for (int i = 0; i < 2; i++) {
        int fd = listen_at(i == 0 ? path : name);
        assert_int_equal(notify_send("READY=1\nSTATUS=all is well"), 0);
        heard(fd, "READY=1\nSTATUS=all is well");
        assert_int_equal(notify_reloading(), 0);
        heard(fd, "RELOADING=1\nMONOTONIC_USEC=");
        close(fd);
        assert_true(notify_send("WATCHDOG=1") < 0); /* nobody there: told, not waited for */
    }
    unlink(path);
}

static void nobody_asks(void **state) {
    unsetenv("NOTIFY_SOCKET");
    assert_int_equal(notify_send("READY=1"), -ENOENT);
    setenv("NOTIFY_SOCKET", "relative", 1);
    assert_int_equal(notify_send("READY=1"), -EINVAL);
    char path[256];
    memset(path, '/', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    setenv("NOTIFY_SOCKET", path, 1);
    assert_int_equal(notify_send("READY=1"), -EINVAL);
}

/* Half of what systemd waits; nothing when it means another process. */
static void watchdog(void **state) {
    char pid[16];
    unsetenv("WATCHDOG_USEC");
    assert_int_equal(notify_watchdog_us(), 0);
    setenv("WATCHDOG_USEC", "30000000", 1);
    assert_int_equal(notify_watchdog_us(), 15000000);
    setenv("WATCHDOG_PID", "1", 1);
    assert_int_equal(notify_watchdog_us(), 0);
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    setenv("WATCHDOG_PID", pid, 1);
    assert_int_equal(notify_watchdog_us(), 15000000);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(path_and_abstract), cmocka_unit_test(nobody_asks), cmocka_unit_test(watchdog)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
