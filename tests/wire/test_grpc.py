"""gRPC itself: its health and reflection services by their published clients, what is wrong on the
wire, and what the log and the metrics say of it."""

import contextlib
import gzip
import json
import pathlib
import queue
import re
import signal
import struct
import threading
import zlib

import pytest

from serving import PATIENCE_S, Server, is_sanitized, put_sim, sim_request

grpc = pytest.importorskip("grpc")
h2_connection = pytest.importorskip("h2.connection")
pytest.importorskip("grpc_health.v1.health")
pytest.importorskip("grpc_reflection.v1alpha.reflection")
pytest.importorskip("tritonclient.grpc")
import socket  # noqa: E402

import h2.config  # noqa: E402
import h2.events  # noqa: E402
import h2.exceptions  # noqa: E402
from google.protobuf import descriptor_pool, json_format, message_factory  # noqa: E402
from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: E402
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # noqa: E402
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (  # noqa: E402
    ProtoReflectionDescriptorDatabase,
)
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc  # noqa: E402

SERVICE = "/inference.GRPCInferenceService/"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


def make_repository(folder):
    root = folder / "models"
    root.mkdir()
    put_sim(root, "plain")
    put_sim(root, "other")
    one = [{"count": 1}]
    put_sim(root, "slow", parameters={"tau0": "1500ms"}, max_batch_size=1, instance_group=one)
    return root


WORDS = ("--model-control", "explicit", "--load-model", "plain", "--load-model", "slow")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = make_repository(tmp_path_factory.mktemp("grpc"))
    with Server(root.parent, *WORDS, "--access-log", root) as server:
        yield server


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.address) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel):
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


def refused(ask, code, *words):
    with pytest.raises(grpc.RpcError) as caught:
        ask()
    assert caught.value.code().name == code, caught.value
    for word in words:
        assert word in caught.value.details()
    return dict(caught.value.trailing_metadata() or ())


# --- Health ---------------------------------------------------------------------------------------


def check(health, service=""):
    request = health_pb2.HealthCheckRequest(service=service)
    return health.Check(request, timeout=PATIENCE_S).status


def test_health(channel):
    health = health_pb2_grpc.HealthStub(channel)
    assert check(health) == SERVING
    assert check(health, "inference.GRPCInferenceService") == SERVING
    assert check(health, "plain") == SERVING
    assert check(health, "other") == NOT_SERVING
    refused(lambda: check(health, "nobody"), "NOT_FOUND", "nobody")
    refused(lambda: check(health, "inference.Other"), "NOT_FOUND")


def test_health_of_everything(channel):
    """`List` is younger than the published client: its messages come from reflection."""
    pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    kind = pool.FindMessageTypeByName("grpc.health.v1.HealthListResponse")
    found = message_factory.GetMessageClass(kind).FromString(
        channel.unary_unary("/grpc.health.v1.Health/List")(b"", timeout=PATIENCE_S)
    )
    assert {name: answer.status for name, answer in found.statuses.items()} == {
        "": SERVING,
        "inference.GRPCInferenceService": SERVING,
        "plain": SERVING,
        "slow": SERVING,
        "other": NOT_SERVING,
    }


class Watch:
    """What a watcher hears, as it comes."""

    def __init__(self, channel, service):
        request = health_pb2.HealthCheckRequest(service=service)
        self.call = health_pb2_grpc.HealthStub(channel).Watch(request)
        self.heard = queue.Queue()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        try:
            for answer in self.call:
                self.heard.put(answer.status)
            self.heard.put(self.call.code().name)
        except grpc.RpcError as error:
            self.heard.put(error.code().name)

    def next(self):
        return self.heard.get(timeout=PATIENCE_S)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.call.cancel()


def test_watchers_hear_of_changes(server, channel):
    with Watch(channel, "") as whole, Watch(channel, "other") as other:
        with Watch(channel, "nobody") as nobody:
            assert [watch.next() for watch in (whole, other, nobody)] == [
                SERVING,
                NOT_SERVING,
                SERVICE_UNKNOWN,
            ]
        assert nobody.next() == "CANCELLED"
        assert server.load("other").status == 200
        assert other.next() == SERVING
        assert server.unload("other").status == 200
        assert other.next() == NOT_SERVING
        assert whole.heard.empty() and other.heard.empty()


