"""Plug-ins: built from the public header alone, checked by `weir plugin-test`, served."""

import os
import subprocess

import pytest

from serving import BINARY, PATIENCE_S, ROOT, Server, is_sanitized, tensor, write_whole

HELLO = ROOT / "plugins" / "hello" / "hello.c"
BROKEN = ROOT / "tests" / "data" / "plugins" / "broken.c"


def build(tmp_path, source, name="plugin", *flags):
    """As its author would: a compiler and the header."""
    library = tmp_path / f"{name}.so"
    command = [os.environ.get("CC", "cc"), "-std=c17", "-Wall", "-Wextra", "-Werror", "-shared",
               "-fPIC", "-I", str(ROOT / "include"), *flags, str(source), "-o", str(library)]
    if any(flag.startswith("-DBREAKS") for flag in flags):
        command.append("-Wno-unused")
    subprocess.run(command, check=True, timeout=PATIENCE_S)
    return library


def check(library, folder, *words):
    return subprocess.run([BINARY, "plugin-test", str(library), str(folder), *words],
                          capture_output=True, text=True, timeout=PATIENCE_S)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "models"
    write_whole(folder / "twice" / "1" / "factor.txt", b"2\n")
    write_whole(folder / "twice" / "model.yaml", b"backend: hello\nmax_batch_size: 8\n")
    return folder


def test_hello_keeps_its_promises(tmp_path, root):
    done = check(build(tmp_path, HELLO), root / "twice" / "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "BROKEN" not in done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    "flag, promise, problem",
    [
        ("ABI", "table of this ABI", "plug-in ABI 99, expected 1"),
        ("SYMBOL", "table of this ABI", "exports no weir_plugin()"),
        ("NAME", "table of this ABI", "its name is no backend's name"),
        ("TAKEN", "table of this ABI", "there is a backend 'onnxruntime' already"),
        ("START", "table of this ABI", "no device of kind 'npu' was found"),
        ("TYPE", "loads and is described", "tensor 'y' has element type 13"),
        ("OUTPUT", "runs give every output", "made no output 'y'"),
        ("REPEATS", "same input gives the same output", "differ"),
        ("MEMORY", "gives its memory back", "bytes more"),
    ],
)
def test_a_broken_promise_is_named(tmp_path, flag, promise, problem):
    if flag == "MEMORY" and is_sanitized():
        return  # A sanitizer has an allocator of its own, which counts nothing for the program.
    (tmp_path / "1").mkdir()
    done = check(build(tmp_path, BROKEN, "broken", f"-DBREAKS_{flag}"), tmp_path / "1")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    broken = [i for i, line in enumerate(lines) if line.startswith("BROKEN")]
    assert broken, done.stdout
    assert any(promise in lines[i] and problem in lines[i + 1] for i in broken), done.stdout


def test_settings_reach_the_plugin(tmp_path):
    (tmp_path / "1").mkdir()
    library = build(tmp_path, BROKEN, "broken")
    done = check(library, tmp_path / "1", "--setting", "refuse=because")
    assert done.returncode == 1
    assert "refused: because" in done.stdout


def test_it_serves(tmp_path, root):
    with Server(tmp_path, root, "--plugin", build(tmp_path, HELLO)) as server:
        assert server.state("twice")[0] == "READY"
        body = {"inputs": [tensor("x", "FP32", [2, 3], [1, 2, 3, 4, 5, 6])]}
        answer = server.infer("twice", body)
        assert answer.status == 200, answer.body
        assert answer.json()["outputs"][0]["data"] == [2, 4, 6, 8, 10, 12]
        assert server.get("/v2/models/twice/config").json()["backend"] == "hello"


def test_a_model_it_refuses_says_why(tmp_path, root):
    write_whole(root / "bad" / "1" / "factor.txt", b"two\n")
    write_whole(root / "bad" / "model.yaml", b"backend: hello\nmax_batch_size: 8\n")
    with Server(tmp_path, root, "--plugin", build(tmp_path, HELLO)) as server:
        state, reason = server.state("bad")
        assert state == "UNAVAILABLE"
        assert "found 'two'," in reason and "expected a number" in reason
        assert server.state("twice")[0] == "READY"


def broken(tmp_path, root, flag):
    (root / "m" / "1").mkdir(parents=True)
    write_whole(root / "m" / "model.yaml", b"backend: broken\nmax_batch_size: 8\n")
    return ("--plugin", build(tmp_path, BROKEN, "broken", f"-DBREAKS_{flag}"),
            "--plugin", build(tmp_path, HELLO))


def test_a_vendors_number_is_no_status(tmp_path, root):
    with Server(tmp_path, root, *broken(tmp_path, root, "STATUS")) as server:
        ask = {"inputs": [tensor("x", "FP32", [1, 4], [-1, 2, 3, 4])]}
        answer = server.infer("m", ask)
        assert answer.status == 500
        assert "plug-in 'broken': run() returned -7" in answer.json()["error"]
        ask["inputs"][0]["data"][0] = 1
        assert server.infer("m", ask).json()["outputs"][0]["data"] == [1, 2, 3, 4]


def test_a_plugin_that_says_nothing_is_named(tmp_path, root):
    with Server(tmp_path, root, *broken(tmp_path, root, "SILENCE")) as server:
        state, reason = server.state("m")
        assert state == "UNAVAILABLE"
        assert "plug-in 'broken': load() gave no reason (backend failed)" in reason


def test_one_context_too_many_names_the_limit(tmp_path, root):
    write_whole(root / "many" / "model.yaml",
                b"backend: broken\nmax_batch_size: 8\ninstance_group: [{ count: 3 }]\n")
    (root / "many" / "1").mkdir()
    library = build(tmp_path, BROKEN, "broken")
    with Server(tmp_path, root, "--plugin", library, "--plugin", build(tmp_path, HELLO)) as server:
        state, reason = server.state("many")
        assert state == "UNAVAILABLE"
        assert "2 contexts at most" in reason


def test_a_library_that_is_none_stops_the_start(tmp_path, root):
    done = subprocess.run([BINARY, "serve", str(root), "--plugin", str(tmp_path / "no.so")],
                          capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode != 0
    assert "no.so cannot be loaded" in done.stderr


def test_without_its_plugin_a_model_names_the_backends_there_are(tmp_path, root):
    with Server(tmp_path, root) as server:
        state, reason = server.state("twice")
        assert state == "UNAVAILABLE"
        assert "hello" in reason and "onnxruntime" in reason
