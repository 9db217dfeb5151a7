"""Models that are loaded when somebody asks for them, and unloaded to make room."""

import concurrent.futures
import contextlib
import json
import signal
import subprocess
import threading
import time

import numpy as np
import pytest
import tritonclient.grpc as triton

from serving import (BINARY, PATIENCE_S, Raw, Server, binary_request, infer_path, put_model, put_sim,
                     sim_request, write_whole)

DEMAND = ("--model-control", "demand", "--poll-interval", "200ms")
RETRY_S = 1  # A load that failed is not tried again before.


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def put(root, *names, **config):
    for name in names:
        put_sim(root, name, **config)


def resident(server):
    return {entry["name"] for entry in server.index() if entry.get("state") == "READY"}


def ask(server, name, **how):
    return server.infer(name, sim_request(), **how)


def row_of_ones():
    tensor = triton.InferInput("x", [1, 16], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 16), np.float32))
    return tensor


def test_the_first_request_loads(tmp_path, root):
    put(root, "a", "b")
    with Server(tmp_path, root, *DEMAND) as server:
        assert server.ready_line.startswith("ready")
        assert resident(server) == set()
        reasons = {entry["name"]: entry["reason"] for entry in server.index()}
        assert "when it is asked for" in reasons["a"]
        assert server.get("/v2/health/ready").status == 200
        assert server.get("/v2/models/a/ready").status == 200
        assert ask(server, "a").status == 200
        assert resident(server) == {"a"}
        assert server.get("/v2/models/b").json()["inputs"][0]["name"] == "x"
        assert resident(server) == {"a", "b"}
        assert ask(server, "nobody").status == 404


def test_one_load_however_many_ask(tmp_path, root):
    put(root, "slow", parameters={"load": "300ms"})
    with Server(tmp_path, root, *DEMAND) as server:
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: ask(server, "slow").status, range(16)))
        assert answers == [200] * 16
        assert server.logged().count("model ready") == 1
        assert server.stats("slow")["inference_stats"]["success"]["count"] == 16


def test_a_deadline_passes_while_it_loads(tmp_path, root):
    put(root, "slow", parameters={"load": "1s"})
    with Server(tmp_path, root, *DEMAND) as server:
        late = ask(server, "slow", headers={"Weir-Deadline-Ms": "50"})
        assert late.status == 504
        assert "loaded" in late.error
        assert ask(server, "slow").status == 200  # The load went on all the same.


@pytest.mark.parametrize("way", ("rest", "grpc"))
def test_a_timeout_passes_while_it_loads(tmp_path, root, way):
    """It is counted from when the request came, not from when its model is there."""
    put(root, "slow", parameters={"load": "300ms"})
    with Server(tmp_path, root, *DEMAND) as server:
        if way == "rest":
            late = server.infer("slow", {**sim_request(), "parameters": {"timeout": 100_000}})
            assert late.status == 504
        else:
            client = triton.InferenceServerClient(f"127.0.0.1:{server.ports[1]}")
            with pytest.raises(triton.InferenceServerException) as caught:
                client.infer("slow", [row_of_ones()], timeout=100_000)
            assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
            client.close()
        assert ask(server, "slow").status == 200


def test_over_grpc(tmp_path, root):
    put(root, "a")
    with Server(tmp_path, root, *DEMAND) as server:
        client = triton.InferenceServerClient(f"127.0.0.1:{server.ports[1]}")
        assert client.is_model_ready("a")
        assert client.infer("a", [row_of_ones()]).as_numpy("y").sum() == 16
        assert client.get_model_metadata("a").name == "a"
        client.close()


def test_a_load_that_fails_is_not_repeated_at_once(tmp_path, root):
    put(root, "bad", parameters={"load_fails": "no such weights"})
    with Server(tmp_path, root, *DEMAND) as server:
        begun = time.monotonic()
        first = ask(server, "bad")
        assert first.status == 503
        assert "no such weights" in first.error
        for _ in range(20):
            assert ask(server, "bad").error == first.error
        tries = 1 + (time.monotonic() - begun) / RETRY_S
        assert server.logged().count("model unavailable") <= tries
        put(root, "bad")  # Mended: the folder's change is noticed.
        server.await_("it is mended", lambda: ask(server, "bad").status == 200)