# --- Reflection -----------------------------------------------------------------------------------


def test_reflection_lists_and_describes(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    assert sorted(database.get_services()) == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
    ]
    pool = descriptor_pool.DescriptorPool(database)
    for module, package in ((service_pb2, "inference"), (health_pb2, "grpc.health.v1")):
        for name, theirs in module.DESCRIPTOR.services_by_name.items():
            ours = pool.FindServiceByName(f"{package}.{name}")
            known = {shape_of_method(method) for method in ours.methods}
            assert known >= {shape_of_method(method) for method in theirs.methods}


def shape_of_method(method):
    streams = (method.client_streaming, method.server_streaming)
    return (method.name, method.input_type.full_name, method.output_type.full_name, *streams)


def fields_of(message, into):
    """Name, number, type, label and oneof of every field, below `message`, too."""
    for field in message.fields:
        kind = field.message_type or field.enum_type
        oneof = field.containing_oneof
        into[field.full_name] = (
            field.number,
            field.type,
            field.is_repeated,
            kind and kind.full_name,
            oneof and oneof.name,
        )
    for nested in message.nested_types:
        fields_of(nested, into)
    for enum in message.enum_types:
        into[enum.full_name] = numbers_of(enum)


def numbers_of(enum):
    return [(value.name, value.number) for value in enum.values]


@pytest.mark.parametrize(
    "module", (service_pb2, model_config_pb2, health_pb2), ids=lambda module: module.__name__
)
def test_messages_are_those_of_the_clients(channel, module):
    """Every field that a published client knows is here, with its number and type."""
    pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    for name, theirs in module.DESCRIPTOR.message_types_by_name.items():
        known, wanted = {}, {}
        fields_of(pool.FindMessageTypeByName(theirs.full_name), known)
        fields_of(theirs, wanted)
        for field, what in wanted.items():
            assert known.get(field) == what, field
    for name, theirs in module.DESCRIPTOR.enum_types_by_name.items():
        ours = pool.FindEnumTypeByName(theirs.full_name)
        assert numbers_of(ours) == numbers_of(theirs)


def reflect(channel, version, requests):
    """Of either version: they differ in their name only."""
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    return list(call(iter(requests), timeout=PATIENCE_S))


@pytest.mark.parametrize("version", ("v1", "v1alpha"))
def test_reflection_answers_each_request(channel, version):
    ask = reflection_pb2.ServerReflectionRequest
    extension = {"containing_type": "inference.ModelConfig", "extension_number": 7}
    requests = [
        ask(host="h", list_services=""),
        ask(file_by_filename="kserve.proto"),
        ask(file_by_filename="nothing.proto"),
        ask(file_containing_symbol="inference.ModelInferRequest.InferInputTensor.shape"),
        ask(file_containing_symbol="inference.GRPCInferenceService.ModelInfer"),
        ask(file_containing_symbol="inference.DataType.TYPE_FP32"),
        ask(file_containing_symbol="inference.Nothing"),
        ask(file_containing_symbol="inference"),
        ask(file_containing_extension=extension),
        ask(all_extension_numbers_of_type="inference.ModelConfig"),
        ask(all_extension_numbers_of_type="inference.Nothing"),
        ask(),
    ]
    answers = reflect(channel, version, requests)
    assert [answer.original_request for answer in answers] == requests
    assert answers[0].valid_host == "h"
    assert [answer.WhichOneof("message_response") for answer in answers] == [
        "list_services_response",
        "file_descriptor_response",
        "error_response",
        "file_descriptor_response",
        "file_descriptor_response",
        "file_descriptor_response",
        "error_response",
        "error_response",
        "error_response",
        "all_extension_numbers_response",
        "error_response",
        "error_response",
    ]
    codes = [answer.error_response.error_code for answer in answers if answer.HasField("error_response")]
    assert codes == [5, 5, 5, 5, 5, 3]
    assert answers[9].all_extension_numbers_response.base_type_name == "inference.ModelConfig"


