/*
 * `weir bench`: what a server does under a load, and whether the measurement can be believed.
 *
 * Loads are measured in order, repeats of one load together, and within a repeat every target in
 * turn, so that what changes on the machine meanwhile meets all of them.  A search runs one target
 * to its end before the next, because each step depends on the one before.
 */
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "cmd/bench_account.h"
#include "cmd/bench_live.h"
#include "cmd/bench_load.h"
#include "cmd/bench_options.h"
#include "cmd/bench_plan.h"
#include "cmd/bench_report.h"
#include "cmd/bench_watch.h"
#include "cmd/cmd.h"
#include "cmd/term.h"
#include "util/clock.h"
#include "util/descriptors.h"
#include "util/file.h"
#include "util/mem.h"

#define REPORT_BYTES_MAX ((size_t)256 << 20)
#define NOTES_MAX 40
#define SEARCH_RATE_MAX 1e6
#define SEARCH_REQUESTS 800 /* At least so many in a step: 459 are needed to pass without a miss. */
#define SEARCH_STEP_MAX_NS (600 * NS_PER_S)
#define COMMAND_BYTES 2048

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

struct bench {
    struct wish wish;
    struct arena arena;
    struct plan_target targets[BENCH_TARGETS_MAX];
    struct bench_target rows[BENCH_TARGETS_MAX]; /* Of the report. */
    struct sentences sentences[BENCH_TARGETS_MAX];
    struct bench_run *runs;
    uint32_t run_count;
    uint32_t run_capacity;
    struct live live;
    uint64_t started_wall_ms;
    struct bench_note notes[NOTES_MAX];
    uint32_t note_count;
    char command[COMMAND_BYTES];
    char machine[256];
};

/* ---- One run --------------------------------------------------------------------------------- */

/* What one run sends from. */
struct play {
    struct load_source sources[LOAD_SOURCES_MAX];
    uint32_t source_count;
    struct arrivals arrivals[LOAD_SOURCES_MAX];
};

static void finish_play(struct play *play)
{
    for (uint32_t i = 0; i < play->source_count; i++) {
        arrivals_finish(&play->arrivals[i]);
    }
}

