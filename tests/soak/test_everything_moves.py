"""More models than there is room for, some in processes of their own that crash, asked by many, while budgets and files
change, canaries run and folders come and go: nobody hears anything but an answer or a reason, and all comes back.

SOAK_SECONDS=600 says for how long.
"""

import collections
import os
import pathlib
import random
import shutil
import sys
import threading
import time

ROOT = pathlib.Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "wire"))
from serving import PATIENCE_S, Server, put_model, put_sim, sim_request, write_whole  # noqa: E402

SECONDS = float(os.environ.get("SOAK_SECONDS", "60"))
CLIENTS = 8
MODELS = 16
GUILTY = 666.0
SETTINGS = "resident_models_max: {}\nresidency_min: 0s\ncanary_interval: {}\naccess_log: {}\npinned: [{}]\n"


def name(i):
    return f"m{i:02}"


def put(root, i):
    """Every third one in a process of its own, every eighth dies now and then by itself."""
    parameters = {"tau0": "500us", "crash_on": GUILTY}
    if i % 8 == 0:
        parameters["crash_at"] = 200
    more = {"isolation": "process"} if i % 3 == 0 or i % 8 == 0 else {}
    put_sim(root, name(i), parameters=parameters, **more)


class Movers:
    def __init__(self, server, root, file):
        self.server, self.root, self.file = server, root, file
        self.until = time.monotonic() + SECONDS
        self.outcomes = collections.Counter()
        self.failures = []
        self.canaries = 0  # The most of models that were loaded at one time.
        self.lock = threading.Lock()

    def note(self, outcome):
        with self.lock:
            self.outcomes[outcome] += 1

    def run(self):
        people = [self.client] * CLIENTS + [self.governor, self.breaker]
        threads = [threading.Thread(target=self.live, args=(one, seed)) for seed, one in enumerate(people)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS + 2 * PATIENCE_S)
        assert not any(thread.is_alive() for thread in threads), "somebody hangs"
        assert not self.failures, self.failures[:3]

    def live(self, one, seed):
        chance = random.Random(seed)
        try:
            while time.monotonic() < self.until and not self.failures:
                one(chance)
        except Exception as error:  # noqa: BLE001
            self.failures.append(f"{one.__name__}: {error!r}")

    def client(self, chance):
        i = min(int(chance.paretovariate(0.8)) - 1, MODELS - 1)
        guilty = (i % 3 == 0 or i % 8 == 0) and chance.random() < 0.01
        row = [GUILTY if guilty else float(chance.randrange(1, 600))] * 16
        answer = self.server.infer(name(i), sim_request(row))
        allowed = (422, 503) if guilty else (200, 503)
        assert answer.status in allowed, (name(i), answer.status, answer.body)
        if answer.status == 200:
            assert answer.json()["outputs"][0]["data"] == row
        self.note(answer.status)
        time.sleep(chance.expovariate(50))

    def governor(self, chance):
        """Budgets, canaries, the access log and pinned models change; so does a model's configuration."""
        pinned = name(chance.randrange(MODELS))
        text = SETTINGS.format(chance.randint(6, 10), chance.choice(("0s", "100ms", "1s")),
                               chance.choice(("true", "false")), pinned)
        write_whole(self.file, text.encode())
        answer = self.server.post("/v2/settings/reload")
        assert answer.status == 200, answer.body
        self.note("reload")
        self.canaries = max(self.canaries, self.server.metrics().sum("weir_model_canaries_total"))
        put(self.root, chance.randrange(MODELS))
        assert self.server.get("/v2/health/live").status == 200
        time.sleep(0.2)

    def breaker(self, chance):
        """A settings file that is none, and a model that is broken for a moment."""
        broken = self.root / "broken"
        put_model(self.root, "broken", "fixed")
        write_whole(broken / "1" / "model.onnx", chance.randbytes(500))
        assert self.server.infer("broken", sim_request()).status in (400, 404, 503)
        shutil.rmtree(broken)
        assert self.server.post("/v2/quarantine/clear").status == 200
        self.note("broken")
        time.sleep(0.5)


def test_everything_moves(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    for i in range(MODELS):
        put(root, i)
    file = tmp_path / "weir.yaml"
    file.write_text(SETTINGS.format(6, "100ms", "false", name(0)))
    words = ("--model-control", "demand", "--poll-interval", "1s", "--log-level", "warning", "--config", file)
    with Server(tmp_path, *words, root) as server:
        before = server.files()
        movers = Movers(server, root, file)
        movers.run()
        metrics = server.metrics()
        counted = {
            "evictions": metrics.get("weir_model_evictions_total"),
            "canaries": movers.canaries,
            "restarts": metrics.sum("weir_model_process_restarts_total"),
        }
        print(f"\n{dict(movers.outcomes)} {counted} {server.files()} files (before: {before})")
        assert movers.outcomes[200] > 0.5 * (movers.outcomes[200] + movers.outcomes[503])
        assert counted["evictions"] > 0 and counted["canaries"] > 0
        server.await_("all are answered", lambda: server.metrics().sum("nv_inference_pending_request_count") == 0)
        write_whole(file, SETTINGS.format(1, "0s", "false", "").encode())
        assert server.post("/v2/settings/reload").status == 200
        server.await_("room is made", lambda: sum("READY" == e.get("state") for e in server.index()) <= 1)
