"""Cancellation by id: POST v2/models/M/cancel, over every protocol, loop and state of a request."""

import json

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from serving import Raw, Server, infer_path, make_key, put_sim, sim_request

HANGS = {"hang_at": 2}  # The first run after the one at load ends only when it is stopped.


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    put_sim(folder, "hang", parameters=HANGS, max_batch_size=0, batching="off",
            instance_group=[{"count": 1}])
    put_sim(folder, "other")
    return folder


def send(server, model, id, headers=""):
    """An inference on a connection of its own; the answer is read later."""
    raw = Raw(server.port)
    body = json.dumps(sim_request(id=id)).encode()
    head = f"POST {infer_path(model)} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    raw.send(head.encode() + body)
    return raw


def cancel(server, model, id, version=None, headers=None):
    path = infer_path(model, version).replace("/infer", "/cancel")
    return server.post(path, {"id": id}, headers)


def accepted(server, count):
    """Waits until so many requests are in the server's hands."""
    size = count * len(json.dumps(sim_request(id="x")))
    held = "weir_http_bodies_bytes"
    server.await_("they are there", lambda: server.metrics().get(held) >= size)


def canceled(server, model, id, count=1, **how):
    """Asks until so many were stopped in all: what was sent may not be in line yet."""
    total = 0

    def some():
        nonlocal total
        answer = cancel(server, model, id, **how)
        assert answer.status == 200, answer.body
        total += answer.json()["canceled"]
        return total >= count

    server.await_(f"{count} of {id} canceled", some)
    assert total == count


def gone(server, model):
    return server.stats(model)["inference_stats"]["fail"]["count"]


def test_a_running_request_is_stopped(tmp_path, root):
    with Server(tmp_path, root) as server, send(server, "hang", "a") as running:
        canceled(server, "hang", "a")
        answer = running.answer()
        assert answer.status == 499
        assert "cancel" in answer.error
        server.await_("it is counted", lambda: gone(server, "hang") == 1)


def test_a_waiting_request_leaves_and_its_neighbours_stay(tmp_path, root):
    """One loop: what it holds of a request when it answers another one, it has put in line."""
    with Server(tmp_path, root, "--loops", "1") as server:
        with send(server, "hang", "first") as first:
            accepted(server, 1)
            server.await_("it runs", lambda: server.pending("hang") == 0)
            with send(server, "hang", "b") as b, send(server, "hang", "c") as c:
                canceled(server, "hang", "b")
                assert b.answer().status == 499
                canceled(server, "hang", "first")
                assert first.answer().status == 499
                assert c.answer().status == 200


def test_all_loops_are_looked_through(tmp_path, root):
    """Each request hangs in a model of its own; the orders come in on one connection."""
    names = [f"hang{i}" for i in range(12)]
    for name in names:
        put_sim(root, name, parameters=HANGS, max_batch_size=0, batching="off")
    with Server(tmp_path, root, "--loops", "3") as server:
        held = [send(server, name, "same") for name in names]
        accepted(server, len(names))
        with server.connect() as connection:

            def order(name):
                return connection.post(f"/v2/models/{name}/cancel", {"id": "same"}).json()

            for name, raw in zip(names, held):
                server.await_(f"{name} canceled", lambda: order(name) == {"canceled": 1})
                assert raw.answer().status == 499
                raw.socket.close()


def test_only_that_model_and_version(tmp_path, root):
    with Server(tmp_path, root) as server, send(server, "hang", "x") as running:
        assert cancel(server, "other", "x").json() == {"canceled": 0}
        assert cancel(server, "hang", "x", version=2).json() == {"canceled": 0}
        assert cancel(server, "hang", "y").json() == {"canceled": 0}
        unknown = cancel(server, "nobody", "x")
        assert unknown.status == 404 and "'nobody' is not found" in unknown.json()["error"]
        canceled(server, "hang", "x", version=1)
        assert running.answer().status == 499


