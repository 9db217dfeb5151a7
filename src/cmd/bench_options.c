/*
 * Most options are a number or a time that goes to a field of struct wish: one table says which,
 * and the help comes from it, too.  What needs more has a case of its own.
 */
#include "cmd/bench_options.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/client.h"
#include "cmd/flags.h"
#include "cmd/input.h"
#include "cmd/secure.h"
#include "util/clock.h"

#define DEFAULT_GRPC_URL "http://127.0.0.1:8001"
#define RATE_MAX 1e7
#define DRAIN_NS (5 * NS_PER_S)
#define OFFLINE_ROWS 64
#define OFFLINE_CONCURRENCY 4
#define SEARCH_RATE 100

#define CONNECTIONS_MAX WIRE_CONNECTIONS_MAX
#define STREAMS_MAX HTTP2_MUX_STREAMS_MAX

/* X(key, name, kind, field, greatest, word, help) */
#define VALUES(X)                                                                                 \
    X(DURATION, "--duration", TIME, duration_ns, 0, "DURATION", "of the measured window [10s; the recording]")   \
    X(WARMUP, "--warmup", TIME, warmup_ns, 0, "DURATION", "before it [1s; 0 with --requests, --recorded]")    \
    X(SLO, "--slo", TIME, slo_ns, 0, "DURATION", "answers later than this are misses")            \
    X(DEADLINE, "--deadline", TIME, deadline_ns, 0, "DURATION",                                   \
      "tell the server how long an answer is of use")                                             \
    X(TIMEOUT, "--timeout", TIME, timeout_ns, 0, "DURATION", "give a request up after this [60s; 0: never]") \
    X(DRAIN, "--drain", TIME, drain_ns, 0, "DURATION",                                            \
      "wait so long for the last answers [SLO, or 5s]")                                     \
    X(ON, "--on", TIME, arrivals.on_ns, 0, "DURATION", "with --users: how long one is active [10s]") \
    X(OFF, "--off", TIME, arrivals.off_ns, 0, "DURATION", "and thinks [0]")                       \
    X(REPEAT, "--repeat", NUMBER, repeat, BENCH_REPEAT_MAX, "N",                                  \
      "measure everything so often, targets in turn [1]")                                         \
    X(REQUESTS, "--requests", NUMBER, requests, INT64_MAX, "N",                                   \
      "closed loop: end after so many answers")                                                   \
    X(ROWS, "--rows", NUMBER, rows, 1000000, "N", "rows in a request [1; 64 with --offline]")     \
    X(VARIANTS, "--variants", NUMBER, variants, 10000, "N", "different random requests [16]")     \
    X(SEED, "--seed", NUMBER, seed, INT64_MAX, "N", "of inputs and arrivals [1]")                 \
    X(PRIORITY, "--priority", NUMBER, priority, INT64_MAX, "N",                                   \
      "of every request; 1 is the most urgent")                                                   \
    X(VERSION, "--version", NUMBER, version, INT64_MAX, "N",                                      \
      "this version of the model [the latest]")                                                   \
    X(CONNECTIONS, "--connections", NUMBER, connections, CONNECTIONS_MAX, "N",                    \
      "connections [as many as the load needs]")                                                  \
    X(STREAMS, "--streams", NUMBER, streams, STREAMS_MAX, "N",                                    \
      "gRPC: most calls at once on a connection")                                      \
    X(SERVER, "--server-pid", NUMBER, server_pid, INT32_MAX, "PID",                               \
      "report CPU time and memory of this process")

enum {
    OPTION_URL = 1,
    OPTION_GRPC,
    OPTION_TARGET,
    OPTION_CONCURRENCY,
    OPTION_RATE,
    OPTION_ARRIVALS,
    OPTION_RECORDED,
    OPTION_SPEED,
    OPTION_USERS,
    OPTION_FIXED,
    OPTION_SEARCH,
    OPTION_RESOLUTION,
    OPTION_OFFLINE,
    OPTION_CLASS,
    OPTION_INPUT,
    OPTION_SHAPE,
    OPTION_ZERO,
    OPTION_FORMAT,
    OPTION_SHARED,
    OPTION_HEADER,
    OPTION_CPU,
    OPTION_SPIN,
    OPTION_JSON,
    OPTION_CSV,
    OPTION_HTML,
    OPTION_VALUES, /* The first of VALUES. */
#define VALUE_KEY(key, name, kind, field, most, word, help) OPTION_##key,
    VALUES(VALUE_KEY)
#undef VALUE_KEY
        OPTION_COUNT
};

