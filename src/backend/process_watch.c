/*
 * Only the supervisor reads what the zygote says, and only it starts zygotes: a zygote dies with the
 * thread that started it.  Others hand it their wish for a process and wait.
 */
#include "backend/process_watch.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/process_child.h"
#include "util/err.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/sandbox.h"

#define PROGRAM_BYTES 4096
#define FROZEN_LOOKS 20 /* Of PROCESS_BEAT_NS without a heartbeat. */
#define WISH_ZYGOTES \
    4 /* That may end before a wish is given up: they are killed, or cannot start. */
#define END_NS (5 * NS_PER_S) /* How long a process has to end when it is let go or killed. */

extern char **environ;

/* A process that somebody waits for. */
struct wish {
    struct list_node node;
    struct process *process;
    int fds[2];       /* Its socket and its page; borrowed. */
    uint32_t zygotes; /* That ended with it. */
    bool sent;
    bool done;
};

static struct {
    pthread_once_t once;
    char program[PROGRAM_BYTES];
    struct clock clock;
    pthread_mutex_t lock; /* Guards what follows. */
    pthread_cond_t changed;
    bool running;
    bool stopping;
    pthread_t thread;
    int bell; /* eventfd: look again. */
    struct list wishes;
    struct list processes;
    pid_t zygote; /* 0: none. */
    int socket;
    struct buffer message; /* The supervisor's own. */
} watch = {
    .once = PTHREAD_ONCE_INIT, .program = "weir", .lock = PTHREAD_MUTEX_INITIALIZER, .bell = -1
};

static void init_once(void)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&watch.changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    clock_init(&watch.clock);
    list_init(&watch.wishes);
    list_init(&watch.processes);
}

void process_set_program(const char *path)
{
    (void)snprintf(watch.program, sizeof(watch.program), "%s", path);
}

static void ring(void)
{
    const uint64_t one = 1;
    (void)!write(watch.bell, &one, sizeof(one));
}

/* ---- How processes end --------------------------------------------------------------------------- */

static bool is_fault(int signal)
{
    return signal == SIGSEGV || signal == SIGBUS || signal == SIGILL || signal == SIGFPE ||
           signal == SIGABRT || signal == SIGSYS;
}

/* What the end says about the runs that were under way. */
static enum backend_death classify(const struct process *process, int status, bool out_of_memory)
{
    if (process->cause != DEATH_NONE) {
        return process->cause;
    }
    if (out_of_memory) {
        return DEATH_MEMORY;
    }
    return WIFSIGNALED(status) && is_fault(WTERMSIG(status)) ? DEATH_FAULT : DEATH_KILLED;
}

/* Lock held: true when the journal tells in whose run a fault happened. */
static bool is_marked(const struct process *process)
{
    bool marked = false;
    for (struct list_node *n = list_first(&process->channels); n != NULL;
         n = list_next(&process->channels, n)) {
        marked =
            marked || atomic_load(&list_entry(n, struct process_watched, node)->head->faulted) != 0;
    }
    return marked;
}

/* Lock held.  Those whose run it was not are not blamed. */
static void tell_channels(struct process *process, enum backend_death death)
{
    const bool marked = death == DEATH_FAULT && is_marked(process);
    for (struct list_node *n = list_first(&process->channels); n != NULL;
         n = list_next(&process->channels, n)) {
        struct process_watched *channel = list_entry(n, struct process_watched, node);
        const bool spared = atomic_load(&channel->begun_ns) == 0 ||
                            (marked && atomic_load(&channel->head->faulted) == 0) ||
                            (process->guilty != NULL && process->guilty != channel);
        atomic_store(&channel->death, (int)(spared ? DEATH_KILLED : death));
        atomic_store(&channel->head->turn, PROCESS_TURN_DEAD);
        process_wake(&channel->head->turn);
    }
}

