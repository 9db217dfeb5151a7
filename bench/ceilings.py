"""What a request costs where the model is nearly nothing, against servers that do nothing but answer.

B1 `tiny`, B2 `grpc`; and `digits` (a small model), `segment` (a large one), `start`.

A case is a generator function(folder, plan): it yields (ratios, details) as soon as it has some.
"""
import math
import pathlib
import socket
import struct
import time
import urllib.parse

from loads import (INFER_RPC, direct, http_request, infer_body, infer_message, json_body, load, load_grpc, median, post,
                   read_answer, round_trips)
from servers import (DIRECT, ROOT, SERVER_CPU, WEIR, copied, cpu_seconds, get, grpc_peer, memory_bytes, nghttpd, nginx,
                     pinned, running, say, weir)

IDENTITY = "tests/data/models/identity_fp32"
IDLE = (IDENTITY, "tests/data/models/add_sub", "tests/data/models/double_it", "tests/data/models/dynamic")


def floats(count):
    return struct.pack(f"<{count}f", *(i % 97 for i in range(count)))


class Exchange:
    """One request and what nginx has to answer to look like it: as many bytes under the same headers."""

    def __init__(self, folder, model, body, header_bytes):
        self.path = f"/v2/models/{model}/infer"
        self.body, self.header_bytes = body, header_bytes
        self.file = folder / f"body-{header_bytes}"
        self.file.write_bytes(body)

    def limit(self, folder, port):
        """nginx answering as the server at `port` does."""
        fields, answer = post(port, self.path, self.header_bytes, self.body)
        name = "Inference-Header-Content-Length"
        return nginx(folder, {name: fields[name]} if name in fields else {}, len(answer))

    def load(self, server, connections):
        """A function(seconds) that drives (pid, port)."""
        return lambda seconds: load(*server, self.path, self.file, self.header_bytes, connections, seconds)


def binary_exchange(folder, model, tensor, shape):
    head, body = infer_body(tensor, shape, floats(math.prod(shape)))
    return Exchange(folder, pathlib.Path(model).name, body, len(head))


def against(exchange, folder, server, plan, connections, warm, seconds, rounds=None):
    """Weir and nginx under the same load."""
    with exchange.limit(folder, server[1]) as limit:
        return plan.side_by_side({"weir": exchange.load(server, connections),
                                  "nginx": exchange.load(limit, connections)}, warm, seconds, rounds)


def ratio(found, key, limit):
    return median(found["weir"], key) / median(found[limit], key)


def tiny_alone(exchange, folder, repository, server, plan):
    """One connection, one request at a time; also with a network thread that spins before it sleeps."""
    say("tiny: one connection")
    with (weir(repository, "--loop-spin", "50us") as spinning, exchange.limit(folder, server[1]) as limit):
        found = plan.side_by_side({"weir": exchange.load(server, 1), "spin": exchange.load(spinning, 1),
                                   "nginx": exchange.load(limit, 1)}, 1, 3, 5)
    p50 = {side: median(found[side], "p50_us") for side in found}
    return {"tiny.p50": p50["weir"] - p50["nginx"], "tiny.spin": p50["spin"] / p50["nginx"]}, {"c1": found}


def tiny(folder, plan):
    repository = copied(folder, IDENTITY)
    exchange = binary_exchange(folder, IDENTITY, "x", [1, 16])
    text = Exchange(folder, "identity_fp32", json_body("x", [1, 16], [i % 97 / 8 for i in range(16)]), 0)
    with weir(repository) as server:
        say("tiny: 64 connections")
        found = against(exchange, folder, server, plan, 64, 6, 5, 5)
        yield {"tiny.cpu": ratio(found, "cpu_us", "nginx"), "tiny.requests": ratio(found, "per_s", "nginx")}, {"c64": found}
        yield tiny_alone(exchange, folder, repository, server, plan)
        say("tiny: 8 connections, and JSON")
        found = against(exchange, folder, server, plan, 8, 1, 3)
        yield {"tiny.cpu8": ratio(found, "cpu_us", "nginx")}, {"c8": found}
        found = against(text, folder, server, plan, 64, 1, 3)
        yield {"tiny.json": ratio(found, "cpu_us", "nginx")}, {"json": found}


def digits(folder, plan):
    model = "examples/models/digits"
    with weir(copied(folder, model)) as server:
        found = against(binary_exchange(folder, model, "pixels", [1, 64]), folder, server, plan, 64, 4, 4)
    found["direct"] = [dict(direct(ROOT / model / "1/model.onnx", rows, 1, plan.seconds(3), SERVER_CPU), rows=rows)
                       for rows in (16, 32, 64)]
    t_row = min(one["cpu_us_per_row"] for one in found["direct"])
    found["C1"] = 1e6 / (t_row + median(found["nginx"], "cpu_us"))
    yield {"digits.requests": median(found["weir"], "per_s") / found["C1"]}, found