#define BIT(name) (UINT64_C(1) << OPTION_##name)

_Static_assert(OPTION_COUNT <= 64, "struct wish has a bit for each");

enum value_kind { KIND_NUMBER, KIND_TIME };

struct value_option {
    const char *name;
    enum value_kind kind;
    size_t offset;
    uint64_t most;
};

static const struct value_option value_options[] = {
#define VALUE_ROW(key, name, kind, field, most, word, help) \
    { name, KIND_##kind, offsetof(struct wish, field), most },
    VALUES(VALUE_ROW)
#undef VALUE_ROW
};

static const struct flag flag_table[] = {
    { "--url", "URL", "the server, or unix:/PATH [" DEFAULT_URL "]", OPTION_URL },
    { "--grpc", NULL, "ask by gRPC, not REST [" DEFAULT_GRPC_URL "]", OPTION_GRPC },
    SECURE_FLAGS,
    { "--target", "NAME=URL", "one of several to compare; grpc://... by gRPC", OPTION_TARGET },
    { "--concurrency", "N[..M[:STEP]]", "closed loop: so many requests under way [1]",
      OPTION_CONCURRENCY },
    { "--rate", "R[..S[:STEP]]", "open loop: so many requests per second", OPTION_RATE },
    { "--arrivals", "poisson|constant", "how an open loop spaces them [poisson]", OPTION_ARRIVALS },
    { "--recorded", "FILE", "open loop: at the times in this file", OPTION_RECORDED },
    { "--speed", "X", "replay it so much faster [1]", OPTION_SPEED },
    { "--users", "N[..M[:STEP]]", "open loop: users who send --rate each while active",
      OPTION_USERS },
    { "--fixed", NULL, "users are active exactly so long, not on average", OPTION_FIXED },
    { "--search", NULL, "find the largest rate that keeps 99 % in --slo", OPTION_SEARCH },
    { "--resolution", "PERCENT", "how close [2]", OPTION_RESOLUTION },
    { "--offline", NULL, "as many rows per second as go through", OPTION_OFFLINE },
    { "--class", "NAME:KEY=VALUE,...", "a sort of requests in a mix, see below", OPTION_CLASS },
    { "--input", "NAME=VALUE", "one input; again: taken in turn; others are random", OPTION_INPUT },
    { "--shape", "NAME=1,2,...", "of an input or output whose shape varies", OPTION_SHAPE },
    { "--zero", NULL, "zeros, not random numbers", OPTION_ZERO },
    { "--format", "binary|json", "of tensors over REST [binary]", OPTION_FORMAT },
    { "--shared-memory", "PREFIX", "tensors in shared memory; names begin with this",
      OPTION_SHARED },
    { "--header", "'NAME: VALUE'", "one more header field", OPTION_HEADER },
#define VALUE_FLAG(key, name, kind, field, most, word, help) { name, word, help, OPTION_##key },
    VALUES(VALUE_FLAG)
#undef VALUE_FLAG
        { "--cpu", "N", "run on this CPU only", OPTION_CPU },
    { "--spin", NULL, "never sleep: send on the dot, at the cost of a CPU", OPTION_SPIN },
    { "--json", NULL, "print the results as JSON", OPTION_JSON },
    { "--csv", NULL, "print a line per run for spreadsheets", OPTION_CSV },
    { "--html", "FILE", "write a page with charts", OPTION_HTML },
    FLAGS_END,
};

void wish_help(struct buffer *out)
{
    flags_help(flag_table, out);
}

/* ---- Values ---------------------------------------------------------------------------------- */

static bool is_of_number(const char *at)
{
    return strchr("0123456789+-eE", *at) != NULL || (*at == '.' && at[1] != '.');
}

/* With `end` something may follow: "2..4" is 2 and "..4". */
static enum weir_status read_real(const char *name, const char *text, double most, double *out,
                                  const char **end, struct weir_err *err)
{
    char number[32];
    size_t size = 0;
    while (text[size] != '\0' && is_of_number(text + size)) {
        size++;
    }
    (void)snprintf(number, sizeof(number), "%.*s", (int)size, text);
    char *rest = number;
    const double value = strtod(number, &rest);
    if (rest == number || *rest != '\0' || !(value > 0 && value <= most) ||
        (end == NULL && text[size] != '\0')) {
        return err_set(err, WEIR_EINVAL, "%s: found '%s', expected a number above 0, at most %.0f",
                       name, text, most);
    }
    if (end != NULL) {
        *end = text + size;
    }
    *out = value;
    return WEIR_OK;
}

static enum weir_status add_load(struct wish *wish, const char *name, double load,
                                 struct weir_err *err)
{
    if (wish->load_count == BENCH_LOADS_MAX) {
        return err_set(err, WEIR_EINVAL, "%s: more than %d loads", name, BENCH_LOADS_MAX);
    }
    wish->loads[wish->load_count++] = load;
    return WEIR_OK;
}

/* "N", "N..M" (doubling), "N..M:STEP", or several between commas. */
static enum weir_status read_loads(struct wish *wish, const char *name, const char *text,
                                   double most, struct weir_err *err)
{
    const char *at = text;
    wish->load_count = 0;
    do {
        double from = 0;
        double to = 0;
        double step = 0;
        at += *at == ',';
        enum weir_status status = read_real(name, at, most, &from, &at, err);
        to = from;
        if (status == WEIR_OK && strncmp(at, "..", 2) == 0) {
            status = read_real(name, at + 2, most, &to, &at, err);
        }
        if (status == WEIR_OK && *at == ':') {
            status = read_real(name, at + 1, most, &step, &at, err);
        }
        for (double load = from; status == WEIR_OK && load <= to * (1 + 1e-9);
             load = step > 0 ? load + step : load * 2) {
            status = add_load(wish, name, load, err);
        }
        if (status != WEIR_OK) {
            return status;
        }
    } while (*at == ',');
    return *at == '\0' && wish->load_count > 0
               ? WEIR_OK
               : err_set(err, WEIR_EINVAL, "%s: found '%s', expected N, N..M, N..M:STEP or N,M,...",
                         name, text);
}

static enum weir_status read_value(struct wish *wish, int key, const char *text,
                                   struct weir_err *err)
{
    const struct value_option *option = &value_options[key - OPTION_VALUES - 1];
    uint64_t *out = (uint64_t *)(void *)((char *)wish + option->offset);
    return option->kind == KIND_TIME ? flags_duration(option->name, text, out, err)
                                     : flags_number(option->name, text, option->most, out, err);
}

/* ---- Targets, classes, shapes ---------------------------------------------------------------- */

static enum weir_status add_target(struct wish *wish, const char *name, const char *url,
                                   struct weir_err *err)
{
    if (wish->target_count == BENCH_TARGETS_MAX) {
        return err_set(err, WEIR_EINVAL, "--target: given more than %d times", BENCH_TARGETS_MAX);
    }
    for (uint32_t i = 0; i < wish->target_count; i++) {
        if (strcmp(wish->targets[i].name, name) == 0) {
            return err_set(err, WEIR_EINVAL, "--target: '%s' names two targets", name);
        }
    }
    struct wish_target *target = &wish->targets[wish->target_count++];
    target->name = name;
    target->grpc = client_is_grpc(url);
    target->url = url;
    return WEIR_OK;
}

/* "NAME=URL"; the text is split in place. */
static enum weir_status read_target(struct wish *wish, char *text, struct weir_err *err)
{
    char *equals = strchr(text, '=');
    if (equals == NULL || equals == text) {
        return err_set(err, WEIR_EINVAL, "--target: found '%s', expected NAME=URL", text);
    }
    *equals = '\0';
    return add_target(wish, text, equals + 1, err);
}

static enum weir_status read_shape(struct wish *wish, const char *text, struct weir_err *err)
{
    const size_t size = strcspn(text, "=");
    const char *at = text + size;
    if (wish->shape_count == REQUEST_SHAPES_MAX) {
        return err_set(err, WEIR_EINVAL, "--shape: given more than %d times", REQUEST_SHAPES_MAX);
    }
    struct request_shape *out = &wish->shapes[wish->shape_count++];
    *out = (struct request_shape){ .name = text, .name_size = size };
    while (*at == (out->shape.rank == 0 ? '=' : ',') && out->shape.rank < TENSOR_RANK_MAX) {
        char *end = NULL;
        const long long dim = strtoll(at + 1, &end, 10);
        if (end == at + 1 || dim < 0) {
            break;
        }
        out->shape.dims[out->shape.rank++] = dim;
        at = end;
    }
    return *at == '\0' && out->shape.rank > 0
               ? WEIR_OK
               : err_set(err, WEIR_EINVAL, "--shape: found '%s', expected NAME=1,3,224,224", text);
}

/* X(name): what a class can say of itself. */
#define CLASS_KEYS(X) \
    X(share)          \
    X(concurrency)    \
    X(rate)           \
    X(priority)       \
    X(slo)            \
    X(deadline)       \
    X(rows)           \
    X(key)            \
    X(model)

enum class_key {
#define CLASS_KEY_ENUM(name) CLASS_##name,
    CLASS_KEYS(CLASS_KEY_ENUM)
#undef CLASS_KEY_ENUM
    CLASS_KEY_COUNT
};

static const char *const class_keys[] = {
#define CLASS_KEY_TEXT(name) #name,
    CLASS_KEYS(CLASS_KEY_TEXT)
#undef CLASS_KEY_TEXT
};

static enum weir_status read_class_count(const char *name, const char *value, uint32_t most,
                                         uint32_t *out, struct weir_err *err)
{
    uint64_t number = 0;
    const enum weir_status status = flags_number(name, value, most, &number, err);
    if (status == WEIR_OK) {
        *out = (uint32_t)number;
    }
    return status;
}

static enum weir_status set_class(struct wish_class *class, enum class_key key, const char *value,
                                  struct weir_err *err)
{
    char name[96];
    (void)snprintf(name, sizeof(name), "--class %s: %s", class->name, class_keys[key]);
    switch (key) {
    case CLASS_share:
        return read_class_count(name, value, 1000000, &class->share, err);
    case CLASS_concurrency:
        return read_class_count(name, value, LOAD_CONCURRENCY_MAX, &class->concurrency, err);
    case CLASS_rate:
        return read_real(name, value, RATE_MAX, &class->rate, NULL, err);
    case CLASS_priority:
        return flags_number(name, value, INT64_MAX, &class->priority, err);
    case CLASS_slo:
        return flags_duration(name, value, &class->slo_ns, err);
    case CLASS_deadline:
        return flags_duration(name, value, &class->deadline_ns, err);
    case CLASS_rows:
        return flags_number(name, value, 1000000, &class->rows, err);
    case CLASS_key:
        class->key = getenv(value);
        return class->key != NULL
                   ? WEIR_OK
                   : err_set(err, WEIR_EINVAL,
                             "--class: key=%s: expected the name of an environment variable that "
                             "holds the key",
                             value);
    default:
        return snprintf(class->model, sizeof(class->model), "%s", value) < (int)sizeof(class->model)
                   ? WEIR_OK
                   : err_set(err, WEIR_EINVAL, "--class: the model's name is too long");
    }
}

static enum weir_status read_class_part(struct wish_class *class, const char *part, size_t size,
                                        struct weir_err *err)
{
    char value[256];
    const size_t name = strcspn(part, "=");
    for (int key = 0; key < CLASS_KEY_COUNT; key++) {
        if (name < size && strlen(class_keys[key]) == name &&
            memcmp(class_keys[key], part, name) == 0) {
            (void)snprintf(value, sizeof(value), "%.*s", (int)(size - name - 1), part + name + 1);
            return set_class(class, (enum class_key)key, value, err);
        }
    }
    return err_set(err, WEIR_EINVAL,
                   "--class: found '%.*s', expected share=, concurrency=, rate=, priority=, slo=, "
                   "deadline=, rows=, key= or model=",
                   (int)size, part);
}

/* "NAME:KEY=VALUE,..." */
static enum weir_status read_class(struct wish *wish, const char *text, struct weir_err *err)
{
    const size_t size = strcspn(text, ":");
    if (wish->class_count == BENCH_CLASSES_MAX || size == 0 ||
        size >= sizeof(wish->classes[0].name)) {
        return err_set(err, WEIR_EINVAL,
                       "--class: found '%s', expected at most %d of NAME:KEY=VALUE,...", text,
                       BENCH_CLASSES_MAX);
    }
    struct wish_class *class = &wish->classes[wish->class_count++];
    *class = (struct wish_class){ .share = 1 };
    memcpy(class->name, text, size);
    for (const char *at = text + size; *at != '\0';) {
        const size_t part = strcspn(at + 1, ",");
        const enum weir_status status = read_class_part(class, at + 1, part, err);
        if (status != WEIR_OK) {
            return status;
        }
        at += 1 + part;
    }
    return class->rate > 0 && class->concurrency > 0
               ? err_set(err, WEIR_EINVAL, "--class %s: rate and concurrency exclude each other",
                         class->name)
               : WEIR_OK;
}

/* ---- All of it ------------------------------------------------------------------------------- */

static enum weir_status take_arrivals(struct wish *wish, const char *value, struct weir_err *err)
{
    return arrivals_kind_of(bytes_of(value), &wish->arrivals.kind) &&
                   (wish->arrivals.kind == ARRIVALS_POISSON ||
                    wish->arrivals.kind == ARRIVALS_CONSTANT)
               ? WEIR_OK
               : err_set(err, WEIR_EINVAL, "--arrivals: found '%s', expected poisson or constant",
                         value);
}

static enum weir_status take_format(struct wish *wish, const char *value, struct weir_err *err)
{
    const bool json = strcmp(value, "json") == 0;
    wish->format = json ? REQUEST_JSON : REQUEST_BINARY;
    return json || strcmp(value, "binary") == 0
               ? WEIR_OK
               : err_set(err, WEIR_EINVAL, "--format: found '%s', expected binary or json", value);
}

static enum weir_status take_switch(struct wish *wish, int key)
{
    bool *const switches[] = {
        [OPTION_GRPC] = &wish->grpc,     [OPTION_FIXED] = &wish->arrivals.fixed,
        [OPTION_SEARCH] = &wish->search, [OPTION_ZERO] = &wish->zero,
        [OPTION_SPIN] = &wish->spin,     [OPTION_JSON] = &wish->json,
        [OPTION_CSV] = &wish->csv,
    };
    *switches[key] = true;
    return WEIR_OK;
}

static enum weir_status take_load(struct wish *wish, int key, const char *value,
                                  struct weir_err *err)
{
    switch (key) {
    case OPTION_CONCURRENCY:
        return read_loads(wish, "--concurrency", value, LOAD_CONCURRENCY_MAX, err);
    case OPTION_RATE:
        wish->load = BENCH_LOAD_OPEN;
        return wish->arrivals.kind == ARRIVALS_USERS
                   ? read_real("--rate", value, RATE_MAX, &wish->arrivals.rate, NULL, err)
                   : read_loads(wish, "--rate", value, RATE_MAX, err);
    case OPTION_ARRIVALS:
        return take_arrivals(wish, value, err);
    case OPTION_RECORDED:
        wish->load = BENCH_LOAD_OPEN;
        wish->arrivals.kind = ARRIVALS_RECORDED;
        wish->arrivals.path = value;
        return WEIR_OK;
    case OPTION_SPEED:
        return read_real("--speed", value, 1e6, &wish->arrivals.speed, NULL, err);
    case OPTION_USERS:
        if (wish->load_count > 1) {
            return err_set(err, WEIR_EINVAL, "--users: expected one --rate, which is each one's");
        }
        wish->load = BENCH_LOAD_OPEN;
        wish->arrivals.kind = ARRIVALS_USERS;
        wish->arrivals.rate = wish->load_count > 0 ? wish->loads[0] : wish->arrivals.rate;
        return read_loads(wish, "--users", value, ARRIVALS_USERS_MAX, err);
    case OPTION_OFFLINE:
        wish->load = BENCH_LOAD_OFFLINE;
        return WEIR_OK;
    default:
        return read_real("--resolution", value, 100, &wish->resolution, NULL, err);
    }
}

static enum weir_status take_cpu(struct wish *wish, const char *value, struct weir_err *err)
{
    uint64_t cpu;
    if (!bytes_to_u64(bytes_of(value), 1023, &cpu)) {
        return err_set(err, WEIR_EINVAL, "--cpu: found '%s', expected a number from 0 to 1023",
                       value);
    }
    wish->cpu = cpu + 1;
    return WEIR_OK;
}

static enum weir_status take_word(struct wish *wish, const char *word, struct weir_err *err)
{
    if (wish->model != NULL) {
        return err_set(err, WEIR_EINVAL, "unexpected word '%s' after the model '%s'", word,
                       wish->model);
    }
    wish->model = word;
    return WEIR_OK;
}

static enum weir_status take_input(struct wish *wish, const char *word, struct weir_err *err)
{
    const enum weir_status status = input_check(word, err);
    return status == WEIR_OK ? flags_append("--input", wish->inputs, &wish->input_count,
                                            BENCH_INPUTS_MAX, word, err)
                             : status;
}

static enum weir_status take_option(void *context, int key, const char *value, struct weir_err *err)
{
    struct wish *wish = context;
    if (secure_take(key, value)) {
        return WEIR_OK;
    }
    wish->given |= UINT64_C(1) << key;
    if (key > OPTION_VALUES) {
        return read_value(wish, key, value, err);
    }
    switch (key) {
    case FLAGS_WORD:
        return take_word(wish, value, err);
    case OPTION_URL:
        return wish->target_count == 0
                   ? add_target(wish, "A", value, err)
                   : err_set(err, WEIR_EINVAL, "--url and --target exclude each other");
    case OPTION_TARGET:
        return read_target(wish, (char *)(uintptr_t)value, err);
    case OPTION_CLASS:
        return read_class(wish, value, err);
    case OPTION_INPUT:
        return take_input(wish, value, err);
    case OPTION_HEADER:
        if (strchr(value, ':') == NULL) {
            return err_set(err, WEIR_EINVAL, "--header: found '%s', expected 'Name: value'", value);
        }
        return flags_append("--header", wish->headers, &wish->header_count, REQUEST_HEADERS_MAX,
                            value, err);
    case OPTION_SHAPE:
        return read_shape(wish, value, err);
    case OPTION_FORMAT:
        return take_format(wish, value, err);
    case OPTION_SHARED:
        wish->format = REQUEST_SHARED;
        wish->shared_prefix = value;
        return WEIR_OK;
    case OPTION_CPU:
        return take_cpu(wish, value, err);
    case OPTION_HTML:
        wish->html = value;
        return WEIR_OK;
    case OPTION_GRPC:
    case OPTION_FIXED:
    case OPTION_SEARCH:
    case OPTION_ZERO:
    case OPTION_SPIN:
    case OPTION_JSON:
    case OPTION_CSV:
        return take_switch(wish, key);
    default:
        return take_load(wish, key, value, err);
    }
}

/* What is later than its SLO is a miss, and need not be waited for. */
static uint64_t usual_drain_ns(const struct wish *wish)
{
    uint64_t longest_ns = 0;
    for (uint32_t i = 0; i < wish->class_count; i++) {
        const uint64_t own_ns = wish->classes[i].slo_ns;
        const uint64_t slo_ns = own_ns > 0 ? own_ns : wish->slo_ns;
        if (slo_ns == 0) {
            return DRAIN_NS;
        }
        longest_ns = slo_ns > longest_ns ? slo_ns : longest_ns;
    }
    const uint64_t slo_ns = wish->class_count > 0 ? longest_ns : wish->slo_ns;
    return slo_ns > 0 ? slo_ns : DRAIN_NS;
}

bool wish_has_draw(const struct wish *wish)
{
    bool any = wish->class_count == 0;
    for (uint32_t i = 0; i < wish->class_count; i++) {
        any = any || (wish->classes[i].rate <= 0 && wish->classes[i].concurrency == 0);
    }
    return any;
}

static void fill_defaults(struct wish *wish)
{
    const bool offline = wish->load == BENCH_LOAD_OFFLINE;
    const bool own = !wish_has_draw(wish);
    if (wish->search) {
        wish->load = BENCH_LOAD_OPEN;
    }
    if (wish->load_count == 0 && wish->arrivals.kind != ARRIVALS_RECORDED && !own) {
        wish->loads[wish->load_count++] = wish->search ? SEARCH_RATE
                                          : offline    ? OFFLINE_CONCURRENCY
                                                       : 1;
    }
    if (wish->target_count == 0) {
        wish->targets[wish->target_count++] = (struct wish_target){
            .name = "A", .url = wish->grpc ? DEFAULT_GRPC_URL : DEFAULT_URL, .grpc = wish->grpc
        };
    }
    for (uint32_t i = 0; i < wish->target_count; i++) {
        wish->targets[i].grpc = wish->targets[i].grpc || wish->grpc;
    }
    wish->rows = wish->rows != 0 ? wish->rows : offline ? OFFLINE_ROWS : 1;
    const bool recorded = wish->arrivals.kind == ARRIVALS_RECORDED;
    if (wish->warmup_ns == UINT64_MAX) {
        wish->warmup_ns = wish->requests > 0 || recorded ? 0 : NS_PER_S;
    }
    wish->whole_recording = recorded && (wish->given & BIT(DURATION)) == 0;
    wish->drain_ns = wish->drain_ns == UINT64_MAX ? usual_drain_ns(wish) : wish->drain_ns;
}

/* Options that say different things of the same. */
static const uint64_t pairs[] = {
    BIT(CONCURRENCY) | BIT(RATE),  BIT(CONCURRENCY) | BIT(RECORDED),
    BIT(CONCURRENCY) | BIT(USERS), BIT(CONCURRENCY) | BIT(SEARCH),
    BIT(OFFLINE) | BIT(RATE),      BIT(OFFLINE) | BIT(RECORDED),
    BIT(OFFLINE) | BIT(USERS),     BIT(OFFLINE) | BIT(SEARCH),
    BIT(RECORDED) | BIT(RATE),     BIT(RECORDED) | BIT(USERS),
    BIT(RECORDED) | BIT(ARRIVALS), BIT(USERS) | BIT(ARRIVALS),
    BIT(FORMAT) | BIT(SHARED),     BIT(JSON) | BIT(CSV),
};

/* Options that mean nothing alone. */
static const struct {
    uint64_t option;
    uint64_t others; /* One of them is needed. */
} needs[] = {
    { BIT(SPEED), BIT(RECORDED) },    { BIT(FIXED), BIT(USERS) },
    { BIT(ON), BIT(USERS) },          { BIT(OFF), BIT(USERS) },
    { BIT(RESOLUTION), BIT(SEARCH) }, { BIT(ARRIVALS), BIT(RATE) | BIT(SEARCH) | BIT(CLASS) },
};

/* The first option whose bit is in `bits`. */
static const char *option_name(uint64_t bits)
{
    const struct flag *flag = flag_table;
    while ((bits >> flag->key & 1) == 0) {
        flag++;
    }
    return flag->name;
}

static uint64_t option_bit(const char *name)
{
    const struct flag *flag = flag_table;
    while (strcmp(flag->name, name) != 0) {
        flag++;
    }
    return UINT64_C(1) << flag->key;
}

static enum weir_status check_together(uint64_t given, struct weir_err *err)
{
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        if ((given & pairs[i]) == pairs[i]) {
            const char *first = option_name(pairs[i]);
            return err_set(err, WEIR_EINVAL, "%s and %s exclude each other", first,
                           option_name(pairs[i] & ~option_bit(first)));
        }
    }
    for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++) {
        if ((given & needs[i].option) != 0 && (given & needs[i].others) == 0) {
            return err_set(err, WEIR_EINVAL, "%s goes with %s", option_name(needs[i].option),
                           option_name(needs[i].others));
        }
    }
    return WEIR_OK;
}

