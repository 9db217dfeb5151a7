/*
 * Whoever runs a step owns the channel; only channel_terminate() comes from elsewhere, and touches
 * nothing but the number of the run to stop and the bell.
 */
#include "backend/process_channel.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/process_check.h"
#include "backend/process_layout.h"
#include "util/err.h"
#include "util/mem.h"

#define AREA_MESSAGE_BYTES 64                /* Four numbers. */
#define AHEAD_NS (UINT64_C(3600) * NS_PER_S) /* No simulated run ends later. */

struct channel {
    struct process_watched watched; /* head, number of the run. */
    struct process *process;        /* Held. */
    const struct signature *signature;
    struct block_pool *blocks;
    const struct process_inputs *inputs; /* The model's; NULL: none. */
    struct clock clock;
    uint64_t run_limit_ns; /* As configured; 0: none. */
    uint64_t load_limit_ns;
    uint32_t model; /* Its index in the slot. */
    uint64_t id;
    struct process_area memory; /* The head's. */
    struct process_head *head;
    int socket;
    uint32_t turn; /* Even: ours. */
    struct process_wait wait;
    struct process_area in;
    struct process_area out;
    struct buffer message;
    bool fresh; /* A run was begun, and no step of it taken. */
};

/* ---- Life -------------------------------------------------------------------------------------- */

static void free_channel(struct channel *channel)
{
    if (channel->socket >= 0) {
        (void)close(channel->socket);
    }
    process_area_finish(&channel->in);
    process_area_finish(&channel->out);
    process_area_finish(&channel->memory);
    buffer_finish(&channel->message);
    process_release(channel->process);
    mem_free(channel);
}

static enum weir_status ask_open(struct channel *channel, const struct process_load *load,
                                 const int fds[3], struct weir_err *err)
{
    struct process *process = channel->process;
    struct message_reader reader;
    pthread_mutex_lock(&process->talk);
    buffer_clear(&process->message);
    message_u64(&process->message, MESSAGE_OPEN);
    message_u64(&process->message, load->index);
    message_u64(&process->message, channel->id);
    message_u64(&process->message, load->inputs == NULL ? 0 : process_inputs_size(load->inputs));
    const uint32_t count = load->inputs == NULL ? 2 : 3;
    const enum weir_status status =
        process_ask(process, fds, count, channel->load_limit_ns, &reader, err);
    pthread_mutex_unlock(&process->talk);
    return status;
}

static enum weir_status open_channel(struct channel *channel, const struct process_load *load,
                                     struct weir_err *err)
{
    static _Atomic uint64_t ids;
    const struct signature *signature = channel->signature;
    int fds[3] = { -1, -1, load->inputs == NULL ? -1 : process_inputs_fd(load->inputs) };
    int ends[2] = { -1, -1 };
    channel->id = atomic_fetch_add(&ids, 1);
    enum weir_status status = process_area_create(
        &channel->memory, process_head_bytes(signature->input_count, signature->output_count),
        AREA_SHARED, &fds[0], err);
    status = status == WEIR_OK ? message_pair(ends, err) : status;
    if (status == WEIR_OK) {
        channel->head = (struct process_head *)(void *)channel->memory.data;
        channel->watched.head = channel->head;
        channel->socket = ends[0];
        fds[1] = ends[1];
        status = ask_open(channel, load, fds, err);
    }
    for (int i = 0; i < 2; i++) {
        if (fds[i] >= 0) {
            (void)close(fds[i]);
        }
    }
    return status;
}

enum weir_status channel_create(struct process *process, const struct process_load *load,
                                const struct signature *signature, struct channel **out,
                                struct weir_err *err)
{
    struct channel *channel = mem_try_zero(1, sizeof(*channel));
    if (channel == NULL) {
        process_release(process);
        return err_nomem(err, "a context", sizeof(*channel));
    }
    channel->process = process;
    channel->signature = signature;
    channel->blocks = load->how.blocks;
    channel->inputs = load->inputs;
    channel->socket = -1;
    channel->run_limit_ns = load->how.isolation->run_limit_ns;
    channel->model = load->index;
    channel->load_limit_ns = load->how.isolation->load_limit_ns;
    clock_init(&channel->clock);
    buffer_init(&channel->message, AREA_MESSAGE_BYTES);
    enum weir_status status = buffer_reserve(&channel->message, AREA_MESSAGE_BYTES)
                                  ? open_channel(channel, load, err)
                                  : err_nomem(err, "a context", AREA_MESSAGE_BYTES);
    if (status == WEIR_OK && !process_watch(process, &channel->watched)) {
        status = err_set(err, WEIR_EBACKEND, "the model's process ended at once");
    }
    if (status != WEIR_OK) {
        free_channel(channel);
        return status;
    }
    *out = channel;
    return WEIR_OK;
}

bool channel_is_dead(const struct channel *channel)
{
    return atomic_load(&channel->process->dead);
}

