/* tcp_stack.c: the stack of one worker: its pools, its table of connections and the poll. */
#include <errno.h>
#include <stdlib.h>

#include "tcp_conn.h"

enum {
    HEADS_MIN = 64,
    FLIGHTS_PER_CONNECTION = 4, /* defaults: most sessions are idle, some have a window of messages in flight */
    RANGES_PER_CONNECTION = 8,
    CONNECTIONS_PER_BLOCK = 4,
    CONNECTIONS_PER_HALF_OPEN = 4, /* a flood of SYNs leaves most records to others */
    FLIGHTS_MIN = 32768,           /* of 40 bytes, untouched until used: one connection's 200 ms at 1 Gb/s */
    RANGES_MIN = 2048,
    BLOCKS_MIN = 256,
    CONNECTIONS_MAX = 1 << 24,
    MTU_MIN = 576,
    SEGMENTATION_MAX = 65535 - 60 - TCP_OPTIONS_BYTES_MAX, /* what one IP packet holds */
    RECEIVE_BUFFER_MIN = 1024,
    RECEIVE_BUFFER_MAX = 1 << 24,
    USER_TIMEOUT_US = 100 * 1000 * 1000, /* RFC 9293 3.8.3: R2 at least 100 s */
};

const char *tcp_error_text(enum tcp_error error) {
    switch (error) {
    case TCP_OK:
        return "closed in order";
    case TCP_REFUSED:
        return "connection refused";
    case TCP_RESET:
        return "connection reset by the peer";
    case TCP_TIMED_OUT:
        return "no answer from the peer";
    case TCP_UNREACHABLE:
        return "the peer cannot be reached";
    case TCP_ABORTED:
        return "aborted by this side";
    }
    return "unknown";
}

static uint32_t *heads_create(uint32_t records, uint32_t *mask) {
    uint32_t count = HEADS_MIN;
    while (count < records) {
        count <<= 1;
    }
    *mask = count - 1;
    uint32_t *heads = malloc(count * sizeof(uint32_t));
    if (heads != NULL) {
        memset(heads, 0xff, count * sizeof(uint32_t));
    }
    return heads;
}

static bool config_valid(const struct tcp_config *config) {
    return config->transmit != NULL && config->max_connections > 0 && config->max_connections <= CONNECTIONS_MAX &&
           config->mtu >= MTU_MIN && config->port_first > 0 && config->port_first <= config->port_last &&
           config->receive_buffer_bytes >= RECEIVE_BUFFER_MIN && config->receive_buffer_bytes <= RECEIVE_BUFFER_MAX;
}

static void config_defaults(struct tcp_config *config) {
    if (config->max_segments_in_flight == 0) {
        config->max_segments_in_flight = tcp_max(config->max_connections * FLIGHTS_PER_CONNECTION, FLIGHTS_MIN);
    }
    if (config->max_ranges == 0) {
        config->max_ranges = tcp_max(config->max_connections * RANGES_PER_CONNECTION, RANGES_MIN);
    }
    if (config->max_receive_blocks == 0) {
        config->max_receive_blocks =
            tcp_max(tcp_max(config->max_connections / CONNECTIONS_PER_BLOCK, BLOCKS_MIN), 2 * tcp_receive_blocks_max(config));
    }
    if (config->max_time_wait == 0) {
        config->max_time_wait = config->max_connections;
    }
    if (config->user_timeout_us == 0) {
        config->user_timeout_us = USER_TIMEOUT_US;
    }
    config->segmentation_bytes_max = tcp_min(config->segmentation_bytes_max, SEGMENTATION_MAX);
    if (config->max_half_open == 0) {
        config->max_half_open = tcp_max(config->max_connections / CONNECTIONS_PER_HALF_OPEN, 1);
    }
}

/* Different keys for different uses, so that what one shows tells nothing of another. */
static struct tcp_hash_key derive_key(const uint8_t secret[16], uint64_t use) {
    struct tcp_hash_key root, key;
    memcpy(&root, secret, sizeof(root));
    for (unsigned i = 0; i < 2; i++) {
        uint64_t word = use * 2 + i;
        key.words[i] = tcp_hash_strong(&root, &word, 1);
    }
    return key;
}

