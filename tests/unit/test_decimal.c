/*
 * decimal: every number reads back as the same bits and no shorter text would.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/decimal.h"

#define LIMBS 40 /* 32 bits each: 10^324 has 1077 bits. */

static void expect_double(double value, const char *text)
{
    char out[DECIMAL_MAX + 1];
    out[decimal_double(value, out)] = '\0';
    assert_string_equal(out, text);
}

static void expect_float(float value, const char *text)
{
    char out[DECIMAL_MAX + 1];
    out[decimal_float(value, out)] = '\0';
    assert_string_equal(out, text);
}

static void test_known_doubles(void **state)
{
    (void)state;
    expect_double(0.0, "0.0");
    expect_double(-0.0, "-0.0");
    expect_double(2.0, "2.0");
    expect_double(-1.5, "-1.5");
    expect_double(0.1, "0.1");
    expect_double(0.1 + 0.2, "0.30000000000000004");
    expect_double(100.0, "100.0");
    expect_double(1e-6, "0.000001");
    expect_double(1e-7, "1e-7");
    expect_double(1.25e-10, "1.25e-10");
    expect_double(123456789012345680000.0, "123456789012345680000.0");
    expect_double(1e21, "1e21");
    expect_double(1.7976931348623157e308, "1.7976931348623157e308");
    expect_double(-5e-324, "-5e-324");
    expect_double(2.2250738585072014e-308, "2.2250738585072014e-308");
    expect_double(9007199254740993.0, "9007199254740992.0");
    expect_double((double)NAN, "NaN");
    expect_double(-(double)INFINITY, "-Infinity");
}

static void test_known_floats(void **state)
{
    (void)state;
    expect_float(0.0f, "0.0");
    expect_float(0.1f, "0.1");
    expect_float(16777216.0f, "16777216.0");
    expect_float(0.3f, "0.3");
    expect_float(3.4028235e38f, "3.4028235e38");
    expect_float(1e-45f, "1e-45");
    expect_float(-(float)NAN, "NaN");
    expect_float((float)INFINITY, "Infinity");
    expect_float(8.589973e9f, "8589974000.0"); /* Of two equally short ones the nearer. */
    expect_float(1.1754944e-38f, "1.1754944e-38");
    expect_float(0x1p-12f, "0.00024414062"); /* Of two equally near ones the even. */
    expect_float(0x1.8p-10f, "0.0014648438");
}

/* Digits that count: without sign, point, exponent and the zeros on both sides. */
static int significant_digits(const char *text)
{
    int count = 0;
    int zeros = 0;
    for (; *text != '\0' && *text != 'e'; text++) {
        if (*text == '0') {
            zeros += count > 0;
        } else if (*text >= '1' && *text <= '9') {
            count += zeros + 1;
            zeros = 0;
        }
    }
    return count;
}

static void check_double(double value)
{
    char out[DECIMAL_MAX + 1];
    out[decimal_double(value, out)] = '\0';
    const double back = strtod(out, NULL);
    assert_memory_equal(&back, &value, sizeof value);
    const int digits = significant_digits(out);
    if (digits > 1) {
        char shorter[64];
        (void)snprintf(shorter, sizeof shorter, "%.*e", digits - 2, value);
        assert_true(strtod(shorter, NULL) != value);
    }
}

static void check_float(float value)
{
    char out[DECIMAL_MAX + 1];
    out[decimal_float(value, out)] = '\0';
    const float back = strtof(out, NULL);
    assert_memory_equal(&back, &value, sizeof value);
    /* Readers of JSON go through a double. */
    assert_true((float)strtod(out, NULL) == value);
    const int digits = significant_digits(out);
    if (digits > 1) {
        char shorter[64];
        (void)snprintf(shorter, sizeof shorter, "%.*e", digits - 2, (double)value);
        assert_true(strtof(shorter, NULL) != value);
    }
}

