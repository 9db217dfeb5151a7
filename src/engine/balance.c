#include "engine/balance.h"

#include <assert.h>
#include <math.h>

void balance_init(struct balance *balance, uint32_t count)
{
    assert(count >= 1 && count <= BALANCE_DEVICES_MAX);
    *balance = (struct balance){ .count = count };
}

/* All sums shrink alike, so the score of a pool that rests stays what it was. */
static void fade(struct balance *balance, uint64_t now_ns)
{
    if (now_ns <= balance->noted_ns) {
        return;
    }
    const double ago = (double)(now_ns - balance->noted_ns) / (double)BALANCE_WINDOW_NS;
    const double left = exp(-ago);
    for (uint32_t i = 0; i < balance->count; i++) {
        balance->busy_ns[i] *= left;
    }
    balance->noted_ns = now_ns;
}

void balance_note(struct balance *balance, uint32_t device, uint64_t ns, uint64_t now_ns)
{
    assert(device < balance->count);
    fade(balance, now_ns);
    balance->busy_ns[device] += (double)ns;
}

double balance_score(const struct balance *balance)
{
    double sum = 0;
    double squares = 0;
    for (uint32_t i = 0; i < balance->count; i++) {
        sum += balance->busy_ns[i];
        squares += balance->busy_ns[i] * balance->busy_ns[i];
    }
    return squares > 0 ? sum * sum / (balance->count * squares) : 1;
}
