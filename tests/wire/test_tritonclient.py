"""Triton's published Python clients, and the requests of its C++ client, against Weir."""

import asyncio
import gzip
import itertools
import json
import struct
import zlib

import numpy as np
import pytest

from serving import ROOT, Raw, Server, binary_request, tensor

pytest.importorskip("ml_dtypes")
tritonclient = pytest.importorskip("tritonclient.http")
aio = pytest.importorskip("tritonclient.http.aio")
import triton_models  # noqa: E402
from triton_models import put_models, same  # noqa: E402
from tritonclient.utils import InferenceServerException  # noqa: E402

NOT_IN_JSON = ("FP16", "BF16")

TEXTS = np.array([[b"", b"plain", b"a\0b\0", "\u00e4\u6f22\U0001f600".encode()]], object)
VALUES = {**triton_models.VALUES, "BYTES": TEXTS}  # What JSON can carry, too.


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("tritonclient") / "models"
    put_models(root)
    return root


@pytest.fixture(scope="module")
def server(repository):
    words = ("--model-control", "explicit", "--load-model", "*")
    with Server(repository.parent, *words, repository, ROOT / "examples" / "models") as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with tritonclient.InferenceServerClient(server.address, concurrency=8) as client:
        yield client


def make_input(name, values, datatype=None, binary=True):
    if datatype is None:
        datatype = "BYTES" if values.dtype == object else names_of(values)
    made = tritonclient.InferInput(name, list(values.shape), datatype)
    return made.set_data_from_numpy(values, binary_data=binary)


def names_of(values):
    return next(name for name, known in VALUES.items() if known.dtype == values.dtype)


def output(name, binary=True, classes=0):
    return tritonclient.InferRequestedOutput(name, binary_data=binary, class_count=classes)


# --- Tensors --------------------------------------------------------------------------------------


WAYS = [
    (datatype, binary_in, binary_out)
    for datatype, binary_in, binary_out in itertools.product(VALUES, (True, False), (True, False))
    if datatype not in NOT_IN_JSON or (binary_in and binary_out)
]


@pytest.mark.parametrize("datatype,binary_in,binary_out", WAYS)
def test_every_data_type_comes_back_unchanged(client, datatype, binary_in, binary_out):
    values = VALUES[datatype]
    result = client.infer(
        f"identity_{datatype.lower()}",
        [make_input("x", values, datatype, binary_in)],
        outputs=[output("y", binary_out)],
    )
    found = result.as_numpy("y")
    if datatype == "BYTES" and not binary_out:
        found = np.array([[text.encode() for text in row] for row in found], object)
    assert same(found, values)
    assert result.get_output("y")["datatype"] == datatype
    assert ("data" in result.get_output("y")) != binary_out


@pytest.mark.parametrize("datatype", NOT_IN_JSON)
def test_half_precision_is_refused_in_json_by_name(server, client, datatype):
    model = f"identity_{datatype.lower()}"
    data = {"inputs": [tensor("x", datatype, [1, 4], [0, 1, 2, 3])]}
    answer = server.infer(model, data)
    assert (answer.status, f"receiving {datatype} data via JSON" in answer.error) == (400, True)
    with pytest.raises(InferenceServerException, match=f"sending {datatype} data via JSON"):
        client.infer(model, [make_input("x", VALUES[datatype])], outputs=[output("y", False)])


def test_bytes_may_be_anything_in_binary(client):
    values = np.array([[bytes(range(256)), b"\xff\xfe", b"\0" * 1000, b"x" * 100_000]], object)
    assert same(client.infer("identity_bytes", [make_input("x", values)]).as_numpy("y"), values)


@pytest.mark.parametrize("text", ['"\\/\b\f\n\r\t', "\0", "\x01\x1f\x7f", "\ufeff\u2028\u2029"])
def test_json_texts_are_escaped_and_read_back(server, text):
    data = {"inputs": [tensor("x", "BYTES", [1, 4], [text] * 4)]}
    assert server.infer("identity_bytes", data).json()["outputs"][0]["data"] == [text] * 4


