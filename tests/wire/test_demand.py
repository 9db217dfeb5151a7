"""Models that are loaded when somebody asks for them, and unloaded to make room."""

import concurrent.futures
import json

import numpy as np
import pytest
import tritonclient.grpc as triton

from serving import Server, put_model, put_sim, sim_request, write_whole

DEMAND = ("--model-control", "demand", "--poll-interval", "200ms")


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


def test_over_grpc(tmp_path, root):
    put(root, "a")
    with Server(tmp_path, root, *DEMAND) as server:
        client = triton.InferenceServerClient(f"127.0.0.1:{server.ports[1]}")
        assert client.is_model_ready("a")
        tensor = triton.InferInput("x", [1, 16], "FP32")
        tensor.set_data_from_numpy(np.ones((1, 16), np.float32))
        assert client.infer("a", [tensor]).as_numpy("y").sum() == 16
        assert client.get_model_metadata("a").name == "a"
        client.close()


def test_a_load_that_fails_is_not_repeated_at_once(tmp_path, root):
    put(root, "bad", parameters={"load_fails": "no such weights"})
    with Server(tmp_path, root, *DEMAND) as server:
        first = ask(server, "bad")
        assert first.status == 503
        assert "no such weights" in first.error
        for _ in range(20):
            assert ask(server, "bad").error == first.error
        assert server.logged().count("model unavailable") == 1
        put(root, "bad")  # Mended: the folder's change is noticed.
        server.await_("it is mended", lambda: ask(server, "bad").status == 200)


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


def test_memory_is_counted(tmp_path, root):
    put(root, "a")
    for name in ("m1", "m2"):
        put(root, name)
        write_whole(root / name / "1" / "weights.bin", bytes(8 << 20))
    words = (*DEMAND, "--memory-max", "16MiB", "--residency-min", "0s")
    with Server(tmp_path, root, *words) as server:
        answer = ask(server, "m1")
        assert answer.status == 503
        assert "memory_max" in answer.error and "16 MiB" in answer.error
        assert ask(server, "a").status == 200
        metrics = server.metrics()
        assert metrics.get("weir_models_memory_max_bytes") == 16 << 20
        assert 0 < metrics.get("weir_models_memory_bytes") < 16 << 20
        assert metrics.get("weir_model_room_refusals_total") == 1


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


def test_an_ensemble_brings_its_parts(tmp_path, root):
    put(root, "part")
    mapping = {"x": "x"}, {"y": "y"}
    step = {"model_name": "part", "model_version": -1, "input_map": mapping[0],
            "output_map": mapping[1]}
    dims = [{"name": "x", "data_type": "TYPE_FP32", "dims": [16]}]
    config = {
        "platform": "ensemble",
        "max_batch_size": 8,
        "input": dims,
        "output": [{**dims[0], "name": "y"}],
        "ensemble_scheduling": {"step": [step]},
    }
    (root / "all" / "1").mkdir(parents=True)
    write_whole(root / "all" / "model.yaml", json.dumps(config).encode())
    with Server(tmp_path, root, *DEMAND) as server:
        assert ask(server, "all").status == 200
        assert resident(server) == {"all", "part"}
