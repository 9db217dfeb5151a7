/*
 * ModelInfer: one job, one response.
 *
 * The response is lent to the socket from the job's memory, so the job hangs on the
 * exchange's arena; what the model still does after the client has its answer is the job's own
 * affair.
 */
#include "api/kserve_grpc.h"

#include "api/call.h"
#include "api/kserve_grpc_job.h"

struct unary {
    struct arena_disposable close;
    struct grpc_call *call;
    struct kserve_grpc_job *job;
    bool answered;
};

static void close_unary(struct arena_disposable *disposable)
{
    struct unary *self = list_entry(disposable, struct unary, close);
    kserve_grpc_job_close(self->job);
}

static void answer(struct unary *self)
{
    struct kserve_grpc_job *job = self->job;
    struct infer_proto_pieces pieces;
    self->answered = true;
    if (kserve_grpc_job_next(job, false, &pieces)) {
        grpc_send(self->call, pieces.pieces, pieces.count);
        grpc_finish(self->call, WEIR_OK, NULL);
    } else {
        kserve_grpc_job_push_back(job, self->call);
        grpc_finish(self->call, job->status, job->text);
    }
}

/* Also when the deadline has passed while the model runs. */
static void changed(struct kserve_grpc_job *job)
{
    struct unary *self = job->owner;
    if (!self->answered) {
        answer(self);
    }
}

static void begin(struct grpc_call *call, uint64_t size)
{
    struct unary *self = arena_try_zero(&call->x->arena, 1, sizeof *self);
    struct kserve_grpc_job *job =
        self == NULL ? NULL : kserve_grpc_job_create(call->x->loop->user, size);
    if (job == NULL) {
        grpc_finish(call, WEIR_ENOMEM, "out of memory for this request");
        return;
    }
    self->call = call;
    self->job = job;
    self->close.dispose = close_unary;
    job->owner = self;
    job->client = client_of(call->x->user);
    job->changed = changed;
    arena_dispose(&call->x->arena, &self->close);
    call->user = self;
}

static void bytes(struct grpc_call *call, struct bytes chunk)
{
    struct unary *self = call->user;
    kserve_grpc_job_read(self->job, chunk);
    if (self->job->state == JOB_ENDED) {
        changed(self->job);
    }
}

static bool place(const struct grpc_call *call, char **at, size_t *room)
{
    const struct unary *self = call->user;
    return kserve_grpc_job_place(self->job, at, room);
}

static void end(struct grpc_call *call)
{
    struct unary *self = call->user;
    kserve_grpc_job_start(self->job, call->deadline_ns, false);
}

static void half_closed(struct grpc_call *call)
{
    (void)call;
}

static void canceled(struct grpc_call *call)
{
    struct unary *self = call->user;
    if (self != NULL) {
        self->answered = true;
    }
    grpc_finish(call, WEIR_ECANCELED, NULL);
}

const struct grpc_reader kserve_grpc_infer = {
    .unary = true,
    .begin = begin,
    .bytes = bytes,
    .place = place,
    .end = end,
    .half_closed = half_closed,
    .canceled = canceled,
};
