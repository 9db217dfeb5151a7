"""Clients' shared memory, with Triton's own client library over REST and gRPC, and with hostile keys, ranges and
objects that shrink under the server."""

import json
import os
import subprocess
import tempfile
import threading
import uuid

import numpy as np
import pytest

from serving import Server, put_model, put_sim, sim_request, tensor

http = pytest.importorskip("tritonclient.http")
shared_memory = pytest.importorskip("tritonclient.utils.shared_memory")
from tritonclient.utils import InferenceServerException, serialize_byte_tensor  # noqa: E402

try:
    import tritonclient.grpc as grpc
except (ImportError, RuntimeError):  # Installed without.
    grpc = None

PREFIX = f"test.{uuid.uuid4().hex}."
SIZE = 64
A = np.arange(16, dtype=np.int32)
B = np.full(16, 5, dtype=np.int32)
SYSTEM = "/v2/systemsharedmemory"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    scratch = tmp_path_factory.mktemp("shared")
    root = scratch / "models"
    root.mkdir()
    put_model(root, "add_sub")
    put_model(root, "identity_bytes")
    put_model(root, "identity_fp32")
    put_sim(root, "slow", parameters={"tau0": "1200ms", "inputs": "x:FP32[-1,16]",
                                      "outputs": "y:FP32[-1,16]"}, instances=1)
    # What one loop holds of a request when it answers another one, it has put in line.
    with Server(scratch, root, "--loops", "1", "--shared-memory", PREFIX) as started:
        yield started


@pytest.fixture(params=["http", pytest.param("grpc", marks=pytest.mark.skipif(
    grpc is None, reason="no gRPC client"))])
def protocol(request, server):
    kind = http if request.param == "http" else grpc
    with kind.InferenceServerClient(f"127.0.0.1:{server.ports[kind is grpc]}") as client:
        yield kind, client
        client.unregister_system_shared_memory()


@pytest.fixture
def objects():
    made = []

    def make(name, size):
        made.append(shared_memory.create_shared_memory_region(name, PREFIX + name, size))
        return made[-1]

    yield make
    for handle in made:
        shared_memory.destroy_shared_memory_region(handle)


def add_sub(kind, client, region="data", wanted_size=SIZE):
    inputs = [kind.InferInput(f"INPUT{i}", [1, 16], "INT32") for i in (0, 1)]
    outputs = [kind.InferRequestedOutput(f"OUTPUT{i}") for i in (0, 1)]
    for i in (0, 1):
        inputs[i].set_shared_memory(region, SIZE, offset=i * SIZE)
        outputs[i].set_shared_memory(region, wanted_size, offset=(2 + i) * SIZE)
    return client.infer("add_sub", inputs, outputs=outputs)


def test_tensors_go_there_and_back(protocol, objects):
    kind, client = protocol
    handle = objects("data", 4 * SIZE)
    shared_memory.set_shared_memory_region(handle, [A, B])
    client.register_system_shared_memory("data", "/" + PREFIX + "data", 4 * SIZE)
    result = add_sub(kind, client)
    assert result.get_output("OUTPUT1") is not None
    assert (shared_memory.get_contents_as_numpy(handle, np.int32, [16], 2 * SIZE) == A + B).all()
    assert (shared_memory.get_contents_as_numpy(handle, np.int32, [16], 3 * SIZE) == A - B).all()

    # One tensor here, one in the answer.
    inputs = [kind.InferInput(f"INPUT{i}", [1, 16], "INT32") for i in (0, 1)]
    inputs[0].set_shared_memory("data", SIZE)
    inputs[1].set_data_from_numpy(B.reshape(1, 16))
    outputs = [kind.InferRequestedOutput(f"OUTPUT{i}") for i in (0, 1)]
    outputs[0].set_shared_memory("data", SIZE, offset=2 * SIZE)
    result = client.infer("add_sub", inputs, outputs=outputs)
    assert (result.as_numpy("OUTPUT1") == A - B).all()


