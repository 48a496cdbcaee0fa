/* flows.h: who reads next of normal, bulk and all other queues together: each by its weight, by virtual time. Private to fetch; pure. */
#ifndef CONTROL_FETCH_FLOWS_H
#define CONTROL_FETCH_FLOWS_H

#include <stdbool.h>
#include <stdint.h>

enum flow { FLOW_NORMAL, FLOW_BULK, FLOW_OTHERS, FLOWS };
enum { NORMAL_WEIGHT = 4 }; /* of normal when it has none of its own: so much for all others together, so that campaigns cannot starve it */

struct flows {
    double time[FLOWS];   /* recipients read / weight */
    double weight[FLOWS]; /* 0: by default */
    bool busy[FLOWS];     /* its last read did not empty it */
};

/* The one that had least for its weight, of those whose bit in `tried` is not set. FLOWS: none is left. */
enum flow flows_next(const struct flows *flows, uint32_t tried);
/* It was read: so many recipients; `more`: there may be others behind them. One that comes back from being empty starts where the others
 * are. */
void flows_charge(struct flows *flows, enum flow flow, uint64_t recipients, bool more);

#endif
