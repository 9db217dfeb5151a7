"""Who may call what: keys, groups of calls, headers as Triton restricts them, and pages of other origins.

The matrix asks every kind of caller for every group over REST and gRPC, and expects the same of both.
"""

import http.client
import os
import queue
import re
import shutil
import signal
import ssl
import subprocess
import threading

import pytest

from certificates import Authority
from serving import BINARY, PATIENCE_S, Raw, Server, make_key, put_sim, sim_request, write_whole

# A call of each group, which succeeds for whoever may make it.
REST = {
    "health": ("GET", "/v2/health/ready"),
    "metadata": ("GET", "/v2/models/sim"),
    "inference": ("POST", "/v2/models/sim/infer"),
    "model-config": ("GET", "/v2/models/sim/config"),
    "statistics": ("GET", "/v2/models/stats"),
    "model-repository": ("POST", "/v2/repository/index"),
    "logging": ("GET", "/v2/logging"),
    "trace": ("GET", "/v2/trace/setting"),
    "metrics": ("GET", "/metrics"),
}
# Answered 200 or 501 behind the door, as system shared memory is on or off.
REST_SHARED = ("GET", "/v2/systemsharedmemory/status")
USE = {"health", "metadata", "inference", "model-config", "statistics"}
GROUPS = set(REST) | {"shared-memory"}

ALLOWED = {
    "alice": USE,
    "ops": (GROUPS - USE) | {"health"},
    "root": GROUPS,
    "narrow": {"inference"},
    None: set(),
    "stranger": set(),
}
WORDS = {"alice": (), "ops": ("--allow", "manage,health"), "root": ("--allow", "all")}
WORDS["narrow"] = ("--allow", "inference")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("access") / "models"
    root.mkdir()
    put_sim(root, "sim", parameters={"tau0": "1us"})
    return root


@pytest.fixture(scope="module")
def keys(repository):
    file = repository.parent / "keys.yaml"
    made = {name: make_key(file, name, *words) for name, words in WORDS.items()}
    return file, {**made, "stranger": "weir_" + "A" * 43}


@pytest.fixture(scope="module")
def guarded(repository, keys):
    with Server(repository.parent, "--api-keys", keys[0], "--access-log", repository) as server:
        yield server


def ask(server, group, headers):
    method, path = REST_SHARED if group == "shared-memory" else REST[group]
    body = sim_request() if group == "inference" else None
    return server.ask(method, path, body, headers)


def expected_of(name, group):
    if group in ALLOWED[name] or group == "health":
        return 200
    return 401 if name in (None, "stranger") else 403


@pytest.mark.parametrize("way", ("authorization", "x-api-key"))
@pytest.mark.parametrize("group", sorted(GROUPS))
@pytest.mark.parametrize("name", ALLOWED)
def test_matrix_rest(guarded, keys, name, group, way):
    key = keys[1].get(name)
    headers = {} if key is None else {way: f"Bearer {key}" if way == "authorization" else key}
    answer = ask(guarded, group, headers)
    expected = expected_of(name, group)
    if expected == 200 and group == "shared-memory":
        assert answer.status in (200, 501)
        return
    assert answer.status == expected, answer.body
    challenge = answer.headers.get("WWW-Authenticate", "")
    assert challenge.startswith("Bearer ") == (expected == 401)
    assert ("invalid_token" in challenge) == (expected == 401 and name == "stranger")


# --- gRPC -----------------------------------------------------------------------------------------

try:
    import grpc
    from tritonclient.grpc import service_pb2 as pb
    from tritonclient.grpc import service_pb2_grpc
except ImportError:
    grpc = None

needs_grpc = pytest.mark.skipif(grpc is None, reason="needs tritonclient.grpc")


