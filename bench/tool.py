"""Open loops and mixes, driven by `weir bench`; and what a perfect server would make of the same arrivals."""
import contextlib
import heapq
import json
import random
import subprocess

from servers import CLIENT_CPU, WEIR, pinned

# What is kept of a run; curves and timelines would make the results long.
KEPT = ("offered", "elapsed_s", "valid", "flaws", "verdict", "missed", "sent", "ok", "refused", "expired", "failed",
        "unanswered", "good", "throughput", "goodput", "rows_per_s", "generator_cpu", "server_cpu_us", "codes")
KEPT_TIMES = ("count", "mean_us", "p50_us", "p90_us", "p99_us", "p999_us", "max_us")


def times(histogram):
    return {key: histogram[key] for key in KEPT_TIMES if key in histogram}


def kept(run):
    result = {key: run[key] for key in KEPT if key in run}
    result["codes"] = run.get("codes", {})
    for name in ("latency", "refusal", "lag"):
        result[name] = times(run[name])
    result["classes"] = {one["name"]: {
        **{key: one[key] for key in ("sent", "ok", "refused", "expired", "failed", "unanswered", "good")},
        "latency": times(one["latency"])} for one in run.get("classes", ())}
    return result


def options(settings):
    """Words of the command line: slo="15ms" is --slo 15ms, spin=True is --spin, False is none, a list repeats its
    option."""
    words = []
    for name, value in settings.items():
        for one in value if isinstance(value, list) else [value] if value is not False else []:
            words += [f"--{name.replace('_', '-')}"] + ([] if one is True else [one])
    return words


@contextlib.contextmanager
def playing(server, model, seconds, warm, **settings):
    """`weir bench` in the background; yields a function that waits for the result."""
    pid, port = server
    words = pinned(CLIENT_CPU, WEIR, "bench", model, "--url", f"http://127.0.0.1:{port}", "--json", "--server-pid", pid,
                   "--duration", f"{seconds}s", "--warmup", f"{warm}s", *options(settings))
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def result():
        out, err = process.communicate(timeout=120)
        try:
            return kept(json.loads(out)["runs"][0])
        except (ValueError, LookupError):
            raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}: {err.strip()[-400:]}") from None
    try:
        yield result
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def play(server, model, seconds, warm=0.5, tries=1, **settings):
    """One run of `weir bench`: what is kept of it, `classes` by name.  Open loops spin, which sends on the dot; one
    of which the generator was the limit is repeated while there are `tries` left."""
    if "rate" in settings or "recorded" in settings:
        settings.setdefault("spin", True)
    with playing(server, model, seconds, warm, **settings) as result:
        run = result()
    return run if run["valid"] or tries <= 1 else play(server, model, seconds, warm, tries - 1, **settings)


def poisson(rate, seconds, seed):
    """Arrival times from 0 to `seconds`."""
    source, at, arrivals = random.Random(seed), 0.0, []
    while True:
        at += source.expovariate(rate)
        if at >= seconds:
            return arrivals
        arrivals.append(at)


def steps(*parts, seed=1):
    """Poisson arrivals at changing rates: parts are (rate, seconds)."""
    arrivals, begin = [], 0.0
    for index, (rate, seconds) in enumerate(parts):
        arrivals += [begin + at for at in poisson(rate, seconds, seed + index)]
        begin += seconds
    return arrivals


def recorded(folder, name, arrivals):
    """A file for --recorded."""
    file = folder / name
    file.write_text("".join(f"{at:.9f}\n" for at in arrivals))
    return file


def simulated_latencies(arrivals, service, servers=1):
    """First come, first served, constant service times: M/D/c where arrivals are Poisson.  Seconds, in order."""
    free = [0.0] * servers
    latencies = []
    for at in arrivals:
        end = max(at, heapq.heappop(free)) + service
        heapq.heappush(free, end)
        latencies.append(end - at)
    return latencies


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
