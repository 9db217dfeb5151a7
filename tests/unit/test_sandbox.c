/*
 * Real children enter a sandbox and try what it forbids.  What such a child finds is told by its
 * exit code: nothing in it may assert, as cmocka would carry on in the child.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "loaded.h"
#include "util/sandbox.h"

#define MIB ((size_t)1 << 20)

/* A folder that may be read, with "in", a link "out" that leads away, and "/tmp/.../beside". */
struct scene {
    char root[64];
    char folder[80];
    int folder_fd;
    struct sandbox wanted;
    struct sandbox_report report;
};

/* Exit codes of children. */
enum {
    HELD = 0,      /* As it should be. */
    NO_LAYER = 77, /* The layer that is tested cannot be had here. */
    NO_ENTRY = 78, /* sandbox_enter() failed. */
    BROKEN = 79,   /* Something was possible that must not be, or the reverse. */
};

static void put_file(const char *folder, const char *name, mode_t mode)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "text", 4), 4);
    close(fd);
}

static int make_scene(void **state)
{
    static struct scene scene;
    memset(&scene, 0, sizeof(scene));
    (void)snprintf(scene.root, sizeof(scene.root), "/tmp/weir-test-XXXXXX");
    assert_non_null(mkdtemp(scene.root)); /* Mode 0700, so nobody could not even enter it. */
    (void)snprintf(scene.folder, sizeof(scene.folder), "%s/model", scene.root);
    assert_int_equal(mkdir(scene.folder, 0700), 0);
    put_file(scene.folder, "in", 0600);
    put_file(scene.root, "beside", 0644);
    scene.folder_fd = open(scene.folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_true(scene.folder_fd >= 0);
    assert_int_equal(symlinkat("../beside", scene.folder_fd, "out"), 0);
    scene.wanted.readable = &scene.folder_fd;
    scene.wanted.readable_count = 1;
    *state = &scene;
    return 0;
}

static int clear_scene(void **state)
{
    struct scene *scene = *state;
    (void)unlinkat(scene->folder_fd, "in", 0);
    (void)unlinkat(scene->folder_fd, "out", 0);
    close(scene->folder_fd);
    (void)rmdir(scene->folder);
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/beside", scene->root);
    (void)unlink(path);
    return rmdir(scene->root);
}

typedef bool deed_fn(struct scene *scene);

static int be_child(struct scene *scene, enum sandbox_layer layer, deed_fn *deed)
{
    struct weir_err err = { 0 };
    scene->wanted.parent = getppid();
    if (sandbox_enter(&scene->wanted, &scene->report, &err) != WEIR_OK) {
        (void)fprintf(stderr, "%s\n", err.text);
        return NO_ENTRY;
    }
    if (!scene->report.layers[layer].in_force) {
        return NO_LAYER;
    }
    return deed(scene) ? HELD : BROKEN;
}

/* How the child that does `deed` ended, as waitpid() tells. */
static int end_of(struct scene *scene, enum sandbox_layer layer, deed_fn *deed)
{
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        _exit(be_child(scene, layer, deed));
    }
    int ended;
    assert_int_equal(waitpid(child, &ended, 0), child);
    (void)sandbox_bury(child);
    if (WIFEXITED(ended) && WEXITSTATUS(ended) == NO_LAYER) {
        skip();
    }
    return ended;
}

static void expect_held(struct scene *scene, enum sandbox_layer layer, deed_fn *deed)
{
    const int ended = end_of(scene, layer, deed);
    assert_true(WIFEXITED(ended));
    assert_int_equal(WEXITSTATUS(ended), HELD);
}

static void expect_killed(struct scene *scene, deed_fn *deed)
{
    const int ended = end_of(scene, SANDBOX_CALLS, deed);
    assert_true(WIFSIGNALED(ended));
    assert_int_equal(WTERMSIG(ended), SIGSYS);
}

static bool closes(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
    return fd >= 0;
}

/* --- Files ------------------------------------------------------------------------------------ */

static bool reads_its_folder(struct scene *scene)
{
    char text[4];
    const int fd = openat(scene->folder_fd, "in", O_RDONLY);
    return fd >= 0 && read(fd, text, 4) == 4 && closes(fd);
}

