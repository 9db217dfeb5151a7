"""What the slowest requests see.

B5 `tail`: a model of about a millisecond under Poisson arrivals.  B6 `priority`: an urgent class beside one that
fills the server.  `isolation`: a model beside one that is asked for five times what it can do.
"""
from deadlines import http_time, learn, repository, row_time
from loads import median, spread
from models import convolutions, simulated
from servers import say, weir
from tool import play, playing, poisson, quantile, recorded, simulated_latencies

LOADS = (0.3, 0.5, 0.7, 0.85)


def tail_run(folder, server, load, seconds, seed):
    """One run, and the simulation of the same arrivals: a server that takes for each what this one takes when its line
    is never empty."""
    service_us = 1e6 / play(server, "cnn", min(seconds, 1), 0.2, concurrency=4)["throughput"]
    warm = 0.5
    arrivals = poisson(load * 1e6 / service_us, warm + seconds, seed)
    run = play(server, "cnn", seconds, warm, 2, recorded=recorded(folder, f"arrivals{load}-{seed}", arrivals))
    limit = simulated_latencies(arrivals, service_us / 1e6)
    counted = [latency * 1e6 for at, latency in zip(arrivals, limit) if at >= warm]
    run["simulated"] = {f"p{name}_us": quantile(counted, share) for name, share in
                        (("50", 0.5), ("99", 0.99), ("999", 0.999))}
    run["simulated"]["max_us"] = max(counted)
    run["service_us"] = service_us
    run["ratio"] = run["latency"]["p99_us"] / run["simulated"]["p99_us"]
    return run


def tail(folder, plan):
    models = folder / "models"
    model = convolutions(models, "cnn")
    found = {f"{load:g}": [] for load in LOADS}
    rows = []
    with weir(models) as server:
        t_http = http_time(folder, server, plan, "cnn", [1, 1, 128, 128])
        play(server, "cnn", plan.seconds(3), concurrency=4)
        for index in range(plan.rounds):
            rows.append(row_time(model, 1, plan.seconds(1, 0.5)))
            for load in LOADS:
                say(f"tail: load {load:g}, {index + 1} of {plan.rounds}")
                found[f"{load:g}"].append(tail_run(folder, server, load, plan.seconds(5, 2), index + 1))
    yield {"tail.p99": median(found["0.7"], "ratio")}, {"t_http_us": t_http, "t_row_us": spread(rows), "loads": found}


# ---- B6 ------------------------------------------------------------------------------------------

OUTSTANDING = 32
BUDGET_MS = 10  # `blocking_budget`: longest batch of lower classes while a higher one has traffic.


def classes(rate, urgent):
    """`weir bench` mixes: `low` keeps 32 requests under way, `high` comes by itself."""
    high = [f"high:rate={rate:.1f},priority={urgent}"] if rate else []
    return {"class": [f"low:concurrency={OUTSTANDING},priority=8", *high]}


def priority(folder, plan):
    models, model = repository(folder)
    with weir(models) as server:
        learn(server, plan)
        one_ms = row_time(model, 1, plan.seconds(2)) / 1e3
        full_ms = row_time(model, OUTSTANDING, plan.seconds(2)) * OUTSTANDING / 1e3
        rate = 0.1 * OUTSTANDING / full_ms * 1e3
        say(f"priority: {OUTSTANDING} outstanding beside {rate:.0f} urgent ones a second")
        found = plan.side_by_side({
            "alone": lambda s: play(server, "plain", s, **classes(0, 1)),
            "classes": lambda s: play(server, "plain", s, **classes(rate, 1)),
            "fifo": lambda s: play(server, "plain", s, **classes(rate, 8)),
        }, 2, 5)
    low_ms = min(full_ms, BUDGET_MS)
    p99_ms = median([run["classes"]["high"]["latency"] for run in found["classes"]], "p99_us") / 1e3
    low = {side: median([{"per_s": run["classes"]["low"]["ok"] / run["elapsed_s"]} for run in found[side]], "per_s")
           for side in ("alone", "classes")}
    yield {"priority.high": p99_ms / (one_ms + 1.2 * low_ms), "priority.low": low["classes"] / (0.9 * low["alone"])}, {
        "one_ms": one_ms, "full_ms": full_ms, "low_ms": low_ms, "rate": rate, **found}


# ---- Isolation -----------------------------------------------------------------------------------

RUN_MS = 2
QUIET_LOAD = 0.3  # Of what one executor can do.


def isolation(folder, plan):
    models = folder / "models"
    for name in ("quiet", "noisy"):
        simulated(models, name, {"tau0": f"{RUN_MS}ms", "exclusive": "false"}, "max_batch_size: 1\n")
    rate = QUIET_LOAD * 1e3 / RUN_MS
    noise = 5 * 2 * 1e3 / RUN_MS
    # Fair to clients, not to models: each model has its own.
    with weir(models, "--client-header", "Client", executors=2) as server:
        def alone(seconds):
            return play(server, "quiet", seconds, rate=f"{rate:.0f}", header="Client: quiet", spin=False)

        def beside(seconds):
            with playing(server, "noisy", seconds + 1, 0.2, rate=f"{noise:.0f}", header="Client: noisy", drain="100ms") as noisy:
                run = play(server, "quiet", seconds, 0.8, rate=f"{rate:.0f}", header="Client: quiet", spin=False)
                run["noisy"] = noisy()
            return run
        say(f"isolation: {rate:.0f} requests a second beside {noise:.0f}")
        found = plan.side_by_side({"alone": alone, "beside": beside}, 1, 5)
    yield {"isolation.p99": median([run["latency"] for run in found["beside"]], "p99_us") /
           median([run["latency"] for run in found["alone"]], "p99_us")}, found
