"""Stopping under load: who was accepted is answered, on every connection of every protocol."""

import collections
import contextlib
import ctypes
import json
import os
import pathlib
import signal
import socket
import threading

import pytest

from serving import PATIENCE_S, Raw, Server, infer_path, put_sim, sim_request
from test_http2 import (
    ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, NO_ERROR, PING, Peer, frame, head,
)

grpc = pytest.importorskip("grpc")
pytest.importorskip("grpc_health.v1.health")
pytest.importorskip("tritonclient.grpc")
import tritonclient.grpc as triton  # noqa: E402
from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: E402

READY = b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
EACH = 3  # Clients of each kind.
PAUSE_S = 0.004  # Some 70 % of what two executors carry, with runs of 4 ms in pairs.


@pytest.fixture
def root(tmp_path):
    put_sim(tmp_path / "models", "m", max_batch_size=4, parameters={"tau0": "4ms"})
    return tmp_path / "models"


# --- Readiness ------------------------------------------------------------------------------------


def test_every_connection_of_every_protocol_hears_of_it(tmp_path, root):
    with Server(tmp_path, "--limits.drain-grace", "1h", "--loops", "2", root) as server:
        lines = [Raw(port) for port in server.ports for _ in range(4)]
        peers = [Peer(server.port) for _ in range(4)]
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.insecure_channel(server.address, options) for _ in range(4)]
        stubs = [health_pb2_grpc.HealthStub(channel) for channel in channels]
        watches = [stub.Watch(health_pb2.HealthCheckRequest()) for stub in stubs]
        assert all(next(watch).status == SERVING for watch in watches)
        assert all(stub.Check(health_pb2.HealthCheckRequest()).status == SERVING for stub in stubs)
        for line in lines:
            line.send(READY)
            assert line.answer().status == 200
        assert all(peer.ask(1) == 200 for peer in peers)

        server.process.send_signal(signal.SIGTERM)
        assert all(next(watch).status == NOT_SERVING for watch in watches)
        for line in lines:
            line.send(READY)
            assert line.answer().status == 503
        assert all(peer.ask(3) == 503 for peer in peers)
        assert all(stub.Check(health_pb2.HealthCheckRequest()).status == NOT_SERVING for stub in stubs)
        for thing in (*lines, *(peer.socket for peer in peers), *channels):
            getattr(thing, "socket", thing).close()
        assert server.stop() == 1


# --- Load -----------------------------------------------------------------------------------------


class Clients:
    """Threads that ask until they are told to go; `outcomes` counts what they heard."""

    def __init__(self, server, each=EACH):
        self.server = server
        self.outcomes = collections.Counter()
        self.lock = threading.Lock()  # Of outcomes.
        self.running = threading.Semaphore(0)
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.live, args=(kind,))
                        for kind in (self.line, self.http2, self.grpc) for _ in range(each)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        for _ in range(10 * len(self.threads)):
            assert self.running.acquire(timeout=PATIENCE_S)
        return self

    def __exit__(self, *_):
        for thread in self.threads:
            thread.join(PATIENCE_S)

    def live(self, kind):
        try:
            kind()
        except Exception as error:  # noqa: BLE001
            self.outcomes[f"{kind.__name__}: {error!r}"] += 1

    def count(self, outcome):
        with self.lock:
            self.outcomes[outcome] += 1
        self.running.release()
        self.rest()

    def rest(self):
        self.over.wait(PAUSE_S)

    def line(self):
        """HTTP/1.1, one connection for as long as the server lets it."""
        body = json.dumps(sim_request()).encode()
        asked = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (
            infer_path("m").encode(), len(body), body)
        with Raw(self.server.port) as raw:
            while True:
                try:
                    raw.send(asked)
                    answer = raw.answer()
                except ConnectionError:  # Sent too late to be accepted; were it, the log would tell of one answer more.
                    return self.count("closed")
                if answer.status == 200:
                    assert answer.json()["outputs"][0]["data"] == list(range(16))
                self.count({200: "ok", 503: "refused"}.get(answer.status, str(answer.status)))
                if answer.headers.get("connection") == "close":
                    return

    def http2(self):
        body = json.dumps(sim_request()).encode()
        with Peer(self.server.port) as peer:
            stream, farewell = 1, False
            while not farewell:
                self.say(peer, frame(HEADERS, END_HEADERS, stream, head(infer_path("m"), "POST")) +
                         frame(DATA, END_STREAM, stream, body))
                status = None
                while status is None:
                    kind, flags, id, payload = self.hear(peer)
                    if kind == GOAWAY:
                        last, code = (int.from_bytes(payload[at:at + 4], "big") for at in (0, 4))
                        assert code == NO_ERROR
                        self.outcomes["GOAWAY"] += not farewell
                        farewell = True
                    if kind is None or kind == GOAWAY and last < stream:
                        return self.count("closed")  # Sent too late to be accepted.
                    if kind == PING and not flags & ACK:
                        self.say(peer, frame(PING, ACK, 0, payload))
                    elif kind == HEADERS and id == stream:
                        status = dict(peer.decoder.decode(payload))[":status"]
                self.count({"200": "ok", "503": "refused"}.get(status, status))
                stream += 2

    @staticmethod
    def say(peer, data):
        with contextlib.suppress(ConnectionError):  # What the server said before is heard all the same.
            peer.send(data)

    @staticmethod
    def hear(peer):
        """The next frame; of no kind when the server has closed."""
        with contextlib.suppress(ConnectionError):
            if (got := peer.next()) is not None:
                return got
        return None, 0, 0, b""

    def grpc(self):
        with triton.InferenceServerClient(self.server.address, channel_args=[
                ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]) as client:
            given = triton.InferInput("x", [1, 16], "FP32")
            import numpy
            given.set_data_from_numpy(numpy.arange(16, dtype=numpy.float32).reshape(1, 16))
            while True:
                try:
                    answer = client.infer("m", [given])
                    assert answer.as_numpy("y").tolist()[0] == list(range(16))
                    self.count("ok")
                except triton.InferenceServerException as error:
                    assert error.status() == "StatusCode.UNAVAILABLE", error
                    return


