/*
 * Small messages go from the last byte to the engine without leaving the loop.  Strings
 * are checked, values narrowed and classes sought by a worker where they are many.
 */
#include "api/kserve_grpc_job.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "api/call.h"
#include "api/classify.h"
#include "api/infer_recall.h"
#include "api/kserve_shared.h"
#include "net/body.h"
#include "util/mem.h"

#define LOADS_MAX 100
#define SPARE_MAX 1024 /* Jobs kept for reuse per loop: at most 8 MiB, after a peak. */

static struct kserve_grpc_job *job_of(struct infer_call *infer)
{
    return list_entry(infer, struct kserve_grpc_job, infer);
}

/* The latest is the warmest. */
static struct kserve_grpc_job *take_spare(struct api_loop *loop)
{
    struct list_node *node = list_pop(&loop->spare_jobs);
    if (node == NULL) {
        return mem_try_alloc(sizeof(struct kserve_grpc_job));
    }
    loop->spare_job_count--;
    return list_entry(node, struct kserve_grpc_job, node);
}

static void keep_spare(struct api_loop *loop, struct kserve_grpc_job *job)
{
    if (loop->spare_job_count == SPARE_MAX) {
        mem_free(job);
        return;
    }
    loop->spare_job_count++;
    list_prepend(&loop->spare_jobs, &job->node);
}

void kserve_grpc_job_finish_loop(struct api_loop *loop)
{
    for (struct list_node *node = list_pop(&loop->spare_jobs); node != NULL;
         node = list_pop(&loop->spare_jobs)) {
        mem_free(list_entry(node, struct kserve_grpc_job, node));
    }
    loop->spare_job_count = 0;
}

struct kserve_grpc_job *kserve_grpc_job_create(struct api_loop *loop, uint64_t message_size)
{
    struct kserve_grpc_job *job = take_spare(loop);
    if (job == NULL) {
        return NULL;
    }
    memset(job, 0, offsetof(struct kserve_grpc_job, infer));
    job->loop = loop;
    loop->jobs++;
    arena_init(&job->arena, job->block, sizeof job->block, 0);
    arena_init(&job->heads, job->heads_block, sizeof job->heads_block, 0);
    job->message_size = message_size;
    job->infer.model = NULL;
    job->infer.lent_count = 0;
    job->proto.id = (struct bytes){ NULL, 0 };
    job->proto.empty_final = false;
    return job;
}

/* Once, before the first bytes are read. */
static void begin_decoding(struct kserve_grpc_job *job)
{
    if (!job->decoding) {
        job->decoding = true;
        infer_proto_begin(&job->proto, &job->arena, job->loop->api->options.engine->blocks,
                          job->loop->api->options.limits, job->message_size);
    }
}

static struct request_part *part_of(struct mail *mail)
{
    return list_entry(mail, struct request_part, home_mail.mail);
}

static void release_parts(struct mail **list)
{
    while (*list != NULL) {
        struct mail *mail = *list;
        *list = mail->next;
        request_part_release(part_of(mail));
    }
}

static void push_part(struct kserve_grpc_job *job, struct request_part *part)
{
    struct mail *mail = &part->home_mail.mail;
    mail->next = NULL;
    if (job->parts == NULL) {
        job->parts = mail;
    } else {
        job->parts_last->next = mail;
    }
    job->parts_last = mail;
}

static void destroy(struct kserve_grpc_job *job)
{
    release_parts(&job->parts);
    release_parts(&job->sent);
    kserve_close(&job->infer);
    if (job->decoding) {
        infer_proto_close(&job->proto);
    }
    body_let_go(job->held_bytes);
    arena_finish(&job->heads);
    arena_finish(&job->arena);
    job->loop->jobs--;
    keep_spare(job->loop, job);
}

/* The end of everything but the answer.  `job` may be gone when it returns. */
static void end(struct kserve_grpc_job *job)
{
    job->state = JOB_ENDED;
    if (job->closed) {
        destroy(job);
    } else {
        job->changed(job);
    }
}

