/* Loops: mail, times, hooks and work arrive, once, in order, and wake nobody in vain. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/eventfd.h>
#include <unistd.h>

#include "net/loop.h"

#define LETTERS 1000
#define SENDERS 3

/* A loop and what happened on it, written by its thread only. */
struct bench {
    struct limits limits;
    struct loop loop;
    struct loop_hook hook;
    unsigned turns;
    unsigned order[8];
    unsigned count;
};

static void on_turn(struct loop_hook *hook)
{
    list_entry(hook, struct bench, hook)->turns++;
}

static void begin(struct bench *b)
{
    *b = (struct bench){ .hook.turn = on_turn };
    limits_init(&b->limits);
    assert_int_equal(loop_init(&b->loop, &b->limits, NULL), WEIR_OK);
    loop_hook_add(&b->loop, &b->hook);
}

static void run(struct bench *b)
{
    loop_run(&b->loop);
    loop_finish(&b->loop);
}

static void note(struct bench *b, unsigned what)
{
    assert_true(b->count < 8);
    b->order[b->count] = what;
    b->count++;
}

/* --- Mail --- */

struct letter {
    struct loop_mail mail;
    struct bench *bench;
    unsigned number;
    unsigned *next; /* The number that its sender's next letter must have. */
};

struct sender {
    pthread_t thread;
    struct letter letters[LETTERS];
    unsigned next;
};

static void receive(struct loop_mail *mail)
{
    struct letter *letter = list_entry(&mail->mail, struct letter, mail.mail);
    assert_int_equal(letter->number, *letter->next);
    (*letter->next)++;
}

static void receive_stop(struct loop_mail *mail)
{
    struct letter *letter = list_entry(&mail->mail, struct letter, mail.mail);
    loop_stop(&letter->bench->loop);
}

static void *send_all(void *context)
{
    struct sender *sender = context;
    for (unsigned i = 0; i < LETTERS; i++) {
        loop_send(&sender->letters[i].bench->loop, &sender->letters[i].mail);
    }
    return NULL;
}

static struct sender senders[SENDERS];

static void *send_from_threads(void *context)
{
    struct letter *stop = context;
    for (unsigned s = 0; s < SENDERS; s++) {
        pthread_create(&senders[s].thread, NULL, send_all, &senders[s]);
    }
    for (unsigned s = 0; s < SENDERS; s++) {
        pthread_join(senders[s].thread, NULL);
    }
    loop_send(&stop->bench->loop, &stop->mail);
    return NULL;
}

static void test_mail_arrives_in_order(void **state)
{
    (void)state;
    struct bench b;
    struct letter stop = { .mail.receive = receive_stop, .bench = &b };
    begin(&b);
    for (unsigned s = 0; s < SENDERS; s++) {
        for (unsigned i = 0; i < LETTERS; i++) {
            senders[s].letters[i] =
                (struct letter){ { .receive = receive }, &b, i, &senders[s].next };
        }
    }
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, send_from_threads, &stop), 0);
    run(&b);
    pthread_join(thread, NULL);
    for (unsigned s = 0; s < SENDERS; s++) {
        assert_int_equal(senders[s].next, LETTERS);
    }
}

/* One that sends itself on, over more rounds than one turn has. */
struct chain {
    struct loop_mail mail;
    struct bench *bench;
    unsigned left;
};

static void receive_chain(struct loop_mail *mail)
{
    struct chain *chain = list_entry(&mail->mail, struct chain, mail.mail);
    if (chain->left == 0) {
        loop_stop(&chain->bench->loop);
        return;
    }
    chain->left--;
    loop_send(&chain->bench->loop, &chain->mail);
}

static void test_a_loop_gets_its_own_mail(void **state)
{
    (void)state;
    struct bench b;
    struct chain chain = { { .receive = receive_chain }, &b, 100 };
    begin(&b);
    loop_send(&b.loop, &chain.mail);
    run(&b);
    assert_int_equal(chain.left, 0);
}

/* --- Times --- */

struct alarm {
    struct loop_timer timer;
    struct bench *bench;
    unsigned number;
    uint64_t at_ns;
    struct alarm *moves; /* Another that this one puts off, or NULL. */
};

