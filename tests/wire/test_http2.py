"""HTTP/2 as frames on raw sockets: what is served, refused, timed out, and which floods end whose connection."""

import contextlib
import json
import os
import resource
import socket
import struct
import subprocess
import time

import hpack
import pytest

import serving

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0, 1, 2, 3, 4, 6, 7, 8, 9)
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
NO_ERROR, PROTOCOL_ERROR, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM = 0, 1, 7, 8, 11
INFER = "/v2/models/m/infer"
SLOW = "/v2/models/slow/infer"
BODY = json.dumps(serving.sim_request()).encode()
READY = "/v2/health/ready"


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def head(path, method="GET", **fields):
    """A header block that uses no table, so that it may be sent any number of times."""
    pairs = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "a")]
    block = hpack.Encoder()
    block.header_table_size = 0
    named = [(name.replace("_", "-"), value) for name, value in fields.items()]
    return block.encode(pairs + named, huffman=False)


def plain(path, **fields):
    """The header block of a POST that leaves its reader's table as it is."""
    def text(value):
        return bytes([len(value)]) + value.encode()
    return b"\x83\x86\x04" + text(path) + b"\x01" + text("a") + b"".join(
        b"\x00" + text(name.replace("_", "-")) + text(value) for name, value in fields.items())


class Peer:
    """A connection that says what it is told to."""

    def __init__(self, port, settings=b""):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=serving.PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.decoder = hpack.Decoder()
        self.received = b""
        self.send(PREFACE + frame(SETTINGS, payload=settings))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def take(self, size):
        while len(self.received) < size:
            data = self.socket.recv(65536)
            if not data:
                return None
            self.received += data
        taken, self.received = self.received[:size], self.received[size:]
        return taken

    def next(self):
        """(type, flags, stream, payload); None at the end."""
        start = self.take(9)
        if start is None:
            return None
        size = int.from_bytes(start[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", start[3:])
        payload = self.take(size)
        return None if payload is None else (kind, flags, stream, payload)

    def until(self, wanted, stream=None):
        """The next frame of a kind; what comes before it is acknowledged and passed over."""
        while (got := self.next()) is not None:
            kind, flags, id, payload = got
            if kind == SETTINGS and not flags & ACK:
                self.send(frame(SETTINGS, ACK))
            if kind == HEADERS:
                got = kind, flags, id, dict(self.decoder.decode(payload))
            if kind == wanted and (stream is None or id == stream):
                return got
        raise AssertionError(f"closed before a frame of type {wanted}")

    def status(self, stream):
        return int(self.until(HEADERS, stream)[3][":status"])

    def ask(self, stream, path=READY, method="GET"):
        self.send(frame(HEADERS, END_STREAM | END_HEADERS, stream, head(path, method)))
        return self.status(stream)

    def reset_code(self, stream):
        return int.from_bytes(self.until(RST_STREAM, stream)[3], "big")

    def goaway(self):
        """The code of the last farewell; connections that are cut have none."""
        code = None
        with contextlib.suppress(OSError):
            while (got := self.next()) is not None:
                if got[0] == GOAWAY:
                    code = int.from_bytes(got[3][4:8], "big")
        return code

    def ping(self):
        """Everything sent before it has been read when it returns."""
        self.send(frame(PING, payload=b"12345678"))
        while not self.until(PING)[1] & ACK:
            pass


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    serving.put_sim(root, "m")
    serving.put_sim(root, "slow", parameters={"tau0": "50ms"}, max_batch_size=1)
    serving.put_sim(root, "slower", parameters={"tau0": "700ms"}, max_batch_size=1)
    return root


@pytest.fixture(scope="module")
def server(tmp_path_factory, root):
    with serving.Server(tmp_path_factory.mktemp("log"), "--loops", "1", root) as server:
        yield server


@pytest.fixture(scope="module")
def hasty(tmp_path_factory, root):
    times = [word for name in ("header", "body", "idle", "write")
             for word in (f"--limits.{name}-timeout", "1s")]
    with serving.Server(tmp_path_factory.mktemp("log"), "--loops", "1", *times, root) as server:
        yield server


# --- Requests -------------------------------------------------------------------------------------


def curl(*words):
    words = ["curl", "-sS", "-m", str(serving.PATIENCE_S), "-w", "\n%{http_version} %{http_code}", *words]
    text, _, facts = subprocess.run(words, capture_output=True, check=True, text=True).stdout.rpartition("\n")
    return text, *facts.split()


def test_curl(server):
    assert curl("--http2-prior-knowledge", server.url + READY) == ('{"ready":true}', "2", "200")
    text, version, status = curl("--http2-prior-knowledge", server.url + INFER, "-d", BODY)
    assert (version, status) == ("2", "200")
    assert json.loads(text)["outputs"][0]["data"] == list(range(16))
    assert curl("--http2-prior-knowledge", "-I", server.url + READY)[1:] == ("2", "200")


def test_upgrades_are_passed_over(server):
    assert curl("--http2", server.url + READY) == ('{"ready":true}', "1.1", "200")


def test_every_port_speaks_it(server):
    for port in server.ports:
        with Peer(port) as peer:
            assert peer.ask(1) == 200


def test_a_body_in_many_frames(server):
    with Peer(server.port) as peer:
        peer.send(frame(HEADERS, END_HEADERS, 1, head(INFER, "POST", content_length=str(len(BODY)))))
        for byte in BODY:
            peer.send(frame(DATA, 0, 1, bytes([byte])))
        peer.send(frame(DATA, END_STREAM, 1))
        assert peer.status(1) == 200
        assert json.loads(peer.until(DATA, 1)[3])["outputs"]


def test_what_is_wrong_with_a_request_is_said(server):
    with Peer(server.port) as peer:
        many = {f"x-{i}": "y" for i in range(200)}
        peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, head(READY, **many)))
        assert peer.status(1) == 431
        block = head(READY, **{f"x-{i}": "y" * 10000 for i in range(8)})
        peer.send(frame(HEADERS, END_STREAM, 3, block[:16000]))
        parts = [block[at : at + 16000] for at in range(16000, len(block), 16000)]
        for part in parts[:-1]:
            peer.send(frame(CONTINUATION, 0, 3, part))
        peer.send(frame(CONTINUATION, END_HEADERS, 3, parts[-1]))
        assert peer.status(3) == 431
        peer.send(frame(HEADERS, END_HEADERS, 5, head(INFER, "POST", content_length="99999999999")))
        assert peer.status(5) == 413
        assert peer.reset_code(5) == NO_ERROR
        assert peer.ask(7, "/v2/nothing") == 404
        assert peer.ask(9) == 200


