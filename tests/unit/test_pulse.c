/*
 * A loop that is held up by a mail, and looks at it by hand-made times.
 */
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/pulse.h"

#define PATIENCE_NS NS_PER_S
#define AT_NS (100 * NS_PER_S)

/* A loop on a thread of its own; `held` keeps it from turning until `go` is posted. */
struct bed {
    struct limits limits;
    struct loop loop;
    struct pulse pulse;
    pthread_t thread;
    struct loop_mail held;
    sem_t begun;
    sem_t go;
};

static void hold(struct loop_mail *mail)
{
    struct bed *bed = list_entry(mail, struct bed, held);
    sem_post(&bed->begun);
    sem_wait(&bed->go);
}

static void *turn(void *context)
{
    struct bed *bed = context;
    loop_run(&bed->loop);
    return NULL;
}

static void open_bed(struct bed *bed)
{
    *bed = (struct bed){ .held = { .receive = hold } };
    limits_init(&bed->limits);
    sem_init(&bed->begun, 0, 0);
    sem_init(&bed->go, 0, 0);
    assert_int_equal(loop_init(&bed->loop, &bed->limits, NULL), WEIR_OK);
    pulse_init(&bed->pulse, &bed->loop);
    assert_int_equal(pthread_create(&bed->thread, NULL, turn, bed), 0);
}

/* The loop stands still from here on. */
static void stick(struct bed *bed)
{
    loop_send(&bed->loop, &bed->held);
    sem_wait(&bed->begun);
}

/* It turns, and has received what it was sent before. */
static void release(struct bed *bed)
{
    sem_post(&bed->go);
    stick(bed);
    sem_post(&bed->go);
}

static void close_bed(struct bed *bed)
{
    loop_stop(&bed->loop);
    pthread_join(bed->thread, NULL);
    loop_close(&bed->loop);
    loop_finish(&bed->loop);
}

static void test_a_loop_that_is_stuck_is_seen_at_the_second_look(void **state)
{
    (void)state;
    struct bed bed;
    open_bed(&bed);
    stick(&bed);
    assert_true(pulse_look(&bed.pulse, AT_NS, PATIENCE_NS));
    assert_true(pulse_look(&bed.pulse, AT_NS + PATIENCE_NS, PATIENCE_NS));
    assert_false(pulse_look(&bed.pulse, AT_NS + PATIENCE_NS + 1, PATIENCE_NS));
    release(&bed);
    assert_true(pulse_look(&bed.pulse, AT_NS + 2 * PATIENCE_NS, PATIENCE_NS));
    close_bed(&bed);
}

static void test_a_loop_that_nobody_looked_at_for_long_is_live(void **state)
{
    (void)state;
    struct bed bed;
    open_bed(&bed);
    assert_true(pulse_look(&bed.pulse, AT_NS, PATIENCE_NS));
    stick(&bed); /* It has received the mail before this one. */
    assert_true(pulse_look(&bed.pulse, AT_NS + 1000 * PATIENCE_NS, PATIENCE_NS));
    sem_post(&bed.go);
    close_bed(&bed);
}

static void test_a_loop_that_has_ended_is_not_asked(void **state)
{
    (void)state;
    struct bed bed;
    open_bed(&bed);
    stick(&bed);
    assert_true(pulse_look(&bed.pulse, AT_NS, PATIENCE_NS));
    pulse_end(&bed.pulse);
    assert_true(pulse_look(&bed.pulse, AT_NS + 2 * PATIENCE_NS, PATIENCE_NS));
    sem_post(&bed.go);
    close_bed(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_loop_that_is_stuck_is_seen_at_the_second_look),
        cmocka_unit_test(test_a_loop_that_nobody_looked_at_for_long_is_live),
        cmocka_unit_test(test_a_loop_that_has_ended_is_not_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
