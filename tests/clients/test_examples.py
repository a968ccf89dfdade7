"""The examples of docs/journey.md and docs/segment.md run, and print what the pages show."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.server import free_port
from cli import processes

DOCS = Path(__file__).parents[2] / "docs"
HOST = "127.0.0.1"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def fashion(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """`make serve APP=fashion`, in memory."""
    folder, port = tmp_path_factory.mktemp("examples"), free_port(HOST)
    log = folder / "serve.log"
    where = ("--app", "fashion", "--store", "memory://", "--port", str(port), "--dev", "--salt", "docs")
    with processes.stopping(server := processes.serve(*where, log=log)):
        processes.wait(server, f"http://{HOST}:{port}/health/ready", log)
        with httpx.Client(base_url=f"http://{HOST}:{port}") as client:
            yield client


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def here(code: str, client: httpx.Client) -> str:
    assert "127.0.0.1:8080" in code
    return code.replace("127.0.0.1:8080", f"{HOST}:{client.base_url.port}")


def test_the_python_example_of_the_journey(fashion: httpx.Client) -> None:
    (code,), (printed, _) = blocks("journey.md", "python"), blocks("journey.md", "text")
    assert python(here(code, fashion)) == printed


def test_the_javascript_example_of_the_journey(fashion: httpx.Client, node: Callable[..., str]) -> None:
    (code,), (_, printed) = blocks("journey.md", "js"), blocks("journey.md", "text")
    assert node(here(code, fashion)) == printed


def test_the_python_example_of_segment(fashion: httpx.Client) -> None:
    (code,) = blocks("segment.md", "python")
    assert python(here(code, fashion)) == "sent\n"
    found: Any = fashion.get("/v1/users/browser-1/journey").json()
    assert (found["moment"], found["consent"]) == ("hesitates", ["push"])


def test_the_javascript_example_of_segment(fashion: httpx.Client, node: Callable[..., str]) -> None:
    (code,) = blocks("segment.md", "js")
    assert node(here(code, fashion)) == "sent\n"
    assert fashion.get("/v1/users/u-2/journey").json()["moment"] == "hesitates"
