"""How close a server with deadlines comes to its capacity, and what is left of it beyond.

B3 `server`: the largest rate of Poisson arrivals of which 99 % are answered within the SLO, against C1, what a
perfect server on one core could do.  B4 `overload`: answers within the SLO at rates up to four times that one.
"""
import os
import time

from ceilings import binary_exchange, floats
from loads import direct, http_request, infer_body, median, probe, spread
from models import perceptron, simulated
from servers import SERVER_CPU, say, weir
from tool import play, playing, quantile, recorded, steps

SLOS_MS = (15, 30)
ROWS = (16, 32, 64)
SHAPE = [1, 2048]
BEGIN, STEP, FINE = 0.8, 1.06, 1.03  # The search: begins at this share of C1, goes by steps, ends this near.


def linked(folder, source, name, settings):
    """The same model file again under other settings."""
    version = folder / name / "1"
    version.mkdir(parents=True)
    os.link(source, version / "model.onnx")
    (folder / name / "model.yaml").write_text(settings)


def repository(folder):
    """The perceptron with a deadline for each SLO and without one, which is first come, first served."""
    models = folder / "models"
    model = perceptron(models, "plain")
    for slo in SLOS_MS:
        linked(models, model, f"slo{slo}", f"deadline: {slo}ms\n")
    simulated(models, "single", {"tau0": "5ms"}, "max_batch_size: 0\ndeadline: 100ms\n")
    return models, model


def http_time(folder, server, plan, model="plain", shape=SHAPE):
    """nginx's CPU time per request for the same bytes in and out, in microseconds."""
    exchange = binary_exchange(folder, model, "x", shape)
    with exchange.limit(folder, server[1]) as limit:
        drive = exchange.load(limit, 64)
        return median([drive(plan.seconds(2)) for _ in range(plan.rounds)], "cpu_us")


def row_time(model, rows, seconds):
    """Microseconds of the direct loop per row."""
    return direct(model, rows, 1, seconds, SERVER_CPU)["cpu_us_per_row"]


def passes(server, slo, rate, seconds, tried):
    """Whether a run at this rate passes, or a second one: the rule of early stopping proves that a rate holds, while
    one stop of the machine is enough to fail a run.  Runs of which the generator was the limit say nothing."""
    for _ in range(2):
        run = play(server, f"slo{slo}", seconds, tries=4, rate=f"{rate:.1f}", slo=f"{slo}ms", seed=len(tried) + 1)
        passed = run["verdict"] == "passed" and run["valid"]
        tried.append({"rate": rate, "passed": passed, "p99_us": run["latency"].get("p99_us"), "missed": run["missed"],
                      "flaws": run["flaws"], "generator_cpu": run["generator_cpu"]})
        if passed:
            return True
    return False


def largest_rate(server, slo, start, seconds, limit_s):
    """By steps up or down from `start` until a rate holds and the next one does not, then between the two; returns it,
    0 if none held within `limit_s`, and all that was tried."""
    tried, low, high = [], 0.0, None
    until = time.monotonic() + limit_s
    rate = start
    while time.monotonic() < until and (not low or not high or high > FINE * low):
        low, high = (rate, high) if passes(server, slo, rate, seconds, tried) else (low, rate)
        rate = (low * high) ** 0.5 if low and high else low * STEP or high / STEP
    return low, tried


def server_rates(folder, plan, server, model, t_http):
    """Direct loop, 15 ms, 30 ms; direct loop, 15 ms, ..."""
    seconds = plan.seconds(3, 1.5)
    best = min(ROWS, key=lambda rows: row_time(model, rows, plan.seconds(2, 0.5)))
    rounds = []
    shares = {slo: [] for slo in SLOS_MS}
    for index in range(plan.rounds):
        t_row = row_time(model, best, seconds)
        c1 = 1e6 / (t_row + t_http)
        found = {"rows": best, "t_row_us": t_row, "C1": c1}
        for slo in SLOS_MS:
            say(f"server: {slo} ms, search {index + 1} of {plan.rounds}; C1 is {c1:.0f}/s")
            start = (spread(shares[slo])["median"] if shares[slo] else 0) or BEGIN
            valid, found[f"tried{slo}"] = largest_rate(server, slo, start * c1, seconds, plan.seconds(45, 12))
            shares[slo].append(valid / c1)
            found[f"valid{slo}"] = valid
        rounds.append(found)
        plan.known["valid_rate"] = spread(one[f"valid{SLOS_MS[0]}"] for one in rounds)["median"]
        ratios = {f"server.{slo}ms": spread(shares[slo])["median"] for slo in SLOS_MS}
        yield ratios, {"t_http_us": t_http, "rounds": rounds, "shares": {str(slo): spread(shares[slo]) for slo in SLOS_MS}}


def offline(plan, server, model):
    """64 rows at a time, through the server and without it."""
    say("server: offline, 64 rows a request")
    found = plan.side_by_side({
        "weir": lambda s: play(server, "plain", s, concurrency=2, rows=64),
        "direct": lambda s: direct(model, 64, 1, s, SERVER_CPU),
    }, 1, 4)
    return {"server.offline": median(found["weir"], "rows_per_s") / median(found["direct"], "rows_per_s")}, {"offline": found}


def server(folder, plan):
    models, model = repository(folder)
    with weir(models) as running:
        t_http = http_time(folder, running, plan)
        learn(running, plan)
        yield from server_rates(folder, plan, running, model, t_http)
        yield offline(plan, running, model)