def test_texts(protocol, objects):
    kind, client = protocol
    handle = objects("texts", 256)
    texts = np.array([b"one", b"", b"three", "vier".encode()], dtype=object)
    packed = np.array(serialize_byte_tensor(texts).item(), dtype=object)
    shared_memory.set_shared_memory_region(handle, [packed])
    client.register_system_shared_memory("texts", PREFIX + "texts", 256)
    item = kind.InferInput("x", [1, 4], "BYTES")
    item.set_shared_memory("texts", sum(4 + len(text) for text in texts))
    assert client.infer("identity_bytes", [item]).as_numpy("y").ravel().tolist() == list(texts)
    item.set_shared_memory("texts", 9)
    with pytest.raises(InferenceServerException, match="input 'x'"):
        client.infer("identity_bytes", [item])


def test_status(server, protocol, objects):
    kind, client = protocol
    objects("one", 100)
    client.register_system_shared_memory("r1", PREFIX + "one", 60, offset=40)
    client.register_system_shared_memory("r2", PREFIX + "one", 100)
    if kind is http:
        listed = {item["name"]: item for item in client.get_system_shared_memory_status()}
        assert listed["r1"] == {"name": "r1", "key": PREFIX + "one", "offset": 40, "byte_size": 60}
        assert len(client.get_system_shared_memory_status("r2")) == 1
    else:
        listed = client.get_system_shared_memory_status().regions
        assert listed["r1"].offset == 40 and listed["r1"].key == PREFIX + "one"
        assert set(client.get_system_shared_memory_status("r2").regions) == {"r2"}
    assert len(listed) == 2
    with pytest.raises(InferenceServerException, match="r3"):
        client.get_system_shared_memory_status("r3")
    with pytest.raises(InferenceServerException, match="already"):
        client.register_system_shared_memory("r1", PREFIX + "one", 10)
    metrics = server.get("/metrics").body.decode()
    assert "\nweir_shared_memory_regions 2\n" in metrics
    assert "\nweir_shared_memory_bytes 160\n" in metrics
    client.unregister_system_shared_memory("r1")
    client.unregister_system_shared_memory("r1")  # An unknown one is fine.
    client.unregister_system_shared_memory()
    assert not (client.get_system_shared_memory_status() if kind is http
                else client.get_system_shared_memory_status().regions)


def test_ranges(protocol, objects):
    kind, client = protocol
    objects("data", 4 * SIZE)
    with pytest.raises(InferenceServerException, match="256 bytes"):
        client.register_system_shared_memory("data", PREFIX + "data", 4 * SIZE, offset=1)
    with pytest.raises(InferenceServerException, match="2\\^63"):
        client.register_system_shared_memory("data", PREFIX + "data", 2**63, offset=2**63)
    client.register_system_shared_memory("data", PREFIX + "data", 4 * SIZE)
    item = kind.InferInput("INPUT0", [1, 16], "INT32")
    other = kind.InferInput("INPUT1", [1, 16], "INT32")
    other.set_shared_memory("data", SIZE)
    for size, offset, sentence in (
        (SIZE, 4 * SIZE, "invalid offset"),
        (SIZE, 4 * SIZE - 1, "invalid offset"),
        (SIZE, 2**63 - 1, "invalid offset"),
        (2**63 - 1, SIZE, "invalid offset"),
        (SIZE - 4, 0, "byte size mismatch"),
        (2 * SIZE, 0, "byte size mismatch"),
    ):
        item.set_shared_memory("data", size, offset=offset)
        with pytest.raises(InferenceServerException, match=sentence):
            client.infer("add_sub", [item, other])
    with pytest.raises(InferenceServerException, match="at least 64 bytes"):
        add_sub(kind, client, wanted_size=SIZE - 1)
    item.set_shared_memory("nowhere", SIZE)
    with pytest.raises(InferenceServerException, match="unable to find shared memory region"):
        client.infer("add_sub", [item, other])


def test_an_object_that_shrinks(protocol, objects):
    kind, client = protocol
    handle = objects("data", 4 * SIZE)
    shared_memory.set_shared_memory_region(handle, [A, B])
    client.register_system_shared_memory("data", PREFIX + "data", 4 * SIZE)
    path = "/dev/shm/" + PREFIX + "data"
    os.truncate(path, 3 * SIZE)  # Its last output has no place any more.
    with pytest.raises(InferenceServerException, match="shorter than when it was registered"):
        add_sub(kind, client)
    os.truncate(path, SIZE)
    with pytest.raises(InferenceServerException, match="shorter than when it was registered"):
        add_sub(kind, client)
    assert os.stat(path).st_size == SIZE  # The server has not made it longer again.
    os.truncate(path, 4 * SIZE)
    add_sub(kind, client)


