/*
 * What the generator sees of a run is kept in histograms and counters of fixed size, all made
 * before the run.  The slices of the timeline have small histograms of their own, which are turned
 * into a few numbers at the end: a sweep holds many runs.
 */
#include "cmd/bench_run.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "util/clock.h"
#include "util/mem.h"

#define DURATION_NS_MAX (UINT64_C(7) * 24 * 3600 * NS_PER_S)
#define SLICES_MAX 120

#define LATENCY_DIGITS 3
#define SLICE_DIGITS 2

/* What a run may show of its generator and still be one of the server. */
#define CPU_MAX 0.8
#define LAG_SHARE_MAX 0.05
#define AWAY_SHARE_MAX 0.01
#define LAG_NS_ANYHOW NS_PER_MS /* Without an SLO so much lag is never held against a run. */
#define LITTLE_OFF_MAX 0.1
#define FAILED_SHARE_MAX 0.01
#define UNANSWERED_SHARE_MAX 0.01

static const char *const outcome_words[] = {
#define BENCH_OUTCOME_WORD(name, word, line) word,
    BENCH_OUTCOMES(BENCH_OUTCOME_WORD)
#undef BENCH_OUTCOME_WORD
};

static const struct {
    const char *word;
    const char *line;
} flaw_texts[] = {
#define BENCH_FLAW_TEXTS(name, word, line) { word, line },
    BENCH_FLAWS(BENCH_FLAW_TEXTS)
#undef BENCH_FLAW_TEXTS
};

static const struct {
    const char *word;
    const char *unit;
    const char *way;
} load_texts[] = {
#define BENCH_LOAD_TEXTS(name, word, unit, way) { word, unit, way },
    BENCH_LOADS(BENCH_LOAD_TEXTS)
#undef BENCH_LOAD_TEXTS
};

const char *bench_outcome_word(enum bench_outcome outcome)
{
    return outcome_words[outcome];
}

const char *bench_flaw_word(enum bench_flaw flaw)
{
    return flaw_texts[flaw].word;
}

const char *bench_flaw_line(enum bench_flaw flaw)
{
    return flaw_texts[flaw].line;
}

const char *bench_load_word(enum bench_load load)
{
    return load_texts[load].word;
}

const char *bench_load_unit(enum bench_load load)
{
    return load_texts[load].unit;
}

const char *bench_load_way(enum bench_load load)
{
    return load_texts[load].way;
}

bool bench_load_is_open(enum bench_load load)
{
    return load == BENCH_LOAD_OPEN || load == BENCH_LOAD_USERS;
}

enum bench_outcome bench_outcome_of_http(int code)
{
    if (code >= 200 && code < 300) {
        return BENCH_OK;
    }
    if (code == 429 || code == 503) {
        return BENCH_REFUSED;
    }
    return code == 504 ? BENCH_EXPIRED : BENCH_FAILED;
}

enum bench_outcome bench_outcome_of_grpc(int code)
{
    enum { GRPC_OK = 0, GRPC_DEADLINE = 4, GRPC_EXHAUSTED = 8, GRPC_UNAVAILABLE = 14 };
    if (code == GRPC_OK) {
        return BENCH_OK;
    }
    if (code == GRPC_EXHAUSTED || code == GRPC_UNAVAILABLE) {
        return BENCH_REFUSED;
    }
    return code == GRPC_DEADLINE ? BENCH_EXPIRED : BENCH_FAILED;
}

/* The finest width that people count in and that leaves at most SLICES_MAX slices. */
static uint64_t slice_width_ns(uint64_t duration_ns)
{
    static const uint64_t widths_ms[] = { 50,    100,   200,   500,    1000,   2000,   5000,
                                          10000, 20000, 60000, 120000, 300000, 600000, 3600000 };
    const size_t count = sizeof(widths_ms) / sizeof(widths_ms[0]);
    for (size_t i = 0; i < count; i++) {
        if (duration_ns <= widths_ms[i] * NS_PER_MS * SLICES_MAX) {
            return widths_ms[i] * NS_PER_MS;
        }
    }
    return duration_ns / SLICES_MAX + 1;
}

static enum weir_status init_slices(struct bench_run *run)
{
    run->slice_ns = slice_width_ns(run->duration_ns);
    const uint64_t count = (run->duration_ns + run->slice_ns - 1) / run->slice_ns;
    run->slices = mem_try_zero(count, sizeof(*run->slices));
    if (run->slices == NULL) {
        return WEIR_ENOMEM;
    }
    run->slice_count = (uint32_t)count;
    enum weir_status status = WEIR_OK;
    for (uint32_t i = 0; i < run->slice_count && status == WEIR_OK; i++) {
        status = hdr_init(&run->slices[i].latency, SLICE_DIGITS);
    }
    return status;
}