static void set_failure(struct kserve_grpc_job *job, enum weir_status status, const char *text)
{
    job->status = status;
    (void)snprintf(job->text, sizeof job->text, "%s",
                   text[0] == '\0' ? weir_status_text(status) : text);
}

static void fail(struct kserve_grpc_job *job, enum weir_status status, const char *text)
{
    set_failure(job, status, text);
    end(job);
}

static void run_work(struct loop_work *work)
{
    struct kserve_grpc_job *job = list_entry(work, struct kserve_grpc_job, work);
    job->worked(job);
}

static void work_done(struct loop_work *work)
{
    struct kserve_grpc_job *job = list_entry(work, struct kserve_grpc_job, work);
    void (*after)(struct kserve_grpc_job * job) = job->after;
    after(job);
}

/* `run` by a worker, then `after` on the loop. */
static void work(struct kserve_grpc_job *job, void (*run)(struct kserve_grpc_job *job),
                 void (*after)(struct kserve_grpc_job *job))
{
    job->state = JOB_WORKING;
    job->worked = run;
    job->after = after;
    job->work.run = run_work;
    job->work.done = work_done;
    loop_work(job->loop->loop, &job->work);
}

/* Where this loop remembers a message of that size. */
static struct infer_recall *memory_of(const struct kserve_grpc_job *job)
{
    return &job->loop->recalls[job->message_size % API_RECALLS];
}

static enum weir_status open_call(struct kserve_grpc_job *job, struct model *model,
                                  struct weir_err *err)
{
    struct api_options *options = &job->loop->api->options;
    const enum weir_status status = kserve_open(&job->infer, model, &job->arena,
                                                options->engine->blocks, job->received_ns, err);
    if (status != WEIR_OK) {
        model_release(model);
    } else {
        job->infer.shm = options->shm;
        job->infer.client = job->client;
    }
    return status;
}

/* The message is one that was here before. */
static enum weir_status recall(struct kserve_grpc_job *job, struct infer_recall *memory,
                               const struct bytes *tensors, struct weir_err *err)
{
    enum weir_status status = body_try_hold(job->message_size, job->loop->api->options.limits, err);
    if (status != WEIR_OK) {
        return status;
    }
    job->held_bytes = job->message_size;
    model_acquire(memory->model);
    status = open_call(job, memory->model, err);
    return status == WEIR_OK ? infer_recall_bind(memory, &job->infer, tensors, err) : status;
}

/* Compares a message that is whole with what is remembered; true when it is that. */
static bool is_known(struct kserve_grpc_job *job, struct bytes message, struct bytes *tensors)
{
    struct home *home = &job->loop->home;
    struct infer_recall *memory = memory_of(job);
    (void)registry_catalogue(job->loop->api->options.registry, home);
    if (infer_recall_is(memory, message, home->catalogue_generation, tensors)) {
        return true;
    }
    job->memory = infer_recall_begin(memory, message) ? memory : NULL;
    job->memory_serial = memory->answer.serial;
    return false;
}

static enum weir_status read_chunk(struct kserve_grpc_job *job, struct bytes chunk,
                                   struct weir_err *err)
{
    struct bytes tensors[INFER_RECALL_TENSORS];
    if (!job->decoding && chunk.size == job->message_size && is_known(job, chunk, tensors)) {
        job->recalled = true;
        return recall(job, memory_of(job), tensors, err);
    }
    begin_decoding(job);
    return infer_proto_read(&job->proto, chunk, err);
}

void kserve_grpc_job_read(struct kserve_grpc_job *job, struct bytes chunk)
{
    assert(job->state == JOB_READING && !job->recalled);
    struct weir_err err;
    const enum weir_status status = read_chunk(job, chunk, &err);
    if (status != WEIR_OK) {
        set_failure(job, status, err.text);
        job->state = JOB_ENDED;
    }
}

