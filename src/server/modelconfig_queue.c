/*
 * How requests wait and are gathered, and how many run at a time.
 */
#include <string.h>

#include "server/modelconfig_tables.h"
#include "util/clock.h"

#define INSTANCES_MAX 1024
#define LEVELS_MAX 64

/* Of one instance group. */
struct group {
    const char *name;
    unsigned kind;
    uint32_t count;
    bool passive;
    struct rate_resource *resources;
    uint32_t resource_count;
    uint32_t priority;
    uint64_t gpus; /* Bit per number. */
};

/* ---- dynamic_batching ------------------------------------------------------------------------ */

static const char *const action_words[] = { "REJECT", "DELAY" };
static const struct field_words actions = { "", action_words, 2, "REJECT or DELAY" };

/* Whom Triton moves behind the others stays where it is. */
static enum weir_status read_action(const struct field_reader *reader, const struct field *field,
                                    const struct yaml *node, void *target)
{
    const struct field row = { .key = field->key, .words = &actions };
    unsigned action = 0;
    const enum weir_status status = field_enum(reader, &row, node, &action);
    if (status == WEIR_OK && action == 1) {
        ((struct model_config *)target)->timeout_delay = true;
        field_warn(reader, node,
                   "DELAY: a request whose time has passed keeps its place in line, it is not "
                   "moved behind the others");
    }
    return status;
}

static const struct field queue_fields[] = {
    FIELD("timeout_action", read_action, "REJECT or DELAY",
          "what happens to a request that waited too long", 0),
    FIELD_RANGE("default_timeout_microseconds", field_timeout, "microseconds",
                "longest wait in line; 0: no limit", AT(model_config, queue_timeout_ns), 0,
                MICROSECONDS_MAX),
    FIELD("allow_timeout_override", field_bool, "true or false", "requests may set a shorter one",
          AT(model_config, timeout_override)),
    FIELD_RANGE("max_queue_size", field_u32, "count",
                "requests that may wait; 0: the server's limit", AT(model_config, requests_max), 0,
                UINT32_MAX),
};
static const struct field_table queue_table = FIELD_TABLE(queue_fields);

enum weir_status modelconfig_preferred(const struct field_reader *reader, const struct yaml *node,
                                       uint32_t *out, uint32_t *count)
{
    if (node->kind != YAML_LIST || node->count > MODEL_PREFERRED_MAX) {
        return field_refuse(reader, node, "a list of at most 16 batch sizes");
    }
    uint32_t used = 0;
    for (const struct yaml *item = node->first; item != NULL; item = item->next) {
        int64_t size = 0;
        const enum weir_status status =
            yaml_i64(item, node->file, 1, INT32_MAX, &size, reader->err);
        if (status != WEIR_OK) {
            return status;
        }
        out[used++] = (uint32_t)size;
    }
    *count = used;
    return WEIR_OK;
}

static enum weir_status read_preferred(const struct field_reader *reader, const struct field *field,
                                       const struct yaml *node, void *target)
{
    (void)field;
    struct model_config *config = target;
    return modelconfig_preferred(reader, node, config->preferred, &config->preferred_count);
}

/* What a level's policy leaves out is Triton's default, not that of the default policy. */
static enum weir_status read_level_policies(const struct field_reader *reader,
                                            const struct field *field, const struct yaml *node,
                                            void *target)
{
    struct model_config *config = target;
    if (node->kind != YAML_MAP) {
        return field_refuse(reader, node, "a map from levels to policies");
    }
    struct queue_policy *levels = arena_try_zero(reader->arena, LEVELS_MAX, sizeof(*levels));
    if (levels == NULL) {
        return err_nomem(reader->err, node->file, LEVELS_MAX * sizeof(*levels));
    }
    for (const struct yaml *item = node->first; item != NULL; item = item->next) {
        struct model_config policy = { .queue_timeout_ns = CLOCK_NEVER };
        uint64_t level = 0;
        if (!bytes_to_u64(bytes_of(item->key), LEVELS_MAX, &level) || level == 0) {
            return field_refuse(reader, item, "a level from 1 to priority_levels");
        }
        const enum weir_status status = field_read_table(reader, field->table, item, &policy);
        if (status != WEIR_OK) {
            return status;
        }
        levels[level - 1] = (struct queue_policy){
            .set = true,
            .timeout_ns = policy.timeout_delay ? CLOCK_NEVER : policy.queue_timeout_ns,
            .timeout_override = policy.timeout_override,
            .timeout_delay = policy.timeout_delay,
            .requests_max = policy.requests_max,
        };
    }
    config->levels = node->count > 0 ? levels : NULL;
    return WEIR_OK;
}

