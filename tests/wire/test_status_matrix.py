"""Whatever a client does wrong, it gets the right status and a sentence that names what was wrong;
the next request is served, nothing stays behind."""

import gzip
import json
import re
import zlib

import numpy as np
import pytest

from serving import Server, binary_request, infer_path, is_sanitized, put_model, put_sim, tensor

JSON_MAX = 1 << 20
BODY_MAX = 2 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("matrix") / "models"
    root.mkdir()
    for name in ("add_sub", "identity_fp32", "identity_fp16", "identity_bytes", "identity_int8"):
        put_model(root, name)
    for name in (
        "identity_bool",
        "identity_uint64",
        "double_it",
        "scalar",
        "join",
        "gather",
        "div",
    ):
        put_model(root, name)
    put_model(root, "small", "identity_int32", max_batch_size=2)
    put_model(root, "insists", "add_sub", max_batch_size=8)
    put_model(root, "twice", "double_it")
    put_sim(root, "streams", parameters={"parts": 3})
    put_sim(root, "broken", parameters={"load_fails": "the device said no"})
    limits = ("--limits.json-bytes-max", JSON_MAX, "--limits.body-bytes-max", BODY_MAX)
    words = ("--model-control", "explicit", "--load-model", "*", "--limits.inflate-ratio-max", "1")
    with Server(root.parent, *words, *limits, root) as server:
        server.unload("twice")
        server.await_("unloaded", lambda: server.state("twice")[0] == "UNAVAILABLE")
        yield server


def request(*inputs, **members):
    return {"inputs": list(inputs), **members}


def fp32(data, shape=None):
    return tensor("x", "FP32", [1, 16] if shape is None else shape, data)


GOOD = list(range(16))
INT32 = [tensor(f"INPUT{i}", "INT32", [1, 16], GOOD) for i in (0, 1)]


def with_binary(size, blob, name="x", datatype="FP32", shape=(1, 16), **members):
    """A binary input that says it has `size` bytes, and the bytes."""
    parameters = {"binary_data_size": size}
    entry = {"name": name, "datatype": datatype, "shape": list(shape), "parameters": parameters}
    text = json.dumps(request(entry, **members)).encode()
    return text + blob, {"Inference-Header-Content-Length": str(len(text))}


def changed(**members):
    """A good request but for these members of its input; None takes one out."""
    entry = {**fp32(GOOD), **members}
    return request({key: value for key, value in entry.items() if value is not None})


def parameters(**values):
    return request(fp32(GOOD), parameters=values)


def outputs(*entries):
    return request(fp32(GOOD), outputs=list(entries))


# --- The table ------------------------------------------------------------------------------------

# One row, one line, however long.
# fmt: off