def test_bytes_that_are_no_text_do_not_break_the_answers_json(client, server):
    values = np.array([[b"\xff\xfe", b"\xc3", b"ok", b"\xed\xa0\x80"]], object)
    made = make_input("x", values)
    body, headers = tritonclient.InferenceServerClient.generate_request_body(
        [made], outputs=[output("y", False)]
    )
    answer = server.infer("identity_bytes", body, {"Inference-Header-Content-Length": str(headers)})
    assert answer.status == 200
    assert len(json.loads(answer.body.decode("utf-8"))["outputs"][0]["data"]) == 4


@pytest.mark.parametrize("ways", itertools.product((True, False), repeat=4))
def test_json_and_binary_mix_freely(client, ways):
    in0, in1, out0, out1 = ways
    a = np.arange(32, dtype=np.int32).reshape(2, 16)
    b = np.full((2, 16), 7, np.int32)
    result = client.infer(
        "add_sub",
        [make_input("INPUT0", a, binary=in0), make_input("INPUT1", b, binary=in1)],
        outputs=[output("OUTPUT0", out0), output("OUTPUT1", out1)],
    )
    assert same(result.as_numpy("OUTPUT0"), a + b)
    assert same(result.as_numpy("OUTPUT1"), a - b)


def test_only_requested_outputs_come_in_the_order_asked(client):
    values = np.ones((1, 16), np.int32)
    inputs = [make_input("INPUT1", values), make_input("INPUT0", values)]
    for names in (["OUTPUT1"], ["OUTPUT1", "OUTPUT0"], ["OUTPUT0", "OUTPUT1"]):
        result = client.infer("add_sub", inputs, outputs=[output(name) for name in names])
        assert [entry["name"] for entry in result.get_response()["outputs"]] == names


def test_a_scalar_stays_a_scalar(client):
    for binary in (True, False):
        made = make_input("x", np.array(2.5, np.float32), binary=binary)
        result = client.infer("scalar", [made], outputs=[output("y", binary)])
        assert result.get_output("y")["shape"] == []
        assert result.as_numpy("y") == np.float32(3.5)


def test_empty_tensors_go_both_ways(client):
    for binary in (True, False):
        made = make_input("x", np.zeros((0, 3), np.float32), binary=binary)
        result = client.infer("any_rank", [made], outputs=[output("y", binary)])
        assert result.as_numpy("y").shape == (0, 3)
    keep = make_input("keep", np.array([False, False]))
    made = make_input("x", np.ones((2, 2), np.float32))
    result = client.infer("select", [made, keep])
    assert result.as_numpy("y").shape == (0, 2)
    assert result.get_output("y")["parameters"] == {"binary_data_size": 0}


def test_a_weight_that_the_file_lists_among_its_inputs_is_none(client):
    x = make_input("x", np.ones((1, 4), np.float32))
    assert client.infer("overridable", [x]).as_numpy("y").tolist() == [[3] * 4]
    assert [entry["name"] for entry in client.get_model_metadata("overridable")["inputs"]] == ["x"]


def test_large_tensors_arrive_whole(client):
    values = np.random.default_rng(1).random((3, 1000, 1000), np.float32)
    result = client.infer("dynamic", [make_input("x", values)])
    assert np.array_equal(result.as_numpy("y"), values)
    values = values[:, :100, :100]
    made = make_input("x", values, binary=False)
    result = client.infer("dynamic", [made], outputs=[output("y", False)])
    assert np.array_equal(result.as_numpy("y"), values)


def test_nan_and_infinity_pass_in_binary(client):
    values = np.array([[np.nan, np.inf, -np.inf, -0.0] * 4], np.float32)
    found = client.infer("identity_fp32", [make_input("x", values)]).as_numpy("y")
    assert found.tobytes() == values.tobytes()


# --- Classification -------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", (True, False))
def test_the_best_classes_come_with_their_labels(client, binary):
    values = np.zeros((2, 16), np.float32)
    values[0, [3, 15]] = 0.75, 2
    values[1, [0, 1]] = -1, 5
    result = client.infer("labelled", [make_input("x", values)], outputs=[output("y", binary, 3)])
    assert result.get_output("y")["datatype"] == "BYTES"
    found = [[decode(text) for text in row] for row in result.as_numpy("y")]
    assert found[0] == ["2.000000:15", "0.750000:3:label 3", "0.000000:0:label 0"]
    assert found[1][0] == "5.000000:1:label 1"


