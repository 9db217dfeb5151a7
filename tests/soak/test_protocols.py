"""Tools of others against a server: h2spec, grpcurl, grpc-health-probe, perf_analyzer.

`tools/soak protocols` builds or fetches them; one that is not there is skipped by name.
"""

import csv
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "wire"))
from serving import PATIENCE_S, Server, put_model  # noqa: E402

GO = ROOT / "build" / "go" / "bin"
PERF_ANALYZER = ROOT / "build" / "perf_analyzer"

# h2spec's strict checks; one expects that a connection which does not begin like HTTP/2 is closed without a word, where
# Weir speaks HTTP/1 and says what it expected.
H2SPEC_LEAST = 145


def tool(name):
    path = PERF_ANALYZER / "bin" / name if name == "perf_analyzer" else GO / name
    if not path.exists():
        pytest.skip(f"{name} is not there")
    return str(path)


def run(*words, good=0):
    libraries = {"LD_LIBRARY_PATH": str(PERF_ANALYZER / "nvidia" / "cuda_runtime" / "lib")}
    ran = subprocess.run([str(word) for word in words], env={**os.environ, **libraries}, capture_output=True,
                         text=True, timeout=PATIENCE_S, check=False)
    if good is not None:
        assert ran.returncode == good, ran.stdout[-2000:] + ran.stderr[-2000:]
    return ran


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    scratch = tmp_path_factory.mktemp("protocols")
    repository = scratch / "models"
    put_model(repository, "identity_fp32")
    with Server(scratch, repository) as server:
        yield server


def test_h2spec(server):
    ran = run(tool("h2spec"), "--strict", "--host", "127.0.0.1", "--port", server.port, "--path", "/v2/logging",
              "--timeout", "5", good=None)
    passed = int(re.search(r"(\d+) passed", ran.stdout)[1])
    assert passed >= H2SPEC_LEAST, ran.stdout[-6000:]


def grpcurl(server, *words, good=0):
    ran = run(tool("grpcurl"), "-plaintext", *words[:-1], server.address, *words[-1:], good=good)
    return ran.stdout + ran.stderr


def test_grpcurl_finds_its_way_by_reflection(server):
    assert set(grpcurl(server, "list").split()) >= {"inference.GRPCInferenceService", "grpc.health.v1.Health"}
    assert "rpc ModelInfer" in run(tool("grpcurl"), "-plaintext", server.address, "describe",
                                   "inference.GRPCInferenceService").stdout
    said = json.loads(grpcurl(server, "-d", '{"name": "identity_fp32"}', "inference.GRPCInferenceService/ModelMetadata"))
    assert said["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "16"]}]


def test_grpcurl_infers(server):
    values = list(range(16))
    request = {"model_name": "identity_fp32", "inputs": [
        {"name": "x", "datatype": "FP32", "shape": [1, 16], "contents": {"fp32_contents": values}}]}
    said = json.loads(grpcurl(server, "-d", json.dumps(request), "inference.GRPCInferenceService/ModelInfer"))
    assert said["modelName"] == "identity_fp32" and len(said["rawOutputContents"][0]) == 88


def test_grpcurl_is_told_what_is_wrong(server):
    said = grpcurl(server, "-d", '{"name": "nobody"}', "inference.GRPCInferenceService/ModelMetadata", good=69)
    assert "NotFound" in said and "'nobody'" in said


@pytest.mark.parametrize("words, code", [((), 0), (("-gzip",), 0), (("-service", "identity_fp32"), 0),
                                         (("-service", "nobody"), 3)])
def test_grpc_health_probe(server, words, code):
    run(tool("grpc-health-probe"), "-addr", server.address, *words, good=code)


@pytest.mark.parametrize("way", ["http", "grpc"])
@pytest.mark.parametrize("load", [("--concurrency-range", "1:4:3"), ("--request-rate-range", "50:100:50")])
def test_perf_analyzer(server, tmp_path, way, load):
    table = tmp_path / "table.csv"
    run(tool("perf_analyzer"), "-m", "identity_fp32", "-i", way, "-u", server.address, *load, "--shape", "x:16",
        "--measurement-mode", "count_windows", "--measurement-request-count", "50", "-s", "999", "-f", table)
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == 2
    assert all(float(row["Inferences/Second"]) > 0 and float(row["Server Compute Infer"]) > 0 for row in rows)
