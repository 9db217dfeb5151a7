"""ONNX files, right ones and such as no exporter would make.

Every model here is y = x + w over four floats, and what differs is where w comes from.
"""

import os
import struct
import sys

from serving import ROOT

sys.path.insert(0, str(ROOT / "bench"))
import onnx_file  # noqa: E402
from onnx_file import FLOAT, INT64, field, model, node, value_info  # noqa: E402

VALUES = struct.pack("<4f", 1, 2, 3, 4)


def tensor(name, dims=(4,), kind=FLOAT, data=VALUES):
    return onnx_file.tensor(name, dims, kind, data)


def external(name, dims=(4,), **entries):
    """`entries` are location, offset, length; a list gives one several times."""
    pairs = []
    for key, given in entries.items():
        pairs += [(key, value) for value in (given if isinstance(given, list) else [given])]
    data = b"".join(field(13, field(1, key) + field(2, str(value))) for key, value in pairs)
    return tensor(name, dims, data=None) + data + field(14, 1)


def sparse(values):
    indices = tensor("", kind=INT64, data=struct.pack("<4q", 0, 1, 2, 3))
    return field(1, values) + field(2, indices) + field(3, 4)


def attribute(name, number, value):
    """A tensor (5), a graph (6) or a sparse tensor (22)."""
    return field(5, field(1, name) + field(number, value) + field(20, {5: 4, 6: 5, 22: 11}[number]))


def graph(nodes, more=b"", takes=("x",), gives=("y",)):
    """Of inputs and outputs by name, rows of four."""
    rows = ("batch", 4)
    return onnx_file.graph(
        nodes,
        [value_info(name, rows) for name in takes],
        [value_info(name, rows) for name in gives],
        more,
    )


ADD = node("Add", ["x", "w"], ["y"])


def adds(weight):
    """w is an initializer."""
    return model(graph([ADD], field(5, weight)))


def adds_constant(weight):
    return model(graph([node("Constant", [], ["w"], attribute("value", 5, weight)), ADD]))


def adds_sparse_constant(weight):
    constant = node("Constant", [], ["w"], attribute("sparse_value", 22, sparse(weight)))
    return model(graph([constant, ADD]))


def adds_sparse(weight):
    return model(graph([ADD], field(15, sparse(weight))))


FORMS = {
    "initializer": adds,
    "constant": adds_constant,
    "sparse_constant": adds_sparse_constant,
    "sparse_initializer": adds_sparse,
}


# --- Those that mean harm -------------------------------------------------------------------------


def nested_types(levels):
    """A sequence of a sequence of a sequence ..."""
    kind = b""
    for _ in range(levels):
        kind = field(4, field(1, kind))
    return model(field(11, field(1, "x") + field(2, kind)))


def nested_graphs(levels):
    """A graph in an attribute of a node of a graph ..."""
    inner = b""
    for _ in range(levels):
        inner = field(1, field(5, field(6, inner)))
    return model(inner)


def adds_in_a_branch(weight):
    """Where who scans the outer graph alone would not look."""
    branch = graph([node("Identity", ["w"], ["z"])], field(5, weight), takes=(), gives=("z",))
    ways = attribute("then_branch", 6, branch) + attribute("else_branch", 6, branch)
    return model(graph([node("If", ["x"], ["y"], ways)]))


def places(outside, folder):
    """Ways out of the version's folder: name, location, and what has to lie in the folder."""
    secret = outside / "secret.bin"
    away = os.path.relpath(secret, folder)
    return {
        "dotdot": (away, None),
        "absolute": (str(secret), None),
        "proc": ("/proc/self/environ", None),
        "link": ("weights.bin", lambda: (folder / "weights.bin").symlink_to(secret)),
        "linked_folder": ("data/secret.bin", lambda: (folder / "data").symlink_to(outside)),
        "hard_link": ("weights.bin", lambda: os.link(secret, folder / "weights.bin")),
        "address": ("*/_ORT_MEM_ADDR_/*", None),
    }


def others(outside, folder):
    """By name: the model, and what has to lie beside it."""
    weights = folder / "weights.bin"
    within = {"offset": 0, "length": 16}
    return {
        "deep_types": (nested_types(5000), None),
        "deep_graphs": (nested_graphs(5000), None),
        "giant": (adds(tensor("w", (1 << 39, 2))), None),
        "overflowing": (adds(tensor("w", (1 << 62, 1 << 62))), None),
        "negative": (adds(tensor("w", (-4,))), None),
        "far": (adds(external("w", location="weights.bin", offset=(1 << 63) - 4, length=16)),
                lambda: weights.write_bytes(VALUES)),
        "backslash": (adds(external("w", location="..\\..\\outside\\secret.bin", **within)), None),
        "nul": (adds(external("w", location="weights.bin\0/../secret.bin", **within)),
                lambda: weights.write_bytes(VALUES)),
        "pipe": (adds(external("w", location="weights.bin", **within)), lambda: os.mkfifo(weights)),
        "folder": (adds(external("w", location="weights.bin", **within)), weights.mkdir),
        "twice": (adds(external("w", location=["weights.bin", "../secret.bin"], **within)),
                  lambda: weights.write_bytes(VALUES)),
        "branch": (adds_in_a_branch(external("w", location="../../../outside/secret.bin")), None),
    }


def write_hostile(root, outside, settings=b""):
    """Puts one model per way into the repository `root`; returns their names."""
    written = []

    def put(name, data, prepare):
        folder = root / name / "1"
        (folder / "model.onnx").write_bytes(data)
        if prepare is not None:
            prepare()
        if settings:
            (root / name / "model.yaml").write_bytes(settings)
        written.append(name)

    def folder_of(name):
        folder = root / name / "1"
        folder.mkdir(parents=True)
        return folder

    for form, make in FORMS.items():
        for place in places(outside, root):
            name = f"{form}.{place}"
            location, prepare = places(outside, folder_of(name))[place]
            put(name, make(external("w", location=location, offset=0, length=16)), prepare)
    for name in others(outside, root):
        data, prepare = others(outside, folder_of(name))[name]
        put(name, data, prepare)
    return written


def write_benign(root, name, settings=b""):
    """The same, with a file of its own beside the model."""
    folder = root / name / "1"
    folder.mkdir(parents=True)
    (folder / "weights.bin").write_bytes(VALUES)
    data = adds(external("w", location="weights.bin", offset=0, length=16))
    (folder / "model.onnx").write_bytes(data)
    if settings:
        (root / name / "model.yaml").write_bytes(settings)
