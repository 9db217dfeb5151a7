/*
 * sim.h — a device that costs what its configuration says.
 *
 * It needs no file and no hardware: a run takes tau0 + alpha * rows on a virtual
 * timeline (start = the later of submission and the end of the run before, so that
 * late wake-ups do not add up; a step begins when the one before ended, if its thread was less than
 * BACKEND_LATE_NS late), echoes its inputs, and fails where it was told
 * to.  Models with the same device name share one device: its timeline, its
 * contexts and its memory.  Under a manual clock nothing sleeps: backend_prepare(),
 * backend_run() and backend_finish() move run->virtual_end_ns (0 at the start) to when each
 * would be done.  Only `hang_at` ever blocks then.
 *
 * The i-th output echoes the i-th input (the last input when there are fewer) if their types are
 * the same, else it is zeros; a variable dimension of an output takes the size that the input has
 * there.
 */
#ifndef WEIR_BACKEND_SIM_H
#define WEIR_BACKEND_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"

/*
 * X(field, kind, default, help): the `parameters` of a model on this backend.
 * Kinds: DURATION "500us", SIZE "64MiB", COUNT "3", NUMBER "0.5", SWITCH "true", TEXT.
 */
#define SIM_SETTINGS(X)                                                                            \
    X(tau0, DURATION, "1ms", "time of a run apart from its rows")                                  \
    X(alpha, DURATION, "0", "time of each row")                                                    \
    X(prepare, DURATION, "0", "host time before a run; does not hold the device")                  \
    X(finish, DURATION, "0", "host time after a run; does not hold the device")                    \
    X(load, DURATION, "0", "time to load the model")                                               \
    X(unload, DURATION, "0", "time to unload it")                                                  \
    X(mapped, SIZE, "0", "weights that are mapped from a file until the model is hot")             \
    X(pack, DURATION, "0", "time to pack them then")                                               \
    X(jitter, NUMBER, "0", "run times vary evenly by this fraction, 0 to 1, up and down")          \
    X(seed, COUNT, "1", "of the jitter")                                                           \
    X(exclusive, SWITCH, "true", "runs on the device follow each other; false: one per context")   \
    X(contention, NUMBER, "0", "runs not exclusive: n take 1 + this * n * (n - 1) times as long")  \
    X(contexts_max, COUNT, "0", "contexts on the device, of all its models; 0: no limit")          \
    X(memory_max, SIZE, "0", "memory of the device; 0: no limit")                                  \
    X(memory_per_model, SIZE, "0", "device memory of the loaded model")                            \
    X(memory_per_row, SIZE, "0", "device memory of each row while it runs")                        \
    X(parts, COUNT, "1", "parts a run streams; more than 1: the model is decoupled")               \
    X(inputs, TEXT, "x:FP32[-1,16]", "names, types and shapes, separated by spaces")               \
    X(outputs, TEXT, "y:FP32[-1,16]", "names, types and shapes, separated by spaces")              \
    X(short_lived, SWITCH, "false", "say that runs may be made inline")                            \
    X(mixes_rows, SWITCH, "false", "FP32 outputs depend on the whole batch: its rows are added")   \
    X(poison, TEXT, "", "fail with an input error when an FP32 input holds this number")           \
    X(load_fails, TEXT, "", "refuse to load, with this reason")                                    \
    X(fail_at, COUNT, "0", "the nth run of the model fails; 0: none")                              \
    X(fail_to, COUNT, "0", "so do those after it, up to this one")                                 \
    X(fail_above_rows, COUNT, "0", "runs of more rows fail; 0: none")                              \
    X(oom_above_rows, COUNT, "0", "runs of more rows exhaust the memory; 0: none")                 \
    X(hang_at, COUNT, "0", "the nth run ends only when terminated; 0: none")                       \
    X(crash_at, COUNT, "0", "the nth run kills the process; 0: none")                              \
    X(lost_on, TEXT, "", "device (*: each) that is lost from the model's lost_at-th run on it on")  \
    X(lost_at, COUNT, "1", "its first run that fails so")                                          \
    X(lost_runs, COUNT, "0", "and how many do, before it is back; 0: all")                         \
    X(slower, TEXT, "", "devices where runs take so many times as long, such as gpu1:2.5")          \
    X(oom_on, TEXT, "", "the only device that oom_above_rows is about")                            \
    X(crash_on, TEXT, "", "kill the process when an FP32 input holds this number")                 \
    X(fault_on, TEXT, "", "break the device when an FP32 input holds this number")                 \
    X(stuck_on, TEXT, "", "take no notice of being stopped when an FP32 input holds this number")  \
    X(stuck, DURATION, "1h", "and end after so long")

#define SIM_TYPE_DURATION uint64_t
#define SIM_TYPE_SIZE uint64_t
#define SIM_TYPE_COUNT uint64_t
#define SIM_TYPE_NUMBER double
#define SIM_TYPE_SWITCH bool
#define SIM_TYPE_TEXT const char *

struct sim_settings {
#define SIM_FIELD(field, kind, value, help) SIM_TYPE_##kind field;
    SIM_SETTINGS(SIM_FIELD)
#undef SIM_FIELD
};

/* Defaults, then `settings`.  WEIR_EINVAL names the setting, what was found and what was expected.
 * Texts are borrowed from `settings`. */
WEIR_MUST_USE enum weir_status sim_settings_read(struct sim_settings *out,
                                                 const struct setting *settings, uint32_t count,
                                                 struct weir_err *err);

/* One entry of `inputs` or `outputs`: "x:FP32[-1,16]", "n:INT64[]".  *name points into `text`.
 * WEIR_EINVAL. */
WEIR_MUST_USE enum weir_status sim_spec_read(struct bytes text, struct bytes *name,
                                             struct tensor_spec *out, struct weir_err *err);

/* How much slower than others the device is, by `slower`: "gpu1:2.5 gpu2:4".  WEIR_EINVAL. */
WEIR_MUST_USE enum weir_status sim_slowness_read(const char *text, const char *device, double *out,
                                                 struct weir_err *err);

extern const struct backend_ops sim_ops;

#endif
