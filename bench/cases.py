"""What is measured: name -> function(folder, plan), which returns ratios and the rounds behind them."""
import pathlib
import struct
import time

from loads import INFER_RPC, direct, infer_body, infer_message, load, load_grpc, median, post, round_trips, side_by_side
from servers import DIRECT, ROOT, SERVER_CPU, WEIR, copied, echo, free_port, grpc_peer, memory_bytes, nghttpd, nginx, pinned, running, weir


def floats(count):
    return struct.pack(f"<{count}f", *(i % 97 for i in range(count)))

def against_nginx(folder, model, tensor, shape, plan):
    """Weir and nginx under the same load: the same bytes in, the same number of bytes out."""
    path = f"/v2/models/{pathlib.Path(model).name}/infer"
    count = 1
    for dimension in shape:
        count *= dimension
    head, body = infer_body(tensor, shape, floats(count))
    body_file = folder / "body"
    body_file.write_bytes(body)
    with weir(copied(folder, model)) as (weir_pid, weir_port):
        fields, answer = post(weir_port, path, len(head), body)
        extra = {"Inference-Header-Content-Length": fields["Inference-Header-Content-Length"]}
        with nginx(folder, extra, len(answer)) as (nginx_pid, nginx_port):
            return side_by_side({
                "weir": lambda s: load(weir_pid, weir_port, path, body_file, len(head), 64, s),
                "nginx": lambda s: load(nginx_pid, nginx_port, path, body_file, len(head), 64, s),
            }, **plan)


def tiny(folder, plan):
    found = against_nginx(folder, "tests/data/models/identity_fp32", "x", [1, 16], plan)
    return {"tiny.requests": median(found["weir"], "per_s") / median(found["nginx"], "per_s"),
            "tiny.cpu": median(found["weir"], "cpu_us") / median(found["nginx"], "cpu_us")}, found


def digits(folder, plan):
    found = against_nginx(folder, "examples/models/digits", "pixels", [1, 64], plan)
    model = ROOT / "examples/models/digits/1/model.onnx"
    found["direct"] = [dict(direct(model, rows, 1, plan["seconds"], SERVER_CPU), rows=rows)
                       for rows in (16, 32, 64)]
    t_row = min(one["cpu_us_per_row"] for one in found["direct"])
    c1 = 1e6 / (t_row + median(found["nginx"], "cpu_us"))
    found["C1"] = c1
    return {"digits.requests": median(found["weir"], "per_s") / c1}, found


def segment(folder, plan):
    model = ROOT / "examples/models/segment/1/model.onnx"
    side = 256
    head, body = infer_body("image", [1, 1, side, side], struct.pack(f"<{side * side}f", *(
        (i % 97) / 97 for i in range(side * side))))
    body_file = folder / "body"
    body_file.write_bytes(body)
    with weir(copied(folder, "examples/models/segment"), "0,1", 2) as (pid, port):
        path = "/v2/models/segment/infer"
        post(port, path, len(head), body)
        found = side_by_side({
            "weir": lambda s: load(pid, port, path, body_file, len(head), 8, s, "0,1"),
            "direct": lambda s: direct(model, 1, 2, s, "0,1"),
        }, **plan)
    return {"segment.runs": median(found["weir"], "per_s") / median(found["direct"], "rows_per_s")}, found


