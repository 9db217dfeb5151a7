"""The repository while it is used: new versions, failed loads, unloads, polling, control."""

import json
import shutil
import subprocess
import threading

import pytest

from serving import (
    BINARY,
    ROOT,
    Load,
    Server,
    is_sanitized,
    put_model,
    put_sim,
    sim_request,
    tensor,
    version_of,
    write_whole,
)

X4 = {"inputs": [tensor("x", "FP32", [1, 4], [1, 2, 3, 4])]}


@pytest.fixture
def root(tmp_path):
    made = tmp_path / "models"
    made.mkdir()
    return made


def explicit(tmp_path, root, *words):
    return Server(tmp_path, "--model-control", "explicit", "--load-model", "*", *words, root)


def test_new_versions_under_load_never_fail_a_request(tmp_path, root):
    put_model(root, "double_it")
    with explicit(tmp_path, root) as server, Load(server, "double_it", X4) as load:
        load.answered(10)
        for version in (2, 3, 7):
            put_model(root, "double_it", version=version)
            assert server.load("double_it").status == 200
            assert version_of(server.infer("double_it", X4)) == str(version)
            load.answered(10)
        load.answered(10)
        assert not load.wrong
        assert load.versions == {"1", "2", "3", "7"}
        server.await_("old ones gone", lambda: server.state("double_it", 3)[0] == "UNAVAILABLE")


def test_configurations_change_under_load(tmp_path, root):
    put_sim(root, "sim", parameters={"tau0": "1ms"})
    with explicit(tmp_path, root) as server, Load(server, "sim", sim_request()) as load:
        for rows in range(2, 12):
            assert server.load("sim", {"backend": "sim", "max_batch_size": rows}).status == 200
            assert server.get("/v2/models/sim/config").json()["max_batch_size"] == rows
            load.answered(3)
        assert not load.wrong


def test_requests_in_flight_finish_on_the_old_version(tmp_path, root):
    put_sim(root, "sim", parameters={"tau0": "1s"})
    put_sim(root, "quick", parameters={"tau0": "1us"})
    with explicit(tmp_path, root) as server:
        done = []
        slow = threading.Thread(target=lambda: done.append(server.infer("sim", sim_request())))
        slow.start()
        server.await_("running", lambda: in_flight(server, "sim"))
        put_sim(root, "sim", versions=(2,), parameters={"tau0": "1us"})
        assert server.load("sim").status == 200
        assert version_of(server.infer("sim", sim_request())) == "2"
        slow.join()
        assert (done[0].status, version_of(done[0])) == (200, "1")


def in_flight(server, model):
    """Is one of the model's requests running?"""
    metrics = server.metrics()
    idle = metrics.of_model("weir_model_leases", "quick")
    return metrics.of_model("weir_model_leases", model) > idle


def test_an_unload_lets_running_requests_finish(tmp_path, root):
    put_sim(root, "sim", parameters={"tau0": "1s"})
    put_sim(root, "quick", parameters={"tau0": "1us"})
    with explicit(tmp_path, root) as server:
        done = []
        slow = threading.Thread(target=lambda: done.append(server.infer("sim", sim_request())))
        slow.start()
        server.await_("running", lambda: in_flight(server, "sim"))
        assert server.unload("sim").status == 200
        assert server.infer("sim", sim_request()).status == 404
        slow.join()
        assert done[0].status == 200
        server.await_("unloaded", lambda: server.state("sim")[0] == "UNAVAILABLE")


def test_a_failed_load_keeps_the_old_version_and_all_others(tmp_path, root):
    put_model(root, "double_it")
    put_model(root, "scalar")
    with explicit(tmp_path, root) as server, Load(server, "double_it", X4) as load:
        for broken in (b"", b"this is no model", b"\x08\x07"):
            write_whole(root / "double_it" / "2" / "model.onnx", broken)
            answer = server.load("double_it")
            assert (answer.status, "double_it" in answer.error) == (400, True)
            state, reason = server.state("double_it", 2)
            assert (state, reason != "") == ("UNAVAILABLE", True)
            assert server.state("double_it", 1) == ("READY", "")
            load.answered(3)
        assert server.get("/v2/models/scalar/ready").status == 200
        assert server.infer("double_it", X4, version=2).status == 503
        put_model(root, "repaired", "double_it")
        shutil.rmtree(root / "double_it" / "2")
        (root / "repaired" / "1").rename(root / "double_it" / "2")
        assert server.load("double_it").status == 200
        load.answered(3)
        assert not load.wrong
        assert load.versions == {"1", "2"}


