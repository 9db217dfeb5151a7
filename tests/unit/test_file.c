/*
 * file: nothing outside the root is reached, by either way of opening; whole reads and writes;
 * listings in order; fingerprints that notice edits.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/file.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static char base[] = "/tmp/weir-test-file-XXXXXX";
static char root[64];
static int root_fd = -1;

static void put(const char *path, const char *text)
{
    char full[256];
    (void)snprintf(full, sizeof full, "%s/%s", base, path);
    FILE *file = fopen(full, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
}

static void make_folder(const char *path)
{
    char full[256];
    (void)snprintf(full, sizeof full, "%s/%s", base, path);
    assert_int_equal(mkdir(full, 0777), 0);
}

static void make_link(const char *target, const char *path)
{
    char full[256];
    (void)snprintf(full, sizeof full, "%s/%s", base, path);
    assert_int_equal(symlink(target, full), 0);
}

static int set_up(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(base));
    make_folder("root");
    make_folder("root/model");
    make_folder("root/model/1");
    put("outside.txt", "secret");
    put("root/a.txt", "alpha");
    put("root/empty.txt", "");
    put("root/model/1/model.onnx", "weights");
    make_link("../outside.txt", "root/leaving");
    make_link("/etc/passwd", "root/absolute");
    make_link("model/1", "root/inside");
    make_link("loop", "root/loop");
    (void)snprintf(root, sizeof root, "%s/root", base);
    char fifo[96];
    (void)snprintf(fifo, sizeof fifo, "%s/fifo", root);
    assert_int_equal(mkfifo(fifo, 0666), 0);
    root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(root_fd >= 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    (void)close(root_fd);
    const pid_t child = fork();
    if (child == 0) {
        (void)execlp("rm", "rm", "-rf", base, (char *)NULL);
        _exit(127);
    }
    int status;
    return waitpid(child, &status, 0) == child && status == 0 ? 0 : -1;
}

static enum weir_status try_open(const char *path, bool folder)
{
    int fd = -1;
    const enum weir_status status = file_open_beneath(root_fd, path, folder, &fd, NULL);
    if (status == WEIR_OK) {
        (void)close(fd);
    }
    return status;
}

struct attempt {
    const char *path;
    bool folder;
    enum weir_status by_kernel;
    enum weir_status by_steps;
};

static const struct attempt attempts[] = {
    { "a.txt", false, WEIR_OK, WEIR_OK },
    { "./model//1/model.onnx", false, WEIR_OK, WEIR_OK },
    { "model/1", true, WEIR_OK, WEIR_OK },
    { "model/1/", true, WEIR_OK, WEIR_OK },
    { ".", true, WEIR_OK, WEIR_OK },
    { "", true, WEIR_ENOENT, WEIR_ENOENT },
    { "model/../a.txt", false, WEIR_OK, WEIR_EINVAL },
    { "inside/model.onnx", false, WEIR_OK, WEIR_EINVAL },
    { "inside", true, WEIR_OK, WEIR_EINVAL },
    { "../outside.txt", false, WEIR_EINVAL, WEIR_EINVAL },
    { "model/../../outside.txt", false, WEIR_EINVAL, WEIR_EINVAL },
    { "..", true, WEIR_EINVAL, WEIR_EINVAL },
    { "/etc/passwd", false, WEIR_EINVAL, WEIR_EINVAL },
    { "leaving", false, WEIR_EINVAL, WEIR_EINVAL },
    { "absolute", false, WEIR_EINVAL, WEIR_EINVAL },
    { "loop", false, WEIR_EINVAL, WEIR_EINVAL },
    { "absent", false, WEIR_ENOENT, WEIR_ENOENT },
    { "absent/a.txt", false, WEIR_ENOENT, WEIR_ENOENT },
    { "a.txt/b", false, WEIR_ENOENT, WEIR_ENOENT },
    { "a.txt", true, WEIR_ENOENT, WEIR_ENOENT },
    { "model", false, WEIR_EINVAL, WEIR_EINVAL },
    { "fifo", false, WEIR_EINVAL, WEIR_EINVAL },
};

/* Emulators and sandboxes may lack it; then the other way is all there is to test. */
static bool has_openat2(void)
{
    const long answer = syscall(SYS_openat2, -1, NULL, NULL, 0);
    return answer >= 0 || (errno != ENOSYS && errno != EPERM);
}

static void test_opens_only_beneath(void **state)
{
    (void)state;
    const bool kernel = has_openat2();
    for (size_t i = 0; i < COUNT_OF(attempts); i++) {
        const struct attempt *attempt = &attempts[i];
        const enum weir_status status = try_open(attempt->path, attempt->folder);
        const enum weir_status expected = kernel ? attempt->by_kernel : attempt->by_steps;
        if (status != expected) {
            fail_msg("'%s' gave %d, expected %d", attempt->path, (int)status, (int)expected);
        }
    }
}

