/*
 * shm: clients reach the objects that they may use, in the ranges that they registered, and nothing
 * else.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/shm.h"

static char folder[64];
static struct limits limits;
static struct shm *shm;

static void path_of(const char *name, char *out, size_t size)
{
    (void)snprintf(out, size, "%s/%s", folder, name);
}

/* An object whose byte i is i. */
static void put(const char *name, size_t size)
{
    char path[128];
    path_of(name, path, sizeof(path));
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    for (size_t i = 0; i < size; i++) {
        assert_int_not_equal(fputc((int)(i & 0xFF), file), EOF);
    }
    assert_int_equal(fclose(file), 0);
}

static void cut(const char *name, off_t size)
{
    char path[128];
    path_of(name, path, sizeof(path));
    assert_int_equal(truncate(path, size), 0);
}

static off_t size_of(const char *name)
{
    char path[128];
    struct stat info;
    path_of(name, path, sizeof(path));
    assert_int_equal(stat(path, &info), 0);
    return info.st_size;
}

static void drop(const char *name)
{
    char path[128];
    path_of(name, path, sizeof(path));
    (void)remove(path);
}

static int set_up(void **state)
{
    (void)state;
    strcpy(folder, "/dev/shm/weir-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
    limits_init(&limits);
    assert_int_equal(shm_create(folder, "my.", &limits, &shm, NULL), WEIR_OK);
    put("my.data", 100);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    shm_destroy(shm);
    static const char *const names[] = { "my.data", "my.link",   "my.hard",
                                         "my.pipe", "my.folder", "other" };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        drop(names[i]);
    }
    assert_int_equal(rmdir(folder), 0);
    return 0;
}

static enum weir_status add(const char *name, const char *key, uint64_t offset, uint64_t size)
{
    return shm_register(shm, bytes_of(name), bytes_of(key), offset, size, -1, NULL);
}

static enum weir_status hold(const char *name, uint64_t offset, uint64_t size,
                             struct shm_region **out)
{
    return shm_acquire(shm, bytes_of(name), offset, size, out, NULL);
}

static void test_reads_and_writes_its_range(void **state)
{
    (void)state;
    struct shm_region *region;
    uint8_t bytes[4] = { 0 };
    assert_int_equal(add("r", "/my.data", 10, 50), WEIR_OK);
    assert_int_equal(hold("r", 46, 4, &region), WEIR_OK);
    assert_int_equal(shm_read(region, 46, bytes, 4, NULL), WEIR_OK);
    assert_memory_equal(bytes, ((const uint8_t[]){ 56, 57, 58, 59 }), 4);
    assert_int_equal(shm_write(region, 0, "abcd", 4, NULL), WEIR_OK);
    shm_release(region);
    assert_int_equal(add("all", "my.data", 0, 100), WEIR_OK);
    assert_int_equal(hold("all", 10, 4, &region), WEIR_OK);
    assert_int_equal(shm_read(region, 10, bytes, 4, NULL), WEIR_OK);
    assert_memory_equal(bytes, "abcd", 4);
    assert_int_equal(shm_read(region, 14, bytes, 1, NULL), WEIR_OK);
    assert_int_equal(bytes[0], 14);
    shm_release(region);
}

static void test_ranges(void **state)
{
    (void)state;
    struct shm_region *region;
    assert_int_equal(add("r", "my.data", 0, 101), WEIR_EINVAL);
    assert_int_equal(add("r", "my.data", 1, 100), WEIR_EINVAL);
    assert_int_equal(add("r", "my.data", 100, 1), WEIR_EINVAL);
    assert_int_equal(add("r", "my.data", UINT64_MAX, 1), WEIR_EINVAL);
    assert_int_equal(add("r", "my.data", UINT64_MAX, 2), WEIR_EINVAL);
    assert_int_equal(add("r", "my.data", 1, UINT64_MAX), WEIR_EINVAL);
    assert_int_equal(add("r", "my.data", INT64_MAX, 1), WEIR_EINVAL);
    assert_int_equal(add("r", "my.data", 0, 0), WEIR_EINVAL);
    assert_int_equal(add("r", "my.data", 50, 50), WEIR_OK);
    static const uint64_t wrong[][2] = { { 0, 51 },         { 50, 1 },         { 51, 0 },
                                         { 1, UINT64_MAX }, { UINT64_MAX, 1 }, { UINT64_MAX, 51 } };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(hold("r", wrong[i][0], wrong[i][1], &region), WEIR_EINVAL);
    }
    assert_int_equal(hold("r", 50, 0, &region), WEIR_OK);
    shm_release(region);
    assert_int_equal(hold("s", 0, 1, &region), WEIR_EINVAL);
}