def test_models_that_cannot_load_leave_the_others_alone(tmp_path, root):
    put_model(root, "scalar")
    put_sim(root, "broken", parameters={"load_fails": "no such device"})
    write_whole(root / "garbage" / "1" / "model.onnx", b"garbage")
    (root / "empty").mkdir()
    write_whole(root / "misspelt" / "model.yaml", b"max_batch_sise: 3\n")
    write_whole(root / "misspelt" / "1" / "model.onnx", (root / "scalar/1/model.onnx").read_bytes())
    write_whole(root / "a file", b"")
    with Server(tmp_path, root) as server:
        assert "not ready" in server.ready_line
        assert server.get("/v2/health/ready").status == 503
        assert server.get("/v2/health/live").status == 200
        assert server.infer("scalar", {"inputs": [tensor("x", "FP32", [], [1])]}).status == 200
        reasons = {entry["name"]: entry.get("reason", "") for entry in server.index()}
        assert "no such device" in reasons["broken"]
        assert "model.onnx" in reasons["garbage"]
        assert "model.yaml:1" in reasons["misspelt"] and "max_batch_sise" in reasons["misspelt"]
        assert reasons["empty"]
        assert reasons["scalar"] == ""


def test_version_policies(tmp_path, root):
    for version in (1, 2, 3):
        put_model(root, "all", "double_it", version, version_policy={"all": {}})
        put_model(root, "two", "double_it", version, version_policy={"latest": {"num_versions": 2}})
        put_model(root, "one", "double_it", version)
        put_model(
            root, "some", "double_it", version, version_policy={"specific": {"versions": [1]}}
        )
    expected = {"all": ["1", "2", "3"], "two": ["2", "3"], "one": ["3"], "some": ["1"]}
    with Server(tmp_path, root) as server:
        for name, versions in expected.items():
            assert server.get(f"/v2/models/{name}").json()["versions"] == versions
            assert version_of(server.infer(name, X4)) == versions[-1]
            for version in (1, 2, 3):
                status = 200 if str(version) in versions else 404
                assert server.infer(name, X4, version=version).status == status, (name, version)


def test_unloading_returns_the_memory(tmp_path, root):
    names = [f"digits_{i}" for i in range(8)]
    for name in names:
        put_digits(root, name)
    with Server(tmp_path, "--model-control", "explicit", root) as server:
        row = {"inputs": [tensor("pixels", "FP32", [8, 64], [1] * 512)]}

        def turn():
            for name in names:
                assert server.load(name).status == 200
                assert server.infer(name, row).status == 200
            loaded = server.memory()
            for name in names:
                assert server.unload(name).status == 200
            for name in names:
                server.await_("unloaded", lambda: server.state(name)[0] == "UNAVAILABLE")
            return loaded, server.memory()

        turn()
        empty = server.memory()
        for _ in range(3):
            loaded, _ = turn()
        if not is_sanitized():
            assert loaded - empty > 8 * 3_000_000, "eight models of 3.4 MB each are there"
            server.await_("and gone", lambda: turn()[1] - empty < 4 << 20)
        server.await_("no block is held", lambda: server.metrics().get("weir_blocks_used_bytes") == 0)


def put_digits(root, name):
    source = ROOT / "examples" / "models" / "digits" / "1"
    (root / name).mkdir()
    shutil.copytree(source, root / name / "1")


def test_many_reloads_leave_no_file_and_no_thread(tmp_path, root):
    put_model(root, "double_it")
    put_sim(root, "sim")
    with explicit(tmp_path, root) as server:

        def turn(i):
            assert server.load("sim", {"backend": "sim", "max_batch_size": 1 + i % 7}).status == 200
            assert server.unload("double_it").status == 200
            assert server.load("double_it").status == 200
            assert server.infer("double_it", X4).status == 200

        for i in range(5):
            turn(i)
        files, threads = server.files(), server.threads()
        for i in range(100):
            turn(i)
        server.await_("no more files", lambda: server.files() <= files + 2)
        server.await_("the same threads", lambda: server.threads() == threads)


# --- Poll -----------------------------------------------------------------------------------------


def test_poll_follows_the_folders(tmp_path, root):
    put_model(root, "double_it")
    words = ("--model-control", "poll", "--poll-interval", "50ms")
    with Server(tmp_path, *words, root) as server, Load(server, "double_it", X4) as load:
        put_model(root, "double_it", version=2)
        server.await_("version 2", lambda: "2" in load.versions)
        put_sim(root, "new")
        server.await_("new", lambda: server.get("/v2/models/new/ready").status == 200)
        shutil.rmtree(root / "new")
        server.await_("gone", lambda: server.infer("new", sim_request()).status == 404)
        write_whole(root / "broken" / "1" / "model.onnx", b"broken")
        server.await_("broken", lambda: (server.state("broken") or ("",))[0] == "UNAVAILABLE")
        load.answered(5)
        assert not load.wrong


