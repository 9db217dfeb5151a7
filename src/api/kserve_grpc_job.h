/*
 * kserve_grpc_job.h — one inference of gRPC, from its message to its responses.
 *
 *   READING ──start──► WORKING ──► RUNNING ──► ENDED
 *      └────── failed ────┴────────────┴─────────►
 *
 *   READING   the message arrives
 *   WORKING   a worker checks and moves tensors, or classifies
 *   RUNNING   with the engine; parts of a streamed answer come
 *   ENDED     status and the last outputs are there
 *
 * A job has memory of its own, since it may outlive its call: when the deadline passes while the
 * model runs, the client has its answer at once, and the job goes when it is home.  Until then its
 * loop counts it.  Loop thread.
 */
#ifndef WEIR_API_KSERVE_GRPC_JOB_H
#define WEIR_API_KSERVE_GRPC_JOB_H

#include <stdalign.h>

#include "api/api.h"
#include "api/demand.h"
#include "api/infer_proto.h"
#include "api/infer_proto_write.h"
#include "net/grpc.h"
#include "util/list.h"

#define KSERVE_GRPC_JOB_BLOCK_BYTES 3072 /* A small request fits in it, */
#define KSERVE_GRPC_JOB_HEADS_BYTES 1024 /* and its answer in this. */

enum kserve_grpc_job_state { JOB_READING, JOB_WORKING, JOB_RUNNING, JOB_ENDED };

struct kserve_grpc_job {
    struct arena arena; /* Of the request. */
    struct arena heads; /* Of what is sent; reset when that has left. */
    struct api_loop *loop;
    enum kserve_grpc_job_state state;
    enum weir_status status; /* Why it failed; WEIR_OK otherwise. */
    bool accepted;           /* The engine had it. */
    bool late;    /* It has failed while it runs, or its model is being loaded; also where that has
                     ended since. */
    bool streams; /* Its model gives several responses. */
    bool said;    /* The last response was given out, or there is none. */
    bool said_failure;

    /* The owner's; set before the start. */
    struct list_node node;
    void *owner;
    struct client client;                         /* As in struct infer_call. */
    struct key_use *key;                          /* To leave at its last response; NULL: none. */
    void (*changed)(struct kserve_grpc_job *job); /* A part came, or it is late, or has ended. */

    /* The job's. */
    uint64_t message_size;
    bool decoding; /* infer_proto_begin() was called. */
    bool recalled; /* The message was known: it need not be decoded. */
    bool closed;
    bool allow_streams;
    uint64_t retry_s; /* It was refused: when to come again; 0: its model knows. */
    uint64_t deadline_ns;
    uint64_t received_ns;                        /* When its last byte came. */
    uint32_t loads;                              /* Asked for. */
    void (*worked)(struct kserve_grpc_job *job); /* Its part of the work. */
    void (*after)(struct kserve_grpc_job *job);
    struct mail *parts; /* Of struct request_part.home_mail.mail, to be sent: oldest first. */
    struct mail *parts_last;
    struct mail *sent; /* The same, lent out. */

    struct infer_recall *memory; /* Where its message is to be remembered, */
    uint64_t memory_serial;      /* if it is still this one. */
    uint64_t generation;         /* Of the catalogue that the model is from. */
    struct demand_wait wait;     /* While its model is being loaded, */
    struct loop_timer late_load; /* and its deadline then. */
    uint64_t held_bytes;         /* Of a recalled message: counted with the bodies. */

    /* Not zeroed at the beginning. */
    struct infer_call infer; /* model NULL before it is leased: then nothing else in it is set. */
    struct loop_work work;
    struct registry_order order; /* For a model that is loaded on demand. */
    struct infer_proto proto;
    struct weir_err work_err;
    char text[512]; /* Of `status`, in a sentence. */
    alignas(max_align_t) char block[KSERVE_GRPC_JOB_BLOCK_BYTES];
    alignas(max_align_t) char heads_block[KSERVE_GRPC_JOB_HEADS_BYTES];
};

/* Begins a message of that size; NULL when memory is out. */
WEIR_MUST_USE struct kserve_grpc_job *kserve_grpc_job_create(struct api_loop *loop,
                                                             uint64_t message_size);

/* The next bytes; a failure ends the job without a call of changed(). */
void kserve_grpc_job_read(struct kserve_grpc_job *job, struct bytes chunk);

/* Where the next bytes should be, as infer_proto_place(). */
bool kserve_grpc_job_place(const struct kserve_grpc_job *job, char **at, size_t *room);

/* The message is complete: leases the model, checks, submits.  changed() may be called before this
 * returns.  `allow_streams`: the caller can send several responses. */
void kserve_grpc_job_start(struct kserve_grpc_job *job, uint64_t deadline_ns, bool allow_streams);

/* The message is complete, and is not to be served. */
void kserve_grpc_job_refuse(struct kserve_grpc_job *job, enum weir_status status, const char *text,
                            uint64_t retry_s);

/* The next response, if there is one now: part of a stream (wrapped in ModelStreamInferResponse; a
 * failure is one, too), or the one of a job that has ended well.  The pieces are good until
 * kserve_grpc_job_sent() or close.  A response that cannot be written makes a failure. */
WEIR_MUST_USE bool kserve_grpc_job_next(struct kserve_grpc_job *job, bool streamed,
                                        struct infer_proto_pieces *out);

/* Tells the client of a failed job when to try again: as it was refused, else from its model's
 * measured rate.  Nothing else is said of it. */
void kserve_grpc_job_push_back(struct kserve_grpc_job *job, struct grpc_call *call);

/* Everything given out so far has been written. */
void kserve_grpc_job_sent(struct kserve_grpc_job *job);

/* Nobody wants more of it: cancels what runs, frees everything now or when it is home. */
void kserve_grpc_job_close(struct kserve_grpc_job *job);

/* Frees what is kept for reuse. */
void kserve_grpc_job_finish_loop(struct api_loop *loop);

#endif
