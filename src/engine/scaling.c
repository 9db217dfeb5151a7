/*
 * Self-finding parallelism.
 *
 * It begins with everything the device has, which is right for most, and looks for less from there:
 * one fewer, half, where the law's knee would be, one more.  A trial costs at most what a few dozen
 * runs at another count cost; while trials find nothing the time between them doubles.
 *
 * Fewer runs are taken when they do as much (each of them is then quicker), more only when they do
 * clearly more: between the two nothing moves, so noise does not make it swing.
 */
#include "engine/scaling.h"

#include <math.h>
#include <string.h>

#include "util/clock.h"

#define DECAY 0.98
#define LEVEL_RUNS_MIN 16 /* Before a level says anything. */
#define QUIET_MIN 256     /* Runs between trials at first, */
#define QUIET_MAX 65536   /* and when they find nothing. */
#define AT_ONCE_SWAY 0.2  /* A run belongs to a count when its average was so close to it. */
#define AS_MUCH 0.98
#define CLEARLY_MORE 1.05
#define HOPE 0.9         /* Fewer runs are tried if they may do so much. */
#define SIZE_RUNS_MIN 8  /* Before a size says anything, */
#define SIZE_RUNS_MAX 16 /* and the most that it counts. */
#define SIZE_FALL 0.5F   /* A run that took less tells more than one that was held up: */
#define SIZE_RISE 0.0625F
#define SIZE_AGE_MAX 65536
#define HELD_UP 2.0F          /* A run counts as so many times what its like take, at most. */
#define DOUBT (8 * QUIET_MIN) /* Then a trial shall say, too, what run times said. */
#define PATIENCE 8 /* A trial is given up after so many times its runs: the load has gone. */

void scaling_init(struct scaling *scaling, uint32_t runs_max, bool fixed)
{
    *scaling = (struct scaling){
        .runs_max = runs_max <= SCALING_RUNS_MAX ? runs_max : 0,
        .fixed = fixed,
        .chosen = runs_max,
        .quiet_min = QUIET_MIN,
    };
}

void scaling_pass(struct scaling *scaling, uint32_t running, uint64_t now_ns)
{
    if (now_ns > scaling->area_ns) {
        scaling->area += running * (now_ns - scaling->area_ns);
        scaling->area_ns = now_ns;
    }
}

uint32_t scaling_cap(const struct scaling *scaling)
{
    return scaling->trial > 0 ? scaling->trial : scaling->chosen;
}

double scaling_rate(const struct scaling *scaling, uint32_t runs)
{
    const struct scaling_level *level = &scaling->levels[runs];
    return level->runs >= LEVEL_RUNS_MIN ? level->work / level->ns : 0;
}

/* --- The law ---------------------------------------------------------------------------------- */

/* Weighted sums for N / X(N) = c0 + c1 (N - 1) + c2 N (N - 1). */
struct sums {
    double m[3][4]; /* The normal equations, with their right side. */
    uint32_t count;
};

static struct sums sum_up(const struct scaling *scaling)
{
    struct sums sums = { .count = 0 };
    for (uint32_t n = 1; n <= scaling->runs_max; n++) {
        const double rate = scaling_rate(scaling, n);
        if (rate <= 0) {
            continue;
        }
        const double y = n / rate;
        const double row[4] = { 1, n - 1.0, n * (n - 1.0), y };
        const double weight = 1 / (y * y); /* Errors are relative ones. */
        for (int i = 0; i < 3; i++) {
            for (int k = 0; k < 4; k++) {
                sums.m[i][k] += weight * row[i] * row[k];
            }
        }
        sums.count++;
    }
    return sums;
}

/* Solves for the first `size` unknowns by elimination; false: they do not follow from the data. */
static bool solve(const struct sums *sums, int size, double out[3])
{
    double m[3][4];
    for (int i = 0; i < size; i++) {
        for (int k = 0; k < size; k++) {
            m[i][k] = sums->m[i][k];
        }
        m[i][3] = sums->m[i][3];
    }
    for (int i = 0; i < size; i++) {
        if (m[i][i] < 1e-9 * sums->m[i][i] || m[i][i] <= 0) {
            return false;
        }
        for (int below = i + 1; below < size; below++) {
            const double factor = m[below][i] / m[i][i];
            for (int k = i; k < size; k++) {
                m[below][k] -= factor * m[i][k];
            }
            m[below][3] -= factor * m[i][3];
        }
    }
    for (int i = size - 1; i >= 0; i--) {
        double rest = m[i][3];
        for (int k = i + 1; k < size; k++) {
            rest -= m[i][k] * out[k];
        }
        out[i] = rest / m[i][i];
    }
    return true;
}