void channel_destroy(struct channel *channel)
{
    if (channel == NULL) {
        return;
    }
    struct process *process = channel->process;
    process_unwatch(process, &channel->watched);
    if (!channel_is_dead(channel)) {
        struct message_reader reader;
        (void)shutdown(channel->socket, SHUT_RDWR);
        atomic_store(&channel->head->turn, PROCESS_TURN_DEAD);
        process_wake(&channel->head->turn);
        pthread_mutex_lock(&process->talk);
        buffer_clear(&process->message);
        message_u64(&process->message, MESSAGE_CLOSE);
        message_u64(&process->message, channel->id);
        (void)!process_ask(process, NULL, 0, channel->load_limit_ns, &reader, NULL);
        pthread_mutex_unlock(&process->talk);
    }
    free_channel(channel);
}

/* ---- Areas ------------------------------------------------------------------------------------- */

/* A larger one in place of `area`; the process hears of it before its next step. */
static enum weir_status replace(struct channel *channel, struct process_area *area, uint64_t bytes,
                                struct weir_err *err)
{
    struct process_area made = { .generation = area->generation + 1 };
    int fd = -1;
    enum weir_status status =
        process_area_create(&made, process_area_size(bytes), AREA_SHARED, &fd, err);
    if (status != WEIR_OK) {
        return status;
    }
    buffer_clear(&channel->message);
    message_u64(&channel->message, MESSAGE_AREA);
    message_u64(&channel->message, area == &channel->in ? 0 : 1);
    message_u64(&channel->message, made.generation);
    message_u64(&channel->message, made.size);
    (void)!message_send(channel->socket, &channel->message, &fd, 1); /* Gone: the step will tell. */
    (void)close(fd);
    process_area_finish(area);
    *area = made;
    return WEIR_OK;
}

