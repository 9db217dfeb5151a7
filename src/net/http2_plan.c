/*
 * The fields are few and short, so a table looked through from the front does.  An answer's header
 * block is looked for among the last ones seen; a server that answers alike sends the same block
 * for each call, and only blocks with something new (a text, a time) go through nghttp2.
 */
#include "net/http2_plan.h"

#include <nghttp2/nghttp2.h>

#include "util/mem.h"

struct http2_plan *http2_plan_create(void)
{
    struct http2_plan *plan = mem_try_zero(1, sizeof(*plan));
    if (plan == NULL) {
        return NULL;
    }
    if (nghttp2_hd_inflate_new(&plan->inflater) != 0) {
        mem_free(plan);
        return NULL;
    }
    return plan;
}

void http2_plan_destroy(struct http2_plan *plan)
{
    if (plan != NULL) {
        nghttp2_hd_inflate_del(plan->inflater);
        mem_free(plan);
    }
}

static uint32_t number_of(struct http2_plan *plan, const struct http2_client_field *field)
{
    uint32_t at = 0;
    while (at < plan->field_count && !(bytes_equal(plan->fields[at].name, field->name) &&
                                       bytes_equal(plan->fields[at].value, field->value))) {
        at++;
    }
    if (at == plan->field_count && at < HTTP2_PLAN_FIELDS_MAX) {
        plan->fields[plan->field_count++] = *field;
    }
    return at;
}

enum weir_status http2_plan_head(struct http2_plan *plan, const struct http2_client_field *fields,
                                 size_t count, struct http2_head *out, struct weir_err *err)
{
    struct http2_head head = { 0 };
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        const uint32_t at = number_of(plan, &fields[i]);
        size += fields[i].name.size + fields[i].value.size + 8;
        if (count > HTTP2_HEAD_FIELDS_MAX || at == HTTP2_PLAN_FIELDS_MAX ||
            size > HTTP2_HEAD_BYTES_MAX) {
            return err_set(err, WEIR_EINVAL,
                           "more or longer header fields than fit: at most %d in a request, "
                           "%d different ones in all, %d bytes",
                           HTTP2_HEAD_FIELDS_MAX, HTTP2_PLAN_FIELDS_MAX, HTTP2_HEAD_BYTES_MAX);
        }
        head.fields[head.count++] = (uint8_t)at;
    }
    *out = head;
    return WEIR_OK;
}

/* ---- Answers' headers ------------------------------------------------------------------------ */

static int number_in(struct bytes text)
{
    uint64_t value;
    return bytes_to_u64(text, INT32_MAX, &value) ? (int)value : -1;
}

static void note_field(struct http2_block *block, const nghttp2_nv *field)
{
    const struct bytes name = { (const char *)field->name, field->namelen };
    const struct bytes value = { (const char *)field->value, field->valuelen };
    if (bytes_equal(name, BYTES_LITERAL(":status"))) {
        block->http = number_in(value);
    } else if (bytes_equal(name, BYTES_LITERAL("grpc-status"))) {
        block->grpc = number_in(value);
    } else if (bytes_equal(name, BYTES_LITERAL("grpc-message"))) {
        block->text_size =
            (uint16_t)(value.size < HTTP2_MUX_TEXT_MAX ? value.size : HTTP2_MUX_TEXT_MAX);
        memcpy(block->text, value.data, block->text_size);
    }
}

static bool inflate(struct http2_plan *plan, struct bytes bytes, struct http2_block *block)
{
    const uint8_t *at = (const uint8_t *)bytes.data;
    size_t left = bytes.size;
    for (;;) {
        nghttp2_nv field;
        int flags = 0;
        const ssize_t used = nghttp2_hd_inflate_hd2(plan->inflater, &field, &flags, at, left, 1);
        if (used < 0) {
            return false;
        }
        at += used;
        left -= (size_t)used;
        if ((flags & NGHTTP2_HD_INFLATE_EMIT) != 0) {
            note_field(block, &field);
        }
        if ((flags & NGHTTP2_HD_INFLATE_FINAL) != 0) {
            nghttp2_hd_inflate_end_headers(plan->inflater);
            return true;
        }
        if ((flags & NGHTTP2_HD_INFLATE_EMIT) == 0 && left == 0) {
            return false;
        }
    }
}

const struct http2_block *http2_plan_block(struct http2_plan *plan, struct bytes bytes)
{
    for (uint32_t i = 0; i < HTTP2_PLAN_BLOCKS; i++) {
        const struct http2_block *block = &plan->blocks[i];
        if (block->size == bytes.size && memcmp(block->bytes, bytes.data, bytes.size) == 0 &&
            block->size > 0) {
            return block;
        }
    }
    struct http2_block *block = &plan->blocks[plan->block_next];
    *block = (struct http2_block){ .grpc = -1 };
    if (!inflate(plan, bytes, block)) {
        return NULL;
    }
    if (bytes.size <= sizeof(block->bytes)) { /* Larger ones are forgotten with the next. */
        memcpy(block->bytes, bytes.data, bytes.size);
        block->size = (uint16_t)bytes.size;
        plan->block_next = (plan->block_next + 1) % HTTP2_PLAN_BLOCKS;
    }
    return block;
}
