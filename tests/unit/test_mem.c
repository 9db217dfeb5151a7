#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "util/mem.h"
#include "util/memstat.h"

#define MIB ((size_t)1 << 20)

#define TRIMMERS 2

static void *trim_with_the_other(void *context)
{
    atomic_uint *ready = context;
    (void)atomic_fetch_add(ready, 1);
    while (atomic_load(ready) < TRIMMERS) {
    }
    mem_trim();
    return NULL;
}

/* As models do that are loaded at once.  It is the first test of all: with a sanitizer's heap only
 * the first trim of a process sets glibc's up. */
static void test_trimming_at_once(void **state)
{
    (void)state;
    atomic_uint ready = 0;
    pthread_t threads[TRIMMERS];
    for (size_t i = 0; i < TRIMMERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, trim_with_the_other, &ready), 0);
    }
    for (size_t i = 0; i < TRIMMERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
}

static void test_start_up_memory_is_zeroed(void **state)
{
    (void)state;
    unsigned char *memory = mem_alloc(1000);
    for (size_t i = 0; i < 1000; i++) {
        assert_int_equal(memory[i], 0);
    }
    mem_free(memory);
    char *text = mem_strdup("weir");
    assert_string_equal(text, "weir");
    mem_free(text);
    mem_free(NULL);
}

static void test_empty_is_not_failed(void **state)
{
    (void)state;
    void *const pieces[] = { mem_alloc(0),       mem_try_alloc(0), mem_try_zero(0, 8),
                             mem_try_aligned(0), mem_try_pages(0), mem_try_resize(NULL, 0) };
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        assert_non_null(pieces[i]);
        mem_free(pieces[i]);
    }
}

static void test_absurd_sizes_fail(void **state)
{
    (void)state;
    assert_null(mem_try_zero(SIZE_MAX / 2, 4));
    assert_null(mem_try_alloc(SIZE_MAX));
    assert_null(mem_try_resize(NULL, (size_t)PTRDIFF_MAX + 1));
    assert_null(mem_try_aligned(SIZE_MAX - 5));
    assert_null(mem_try_pages(SIZE_MAX - 5));
    assert_null(mem_try_strndup("x", SIZE_MAX));
}

static void test_aligned_memory(void **state)
{
    (void)state;
    for (size_t size = 1; size < 300; size++) {
        char *memory = mem_try_aligned(size);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % MEM_ALIGN, 0);
        memset(memory, 1, size);
        mem_free(memory);
        memory = mem_try_pages(size);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % MEM_PAGE, 0);
        memset(memory, 1, size);
        mem_free(memory);
    }
}

static void test_renewed_pages_can_be_written(void **state)
{
    (void)state;
    const size_t size = 2 * MEM_HUGE_PAGE + 100;
    unsigned char *memory = mem_try_pages(size);
    assert_non_null(memory);
    assert_int_equal((uintptr_t)memory % MEM_HUGE_PAGE, 0);
    memset(memory, 1, size);
    mem_renew(memory, size);
    memset(memory, 2, size);
    for (size_t i = 0; i < size; i++) {
        if (memory[i] != 2) {
            fail_msg("byte %zu is %u", i, memory[i]);
        }
    }
    mem_free(memory);
}

static void test_copies_texts(void **state)
{
    (void)state;
    char *whole = mem_try_strdup("weir");
    char *part = mem_try_strndup("weirdness", 4);
    char *none = mem_try_strndup(NULL, 0);
    assert_string_equal(whole, part);
    assert_string_equal(none, "");
    mem_free(whole);
    mem_free(part);
    mem_free(none);
}

static void test_resizing_keeps_the_bytes(void **state)
{
    (void)state;
    char *memory = mem_try_resize(NULL, 5);
    assert_non_null(memory);
    memcpy(memory, "weir", 5);
    memory = mem_try_resize(memory, 100000);
    assert_string_equal(memory, "weir");
    memory = mem_try_resize(memory, 0);
    assert_non_null(memory);
    mem_free(memory);
    mem_trim();
}

static void test_widened_heap_is_populated(void **state)
{
    (void)state;
    (void)mem_widen_heap(4 * MIB);
    unsigned char *memory = mem_try_alloc(4 * MIB);
    assert_non_null(memory);
    memset(memory, 7, 4 * MIB);
    mem_populate(memory, 4 * MIB);
    for (size_t i = 0; i < 4 * MIB; i++) {
        if (memory[i] != 7) {
            fail_msg("byte %zu is %u", i, memory[i]);
        }
    }
    mem_free(memory);
}

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static uint64_t resident_bytes(void)
{
    struct memstat now;
    memstat_read(&now);
    return now.resident_bytes;
}

/* By itself glibc takes blocks of up to 30 MiB from heaps once such a block was freed. */
static void *use_and_free(void *out)
{
    uint64_t *bytes = out;
    (void)mem_widen_heap(MIB);
    for (size_t size = 30 * MIB; size > 10 * MIB; size -= 14 * MIB) {
        void *block = mem_try_alloc(size);
        assert_non_null(block);
        memset(block, 1, size);
        bytes[0] = resident_bytes();
        mem_free(block);
        bytes[1] = resident_bytes();
    }
    return NULL;
}

static void test_large_blocks_go_back_at_once(void **state)
{
    (void)state;
    uint64_t bytes[2];
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, use_and_free, bytes), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(bytes[0] > bytes[1] + 12 * MIB);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trimming_at_once),
        cmocka_unit_test(test_start_up_memory_is_zeroed),
        cmocka_unit_test(test_empty_is_not_failed),
        cmocka_unit_test(test_absurd_sizes_fail),
        cmocka_unit_test(test_aligned_memory),
        cmocka_unit_test(test_renewed_pages_can_be_written),
        cmocka_unit_test(test_copies_texts),
        cmocka_unit_test(test_resizing_keeps_the_bytes),
        cmocka_unit_test(test_widened_heap_is_populated),
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        cmocka_unit_test(test_large_blocks_go_back_at_once),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
