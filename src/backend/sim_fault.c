/*
 * Runs of simulated models that fail, crash or hang as their settings say: at a run's number, above
 * a number of rows, on a device, or where an input holds a number.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "backend/sim_device.h"
#include "backend/sim_impl.h"
#include "util/err.h"

static bool holds_number(const struct tensor *tensor, float number)
{
    if (!tensor->present || tensor->dtype != DTYPE_FP32) {
        return false;
    }
    for (size_t at = 0; at + sizeof(float) <= tensor->size; at += sizeof(float)) {
        float value;
        memcpy(&value, tensor->data + at, sizeof(value));
        if (value == number) {
            return true;
        }
    }
    return false;
}

/* Some input holds the number that the setting names, if it names one. */
static bool holds(const struct sim_model *model, const struct backend_run *run, const char *setting)
{
    const float number = strtof(setting, NULL);
    for (uint32_t i = 0; i < model->base.signature.input_count; i++) {
        if (setting[0] != '\0' && holds_number(&run->inputs[i], number)) {
            return true;
        }
    }
    return false;
}

static bool is_here(const struct sim_model *model, const char *device)
{
    return strcmp(device, "*") == 0 || strcmp(sim_device_name(model->device), device) == 0;
}

static bool is_lost(const struct sim_model *model, uint64_t index)
{
    const struct sim_settings *settings = &model->settings;
    return is_here(model, settings->lost_on) && index >= settings->lost_at &&
           (settings->lost_runs == 0 || index - settings->lost_at < settings->lost_runs);
}

enum weir_status sim_fault(const struct sim_model *model, struct backend_run *run, uint64_t index,
                           struct weir_err *err)
{
    const struct sim_settings *settings = &model->settings;
    if (settings->crash_at == index || holds(model, run, settings->crash_on)) {
        abort();
    }
    if (holds(model, run, settings->stuck_on)) {
        sim_pass(model, settings->stuck); /* As a kernel that nothing can interrupt. */
    }
    const bool fails = settings->fail_at != 0 && index >= settings->fail_at &&
                       (index == settings->fail_at || index <= settings->fail_to);
    if (fails) {
        return err_set(err, WEIR_EBACKEND, "simulated failure of run %" PRIu64, index);
    }
    if (settings->fail_above_rows != 0 && run->rows > settings->fail_above_rows) {
        return err_set(err, WEIR_EBACKEND, "simulated failure above %" PRIu64 " rows",
                       settings->fail_above_rows);
    }
    run->faulted = holds(model, run, settings->fault_on);
    if (run->faulted) {
        return err_set(err, WEIR_EUNAVAILABLE, "a simulated kernel failed");
    }
    if (is_lost(model, index)) {
        return err_set(err, WEIR_EUNAVAILABLE, "simulated loss at run %" PRIu64, index);
    }
    const bool oom_here = is_here(model, settings->oom_on) || settings->oom_on[0] == '\0';
    if (oom_here && settings->oom_above_rows != 0 && run->rows > settings->oom_above_rows) {
        return err_set(err, WEIR_ENOMEM, "out of simulated memory above %" PRIu64 " rows",
                       settings->oom_above_rows);
    }
    if (holds(model, run, settings->poison)) {
        return err_set(err, WEIR_EINVAL, "an input holds the poison %s", settings->poison);
    }
    return WEIR_OK;
}
