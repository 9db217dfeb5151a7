/*
 * Inputs are used where they lie, in the area that the server wrote; outputs are copied into the
 * other one, as backends make them in memory of their own.
 */
#include "backend/process_serve.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/process_layout.h"
#include "backend/process_memory.h"
#include "backend/process_message.h"
#include "util/err.h"
#include "util/mem.h"

#define SERVE_STACK_BYTES ((size_t)4 << 20)
#define FAULT_STACK_BYTES 16384

struct serving {
    struct served served; /* First. */
    struct backend_context *context;
    const struct signature *signature;
    struct process_area memory; /* The head's. */
    struct process_head *head;
    struct process_area in;
    struct process_area out;
    struct process_area lent; /* Of process_inputs.h; only read. */
    int socket;
    uint32_t turn; /* The last one seen; even: the server's. */
    struct process_wait wait;
    struct process_command command;
    struct buffer message;
    pthread_t thread;
    struct backend_run run;
    struct tensor *inputs;
    struct tensor *outputs;
    bool *wanted;
    uint32_t stages;
    pthread_mutex_t lock; /* Guards head->executing against serve_stop(). */
};

static struct serving *serving_of(struct served *served)
{
    return (struct serving *)served;
}

/* ---- Faults ---------------------------------------------------------------------------------- */

static _Thread_local struct process_head *executing_head;

static void on_fault(int signal)
{
    if (executing_head != NULL) {
        atomic_store(&executing_head->faulted, 1);
    }
    (void)raise(signal); /* Its handler is the default again: the process ends here. */
}

void serve_catch_faults(void)
{
    static const int faults[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT };
    struct sigaction action = { .sa_flags = (int)(SA_RESETHAND | SA_NODEFER | SA_ONSTACK) };
    action.sa_handler = on_fault;
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof(faults) / sizeof(*faults); i++) {
        (void)sigaction(faults[i], &action, NULL);
    }
}

/* So that a stack that overflowed can be told, too.  *before is what the thread had. */
static void use_fault_stack(stack_t *before)
{
    static _Thread_local char stack[FAULT_STACK_BYTES];
    const stack_t other = { .ss_sp = stack, .ss_size = sizeof(stack) };
    (void)sigaltstack(&other, before);
}

/* ---- Turns ----------------------------------------------------------------------------------- */

/* Until the server has said something: false when it has ended the channel. */
static bool listen(struct serving *s)
{
    s->turn = process_turn_wait(s->head, &s->head->process_sleeps, s->turn, &s->wait);
    if (s->turn == PROCESS_TURN_DEAD) {
        return false;
    }
    s->command = s->head->command;
    return true;
}

static void speak(struct serving *s)
{
    s->turn++;
    process_turn_end(s->head, &s->head->server_sleeps, s->turn, &s->wait);
}

/* The areas that the command is about. */
static enum weir_status fetch(struct serving *s, struct weir_err *err)
{
    while (s->in.generation != s->command.in_generation ||
           s->out.generation != s->command.out_generation) {
        int fds[PROCESS_FDS_MAX];
        enum weir_status status = message_receive(s->socket, &s->message, fds);
        if (status != WEIR_OK) {
            return err_set(err, status, "the server sent no memory");
        }
        struct message_reader reader = message_read(&s->message);
        (void)message_get_bounded(&reader, MESSAGE_AREA);
        struct process_area *area = message_get_bounded(&reader, 1) == 0 ? &s->in : &s->out;
        const uint32_t generation = (uint32_t)message_get_bounded(&reader, UINT32_MAX);
        const size_t size = (size_t)message_get_u64(&reader);
        process_area_finish(area);
        status = process_area_map(area, size, fds[0], err);
        fds[0] = -1; /* Taken. */
        message_close(fds);
        if (status != WEIR_OK) {
            return status;
        }
        area->generation = generation;
    }
    return WEIR_OK;
}

/* ---- Tensors --------------------------------------------------------------------------------- */

