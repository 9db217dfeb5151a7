"""`weir bench` against real servers: every mode, what it counts, and what it says when a run is worth nothing.

How fast anything was is never asserted: this machine may be busy.  Whether a run was valid is then
chance, too; that the exit status tells of it is not.
"""

import csv
import http.server
import io
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import threading
import time
import uuid

import pytest

from serving import BINARY, PATIENCE_S, Server, make_key, put_model, put_sim

PREFIX = f"bench.{uuid.uuid4().hex}."
OUTCOMES = ("ok", "refused", "expired", "failed", "unanswered")
HANGS = {"max_batch_size": 0, "batching": "off", "instances": 1, "parameters": {"hang_at": 2}}  # The first run after the one at load.


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    scratch = tmp_path_factory.mktemp("bench")
    root = scratch / "models"
    root.mkdir()
    put_model(root, "identity_fp32")
    put_model(root, "identity_bytes")
    put_model(root, "add_sub")
    put_sim(root, "sim", parameters={"tau0": "1ms", "alpha": "50us"})
    put_sim(root, "slow", parameters={"tau0": "300ms"})
    with Server(scratch, root, "--shared-memory", PREFIX, "--unix-socket",
                scratch / "socket") as started:
        started.socket = scratch / "socket"
        yield started


@pytest.fixture
def server(shared):
    """At rest: what the run before gave up has gone, and is not counted any more."""

    def rests():
        metrics = shared.metrics()
        leases = {value for (name, _), value in metrics.samples.items() if name == "weir_model_leases"}
        return metrics.get("weir_http_connections") == 1 and len(leases) == 1

    shared.await_("rest", rests)
    return shared


def run(*words, env=None):
    variables = {key: value for key, value in os.environ.items() if not key.startswith("WEIR_")}
    return subprocess.run([BINARY, "bench", *map(str, words)], capture_output=True, text=True,
                          timeout=PATIENCE_S, env={**variables, **(env or {})})


def bench(*words, env=None):
    """The document; what must hold of every one is checked here."""
    done = run(*words, "--json", env=env)
    assert done.stdout, done.stderr
    document = json.loads(done.stdout)
    for each in document["runs"]:
        assert sum(each[outcome] for outcome in OUTCOMES) == each["sent"]
        assert each["good"] <= each["ok"]
        assert each["valid"] == (not each["flaws"])
    if not document["searched"]:
        assert done.returncode == (0 if all(each["valid"] for each in document["runs"]) else 1)
    if done.returncode != 0:
        assert "invalid" in done.stderr
    return document


def one(*words, **options):
    (only,) = bench(*words, **options)["runs"]
    return only


def at(server, grpc=False):
    return ("--url", f"http://127.0.0.1:{server.ports[grpc]}", *(("--grpc",) if grpc else ()))


def successes(server, model):
    return server.stats(model)["inference_stats"]["success"]["count"]


WAYS = {
    "binary": (False,),
    "json": (False, "--format", "json"),
    "shared": (False, "--shared-memory", PREFIX),
    "grpc": (True,),
    "grpc shared": (True, "--shared-memory", PREFIX),
}


@pytest.mark.parametrize("model", ["identity_fp32", "add_sub", "sim"])
@pytest.mark.parametrize("way", WAYS)
def test_a_closed_loop_counts_what_the_server_counts(server, model, way):
    grpc, *words = WAYS[way]
    before = successes(server, model)
    seen = one(model, *at(server, grpc), *words, "--requests", 150, "--concurrency", 6)
    assert seen["load"] == "closed" and seen["offered"] == 6
    assert seen["ok"] == seen["sent"] == 150
    assert successes(server, model) == before + 150
    assert seen["latency"]["count"] == 150 and seen["bytes_received"] > 0
    assert not os.path.exists("/dev/shm") or not [
        name for name in os.listdir("/dev/shm") if name.startswith(PREFIX)]


@pytest.mark.parametrize("way", ["binary", "json", "grpc"])
def test_texts_are_made_up_too(server, way):
    grpc, *words = WAYS[way]
    seen = one("identity_bytes", *at(server, grpc), *words, "--requests", 20, "--rows", 3)
    assert seen["ok"] == 20 and seen["rows"] == 3


def test_a_timed_closed_loop(server):
    seen = one("sim", *at(server), "--duration", "400ms", "--warmup", "100ms", "--concurrency", 2)
    assert seen["ok"] == seen["sent"] > 0
    assert abs(seen["elapsed_s"] - 0.4) < 0.001
    assert 0 < seen["inflight_mean"] <= 2.001