def test_a_long_reflection_takes_no_memory(server, channel):
    ask = reflection_pb2.ServerReflectionRequest(file_by_filename="model_config.proto")
    before = server.memory()
    answers = reflect(channel, "v1", [ask] * 2000)
    assert len({answer.SerializeToString() for answer in answers}) == 1
    if not is_sanitized():  # A sanitizer keeps freed memory.
        most = before + 2000 * len(answers[0].SerializeToString()) / 4
        server.await_("memory is back", lambda: server.memory() < most)


# --- Calls ----------------------------------------------------------------------------------------


def test_what_is_no_call(channel):
    for path in (
        SERVICE + "ModelInferX",
        SERVICE + "modelinfer",
        "/inference.Other/ModelInfer",
        "/grpc.health.v1.Health/Check2",
        "/nothing",
    ):
        refused(lambda: channel.unary_unary(path)(b"", timeout=PATIENCE_S), "UNIMPLEMENTED", path)


def test_what_is_no_message(channel):
    for call in ("ModelMetadata", "RepositoryIndex", "ModelConfig", "LogSettings"):
        ask = channel.unary_unary(SERVICE + call)
        for message in (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x0a\x05ab", b"\x0b"):
            refused(lambda: ask(message, timeout=PATIENCE_S), "INVALID_ARGUMENT")
    # Fields that are not known are none of our business.
    channel.unary_unary(SERVICE + "ServerLive")(b"\xfa\x01\x03abc", timeout=PATIENCE_S)


@pytest.mark.parametrize("compression", (grpc.Compression.Gzip, grpc.Compression.Deflate))
def test_compressed_calls(server, compression):
    with grpc.insecure_channel(server.address, compression=compression) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ModelReady(service_pb2.ModelReadyRequest(name="plain")).ready
        refused(
            lambda: stub.ModelMetadata(service_pb2.ModelMetadataRequest(name="x" * 100000)),
            "NOT_FOUND",
        )


def test_a_request_that_is_too_large_is_refused_before_it_comes(server):
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.address, options=options) as channel:
        ask = channel.unary_unary(SERVICE + "ServerLive")
        refused(lambda: ask(bytes(65 << 20)), "RESOURCE_EXHAUSTED", "larger than max")


def test_a_small_message_of_many_elements_takes_little_memory(server, channel):
    """Two bytes each on the wire, a hundred in memory."""

    def peak():
        text = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) << 10

    before = peak()
    ask = channel.unary_unary(SERVICE + "RepositoryModelLoad")
    request = b"\x12\x05plain" + b"\x1a\x00" * (1500 << 10)
    refused(lambda: ask(request, timeout=PATIENCE_S), "INVALID_ARGUMENT")
    assert peak() - before < 20 * len(request)


def test_a_large_configuration(server, stub):
    """Read by a worker; the loop has better things to do."""
    config = json.dumps({"backend": "sim", "max_batch_size": 3}) + " " * (900 << 10)
    parameters = {"config": service_pb2.ModelRepositoryParameter(string_param=config)}
    request = service_pb2.RepositoryModelLoadRequest(model_name="other", parameters=parameters)
    stub.RepositoryModelLoad(request)
    assert server.get("/v2/models/other/config").json()["max_batch_size"] == 3
    assert server.unload("other").status == 200
    del request.parameters["config"]
    request.parameters["file:1/model.onnx"].bytes_param = bytes(30 << 20)
    with grpc.insecure_channel(
        server.address, options=[("grpc.max_send_message_length", -1)]
    ) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        refused(lambda: stub.RepositoryModelLoad(request), "UNIMPLEMENTED", "file:1/model.onnx")


def test_messages_count_with_the_bodies(tmp_path):
    root = make_repository(tmp_path)
    with Server(tmp_path, "--limits.bodies-bytes-max", "1MiB", *WORDS, root) as server:
        with grpc.insecure_channel(server.address) as channel:
            ask = channel.unary_unary(SERVICE + "ServerLive")
            ask(b"\x0a\x00", timeout=PATIENCE_S)
            refused(lambda: ask(bytes(2 << 20)), "UNAVAILABLE", "at most 1048576")
            ask(b"\x0a\x00", timeout=PATIENCE_S)
        server.await_("no byte is held", lambda: server.metrics().get("weir_http_bodies_bytes") == 0)


