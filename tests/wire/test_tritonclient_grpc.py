"""Triton's published Python gRPC clients, and requests as others write them, against Weir."""

import asyncio
import json
import queue

import numpy as np
import pytest

from serving import PATIENCE_S, ROOT, Server, put_sim

pytest.importorskip("ml_dtypes")
grpc = pytest.importorskip("grpc")
triton = pytest.importorskip("tritonclient.grpc")
aio = pytest.importorskip("tritonclient.grpc.aio")
from triton_models import VALUES, put_models, same  # noqa: E402
from tritonclient.grpc import service_pb2 as pb  # noqa: E402
from tritonclient.grpc import service_pb2_grpc  # noqa: E402
from tritonclient.utils import InferenceServerException  # noqa: E402

from onnx_cases_grpc import CONTENTS  # noqa: E402

NO_LIMIT = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("tritonclient_grpc") / "models"
    put_models(root)
    put_sim(root, "stuck", parameters={"tau0": "1s"}, max_batch_size=1, overload="queue")
    put_sim(root, "quick", parameters={"tau0": "10us"}, max_batch_size=1)
    put_sim(root, "streams", parameters={"parts": "5", "tau0": "1ms"}, max_batch_size=0)
    put_sim(root, "floods", parameters={"parts": "3000", "tau0": "1us"}, max_batch_size=0)
    put_sim(root, "fails", parameters={"poison": "13", "tau0": "100us"})
    return root


@pytest.fixture(scope="module")
def server(repository):
    words = ("--model-control", "explicit", "--load-model", "*")
    with Server(repository.parent, *words, repository, ROOT / "examples" / "models") as server:
        server.grpc_address = f"127.0.0.1:{server.ports[1]}"
        yield server


@pytest.fixture(scope="module")
def client(server):
    with triton.InferenceServerClient(server.grpc_address) as client:
        yield client


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.grpc_address, options=NO_LIMIT) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def make_input(name, values, datatype=None):
    datatype = datatype or next(key for key, known in VALUES.items() if known.dtype == values.dtype)
    return triton.InferInput(name, list(values.shape), datatype).set_data_from_numpy(values)


def row(value=0.0):
    return np.full((1, 16), value, np.float32)


def rows(value=0.0):
    return [make_input("x", row(value))]


def refused(ask, code, *words):
    with pytest.raises(InferenceServerException) as caught:
        ask()
    assert caught.value.status() == f"StatusCode.{code}", caught.value
    for word in words:
        assert word in caught.value.message()


# --- Tensors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("datatype", VALUES)
def test_every_data_type_comes_back_unchanged(client, datatype):
    values = VALUES[datatype]
    result = client.infer(f"identity_{datatype.lower()}", [make_input("x", values, datatype)])
    assert same(result.as_numpy("y"), values)
    assert result.get_output("y").datatype == datatype


def typed_request(datatype, values, field=None):
    model = f"identity_{datatype.lower()}"
    request = pb.ModelInferRequest(model_name=model)
    entry = request.inputs.add(name="x", datatype=datatype, shape=values.shape)
    getattr(entry.contents, field or CONTENTS[datatype]).extend(values.reshape(-1).tolist())
    return request


def raw_of(values):
    if values.dtype != object:
        return values.tobytes()
    return b"".join(len(text).to_bytes(4, "little") + text for text in values.reshape(-1))


@pytest.mark.parametrize("datatype", CONTENTS)
def test_typed_contents_of_every_type(stub, datatype):
    """They are answered with raw contents, as Triton does."""
    answer = stub.ModelInfer(typed_request(datatype, VALUES[datatype]))
    assert list(answer.raw_output_contents) == [raw_of(VALUES[datatype])]
    assert answer.outputs[0].datatype == datatype
    assert list(answer.outputs[0].shape) == list(VALUES[datatype].shape)
    assert not answer.outputs[0].HasField("contents")


def test_many_typed_values(stub):
    values = np.arange(300_000, dtype=np.float32).reshape(3, 100, 1000)
    request = pb.ModelInferRequest(model_name="dynamic")
    entry = request.inputs.add(name="x", datatype="FP32", shape=values.shape)
    entry.contents.fp32_contents.extend(values.reshape(-1).tolist())
    assert stub.ModelInfer(request).raw_output_contents[0] == values.tobytes()


