/* table.h: an intrusive hash table with a secret seed, because its keys come from the network. The owner allocates the nodes. */
#ifndef CONTROL_ROUTE_TABLE_H
#define CONTROL_ROUTE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct table_node {
    struct table_node *next;
    uint64_t hash;
};

struct table {
    struct table_node **buckets;
    size_t bucket_count; /* a power of two */
    size_t count;
    uint64_t seed;
};

/* 0 or -ENOMEM. */
int table_init(struct table *table);
/* Frees the buckets; the nodes are the owner's. */
void table_clear(struct table *table);
uint64_t table_hash(const struct table *table, const void *key, size_t key_bytes);
/* The first node with this hash, then the following ones by table_next: the caller compares the keys. */
struct table_node *table_first(const struct table *table, uint64_t hash);
struct table_node *table_next(const struct table_node *node);
/* Grows by doubling; when memory is short it keeps its size and its chains grow. */
void table_insert(struct table *table, struct table_node *node, uint64_t hash);
void table_remove(struct table *table, struct table_node *node);
/* Calls `each` for every node; it may remove and free the node that it is given. */
void table_each(struct table *table, void (*each)(void *context, struct table_node *node), void *context);

#define TABLE_ENTRY(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

#endif