static bool reads_nothing_else(struct scene *scene)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/beside", scene->root);
    const char *const away[] = { path, "/etc/passwd", "/proc/self/environ", "/proc/1/cmdline",
                                 "/proc/self/mem" };
    for (size_t i = 0; i < sizeof(away) / sizeof(away[0]); i++) {
        if (closes(open(away[i], O_RDONLY)) || errno != EACCES) {
            return false;
        }
    }
    return !closes(openat(scene->folder_fd, "out", O_RDONLY)) &&
           !closes(openat(scene->folder_fd, "../beside", O_RDONLY)) &&
           !closes(openat(scene->folder_fd, "..", O_RDONLY | O_DIRECTORY)) &&
           !closes(open("/", O_RDONLY | O_DIRECTORY));
}

static bool writes_nothing(struct scene *scene)
{
    return !closes(openat(scene->folder_fd, "in", O_RDWR)) &&
           !closes(openat(scene->folder_fd, "in", O_RDONLY | O_TRUNC)) &&
           !closes(openat(scene->folder_fd, "new", O_WRONLY | O_CREAT, 0600)) &&
           !closes(openat(scene->folder_fd, ".", O_TMPFILE | O_WRONLY, 0600)) &&
           !closes(open("/dev/null", O_WRONLY)) && unlinkat(scene->folder_fd, "in", 0) != 0 &&
           renameat(scene->folder_fd, "in", scene->folder_fd, "on") != 0 &&
           mkdirat(scene->folder_fd, "new", 0700) != 0 && chmod("/tmp", 0777) != 0 &&
           symlinkat("in", scene->folder_fd, "new") != 0;
}

static void test_reads_its_folder_and_nothing_else(void **state)
{
    expect_held(*state, SANDBOX_LIFE, reads_its_folder);
    expect_held(*state, SANDBOX_FILES, reads_nothing_else);
}

static void test_writes_nothing(void **state)
{
    expect_held(*state, SANDBOX_CALLS, writes_nothing);
}

static bool reads_libraries(struct scene *scene)
{
    (void)scene;
    return closes(open("/etc/ld.so.cache", O_RDONLY));
}

static bool reads_no_libraries(struct scene *scene)
{
    return !reads_libraries(scene);
}

static void test_libraries_only_where_wanted(void **state)
{
    struct scene *scene = *state;
    expect_held(scene, SANDBOX_FILES, reads_no_libraries);
    scene->wanted.libraries = true;
    expect_held(scene, SANDBOX_FILES, reads_libraries);
}

/* --- Network ---------------------------------------------------------------------------------- */

static int listening = -1;
static int unconnected = -1;
static struct sockaddr_in listener;

static void listen_here(void)
{
    socklen_t size = sizeof(listener);
    listener = (struct sockaddr_in){ .sin_family = AF_INET };
    listener.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unconnected = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(listening >= 0 && unconnected >= 0);
    assert_int_equal(bind(listening, (struct sockaddr *)&listener, sizeof(listener)), 0);
    assert_int_equal(getsockname(listening, (struct sockaddr *)&listener, &size), 0);
    assert_int_equal(listen(listening, 1), 0);
}

static bool makes_no_sockets(struct scene *scene)
{
    static const int families[] = { AF_INET, AF_INET6, AF_UNIX, AF_NETLINK, AF_PACKET, AF_VSOCK };
    (void)scene;
    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
        if (closes(socket(families[i], SOCK_STREAM, 0)) || errno != EACCES) {
            return false;
        }
    }
    int pair[2];
    return socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) != 0;
}

static bool connects_nowhere(struct scene *scene)
{
    (void)scene;
    struct sockaddr *there = (struct sockaddr *)&listener;
    char letter[] = "x";
    struct iovec byte = { letter, 1 };
    const struct msghdr message = { there, sizeof(listener), &byte, 1, NULL, 0, 0 };
    return connect(unconnected, there, sizeof(listener)) != 0 && errno == EACCES &&
           sendto(unconnected, "x", 1, MSG_FASTOPEN | MSG_NOSIGNAL, there, sizeof(listener)) < 0 &&
           sendmsg(unconnected, &message, MSG_FASTOPEN | MSG_NOSIGNAL) < 0 &&
           bind(unconnected, there, sizeof(listener)) != 0 && accept(listening, NULL, NULL) < 0;
}

