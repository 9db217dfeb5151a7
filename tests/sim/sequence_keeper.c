/*
 * The backend of sim_sequence.c: computes from the state it is given, and checks whose it is.
 */
#include "sequence_world.h"

const char *text_of(uint32_t id)
{
    const char *const texts[TEXT_IDS] = { "a", "b", "cc", "a longer name", "1" };
    return texts[id];
}

int64_t step(int64_t value, int64_t x)
{
    return (int64_t)((uint64_t)value * FACTOR + (uint64_t)x);
}

int64_t at(const struct tensor *tensor, uint64_t index)
{
    int64_t value;
    memcpy(&value, tensor->data + index * sizeof(value), sizeof(value));
    return value;
}

static bool flag(const struct tensor *tensor, uint64_t index)
{
    int32_t value;
    memcpy(&value, tensor->data + index * sizeof(value), sizeof(value));
    return value == 1;
}

/* The id told to the model at `*place` of the CORRID tensor; IDS: the empty one. */
static uint32_t id_told(struct world *world, const struct tensor *tensor, size_t *place)
{
    struct bytes text;
    LAW(tensor_next_string(tensor, place, &text), "too few ids");
    uint64_t number;
    for (uint32_t id = 0; id < TEXT_IDS; id++) {
        if (bytes_equal(text, bytes_of(text_of(id)))) {
            return id; /* Before numbers: one text looks like one. */
        }
    }
    if (text.size == 0) {
        return IDS;
    }
    LAW(bytes_to_u64(text, IDS, &number) && number > TEXT_IDS, "a strange id");
    return (uint32_t)number - 1;
}

/* Absent when memory is out. */
static struct tensor give(struct world *world, int64_t rows, int64_t width)
{
    const uint32_t rank = world->batched ? 2 : 1;
    struct tensor made = { .dtype = DTYPE_INT64, .present = true, .shape = { .rank = rank } };
    made.shape.dims[0] = world->batched ? rows : width;
    made.shape.dims[rank - 1] = width;
    made.size = (size_t)(rows * width) * sizeof(int64_t);
    made.block = block_pool_take(world->engine->blocks, made.size);
    if (made.block == NULL) {
        return (struct tensor){ 0 };
    }
    made.data = made.block->data;
    return made;
}

static void put(const struct tensor *tensor, uint64_t index, int64_t value)
{
    memcpy(tensor->data + index * sizeof(value), &value, sizeof(value));
}

/* Direct: is it this sequence's row, here and nowhere else? */
static void check_owner(struct world *world, struct keeper_context *context, uint32_t row,
                        uint32_t id, bool start)
{
    if (world->config->sequence.strategy != SEQUENCE_DIRECT) {
        return;
    }
    if (start) {
        for (uint32_t c = 0; c < world->context_count; c++) {
            for (uint32_t r = 0; r < ROWS_MAX; r++) {
                int64_t *owner = &world->contexts[c]->owners[r];
                *owner = *owner == (int64_t)id + 1 ? 0 : *owner;
            }
        }
        context->owners[row] = (int64_t)id + 1;
    }
    LAW(context->owners[row] == (int64_t)id + 1, "sequence %u in the row of %" PRId64, id,
        context->owners[row] - 1);
}

static void check_hole(struct world *world, const struct backend_run *run, uint32_t row,
                       int64_t width)
{
    LAW(world->config->sequence.strategy == SEQUENCE_DIRECT, "a hole among candidates");
    LAW(!flag(&run->inputs[IN_START], row) && !flag(&run->inputs[IN_END], row) &&
            at(&run->inputs[IN_X], row) == 0,
        "a hole that is not empty");
    for (int64_t i = 0; i < width; i++) {
        LAW(at(&run->inputs[IN_STATE], (uint64_t)(row * width + i)) == 0, "a state in a hole");
    }
}

