#!/usr/bin/env python3
"""Writes the tiny ONNX models of the tests: models/NAME/1/model.onnx and hostile/NAME.onnx.

    pip install onnx numpy && tests/data/make_models.py

The results are committed; run this only to change them.
"""
import os

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

HERE = os.path.dirname(os.path.abspath(__file__))
OPSET = 17

TYPES = {
    "bool": T.BOOL, "uint8": T.UINT8, "uint16": T.UINT16, "uint32": T.UINT32, "uint64": T.UINT64,
    "int8": T.INT8, "int16": T.INT16, "int32": T.INT32, "int64": T.INT64, "fp16": T.FLOAT16,
    "fp64": T.DOUBLE, "bf16": T.BFLOAT16, "bytes": T.STRING,
}


def info(name, kind, shape):
    return h.make_tensor_value_info(name, kind, shape)


def model(nodes, inputs, outputs, weights=(), **settings):
    graph = h.make_graph(nodes, "g", inputs, outputs, list(weights))
    made = h.make_model(graph, opset_imports=[h.make_opsetid("", settings.get("opset", OPSET))],
                        producer_name="weir-tests")
    made.ir_version = settings.get("ir", 8)
    return made


def weight(name, values, dtype):
    return numpy_helper.from_array(np.array(values, dtype=dtype), name)


def write(path, data):
    path = os.path.join(HERE, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data if isinstance(data, bytes) else data.SerializeToString())


def put(name, made):
    write(f"models/{name}/1/model.onnx", made)


def identity(kind, shape, **settings):
    return model([h.make_node("Identity", ["x"], ["y"])], [info("x", kind, shape)],
                 [info("y", kind, shape)], **settings)