def decode(text):
    return text if isinstance(text, str) else text.decode()


def test_more_classes_than_there_are_give_all(client):
    made = make_input("x", np.arange(4, dtype=np.int8).reshape(1, 4))
    result = client.infer("identity_int8", [made], outputs=[output("y", False, 100)])
    assert result.as_numpy("y").tolist() == [["3:3", "2:2", "1:1", "0:0"]]


def test_classes_of_a_real_network(client):
    pixels = np.zeros((1, 64), np.float32)
    result = client.infer(
        "digits", [make_input("pixels", pixels)], outputs=[output("scores", True, 10)]
    )
    scores = [float(text.split(b":")[0]) for text in result.as_numpy("scores")[0]]
    assert scores == sorted(scores, reverse=True)
    assert abs(sum(scores) - 1) < 1e-4


@pytest.mark.parametrize("datatype", ("BOOL", "FP16", "BF16", "BYTES"))
def test_other_types_cannot_be_classified(client, datatype):
    made = make_input("x", VALUES[datatype], datatype)
    with pytest.raises(InferenceServerException, match="classification") as caught:
        client.infer(f"identity_{datatype.lower()}", [made], outputs=[output("y", True, 1)])
    assert caught.value.status() == "400"


# --- Compression ----------------------------------------------------------------------------------


ENCODINGS = (None, "gzip", "deflate")


@pytest.mark.parametrize("sent,wanted", itertools.product(ENCODINGS, repeat=2))
@pytest.mark.parametrize("binary", (True, False))
def test_compression_both_ways(client, sent, wanted, binary):
    values = np.arange(20_000, dtype=np.float32).reshape(1, 100, 200)
    result = client.infer(
        "dynamic",
        [make_input("x", values, binary=binary)],
        outputs=[output("y", binary)],
        request_compression_algorithm=sent,
        response_compression_algorithm=wanted,
    )
    assert np.array_equal(result.as_numpy("y"), values)


@pytest.mark.parametrize("encoding", ("gzip", "deflate"))
def test_an_empty_picture_compresses_well_and_is_still_welcome(client, encoding):
    values = np.zeros((1, 1024, 1024), np.float32)
    result = client.infer(
        "dynamic",
        [make_input("x", values)],
        request_compression_algorithm=encoding,
        response_compression_algorithm=encoding,
    )
    assert np.array_equal(result.as_numpy("y"), values)


def test_answers_say_how_they_are_compressed(server):
    body, headers = binary_request({"x": np.zeros((1, 100, 100), np.float32)}, ["y"])
    accepted = {
        "gzip": "gzip",
        "deflate": "deflate",
        "gzip;q=0.5, deflate": "deflate",
        "gzip;q=0, identity": None,
        "br, gzip, deflate": "gzip",
        "GZIP": "gzip",
        "": None,
    }
    for accept, chosen in accepted.items():
        answer = server.infer("dynamic", body, {**headers, "Accept-Encoding": accept})
        assert answer.headers.get("Content-Encoding") == chosen, accept
        plain = {None: bytes, "gzip": gzip.decompress, "deflate": zlib.decompress}[chosen](
            answer.body
        )
        size = int(answer.headers["Inference-Header-Content-Length"])
        assert json.loads(plain[:size])["outputs"][0]["parameters"] == {"binary_data_size": 40_000}
        assert plain[size:] == bytes(40_000)


def test_errors_are_never_compressed(server):
    answer = server.infer("no_such_model", {}, {"Accept-Encoding": "gzip"})
    assert (answer.status, answer.headers.get("Content-Encoding")) == (404, None)
    assert "no_such_model" in answer.error


# --- Request parameters ---------------------------------------------------------------------------


@pytest.mark.parametrize("text", ("1", "a/b c", 'quote " and \\', "\u00e4\u6f22", "x" * 5000))
def test_the_request_id_comes_back(client, text):
    result = client.infer("scalar", [make_input("x", np.array(1, np.float32))], request_id=text)
    assert result.get_response()["id"] == text