bool scaling_fit(const struct scaling *scaling, struct scaling_law *out)
{
    const struct sums sums = sum_up(scaling);
    double c[3] = { 0 };
    if (sums.count < 2) {
        return false;
    }
    bool solved = sums.count >= 3 && solve(&sums, 3, c);
    if (!solved || c[2] < 0) { /* Runs do not cost each other less than nothing. */
        c[2] = 0;
        solved = solve(&sums, 2, c);
    }
    if (!solved || c[0] <= 0) {
        return false;
    }
    *out = (struct scaling_law){ .one = 1 / c[0], .a = c[1] / c[0], .b = c[2] / c[0] };
    return true;
}

static double gain_at(const struct scaling_law *law, double n)
{
    return n / (1 + law->a * (n - 1) + law->b * n * (n - 1));
}

uint32_t scaling_knee(const struct scaling_law *law, uint32_t runs_max)
{
    if (law->a >= 1) {
        return 1;
    }
    const double top = law->b > 0 ? sqrt((1 - law->a) / law->b) : runs_max;
    if (top >= runs_max) {
        return runs_max;
    }
    const uint32_t below = top < 1 ? 1 : (uint32_t)top;
    return gain_at(law, below + 1.0) * AS_MUCH > gain_at(law, below) ? below + 1 : below;
}

/* --- Trials ----------------------------------------------------------------------------------- */

static uint32_t known_runs(const struct scaling *scaling, const struct scaling_size *size)
{
    return scaling->runs - size->seen <= SIZE_AGE_MAX && size->runs >= SIZE_RUNS_MIN ? size->runs
                                                                                     : 0;
}

/* Could so many runs do nearly as much as the chosen number, by what runs of one size take? */
static bool may_keep_up(const struct scaling *scaling, uint32_t runs)
{
    const struct scaling_size *here = scaling->sizes[scaling->chosen];
    const struct scaling_size *there = scaling->sizes[runs];
    uint32_t best = 0;
    double gain = 1;
    for (uint32_t i = 0; i < SCALING_SIZES; i++) {
        const uint32_t mine = known_runs(scaling, &here[i]);
        const uint32_t its = known_runs(scaling, &there[i]);
        const uint32_t known = mine < its ? mine : its;
        if (known > best) {
            best = known;
            gain = (double)here[i].row_ns / scaling->chosen / (double)there[i].row_ns * runs;
        }
    }
    return gain >= HOPE;
}

/* A machine that was busy with other things may have held up the few runs that say so. */
static bool is_doubtful(const struct scaling *scaling, uint32_t runs)
{
    return scaling->quiet_min >= DOUBT && scaling_rate(scaling, runs) <= 0;
}

static bool worth_trying(const struct scaling *scaling, uint32_t runs)
{
    return runs >= 1 && runs <= scaling->runs_max && runs != scaling->chosen &&
           (scaling->tried & (UINT32_C(1) << (runs - 1))) == 0 &&
           (runs > scaling->chosen || is_doubtful(scaling, runs) || may_keep_up(scaling, runs));
}

/* The next count to try, or 0. */
static uint32_t next_trial(const struct scaling *scaling)
{
    const uint32_t chosen = scaling->chosen;
    struct scaling_law law;
    if (scaling->suspect > 0) {
        return scaling->suspect;
    }
    if (scaling_fit(scaling, &law)) {
        const uint32_t knee = scaling_knee(&law, scaling->runs_max);
        if (worth_trying(scaling, knee)) {
            return knee;
        }
    }
    const uint32_t candidates[] = { chosen - 1, (chosen + 1) / 2, chosen + 1 };
    for (int i = 0; i < 3; i++) {
        if (worth_trying(scaling, candidates[i])) {
            return candidates[i];
        }
    }
    return 0;
}

static void begin_trial(struct scaling *scaling)
{
    uint32_t trial = next_trial(scaling);
    scaling->quiet_runs = 0;
    if (trial == 0) { /* All were, to no avail: once more, later. */
        scaling->tried = 0;
        scaling->quiet_min = scaling->quiet_min < QUIET_MAX ? 2 * scaling->quiet_min : QUIET_MAX;
        return;
    }
    scaling->trial = trial;
    scaling->trial_runs = 0;
    scaling->levels[trial] = (struct scaling_level){ 0 }; /* What it did once may not hold. */
    memset(scaling->sizes[trial], 0, sizeof(scaling->sizes[trial]));
}

