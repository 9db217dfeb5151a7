"""Runs in the server's own process that take longer than their model's run_limit."""

import concurrent.futures
import contextlib
import time

from serving import Server, put_sim, sim_request

STUCK = 777.0


def row(number):
    return [float(number)] + [1.0] * 15


def repository(tmp_path, stuck="1h", **config):
    root = tmp_path / "models"
    root.mkdir()
    put_sim(
        root,
        "m",
        parameters={"tau0": "1ms", "stuck_on": STUCK, "stuck": stuck, "exclusive": "false"},
        run_limit="200ms",
        **config,
    )
    put_sim(root, "other", parameters={"tau0": "1ms"})
    return root


@contextlib.contextmanager
def hung(tmp_path, *words, root):
    """A server whose runs are stuck for good: it stops all the same, and says that it left something."""
    with Server(tmp_path, "--limits.drain-timeout", "300ms", *words, root) as server:
        yield server
        assert server.stop() != 0


def get_stuck(server, count):
    """Statuses of so many runs at once that are stuck."""
    with concurrent.futures.ThreadPoolExecutor(count) as clients:
        asked = clients.map(lambda _: server.infer("m", sim_request(row(STUCK))), range(count))
        return [answer.status for answer in asked]


def works(server, model="other"):
    answer = server.infer(model, sim_request(row(1)))
    return answer.status == 200 and answer.json()["outputs"][0]["data"] == row(1)


def test_a_run_that_comes_back_gives_everything_back(tmp_path):
    root = repository(tmp_path, stuck="3s")
    with Server(tmp_path, "--executors", "1", root) as server:
        answer = server.infer("m", sim_request(row(STUCK)))
        assert answer.status == 500 and "run_limit" in answer.error
        server.await_("the run is back", lambda: server.state("m") == ("READY", ""))
        assert works(server, "m") and works(server)


def test_a_run_that_never_comes_back_is_written_off(tmp_path):
    with hung(tmp_path, "--executors", "1", root=repository(tmp_path)) as server:
        began = time.monotonic()
        answer = server.infer("m", sim_request(row(STUCK)))
        assert time.monotonic() - began >= 1.2  # The limit, and a second to heed it.
        assert answer.status == 500 and "run_limit" in answer.error
        state, reason = server.state("m")
        assert state == "UNAVAILABLE" and "isolation: process" in reason
        assert server.get("/v2/models/m/ready").status == 400
        refused = server.infer("m", sim_request(row(1)))
        assert refused.status == 503 and "isolation: process" in refused.error
        assert works(server)  # By a spare executor.
        assert server.get("/v2/health/ready").status == 200
        assert server.metrics().of_model("weir_model_available", "m") == 0


def test_ready_turns_false_when_no_spare_is_left(tmp_path):
    root = repository(tmp_path, max_batch_size=1)
    with hung(tmp_path, "--executors", "3", root=root) as server:
        assert get_stuck(server, 3) == [500, 500, 500]
        assert server.get("/v2/health/ready").status == 503
        assert server.get("/v2/health/live").status == 200
        assert works(server)


def test_ready_turns_true_when_the_runs_are_back(tmp_path):
    root = repository(tmp_path, stuck="4s", max_batch_size=1)
    with Server(tmp_path, "--executors", "3", root) as server:
        get_stuck(server, 3)
        server.await_("the runs are back", lambda: server.get("/v2/health/ready").status == 200)
        server.await_("all of them", lambda: server.state("m") == ("READY", ""))
        assert works(server, "m") and works(server)


def test_a_run_that_can_be_stopped_is(tmp_path):
    """A loop without end heeds the flag at its limit: nothing is written off."""
    root = tmp_path / "models"
    root.mkdir()
    put_sim(root, "m", parameters={"tau0": "1ms", "hang_at": 8}, run_limit="200ms", instances=1)
    with Server(tmp_path, root) as server:
        statuses = []
        while not statuses or statuses[-1] == 200 and len(statuses) < 20:
            statuses.append(server.infer("m", sim_request(row(1))).status)
        assert statuses[-1] == 500
        assert server.state("m") == ("READY", "")
        assert works(server, "m")


def test_a_server_with_a_hung_run_stops(tmp_path):
    with hung(tmp_path, root=repository(tmp_path)) as server:
        assert server.infer("m", sim_request(row(STUCK))).status == 500
    assert "unfinished" in server.logged()