@pytest.mark.parametrize("grpc", [False, True])
@pytest.mark.parametrize("arrivals", ["constant", "poisson"])
def test_an_open_loop_sends_what_is_due(server, grpc, arrivals):
    before = successes(server, "sim")
    seen = one("sim", *at(server, grpc), "--rate", 200, "--arrivals", arrivals, "--duration", "500ms",
               "--warmup", "0s", "--drain", "60s")
    assert seen["load"] == "open" and seen["lag"]["count"] == seen["sent"]
    assert seen["ok"] == seen["sent"] == successes(server, "sim") - before
    assert seen["sent"] == 100 or arrivals == "poisson"
    assert seen["latency"]["max_us"] >= seen["lag"]["max_us"]


def test_recorded_times_are_replayed(server, tmp_path):
    times = tmp_path / "times"
    times.write_text("# seconds\n" + "".join(f"{i * 0.01:.3f}\n" for i in range(40)))
    seen = one("sim", *at(server), "--recorded", times, "--warmup", "0s", "--duration", "1s",
               "--drain", "60s")
    assert seen["ok"] == 40


def test_a_recording_is_replayed_as_a_whole(server, tmp_path):
    times = tmp_path / "times"
    times.write_text("".join(f"{i * 12}\n" for i in range(6)))  # A minute, told in 0.6 s.
    seen = one("sim", *at(server), "--recorded", times, "--speed", 100, "--drain", "60s")
    assert seen["sent"] == 6 and 0.6 <= seen["elapsed_s"] < 0.61


def test_users_who_come_and_go(server):
    document = bench("sim", *at(server), "--users", "2..4:2", "--rate", 50, "--on", "200ms", "--off",
                     "100ms", "--duration", "600ms", "--warmup", "0s", "--drain", "60s")
    assert [(each["load"], each["offered"]) for each in document["runs"]] == [("users", 2), ("users", 4)]
    assert all(each["ok"] == each["sent"] for each in document["runs"])


def test_several_loads(server):
    document = bench("sim", *at(server), "--concurrency", "1..4,7", "--requests", 10)
    assert [each["offered"] for each in document["runs"]] == [1, 2, 4, 7]
    assert [each["ok"] for each in document["runs"]] == [10] * 4


def test_two_servers_in_turn(server, tmp_path):
    (tmp_path / "models").mkdir()
    put_sim(tmp_path / "models", "sim", parameters={"tau0": "2ms"})
    with Server(tmp_path, tmp_path / "models") as other:
        document = bench("sim", "--target", f"rest={server.url}", "--target",
                         f"rpc=grpc://127.0.0.1:{other.ports[1]}", "--repeat", 3, "--requests", 20)
        assert [each["target"] for each in document["runs"]] == [0, 1] * 3
        assert [each["repeat"] for each in document["runs"]] == [0, 0, 1, 1, 2, 2]
        assert successes(other, "sim") == 60
        assert [target["protocol"] for target in document["targets"]] == ["REST, binary", "gRPC"]
        assert document["targets"][0]["server"].startswith("weir ")


def test_offline_counts_rows(server):
    before = server.stats("sim")["inference_count"]
    seen = one("sim", *at(server), "--offline", "--rows", 8, "--requests", 30)
    assert seen["load"] == "offline" and seen["rows"] == 8 and seen["ok"] == 30
    assert server.stats("sim")["inference_count"] == before + 240
    assert seen["rows_per_s"] == pytest.approx(8 * seen["throughput"], rel=1e-3)


def test_a_search_tries_rates(server):
    document = bench("sim", *at(server), "--search", "--slo", "2s", "--rate", 20000, "--resolution",
                     "100", "--duration", "150ms", "--warmup", "0s")
    tried = {each["offered"] for each in document["runs"]}
    passed = {each["offered"] for each in document["runs"] if each["verdict"] == "passed"}
    # A rate at which the generator itself is late says nothing: after some tries it is left at that.
    assert document["searched"]
    assert len(tried) > 1 or not any(each["valid"] for each in document["runs"])
    valid = document["targets"][0].get("valid_rate", 0)
    assert valid == 0 or valid in passed