static void test_no_network(void **state)
{
    listen_here();
    expect_held(*state, SANDBOX_CALLS, makes_no_sockets);
    expect_held(*state, SANDBOX_CALLS, connects_nowhere);
    close(listening);
    close(unconnected);
}

/* --- What kills ------------------------------------------------------------------------------- */

static bool forks(struct scene *scene)
{
    (void)scene;
    const pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (child == 0) {
        _exit(0);
    }
    return true;
}

static bool starts_a_program(struct scene *scene)
{
    (void)scene;
    (void)execl("/bin/true", "true", (char *)NULL);
    return true;
}

static bool traces(struct scene *scene)
{
    (void)scene;
    (void)ptrace(PTRACE_ATTACH, getppid(), NULL, NULL);
    return true;
}

static bool mounts(struct scene *scene)
{
    (void)mount("none", scene->folder, "tmpfs", 0, NULL);
    return true;
}

static bool takes_a_namespace(struct scene *scene)
{
    (void)scene;
    (void)unshare(CLONE_NEWUSER);
    return true;
}

static bool becomes_root(struct scene *scene)
{
    (void)scene;
    (void)syscall(SYS_setuid, 0);
    return true;
}

static bool reads_the_parent(struct scene *scene)
{
    (void)scene;
    (void)syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0);
    return true;
}

static void test_what_only_hijacked_code_asks_for_is_fatal(void **state)
{
    deed_fn *const deeds[] = { forks,        starts_a_program, traces, mounts, takes_a_namespace,
                               becomes_root, reads_the_parent };
    for (size_t i = 0; i < sizeof(deeds) / sizeof(deeds[0]); i++) {
        expect_killed(*state, deeds[i]);
    }
}

/* --- What is refused, and what goes on working ------------------------------------------------ */

static bool refuses_softly(struct scene *scene)
{
    (void)scene;
    const bool unknown = syscall(9999) == -1 && errno == ENOSYS;
    const bool signals = kill(getppid(), 0) == -1 && errno == EPERM;
    const bool names = prctl(PR_SET_DUMPABLE, 1) == -1 && errno == EPERM;
    const bool limits = setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 }) == -1 && errno == EPERM;
    const bool types = ioctl(0, TIOCSTI, "x") == -1 && errno == ENOTTY;
    return unknown && signals && names && limits && types;
}

static void *say_hello(void *out)
{
    *(bool *)out = true;
    return NULL;
}

static bool has_threads_and_clocks(struct scene *scene)
{
    (void)scene;
    pthread_t thread;
    bool ran = false;
    struct rlimit limit;
    return pthread_create(&thread, NULL, say_hello, &ran) == 0 && pthread_join(thread, NULL) == 0 &&
           ran && usleep(1) == 0 && getrlimit(RLIMIT_CORE, &limit) == 0 && limit.rlim_cur <= 1 &&
           kill(getpid(), 0) == 0;
}

static void test_what_is_unknown_is_refused_and_threads_work(void **state)
{
    expect_held(*state, SANDBOX_CALLS, refuses_softly);
    expect_held(*state, SANDBOX_CALLS, has_threads_and_clocks);
}

static bool has_few_descriptors(struct scene *scene)
{
    (void)scene;
    unsigned made = 0;
    while (dup(0) >= 0) {
        made++;
    }
    return errno == EMFILE && made < 40;
}

static void test_few_descriptors(void **state)
{
    struct scene *scene = *state;
    scene->wanted.files_max = 40;
    expect_held(scene, SANDBOX_LIFE, has_few_descriptors);
}

/* --- Privileges ------------------------------------------------------------------------------- */

