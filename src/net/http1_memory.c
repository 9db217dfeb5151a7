/*
 * Texts are remembered as places in the header, so that they hold in any copy of it.
 */
#include "net/http1_memory.h"

#include <string.h>

#include "util/mem.h"

/* Where in the header a text is. */
struct span {
    uint16_t at;
    uint16_t size;
};

struct field_spans {
    struct span name;
    struct span value;
};

struct http1_memory {
    uint32_t size; /* 0: nothing is remembered. */
    uint32_t capacity;
    uint32_t field_count;
    enum http_method method;
    bool has_query;
    struct http1_facts facts;
    struct span target;
    struct span path;
    struct span query;
    struct field_spans fields[HTTP1_MEMORY_FIELDS];
    char head[];
};

/* False where the text is not in `head`, as a path that was left out is not. */
static bool place(struct bytes head, struct bytes text, struct span *out)
{
    const uintptr_t from = (uintptr_t)head.data;
    const uintptr_t at = (uintptr_t)text.data;
    *out = (struct span){ 0 };
    if (text.size == 0) {
        return true;
    }
    if (at < from || at - from > head.size || text.size > head.size - (at - from)) {
        return false;
    }
    *out = (struct span){ (uint16_t)(at - from), (uint16_t)text.size };
    return true;
}

static bool place_all(struct bytes head, const struct exchange *x, struct http1_memory *out)
{
    bool placed = place(head, x->target, &out->target) && place(head, x->path, &out->path) &&
                  place(head, x->query, &out->query);
    for (uint32_t i = 0; placed && i < x->field_count; i++) {
        placed = place(head, x->fields[i].name, &out->fields[i].name) &&
                 place(head, x->fields[i].value, &out->fields[i].value);
    }
    return placed;
}

static struct http1_memory *with_room(struct http1_memory **memory, size_t size)
{
    struct http1_memory *self = *memory;
    if (self == NULL || self->capacity < size) {
        self = mem_try_resize(self, sizeof(*self) + size);
        if (self == NULL) {
            return NULL;
        }
        self->capacity = (uint32_t)size;
        self->size = 0;
        *memory = self;
    }
    return self;
}

void http1_memory_keep(struct http1_memory **memory, struct bytes head, const struct exchange *x,
                       const struct http1_facts *facts)
{
    if (head.size > HTTP1_MEMORY_BYTES || x->field_count > HTTP1_MEMORY_FIELDS) {
        return;
    }
    struct http1_memory *self = with_room(memory, head.size);
    if (self == NULL) {
        return;
    }
    self->size = 0;
    if (place_all(head, x, self)) {
        memcpy(self->head, head.data, head.size);
        self->field_count = x->field_count;
        self->method = x->method;
        self->has_query = x->query.data != NULL;
        self->facts = *facts;
        self->size = (uint32_t)head.size;
    }
}

static struct bytes text_at(const char *head, struct span span)
{
    return (struct bytes){ head + span.at, span.size };
}

size_t http1_memory_recall(const struct http1_memory *memory, struct bytes in, struct exchange *x,
                           struct http1_facts *facts)
{
    if (memory == NULL || memory->size == 0 || memory->size > in.size ||
        memcmp(in.data, memory->head, memory->size) != 0) {
        return 0;
    }
    const uint32_t count = memory->field_count;
    struct http_field *fields = arena_try_alloc(&x->arena, (count + 1) * sizeof(*fields));
    char *head = arena_try_aligned(&x->arena, memory->size, 1);
    if (fields == NULL || head == NULL) {
        return 0;
    }
    memcpy(head, memory->head, memory->size);
    for (uint32_t i = 0; i < count; i++) {
        fields[i].name = text_at(head, memory->fields[i].name);
        fields[i].value = text_at(head, memory->fields[i].value);
    }
    x->fields = fields;
    x->field_count = count;
    x->method = memory->method;
    x->version = memory->facts.version_1_0 ? HTTP_1_0 : HTTP_1_1;
    x->target = text_at(head, memory->target);
    x->path = text_at(head, memory->path);
    x->query = memory->has_query ? text_at(head, memory->query) : (struct bytes){ NULL, 0 };
    *facts = memory->facts;
    return memory->size;
}