static void ring(struct loop_timer *timer)
{
    struct alarm *alarm = list_entry(timer, struct alarm, timer);
    struct loop *loop = &alarm->bench->loop;
    assert_true(loop->now_ns >= alarm->at_ns);
    note(alarm->bench, alarm->number);
    if (alarm->moves != NULL) {
        alarm->moves->at_ns = clock_add(loop->now_ns, NS_PER_MS);
        loop_timer_set(loop, &alarm->moves->timer, alarm->moves->at_ns);
    }
}

static void ring_last(struct loop_timer *timer)
{
    ring(timer);
    loop_stop(&list_entry(timer, struct alarm, timer)->bench->loop);
}

static void set(struct bench *b, struct alarm *alarm, unsigned number, uint64_t delay_ns)
{
    *alarm = (struct alarm){ { .fire = number == 9 ? ring_last : ring }, b, number, 0, NULL };
    alarm->at_ns = clock_add(b->loop.now_ns, delay_ns);
    loop_timer_set(&b->loop, &alarm->timer, alarm->at_ns);
}

static void test_times_come_in_order(void **state)
{
    (void)state;
    struct bench b;
    struct alarm a[6];
    begin(&b);
    set(&b, &a[0], 3, 3 * NS_PER_MS);
    set(&b, &a[1], 1, 0);
    set(&b, &a[2], 9, 10 * NS_PER_S);
    set(&b, &a[3], 2, NS_PER_MS + 1);
    set(&b, &a[4], 5, 0);
    set(&b, &a[5], 6, NS_PER_MS);
    a[0].moves = &a[4];
    a[4].moves = &a[2]; /* Whenever those before it rang: the machine may be slow. */
    loop_timer_set(&b.loop, &a[4].timer, clock_add(b.loop.now_ns, 10 * NS_PER_S)); /* Moved away. */
    loop_timer_clear(&b.loop, &a[5].timer);
    run(&b);
    static const unsigned expected[] = { 1, 2, 3, 5, 9 };
    assert_int_equal(b.count, 5);
    assert_memory_equal(b.order, expected, sizeof(expected));
}

/* --- Turns --- */

/* Turns are counted over a time in which nothing is due: sleeping means not turning. */
static void test_an_idle_loop_sleeps(void **state)
{
    (void)state;
    struct bench b;
    struct alarm a[2];
    begin(&b);
    set(&b, &a[0], 1, 0);
    set(&b, &a[1], 9, 100 * NS_PER_MS);
    run(&b);
    assert_in_range(b.turns, 1, 8);
}

/* One that spins finds nothing most of the time, which is no turn for its hooks; and it does
 * everything else alike. */
static void test_a_loop_that_spins_does_the_same(void **state)
{
    (void)state;
    struct bench b;
    struct alarm a[5];
    begin(&b);
    loop_set_spin(&b.loop, 10 * NS_PER_MS);
    for (unsigned i = 0; i < 4; i++) {
        set(&b, &a[i], i + 1, i * 5 * NS_PER_MS);
    }
    set(&b, &a[4], 9, 60 * NS_PER_MS);
    run(&b);
    static const unsigned expected[] = { 1, 2, 3, 4, 9 };
    assert_int_equal(b.count, 5);
    assert_memory_equal(b.order, expected, sizeof(expected));
    assert_in_range(b.turns, 1, 20);
}

/* The hook of a loop that has just answered its only request. */
static void on_answer(struct loop_hook *hook)
{
    struct bench *b = list_entry(hook, struct bench, hook);
    b->loop.ended_count = b->turns == 0 ? 1 : 0;
    b->turns++;
}

/* Nothing comes: it has looked once, in vain, and has slept since. */
static void test_a_loop_looks_for_the_next_request(void **state)
{
    (void)state;
    struct bench b;
    struct alarm a;
    begin(&b);
    b.hook.turn = on_answer;
    assert_int_equal(b.loop.look.naps, 0);
    set(&b, &a, 9, 50 * NS_PER_MS);
    run(&b);
    assert_int_equal(b.loop.look.naps, LOOK_NAPS_MIN);
    assert_in_range(b.turns, 2, 6);
}

/* --- Moderation --- */