def test_a_body_of_another_length_is_an_error_of_its_stream(server):
    with Peer(server.port) as peer:
        peer.send(frame(HEADERS, END_HEADERS, 1, head(INFER, "POST", content_length="3")))
        peer.send(frame(DATA, END_STREAM, 1, b"{}"))
        assert peer.reset_code(1) == PROTOCOL_ERROR
        assert peer.ask(3) == 200


@pytest.mark.parametrize("body, ends", [(b"{}", True), (b"{}  ", False), (None, True)])
def test_so_is_one_whose_header_is_known(server, body, ends):
    """The third header that is the same is not read again, yet holds."""
    with Peer(server.port) as peer:
        block = plain("/v2/repository/index", content_length="3")
        for stream in (1, 3, 5):
            peer.send(frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, b"{ }"))
            assert peer.status(stream) == 200
        if body is None:
            peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 7, block))
        else:
            peer.send(frame(HEADERS, END_HEADERS, 7, block) + frame(DATA, END_STREAM if ends else 0, 7, body))
        assert peer.reset_code(7) == PROTOCOL_ERROR
        peer.send(frame(HEADERS, END_HEADERS, 9, block) + frame(DATA, END_STREAM, 9, b"{ }"))
        assert peer.status(9) == 200


def test_known_headers_end_with_the_next_one(server):
    """Headers that alternate, and one that changes the table which the others refer to."""
    with Peer(server.port) as peer:
        encoder = hpack.Encoder()
        paths = ["/v2", "/v2", "/v2", "/v2/nothing", "/v2", "/v2", "/v2", "/v2/nothing", "/v2/nothing", "/v2/nothing",
                 "/v2"]
        for index, path in enumerate(paths):
            pairs = [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a")]
            peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 2 * index + 1, encoder.encode(pairs)))
        for stream in range(2 * len(paths) + 1, 2 * len(paths) + 9, 2):
            peer.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, plain("/v2/repository/index")))
        answers = [peer.until(HEADERS) for _ in range(len(paths) + 4)]
        statuses = {stream: int(fields[":status"]) for _, _, stream, fields in answers}
        assert [statuses[2 * index + 1] for index in range(len(paths) + 4)] == [
            200 if path == "/v2" else 404 for path in paths] + [200] * 4


