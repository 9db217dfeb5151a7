"""REST and gRPC say the same: every call that manages the server, its values and its failures.

The JSON of REST is read by protobuf's own converter, which refuses fields that the messages do not
have; what comes out must be the message that gRPC sent.
"""

import json

import pytest

from serving import PATIENCE_S, Server, put_model, put_sim, sim_request

grpc = pytest.importorskip("grpc")
pytest.importorskip("tritonclient.grpc")
from google.protobuf import json_format  # noqa: E402
from tritonclient.grpc import service_pb2 as pb  # noqa: E402
from tritonclient.grpc import service_pb2_grpc  # noqa: E402


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("same") / "models"
    root.mkdir()
    for name in ("add_sub", "scalar", "dynamic"):
        put_model(root, name)
    put_sim(root, "plain", versions=(1, 3), version_policy={"all": {}})
    put_sim(
        root,
        "rich",
        parameters={"tau0": "10us"},
        version_policy={"specific": {"versions": [1]}},
        dynamic_batching={
            "preferred_batch_size": [2, 4],
            "max_queue_delay_microseconds": 100,
            "priority_levels": 3,
            "default_priority_level": 2,
        },
        instance_group=[{"count": 2, "kind": "KIND_CPU"}],
    )
    put_sim(root, "broken", parameters={"tau0": "soon"})
    put_sim(root, "unloaded")
    words = ["--model-control", "explicit"]
    for name in ("add_sub", "scalar", "dynamic", "plain", "rich", "broken"):
        words += ["--load-model", name]
    with Server(root.parent, *words, root) as server:
        for count in (1, 2, 3):
            for model in ("plain", "rich"):
                assert server.infer(model, sim_request(rows=count)).status == 200
        assert server.infer("rich", {"inputs": []}).status == 400
        yield server


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.address) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def whole(answer):
    return lambda json: json_format.ParseDict(json, answer())


def below(answer, field):
    return lambda json: json_format.ParseDict({field: json}, answer())


def log_settings(json):
    answer = pb.LogSettingsResponse()
    fields = {bool: "bool_param", int: "uint32_param", str: "string_param"}
    for key, value in json.items():
        setattr(answer.settings[key], fields[type(value)], value)
    return answer


def trace_settings(json):
    answer = pb.TraceSettingResponse()
    for key, value in json.items():
        answer.settings[key].value.extend([value] if isinstance(value, str) else value)
    return answer


def index(json):
    """What Weir adds to the index is for REST only."""
    known = {field.name for field in pb.RepositoryIndexResponse.ModelIndex.DESCRIPTOR.fields}
    models = [{key: model[key] for key in model if key in known} for model in json]
    return json_format.ParseDict({"models": models}, pb.RepositoryIndexResponse())


def statistics(json):
    """The same of statistics."""
    for model in json["model_stats"]:
        del model["latency"], model["profile"], model["overload"]
    return json_format.ParseDict(json, pb.ModelStatisticsResponse())


METADATA = whole(pb.ModelMetadataResponse)
CONFIG = below(pb.ModelConfigResponse, "config")