# (what is wrong, model, body or (body, headers), status, words of the sentence)
INFER = [
    # The text
    ("no body", "identity_fp32", b"", 400, "empty"),
    ("no JSON", "identity_fp32", b"hello", 400, "JSON"),
    ("JSON cut off", "identity_fp32", b'{"inputs":[', 400, "JSON"),
    ("two documents", "identity_fp32", b'{"inputs":[]} {}', 400, "JSON"),
    ("trailing comma", "identity_fp32", b'{"inputs":[],}', 400, "JSON"),
    ("NaN", "identity_fp32", b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[NaN]}]}', 400, "JSON"),
    ("not UTF-8", "identity_fp32", b'{"id":"\xff\xfe","inputs":[]}', 400, "JSON"),
    ("a lone surrogate", "identity_fp32", b'{"id":"\\ud800","inputs":[]}', 400, "JSON"),
    ("too deep", "identity_fp32", b'{"inputs":' + b"[" * 101 + b"]" * 101 + b"}", 400, "level|deep|nest"),
    ("endlessly deep", "identity_fp32", b"[" * 500_000, 400, "JSON|level|deep|nest"),
    ("deep where nobody looks", "identity_fp32", b'{"other":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}", 400, "level|deep|nest"),
    ("an array", "identity_fp32", b"[]", 400, "the request: found an array, expected an object"),
    ("null", "identity_fp32", b"null", 400, "expected an object"),
    # The request
    ("no inputs", "identity_fp32", {}, 400, "'inputs'"),
    ("inputs an object", "identity_fp32", {"inputs": {}}, 400, "'inputs'.*expected an array"),
    ("inputs twice", "identity_fp32", b'{"inputs":[],"inputs":[]}', 400, "'inputs' twice"),
    ("inputs empty", "identity_fp32", request(), 400, r"missing required input\(s\) \['x'\]"),
    ("an input a number", "identity_fp32", request(3), 400, r"inputs\[0\].*expected an object"),
    ("id a number", "identity_fp32", request(fp32(GOOD), id=3), 400, "'id'"),
    ("outputs an object", "identity_fp32", request(fp32(GOOD), outputs={}), 400, "'outputs'"),
    ("parameters an array", "identity_fp32", request(fp32(GOOD), parameters=[]), 400, "'parameters'"),
    # An input
    ("no name", "identity_fp32", changed(name=None), 400, "'name'"),
    ("name a number", "identity_fp32", changed(name=1), 400, "'name'"),
    ("unknown name", "identity_fp32", changed(name="z"), 400, "'z'.*expected 'x'"),
    ("no datatype", "identity_fp32", changed(datatype=None), 400, "'datatype'"),
    ("datatype a number", "identity_fp32", changed(datatype=32), 400, "'datatype'"),
    ("unknown datatype", "identity_fp32", changed(datatype="FP31"), 400, "FP31.*expects 'FP32'"),
    ("another datatype", "identity_fp32", changed(datatype="INT32"), 400, "INT32.*expects 'FP32'"),
    ("no shape", "identity_fp32", changed(shape=None), 400, "'shape'"),
    ("shape a number", "identity_fp32", changed(shape=16), 400, "'shape'"),
    ("shape of texts", "identity_fp32", changed(shape=["1", "16"]), 400, "'shape'"),
    ("shape negative", "identity_fp32", changed(shape=[-1, 16]), 400, "'shape'"),
    ("shape fractional", "identity_fp32", changed(shape=[1.5, 16]), 400, "'shape'"),
    ("shape beyond 64 bits", "identity_fp32", changed(shape=[2**64, 16]), 400, "'shape'"),
    ("shape that overflows", "identity_fp32", changed(shape=[2**60, 16]), 400, "'x'|elements"),
    ("shape too large", "identity_fp32", changed(shape=[2**40, 16]), 400, "'x'|elements"),
    ("shape of 13 dimensions", "identity_fp32", changed(shape=[1] * 13), 400, "dimensions"),
    ("one dimension less", "identity_fp32", changed(shape=[16]), 400, r"'x'.*\[-1,16\].*\[16\]"),
    ("another dimension", "identity_fp32", changed(shape=[1, 15]), 400, r"'x'.*\[-1,16\].*\[1,15\]"),
    ("a scalar with a shape", "scalar", request(tensor("x", "FP32", [1], [1])), 400, "'x'"),
    ("no data", "identity_fp32", changed(data=None), 400, "'data'.*'x'|'x'.*'data'"),
    ("data a number", "identity_fp32", changed(data=1), 400, "'data'.*expected an array"),
    ("data an object", "identity_fp32", changed(data={}), 400, "'data'.*expected an array"),
    ("too few values", "identity_fp32", changed(data=GOOD[1:]), 400, "'x'.*15.*16"),
    ("too many values", "identity_fp32", changed(data=GOOD + [1]), 400, "'x'.*17.*16"),
    ("no values", "identity_fp32", changed(data=[]), 400, "'x'.*0.*16"),
    ("a text among numbers", "identity_fp32", changed(data=GOOD[:15] + ["1"]), 400, "'x'.*string"),
    ("null among numbers", "identity_fp32", changed(data=GOOD[:15] + [None]), 400, "'x'.*null"),
    ("true among numbers", "identity_fp32", changed(data=GOOD[:15] + [True]), 400, "'x'.*true"),
    ("an object among numbers", "identity_fp32", changed(data=GOOD[:15] + [{}]), 400, "'x'.*object"),
    ("beyond FP32", "identity_fp32", changed(data=GOOD[:15] + [1e300]), 400, "'x'.*FP32"),
    ("beyond INT8", "identity_int8", request(tensor("x", "INT8", [1, 4], [1, 2, 3, 128])), 400, "'x'.*-128 to 127"),
    ("fraction for INT8", "identity_int8", request(tensor("x", "INT8", [1, 4], [1, 2, 3, 0.5])), 400, "'x'.*INT8"),
    ("negative for UINT64", "identity_uint64", request(tensor("x", "UINT64", [1, 4], [1, 2, 3, -1])), 400, "'x'.*UINT64"),
    ("number for BOOL", "identity_bool", request(tensor("x", "BOOL", [1, 4], [1, 0, 1, 0])), 400, "'x'.*BOOL"),
    ("number for BYTES", "identity_bytes", request(tensor("x", "BYTES", [1, 4], ["a", "b", "c", 1])), 400, "'x'.*string"),
    ("FP16 in JSON", "identity_fp16", request(tensor("x", "FP16", [1, 4], [1, 2, 3, 4])), 400, "FP16.*x"),
    ("an input twice", "identity_fp32", request(fp32(GOOD), fp32(GOOD)), 400, "'x' already exists"),
    ("an input missing", "add_sub", request(INT32[0]), 400, "missing.*'INPUT1'"),
    ("one input too many", "identity_fp32", request(fp32(GOOD), INT32[0]), 400, "'INPUT0'"),
    ("a key twice", "identity_fp32", b'{"inputs":[{"name":"x","name":"x"}]}', 400, r"inputs\[0\].*'name' twice"),
    ("too many rows", "small", request(tensor("x", "INT32", [3, 4], [1] * 12)), 400, "<= 2 for 'small'"),
    ("no rows", "small", request(tensor("x", "INT32", [0, 4], [])), 400, "batch|row|dimension"),
    ("rows that differ", "insists", request(INT32[0], tensor("INPUT1", "INT32", [2, 16], GOOD * 2)), 400, "leading dimensions differ"),
    # Binary data
    ("data and binary", "identity_fp32", changed(parameters={"binary_data_size": 64}), 400, "'x'.*both|only one"),
    ("size a text", "identity_fp32", changed(parameters={"binary_data_size": "64"}, data=None), 400, "'binary_data_size'"),
    ("size negative", "identity_fp32", changed(parameters={"binary_data_size": -1}, data=None), 400, "'binary_data_size'"),
    ("size and no bytes", "identity_fp32", changed(parameters={"binary_data_size": 64}, data=None), 400, "'x'.*64"),
    ("bytes missing", "identity_fp32", with_binary(64, bytes(63)), 400, "'x'"),
    ("bytes left over", "identity_fp32", with_binary(64, bytes(65)), 400, "additional input data"),
    ("another size", "identity_fp32", with_binary(60, bytes(60)), 400, "'x'.*64.*60|'x'.*60.*64"),
    ("a size beyond all bounds", "identity_fp32", with_binary(2**63, bytes(64)), 400, "'x'"),
    ("strings cut off", "identity_bytes", with_binary(7, bytes(7), datatype="BYTES", shape=(1, 4)), 400, "'x'"),
    ("strings too long", "identity_bytes", with_binary(16, b"\xff" * 16, datatype="BYTES", shape=(1, 4)), 400, "'x'"),
    ("strings too few", "identity_bytes", with_binary(12, bytes(12), datatype="BYTES", shape=(1, 4)), 400, "'x'"),
    ("strings too many", "identity_bytes", with_binary(20, bytes(20), datatype="BYTES", shape=(1, 4)), 400, "'x'"),
    ("header length no number", "identity_fp32", (b"{}", {"Inference-Header-Content-Length": "two"}), 400, "Inference-Header-Content-Length"),
    ("header length negative", "identity_fp32", (b"{}", {"Inference-Header-Content-Length": "-1"}), 400, "Inference-Header-Content-Length"),
    ("header length empty", "identity_fp32", (b"{}", {"Inference-Header-Content-Length": ""}), 400, "Inference-Header-Content-Length|empty|JSON|inputs"),
    ("header length too long", "identity_fp32", (b"{}", {"Inference-Header-Content-Length": "3"}), 400, "Inference-Header-Content-Length.*3"),
    ("header length beyond 64 bits", "identity_fp32", (b"{}", {"Inference-Header-Content-Length": "9" * 30}), 400, "Inference-Header-Content-Length"),
    ("raw body of another size", "identity_fp32", (bytes(60), {"Inference-Header-Content-Length": "0"}), 400, "'x'|64"),
    ("raw body for two inputs", "add_sub", (bytes(64), {"Inference-Header-Content-Length": "0"}), 400, "add_sub"),
    # Outputs
    ("unknown output", "identity_fp32", outputs({"name": "z"}), 400, "'z'.*expected 'y'"),
    ("output without a name", "identity_fp32", outputs({}), 400, r"'name' of outputs\[0\]"),
    ("output twice", "identity_fp32", outputs({"name": "y"}, {"name": "y"}), 400, "'y' already exists"),
    ("binary_data a number", "identity_fp32", outputs({"name": "y", "parameters": {"binary_data": 1}}), 400, "'binary_data'"),
    ("classification negative", "identity_fp32", outputs({"name": "y", "parameters": {"classification": -1}}), 400, "'classification'"),
    ("classification of texts", "identity_bytes", request(tensor("x", "BYTES", [1, 4], ["a"] * 4), outputs=[{"name": "y", "parameters": {"classification": 1}}]), 400, "'y'"),
    ("FP16 out as JSON", "identity_fp16", with_binary(8, bytes(8), datatype="FP16", shape=(1, 4)), 400, "FP16.*'y'"),
    # Parameters
    ("priority a text", "identity_fp32", parameters(priority="high"), 400, "'priority'"),
    ("priority negative", "identity_fp32", parameters(priority=-1), 400, "'priority'"),
    ("timeout a text", "identity_fp32", parameters(timeout="1s"), 400, "'timeout'"),
    ("timeout negative", "identity_fp32", parameters(timeout=-1), 400, "'timeout'"),
    ("binary_data_output a text", "identity_fp32", parameters(binary_data_output="yes"), 400, "'binary_data_output'"),
    ("sequence_start a number", "identity_fp32", parameters(sequence_start=1), 400, "'sequence_start'"),
    ("a parameter null", "identity_fp32", parameters(anything=None), 400, "'anything'"),
    ("a parameter an array", "identity_fp32", parameters(anything=[1]), 400, "'anything'"),
    ("a reserved parameter", "identity_fp32", parameters(triton_enable=True), 400, "'triton_enable'"),
    ("sequence_id negative", "identity_fp32", parameters(sequence_id=-7), 400, "'sequence_id'"),
    ("shared memory in", "identity_fp32", changed(parameters={"shared_memory_region": "r"}, data=None), 501, "shared_memory_region"),
    ("shared memory out", "identity_fp32", outputs({"name": "y", "parameters": {"shared_memory_region": "r"}}), 501, "shared_memory_region"),
    ("deadline no number", "identity_fp32", (json.dumps(request(fp32(GOOD))).encode(), {"Weir-Deadline-Ms": "soon"}), 400, "Weir-Deadline-Ms"),
    ("deadline zero", "identity_fp32", (json.dumps(request(fp32(GOOD))).encode(), {"Weir-Deadline-Ms": "0"}), 400, "Weir-Deadline-Ms"),
    # Bodies
    ("JSON too large", "identity_fp32", b" " * (JSON_MAX + 1), 413, "json_bytes_max|1048576"),
    ("body too large", "identity_fp32", with_binary(BODY_MAX, bytes(BODY_MAX)), 413, "body_bytes_max|2097152"),
    ("JSON part too large", "identity_fp32", (b" " * (JSON_MAX + 8), {"Inference-Header-Content-Length": str(JSON_MAX + 1)}), 413, "json_bytes_max|1048576"),
    ("unknown encoding", "identity_fp32", (b"x", {"Content-Encoding": "br"}), 415, "br"),
    ("two encodings", "identity_fp32", (b"x", {"Content-Encoding": "gzip, deflate"}), 415, "gzip, deflate"),
    ("no gzip", "identity_fp32", (b"{}", {"Content-Encoding": "gzip"}), 400, "gzip"),
    ("gzip cut off", "identity_fp32", (gzip.compress(b"{}")[:-3], {"Content-Encoding": "gzip"}), 400, "gzip"),
    ("gzip with more behind", "identity_fp32", (gzip.compress(b"{}") + b"x", {"Content-Encoding": "gzip"}), 400, "gzip"),
    ("no deflate", "identity_fp32", (b"{}", {"Content-Encoding": "deflate"}), 400, "deflate"),
    ("a bomb", "identity_fp32", (gzip.compress(b" " * (64 << 20)), {"Content-Encoding": "gzip"}), 413, "gzip"),
    ("a bomb in zlib", "identity_fp32", (zlib.compress(b" " * (64 << 20)), {"Content-Encoding": "deflate"}), 413, "deflate"),
    # Models
    ("unknown model", "no_such_model", request(fp32(GOOD)), 404, "'no_such_model' is not found"),
    ("unloaded model", "twice", request(fp32(GOOD)), 404, "'twice'"),
    ("broken model", "broken", request(fp32(GOOD)), 503, "the device said no"),
    ("a model that streams", "streams", request(fp32(GOOD)), 400, "generate_stream"),
    ("model path escapes", "..%2f..%2fetc", request(fp32(GOOD)), 404, "not found"),
    ("model name with NUL", "a%00b", request(fp32(GOOD)), 404, "not found"),
    ("model name hidden", ".hidden", request(fp32(GOOD)), 404, "not found"),
    ("model name too long", "m" * 129, request(fp32(GOOD)), 404, "not found"),
    # What only the model notices
    ("an index out of range", "gather", request(tensor("index", "INT64", [1], [99])), 400, "gather|index|Gather"),
    ("a division by zero", "div", request(tensor("a", "INT32", [1], [1]), tensor("b", "INT32", [1], [0])), 400, "div|Div|zero"),
    ("shapes that do not join", "join", request(tensor("a", "FP32", [1, 2], [1, 2]), tensor("b", "FP32", [1, 3], [1, 2, 3])), 400, "'b'"),
]