static enum weir_status init_histograms(struct bench_run *run)
{
    struct hdr *const hdrs[] = { &run->latency, &run->refusal, &run->lag };
    enum weir_status status = WEIR_OK;
    for (size_t i = 0; i < sizeof(hdrs) / sizeof(hdrs[0]) && status == WEIR_OK; i++) {
        status = hdr_init(hdrs[i], LATENCY_DIGITS);
    }
    for (uint32_t i = 0; i < run->class_count && status == WEIR_OK; i++) {
        status = hdr_init(&run->classes[i].latency, LATENCY_DIGITS);
    }
    return status;
}

enum weir_status bench_run_init(struct bench_run *run, struct weir_err *err)
{
    if (run->duration_ns == 0 || run->duration_ns > DURATION_NS_MAX) {
        return err_set(err, WEIR_EINVAL, "a run lasts more than no time and at most a week");
    }
    if (run->class_count > BENCH_CLASSES_MAX) {
        return err_set(err, WEIR_EINVAL, "a mix of %u classes: at most %d are possible",
                       run->class_count, BENCH_CLASSES_MAX);
    }
    run->rows = run->rows == 0 ? 1 : run->rows;
    run->quantile = run->quantile > 0 ? run->quantile : 1 - VERDICT_MISS;
    enum weir_status status = init_histograms(run);
    if (status == WEIR_OK) {
        status = init_slices(run);
    }
    if (status != WEIR_OK) {
        bench_run_finish(run);
        return err_nomem(err, "the histograms of a run", 0);
    }
    return WEIR_OK;
}

static void finish_slices(struct bench_run *run)
{
    for (uint32_t i = 0; i < run->slice_count; i++) {
        hdr_finish(&run->slices[i].latency);
    }
}

void bench_run_finish(struct bench_run *run)
{
    finish_slices(run);
    mem_free(run->slices);
    run->slices = NULL;
    run->slice_count = 0;
    hdr_finish(&run->latency);
    hdr_finish(&run->refusal);
    hdr_finish(&run->lag);
    for (uint32_t i = 0; i < run->class_count && i < BENCH_CLASSES_MAX; i++) {
        hdr_finish(&run->classes[i].latency);
    }
}

static struct bench_slice *slice_at(struct bench_run *run, uint64_t at_ns)
{
    const uint64_t index = at_ns / run->slice_ns;
    return index < run->slice_count ? &run->slices[index] : NULL;
}

static struct bench_class *class_at(struct bench_run *run, uint32_t index)
{
    return index < run->class_count ? &run->classes[index] : NULL;
}

void bench_run_sent(struct bench_run *run, uint32_t class_index, uint64_t at_ns, uint64_t lag_ns)
{
    struct bench_slice *slice = slice_at(run, at_ns);
    struct bench_class *class = class_at(run, class_index);
    run->sent++;
    if (slice != NULL) {
        slice->sent++;
    }
    if (class != NULL) {
        class->sent++;
    }
    if (lag_ns != UINT64_MAX) {
        hdr_record(&run->lag, lag_ns);
    }
}

static bool has_latency(enum bench_outcome outcome)
{
    return outcome == BENCH_OK || outcome == BENCH_UNANSWERED;
}

static void record_totals(struct bench_run *run, uint64_t latency_ns, enum bench_outcome outcome,
                          bool good)
{
    run->counts[outcome]++;
    run->good += good;
    run->time_ns += latency_ns;
    if (has_latency(outcome)) {
        hdr_record(&run->latency, latency_ns);
    } else if (outcome != BENCH_FAILED) {
        hdr_record(&run->refusal, latency_ns);
    }
}

void bench_run_answered(struct bench_run *run, uint32_t class_index, uint64_t at_ns,
                        uint64_t latency_ns, enum bench_outcome outcome)
{
    struct bench_slice *slice = slice_at(run, at_ns);
    struct bench_class *class = class_at(run, class_index);
    const uint64_t slo_ns = class != NULL && class->slo_ns != 0 ? class->slo_ns : run->slo_ns;
    const bool good = outcome == BENCH_OK && (slo_ns == 0 || latency_ns <= slo_ns);
    record_totals(run, latency_ns, outcome, good);
    if (slice != NULL) {
        slice->counts[outcome]++;
        slice->good += good;
        if (outcome == BENCH_OK) {
            hdr_record(&slice->latency, latency_ns);
        }
    }
    if (class != NULL) {
        class->counts[outcome]++;
        class->good += good;
        if (has_latency(outcome)) {
            hdr_record(&class->latency, latency_ns);
        }
    }
}

void bench_run_code(struct bench_run *run, const char *code)
{
    uint32_t i = 0;
    while (i < run->code_count &&
           strncmp(run->codes[i].name, code, sizeof(run->codes[i].name) - 1) != 0) {
        i++;
    }
    if (i == BENCH_CODES_MAX) {
        i = BENCH_CODES_MAX - 1;
    } else if (i == run->code_count) {
        const char *name = i == BENCH_CODES_MAX - 1 ? "others" : code;
        strncpy(run->codes[i].name, name, sizeof(run->codes[i].name) - 1);
        run->code_count++;
    }
    run->codes[i].count++;
}

