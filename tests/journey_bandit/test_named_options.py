"""Texts that tell somebody to give an option name one that exists, in the command that they name."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from journey_bandit.main import group

ROOT = Path(__file__).parents[2]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
LINE = re.compile(r"`([^`]*)`(?: has (--[a-z-]+))?|(journey-bandit [^`;]*)")  # a command line within a text
OTHERS = {"--bind", "--directory", "--porcelain", "--force-reinstall"}  # of git, pip and http.server
OTHERS |= {"--cb", "--quiet", "--random", "--squarecb"}  # of Vowpal Wabbit


def commands(inside: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    for name in inside.list_commands(click.Context(inside)):
        found = inside.get_command(click.Context(inside), name)
        assert found is not None
        yield f"{path}{name}", found
        if isinstance(found, click.Group):
            yield from commands(found, f"{path}{name} ")


OPTIONS = {name: {o for p in c.params for o in (*p.opts, *p.secondary_opts)} for name, c in commands(group)}
DEPLOYMENT = ROOT / "docs" / "guides" / "deployment"
EVERY = {option for options in OPTIONS.values() for option in options} | {"--help"}


def texts(file: Path) -> Iterator[str]:
    """Every text of a module but its docstrings and the words of command lines, f-strings with {} for what varies."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.value


def unknown(text: str) -> set[str]:
    """Options that a text names and that do not exist: in the command of their line, or in any where none is named."""
    wrong = set(OPTION.findall(LINE.sub("", text))) - EVERY
    for line in LINE.finditer(text):
        words = (line[1] or line[3] or "").removeprefix("journey-bandit ").split()
        known = next((OPTIONS[w] for w in (" ".join(words[:2]), *words[:1]) if w in OPTIONS), EVERY)
        wrong |= set(OPTION.findall(line[0])) - known
    return wrong - OTHERS - {"--help"}


FILES = [f for folder in ("journey_bandit", "api", "bandit", "experiments", "simulations")
         for f in sorted((ROOT / folder).rglob("*.py"))]  # fmt: skip


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_option_that_a_text_names_exists(file: Path) -> None:
    found = {text: wrong for text in texts(file) if (wrong := unknown(text))}
    assert not found


def test_an_option_that_does_not_exist_or_is_another_commands_is_found() -> None:
    assert unknown("say --learnt-elsewhere if it did") == {"--learnt-elsewhere"}
    assert unknown("say --learned-elsewhere if it did") == set()
    assert unknown("try journey-bandit publish cart --learned-elsewhere") == {"--learned-elsewhere"}
    assert unknown("`evaluate` has --learned-elsewhere; or give --hold-back") == set()


def test_deployment_files_start_services_with_options_that_exist() -> None:
    compose = yaml.safe_load((DEPLOYMENT / "compose.yaml").read_text())["services"]
    given = [shlex.split(compose[name]["command"]) for name in ("one", "two", "three")]
    pods = [
        part
        for part in yaml.safe_load_all((DEPLOYMENT / "kubernetes.yaml").read_text())
        if part["kind"] == "Deployment"
    ]
    given += [pods[0]["spec"]["template"]["spec"]["containers"][0]["args"]]
    for command, *options in given:
        assert command == "serve"
        serve = group.get_command(click.Context(group), "serve")
        assert serve is not None
        found = serve.make_context("serve", list(options)).params
        assert (found["host"], found["drain"]) == ("0.0.0.0", 10.0)  # noqa: S104 - in a container
