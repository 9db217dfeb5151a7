"""B7 `memory`: many models in a quarter of their memory, and 200 rounds of loading and unloading."""
import bisect
import http.client
import itertools
import json
import random
import resource
import statistics
import threading
import time

import models
from ceilings import IDENTITY, start_direct
from loads import infer_body
from servers import ROOT, memory_bytes, say, weir

MIB = 1 << 20
SMALL, LARGE = 4 * MIB, 64 * MIB
WIDTHS = {SMALL: 512, LARGE: 2048}
SAMPLE = 0.1  # Seconds between looks at the server's memory.
GRACE = 0.05  # What it may be above the budget.


class Population:
    """The models by rank of popularity, sizes shuffled over them, and who is asked for when."""

    def __init__(self, folder, plan, seed=1):
        source = random.Random(seed)
        small, large, requests = (40, 20, 200) if plan.quick else (80, 40, 2000)
        self.sizes = [SMALL] * small + [LARGE] * large
        source.shuffle(self.sizes)
        self.names = [f"m{rank}" for rank in range(len(self.sizes))]
        self.budget = sum(self.sizes) // 4
        sums = list(itertools.accumulate(1 / (rank + 1) for rank in range(len(self.sizes))))
        self.trace = [bisect.bisect_left(sums, source.random() * sums[-1]) for _ in range(requests)]
        self.bodies = {size: infer_body("x", [1, width], bytes(4 * width)) for size, width in WIDTHS.items()}
        for name, size in zip(self.names, self.sizes):
            self.file = models.perceptron(folder, name, width=WIDTHS[size])


def simulated(population, worth):
    """Share of requests that find their model, where the least of `worth` goes."""
    resident, held, hits = set(), 0, 0
    uses, last = [0] * len(population.sizes), [0] * len(population.sizes)
    for now, model in enumerate(population.trace):
        uses[model] += 1
        last[model] = now
        if model in resident:
            hits += 1
            continue
        while held + population.sizes[model] > population.budget:
            goes = min(resident, key=lambda one: worth(uses[one], last[one]))
            resident.remove(goes)
            held -= population.sizes[goes]
        resident.add(model)
        held += population.sizes[model]
    return hits / len(population.trace)


class Watch:
    """The most that a process's proportional set size is found to be."""

    def __init__(self, pid):
        self.pid, self.most, self.count = pid, 0, 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.look)

    def look(self):
        while not self.over.wait(SAMPLE):
            self.most = max(self.most, memory_bytes(self.pid))
            self.count += 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def resident_bytes(pid):
    return int(open(f"/proc/{pid}/statm").read().split()[1]) * resource.getpagesize()


class Client:
    """One connection; every answer must be right in its status."""

    def __init__(self, port):
        self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def post(self, path, body, header_bytes=0):
        fields = {"Inference-Header-Content-Length": str(header_bytes)} if header_bytes else {}
        self.http.request("POST", path, body, fields)
        answer = self.http.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {text[:300]}")
        return text

    def resident(self):
        return {one["name"] for one in json.loads(self.post("/v2/repository/index", b'{"ready":true}'))}

    def infer(self, population, model):
        head, body = population.bodies[population.sizes[model]]
        begun = time.monotonic()
        self.post(f"/v2/models/{population.names[model]}/infer", body, len(head))
        return time.monotonic() - begun


def replayed(population, port):
    """[(size, found it, seconds)] of the trace; everything was loaded once before."""
    client = Client(port)
    for model in range(len(population.names)):
        client.infer(population, model)
    found = []
    for model in population.trace:
        there = population.names[model] in client.resident()
        found.append((population.sizes[model], there, client.infer(population, model)))
    return found


def middle(found, size, there):
    times = [seconds for one, found_it, seconds in found if one == size and found_it == there]
    return statistics.median(times) if times else float("nan")


def started(model):
    return statistics.median(start_direct(model)["seconds"] for _ in range(3))


def pressure(folder, plan):
    population = Population(folder / "models", plan)
    words = ("--model-control", "demand", "--memory-max", population.budget, "--residency-min", "0s",
             "--model-cache", folder / "cache")
    say(f"memory: {len(population.names)} models of {sum(population.sizes) >> 20} MiB, budget {population.budget >> 20} MiB")
    with weir(folder / "models", *words, cpus="0,1", executors=2) as (pid, port), Watch(pid) as watch:
        found = replayed(population, port)
    large = folder / "models" / population.names[population.sizes.index(LARGE)] / "1/model.onnx"
    direct = started(large) - started(ROOT / IDENTITY / "1/model.onnx")
    cold, warm = middle(found, LARGE, False), middle(found, LARGE, True)
    hits = sum(there for _, there, _ in found) / len(found)
    best = max(simulated(population, worth) for worth in (lambda uses, last: last, lambda uses, last: (uses, last)))
    yield {"memory.held": watch.most / population.budget, "memory.cold": 1000 * (cold - warm),
           "memory.create": (cold - warm) / direct, "memory.hits": hits / best}, {"pressure": {
               "most_bytes": watch.most, "samples": watch.count, "budget_bytes": population.budget, "hits": hits,
               "best_simulated": best, "cold_ms": 1000 * cold, "warm_ms": 1000 * warm, "direct_ms": 1000 * direct,
               "cold_small_ms": 1000 * middle(found, SMALL, False), "requests": len(found)}}


def rounds(folder, plan):
    """One model of each size, loaded, used and unloaded again and again."""
    count = 20 if plan.quick else 200
    repository = folder / "rounds"
    for name, size in (("small", SMALL), ("large", LARGE)):
        models.perceptron(repository, name, width=WIDTHS[size])
    held = []
    with weir(repository, "--model-control", "explicit", cpus="0,1") as (pid, port):
        client = Client(port)
        for at in range(count):
            if at % 50 == 0:
                say(f"memory: round {at} of {count}")
            for name, size in (("small", SMALL), ("large", LARGE)):
                client.post(f"/v2/repository/models/{name}/load", b"")
                head, body = infer_body("x", [1, WIDTHS[size]], bytes(4 * WIDTHS[size]))
                client.post(f"/v2/models/{name}/infer", body, len(head))
                client.post(f"/v2/repository/models/{name}/unload", b"")
            while len(json.loads(client.post("/v2/repository/index", b"{}"))) < 2 or b"UNLOADING" in client.post(
                    "/v2/repository/index", b"{}"):
                time.sleep(0.005)
            held.append(resident_bytes(pid))
    yield {"memory.rounds": max(held) / held[0]}, {"rounds": {"first_bytes": held[0], "last_bytes": held[-1],
                                                              "most_bytes": max(held), "count": count}}


def memory(folder, plan):
    yield from pressure(folder, plan)
    yield from rounds(folder, plan)
