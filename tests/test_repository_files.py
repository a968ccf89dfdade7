"""Files around the code: what hosts, package tools and service managers read says what is true."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.settings import PREFIX, Settings
from journey_bandit.main import group

ROOT = Path(__file__).parents[1]
UNIT = ROOT / "docs" / "guides" / "deployment" / "journey-bandit.service"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def asked(text: str) -> set[str]:
    return set(re.findall(r"\bmake ([a-z-]+)", text))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_the_targets_that_people_run(path: Path) -> None:
    jobs: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert commands
    assert {command.split()[0] for command in commands} == {"make"}
    assert set().union(*map(asked, commands)) <= targets()
    assert all(job["timeout-minutes"] for job in jobs.values())


def test_the_hook_before_a_commit_is_a_target() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert {hook["entry"] for hook in repository["hooks"]} == {"make lint"}
    assert "lint" in targets()


def test_the_citation_is_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])


def test_every_link_of_the_security_policy_leads_to_a_heading() -> None:
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert len(links) > 8
    for link in links:
        path, _, anchor = link.partition("#")
        text = (ROOT / path).read_text(encoding="utf-8")
        heads = [
            re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")
            for line in text.splitlines()
            if line[:1] == "#"
        ]
        assert not anchor or anchor in heads, link


def test_the_unit_sets_what_the_service_reads() -> None:
    text = UNIT.read_text(encoding="utf-8")
    for name in re.findall(rf"^Environment={PREFIX}(\w+)=", text, re.MULTILINE):
        assert name.lower() in Settings.__struct_fields__
    serve = group.get_command(None, "serve")  # type: ignore[arg-type]
    assert serve is not None
    known = {option for parameter in serve.params for option in parameter.opts}
    (start,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert set(re.findall(r"--[a-z-]+", start)) <= known
    assert Path(start.split()[0]).name == "journey-bandit"
    assert start.split()[1] == "serve"


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze: the unit is not checked by it")
    command = tmp_path / "journey-bandit"
    command.write_text("#!/bin/sh\n", encoding="utf-8")
    command.chmod(0o755)
    unit = tmp_path / UNIT.name
    text = UNIT.read_text(encoding="utf-8").replace("/opt/journey-bandit/bin/journey-bandit", str(command))
    unit.write_text(text, encoding="utf-8")
    done = subprocess.run([program, "verify", unit], capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if UNIT.name in line] == []
    unit.write_text(text.replace("ProtectSystem=strict", "ProtectSystem=somewhat"), encoding="utf-8")
    done = subprocess.run([program, "verify", unit], capture_output=True, text=True, check=False)
    assert "Failed to parse protect system value" in done.stderr
