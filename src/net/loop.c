/*
 * The turn of a loop, laid over libuv.
 *
 * libuv calls back for sockets, timers and the wake-up in an order that differs between its
 * versions, but always runs `prepare` handles last before it goes to sleep.  So callbacks only read
 * and remember, and the second half of the turn (mail, hooks, writes) happens in one prepare
 * handle: whatever became due is done before the loop can block.
 *
 * Others wake a loop by an eventfd of its own.  libuv's wake-up makes the woken thread wait until
 * the one that wakes it has returned, by giving up its time slice: where both share a core, as an
 * executor and its loop may, the answers of each batch would wait until the next run has used up
 * its own slice.
 *
 * Looking for more before going to sleep is an idle handle of libuv's, which keeps it from waiting.
 * To let sockets wait is to sleep on the eventfd alone before libuv sleeps on everything.
 *
 * All times of a loop wait in one heap behind one libuv timer, which is started only for the
 * earliest: moving a time costs no system call, and a loop without times never wakes up.
 */
#include "net/loop.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "net/conn.h"

/* Rounds of mail and hooks in one turn before the sockets get their chance again. */
#define ROUNDS_MAX 8

static _Thread_local struct loop *loop_here; /* The loop that this thread is turning. */

void loop_turn_begin(struct loop *loop)
{
    if (!loop->fresh) {
        loop->fresh = true;
        loop->now_ns = uv_hrtime();
        loop->came_ns = loop->now_ns - loop->waited_ns;
        loop->waited_ns = 0;
    }
}

static void fire_due(struct loop *loop)
{
    struct heap_node *node = heap_top(&loop->timers);
    while (node != NULL && node->key <= loop->now_ns) {
        heap_remove(&loop->timers, node);
        struct loop_timer *timer = list_entry(node, struct loop_timer, node);
        timer->fire(timer);
        node = heap_top(&loop->timers);
    }
}

static void on_timer(uv_timer_t *handle)
{
    struct loop *loop = handle->data;
    loop->timer_ns = CLOCK_NEVER;
    loop_turn_begin(loop);
    fire_due(loop);
}

/* Starts the libuv timer for the earliest time. */
static void arm(struct loop *loop)
{
    const struct heap_node *top = heap_top(&loop->timers);
    const uint64_t at_ns = top == NULL ? CLOCK_NEVER : top->key;
    if (at_ns == loop->timer_ns) {
        return;
    }
    loop->timer_ns = at_ns;
    if (at_ns == CLOCK_NEVER) {
        uv_timer_stop(&loop->timer);
        return;
    }
    /* libuv counts in whole milliseconds of the same clock: rounded up, the time is due when it
     * fires. */
    const uint64_t at_ms = at_ns / NS_PER_MS + (at_ns % NS_PER_MS != 0);
    const uint64_t now_ms = uv_now(&loop->uv);
    uv_timer_start(&loop->timer, on_timer, at_ms > now_ms ? at_ms - now_ms : 0, 0);
}

static bool has_mail(const struct loop *loop)
{
    return atomic_load_explicit(&loop->mailbox.top, memory_order_relaxed) != NULL;
}

static void receive_mail(struct loop *loop)
{
    struct mail *mail = mailbox_receive(&loop->mailbox);
    while (mail != NULL) {
        struct mail *next = mail->next; /* Receiving gives the mail away. */
        struct loop_mail *letter = list_entry(mail, struct loop_mail, mail);
        letter->receive(letter);
        mail = next;
    }
}

static void run_hooks(struct loop *loop)
{
    struct list_node *node = list_first(&loop->hooks);
    while (node != NULL) {
        struct loop_hook *hook = list_entry(node, struct loop_hook, node);
        hook->turn(hook);
        node = list_next(&loop->hooks, node);
    }
}

static bool is_looking(const struct loop *loop)
{
    return uv_is_active((const uv_handle_t *)&loop->looking) != 0;
}

/* What an idle handle calls is of no use: while one is active, libuv does not sleep. */
static void on_idle(uv_idle_t *handle)
{
    (void)handle;
}

