/* impairment.c: the decisions. */
#include "impairment.h"
#include "random.h"
#include <string.h>

void impairment_init(struct impairment *impairment, const struct impairment_config *config, uint64_t seed, uint32_t direction) {
    memset(impairment, 0, sizeof *impairment);
    impairment->config = *config;
    impairment->key = random_key(seed, direction);
}

static bool lost_in_burst(struct impairment *impairment, uint64_t frame) {
    const struct impairment_config *config = &impairment->config;
    double change = impairment->bad ? config->good_percent : config->bad_percent;
    if (random_happens(random_draw(impairment->key, frame, WAN_DRAW_BURST_STATE), change))
        impairment->bad = !impairment->bad;
    double loss = impairment->bad ? config->bad_loss_percent : config->good_loss_percent;
    return random_happens(random_draw(impairment->key, frame, WAN_DRAW_BURST_LOSS), loss);
}

/* Through the bottleneck: when its last bit has left, or false when the queue has no room. */
static bool through_link(struct impairment *impairment, uint32_t length, uint64_t now_ns, uint64_t *sent_ns) {
    uint64_t rate = impairment->config.rate_bits;
    *sent_ns = now_ns;
    if (rate == 0)
        return true;
    uint64_t waits_ns = impairment->link_free_ns > now_ns ? impairment->link_free_ns - now_ns : 0;
    uint64_t queued = (uint64_t)((__uint128_t)waits_ns * rate / UINT64_C(8000000000));
    if (queued > 0 && queued + length > impairment->config.queue_bytes)
        return false;
    if (queued + length > impairment->queue_bytes_max)
        impairment->queue_bytes_max = queued + length;
    uint64_t begin_ns = waits_ns > 0 ? impairment->link_free_ns : now_ns;
    impairment->link_free_ns = *sent_ns = begin_ns + (uint64_t)length * UINT64_C(8000000000) / rate;
    return true;
}

static uint64_t in_order(struct impairment *impairment, uint64_t release_ns) {
    if (release_ns < impairment->last_release_ns)
        release_ns = impairment->last_release_ns;
    impairment->last_release_ns = release_ns;
    return release_ns;
}

bool impairment_admit(struct impairment *impairment, uint32_t length, uint64_t now_ns, uint64_t *release_ns) {
    if (!through_link(impairment, length, now_ns, release_ns))
        return false;
    *release_ns = in_order(impairment, *release_ns + impairment->config.delay_ns);
    return true;
}

static enum impairment_fate fate_of(struct impairment *impairment, const struct packet *packet, uint64_t frame) {
    const struct impairment_config *config = &impairment->config;
    bool burst = lost_in_burst(impairment, frame); /* its state moves with every frame */
    if (random_happens(random_draw(impairment->key, frame, WAN_DRAW_LOSS), config->loss_percent))
        return IMPAIRMENT_LOST;
    if (burst)
        return IMPAIRMENT_LOST_BURST;
    return config->mtu != 0 && packet_ip_bytes(packet) > config->mtu ? IMPAIRMENT_TOO_BIG : IMPAIRMENT_PASS;
}

void impairment_decide(struct impairment *impairment, const struct packet *packet, uint32_t length, uint64_t now_ns,
                       struct impairment_verdict *verdict) {
    const struct impairment_config *config = &impairment->config;
    uint64_t frame = impairment->frames++, key = impairment->key;
    memset(verdict, 0, sizeof *verdict);
    verdict->fate = fate_of(impairment, packet, frame);
    verdict->corrupt = random_happens(random_draw(key, frame, WAN_DRAW_CORRUPT), config->corrupt_percent);
    verdict->bit = random_draw(key, frame, WAN_DRAW_BIT);
    verdict->reordered = random_happens(random_draw(key, frame, WAN_DRAW_REORDER), config->reorder_percent);
    bool twice = random_happens(random_draw(key, frame, WAN_DRAW_DUPLICATE), config->duplicate_percent);
    uint64_t decided = (uint64_t)verdict->fate | (uint64_t)verdict->corrupt << 4 | (uint64_t)verdict->reordered << 5 | (uint64_t)twice << 6;
    impairment->digest = random_mix(impairment->digest + decided + 1);
    if (verdict->fate != IMPAIRMENT_PASS)
        return;
    uint64_t jitter_ns = config->jitter_ns != 0 ? random_draw(key, frame, WAN_DRAW_JITTER) % (config->jitter_ns + 1) : 0;
    for (uint32_t copy = 0; copy < (twice ? 2u : 1u); copy++) {
        uint64_t sent_ns;
        if (!through_link(impairment, length, now_ns, &sent_ns))
            break;
        uint64_t release_ns = sent_ns + config->delay_ns + jitter_ns;
        if (verdict->reordered)
            release_ns += config->reorder_ns;
        else if (!config->jitter_reorders)
            release_ns = in_order(impairment, release_ns);
        verdict->release_ns[verdict->copies++] = release_ns;
    }
    if (verdict->copies == 0)
        verdict->fate = IMPAIRMENT_QUEUE_FULL;
}
