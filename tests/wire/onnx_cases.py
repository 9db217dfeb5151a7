"""The ONNX project's backend cases (Debian's libonnx-testdata): a model, its inputs, its outputs.

Models and tensors are protocol buffers; the few fields that a test needs are read here, so that
nothing but numpy has to be installed.
"""

import dataclasses
import json
import pathlib
import re
import struct

import numpy as np

PACKAGE = "libonnx-testdata"
ROOT = pathlib.Path("/usr/share") / PACKAGE / "data"
FOLDERS = ("node", "pytorch-converted", "pytorch-operator", "simple")

# Their outputs are drawn, so only type and shape can be compared.
RANDOM = re.compile(r"node/test_(bernoulli|training_dropout(_default)?(_mask)?$)")

# What the ONNX project's own runner allows, and what ONNX Runtime's allows for small values:
# between the two lies rounding, which differs from processor to processor.
RTOL = 1e-3
ATOL = 1e-7
ATOL_ROUNDING = 1e-5


@dataclasses.dataclass(frozen=True)
class Type:
    """An element type: its name in the protocol, how it lies in memory, which field lists it."""

    name: str
    dtype: np.dtype
    field: int
    json: bool = True


FLOATS, INT32S, STRINGS, INT64S, RAW, DOUBLES, UINT64S = 4, 5, 6, 7, 9, 10, 11

# BF16 is unknown to numpy: its bits are kept, as uint16.
TYPES = {
    1: Type("FP32", np.dtype("<f4"), FLOATS),
    2: Type("UINT8", np.dtype("u1"), INT32S),
    3: Type("INT8", np.dtype("i1"), INT32S),
    4: Type("UINT16", np.dtype("<u2"), INT32S),
    5: Type("INT16", np.dtype("<i2"), INT32S),
    6: Type("INT32", np.dtype("<i4"), INT32S),
    7: Type("INT64", np.dtype("<i8"), INT64S),
    8: Type("BYTES", np.dtype(object), STRINGS),
    9: Type("BOOL", np.dtype("?"), INT32S),
    10: Type("FP16", np.dtype("<f2"), INT32S, json=False),
    11: Type("FP64", np.dtype("<f8"), DOUBLES),
    12: Type("UINT32", np.dtype("<u4"), UINT64S),
    13: Type("UINT64", np.dtype("<u8"), UINT64S),
    16: Type("BF16", np.dtype("<u2"), INT32S, json=False),
}
TYPES_BY_NAME = {kind.name: kind for kind in TYPES.values()}


@dataclasses.dataclass
class Tensor:
    name: str
    kind: Type
    values: np.ndarray

    def numbers(self):
        """As numpy can compare them."""
        if self.kind.name == "BF16":
            return (self.values.astype(np.uint32) << 16).view(np.float32)
        return self.values

    def in_json(self):
        """Can JSON carry it?  It has neither half-precision numbers nor NaN nor infinity."""
        if self.kind.name == "BYTES":
            return all(text.isascii() for text in self.values.ravel())
        return self.kind.json and bool(np.isfinite(self.values).all())

    def to_bytes(self):
        if self.kind.name == "BYTES":
            return b"".join(struct.pack("<I", len(text)) + text for text in self.values.ravel())
        return self.values.tobytes()

    def to_list(self):
        if self.kind.name == "BYTES":
            return [text.decode() for text in self.values.ravel()]
        return self.values.ravel().tolist()


@dataclasses.dataclass
class Case:
    name: str  # FOLDER/test_...
    path: pathlib.Path
    inputs: list  # Names and numbers of element types.
    outputs: list
    expressible: bool  # No sequence, no optional: tensors are all that the protocol knows.

    @property
    def model(self):
        return self.name.replace("/", ".")

    def data_sets(self):
        """Yields the inputs and the expected outputs of each set."""
        for folder in sorted(self.path.glob("test_data_set_*")):
            yield (
                [read_tensor(folder / f"input_{i}.pb", *n) for i, n in enumerate(self.inputs)],
                [read_tensor(folder / f"output_{i}.pb", *n) for i, n in enumerate(self.outputs)],
            )


# --- Protocol buffers -----------------------------------------------------------------------------


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(data):
    """Yields the number and the value of each field: an int, or bytes."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        else:
            if key & 7 == 2:
                size, at = varint(data, at)
            else:
                size = {1: 8, 5: 4}[key & 7]
            value, at = data[at : at + size], at + size
            if len(value) != size:
                raise ValueError("a field is cut off")
        yield key >> 3, value


def all_of(data, wanted):
    return [value for number, value in fields(data) if number == wanted]


def integers(values):
    """Of a repeated field, packed or not; 64-bit two's complement."""
    out = []
    for value in values:
        if isinstance(value, int):
            out.append(value)
            continue
        at = 0
        while at < len(value):
            number, at = varint(value, at)
            out.append(number)
    return [number - (1 << 64) if number >> 63 else number for number in out]


