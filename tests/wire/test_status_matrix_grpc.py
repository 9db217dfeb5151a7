"""Whatever a client does wrong, gRPC says so with the code that belongs to REST's status, and in the same words; never
INTERNAL, never UNKNOWN."""

import json

import pytest

from serving import PATIENCE_S, Server, infer_path, put_model, put_sim, tensor

grpc = pytest.importorskip("grpc")
service_pb2 = pytest.importorskip("tritonclient.grpc.service_pb2")
service_pb2_grpc = pytest.importorskip("tritonclient.grpc.service_pb2_grpc")

# Status of REST -> codes of gRPC that say the same.
CODES = {400: {"INVALID_ARGUMENT"}, 404: {"NOT_FOUND"}, 409: {"FAILED_PRECONDITION"}, 413: {"RESOURCE_EXHAUSTED"},
         501: {"UNIMPLEMENTED"}, 503: {"UNAVAILABLE"}, 504: {"DEADLINE_EXCEEDED"}}
CONTENTS = {"BOOL": "bool_contents", "INT8": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
            "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents",
            "BYTES": "bytes_contents", "FP16": "fp32_contents", "FP31": "fp32_contents", "": "fp32_contents"}
GOOD = [float(value) for value in range(16)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("matrix") / "models"
    root.mkdir()
    for name in ("add_sub", "identity_fp32", "identity_int8", "identity_bytes", "identity_fp16", "gather"):
        put_model(root, name)
    put_model(root, "small", "identity_int32", max_batch_size=2)
    put_model(root, "insists", "add_sub", max_batch_size=8)
    put_sim(root, "streams", parameters={"parts": 3})
    put_sim(root, "slow", parameters={"tau0": "300ms"})
    put_sim(root, "broken", parameters={"load_fails": "the device said no"})
    words = ("--model-control", "explicit", "--load-model", "*", "--limits.body-bytes-max", 2 << 20)
    with Server(root.parent, *words, root) as server:
        yield server


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.address, [("grpc.max_send_message_length", -1)]) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def set_parameters(target, values):
    for key, value in (values or {}).items():
        kind = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}[type(value)]
        setattr(target[key], kind, value)


def message(model, body, version=""):
    """The same request as REST's JSON, with typed contents."""
    made = service_pb2.ModelInferRequest(model_name=model, model_version=version, id=body.get("id", ""))
    set_parameters(made.parameters, body.get("parameters"))
    for entry in body.get("inputs", []):
        datatype = entry.get("datatype", "")
        one = made.inputs.add(name=entry.get("name", ""), datatype=datatype, shape=entry.get("shape", []))
        set_parameters(one.parameters, entry.get("parameters"))
        if "data" in entry:
            data = [v.encode() if isinstance(v, str) else v for v in entry["data"]]
            getattr(one.contents, CONTENTS[datatype]).extend(data)
    for entry in body.get("outputs", []):
        one = made.outputs.add(name=entry.get("name", ""))
        set_parameters(one.parameters, entry.get("parameters"))
    return made


def fp32(data=GOOD, shape=(1, 16), **members):
    return {**tensor("x", "FP32", list(shape), data), **members}


def request(*inputs, **members):
    return {"inputs": list(inputs), **members}


INT32 = [tensor(f"INPUT{i}", "INT32", [1, 16], list(range(16))) for i in (0, 1)]

# One row, one line, however long.
# fmt: off

