"""Requests as people type them, and HTTP/1 as proxies and old clients speak it."""

import gzip
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from serving import PATIENCE_S, Raw, Server, binary_request, put_model, put_sim, sim_request

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")

ONES = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 16], "data": [1] * 16}]}
PATH = "/v2/models/identity_fp32/infer"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("curl") / "models"
    root.mkdir()
    put_model(root, "identity_fp32")
    put_model(root, "dynamic")
    put_sim(root, "slow", parameters={"tau0": "50ms"})
    put_sim(root, "quick", parameters={"tau0": "1us"})
    with Server(root.parent, root) as server:
        yield server


def curl(server, path, *words, data=None, code=0):
    """Head and body of the last answer."""
    command = ["curl", "-sS", "-i", "--max-time", str(PATIENCE_S), *words]
    if data is not None:
        command += ["--data-binary", "@-"]
    done = subprocess.run(
        [*command, server.url + path], input=data, capture_output=True, timeout=2 * PATIENCE_S
    )
    assert done.returncode == code, done.stderr
    head, body = split(done.stdout)
    return head.decode(), body


def split(text):
    """Leaves out what was said with 100."""
    while text.startswith(b"HTTP/1.1 100"):
        text = text.partition(b"\r\n\r\n")[2]
    head, _, body = text.partition(b"\r\n\r\n")
    return head, body


def test_the_readmes_first_request(server):
    _, body = curl(server, PATH, data=json.dumps(ONES).encode())
    assert json.loads(body)["outputs"][0]["data"] == [1] * 16


def test_the_first_page_lists_what_there_is(server):
    _, body = curl(server, "/")
    assert b"Weir" in body
    assert b"/v2/models/{model}[/versions/{version}]/infer" in body


def test_a_query_is_ignored(server):
    head, _ = curl(server, "/v2/health/live?verbose=1&x=%00")
    assert " 200 " in head


def test_head_is_get_without_a_body(server):
    head, body = curl(server, "/v2/health/live", "--head")
    assert " 200 " in head
    assert "Content-Length: 13" in head
    assert body == b""


def test_a_large_upload_waits_to_be_asked_for(server):
    """curl says Expect: 100-continue by itself above a megabyte."""
    values = np.random.default_rng(1).random((1, 600, 600), np.float32)
    body, headers = binary_request({"x": values}, ["y"])
    words = [word for item in headers.items() for word in ("-H", ": ".join(item))]
    command = ["curl", "-sS", "-v", "--data-binary", "@-", *words]
    command.append(f"{server.url}/v2/models/dynamic/infer")
    done = subprocess.run(command, input=body, capture_output=True, timeout=PATIENCE_S)
    said = done.stderr.decode()
    assert "Expect: 100-continue" in said
    assert "HTTP/1.1 100 Continue" in said
    assert done.stdout.endswith(values.tobytes())


def test_an_upload_too_large_is_refused_before_it_is_sent(server):
    with Raw(server.port) as raw:
        raw.send(b"POST %s HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n" % PATH.encode())
        raw.send(b"Content-Length: 10000000000\r\n\r\n")
        answer = raw.answer()
        assert answer.status == 413
        assert "10000000000" in answer.error and "at most 67108864" in answer.error


def test_an_unknown_expectation_is_refused(server):
    with Raw(server.port) as raw:
        raw.send(b"POST %s HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n" % PATH.encode())
        raw.send(b"Content-Length: 2\r\n\r\n{}")
        assert raw.answer().status in (400, 417)


def test_a_chunked_upload(server):
    chunked = ("-H", "Transfer-Encoding: chunked")
    _, body = curl(server, PATH, *chunked, data=json.dumps(ONES).encode())
    assert json.loads(body)["outputs"][0]["data"] == [1] * 16
    values = np.random.default_rng(2).random((1, 700, 700), np.float32)
    sent, headers = binary_request({"x": values}, ["y"])
    words = [word for item in headers.items() for word in ("-H", ": ".join(item))]
    _, body = curl(server, "/v2/models/dynamic/infer", *chunked, *words, data=sent)
    assert body.endswith(values.tobytes())