def failure(ask):
    with pytest.raises(grpc.RpcError) as caught:
        ask()
    return caught.value.code(), caught.value.details()


def test_contents_that_do_not_fit_are_said_in_tritons_words(stub):
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    wrong = typed_request("INT32", VALUES["FP32"][:, :4], "fp32_contents")
    assert failure(lambda: stub.ModelInfer(wrong)) == (
        invalid,
        "unexpected explicit tensor data for input tensor 'x' for model 'identity_int32' of type "
        "'FP32', expected datatype 'INT32'",
    )
    both = typed_request("INT32", VALUES["INT32"])
    both.raw_input_contents.append(bytes(16))
    assert failure(lambda: stub.ModelInfer(both)) == (
        invalid,
        "contents field must not be specified when using raw_input_contents for 'x' for model "
        "'identity_int32'",
    )
    none = typed_request("INT32", VALUES["INT32"])
    none.inputs[0].ClearField("contents")
    assert failure(lambda: stub.ModelInfer(none)) == (
        invalid,
        "unable to find data for input tensor 'x' for model 'identity_int32' in request.",
    )
    half = typed_request("FP16", VALUES["FP32"][:, :4], "fp32_contents")
    assert failure(lambda: stub.ModelInfer(half))[0] == invalid


def test_only_requested_outputs_come_in_the_order_asked(client):
    values = np.ones((1, 16), np.int32)
    inputs = [make_input("INPUT1", values), make_input("INPUT0", values)]
    for names in (["OUTPUT1"], ["OUTPUT1", "OUTPUT0"], ["OUTPUT0", "OUTPUT1"]):
        asked = [triton.InferRequestedOutput(name) for name in names]
        response = client.infer("add_sub", inputs, outputs=asked).get_response()
        assert [entry.name for entry in response.outputs] == names
        sums = {"OUTPUT0": 2, "OUTPUT1": 0}
        for name, raw in zip(names, response.raw_output_contents):
            assert np.frombuffer(raw, np.int32).tolist() == [sums[name]] * 16


def test_scalars_and_empty_tensors(client):
    result = client.infer("scalar", [make_input("x", np.array(2.5, np.float32))])
    assert result.as_numpy("y") == np.float32(3.5)
    assert list(result.get_output("y").shape) == []
    result = client.infer("any_rank", [make_input("x", np.zeros((0, 3), np.float32))])
    assert list(result.get_output("y").shape) == [0, 3]
    assert list(result.get_response().raw_output_contents) == [b""]


def test_nan_and_infinity_keep_their_bits(client):
    values = np.array([[np.nan, np.inf, -np.inf, -0.0] * 4], np.float32)
    found = client.infer("identity_fp32", [make_input("x", values)]).as_numpy("y")
    assert found.tobytes() == values.tobytes()


@pytest.mark.parametrize("count", (150_528, 1_204_224, 12_000_000))
def test_large_tensors_arrive_whole(client, count):
    values = np.random.default_rng(1).random((1, 1, count), np.float32)
    assert np.array_equal(client.infer("dynamic", [make_input("x", values)]).as_numpy("y"), values)


def test_bytes_may_be_anything(client):
    values = np.array([[bytes(range(256)), b"\xff\xfe", b"\0" * 1000, b"x" * 2_000_000]], object)
    assert same(client.infer("identity_bytes", [make_input("x", values)]).as_numpy("y"), values)


def test_lengths_of_bytes_are_checked(stub):
    request = pb.ModelInferRequest(model_name="identity_bytes")
    request.inputs.add(name="x", datatype="BYTES", shape=[1, 4])
    request.raw_input_contents.append(b"\x03\0\0\0abc\xff\0\0\0short")
    code, text = failure(lambda: stub.ModelInfer(request))
    assert (code, "'x'" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True)


def test_the_best_classes_come_with_their_labels(client):
    values = np.zeros((2, 16), np.float32)
    values[0, [3, 15]] = 0.75, 2
    asked = [triton.InferRequestedOutput("y", class_count=3)]
    result = client.infer("labelled", [make_input("x", values)], outputs=asked)
    assert result.get_output("y").datatype == "BYTES"
    assert result.as_numpy("y")[0].tolist() == [
        b"2.000000:15",
        b"0.750000:3:label 3",
        b"0.000000:0:label 0",
    ]


