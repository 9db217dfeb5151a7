#include "rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "backend/backend.h"
#include "engine/batch.h"
#include "engine/pool.h"
#include "simulated.h"

void rig_start(struct rig *rig, const struct engine_options *options)
{
    static const struct device_options cpu = { .name = "cpu", .executors = 1 };
    struct engine_options all = { 0 };
    if (options != NULL) {
        all = *options;
    }
    memset(rig, 0, sizeof(*rig));
    limits_init(&rig->limits);
    if (all.threads) {
        clock_init(&rig->clock);
    } else {
        clock_init_manual(&rig->clock, NS_PER_S);
    }
    all.limits = &rig->limits;
    all.clock = &rig->clock;
    if (all.device_count == 0) {
        all.devices = &cpu;
        all.device_count = 1;
    }
    assert_int_equal(engine_create(&all, &rig->engine, NULL), WEIR_OK);
    home_init(&rig->home, rig->engine, NULL, NULL);
    rig->config = (struct model_config){
        .name = "m", .device = "cpu", .max_batch_size = 8, .queue_timeout_ns = CLOCK_NEVER
    };
}

void rig_load(struct rig *rig, const struct setting *settings, uint32_t setting_count)
{
    rig->config.settings = settings;
    rig->config.setting_count = setting_count;
    simulated_load(&rig->model, &rig->config, rig->engine);
}

void rig_adopt(struct rig *rig)
{
    assert_int_equal(engine_adopt(rig->engine, &rig->model, NULL), WEIR_OK);
}

void rig_unload(struct rig *rig)
{
    engine_abandon(rig->engine, &rig->model);
    backend_unload(rig->model.backend);
}

void rig_stop(struct rig *rig)
{
    home_finish(&rig->home);
    assert_int_equal(block_pool_used_bytes(rig->engine->blocks), 0);
    rig_unload(rig);
    engine_destroy(rig->engine);
}

struct instance *rig_pull(struct rig *rig)
{
    uint64_t wake_ns;
    return pool_pull(rig->model.pool, clock_now_ns(&rig->clock), &wake_ns);
}

void rig_finish(struct rig *rig, struct instance *instance)
{
    assert_non_null(instance);
    batch_run(instance);
    pool_settle(rig->model.pool, instance, clock_now_ns(&rig->clock));
    home_turn(&rig->home);
}

uint32_t rig_run_all(struct rig *rig)
{
    uint32_t count = 0;
    for (struct instance *instance = rig_pull(rig); instance != NULL; instance = rig_pull(rig)) {
        rig_finish(rig, instance);
        count++;
    }
    return count;
}

void rig_pass(struct rig *rig, uint64_t ns)
{
    clock_turn(&rig->clock, clock_now_ns(&rig->clock) + ns);
}