static void look_or_sleep(struct loop *loop)
{
    const uint64_t own_ns = look_for_ns(&loop->look, loop->ended_count, loop->exchange_count);
    const uint64_t ns = loop->spin_ns > 0 ? loop->spin_ns : own_ns;
    loop->ended_count = 0;
    if (ns > 0) {
        loop->looks_until_ns = clock_add(uv_hrtime(), ns); /* The turn itself took as long. */
        uv_idle_start(&loop->looking, on_idle);
    } else {
        uv_idle_stop(&loop->looking);
    }
}

/* Nothing is half read or half sent. */
static bool all_wait_for_answers(const struct loop *loop)
{
    return loop->exchange_count > 0 && loop->asked_count == loop->exchange_count &&
           loop->work_count == 0;
}

/* Lets sockets wait for as long as they may, unless mail comes or a time does. */
static void let_sockets_wait(struct loop *loop)
{
    const bool newcomers = loop->newcomers;
    loop->newcomers = false;
    if (loop->moderate == NULL || is_looking(loop) || newcomers || !all_wait_for_answers(loop)) {
        return;
    }
    const uint64_t most_ns = loop->moderate(loop->moderate_context);
    if (most_ns == 0) {
        return;
    }
    const uint64_t until_ns = loop->timer_ns < most_ns ? loop->timer_ns : most_ns;
    const uint64_t now_ns = uv_hrtime();
    if (until_ns <= now_ns) {
        return;
    }
    struct pollfd wake = { .fd = loop->wake_fd, .events = POLLIN };
    const struct timespec rest = { .tv_sec = (time_t)((until_ns - now_ns) / NS_PER_S),
                                   .tv_nsec = (long)((until_ns - now_ns) % NS_PER_S) };
    (void)ppoll(&wake, 1, &rest, NULL);
    uv_update_time(&loop->uv);
    struct pollfd all = { .fd = uv_backend_fd(&loop->uv), .events = POLLIN };
    loop->waited_ns = poll(&all, 1, 0) == 1 ? uv_hrtime() - now_ns : 0; /* Else it sleeps on. */
}

/* A look at the sockets that found nothing.  Timers of hooks are set when hooks run. */
static bool found_nothing(const struct loop *loop)
{
    return is_looking(loop) && !loop->fresh && !has_mail(loop) && list_empty(&loop->dirty);
}

static void turn_end(struct loop *loop)
{
    if (is_looking(loop)) {
        look_over(&loop->look, true);
    }
    loop_turn_begin(loop);
    unsigned rounds = 0;
    do {
        if (has_mail(loop)) {
            receive_mail(loop);
        }
        run_hooks(loop);
        rounds++;
    } while (has_mail(loop) && rounds < ROUNDS_MAX);
    conn_flush_dirty(loop);
    if (has_mail(loop)) {
        /* Nobody wakes a loop for mail that it sent itself, nor for mail behind that. */
        loop_wake(loop);
    }
    arm(loop);
    look_or_sleep(loop);
    let_sockets_wait(loop);
    loop->fresh = false;
}

static void on_prepare(uv_prepare_t *handle)
{
    struct loop *loop = handle->data;
    if (!found_nothing(loop)) {
        turn_end(loop);
    } else if (uv_hrtime() >= loop->looks_until_ns) {
        look_over(&loop->look, false);
        uv_idle_stop(&loop->looking);
    }
}

static void on_wake(uv_poll_t *handle, int status, int events)
{
    (void)status; /* Whatever it is, another turn begins. */
    (void)events;
    struct loop *loop = handle->data;
    eventfd_t calls;
    (void)eventfd_read(loop->wake_fd, &calls);
    loop_turn_begin(loop);
    conn_resume(loop);
    if (atomic_load(&loop->stopping)) {
        uv_stop(&loop->uv);
    }
}

static void wake(void *context)
{
    struct loop *loop = context;
    if (loop != loop_here) {
        loop_wake(loop);
    }
}

void loop_wake(struct loop *loop)
{
    (void)eventfd_write(loop->wake_fd, 1); /* Fails only where it is full: the loop wakes, then. */
}

static int open_wake(struct loop *loop)
{
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->wake_fd < 0) {
        return uv_translate_sys_error(errno);
    }
    const int failed = uv_poll_init(&loop->uv, &loop->wake, loop->wake_fd);
    if (failed != 0) {
        close(loop->wake_fd);
        return failed;
    }
    loop->wake.data = loop;
    return uv_poll_start(&loop->wake, UV_READABLE, on_wake);
}