def test_a_message_of_unknown_fields_is_read(server):
    """What a later protocol adds is passed over; what is no message is refused by name."""
    request = typed_request("FP32", VALUES["FP32"]).SerializeToString()
    with grpc.insecure_channel(server.grpc_address) as channel:
        ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        later = request + b"\xa2\x06\x05later" + b"\xa8\x06\x01"
        answer = pb.ModelInferResponse.FromString(ask(later))
        assert answer.raw_output_contents[0] == VALUES["FP32"].tobytes()
        code, text = failure(lambda: ask(b"\x0a\xff\xff"))
        assert "protobuf" in text
        assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL)


# --- Requests -------------------------------------------------------------------------------------


def test_id_model_and_version_are_in_the_answer(client):
    made = make_input("x", np.array(1, np.float32))
    response = client.infer("scalar", [made], request_id="\u00e4 7", model_version="1")
    response = response.get_response()
    assert (response.id, response.model_name, response.model_version) == ("\u00e4 7", "scalar", "1")
    assert "triton_final_response" not in response.parameters


def test_refusals_have_the_codes_of_the_protocol(client, stub):
    refused(lambda: client.infer("nobody", rows()), "NOT_FOUND", "unknown model: 'nobody'")
    refused(lambda: client.infer("quick", rows(), model_version="9"), "NOT_FOUND")
    refused(
        lambda: client.infer("quick", rows(), model_version="two"),
        "INVALID_ARGUMENT",
        "failed to get model version from specified version string 'two'",
        "version should be an integral value > 0",
    )
    refused(lambda: client.infer("quick", []), "INVALID_ARGUMENT", "missing required input(s) ['x']")
    refused(
        lambda: client.infer("quick", [make_input("z", row())]), "INVALID_ARGUMENT", "input 'z'"
    )
    refused(
        lambda: client.infer("quick", rows(), outputs=[triton.InferRequestedOutput("z")]),
        "INVALID_ARGUMENT",
        "output 'z'",
    )
    refused(
        lambda: client.infer("streams", rows()),
        "UNIMPLEMENTED",
        "ModelInfer RPC doesn't support models with decoupled transaction policy",
    )
    shared = triton.InferInput("x", [1, 16], "FP32")
    shared.set_shared_memory("region", 64)
    refused(lambda: client.infer("quick", [shared]), "UNIMPLEMENTED", "shared memory")
    refused(lambda: client.infer("fails", rows(13)), "INVALID_ARGUMENT")


@pytest.mark.parametrize("priority", (0, 1, 3, 99, 2**63))
def test_priorities_are_accepted(client, priority):
    assert client.infer("urgent", rows(1), priority=priority).as_numpy("y").sum() == 16


def test_parameters_of_ones_own_are_accepted(client):
    parameters = {"text": "a", "number": 3, "flag": True, "ratio": 0.5}
    assert client.infer("quick", rows(1), parameters=parameters).as_numpy("y").sum() == 16


def test_reserved_and_empty_parameters_are_refused(stub):
    request = typed_request("FP32", VALUES["FP32"])
    request.parameters["triton_secret"].bool_param = True
    assert failure(lambda: stub.ModelInfer(request))[0] == grpc.StatusCode.INVALID_ARGUMENT
    request.parameters.clear()
    request.parameters["empty"].SetInParent()
    assert failure(lambda: stub.ModelInfer(request))[0] == grpc.StatusCode.INVALID_ARGUMENT


def test_the_cpp_clients_flag_means_nothing_to_a_unary_call(stub):
    request = typed_request("FP32", VALUES["FP32"])
    request.parameters["triton_enable_empty_final_response"].bool_param = False
    assert not stub.ModelInfer(request).parameters


def test_the_time_goes_where_the_answer_says(stub):
    request = pb.ModelInferRequest(model_name="slow")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 16])
    request.raw_input_contents.append(bytes(64))
    request.parameters["weir_timing"].bool_param = True
    found = stub.ModelInfer(request).parameters
    assert set(found) == {"queue_ms", "gather_ms", "compute_ms", "total_ms"}
    assert found["total_ms"].double_param >= found["compute_ms"].double_param >= 100