static uint64_t ended(const struct bench_run *run)
{
    uint64_t count = 0;
    for (int k = 0; k < BENCH_OUTCOME_COUNT; k++) {
        count += run->counts[k];
    }
    return count;
}

static void close_slices(struct bench_run *run)
{
    for (uint32_t i = 0; i < run->slice_count; i++) {
        struct bench_slice *slice = &run->slices[i];
        slice->p50_ns = hdr_quantile_ns(&slice->latency, 0.5);
        slice->p99_ns = hdr_quantile_ns(&slice->latency, 0.99);
        slice->max_ns = slice->latency.max_ns;
    }
    finish_slices(run);
}

/* Time that requests spent between send and end, all added up. */
static double held_ns(const struct bench_run *run)
{
    return (double)run->time_ns - (double)run->lag.sum_ns;
}

/* Little's law, L = lambda W, between two counts of the generator that should agree. */
static double little_of(const struct bench_run *run)
{
    const double held = held_ns(run);
    if (run->inflight_mean <= 0 || held <= 0) {
        return 0;
    }
    return run->inflight_mean * (double)run->elapsed_ns / held;
}

/* What is in flight when the window opens and closes belongs to both counts only in part: so much
 * they may differ besides. */
static bool breaks_little(const struct bench_run *run)
{
    if (run->little == 0) {
        return false;
    }
    const double edge_ns = run->inflight_mean * (double)run->latency.max_ns;
    const double off_ns = run->inflight_mean * (double)run->elapsed_ns - held_ns(run);
    return fabs(off_ns) > LITTLE_OFF_MAX * held_ns(run) + edge_ns;
}

static bool lags(const struct bench_run *run)
{
    const uint64_t lag_ns = hdr_quantile_ns(&run->lag, 0.99);
    if (run->slo_ns != 0) {
        return (double)lag_ns > LAG_SHARE_MAX * (double)run->slo_ns;
    }
    const double p99_ns = (double)hdr_quantile_ns(&run->latency, 0.99);
    return lag_ns > LAG_NS_ANYHOW && (double)lag_ns > LAG_SHARE_MAX * p99_ns;
}

/* A closed loop asks nothing of a server that is gone, so that its figures are of the rest. */
static bool is_away(const struct bench_run *run)
{
    return (double)run->away_ns > AWAY_SHARE_MAX * (double)run->elapsed_ns;
}

static bool is_above(const struct bench_run *run, enum bench_outcome outcome, double share)
{
    return (double)run->counts[outcome] > share * (double)ended(run);
}

/* A closed loop always finds a limit, and says so when that was the generator: what it measured
 * is true then, if not of the server.  An open loop that did not keep to its times measured
 * nothing.  What an open loop gives up is late, as it would have been; a closed one has sent the
 * next request instead, so that its load and times are those of its own patience. */
static uint32_t flaws_of(const struct bench_run *run)
{
    const uint64_t count = ended(run);
    const bool open = bench_load_is_open(run->load);
    const bool found[BENCH_FLAW_COUNT] = {
        [BENCH_FLAW_CPU] = open && run->generator_cpu > CPU_MAX,
        [BENCH_FLAW_LAG] = open && lags(run) && !is_away(run),
        [BENCH_FLAW_LITTLE] = breaks_little(run),
        [BENCH_FLAW_SHORT] = count == 0 || (open && run->verdict == VERDICT_OPEN &&
                                            (double)count * (1 - run->quantile) < 1 - 1e-9),
        [BENCH_FLAW_ERRORS] = is_above(run, BENCH_FAILED, FAILED_SHARE_MAX),
        [BENCH_FLAW_UNANSWERED] =
            !open && !run->stopped && is_above(run, BENCH_UNANSWERED, UNANSWERED_SHARE_MAX),
        [BENCH_FLAW_AWAY] = is_away(run),
        [BENCH_FLAW_STOPPED] = run->stopped,
    };
    uint32_t flaws = 0;
    for (int i = 0; i < BENCH_FLAW_COUNT; i++) {
        flaws |= found[i] ? UINT32_C(1) << i : 0;
    }
    return flaws;
}

void bench_run_close(struct bench_run *run)
{
    const double seconds = (double)run->elapsed_ns / 1e9;
    const uint64_t count = ended(run);
    assert(!run->closed);
    close_slices(run);
    run->throughput = seconds > 0 ? (double)run->counts[BENCH_OK] / seconds : 0;
    run->goodput = seconds > 0 ? (double)run->good / seconds : 0;
    run->little = little_of(run);
    run->verdict = run->slo_ns == 0
                       ? VERDICT_OPEN
                       : verdict_of(count, count - run->good, 1 - run->quantile, VERDICT_DOUBT);
    run->flaws = flaws_of(run);
    run->closed = true;
}

bool bench_run_passed(const struct bench_run *run)
{
    return run->closed && run->flaws == 0 && (run->slo_ns == 0 || run->verdict == VERDICT_PASSED);
}
