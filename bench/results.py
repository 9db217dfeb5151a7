"""What is judged, and how: the table of targets, the file of results, the page in docs."""
import json
import os
import platform
import subprocess
import time

import plots
from servers import ROOT

RESULTS = ROOT / "bench/results/latest.json"
PAGE = ROOT / "docs/performance.md"
IMAGES = ROOT / "docs/images"

# name -> (what, target, "most" or "least", unit); target None: shown, not judged
TARGETS = {
    "tiny.cpu": ("B1: tiny model over HTTP/1.1, 64 connections: server CPU time per request against nginx", 1.0, "most", ""),
    "tiny.requests": ("the same: requests/s against nginx", None, "least", ""),
    "tiny.p50": ("one connection: p50 above nginx's", 3.0, "most", " us"),
    "tiny.spin": ("one connection, `--loop-spin 50us`: p50 against nginx's", 0.5, "most", ""),
    "tiny.cpu8": ("8 connections: server CPU time per request against nginx", None, "most", ""),
    "tiny.json": ("JSON, 64 connections: server CPU time per request against nginx", None, "most", ""),
    "grpc.cpu": ("B2: tiny model over gRPC, 16 connections x 32 streams: server CPU time per call against nghttpd", 0.65, "most", ""),
    "grpc.peer": ("the same: calls/s against a gRPC C++ callback server", 3.0, "least", ""),
    "server.15ms": ("B3: largest valid Poisson rate within 15 ms against C1, weight-heavy perceptron", 0.80, "least", ""),
    "server.30ms": ("the same within 30 ms", 0.93, "least", ""),
    "server.offline": ("offline, 64 rows a request, against the direct loop", 0.97, "least", ""),
    "overload.1.1": ("B4: answers within 15 ms at 1.1 times the valid rate, against that rate", 0.85, "least", ""),
    "overload.1.5": ("at 1.5 times", 0.85, "least", ""),
    "overload.2": ("at 2 times", 0.85, "least", ""),
    "overload.4": ("at 4 times, against what refusing leaves", 0.85, "least", ""),
    "overload.refusal": ("time to a refusal on arrival at 2 and 4 times, p99", 5.0, "most", " ms"),
    "overload.recovery": ("after a burst, from twice the SLO behind it on: p99 against the SLO", 1.0, "most", ""),
    "overload.single": ("a 5 ms model without batches, SLO 100 ms, at 1.1 to 4 times its capacity: answers within it", 0.85, "least", ""),
    "tail.p99": ("B5: p99 at 70 % load against a simulation of the same arrivals, 1 ms model", 1.3, "most", ""),
    "priority.high": ("B6: p99 of an urgent class against its run and 1.2 batches of the class that fills the server", 1.0, "most", ""),
    "priority.low": ("the same: answers of the lower class against what is left to it", 0.85, "least", ""),
    "isolation.p99": ("a model beside one at 5 times its capacity: p99 against alone", 2.0, "most", ""),
    "memory.held": ("B7: 120 models in a quarter of their memory: the most the server held against that budget", 1.05, "most", ""),
    "memory.cold": ("the same: request to answer of a 64 MiB model that was not in memory, above one that was", 5.0, "most", " ms"),
    "memory.create": ("that time against creating its session", 0.1, "most", ""),
    "memory.hits": ("requests that found their model in memory, against the best of LRU and LFU on the same requests", 1.0, "least", ""),
    "memory.rounds": ("resident memory after the worst of 200 rounds of loading and unloading against after the first", 1.05, "most", ""),
    "processes.throughput": ("1 ms model in a process of its own, 8 connections: requests/s against the same in the server", 0.99, "least", ""),
    "processes.idle": ("the same on an idle server, one request at a time: p50 above that in the server", 50.0, "most", " us"),
    "pipeline.gain": ("B8: host work beside a device: gain against (c+i)/max(c,i), the worst of four", 0.95, "least", ""),
    "instances.table": ("B9: 1 to 3 instances on a serial device: largest distance from the known rates", 0.02, "most", ""),
    "instances.pipelined": ("one pipelined instance against the ceiling", 0.99, "least", ""),
    "instances.fourth": ("a fourth instance is refused with the limit's name", 1.0, "least", ""),
    "tensors.http.602KB": ("B11: 602 KB there and back over HTTP/1.1: p50 against the bare connection", 1.15, "most", ""),
    "tensors.http.4.8MB": ("4.8 MB over HTTP/1.1", 1.15, "most", ""),
    "tensors.grpc.602KB": ("602 KB over gRPC", 1.35, "most", ""),
    "tensors.grpc.4.8MB": ("4.8 MB over gRPC", 1.35, "most", ""),
    "tensors.copy.602KB": ("602 KB over the bare connection, copied once on the way as the model's run does", None, "most", ""),
    "tensors.copy.4.8MB": ("4.8 MB likewise", None, "most", ""),
    "users.40ms": ("B12: users of four executors with 99 % of their frames within 40 ms", 55, "least", ""),
    "users.gain40": ("the same against users addressed to executors in turn", 1.3, "least", ""),
    "users.80ms": ("users within 80 ms", 55, "least", ""),
    "users.gain80": ("the same against users addressed to executors in turn", 1.3, "least", ""),
    "digits.requests": ("digits, 64 connections: requests/s against C1", 0.6, "least", ""),
    "segment.runs": ("segment, two executors on two cores against two threads of the direct loop", 0.95, "least", ""),
    "start.time": ("B10: exec to first correct answer against creating the session", 1.5, "most", ""),
    "start.memory": ("idle memory against a program that holds the session", 1.3, "most", ""),
    "start.cpu": ("processor time of an idle server with models loaded", 0.005, "most", " cores"),
}


