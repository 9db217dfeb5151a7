"""Starting, draining and stopping, as a supervisor and a load balancer see it."""

import contextlib
import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import time

import pytest

from serving import BINARY, PATIENCE_S, Raw, Server, infer_path, put_model, put_sim, sim_request

READY = b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n"
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    put_model(folder, "scalar")
    return folder


# What one loop holds of a request when it answers another one, it has put in line.
ONE_LOOP = ("--loops", "1")


class Held:
    """An inference on a connection of its own, already accepted by a server of one loop."""

    def __init__(self, server, model):
        self.raw = Raw(server.port)
        body = json.dumps(sim_request()).encode()
        path = infer_path(model).encode()
        self.raw.send(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path, len(body))
                      + body)
        held = "weir_http_bodies_bytes"
        server.await_("the request is there", lambda: server.metrics().get(held) == len(body))

    def end(self):
        answer = self.raw.answer()
        assert self.raw.rest() == b""
        self.raw.socket.close()
        return answer


def is_ready(connection):
    connection.send(READY)
    return connection.answer().status == 200


# --- Start ----------------------------------------------------------------------------------------


def test_the_ready_line_names_all_addresses(tmp_path, root):
    with Server(tmp_path, root) as server:
        assert server.ready_line.startswith("ready http://127.0.0.1:")
        assert server.ready_line.endswith("(1 of 1 models)\n")
        assert len(set(server.ports)) == 3
        for port in server.ports:
            assert server.connect(port).ask("GET", "/v2/health/ready").status == 200


def test_a_broken_model_is_not_ready_but_served_around(tmp_path, root):
    put_model(root, "takes_sequence")
    with Server(tmp_path, root) as server:
        assert server.ready_line.startswith("not ready http://127.0.0.1:")
        assert "(1 of 2 models)" in server.ready_line
        assert server.get("/v2/health/ready").status == 503
        assert server.get("/v2/health/live").status == 200
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [], "data": [1]}]}
        assert server.infer("scalar", body).status == 200
        assert "is a sequence" in server.logged()


def test_a_broken_model_that_is_not_required_is_no_hindrance(tmp_path, root):
    put_model(root, "takes_sequence", required=False)
    with Server(tmp_path, root) as server:
        assert server.ready_line.startswith("ready http://127.0.0.1:")
        assert "(1 of 2 models)" in server.ready_line
        assert server.get("/v2/health/ready").status == 200
        assert server.get("/v2/models/takes_sequence/ready").status == 400


def test_a_model_is_required_once_it_is_wanted(tmp_path, root):
    put_model(root, "takes_sequence", required=True)
    with Server(tmp_path, "--model-control", "explicit", root) as server:
        assert server.get("/v2/health/ready").status == 200
        assert server.load("scalar").status == 200
        assert server.load("takes_sequence").status == 400
        assert server.get("/v2/health/ready").status == 503
        assert server.unload("takes_sequence").status == 200
        assert server.get("/v2/health/ready").status == 200


