/* address.c: who a datagram is for, and who may have sent it. */
#include "net_private.h"

/* RFC 1122 3.2.1.3, RFC 4291: no host has it, or we do. */
bool net_source_pass(const struct received *in) {
    return route_is_host(in->source) && !route_is_broadcast(in->link, in->source) && route_local(in->net, in->source) == NULL &&
           !ip_same(in->source, in->link->link_local);
}

bool net_addresses_pass(const struct received *in) {
    struct net *net = in->net;
    /* RFC 1122 3.3.6: a broadcast of the link may not carry a unicast datagram. */
    if (!in->broadcast) {
        /* What we send to has been through all of this. */
        const struct pair *pair = pair_at(net, in->destination, in->source);
        if (pair_is(pair, in->destination, in->source) && pair->link == in->link && !pair->remote_is_ours)
            return true;
    }
    if (in->broadcast || !route_is_local(net, in->link, in->destination)) {
        net_drop(net, &net->counters.ignored);
        return false;
    }
    if (!net_source_pass(in)) {
        net_drop(net, &net->counters.bad_source);
        return false;
    }
    return true;
}