/* A source with the schedule of `spec`, or a closed one. */
static enum weir_status add_source(struct play *play, uint32_t class_index, uint32_t concurrency,
                                   const struct arrivals_spec *spec, struct weir_err *err)
{
    const uint32_t at = play->source_count;
    if (concurrency == 0) {
        const enum weir_status status = arrivals_make(spec, &play->arrivals[at], err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    play->sources[at] = (struct load_source){ .class_index = class_index,
                                              .concurrency = concurrency,
                                              .arrivals = &play->arrivals[at] };
    play->source_count++;
    return WEIR_OK;
}

static struct arrivals_spec arrivals_at(const struct wish *wish, double load, uint64_t window_ns,
                                        uint64_t seed)
{
    struct arrivals_spec spec = wish->arrivals;
    spec.seed = seed;
    spec.duration_ns = wish->warmup_ns + window_ns;
    if (spec.kind == ARRIVALS_USERS) {
        spec.users = (uint32_t)load;
    } else if (spec.kind != ARRIVALS_RECORDED) {
        spec.rate = load;
    }
    return spec;
}

static enum weir_status make_play(const struct wish *wish, double load, uint64_t window_ns,
                                  uint64_t seed, struct play *play, struct bench_run *run,
                                  struct weir_err *err)
{
    enum weir_status status = WEIR_OK;
    if (wish_has_draw(wish)) {
        const struct arrivals_spec spec = arrivals_at(wish, load, window_ns, seed);
        const bool open = wish->load == BENCH_LOAD_OPEN;
        status = add_source(play, LOAD_ANY_CLASS, open ? 0 : (uint32_t)load, &spec, err);
        if (status == WEIR_OK && open && spec.kind == ARRIVALS_USERS) {
            run->load = BENCH_LOAD_USERS;
        } else if (status == WEIR_OK && open) {
            run->offered =
                spec.kind == ARRIVALS_RECORDED
                    ? (double)play->arrivals[0].count * 1e9 / (double)(wish->warmup_ns + window_ns)
                    : arrivals_rate(&spec);
        }
    }
    for (uint32_t i = 0; i < wish->class_count && status == WEIR_OK; i++) {
        const struct wish_class *class = &wish->classes[i];
        if (class->rate <= 0 && class->concurrency == 0) {
            continue;
        }
        struct arrivals_spec spec =
            arrivals_at(wish, class->rate, window_ns, seed + 7919 * (i + 1));
        spec.kind = wish->arrivals.kind == ARRIVALS_CONSTANT ? ARRIVALS_CONSTANT : ARRIVALS_POISSON;
        spec.rate = class->rate;
        status = add_source(play, i, class->concurrency, &spec, err);
        if (class->rate > 0) {
            /* A closed loop beside it has a number of another unit. */
            run->offered = (run->load == BENCH_LOAD_OPEN ? run->offered : 0) + class->rate;
            run->load = BENCH_LOAD_OPEN;
        }
    }
    return status;
}

static void set_classes(const struct wish *wish, struct bench_run *run)
{
    run->class_count = wish->class_count;
    for (uint32_t i = 0; i < wish->class_count; i++) {
        memcpy(run->classes[i].name, wish->classes[i].name, sizeof(run->classes[i].name));
        run->classes[i].slo_ns = wish->classes[i].slo_ns;
    }
}

static enum weir_status room_for_run(struct bench *bench, struct weir_err *err)
{
    if (bench->run_count < bench->run_capacity) {
        return WEIR_OK;
    }
    const uint32_t capacity = bench->run_capacity * 2 + 16;
    struct bench_run *runs = mem_try_resize(bench->runs, capacity * sizeof(*runs));
    if (runs == NULL) {
        return err_nomem(err, "results", capacity * sizeof(*runs));
    }
    bench->runs = runs;
    bench->run_capacity = capacity;
    return WEIR_OK;
}

static struct load_options options_of(struct bench *bench, uint32_t target, const struct play *play,
                                      uint64_t seed)
{
    const struct wish *wish = &bench->wish;
    const struct plan_target *plan = &bench->targets[target];
    return (struct load_options){ .url = plan->wish->url,
                                  .plan = plan->plan,
                                  .connections = (uint32_t)wish->connections,
                                  .streams_max = (uint32_t)wish->streams,
                                  .classes = plan->classes,
                                  .class_count = plan->class_count,
                                  .sources = play->sources,
                                  .source_count = play->source_count,
                                  .warmup_ns = wish->warmup_ns,
                                  .drain_ns = wish->drain_ns,
                                  .timeout_ns = wish->timeout_ns,
                                  .requests_max = wish->requests,
                                  .seed = seed,
                                  .spin = wish->spin,
                                  .server_pid = (pid_t)wish->server_pid,
                                  .stop = &stopped,
                                  .progress = live_show,
                                  .user = &bench->live };
}

static uint64_t planned(const struct play *play, uint64_t warmup_ns)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < play->source_count; i++) {
        for (size_t k = 0; k < play->arrivals[i].count; k++) {
            count += play->arrivals[i].at_ns[k] >= warmup_ns;
        }
    }
    return count;
}

/* Measures once; the run is closed and kept. */
static enum weir_status measure(struct bench *bench, uint32_t target, uint32_t repeat, double load,
                                uint64_t window_ns, struct weir_err *err)
{
    const struct wish *wish = &bench->wish;
    const uint64_t seed = wish->seed + repeat;
    struct play play = { 0 };
    enum weir_status status = room_for_run(bench, err);
    if (status != WEIR_OK) {
        return status;
    }
    struct bench_run *run = &bench->runs[bench->run_count];
    *run = (struct bench_run){ .target = target,
                               .repeat = repeat,
                               .load = wish->load,
                               .offered = load,
                               .rows = (uint32_t)wish->rows,
                               .duration_ns = window_ns,
                               .slo_ns = wish->slo_ns };
    set_classes(wish, run);
    status = make_play(wish, load, window_ns, seed, &play, run, err);
    if (status == WEIR_OK) {
        status = bench_run_init(run, err);
    }
    if (status == WEIR_OK) {
        struct load_options options = options_of(bench, target, &play, seed);
        options.misses_max = wish->search ? planned(&play, wish->warmup_ns) / 100 : 0;
        bench->live.target = wish->target_count > 1 ? bench->rows[target].name : "";
        bench->live.run++;
        (void)snprintf(bench->live.load, sizeof(bench->live.load), "%g %s", run->offered,
                       bench_load_unit(run->load));
        struct bench_account before;
        struct bench_account after;
        bench_account_read(options.url, wish->model, wish->version, &before);
        status = load_play(&options, run, &bench->sentences[target], err);
        live_wipe(&bench->live);
        if (status == WEIR_OK) {
            bench_account_read(options.url, wish->model, wish->version, &after);
            bench_account_between(&before, &after, run);
            bench_run_close(run);
            bench->run_count++;
        } else {
            bench_run_finish(run);
        }
    }
    finish_play(&play);
    return status;
}