static void write_end(struct process *process, int status, enum backend_death death)
{
    if (death != DEATH_FAULT && death != DEATH_KILLED) {
        (void)snprintf(process->end, sizeof(process->end), "it %s", backend_death_text(death));
    } else if (WIFSIGNALED(status)) {
        const char *name = sigdescr_np(WTERMSIG(status));
        (void)snprintf(process->end, sizeof(process->end), "signal %d (%s)", WTERMSIG(status),
                       name == NULL ? "unknown" : name);
    } else {
        (void)snprintf(process->end, sizeof(process->end), "exit code %d", WEXITSTATUS(status));
    }
}

/* Lock held. */
static void ended(struct process *process, int status)
{
    const enum backend_death death = classify(process, status, sandbox_bury(process->pid));
    write_end(process, status, death);
    const bool expected = atomic_load(&process->holders) == 0;
    log_event(expected ? LOG_DEBUG : LOG_WARNING, "model process ended",
              LOG_STR("model", process->label), LOG_I64("pid", process->pid),
              LOG_STR("how", process->end));
    list_remove(&process->node);
    process->death = death;
    atomic_store(&process->dead, true);
    tell_channels(process, death);
    pthread_cond_broadcast(&watch.changed);
}

static void signal_process(const struct process *process, int signal)
{
    (void)syscall(SYS_pidfd_send_signal, process->handle, signal, NULL, 0);
}

/* Lock held. */
static void kill_locked(struct process *process, enum backend_death cause,
                        struct process_watched *guilty)
{
    if (!atomic_load(&process->dead) && process->cause == DEATH_NONE) {
        process->cause = cause;
        process->guilty = guilty;
        signal_process(process, SIGKILL);
    }
}

/* Lock held.  False: it has not ended by then. */
static bool await_end(struct process *process, uint64_t ns)
{
    const uint64_t until_ns = clock_add(clock_now_ns(&watch.clock), ns);
    const struct timespec until = { .tv_sec = (time_t)(until_ns / NS_PER_S),
                                    .tv_nsec = (long)(until_ns % NS_PER_S) };
    int failed = 0;
    while (!atomic_load(&process->dead) && failed == 0) {
        failed = pthread_cond_timedwait(&watch.changed, &watch.lock, &until);
    }
    return atomic_load(&process->dead);
}

void process_kill(struct process *process, enum backend_death cause, struct process_watched *guilty)
{
    pthread_mutex_lock(&watch.lock);
    kill_locked(process, cause, guilty);
    (void)await_end(process, END_NS);
    pthread_mutex_unlock(&watch.lock);
}

enum backend_death process_tell(struct process *process, uint32_t model, enum backend_death death)
{
    const uint64_t bit = UINT64_C(1) << model;
    if (!atomic_load(&process->dead)) {
        return death;
    }
    return (atomic_fetch_or(&process->told, bit) & bit) == 0 ? process->death : DEATH_NONE;
}

/* ---- The zygote ---------------------------------------------------------------------------------- */

static enum weir_status spawn(int socket, pid_t *out)
{
    char name[] = "weir";
    char word[] = PROCESS_ZYGOTE_WORD;
    char *const words[] = { name, word, NULL };
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    /* dup2 to itself would leave it to be closed: it never is, as lower ones are in use. */
    (void)posix_spawn_file_actions_adddup2(&actions, socket, PROCESS_ZYGOTE_SOCKET);
    (void)posix_spawn_file_actions_addclosefrom_np(&actions, PROCESS_ZYGOTE_SOCKET + 1);
    const int failed = posix_spawnp(out, watch.program, &actions, NULL, words, environ);
    posix_spawn_file_actions_destroy(&actions);
    return failed == 0 ? WEIR_OK : WEIR_EUNAVAILABLE;
}

/* Lock held. */
static void ensure_zygote(void)
{
    int ends[2];
    if (watch.zygote != 0 || message_pair(ends, NULL) != WEIR_OK) {
        return;
    }
    pid_t pid;
    if (spawn(ends[1], &pid) == WEIR_OK) {
        watch.zygote = pid;
        watch.socket = ends[0];
    } else {
        (void)close(ends[0]);
    }
    (void)close(ends[1]);
}

