/*
 * Sequence batching: control tensors, states, and the two strategies.
 */
#include <string.h>

#include "server/modelconfig_tables.h"
#include "util/clock.h"

#define IDLE_NS_DEFAULT NS_PER_S

/* One control of a control input, as it is written: a pair of values under the key of its type. */
struct control {
    unsigned kind;
    enum dtype dtype;
    bool has_dtype;
    double pair[2];
    enum dtype pair_dtype;
    bool has_pair;
};

struct control_input {
    const char *name;
    struct control control;
    uint32_t count;
};

struct initial_state {
    const char *name;
    enum dtype dtype;
    bool has_dtype;
    struct shape dims;
    bool has_dims;
    bool zero;
    const char *file;
};

struct state {
    const char *input;
    const char *output;
    enum dtype dtype;
    bool has_dtype;
    struct shape dims;
    bool has_dims;
    struct initial_state initial;
};

/* ---- control_input --------------------------------------------------------------------------- */

static const char *const kind_words[] = {
#define KIND_WORD(name, text) text,
    SEQUENCE_CONTROLS(KIND_WORD)
#undef KIND_WORD
};
static const struct field_words kinds = {
    "CONTROL_SEQUENCE_",
    kind_words,
    4,
    "CONTROL_SEQUENCE_START, _READY, _END or _CORRID",
};

static enum weir_status read_pair(const struct field_reader *reader, const struct field *field,
                                  const struct yaml *node, void *target)
{
    struct control *control = target;
    if (node->kind == YAML_LIST && node->count == 0) {
        return WEIR_OK;
    }
    control->pair_dtype = (enum dtype)field->min;
    if (node->kind != YAML_LIST || node->count != 2) {
        return field_refuse(reader, node, "two values: that for false, that for true");
    }
    if (control->has_pair) {
        return field_refuse(reader, node, "one pair of values");
    }
    uint32_t i = 0;
    for (const struct yaml *item = node->first; item != NULL; item = item->next, i++) {
        bool flag = false;
        const struct field row = { .key = field->key };
        const enum weir_status status =
            control->pair_dtype == DTYPE_BOOL
                ? field_bool(reader, &row, item, &flag)
                : yaml_double(item, node->file,
                              control->pair_dtype == DTYPE_INT32 ? INT32_MIN : -3.4e38,
                              control->pair_dtype == DTYPE_INT32 ? INT32_MAX : 3.4e38,
                              &control->pair[i], reader->err);
        if (status != WEIR_OK) {
            return status;
        }
        control->pair[i] = flag ? 1 : control->pair[i];
    }
    control->has_pair = true;
    return WEIR_OK;
}

/* Triton prints TYPE_INVALID where nobody set it. */
static enum weir_status read_id_type(const struct field_reader *reader, const struct field *field,
                                     const struct yaml *node, void *target)
{
    const bool unset = node->kind == YAML_SCALAR &&
                       (strcmp(node->text, "TYPE_INVALID") == 0 || strcmp(node->text, "0") == 0);
    return unset ? WEIR_OK : modelconfig_dtype(reader, field, node, target);
}

#define PAIR_FIELD(key_, dtype_)                                                             \
    {                                                                                        \
        .key = key_, .read = read_pair, .expects = "two values",                             \
        .help = "what the tensor holds for no and for yes", .min = dtype_, .form = FORM_LIST \
    }

static const struct field control_fields[] = {
    FIELD_ENUM("kind", &kinds, "CONTROL_SEQUENCE_START ...", "what the tensor tells the model",
               AT(control, kind)),
    PAIR_FIELD("int32_false_true", DTYPE_INT32),
    PAIR_FIELD("fp32_false_true", DTYPE_FP32),
    PAIR_FIELD("bool_false_true", DTYPE_BOOL),
    FIELD("data_type", read_id_type, "data type", "of the sequence's id (CORRID)",
          AT(control, dtype)),
};
static const struct field_table control_table = FIELD_TABLE(control_fields);

static enum weir_status read_control(const struct field_reader *reader, const struct field *field,
                                     const struct yaml *node, void *target)
{
    struct control_input *input = target;
    if (node->kind != YAML_LIST || node->count != 1) {
        return field_refuse(reader, node, "a list of one control");
    }
    struct control *control = &input->control;
    const struct yaml *item = node->first;
    const enum weir_status status = field_read_table(reader, field->table, item, control);
    if (status != WEIR_OK) {
        return status;
    }
    input->count = 1;
    if (control->kind == SEQUENCE_CORRID) {
        return !control->has_dtype ? field_refuse(reader, item, "data_type of the sequence's id")
               : control->has_pair ? field_refuse(reader, item, "no values for false and true")
                                   : WEIR_OK;
    }
    return control->has_pair ? WEIR_OK
                             : field_refuse(reader, item,
                                            "one of int32_false_true, fp32_false_true, "
                                            "bool_false_true");
}

