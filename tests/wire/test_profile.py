"""What runs cost and which requests share them: lengths that are padded, requests larger than a run,
and what was learned, after a restart."""

import concurrent.futures
import json
import subprocess

import numpy as np
import pytest

from serving import BINARY, PATIENCE_S, Server, binary_request, put_model, put_sim, sim_request

LENGTHS = (3, 7, 8, 12)
BUCKETS = [{"input": "x", "dim": 1, "sizes": [8, 16], "pad": 5}, {"input": "mask", "dim": 1}]


def tensors_of(answer):
    """The binary outputs of an answer by name; all are FP32."""
    size = int(answer.headers["Inference-Header-Content-Length"])
    at, found = size, {}
    for output in json.loads(answer.body[:size])["outputs"]:
        end = at + output["parameters"]["binary_data_size"]
        values = np.frombuffer(answer.body[at:end], np.float32)
        found[output["name"]] = values.reshape(output["shape"])
        at = end
    return found


def texts(rows, length, seed=0):
    draw = np.random.default_rng(seed + length)
    return {
        "x": draw.random((rows, length), np.float32),
        "mask": (draw.random((rows, length)) < 0.7).astype(np.float32),
    }


def expected(inputs):
    y = inputs["x"] * inputs["mask"]
    return y, y.sum(axis=1)


def ask(server, model, inputs):
    answer = server.infer(model, *binary_request(inputs, ["y", "total"]))
    assert answer.status == 200, answer.body
    found = tensors_of(answer)
    return found["y"], found["total"]


def expect(found, inputs):
    y, total = expected(inputs)
    assert found[0].shape == y.shape
    np.testing.assert_array_equal(found[0], y)
    np.testing.assert_allclose(found[1], total, rtol=1e-5)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("profile") / "models"
    root.mkdir()
    together = {"preferred_batch_size": [4], "max_queue_delay_microseconds": 20_000_000}
    put_model(root, "padded", "words", shape_buckets=BUCKETS)
    put_model(root, "together", "words", shape_buckets=BUCKETS, dynamic_batching=together)
    put_model(root, "plain", "words")
    wrong = [BUCKETS[0], {**BUCKETS[1], "pad": 1}]
    put_model(root, "wrong", "words", shape_buckets=wrong)
    put_sim(
        root,
        "capped",
        parameters={"oom_above_rows": 20, "tau0": "100us"},
        max_batch_size=256,
    )
    return root


@pytest.fixture(scope="module")
def server(repository):
    words = ("--inline-runs=false", "--executors", "2", repository)
    with Server(repository.parent, *words) as server:
        server.await_("models", lambda: server.get("/v2/health/ready").status == 200)
        yield server


def test_padded_lengths_give_what_they_give_alone(server):
    for length in (*LENGTHS, 16, 17, 40):
        inputs = texts(2, length)
        expect(ask(server, "plain", inputs), inputs)
        expect(ask(server, "padded", inputs), inputs)


def test_different_lengths_share_a_run(server):
    before = server.stats("together")["execution_count"]
    asked = [texts(1, length) for length in (3, 5, 8, 7)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda inputs: ask(server, "together", inputs), asked))
    for found, inputs in zip(answers, asked):
        expect(found, inputs)
    assert server.stats("together")["execution_count"] - before == 1


def test_padding_that_changes_answers_is_off(server):
    assert "padding changes output 'total' of a row" in server.logged()
    for length in LENGTHS:
        inputs = texts(2, length)
        expect(ask(server, "wrong", inputs), inputs)


def test_a_request_larger_than_a_run(server):
    inputs = texts(200, 12)
    before = server.stats("plain")
    expect(ask(server, "plain", inputs), inputs)
    after = server.stats("plain")
    assert after["execution_count"] - before["execution_count"] == 4
    assert after["inference_count"] - before["inference_count"] == 200
    expect(ask(server, "padded", inputs), inputs)