# (what is wrong, model, version, request, REST's status); gRPC has to say the same.
BOTH = [
    ("unknown model", "nobody", "", request(fp32()), 404),
    ("unknown version", "identity_fp32", "7", request(fp32()), 404),
    ("a name with a dot in front", ".hidden", "", request(fp32()), 404),
    ("no inputs", "identity_fp32", "", request(), 400),
    ("unknown input", "identity_fp32", "", request(fp32(name="z")), 400),
    ("an input twice", "identity_fp32", "", request(fp32(), fp32()), 400),
    ("an input missing", "add_sub", "", request(INT32[0]), 400),
    ("one input too many", "identity_fp32", "", request(fp32(), INT32[0]), 400),
    ("another datatype", "identity_fp32", "", request(tensor("x", "INT32", [1, 16], list(range(16)))), 400),
    ("unknown datatype", "identity_fp32", "", request(fp32(datatype="FP31")), 400),
    ("negative shape", "identity_fp32", "", request(fp32(shape=(-1, 16))), 400),
    ("shape that overflows", "identity_fp32", "", request(fp32(shape=(2**60, 16))), 400),
    ("shape too large", "identity_fp32", "", request(fp32(shape=(2**40, 16))), 400),
    ("13 dimensions", "identity_fp32", "", request(fp32(shape=[1] * 13)), 400),
    ("one dimension less", "identity_fp32", "", request(fp32(shape=(16,))), 400),
    ("another dimension", "identity_fp32", "", request(fp32(GOOD[:15], (1, 15))), 400),
    ("too few values", "identity_fp32", "", request(fp32(GOOD[1:])), 400),
    ("too many values", "identity_fp32", "", request(fp32(GOOD + [1.0])), 400),
    ("beyond INT8", "identity_int8", "", request(tensor("x", "INT8", [1, 4], [1, 2, 3, 128])), 400),
    ("too many rows", "small", "", request(tensor("x", "INT32", [3, 4], [1] * 12)), 400),
    ("no rows", "small", "", request(tensor("x", "INT32", [0, 4], [])), 400),
    ("rows that differ", "insists", "", request(INT32[0], tensor("INPUT1", "INT32", [2, 16], list(range(32)))), 400),
    ("unknown output", "identity_fp32", "", request(fp32(), outputs=[{"name": "z"}]), 400),
    ("an output twice", "identity_fp32", "", request(fp32(), outputs=[{"name": "y"}, {"name": "y"}]), 400),
    ("classification negative", "identity_fp32", "", request(fp32(), outputs=[{"name": "y", "parameters": {"classification": -1}}]), 400),
    ("classification of texts", "identity_bytes", "", request(tensor("x", "BYTES", [1, 4], ["a"] * 4), outputs=[{"name": "y", "parameters": {"classification": 1}}]), 400),
    ("priority a text", "identity_fp32", "", request(fp32(), parameters={"priority": "high"}), 400),
    ("priority negative", "identity_fp32", "", request(fp32(), parameters={"priority": -1}), 400),
    ("timeout a text", "identity_fp32", "", request(fp32(), parameters={"timeout": "1s"}), 400),
    ("timeout negative", "identity_fp32", "", request(fp32(), parameters={"timeout": -1}), 400),
    ("sequence_start a number", "identity_fp32", "", request(fp32(), parameters={"sequence_start": 1}), 400),
    ("sequence_id negative", "identity_fp32", "", request(fp32(), parameters={"sequence_id": -7}), 400),
    ("a reserved parameter", "identity_fp32", "", request(fp32(), parameters={"triton_enable": True}), 400),
    ("a region nobody registered, in", "identity_fp32", "", request({"name": "x", "datatype": "FP32", "shape": [1, 16], "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 64}}), 501),
    ("a region nobody registered, out", "identity_fp32", "", request(fp32(), outputs=[{"name": "y", "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 64}}]), 501),
    ("an index that the model refuses", "gather", "", None, 400),
    ("a model that did not load", "broken", "", request(fp32()), 503),
    ("a time-out of the client's", "slow", "", request(fp32(), parameters={"timeout": 20_000}), 504),
]

# What the two formats say each in its own words.
OWN_WORDS = {"a name with a dot in front", "negative shape", "13 dimensions", "classification negative", "beyond INT8",
             "a region nobody registered, in", "a region nobody registered, out"}
# What depends on how far a request has come.
TOO_LATE = {"the deadline had passed when the request arrived", "the deadline passed while waiting",
            "deadline passed while the model was running"}

# (what is wrong, call, its message, REST's way, REST's status)
CALLS = [
    ("metadata of nobody", "ModelMetadata", {"name": "nobody"}, ("GET", "/v2/models/nobody"), 404),
    ("metadata of no version", "ModelMetadata", {"name": "add_sub", "version": "9"}, ("GET", "/v2/models/add_sub/versions/9"), 404),
    ("configuration of nobody", "ModelConfig", {"name": "nobody"}, ("GET", "/v2/models/nobody/config"), 404),
    ("configuration of a strange name", "ModelConfig", {"name": "a%2Fb"}, None, 404),
    ("statistics of nobody", "ModelStatistics", {"name": "nobody"}, ("GET", "/v2/models/nobody/stats"), None),
    ("load of nobody", "RepositoryModelLoad", {"model_name": "nobody"}, ("POST", "/v2/repository/models/nobody/load"), None),
    ("load of what fails", "RepositoryModelLoad", {"model_name": "broken"}, ("POST", "/v2/repository/models/broken/load"), None),
    ("load of a strange name", "RepositoryModelLoad", {"model_name": "../etc"}, None, 400),
    ("load from a named repository", "RepositoryModelLoad", {"repository_name": "r", "model_name": "add_sub"}, ("POST", "/v2/repository/r/models/add_sub/load"), 501),
    ("index of a named repository", "RepositoryIndex", {"repository_name": "r"}, ("POST", "/v2/repository/r/index"), 501),
    ("unload of a strange name", "RepositoryModelUnload", {"model_name": "a/b"}, None, 400),
    ("trace of nobody", "TraceSetting", {"model_name": "nobody"}, ("GET", "/v2/models/nobody/trace/setting"), 404),
    ("system memory while it is off", "SystemSharedMemoryStatus", {}, ("GET", "/v2/systemsharedmemory/status"), 501),
    ("registering it", "SystemSharedMemoryRegister", {"name": "r", "key": "/k", "byte_size": 64}, None, 501),
    ("unregistering it", "SystemSharedMemoryUnregister", {"name": "r"}, ("POST", "/v2/systemsharedmemory/region/r/unregister"), 501),
    ("CUDA memory", "CudaSharedMemoryStatus", {}, ("GET", "/v2/cudasharedmemory/status"), 501),
    ("registering CUDA memory", "CudaSharedMemoryRegister", {"name": "r", "raw_handle": b"h", "byte_size": 64}, None, 501),
    ("no name to register", "CudaSharedMemoryRegister", {}, None, 400),
]
# fmt: on


def fails(call, *arguments, **options):
    with pytest.raises(grpc.RpcError) as raised:
        call(*arguments, timeout=PATIENCE_S, **options)
    return raised.value.code().name, raised.value.details()


@pytest.mark.parametrize("what, model, version, body, status", BOTH, ids=[row[0] for row in BOTH])
def test_inference(server, stub, what, model, version, body, status):
    if body is None:
        body = request(tensor("indices", "INT64", [1, 1], [99]))
    path = infer_path(model, version or None)
    rest = server.post(path, json.dumps(body).encode())
    code, text = fails(stub.ModelInfer, message(model, body, version))
    assert code in CODES[rest.status], (rest.status, rest.error, code, text)
    assert rest.status == status or (rest.status, code) == (400, "INVALID_ARGUMENT"), (rest.status, rest.error)
    same = text == rest.error or {text, rest.error} <= TOO_LATE
    assert same or what in OWN_WORDS or "'data'" in rest.error


@pytest.mark.parametrize("what, name, fields, rest_way, status", CALLS, ids=[row[0] for row in CALLS])
def test_calls(server, stub, what, name, fields, rest_way, status):
    made = getattr(service_pb2, f"{name}Request")(**fields)
    code, text = fails(getattr(stub, name), made)
    if rest_way is None:
        assert code in CODES[status], (code, text)
        return
    rest = server.ask(*rest_way)
    assert code in CODES[rest.status] and rest.status == (status or rest.status), (rest.status, rest.error, code)
    assert text == rest.error


def typed(shape=(1, 16), **contents):
    made = service_pb2.ModelInferRequest(model_name="identity_fp32")
    one = made.inputs.add(name="x", datatype="FP32", shape=shape)
    for name, values in contents.items():
        getattr(one.contents, name).extend(values)
    return made


def raw(*blobs, model="identity_fp32", datatype="FP32", shape=(1, 16)):
    made = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=blobs)
    made.inputs.add(name="x", datatype=datatype, shape=shape)
    return made


def both_kinds():
    made = typed(fp32_contents=GOOD)
    made.raw_input_contents.append(bytes(64))
    return made


# What only gRPC can say.
MESSAGES = [
    ("values of another kind", typed(int64_contents=range(16)), "INVALID_ARGUMENT"),
    ("values of two kinds", typed(fp32_contents=GOOD, int_contents=[1]), "INVALID_ARGUMENT"),
    ("raw and typed values", both_kinds(), "INVALID_ARGUMENT"),
    ("raw of another size", raw(bytes(60)), "INVALID_ARGUMENT"),
    ("raw twice", raw(bytes(64), bytes(64)), "INVALID_ARGUMENT"),
    ("no values at all", raw(), "INVALID_ARGUMENT"),
    ("strings cut off", raw(bytes(7), model="identity_bytes", datatype="BYTES", shape=(1, 4)), "INVALID_ARGUMENT"),
    ("strings too long", raw(b"\xff" * 16, model="identity_bytes", datatype="BYTES", shape=(1, 4)), "INVALID_ARGUMENT"),
    ("strings too few", raw(bytes(12), model="identity_bytes", datatype="BYTES", shape=(1, 4)), "INVALID_ARGUMENT"),
    ("a version that is no number", service_pb2.ModelInferRequest(model_name="add_sub", model_version="one"), "INVALID_ARGUMENT"),
    ("a version of zero", service_pb2.ModelInferRequest(model_name="add_sub", model_version="0"), "INVALID_ARGUMENT"),
    ("no model", service_pb2.ModelInferRequest(), "NOT_FOUND INVALID_ARGUMENT"),
    ("a message too large", raw(bytes(3 << 20), shape=(49152, 16)), "RESOURCE_EXHAUSTED"),
    ("a model that answers in parts", service_pb2.ModelInferRequest(model_name="streams"), "UNIMPLEMENTED INVALID_ARGUMENT"),
]


@pytest.mark.parametrize("what, made, codes", MESSAGES, ids=[row[0] for row in MESSAGES])
def test_messages(stub, what, made, codes):
    code, text = fails(stub.ModelInfer, made)
    assert code in codes.split() and text, (code, text)


def test_afterwards_all_is_well(stub):
    answer = stub.ModelInfer(typed(fp32_contents=GOOD), timeout=PATIENCE_S)
    assert len(answer.raw_output_contents[0]) == 64


def test_the_table_is_long_enough():
    assert len(BOTH) + len(CALLS) + len(MESSAGES) >= 60
