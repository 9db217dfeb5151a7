"""TLS as clients meet it: versions, protocols, certificates of clients, renewed ones, and those who are slow."""

import concurrent.futures
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading

import numpy as np
import pytest

from certificates import Authority
from serving import BINARY, PATIENCE_S, Server, put_model, put_sim

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None or shutil.which("curl") is None, reason="needs openssl and curl"
)

ONES = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 16], "data": [1] * 16}]}
INFER = "/v2/models/identity_fp32/infer"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("tls") / "models"
    root.mkdir()
    put_model(root, "identity_fp32")
    put_sim(root, "wide", parameters={"tau0": "1us"}, max_batch_size=0)
    return root


@pytest.fixture(scope="module")
def server(authority, repository):
    certificate, key = authority.issue("localhost")
    with Server(repository.parent, *tls(certificate, key), repository) as server:
        yield server


def tls(certificate, key, *more):
    return ("--tls-certificate", certificate, "--tls-key", key, *more)


def trust(authority, shown=None):
    context = ssl.create_default_context(cafile=authority.certificate)
    if shown is not None:
        context.load_cert_chain(*shown)
    return context


def ask(server, context, path="/v2/health/live", body=None):
    connection = http.client.HTTPSConnection(
        "localhost", server.port, context=context, timeout=PATIENCE_S
    )
    try:
        connection.request("GET" if body is None else "POST", path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def curl(server, authority, path, *words, data=None, code=0):
    command = ["curl", "-sS", "--max-time", str(PATIENCE_S), "--cacert", str(authority.certificate)]
    if data is not None:
        command += ["--data-binary", "@-"]
    url = f"https://localhost:{server.port}{path}"
    done = subprocess.run([*command, *words, url], input=data, capture_output=True)
    assert done.returncode == code, done.stderr
    return done.stdout


# --- Protocols ------------------------------------------------------------------------------------


def test_the_ready_line_says_https(server):
    assert f"https://127.0.0.1:{server.port}" in server.ready_line


@pytest.mark.parametrize("port", (0, 1, 2))
@pytest.mark.parametrize("version", ("1.1", "2"))
def test_both_versions_of_http_on_every_port(server, authority, version, port):
    url = f"https://localhost:{server.ports[port]}{INFER}"
    done = subprocess.run(
        ["curl", "-sS", f"--http{version}", "--cacert", str(authority.certificate)]
        + ["-w", "\n%{http_version}", "--data-binary", "@-", url],
        input=json.dumps(ONES).encode(),
        capture_output=True,
        timeout=PATIENCE_S,
    )
    body, _, spoken = done.stdout.decode().rpartition("\n")
    assert spoken == version, done.stderr
    assert json.loads(body)["outputs"][0]["data"] == [1] * 16


@pytest.mark.parametrize(
    "offered,chosen",
    (
        (["h2", "http/1.1"], "h2"),
        (["http/1.1", "h2"], "h2"),
        (["http/1.1"], "http/1.1"),
        ([], None),
    ),
)
def test_alpn(server, authority, offered, chosen):
    context = trust(authority)
    if offered:
        context.set_alpn_protocols(offered)
    with socket.create_connection(("localhost", server.port), PATIENCE_S) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as secure:
            assert secure.selected_alpn_protocol() == chosen


def test_a_protocol_that_is_not_spoken_here(server, authority):
    context = trust(authority)
    context.set_alpn_protocols(["spdy/3"])
    with socket.create_connection(("localhost", server.port), PATIENCE_S) as plain:
        with pytest.raises(ssl.SSLError, match="(?i)no.application.protocol"):
            context.wrap_socket(plain, server_hostname="localhost")


def s_client(server, *words):
    return subprocess.run(
        ["openssl", "s_client", "-connect", f"localhost:{server.port}", *words],
        input=b"",
        capture_output=True,
        timeout=PATIENCE_S,
    ).stdout.decode(errors="replace")


@pytest.mark.parametrize("version,spoken", (("tls1_3", True), ("tls1_2", True), ("tls1_1", False)))
def test_versions(server, version, spoken):
    said = s_client(server, f"-{version}", "-cipher", "DEFAULT:@SECLEVEL=0")
    assert ("Cipher is (NONE)" not in said) == spoken


def test_only_the_newest_version_where_it_is_asked_for(authority, repository, tmp_path):
    words = tls(*authority.issue("localhost"), "--tls-min-version", "1.3")
    with Server(tmp_path, *words, repository) as server:
        assert "Cipher is (NONE)" not in s_client(server, "-tls1_3")
        assert "Cipher is (NONE)" in s_client(server, "-tls1_2")


@pytest.mark.parametrize("cipher", ("AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA"))
def test_weak_ciphers_are_refused(server, cipher):
    assert "Cipher is (NONE)" in s_client(server, "-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0")


def test_no_renegotiation(server, authority):
    done = subprocess.run(
        ["openssl", "s_client", "-tls1_2", "-connect", f"localhost:{server.port}"],
        input=b"R\n",
        capture_output=True,
        timeout=PATIENCE_S,
    )
    assert b"no renegotiation" in done.stderr
    assert ask(server, trust(authority))[0] == 200


def test_plain_http_is_told_what_is_due(server):
    answer = server.get("/v2/health/live")
    assert answer.status == 400
    assert "https" in answer.error


def test_a_session_is_resumed(server, authority, tmp_path):
    for version in ("-tls1_2", "-tls1_3"):
        session = tmp_path / f"session{version}"
        hello = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        for way in ("-sess_out", "-sess_in"):
            said = subprocess.run(
                ["openssl", "s_client", version, "-connect", f"localhost:{server.port}"]
                + ["-ign_eof", way, str(session)],
                input=hello,
                capture_output=True,
                timeout=PATIENCE_S,
            ).stdout
            assert b"200 OK" in said
        assert b"\nReused, " in said


# --- Bytes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ("1.1", "2"))
def test_large_tensors_both_ways(server, authority, version):
    values = np.random.default_rng(1).random((40000, 16), np.float32)
    head = json.dumps(
        {
            "inputs": [
                {"name": "x", "datatype": "FP32", "shape": list(values.shape)}
                | {"parameters": {"binary_data_size": values.nbytes}}
            ],
            "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
        }
    ).encode()
    body = curl(
        server,
        authority,
        INFER,
        f"--http{version}",
        "-H",
        f"Inference-Header-Content-Length: {len(head)}",
        data=head + values.tobytes(),
    )
    assert body[-values.nbytes :] == values.tobytes()


def test_many_requests_at_once_on_one_connection(server, authority):
    context = trust(authority)
    one = f"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    last = one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with socket.create_connection(("localhost", server.port), PATIENCE_S) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as secure:
            # In one thread: before 3.13 Python's TLS sockets take an end for one that is not, in two.
            secure.sendall(one * 499 + last)
            got = b""
            while data := secure.recv(65536):
                got += data
    assert got.count(b"HTTP/1.1 200 OK") == 500


def test_the_end_is_said(server, authority):
    """Without close_notify a client could not tell the end of an answer from a cut."""
    context = trust(authority)
    with socket.create_connection(("localhost", server.port), PATIENCE_S) as plain:
        with context.wrap_socket(
            plain, server_hostname="localhost", suppress_ragged_eofs=False
        ) as secure:
            secure.sendall(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            while secure.recv(65536):
                pass


def test_rubbish_ends_its_connection_only(server, authority):
    for rubbish in (b"\x16\x03\x01\x00\xff" + os.urandom(255), b"\0" * 500, b"\x16\x03\x01"):
        with socket.create_connection(("localhost", server.port), PATIENCE_S) as plain:
            plain.sendall(rubbish)
            plain.shutdown(socket.SHUT_WR)
            while plain.recv(65536):
                pass
        assert ask(server, trust(authority))[0] == 200


# --- Certificates of clients ----------------------------------------------------------------------


@pytest.fixture(scope="module", params=("required", "optional"))
def mutual(request, authority, repository, tmp_path_factory):
    words = tls(*authority.issue("localhost"), "--tls-client-ca", authority.certificate)
    scratch = tmp_path_factory.mktemp("mutual")
    with Server(scratch, *words, "--tls-client", request.param, repository) as server:
        server.required = request.param == "required"
        yield server


def test_a_client_with_a_certificate(mutual, authority):
    assert ask(mutual, trust(authority, authority.issue("alice")))[0] == 200


def test_a_client_without(mutual, authority):
    if not mutual.required:
        assert ask(mutual, trust(authority))[0] == 200
        return
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
        ask(mutual, trust(authority))


def test_a_client_that_somebody_else_signed(mutual, authority, tmp_path):
    stranger = Authority(tmp_path / "stranger").issue("mallory")
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
        ask(mutual, trust(authority, stranger))


# --- Renewal --------------------------------------------------------------------------------------


def renew(pair, files):
    for new, old in zip(pair, files):
        shutil.copy(new, f"{old}.new")
        os.rename(f"{old}.new", old)


def serial(server):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection(("localhost", server.port), PATIENCE_S) as plain:
        with context.wrap_socket(plain) as secure:
            return hash(secure.getpeercert(binary_form=True))


@pytest.fixture
def renewable(authority, repository, tmp_path):
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    renew(authority.issue("localhost"), files)
    words = tls(*files, "--reload-interval", "50ms")
    with Server(tmp_path, *words, repository) as server:
        server.files = files
        yield server


def test_a_renewed_certificate_is_used_without_a_signal(renewable, authority):
    before = serial(renewable)
    renew(authority.issue("renewed"), renewable.files)
    renewable.await_("the new certificate", lambda: serial(renewable) != before)
    renewable.await_("the log", lambda: "TLS certificate read again" in renewable.logged())


def test_renewal_under_load_drops_nothing(renewable, authority):
    context = trust(authority)
    over = threading.Event()

    def keep_asking():
        count = 0
        connection = http.client.HTTPSConnection(
            "localhost", renewable.port, context=context, timeout=PATIENCE_S
        )
        connection.connect()
        first = connection.sock
        while not over.is_set() or count == 0:
            connection.request("POST", INFER, json.dumps(ONES))
            answer = connection.getresponse()
            assert answer.status == 200 and len(answer.read()) > 0
            count += 1
        assert connection.sock is first, "it had to connect again"
        connection.close()
        return count

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(keep_asking) for _ in range(4)]
        try:
            for _ in range(3):
                before = serial(renewable)
                renew(authority.issue("again"), renewable.files)
                renewable.process.send_signal(signal.SIGHUP)
                renewable.await_("the new certificate", lambda: serial(renewable) != before)
        finally:
            over.set()
        assert all(client.result(PATIENCE_S) > 0 for client in clients)


def test_a_broken_renewal_changes_nothing(renewable, authority):
    before = serial(renewable)
    renewable.files[0].write_text("rubbish")
    renewable.await_("the log", lambda: "not read again" in renewable.logged())
    assert serial(renewable) == before
    assert ask(renewable, trust(authority))[0] == 200
    renew(authority.issue("mended"), renewable.files)
    renewable.await_("the new certificate", lambda: serial(renewable) != before)


# --- Those who are slow ---------------------------------------------------------------------------


def test_five_hundred_slow_handshakes_harm_nobody(authority, repository, tmp_path):
    words = tls(*authority.issue("localhost"), "--limits.header-timeout", "3s")
    with Server(tmp_path, *words, repository) as server:
        hello = client_hello()
        slow = []
        for i in range(500):
            slow.append(socket.create_connection(("localhost", server.port), PATIENCE_S))
            slow[-1].sendall(hello[: i % len(hello)])
        context = trust(authority)
        for _ in range(20):
            assert ask(server, context, INFER, json.dumps(ONES))[0] == 200
        for client in slow:  # Each is given up, though some trickle on.
            try:
                client.sendall(b"\x16")
            except OSError:
                pass
        for client in slow:
            try:
                while client.recv(4096):
                    pass
            except ConnectionResetError:
                pass
            client.close()
        assert ask(server, context)[0] == 200


def client_hello():
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(
        incoming, outgoing, server_hostname="localhost"
    )
    with pytest.raises(ssl.SSLWantReadError):
        made.do_handshake()
    return outgoing.read()


def test_a_storm_of_handshakes_leaves_turns_for_others(server, authority):
    context = trust(authority)
    connection = http.client.HTTPSConnection(
        "localhost", server.port, context=context, timeout=PATIENCE_S
    )
    connection.request("GET", "/v2/health/live")
    connection.getresponse().read()
    hello = client_hello()
    storm = [socket.create_connection(("localhost", server.port), PATIENCE_S) for _ in range(300)]
    for client in storm:
        client.sendall(hello)
    for _ in range(50):
        connection.request("GET", "/v2/health/live")
        assert connection.getresponse().read()
    connection.close()
    for client in storm:
        assert client.recv(1) == b"\x16"  # Each gets its answer.
        client.close()


# --- Starting -------------------------------------------------------------------------------------


def start_and_fail(*words):
    from serving import BINARY

    done = subprocess.run(
        [BINARY, "serve", "--port", "0", *map(str, words)], capture_output=True, timeout=PATIENCE_S
    )
    assert done.returncode != 0
    return done.stderr.decode()


def test_what_is_wrong_with_the_files_is_said_at_start(authority, repository, tmp_path):
    certificate, key = authority.issue("localhost")
    _, other = authority.issue("other")
    nowhere = tmp_path / "nowhere.pem"
    assert "no such file" in start_and_fail(*tls(nowhere, key), repository)
    assert "does not belong" in start_and_fail(*tls(certificate, other), repository)
    assert "expected certificates in PEM" in start_and_fail(*tls(key, key), repository)
    assert "tls_key" in start_and_fail("--tls-certificate", certificate, repository)
    assert "tls_certificate" in start_and_fail("--tls-client-ca", certificate, repository)


def test_an_expired_certificate_is_loud(authority, repository, tmp_path):
    with Server(tmp_path, *tls(*authority.issue("late", days=0)), repository) as server:
        assert "has expired" in server.logged()


def test_other_machines_are_let_in_only_with_keys_certificates_or_on_purpose(
    authority, repository, tmp_path
):
    words = tls(*authority.issue("localhost"))
    assert "--allow-wide-bind" in start_and_fail("--host", "0.0.0.0", *words, repository)
    mutual_words = (*words, "--tls-client-ca", authority.certificate)
    with Server(tmp_path, "--host", "0.0.0.0", *mutual_words, repository) as server:
        assert "other machines" not in server.logged()
    with Server(tmp_path, "--host", "0.0.0.0", "--allow-wide-bind", repository) as server:
        assert "anybody who reaches the port" in server.logged()


# --- Our own commands -----------------------------------------------------------------------------


def weir(*words):
    return subprocess.run([BINARY, *map(str, words)], capture_output=True, text=True,
                          timeout=PATIENCE_S)


def url(server, kind):
    return f"{kind}://localhost:{server.port}"


@pytest.mark.parametrize("kind", ["https", "grpcs"])
def test_weir_infer(server, authority, tmp_path, kind):
    rows = np.random.default_rng(1).random((20000, 16), np.float32)
    np.save(tmp_path / "in.npy", rows)
    words = ("infer", "wide", "--url", url(server, kind), "--input", f"x=@{tmp_path / 'in.npy'}",
             "--output", tmp_path / "out.npy")
    done = weir(*words, "--ca", authority.certificate, "--repeat", 3)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), rows)
    assert weir(*words, "--insecure").returncode == 0
    done = weir(*words)
    assert done.returncode == 1 and re.search(r"localhost:\d+: TLS: .*certificate.*--ca FILE", done.stderr)