static enum weir_status check(const struct wish *wish, struct weir_err *err)
{
    if (wish->model == NULL || wish->model[0] == '\0') {
        return err_set(err, WEIR_EINVAL, "no model named");
    }
    const enum weir_status together = check_together(wish->given, err);
    if (together != WEIR_OK) {
        return together;
    }
    if (wish->search && wish->slo_ns == 0) {
        return err_set(err, WEIR_EINVAL, "--search needs --slo");
    }
    if (wish->search && (wish->arrivals.kind == ARRIVALS_RECORDED ||
                         wish->arrivals.kind == ARRIVALS_USERS || wish->class_count > 0)) {
        return err_set(err, WEIR_EINVAL,
                       "--search goes with --arrivals, not with --recorded, --users or --class");
    }
    const uint64_t loads = BIT(CONCURRENCY) | BIT(RATE) | BIT(USERS) | BIT(RECORDED) | BIT(OFFLINE);
    if ((wish->given & loads) != 0 && !wish_has_draw(wish)) {
        return err_set(err, WEIR_EINVAL,
                       "%s is of classes without a load of their own: here all have one",
                       option_name(wish->given & loads));
    }
    bool closed = wish->load != BENCH_LOAD_OPEN;
    for (uint32_t i = 0; i < wish->class_count; i++) {
        closed = closed || wish->classes[i].concurrency > 0;
    }
    if (wish->requests > 0 && (!closed || wish->search)) {
        return err_set(err, WEIR_EINVAL,
                       "--requests goes with a closed loop: an open one ends by --duration");
    }
    if (wish->duration_ns == 0) {
        return err_set(err, WEIR_EINVAL, "--duration: found 0, expected a longer one");
    }
    if (wish->arrivals.kind == ARRIVALS_USERS && wish->arrivals.rate <= 0) {
        return err_set(err, WEIR_EINVAL, "--users needs --rate, which is each one's");
    }
    return WEIR_OK;
}

