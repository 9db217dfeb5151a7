#include "ride.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <string.h>

#include "backend/process_watch.h"
#include "util/log.h"

struct block_pool *ride_start(struct clock *clock)
{
    log_set_level(LOG_ERROR);
    backend_start();
    clock_init(clock);
    process_set_program("/proc/self/exe");
    return block_pool_create(1 << 20);
}

void ride_stop(struct block_pool *blocks)
{
    backend_stop();
    block_pool_destroy(blocks);
}

enum weir_status ride_try_load(const struct setting *settings, const struct clock *clock,
                               struct block_pool *blocks, const struct backend_isolation *isolation,
                               struct backend_model **out, struct weir_err *err)
{
    struct backend_load how = {
        .model_name = "s",
        .version = 3,
        .folder_fd = -1,
        .device = "npu0",
        .intra_threads = 1,
        .contexts_max = 4,
        .settings = settings,
        .clock = clock,
        .blocks = blocks,
        .isolation = isolation,
    };
    while (settings[how.setting_count].key != NULL) {
        how.setting_count++;
    }
    return backend_load(backend_find("sim"), &how, out, err);
}

struct backend_model *ride_load(const struct setting *settings, const struct clock *clock,
                                struct block_pool *blocks,
                                const struct backend_isolation *isolation)
{
    struct backend_model *model = NULL;
    struct weir_err err = { 0 };
    if (ride_try_load(settings, clock, blocks, isolation, &model, &err) != WEIR_OK) {
        fail_msg("%s", err.text);
    }
    return model;
}

struct backend_context *ride_context(struct backend_model *model)
{
    struct backend_context *context = NULL;
    struct weir_err err = { 0 };
    if (backend_context_create(model, &context, &err) != WEIR_OK) {
        fail_msg("%s", err.text);
    }
    return context;
}

const bool ride_wanted[3] = { true, true, true };

void *ride_main(void *ride)
{
    struct ride *r = ride;
    for (size_t i = 0; i < r->rows * RIDE_WIDTH; i++) {
        r->data[i] = (float)i;
    }
    r->input = (struct tensor){
        .dtype = DTYPE_FP32,
        .shape = { 2, { (int64_t)r->rows, RIDE_WIDTH } },
        .data = (uint8_t *)r->data,
        .size = r->rows * RIDE_WIDTH * sizeof(float),
        .present = true,
    };
    if (r->lent.present) {
        memcpy(r->data, r->lent.data, r->lent.size);
        r->input = r->lent;
    }
    tensor_release(&r->output);
    r->run = (struct backend_run){
        .rows = r->rows,
        .inputs = &r->input,
        .outputs = &r->output,
        .wanted = ride_wanted,
        .probation = r->probation,
    };
    r->status = backend_prepare(r->context, &r->run, &r->err);
    r->prepared = true;
    r->status = r->status == WEIR_OK ? backend_run(r->context, &r->run, &r->err) : r->status;
    r->status = r->status == WEIR_OK ? backend_finish(r->context, &r->run, &r->err) : r->status;
    return ride;
}

enum weir_status ride_rows(struct ride *ride, struct backend_context *context, uint64_t rows)
{
    ride->context = context;
    ride->rows = rows;
    (void)ride_main(ride);
    assert_int_equal(ride->output.present, ride->status == WEIR_OK);
    return ride->status;
}
