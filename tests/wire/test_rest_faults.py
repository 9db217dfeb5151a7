"""Faults that clients and models can make through the public API: each hurts only itself."""

import concurrent.futures
import contextlib
import os
import pathlib
import threading

import numpy as np
import pytest

from serving import (
    Server,
    binary_request,
    infer_path,
    is_sanitized,
    put_model,
    put_sim,
    sim_request,
    tensor,
)

DEADLINE = {"Weir-Deadline-Ms": "150"}


@pytest.fixture
def server(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    for name in ("loop", "gather", "div", "fill", "expand", "reshape", "scalar"):
        put_model(root, name)
    put_sim(root, "hangs", parameters={"hang_at": 2}, max_batch_size=1)
    put_sim(root, "poisoned", parameters={"poison": "13", "tau0": "5ms"})
    put_sim(root, "narrow", parameters={"oom_above_rows": 4, "tau0": "5ms"}, batching="insist")
    put_sim(root, "whole", parameters={"oom_above_rows": 4, "tau0": "5ms"}, batching="off")
    put_sim(root, "weak", parameters={"fail_above_rows": 2, "tau0": "5ms"}, batching="insist")
    put_sim(root, "queue", parameters={"tau0": "100ms"}, max_batch_size=1)
    small = {"default_queue_policy": {"max_queue_size": 2}}
    put_sim(
        root,
        "full",
        parameters={"tau0": "400ms"},
        max_batch_size=1,
        dynamic_batching=small,
        instance_group=[{"count": 1}],
    )
    with Server(tmp_path, "--executors", "2", root) as server:
        yield server


def integers(name, *values):
    return {"inputs": [tensor(name, "INT64", [len(values)], list(values))]}


def healthy(server):
    answer = server.infer("scalar", {"inputs": [tensor("x", "FP32", [], [1])]})
    assert (answer.status, answer.json()["outputs"][0]["data"]) == (200, [2])


def at_once(calls):
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


# --- Runs that do not end -------------------------------------------------------------------------


def test_an_endless_loop_is_stopped_at_its_deadline(server):
    body = {"inputs": [tensor("count", "INT64", [], [2**62])]}
    for _ in range(3):
        answer = server.in_time(lambda: server.infer("loop", body, DEADLINE))
        assert (answer.status, "deadline" in answer.error) == (504, True)
        healthy(server)
    server.await_("stopped", lambda: server.stats("loop")["inference_stats"]["fail"]["count"] == 3)
    answer = server.infer("loop", {"inputs": [tensor("count", "INT64", [], [10])]})
    assert answer.json()["outputs"][0]["data"] == [45]


def test_endless_loops_on_all_executors_are_stopped(server):
    body = {"inputs": [tensor("count", "INT64", [], [2**62])]}
    answers = at_once([lambda: server.infer("loop", body, DEADLINE)] * 6)
    assert [answer.status for answer in answers] == [504] * 6
    healthy(server)


def test_an_endless_loop_ends_when_its_client_goes(server):
    body = b'{"inputs":[{"name":"count","datatype":"INT64","shape":[],"data":[%d]}]}' % 2**62
    connection = server.connect()
    connection.http.request("POST", infer_path("loop"), body)
    server.await_("running", lambda: server.metrics().sum("weir_http_bodies_bytes") >= len(body))
    connection.http.close()
    server.await_("gone", lambda: canceled(server, "loop") == 1)
    answer = server.infer("loop", {"inputs": [tensor("count", "INT64", [], [10])]})
    assert answer.status == 200


def canceled(server, model):
    return server.metrics().of_model("weir_requests_canceled_total", model)


def test_a_hanging_run_is_stopped_at_its_deadline(server):
    def is_stopped():
        answer = server.infer("hangs", sim_request(), DEADLINE)
        assert (answer.status, "deadline" in answer.error) == (504, True)
        return "running" in answer.error

    server.await_("it began before its deadline", is_stopped)
    assert server.infer("hangs", sim_request()).status == 200


def test_an_endless_loop_does_not_hold_up_the_end(server):
    """SIGTERM finishes what was accepted; what cannot finish is given up after the drain time-out,
    or at once where its client went."""
    body = {"inputs": [tensor("count", "INT64", [], [2**62])]}
    waiting = threading.Thread(
        target=lambda: server.infer("loop", body, {"Weir-Deadline-Ms": "3000"})
    )
    waiting.start()
    server.await_("running", lambda: server.metrics().sum("weir_http_bodies_bytes") > 0)
    assert server.stop() == 0
    waiting.join()


# --- One guilty among many ------------------------------------------------------------------------


def test_an_index_out_of_range_fails_only_the_guilty(server):
    for _ in range(10):
        calls = [lambda i=i: server.infer("gather", integers("index", i)) for i in range(8)]
        calls.insert(4, lambda: server.infer("gather", integers("index", 99)))
        answers = at_once(calls)
        guilty = answers.pop(4)
        assert (guilty.status, "99" in guilty.error or "index" in guilty.error) == (400, True)
        assert [answer.json()["outputs"][0]["data"] for answer in answers] == [
            [i] for i in range(8)
        ]


def test_poison_fails_only_the_guilty(server):
    calls = [lambda i=i: server.infer("poisoned", sim_request([i] * 16)) for i in range(24)]
    answers = at_once(calls)
    for i, answer in enumerate(answers):
        if i == 13:
            assert (answer.status, "poison" in answer.error) == (400, True)
        else:
            assert answer.json()["outputs"][0]["data"] == [i] * 16


def test_batches_too_large_for_the_memory_are_split(server):
    for model in ("narrow", "weak"):
        for _ in range(3):
            calls = [lambda i=i: server.infer(model, sim_request([i] * 16)) for i in range(16)]
            answers = at_once(calls)
            assert [answer.status for answer in answers] == [200] * 16
            assert [a.json()["outputs"][0]["data"][0] for a in answers] == list(range(16))
    sizes = [entry["batch_size"] for entry in server.stats("narrow")["batch_stats"]]
    server.await_("the warning", lambda: "rows did not fit in the memory of device 'cpu'" in server.logged())
    assert sizes


def test_one_request_that_is_too_large_by_itself_runs_in_pieces(server):
    answer = server.infer("narrow", sim_request(rows=8))
    assert answer.status == 200
    assert answer.json()["outputs"][0]["data"] == list(range(16)) * 8


def test_where_rows_belong_together_it_is_told(server):
    answer = server.infer("whole", sim_request(rows=8))
    assert (answer.status, "memory" in answer.error) == (503, True)
    assert server.infer("whole", sim_request(rows=4)).status == 200


# --- Numbers that hurt ----------------------------------------------------------------------------


@pytest.mark.parametrize("a,b", ((1, 0), (0, 0), (-(2**31), -1)))
def test_division_that_traps(server, a, b):
    body = {"inputs": [tensor("a", "INT32", [1], [a]), tensor("b", "INT32", [1], [b])]}
    answer = server.infer("div", body)
    if b == 0:
        assert (answer.status, "ero" in answer.error) == (400, True), answer.error
    else:
        assert answer.json()["outputs"][0]["data"] == [a], "it wraps, as numpy's does"
    good = {"inputs": [tensor("a", "INT32", [1], [6]), tensor("b", "INT32", [1], [3])]}
    assert server.infer("div", good).json()["outputs"][0]["data"] == [2]


# A sanitizer ends the process where the C++ library would throw.
TOO_LARGE = (-1, -(2**63)) if is_sanitized() else (10**12, 2**62, 2**63 - 1, -1, -(2**63))


@pytest.mark.parametrize("size", TOO_LARGE)
def test_outputs_too_large_for_any_memory(server, size):
    for model in ("fill", "expand"):
        answer = server.infer(model, integers("shape", size))
        assert answer.status in (400, 503), (model, answer.body)
        assert answer.error
    healthy(server)


def test_large_intermediate_results_are_given_back(server):
    before = server.memory()
    for _ in range(3):
        answer = server.infer("fill", integers("shape", 20_000_000))
        assert answer.json()["outputs"][0]["data"] == [16777216] or answer.status == 200
    server.await_("given back", lambda: server.memory() - before < 200 << 20)


def test_an_output_larger_than_allowed_is_told(tmp_path):
    root = tmp_path / "more" / "models"
    root.mkdir(parents=True)
    put_model(root, "expand")
    with Server(root.parent, "--limits.response-bytes-max", "1MiB", root) as server:
        body, headers = binary_request({"shape": np.array([1000], np.int64)}, ["y"])
        assert server.infer("expand", body, headers).status == 200
        body, headers = binary_request({"shape": np.array([1 << 20], np.int64)}, ["y"])
        answer = server.infer("expand", body, headers)
        assert (answer.status, "response_bytes_max" in answer.error) == (503, True)


def test_reshapes_that_do_not_fit(server):
    x = tensor("x", "FP32", [6], [1, 2, 3, 4, 5, 6])
    for shape in ([4, 2], [-1, -1], [-5, 2], [2**62, 2**62], [0, 7]):
        answer = server.infer("reshape", {"inputs": [x, tensor("shape", "INT64", [2], shape)]})
        assert answer.status == 400, (shape, answer.body)
    good = {"inputs": [x, tensor("shape", "INT64", [2], [3, -1])]}
    assert server.infer("reshape", good).json()["outputs"][0]["shape"] == [3, 2]


# --- Too much -------------------------------------------------------------------------------------


def test_a_full_line_refuses_and_says_when_to_come_again(server):
    answers = at_once([lambda: server.infer("full", sim_request())] * 12)
    statuses = sorted(answer.status for answer in answers)
    assert set(statuses) == {200, 503}
    refused = [answer for answer in answers if answer.status == 503]
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    assert all("full" in answer.error for answer in refused), refused[0].error
    counted = server.metrics().of_model("weir_requests_refused_total", "full")
    assert counted == len(refused)


def test_deadlines_that_pass_in_line(server):
    answers = at_once([lambda: server.infer("queue", sim_request(), DEADLINE)] * 24)
    assert {answer.status for answer in answers} <= {200, 503, 504}
    assert any(answer.status in (503, 504) for answer in answers)
    server.await_("all ended", lambda: server.metrics().get("weir_blocks_used_bytes") == 0)
    stats = server.stats("queue")["inference_stats"]
    assert stats["success"]["count"] + stats["fail"]["count"] <= 24


# --- What the server keeps to itself --------------------------------------------------------------


def sockets_of(pid):
    count = 0
    for path in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # Closed meanwhile.
            count += "socket" in os.readlink(path)
    return count


def test_no_telemetry(tmp_path):
    """ONNX Runtime's own builds start an uploader by default: no thread and no file of it."""
    home = tmp_path / "home"
    root = tmp_path / "models"
    home.mkdir()
    root.mkdir()
    put_model(root, "scalar")
    away = {"HOME": str(home), "XDG_CACHE_HOME": str(home), "XDG_CONFIG_HOME": str(home)}
    with Server(tmp_path, "--executors", "2", "--loops", "1", root, env=away) as server:
        for _ in range(20):
            healthy(server)
        ours = ["weir", "weir-cpu", "weir-cpu", "weir-loader", "weir-loop", "weir-manager", "weir-scanner",
                "weir-watchdog"]

        def found():
            return [name for name in server.threads() if not name.startswith("libuv")]

        server.await_("only its threads", lambda: found() == ours)
        server.await_("only its three listeners", lambda: sockets_of(server.process.pid) == 3)
    assert list(home.iterdir()) == []
