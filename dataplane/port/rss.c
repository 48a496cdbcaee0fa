/* rss.c: how a device spreads received frames over its queues: set up where it can, and read back as it really is. */
#include "port_private.h"
#include "toeplitz.h"
#include <string.h>

enum { RSS_KEY_USED_BYTES = 40 }; /* what a device without a word about its key's length has */

static uint64_t rss_types(const struct rte_eth_dev_info *info) {
    return info->flow_type_rss_offloads & (RTE_ETH_RSS_NONFRAG_IPV4_TCP | RTE_ETH_RSS_NONFRAG_IPV6_TCP);
}

/* No key is given, so that the driver's own stays: a key that is not NULL needs its exact length, which drivers of 22.11 do not all tell.
 */
bool port_rss_request(const struct port *port, const struct rte_eth_dev_info *info, struct rte_eth_conf *conf) {
    if (port->queues < 2 || rss_types(info) == 0)
        return false;
    conf->rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
    conf->rx_adv_conf.rss_conf.rss_hf = rss_types(info);
    return true;
}

static bool rss_read_key(uint16_t id, const struct rte_eth_dev_info *info, struct port_rss *rss) {
    struct rte_eth_rss_conf conf;
    memset(&conf, 0, sizeof conf);
    uint8_t length = info->hash_key_size != 0 ? info->hash_key_size : RSS_KEY_USED_BYTES;
    if (length > PORT_RSS_KEY_MAX)
        return false;
    conf.rss_key = rss->key;
    conf.rss_key_len = length;
    if (rte_eth_dev_rss_hash_conf_get(id, &conf) != 0 || (conf.rss_hf & RTE_ETH_RSS_NONFRAG_IPV4_TCP) == 0)
        return false;
    rss->key_length = length;
    for (uint8_t i = 0; i < length; i++)
        if (rss->key[i] != 0)
            return true;
    return false; /* a driver that answered without giving the key */
}

static bool rss_read_table(uint16_t id, const struct rte_eth_dev_info *info, uint16_t queues, struct port_rss *rss) {
    struct rte_eth_rss_reta_entry64 groups[PORT_RETA_MAX / RTE_ETH_RETA_GROUP_SIZE];
    uint16_t size = info->reta_size;
    if (size == 0 || size > PORT_RETA_MAX || (size & (size - 1)) != 0)
        return false;
    memset(groups, 0, sizeof groups);
    for (uint16_t entry = 0; entry < size; entry++)
        groups[entry / RTE_ETH_RETA_GROUP_SIZE].mask |= UINT64_C(1) << entry % RTE_ETH_RETA_GROUP_SIZE;
    if (rte_eth_dev_rss_reta_query(id, groups, size) != 0)
        return false;
    bool served[PORT_WORKERS_MAX] = {false};
    uint16_t queues_served = 0;
    for (uint16_t entry = 0; entry < size; entry++) {
        rss->reta[entry] = groups[entry / RTE_ETH_RETA_GROUP_SIZE].reta[entry % RTE_ETH_RETA_GROUP_SIZE];
        if (rss->reta[entry] >= queues)
            return false;
        queues_served += !served[rss->reta[entry]];
        served[rss->reta[entry]] = true;
    }
    rss->reta_size = size;
    return queues_served == queues; /* a worker without an entry could open nothing */
}

void port_rss_learn(struct port *port, enum port_steering steering, uint32_t workers) {
    struct rte_eth_dev_info info;
    memset(&port->rss, 0, sizeof port->rss);
    /* With one queue every frame comes to worker 0: who owns it is quicker told by its port than by its hash. */
    if (steering == PORT_STEERING_RANGES || port->queues < 2 || port->queues < workers)
        return;
    if (steering == PORT_STEERING_TOEPLITZ) {
        toeplitz_rss_default(&port->rss, port->queues);
        return;
    }
    const struct port_device *device = port->private;
    struct port_rss rss;
    memset(&rss, 0, sizeof rss);
    if (!device->hashes_asked || rte_eth_dev_info_get(port->id, &info) != 0 || rss_types(&info) == 0 ||
        !rss_read_key(port->id, &info, &rss) || !rss_read_table(port->id, &info, port->queues, &rss))
        return;
    rss.hashes = true;
    port->rss = rss;
}