static bool check_row(struct world *world, struct keeper_context *context,
                      const struct backend_run *run, uint32_t row, size_t *place, int64_t width)
{
    const uint32_t id = id_told(world, &run->inputs[IN_ID], place);
    const bool start = flag(&run->inputs[IN_START], row);
    if (!flag(&run->inputs[IN_READY], row)) {
        LAW(id == IDS, "a hole with a name");
        check_hole(world, run, row, width);
        return true;
    }
    LAW(id < IDS, "a row without a name");
    check_owner(world, context, row, id, start);
    for (int64_t i = 0; start && i < width; i++) {
        LAW(at(&run->inputs[IN_STATE], (uint64_t)(row * width + i)) == 0,
            "a sequence that does not begin empty");
    }
    return at(&run->inputs[IN_X], row) != POISON;
}

/* The state's last element counts; where states grow each step adds one. */
static enum weir_status compute(struct world *world, struct backend_run *run, int64_t rows,
                                int64_t width)
{
    const int64_t wider = world->grows ? width + 1 : width;
    run->outputs[OUT_Y] = give(world, rows, 1);
    run->outputs[OUT_STATE] = give(world, rows, wider);
    if (!run->outputs[OUT_Y].present || !run->outputs[OUT_STATE].present) {
        tensor_release(&run->outputs[OUT_Y]);
        tensor_release(&run->outputs[OUT_STATE]);
        return WEIR_ENOMEM;
    }
    for (int64_t r = 0; r < rows; r++) {
        const int64_t before = at(&run->inputs[IN_STATE], (uint64_t)(r * width + width - 1));
        const int64_t after = step(before, at(&run->inputs[IN_X], (uint64_t)r));
        put(&run->outputs[OUT_Y], (uint64_t)r, after);
        for (int64_t i = 0; i < wider; i++) {
            put(&run->outputs[OUT_STATE], (uint64_t)(r * wider + i), after);
        }
    }
    return WEIR_OK;
}

static enum weir_status keeper_run(struct backend_context *base, struct backend_run *run,
                                   struct weir_err *err)
{
    struct keeper_context *context = (struct keeper_context *)base;
    struct world *world = context->world;
    const struct tensor *state = &run->inputs[IN_STATE];
    const int64_t rows = world->batched ? run->inputs[IN_X].shape.dims[0] : 1;
    const int64_t width = state->shape.dims[world->batched ? 1 : 0];
    size_t place = 0;
    bool healthy = true;
    LAW(rows <= ROWS_MAX && run->rows == (uint64_t)rows, "a run of %" PRId64 " rows", rows);
    LAW(!world->batched || state->shape.dims[0] == rows, "a state for other rows");
    for (uint32_t r = 0; r < (uint32_t)rows; r++) {
        healthy = check_row(world, context, run, r, &place, width) && healthy;
    }
    const uint64_t now_ns = clock_now_ns(&world->clock);
    run->virtual_end_ns =
        (run->virtual_end_ns > now_ns ? run->virtual_end_ns : now_ns) + world->cost_ns;
    if (!healthy) {
        return err_set(err, WEIR_EBACKEND, "poisoned");
    }
    return compute(world, run, rows, width);
}

static struct world *loading; /* For contexts, which are made behind the engine's back. */

static enum weir_status keeper_context_create(struct backend_model *model,
                                              struct backend_context **out, struct weir_err *err)
{
    (void)err;
    struct keeper_context *context = mem_alloc(sizeof(*context));
    context->base.model = model;
    context->world = loading;
    loading->contexts[loading->context_count++] = context;
    *out = &context->base;
    return WEIR_OK;
}

static void keeper_context_destroy(struct backend_context *context)
{
    mem_free(context);
}

static void keeper_terminate(struct backend_context *context, bool stop)
{
    (void)context;
    (void)stop;
}

const struct backend_ops keeper = {
    .name = "keeper",
    .platform = "",
    .context_create = keeper_context_create,
    .context_destroy = keeper_context_destroy,
    .run = keeper_run,
    .terminate = keeper_terminate,
};

void keeper_load(struct world *world)
{
    loading = world;
}
