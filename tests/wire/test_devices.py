"""Devices as a user meets them: several of a kind that share a model's requests, figures of GPUs, where models run."""

import os
import re
import subprocess

import pytest

from serving import ROOT, Load, Server, put_sim, sim_request

FAKE_NVML = ROOT / "tests" / "data" / "fake_nvml.c"
QUICK = {"tau0": "2ms"}


@pytest.fixture(scope="module")
def nvml(tmp_path_factory):
    library = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-std=c17", "-shared", "-fPIC", "-o", library, FAKE_NVML], check=True)
    return library


@pytest.fixture(scope="module")
def server(tmp_path_factory, nvml):
    root = tmp_path_factory.mktemp("devices") / "models"
    root.mkdir()
    put_sim(root, "both", parameters=QUICK, devices=["gpu0", "gpu1"])
    put_sim(root, "pool", parameters=QUICK, device="gpu")
    put_sim(root, "second", parameters=QUICK, device="gpu1")
    put_sim(root, "tritons", parameters=QUICK, instance_group=[{"kind": "KIND_GPU", "gpus": [0, 1], "count": 1}])
    put_sim(root, "loses", parameters={**QUICK, "lost_on": "gpu1", "lost_at": "2"}, device="gpu")
    put_sim(root, "processor", parameters=QUICK)
    with Server(root.parent, "--devices", "gpu0:1,gpu1:1", "--gpu-library", str(nvml), root) as server:
        yield server


def entry(server, model):
    return next(entry for entry in server.index() if entry["name"] == model)


def devices(server, model):
    return {device["name"]: device for device in entry(server, model).get("devices", [])}


def sample(server, name, labels):
    found = re.search(rf"^{name}{{{re.escape(labels)}}} (\d+(?:\.\d+)?)$", server.get("/metrics").body.decode(), re.M)
    return None if found is None else float(found[1])


@pytest.mark.parametrize("model", ["both", "pool", "tritons"])
def test_a_model_is_on_all_its_devices(server, model):
    assert {name: device["state"] for name, device in devices(server, model).items()} == {
        "gpu0": "READY", "gpu1": "READY"}
    with Load(server, model, sim_request(), clients=4):
        server.await_("runs on both", lambda: all(d["runs"] > 0 for d in devices(server, model).values()))
    assert 0.5 <= entry(server, model)["balance"] <= 1
    shown = server.stats(model)["devices"]
    assert [device["name"] for device in shown] == ["gpu0", "gpu1"]
    for name in "gpu0", "gpu1":
        assert sample(server, "weir_device_busy_seconds_total", f'pool="gpu",device="{name}"') > 0
    assert 0.5 <= sample(server, "weir_pool_balance", 'pool="gpu"') <= 1


def test_a_model_on_one_device_says_nothing_of_others(server):
    assert devices(server, "second") == {}
    assert server.infer("second", sim_request()).status == 200
    assert entry(server, "second")["memory"]["device"] == "gpu1"
    assert devices(server, "processor") == {}


def test_tritons_words_are_given_back(server):
    group = server.get("/v2/models/tritons/config").json()["instance_group"][0]
    assert (group["kind"], group["gpus"], group["count"]) == ("KIND_GPU", [0, 1], 1)


def test_a_lost_device_costs_no_request(server):
    with Load(server, "loses", sim_request(), clients=4) as load:
        server.await_("its loss", lambda: "reason" in devices(server, "loses")["gpu1"])
        load.answered(50)
        assert load.wrong == []
    assert "gpu1" in devices(server, "loses")["gpu1"]["reason"]
    assert "reason" not in devices(server, "loses")["gpu0"]
    assert server.state("loses") == ("READY", "")
    server.await_("the log", lambda: server.logged().count("device 'gpu1' was lost") == 1)


def test_a_sequence_is_over_when_its_device_is_lost(tmp_path):
    """It is on one device, whatever others there are; a new one goes on when that is back."""
    root = small(tmp_path)
    losses = {**QUICK, "lost_on": "gpu0", "lost_at": "3", "lost_runs": "1"}
    put_sim(root, "s", parameters=losses, device="gpu", batching="off",
            sequence_batching={"max_sequence_idle_microseconds": 60_000_000, "oldest": {}})
    with Server(tmp_path, "--devices", "gpu0:1,gpu1:1", root) as server:

        def step(**parameters):
            return server.infer("s", sim_request(parameters={"sequence_id": 7, **parameters}))

        answers = [step(sequence_start=True)]
        while answers[-1].status == 200:
            answers.append(step())
        assert answers[-1].status == 503 and "loss" in answers[-1].error
        answer = step()
        while answer.status == 409:  # Its end has not been settled yet: "the sequence is over".
            answer = step()
        assert answer.status == 400 and "must specify the START flag" in answer.error
        assert step(sequence_start=True).status == 200
        assert step().status == 200


