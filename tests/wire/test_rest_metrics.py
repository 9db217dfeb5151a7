"""What the server counts: Prometheus text, Triton's names, agreement with statistics, timing."""

import concurrent.futures
import json
import re

import pytest

from serving import Metrics, Raw, Server, put_model, put_sim, sim_request, tensor

TRITON = {
    "nv_inference_request_success": "counter",
    "nv_inference_request_failure": "counter",
    "nv_inference_count": "counter",
    "nv_inference_exec_count": "counter",
    "nv_inference_request_duration_us": "counter",
    "nv_inference_queue_duration_us": "counter",
    "nv_inference_compute_input_duration_us": "counter",
    "nv_inference_compute_infer_duration_us": "counter",
    "nv_inference_compute_output_duration_us": "counter",
    "nv_inference_pending_request_count": "gauge",
    "nv_cpu_utilization": "gauge",
    "nv_cpu_memory_total_bytes": "gauge",
    "nv_cpu_memory_used_bytes": "gauge",
}

HISTOGRAMS = [f"weir_request_{stage}_seconds" for stage in ("queue", "gather", "compute", "total")]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("metrics") / "models"
    root.mkdir()
    put_model(root, "gather")
    put_model(root, "identity_fp32")
    put_sim(root, "sim", parameters={"tau0": "2ms", "alpha": "100us"})
    put_sim(root, "many", parameters={"tau0": "20ms"})
    put_sim(root, "late", parameters={"tau0": "100ms"}, instance_group=[{"count": 1}])
    put_sim(root, "hangs", parameters={"hang_at": 2}, max_batch_size=1)  # The first run after the one at load.
    put_sim(root, "fails", parameters={"fail_at": 2}, max_batch_size=1)
    with Server(root.parent, root) as server:
        yield server


def test_the_parser_is_strict():
    good = '# HELP a x\n# TYPE a counter\na{b="c\\"d"} 1\n'
    assert Metrics(good).get("a", b='c\\"d') == 1
    for wrong in (
        good[:-1],
        good + "a 1 2 3\n",
        good + 'a{b="c"d} 1\n',
        good + good,
        "b 1\n",
        good + "a_sum 1\n",
        good + 'a{b="c\\"d"} 2\n',
        good + "\n",
    ):
        with pytest.raises((ValueError, KeyError)):
            Metrics(wrong)


def test_content_type(server):
    answer = server.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    with server.connect(server.ports[2]) as connection:
        assert connection.ask("GET", "/metrics").status == 200
        assert connection.ask("GET", "/metrics/").status == 200
        assert connection.ask("POST", "/metrics", b"").status == 405


def test_tritons_names_are_there(server):
    metrics = server.metrics()
    for name, kind in TRITON.items():
        assert metrics.types.get(name) == kind
        assert name in metrics.helps


def test_every_family_has_help_and_a_known_type(server):
    metrics = server.metrics()
    assert set(metrics.helps) == set(metrics.types)
    assert set(metrics.types.values()) <= {"counter", "gauge", "histogram"}
    for name, kind in metrics.types.items():
        assert (kind == "counter") == name.endswith("_total") or name.startswith("nv_"), name


def test_histograms_are_cumulative(server):
    server.infer("sim", sim_request())
    metrics = server.metrics()
    series = {}
    for (name, labels), value in metrics.samples.items():
        if name.endswith("_bucket"):
            rest = tuple(item for item in labels if item[0] != "le")
            bound = float(dict(labels)["le"].replace("+Inf", "inf"))
            series.setdefault((name[:-7], rest), []).append((bound, value))
    assert {name for name, _ in series} >= set(HISTOGRAMS)
    for (name, labels), buckets in series.items():
        counts = [count for _, count in sorted(buckets)]
        assert counts == sorted(counts), name
        assert sorted(buckets)[-1] == (float("inf"), metrics.get(f"{name}_count", **dict(labels)))


