/*
 * Why not fork the server: it has threads, and a fork of it would have their locks.  Why not start
 * each process as a program: the runtime's library is large, and linking it takes longer than
 * loading most models.
 */
#include "backend/process_child.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/process_memory.h"
#include "backend/process_message.h"
#include "util/sandbox.h"

struct zygote {
    int deaths; /* Readable when a process has ended. */
    struct buffer message;
};

static void start_process(struct zygote *zygote, int fds[PROCESS_FDS_MAX])
{
    struct process_area page = { 0 };
    const pid_t self = getpid();
    if (fds[0] < 0 ||
        process_area_map(&page, sizeof(struct process_page), fds[1], NULL) != WEIR_OK) {
        return;
    }
    fds[1] = -1; /* Taken. */
    const pid_t pid = fork();
    if (pid == 0) {
        (void)close(zygote->deaths);
        (void)close(PROCESS_ZYGOTE_SOCKET);
        process_child(fds[0], (struct process_page *)(void *)page.data, self);
    }
    process_area_finish(&page);
    const int handle = pid < 0 ? -1 : (int)syscall(SYS_pidfd_open, pid, 0);
    buffer_clear(&zygote->message);
    message_u64(&zygote->message, MESSAGE_FORKED);
    message_u64(&zygote->message, pid < 0 ? 0 : (uint64_t)pid);
    (void)!message_send(PROCESS_ZYGOTE_SOCKET, &zygote->message, &handle, handle < 0 ? 0 : 1);
    if (handle >= 0) {
        (void)close(handle);
    }
}

static void tell_deaths(struct zygote *zygote)
{
    struct signalfd_siginfo ignored;
    (void)!read(zygote->deaths, &ignored, sizeof(ignored));
    int status;
    for (pid_t pid = waitpid(-1, &status, WNOHANG); pid > 0; pid = waitpid(-1, &status, WNOHANG)) {
        buffer_clear(&zygote->message);
        message_u64(&zygote->message, MESSAGE_EXITED);
        message_u64(&zygote->message, (uint64_t)pid);
        message_u64(&zygote->message, (uint64_t)(unsigned)status);
        (void)!message_send(PROCESS_ZYGOTE_SOCKET, &zygote->message, NULL, 0);
    }
}

/* False when the server is gone. */
static bool obey(struct zygote *zygote)
{
    int fds[PROCESS_FDS_MAX];
    if (message_receive(PROCESS_ZYGOTE_SOCKET, &zygote->message, fds) != WEIR_OK) {
        return false;
    }
    struct message_reader reader = message_read(&zygote->message);
    if (message_get_u64(&reader) == MESSAGE_FORK) {
        start_process(zygote, fds);
    }
    message_close(fds);
    return true;
}

/* What ends a server from outside is the server's business: it lets its processes finish. */
static void block_signals(sigset_t *deaths)
{
    sigset_t blocked;
    sigemptyset(deaths);
    sigaddset(deaths, SIGCHLD);
    sigemptyset(&blocked);
    static const int signals[] = { SIGCHLD, SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2 };
    for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++) {
        sigaddset(&blocked, signals[i]);
    }
    (void)sigprocmask(SIG_SETMASK, &blocked, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
}

int process_zygote(void)
{
    /* The socket tells whether the server ended before this took effect. */
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)prctl(PR_SET_NAME, "weir-zygote");
    struct zygote zygote = { .deaths = -1 };
    sigset_t deaths;
    sandbox_sweep();
    block_signals(&deaths);
    const bool has_room = message_room(&zygote.message) == WEIR_OK;
    zygote.deaths = signalfd(-1, &deaths, SFD_CLOEXEC | SFD_NONBLOCK);
    struct pollfd looks[] = {
        { .fd = PROCESS_ZYGOTE_SOCKET, .events = POLLIN },
        { .fd = zygote.deaths, .events = POLLIN },
    };
    bool serving = has_room && zygote.deaths >= 0;
    while (serving && (poll(looks, 2, -1) > 0 || errno == EINTR)) {
        if (looks[1].revents != 0) {
            tell_deaths(&zygote);
        }
        serving = looks[0].revents == 0 || obey(&zygote);
    }
    buffer_finish(&zygote.message);
    return serving ? EXIT_FAILURE : EXIT_SUCCESS;
}
