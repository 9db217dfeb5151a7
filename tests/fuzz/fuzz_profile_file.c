/*
 * A stored profile: what is accepted is within its ranges, predicts no nonsense, and is written as
 * something that is accepted again.
 */
#include "fuzz.h"

#include <assert.h>
#include <math.h>

#include "engine/profile_file.h"

#define TEXT_BYTES_MAX ((size_t)1 << 20)

static void check(const struct profile_file_shape *at)
{
    struct profile profile = { 0 };
    struct profile_shape shape = at->shape;
    double tau0;
    double alpha;
    uint64_t ns;
    assert(shape.dims.known && shape.dims.count <= PROFILE_DIMS_MAX);
    assert(shape.runs > 0 && shape.rows_seen > 0 && shape.unit > 0);
    shape.key = 7;
    profile_restore(&profile, &shape);
    if (profile_fit(&profile, 7, &tau0, &alpha)) {
        assert(isfinite(tau0) && isfinite(alpha) && tau0 >= 0 && alpha >= 0);
    }
    if (profile_predict_ns(&profile, 7, 1, &ns)) {
        profile_observe(&profile, 7, 1, 1000);
    }
    const uint32_t useful = profile_rows_useful(&profile, 7, 64);
    assert(useful >= 1 && useful <= 64);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct profile_file file;
    struct weir_err err = { 0 };
    const struct bytes text = { (const char *)data, size };
    if (profile_file_read(text, NULL, &file, &err) != WEIR_OK) {
        assert(err.text[0] != '\0');
        return 0;
    }
    assert(file.count <= PROFILE_SHAPES);
    struct profile profile = { 0 };
    for (uint32_t i = 0; i < file.count; i++) {
        check(&file.shapes[i]);
        struct profile_shape shape = file.shapes[i].shape;
        shape.key = i;
        profile_restore(&profile, &shape);
    }
    const struct profile_identity identity = { "m", 1, 2, 3, "cpu", "p", "r" };
    struct buffer out;
    buffer_init(&out, TEXT_BYTES_MAX);
    profile_file_write(&profile, &identity, file.rows, &out);
    assert(!out.failed);
    const struct bytes again = { out.data, out.size };
    assert(profile_file_read(again, &identity, &file, &err) == WEIR_OK);
    buffer_finish(&out);
    return 0;
}