def test_a_region_in_use_stays(server, protocol, objects):
    kind, client = protocol
    handle = objects("data", 2 * SIZE)
    values = np.arange(16, dtype=np.float32)
    shared_memory.set_shared_memory_region(handle, [values])
    client.register_system_shared_memory("data", PREFIX + "data", 2 * SIZE)
    item = kind.InferInput("x", [1, 16], "FP32")
    item.set_shared_memory("data", SIZE)
    wanted = kind.InferRequestedOutput("y")
    wanted.set_shared_memory("data", SIZE, offset=SIZE)
    # Who waits in the model's line holds its regions; who runs is not counted there.
    first = threading.Thread(target=server.infer, args=("slow", sim_request()))
    first.start()
    server.await_("the first one runs", lambda: leases(server, "slow") > leases(server, "add_sub"))
    server.await_("it has left the line", lambda: server.pending("slow") == 0)
    if kind is http:
        running = client.async_infer("slow", [item], outputs=[wanted])
        wait = running.get_result
    else:
        ended = []
        client.async_infer("slow", [item], lambda result, error: ended.append(error),
                           outputs=[wanted])

        def wait():
            while not ended:
                client.is_server_live()
            assert ended == [None]

    server.await_("the second one is in line", lambda: server.pending("slow") == 1)
    client.unregister_system_shared_memory("data")
    wait()
    first.join()
    assert (shared_memory.get_contents_as_numpy(handle, np.float32, [16], SIZE) == values).all()
    with pytest.raises(InferenceServerException, match="unable to find"):
        client.infer("slow", [item])


def leases(server, model):
    """Who keeps the model loaded."""
    return server.metrics().of_model("weir_model_leases", model)


@pytest.mark.parametrize("key, status", [
    ("/../etc/passwd", 400), ("../etc/passwd", 400), ("/etc/passwd", 400), ("a/b", 400), ("", 400),
    ("/", 400), (".", 400), ("..", 400), (".hidden", 400), ("//x", 400), ("x" * 256, 400),
    ("with\nline", 400), ("nul\0", 400), ("back\\slash", 400), ("\u00e4", 400),
    ("triton_python_backend_shm_region_1", 400), ("sem.lock", 400), ("PostgreSQL.1", 403),
    ("other", 403), (PREFIX + "missing", 400),
])
def test_keys(server, key, status):
    answer = server.post(f"{SYSTEM}/region/r/register", json.dumps({"key": key, "byte_size": 1}))
    assert answer.status == status, answer.body
    assert answer.error


@pytest.mark.parametrize("kind", ["symlink", "hard link", "fifo", "folder"])
def test_objects_that_are_none(server, kind, tmp_path):
    path = "/dev/shm/" + PREFIX + "trick"
    target = "/dev/shm/" + PREFIX + "target"
    with open(target, "wb") as file:
        file.write(bytes(100))
    try:
        if kind == "symlink":
            os.symlink("/etc/passwd", path)
        elif kind == "hard link":
            os.link(target, path)
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            os.mkdir(path)
        answer = server.post(f"{SYSTEM}/region/r/register",
                             json.dumps({"key": PREFIX + "trick", "byte_size": 1}))
        assert answer.status in (400, 403), answer.body
    finally:
        os.rmdir(path) if kind == "folder" else os.unlink(path)
        os.unlink(target)


@pytest.mark.parametrize("body", [
    "", "{}", "[]", '{"key":1,"byte_size":1}', '{"key":"x"}', '{"key":"x","byte_size":-1}',
    '{"key":"x","byte_size":"1"}', '{"key":"x","byte_size":1,"offset":-1}',
    '{"key":"x","byte_size":0}', '{"key":"x","byte_size":18446744073709551615,"offset":1}',
])
def test_malformed_registrations(server, body):
    answer = server.post(f"{SYSTEM}/region/r/register", body)
    assert answer.status == 400, answer.body


