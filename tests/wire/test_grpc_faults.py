"""gRPC when something goes wrong: clients that leave, a server that stops, memory that is short.

Afterwards nothing may be left of it: no lease, no byte, no exit but in order.
"""

import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from serving import PATIENCE_S, Server, put_model, put_sim, sim_request
from test_http2 import DATA, END_HEADERS, HEADERS, Peer, frame, head

grpc = pytest.importorskip("grpc")
pytest.importorskip("tritonclient.grpc")
from tritonclient.grpc import service_pb2 as pb  # noqa: E402
from tritonclient.grpc import service_pb2_grpc  # noqa: E402

NO_LIMIT = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("grpc_faults") / "models"
    root.mkdir()
    put_model(root, "dynamic")
    put_model(root, "identity_bytes")
    put_sim(root, "quick", parameters={"tau0": "10us"}, max_batch_size=1)
    put_sim(root, "slow", parameters={"tau0": "200ms"}, max_batch_size=1, overload="queue")
    put_sim(root, "slower", parameters={"tau0": "1s"}, max_batch_size=1, overload="queue")
    put_sim(root, "floods", parameters={"parts": "2000", "tau0": "1us"}, max_batch_size=0)
    return root


@pytest.fixture
def server(repository, tmp_path):
    with Server(tmp_path, repository) as server:
        yield server


def channel_to(server):
    return grpc.insecure_channel(f"127.0.0.1:{server.ports[1]}", options=NO_LIMIT)


def stub_of(channel):
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


def request(model, value=0.0, **fields):
    made = pb.ModelInferRequest(model_name=model, **fields)
    made.inputs.add(name="x", datatype="FP32", shape=[1, 16])
    made.raw_input_contents.append(np.full(16, value, np.float32).tobytes())
    return made


def nothing_is_left(server):
    """All models have as many leases as one that nobody asked, and no byte is held."""

    def is_clean():
        metrics = server.metrics()
        leases = {
            value for (name, _), value in metrics.samples.items() if name == "weir_model_leases"
        }
        return len(leases) == 1 and metrics.get("weir_http_bodies_bytes") == 0

    server.await_("leases and bytes come back", is_clean)


def test_calls_under_way_end_before_a_server_that_stops(repository, tmp_path):
    """One loop: what it holds of a request when it answers another one, it has put in line."""
    with Server(tmp_path, "--loops", "1", repository) as server, channel_to(server) as channel:
        stub = stub_of(channel)
        waiting = [stub.ModelInfer.future(request("slower", i)) for i in range(3)]
        answers = stub.ModelStreamInfer(iter([request("slower", 7), request("slower", 8)]))
        server.await_("accepted", lambda: leases_of(server, "slower") >= leases_of(server, "quick") + 5)
        assert server.stop() == 0
        for i, call in enumerate(waiting):
            assert call.result().raw_output_contents[0][:4] == np.float32(i).tobytes()
        assert [bool(each.error_message) for each in answers] == [False, False]


def leases_of(server, model):
    return server.metrics().of_model("weir_model_leases", model)


def test_a_server_waits_for_the_run_of_a_call_that_is_over(server):
    """Its client had its answer when its time was up; the run is still there when the server stops."""
    with channel_to(server) as channel:
        late = request("slow")
        late.parameters["timeout"].int64_param = 20_000
        with pytest.raises(grpc.RpcError) as caught:
            stub_of(channel).ModelInfer(late)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert server.stop() == 0


GOES_AWAY = """
import os, sys, grpc, numpy as np
from tritonclient.grpc import service_pb2 as pb, service_pb2_grpc
channel = grpc.insecure_channel(sys.argv[1])
stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
def request(model, size):
    made = pb.ModelInferRequest(model_name=model)
    made.inputs.add(name="x", datatype="FP32", shape=[1, 1, size] if size > 16 else [1, 16])
    made.raw_input_contents.append(bytes(4 * size))
    return made
answers = stub.ModelStreamInfer(iter([request("floods", 16)] * 3 + [request("slow", 16)] * 3))
next(answers)
waiting = [stub.ModelInfer.future(request("slow", 16)) for _ in range(3)]
waiting += [stub.ModelInfer.future(request("dynamic", 5_000_000)) for _ in range(3)]
os._exit(0)
"""


def test_clients_that_vanish_leave_nothing(server):
    for _ in range(3):
        address = f"127.0.0.1:{server.ports[1]}"
        subprocess.run([sys.executable, "-c", GOES_AWAY, address], check=True, timeout=PATIENCE_S)
    nothing_is_left(server)
    with channel_to(server) as channel:
        assert stub_of(channel).ModelInfer(request("quick", 3)).raw_output_contents