def test_poll_notices_a_changed_configuration(tmp_path, root):
    put_sim(root, "sim", max_batch_size=4)
    words = ("--model-control", "poll", "--poll-interval", "50ms")
    with Server(tmp_path, *words, root) as server:

        def rows():
            return server.get("/v2/models/sim/config").json()["max_batch_size"]

        assert rows() == 4
        put_sim(root, "sim", max_batch_size=5)
        server.await_("the new configuration", lambda: rows() == 5)
        write_whole(root / "sim" / "model.yaml", b"max_batch_size: many\n")
        server.await_(
            "the reason",
            lambda: any("max_batch_size" in e.get("reason", "") for e in server.index()),
        )
        assert rows() == 5


def test_poll_repairs_a_broken_model(tmp_path, root):
    put_sim(root, "sim", parameters={"load_fails": "not yet"})
    words = ("--model-control", "poll", "--poll-interval", "50ms")
    with Server(tmp_path, *words, root) as server:
        assert "not yet" in server.state("sim")[1]
        assert server.get("/v2/health/ready").status == 503
        put_sim(root, "sim")
        server.await_("repaired", lambda: server.get("/v2/health/ready").status == 200)
        assert server.infer("sim", sim_request()).status == 200


# --- Explicit -------------------------------------------------------------------------------------


def test_explicit_loads_only_what_is_asked(tmp_path, root):
    for name in ("a", "b", "c"):
        put_model(root, name, "double_it")
    words = ("--model-control", "explicit", "--load-model", "b")
    with Server(tmp_path, *words, root) as server:
        ready = [entry["name"] for entry in server.index() if entry.get("state") == "READY"]
        assert ready == ["b"]
        assert server.get("/v2/health/ready").status == 200
        assert server.infer("a", X4).status == 404
        assert server.load("a").status == 200
        assert server.infer("a", X4).status == 200
        only = server.post("/v2/repository/index", {"ready": True}).json()
        assert [entry["name"] for entry in only] == ["a", "b"]


def test_loads_of_one_model_at_once(tmp_path, root):
    put_sim(root, "sim", parameters={"load": "50ms"})
    with Server(tmp_path, "--model-control", "explicit", root) as server:
        answers = []

        def ask(i):
            answers.append(server.load("sim") if i % 3 else server.unload("sim"))

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [answer.status for answer in answers] == [200] * 30
        assert server.load("sim").status == 200
        assert server.infer("sim", sim_request()).status == 200


def test_others_are_served_while_a_model_loads(tmp_path, root):
    put_sim(root, "slow", parameters={"load": "2s"})
    put_model(root, "double_it")
    words = ("--model-control", "explicit", "--load-model", "double_it")
    with Server(tmp_path, *words, root) as server:
        loader = threading.Thread(target=server.load, args=("slow",))
        loader.start()
        server.await_("loading", lambda: (server.state("slow") or ("",))[0] == "LOADING")
        loading = server.infer("slow", sim_request())
        assert (loading.status, int(loading.headers["Retry-After"]) >= 1) == (503, True)
        assert server.infer("double_it", X4).status == 200
        loader.join()
        assert server.infer("slow", sim_request()).status == 200


def test_sigterm_while_models_load_ends_in_order(tmp_path, root):
    for i in range(5):
        put_sim(root, f"slow_{i}", parameters={"load": "1s"})
    with Server(tmp_path, "--model-control", "explicit", root) as server:
        threads = [threading.Thread(target=quietly, args=(server, f"slow_{i}")) for i in range(5)]
        for thread in threads:
            thread.start()
        server.await_("loading", lambda: any(e.get("state") == "LOADING" for e in server.index()))
        assert server.stop() == 0
        for thread in threads:
            thread.join()


def quietly(server, name):
    try:
        server.load(name)
    except OSError:
        pass


def test_check_says_what_would_load(tmp_path, root):
    put_model(root, "double_it")
    done = subprocess.run([BINARY, "serve", "--check", root], capture_output=True, text=True)
    assert (done.returncode, "READY" in done.stdout) == (0, True)
    put_sim(root, "broken", parameters={"load_fails": "no such device"})
    done = subprocess.run([BINARY, "serve", "--check", "--json", root], capture_output=True)
    assert done.returncode != 0
    states = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert states["double_it"]["state"] == "READY"
    assert "no such device" in states["broken"]["reason"]