/* The policies of all levels, once all that they depend on is read. */
static enum weir_status complete_levels(const struct field_reader *reader, const struct yaml *node,
                                        struct model_config *config)
{
    for (uint32_t i = 0; config->levels != NULL && i < LEVELS_MAX; i++) {
        if (config->levels[i].set && i >= config->priority_levels) {
            return field_refuse(reader, node,
                                "levels from 1 to priority_levels in priority_queue_policy");
        }
        if (!config->levels[i].set) {
            config->levels[i] = (struct queue_policy){
                .timeout_ns = config->timeout_delay ? CLOCK_NEVER : config->queue_timeout_ns,
                .timeout_override = config->timeout_override,
                .timeout_delay = config->timeout_delay,
                .requests_max = config->requests_max,
            };
        }
    }
    return WEIR_OK;
}

static const struct field dynamic_fields[] = {
    FIELD_FORM(FORM_LIST, "preferred_batch_size", read_preferred, "list of batch sizes",
               "a batch stops at the largest of them it can fill", NULL),
    FIELD_RANGE("max_queue_delay_microseconds", field_microseconds, "microseconds",
                "longest wait of a request for company", AT(model_config, queue_delay_ns), 0,
                MICROSECONDS_MAX),
    FIELD_RANGE("priority_levels", field_u32, "count", "levels of priority; 1 is the most urgent",
                AT(model_config, priority_levels), 0, LEVELS_MAX),
    FIELD_RANGE("default_priority_level", field_u32, "level", "of requests that name none",
                AT(model_config, priority_default), 0, LEVELS_MAX),
    FIELD_NESTED("default_queue_policy", field_message, "map", "how long and how many may wait",
                 &queue_table),
    FIELD_FORM(FORM_MAP, "priority_queue_policy", read_level_policies, "map by level",
               "the same for single levels", &queue_table),
    FIELD_WARNED("preserve_ordering",
                 "no effect: answers leave as soon as they are there, each to its own request"),
};
const struct field_table modelconfig_dynamic_table = FIELD_TABLE(dynamic_fields);

enum weir_status modelconfig_dynamic(const struct field_reader *reader, const struct field *field,
                                     const struct yaml *node, void *target)
{
    struct model_config *config = target;
    config->dynamic_batching = true;
    const enum weir_status status = field_read_table(reader, field->table, node, target);
    return status == WEIR_OK ? complete_levels(reader, node, config) : status;
}

/* ---- instance_group -------------------------------------------------------------------------- */

static const struct field resource_fields[] = {
    FIELD("name", field_text, "text", "of the resource", AT(rate_resource, name)),
    FIELD("global", field_bool, "true or false", "one for all devices, else each has its own",
          AT(rate_resource, global)),
    FIELD_RANGE("count", field_u32, "count", "how many a run holds", AT(rate_resource, count), 0,
                UINT32_MAX),
};
static const struct field_table resource_table = FIELD_TABLE(resource_fields);

static enum weir_status read_resources(const struct field_reader *reader, const struct field *field,
                                       const struct yaml *node, void *target)
{
    struct group *group = target;
    void *memory = NULL;
    uint32_t count = 0;
    enum weir_status status =
        field_read_items(reader, field, node, sizeof(struct rate_resource), &memory, &count);
    struct rate_resource *items = memory;
    const struct yaml *item = node->first;
    for (uint32_t i = 0; status == WEIR_OK && i < count; i++) {
        status = field_need(reader, item, items[i].name, "a name in it");
        item = item->next;
    }
    if (status == WEIR_OK) {
        group->resources = items;
        group->resource_count = count;
    }
    return status;
}

static const struct field limiter_fields[] = {
    FIELD_FORM(FORM_LIST, "resources", read_resources, "list",
               "what a run holds, with --rate-limit execution_count", &resource_table),
    FIELD_RANGE("priority", field_u32, "number", "share of runs is 1 in so many",
                AT(group, priority), 0, UINT32_MAX),
};
static const struct field_table limiter_table = FIELD_TABLE(limiter_fields);

/* In the order of protobuf's numbers. */
static const char *const kind_words[] = { "AUTO", "GPU", "CPU", "MODEL" };
#define KIND_GPU 1
#define KIND_CPU 2
static const struct field_words kinds = { "KIND_", kind_words, 4,
                                          "KIND_AUTO, KIND_CPU, KIND_GPU or KIND_MODEL" };

