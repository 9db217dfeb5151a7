/*
 * NumPy files: whatever is accepted lies inside the file, and writing it and reading that again
 * gives the same tensor.
 */
#include "fuzz.h"

#include <assert.h>
#include <string.h>

#include "cmd/npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct bytes file = { (const char *)data, size };
    struct weir_tensor tensor = { 0 };
    struct weir_err err = { 0 };
    if (npy_parse(file, &tensor, &err) != WEIR_OK) {
        assert(tensor.data == NULL && err.text[0] != '\0');
        return 0;
    }
    assert((const char *)tensor.data + tensor.size == file.data + file.size);
    struct buffer out;
    buffer_init(&out, size + 1024);
    enum weir_status status = npy_write(&out, &tensor, NULL);
    assert(status == WEIR_OK);
    struct weir_tensor again = { 0 };
    status = npy_parse((struct bytes){ out.data, out.size }, &again, NULL);
    assert(status == WEIR_OK);
    assert(again.dtype == tensor.dtype && again.rank == tensor.rank && again.size == tensor.size);
    assert(memcmp(again.dims, tensor.dims, sizeof again.dims) == 0);
    assert(memcmp(again.data, tensor.data, again.size) == 0);
    buffer_finish(&out);
    return 0;
}
