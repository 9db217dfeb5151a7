/*
 * process_shared.h — what a model's process and the server have in common: memory.
 *
 * Every object is an anonymous memory file, sealed against a change of its size, that the
 * server made and passed by descriptor: it has no name that anybody could open, and cannot be cut
 * short under a reader.
 *
 * A *page* per process: its heartbeat, a bell to wake it, what its models take.
 *
 * A *channel* per context: a head, which holds one command or its answer, and two *areas* of bytes,
 * for inputs and for outputs.  Server and process take turns: the word `turn` is even while it is
 * the server's turn and odd while it is the process's; whoever ends its turn adds one and wakes the
 * other.  An area that is too small is replaced by a larger one, whose descriptor travels over the
 * channel's socket.  Inputs that are in the model's own memory for them (process_inputs.h) stay
 * there.
 *
 * Both sides run the same program.  Even so the server believes nothing: it copies what it reads
 * once and checks the copy (process_check.h).
 */
#ifndef WEIR_BACKEND_PROCESS_SHARED_H
#define WEIR_BACKEND_PROCESS_SHARED_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/backend.h"

#define PROCESS_MODELS_MAX 64 /* Of a process: of a group. */
#define PROCESS_TENSORS_MAX 4096
#define PROCESS_BEAT_NS (250 * NS_PER_MS) /* A heartbeat. */
#define PROCESS_TURN_DEAD UINT32_MAX      /* Set by the server when the process has ended. */

struct process_page {
    _Atomic uint32_t bell; /* Rung by the server: a run is to be stopped. */
    _Atomic uint32_t beats;
    _Atomic uint64_t resident_bytes; /* Of the process alone. */
    struct process_memory {
        _Atomic uint64_t heap_bytes;
        _Atomic uint64_t heap_peak_bytes;
        _Atomic uint64_t mapped_bytes;
        _Atomic uint64_t device_bytes;
    } models[PROCESS_MODELS_MAX];
};

/* Where a tensor is in an area. */
struct process_tensor {
    uint32_t present;
    uint32_t dtype;
    uint32_t rank;
    uint32_t wanted; /* Outputs, in the command. */
    uint32_t lent;   /* Inputs: in the memory of process_inputs.h, not in the area. */
    uint64_t offset;
    uint64_t size;
    int64_t dims[TENSOR_RANK_MAX];
};

/* X(name): what the server asks for. */
enum process_step { STEP_PREPARE, STEP_RUN, STEP_FINISH, STEP_CONTINUE };

struct process_command {
    enum process_step step;
    bool fresh;   /* The first step of a run: inputs are in place. */
    bool streams; /* Parts are listened to. */
    bool trim;
    uint32_t wish; /* STEP_CONTINUE after a part: enum weir_status of its receiver. */
    uint64_t run;  /* Number, counted from 1. */
    uint64_t rows;
    uint64_t begin_ns;
    uint64_t virtual_end_ns;
    uint32_t in_generation; /* Of the areas; 0: there is none yet. */
    uint32_t out_generation;
};

enum process_answer_kind { ANSWER_DONE, ANSWER_PART, ANSWER_GROW };

struct process_answer {
    uint32_t kind;
    uint32_t status;
    uint32_t outputs; /* They are in the area. */
    uint32_t faulted; /* backend_run.faulted */
    uint64_t virtual_end_ns;
    uint64_t grow_bytes; /* ANSWER_GROW: the area for outputs is to have as many. */
    char text[sizeof(((struct weir_err *)0)->text)];
};

struct process_head {
    _Atomic uint32_t turn;
    _Atomic uint32_t server_sleeps;
    _Atomic uint32_t process_sleeps;
    _Atomic uint64_t stop_run; /* The run with this number is to be stopped. */

    /* The journal: what the process was at when it ended. */
    _Atomic uint64_t executing; /* Number of the run; 0: none. */
    _Atomic uint32_t faulted;   /* The thread that ended the process was this channel's. */

    struct process_command command;
    struct process_answer answer;
    struct process_tensor tensors[]; /* Inputs, then outputs. */
};

static inline size_t process_head_bytes(uint32_t input_count, uint32_t output_count)
{
    return sizeof(struct process_head) +
           ((size_t)input_count + output_count) * sizeof(struct process_tensor);
}

#endif
