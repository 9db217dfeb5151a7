#include "engine/circuit.h"

void circuit_died(struct circuit *circuit, uint64_t began_ns, uint64_t now_ns)
{
    if (circuit->deaths > 0 && began_ns < circuit->died_ns) {
        return;
    }
    circuit->deaths++;
    circuit->died_ns = now_ns;
    if (circuit->state == CIRCUIT_CLOSED && circuit->deaths < CIRCUIT_DEATHS_MAX) {
        return;
    }
    const uint64_t pause_ns = circuit->pause_ns == 0 ? CIRCUIT_PAUSE_NS : 2 * circuit->pause_ns;
    circuit->pause_ns = pause_ns < CIRCUIT_PAUSE_MAX_NS ? pause_ns : CIRCUIT_PAUSE_MAX_NS;
    circuit->until_ns = clock_add(now_ns, circuit->pause_ns);
    circuit->state = CIRCUIT_OPEN;
}

void circuit_ran(struct circuit *circuit)
{
    *circuit = (struct circuit){ 0 };
}

bool circuit_refuses(const struct circuit *circuit, uint64_t now_ns)
{
    return circuit->state == CIRCUIT_OPEN && now_ns < circuit->until_ns;
}

uint64_t circuit_left_ns(const struct circuit *circuit, uint64_t now_ns)
{
    return circuit_refuses(circuit, now_ns) ? circuit->until_ns - now_ns : 0;
}

bool circuit_enter(struct circuit *circuit, uint64_t now_ns)
{
    if (circuit->state == CIRCUIT_CLOSED) {
        return true;
    }
    if (circuit->state == CIRCUIT_TRYING || circuit_refuses(circuit, now_ns)) {
        return false;
    }
    circuit->state = CIRCUIT_TRYING;
    return true;
}

void circuit_give_up(struct circuit *circuit)
{
    circuit->state = circuit->state == CIRCUIT_TRYING ? CIRCUIT_OPEN : circuit->state;
}

uint64_t circuit_start_ns(const struct circuit *circuit)
{
    if (circuit->deaths < 2) { /* The first one may happen to anybody. */
        return 0;
    }
    const uint32_t doublings =
        circuit->deaths < CIRCUIT_DEATHS_MAX ? circuit->deaths - 2 : CIRCUIT_DEATHS_MAX - 2;
    return clock_add(circuit->died_ns, CIRCUIT_BACK_OFF_NS << doublings);
}
