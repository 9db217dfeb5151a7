"""Model folders as they lie in Triton's repositories: loaded as they are, and answering.

The folders are tests/data/triton; each gets its ONNX file from tests/data/models."""

import concurrent.futures
import json
import shutil
import subprocess

import numpy as np
import pytest

from serving import BINARY, MODELS, Server, infer_path, sim_request, tensor

grpc = pytest.importorskip("tritonclient.grpc")

FOLDERS = MODELS.parent / "triton"

# Folder: the model that lies in it, the versions it has.
FILES = {
    "simple": ("add_sub", [1]),
    "simple_minimal": ("add_sub", [1]),
    "simple_batching": ("add_sub", [1]),
    "simple_string": ("identity_bytes", [1]),
    "versions_specific": ("double_it", [1, 2, 3]),
    "versions_latest": ("double_it", [1, 2, 3]),
    "versions_all": ("double_it", [1, 2]),
    "labelled": ("double_it", [1]),
    "warmed": ("double_it", [1]),
    "instances": ("double_it", [1]),
    "priorities": ("double_it", [1]),
    "reshaped": ("dynamic", [1]),
    "reshaped_to_nothing": ("gather", [1]),
    "reshaped_variable": ("dynamic", [1]),
    "scalar_as_one": ("scalar", [1]),
    "unbatched": ("fixed", [1]),
    "for_a_gpu": ("double_it", [1]),
    "tuned": ("double_it", [1]),
    "written_oddly": ("add_sub", [1]),
    "summing": ("accumulate", [1]),
    "chained": (None, [1]),
    "overlaid": ("double_it", [1]),
}
ADD_SUB = {"simple", "simple_minimal", "simple_batching", "written_oddly"}
DOUBLE = {name for name, (source, _) in FILES.items() if source == "double_it"}


def put_folder(root, name, source, versions):
    shutil.copytree(FOLDERS / name, root / name)
    for version in versions:
        folder = root / name / str(version)
        if source is None:
            folder.mkdir()
        else:
            shutil.copytree(MODELS / source / "1", folder)
    if name == "tuned":
        (root / name / "1" / "model.onnx").rename(root / name / "1" / "other.onnx")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("triton") / "models"
    root.mkdir()
    assert {folder.name for folder in FOLDERS.iterdir()} == set(FILES)
    for name, (source, versions) in FILES.items():
        put_folder(root, name, source, versions)
    return root


@pytest.fixture(scope="module")
def server(repository):
    with Server(repository.parent, repository) as server:
        yield server


def outputs(answer):
    assert answer.status == 200, answer.body
    return {o["name"]: (o["shape"], o["data"]) for o in answer.json()["outputs"]}


def infer(server, model, inputs, version=None, **members):
    return server.post(infer_path(model, version), {"inputs": inputs, **members})


def ready(server):
    return {(m["name"], m.get("version")): m for m in server.index() if m.get("state") == "READY"}


def config(server, name):
    answer = server.get(f"/v2/models/{name}/config")
    assert answer.status == 200, answer.body
    return answer.json()


def test_every_folder_is_served(server):
    found = {name for name, _ in ready(server)}
    assert found == set(FILES), [m for m in server.index() if m["name"] not in found]


@pytest.mark.parametrize("name", sorted(FILES))
def test_what_config_prints_loads_again(server, name, repository, tmp_path):
    """As Triton's: the effective configuration is one that can be given with a load."""
    shown = config(server, name)
    assert shown["name"] == name
    if name == "chained":
        return
    root = tmp_path / "models"
    root.mkdir()
    put_folder(root, name, *FILES[name])
    with Server(tmp_path, root, "--model-control", "explicit") as other:
        answer = other.load(name, shown)
        assert answer.status == 200, answer.body
        again = config(other, name)
        assert again == shown


@pytest.mark.parametrize("name", sorted(ADD_SUB))
def test_add_sub(server, name):
    a, b = list(range(16)), [1] * 16
    inputs = [tensor("INPUT0", "INT32", [1, 16], a), tensor("INPUT1", "INT32", [1, 16], b)]
    found = outputs(infer(server, name, inputs))
    assert found["OUTPUT0"] == ([1, 16], [x + 1 for x in a])
    assert found["OUTPUT1"] == ([1, 16], [x - 1 for x in a])


@pytest.mark.parametrize("name", sorted(DOUBLE))
def test_double_it(server, name):
    answer = infer(server, name, [tensor("x", "FP32", [2, 4], list(range(8)))])
    assert outputs(answer)["y"] == ([2, 4], [2.0 * x for x in range(8)])


