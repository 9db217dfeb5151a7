#include "cmd/bench_plan.h"

#include <stdio.h>
#include <string.h>

#include "cmd/bench_shared.h"
#include "cmd/input.h"
#include "util/clock.h"
#include "util/json.h"

#define ASK_NS (30 * NS_PER_S)

/* "weir 0.1.0", over REST; left empty where the server does not say. */
static void ask_name(struct session *session, char *out, size_t size)
{
    const struct client_request request = { .method = "GET", .path = "/v2" };
    struct client_reply reply;
    yyjson_doc *doc = NULL;
    if (client_call(&session->client, &request, &reply, NULL) == WEIR_OK && reply.status == 200 &&
        json_read(reply.body, &doc, NULL) == WEIR_OK) {
        yyjson_val *root = yyjson_doc_get_root(doc);
        const char *name = yyjson_get_str(yyjson_obj_get(root, "name"));
        const char *version = yyjson_get_str(yyjson_obj_get(root, "version"));
        (void)snprintf(out, size, "%s%s%s", name == NULL ? "" : name, version == NULL ? "" : " ",
                       version == NULL ? "" : version);
    }
    yyjson_doc_free(doc);
    client_reply_finish(&reply);
}

/* What one class's requests are made of. */
struct making {
    struct arena *arena;
    const struct wish *wish;
    const struct wish_class *class; /* NULL: there is no mix. */
    struct plan_target *target;
    struct session session;
    struct interface interface;
    struct request_inputs_spec inputs;
    struct request_spec spec;
};