def test_a_mix_of_classes(server):
    before = successes(server, "sim"), successes(server, "slow")
    seen = one("sim", *at(server), "--class", "high:rate=100,priority=1,slo=10s", "--class",
               "low:concurrency=3,priority=5", "--class", "other:model=slow,concurrency=1",
               "--duration", "1500ms", "--warmup", "0s", "--drain", "60s")
    high, low, other = seen["classes"]
    assert (high["name"], low["name"], other["name"]) == ("high", "low", "other")
    assert high["ok"] == high["good"] > 20 and high["slo_us"] == 10e6
    assert low["ok"] >= 1 and other["ok"] >= 1  # They share one simulated device with `slow`.
    assert seen["ok"] == high["ok"] + low["ok"] + other["ok"]
    # Those under way at the end of a closed loop do not count.
    assert 0 <= successes(server, "sim") - before[0] - high["ok"] - low["ok"] <= 3
    assert 0 <= successes(server, "slow") - before[1] - other["ok"] <= 1


def test_a_class_without_an_slo_is_waited_for(server):
    seen = one("sim", *at(server), "--class", "high:rate=20,slo=1us", "--class",
               "other:model=slow,concurrency=2", "--duration", "500ms", "--warmup", "0s")
    assert seen["classes"][1]["unanswered"] == 0


@pytest.mark.parametrize("turned", [False, True])
def test_a_class_may_have_a_load_beside_the_common_one(server, turned):
    classes = ["--class", "own:rate=40"], ["--class", "common:share=1"]
    first, second = reversed(classes) if turned else classes
    seen = one("sim", *at(server), *first, *second, "--duration", "500ms", "--warmup", "0s")
    assert all(each["ok"] > 0 for each in seen["classes"])
    assert seen["load"] == "open" and seen["offered"] == 40


def test_what_nothing_came_of_has_no_latency(server):
    done = run("sim", *at(server), "--rows", 9, "--requests", 2)
    assert done.returncode == 1 and "2 x 400" in done.stdout
    assert "0.00 us" not in done.stdout


def test_shares_of_a_common_load(server):
    seen = one("sim", *at(server), "--class", "a:share=9", "--class", "b:share=1", "--requests", 400,
               "--concurrency", 4)
    a, b = (each["sent"] for each in seen["classes"])
    assert a + b == 400 and 5 <= b <= 100


@pytest.mark.parametrize("grpc", [False, True])
def test_keys(tmp_path, grpc):
    (tmp_path / "models").mkdir()
    put_sim(tmp_path / "models", "sim")
    keys = {f"KEY_{name}": make_key(tmp_path / "keys.yaml", name) for name in "ab"}
    with Server(tmp_path, "--api-keys", tmp_path / "keys.yaml", tmp_path / "models") as server:
        words = ("sim", *at(server, grpc), "--requests", 20)
        assert "a key is needed" in run(*words).stderr
        assert one(*words, env={"WEIR_API_KEY": keys["KEY_a"]})["ok"] == 20
        mixed = one(*words, "--class", "x:key=KEY_a", "--class", "y:key=KEY_b,share=2", "--class",
                    "z:key=WRONG", env={"WEIR_API_KEY": keys["KEY_a"], "WRONG": "x" * 43, **keys})
        x, y, z = mixed["classes"]
        assert x["ok"] == x["sent"] and y["ok"] == y["sent"] and z["failed"] == z["sent"] > 0
        assert mixed["codes"] == {"UNAUTHENTICATED" if grpc else "401": z["sent"]}
        assert mixed["flaws"] == ["errors"]


@pytest.mark.parametrize("grpc", [False, True])
def test_deadlines_reach_the_server(server, grpc):
    seen = one("slow", *at(server, grpc), "--rate", 100, "--deadline", "20ms", "--duration", "300ms",
               "--warmup", "0s", "--drain", "60s")
    assert seen["sent"] > 0 and seen["refused"] + seen["expired"] == seen["sent"]
    known = {"503", "504", "DEADLINE_EXCEEDED", "UNAVAILABLE", "RESOURCE_EXHAUSTED"}
    assert set(seen["codes"]) <= known


def test_refusals_are_sentences_with_counts(server):
    done = run("slow", *at(server), "--rate", 100, "--deadline", "20ms", "--duration", "300ms")
    assert re.search(r"\d+ x 50[34]: .*deadline", done.stdout), done.stdout


