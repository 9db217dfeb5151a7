/*
 * A ModelInferRequest.  The first byte says in pieces of how many bytes it comes; whatever it says,
 * the outcome must be that of the message in one piece.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "api/infer_proto.h"
#include "infer_promise.h"
#include "net/body.h"

static enum weir_status decode(struct fake_call *call, struct infer_proto *proto,
                               const struct limits *limits, struct bytes message, size_t piece,
                               struct weir_err *err)
{
    enum weir_status status = WEIR_OK;
    infer_proto_begin(proto, &call->arena, call->blocks, limits, message.size);
    for (size_t at = 0; at < message.size && status == WEIR_OK; at += piece) {
        const size_t size = message.size - at < piece ? message.size - at : piece;
        char *copy = malloc(size); /* The sanitizer watches its end. */
        check(copy != NULL);
        memcpy(copy, message.data + at, size);
        status = infer_proto_read(proto, (struct bytes){ copy, size }, err);
        free(copy);
    }
    if (status == WEIR_OK) {
        status = infer_proto_end(proto, err);
    }
    if (status == WEIR_OK) {
        (void)infer_proto_bind_bytes(proto);
        status = infer_proto_bind(proto, &call->infer, err);
    }
    return status;
}

static void check_equal(const struct infer_call *a, const struct infer_call *b)
{
    for (uint32_t i = 0; i < a->model->signature->input_count; i++) {
        const struct tensor *x = &a->request.inputs[i];
        const struct tensor *y = &b->request.inputs[i];
        check(x->present == y->present && x->size == y->size);
        check(x->size == 0 || memcmp(x->data, y->data, x->size) == 0);
    }
    check(a->output_count == b->output_count && bytes_equal(a->id, b->id));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    const struct bytes message = { (const char *)data + 1, size - 1 };
    const size_t piece = data[0] == 0 ? 1 : data[0];
    struct limits limits;
    struct fake_model fake;
    struct fake_call calls[2];
    struct infer_proto protos[2];
    struct weir_err errs[2] = { 0 };
    limits_init(&limits);
    promise_model(&fake);
    fake_call_open(&calls[0], &fake);
    fake_call_open(&calls[1], &fake);
    const enum weir_status whole =
        decode(&calls[0], &protos[0], &limits, message, message.size + 1, &errs[0]);
    const enum weir_status cut = decode(&calls[1], &protos[1], &limits, message, piece, &errs[1]);
    promise_call(&calls[0].infer, whole, &errs[0]);
    promise_call(&calls[1].infer, cut, &errs[1]);
    check(whole == cut);
    if (whole == WEIR_OK) {
        check_equal(&calls[0].infer, &calls[1].infer);
    }
    for (int i = 0; i < 2; i++) {
        infer_proto_close(&protos[i]);
        fake_call_close(&calls[i]);
    }
    check(atomic_load(&fake.model.leases) == 1);
    check(body_bytes_of_all() == 0);
    return 0;
}
