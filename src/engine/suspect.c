#include "engine/suspect.h"

#include <string.h>

enum suspect_fate suspect_fate(const struct request *request, enum backend_death death,
                               bool probation)
{
    if (request->parts_sent > 0) {
        return SUSPECT_FAIL; /* Its client has seen the beginning of another run. */
    }
    if (!backend_death_suspects(death)) {
        return SUSPECT_AGAIN;
    }
    if (probation) {
        return SUSPECT_CONVICT;
    }
    return request->deaths < SUSPECT_DEATHS_MAX ? SUSPECT_TRIAL : SUSPECT_FAIL;
}

void suspects_init(struct suspects *suspects)
{
    list_init(&suspects->list);
    atomic_init(&suspects->count, 0);
}

struct suspect *suspects_find(const struct suspects *suspects, const struct request_key *key)
{
    for (struct list_node *n = list_first(&suspects->list); n != NULL;
         n = list_next(&suspects->list, n)) {
        struct suspect *suspect = list_entry(n, struct suspect, node);
        if (memcmp(&suspect->key, key, sizeof(*key)) == 0) {
            return suspect;
        }
    }
    return NULL;
}

void suspects_add(struct suspects *suspects, struct suspect *suspect)
{
    list_init(&suspect->waiting);
    list_append(&suspects->list, &suspect->node);
    atomic_fetch_add_explicit(&suspects->count, 1, memory_order_relaxed);
}

void suspects_remove(struct suspects *suspects, struct suspect *suspect, struct list *waited)
{
    list_remove(&suspect->node);
    list_splice(waited, &suspect->waiting);
    atomic_fetch_sub_explicit(&suspects->count, 1, memory_order_relaxed);
}
