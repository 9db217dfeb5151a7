/*
 * NumPy files: whatever is accepted lies inside the file, and writing it and reading that again
 * gives the same tensor.
 */
#include "fuzz.h"

#include <assert.h>

#include "cmd/npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct bytes file = { (const char *)data, size };
    struct npy npy = { 0 };
    struct weir_err err = { 0 };
    if (npy_parse(file, &npy, &err) != WEIR_OK) {
        assert(npy.data.data == NULL && err.text[0] != '\0');
        return 0;
    }
    assert(npy.data.data + npy.data.size == file.data + file.size);
    struct buffer out;
    buffer_init(&out, size + 1024);
    enum weir_status status = npy_write(&out, npy.dtype, &npy.shape, npy.data, NULL);
    assert(status == WEIR_OK);
    struct npy again = { 0 };
    status = npy_parse((struct bytes){ out.data, out.size }, &again, NULL);
    assert(status == WEIR_OK);
    assert(again.dtype == npy.dtype && shape_equal(&again.shape, &npy.shape));
    assert(bytes_equal(again.data, npy.data));
    buffer_finish(&out);
    return 0;
}
