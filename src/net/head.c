/*
 * One block: the struct, the fields, then the text that everything points into.
 */
#include "net/head.h"

#include <string.h>

#include "util/mem.h"

/* Keeps a head for as long as an exchange's arena. */
struct share {
    struct arena_disposable disposable;
    struct head *head;
};

void head_release(struct head *head)
{
    if (head != NULL && --head->holders == 0) {
        mem_free(head);
    }
}

static void end_share(struct arena_disposable *disposable)
{
    head_release(((struct share *)(void *)disposable)->head);
}

bool head_share(struct head *head, struct exchange *x)
{
    struct share *share = arena_try_alloc(&x->arena, sizeof(*share));
    if (share == NULL) {
        return false;
    }
    share->disposable.dispose = end_share;
    share->head = head;
    head->holders++;
    arena_dispose(&x->arena, &share->disposable);
    x->version = head->version;
    x->method = head->method;
    x->target = head->target;
    x->path = head->path;
    x->query = head->query;
    x->fields = head->fields;
    x->field_count = head->field_count;
    x->head = head;
    return true;
}

static struct head *allocate(const struct exchange *x, uint32_t list_count, size_t text_size)
{
    const size_t fields = (size_t)x->field_count + list_count;
    struct head *head =
        mem_try_alloc(sizeof(*head) + fields * sizeof(struct http_field) + text_size);
    if (head == NULL) {
        return NULL;
    }
    *head = (struct head){ .holders = 1,
                           .version = x->version,
                           .method = x->method,
                           .field_count = x->field_count,
                           .list_count = list_count };
    head->fields = (struct http_field *)(void *)(head + 1);
    head->list = head->fields + x->field_count;
    head->text = (struct bytes){ (char *)(head->list + list_count), text_size };
    return head;
}

/* The same text in the copy of what it is in; an empty one may have been anywhere.  False: it was
 * not in there, as a path that was left out is not. */
static bool move(struct bytes *text, struct bytes from, struct bytes to)
{
    const uintptr_t begin = (uintptr_t)from.data;
    const uintptr_t at = (uintptr_t)text->data;
    if (text->size == 0) {
        text->data = text->data == NULL ? NULL : to.data;
        return true;
    }
    if (at < begin || at - begin > from.size || text->size > from.size - (at - begin)) {
        return false;
    }
    text->data = to.data + (at - begin);
    return true;
}

/* Path and query lie in the target. */
static bool take_target(struct head *head, const struct exchange *x, struct bytes target)
{
    head->target = target;
    head->path = x->path;
    head->query = x->query;
    return move(&head->path, x->target, target) && move(&head->query, x->target, target);
}

struct head *head_create(const struct exchange *x, struct bytes text,
                         const struct http1_facts *facts)
{
    if (text.size > HEAD_BYTES_MAX || x->field_count > HEAD_FIELDS_MAX) {
        return NULL;
    }
    struct head *head = allocate(x, 0, text.size);
    if (head == NULL) {
        return NULL;
    }
    memcpy((char *)(uintptr_t)head->text.data, text.data, text.size);
    head->facts = *facts;
    struct bytes target = x->target;
    bool moved = move(&target, text, head->text) && take_target(head, x, target);
    for (uint32_t i = 0; i < x->field_count; i++) {
        head->fields[i] = x->fields[i];
        moved = moved && move(&head->fields[i].name, text, head->text) &&
                move(&head->fields[i].value, text, head->text);
    }
    if (!moved) {
        mem_free(head);
        return NULL;
    }
    return head;
}

void head_draft_begin(struct head_draft *draft)
{
    draft->count = 0;
    draft->size = 0;
    draft->overflown = false;
}

void head_draft_add(struct head_draft *draft, struct bytes name, struct bytes value)
{
    const size_t room = sizeof(draft->text) - draft->size;
    if (draft->overflown || draft->count == HEAD_FIELDS_MAX || name.size > room ||
        value.size > room - name.size) {
        draft->overflown = true;
        return;
    }
    memcpy(draft->text + draft->size, name.data, name.size);
    memcpy(draft->text + draft->size + name.size, value.data, value.size);
    draft->spans[draft->count].name_size = (uint16_t)name.size;
    draft->spans[draft->count].value_size = (uint16_t)value.size;
    draft->size += (uint32_t)(name.size + value.size);
    draft->count++;
}

static void take_list(struct head *head, const struct head_draft *draft)
{
    const char *at = head->text.data;
    for (uint32_t i = 0; i < draft->count; i++) {
        struct http_field *field = &head->list[i];
        field->name = (struct bytes){ at, draft->spans[i].name_size };
        field->value = (struct bytes){ at + field->name.size, draft->spans[i].value_size };
        at = field->value.data + field->value.size;
    }
}

/* The same text somewhere in the list, from *index on. */
static bool find_in_list(const struct head *head, const struct http_field *wanted, uint32_t *index,
                         struct http_field *out)
{
    while (*index < head->list_count) {
        const struct http_field *field = &head->list[(*index)++];
        const bool authority = bytes_equal(field->name, BYTES_LITERAL(":authority"));
        const struct bytes name = authority ? BYTES_LITERAL("host") : field->name;
        if (bytes_equal(name, wanted->name) && bytes_equal(field->value, wanted->value)) {
            *out = (struct http_field){ name, field->value };
            return true;
        }
    }
    return false;
}

static bool find_target(const struct head *head, struct bytes *out)
{
    for (uint32_t i = 0; i < head->list_count; i++) {
        if (bytes_equal(head->list[i].name, BYTES_LITERAL(":path"))) {
            *out = head->list[i].value;
            return true;
        }
    }
    return false;
}

struct head *head_create_drafted(const struct exchange *x, const struct head_draft *draft)
{
    if (draft->overflown) {
        return NULL;
    }
    struct head *head = allocate(x, draft->count, draft->size);
    if (head == NULL) {
        return NULL;
    }
    memcpy((char *)(uintptr_t)head->text.data, draft->text, draft->size);
    take_list(head, draft);
    struct bytes target;
    uint32_t index = 0;
    bool found =
        find_target(head, &target) && target.size == x->target.size && take_target(head, x, target);
    for (uint32_t i = 0; found && i < x->field_count; i++) {
        found = find_in_list(head, &x->fields[i], &index, &head->fields[i]);
    }
    if (!found) {
        mem_free(head);
        return NULL;
    }
    return head;
}
