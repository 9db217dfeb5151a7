/*
 * Schedules are made whole before the run: making them up on the way would cost time on the thread
 * that has to be punctual.  Chance comes from splitmix64, which is the same everywhere.
 *
 * Users are independent: each starts somewhere in its cycle, so that they do not all begin at once,
 * and what is left of it at the start is what chance leaves.  Their times are made user by user and
 * sorted at the end.
 */
#include "cmd/arrivals.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "util/clock.h"
#include "util/file.h"
#include "util/mem.h"

#define DURATION_NS_MAX (UINT64_C(7) * 24 * 3600 * NS_PER_S)
#define RECORDING_BYTES_MAX ((size_t)1 << 31)
#define NO_USER UINT32_MAX

struct chance {
    uint64_t state;
};

static uint64_t chance_next(struct chance *chance)
{
    chance->state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = chance->state;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* In [0, 1). */
static double chance_uniform(struct chance *chance)
{
    return (double)(chance_next(chance) >> 11) * 0x1p-53;
}

static double chance_exponential(struct chance *chance, double mean)
{
    return -log1p(-chance_uniform(chance)) * mean;
}

bool arrivals_kind_of(struct bytes word, enum arrivals_kind *out)
{
    for (int i = 0; i < ARRIVALS_COUNT; i++) {
        if (bytes_equal(word, bytes_of(arrivals_word((enum arrivals_kind)i)))) {
            *out = (enum arrivals_kind)i;
            return true;
        }
    }
    return false;
}

const char *arrivals_word(enum arrivals_kind kind)
{
    static const char *const words[] = {
#define ARRIVALS_WORD(name, word, line) word,
        ARRIVALS(ARRIVALS_WORD)
#undef ARRIVALS_WORD
    };
    return words[kind];
}

void arrivals_finish(struct arrivals *arrivals)
{
    mem_free(arrivals->at_ns);
    mem_free(arrivals->user);
    *arrivals = (struct arrivals){ 0 };
}

static enum weir_status grow(struct arrivals *arrivals, bool users, struct weir_err *err)
{
    const size_t capacity = arrivals->capacity == 0 ? 1024 : arrivals->capacity * 2;
    if (capacity > ARRIVALS_MAX) {
        return err_set(err, WEIR_EINVAL, "more than %zu requests in one schedule", ARRIVALS_MAX);
    }
    uint64_t *at_ns = mem_try_resize(arrivals->at_ns, capacity * sizeof(*at_ns));
    if (at_ns == NULL) {
        return err_nomem(err, "a schedule", capacity * sizeof(*at_ns));
    }
    arrivals->at_ns = at_ns;
    if (users) {
        uint32_t *user = mem_try_resize(arrivals->user, capacity * sizeof(*user));
        if (user == NULL) {
            return err_nomem(err, "a schedule", capacity * sizeof(*user));
        }
        arrivals->user = user;
    }
    arrivals->capacity = capacity;
    return WEIR_OK;
}

static enum weir_status append(struct arrivals *arrivals, uint64_t at_ns, uint32_t user,
                               struct weir_err *err)
{
    if (arrivals->count == arrivals->capacity) {
        const enum weir_status status = grow(arrivals, user != NO_USER, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    arrivals->at_ns[arrivals->count] = at_ns;
    if (user != NO_USER) {
        arrivals->user[arrivals->count] = user;
        arrivals->users = user >= arrivals->users ? user + 1 : arrivals->users;
    }
    arrivals->count++;
    return WEIR_OK;
}

static enum weir_status make_constant(const struct arrivals_spec *spec, struct arrivals *out,
                                      struct weir_err *err)
{
    const double gap_ns = 1e9 / spec->rate;
    for (size_t i = 0;; i++) {
        const double at_ns = (double)i * gap_ns; /* Not added up: that would drift. */
        if (at_ns >= (double)spec->duration_ns) {
            return WEIR_OK;
        }
        const enum weir_status status = append(out, (uint64_t)at_ns, NO_USER, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
}

static enum weir_status make_poisson(const struct arrivals_spec *spec, struct arrivals *out,
                                     struct weir_err *err)
{
    struct chance chance = { spec->seed };
    const double gap_ns = 1e9 / spec->rate;
    double at_ns = chance_exponential(&chance, gap_ns);
    while (at_ns < (double)spec->duration_ns) {
        const enum weir_status status = append(out, (uint64_t)at_ns, NO_USER, err);
        if (status != WEIR_OK) {
            return status;
        }
        at_ns += chance_exponential(&chance, gap_ns);
    }
    return WEIR_OK;
}

static double phase_ns(const struct arrivals_spec *spec, struct chance *chance, uint64_t mean_ns)
{
    return spec->fixed ? (double)mean_ns : chance_exponential(chance, (double)mean_ns);
}

/* Sends from `from_ns` to `to_ns`, the first at once. */
static enum weir_status make_burst(const struct arrivals_spec *spec, uint32_t user, double from_ns,
                                   double to_ns, struct arrivals *out, struct weir_err *err)
{
    const double gap_ns = 1e9 / spec->rate;
    const double end_ns = fmin(to_ns, (double)spec->duration_ns);
    for (size_t i = 0; from_ns + (double)i * gap_ns < end_ns; i++) {
        const double at_ns = from_ns + (double)i * gap_ns;
        /* Fixed phases begin before the run: what lay there is over. */
        const enum weir_status status =
            at_ns < 0 ? WEIR_OK : append(out, (uint64_t)at_ns, user, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    return WEIR_OK;
}

static enum weir_status make_user(const struct arrivals_spec *spec, uint32_t user,
                                  struct chance *chance, struct arrivals *out, struct weir_err *err)
{
    const double cycle_ns = (double)spec->on_ns + (double)spec->off_ns;
    const double phase = chance_uniform(chance) * cycle_ns;
    /* Where this user's first burst began; exponential phases have no memory, so one that is on
     * at the start is as if it had just begun. */
    double at_ns = spec->fixed ? -phase : 0;
    if (!spec->fixed && phase >= (double)spec->on_ns) {
        at_ns = phase_ns(spec, chance, spec->off_ns);
    } else if (!spec->fixed) {
        at_ns = -chance_uniform(chance) * 1e9 / spec->rate;
    }
    while (at_ns < (double)spec->duration_ns) {
        const double end_ns = at_ns + phase_ns(spec, chance, spec->on_ns);
        const enum weir_status status = make_burst(spec, user, at_ns, end_ns, out, err);
        if (status != WEIR_OK) {
            return status;
        }
        at_ns = end_ns + phase_ns(spec, chance, spec->off_ns);
    }
    return WEIR_OK;
}

struct pair {
    uint64_t at_ns;
    uint32_t user;
};

static int by_time(const void *a, const void *b)
{
    const struct pair *x = a;
    const struct pair *y = b;
    if (x->at_ns != y->at_ns) {
        return x->at_ns < y->at_ns ? -1 : 1;
    }
    return (x->user > y->user) - (x->user < y->user);
}

static enum weir_status sort(struct arrivals *arrivals, struct weir_err *err)
{
    struct pair *pairs = mem_try_zero(arrivals->count + 1, sizeof(*pairs));
    if (pairs == NULL) {
        return err_nomem(err, "a schedule", arrivals->count * sizeof(*pairs));
    }
    for (size_t i = 0; i < arrivals->count; i++) {
        pairs[i] = (struct pair){ arrivals->at_ns[i], arrivals->user[i] };
    }
    qsort(pairs, arrivals->count, sizeof(*pairs), by_time);
    for (size_t i = 0; i < arrivals->count; i++) {
        arrivals->at_ns[i] = pairs[i].at_ns;
        arrivals->user[i] = pairs[i].user;
    }
    mem_free(pairs);
    return WEIR_OK;
}

static enum weir_status make_users(const struct arrivals_spec *spec, struct arrivals *out,
                                   struct weir_err *err)
{
    if (spec->users < 1 || spec->users > ARRIVALS_USERS_MAX) {
        return err_set(err, WEIR_EINVAL, "%u users: 1 to %d are possible", spec->users,
                       ARRIVALS_USERS_MAX);
    }
    if (spec->on_ns == 0 || spec->on_ns > DURATION_NS_MAX || spec->off_ns > DURATION_NS_MAX) {
        return err_set(err, WEIR_EINVAL, "users need a time to be active, of a week at most");
    }
    for (uint32_t user = 0; user < spec->users; user++) {
        struct chance chance = { spec->seed + user };
        chance.state = chance_next(&chance); /* So that neighbouring seeds share no users. */
        const enum weir_status status = make_user(spec, user, &chance, out, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    out->users = spec->users;
    return sort(out, err);
}

/* One line of a recording. */
struct record {
    double seconds;
    uint64_t user;
    bool has_user;
};

static bool is_gap(char c)
{
    return c == ' ' || c == '\t' || c == ',';
}

static struct bytes trim(struct bytes text)
{
    while (text.size > 0 && (is_gap(text.data[0]) || text.data[0] == '\r')) {
        text.data++;
        text.size--;
    }
    while (text.size > 0 &&
           (is_gap(text.data[text.size - 1]) || text.data[text.size - 1] == '\r')) {
        text.size--;
    }
    return text;
}

static bool parse_seconds(struct bytes word, double *out)
{
    char digits[64];
    if (word.size == 0 || word.size >= sizeof(digits) || word.data[0] < '0' || word.data[0] > '9') {
        return false;
    }
    memcpy(digits, word.data, word.size);
    digits[word.size] = '\0';
    char *end = NULL;
    const double value = strtod(digits, &end);
    if (*end != '\0' || !(value * 1e9 <= (double)DURATION_NS_MAX)) {
        return false;
    }
    *out = value;
    return true;
}

static bool parse_record(struct bytes line, struct record *out)
{
    size_t split = 0;
    while (split < line.size && !is_gap(line.data[split])) {
        split++;
    }
    const struct bytes rest = trim((struct bytes){ line.data + split, line.size - split });
    *out = (struct record){ .has_user = rest.size > 0 };
    return parse_seconds((struct bytes){ line.data, split }, &out->seconds) &&
           (!out->has_user || bytes_to_u64(rest, ARRIVALS_USERS_MAX - 1, &out->user));
}

/* Takes one line; `*ended` when it lies behind the end of the run. */
static enum weir_status take_record(const struct arrivals_spec *spec, struct bytes line,
                                    struct arrivals *out, bool *ended, struct weir_err *err)
{
    struct record record;
    if (!parse_record(line, &record)) {
        return err_set(err, WEIR_EINVAL,
                       "found '%.*s', expected seconds from the start, and perhaps a user's number",
                       (int)(line.size < 40 ? line.size : 40), line.data);
    }
    if (out->count > 0 && record.has_user != (out->user != NULL)) {
        return err_set(err, WEIR_EINVAL, "either all lines name a user or none does");
    }
    const double speed = spec->speed > 0 ? spec->speed : 1;
    const double at_ns = record.seconds * 1e9 / speed;
    if (!(at_ns <= (double)DURATION_NS_MAX)) {
        return err_set(err, WEIR_EINVAL, "%g s at this speed is later than a week", record.seconds);
    }
    const uint64_t whole_ns = (uint64_t)llround(at_ns);
    if (out->count > 0 && whole_ns < out->at_ns[out->count - 1]) {
        return err_set(err, WEIR_EINVAL, "%g s lies before the line above", record.seconds);
    }
    if (spec->duration_ns != 0 && whole_ns >= spec->duration_ns) {
        *ended = true;
        return WEIR_OK;
    }
    return append(out, whole_ns, record.has_user ? (uint32_t)record.user : NO_USER, err);
}

static enum weir_status read_lines(struct bytes text, const char *name,
                                   const struct arrivals_spec *spec, struct arrivals *out,
                                   struct weir_err *err)
{
    bool ended = false;
    for (unsigned number = 1; text.size > 0 && !ended; number++) {
        const char *newline = memchr(text.data, '\n', text.size);
        const size_t size = newline == NULL ? text.size : (size_t)(newline - text.data);
        const struct bytes line = trim((struct bytes){ text.data, size });
        const size_t used = newline == NULL ? size : size + 1;
        text = (struct bytes){ text.data + used, text.size - used };
        if (line.size == 0 || line.data[0] == '#') {
            continue;
        }
        const enum weir_status status = take_record(spec, line, out, &ended, err);
        if (status != WEIR_OK) {
            (void)err_prefix(err, "%s, line %u", name, number);
            return status;
        }
    }
    if (out->count == 0) {
        return err_set(err, WEIR_EINVAL,
                       "%s: found no arrival times, expected one in each line, in seconds", name);
    }
    return WEIR_OK;
}

enum weir_status arrivals_read(struct bytes text, const char *name,
                               const struct arrivals_spec *spec, struct arrivals *out,
                               struct weir_err *err)
{
    struct arrivals made = { 0 };
    const enum weir_status status = read_lines(text, name, spec, &made, err);
    if (status != WEIR_OK) {
        arrivals_finish(&made);
        return status;
    }
    *out = made;
    return WEIR_OK;
}

static enum weir_status make_recorded(const struct arrivals_spec *spec, struct arrivals *out,
                                      struct weir_err *err)
{
    struct buffer text;
    enum weir_status status = file_read(AT_FDCWD, spec->path, RECORDING_BYTES_MAX, &text, err);
    if (status == WEIR_OK) {
        status = read_lines((struct bytes){ text.data, text.size }, spec->path, spec, out, err);
    }
    buffer_finish(&text);
    return status;
}

double arrivals_rate(const struct arrivals_spec *spec)
{
    if (spec->kind == ARRIVALS_RECORDED) {
        return 0;
    }
    if (spec->kind != ARRIVALS_USERS) {
        return spec->rate;
    }
    const double on = (double)spec->on_ns;
    return spec->users * spec->rate * on / (on + (double)spec->off_ns);
}

static enum weir_status check(const struct arrivals_spec *spec, struct weir_err *err)
{
    if (spec->kind == ARRIVALS_RECORDED) {
        return WEIR_OK;
    }
    if (!(spec->rate > 0) || spec->rate > 1e9) {
        return err_set(err, WEIR_EINVAL,
                       "a rate of %g requests per second: it must be above 0, and"
                       " at most 1e9",
                       spec->rate);
    }
    if (spec->duration_ns == 0 || spec->duration_ns > DURATION_NS_MAX) {
        return err_set(err, WEIR_EINVAL, "a run lasts more than no time and at most a week");
    }
    const double count = arrivals_rate(spec) * (double)spec->duration_ns / 1e9;
    if (count > (double)ARRIVALS_MAX * 0.9) {
        return err_set(err, WEIR_EINVAL, "%.0f requests are too many for one run: at most %zu",
                       count, ARRIVALS_MAX);
    }
    return WEIR_OK;
}

enum weir_status arrivals_make(const struct arrivals_spec *spec, struct arrivals *out,
                               struct weir_err *err)
{
    static enum weir_status (*const makers[])(const struct arrivals_spec *, struct arrivals *,
                                              struct weir_err *) = {
        [ARRIVALS_CONSTANT] = make_constant,
        [ARRIVALS_POISSON] = make_poisson,
        [ARRIVALS_RECORDED] = make_recorded,
        [ARRIVALS_USERS] = make_users,
    };
    struct arrivals made = { 0 };
    enum weir_status status = check(spec, err);
    if (status == WEIR_OK) {
        status = makers[spec->kind](spec, &made, err);
    }
    if (status != WEIR_OK) {
        arrivals_finish(&made);
        return status;
    }
    *out = made;
    return WEIR_OK;
}