def test_a_deadline_that_passes_is_said_and_ends_the_inference(server, client):
    before = fails(server, "stuck")

    def ends(**limit):
        """Asks again where a busy machine let the time pass before the model was asked."""

        def ended():
            refused(lambda: client.infer("stuck", rows(), **limit), "DEADLINE_EXCEEDED")
            at_rest(server, "stuck")
            return fails(server, "stuck") > before

        server.await_("an inference ends", ended)

    ends(client_timeout=0.03)
    before = fails(server, "stuck")
    ends(timeout=20_000)  # The model's own time-out, which the client does not watch.
    assert client.infer("slow", rows(1)).as_numpy("y").sum() == 16


def busy(server, model):
    """Is a request of it with the engine?  Then it has more leases than a model that nobody asks."""
    metrics = server.metrics()
    idle = metrics.of_model("weir_model_leases", "overridable")
    return metrics.of_model("weir_model_leases", model) > idle


def asked(server, model):
    """How many of its requests the engine has or has had."""
    metrics = server.metrics()
    leases = "weir_model_leases"
    here = metrics.of_model(leases, model) - metrics.of_model(leases, "overridable")
    stats = server.stats(model)["inference_stats"]
    return here + stats["success"]["count"] + stats["fail"]["count"]


def fails(server, model):
    return server.stats(model)["inference_stats"]["fail"]["count"]


def at_rest(server, model):
    server.await_("nothing is left", lambda: not busy(server, model))


def test_many_requests_at_once(client):
    values = [np.full((1, 16), i, np.float32) for i in range(200)]
    found = queue.Queue()
    for i, each in enumerate(values):
        client.async_infer(
            "identity_fp32",
            [make_input("x", each)],
            lambda result, error, i=i: found.put((i, result, error)),
        )
    for _ in values:
        i, result, error = found.get(timeout=PATIENCE_S)
        assert error is None
        assert same(result.as_numpy("y"), values[i])


def test_a_canceled_request_leaves_the_model(server, client):
    found = queue.Queue()
    at_rest(server, "stuck")
    before = fails(server, "stuck")
    call = client.async_infer("stuck", rows(), lambda result, error: found.put(error))
    server.await_("accepted", lambda: busy(server, "stuck"))
    call.cancel()
    assert "CANCELLED" in str(found.get(timeout=PATIENCE_S).status())
    assert client.infer("quick", rows(1)).as_numpy("y").sum() == 16
    server.await_("ended", lambda: fails(server, "stuck") == before + 1)


@pytest.mark.parametrize("algorithm", ("gzip", "deflate"))
def test_compressed_requests(client, algorithm):
    values = np.arange(20_000, dtype=np.float32).reshape(1, 100, 200)
    for each in (values, values[:, :1, :4], np.zeros((1, 1024, 1024), np.float32)):
        made = [make_input("x", each)]
        result = client.infer("dynamic", made, compression_algorithm=algorithm)
        assert np.array_equal(result.as_numpy("y"), each)


# --- Streams --------------------------------------------------------------------------------------


class Stream:
    """`with Stream(client) as stream:` — results and errors in the order they came."""

    def __init__(self, client, **options):
        self.client = client
        self.options = options
        self.found = queue.Queue()

    def __enter__(self):
        self.client.start_stream(
            lambda result, error: self.found.put((result, error)), **self.options
        )
        return self

    def __exit__(self, *_):
        self.client.stop_stream()

    def ask(self, model, inputs, **options):
        self.client.async_stream_infer(model, inputs, **options)

    def next(self):
        return self.found.get(timeout=PATIENCE_S)

    def response(self):
        result, error = self.next()
        assert error is None, error
        return result.get_response()


@pytest.fixture
def streaming(server):
    """A client of its own: one has one stream."""
    with triton.InferenceServerClient(server.grpc_address) as client:
        yield client


def final(response):
    return response.parameters["triton_final_response"].bool_param


def test_a_stream_answers_in_the_order_of_its_requests(streaming):
    """Whatever the models take: a quick one waits for a slow one before it."""
    with Stream(streaming) as stream:
        for i in range(60):
            stream.ask("slow" if i == 0 else "quick", rows(i), request_id=str(i))
        for i in range(60):
            response = stream.response()
            assert response.id == str(i)
            assert np.frombuffer(response.raw_output_contents[0], np.float32)[0] == i
            assert final(response) is True


