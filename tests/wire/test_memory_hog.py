"""A model that takes more memory than it may have: only its own process ends."""

from serving import Load, Server, natively, put_model, tensor

X4 = {"inputs": [tensor("x", "FP32", [1, 4], [1, 2, 3, 4])]}
GIB = 1 << 30


def fill(elements):
    """Asks for the sum of so many ones, made in memory at four bytes each."""
    return {"inputs": [tensor("shape", "INT64", [1], [elements])]}


@natively
def test_a_hog_brings_down_its_own_process_only(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    put_model(root, "fill", isolation="process", memory_limit="1GiB")
    put_model(root, "apart", "double_it", isolation="process")
    put_model(root, "within", "double_it")
    words = ("--model-control", "explicit", "--load-model", "*")
    with Server(tmp_path, *words, root) as server:
        with Load(server, "apart", X4) as apart, Load(server, "within", X4) as within:
            assert server.infer("fill", fill(100)).json()["outputs"][0]["data"] == [100]
            for elements in (GIB // 2, GIB // 2 + 1):  # Two to three GiB with all temporaries.
                answer = server.infer("fill", fill(elements))
                assert answer.status in (422, 503), (answer.status, answer.body)
                assert "memory" in answer.error
            server.await_("it is back", lambda: server.infer("fill", fill(100)).status == 200)
            apart.answered(3)
            within.answered(3)
            assert not apart.wrong and not within.wrong
        assert server.memory() < GIB // 2