/* Something to read, which comes as the sockets begin to wait. */
struct source {
    struct bench *bench;
    uv_poll_t poll;
    int fd;
    struct loop_mail *mail; /* Sent by another thread as the sockets begin to wait; NULL: none. */
    pthread_t sender;
    uint64_t
        waits_until_ns; /* That its sockets may, as it says the second time; then: not at all. */
    unsigned calls;
    uint64_t asked_ns; /* When it said so. */
    uint64_t came_ns;  /* What was there, for all that the loop knows, */
    uint64_t read_ns;  /* and when it was read. */
};

static void *send_mail(void *context)
{
    struct source *source = context;
    loop_send(&source->bench->loop, source->mail);
    return NULL;
}

static void receive_nothing(struct loop_mail *mail)
{
    (void)mail;
}

static uint64_t let_wait(void *context)
{
    struct source *source = context;
    const uint64_t until_ns = source->waits_until_ns;
    source->calls++;
    if (source->calls == 1) {
        loop_wake(&source->bench->loop); /* libuv polls for a new source from its first sleep on. */
        return 0;
    }
    if (source->calls > 2) {
        return 0;
    }
    assert_int_equal(eventfd_write(source->fd, 1), 0);
    source->asked_ns = uv_hrtime();
    if (source->mail != NULL) {
        assert_int_equal(pthread_create(&source->sender, NULL, send_mail, source), 0);
    }
    return until_ns;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct source *source = poll->data;
    assert_int_equal(status, 0);
    assert_int_equal(events, UV_READABLE);
    loop_turn_begin(&source->bench->loop);
    source->came_ns = source->bench->loop.came_ns;
    source->read_ns = uv_hrtime();
    uv_close((uv_handle_t *)poll, NULL);
    loop_stop(&source->bench->loop);
}

static void source_open(struct source *source, struct bench *b, uint64_t waits_until_ns)
{
    *source = (struct source){ .bench = b, .waits_until_ns = waits_until_ns };
    source->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    assert_true(source->fd >= 0);
    assert_int_equal(uv_poll_init(&b->loop.uv, &source->poll, source->fd), 0);
    source->poll.data = source;
    assert_int_equal(uv_poll_start(&source->poll, UV_READABLE, on_readable), 0);
    loop_set_moderation(&b->loop, let_wait, source);
    b->loop.exchange_count = 1; /* One that waits for its answer. */
    b->loop.asked_count = 1;
}

static void test_sockets_wait_while_they_may(void **state)
{
    (void)state;
    struct bench b;
    struct source source;
    begin(&b);
    const uint64_t until_ns = uv_hrtime() + 20 * NS_PER_MS;
    source_open(&source, &b, until_ns);
    run(&b);
    close(source.fd);
    assert_true(source.read_ns >= until_ns);
    assert_in_range(source.came_ns, source.asked_ns, until_ns);
}

struct timed_source {
    struct loop_hook hook;
    struct source source;
    struct alarm alarm;
};

/* In the turn in which the sockets begin to wait: a time that passes earlier would end no wait. */
static void set_before_the_wait(struct loop_hook *hook)
{
    struct timed_source *self = list_entry(hook, struct timed_source, hook);
    if (self->source.calls == 1) {
        set(self->source.bench, &self->alarm, 1, NS_PER_MS);
    }
}

/* Or it would wait for an hour. */
static void test_times_do_not_wait_with_sockets(void **state)
{
    (void)state;
    struct bench b;
    struct timed_source timed = { .hook.turn = set_before_the_wait };
    begin(&b);
    source_open(&timed.source, &b, clock_add(uv_hrtime(), 3600 * NS_PER_S));
    loop_hook_add(&b.loop, &timed.hook);
    run(&b);
    close(timed.source.fd);
    assert_true(timed.source.read_ns >= timed.alarm.at_ns);
}

static void test_mail_does_not_wait_with_sockets(void **state)
{
    (void)state;
    struct bench b;
    struct source source;
    struct loop_mail mail = { .receive = receive_nothing };
    begin(&b);
    source_open(&source, &b, clock_add(uv_hrtime(), 3600 * NS_PER_S));
    source.mail = &mail;
    run(&b);
    pthread_join(source.sender, NULL);
    close(source.fd);
    assert_true(source.calls >= 2);
}