# (what is wrong, method, path, body, status, words)
OTHER = [
    ("unknown path", "GET", "/v3", None, 404, "/v3"),
    ("path in capitals", "GET", "/V2/health/live", None, 404, "/V2"),
    ("trailing slash", "GET", "/v2/health/live/", None, 404, "/v2/health/live/"),
    ("long path", "GET", "/" + "x" * 5000, None, 404, "/xxx"),
    ("POST where GET is", "POST", "/v2/health/live", b"", 405, "GET, HEAD"),
    ("GET where POST is", "GET", infer_path("identity_fp32"), None, 405, "POST"),
    ("DELETE", "DELETE", "/v2/models/identity_fp32", None, 405, "GET, HEAD"),
    ("PUT", "PUT", "/v2/logging", b"{}", 405, "GET, HEAD, POST"),
    ("version no number", "GET", "/v2/models/identity_fp32/versions/one", None, 404, "versions/one"),
    ("unknown version", "GET", "/v2/models/identity_fp32/versions/7", None, 404, "version 7"),
    ("version 0", "POST", infer_path("identity_fp32", 0), request(fp32(GOOD)), 404, "version 0|not found"),
    ("version beyond 64 bits", "GET", f"/v2/models/identity_fp32/versions/{2**64}", None, 404, "versions"),
    ("ready of unknown model", "GET", "/v2/models/no_such_model/ready", None, 400, "Model version not ready"),
    ("ready of broken model", "GET", "/v2/models/broken/ready", None, 400, "Model version not ready"),
    ("ready of unloaded model", "GET", "/v2/models/twice/ready", None, 400, "Model version not ready"),
    ("metadata of unknown model", "GET", "/v2/models/no_such_model", None, 404, "no_such_model"),
    ("config of unknown model", "GET", "/v2/models/no_such_model/config", None, 404, "no_such_model"),
    ("config of broken model", "GET", "/v2/models/broken/config", None, 503, "the device said no"),
    ("index of nonsense", "POST", "/v2/repository/index", b"{", 400, "JSON"),
    ("index ready a number", "POST", "/v2/repository/index", {"ready": 1}, 400, "ready"),
    ("load of unknown model", "POST", "/v2/repository/models/no_such_model/load", b"", 404, "no_such_model"),
    ("load of broken model", "POST", "/v2/repository/models/broken/load", b"", 400, "the device said no"),
    ("load that escapes", "POST", "/v2/repository/models/..%2f..%2fetc/load", b"", 400, "names have"),
    ("load from a named repository", "POST", "/v2/repository/one/models/div/load", b"", 501, "'one'"),
    ("load config no text", "POST", "/v2/repository/models/div/load", {"parameters": {"config": {}}}, 400, "'config'"),
    ("load unknown parameter", "POST", "/v2/repository/models/div/load", {"parameters": {"conf": ""}}, 400, "'conf'"),
    ("load of a file", "POST", "/v2/repository/models/div/load", {"parameters": {"file:1/m": ""}}, 501, "file:"),
    ("load of nonsense config", "POST", "/v2/repository/models/div/load", {"parameters": {"config": "{"}}, 400, "config"),
    ("load of wrong config", "POST", "/v2/repository/models/div/load", {"parameters": {"config": '{"max_batch_size":-1}'}}, 400, "max_batch_size"),
    ("load of unsupported config", "POST", "/v2/repository/models/div/load", {"parameters": {"config": '{"sequence_batching":{"iterative_sequence":true}}'}}, 400, "iterative_sequence"),
    ("unload parameter a text", "POST", "/v2/repository/models/div/unload", {"parameters": {"unload_dependents": "no"}}, 400, "unload_dependents"),
    ("logging of nonsense", "POST", "/v2/logging", b"[]", 400, "expected an object"),
    ("logging unknown setting", "POST", "/v2/logging", {"log_warnings": True}, 400, "'log_warnings'"),
    ("logging switch a text", "POST", "/v2/logging", {"log_info": "yes"}, 400, "log_info"),
    ("logging level negative", "POST", "/v2/logging", {"log_verbose_level": -1}, 400, "log_verbose_level"),
    ("logging format unknown", "POST", "/v2/logging", {"log_format": "xml"}, 400, "log_format"),
    ("logging to a file", "POST", "/v2/logging", {"log_file": "/tmp/x"}, 501, "log_file"),
    ("trace on", "POST", "/v2/trace/setting", {"trace_level": ["TIMESTAMPS"]}, 501, "trac"),
    ("trace of unknown model", "GET", "/v2/models/no_such_model/trace/setting", None, 404, "no_such_model"),
    ("shared memory", "POST", "/v2/systemsharedmemory/region/r/register", {"key": "/r"}, 501, "shared memory"),
    ("CUDA shared memory", "GET", "/v2/cudasharedmemory/status", None, 501, "CUDA shared memory"),
    ("generate of nothing", "POST", "/v2/models/identity_fp32/generate", b"", 400, "JSON|empty"),
    ("generate without inputs", "POST", "/v2/models/identity_fp32/generate", {}, 400, "'x'"),
    ("generate of too little", "POST", "/v2/models/identity_fp32/generate", {"x": [1, 2]}, 400, "'x'"),
    ("generate of texts", "POST", "/v2/models/identity_fp32/generate", {"x": ["a"] * 16}, 400, "'x'"),
    ("generate with an object", "POST", "/v2/models/identity_fp32/generate", {"x": GOOD, "z": {}}, 400, "'z'"),
    ("generate, id a number", "POST", "/v2/models/identity_fp32/generate", {"x": GOOD, "id": 1}, 400, "'id'"),
    ("stream of unknown model", "POST", "/v2/models/no_such_model/generate_stream", {}, 404, "no_such_model"),
    ("stream without inputs", "POST", "/v2/models/streams/generate_stream", {}, 400, "'x'"),
]