static bool has_no_privileges(struct scene *scene)
{
    struct {
        uint32_t version;
        int pid;
    } head = { 0x20080522, 0 };
    uint32_t data[6];
    (void)scene;
    /* CAP_DAC_READ_SEARCH, number 2, is what Landlock makes harmless. */
    const bool asked = syscall(SYS_capget, &head, data) == 0;
    return getuid() != 0 && getgid() != 0 && (!asked || ((data[0] & ~4U) == 0 && data[3] == 0));
}

static bool is_user_1234(struct scene *scene)
{
    (void)scene;
    return getuid() == 1234 && geteuid() == 1234 && getgid() == 4321;
}

static void test_no_privileges(void **state)
{
    struct scene *scene = *state;
    expect_held(scene, SANDBOX_PRIVILEGES, has_no_privileges);
    if (geteuid() == 0) {
        scene->wanted.uid = 1234;
        scene->wanted.gid = 4321;
        expect_held(scene, SANDBOX_PRIVILEGES, is_user_1234);
    }
}

/* --- Memory ----------------------------------------------------------------------------------- */

static bool fill(size_t size)
{
    uint8_t *memory = malloc(size);
    if (memory == NULL) {
        return false;
    }
    for (size_t i = 0; i < size; i += 4096) {
        memory[i] = 1;
    }
    const bool kept = ((volatile uint8_t *)memory)[0] == 1;
    free(memory);
    return kept;
}

static bool stays_below(struct scene *scene)
{
    (void)scene;
    return fill(32 * MIB);
}

static bool passes_it(struct scene *scene)
{
    (void)scene;
    return !fill(256 * MIB);
}

static void test_memory_ends_at_its_limit(void **state)
{
    struct scene *scene = *state;
    scene->wanted.memory_max = 96 * MIB;
    expect_held(scene, SANDBOX_MEMORY, stays_below);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        _exit(be_child(scene, SANDBOX_MEMORY, passes_it));
    }
    int ended;
    assert_int_equal(waitpid(child, &ended, 0), child);
    const bool killed = sandbox_bury(child);
    assert_int_equal(killed, WIFSIGNALED(ended) && WTERMSIG(ended) == SIGKILL);
    assert_true(killed || (WIFEXITED(ended) && WEXITSTATUS(ended) == HELD));
    assert_false(sandbox_bury(child)); /* It left nothing. */
}

/* --- Life ------------------------------------------------------------------------------------- */

/* The middle process ends while its child sleeps in a sandbox; the pipe closes when that is
 * dead. */
static void be_middle(struct scene *scene, int out)
{
    int ready[2];
    char byte = 0;
    if (pipe(ready) != 0) {
        _exit(BROKEN);
    }
    const pid_t child = fork();
    if (child == 0) {
        struct weir_err err = { 0 };
        scene->wanted.parent = getppid();
        byte = sandbox_enter(&scene->wanted, &scene->report, &err) == WEIR_OK ? 'y' : 'n';
        (void)!write(ready[1], &byte, 1);
        for (;;) {
            (void)poll(NULL, 0, -1);
        }
    }
    (void)!read(ready[0], &byte, 1);
    (void)!write(out, &byte, 1);
    _exit(HELD);
}

static void test_dies_with_its_parent(void **state)
{
    int out[2];
    char byte = 0;
    assert_int_equal(pipe(out), 0);
    const pid_t middle = fork();
    assert_true(middle >= 0);
    if (middle == 0) {
        be_middle(*state, out[1]);
    }
    close(out[1]);
    assert_int_equal(waitpid(middle, NULL, 0), middle);
    assert_int_equal(read(out[0], &byte, 1), 1);
    assert_int_equal(byte, 'y');
    struct pollfd end = { .fd = out[0], .events = POLLIN };
    assert_int_equal(poll(&end, 1, 120000), 1);
    assert_int_equal(read(out[0], &byte, 1), 0);
    close(out[0]);
}

static void test_does_not_start_without_its_parent(void **state)
{
    struct scene *scene = *state;
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct weir_err err = { 0 };
        scene->wanted.parent = getpid(); /* Never its own parent. */
        const enum weir_status status = sandbox_enter(&scene->wanted, &scene->report, &err);
        _exit(status == WEIR_EIO && strstr(err.text, "parent") != NULL ? HELD : BROKEN);
    }
    int ended;
    assert_int_equal(waitpid(child, &ended, 0), child);
    assert_true(WIFEXITED(ended));
    assert_int_equal(WEXITSTATUS(ended), HELD);
}

