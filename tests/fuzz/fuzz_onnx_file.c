/*
 * The ONNX reader: any bytes are read or refused, and what is read can be used.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "backend/onnx_file.h"

static void check_value(const struct onnx_value *value)
{
    char text[SHAPE_TEXT];
    if (value->name == NULL || value->shape.rank > TENSOR_RANK_MAX) {
        abort();
    }
    (void)shape_format(&value->shape, text);
    (void)onnx_type_text(value->type);
    (void)onnx_kind_text(value->kind);
}

static void check_file(const struct onnx_file *file)
{
    for (uint32_t i = 0; i < file->input_count; i++) {
        check_value(&file->inputs[i]);
    }
    for (uint32_t i = 0; i < file->output_count; i++) {
        check_value(&file->outputs[i]);
    }
    for (uint32_t i = 0; i < file->external_count; i++) {
        if (strlen(file->externals[i].location) == 0) {
            abort();
        }
    }
    uint64_t parameters = 0;
    for (uint32_t i = 0; i < file->weight_count; i++) {
        parameters += file->weights[i].elements;
    }
    uint64_t nodes = 0;
    for (uint32_t i = 0; i < file->operator_count; i++) {
        nodes += file->operators[i].count;
    }
    if (parameters != file->parameters || nodes != file->node_count) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct onnx_file file = { 0 };
    struct weir_err err = { 0 };
    const struct bytes bytes = { (const char *)data, size };
    const enum weir_status status = onnx_file_read(bytes, &file, &err);
    if (status == WEIR_OK) {
        check_file(&file);
        /* Nothing lies outside the file system's root, least of all beneath a closed folder. */
        if (file.external_count > 0 && onnx_file_check_external(&file, -1, &err) == WEIR_OK) {
            abort();
        }
    } else if (err.text[0] == '\0') {
        abort();
    }
    onnx_file_finish(&file);
    return 0;
}
