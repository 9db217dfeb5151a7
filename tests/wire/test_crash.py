"""Models whose process dies: who is to blame, what is refused, and that nobody else notices."""

import concurrent.futures
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import time

from serving import BINARY, PATIENCE_S, Load, Server, infer_path, is_sanitized, put_sim, sim_request

SOAK = "WEIR_SOAK" in os.environ
PAUSE_S = 0.002

GUILTY = 666.0
STUCK = 777.0


def guilty_row(number=GUILTY):
    return [number] + [0.0] * 15


def good_row(i):
    return [float(i)] + [1.0] * 15


def isolated(root, name="m", parameters=None, **config):
    settings = {"tau0": "1ms", "crash_on": GUILTY, "stuck_on": STUCK, **(parameters or {})}
    put_sim(root, name, parameters=settings, isolation="process", **config)


def repository(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    return root


def deaths(server, how, model="m"):
    return server.metrics().of_model("weir_model_process_deaths_total", model, death=how) or 0


def echoes(answer, row):
    return answer.status == 200 and answer.json()["outputs"][0]["data"] == row


def children(server):
    """Processes that the server has made, and those have made."""
    found = []
    todo = [server.process.pid]
    while todo:
        pid = todo.pop()
        try:
            tasks = os.listdir(f"/proc/{pid}/task")
            for task in tasks:
                with open(f"/proc/{pid}/task/{task}/children") as file:
                    todo += [int(word) for word in file.read().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        found.append(pid)
    return found[1:]


class Traffic(Load):
    """Clients with good inputs, each one another, that take a breath between them; or, with a `period_s`, ask at these
    intervals as far as answers come."""

    def __init__(self, server, clients=4, period_s=None):
        super().__init__(server, "m", None, clients)
        self.period_s = period_s
        self.failures = []
        self.times = []

    def pause(self, due):
        """Until the next request is due; returns when the one behind it is."""
        now = time.monotonic()
        if self.period_s is None:
            self.stopping.wait(PAUSE_S)
            return now
        self.stopping.wait(max(0.0, due - now))
        return max(due, now) + self.period_s

    def ask(self, i):
        number = 0
        due = time.monotonic()
        with self.server.connect() as connection:
            while not self.stopping.is_set():
                number += 1
                row = good_row(1000 * (i + 1) + number % 1000)
                began = time.monotonic()
                answer = connection.post(infer_path("m"), sim_request(row))
                self.times.append((began, time.monotonic()))
                if answer.status != 200:
                    self.failures.append(answer.body[:200])
                elif answer.json()["outputs"][0]["data"] != row:
                    self.wrong.append((row[0], answer.json()["outputs"][0]["data"][0]))
                else:
                    self.counts[i] += 1
                due = self.pause(due)

    def success(self):
        return 1 - len(self.failures) / len(self.times)


def test_a_lost_device_is_had_again_in_a_new_process(tmp_path):
    """Who asks notices nothing, and is not to blame."""
    root = repository(tmp_path)
    isolated(root, parameters={"lost_on": "*", "lost_at": "8", "lost_runs": "1"}, batching="off")
    with Server(tmp_path, root) as server:
        for i in range(10):  # The second process does not get as far as to its eighth run.
            assert echoes(server.infer("m", sim_request(good_row(i))), good_row(i))
        assert deaths(server, "lost its device") == 1
        assert server.get("/v2/quarantine").json()["entries"] == []


def test_an_input_that_breaks_the_device_is_found_and_refused(tmp_path):
    root = repository(tmp_path)
    isolated(root, parameters={"fault_on": "555"})
    with Server(tmp_path, root) as server:
        for _ in range(3):
            assert server.infer("m", sim_request(guilty_row(555.0))).status == 422
        assert deaths(server, "crashed") == 2
        assert deaths(server, "lost its device") == 0
        assert echoes(server.infer("m", sim_request(good_row(1))), good_row(1))


def test_a_crashing_input_is_found_and_refused(tmp_path):
    root = repository(tmp_path)
    isolated(root)
    with Server(tmp_path, root) as server:
        with Traffic(server) as traffic:
            with concurrent.futures.ThreadPoolExecutor(8) as clients:
                answers = list(
                    clients.map(
                        lambda _: server.infer("m", sim_request(guilty_row())),
                        range(100),
                    )
                )
            traffic.answered(1)
        assert {answer.status for answer in answers} == {422}
        assert "m" in answers[-1].error
        assert 1 <= deaths(server, "crashed") <= 3
        assert not traffic.wrong
        assert traffic.success() >= 0.999, traffic.failures[:3]
        metrics = server.metrics()
        assert metrics.get("weir_quarantine_entries") == 1
        assert metrics.get("weir_quarantine_convicted_total") == 1
        assert metrics.get("weir_quarantine_refused_total") >= 90


def test_the_quarantine_is_shown_and_cleared(tmp_path):
    root = repository(tmp_path)
    isolated(root)
    put_sim(root, "other")
    with Server(tmp_path, "--model-control", "explicit", "--load-model", "m", root) as server:
        assert server.infer("m", sim_request(guilty_row())).status == 422
        assert server.infer("m", sim_request(guilty_row())).status == 422
        assert deaths(server, "crashed") == 2
        (entry,) = server.get("/v2/quarantine").json()["entries"]
        assert entry["model"] == "m" and entry["version"] == "1"
        assert entry["death"] == "crashed" and entry["refused"] == 1
        assert 0 < entry["expires_s"] <= 3600
        clear = server.post("/v2/quarantine/clear", {"model": "other"})
        assert clear.json() == {"cleared": 0}  # It is known, though not loaded.
        unknown = server.post("/v2/quarantine/clear", {"model": "nobody"})
        assert unknown.status == 404 and "'nobody' is not found" in unknown.error
        assert server.infer("m", sim_request(good_row(1))).status == 200
        assert server.post("/v2/quarantine/clear", {"model": "m"}).json() == {"cleared": 1}
        assert server.get("/v2/quarantine").json() == {"entries": []}
        assert server.infer("m", sim_request(guilty_row())).status == 422
        assert deaths(server, "crashed") == 4  # It was tried again.


def quarantine(server, *words):
    """`weir quarantine`: exit status, standard output and standard error."""
    done = subprocess.run(
        [BINARY, "quarantine", *words, "--url", server.url],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_quarantine_on_the_command_line(tmp_path):
    root = repository(tmp_path)
    isolated(root)
    put_sim(root, "other")
    with Server(tmp_path, root) as server:
        assert quarantine(server) == (0, "no input is refused\n", "")
        assert server.infer("m", sim_request(guilty_row())).status == 422
        (entry,) = server.get("/v2/quarantine").json()["entries"]
        code, text, _ = quarantine(server, "list")
        assert code == 0 and text.splitlines()[0].split()[:3] == ["MODEL", "VERSION", "DID"]
        assert text.splitlines()[1].split()[:3] == ["m", "1", "crashed"]
        assert entry["digest"] in text and "\x1b" not in text
        code, text, _ = quarantine(server, "list", "--json")
        assert json.loads(text)["entries"][0]["digest"] == entry["digest"]
        assert quarantine(server, "clear", "--model", "other")[:2] == (0, "0 inputs let go\n")
        code, text, error = quarantine(server, "clear", "--model", "nobody")
        assert code == 1 and text == "" and "404: Request for unknown model: 'nobody'" in error
        assert quarantine(server, "clear", "--model", "m")[1] == "1 input let go\n"
        assert json.loads(quarantine(server, "clear", "--json")[1]) == {"cleared": 0}
        assert server.get("/v2/quarantine").json() == {"entries": []}
    code, text, error = quarantine(server)
    assert code == 1 and text == "" and "127.0.0.1" in error  # Nobody is there any more.


def test_quarantine_expires(tmp_path):
    root = repository(tmp_path)
    isolated(root)
    with Server(tmp_path, "--limits.quarantine", "200ms", root) as server:
        assert server.infer("m", sim_request(guilty_row())).status == 422
        server.await_(
            "the entry expires", lambda: not server.get("/v2/quarantine").json()["entries"]
        )


def test_neighbours_in_the_batch_are_answered(tmp_path):
    """A run of several dies; only the one to blame is refused."""
    root = repository(tmp_path)
    isolated(root, parameters={"tau0": "20ms"}, dynamic_batching={"max_queue_delay_microseconds": 100000})
    with Server(tmp_path, root) as server:
        rows = [good_row(i) for i in range(5)] + [guilty_row()] + [good_row(i) for i in range(5, 8)]
        with concurrent.futures.ThreadPoolExecutor(len(rows)) as clients:
            answers = list(clients.map(lambda row: server.infer("m", sim_request(row)), rows))
        for row, answer in zip(rows, answers):
            if row[0] == GUILTY:
                assert answer.status == 422
            else:
                assert echoes(answer, row), answer.body
        assert 1 <= deaths(server, "crashed") <= 2


def capacity(server, clients):
    """Requests per second that so many clients get answered without a pause between them."""
    with Traffic(server, clients, period_s=0.0) as traffic:
        traffic.answered(25)
        first = len(traffic.times)
        began = time.monotonic()
        traffic.answered(250)
        return (len(traffic.times) - first) / (time.monotonic() - began)


def storm(server, kill_count, pause, **settings):
    """A random child is killed again and again, be it the one that makes the others, with a pause before
    each; what its clients saw, and when."""
    dice = random.Random(7)
    kills = []
    with Traffic(server, **settings) as traffic:
        while len(kills) < kill_count:
            pause(traffic)
            alive = children(server)
            if alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(dice.choice(alive), signal.SIGKILL)
                    kills.append(time.monotonic())
        traffic.answered(1)
    return traffic, kills


def restarts_s(traffic, kills):
    """Per kill the longest wait of a client that waited then or came within a quarter of a second."""
    waits = []
    for at in kills:
        met = [end - begin for begin, end in traffic.times if begin < at + 0.25 and end > at]
        waits.append(max(met, default=0.0))
    return sorted(waits)


def test_killing_children_costs_nobody_an_answer(tmp_path):
    root = repository(tmp_path)
    isolated(root, parameters={"tau0": "5ms"}, batching="off")  # The model is the limit, not these clients.
    with Server(tmp_path, root) as server:
        if SOAK:
            most = capacity(server, 8)
            half = {"clients": 8, "period_s": 8 / (most / 2)}
            traffic, kills = storm(server, 120, lambda _: time.sleep(0.5), **half)
            waits = restarts_s(traffic, kills)
            p99 = waits[int(len(waits) * 0.99)]
            span = traffic.times[-1][1] - traffic.times[0][0]
            print(f"\ncapacity {most:.0f}/s, storm at {len(traffic.times) / span:.0f}/s: {len(kills)} kills, ")
            print(f"{len(traffic.times)} requests, {len(traffic.failures)} failed, ")
            print(f"restart p50 {waits[len(waits) // 2]:.3f} s p99 {p99:.3f} s")
            assert p99 < 1 or is_sanitized()
        else:  # However slow the machine is: whoever was there has had an answer, and asked again.
            traffic, _ = storm(server, 10, lambda traffic: traffic.answered(10))
        assert not traffic.wrong
        assert traffic.success() >= 0.995, traffic.failures[:3]
        assert server.metrics().get("weir_quarantine_convicted_total") == 0
        assert echoes(server.infer("m", sim_request(good_row(5))), good_row(5))


def test_a_hung_run_ends_with_its_child(tmp_path):
    root = repository(tmp_path)
    isolated(root, run_limit="500ms")
    put_sim(root, "other", parameters={"tau0": "1ms"})
    with Server(tmp_path, root) as server:
        began = time.monotonic()
        answer = server.infer("m", sim_request(guilty_row(STUCK)))
        took = time.monotonic() - began
        assert answer.status == 422 and "hung" in answer.error
        assert took >= 2 * 1.5  # The first run, and the one alone.
        assert deaths(server, "hung") == 2
        assert server.infer("other", sim_request(good_row(1))).status == 200
        assert echoes(server.infer("m", sim_request(good_row(1))), good_row(1))


def test_a_model_that_always_crashes_is_given_a_pause(tmp_path):
    root = repository(tmp_path)
    isolated(root)
    put_sim(root, "other", parameters={"tau0": "1ms"})
    with Server(tmp_path, root) as server:
        for i in range(3):  # Each row holds the number, each input is another one.
            row = [GUILTY, float(i)] + [0.0] * 14
            assert server.infer("m", sim_request(row)).status in (422, 503)
        refused = server.infer("m", sim_request(good_row(1)))
        assert refused.status == 503 and "crashed" in refused.error
        left_s = float(re.search(r"tried again in ([\d.]+) s", refused.error)[1])
        assert abs(int(refused.headers["Retry-After"]) - left_s) < 2.2
        state, reason = server.state("m")
        assert state == "UNAVAILABLE" and "5 times" in reason
        assert server.get("/v2/models/m/ready").status == 400
        assert server.get("/v2/health/ready").status == 503
        assert server.metrics().of_model("weir_model_available", "m") == 0
        assert server.infer("other", sim_request(good_row(1))).status == 200
        server.await_("the pause is over", lambda: server.get("/v2/health/ready").status == 200)
        assert server.infer("m", sim_request(good_row(1))).status == 200
        assert server.state("m") == ("READY", "")


def test_a_reload_ends_the_pause(tmp_path):
    root = repository(tmp_path)
    isolated(root)
    with Server(tmp_path, "--model-control", "explicit", "--load-model", "*", root) as server:
        for i in range(3):
            server.infer("m", sim_request([GUILTY, float(i)] + [0.0] * 14))
        assert server.state("m")[0] == "UNAVAILABLE"
        isolated(root, parameters={"tau0": "2ms"})
        assert server.load("m").status == 200
        assert server.infer("m", sim_request(good_row(1))).status == 200
        assert server.state("m")[0] == "READY"
