/*
 * decimal.h — binary floating point as the shortest decimal text.
 *
 * Of all decimals that read back as the same number the one with the fewest digits is written, and
 * of those the one nearest to the number.  The text is a JSON number with a point or an exponent:
 * "2.0", "0.1", "-1.5e-9".  Any thread; nothing is allocated; no locale is looked at.
 */
#ifndef WEIR_UTIL_DECIMAL_H
#define WEIR_UTIL_DECIMAL_H

#include <stddef.h>
#include <stdint.h>

#define DECIMAL_MAX 48 /* Bytes that writing any number may touch. */

/* Return how many bytes of `out`, which has DECIMAL_MAX, the number takes; no NUL is promised.
 * Numbers that are not finite become NaN, Infinity and -Infinity. */
size_t decimal_float(float value, char *out);
size_t decimal_double(double value, char *out);

/* The smallest integer at or above 10^exponent * 2^n whose n makes it 128 bits long; exponent is
 * in [DECIMAL_POWER_MIN, DECIMAL_POWER_MAX].  Here for the test that computes them anew. */
#define DECIMAL_POWER_MIN (-292)
#define DECIMAL_POWER_MAX 324

struct decimal_power {
    uint64_t high;
    uint64_t low;
};

struct decimal_power decimal_power(int exponent);

#endif