def test_weir_infer_by_address(server, authority):
    done = weir("infer", "wide", "--url", f"https://127.0.0.1:{server.port}",
                "--ca", authority.certificate)
    assert done.returncode == 0 and "takes  x" in done.stdout, done.stderr


@pytest.mark.parametrize("kind", ["https", "grpcs"])
def test_weir_bench(server, authority, kind):
    words = ("bench", "wide", "--url", url(server, kind), "--requests", 100, "--concurrency", 8,
             "--shape", "x=5000,16", "--zero", "--json")
    done = weir(*words, "--ca", authority.certificate)
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)["runs"][0]
    assert (run["sent"], run["ok"]) == (100, 100)
    done = weir(*words)
    assert done.returncode == 1 and re.search(r"localhost:\d+: TLS: .*certificate.*--ca FILE", done.stderr)


def test_weir_quarantine(server, authority):
    done = weir("quarantine", "list", "--url", url(server, "https"), "--ca", authority.certificate)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["https", "grpcs"])
def test_weir_shows_a_certificate(mutual, authority, kind):
    certificate, key = authority.issue("alice")
    both = certificate.with_suffix(".both")
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    infer = ("infer", "wide", "--url", url(mutual, kind), "--ca", authority.certificate)
    bench = ("bench", "wide", *infer[2:], "--requests", 20, "--shape", "x=1,16", "--json")
    for words in (infer, bench):
        for shown in (("--cert", certificate, "--key", key), ("--cert", both)):
            done = weir(*words, *shown)
            assert done.returncode == 0, done.stderr
    done = weir(*infer)
    assert (done.returncode == 0) != mutual.required
    assert not mutual.required or "certificate required; --cert FILE" in done.stderr


