/* Messages that are like one before mean what it meant, and no others do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "api/infer_recall.h"
#include "fake_model.h"
#include "util/mem.h"
#include "util/protowire.h"

#define GENERATION 5

static const struct shape row4 = { 2, { -1, 4 } };
static const struct shape open1 = { 1, { -1 } };
static const struct shape one_row = { 2, { 1, 4 } };
static const struct shape two = { 1, { 2 } };

static const char numbers[] = "0123456789abcdef";
static const char others[] = "fedcba9876543210";
static const char strings[] = "\x02\x00\x00\x00hi\x00\x00\x00\x00";
static const char broken[] = "\x09\x00\x00\x00hi\x00\x00\x00\x00";

struct message {
    uint8_t bytes[2048];
    struct protowire_out out;
};

static struct bytes whole(const struct message *m)
{
    return (struct bytes){ (const char *)m->bytes, (size_t)m->out.size };
}

static struct bytes text(const char *data, size_t size)
{
    return (struct bytes){ data, size - 1 };
}

/* Model, an id where there is one, tensors; `behind` is a field behind them. */
static struct bytes make(struct message *m, const char *model, struct bytes a, struct bytes s,
                         const char *behind)
{
    m->out = (struct protowire_out){ .at = m->bytes };
    protowire_put_bytes(&m->out, 1, bytes_of(model));
    protowire_put_bytes(&m->out, 5, bytes_of("stands for the inputs"));
    protowire_put_bytes(&m->out, 7, a);
    protowire_put_bytes(&m->out, 7, s);
    if (behind != NULL) {
        protowire_put_bytes(&m->out, 3, bytes_of(behind));
    }
    return whole(m);
}

struct bench {
    struct fake_model fake;
    struct infer_recall recall;
    struct fake_call call;
};

static void open_bench(struct bench *b)
{
    memset(b, 0, sizeof(*b));
    fake_model_init(&b->fake);
    fake_model_input(&b->fake, "S", DTYPE_BYTES, open1);
    fake_model_input(&b->fake, "A", DTYPE_FP32, row4);
    fake_model_output(&b->fake, "Y", DTYPE_FP32, row4);
    fake_call_open(&b->call, &b->fake);
}

static void close_bench(struct bench *b)
{
    fake_call_close(&b->call);
}

/* What decoding the message would have made of the call. */
static void decode(struct bench *b)
{
    struct weir_err err;
    struct tensor *tensor;
    struct infer_call *call = &b->call.infer;
    assert_int_equal(kserve_input(call, bytes_of("A"), bytes_of("FP32"), &one_row, &tensor, &err),
                     WEIR_OK);
    assert_int_equal(kserve_room(call, tensor, 16, &err), WEIR_OK);
    assert_int_equal(kserve_input(call, bytes_of("S"), bytes_of("BYTES"), &two, &tensor, &err),
                     WEIR_OK);
    call->binary_default = true;
    assert_int_equal(kserve_complete(call, &err), WEIR_OK);
}

static void remember(struct bench *b, struct bytes message)
{
    static const uint32_t order[] = { 1, 0 };
    assert_true(infer_recall_begin(&b->recall, message));
    decode(b);
    infer_recall_end(&b->recall, b->recall.answer.serial, &b->call.infer, order, 2, GENERATION);
}

static void test_other_tensors_of_the_same_request(void **state)
{
    (void)state;
    struct bench b;
    struct message m;
    struct weir_err err;
    struct bytes tensors[INFER_RECALL_TENSORS];
    open_bench(&b);
    const struct bytes a = text(numbers, sizeof numbers);
    const struct bytes s = text(strings, sizeof strings);
    remember(&b, make(&m, "model", a, s, NULL));
    close_bench(&b);
    fake_call_open(&b.call, &b.fake);
    struct bytes again = make(&m, "model", text(others, sizeof others), s, NULL);
    assert_true(infer_recall_is(&b.recall, again, GENERATION, tensors));
    assert_int_equal(infer_recall_bind(&b.recall, &b.call.infer, tensors, &err), WEIR_OK);
    const struct tensor *inputs = b.call.infer.request.inputs;
    assert_memory_equal(inputs[1].data, others, 16);
    assert_int_equal((uintptr_t)inputs[1].data % MEM_ALIGN, 0);
    assert_true(shape_equal(&inputs[1].shape, &one_row));
    assert_memory_equal(inputs[0].data, strings, sizeof strings - 1);
    assert_int_equal(b.call.infer.output_count, 1);
    assert_true(b.call.infer.request.wanted[0] && b.call.infer.outputs[0].binary);
    close_bench(&b);

    /* Strings are looked at each time. */
    fake_call_open(&b.call, &b.fake);
    again = make(&m, "model", a, text(broken, sizeof broken), NULL);
    assert_true(infer_recall_is(&b.recall, again, GENERATION, tensors));
    assert_int_equal(infer_recall_bind(&b.recall, &b.call.infer, tensors, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "'S'"));
    close_bench(&b);
}