@pytest.mark.parametrize("datatype", VALUES)
def test_every_data_type_in_a_stream(streaming, datatype):
    with Stream(streaming) as stream:
        made = make_input("x", VALUES[datatype], datatype)
        stream.ask(f"identity_{datatype.lower()}", [made])
        result, error = stream.next()
        assert error is None
        assert same(result.as_numpy("y"), VALUES[datatype])


def stream_requests(stub, requests, metadata=None):
    return list(stub.ModelStreamInfer(iter(requests), metadata=metadata, timeout=PATIENCE_S))


def sim_request(model, value=0.0, **fields):
    request = pb.ModelInferRequest(model_name=model, **fields)
    request.inputs.add(name="x", datatype="FP32", shape=[1, 16])
    request.raw_input_contents.append(row(value).tobytes())
    return request


def test_a_failing_request_does_not_end_the_stream(stub):
    bad = sim_request("quick", id="bad")
    bad.inputs[0].name = "z"
    requests = [
        sim_request("nobody", id="a"),
        sim_request("quick", 1, id="b"),
        bad,
        sim_request("fails", 13, id="c"),
        sim_request("quick", 2, id="d"),
    ]
    found = stream_requests(stub, requests)
    assert [each.infer_response.id for each in found] == ["a", "b", "bad", "c", "d"]
    assert [bool(each.error_message) for each in found] == [True, False, True, True, False]
    assert "unknown model: 'nobody'" in found[0].error_message
    for each in (found[0], found[2]):
        assert each.infer_response == pb.ModelInferResponse(id=each.infer_response.id)
    # What the model itself refused says so, and that nothing follows.
    assert (found[3].infer_response.model_name, found[3].infer_response.model_version) == (
        "fails",
        "1",
    )
    assert final(found[3].infer_response) is True


def test_an_error_ends_the_stream_where_that_was_asked_for(stub):
    requests = [sim_request("quick", 1), sim_request("nobody"), sim_request("quick", 2)]
    answers = stub.ModelStreamInfer(
        iter(requests), metadata=[("triton_grpc_error", "true")], timeout=PATIENCE_S
    )
    assert not next(answers).error_message
    code, text = failure(lambda: next(answers))
    assert (code, "nobody" in text) == (grpc.StatusCode.NOT_FOUND, True)


def test_a_stream_without_requests_ends_well(stub):
    assert stream_requests(stub, []) == []


def test_a_decoupled_model_answers_in_parts(stub):
    found = [each.infer_response for each in stream_requests(stub, [sim_request("streams", 7)])]
    assert [final(each) for each in found] == [False] * 5
    assert all(each.raw_output_contents[0] == row(7).tobytes() for each in found)


def test_the_empty_last_response_comes_where_it_was_asked_for(stub):
    requests = [sim_request("streams", i, id=str(i)) for i in range(3)]
    for request in requests:
        request.parameters["triton_enable_empty_final_response"].bool_param = True
    found = [each.infer_response for each in stream_requests(stub, requests)]
    for i in range(3):
        mine = [each for each in found if each.id == str(i)]
        assert [final(each) for each in mine] == [False] * 5 + [True]
        assert (len(mine[-1].outputs), mine[-1].model_name) == (0, "streams")
        assert all(each.raw_output_contents[0] == row(i).tobytes() for each in mine[:-1])


def test_tritons_client_knows_the_last_response(streaming):
    with Stream(streaming) as stream:
        stream.ask("streams", rows(1), request_id="1", enable_empty_final_response=True)
        count = 0
        while not final(stream.response()):
            count += 1
        assert count == 5


def test_decoupled_and_other_models_share_a_stream(stub):
    requests = [sim_request("streams", 1, id="parts"), sim_request("quick", 2, id="one")] * 10
    found = [each.infer_response for each in stream_requests(stub, requests)]
    assert sum(each.id == "parts" for each in found) == 50
    assert sum(each.id == "one" for each in found) == 10


def test_more_requests_than_are_read_at_a_time(stub):
    requests = [sim_request("quick", i, id=str(i)) for i in range(2000)]
    found = stream_requests(stub, requests)
    assert [each.infer_response.id for each in found] == [str(i) for i in range(2000)]


