#include "net/look.h"

void look_init(struct look *look)
{
    *look = (struct look){ .naps_next = LOOK_NAPS_MIN };
}

uint64_t look_for_ns(struct look *look, uint32_t ended, uint64_t open)
{
    if (ended > 1 && look->naps < LOOK_NAPS_MIN) {
        look->naps = LOOK_NAPS_MIN;
    }
    if (ended != 1 || open > 0) {
        return 0;
    }
    if (look->naps > 0) {
        look->naps--;
        return 0;
    }
    return LOOK_AHEAD_NS;
}

void look_over(struct look *look, bool found)
{
    if (found) {
        look->naps_next = LOOK_NAPS_MIN;
        return;
    }
    look->naps = look->naps_next;
    look->naps_next = look->naps_next < LOOK_NAPS_MAX ? 2 * look->naps_next : LOOK_NAPS_MAX;
}