def test_no_request_id_gives_none(client):
    result = client.infer("scalar", [make_input("x", np.array(1, np.float32))])
    assert "id" not in result.get_response()


def test_model_name_and_version_are_in_the_answer(client):
    result = client.infer("scalar", [make_input("x", np.array(1, np.float32))], model_version="1")
    response = result.get_response()
    assert (response["model_name"], response["model_version"]) == ("scalar", "1")


@pytest.mark.parametrize("priority", (0, 1, 3, 99, 2**63))
def test_priorities_are_accepted(client, priority):
    made = make_input("x", np.ones((1, 16), np.float32))
    assert client.infer("urgent", [made], priority=priority).as_numpy("y").sum() == 16


def test_a_timeout_long_enough_changes_nothing(client):
    made = make_input("x", np.ones((1, 16), np.float32))
    assert client.infer("urgent", [made], timeout=60_000_000).as_numpy("y").sum() == 16


def test_a_timeout_that_passes_is_said(client):
    made = make_input("x", np.ones((1, 16), np.float32))
    with pytest.raises(InferenceServerException) as caught:
        client.infer("slow", [made], timeout=1)
    assert caught.value.status() in ("503", "504")


def test_custom_parameters_are_accepted(client):
    made = make_input("x", np.array(1, np.float32))
    parameters = {"text": "a", "number": 3, "flag": True, "ratio": 0.5}
    assert client.infer("scalar", [made], parameters=parameters).as_numpy("y") == 2


def test_a_sequence_means_nothing_to_a_model_without_sequences(client):
    made = make_input("x", np.array(1, np.float32))
    for sequence_id in (7, "seven"):
        answer = client.infer("scalar", [made], sequence_id=sequence_id, sequence_start=True)
        assert answer.as_numpy("y") == 2


def test_many_requests_at_once(client):
    values = [np.full((1, 16), i, np.float32) for i in range(100)]
    waiting = [client.async_infer("identity_fp32", [make_input("x", row)]) for row in values]
    for row, answer in zip(values, waiting):
        assert same(answer.get_result().as_numpy("y"), row)


# --- What the server says about itself ------------------------------------------------------------


