"""Writes ONNX files byte by byte, without a library.

A message of protocol buffers is bytes; `field(number, value)` is one field of it.  The numbers are those of onnx.proto.
"""

FLOAT, INT64 = 1, 7


def varint(value):
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def field(number, value):
    """A whole number, or text, bytes or a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(name, dims, kind, data):
    """`data` None: it lies elsewhere."""
    head = b"".join(field(1, size) for size in dims) + field(2, kind) + field(8, name)
    return head + (field(9, data) if data is not None else b"")


def value_info(name, shape):
    """FP32; a size that is a text varies."""
    dims = b"".join(field(1, field(2, size) if isinstance(size, str) else field(1, size)) for size in shape)
    return field(1, name) + field(2, field(1, field(1, FLOAT) + field(2, dims)))


def node(kind, inputs, outputs, attributes=b""):
    names = b"".join(field(1, name) for name in inputs) + b"".join(field(2, name) for name in outputs)
    return names + field(4, kind) + attributes


def graph(nodes, takes, gives, more=b""):
    """`takes` and `gives`: value_info() of its inputs and outputs; `more`: other fields, such as initializers (5)."""
    return (b"".join(field(1, made) for made in nodes) + field(2, "graph") + more +
            b"".join(field(11, taken) for taken in takes) + b"".join(field(12, given) for given in gives))


def model(graph_bytes):
    return field(1, 8) + field(7, graph_bytes) + field(8, field(1, "") + field(2, 17))
