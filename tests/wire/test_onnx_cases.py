"""Weir answers the ONNX project's backend cases as ONNX Runtime does, by REST in binary and in JSON,
by gRPC with raw and with typed contents; and the four answers are the same to the bit.

tests/data/onnx_cases_VERSION.md lists the cases that do not pass, each under its reason, for each
version of the cases that a Debian has; the list is checked both ways.
"""

import collections
import concurrent.futures
import functools
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import threading

import pytest

import onnx_cases

grpc = pytest.importorskip("grpc")
onnx_cases_grpc = pytest.importorskip("onnx_cases_grpc")
from tritonclient.grpc import service_pb2_grpc  # noqa: E402

LISTS = pathlib.Path(__file__).parent.parent / "data"
PASS_MIN = {"1.12": 960, "1.17": 1225}
CLIENTS = 4
TIMEOUT_S = 60

pytestmark = pytest.mark.skipif(
    not onnx_cases.ROOT.is_dir(), reason=f"needs Debian's package {onnx_cases.PACKAGE}"
)

Reason = collections.namedtuple("Reason", "seen everywhere")


@functools.cache
def version():
    """Of the cases: 1.12 with Debian 12, 1.17 with Debian 13."""
    query = ("dpkg-query", "--show", "--showformat", "${source:Upstream-Version}", onnx_cases.PACKAGE)
    found = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    return ".".join(found.split(".")[:2])


def read_list():
    """Case to reason: `seen` stands in what the case ends with, on every machine or on some."""
    listed = {}
    reason = None
    path = LISTS / f"onnx_cases_{version()}.md"
    assert path.is_file(), f"no list of what fails of {onnx_cases.PACKAGE} {version()}"
    for line in path.read_text().splitlines():
        seen = re.fullmatch(r"Seen (everywhere|on some machines): `(.+)`", line)
        if seen:
            reason = Reason(seen[2], seen[1] == "everywhere")
        elif line.startswith("- "):
            name = line[2:].strip("`")
            assert name not in listed, f"{name} stands twice in {path.name}"
            listed[name] = reason
    return listed


# --- The sweep ------------------------------------------------------------------------------------


class Client(threading.local):
    """One connection of each kind per thread."""

    def __init__(self, ports):
        self.connection = http.client.HTTPConnection("127.0.0.1", ports[0], timeout=TIMEOUT_S)
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{ports[1]}", options)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def post(self, path, body=b"", headers=None):
        self.connection.request("POST", path, body, headers or {})
        answer = self.connection.getresponse()
        body = answer.read()
        json_size = answer.headers.get("Inference-Header-Content-Length", len(body))
        return answer.status, body, int(json_size)


def infer_rest(client, case, inputs, expected, use_json):
    """The outputs, or how it went wrong."""
    body, json_size = onnx_cases.encode(inputs, expected, use_json)
    headers = {"Inference-Header-Content-Length": str(json_size)}
    status, body, json_size = client.post(f"/v2/models/{case.model}/infer", body, headers)
    if status != 200:
        return f"{status} {body.decode()}"
    return onnx_cases.decode(body, json_size)


def infer_grpc(client, case, inputs, expected, typed):
    request = onnx_cases_grpc.encode(case, inputs, expected, typed)
    try:
        return onnx_cases_grpc.decode(client.stub.ModelInfer(request, timeout=TIMEOUT_S))
    except grpc.RpcError as error:
        return f"{error.code().name} {error.details()}"


WAYS = {
    "REST, binary": lambda *request: infer_rest(*request, False),
    "REST, JSON": lambda *request: infer_rest(*request, True),
    "gRPC, raw": lambda *request: infer_grpc(*request, False),
    "gRPC, typed": lambda *request: infer_grpc(*request, True),
}


def bits(outputs):
    return [(output.name, output.values.shape, output.to_bytes()) for output in outputs]