def rpc(stub, group):
    """The call of each group, and its request."""
    calls = {
        "health": (stub.ServerReady, lambda: pb.ServerReadyRequest()),
        "metadata": (stub.ModelMetadata, lambda: pb.ModelMetadataRequest(name="sim")),
        "inference": (stub.ModelInfer, infer_message),
        "model-config": (stub.ModelConfig, lambda: pb.ModelConfigRequest(name="sim")),
        "statistics": (stub.ModelStatistics, lambda: pb.ModelStatisticsRequest()),
        "model-repository": (stub.RepositoryIndex, lambda: pb.RepositoryIndexRequest()),
        "logging": (stub.LogSettings, lambda: pb.LogSettingsRequest()),
        "trace": (stub.TraceSetting, lambda: pb.TraceSettingRequest()),
        "shared-memory": (
            stub.SystemSharedMemoryStatus,
            lambda: pb.SystemSharedMemoryStatusRequest(),
        ),
    }
    call, make = calls[group]
    return call, make()


def infer_message():
    message = pb.ModelInferRequest(model_name="sim")
    for tensor in sim_request()["inputs"]:
        made = message.inputs.add(name=tensor["name"], datatype=tensor["datatype"])
        made.shape.extend(tensor["shape"])
        made.contents.fp32_contents.extend(tensor["data"])
    return message


@pytest.fixture(scope="module")
def stub(guarded):
    with grpc.insecure_channel(f"127.0.0.1:{guarded.ports[1]}") as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


@needs_grpc
@pytest.mark.parametrize("way", ("authorization", "x-api-key"))
@pytest.mark.parametrize("group", sorted(GROUPS - {"metrics"}))
@pytest.mark.parametrize("name", ALLOWED)
def test_matrix_grpc(stub, keys, name, group, way):
    key = keys[1].get(name)
    metadata = () if key is None else ((way, f"Bearer {key}" if way != "x-api-key" else key),)
    call, message = rpc(stub, group)
    code = grpc.StatusCode.OK
    try:
        call(message, metadata=metadata, timeout=PATIENCE_S)
    except grpc.RpcError as error:
        code = error.code()
    expected = {
        200: grpc.StatusCode.OK,
        401: grpc.StatusCode.UNAUTHENTICATED,
        403: grpc.StatusCode.PERMISSION_DENIED,
    }[expected_of(name, group)]
    if group == "shared-memory" and expected == grpc.StatusCode.OK:
        assert code in (grpc.StatusCode.OK, grpc.StatusCode.UNIMPLEMENTED)
    else:
        assert code == expected


# --- What is said and told ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    ("Bearer", "Bearer ", "Basic YWxpY2U6", "bearer  KEY ", "Bearer KEYx", "Bearer KEY,KEY", "KEY"),
)
def test_nearly_a_key(guarded, keys, header):
    value = header.replace("KEY", keys[1]["root"])
    good = value.strip().lower().startswith("bearer ") and value.split()[1:] == [keys[1]["root"]]
    answer = guarded.get("/v2", {"Authorization": value})
    assert answer.status == (200 if good else 401)


def test_keys_are_nowhere_but_their_names_are(guarded, keys):
    assert guarded.get("/v2", {"X-Api-Key": keys[1]["alice"]}).status == 200
    assert guarded.get("/v2", {"X-Api-Key": keys[1]["stranger"]}).status == 401
    metrics = guarded.get("/metrics", {"X-Api-Key": keys[1]["root"]}).body.decode()
    guarded.await_("the log", lambda: '"key":"alice"' in guarded.logged())
    shown = guarded.logged() + metrics + open(keys[0]).read()
    assert not any(key in shown for key in keys[1].values())
    assert 'weir_key_calls_total{key="alice"}' in metrics


def test_no_key_is_let_in_by_a_path_of_another_look(guarded):
    for path in ("//v2", "/v2/", "/v2/models/", "/v2/./models/stats", "/v2/models/%73im"):
        assert guarded.get(path).status in (401, 404)


# --- A file that changes --------------------------------------------------------------------------