def test_calls_that_are_canceled_at_any_time_leave_nothing(server):
    with channel_to(server) as channel:
        stub = stub_of(channel)
        large = pb.ModelInferRequest(model_name="dynamic")
        large.inputs.add(name="x", datatype="FP32", shape=[1, 1, 1_000_000])
        large.raw_input_contents.append(bytes(4_000_000))
        for i in range(60):
            call = stub.ModelInfer.future(large if i % 2 else request("quick"))
            threading.Event().wait(i * 0.0005)
            call.cancel()
            answers = stub.ModelStreamInfer(iter([request("floods"), request("quick")]))
            if i % 3:
                next(answers)
            answers.cancel()
    nothing_is_left(server)


def test_more_than_may_be_in_flight_is_refused_and_comes_back(repository, tmp_path):
    words = ("--limits.bodies-bytes-max", "8MiB", "--limits.body-bytes-max", "6MiB")
    with Server(tmp_path, *words, repository) as server, channel_to(server) as channel:
        stub = stub_of(channel)

        def ask(count, typed=False):
            made = pb.ModelInferRequest(model_name="dynamic")
            entry = made.inputs.add(name="x", datatype="FP32", shape=[1, 1, count])
            if typed:
                entry.datatype = "INT64"
                entry.contents.int64_contents.extend([1] * count)
            else:
                made.raw_input_contents.append(bytes(4 * count))
            return stub.ModelInfer(made)

        assert ask(1_000_000).raw_output_contents[0] == bytes(4_000_000)
        with pytest.raises(grpc.RpcError) as caught:
            ask(2_000_000)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in caught.value.details()
        # A number of one byte becomes eight: what it becomes counts, not only what it is.
        with pytest.raises(grpc.RpcError) as caught:
            ask(2_000_000, typed=True)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        nothing_is_left(server)
        assert ask(1_000_000).raw_output_contents[0] == bytes(4_000_000)


def test_tensors_that_are_announced_take_no_room_from_models(repository, tmp_path):
    """Clients that say how much will come, and send none of it, against a budget of memory."""
    made = request("quick")
    made.ClearField("raw_input_contents")
    start = made.SerializeToString() + b"\x3a" + varint(900 << 20)
    prefix = struct.pack(">BI", 0, len(start) + (900 << 20))
    fields = {"te": "trailers", "content_type": "application/grpc"}
    call = head("/inference.GRPCInferenceService/ModelInfer", "POST", **fields)
    words = ("--model-control", "demand", "--memory-max", "2GiB", "--poll-interval", "100ms")
    with Server(tmp_path, *words, repository) as server, Peer(server.ports[1]) as peer:
        assert server.infer("slow", sim_request()).status == 200
        for stream in (1, 3, 5):
            peer.send(frame(HEADERS, END_HEADERS, stream, call))
            peer.send(frame(DATA, 0, stream, prefix + start))
        server.await_("three announcements",
                      lambda: server.metrics().get("weir_blocks_used_bytes") > 2 << 30)
        assert server.infer("quick", sim_request()).status == 200
        states = {entry["name"]: entry["state"] for entry in server.index()}
        assert (states["slow"], states["quick"]) == ("READY", "READY")


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def test_requests_that_wait_are_bounded_over_grpc_too(repository, tmp_path):
    with Server(tmp_path, "--limits.requests-max", "4", repository) as server:
        with channel_to(server) as channel:
            calls = [stub_of(channel).ModelInfer.future(request("slower")) for _ in range(12)]
            codes = [call.code() for call in calls]
        assert grpc.StatusCode.UNAVAILABLE in codes
        assert codes.count(grpc.StatusCode.OK) >= 4
        assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
        nothing_is_left(server)


def test_a_stream_that_is_not_read_holds_only_so_much(server):
    """Its responses wait in the server only as far as the windows and a mebibyte go."""
    with channel_to(server) as channel:
        large = pb.ModelInferRequest(model_name="dynamic")
        large.inputs.add(name="x", datatype="FP32", shape=[1, 1, 250_000])
        large.raw_input_contents.append(bytes(1_000_000))
        answers = stub_of(channel).ModelStreamInfer(iter([large] * 100))
        next(answers)
        until = time.monotonic() + 2
        most = 0
        while time.monotonic() < until:
            most = max(most, server.metrics().get("weir_blocks_used_bytes"))
        assert most < 64 << 20
        assert sum(1 for _ in answers) == 99
    nothing_is_left(server)