def ask_all_ways(client, case, inputs, expected):
    """How each way went: an empty text, or how the outputs differ from what was expected, or from
    those of the first way, which they have to be to the bit."""
    found = {way: ask(client, case, inputs, expected) for way, ask in WAYS.items()}
    first = found["REST, binary"]
    for way, outputs in found.items():
        if isinstance(outputs, str):
            yield outputs
            continue
        drawn = onnx_cases.RANDOM.match(case.name)
        if not drawn and isinstance(first, list) and bits(outputs) != bits(first):
            yield f"other bits: {way}"
        else:
            yield onnx_cases.compare(case, expected, outputs)


def run_case(client, case, entry):
    """A failed load's reason, or what became of the requests, each in all ways."""
    if entry["state"] != "READY":
        return [entry["reason"]]
    return [
        text
        for inputs, expected in case.data_sets()
        for text in ask_all_ways(client, case, inputs, expected)
    ]


def sweep(ports, cases):
    client = Client(ports)
    status, body, _ = client.post("/v2/repository/index")
    assert status == 200
    entries = {entry["name"]: entry for entry in json.loads(body)}
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        ends = pool.map(lambda case: run_case(client, case, entries[case.model]), cases)
        return {case.name: end for case, end in zip(cases, ends)}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """NAME/1/model.onnx for every case."""
    root = tmp_path_factory.mktemp("onnx_cases")
    cases = onnx_cases.read_cases()
    for case in cases:
        folder = root / case.model / "1"
        folder.mkdir(parents=True)
        shutil.copy(case.path / "model.onnx", folder)
    yield root, cases
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def ends(repository):
    """How every case ended, from one server that serves them all."""
    root, cases = repository
    ports = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
    command = [os.environ["WEIR_BINARY"], "serve", *ports, "--limits.models-max", "2000", root]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **streams) as server:
        try:
            ready = server.stdout.readline()
            found = sweep([int(port) for port in re.findall(r":(\d+)", ready)], cases)
            server.send_signal(signal.SIGTERM)
            assert server.wait(TIMEOUT_S) == 0, "the server stops in order after all that"
        finally:
            server.kill()
    return found


def failures(ends):
    return {name: [text for text in texts if text] for name, texts in ends.items() if any(texts)}


# --- What must hold -------------------------------------------------------------------------------


def test_all_ways_give_the_same_bits(ends):
    other = {
        name: texts
        for name, texts in ends.items()
        if any(text.startswith("other bits") for text in texts)
    }
    assert not other


def test_enough_cases_pass(ends):
    passed = len(ends) - len(failures(ends))
    print(f"{passed} of {len(ends)} cases pass")
    assert passed >= PASS_MIN[version()]


def test_the_list_names_exactly_the_cases_that_fail(ends):
    listed = read_list()
    failed = failures(ends)
    # Rounding differs between processors: off by that little is neither a pass nor worth a listing.
    rounding = {
        name
        for name, texts in failed.items()
        if all(text.startswith("rounding") for text in texts)
    }
    unlisted = {name: failed[name] for name in failed.keys() - listed.keys() - rounding}
    assert not unlisted
    pass_now = {name for name, reason in listed.items() if reason.everywhere} - failed.keys()
    assert not pass_now
    assert not listed.keys() - ends.keys(), "no such cases"


def test_each_failure_has_the_reason_that_the_list_gives(ends):
    listed = read_list()
    other = {
        name: texts
        for name, texts in failures(ends).items()
        if name in listed and not all(listed[name].seen in text for text in texts)
    }
    assert not other


def test_no_case_is_answered_with_a_server_error(ends):
    errors = {
        name: text
        for name, texts in ends.items()
        for text in texts
        if re.match("(5[0-9][0-9]|INTERNAL|UNKNOWN|UNAVAILABLE) ", text)
    }
    assert not errors


def test_sequences_and_optionals_are_refused_by_name(ends, repository):
    _, cases = repository
    for case in cases:
        if not case.expressible:
            assert "only tensors can be served" in ends[case.name][0]
