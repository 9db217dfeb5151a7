"""Sequences over a real server: sums that only the right order and the right state give, by every
protocol that Triton's clients speak."""

import itertools
import queue
import threading
import time

import numpy as np
import pytest

from serving import PATIENCE_S, Server, binary_request, infer_path, put_model, tensor, write_whole

http = pytest.importorskip("tritonclient.http")
from tritonclient.utils import InferenceServerException  # noqa: E402

try:
    import tritonclient.grpc as grpc
except (ImportError, RuntimeError):  # Installed without.
    grpc = None

needs_grpc = pytest.mark.skipif(grpc is None, reason="no gRPC client")

IDLE_S = 2.0
MUST_START = "must specify the START flag on the first request of the sequence"


def control(name, kind, **values):
    return {"name": name, "control": [{"kind": f"CONTROL_SEQUENCE_{kind}", **values}]}


CONTROLS = [
    control("start", "START", int32_false_true=[0, 1]),
    control("ready", "READY", int32_false_true=[0, 1]),
    control("end", "END", int32_false_true=[0, 1]),
    control("corrid", "CORRID", data_type="TYPE_UINT64"),
]
STATE = {
    "input_name": "state",
    "output_name": "state_out",
    "data_type": "TYPE_INT32",
    "dims": [1],
}


def batching(strategy, idle_s=60.0, **more):
    return {
        "max_sequence_idle_microseconds": int(idle_s * 1e6),
        "control_input": CONTROLS,
        "state": [STATE],
        **strategy,
        **more,
    }


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("sequence") / "models"
    root.mkdir()
    direct = {"direct": {}}
    oldest = {"oldest": {"max_candidate_sequences": 4}}
    for name, strategy in (("direct", direct), ("oldest", oldest)):
        put_model(root, name, "accumulate", max_batch_size=4, sequence_batching=batching(strategy))
    put_model(
        root,
        "forgetful",
        "accumulate",
        max_batch_size=4,
        sequence_batching=batching(oldest, IDLE_S),
    )
    put_model(
        root,
        "one_slot",
        "accumulate",
        max_batch_size=1,
        instance_group=[{"count": 1}],
        sequence_batching=batching(direct, IDLE_S),
    )
    put_model(
        root,
        "remember",
        max_batch_size=0,
        sequence_batching={
            "oldest": {"max_candidate_sequences": 2},
            "control_input": [control("name", "CORRID", data_type="TYPE_STRING")],
            "state": [
                {
                    "input_name": "past",
                    "output_name": "past_out",
                    "data_type": "TYPE_FP32",
                    "dims": [-1],
                }
            ],
        },
    )
    return root


@pytest.fixture(scope="module")
def server(repository):
    with Server(repository.parent, repository) as server:
        yield server


def ask(server, model, value, sequence_id, start=False, end=False):
    """Status and body of one request over plain HTTP."""
    body = {
        "inputs": [tensor("x", "INT32", [1, 1], [value])],
        "parameters": {
            "sequence_id": sequence_id,
            "sequence_start": start,
            "sequence_end": end,
        },
    }
    return server.post(infer_path(model), body)


def output(answer, name="sum"):
    assert answer.status == 200, answer.body
    return next(o["data"] for o in answer.json()["outputs"] if o["name"] == name)


def give_http(server, model):
    client = http.InferenceServerClient(server.address)

    def give(value, **sequence):
        made = http.InferInput("x", [1, 1], "INT32")
        made.set_data_from_numpy(np.array([[value]], np.int32))
        return client.infer(model, [made], **sequence).as_numpy("sum").item()

    return give, client.close


def give_grpc(server, model):
    client = grpc.InferenceServerClient(server.address)

    def give(value, **sequence):
        made = grpc.InferInput("x", [1, 1], "INT32")
        made.set_data_from_numpy(np.array([[value]], np.int32))
        return client.infer(model, [made], **sequence).as_numpy("sum").item()

    return give, client.close


def give_stream(server, model):
    client = grpc.InferenceServerClient(server.address)
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))

    def give(value, **sequence):
        made = grpc.InferInput("x", [1, 1], "INT32")
        made.set_data_from_numpy(np.array([[value]], np.int32))
        client.async_stream_infer(model, [made], **sequence)
        result, error = answers.get(timeout=PATIENCE_S)
        if error is not None:
            raise error
        return result.as_numpy("sum").item()

    def close():
        client.stop_stream()
        client.close()

    return give, close


