/*
 * ModelStreamInfer.
 *
 *   jobs    in the order of their requests: being read, running, or with something to say
 *   said    have said their last; the socket may still be sending from their memory
 *
 * pump() is called whenever anything may have changed; it gives out what can be sent.  While
 * the socket has much to send nothing more is given to it, while many requests are under way no
 * more are read: a client that does not read its responses stops, and nothing grows.
 */
#include "api/kserve_grpc.h"

#include "api/access.h"
#include "api/call.h"
#include "api/kserve_grpc_job.h"

#define UNSENT_BYTES_MAX 1048576 /* Then responses wait for the socket. */
#define LENT_MAX 1024            /* The same by their number. */

struct stream_infer {
    struct arena_disposable close;
    struct grpc_call *call;
    struct list jobs;
    struct list said;
    uint32_t job_count;
    uint32_t lent;                   /* Responses given out since the socket had sent everything. */
    struct kserve_grpc_job *reading; /* The last of `jobs`, while its message arrives. */
    bool errors_end;                 /* triton_grpc_error. */
    bool half_closed;
    bool draining; /* The server stops: what is under way ends, and then the stream. */
    bool paused;
    bool pumping;
    bool stopped;            /* The call ends with `status` and `text`, */
    enum weir_status status; /* or has. */
    const char *text;
};

static void leave_key(struct kserve_grpc_job *job)
{
    if (job->key != NULL) {
        key_leave(job->key);
        job->key = NULL;
    }
}

static void close_jobs(struct list *list)
{
    for (struct list_node *node = list_pop(list); node != NULL; node = list_pop(list)) {
        struct kserve_grpc_job *job = list_entry(node, struct kserve_grpc_job, node);
        leave_key(job);
        kserve_grpc_job_close(job);
    }
}

static void close_stream(struct arena_disposable *disposable)
{
    struct stream_infer *self = list_entry(disposable, struct stream_infer, close);
    close_jobs(&self->jobs);
    close_jobs(&self->said);
}

/* The call ends like this when pump() is done; jobs that still run are canceled with the
 * exchange. */
static void stop(struct stream_infer *self, enum weir_status status, const char *text)
{
    self->stopped = true;
    self->status = status;
    self->text = text;
}

static bool is_congested(const struct stream_infer *self)
{
    return self->call->x->unsent_bytes >= UNSENT_BYTES_MAX || self->lent >= LENT_MAX;
}

/* A failure that ends the call: any, where that was asked for, and the deadline of the call
 * itself. */
static bool ends_call(const struct stream_infer *self, const struct kserve_grpc_job *job)
{
    const bool late =
        job->status == WEIR_ETIMEOUT && self->call->deadline_ns <= self->call->x->loop->now_ns;
    return job->status != WEIR_OK && (self->errors_end || late);
}

/* Sends the job's next response, if it has one; false when it has none now. */
static bool send_next(struct stream_infer *self, struct kserve_grpc_job *job)
{
    struct infer_proto_pieces pieces;
    if (ends_call(self, job)) {
        kserve_grpc_job_push_back(job, self->call);
        stop(self, job->status, job->text);
        return false;
    }
    const bool said = job->said_failure;
    if (!kserve_grpc_job_next(job, true, &pieces)) {
        if (job->said_failure && !said) {
            stop(self, WEIR_ENOMEM, "out of memory for a response");
        }
        return false;
    }
    self->lent++;
    grpc_send(self->call, pieces.pieces, pieces.count);
    return true;
}

/* One response of each job that may speak; true when there was any. */
static bool send_round(struct stream_infer *self)
{
    bool sent = false;
    bool awaited = false; /* A job before it has to answer first. */
    struct list_node *next;
    for (struct list_node *node = list_first(&self->jobs);
         node != NULL && !self->stopped && !is_congested(self); node = next) {
        struct kserve_grpc_job *job = list_entry(node, struct kserve_grpc_job, node);
        next = list_next(&self->jobs, node);
        if (job == self->reading || (awaited && !job->streams)) {
            continue;
        }
        sent = send_next(self, job) || sent;
        if (job->said) {
            leave_key(job);
            list_remove(node);
            list_append(&self->said, node);
            self->job_count--;
        } else {
            awaited = awaited || !job->streams;
        }
    }
    return sent;
}

static void read_on_or_stop(struct stream_infer *self)
{
    const bool full = self->job_count >= KSERVE_GRPC_REQUESTS_MAX || is_congested(self);
    if (full != self->paused) {
        self->paused = full;
        if (full) {
            grpc_pause(self->call);
        } else {
            grpc_resume(self->call);
        }
    }
}

