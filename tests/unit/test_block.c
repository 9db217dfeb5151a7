#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <string.h>
#include <cmocka.h>

#include "tensor/block.h"
#include "util/mem.h"

static void test_block_is_aligned_and_counted(void **state)
{
    (void)state;
    struct block *block = block_create(1000);
    assert_non_null(block);
    assert_int_equal((uintptr_t)block->data % MEM_ALIGN, 0);
    assert_true(block->size >= 1000);
    memset(block->data, 7, block->size);
    block_acquire(block);
    block_release(block);
    assert_int_equal(block->data[999], 7);
    block_release(block);
    block_acquire(NULL);
    block_release(NULL);
}

/* The pages behind it are other ones, then. */
static void test_huge_blocks_serve_again(void **state)
{
    (void)state;
    struct block_pool *pool = block_pool_create(UINT64_C(32) << 20);
    struct block *first = NULL;
    for (int i = 1; i <= 3; i++) {
        struct block *block = block_pool_take(pool, 3 << 20);
        assert_non_null(block);
        first = first == NULL ? block : first;
        assert_ptr_equal(block, first);
        assert_int_equal(block->size, 4 << 20);
        assert_int_equal((uintptr_t)block->data % MEM_PAGE, MEM_PAGE / 2);
        assert_int_equal(block_pool_used_bytes(pool), block->size);
        memset(block->data, i, block->size);
        block_acquire(block);
        block_release(block);
        assert_int_equal(block->data[0], i);
        assert_int_equal(block->data[block->size - 1], i);
        block_release(block);
        assert_int_equal(block_pool_kept_bytes(pool), 4 << 20);
    }
    block_pool_destroy(pool);
}

/* Not at the beginning, where the kernel has what it copies to and from. */
static void test_large_data_begins_within_a_page(void **state)
{
    (void)state;
    struct block_pool *pool = block_pool_create(0);
    for (size_t size = 32768; size <= (size_t)1 << 23; size *= 4) {
        struct block *made = block_create(size);
        struct block *taken = block_pool_take(pool, size);
        assert_non_null(made);
        assert_non_null(taken);
        assert_int_equal((uintptr_t)made->data % MEM_PAGE, MEM_PAGE / 2);
        assert_int_equal((uintptr_t)taken->data % MEM_PAGE, MEM_PAGE / 2);
        memset(made->data, 1, made->size);
        memset(taken->data, 2, taken->size);
        assert_int_equal(made->data[size - 1], 1);
        block_release(made);
        block_release(taken);
    }
    block_pool_destroy(pool);
}

static unsigned releases;

static void count_release(struct block *block)
{
    (void)block;
    releases++;
}

static void test_foreign_memory_is_released_once(void **state)
{
    (void)state;
    uint8_t foreign[16];
    struct block block;
    block_init(&block, foreign, sizeof(foreign), count_release);
    block_acquire(&block);
    block_release(&block);
    assert_int_equal(releases, 0);
    block_release(&block);
    assert_int_equal(releases, 1);
}

static void test_absurd_sizes_are_refused(void **state)
{
    (void)state;
    struct block_pool *pool = block_pool_create(0);
    assert_null(block_create(SIZE_MAX));
    assert_null(block_create(SIZE_MAX - 8));
    assert_null(block_pool_take(pool, SIZE_MAX));
    assert_int_equal(block_pool_used_bytes(pool), 0);
    block_pool_destroy(pool);
}

