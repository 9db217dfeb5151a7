"""Simulated devices, whose limits are known exactly.

B8 `pipeline`: host work beside a device.  B9 `instances`: several instances on a serial accelerator.
B12 `users`: how many users four executors carry, from one queue and addressed in turn.
"""
import concurrent.futures
import contextlib
import heapq
import json
import random

from ceilings import binary_exchange
from loads import load, median
from models import simulated
from servers import index, say, weir
from tool import play, playing, recorded

CLIENTS = 8


def closed_loop(folder, server, model, rows):
    """A function(seconds) that keeps eight requests of so many rows under way."""
    exchange = binary_exchange(folder, model, "x", [rows, 16])
    return lambda seconds: load(*server, exchange.path, exchange.file, exchange.header_bytes, CLIENTS, seconds)


# ---- B8 ------------------------------------------------------------------------------------------

DEVICE_MS = 10  # A batch of 8 rows: 2 ms and 1 ms a row.
HOST_MS = (2, 2.5, 4, 10)


def pipeline(folder, plan):
    """Batches of 8 rows that take `host` ms to prepare and 10 on the device, one after the other and overlapping."""
    worst, details = [], {}
    for host in HOST_MS:
        say(f"pipeline: {host:g} ms of host work beside {DEVICE_MS} on the device")
        models = folder / f"host{host}"
        simulated(models, "m", {"tau0": "2ms", "alpha": "1ms", "prepare": f"{host * 1000:.0f}us"},
                  "device: npu\nmax_batch_size: 8\ninstances: 1\n")
        with (weir(models, "--devices", "npu:1") as overlapping,
              weir(models, "--devices", "npu:1:unpipelined") as serial):
            found = plan.side_by_side({"pipelined": closed_loop(models, overlapping, "m", 8),
                                       "serial": closed_loop(models, serial, "m", 8)}, 1, 3)
        gain = median(found["pipelined"], "per_s") / median(found["serial"], "per_s")
        limit = (host + DEVICE_MS) / max(host, DEVICE_MS)
        details[f"{host:g}"] = {"gain": gain, "limit": limit, **found}
        worst.append(gain / limit)
        yield {"pipeline.gain": min(worst)}, details


# ---- B9 ------------------------------------------------------------------------------------------

SERIAL_MS, WHOLE_MS = 2.6, 3.0
CONTEXTS = 3


def accelerator(folder, name, instances):
    """2.6 ms on the device, 0.4 on the host, three contexts: a thousandth of the original."""
    models = folder / name
    simulated(models, "m", {"tau0": "2600us", "prepare": "200us", "finish": "200us", "contexts_max": f'"{CONTEXTS}"'},
              f"device: npu\nmax_batch_size: 1\ninstances: {instances}\n")
    return models


def refusal(models):
    """What the index says about a model with more instances than the device has contexts."""
    with weir(models, "--devices", f"npu:{CONTEXTS + 1}:unpipelined", ready=False) as (_, port):
        return json.loads(index(port))[0]


def ceiling(instances):
    """Answers per second of so many instances whose runs share the device."""
    return min(instances * 1e3 / WHOLE_MS, 1e3 / SERIAL_MS)


def instances(folder, plan):
    say("instances: a serial device, 1 to 3 instances and one that is pipelined")
    with contextlib.ExitStack() as stack:
        sides = {}
        for count in (1, 2, 3):
            models = accelerator(folder, f"n{count}", count)
            server = stack.enter_context(weir(models, "--devices", f"npu:{CONTEXTS}:unpipelined"))
            sides[str(count)] = closed_loop(models, server, "m", 1)
        models = accelerator(folder, "pipelined", 1)
        server = stack.enter_context(weir(models, "--devices", "npu:1"))
        sides["pipelined"] = closed_loop(models, server, "m", 1)
        found = plan.side_by_side(sides, 1, 4)
    off = max(abs(median(found[str(count)], "per_s") / ceiling(count) - 1) for count in (1, 2, 3))
    said = refusal(accelerator(folder, "fourth", CONTEXTS + 1))
    named = said.get("state") != "READY" and f"contexts_max is {CONTEXTS}" in said.get("reason", "")
    yield {"instances.table": off, "instances.pipelined": median(found["pipelined"], "per_s") / ceiling(9),
           "instances.fourth": float(named)}, {
        **found, "limit": {str(count): ceiling(count) for count in (1, 2, 3)}, "fourth": said}


# ---- B12 -----------------------------------------------------------------------------------------

FASTER = 2.5       # All times are divided by it, so that more of them fit into a run.
EXECUTORS = 4
FRAME_MS = 1e3 / 150 / FASTER
PERIOD_S = 1 / 25 / FASTER
ACTIVE_S, THINKING_S = 4 / FASTER, 11 / FASTER
SLOS_MS = [int(ms / FASTER) for ms in (40, 80)]
GOOD = 0.99
STEP = 2    # Users, from one try to the next.
WARM = 0.1  # Of the time.