/* Once it is known which targets are asked by gRPC, and which by TLS. */
static enum weir_status check_protocols(const struct wish *wish, struct weir_err *err)
{
    uint32_t grpc = 0;
    bool secure = false;
    for (uint32_t i = 0; i < wish->target_count; i++) {
        grpc += wish->targets[i].grpc;
        secure = secure || client_is_secure(wish->targets[i].url);
    }
    if ((wish->given & BIT(STREAMS)) != 0 && grpc == 0) {
        return err_set(err, WEIR_EINVAL, "--streams goes with gRPC");
    }
    if ((wish->given & BIT(FORMAT)) != 0 && grpc == wish->target_count) {
        return err_set(err, WEIR_EINVAL, "--format goes with REST: gRPC has one of its own");
    }
    return secure_check(secure, err);
}

enum weir_status wish_read(struct wish *wish, int count, char **words, struct weir_err *err)
{
    *wish = (struct wish){ .load = BENCH_LOAD_CLOSED,
                           .arrivals = { .kind = ARRIVALS_POISSON, .on_ns = 10 * NS_PER_S },
                           .resolution = 2,
                           .variants = 16,
                           .seed = 1,
                           .duration_ns = 10 * NS_PER_S,
                           .warmup_ns = UINT64_MAX,
                           .drain_ns = UINT64_MAX,
                           .timeout_ns = 60 * NS_PER_S,
                           .repeat = 1 };
    enum weir_status status = flags_read(flag_table, count, words, take_option, wish, err);
    status = status == WEIR_OK ? check(wish, err) : status;
    if (status == WEIR_OK) {
        fill_defaults(wish);
        status = check_protocols(wish, err);
    }
    return status;
}
