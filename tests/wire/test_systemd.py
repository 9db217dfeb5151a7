"""What systemd is told: sd_notify(3)'s messages, as Type=notify and WatchdogSec= expect them."""

import contextlib
import signal
import socket

import pytest

from serving import PATIENCE_S, Server, put_sim


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    put_sim(folder, "sim")
    return folder


@contextlib.contextmanager
def manager(name):
    """The other end of NOTIFY_SOCKET; an abstract name begins with '@'."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ears:
        ears.bind(name.replace("@", "\0", 1))
        ears.settimeout(PATIENCE_S)
        yield lambda: ears.recv(4096).decode()


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_and_stopping(tmp_path, root, abstract):
    name = f"@weir-test-{tmp_path}" if abstract else str(tmp_path / "notify")
    with manager(name) as hear:
        with Server(tmp_path, root, env={"NOTIFY_SOCKET": name}) as server:
            assert hear() == "READY=1\nSTATUS=1 of 1 models ready"
            server.process.send_signal(signal.SIGTERM)
            assert hear().startswith("STOPPING=1\n")
            assert server.process.wait(PATIENCE_S) == 0


def test_reloading(tmp_path, root):
    name = str(tmp_path / "notify")
    with manager(name) as hear, Server(tmp_path, root, env={"NOTIFY_SOCKET": name}) as server:
        assert hear().startswith("READY=1\n")
        server.process.send_signal(signal.SIGHUP)
        word, _, since = hear().partition("\nMONOTONIC_USEC=")
        assert word == "RELOADING=1" and int(since) > 0
        assert hear() == "READY=1"


def test_the_watchdog_is_fed(tmp_path, root):
    name = str(tmp_path / "notify")
    env = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "100000"}
    with manager(name) as hear, Server(tmp_path, root, "--loops", "2", env=env):
        heard = [hear() for _ in range(8)]
        assert heard.count("WATCHDOG=1") == 7
        assert any(message.startswith("READY=1") for message in heard)


def test_the_watchdog_of_somebody_else_is_not(tmp_path, root):
    name = str(tmp_path / "notify")
    env = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    with manager(name) as hear:
        with Server(tmp_path, root, env=env) as server:
            assert hear().startswith("READY=1")
            server.stop()
        assert hear().startswith("STOPPING=1")


def test_a_socket_that_is_not_there_is_named(tmp_path, root):
    with Server(tmp_path, root, env={"NOTIFY_SOCKET": str(tmp_path / "nobody")}) as server:
        assert "NOTIFY_SOCKET" in server.logged()
        assert server.get("/v2/health/ready").status == 200