def test_errors_fit_into_the_clients_headers(server, stub):
    """C-core takes 8 KiB of trailers, and quoted text grows threefold on its way."""
    name = "\u6f22" * 3000
    words = refused(
        lambda: stub.ModelMetadata(service_pb2.ModelMetadataRequest(name=name)), "NOT_FOUND"
    )
    assert "grpc-retry-pushback-ms" not in words
    refused(
        lambda: stub.RepositoryModelLoad(
            service_pb2.RepositoryModelLoadRequest(
                model_name="plain",
                parameters={name: service_pb2.ModelRepositoryParameter(string_param="x")},
            )
        ),
        "INVALID_ARGUMENT",
    )


def test_a_model_that_may_come_says_when_to_ask_again(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    put_sim(root, "broken", parameters={"tau0": "soon"})
    with Server(tmp_path, root) as server, grpc.insecure_channel(server.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = service_pb2.ModelMetadataRequest(name="broken")
        found = refused(lambda: stub.ModelMetadata(request), "UNAVAILABLE", "tau0")
        assert int(found["grpc-retry-pushback-ms"]) >= 1000
        assert not stub.ServerReady(service_pb2.ServerReadyRequest()).ready
        assert check(health_pb2_grpc.HealthStub(channel)) == NOT_SERVING


def test_a_load_goes_on_without_its_client(server, stub):
    """It was accepted: it changes the server, whoever waits."""
    request = service_pb2.RepositoryModelLoadRequest(model_name="other")
    stub.RepositoryModelLoad.future(request).cancel()
    server.load("other")
    assert stub.ModelReady(service_pb2.ModelReadyRequest(name="other")).ready
    assert server.unload("other").status == 200


# --- The wire -------------------------------------------------------------------------------------


class Wire:
    """One HTTP/2 connection, for what no gRPC client would send."""

    def __init__(self, server):
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S)
        config = h2.config.H2Configuration(validate_outbound_headers=False)
        self.h2 = h2_connection.H2Connection(config)
        self.h2.initiate_connection()
        self.flush()
        self.heads, self.bodies, self.ended, self.resets = {}, {}, set(), {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def open(self, path, headers=(), end=False, **changed):
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "localhost",
            "content-type": "application/grpc",
            "te": "trailers",
        }
        fields.update({name.replace("_", "-"): value for name, value in changed.items()})
        fields = {name: value for name, value in fields.items() if value is not None}
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, [*fields.items(), *headers], end_stream=end)
        self.flush()
        return stream

    def send(self, stream, data, end=False):
        self.h2.send_data(stream, data, end_stream=end)
        self.flush()

    def take(self):
        data = self.socket.recv(65536)
        assert data, "the server closed the connection"
        self.hear(data)

    def hear(self, data):
        for event in self.h2.receive_data(data):
            stream = getattr(event, "stream_id", None)
            if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                self.heads.setdefault(stream, []).append(dict(event.headers))
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[stream] = self.bodies.get(stream, b"") + event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, stream)
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(stream)
            elif isinstance(event, h2.events.StreamReset):
                self.resets[stream] = event.error_code
        self.flush()

    def answer(self, stream):
        """Status and text, when the stream has ended."""
        while stream not in self.ended:
            assert stream not in self.resets, self.resets
            self.take()
        fields = {}
        for head in self.heads[stream]:
            fields.update({name.decode(): value.decode() for name, value in head.items()})
        return fields

    def status(self, stream):
        fields = self.answer(stream)
        assert fields[":status"] == "200"
        assert fields["content-type"] == "application/grpc"
        return int(fields["grpc-status"]), fields.get("grpc-message", "")


@pytest.fixture
def wire(server):
    with Wire(server) as wire:
        yield wire


def framed(message, flag=0):
    return struct.pack(">BI", flag, len(message)) + message


LIVE = SERVICE + "ServerLive"
READY = SERVICE + "ModelReady"
PLAIN = service_pb2.ModelReadyRequest(name="plain").SerializeToString()

OK, INVALID, NOT_FOUND, EXHAUSTED, UNIMPLEMENTED = 0, 3, 5, 8, 12

