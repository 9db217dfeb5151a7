"""The interface's description against the interface: the same routes, and answers of its shapes."""

import re

import pytest

from serving import ROOT, Server, put_model, put_sim, sim_request

yaml = pytest.importorskip("yaml")

FILE = ROOT / "src" / "api" / "openapi.yaml"
METHODS = {"get", "post", "put", "delete"}
TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("openapi") / "models"
    root.mkdir()
    put_model(root, "identity_fp32")
    put_sim(root, "sim", parameters={"tau0": "1us"})
    put_sim(root, "pair", parameters={"tau0": "1us"}, device="gpu")
    (root / "broken" / "1").mkdir(parents=True)
    with Server(root.parent, "--model-control", "explicit", "--load-model", "*", "--devices", "gpu0:1,gpu1:1", root) as server:
        yield server


@pytest.fixture(scope="module")
def document(server):
    answer = server.get("/openapi.yaml")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/yaml"
    assert answer.body == FILE.read_bytes()
    return yaml.safe_load(answer.body)


def expand(pattern):
    """The paths that a pattern of the server stands for; a slash at the end means nothing."""
    whole = re.fullmatch(r"(.*?)\[(.*?)\](.*)", pattern)
    if whole is None:
        return {pattern.rstrip("/") or "/"}
    before, optional, after = whole.groups()
    return expand(before + after) | expand(before + optional + after)


def test_every_route_is_described_and_nothing_else(server, document):
    there = set()
    for line in server.get("/").body.decode().splitlines():
        route = re.match(r"(GET|POST|PUT|DELETE) +(/\S*)", line)
        if route:
            there |= {(route[1].lower(), path) for path in expand(route[2])}
    told = {
        (method, path)
        for path, item in document["paths"].items()
        for method in item
        if method in METHODS
    }
    assert told == there


def follow(document, node):
    while "$ref" in node:
        at = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            at = at[part]
        node = at
    return node


def walk(node):
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk(value)


def test_references_lead_somewhere_and_names_are_used_once(document):
    for node in walk(document):
        follow(document, node)
    ids = [node["operationId"] for node in walk(document) if "operationId" in node]
    assert len(ids) == len(set(ids))


def test_parameters_of_paths_are_declared(document):
    for path, item in document["paths"].items():
        declared = {follow(document, node)["name"] for node in item.get("parameters", ())}
        assert declared == set(re.findall(r"{(\w+)}", path)), path


def check(document, schema, value, where):
    """The part of JSON Schema that the document uses."""
    schema = follow(document, schema)
    kind = schema.get("type")
    if kind is not None:
        assert isinstance(value, TYPES[kind]), (where, kind, value)
        assert kind != "integer" or not isinstance(value, bool), where
    assert value in schema.get("enum", [value]), where
    if "minimum" in schema:
        assert value >= schema["minimum"], where
    if kind == "object":
        known = schema.get("properties", {})
        assert set(schema.get("required", ())) <= set(value), (where, value)
        if schema.get("additionalProperties") is False:
            assert set(value) <= set(known), where
        for name, part in value.items():
            if name in known:
                check(document, known[name], part, f"{where}.{name}")
    if kind == "array" and "items" in schema:
        for i, part in enumerate(value):
            check(document, schema["items"], part, f"{where}[{i}]")


BODIES = {
    "infer": sim_request(id="a", outputs=[{"name": "y"}]),
    "generate": {"x": list(range(16))},
    "generateStream": {"x": list(range(16))},
    "index": {"ready": True},
    "load": {},
    "unload": {},
    "setLogSettings": {"log_verbose_level": 0},
    "setTraceSettings": {},
    "systemSharedMemoryRegister": {"key": "/nothing", "byte_size": 1},
}


def operations():
    for path, item in yaml.safe_load(FILE.read_text())["paths"].items():
        for method in sorted(METHODS & set(item)):
            yield pytest.param(path, method, id=item[method]["operationId"])


@pytest.mark.parametrize("model", ("sim", "nobody"))
@pytest.mark.parametrize("path,method", operations())
def test_answers_have_their_shapes(server, document, path, method, model):
    operation = document["paths"][path][method]
    name = re.sub("Of(Version|Repository|Model)$", "", operation["operationId"])
    real = path.format(model=model, version=1, repository="main", region="r")
    body = BODIES.get(name, {} if method == "post" else None)
    answer = server.ask(method.upper(), real, body)
    responses = operation["responses"]
    told = follow(document, responses.get(str(answer.status), responses["default"]))
    assert str(answer.status) in responses or answer.status >= 400, answer.body
    if name == "unload":
        server.load("sim")
    if "content" not in told:
        assert answer.body == b""
        return
    kind = answer.headers["Content-Type"].partition(";")[0]
    assert kind in told["content"], (kind, answer.body)
    if kind == "application/json":
        check(document, told["content"][kind]["schema"], answer.json(), real)


def test_members_of_a_models_devices_are_described(server, document):
    schemas = document["components"]["schemas"]
    index = schemas["Index"], server.index()
    statistics = schemas["Statistics"]["properties"]["model_stats"], [server.stats("pair")]
    for schema, answer in (index, statistics):
        known = schema["items"]["properties"]
        entry = next(entry for entry in answer if entry["name"] == "pair")
        assert {"devices", "balance"} <= set(entry)
        assert set(entry) <= set(known)
        check(document, schema, answer, "pair")
        assert set(entry["devices"][0]) <= set(follow(document, known["devices"])["items"]["properties"])