def test_health(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("scalar")
    assert client.is_model_ready("scalar", "1")
    assert not client.is_model_ready("scalar", "2")
    assert not client.is_model_ready("no_such_model")


def test_health_says_in_its_body_what_kserve_reads(server):
    assert server.get("/v2/health/live").json() == {"live": True}
    assert server.get("/v2/health/ready").json() == {"ready": True}
    assert server.get("/v2/models/scalar/ready").json() == {"name": "scalar", "ready": True}


def test_server_metadata(client):
    data = client.get_server_metadata()
    assert data["name"] == "weir"
    assert {"statistics", "classification", "binary_tensor_data"} <= set(data["extensions"])


def test_model_metadata(client):
    data = client.get_model_metadata("add_sub")
    assert data["versions"] == ["1"]
    assert data["platform"]
    spec = {"datatype": "INT32", "shape": [-1, 16]}
    assert data["inputs"] == [{"name": f"INPUT{i}", **spec} for i in (0, 1)]
    assert data["outputs"] == [{"name": f"OUTPUT{i}", **spec} for i in (0, 1)]
    assert client.get_model_metadata("scalar", "1")["inputs"][0]["shape"] == []


def test_model_config(client):
    config = client.get_model_config("add_sub")
    assert (config["name"], config["backend"]) == ("add_sub", "onnxruntime")
    assert config["max_batch_size"] == 64
    assert config["input"][0]["dims"] == [16]
    assert config["input"][0]["data_type"] == "TYPE_INT32"
    assert isinstance(config["input"][0]["dims"][0], int)
    assert client.get_model_config("identity_bytes")["input"][0]["data_type"] == "TYPE_STRING"


DURATIONS = (
    "success fail queue compute_input compute_infer compute_output cache_hit cache_miss".split()
)


def test_statistics_keep_their_relations(client):
    before = client.get_inference_statistics("add_sub")["model_stats"][0]
    values = np.ones((3, 16), np.int32)
    inputs = [make_input("INPUT0", values), make_input("INPUT1", values)]
    for _ in range(5):
        client.infer("add_sub", inputs)
    after = client.get_inference_statistics("add_sub", "1")["model_stats"][0]
    stats = after["inference_stats"]
    assert sorted(stats) == sorted(DURATIONS)
    assert after["inference_count"] - before["inference_count"] == 15
    assert after["execution_count"] - before["execution_count"] == 5
    grown = {key: stats[key]["count"] - before["inference_stats"][key]["count"] for key in stats}
    zero = ("fail", "cache_hit", "cache_miss")
    assert grown == {key: 0 if key in zero else 5 for key in DURATIONS}
    assert stats["success"]["ns"] >= stats["queue"]["ns"]
    assert after["last_inference"] >= before["last_inference"] > 0 or before["last_inference"] == 0
    sizes = {entry["batch_size"]: entry for entry in after["batch_stats"]}
    assert sizes[3]["compute_infer"]["count"] >= 5
    assert (
        sum(entry["compute_infer"]["count"] for entry in sizes.values()) == after["execution_count"]
    )
    assert {"type", "id", "byte_size"} == set(after["memory_usage"][0])


def test_statistics_of_all_models(client):
    names = [entry["name"] for entry in client.get_inference_statistics()["model_stats"]]
    assert {"add_sub", "digits", "segment"} <= set(names)


def test_log_settings_are_set_and_read_back(client):
    before = client.get_log_settings()
    assert before["log_error"] is True
    changed = client.update_log_settings({"log_verbose_level": 1, "log_info": False})
    assert (changed["log_verbose_level"], changed["log_info"]) == (1, False)
    assert client.get_log_settings() == changed
    assert client.update_log_settings({"log_format": "ISO8601"})["log_format"] == "ISO8601"
    del before["log_file"]
    assert client.update_log_settings(before) == {"log_file": "", **before}


def test_traces_are_off(client):
    assert client.get_trace_settings()["trace_level"] == ["OFF"]
    assert client.get_trace_settings("scalar")["trace_level"] == ["OFF"]
    with pytest.raises(InferenceServerException, match="tracing") as caught:
        client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]})
    assert caught.value.status() == "501"


def test_shared_memory_is_refused_by_name(client):
    refused = (
        lambda: client.register_system_shared_memory("r", "/r", 16),
        lambda: client.unregister_system_shared_memory(),
        lambda: client.get_system_shared_memory_status(),
        lambda: client.register_cuda_shared_memory("r", b"AA==", 0, 16),
        lambda: client.unregister_cuda_shared_memory(),
    )
    for ask in refused:
        with pytest.raises(InferenceServerException, match="shared memory") as caught:
            ask()
        assert caught.value.status() == "501"


# --- The repository -------------------------------------------------------------------------------


def index_of(client, name):
    return [entry for entry in client.get_model_repository_index() if entry["name"] == name]


def test_unload_and_load(server, client):
    client.unload_model("double_it")
    with pytest.raises(InferenceServerException) as caught:
        client.infer("double_it", [make_input("x", np.ones((1, 4), np.float32))])
    assert caught.value.status() == "404"
    assert not client.is_model_ready("double_it")
    server.await_("unloaded", lambda: server.state("double_it")[0] == "UNAVAILABLE")
    assert index_of(client, "double_it")[0]["reason"].startswith("unloaded")
    client.load_model("double_it")
    assert index_of(client, "double_it")[0]["state"] == "READY"
    made = make_input("x", np.ones((1, 4), np.float32))
    assert client.infer("double_it", [made]).as_numpy("y").tolist() == [[2] * 4]


def test_a_load_may_bring_a_configuration(client):
    config = {"max_batch_size": 2, "dynamic_batching": {"max_queue_delay_microseconds": 100}}
    client.load_model("double_it", config=json.dumps(config))
    assert client.get_model_config("double_it")["max_batch_size"] == 2
    made = make_input("x", np.ones((3, 4), np.float32))
    with pytest.raises(InferenceServerException, match="batch-size must be <= 2"):
        client.infer("double_it", [made])
    client.load_model("double_it")
    assert client.get_model_config("double_it")["max_batch_size"] == 64


