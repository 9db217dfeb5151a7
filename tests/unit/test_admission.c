/*
 * admission: who is let in at arrival, and who would be late for it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "engine/admission.h"
#include "engine/request.h"
#include "util/clock.h"

#define MOST 256
#define NOW (10 * NS_PER_S)

struct rig {
    struct list waiting;
    struct request requests[MOST];
    uint32_t count;
    uint64_t rows;
    struct admission admission;
    struct admission_tail tail;
    uint64_t end_ns;
};

/* A run of b rows takes 1 + b/10 ms; one executor, busy for `busy_ns`. */
static void rig_make(struct rig *rig, uint64_t busy_ns)
{
    memset(rig, 0, sizeof(*rig));
    list_init(&rig->waiting);
    rig->admission = (struct admission){ .cost = { 1000000, 100000, 0 },
                                         .rows_max = 64,
                                         .now_ns = NOW,
                                         .free_ns = { NOW + busy_ns },
                                         .share = 1,
                                         .slots = 1 };
}

static struct request *make(struct rig *rig, uint64_t came_ns, uint64_t allowed_ns)
{
    struct request *request = &rig->requests[rig->count++];
    request->rows = 1;
    request->batchable = true;
    request->times.submitted_ns = came_ns;
    request->deadline_ns = clock_add(came_ns, allowed_ns);
    return request;
}

static void wait(struct rig *rig, const struct request *request)
{
    list_append(&rig->waiting, (struct list_node *)(uintptr_t)&request->due);
    rig->rows += request->rows;
}

static enum admission_verdict check(struct rig *rig, const struct request *request)
{
    struct admission_tail none = { 0 };
    uint64_t end_ns;
    const enum admission_verdict verdict = admission_check(
        &rig->waiting, rig->rows, request, &rig->admission, &rig->tail, &rig->end_ns);
    /* What is remembered of the line changes nothing. */
    assert_int_equal(verdict, admission_check(&rig->waiting, rig->rows, request, &rig->admission,
                                              &none, &end_ns));
    assert_int_equal(rig->end_ns, end_ns);
    return verdict;
}

/* How many of those that come now are let in. */
static uint32_t fill(struct rig *rig, uint64_t allowed_ns)
{
    for (uint32_t in = 0;; in++) {
        const struct request *request = make(rig, NOW, allowed_ns);
        if (check(rig, request) != ADMISSION_FITS) {
            return in;
        }
        wait(rig, request);
    }
}

static void test_an_idle_device_takes_all_that_fits(void **state)
{
    (void)state;
    struct rig rig;
    rig_make(&rig, 0);
    assert_int_equal(fill(&rig, 5 * NS_PER_MS), 40); /* One run. */
    rig_make(&rig, 0);
    assert_int_equal(fill(&rig, NS_PER_MS), 0);
    assert_int_equal(rig.end_ns, NOW + 1100 * NS_PER_US);
}

static void test_a_running_batch_is_waited_for(void **state)
{
    (void)state;
    struct rig rig;
    rig_make(&rig, 3 * NS_PER_MS);
    assert_int_equal(fill(&rig, 5 * NS_PER_MS), 10);
}

static void test_the_oldest_member_counts(void **state)
{
    (void)state;
    struct rig rig;
    rig_make(&rig, NS_PER_MS);
    /* The oldest must be served by a run of ten, which the newcomer would be the eleventh of; the
     * next run begins at 3 ms, and ends in time for newcomers. */
    for (int i = 0; i < 10; i++) {
        wait(&rig, make(&rig, NOW - 2 * NS_PER_MS, 5 * NS_PER_MS));
    }
    const struct request *request = make(&rig, NOW, 5 * NS_PER_MS);
    assert_int_equal(check(&rig, request), ADMISSION_FITS);
    assert_int_equal(rig.end_ns, NOW + 4100 * NS_PER_US);
    assert_int_equal(check(&rig, make(&rig, NOW, 4 * NS_PER_MS)), ADMISSION_LATE);
    assert_int_equal(rig.end_ns, NOW + 4100 * NS_PER_US);
}

static void test_later_runs_count_too(void **state)
{
    (void)state;
    struct rig rig;
    rig_make(&rig, 0);
    /* The line is full to the last deadline; one in front of it would make the last late. */
    const uint32_t in = fill(&rig, 15 * NS_PER_MS);
    assert_in_range(in, 100, 140);
    assert_int_equal(check(&rig, make(&rig, NOW, 3 * NS_PER_MS)), ADMISSION_CROWDS);
}

static void test_who_is_late_anyway_keeps_nobody_out(void **state)
{
    (void)state;
    struct rig rig;
    rig_make(&rig, 0);
    wait(&rig, make(&rig, NOW - 5 * NS_PER_MS, 5500 * NS_PER_US));
    assert_int_equal(check(&rig, make(&rig, NOW, 5 * NS_PER_MS)), ADMISSION_FITS);
}