# fmt: on


def words_of(row):
    return row[0]


def check(server, connection, answer, status, words):
    """The status, the sentence, and a healthy request after it."""
    assert answer.status == status, answer.body
    assert set(answer.json()) == {"error"}
    assert re.search(words, answer.error), answer.error
    assert answer.headers.get("Content-Type") == "application/json"
    assert "Inference-Header-Content-Length" not in answer.headers
    healthy = connection.post(infer_path("identity_fp32"), request(fp32(GOOD)))
    assert healthy.status == 200, healthy.body
    assert healthy.json()["outputs"][0]["data"] == GOOD


@pytest.mark.parametrize("row", INFER, ids=words_of)
def test_infer(server, row):
    _, model, body, status, words = row
    headers = {}
    if isinstance(body, tuple):
        body, headers = body
    with server.connect() as connection:
        answer = connection.post(infer_path(model), body, headers)
        check(server, connection, answer, status, words)


@pytest.mark.parametrize("row", OTHER, ids=words_of)
def test_other(server, row):
    _, method, path, body, status, words = row
    with server.connect() as connection:
        answer = connection.ask(method, path, body)
        check(server, connection, answer, status, words)
        if status == 405:
            assert answer.headers["Allow"] == words


def test_unsupported_encodings_are_told_which_there_are(server):
    answer = server.infer("identity_fp32", b"x", {"Content-Encoding": "br"})
    assert answer.headers["Accept-Encoding"] == "gzip, deflate"


