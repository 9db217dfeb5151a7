"""libweir as somebody's program finds it after `make install`."""

import os
import re
import subprocess

import pytest

from serving import BINARY, ROOT, PATIENCE_S, is_sanitized

BUILD = os.path.dirname(os.path.abspath(BINARY))


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The root of an installation, and what finds it."""
    root = tmp_path_factory.mktemp("installed")
    done = subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--quiet"],
                          env={**os.environ, "DESTDIR": str(root)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = next(root.rglob("weir.pc")).parent
    return {
        "root": root,
        "lib": folder.parent,
        "env": {**os.environ, "PKG_CONFIG_PATH": str(folder), "PKG_CONFIG_SYSROOT_DIR": str(root),
                "LD_LIBRARY_PATH": str(folder.parent)},
    }


def build(installed, source, target, compiler="cc", flags=("-std=c17",)):
    if is_sanitized():
        flags = (*flags, "-fsanitize=address,undefined")
    words = subprocess.run(["pkg-config", "--cflags", "--libs", "weir"], env=installed["env"],
                           capture_output=True, text=True, check=True).stdout.split()
    done = subprocess.run([compiler, *flags, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-o",
                           target, source, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_program_in_the_header_is_the_example():
    header = (ROOT / "include" / "weir" / "weir.h").read_text()
    shown = re.sub(r"^ \* ? ? ? ? ?", "", header[: header.index("Build it with")], flags=re.MULTILINE)
    example = (ROOT / "examples" / "embed.c").read_text()
    program = example[example.index("#include") :].strip()
    assert program.split() == shown[shown.index("#include") :].split()
    assert len(header.splitlines()) <= 500


def test_the_example_answers(installed, tmp_path):
    build(installed, ROOT / "examples" / "embed.c", tmp_path / "embed")
    done = subprocess.run([tmp_path / "embed", ROOT / "examples" / "models"], env=installed["env"],
                          capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"a 2, with probability 0\.\d{3}\n", done.stdout)


def test_the_example_says_what_is_wrong(installed, tmp_path):
    build(installed, ROOT / "examples" / "embed.c", tmp_path / "embed")
    done = subprocess.run([tmp_path / "embed", "/no/such"], env=installed["env"],
                          capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert "/no/such" in done.stderr


def test_the_header_is_good_cpp(installed, tmp_path):
    source = tmp_path / "version.cpp"
    source.write_text('#include <cstdio>\n#include <weir/weir.h>\n'
                      'int main() { std::puts(weir_version()); }\n')
    build(installed, source, tmp_path / "version", "c++", ("-std=c++17",))
    done = subprocess.run([tmp_path / "version"], env=installed["env"], capture_output=True,
                          text=True, timeout=PATIENCE_S)
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", done.stdout)


def test_only_weirs_own_names_are_exported(installed):
    library = next(installed["lib"].glob("libweir.so"))
    names = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True,
                           check=True).stdout.split("\n")
    exported = {line.split()[-1] for line in names if line}
    assert {name for name in exported if not name.startswith("weir_")} <= {"__odr_asan_gen_"}


def test_the_installed_command_runs(installed):
    binary = next(installed["root"].rglob("bin/weir"))
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("weir ")