def plain():
    put("identity_fp32", identity(T.FLOAT, ["batch", 16]))
    for name, kind in TYPES.items():
        put(f"identity_{name}", identity(kind, ["batch", 4], opset=21, ir=10))
    put("unnamed_batch", identity(T.FLOAT, [None, 16]))
    put("fixed", identity(T.FLOAT, [2, 3]))
    put("dynamic", identity(T.FLOAT, ["batch", "height", "width"]))
    put("words", model(
        [h.make_node("Mul", ["x", "mask"], ["y"]),
         h.make_node("ReduceSum", ["y", "axes"], ["total"], keepdims=0)],
        [info("x", T.FLOAT, ["batch", "words"]), info("mask", T.FLOAT, ["batch", "words"])],
        [info("y", T.FLOAT, ["batch", "words"]), info("total", T.FLOAT, ["batch"])],
        [weight("axes", [1], np.int64)]))
    put("add_sub", model(
        [h.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
         h.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"])],
        [info(f"INPUT{i}", T.INT32, ["batch", 16]) for i in (0, 1)],
        [info(f"OUTPUT{i}", T.INT32, ["batch", 16]) for i in (0, 1)]))
    put("scalar", model([h.make_node("Add", ["x", "one"], ["y"])], [info("x", T.FLOAT, [])],
                        [info("y", T.FLOAT, [])], [weight("one", 1, np.float32)]))
    put("double_it", model([h.make_node("Mul", ["x", "two"], ["y"])],
                           [info("x", T.FLOAT, ["batch", 4])], [info("y", T.FLOAT, ["batch", 4])],
                           [weight("two", [2], np.float32)]))
    put("overridable", model([h.make_node("Mul", ["x", "factor"], ["y"])],
                             [info("x", T.FLOAT, ["batch", 4]), info("factor", T.FLOAT, [1])],
                             [info("y", T.FLOAT, ["batch", 4])],
                             [weight("factor", [3], np.float32)]))
    put("any_rank", model([h.make_node("Relu", ["x"], ["y"])],
                          [h.make_tensor_value_info("x", T.FLOAT, None)],
                          [h.make_tensor_value_info("y", T.FLOAT, None)]))
    put("input_is_output", model([h.make_node("Neg", ["x"], ["z"])],
                                 [info("x", T.FLOAT, ["batch", 4])],
                                 [info("x", T.FLOAT, ["batch", 4]),
                                  info("z", T.FLOAT, ["batch", 4])]))
    put("constant_output", model([h.make_node("Neg", ["x"], ["y"])],
                                 [info("x", T.FLOAT, ["batch", 4])],
                                 [info("y", T.FLOAT, ["batch", 4]), info("c", T.FLOAT, [3])],
                                 [weight("c", [1, 2, 3], np.float32)]))
    put("join", model([h.make_node("Concat", ["a", "b"], ["y"], axis=0)],
                      [info("a", T.FLOAT, ["n", 2]), info("b", T.FLOAT, ["m", 2])],
                      [info("y", T.FLOAT, ["k", 2])]))
    put("lying_names", model([h.make_node("Concat", ["x", "x"], ["y"], axis=0)],
                             [info("x", T.FLOAT, [None, 2])], [info("y", T.FLOAT, [None, 2])]))
    put("select", model([h.make_node("Compress", ["x", "keep"], ["y"], axis=0)],
                        [info("x", T.FLOAT, [None, 2]), info("keep", T.BOOL, [None])],
                        [info("y", T.FLOAT, [None, 2])]))
    put("center", model([h.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
                         h.make_node("Sub", ["x", "m"], ["y"])],
                        [info("x", T.FLOAT, ["batch", 4])], [info("y", T.FLOAT, ["batch", 4])]))
    put("nonzero", model([h.make_node("NonZero", ["x"], ["y"])],
                         [info("x", T.FLOAT, ["batch", 4])], [info("y", T.INT64, [2, "found"])]))
    put("upscale", model(
        [h.make_node("Shape", ["x"], ["s"]), h.make_node("Mul", ["s", "f"], ["t"]),
         h.make_node("Expand", ["x", "t"], ["y"])],
        [info("x", T.FLOAT, ["batch", 1])], [info("y", T.FLOAT, ["batch", 5])],
        [weight("f", [1, 5], np.int64)]))


def sequences():
    """Models that keep a state between requests; what it is, is the engine's business."""
    controls = [info(name, T.INT32, ["batch", 1]) for name in ("start", "ready", "end")]
    put("accumulate", model(
        [h.make_node("Add", ["state", "x"], ["sum"]), h.make_node("Identity", ["sum"], ["state_out"]),
         h.make_node("Concat", ["start", "ready", "end"], ["flags"], axis=1),
         h.make_node("Identity", ["corrid"], ["id"])],
        [info("x", T.INT32, ["batch", 1]), *controls, info("corrid", T.UINT64, ["batch", 1]),
         info("state", T.INT32, ["batch", 1])],
        [info("sum", T.INT32, ["batch", 1]), info("flags", T.INT32, ["batch", 3]),
         info("id", T.UINT64, ["batch", 1]), info("state_out", T.INT32, ["batch", 1])]))
    put("remember", model(
        [h.make_node("Concat", ["past", "x"], ["all"], axis=0),
         h.make_node("Identity", ["all"], ["past_out"]), h.make_node("Identity", ["name"], ["id"])],
        [info("x", T.FLOAT, [1]), info("name", T.STRING, [1]), info("past", T.FLOAT, ["n"])],
        [info("all", T.FLOAT, ["m"]), info("id", T.STRING, [1]), info("past_out", T.FLOAT, ["m"])]))


def faults():
    put("gather", model([h.make_node("Gather", ["table", "index"], ["y"])],
                        [info("index", T.INT64, ["batch"])], [info("y", T.FLOAT, ["batch"])],
                        [weight("table", range(10), np.float32)]))
    put("div", model([h.make_node("Div", ["a", "b"], ["y"])],
                     [info("a", T.INT32, ["batch"]), info("b", T.INT32, ["batch"])],
                     [info("y", T.INT32, ["batch"])]))
    body = h.make_graph(
        [h.make_node("Add", ["sum", "i"], ["sum_out"]), h.make_node("Identity", ["go"], ["go_out"])],
        "body", [info("i", T.INT64, []), info("go", T.BOOL, []), info("sum", T.INT64, [])],
        [info("go_out", T.BOOL, []), info("sum_out", T.INT64, [])])
    put("loop", model([h.make_node("Loop", ["count", "", "zero"], ["y"], body=body)],
                      [info("count", T.INT64, [])], [info("y", T.INT64, [])],
                      [weight("zero", 0, np.int64)]))
    put("fill", model([h.make_node("ConstantOfShape", ["shape"], ["big"],
                                   value=h.make_tensor("v", T.FLOAT, [1], [1.0])),
                       h.make_node("ReduceSum", ["big"], ["y"], keepdims=0)],
                      [info("shape", T.INT64, [1])], [info("y", T.FLOAT, [])]))
    put("expand", model([h.make_node("Expand", ["one", "shape"], ["y"])],
                        [info("shape", T.INT64, [1])], [info("y", T.FLOAT, ["n"])],
                        [weight("one", [1], np.float32)]))
    put("reshape", model([h.make_node("Reshape", ["x", "shape"], ["y"])],
                         [info("x", T.FLOAT, ["n"]), info("shape", T.INT64, [2])],
                         [info("y", T.FLOAT, ["a", "b"])]))


def refused():
    put("takes_sequence", model(
        [h.make_node("SequenceAt", ["list", "zero"], ["y"])],
        [h.make_tensor_sequence_value_info("list", T.FLOAT, [4])], [info("y", T.FLOAT, [4])],
        [weight("zero", 0, np.int64)]))
    optional = h.make_optional_type_proto(h.make_tensor_type_proto(T.FLOAT, [4]))
    put("gives_optional", model(
        [h.make_node("Optional", ["x"], ["maybe"])],
        [info("x", T.FLOAT, [4])], [h.make_value_info("maybe", optional)]))
    put("float8", identity(T.FLOAT8E4M3FN, ["batch", 4], opset=21, ir=10))


def with_external(location, offset=None, length=None, kind=T.FLOAT):
    tensor = T(name="w", data_type=kind, dims=[4], data_location=T.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    return tensor


def adds(tensor):
    return model([h.make_node("Add", ["x", "w"], ["y"])], [info("x", T.FLOAT, ["batch", 4])],
                 [info("y", T.FLOAT, ["batch", 4])], [tensor])


def external():
    put("external", adds(with_external("weights.bin", 8, 16)))
    write("models/external/1/weights.bin",
          b"\xff" * 8 + np.array([10, 20, 30, 40], np.float32).tobytes())
    for name, tensor in {
            "dotdot": with_external("../weights.bin", 8, 16),
            "inner_dotdot": with_external("a/../../weights.bin", 8, 16),
            "absolute": with_external("/etc/hostname", 0, 4),
            "marker": with_external("*/_ORT_MEM_ADDR_/*", 1234, 16),
            "short": with_external("weights.bin", 12, 16),
            "negative": with_external("weights.bin", -8, 16),
            "overflow": with_external("weights.bin", 2**63 - 4, 16),
            "wrong_length": with_external("weights.bin", 8, 12),
            "missing": with_external("nothing.bin", 0, 16),
            "nameless": with_external(None, 0, 16)}.items():
        write(f"hostile/{name}.onnx", adds(tensor))

    twice = with_external("weights.bin", 8, 16)
    twice.external_data.add(key="location", value="../weights.bin")
    write("hostile/location_twice.onnx", adds(twice))
    nul = with_external("weights.bin\0/../../x", 8, 16)
    write("hostile/location_nul.onnx", adds(nul))

    constant = h.make_node("Constant", [], ["w"], value=with_external("../weights.bin", 8, 16))
    write("hostile/constant.onnx", model(
        [constant, h.make_node("Add", ["x", "w"], ["y"])], [info("x", T.FLOAT, ["batch", 4])],
        [info("y", T.FLOAT, ["batch", 4])]))

    sparse = onnx.SparseTensorProto(dims=[4])
    sparse.values.CopyFrom(with_external("../weights.bin", 8, 16))
    sparse.indices.CopyFrom(weight("", [0, 1, 2, 3], np.int64))
    write("hostile/sparse_constant.onnx", model(
        [h.make_node("Constant", [], ["w"], sparse_value=sparse),
         h.make_node("Add", ["x", "w"], ["y"])], [info("x", T.FLOAT, ["batch", 4])],
        [info("y", T.FLOAT, ["batch", 4])]))
    initializer = adds(weight("unused", [1], np.float32))
    initializer.graph.sparse_initializer.add().CopyFrom(sparse)
    write("hostile/sparse_initializer.onnx", initializer)

    # In the body of an If, where a scan of the top graph alone would not look.
    branch = h.make_graph([h.make_node("Identity", ["w"], ["z"])], "branch", [],
                          [info("z", T.FLOAT, [4])], [with_external("../weights.bin", 8, 16)])
    write("hostile/subgraph.onnx", model(
        [h.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)],
        [info("c", T.BOOL, [])], [info("y", T.FLOAT, [4])]))


def malformed():
    good = identity(T.FLOAT, ["batch", 16]).SerializeToString()
    write("hostile/truncated.onnx", good[:-5])
    write("hostile/empty.onnx", b"")
    write("hostile/text.onnx", b"this is no model\n")
    write("hostile/no_graph.onnx", b"\x08\x08")
    write("hostile/two_graphs.onnx", good + good)
    # 300 nested type messages: sequence of sequence of ...
    inner = b""
    for _ in range(300):
        inner = b"\x22" + varint(len(inner) + 1 + len(varint(len(inner)))) + b"\x0a" + \
            varint(len(inner)) + inner
    value = b"\x0a\x01x\x12" + varint(len(inner)) + inner
    graph = b"\x5a" + varint(len(value)) + value
    write("hostile/deep.onnx", b"\x3a" + varint(len(graph)) + graph)
    # 40 nested graphs: attributes of nodes of graphs that are attributes ...
    nested = b""
    for _ in range(40):
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            nested = tag + varint(len(nested)) + nested
    write("hostile/deep_graphs.onnx", b"\x3a" + varint(len(nested)) + nested)
    huge = adds(weight("w", [1, 2, 3, 4], np.float32))
    huge.graph.initializer[0].dims[:] = [2**39, 2]
    write("hostile/huge_dims.onnx", huge)
    huge.graph.initializer[0].dims[:] = [2**62, 2**62]
    write("hostile/overflowing_dims.onnx", huge)


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


if __name__ == "__main__":
    plain()
    sequences()
    faults()
    refused()
    external()
    malformed()