def test_a_request_larger_than_the_memory(server):
    rows = np.arange(200 * 16, dtype=np.float32).reshape(200, 16)
    for _ in range(2):
        answer = server.infer("capped", *binary_request({"x": rows}, ["y"]))
        assert answer.status == 200, answer.body
        np.testing.assert_array_equal(tensors_of(answer)["y"], rows)


def run(*words):
    done = subprocess.run([BINARY, *words], capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    return done.stdout


def shapes(server, model):
    return {tuple(shape["dims"]): shape for shape in server.stats(model)["profile"]}


def test_what_was_learned_survives_a_restart(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    put_model(root, "words", "words")
    put_model(root, "padded", "words", shape_buckets=BUCKETS)
    with Server(tmp_path, root) as first:
        for length in (3, 12):
            for rows in (1, 2, 3, 4):
                inputs = texts(rows, length)
                expect(ask(first, "words", inputs), inputs)
                expect(ask(first, "padded", inputs), inputs)
        learned = shapes(first, "words"), shapes(first, "padded")
        assert set(learned[0]) == {(3, 3), (12, 12)}
        assert set(learned[1]) == {(8, 8), (16, 16)}
        assert learned[0][3, 3]["runs"] == 4
        assert learned[0][3, 3]["tau0_us"] + learned[0][3, 3]["alpha_us"] > 0
    shown = run("inspect", root / "words")
    assert "profile, learned while it served (.weir-profile.1.json)" in shown
    assert "sizes [3,3]" in shown and "sizes [12,12]" in shown
    assert len(json.loads(run("inspect", "--json", root / "padded"))["profile"]) == 2
    assert "x[1] to 8, 16; mask[1]" in run("inspect", "--config", root / "padded")
    with Server(tmp_path, root) as second:
        found = shapes(second, "words"), shapes(second, "padded")
        for before, after in zip(learned, found):
            assert set(before) == set(after)
            for dims in before:
                assert after[dims]["runs"] == before[dims]["runs"]
                assert after[dims]["tau0_us"] == pytest.approx(before[dims]["tau0_us"], rel=1e-3)
        expect(ask(second, "words", texts(2, 3)), texts(2, 3))
        assert shapes(second, "words")[3, 3]["runs"] == 5
    kept = root / "words" / ".weir-profile.1.json"
    kept.write_text(kept.read_text().replace("weir-profile", "leek-profile"))
    with Server(tmp_path, root) as third:
        assert shapes(third, "words") == {}
        assert "found format 'leek-profile'" in third.logged()
        expect(ask(third, "words", texts(2, 3)), texts(2, 3))


def test_inspect_shows_it_for_models_without_a_file(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    put_sim(root, "simulated", parameters={"tau0": "1ms"})
    with Server(tmp_path, root) as server:
        for _ in range(5):
            assert server.infer("simulated", sim_request()).status == 200
    assert "profile, learned while it served" in run("inspect", root / "simulated")
    assert json.loads(run("inspect", "--json", root / "simulated"))["profile"][0]["runs"] >= 5


def test_a_fresh_server_knows_what_a_row_costs(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    put_model(root, "double_it")
    with Server(tmp_path, "--profile-store", "off", root) as server:
        shape = shapes(server, "double_it")[()]
        assert shape["runs"] >= 4
        assert shape["rows_seen"] > 1
        assert shape["tau0_us"] + shape["alpha_us"] > 0
        assert shape["rows_cap"] == 0
    assert not list((root / "double_it").glob(".weir*"))


@pytest.mark.parametrize("name, reason", [("nowhere", "No such file"), ("file", "Not a directory")])
def test_what_is_no_folder_is_told(tmp_path, name, reason):
    root = tmp_path / "models"
    root.mkdir()
    (tmp_path / "file").touch(0o777)
    words = [BINARY, "serve", "--profile-store", tmp_path / name, "--port", "0", root]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode != 0
    assert f"profile_store: found '{tmp_path / name}', expected" in done.stderr
    assert reason in done.stderr