def test_a_client_that_does_not_read_stops_the_model_and_not_the_server(server, stub, client):
    answers = stub.ModelStreamInfer(iter([sim_request("floods")] * 20), timeout=PATIENCE_S)
    first = next(answers)
    assert not first.error_message
    assert client.is_server_live()
    assert sum(1 for _ in answers) == 20 * 3000 - 1


def test_a_canceled_stream_cancels_its_requests(server, streaming, client):
    at_rest(server, "stuck")
    before, all_before = fails(server, "stuck"), asked(server, "stuck")
    with Stream(streaming) as stream:
        stream.ask("quick", rows(1))
        stream.response()
        for _ in range(5):
            stream.ask("stuck", rows())
        stream.ask("quick", rows(1))
        server.await_("accepted", lambda: asked(server, "stuck") >= all_before + 5)
        streaming.stop_stream(cancel_requests=True)
    at_rest(server, "stuck")
    assert fails(server, "stuck") > before
    assert asked(server, "stuck") == all_before + 5


def test_a_streams_deadline_is_its_requests(stub):
    answers = stub.ModelStreamInfer(iter([sim_request("stuck")]), timeout=0.05)
    assert failure(lambda: list(answers))[0] == grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_request_of_a_stream_may_have_a_time_of_its_own(stub):
    late = sim_request("stuck", id="late")
    late.parameters["timeout"].int64_param = 20_000
    found = stream_requests(stub, [late, sim_request("quick", id="next")])
    assert [each.infer_response.id for each in found] == ["late", "next"]
    assert [bool(each.error_message) for each in found] == [True, False]


@pytest.mark.parametrize("algorithm", ("gzip", "deflate"))
def test_a_compressed_stream(streaming, algorithm):
    values = np.arange(20_000, dtype=np.float32).reshape(1, 100, 200)
    with Stream(streaming, compression_algorithm=algorithm) as stream:
        for _ in range(3):
            stream.ask("dynamic", [make_input("x", values)])
        for _ in range(3):
            assert stream.response().raw_output_contents[0] == values.tobytes()


def test_large_tensors_in_a_stream(streaming):
    values = np.random.default_rng(2).random((1, 1, 1_204_224), np.float32)
    with Stream(streaming) as stream:
        for _ in range(8):
            stream.ask("dynamic", [make_input("x", values)])
        for _ in range(8):
            assert stream.response().raw_output_contents[0] == values.tobytes()


# --- What the server says about itself ------------------------------------------------------------