/* Up to and with the last arrival. */
static enum weir_status fit_recording(struct wish *wish, struct weir_err *err)
{
    struct arrivals all = { 0 };
    if (!wish->whole_recording) {
        return WEIR_OK;
    }
    const enum weir_status status = arrivals_make(&wish->arrivals, &all, err);
    if (status == WEIR_OK) {
        const uint64_t end_ns = all.at_ns[all.count - 1] + 1;
        wish->duration_ns = end_ns > wish->warmup_ns ? end_ns - wish->warmup_ns : 1;
        arrivals_finish(&all);
    }
    return status;
}

/* ---- All of them ----------------------------------------------------------------------------- */

/* What is there by then is reported; that it is not all must be said. */
static enum weir_status broke_off(const struct bench *bench, uint32_t target,
                                  enum weir_status status, struct weir_err *err)
{
    if (bench->wish.target_count > 1) {
        (void)err_prefix(err, "%s", bench->rows[target].name);
    }
    return bench->run_count == 0
               ? status
               : (err_prefix(err, "ended after %u runs", bench->run_count), status);
}

static enum weir_status measure_loads(struct bench *bench, struct weir_err *err)
{
    const struct wish *wish = &bench->wish;
    const uint32_t loads = wish->load_count == 0 ? 1 : wish->load_count;
    bench->live.runs = loads * (uint32_t)wish->repeat * wish->target_count;
    for (uint32_t i = 0; i < loads; i++) {
        for (uint32_t repeat = 0; repeat < wish->repeat; repeat++) {
            for (uint32_t target = 0; target < wish->target_count && stopped == 0; target++) {
                const double load = wish->load_count == 0 ? 0 : wish->loads[i];
                const enum weir_status status =
                    measure(bench, target, repeat, load, wish->duration_ns, err);
                if (status != WEIR_OK) {
                    return broke_off(bench, target, status, err);
                }
            }
        }
    }
    return WEIR_OK;
}

/* Long enough that a pass is possible at all. */
static uint64_t step_ns(const struct wish *wish, double rate)
{
    const double needed_ns = SEARCH_REQUESTS / rate * 1e9;
    const double most_ns = (double)SEARCH_STEP_MAX_NS;
    const uint64_t needed = (uint64_t)(needed_ns < most_ns ? needed_ns : most_ns);
    return wish->duration_ns > needed ? wish->duration_ns : needed;
}

static enum weir_status search_once(struct bench *bench, uint32_t target, uint32_t repeat,
                                    double *valid, struct weir_err *err)
{
    const struct wish *wish = &bench->wish;
    struct verdict_search search;
    verdict_search_init(&search, wish->loads[0], SEARCH_RATE_MAX, wish->resolution / 100);
    while (!search.done && stopped == 0) {
        const enum weir_status status =
            measure(bench, target, repeat, search.rate, step_ns(wish, search.rate), err);
        if (status != WEIR_OK) {
            return broke_off(bench, target, status, err);
        }
        const struct bench_run *run = &bench->runs[bench->run_count - 1];
        if (run->flaws == 0) {
            verdict_search_tell(&search, bench_run_passed(run));
        } else {
            verdict_search_void(&search);
        }
    }
    *valid = stopped != 0 ? 0 : search.valid;
    return WEIR_OK;
}

static double median(double *values, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        const double value = values[i];
        uint32_t at = i;
        for (; at > 0 && values[at - 1] > value; at--) {
            values[at] = values[at - 1];
        }
        values[at] = value;
    }
    return count == 0 ? 0 : (values[(count - 1) / 2] + values[count / 2]) / 2;
}

static enum weir_status search_all(struct bench *bench, struct weir_err *err)
{
    double found[BENCH_TARGETS_MAX][BENCH_REPEAT_MAX] = { 0 };
    const uint32_t repeats = (uint32_t)bench->wish.repeat;
    for (uint32_t repeat = 0; repeat < repeats; repeat++) {
        for (uint32_t target = 0; target < bench->wish.target_count; target++) {
            const enum weir_status status =
                search_once(bench, target, repeat, &found[target][repeat], err);
            if (status != WEIR_OK) {
                return status;
            }
        }
    }
    for (uint32_t target = 0; target < bench->wish.target_count; target++) {
        bench->rows[target].valid_rate = median(found[target], repeats);
    }
    return WEIR_OK;
}

