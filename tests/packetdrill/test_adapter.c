/* test_adapter.c: the shared object as packetdrill uses it: loaded, filled, driven by packets in virtual time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "datagram.h"
#include "interface.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

static const char *shared_object;

struct script {
    void *handle;
    struct packetdrill_interface tool;
    uint8_t bytes[DATAGRAM_BYTES_MAX];
    struct tcp_packet seen; /* the last packet of the stack */
    long long seen_us;
};

static int open_script(void **state) {
    struct script *script = calloc(1, sizeof(*script));
    assert_non_null(script);
    setenv("BYPOST_LOCAL4", "192.168.0.1", 1);
    script->handle = dlopen(shared_object, RTLD_NOW | RTLD_LOCAL);
    if (script->handle == NULL)
        fail_msg("%s", dlerror());
    void (*init)(const char *, struct packetdrill_interface *) = NULL;
    *(void **)&init = dlsym(script->handle, "packetdrill_interface_init");
    assert_non_null(init);
    init("mtu=1500", &script->tool);
    *state = script;
    return 0;
}

static int close_script(void **state) {
    struct script *script = *state;
    script->tool.free(script->tool.userdata);
    dlclose(script->handle);
    free(script);
    return 0;
}

static uint32_t get32(const uint8_t *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* The stack's next packet, seen from the other side: `local` is the script's end. */
static void expect(struct script *script, uint8_t flags, uint32_t payload) {
    size_t length = sizeof(script->bytes);
    struct datagram_error error;
    assert_int_equal(script->tool.netdev_receive(script->tool.userdata, script->bytes, &length, &script->seen_us), 0);
    assert_int_equal(datagram_read(script->bytes, (uint32_t)length, &script->seen, &error), DATAGRAM_TCP);
    assert_int_equal(script->seen.header[13], flags);
    assert_int_equal(script->seen.length - (uint32_t)(script->seen.header[12] >> 4) * 4, payload);
}

/* A packet from the script's end to where the last one came from. */
static void inject(struct script *script, uint8_t flags, uint32_t sequence, uint32_t acknowledgement) {
    static uint8_t bytes[DATAGRAM_BYTES_MAX];
    struct tcp_segment segment = {.local = script->seen.local,
                                  .remote = script->seen.remote,
                                  .local_port = (uint16_t)(script->seen.header[2] << 8 | script->seen.header[3]),
                                  .remote_port = (uint16_t)(script->seen.header[0] << 8 | script->seen.header[1]),
                                  .sequence = sequence,
                                  .acknowledgement = acknowledgement,
                                  .flags = flags,
                                  .window = 32768};
    assert_int_equal(script->tool.netdev_send(script->tool.userdata, bytes, datagram_write(bytes, &segment)), 0);
}

/* RFC 9293 3.5, RFC 6298: open, a segment lost once and repeated after the timeout in virtual time, an orderly close. */
static void a_connection_lives_in_virtual_time(void **state) {
    struct script *script = *state;
    void *user = script->tool.userdata;
    struct sockaddr_in remote = {.sin_family = AF_INET, .sin_port = htons(25)};
    inet_pton(AF_INET, "192.0.2.1", &remote.sin_addr);
    int fd = script->tool.socket(user, AF_INET, SOCK_STREAM, 0);
    assert_int_equal(script->tool.fcntl(user, fd, F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(script->tool.connect(user, fd, (struct sockaddr *)&remote, sizeof(remote)), -1);
    assert_int_equal(errno, EINPROGRESS);
    expect(script, TCP_SYN, 0);
    uint32_t ours = get32(script->seen.header + 4) + 1;
    inject(script, TCP_SYN | TCP_ACK, 999, ours);
    expect(script, TCP_ACK, 0);
    struct pollfd poll = {.fd = fd, .events = POLLIN | POLLOUT};
    assert_int_equal(script->tool.poll(user, &poll, 1, 0), 1);
    assert_int_equal(poll.revents, POLLOUT);
    assert_int_equal(script->tool.write(user, fd, "EHLO\r\n", 6), 6);
    expect(script, TCP_ACK | TCP_PSH, 6);
    long long sent_us = script->seen_us;
    expect(script, TCP_ACK | TCP_PSH, 6);
    assert_true(script->seen_us >= sent_us + 2000); /* a tail probe or the timeout, never at once */
    inject(script, TCP_ACK, 1000, ours + 6);
    assert_int_equal(script->tool.shutdown(user, fd, SHUT_WR), 0);
    expect(script, TCP_ACK | TCP_FIN, 0);
    inject(script, TCP_ACK | TCP_FIN, 1000, ours + 7);
    expect(script, TCP_ACK, 0);
    char byte;
    assert_int_equal(script->tool.read(user, fd, &byte, 1), 0);
    assert_int_equal(script->tool.close(user, fd), 0);
}

static void a_refused_connection_says_so(void **state) {
    struct script *script = *state;
    void *user = script->tool.userdata;
    struct sockaddr_in remote = {.sin_family = AF_INET, .sin_port = htons(25)};
    inet_pton(AF_INET, "192.0.2.1", &remote.sin_addr);
    int fd = script->tool.socket(user, AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), error = 0;
    script->tool.connect(user, fd, (struct sockaddr *)&remote, sizeof(remote));
    expect(script, TCP_SYN, 0);
    inject(script, TCP_RST | TCP_ACK, 0, get32(script->seen.header + 4) + 1);
    socklen_t length = sizeof(error);
    assert_int_equal(script->tool.getsockopt(user, fd, SOL_SOCKET, SO_ERROR, &error, &length), 0);
    assert_int_equal(error, ECONNREFUSED);
    assert_int_equal(script->tool.close(user, fd), 0);
}

static void the_clock_moves_only_when_asked(void **state) {
    struct script *script = *state;
    struct timeval before, after;
    script->tool.gettimeofday(script->tool.userdata, &before, NULL);
    script->tool.usleep(script->tool.userdata, 5000000);
    script->tool.gettimeofday(script->tool.userdata, &after, NULL);
    assert_int_equal((after.tv_sec - before.tv_sec) * 1000000 + after.tv_usec - before.tv_usec, 5000001);
}

int main(int argc, char **argv) {
    if (argc != 2)
        return 2;
    shared_object = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_connection_lives_in_virtual_time, open_script, close_script),
        cmocka_unit_test_setup_teardown(a_refused_connection_says_so, open_script, close_script),
        cmocka_unit_test_setup_teardown(the_clock_moves_only_when_asked, open_script, close_script),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