def test_weir_quarantine_shows_a_certificate(mutual, authority):
    certificate, key = authority.issue("alice")
    words = ("quarantine", "list", "--url", url(mutual, "https"), "--ca", authority.certificate)
    done = weir(*words, "--cert", certificate, "--key", key)
    assert done.returncode == 0, done.stderr


def test_what_is_wrong_with_a_shown_certificate_is_said(server, authority, tmp_path):
    certificate, key = authority.issue("alice")
    _, other = authority.issue("other")
    words = ("infer", "wide", "--url", url(server, "https"), "--ca", authority.certificate)
    for shown, reason in (
        (("--cert", tmp_path / "none.pem", "--key", key), "--cert"),
        (("--cert", key, "--key", key), "expected certificates in PEM"),
        (("--cert", certificate, "--key", other), "does not belong to the certificate"),
        (("--cert", certificate), "expected a private key in PEM"),
        (("--key", key), "expected --cert"),
    ):
        done = weir(*words, *shown)
        assert done.returncode == 1 and reason in done.stderr, (shown, done.stderr)


@pytest.mark.parametrize("words", [("infer", "m"), ("bench", "m"), ("quarantine", "list")])
def test_files_are_read_before_anybody_is_called(authority, tmp_path, words):
    nobody = "https://localhost:1"
    done = weir(*words, "--url", nobody, "--ca", tmp_path / "none.pem")
    assert done.returncode == 1 and "none.pem" in done.stderr and "connect" not in done.stderr
    done = weir(*words, "--url", nobody, "--insecure", "--cert", tmp_path / "none.pem")
    assert done.returncode == 1 and "none.pem: no such file" in done.stderr