def grpc(folder, plan):
    """The tiny model over gRPC; nghttpd answers the same request bytes with as many constant bytes."""
    model = "tests/data/models/identity_fp32"
    data = floats(16)
    message = infer_message("identity_fp32", "x", [1, 16], data)
    call_file, message_file = folder / "call", folder / "message"
    call_file.write_bytes(struct.pack(">BI", 0, len(message)) + message)
    message_file.write_bytes(message)
    with weir(copied(folder, model)) as (weir_pid, weir_port):
        answer = round_trips("grpc", weir_port, message_file, 0.1, len(data))["answer_bytes"]
        with (nghttpd(folder, INFER_RPC, answer) as (limit_pid, limit_port),
              grpc_peer(ROOT / model / "1/model.onnx", "x", "y", 16) as (peer_pid, peer_port)):
            round_trips("grpc", peer_port, message_file, 0.1, len(data))
            found = side_by_side({
                "weir": lambda s: load_grpc(weir_pid, weir_port, call_file, s),
                "nghttpd": lambda s: load_grpc(limit_pid, limit_port, call_file, s),
                "grpc_cpp": lambda s: load_grpc(peer_pid, peer_port, call_file, s),
            }, **plan)
    return {"grpc.cpu": median(found["weir"], "cpu_us") / median(found["nghttpd"], "cpu_us"),
            "grpc.peer": median(found["weir"], "per_s") / median(found["grpc_cpp"], "per_s")}, found


def tensor(folder, plan, count):
    """One FP32 tensor of `count` values to the identity model and back, one connection, one at a time."""
    data = floats(count)
    shape = [count // 16, 16]
    head, body = infer_body("x", shape, data)
    files = {"raw": data, "grpc": infer_message("identity_fp32", "x", shape, data), "http": (
        f"POST /v2/models/identity_fp32/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        f"Inference-Header-Content-Length: {len(head)}\r\n\r\n").encode() + body}
    for way, content in files.items():
        (folder / way).write_bytes(content)
    with (weir(copied(folder, "tests/data/models/identity_fp32")) as (_, weir_port),
          echo(len(data)) as (_, echo_port)):
        found = side_by_side({
            "raw": lambda s: round_trips("raw", echo_port, folder / "raw", s),
            "http": lambda s: round_trips("http", weir_port, folder / "http", s, len(data)),
            "grpc": lambda s: round_trips("grpc", weir_port, folder / "grpc", s, len(data)),
        }, **plan)
    limit = median(found["raw"], "p50_us")
    return median(found["http"], "p50_us") / limit, median(found["grpc"], "p50_us") / limit, found


def tensors(folder, plan):
    ratios, rounds = {}, {}
    for name, count in (("602KB", 150528), ("4.8MB", 1200000)):
        inside = folder / name
        inside.mkdir()
        ratios[f"tensors.http.{name}"], ratios[f"tensors.grpc.{name}"], rounds[name] = tensor(inside, plan, count)
    return ratios, rounds


def start_weir(repository, path, head, body, expected):
    """Seconds from exec to a correct answer, and the idle memory afterwards."""
    port = free_port()
    begun = time.monotonic()
    with running(pinned("0,1", WEIR, "serve", "--repository", repository, "--port", port,
                        "--log-level", "warning", "--limits.drain-grace", "0s")) as process:
        while True:
            try:
                _, answer = post(port, path, len(head), body)
                break
            except OSError:
                time.sleep(0.0005)
        took = time.monotonic() - begun
        if not answer.endswith(expected):
            raise RuntimeError("the first answer is wrong")
        time.sleep(0.5)
        return {"seconds": took, "bytes": memory_bytes(process.pid)}


def start_direct(model):
    begun = time.monotonic()
    with running(pinned("0,1", DIRECT, "start", model)) as process:
        process.stdout.readline()
        took = time.monotonic() - begun
        time.sleep(0.5)
        return {"seconds": took, "bytes": memory_bytes(process.pid)}


def start(folder, plan):
    model = "tests/data/models/identity_fp32"
    repository = copied(folder, model)
    data = struct.pack("<16f", *range(16))
    head, body = infer_body("x", [1, 16], data)
    found = side_by_side({
        "weir": lambda _: start_weir(repository, "/v2/models/identity_fp32/infer", head, body, data),
        "direct": lambda _: start_direct(ROOT / model / "1/model.onnx"),
    }, **plan)
    return {"start.time": median(found["weir"], "seconds") / median(found["direct"], "seconds"),
            "start.memory": median(found["weir"], "bytes") / median(found["direct"], "bytes")}, found


CASES = {"tiny": tiny, "digits": digits, "segment": segment, "grpc": grpc, "tensors": tensors, "start": start}
