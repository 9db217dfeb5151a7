/*
 * Shortest decimals, after Raffaello Giulietti's "The Schubfach way to render doubles".
 *
 * A number v = c * 2^q stands for all reals nearer to it than to its neighbours.  Take the power
 * of ten 10^k just below the width of that interval: then at least one multiple of 10^k lies in
 * it, at most one multiple of 10^(k+1) does, and whichever exists is the shortest decimal.  All
 * that is left is to compare v's bounds, scaled by 10^-k, with integers.  Multiplying by a 128-bit
 * approximation of 10^-k and keeping one sticky bit for what is cut off (round to odd) is proven
 * to be exact enough for these comparisons.  For floats the upper 64 bits are enough.
 *
 * Bounds are kept four times too large so that both halves of the distance to a neighbour, also
 * the nearer one below a power of two, are integers.
 */
#include "util/decimal.h"

#include <stdbool.h>
#include <string.h>

#include "util/decimal_powers.h"

__extension__ typedef unsigned __int128 uint128;

/* A finite number above 0: significand * 2^exponent. */
struct binary {
    uint64_t significand;
    int exponent;
    bool lower_is_closer; /* A power of two: the neighbour below is half as far. */
};

struct decimal {
    uint64_t significand;
    int exponent;
};

/* The interval of v, times 4 * 10^-k, rounded to odd. */
struct bounds {
    uint64_t lower;
    uint64_t middle;
    uint64_t upper;
};

struct decimal_power decimal_power(int exponent)
{
    return powers[exponent - DECIMAL_POWER_MIN];
}

/* floor(log10(2^e)), or floor(log10(3/4 * 2^e)): with these constants exact for |e| < 1650. */
static int log10_of_power2(int e, bool three_quarters)
{
    return (e * 1262611 - (three_quarters ? 524031 : 0)) >> 22;
}

/* floor(log2(10^e)), exact for |e| < 1233. */
static int log2_of_power10(int e)
{
    return (e * 1741647) >> 19;
}

static uint64_t scale_double(struct decimal_power power, uint64_t value)
{
    const uint128 low = (uint128)power.low * value;
    const uint128 high = (uint128)power.high * value + (uint64_t)(low >> 64);
    return (uint64_t)(high >> 64) | ((uint64_t)high > 1);
}

static uint64_t scale_float(struct decimal_power power, uint64_t value)
{
    const uint128 product = (uint128)(power.high + (power.low != 0)) * value;
    return (uint64_t)(product >> 64) | ((uint32_t)(product >> 32) > 1);
}

/* The shortest decimal in the interval; `k` is the exponent that the bounds are scaled by. */
static struct decimal choose(struct bounds b, bool even, int k)
{
    const uint64_t lower = b.lower + !even; /* Bounds belong to even numbers only. */
    const uint64_t upper = b.upper - !even;
    const uint64_t s = b.middle / 4;
    if (s >= 10) {
        const uint64_t tenth = s / 10;
        const bool down = lower <= 40 * tenth;
        const bool up = 40 * tenth + 40 <= upper;
        if (down != up) {
            return (struct decimal){ tenth + up, k + 1 };
        }
    }
    const bool down = lower <= 4 * s;
    const bool up = 4 * s + 4 <= upper;
    if (down != up) {
        return (struct decimal){ s + up, k };
    }
    const uint64_t half = 4 * s + 2;
    const bool nearer_up = b.middle > half || (b.middle == half && s % 2 != 0);
    return (struct decimal){ s + nearer_up, k };
}

typedef uint64_t scale_fn(struct decimal_power power, uint64_t value);

static inline struct decimal shortest(struct binary v, scale_fn *scale)
{
    const int k = log10_of_power2(v.exponent, v.lower_is_closer);
    const int shift = v.exponent + log2_of_power10(-k) + 1;
    const struct decimal_power power = decimal_power(-k);
    const uint64_t middle = 4 * v.significand;
    const struct bounds bounds = {
        .lower = scale(power, (middle - 2 + v.lower_is_closer) << shift),
        .middle = scale(power, middle << shift),
        .upper = scale(power, (middle + 2) << shift),
    };
    return choose(bounds, v.significand % 2 == 0, k);
}

/*
 * Digits are laid out with copies of a fixed size, larger than needed, because the compiler turns
 * those into a few moves; a copy of just the right size is a call and took most of the time.
 * `text` ends in zeros, so that copying beyond the last digit writes what integers need there.
 */
#define DIGITS_MAX 20
#define PLAIN_MAX 21 /* Digits before the point, at most; then an exponent is written. */
#define COPY_SIZE 24

struct digits {
    char text[DIGITS_MAX + PLAIN_MAX + COPY_SIZE];
    unsigned first;
    int count;
};

