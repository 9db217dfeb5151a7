"""Models that want to read what is not theirs, or to bring the server down: none of them loads, none
of them gets a file outside its folder opened, and the server stays up."""

import os
import re
import shutil
import subprocess

import pytest

from onnx_writer import write_benign, write_hostile
from serving import BINARY, Server, natively, tensor

ISOLATIONS = ("none", "process")
REQUEST = {"inputs": [tensor("x", "FP32", [1, 4], [0, 0, 0, 0])]}


class World:
    def __init__(self, scratch, isolation):
        self.scratch = scratch
        self.root = scratch / "models"
        self.outside = scratch / "outside"
        self.root.mkdir()
        self.outside.mkdir()
        (self.outside / "secret.bin").write_bytes(b"\0\0\x80?" * 1000)
        settings = f"isolation: {isolation}\n".encode()
        self.names = write_hostile(self.root, self.outside, settings)
        write_benign(self.root, "benign", settings)

    def serve(self, program=BINARY, **more):
        return Server(self.scratch, "--model-control", "explicit", self.root, program=program,
                      **more)


def expect_none_loads(server, world):
    for name in world.names:
        answer = server.load(name)
        assert answer.status == 400, (name, answer.status, answer.body)
        assert answer.error
        state, reason = server.state(name)
        assert state == "UNAVAILABLE" and reason, name
        assert str(world.outside) not in reason or "absolute" in name, reason
    assert server.load("benign").status == 200
    assert server.infer("benign", REQUEST).json()["outputs"][0]["data"] == [1, 2, 3, 4]
    assert server.get("/v2/health/live").status == 200


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_none_but_the_benign_one_loads(tmp_path, isolation):
    world = World(tmp_path, isolation)
    assert len(world.names) == 40
    with world.serve() as server:
        expect_none_loads(server, world)


# --- What is opened -------------------------------------------------------------------------------


def can_trace():
    strace = shutil.which("strace")
    return strace and subprocess.run([strace, "-o", os.devnull, "true"]).returncode == 0


# A line of strace: which process, and what the descriptor that it got is.
OPENED = re.compile(r"^\d+ +.*= \d+<(/.*)>$")


def opened(trace):
    """Real paths of all files that were opened for their contents, in order."""
    lines = trace.read_text(errors="replace").splitlines()
    found = [OPENED.match(line) for line in lines if "O_PATH" not in line]
    return [match[1] for match in found if match]


# What the C library, the runtime and a child's start look up about the machine and themselves.
ELSEWHERE = re.compile(
    r"/sys/.*|/proc/(cpuinfo|meminfo|sys/vm/.*)|/proc/\d+/(stat\w*|smaps_rollup|cgroup|oom_score_adj)"
    r"|/memfd:.*|.*/lib[^/]*\.so[.\d]*|/etc/ld\.so\.cache"
)


@natively
@pytest.mark.skipif(not can_trace(), reason="strace, or tracing at all, is not to be had here")
@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_no_file_outside_the_folder_is_opened(tmp_path, isolation):
    world = World(tmp_path, isolation)
    trace = tmp_path / "trace"
    program = tmp_path / "traced"
    program.write_text(
        f'#!/bin/sh\nexec strace -D -f -y -e trace=open,openat,openat2,creat -o {trace} {BINARY} "$@"\n'
    )
    program.chmod(0o755)
    with world.serve(str(program)) as server:
        before = len(opened(trace))
        expect_none_loads(server, world)
    later = opened(trace)[before:]
    within = [path for path in later if path.startswith(f"{world.root}/")]
    assert any(path.endswith("benign/1/weights.bin") for path in within), "the trace shows nothing"
    beyond = {path for path in later if path not in within and path != str(world.root)}
    assert not [path for path in beyond if not ELSEWHERE.fullmatch(path)], sorted(beyond)
