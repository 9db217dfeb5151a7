#include "model_bed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "asking.h"
#include "pipeline/graph.h"
#include "server/modelconfig.h"
#include "util/mem.h"

#define WAIT_NS (120 * NS_PER_S)

static void wake(void *context)
{
    struct model_bed *bed = context;
    pthread_mutex_lock(&bed->lock);
    bed->woken = true;
    pthread_cond_signal(&bed->changed);
    pthread_mutex_unlock(&bed->lock);
}

static void on_change(void *context, const char *name, uint64_t version, enum model_state state,
                      const char *reason, const struct model *model)
{
    struct model_bed *bed = context;
    (void)model;
    pthread_mutex_lock(&bed->lock);
    if (bed->event_count < MODEL_BED_EVENTS) {
        struct model_event *event = &bed->events[bed->event_count++];
        (void)snprintf(event->name, sizeof(event->name), "%s", name);
        (void)snprintf(event->reason, sizeof(event->reason), "%s", reason == NULL ? "" : reason);
        event->version = version;
        event->state = state;
    }
    bed->woken = true;
    pthread_cond_signal(&bed->changed);
    pthread_mutex_unlock(&bed->lock);
}

void model_bed_init(struct model_bed *bed)
{
    memset(bed, 0, sizeof(*bed));
    for (uint32_t i = 0; i < MODEL_BED_ROOTS; i++) {
        strcpy(bed->folders[i], "/tmp/weir-test-models-XXXXXX");
        assert_non_null(mkdtemp(bed->folders[i]));
        bed->roots[i] = bed->folders[i];
    }
    pthread_mutex_init(&bed->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&bed->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    limits_init(&bed->limits);
    clock_init(&bed->clock);
    bed->options = (struct registry_options){
        .roots = bed->roots,
        .root_count = 1,
        .control = CONTROL_EXPLICIT,
        .poll_ns = UINT64_C(3600) * NS_PER_S,
        .models_max = 64,
        .model_bytes_max = bed->limits.model_bytes_max,
        .configure = modelconfig_read,
        .compose = graph_compose,
        .changed = on_change,
        .changed_context = bed,
    };
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *at)
{
    (void)info;
    (void)kind;
    (void)at;
    return remove(path);
}

static void full_path(const struct model_bed *bed, uint32_t root, const char *path, char *out,
                      size_t size)
{
    const int length = snprintf(out, size, "%s/%s", bed->folders[root], path);
    assert_true(length > 0 && (size_t)length < size);
}

void model_bed_remove(struct model_bed *bed, uint32_t root, const char *path)
{
    char full[512];
    full_path(bed, root, path, full, sizeof(full));
    assert_int_equal(nftw(full, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

void model_bed_finish(struct model_bed *bed)
{
    model_bed_stop(bed);
    for (uint32_t i = 0; i < MODEL_BED_ROOTS; i++) {
        model_bed_remove(bed, i, "");
    }
    pthread_cond_destroy(&bed->changed);
    pthread_mutex_destroy(&bed->lock);
}

int model_bed_set_up(void **state)
{
    model_bed_init(*state);
    return 0;
}

int model_bed_tear_down(void **state)
{
    (void)mem_fault_arm(0); /* Where a test failed while it was armed. */
    model_bed_finish(*state);
    return 0;
}

/* Makes every folder above the last component. */
static void make_folders(char *path, size_t from)
{
    for (char *at = path + from; *at != '\0'; at++) {
        if (*at == '/') {
            *at = '\0';
            assert_true(mkdir(path, 0777) == 0 || errno == EEXIST);
            *at = '/';
        }
    }
}

void model_bed_put(struct model_bed *bed, uint32_t root, const char *path, const char *text)
{
    char full[512];
    full_path(bed, root, path, full, sizeof(full));
    make_folders(full, strlen(bed->folders[root]) + 1);
    if (full[strlen(full) - 1] == '/') {
        return;
    }
    FILE *file = fopen(full, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
}

static void copy_file(FILE *from, struct model_bed *bed, uint32_t root, const char *path)
{
    char full[512];
    char bytes[4096];
    full_path(bed, root, path, full, sizeof(full));
    make_folders(full, strlen(bed->folders[root]) + 1);
    FILE *to = fopen(full, "wb");
    assert_non_null(to);
    for (size_t got; (got = fread(bytes, 1, sizeof(bytes), from)) > 0;) {
        assert_int_equal(fwrite(bytes, 1, got, to), got);
    }
    assert_int_equal(fclose(to), 0);
}

void model_bed_copy(struct model_bed *bed, uint32_t root, const char *name, const char *source)
{
    static const char *const files[] = { "model.onnx", "weights.bin" };
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        char path[512];
        (void)snprintf(path, sizeof(path), "%s/models/%s/1/%s", getenv("WEIR_TEST_DATA"), source,
                       files[i]);
        FILE *from = fopen(path, "rb");
        if (from != NULL) {
            (void)snprintf(path, sizeof(path), "%s/1/%s", name, files[i]);
            copy_file(from, bed, root, path);
            (void)fclose(from);
        }
    }
}

void model_bed_sim(struct model_bed *bed, const char *name, uint64_t version,
                   const char *parameters)
{
    char path[256];
    char text[1024];
    (void)snprintf(path, sizeof(path), "%s/%" PRIu64 "/", name, version);
    model_bed_put(bed, 0, path, "");
    (void)snprintf(path, sizeof(path), "%s/model.yaml", name);
    (void)snprintf(text, sizeof(text), "backend: sim\nparameters:\n  tau0: 1us\n%s", parameters);
    model_bed_put(bed, 0, path, text);
}

void model_bed_ensemble(struct model_bed *bed, const char *name, const char *text)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/1/", name);
    model_bed_put(bed, 0, path, "");
    (void)snprintf(path, sizeof(path), "%s/model.yaml", name);
    model_bed_put(bed, 0, path, text);
}

void model_bed_start(struct model_bed *bed)
{
    const struct device_options cpu = { .name = "cpu", .executors = 2 };
    const struct engine_options engine = {
        .devices = &cpu,
        .device_count = 1,
        .limits = &bed->limits,
        .clock = &bed->clock,
        .threads = true,
    };
    struct weir_err err = { 0 };
    assert_int_equal(engine_create(&engine, &bed->engine, &err), WEIR_OK);
    const enum weir_status status =
        registry_create(bed->engine, &bed->options, &bed->registry, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(status, WEIR_OK);
    home_init(&bed->home, bed->engine, wake, bed);
}

void model_bed_stop(struct model_bed *bed)
{
    if (bed->engine == NULL) {
        return;
    }
    for (size_t i = 0; i < MODEL_BED_LEASES; i++) {
        if (bed->leases[i] != NULL) {
            model_bed_release(bed, bed->leases[i]);
        }
    }
    home_finish(&bed->home);
    assert_true(registry_destroy(bed->registry, CLOCK_NEVER));
    engine_destroy(bed->engine);
    bed->engine = NULL;
    bed->event_count = 0;
    bed->seen = 0;
}

static uint64_t wait_limit_ns(const struct model_bed *bed)
{
    return clock_add(clock_now_ns(&bed->clock), WAIT_NS);
}

/* Turns the home once there is mail, an event or a deadline; false: there was none until the
 * limit. */
static bool turn_when_woken(struct model_bed *bed, uint64_t limit_ns)
{
    const uint64_t next_ns = home_next_ns(&bed->home);
    const uint64_t until_ns = next_ns < limit_ns ? next_ns : limit_ns;
    const struct timespec at = { .tv_sec = (time_t)(until_ns / NS_PER_S),
                                 .tv_nsec = (long)(until_ns % NS_PER_S) };
    pthread_mutex_lock(&bed->lock);
    int waited = 0;
    while (!bed->woken && waited == 0) {
        waited = pthread_cond_timedwait(&bed->changed, &bed->lock, &at);
    }
    bed->woken = false;
    pthread_mutex_unlock(&bed->lock);
    home_turn(&bed->home); /* Lets old snapshots go, too. */
    return waited == 0 || until_ns < limit_ns;
}

void model_bed_turn_until(struct model_bed *bed, const bool *done)
{
    const uint64_t limit_ns = wait_limit_ns(bed);
    home_turn(&bed->home);
    while (!*done) {
        assert_true(turn_when_woken(bed, limit_ns));
    }
}

struct order {
    struct registry_order order;
    bool done;
};

static void order_done(struct registry_order *order)
{
    list_entry(order, struct order, order)->done = true;
}

enum weir_status model_bed_order(struct model_bed *bed, enum registry_order_kind kind,
                                 const char *name, const char *override, struct weir_err *err)
{
    struct order order = {
        .order = { .home = &bed->home, .name = name, .override = override, .done = order_done },
    };
    order.order.kind = kind;
    registry_order(bed->registry, &order.order);
    model_bed_turn_until(bed, &order.done);
    if (err != NULL) {
        *err = order.order.err;
    }
    return order.order.status;
}

static bool is_event(const struct model_event *event, const char *name, uint64_t version,
                     enum model_state state)
{
    return strcmp(event->name, name) == 0 && event->version == version && event->state == state;
}

/* Passes over what has happened, up to the event. */
static bool find_event(struct model_bed *bed, const char *name, uint64_t version,
                       enum model_state state, struct model_event *out)
{
    bool found = false;
    pthread_mutex_lock(&bed->lock);
    while (!found && bed->seen < bed->event_count) {
        *out = bed->events[bed->seen++];
        found = is_event(out, name, version, state);
    }
    pthread_mutex_unlock(&bed->lock);
    return found;
}

struct model_event model_bed_await(struct model_bed *bed, const char *name, uint64_t version,
                                   enum model_state state)
{
    const uint64_t limit_ns = wait_limit_ns(bed);
    struct model_event found = { 0 };
    home_turn(&bed->home);
    while (!find_event(bed, name, version, state, &found)) {
        if (!turn_when_woken(bed, limit_ns)) {
            fail_msg("no event %s/%" PRIu64 " %s", name, version, model_state_text(state));
        }
    }
    return found;
}

uint32_t model_bed_count(struct model_bed *bed, const char *name, enum model_state state)
{
    uint32_t count = 0;
    pthread_mutex_lock(&bed->lock);
    for (uint32_t i = 0; i < bed->event_count; i++) {
        count += strcmp(bed->events[i].name, name) == 0 && bed->events[i].state == state ? 1 : 0;
    }
    pthread_mutex_unlock(&bed->lock);
    return count;
}

void model_bed_settle(struct model_bed *bed)
{
    const uint64_t limit_ns = wait_limit_ns(bed);
    home_turn(&bed->home);
    while (!registry_catalogue(bed->registry, &bed->home)->settled) {
        assert_true(turn_when_woken(bed, limit_ns));
    }
}

void model_bed_await_lost(struct model_bed *bed, uint64_t count)
{
    const uint64_t limit_ns = wait_limit_ns(bed);
    home_turn(&bed->home);
    while (registry_catalogue(bed->registry, &bed->home)->loads_lost != count) {
        assert_true(turn_when_woken(bed, limit_ns));
    }
}

void model_bed_start_all(struct model_bed *bed)
{
    bed->options.control = CONTROL_ALL;
    model_bed_start(bed);
    model_bed_settle(bed);
}

char *model_bed_index(struct model_bed *bed)
{
    const struct catalogue *catalogue = registry_catalogue(bed->registry, &bed->home);
    struct buffer out;
    buffer_init(&out, 1 << 20);
    for (uint32_t i = 0; i < catalogue->count; i++) {
        const struct catalogue_entry *entry = &catalogue->list[i];
        if (entry->version_count == 0) {
            buffer_printf(&out, "%s %s\n", entry->name, entry->reason == NULL ? "" : entry->reason);
        }
        for (uint32_t v = 0; v < entry->version_count; v++) {
            const struct catalogue_version *version = &entry->versions[v];
            buffer_printf(&out, "%s/%" PRIu64 " %s %s\n", entry->name, version->version,
                          model_state_text(version->state),
                          version->reason == NULL ? "" : version->reason);
        }
    }
    buffer_char(&out, '\0');
    assert_false(out.failed);
    char *text = strdup(out.data);
    buffer_finish(&out);
    return text;
}

void model_bed_expect(struct model_bed *bed, const char *prefix, const char *part)
{
    char *index = model_bed_index(bed);
    bool found = false;
    for (const char *line = index; *line != '\0';) {
        const char *end = strchr(line, '\n');
        char text[1024];
        (void)snprintf(text, sizeof(text), "%.*s", (int)(end - line), line);
        found = found || (strncmp(text, prefix, strlen(prefix)) == 0 && strstr(text, part) != NULL);
        line = end + 1;
    }
    if (!found) {
        fail_msg("no line '%s ... %s' in the index:\n%s", prefix, part, index);
    }
    free(index);
}

struct model *model_bed_lease(struct model_bed *bed, const char *name, uint64_t version)
{
    struct model *model = NULL;
    struct weir_err err = { 0 };
    const enum weir_status status = catalogue_lease(registry_catalogue(bed->registry, &bed->home),
                                                    bytes_of(name), version, &model, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(status, WEIR_OK);
    for (size_t i = 0; i < MODEL_BED_LEASES; i++) {
        if (bed->leases[i] == NULL) {
            bed->leases[i] = model;
            return model;
        }
    }
    fail_msg("more than %d leases", MODEL_BED_LEASES);
    return NULL;
}

void model_bed_release(struct model_bed *bed, struct model *model)
{
    for (size_t i = 0; i < MODEL_BED_LEASES; i++) {
        if (bed->leases[i] == model) {
            bed->leases[i] = NULL;
            model_release(model);
            return;
        }
    }
    fail_msg("a lease that was not taken");
}

static void request_ended(struct request *request)
{
    *(bool *)request->user = true;
}

static void fill_shape(const struct tensor_spec *spec, struct tensor *tensor)
{
    tensor->dtype = spec->dtype;
    tensor->shape = spec->shape;
    tensor->present = true;
    for (uint32_t d = 0; d < tensor->shape.rank; d++) {
        tensor->shape.dims[d] = tensor->shape.dims[d] < 0 ? 1 : tensor->shape.dims[d];
    }
}

enum weir_status model_bed_infer_on(struct model_bed *bed, struct model *model)
{
    static uint8_t zeros[65536];
    struct tensor inputs[8] = { 0 };
    struct tensor outputs[8] = { 0 };
    bool done = false;
    struct request request;
    assert_true(model->signature->input_count <= 8 && model->signature->output_count <= 8);
    for (uint32_t i = 0; i < model->signature->input_count; i++) {
        fill_shape(&model->signature->inputs[i], &inputs[i]);
        inputs[i].data = zeros;
        assert_int_equal(tensor_bytes(inputs[i].dtype, &inputs[i].shape, &inputs[i].size, NULL),
                         WEIR_OK);
        assert_true(inputs[i].size <= sizeof(zeros));
    }
    asking_init(&request, &bed->home, model, inputs, outputs);
    request.ended = request_ended;
    request.user = &done;
    const enum weir_status status = engine_submit(bed->engine, &request, NULL);
    if (status != WEIR_OK) {
        return status;
    }
    model_bed_turn_until(bed, &done);
    for (uint32_t i = 0; i < 8; i++) {
        tensor_release(&outputs[i]);
    }
    return request.status;
}

enum weir_status model_bed_infer(struct model_bed *bed, const char *name, uint64_t version)
{
    struct model *model = NULL;
    enum weir_status status = catalogue_lease(registry_catalogue(bed->registry, &bed->home),
                                              bytes_of(name), version, &model, NULL);
    if (status == WEIR_OK) {
        status = model_bed_infer_on(bed, model);
        model_release(model);
    }
    return status;
}