# What is sent, as fields and as bytes; what comes of it.
FRAMINGS = [
    ("a message", {}, framed(PLAIN), OK),
    ("an empty one", {}, framed(b""), OK),
    ("none", {}, b"", INVALID),
    ("half a prefix", {}, b"\0\0\0", INVALID),
    ("half a message", {}, framed(PLAIN)[:-1], INVALID),
    ("two messages", {}, framed(PLAIN) * 2, INVALID),
    ("a flag of 2", {}, framed(PLAIN, 2), INVALID),
    ("compressed by nothing", {}, framed(PLAIN, 1), INVALID),
    ("compressed by what is not known", {"grpc_encoding": "snappy"}, framed(PLAIN, 1), UNIMPLEMENTED),
    ("not compressed by that", {"grpc_encoding": "snappy"}, framed(PLAIN), OK),
    ("gzip", {"grpc_encoding": "gzip"}, framed(gzip.compress(PLAIN), 1), OK),
    ("gzip that is none", {"grpc_encoding": "gzip"}, framed(PLAIN, 1), INVALID),
    ("gzip cut short", {"grpc_encoding": "gzip"}, framed(gzip.compress(PLAIN)[:-3], 1), INVALID),
    ("deflate", {"grpc_encoding": "deflate"}, framed(zlib.compress(PLAIN), 1), OK),
    ("larger than allowed", {}, b"\0\x7f\xff\xff\xff" + PLAIN, EXHAUSTED),
    (
        "a bomb",
        {"grpc_encoding": "gzip"},
        framed(gzip.compress(bytes(70 << 20)), 1),
        EXHAUSTED,
    ),
    ("a subtype", {"content_type": "application/grpc+proto"}, framed(PLAIN), OK),
    ("parameters", {"content_type": "application/grpc;x=y"}, framed(PLAIN), OK),
    ("no te", {"te": None}, framed(PLAIN), OK),
    ("a time-out", {"grpc_timeout": "10S"}, framed(PLAIN), OK),
    ("a time-out of no unit", {"grpc_timeout": "10"}, framed(PLAIN), INVALID),
    ("a time-out of words", {"grpc_timeout": "soon"}, framed(PLAIN), INVALID),
    ("binary metadata", {"x_trace_bin": "AAEC"}, framed(PLAIN), OK),
    ("binary metadata that is none", {"x_trace_bin": "***"}, framed(PLAIN), OK),
]


@pytest.mark.parametrize("case", FRAMINGS, ids=lambda case: case[0])
@pytest.mark.parametrize("piece", (16384, 1))
def test_framing(wire, case, piece):
    what, headers, body, code = case
    piece = 16384 if len(body) > 1000 else piece
    stream = wire.open(READY, **headers)
    for at in range(0, len(body), piece):
        while wire.h2.local_flow_control_window(stream) < piece:
            wire.take()
        wire.send(stream, body[at : at + piece])
    with contextlib.suppress(h2.exceptions.StreamClosedError):
        wire.send(stream, b"", end=True)
    found, text = wire.status(stream)
    assert found == code, (what, text)
    assert (text == "") == (code == OK)
    if code == OK:
        answer = wire.bodies[stream]
        assert answer[:1] == b"\0" and len(answer) == 5 + int.from_bytes(answer[1:5], "big")
    else:
        assert stream not in wire.bodies
        assert len(wire.heads[stream]) == 1, "trailers only"
    if code == UNIMPLEMENTED:
        assert wire.answer(stream)["grpc-accept-encoding"] == "identity,deflate,gzip"
    # The connection goes on.
    stream = wire.open(LIVE)
    wire.send(stream, framed(b""), end=True)
    assert wire.status(stream) == (OK, "")
    assert wire.bodies[stream] == framed(b"\x08\x01")


def test_a_call_that_ends_before_its_request_is_reset(wire):
    """The client need not send the rest, and is told so by RST_STREAM(NO_ERROR)."""
    stream = wire.open(LIVE)
    wire.send(stream, b"\0\xff\xff\xff\xff")
    assert wire.status(stream)[0] == EXHAUSTED
    while stream not in wire.resets:
        wire.take()
    assert wire.resets[stream] == 0


def test_a_deadline_that_passed_on_the_way(wire):
    stream = wire.open(READY, grpc_timeout="0n")
    wire.send(stream, framed(PLAIN), end=True)
    assert wire.status(stream)[0] == 4


