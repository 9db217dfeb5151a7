#include "api/moderation.h"

#define AHEAD_PART 8

uint64_t moderation_until_ns(const struct pool_taken *taken, uint64_t at_once_ns, uint64_t now_ns)
{
    if (taken->until_ns == 0 || now_ns < clock_add(at_once_ns, MODERATION_PAUSE_NS)) {
        return 0;
    }
    const uint64_t part_ns = taken->run_ns / AHEAD_PART;
    const uint64_t ahead_ns = part_ns < MODERATION_AHEAD_MAX_NS ? part_ns : MODERATION_AHEAD_MAX_NS;
    const uint64_t least_ns = clock_add(now_ns, ahead_ns);
    const uint64_t most_ns = clock_add(now_ns, MODERATION_MAX_NS);
    const uint64_t until_ns = taken->until_ns - (taken->pauses ? 0 : ahead_ns);
    return until_ns < least_ns ? least_ns : until_ns < most_ns ? until_ns : most_ns;
}
