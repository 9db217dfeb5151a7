"""Models in processes of their own: what their ends cost, and that they end."""

import contextlib
import json
import os
import re
import signal
import threading
import time

import numpy as np
import pytest

from serving import (
    PATIENCE_S,
    Load,
    Raw,
    Server,
    binary_request,
    infer_path,
    put_model,
    put_sim,
    sim_request,
)

ISOLATED = {"isolation": "process"}
ROW = [float(i) for i in range(16)]


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def parent_of(pid):
    """None when there is no such process, or it has ended and nobody has looked."""
    try:
        fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[1])


def processes(server):
    """The process ids of the server's models: the children of its child."""
    everybody = {int(name): parent_of(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    zygotes = {pid for pid, parent in everybody.items() if parent == server.process.pid}
    return {pid for pid, parent in everybody.items() if parent in zygotes}, zygotes


def started(server):
    lines = (line for line in server.logged().splitlines() if line.startswith("{"))
    events = [json.loads(line) for line in lines]
    return [e["pid"] for e in events if e["message"] == "model process started"]


def restarts(server, model):
    """As of the last look that found the model's process at rest."""
    return server.metrics().of_model("weir_model_process_restarts_total", model)


def values(answer):
    return answer.json()["outputs"][0]["data"]


def test_it_serves_from_another_process(tmp_path, root):
    put_model(root, "identity_fp32", **ISOLATED)
    put_sim(root, "here")
    numbers = np.arange(48, dtype=np.float32).reshape(3, 16)
    with Server(tmp_path, root, "--model-control", "explicit", "--load-model", "*") as server:
        body, headers = binary_request({"x": numbers}, ["y"])
        answer = server.infer("identity_fp32", body, headers)
        assert answer.body.endswith(numbers.tobytes())
        children, zygotes = processes(server)
        assert len(zygotes) == 1
        assert children == set(started(server)) and len(children) == 1
        assert restarts(server, "identity_fp32") == 0
        process_bytes = "weir_model_process_bytes"
        server.await_("its memory", lambda: server.metrics().of_model(process_bytes, "identity_fp32") > 0)
        assert server.unload("identity_fp32").status == 200
        server.await_("its process ends", lambda: not processes(server)[0])
        assert server.infer("here", sim_request()).status == 200


class LargeInputs:
    """Clients whose tensors are received in the memory of the model's process; some leave within theirs."""

    def __init__(self, server, model):
        self.server, self.model = server, model
        self.failures = []

    def ask(self, seed):
        numbers = np.random.default_rng(seed)
        with self.server.connect() as connection:
            for turn in range(12):
                shape = (1, int(numbers.integers(10, 300)), 512)
                values = numbers.integers(0, 1 << 20, shape).astype(np.float32)
                body, headers = binary_request({"x": values}, ["y"])
                if turn % 4 == 3:
                    self.leave(body, headers)
                    continue
                answer = connection.post(infer_path(self.model), body, headers)
                if answer.status != 200 or not answer.body.endswith(values.tobytes()):
                    self.failures.append((seed, turn, answer.status, answer.body[:200]))

    def leave(self, body, headers):
        lines = [f"POST {infer_path(self.model)} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        with Raw(self.server.port) as raw:
            raw.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body[: len(body) // 2])
            raw.reset()

    def run(self, clients=8):
        threads = [threading.Thread(target=self.ask, args=(seed,)) for seed in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert self.failures == []


def test_large_inputs(tmp_path, root):
    put_model(root, "a", "dynamic", **ISOLATED)
    with Server(tmp_path, root) as server:
        LargeInputs(server, "a").run()
        (pid,) = processes(server)[0]
        os.kill(pid, signal.SIGKILL)
        server.await_("its end", lambda: "model process ended" in server.logged())
        LargeInputs(server, "a").run()


def test_a_model_goes_while_its_inputs_are_received(tmp_path, root):
    """The memory that they are received in is the model's, and stays until they are there."""
    put_model(root, "a", "dynamic", **ISOLATED)
    values = np.ones((1, 300, 512), np.float32)
    body, headers = binary_request({"x": values}, ["y"])
    lines = [f"POST {infer_path('a')} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with Server(tmp_path, root, "--model-control", "explicit", "--load-model", "*") as server:
        with Raw(server.port) as early, Raw(server.port) as late:
            for raw in (early, late):
                raw.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body[:100000])
            assert server.unload("a").status == 200
            server.await_("its process ends", lambda: not processes(server)[0])
            early.send(body[100000:])
            assert early.answer().status == 404
            assert server.load("a").status == 200
            late.send(body[100000:])
            answer = late.answer()
            assert answer.status == 200 and answer.body.endswith(values.tobytes())


def received(server, model):
    """Bytes of the memory that its inputs are received in: what it has beyond its process."""
    metrics = server.metrics()
    heap = metrics.of_model("weir_model_memory_bytes", model, source="heap")
    return heap - metrics.of_model("weir_model_process_bytes", model)


def test_promised_inputs_take_no_memory(tmp_path, root):
    """Clients that say how much they will send, and then stall, leave the model's memory to others."""
    put_model(root, "a", "dynamic", **ISOLATED)
    values = np.ones((1, 300, 512), np.float32)
    body, headers = binary_request({"x": values}, ["y"])
    lines = [f"POST {infer_path('a')} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}"]
    lines += ["Expect: 100-continue"] + [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    with Server(tmp_path, root) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Raw(server.port)) for _ in range(20)]
        for raw in clients:
            raw.send(head)
            assert raw.answer().status == 100
        server.await_("it counts its process", lambda: received(server, "a") < 5 << 20)
        for raw in clients:
            raw.send(body[:1000])
        server.await_("they send", lambda: received(server, "a") > 18 << 20)
        for raw in clients[:3]:
            raw.send(body[1000:])
            answer = raw.answer()
            assert answer.status == 200 and answer.body.endswith(values.tobytes())


def test_nothing_is_started_where_nobody_asks_for_it(tmp_path, root):
    put_sim(root, "here")
    with Server(tmp_path, root) as server:
        assert processes(server) == (set(), set())


def test_a_killed_process_is_replaced(tmp_path, root):
    put_sim(root, "a", parameters={"tau0": "1ms"}, **ISOLATED)
    with Server(tmp_path, root) as server:
        for _ in range(3):
            (pid,) = processes(server)[0]
            os.kill(pid, signal.SIGKILL)
            server.await_(
                "right answers",
                lambda: (a := server.infer("a", sim_request(ROW))).status == 200
                and values(a) == ROW,
            )
            server.await_("its end", lambda: pid not in processes(server)[0])
        server.await_("all are counted", lambda: restarts(server, "a") == 3)
        server.await_("the log", lambda: server.logged().count("model process ended") == 3)


def test_no_wrong_answer_while_processes_are_killed(tmp_path, root):
    put_sim(root, "a", parameters={"tau0": "1ms"}, **ISOLATED)
    with Server(tmp_path, root) as server:
        with Load(server, "a", sim_request(ROW)) as load:
            for _ in range(5):
                load.answered(20)
                for pid in processes(server)[0]:
                    os.kill(pid, signal.SIGKILL)
            load.answered(20)
        assert {status for status, _ in load.wrong} <= {500, 503}


def test_files_that_changed_are_not_served_as_the_old_ones(tmp_path, root):
    put_model(root, "a", "identity_fp32", **ISOLATED)
    body, headers = binary_request({"x": np.ones((1, 16), np.float32)}, ["y"])
    with Server(tmp_path, root) as server:
        assert server.infer("a", body, headers).status == 200
        put_model(root, "other", "add_sub")
        os.replace(root / "other/1/model.onnx", root / "a/1/model.onnx")
        (pid,) = processes(server)[0]
        os.kill(pid, signal.SIGKILL)

        def why():
            answer = server.infer("a", body, headers)
            return "" if answer.status == 200 else answer.error

        for _ in range(3):
            server.await_("the reason", lambda: "have changed" in why())


def test_the_zygote_may_be_killed(tmp_path, root):
    put_sim(root, "a", **ISOLATED)
    with Server(tmp_path, root) as server:
        (zygote,) = processes(server)[1]
        os.kill(zygote, signal.SIGKILL)
        server.await_(  # The old process may still answer first.
            "an answer by another one's child",
            lambda: server.infer("a", sim_request()).status == 200 and processes(server)[1] - {zygote},
        )


def test_a_crash_costs_its_own_requests(tmp_path, root):
    put_sim(root, "bad", parameters={"crash_at": 12}, **ISOLATED)
    put_sim(root, "good", **ISOLATED)
    with Server(tmp_path, root) as server:
        with Load(server, "good", sim_request(ROW), clients=2) as good:
            with Load(server, "bad", sim_request(ROW), clients=1) as bad:
                bad.answered(40)
        assert good.wrong == []
        server.await_("it is counted", lambda: restarts(server, "bad") >= 1)


def test_a_hung_run_ends_at_its_limit(tmp_path, root):
    put_sim(root, "a", parameters={"hang_at": 20}, run_limit="500ms", **ISOLATED)
    with Server(tmp_path, root) as server:
        with Load(server, "a", sim_request(ROW), clients=1) as load:
            load.answered(40)
        assert all(b"limit of 500 ms" in body for _, body in load.wrong)


def test_groups_and_instances(tmp_path, root):
    for name in ("a", "b"):
        put_sim(root, name, isolation_scope="group", isolation_group="npu", **ISOLATED)
    put_sim(root, "c", isolation_scope="instance", instances=2, **ISOLATED)
    with Server(tmp_path, root) as server:
        for name in "abc":
            assert values(server.infer(name, sim_request(ROW))) == ROW
        names = re.findall(r'"model process started","model":"(\w+)"', server.logged())
        assert names.count("npu") == 1 and names.count("c") >= 2


def test_nobody_outlives_the_server(tmp_path, root):
    put_sim(root, "a", **ISOLATED)
    put_sim(root, "b", **ISOLATED)
    with Server(tmp_path, root) as server:
        children, zygotes = processes(server)
        assert len(children) == 2
        server.process.kill()
        server.process.wait()
        until = time.monotonic() + PATIENCE_S
        while any(parent_of(pid) is not None for pid in children | zygotes):
            assert time.monotonic() < until
            time.sleep(0.01)


def test_what_its_settings_must_be(tmp_path, root):
    put_sim(root, "a", isolation_group="npu", **ISOLATED)
    put_sim(root, "b", memory_limit="1GiB")
    with Server(tmp_path, root) as server:
        reasons = {entry["name"]: entry["reason"] for entry in server.index()}
        assert "isolation_scope: group" in reasons["a"]
        assert "without isolation: process" in reasons["b"]