def test_a_taken_port_is_named(tmp_path, root):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = subprocess.run([BINARY, "serve", "--port", str(port), root], capture_output=True,
                              text=True, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"127.0.0.1:{port}" in done.stderr and "in use" in done.stderr


def test_connections_are_not_bound_by_a_soft_limit_of_open_files(tmp_path, root):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with Server(tmp_path, root) as server:
            allowed, _ = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert allowed == hard or allowed > 4096


def test_an_address_of_others_is_refused(root):
    done = subprocess.run([BINARY, "serve", "--port", "0", "--host", "0.0.0.0", root],
                          capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 2
    assert "--allow-wide-bind" in done.stderr


def test_one_port_for_everything(tmp_path, root):
    for _ in range(20):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
        with subprocess.Popen([BINARY, "serve", "--port", str(port), root], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            line = process.stdout.readline()
            process.terminate()
            _, said = process.communicate(timeout=PATIENCE_S)
        if line or "in use" not in said:  # Nobody has taken the port meanwhile.
            break
    assert process.returncode == 0
    assert line == f"ready http://127.0.0.1:{port} (1 of 1 models)\n"


def test_no_telemetry(tmp_path, root):
    """No thread and no file of ONNX Runtime's uploader."""
    with Server(tmp_path, root, env={"HOME": str(tmp_path)}) as server:
        names = server.threads()
        assert all(name.startswith("weir") for name in names), names

        def strange():
            files = set()
            for fd in pathlib.Path(f"/proc/{server.process.pid}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):  # Closed meanwhile.
                    files.add(os.readlink(fd))
            return {name for name in files if name.startswith("/") and not name.startswith("/dev/")}

        server.await_("its log alone", lambda: strange() <= {str(server.log_path)})
        assert {path.name for path in tmp_path.iterdir()} == {"models", "weir.log"}


def test_several_loops_share_the_ports(tmp_path, root):
    with Server(tmp_path, "--loops", "3", root) as server:
        for _ in range(20):
            for port in server.ports:
                assert server.connect(port).ask("GET", "/v2/health/ready").status == 200


# --- Drain ----------------------------------------------------------------------------------------


def test_grace(tmp_path, root):
    """Not ready at once on every connection, but everything still works, new connections too."""
    put_sim(root, "slow")
    with Server(tmp_path, "--limits.drain-grace", "1h", root) as server:
        with Raw(server.port) as first, Raw(server.ports[2]) as second:
            assert is_ready(first) and is_ready(second)
            server.process.send_signal(signal.SIGTERM)
            server.await_("not ready", lambda: not is_ready(first))
            assert not is_ready(second)
            assert server.get("/v2/health/ready").json() == {"ready": False}
            assert server.get("/v2/health/live").status == 200
            assert server.infer("slow", sim_request()).status == 200
        assert server.stop() == 1  # The second signal.


def test_a_process_that_is_stopped_again_and_again_keeps_its_times(tmp_path, root):
    """As by a debugger: no stop puts off what is due."""
    with Server(tmp_path, "--limits.drain-grace", "1s", root) as server:
        server.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + PATIENCE_S
        while server.process.poll() is None:
            assert time.monotonic() < until
            server.process.send_signal(signal.SIGSTOP)
            server.process.send_signal(signal.SIGCONT)
            time.sleep(0.1)  # Far more often than the grace time is long.
        assert server.process.returncode == 0


def test_accepted_requests_finish(tmp_path, root):
    """After the grace time: an answer under way comes, whole and with `Connection: close`."""
    put_sim(root, "slow", max_batch_size=0, batching="off", parameters={"tau0": "2s"})
    with Server(tmp_path, *ONE_LOOP, root) as server:
        held = Held(server, "slow")
        server.process.send_signal(signal.SIGTERM)
        answer = held.end()
        assert answer.status == 200
        assert answer.json()["outputs"][0]["data"] == list(map(float, range(16)))
        assert answer.headers["connection"] == "close"
        assert server.process.wait(PATIENCE_S) == 0


def test_idle_connections_do_not_hold_up_the_end(tmp_path, root):
    with Server(tmp_path, root) as server, Raw(server.port) as idle, Raw(server.port) as fresh:
        idle.send(LIVE)
        assert idle.answer().status == 200
        assert server.stop() == 0
        assert idle.rest() == b""
        assert fresh.rest() == b""


def test_new_connections_are_refused_after_the_grace(tmp_path, root):
    put_sim(root, "slow", max_batch_size=0, batching="off", parameters={"tau0": "2s"})
    with Server(tmp_path, *ONE_LOOP, root) as server:
        held = Held(server, "slow")
        server.process.send_signal(signal.SIGTERM)

        def is_refused():
            try:
                socket.create_connection(("127.0.0.1", server.port)).close()
            except ConnectionRefusedError:
                return True
            except ConnectionResetError:
                pass  # It was in line for the listener that closed.
            return False

        server.await_("refused", is_refused)
        assert held.end().status == 200
        assert server.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_second_signal_ends_at_once(tmp_path, root, how):
    put_sim(root, "hangs", max_batch_size=0, batching="off", parameters={"hang_at": 2})
    with Server(tmp_path, *ONE_LOOP, root) as server:
        held = Held(server, "hangs")
        server.process.send_signal(how)
        server.await_("stopping", lambda: "stopping" in server.logged())
        server.process.send_signal(how)
        assert server.process.wait(PATIENCE_S) == 1
        assert "a second signal" in server.logged()
        assert held.raw.rest() == b""


def test_a_run_that_never_ends_is_given_up(tmp_path, root):
    put_sim(root, "hangs", max_batch_size=0, batching="off", parameters={"hang_at": 2})
    with Server(tmp_path, *ONE_LOOP, "--limits.drain-timeout", "300ms", root) as server:
        held = Held(server, "hangs")
        assert server.stop() == 1
        assert "the drain time-out passed" in server.logged()
        assert held.raw.rest() == b""


def test_a_signal_while_models_load_stops_too(tmp_path, root):
    put_sim(root, "slow", parameters={"load": "2s"})
    process = subprocess.Popen([BINARY, "serve", "--http-port", "0", "--grpc-port", "0",
                                "--metrics-port", "0", "--limits.drain-grace", "0s", root],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "listening" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    out, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert not out.startswith("ready")
    assert "stopped" in log


def test_what_was_said_on_stderr_is_json(tmp_path, root):
    with Server(tmp_path, root) as server:
        server.get("/v2/health/live")
    for line in server.logged().splitlines():
        event = json.loads(line)
        assert {"time", "level", "message"} <= set(event)