bool kserve_grpc_job_place(const struct kserve_grpc_job *job, char **at, size_t *room)
{
    return job->state == JOB_READING && job->decoding && infer_proto_place(&job->proto, at, room);
}

/* What is left to do with the outputs before they are sent. */
static enum weir_status classify(struct kserve_grpc_job *job, struct weir_err *err)
{
    for (uint32_t i = 0; i < job->infer.output_count; i++) {
        const struct infer_output *output = &job->infer.outputs[i];
        if (output->classes > 0 && job->infer.request.outputs[output->index].present) {
            const enum weir_status status = classify_output(&job->infer, output, err);
            if (status != WEIR_OK) {
                return status;
            }
        }
    }
    return kserve_write_shared(&job->infer, err);
}

static void classify_by_worker(struct kserve_grpc_job *job)
{
    job->work_err.status = classify(job, &job->work_err);
}

static void classified(struct kserve_grpc_job *job)
{
    if (job->work_err.status != WEIR_OK) {
        fail(job, job->work_err.status, job->work_err.text);
    } else {
        end(job);
    }
}

/* More than a loop should look through at a time. */
static bool is_much_to_classify(const struct kserve_grpc_job *job)
{
    uint64_t elements = 0;
    for (uint32_t i = 0; i < job->infer.output_count; i++) {
        const struct infer_output *output = &job->infer.outputs[i];
        const struct tensor *tensor = &job->infer.request.outputs[output->index];
        const size_t each = dtype_size(tensor->dtype);
        elements += output->classes > 0 && each > 0 ? tensor->size / each : 0;
    }
    return elements > CALL_INLINE_ELEMENTS || kserve_shares_outputs(&job->infer);
}

static void ended(struct infer_call *infer)
{
    struct kserve_grpc_job *job = job_of(infer);
    if (infer->request.status != WEIR_OK) {
        fail(job, infer->request.status, infer->request.err.text);
    } else if (job->closed || job->late) {
        end(job);
    } else if (is_much_to_classify(job)) {
        work(job, classify_by_worker, classified);
    } else {
        classify_by_worker(job);
        classified(job);
    }
}

/* What goes on still comes to its end. */
static void fail_early(struct kserve_grpc_job *job, enum weir_status status, const char *text)
{
    job->late = true;
    set_failure(job, status, text);
    job->changed(job);
}

static void late(struct infer_call *infer)
{
    struct kserve_grpc_job *job = job_of(infer);
    if (!job->closed) {
        fail_early(job, infer->request.late_status, request_late_text(&infer->request));
    }
}

static void part_came(struct infer_call *infer, struct request_part *part)
{
    struct kserve_grpc_job *job = job_of(infer);
    if (job->closed || job->late) {
        request_part_release(part);
        return;
    }
    push_part(job, part);
    job->changed(job);
}

static void submit(struct kserve_grpc_job *job)
{
    struct weir_err err;
    if (job->closed) {
        end(job);
        return;
    }
    job->infer.ended = ended;
    job->infer.late = late;
    job->infer.part = job->streams ? part_came : NULL;
    job->state = JOB_RUNNING;
    job->accepted = true;
    const enum weir_status status = kserve_submit(&job->infer, job->loop, &err);
    if (status != WEIR_OK) {
        job->accepted = false;
        fail(job, status, err.text);
    }
}

static void bind_by_worker(struct kserve_grpc_job *job)
{
    job->work_err.status = infer_proto_bind(&job->proto, &job->infer, &job->work_err);
}

/* The place of the input of that name, which there is. */
static uint32_t input_index(const struct signature *signature, struct bytes name)
{
    uint32_t index = 0;
    while (!bytes_equal(bytes_of(signature->inputs[index].name), name)) {
        index++;
    }
    return index;
}

