"""More models than memory, with real weights: the budget holds at every look, and memory comes back."""

import random
import sys
import threading

import pytest

from serving import ROOT, Server, natively

sys.path.insert(0, str(ROOT / "bench"))

from models import perceptron  # noqa: E402


MIB = 1 << 20
WIDTHS = {4: 1024, 16: 2048}  # MiB of one layer.


@pytest.fixture
def population(tmp_path):
    """24 models by rank of popularity."""
    sizes = [4] * 16 + [16] * 8
    random.Random(7).shuffle(sizes)
    for rank, size in enumerate(sizes):
        perceptron(tmp_path / "models", f"m{rank}", width=WIDTHS[size], layers=1)
    return sizes


def proportional(server):
    for line in open(f"/proc/{server.process.pid}/smaps_rollup"):
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Pss")


def ask(server, model, size):
    shape = [1, WIDTHS[size]]
    tensor = {"name": "x", "datatype": "FP32", "shape": shape, "data": [0.0] * shape[1]}
    return server.infer(model, {"inputs": [tensor]})


@natively
def test_the_budget_holds_while_models_come_and_go(tmp_path, population):
    budget = 160 * MIB
    words = ("--model-control", "demand", "--memory-max", budget, "--residency-min", "0s",
             "--model-cache", tmp_path / "cache")
    dice = random.Random(11)
    ranks = dice.choices(range(24), [1 / (rank + 1) for rank in range(24)], k=150)
    with Server(tmp_path, tmp_path / "models", *words) as server:
        seen = []
        over = threading.Event()

        def look():
            while not over.wait(0.02):
                seen.append(proportional(server))

        watch = threading.Thread(target=look)
        watch.start()
        try:
            statuses = [ask(server, f"m{rank}", population[rank]).status for rank in ranks]
        finally:
            over.set()
            watch.join()
        assert statuses == [200] * len(ranks)
        assert max(seen) <= 1.05 * budget
        assert server.metrics().get("weir_model_evictions_total") > 0
        server.await_("the ledger knows of it", lambda: proportional(server) <= 1.1 * server.metrics().get(
            "weir_models_memory_bytes"))  # Weights may just be packed, or on their way back to the system.


@natively
def test_rounds_of_loading_leave_nothing_behind(tmp_path, population):
    large = population.index(16)
    with Server(tmp_path, tmp_path / "models", "--model-control", "explicit") as server:

        def after_a_round():
            assert server.load(f"m{large}").status == 200
            assert ask(server, f"m{large}", 16).status == 200
            assert server.unload(f"m{large}").status == 200
            server.await_("it is gone", lambda: server.state(f"m{large}")[0] == "UNAVAILABLE")
            return server.memory()

        held = [after_a_round() for _ in range(15)]
        # Rounds differ by what lies between free pieces; what a round leaves behind would only grow.
        server.await_("memory is back", lambda: after_a_round() <= 1.05 * held[0])