/* From here on the kernel answers openat2 with ENOSYS. */
static bool take_openat2_away(void)
{
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = { COUNT_OF(rules), rules };
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* The number of the attempt that went wrong plus one, 0 when none did. */
static int attempt_all_by_steps(void)
{
    for (size_t i = 0; i < COUNT_OF(attempts); i++) {
        if (try_open(attempts[i].path, attempts[i].folder) != attempts[i].by_steps) {
            return (int)i + 1;
        }
    }
    return 0;
}

static void test_opens_only_beneath_without_openat2(void **state)
{
    (void)state;
    enum { NO_SECCOMP = 200 };
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        _exit(take_openat2_away() ? attempt_all_by_steps() : NO_SECCOMP);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == NO_SECCOMP) {
        skip();
    }
    if (WEXITSTATUS(status) != 0) {
        fail_msg("'%s' went wrong", attempts[WEXITSTATUS(status) - 1].path);
    }
}

static void test_sentences(void **state)
{
    (void)state;
    int fd = -1;
    struct weir_err err;
    assert_int_equal(file_open_beneath(root_fd, "absent", false, &fd, &err), WEIR_ENOENT);
    assert_string_equal(err.text, "absent: no such file or folder");
    assert_int_equal(file_open_beneath(root_fd, "../x", false, &fd, &err), WEIR_EINVAL);
    assert_string_equal(err.text, "../x: leads out of its root, expected to stay beneath it");
    assert_int_equal(file_open_beneath(root_fd, "model", false, &fd, &err), WEIR_EINVAL);
    assert_string_equal(err.text, "model: found a folder, expected a regular file");
    assert_int_equal(fd, -1);
}

static void test_reads_whole_files(void **state)
{
    (void)state;
    struct buffer out;
    assert_int_equal(file_read(root_fd, "a.txt", 5, &out, NULL), WEIR_OK);
    assert_int_equal(out.size, 5);
    assert_memory_equal(out.data, "alpha", 5);
    buffer_finish(&out);
    assert_int_equal(file_read(root_fd, "empty.txt", 0, &out, NULL), WEIR_OK);
    assert_int_equal(out.size, 0);
    buffer_finish(&out);
    struct weir_err err;
    assert_int_equal(file_read(root_fd, "a.txt", 4, &out, &err), WEIR_ETOOBIG);
    assert_string_equal(err.text, "a.txt: found more than 4 B, expected at most that");
    assert_int_equal(out.size, 0);
    buffer_finish(&out);
    assert_int_equal(file_read(root_fd, "absent", 4, &out, NULL), WEIR_ENOENT);
    buffer_finish(&out);
    /* A file that claims to be empty, by a path of its own. */
    assert_int_equal(file_read(AT_FDCWD, "/proc/self/status", 1 << 20, &out, NULL), WEIR_OK);
    assert_true(out.size > 100);
    buffer_finish(&out);
    assert_int_equal(file_read(AT_FDCWD, "/proc/self/status", 100, &out, NULL), WEIR_ETOOBIG);
    buffer_finish(&out);
}

static void test_maps_files(void **state)
{
    (void)state;
    struct file_map map = { 0 };
    assert_int_equal(file_map_open(root_fd, "model/1/model.onnx", &map, NULL), WEIR_OK);
    assert_int_equal(map.size, 7);
    assert_memory_equal(map.data, "weights", 7);
    file_map_close(&map);
    assert_null(map.data);
    file_map_close(&map);
    assert_int_equal(file_map_open(root_fd, "empty.txt", &map, NULL), WEIR_OK);
    assert_null(map.data);
    assert_int_equal(map.size, 0);
    assert_int_equal(file_map_open(root_fd, "fifo", &map, NULL), WEIR_EINVAL);
}

static void read_back(const char *path, const char *text)
{
    struct buffer out;
    assert_int_equal(file_read(AT_FDCWD, path, 1000, &out, NULL), WEIR_OK);
    assert_int_equal(out.size, strlen(text));
    assert_memory_equal(out.data, text, out.size);
    buffer_finish(&out);
}

static enum weir_status count_entry(void *context, const char *name, bool folder)
{
    (void)name;
    (void)folder;
    *(int *)context += 1;
    return WEIR_OK;
}