/* The next message that is the same need not be decoded. */
static void remember(struct kserve_grpc_job *job)
{
    struct infer_call *call = &job->infer;
    uint32_t indices[INFER_RECALL_TENSORS];
    uint32_t count = 0;
    for (const struct infer_proto_input *it = job->proto.inputs; it != NULL; it = it->next) {
        if (it->typed || it->shared.region.key.size > 0 || count == INFER_RECALL_TENSORS) {
            return;
        }
        indices[count++] = input_index(call->model->signature, it->name);
    }
    if (!job->proto.empty_final && !job->streams) {
        infer_recall_end(job->memory, job->memory_serial, call, indices, count, job->generation);
    }
}

static void bound(struct kserve_grpc_job *job)
{
    if (job->work_err.status != WEIR_OK) {
        fail(job, job->work_err.status, job->work_err.text);
        return;
    }
    if (job->memory != NULL) {
        remember(job);
    }
    submit(job);
}

static enum weir_status read_version(struct bytes text, uint64_t *out, struct weir_err *err)
{
    *out = 0; /* The latest. */
    if (text.size == 0 || (bytes_to_u64(text, INT64_MAX, out) && *out > 0)) {
        return WEIR_OK;
    }
    return err_set(err, WEIR_EINVAL,
                   "failed to get model version from specified version string '%.*s', version "
                   "should be an integral value > 0",
                   text.size > 64 ? 64 : (int)text.size, text.data);
}

static enum weir_status open_model(struct kserve_grpc_job *job, struct weir_err *err)
{
    struct api_options *options = &job->loop->api->options;
    const struct catalogue *catalogue = registry_catalogue(options->registry, &job->loop->home);
    struct model *model;
    uint64_t version;
    enum weir_status status = infer_proto_end(&job->proto, err);
    if (status == WEIR_OK) {
        status = read_version(job->proto.model_version, &version, err);
    }
    if (status == WEIR_OK) {
        status = catalogue_lease(catalogue, job->proto.model_name, version, &model, err);
    }
    if (status != WEIR_OK) {
        return status;
    }
    job->streams = model->signature->streams;
    if (job->streams && !job->allow_streams) {
        model_release(model);
        return err_set(err, WEIR_EUNSUPPORTED,
                       "ModelInfer RPC doesn't support models with decoupled transaction policy");
    }
    job->generation = job->loop->home.catalogue_generation;
    return open_call(job, model, err);
}

static void begin(struct kserve_grpc_job *job)
{
    struct weir_err err;
    const enum weir_status status = open_model(job, &err);
    if (status != WEIR_OK) {
        fail(job, status, err.text);
        return;
    }
    job->infer.deadline_ns = job->deadline_ns;
    if (infer_proto_bind_bytes(&job->proto) > CALL_INLINE_BINARY_BYTES) {
        work(job, bind_by_worker, bound);
        return;
    }
    bind_by_worker(job);
    bound(job);
}

/* The model was loaded, or could not be: begin() finds out.  It may have had to go again, too. */
static bool await_model(struct kserve_grpc_job *job);

static void stop_waiting(struct kserve_grpc_job *job)
{
    list_remove(&job->wait.node);
    loop_timer_clear(job->loop->loop, &job->late_load);
}

static void model_came(struct registry_order *order)
{
    struct kserve_grpc_job *job = list_entry(order, struct kserve_grpc_job, order);
    stop_waiting(job);
    if (job->closed || job->late) {
        end(job);
    } else if (order->status != WEIR_OK || !await_model(job)) {
        begin(job);
    }
}

static void canceled_by_id(struct demand_wait *wait)
{
    struct kserve_grpc_job *job = list_entry(wait, struct kserve_grpc_job, wait);
    stop_waiting(job);
    fail_early(job, WEIR_ECANCELED, DEMAND_CANCELED);
}

static void deadline_passed(struct loop_timer *timer)
{
    struct kserve_grpc_job *job = list_entry(timer, struct kserve_grpc_job, late_load);
    stop_waiting(job);
    fail_early(job, WEIR_ETIMEOUT, DEMAND_LATE);
}