static void test_keys_are_names(void **state)
{
    (void)state;
    char longest[300];
    memset(longest, 'x', sizeof(longest));
    memcpy(longest, "my.", 3);
    longest[256] = '\0';
    static const char *const wrong[] = { "",
                                         "/",
                                         ".",
                                         "..",
                                         "/../etc/passwd",
                                         "//my.data",
                                         "my.data/",
                                         "my./data",
                                         "../my.data",
                                         ".my.data",
                                         "my.\n",
                                         "my.\\x",
                                         "my. x",
                                         "sem.x",
                                         "weir-test",
                                         "my.\x7f",
                                         "triton_python_backend_shm_region_0" };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(add("r", wrong[i], 0, 1), WEIR_EINVAL);
    }
    assert_int_equal(add("r", longest, 0, 1), WEIR_EINVAL);
    assert_int_equal(
        shm_register(shm, bytes_of("r"), (struct bytes){ "my.data\0x", 9 }, 0, 1, -1, NULL),
        WEIR_EINVAL);
    put("other", 10);
    assert_int_equal(add("r", "other", 0, 1), WEIR_EFORBIDDEN);
    assert_int_equal(add("r", "my.nothing", 0, 1), WEIR_EINVAL);
    assert_int_equal(add("", "my.data", 0, 1), WEIR_EINVAL);
    assert_int_equal(add("a\nb", "my.data", 0, 1), WEIR_EINVAL);
}

static void test_only_objects_of_their_own(void **state)
{
    (void)state;
    char path[128];
    char target[128];
    path_of("my.link", path, sizeof(path));
    path_of("my.data", target, sizeof(target));
    assert_int_equal(symlink(target, path), 0);
    assert_int_equal(add("r", "my.link", 0, 1), WEIR_EINVAL);
    path_of("my.pipe", path, sizeof(path));
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(add("r", "my.pipe", 0, 1), WEIR_EFORBIDDEN);
    path_of("my.folder", path, sizeof(path));
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(add("r", "my.folder", 0, 1), WEIR_EINVAL);
    path_of("my.hard", path, sizeof(path));
    assert_int_equal(link(target, path), 0);
    assert_int_equal(add("r", "my.hard", 0, 1), WEIR_EFORBIDDEN);
    assert_int_equal(add("r", "my.data", 0, 1), WEIR_EFORBIDDEN); /* It has two names now. */
}

static void test_another_users_object(void **state)
{
    (void)state;
    const struct bytes name = BYTES_LITERAL("r");
    const struct bytes key = BYTES_LITERAL("my.data");
    const int64_t me = getuid();
    assert_int_equal(shm_register(shm, name, key, 0, 1, me + 1, NULL), WEIR_EFORBIDDEN);
    assert_int_equal(shm_register(shm, name, key, 0, 1, me, NULL), WEIR_OK);
}

static void test_a_shorter_object_fails_and_stays_short(void **state)
{
    (void)state;
    struct shm_region *region;
    uint8_t bytes[100] = { 0 };
    assert_int_equal(add("r", "my.data", 0, 100), WEIR_OK);
    assert_int_equal(hold("r", 0, 100, &region), WEIR_OK);
    cut("my.data", 60);
    assert_int_equal(shm_read(region, 0, bytes, 100, NULL), WEIR_EINVAL);
    assert_int_equal(shm_read(region, 0, bytes, 60, NULL), WEIR_OK);
    assert_int_equal(shm_write(region, 50, bytes, 11, NULL), WEIR_EINVAL);
    assert_int_equal(size_of("my.data"), 60);
    assert_int_equal(shm_write(region, 50, bytes, 10, NULL), WEIR_OK);
    drop("my.data"); /* It lives as long as somebody holds it. */
    assert_int_equal(shm_read(region, 0, bytes, 60, NULL), WEIR_OK);
    shm_release(region);
}

static void test_a_name_is_taken_once_and_free_again(void **state)
{
    (void)state;
    struct shm_region *region;
    struct shm_region *again;
    uint8_t byte = 0;
    assert_int_equal(add("r", "my.data", 0, 10), WEIR_OK);
    assert_int_equal(add("r", "my.data", 0, 10), WEIR_EINVAL);
    assert_int_equal(hold("r", 5, 1, &region), WEIR_OK);
    shm_unregister(shm, bytes_of("r"));
    shm_unregister(shm, bytes_of("r"));
    assert_int_equal(hold("r", 5, 1, &again), WEIR_EINVAL);
    assert_int_equal(add("r", "my.data", 50, 10), WEIR_OK);
    assert_int_equal(shm_read(region, 5, &byte, 1, NULL), WEIR_OK);
    assert_int_equal(byte, 5); /* The one that was held is the old one. */
    assert_int_equal(hold("r", 5, 1, &again), WEIR_OK);
    assert_int_equal(shm_read(again, 5, &byte, 1, NULL), WEIR_OK);
    assert_int_equal(byte, 55);
    shm_release(region);
    shm_release(again);
}