def test_what_is_wrong_is_said_to_whoever_asks(server, repository, authority, tmp_path):
    done = weir("infer", "wide", "--url", url(server, "https"), "--ca", tmp_path / "none.pem")
    assert done.returncode == 1 and "none.pem': No such file or directory, " in done.stderr
    done = weir("infer", "wide", "--url", url(server, "https"), "--ca", authority.issue("key")[1])
    assert done.returncode == 1 and ".key': found none, expected a file with c" in done.stderr
    with Server(tmp_path, repository) as plain:
        done = weir("infer", "wide", "--url", url(plain, "https"), "--ca", authority.certificate)
        assert done.returncode == 1 and "TLS: wrong version number" in done.stderr
    done = weir("infer", "wide", "--url", url(server, "grpc"))
    assert done.returncode == 1 and "if it speaks TLS, say grpcs://" in done.stderr


# --- Published clients ----------------------------------------------------------------------------


def test_tritons_http_client(server, authority):
    triton = pytest.importorskip("tritonclient.http")
    with triton.InferenceServerClient(
        f"localhost:{server.port}",
        ssl=True,
        ssl_options={"ca_certs": str(authority.certificate)},
        ssl_context_factory=lambda: trust(authority),
    ) as client:
        assert client.is_server_live()
        wanted = triton.InferInput("x", [1, 16], "FP32")
        wanted.set_data_from_numpy(np.ones((1, 16), np.float32))
        assert client.infer("identity_fp32", [wanted]).as_numpy("y").tolist() == [[1] * 16]


def test_tritons_grpc_client(mutual, authority):
    triton = pytest.importorskip("tritonclient.grpc")
    certificate, key = authority.issue("alice")
    with triton.InferenceServerClient(
        f"localhost:{mutual.ports[1]}",
        ssl=True,
        root_certificates=str(authority.certificate),
        private_key=str(key),
        certificate_chain=str(certificate),
    ) as client:
        assert client.is_server_live()
        wanted = triton.InferInput("x", [1, 16], "FP32")
        wanted.set_data_from_numpy(np.ones((1, 16), np.float32))
        assert client.infer("identity_fp32", [wanted]).as_numpy("y").tolist() == [[1] * 16]