/* Lock held.  Its processes die with it; nobody is left to say how they ended otherwise. */
static void zygote_lost(void)
{
    (void)close(watch.socket);
    (void)kill(watch.zygote, SIGKILL);
    (void)waitpid(watch.zygote, NULL, 0);
    watch.zygote = 0;
    struct list_node *next;
    for (struct list_node *n = list_first(&watch.processes); n != NULL; n = next) {
        next = list_next(&watch.processes, n);
        struct process *process = list_entry(n, struct process, node);
        signal_process(process, SIGKILL);
        struct pollfd gone = { .fd = process->handle, .events = POLLIN };
        (void)poll(&gone, 1, 1000);
        ended(process, SIGKILL);
    }
    for (struct list_node *n = list_first(&watch.wishes); n != NULL; n = next) {
        next = list_next(&watch.wishes, n);
        struct wish *wish = list_entry(n, struct wish, node);
        if (wish->sent && ++wish->zygotes < WISH_ZYGOTES) {
            wish->sent = false; /* The next one is asked. */
        } else if (wish->sent) {
            list_remove(n);
            wish->done = true;
        }
    }
    pthread_cond_broadcast(&watch.changed);
}

/* Lock held. */
static void grant_wishes(void)
{
    struct list_node *next = list_first(&watch.wishes);
    while (next != NULL) {
        struct wish *wish = list_entry(next, struct wish, node);
        next = list_next(&watch.wishes, next);
        if (wish->sent) {
            continue;
        }
        ensure_zygote();
        wish->sent = true;
        buffer_clear(&watch.message);
        message_u64(&watch.message, MESSAGE_FORK);
        if (watch.zygote == 0) {
            list_remove(&wish->node);
            wish->done = true;
            pthread_cond_broadcast(&watch.changed);
        } else if (message_send(watch.socket, &watch.message, wish->fds, 2) != WEIR_OK) {
            zygote_lost();
            next = list_first(&watch.wishes);
        }
    }
}

/* Lock held: the first wish that was sent is the one that is answered. */
static void forked(struct message_reader *reader, int fds[PROCESS_FDS_MAX])
{
    struct wish *wish = list_entry(list_first(&watch.wishes), struct wish, node);
    const uint64_t pid = message_get_u64(reader);
    list_remove(&wish->node);
    wish->done = true;
    if (pid > 0 && fds[0] >= 0) {
        wish->process->pid = (pid_t)pid;
        wish->process->handle = fds[0];
        fds[0] = -1; /* Taken. */
        list_append(&watch.processes, &wish->process->node);
    }
    pthread_cond_broadcast(&watch.changed);
}

/* Lock held. */
static void hear_zygote(void)
{
    int fds[PROCESS_FDS_MAX];
    if (message_receive(watch.socket, &watch.message, fds) != WEIR_OK) {
        zygote_lost();
        return;
    }
    struct message_reader reader = message_read(&watch.message);
    const uint64_t kind = message_get_u64(&reader);
    if (kind == MESSAGE_FORKED && !list_empty(&watch.wishes)) {
        forked(&reader, fds);
    } else if (kind == MESSAGE_EXITED) {
        const pid_t pid = (pid_t)message_get_u64(&reader);
        const int status = (int)message_get_u64(&reader);
        struct list_node *next;
        for (struct list_node *n = list_first(&watch.processes); n != NULL; n = next) {
            next = list_next(&watch.processes, n);
            struct process *process = list_entry(n, struct process, node);
            if (process->pid == pid) {
                ended(process, status);
            }
        }
    }
    message_close(fds);
}

/* ---- Looking ------------------------------------------------------------------------------------- */

