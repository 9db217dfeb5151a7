/*
 * One run of a sequence model: rows to tensors and back.
 *
 * The direct strategy lays requests out by the rows that their sequences hold, with holes
 * between; the oldest strategy one behind the other.  The rest is the same.
 *
 * A state moves only when a run succeeded: a run that is split and repeated reads what it read
 * before.  A row's new state is copied out of the batch, so that one sequence does not keep the
 * outputs of a whole batch in memory.
 */
#include <assert.h>
#include <string.h>

#include "engine/engine.h"
#include "engine/pool.h"
#include "engine/sequence.h"

static struct request *request_of(const struct list_node *node)
{
    return list_entry(node, struct request, line);
}

uint32_t sequence_rows(const struct instance *instance, const struct list *members)
{
    uint32_t count = instance->batch.span;
    for (const struct list_node *n = list_first(members); instance->batch.span == 0 && n != NULL;
         n = list_next(members, n)) {
        count++;
    }
    return count;
}

/* Who sits in which row. */
static void lay_out(struct instance *instance, const struct list *members, uint32_t count)
{
    memset(instance->riders, 0, count * sizeof(struct request *));
    memset(instance->rows, 0, count * sizeof(*instance->rows));
    uint32_t at = 0;
    for (const struct list_node *n = list_first(members); n != NULL; n = list_next(members, n)) {
        struct request *request = request_of(n);
        const struct sequence *sequence = request->sequence;
        const uint32_t row = instance->batch.span > 0 ? sequence->row : at++;
        assert(row < count && instance->riders[row] == NULL);
        instance->riders[row] = request;
        instance->rows[row] = (struct plan_row){
            .ready = true,
            .start = request->sequence_start,
            .end = request->sequence_end,
            .id = request->sequence_id,
            .states = sequence->begun && !request->sequence_start ? sequence->states : NULL,
        };
    }
}

/* Bytes of one row of zeros that looks like `like`. */
static size_t hole_bytes(const struct tensor *like)
{
    if (like->dtype != DTYPE_BYTES) {
        return like->size;
    }
    size_t elements = 1;
    for (uint32_t d = 0; d < like->shape.rank; d++) {
        elements *= (size_t)like->shape.dims[d]; /* One row of a tensor that was checked. */
    }
    return elements * sizeof(uint32_t); /* Empty strings. */
}

/* One input of all rows, zeros where nobody sits. */
static enum weir_status gather_input(struct instance *instance, const struct tensor *like,
                                     uint32_t index, uint32_t count, struct tensor *out,
                                     struct weir_err *err)
{
    const size_t hole = hole_bytes(like);
    size_t size = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct request *rider = instance->riders[i];
        size += rider != NULL ? rider->inputs[index].size : hole; /* Bounded by bytes in line. */
    }
    struct block *block = backend_input_block(instance->replica->backend, 0, size + 1);
    if (block == NULL) {
        block = block_pool_take(instance->model->pool->engine->blocks, size + 1);
    }
    if (block == NULL) {
        return err_nomem(err, "the inputs of a batch", size);
    }
    uint8_t *at = block->data;
    for (uint32_t i = 0; i < count; i++) {
        const struct request *rider = instance->riders[i];
        const size_t bytes = rider != NULL ? rider->inputs[index].size : hole;
        if (rider == NULL) {
            memset(at, 0, bytes);
        } else if (bytes > 0) {
            memcpy(at, rider->inputs[index].data, bytes);
        }
        at += bytes;
    }
    *out = *like;
    out->shape.dims[0] = count;
    out->data = block->data;
    out->size = size;
    out->block = block;
    return WEIR_OK;
}