def test_what_is_unavailable_says_when_to_come_again(server):
    answer = server.infer("broken", request(fp32(GOOD)))
    assert (answer.status, int(answer.headers["Retry-After"]) >= 1) == (503, True)


def test_a_web_page_of_another_site_may_not_administer(server):
    """A browser says with Origin where the page comes from."""
    strangers = (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://evil.example", "Host": "evil.example"},
        {"Origin": f"http://{server.address}.evil.example"},
    )
    for headers in strangers:
        for path in ("repository/models/div/unload", "repository/models/div/load", "logging"):
            answer = server.post(f"/v2/{path}", b"{}", headers)
            assert (answer.status, "Origin" in answer.error or "origin" in answer.error) == (
                403,
                True,
            )
    own = {"Origin": f"http://{server.address}", "Host": server.address}
    assert server.post("/v2/repository/index", b"", own).status == 200
    assert server.infer("identity_fp32", request(fp32(GOOD)), strangers[0]).status == 200


def test_a_load_outside_explicit_control_is_a_conflict(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    put_model(root, "div")
    with Server(tmp_path, root) as server:
        for verb in ("load", "unload"):
            answer = server.post(f"/v2/repository/models/div/{verb}")
            assert (answer.status, "explicit" in answer.error) == (409, True)
        assert server.get("/v2/models/div/ready").status == 200


def test_wrong_requests_leave_nothing_behind(server):
    """The whole table some times more: files, memory and what is held stay where they were."""
    rounds = 2 if is_sanitized() else 10

    def go(count):
        with server.connect() as connection:
            for _ in range(count):
                for row in INFER:
                    body, headers = row[2] if isinstance(row[2], tuple) else (row[2], {})
                    assert connection.post(infer_path(row[1]), body, headers).status == row[3], row[
                        0
                    ]
                for _, method, path, body, status, _ in OTHER:
                    assert connection.ask(method, path, body).status == status, path

    go(2)
    leases = server.await_("nothing is held", lambda: leases_at_rest(server))
    files, memory = server.files(), server.memory()
    go(rounds)
    server.await_("files closed", lambda: server.files() <= files)
    if not is_sanitized():
        assert server.memory() - memory < 16 << 20
    server.await_("nothing is held", lambda: leases_at_rest(server) == leases)


def leases_at_rest(server):
    """Of all models; None while something of a request is held, which may be longer than it takes to answer it."""
    metrics = server.metrics()
    leases = [value for (name, _), value in metrics.samples.items() if name == "weir_model_leases"]
    held = metrics.get("weir_http_bodies_bytes") + metrics.get("weir_blocks_used_bytes")
    return leases if held == 0 and len(set(leases)) == 1 else None


def test_no_client_mistake_was_a_server_error(server):
    """503 is for the broken model, 501 for what Weir lacks."""
    values, headers = binary_request({"x": np.zeros((1, 16), np.float32)})
    assert server.infer("identity_fp32", values, headers).status == 200
    codes = {
        dict(labels)["code"]
        for (name, labels) in server.metrics().samples
        if name == "weir_http_responses_total"
    }
    assert {code for code in codes if code >= "500"} <= {"501", "503"}