UNSET_ENUMS = ("FORMAT_NONE", "PRIORITY_DEFAULT", "REJECT", "TYPE_INVALID", "CONTROL_SEQUENCE_START")


def set_only(value):
    """Without what protobuf leaves out: defaults; numbers of 64 bits are texts there."""
    if isinstance(value, dict):
        kept = {key: set_only(member) for key, member in value.items()}
        return {key: member for key, member in kept.items() if member not in (None, {}, [])}
    if isinstance(value, list):
        return [set_only(item) for item in value]
    if value in UNSET_ENUMS or isinstance(value, bool) or value in ("", "0", 0):
        return True if value is True else None
    return str(value) if isinstance(value, (int, str)) else value


@pytest.mark.parametrize("name", sorted(FILES))
def test_both_protocols_show_the_same_configuration(server, name):
    with grpc.InferenceServerClient(server.address) as client:
        shown = client.get_model_config(name, as_json=True)["config"]
    assert set_only(shown) == set_only(config(server, name))


def test_a_batch_beyond_the_configured_size_is_refused(server):
    row = tensor("x", "FP32", [9, 4], [0] * 36)
    answer = infer(server, "warmed", [row])
    assert answer.status == 400
    assert "must be <= 8" in answer.error, answer.error


def test_strings(server):
    words = ["a", "", "käse", "x" * 300]
    assert outputs(infer(server, "simple_string", [tensor("x", "BYTES", [1, 4], words)]))["y"] == (
        [1, 4],
        words,
    )
    metadata = server.get("/v2/models/simple_string").json()
    assert metadata["inputs"] == [{"name": "x", "datatype": "BYTES", "shape": [-1, 4]}]


def test_versions(server):
    served = {
        name: sorted(version for model, version in ready(server) if model == name)
        for name in ("versions_specific", "versions_latest", "versions_all")
    }
    assert served == {
        "versions_specific": ["1", "3"],
        "versions_latest": ["2", "3"],
        "versions_all": ["1", "2"],
    }
    row = [tensor("x", "FP32", [1, 4], [1, 2, 3, 4])]
    assert infer(server, "versions_specific", row).json()["model_version"] == "3"
    assert infer(server, "versions_specific", row, 1).json()["model_version"] == "1"
    assert infer(server, "versions_specific", row, 2).status == 404
    shown = config(server, "versions_specific")
    assert shown["version_policy"] == {"specific": {"versions": [1, 3]}}


def test_labels(server):
    asked = [{"name": "y", "parameters": {"classification": 2}}]
    row = [tensor("x", "FP32", [1, 4], [0.5, 3, 1, 2])]
    assert outputs(infer(server, "labelled", row, outputs=asked))["y"] == (
        [1, 2],
        ["6.000000:1:dog", "4.000000:3:fox"],
    )


def test_a_reshape(server):
    values = [float(x) for x in range(32)]
    found = outputs(infer(server, "reshaped", [tensor("x", "FP32", [2, 16], values)]))
    assert found["y"] == ([2, 2, 8], values)
    metadata = server.get("/v2/models/reshaped").json()
    assert metadata["inputs"][0]["shape"] == [-1, 16]
    assert metadata["outputs"][0]["shape"] == [-1, 2, 8]
    shown = config(server, "reshaped")
    assert shown["input"][0]["dims"] == [16]
    assert shown["input"][0]["reshape"] == {"shape": [4, 4]}
    wrong = infer(server, "reshaped", [tensor("x", "FP32", [1, 4, 4], values[:16])])
    assert wrong.status == 400
    assert "Expected [-1,16], got [1,4,4]" in wrong.error


def test_a_reshape_to_nothing(server):
    index = tensor("index", "INT64", [3, 1], [7, 0, 3])
    found = outputs(infer(server, "reshaped_to_nothing", [index]))
    assert found["y"] == ([3, 1], [7.0, 0.0, 3.0])


def test_a_reshape_of_any_size(server):
    for size in (3, 5):
        values = [float(x) for x in range(2 * size)]
        found = outputs(infer(server, "reshaped_variable", [tensor("x", "FP32", [2, size], values)]))
        assert found["y"] == ([2, 1, size], values)


def test_a_scalar(server):
    assert outputs(infer(server, "scalar_as_one", [tensor("x", "FP32", [1], [2])]))["y"] == ([1], [3.0])


