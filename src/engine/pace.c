/*
 * The ratio starts as a plain mean and becomes an exponential one, so that the first runs count
 * and a machine that slows down is believed within some tens of runs.
 *
 * The reserve covers about nine runs in ten: the mean distance of an even spread is half its
 * reach, and 1.6 of it is 80 % of that reach.  A larger reserve would waste more rows at the end of
 * each batch than late runs cost.
 */
#include "engine/pace.h"

#include <math.h>

#include "util/clock.h"

#define RUNS_REMEMBERED 64.0
#define RATIO_MIN 0.1 /* A run that fared otherwise tells nothing about the next. */
#define RATIO_MAX 10.0
#define SPREAD_COVERED 1.6
#define RESERVE_MIN 0.02
#define RESERVE_MAX 0.25
#define RESERVE_UNKNOWN 0.08
#define RUNS_TELLING 8    /* Before, the reserve is RESERVE_UNKNOWN. */
#define SERVED_DECAY 0.95 /* Per run. */
#define SHARE_MIN 0.05
#define ARRIVAL_NS (50 * 1000000.0) /* Time constant of the rate of arrivals. */

static double within(double value, double least, double most)
{
    return value < least ? least : value > most ? most : value;
}

void pace_ran(struct pace *pace, uint64_t predicted_ns, uint64_t real_ns)
{
    if (predicted_ns == 0) {
        return;
    }
    const double ratio = within((double)real_ns / (double)predicted_ns, RATIO_MIN, RATIO_MAX);
    pace->runs++;
    const double share =
        1 / ((double)pace->runs < RUNS_REMEMBERED ? (double)pace->runs : RUNS_REMEMBERED);
    pace->ratio += share * (ratio - pace->ratio);
    pace->spread += share * (fabs(ratio - pace->ratio) - pace->spread);
}

void pace_served(struct pace *pace, uint64_t rows, uint64_t since_ns, uint64_t now_ns)
{
    const uint64_t from_ns = since_ns > pace->settled_ns ? since_ns : pace->settled_ns;
    pace->settled_ns = now_ns;
    pace->served_rows = pace->served_rows * SERVED_DECAY + (double)rows;
    pace->served_ns =
        pace->served_ns * SERVED_DECAY + (double)(now_ns > from_ns ? now_ns - from_ns : 0);
}

void pace_shared(struct pace *pace, uint64_t run_ns, uint32_t executors, uint64_t since_ns,
                 uint64_t now_ns)
{
    if (since_ns < pace->settled_ns && now_ns > pace->settled_ns) {
        pace->busy_ns = pace->busy_ns * SERVED_DECAY + (double)run_ns;
        pace->room_ns =
            pace->room_ns * SERVED_DECAY + (double)(now_ns - pace->settled_ns) * executors;
    } else {
        /* Nothing waited for a while: what others wanted is slowly forgotten. */
        pace->room_ns += (1 - SERVED_DECAY) * (pace->busy_ns - pace->room_ns);
    }
}

void pace_arrived(struct pace *pace, uint64_t rows, uint64_t now_ns)
{
    const double gone_ns = now_ns > pace->arrived_ns ? (double)(now_ns - pace->arrived_ns) : 0;
    pace->arriving = pace->arriving * exp(-gone_ns / ARRIVAL_NS) + (double)rows / ARRIVAL_NS;
    pace->arrived_ns = now_ns;
}

struct pace_cost pace_cost(const struct pace *pace, double tau0_ns, double alpha_ns)
{
    const double ratio = pace->runs > 0 ? pace->ratio : 1;
    const double reserve = pace->runs < RUNS_TELLING ? RESERVE_UNKNOWN
                                                     : within(SPREAD_COVERED * pace->spread / ratio,
                                                              RESERVE_MIN, RESERVE_MAX);
    return (struct pace_cost){ tau0_ns * ratio, alpha_ns * ratio, reserve };
}

double pace_share(const struct pace *pace)
{
    return pace->room_ns > pace->busy_ns ? within(pace->busy_ns / pace->room_ns, SHARE_MIN, 1) : 1;
}

uint64_t pace_serve_ns(const struct pace *pace, uint64_t rows)
{
    if (pace->served_rows <= 0) {
        return CLOCK_NEVER;
    }
    const double ns = (double)rows * pace->served_ns / pace->served_rows;
    return ns < 0x1p63 ? (uint64_t)ns : UINT64_C(1) << 63;
}

uint64_t pace_run_ns(const struct pace_cost *cost, uint64_t rows)
{
    const double ns = cost->tau0_ns + cost->alpha_ns * (double)rows;
    return ns < 0x1p62 ? (uint64_t)ns : UINT64_C(1) << 62;
}

/* Rows that take `ns` in all; no more than that many fit a run. */
static uint64_t rows_in(const struct pace_cost *cost, double ns)
{
    if (ns < cost->tau0_ns) {
        return 0;
    }
    const double rows = cost->alpha_ns > 0 ? (ns - cost->tau0_ns) / cost->alpha_ns : 0x1p32;
    return rows < 0x1p32 ? (uint64_t)rows : UINT64_C(1) << 32;
}

uint64_t pace_rows_within(const struct pace_cost *cost, uint64_t ns)
{
    return rows_in(cost, (double)ns / (1 + cost->reserve));
}

uint64_t pace_rows_useful(const struct pace_cost *cost, uint64_t allowed_ns)
{
    const uint64_t rows = rows_in(cost, (double)allowed_ns / 2);
    return rows > 1 ? rows : 1;
}
