"""The examples of the protocols' pages run, with the clients they name, and print what the pages show."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.server import free_port
from journey_bandit import processes
from tests.waiting import PATIENCE

DOCS = Path(__file__).parents[2] / "docs" / "guides"
HOST = "127.0.0.1"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@contextmanager
def served(folder: Path, app: str, *more: str) -> Iterator[httpx.Client]:
    port, log = free_port(HOST), folder / "serve.log"
    where = ("--app", app, "--store", "memory://", "--port", str(port), "--dev", "--salt", "docs", *more)
    with processes.stopping(server := processes.serve(*where, log=log)):
        processes.wait(server, f"http://{HOST}:{port}/health/ready", log)
        with httpx.Client(base_url=f"http://{HOST}:{port}") as client:
            yield client


@pytest.fixture(scope="module")
def fashion(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """`make serve APP=fashion`, in memory."""
    with served(tmp_path_factory.mktemp("examples"), "fashion", "--cors", "*") as client:
        yield client


@pytest.fixture(scope="module")
def news(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The app of docs/guides/personalizer.md."""
    folder = tmp_path_factory.mktemp("news")
    (app,) = blocks("personalizer.md", "toml")
    (folder / "news.toml").write_text(app, encoding="utf-8")
    with served(folder, str(folder / "news.toml")) as client:
        yield client


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-"], input=code, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
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


def test_the_python_example_of_openfeature(fashion: httpx.Client) -> None:
    (code,), printed = blocks("openfeature.md", "python"), blocks("openfeature.md", "text")
    assert python(here(code, fashion)) == printed[0]


@pytest.mark.parametrize("number", [0, 1], ids=["server", "web"])
def test_the_javascript_examples_of_openfeature(fashion: httpx.Client, node: Callable[..., str], number: int) -> None:
    code, printed = blocks("openfeature.md", "js")[number], blocks("openfeature.md", "text")[1 + number]
    assert node(here(code, fashion)) == printed


def test_the_python_example_of_personalizer(news: httpx.Client) -> None:
    (code,), printed = blocks("personalizer.md", "python"), blocks("personalizer.md", "text")
    assert python(here(code, news)) == printed[0]


def test_the_javascript_example_of_personalizer(news: httpx.Client, node: Callable[..., str]) -> None:
    (code,), printed = blocks("personalizer.md", "js"), blocks("personalizer.md", "text")
    assert node(here(code, news)) == printed[1]


def told(folder: Path, receive: Callable[[str], str], code: str) -> str:
    """What a receiver of webhooks prints when a decision is made; the endpoint is that of the page."""
    port, (endpoint,) = free_port(HOST), blocks("webhooks.md", "toml")
    assert "9000" in code
    (folder / "webhooks.toml").write_text(endpoint.replace("9000", str(port)), encoding="utf-8")
    with ThreadPoolExecutor() as pool, served(folder, "travel", "--webhooks", str(folder / "webhooks.toml")) as client:
        printed = pool.submit(receive, code.replace("9000", str(port)))
        client.post("/v1/decisions", json={"stage": "cart", "user_id": "u-1"}).raise_for_status()
        return printed.result(timeout=PATIENCE)


def test_the_python_receiver_of_webhooks(tmp_path: Path) -> None:
    (code,), printed = blocks("webhooks.md", "python"), blocks("webhooks.md", "text")
    assert told(tmp_path, python, code) == printed[0]


def test_the_javascript_receiver_of_webhooks(tmp_path: Path, node: Callable[..., str]) -> None:
    (code,), printed = blocks("webhooks.md", "js"), blocks("webhooks.md", "text")
    assert told(tmp_path, node, code) == printed[1]