def begin_rest(server, name):
    """Asks, and gives what closes the connection."""
    raw = Raw(server.port)
    body = json.dumps(sim_request()).encode()
    head = f"POST {infer_path(name)} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    raw.send(head.encode() + body)
    return raw.reset


def begin_grpc(server, name):
    client = triton.InferenceServerClient(f"127.0.0.1:{server.ports[1]}")
    tensor = triton.InferInput("x", [1, 16], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 16), np.float32))
    client.async_infer(name, [tensor], lambda result, error: None)
    return client.close


@pytest.mark.parametrize("begin", [begin_rest, begin_grpc])
def test_the_server_ends_though_a_load_does_not(tmp_path, root, begin):
    """Who asked for the model has gone."""
    put(root, "slow", parameters={"load": "1h"})
    with Server(tmp_path, root, *DEMAND, "--limits.drain-timeout", "500ms") as server:
        leave = begin(server, "slow")
        server.await_("it loads", lambda: "LOADING" in str(server.state("slow")))
        leave()
        assert server.stop() == 0


@pytest.mark.parametrize("eviction, gone", [("lru", "a"), ("lfu", "b")])
def test_others_make_room(tmp_path, root, eviction, gone):
    put(root, "a", "b", "c")
    limits = ("--resident-models-max", "2", "--residency-min", "0s", "--eviction", eviction)
    with Server(tmp_path, root, *DEMAND, *limits) as server:
        for name in ("a", "a", "a", "b"):
            assert ask(server, name).status == 200
        assert ask(server, "c").status == 200
        assert resident(server) == {"a", "b", "c"} - {gone}
        entry = next(entry for entry in server.index() if entry["name"] == gone)
        assert "room" in entry["reason"]
        assert ask(server, gone).status == 200  # And back again.
        assert len(resident(server)) == 2


def test_pinned_models_stay(tmp_path, root):
    put(root, "a", "b", "c")
    limits = ("--resident-models-max", "2", "--residency-min", "0s", "--pinned", "a")
    with Server(tmp_path, root, *DEMAND, *limits, "--eviction", "lru") as server:
        for name in ("a", "b", "c", "b", "c"):
            assert ask(server, name).status == 200
            assert "a" in resident(server)


def test_when_nothing_can_go_it_says_so(tmp_path, root):
    put(root, "a", "b")
    limits = ("--resident-models-max", "1", "--pinned", "a")
    with Server(tmp_path, root, *DEMAND, *limits) as server:
        assert ask(server, "a").status == 200
        answer = ask(server, "b")
        assert answer.status == 503
        assert "no room for model 'b'" in answer.error
        assert "resident_models_max" in answer.error
        assert ask(server, "a").status == 200


def sized(size, **config):
    """A model that takes so much of its device's memory."""
    return {**config, "parameters": {"memory_per_model": size, **config.get("parameters", {})}}


def test_memory_is_counted(tmp_path, root):
    put(root, "a")
    put(root, "large", **sized("64GiB"))
    put(root, "m1", "m2", **sized("10GiB"))
    words = (*DEMAND, "--memory-max", "16GiB", "--residency-min", "0s")
    with Server(tmp_path, root, *words) as server:
        answer = ask(server, "large")
        assert answer.status == 503
        assert "memory_max" in answer.error and "16 GiB" in answer.error
        for name in ("a", "m1", "m2"):
            assert ask(server, name).status == 200
            assert server.metrics().get("weir_models_memory_bytes") < 16 << 30
        assert resident(server) == {"a", "m2"}  # m1 made room.
        entry = next(entry for entry in server.index() if entry["name"] == "m2")
        assert entry["memory"]["device_bytes"] == 10 << 30
        assert entry["memory"]["peak_bytes"] > 0
        assert server.stats("m2")["memory_usage"][1]["byte_size"] == 10 << 30
        metrics = server.metrics()
        assert metrics.get("weir_models_memory_max_bytes") == 16 << 30
        assert metrics.get("weir_model_room_refusals_total") == 1
        held = {"kind": "device", "budget": "cpu", "source": "device"}
        assert metrics.get("weir_memory_bytes", **held) == 10 << 30
        assert metrics.get("weir_memory_bytes", kind="total", budget="total", source="server") > 0