# Call, its request, and the same of REST: method, path, body; then how its JSON is a message.
VALUES = [
    ("ServerMetadata", {}, "GET", "/v2", None, whole(pb.ServerMetadataResponse)),
    *(
        ("ModelMetadata", {"name": model}, "GET", f"/v2/models/{model}", None, METADATA)
        for model in ("add_sub", "scalar", "dynamic", "plain", "rich")
    ),
    (
        "ModelMetadata",
        {"name": "plain", "version": "3"},
        "GET",
        "/v2/models/plain/versions/3",
        None,
        METADATA,
    ),
    *(
        ("ModelConfig", {"name": model}, "GET", f"/v2/models/{model}/config", None, CONFIG)
        for model in ("add_sub", "scalar", "dynamic", "plain", "rich")
    ),
    (
        "ModelConfig",
        {"name": "plain", "version": "1"},
        "GET",
        "/v2/models/plain/versions/1/config",
        None,
        CONFIG,
    ),
    ("ModelStatistics", {}, "GET", "/v2/models/stats", None, statistics),
    ("ModelStatistics", {"name": "rich"}, "GET", "/v2/models/rich/stats", None, statistics),
    (
        "ModelStatistics",
        {"name": "plain", "version": "3"},
        "GET",
        "/v2/models/plain/versions/3/stats",
        None,
        statistics,
    ),
    ("RepositoryIndex", {}, "POST", "/v2/repository/index", None, index),
    ("RepositoryIndex", {"ready": True}, "POST", "/v2/repository/index", {"ready": True}, index),
    ("LogSettings", {}, "GET", "/v2/logging", None, log_settings),
    (
        "LogSettings",
        {"settings": {"log_verbose_level": {"uint32_param": 3}}},
        "POST",
        "/v2/logging",
        {"log_verbose_level": 3},
        log_settings,
    ),
    (
        "LogSettings",
        {
            "settings": {
                "log_verbose_level": {"uint32_param": 0},
                "log_info": {"bool_param": True},
                "log_format": {"string_param": "ISO8601"},
            }
        },
        "POST",
        "/v2/logging",
        {"log_verbose_level": 0, "log_info": True, "log_format": "ISO8601"},
        log_settings,
    ),
    ("TraceSetting", {}, "GET", "/v2/trace/setting", None, trace_settings),
    (
        "TraceSetting",
        {"model_name": "plain"},
        "GET",
        "/v2/models/plain/trace/setting",
        None,
        trace_settings,
    ),
    (
        "TraceSetting",
        {"settings": {"trace_level": {"value": ["OFF"]}}},
        "POST",
        "/v2/trace/setting",
        {"trace_level": ["OFF"]},
        trace_settings,
    ),
]


def ask(stub, call, request):
    message = getattr(pb, f"{call}Request")
    return getattr(stub, call)(json_format.ParseDict(request, message()), timeout=PATIENCE_S)


def name_of(case):
    return f"{case[0]}-{case[3]}"


@pytest.mark.parametrize("case", VALUES, ids=name_of)
def test_values(server, stub, case):
    call, request, method, path, body, read = case
    answer = server.ask(method, path, body)
    assert answer.status == 200, answer.body
    by_rest, by_grpc = read(answer.json()), ask(stub, call, request)
    assert by_grpc == by_rest
    assert by_grpc.ByteSize() > 0  # Two empty messages would be equal, too.


def test_what_the_values_are(stub):
    """That the common answer is right is for the tests of REST; this is to see that it is there."""
    config = ask(stub, "ModelConfig", {"name": "rich"}).config
    assert config.dynamic_batching.preferred_batch_size == [2, 4]
    assert config.dynamic_batching.max_queue_delay_microseconds == 100
    assert config.version_policy.specific.versions == [1]
    assert config.parameters["tau0"].string_value == "10us"
    stats = ask(stub, "ModelStatistics", {"name": "rich"}).model_stats[0]
    assert stats.inference_count == 6
    assert stats.execution_count == 3
    assert stats.inference_stats.success.count == 3
    assert stats.inference_stats.compute_infer.ns > 0
    assert [batch.batch_size for batch in stats.batch_stats] == [1, 2, 3]
    index = ask(stub, "RepositoryIndex", {}).models
    assert {(model.name, model.version, model.state) for model in index} >= {
        ("plain", "1", "READY"),
        ("plain", "3", "READY"),
        ("unloaded", "", ""),
    }
    metadata = ask(stub, "ModelMetadata", {"name": "add_sub"})
    assert [tensor.shape for tensor in metadata.inputs] == [[-1, 16], [-1, 16]]


