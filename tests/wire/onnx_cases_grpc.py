"""The ONNX cases by gRPC, with raw and with typed contents."""

import numpy as np
from tritonclient.grpc import service_pb2 as pb

import onnx_cases
from onnx_writer import field

# The field of InferTensorContents that a type's values come in.
CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}

PACKED = {"FP32": 6, "FP64": 7}  # Their fields' numbers.


def contents_of(tensor):
    """A message of contents.  Floats are packed by hand: through Python they would lose the bits of
    a signaling NaN."""
    if tensor.kind.name in PACKED:
        packed = field(PACKED[tensor.kind.name], tensor.to_bytes())
        return pb.InferTensorContents.FromString(packed)
    made = pb.InferTensorContents()
    getattr(made, CONTENTS[tensor.kind.name]).extend(tensor.values.ravel().tolist())
    return made


def encode(case, inputs, outputs, typed):
    """Typed contents where all types have them: a request's tensors are all typed or all raw."""
    request = pb.ModelInferRequest(model_name=case.model)
    typed = typed and all(tensor.kind.name in CONTENTS for tensor in inputs)
    for tensor in inputs:
        shape = list(tensor.values.shape)
        entry = request.inputs.add(name=tensor.name, datatype=tensor.kind.name, shape=shape)
        if typed:
            entry.contents.CopyFrom(contents_of(tensor))
        else:
            request.raw_input_contents.append(tensor.to_bytes())
    for tensor in outputs:
        request.outputs.add(name=tensor.name)
    return request


def decode(response):
    out = []
    for entry, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        kind = onnx_cases.TYPES_BY_NAME[entry.datatype]
        listed = (
            onnx_cases.strings(raw) if kind.name == "BYTES" else np.frombuffer(raw, kind.dtype)
        )
        values = np.array(listed, kind.dtype)
        out.append(onnx_cases.Tensor(entry.name, kind, values.reshape(list(entry.shape))))
    return out
