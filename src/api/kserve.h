/*
 * kserve.h — one inference in the words of the Open Inference Protocol, whatever carried it.
 *
 *     kserve_open(call, model)        the call holds the lease from here on
 *     kserve_input(), kserve_output(), kserve_parameter()     as they are read, in any order
 *     kserve_complete()               what is missing, what nobody asked for
 *     kserve_submit()                 WEIR_OK: call->ended() runs at home, once
 *     kserve_written()                the answer is: it waits for the socket without the model
 *     kserve_close()                  after the end; also when it never got that far
 *
 * REST and gRPC give the same answers because they both go this way.  Sentences name
 * the field, what was found and what was expected, in Triton's words where its
 * clients' tests look for them.
 *
 * Loop thread; from kserve_open() to kserve_complete() any one thread.
 */
#ifndef WEIR_API_KSERVE_H
#define WEIR_API_KSERVE_H

#include <stdbool.h>
#include <stdint.h>

#include "api/client.h"
#include "engine/engine.h"
#include "util/arena.h"

/* A parameter's value, of the types that the protocol has. */
enum infer_kind { INFER_BOOL, INFER_UINT, INFER_INT, INFER_DOUBLE, INFER_STRING };

struct infer_value {
    enum infer_kind kind;
    bool boolean;
    uint64_t number;   /* INFER_UINT. */
    struct bytes text; /* INFER_STRING. */
};

struct answer_memory; /* answer_memory.h */
struct api_loop;      /* api.h */
struct kserve_place;  /* kserve_shared.h */
struct shm;

/* One tensor of the answer. */
struct infer_output {
    uint32_t index; /* In the signature. */
    bool binary;
    uint32_t classes;                  /* Classification: the best so many; 0: the tensor itself. */
    const struct kserve_place *shared; /* Where it goes instead; NULL: into the answer. */
};

struct infer_call {
    struct request request;    /* The engine's. */
    struct arena *arena;       /* Where everything of this call lives. */
    struct block_pool *blocks; /* For what is too large for the arena. */
    struct model *model;       /* Leased; NULL once given back. */
    struct bytes id;           /* Empty: none. */
    uint64_t received_ns;      /* When `timeout` begins. */
    uint64_t deadline_ns;      /* The earliest of those given; CLOCK_NEVER. */
    uint64_t timeout_ns;       /* The parameter `timeout`; 0: none. */
    uint32_t priority;
    struct client client;         /* Set it after kserve_open(): whose it is. */
    bool binary_default;          /* For outputs that were not listed. */
    bool timing;                  /* Asked for in the parameters. */
    struct shm *shm;              /* Set it after kserve_open(); NULL: no shared memory. */
    struct kserve_place *places;  /* Regions in use. */
    struct infer_output *outputs; /* In the order of the answer; room for the signature's. */
    uint32_t output_count;
    uint32_t lent_count;          /* Outputs to be let go once the model is given back. */
    struct answer_memory *answer; /* Of equal requests before it, or NULL, */
    uint64_t answer_serial;       /* if it is still of these. */
    struct list_node named;       /* Of those under way with an id: the loop's list. */
    /* At home.  ended(): request.status and outputs are there.  late(): the deadline passed while
     * it runs, answer now; ended() still comes.  part() NULL: no streams. */
    void (*ended)(struct infer_call *call);
    void (*late)(struct infer_call *call);
    void (*part)(struct infer_call *call, struct request_part *part);
};

/* Where a request's time went: in line, until its run began, in the run, and in all from the last byte
 * of the body until now; 0 where it did not come so far. */
#define INFER_STAGES 4

struct infer_timing {
    uint64_t ns[INFER_STAGES];
};

extern const char *const infer_stages[INFER_STAGES]; /* "queue", "gather", "compute", "total" */

struct infer_timing kserve_timing(const struct infer_call *call, uint64_t now_ns);

/* Takes the lease on `model`.  WEIR_ENOMEM: the lease is still the caller's. */
WEIR_MUST_USE enum weir_status kserve_open(struct infer_call *call, struct model *model,
                                           struct arena *arena, struct block_pool *blocks,
                                           uint64_t received_ns, struct weir_err *err);

/* The input's tensor, with type and shape filled in and room for its bytes to be set.
 * WEIR_EINVAL: no such input, named twice, another type or shape, too many elements. */
WEIR_MUST_USE enum weir_status kserve_input(struct infer_call *call, struct bytes name,
                                            struct bytes datatype, const struct shape *shape,
                                            struct tensor **out, struct weir_err *err);

/* Bytes for an input, aligned, kept as long as needed: in the arena when few, else a block. */
WEIR_MUST_USE enum weir_status kserve_room(struct infer_call *call, struct tensor *tensor,
                                           size_t size, struct weir_err *err);

/* WEIR_EINVAL unless an input of that type and shape has `size` bytes (of BYTES any); `where` says
 * in the sentence where that was said. */
WEIR_MUST_USE enum weir_status kserve_check_size(const struct infer_call *call,
                                                 const struct tensor *tensor, struct bytes name,
                                                 uint64_t size, const char *where,
                                                 struct weir_err *err);

/* Sets a fixed-size input's or a BYTES input's data where it lies, after checking it against
 * type and shape; moves it when it lies badly.  WEIR_EINVAL, WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status kserve_lend(struct infer_call *call, struct tensor *tensor,
                                           struct bytes name, struct bytes data,
                                           struct weir_err *err);

/* An output that is asked for by name.  WEIR_EINVAL: no such output, or named twice. */
WEIR_MUST_USE enum weir_status kserve_output(struct infer_call *call, struct bytes name,
                                             struct infer_output **out, struct weir_err *err);

/* A request parameter.  WEIR_EINVAL: reserved, or not of its type; WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status kserve_parameter(struct infer_call *call, struct bytes key,
                                                const struct infer_value *value,
                                                struct weir_err *err);

/* Everything was read: all inputs there, all outputs listed and of types that can be sent. */
WEIR_MUST_USE enum weir_status kserve_complete(struct infer_call *call, struct weir_err *err);

/* Says the request no more than which tensors there are, but for its deadline?  Then another one
 * that is the same may be read from memory. */
bool kserve_is_plain(const struct infer_call *call);

/* Marks the outputs of the answer as wanted, for the engine; kserve_complete() does it. */
void kserve_want(struct infer_call *call);

/* As engine_submit(), to the loop's home.  WEIR_OK: the call must stay until ended(). */
WEIR_MUST_USE enum weir_status kserve_submit(struct infer_call *call, struct api_loop *loop,
                                             struct weir_err *err);

/* The client does not want it any more; ended() still comes. */
void kserve_cancel(struct infer_call *call);

/* Lets the lease, the regions and the inputs go, once the request is home: what is left of the answer
 * needs the outputs alone, however long its client takes to read it.  Twice is fine. */
void kserve_written(struct infer_call *call);

/* Lets everything go.  Twice is fine. */
void kserve_close(struct infer_call *call);

/* The shape that clients see: with -1 for the batch where the model has one. */
void kserve_shape(const struct model *model, bool output, uint32_t index, struct shape *out);

#endif