static void test_writes_files(void **state)
{
    (void)state;
    make_folder("written");
    char path[128];
    char link[128];
    (void)snprintf(path, sizeof path, "%s/written/out.bin", base);
    (void)snprintf(link, sizeof link, "%s/written/link", base);
    assert_int_equal(file_write(path, "first", 5, NULL), WEIR_OK);
    read_back(path, "first");
    assert_int_equal(file_write(path, "2nd", 3, NULL), WEIR_OK);
    read_back(path, "2nd");
    assert_int_equal(file_write(path, NULL, 0, NULL), WEIR_OK);
    read_back(path, "");
    assert_int_equal(symlink("out.bin", link), 0);
    assert_int_equal(file_write(link, "through", 7, NULL), WEIR_OK);
    read_back(path, "through");
    struct stat info;
    assert_int_equal(lstat(link, &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_int_equal(file_write("/dev/null", "gone", 4, NULL), WEIR_OK);
    assert_int_equal(lstat("/dev/null", &info), 0);
    assert_true(S_ISCHR(info.st_mode));
    assert_int_equal(file_write("/absent-folder/out", "x", 1, NULL), WEIR_ENOENT);
    (void)snprintf(path, sizeof path, "%s/written", base);
    assert_int_equal(file_write(path, "x", 1, NULL), WEIR_EIO);
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int count = 0;
    assert_int_equal(file_list(fd, count_entry, &count, NULL), WEIR_OK);
    assert_int_equal(count, 2); /* No temporary file is left. */
    (void)close(fd);
}

static enum weir_status note_entry(void *context, const char *name, bool folder)
{
    char *text = context;
    (void)strcat(strcat(text, name), folder ? "/ " : " ");
    return strcmp(name, "inside") == 0 ? WEIR_ECANCELED : WEIR_OK;
}

static void test_lists_in_order(void **state)
{
    (void)state;
    char text[256] = "";
    assert_int_equal(file_list(root_fd, note_entry, text, NULL), WEIR_ECANCELED);
    assert_string_equal(text, "a.txt absolute empty.txt fifo inside/ ");
    /* Twice: the caller's descriptor has not moved. */
    text[0] = '\0';
    assert_int_equal(file_list(root_fd, note_entry, text, NULL), WEIR_ECANCELED);
    assert_string_equal(text, "a.txt absolute empty.txt fifo inside/ ");
}

static uint64_t fingerprint(void)
{
    uint64_t value = 0;
    uint64_t bytes = 0;
    struct weir_err err = { 0 };
    const enum weir_status status = file_fingerprint(root_fd, &value, &bytes, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(status, WEIR_OK);
    return value;
}

static void test_fingerprint_notices_edits(void **state)
{
    (void)state;
    const uint64_t before = fingerprint();
    assert_true(fingerprint() == before);
    put("root/model/1/model.onnx", "weightS!");
    const uint64_t resized = fingerprint();
    assert_true(resized != before);
    char full[256];
    (void)snprintf(full, sizeof full, "%s/a.txt", root);
    assert_int_equal(chmod(full, 0600), 0); /* Moves the change time even within one clock tick. */
    const struct timespec past[2] = { { .tv_sec = 1 }, { .tv_sec = 1 } };
    assert_int_equal(utimensat(root_fd, "a.txt", past, 0), 0);
    const uint64_t touched = fingerprint();
    assert_true(touched != resized);
    make_folder("root/model/2");
    const uint64_t added = fingerprint();
    assert_true(added != touched);
    assert_int_equal(unlinkat(root_fd, "model/2", AT_REMOVEDIR), 0);
    assert_true(fingerprint() == touched);
}

static void test_fingerprint_is_limited(void **state)
{
    (void)state;
    make_folder("deep");
    char path[128] = "deep";
    for (int i = 0; i < 8; i++) {
        (void)strcat(path, "/d");
        make_folder(path);
    }
    char full[128];
    (void)snprintf(full, sizeof full, "%s/deep", base);
    const int outer = open(full, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const int inner = openat(outer, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    uint64_t value = 7;
    uint64_t bytes;
    assert_int_equal(file_fingerprint(outer, &value, &bytes, NULL), WEIR_ETOOBIG);
    assert_int_equal(value, 7);
    assert_int_equal(file_fingerprint(inner, &value, &bytes, NULL), WEIR_OK);
    (void)close(inner);
    (void)close(outer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opens_only_beneath),
        cmocka_unit_test(test_opens_only_beneath_without_openat2),
        cmocka_unit_test(test_sentences),
        cmocka_unit_test(test_reads_whole_files),
        cmocka_unit_test(test_maps_files),
        cmocka_unit_test(test_writes_files),
        cmocka_unit_test(test_lists_in_order),
        cmocka_unit_test(test_fingerprint_notices_edits),
        cmocka_unit_test(test_fingerprint_is_limited),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
