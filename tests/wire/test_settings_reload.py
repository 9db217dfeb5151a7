"""SIGHUP: settings are read again, and change while the server runs, or nothing does."""

import concurrent.futures
import json
import signal

import pytest

from serving import Server, infer_path, put_sim, sim_request


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("a", "b", "c"):
        put_sim(folder, name)
    return folder


def reload(server, file, text, outcome):
    """Writes the file, and waits for what the log says of it."""
    before = server.logged().count(outcome)
    file.write_text(text)
    server.process.send_signal(signal.SIGHUP)
    server.await_(outcome, lambda: server.logged().count(outcome) > before)
    return [line for line in server.logged().splitlines() if outcome in line][-1]


def instances(server, model):
    return server.get(f"/v2/models/{model}/config").json()["instance_group"][0]["count"]


def resident(server):
    return {entry["name"] for entry in server.index() if entry.get("state") == "READY"}


def test_a_budget_changes_while_it_runs(tmp_path, root):
    file = tmp_path / "weir.yaml"
    text = "model_control: demand\nresidency_min: 0s\nresident_models_max: {}\n"
    file.write_text(text.format(3))
    with Server(tmp_path, root, "--config", file) as server:
        for name in ("a", "b", "c"):
            assert server.infer(name, sim_request()).status == 200
        assert resident(server) == {"a", "b", "c"}
        said = reload(server, file, text.format(1), "settings reloaded")
        assert '"changed":1' in said and "resident_models_max" in said
        assert server.infer("a", sim_request()).status == 200
        server.unload("b")
        assert server.infer("b", sim_request()).status == 200
        server.await_("the others went", lambda: resident(server) == {"b"})


def test_what_needs_a_restart_is_named_and_nothing_changes(tmp_path, root):
    file = tmp_path / "weir.yaml"
    file.write_text("log_level: info\n")
    with Server(tmp_path, root, "--config", file) as server:
        text = "log_level: error\nexecutors: 7\nlimits:\n  models_max: 5\n  requests_max: 5\n"
        said = reload(server, file, text, "settings not reloaded")
        assert "executors" in said and "limits.models_max" in said
        assert "log_level" not in said and "requests_max" not in said
        assert server.get("/v2/logging").json()["log_info"] is True


def test_a_mistake_keeps_the_old_state(tmp_path, root):
    file = tmp_path / "weir.yaml"
    file.write_text("log_level: info\n")
    with Server(tmp_path, root, "--config", file) as server:
        said = reload(server, file, "log_level: loud\n", "settings not reloaded")
        assert "weir.yaml:1" in said and "loud" in said
        assert server.infer("a", sim_request()).status == 200
        said = reload(server, file, "log_level: info\nclass_shares: 20,5\n", "settings reloaded")
        assert "class_shares" in said


def test_the_log_level_changes(tmp_path, root):
    file = tmp_path / "weir.yaml"
    file.write_text("log_level: info\n")
    with Server(tmp_path, root, "--config", file) as server:
        assert server.infer("nobody", sim_request()).status == 404
        assert "request failed" not in server.logged()
        reload(server, file, "log_level: debug\n", "settings reloaded")
        assert server.infer("nobody", sim_request()).status == 404
        server.await_("the log", lambda: "request failed" in server.logged())


def test_a_limit_changes(tmp_path, root):
    file = tmp_path / "weir.yaml"
    file.write_text("")
    with Server(tmp_path, root, "--config", file) as server, server.connect() as kept:
        body = json.dumps(sim_request()).encode()
        path = infer_path("a")
        assert kept.ask("POST", path, body).status == 200
        reload(server, file, f"limits:\n  json_bytes_max: {len(body) - 1}\n", "settings reloaded")
        assert kept.ask("POST", path, body).status == 413
        reload(server, file, "", "settings reloaded")
        assert kept.ask("POST", path, body).status == 200


def test_the_repositories_are_read_again(tmp_path, root):
    file = tmp_path / "weir.yaml"
    file.write_text("")
    with Server(tmp_path, root, "--config", file) as server:
        assert instances(server, "a") != 3
        put_sim(root, "a", instances=3)
        put_sim(root, "d")
        server.process.send_signal(signal.SIGHUP)
        server.await_("more instances", lambda: instances(server, "a") == 3)
        server.await_("a new model", lambda: server.state("d") == ("READY", ""))


# --- The same by a request ------------------------------------------------------------------------


def ask_to_reload(server, **how):
    return server.post("/v2/settings/reload", **how)


def test_a_client_reloads(tmp_path, root):
    file = tmp_path / "weir.yaml"
    file.write_text("")
    with Server(tmp_path, root, "--config", file) as server:
        assert ask_to_reload(server).json() == {"changed": []}
        file.write_text("log_level: error\nlimits:\n  idle_timeout: 5s\n")
        put_sim(root, "d")
        assert ask_to_reload(server).json() == {"changed": ["log_level", "limits.idle_timeout"]}
        assert server.state("d") == ("READY", "")
        assert server.get("/v2/logging").json()["log_info"] is False


