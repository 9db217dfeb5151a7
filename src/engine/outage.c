#include "engine/outage.h"

#include "engine/pool.h"
#include "engine/pool_impl.h"

void outage_note(struct model *model)
{
    const bool troubled =
        model->circuit.deaths > 0 || model->written_off > 0 || model->canary.failed_ns > 0;
    atomic_store_explicit(&model->troubled, troubled, memory_order_relaxed);
}

/* Without a process of its own, what the model loses is its device. */
static enum weir_status tell_ends(const struct model *model, uint64_t now_ns, struct weir_err *err)
{
    const struct circuit *circuit = &model->circuit;
    const double left_s = (double)circuit_left_ns(circuit, now_ns) / NS_PER_S;
    if (model->config->isolation != ISOLATE_PROCESS) {
        return err_set(err, WEIR_EUNAVAILABLE,
                       "model '%s': its device was lost %u times without a completed run between; "
                       "it is tried again in %.1f s",
                       model->name, circuit->deaths, left_s);
    }
    return err_set(err, WEIR_EUNAVAILABLE,
                   "model '%s': its process ended %u times without a completed run between, the "
                   "last one %s; it is tried again in %.1f s",
                   model->name, circuit->deaths,
                   model->last_death == DEATH_NONE ? "could not be started"
                                                   : backend_death_text(model->last_death),
                   left_s);
}

enum weir_status outage_check_locked(const struct model *model, struct weir_err *err)
{
    const uint64_t now_ns = clock_now_ns(model->pool->engine->clock);
    if (model->written_off > 0) {
        return err_set(
            err, WEIR_EUNAVAILABLE,
            "model '%s': a run took longer than its run_limit of %.1f s%s and does not end; "
            "with 'isolation: process' it could be ended",
            model->name, (double)pool_watch_limit_ns(model, model->lost_loops > 0) / NS_PER_S,
            model->lost_loops > 0 ? " on a network thread" : "");
    }
    if (circuit_refuses(&model->circuit, now_ns)) {
        return tell_ends(model, now_ns, err);
    }
    return WEIR_OK;
}

enum weir_status outage_check(struct model *model, struct weir_err *err)
{
    if (!atomic_load_explicit(&model->troubled, memory_order_relaxed)) {
        return WEIR_OK;
    }
    pthread_mutex_lock(&model->pool->lock);
    const enum weir_status status = outage_check_locked(model, err);
    pthread_mutex_unlock(&model->pool->lock);
    return status;
}

enum weir_status outage_check_ready(struct model *model, struct weir_err *err)
{
    if (!atomic_load_explicit(&model->troubled, memory_order_relaxed)) {
        return WEIR_OK;
    }
    pthread_mutex_lock(&model->pool->lock);
    enum weir_status status = outage_check_locked(model, err);
    if (status == WEIR_OK && canary_has_failed(model)) {
        status = err_set(err, WEIR_EUNAVAILABLE, "model '%s': %s", model->name, model->canary.text);
    }
    pthread_mutex_unlock(&model->pool->lock);
    return status;
}

/* The model's process is not to be had now, or it does not answer a canary. */
static bool is_out(struct model *model)
{
    if (!atomic_load_explicit(&model->troubled, memory_order_relaxed) || model->pool == NULL) {
        return false;
    }
    struct pool *pool = model->pool;
    pthread_mutex_lock(&pool->lock);
    const bool out = circuit_refuses(&model->circuit, clock_now_ns(pool->engine->clock)) ||
                     canary_has_failed(model);
    pthread_mutex_unlock(&pool->lock);
    return out;
}

bool outage_is_ready(const struct engine *engine, const struct catalogue *catalogue)
{
    if (!catalogue->ready || atomic_load_explicit(&engine->short_pools, memory_order_relaxed) > 0) {
        return false;
    }
    for (uint32_t i = 0; i < catalogue->count; i++) {
        const struct catalogue_entry *entry = &catalogue->list[i];
        for (uint32_t k = 0; entry->required && k < entry->version_count; k++) {
            if (entry->versions[k].model != NULL && is_out(entry->versions[k].model)) {
                return false;
            }
        }
    }
    return true;
}