WAYS = [
    give_http,
    pytest.param(give_grpc, marks=needs_grpc),
    pytest.param(give_stream, marks=needs_grpc),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", ["direct", "oldest"])
def test_two_sequences_at_once_have_their_own_sums(server, model, way):
    give, close = way(server, model)
    try:
        for first, second in ((101, 102), (103, 104)):
            assert give(1, sequence_id=first, sequence_start=True) == 1
            assert give(10, sequence_id=second, sequence_start=True) == 10
            assert give(2, sequence_id=first) == 3
            assert give(20, sequence_id=second) == 30
            assert give(30, sequence_id=second, sequence_end=True) == 60
            assert give(3, sequence_id=first, sequence_end=True) == 6
            with pytest.raises(InferenceServerException, match=MUST_START):
                give(4, sequence_id=first)
    finally:
        close()


@needs_grpc
@pytest.mark.parametrize("model", ["direct", "oldest"])
def test_a_stream_of_requests_is_answered_in_order(server, model):
    client = grpc.InferenceServerClient(server.address)
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    steps = 40
    sums = {201: 0, 202: 0}
    expected = []
    for i, sequence in itertools.product(range(steps), sums):
        made = grpc.InferInput("x", [1, 1], "INT32")
        made.set_data_from_numpy(np.array([[i * sequence]], np.int32))
        sums[sequence] += i * sequence
        expected.append((f"{sequence}.{i}", sums[sequence]))
        client.async_stream_infer(
            model,
            [made],
            request_id=f"{sequence}.{i}",
            sequence_id=sequence,
            sequence_start=i == 0,
            sequence_end=i == steps - 1,
        )
    found = []
    for _ in expected:
        result, error = answers.get(timeout=PATIENCE_S)
        assert error is None, error
        found.append((result.get_response().id, result.as_numpy("sum").item()))
    client.stop_stream()
    client.close()
    assert sorted(found) == sorted(expected)
    for sequence in sums:
        own = [name for name, _ in found if name.startswith(f"{sequence}.")]
        assert own == [f"{sequence}.{i}" for i in range(steps)]


@pytest.mark.parametrize("model", ["direct", "oldest"])
def test_many_clients(server, model):
    """More sequences than places: some have to wait for others to end."""
    wrong = []

    def client(index):
        with server.connect() as connection:
            for round_ in range(3):
                total = 0
                for i in range(12):
                    value = (index + 1) * (i + 1) * (round_ + 1)
                    total += value
                    body = {
                        "inputs": [tensor("x", "INT32", [1, 1], [value])],
                        "parameters": {
                            "sequence_id": 1000 + index,
                            "sequence_start": i == 0,
                            "sequence_end": i == 11,
                        },
                    }
                    answer = connection.post(infer_path(model), body)
                    if answer.status != 200 or output(answer) != [total]:
                        wrong.append((index, round_, i, answer.body))

    threads = [threading.Thread(target=client, args=(i,)) for i in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert wrong == []


def test_the_same_words_again_are_of_the_same_sequence(server):
    """Binary tensors behind the same JSON, which the server remembers, on one connection."""
    body, headers = binary_request({"x": np.array([[3]], np.int32)},
                                   parameters={"sequence_id": 700, "sequence_start": True})
    again = binary_request({"x": np.array([[3]], np.int32)}, parameters={"sequence_id": 700})
    with server.connect() as connection:
        path = infer_path("oldest")
        sums = [output(connection.ask("POST", path, body, headers))]
        sums += [output(connection.ask("POST", path, *again)) for _ in range(4)]
    assert sums == [[3], [6], [9], [12], [15]]


def test_controls_are_told_to_the_model(server):
    for model in ("direct", "oldest"):
        first = ask(server, model, 5, 301, start=True)
        assert output(first, "flags") == [1, 1, 0]
        assert output(first, "id") == [301]
        assert output(ask(server, model, 5, 301), "flags") == [0, 1, 0]
        assert output(ask(server, model, 5, 301, end=True), "flags") == [0, 1, 1]


def test_controls_and_states_are_nobody_elses_business(server):
    told = server.get("/v2/models/direct").json()
    assert [made["name"] for made in told["inputs"]] == ["x"]
    assert sorted(made["name"] for made in told["outputs"]) == ["flags", "id", "sum"]
    config = server.get("/v2/models/direct/config").json()
    assert [made["name"] for made in config["input"]] == ["x"]
    assert config["sequence_batching"]["state"][0]["input_name"] == "state"
    given = {
        "inputs": [
            tensor("x", "INT32", [1, 1], [1]),
            tensor("state", "INT32", [1, 1], [100]),
        ],
        "parameters": {"sequence_id": 302, "sequence_start": True},
    }
    answer = server.post(infer_path("direct"), given)
    assert (answer.status, "unexpected inference input 'state'" in answer.error) == (400, True)


def test_what_is_refused(server):
    for model in ("direct", "oldest"):
        for sequence_id in (0, ""):
            answer = ask(server, model, 1, sequence_id, start=True)
            assert answer.status == 400
            assert "must specify a non-zero or non-empty correlation ID" in answer.error
        answer = ask(server, model, 1, 303)
        assert (answer.status, MUST_START in answer.error) == (400, True)
        assert f"sequence 303 to model '{model}'" in answer.error
        answer = ask(server, model, 1, "text", start=True)
        assert (answer.status, "is a text" in answer.error) == (400, True)
        two = {
            "inputs": [tensor("x", "INT32", [2, 1], [1, 2])],
            "parameters": {"sequence_id": 304, "sequence_start": True},
        }
        answer = server.post(infer_path(model), two)
        assert (answer.status, "must specify batch-size 1" in answer.error) == (400, True)


def test_a_start_on_a_sequence_that_goes_on_starts_it_anew(server):
    for model in ("direct", "oldest"):
        assert output(ask(server, model, 5, 305, start=True)) == [5]
        assert output(ask(server, model, 6, 305)) == [11]
        assert output(ask(server, model, 7, 305, start=True)) == [7]
        assert output(ask(server, model, 8, 305, end=True)) == [15]


def test_states_may_grow_and_ids_may_be_texts(server):
    def remember(value, sequence_id, **flags):
        body = {
            "inputs": [tensor("x", "FP32", [1], [value])],
            "parameters": {"sequence_id": sequence_id, **flags},
        }
        answer = server.post(infer_path("remember"), body)
        return output(answer, "all"), output(answer, "id")

    assert remember(1, "left", sequence_start=True) == ([0, 1], ["left"])
    assert remember(7, 306, sequence_start=True) == ([0, 7], ["306"])
    assert remember(2, "left") == ([0, 1, 2], ["left"])
    assert remember(8, 306) == ([0, 7, 8], ["306"])
    assert remember(3, "left", sequence_end=True) == ([0, 1, 2, 3], ["left"])
    assert remember(4, "left", sequence_start=True, sequence_end=True) == ([0, 4], ["left"])
    assert remember(9, 306, sequence_end=True) == ([0, 7, 8, 9], ["306"])


def test_a_state_may_begin_with_a_file(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    past = {
        "input_name": "past",
        "output_name": "past_out",
        "data_type": "TYPE_FP32",
        "dims": [-1],
        "initial_state": [
            {"name": "seed", "data_type": "TYPE_FP32", "dims": [3], "data_file": "seed.bin"}
        ],
    }
    put_model(
        root,
        "remember",
        max_batch_size=0,
        sequence_batching={
            "direct": {},
            "control_input": [control("name", "CORRID", data_type="TYPE_STRING")],
            "state": [past],
        },
    )
    write_whole(
        root / "remember" / "initial_state" / "seed.bin", np.array([7, 8, 9], np.float32).tobytes()
    )
    with Server(tmp_path, root) as server:
        for sequence_id in (401, 402):
            body = {
                "inputs": [tensor("x", "FP32", [1], [1])],
                "parameters": {"sequence_id": sequence_id, "sequence_start": True},
            }
            answer = server.post(infer_path("remember"), body)
            assert output(answer, "all") == [7, 8, 9, 1]


def test_a_sequence_that_idles_is_dropped(server):
    assert output(ask(server, "forgetful", 5, 307, start=True)) == [5]
    assert output(ask(server, "forgetful", 5, 307)) == [10]
    server.await_(
        "the sequence to be dropped, with nobody asking for its model",
        lambda: server.metrics().of_model("weir_sequences", "forgetful") == 0,
    )
    assert server.metrics().of_model("weir_sequence_state_bytes", "forgetful") == 0
    assert server.metrics().of_model("weir_sequences_dropped_total", "forgetful") == 1
    answer = ask(server, "forgetful", 5, 307)
    assert (answer.status, MUST_START in answer.error) == (400, True)


def test_a_sequence_waits_for_a_place_until_another_one_idles(server):
    begun = time.monotonic()
    assert output(ask(server, "one_slot", 1, 308, start=True)) == [1]
    assert output(ask(server, "one_slot", 2, 309, start=True)) == [2]
    assert time.monotonic() - begun > IDLE_S
    answer = ask(server, "one_slot", 1, 308)
    assert (answer.status, MUST_START in answer.error) == (400, True)
    assert output(ask(server, "one_slot", 2, 309, end=True)) == [4]


def test_a_request_that_comes_too_late_ends_its_sequence(server):
    """It waits for a place behind a sequence that idles, and is then told to start again."""
    assert output(ask(server, "one_slot", 1, 310, start=True)) == [1]
    body = {
        "inputs": [tensor("x", "INT32", [1, 1], [1])],
        "parameters": {"sequence_id": 311, "sequence_start": True},
    }
    answer = server.post(infer_path("one_slot"), body, {"Weir-Deadline-Ms": "100"})
    assert answer.status == 504
    answer = ask(server, "one_slot", 1, 311)
    assert (answer.status, MUST_START in answer.error) == (400, True)
    assert output(ask(server, "one_slot", 1, 310, end=True)) == [2]


def test_a_reload_forgets_sequences(repository, tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    config = {"max_batch_size": 4, "sequence_batching": batching({"oldest": {}})}
    put_model(root, "m", "accumulate", **config)
    with Server(tmp_path, "--model-control", "explicit", root) as server:
        assert server.load("m").status == 200
        assert output(ask(server, "m", 5, 312, start=True)) == [5]
        put_model(root, "m", "accumulate", version=2, **config)
        assert server.load("m").status == 200
        answer = ask(server, "m", 5, 312)
        assert (answer.status, MUST_START in answer.error) == (400, True)
        assert output(ask(server, "m", 5, 313, start=True, end=True)) == [5]