static const struct field group_fields[] = {
    FIELD("name", field_text, "text", "any", AT(group, name)),
    FIELD_ENUM("kind", &kinds, "KIND_AUTO, KIND_CPU ...",
               "KIND_GPU: on the pool gpu, where the server has one", AT(group, kind)),
    FIELD_RANGE("count", field_u32, "count",
                "runs at once, on each GPU; a cap, not copies of the weights", AT(group, count), 0,
                INSTANCES_MAX),
    FIELD_NESTED("rate_limiter", field_message, "map", "what runs hold while they last",
                 &limiter_table),
    FIELD("passive", field_bool, "true or false", "a group that takes no requests: not counted",
          AT(group, passive)),
    FIELD_FORM_AT(FORM_LIST, "gpus", modelconfig_gpus, "list of numbers",
                  "the devices gpu0, gpu1 ... of that pool; all", AT(group, gpus)),
    FIELD_WARNED("secondary_devices", "no effect: execution_providers says what else a run uses"),
    FIELD_WARNED("profile", "no effect: only TensorRT has optimization profiles"),
    FIELD_WARNED("host_policy", "no effect: this server has no host policies"),
};
const struct field_table modelconfig_group_table = FIELD_TABLE(group_fields);

/* Runs of all groups share the model's slots; where the groups' limiters differ, the strictest
 * holds for all. */
static enum weir_status add_resources(const struct field_reader *reader, const struct group *group,
                                      struct model_config *config)
{
    const uint32_t most = config->resource_count + group->resource_count;
    struct rate_resource *all = arena_try_zero(reader->arena, most, sizeof(*all));
    if (all == NULL) {
        return err_nomem(reader->err, "rate_limiter", most * sizeof(*all));
    }
    uint32_t count = config->resource_count;
    for (uint32_t i = 0; i < count; i++) {
        all[i] = config->resources[i];
    }
    for (uint32_t i = 0; i < group->resource_count; i++) {
        uint32_t at = 0;
        while (at < count && strcmp(all[at].name, group->resources[i].name) != 0) {
            at++;
        }
        if (at == count) {
            all[count++] = group->resources[i];
        } else if (all[at].count < group->resources[i].count) {
            all[at].count = group->resources[i].count;
        }
    }
    config->resources = all;
    config->resource_count = count;
    if (group->priority > config->rate_priority) {
        config->rate_priority = group->priority;
    }
    return WEIR_OK;
}

enum weir_status modelconfig_groups(const struct field_reader *reader, const struct field *field,
                                    const struct yaml *node, void *target)
{
    struct model_config *config = target;
    if (node->kind != YAML_LIST) {
        return field_refuse(reader, node, "a list of groups such as [{ count: 2 }]");
    }
    uint32_t total = 0;
    uint32_t most = 0; /* Of groups on GPUs. */
    uint64_t gpus = 0;
    bool on_gpu = false;
    bool on_cpu = false;
    for (const struct yaml *item = node->first; item != NULL; item = item->next) {
        struct group group = { 0 };
        enum weir_status status = field_read_table(reader, field->table, item, &group);
        status = status == WEIR_OK ? add_resources(reader, &group, config) : status;
        if (status != WEIR_OK) {
            return status;
        }
        const uint32_t count = group.passive ? 0 : group.count == 0 ? 1 : group.count;
        total += count;
        if (!group.passive && group.kind == KIND_CPU) {
            on_cpu = true;
        } else if (!group.passive) {
            on_gpu = on_gpu || group.kind == KIND_GPU || group.gpus != 0;
            gpus |= group.gpus;
            most = count > most ? count : most;
        }
        if (total > INSTANCES_MAX) {
            return field_refuse(reader, node, "at most 1024 instances in all");
        }
    }
    if (on_gpu && on_cpu) {
        field_warn(reader, node, "on GPUs the groups of KIND_CPU do not count");
    }
    config->on_gpu = on_gpu;
    config->gpus = gpus;
    config->instances = on_gpu ? most : total;
    config->instances_no_gpu = total;
    return WEIR_OK;
}

enum weir_status modelconfig_instances(const struct field_reader *reader, const struct field *field,
                                       const struct yaml *node, void *target)
{
    const struct field count = {
        .key = field->key, .offset = field->offset, .min = 1, .max = INSTANCES_MAX
    };
    struct model_config *config = target;
    if (node->kind == YAML_SCALAR && strcmp(node->text, "auto") == 0) {
        config->instances = 0;
        config->instances_no_gpu = 0;
        return WEIR_OK;
    }
    const enum weir_status status = field_u32(reader, &count, node, target);
    config->instances_no_gpu = config->instances;
    return status;
}
