"""Runs in the server's own process that take longer than their model's run_limit."""

import concurrent.futures
import contextlib
import json
import select
import socket
import threading
import time

import pytest

from serving import PATIENCE_S, Raw, Server, infer_path, put_sim, sim_request

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
        run_limit="500ms",
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
        assert time.monotonic() - began >= 1.5  # The limit, and a second to heed it.
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
    put_sim(root, "m", parameters={"tau0": "1ms", "hang_at": 8}, run_limit="500ms", instances=1)
    with Server(tmp_path, root) as server:
        statuses = []
        while not statuses or statuses[-1] == 200 and len(statuses) < 20:
            statuses.append(server.infer("m", sim_request(row(1))).status)
        assert statuses[-1] == 500
        assert server.state("m") == ("READY", "")
        assert works(server, "m")


def begin(server, row_of, **parameters):
    """Sends a request to `m`, and gives the connection that its answer will come on."""
    raw = Raw(server.port)
    body = json.dumps(sim_request(row_of, parameters=parameters)).encode()
    head = f"POST {infer_path('m')} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    raw.send(head.encode() + body)
    return raw


@pytest.mark.parametrize("strategy", [None, "direct", "oldest"])
def test_nobody_waits_behind_a_run_that_never_ends(tmp_path, strategy):
    """No deadline would end them: neither those in line, nor the next ones of a sequence."""
    config = {"instances": 1, "max_batch_size": 0, "batching": "off"}
    if strategy is not None:
        config["sequence_batching"] = {
            "max_sequence_idle_microseconds": int(PATIENCE_S * 1e6), strategy: {}}
    root = repository(tmp_path, **config)
    with hung(tmp_path, "--loops", "1", "--executors", "2", root=root) as server:
        stuck = begin(server, row(STUCK), sequence_id=1, sequence_start=True)
        server.await_("it runs", lambda: server.metrics().get("weir_http_bodies_bytes") > 0
                      and server.pending("m") == 0)
        behind = begin(server, row(1), sequence_id=1)
        other = begin(server, row(1), sequence_id=2, sequence_start=True)
        assert stuck.answer().status == 500
        assert behind.answer().status in (409, 503)
        answer = other.answer()
        assert answer.status == 503 and "does not end" in answer.error
        assert works(server)


def test_loads_do_not_wait_for_ever_behind_one_that_does(tmp_path):
    """`update: replace`: what serves goes first, and its run does not end while its client waits."""

    def put(name, size, *, more=None, **config):
        put_sim(root, name, parameters={"memory_per_model": size, **(more or {})}, device="npu",
                **config)

    def put_replaced(**more):
        put("m", "100MiB", more={"hang_at": 2, **more}, update="replace", max_batch_size=0,
            batching="off")

    root = tmp_path / "models"
    root.mkdir()
    put_replaced()
    put("large", "100MiB")
    put("small", "20MiB")
    words = ("--model-control", "explicit", "--load-model", "m", "--devices", "npu:1",
             "--memory-devices", "npu:150MiB")
    with Server(tmp_path, *words, root) as server:
        with begin(server, row(1)), Raw(server.port) as load:
            server.await_("it runs", lambda: server.metrics().get("weir_http_bodies_bytes") > 0
                          and server.pending("m") == 0)
            put_replaced(tau0="1ms")
            load.send(b"POST /v2/repository/models/m/load HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            server.await_("it goes", lambda: "UNLOADING" in str(server.state("m")))
            with concurrent.futures.ThreadPoolExecutor(2) as clients:
                large, small = clients.map(server.load, ["large", "small"])
            assert large.status == 503 and "still in use" in large.error
            assert small.status == 200


def test_a_server_with_a_hung_run_stops(tmp_path):
    with hung(tmp_path, root=repository(tmp_path)) as server:
        assert server.infer("m", sim_request(row(STUCK))).status == 500
    assert "unfinished" in server.logged()


# --- Runs on network threads ----------------------------------------------------------------------


def short_lived(tmp_path, stuck, **config):
    root = tmp_path / "models"
    root.mkdir()
    parameters = {"tau0": "1us", "short_lived": "true", "stuck_on": STUCK, "stuck": stuck}
    put_sim(root, "m", parameters=parameters, **config)
    return root


def make_inline(server):
    """Until its runs are known to be short."""
    for _ in range(50):
        assert works(server, "m")


def ask_whom_it_may_concern(server, path):
    """What a loop that turns answers: clients of the others wait."""
    question = f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
    with contextlib.ExitStack() as open_ones:
        sockets = [
            open_ones.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            for _ in range(16)
        ]
        for one in sockets:
            one.sendall(question)
        ready, _, _ = select.select(sockets, [], [], PATIENCE_S)
        answer = b"".join(iter(lambda: ready[0].recv(65536), b""))
    return int(answer.split()[1]), answer


def hangs_a_network_thread(server):
    """False: an executor has the run, as a busy machine made the ones before it look too long for a loop."""
    make_inline(server)

    def get_stuck_for_good():
        with contextlib.suppress(Exception):
            server.infer("m", sim_request(row(STUCK)))

    threading.Thread(target=get_stuck_for_good, daemon=True).start()
    server.await_("told", lambda: "and does not end" in server.logged())
    return "on a network thread and does not end" in server.logged()


def test_a_run_that_hangs_a_network_thread_is_told(tmp_path):
    for attempt in range(20):
        scratch = tmp_path / str(attempt)
        scratch.mkdir()
        root = short_lived(scratch, "1h", run_limit="500ms")
        with hung(scratch, "--loops", "2", root=root) as server:
            if hangs_a_network_thread(server):
                status, answer = ask_whom_it_may_concern(server, "/v2/models/m/ready")
                assert status == 400 and b"network thread" in answer
                assert ask_whom_it_may_concern(server, "/v2/health/ready")[0] == 503
                return
    raise AssertionError("no run was made on a network thread")


def test_a_network_thread_that_comes_back_serves_again(tmp_path):
    root = short_lived(tmp_path, "3s", run_limit="500ms")
    with Server(tmp_path, root) as server:

        def hung_there():
            make_inline(server)
            answer = server.infer("m", sim_request(row(STUCK)))
            assert answer.status == 500 and "run_limit" in answer.error
            server.await_("ready again", lambda: server.get("/v2/health/ready").status == 200)
            server.await_("the model, too", lambda: works(server, "m"))
            return server.metrics().of_model("weir_model_inline_slow_total", "m") >= 1

        server.await_("a run on the network thread", hung_there)


def test_a_model_that_was_slow_on_a_network_thread_is_run_elsewhere(tmp_path):
    root = short_lived(tmp_path, "100ms")
    with Server(tmp_path, root) as server:

        def slow_runs():
            return server.metrics().of_model("weir_model_inline_slow_total", "m")

        def is_slow_there():
            make_inline(server)
            return server.infer("m", sim_request(row(STUCK))).status == 200 and slow_runs() > 0

        server.await_("a slow run on the loop", is_slow_there)
        slow = slow_runs()
        assert server.infer("m", sim_request(row(STUCK))).status == 200  # By an executor.
        assert slow_runs() == slow