def test_over_grpc_too(tmp_path, root):
    with Server(tmp_path, root) as server:
        client = triton.InferenceServerClient(f"127.0.0.1:{server.ports[1]}")
        tensor = triton.InferInput("x", [1, 16], "FP32")
        tensor.set_data_from_numpy(np.zeros((1, 16), np.float32))
        answers = []
        client.async_infer(
            "hang", [tensor], lambda result, error: answers.append(error), request_id="g"
        )
        canceled(server, "hang", "g")
        server.await_("the answer", lambda: answers)
        assert answers[0].status() == str(grpc.StatusCode.CANCELLED)
        client.close()


@pytest.fixture
def loading(tmp_path, root):
    """A server whose model `slow`, loaded when it is asked for, would take an hour for that."""
    words = ("--model-control", "demand", "--limits.drain-timeout", "300ms", "--loops", "2")
    put_sim(root, "slow", parameters={"load": "1h"}, isolation="process", batching="off")
    with Server(tmp_path, root, *words) as server:
        yield server


def test_before_the_model_is_there(loading):
    """Also where the id stands behind more JSON than a loop reads itself."""
    large = json.dumps({**sim_request(rows=4096), "id": "b"}).encode()
    head = f"POST {infer_path('slow')} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(large)}\r\n\r\n"
    with send(loading, "slow", "a") as a, Raw(loading.port) as b, send(loading, "slow", "c") as c:
        b.send(head.encode() + large)
        assert cancel(loading, "slow", "other").json() == {"canceled": 0}
        canceled(loading, "slow", "b")
        canceled(loading, "slow", "a", version=1)
        for raw in (a, b):
            answer = raw.answer()
            assert answer.status == 499 and "being loaded" in answer.error
        canceled(loading, "slow", "c")
        assert c.answer().status == 499


@pytest.mark.parametrize("streams", [False, True])
def test_before_the_model_is_there_over_grpc(loading, streams):
    client = triton.InferenceServerClient(f"127.0.0.1:{loading.ports[1]}")
    tensor = triton.InferInput("x", [1, 16], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 16), np.float32))
    errors = []

    def answered(result, error):
        errors.append(error)

    if streams:
        client.start_stream(answered)
        client.async_stream_infer("slow", [tensor], request_id="g")
    else:
        client.async_infer("slow", [tensor], answered, request_id="g")
    canceled(loading, "slow", "g")
    loading.await_("the answer", lambda: errors)
    assert "being loaded" in errors[0].message()
    client.close()


@pytest.mark.parametrize("body", [b"{}", b'{"id": ""}', b'{"id": 3}', b"", b"[]"])
def test_an_order_without_an_id_is_refused(tmp_path, root, body):
    with Server(tmp_path, root) as server:
        answer = server.post("/v2/models/hang/cancel", body)
        assert answer.status == 400
        assert "id" in answer.error or "JSON" in answer.error or "object" in answer.error


def test_a_key_stops_its_own_requests_only(tmp_path, root):
    file = tmp_path / "keys.yaml"
    keys = {
        "alice": make_key(file, "alice", "--weight", "4"),
        "bob": make_key(file, "bob"),
        "ops": make_key(file, "ops", "--allow", "all"),
    }
    assert "weight: 4" in file.read_text()
    words = {name: {"X-Api-Key": key} for name, key in keys.items()}
    with Server(tmp_path, root, "--api-keys", file) as server:
        for stopper in ("alice", "ops"):
            with send(server, "hang", "k", f"X-Api-Key: {keys['alice']}\r\n") as running:
                assert cancel(server, "hang", "k", headers=words["bob"]).json() == {"canceled": 0}
                if stopper == "alice":
                    canceled(server, "hang", "k", headers=words["alice"])
                    assert running.answer().status == 499
                else:
                    # Only the first run hangs: by now it may have ended by itself.
                    assert cancel(server, "hang", "k", headers=words["ops"]).status == 200
                    assert running.answer().status in (200, 499)
