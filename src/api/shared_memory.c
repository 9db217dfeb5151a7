/*
 * Shared memory over REST; gRPC goes the same way.
 *
 * Where it is off, everything is refused, also what would do no harm: a client that cleans up
 * before it begins learns there and then that it need not go on.
 */
#include "api/shared_memory.h"

#include "api/call.h"
#include "api/shm.h"
#include "util/json.h"

/* True after having answered. */
static bool refuse(struct call *call)
{
    if (call->api->options.shm != NULL) {
        return false;
    }
    call_fail(call, WEIR_EUNSUPPORTED,
              "client shared memory is not supported here: the server's option shared_memory says "
              "which names clients may register");
    return true;
}

static void write_region(void *context, const struct shm_info *info)
{
    struct buffer *out = context;
    json_comma(out);
    buffer_text(out, "{\"name\":");
    json_string(out, info->name);
    buffer_text(out, ",\"key\":");
    json_string(out, info->key);
    buffer_text(out, ",\"offset\":");
    buffer_u64(out, info->offset);
    buffer_text(out, ",\"byte_size\":");
    buffer_u64(out, info->size);
    buffer_char(out, '}');
}

/* The region in the path; data NULL: none is named.  A path may spell its letters in percent. */
static enum weir_status read_name(const struct call *call, struct bytes *out, struct weir_err *err)
{
    const struct bytes raw = call->match.name;
    *out = raw;
    if (raw.data == NULL || memchr(raw.data, '%', raw.size) == NULL || call->rpc != NULL) {
        return WEIR_OK;
    }
    char *name = arena_try_alloc(&call->x->arena, raw.size);
    if (name == NULL) {
        return err_nomem(err, "a region's name", raw.size);
    }
    size_t size;
    if (!bytes_decode_percent(raw, name, raw.size, &size)) {
        return err_set(err, WEIR_EINVAL, "the region's name has a '%%' without two digits");
    }
    *out = (struct bytes){ name, size };
    return WEIR_OK;
}

/* False: it is answered that the call cannot be served. */
static bool begin(struct call *call, struct bytes *name)
{
    struct weir_err err;
    if (refuse(call)) {
        return false;
    }
    if (read_name(call, name, &err) != WEIR_OK) {
        call_fail_err(call, &err);
        return false;
    }
    return true;
}

void shared_memory_status(struct call *call)
{
    struct bytes name;
    struct weir_err err;
    if (!begin(call, &name)) {
        return;
    }
    struct buffer *out = &call->loop->scratch;
    buffer_clear(out);
    buffer_char(out, '[');
    const uint32_t count = shm_walk(call->api->options.shm, name, write_region, out);
    buffer_char(out, ']');
    if (count == 0 && name.data != NULL) {
        buffer_clear(out);
        (void)err_set(&err, WEIR_ENOENT, "unable to find system shared memory region: '%.*s'",
                      name.size > 128 ? 128 : (int)name.size, name.data);
        call_fail_err(call, &err);
        return;
    }
    call_reply_buffer(call, CALL_JSON, out);
}

/* A whole number of bytes from 0; absent where it may be. */
static enum weir_status read_bytes(yyjson_val *value, const char *key, bool required, uint64_t *out,
                                   struct weir_err *err)
{
    *out = 0;
    if (value == NULL && !required) {
        return WEIR_OK;
    }
    if (value == NULL || !yyjson_is_uint(value)) {
        return err_set(err, WEIR_EINVAL, "Unable to parse '%s': found %s, expected a whole number",
                       key, value == NULL ? "nothing" : json_kind(value));
    }
    *out = yyjson_get_uint(value);
    return WEIR_OK;
}

static enum weir_status register_region(struct call *call, yyjson_val *root, struct bytes name,
                                        struct weir_err *err)
{
    uint64_t offset;
    uint64_t size;
    enum weir_status status;
    yyjson_val *key = yyjson_obj_get(root, "key");
    if (!yyjson_is_obj(root) || !yyjson_is_str(key)) {
        return err_set(err, WEIR_EINVAL,
                       "Shared memory register request has no 'key': expected the name of a shared "
                       "memory object");
    }
    if ((status = read_bytes(yyjson_obj_get(root, "offset"), "offset", false, &offset, err)) !=
            WEIR_OK ||
        (status = read_bytes(yyjson_obj_get(root, "byte_size"), "byte_size", true, &size, err)) !=
            WEIR_OK) {
        return status;
    }
    return shm_register(call->api->options.shm, name,
                        (struct bytes){ yyjson_get_str(key), yyjson_get_len(key) }, offset, size,
                        call->x->peer_user, err);
}

void shared_memory_register(struct call *call)
{
    struct bytes name;
    struct weir_err err;
    yyjson_doc *doc = NULL;
    if (!begin(call, &name)) {
        return;
    }
    enum weir_status status = call_json(call, false, &doc, &err);
    if (status == WEIR_OK) {
        status = register_region(call, yyjson_doc_get_root(doc), name, &err);
        yyjson_doc_free(doc);
    }
    if (status != WEIR_OK) {
        call_fail_err(call, &err);
    } else {
        call_reply_empty(call);
    }
}

void shared_memory_unregister(struct call *call)
{
    struct bytes name;
    if (!begin(call, &name)) {
        return;
    }
    if (name.data == NULL) {
        shm_unregister_all(call->api->options.shm);
    } else {
        shm_unregister(call->api->options.shm, name);
    }
    call_reply_empty(call);
}

void shared_memory_cuda_status(struct call *call)
{
    if (call->api->options.shm == NULL) {
        shared_memory_cuda_register(call);
    } else if (call->match.name.data != NULL) {
        call_fail(call, WEIR_ENOENT, "unable to find CUDA shared memory region: there are none");
    } else {
        call_reply(call, BYTES_LITERAL("[]"));
    }
}

void shared_memory_cuda_register(struct call *call)
{
    call_fail(call, WEIR_EUNSUPPORTED, "CUDA shared memory is not supported");
}

/* Clients clean up both kinds before they use one. */
void shared_memory_cuda_unregister(struct call *call)
{
    if (call->api->options.shm == NULL) {
        shared_memory_cuda_register(call);
    } else {
        call_reply_empty(call);
    }
}
