#include "api/answer_memory.h"

#include <string.h>

void answer_memory_begin(struct answer_memory *memory)
{
    memory->serial++;
    memory->count = 0;
    memory->facts = (struct request_facts){ 0 };
}

void answer_memory_join(struct answer_memory *memory, struct infer_call *call)
{
    call->answer = memory;
    call->answer_serial = memory->serial;
}

static bool is_there(const struct infer_call *call)
{
    return call->answer != NULL && call->answer->serial == call->answer_serial;
}

static const struct tensor *output_of(const struct infer_call *call, uint32_t i)
{
    return &call->request.outputs[call->outputs[i].index];
}

struct bytes answer_memory_find(const struct infer_call *call)
{
    const struct answer_memory *memory = call->answer;
    if (!is_there(call) || memory->count == 0 || memory->count != call->output_count) {
        return (struct bytes){ NULL, 0 };
    }
    for (uint32_t i = 0; i < memory->count; i++) {
        const struct tensor *output = output_of(call, i);
        if (output->size != memory->sizes[i] || !shape_equal(&output->shape, &memory->shapes[i])) {
            return (struct bytes){ NULL, 0 };
        }
    }
    return (struct bytes){ memory->text, memory->size };
}

/* Classes become strings, and shared memory can be full: those are written each time. */
static bool is_lasting(const struct infer_call *call)
{
    for (uint32_t i = 0; i < call->output_count; i++) {
        const struct infer_output *output = &call->outputs[i];
        if (!output->binary || output->classes > 0 || output->shared != NULL ||
            !output_of(call, i)->present) {
            return false;
        }
    }
    return true;
}

void answer_memory_keep(const struct infer_call *call, struct bytes text)
{
    struct answer_memory *memory = call->answer;
    if (!is_there(call) || text.size > sizeof memory->text ||
        call->output_count > ANSWER_MEMORY_OUTPUTS || !is_lasting(call)) {
        return;
    }
    for (uint32_t i = 0; i < call->output_count; i++) {
        memory->sizes[i] = output_of(call, i)->size;
        memory->shapes[i] = output_of(call, i)->shape;
    }
    memcpy(memory->text, text.data, text.size);
    memory->size = (uint32_t)text.size;
    memory->count = call->output_count;
}

struct request_facts *answer_memory_facts(const struct infer_call *call)
{
    return is_there(call) ? &call->answer->facts : NULL;
}
