/*
 * A request of HTTP/1.1 is one run of bytes, head and body, so that it leaves with one system
 * call.  For gRPC the fields stand in the plan, once for all requests that share them, and the
 * body is the message behind its five bytes of prefix.
 */
#include "cmd/bench_request.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cmd/output.h"
#include "util/clock.h"
#include "util/json.h"
#include "util/protowire.h"

#define REQUEST_BYTES_MAX ((size_t)1 << 31)
#define PREFIX_BYTES 5
#define ARENA_ALIGN 16

static enum weir_status authority_of(const struct request_spec *spec, char *out, size_t size,
                                     bool *secure, struct weir_err *err)
{
    struct client client;
    const enum weir_status status = client_init(&client, spec->url, 0, err);
    if (status != WEIR_OK) {
        return status;
    }
    const bool bracket = strchr(client.host, ':') != NULL;
    const bool tcp = client.port[0] != '\0';
    *secure = client.secure;
    (void)snprintf(out, size, "%s%s%s%s%s", bracket ? "[" : "", tcp ? client.host : "localhost",
                   bracket ? "]" : "", tcp ? ":" : "", client.port);
    return WEIR_OK;
}

static bool is_text(const char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < ' ' || (unsigned char)*text == 127) {
            return false;
        }
    }
    return true;
}

/* "Name: value" */
static enum weir_status split_header(const char *header, struct bytes *name, struct bytes *value,
                                     struct weir_err *err)
{
    const size_t size = strcspn(header, ": ");
    if (size == 0 || header[size] != ':' || !is_text(header)) {
        return err_set(err, WEIR_EINVAL, "--header: found '%s', expected 'Name: value'", header);
    }
    *name = (struct bytes){ header, size };
    *value = bytes_of(header + size + 1 + strspn(header + size + 1, " "));
    return WEIR_OK;
}

/* ---- REST ------------------------------------------------------------------------------------ */

static void put_region(struct buffer *out, const struct request_region *region, uint64_t offset,
                       uint64_t bytes)
{
    json_key(out, "shared_memory_region");
    json_string(out, region->name);
    json_key(out, "shared_memory_offset");
    buffer_u64(out, offset);
    json_key(out, "shared_memory_byte_size");
    buffer_u64(out, bytes);
}

static void put_input(struct buffer *out, const struct request_spec *spec,
                      const struct value *input, uint64_t offset)
{
    json_comma(out);
    output_describe(out, input->name, input->tensor.dtype, &input->tensor.shape);
    if (spec->format == REQUEST_JSON) {
        json_key(out, "data");
        output_data(out, &input->tensor);
    } else {
        json_key(out, "parameters");
        buffer_char(out, '{');
        if (spec->format == REQUEST_SHARED) {
            put_region(out, spec->region, offset, input->tensor.size);
        } else {
            json_key(out, "binary_data_size");
            buffer_u64(out, input->tensor.size);
        }
        buffer_char(out, '}');
    }
    buffer_char(out, '}');
}

static void put_outputs(struct buffer *out, const struct request_spec *spec, uint32_t variant)
{
    const struct request_region *region = spec->region;
    uint64_t offset = region->output_offset + variant * region->output_stride;
    json_key(out, "outputs");
    buffer_char(out, '[');
    for (uint32_t i = 0; i < spec->interface->output_count; i++) {
        json_comma(out);
        buffer_char(out, '{');
        json_key(out, "name");
        json_string(out, spec->interface->outputs[i].name);
        json_key(out, "parameters");
        buffer_char(out, '{');
        put_region(out, region, offset, region->output_bytes[i]);
        buffer_text(out, "}}");
        offset += region->output_bytes[i];
    }
    buffer_char(out, ']');
}

static void put_json(struct buffer *out, const struct request_spec *spec,
                     const struct value *inputs, uint32_t count, uint32_t variant)
{
    uint64_t offset = spec->region != NULL ? variant * spec->region->input_stride : 0;
    const bool binary = spec->format == REQUEST_BINARY;
    buffer_char(out, '{');
    if (binary || spec->priority > 0) {
        json_key(out, "parameters");
        buffer_char(out, '{');
        if (binary) {
            buffer_text(out, "\"binary_data_output\":true");
        }
        if (spec->priority > 0) {
            json_key(out, "priority");
            buffer_u64(out, spec->priority);
        }
        buffer_char(out, '}');
    }
    json_key(out, "inputs");
    buffer_char(out, '[');
    for (uint32_t i = 0; i < count; i++) {
        put_input(out, spec, &inputs[i], offset);
        offset += inputs[i].tensor.size;
    }
    buffer_char(out, ']');
    if (spec->format == REQUEST_SHARED) {
        put_outputs(out, spec, variant);
    }
    buffer_char(out, '}');
}

