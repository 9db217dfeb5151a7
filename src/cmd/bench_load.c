/*
 * The loop: send what is due, look after time-outs, wait for answers until the next thing is due.
 * While a turn's answers come in, whatever becomes due meanwhile is sent between them, so that a
 * burst of answers does not hold up the schedule.
 *
 * A request under way is a job, one of a fixed array; those under way are linked in the order in
 * which they left, which is the order of their time-outs.  The clock is read for each answer:
 * a turn can bring many, and the last is not to be late for the first's sake.
 */
#include "cmd/bench_load.h"

#include <string.h>
#include <sys/prctl.h>

#include "cmd/bench_watch.h"
#include "util/clock.h"
#include "util/mem.h"

#define NONE UINT32_MAX
#define OPEN_CONNECTIONS 64 /* REST, open loop: to begin with. */
#define OPEN_CONNECTIONS_MAX 4096
#define OPEN_GRPC_CONNECTIONS 16 /* Servers often take 100 calls on each. */
#define STREAMS_A_CONNECTION 64
#define PROGRESS_NS (200 * NS_PER_MS)
#define CONNECT_NS (10 * NS_PER_S)
#define AWAY_NS (100 * NS_PER_MS) /* A server that hangs up is dialed anew in less. */

struct job {
    uint64_t intended_ns;
    uint64_t sent_ns;
    uint32_t next; /* Under way: the one that left after it; free: another one. */
    uint32_t prev;
    uint16_t class_index;
    uint16_t source;
    bool measured;
};

struct load {
    const struct load_options *options;
    struct bench_run *run;
    struct sentences *sentences;
    struct wire *wire;
    struct clock clock;
    uint64_t random;
    uint32_t weight_sum;
    uint32_t turn[BENCH_CLASSES_MAX]; /* Which variant is next. */

    uint64_t start_ns; /* Of the warm-up, */
    uint64_t from_ns;  /* of the window, */
    uint64_t until_ns; /* and its end. */
    uint64_t now_ns;
    bool ending; /* Nothing more begins. */

    size_t at[LOAD_SOURCES_MAX];    /* Open: of the schedule. */
    uint32_t due[LOAD_SOURCES_MAX]; /* Closed: to begin as soon as there is room. */
    uint64_t begun;                 /* By closed sources. */
    uint64_t next_ns;               /* When the next open source is due. */
    uint32_t due_count;
    uint32_t measured; /* Under way, of open sources, due in the window. */
    uint32_t closed;   /* Under way, of closed sources. */

    struct job *jobs;
    uint32_t job_count;
    uint32_t free_job;
    uint32_t first; /* Under way, oldest first. */
    uint32_t last;
    uint32_t inflight;

    double area;            /* Integral of requests under way. */
    uint64_t area_ns;       /* Up to here. */
    uint64_t last_ns;       /* The last measured answer. */
    uint64_t idle_ns;       /* Spent on looking, with `spin`. */
    uint64_t away_since_ns; /* Nothing is under way and something due since then; 0: no. */
    struct watch_cpu cpu;
    struct watch_cpu server;
};

static uint64_t now_of(struct load *load)
{
    load->now_ns = clock_now_ns(&load->clock);
    return load->now_ns;
}

static uint64_t draw(struct load *load)
{
    load->random ^= load->random << 13;
    load->random ^= load->random >> 7;
    load->random ^= load->random << 17;
    return load->random;
}

/* ---- Jobs ------------------------------------------------------------------------------------ */

static bool is_open(const struct load *load, uint32_t source)
{
    return load->options->sources[source].concurrency == 0;
}

/* Before the number under way changes.  Of open sources what is due in the window counts until it
 * ends, of closed ones all that is under way within it: as they are counted themselves. */
