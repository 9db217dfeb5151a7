/*
 * modelconfig_tables.h — the tables of ModelConfig's messages, for modelconfig*.c alone.
 *
 * One file per block of settings; modelconfig.c joins them.  In each table a field is honoured,
 * taken with a warning, taken in silence where it has no effect that anyone could notice, or
 * refused.
 */
#ifndef WEIR_SERVER_MODELCONFIG_TABLES_H
#define WEIR_SERVER_MODELCONFIG_TABLES_H

#include <stddef.h>

#include "engine/model_config.h"
#include "server/field.h"

#define AT(type, member) offsetof(struct type, member)
#define MICROSECONDS_MAX (INT64_MAX / 1000)

/* modelconfig_tensor.c: `input`, `output`, `model_warmup`. */
extern const struct field_table modelconfig_input_table;
extern const struct field_table modelconfig_output_table;
extern const struct field_table modelconfig_warmup_table;
field_read_fn modelconfig_inputs;
field_read_fn modelconfig_outputs;
field_read_fn modelconfig_warmups;
field_read_fn modelconfig_dtype; /* enum dtype, and the bool behind it. */
field_read_fn modelconfig_dims;  /* struct shape, and the bool behind it. */

/* modelconfig_queue.c: `dynamic_batching`, `instance_group`. */
extern const struct field_table modelconfig_dynamic_table;
extern const struct field_table modelconfig_group_table;
field_read_fn modelconfig_dynamic;
field_read_fn modelconfig_groups;
field_read_fn modelconfig_instances; /* uint32_t; auto: 0. */

/* Into MODEL_PREFERRED_MAX sizes at `out`, their number to *count. */
WEIR_MUST_USE enum weir_status modelconfig_preferred(const struct field_reader *reader,
                                                     const struct yaml *node, uint32_t *out,
                                                     uint32_t *count);

/* modelconfig_sequence.c and modelconfig_ensemble.c */
extern const struct field_table modelconfig_sequence_table;
extern const struct field_table modelconfig_ensemble_table;
field_read_fn modelconfig_sequence;
field_read_fn modelconfig_ensemble;

/* modelconfig_device.c */
field_read_fn modelconfig_devices;
field_read_fn modelconfig_gpus;      /* uint64_t, a bit per number. */
field_read_fn modelconfig_numa_node; /* The same. */

/* modelconfig_provider.c */
extern const struct field_table modelconfig_provider_table;
field_read_fn modelconfig_providers;

/* modelconfig_bucket.c */
extern const struct field_table modelconfig_bucket_table;
field_read_fn modelconfig_buckets;

#endif