static enum weir_status put_head(struct buffer *out, const struct request_spec *spec,
                                 size_t json_size, size_t body_size, struct weir_err *err)
{
    char authority[320];
    bool secure;
    enum weir_status status = authority_of(spec, authority, sizeof(authority), &secure, err);
    buffer_text(out, "POST /v2/models/");
    for (const char *at = spec->model; *at != '\0'; at++) {
        const bool plain = (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') ||
                           (*at >= '0' && *at <= '9') || strchr("._-", *at) != NULL;
        buffer_printf(out, plain ? "%c" : "%%%02X", (unsigned)(unsigned char)*at);
    }
    if (spec->version > 0) {
        buffer_printf(out, "/versions/%" PRIu64, spec->version);
    }
    buffer_printf(out, "/infer HTTP/1.1\r\nHost: %s\r\n", authority);
    if (spec->format == REQUEST_BINARY) {
        buffer_printf(out,
                      "Content-Type: application/octet-stream\r\n"
                      "Inference-Header-Content-Length: %zu\r\n",
                      json_size);
    } else {
        buffer_text(out, "Content-Type: application/json\r\n");
    }
    if (spec->key != NULL && spec->key[0] != '\0') {
        buffer_printf(out, "X-Api-Key: %s\r\n", spec->key);
    }
    if (spec->deadline_ns > 0) {
        buffer_printf(out, "Weir-Deadline-Ms: %" PRIu64 "\r\n",
                      (spec->deadline_ns + NS_PER_MS - 1) / NS_PER_MS);
    }
    for (uint32_t i = 0; i < spec->header_count && status == WEIR_OK; i++) {
        struct bytes name;
        struct bytes value;
        status = split_header(spec->headers[i], &name, &value, err);
        buffer_printf(out, "%s\r\n", spec->headers[i]);
    }
    buffer_printf(out, "Content-Length: %zu\r\n\r\n", body_size);
    return status;
}

static enum weir_status keep(struct arena *arena, const struct buffer *from, struct bytes *out,
                             struct weir_err *err)
{
    char *copy = from->failed ? NULL : arena_try_aligned(arena, from->size + 1, ARENA_ALIGN);
    if (copy == NULL) {
        return err_nomem(err, "a request", from->size);
    }
    memcpy(copy, from->data, from->size);
    *out = (struct bytes){ copy, from->size };
    return WEIR_OK;
}

static enum weir_status make_rest(struct arena *arena, const struct request_spec *spec,
                                  const struct value *inputs, uint32_t count, uint32_t variant,
                                  struct wire_request *out, struct weir_err *err)
{
    struct buffer json;
    struct buffer all;
    buffer_init(&json, REQUEST_BYTES_MAX);
    buffer_init(&all, REQUEST_BYTES_MAX);
    put_json(&json, spec, inputs, count, variant);
    size_t size = json.size;
    for (uint32_t i = 0; i < count && spec->format == REQUEST_BINARY; i++) {
        size += inputs[i].tensor.size;
    }
    enum weir_status status = put_head(&all, spec, json.size, size, err);
    buffer_append(&all, json.data, json.size);
    for (uint32_t i = 0; i < count && spec->format == REQUEST_BINARY; i++) {
        buffer_append(&all, inputs[i].tensor.data, inputs[i].tensor.size);
    }
    all.failed = all.failed || json.failed;
    if (status == WEIR_OK) {
        status = keep(arena, &all, &out->http, err);
    }
    buffer_finish(&json);
    buffer_finish(&all);
    return status;
}

/* ---- gRPC ------------------------------------------------------------------------------------ */

enum { PARAM_INT64 = 2, PARAM_STRING = 3 };

/* An entry of a parameters map in `field`. */
static void put_number(struct protowire_out *out, uint32_t field, const char *key, uint64_t value)
{
    struct protowire_out inner = { 0 };
    struct protowire_out entry = { 0 };
    protowire_put_number(&inner, PARAM_INT64, value);
    protowire_put_bytes(&entry, 1, bytes_of(key));
    protowire_put_begin(&entry, 2, inner.size);
    protowire_put_begin(out, field, entry.size + inner.size);
    protowire_put_bytes(out, 1, bytes_of(key));
    protowire_put_begin(out, 2, inner.size);
    protowire_put_number(out, PARAM_INT64, value);
}

static void put_string(struct protowire_out *out, uint32_t field, const char *key,
                       const char *value)
{
    struct protowire_out inner = { 0 };
    struct protowire_out entry = { 0 };
    protowire_put_bytes(&inner, PARAM_STRING, bytes_of(value));
    protowire_put_bytes(&entry, 1, bytes_of(key));
    protowire_put_begin(&entry, 2, inner.size);
    protowire_put_begin(out, field, entry.size + inner.size);
    protowire_put_bytes(out, 1, bytes_of(key));
    protowire_put_begin(out, 2, inner.size);
    protowire_put_bytes(out, PARAM_STRING, bytes_of(value));
}

static void put_place(struct protowire_out *out, uint32_t field,
                      const struct request_region *region, uint64_t offset, uint64_t bytes)
{
    put_string(out, field, "shared_memory_region", region->name);
    put_number(out, field, "shared_memory_offset", offset);
    put_number(out, field, "shared_memory_byte_size", bytes);
}

static void put_input_fields(struct protowire_out *out, const struct request_spec *spec,
                             const struct value *input, uint64_t offset)
{
    const struct shape *shape = &input->tensor.shape;
    struct protowire_out dims = { 0 };
    for (uint32_t i = 0; i < shape->rank; i++) {
        protowire_put_varint(&dims, (uint64_t)shape->dims[i]);
    }
    protowire_put_bytes(out, 1, bytes_of(input->name));
    protowire_put_bytes(out, 2, bytes_of(dtype_text(input->tensor.dtype)));
    protowire_put_begin(out, 3, dims.size);
    for (uint32_t i = 0; i < shape->rank; i++) {
        protowire_put_varint(out, (uint64_t)shape->dims[i]);
    }
    if (spec->format == REQUEST_SHARED) {
        put_place(out, 4, spec->region, offset, input->tensor.size);
    }
}

static void put_output_fields(struct protowire_out *out, const struct request_spec *spec,
                              uint32_t index, uint64_t offset)
{
    protowire_put_bytes(out, 1, bytes_of(spec->interface->outputs[index].name));
    put_place(out, 2, spec->region, offset, spec->region->output_bytes[index]);
}

static void put_message_outputs(struct protowire_out *out, const struct request_spec *spec,
                                uint32_t variant)
{
    const struct request_region *region = spec->region;
    uint64_t offset = region->output_offset + variant * region->output_stride;
    for (uint32_t i = 0; i < spec->interface->output_count; i++) {
        struct protowire_out count = { 0 };
        put_output_fields(&count, spec, i, offset);
        protowire_put_begin(out, 6, count.size);
        put_output_fields(out, spec, i, offset);
        offset += region->output_bytes[i];
    }
}

static void put_message(struct protowire_out *out, const struct request_spec *spec,
                        const struct value *inputs, uint32_t input_count, uint32_t variant)
{
    uint64_t offset = spec->region != NULL ? variant * spec->region->input_stride : 0;
    char version[24];
    protowire_put_bytes(out, 1, bytes_of(spec->model));
    if (spec->version > 0) {
        (void)snprintf(version, sizeof(version), "%" PRIu64, spec->version);
        protowire_put_bytes(out, 2, bytes_of(version));
    }
    if (spec->priority > 0) {
        put_number(out, 4, "priority", spec->priority);
    }
    for (uint32_t i = 0; i < input_count; i++) {
        struct protowire_out count = { 0 };
        put_input_fields(&count, spec, &inputs[i], offset);
        protowire_put_begin(out, 5, count.size);
        put_input_fields(out, spec, &inputs[i], offset);
        offset += inputs[i].tensor.size;
    }
    if (spec->format == REQUEST_SHARED) {
        put_message_outputs(out, spec, variant);
        return;
    }
    for (uint32_t i = 0; i < input_count; i++) {
        protowire_put_bytes(
            out, 7, (struct bytes){ (const char *)inputs[i].tensor.data, inputs[i].tensor.size });
    }
}

static enum weir_status make_message(struct arena *arena, const struct request_spec *spec,
                                     const struct value *inputs, uint32_t input_count,
                                     uint32_t variant, struct bytes *out, struct weir_err *err)
{
    struct protowire_out count = { 0 };
    put_message(&count, spec, inputs, input_count, variant);
    if (count.size > INT32_MAX) {
        return err_set(err, WEIR_ETOOBIG,
                       "the request has %" PRIu64 " bytes, expected at most %d in a gRPC message",
                       count.size, INT32_MAX);
    }
    const size_t size = PREFIX_BYTES + (size_t)count.size;
    uint8_t *bytes = arena_try_aligned(arena, size, ARENA_ALIGN);
    if (bytes == NULL) {
        return err_nomem(err, "a request", size);
    }
    const uint8_t prefix[PREFIX_BYTES] = { 0, (uint8_t)(count.size >> 24),
                                           (uint8_t)(count.size >> 16), (uint8_t)(count.size >> 8),
                                           (uint8_t)count.size };
    memcpy(bytes, prefix, PREFIX_BYTES);
    struct protowire_out write = { .at = bytes + PREFIX_BYTES };
    put_message(&write, spec, inputs, input_count, variant);
    *out = (struct bytes){ (const char *)bytes, size };
    return WEIR_OK;
}

/* Lower case, as HTTP/2 wants it; NULL: memory is out. */
static const char *lower(struct arena *arena, struct bytes text)
{
    char *copy = arena_try_strndup(arena, text.data, text.size);
    for (size_t i = 0; copy != NULL && i < text.size; i++) {
        copy[i] = copy[i] >= 'A' && copy[i] <= 'Z' ? (char)(copy[i] + 32) : copy[i];
    }
    return copy;
}

/* The largest unit of gRPC that keeps a time-out exact, within its eight digits. */
static const char *timeout_text(struct arena *arena, uint64_t ns)
{
    const uint64_t us = ns / NS_PER_US;
    return us < 100000000 ? arena_try_printf(arena, "%" PRIu64 "u", us == 0 ? 1 : us)
                          : arena_try_printf(arena, "%" PRIu64 "m", us / 1000 % 100000000);
}

static enum weir_status make_head(struct arena *arena, const struct request_spec *spec,
                                  struct http2_plan *plan, struct http2_head *out,
                                  struct weir_err *err)
{
    char text[320];
    bool secure = false;
    enum weir_status status = authority_of(spec, text, sizeof(text), &secure, err);
    const char *authority = arena_try_strndup(arena, text, strlen(text));
    const char *timeout = timeout_text(arena, spec->deadline_ns);
    struct http2_client_field fields[HTTP2_HEAD_FIELDS_MAX + REQUEST_HEADERS_MAX] = {
        { BYTES_LITERAL(":method"), BYTES_LITERAL("POST") },
        { BYTES_LITERAL(":scheme"), bytes_of(secure ? "https" : "http") },
        { BYTES_LITERAL(":path"), BYTES_LITERAL("/inference.GRPCInferenceService/ModelInfer") },
        { BYTES_LITERAL(":authority"), bytes_of(authority) },
        { BYTES_LITERAL("te"), BYTES_LITERAL("trailers") },
        { BYTES_LITERAL("content-type"), BYTES_LITERAL("application/grpc") },
        { BYTES_LITERAL("user-agent"), BYTES_LITERAL("weir/" WEIR_VERSION) },
    };
    size_t count = 7;
    if (spec->deadline_ns > 0) {
        fields[count++] =
            (struct http2_client_field){ BYTES_LITERAL("grpc-timeout"), bytes_of(timeout) };
    }
    if (spec->key != NULL && spec->key[0] != '\0') {
        fields[count++] =
            (struct http2_client_field){ BYTES_LITERAL("x-api-key"), bytes_of(spec->key) };
    }
    for (uint32_t i = 0; i < spec->header_count && status == WEIR_OK; i++) {
        struct bytes name;
        struct bytes value;
        status = split_header(spec->headers[i], &name, &value, err);
        if (status == WEIR_OK) {
            fields[count++] = (struct http2_client_field){ bytes_of(lower(arena, name)), value };
        }
    }
    if (status != WEIR_OK) {
        return status;
    }
    for (size_t i = 0; i < count; i++) {
        if (fields[i].name.data == NULL || fields[i].value.data == NULL) {
            return err_nomem(err, "a request", 0);
        }
    }
    return http2_plan_head(plan, fields, count, out, err);
}

enum weir_status request_make(struct arena *arena, const struct request_spec *spec,
                              const struct request_inputs *inputs, struct http2_plan *plan,
                              struct wire_request **out, struct weir_err *err)
{
    struct wire_request *requests = arena_try_zero(arena, inputs->variant_count, sizeof(*requests));
    if (requests == NULL) {
        return err_nomem(err, "requests", inputs->variant_count);
    }
    enum weir_status status = WEIR_OK;
    for (uint32_t i = 0; i < inputs->variant_count && status == WEIR_OK; i++) {
        const struct value *values = inputs->values + (size_t)i * inputs->input_count;
        if (plan == NULL) {
            status = make_rest(arena, spec, values, inputs->input_count, i, &requests[i], err);
            continue;
        }
        status = make_head(arena, spec, plan, &requests[i].head, err);
        if (status == WEIR_OK) {
            status =
                make_message(arena, spec, values, inputs->input_count, i, &requests[i].body, err);
        }
    }
    if (status == WEIR_OK) {
        *out = requests;
    }
    return status;
}
