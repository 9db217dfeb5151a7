"""More than a model can serve by the deadlines: who is told no, how, and that the others are served."""

import concurrent.futures
import re
import threading

import numpy as np
import pytest

from serving import Server, put_sim, sim_request

MODEL = {"tau0": "200ms"}
KNOWN_AFTER = 6  # Runs until a profile says what a run takes.


def put_models(root):
    root.mkdir()
    alone = {"max_batch_size": 1, "instance_group": [{"count": 1}]}
    put_sim(root, "drops", parameters=MODEL, **alone)
    put_sim(root, "queues", parameters=MODEL, overload="queue", **alone)
    put_sim(root, "promises", parameters=MODEL, deadline="500ms", **alone)


@pytest.fixture
def server(tmp_path):
    root = tmp_path / "models"
    put_models(root)
    with Server(tmp_path, "--executors", "1", root) as server:
        yield server


def learn(server, model):
    for _ in range(KNOWN_AFTER):
        assert server.infer(model, sim_request(), {"Weir-Deadline-Ms": "60000"}).status == 200


def counted(server, name, model):
    return server.metrics().of_model(name, model)


def test_who_cannot_be_served_in_time_is_refused_at_once(server):
    learn(server, "drops")
    refused = 0

    def ask():
        nonlocal refused
        refused = counted(server, "weir_requests_refused_total", "drops")
        return server.infer("drops", sim_request(), {"Weir-Deadline-Ms": "80"})

    answer = server.in_time(ask)
    assert answer.status == 503, answer.body
    assert re.search(r"model 'drops' is overloaded: an answer is expected in \d+", answer.error)
    assert "the deadline is in " in answer.error
    assert int(answer.headers["Retry-After"]) >= 1
    assert counted(server, "weir_requests_refused_late_total", "drops") == 1
    assert counted(server, "weir_requests_refused_total", "drops") == refused + 1
    assert server.stats("drops")["overload"]["refused_late"] == 1
    assert server.infer("drops", sim_request(), {"Weir-Deadline-Ms": "60000"}).status == 200
    assert server.infer("drops", sim_request()).status == 200


def test_grpc_is_told_in_milliseconds_when_to_try_again(server):
    grpc = pytest.importorskip("grpc")
    pytest.importorskip("tritonclient.grpc")
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    learn(server, "drops")
    request = service_pb2.ModelInferRequest(model_name="drops")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 16])
    request.raw_input_contents.append(np.zeros(16, np.float32).tobytes())
    busy = threading.Thread(target=server.infer, args=("drops", sim_request()))
    busy.start()
    with grpc.insecure_channel(f"127.0.0.1:{server.ports[1]}") as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request.parameters["timeout"].int64_param = 80_000

        def refused():
            with pytest.raises(grpc.RpcError) as caught:
                stub.ModelInfer(request)
            came_late = "had passed when the request arrived" in caught.value.details()
            return None if came_late else caught.value

        error = server.await_("one that comes before its deadline", refused)
    busy.join()
    assert error.code() == grpc.StatusCode.UNAVAILABLE, error
    assert "model 'drops' is overloaded" in error.details()
    words = dict(error.trailing_metadata())
    assert 1 <= int(words["grpc-retry-pushback-ms"]) < 1000


def test_the_model_gives_its_deadline_to_requests_without_one(server):
    learn(server, "promises")
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        calls = [pool.submit(server.infer, "promises", sim_request()) for _ in range(24)]
        answers = [call.result() for call in calls]
    statuses = [answer.status for answer in answers]
    assert set(statuses) <= {200, 503, 504} and {200, 503} <= set(statuses), statuses
    assert statuses.count(503) > statuses.count(200)
    told = [answer for answer in answers if answer.status == 503]
    assert all("model 'promises' is overloaded" in answer.error for answer in told)
    assert counted(server, "weir_requests_limit", "promises") >= 20


def test_first_come_first_served_where_that_is_configured(server):
    learn(server, "queues")
    answer = server.infer("queues", sim_request(), {"Weir-Deadline-Ms": "80"})
    assert answer.status == 504
    assert counted(server, "weir_requests_refused_late_total", "queues") == 0


def test_settings_that_make_no_sense(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    put_sim(root, "hasty", deadline="soon")
    put_sim(root, "odd", overload="panic")
    put_sim(root, "loose", adaptive_limit="perhaps")
    with Server(tmp_path, root) as server:
        reasons = {entry["name"]: entry["reason"] for entry in server.index()}
        for name, word in (("hasty", "deadline"), ("odd", "drop or queue"), ("loose", "auto")):
            assert word in reasons[name], reasons