struct tcp_stack *tcp_stack_create(const struct tcp_config *given, uint64_t now_us) {
    if (!config_valid(given)) {
        errno = EINVAL;
        return NULL;
    }
    struct tcp_stack *stack = calloc(1, sizeof(*stack));
    if (stack == NULL) {
        return NULL;
    }
    stack->config = *given;
    config_defaults(&stack->config);
    const struct tcp_config *config = &stack->config;
    stack->table_key = derive_key(config->secret, 1);
    stack->isn_key = derive_key(config->secret, 2);
    stack->clock_key = derive_key(config->secret, 3);
    stack->random_key = derive_key(config->secret, 4);
    stack->ack_head = stack->closed_head = stack->closed_tail = stack->wait_oldest = stack->wait_newest = TCP_NONE;
    while (config->receive_buffer_bytes >> stack->rcv_shift > UINT16_MAX) {
        stack->rcv_shift++;
    }
    tcp_wheel_init(&stack->wheel, now_us);
    struct tcp_hash_key ports_key = derive_key(config->secret, 5);
    uint32_t users = config->max_connections + config->max_time_wait;
    stack->conn_heads = heads_create(config->max_connections, &stack->conn_mask);
    stack->wait_heads = heads_create(config->max_time_wait, &stack->wait_mask);
    if (stack->conn_heads == NULL || stack->wait_heads == NULL ||
        tcp_pool_create(&stack->conns, config->max_connections, sizeof(struct tcp_conn)) != 0 ||
        tcp_pool_create(&stack->ranges, config->max_ranges, sizeof(struct tcp_range)) != 0 ||
        tcp_pool_create(&stack->flights, config->max_segments_in_flight, sizeof(struct tcp_flight)) != 0 ||
        tcp_pool_create(&stack->blocks, config->max_receive_blocks, sizeof(struct tcp_block)) != 0 ||
        tcp_pool_create(&stack->waits, config->max_time_wait, sizeof(struct tcp_time_wait)) != 0 ||
        tcp_ports_create(&stack->ports, config, users, &ports_key) != 0 || tcp_listen_create(&stack->listeners) != 0 ||
        tcp_path_mtu_create(&stack->paths) != 0) {
        tcp_stack_destroy(stack);
        errno = ENOMEM;
        return NULL;
    }
    const struct tcp_pool *pools[] = {&stack->conns, &stack->ranges,      &stack->flights,     &stack->blocks,
                                      &stack->waits, &stack->ports.pairs, &stack->ports.blocks};
    stack->memory_bytes = sizeof(*stack) + TCP_LISTENERS_MAX * sizeof(struct tcp_listener) + tcp_path_mtu_memory_bytes() +
                          ((size_t)stack->conn_mask + stack->wait_mask + 2 + 2 * ((size_t)stack->ports.mask + 1)) * 4;
    for (size_t i = 0; i < sizeof(pools) / sizeof(pools[0]); i++) {
        stack->memory_bytes += (size_t)pools[i]->capacity * pools[i]->item_bytes;
    }
    return stack;
}

void tcp_stack_destroy(struct tcp_stack *stack) {
    if (stack == NULL) {
        return;
    }
    /* Open ones through the table, ended ones through their list. */
    for (uint32_t bucket = 0; stack->conns.in_use > 0 && bucket <= stack->conn_mask; bucket++) {
        for (uint32_t i = stack->conn_heads[bucket]; i != TCP_NONE; i = conn_at(stack, i)->hash_next) {
            tcp_conn_release(conn_at(stack, i));
        }
    }
    for (uint32_t i = stack->closed_head; i != TCP_NONE; i = conn_at(stack, i)->closed_next) {
        tcp_conn_release(conn_at(stack, i));
    }
    tcp_pool_destroy(&stack->conns);
    tcp_pool_destroy(&stack->ranges);
    tcp_pool_destroy(&stack->flights);
    tcp_pool_destroy(&stack->blocks);
    tcp_pool_destroy(&stack->waits);
    tcp_ports_destroy(&stack->ports);
    tcp_listen_destroy(&stack->listeners);
    tcp_path_mtu_destroy(&stack->paths);
    free(stack->conn_heads);
    free(stack->wait_heads);
    free(stack);
}

