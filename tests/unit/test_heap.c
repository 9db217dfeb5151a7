/* The heap against the obvious way: looking through everything for the smallest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "util/heap.h"

#define NODES 300

static uint64_t seed;

/* A multiplicative generator is enough to mix operations, and is the same everywhere. */
static uint64_t draw(uint64_t below)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (seed >> 33) % below;
}

static void check_top(const struct heap *heap, const struct heap_node *nodes)
{
    uint64_t smallest = UINT64_MAX;
    size_t count = 0;
    for (size_t i = 0; i < NODES; i++) {
        if (nodes[i].in) {
            smallest = nodes[i].key < smallest ? nodes[i].key : smallest;
            count++;
        }
    }
    const struct heap_node *top = heap_top(heap);
    if (count == 0) {
        assert_null(top);
    } else {
        assert_non_null(top);
        assert_true(top->in);
        assert_true(top->key == smallest);
    }
}

static void run_operations(uint64_t start, uint64_t keys)
{
    seed = start;
    struct heap heap = { .root = NULL };
    struct heap_node nodes[NODES] = { { .key = 0 } };
    for (size_t i = 0; i < 10000; i++) {
        struct heap_node *node = &nodes[draw(NODES)];
        const uint64_t kind = draw(10);
        if (kind < 3 && heap_top(&heap) != NULL) {
            node = heap_top(&heap);
            heap_remove(&heap, node);
            assert_false(node->in);
        } else if (node->in) {
            heap_remove(&heap, node);
            assert_false(node->in);
        } else {
            node->key = draw(keys);
            heap_push(&heap, node);
            assert_true(node->in);
        }
        check_top(&heap, nodes);
    }
}

static void test_agrees_with_a_search_after_every_operation(void **state)
{
    (void)state;
    for (uint64_t start = 1; start <= 5; start++) {
        run_operations(start, UINT64_C(1) << 30);
        run_operations(start, 4); /* Mostly equal keys. */
    }
}

static void test_gives_back_in_order_even_a_million(void **state)
{
    (void)state;
    enum { MANY = 1000000 };
    struct heap_node *nodes = test_calloc(MANY, sizeof(*nodes));
    struct heap heap = { .root = NULL };
    /* Rising keys make one list of a million siblings: nothing may recurse over it. */
    for (size_t i = 0; i < MANY; i++) {
        nodes[i].key = i;
        heap_push(&heap, &nodes[i]);
    }
    for (size_t i = 0; i < MANY; i++) {
        assert_ptr_equal(heap_top(&heap), &nodes[i]);
        heap_remove(&heap, &nodes[i]);
    }
    assert_null(heap_top(&heap));
    test_free(nodes);
}

static void test_removing_what_is_in_no_heap_does_nothing(void **state)
{
    (void)state;
    struct heap heap = { .root = NULL };
    struct heap_node in = { .key = 5 };
    struct heap_node out = { .key = 1 };
    heap_push(&heap, &in);
    heap_remove(&heap, &out);
    assert_ptr_equal(heap_top(&heap), &in);
    heap_remove(&heap, &in);
    heap_remove(&heap, &in);
    assert_null(heap_top(&heap));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_agrees_with_a_search_after_every_operation),
        cmocka_unit_test(test_gives_back_in_order_even_a_million),
        cmocka_unit_test(test_removing_what_is_in_no_heap_does_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