static void test_classes_wait_for_the_more_urgent_only(void **state)
{
    (void)state;
    struct rig rig;
    rig_make(&rig, 0);
    for (int i = 0; i < 100; i++) { /* 64 in 7.4 ms, the others in 4.6 more. */
        struct request *request = make(&rig, NOW, 15 * NS_PER_MS);
        request->class = 4;
        wait(&rig, request);
    }
    struct request *request = make(&rig, NOW, 10 * NS_PER_MS);
    request->class = 4;
    assert_int_equal(check(&rig, request), ADMISSION_FITS); /* It is due before them. */
    request->class = 2;
    assert_int_equal(check(&rig, request), ADMISSION_FITS);
    assert_int_equal(rig.end_ns, NOW + 1100 * NS_PER_US);
    request->class = 6;
    rig.admission.outranked = true;
    assert_int_equal(check(&rig, request), ADMISSION_LATE);
}

static void test_only_its_own_clients_requests_may_count(void **state)
{
    (void)state;
    struct rig rig;
    rig_make(&rig, NS_PER_MS);
    struct order_client *const others = (struct order_client *)(void *)&rig;
    while (true) {
        struct request *request = make(&rig, NOW, 5 * NS_PER_MS);
        request->payer = others;
        if (check(&rig, request) != ADMISSION_FITS) {
            break;
        }
        wait(&rig, request);
    }
    const struct request *request = make(&rig, NOW, 5 * NS_PER_MS);
    assert_int_equal(check(&rig, request), ADMISSION_LATE);
    rig.admission.own = true;
    assert_int_equal(check(&rig, request), ADMISSION_FITS);
    assert_int_equal(rig.end_ns, NOW + 2100 * NS_PER_US);
}

static void test_two_executors_take_twice_as_much(void **state)
{
    (void)state;
    struct rig rig;
    rig_make(&rig, 0);
    rig.admission.free_ns[1] = NOW;
    rig.admission.slots = 2;
    assert_int_equal(fill(&rig, 5 * NS_PER_MS), 80);
    rig_make(&rig, 0);
    rig.admission.free_ns[1] = NOW + 3 * NS_PER_MS;
    rig.admission.slots = 2;
    assert_int_equal(fill(&rig, 5 * NS_PER_MS), 50);
}

/* Were one let in who just fits alone, the run that it opens could take nobody else. */
static void test_who_opens_a_run_leaves_room_for_those_that_come(void **state)
{
    (void)state;
    struct rig rig;
    rig_make(&rig, 3 * NS_PER_MS);
    const struct request *request = make(&rig, NOW, 4500 * NS_PER_US);
    assert_int_equal(check(&rig, request), ADMISSION_FITS);
    rig.admission.arriving = 10 / 1e6; /* Ten a millisecond: thirty will have come. */
    assert_int_equal(check(&rig, request), ADMISSION_LATE);
    assert_true(rig.end_ns > request->deadline_ns);
}

static void test_without_a_deadline_everybody_gets_in(void **state)
{
    (void)state;
    struct rig rig;
    rig_make(&rig, NS_PER_S);
    rig.admission.arriving = 1;
    for (int i = 0; i < 200; i++) {
        struct request *request = make(&rig, NOW, CLOCK_NEVER);
        assert_int_equal(check(&rig, request), ADMISSION_FITS);
        wait(&rig, request);
    }
    assert_int_equal(check(&rig, make(&rig, NOW, 2 * NS_PER_S)), ADMISSION_FITS);
}

static void test_requests_that_share_no_run_are_laid_one_after_the_other(void **state)
{
    (void)state;
    struct rig rig;
    rig_make(&rig, 0);
    rig.admission.rows_max = 1;
    for (int i = 0; i < 4; i++) {
        struct request *request = make(&rig, NOW, 5 * NS_PER_MS);
        request->batchable = false;
        assert_int_equal(check(&rig, request), ADMISSION_FITS);
        wait(&rig, request);
    }
    struct request *request = make(&rig, NOW, 5 * NS_PER_MS);
    request->batchable = false;
    assert_int_equal(check(&rig, request), ADMISSION_LATE);
    assert_int_equal(rig.end_ns, NOW + 5500 * NS_PER_US);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_idle_device_takes_all_that_fits),
        cmocka_unit_test(test_a_running_batch_is_waited_for),
        cmocka_unit_test(test_the_oldest_member_counts),
        cmocka_unit_test(test_later_runs_count_too),
        cmocka_unit_test(test_who_is_late_anyway_keeps_nobody_out),
        cmocka_unit_test(test_classes_wait_for_the_more_urgent_only),
        cmocka_unit_test(test_only_its_own_clients_requests_may_count),
        cmocka_unit_test(test_two_executors_take_twice_as_much),
        cmocka_unit_test(test_who_opens_a_run_leaves_room_for_those_that_come),
        cmocka_unit_test(test_without_a_deadline_everybody_gets_in),
        cmocka_unit_test(test_requests_that_share_no_run_are_laid_one_after_the_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