/* The stream, and so its call, may be gone when it returns. */
static void pump(struct stream_infer *self)
{
    if (self->pumping || self->stopped) {
        return;
    }
    self->pumping = true;
    while (send_round(self)) {
    }
    self->pumping = false;
    if (!self->stopped && (self->half_closed || self->draining) && list_empty(&self->jobs)) {
        stop(self, self->half_closed ? WEIR_OK : WEIR_EDRAINING, NULL);
    }
    if (self->stopped) {
        grpc_finish(self->call, self->status, self->text);
    } else {
        read_on_or_stop(self);
    }
}

static void changed(struct kserve_grpc_job *job)
{
    pump(job->owner);
}

/* Made with the first that is heard of the call; NULL after having answered. */
static struct stream_infer *stream_of_call(struct grpc_call *call)
{
    struct stream_infer *self = call->user;
    if (self != NULL) {
        return self;
    }
    self = arena_try_zero(&call->x->arena, 1, sizeof *self);
    if (self == NULL) {
        grpc_finish(call, WEIR_ENOMEM, "out of memory for this stream");
        return NULL;
    }
    self->call = call;
    list_init(&self->jobs);
    list_init(&self->said);
    self->errors_end =
        bytes_equal_nocase(exchange_field(call->x, "triton_grpc_error"), BYTES_LITERAL("true"));
    self->close.dispose = close_stream;
    arena_dispose(&call->x->arena, &self->close);
    call->user = self;
    return self;
}

static void begin(struct grpc_call *call, uint64_t size)
{
    struct stream_infer *self = stream_of_call(call);
    if (self == NULL || self->stopped) {
        return;
    }
    struct kserve_grpc_job *job = kserve_grpc_job_create(call->x->loop->user, size);
    if (job == NULL) {
        stop(self, WEIR_ENOMEM, "out of memory for a request");
        grpc_finish(call, self->status, self->text);
        return;
    }
    job->client = client_of(call->x->user);
    job->owner = self;
    job->changed = changed;
    self->reading = job;
    self->job_count++;
    list_append(&self->jobs, &job->node);
}

static void bytes(struct grpc_call *call, struct bytes chunk)
{
    struct stream_infer *self = call->user;
    /* What failed already is read to its end, where its turn to answer comes. */
    if (!self->stopped && self->reading->state == JOB_READING) {
        kserve_grpc_job_read(self->reading, chunk);
    }
}

static bool place(const struct grpc_call *call, char **at, size_t *room)
{
    const struct stream_infer *self = call->user;
    return !self->stopped && kserve_grpc_job_place(self->reading, at, room);
}

/* Each request of a stream counts as a call of its key.  One that may not be is refused when it is
 * whole, since its response has its id. */
static void enter(struct stream_infer *self, struct kserve_grpc_job *job)
{
    struct weir_err err;
    uint64_t retry_s;
    const enum weir_status status =
        access_enter_message(self->call->x->user, &job->key, &retry_s, &err);
    if (status != WEIR_OK) {
        kserve_grpc_job_refuse(job, status, err.text, retry_s);
    }
}

static void end(struct grpc_call *call)
{
    struct stream_infer *self = call->user;
    if (self->stopped) {
        return;
    }
    struct kserve_grpc_job *job = self->reading;
    self->reading = NULL;
    enter(self, job);
    if (job->state == JOB_READING) {
        /* Each request of a stream has the call's deadline. */
        kserve_grpc_job_start(job, call->deadline_ns, true);
        return;
    }
    pump(self);
}

static void half_closed(struct grpc_call *call)
{
    struct stream_infer *self = stream_of_call(call);
    if (self != NULL) {
        self->half_closed = true;
        pump(self);
    }
}

static void canceled(struct grpc_call *call)
{
    struct stream_infer *self = call->user;
    if (self != NULL) {
        stop(self, WEIR_ECANCELED, NULL);
    }
    grpc_finish(call, WEIR_ECANCELED, NULL);
}

/* The socket has everything: what was lent is free again. */
static void drained(struct grpc_call *call)
{
    struct stream_infer *self = call->user;
    if (self == NULL || self->stopped) {
        return;
    }
    self->lent = 0;
    close_jobs(&self->said);
    for (struct list_node *node = list_first(&self->jobs); node != NULL;
         node = list_next(&self->jobs, node)) {
        kserve_grpc_job_sent(list_entry(node, struct kserve_grpc_job, node));
    }
    pump(self);
}

static void drain(struct grpc_call *call)
{
    struct stream_infer *self = stream_of_call(call);
    if (self != NULL) {
        self->draining = true;
        pump(self);
    }
}

const struct grpc_reader kserve_grpc_stream = {
    .begin = begin,
    .bytes = bytes,
    .place = place,
    .end = end,
    .half_closed = half_closed,
    .canceled = canceled,
    .drained = drained,
    .drain = drain,
};