def test_a_budget_that_becomes_smaller_is_kept(tmp_path, root):
    put(root, "a", "b", "c", **sized("2GiB"))
    config = tmp_path / "weir.yaml"
    config.write_text("memory_max: 16GiB\n")
    words = ("--config", config, *DEMAND, "--residency-min", "0s", "--eviction", "lru")
    with Server(tmp_path, root, *words) as server:
        for name in ("a", "b", "c"):
            assert ask(server, name).status == 200
        config.write_text("memory_max: 5GiB\n")
        server.process.send_signal(signal.SIGHUP)
        server.await_("one goes", lambda: resident(server) == {"b", "c"})


def test_a_budget_of_a_device(tmp_path, root):
    put(root, "a", "b", **sized("600MiB", device="npu"))
    put(root, "c", **sized("600MiB"))
    words = ("--devices", "npu:1", "--memory-devices", "npu:1GiB", "--residency-min", "0s")
    with Server(tmp_path, root, *DEMAND, *words) as server:
        for name in ("a", "c", "b"):
            assert ask(server, name).status == 200
        assert resident(server) == {"b", "c"}  # Only a stood in b's way.
        metrics = server.metrics()
        assert metrics.get("weir_memory_max_bytes", kind="device", budget="npu") == 1 << 30
        assert metrics.get("weir_memory_models", kind="device", budget="npu") == 1


def test_a_budget_of_a_group(tmp_path, root):
    put(root, "a", "b", **sized("600MiB", memory_group="vision"))
    put(root, "c", **sized("600MiB", memory_group="text"))
    words = ("--memory-groups", "vision:1GiB", "--residency-min", "0s")
    with Server(tmp_path, root, *DEMAND, *words) as server:
        for name in ("a", "c", "b"):
            assert ask(server, name).status == 200
        assert resident(server) == {"b", "c"}
        metrics = server.metrics()
        assert metrics.get("weir_memory_bytes", kind="group", budget="text", source="device") == 600 << 20
        entry = next(entry for entry in server.index() if entry["name"] == "b")
        assert entry["memory"]["group"] == "vision"


def test_a_configured_peak_is_booked(tmp_path, root):
    put(root, "a", peak_memory="4GiB", memory_group="g")
    with Server(tmp_path, root, *DEMAND, "--memory-groups", "g:2GiB") as server:
        answer = ask(server, "a")
        assert answer.status == 503
        assert "4 GiB" in answer.error and "memory_groups g" in answer.error


@pytest.mark.parametrize("words", [("--memory-devices", "npu:1GiB"), ("--memory-groups", "vision"),
                                   ("--memory-groups", "vision:much")])
def test_a_budget_that_is_none_is_refused(root, words):
    put(root, "a")
    ended = subprocess.run([BINARY, "serve", *words, root], capture_output=True, timeout=PATIENCE_S)
    assert ended.returncode == 2
    assert words[0][2:].replace("-", "_").encode() in ended.stderr


RELOADED = dict(device="npu", parameters={"memory_per_model": "600MiB", "load": "200ms"})
ONE_FITS = ("--model-control", "explicit", "--load-model", "a", "--devices", "npu:1",
            "--memory-devices", "npu:1GiB")


def test_a_reload_that_does_not_fit_beside_is_refused(tmp_path, root):
    put(root, "a", **RELOADED)
    with Server(tmp_path, root, *ONE_FITS) as server:
        put(root, "a", **RELOADED, batching="off")
        answer = server.load("a")
        assert answer.status == 503
        assert "update: replace" in answer.error and "176 MiB are missing" in answer.error
        assert ask(server, "a").status == 200
        put(root, "a", **{**RELOADED, "parameters": {"memory_per_model": "300MiB"}})
        assert server.load("a").status == 200  # That fits beside it.