def test_health(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("scalar")
    assert client.is_model_ready("scalar", "1")
    assert not client.is_model_ready("scalar", "2")
    assert not client.is_model_ready("nobody")


def test_metadata_and_configuration(client):
    found = client.get_server_metadata()
    assert found.name == "weir"
    assert "statistics" in found.extensions
    found = client.get_model_metadata("add_sub", as_json=True)
    assert found["inputs"][0] == {"name": "INPUT0", "datatype": "INT32", "shape": ["-1", "16"]}
    found = client.get_model_config("add_sub").config
    assert (found.name, found.backend, found.max_batch_size) == ("add_sub", "onnxruntime", 64)
    refused(lambda: client.get_model_metadata("nobody"), "NOT_FOUND", "nobody")


def test_statistics(client):
    def count():
        found = client.get_inference_statistics("double_it").model_stats[0]
        return found.inference_stats.success.count

    before = count()
    client.infer("double_it", [make_input("x", np.ones((1, 4), np.float32))])
    assert count() == before + 1
    assert len(client.get_inference_statistics().model_stats) > 10


def test_load_and_unload(server, client):
    client.unload_model("double_it")
    assert not client.is_model_ready("double_it")
    made = [make_input("x", np.ones((3, 4), np.float32))]
    refused(lambda: client.infer("double_it", made), "NOT_FOUND", "double_it")
    client.load_model("double_it", config=json.dumps({"max_batch_size": 2}))
    refused(lambda: client.infer("double_it", made), "INVALID_ARGUMENT", "batch-size must be <= 2")
    client.load_model("double_it")
    assert client.infer("double_it", made).as_numpy("y").tolist() == [[2] * 4] * 3
    index = {entry.name: entry.state for entry in client.get_model_repository_index().models}
    assert index["double_it"] == "READY"


def test_log_and_trace_settings(client):
    before = client.get_log_settings(as_json=True)["settings"]
    assert before["log_error"] == {"bool_param": True}
    changed = client.update_log_settings({"log_verbose_level": 1}, as_json=True)["settings"]
    assert changed["log_verbose_level"] == {"uint32_param": 1}
    client.update_log_settings({"log_verbose_level": 0})
    assert client.get_trace_settings().settings["trace_level"].value == ["OFF"]


def test_shared_memory_is_refused_by_name(client):
    for ask in (
        lambda: client.register_system_shared_memory("r", "/r", 16),
        lambda: client.unregister_system_shared_memory(),
        lambda: client.get_system_shared_memory_status(),
        lambda: client.register_cuda_shared_memory("r", b"AA==", 0, 16),
    ):
        refused(ask, "UNIMPLEMENTED", "shared memory")


# --- The asynchronous client ----------------------------------------------------------------------


def run(server, ask):
    async def asked():
        async with aio.InferenceServerClient(server.grpc_address) as client:
            return await asyncio.wait_for(ask(client), PATIENCE_S)

    return asyncio.run(asked())


@pytest.mark.parametrize("datatype", VALUES)
def test_aio_every_data_type(server, datatype):
    async def ask(client):
        made = make_input("x", VALUES[datatype], datatype)
        return await client.infer(f"identity_{datatype.lower()}", [made])

    assert same(run(server, ask).as_numpy("y"), VALUES[datatype])


def test_aio_many_requests_at_once(server):
    values = [np.full((1, 16), i, np.float32) for i in range(200)]

    async def ask(client):
        made = [client.infer("identity_fp32", [make_input("x", each)]) for each in values]
        return await asyncio.gather(*made)

    assert all(same(found.as_numpy("y"), each) for found, each in zip(run(server, ask), values))


def test_aio_streams(server):
    async def requests():
        for i in range(20):
            model = "streams" if i % 2 else "quick"
            yield {"model_name": model, "inputs": rows(i), "request_id": str(i)}

    async def ask(client):
        found = {}
        async for result, error in client.stream_infer(requests()):
            assert error is None
            response = result.get_response()
            found.setdefault(response.id, []).append(final(response))
        return found

    found = run(server, ask)
    assert len(found) == 20
    for i in range(20):
        assert found[str(i)] == ([False] * 5 if i % 2 else [True])


def test_aio_cancel(server):
    async def ask(client):
        task = asyncio.ensure_future(client.infer("stuck", rows()))
        await asyncio.sleep(0)
        assert await client.is_server_live()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return (await client.infer("quick", rows(1))).as_numpy("y").sum()

    assert run(server, ask) == 16


def test_aio_administration(server):
    async def ask(client):
        assert await client.is_server_ready()
        assert not await client.is_model_ready("nobody")
        assert (await client.get_model_config("scalar")).config.max_batch_size == 0
        with pytest.raises(InferenceServerException, match="nobody"):
            await client.get_model_metadata("nobody")
        return {entry.name for entry in (await client.get_model_repository_index()).models}

    assert "scalar" in run(server, ask)


# --- The command ----------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ((), ("--grpc",)))
def test_weir_infer_asks_alike(server, words):
    import subprocess

    from serving import BINARY

    def ask(*more):
        address = server.grpc_address if words else server.address
        command = [BINARY, "infer", *more, "--url", address, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
        return done.returncode, done.stdout, done.stderr

    code, out, _ = ask("double_it", "--input", "x=1,2,3,4", "--json")
    assert (code, json.loads(out)["outputs"]) == (
        0,
        [{"name": "y", "datatype": "FP32", "shape": [1, 4], "data": [2, 4, 6, 8]}],
    )
    assert json.loads(out)["requests"][0]["compute_ms"] >= 0
    code, out, _ = ask("identity_bytes", "--input", 'x=["a","b","c","d"]', "--json")
    assert json.loads(out)["outputs"][0]["data"] == ["a", "b", "c", "d"]
    code, out, _ = ask("add_sub")
    assert "takes" in out and "INPUT1" in out
    code, out, text = ask("nobody")
    assert code != 0 and "unknown model: 'nobody'" in text
    code, out, _ = ask("double_it", "--input", "x=1,2,3,4", "--repeat", "100", "--parallel", "4")
    assert (code, "100 requests" in out) == (0, True)
