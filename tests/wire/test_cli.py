"""The command line, as somebody who types it sees it."""

import json
import os
import pathlib
import pty
import re
import socket
import subprocess
import threading
import zlib

import numpy as np
import pytest

from serving import BINARY, MODELS, PATIENCE_S, ROOT, Server, put_model, put_sim

EXAMPLES = ROOT / "examples" / "models"
PICTURES = ROOT / "examples" / "pictures"
COMMANDS = ("serve", "infer", "bench", "inspect", "plugin-test", "key", "quarantine", "config",
            "version", "help")


def weir(*words, env=None, cwd=None):
    variables = {key: value for key, value in os.environ.items() if not key.startswith("WEIR_")}
    return subprocess.run(
        [BINARY, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=cwd,
        env={**variables, **(env or {})},
    )


def works(*words, **options):
    done = weir(*words, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def is_refused(code, sentence, *words, **options):
    done = weir(*words, **options)
    assert sentence in done.stderr
    assert done.returncode == code
    assert done.stdout == ""


def read_png(path):
    """Width, height, channels and pixels of an 8-bit PNG that this project wrote."""
    data = pathlib.Path(path).read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, packed = 8, b""
    while at < len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            width, height = int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big")
            channels = {0: 1, 2: 3, 6: 4}[body[9]]
        packed += body if kind == b"IDAT" else b""
        at += size + 12
    raw = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, 1 + width * channels)
    return unfilter(raw, channels).reshape(height, width, channels)


def unfilter(raw, channels):
    rows = np.zeros((raw.shape[0] + 1, raw.shape[1] - 1 + channels), np.int64)
    for y, line in enumerate(raw):
        above, row = rows[y], rows[y + 1]
        for x in range(channels, row.size):
            a, b, c = row[x - channels], above[x], above[x - channels]
            guess = {0: 0, 1: a, 2: b, 3: (a + b) // 2, 4: paeth(a, b, c)}[line[0]]
            row[x] = (line[1 + x - channels] + guess) % 256
    return rows[1:, channels:]


def paeth(a, b, c):
    return min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("cli") / "models"
    root.mkdir()
    for name in ("add_sub", "identity_fp32", "identity_bytes", "identity_fp16", "identity_bool"):
        put_model(root, name)
    for name in ("identity_uint8", "identity_int64", "scalar", "dynamic", "double_it"):
        put_model(root, name)
    put_sim(root, "picture", max_batch_size=0, batching="off",
            parameters={"inputs": "x:FP32[1,1,8,12]", "outputs": "y:FP32[1,1,8,12]"})
    put_sim(root, "colours", max_batch_size=0, batching="off",
            parameters={"inputs": "x:UINT8[8,12,3]", "outputs": "y:UINT8[8,12,3]"})
    return root


@pytest.fixture(scope="module")
def server(repository):
    with Server(repository.parent, repository) as server:
        yield server


@pytest.fixture(params=["server", "here"])
def how(request, server, repository):
    """The options that choose where a model runs: answers are the same."""
    return ("--url", server.url) if request.param == "server" else ("--local", repository)


# --- Help and mistakes ----------------------------------------------------------------------------


def test_without_words_help_comes_and_it_is_a_mistake():
    done = weir()
    assert done.returncode == 2
    for command in COMMANDS:
        assert f"  {command} " in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(command):
    text = works("help", command)
    assert text.startswith(f"usage: weir {command}")
    assert text == works(command, "--help") == works(command, "-h")
    assert "\x1b" not in text
    assert all(line == line.rstrip() and len(line) <= 80 for line in text.splitlines())


def test_help_lists_what_there_is():
    assert works("help") == works("--help")
    serve = works("help", "serve")
    assert "[15s]" in serve and "[0 ns]" not in serve
    assert "(error, warning, info or debug) [info]" in re.sub(r"\s+", " ", serve)
    for flag in ("--http-port", "--limits.body-bytes-max", "--check", "--model-control"):
        assert f"  {flag} " in serve
    assert "[127.0.0.1]" in serve


def test_version():
    text = works("--version")
    assert re.fullmatch(r"weir \d+\.\d+\.\d+\nONNX Runtime 1\.(3\d|[4-9]\d)\.\d+\n", text)
    assert text == works("version")


@pytest.mark.parametrize(
    "words, sentence",
    [
        (("sreve",), "no command 'sreve'; did you mean 'serve'?"),
        (("help", "sreve"), "no command 'sreve'; did you mean 'serve'?"),
        (("walk",), "no command 'walk'\n"),
        (("help", "serve", "x"), "unexpected word 'x' after 'serve'"),
        (("version", "x"), "unexpected word 'x'"),
        (("infer",), "no model named"),
        (("infer", ""), "no model named"),
        (("quarantine", "clear", "--model", ""), "--model: found '', expected a model's name"),
        (("infer", "a", "x=1"), "unexpected word 'x=1' after the model 'a'; inputs follow --input"),
        (("infer", "a", "--input", "x"), "--input: found 'x', expected NAME=VALUE or NAME=@FILE"),
        (("infer", "a", "--nope"), "unknown option '--nope'\n"),
        (("infer", "a", "--paralel=3"), "unknown option '--paralel'; did you mean '--parallel'?"),
        (("key", "--hlep"), "unknown option '--hlep'; did you mean '--help'?"),
        (("infer", "a", "--repeat", "0"), "--repeat: found '0', expected a whole number from 1"),
        (("infer", "a", "--repeat"), "--repeat: nothing follows, expected N"),
        (("infer", "a", "--timing=1"), "--timing takes no value, found '1'"),
        (("infer", "a", "--timeout", "3"), "--timeout: found '3', expected a duration"),
        (("infer", "a", "--url", "u", "--local", "l"), "--url and --local exclude each other"),
        (("inspect",), "no file named"),
        (("inspect", ""), "no file named"),
        (("inspect", "a", "b"), "unexpected word 'b' after 'a'"),
        (("quarantine", "x"), "found 'x', expected list or clear"),
        (("quarantine", "list", "clear"), "unexpected word 'clear' after 'list'"),
        (("quarantine", "clear", "m"), "unexpected word 'm' after 'clear'; a model follows --model"),
        (("quarantine", "--model", "m"), "--model goes with clear"),
        (("infer", "a", "--ca", "f"), "--ca goes with a URL of https:// or grpcs://"),
        (("infer", "a", "--local", "l", "--cert", "f"), "--cert goes with a URL of https://"),
        (("infer", "a", "--url", "https://a", "--ca", "f", "--insecure"),
         "--ca and --insecure exclude each other"),
        (("bench", "a", "--target", "a=http://a", "--target", "b=grpc://b", "--insecure"),
         "--insecure goes with a URL of https:// or grpcs://"),
        (("quarantine", "--url", "unix:/a", "--key", "f"), "--key goes with a URL of https://"),
        (("config", "x"), "unexpected word 'x', expected options only"),
        (("config", "--htp-port", "1"), "did you mean '--http-port'?"),
        (("serve", "--http-port", "x"), "--http-port: found 'x', expected a whole number"),
        (("serve", "--unix-socket", "unix:/a"),
         "unix_socket: found 'unix:/a', expected an absolute path of at most 107 bytes"),
        (("config", "--unix-socket", "/" + "a" * 107), "expected an absolute path of at most 107"),
        (("serve", "--check", "--rate-limit-resource", "x"),
         "rate_limit_resource: found 'x', expected NAME:COUNT"),
    ],
)
def test_mistakes_on_the_command_line(words, sentence, tmp_path):
    is_refused(2, sentence, *words, cwd=tmp_path)


def test_who_has_read_enough_sees_no_complaint():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([BINARY, "config"], stdout=writer, stderr=subprocess.PIPE,
                          timeout=PATIENCE_S)
    os.close(writer)
    assert done.returncode != 0 and done.stderr == b""


@pytest.mark.parametrize("words", [("help",), ("help", "key"), ("version",), ("config",)])
def test_a_full_disk_is_told(words):
    with open("/dev/full", "w") as full:
        done = subprocess.run([BINARY, *words], stdout=full, stderr=subprocess.PIPE, text=True,
                              timeout=PATIENCE_S)
    assert done.returncode == 1
    assert "standard output cannot be written: No space left on device" in done.stderr


def on_a_terminal(stream, *words, env=None):
    """What a command that succeeds writes to `stream` where that is a terminal."""
    parent, child = pty.openpty()
    done = subprocess.Popen([BINARY, *map(str, words)], **{"stdout": subprocess.DEVNULL,
                            stream: child}, env={**os.environ, "TERM": "xterm", **(env or {})})
    os.close(child)
    text = b""
    try:
        while more := os.read(parent, 65536):
            text += more
    except OSError:  # Linux' way to say that the other end is closed.
        pass
    os.close(parent)
    assert done.wait(PATIENCE_S) == 0
    return text


def test_colours_on_terminals_only():
    assert b"\x1b[1m" in on_a_terminal("stdout", "help", env={"NO_COLOR": ""})
    assert b"\x1b" not in on_a_terminal("stdout", "help", env={"NO_COLOR": "1"})
    assert b"\x1b" not in on_a_terminal("stdout", "help", env={"TERM": "dumb"})


# --- Settings -------------------------------------------------------------------------------------


def settings(*words, **options):
    return {row["key"]: row for row in json.loads(works("config", "--json", *words, **options))}


def test_settings_come_from_file_environment_and_command_line(tmp_path):
    (tmp_path / "weir.yaml").write_text("name: joe\nlimits:\n  idle_timeout: 5s\n")
    found = settings("--http-port", "9000", cwd=tmp_path, env={"WEIR_PIN": "true"})
    assert found["name"]["value"] == "joe"
    assert (found["name"]["file"], found["name"]["line"]) == ("weir.yaml", 1)
    assert found["limits.idle_timeout"]["value"] == "5 s"
    assert (found["pin"]["value"], found["pin"]["origin"]) == ("true", "environment")
    assert (found["http_port"]["value"], found["http_port"]["origin"]) == ("9000", "command line")
    assert found["grpc_port"]["origin"] == "default"
    assert found["limits.header_bytes_max"]["value"] == "64 KiB"


def test_every_setting_has_its_three_names(tmp_path):
    for key, row in settings(cwd=tmp_path).items():
        assert row["flag"] == "--" + key.replace("_", "-")
        assert row["variable"] == "WEIR_" + key.replace(".", "_").upper()
        assert row["help"] and row["expects"]


def test_mistakes_in_the_file_and_the_environment_are_named(tmp_path):
    (tmp_path / "weir.yaml").write_text("name: joe\nhttp_port: many\n")
    sentence = "weir.yaml:2: http_port: found 'many', expected a whole number from 0 to 65535"
    is_refused(2, sentence, "serve", cwd=tmp_path)
    is_refused(2, sentence, "config", cwd=tmp_path)
    (tmp_path / "weir.yaml").unlink()
    is_refused(2, "unknown variable 'WEIR_HOTS'", "serve", cwd=tmp_path, env={"WEIR_HOTS": "x"})
    is_refused(2, "none.yaml", "serve", "--config", "none.yaml", cwd=tmp_path)


# --- serve --check --------------------------------------------------------------------------------


def test_check_of_good_models(repository):
    text = works("serve", "--check", repository)
    assert text.splitlines()[0].split() == ["MODEL", "VERSION", "STATE", "REASON"]
    assert re.search(r"^add_sub +1  READY$", text, re.MULTILINE)
    rows = json.loads(works("serve", "--check", "--json", repository))
    assert {row["state"] for row in rows} == {"READY"}


def test_check_of_a_broken_model(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    put_model(root, "fixed")
    put_model(root, "takes_sequence")
    (root / "bad name").mkdir()
    done = weir("serve", "--check", root)
    assert done.returncode == 1
    assert re.search(r"^fixed +1  READY", done.stdout, re.MULTILINE)
    assert re.search(r"^takes_sequence +1  UNAVAILABLE  .*is a sequence", done.stdout, re.MULTILINE)
    assert re.search(r"^bad name +-  UNAVAILABLE  .*", done.stdout, re.MULTILINE)


def test_loads_that_take_long_say_how_far_they_are(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    put_sim(root, "slow", parameters={"load": "2s"}, batching="off")
    words = ("serve", "--check", "--json", root)
    with subprocess.Popen([BINARY, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as elsewhere:
        seen = on_a_terminal("stderr", *words)
        out, log = elsewhere.communicate(timeout=PATIENCE_S)
    assert re.search(rb"\r\x1b\[K0 of 1 models loaded: slow, \d s", seen), seen
    assert seen.endswith(b"\r\x1b[K"), "the line is wiped at its end"
    assert [row["state"] for row in json.loads(out)] == ["READY"]
    told = [json.loads(line) for line in log.splitlines()]
    told = [line for line in told if line["message"] == "models are loading"]
    assert (told[0]["done"], told[0]["of"], told[0]["model"]) == (0, 1, "slow")


def test_a_slow_load_right_here_says_what_it_waits_for(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    put_sim(root, "slow", parameters={"load": "1500ms"}, batching="off")
    seen = on_a_terminal("stderr", "infer", "slow", "--local", root)
    assert re.search(rb"\r\x1b\[Kloading: slow, \d s", seen) and seen.endswith(b"\r\x1b[K")


def test_a_model_that_does_not_go_is_left_alone(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    put_sim(root, "m", parameters={"unload": "1h"}, load_limit="1s")
    values = ",".join(["2"] * 16)
    assert "2" in works("infer", "m", "--local", root, "--input", f"x={values}")


def test_check_needs_no_port(repository, server):
    works("serve", "--check", "--port", server.port, repository)


def test_check_of_no_folder(tmp_path):
    is_refused(1, "cannot open the model repository 'none'", "serve", "--check", "none",
               cwd=tmp_path)
    (tmp_path / "empty").mkdir()
    assert json.loads(works("serve", "--check", "--json", tmp_path / "empty")) == []


# --- infer ----------------------------------------------------------------------------------------


def infer(model, how, *words):
    done = json.loads(works("infer", model, *how, "--json", *words))
    return {output["name"]: output for output in done["outputs"]}


def test_what_a_model_takes(how):
    text = works("infer", "add_sub", *how)
    assert "takes  INPUT0  INT32 [-1,16]" in text
    assert "gives  OUTPUT1  INT32 [-1,16]" in text
    assert "weir infer add_sub --input INPUT0=... --input INPUT1=..." in text
    told = json.loads(works("infer", "add_sub", *how, "--json"))
    assert (told["name"], told["version"]) == ("add_sub", "1")
    assert told["inputs"][1] == {"name": "INPUT1", "datatype": "INT32", "shape": [-1, 16]}


def test_what_a_version_takes_that_is_not_there(how):
    is_refused(1, "version 7 is not", "infer", "add_sub", *how, "--version", "7")


def test_numbers_as_text(how):
    row = ",".join(map(str, range(16)))
    outputs = infer("add_sub", how, "--input", f"INPUT0={row}", "--input", f"INPUT1=[[{row}]]")
    assert outputs["OUTPUT0"]["data"] == [2 * i for i in range(16)]
    assert outputs["OUTPUT1"]["data"] == [0] * 16
    assert outputs["OUTPUT0"]["shape"] == [1, 16]


def test_two_rows_and_nested_lists(how):
    outputs = infer("double_it", how, "--input", "x=[[1,2,3,4],[5,6,7,8.5]]")
    assert outputs["y"]["shape"] == [2, 4]
    assert outputs["y"]["data"] == [2, 4, 6, 8, 10, 12, 14, 17]
    assert infer("double_it", how, "--input", "x=1,2,3,4,5,6,7,8")["y"]["shape"] == [2, 4]


def test_one_number(how):
    assert infer("scalar", how, "--input", "x=41")["y"] == {
        "name": "y", "datatype": "FP32", "shape": [], "data": [42.0]}


def test_all_kinds_of_values(how):
    whole = [2**63 - 1, -(2**63), 0, 1]
    kinds = {"identity_int64": whole, "identity_bool": [True, False, True, True]}
    for model, values in kinds.items():
        assert infer(model, how, "--input", f"x={json.dumps(values)}")["y"]["data"] == values
    assert infer("identity_fp16", how, "--input", "x=[1,-2.5,0.1,65504]")["y"]["data"] == [
        1, -2.5, pytest.approx(0.1, abs=1e-3), 65504]


def test_texts(how, tmp_path):
    texts = ["a", "", "über", "x y"]
    outputs = infer("identity_bytes", how, "--input", "x=" + json.dumps(texts))
    assert outputs["y"]["data"] == texts
    shown = works("infer", "identity_bytes", *how, "--input", "x=" + json.dumps(texts))
    assert '"a" "" "über" "x y"' in shown


def test_npy_files_in_and_out(how, tmp_path):
    values = np.arange(12, dtype=np.float32).reshape(3, 4) / 7
    np.save(tmp_path / "in.npy", values)
    works("infer", "double_it", *how, "--input", f"x=@{tmp_path}/in.npy",
          "--output", f"{tmp_path}/out.npy")
    answer = np.load(tmp_path / "out.npy")
    assert answer.dtype == np.float32
    np.testing.assert_array_equal(answer, values * 2)


def test_npy_files_are_made_to_fit(how, tmp_path):
    np.save(tmp_path / "row.npy", np.array([1, 2, 3, 4]))  # int64, no batch dimension
    outputs = infer("double_it", how, "--input", f"x=@{tmp_path}/row.npy")
    assert outputs["y"]["shape"] == [1, 4]
    assert outputs["y"]["data"] == [2, 4, 6, 8]
    np.save(tmp_path / "wide.npy", np.full((1, 4), 300))
    is_refused(1, "element 0 is 300, which UINT8 cannot hold", "infer", "identity_uint8", *how,
               "--input", f"x=@{tmp_path}/wide.npy")


def test_one_of_several_outputs_is_saved_by_name(how, tmp_path):
    row = ",".join(["3"] * 16)
    words = ("infer", "add_sub", *how, "--input", f"INPUT0={row}", "--input", f"INPUT1={row}")
    works(*words, "--output", f"OUTPUT0={tmp_path}/sum.npy", "--output", f"OUTPUT1={tmp_path}/d.npy")
    assert np.load(tmp_path / "sum.npy").tolist() == [[6] * 16]
    assert np.load(tmp_path / "d.npy").tolist() == [[0] * 16]
    is_refused(1, "expected NAME=FILE to choose one", *words, "--output", f"{tmp_path}/x.npy")
    is_refused(1, "no output 'SUM'", *words, "--output", f"SUM={tmp_path}/x.npy")


def test_pictures_in_and_out(how, tmp_path):
    """A model that echoes: what comes back is the picture, scaled to what the model takes."""
    works("infer", "picture", *how, "--input", f"x=@{PICTURES}/coins.png",
          "--output", f"{tmp_path}/out.png", "--output", f"{tmp_path}/out.npy")
    values = np.load(tmp_path / "out.npy")
    assert values.shape == (1, 1, 8, 12)
    assert 0 <= values.min() < values.max() <= 1
    whole = read_png(PICTURES / "coins.png")
    assert values.mean() == pytest.approx(whole.mean() / 255, abs=0.01)
    back = read_png(tmp_path / "out.png")
    np.testing.assert_array_equal(back[:, :, 0], np.rint(values[0, 0] * 255))


def test_colour_pictures_with_channels_last(how, tmp_path):
    image = ROOT / "tests" / "fuzz" / "corpus" / "image" / "rgb.png"
    works("infer", "colours", *how, "--input", f"x=@{image}", "--output", f"{tmp_path}/out.npy")
    values = np.load(tmp_path / "out.npy")
    assert (values.shape, values.dtype) == ((8, 12, 3), np.uint8)
    assert len({tuple(channel) for channel in values.reshape(-1, 3).T}) > 1


def test_an_overlay_has_the_pictures_own_size(how, tmp_path):
    works("infer", "picture", *how, "--input", f"x=@{PICTURES}/coins.png",
          "--overlay", f"{tmp_path}/over.png")
    over, picture = read_png(tmp_path / "over.png"), read_png(PICTURES / "coins.png")
    assert over.shape == (*picture.shape[:2], 3)
    assert (over[:, :, 0] != over[:, :, 2]).any(), "nothing is painted"


@pytest.mark.parametrize(
    "model, words, sentence",
    [
        ("add_sub", ["--input", "X=1"], "no input 'X', expected 'INPUT0', 'INPUT1'"),
        ("double_it", ["--input", "x=1,2,3"], "found 3 values, expected shape [-1,4]"),
        ("double_it", ["--input", "x=[[1,2],[3,4]]"], "found shape [2,2], expected [-1,4]"),
        ("double_it", ["--input", "x=[[1,2],[3]]"], "its lists differ in length"),
        ("double_it", ["--input", "x=1,2,3,a"], "input 'x': found '1,2,3,a', expected numbers"),
        ("double_it", ["--input", 'x=["1",2,3,4]'], "found the string '1', expected FP32"),
        ("identity_uint8", ["--input", "x=1,2,3,256"], "found the number 256, expected UINT8"),
        ("identity_bytes", ["--input", "x=[1,2,3,4]"], "expected strings"),
        ("double_it", ["--input", "x=@/no/such.npy"], "/no/such.npy"),
        ("double_it", ["--input", f"x=@{PICTURES}/coins.png"], "found a picture, expected FP32 [-1,4]"),
        ("double_it", ["--input", f"x=@{BINARY}"], "expected an .npy file, a picture"),
        ("double_it", ["--input", "x=1,2,3,4", "--output", "y.txt"], "ends in .npy or .png"),
        ("double_it", ["--input", "x=1,2,3,4", "--output", "y.png"], "expected a picture"),
        ("double_it", ["--input", "x=1,2,3,4", "--overlay", "y.png"], "no output is like a mask"),
        ("add_sub", ["--input", "INPUT0=" + ",".join(["1"] * 16)], "INPUT1"),
        ("nobody", ["--input", "x=1"], "nobody"),
    ],
)
def test_mistakes_in_a_question(how, model, words, sentence, tmp_path):
    is_refused(1, sentence, "infer", model, *how, *words, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_many_requests_at_once(how):
    words = ("--input", "x=1,2,3,4", "--repeat", "40", "--parallel", "8")
    done = json.loads(works("infer", "double_it", *how, *words, "--json"))
    assert len(done["requests"]) == 40
    assert all(request["compute_ms"] <= request["latency_ms"] for request in done["requests"])
    text = works("infer", "double_it", *how, *words[:2], "--parallel", "3", "--timing")
    assert re.search(r"^  request +latency +queue +compute", text, re.MULTILINE)
    assert len(re.findall(r"^ +\d+ +\d+\.\d\d +\d+\.\d\d +\d+\.\d\d$", text, re.MULTILINE)) == 3
    assert "3 requests, 3 at once" in text


def test_what_is_about_an_answer_needs_inputs(how):
    for words in (("--output", "y.npy"), ("--overlay", "y.png"), ("--parallel", "2"), ("--timing",)):
        is_refused(2, f"{words[0]}: found no inputs, expected --input x=...", "infer", "double_it",
                   *how, *words)


def test_the_version_can_be_chosen(how):
    assert infer("scalar", how, "--input", "x=1", "--version", "1")["y"]["data"] == [2.0]
    assert weir("infer", "scalar", *how, "--input", "x=1", "--version", "2").returncode == 1


def test_a_server_that_is_not_there(tmp_path):
    is_refused(1, "127.0.0.1:1: cannot connect: Connection refused; does a server run there?", "infer", "a",
               "--url", "http://127.0.0.1:1")
    is_refused(1, "cannot connect", "infer", "a", "--url", f"unix:{tmp_path}/none")
    for url in ("https://x/y", "http://x/y", "http://", "http://x:99999", "ftp://x", "unix:"):
        is_refused(1, f"url: found '{url}', expected", "infer", "a", "--url", url)


METADATA = b"""{"name":"m","versions":["1","3"],"platform":"p","inputs":[{"name":"x","datatype":"FP32",
"shape":[-1,2]}],"outputs":[{"name":"y","datatype":"FP32","shape":[-1,2]}]}"""
OUTPUTS = b"""{"model_name":"m","model_version":"3","outputs":[{"name":"y","datatype":"FP32",
"shape":[1,2],"data":[1.5,-2]}]}"""


def answer(body, head=None):
    return (head or b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)) + body


class Stranger:
    """Some other server: answers each connection's requests with these bytes, then closes."""

    def __init__(self, *connections):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.connections = connections
        self.requests = []
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.thread.join(PATIENCE_S)
        self.listener.close()
        assert not self.thread.is_alive()

    def serve(self):
        for answers in self.connections:
            client = self.listener.accept()[0]
            with client, client.makefile("rb") as reader:
                for data in answers:
                    self.requests.append(self.read_request(reader))
                    client.sendall(data)

    @staticmethod
    def read_request(reader):
        head = b"".join(iter(reader.readline, b"\r\n"))
        size = re.search(rb"\nContent-Length: (\d+)", head)
        return head + reader.read(int(size[1]) if size else 0)


def ask(stranger):
    words = ("infer", "m", "--url", stranger.url, "--input", "x=1,2", "--json", "--timeout", "20s")
    return weir(*words)


def test_answers_of_other_servers():
    """JSON without binary tensors, in chunks, after a 100, without a length: all the same."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    half = len(OUTPUTS) // 2
    chunks = b"%x;a=b\r\n%s\r\n%X\r\n%s\r\n0\r\n\r\n" % (
        half, OUTPUTS[:half], len(OUTPUTS) - half, OUTPUTS[half:])
    early = b"HTTP/1.1 100 Continue\r\n\r\n"
    endless = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
    for data in (answer(OUTPUTS), chunked + chunks, early + answer(OUTPUTS), endless + OUTPUTS):
        with Stranger([answer(METADATA)], [data]) as stranger:
            done = ask(stranger)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["model_version"] == "3"
        assert told["outputs"][0]["data"] == [1.5, -2]


def test_a_request_is_what_the_protocol_says():
    with Stranger([answer(METADATA)], [answer(OUTPUTS)]) as stranger:
        assert ask(stranger).returncode == 0
    metadata, request = stranger.requests
    assert metadata.startswith(b"GET /v2/models/m HTTP/1.1\r\nHost: 127.0.0.1:")
    assert request.startswith(b"POST /v2/models/m/infer HTTP/1.1\r\n")
    size = int(re.search(rb"Inference-Header-Content-Length: (\d+)", request)[1])
    assert request[-8:] == np.array([1, 2], np.float32).tobytes()
    told = json.loads(request[-8 - size : -8])
    assert told["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [1, 2],
                               "parameters": {"binary_data_size": 8}}]


@pytest.mark.parametrize(
    "data, sentence",
    [
        (b"", "closed the connection before its answer ended"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "closed the connection before its answer ended"),
        (answer(OUTPUTS)[:-1], "closed the connection before its answer ended"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not an HTTP/1.1 server"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "a chunk without size"),
        (answer(b"<html>"), "the server's answer makes no sense: JSON line 1, column 1"),
        (answer(b"{}"), "the server's answer makes no sense: no list of outputs"),
        (answer(b'{"error":"no way"}', b"HTTP/1.1 400 Bad Request\r\nContent-Length: 18\r\n\r\n"),
         "the server answers 400: no way"),
        (answer(b"", b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"),
         "the server answers 502"),
        (answer(OUTPUTS.replace(b'"data":[1.5,-2]', b'"parameters":{"binary_data_size":8}')),
         "an output with more binary data than there is"),
        (answer(OUTPUTS.replace(b"[1,2]", b"[1,-7]")), "a shape that is no list of whole numbers"),
        (answer(OUTPUTS.replace(b"[1.5,-2]", b"[1.5]")), "expected"),
        (answer(OUTPUTS.replace(b"FP32", b"FP31")), "a tensor without name, datatype or shape"),
    ],
)
def test_nonsense_from_other_servers(data, sentence):
    with Stranger([answer(METADATA)], [data]) as stranger:
        done = ask(stranger)
    assert done.returncode == 1
    assert sentence in done.stderr


@pytest.mark.parametrize(
    "data, sentence",
    [
        (b"<html>", "JSON line 1, column 1"),
        (b"{}", "a model without a name"),
    ],
)
@pytest.mark.parametrize("command", ["infer", "bench"])
def test_another_servers_page_is_no_model(command, data, sentence):
    with Stranger([answer(data)]) as stranger:
        done = weir(command, "m", "--url", stranger.url)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"the server's answer makes no sense: {sentence}" in done.stderr


def test_over_a_unix_socket(repository, tmp_path):
    path = tmp_path / "weir.sock"
    with Server(tmp_path, "--unix-socket", path, repository) as server:
        assert f"unix:{path}" in server.ready_line
        assert infer("scalar", ("--url", f"unix:{path}"), "--input", "x=1")["y"]["data"] == [2.0]


def test_the_best_classes_are_shown():
    text = works("infer", "digits", "--local", EXAMPLES, "--input", f"pixels=@{PICTURES}/two.txt")
    assert re.search(r"best: 2 \(0\.\d+\), \d \(", text)


# --- inspect --------------------------------------------------------------------------------------


def inspect(path):
    return json.loads(works("inspect", "--json", path))


def test_inspect_a_model_of_another_backend(tmp_path):
    put_sim(tmp_path, "m")
    put_sim(tmp_path, "n", backend="hello")
    text = works("inspect", tmp_path / "m")
    assert "a simulated model" in text and "takes  x  FP32 [-1,16]" in text
    assert inspect(tmp_path / "m")["config"]["input"][0]["dims"] == [16]
    assert "parameters" in works("inspect", "--config", tmp_path / "m")
    why = "there is no backend 'hello'"
    assert why in inspect(tmp_path / "n")["problem"]
    assert f"cannot be served: {why}" in works("inspect", tmp_path / "n")


def test_inspect_finds_mistakes_of_simulated_models(tmp_path):
    put_sim(tmp_path, "m", shape_buckets=[{"input": "z", "dim": 1, "sizes": [8]}])
    put_sim(tmp_path, "n", parameters={"tau1": "1ms"})
    assert "the model has no input 'z', expected one of: x" in inspect(tmp_path / "m")["problem"]
    assert "tau1" in inspect(tmp_path / "n")["problem"]
    for name in "mn":
        assert weir("inspect", "--config", tmp_path / name).returncode == 1


def test_inspect_a_folder_and_a_file():
    folder, file = inspect(MODELS / "add_sub"), inspect(MODELS / "add_sub" / "1" / "model.onnx")
    assert folder["name"] == "add_sub"
    assert folder["operators"] == file["operators"] == {"Add": 1, "Sub": 1}
    assert folder["opsets"] == {"": folder["opsets"][""]}
    assert folder["inputs"][0] == {
        "name": "INPUT0", "kind": "a tensor", "datatype": "INT32", "shape": [-1, 16]}
    assert (folder["servable"], folder["config"]["max_batch_size"]) == (True, 64)
    assert folder["config"]["input"][0]["dims"] == [16]
    assert inspect(MODELS / "add_sub" / "1")["operators"] == folder["operators"]


def test_inspect_agrees_with_the_server(server, repository):
    for name in ("add_sub", "dynamic", "scalar", "identity_fp16"):
        told = server.get(f"/v2/models/{name}/config").json()
        found = inspect(repository / name)["config"]
        for key in ("max_batch_size", "input", "output", "platform", "backend"):
            assert found[key] == told[key], (name, key)


def test_inspect_reads_the_configuration(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    put_model(root, "double_it", max_batch_size=4)
    assert inspect(root / "double_it")["config"]["max_batch_size"] == 4
    (root / "double_it" / "model.yaml").write_text("max_batch_sise: 4\n")
    told = inspect(root / "double_it")
    assert not told["servable"]
    assert "max_batch_sise" in told["problem"]


def test_inspect_says_why_a_model_cannot_be_served():
    told = inspect(MODELS / "takes_sequence")
    assert (told["servable"], told["problem"]) == (
        False, "input 'list' is a sequence, only tensors can be served")
    text = works("inspect", MODELS / "takes_sequence")
    assert "cannot be served: input 'list' is a sequence" in text


def test_inspect_checks_shape_buckets(tmp_path):
    put_model(tmp_path, "words", shape_buckets=[{"input": "y", "dim": 1, "sizes": [8]}])
    why = "shape_buckets: the model has no input 'y', expected one of: x, mask"
    assert inspect(tmp_path / "words")["problem"] == why
    assert f"cannot be served: {why}" in works("inspect", tmp_path / "words")
    done = weir("inspect", "--config", tmp_path / "words")
    assert done.returncode == 1 and why in done.stdout


def test_inspect_of_weights():
    told = inspect(EXAMPLES / "segment")
    assert told["parameters"] > 100000
    assert told["parameter_bytes"] == 4 * told["parameters"]
    text = works("inspect", EXAMPLES / "segment")
    assert f"weights: {told['parameters']} parameters" in text
    assert "takes  image  FP32 [batch,1,256,256]" in text


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "data" / "hostile").iterdir()),
                         ids=lambda path: path.stem)
def test_inspect_survives_hostile_files(path):
    done = weir("inspect", path)
    assert done.returncode in (0, 1)
    assert done.returncode == 0 or path.name in done.stderr


def test_inspect_of_nothing(tmp_path):
    is_refused(1, "nope: no such file", "inspect", "nope", cwd=tmp_path)
    is_refused(1, "expected a model's folder", "inspect", tmp_path)