def test_a_client_is_told_why_nothing_changed(tmp_path, root):
    file = tmp_path / "weir.yaml"
    file.write_text("")
    with Server(tmp_path, root, "--config", file) as server:
        file.write_text("log_level: loud\n")
        answer = ask_to_reload(server)
        assert answer.status == 400
        assert "weir.yaml:1" in answer.json()["error"] and "loud" in answer.json()["error"]
        file.write_text("log_level: error\nport: 1\n")
        answer = ask_to_reload(server)
        assert answer.status == 400 and "port" in answer.json()["error"]
        assert server.get("/v2/logging").json()["log_info"] is True


def test_pages_of_others_cannot_reload(tmp_path, root):
    with Server(tmp_path, root) as server:
        assert ask_to_reload(server, headers={"Origin": "http://evil.example"}).status == 403


def test_reloads_at_once_do_not_disturb(tmp_path, root):
    file = tmp_path / "weir.yaml"
    file.write_text("")
    with Server(tmp_path, root, "--config", file, "--loops", "2") as server:
        def again(_):
            file_answer = ask_to_reload(server)
            return file_answer.status, server.infer("a", sim_request()).status

        with concurrent.futures.ThreadPoolExecutor(8) as many:
            assert set(many.map(again, range(64))) == {(200, 200)}


# --- Each setting that changes live ---------------------------------------------------------------


def change(server, file, text, *names):
    """Writes the file and has it read by a client's request; says which settings changed."""
    file.write_text(text)
    answer = ask_to_reload(server)
    assert answer.status == 200 and answer.json() == {"changed": list(names)}


def test_the_access_log_and_timing_change(tmp_path, root):
    file = tmp_path / "weir.yaml"
    file.write_text("")
    with Server(tmp_path, root, "--config", file) as server:
        assert "Server-Timing" not in server.infer("a", sim_request()).headers
        assert '"/v2/models/a/infer"' not in server.logged()
        change(server, file, "timing: true\naccess_log: true\n", "timing", "access_log")
        assert "Server-Timing" in server.infer("a", sim_request()).headers
        server.await_("a line", lambda: '"/v2/models/a/infer"' in server.logged())
        change(server, file, "", "timing", "access_log")
        assert "Server-Timing" not in server.infer("b", sim_request()).headers
        server.get("/v2/health/live")
        assert '"/v2/models/b/infer"' not in server.logged()


def test_the_cache_shrinks_goes_and_comes(tmp_path, root):
    put_sim(root, "a", response_cache={"enable": True})
    file = tmp_path / "weir.yaml"
    file.write_text("cache_bytes: 0\n")
    with Server(tmp_path, root, "--config", file) as server:

        def hits():
            return server.stats("a")["inference_stats"]["cache_hit"]["count"]

        def entries():
            return server.metrics().get("weir_cache_entries")

        def ask(value):
            assert server.infer("a", sim_request([float(value)] * 16)).status == 200

        ask(1), ask(1)
        assert hits() == 0 and entries() == 0
        change(server, file, "cache_bytes: 1MiB\n", "cache_bytes")
        ask(1), ask(1), ask(2)
        assert hits() == 1 and entries() == 2
        change(server, file, "cache_bytes: 1B\n", "cache_bytes")
        assert entries() == 0
        ask(1), ask(1)
        assert hits() == 1 and entries() == 0


def test_the_folders_are_looked_at_more_often(tmp_path, root):
    file = tmp_path / "weir.yaml"
    text = "model_control: poll\npoll_interval: {}\n"
    file.write_text(text.format("1h"))
    with Server(tmp_path, root, "--config", file) as server:
        change(server, file, text.format("100ms"), "poll_interval")
        put_sim(root, "d")
        server.await_("it is found", lambda: server.state("d") == ("READY", ""))
        change(server, file, text.format("1h"), "poll_interval")


def test_models_are_pinned_and_let_go(tmp_path, root):
    file = tmp_path / "weir.yaml"
    text = "model_control: demand\nresidency_min: 0s\nresident_models_max: 1\npinned: {}\n"
    file.write_text(text.format("[a]"))
    with Server(tmp_path, root, "--config", file) as server:
        assert server.infer("a", sim_request()).status == 200
        assert server.infer("b", sim_request()).status == 503
        change(server, file, text.format("[c, b]"), "pinned")
        server.await_("a goes", lambda: server.infer("b", sim_request()).status == 200)
        assert resident(server) == {"b"}
        assert server.infer("a", sim_request()).status == 503
        text = text.format("[" + "x" * 129 + "]")
        file.write_text(text)
        assert ask_to_reload(server).status == 400
        assert server.infer("a", sim_request()).status == 503  # b is pinned as before.