def verdict(name, value):
    _, target, sense, _ = TARGETS[name]
    if target is None:
        return ""
    return "met" if (value >= target if sense == "least" else value <= target) else "MISSED"


def written(name, value):
    digits = 4 if name in ("instances.table", "start.cpu") else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}{TARGETS[name][3]}"


def aim(name):
    _, target, sense, unit = TARGETS[name]
    return "" if target is None else f"at {sense} {target:g}{unit}"


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo")
                  if line.startswith("model name")), platform.machine())
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"],
                            capture_output=True, text=True).stdout.strip()
    return {"processor": model, "processors": os.cpu_count(), "commit": commit,
            "date": time.strftime("%Y-%m-%d", time.gmtime())}


class Results:
    """All that is known; written whenever something is added, unless `file` is None."""

    def __init__(self, file=RESULTS):
        self.file = file
        empty = {"ratios": {}, "details": {}, "failed": {}, "measured": {}}
        self.all = {**empty, **json.loads(file.read_text())} if file and file.exists() else empty
        # What is no longer measured.
        self.all["ratios"] = {name: value for name, value in self.all["ratios"].items() if name in TARGETS}
        self.all["machine"] = machine()

    def begin(self, case):
        """Forgets what was known of it."""
        self.all["details"][case] = {}
        self.all["failed"].pop(case, None)
        self.all["ratios"] = {name: value for name, value in self.all["ratios"].items() if name.split(".")[0] != case}
        self.all["measured"][case] = {key: self.all["machine"][key] for key in ("date", "commit")}

    def add(self, case, ratios, details):
        self.all["ratios"].update(ratios)
        self.all["details"][case].update(details)
        self.write()

    def fail(self, case, error):
        self.all["failed"][case] = error
        self.write()

    def write(self):
        if self.file:
            self.file.parent.mkdir(exist_ok=True)
            self.file.write_text(json.dumps(rounded(self.all), indent=1, sort_keys=True) + "\n")


def rounded(value):
    """Six digits: more are noise, and make the file long."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


def occasions(measured):
    """On which days and at which commits; with the cases, where there are several."""
    cases = {}
    for case, when in measured.items():
        cases.setdefault(f"{when['date']} at commit {when['commit']}", []).append(case)
    return "; ".join(when + (f" ({', '.join(names)})" if len(cases) > 1 else "") for when, names in sorted(cases.items()))


def table(found):
    rows = [f"| {TARGETS[name][0]} | {written(name, found['ratios'][name])} | {aim(name)} | {verdict(name, found['ratios'][name])} |\n"
            for name in TARGETS if name in found["ratios"]]
    rows += [f"| {case}: not measured | | | {error} |\n" for case, error in sorted(found["failed"].items())]
    where = found["machine"]
    return (f"Measured on {where['processors']} processors ({where['processor']}): {occasions(found['measured'])}.\n\n| case | measured | target | |\n|---|---|---|---|\n{''.join(rows)}")


def replaced(text, mark, content):
    """The page with what stands between <!-- mark --> and <!-- end --> replaced."""
    head, found, rest = text.partition(f"<!-- {mark} -->\n")
    return f"{head}{found}{content}<!-- end -->{rest.partition('<!-- end -->')[2]}" if found else text


def write_page(found):
    charts = plots.draw_all(found["details"], IMAGES)
    text = replaced(PAGE.read_text(), "table", table(found))
    text = replaced(text, "charts", "".join(f"![{title}](images/{file})\n\n" for file, title in charts))
    PAGE.write_text(text)
