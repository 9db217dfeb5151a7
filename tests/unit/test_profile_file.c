/* Learned profiles as text: what is written is read again, and nothing else is believed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "engine/bucket.h"
#include "engine/profile_file.h"
#include "engine/profile_store.h"
#include "model_bed.h"
#include "util/file.h"
#include "util/mem.h"

#define TAU0 1880000.0
#define ALPHA 143800.0

static struct tensor_spec input = { "x",   DTYPE_FP32,           { 2, { -1, -1 } },
                                    false, { "batch", "words" }, false };
static const struct signature signature = { .inputs = &input, .input_count = 1 };
static const struct profile_identity identity = { "tagger", 3, 0x9A, 0x2C, "cpu", "Z80", "1.30" };

/* Of two lengths, the second with a cap. */
static void teach(struct model *model)
{
    for (int64_t length = 64; length <= 128; length *= 2) {
        const struct tensor tensor = { .dtype = DTYPE_FP32,
                                       .present = true,
                                       .shape = { 2, { 1, length } } };
        const uint64_t key = bucket_key(model, &tensor);
        struct profile_dims dims;
        bucket_describe(model, &tensor, &dims);
        for (uint64_t i = 0; i < 100; i++) {
            const double ns = (TAU0 + ALPHA * (double)(1 + i % 8)) * (double)length / 64;
            profile_observe(&model->profile, key, 1 + i % 8, (uint64_t)ns);
        }
        profile_name(&model->profile, key, &dims);
        if (length == 128) {
            profile_cap(&model->profile, key, 48);
        }
    }
}

static struct buffer text_of(const struct model *model)
{
    struct buffer text;
    buffer_init(&text, PROFILE_FILE_BYTES_MAX);
    profile_file_write(&model->profile, &identity, PROFILE_ROWS_INDEPENDENT, &text);
    assert_false(text.failed);
    return text;
}

static struct bytes bytes_in(const struct buffer *text)
{
    return (struct bytes){ text->data, text->size };
}