def test_json_mistakes(server, objects):
    objects("data", 4 * SIZE)
    answer = server.post(f"{SYSTEM}/region/data/register",
                         json.dumps({"key": PREFIX + "data", "byte_size": 4 * SIZE}))
    assert answer.status == 200 and answer.body == b""
    good = {"shared_memory_region": "data", "shared_memory_byte_size": SIZE}
    other = tensor("INPUT1", "INT32", [1, 16], B.ravel().tolist())

    def infer(parameters, output=None, **more):
        body = {"inputs": [{"name": "INPUT0", "datatype": "INT32", "shape": [1, 16],
                            "parameters": parameters, **more}, other]}
        if output is not None:
            body["outputs"] = [{"name": "OUTPUT0", "parameters": output}]
        return server.post("/v2/models/add_sub/infer", json.dumps(body))

    assert infer(good).status == 200
    for answer in (
        infer({**good, "shared_memory_region": 7}),
        infer({**good, "shared_memory_offset": -1}),
        infer({**good, "shared_memory_byte_size": 64.5}),
        infer({"shared_memory_region": "data"}),
        infer(good, data=[0] * 16),
        infer({**good, "binary_data_size": 64}),
        infer(good, {**good, "binary_data": True}),
        infer(good, {**good, "classification": 2}),
        infer(good, {**good, "shared_memory_byte_size": 8}),
    ):
        assert answer.status == 400, answer.body
    server.post(f"{SYSTEM}/unregister")


def test_nothing_is_left(server):
    for what in ("regions", "inputs_bytes"):
        name = f"weir_shared_memory_{what}"
        server.await_(f"no {what}", lambda: server.metrics().get(name) == 0)


def test_metadata_says_so(server):
    assert "system_shared_memory" in server.get("/v2").json()["extensions"]
    assert "cuda_shared_memory" not in server.get("/v2").json()["extensions"]


def test_cuda(server):
    with http.InferenceServerClient(server.address) as client:
        client.unregister_cuda_shared_memory()  # What perf_analyzer begins with.
        assert client.get_cuda_shared_memory_status() == []
    answer = server.post("/v2/cudasharedmemory/region/r/register", "{}")
    assert answer.status == 501 and "CUDA" in answer.error


def test_it_is_off_unless_asked_for(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    put_model(root, "identity_fp32")
    with Server(tmp_path, root) as server:
        for path in ("/status", "/unregister", "/region/r/register"):
            method = "GET" if path == "/status" else "POST"
            answer = server.ask(method, SYSTEM + path, None if method == "GET" else "{}")
            assert answer.status == 501 and "shared_memory" in answer.error
        assert "system_shared_memory" not in server.get("/v2").json()["extensions"]
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 16], "parameters": {
            "shared_memory_region": "r", "shared_memory_byte_size": 64}}]}
        answer = server.post("/v2/models/identity_fp32/infer", json.dumps(body))
        assert answer.status == 501


ASK_BY_UNIX_SOCKET = """
import socket, sys
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
body = sys.argv[2].encode()
client.sendall(b"POST /v2/systemsharedmemory/region/r/register HTTP/1.1\\r\\nHost: localhost\\r\\n"
               b"Connection: close\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(body), body))
print(client.makefile().read())
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs a second user")
def test_over_a_unix_socket_only_what_is_the_clients(tmp_path, objects):
    root = tmp_path / "models"
    root.mkdir()
    objects("mine", 100)
    with tempfile.TemporaryDirectory() as folder, Server(
            tmp_path, root, "--shared-memory", PREFIX, "--unix-socket", f"{folder}/s") as server:
        os.chmod(folder, 0o755)
        os.chmod(f"{folder}/s", 0o777)

        def ask(user):
            body = json.dumps({"key": PREFIX + "mine", "byte_size": 1})
            return subprocess.run(["python3", "-c", ASK_BY_UNIX_SOCKET, f"{folder}/s", body],
                                  user=user, capture_output=True, text=True, check=True).stdout

        refused = ask(65534)
        assert refused.startswith("HTTP/1.1 403") and "another user's" in refused
        os.chown("/dev/shm/" + PREFIX + "mine", 65534, 65534)
        assert ask(65534).startswith("HTTP/1.1 200")
        assert server.get(f"{SYSTEM}/status").json()[0]["key"] == PREFIX + "mine"
