"""Models that only the benchmarks need, written when they run: ONNX files and simulated devices."""
import array
import math
import random

from onnx_file import FLOAT, field, graph, model, node, tensor, value_info

NOISE = 65521  # Prime, so that rows that repeat it do not repeat each other.


def attributes(**values):
    """Of a node: whole numbers, or lists of them."""
    made = b""
    for name, value in values.items():
        kind, given = (2, field(3, value)) if isinstance(value, int) else (7, b"".join(field(8, one) for one in value))
        made += field(5, field(1, name) + given + field(20, kind))
    return made


def noise(count, spread):
    """So many normally distributed values; the same ones on every machine."""
    source = random.Random(1)
    block = array.array("f", (source.gauss(0, spread) for _ in range(min(count, NOISE)))).tobytes()
    return (block * (4 * count // len(block) + 1))[:4 * count]


def weight(name, shape, spread):
    """The field of a graph for one of normally distributed values."""
    return field(5, tensor(name, shape, FLOAT, noise(math.prod(shape), spread)))


def rows_of(name, *shape):
    """Any number of rows."""
    return [value_info(name, ["batch", *shape])]


def write_model(folder, name, graph_bytes, settings=""):
    """A model folder; `settings` is the text of its model.yaml."""
    version = folder / name / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(model(graph_bytes))
    if settings:
        (folder / name / "model.yaml").write_text(settings)
    return version / "model.onnx"


def perceptron(folder, name, settings="", width=2048, layers=4):
    """Weight-heavy: 64 MiB in 4 layers, so that a row in company costs a tenth of one alone."""
    weights, nodes, last = b"", [], "x"
    for i in range(layers):
        weights += weight(f"w{i}", [width, width], (2 / width) ** 0.5)
        nodes += [node("MatMul", [last, f"w{i}"], [f"m{i}"]),
                  node("Relu", [f"m{i}"], ["y" if i == layers - 1 else f"r{i}"])]
        last = f"r{i}"
    return write_model(folder, name, graph(nodes, rows_of("x", width), rows_of("y", width), weights), settings)


CONVOLUTIONS = ((1, 12, 2), (12, 24, 1), (24, 48, 2), (48, 48, 1), (48, 48, 2))  # channels in, out, stride


def convolutions(folder, name, settings="", side=128):
    """Five layers of about a millisecond in all; rows in company cost no less than alone."""
    weights, nodes, last = b"", [], "x"
    for i, (inside, outside, stride) in enumerate(CONVOLUTIONS):
        weights += weight(f"w{i}", [outside, inside, 3, 3], (2 / (9 * inside)) ** 0.5)
        window = attributes(kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[stride, stride])
        nodes += [node("Conv", [last, f"w{i}"], [f"c{i}"], window), node("Relu", [f"c{i}"], [f"r{i}"])]
        last = f"r{i}"
    nodes += [node("GlobalAveragePool", [last], ["pool"]), node("Flatten", ["pool"], ["y"], attributes(axis=1))]
    outputs = CONVOLUTIONS[-1][1]
    return write_model(folder, name, graph(nodes, rows_of("x", 1, side, side), rows_of("y", outputs), weights), settings)


def simulated(folder, name, parameters, settings=""):
    """A model of the simulated device: `parameters` is name -> value."""
    (folder / name / "1").mkdir(parents=True)
    words = ", ".join(f"{key}: {value}" for key, value in parameters.items())
    (folder / name / "model.yaml").write_text(f"backend: sim\nparameters: {{ {words} }}\n{settings}")
