"""Loads that hang: ended where the model has a process of its own, told where it has not."""

from serving import Raw, Server, put_sim, sim_request
from test_isolation import processes

ISOLATED = {"isolation": "process", "batching": "off"}


def repository(tmp_path, name, parameters, **config):
    root = tmp_path / "models"
    root.mkdir()
    put_sim(root, name, parameters=parameters, **config)
    put_sim(root, "other", parameters={"tau0": "1ms"}, device="other")
    return root


def serving(tmp_path, root, loaded="*"):
    words = ("--model-control", "explicit", "--load-model", loaded, "--devices", "other:1")
    return Server(tmp_path, *words, root)


def loading(server, name):
    """What the index says of a model that is being loaded."""
    entries = [entry for entry in server.index() if entry["name"] == name]
    return entries[0]["reason"] if entries and entries[0].get("state") == "LOADING" else ""


def failed(server, name):
    state, reason = server.state(name) or (None, None)
    return reason if state == "UNAVAILABLE" else None


def test_a_load_that_hangs_is_ended(tmp_path):
    root = repository(tmp_path, "m", {"load": "1h"}, load_limit="500ms", **ISOLATED)
    with serving(tmp_path, root) as server:
        reason = server.await_("the load's end", lambda: failed(server, "m"))
        assert "load_limit (0.5 s)" in reason
        server.await_("its process ends", lambda: not processes(server)[0])
        assert server.infer("other", sim_request()).status == 200
        put_sim(root, "m", **ISOLATED)
        assert server.load("m").status == 200
        assert server.infer("m", sim_request()).status == 200


def test_a_trial_run_that_hangs_fails_the_load(tmp_path):
    """The first run, of zeros, never ends."""
    root = repository(tmp_path, "m", {"stuck_on": 0.0, "stuck": "1h"}, load_limit="2s", **ISOLATED)
    with serving(tmp_path, root) as server:
        reason = server.await_("the load's end", lambda: failed(server, "m"))
        assert "hung" in reason or "load_limit" in reason
        server.await_("its process ends", lambda: not processes(server)[0])
        assert server.infer("other", sim_request()).status == 200


def test_a_load_that_hangs_in_the_server_is_told(tmp_path):
    root = repository(tmp_path, "m", {"load": "1h"}, load_limit="100ms")
    with serving(tmp_path, root, "other") as server:
        with Raw(server.port) as asking:
            asking.send(b"POST /v2/repository/models/m/load HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            server.await_("the index tells", lambda: "load_limit of 0.1 s" in loading(server, "m"))
            assert server.infer("m", sim_request()).status == 503
            assert server.infer("other", sim_request()).status == 200
            server.process.kill()  # A load cannot be ended: the server would wait for it.
            server.process.wait()
