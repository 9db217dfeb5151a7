"""Models that only the benchmarks need, written when they run: ONNX files and simulated devices.

An ONNX file is a protobuf message; the few fields that are needed are numbered in FIELDS of onnx.proto.
"""
import array
import random

from loads import field, varint

FLOAT = 1
NOISE = 65521  # Prime, so that rows that repeat it do not repeat each other.


def number(tag, value):
    return varint(tag << 3) + varint(value)


def attribute(name, value):
    """An attribute of a node: a whole number or a list of them."""
    if isinstance(value, int):
        return field(5, field(1, name.encode()) + number(3, value) + number(20, 2))
    return field(5, field(1, name.encode()) + b"".join(number(8, one) for one in value) + number(20, 7))


def node(kind, inputs, output, **attributes):
    return field(1, b"".join(field(1, name.encode()) for name in inputs) + field(2, output.encode()) +
                 field(4, kind.encode()) + b"".join(attribute(*pair) for pair in attributes.items()))


def noise(count, spread):
    """So many normally distributed values; the same ones on every machine."""
    source = random.Random(1)
    block = array.array("f", (source.gauss(0, spread) for _ in range(min(count, NOISE)))).tobytes()
    return (block * (4 * count // len(block) + 1))[:4 * count]


def weight(name, shape, spread):
    count = 1
    for dimension in shape:
        count *= dimension
    return field(5, b"".join(number(1, dimension) for dimension in shape) + number(2, FLOAT) +
                 field(8, name.encode()) + field(9, noise(count, spread)))


def value_info(tag, name, shape):
    """An input (11) or output (12) of the graph: FP32, any number of rows."""
    dimensions = field(1, field(2, b"batch")) + b"".join(field(1, number(1, one)) for one in shape)
    return field(tag, field(1, name.encode()) + field(2, field(1, number(1, FLOAT) + field(2, dimensions))))


def write_model(folder, name, parts, settings=""):
    """A model folder: `parts` is the body of the graph; `settings` the text of its model.yaml."""
    version = folder / name / "1"
    version.mkdir(parents=True)
    graph = b"".join(parts) + field(2, b"graph")
    (version / "model.onnx").write_bytes(number(1, 8) + field(7, graph) + field(8, field(1, b"") + number(2, 17)))
    if settings:
        (folder / name / "model.yaml").write_text(settings)
    return version / "model.onnx"


def perceptron(folder, name, settings="", width=2048, layers=4):
    """Weight-heavy: 64 MiB in 4 layers, so that a row in company costs a tenth of one alone."""
    parts, last = [], "x"
    for i in range(layers):
        parts += [weight(f"w{i}", [width, width], (2 / width) ** 0.5),
                  node("MatMul", [last, f"w{i}"], f"m{i}"),
                  node("Relu", [f"m{i}"], "y" if i == layers - 1 else f"r{i}")]
        last = f"r{i}"
    return write_model(folder, name, parts + [value_info(11, "x", [width]), value_info(12, "y", [width])], settings)


CONVOLUTIONS = ((1, 12, 2), (12, 24, 1), (24, 48, 2), (48, 48, 1), (48, 48, 2))  # channels in, out, stride


def convolutions(folder, name, settings="", side=128):
    """Five layers of about a millisecond in all; rows in company cost no less than alone."""
    parts, last = [], "x"
    for i, (inside, outside, stride) in enumerate(CONVOLUTIONS):
        parts += [weight(f"w{i}", [outside, inside, 3, 3], (2 / (9 * inside)) ** 0.5),
                  node("Conv", [last, f"w{i}"], f"c{i}", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[stride, stride]),
                  node("Relu", [f"c{i}"], f"r{i}")]
        last = f"r{i}"
    outputs = CONVOLUTIONS[-1][1]
    parts += [node("GlobalAveragePool", [last], "pool"), node("Flatten", ["pool"], "y", axis=1),
              value_info(11, "x", [1, side, side]), value_info(12, "y", [outputs])]
    return write_model(folder, name, parts, settings)


def simulated(folder, name, parameters, settings=""):
    """A model of the simulated device: `parameters` is name -> value."""
    (folder / name / "1").mkdir(parents=True)
    words = ", ".join(f"{key}: {value}" for key, value in parameters.items())
    (folder / name / "model.yaml").write_text(f"backend: sim\nparameters: {{ {words} }}\n{settings}")
