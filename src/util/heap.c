/*
 * A node's children are a list of heaps, each with a larger key than its own.
 * Joining two heaps hangs the one with the larger top under the other; taking a
 * node out joins its children in pairs from the left, then the pairs from the
 * right, which is what makes the cost logarithmic in the long run.
 */
#include "util/heap.h"

#include <assert.h>
#include <stddef.h>

/* Either may be NULL; of equal keys `a` stays on top. */
static struct heap_node *join(struct heap_node *a, struct heap_node *b)
{
    if (a == NULL || b == NULL) {
        return a == NULL ? b : a;
    }
    struct heap_node *top = b->key < a->key ? b : a;
    struct heap_node *under = top == a ? b : a;
    under->prev = top;
    under->next = top->child;
    if (top->child != NULL) {
        top->child->prev = under;
    }
    top->child = under;
    return top;
}

/* Makes one heap of a list of siblings; iterative, since a list may hold every node. */
static struct heap_node *join_siblings(struct heap_node *first)
{
    struct heap_node *pairs = NULL; /* The last pair first, linked through `next`. */
    while (first != NULL) {
        struct heap_node *second = first->next;
        struct heap_node *rest = second == NULL ? NULL : second->next;
        first->next = NULL;
        struct heap_node *pair = join(first, second);
        pair->next = pairs;
        pairs = pair;
        first = rest;
    }
    struct heap_node *top = NULL;
    while (pairs != NULL) {
        struct heap_node *rest = pairs->next;
        top = join(pairs, top);
        pairs = rest;
    }
    if (top != NULL) {
        top->next = NULL;
        top->prev = NULL;
    }
    return top;
}

static void detach(struct heap_node *node)
{
    if (node->prev->child == node) {
        node->prev->child = node->next;
    } else {
        node->prev->next = node->next;
    }
    if (node->next != NULL) {
        node->next->prev = node->prev;
    }
}

void heap_push(struct heap *heap, struct heap_node *node)
{
    assert(!node->in);
    node->child = NULL;
    node->next = NULL;
    node->prev = NULL;
    node->in = true;
    heap->root = join(heap->root, node);
}

struct heap_node *heap_top(const struct heap *heap)
{
    return heap->root;
}

void heap_remove(struct heap *heap, struct heap_node *node)
{
    if (!node->in) {
        return;
    }
    struct heap_node *children = node->child == NULL ? NULL : join_siblings(node->child);
    if (node == heap->root) {
        heap->root = children;
    } else {
        detach(node);
        heap->root = join(heap->root, children);
    }
    node->child = NULL;
    node->next = NULL;
    node->prev = NULL;
    node->in = false;
}

void heap_move(struct heap *heap, struct heap_node *node, uint64_t key)
{
    if (heap->root == node && node->child == NULL) {
        node->key = key; /* Alone. */
        return;
    }
    heap_remove(heap, node);
    node->key = key;
    heap_push(heap, node);
}
