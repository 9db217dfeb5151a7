"""Eight threads load and unload the same and other models while clients infer.  In the end each
model is as the last call left it, and nothing has leaked.  WEIR_SOAK=1 makes it a minute, and one more
with the models in processes of their own."""

import os
import random
import shutil
import threading
import time

import pytest

from serving import ROOT, Server, is_sanitized, put_model, put_sim, sim_request, tensor

SOAK = os.environ.get("WEIR_SOAK") == "1"
SECONDS = 60 if SOAK else 4
ISOLATIONS = ("none", "process") if SOAK else ("none",)
GROWTH_MAX = 6 << 20
X4 = {"inputs": [tensor("x", "FP32", [1, 4], [1, 2, 3, 4])]}
PIXELS = {"inputs": [tensor("pixels", "FP32", [1, 64], [1] * 64)]}
REQUESTS = {"a": X4, "b": X4, "digits": PIXELS, "sim": sim_request()}


def make_repository(root, isolation):
    root.mkdir()
    put_model(root, "a", "double_it", isolation=isolation)
    put_model(root, "b", "double_it", isolation=isolation)
    shutil.copytree(ROOT / "examples" / "models" / "digits", root / "digits")
    put_sim(root, "sim", parameters={"tau0": "200us", "load": "2ms"}, isolation=isolation)


class Churn:
    def __init__(self, server, seconds):
        self.server = server
        self.until = time.monotonic() + seconds
        self.lock = threading.Lock()
        self.calls = {name: [] for name in REQUESTS}  # Began, ended, what it asked for.
        self.answers = {200: 0, 404: 0, 503: 0}
        self.failures = []

    def over(self):
        """Not before each model has been called, however slow the machine is."""
        return self.failures or (time.monotonic() > self.until and all(self.calls.values()))

    def load_and_unload(self, seed):
        choose = random.Random(seed)
        with self.server.connect() as connection:
            while not self.over():
                # Half of all calls are about one model.
                name = "a" if choose.random() < 0.5 else choose.choice(list(REQUESTS))
                what = choose.choice(("load", "unload"))
                began = time.monotonic()
                answer = connection.post(f"/v2/repository/models/{name}/{what}")
                with self.lock:
                    self.calls[name].append((began, time.monotonic(), what))
                if answer.status != 200:
                    self.failures.append((name, what, answer.status, answer.body))

    def infer(self, seed):
        choose = random.Random(seed)
        with self.server.connect() as connection:
            while not self.over():
                name = choose.choice(list(REQUESTS))
                answer = connection.post(f"/v2/models/{name}/infer", REQUESTS[name])
                right = answer.status in self.answers
                if answer.status == 200 and name in "ab":
                    right = answer.json()["outputs"][0]["data"] == [2, 4, 6, 8]
                if not right:
                    self.failures.append((name, answer.status, answer.body))
                    return
                with self.lock:
                    self.answers[answer.status] += 1

    def run(self):
        threads = [threading.Thread(target=self.load_and_unload, args=(i,)) for i in range(8)]
        threads += [threading.Thread(target=self.infer, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not self.failures, self.failures[:5]

    def last(self, name):
        """What the call asked for that was last; those that overlap may have come in any order."""
        calls = self.calls[name]
        latest = max(began for began, _, _ in calls)
        return {what for _, ended, what in calls if ended >= latest}


def is_loaded(server, name):
    return (server.state(name) or ("",))[0] == "READY"


def unload_all(server):
    for name in REQUESTS:
        assert server.unload(name).status == 200
    for name in REQUESTS:
        server.await_("unloaded", lambda: server.state(name)[0] == "UNAVAILABLE")


def measured(server):
    unload_all(server)
    server.await_("calm", lambda: server.metrics().get("weir_http_connections") == 1)
    memory = server.memory() - int(server.metrics().get("weir_blocks_kept_bytes"))
    return memory, server.files(), server.threads()


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_the_last_call_counts_and_nothing_leaks(tmp_path, isolation):
    root = tmp_path / "models"
    make_repository(root, isolation)
    with Server(tmp_path, "--model-control", "explicit", "--log-level", "warning", root) as server:
        Churn(server, min(2, SECONDS / 2)).run()
        memory, files, threads = measured(server)
        churn = Churn(server, SECONDS)
        churn.run()
        for name in REQUESTS:
            last = churn.last(name)
            assert ("load" if is_loaded(server, name) else "unload") in last, name
        assert churn.answers[200] > 0 and churn.answers[404] > 0
        for name in REQUESTS:
            assert server.load(name).status == 200
            assert server.infer(name, REQUESTS[name]).status == 200
        memory_after, *_ = measured(server)
        print(sum(map(len, churn.calls.values())), churn.answers, memory_after - memory)
        server.await_("no more is held", lambda: server.files() <= files and server.threads() == threads)

        def is_back():
            for name in REQUESTS:
                assert server.load(name).status == 200
            return measured(server)[0] - memory < GROWTH_MAX

        if not is_sanitized():  # One round's memory differs from the next one's; a leak does not shrink.
            assert memory_after - memory < GROWTH_MAX or server.await_("memory is back", is_back)