@pytest.fixture
def changing(repository, tmp_path):
    file = tmp_path / "keys.yaml"
    key = make_key(file, "first")
    words = ("--api-keys", file, "--reload-interval", "50ms")
    with Server(tmp_path, *words, repository) as server:
        server.file, server.key = file, key
        yield server


def status(server, key):
    return server.get("/v2", {"X-Api-Key": key}).status


def test_a_new_key_and_one_that_is_taken_back(changing):
    second = make_key(changing.file, "second")
    changing.await_("the new key", lambda: status(changing, second) == 200)
    assert status(changing, changing.key) == 200
    lines = changing.file.read_text().splitlines(keepends=True)
    left = "".join(line for line in lines if "first" not in line)
    write_whole(changing.file, left.encode())  # An empty file would be one without keys.
    changing.process.send_signal(signal.SIGHUP)
    changing.await_("its end", lambda: status(changing, changing.key) == 401)
    assert status(changing, second) == 200


def test_a_broken_file_changes_nothing(changing):
    changing.file.write_text("- { name: x, hash: nonsense, allow: [all] }\n")
    changing.await_("the log", lambda: "keys not read again" in changing.logged())
    assert "nonsense" not in changing.logged()  # It might have been a key.
    assert status(changing, changing.key) == 200


@pytest.mark.parametrize(
    "text,reason",
    (
        ("- { name: a, hash: secret, allow: [all] }", "hash: expected sha256:"),
        ("- { name: a, allow: [all] }", "either a hash or a certificate"),
        ("- { name: a, certificate: x }", "what to allow"),
        ("- { name: 'a b', certificate: x, allow: [all] }", "name: found 'a b'"),
        ("- { name: a, certificate: x, allow: [everything] }", "allow: found 'everything'"),
        ("- { name: a, certificate: x, allow: [] }", "allow"),
        ("- { name: a, certificate: x, allow: [all], rate: 0 }", "rate"),
        ("- { name: a, certificate: x, allow: [all], colour: red }", "unknown field 'colour'"),
        (2 * "- { name: a, certificate: x, allow: [all] }\n", "the same"),
        ("name: a", "expected a list of keys"),
        ("- a", "expected a map"),
        ("- {", "keys.yaml"),
    ),
)
def test_mistakes_in_the_file_are_told_with_their_line(tmp_path, repository, text, reason):
    file = tmp_path / "keys.yaml"
    file.write_text(text)
    said = fail_to_start("--api-keys", file, repository)
    assert reason in said and "keys.yaml" in said


