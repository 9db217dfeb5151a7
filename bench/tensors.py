"""B11 `tensors`: one large tensor to the identity model and back, against a bare TCP connection.

Beside it stands the bare connection whose server copies the tensor once: so much the run of that model takes by itself.
"""
import contextlib

from ceilings import IDENTITY, floats
from loads import http_request, infer_body, infer_message, median, round_trips
from servers import copied, echo, say, weir

# Where the memory of the bare connection and of REST's client begins, in bytes behind a huge page's begin.  On AMD's Zen
# the first takes 116 us at 602 KB, where most others take 125 to 140; at 4.8 MB now the one, now the other is faster.  Of
# each way the faster one counts.
OFFSETS = {"near": 16, "far": 64}


def tensor(folder, plan, count):
    """One FP32 tensor of `count` values, one connection, one at a time."""
    data = floats(count)
    shape = [count // 16, 16]
    head, body = infer_body("x", shape, data)
    files = {"raw": data, "grpc": infer_message("identity_fp32", "x", shape, data),
             "http": http_request("identity_fp32", head, body)}
    for way, content in files.items():
        (folder / way).write_bytes(content)
    with contextlib.ExitStack() as servers:
        _, weir_port = servers.enter_context(weir(copied(folder, IDENTITY)))
        bare = {(copies, place): servers.enter_context(echo(len(data), offset, copies))[1]
                for copies in (0, 1) for place, offset in OFFSETS.items()}
        found = plan.side_by_side({
            "raw_near": lambda s: round_trips("raw", bare[0, "near"], folder / "raw", s, OFFSETS["near"]),
            "raw_far": lambda s: round_trips("raw", bare[0, "far"], folder / "raw", s, OFFSETS["far"]),
            "copy_near": lambda s: round_trips("raw", bare[1, "near"], folder / "raw", s, OFFSETS["near"]),
            "copy_far": lambda s: round_trips("raw", bare[1, "far"], folder / "raw", s, OFFSETS["far"]),
            "http_near": lambda s: round_trips("http", weir_port, folder / "http", s, OFFSETS["near"], len(data)),
            "http_far": lambda s: round_trips("http", weir_port, folder / "http", s, OFFSETS["far"], len(data)),
            "grpc": lambda s: round_trips("grpc", weir_port, folder / "grpc", s, len(data)),
        }, 2, 3, 5)
    for way in ("raw", "copy", "http"):
        found[way] = min(found[way + "_near"], found[way + "_far"], key=lambda rounds: median(rounds, "p50_us"))
    return found


def tensors(folder, plan):
    for name, count in (("602KB", 150528), ("4.8MB", 1200000)):
        say(f"tensors: {name}")
        inside = folder / name
        inside.mkdir()
        found = tensor(inside, plan, count)
        limit = median(found["raw"], "p50_us")
        yield {f"tensors.{way}.{name}": median(found[way], "p50_us") / limit for way in ("http", "grpc", "copy")}, {name: found}