const struct tcp_counters *tcp_stack_counters(const struct tcp_stack *stack) {
    return &stack->counters;
}

uint32_t tcp_stack_connections(const struct tcp_stack *stack) {
    return stack->conns.in_use;
}

size_t tcp_stack_memory_bytes(const struct tcp_stack *stack) {
    return stack->memory_bytes;
}

void tcp_stack_usage(const struct tcp_stack *stack, struct tcp_usage *usage) {
    *usage = (struct tcp_usage){.connections = stack->conns.in_use,
                                .ranges = stack->ranges.in_use,
                                .segments_in_flight = stack->flights.in_use,
                                .receive_blocks = stack->blocks.in_use,
                                .time_wait = stack->waits.in_use,
                                .pairs = stack->ports.pairs.in_use,
                                .port_blocks = stack->ports.blocks.in_use};
}

void tcp_stack_capacity(const struct tcp_stack *stack, struct tcp_usage *capacity) {
    *capacity = (struct tcp_usage){.connections = stack->conns.capacity,
                                   .ranges = stack->ranges.capacity,
                                   .segments_in_flight = stack->flights.capacity,
                                   .receive_blocks = stack->blocks.capacity,
                                   .time_wait = stack->waits.capacity,
                                   .pairs = stack->ports.pairs.capacity,
                                   .port_blocks = stack->ports.blocks.capacity};
}

uint32_t tcp_stack_hash(const struct tcp_stack *stack, const uint8_t local[16], const uint8_t remote[16], uint8_t family,
                        uint16_t local_port, uint16_t remote_port) {
    uint64_t words[5];
    unsigned count = tcp_tuple_words(words, local, remote, family, local_port, remote_port);
    return (uint32_t)tcp_hash_fast(&stack->table_key, words, count);
}

uint32_t tcp_stack_find(const struct tcp_stack *stack, uint32_t hash, const uint8_t local[16], const uint8_t remote[16], uint8_t family,
                        uint16_t local_port, uint16_t remote_port) {
    uint32_t index = stack->conn_heads[hash & stack->conn_mask];
    while (index != TCP_NONE) {
        const struct tcp_conn *conn = conn_at(stack, index);
        if (conn->local_port == local_port && conn->remote_port == remote_port && conn->family == family &&
            memcmp(conn->remote, remote, 16) == 0 && memcmp(conn->local, local, 16) == 0) {
            return index;
        }
        index = conn->hash_next;
    }
    return TCP_NONE;
}

void tcp_stack_insert(struct tcp_stack *stack, struct tcp_conn *conn) {
    uint32_t *head = &stack->conn_heads[conn->hash & stack->conn_mask];
    conn->hash_next = *head;
    *head = conn_index(conn);
}

void tcp_stack_remove(struct tcp_stack *stack, struct tcp_conn *conn) {
    uint32_t *link = &stack->conn_heads[conn->hash & stack->conn_mask];
    uint32_t index = conn_index(conn);
    while (*link != index) {
        link = &conn_at(stack, *link)->hash_next;
    }
    *link = conn->hash_next;
}

uint64_t tcp_stack_random(struct tcp_stack *stack) {
    uint64_t word = stack->random_count++;
    return tcp_hash_strong(&stack->random_key, &word, 1);
}

uint64_t tcp_poll(struct tcp_stack *stack, uint32_t budget, uint64_t now_us) {
    uint32_t done = tcp_timer_run(stack, budget, now_us);
    tcp_output_flush_acks(stack, now_us);
    done += tcp_conn_reap(stack, budget, now_us);
    done += tcp_time_wait_expire(stack, budget, now_us);
    if (stack->closed_head != TCP_NONE || stack->ack_head != TCP_NONE || done >= budget) {
        return now_us;
    }
    uint64_t timer = tcp_timer_next(stack), wait = tcp_time_wait_next(stack);
    uint64_t next = timer < wait ? timer : wait;
    return next > now_us ? next : now_us;
}
