"""Whatever has a name is in the documentation and in the help: settings, routes, metrics, subcommands."""

import importlib.machinery
import importlib.util
import re
import subprocess

import pytest

from serving import BINARY, PATIENCE_S, ROOT


def load_tool():
    """tools/reference, which asks the program."""
    loader = importlib.machinery.SourceFileLoader("reference", str(ROOT / "tools" / "reference"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("reference", loader))
    loader.exec_module(module)
    return module


reference = load_tool()
PAGE = (ROOT / "docs" / "reference.md").read_text()
ADVICE = "`tools/reference build/NAME/weir > docs/reference.md` makes the page anew"


@pytest.fixture(scope="module")
def answers():
    return reference.served(BINARY, "/", "/metrics")


def help_of(*words):
    done = subprocess.run([BINARY, "help", *words], capture_output=True, text=True, timeout=PATIENCE_S)
    return done.stdout


def rows(title):
    """What a table of the page names, and the cells beside it."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `([^`]+)` \|(.*)$", section, re.MULTILINE))


def missing(title, names):
    found = rows(title)
    return [name for name in names if name not in found]


def test_every_setting_of_the_server():
    settings = list(reference.settings(BINARY))
    assert len(settings) > 80
    assert not missing("Settings of the server", (name for name, *_ in settings)), ADVICE
    found, help_text = rows("Settings of the server"), help_of("serve")
    for name, _, live, _ in settings:
        assert (" yes " in found[name].split("|")[1]) == live, f"{name}: live is {live}; {ADVICE}"
        assert f"  --{name.replace('_', '-')}" in help_text, name


def test_every_setting_of_a_model():
    assert not missing("Settings of a model", (row[0] for row in reference.model_settings(BINARY))), ADVICE


def test_every_route(answers):
    routes = reference.routes(answers[0])
    assert ("POST", "/v2/quarantine/clear") in [route[:2] for route in routes]
    assert not missing("Routes", (f"{method} {path}" for method, path, _ in routes)), ADVICE


def test_every_metric(answers):
    metrics = reference.all_metrics(answers[1])
    assert len(metrics) > 80
    assert len(list(reference.metrics_named())) > 40
    assert not missing("Metrics", (name for name, *_ in metrics)), ADVICE


def test_every_parameter_of_a_simulated_model(tmp_path):
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "model.yaml").write_text("backend: sim\nparameters: { none: 1 }\n")
    done = subprocess.run([BINARY, "serve", "--check", tmp_path], capture_output=True, text=True, timeout=PATIENCE_S)
    names = done.stdout.partition("a simulated model has: ")[2].strip().split(", ")
    assert len(names) > 20
    text = (ROOT / "docs" / "models.md").read_text().partition("## A device that is not there")[2]
    assert not [name for name in names if f"| `{name}` |" not in text]


def subcommands():
    return re.findall(r"^  (\S+) {2,}", help_of().partition("To begin with")[0], re.MULTILINE)


def test_every_subcommand():
    commands = subcommands()
    assert "quarantine" in commands
    text = (ROOT / "docs" / "cli.md").read_text()
    for command in commands:
        assert f"`{command}`" in text, command


def test_pages_name_no_command_that_is_not_there():
    commands = {*subcommands(), "COMMAND"}
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        named = re.findall(r"(?:`|^    )weir ([A-Za-z-]+)", page.read_text(), re.MULTILINE)
        assert not set(named) - commands, page.name
