"""A server of its own for a test, its repository, and requests to it.

The binary is the one that WEIR_BINARY names, else the release build's.  Every server chooses its
ports; its log goes to a file, where a sanitizer's report would stand too.
"""

import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

import numpy as np

ROOT = pathlib.Path(__file__).parent.parent.parent
MODELS = ROOT / "tests" / "data" / "models"
BINARY = os.environ.get("WEIR_BINARY", str(ROOT / "build" / "release" / "weir"))

# Long enough for a sanitizer's build on a busy machine: passing means something hangs.
PATIENCE_S = 120


class Answer:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json()["error"]


# --- Repositories ---------------------------------------------------------------------------------


def put_sim(root, name, versions=(1,), parameters=None, **config):
    """A model on the simulated device; `parameters` as src/backend/sim.h lists them.  A version
    appears when its configuration is there."""
    folder = root / name
    config = {"backend": "sim", "max_batch_size": 8, **config}
    config["parameters"] = {key: str(value) for key, value in (parameters or {}).items()}
    write_whole(folder / "model.yaml", json.dumps(config).encode())
    for version in versions:
        (folder / str(version)).mkdir(exist_ok=True)


def put_model(root, name, source=None, version=1, **config):
    """A model of tests/data/models; `config` becomes its model.yaml.  A version appears whole."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    if config:
        write_whole(folder / "model.yaml", json.dumps(config).encode())
    staging = root.parent / f".{root.name}.{name}.{version}"
    shutil.copytree(MODELS / (source or name) / "1", staging)
    staging.rename(folder / str(version))


def write_whole(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.parent / f".{path.name}"
    staging.write_bytes(data)
    staging.rename(path)


# --- Servers --------------------------------------------------------------------------------------


def environment(more):
    """Ours, but for what is said to tests: the server refuses variables that it does not know."""
    ours = {key: value for key, value in os.environ.items() if key not in ("WEIR_SOAK", "WEIR_SEED")}
    return {**ours, **more}


class Server:
    """`with Server(tmp_path, repository) as server:` — it stops in order at the end, or the test
    fails."""

    def __init__(self, scratch, *words, env=None, program=BINARY):
        ports = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
        grace = () if "--limits.drain-grace" in words else ("--limits.drain-grace", "0s")
        self.log_path = scratch / "weir.log"
        self.log = open(self.log_path, "ab")
        self.process = subprocess.Popen(
            [program, "serve", *ports, *grace, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=environment(env or {}),
        )
        self.ready_line = self.process.stdout.readline().decode()
        self.ports = [int(port) for port in re.findall(r":(\d+)", self.ready_line)]
        assert self.ports, f"no ready line: {self.logged()[-2000:]}"
        self.port = self.ports[0]
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.address}"

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None and self.process.poll() is None:
            code = self.stop()
            assert code == 0, f"exit status {code}: {self.logged()[-3000:]}"
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()
        for word in ("Sanitizer", "runtime error:"):
            before, found, after = self.logged().partition(word)
            assert not found, before[-500:] + found + after[:6000]

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        return self.process.wait(PATIENCE_S)

    def logged(self):
        return self.log_path.read_text(errors="replace")

    # Requests

    def connect(self, port=None):
        return Connection(self.port if port is None else port)

    def ask(self, method, path, body=None, headers=None):
        with self.connect() as connection:
            return connection.ask(method, path, body, headers)

    def get(self, path, headers=None):
        return self.ask("GET", path, None, headers)

    def post(self, path, body=b"", headers=None):
        return self.ask("POST", path, body, headers)

    def infer(self, model, body, headers=None, version=None):
        return self.post(infer_path(model, version), body, headers)

    def index(self):
        return self.post("/v2/repository/index").json()

    def state(self, model, version=1):
        """State and reason of a version, as the index has them; None where it has none."""
        for entry in self.index():
            if entry["name"] == model and entry.get("version") == str(version):
                return entry["state"], entry["reason"]
        return None

    def load(self, model, config=None):
        body = {} if config is None else {"parameters": {"config": json.dumps(config)}}
        return self.post(f"/v2/repository/models/{model}/load", body)

    def unload(self, model):
        return self.post(f"/v2/repository/models/{model}/unload")

    # What can be seen of it

    def stats(self, model):
        return self.get(f"/v2/models/{model}/stats").json()["model_stats"][0]

    def metrics(self):
        return Metrics(self.get("/metrics").body.decode())

    def pending(self, model):
        """How many of the model's requests have not begun to run."""
        return self.metrics().of_model("nv_inference_pending_request_count", model)

    def memory(self):
        """Bytes of its own: what it wrote.  Pages of libraries come and go with other processes."""
        text = pathlib.Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        kib = re.findall(r"^(?:Private_Dirty|Swap): +(\d+) kB", text, re.MULTILINE)
        return sum(map(int, kib)) * 1024

    def files(self):
        """How many it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def threads(self):
        """Their names, and of none that ends meanwhile."""
        names = []
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                names.append((task / "comm").read_text().strip())
        return sorted(names)

    def await_(self, what, happened):
        """Asks again until it has happened.  Each question is a round trip to the server."""
        until = time.monotonic() + PATIENCE_S
        while not (answer := happened()):
            assert time.monotonic() < until, f"waited {PATIENCE_S} s: {what}"
            assert self.process.poll() is None, f"the server died: {self.logged()[-3000:]}"
        return answer

    def in_time(self, ask):
        """Asks again where a busy machine let the deadline pass before the request was there: then
        it was none that the model was asked."""

        def answered():
            answer = ask()
            return None if b"had passed when the request arrived" in answer.body else answer

        return self.await_("a request that comes before its deadline", answered)


def make_key(file, name, *words):
    """The key; its line goes to the end of the file."""
    done = subprocess.run(
        [BINARY, "key", name, *words], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    with open(file, "a") as lines:
        lines.write(done.stdout)
    return re.search(r"weir_[A-Za-z0-9_-]{43}\b", done.stderr)[0]


def is_sanitized():
    """Is the server a build that keeps freed memory and remembers much?"""
    program = pathlib.Path(BINARY).read_bytes()
    return b"__asan_init" in program or b"__tsan_init" in program


def natively(test):
    """A decorator: the test is none with a sanitizer's build, whose memory and files are not the server's."""
    return None if is_sanitized() else test


class Connection:
    """One kept-alive connection; connects again where the server has closed it."""

    def __init__(self, port):
        self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.close()

    def ask(self, method, path, body=None, headers=None):
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
        self.http.request(method, path, body, headers or {})
        answer = self.http.getresponse()
        return Answer(answer.status, answer.headers, answer.read())

    def post(self, path, body=b"", headers=None):
        return self.ask("POST", path, body, headers)


# --- Raw connections ------------------------------------------------------------------------------


class Raw:
    """A socket, for what an HTTP client would never send."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.read = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def reset(self):
        """Gone without a word: the server gets an RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def more(self):
        data = self.socket.recv(65536)
        self.read += data
        return bool(data)

    def until(self, end, first=False):
        """What came up to and with `end`; a connection that was closed before the first byte of an
        answer is no fault."""
        while end not in self.read:
            if not self.more():
                if first and not self.read:
                    raise ConnectionError("closed")
                raise AssertionError(f"closed after {self.read!r}")
        at = self.read.index(end) + len(end)
        found, self.read = self.read[:at], self.read[at:]
        return found

    def exactly(self, size):
        while len(self.read) < size:
            assert self.more(), f"closed after {self.read!r}"
        found, self.read = self.read[:size], self.read[size:]
        return found

    def answer(self):
        """The next one, of a known length or in chunks."""
        head = self.until(b"\r\n\r\n", first=True).decode()
        lines = head.split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        status = int(lines[0].split()[1])
        if status == 100 or status == 204:
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, b"".join(self.chunks()))
        if "content-length" in headers:
            return Answer(status, headers, self.exactly(int(headers["content-length"])))
        return Answer(status, headers, self.rest())

    def chunks(self):
        while True:
            size = int(self.until(b"\r\n"), 16)
            data = self.exactly(size + 2)
            if size == 0:
                return
            yield data[:-2]

    def rest(self):
        """Everything until the server closes."""
        with contextlib.suppress(ConnectionResetError):
            while self.more():
                pass
        found, self.read = self.read, b""
        return found


# --- Requests -------------------------------------------------------------------------------------


def infer_path(model, version=None):
    return f"/v2/models/{model}{'' if version is None else f'/versions/{version}'}/infer"


def sim_request(row=None, rows=1, **members):
    """To a model of put_sim()'s default inputs."""
    data = list(row or range(16)) * rows
    tensor = {"name": "x", "datatype": "FP32", "shape": [rows, 16], "data": data}
    return {"inputs": [tensor], **members}


