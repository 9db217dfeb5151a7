/*
 * The file is larger than what is ever used of it: pages come with their first byte.  Blocks have
 * power-of-two sizes and are kept for the next of their size, the last one first, as it is the most
 * likely to be in a cache.  They go back to the system with the model: a file that nobody else may
 * write to cannot be punched either.  So that nobody can cut all of it into blocks that others have
 * no use for, or take all of the system's mappings, a size gets but a part of the file: small
 * blocks an eighth, others a half.  What does not fit is copied, as if there were no such file: so
 * a client that stalls after its first byte, and keeps its block until it is timed out, costs others
 * a copy and no more.
 *
 * The pool of tensor/block cannot serve here: its memory is the server's alone, of any address, and
 * goes back to the system when nobody needs it; this is one file of a fixed size per model, which
 * a process knows by offset and which lives with the model.
 */
#include "backend/process_inputs.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backend/backend.h"
#include "backend/process_memory.h"
#include "util/mem.h"

#define FILE_BYTES ((size_t)64 << 20)
#define BYTES_MIN ((size_t)BACKEND_INPUT_BYTES_MIN)
#define CLASS_COUNT 12
#define SMALL_CLASSES 2 /* Of the smallest blocks. */

/* In front of a block's memory. */
struct slot {
    struct block block;
    struct process_inputs *owner;
    unsigned class;
};

struct process_inputs {
    struct process_area area;
    int fd;
    size_t page;
    pthread_mutex_t lock; /* Guards what follows. */
    struct block *free[CLASS_COUNT];
    size_t used; /* Of the file, from its start, */
    size_t used_by[CLASS_COUNT];
    uint32_t out;
    bool closed;
};

enum weir_status process_inputs_create(struct process_inputs **out, struct weir_err *err)
{
    struct process_inputs *inputs = mem_try_zero(1, sizeof(*inputs));
    if (inputs == NULL) {
        return err_nomem(err, "memory for a model's inputs", sizeof(*inputs));
    }
    const enum weir_status status =
        process_area_create(&inputs->area, FILE_BYTES, AREA_READ_ONLY, &inputs->fd, err);
    if (status != WEIR_OK) {
        mem_free(inputs);
        return status;
    }
    inputs->page = (size_t)sysconf(_SC_PAGESIZE);
    pthread_mutex_init(&inputs->lock, NULL);
    *out = inputs;
    return WEIR_OK;
}

static void destroy(struct process_inputs *inputs)
{
    process_area_finish(&inputs->area);
    (void)close(inputs->fd);
    pthread_mutex_destroy(&inputs->lock);
    mem_free(inputs);
}

void process_inputs_close(struct process_inputs *inputs)
{
    if (inputs == NULL) {
        return;
    }
    pthread_mutex_lock(&inputs->lock);
    inputs->closed = true;
    const bool last = inputs->out == 0;
    pthread_mutex_unlock(&inputs->lock);
    if (last) {
        destroy(inputs);
    }
}

static void give_back(struct block *block)
{
    struct slot *slot = (struct slot *)(void *)block;
    struct process_inputs *inputs = slot->owner;
    pthread_mutex_lock(&inputs->lock);
    block->next = inputs->free[slot->class];
    inputs->free[slot->class] = block;
    const bool last = --inputs->out == 0 && inputs->closed;
    pthread_mutex_unlock(&inputs->lock);
    if (last) {
        destroy(inputs);
    }
}

/* Lock held.  A block that was not there before: a page of the server's own, then pages of the
 * file. */
static struct slot *cut(struct process_inputs *inputs, unsigned class)
{
    const size_t data = (BYTES_MIN << class) < inputs->page ? inputs->page : BYTES_MIN << class;
    const size_t bytes = data + inputs->page;
    const size_t most = inputs->area.size / (class < SMALL_CLASSES ? 8 : 2);
    const size_t has = inputs->used_by[class];
    if (bytes > inputs->area.size - inputs->used || (has > 0 && has + bytes > most)) {
        return NULL;
    }
    void *front = mmap(inputs->area.data + inputs->used, inputs->page, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (front == MAP_FAILED) {
        return NULL;
    }
    struct slot *slot = front;
    block_init(&slot->block, (uint8_t *)front + inputs->page, data, give_back);
    slot->owner = inputs;
    slot->class = class;
    inputs->used += bytes;
    inputs->used_by[class] += bytes;
    return slot;
}

static unsigned class_of(size_t size)
{
    unsigned class = 0;
    while (class < CLASS_COUNT && (BYTES_MIN << class) < size) {
        class ++;
    }
    return class;
}

struct block *process_inputs_take(struct process_inputs *inputs, size_t front, size_t size)
{
    const unsigned class = class_of(size);
    if (inputs == NULL || front > inputs->page - sizeof(struct slot) || size < BYTES_MIN ||
        class == CLASS_COUNT) {
        return NULL;
    }
    pthread_mutex_lock(&inputs->lock);
    struct block *block = inputs->free[class];
    if (block != NULL) {
        inputs->free[class] = block->next;
        block->next = NULL;
        atomic_store_explicit(&block->holders, 1, memory_order_relaxed);
    } else {
        struct slot *slot = cut(inputs, class);
        block = slot == NULL ? NULL : &slot->block;
    }
    inputs->out += block != NULL ? 1 : 0;
    pthread_mutex_unlock(&inputs->lock);
    return block;
}

bool process_inputs_find(const struct process_inputs *inputs, const void *data, size_t size,
                         uint64_t *offset)
{
    if (inputs == NULL) {
        return false;
    }
    const uintptr_t from = (uintptr_t)inputs->area.data;
    const uintptr_t at = (uintptr_t)data;
    if (at < from || at - from > inputs->area.size || size > inputs->area.size - (at - from)) {
        return false;
    }
    *offset = at - from;
    return true;
}

int process_inputs_fd(const struct process_inputs *inputs)
{
    return inputs->fd;
}

size_t process_inputs_size(const struct process_inputs *inputs)
{
    return inputs->area.size;
}

uint64_t process_inputs_bytes(const struct process_inputs *inputs)
{
    struct process_inputs *self = (struct process_inputs *)(uintptr_t)inputs;
    if (self == NULL) {
        return 0;
    }
    pthread_mutex_lock(&self->lock);
    const uint64_t used = self->used;
    pthread_mutex_unlock(&self->lock);
    return used;
}