static void count_area(struct load *load)
{
    const uint64_t from_ns = load->area_ns;
    if (load->now_ns <= from_ns) {
        return;
    }
    const uint64_t until_ns = load->now_ns < load->until_ns ? load->now_ns : load->until_ns;
    load->area += (double)(load->now_ns - from_ns) * load->measured;
    load->area += until_ns > from_ns ? (double)(until_ns - from_ns) * load->closed : 0;
    load->area_ns = load->now_ns;
}

static uint32_t take_job(struct load *load)
{
    const uint32_t index = load->free_job;
    if (index != NONE) {
        load->free_job = load->jobs[index].next;
    }
    return index;
}

static void give_job(struct load *load, uint32_t index)
{
    load->jobs[index].next = load->free_job;
    load->free_job = index;
}

static void link_job(struct load *load, uint32_t index)
{
    struct job *job = &load->jobs[index];
    job->next = NONE;
    job->prev = load->last;
    if (load->last == NONE) {
        load->first = index;
    } else {
        load->jobs[load->last].next = index;
    }
    load->last = index;
    load->inflight++;
    load->measured += job->measured;
    load->closed += !is_open(load, job->source);
}

static void unlink_job(struct load *load, uint32_t index)
{
    const struct job *job = &load->jobs[index];
    if (job->prev == NONE) {
        load->first = job->next;
    } else {
        load->jobs[job->prev].next = job->next;
    }
    if (job->next == NONE) {
        load->last = job->prev;
    } else {
        load->jobs[job->next].prev = job->prev;
    }
    load->inflight--;
    load->measured -= job->measured;
    load->closed -= !is_open(load, job->source);
}

/* ---- Beginning ------------------------------------------------------------------------------- */

static uint32_t class_of(struct load *load, uint32_t source)
{
    const struct load_options *options = load->options;
    if (options->sources[source].class_index != LOAD_ANY_CLASS) {
        return options->sources[source].class_index;
    }
    if (load->weight_sum == options->classes[0].weight) {
        return 0;
    }
    uint32_t rest = (uint32_t)(draw(load) % load->weight_sum);
    uint32_t index = 0;
    while (rest >= options->classes[index].weight) {
        rest -= options->classes[index++].weight;
    }
    return index;
}

static const struct wire_request *request_of(struct load *load, uint32_t class_index)
{
    const struct load_class *class = &load->options->classes[class_index];
    const uint32_t turn = load->turn[class_index];
    load->turn[class_index] = turn + 1 < class->variant_count ? turn + 1 : 0;
    return &class->variants[turn];
}

static uint64_t in_window(const struct load *load, uint64_t at_ns)
{
    return at_ns > load->from_ns ? at_ns - load->from_ns : 0;
}

/* Sends one request; false: there is no room now. */
static bool begin(struct load *load, uint32_t source, uint64_t intended_ns)
{
    const uint32_t index = take_job(load);
    if (index == NONE) {
        return false;
    }
    struct job *job = &load->jobs[index];
    const uint32_t class_index = class_of(load, source);
    const bool open = is_open(load, source);
    *job = (struct job){ .intended_ns = intended_ns,
                         .class_index = (uint16_t)class_index,
                         .source = (uint16_t)source,
                         .measured = open && intended_ns >= load->from_ns };
    if (!wire_send(load->wire, index, request_of(load, class_index))) {
        give_job(load, index);
        return false;
    }
    job->sent_ns = load->now_ns;
    count_area(load);
    link_job(load, index);
    if (job->measured) {
        bench_run_sent(load->run, class_index, in_window(load, load->now_ns),
                       load->now_ns - intended_ns);
    }
    return true;
}

static void set_next(struct load *load)
{
    load->next_ns = CLOCK_NEVER;
    for (uint32_t i = 0; i < load->options->source_count; i++) {
        const struct arrivals *arrivals = load->options->sources[i].arrivals;
        if (is_open(load, i) && load->at[i] < arrivals->count) {
            const uint64_t at_ns = load->start_ns + arrivals->at_ns[load->at[i]];
            load->next_ns = at_ns < load->next_ns ? at_ns : load->next_ns;
        }
    }
}

