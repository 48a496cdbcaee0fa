/* flows.c: weighted fair order between three flows. */
#include "flows.h"

/* All others weigh what their queues weigh together; normal four times all others, bulk as much as one queue. */
static double weight_of(const struct flows *flows, enum flow flow) {
    double others = flows->weight[FLOW_OTHERS] > 1 ? flows->weight[FLOW_OTHERS] : 1;
    if (flow != FLOW_OTHERS && flows->weight[flow] > 0) {
        return flows->weight[flow];
    }
    return flow == FLOW_OTHERS ? others : flow == FLOW_NORMAL ? NORMAL_WEIGHT * others : 1;
}

enum flow flows_next(const struct flows *flows, uint32_t tried) {
    enum flow next = FLOWS;
    for (enum flow flow = 0; flow < FLOWS; flow++) {
        if (!(tried >> flow & 1) && (next == FLOWS || flows->time[flow] < flows->time[next])) {
            next = flow;
        }
    }
    return next;
}

void flows_charge(struct flows *flows, enum flow flow, uint64_t recipients, bool more) {
    if (!flows->busy[flow] && recipients > 0) {
        double least = 0, most = 0;
        bool alone = true;
        for (enum flow other = 0; other < FLOWS; other++) {
            if (other != flow && flows->busy[other] && (alone || flows->time[other] < least)) {
                least = flows->time[other];
                alone = false;
            }
            most = flows->time[other] > most ? flows->time[other] : most;
        }
        double start = alone ? most : least; /* who was not there gets nothing for it, and owes nothing */
        flows->time[flow] = start > flows->time[flow] ? start : flows->time[flow];
    }
    flows->time[flow] += (double)recipients / weight_of(flows, flow);
    flows->busy[flow] = more;
}
