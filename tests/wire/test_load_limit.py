"""Loads that hang: ended where the model has a process of its own, written off where it has not."""

from serving import Server, put_sim, sim_request
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


def test_a_load_that_hangs_in_the_server_is_written_off(tmp_path):
    """It holds up neither the loads behind it nor the server's end."""
    root = repository(tmp_path, "m", {"load": "1h"}, load_limit="100ms")
    put_sim(root, "next", parameters={"tau0": "1ms"})
    with serving(tmp_path, root) as server:
        reason = failed(server, "m")
        assert "load_limit of 0.1 s" in reason and "isolation: process" in reason
        assert server.infer("next", sim_request()).status == 200
        assert server.infer("m", sim_request()).status == 503
        assert server.metrics().get("weir_model_loads_hung") == 1
        assert server.get("/v2/health/ready").status == 503
        assert server.stop() == 0
        assert "model unavailable" in server.logged() and "load unfinished" in server.logged()


def test_what_hangs_after_a_load_is_written_off(tmp_path):
    """Packing the weights of a hot model, and unloading another one: nothing waits for them."""
    hot = {"tau0": "1ms", "mapped": "1MiB", "pack": "1h"}
    root = repository(tmp_path, "hot", hot, load_limit="1s", promote_after=1)
    put_sim(root, "going", parameters={"unload": "1h"}, load_limit="1s")
    put_sim(root, "next")
    words = ("--model-control", "explicit", "--load-model", "hot", "--load-model", "going")
    with Server(tmp_path, *words, "--devices", "other:1", root) as server:
        assert server.infer("hot", sim_request()).status == 200
        server.await_("it is told", lambda: "packing its weights" in (server.state("hot")[1] or ""))
        assert server.unload("going").status == 200
        assert server.load("next").status == 200
        state, reason = server.state("going")
        assert state == "UNLOADING" and "unloading it takes longer" in reason
        assert server.infer("going", sim_request()).status == 404
        assert server.infer("hot", sim_request()).status == 200
        assert server.metrics().get("weir_model_loads_hung") == 2
        assert server.stop() == 0
        for part in ("model advice", "model unavailable", "load unfinished"):
            assert part in server.logged()


def test_a_trial_run_that_hangs_in_the_server_is_written_off(tmp_path):
    """By its run_limit, not by the limit of loads, which may be long."""
    root = repository(tmp_path, "m", {"hang_at": 1}, run_limit="100ms")
    with serving(tmp_path, root) as server:
        reason = server.await_("the load's end", lambda: failed(server, "m"))
        assert "run_limit" in reason and "isolation: process" in reason
        assert server.infer("other", sim_request()).status == 200
        assert server.metrics().get("weir_model_loads_hung") == 1


def test_a_load_under_way_ends_with_the_drain_time(tmp_path):
    """Nobody waits for this one: it was found by polling.  What has not begun is left undone."""
    root = repository(tmp_path, "m", {})
    words = ("--model-control", "poll", "--poll-interval", "50ms", "--log-level", "debug")
    drain = ("--limits.drain-timeout", "500ms")
    with Server(tmp_path, *words, *drain, "--devices", "other:1", root) as server:
        put_sim(root, "slow", parameters={"load": "1h"})
        begins = '"message":"model load begins","model":"slow"'
        server.await_("the load", lambda: begins in server.logged())
        assert server.stop() == 0
        assert "load unfinished" in server.logged()