def test_chunks_of_every_size_with_extensions_and_trailers(server):
    text = json.dumps(ONES).encode()
    with Raw(server.port) as raw:
        for size in (1, 2, 3, 7, 50, len(text)):
            raw.send(b"POST %s HTTP/1.1\r\nHost: a\r\n" % PATH.encode())
            raw.send(b"Transfer-Encoding: chunked\r\n\r\n")
            for at in range(0, len(text), size):
                part = text[at : at + size]
                raw.send(b"%X;name=value\r\n%s\r\n" % (len(part), part))
            raw.send(b"0\r\nTrailing: yes\r\n\r\n")
            assert raw.answer().json()["outputs"][0]["data"] == [1] * 16


def test_compressed_answers_and_bodies(server):
    body = json.dumps({"inputs": [{**ONES["inputs"][0], "shape": [200, 16], "data": [1] * 3200}]})
    packed = gzip.compress(body.encode())
    words = ("--compressed", "-H", "Content-Encoding: gzip")
    head, plain = curl(server, PATH, *words, data=packed)
    assert re.search("Content-Encoding: (gzip|deflate)", head)
    assert json.loads(plain)["outputs"][0]["shape"] == [200, 16]


def test_http_1_0_closes_unless_asked(server):
    with Raw(server.port) as raw:
        raw.send(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
        said = raw.rest()
        assert b" 200 " in said and said.endswith(b'{"live":true}')
    with Raw(server.port) as raw:
        for _ in range(3):
            raw.send(b"GET /v2/health/live HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            answer = raw.answer()
            assert answer.status == 200
            assert answer.headers["connection"].lower() == "keep-alive"
    head, body = curl(server, PATH, "--http1.0", data=json.dumps(ONES).encode())
    assert " 200 " in head
    assert json.loads(body)["model_name"] == "identity_fp32"


def test_http_1_0_gets_a_stream_without_chunks(server):
    with Raw(server.port) as raw:
        text = json.dumps({"x": list(range(16))}).encode()
        raw.send(b"POST /v2/models/quick/generate_stream HTTP/1.0\r\n")
        raw.send(b"Content-Length: %d\r\n\r\n%s" % (len(text), text))
        head, _, body = raw.rest().partition(b"\r\n\r\n")
        assert b"chunked" not in head
        assert body.startswith(b"data: {") and body.endswith(b"}\n\n")


def test_connection_close_is_kept(server):
    with Raw(server.port) as raw:
        raw.send(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        said = raw.rest()
        assert b"Connection: close" in said and said.endswith(b'{"live":true}')


def post(path, body, *headers):
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {len(text)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + text


def test_pipelined_requests_are_answered_in_order(server):
    """Slow ones, quick ones, wrong ones and streams: each answer in its turn."""
    kinds = [
        (post("/v2/models/slow/infer", sim_request(id="slow")), 200, '"id":"slow"'),
        (post(PATH, {**ONES, "id": "now"}), 200, '"id":"now"'),
        (b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n", 200, "live"),
        (post("/v2/models/nothing/infer", b"{}"), 404, "nothing"),
        (post(PATH, b"{"), 400, "JSON"),
        (post("/v2/models/quick/generate_stream", {"x": [1] * 16, "id": "s"}), 200, '"id":"s"'),
        (post("/v2/models/quick/generate", {"x": [1] * 16, "id": "g"}), 200, '"id":"g"'),
    ]
    order = kinds * 20
    with Raw(server.port) as raw:
        raw.send(b"".join(request for request, _, _ in order))
        for _, status, words in order:
            answer = raw.answer()
            assert (answer.status, words in answer.body.decode()) == (status, True), answer.body


def test_keep_alive_serves_many_requests_on_one_connection(server):
    before = server.files()
    with Raw(server.port) as raw:
        for i in range(500):
            raw.send(post(PATH, {**ONES, "id": str(i)}))
            assert raw.answer().json()["id"] == str(i)
        server.await_("no more files", lambda: server.files() <= before + 2)


def test_a_request_id_is_repeated_and_a_trace_passed_on(server):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = server.get("/v2/health/live", {"X-Request-Id": "mine-7", "traceparent": trace})
    assert answer.headers["X-Request-Id"] == "mine-7"
    assert answer.headers["traceparent"] == trace
    for wrong in ("has spaces in it", "x" * 200):
        answer = server.get("/v2/health/live", {"X-Request-Id": wrong, "traceparent": wrong})
        assert answer.headers.get("X-Request-Id") != wrong
        assert "traceparent" not in answer.headers


def test_every_port_speaks_everything(server):
    for port in server.ports:
        with server.connect(port) as connection:
            assert connection.post(PATH, ONES).status == 200
            assert connection.ask("GET", "/metrics").status == 200
