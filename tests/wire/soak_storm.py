"""A storm: many clients with right, wrong, late, broken-off and nonsensical requests over several
models, some of which fail, come and go meanwhile.

    build/venv/bin/python tests/wire/soak_storm.py --seconds 600 --clients 24 --seed 7

What each client does follows from the seed; how it interleaves does not.  After the storm all must
be as before: nothing is held, every request has ended, files and memory are back.
"""

import argparse
import collections
import gzip
import http.client
import json
import pathlib
import random
import shutil
import socket
import tempfile
import threading
import time
import zlib

import numpy as np

from serving import (
    PATIENCE_S,
    ROOT,
    Raw,
    Server,
    binary_request,
    infer_path,
    is_sanitized,
    put_model,
    put_sim,
    sim_request,
    tensor,
)

GROWTH_MAX = 16 << 20
STEADY = (
    "identity_fp32",
    "add_sub",
    "identity_bytes",
    "gather",
    "loop",
    "sim",
    "poisoned",
    "narrow",
)
STEADY += ("full", "streams", "digits", "dynamic", "direct", "oldest")
RELOADED = ("changing", "coming")
GONE = (ConnectionError, http.client.HTTPException, socket.timeout)

# What a client does, and how often of all.
ACTIONS = {
    "infer_json": 6,
    "infer_binary": 8,
    "infer_sum": 4,
    "infer_digits": 3,
    "infer_poisoned": 4,
    "infer_narrow": 3,
    "infer_full": 3,
    "infer_gather": 3,
    "infer_texts": 3,
    "infer_compressed": 2,
    "infer_large": 1,
    "infer_late": 2,
    "infer_reloaded": 4,
    "infer_sequence": 3,
    "infer_equal": 4,
    "infer_wrong": 5,
    "generate": 2,
    "stream": 2,
    "leave_stream": 2,
    "pipeline": 2,
    "send_half": 2,
    "leave_before_the_answer": 3,
    "leave_within_the_answer": 1,
    "leave_a_large_one": 1,
    "say_nonsense": 1,
    "look_around": 2,
}


def sums(strategy):
    """The configuration of a model that adds up what its sequence sends."""
    controls = [
        {"name": name, "control": [{"kind": f"CONTROL_SEQUENCE_{kind}", **more}]}
        for name, kind, more in (
            ("start", "START", {"int32_false_true": [0, 1]}),
            ("ready", "READY", {"int32_false_true": [0, 1]}),
            ("end", "END", {"int32_false_true": [0, 1]}),
            ("corrid", "CORRID", {"data_type": "TYPE_UINT64"}),
        )
    ]
    state = {"input_name": "state", "output_name": "state_out"}
    return {
        "max_sequence_idle_microseconds": 300_000,
        "control_input": controls,
        "state": [{**state, "data_type": "TYPE_INT32", "dims": [1]}],
        strategy: {},
    }


def make_repository(root):
    root.mkdir()
    for name in ("identity_fp32", "add_sub", "identity_bytes", "gather", "loop", "dynamic"):
        put_model(root, name)
    put_model(root, "coming", "double_it")
    shutil.copytree(ROOT / "examples" / "models" / "digits", root / "digits")
    put_sim(root, "sim", parameters={"tau0": "500us", "alpha": "50us", "jitter": "0.5"})
    put_sim(root, "changing", parameters={"tau0": "1ms"})
    put_sim(root, "poisoned", parameters={"tau0": "1ms", "poison": "13"})
    put_sim(root, "narrow", parameters={"tau0": "1ms", "oom_above_rows": 3}, batching="insist")
    put_sim(
        root,
        "full",
        parameters={"tau0": "5ms"},
        max_batch_size=1,
        dynamic_batching={"default_queue_policy": {"max_queue_size": 3}},
        instance_group=[{"count": 1}],
    )
    for strategy in ("direct", "oldest"):
        put_model(root, strategy, "accumulate", max_batch_size=4, sequence_batching=sums(strategy))
    put_sim(root, "joined", parameters={"tau0": "3ms"}, max_batch_size=1, join=True)
    put_sim(root, "known", parameters={"tau0": "1ms"}, response_cache={"enable": True})
    put_sim(root, "streams", parameters={"tau0": "4ms", "parts": 4, "exclusive": "false"})