def test_without_batches(server):
    values = [float(x) for x in range(6)]
    found = outputs(infer(server, "unbatched", [tensor("x", "FP32", [2, 3], values)]))
    assert found["y"] == ([2, 3], values)
    assert config(server, "unbatched")["max_batch_size"] == 0


def test_a_sequence(server):
    for value, total in ((1, 1), (2, 3), (4, 7)):
        parameters = {"sequence_id": 9, "sequence_start": value == 1, "sequence_end": value == 4}
        row = [tensor("x", "INT32", [1, 1], [value])]
        found = outputs(infer(server, "summing", row, parameters=parameters))
        assert found["sum"] == ([1, 1], [total])
    names = [i["name"] for i in server.get("/v2/models/summing").json()["inputs"]]
    assert names == ["x"]


def test_an_ensemble(server):
    found = outputs(infer(server, "chained", [tensor("IN", "FP32", [1, 4], [1, 2, 3, 4])]))
    assert found["OUT"] == ([1, 4], [4.0, 8.0, 12.0, 16.0])


def test_the_yaml_lies_over_the_pbtxt(server):
    shown = config(server, "overlaid")
    assert shown["max_batch_size"] == 4
    assert shown["dynamic_batching"]["preferred_batch_size"] == [4]
    assert shown["dynamic_batching"]["max_queue_delay_microseconds"] == 500
    assert shown["output"][0]["dims"] == [4]
    assert shown["output"][0]["label_filename"] == "labels.txt"


def test_what_has_no_effect_is_told(server):
    reason = ready(server)["for_a_gpu", "1"]["reason"]
    for word in ("KIND_GPU: this server has no device", "cuda: no effect", "level: no"):
        assert word in reason, reason
    logged = server.logged()
    assert "execution_accelerators: no effect" in logged
    assert "timeout_action: DELAY" in logged
    assert ready(server)["simple", "1"].get("reason", "") == ""


def test_timeouts_are_those_of_triton(server):
    """A time-out that no policy allows is no deadline; under the policy it is the wait in line."""
    row = [tensor("x", "FP32", [1, 4], [1, 2, 3, 4])]
    assert infer(server, "labelled", row, parameters={"timeout": 1}).status == 200
    assert infer(server, "priorities", row, parameters={"timeout": 60000000}).status == 200


def test_each_level_has_its_own_queue(tmp_path):
    """One run at a time, and it takes long: who comes beside it has to wait."""
    folder = tmp_path / "models" / "slow"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(
        """backend: "sim" max_batch_size: 1 instance_group { count: 1 }
        parameters { key: "tau0" value { string_value: "200ms" } }
        dynamic_batching {
          priority_levels: 3 default_priority_level: 1
          priority_queue_policy { key: 2 value { max_queue_size: 1 } }
          priority_queue_policy { key: 3 value { default_timeout_microseconds: 1000 } }
        }"""
    )
    with Server(tmp_path, tmp_path / "models") as server:

        def ask(priority):
            answer = server.infer("slow", sim_request(parameters={"priority": priority}))
            return answer.status, b"" if answer.status == 200 else answer.body

        def ask_all(priority):
            with concurrent.futures.ThreadPoolExecutor(6) as pool:
                return sorted(pool.map(ask, [priority] * 6))

        shown = config(server, "slow")["dynamic_batching"]["priority_queue_policy"]
        assert shown["2"]["max_queue_size"] == 1
        assert shown["3"]["default_timeout_microseconds"] == 1000
        assert "1" not in shown
        assert [status for status, _ in ask_all(1)] == [200] * 6
        found = ask_all(2)
        assert found[0][0] == 200
        assert found[-1][0] == 503 and b"of priority 2 waiting, the most it takes" in found[-1][1]
        found = ask_all(3)
        assert found[0][0] == 200 and found[-1][0] == 503


