"""Twenty bad reloads while clients ask: no request of theirs fails, the index says what was wrong,
and nothing of them stays."""

import random
import shutil

import pytest

from onnx_writer import ADD, adds, field, graph, model, node, tensor
from serving import ROOT, Load, Server, is_sanitized, tensor as request_tensor, write_whole

GOOD = (ROOT / "examples" / "models" / "digits" / "1" / "model.onnx").read_bytes()
ROW = {"inputs": [request_tensor("pixels", "FP32", [1, 64], [1] * 64)]}
GROWTH_MAX = 4 << 20
ISOLATIONS = ("none", "process")


def of_opset(number):
    plain = graph([ADD], field(5, tensor("w")))
    return field(1, 8) + field(7, plain) + field(8, field(1, "") + field(2, number))


def file_of(data):
    return lambda path: write_whole(path, data)


def sparse_file(size, head=b""):
    def put(path):
        write_whole(path, head)
        with open(path, "r+b") as file:
            file.truncate(size)

    return put


def noise(seed):
    return random.Random(seed).randbytes(100_000)


# By name: what puts the model file of version 2 in its place.
BAD_FILES = {
    "empty": file_of(b""),
    **{f"cut at {n} %": file_of(GOOD[: len(GOOD) * n // 100]) for n in (1, 25, 50, 99)},
    "noise": file_of(noise(1)),
    "noise in a graph": file_of(field(1, 8) + field(7, noise(2))),
    "noise behind": file_of(GOOD + noise(3)),
    "opset of the future": file_of(of_opset(999)),
    "no opset": file_of(of_opset(0)),
    "no such operator": file_of(model(graph([node("Wonder", ["x"], ["y"])]))),
    "other types": file_of(adds(tensor("w", kind=7, data=bytes(32)))),
    "too few values": file_of(adds(tensor("w", dims=(8,)))),
    "missing": lambda path: path.parent.mkdir(),
    "a folder": lambda path: path.mkdir(parents=True),
    "sparse and giant": sparse_file(1 << 40),
    "a giant tail": sparse_file(3 << 30, GOOD),
}
BAD_SETTINGS = {
    "no such setting": b"max_batch_sise: 3\n",
    "no YAML": b"instance_group: [\n",
    "other inputs": b"input: [{name: other, data_type: TYPE_FP32, dims: [64]}]\n",
}


class Reloads:
    def __init__(self, root, settings):
        self.folder = root / "digits"
        self.settings = settings
        write_whole(self.folder / "1" / "model.onnx", GOOD)
        write_whole(self.folder / "model.yaml", settings)

    def bad_file(self, name):
        BAD_FILES[name](self.folder / "2" / "model.onnx")

    def bad_settings(self, name):
        write_whole(self.folder / "model.yaml", self.settings + BAD_SETTINGS[name])

    def mend(self):
        shutil.rmtree(self.folder / "2", ignore_errors=True)
        write_whole(self.folder / "model.yaml", self.settings)

    def again(self, server):
        """The good one once more; what the one before it held is given back."""
        self.mend()
        assert server.load("digits").status == 200

    def all(self):
        for name in BAD_FILES:
            yield name, lambda: self.bad_file(name)
        for name in BAD_SETTINGS:
            yield name, lambda: self.bad_settings(name)


def reason_of(server):
    return "".join(entry.get("reason", "") for entry in server.index())


def all_once(server, reloads, load):
    for name, spoil in reloads.all():
        spoil()
        answer = server.load("digits")
        assert answer.status == 400, (name, answer.status, answer.body)
        assert reason_of(server), name
        assert server.state("digits", 1)[0] == "READY", name
        load.answered(2)
        reloads.again(server)
        assert not reason_of(server), name


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_twenty_bad_reloads_fail_no_request_and_leave_nothing(tmp_path, isolation):
    root = tmp_path / "models"
    root.mkdir()
    reloads = Reloads(root, f"isolation: {isolation}\n".encode())
    assert len(list(reloads.all())) == 20
    words = ("--model-control", "explicit", "--load-model", "*")
    with Server(tmp_path, *words, root) as server, Load(server, "digits", ROW) as load:
        all_once(server, reloads, load)
        memory, threads = server.memory(), server.threads()
        # What was replaced goes when the last request has let it go, so all numbers take a moment.
        held = sorted(server.files() for _ in range(20))[0]
        all_once(server, reloads, load)
        assert not load.wrong
        server.await_("threads are as they were", lambda: server.threads() == threads)
        server.await_("descriptors are closed", lambda: server.files() <= held)

        def is_back():
            reloads.again(server)  # One load's memory differs from the next one's; a leak does not shrink.
            return server.memory() - memory < GROWTH_MAX

        if not is_sanitized():
            server.await_("memory is back", is_back)
