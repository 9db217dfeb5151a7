"""Equal requests: answered from the cache, or by one run; and runs that hold resources."""

import concurrent.futures
import json

import numpy as np
import pytest

from serving import Server, binary_request, infer_path, put_model, put_sim, sim_request


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("equal") / "models"
    root.mkdir()
    put_model(root, "cached", "add_sub", response_cache={"enable": True})
    put_model(root, "texts", "identity_bytes", response_cache={"enable": True})
    put_model(root, "plain", "add_sub")
    put_sim(root, "joined", parameters={"tau0": "500ms"}, max_batch_size=1, join=True)
    limiter = {"resources": [{"name": "r", "count": 1}]}
    for name in ("left", "right"):
        put_sim(
            root,
            name,
            parameters={"tau0": "100ms", "exclusive": "false"},
            max_batch_size=1,
            instance_group=[{"count": 1, "rate_limiter": limiter}],
        )
    return root


@pytest.fixture(scope="module")
def server(repository):
    words = ("--rate-limit", "execution_count", "--executors", "2")
    with Server(repository.parent, *words, repository) as server:
        yield server


def two(first, second):
    row = lambda value: np.full((1, 16), value, np.int32)  # noqa: E731
    return {"INPUT0": row(first), "INPUT1": row(second)}


def test_an_answer_from_the_cache_is_the_same_to_the_byte(server):
    body, headers = binary_request(two(1, 2), ["OUTPUT0", "OUTPUT1"])
    fresh = server.infer("cached", body, headers)
    assert fresh.status == 200
    before = server.stats("cached")
    again = server.infer("cached", body, headers)
    assert again.body == fresh.body
    after = server.stats("cached")
    assert after["execution_count"] == before["execution_count"]
    assert after["inference_stats"]["cache_hit"]["count"] == 1
    assert after["inference_stats"]["cache_hit"]["ns"] > 0
    assert after["inference_stats"]["cache_miss"]["count"] == 1
    stats = after["inference_stats"]
    assert stats["success"]["count"] == 2 == stats["queue"]["count"]
    assert stats["compute_infer"]["count"] == 1
    metrics = server.metrics()
    assert metrics.of_model("nv_cache_num_hits_per_model", "cached") == 1
    assert metrics.of_model("nv_cache_num_misses_per_model", "cached") == 1
    assert ("nv_cache_num_hits_per_model", (("model", "plain"), ("version", "1"))) not in (
        metrics.samples
    )


def test_what_differs_is_run(server):
    runs = server.stats("cached")["execution_count"]
    asked = [
        binary_request(two(3, 4), ["OUTPUT0"]),
        binary_request(two(3, 5), ["OUTPUT0"]),
        binary_request(two(3, 4), ["OUTPUT1"]),
        binary_request(
            {name: np.repeat(values, 2, 0) for name, values in two(3, 4).items()}, ["OUTPUT0"]
        ),
    ]
    answers = {server.infer("cached", body, headers).body for body, headers in asked}
    assert len(answers) == len(asked)
    assert server.stats("cached")["execution_count"] == runs + len(asked)
    # How the tensors travel is no difference: JSON finds what binary brought.
    body = {
        "inputs": [
            {"name": name, "datatype": "INT32", "shape": [1, 16], "data": values.ravel().tolist()}
            for name, values in two(3, 4).items()
        ],
        "outputs": [{"name": "OUTPUT0"}],
    }
    assert server.infer("cached", body).json()["outputs"][0]["data"] == [7] * 16
    assert server.stats("cached")["execution_count"] == runs + len(asked)


def test_texts(server):
    def ask(*texts):
        data = {"name": "x", "datatype": "BYTES", "shape": [1, 4], "data": list(texts)}
        return server.infer("texts", {"inputs": [data]}).json()["outputs"][0]["data"]

    for texts in (("a", "b", "c", "d"), ("ab", "", "c", "d"), ("", "ab", "c", "d")):
        assert ask(*texts) == list(texts)
        assert ask(*texts) == list(texts)
    assert server.stats("texts")["inference_stats"]["cache_hit"]["count"] == 3


def test_a_reload_asks_the_model_again(server, repository):
    body, headers = binary_request(two(5, 6), ["OUTPUT0"])
    server.infer("cached", body, headers)
    put_model(repository, "cached", "add_sub", version=2, response_cache={"enable": True})
    with Server(repository.parent, "--model-control", "explicit", repository) as other:
        assert other.load("cached").status == 200
        first = other.infer("cached", body, headers)
        assert other.stats("cached")["inference_stats"]["cache_hit"]["count"] == 0
        assert other.infer("cached", body, headers).body == first.body
        assert other.stats("cached")["inference_stats"]["cache_hit"]["count"] == 1
        assert other.unload("cached").status == 200
        other.await_("it to be unloaded", lambda: other.metrics().get("weir_cache_entries") == 0)
        assert other.load("cached").status == 200
        assert other.infer("cached", body, headers).body == first.body
        assert other.stats("cached")["inference_stats"]["cache_hit"]["count"] == 0


def test_no_cache_where_the_server_has_none(server, repository):
    body, headers = binary_request(two(5, 6), ["OUTPUT0"])
    with Server(repository.parent, "--cache-bytes", "0", repository) as other:
        for _ in range(3):
            assert other.infer("plain", body, headers).status == 200
            assert other.infer("cached", body, headers).status == 200
        assert other.stats("cached")["inference_stats"]["cache_miss"]["count"] == 0
        assert other.stats("cached")["execution_count"] == 3


def test_equal_requests_in_flight_share_one_run(server):
    path = infer_path("joined")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: server.post(path, sim_request()), range(8)))
    assert {answer.status for answer in answers} == {200}
    assert len({json.dumps(answer.json()["outputs"]) for answer in answers}) == 1
    joined = server.metrics().of_model("weir_requests_joined_total", "joined")
    stats = server.stats("joined")
    assert joined > 0
    assert stats["inference_stats"]["success"]["count"] == 8
    assert stats["execution_count"] == 8 - joined


def test_runs_that_hold_one_resource_take_turns(server):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        jobs = [
            pool.submit(server.post, infer_path(name), sim_request())
            for name in ("left", "right") * 4
        ]
        assert {job.result().status for job in jobs} == {200}
