/*
 * The binomial distribution function is the regularized incomplete beta function,
 * CDF(t; n, p) = I(1-p; n-t, t+1), computed by its continued fraction (modified Lentz): exact to
 * many digits for millions of requests, where adding up terms would be slow and inexact.
 */
#include "cmd/verdict.h"

#include <math.h>

#define FRACTION_STEPS_MAX 100000
#define FRACTION_EPSILON 1e-14
#define FRACTION_TINY 1e-300

#define SEARCH_SPAN 100 /* How far below its first rate a search looks. */

const char *verdict_word(enum verdict verdict)
{
    static const char *const words[] = {
#define VERDICT_WORD(name, word) word,
        VERDICTS(VERDICT_WORD)
#undef VERDICT_WORD
    };
    return words[verdict];
}

static double away_from_zero(double x)
{
    return fabs(x) < FRACTION_TINY ? FRACTION_TINY : x;
}

/* Converges fast for x < (a + 1) / (a + b + 2). */
static double beta_fraction(double x, double a, double b)
{
    double c = 1;
    double d = 1 / away_from_zero(1 - (a + b) * x / (a + 1));
    double value = d;
    for (int step = 1; step < FRACTION_STEPS_MAX; step++) {
        const double m = step;
        const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        d = 1 / away_from_zero(1 + even * d);
        c = away_from_zero(1 + even / c);
        value *= d * c;
        const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        d = 1 / away_from_zero(1 + odd * d);
        c = away_from_zero(1 + odd / c);
        value *= d * c;
        if (fabs(d * c - 1) < FRACTION_EPSILON) {
            break;
        }
    }
    return value;
}

/* lgamma() writes a global; this one does not. */
static double log_gamma(double x)
{
    int sign = 0;
    return lgamma_r(x, &sign);
}

static double beta_regularized(double x, double a, double b)
{
    const double front =
        exp(log_gamma(a + b) - log_gamma(a) - log_gamma(b) + a * log(x) + b * log1p(-x));
    if (x < (a + 1) / (a + b + 2)) {
        return front * beta_fraction(x, a, b) / a;
    }
    return 1 - front * beta_fraction(1 - x, b, a) / b;
}

double verdict_cdf(uint64_t t, uint64_t n, double p)
{
    if (t >= n || p <= 0) {
        return 1;
    }
    if (p >= 1) {
        return 0;
    }
    return beta_regularized(1 - p, (double)(n - t), (double)t + 1);
}

enum verdict verdict_of(uint64_t requests, uint64_t misses, double miss, double doubt)
{
    if (requests == 0) {
        return VERDICT_OPEN;
    }
    if (verdict_cdf(misses, requests, miss) <= doubt) {
        return VERDICT_PASSED;
    }
    if (misses > 0 && 1 - verdict_cdf(misses - 1, requests, miss) <= doubt) {
        return VERDICT_FAILED;
    }
    return VERDICT_OPEN;
}

void verdict_search_init(struct verdict_search *search, double start, double rate_max,
                         double resolution)
{
    *search = (struct verdict_search){
        .rate = start,
        .rate_min = start / SEARCH_SPAN,
        .rate_max = rate_max,
        .resolution = resolution,
        .tries_max = VERDICT_TRIES_MAX,
    };
}

/* Narrow enough, or as high as may be asked. */
static bool is_settled(const struct verdict_search *search)
{
    if (search->valid == 0) {
        return false;
    }
    return search->valid >= search->rate_max ||
           (search->failed > 0 && search->failed <= search->valid * (1 + search->resolution));
}

static double next_rate(const struct verdict_search *search)
{
    if (search->failed == 0) {
        return fmin(search->valid * 2, search->rate_max);
    }
    if (search->valid == 0) {
        return search->failed / 2;
    }
    return sqrt(search->valid * search->failed);
}

/* The second run of what the search has found. */
static void confirm(struct verdict_search *search, bool passed)
{
    if (passed) {
        search->done = true;
        return;
    }
    search->failed = search->rate;
    search->valid = 0;
    search->rate /= 1 + search->resolution;
}

void verdict_search_void(struct verdict_search *search)
{
    search->voids++;
    if (search->voids < VERDICT_VOIDS_MAX) {
        search->tries++;
        search->done = search->tries >= search->tries_max;
    } else if (search->valid > 0) {
        verdict_search_tell(search, false);
    } else {
        search->done = true;
    }
}

void verdict_search_tell(struct verdict_search *search, bool passed)
{
    search->tries++;
    search->voids = 0;
    if (search->confirming) {
        search->valid = passed ? search->rate : search->valid;
        confirm(search, passed);
    } else if (passed) {
        search->valid = fmax(search->valid, search->rate);
    } else {
        search->failed = search->failed == 0 ? search->rate : fmin(search->failed, search->rate);
    }
    if (!search->confirming && is_settled(search)) {
        search->confirming = true;
        search->rate = search->valid;
    } else if (!search->confirming) {
        search->rate = next_rate(search);
    }
    search->done =
        search->done || search->tries >= search->tries_max || search->rate < search->rate_min;
}
