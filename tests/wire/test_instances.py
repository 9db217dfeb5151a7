"""Runs at once: found by the server, or configured, and what it says when a number hurts."""

import contextlib
import subprocess

import pytest

from serving import BINARY, Server, put_sim, sim_request

# Runs that hold each other up, by far more than a busy machine does: 4 at once do a third of the work of one.
CONTENDED = {"tau0": "4ms", "exclusive": "false", "contention": "1"}
# 4 at once do 0.87 times the work of one, 2 do 1.25 times.
KNEE = {"tau0": "16ms", "exclusive": "false", "contention": "0.3"}
SERIAL = {"tau0": "2600us", "prepare": "200us", "finish": "200us", "contexts_max": "3"}
CLIENTS = 12


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("instances") / "models"
    root.mkdir()
    common = {"device": "npu", "max_batch_size": 1}
    put_sim(root, "many", parameters=CONTENDED, instances=4, **common)
    put_sim(root, "auto", parameters=KNEE, instances="auto", **common)
    put_sim(root, "four", parameters=SERIAL, instances=4, **{**common, "device": "accelerator"})
    slow = {"tau0": "12ms", "alpha": "1ms"}
    put_sim(root, "slow", parameters=slow, device="serial")
    devices = "npu:4:unpipelined,accelerator:4:unpipelined,serial:1:unpipelined"
    with Server(root.parent, "--devices", devices, root) as server:
        yield server


@contextlib.contextmanager
def load(server, model):
    """Clients that ask again when they have their answer, too quick for the model on any machine."""
    words = ("--url", server.url, "--concurrency", str(CLIENTS), "--duration", "1h")
    with subprocess.Popen([BINARY, "bench", model, *words], stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE) as clients:
        try:
            yield
            assert clients.poll() is None, clients.stderr.read()
        finally:
            clients.kill()


def test_a_number_of_instances_that_hurts_is_said(server):
    assert server.state("many") == ("READY", "")
    assert server.metrics().of_model("weir_model_instances_hurt", "many") == 0
    with load(server, "many"):
        server.await_("a reason in the index", lambda: server.state("many")[1])
    assert "4 instances do less than fewer would" in server.state("many")[1]
    metrics = server.metrics()
    assert metrics.of_model("weir_model_instances_hurt", "many") == 1
    assert metrics.of_model("weir_model_runs_max", "many") == 4
    told = "4 instances do less than fewer would"
    server.await_("the log", lambda: server.logged().count(told) == 1)


def test_left_alone_it_stops_at_the_knee(server):
    assert server.metrics().of_model("weir_model_runs_max", "auto") == 4
    with load(server, "auto"):
        server.await_(
            "two runs at once",
            lambda: server.metrics().of_model("weir_model_runs_max", "auto") == 2,
        )
    assert server.metrics().of_model("weir_model_instances_hurt", "auto") == 0


def test_a_blocking_budget_that_holds_batches_small_is_said(server):
    def told():
        urgent = {**sim_request(), "parameters": {"priority": 1}}
        assert server.infer("slow", urgent).status == 200
        return server.state("slow")[1]

    assert server.state("slow") == ("READY", "")
    with load(server, "slow"):
        reason = server.await_("a reason in the index", told)
    assert "batches are held at 1 row while more urgent requests come" in reason
    assert "blocking_budget (10 ms)" in reason

    def lines():
        return [line for line in server.logged().splitlines() if "blocking_budget" in line]

    (line,) = server.await_("the log", lines)
    assert '"level":"info"' in line


def test_more_instances_than_contexts_are_refused_by_the_name_of_the_limit(server):
    state, reason = server.state("four")
    assert state == "UNAVAILABLE"
    assert "device 'accelerator' has no context left: contexts_max is 3" in reason
    assert server.infer("four", sim_request()).status != 200


@pytest.mark.parametrize("device", ["npu", "npu:", "npu:0", "npu:1:", "npu:1:fast", ":1", "npu::"])
def test_devices_are_checked(device, tmp_path):
    refused = subprocess.run(
        [BINARY, "serve", "--devices", device, tmp_path], capture_output=True, text=True
    )
    assert refused.returncode != 0
    assert f"devices: found '{device}', expected NAME:RUNS" in refused.stderr
