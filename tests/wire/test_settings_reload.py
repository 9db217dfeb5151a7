"""SIGHUP: settings are read again, and change while the server runs, or nothing does."""

import signal

import pytest

from serving import Server, put_sim, sim_request


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
    return server.logged().splitlines()[-1]


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
        text = "log_level: error\nexecutors: 7\nlimits:\n  requests_max: 5\n"
        said = reload(server, file, text, "settings not reloaded")
        assert "executors" in said and "limits.requests_max" in said
        assert "log_level" not in said
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
        assert "request failed" in server.logged()
