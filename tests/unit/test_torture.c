/*
 * Memory runs out at every point of loading models of every kind, and of their requests: the load
 * or request fails and says so, or succeeds all the same; nothing leaks (which the sanitizer's
 * build sees), and the next one succeeds.  Needs -Dalloc_fault=true; other builds skip.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "backend/backend.h"
#include "faults.h"
#include "model_bed.h"

#define NTH_MAX 5000

/* A model of tests/data/models, or with source NULL a simulated one, and its model.yaml. */
struct kind {
    const char *name;
    const char *source;
    const char *yaml;
    bool infers; /* A request of zeros, alone, is a right one. */
};

static const struct kind kinds[] = {
    { "plain", "double_it", "{}", true },
    { "weights", "external", "instance_group: [{ count: 2 }]", true },
    { "lengths", "words",
      "shape_buckets: [{ input: x, dim: 1, sizes: [8, 16], pad: 5 }, { input: mask, dim: 1 }]",
      true },
    { "shaped", "dynamic",
      "max_batch_size: 8\n"
      "input: [{ name: x, data_type: TYPE_FP32, dims: [16], reshape: { shape: [4, 4] } }]\n"
      "output: [{ name: y, data_type: TYPE_FP32, dims: [2, 8], reshape: { shape: [4, 4] } }]\n",
      true },
    { "sums", "accumulate",
      "max_batch_size: 4\n"
      "sequence_batching:\n"
      "  oldest: {}\n"
      "  max_sequence_idle_microseconds: 300000\n"
      "  control_input:\n"
      "  - { name: start, control: [{ kind: CONTROL_SEQUENCE_START, int32_false_true: [0, 1] }] }\n"
      "  - { name: ready, control: [{ kind: CONTROL_SEQUENCE_READY, int32_false_true: [0, 1] }] }\n"
      "  - { name: end, control: [{ kind: CONTROL_SEQUENCE_END, int32_false_true: [0, 1] }] }\n"
      "  - { name: corrid, control: [{ kind: CONTROL_SEQUENCE_CORRID, data_type: TYPE_UINT64 }] }\n"
      "  state: [{ input_name: state, output_name: state_out, data_type: TYPE_INT32, dims: [1] "
      "}]\n",
      false },
    { "direct", "remember",
      "max_batch_size: 0\n"
      "sequence_batching:\n"
      "  direct: {}\n"
      "  control_input:\n"
      "  - { name: name, control: [{ kind: CONTROL_SEQUENCE_CORRID, data_type: TYPE_STRING }] }\n"
      "  state: [{ input_name: past, output_name: past_out, data_type: TYPE_FP32, dims: [-1],\n"
      "    initial_state: [{ name: seed, data_type: TYPE_FP32, dims: [1], data_file: s }] }]\n",
      false },
    { "labeled", "identity_fp32",
      "intra_threads: 2\n"
      "output: [{ name: y, label_filename: labels }]\n",
      true },
    { "left_out", "fixed", "execution_providers: [cuda, cpu]", true },
    { "together", NULL,
      "backend: sim\nmax_batch_size: 4\nparameters: { tau0: 1us, mixes_rows: true }\n", true },
    { "alone", "fixed", "{}", true },
    { "simulated", NULL,
      "backend: sim\n"
      "max_batch_size: 4\n"
      "join: true\n"
      "dynamic_batching:\n"
      "  priority_levels: 3\n"
      "  default_priority_level: 2\n"
      "  priority_queue_policy: { 1: { max_queue_size: 5 } }\n"
      "model_warmup: [{ name: w, inputs: { x: { data_type: FP32, dims: [16], "
      "zero_data: true } } }]\n"
      "parameters: { tau0: 1us }\n",
      true },
};

static struct model_bed bed;

static void put(const struct kind *kind)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/1/", kind->name);
    model_bed_put(&bed, 0, path, "");
    (void)snprintf(path, sizeof(path), "%s/model.yaml", kind->name);
    model_bed_put(&bed, 0, path, kind->yaml);
    if (kind->source != NULL) {
        model_bed_copy(&bed, 0, kind->name, kind->source);
    }
}

static enum weir_status order(const char *name, enum registry_order_kind what, struct weir_err *err)
{
    return model_bed_order(&bed, what, name, NULL, err);
}

static void expect_loads(const char *name)
{
    struct weir_err err = { 0 };
    if (order(name, REGISTRY_LOAD, &err) != WEIR_OK) {
        fail_msg("%s: %s", name, err.text);
    }
}

/* Fails each allocation of a load in turn. */
static void torture_loads(const struct kind *kind)
{
    uint64_t made = 0;
    for (uint64_t nth = 1; made + 1 >= nth && nth < NTH_MAX; nth++) {
        struct weir_err err = { 0 };
        (void)mem_fault_arm(nth);
        const enum weir_status status = order(kind->name, REGISTRY_LOAD, &err);
        made = mem_fault_arm(0);
        if (status != WEIR_OK && strstr(err.text, "out of memory") == NULL) {
            fail_msg("%s, allocation %u: %s", kind->name, (unsigned)nth, err.text);
        }
        expect_loads(kind->name);
        assert_int_equal(order(kind->name, REGISTRY_UNLOAD, NULL), WEIR_OK);
    }
}

/* Fails each allocation of a request in turn. */
static void torture_requests(const struct kind *kind)
{
    uint64_t made = 0;
    for (uint64_t nth = 1; made + 1 >= nth && nth < NTH_MAX; nth++) {
        (void)mem_fault_arm(nth);
        const enum weir_status status = model_bed_infer(&bed, kind->name, 0);
        made = mem_fault_arm(0);
        assert_true(status == WEIR_OK || status == WEIR_ENOMEM || status == WEIR_EBACKEND);
        assert_int_equal(model_bed_infer(&bed, kind->name, 0), WEIR_OK);
    }
}

static void test_models_of_every_kind(void **state)
{
    (void)state;
    model_bed_start(&bed);
    if (!faults_are_built()) {
        skip();
    }
    model_bed_put(&bed, 0, "direct/initial_state/s", "1234");
    model_bed_put(&bed, 0, "labeled/labels", "one\ntwo\n");
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        put(&kinds[i]);
        expect_loads(kinds[i].name);
        if (kinds[i].infers) {
            torture_requests(&kinds[i]);
        }
        assert_int_equal(order(kinds[i].name, REGISTRY_UNLOAD, NULL), WEIR_OK);
        torture_loads(&kinds[i]);
    }
}

static int start(void **state)
{
    (void)state;
    backend_start();
    return 0;
}

static int stop(void **state)
{
    (void)state;
    backend_stop();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        MODEL_BED_TEST(test_models_of_every_kind, &bed),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