/* Lock held.  When to look again at this channel. */
static uint64_t look_at_run(struct process *process, struct process_watched *channel,
                            uint64_t now_ns)
{
    const uint64_t run = atomic_load(&channel->run);
    const uint64_t limit_ns = atomic_load(&channel->limit_ns);
    const uint64_t begun_ns = atomic_load(&channel->begun_ns);
    if (limit_ns == 0 || begun_ns == 0 || atomic_load(&channel->run) != run) {
        return CLOCK_NEVER;
    }
    const uint64_t end_ns = clock_add(begun_ns, limit_ns);
    if (now_ns < end_ns) {
        return end_ns;
    }
    const uint64_t kill_ns = clock_add(end_ns, PROCESS_GRACE_NS);
    if (now_ns >= kill_ns) {
        kill_locked(process, DEATH_HUNG, channel);
        return CLOCK_NEVER;
    }
    if (atomic_exchange(&channel->late_run, run) != run) {
        atomic_store(&channel->head->stop_run, run);
        atomic_fetch_add(&process->page->bell, 1);
        process_wake(&process->page->bell);
    }
    return kill_ns;
}

/* Lock held. */
static uint64_t look_at_runs(uint64_t now_ns)
{
    uint64_t next_ns = CLOCK_NEVER;
    for (struct list_node *n = list_first(&watch.processes); n != NULL;
         n = list_next(&watch.processes, n)) {
        struct process *process = list_entry(n, struct process, node);
        for (struct list_node *c = list_first(&process->channels); c != NULL;
             c = list_next(&process->channels, c)) {
            const uint64_t at_ns =
                look_at_run(process, list_entry(c, struct process_watched, node), now_ns);
            next_ns = at_ns < next_ns ? at_ns : next_ns;
        }
    }
    return next_ns;
}

/* Lock held.  Counts looks, not time: a server that was stopped itself blames nobody. */
static void look_at_hearts(void)
{
    for (struct list_node *n = list_first(&watch.processes); n != NULL;
         n = list_next(&watch.processes, n)) {
        struct process *process = list_entry(n, struct process, node);
        const uint32_t beats = atomic_load(&process->page->beats);
        process->still = beats == 0 || beats != process->beats ? 0 : process->still + 1;
        process->beats = beats;
        if (process->still == FROZEN_LOOKS) {
            kill_locked(process, DEATH_FROZEN, NULL);
        }
    }
}

/* Lock held; lets go of it while it sleeps. */
static void sleep_until(uint64_t at_ns)
{
    const uint64_t now_ns = clock_now_ns(&watch.clock);
    const uint64_t left_ms = at_ns == CLOCK_NEVER ? 0
                             : at_ns <= now_ns    ? 0
                                                  : (at_ns - now_ns) / NS_PER_MS + 1;
    struct pollfd looks[] = {
        { .fd = watch.bell, .events = POLLIN },
        { .fd = watch.zygote == 0 ? -1 : watch.socket, .events = POLLIN },
    };
    pthread_mutex_unlock(&watch.lock);
    const int found = poll(looks, 2, at_ns == CLOCK_NEVER ? -1 : (int)left_ms);
    pthread_mutex_lock(&watch.lock);
    if (found > 0 && looks[0].revents != 0) {
        uint64_t ignored;
        (void)!read(watch.bell, &ignored, sizeof(ignored));
    }
    if (found > 0 && looks[1].revents != 0) {
        hear_zygote();
    }
}

static void *supervise(void *unused)
{
    (void)unused;
    uint64_t beat_ns = 0;
    pthread_mutex_lock(&watch.lock);
    while (!watch.stopping) {
        grant_wishes();
        uint64_t now_ns = clock_now_ns(&watch.clock);
        uint64_t next_ns = look_at_runs(now_ns);
        if (now_ns >= beat_ns) {
            look_at_hearts();
            beat_ns = now_ns + PROCESS_BEAT_NS;
        }
        next_ns = beat_ns < next_ns ? beat_ns : next_ns;
        sleep_until(list_empty(&watch.processes) ? CLOCK_NEVER : next_ns);
    }
    if (watch.zygote != 0) {
        zygote_lost();
    }
    pthread_mutex_unlock(&watch.lock);
    return NULL;
}

