"""Weights that are mapped from a cache, packed once a model is hot; execution providers."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest

from serving import (
    BINARY,
    PATIENCE_S,
    ROOT,
    Server,
    binary_request,
    put_model,
    put_sim,
    sim_request,
)

sys.path.insert(0, str(ROOT / "bench"))
from models import perceptron  # noqa: E402

WIDTH = 1024  # 4 MiB
DEMAND = ("--model-control", "demand", "--poll-interval", "200ms")


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def put(root, name, **config):
    path = perceptron(root, name, json.dumps(config), width=WIDTH, layers=1)
    # What changed just now is not converted, by the file system's clock, which cannot be waited for.
    time.sleep(0.2)
    return path


def ask(server, name, width=WIDTH):
    x = np.linspace(-1, 1, width, dtype=np.float32).reshape(1, width)
    body, headers = binary_request({"x": x}, outputs=["y"])
    answer = server.infer(name, body, headers)
    assert answer.status == 200, answer.body
    return np.frombuffer(answer.body[-4 * width :], dtype=np.float32)


def reload(server, name):
    assert server.unload(name).status == 200
    server.await_("unloaded", lambda: server.state(name)[0] == "UNAVAILABLE")


def test_a_model_is_converted_once_and_mapped_from_then_on(tmp_path, root):
    put(root, "m")
    cache = tmp_path.joinpath(*["cache".ljust(60, "-")] * 12)  # Its folders are made.
    with Server(tmp_path, root, *DEMAND, "--model-cache", cache) as server:
        first = ask(server, "m")
        entries = list(cache.iterdir())
        assert len(entries) == 1
        made = (entries[0] / "weights").stat().st_ino
        reload(server, "m")
        assert np.array_equal(ask(server, "m"), first)
        assert [entry.name for entry in cache.iterdir()] == [entries[0].name]
        assert (entries[0] / "weights").stat().st_ino == made
    with Server(tmp_path, root, *DEMAND, "--model-cache", cache) as server:
        assert np.array_equal(ask(server, "m"), first)
        assert (entries[0] / "weights").stat().st_ino == made


def test_a_hot_model_gets_its_weights_packed(tmp_path, root):
    put(root, "hot", promote_after=5)
    put(root, "mapped", weights="mapped", promote_after=5)
    log = ("--log-level", "debug")
    with Server(tmp_path, root, *DEMAND, *log, "--model-cache", tmp_path / "cache") as server:
        first = ask(server, "hot")
        for name in ("hot", "mapped"):
            for _ in range(10):
                assert np.allclose(ask(server, name), first, rtol=1e-4, atol=1e-5)
        server.await_("packed", lambda: "weights packed" in server.logged())
        packed = ask(server, "hot")
        assert np.allclose(packed, first, rtol=1e-4, atol=1e-5)
        assert np.array_equal(ask(server, "hot"), packed)
        assert server.logged().count("weights packed") == 1  # The other one stays as it is.


def test_the_cache_is_the_users_unless_told_otherwise(tmp_path, root):
    put(root, "m")
    env = {"XDG_CACHE_HOME": str(tmp_path / "xdg"), "CACHE_DIRECTORY": ""}
    with Server(tmp_path, root, *DEMAND, env=env) as server:
        ask(server, "m")
    assert len(list((tmp_path / "xdg/weir/models").iterdir())) == 1


def test_a_load_on_demand_tries_nothing_that_is_known(tmp_path, root):
    # The first run of each load fails: of one that tries the model out it is the trial's.
    put_sim(root, "m", parameters={"fail_at": 1})
    with Server(tmp_path, root, *DEMAND) as server:
        for _ in range(10):
            assert server.infer("m", sim_request()).status == 200
        reload(server, "m")
        assert server.infer("m", sim_request()).status == 500
        assert server.infer("m", sim_request()).status == 200


def test_without_a_cache_nothing_is_written(tmp_path, root):
    put(root, "m")
    home = tmp_path / "home"
    home.mkdir()
    with Server(tmp_path, root, *DEMAND, "--model-cache", "off", env={"HOME": str(home)}) as server:
        ask(server, "m")
        assert list(home.iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/below", ""])
def test_a_cache_that_is_no_folder_is_told(tmp_path, root, name):
    (tmp_path / "file").touch()
    words = [BINARY, "serve", "--model-cache", name, "--port", "0", root]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, cwd=tmp_path)
    assert done.returncode == 1
    assert f"model_cache: found '{name}', expected 'auto', 'off' or a folder: " in done.stderr


def test_a_file_that_is_overwritten_in_place_changes_no_answer(tmp_path, root):
    path = put(root, "m")
    with Server(tmp_path, root, *DEMAND, "--model-cache", tmp_path / "cache") as server:
        ask(server, "m")
        reload(server, "m")
        before = ask(server, "m")
        path.write_bytes(b"no model")
        assert np.array_equal(ask(server, "m"), before)


def test_a_provider_that_is_not_there_is_an_error(tmp_path, root):
    put_model(root, "m", "identity_fp32", execution_providers=["cuda"])
    put_model(root, "typo", "identity_fp32", execution_providers=["kuda"])
    put_model(root, "odd", "identity_fp32", execution_providers=["cpu", "cuda"])
    put_model(
        root, "knob", "identity_fp32", execution_providers=[{"name": "webgpu", "memory_limit": "1GiB"}]
    )
    with Server(tmp_path, root, "--model-control", "explicit") as server:
        for name, words in (
            ("m", ["execution provider 'cuda'", "libonnxruntime_providers_cuda.so"]),
            ("typo", ["found 'kuda', expected one of cpu, cuda, tensorrt"]),
            ("odd", ["cpu only at its end"]),
            ("knob", ["'webgpu' knows no memory_limit"]),
        ):
            refused = server.load(name)
            assert refused.status == 400, refused.body
            for part in words:
                assert part in refused.error


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_a_provider_that_is_not_there_is_done_without_where_cpu_follows(tmp_path, root, isolation):
    options = {"cudnn_conv_algo_search": "HEURISTIC"}
    cuda = {"name": "cuda", "device_id": 1, "memory_limit": "1GiB", "options": options}
    put_model(root, "m", "identity_fp32", execution_providers=[cuda, "cpu"], isolation=isolation)
    with Server(tmp_path, root) as server:
        state, reason = server.state("m")
        assert state == "READY"
        assert "execution provider 'cuda' cannot be used" in reason
        assert "libonnxruntime_providers_cuda.so" in reason
        assert ask(server, "m", width=16)[-1] == 1