static uint64_t next_random(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static void test_random_doubles(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (int i = 0; i < 200000; i++) {
        uint64_t bits = next_random(&seed);
        if (i % 4 == 1) {
            bits &= ~UINT64_C(0xfffffffffffff); /* Powers of two: the lopsided interval. */
        } else if (i % 4 == 2) {
            bits &= ~UINT64_C(0xffffffff);
        }
        double value;
        memcpy(&value, &bits, sizeof value);
        if (isfinite(value)) {
            check_double(value);
        }
    }
}

static void test_random_floats(void **state)
{
    (void)state;
    uint64_t seed = 2;
    for (int i = 0; i < 300000; i++) {
        const uint64_t bits64 = next_random(&seed);
        uint32_t bits = (uint32_t)bits64;
        float value = (float)(bits64 >> 40) / 16777216.0f; /* What networks answer: 0 to 1. */
        if (i % 2 == 0) {
            memcpy(&value, &bits, sizeof value);
        }
        if (isfinite(value)) {
            check_float(value);
        }
    }
}

static void test_every_exponent(void **state)
{
    (void)state;
    for (uint64_t exponent = 0; exponent < 0x7ff; exponent++) {
        for (uint64_t mantissa = 0; mantissa < 3; mantissa++) {
            const uint64_t bits = exponent << 52 | ((mantissa - 1) & UINT64_C(0xfffffffffffff));
            double value;
            memcpy(&value, &bits, sizeof value);
            check_double(value);
        }
    }
    for (uint32_t exponent = 0; exponent < 0xff; exponent++) {
        for (uint32_t mantissa = 0; mantissa < 3; mantissa++) {
            const uint32_t bits = exponent << 23 | ((mantissa - 1) & UINT32_C(0x7fffff));
            float value;
            memcpy(&value, &bits, sizeof value);
            check_float(value);
        }
    }
}

/* Integers of any size, just enough of them to compute powers of ten. */
struct big {
    uint32_t limbs[LIMBS]; /* Least significant first. */
};

static void multiply(struct big *a, uint32_t factor)
{
    uint64_t carry = 0;
    for (int i = 0; i < LIMBS; i++) {
        carry += (uint64_t)a->limbs[i] * factor;
        a->limbs[i] = (uint32_t)carry;
        carry >>= 32;
    }
    assert_int_equal(carry, 0);
}

static int bits_of(const struct big *a)
{
    for (int i = LIMBS * 32 - 1; i >= 0; i--) {
        if (a->limbs[i / 32] >> (i % 32) & 1) {
            return i + 1;
        }
    }
    return 0;
}

static bool bit_of(const struct big *a, int at)
{
    return at >= 0 && (a->limbs[at / 32] >> (at % 32) & 1) != 0;
}

static int compare(const struct big *a, const struct big *b)
{
    for (int i = LIMBS - 1; i >= 0; i--) {
        if (a->limbs[i] != b->limbs[i]) {
            return a->limbs[i] < b->limbs[i] ? -1 : 1;
        }
    }
    return 0;
}

static void subtract(struct big *a, const struct big *b)
{
    int64_t borrow = 0;
    for (int i = 0; i < LIMBS; i++) {
        borrow += (int64_t)a->limbs[i] - b->limbs[i];
        a->limbs[i] = (uint32_t)borrow;
        borrow >>= 32;
    }
}

static void append_bit(struct decimal_power *power, bool bit)
{
    power->high = power->high << 1 | power->low >> 63;
    power->low = power->low << 1 | bit;
}

static void add_one(struct decimal_power *power)
{
    power->low++;
    power->high += power->low == 0;
}

/* The leading 128 bits of `ten`, rounded up. */
static struct decimal_power leading_bits(const struct big *ten)
{
    const int bits = bits_of(ten);
    struct decimal_power power = { 0, 0 };
    for (int i = 1; i <= 128; i++) {
        append_bit(&power, bit_of(ten, bits - i));
    }
    bool more = false;
    for (int i = 129; i <= bits; i++) {
        more = more || bit_of(ten, bits - i);
    }
    if (more) {
        add_one(&power);
    }
    return power;
}

/* The leading 128 bits of 1 / ten, rounded up, by long division. */
static struct decimal_power leading_bits_of_inverse(const struct big *ten)
{
    struct big rest = { { 1 } };
    struct decimal_power power = { 0, 0 };
    while (power.high >> 63 == 0) {
        multiply(&rest, 2);
        const bool bit = compare(&rest, ten) >= 0;
        if (bit) {
            subtract(&rest, ten);
        }
        append_bit(&power, bit);
    }
    if (bits_of(&rest) > 0) {
        add_one(&power);
    }
    return power;
}

static void test_powers_are_right(void **state)
{
    (void)state;
    struct big ten = { { 1 } };
    for (int exponent = 0; exponent <= DECIMAL_POWER_MAX; exponent++) {
        const struct decimal_power expected = leading_bits(&ten);
        const struct decimal_power found = decimal_power(exponent);
        assert_true(found.high == expected.high && found.low == expected.low);
        if (exponent > 0 && -exponent >= DECIMAL_POWER_MIN) {
            const struct decimal_power inverse = leading_bits_of_inverse(&ten);
            const struct decimal_power negative = decimal_power(-exponent);
            assert_true(negative.high == inverse.high && negative.low == inverse.low);
        }
        multiply(&ten, 10);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_doubles),  cmocka_unit_test(test_known_floats),
        cmocka_unit_test(test_random_doubles), cmocka_unit_test(test_random_floats),
        cmocka_unit_test(test_every_exponent), cmocka_unit_test(test_powers_are_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