def fail_to_start(*words):
    done = subprocess.run(
        [BINARY, "serve", "--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
        + [str(word) for word in words],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode != 0
    return done.stderr


# --- Limits of a key ------------------------------------------------------------------------------


def test_limits_of_a_key(repository, tmp_path):
    file = tmp_path / "keys.yaml"
    seldom = make_key(file, "seldom", "--rate", "0.01")
    single = make_key(file, "single", "--concurrency", "1")
    other = make_key(file, "other")
    with Server(tmp_path, "--api-keys", file, repository) as server:
        assert status(server, seldom) == 200
        answer = server.get("/v2", {"X-Api-Key": seldom})
        assert answer.status == 429
        assert 90 < int(answer.headers["Retry-After"]) <= 100
        with Raw(server.port) as waiting:
            head = f"POST /v2/models/sim/infer HTTP/1.1\r\nHost: a\r\nX-Api-Key: {single}\r\n"
            waiting.send(head.encode() + b"Content-Length: 1000\r\n\r\n{")
            server.await_("its begin", lambda: status(server, single) == 429)
            assert server.get("/v2", {"X-Api-Key": single}).headers["Retry-After"] == "1"
            assert status(server, other) == 200
            waiting.reset()
        server.await_("its end", lambda: status(server, single) == 200)


@needs_grpc
def test_the_rate_of_a_key_over_grpc(repository, tmp_path):
    """Who comes too often is told when to come again, by the second, as over REST."""
    file = tmp_path / "keys.yaml"
    words = (("x-api-key", make_key(file, "seldom", "--rate", "0.01")),)
    with Server(tmp_path, "--api-keys", file, repository) as server:
        with grpc.insecure_channel(f"127.0.0.1:{server.ports[1]}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            stub.ServerMetadata(pb.ServerMetadataRequest(), metadata=words)
            with pytest.raises(grpc.RpcError) as caught:
                stub.ServerMetadata(pb.ServerMetadataRequest(), metadata=words)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    trailers = dict(caught.value.trailing_metadata())
    assert 50_000 < int(trailers["grpc-retry-pushback-ms"]) <= 100_000


def numbered(number):
    message = infer_message()
    message.id = str(number)
    return message


@needs_grpc
def test_each_request_of_a_stream_counts_at_the_rate_of_a_key(repository, tmp_path):
    """The first is the call that opened the stream; those refused say so in their response."""
    file = tmp_path / "keys.yaml"
    polite, strict = (
        (("x-api-key", make_key(file, name, "--rate", "0.01")),) for name in ("polite", "strict")
    )
    with Server(tmp_path, "--api-keys", file, "--open-groups", "metrics", repository) as server:
        with grpc.insecure_channel(f"127.0.0.1:{server.ports[1]}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            requests = [numbered(each) for each in range(3)]
            found = list(stub.ModelStreamInfer(iter(requests), metadata=polite))
            assert [bool(each.error_message) for each in found] == [False, True, True]
            assert [each.infer_response.id for each in found] == ["0", "1", "2"]
            assert "limit of calls per second" in found[1].error_message
            metrics = server.get("/metrics").body.decode()
            assert 'weir_key_calls_total{key="polite"} 1\n' in metrics
            assert 'weir_key_refused_total{key="polite"} 2\n' in metrics

            ending = (*strict, ("triton_grpc_error", "true"))
            answers = stub.ModelStreamInfer(iter(requests), metadata=ending)
            assert next(answers).infer_response.id == "0"
            with pytest.raises(grpc.RpcError) as caught:
                next(answers)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    trailers = dict(caught.value.trailing_metadata())
    assert 50_000 < int(trailers["grpc-retry-pushback-ms"]) <= 100_000


@needs_grpc
def test_a_stream_takes_a_place_of_its_key_only_while_a_request_of_it_is_under_way(
    repository, tmp_path
):
    file = tmp_path / "keys.yaml"
    single = make_key(file, "single", "--concurrency", "1")
    messages = queue.Queue()
    with Server(tmp_path, "--api-keys", file, repository) as server:
        with grpc.insecure_channel(f"127.0.0.1:{server.ports[1]}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            stream = iter(messages.get, None)
            answers = stub.ModelStreamInfer(stream, metadata=(("x-api-key", single),))

            def refusal(number):
                messages.put(numbered(number))
                answer = next(answers)
                assert answer.infer_response.id == str(number)
                return answer.error_message

            assert refusal(0) == ""
            assert refusal(1) == ""
            with Raw(server.port) as other:
                head = f"POST /v2/models/sim/infer HTTP/1.1\r\nHost: a\r\nX-Api-Key: {single}\r\n"
                other.send(head.encode() + b"Content-Length: 1000\r\n\r\n{")
                server.await_("its begin", lambda: status(server, single) == 429)
                assert "limit of calls at a time" in refusal(2)
                other.reset()
            server.await_("its end", lambda: refusal(3) == "")
            messages.put(None)
            assert list(answers) == []


# --- Restricted groups, as Triton has them --------------------------------------------------------


@pytest.fixture(scope="module")
def restricted(repository, tmp_path_factory):
    words = ("--http-restricted-api", "model-repository,statistics:admin-key=open sesame")
    words += ("--grpc-restricted-protocol", "model-repository:admin-key=other")
    with Server(tmp_path_factory.mktemp("restricted"), *words, repository) as server:
        yield server


@pytest.mark.parametrize("group", ("model-repository", "statistics"))
def test_restricted_over_rest(restricted, group):
    answer = ask(restricted, group, {})
    assert answer.status == 403
    assert answer.error == "This API is restricted, expecting header 'admin-key'"
    assert ask(restricted, group, {"admin-key": "open sesamE"}).status == 403
    assert ask(restricted, group, {"Admin-Key": "open sesame"}).status == 200
    assert ask(restricted, "metadata", {}).status == 200


@needs_grpc
def test_restricted_over_grpc(restricted):
    with grpc.insecure_channel(f"127.0.0.1:{restricted.ports[1]}") as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        stub.ModelStatistics(pb.ModelStatisticsRequest())
        for metadata in ((), (("admin-key", "other"),), (("triton-grpc-protocol-admin-key", "no"),)):
            with pytest.raises(grpc.RpcError) as error:
                stub.RepositoryIndex(pb.RepositoryIndexRequest(), metadata=metadata)
            assert error.value.code() == grpc.StatusCode.PERMISSION_DENIED
            assert "triton-grpc-protocol-admin-key" in error.value.details()
        right = (("triton-grpc-protocol-admin-key", "other"),)
        stub.RepositoryIndex(pb.RepositoryIndexRequest(), metadata=right)


@pytest.mark.parametrize(
    "text", ("nothing:a=b", "health", "health:a", "health:=b", "health:a=", "health,health:a b=c")
)
def test_mistakes_in_restrictions_are_told(repository, text):
    assert "http_restricted_api" in fail_to_start("--http-restricted-api", text, repository)


# --- Pages of other origins -----------------------------------------------------------------------

PAGE = "https://app.example.org"


@pytest.fixture(scope="module")
def shared(repository, tmp_path_factory):
    with Server(tmp_path_factory.mktemp("shared"), "--cors-origins", PAGE, repository) as server:
        yield server


def preflight(server, origin, path="/v2/models/sim/infer"):
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    return server.ask("OPTIONS", path, None, headers)


def test_a_page_that_may(shared):
    answer = preflight(shared, PAGE)
    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert answer.headers["Access-Control-Allow-Methods"] == "POST"
    assert "authorization" in answer.headers["Access-Control-Allow-Headers"].lower()
    assert "Access-Control-Allow-Credentials" not in answer.headers
    answer = shared.get("/v2", {"Origin": PAGE})
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert answer.headers["Vary"] == "Origin"
    exposed = answer.headers["Access-Control-Expose-Headers"]
    assert "Inference-Header-Content-Length" in exposed
    assert shared.post("/v2/repository/index", b"", {"Origin": PAGE}).status == 200
    failed = shared.get("/v2/models/nobody", {"Origin": PAGE})
    assert failed.status == 404 and failed.headers["Access-Control-Allow-Origin"] == PAGE


@pytest.mark.parametrize(
    "origin", ("https://evil.example.org", PAGE + ".evil.org", "http://app.example.org", "null")
)
def test_a_page_that_may_not(shared, origin):
    answer = preflight(shared, origin)
    assert answer.status == 405 and "Access-Control-Allow-Origin" not in answer.headers
    answer = shared.get("/v2", {"Origin": origin})
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert answer.headers["Vary"] == "Origin"
    assert shared.post("/v2/repository/index", b"", {"Origin": origin}).status == 403


def test_every_page(repository, tmp_path):
    with Server(tmp_path, "--cors-origins", "*", repository) as server:
        assert server.get("/v2", {"Origin": PAGE}).headers["Access-Control-Allow-Origin"] == "*"
        assert preflight(server, PAGE).status == 204
        # That is for models.  Administration wants pages named.
        assert server.post("/v2/repository/index", b"", {"Origin": PAGE}).status == 403


def test_no_page_unless_asked_for(repository, tmp_path):
    with Server(tmp_path, repository) as server:
        assert preflight(server, PAGE).status == 405
        assert "Vary" not in server.get("/v2", {"Origin": PAGE}).headers


def test_an_origin_has_no_path(repository):
    assert "cors_origins" in fail_to_start("--cors-origins", PAGE + "/", repository)
    assert "cors_origins" in fail_to_start("--cors-origins", "app.example.org", repository)


# --- Certificates of clients ----------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_a_certificate_stands_for_a_key(repository, tmp_path):
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.issue("localhost")
    file = tmp_path / "keys.yaml"
    file.write_text("- { name: robot, certificate: robot, allow: [use] }\n")
    words = ("--tls-certificate", certificate, "--tls-key", key, "--api-keys", file)
    words += ("--tls-client-ca", authority.certificate, "--tls-client", "optional")

    def status(path, name=None):
        context = ssl.create_default_context(cafile=authority.certificate)
        if name is not None:
            context.load_cert_chain(*authority.issue(name))
        asking = http.client.HTTPSConnection("localhost", server.port, context=context)
        asking.request("GET", path)
        answer = asking.getresponse().status
        asking.close()
        return answer

    with Server(tmp_path, *words, repository) as server:
        assert status("/v2", "robot") == 200
        assert status("/v2/logging", "robot") == 403
        assert status("/v2", "robota") == 401
        assert status("/v2") == 401
        assert status("/v2/health/live") == 200


# --- weir infer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ((), ("--grpc",)))
def test_weir_infer_sends_its_key(guarded, keys, way):
    url = f"http://127.0.0.1:{guarded.ports[1 if way else 0]}"
    words = [BINARY, "infer", "sim", *way, "--url", url, "--input", "x=" + ",".join("1" * 16)]
    for name, code in (("alice", 0), ("ops", 1), (None, 1)):
        env = {key: value for key, value in os.environ.items() if key != "WEIR_API_KEY"}
        if name is not None:
            env["WEIR_API_KEY"] = keys[1][name]
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.returncode == code, done.stderr
        assert ("key" in done.stderr) == (code == 1)


ANSWERED = r'"target":"/v2/models/slow/\w+".*"key":"(\w+)"'


def test_a_key_goes_no_further_forward_than_it_may(tmp_path):
    """Two requests wait for one slot; the key that may not be urgent waits longer, whatever it asks for."""
    root = tmp_path / "models"
    config = {"max_batch_size": 0, "batching": "off", "instance_group": [{"count": 1}]}
    # The first run after the one at load hangs until it is stopped.
    put_sim(root, "slow", parameters={"hang_at": 2, "tau0": "100ms"}, **config)
    file = tmp_path / "keys.yaml"
    urgent = make_key(file, "urgent")
    patient = make_key(file, "patient", "--priority", "6")
    words = ("--api-keys", file, "--open-groups", "metrics", "--loops", "1", "--access-log")
    with Server(tmp_path, root, *words) as server:
        ended = []

        def ask(name, key, priority):
            body = sim_request(id=name, parameters={"priority": priority})
            ended.append((name, server.infer("slow", body, {"X-Api-Key": key}).status))

        def leases():
            return server.metrics().of_model("weir_model_leases", "slow")

        idle = leases()
        threads = []
        for who in (("runs", urgent, 4), ("patient", patient, 1), ("urgent", urgent, 2)):
            threads.append(threading.Thread(target=ask, args=who))
            threads[-1].start()
            server.await_(f"{who[0]} is there", lambda: leases() == idle + len(threads))
            server.await_("the first one runs", lambda: server.pending("slow") == len(threads) - 1)
        server.post("/v2/models/slow/cancel", {"id": "runs"}, {"X-Api-Key": urgent})
        for thread in threads:
            thread.join()
        assert sorted(ended) == [("patient", 200), ("runs", 499), ("urgent", 200)]
        # One loop's log has them in the order in which they were answered; "runs" and its end are there, too.
        server.await_("the log", lambda: len(re.findall(ANSWERED, server.logged())) == 4)
        assert re.findall(ANSWERED, server.logged())[-2:] == ["urgent", "patient"]