def accepted(server):
    """Inferences that were answered with success, by the access log."""
    lines = [json.loads(line) for line in server.logged().splitlines() if "infer" in line or "ModelInfer" in line]
    return sum(1 for line in lines if str(line.get("status")) == "200" and line.get("grpc_status", 0) in (0, "OK", None))


@pytest.mark.parametrize("grace", ["0s", "300ms"])
def test_no_accepted_request_fails(tmp_path, root, grace):
    with Server(tmp_path, "--limits.drain-grace", grace, "--executors", "2", "--access-log", root) as server:
        with Clients(server) as clients:
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(PATIENCE_S) == 0
            clients.over.set()
        strange = {key: count for key, count in clients.outcomes.items() if key not in ("ok", "refused", "closed", "GOAWAY")}
        assert not strange
        assert clients.outcomes["ok"] == accepted(server)
        assert clients.outcomes["GOAWAY"] >= 1


# --- Live -----------------------------------------------------------------------------------------

PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
WALL = 0x40000000


@contextlib.contextmanager
def stopped(task):
    """One thread of the server stands still."""
    libc = ctypes.CDLL(None, use_errno=True)
    for what in (PTRACE_SEIZE, PTRACE_INTERRUPT):
        if libc.ptrace(what, task, None, None) != 0:
            pytest.skip(f"ptrace: {os.strerror(ctypes.get_errno())}")
    os.waitpid(task, WALL)
    try:
        yield
    finally:
        libc.ptrace(PTRACE_DETACH, task, None, None)


def test_a_loop_that_is_stuck_is_not_live(tmp_path, root):
    """Other loops tell of it, and systemd's watchdog hears nothing any more."""
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ears:
        ears.bind(name)
        ears.settimeout(1)
        env = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "200000"}
        with Server(tmp_path, "--loops", "2", "--unix-socket", tmp_path / "sock", root, env=env) as server:
            assert server.get("/v2/health/live").json() == {"live": True}
            tasks = pathlib.Path(f"/proc/{server.process.pid}/task")

            def named():
                return sorted(int(task.name) for task in tasks.iterdir()
                              if (task / "comm").read_text().strip() == "weir-loop")

            server.await_("both loops have their names", lambda: len(named()) == 2)
            loops = named()

            def live():
                with socket.socket(socket.AF_UNIX) as asking:
                    asking.connect(str(tmp_path / "sock"))
                    asking.settimeout(PATIENCE_S)
                    asking.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    return asking.recv(4096).split()[1]

            with stopped(loops[1]):  # The first one listens on the Unix socket.
                server.await_("not live", lambda: live() == b"503")
                with pytest.raises(TimeoutError):
                    for _ in range(100):
                        ears.recv(4096)
            server.await_("live again", lambda: live() == b"200")
            ears.settimeout(PATIENCE_S)
            assert "WATCHDOG=1" in ears.recv(4096).decode()