static void note(void *context, const struct shm_info *info)
{
    char *out = context;
    (void)sprintf(out + strlen(out), "%s=%s+%llu:%llu ", info->name, info->key,
                  (unsigned long long)info->offset, (unsigned long long)info->size);
}

static void test_walks(void **state)
{
    (void)state;
    char text[256] = "";
    const struct bytes all = { NULL, 0 };
    assert_int_equal(shm_walk(shm, all, note, text), 0);
    assert_int_equal(add("a", "/my.data", 1, 2), WEIR_OK);
    assert_int_equal(add("b", "my.data", 3, 4), WEIR_OK);
    assert_int_equal(shm_walk(shm, bytes_of("b"), note, text), 1);
    assert_string_equal(text, "b=my.data+3:4 ");
    assert_int_equal(shm_walk(shm, bytes_of("c"), note, text), 0);
    text[0] = '\0';
    assert_int_equal(shm_walk(shm, all, note, text), 2);
    assert_non_null(strstr(text, "a=/my.data+1:2 "));
    shm_unregister_all(shm);
    assert_int_equal(shm_walk(shm, all, note, text), 0);
}

static void test_limits(void **state)
{
    (void)state;
    limits.shared_regions_max = 2;
    limits.shared_bytes_max = 100;
    assert_int_equal(add("a", "my.data", 0, 60), WEIR_OK);
    assert_int_equal(add("b", "my.data", 0, 41), WEIR_EFULL);
    assert_int_equal(add("b", "my.data", 0, 40), WEIR_OK);
    shm_unregister(shm, bytes_of("a"));
    assert_int_equal(add("c", "my.data", 0, 60), WEIR_OK);
    limits.shared_bytes_max = 1000;
    assert_int_equal(add("d", "my.data", 0, 1), WEIR_EFULL);
    limits.shared_regions_max = 3;
    limits.shared_bytes_max = 99; /* Less than there is. */
    assert_int_equal(add("d", "my.data", 0, 1), WEIR_EFULL);
    limits.bodies_bytes_max = 100;
    assert_int_equal(shm_book(shm, 60, NULL), WEIR_OK);
    assert_int_equal(shm_book(shm, 41, NULL), WEIR_EFULL);
    assert_int_equal(shm_book(shm, UINT64_MAX, NULL), WEIR_EFULL);
    assert_int_equal(shm_book(shm, 40, NULL), WEIR_OK);
    const struct shm_totals totals = shm_total(shm);
    assert_int_equal(totals.regions, 2);
    assert_int_equal(totals.bytes, 100);
    assert_int_equal(totals.booked, 100);
    shm_unbook(shm, 100);
    assert_int_equal(shm_book(shm, 100, NULL), WEIR_OK);
    shm_unbook(shm, 100);
}

static void test_any_prefix(void **state)
{
    (void)state;
    struct shm *open;
    assert_int_equal(shm_create(folder, "*", &limits, &open, NULL), WEIR_OK);
    put("other", 10);
    assert_int_equal(shm_register(open, bytes_of("r"), bytes_of("other"), 0, 10, -1, NULL),
                     WEIR_OK);
    assert_int_equal(shm_register(open, bytes_of("s"), bytes_of("sem.x"), 0, 10, -1, NULL),
                     WEIR_EINVAL);
    shm_destroy(open);
    struct weir_err err = { 0 };
    assert_int_equal(shm_create("/nowhere", "*", &limits, &open, &err), WEIR_EIO);
    assert_non_null(strstr(err.text, "/nowhere"));
}

#define ROUNDS 3000

static void *come_and_go(void *argument)
{
    (void)argument;
    for (int i = 0; i < ROUNDS; i++) {
        (void)add("r", "my.data", 0, 100);
        shm_unregister(shm, bytes_of("r"));
    }
    return NULL;
}

static void *use(void *argument)
{
    _Atomic bool *wrong = argument;
    for (int i = 0; i < ROUNDS; i++) {
        struct shm_region *region;
        uint8_t byte = 0;
        if (hold("r", 7, 1, &region) == WEIR_OK) {
            if (shm_read(region, 7, &byte, 1, NULL) != WEIR_OK || byte != 7) {
                *wrong = true;
            }
            shm_release(region);
        }
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    _Atomic bool wrong = false;
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, i < 2 ? come_and_go : use, &wrong), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_false(wrong);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_reads_and_writes_its_range),
        TEST(test_ranges),
        TEST(test_keys_are_names),
        TEST(test_only_objects_of_their_own),
        TEST(test_another_users_object),
        TEST(test_a_shorter_object_fails_and_stays_short),
        TEST(test_a_name_is_taken_once_and_free_again),
        TEST(test_walks),
        TEST(test_limits),
        TEST(test_any_prefix),
        TEST(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
