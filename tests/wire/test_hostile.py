"""Clients that mean harm: what one of them sends must not reach the others."""

import gzip
import json

import numpy as np
import pytest

from serving import Raw, Server, binary_request, put_model, tensor


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    scratch = tmp_path_factory.mktemp("hostile")
    repository = scratch / "models"
    repository.mkdir()
    put_model(repository, "identity_fp32")
    with Server(scratch, "--model-control", "explicit", "--load-model", "*", repository) as server:
        yield server


SETTINGS = [
    "/v2/logging",
    "/v2/trace/setting",
    "/v2/repository/index",
    "/v2/repository/models/identity_fp32/unload",
    "/v2/systemsharedmemory/region/r/register",
]


@pytest.mark.parametrize("path", SETTINGS)
def test_settings_are_small_because_the_loop_reads_them(server, path):
    big = b'{"ignored":[' + b"[]," * 200_000 + b"0]}"
    assert server.post(path, big).status == 413
    packed = server.post(path, gzip.compress(big, 1), {"Content-Encoding": "gzip"})
    assert packed.status == 413
    assert server.get("/v2/models/identity_fp32/ready").status == 200


def test_a_large_load_is_read_off_the_loop(server):
    files = {"config": "{}", "file:1/model.onnx": "A" * 1_000_000}
    answer = server.post("/v2/repository/models/identity_fp32/load", {"parameters": files})
    assert answer.status == 501
    assert "file:" in answer.error
    config = {"parameters": {"config": json.dumps({"x": "A" * 1_000_000})}}
    assert server.post("/v2/repository/models/identity_fp32/load", config).status == 400
    cut = b'{"parameters":{"config":"' + b"A" * 1_000_000
    assert server.post("/v2/repository/models/identity_fp32/load", cut).status == 400
    # Whoever leaves meanwhile is not waited for.
    with Raw(server.port) as raw:
        head = b"POST /v2/repository/models/identity_fp32/load HTTP/1.1\r\nHost: a\r\n"
        raw.send(head + b"Content-Length: %d\r\n\r\n" % len(cut) + cut)
        raw.reset()
    assert server.get("/v2/models/identity_fp32/ready").status == 200


def test_a_body_that_nobody_wants_is_not_inflated(server):
    assert server.ask("GET", "/v2/health/live", b"no gzip", {"Content-Encoding": "gzip"}).status == 200


def test_large_events_are_whole_and_in_order(server):
    """Above 20,000 numbers a worker writes the event."""
    values = [float(i % 1000) for i in range(64_000)]
    answer = server.post("/v2/models/identity_fp32/generate_stream", {"x": values})
    events = answer.body.decode().split("\n\n")
    assert len(events) == 2 and events[1] == ""
    assert json.loads(events[0].removeprefix("data: "))["y"] == values


def test_large_events_survive_clients_that_leave(server):
    body = json.dumps({"x": [0.5] * 320_000}).encode()
    head = b"POST /v2/models/identity_fp32/generate_stream HTTP/1.1\r\nHost: a\r\n"
    for _ in range(8):
        with Raw(server.port) as raw:
            raw.send(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            raw.reset()
    server.await_("bodies are let go", lambda: server.metrics().get("weir_http_bodies_bytes") == 0)
    server.await_("and so are tensors", lambda: server.metrics().get("weir_blocks_used_bytes") == 0)


ADMINISTRATION = [
    ("GET", "/v2/logging"),
    ("POST", "/v2/logging"),
    ("GET", "/v2/trace/setting"),
    ("POST", "/v2/repository/index"),
    ("POST", "/v2/repository/models/identity_fp32/load"),
    ("GET", "/v2/systemsharedmemory/status"),
]


@pytest.mark.parametrize(("method", "path"), ADMINISTRATION)
def test_administration_is_not_for_pages_whose_name_was_pointed_here(server, method, path):
    for host in ("localhost", server.address, "[::1]:8000", "weir:8000"):
        assert server.ask(method, path, None, {"Host": host}).status in (200, 501)
    for host in ("rebind.example", "rebind.example:8000", "127.0.0.1.example"):
        assert server.ask(method, path, None, {"Host": host}).status == 403
    assert server.get("/v2/health/live", {"Host": "rebind.example"}).status == 200


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A server that may hold eight MiB of bodies."""
    scratch = tmp_path_factory.mktemp("small")
    repository = scratch / "models"
    repository.mkdir()
    put_model(repository, "identity_fp32")
    with Server(scratch, "--limits.bodies-bytes-max", "8MiB", repository) as server:
        yield server


def is_whole(server):
    return server.infer("identity_fp32", {"inputs": [tensor("x", "FP32", [1, 16], [1] * 16)]}).status


def test_what_bodies_become_counts_while_they_grow(small):
    bomb = gzip.compress(b'{"inputs":[' + b" " * 12_000_000, 9)
    assert len(bomb) < 100_000
    answer = small.infer("identity_fp32", bomb, {"Content-Encoding": "gzip"})
    assert answer.status == 503
    assert "bodies_bytes_max" in answer.error
    assert answer.headers["Retry-After"]
    assert is_whole(small) == 200


def test_answers_that_are_not_read_count_like_bodies(small):
    """Six MiB come, and wait as six MiB of answer: others are told to come again later."""
    body, fields = binary_request({"x": np.zeros((98_304, 16), "float32")}, ["y"])
    head = "POST /v2/models/identity_fp32/infer HTTP/1.1\r\nHost: a\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    with Raw(small.port) as raw:
        raw.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        small.await_("it is full", lambda: is_whole(small) == 503)
        assert small.get("/v2/health/live").status == 200
        assert small.get("/metrics").status == 200
        assert raw.answer().status == 200
        small.await_("there is room again", lambda: is_whole(small) == 200)
        raw.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        small.await_("it is full", lambda: is_whole(small) == 503)
        raw.reset()
    small.await_("there is room again", lambda: is_whole(small) == 200)
    small.await_("no byte is held", lambda: small.metrics().get("weir_http_bodies_bytes") == 0)