static enum weir_status read_given(struct making *making, struct weir_err *err)
{
    const struct wish *wish = making->wish;
    struct value *given =
        arena_try_zero(making->arena, (size_t)wish->input_count + 1, sizeof(*given));
    if (given == NULL) {
        return err_nomem(err, "inputs", wish->input_count);
    }
    for (uint32_t i = 0; i < wish->input_count; i++) {
        const char *picture = NULL;
        const enum weir_status status = input_read(making->arena, wish->inputs[i],
                                                   &making->interface, &given[i], &picture, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    making->inputs.given = given;
    making->inputs.given_count = wish->input_count;
    return WEIR_OK;
}

static bool has_name(const struct spec *specs, uint32_t count, const struct request_shape *told)
{
    for (uint32_t i = 0; i < count; i++) {
        if (strlen(specs[i].name) == told->name_size &&
            memcmp(specs[i].name, told->name, told->name_size) == 0) {
            return true;
        }
    }
    return false;
}

/* In a mix of models a shape may be another one's. */
static enum weir_status check_shapes(const struct making *making, struct weir_err *err)
{
    const struct interface *model = &making->interface;
    for (uint32_t i = 0; i < making->wish->shape_count && making->class == NULL; i++) {
        const struct request_shape *told = &making->wish->shapes[i];
        if (!has_name(model->inputs, model->input_count, told) &&
            !has_name(model->outputs, model->output_count, told)) {
            return err_set(err, WEIR_EINVAL, "--shape: model '%s' has no input or output '%.*s'",
                           model->model, (int)told->name_size, told->name);
        }
    }
    return WEIR_OK;
}

static void set_specs(struct making *making, uint64_t rows)
{
    const struct wish *wish = making->wish;
    const struct wish_class *class = making->class;
    making->inputs.model = &making->interface;
    making->inputs.shapes = wish->shapes;
    making->inputs.shape_count = wish->shape_count;
    making->inputs.rows = (uint32_t)rows;
    making->inputs.variants = (uint32_t)wish->variants;
    making->inputs.seed = wish->seed;
    making->inputs.zero = wish->zero;
    making->spec = (struct request_spec){
        .url = making->target->wish->url,
        .model = making->session.options.model,
        .version = wish->version,
        .key = class != NULL && class->key != NULL ? class->key : client_key(),
        .priority = class != NULL && class->priority != 0 ? class->priority : wish->priority,
        .deadline_ns =
            class != NULL && class->deadline_ns != 0 ? class->deadline_ns : wish->deadline_ns,
        .header_count = wish->header_count,
        .format = wish->format,
        .interface = &making->interface,
    };
    memcpy(making->spec.headers, wish->headers, sizeof(wish->headers));
}

static enum weir_status build(struct making *making, struct load_class *out, struct weir_err *err)
{
    struct request_inputs inputs;
    struct wire_request *requests = NULL;
    struct plan_target *target = making->target;
    const uint64_t rows = making->class != NULL && making->class->rows != 0 ? making->class->rows
                                                                            : making->wish->rows;
    set_specs(making, rows);
    enum weir_status status = check_shapes(making, err);
    if (status == WEIR_OK) {
        status = read_given(making, err);
    }
    if (status == WEIR_OK) {
        status = request_inputs_make(making->arena, &making->inputs, &inputs, err);
    }
    if (status == WEIR_OK && making->wish->format == REQUEST_SHARED) {
        const struct shared_wish shared = { .prefix = making->wish->shared_prefix,
                                            .session = &making->session,
                                            .spec = &making->inputs,
                                            .inputs = &inputs };
        status = shared_make(making->arena, &shared, &target->regions, &making->spec.region, err);
    }
    if (status == WEIR_OK) {
        status = request_make(making->arena, &making->spec, &inputs, target->plan, &requests, err);
    }
    if (status == WEIR_OK) {
        target->variants = inputs.variant_count;
        out->variants = requests;
        out->variant_count = inputs.variant_count;
    }
    return status;
}

static enum weir_status make_class(struct making *making, struct load_class *out,
                                   struct weir_err *err)
{
    const struct wish *wish = making->wish;
    const struct wish_class *class = making->class;
    const bool own_model = class != NULL && class->model[0] != '\0';
    const struct session_options options = { .url = making->target->wish->url,
                                             .grpc = making->target->wish->grpc,
                                             .model = own_model ? class->model : wish->model,
                                             .version = own_model ? 0 : wish->version,
                                             .timeout_ns = ASK_NS };
    enum weir_status status = session_open(&making->session, &options, err);
    if (status == WEIR_OK) {
        status = session_describe(&making->session, making->arena, &making->interface, err);
    }
    if (status == WEIR_OK) {
        status = build(making, out, err);
    }
    if (status == WEIR_OK && !options.grpc && making->target->server[0] == '\0') {
        ask_name(&making->session, making->target->server, sizeof(making->target->server));
    }
    if (status == WEIR_OK && making->target->model == NULL) {
        making->target->model = arena_try_printf(
            making->arena, "%s, version %s", making->interface.model, making->interface.version);
        status = making->target->model == NULL ? err_nomem(err, "the model's name", 0) : WEIR_OK;
    }
    session_close(&making->session);
    return status;
}

static uint32_t share_of(const struct wish_class *class)
{
    return class == NULL ? 1 : class->rate > 0 || class->concurrency > 0 ? 0 : class->share;
}

enum weir_status plan_target_init(struct plan_target *target, struct arena *arena,
                                  const struct wish *wish, uint32_t index, struct weir_err *err)
{
    *target = (struct plan_target){ .wish = &wish->targets[index] };
    if (target->wish->grpc && (target->plan = http2_plan_create()) == NULL) {
        return err_nomem(err, "requests", 0);
    }
    target->class_count = wish->class_count == 0 ? 1 : wish->class_count;
    for (uint32_t i = 0; i < target->class_count; i++) {
        const struct wish_class *class = wish->class_count == 0 ? NULL : &wish->classes[i];
        struct making making = { .arena = arena, .wish = wish, .class = class, .target = target };
        const enum weir_status status = make_class(&making, &target->classes[i], err);
        if (status != WEIR_OK) {
            return class == NULL ? status : (err_prefix(err, "class %s", class->name), status);
        }
        target->classes[i].weight = share_of(class);
    }
    return WEIR_OK;
}

void plan_target_finish(struct plan_target *target)
{
    shared_finish(target->regions);
    target->regions = NULL;
    http2_plan_destroy(target->plan);
    target->plan = NULL;
}