def user(seed, seconds):
    """The frames of one who is active for 4 s, then thinks for 11 on average."""
    source = random.Random(seed)
    begin = source.uniform(-ACTIVE_S, THINKING_S)
    frames = []
    while begin < seconds:
        at, end = begin, begin + ACTIVE_S
        while at < min(end, seconds):
            if at >= 0:
                frames.append(at)
            at += PERIOD_S
        begin = end + source.expovariate(1 / THINKING_S)
    return frames


def lines(users, seconds, in_turn):
    """Arrival times, one list per queue: one in all, or users in turn to one for each executor."""
    queues = EXECUTORS if in_turn else 1
    return [sorted(at for index in range(queue, users, queues) for at in user(index, seconds)) for queue in range(queues)]


def simulated_share(users, seconds, in_turn, slo_ms):
    """The same arrivals were there nothing but the runs: first come, first served, but for those who would be late."""
    good = sent = 0
    for arrivals in lines(users, seconds, in_turn):
        free = [0.0] * (1 if in_turn else EXECUTORS)
        for at in arrivals:
            end = max(at, free[0]) + FRAME_MS / 1e3
            if end - at <= slo_ms / 1e3:
                heapq.heapreplace(free, end)
                good += at >= seconds * WARM
        sent += sum(at >= seconds * WARM for at in arrivals)
    return good / sent


def simulated_users(seconds, in_turn, slo_ms):
    users = 2 * EXECUTORS
    while users < 150 and simulated_share(users + STEP, seconds, in_turn, slo_ms) >= GOOD:
        users += STEP
    return users


def measured_share(folder, server, users, seconds, in_turn, slo_ms):
    """All queues at once; the first part of the time is not counted."""
    warm = seconds * WARM
    with contextlib.ExitStack() as stack:
        results = []
        for queue, arrivals in enumerate(lines(users, seconds, in_turn)):
            model = f"slo{slo_ms}-{queue if in_turn else 'all'}"
            file = recorded(folder, f"{model}-{users}", arrivals)
            results.append(stack.enter_context(playing(server, model, seconds - warm, warm, recorded=file,
                                                       slo=f"{slo_ms}ms", drain="1s")))
        runs = [result() for result in results]
    return sum(run["good"] for run in runs) / sum(run["sent"] for run in runs)


def most_users(share, limit):
    """Halves where the edge may be, from what the simulation carries on; returns (users, {users: share})."""
    tried = {}
    low, high = 0, even(1.2 * limit)  # This many are carried, so many are not.
    while high - low > STEP:
        users = even((low + high) / 2 if low else high / 1.2)
        tried[users] = share(users)
        low, high = (users, high) if tried[users] >= GOOD else (low, users)
    return low, tried


def even(users):
    return int(users / STEP) * STEP


def user_models(folder):
    models = folder / "models"
    device = {"tau0": f"{FRAME_MS * 1e6:.0f}ns", "exclusive": "false", "inputs": '"x:FP32[1,16]"', "outputs": '"y:FP32[1,16]"'}
    for slo_ms in SLOS_MS:
        settings = f"max_batch_size: 0\ndeadline: {slo_ms}ms\ninstances: "
        simulated(models, f"slo{slo_ms}-all", device, f"{settings}{EXECUTORS}\n")
        for queue in range(EXECUTORS):
            simulated(models, f"slo{slo_ms}-{queue}", device, f"{settings}1\n")
    return models


def users(folder, plan):
    """Both ways at once, on servers of their own; each runs its models on executors that sleep most of the time."""
    seconds = plan.seconds(60, 10)
    details = {"faster": FASTER, "good": GOOD}
    models = user_models(folder)
    with weir(models, executors=EXECUTORS) as central, weir(models, executors=EXECUTORS) as in_turn:
        def search(server, way, slo_ms):
            limit = simulated_users(seconds, way == "in_turn", slo_ms)
            say(f"users: {way}, {slo_ms * FASTER:g} ms; {limit} users in the simulation")
            count, tried = most_users(lambda n: measured_share(folder, server, n, seconds, way == "in_turn", slo_ms), limit)
            return {"users": count, "simulated": limit, "share": tried}
        for slo_ms in SLOS_MS:
            original_ms = f"{slo_ms * FASTER:g}"
            with concurrent.futures.ThreadPoolExecutor(2) as searches:
                found = {way: searches.submit(search, server, way, slo_ms)
                         for way, server in (("central", central), ("in_turn", in_turn))}
            best = {way: search.result() for way, search in found.items()}
            details.update({f"{way}{original_ms}": one for way, one in best.items()})
            carried = {way: one["users"] for way, one in best.items()}
            yield {f"users.{original_ms}ms": carried["central"],
                   f"users.gain{original_ms}": carried["central"] / max(1, carried["in_turn"])}, details
        yield {}, {"claimed88": measured_share(folder, central, 88, seconds, False, SLOS_MS[-1])}
