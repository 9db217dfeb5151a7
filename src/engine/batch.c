/*
 * One batch, from its members' inputs to their outputs.
 *
 * A single request is run on its own memory.  Several are gathered into one
 * block per input, and each gets a counted view of its rows of every output.
 * Views keep the whole output block alive; when the blocks that are out exceed
 * the engine's bound, rows are copied out instead, so that one slow reader
 * cannot pin the memory of its whole batch.
 *
 * A single request may have more rows than a run: where rows are independent it is run in
 * pieces, one after the other, and its outputs are put together (pieces.h).  So is one
 * whose run was out of memory, in ever smaller pieces.
 *
 * When a run fails, nobody knows which row is to blame.  The batch is split in
 * halves which run again, until the guilty request is alone: log2(n) extra runs
 * for one bad row, and only that request fails.
 */
#include "engine/batch.h"

#include <assert.h>
#include <string.h>

#include "engine/batch_impl.h"
#include "engine/bucket.h"
#include "engine/engine.h"
#include "engine/pieces.h"
#include "engine/pool.h"
#include "engine/pool_impl.h"
#include "engine/request.h"
#include "engine/sequence.h"
#include "engine/stage.h"
#include "engine/stats.h"
#include "engine/trial.h"
#include "util/mem.h"

static struct request *request_of(struct list_node *node)
{
    return list_entry(node, struct request, line);
}

static uint64_t now_ns(const struct instance *instance)
{
    return clock_now_ns(instance->model->pool->engine->clock);
}

static uint64_t rows_of(const struct list *members)
{
    uint64_t rows = 0;
    for (struct list_node *n = list_first(members); n != NULL; n = list_next(members, n)) {
        rows += request_of(n)->rows;
    }
    return rows;
}

static bool alone(const struct list *members)
{
    return members->head.next == members->head.prev;
}

/* What the request's inputs are padded to; NULL: they stay as they are. */
static const struct bucket_lengths *
lengths_of(const struct model *model, const struct request *request, struct bucket_lengths *space)
{
    return model->buckets != NULL && bucket_lengths(model->buckets, request->inputs, space) ? space
                                                                                            : NULL;
}