def grown(server, model, ask):
    before, numbers = server.stats(model), server.metrics()
    ask()
    after, more = server.stats(model), server.metrics()
    stats = {
        key: after["inference_stats"][key]["count"] - before["inference_stats"][key]["count"]
        for key in after["inference_stats"]
    }
    stats["inferences"] = after["inference_count"] - before["inference_count"]
    stats["executions"] = after["execution_count"] - before["execution_count"]

    def metric(name, **labels):
        return more.of_model(name, model, **labels) - numbers.of_model(name, model, **labels)

    return stats, metric, after, more


def test_metrics_and_statistics_agree(server):
    def ask():
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda i: server.infer("sim", sim_request(rows=1 + i % 3)), range(60)))

    stats, metric, after, more = grown(server, "sim", ask)
    assert stats["success"] == 60
    assert stats["inferences"] == 120
    assert stats["executions"] <= 60
    assert metric("nv_inference_request_success") == 60
    assert metric("nv_inference_count") == 120
    assert metric("nv_inference_exec_count") == stats["executions"]
    for name in HISTOGRAMS:
        assert metric(f"{name}_count") == 60
    pairs = {
        "success": "nv_inference_request_duration_us",
        "queue": "nv_inference_queue_duration_us",
        "compute_input": "nv_inference_compute_input_duration_us",
        "compute_infer": "nv_inference_compute_infer_duration_us",
        "compute_output": "nv_inference_compute_output_duration_us",
    }
    for key, name in pairs.items():
        ns = after["inference_stats"][key]["ns"]
        assert more.of_model(name, "sim") == ns // 1000
    parts = ("queue", "compute_input", "compute_infer", "compute_output")
    inference = after["inference_stats"]
    assert sum(inference[key]["ns"] for key in parts) == inference["success"]["ns"]
    executions = sum(entry["compute_infer"]["count"] for entry in after["batch_stats"])
    assert executions == after["execution_count"]
    rows = sum(e["batch_size"] * e["compute_infer"]["count"] for e in after["batch_stats"])
    assert rows == after["inference_count"]
    assert all(entry["batch_size"] <= 8 for entry in after["batch_stats"])


def test_requests_share_runs_when_they_wait(server):
    """20 ms a run and 8 rows in one: 40 clients at once cannot have a run each."""

    def ask():
        with concurrent.futures.ThreadPoolExecutor(40) as pool:
            list(pool.map(lambda _: server.infer("many", sim_request()), range(200)))

    stats, _, after, _ = grown(server, "many", ask)
    assert stats["success"] == 200
    assert stats["executions"] < 200
    assert max(entry["batch_size"] for entry in after["batch_stats"]) > 1


def failures(metric):
    reasons = ("REJECTED", "CANCELED", "BACKEND", "OTHER")
    return {reason: metric("nv_inference_request_failure", reason=reason) for reason in reasons}


def test_refusals_before_the_line_are_no_failures(server):
    stats, metric, _, _ = grown(server, "sim", lambda: server.infer("sim", {"inputs": []}))
    assert stats["fail"] == stats["success"] == 0
    assert sum(failures(metric).values()) == 0


def test_a_failed_run_is_the_backends(server):
    """The first run was the load's own."""

    def ask():
        answer = server.infer("fails", sim_request())
        assert (answer.status, "simulated failure" in answer.error) == (500, True)

    stats, metric, _, _ = grown(server, "fails", ask)
    assert stats["fail"] == 1
    assert failures(metric) == {"REJECTED": 0, "CANCELED": 0, "BACKEND": 1, "OTHER": 0}


def test_a_deadline_is_a_rejection(server):
    def ask():
        late = {"Weir-Deadline-Ms": "20"}
        assert server.in_time(lambda: server.infer("late", sim_request(), late)).status == 504
        server.await_("ended", lambda: server.stats("late")["inference_stats"]["fail"]["count"])

    stats, metric, _, _ = grown(server, "late", ask)
    assert stats["fail"] == 1
    assert failures(metric)["REJECTED"] == metric("weir_requests_timed_out_total") == 1