def tensor(name, datatype, shape, data):
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def binary_request(inputs, outputs=None, **members):
    """Body and headers for numpy arrays by name, as Triton's C++ client sends them."""
    names = {"float32": "FP32", "float64": "FP64", "float16": "FP16", "bool": "BOOL"}
    head = {"id": "", "inputs": [], **members}
    blobs = []
    for name, values in inputs.items():
        blobs.append(np.ascontiguousarray(values).tobytes())
        kind = names.get(str(values.dtype), str(values.dtype).upper())
        head["inputs"].append(
            {
                "name": name,
                "datatype": kind,
                "shape": list(values.shape),
                "parameters": {"binary_data_size": len(blobs[-1])},
            }
        )
    if outputs is not None:
        head["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
    text = json.dumps(head).encode()
    return text + b"".join(blobs), {"Inference-Header-Content-Length": str(len(text))}


# --- Many requests --------------------------------------------------------------------------------


def version_of(answer):
    return answer.json()["model_version"]


class Load:
    """Clients that ask one model again and again, each on its own connection, until stopped."""

    def __init__(self, server, model, body, clients=4):
        self.server = server
        self.model = model
        self.body = body
        self.stopping = threading.Event()
        self.wrong = []
        self.versions = set()
        self.counts = [0] * clients
        self.threads = [
            threading.Thread(target=self.ask, args=(i,), daemon=True) for i in range(clients)
        ]

    def ask(self, i):
        with self.server.connect() as connection:
            while not self.stopping.is_set():
                answer = connection.post(f"/v2/models/{self.model}/infer", self.body)
                if answer.status == 200:
                    self.versions.add(version_of(answer))
                    self.counts[i] += 1
                else:
                    self.wrong.append((answer.status, answer.body))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def answered(self, more):
        """Waits until each client has had so many more answers."""
        goal = [count + more for count in self.counts]
        self.server.await_(
            "answers", lambda: all(count >= least for count, least in zip(self.counts, goal))
        )


# --- Metrics --------------------------------------------------------------------------------------

SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)(?: -?\d+)?")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')


