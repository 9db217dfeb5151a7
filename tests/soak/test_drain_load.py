"""SIGTERM under load: what the server carries is measured, then 70 % of it driven over kept connections of
HTTP/1.1, HTTP/2 and gRPC.  Nobody who was accepted fails, and every connection hears within 100 ms.

The figures are printed; they hold on a machine that has nothing else to do.
"""

import json
import pathlib
import signal
import sys
import threading
import time

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "wire"))
from serving import PATIENCE_S, Raw, Server, put_sim  # noqa: E402
from test_drain import READY, SERVING, Clients, accepted  # noqa: E402
from test_drain import grpc, health_pb2, health_pb2_grpc  # noqa: E402
from test_http2 import Peer  # noqa: E402

LOAD = 0.7
MEASURE_S = 3
LOAD_S = 3
EACH = 8  # Clients of each kind under load, and connections of each kind that ask whether it is ready.
HEARD_S = 0.1


class Paced(Clients):
    """As fast as they can, then each at its share of a rate."""

    def __init__(self, server):
        super().__init__(server, EACH)
        self.every_s = 0
        self.own = threading.local()

    def rest(self):
        now = time.monotonic()
        due = max(getattr(self.own, "due", now) + self.every_s, now if self.every_s == 0 else 0)
        self.own.due = due
        if due > now:
            self.over.wait(due - now)

    def rate(self, seconds):
        """Answers per second."""
        start, before = time.monotonic(), self.outcomes["ok"]
        self.over.wait(seconds)
        return (self.outcomes["ok"] - before) / (time.monotonic() - start)


class Watchers:
    """Connections of every protocol that ask again and again whether the server is ready."""

    def __init__(self, server):
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.raws = [Raw(server.port) for _ in range(EACH)]
        self.peers = [Peer(server.port) for _ in range(EACH)]
        self.channels = [grpc.insecure_channel(server.address, options) for _ in range(EACH)]
        stubs = [health_pb2_grpc.HealthStub(channel) for channel in self.channels]
        self.asking = [(f"HTTP/1.1 {i}", self.line(raw)) for i, raw in enumerate(self.raws)]
        self.asking += [(f"HTTP/2 {i}", self.http2(peer)) for i, peer in enumerate(self.peers)]
        self.asking += [(f"gRPC {i}", self.check(stub)) for i, stub in enumerate(stubs)]
        assert all(next(ready) for _, ready in self.asking)

    @staticmethod
    def line(raw):
        while True:
            raw.send(READY)
            yield raw.answer().status == 200

    @staticmethod
    def http2(peer):
        stream = 1
        while True:
            yield peer.ask(stream) == 200
            stream += 2

    @staticmethod
    def check(stub):
        while True:
            yield stub.Check(health_pb2.HealthCheckRequest()).status == SERVING

    def until_not_ready(self, began):
        """Seconds since `began` until each of them has heard."""
        heard = {}
        while len(heard) < len(self.asking):
            for name, ready in self.asking:
                if name not in heard and not next(ready):
                    heard[name] = time.monotonic() - began
            assert time.monotonic() - began < PATIENCE_S, heard
        return heard

    def close(self):
        for raw in self.raws:
            raw.socket.close()
        for peer in self.peers:
            peer.socket.close()
        for channel in self.channels:
            channel.close()


@pytest.fixture
def root(tmp_path):
    """What it carries is far less than what this program can ask for."""
    put_sim(tmp_path / "models", "m", max_batch_size=4, parameters={"tau0": "20ms"})
    return tmp_path / "models"


def test_a_drain_at_seventy_per_cent(tmp_path, root):
    words = ("--limits.drain-grace", "1s", "--loops", "2", "--access-log")
    with Server(tmp_path, *words, root) as server:
        watchers = Watchers(server)
        with Paced(server) as clients:
            capacity = clients.rate(MEASURE_S)
            clients.every_s = len(clients.threads) / (LOAD * capacity)
            clients.over.wait(1)  # Until those that were under way are answered.
            driven = clients.rate(LOAD_S)
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            heard = watchers.until_not_ready(began)
            watchers.close()
            code = server.process.wait(PATIENCE_S)
            took = time.monotonic() - began
            clients.over.set()
        expected = {"ok", "refused", "closed", "GOAWAY"}
        strange = {key: count for key, count in clients.outcomes.items() if key not in expected}
        latest = max(heard, key=heard.get)
        print(
            f"\ncapacity {capacity:.0f}/s, driven {driven:.0f}/s ({driven / capacity:.0%}); "
            f"{len(heard)} connections heard, the last ({latest}) after {1e3 * heard[latest]:.1f} ms; "
            f"ended after {took:.2f} s with {code}; {json.dumps(dict(clients.outcomes))}"
        )
        assert code == 0
        assert not strange
        assert clients.outcomes["ok"] == accepted(server)  # Nobody who was accepted was let down.
        assert 0.9 * LOAD < driven / capacity < 1.1 * LOAD
        assert heard[latest] < HEARD_S


def test_a_second_signal_stops_at_once(tmp_path, root):
    with Server(tmp_path, "--limits.drain-grace", "1h", root) as server:
        with Paced(server) as clients:
            server.process.send_signal(signal.SIGTERM)
            server.await_("not ready", lambda: server.get("/v2/health/ready").status == 503)
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            code = server.process.wait(PATIENCE_S)
            took = time.monotonic() - began
            clients.over.set()
        print(f"\nended {1e3 * took:.0f} ms after the second signal with {code}")
        assert code == 1
        assert took < 1
