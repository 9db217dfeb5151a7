"""The servers that are measured: Weir, and the limits and peers beside it.

Each is a context manager that yields (pid, port); it is pinned to the server's processor and ended with the
block.
"""
import contextlib
import glob
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("BENCH_BUILD", ROOT / "build/release"))
WEIR = BUILD / "weir"
DIRECT = BUILD / "bench/direct"
ROUNDTRIP = BUILD / "bench/roundtrip"
SERVER_CPU, CLIENT_CPU = "0", "1"


begun = time.monotonic()


def say(text):
    """A line of progress."""
    minutes, seconds = divmod(int(time.monotonic() - begun), 60)
    print(f"{minutes:3}:{seconds:02}  {text}", file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cpu_seconds(pid):
    """Processor time of all threads of a process and its children, from the scheduler."""
    pids = [str(pid)]
    for stat in glob.glob("/proc/[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if open(stat).read().rpartition(")")[2].split()[1] == str(pid):
                pids.append(stat.split("/")[2])
    total = 0
    for one in pids:
        for task in glob.glob(f"/proc/{one}/task/*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(open(task).read().split()[0])
    return total / 1e9


def memory_bytes(pid):
    for line in open(f"/proc/{pid}/smaps_rollup"):
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no Pss in smaps_rollup")


def pinned(cpu, *words):
    return ["taskset", "-c", cpu, *map(str, words)]


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
        return answer.read()


def wait_ready(port, process):
    """At most half a minute: a server whose models cannot be loaded never becomes ready."""
    until = time.monotonic() + 30
    while process.poll() is None:
        try:
            get(port, "/v2/health/ready")
            return
        except OSError:
            time.sleep(0.002)
        if time.monotonic() > until:
            raise RuntimeError("the server does not become ready")
    raise RuntimeError(f"the server ended with status {process.returncode}")


def wait_settled(port, process):
    """Until every model is loaded or has failed."""
    while process.poll() is None:
        with contextlib.suppress(OSError):
            if b'"LOADING"' not in index(port):
                return
        time.sleep(0.01)
    raise RuntimeError(f"the server ended with status {process.returncode}")


def index(port):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v2/repository/index", b"{}", method="POST")
    with urllib.request.urlopen(request, timeout=5) as answer:
        return answer.read()


def wait_listening(port, process):
    while process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.01)
    raise RuntimeError(f"{process.args[3]} ended with status {process.returncode}")


@contextlib.contextmanager
def running(words):
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@contextlib.contextmanager
def weir(repository, *more, cpus=SERVER_CPU, executors=1, ready=True):
    """`more` are further words of the command line; not `ready`: models may fail to load."""
    port = free_port()
    words = pinned(cpus, WEIR, "serve", "--repository", repository, "--port", port, "--loops", 1,
                   "--executors", executors, "--log-level", "error", "--limits.drain-grace", "0s",
                   "--limits.drain-timeout", "2s", *more)
    with running(words) as process:
        (wait_ready if ready else wait_settled)(port, process)
        yield process.pid, port


@contextlib.contextmanager
def nginx(folder, headers, body_bytes):
    """nginx with one worker, answering the same number of bytes under the same headers."""
    port = free_port()
    folder = folder / f"nginx-{port}"
    folder.mkdir()
    fields = "".join(f'add_header {name} "{value}" always;' for name, value in headers.items())
    # No word of the file may be longer than 4 KB.
    piece, pieces = "x" * 2048, body_bytes // 2048
    fields += f'set $piece "{piece}";'
    answer = "${piece}" * pieces + "x" * (body_bytes % 2048)
    (folder / "nginx.conf").write_text(f"""
        daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
        events {{ worker_connections 1024; }}
        http {{ access_log off; keepalive_requests 1000000000; client_max_body_size 1g;
          client_body_buffer_size 1m; client_body_temp_path {folder}/body;
          proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;
          scgi_temp_path {folder}/s; default_type application/octet-stream;
          server {{ listen 127.0.0.1:{port}; location / {{ {fields}
            return 200 "{answer}"; }} }} }}""")
    with running(pinned(SERVER_CPU, "nginx", "-c", folder / "nginx.conf", "-e", folder / "error.log")) as process:
        wait_listening(port, process)
        yield process.pid, port


@contextlib.contextmanager
def nghttpd(folder, path, body_bytes):
    """nghttpd with one thread, answering so many constant bytes to every request for `path`."""
    answer = folder / "htdocs" / path.lstrip("/")
    answer.parent.mkdir(parents=True)
    answer.write_bytes(b"x" * body_bytes)
    port = free_port()
    with running(pinned(SERVER_CPU, "nghttpd", "--no-tls", "--workers=1", "--address=127.0.0.1",
                        f"--htdocs={folder}/htdocs", port)) as process:
        wait_listening(port, process)
        yield process.pid, port


def built_grpc_peer():
    """grpc_peer.cc, built against the project's own .proto file."""
    program, folder = BUILD / "bench/grpc_peer", BUILD / "bench/grpc_peer.d"
    sources = [ROOT / "bench/grpc_peer.cc", ROOT / "proto/kserve.proto", ROOT / "proto/model_config.proto"]
    if program.exists() and all(program.stat().st_mtime > source.stat().st_mtime for source in sources):
        return program
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["protoc", f"-I{ROOT}/proto", f"--cpp_out={folder}", f"--grpc_out={folder}",
                    f"--plugin=protoc-gen-grpc={shutil.which('grpc_cpp_plugin')}", *sources[1:]], check=True)
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "grpc++", "protobuf", "openssl"], check=True,
                           capture_output=True, text=True).stdout.split()
    deps = ROOT / "build/deps"
    subprocess.run(["g++", "-std=c++17", "-O2", f"-I{folder}", f"-I{deps}/include/onnxruntime", "-o", program, sources[0],
                    *glob.glob(f"{folder}/*.cc"), f"-L{deps}/lib", f"-Wl,-rpath,{deps}/lib", *flags,
                    "-lonnxruntime"], check=True)
    return program


@contextlib.contextmanager
def grpc_peer(model, tensor_in, tensor_out, values):
    with running(pinned(SERVER_CPU, built_grpc_peer(), model, tensor_in, tensor_out, values)) as process:
        yield process.pid, int(process.stdout.readline())


@contextlib.contextmanager
def echo(size, offset, copies=0):
    """The bare connection: what it reads it sends back, `size` bytes at a time, from `offset` bytes behind a page; or a
    copy of it."""
    with running(pinned(SERVER_CPU, ROUNDTRIP, "serve", size, offset, copies)) as process:
        yield process.pid, int(process.stdout.readline())


def copied(folder, *names):
    repository = folder / "models"
    for name in names:
        shutil.copytree(ROOT / name, repository / pathlib.Path(name).name)
    return repository
