#include "engine/evict.h"

#include <math.h>

static double age(uint64_t from_ns, uint64_t now_ns)
{
    return now_ns > from_ns ? (double)(now_ns - from_ns) : 0;
}

double usage_rate(const struct usage *usage, uint64_t now_ns)
{
    return usage->rate * exp(-age(usage->at_ns, now_ns) / (double)EVICT_MEMORY_NS);
}

void usage_add(struct usage *usage, uint64_t uses, uint64_t now_ns)
{
    usage->rate = usage_rate(usage, now_ns) + (double)uses / ((double)EVICT_MEMORY_NS / 1e9);
    usage->at_ns = now_ns;
    usage->used_ns = uses > 0 ? now_ns : usage->used_ns;
}

double evict_worth(enum eviction eviction, const struct evict_candidate *candidate, uint64_t now_ns)
{
    const double rate = usage_rate(candidate->usage, now_ns);
    switch (eviction) {
    case EVICTION_LFU:
        return rate;
    case EVICTION_COST:
        return rate * (double)candidate->load_ns / (double)(candidate->bytes + 1);
    default:
        return -age(candidate->usage->used_ns, now_ns);
    }
}