def test_a_client_that_goes_is_a_cancellation(server):
    def ask():
        raw = Raw(server.port)
        body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,16],"data":[%s1]}]}' % (
            b"1," * 15
        )
        raw.send(b"POST /v2/models/hangs/infer HTTP/1.1\r\nHost: a\r\n")
        raw.send(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        server.await_(
            "received", lambda: server.metrics().sum("weir_http_bodies_bytes") >= len(body)
        )
        raw.reset()
        server.await_(
            "ended", lambda: server.stats("hangs")["inference_stats"]["fail"]["count"] == 1
        )

    stats, metric, _, _ = grown(server, "hangs", ask)
    assert stats["fail"] == 1
    assert failures(metric)["CANCELED"] == metric("weir_requests_canceled_total") == 1


def test_answers_are_counted_by_status(server):
    def count(code):
        return server.metrics().samples.get(("weir_http_responses_total", (("code", code),)), 0)

    missing, fine = count("404"), count("200")
    server.get("/nothing")
    server.get("/v2/health/live")
    server.await_("the counters", lambda: count("404") == missing + 1 and count("200") > fine)


def test_memory_that_is_held_is_shown(server):
    metrics = server.metrics()
    assert metrics.get("process_resident_memory_bytes") > 1 << 20
    assert metrics.of_model("weir_model_loaded_bytes", "identity_fp32") >= 0
    server.await_("no block is used", lambda: server.metrics().get("weir_blocks_used_bytes") == 0)
    assert metrics.get("weir_ready") == 1


# --- Timing ---------------------------------------------------------------------------------------


STAGES = ("queue", "gather", "compute", "total")


def test_server_timing_on_request(server):
    answer = server.infer("sim", sim_request(), {"Weir-Timing": "1"})
    stages = dict(re.findall(r"(\w+);dur=(\d+\.\d+)", answer.headers["Server-Timing"]))
    assert tuple(stages) == STAGES
    assert float(stages["compute"]) >= 2
    assert float(stages["total"]) >= float(stages["compute"])
    assert "Server-Timing" not in server.infer("sim", sim_request()).headers


def test_timing_in_the_parameters_on_request(server):
    body = sim_request(parameters={"weir_timing": True})
    parameters = server.infer("sim", body).json()["parameters"]
    assert sorted(parameters) == sorted(f"{stage}_ms" for stage in STAGES)
    assert parameters["compute_ms"] >= 2


def test_timing_of_every_answer_when_configured(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    put_sim(root, "sim", parameters={"tau0": "1us"})
    with Server(tmp_path, "--timing", root) as server:
        assert "Server-Timing" in server.infer("sim", sim_request()).headers
        generated = server.post("/v2/models/sim/generate", {"x": [1] * 16})
        assert "Server-Timing" in generated.headers


# --- Logs -----------------------------------------------------------------------------------------


def test_the_access_log_names_each_request(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    put_model(root, "scalar")
    with Server(tmp_path, "--access-log", "--log-format", "json", root) as server:
        body = {"inputs": [tensor("x", "FP32", [], [1])]}
        answer = server.infer("scalar", body, {"X-Request-Id": "mine"})
        assert answer.headers["X-Request-Id"] == "mine"
        made = server.infer("scalar", body).headers["X-Request-Id"]
        server.get("/v2/models/%0a%22evil%0a")
    lines = [json.loads(line) for line in server.logged().splitlines()]
    requests = [line for line in lines if line["message"] == "request"]
    assert len(requests) == 3
    by_id = {line["request_id"]: line for line in requests}  # Loops write theirs in any order.
    assert {"mine", made} <= set(by_id)
    assert by_id["mine"]["status"] == 200