def test_loading_and_unloading(server, stub):
    """Either way to the same state, seen either way."""

    def settled():
        before = server.index()
        by_grpc = ask(stub, "RepositoryIndex", {})
        states = [model.state for model in by_grpc.models if model.name == "unloaded"]
        if before != server.index() or states == ["UNLOADING"]:
            return None  # An unload goes on after its answer.
        assert by_grpc == index(before)
        return states

    def state():
        return server.await_("an end to it", settled)

    override = json.dumps({"backend": "sim", "max_batch_size": 5})
    assert state() in ([""], ["UNAVAILABLE"])
    ask(
        stub,
        "RepositoryModelLoad",
        {"model_name": "unloaded", "parameters": {"config": {"string_param": override}}},
    )
    assert state() == ["READY"]
    assert server.get("/v2/models/unloaded/config").json()["max_batch_size"] == 5
    assert server.load("unloaded").status == 200
    assert ask(stub, "ModelConfig", {"name": "unloaded"}).config.max_batch_size == 8
    ask(stub, "RepositoryModelUnload", {"model_name": "unloaded"})
    assert state() == ["UNAVAILABLE"]
    ask(stub, "RepositoryModelLoad", {"repository_name": "unloaded"})  # KServe's layout.
    assert state() == ["READY"]
    flag = {"unload_dependents": {"bool_param": True}}
    ask(stub, "RepositoryModelUnload", {"model_name": "unloaded", "parameters": flag})
    assert state() == ["UNAVAILABLE"]


def test_readiness(server, stub):
    assert ask(stub, "ServerLive", {}).live
    assert ask(stub, "ServerReady", {}).ready == (server.get("/v2/health/ready").status == 200)
    for model, version in (
        ("plain", ""),
        ("plain", "3"),
        ("plain", "2"),
        ("broken", ""),
        ("unloaded", ""),
        ("nobody", ""),
        ("..", ""),
    ):
        path = f"/v2/models/{model}{version and f'/versions/{version}'}/ready"
        by_grpc = ask(stub, "ModelReady", {"name": model, "version": version}).ready
        assert by_grpc == (server.get(path).status == 200), model


# HTTP status to gRPC code, failure-and-security.md 2.1.
CODES = {
    400: {"INVALID_ARGUMENT"},
    404: {"NOT_FOUND"},
    409: {"FAILED_PRECONDITION"},
    501: {"UNIMPLEMENTED"},
    503: {"UNAVAILABLE", "RESOURCE_EXHAUSTED"},
}


def load(model, **parameters):
    return "RepositoryModelLoad", {"model_name": model, "parameters": parameters}


def load_rest(model, **parameters):
    return "POST", f"/v2/repository/models/{model}/load", {"parameters": parameters}


def log(**settings):
    return "LogSettings", {"settings": settings}


SYSTEM = "/v2/systemsharedmemory"
CUDA = "/v2/cudasharedmemory"
HANDLE = "aGFuZGxl"

