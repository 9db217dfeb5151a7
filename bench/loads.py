"""The requests that are sent, the programs that send them, and how rounds alternate.

Closed loops over REST are driven by wrk, over HTTP/2 by h2load, single connections by roundtrip.c; tool.py drives
the open loops.
"""
import json
import os
import re
import socket
import statistics
import struct
import subprocess
import time
import urllib.request

from onnx_file import field, varint
from servers import CLIENT_CPU, DIRECT, ROOT, ROUNDTRIP, cpu_seconds, pinned

PATIENCE = 60  # Seconds that a program may take beyond its own.
INFER_RPC = "/inference.GRPCInferenceService/ModelInfer"


def infer_body(tensor, shape, data):
    head = json.dumps({"inputs": [{"name": tensor, "datatype": "FP32", "shape": shape,
                                   "parameters": {"binary_data_size": len(data)}}],
                       "parameters": {"binary_data_output": True}}, separators=(",", ":"))
    return head.encode(), head.encode() + data


def json_body(tensor, shape, values):
    return json.dumps({"inputs": [{"name": tensor, "datatype": "FP32", "shape": shape, "data": values}]},
                      separators=(",", ":")).encode()


def infer_message(model, tensor, shape, data):
    """A ModelInferRequest with one FP32 tensor in raw_input_contents."""
    described = (field(1, tensor) + field(2, "FP32") +
                 field(3, b"".join(varint(dimension) for dimension in shape)))
    return field(1, model) + field(5, described) + field(7, data)


def post(port, path, header_bytes, body):
    """`header_bytes` 0: the body is JSON alone."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, {
        "Content-Type": "application/octet-stream",
        **({"Inference-Header-Content-Length": str(header_bytes)} if header_bytes else {})})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return dict(answer.headers), answer.read()


def http_request(model, head, body):
    return (f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            f"Inference-Header-Content-Length: {len(head)}\r\n\r\n").encode() + body


def read_answer(connection):
    """Status and body of the next answer on a socket."""
    have = b""
    while b"\r\n\r\n" not in have:
        have += received(connection)
    head, _, body = have.partition(b"\r\n\r\n")
    size = int(re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)[1])
    while len(body) < size:
        body += received(connection)
    return int(head.split()[1]), body


def received(connection):
    data = connection.recv(1 << 16)
    if not data:
        raise RuntimeError("the server closed the connection")
    return data


def probe(port, request, seconds, pause=0.004):
    """One request after the other on one connection, beside another load: [(status, body, seconds)]."""
    answers = []
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        until = time.monotonic() + seconds
        while (begun := time.monotonic()) < until:
            connection.sendall(request)
            answers.append((*read_answer(connection), time.monotonic() - begun))
            time.sleep(pause)
    return answers


def load(pid, port, path, body_file, header_bytes, connections, seconds, cpu=CLIENT_CPU):
    """One round of wrk; requests per second and the server's CPU time per request."""
    environment = dict(os.environ, BODY=str(body_file), HEADER_BYTES=str(header_bytes))
    before = cpu_seconds(pid)
    output = subprocess.run(
        pinned(cpu, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s",
               ROOT / "bench/post.lua", f"http://127.0.0.1:{port}{path}"),
        env=environment, check=True, capture_output=True, text=True, timeout=seconds + PATIENCE).stdout
    used = cpu_seconds(pid) - before
    result = json.loads(output.split("RESULT ")[1])
    if result["failed"]:
        raise RuntimeError(f"{result['failed']} requests failed on {path}")
    return {"per_s": result["requests"] / result["seconds"],
            "cpu_us": used * 1e6 / result["requests"],
            "p50_us": result["p50_us"], "p99_us": result["p99_us"]}


def load_grpc(pid, port, call_file, seconds, connections=16, streams=32):
    """One round of h2load; `call_file` holds the length-prefixed message."""
    before = cpu_seconds(pid)
    output = subprocess.run(
        pinned(CLIENT_CPU, "h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds}", "-d", call_file,
               "-H", "content-type: application/grpc", "-H", "te: trailers", f"http://127.0.0.1:{port}{INFER_RPC}"),
        check=True, capture_output=True, text=True, timeout=seconds + PATIENCE).stdout
    used = cpu_seconds(pid) - before
    done, failed = (int(re.search(rf"(\d+) {what}", output)[1]) for what in ("succeeded", "failed"))
    if failed or not done:
        raise RuntimeError(f"{failed} of {done + failed} calls failed:\n{output}")
    return {"per_s": done / seconds, "cpu_us": used * 1e6 / done}


def round_trips(way, port, file, seconds, *tail):
    """One connection, one request at a time: the median and the 99th percentile of a trip."""
    words = pinned(CLIENT_CPU, ROUNDTRIP, way, port, file, seconds, *tail)
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True, timeout=seconds + PATIENCE).stdout)


def median(rounds, key):
    return statistics.median(one[key] for one in rounds)


def spread(values):
    """What is kept of repeats: their median and how far they lie apart."""
    values = list(values)
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "all": values}


class Plan:
    """How long things take: in full, or in the short form that only shows that it works."""

    def __init__(self, quick):
        self.quick = quick
        self.rounds = 2 if quick else 3
        self.known = {}  # What later cases build upon.

    def seconds(self, full, quick=1):
        return quick if self.quick else full

    def side_by_side(self, sides, warm=2, seconds=4, rounds=None):
        """Alternates A B A B A...; sides is name -> function(seconds); returns name -> rounds."""
        warm, seconds = self.seconds(warm), self.seconds(seconds)
        for one in sides.values():
            one(warm)
        results = {name: [] for name in sides}
        for _ in range(self.rounds if self.quick or rounds is None else rounds):
            for name, one in sides.items():
                results[name].append(one(seconds))
        return results


def direct(model, rows, threads, seconds, cpus):
    words = pinned(cpus, DIRECT, "loop", model, rows, threads, seconds)
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True, timeout=seconds + PATIENCE).stdout)
