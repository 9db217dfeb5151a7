"""Ensembles over a real server: graphs of real models are one model to clients of every protocol."""

import concurrent.futures
import json

import numpy as np
import pytest

from serving import Server, infer_path, put_model, tensor, write_whole

http = pytest.importorskip("tritonclient.http")
from tritonclient.utils import InferenceServerException  # noqa: E402

try:
    import tritonclient.grpc as grpc
except (ImportError, RuntimeError):  # Installed without.
    grpc = None

needs_grpc = pytest.mark.skipif(grpc is None, reason="no gRPC client")

A = np.arange(16, dtype=np.int32).reshape(1, 16)
B = np.full((1, 16), 3, dtype=np.int32)


def step(model, inputs, outputs, version=-1):
    return {"model_name": model, "model_version": version, "input_map": inputs, "output_map": outputs}


# a, b -> (sum, difference) -> each doubled -> (4a, 4b): the steps' order is not the data's.
DIAMOND = [
    step("add_sub", {"INPUT0": "left", "INPUT1": "right"}, {"OUTPUT0": "four_a", "OUTPUT1": "four_b"}),
    step("add_sub", {"INPUT0": "sum", "INPUT1": "sum"}, {"OUTPUT0": "left"}),
    step("add_sub", {"INPUT0": "difference", "INPUT1": "difference"}, {"OUTPUT0": "right"}),
    step("add_sub", {"INPUT0": "a", "INPUT1": "b"}, {"OUTPUT0": "sum", "OUTPUT1": "difference"}),
]


def io(name, kind="TYPE_INT32"):
    return {"name": name, "data_type": kind, "dims": [16]}


def put_ensemble(root, name, steps, **config):
    (root / name / "1").mkdir(parents=True, exist_ok=True)
    config = {"platform": "ensemble", "ensemble_scheduling": {"step": steps}, **config}
    write_whole(root / name / "model.yaml", json.dumps(config).encode())


def put_diamond(root):
    put_model(root, "add_sub")
    put_ensemble(root, "diamond", DIAMOND, max_batch_size=8, input=[io("a"), io("b")],
                 output=[io("four_a"), io("four_b")])


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    scratch = tmp_path_factory.mktemp("ensemble")
    root = scratch / "models"
    root.mkdir()
    put_diamond(root)
    put_ensemble(root, "outer", [
        step("diamond", {"a": "x", "b": "y"}, {"four_a": "p", "four_b": "q"}),
        step("add_sub", {"INPUT0": "p", "INPUT1": "q"}, {"OUTPUT0": "sum", "OUTPUT1": "difference"}),
    ])
    put_ensemble(root, "sums", [
        step("add_sub", {"INPUT0": "a", "INPUT1": "b"}, {"OUTPUT0": "sum", "OUTPUT1": "difference"}),
    ])
    put_model(root, "div")
    put_ensemble(root, "ratio", [step("div", {"a": "n", "b": "m"}, {"y": "first"}),
                                 step("div", {"a": "first", "b": "m"}, {"y": "second"})])
    with Server(scratch, root) as started:
        yield started


def asked(client, wanted=None):
    inputs = []
    for name, values in (("a", A), ("b", B)):
        item = client.InferInput(name, [1, 16], "INT32")
        item.set_data_from_numpy(values)
        inputs.append(item)
    outputs = None if wanted is None else [client.InferRequestedOutput(name) for name in wanted]
    return inputs, outputs


def check(result):
    assert (result.as_numpy("four_a") == 4 * A).all()
    assert (result.as_numpy("four_b") == 4 * B).all()


def test_over_rest(server):
    with http.InferenceServerClient(server.address) as client:
        inputs, _ = asked(http)
        check(client.infer("diamond", inputs))
        inputs, outputs = asked(http, ["four_b"])
        result = client.infer("diamond", inputs, outputs=outputs)
        assert (result.as_numpy("four_b") == 4 * B).all()
        assert result.as_numpy("four_a") is None


def test_large_binary_inputs(server):
    """Large enough for a model's process to be asked for memory, which an ensemble does not have."""
    values = np.arange(400 * 16, dtype=np.int32).reshape(400, 16)
    inputs = [http.InferInput(name, [400, 16], "INT32") for name in ("a", "b")]
    for item in inputs:
        item.set_data_from_numpy(values)
    with http.InferenceServerClient(server.address) as client:
        result = client.infer("sums", inputs)
    assert (result.as_numpy("sum") == 2 * values).all()
    assert (result.as_numpy("difference") == 0).all()


@needs_grpc
def test_over_grpc(server):
    with grpc.InferenceServerClient(f"127.0.0.1:{server.ports[1]}") as client:
        inputs, _ = asked(grpc)
        check(client.infer("diamond", inputs))


def test_within_another(server):
    body = {"inputs": [tensor("x", "INT32", [1, 16], A.ravel().tolist()), tensor("y", "INT32", [1, 16], B.ravel().tolist())]}
    answer = server.post(infer_path("outer"), json.dumps(body))
    outputs = {item["name"]: item["data"] for item in answer.json()["outputs"]}
    assert outputs["sum"] == (4 * A + 4 * B).ravel().tolist()
    assert outputs["difference"] == (4 * A - 4 * B).ravel().tolist()