enum weir_status sequence_gather(struct instance *instance, const struct list *members,
                                 struct weir_err *err)
{
    const struct sequence_plan *plan = instance->model->sequence_plan;
    const uint32_t count = sequence_rows(instance, members);
    lay_out(instance, members, count);
    const struct request *first = request_of(list_first(members));
    for (uint32_t i = 0; i < plan->shown.input_count; i++) {
        struct tensor *input = &instance->inputs[plan->inputs[i]];
        if (count == 1 || !first->inputs[i].present) {
            *input = first->inputs[i];
            input->block = NULL; /* Borrowed. */
            continue;
        }
        const enum weir_status status =
            gather_input(instance, &first->inputs[i], i, count, input, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    return sequence_plan_fill(plan, instance->rows, count, instance->model->pool->engine->blocks,
                              instance->inputs, err);
}

void sequence_want(struct instance *instance, const struct list *members)
{
    const struct sequence_plan *plan = instance->model->sequence_plan;
    memset(instance->wanted, 0, plan->full->output_count * sizeof(*instance->wanted));
    for (uint32_t i = 0; i < plan->state_count; i++) {
        instance->wanted[plan->states[i].output] = true;
    }
    for (struct list_node *n = list_first(members); n != NULL; n = list_next(members, n)) {
        for (uint32_t i = 0; i < plan->shown.output_count; i++) {
            bool *wanted = &instance->wanted[plan->outputs[i]];
            *wanted = *wanted || request_of(n)->wanted[i];
        }
    }
}

/* Every output that came back has one row per row. */
static bool rows_kept(const struct instance *instance, uint32_t count)
{
    for (uint32_t i = 0; i < instance->model->sequence_plan->full->output_count; i++) {
        const struct tensor *output = &instance->outputs[i];
        if (output->present && (output->shape.rank == 0 || output->shape.dims[0] != count)) {
            return false;
        }
    }
    return true;
}

/* Row by row, beginning at byte *at; moves *at behind the row. */
static struct tensor row_of(const struct tensor *output, uint32_t count, size_t *at)
{
    struct tensor row = *output;
    row.block = NULL;
    row.data = output->data + *at;
    row.size = count == 1 ? output->size : batch_row_bytes(output, count, 1, *at);
    if (count > 1) {
        row.shape.dims[0] = 1;
    }
    *at += row.size;
    return row;
}

static enum weir_status refuse_state(const struct plan_state *state, const struct tensor *found,
                                     const struct tensor_spec *spec, struct weir_err *err)
{
    char gave[SHAPE_TEXT];
    char takes[SHAPE_TEXT];
    return err_set(err, WEIR_EBACKEND, "state '%s' came back with shape %s, the model takes %s",
                   state->name, shape_format(&found->shape, gave),
                   shape_format(&spec->shape, takes));
}

/* Books `bytes` more for the sequence's states, or says that there is no room. */
static enum weir_status book(struct sequencer *s, struct sequence *sequence, size_t bytes,
                             struct weir_err *err)
{
    const uint64_t before = atomic_fetch_add_explicit(&s->state_bytes, bytes, memory_order_relaxed);
    if (bytes > s->state_bytes_max || before > s->state_bytes_max - bytes) {
        atomic_fetch_sub_explicit(&s->state_bytes, bytes, memory_order_relaxed);
        return err_set(err, WEIR_EFULL,
                       "model '%s' holds %llu bytes of states, %zu more are above the limit of "
                       "%llu (sequence_bytes_max)",
                       s->model->name, (unsigned long long)before, bytes,
                       (unsigned long long)s->state_bytes_max);
    }
    sequence->state_bytes += bytes;
    return WEIR_OK;
}

/* The row becomes the sequence's state: taken whole from a run of its own, else copied. */
static enum weir_status keep(struct sequencer *s, struct sequence *sequence, uint32_t index,
                             struct tensor *row, struct tensor *whole, bool alone,
                             struct weir_err *err)
{
    const struct plan_state *state = &s->plan->states[index];
    const struct tensor_spec *spec = &s->plan->full->inputs[state->input];
    struct tensor *kept = &sequence->states[index];
    if (!whole->present || whole->dtype != spec->dtype ||
        (!spec->any_rank && !shape_fits(&row->shape, &spec->shape))) {
        return refuse_state(state, row, spec, err);
    }
    const enum weir_status status = book(s, sequence, row->size, err);
    if (status != WEIR_OK) {
        return status;
    }
    if (alone) {
        row->block = whole->block;
        *whole = (struct tensor){ .dtype = whole->dtype };
    } else {
        row->block = block_create(row->size + 1);
        if (row->block == NULL) {
            sequence->state_bytes -= row->size;
            atomic_fetch_sub_explicit(&s->state_bytes, row->size, memory_order_relaxed);
            return err_nomem(err, "a sequence's state", row->size);
        }
        memcpy(row->block->data, row->data, row->size);
        row->data = row->block->data;
    }
    const size_t freed = kept->present ? kept->size : 0;
    tensor_release(kept);
    sequence->state_bytes -= freed;
    atomic_fetch_sub_explicit(&s->state_bytes, freed, memory_order_relaxed);
    *kept = *row;
    return WEIR_OK;
}

static void fail(struct request *request, enum weir_status status, const struct weir_err *err)
{
    if (request->status == WEIR_OK) {
        request->status = err_set(&request->err, status, "%s", err->text);
    }
}

static void scatter_state(struct instance *instance, uint32_t index, uint32_t count)
{
    struct sequencer *s = instance->model->sequences;
    struct tensor *output = &instance->outputs[s->plan->states[index].output];
    const struct tensor all = *output;
    size_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct request *rider = instance->riders[i];
        struct tensor row = row_of(&all, count, &at);
        if (rider == NULL || rider->status != WEIR_OK || rider->sequence_end) {
            continue;
        }
        struct weir_err err = { WEIR_OK, "" };
        const enum weir_status status =
            keep(s, rider->sequence, index, &row, output, count == 1, &err);
        if (status != WEIR_OK) {
            fail(rider, status, &err);
        } else if (index + 1 == s->plan->state_count) {
            rider->sequence->begun = true;
        }
    }
}

static void scatter_output(struct instance *instance, uint32_t index, uint32_t count)
{
    const struct sequence_plan *plan = instance->model->sequence_plan;
    const struct engine *engine = instance->model->pool->engine;
    struct tensor *output = &instance->outputs[plan->outputs[index]];
    size_t at = 0;
    for (uint32_t i = 0; i < count && output->present; i++) {
        struct request *rider = instance->riders[i];
        struct tensor row = row_of(output, count, &at);
        if (rider == NULL || !rider->wanted[index] || rider->status != WEIR_OK) {
            continue;
        }
        if (count == 1) {
            rider->outputs[index] = *output;
            *output = (struct tensor){ 0 };
            continue;
        }
        row.block = output->block;
        rider->status = batch_slice(engine, &row, &rider->outputs[index]);
    }
}

enum weir_status sequence_scatter(struct instance *instance, const struct list *members,
                                  struct weir_err *err)
{
    const struct sequence_plan *plan = instance->model->sequence_plan;
    const uint32_t count = sequence_rows(instance, members);
    if (count > 1 && !rows_kept(instance, count)) {
        instance->batch.dependent = true;
        return err_set(err, WEIR_EBACKEND, "outputs do not have one row per input row");
    }
    for (uint32_t i = 0; i < plan->shown.output_count; i++) {
        scatter_output(instance, i, count);
    }
    for (uint32_t i = 0; i < plan->state_count; i++) {
        scatter_state(instance, i, count);
    }
    return WEIR_OK;
}