class Client:
    """One that does what its seed says, on a connection that it keeps as long as it lasts."""

    def __init__(self, storm, seed):
        self.storm = storm
        self.random = random.Random(seed)
        self.numbers = np.random.default_rng(self.random.getrandbits(64))
        self.connection = None
        self.done = collections.Counter(dict.fromkeys(ACTIONS, 0))  # All keys at once: others read it.
        self.sent = collections.Counter()  # By model: what the engine may have had.
        self.good = collections.Counter()  # By model: what was answered with 200.

    def run(self):
        while not self.storm.over():
            act = self.random.choices(list(ACTIONS), ACTIONS.values())[0]
            try:
                getattr(self, act)()
                self.done[act] += 1
            except GONE as gone:
                if not self.storm.ending:
                    self.storm.fail(f"{act}: {gone!r}")
                return
            except Exception as error:  # Told with what the client did.
                self.storm.fail(f"{act}: {error!r}")
                return
        if self.connection is not None:
            self.connection.http.close()

    def post(self, path, body, headers=None):
        if self.connection is None or self.random.random() < 0.02:
            if self.connection is not None:
                self.connection.http.close()
            self.connection = self.storm.server.connect()
        return self.connection.post(path, body, headers)

    def infer(self, model, body, headers=None, allowed=(200,)):
        self.sent[model] += 1
        answer = self.post(infer_path(model), body, headers)
        self.good[model] += answer.status == 200
        if answer.status not in allowed and not (self.storm.ending and answer.status == 503):
            raise AssertionError(f"{model}: {answer.status} {answer.body[:300]}")
        if answer.status != 200:
            assert answer.error
        return answer

    # Right requests

    def row(self):
        return [round(self.random.uniform(-9, 9), 3) for _ in range(16)]

    def infer_json(self):
        row = self.row()
        answer = self.infer("sim", sim_request(row, self.random.randint(1, 3)))
        if answer.status == 200:
            data = answer.json()["outputs"][0]["data"]
            assert np.allclose(data[:16], row), (data, row)

    def infer_binary(self):
        values = self.numbers.random((self.random.randint(1, 8), 16), np.float32)
        answer = self.infer("identity_fp32", *binary_request({"x": values}, ["y"]))
        assert answer.status != 200 or answer.body.endswith(values.tobytes())

    def infer_sum(self):
        a, b = (self.numbers.integers(-99, 99, (2, 16), np.int32) for _ in range(2))
        answer = self.infer("add_sub", *binary_request({"INPUT0": a, "INPUT1": b}, ["OUTPUT0"]))
        assert answer.status != 200 or answer.body.endswith((a + b).tobytes())

    def infer_digits(self):
        values = self.numbers.random((1, 64), np.float32)
        answer = self.infer("digits", *binary_request({"pixels": values}, ["scores"]))
        if answer.status == 200:
            assert abs(np.frombuffer(answer.body[-40:], np.float32).sum() - 1) < 1e-3

    def infer_poisoned(self):
        poison = self.random.random() < 0.2
        row = [13.0 if poison else 1.0] * 16
        answer = self.infer("poisoned", sim_request(row), None, (400,) if poison else (200,))
        assert answer.status != 200 or answer.json()["outputs"][0]["data"] == row

    def infer_narrow(self):
        row = self.row()
        answer = self.infer("narrow", sim_request(row))
        assert answer.status != 200 or np.allclose(answer.json()["outputs"][0]["data"], row)

    def infer_full(self):
        answer = self.infer("full", sim_request(), None, (200, 503))
        assert answer.status != 503 or int(answer.headers["Retry-After"]) >= 1

    def infer_gather(self):
        index = self.random.choice((0, 3, 9, 10, -11, 2**62))
        body = {"inputs": [tensor("index", "INT64", [1], [index])]}
        answer = self.infer("gather", body, None, (200,) if 0 <= index < 10 else (400,))
        assert answer.status != 200 or answer.json()["outputs"][0]["data"] == [index]

    def infer_sequence(self):
        """Adds up; one in four is left without an end, and one in four has a request too late."""
        model = self.random.choice(("direct", "oldest"))
        sequence, total = self.random.getrandbits(63) + 1, 0
        steps = self.random.randint(1, 8)
        ends, late = self.random.random() < 0.75, self.random.randrange(4 * steps)
        for step in range(steps):
            value = self.random.randint(-99, 99)
            total += value
            start, end = step == 0, ends and step == steps - 1
            body = {
                "inputs": [tensor("x", "INT32", [1, 1], [value])],
                "parameters": {
                    "sequence_id": sequence,
                    "sequence_start": start,
                    "sequence_end": end,
                },
            }
            headers = {"Weir-Deadline-Ms": "1"} if step == late else {}
            # What idled while this client was kept waiting is gone.
            answer = self.infer(model, body, headers, (200, 400, 504))
            if answer.status != 200:
                assert answer.status != 400 or "START" in answer.error, answer.error
                return
            answers = {o["name"]: o["data"] for o in answer.json()["outputs"]}
            assert answers["sum"] == [total], (answers, total)
            assert answers["flags"] == [start, 1, end], answers
            assert answers["id"] == [sequence], answers

    def infer_equal(self):
        row = [self.random.randint(0, 3)] * 16
        model = self.random.choice(("joined", "known"))
        headers = {"Weir-Deadline-Ms": "3"} if self.random.random() < 0.2 else {}
        answer = self.infer(model, sim_request(row), headers, (200, 503, 504))
        assert answer.status != 200 or answer.json()["outputs"][0]["data"] == row

    def infer_texts(self):
        texts = [
            "".join(self.random.choices('a\0\u00e4\u6f22\U0001f600"\\', k=9)) for _ in range(4)
        ]
        body = {"inputs": [tensor("x", "BYTES", [1, 4], texts)]}
        answer = self.infer("identity_bytes", body)
        assert answer.status != 200 or answer.json()["outputs"][0]["data"] == texts

    def infer_compressed(self):
        rows = self.random.randint(1, 8)
        body = gzip.compress(json.dumps(sim_request(None, rows)).encode())
        headers = {
            "Content-Encoding": "gzip",
            "Accept-Encoding": self.random.choice(("gzip", "br")),
        }
        answer = self.infer("sim", body, headers)
        if answer.headers.get("Content-Encoding") == "gzip":
            answer.body = gzip.decompress(answer.body)
        assert answer.status != 200 or answer.json()["outputs"][0]["shape"] == [rows, 16]

    def large(self):
        """60,000 numbers: read and written by workers.  Body, headers, and what must come back."""
        values = self.numbers.integers(0, 99, (1, 200, 300)).astype(np.float32)
        answers = {"y": self.random.random() < 0.5}
        if self.random.random() < 0.5:
            body, headers = binary_request({"x": values}, ["y"] if answers["y"] else None)
        else:
            parameters = {"binary_data_output": answers["y"]}
            data = {"inputs": [tensor("x", "FP32", [1, 200, 300], values.ravel().tolist())]}
            body, headers = json.dumps({**data, "parameters": parameters}).encode(), {}
        if self.random.random() < 0.3:
            body, headers = gzip.compress(body, 1), {**headers, "Content-Encoding": "gzip"}
        if self.random.random() < 0.3:
            headers["Accept-Encoding"] = self.random.choice(("gzip", "deflate"))
        return values, body, headers

    def infer_large(self):
        values, body, headers = self.large()
        answer = self.infer("dynamic", body, headers)
        if answer.status != 200:
            return
        encoding = answer.headers.get("Content-Encoding")
        plain = {None: bytes, "gzip": gzip.decompress, "deflate": zlib.decompress}[encoding](
            answer.body
        )
        size = int(answer.headers.get("Inference-Header-Content-Length", len(plain)))
        entry = json.loads(plain[:size])["outputs"][0]
        if "data" in entry:
            assert entry["data"] == values.ravel().tolist()
        else:
            assert plain[size:] == values.tobytes()

    def infer_late(self):
        headers = {"Weir-Deadline-Ms": str(self.random.randint(1, 20))}
        if self.random.random() < 0.5:
            body = {"inputs": [tensor("count", "INT64", [], [2**62])]}
            self.infer("loop", body, headers, (504, 503))
        else:
            self.infer("full", sim_request(), headers, (200, 503, 504))

    def infer_reloaded(self):
        if self.random.random() < 0.5:
            self.infer("changing", sim_request())
        else:
            body = {"inputs": [tensor("x", "FP32", [1, 4], [1, 2, 3, 4])]}
            answer = self.infer("coming", body, None, (200, 404, 503))
            if answer.status == 200:
                assert answer.json()["outputs"][0]["data"] == [2, 4, 6, 8]

    def generate(self):
        row = self.row()
        self.sent["sim"] += 1
        answer = self.post("/v2/models/sim/generate", {"x": row, "id": "g"})
        self.good["sim"] += answer.status == 200
        assert answer.status == 200 or self.storm.ending, answer.body
        assert answer.status != 200 or np.allclose(answer.json()["y"], row)

    def stream(self):
        self.sent["streams"] += 1
        answer = self.post("/v2/models/streams/generate_stream", {"x": self.row()})
        self.good["streams"] += answer.status == 200
        if not self.storm.ending:
            assert answer.body.count(b"data: {") == 4 and b"error" not in answer.body, answer.body

    # Wrong ones

    def infer_wrong(self):
        wrong = self.random.choice(
            (
                b"",
                b"{",
                b'{"inputs":[]}',
                sim_request([1, 2]),
                sim_request(parameters={"priority": "high"}),
                {"inputs": [tensor("y", "FP32", [1, 16], [1] * 16)]},
                {"inputs": [tensor("x", "INT32", [1, 16], [1] * 16)]},
                {"inputs": [tensor("x", "FP32", [2**40, 2**40], [1])]},
                b"[" * self.random.randint(1, 5000),
            )
        )
        answer = self.post(infer_path("sim"), wrong)
        assert answer.status == 400 and answer.error, answer.body

    def say_nonsense(self):
        with Raw(self.storm.server.port) as raw:
            raw.send(self.random.randbytes(self.random.randint(1, 2000)) + b"\r\n\r\n")
            raw.rest()

    def look_around(self):
        path = self.random.choice(
            ("/metrics", "/v2/models/stats", "/v2", "/", "/v2/health/live", "/v2/models/sim/config")
        )
        if self.connection is None:
            self.connection = self.storm.server.connect()
        answer = self.connection.ask("GET", path)
        assert answer.status == 200, (path, answer.body)

    # Those who go

    def request_bytes(self, model, body, verb="infer", *headers):
        text = json.dumps(body).encode()
        lines = [f"POST /v2/models/{model}/{verb} HTTP/1.1", "Host: a", *headers]
        lines.append(f"Content-Length: {len(text)}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + text

    def leave(self, raw):
        if self.random.random() < 0.5:
            raw.reset()
        else:
            raw.socket.close()

    def send_half(self):
        data = self.request_bytes("sim", sim_request(None, 4))
        with Raw(self.storm.server.port) as raw:
            raw.send(data[: self.random.randrange(1, len(data) - 1)])
            self.leave(raw)

    def leave_before_the_answer(self):
        model = self.random.choice(("sim", "full", "loop"))
        body = sim_request(None, 1)
        if model == "loop":
            body = {"inputs": [tensor("count", "INT64", [], [2**62])]}
        self.sent[model] += 1
        with Raw(self.storm.server.port) as raw:
            raw.send(self.request_bytes(model, body))
            self.leave(raw)

    def leave_within_the_answer(self):
        self.sent["sim"] += 1
        with Raw(self.storm.server.port) as raw:
            raw.send(self.request_bytes("sim", sim_request(None, 8)))
            raw.more()
            self.leave(raw)

    def leave_a_large_one(self):
        """Within the body, or before the answer."""
        _, body, headers = self.large()
        lines = [
            f"POST {infer_path('dynamic')} HTTP/1.1",
            "Host: a",
            f"Content-Length: {len(body)}",
        ]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.sent["dynamic"] += 1
        with Raw(self.storm.server.port) as raw:
            raw.send("\r\n".join(lines).encode() + b"\r\n\r\n")
            raw.send(body[: self.random.choice((len(body) // 2, len(body)))])
            self.leave(raw)

    def leave_stream(self):
        self.sent["streams"] += 1
        with Raw(self.storm.server.port) as raw:
            body = {"x": self.row()}
            raw.send(self.request_bytes("streams", body, "generate_stream", "Connection: close"))
            if raw.more() and self.random.random() < 0.5:
                raw.more()
            self.leave(raw)

    def pipeline(self):
        count = self.random.randint(2, 12)
        with Raw(self.storm.server.port) as raw:
            data = [self.request_bytes("sim", sim_request(id=str(i))) for i in range(count)]
            self.sent["sim"] += count
            raw.send(b"".join(data))
            for i in range(count if self.random.random() < 0.7 else count // 2):
                answer = raw.answer()
                self.good["sim"] += answer.status == 200
                assert answer.status == 200 or self.storm.ending, answer.body
                assert answer.status != 200 or answer.json()["id"] == str(i)


class Administrator:
    """Loads, unloads and changes models for as long as the storm lasts."""

    def __init__(self, storm, seed):
        self.storm = storm
        self.random = random.Random(seed)
        self.done = collections.Counter(administration=0)
        self.sent = self.good = collections.Counter()

    def run(self):
        try:
            while not self.storm.over():
                self.act()
        except GONE as gone:
            if not self.storm.ending:
                self.storm.fail(f"administrator: {gone!r}")
        except AssertionError as error:
            self.storm.fail(f"administrator: {error!r}")

    def act(self):
        server = self.storm.server
        choice = self.random.randrange(5)
        if choice == 0:
            answer = server.load(
                "changing", {"backend": "sim", "max_batch_size": self.random.randint(1, 9)}
            )
        elif choice == 1:
            answer = server.unload("coming")
        elif choice == 2:
            answer = server.load("coming")
        elif choice == 3:
            answer = server.load("changing", {"backend": "sim", "max_batch_size": -1})
        else:
            answer = server.post("/v2/repository/index")
        expected = 400 if choice == 3 else 200
        assert answer.status == expected or self.storm.ending, (choice, answer.body)
        self.done["administration"] += 1


class Storm:
    def __init__(self, server, seconds, clients, seed, tell=lambda text: None):
        self.server = server
        self.seconds = seconds
        self.tell = tell
        self.failures = []
        self.ending = False
        self.until = 0.0
        self.people = [Client(self, f"{seed} {i}") for i in range(clients)]
        self.people.append(Administrator(self, f"{seed} admin"))

    def over(self):
        """The time is up, and somebody has done everything once, however slow the machine is."""
        if self.failures or self.ending or time.monotonic() <= self.until:
            return bool(self.failures)
        return set(ACTIONS) <= set(self.total("done"))

    def fail(self, text):
        self.failures.append(text)

    def start(self, seconds):
        self.until = time.monotonic() + seconds
        threads = [threading.Thread(target=one.run, daemon=True) for one in self.people]
        for thread in threads:
            thread.start()
        return threads

    def blow(self, seconds):
        for thread in self.start(seconds):
            thread.join(seconds + 2 * PATIENCE_S)
            if thread.is_alive():
                self.fail("a client hangs")
        assert not self.failures, "\n".join(self.failures[:5])

    def calm(self):
        """Waits until nothing is held; then what is left can be measured."""
        server = self.server

        def held():
            metrics = server.metrics()
            return (
                metrics.get("weir_blocks_used_bytes")
                + metrics.get("weir_http_bodies_bytes")
                + metrics.sum("nv_inference_pending_request_count")
                + metrics.get("weir_http_connections")
                - 1
            )

        server.await_("nothing held", lambda: held() == 0)
        server.unload("coming")  # After which the server gives the system what it does not use.
        server.await_("unloaded", lambda: server.state("coming")[0] == "UNAVAILABLE")
        memory = server.memory() - int(server.metrics().get("weir_blocks_kept_bytes"))
        return {"files": server.files(), "threads": server.threads(), "memory": memory}

    def total(self, what):
        return sum((getattr(one, what) for one in self.people), collections.Counter())

    def check_balance(self):
        """Of models that were not reloaded: who was answered was counted, and nobody else."""
        sent, good = self.total("sent"), self.total("good")
        for model in STEADY:
            stats = self.server.stats(model)["inference_stats"]
            ended = stats["success"]["count"] + stats["fail"]["count"]
            refused = self.server.metrics().of_model("weir_requests_refused_total", model)
            assert stats["success"]["count"] >= good[model], model
            assert ended + refused <= sent[model], (model, ended, refused, sent[model])
            parts = ("compute_input", "compute_infer", "compute_output", "queue")
            assert {stats[part]["count"] for part in parts} == {stats["success"]["count"]}, model

    def run(self):
        started = time.monotonic()
        self.blow(min(2.0, self.seconds / 4))
        before = self.calm()
        pieces = max(1, round(self.seconds / 60))
        for piece in range(pieces):
            self.blow(self.seconds / pieces)
            now, server = self.calm(), self.server
            server.await_("no more files", lambda: server.files() <= before["files"])
            server.await_("the same threads", lambda: server.threads() == before["threads"])
            done = self.total("done")
            self.tell(
                f"{time.monotonic() - started:6.0f} s: {done.total()} actions, "
                f"{now['memory'] / 2**20:.1f} MiB, {now['files']} files"
            )
            if not is_sanitized():
                assert now["memory"] - before["memory"] < GROWTH_MAX, (before, now)
        self.check_balance()

    def end_in_the_middle(self):
        """SIGTERM while all are busy: what was accepted is finished, and the exit is clean."""
        threads = self.start(3600)
        goal = self.total("done").total() + 20 * len(self.people)
        self.server.await_("busy", lambda: self.total("done").total() >= goal)
        self.ending = True
        code = self.server.stop()
        for thread in threads:
            thread.join(2 * PATIENCE_S)
        assert not any(thread.is_alive() for thread in threads), "a client hangs"
        assert not self.failures, "\n".join(self.failures[:5])
        assert code == 0, code


def storm(folder, seconds, clients, seed, tell=lambda text: None, settings=()):
    make_repository(folder / "models")
    words = (
        *settings,
        "--model-control",
        "explicit",
        "--load-model",
        "*",
        "--log-level",
        "warning",
    )
    with Server(folder, *words, folder / "models") as server:
        blowing = Storm(server, seconds, clients, seed, tell)
        blowing.run()
        blowing.end_in_the_middle()
        return blowing.total("done")


def main():
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--seconds", type=float, default=60)
    words.add_argument("--clients", type=int, default=24)
    words.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    words.add_argument("settings", nargs="*", help="of the server, behind --")
    said = words.parse_args()
    print(f"seed {said.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="weir-storm-") as folder:
        done = storm(
            pathlib.Path(folder),
            said.seconds,
            said.clients,
            said.seed,
            lambda text: print(text, flush=True),
            said.settings,
        )
    for name, count in done.most_common():
        print(f"  {count:8} {name}")


if __name__ == "__main__":
    main()