/* True: it goes on when its model has been loaded. */
static bool await_model(struct kserve_grpc_job *job)
{
    struct api_options *options = &job->loop->api->options;
    const struct catalogue *catalogue = registry_catalogue(options->registry, &job->loop->home);
    struct weir_err err;
    uint64_t version;
    if (!catalogue->on_demand || job->loads == LOADS_MAX ||
        infer_proto_end(&job->proto, &err) != WEIR_OK ||
        read_version(job->proto.model_version, &version, &err) != WEIR_OK ||
        !catalogue_is_due(catalogue, job->proto.model_name, version)) {
        return false;
    }
    const struct bytes name = job->proto.model_name;
    char *copy = arena_try_strndup(&job->arena, name.data, name.size);
    if (copy == NULL) {
        return false; /* begin() will say so. */
    }
    job->loads++;
    job->state = JOB_WORKING;
    if (job->proto.id.size > 0) {
        job->wait.id = job->proto.id;
        job->wait.model = name;
        job->wait.version = version;
        job->wait.client = job->client.digest;
        job->wait.cancel = canceled_by_id;
        list_append(&job->loop->unloaded, &job->wait.node);
    }
    if (job->deadline_ns != CLOCK_NEVER) {
        job->late_load.fire = deadline_passed;
        loop_timer_set(job->loop->loop, &job->late_load, job->deadline_ns);
    }
    job->order = (struct registry_order){
        .home = &job->loop->home,
        .kind = REGISTRY_NEED,
        .name = copy,
        .done = model_came,
    };
    registry_order(options->registry, &job->order);
    return true;
}

void kserve_grpc_job_start(struct kserve_grpc_job *job, uint64_t deadline_ns, bool allow_streams)
{
    job->allow_streams = allow_streams;
    job->deadline_ns = deadline_ns;
    job->received_ns = job->loop->loop->came_ns;
    if (job->recalled) {
        job->infer.received_ns = job->received_ns;
        job->infer.deadline_ns = deadline_ns;
        submit(job);
        return;
    }
    begin_decoding(job);
    if (!await_model(job)) {
        begin(job);
    }
}

void kserve_grpc_job_refuse(struct kserve_grpc_job *job, enum weir_status status, const char *text,
                            uint64_t retry_s)
{
    assert(job->state == JOB_READING || job->state == JOB_ENDED);
    set_failure(job, status, text);
    job->retry_s = retry_s;
    job->state = JOB_ENDED;
}

static bool has_outputs(const struct kserve_grpc_job *job)
{
    for (uint32_t i = 0; i < job->infer.output_count; i++) {
        if (job->infer.request.outputs[job->infer.outputs[i].index].present) {
            return true;
        }
    }
    return false;
}

/* Makes a response of these tensors (NULL: none); true when there is one to send. */
static bool respond(struct kserve_grpc_job *job, const struct tensor *tensors, bool streamed,
                    bool final, struct infer_proto_pieces *out)
{
    const bool timed = job->infer.timing && final;
    const struct clock *clock = job->loop->api->options.engine->clock;
    const struct infer_timing timing =
        timed ? kserve_timing(&job->infer, clock_now_ns(clock)) : (struct infer_timing){ 0 };
    const struct infer_proto_answer answer = {
        .call = &job->infer,
        .tensors = tensors,
        .timing = timed ? &timing : NULL,
        .streamed = streamed,
        .final = final,
    };
    struct weir_err err;
    const enum weir_status status = infer_proto_write(&answer, &job->heads, out, &err);
    if (status != WEIR_OK) {
        set_failure(job, status, err.text);
    }
    return status == WEIR_OK;
}

/* A failed request of a stream says so in a response. */
static bool respond_failure(struct kserve_grpc_job *job, struct infer_proto_pieces *out)
{
    struct bytes *piece = arena_try_alloc(&job->heads, sizeof *piece);
    const struct infer_call *call = job->accepted ? &job->infer : NULL;
    if (piece == NULL || infer_proto_write_error(job->proto.id, job->text, call, &job->heads, piece,
                                                 NULL) != WEIR_OK) {
        return false;
    }
    *out = (struct infer_proto_pieces){ .pieces = piece, .count = 1, .size = piece->size };
    return true;
}