static void launch_open(struct load *load)
{
    for (uint32_t i = 0; i < load->options->source_count; i++) {
        const struct arrivals *arrivals = load->options->sources[i].arrivals;
        while (is_open(load, i) && load->at[i] < arrivals->count) {
            const uint64_t at_ns = load->start_ns + arrivals->at_ns[load->at[i]];
            if (at_ns > load->now_ns || !begin(load, i, at_ns)) {
                break;
            }
            load->at[i]++;
            (void)now_of(load);
        }
    }
    set_next(load);
}

/* A closed source neither sends nor counts what comes after the window. */
static bool is_over(const struct load *load)
{
    return load->now_ns >= load->until_ns && load->options->requests_max == 0;
}

static void begin_closed(struct load *load, uint32_t source)
{
    const uint64_t most = load->options->requests_max;
    if (load->ending || is_over(load) || (most > 0 && load->begun >= most)) {
        return;
    }
    if (begin(load, source, load->now_ns)) {
        load->begun++;
    } else {
        load->due[source]++;
        load->due_count++;
    }
}

static void launch_closed(struct load *load)
{
    for (uint32_t i = 0; i < load->options->source_count && load->due_count > 0; i++) {
        for (uint32_t count = load->due[i]; count > 0; count--) {
            load->due[i]--;
            load->due_count--;
            begin_closed(load, i);
            if (load->due[i] >= count) {
                break; /* No room: it is due again. */
            }
            (void)now_of(load);
        }
    }
}

/* ---- Ending ---------------------------------------------------------------------------------- */

/* A closed source's request counts where it ends. */
static bool counts(const struct load *load, const struct job *job, enum bench_outcome outcome)
{
    if (job->measured || is_open(load, job->source)) {
        return job->measured;
    }
    return load->now_ns >= load->from_ns && (!is_over(load) || outcome == BENCH_UNANSWERED);
}

static void end_job(struct load *load, uint32_t index, enum bench_outcome outcome)
{
    struct job *job = &load->jobs[index];
    const uint32_t source = job->source;
    const uint64_t latency_ns = load->now_ns - job->intended_ns;
    count_area(load);
    if (counts(load, job, outcome)) {
        const uint64_t at_ns = in_window(load, load->now_ns);
        if (!job->measured) {
            bench_run_sent(load->run, job->class_index, in_window(load, job->sent_ns), UINT64_MAX);
        }
        bench_run_answered(load->run, job->class_index, at_ns, latency_ns, outcome);
        load->last_ns = outcome == BENCH_UNANSWERED ? load->last_ns : load->now_ns;
    }
    unlink_job(load, index);
    give_job(load, index);
    if (!is_open(load, source)) {
        begin_closed(load, source);
    }
}

static void on_answer(void *user, uint32_t tag, const struct wire_answer *answer)
{
    struct load *load = user;
    char room[SENTENCE_CODE_BYTES];
    const char *code = NULL;
    (void)now_of(load);
    const enum bench_outcome outcome = sentences_outcome(answer, &code, room);
    if (outcome != BENCH_OK && counts(load, &load->jobs[tag], outcome)) {
        bench_run_code(load->run, code);
        sentences_note(load->sentences, code, answer);
    }
    end_job(load, tag, outcome);
    if (load->now_ns >= load->next_ns && !load->ending) {
        launch_open(load);
    }
}

static void give_up(struct load *load, uint32_t index)
{
    wire_cancel(load->wire, index);
    end_job(load, index, BENCH_UNANSWERED);
}

static void check_timeouts(struct load *load)
{
    const uint64_t timeout_ns = load->options->timeout_ns;
    while (timeout_ns > 0 && load->first != NONE &&
           load->now_ns - load->jobs[load->first].sent_ns >= timeout_ns) {
        give_up(load, load->first);
    }
}