static const char pairs[] = "00010203040506070809101112131415161718192021222324"
                            "25262728293031323334353637383940414243444546474849"
                            "50515253545556575859606162636465666768697071727374"
                            "75767778798081828384858687888990919293949596979899";

/* `value` is not 0.  Trailing zeros are kept in `count`. */
static void digits_of(uint64_t value, struct digits *out)
{
    memset(out->text, '0', sizeof out->text);
    unsigned at = DIGITS_MAX;
    for (; value > UINT32_MAX; value /= 100) {
        at -= 2;
        memcpy(out->text + at, pairs + 2 * (value % 100), 2);
    }
    uint32_t rest = (uint32_t)value;
    for (; rest >= 10; rest /= 100) {
        at -= 2;
        memcpy(out->text + at, pairs + 2 * (rest % 100), 2);
    }
    if (rest > 0) {
        out->text[--at] = (char)('0' + rest);
    }
    out->first = at;
    out->count = (int)(DIGITS_MAX - at);
}

static char *append_exponent(char *out, int exponent)
{
    *out++ = 'e';
    if (exponent < 0) {
        *out++ = '-';
        exponent = -exponent;
    }
    if (exponent >= 100) {
        *out++ = (char)('0' + exponent / 100);
        memcpy(out, pairs + 2 * (exponent % 100), 2);
        return out + 2;
    }
    if (exponent >= 10) {
        *out++ = (char)('0' + exponent / 10);
    }
    *out++ = (char)('0' + exponent % 10);
    return out;
}

/* Lays out 0.DIGITS * 10^point with `count` digits: plainly from 1e-6 to below 1e21, as
 * JavaScript does, else with an exponent. */
static char *lay_out(char *out, const char *digits, int count, int point)
{
    if (point > 0 && point <= PLAIN_MAX) {
        memcpy(out, digits, COPY_SIZE);
        out += point;
        *out++ = '.';
        memcpy(out, digits + point, COPY_SIZE);
        return out + (count > point ? count - point : 1);
    }
    if (point > -6 && point <= 0) {
        memcpy(out, "0.00000", 8);
        out += 2 - point;
        memcpy(out, digits, COPY_SIZE);
        return out + count;
    }
    *out++ = digits[0];
    if (count > 1) {
        *out++ = '.';
        memcpy(out, digits + 1, COPY_SIZE);
        out += count - 1;
    }
    return append_exponent(out, point - 1);
}

static size_t write_decimal(struct decimal value, bool negative, char *out)
{
    struct digits digits;
    digits_of(value.significand, &digits);
    const char *text = digits.text + digits.first;
    int count = digits.count;
    while (text[count - 1] == '0') {
        count--;
    }
    char *at = out;
    *at = '-';
    at += negative;
    at = lay_out(at, text, count, digits.count + value.exponent);
    return (size_t)(at - out);
}

static size_t write_special(bool zero, bool nan, bool negative, char *out)
{
    const char *text = zero ? "0.0" : nan ? "NaN" : "Infinity";
    const bool sign = negative && !nan;
    *out = '-';
    strcpy(out + sign, text);
    return sign + strlen(text);
}

/* Takes apart a number of `mantissa_bits` stored bits; subnormals lack the implicit bit. */
static struct binary take_apart(uint64_t mantissa, int exponent, int mantissa_bits, int bias)
{
    if (exponent == 0) {
        return (struct binary){ mantissa, 1 - bias - mantissa_bits, false };
    }
    return (struct binary){
        .significand = mantissa | UINT64_C(1) << mantissa_bits,
        .exponent = exponent - bias - mantissa_bits,
        .lower_is_closer = mantissa == 0 && exponent > 1,
    };
}

size_t decimal_float(float value, char *out)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const bool negative = bits >> 31;
    const int exponent = (int)(bits >> 23 & 0xff);
    const uint32_t mantissa = bits & 0x7fffff;
    if (exponent == 0xff || (bits << 1) == 0) {
        return write_special(exponent == 0, mantissa != 0, negative, out);
    }
    const struct decimal d = shortest(take_apart(mantissa, exponent, 23, 127), scale_float);
    return write_decimal(d, negative, out);
}

size_t decimal_double(double value, char *out)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    const bool negative = bits >> 63;
    const int exponent = (int)(bits >> 52 & 0x7ff);
    const uint64_t mantissa = bits & UINT64_C(0xfffffffffffff);
    if (exponent == 0x7ff || (bits << 1) == 0) {
        return write_special(exponent == 0, mantissa != 0, negative, out);
    }
    const struct decimal d = shortest(take_apart(mantissa, exponent, 52, 1023), scale_double);
    return write_decimal(d, negative, out);
}