static void take_inputs(struct serving *s)
{
    const struct signature *signature = s->signature;
    for (uint32_t i = 0; i < signature->input_count; i++) {
        const struct process_tensor *said = &s->head->tensors[i];
        s->inputs[i] = (struct tensor){
            .dtype = (enum dtype)said->dtype,
            .shape = { .rank = said->rank },
            .data = (said->lent != 0 ? s->lent.data : s->in.data) + said->offset,
            .size = (size_t)said->size,
            .present = said->present != 0,
        };
        memcpy(s->inputs[i].shape.dims, said->dims, sizeof(said->dims));
        if (!s->inputs[i].present) {
            s->inputs[i] = (struct tensor){ 0 };
        }
    }
    for (uint32_t i = 0; i < signature->output_count; i++) {
        s->wanted[i] = s->head->tensors[signature->input_count + i].wanted != 0;
        tensor_release(&s->outputs[i]);
    }
}

static void drop_outputs(struct serving *s)
{
    for (uint32_t i = 0; i < s->signature->output_count; i++) {
        tensor_release(&s->outputs[i]);
    }
}

/* Asks for a larger area and gets one, or the server's reason why not. */
static enum weir_status grow(struct serving *s, uint64_t bytes, struct weir_err *err)
{
    s->head->answer.kind = ANSWER_GROW;
    s->head->answer.grow_bytes = bytes;
    speak(s);
    if (!listen(s)) {
        return err_set(err, WEIR_ECANCELED, "the channel has ended");
    }
    if (s->command.wish != WEIR_OK) {
        return err_set(err, (enum weir_status)s->command.wish, "no memory for the outputs");
    }
    return fetch(s, err);
}

