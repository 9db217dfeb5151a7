#include "backend/process_layout.h"

#include <string.h>

#include "util/mem.h"

static bool add_aligned(uint64_t *sum, uint64_t bytes)
{
    uint64_t padded;
    return !__builtin_add_overflow(bytes, MEM_ALIGN - 1, &padded) &&
           !__builtin_add_overflow(*sum, padded / MEM_ALIGN * MEM_ALIGN, sum);
}

bool process_layout_measure(const struct tensor *tensors, uint32_t count,
                            const struct process_inputs *lent, uint64_t *out)
{
    uint64_t bytes = 0;
    uint64_t ignored;
    for (uint32_t i = 0; i < count; i++) {
        if (tensors[i].present &&
            !process_inputs_find(lent, tensors[i].data, tensors[i].size, &ignored) &&
            !add_aligned(&bytes, tensors[i].size)) {
            return false;
        }
    }
    *out = bytes;
    return true;
}

void process_layout_write(const struct tensor *tensors, uint32_t count,
                          const struct process_inputs *lent, uint8_t *area,
                          struct process_tensor *said)
{
    uint64_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct tensor *tensor = &tensors[i];
        said[i].present = tensor->present;
        if (!tensor->present) {
            continue;
        }
        said[i].dtype = tensor->dtype;
        said[i].rank = tensor->shape.rank;
        said[i].size = tensor->size;
        memcpy(said[i].dims, tensor->shape.dims, sizeof(said[i].dims));
        said[i].lent = process_inputs_find(lent, tensor->data, tensor->size, &said[i].offset);
        if (said[i].lent == 0) {
            said[i].offset = at;
            memcpy(area + at, tensor->data, tensor->size);
            (void)add_aligned(&at, tensor->size); /* It was measured. */
        }
    }
}
