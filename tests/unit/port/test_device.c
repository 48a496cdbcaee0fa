/* test_device.c: opening and closing a device: one that refuses what it offered, one queue for many workers, frames on their way at the
 * end. The device is DPDK's net_null, which receives an empty frame whenever it is asked; what it says of itself is changed on the way. */
#include "dataplane/port/port.h"
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { MANY_WORKERS = 16 };

static bool one_queue, refuses_rss; /* the device of the test */
static uint32_t configured;

int __real_rte_eth_dev_info_get(uint16_t id, struct rte_eth_dev_info *info);
int __wrap_rte_eth_dev_info_get(uint16_t id, struct rte_eth_dev_info *info);
int __wrap_rte_eth_dev_info_get(uint16_t id, struct rte_eth_dev_info *info) {
    int rc = __real_rte_eth_dev_info_get(id, info);
    if (one_queue)
        info->max_rx_queues = info->max_tx_queues = 1;
    return rc;
}

int __real_rte_eth_dev_configure(uint16_t id, uint16_t rx, uint16_t tx, const struct rte_eth_conf *conf);
int __wrap_rte_eth_dev_configure(uint16_t id, uint16_t rx, uint16_t tx, const struct rte_eth_conf *conf);
int __wrap_rte_eth_dev_configure(uint16_t id, uint16_t rx, uint16_t tx, const struct rte_eth_conf *conf) {
    configured++;
    return refuses_rss && conf->rxmode.mq_mode != RTE_ETH_MQ_RX_NONE ? -EINVAL : __real_rte_eth_dev_configure(id, rx, tx, conf);
}

/* A pool that goes while mbufs of it are elsewhere is written to when those are freed. */
void __real_rte_mempool_free(struct rte_mempool *pool);
void __wrap_rte_mempool_free(struct rte_mempool *pool);
void __wrap_rte_mempool_free(struct rte_mempool *pool) {
    if (pool != NULL)
        assert_int_equal(rte_mempool_in_use_count(pool), 0);
    __real_rte_mempool_free(pool);
}

static int start_eal(void **state) {
    char *arguments[] = {"test_device", "--no-huge", "--no-pci", "--no-shconf", "--no-telemetry", "--log-level=1", "-m", "512", "-l", "0"};
    return rte_eal_init(sizeof arguments / sizeof arguments[0], arguments) < 0;
}

static int stop_eal(void **state) {
    rte_eal_cleanup();
    return 0;
}

static void open_null(struct port *port, uint32_t workers) {
    char error[256] = "";
    const struct port_request request = {.device = "net_null0", .mode = PORT_MODE_COPY, .mtu = 1500, .workers = workers};
    if (port_open(port, &request, error, sizeof error) != 0)
        fail_msg("%s", error);
}

/* A driver that offers RSS and then refuses it: the port opens without, and local ports are divided by range. */
static void test_refused_hashing(void **state) {
    struct port port;
    refuses_rss = true;
    configured = 0;
    open_null(&port, 2);
    assert_int_equal(configured, 2);
    assert_int_equal(port.queues, 2);
    assert_false(port.rss.hashes);
    port_close(&port);
    refuses_rss = false;
}

/* Whoever sends on a shared queue gives the mbufs that the device has sent back into a cache of its own core, whosever they are: with all
 * of those caches and the device full there must still be some to send with. */
static void test_shared_queue_leaves_mbufs_to_each(void **state) {
    struct port port;
    struct counters counters = {0};
    struct port_queue *queues[MANY_WORKERS];
    one_queue = true;
    open_null(&port, MANY_WORKERS);
    assert_int_equal(port.queues, 1);
    for (uint32_t worker = 0; worker < MANY_WORKERS; worker++) {
        char name[RTE_MEMPOOL_NAMESIZE];
        queues[worker] = port_queue_create(&port, worker, MANY_WORKERS, NULL, 0, &counters);
        assert_non_null(queues[worker]);
        snprintf(name, sizeof name, "port%u.tx%u", port.id, worker);
        const struct rte_mempool *pool = rte_mempool_lookup(name);
        struct rte_eth_txq_info sending;
        assert_non_null(pool);
        uint32_t descriptors = rte_eth_tx_queue_info_get(port.id, 0, &sending) == 0 ? sending.nb_desc : 1024;
        assert_true(pool->size >=
                    descriptors + MANY_WORKERS * pool->cache_size * 3 / 2 + PORT_BURST); /* a cache grows to 1.5 times its size */
    }
    for (uint32_t worker = 0; worker < MANY_WORKERS; worker++)
        port_queue_destroy(queues[worker]);
    port_close(&port);
    one_queue = false;
}

static void hand_over(void *context, const uint8_t *frame, uint32_t length) {
    assert_int_equal(port_hand_over(context, 1), 0);
}

/* Frames that worker 0 has handed over and worker 1 has not taken are of worker 0's pool: it goes after the rings. */
static void test_close_with_frames_handed_over(void **state) {
    struct port port;
    struct counters counters = {0};
    open_null(&port, 2);
    struct port_queue *queues[2] = {port_queue_create(&port, 0, 2, NULL, 0, &counters), port_queue_create(&port, 1, 2, NULL, 0, &counters)};
    assert_non_null(queues[0]);
    assert_non_null(queues[1]);
    assert_int_equal(port_receive(queues[0], hand_over, queues[0]), PORT_BURST);
    assert_int_equal(counter_get(&counters.frames_handed_over), PORT_BURST);
    port_queue_destroy(queues[0]);
    port_queue_destroy(queues[1]);
    port_close(&port);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused_hashing),
        cmocka_unit_test(test_shared_queue_leaves_mbufs_to_each),
        cmocka_unit_test(test_close_with_frames_handed_over),
    };
    return cmocka_run_group_tests(tests, start_eal, stop_eal);
}