FAILURES = [
    (("ModelMetadata", {"name": "nobody"}), ("GET", "/v2/models/nobody", None), 404),
    (
        ("ModelMetadata", {"name": "plain", "version": "2"}),
        ("GET", "/v2/models/plain/versions/2", None),
        404,
    ),
    (("ModelMetadata", {"name": ".hidden"}), ("GET", "/v2/models/.hidden", None), 404),
    (("ModelMetadata", {"name": "broken"}), ("GET", "/v2/models/broken", None), 503),
    (("ModelMetadata", {"name": "unloaded"}), ("GET", "/v2/models/unloaded", None), 404),
    (("ModelConfig", {"name": "nobody"}), ("GET", "/v2/models/nobody/config", None), 404),
    (("ModelStatistics", {"name": "nobody"}), ("GET", "/v2/models/nobody/stats", None), 404),
    (load("nobody"), load_rest("nobody"), 404),
    (load("broken"), load_rest("broken"), 400),
    (load("plain", config={"string_param": "{"}), load_rest("plain", config="{"), 400),
    (load("plain", config={"int64_param": "7"}), load_rest("plain", config=7), 400),
    (load("plain", config={"bool_param": True}), load_rest("plain", config=True), 400),
    (load("plain", other={"string_param": "x"}), load_rest("plain", other="x"), 400),
    (
        load("plain", **{"file:1/model.onnx": {"bytes_param": HANDLE}}),
        load_rest("plain", **{"file:1/model.onnx": HANDLE}),
        501,
    ),
    (
        ("RepositoryModelLoad", {"repository_name": "far", "model_name": "plain"}),
        ("POST", "/v2/repository/far/models/plain/load", None),
        501,
    ),
    (
        (
            "RepositoryModelUnload",
            {"model_name": "plain", "parameters": {"unload_dependents": {"string_param": "yes"}}},
        ),
        (
            "POST",
            "/v2/repository/models/plain/unload",
            {"parameters": {"unload_dependents": "yes"}},
        ),
        400,
    ),
    (
        log(log_file={"string_param": "/x"}),
        ("POST", "/v2/logging", {"log_file": "/x"}),
        501,
    ),
    (log(log_format={"string_param": "x"}), ("POST", "/v2/logging", {"log_format": "x"}), 400),
    (log(log_info={"uint32_param": 1}), ("POST", "/v2/logging", {"log_info": 1}), 400),
    (log(loud={"bool_param": True}), ("POST", "/v2/logging", {"loud": True}), 400),
    (
        ("TraceSetting", {"model_name": "nobody"}),
        ("GET", "/v2/models/nobody/trace/setting", None),
        404,
    ),
    (
        ("TraceSetting", {"settings": {"trace_level": {"value": ["TIMESTAMPS"]}}}),
        ("POST", "/v2/trace/setting", {"trace_level": ["TIMESTAMPS"]}),
        501,
    ),
    (("SystemSharedMemoryStatus", {}), ("GET", f"{SYSTEM}/status", None), 501),
    (
        ("SystemSharedMemoryStatus", {"name": "r"}),
        ("GET", f"{SYSTEM}/region/r/status", None),
        501,
    ),
    (
        ("SystemSharedMemoryRegister", {"name": "r", "key": "/k", "byte_size": "8"}),
        ("POST", f"{SYSTEM}/region/r/register", {"key": "/k", "offset": 0, "byte_size": 8}),
        501,
    ),
    (("SystemSharedMemoryUnregister", {}), ("POST", f"{SYSTEM}/unregister", None), 501),
    (
        ("SystemSharedMemoryUnregister", {"name": "r"}),
        ("POST", f"{SYSTEM}/region/r/unregister", None),
        501,
    ),
    (("CudaSharedMemoryStatus", {}), ("GET", f"{CUDA}/status", None), 501),
    (
        ("CudaSharedMemoryRegister", {"name": "r", "raw_handle": HANDLE, "byte_size": "8"}),
        (
            "POST",
            f"{CUDA}/region/r/register",
            {"raw_handle": {"b64": HANDLE}, "device_id": 0, "byte_size": 8},
        ),
        501,
    ),
    (("CudaSharedMemoryUnregister", {}), ("POST", f"{CUDA}/unregister", None), 501),
]


@pytest.mark.parametrize("case", FAILURES, ids=lambda case: f"{case[0][0]}-{case[1][1]}")
def test_failures(server, stub, case):
    (call, request), (method, path, body), status = case
    answer = server.ask(method, path, body)
    with pytest.raises(grpc.RpcError) as caught:
        ask(stub, call, request)
    assert answer.status == status
    assert caught.value.code().name in CODES[answer.status], caught.value
    assert caught.value.details() == answer.error
    pushback = dict(caught.value.trailing_metadata()).get("grpc-retry-pushback-ms")
    after = answer.headers.get("Retry-After")
    assert pushback == (after and f"{after}000")