def test_a_large_answer_goes_on_as_its_reader_allows(server):
    """Its stream's window is of 1000 bytes at first, and opened by as much again and again."""
    more = struct.pack(">I", 1000)
    with Peer(server.port, struct.pack(">HI", 4, 1000)) as peer:
        assert peer.ask(1, "/metrics") == 200
        text, flags = b"", 0
        while not flags & END_STREAM:
            _, flags, _, part = peer.until(DATA, 1)
            text += part
            if len(text) % 1000 == 0 and not flags & END_STREAM:
                peer.send(frame(WINDOW_UPDATE, 0, 1, more) + frame(WINDOW_UPDATE, 0, 0, more))
        assert len(text) > 2000 and serving.Metrics(text.decode()).samples


def test_what_is_late_is_told_while_the_model_still_runs(tmp_path):
    root = tmp_path / "models"
    serving.put_sim(root, "late", parameters={"finish": "3s"}, max_batch_size=1)
    with serving.Server(tmp_path, "--loops", "1", root) as server, Peer(server.port) as peer:
        block = head("/v2/models/late/infer", "POST", weir_deadline_ms="200")
        peer.send(frame(HEADERS, END_HEADERS, 1, block) + frame(DATA, END_STREAM, 1, BODY))
        assert peer.status(1) == 504
        _, flags, _, text = peer.until(DATA, 1)
        assert flags & END_STREAM and b"deadline" in text
        assert peer.ask(3) == 200


def test_a_canceled_request_is_not_run(server):
    with Peer(server.port) as peer:
        before = server.stats("slow")["inference_count"]
        streams = range(1, 201, 2)
        peer.send(b"".join(map(slow_request, streams)) + b"".join(map(reset, streams)))
        assert peer.ask(201) == 200
    assert server.stats("slow")["inference_count"] - before < 50


# --- Time-outs ------------------------------------------------------------------------------------


def test_slow_headers_end_their_connection(hasty):
    with Peer(hasty.port) as peer:
        peer.send(frame(HEADERS, END_STREAM, 1, head(READY)))
        assert peer.goaway() == ENHANCE_YOUR_CALM


def test_slow_bodies_are_told(hasty):
    with Peer(hasty.port) as peer:
        peer.send(frame(HEADERS, END_HEADERS, 1, head(INFER, "POST", content_length="1000")))
        peer.send(frame(DATA, 0, 1, b"{"))
        assert peer.status(1) == 408


def test_streams_whose_window_stays_shut_are_reset(hasty):
    with Peer(hasty.port, struct.pack(">HI", 4, 0)) as peer:
        peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, head("/metrics")))
        assert peer.status(1) == 200
        assert peer.reset_code(1) == CANCEL


def test_idle_connections_are_told_to_go(hasty):
    with Peer(hasty.port) as peer:
        assert peer.ask(1) == 200
        assert peer.goaway() == NO_ERROR


def test_a_preface_alone_is_not_waited_upon(hasty):
    for start in (b"PRI", PREFACE[:10], PREFACE, PREFACE + b"\0\0"):
        with socket.create_connection(("127.0.0.1", hasty.port), timeout=serving.PATIENCE_S) as raw:
            raw.sendall(start)
            with contextlib.suppress(ConnectionResetError):
                while raw.recv(65536):
                    pass


# --- Floods ---------------------------------------------------------------------------------------


SLOW_HEAD, READY_HEAD, METRICS_HEAD = head(SLOW, "POST"), head(READY), head("/metrics")
SLOWER_HEAD = head("/v2/models/slower/infer", "POST")


def slow_request(stream, block=SLOW_HEAD):
    return frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, BODY)


def reset(stream, code=CANCEL):
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def made_to_reset(stream):
    """The client makes the server reset its own work (CVE-2025-8671)."""
    return frame(HEADERS, END_HEADERS, stream, SLOW_HEAD) + frame(
        WINDOW_UPDATE, 0, stream, struct.pack(">I", 0x7FFFFFFF))


FLOODS = {  # A name: the nth piece of the flood.
    "rapid reset": lambda n: slow_request(2 * n + 3) + reset(2 * n + 3),
    "rapid reset without an error": lambda n: slow_request(2 * n + 3) + reset(2 * n + 3, NO_ERROR),
    "made to reset": lambda n: made_to_reset(2 * n + 3),
    "ping": lambda n: frame(PING, payload=b"12345678"),
    "ping acknowledgements": lambda n: frame(PING, ACK, payload=b"12345678"),
    "settings": lambda n: frame(SETTINGS),
    "settings of windows": lambda n: frame(SETTINGS, payload=struct.pack(">HI", 4, 1000 + n % 2)),
    "priority": lambda n: frame(PRIORITY, 0, 2 * n + 3, struct.pack(">IB", 0, 1)),
    "window": lambda n: frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)),
    "unknown frames": lambda n: frame(0x77, 0, 0, b"x"),
    "empty data": lambda n: frame(DATA, 0, 1),
    "padding": lambda n: frame(DATA, PADDED, 1, b"\0"),
    "resets of what is over": lambda n: reset(3) if n else
    frame(HEADERS, END_HEADERS | END_STREAM, 3, READY_HEAD) + reset(3),
}
PIECES = 100_000


