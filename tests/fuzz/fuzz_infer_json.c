/*
 * The body of an inference request.  Up to the first byte 0x1e it is JSON, behind it come the
 * binary tensors; an input that begins with 0x1e is a raw request.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "api/infer_json.h"
#include "infer_promise.h"

#define SEPARATOR 0x1e

static void make_raw_model(struct fake_model *fake)
{
    const struct shape any = { 2, { -1, -1 } };
    fake_model_init(fake);
    fake_model_output(fake, "Y", DTYPE_FP32, any);
    fake_model_output(fake, "Z", DTYPE_FP16, any);
    fake->config.max_batch_size = 4;
    fake_model_input(fake, "A", DTYPE_BYTES, any);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *separator = size == 0 ? NULL : memchr(data, SEPARATOR, size);
    const size_t json_size = separator == NULL ? size : (size_t)(separator - data);
    const size_t binary_size = separator == NULL ? 0 : size - json_size - 1;
    const bool raw = separator == data && size > 0;
    char *body = malloc(json_size + binary_size + 1);
    check(body != NULL);
    if (json_size > 0) {
        memcpy(body, data, json_size);
    }
    if (binary_size > 0) {
        memcpy(body + json_size, separator + 1, binary_size);
    }
    /* One byte less than was allocated is none too many: the sanitizer watches the end. */
    char *exact = realloc(body, json_size + binary_size == 0 ? 1 : json_size + binary_size);
    check(exact != NULL);

    struct fake_model fake;
    struct fake_call call;
    struct weir_err err = { 0 };
    if (raw) {
        make_raw_model(&fake);
    } else {
        promise_model(&fake);
    }
    fake_call_open(&call, &fake);
    const struct bytes whole = { exact, json_size + binary_size };
    static struct infer_memory memory;
    memory.model = NULL;
    const enum weir_status status =
        raw ? infer_json_read_raw(&call.infer, whole, &err)
            : infer_json_read(&call.infer, whole, json_size, &memory, 1, &err);
    check(status != WEIR_ETOOBIG);
    promise_call(&call.infer, status, &err);
    fake_call_close(&call);
    if (memory.model != NULL) {
        /* The same once more, now from memory. */
        fake_call_open(&call, &fake);
        check(infer_json_read(&call.infer, whole, json_size, &memory, 1, &err) == WEIR_OK);
        promise_call(&call.infer, WEIR_OK, &err);
        fake_call_close(&call);
    }
    check(atomic_load(&fake.model.leases) == 1);
    free(exact);
    return 0;
}