/* What never left because every connection was busy. */
static void count_unsent(struct load *load)
{
    for (uint32_t i = 0; i < load->options->source_count; i++) {
        const struct arrivals *arrivals = load->options->sources[i].arrivals;
        while (is_open(load, i) && load->at[i] < arrivals->count) {
            const uint64_t at_ns = load->start_ns + arrivals->at_ns[load->at[i]++];
            if (at_ns < load->from_ns || at_ns >= load->now_ns) {
                continue;
            }
            const uint64_t waited_ns = load->now_ns - at_ns;
            const uint32_t class_index = class_of(load, i);
            bench_run_sent(load->run, class_index, in_window(load, load->now_ns), waited_ns);
            bench_run_answered(load->run, class_index, in_window(load, load->now_ns), waited_ns,
                               BENCH_UNANSWERED);
        }
    }
}

/* ---- The loop -------------------------------------------------------------------------------- */

static bool is_stopped(const struct load *load)
{
    return load->options->stop != NULL && *load->options->stop != 0;
}

static bool is_hopeless(const struct load *load)
{
    const struct bench_run *run = load->run;
    uint64_t ended = 0;
    for (int i = 0; i < BENCH_OUTCOME_COUNT; i++) {
        ended += run->counts[i];
    }
    return load->options->misses_max > 0 && ended - run->good > load->options->misses_max;
}

static bool has_enough(const struct load *load)
{
    return load->options->requests_max > 0 && load->begun >= load->options->requests_max &&
           load->inflight == 0 && load->due_count == 0;
}

static void tell_progress(struct load *load, uint64_t *next_ns)
{
    if (load->options->progress == NULL || load->now_ns < *next_ns) {
        return;
    }
    *next_ns = load->now_ns + PROGRESS_NS;
    const struct load_progress progress = { .run = load->run,
                                            .elapsed_ns = load->now_ns - load->start_ns,
                                            .planned_ns = load->until_ns - load->start_ns,
                                            .inflight = load->inflight,
                                            .warming = load->now_ns < load->from_ns };
    load->options->progress(load->options->user, &progress);
}

/* One turn, which may wait until `until_ns`. */
static void turn(struct load *load, uint64_t until_ns)
{
    const uint64_t begun_ns = now_of(load);
    uint64_t wait_ns = until_ns > begun_ns ? until_ns - begun_ns : 0;
    if (load->due_count > 0) {
        wait_ns = wait_ns < NS_PER_MS ? wait_ns : NS_PER_MS;
    }
    const uint32_t happened = wire_turn(load->wire, load->options->spin ? 0 : wait_ns);
    (void)now_of(load);
    if (happened == 0 && load->options->spin) {
        load->idle_ns += load->now_ns - begun_ns;
    }
}

static uint64_t wake_ns(const struct load *load, uint64_t end_ns)
{
    const uint64_t timeout_ns =
        load->options->timeout_ns > 0 && load->first != NONE
            ? clock_add(load->jobs[load->first].sent_ns, load->options->timeout_ns)
            : CLOCK_NEVER;
    /* An open source that is due and found no room waits for an answer. */
    const uint64_t next_ns =
        load->next_ns > load->now_ns ? load->next_ns : load->now_ns + NS_PER_MS;
    uint64_t at_ns = end_ns < timeout_ns ? end_ns : timeout_ns;
    at_ns = at_ns < load->now_ns + PROGRESS_NS ? at_ns : load->now_ns + PROGRESS_NS;
    return at_ns < next_ns ? at_ns : next_ns;
}

static void end_away(struct load *load)
{
    const uint64_t since_ns =
        load->away_since_ns > load->from_ns ? load->away_since_ns : load->from_ns;
    if (load->away_since_ns != 0 && load->now_ns > since_ns + AWAY_NS) {
        load->run->away_ns += load->now_ns - since_ns;
    }
    load->away_since_ns = 0;
}