def flood(peer, data):
    """All of it, or until the server has had enough; answers are read over."""
    code, at = None, 0
    peer.socket.setblocking(False)
    until = time.monotonic() + serving.PATIENCE_S
    closed = False
    while at < len(data) and not closed:
        assert time.monotonic() < until
        with contextlib.suppress(BlockingIOError):
            try:
                at += peer.socket.send(data[at : at + 65536])
            except OSError as error:
                if isinstance(error, BlockingIOError):
                    raise
                break
        with contextlib.suppress(BlockingIOError):
            try:
                part = peer.socket.recv(65536)
            except OSError as error:
                if isinstance(error, BlockingIOError):
                    raise
                break
            closed = not part
            peer.received += part
    peer.socket.setblocking(True)
    peer.socket.settimeout(serving.PATIENCE_S)
    return peer.goaway()


@pytest.mark.parametrize("name", FLOODS)
def test_floods_end_the_connection_of_the_culprit_only(server, name):
    data = b"".join(FLOODS[name](n) for n in range(PIECES))
    memory = server.memory()
    with Peer(server.port) as honest, Peer(server.port) as peer:
        assert honest.ask(1) == 200
        peer.send(frame(HEADERS, END_HEADERS, 1, head(INFER, "POST")))
        code = flood(peer, data)
        assert code in (ENHANCE_YOUR_CALM, None), code
        assert honest.ask(3) == 200
        with pytest.raises((OSError, AssertionError)):
            peer.ask(999_999)
    if not serving.is_sanitized():
        assert server.memory() - memory < 64 << 20
    server.await_("the work is let go", lambda: pending(server) == 0)


def pending(server):
    metrics = server.metrics()
    return metrics.sum("nv_inference_pending_request_count")


def test_headers_without_end(server):
    with Peer(server.port) as honest, Peer(server.port) as peer:
        peer.send(frame(HEADERS, END_STREAM, 1, head(READY)))
        data = frame(CONTINUATION, 0, 1) * 100_000
        assert flood(peer, data) in (ENHANCE_YOUR_CALM, PROTOCOL_ERROR, None)
        assert honest.ask(1) == 200


def test_headers_that_grow_when_they_are_read(server):
    """One byte in the frame, four thousand when it is decoded (CVE-2026-49975)."""
    block = head(READY) + hpack.Encoder().encode([("x", "y" * 4000)], huffman=False)
    index = bytes([0x80 | 62])
    memory = server.memory()
    with Peer(server.port) as honest, Peer(server.port, struct.pack(">HI", 4, 0)) as peer:
        peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block))
        for stream in range(3, 2003, 2):
            with contextlib.suppress(OSError):
                peer.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, head(READY) + index * 16000))
        assert honest.ask(1) == 200
        if not serving.is_sanitized():
            assert server.memory() - memory < 64 << 20


def test_an_answer_that_nobody_reads_holds_little(server):
    """A thousand answers behind a window that stays shut."""
    memory = server.memory()
    with Peer(server.port) as honest, Peer(server.port, struct.pack(">HI", 4, 0)) as peer:
        for stream in range(1, 2001, 2):
            peer.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, METRICS_HEAD))
        peer.ping()
        assert honest.ask(1) == 200
        if not serving.is_sanitized():
            assert server.memory() - memory < 256 << 20


def test_who_cancels_what_he_does_not_read_leaves_nothing_behind(server):
    """A stream whose answers fill the socket is canceled, then its connection is cut."""
    question = b"\x1a\x12model_config.proto"
    message = b"\0" + struct.pack(">I", len(question)) + question
    calls = head("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "POST",
                 content_type="application/grpc", te="trailers")
    for _ in range(3):
        with Peer(server.port, struct.pack(">HI", 4, 0x7FFFFFFF)) as peer:
            peer.send(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 0x7FFFFFFF - 65535)))
            peer.send(frame(HEADERS, END_HEADERS, 1, calls) + 2000 * frame(DATA, 0, 1, message))
            bodies = "weir_http_bodies_bytes"
            server.await_("an answer waits for the socket", lambda: server.metrics().get(bodies) >= 16384)
            peer.send(reset(1))
            assert server.get(READY).status == 200
    connections = "weir_http_connections"
    server.await_("they are closed", lambda: server.metrics().get(connections) == 1)