static void test_nothing_waits_while_something_is_half_read(void **state)
{
    (void)state;
    struct bench b;
    struct source source;
    begin(&b);
    source_open(&source, &b, clock_add(uv_hrtime(), 3600 * NS_PER_S));
    b.loop.exchange_count = 2;
    assert_int_equal(eventfd_write(source.fd, 1), 0);
    run(&b);
    close(source.fd);
    assert_int_equal(source.calls, 0);
}

static void test_a_loop_that_spins_lets_nothing_wait(void **state)
{
    (void)state;
    struct bench b;
    struct source source;
    begin(&b);
    loop_set_spin(&b.loop, NS_PER_MS);
    source_open(&source, &b, clock_add(uv_hrtime(), 3600 * NS_PER_S));
    assert_int_equal(eventfd_write(source.fd, 1), 0);
    run(&b);
    close(source.fd);
    assert_int_equal(source.calls, 0);
}

/* --- Hooks --- */

/* A hook's mail to its own loop is there in the same turn, and the hooks see what it did. */
struct note_mail {
    struct loop_mail mail;
    struct bench *bench;
};

struct sending_hook {
    struct loop_hook hook;
    struct note_mail letter;
    unsigned turns;
};

static void receive_note(struct loop_mail *mail)
{
    note(list_entry(&mail->mail, struct note_mail, mail.mail)->bench, 2);
}

static void send_from_hook(struct loop_hook *hook)
{
    struct sending_hook *self = list_entry(hook, struct sending_hook, hook);
    struct bench *b = self->letter.bench;
    self->turns++;
    if (self->turns == 1) {
        note(b, 1);
        loop_send(&b->loop, &self->letter.mail);
    } else if (self->turns == 2) {
        note(b, 3);
        loop_stop(&b->loop);
    }
}

static void test_hooks_and_mail_alternate(void **state)
{
    (void)state;
    struct bench b;
    begin(&b);
    struct sending_hook hook = { { .turn = send_from_hook },
                                 { { .receive = receive_note }, &b },
                                 0 };
    loop_hook_add(&b.loop, &hook.hook);
    run(&b);
    static const unsigned expected[] = { 1, 2, 3 };
    assert_int_equal(b.count, 3);
    assert_memory_equal(b.order, expected, sizeof(expected));
}

static void test_stopped_before_it_runs(void **state)
{
    (void)state;
    struct bench b;
    begin(&b);
    loop_stop(&b.loop);
    run(&b);
}

/* --- Work --- */

struct job {
    struct loop_work work;
    struct bench *bench;
    pthread_t worker;
};

static void work_run(struct loop_work *work)
{
    list_entry(work, struct job, work)->worker = pthread_self();
}

static void work_done(struct loop_work *work)
{
    struct job *job = list_entry(work, struct job, work);
    assert_false(pthread_equal(job->worker, pthread_self()));
    note(job->bench, 1);
    loop_stop(&job->bench->loop);
}

static void test_work_runs_elsewhere_and_ends_here(void **state)
{
    (void)state;
    struct bench b;
    begin(&b);
    struct job job = { .work = { .run = work_run, .done = work_done }, .bench = &b };
    loop_work(&b.loop, &job.work);
    run(&b);
    assert_int_equal(b.count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mail_arrives_in_order),
        cmocka_unit_test(test_a_loop_gets_its_own_mail),
        cmocka_unit_test(test_times_come_in_order),
        cmocka_unit_test(test_an_idle_loop_sleeps),
        cmocka_unit_test(test_a_loop_that_spins_does_the_same),
        cmocka_unit_test(test_a_loop_looks_for_the_next_request),
        cmocka_unit_test(test_sockets_wait_while_they_may),
        cmocka_unit_test(test_times_do_not_wait_with_sockets),
        cmocka_unit_test(test_mail_does_not_wait_with_sockets),
        cmocka_unit_test(test_nothing_waits_while_something_is_half_read),
        cmocka_unit_test(test_a_loop_that_spins_lets_nothing_wait),
        cmocka_unit_test(test_hooks_and_mail_alternate),
        cmocka_unit_test(test_stopped_before_it_runs),
        cmocka_unit_test(test_work_runs_elsewhere_and_ends_here),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
