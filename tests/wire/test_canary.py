"""Canaries: runs of the server's own, which tell whether a model that nobody asks still answers."""

import signal
import time

from serving import Server, put_sim, sim_request, write_whole

FAST = ("--canary-interval", "100ms")


def once_loaded(**parameters):
    """A model that is run once at load: its second run is the first canary."""
    return {"max_batch_size": 0, "batching": "off", "parameters": parameters}


def repository(tmp_path, **models):
    root = tmp_path / "models"
    root.mkdir()
    for name, how in models.items():
        put_sim(root, name, **how)
    return root


def canaries(server, model, which="canaries"):
    return server.metrics().of_model(f"weir_model_{which}_total", model)


def is_ready(server, model):
    return server.get(f"/v2/models/{model}/ready").status == 200


def await_canaries(server, model, count=1):
    server.await_("canaries", lambda: canaries(server, model) >= count)


def test_a_model_that_fails_unasked_is_not_ready_until_it_answers(tmp_path):
    root = repository(
        tmp_path, m=once_loaded(fail_at=4, fail_to=40), other={"canary_interval": "0"}
    )
    with Server(tmp_path, *FAST, root) as server:
        server.await_("not ready", lambda: server.get("/v2/health/ready").status == 503)
        server.await_("again", lambda: is_ready(server, "m"))
        server.await_("all of it", lambda: server.get("/v2/health/ready").status == 200)
        assert server.state("m") == ("READY", "")
        assert canaries(server, "m", "canaries_failed") >= 37
        assert canaries(server, "other") == 0
        assert "its canary run failed: simulated failure" in server.logged()
        server.await_("the log", lambda: "ready again" in server.logged())
        assert server.stats("m")["inference_count"] == 0  # Nobody has asked.
        assert server.stats("m")["execution_count"] == 0


def test_the_reason_is_told_and_requests_are_taken(tmp_path):
    root = repository(tmp_path, m=once_loaded(fail_at=4, fail_to=1000000))
    with Server(tmp_path, *FAST, root) as server:
        server.await_("not ready", lambda: not is_ready(server, "m"))
        assert "canary" in server.get("/v2/models/m/ready").error
        state, reason = server.state("m")
        assert state == "UNAVAILABLE" and "canary" in reason and "simulated failure" in reason
        assert server.metrics().of_model("weir_model_ready", "m") == 0
        refused = server.infer("m", sim_request())
        assert refused.status == 500 and "simulated failure" in refused.error  # It was tried.


def test_one_that_does_not_end_has_failed(tmp_path):
    root = repository(tmp_path, m=once_loaded(hang_at=20))  # Some before it have told that it works.
    with Server(tmp_path, *FAST, root) as server:
        server.await_("it hangs", lambda: "it did not end in time" in server.logged())
        server.await_("the next one does not", lambda: is_ready(server, "m"))
        assert canaries(server, "m", "canaries_failed") >= 1


def test_what_was_configured_is_what_is_run(tmp_path):
    """Zeros would be refused; the sample, which is not zeros, was accepted at the load."""
    warmup = {
        "name": "w",
        "batch_size": 1,
        "inputs": {"x": {"data_type": "TYPE_FP32", "dims": [16], "input_data_file": "x"}},
    }
    root = repository(
        tmp_path,
        m={"parameters": {"poison": 0}, "batching": "insist", "model_warmup": [warmup]},
        zeros={"parameters": {"poison": 0}, "batching": "insist"},
    )
    write_whole(root / "m" / "warmup" / "x", b"\x00\x00\x80\x3f" * 16)
    with Server(tmp_path, *FAST, root) as server:
        await_canaries(server, "m", 3)
        assert canaries(server, "m", "canaries_failed") == 0
        server.await_("zeros", lambda: canaries(server, "zeros", "canaries_failed") >= 3)
        assert is_ready(server, "zeros")  # They were never accepted: they tell nothing.


def test_no_model_is_loaded_for_it(tmp_path):
    root = repository(tmp_path, a={}, b={})
    with Server(tmp_path, *FAST, "--model-control", "demand", root) as server:
        assert server.infer("a", sim_request()).status == 200
        await_canaries(server, "a", 3)
        assert server.state("b") is None or server.state("b")[0] != "READY"


def test_the_interval_changes_live(tmp_path):
    root = repository(tmp_path, m={})
    file = tmp_path / "weir.yaml"
    file.write_text("canary_interval: 0s\n")
    with Server(tmp_path, "--config", file, root) as server:
        file.write_text("canary_interval: 100ms\n")
        assert server.post("/v2/settings/reload").status == 200
        await_canaries(server, "m", 2)
        file.write_text("canary_interval: 0s\n")
        before = server.logged().count("settings reloaded")
        server.process.send_signal(signal.SIGHUP)
        server.await_("reloaded", lambda: server.logged().count("settings reloaded") > before)


def test_a_server_stops_in_order_while_one_hangs(tmp_path):
    """`with` checks the exit status."""
    root = repository(tmp_path, m=once_loaded(hang_at=4))

    def stands(server):
        before = canaries(server, "m")
        time.sleep(1)  # Ten intervals.
        return canaries(server, "m") == before

    with Server(tmp_path, *FAST, root) as server:
        server.await_("one hangs", lambda: stands(server))