def test_a_wrong_configuration_leaves_the_model_as_it_was(client):
    for config in ('{"max_batch_size": -3}', '{"nonsense": 1}', "{", '{"name": "other"}'):
        with pytest.raises(InferenceServerException, match="double_it|config") as caught:
            client.load_model("double_it", config=config)
        assert caught.value.status() == "400", config
        assert client.is_model_ready("double_it")


def test_files_in_a_load_are_refused_by_name(client):
    with pytest.raises(InferenceServerException, match="file:") as caught:
        client.load_model("double_it", config="{}", files={"file:1/model.onnx": b"x"})
    assert caught.value.status() == "501"


def test_loading_what_is_not_there_is_said(client):
    with pytest.raises(InferenceServerException, match="no_such_model") as caught:
        client.load_model("no_such_model")
    assert caught.value.status() == "404"
    client.unload_model("no_such_model")


# --- The asynchronous client ----------------------------------------------------------------------


def run(server, ask):
    async def asked():
        async with aio.InferenceServerClient(server.address) as client:
            return await ask(client)

    return asyncio.run(asked())


@pytest.mark.parametrize("datatype", VALUES)
def test_aio_every_data_type(server, datatype):
    async def ask(client):
        made = make_input("x", VALUES[datatype], datatype)
        return await client.infer(f"identity_{datatype.lower()}", [made])

    assert same(run(server, ask).as_numpy("y"), VALUES[datatype])


@pytest.mark.parametrize("sent,wanted", itertools.product(ENCODINGS, repeat=2))
def test_aio_compression(server, sent, wanted):
    values = np.arange(20_000, dtype=np.float32).reshape(1, 100, 200)

    async def ask(client):
        return await client.infer(
            "dynamic",
            [make_input("x", values)],
            request_compression_algorithm=sent,
            response_compression_algorithm=wanted,
        )

    assert np.array_equal(run(server, ask).as_numpy("y"), values)


def test_aio_many_requests_at_once(server):
    values = [np.full((1, 16), i, np.float32) for i in range(100)]

    async def ask(client):
        made = [client.infer("identity_fp32", [make_input("x", row)]) for row in values]
        return await asyncio.gather(*made)

    assert all(same(found.as_numpy("y"), row) for found, row in zip(run(server, ask), values))


def test_aio_administration(server):
    async def ask(client):
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert not await client.is_model_ready("no_such_model")
        await client.unload_model("any_rank")
        assert not await client.is_model_ready("any_rank")
        await client.load_model("any_rank")
        assert await client.is_model_ready("any_rank")
        assert (await client.get_model_config("scalar"))["max_batch_size"] == 0
        assert (await client.get_model_metadata("scalar"))["name"] == "scalar"
        assert (await client.get_inference_statistics("scalar"))["model_stats"]
        with pytest.raises(InferenceServerException, match="no_such_model"):
            await client.get_model_metadata("no_such_model")
        return await client.get_model_repository_index()

    scalar = next(entry for entry in run(server, ask) if entry["name"] == "scalar")
    assert scalar.pop("memory")["device"] == "cpu"
    assert scalar == {"name": "scalar", "version": "1", "state": "READY", "reason": ""}


# --- Requests as Triton's C++ client writes them --------------------------------------------------


def test_cpp_header_length_of_pure_json_is_the_whole_body(server):
    text = json.dumps({"id": "", "inputs": [tensor("x", "FP32", [], [1])]}).encode()
    headers = {
        "Inference-Header-Content-Length": str(len(text)),
        "Content-Type": "application/json",
    }
    answer = server.infer("scalar", text, headers)
    assert answer.status == 200
    assert "id" not in answer.json()
    assert "Inference-Header-Content-Length" not in answer.headers
    assert answer.headers["Content-Type"] == "application/json"


def test_cpp_binary_in_and_out(server):
    values = {f"INPUT{i}": np.full((1, 16), i + 1, np.int32) for i in (0, 1)}
    body, headers = binary_request(values, ["OUTPUT0", "OUTPUT1"])
    answer = server.infer("add_sub", body, headers)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    size = int(answer.headers["inference-header-content-length"])
    outputs = json.loads(answer.body[:size])["outputs"]
    assert all(set(entry["parameters"]) == {"binary_data_size"} for entry in outputs)
    assert np.frombuffer(answer.body[size:], np.int32).tolist() == [3] * 16 + [-1] * 16


