"""HTTP/1 as bytes on raw sockets: what the server reads, refuses, times out and survives."""

import concurrent.futures
import json
import re
import signal
import socket
import subprocess
import time

import pytest

from serving import BINARY, PATIENCE_S

GET = b"GET /v2 HTTP/1.1\r\n"
POST = b"POST /v2/models/m/infer HTTP/1.1\r\n"
HOST = b"Host: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
READY = b"GET /v2/health/ready HTTP/1.1\r\nHost: a\r\n\r\n"
CANARY = READY.replace(b"ready", b"live")


class Server:
    def __init__(self, folder, **limits):
        options = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
        for name, value in limits.items():
            options += [f"--limits.{name.replace('_', '-')}", value]
        self.process = subprocess.Popen(
            [BINARY, "serve", *options, str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.port = int(re.search(r":(\d+)", self.process.stdout.readline())[1])

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self):
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("models"))
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def hasty(tmp_path_factory):
    """A server with little patience and small limits."""
    server = Server(
        tmp_path_factory.mktemp("models"),
        header_timeout="1s",
        body_timeout="1s",
        idle_timeout="1s",
        json_bytes_max="1MiB",
    )
    yield server
    assert server.stop() == 0


def drain(connection):
    """Everything until the server closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def read_answer(reader):
    """Status, header and body of the next answer."""
    status = int(reader.readline().split()[1])
    header = {}
    while (line := reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        header[name.lower()] = value.strip()
    return status, header, reader.read(int(header.get("content-length", 0)))


def ask(server, data):
    with server.connect() as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return drain(connection)


# --- What is refused ------------------------------------------------------------------------------

REFUSED = {
    "both lengths": POST + HOST + b"Content-Length: 4\r\n" + CHUNKED + b"0\r\n\r\n",
    "two lengths": POST + HOST + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "another encoding": POST + HOST + b"Transfer-Encoding: gzip\r\n\r\n",
    "hidden encoding": POST + HOST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "no host": GET + b"\r\n",
    "two hosts": GET + HOST + b"Host: b\r\n\r\n",
    "folding": GET + HOST + b"X: a\r\n b\r\n\r\n",
    "line feeds": b"GET /v2 HTTP/1.1\nHost: a\n\n",
    "carriage return": GET + b"Host: a\rX: b\r\n\r\n",
    "NUL": GET + HOST + b"X: a\0b\r\n\r\n",
    "version": b"GET /v2 HTTP/1.7\r\nHost: a\r\n\r\n",
    "chunk size": POST + HOST + CHUNKED + b"0x4\r\nabcd\r\n",
    "trailer": POST + HOST + CHUNKED + b"0\r\nGET / HTTP/1.1\r\n",
    "percent": b"GET /v2/%zz HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_reason_and_nothing_after_it_runs(server, name):
    answer = ask(server, REFUSED[name] + CANARY + READY)
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert len(re.findall(rb"HTTP/1.1 \d\d\d ", answer)) == 1
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


def test_too_large_headers(server):
    many = b"".join(b"X-%d: y\r\n" % i for i in range(2000))
    for fields in (many, b"X: " + b"a" * 100000 + b"\r\n"):
        with server.connect() as connection:
            connection.sendall(GET + HOST + fields + b"\r\n")
            assert drain(connection).startswith(b"HTTP/1.1 431 ")


def test_too_large_bodies_are_told_before_they_are_read(hasty):
    with hasty.connect() as connection:
        connection.sendall(POST + HOST + b"Content-Length: 10000000000\r\n\r\n")
        assert drain(connection).startswith(b"HTTP/1.1 413 ")
    with hasty.connect() as connection:  # This one does not wait for the answer.
        connection.sendall(POST + HOST + b"Content-Length: 3000000\r\n\r\n")
        connection.sendall(bytes(3000000))
        assert drain(connection).startswith(b"HTTP/1.1 413 ")


# --- What is served -------------------------------------------------------------------------------


def test_pipelined(server):
    with server.connect() as connection:
        connection.sendall(READY * 500)
        with connection.makefile("rb") as reader:
            answers = [read_answer(reader) for _ in range(500)]
    assert {status for status, _, _ in answers} == {200}


def test_one_byte_at_a_time(server):
    with server.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(len(READY)):
            connection.sendall(READY[i : i + 1])
        with connection.makefile("rb") as reader:
            assert read_answer(reader)[0] == 200


def test_http_1_0(server):
    answer = ask(server, b"GET /v2/health/live HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nConnection: close\r\n" in answer


def test_head(server):
    with server.connect() as connection, connection.makefile("rb") as reader:
        connection.sendall(READY.replace(b"GET", b"HEAD"))
        status = reader.readline()
        while reader.readline() != b"\r\n":
            pass
        connection.sendall(READY)
        assert status == reader.readline() == b"HTTP/1.1 200 OK\r\n"


def test_expect(server):
    head = b"POST /v2/models/none/infer HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
    with server.connect() as connection, connection.makefile("rb") as reader:
        connection.sendall(head + b"Content-Length: 2\r\n\r\n")
        first = read_answer(reader)[0]
        if first == 100:
            connection.sendall(b"{}")
            assert read_answer(reader)[0] == 404
        else:
            assert first == 404


def test_upgrade_to_http_2_is_passed_over(server):
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    answer = ask(server, READY.replace(b"Host: a\r\n", b"Host: a\r\n" + upgrade))
    assert answer.startswith(b"HTTP/1.1 200 ")


# --- Who is slow ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent, answer",
    [
        (b"", b""),
        (GET + b"Ho", b"HTTP/1.1 408 "),
        (POST + HOST + b"Content-Length: 9\r\n\r\n{", b"HTTP/1.1 408 "),
    ],
    ids=["silent", "header", "body"],
)
def test_slow_clients_are_closed(hasty, sent, answer):
    with hasty.connect() as connection:
        connection.sendall(sent)
        found = drain(connection)
    assert found.startswith(answer) and (found == b"") == (answer == b"")


def test_a_header_that_drips_is_closed_all_the_same(hasty):
    with hasty.connect() as connection:
        connection.sendall(GET + HOST + b"X: ")
        found = b""
        begun = time.monotonic()
        connection.settimeout(0.05)
        while not found and time.monotonic() < begun + PATIENCE_S:
            try:
                found = connection.recv(65536)
            except TimeoutError:
                connection.sendall(b"a")
    assert found.startswith(b"HTTP/1.1 408 ")


def test_many_half_open_headers_do_not_disturb(hasty):
    connections = [hasty.connect() for _ in range(300)]
    for connection in connections:
        connection.sendall(GET + HOST)
    assert ask(hasty, READY).startswith(b"HTTP/1.1 200 ")
    for connection in connections:
        with connection:
            assert drain(connection).startswith(b"HTTP/1.1 408 ")


def test_clients_that_hang_up_do_no_harm(server):
    def hang_up(i):
        data = POST + HOST + b"Content-Length: 500000\r\n\r\n" + READY * 9
        with server.connect() as connection:
            connection.sendall((READY * 9 + data)[: 17 * i])

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(hang_up, range(200)))
    assert ask(server, READY).startswith(b"HTTP/1.1 200 ")


def test_drain(tmp_path):
    """Readiness turns on every connection, and kept ones end without losing an answer."""
    server = Server(tmp_path)
    with server.connect() as kept, kept.makefile("rb") as reader:
        kept.sendall(READY)
        assert read_answer(reader)[0] == 200
        server.process.send_signal(signal.SIGTERM)
        status = 200
        while status == 200:
            kept.sendall(READY)
            status, _, _ = read_answer(reader)
        assert status == 503
        assert drain(kept) == b""
    assert server.wait() == 0