def test_a_reload_may_replace(tmp_path, root):
    put(root, "a", **RELOADED)
    with Server(tmp_path, root, *ONE_FITS) as server:
        put(root, "a", **RELOADED, update="replace")
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            begun, over = threading.Semaphore(0), threading.Event()

            def hammer(_):
                begun.release()
                while not over.is_set():
                    assert ask(server, "a").status == 200  # It waits where it has to.

            clients = [pool.submit(hammer, i) for i in range(4)]
            for _ in clients:
                assert begun.acquire(timeout=PATIENCE_S)
            assert server.load("a").status == 200
            over.set()
            for client in clients:
                client.result()
        assert server.stats("a")["inference_stats"]["fail"]["count"] == 0


def test_a_replacement_that_fails_says_so(tmp_path, root):
    put(root, "a", **RELOADED)
    with Server(tmp_path, root, *ONE_FITS) as server:
        broken = {**RELOADED["parameters"], "load_fails": "no such weights"}
        put(root, "a", device="npu", update="replace", parameters=broken)
        assert server.load("a").status == 400
        assert server.state("a") == ("UNAVAILABLE", "model 'a' version 1: no such weights")
        assert ask(server, "a").status == 503
        put(root, "a", **RELOADED)
        assert server.load("a").status == 200
        assert ask(server, "a").status == 200


def test_the_index_says_what_a_load_waits_for(tmp_path, root):
    """The first request after the run at load hangs until its client leaves; others wait for it."""
    hangs = {**RELOADED["parameters"], "hang_at": 2}
    put(root, "a", device="npu", max_batch_size=0, batching="off", parameters=hangs)
    put(root, "b", **RELOADED)
    body = json.dumps(sim_request()).encode()
    request = f"POST {infer_path('a')} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with Server(tmp_path, root, *ONE_FITS) as server, concurrent.futures.ThreadPoolExecutor(2) as pool:
        with contextlib.ExitStack() as stack:
            for _ in range(8):
                stack.enter_context(Raw(server.port)).send(request.encode() + body)
            pending = "nv_inference_pending_request_count"
            server.await_("one is in line", lambda: server.metrics().get(pending, model="a", version="1"))
            put(root, "a", **RELOADED, update="replace")
            loading = pool.submit(server.load, "a")
            waits = "the load under way waits for version 1, which it replaces and which is still in use"
            server.await_("it waits", lambda: server.state("a") == ("UNLOADING", waits))
            other = pool.submit(server.load, "b")
            behind = {"name": "b", "state": "LOADING",
                      "reason": "the load under way waits for room behind another one"}
            server.await_("it waits, too", lambda: behind in server.index())
        assert loading.result().status == 200
        assert other.result().status == 503
        assert server.state("a")[0] == "READY"


def test_who_waits_for_room_holds_up_nobody_else(tmp_path, root):
    """b waits until a may go; a goes on, and so do loads elsewhere."""
    put(root, "a", "b", **sized("600MiB", device="npu"))
    put(root, "c")
    config = tmp_path / "weir.yaml"
    config.write_text("residency_min: 1h\n")
    words = ("--config", config, "--devices", "npu:1", "--memory-devices", "npu:1GiB")
    with Server(tmp_path, root, *DEMAND, *words) as server:
        assert ask(server, "a").status == 200
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(ask, server, "b")
            assert ask(server, "c").status == 200
            assert ask(server, "a").status == 200
            assert not waiting.done()
            config.write_text("residency_min: 0s\n")
            server.process.send_signal(signal.SIGHUP)
            assert waiting.result().status == 200
        assert resident(server) == {"b", "c"}