/* After everything that is due was tried. */
static void watch_away(struct load *load)
{
    const bool due = load->due_count > 0 || load->now_ns >= load->next_ns;
    if (!due || load->inflight > 0) {
        end_away(load);
    } else if (load->away_since_ns == 0) {
        load->away_since_ns = load->now_ns;
    }
}

static void begin_window(struct load *load)
{
    load->area = 0;
    load->area_ns = load->now_ns;
    load->idle_ns = 0;
    load->run->started_wall_ms = clock_wall_ms();
    load->run->bytes_sent = wire_bytes_sent(load->wire);
    load->run->bytes_received = wire_bytes_received(load->wire);
    watch_cpu_begin(&load->cpu, 0);
    if (load->options->server_pid != 0) {
        watch_cpu_begin(&load->server, load->options->server_pid);
    }
}

static void end_window(struct load *load)
{
    struct bench_run *run = load->run;
    const uint64_t wall_ns = load->now_ns > load->from_ns ? load->now_ns - load->from_ns : 0;
    const uint64_t cpu_ns = watch_cpu_end(&load->cpu);
    const uint64_t busy_ns = cpu_ns > load->idle_ns ? cpu_ns - load->idle_ns : 0;
    run->generator_cpu = wall_ns > 0 ? (double)busy_ns / (double)wall_ns : 0;
    if (load->options->server_pid != 0) {
        run->server_cpu_ns = watch_cpu_end(&load->server);
        run->server_memory = watch_memory(load->options->server_pid);
    }
    run->bytes_sent = wire_bytes_sent(load->wire) - run->bytes_sent;
    run->bytes_received = wire_bytes_received(load->wire) - run->bytes_received;
}

static void play_window(struct load *load)
{
    bool warming = true;
    uint64_t progress_ns = load->now_ns;
    for (uint32_t i = 0; i < load->options->source_count; i++) {
        load->due[i] = load->options->sources[i].concurrency;
        load->due_count += load->due[i];
    }
    set_next(load);
    while (now_of(load) < load->until_ns && !is_stopped(load) && !is_hopeless(load) &&
           !has_enough(load)) {
        if (warming && load->now_ns >= load->from_ns) {
            warming = false;
            begin_window(load);
        }
        launch_closed(load);
        if (load->now_ns >= load->next_ns) {
            launch_open(load);
        }
        watch_away(load);
        check_timeouts(load);
        tell_progress(load, &progress_ns);
        turn(load, wake_ns(load, warming ? load->from_ns : load->until_ns));
    }
    end_away(load);
    if (warming) {
        begin_window(load);
    }
}

/* Waits for what is still under way, and counts the rest as unanswered. */
static void drain(struct load *load)
{
    load->ending = true;
    load->due_count = 0;
    load->next_ns = CLOCK_NEVER;
    const uint64_t end_ns = load->now_ns + (is_stopped(load) ? 0 : load->options->drain_ns);
    while (now_of(load) < end_ns && !is_stopped(load) && load->measured + load->closed > 0) {
        check_timeouts(load);
        turn(load, wake_ns(load, end_ns));
    }
    while (load->first != NONE) {
        give_up(load, load->first);
    }
}

static void play(struct load *load)
{
    struct bench_run *run = load->run;
    play_window(load);
    run->stopped = is_stopped(load);
    const bool whole = load->now_ns >= load->until_ns;
    const uint64_t end_ns = whole ? load->until_ns : load->now_ns;
    const uint64_t window_ns = end_ns > load->from_ns ? end_ns - load->from_ns : 0;
    if (!whole) {
        load->until_ns = load->now_ns; /* Nothing is due that had not been by now. */
    }
    if (!run->stopped) {
        launch_open(load); /* What became due since the last turn. */
    }
    end_window(load);
    count_unsent(load);
    drain(load);
    count_area(load);
    run->elapsed_ns = window_ns;
    if (load->options->requests_max > 0 && load->last_ns > load->from_ns) {
        run->elapsed_ns = load->last_ns - load->from_ns;
    }
    run->elapsed_ns = run->elapsed_ns == 0 ? 1 : run->elapsed_ns;
    run->inflight_mean = load->area / (double)run->elapsed_ns;
}