def elements(data, kind):
    """What stands in the list of the type's own, where there are no raw bytes."""
    listed = all_of(data, kind.field)
    if kind.field == STRINGS:
        out = np.empty(len(listed), object)
        out[:] = listed
        return out
    if kind.field in (FLOATS, DOUBLES):
        return np.frombuffer(b"".join(listed), kind.dtype)
    bits = np.array(integers(listed), np.int64)
    if kind.name == "FP16":
        return bits.astype(np.uint16).view(kind.dtype)
    return bits.astype(kind.dtype)


def read_tensor(path, name, element_type):
    """The file's tensor; `element_type` is what the model declares."""
    data = path.read_bytes()
    kind = TYPES[integers(all_of(data, 2))[0]]
    raw = all_of(data, RAW)
    values = np.frombuffer(raw[0], kind.dtype) if raw else elements(data, kind)
    if kind.name == "UINT16" and TYPES[element_type].name == "BF16":
        kind = TYPES[element_type]  # The writer of these files had no BF16 either, only its bits.
    return Tensor(name, kind, values.reshape(integers(all_of(data, 1))))


def read_value_info(info):
    """Name and element type; type 0 is no tensor: a sequence, a map, an optional."""
    tensor = all_of(all_of(info, 2)[0], 1)
    return all_of(info, 1)[0].decode(), all_of(tensor[0], 1)[0] if tensor else 0


def read_case(folder, path):
    graph = all_of((path / "model.onnx").read_bytes(), 7)[0]
    weights = {all_of(tensor, 8)[0].decode() for tensor in all_of(graph, 5)}
    inputs = [info for info in map(read_value_info, all_of(graph, 11)) if info[0] not in weights]
    outputs = [read_value_info(info) for info in all_of(graph, 12)]
    expressible = all(element_type for _, element_type in inputs + outputs)
    return Case(f"{folder}/{path.name}", path, inputs, outputs, expressible)


def read_cases():
    return [
        read_case(folder, path)
        for folder in FOLDERS
        for path in sorted((ROOT / folder).iterdir())
        if (path / "model.onnx").is_file()
    ]


# --- Requests -------------------------------------------------------------------------------------


def encode(inputs, outputs, use_json):
    """The body and the length of its JSON part.  `use_json`: binary only where JSON cannot."""
    blobs = []
    head = {"inputs": [], "outputs": []}
    for tensor in inputs:
        entry = {
            "name": tensor.name,
            "datatype": tensor.kind.name,
            "shape": list(tensor.values.shape),
        }
        if use_json and tensor.in_json():
            entry["data"] = tensor.to_list()
        else:
            blobs.append(tensor.to_bytes())
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        head["inputs"].append(entry)
    for tensor in outputs:
        binary = not (use_json and tensor.in_json())
        head["outputs"].append({"name": tensor.name, "parameters": {"binary_data": binary}})
    text = json.dumps(head).encode()
    return text + b"".join(blobs), len(text)


def strings(blob):
    out = []
    at = 0
    while at < len(blob):
        (size,) = struct.unpack_from("<I", blob, at)
        out.append(blob[at + 4 : at + 4 + size])
        at += 4 + size
    return out


def decode(body, json_size):
    """The outputs in an answer."""
    out = []
    at = json_size
    for entry in json.loads(body[:json_size])["outputs"]:
        kind = TYPES_BY_NAME[entry["datatype"]]
        if "data" in entry:
            data = entry["data"]
            listed = [text.encode() for text in data] if kind.name == "BYTES" else data
        else:
            size = entry["parameters"]["binary_data_size"]
            blob, at = body[at : at + size], at + size
            listed = strings(blob) if kind.name == "BYTES" else np.frombuffer(blob, kind.dtype)
        values = np.array(listed, kind.dtype)
        out.append(Tensor(entry["name"], kind, values.reshape(entry["shape"])))
    if at != len(body):
        raise ValueError(f"{len(body) - at} bytes after the last output")
    return out


def compare(case, expected, found):
    """An empty text, or how the outputs differ; "rounding: ..." where only the last digits do."""
    if [tensor.name for tensor in found] != [tensor.name for tensor in expected]:
        return f"outputs {[tensor.name for tensor in found]}"
    worst = ""
    for want, have in zip(expected, found):
        if (have.kind.name, have.values.shape) != (want.kind.name, want.values.shape):
            return (
                f"{want.name}: {have.kind.name} {have.values.shape}, "
                f"expected {want.kind.name} {want.values.shape}"
            )
        if RANDOM.match(case.name):
            same = close = True
        elif want.kind.name == "BYTES":
            same = close = want.values.tolist() == have.values.tolist()
        else:
            a, b = have.numbers(), want.numbers()
            same = np.allclose(a, b, RTOL, ATOL, equal_nan=True)
            close = same or np.allclose(a, b, RTOL, ATOL_ROUNDING, equal_nan=True)
        if not close:
            return f"{want.name}: other values"
        worst = worst if same else f"rounding: {want.name}"
    return worst