def test_cpp_outputs_in_json_have_no_parameters_and_are_flat(server):
    body, headers = binary_request({"x": np.ones((2, 16), np.float32)}, None)
    entry = server.infer("identity_fp32", body, headers).json()["outputs"][0]
    assert set(entry) == {"name", "datatype", "shape", "data"}
    assert entry["data"] == [1.0] * 32


def test_an_output_listed_is_json_unless_it_says_otherwise(server):
    """binary_data_output is only for outputs that are not listed, as Triton's code has it."""
    body = {
        "inputs": [tensor("x", "FP32", [], [1])],
        "outputs": [{"name": "y"}],
        "parameters": {"binary_data_output": True},
    }
    assert server.infer("scalar", body).json()["outputs"][0]["data"] == [2]


def test_a_raw_body_is_the_tensor(server):
    raw = {"Inference-Header-Content-Length": "0"}
    answer = server.infer("identity_fp32", np.arange(16, dtype=np.float32).tobytes(), raw)
    assert answer.status == 200
    size = int(answer.headers["Inference-Header-Content-Length"])
    assert json.loads(answer.body[:size])["outputs"][0]["shape"] == [1, 16]
    assert answer.body[size:] == np.arange(16, dtype=np.float32).tobytes()
    refused = server.infer("add_sub", bytes(64), raw)
    assert (refused.status, "add_sub" in refused.error) == (400, True)


def test_all_binary_outputs_empty_leaves_the_header_out(server):
    body, headers = binary_request(
        {"x": np.ones((2, 2), np.float32), "keep": np.zeros(2, bool)}, ["y"]
    )
    answer = server.infer("select", body, headers)
    assert "Inference-Header-Content-Length" not in answer.headers
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["outputs"][0]["parameters"] == {"binary_data_size": 0}


def test_nested_data_counts_as_flat(server):
    rows = [[float(i) for i in range(k, k + 16)] for k in (0, 16)]
    body = {"inputs": [tensor("x", "FP32", [2, 16], rows)]}
    assert server.infer("identity_fp32", body).json()["outputs"][0]["data"] == sum(rows, [])


def test_numbers_are_as_short_as_they_can_be(server):
    numbers = [0.1, 16777216, 1e-45, 3.4028235e38, -0.0, 1e21, 0.3, 5e-324]
    body = {"inputs": [tensor("x", "FP32", [1, 16], [float(np.float32(n)) for n in numbers] * 2)]}
    text = server.infer("identity_fp32", body).body.decode()
    assert '"data":[0.1,16777216.0,1e-45,3.4028235e38,-0.0,1e21,0.3,0.0,' in text


def test_bytes_lengths_are_checked(server):
    blob = struct.pack("<I", 3) + b"abc" + struct.pack("<I", 100) + b"short" + bytes(8)
    head = {
        "inputs": [
            {
                "name": "x",
                "datatype": "BYTES",
                "shape": [1, 4],
                "parameters": {"binary_data_size": len(blob)},
            }
        ]
    }
    text = json.dumps(head).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    answer = server.infer("identity_bytes", text + blob, headers)
    assert (answer.status, "'x'" in answer.error) == (400, True)


def test_a_body_in_pieces_of_one_byte(server):
    """However it is cut, a request is the same request."""
    body, headers = binary_request({"x": np.arange(16, dtype=np.float32).reshape(1, 16)}, ["y"])
    size = headers["Inference-Header-Content-Length"]
    head = (
        f"POST /v2/models/identity_fp32/infer HTTP/1.1\r\nHost: a\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"Inference-Header-Content-Length: {size}\r\n\r\n"
    )
    with Raw(server.port) as raw:
        for byte in head.encode() + body:
            raw.send(bytes([byte]))
        answer = raw.answer()
    assert answer.status == 200
    assert answer.body.endswith(np.arange(16, dtype=np.float32).tobytes())