REFUSED = {
    'platform: "tensorrt_plan"': "backend 'tensorrt_plan' is one of Triton's that Weir has not",
    'backend: "python"': "it serves ONNX models",
    'backend: "onnxruntime" platform: "tensorrt_plan"': "do not belong together",
    'name: "other"': "directory name must equal model name",
    'input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] allow_ragged_batch: true }': "ragged batching",
    'batch_input { kind: BATCH_ELEMENT_COUNT target_name: "n" }': "batch_input is not supported",
    'model_operations { op_library_filename: "ops.so" }': "model_operations is not supported",
    "max_batch_size: 8 max_batch_size: 4": "found twice",
    "max_batch_sise: 8": "config.pbtxt:1:1: unknown key 'max_batch_sise'",
    "max_batch_size: 8\ndynamic_batching { preferred_batch_size: 9 }": "must be <= max batch size",
    'input { name: "x" data_type: TYPE_INT32 dims: 4 }': "the model provides FP32",
    'input { name: "x" data_type: TYPE_FP32 dims: 5 } max_batch_size: 2': "the model expects dims [4]",
    'input { name: "z" data_type: TYPE_FP32 dims: 4 }': "unexpected inference input 'z'",
    'max_batch_size: 2 input { name: "x" dims: [ 5 ] reshape { shape: [ 4 ] } }': "same number of",
    'max_batch_size: 2 input { name: "x" dims: [ 4 ] reshape { shape: [ 2, 2 ] } }': "[-1,4]",
    'max_batch_size: 2 output { name: "y" label_filename: "../labels.txt" }': "label_filename",
    "dynamic_batching { priority_queue_policy { key: 1 value { } } }": "levels from 1 to priority_levels",
    "max_batch_size: 8 {": "config.pbtxt:1:19: found '{', expected a field's name",
}


def test_what_cannot_be_served_is_refused_by_name(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    for i, text in enumerate(REFUSED):
        shutil.copytree(MODELS / "double_it", root / f"m{i}")
        (root / f"m{i}" / "config.pbtxt").write_text(text)
    with Server(tmp_path, root, "--model-control", "explicit") as server:
        for i, (text, expected) in enumerate(REFUSED.items()):
            answer = server.load(f"m{i}")
            assert answer.status == 400, (text, answer.body)
            assert expected in answer.error, (text, answer.error)


def inspect(folder, *words):
    done = subprocess.run([BINARY, "inspect", "--config", *words, folder], capture_output=True)
    return done.returncode, done.stdout.decode()


def test_inspect_tells_where_each_value_comes_from(repository):
    code, text = inspect(repository / "overlaid", "--json")
    assert code == 0, text
    shown = json.loads(text)
    sources = shown["sources"]
    assert sources["max_batch_size"] == "model.yaml:1"
    assert sources["input[0].dims"] == "config.pbtxt:4:40"
    assert sources["dynamic_batching.preferred_batch_size"].startswith("config.pbtxt:6:")
    assert sources["dynamic_batching.max_queue_delay_microseconds"] == "model.yaml:3"
    assert sources["output[0].label_filename"] == "model.yaml:4"
    assert sources["output[0].data_type"].startswith("config.pbtxt:5:")
    assert sources["batching"] == "model.yaml:2"
    assert sources["join"] == "default"
    assert shown["config"]["max_batch_size"] == 4
    assert shown["servable"] is True

    code, text = inspect(repository / "simple_minimal", "--json")
    sources = json.loads(text)["sources"]
    assert sources["max_batch_size"] == "model file"
    assert sources["input[0].dims"] == "model file"
    assert sources["backend"].startswith("config.pbtxt:1:")


@pytest.mark.parametrize("name", sorted(FILES))
def test_inspect_takes_every_folder(repository, name):
    code, text = inspect(repository / name)
    assert code == 0, text
    assert "max_batch_size" in text
    assert "cannot be served" not in text


def test_inspect_lists_every_mistake(tmp_path):
    shutil.copytree(MODELS / "double_it", tmp_path / "m")
    (tmp_path / "m" / "config.pbtxt").write_text(
        'name: "other"\nmax_batch_size: "8"\ninput { nam: "x" }\nmax_batch_size: 1\n'
    )
    code, text = inspect(tmp_path / "m")
    assert code == 1
    for part in ("1:1: unexpected directory", "2:17: max_batch_size: found", "unknown key 'nam'", "4:1:"):
        assert part in text, text


def test_an_override_is_read_like_the_file(server, repository, tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    put_folder(root, "reshaped", "dynamic", [1])
    with Server(tmp_path, root, "--model-control", "explicit") as other:
        camel = {
            "maxBatchSize": 2,
            "input": [{"name": "x", "dataType": "TYPE_FP32", "dims": ["4"], "reshape": {"shape": ["2", 2]}}],
        }
        answer = other.load("reshaped", camel)
        assert answer.status == 200, answer.body
        values = np.arange(4, dtype=float).tolist()
        found = outputs(infer(other, "reshaped", [tensor("x", "FP32", [1, 4], values)]))
        assert found["y"] == ([1, 2, 2], values)
        answer = other.load("reshaped", {"max_batch": 3})
        assert answer.status == 400
        assert "unknown key 'max_batch'" in answer.error
