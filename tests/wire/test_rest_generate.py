"""generate and generate_stream: plain JSON in and out, parts as they come, and clients that go."""

import http.client
import json

import pytest

from serving import PATIENCE_S, Raw, Server, put_model, put_sim

ROW = [i / 4 for i in range(16)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("generate") / "models"
    root.mkdir()
    for name in (
        "add_sub",
        "scalar",
        "dynamic",
        "identity_bytes",
        "identity_fp16",
        "fixed",
        "gather",
    ):
        put_model(root, name)
    put_sim(root, "once")
    put_sim(root, "streams", parameters={"parts": 5, "tau0": "5ms", "exclusive": "false"})
    one = [{"count": 1}]
    put_sim(root, "endless", parameters={"parts": 5_000_000, "tau0": "1us"}, instance_group=one)
    put_sim(root, "flood", parameters={"parts": 200_000, "tau0": "1us"}, max_batch_size=256)
    put_sim(root, "fails", parameters={"parts": 3, "fail_at": 3})
    with Server(root.parent, "--limits.write-timeout", "30s", root) as server:
        yield server


def generate(server, model, body, stream=False):
    return server.post(f"/v2/models/{model}/generate{'_stream' if stream else ''}", body)


def events(body):
    """The JSON of each `data:` line; anything else is an error."""
    text = body.decode()
    assert text.endswith("\n\n")
    found = []
    for event in text[:-2].split("\n\n"):
        assert event.startswith("data: ") and "\n" not in event, event
        found.append(json.loads(event[6:]))
    return found


class Stream:
    """A streamed answer that is read event by event."""

    def __init__(self, server, model, body):
        self.http = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
        self.http.request("POST", f"/v2/models/{model}/generate_stream", json.dumps(body))
        self.answer = self.http.getresponse()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.close()

    def event(self):
        line = self.answer.readline()
        assert line.startswith(b"data: "), line
        assert self.answer.readline() == b"\n"
        return json.loads(line[6:])


# --- generate -------------------------------------------------------------------------------------


def test_members_named_as_inputs_are_tensors(server):
    answer = generate(server, "add_sub", {"INPUT0": [3] * 16, "INPUT1": [1] * 16, "id": "a"})
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == {
        "OUTPUT0": [4] * 16,
        "OUTPUT1": [2] * 16,
        "id": "a",
        "model_name": "add_sub",
        "model_version": "1",
    }
    assert list(answer.json()) == sorted(answer.json())


def test_one_value_stands_bare(server):
    assert generate(server, "scalar", {"x": 2}).json()["y"] == 3
    assert generate(server, "scalar", {"x": [2]}).json()["y"] == 3


def test_parameters_may_hold_inputs_too(server):
    assert generate(server, "scalar", {"parameters": {"x": 2, "temperature": 0.5}}).json()["y"] == 3
    answer = generate(server, "scalar", {"x": 2, "note": "text", "flag": True, "ratio": 0.1})
    assert answer.json()["y"] == 3


def test_values_fill_the_shape(server):
    answer = generate(server, "identity_bytes", {"x": ["a", "b\0", "\u00e4", ""] * 2})
    assert answer.json()["y"] == ["a", "b\0", "\u00e4", ""] * 2
    assert generate(server, "fixed", {"x": [[1, 2, 3], [4, 5, 6]]}).json()["y"] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]
    assert generate(server, "dynamic", {"x": [1, 2, 3, 4, 5]}).json()["y"] == [1, 2, 3, 4, 5]
    refused = generate(server, "fixed", {"x": [1, 2, 3, 4, 5, 6, 7]})
    assert (refused.status, "can not convert input 'x'" in refused.error) == (400, True)


def test_half_precision_cannot_be_generated(server):
    answer = generate(server, "identity_fp16", {"x": [1, 2, 3, 4]})
    assert (answer.status, "FP16" in answer.error) == (400, True)


def test_a_version_may_be_named(server):
    assert server.post("/v2/models/scalar/versions/1/generate", {"x": 2}).json()["y"] == 3
    assert server.post("/v2/models/scalar/versions/2/generate", {"x": 2}).status == 404


def test_the_models_own_refusal_is_the_clients_mistake(server):
    for stream in (False, True):
        answer = generate(server, "gather", {"index": 99}, stream)
        assert (answer.status, "gather" in answer.error.lower()) == (400, True)


def test_one_response_where_many_come_is_refused(server):
    answer = generate(server, "streams", {"x": ROW})
    assert answer.status == 400
    assert "generate_stream" in answer.error or "generate stream" in answer.error


# --- generate_stream ------------------------------------------------------------------------------


def test_each_part_is_an_event(server):
    answer = generate(server, "streams", {"x": ROW, "id": "s"}, stream=True)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert "Content-Length" not in answer.headers
    found = events(answer.body)
    assert len(found) == 5
    for event in found:
        assert event["id"] == "s"
        assert event["model_name"] == "streams"
        assert len(event["y"]) == 16