def learn(running, plan):
    """Lets the server find out what batches cost, as it would in its first seconds of traffic."""
    for slo in SLOS_MS:
        play(running, f"slo{slo}", plan.seconds(3, 2), concurrency=48)


def goodput(plan, sides, model_slo_ms, rate, loads, seconds, keep):
    """Answers within the SLO of each side at multiples of `rate`; `keep` is told each load's results."""
    for load in loads:
        say(f"overload: {load:g} times {rate:.0f}/s within {model_slo_ms} ms")
        found = {name: [] for name in sides}
        for index in range(plan.rounds):
            for name, (server, model) in sides.items():
                found[name].append(play(server, model, seconds, tries=3, rate=f"{load * rate:.1f}",
                                        slo=f"{model_slo_ms}ms", seed=index + 1))
        keep[f"{load:g}"] = {"offered": load * rate, **found}
        yield load, {name: median(runs, "goodput") for name, runs in found.items()}


def refusals(plan, server, model, rate, slo_ms):
    """How long it takes to hear that a request is refused on arrival, at 2 and 4 times the rate; those who were let in
    and let go later, or whose deadline passed, are told apart by what they are told."""
    head, body = infer_body("x", SHAPE, floats(SHAPE[1]))
    request = http_request(model, head, body)
    waits = {"arrival": [], "line": [], "expired": []}
    for load in (2, 4) * plan.rounds:
        say(f"overload: time to a refusal at {load} times")
        seconds = plan.seconds(3, 1)
        with playing(server, model, seconds + 0.3, 0.2, rate=f"{load * rate:.1f}", slo=f"{slo_ms}ms") as result:
            time.sleep(0.4)
            for status, said, took in probe(server[1], request, seconds):
                if status != 200:
                    way = "expired" if status == 504 else "line" if b" ms in line" in said else "arrival"
                    waits[way].append(took * 1e3)
            result()
    kept = {way: {"count": len(ms), "p50_ms": quantile(ms, 0.5), "p99_ms": quantile(ms, 0.99), "max_ms": max(ms)}
            for way, ms in waits.items() if ms}
    return {"overload.refusal": kept["arrival"]["p99_ms"]} if "arrival" in kept else {}, {"refusals": kept}


def perceptron_overload(plan, models, rate, t_http):
    slo = SLOS_MS[0]
    details = {"valid_rate": rate, "t_http_us": t_http, "slo_ms": slo, "loads": {}}
    loads = (0.9, 1.1, 2, 4) if plan.quick else (0.5, 0.9, 1.1, 1.5, 2, 4)
    with weir(models) as ours, weir(models) as plain:
        learn(ours, plan)
        play(plain, "plain", plan.seconds(3, 2), concurrency=48)
        sides = {"weir": (ours, f"slo{slo}"), "fcfs": (plain, "plain")}
        for load, good in goodput(plan, sides, slo, rate, loads, plan.seconds(3, 1), details["loads"]):
            # Those who are refused have to be read and answered, too.
            left = rate * (1 - max(0, load - 1) * rate * t_http / 1e6) if load >= 4 else rate
            details["loads"][f"{load:g}"]["left"] = left
            yield ({f"overload.{load:g}": good["weir"] / left} if load > 1 else {}), details
        yield recovery(plan, ours, f"slo{slo}", slo, rate, models.parent)
        yield refusals(plan, ours, f"slo{slo}", rate, slo)


def recovery(plan, server, model, slo_ms, rate, folder):
    """Four times the rate for a second, then 0.7: those who come later than twice the SLO after it are answered
    within the SLO again."""
    say("overload: recovery after a burst")
    before, burst, after = 1.0, 1.0, plan.seconds(2)
    warm = before + burst + 2 * slo_ms / 1e3
    late = []
    for index in range(plan.rounds):
        arrivals = steps((0.5 * rate, before), (4 * rate, burst), (0.7 * rate, after + 1), seed=10 * index)
        times = recorded(folder, f"burst{index}", arrivals)
        run = play(server, model, after, f"{warm:.3f}", tries=3, recorded=times, slo=f"{slo_ms}ms")
        late.append(run)
    p99 = median([run["latency"] for run in late], "p99_us")
    return {"overload.recovery": p99 / 1e3 / slo_ms}, {"recovery": late}


def single_overload(plan, models):
    """A simulated model of 5 ms that takes one row at a time, SLO 100 ms."""
    details = {"valid_rate": 200, "slo_ms": 100, "loads": {}}
    worst = []
    with weir(models) as running:
        play(running, "single", 1, concurrency=2)
        for _, good in goodput(plan, {"weir": (running, "single")}, 100, 200, (1.1, 2, 4), plan.seconds(4, 2), details["loads"]):
            worst.append(good["weir"] / 200)
    return {"overload.single": min(worst)}, {"single": details}


def overload(folder, plan):
    models, model = repository(folder)
    with weir(models) as running:
        t_http = http_time(folder, running, plan)
        c1 = 1e6 / (row_time(model, ROWS[-1], plan.seconds(3)) + t_http)
        rate = plan.known.get("valid_rate")
        if rate is None:
            learn(running, plan)
            rate, _ = largest_rate(running, SLOS_MS[0], BEGIN * c1, plan.seconds(3, 1.5), plan.seconds(45, 12))
        rate = rate or BEGIN / 2 * c1
    yield from perceptron_overload(plan, models, rate, t_http)
    yield single_overload(plan, models)