static enum weir_status give_outputs(struct serving *s, struct weir_err *err)
{
    const uint32_t count = s->signature->output_count;
    uint64_t bytes = 0;
    if (!process_layout_measure(s->outputs, count, NULL, &bytes)) {
        return err_nomem(err, "a run's outputs", SIZE_MAX);
    }
    if (bytes > s->out.size) {
        const enum weir_status status = grow(s, bytes, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    process_layout_write(s->outputs, count, NULL, s->out.data,
                         s->head->tensors + s->signature->input_count);
    drop_outputs(s);
    s->head->answer.outputs = 1;
    return WEIR_OK;
}

/* ---- Runs ------------------------------------------------------------------------------------ */

static enum weir_status on_part(struct backend_run *run)
{
    struct serving *s = list_entry(run, struct serving, run);
    const enum weir_status status = give_outputs(s, NULL);
    if (status != WEIR_OK) {
        return status;
    }
    s->head->answer.kind = ANSWER_PART;
    s->head->answer.virtual_end_ns = run->virtual_end_ns;
    speak(s);
    return listen(s) ? (enum weir_status)s->command.wish : WEIR_ECANCELED;
}

/* From here on the run can be stopped. */
static void begin(struct serving *s)
{
    const struct process_command *command = &s->command;
    s->run = (struct backend_run){
        .rows = command->rows,
        .inputs = s->inputs,
        .outputs = s->outputs,
        .wanted = s->wanted,
        .part = command->streams ? on_part : NULL,
        .trim = command->trim,
        .begin_ns = command->begin_ns,
        .virtual_end_ns = command->virtual_end_ns,
    };
    take_inputs(s);
    pthread_mutex_lock(&s->lock);
    atomic_store(&s->head->executing, command->run);
    backend_rearm(s->context);
    if (atomic_load(&s->head->stop_run) == command->run) {
        backend_terminate(s->context);
    }
    pthread_mutex_unlock(&s->lock);
}

static void end(struct serving *s)
{
    pthread_mutex_lock(&s->lock);
    atomic_store(&s->head->executing, 0);
    pthread_mutex_unlock(&s->lock);
    drop_outputs(s);
}

void serve_stop(struct served *served)
{
    struct serving *s = serving_of(served);
    pthread_mutex_lock(&s->lock);
    const uint64_t run = atomic_load(&s->head->executing);
    if (run != 0 && atomic_load(&s->head->stop_run) == run) {
        backend_terminate(s->context);
    }
    pthread_mutex_unlock(&s->lock);
}

static enum weir_status take_step(struct serving *s, struct weir_err *err)
{
    s->run.virtual_end_ns = s->command.virtual_end_ns;
    switch (s->command.step) {
    case STEP_PREPARE:
        return backend_prepare(s->context, &s->run, err);
    case STEP_RUN:
        return backend_run(s->context, &s->run, err);
    case STEP_FINISH:
        return backend_finish(s->context, &s->run, err);
    case STEP_CONTINUE:
        break;
    }
    return err_set(err, WEIR_EBACKEND, "no such step of a run");
}

static bool is_last(const struct serving *s)
{
    return s->command.step == STEP_FINISH ||
           (s->command.step == STEP_RUN && (s->stages & BACKEND_FINISHES) == 0);
}

static void obey(struct serving *s)
{
    struct weir_err err = { 0 };
    s->head->answer.outputs = 0;
    enum weir_status status = fetch(s, &err);
    if (status == WEIR_OK && s->command.fresh) {
        begin(s);
    }
    const bool last = is_last(s);
    status = status == WEIR_OK ? take_step(s, &err) : status;
    if (status == WEIR_OK && last) {
        status = give_outputs(s, &err);
    }
    if (status != WEIR_OK || last) {
        end(s);
    }
    struct process_answer *answer = &s->head->answer;
    answer->kind = ANSWER_DONE;
    answer->status = status;
    answer->faulted = s->run.faulted;
    answer->virtual_end_ns = s->run.virtual_end_ns;
    memcpy(answer->text, err.text, sizeof(answer->text));
    if (s->turn != PROCESS_TURN_DEAD) {
        speak(s);
    }
}

static void *serve(void *argument)
{
    struct serving *s = argument;
    stack_t before;
    use_fault_stack(&before);
    executing_head = s->head;
    while (s->turn != PROCESS_TURN_DEAD && listen(s)) {
        obey(s);
    }
    executing_head = NULL;
    (void)sigaltstack(&before, NULL);
    return NULL;
}

/* ---- Life ------------------------------------------------------------------------------------ */

static void free_serving(struct serving *s)
{
    backend_context_destroy(s->context);
    process_area_finish(&s->in);
    process_area_finish(&s->out);
    process_area_finish(&s->lent);
    process_area_finish(&s->memory);
    buffer_finish(&s->message);
    pthread_mutex_destroy(&s->lock);
    mem_free(s->inputs);
    mem_free(s->outputs);
    mem_free(s->wanted);
    mem_free(s);
}

static enum weir_status start(struct serving *s, int head_fd, struct weir_err *err)
{
    const struct signature *signature = s->signature;
    s->inputs = mem_try_zero(signature->input_count + 1u, sizeof(*s->inputs));
    s->outputs = mem_try_zero(signature->output_count + 1u, sizeof(*s->outputs));
    s->wanted = mem_try_zero(signature->output_count + 1u, sizeof(*s->wanted));
    const int copy = dup(head_fd);
    enum weir_status status =
        s->inputs == NULL || s->outputs == NULL || s->wanted == NULL
            ? err_nomem(err, "a context", 0)
            : process_area_map(&s->memory,
                               process_head_bytes(signature->input_count, signature->output_count),
                               copy, err);
    s->head = (struct process_head *)(void *)s->memory.data;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, SERVE_STACK_BYTES);
    if (status == WEIR_OK && pthread_create(&s->thread, &attributes, serve, s) != 0) {
        status = err_nomem(err, "a context's thread", SERVE_STACK_BYTES);
    }
    pthread_attr_destroy(&attributes);
    return status;
}

enum weir_status serve_open(struct backend_model *model, uint64_t id, int head_fd, int socket,
                            const struct process_area *lent, struct served **out,
                            struct weir_err *err)
{
    struct serving *s = mem_try_zero(1, sizeof(*s));
    if (s == NULL) {
        return err_nomem(err, "a context", sizeof(*s));
    }
    s->served.id = id;
    s->socket = socket;
    s->signature = backend_signature(model);
    s->stages = backend_stages(model);
    s->lent = *lent;
    pthread_mutex_init(&s->lock, NULL);
    enum weir_status status = message_room(&s->message) == WEIR_OK
                                  ? backend_context_create(model, &s->context, err)
                                  : err_nomem(err, "a context", PROCESS_MESSAGE_MAX);
    status = status == WEIR_OK ? start(s, head_fd, err) : status;
    if (status != WEIR_OK) {
        s->lent = (struct process_area){ 0 }; /* Still the caller's. */
        free_serving(s);
        return status;
    }
    (void)close(head_fd);
    *out = &s->served;
    return WEIR_OK;
}

void serve_close(struct served *served)
{
    if (served == NULL) {
        return;
    }
    struct serving *s = serving_of(served);
    (void)pthread_join(s->thread, NULL);
    (void)close(s->socket);
    free_serving(s);
}