@pytest.fixture(params=[False, True])
def stalled(request, tmp_path):
    (tmp_path / "models").mkdir()
    put_sim(tmp_path / "models", "sim", **HANGS)
    put_sim(tmp_path / "models", "fine")
    put_sim(tmp_path / "models", "slow", parameters={"tau0": "500ms"}, max_batch_size=0)
    with Server(tmp_path, tmp_path / "models", "--limits.drain-timeout", "100ms") as server:
        server.grpc = request.param
        yield server
        server.process.kill()
        server.process.wait()


def test_a_stalled_server_counts_as_misses(stalled):
    seen = one("sim", *at(stalled, stalled.grpc), "--rate", 300, "--slo", "5s", "--duration",
               "400ms", "--warmup", "0s", "--drain", "200ms")
    assert seen["unanswered"] == seen["sent"] > 50 and seen["ok"] == 0
    assert seen["good"] == 0 and seen["missed"] == 1
    # The one that was due first has waited for the whole run.
    assert seen["latency"]["max_us"] >= 500_000


def test_what_was_given_up_is_told(stalled):
    done = run("sim", *at(stalled, stalled.grpc), "--concurrency", 5, "--duration", "300ms",
               "--warmup", "0s", "--drain", "50ms")
    assert "A at 5: 5 unanswered" in done.stdout


def test_a_stalled_server_in_a_closed_loop(stalled):
    seen = one("sim", *at(stalled, stalled.grpc), "--concurrency", 5, "--duration", "1s",
               "--warmup", "0s", "--drain", "50ms")
    assert seen["unanswered"] == seen["sent"] == 5
    assert seen["latency"]["min_us"] >= 200_000  # Though all may have been sent late.
    assert seen["flaws"] == ["unanswered"]


def test_a_closed_loop_of_time_outs_measures_no_server(stalled, tmp_path):
    done = run("slow", *at(stalled, stalled.grpc), "--concurrency", 2, "--requests", 6, "--warmup",
               "0s", "--timeout", "20ms", "--html", tmp_path / "page.html")
    assert done.returncode == 1
    why = "requests were given up: the figures are of the time-out"
    assert "INVALID" in done.stdout and why in done.stdout
    assert f"1 of 1 runs invalid: {why}" in done.stderr
    page = (tmp_path / "page.html").read_text()
    assert why in page and '"flaws":["unanswered"]' in page


def test_requests_that_take_too_long_are_given_up(stalled):
    seen = one("sim", *at(stalled, stalled.grpc), "--concurrency", 2, "--duration", "2s",
               "--warmup", "0s", "--timeout", "50ms", "--drain", "5s")
    # The server notices, ends the run that hangs, and goes on.
    assert seen["unanswered"] >= 1 and seen["ok"] > 0
    assert seen["unanswered"] + seen["ok"] == seen["sent"]
    assert one("fine", *at(stalled, stalled.grpc), "--requests", 5)["ok"] == 5


@pytest.mark.parametrize("grpc", [False, True])
def test_a_generator_that_is_the_limit_says_so(server, grpc):
    words = ("sim", *at(server, grpc), "--rate", 3000000, "--arrivals", "constant", "--duration",
             "300ms", "--warmup", "0s", "--slo", "1ms", "--drain", "0s", "--timeout", "1s")
    seen = one(*words)
    assert "send-lag" in seen["flaws"] and not seen["valid"]
    assert seen["sent"] == 900_000  # Those that were due and never left are misses, too.
    done = run(*words)
    assert done.returncode == 1
    assert "INVALID" in done.stdout and "send lag" in done.stdout
    assert "1 of 1 runs invalid: p99 of the send lag" in done.stderr


def test_latency_counts_from_when_a_request_was_due(server):
    before = successes(server, "sim")
    process = subprocess.Popen([BINARY, "bench", "sim", *at(server), "--rate", "300", "--arrivals",
                                "constant", "--duration", "5s", "--warmup", "0s", "--json"],
                               stdout=subprocess.PIPE)
    server.await_("requests", lambda: successes(server, "sim") > before + 20)
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.4)  # The stall itself.
    process.send_signal(signal.SIGCONT)
    (seen,) = json.loads(process.communicate(timeout=PATIENCE_S)[0])["runs"]
    assert seen["ok"] == seen["sent"] == 1500
    assert seen["lag"]["max_us"] >= 300_000
    for quantile in ("p90_us", "p95_us", "p99_us", "max_us"):
        assert seen["latency"][quantile] >= seen["lag"][quantile] * 0.999  # The histogram's steps.
    assert "send-lag" in seen["flaws"] and process.returncode == 1


