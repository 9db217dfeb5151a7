/*
 * heap.h — a pairing heap of times, through nodes embedded in what waits.
 *
 * The smallest `key` is on top.  Push and top are O(1), pop and remove
 * amortised O(log n).  No allocation, no locks.  A zeroed node is in no heap.
 */
#ifndef WEIR_UTIL_HEAP_H
#define WEIR_UTIL_HEAP_H

#include <stdbool.h>
#include <stdint.h>

struct heap_node {
    uint64_t key;            /* Usually a time in ns; set before the push, constant while in. */
    struct heap_node *child; /* First child. */
    struct heap_node *next;  /* Next sibling. */
    struct heap_node *prev;  /* Previous sibling, or the parent of a first child. */
    bool in;                 /* True while in a heap. */
};

struct heap {
    struct heap_node *root;
};

void heap_push(struct heap *heap, struct heap_node *node);

/* Changes the key of a node that is in the heap. */
void heap_move(struct heap *heap, struct heap_node *node, uint64_t key);

/* The node with the smallest key, or NULL. */
struct heap_node *heap_top(const struct heap *heap);

/* Takes `node` out; does nothing to a node that is in no heap. */
void heap_remove(struct heap *heap, struct heap_node *node);

#endif
