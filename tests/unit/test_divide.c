/*
 * The divisions are written by hand: in C the one that is meant here is undefined, and the form of
 * its operand is the compiler's choice.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <signal.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "backend/divide.h"

#if defined(__x86_64__)

static int64_t divisor = -1;

/* X(operand, from where the address counts): every way to write down an operand. */
#define ADDRESSES(X)           \
    X("(%%rcx)", 0)            \
    X("(%%r8)", 0)             \
    X("(%%r12)", 0)            \
    X("(%%r13)", 0)            \
    X("8(%%rcx)", 8)           \
    X("-8(%%r12)", -8)         \
    X("4096(%%rcx)", 4096)     \
    X("4096(%%r12)", 4096)     \
    X("(%%rcx,%%r9,8)", 0)     \
    X("(%%r13,%%r9,2)", 0)     \
    X("8(%%r8,%%r9,4)", 8)     \
    X("4096(%%rcx,%%r9)", 4096) \
    X("(,%%rcx,1)", 0)         \
    X("divisor(%%rip)", 0)

#define VALUES(X)  \
    X("%%rcx", 64) \
    X("%%r8", 64)  \
    X("%%r15", 64) \
    X("%%ecx", 32) \
    X("%%r8d", 32) \
    X("%%r15d", 32)

/* rcx and copies of it lead to the divisor; r9 is 0. */
#define DIVIDE(instruction, high, low, rest, from)                                 \
    __asm__ volatile("mov %%rcx, %%r8\n\tmov %%rcx, %%r12\n\tmov %%rcx, %%r13\n\t" \
                     "mov %%rcx, %%r15\n\txor %%r9d, %%r9d\n\t" instruction        \
                     : "+a"(low), "=d"(rest)                                       \
                     : "c"(from), "d"(high), "m"(divisor)                          \
                     : "r8", "r9", "r12", "r13", "r15", "cc", "memory")

static void expect(uint64_t quotient, uint64_t rest, uint64_t least)
{
    assert_true(quotient == least);
    assert_true(rest == 0);
}

static void test_the_least_integer_by_minus_one_wraps(void **state)
{
    (void)state;
    divide_install(); /* After cmocka's handler. */
    divide_install();
    const uint64_t least = UINT64_C(1) << 63;
    const uint64_t least_half = UINT64_C(1) << 31;
#define BY_ADDRESS(operand, offset)                                               \
    {                                                                             \
        const uint64_t from = (uint64_t)(uintptr_t)&divisor - (uint64_t)(offset); \
        uint64_t low = least;                                                     \
        uint64_t rest;                                                            \
        DIVIDE("idivq " operand, UINT64_MAX, low, rest, from);                    \
        expect(low, rest, least);                                                 \
        low = least_half;                                                         \
        DIVIDE("idivl " operand, UINT64_MAX, low, rest, from);                    \
        expect(low, rest, least_half);                                            \
    }
    ADDRESSES(BY_ADDRESS)
#define BY_VALUE(operand, bits)                                     \
    {                                                               \
        uint64_t low = (bits) == 64 ? least : least_half;           \
        uint64_t rest;                                              \
        DIVIDE("idiv " operand, UINT64_MAX, low, rest, UINT64_MAX); \
        expect(low, rest, (bits) == 64 ? least : least_half);       \
    }
    VALUES(BY_VALUE)
}

static void test_other_divisions_are_as_ever(void **state)
{
    (void)state;
    uint64_t low = (uint64_t)-7;
    uint64_t rest;
    DIVIDE("idivq %%rcx", UINT64_MAX, low, rest, UINT64_C(2));
    assert_true(low == (uint64_t)-3);
    assert_true(rest == (uint64_t)-1);
}

/* How a child ends that divides high:low by `by`, without a core file. */
static int end_of(uint64_t high, uint64_t low, uint64_t by, bool is_signed)
{
    const pid_t child = fork();
    if (child == 0) {
        const struct rlimit none = { 0, 0 };
        (void)setrlimit(RLIMIT_CORE, &none);
        (void)signal(SIGFPE, SIG_DFL);
        divide_install();
        uint64_t rest;
        if (is_signed) {
            DIVIDE("idivq %%rcx", high, low, rest, by);
        } else {
            DIVIDE("divq %%rcx", high, low, rest, by);
        }
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
}

static void test_other_faults_go_where_they_went(void **state)
{
    (void)state;
    assert_int_equal(end_of(0, 1, 0, true), SIGFPE);
    assert_int_equal(end_of(1, 0, 1, true), SIGFPE);
    assert_int_equal(end_of(UINT64_MAX, UINT64_C(1) << 63, 1, false), SIGFPE);
    assert_int_equal(end_of(UINT64_MAX, UINT64_C(1) << 63, UINT64_MAX, true), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_least_integer_by_minus_one_wraps),
        cmocka_unit_test(test_other_divisions_are_as_ever),
        cmocka_unit_test(test_other_faults_go_where_they_went),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

/* Other processors wrap by themselves. */
int main(void)
{
    divide_install();
    return 0;
}

#endif