def segment(folder, plan):
    model = ROOT / "examples/models/segment/1/model.onnx"
    exchange = binary_exchange(folder, "examples/models/segment", "image", [1, 1, 256, 256])
    with weir(copied(folder, "examples/models/segment"), cpus="0,1", executors=2) as (pid, port):
        post(port, exchange.path, exchange.header_bytes, exchange.body)
        found = plan.side_by_side({
            "weir": lambda s: load(pid, port, exchange.path, exchange.file, exchange.header_bytes, 8, s, "0,1"),
            "direct": lambda s: direct(model, 1, 2, s, "0,1"),
        }, 3, 4, 5)
    yield {"segment.runs": median(found["weir"], "per_s") / median(found["direct"], "rows_per_s")}, found


def grpc(folder, plan):
    """The tiny model over gRPC; nghttpd answers the same request bytes with as many constant bytes."""
    data = floats(16)
    message = infer_message("identity_fp32", "x", [1, 16], data)
    call_file, message_file = folder / "call", folder / "message"
    call_file.write_bytes(struct.pack(">BI", 0, len(message)) + message)
    message_file.write_bytes(message)
    with weir(copied(folder, IDENTITY)) as server:
        answer = round_trips("grpc", server[1], message_file, 0.1, len(data))["answer_bytes"]
        with (nghttpd(folder, INFER_RPC, answer) as limit,
              grpc_peer(ROOT / IDENTITY / "1/model.onnx", "x", "y", 16) as peer):
            round_trips("grpc", peer[1], message_file, 0.1, len(data))
            sides = {"weir": server, "nghttpd": limit, "grpc_cpp": peer}

            def drive(connections, streams, *times):
                say(f"grpc: {connections} connections x {streams} streams")
                return plan.side_by_side({name: lambda s, side=side: load_grpc(*side, call_file, s, connections, streams)
                                          for name, side in sides.items()}, *times)
            found = drive(16, 32, 4, 5, 5)
            yield {"grpc.cpu": ratio(found, "cpu_us", "nghttpd"), "grpc.peer": ratio(found, "per_s", "grpc_cpp")}, {
                "16x32": found}
            yield {}, {"1x32": drive(1, 32, 1, 2)}
            yield {}, {"1x1": drive(1, 1, 1, 2)}


def start_weir(repository, request, expected):
    """Seconds from exec to a correct answer for a client that waits for the ready line, and the idle memory afterwards."""
    begun = time.monotonic()
    with running(pinned("0,1", WEIR, "serve", "--repository", repository, "--port", 0, "--log-level", "warning",
                        "--limits.drain-grace", "0s")) as process:
        address = urllib.parse.urlsplit(process.stdout.readline().split()[1].decode())
        with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
            connection.sendall(request)
            status, answer = read_answer(connection)
        took = time.monotonic() - begun
        if status != 200 or not answer.endswith(expected):
            raise RuntimeError(f"the first answer is wrong: {status} {answer[:200]}")
        time.sleep(0.5)
        return {"seconds": took, "bytes": memory_bytes(process.pid)}


def start_direct(model):
    begun = time.monotonic()
    with running(pinned("0,1", DIRECT, "start", model)) as process:
        process.stdout.readline()
        took = time.monotonic() - begun
        time.sleep(0.5)
        return {"seconds": took, "bytes": memory_bytes(process.pid)}


def idle_cores(repository, seconds):
    """Processor time per second of a server that nobody asks anything, all models loaded and used once."""
    with weir(repository, cpus="0,1", executors=0) as (pid, port):
        for model in repository.iterdir():
            get(port, f"/v2/models/{model.name}/ready")
        time.sleep(1)
        before = cpu_seconds(pid)
        time.sleep(seconds)
        return (cpu_seconds(pid) - before) / seconds


def start(folder, plan):
    repository = copied(folder, IDENTITY)
    data = struct.pack("<16f", *range(16))
    request = http_request(pathlib.Path(IDENTITY).name, *infer_body("x", [1, 16], data))
    found = plan.side_by_side({
        "weir": lambda _: start_weir(repository, request, data),
        "direct": lambda _: start_direct(ROOT / IDENTITY / "1/model.onnx"),
    }, rounds=9)
    several = copied(folder / "several", *IDLE)
    found["idle"] = [{"cores": idle_cores(several, plan.seconds(10, 2))} for _ in range(plan.rounds)]
    yield {"start.time": median(found["weir"], "seconds") / median(found["direct"], "seconds"),
           "start.memory": median(found["weir"], "bytes") / median(found["direct"], "bytes"),
           "start.cpu": median(found["idle"], "cores")}, found
