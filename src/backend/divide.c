/*
 * The fault is a signal in the thread that divides.  Its handler does what the instruction did not:
 * it writes quotient and remainder into the registers and steps over the instruction.
 *
 * Dividend and divisor of a compiled `/` are sign-extended from the type divided.  So when the
 * dividend is the least integer, the divisor was -1, or 0, which the kernels refuse before they
 * divide.
 */
#include "backend/divide.h"

#if defined(__x86_64__)

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <ucontext.h>

#define PREFIX_REX 0x40 /* And the three bits below it, and: */
#define REX_WIDE 0x08
#define OPCODE_GROUP3 0xf7 /* With this in the middle of the byte that follows: */
#define GROUP3_IDIV 7

static struct sigaction before;

/* Bytes that the operand takes up, its first byte included (Intel's manual, volume 2, 2.1). */
static size_t operand_bytes(const uint8_t *operand)
{
    const unsigned mode = operand[0] >> 6;
    const unsigned base = operand[0] & 7;
    const bool scaled = mode != 3 && base == 4;
    const size_t size = scaled ? 2 : 1;
    switch (mode) {
    case 0:
        return size + (base == 5 || (scaled && (operand[1] & 7) == 5) ? 4 : 0);
    case 1:
        return size + 1;
    case 2:
        return size + 4;
    default:
        return size;
    }
}

/* True when `code` is a signed division of 32 or 64 bits. */
static bool is_division(const uint8_t *code, bool *wide, size_t *bytes)
{
    const size_t prefix = (code[0] & 0xf0) == PREFIX_REX ? 1 : 0;
    const uint8_t *at = code + prefix;
    if (at[0] != OPCODE_GROUP3 || (at[1] >> 3 & 7) != GROUP3_IDIV) {
        return false;
    }
    *wide = prefix == 1 && (code[0] & REX_WIDE) != 0;
    *bytes = prefix + 1 + operand_bytes(at + 1);
    return true;
}

static bool is_least(uint64_t low, uint64_t high, bool wide)
{
    return wide ? low == UINT64_C(1) << 63 && high == UINT64_MAX
                : (uint32_t)low == UINT32_C(1) << 31 && (uint32_t)high == UINT32_MAX;
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *code = (const uint8_t *)(uintptr_t)registers[REG_RIP];
    bool wide = false;
    size_t bytes = 0;
    if (info->si_code == FPE_INTDIV && is_division(code, &wide, &bytes) &&
        is_least((uint64_t)registers[REG_RAX], (uint64_t)registers[REG_RDX], wide)) {
        /* The quotient is the dividend, which is already where it belongs; as after any instruction
         * on 32 bits, the other 32 are zero. */
        registers[REG_RAX] &= wide ? -1 : (greg_t)UINT32_MAX;
        registers[REG_RDX] = 0;
        registers[REG_RIP] += (greg_t)bytes;
        return;
    }
    (void)sigaction(signal, &before, NULL); /* It divides again, and ends there. */
}

void divide_install(void)
{
    struct sigaction action = { .sa_flags = SA_SIGINFO | SA_NODEFER };
    action.sa_sigaction = on_fault;
    sigemptyset(&action.sa_mask);
    struct sigaction now;
    if (sigaction(SIGFPE, NULL, &now) == 0 && now.sa_sigaction != on_fault) {
        before = now;
        (void)sigaction(SIGFPE, &action, NULL);
    }
}

#else

void divide_install(void)
{
}

#endif