static const struct field control_input_fields[] = {
    FIELD("name", field_text, "text", "an input of the model, which clients do not send",
          AT(control_input, name)),
    FIELD_FORM(FORM_LIST, "control", read_control, "list of one", "what it tells", &control_table),
};
static const struct field_table control_input_table = FIELD_TABLE(control_input_fields);

static enum weir_status check_controls(const struct field_reader *reader, const struct yaml *node,
                                       const struct sequence_control *controls, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t before = 0; before < i; before++) {
            if (strcmp(controls[i].input, controls[before].input) == 0 ||
                controls[i].kind == controls[before].kind) {
                return field_refuse(reader, node, "each name and each kind once");
            }
        }
    }
    return WEIR_OK;
}

static enum weir_status read_controls(const struct field_reader *reader, const struct field *field,
                                      const struct yaml *node, void *target)
{
    struct sequence_config *sequence = target;
    void *memory = NULL;
    uint32_t count = 0;
    enum weir_status status =
        field_read_items(reader, field, node, sizeof(struct control_input), &memory, &count);
    const struct control_input *items = memory;
    struct sequence_control *controls = arena_try_zero(reader->arena, count, sizeof(*controls));
    if (status == WEIR_OK && controls == NULL) {
        return err_nomem(reader->err, node->file, count * sizeof(*controls));
    }
    const struct yaml *item = node->first;
    for (uint32_t i = 0; status == WEIR_OK && i < count; i++) {
        status = field_need(reader, item, items[i].name, "a name in it");
        if (status == WEIR_OK && items[i].count == 0) {
            status = field_refuse(reader, item, "a control in it");
        }
        const struct control *control = &items[i].control;
        controls[i] = (struct sequence_control){
            .input = items[i].name,
            .kind = (enum sequence_control_kind)control->kind,
            .dtype = control->has_pair ? control->pair_dtype : control->dtype,
            .false_true = { control->pair[0], control->pair[1] },
        };
        item = item->next;
    }
    status = status == WEIR_OK ? check_controls(reader, node, controls, count) : status;
    if (status == WEIR_OK) {
        sequence->controls = controls;
        sequence->control_count = count;
    }
    return status;
}

/* ---- state ----------------------------------------------------------------------------------- */

static const struct field initial_fields[] = {
    FIELD("name", field_text, "text", "any, for messages", AT(initial_state, name)),
    FIELD("data_type", modelconfig_dtype, "data type", "that of the state",
          AT(initial_state, dtype)),
    FIELD_FORM_AT(FORM_LIST, "dims", modelconfig_dims, "list of sizes",
                  "where the state's dims are variable", AT(initial_state, dims)),
    FIELD_CHOICE("zero_data", field_bool, "true", "zeros", AT(initial_state, zero), NULL),
    FIELD_CHOICE("data_file", field_text, "file", "in the model's folder initial_state",
                 AT(initial_state, file), NULL),
};
static const struct field_table initial_table = FIELD_TABLE(initial_fields);

static enum weir_status read_initial(const struct field_reader *reader, const struct field *field,
                                     const struct yaml *node, void *target)
{
    struct state *state = target;
    if (node->kind != YAML_LIST || node->count > 1) {
        return field_refuse(reader, node, "a list of one initial state");
    }
    if (node->count == 0) {
        return WEIR_OK;
    }
    return field_read_table(reader, field->table, node->first, &state->initial);
}

static const struct field state_fields[] = {
    FIELD("input_name", field_text, "text", "the input that gets the state", AT(state, input)),
    FIELD("output_name", field_text, "text", "the output that gives the next one",
          AT(state, output)),
    FIELD("data_type", modelconfig_dtype, "data type", "of both", AT(state, dtype)),
    FIELD_FORM_AT(FORM_LIST, "dims", modelconfig_dims, "list of sizes",
                  "without the batch dimension", AT(state, dims)),
    FIELD_FORM(FORM_LIST, "initial_state", read_initial, "list of one",
               "what a sequence begins with; zeros", &initial_table),
    FIELD_NOTHING("use_same_buffer_for_input_output", "true or false", "no effect"),
    FIELD_REFUSED("use_growable_memory", "states are of fixed or variable dims, not growing"),
};
static const struct field_table state_table = FIELD_TABLE(state_fields);

static enum weir_status take_state(const struct field_reader *reader, const struct yaml *node,
                                   const struct state *state, struct sequence_state *out)
{
    enum weir_status status = field_need(reader, node, state->input, "input_name");
    status = status == WEIR_OK ? field_need(reader, node, state->output, "output_name") : status;
    if (status != WEIR_OK) {
        return status;
    }
    if (!state->has_dtype || !state->has_dims) {
        return field_refuse(reader, node, "data_type and dims");
    }
    const struct initial_state *initial = &state->initial;
    if (initial->has_dtype && initial->dtype != state->dtype) {
        return field_refuse(reader, node, "the same data_type in initial_state");
    }
    *out = (struct sequence_state){
        .input = state->input,
        .output = state->output,
        .dtype = state->dtype,
        .dims = state->dims,
        .initial_dims = initial->dims,
        .has_initial_dims = initial->has_dims,
        .initial_file = initial->file != NULL && initial->file[0] != '\0' ? initial->file : NULL,
    };
    return WEIR_OK;
}