static void test_pool_gives_the_same_memory_again(void **state)
{
    (void)state;
    struct block_pool *pool = block_pool_create(1 << 20);
    struct block *first = block_pool_take(pool, 3000);
    assert_non_null(first);
    assert_int_equal((uintptr_t)first->data % MEM_ALIGN, 0);
    assert_int_equal(block_pool_used_bytes(pool), first->size);
    assert_int_equal(block_pool_kept_bytes(pool), 0);
    const size_t size = first->size;
    block_release(first);
    assert_int_equal(block_pool_used_bytes(pool), 0);
    assert_int_equal(block_pool_kept_bytes(pool), size);

    struct block *second = block_pool_take(pool, 4000);
    assert_ptr_equal(second, first);
    memset(second->data, 1, 4000);
    struct block *third = block_pool_take(pool, 4000);
    assert_ptr_not_equal(third, second);
    block_release(second);
    block_release(third);
    block_pool_trim(pool);
    assert_int_equal(block_pool_kept_bytes(pool), 0);
    block_pool_destroy(pool);
}

static void test_pool_keeps_no_more_than_its_bound(void **state)
{
    (void)state;
    struct block_pool *pool = block_pool_create(4096);
    struct block *a = block_pool_take(pool, 4096);
    struct block *b = block_pool_take(pool, 4096);
    struct block *large = block_pool_take(pool, 100000);
    block_release(a);
    block_release(b);
    block_release(large);
    assert_int_equal(block_pool_kept_bytes(pool), 4096);
    assert_int_equal(block_pool_used_bytes(pool), 0);
    block_pool_destroy(pool);
}

static void *take_and_release(void *argument)
{
    struct block_pool *pool = argument;
    for (unsigned i = 0; i < 20000; i++) {
        struct block *block = block_pool_take(pool, 64u + (i * 37u) % 5000u);
        block->data[0] = (uint8_t)i;
        block_acquire(block);
        block_release(block);
        block_release(block);
    }
    return NULL;
}

/* What is asked for now is kept, not what was asked for once. */
static void test_pool_keeps_the_sizes_of_today(void **state)
{
    (void)state;
    struct block_pool *pool = block_pool_create(16384);
    struct block *small[16];
    for (size_t i = 0; i < 16; i++) {
        small[i] = block_pool_take(pool, 1024);
        assert_non_null(small[i]);
    }
    for (size_t i = 0; i < 16; i++) {
        block_release(small[i]);
    }
    assert_int_equal(block_pool_kept_bytes(pool), 16384);
    struct block *large = block_pool_take(pool, 8192);
    assert_non_null(large);
    block_release(large);
    assert_int_equal(block_pool_kept_bytes(pool), 16384); /* Eight of the small ones went. */
    struct block *again = block_pool_take(pool, 8192);
    assert_ptr_equal(again, large);
    assert_int_equal(block_pool_kept_bytes(pool), 8192);
    block_release(again);
    block_pool_destroy(pool);
}

static void test_threads_share_a_pool(void **state)
{
    (void)state;
    struct block_pool *pool = block_pool_create(1 << 16);
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_release, pool), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(block_pool_used_bytes(pool), 0);
    assert_true(block_pool_kept_bytes(pool) <= 1 << 16);
    block_pool_destroy(pool);
}

static void test_memory_running_out_is_reported(void **state)
{
    (void)state;
#ifdef WEIR_ALLOC_FAULT
    struct block_pool *pool = block_pool_create(4096);
    mem_fault_arm(1);
    assert_null(block_create(10));
    mem_fault_arm(1);
    assert_null(block_pool_take(pool, 10));
    mem_fault_arm(0);
    assert_int_equal(block_pool_used_bytes(pool), 0);
    block_pool_destroy(pool);
#else
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_block_is_aligned_and_counted),
        cmocka_unit_test(test_large_data_begins_within_a_page),
        cmocka_unit_test(test_huge_blocks_serve_again),
        cmocka_unit_test(test_foreign_memory_is_released_once),
        cmocka_unit_test(test_absurd_sizes_are_refused),
        cmocka_unit_test(test_pool_gives_the_same_memory_again),
        cmocka_unit_test(test_pool_keeps_no_more_than_its_bound),
        cmocka_unit_test(test_pool_keeps_the_sizes_of_today),
        cmocka_unit_test(test_threads_share_a_pool),
        cmocka_unit_test(test_memory_running_out_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
