/*
 * shared_memory.h — the calls of the shared memory extension.  Loop thread.
 *
 * System shared memory where the server allows it.  CUDA shared memory there is none: nothing can
 * be registered, so there is nothing to show and nothing to forget.
 */
#ifndef WEIR_API_SHARED_MEMORY_H
#define WEIR_API_SHARED_MEMORY_H

struct call;

void shared_memory_status(struct call *call);
void shared_memory_register(struct call *call);
void shared_memory_unregister(struct call *call);
void shared_memory_cuda_status(struct call *call);
void shared_memory_cuda_register(struct call *call);
void shared_memory_cuda_unregister(struct call *call);

#endif