@pytest.mark.parametrize("call", ("ModelInfer", "ModelStreamInfer"))
def test_a_deadline_that_passes_while_the_model_is_loaded(tmp_path, call):
    """Also for a client that does not watch it."""
    root = tmp_path / "models"
    root.mkdir()
    put_sim(root, "late", parameters={"load": "1s"})
    message = framed(infer_request("late").SerializeToString())
    with Server(tmp_path, "--model-control", "demand", root) as server, Wire(server) as wire:
        stream = wire.open(SERVICE + call, grpc_timeout="50m")
        wire.send(stream, message, end=True)
        assert wire.status(stream) == (4, "the deadline passed while the model was being loaded")
        stream = wire.open(SERVICE + call)
        wire.send(stream, message, end=True)
        assert wire.status(stream)[0] == OK  # The load went on all the same.


@pytest.mark.parametrize(
    "content_type", ("application/grpc-web", "application/json", "text/plain", None)
)
def test_other_content_types(wire, content_type):
    stream = wire.open(LIVE, content_type=content_type)
    wire.send(stream, framed(b""), end=True)
    assert wire.answer(stream)[":status"] == "415"


def test_other_methods_and_versions(server, wire):
    stream = wire.open(LIVE, **{":method": "GET"}, end=True)
    assert wire.answer(stream)[":status"] in ("404", "405")
    answer = server.post(LIVE, framed(b""), {"Content-Type": "application/grpc"})
    assert answer.status == 400 and "HTTP/2" in answer.error


def test_rest_and_grpc_share_a_connection(wire):
    get = wire.open("/v2/health/live", end=True, **{":method": "GET"}, content_type=None)
    live = wire.open(LIVE)
    wire.send(live, framed(b""), end=True)
    assert wire.answer(get)[":status"] == "200"
    assert wire.status(live)[0] == OK


def test_calls_of_a_client_that_left(server):
    """Canceled in every stage; the server goes on and holds nothing."""
    with Wire(server) as wire:
        for path, data, end in (
            (LIVE, b"", False),
            (LIVE, b"\0\0", False),
            (LIVE, framed(b""), False),
            (READY, framed(gzip.compress(bytes(100000)), 1), False),
            ("/grpc.health.v1.Health/Watch", framed(b""), True),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", framed(b"\x3a\0"), False),
            (SERVICE + "ModelStreamInfer", b"\0", False),
            (SERVICE + "ModelInfer", b"\0\0\0\x10\0\x0a", False),
        ):
            for reset in (True, False):
                stream = wire.open(path, grpc_encoding="gzip")
                if data:
                    wire.send(stream, data, end=end)
                if reset:
                    wire.h2.reset_stream(stream, 8)
                    wire.flush()
        live = wire.open(LIVE)
        wire.send(live, framed(b""), end=True)
        assert wire.status(live)[0] == OK
    server.await_("nothing is held", lambda: server.metrics().get("weir_http_bodies_bytes") == 0)


# --- The log, the metrics, the end ----------------------------------------------------------------


def lines_of(server, call):
    found = []
    for line in server.logged().splitlines():
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if event.get("message") == "request" and event.get("target") == SERVICE + call:
                found.append(event)
    return found


def test_the_access_log_names_call_and_status(server, stub):
    before = len(lines_of(server, "ModelConfig"))
    stub.ModelConfig(service_pb2.ModelConfigRequest(name="plain"))
    refused(lambda: stub.ModelConfig(service_pb2.ModelConfigRequest(name="nobody")), "NOT_FOUND")
    server.await_("the log", lambda: len(lines_of(server, "ModelConfig")) == before + 2)
    good, bad = lines_of(server, "ModelConfig")[before:]
    assert (good["status"], good["grpc_status"]) == (200, 0)
    assert (bad["status"], bad["grpc_status"]) == (200, 5)
    assert good["received"] == 5 + 2 + len("plain")
    assert good["sent"] > good["received"]