enum weir_status loop_init(struct loop *loop, const struct limits *limits, struct weir_err *err)
{
    *loop = (struct loop){ .limits = limits, .timer_ns = CLOCK_NEVER };
    loop->now_ns = uv_hrtime();
    loop->came_ns = loop->now_ns;
    list_init(&loop->hooks);
    list_init(&loop->dirty);
    list_init(&loop->connections);
    mailbox_init(&loop->mailbox, wake, loop);
    int failed = uv_loop_init(&loop->uv);
    if (failed == 0) {
        failed = open_wake(loop);
        if (failed != 0) {
            uv_loop_close(&loop->uv);
        }
    }
    if (failed != 0) {
        return err_set(err, WEIR_EIO, "event loop: %s", uv_strerror(failed));
    }
    uv_prepare_init(&loop->uv, &loop->turn);
    uv_timer_init(&loop->uv, &loop->timer);
    uv_idle_init(&loop->uv, &loop->looking);
    look_init(&loop->look);
    loop->uv.data = loop;
    loop->turn.data = loop;
    loop->timer.data = loop;
    uv_prepare_start(&loop->turn, on_prepare);
    return WEIR_OK;
}

/* A write to a closed socket raises SIGPIPE; blocked, it leaves only the error that it comes with.
 * */
static void block_sigpipe(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

void loop_set_spin(struct loop *loop, uint64_t spin_ns)
{
    loop->spin_ns = spin_ns;
}

void loop_run(struct loop *loop)
{
    block_sigpipe();
    loop_here = loop;
    while (!atomic_load(&loop->stopping)) {
        uv_run(&loop->uv, UV_RUN_DEFAULT);
    }
    turn_end(loop);
    loop_here = NULL;
}

void loop_stop(struct loop *loop)
{
    atomic_store(&loop->stopping, true);
    loop_wake(loop);
}

void loop_close(struct loop *loop)
{
    block_sigpipe();
    loop_here = loop;
    net_close_all(loop);
    while (!net_finish(loop)) {
        uv_run(&loop->uv, UV_RUN_ONCE);
    }
    loop_here = NULL;
}

void loop_turn_once(struct loop *loop)
{
    loop_here = loop;
    uv_run(&loop->uv, UV_RUN_ONCE);
    loop_here = NULL;
}

void loop_finish(struct loop *loop)
{
    loop_close(loop);
    loop_here = loop;
    uv_close((uv_handle_t *)&loop->wake, NULL);
    uv_close((uv_handle_t *)&loop->turn, NULL);
    uv_close((uv_handle_t *)&loop->timer, NULL);
    uv_close((uv_handle_t *)&loop->looking, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    const int busy = uv_loop_close(&loop->uv);
    assert(busy == 0);
    (void)busy;
    close(loop->wake_fd);
    loop_here = NULL;
}

void loop_send(struct loop *loop, struct loop_mail *mail)
{
    mailbox_send(&loop->mailbox, &mail->mail);
}

void loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t at_ns)
{
    heap_remove(&loop->timers, &timer->node);
    timer->node.key = at_ns;
    heap_push(&loop->timers, &timer->node);
}

void loop_timer_clear(struct loop *loop, struct loop_timer *timer)
{
    heap_remove(&loop->timers, &timer->node);
}

void loop_set_moderation(struct loop *loop, loop_moderate_fn *moderate, void *context)
{
    loop->moderate = moderate;
    loop->moderate_context = context;
}

void loop_hook_add(struct loop *loop, struct loop_hook *hook)
{
    list_append(&loop->hooks, &hook->node);
}

static void work_run(uv_work_t *request)
{
    struct loop_work *work = list_entry(request, struct loop_work, request);
    work->run(work);
}

static void work_done(uv_work_t *request, int status)
{
    (void)status; /* Work is never cancelled. */
    struct loop_work *work = list_entry(request, struct loop_work, request);
    struct loop *loop = request->loop->data;
    loop->work_count--;
    loop_turn_begin(loop);
    work->done(work);
}

void loop_work(struct loop *loop, struct loop_work *work)
{
    loop->work_count++;
    const int failed = uv_queue_work(&loop->uv, &work->request, work_run, work_done);
    assert(failed == 0); /* It only fails without a callback. */
    (void)failed;
}