def request_bytes(model, body, headers=()):
    lines = [f"POST {infer_path(model)} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in dict(headers).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


WRONG = json.dumps({"inputs": []}).encode()


@pytest.mark.parametrize("second", ["text", "binary", "wrong"])
def test_answers_that_wait_for_others_hold_no_model(tmp_path, root, second):
    """The answer of a waits for that of b, which waits for a's place."""
    put(root, "a", "b")
    limits = ("--resident-models-max", "1", "--residency-min", "0s")
    body, headers = json.dumps(sim_request()).encode(), {}
    if second == "binary":
        body, headers = binary_request({"x": np.zeros((1, 16), np.float32)}, ["y"])
    with Server(tmp_path, root, *DEMAND, *limits) as server:
        assert ask(server, "a").status == 200
        with Raw(server.port) as raw:
            raw.send(
                request_bytes("b", json.dumps(sim_request()).encode())
                + request_bytes("a", WRONG if second == "wrong" else body, headers)
            )
            assert raw.answer().status == 200
            assert raw.answer().status == (400 if second == "wrong" else 200)


def test_a_part_that_its_ensemble_holds_is_not_waited_for(tmp_path, root):
    """The old part stays with the old ensemble, as the new one has no room or cannot be put together of the
    new part."""
    put(root, "part", "b", "c")
    step = {"model_name": "part", "input_map": {"x": "x"}, "output_map": {"y": "y"}}
    write_whole(root / "whole" / "model.yaml", json.dumps(
        {"platform": "ensemble", "ensemble_scheduling": {"step": [step]}}).encode())
    (root / "whole" / "1").mkdir()
    limits = ("--resident-models-max", "4", "--residency-min", "0s")
    with Server(tmp_path, root, *DEMAND, *limits) as server:
        for name in ("whole", "b"):
            assert ask(server, name).status == 200
        config = json.loads((root / "part" / "model.yaml").read_text())
        config["parameters"]["inputs"] = "z:FP32[-1,16]"  # Nothing that the ensemble could give.
        assert server.load("part", config).status == 200
        assert ask(server, "c").status == 200


def test_residents_do_not_thrash(tmp_path, root):
    """Two models for one place: however many ask in turn, nobody goes before its time."""
    put(root, "a", "b")
    words = ("--resident-models-max", "1", "--residency-min", "300ms")
    with Server(tmp_path, root, *DEMAND, *words) as server:
        begun = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda i: ask(server, "ab"[i % 2]).status, range(60)))
        assert answers == [200] * 60
        assert server.logged().count("model ready") <= (time.monotonic() - begun) / 0.3 + 2


def round_of(server):
    for name in ("a", "b"):
        assert ask(server, name).status == 200
    for name in ("a", "b"):
        assert server.unload(name).status == 200


def test_what_usually_follows_is_loaded_ahead(tmp_path, root):
    put(root, "a", "b")
    with Server(tmp_path, root, *DEMAND, "--preload-next") as server:
        for _ in range(3):
            round_of(server)
        assert ask(server, "a").status == 200
        server.await_("b is there", lambda: resident(server) == {"a", "b"})
        ahead = "weir_model_loads_ahead_total"
        server.await_("it is counted", lambda: server.metrics().get(ahead) == 1)


def test_nobody_goes_for_what_is_loaded_ahead(tmp_path, root):
    put(root, "a", "b", "c", "d")
    words = ("--preload-next", "--resident-models-max", "2", "--residency-min", "0s")
    with Server(tmp_path, root, *DEMAND, *words) as server:
        for _ in range(3):
            round_of(server)
        assert ask(server, "c").status == 200
        assert ask(server, "a").status == 200
        assert ask(server, "a").status == 200
        assert resident(server) == {"a", "c"}
        assert server.metrics().get("weir_model_loads_ahead_total") == 0
        reasons = {entry["name"]: entry.get("reason", "") for entry in server.index()}
        assert "room" not in reasons["b"]  # Nor is that anybody's failure.


def test_idle_models_go(tmp_path, root):
    put(root, "a")
    with Server(tmp_path, root, *DEMAND, "--idle-unload", "100ms", "--residency-min", "0s") as server:
        assert ask(server, "a").status == 200
        server.await_("it is unloaded", lambda: resident(server) == set())
        assert ask(server, "a").status == 200


def test_no_request_is_lost_while_models_come_and_go(tmp_path, root):
    names = [f"m{i}" for i in range(12)]
    put(root, *names, parameters={"load": "5ms"})
    limits = ("--resident-models-max", "4", "--residency-min", "0s")
    with Server(tmp_path, root, *DEMAND, *limits) as server:
        rng = np.random.default_rng(7)

        def many(seed):
            with server.connect() as connection:
                order = np.random.default_rng(seed).zipf(1.5, 60) % len(names)
                path = "/v2/models/{}/infer"
                return [
                    connection.post(path.format(names[i]), sim_request()).status for i in order
                ]

        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            for statuses in pool.map(many, rng.integers(0, 1000, 6)):
                assert statuses == [200] * 60
        assert len(resident(server)) <= 4