/* Classes of a part are found where those of a whole answer are: in the request's own outputs. */
static enum weir_status classify_part(struct kserve_grpc_job *job, struct request_part *part,
                                      struct weir_err *err)
{
    enum weir_status status = WEIR_OK;
    for (uint32_t i = 0; i < job->infer.output_count && status == WEIR_OK; i++) {
        const struct infer_output *output = &job->infer.outputs[i];
        struct tensor *place = &job->infer.request.outputs[output->index];
        if (output->classes > 0 && part->outputs[output->index].present) {
            *place = part->outputs[output->index];
            status = classify_output(&job->infer, output, err);
            part->outputs[output->index] = *place;
            *place = (struct tensor){ 0 };
        }
    }
    return status;
}

static bool next_part(struct kserve_grpc_job *job, struct infer_proto_pieces *out)
{
    struct mail *mail = job->parts;
    struct weir_err err;
    job->parts = mail->next;
    mail->next = job->sent;
    job->sent = mail;
    const enum weir_status status = classify_part(job, part_of(mail), &err);
    if (status != WEIR_OK) {
        set_failure(job, status, err.text);
    }
    return status == WEIR_OK && respond(job, part_of(mail)->outputs, true, false, out);
}

/* What is said when there are no parts any more; false where that is nothing. */
static bool next_last(struct kserve_grpc_job *job, bool streamed, struct infer_proto_pieces *out)
{
    job->said = true;
    if (!job->streams || has_outputs(job)) {
        return respond(job, job->infer.request.outputs, streamed, true, out);
    }
    return job->proto.empty_final && respond(job, NULL, streamed, true, out);
}

static bool next_response(struct kserve_grpc_job *job, bool streamed,
                          struct infer_proto_pieces *out)
{
    bool there = false;
    if (job->status == WEIR_OK && job->parts != NULL) {
        there = next_part(job, out);
    } else if (job->status == WEIR_OK && job->state == JOB_ENDED && !job->said) {
        there = next_last(job, streamed, out);
    }
    if (there || job->status == WEIR_OK || !streamed || job->said_failure) {
        return there;
    }
    job->said = true;
    job->said_failure = true;
    return respond_failure(job, out);
}

/* It was the last: the client may take its time with it. */
static void let_model_go(struct kserve_grpc_job *job)
{
    if (job->state == JOB_ENDED) {
        kserve_written(&job->infer);
    }
}

bool kserve_grpc_job_next(struct kserve_grpc_job *job, bool streamed,
                          struct infer_proto_pieces *out)
{
    assert(!job->closed);
    const bool there = next_response(job, streamed, out);
    if (job->said && (there || job->status == WEIR_OK)) {
        let_model_go(job);
    }
    return there;
}

void kserve_grpc_job_push_back(struct kserve_grpc_job *job, struct grpc_call *call)
{
    if (job->retry_s > 0) {
        call->pushback_ms = job->retry_s * 1000;
    } else if (job->infer.model != NULL && weir_status_http(job->status) == 503) {
        call->pushback_ms = engine_retry_after_ms(job->infer.model);
    }
    let_model_go(job);
}

void kserve_grpc_job_sent(struct kserve_grpc_job *job)
{
    release_parts(&job->sent);
    arena_reset(&job->heads);
}

void kserve_grpc_job_close(struct kserve_grpc_job *job)
{
    assert(!job->closed);
    job->closed = true;
    stop_waiting(job);
    release_parts(&job->parts);
    release_parts(&job->sent);
    if (job->state == JOB_RUNNING) {
        kserve_cancel(&job->infer);
    } else if (job->state != JOB_WORKING) {
        destroy(job);
    }
}