def test_a_hot_model_gets_its_weights_packed_on_each_device(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    put_sim(root, "m", parameters={**QUICK, "mapped": "1MiB"}, device="gpu", promote_after=5)
    with Server(tmp_path, "--devices", "gpu0:1,gpu1:1", "--log-level", "debug", root) as server:
        with Load(server, "m", sim_request(), clients=4) as load:
            server.await_("packed", lambda: server.logged().count("weights packed") == 2)
            load.answered(1)
        assert not load.wrong


def test_figures_of_gpus(server):
    assert sample(server, "nv_gpu_utilization", 'gpu_uuid="GPU-000000a0"') == 0.37
    assert sample(server, "nv_gpu_memory_total_bytes", 'gpu_uuid="GPU-000000a0"') == 85899345920
    assert sample(server, "nv_gpu_memory_used_bytes", 'gpu_uuid="GPU-000000a0"') == 1073741824
    assert sample(server, "nv_gpu_power_usage", 'gpu_uuid="GPU-000000a0"') == 123.456
    assert sample(server, "nv_gpu_power_limit", 'gpu_uuid="GPU-000000a1"') == 700
    assert sample(server, "nv_energy_consumption", 'gpu_uuid="GPU-000000a1"') is None
    before = sample(server, "nv_energy_consumption", 'gpu_uuid="GPU-000000a0"')
    server.await_("newer figures",
                  lambda: sample(server, "nv_energy_consumption", 'gpu_uuid="GPU-000000a0"') > before)
    assert before < 5000, "energy counts since the server has started"


def small(tmp_path, **config):
    root = tmp_path / "models"
    root.mkdir()
    put_sim(root, "m", parameters=QUICK, **config)
    return root


def test_without_gpus_nothing_is_said_of_them(tmp_path, nvml):
    root = small(tmp_path, instance_group=[{"kind": "KIND_GPU", "gpus": [i], "count": 2} for i in (0, 1)])
    with Server(tmp_path, "--gpu-library", str(nvml), root, env={"FAKE_NVML_FAILS": "1"}) as server:
        assert b"gpu_uuid" not in server.get("/metrics").body
        assert "does not start: error 9" in server.logged()
        assert "no device of the pool 'gpu'" in server.state("m")[1]
        assert server.get("/v2/models/m/config").json()["instance_group"][0]["count"] == 4
        assert server.infer("m", sim_request()).status == 200


def test_devices_of_a_pool_are_alike(tmp_path):
    root = small(tmp_path)
    with pytest.raises(AssertionError, match="found 2 runs, expected 1 as 'gpu0' has"):
        with Server(tmp_path, "--devices", "gpu0:1,gpu1:2", root):
            pass


def test_the_longest_names_are_labels(tmp_path):
    pool = '"' * 62
    with Server(tmp_path, "--devices", f"{pool}0:1", small(tmp_path)) as server:
        escaped = pool.replace('"', '\\"')
        assert sample(server, "weir_device_batches_total", f'pool="{escaped}",device="{escaped}0"') == 0


def threads(server, name):
    """The server's threads of that name."""
    found = []
    for task in os.listdir(f"/proc/{server.process.pid}/task"):
        with open(f"/proc/{server.process.pid}/task/{task}/comm", encoding="ascii") as file:
            if file.read().strip() == name:
                found.append(int(task))
    return found


def test_executors_keep_to_their_processors(tmp_path):
    root = small(tmp_path)
    first = min(os.sched_getaffinity(0))
    with Server(tmp_path, "--processors", str(first), "--executors", "2", root) as server:
        server.await_("both have begun", lambda: [
            os.sched_getaffinity(task) for task in threads(server, "weir-cpu")] == [{first}, {first}])
        assert server.infer("m", sim_request()).status == 200


@pytest.mark.parametrize("options, more", [([], 5), (["--executor-nice", "2"], 2)])
def test_executors_leave_network_threads_the_processor(tmp_path, options, more):
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    with Server(tmp_path, "--devices", "gpu0:1", "--executors", "1", *options, small(tmp_path)) as server:

        def nice(name):
            return {os.getpriority(os.PRIO_PROCESS, task) for task in threads(server, name)}

        server.await_("they are nicer", lambda: nice("weir-cpu") == {min(usual + more, 19)})
        server.await_("others are not", lambda: nice("weir-gpu0") == {usual})
        assert nice("weir-loop") == {usual}


def test_a_device_that_is_not_there_is_named(tmp_path):
    root = small(tmp_path, devices=["gpu0", "gpu7"])
    put_sim(root, "n", parameters=QUICK, devices=["gpu0", "npu0"])
    with Server(tmp_path, "--devices", "gpu0:1,npu0:1", root) as server:
        assert "device 'gpu7' is not configured" in entry(server, "m")["reason"]
        assert "expected devices of one pool" in entry(server, "n")["reason"]