/* ---- Processes ----------------------------------------------------------------------------------- */

/* Lock held. */
static enum weir_status ensure_running(struct weir_err *err)
{
    if (watch.running) {
        return WEIR_OK;
    }
    if (message_room(&watch.message) != WEIR_OK) {
        return err_nomem(err, "a supervisor", PROCESS_MESSAGE_MAX);
    }
    watch.stopping = false;
    watch.bell = watch.bell >= 0 ? watch.bell : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    watch.running = watch.bell >= 0 && pthread_create(&watch.thread, NULL, supervise, NULL) == 0;
    if (!watch.running) {
        buffer_finish(&watch.message);
        return err_set(err, WEIR_ENOMEM, "no thread for a supervisor");
    }
    return WEIR_OK;
}

static void free_process(struct process *process)
{
    if (process->control >= 0) {
        (void)close(process->control);
    }
    if (process->handle >= 0) {
        (void)close(process->handle);
    }
    process_area_finish(&process->memory);
    buffer_finish(&process->message);
    pthread_mutex_destroy(&process->talk);
    mem_free(process);
}

static struct process *make_process(const char *label)
{
    struct process *process = mem_try_zero(1, sizeof(*process));
    if (process != NULL) {
        atomic_init(&process->holders, 1);
        (void)snprintf(process->label, sizeof(process->label), "%s", label);
        process->handle = -1;
        process->control = -1;
        pthread_mutex_init(&process->talk, NULL);
        list_init(&process->channels);
        if (message_room(&process->message) != WEIR_OK) {
            free_process(process);
            return NULL;
        }
    }
    return process;
}

static enum weir_status fork_process(struct process *process, int socket, int page,
                                     struct weir_err *err)
{
    struct wish wish = { .process = process, .fds = { socket, page } };
    pthread_once(&watch.once, init_once);
    pthread_mutex_lock(&watch.lock);
    const enum weir_status status = ensure_running(err);
    if (status == WEIR_OK) {
        list_append(&watch.wishes, &wish.node);
        ring();
        while (!wish.done) {
            pthread_cond_wait(&watch.changed, &watch.lock);
        }
    }
    pthread_mutex_unlock(&watch.lock);
    if (status == WEIR_OK && process->pid == 0) {
        return err_set(err, WEIR_EUNAVAILABLE,
                       "no process could be made for the model: %s cannot be started",
                       watch.program);
    }
    return status;
}

enum weir_status process_start(const char *label, struct process **out, struct weir_err *err)
{
    struct process *process = make_process(label);
    if (process == NULL) {
        return err_nomem(err, "a model's process", sizeof(*process));
    }
    int ends[2] = { -1, -1 };
    int page = -1;
    enum weir_status status =
        process_area_create(&process->memory, sizeof(struct process_page), AREA_SHARED, &page, err);
    status = status == WEIR_OK ? message_pair(ends, err) : status;
    if (status == WEIR_OK) {
        process->page = (struct process_page *)(void *)process->memory.data;
        process->control = ends[0];
        status = fork_process(process, ends[1], page, err);
    }
    if (page >= 0) {
        (void)close(page);
    }
    if (ends[1] >= 0) {
        (void)close(ends[1]);
    }
    if (status != WEIR_OK) {
        free_process(process);
        return status;
    }
    *out = process;
    return WEIR_OK;
}

void process_acquire(struct process *process)
{
    atomic_fetch_add(&process->holders, 1);
}

void process_release(struct process *process)
{
    if (process == NULL || atomic_fetch_sub(&process->holders, 1) > 1) {
        return;
    }
    (void)shutdown(process->control, SHUT_RDWR); /* It sees the end, and ends. */
    pthread_mutex_lock(&watch.lock);
    if (!await_end(process, END_NS)) {
        kill_locked(process, DEATH_KILLED, NULL);
        (void)await_end(process, END_NS);
        list_remove(&process->node); /* One that even so has not ended is nobody's. */
    }
    pthread_mutex_unlock(&watch.lock);
    free_process(process);
}