/* ---- The report ------------------------------------------------------------------------------ */

static void describe_machine(char *out, size_t size)
{
    char line[256];
    char cpu[160] = "unknown CPU";
    struct utsname name;
    unsigned count = 0;
    FILE *file = fopen("/proc/cpuinfo", "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        count += strncmp(line, "processor", 9) == 0;
        if (strncmp(line, "model name", 10) == 0 && strchr(line, ':') != NULL) {
            (void)snprintf(cpu, sizeof(cpu), "%.*s", (int)strcspn(strchr(line, ':') + 2, "\n"),
                           strchr(line, ':') + 2);
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    const bool known = uname(&name) == 0;
    (void)snprintf(out, size, "%u x %s%s%.60s", count, cpu, known ? ", Linux " : "",
                   known ? name.release : "");
}

/* The command line; what a header holds may be a secret. */
static void join_words(int count, char **words, char *out, size_t size)
{
    size_t used = (size_t)snprintf(out, size, "weir bench");
    for (int i = 0; i < count && used < size; i++) {
        const bool secret = (i > 0 && strcmp(words[i - 1], "--header") == 0) ||
                            strncmp(words[i], "--header=", 9) == 0;
        const bool quote = strpbrk(words[i], " '\"*?$&;<>|") != NULL;
        used += (size_t)snprintf(out + used, size - used, quote || secret ? " '%s'" : " %s",
                                 secret ? "..." : words[i]);
    }
}

static void note(struct bench *bench, const char *name, const char *value)
{
    if (bench->note_count < NOTES_MAX && value != NULL) {
        bench->notes[bench->note_count++] = (struct bench_note){ name, value };
    }
}

static void note_number(struct bench *bench, const char *name, uint64_t value)
{
    if (value > 0) {
        note(bench, name, arena_try_printf(&bench->arena, "%llu", (unsigned long long)value));
    }
}

static void note_time(struct bench *bench, const char *name, uint64_t ns)
{
    char text[32];
    if (ns > 0) {
        note(bench, name, arena_try_printf(&bench->arena, "%s", bytes_format_duration(ns, text)));
    }
}

/* What servers said when they refused, for documents. */
static void note_sentences(struct bench *bench)
{
    for (uint32_t target = 0; target < bench->wish.target_count; target++) {
        const struct sentences *sentences = &bench->sentences[target];
        for (uint32_t i = 0; i < sentences->count; i++) {
            const struct sentence *sentence = &sentences->list[i];
            note(bench, "answers",
                 arena_try_printf(&bench->arena, "%s%s%llu x %s%s%s",
                                  bench->wish.target_count > 1 ? bench->rows[target].name : "",
                                  bench->wish.target_count > 1 ? ": " : "",
                                  (unsigned long long)sentence->count, sentence->code,
                                  sentence->text[0] == '\0' ? "" : ": ", sentence->text));
        }
    }
}

static void note_settings(struct bench *bench)
{
    static const char *const formats[] = { "binary", "JSON", "shared memory" };
    const struct wish *wish = &bench->wish;
    if (wish->requests > 0) {
        note(bench, "ends after",
             arena_try_printf(&bench->arena, "%llu requests", (unsigned long long)wish->requests));
    }
    note_number(bench, "rows in a request", wish->rows);
    note(bench, "tensors", formats[wish->format]);
    note_number(bench, "different requests", bench->targets[0].variants);
    note_number(bench, "connections", wish->connections);
    note_number(bench, "priority", wish->priority);
    note_time(bench, "deadline", wish->deadline_ns);
    if (wish->load == BENCH_LOAD_OPEN && wish->arrivals.kind == ARRIVALS_USERS) {
        note_time(bench, "a user is active", wish->arrivals.on_ns);
        note_time(bench, "and thinks", wish->arrivals.off_ns);
    }
    if (wish->cpu > 0) {
        note(bench, "generator's CPU",
             arena_try_printf(&bench->arena, "%llu", (unsigned long long)wish->cpu - 1));
    }
}

/* The same below a table. */
static void write_sentences(const struct bench *bench, struct buffer *out)
{
    for (uint32_t target = 0; target < bench->wish.target_count; target++) {
        const struct sentences *sentences = &bench->sentences[target];
        for (uint32_t i = 0; i < sentences->count; i++) {
            const struct sentence *sentence = &sentences->list[i];
            buffer_printf(out, "  %s%s%llu x %s%s%s\n",
                          bench->wish.target_count > 1 ? bench->rows[target].name : "",
                          bench->wish.target_count > 1 ? ": " : "",
                          (unsigned long long)sentence->count, sentence->code,
                          sentence->text[0] == '\0' ? "" : ": ", sentence->text);
        }
    }
}

static struct bench_report report_of(struct bench *bench)
{
    const struct wish *wish = &bench->wish;
    return (struct bench_report){
        .model = bench->targets[0].model,
        .command = bench->command,
        .machine = bench->machine,
        .arrivals = wish->load == BENCH_LOAD_OPEN ? arrivals_word(wish->arrivals.kind) : NULL,
        .started_wall_ms = bench->started_wall_ms,
        .warmup_ns = wish->warmup_ns,
        .seed = wish->seed,
        .searched = wish->search,
        .notes = bench->notes,
        .note_count = bench->note_count,
        .targets = bench->rows,
        .target_count = wish->target_count,
        .runs = bench->runs,
        .run_count = bench->run_count,
    };
}

static int write_page(const struct bench_report *report, const char *path)
{
    struct buffer out;
    struct weir_err err = { 0 };
    buffer_init(&out, REPORT_BYTES_MAX);
    bench_report_html(report, &out);
    const enum weir_status status = out.failed ? err_nomem(&err, "the page", out.size)
                                               : file_write(path, out.data, out.size, &err);
    buffer_finish(&out);
    return status == WEIR_OK ? CMD_OK : cmd_fail(status, &err);
}

/* One sentence for each way in which runs were invalid, for those who read no table. */
static int judge(const struct bench *bench)
{
    uint32_t counts[BENCH_FLAW_COUNT] = { 0 };
    bool valid = true;
    for (uint32_t i = 0; i < bench->run_count; i++) {
        for (int flaw = 0; flaw < BENCH_FLAW_COUNT; flaw++) {
            counts[flaw] += bench->runs[i].flaws >> flaw & 1;
        }
        valid = valid && bench->runs[i].flaws == 0;
    }
    for (uint32_t i = 0; bench->wish.search && i < bench->wish.target_count; i++) {
        valid = (i == 0 || valid) && bench->rows[i].valid_rate > 0;
    }
    for (int flaw = 0; flaw < BENCH_FLAW_COUNT && !valid; flaw++) {
        if (counts[flaw] > 0) {
            fprintf(stderr, "weir: %u of %u runs invalid: %s\n", counts[flaw], bench->run_count,
                    bench_flaw_line((enum bench_flaw)flaw));
        }
    }
    return valid && bench->run_count > 0 ? CMD_OK : CMD_FAILED;
}

static int report(struct bench *bench)
{
    struct buffer out;
    note_settings(bench);
    struct bench_report results = report_of(bench);
    buffer_init(&out, REPORT_BYTES_MAX);
    if (!bench->wish.json && !bench->wish.csv) {
        bench_report_table(&results, term_color(stdout), &out);
        write_sentences(bench, &out);
    }
    note_sentences(bench);
    results = report_of(bench);
    if (bench->wish.json) {
        bench_report_json(&results, &out);
    } else if (bench->wish.csv) {
        bench_report_csv(&results, &out);
    }
    int code = cmd_print(&out);
    buffer_finish(&out);
    if (bench->wish.html != NULL && code == CMD_OK) {
        code = write_page(&results, bench->wish.html);
    }
    const int verdict = judge(bench);
    return code != CMD_OK ? code : verdict;
}

/* ---- The command ----------------------------------------------------------------------------- */

static enum weir_status pin(const struct wish *wish, struct weir_err *err)
{
    cpu_set_t set;
    if (wish->cpu == 0) {
        return WEIR_OK;
    }
    CPU_ZERO(&set);
    CPU_SET((size_t)wish->cpu - 1, &set);
    return sched_setaffinity(0, sizeof(set), &set) == 0
               ? WEIR_OK
               : err_set(err, WEIR_EINVAL, "--cpu: this machine has no CPU %llu for us",
                         (unsigned long long)wish->cpu - 1);
}

/* The first one ends the measurement in order, the second one the program. */
static void take_signals(void)
{
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
}

static enum weir_status prepare(struct bench *bench, struct weir_err *err)
{
    const struct wish *wish = &bench->wish;
    enum weir_status status = pin(wish, err);
    if (status == WEIR_OK && wish->html != NULL) {
        status = file_try(wish->html, err); /* Now, not when all has been measured. */
    }
    if (status == WEIR_OK && wish->server_pid != 0 && !watch_is_there((pid_t)wish->server_pid)) {
        status = err_set(err, WEIR_ENOENT, "--server-pid: there is no process %llu to look at",
                         (unsigned long long)wish->server_pid);
    }
    for (uint32_t i = 0; i < wish->target_count && status == WEIR_OK; i++) {
        static const char *const protocols[] = { "REST, binary", "REST, JSON",
                                                 "REST, shared memory" };
        status = plan_target_init(&bench->targets[i], &bench->arena, wish, i, err);
        if (status != WEIR_OK && wish->target_count > 1) {
            (void)err_prefix(err, "%s", wish->targets[i].name);
        }
        bench->rows[i] = (struct bench_target){
            .name = wish->targets[i].name,
            .url = wish->targets[i].url,
            .protocol = wish->targets[i].grpc ? "gRPC" : protocols[wish->format],
            .server = bench->targets[i].server[0] == '\0' ? NULL : bench->targets[i].server,
        };
    }
    return status;
}

static void finish(struct bench *bench)
{
    for (uint32_t i = 0; i < bench->wish.target_count; i++) {
        plan_target_finish(&bench->targets[i]);
    }
    for (uint32_t i = 0; i < bench->run_count; i++) {
        bench_run_finish(&bench->runs[i]);
    }
    mem_free(bench->runs);
    arena_finish(&bench->arena);
    mem_free(bench);
}

int cmd_bench(int count, char **words)
{
    struct weir_err err = { 0 };
    struct bench *bench = mem_alloc(sizeof(*bench));
    arena_init(&bench->arena, NULL, 0, 0);
    join_words(count, words, bench->command, sizeof(bench->command));
    enum weir_status status = wish_read(&bench->wish, count, words, &err);
    if (status != WEIR_OK) {
        bench->wish.target_count = 0;
        finish(bench);
        return cmd_usage("bench", "%s", err.text);
    }
    cmd_let_signals_end();
    if (bench->wish.format == REQUEST_SHARED) {
        take_signals(); /* Else what was made would stay.  Other preparations may be ended at once. */
    }
    (void)descriptors_raise(UINT64_MAX); /* A connection each for thousands of requests. */
    describe_machine(bench->machine, sizeof(bench->machine));
    bench->started_wall_ms = clock_wall_ms();
    bench->live.on = term_is_live(stderr) && !bench->wish.json;
    status = fit_recording(&bench->wish, &err);
    if (status == WEIR_OK) {
        status = prepare(bench, &err);
    }
    if (status == WEIR_OK) {
        take_signals();
        status = bench->wish.search ? search_all(bench, &err) : measure_loads(bench, &err);
    }
    if (status == WEIR_OK && bench->run_count == 0) {
        status = err_set(&err, WEIR_ECANCELED, "stopped before anything was measured");
    }
    int code = status == WEIR_OK ? CMD_OK : cmd_fail(status, &err);
    if (bench->run_count > 0) {
        const int verdict = report(bench);
        code = code != CMD_OK ? code : verdict;
    }
    finish(bench);
    return code;
}

void cmd_bench_help(struct buffer *out)
{
    buffer_text(out,
                "\nSends requests to a KServe v2 server (Weir, Triton, ...) and says how many it\n"
                "answers and how fast.  Inputs are made up by the model's description.  A closed\n"
                "loop (--concurrency) finds what goes through; an open loop (--rate, --users,\n"
                "--recorded) sends on time whatever the server does, and counts latency from when\n"
                "a request was due.  The API key is taken from WEIR_API_KEY.\n\n");
    wish_help(out);
    buffer_text(
        out, "\nA class is a sort of requests in a mix: share= of the common load (1), or a load\n"
             "of its own: rate= or concurrency=; priority=, slo=, deadline=, rows=, model=,\n"
             "and key= with the name of the environment variable that holds an API key.\n\n"
             "Exit status 1: a run is invalid, say because this program was the limit.\n\n"
             "Examples:\n"
             "  weir bench digits --concurrency 1..64\n"
             "  weir bench digits --grpc --rate 500 --slo 20ms --html page.html\n"
             "  weir bench digits --search --slo 15ms\n"
             "  weir bench digits --target a=http://a:8000 --target b=http://b:8000 --repeat 5\n"
             "  weir bench digits --class high:rate=20,priority=1 --class low:concurrency=32\n");
}