/* A block for the input of a run, of that shape; BYTES have `size` bytes. */
static enum weir_status make_input(struct instance *instance, uint32_t index,
                                   const struct tensor *like, const struct shape *shape,
                                   size_t size, struct weir_err *err)
{
    if (like->dtype != DTYPE_BYTES) {
        const enum weir_status status = tensor_bytes(like->dtype, shape, &size, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    struct block *block = backend_input_block(instance->replica->backend, 0, size);
    if (block == NULL) {
        block = block_pool_take(instance->model->pool->engine->blocks, size);
    }
    if (block == NULL) {
        return err_nomem(err, "the inputs of a batch", size);
    }
    struct tensor *input = &instance->inputs[index];
    *input = *like;
    input->shape = *shape;
    input->data = block->data;
    input->size = size;
    input->block = block;
    return WEIR_OK;
}

/* One input, padded. */
static enum weir_status pad_input(struct instance *instance, uint32_t index,
                                  const struct tensor *from, const struct bucket_lengths *lengths,
                                  struct weir_err *err)
{
    const struct bucket_tensor *tensor = &instance->model->buckets->inputs[index];
    const struct shape shape = bucket_shape(tensor, &from->shape, lengths->to);
    const enum weir_status status = make_input(instance, index, from, &shape, 0, err);
    if (status == WEIR_OK) {
        bucket_pad(tensor, from, &shape, instance->inputs[index].data);
    }
    return status;
}

/* Concatenates one input of all members along the leading dimension, padded where there are
 * lengths. */
static enum weir_status gather_input(struct instance *instance, const struct list *members,
                                     const struct tensor *first, uint32_t index, uint64_t rows,
                                     const struct bucket_lengths *lengths, struct weir_err *err)
{
    const struct bucket_tensor *tensor =
        lengths == NULL ? NULL : &instance->model->buckets->inputs[index];
    size_t size = 0;
    for (struct list_node *n = list_first(members); n != NULL; n = list_next(members, n)) {
        size += request_of(n)->inputs[index].size; /* Bounded by the model's bytes in line. */
    }
    struct shape shape =
        tensor == NULL ? first->shape : bucket_shape(tensor, &first->shape, lengths->to);
    shape.dims[0] = (int64_t)rows;
    const enum weir_status status = make_input(instance, index, first, &shape, size, err);
    if (status != WEIR_OK) {
        return status;
    }
    const struct tensor *input = &instance->inputs[index];
    size_t at = 0;
    for (struct list_node *n = list_first(members); n != NULL; n = list_next(members, n)) {
        const struct tensor *part = &request_of(n)->inputs[index];
        if (tensor == NULL) {
            memcpy(input->data + at, part->data, part->size);
            at += part->size;
        } else {
            shape.dims[0] = part->shape.dims[0];
            bucket_pad(tensor, part, &shape, input->data + at);
            at += input->size / rows * (size_t)part->shape.dims[0];
        }
    }
    return WEIR_OK;
}

static enum weir_status gather(struct instance *instance, const struct list *members, uint64_t rows,
                               struct weir_err *err)
{
    const struct model *model = instance->model;
    const struct request *first = request_of(list_first(members));
    const bool one = alone(members);
    struct bucket_lengths space;
    const struct bucket_lengths *lengths = lengths_of(model, first, &space);
    enum weir_status status = WEIR_OK;
    for (uint32_t i = 0; i < model->signature->input_count && status == WEIR_OK; i++) {
        const struct tensor *input = &first->inputs[i];
        const bool grouped = lengths != NULL && model->buckets->inputs[i].any;
        if (!input->present || (one && !(grouped && lengths->padded))) {
            instance->inputs[i] = *input;
            instance->inputs[i].block = NULL; /* Borrowed. */
        } else if (one) {
            status = pad_input(instance, i, input, lengths, err);
        } else {
            status = gather_input(instance, members, input, i, rows, grouped ? lengths : NULL, err);
        }
    }
    return status;
}

static void release_all(struct tensor *tensors, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        tensor_release(&tensors[i]);
    }
}

static void want(struct instance *instance, const struct list *members)
{
    const uint32_t count = instance->model->signature->output_count;
    memset(instance->wanted, 0, count * sizeof(*instance->wanted));
    for (struct list_node *n = list_first(members); n != NULL; n = list_next(members, n)) {
        const bool *wanted = request_of(n)->wanted;
        for (uint32_t i = 0; i < count; i++) {
            instance->wanted[i] = instance->wanted[i] || wanted[i];
        }
    }
}

size_t batch_row_bytes(const struct tensor *output, uint64_t all_rows, uint64_t rows, size_t at)
{
    if (output->dtype != DTYPE_BYTES) {
        return (size_t)(output->size / all_rows * rows);
    }
    uint64_t elements = 1;
    for (uint32_t d = 1; d < output->shape.rank; d++) {
        elements *= (uint64_t)output->shape.dims[d]; /* The backend made it: it fits. */
    }
    elements *= rows;
    size_t end = at;
    struct bytes ignored;
    while (elements-- > 0 && tensor_next_string(output, &end, &ignored)) {
    }
    return end - at;
}

enum weir_status batch_slice(const struct engine *engine, const struct tensor *part,
                             struct tensor *out)
{
    if (block_pool_used_bytes(engine->blocks) <= engine->limits->batch_bytes_max) {
        block_acquire(part->block);
        *out = *part;
        return WEIR_OK;
    }
    struct tensor copy = *part;
    copy.block = block_create(part->size);
    if (copy.block == NULL) {
        return WEIR_ENOMEM;
    }
    memcpy(copy.block->data, part->data, part->size);
    copy.data = copy.block->data;
    *out = copy;
    return WEIR_OK;
}

/* True: the output is longer than the request's own; the request gets what is its own. */
static bool cut(const struct instance *instance, struct request *request, uint32_t index,
                const struct tensor *rows)
{
    const struct model *model = instance->model;
    struct bucket_lengths space;
    const struct bucket_lengths *lengths = lengths_of(model, request, &space);
    if (lengths == NULL) {
        return false;
    }
    const struct bucket_tensor *output = &model->buckets->outputs[index];
    if (!bucket_cuts(output, lengths)) {
        return false;
    }
    request->status = bucket_cut(output, lengths, rows, model->pool->engine->blocks,
                                 &request->outputs[index], &request->err);
    return true;
}

static void scatter_output(struct instance *instance, const struct list *members, uint32_t index,
                           uint64_t rows)
{
    struct tensor *output = &instance->outputs[index];
    size_t at = 0;
    for (struct list_node *n = list_first(members); n != NULL; n = list_next(members, n)) {
        struct request *request = request_of(n);
        struct tensor part = *output;
        part.shape.dims[0] = (int64_t)request->rows;
        part.size = batch_row_bytes(output, rows, request->rows, at);
        part.data = output->data + at;
        if (request->wanted[index] && request->status == WEIR_OK &&
            !cut(instance, request, index, &part)) {
            request->status =
                batch_slice(instance->model->pool->engine, &part, &request->outputs[index]);
        }
        at += part.size;
    }
    tensor_release(output);
}

static void scatter_alone(struct instance *instance, struct request *request)
{
    const uint32_t count = instance->model->signature->output_count;
    for (uint32_t i = 0; i < count; i++) {
        struct tensor *output = &instance->outputs[i];
        if (!request->wanted[i] || request->status != WEIR_OK ||
            (output->present && cut(instance, request, i, output))) {
            tensor_release(output);
        } else {
            request->outputs[i] = *output;
            *output = (struct tensor){ 0 };
        }
    }
}

/* True when every output that came back has one row per row. */
static bool rows_kept(const struct instance *instance, uint64_t rows)
{
    for (uint32_t i = 0; i < instance->model->signature->output_count; i++) {
        const struct tensor *output = &instance->outputs[i];
        if (output->present &&
            (output->shape.rank == 0 || output->shape.dims[0] != (int64_t)rows)) {
            return false;
        }
    }
    return true;
}

static void scatter(struct instance *instance, const struct list *members, uint64_t rows)
{
    if (alone(members)) {
        scatter_alone(instance, request_of(list_first(members)));
        return;
    }
    for (uint32_t i = 0; i < instance->model->signature->output_count; i++) {
        if (instance->outputs[i].present) {
            scatter_output(instance, members, i, rows);
        }
    }
}

/* Takes one part of a streamed answer from the backend to its request's home. */
static enum weir_status on_part(struct backend_run *run)
{
    struct instance *instance = list_entry(run, struct instance, run);
    const uint64_t at_ns = now_ns(instance);
    const enum weir_status status =
        pool_part(instance->model->pool, instance->streaming, instance->outputs,
                  instance->model->signature->output_count);
    if (status == WEIR_OK) {
        stats_count_part(instance->model, instance->streaming, at_ns - instance->batch.part_ns);
        instance->batch.part_ns = now_ns(instance); /* Waiting for the reader is no work. */
    }
    return status;
}

/* What the backend takes: more than clients send where the engine adds to it. */
static const struct signature *full_signature(const struct model *model)
{
    return model->sequence_plan != NULL ? model->sequence_plan->full : model->signature;
}

/* A successful run's outputs go to its members. */
static enum weir_status hand_out(struct instance *instance, const struct list *members,
                                 uint64_t rows, struct weir_err *err)
{
    if (instance->model->sequences != NULL) {
        return sequence_scatter(instance, members, err);
    }
    if (!alone(members) && !rows_kept(instance, rows)) {
        instance->batch.dependent = true;
        return err_set(err, WEIR_EBACKEND, "outputs do not have one row per input row");
    }
    scatter(instance, members, rows);
    return WEIR_OK;
}

static enum weir_status collect(struct instance *instance, const struct list *members,
                                uint64_t rows, struct weir_err *err)
{
    if (instance->model->sequences != NULL) {
        sequence_want(instance, members);
        return sequence_gather(instance, members, err);
    }
    want(instance, members);
    return gather(instance, members, rows, err);
}

/* When the run begins that is ready now. */
static uint64_t began_ns(const struct instance *instance)
{
    return instance->run.begin_ns > 0 ? instance->run.begin_ns : now_ns(instance);
}

/* A simulated run before this one may have ended ahead of the clock. */
static void note_end(struct batch *batch, uint64_t end_ns)
{
    batch->computed_ns = end_ns > batch->computed_ns ? end_ns : batch->computed_ns;
}

/* Runs what is in instance.inputs. */
static enum weir_status execute(struct instance *instance, uint64_t rows, struct weir_err *err)
{
    struct batch *batch = &instance->batch;
    const uint64_t from_ns =
        batch->computed_ns > batch->gathered_ns ? batch->computed_ns : batch->gathered_ns;
    batch->device_ns = 0;
    instance->run.rows = rows;
    instance->run.virtual_end_ns = 0;
    if (!pool_watch_begin(instance)) {
        return WEIR_ECANCELED;
    }
    enum weir_status status = stage_run(instance, err);
    if (!pool_watch_end(instance)) {
        status = WEIR_ECANCELED;
    }
    batch->runs++;
    note_end(batch,
             instance->run.virtual_end_ns > 0 ? instance->run.virtual_end_ns : now_ns(instance));
    batch->busy_ns += batch->device_ns > 0           ? batch->device_ns
                      : batch->computed_ns > from_ns ? batch->computed_ns - from_ns
                                                     : 0;
    instance->run.begin_ns = 0;
    if ((status == WEIR_ENOMEM || instance->run.death == DEATH_MEMORY) && rows > 1) {
        batch->rows_too_many = rows;
    }
    return status;
}

static enum weir_status run_once(struct instance *instance, const struct list *members,
                                 struct weir_err *err)
{
    struct batch *batch = &instance->batch;
    instance->run.death = DEATH_NONE;
    instance->run.told = DEATH_NONE;
    const struct signature *signature = full_signature(instance->model);
    const uint64_t rows =
        instance->model->sequences != NULL ? sequence_rows(instance, members) : rows_of(members);
    enum weir_status status = collect(instance, members, rows, err);
    batch->gathered_ns = began_ns(instance);
    batch->part_ns = batch->gathered_ns;
    if (status == WEIR_OK) {
        instance->streaming = alone(members) ? request_of(list_first(members)) : NULL;
        instance->run.part = instance->streaming != NULL && signature->streams ? on_part : NULL;
        status = execute(instance, rows, err);
    } else {
        note_end(batch, batch->gathered_ns);
        instance->run.begin_ns = 0;
    }
    release_all(instance->inputs, signature->input_count);
    status = status == WEIR_OK ? hand_out(instance, members, rows, err) : status;
    release_all(instance->outputs, signature->output_count);
    return status;
}

/* ---- One request in several runs ------------------------------------------------------------- */

/* Rows may run apart: they were proved, or said, to be independent. */
static bool divisible(const struct model *model, const struct request *request)
{
    return request->batchable && request->rows > 1 && model->batching && model->sequences == NULL;
}

/* Of equal pieces that one run may carry the rows of each. */
static uint64_t piece_rows(const struct instance *instance, const struct request *request)
{
    const struct model_config *config = instance->model->config;
    uint64_t most = request->rows;
    if (config->max_batch_inferred && config->max_batch_size > 0 &&
        most > (uint64_t)config->max_batch_size) {
        const uint64_t some = (uint64_t)config->max_batch_size;
        const uint64_t more = instance->batch.rows_short > some ? instance->batch.rows_short : some;
        most = more < most ? more : most;
    }
    if (instance->batch.rows_cap > 0 && most > instance->batch.rows_cap) {
        most = instance->batch.rows_cap;
    }
    const uint64_t count = (request->rows + most - 1) / most;
    return (request->rows + count - 1) / count;
}

static enum weir_status run_piece(struct instance *instance, struct pieces *pieces, uint64_t rows,
                                  struct weir_err *err)
{
    const struct model *model = instance->model;
    const struct signature *signature = model->signature;
    struct bucket_lengths space;
    const struct bucket_lengths *lengths = lengths_of(model, pieces->request, &space);
    enum weir_status status = WEIR_OK;
    for (uint32_t i = 0; i < signature->input_count && status == WEIR_OK; i++) {
        instance->inputs[i] = pieces_view(pieces, i, rows);
        if (lengths != NULL && lengths->padded && model->buckets->inputs[i].any &&
            instance->inputs[i].present) {
            const struct tensor view = instance->inputs[i];
            status = pad_input(instance, i, &view, lengths, err);
        }
    }
    instance->streaming = NULL;
    instance->run.part = NULL;
    status = status == WEIR_OK ? execute(instance, rows, err) : status;
    release_all(instance->inputs, signature->input_count);
    if (status == WEIR_OK && !rows_kept(instance, rows)) {
        status = err_set(err, WEIR_ECONFLICT, "outputs do not have one row per input row");
    }
    status = status == WEIR_OK ? pieces_add(pieces, rows, instance->outputs, err) : status;
    release_all(instance->outputs, signature->output_count);
    return status;
}

/* Pieces of `most` rows, halved where memory is out. */
static enum weir_status run_all_pieces(struct instance *instance, struct pieces *pieces,
                                       uint64_t most, struct weir_err *err)
{
    struct batch *batch = &instance->batch;
    enum weir_status status = WEIR_OK;
    while (status == WEIR_OK && pieces->rows < pieces->request->rows) {
        const uint64_t left = pieces->request->rows - pieces->rows;
        const uint64_t rows = left < most ? left : most;
        const uint64_t from_ns =
            batch->computed_ns > batch->gathered_ns ? batch->computed_ns : batch->gathered_ns;
        status = run_piece(instance, pieces, rows, err);
        if (status == WEIR_OK && rows >= batch->learn_rows) {
            batch->learn_rows = rows;
            batch->learn_ns = batch->computed_ns - from_ns;
        } else if (status == WEIR_ENOMEM && rows > 1) {
            most = (rows + 1) / 2;
            status = WEIR_OK;
        }
    }
    return status;
}

static enum weir_status run_in_pieces(struct instance *instance, const struct list *members,
                                      uint64_t most, struct weir_err *err)
{
    struct request *request = request_of(list_first(members));
    const struct signature *signature = instance->model->signature;
    struct batch *batch = &instance->batch;
    struct pieces pieces;
    enum weir_status status = pieces_init(&pieces, request, signature, err);
    if (status != WEIR_OK) {
        return status;
    }
    want(instance, members);
    batch->gathered_ns = began_ns(instance);
    status = run_all_pieces(instance, &pieces, most, err);
    for (uint32_t i = 0; i < signature->output_count && status == WEIR_OK; i++) {
        status = pieces_join(&pieces, i, instance->model->pool->engine->blocks,
                             &instance->outputs[i], err);
    }
    pieces_finish(&pieces);
    if (status == WEIR_OK) {
        scatter_alone(instance, request);
    }
    release_all(instance->outputs, signature->output_count);
    return status;
}

static enum weir_status run_alone(struct instance *instance, const struct list *members,
                                  struct weir_err *err)
{
    const struct request *request = request_of(list_first(members));
    if (!divisible(instance->model, request)) {
        return run_once(instance, members, err);
    }
    const uint64_t rows = piece_rows(instance, request);
    enum weir_status status = rows < request->rows ? WEIR_ENOMEM : run_once(instance, members, err);
    if (status == WEIR_ENOMEM) {
        const uint64_t half = (request->rows + 1) / 2;
        status = run_in_pieces(instance, members, rows < half ? rows : half, err);
    }
    /* What comes out depends on who runs together after all. */
    return status == WEIR_ECONFLICT ? run_once(instance, members, err) : status;
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

void batch_end(struct batch *batch, struct request *request, enum weir_status status,
               const struct weir_err *err)
{
    list_remove(&request->line);
    if (request->status == WEIR_OK) {
        request->status = status;
    }
    if (request->status != WEIR_OK) {
        const bool told = request->err.text[0] != '\0'; /* By whoever set its own status. */
        const char *text = status != WEIR_OK && err->text[0] != '\0'
                               ? err->text
                               : weir_status_text(request->status);
        if (!told) {
            (void)err_set(&request->err, request->status, "%s", text);
        }
    }
    /* One that joined the batch later (trial.c) may have come after it was taken. */
    const uint64_t came_ns = request->times.submitted_ns;
    request->times.taken_ns = later(batch->taken_ns, came_ns);
    request->times.gathered_ns = later(batch->gathered_ns, came_ns);
    request->times.computed_ns = later(batch->computed_ns, came_ns);
    request->batch_rows = batch->rows;
    list_append(&batch->ended, &request->line);
}

void batch_end_all(struct batch *batch, struct list *members, enum weir_status status,
                   const struct weir_err *err)
{
    for (struct list_node *n = list_first(members); n != NULL; n = list_first(members)) {
        batch_end(batch, request_of(n), status, err);
    }
}

/* Moves the later half of `members` to `half`. */
static void split(struct list *members, struct list *half)
{
    uint32_t count = 0;
    for (struct list_node *n = list_first(members); n != NULL; n = list_next(members, n)) {
        count++;
    }
    list_init(half);
    for (uint32_t i = 0; i < count / 2; i++) {
        struct list_node *last = members->head.prev;
        list_remove(last);
        list_prepend(half, last);
    }
}

enum weir_status batch_attempt(struct instance *instance, const struct list *members,
                               struct weir_err *err)
{
    return alone(members) ? run_alone(instance, members, err) : run_once(instance, members, err);
}

void batch_conclude(struct instance *instance, struct list *members, enum weir_status status,
                    const struct weir_err *err)
{
    if (status == WEIR_OK || status == WEIR_ECANCELED || alone(members)) {
        batch_end_all(&instance->batch, members, status, err);
        return;
    }
    struct list half;
    split(members, &half);
    batch_carry(instance, members);
    batch_carry(instance, &half);
}

/* Depth: log2 of the members of a batch. */
void batch_carry(struct instance *instance, struct list *members)
{
    struct weir_err err = { WEIR_OK, "" };
    const enum weir_status status = batch_attempt(instance, members, &err);
    if (replica_is_lost(instance, status)) {
        instance->batch.lost = err;
        list_splice(&instance->batch.returned, members);
        return;
    }
    if (instance->run.death != DEATH_NONE || status == WEIR_EUNAVAILABLE) {
        trial_hold(instance, members, instance->batch.gathered_ns, status, &err);
        return;
    }
    trial_note_alive(instance->model, status);
    batch_conclude(instance, members, status, &err);
}

void batch_run(struct instance *instance)
{
    struct batch *batch = &instance->batch;
    list_init(&batch->ended);
    list_init(&batch->returned);
    batch->canary = request_of(list_first(&batch->members))->canary; /* It rides alone. */
    trial_screen(instance);
    if (!list_empty(&batch->members)) {
        batch_carry(instance, &batch->members);
    }
    bool good = !list_empty(&batch->ended);
    for (struct list_node *n = list_first(&batch->ended); n != NULL;
         n = list_next(&batch->ended, n)) {
        good = good && request_of(n)->status == WEIR_OK;
    }
    batch->clean = good && batch->runs == 1;
    if (batch->clean) {
        batch->learn_rows = batch->rows;
        batch->learn_ns = batch->computed_ns - batch->gathered_ns;
    } else if (!good) {
        batch->learn_rows = 0;
    }
}

enum weir_status instance_init(struct instance *instance, struct model *model, struct weir_err *err)
{
    const struct signature *signature = full_signature(model);
    const size_t index = (size_t)(instance - model->instances);
    *instance = (struct instance){ .model = model,
                                   .replica = &model->replicas[index % model->replica_count] };
    instance->inputs = mem_try_zero(signature->input_count + 1u, sizeof(*instance->inputs));
    instance->outputs = mem_try_zero(signature->output_count + 1u, sizeof(*instance->outputs));
    instance->wanted = mem_try_zero(signature->output_count + 1u, sizeof(*instance->wanted));
    bool made = instance->inputs != NULL && instance->outputs != NULL && instance->wanted != NULL;
    if (model->sequence_plan != NULL) {
        const size_t rows =
            model->config->max_batch_size > 1 ? (size_t)model->config->max_batch_size : 1;
        instance->rows = mem_try_zero(rows, sizeof(*instance->rows));
        instance->riders = mem_try_zero(rows, sizeof(*instance->riders));
        made = made && instance->rows != NULL && instance->riders != NULL;
    }
    enum weir_status status =
        made ? WEIR_OK : err_nomem(err, "a model instance", signature->output_count);
    if (status == WEIR_OK) {
        status = backend_context_create(instance->replica->backend, &instance->context, err);
    }
    if (status != WEIR_OK) {
        instance_finish(instance);
        return status;
    }
    instance->run = (struct backend_run){
        .inputs = instance->inputs,
        .outputs = instance->outputs,
        .wanted = instance->wanted,
    };
    list_init(&instance->batch.members);
    list_init(&instance->batch.ended);
    list_init(&instance->batch.returned);
    return WEIR_OK;
}

void instance_finish(struct instance *instance)
{
    backend_context_destroy(instance->context);
    mem_free(instance->inputs);
    mem_free(instance->outputs);
    mem_free(instance->wanted);
    mem_free(instance->rows);
    mem_free(instance->riders);
    *instance = (struct instance){ 0 };
}