void process_end_text(struct process *process, char *out)
{
    pthread_mutex_lock(&watch.lock);
    (void)await_end(process, NS_PER_S);
    memcpy(out, process->end, sizeof(process->end));
    pthread_mutex_unlock(&watch.lock);
}

bool process_watch(struct process *process, struct process_watched *channel)
{
    pthread_mutex_lock(&watch.lock);
    const bool alive = !atomic_load(&process->dead);
    if (alive) {
        list_append(&process->channels, &channel->node);
    }
    pthread_mutex_unlock(&watch.lock);
    return alive;
}

void process_unwatch(struct process *process, struct process_watched *channel)
{
    pthread_mutex_lock(&watch.lock);
    list_remove(&channel->node);
    if (process->guilty == channel) {
        process->guilty = NULL;
    }
    pthread_mutex_unlock(&watch.lock);
}

void process_stop(void)
{
    pthread_mutex_lock(&watch.lock);
    const bool running = watch.running;
    watch.stopping = true;
    if (running) {
        ring();
    }
    pthread_mutex_unlock(&watch.lock);
    if (running) {
        (void)pthread_join(watch.thread, NULL);
        buffer_finish(&watch.message);
        watch.running = false;
    }
}

/* ---- Talking ------------------------------------------------------------------------------------- */

/* False: there is none in that time. */
static bool await_answer(const struct process *process, uint64_t limit_ns)
{
    struct pollfd answer = { .fd = process->control, .events = POLLIN };
    if (limit_ns == 0) {
        return true;
    }
    uint64_t now_ns = clock_now_ns(&watch.clock);
    const uint64_t until_ns = clock_add(now_ns, limit_ns);
    int found = 0;
    while (found <= 0 && now_ns < until_ns) {
        const uint64_t left_ms = (until_ns - now_ns) / NS_PER_MS + 1;
        found = poll(&answer, 1, left_ms < INT_MAX ? (int)left_ms : INT_MAX);
        now_ns = clock_now_ns(&watch.clock);
    }
    return found > 0;
}

enum weir_status process_ask(struct process *process, const int *fds, uint32_t fd_count,
                             uint64_t limit_ns, struct message_reader *out, struct weir_err *err)
{
    enum weir_status status = message_send(process->control, &process->message, fds, fd_count);
    if (status == WEIR_ETOOBIG) {
        return err_set(err, status, "a model's settings are too large for a message");
    }
    if (status == WEIR_OK && !await_answer(process, limit_ns)) {
        process_kill(process, DEATH_HUNG, NULL);
        return err_set(err, WEIR_EBACKEND,
                       "the model's process was ended: it took longer than load_limit (%.1f s)",
                       (double)limit_ns / NS_PER_S);
    }
    int passed[PROCESS_FDS_MAX];
    status =
        status == WEIR_OK ? message_receive(process->control, &process->message, passed) : status;
    if (status != WEIR_OK) {
        char end[sizeof(process->end)];
        process_end_text(process, end);
        return err_set(err, WEIR_EBACKEND, "the model's process ended: %s",
                       end[0] == '\0' ? "it does not answer" : end);
    }
    message_close(passed); /* Nothing is taken from a process. */
    *out = message_read(&process->message);
    (void)message_get_u64(out);
    const uint64_t said = message_get_bounded(out, WEIR_STATUS_COUNT - 1);
    const struct bytes text = message_get_bytes(out);
    if (out->failed || text.data == NULL) {
        return err_set(err, WEIR_EBACKEND, "the model's process gave an answer that is none");
    }
    return said == WEIR_OK
               ? WEIR_OK
               : err_set(err, (enum weir_status)said, "%.*s", (int)text.size, text.data);
}
