"""gRPC's JavaScript client, which shares no code with the others, unmodified."""

import json
import os
import shutil
import subprocess

import pytest

from serving import PATIENCE_S, ROOT, Server, put_model, put_sim

MODULES = ROOT / "build" / "node" / "node_modules"
NOT_FOUND, DEADLINE_EXCEEDED, CANCELLED = 5, 4, 1
SERVING = 1

if shutil.which("node") is None or not (MODULES / "@grpc" / "grpc-js").exists():
    pytest.skip("@grpc/grpc-js is not installed (tools/test)", allow_module_level=True)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    scratch = tmp_path_factory.mktemp("node")
    repository = scratch / "models"
    put_model(repository, "identity_fp32")
    put_sim(repository, "slow", parameters={"tau0": "2s"})
    with Server(scratch, repository) as server:
        ran = subprocess.run(["node", ROOT / "tests/wire/node/client.js", server.address, ROOT / "proto"],
                             env={**os.environ, "NODE_PATH": str(MODULES)}, capture_output=True, text=True,
                             timeout=PATIENCE_S, check=False)
        assert ran.returncode == 0, ran.stderr[-2000:]
        return json.loads(ran.stdout)


def test_health_and_metadata(found):
    assert found["live"] and found["health"] == SERVING
    assert found["metadata"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 16]}]


def test_inference(found):
    values = [float(value) for value in range(32)]
    assert found["raw"] == values and found["typed"] == values and found["id"] == "seven"


def test_a_tensor_of_four_megabytes(found):
    assert found["large"] is True


def test_failures(found):
    assert found["unknown"]["code"] == NOT_FOUND and "'nobody'" in found["unknown"]["details"]
    assert found["deadline"] == DEADLINE_EXCEEDED
    assert found["canceled"] == CANCELLED


def test_a_stream_answers_in_order(found):
    assert found["streamed"] == [["s0", 0.0], ["s1", 1.0], ["s2", 2.0]]