def test_the_metrics_count_calls_by_status(tmp_path):
    """By a server of its own: a call is counted after its answer, also that of the test before."""
    with Server(tmp_path, *WORDS, make_repository(tmp_path)) as server:

        def counts():
            found = server.metrics().samples.items()
            named = {labels: count for (name, labels), count in found if name == "weir_grpc_responses_total"}
            return {int(dict(labels)["code"]): count for labels, count in named.items() if count > 0}

        assert counts() == {}
        with grpc.insecure_channel(server.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            stub.ServerLive(service_pb2.ServerLiveRequest())
            nobody = service_pb2.ModelMetadataRequest(name="nobody")
            refused(lambda: stub.ModelMetadata(nobody), "NOT_FOUND")
            server.await_("the counters", lambda: counts() == {0: 1, 5: 1})


def infer_request(model):
    inputs = sim_request(row=[1.0] * 16)["inputs"]
    contents = {"fp32_contents": inputs[0].pop("data")}
    request = {"model_name": model, "id": model, "inputs": [{**inputs[0], "contents": contents}]}
    return json_format.ParseDict(request, service_pb2.ModelInferRequest())


# What one loop holds of a request when it answers another one, it has put in line.
ONE_LOOP = ("--loops", "1")


def in_flight(server, model):
    """How many of its requests the engine has: as many as it has leases beyond those of an idle one."""
    leases = server.metrics().of_model
    return leases("weir_model_leases", model) - leases("weir_model_leases", "plain")


class Crossing(Wire):
    """Has not heard of the GOAWAY yet that the server has sent, nor of the PING behind it."""

    raw = b""
    goodbye = False

    def take(self):
        data = self.socket.recv(65536)
        assert data, "the server closed the connection"
        self.raw += data
        while len(self.raw) >= 9:
            end = 9 + int.from_bytes(self.raw[:3], "big")
            if len(self.raw) < end:
                return
            frame, self.raw = self.raw[:end], self.raw[end:]
            self.goodbye = self.goodbye or frame[3] == 7
            if frame[3] not in (6, 7):
                self.hear(frame)


def test_a_stopping_server_begins_no_streams(tmp_path):
    """One that crosses the GOAWAY is told so, instead of keeping the server."""
    root = make_repository(tmp_path)
    words = (*WORDS, *ONE_LOOP, "--limits.drain-timeout", f"{PATIENCE_S}s", root)
    slow = framed(infer_request("slow").SerializeToString())
    with Server(tmp_path, *words) as server:
        with Crossing(server) as wire:
            calls = [wire.open(SERVICE + "ModelInfer") for _ in range(2)]
            for call in calls:
                wire.send(call, slow, end=True)
            server.await_("both are there", lambda: in_flight(server, "slow") == 2)
            server.process.send_signal(signal.SIGTERM)
            while not wire.goodbye:
                wire.take()
            watch = wire.open("/grpc.health.v1.Health/Watch")
            wire.send(watch, framed(b""), end=True)
            assert wire.status(watch)[0] == 14
            assert [wire.status(call)[0] for call in calls] == [OK, OK]
        assert server.process.wait(PATIENCE_S) == 0


def test_a_server_that_stops_ends_its_streams(tmp_path):
    """What is under way is finished; what would go on for ever is told to go elsewhere."""
    root = make_repository(tmp_path)
    words = (*WORDS, *ONE_LOOP, "--limits.drain-timeout", f"{PATIENCE_S}s", root)
    with Server(tmp_path, *words) as server, grpc.insecure_channel(server.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        requests = queue.Queue()
        busy = stub.ModelStreamInfer(iter(requests.get, None))
        idle = stub.ModelStreamInfer(iter(queue.Queue().get, None))
        requests.put(infer_request("plain"))
        assert next(busy).infer_response.id == "plain"
        with Watch(channel, "") as watch:
            assert watch.next() == SERVING
            unary = stub.ModelInfer.future(infer_request("slow"))
            requests.put(infer_request("slow"))
            server.await_("both are there", lambda: in_flight(server, "slow") == 2)
            server.process.send_signal(signal.SIGTERM)
            assert watch.next() == NOT_SERVING
            assert watch.next() == "UNAVAILABLE"
        assert unary.result(PATIENCE_S).id == "slow"
        assert next(busy).infer_response.id == "slow"
        for stream in (busy, idle):
            refused(lambda: next(stream), "UNAVAILABLE")
        requests.put(None)
        assert server.process.wait(PATIENCE_S) == 0