def test_deadlines_that_expire_in_masses_are_no_flood(server):
    """What an honest channel does when its server is too slow: all streams are worked on, all are canceled, for
    more of them than a flood may have."""
    with Peer(server.port) as peer:
        for round in range(30):
            streams = range(1000 * round + 1, 1000 * round + 1001, 2)
            peer.send(b"".join(map(slow_request, streams)))
            peer.ping()
            time.sleep(0.05)  # Their deadline.
            peer.send(b"".join(map(reset, streams)))
        assert peer.ask(99_999) == 200


def test_connections_that_are_slow_in_masses(tmp_path, root):
    """1,500 clients that never finish what they say, on both versions."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    times = [word for name in ("header", "body") for word in (f"--limits.{name}-timeout", "5s")]
    starts = (
        b"GET /v2 HTTP/1.1\r\nHost: a",
        b"POST /v2/models/m/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{",
        PREFACE + frame(SETTINGS) + frame(HEADERS, END_STREAM, 1, head(READY)),
        PREFACE + frame(SETTINGS) + frame(HEADERS, END_HEADERS, 1, head(INFER, "POST")) + frame(DATA, 0, 1, b"{"),
        PREFACE + b"\0\0",
    )
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving.Server(tmp_path, *times, root))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        memory = server.memory()
        slow = []
        for i in range(1500):  # Each says at once what it has to say: its time runs.
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=serving.PATIENCE_S)
            slow.append(stack.enter_context(connection))
            connection.sendall(starts[i % len(starts)])
        with Peer(server.port) as honest:
            assert honest.ask(1) == 200
        if not serving.is_sanitized():
            assert server.memory() - memory < 256 << 20
        for i, connection in enumerate(slow):
            finish(connection, keeps=i % len(starts) == 3)


def finish(connection, keeps):
    """Told, or closed: each within its time-out.  A stream's slow body does not end its connection."""
    text = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            text += part
            if keeps and frame(DATA)[3:4] + b"\x01" in text and b"time-out" in text:
                return
    assert not keeps, text


# --- The end --------------------------------------------------------------------------------------


def test_a_stopping_server_says_goodbye_and_finishes(tmp_path, root):
    with serving.Server(tmp_path, "--loops", "1", root) as server:
        with Peer(server.port) as peer, Peer(server.port) as idle:
            assert idle.ask(1) == 200
            for stream in range(1, 9, 2):
                peer.send(slow_request(stream, SLOWER_HEAD))
            peer.ping()
            server.process.terminate()
            last, over, statuses = [], 0, {}
            while (got := peer.next()) is not None:
                kind, flags, stream, payload = got
                if kind == PING and not flags & ACK:
                    peer.send(frame(PING, ACK, payload=payload))
                if kind == GOAWAY:
                    last.append(int.from_bytes(payload[:4], "big"))
                if kind == HEADERS:
                    statuses[stream] = peer.decoder.decode(payload)[0][1]
                over += stream > 0 and bool(flags & END_STREAM)
            assert last[0] == 0x7FFFFFFF and last[-1] == 7
            assert over == 4 and set(statuses.values()) == {"200"}
            assert idle.goaway() == NO_ERROR
        assert server.process.wait(serving.PATIENCE_S) == 0


# --- systemd --------------------------------------------------------------------------------------


def test_sockets_that_are_handed_over(tmp_path, root):
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        local = stack.enter_context(socket.socket(socket.AF_UNIX))
        path = f"/tmp/weir-{os.getpid()}.sock"
        local.bind(path)
        stack.callback(os.unlink, path)
        local.listen()

        def hand_over():
            ends = [os.dup(tcp.fileno()), os.dup(local.fileno())]
            ends = [fd if fd > 4 else os.dup(os.dup(fd)) for fd in ends]
            for i, fd in enumerate(ends):
                os.dup2(fd, 3 + i)

        program = 'export LISTEN_PID=$$; exec "$@"'
        process = stack.enter_context(subprocess.Popen(
            ["/bin/sh", "-c", program, "sh", serving.BINARY, "serve", root],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, close_fds=False, preexec_fn=hand_over,
            env={**os.environ, "LISTEN_FDS": "2"}))
        try:
            line = process.stdout.readline().decode()
            port = tcp.getsockname()[1]
            assert f"http://127.0.0.1:{port} unix:{path} (" in line
            assert curl("--http2-prior-knowledge", f"http://127.0.0.1:{port}{READY}")[2] == "200"
            assert curl("--unix-socket", path, f"http://a{READY}")[2] == "200"
        finally:
            process.terminate()
        assert process.wait(serving.PATIENCE_S) == 0
        assert os.path.exists(path)  # It is not ours to remove.
