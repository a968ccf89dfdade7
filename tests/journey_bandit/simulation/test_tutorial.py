"""The tutorial of one's own app, done as it is written: its files saved, its commands typed, from an empty folder."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.waiting import COMMAND_PATIENCE

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "tutorials" / "your_own_app.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(sh|toml|python|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("vowpalwabbit", "mabwiser")),
    reason="the extra `peers` is not installed",
)


class Step(NamedTuple):
    """A command of the page, and what the page shows of its output."""

    words: list[str]
    shown: str


def typed(words: list[str], folder: Path) -> str:
    env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "114", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "journey_bandit", *words[1:]]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=COMMAND_PATIENCE, check=False, env=env, cwd=folder
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def follow(folder: Path) -> list[tuple[Step, str]]:
    """Do what the page says, in its order; each command with what it printed."""
    blocks = [(kind, text) for kind, text in BLOCK.findall(PAGE)]
    done = list[tuple[Step, str]]()
    for place, (kind, text) in enumerate(blocks):
        if kind == "toml" and text.startswith("app = "):
            (folder / "course.toml").write_text(text)
        elif kind == "toml":
            file = folder / "scenario.toml"
            head = re.escape(text.splitlines()[0].split(" #")[0])
            before = file.read_text()
            table = re.compile(rf"^{head}.*?(?=^\[)", re.DOTALL | re.MULTILINE)
            assert len(table.findall(before)) == 1, head
            file.write_text(table.sub(text.replace("\\", r"\\"), before))
        elif kind == "python":
            (folder / "rules.py").write_text(text)
        elif kind == "sh":
            shown = blocks[place + 1][1] if place + 1 < len(blocks) and blocks[place + 1][0] == "text" else ""
            for words in map(shlex.split, text.splitlines()):
                if words[0] == "journey-bandit":
                    done.append((Step(words, shown), typed(words, folder)))
    return done


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[Step, str]]]:
    folder = tmp_path_factory.mktemp("empty")
    return folder, follow(folder)


def form(text: str) -> list[str]:
    """Lines without numbers and frames, sorted: libraries compute other last digits on other processors, and the order
    of a table may follow from them.
    """
    plain = re.sub(r"[┏┳┓┡╇┩└┴┘━─│┃]+", " ", text)
    lines = (re.sub(r"[-+]?\d[\d,.]*|[0-9a-f]{8}(?=/)", "#", line) for line in plain.splitlines())
    return sorted({" ".join(line.split()) for line in lines if line.strip() and "?" not in line})


def test_every_command_prints_what_the_page_shows(followed: tuple[Path, list[tuple[Step, str]]]) -> None:
    shown = [(step, printed) for step, printed in followed[1] if step.shown]
    assert len(shown) == 4
    for step, printed in shown:
        names = {line.split("│")[1].strip() for line in step.shown.splitlines() if line.startswith("│")}
        assert names == {line.split("│")[1].strip() for line in printed.splitlines() if line.startswith("│")}
        if "simulate" not in step.words:
            assert form(printed) == form(step.shown), shlex.join(step.words)


def test_it_leads_from_a_catalogue_to_a_study_of_three_policies_and_two_peers(
    followed: tuple[Path, list[tuple[Step, str]]],
) -> None:
    folder, steps = followed
    assert [step.words[1:3] for step, _ in steps[:4]] == [
        ["catalogue", "check"],
        ["scenario", "new"],
        ["scenario", "check"],
        ["simulate", "--app"],
    ]
    study, printed = steps[3]
    policies = [study.words[i + 1] for i, word in enumerate(study.words) if word == "--policy"]
    assert sum(policy.startswith("peer:") for policy in policies) == 2
    assert len(policies) == 5
    assert all(f"│ {policy} " in printed for policy in policies), "names are not cut"
    assert "│ default (centred) " in printed, "what the catalogue declares has its name"
    (report,) = re.findall(r"\S+/report\.html", printed)
    page = (folder / report).read_text(encoding="utf-8")
    assert "course/plan: 6 policies on the same people" in page
    assert page.index("Net value over no nudge") < page.index("Regret")


@pytest.mark.parametrize("width", [80, 120])
def test_its_tables_fit_the_terminal_and_cut_nothing(width: int, followed: tuple[Path, list[tuple[Step, str]]]) -> None:
    """The same study again, from its finished runs."""
    folder, steps = followed
    words = steps[3][0].words
    env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": str(width)}
    command = [sys.executable, "-m", "journey_bandit", *words[1:]]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=COMMAND_PATIENCE, check=True, env=env, cwd=folder
    )
    lines = done.stdout.splitlines()
    tables = [line for line in lines if line.startswith(("│", "┃", "┏", "└"))]
    assert max(map(len, tables)) <= width
    assert all(line[-1] in "│┃┓┘" for line in tables), "no line goes beyond the terminal"
    assert "…" not in done.stdout
    for policy in ("default", "python:rules.py:by_level", "peer:lints:alpha=0.25"):
        assert any(line.startswith(f"│ {policy} ") for line in lines)
    intervals = re.findall(r"\[[^\]\n]*$", done.stdout, re.MULTILINE)
    assert intervals == [], "an interval is not broken"