static void test_any_other_message_is_another(void **state)
{
    (void)state;
    struct bench b;
    struct message m;
    struct bytes tensors[INFER_RECALL_TENSORS];
    open_bench(&b);
    const struct bytes a = text(numbers, sizeof numbers);
    const struct bytes s = text(strings, sizeof strings);
    remember(&b, make(&m, "model", a, s, NULL));
    assert_true(infer_recall_is(&b.recall, whole(&m), GENERATION, tensors));
    assert_false(infer_recall_is(&b.recall, whole(&m), GENERATION + 1, tensors));
    assert_false(infer_recall_is(&b.recall, make(&m, "molde", a, s, NULL), GENERATION, tensors));
    assert_false(infer_recall_is(&b.recall, make(&m, "model", s, a, NULL), GENERATION, tensors));
    assert_false(infer_recall_is(&b.recall, make(&m, "model", a, s, "id"), GENERATION, tensors));
    const struct bytes shorter = { a.data, a.size - 4 };
    assert_false(
        infer_recall_is(&b.recall, make(&m, "model", shorter, s, ""), GENERATION, tensors));
    /* Of the same size: the second tensor is another field. */
    make(&m, "model", a, s, NULL);
    uint8_t *tag = m.bytes + m.out.size - s.size - 2;
    assert_int_equal(*tag, 7 << 3 | 2);
    *tag = 3 << 3 | 2;
    assert_false(infer_recall_is(&b.recall, whole(&m), GENERATION, tensors));
    close_bench(&b);
}

static void test_what_cannot_be_remembered(void **state)
{
    (void)state;
    static char long_name[INFER_RECALL_BYTES + 1];
    struct bench b;
    struct message m;
    struct bytes tensors[INFER_RECALL_TENSORS];
    open_bench(&b);
    const struct bytes a = text(numbers, sizeof numbers);
    const struct bytes s = text(strings, sizeof strings);
    memset(long_name, 'm', sizeof long_name - 1);
    assert_false(infer_recall_begin(&b.recall, make(&m, long_name, a, s, NULL)));
    assert_false(infer_recall_begin(&b.recall, make(&m, "model", a, s, "the id")));
    assert_false(infer_recall_begin(&b.recall, text("\x0a\x05mode", 7)));
    assert_false(infer_recall_begin(&b.recall, text("\x08\x05", 3)));

    /* Something about this request only. */
    const struct bytes message = make(&m, "model", a, s, NULL);
    assert_true(infer_recall_begin(&b.recall, message));
    decode(&b);
    static const uint32_t order[] = { 1, 0 };
    const uint64_t serial = b.recall.answer.serial;
    b.call.infer.priority = 3;
    infer_recall_end(&b.recall, serial, &b.call.infer, order, 2, GENERATION);
    assert_false(infer_recall_is(&b.recall, message, GENERATION, tensors));
    b.call.infer.priority = 0;

    /* Another message came in between. */
    assert_true(infer_recall_begin(&b.recall, message));
    infer_recall_end(&b.recall, serial, &b.call.infer, order, 2, GENERATION);
    assert_false(infer_recall_is(&b.recall, message, GENERATION, tensors));
    close_bench(&b);
}

/* Answers are alike as long as their outputs are. */
static void test_answers(void **state)
{
    (void)state;
    struct bench b;
    struct message m;
    open_bench(&b);
    struct infer_call *call = &b.call.infer;
    struct tensor *output = &call->request.outputs[0];
    static uint8_t data[32];
    remember(&b,
             make(&m, "model", text(numbers, sizeof numbers), text(strings, sizeof strings), NULL));
    *output = (struct tensor){
        .dtype = DTYPE_FP32, .shape = one_row, .data = data, .size = 16, .present = true
    };
    assert_null(answer_memory_find(call).data);
    assert_non_null(answer_memory_facts(call));
    answer_memory_keep(call, bytes_of("says"));
    assert_true(bytes_equal(answer_memory_find(call), bytes_of("says")));
    output->shape.dims[0] = 2;
    output->size = 32;
    assert_null(answer_memory_find(call).data);
    output->shape = one_row;
    output->size = 16;
    assert_non_null(answer_memory_find(call).data);
    answer_memory_begin(&b.recall.answer); /* Another request has the place. */
    assert_null(answer_memory_find(call).data);
    assert_null(answer_memory_facts(call));
    answer_memory_join(&b.recall.answer, call);
    call->outputs[0].classes = 3;
    answer_memory_keep(call, bytes_of("says"));
    assert_null(answer_memory_find(call).data);
    *output = (struct tensor){ 0 };
    close_bench(&b);
}

/* Whichever allocation fails: that is said, and the same message is taken the next time. */
static void test_memory_runs_out_anywhere(void **state)
{
    (void)state;
    struct bench b;
    struct message m;
    struct bytes tensors[INFER_RECALL_TENSORS];
    open_bench(&b);
    remember(&b,
             make(&m, "model", text(numbers, sizeof numbers), text(strings, sizeof strings), NULL));
    close_bench(&b);
    uint64_t calls = 0;
    for (uint64_t nth = 1; calls + 1 >= nth; nth++) {
        struct weir_err err = { 0 };
        fake_call_open(&b.call, &b.fake);
        assert_true(infer_recall_is(&b.recall, whole(&m), GENERATION, tensors));
        (void)mem_fault_arm(nth);
        const enum weir_status status = infer_recall_bind(&b.recall, &b.call.infer, tensors, &err);
        calls = mem_fault_arm(0);
        assert_true(status == WEIR_OK || status == WEIR_ENOMEM);
        assert_true(status == WEIR_OK || err.text[0] != '\0');
        close_bench(&b);
    }
    fake_call_open(&b.call, &b.fake);
    assert_true(infer_recall_is(&b.recall, whole(&m), GENERATION, tensors));
    assert_int_equal(infer_recall_bind(&b.recall, &b.call.infer, tensors, NULL), WEIR_OK);
    close_bench(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_other_tensors_of_the_same_request),
        cmocka_unit_test(test_any_other_message_is_another),
        cmocka_unit_test(test_what_cannot_be_remembered),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_memory_runs_out_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