static enum weir_status read_states(const struct field_reader *reader, const struct field *field,
                                    const struct yaml *node, void *target)
{
    struct sequence_config *sequence = target;
    void *memory = NULL;
    uint32_t count = 0;
    enum weir_status status =
        field_read_items(reader, field, node, sizeof(struct state), &memory, &count);
    const struct state *items = memory;
    struct sequence_state *states = arena_try_zero(reader->arena, count, sizeof(*states));
    if (status == WEIR_OK && states == NULL) {
        return err_nomem(reader->err, node->file, count * sizeof(*states));
    }
    const struct yaml *item = node->first;
    for (uint32_t i = 0; status == WEIR_OK && i < count; i++) {
        status = take_state(reader, item, &items[i], &states[i]);
        item = item->next;
    }
    if (status == WEIR_OK) {
        sequence->states = states;
        sequence->state_count = count;
    }
    return status;
}

/* ---- sequence_batching ----------------------------------------------------------------------- */

static enum weir_status read_preferred(const struct field_reader *reader, const struct field *field,
                                       const struct yaml *node, void *target)
{
    (void)field;
    struct sequence_config *sequence = target;
    return modelconfig_preferred(reader, node, sequence->preferred, &sequence->preferred_count);
}

#define DELAY_FIELD                                                                              \
    FIELD_RANGE("max_queue_delay_microseconds", field_microseconds, "microseconds",              \
                "longest wait of a request for company", AT(sequence_config, queue_delay_ns), 0, \
                MICROSECONDS_MAX)

static const struct field direct_fields[] = {
    DELAY_FIELD,
    FIELD_RANGE("minimum_slot_utilization", field_double, "0 to 1",
                "share of the slots that makes a batch go at once",
                AT(sequence_config, slot_utilization_min), 0, 1),
};
static const struct field_table direct_table = FIELD_TABLE(direct_fields);

static const struct field oldest_fields[] = {
    FIELD_RANGE("max_candidate_sequences", field_u32, "count",
                "sequences open at a time; 0: no limit", AT(sequence_config, candidates_max), 0,
                UINT32_MAX),
    FIELD_FORM(FORM_LIST, "preferred_batch_size", read_preferred, "list of batch sizes",
               "a batch stops at the largest of them it can fill", NULL),
    DELAY_FIELD,
    FIELD_NOTHING("preserve_ordering", "true or false",
                  "no effect: answers of a sequence always leave in order"),
};
static const struct field_table oldest_table = FIELD_TABLE(oldest_fields);

static enum weir_status read_direct(const struct field_reader *reader, const struct field *field,
                                    const struct yaml *node, void *target)
{
    ((struct sequence_config *)target)->strategy = SEQUENCE_DIRECT;
    return field_read_table(reader, field->table, node, target);
}

static enum weir_status read_oldest(const struct field_reader *reader, const struct field *field,
                                    const struct yaml *node, void *target)
{
    ((struct sequence_config *)target)->strategy = SEQUENCE_OLDEST;
    return field_read_table(reader, field->table, node, target);
}

static const struct field sequence_fields[] = {
    FIELD_RANGE("max_sequence_idle_microseconds", field_microseconds, "microseconds",
                "a sequence without a request for so long is dropped; 0: 1 s",
                AT(sequence_config, idle_ns), 0, MICROSECONDS_MAX),
    FIELD_FORM(FORM_LIST, "control_input", read_controls, "list",
               "inputs that tell the model about the sequence", &control_input_table),
    FIELD_FORM(FORM_LIST, "state", read_states, "list",
               "outputs that become inputs of the sequence's next request", &state_table),
    FIELD_CHOICE("direct", read_direct, "map",
                 "each sequence has a row of a batch for itself (the default)", 0, &direct_table),
    FIELD_CHOICE("oldest", read_oldest, "map", "the oldest sequences share batches", 0,
                 &oldest_table),
    FIELD_REFUSED("iterative_sequence", "a request is answered by one run"),
};
const struct field_table modelconfig_sequence_table = FIELD_TABLE(sequence_fields);

enum weir_status modelconfig_sequence(const struct field_reader *reader, const struct field *field,
                                      const struct yaml *node, void *target)
{
    struct sequence_config *sequence = &((struct model_config *)target)->sequence;
    sequence->strategy = SEQUENCE_DIRECT;
    const enum weir_status status = field_read_table(reader, field->table, node, sequence);
    sequence->idle_ns = sequence->idle_ns == 0 ? IDLE_NS_DEFAULT : sequence->idle_ns;
    return status;
}