def test_a_changed_folder_is_loaded_anew(tmp_path, root):
    put_model(root, "scalar")
    with Server(tmp_path, root, *DEMAND) as server:
        assert server.get("/v2/models/scalar").json()["versions"] == ["1"]
        put_model(root, "scalar", version=2)
        server.await_(
            "the new version", lambda: server.get("/v2/models/scalar").json()["versions"] == ["2"]
        )


def put_ensemble(root, name, *parts):
    """Each part takes what the one before gives."""
    steps = [
        {
            "model_name": part,
            "model_version": -1,
            "input_map": {"x": "x" if i == 0 else f"t{i}"},
            "output_map": {"y": "y" if i == len(parts) - 1 else f"t{i + 1}"},
        }
        for i, part in enumerate(parts)
    ]
    config = {"platform": "ensemble", "ensemble_scheduling": {"step": steps}, "max_batch_size": 8}
    (root / name / "1").mkdir(parents=True)
    write_whole(root / name / "model.yaml", json.dumps(config).encode())


def test_an_ensemble_brings_its_parts(tmp_path, root):
    put(root, "part")
    put_ensemble(root, "all", "part")
    with Server(tmp_path, root, *DEMAND) as server:
        assert ask(server, "all").status == 200
        assert resident(server) == {"all", "part"}


def test_of_two_ensembles_that_hold_what_the_other_needs_one_comes_up(tmp_path, root):
    """Each has one of its models in memory, there is room for three, and both ask for a second."""
    put(root, "a1", "a2", "b1", "b2", **sized("100MiB", device="npu", parameters={"load": "100ms"}))
    for name in "ab":
        put_ensemble(root, f"{name}_inner", f"{name}1")
        put_ensemble(root, name, f"{name}_inner", f"{name}2")
    words = ("--devices", "npu:1", "--memory-devices", "npu:250MiB", "--residency-min", "0s")
    with Server(tmp_path, root, *DEMAND, *words) as server:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda name: ask(server, name), "ab"))
        assert 200 in [answer.status for answer in answers]
        for answer in answers:
            assert answer.status in (200, 503)
            assert answer.status == 200 or "no room for model" in answer.error
        for name in "ab":  # Whoever was refused is not tried again at once.
            server.await_(f"{name} comes up", lambda: ask(server, name).status == 200)


def test_an_ensemble_is_told_at_once_that_its_parts_have_no_room(tmp_path, root):
    """Nothing else happens in the server that would make it look again."""
    put(root, "a", "b", **sized("200MiB", device="npu"))
    put_ensemble(root, "all", "b")
    words = ("--model-control", "explicit", "--load-model", "a", "--profile-store", "off")
    with Server(
        tmp_path, root, *words, "--devices", "npu:1", "--memory-devices", "npu:250MiB"
    ) as server:
        for _ in range(2):
            answer = server.load("all")
            assert answer.status == 503
            assert "step 1 needs model 'b': no room for model 'b'" in answer.error


@pytest.mark.parametrize(
    "words", [("--resident-models-max", "3"), ("--memory-devices", "npu:250MiB")]
)
@pytest.mark.parametrize("eviction", ["lru", "cost"])
def test_ensembles_and_others_make_room_for_each_other(tmp_path, root, words, eviction):
    """An ensemble's parts do not go for its own sake; with it they do, whatever it takes itself."""
    put(root, "a", "b", "c", **sized("100MiB", device="npu"))
    put_ensemble(root, "ab", "a", "b")
    words = (*words, "--devices", "npu:1", "--eviction", eviction, "--residency-min", "0s")
    with Server(tmp_path, root, *DEMAND, *words) as server:
        for name in ("ab", "c", "ab", "c", "ab"):
            answer = ask(server, name)
            assert answer.status == 200, answer.body