def test_a_model_that_answers_once_gives_one_event(server):
    assert [event["y"] for event in events(generate(server, "once", {"x": ROW}, True).body)] == [
        ROW
    ]


def test_parts_come_while_the_model_runs(server):
    """There are five million parts: whoever waited for the last would not see the first."""
    with Stream(server, "endless", {"x": ROW}) as stream:
        for _ in range(3):
            assert len(stream.event()["y"]) == 16


def test_many_streams_at_once(server):
    streams = [Stream(server, "streams", {"x": ROW, "id": str(i)}) for i in range(20)]
    for i, stream in enumerate(streams):
        with stream:
            assert [stream.event()["id"] for _ in range(5)] == [str(i)] * 5
            assert stream.answer.read() == b""


def test_the_connection_serves_on_after_a_stream(server):
    with server.connect() as connection:
        for _ in range(3):
            assert connection.post("/v2/models/streams/generate_stream", {"x": ROW}).status == 200
            assert connection.post("/v2/models/scalar/generate", {"x": 1}).json()["y"] == 2


def test_a_failure_is_told_in_or_before_the_stream(server):
    first = generate(server, "fails", {"x": ROW}, stream=True)
    assert (first.status, len(events(first.body))) == (200, 3)
    second = generate(server, "fails", {"x": ROW}, stream=True)
    if second.status == 200:
        assert "error" in events(second.body)[-1]
    else:
        assert (second.status, "fail" in second.error) == (500, True)
    assert generate(server, "fails", {"x": ROW}, stream=True).status == 200


def await_idle(server, model):
    """Nobody uses the model any more than one that nobody asked."""

    def idle():
        leases = server.metrics().of_model
        return leases("weir_model_leases", model) == leases("weir_model_leases", "fixed")

    server.await_("idle", idle)


@pytest.mark.parametrize("how", ("close", "reset"))
def test_a_client_that_goes_stops_its_run(server, how):
    def canceled():
        return server.metrics().of_model("weir_requests_canceled_total", "endless")

    await_idle(server, "endless")
    before = canceled()
    text = json.dumps({"x": ROW}).encode()
    raw = Raw(server.port)
    raw.send(b"POST /v2/models/endless/generate_stream HTTP/1.1\r\nHost: a\r\n")
    raw.send(b"Content-Length: %d\r\n\r\n%s" % (len(text), text))
    raw.until(b"data: ")
    if how == "reset":
        raw.reset()
    else:
        raw.socket.close()
    await_idle(server, "endless")
    server.await_("it is counted", lambda: canceled() == before + 1)
    with Stream(server, "endless", {"x": ROW}) as stream:
        stream.event()


def test_a_client_that_goes_while_it_waits_leaves_the_line(server):
    await_idle(server, "endless")
    with Stream(server, "endless", {"x": ROW}) as running:
        running.event()
        others = [wait_in_line(server) for _ in range(3)]
        server.await_("in line", lambda: server.pending("endless") == 3)
        for other in others:
            other.reset()
        server.await_("out of line", lambda: server.pending("endless") == 0)
        running.event()


def wait_in_line(server):
    text = json.dumps({"x": ROW}).encode()
    raw = Raw(server.port)
    raw.send(b"POST /v2/models/endless/generate_stream HTTP/1.1\r\nHost: a\r\n")
    raw.send(b"Content-Length: %d\r\n\r\n%s" % (len(text), text))
    return raw


def test_a_client_that_does_not_read_slows_only_itself(server):
    """200,000 parts are more than all buffers take: the run waits, and memory does not grow."""
    text = json.dumps({"x": ROW}).encode()
    with Raw(server.port) as raw:
        raw.send(b"POST /v2/models/flood/generate_stream HTTP/1.1\r\nHost: a\r\n")
        raw.send(b"Content-Length: %d\r\n\r\n%s" % (len(text), text))
        raw.until(b"data: ")
        before = server.memory()
        for _ in range(50):
            assert generate(server, "once", {"x": ROW}).status == 200
        assert server.memory() - before < 64 << 20
        assert server.metrics().of_model("nv_inference_request_success", "flood") == 0
    await_idle(server, "flood")
    name = "weir_requests_canceled_total"
    server.await_("it is counted", lambda: server.metrics().of_model(name, "flood") == 1)


def test_every_part_of_a_long_stream_arrives(server):
    answer = generate(server, "flood", {"x": ROW}, stream=True)
    assert answer.body.count(b"data: {") == 200_000
    assert b"error" not in answer.body


def test_streams_are_counted(server):
    before = server.stats("streams")
    generate(server, "streams", {"x": ROW}, stream=True)
    after = server.stats("streams")
    grown = (
        after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"]
    )
    assert grown == 1
    assert set(after["response_stats"]) >= {"0", "4"}
    assert after["response_stats"]["4"]["success"]["count"] >= 1