class Metrics:
    """Prometheus' text format, read strictly: what is out of order raises ValueError."""

    def __init__(self, text):
        self.types = {}
        self.samples = {}
        self.helps = {}
        if not text.endswith("\n"):
            raise ValueError("the last line has no end")
        family = None
        closed = set()
        for line in text[:-1].split("\n"):
            word = line.split(" ", 3)
            if line.startswith("# HELP "):
                self.helps[word[2]] = line
                continue
            if line.startswith("# TYPE "):
                if word[2] in self.types:
                    raise ValueError(f"a second type: {line}")
                closed.add(family)
                family = word[2]
                self.types[family] = word[3]
                continue
            self.read_sample(line, family, closed)

    def read_sample(self, line, family, closed):
        found = SAMPLE.fullmatch(line)
        if not found:
            raise ValueError(f"no sample: {line}")
        name, text, value = found.groups()
        labels, at = [], 0
        while at < len(text or ""):
            label = LABEL.match(text, at)
            if not label:
                raise ValueError(f"labels: {line}")
            labels.append((label[1], label[2]))
            at = label.end()
        base = re.sub("_(bucket|sum|count)$", "", name)
        if family not in (name, base) or family in closed:
            raise ValueError(f"outside its family: {line}")
        if name != family and self.types[family] != "histogram":
            raise ValueError(f"no histogram: {line}")
        key = (name, tuple(sorted(labels)))
        if key in self.samples:
            raise ValueError(f"twice: {line}")
        self.samples[key] = float(value)

    def get(self, name, **labels):
        return self.samples[(name, tuple(sorted(labels.items())))]

    def of_model(self, name, model, version=1, **labels):
        return self.get(name, model=model, version=str(version), **labels)

    def sum(self, name):
        return sum(value for (found, _), value in self.samples.items() if found == name)