@pytest.mark.parametrize("grpc", [False, True])
def test_a_server_that_dies(tmp_path, grpc):
    (tmp_path / "models").mkdir()
    put_sim(tmp_path / "models", "sim", parameters={"crash_at": 30})
    with Server(tmp_path, tmp_path / "models") as server:
        seen = one("sim", *at(server, grpc), "--concurrency", 4, "--duration", "2s", "--warmup",
                   "0s", "--drain", "0s")
        assert 0 < seen["ok"] <= 30 * 8 and seen["failed"] >= 1
        assert "errors" in seen["flaws"] and "broken" in seen["codes"]
        server.process.wait(PATIENCE_S)


def test_a_closed_loop_whose_server_goes_away_is_invalid(tmp_path):
    (tmp_path / "models").mkdir()
    put_sim(tmp_path / "models", "sim")
    with Server(tmp_path, tmp_path / "models") as server:
        process = subprocess.Popen([BINARY, "bench", "sim", *at(server), "--concurrency", "1", "--duration",
                                    "3s", "--warmup", "0s", "--json"], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        server.await_("requests", lambda: successes(server, "sim") > 200)
        server.process.kill()
        out, said = process.communicate(timeout=PATIENCE_S)
        server.process.wait(PATIENCE_S)
    (seen,) = json.loads(out)["runs"]
    # One request in hundreds broke; that nothing was asked afterwards is what spoils the figures.
    assert seen["ok"] > 0 and seen["away_s"] > 0
    assert "away" in seen["flaws"] and process.returncode == 1
    assert b"no connection to the server" in said


def test_a_target_that_is_gone_is_named(server, tmp_path):
    (tmp_path / "models").mkdir()
    put_sim(tmp_path / "models", "sim", parameters={"crash_at": 30})
    with Server(tmp_path, tmp_path / "models") as dies:
        done = run("sim", "--target", f"good=http://127.0.0.1:{server.ports[0]}", "--target",
                   f"gone=http://127.0.0.1:{dies.ports[0]}", "--repeat", 2, "--concurrency", 4,
                   "--duration", "1s", "--warmup", "0s", "--drain", "0s")
        dies.process.wait(PATIENCE_S)
    assert done.returncode == 1 and "ended after 3 runs: gone: 127.0.0.1" in done.stderr
    assert "good" in done.stdout  # What there is by then is shown.


class Closes(http.server.BaseHTTPRequestHandler):
    """Another server: it answers in chunks and hangs up after each answer."""

    protocol_version = "HTTP/1.1"
    asked = 0
    last = None

    def do_GET(self):
        tensor = [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
        self.reply(json.dumps({"name": "m", "versions": ["1"], "platform": "", "inputs": tensor,
                               "outputs": tensor}).encode())

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Closes.last = self.path, self.headers, body
        Closes.asked += 1
        self.reply(b"x" * 100_000)

    def reply(self, body):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        for piece in (body[:10], body[10:]):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass


@pytest.fixture
def other():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Closes) as started:
        threading.Thread(target=started.serve_forever, daemon=True).start()
        Closes.asked = 0
        yield f"http://127.0.0.1:{started.server_port}"
        started.shutdown()


def test_a_server_that_hangs_up_after_each_answer(other):
    seen = one("m", "--url", other, "--requests", 40, "--concurrency", 3)
    assert seen["ok"] == 40 == Closes.asked


def test_what_is_sent(other):
    words = ("m", "--url", other, "--requests", 1, "--version", 7, "--priority", 3, "--deadline",
             "1500us", "--header", "X-Own: yes")
    assert one(*words, "--input", "x=1,2,3,4", env={"WEIR_API_KEY": "secret"})["ok"] == 1
    path, headers, body = Closes.last
    size = int(headers["Inference-Header-Content-Length"])
    head = json.loads(body[:size])
    assert path == "/v2/models/m/versions/7/infer" and headers["X-Own"] == "yes"
    assert headers["X-Api-Key"] == "secret" and headers["Weir-Deadline-Ms"] == "2"
    assert body[size:] == struct.pack("<4f", 1, 2, 3, 4)
    assert head["parameters"] == {"binary_data_output": True, "priority": 3}
    assert head["inputs"] == [{"name": "x", "shape": [1, 4], "datatype": "FP32",
                               "parameters": {"binary_data_size": 16}}]
    assert one(*words, "--format", "json", "--rows", 2)["ok"] == 1
    tensor = json.loads(Closes.last[2])["inputs"][0]
    assert tensor["shape"] == [2, 4] and len(set(tensor["data"])) == 8
    assert all(0 <= value < 1 for value in tensor["data"])


def test_ctrl_c_prints_what_there_is(server):
    process = subprocess.Popen([BINARY, "bench", "sim", *at(server), "--duration", "1h", "--warmup",
                                "0s", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    before = successes(server, "sim")
    server.await_("requests", lambda: successes(server, "sim") > before + 5)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=PATIENCE_S)
    (seen,) = json.loads(out)["runs"]
    assert process.returncode == 1 and seen["ok"] > 0
    assert seen["flaws"] == ["stopped"] and b"before its time" in said


def test_ctrl_c_while_the_server_says_nothing():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        # A shell's background job, as the tests may be, would pass on that it ignores the signal.
        process = subprocess.Popen([BINARY, "bench", "m", "--url",
                                    f"127.0.0.1:{silent.getsockname()[1]}"],
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        connection, _ = silent.accept()
        with connection:
            connection.recv(1)  # It asks, and waits.
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == -signal.SIGINT


def test_over_a_unix_socket(server):
    assert one("sim", "--url", f"unix:{server.socket}", "--requests", 30)["ok"] == 30
    assert one("sim", "--grpc", "--url", f"unix:{server.socket}", "--requests", 30)["ok"] == 30


def test_inputs_from_files_and_shapes(server, tmp_path):
    (tmp_path / "x.json").write_text(str(list(range(16))))
    words = ("add_sub", *at(server), "--requests", 5)
    assert one(*words, "--input", f"INPUT0=@{tmp_path / 'x.json'}", "--zero")["ok"] == 5
    turns = [word for i in range(3) for word in ("--input", f"INPUT0={i}" + ",1" * 15)]
    document = bench(*words, *turns, "--input", f"INPUT1=@{tmp_path / 'x.json'}")
    assert {"name": "different requests", "value": "3"} in document["notes"]
    assert document["runs"][0]["ok"] == 5
    done = run(*words, "--shape", "INPUT0=7,7,7")
    assert done.returncode == 1 and "--shape INPUT0" in done.stderr
    done = run(*words, "--shape", "INPUT7=7")
    assert done.returncode == 1 and "no input or output 'INPUT7'" in done.stderr


def test_a_process_to_watch(server):
    seen = one("sim", *at(server), "--requests", 200, "--server-pid", server.process.pid)
    assert seen["server_cpu_s"] > 0 and seen["server_memory_bytes"] > 1 << 20


def test_a_process_that_is_not_there(server):
    done = run("sim", *at(server), "--requests", 2, "--server-pid", 2**31 - 1)
    assert done.returncode == 1 and "--server-pid" in done.stderr and done.stdout == ""


def test_shared_memory_that_the_server_does_not_allow(server):
    done = run("sim", *at(server), "--requests", 2, "--shared-memory", "others.")
    assert done.returncode == 1 and "shared memory: the server answers 4" in done.stderr
    assert "{" not in done.stderr


def test_a_page_and_a_table(server, tmp_path):
    page = tmp_path / "page.html"
    done = run("sim", *at(server), "--concurrency", "1,2", "--requests", 30, "--html", page)
    assert done.returncode == 0 or "invalid" in done.stderr
    assert "answers/s" in done.stdout and "\x1b" not in done.stdout
    text = page.read_text()
    assert text.startswith("<!doctype html>") and "sim" in text and "http-equiv" not in text


def test_lines_for_spreadsheets(server):
    done = run("sim", *at(server), "--concurrency", "1,2", "--requests", 30, "--csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["offered"] for row in rows] == ["1", "2"]
    assert [row["ok"] for row in rows] == ["30", "30"]


def on_terminal(*words):
    """What standard error shows on a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([BINARY, "bench", *map(str, words)], stdout=subprocess.DEVNULL,
                               stderr=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    seen = b""

    def read():
        nonlocal seen
        try:
            while data := os.read(ours, 65536):
                seen += data
        except OSError:  # The other end is closed.
            pass

    reader = threading.Thread(target=read)
    reader.start()
    process.wait(PATIENCE_S)
    reader.join(PATIENCE_S)
    os.close(ours)
    return seen.decode()


def test_a_live_line_on_terminals_only(server):
    words = ("sim", *at(server), "--duration", "2s", "--warmup", "0s")
    seen = on_terminal(*words)
    assert "run 1/1" in seen and "p99" in seen
    assert "p50 0" not in seen  # Nothing has been answered yet.
    assert re.sub(r"\x1b\[\d*m", "", seen).endswith("\r\x1b[K")
    assert "run 1/1" not in on_terminal(*words, "--json")


@pytest.mark.parametrize("words, sentence", [
    ((), "no model named"),
    (("m", "--concurrency", "x"), "--concurrency: found 'x'"),
    (("m", "--concurrency", "1..1000000"), "at most 16384"),
    (("m", "--rate", "1..2..3"), "--rate: found '1..2..3'"),
    (("m", "--input", "x"), "--input: found 'x', expected NAME=VALUE or NAME=@FILE"),
    (("m", "--search"), "--search needs --slo"),
    (("m", "--json", "--csv"), "--json and --csv"),
    (("m", "--concurrency", "4", "--rate", "5"), "--concurrency and --rate exclude each other"),
    (("m", "--rate", "5", "--offline"), "--rate and --offline exclude each other"),
    (("m", "--users", "3", "--rate", "5", "--arrivals", "constant"), "--arrivals and --users"),
    (("m", "--rate", "1,2", "--users", "3"), "--users: expected one --rate"),
    (("m", "--speed", "2"), "--speed goes with --recorded"),
    (("m", "--off", "2s"), "--off goes with --users"),
    (("m", "--streams", "2"), "--streams goes with gRPC"),
    (("m", "--grpc", "--format", "json"), "--format goes with REST"),
    (("m", "--header", "nothing"), "--header: found 'nothing'"),
    (("m", "--target", "a=x:1", "--target", "a=x:2"), "'a' names two targets"),
    (("m", "--class", "a:rate=0"), "--class a: rate: found '0'"),
    (("m", "--class", "a:rate=5", "--concurrency", "3"), "--concurrency is of classes without"),
    (("m", "--rate", "3", "--requests", "3"), "--requests goes with a closed loop"),
    (("m", "--users", "3"), "--users needs --rate"),
    (("m", "--class", "a:b=c"), "--class: found 'b=c'"),
    (("m", "--class", "a:key=NO_SUCH_VARIABLE"), "NO_SUCH_VARIABLE"),
    (("m", "--class", "a:rate=1,concurrency=1"), "exclude each other"),
    (("m", "--target", "nourl"), "--target: found 'nourl'"),
    (("m", "--arrivals", "sometimes"), "expected poisson or constant"),
    (("m", "--duration", "10"), "expected a duration"),
    (("m", "--format", "xml"), "--format: found 'xml'"),
    (("m", "--cpu", "-1"), "--cpu: found '-1'"),
    (("m", "extra"), "unexpected word 'extra'"),
    (("m", "--nonsense"), "unknown option '--nonsense'"),
])
def test_mistakes_on_the_command_line(words, sentence):
    done = run(*words)
    assert done.returncode == 2 and sentence in done.stderr and done.stdout == ""


def test_a_page_that_cannot_be_written_is_told_before_anything_is_measured(server, tmp_path):
    done = run("sim", *at(server), "--duration", "1h", "--html", tmp_path / "missing" / "page.html")
    assert done.returncode == 1 and done.stdout == ""
    assert f"{tmp_path}/missing/page.html: no such file or folder" in done.stderr
    done = run("sim", *at(server), "--duration", "1h", "--html", tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert f"{tmp_path}: found a folder, expected a file" in done.stderr


@pytest.mark.parametrize("grpc", [False, True])
def test_what_cannot_be_measured(server, grpc):
    done = run("nobody", *at(server, grpc))
    assert done.returncode == 1 and "nobody" in done.stderr and done.stdout == ""
    with socket.socket() as taken:  # Nobody listens on it, nor can.
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        done = run("sim", "--url", f"127.0.0.1:{port}", *(("--grpc",) if grpc else ()))
    assert done.returncode == 1 and f"127.0.0.1:{port}" in done.stderr


def test_help_names_every_option():
    shown = subprocess.run([BINARY, "help", "bench"], capture_output=True, text=True).stdout
    for option in ("--concurrency", "--rate", "--search", "--offline", "--class", "--html", "--slo"):
        assert option in shown