static void test_what_is_written_is_read_again(void **state)
{
    (void)state;
    struct model before = { .signature = &signature };
    struct model after = { .signature = &signature };
    struct profile_file file;
    struct weir_err err = { 0 };
    teach(&before);
    struct buffer text = text_of(&before);
    if (profile_file_read(bytes_in(&text), &identity, &file, &err) != WEIR_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(file.count, 2);
    assert_string_equal(file.rows, PROFILE_ROWS_INDEPENDENT);
    profile_file_apply(&file, &after);
    for (int64_t length = 64; length <= 128; length *= 2) {
        const struct tensor tensor = { .dtype = DTYPE_FP32,
                                       .present = true,
                                       .shape = { 2, { 1, length } } };
        const uint64_t key = bucket_key(&after, &tensor);
        uint64_t expected;
        uint64_t found;
        assert_true(profile_predict_ns(&before.profile, key, 8, &expected));
        assert_true(profile_predict_ns(&after.profile, key, 8, &found));
        assert_in_range(found, expected - 1000, expected + 1000);
        assert_int_equal(profile_rows_cap(&after.profile, key), length == 128 ? 24 : 0);
        assert_int_equal(profile_rows_useful(&after.profile, key, 64),
                         profile_rows_useful(&before.profile, key, 64));
        for (int i = 0; i < 60; i++) { /* What is new is soon believed more. */
            profile_observe(&after.profile, key, 1 + (uint64_t)i % 8,
                            3 * (uint64_t)(TAU0 + ALPHA * (1 + i % 8)));
        }
        assert_true(profile_predict_ns(&after.profile, key, 8, &found));
        assert_true(found > 2 * (uint64_t)(TAU0 + 8 * ALPHA));
    }
    buffer_finish(&text);
}

static void test_a_shape_that_the_model_cannot_have_is_left_out(void **state)
{
    (void)state;
    struct model before = { .signature = &signature };
    struct model other = { .signature = &signature, .rows_fixed = true };
    struct profile_file file;
    teach(&before);
    struct buffer text = text_of(&before);
    assert_int_equal(profile_file_read(bytes_in(&text), &identity, &file, NULL), WEIR_OK);
    profile_file_apply(&file, &other);
    assert_null(profile_next(&other.profile, NULL));
    buffer_finish(&text);
}

static void test_what_is_about_something_else_is_refused(void **state)
{
    (void)state;
    struct model model = { .signature = &signature };
    teach(&model);
    struct buffer text = text_of(&model);
    const struct {
        struct profile_identity identity;
        const char *says;
    } rows[] = {
        { { "parser", 3, 0x9A, 0x2C, "cpu", "Z80", "1.30" }, "model 'tagger', expected 'parser'" },
        { { "tagger", 4, 0x9A, 0x2C, "cpu", "Z80", "1.30" }, "version 3, expected 4" },
        { { "tagger", 3, 0x9B, 0x2C, "cpu", "Z80", "1.30" }, "about other files than" },
        { { "tagger", 3, 0x9A, 0x2D, "cpu", "Z80", "1.30" }, "about other settings than" },
        { { "tagger", 3, 0x9A, 0x2C, "npu", "Z80", "1.30" }, "device 'cpu', expected 'npu'" },
        { { "tagger", 3, 0x9A, 0x2C, "cpu", "6502", "1.30" }, "processor 'Z80'" },
        { { "tagger", 3, 0x9A, 0x2C, "cpu", "Z80", "1.31" }, "runtime '1.30'" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct profile_file file;
        struct weir_err err = { 0 };
        assert_int_equal(profile_file_read(bytes_in(&text), &rows[i].identity, &file, &err),
                         WEIR_ECONFLICT);
        if (strstr(err.text, rows[i].says) == NULL) {
            fail_msg("'%s' does not say '%s'", err.text, rows[i].says);
        }
    }
    buffer_finish(&text);
}

/* The text with `from` replaced once, as a heap string. */
static char *replaced(const struct buffer *text, const char *from, const char *to)
{
    char *copy = calloc(1, text->size + strlen(to) + 1);
    assert_non_null(copy);
    const char *at = memmem(text->data, text->size, from, strlen(from));
    if (at == NULL) {
        fail_msg("no '%s' in %.*s", from, (int)text->size, text->data);
        return copy;
    }
    const size_t before = (size_t)(at - text->data);
    const size_t after = text->size - before - strlen(from);
    memcpy(copy, text->data, before);
    memcpy(copy + before, to, strlen(to));
    memcpy(copy + before + strlen(to), at + strlen(from), after);
    return copy;
}

static void test_broken_texts_are_refused(void **state)
{
    (void)state;
    struct model model = { .signature = &signature };
    teach(&model);
    struct buffer text = text_of(&model);
    static const char *const rows[][3] = {
        { "\"weir-profile\"", "\"weir-other\"", "found format 'weir-other'" },
        { "\"format_version\":2", "\"format_version\":0", "format_version is out of its range" },
        { "\"dims\":[64]", "\"dims\":[-64]", "dims is out of its range" },
        { "\"dims\":[64]", "\"dims\":64", "expected an array" },
        { "\"dims\":[64]", "\"dims\":[1,1,1,1,1,1,1,1,1]", "dims has 9 items" },
        { "\"runs\":100", "\"runs\":-100", "runs" },
        { "\"runs\":100", "\"runs\":0", "runs is out of its range" },
        { "\"runs\":100", "\"runs\":100,\"runs\":100", "found twice" },
        { "\"runs\":100", "\"runs\":100,\"extra\":1", "members, expected" },
        { "\"runs\":100,", "", "runs: missing" },
        { "\"unit\":1", "\"unit\":4294967296", "unit is out of its range" },
        { "\"slack\":", "\"slack\":1", "slack is out of its range" },
        { "\"weight\":", "\"weight\":9", "contradict each other" },
        { "\"row_runs\":[", "\"row_runs\":[1,", "row_runs has 9 items" },
        { "\"row_ns\":[", "\"row_ns\":[-", "row_ns" },
        { "]}\n", "]", "" },
        { "\"model\":\"tagger\"", "\"model\":17", "expected a string" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char *broken = replaced(&text, rows[i][0], rows[i][1]);
        struct profile_file file = { .count = 77 };
        struct weir_err err = { 0 };
        const enum weir_status status = profile_file_read(bytes_of(broken), NULL, &file, &err);
        if (status != WEIR_EINVAL || strstr(err.text, rows[i][2]) == NULL) {
            fail_msg("%s: status %d, '%s' does not say '%s'", rows[i][1], (int)status, err.text,
                     rows[i][2]);
        }
        assert_int_equal(file.count, 77);
        free(broken);
    }
    buffer_finish(&text);
}

/* A text that is cut anywhere is broken, not half a profile. */
static void test_cut_texts_are_refused(void **state)
{
    (void)state;
    struct model model = { .signature = &signature };
    teach(&model);
    struct buffer text = text_of(&model);
    for (size_t size = 0; size + 2 < text.size; size += 7) {
        struct profile_file file;
        char *copy = malloc(size + 1); /* So that a sanitizer sees the end. */
        assert_non_null(copy);
        memcpy(copy, text.data, size);
        assert_int_equal(profile_file_read((struct bytes){ copy, size }, NULL, &file, NULL),
                         WEIR_EINVAL);
        free(copy);
    }
    buffer_finish(&text);
}

static void test_every_allocation_of_reading_may_fail(void **state)
{
    (void)state;
#ifndef WEIR_ALLOC_FAULT
    skip();
#else
    struct model model = { .signature = &signature };
    teach(&model);
    struct buffer text = text_of(&model);
    bool through = false;
    for (uint64_t nth = 1; nth < 200 && !through; nth++) {
        struct profile_file file;
        (void)mem_fault_arm(nth);
        const enum weir_status status = profile_file_read(bytes_in(&text), &identity, &file, NULL);
        (void)mem_fault_arm(0);
        assert_true(status == WEIR_OK || status == WEIR_ENOMEM);
        through = status == WEIR_OK;
    }
    assert_true(through);
    buffer_finish(&text);
#endif
}

/* ---- In a repository ------------------------------------------------------------------------- */

static struct model_bed bed;
static char own_folder[] = "/tmp/weir-profiles-XXXXXX";

static int set_up(void **state)
{
    (void)state;
    model_bed_init(&bed);
    bed.options.control = CONTROL_ALL;
    bed.options.profile_store = PROFILE_STORE_MODEL;
    model_bed_sim(&bed, "m", 1, "  alpha: 100us\n");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    model_bed_finish(&bed);
    return 0;
}

static void start(void)
{
    model_bed_start(&bed);
    model_bed_settle(&bed);
}

static uint64_t runs_known(void)
{
    struct profile profile;
    struct model *model = model_bed_lease(&bed, "m", 1);
    engine_profile(model, &profile);
    model_bed_release(&bed, model);
    const struct profile_shape *shape = profile_next(&profile, NULL);
    return shape == NULL ? 0 : shape->runs;
}

static void infer(int count)
{
    for (int i = 0; i < count; i++) {
        assert_int_equal(model_bed_infer(&bed, "m", 1), WEIR_OK);
    }
}

static const char *copy(const char *said)
{
    static char text[1024];
    (void)snprintf(text, sizeof(text), "%s", said == NULL ? "" : said);
    return text;
}

/* What somebody should look at, */
static const char *remark(void)
{
    struct model *model = model_bed_lease(&bed, "m", 1);
    const char *text = copy(model->config->remark);
    model_bed_release(&bed, model);
    return text;
}

/* and what is said by the way. */
static const char *note(void)
{
    struct model *model = model_bed_lease(&bed, "m", 1);
    const char *text = copy(model->config->note);
    model_bed_release(&bed, model);
    return text;
}

static bool is_there(const char *path)
{
    char full[512];
    (void)snprintf(full, sizeof(full), "%s/%s", bed.folders[0], path);
    return access(full, F_OK) == 0;
}

static void test_it_survives_a_restart(void **state)
{
    (void)state;
    start();
    const uint64_t first = runs_known();
    infer(10);
    assert_int_equal(runs_known(), first + 10);
    model_bed_stop(&bed);
    assert_true(is_there("m/.weir-profile.1.json"));
    start();
    assert_string_equal(remark(), "");
    assert_int_equal(runs_known(), first + 10);
    model_bed_stop(&bed);
}

static void test_it_can_be_off(void **state)
{
    (void)state;
    bed.options.profile_store = PROFILE_STORE_OFF;
    start();
    const uint64_t first = runs_known();
    infer(10);
    model_bed_stop(&bed);
    assert_false(is_there("m/.weir-profile.1.json"));
    start();
    assert_int_equal(runs_known(), first);
    model_bed_stop(&bed);
}

static void test_it_can_lie_elsewhere(void **state)
{
    (void)state;
    char path[128];
    assert_non_null(mkdtemp(own_folder));
    bed.options.profile_store = own_folder;
    start();
    infer(10);
    const uint64_t known = runs_known();
    model_bed_stop(&bed);
    assert_false(is_there("m/.weir-profile.1.json"));
    start();
    assert_int_equal(runs_known(), known);
    model_bed_stop(&bed);
    (void)snprintf(path, sizeof(path), "%s/m.1.json", own_folder);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(own_folder), 0); /* And nothing else is left there. */
}

static void test_it_is_written_while_the_server_runs(void **state)
{
    (void)state;
    bed.options.profile_save_ns = 1000000;
    start();
    infer(3);
    const time_t until = time(NULL) + 20;
    while (!is_there("m/.weir-profile.1.json") && time(NULL) < until) {
        infer(1); /* The manager has a turn meanwhile. */
    }
    assert_true(is_there("m/.weir-profile.1.json"));
    assert_int_equal(model_bed_order(&bed, REGISTRY_REFRESH, NULL, NULL, NULL), WEIR_OK);
    model_bed_stop(&bed);
}

static void test_a_broken_one_is_told_and_replaced(void **state)
{
    (void)state;
    model_bed_put(&bed, 0, "m/.weir-profile.1.json", "{\"format\": \"weir-profile\"");
    start();
    assert_non_null(strstr(remark(), "the stored profile is not used: .weir-profile.1.json: "));
    infer(10);
    const uint64_t known = runs_known();
    model_bed_stop(&bed);
    start();
    assert_string_equal(remark(), "");
    assert_int_equal(runs_known(), known);
    model_bed_stop(&bed);
}

static void test_that_of_another_model_is_told(void **state)
{
    (void)state;
    start();
    infer(10);
    model_bed_stop(&bed);
    model_bed_sim(&bed, "m", 1, "  alpha: 900us\n"); /* Not the same model any more. */
    start();
    assert_string_equal(remark(), "");
    assert_non_null(strstr(note(), "it is about other settings than the model has now"));
    assert_true(runs_known() < 10);
    model_bed_stop(&bed);
}

static void test_a_link_in_its_place_is_not_followed(void **state)
{
    (void)state;
    char target[512];
    char link[512];
    struct buffer text = { 0 };
    model_bed_put(&bed, 0, "precious", "precious");
    (void)snprintf(target, sizeof(target), "%s/precious", bed.folders[0]);
    (void)snprintf(link, sizeof(link), "%s/m/.weir-profile.1.json", bed.folders[0]);
    assert_int_equal(symlink(target, link), 0);
    start();
    infer(10);
    model_bed_stop(&bed);
    assert_int_equal(file_read(AT_FDCWD, target, 100, &text, NULL), WEIR_OK);
    assert_int_equal(text.size, 8);
    buffer_finish(&text);
    struct stat info;
    assert_int_equal(lstat(link, &info), 0);
    assert_true(S_ISREG(info.st_mode));
}

static void test_it_is_no_change_of_the_model(void **state)
{
    (void)state;
    start();
    uint64_t before;
    uint64_t after;
    uint64_t bytes;
    const int fd = open(bed.folders[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(file_fingerprint(fd, &before, &bytes, NULL), WEIR_OK);
    infer(3);
    model_bed_stop(&bed);
    assert_true(is_there("m/.weir-profile.1.json"));
    assert_int_equal(file_fingerprint(fd, &after, &bytes, NULL), WEIR_OK);
    assert_true(before == after);
    (void)close(fd);
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_is_read_again),
        cmocka_unit_test(test_a_shape_that_the_model_cannot_have_is_left_out),
        cmocka_unit_test(test_what_is_about_something_else_is_refused),
        cmocka_unit_test(test_broken_texts_are_refused),
        cmocka_unit_test(test_cut_texts_are_refused),
        cmocka_unit_test(test_every_allocation_of_reading_may_fail),
        CASE(test_it_survives_a_restart),
        CASE(test_it_can_be_off),
        CASE(test_it_can_lie_elsewhere),
        CASE(test_it_is_written_while_the_server_runs),
        CASE(test_a_broken_one_is_told_and_replaced),
        CASE(test_that_of_another_model_is_told),
        CASE(test_a_link_in_its_place_is_not_followed),
        CASE(test_it_is_no_change_of_the_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
