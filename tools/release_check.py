"""Check what a release needs, and write its files into dist/: wheel, and bill of materials (CycloneDX).

    python -m tools.release_check [--tools FOLDER]

Checked are: one version in pyproject.toml, CITATION.cff, both clients, the OpenAPI document and CHANGELOG.md (a dated
section of that version, or "Unreleased" with something in it), the wheel's files and licences, the licences of files of
others in the source, that the documentation builds, and that hadolint and the schemas of Kubernetes find nothing in the
files to deploy with. Every problem is told; exit status 1 if there is any.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import yaml

from tools import wheel
from tools.wheel import ROOT

DIST = ROOT / "dist"
LICENCES = {  # folder with files of others → their licence
    "api/routes/swagger_ui": "LICENSE",
    "simulations/datasets/data": "LICENSE-hillstrom.md",
}
_DATED = r"^## \[?{}\]? [-–] (\d{{4}}-\d\d-\d\d)$"


def main() -> int:
    """What the command does: its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.release_check", description=__doc__)
    says = "folder of cyclonedx-py, hadolint and kubernetes-validate  [default: on PATH]"
    parser.add_argument("--tools", type=Path, default=Path(), help=says)
    tools = parser.parse_args().tools
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    problems = [*versions(ROOT), *licences(ROOT)]
    problems += wheel.wrong_files(wheel.build(DIST))
    problems += failed("the documentation does not build", [sys.executable, "-m", "sphinx", *DOCS])
    for problem, (name, *arguments) in CHECKS.items():
        problems += failed(problem, [str(tools / name), *arguments])
    print("\n".join(problems) or f"ready: {', '.join(sorted(path.name for path in DIST.iterdir()))} in {DIST.name}/")
    return 1 if problems else 0


DOCS = ("-W", "--keep-going", "-E", "-q", "-d", "docs-output/.doctrees", "docs", "docs-output")
LISTED = ("requirements", "requirements.lock", "--pyproject", "pyproject.toml")
DEPLOYMENT = "docs/guides/deployment"
WRITTEN = ("--output-reproducible", "--output-file", "dist/journey-bandit.cdx.json")
CHECKS = {
    "there is no bill of materials": ("cyclonedx-py", *LISTED, *WRITTEN),
    "hadolint finds faults": ("hadolint", "--no-color", f"{DEPLOYMENT}/Dockerfile"),
    "Kubernetes would refuse the manifest": ("kubernetes-validate", "--strict", f"{DEPLOYMENT}/kubernetes.yaml"),
}


def versions(root: Path) -> Iterator[str]:
    """What is wrong with the version: of files that name it, and of the changelog."""
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    for path, said in _said(root):
        if said != version:
            yield f"{path} says version {said}, pyproject.toml says {version}"
    changes = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    dated = re.search(_DATED.format(re.escape(version)), changes, re.MULTILINE)
    unreleased = re.search(r"^## \[?Unreleased\]?\n(.*?)(?=^## |\Z)", changes, re.MULTILINE | re.DOTALL)
    if not dated and not (unreleased and re.search(r"^- ", unreleased[1], re.MULTILINE)):
        yield f"CHANGELOG.md has neither a section '## {version} - YYYY-MM-DD' nor anything under '## Unreleased'"


def _said(root: Path) -> Iterator[tuple[str, str]]:
    """Each file that names the version, and which."""
    yield "CITATION.cff", str(yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8")).get("version"))
    python = "clients/python/pyproject.toml"
    yield python, tomllib.loads((root / python).read_text(encoding="utf-8"))["project"]["version"]
    typescript, document = "clients/typescript/package.json", "docs/reference/openapi.json"
    yield typescript, json.loads((root / typescript).read_text(encoding="utf-8"))["version"]
    yield document, json.loads((root / document).read_text(encoding="utf-8"))["info"]["version"]
    costs = "benchmarks/released.json"  # python -m benchmarks.guard --record VERSION
    yield costs, json.loads((root / costs).read_text(encoding="utf-8"))["version"]


def licences(root: Path) -> Iterator[str]:
    """Licences that are missing: ours, and those of files of others, which pyproject.toml must name too."""
    named = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["license-files"]
    for path in ("LICENSE", *(f"{folder}/{name}" for folder, name in LICENCES.items())):
        if not (root / path).is_file() or not (root / path).read_text(encoding="utf-8").strip():
            yield f"{path} is missing or empty"
        if path not in named:
            yield f"{path} is not among license-files in pyproject.toml"


def failed(problem: str, command: list[str]) -> Iterator[str]:
    """The problem with the end of what a command says, if it fails."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError as error:
        yield f"{problem}: {error}"
        return
    if done.returncode:
        yield f"{problem}: {' '.join((done.stderr.strip() or done.stdout.strip()).splitlines()[-3:])}"


if __name__ == "__main__":
    sys.exit(main())