/* ---- Before it runs -------------------------------------------------------------------------- */

static uint32_t flight_of(const struct load_options *options, bool *open)
{
    uint32_t flight = 0;
    *open = false;
    for (uint32_t i = 0; i < options->source_count; i++) {
        flight += options->sources[i].concurrency;
        *open = *open || options->sources[i].concurrency == 0;
    }
    return flight;
}

static uint32_t clamp(uint32_t value, uint32_t from, uint32_t to)
{
    return value < from ? from : value > to ? to : value;
}

static void plan_connections(const struct load_options *options, struct wire_options *wire)
{
    bool open;
    const uint32_t flight = flight_of(options, &open);
    const uint32_t wanted = options->connections;
    if (options->plan != NULL) {
        const uint32_t streams =
            clamp(options->streams_max == 0 ? HTTP2_MUX_STREAMS_MAX : options->streams_max, 1,
                  open ? 1024 : HTTP2_MUX_STREAMS_MAX);
        const uint32_t needed = (flight + STREAMS_A_CONNECTION - 1) / STREAMS_A_CONNECTION;
        wire->connections =
            clamp(wanted != 0 ? wanted : needed + (open ? OPEN_GRPC_CONNECTIONS : 0), 1,
                  WIRE_CONNECTIONS_MAX);
        wire->connections_max = wire->connections;
        wire->streams_max = open ? streams : clamp(streams, 1, clamp(flight, 1, 4096));
        return;
    }
    const uint32_t most =
        options->connections_max != 0 ? options->connections_max : OPEN_CONNECTIONS_MAX;
    wire->connections = clamp(wanted != 0 ? wanted : flight + (open ? OPEN_CONNECTIONS : 0), 1,
                              WIRE_CONNECTIONS_MAX);
    wire->connections_max =
        open ? clamp(most, wire->connections, WIRE_CONNECTIONS_MAX) : wire->connections;
}

static enum weir_status make_jobs(struct load *load, struct weir_err *err)
{
    load->jobs = mem_try_zero(load->job_count, sizeof(*load->jobs));
    if (load->jobs == NULL) {
        return err_nomem(err, "requests under way", load->job_count * sizeof(*load->jobs));
    }
    load->free_job = NONE;
    for (uint32_t i = load->job_count; i > 0; i--) {
        give_job(load, i - 1);
    }
    load->first = load->last = NONE;
    return WEIR_OK;
}

enum weir_status load_play(const struct load_options *options, struct bench_run *run,
                           struct sentences *sentences, struct weir_err *err)
{
    struct load load = { .options = options,
                         .run = run,
                         .sentences = sentences,
                         .random = options->seed * 2 + 1,
                         .job_count = LOAD_FLIGHT_MAX };
    clock_init(&load.clock);
    for (uint32_t i = 0; i < options->class_count; i++) {
        load.weight_sum += options->classes[i].weight;
    }
    enum weir_status status = make_jobs(&load, err);
    struct wire_options wire = { .url = options->url,
                                 .plan = options->plan,
                                 .tags = load.job_count,
                                 .timeout_ns = CONNECT_NS,
                                 .answered = on_answer,
                                 .user = &load };
    plan_connections(options, &wire);
    if (status == WEIR_OK) {
        status = wire_open(&wire, &load.wire, err);
    }
    if (status == WEIR_OK) {
        (void)prctl(PR_SET_TIMERSLACK, 1UL); /* Else the kernel sleeps 50 us longer than asked. */
        load.start_ns = now_of(&load);
        load.from_ns = load.start_ns + options->warmup_ns;
        load.until_ns = load.from_ns + run->duration_ns;
        play(&load);
    }
    wire_close(load.wire);
    mem_free(load.jobs);
    return status;
}
