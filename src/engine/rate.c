#include "engine/rate.h"

#include <assert.h>
#include <pthread.h>
#include <string.h>

#include "engine/model.h"
#include "engine/pool.h"
#include "util/bytes.h"
#include "util/mem.h"

#define AMOUNT_MAX 1000000

/* A resource of one device, or of all. */
struct resource {
    char *name;
    const struct pool *pool; /* NULL: all devices'. */
    uint32_t total;
    bool limited; /* The total was set; else it follows the neediest. */
    uint32_t used;
};

/* What the options say. */
struct rate_limit {
    char *name;
    char *device; /* NULL: any. */
    uint32_t count;
};

struct rate_limiter {
    pthread_mutex_t lock; /* Guards resources. */
    struct resource resources[RATE_RESOURCES_MAX];
    uint32_t resource_count;
    struct rate_limit *limits;
    uint32_t limit_count;
};

static enum weir_status read_limit(const char *text, struct rate_limit *out, struct weir_err *err)
{
    const char *colon = strchr(text, ':');
    const char *second = colon == NULL ? NULL : strchr(colon + 1, ':');
    uint64_t count = 0;
    const size_t digits = colon == NULL    ? 0
                          : second == NULL ? strlen(colon + 1)
                                           : (size_t)(second - colon - 1);
    if (colon == NULL || colon == text || (second != NULL && second[1] == '\0') ||
        !bytes_to_u64((struct bytes){ colon + 1, digits }, AMOUNT_MAX, &count) || count == 0) {
        return err_set(err, WEIR_EINVAL,
                       "rate_limit_resource: found '%.100s', expected NAME:COUNT or "
                       "NAME:COUNT:DEVICE with a count of 1 to %d",
                       text, AMOUNT_MAX);
    }
    out->name = mem_try_strndup(text, (size_t)(colon - text));
    out->device = second == NULL ? NULL : mem_try_strdup(second + 1);
    out->count = (uint32_t)count;
    return out->name == NULL || (second != NULL && out->device == NULL)
               ? err_nomem(err, "the rate limiter", strlen(text))
               : WEIR_OK;
}

enum weir_status rate_limiter_create(const char *const *limits, uint64_t count,
                                     struct rate_limiter **out, struct weir_err *err)
{
    struct rate_limiter *limiter = mem_try_zero(1, sizeof(*limiter));
    if (limiter == NULL) {
        return err_nomem(err, "the rate limiter", sizeof(*limiter));
    }
    pthread_mutex_init(&limiter->lock, NULL);
    limiter->limits = mem_try_zero(count + 1, sizeof(*limiter->limits));
    enum weir_status status =
        limiter->limits == NULL ? err_nomem(err, "the rate limiter", count) : WEIR_OK;
    for (uint64_t i = 0; i < count && status == WEIR_OK; i++) {
        limiter->limit_count++;
        status = read_limit(limits[i], &limiter->limits[i], err);
    }
    if (status != WEIR_OK) {
        rate_limiter_destroy(limiter);
        return status;
    }
    *out = limiter;
    return WEIR_OK;
}

void rate_limiter_destroy(struct rate_limiter *limiter)
{
    if (limiter == NULL) {
        return;
    }
    for (uint32_t i = 0; i < limiter->resource_count; i++) {
        assert(limiter->resources[i].used == 0);
        mem_free(limiter->resources[i].name);
    }
    for (uint32_t i = 0; i < limiter->limit_count; i++) {
        mem_free(limiter->limits[i].name);
        mem_free(limiter->limits[i].device);
    }
    mem_free(limiter->limits);
    pthread_mutex_destroy(&limiter->lock);
    mem_free(limiter);
}

/* The pool, or a device of it, has that name. */
static bool is_of(const struct pool *pool, const char *device)
{
    bool is = strcmp(pool->name, device) == 0;
    for (uint32_t i = 0; i < pool->device_count; i++) {
        is = is || strcmp(pool->devices[i].name, device) == 0;
    }
    return is;
}

/* The more special limit counts; NULL: none was set. */
static const struct rate_limit *find_limit(const struct rate_limiter *limiter, const char *name,
                                           const struct pool *pool)
{
    const struct rate_limit *found = NULL;
    for (uint32_t i = 0; i < limiter->limit_count; i++) {
        const struct rate_limit *limit = &limiter->limits[i];
        if (strcmp(limit->name, name) != 0) {
            continue;
        }
        if (limit->device == NULL) {
            found = found == NULL ? limit : found;
        } else if (pool != NULL && is_of(pool, limit->device)) {
            found = limit;
        }
    }
    return found;
}