/* A fixed count stays; two trials in a row must agree that it hurts. */
static void judge_fixed(struct scaling *scaling, uint32_t trial, double gain)
{
    const bool more = trial < scaling->chosen && gain > CLEARLY_MORE;
    if (more && scaling->suspect == trial) {
        scaling->better = trial;
        scaling->gain = gain;
        scaling->suspect = 0;
    } else {
        scaling->suspect = more ? trial : 0;
        scaling->better = !more && scaling->better == trial ? 0 : scaling->better;
    }
}

static void end_trial(struct scaling *scaling)
{
    const uint32_t trial = scaling->trial;
    const double before = scaling_rate(scaling, scaling->chosen);
    const double after = scaling_rate(scaling, trial);
    scaling->trial = 0;
    scaling->tried |= UINT32_C(1) << (trial - 1);
    if (before <= 0 || after <= 0) {
        return;
    }
    if (scaling->fixed) {
        judge_fixed(scaling, trial, after / before);
    } else if (after > before * (trial < scaling->chosen ? AS_MUCH : CLEARLY_MORE)) {
        scaling->chosen = trial;
        scaling->tried = 0;
        scaling->quiet_min = QUIET_MIN;
    }
}

static void learn(struct scaling *scaling, uint32_t count, double at_once, uint64_t rows,
                  uint64_t ns)
{
    struct scaling_level *level = &scaling->levels[count];
    level->work = level->work * DECAY + at_once * (double)rows;
    level->ns = level->ns * DECAY + (double)ns;
    level->runs++;
}

static struct scaling_size *size_of(struct scaling *scaling, uint32_t count, uint64_t rows)
{
    const uint32_t power = 63U - (uint32_t)__builtin_clzll(rows);
    return &scaling->sizes[count][power < SCALING_SIZES ? power : SCALING_SIZES - 1];
}

/* What of a run's time is taken for its own: where the program was stopped for a second, a trial of
 * some milliseconds would tell of nothing else.  What is longer for good is believed step by step. */
static uint64_t believed_ns(const struct scaling_size *size, uint64_t rows, uint64_t ns)
{
    const double most = (double)(HELD_UP * size->row_ns) * (double)rows;
    return size->runs == 0 || (double)ns <= most ? ns : (uint64_t)most;
}

static void learn_size(const struct scaling *scaling, struct scaling_size *size, uint64_t rows,
                       uint64_t ns)
{
    const float row_ns = (float)((double)ns / (double)rows);
    size->runs += size->runs < SIZE_RUNS_MAX ? 1 : 0;
    const float part = row_ns < size->row_ns ? SIZE_FALL : SIZE_RISE;
    size->row_ns += (row_ns - size->row_ns) * (size->runs == 1 ? 1 : part);
    size->seen = scaling->runs;
}

bool scaling_observe(struct scaling *scaling, double at_once, uint64_t rows, uint64_t ns,
                     bool saturated)
{
    if (!scaling_learns(scaling) || ns == 0 || rows == 0) {
        return false;
    }
    const uint32_t cap = scaling_cap(scaling);
    const uint32_t better = scaling->better;
    const double nearest = round(at_once);
    const bool clear = fabs(at_once - nearest) <= AT_ONCE_SWAY;
    const bool counts = saturated && clear && nearest == cap;
    scaling->runs++;
    if (clear && nearest >= 1 && nearest <= scaling->runs_max) {
        struct scaling_size *size = size_of(scaling, (uint32_t)nearest, rows);
        ns = believed_ns(size, rows, ns);
        learn_size(scaling, size, rows, ns);
    }
    if (counts) {
        learn(scaling, cap, at_once, rows, ns);
    }
    if (scaling->trial > 0) {
        scaling->trial_runs++;
        if (scaling->levels[scaling->trial].runs >= SCALING_TRIAL_RUNS ||
            scaling->trial_runs >= (uint64_t)PATIENCE * SCALING_TRIAL_RUNS) {
            end_trial(scaling);
        }
    } else if (counts && ++scaling->quiet_runs >= scaling->quiet_min) {
        begin_trial(scaling);
    }
    return scaling_cap(scaling) != cap || scaling->better != better;
}