/* --- The report, and a model ------------------------------------------------------------------ */

static bool tells_every_layer(struct scene *scene)
{
    static const char *const names[] = {
#define NAME(name, text) text ": ",
        SANDBOX_LAYERS(NAME)
#undef NAME
    };
    char text[SANDBOX_TEXT_BYTES];
    char cut[20];
    const char *at = sandbox_describe(&scene->report, text, sizeof(text));
    for (size_t i = 0; i < SANDBOX_LAYER_COUNT && at != NULL; i++) {
        at = strstr(at, names[i]);
        at = at == NULL || at[strlen(names[i])] == ';' ? NULL : at + 1;
    }
    (void)fprintf(stderr, "%s\n", text);
    return at != NULL && strlen(sandbox_describe(&scene->report, cut, sizeof(cut))) == 19;
}

static void test_tells_what_is_in_force(void **state)
{
    expect_held(*state, SANDBOX_LIFE, tells_every_layer);
}

/* Loads the model whose folder is open and runs it, with threads of its own. */
static bool runs_a_model(struct scene *scene)
{
    struct loaded l = { 0 };
    struct weir_err err = { 0 };
    struct backend_load how = how_for("external", scene->wanted.readable[0]);
    how.intra_threads = 2;
    if (backend_load(backend_find("onnxruntime"), &how, &l.model, &err) != WEIR_OK ||
        backend_context_create(l.model, &l.context, &err) != WEIR_OK) {
        (void)fprintf(stderr, "%s\n", err.text);
        return false;
    }
    const struct tensor_spec *takes = &backend_signature(l.model)->inputs[0];
    struct shape shape = takes->shape;
    uint64_t count = 1;
    for (uint32_t i = 0; i < shape.rank; i++) {
        shape.dims[i] = shape.dims[i] < 0 ? 1 : shape.dims[i];
        count *= (uint64_t)shape.dims[i];
    }
    _Alignas(64) static uint8_t data[65536];
    const struct tensor input =
        tensor_of(takes->dtype, shape, data, (size_t)count * dtype_size(takes->dtype));
    struct tensor output = { 0 };
    return run(&l, &input, &output, &err) == WEIR_OK && output.present;
}

static void test_a_model_loads_and_runs(void **state)
{
    struct scene *scene = *state;
    const int folder_fd = open_folder("external");
    scene->wanted.readable = &folder_fd;
    scene->wanted.memory_max = 512 * MIB;
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        _exit(be_child(scene, SANDBOX_LIFE, runs_a_model));
    }
    int ended;
    assert_int_equal(waitpid(child, &ended, 0), child);
    (void)sandbox_bury(child);
    close(folder_fd);
    assert_true(WIFEXITED(ended));
    assert_int_equal(WEXITSTATUS(ended), HELD);
}

#define IN_A_SCENE(test) cmocka_unit_test_setup_teardown(test, make_scene, clear_scene)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_SCENE(test_reads_its_folder_and_nothing_else),
        IN_A_SCENE(test_writes_nothing),
        IN_A_SCENE(test_libraries_only_where_wanted),
        IN_A_SCENE(test_no_network),
        IN_A_SCENE(test_what_only_hijacked_code_asks_for_is_fatal),
        IN_A_SCENE(test_what_is_unknown_is_refused_and_threads_work),
        IN_A_SCENE(test_few_descriptors),
        IN_A_SCENE(test_no_privileges),
        IN_A_SCENE(test_memory_ends_at_its_limit),
        IN_A_SCENE(test_dies_with_its_parent),
        IN_A_SCENE(test_does_not_start_without_its_parent),
        IN_A_SCENE(test_tells_what_is_in_force),
        IN_A_SCENE(test_a_model_loads_and_runs),
    };
    return cmocka_run_group_tests(tests, loaded_start, loaded_stop);
}
