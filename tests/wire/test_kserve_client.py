"""KServe's published Python clients, REST and gRPC, unmodified.

They need more than other clients do, so they have an environment of their own (tools/test).
"""

import json
import pathlib
import subprocess

import pytest

from serving import PATIENCE_S, ROOT, Server, put_model

PYTHON = str(ROOT / "build" / "venv-kserve" / "bin" / "python")
ROWS = [float(value) for value in range(32)]

if not (ROOT / "build" / "venv-kserve" / "stamp").exists():
    pytest.skip("KServe's client is not installed (tools/test)", allow_module_level=True)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    scratch = tmp_path_factory.mktemp("kserve")
    repository = scratch / "models"
    put_model(repository, "identity_fp32")
    with Server(scratch, repository) as server:
        driver = pathlib.Path(__file__).with_name("kserve_client.py")
        ran = subprocess.run([PYTHON, driver, server.url, server.address], capture_output=True, text=True,
                             timeout=PATIENCE_S, check=False)
        assert ran.returncode == 0, ran.stderr[-2000:]
        return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.parametrize("way", ["rest", "grpc"])
def test_health(found, way):
    assert found[way]["live"] and found[way]["ready"] and found[way]["model_ready"]


def test_a_model_that_nobody_has_is_not_ready(found):
    assert found["grpc"]["unknown_ready"] is False


@pytest.mark.parametrize("way", ["rest", "grpc"])
@pytest.mark.parametrize("form", ["json", "binary"])
def test_inference(found, way, form):
    assert found[way][form] == {"id": "seven", "model": "identity_fp32", "name": "y", "shape": [2, 16],
                                "values": ROWS}


@pytest.mark.parametrize("way, unknown, shape", [("rest", "404", "400"), ("grpc", "NOT_FOUND", "INVALID_ARGUMENT")])
def test_failures_say_why(found, way, unknown, shape):
    assert unknown in found[way]["unknown"] and "'nobody'" in found[way]["unknown"]
    assert shape in found[way]["shape"] and "[-1,16]" in found[way]["shape"]
