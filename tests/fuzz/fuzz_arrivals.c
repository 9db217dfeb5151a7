/*
 * Recorded arrivals: whatever is accepted ascends, stays below the end, and names users in range.
 */
#include "fuzz.h"

#include <assert.h>

#include "cmd/arrivals.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct bytes text = { (const char *)data, size };
    const struct arrivals_spec specs[] = {
        { .kind = ARRIVALS_RECORDED },
        { .kind = ARRIVALS_RECORDED, .speed = 0.001, .duration_ns = UINT64_C(1000000000) },
    };
    for (size_t i = 0; i < sizeof(specs) / sizeof(specs[0]); i++) {
        struct arrivals arrivals = { 0 };
        struct weir_err err = { 0 };
        if (arrivals_read(text, "fuzz", &specs[i], &arrivals, &err) != WEIR_OK) {
            assert(arrivals.count == 0 && err.text[0] != '\0');
            continue;
        }
        assert(arrivals.count > 0);
        for (size_t k = 0; k < arrivals.count; k++) {
            assert(k == 0 || arrivals.at_ns[k - 1] <= arrivals.at_ns[k]);
            assert(specs[i].duration_ns == 0 || arrivals.at_ns[k] < specs[i].duration_ns);
            assert(arrivals.user == NULL || arrivals.user[k] < arrivals.users);
        }
        arrivals_finish(&arrivals);
    }
    return 0;
}