/* Lock held.  Finds or makes the resource. */
static enum weir_status find_resource(struct rate_limiter *limiter, const char *name,
                                      const struct pool *pool, uint32_t *out, struct weir_err *err)
{
    for (uint32_t i = 0; i < limiter->resource_count; i++) {
        if (limiter->resources[i].pool == pool && strcmp(limiter->resources[i].name, name) == 0) {
            *out = i;
            return WEIR_OK;
        }
    }
    if (limiter->resource_count == RATE_RESOURCES_MAX) {
        return err_set(err, WEIR_EFULL, "more than %d rate limiter resources", RATE_RESOURCES_MAX);
    }
    struct resource *resource = &limiter->resources[limiter->resource_count];
    const struct rate_limit *limit = find_limit(limiter, name, pool);
    *resource = (struct resource){ .name = mem_try_strdup(name), .pool = pool };
    if (resource->name == NULL) {
        return err_nomem(err, "the rate limiter", strlen(name));
    }
    resource->limited = limit != NULL;
    resource->total = limit != NULL ? limit->count : 0;
    *out = limiter->resource_count++;
    return WEIR_OK;
}

/* Lock held. */
static enum weir_status add_need(struct rate_limiter *limiter, struct rate_claim *claim,
                                 const struct rate_resource *need, struct weir_err *err)
{
    uint32_t index = 0;
    const struct pool *pool = need->global ? NULL : claim->model->pool;
    const enum weir_status status = find_resource(limiter, need->name, pool, &index, err);
    if (status != WEIR_OK) {
        return status;
    }
    struct resource *resource = &limiter->resources[index];
    if (resource->limited && need->count > resource->total) {
        return err_set(err, WEIR_EINVAL,
                       "each run needs %u of the resource '%s', the server has %u: none could run",
                       need->count, need->name, resource->total);
    }
    resource->total = need->count > resource->total ? need->count : resource->total;
    claim->needs[claim->count].resource = index;
    claim->needs[claim->count].amount = need->count;
    claim->global = claim->global || need->global;
    claim->count++;
    return WEIR_OK;
}

enum weir_status rate_join(struct rate_limiter *limiter, struct model *model,
                           struct rate_claim **out, struct weir_err *err)
{
    const struct model_config *config = model->config;
    *out = NULL;
    if (config->resource_count == 0) {
        return WEIR_OK;
    }
    struct rate_claim *claim =
        mem_try_zero(1, sizeof(*claim) + config->resource_count * sizeof(claim->needs[0]));
    if (claim == NULL) {
        return err_nomem(err, "the rate limiter", sizeof(*claim));
    }
    claim->model = model;
    claim->priority = config->rate_priority > 0 ? config->rate_priority : 1;
    pthread_mutex_lock(&limiter->lock);
    enum weir_status status = WEIR_OK;
    for (uint32_t i = 0; i < config->resource_count && status == WEIR_OK; i++) {
        status = add_need(limiter, claim, &config->resources[i], err);
    }
    pthread_mutex_unlock(&limiter->lock);
    if (status != WEIR_OK) {
        mem_free(claim);
        return status;
    }
    *out = claim;
    return WEIR_OK;
}

void rate_leave(struct rate_claim *claim)
{
    mem_free(claim);
}

/* Lock held. */
static bool enough(const struct rate_limiter *limiter, const struct rate_claim *claim)
{
    for (uint32_t i = 0; i < claim->count; i++) {
        const struct resource *resource = &limiter->resources[claim->needs[i].resource];
        if (claim->needs[i].amount > resource->total - resource->used) {
            return false;
        }
    }
    return true;
}

bool rate_free(struct rate_limiter *limiter, const struct rate_claim *claim)
{
    pthread_mutex_lock(&limiter->lock);
    const bool free = enough(limiter, claim);
    pthread_mutex_unlock(&limiter->lock);
    return free;
}

bool rate_take(struct rate_limiter *limiter, const struct rate_claim *claim)
{
    pthread_mutex_lock(&limiter->lock);
    const bool taken = enough(limiter, claim);
    for (uint32_t i = 0; taken && i < claim->count; i++) {
        limiter->resources[claim->needs[i].resource].used += claim->needs[i].amount;
    }
    pthread_mutex_unlock(&limiter->lock);
    return taken;
}

void rate_give(struct rate_limiter *limiter, const struct rate_claim *claim)
{
    pthread_mutex_lock(&limiter->lock);
    for (uint32_t i = 0; i < claim->count; i++) {
        struct resource *resource = &limiter->resources[claim->needs[i].resource];
        assert(resource->used >= claim->needs[i].amount);
        resource->used -= claim->needs[i].amount;
    }
    pthread_mutex_unlock(&limiter->lock);
}