def test_many_at_once(server):
    def one(number):
        with http.InferenceServerClient(server.address) as client:
            for i in range(20):
                values = np.full((1, 16), 100 * number + i, dtype=np.int32)
                inputs, _ = asked(http)
                inputs[0].set_data_from_numpy(values)
                assert (client.infer("diamond", inputs).as_numpy("four_a") == 4 * values).all()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))


def test_what_clients_see(server):
    with http.InferenceServerClient(server.address) as client:
        assert client.is_model_ready("diamond")
        metadata = client.get_model_metadata("diamond")
        assert metadata["platform"] == "ensemble"
        assert metadata["versions"] == ["1"]
        assert [item["name"] for item in metadata["inputs"]] == ["a", "b"]
        assert metadata["inputs"][0]["shape"] == [-1, 16]
        config = client.get_model_config("diamond")
        assert config["platform"] == "ensemble"
        steps = config["ensemble_scheduling"]["step"]
        assert [s["model_name"] for s in steps] == ["add_sub"] * 4
        assert steps[3]["input_map"] == {"INPUT0": "a", "INPUT1": "b"}
        assert steps[3]["output_map"] == {"OUTPUT0": "sum", "OUTPUT1": "difference"}
        assert steps[0]["model_version"] == -1

        inputs, _ = asked(http)
        before = {s["name"]: s for s in client.get_inference_statistics()["model_stats"]}
        client.infer("diamond", inputs)
        after = {s["name"]: s for s in client.get_inference_statistics()["model_stats"]}

        def grown(model, stage):
            return (after[model]["inference_stats"][stage]["count"]
                    - before[model]["inference_stats"][stage]["count"])

        for stage in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
            assert grown("diamond", stage) == 1
            assert grown("add_sub", stage) == 4
    assert 'nv_inference_request_success{model="diamond",version="1"}' in server.get("/metrics").body.decode()


def test_a_step_that_fails_is_named(server):
    body = {"inputs": [tensor("n", "INT32", [2], [8, 9]),
                       tensor("m", "INT32", [2], [2, 0])]}
    answer = server.post(infer_path("ratio"), json.dumps(body))
    assert answer.status == 400
    assert answer.error.startswith("step 1 ('div'): ")
    body["inputs"][1]["data"] = [2, 3]
    answer = server.post(infer_path("ratio"), json.dumps(body))
    assert answer.json()["outputs"][0]["data"] == [2, 1]


def test_a_wrong_input_is_the_ensembles(server):
    body = {"inputs": [tensor("a", "INT32", [1, 16], A.ravel().tolist())]}
    answer = server.post(infer_path("diamond"), json.dumps(body))
    assert answer.status == 400
    assert "expected 2 inputs but got 1" in answer.error


PBTXT = """
name: "doubled"
platform: "ensemble"
max_batch_size: 8
input [ { name: "in" data_type: TYPE_INT32 dims: [ 16 ] } ]
output [ { name: "out" data_type: TYPE_INT32 dims: [ 16 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "add_sub"
      model_version: -1
      input_map { key: "INPUT0" value: "in" }
      input_map { key: "INPUT1" value: "in" }
      output_map { key: "OUTPUT0" value: "twice" }
    },
    {
      model_name: "add_sub"
      model_version: 1
      input_map { key: "INPUT0" value: "twice" }
      input_map { key: "INPUT1" value: "twice" }
      output_map { key: "OUTPUT0" value: "out" }
    }
  ]
}
"""


def test_a_folder_made_for_triton(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    put_model(root, "add_sub")
    (root / "doubled" / "1").mkdir(parents=True)
    (root / "doubled" / "config.pbtxt").write_text(PBTXT)
    with Server(tmp_path, root) as server:
        body = {"inputs": [tensor("in", "INT32", [1, 16], A.ravel().tolist())]}
        answer = server.post(infer_path("doubled"), json.dumps(body))
        assert answer.json()["outputs"][0]["data"] == (4 * A).ravel().tolist()
        body["inputs"][0].update(shape=[9, 16], data=A.ravel().tolist() * 9)
        answer = server.post(infer_path("doubled"), json.dumps(body))
        assert answer.status == 400 and "batch-size must be <= 8" in answer.error


def test_loading_and_unloading(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    put_diamond(root)
    with Server(tmp_path, root, "--model-control", "explicit") as server:
        with http.InferenceServerClient(server.address) as client:
            client.load_model("diamond")
            assert client.is_model_ready("add_sub")  # Loaded with it.
            inputs, _ = asked(http)
            check(client.infer("diamond", inputs))
            client.unload_model("add_sub")
            assert not client.is_model_ready("diamond")
            state, reason = server.state("diamond")
            assert state in ("UNLOADING", "UNAVAILABLE") and "step 1 needs model 'add_sub'" in reason
            with pytest.raises(InferenceServerException, match="no longer loaded"):
                client.infer("diamond", inputs)
            client.load_model("diamond")
            check(client.infer("diamond", inputs))
            client.unload_model("diamond", unload_dependents=True)
            assert not client.is_model_ready("add_sub")
