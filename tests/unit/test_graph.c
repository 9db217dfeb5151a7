/*
 * graph: what cannot be an ensemble is refused at load, and the sentence names the step.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model_bed.h"
#include "pipeline/graph.h"

static struct model_bed bed;

#define STEP(model, in, out) \
    "  - { model_name: " model ", input_map: { " in " }, output_map: { " out " } }\n"
#define STEPS "ensemble_scheduling:\n  step:\n"
static const struct {
    const char *name;
    const char *text;
    const char *sentence;
} misfits[] = {
    { "unknown_model", STEPS STEP("nobody", "x: in", "y: out"),
      "step 1 needs model 'nobody': there is no such model" },
    { "unknown_version",
      STEPS "  - { model_name: a, model_version: 9, input_map: { x: i }, output_map: { y: o "
            "} }\n",
      "step 1 needs model 'a' version 9" },
    { "unknown_input", STEPS STEP("a", "z: in", "y: out"),
      "step 1 ('a'): the model has no input 'z', it has 'x'" },
    { "unknown_output", STEPS STEP("a", "x: in", "z: out"),
      "step 1 ('a'): the model has no output 'z', it has 'y'" },
    { "missing_input", STEPS STEP("a", "", "y: out"),
      "step 1 ('a'): input 'x' of the model is missing" },
    { "no_output", STEPS STEP("a", "x: in", ""), "gives nothing" },
    { "two_givers", STEPS STEP("a", "x: in", "y: out") STEP("b", "x: in", "y: out"),
      "tensor 'out' is given twice" },
    { "cycle", STEPS STEP("a", "x: p", "y: q") STEP("b", "x: q", "y: p"), "form a cycle" },
    { "types", STEPS STEP("a", "x: in", "y: mid") STEP("ints", "n: mid", "m: out"),
      "tensor 'mid' is FP32 by step 1 ('a') but step 2 ('ints') takes INT32" },
    { "shapes", STEPS STEP("a", "x: in", "y: mid") STEP("wide", "w: mid", "v: out"),
      "tensor 'mid' has shape [-1,16] by step 1 ('a') but step 2 ('wide') takes shape "
      "[-1,32]" },
    { "input_types", STEPS STEP("a", "x: in", "y: one") STEP("ints", "n: in", "m: two"),
      "tensor 'in' is FP32 by step 1 ('a') but step 2 ('ints') takes INT32" },
    { "streams", STEPS STEP("parts", "x: in", "y: out"), "step 1 ('parts') answers in several" },
    { "unused_input",
      "input:\n- { name: in, data_type: FP32, dims: [16] }\n"
      "- { name: more, data_type: FP32, dims: [16] }\n" STEPS STEP("a", "x: in", "y: out"),
      "input 'more' is taken by no step" },
    { "no_source",
      "input:\n- { name: in, data_type: FP32, dims: [16] }\n" STEPS STEP("a", "x: other", "y: out"),
      "step 1 ('a') takes tensor 'other', which no step gives" },
    { "no_giver",
      "output:\n- { name: what, data_type: FP32, dims: [16] }\n" STEPS STEP("a", "x: in", "y: out"),
      "output 'what' is given by no step" },
    { "unused_tensor",
      "output:\n- { name: out, data_type: FP32, dims: [16] }\n" STEPS STEP("a", "x: in", "y: out")
          STEP("b", "x: in", "y: lost"),
      "tensor 'lost' of step 2 ('b') is taken by no step" },
    { "declared_type",
      "input:\n- { name: in, data_type: INT8, dims: [16] }\n" STEPS STEP("a", "x: in", "y: out"),
      "input 'in' is INT8 in the configuration but FP32" },
    { "declared_shape",
      "max_batch_size: 4\noutput:\n- { name: out, data_type: FP32, dims: [17] }\n" STEPS STEP(
          "a", "x: in", "y: out"),
      "output 'out' has shape [-1,17] in the configuration" },
    { "batch", "max_batch_size: 8\n" STEPS STEP("small", "x: in", "y: out"),
      "the ensemble allows a max_batch_size of 8 but step 1 ('small') only 4" },
    { "itself", STEPS STEP("itself", "x: in", "y: out"), "ensemble 'itself' is a step of itself" },
    { "backend", "backend: sim\n" STEPS STEP("a", "x: in", "y: out"),
      "backend 'sim' in an ensemble" },
    { "groups", "instance_group: [{ count: 2 }]\n" STEPS STEP("a", "x: in", "y: out"),
      "instance_group in an ensemble" },
    { "broken_part", STEPS STEP("bad", "x: in", "y: out"), "the weights are torn" },
};

static void test_what_does_not_fit_is_refused_by_name(void **state)
{
    (void)state;
    model_bed_sim(&bed, "a", 1, "");
    model_bed_sim(&bed, "b", 1, "");
    model_bed_sim(&bed, "bad", 1, "  load_fails: the weights are torn\n");
    model_bed_sim(&bed, "parts", 1, "  parts: 3\n");
    model_bed_sim(&bed, "ints", 1, "  inputs: \"n:INT32[-1,16]\"\n  outputs: \"m:INT32[-1,16]\"\n");
    model_bed_sim(&bed, "wide", 1, "  inputs: \"w:FP32[-1,32]\"\n  outputs: \"v:FP32[-1,32]\"\n");
    model_bed_put(&bed, 0, "small/1/", "");
    model_bed_put(&bed, 0, "small/model.yaml", "backend: sim\nmax_batch_size: 4\n");
    for (size_t i = 0; i < sizeof(misfits) / sizeof(misfits[0]); i++) {
        model_bed_ensemble(&bed, misfits[i].name, misfits[i].text);
    }
    model_bed_start_all(&bed);
    for (size_t i = 0; i < sizeof(misfits) / sizeof(misfits[0]); i++) {
        model_bed_expect(&bed, misfits[i].name, misfits[i].sentence);
    }
    assert_false(registry_catalogue(bed.registry, &bed.home)->ready);
}

static void test_a_circle_of_ensembles_is_refused(void **state)
{
    (void)state;
    model_bed_ensemble(&bed, "p", STEPS STEP("q", "x: in", "y: out"));
    model_bed_ensemble(&bed, "q", STEPS STEP("r", "x: in", "y: out"));
    model_bed_ensemble(&bed, "r", STEPS STEP("p", "x: in", "y: out"));
    model_bed_start_all(&bed);
    char *index = model_bed_index(&bed);
    assert_non_null(strstr(index, "is a step of itself"));
    assert_null(strstr(index, "READY"));
    free(index);
}

int main(void)
{
#define TEST(function) MODEL_BED_TEST(function, &bed)
    const struct CMUnitTest tests[] = {
        TEST(test_what_does_not_fit_is_refused_by_name),
        TEST(test_a_circle_of_ensembles_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