enum weir_status channel_begin(struct channel *channel, const struct backend_run *run,
                               struct weir_err *err)
{
    const struct signature *signature = channel->signature;
    uint64_t bytes = 0;
    if (!process_layout_measure(run->inputs, signature->input_count, channel->inputs, &bytes)) {
        return err_nomem(err, "a run's inputs", SIZE_MAX);
    }
    if (bytes > channel->in.size || channel->in.generation == 0) {
        const enum weir_status status = replace(channel, &channel->in, bytes, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    process_layout_write(run->inputs, signature->input_count, channel->inputs, channel->in.data,
                         channel->head->tensors);
    for (uint32_t i = 0; i < signature->output_count; i++) {
        channel->head->tensors[signature->input_count + i].wanted = run->wanted[i];
    }
    atomic_store(&channel->watched.limit_ns,
                 channel->run_limit_ns > 0 ? channel->run_limit_ns : run->limit_ns);
    atomic_fetch_add(&channel->watched.run, 1);
    channel->fresh = true;
    return WEIR_OK;
}

/* ---- Outputs ----------------------------------------------------------------------------------- */

static enum weir_status copy_output(struct channel *channel, const struct tensor *view,
                                    struct tensor *out, struct weir_err *err)
{
    struct tensor copy = *view;
    copy.block = block_pool_take(channel->blocks, view->size);
    if (copy.block == NULL) {
        return err_nomem(err, "an output", view->size);
    }
    copy.data = copy.block->data;
    memcpy(copy.data, view->data, view->size);
    if (copy.dtype == DTYPE_BYTES && tensor_check_strings(&copy, err) != WEIR_OK) {
        tensor_release(&copy);
        return WEIR_EBACKEND;
    }
    *out = copy;
    return WEIR_OK;
}

static enum weir_status take_outputs(struct channel *channel, struct backend_run *run, bool all,
                                     struct weir_err *err)
{
    const struct signature *signature = channel->signature;
    for (uint32_t i = 0; i < signature->output_count; i++) {
        const struct tensor_spec *spec = &signature->outputs[i];
        const struct process_tensor said = channel->head->tensors[signature->input_count + i];
        struct tensor view;
        if (!run->wanted[i] || (said.present == 0 && !all)) {
            continue;
        }
        if (said.present == 0) {
            return err_set(err, WEIR_EBACKEND, "the model's process gave no output '%s'",
                           spec->name);
        }
        enum weir_status status =
            process_check(spec, &said, channel->out.data, channel->out.size, &view, err);
        status = status == WEIR_OK ? copy_output(channel, &view, &run->outputs[i], err) : status;
        if (status != WEIR_OK) {
            return status;
        }
    }
    return WEIR_OK;
}

/* ---- Steps ------------------------------------------------------------------------------------- */

void channel_terminate(struct channel *channel)
{
    atomic_store(&channel->head->stop_run, atomic_load(&channel->watched.run));
    atomic_fetch_add(&channel->process->page->bell, 1);
    process_wake(&channel->process->page->bell);
}

static enum weir_status tell_death(struct channel *channel, struct backend_run *run,
                                   struct weir_err *err)
{
    char end[sizeof(channel->process->end)];
    process_end_text(channel->process, end);
    run->death = (enum backend_death)atomic_load(&channel->watched.death);
    return err_set(err, WEIR_EBACKEND, "the model's process %s while it ran this (%s)",
                   run->death == DEATH_NONE ? "ended" : backend_death_text(run->death), end);
}

/* It said what cannot be: whatever it is, it is not to be believed again. */
static enum weir_status distrust(struct channel *channel, struct backend_run *run)
{
    process_kill(channel->process, DEATH_FAULT, &channel->watched);
    run->death = DEATH_FAULT;
    return WEIR_EBACKEND;
}

/* Hands the turn over and gets it back; false: the process is dead. */
static bool exchange(struct channel *channel)
{
    struct process_head *head = channel->head;
    head->command.in_generation = channel->in.generation;
    head->command.out_generation = channel->out.generation;
    channel->turn += 2;
    if (channel->turn >= PROCESS_TURN_DEAD - 2) {
        channel->turn = 2;
    }
    atomic_store(&channel->watched.begun_ns, clock_now_ns(&channel->clock));
    const uint32_t mine = channel->turn - 1;
    if (!atomic_load(&channel->process->dead)) {
        process_turn_end(head, &head->process_sleeps, mine, &channel->wait);
    }
    const uint32_t turn = channel_is_dead(channel)
                              ? PROCESS_TURN_DEAD
                              : process_turn_wait(head, &head->server_sleeps, mine, &channel->wait);
    atomic_store(&channel->watched.begun_ns, 0);
    return turn != PROCESS_TURN_DEAD;
}

/* Hands a part over. */
static enum weir_status give_part(struct channel *channel, struct backend_run *run,
                                  struct weir_err *err)
{
    enum weir_status status = take_outputs(channel, run, false, err);
    if (status == WEIR_OK) {
        status = run->part(run);
    } else {
        status = distrust(channel, run);
    }
    for (uint32_t i = 0; i < channel->signature->output_count; i++) {
        tensor_release(&run->outputs[i]);
    }
    return status;
}

static enum weir_status done(struct channel *channel, struct backend_run *run,
                             const struct process_answer *answer, struct weir_err *err)
{
    enum weir_status status = process_check_status(answer->status);
    if (channel->signature->timeline) {
        const uint64_t latest_ns = clock_add(clock_now_ns(&channel->clock), AHEAD_NS);
        run->virtual_end_ns =
            answer->virtual_end_ns < latest_ns ? answer->virtual_end_ns : latest_ns;
    }
    if (status != WEIR_OK) {
        const uint64_t number = atomic_load(&channel->watched.run);
        if (status == WEIR_ECANCELED && atomic_load(&channel->watched.late_run) == number) {
            run->death = DEATH_HUNG;
            return err_set(err, WEIR_EBACKEND,
                           "the run took longer than its limit of %" PRIu64 " ms",
                           channel->watched.limit_ns / NS_PER_MS);
        }
        if (status == WEIR_EUNAVAILABLE) { /* What it has of its device does not come back. */
            run->death = answer->faulted != 0 ? DEATH_FAULT : DEATH_LOST;
            process_kill(channel->process, run->death, NULL); /* Other runs may have caused it. */
            status = WEIR_EBACKEND;
        }
        return err_set(err, status, "%.*s", (int)sizeof(answer->text) - 1, answer->text);
    }
    if (answer->outputs == 0) {
        return WEIR_OK;
    }
    status = take_outputs(channel, run, run->part == NULL, err); /* A stream's were in its parts. */
    return status == WEIR_EBACKEND ? distrust(channel, run) : status;
}

static enum weir_status step_through(struct channel *channel, struct backend_run *run,
                                     enum process_step step, struct weir_err *err)
{
    struct process_head *head = channel->head;
    head->command = (struct process_command){
        .step = step,
        .fresh = channel->fresh,
        .streams = run->part != NULL,
        .trim = run->trim,
        .run = atomic_load(&channel->watched.run),
        .rows = run->rows,
        .begin_ns = run->begin_ns,
        .virtual_end_ns = run->virtual_end_ns,
    };
    channel->fresh = false;
    while (exchange(channel)) {
        const struct process_answer answer = head->answer;
        enum weir_status wish = WEIR_OK;
        if (answer.kind == ANSWER_DONE) {
            return done(channel, run, &answer, err);
        }
        if (answer.kind == ANSWER_PART && run->part != NULL) {
            wish = give_part(channel, run, err);
        } else if (answer.kind == ANSWER_GROW && answer.grow_bytes > channel->out.size) {
            wish = replace(channel, &channel->out, answer.grow_bytes, err);
        } else {
            (void)err_set(err, WEIR_EBACKEND, "the model's process gave an answer that is none");
            return distrust(channel, run);
        }
        if (run->death != DEATH_NONE) {
            return WEIR_EBACKEND;
        }
        head->command.step = STEP_CONTINUE;
        head->command.wish = wish;
    }
    return tell_death(channel, run, err);
}

enum weir_status channel_step(struct channel *channel, struct backend_run *run,
                              enum process_step step, struct weir_err *err)
{
    const enum weir_status status = step_through(channel, run, step, err);
    if (run->death != DEATH_NONE) {
        run->told = process_tell(channel->process, channel->model, run->death);
    }
    return status;
}
