#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "backend/onnx_file.h"
#include "util/file.h"
#include "util/mem.h"

static struct file_map map_of(const char *path)
{
    const int root_fd = open(getenv("WEIR_TEST_DATA"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(root_fd >= 0);
    struct file_map map = { 0 };
    assert_int_equal(file_map_open(root_fd, path, &map, NULL), WEIR_OK);
    close(root_fd);
    return map;
}

static enum weir_status read_path(const char *path, struct onnx_file *out, struct weir_err *err)
{
    struct file_map map = map_of(path);
    const struct bytes data = { (const char *)map.data, map.size };
    const enum weir_status status = onnx_file_read(data, out, err);
    file_map_close(&map); /* Nothing of `out` may point into it. */
    return status;
}

static struct onnx_file read_model(const char *name)
{
    char path[256];
    struct onnx_file file = { 0 };
    struct weir_err err = { 0 };
    snprintf(path, sizeof(path), "models/%s/1/model.onnx", name);
    if (read_path(path, &file, &err) != WEIR_OK) {
        fail_msg("%s: %s", name, err.text);
    }
    return file;
}

static void test_a_model_is_described(void **state)
{
    (void)state;
    struct onnx_file file = read_model("gather");
    assert_int_equal(file.ir_version, 8);
    assert_string_equal(file.producer, "weir-tests");
    assert_string_equal(file.graph_name, "g");
    assert_int_equal(file.opset_count, 1);
    assert_string_equal(file.opsets[0].domain, "");
    assert_int_equal(file.opsets[0].version, 17);

    assert_int_equal(file.input_count, 1);
    assert_string_equal(file.inputs[0].name, "index");
    assert_int_equal(file.inputs[0].kind, ONNX_KIND_TENSOR);
    assert_string_equal(onnx_type_text(file.inputs[0].type), "INT64");
    assert_true(file.inputs[0].has_shape);
    assert_true(shape_equal(&file.inputs[0].shape, &(struct shape){ 1, { -1 } }));
    assert_string_equal(file.inputs[0].dim_names[0], "batch");
    assert_int_equal(file.output_count, 1);
    assert_string_equal(file.outputs[0].name, "y");

    assert_int_equal(file.weight_count, 1);
    assert_string_equal(file.weights[0].name, "table");
    assert_int_equal(file.weights[0].elements, 10);
    assert_int_equal(file.weights[0].bytes, 40);
    assert_false(file.weights[0].external);
    assert_int_equal(file.parameters, 10);
    assert_int_equal(file.parameter_bytes, 40);

    assert_int_equal(file.node_count, 1);
    assert_int_equal(file.operator_count, 1);
    assert_string_equal(file.operators[0].name, "Gather");
    onnx_file_finish(&file);
}

static void test_shapes_are_fixed_variable_or_unknown(void **state)
{
    (void)state;
    struct onnx_file file = read_model("fixed");
    assert_true(shape_equal(&file.inputs[0].shape, &(struct shape){ 2, { 2, 3 } }));
    onnx_file_finish(&file);

    file = read_model("unnamed_batch");
    assert_true(shape_equal(&file.inputs[0].shape, &(struct shape){ 2, { -1, 16 } }));
    assert_null(file.inputs[0].dim_names[0]);
    onnx_file_finish(&file);

    file = read_model("any_rank");
    assert_false(file.inputs[0].has_shape);
    onnx_file_finish(&file);

    file = read_model("scalar");
    assert_true(file.inputs[0].has_shape);
    assert_int_equal(file.inputs[0].shape.rank, 0);
    onnx_file_finish(&file);
}

static void test_kinds_are_told_apart(void **state)
{
    (void)state;
    struct onnx_file file = read_model("takes_sequence");
    assert_int_equal(file.inputs[0].kind, ONNX_KIND_SEQUENCE);
    assert_false(file.inputs[0].has_shape);
    onnx_file_finish(&file);

    file = read_model("gives_optional");
    assert_int_equal(file.outputs[0].kind, ONNX_KIND_OPTIONAL);
    onnx_file_finish(&file);
}

static void test_initialized_inputs_are_no_inputs(void **state)
{
    (void)state;
    struct onnx_file file = read_model("overridable");
    assert_int_equal(file.input_count, 1);
    assert_string_equal(file.inputs[0].name, "x");
    onnx_file_finish(&file);
}

static void test_operators_of_subgraphs_count(void **state)
{
    (void)state;
    struct onnx_file file = read_model("loop");
    assert_int_equal(file.node_count, 3);
    assert_int_equal(file.operator_count, 3);
    assert_string_equal(file.operators[0].name, "Add");
    assert_string_equal(file.operators[1].name, "Identity");
    assert_string_equal(file.operators[2].name, "Loop");
    /* The body's own inputs and outputs are not the model's. */
    assert_int_equal(file.input_count, 1);
    assert_int_equal(file.output_count, 1);
    onnx_file_finish(&file);
}

static void test_what_is_bounded(void **state)
{
    (void)state;
    static const struct {
        const char *model;
        bool bounded;
    } cases[] = {
        { "identity_fp32", true }, { "center", true },   { "reshape", true },
        { "upscale", true },       { "loop", false },    { "fill", false },
        { "expand", false },       { "nonzero", false }, { "select", false },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct onnx_file file = read_model(cases[i].model);
        if (file.bounded != cases[i].bounded) {
            fail_msg("%s", cases[i].model);
        }
        onnx_file_finish(&file);
    }
}

static void test_external_data_is_listed(void **state)
{
    (void)state;
    struct onnx_file file = read_model("external");
    assert_int_equal(file.external_count, 1);
    assert_string_equal(file.externals[0].tensor, "w");
    assert_string_equal(file.externals[0].location, "weights.bin");
    assert_int_equal(file.externals[0].offset, 8);
    assert_int_equal(file.externals[0].length, 16);
    assert_int_equal(file.externals[0].bytes, 16);
    assert_true(file.weights[0].external);
    onnx_file_finish(&file);
}

/* --- Hostile files ---------------------------------------------------------------------------- */

static void test_damaged_files_are_refused(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        { "empty", "no graph" },
        { "no_graph", "no graph" },
        { "text", "malformed protobuf" },
        { "truncated", "malformed protobuf" },
        { "two_graphs", "field 7 is given twice" },
        { "deep_graphs", "nested deeper than 100" },
        { "huge_dims", "needs 4398046511104 bytes" },
        { "overflowing_dims", "more than 1099511627776 elements" },
        { "negative", "no valid offset" },
        { "nameless", "no valid location" },
        { "location_nul", "no valid location" },
        { "location_twice", "a key twice" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char path[256];
        struct onnx_file file = { 0 };
        struct weir_err err = { 0 };
        snprintf(path, sizeof(path), "hostile/%s.onnx", cases[i][0]);
        assert_int_equal(read_path(path, &file, &err), WEIR_EINVAL);
        if (strstr(err.text, cases[i][1]) == NULL) {
            fail_msg("%s: '%s' lacks '%s'", cases[i][0], err.text, cases[i][1]);
        }
        assert_null(file.inputs);
    }
}

/* A folder with the good weights file, and around it everything a path could lead astray to. */
struct trap {
    char root[64];
    char folder[96];
    int folder_fd;
};

static void write_file(const char *folder, const char *name)
{
    char path[256];
    static const uint8_t bytes[24];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    assert_int_equal(file_write(path, bytes, sizeof(bytes), NULL), WEIR_OK);
}

static void link_file(const struct trap *trap, const char *target, const char *name, bool hard)
{
    char from[256];
    char to[256];
    snprintf(from, sizeof(from), "%s/%s", trap->folder, target);
    snprintf(to, sizeof(to), "%s/%s", trap->folder, name);
    assert_int_equal(hard ? link(from, to) : symlink(target, to), 0);
}

static struct trap set_trap(void)
{
    struct trap trap = { .root = "/tmp/weir-test-XXXXXX" };
    assert_non_null(mkdtemp(trap.root));
    snprintf(trap.folder, sizeof(trap.folder), "%s/model", trap.root);
    assert_int_equal(mkdir(trap.folder, 0755), 0);
    char inner[128];
    snprintf(inner, sizeof(inner), "%s/inner", trap.folder);
    assert_int_equal(mkdir(inner, 0755), 0);
    write_file(trap.root, "weights.bin");
    write_file(trap.folder, "weights.bin");
    write_file(trap.folder, "inner/weights.bin");
    link_file(&trap, "../weights.bin", "soft", false);
    link_file(&trap, "weights.bin", "soft_inside", false);
    link_file(&trap, "..", "up", false);
    link_file(&trap, "../weights.bin", "hard", true);
    trap.folder_fd = open(trap.folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(trap.folder_fd >= 0);
    return trap;
}

static void clear_trap(struct trap *trap)
{
    static const char *const names[] = {
        "inner/weights.bin", "inner",         "soft", "soft_inside", "up", "hard",
        "weights.bin",       "../weights.bin"
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        assert_int_equal(
            unlinkat(trap->folder_fd, names[i], strcmp(names[i], "inner") == 0 ? AT_REMOVEDIR : 0),
            0);
    }
    close(trap->folder_fd);
    assert_int_equal(rmdir(trap->folder), 0);
    assert_int_equal(rmdir(trap->root), 0);
}

static void test_external_data_stays_in_the_folder(void **state)
{
    (void)state;
    struct trap trap = set_trap();
    static const struct {
        const char *location;
        enum weir_status status;
        const char *part;
    } cases[] = {
        { "weights.bin", WEIR_OK, "" },
        { "./weights.bin", WEIR_OK, "" },
        { "inner/weights.bin", WEIR_OK, "" },
        { "inner//weights.bin", WEIR_OK, "" },
        { "../weights.bin", WEIR_EINVAL, "leaves the model's folder" },
        { "inner/../../weights.bin", WEIR_EINVAL, "leaves the model's folder" },
        { "inner/..", WEIR_EINVAL, "leaves the model's folder" },
        { "/etc/hostname", WEIR_EINVAL, "not a relative path" },
        { "..\\weights.bin", WEIR_EINVAL, "not a relative path" },
        { "soft", WEIR_EINVAL, "is a link" },
        { "soft_inside", WEIR_EINVAL, "is a link" },
        { "up/weights.bin", WEIR_EINVAL, "through a link" },
        { "hard", WEIR_EINVAL, "hard link" },
        { "inner", WEIR_EINVAL, "not a regular file" },
        { "inner/", WEIR_EINVAL, "not a regular file" },
        { "weights.bin/x", WEIR_EINVAL, "no folder" },
        { "nothing.bin", WEIR_ENOENT, "not there" },
        { "*/_ORT_MEM_ADDR_/*", WEIR_EINVAL, "memory address" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct onnx_external item = { "w", cases[i].location, 8, 16, 16 };
        const struct onnx_file file = { .externals = &item, .external_count = 1 };
        struct weir_err err = { 0 };
        const enum weir_status status = onnx_file_check_external(&file, trap.folder_fd, &err);
        if (status != cases[i].status || strstr(err.text, cases[i].part) == NULL) {
            fail_msg("%s: %s, '%s'", cases[i].location, weir_status_name(status), err.text);
        }
    }
    clear_trap(&trap);
}

static void test_external_data_is_long_enough(void **state)
{
    (void)state;
    struct trap trap = set_trap();
    static const struct {
        uint64_t offset;
        uint64_t length;
        uint64_t bytes;
        enum weir_status status;
    } cases[] = {
        { 0, 0, 24, WEIR_OK },
        { 8, 16, 16, WEIR_OK },
        { 0, 0, 25, WEIR_EINVAL },
        { 9, 16, 16, WEIR_EINVAL },
        { 8, 12, 16, WEIR_EINVAL },
        { UINT64_MAX, 0, 16, WEIR_EINVAL },
        { 0, 0, UINT64_MAX, WEIR_EINVAL },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct onnx_external item = { "w", "weights.bin", cases[i].offset, cases[i].length,
                                      cases[i].bytes };
        const struct onnx_file file = { .externals = &item, .external_count = 1 };
        assert_int_equal(onnx_file_check_external(&file, trap.folder_fd, NULL), cases[i].status);
    }
    clear_trap(&trap);
}

/* Wherever in the file a tensor may stand, its external data is found. */
static void test_external_data_cannot_hide(void **state)
{
    (void)state;
    struct trap trap = set_trap();
    static const char *const names[] = { "dotdot",          "inner_dotdot",       "constant",
                                         "sparse_constant", "sparse_initializer", "subgraph" };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char path[256];
        struct onnx_file file = { 0 };
        struct weir_err err = { 0 };
        snprintf(path, sizeof(path), "hostile/%s.onnx", names[i]);
        assert_int_equal(read_path(path, &file, NULL), WEIR_OK);
        assert_true(file.external_count >= 1);
        assert_int_equal(onnx_file_check_external(&file, trap.folder_fd, &err), WEIR_EINVAL);
        assert_non_null(strstr(err.text, "leaves the model's folder"));
        onnx_file_finish(&file);
    }
    clear_trap(&trap);
}

/* Cut anywhere and with any byte changed, a file is read or refused, never overrun. */
static void test_no_damage_is_fatal(void **state)
{
    (void)state;
    struct file_map map = map_of("models/loop/1/model.onnx");
    for (size_t size = 0; size < map.size; size++) {
        char *copy = malloc(size + 1);
        memcpy(copy, map.data, size);
        struct onnx_file file = { 0 };
        const enum weir_status cut = onnx_file_read((struct bytes){ copy, size }, &file, NULL);
        assert_true(cut == WEIR_OK || cut == WEIR_EINVAL);
        onnx_file_finish(&file);
        free(copy);
    }
    char *copy = malloc(map.size);
    for (size_t at = 0; at < map.size; at++) {
        for (unsigned change = 1; change < 256; change += change < 8 ? 1 : 31) {
            memcpy(copy, map.data, map.size);
            copy[at] = (char)(copy[at] ^ (char)change);
            struct onnx_file file = { 0 };
            const enum weir_status status =
                onnx_file_read((struct bytes){ copy, map.size }, &file, NULL);
            assert_true(status == WEIR_OK || status == WEIR_EINVAL);
            onnx_file_finish(&file);
        }
    }
    free(copy);
    file_map_close(&map);
}

static void test_memory_running_out_is_reported(void **state)
{
    (void)state;
#ifdef WEIR_ALLOC_FAULT
    struct file_map map = map_of("models/loop/1/model.onnx");
    const struct bytes data = { (const char *)map.data, map.size };
    enum weir_status status = WEIR_ENOMEM;
    for (uint64_t nth = 1; status != WEIR_OK; nth++) {
        struct onnx_file file = { 0 };
        mem_fault_arm(nth);
        status = onnx_file_read(data, &file, NULL);
        mem_fault_arm(0);
        assert_true(status == WEIR_OK || status == WEIR_ENOMEM);
        assert_true(nth < 200);
        onnx_file_finish(&file);
    }
    file_map_close(&map);
#else
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_model_is_described),
        cmocka_unit_test(test_shapes_are_fixed_variable_or_unknown),
        cmocka_unit_test(test_kinds_are_told_apart),
        cmocka_unit_test(test_initialized_inputs_are_no_inputs),
        cmocka_unit_test(test_operators_of_subgraphs_count),
        cmocka_unit_test(test_what_is_bounded),
        cmocka_unit_test(test_external_data_is_listed),
        cmocka_unit_test(test_damaged_files_are_refused),
        cmocka_unit_test(test_external_data_stays_in_the_folder),
        cmocka_unit_test(test_external_data_is_long_enough),
        cmocka_unit_test(test_external_data_cannot_hide),
        cmocka_unit_test(test_no_damage_is_fatal),
        cmocka_unit_test(test_memory_running_out_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
