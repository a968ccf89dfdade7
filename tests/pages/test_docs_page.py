"""The page at /docs in Chromium: it asks nobody but the service, it fits, and a request can be tried in it."""

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api.server import free_port
from tests.faults.service_process import ServiceProcess
from tests.waiting import PATIENCE

pytest.importorskip("playwright.sync_api", reason="no playwright: tests of pages are skipped; pip install playwright")
from playwright.sync_api import expect

ROOT = Path(__file__).parents[2]
VENDORED = ROOT / "api" / "routes" / "swagger_ui"
WATCH = """document.addEventListener('securitypolicyviolation', (e) =>
  console.error(`policy violated: ${e.violatedDirective} ${e.blockedURI}`))"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("docs")
    process = ServiceProcess(folder, free_port("127.0.0.1"), ["--app", "travel", "--salt", "docs"])
    try:
        process.start()
        yield process.url
    finally:
        process.end()


@pytest.fixture
def opened(browser: Any, url: str) -> Iterator[Callable[..., Any]]:
    """opened(width, path): the page. In the end: no errors, no violations, and no requests to another host."""
    contexts, told, hosts = [], list[str](), set[str]()

    def visit(width: int, path: str = "/docs") -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        context.set_default_timeout(PATIENCE * 1000)
        context.add_init_script(WATCH)
        page = context.new_page()
        page.on("console", lambda said: told.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda sent: hosts.add(re.sub(r"^(\w+://[^/]*).*", r"\1", sent.url)))
        page.goto(f"{url}{path}")
        expect(page.get_by_role("heading", name="Journey Bandit")).to_be_visible()
        return page

    expect.set_options(timeout=PATIENCE * 1000)
    yield visit
    for context in contexts:
        context.close()
    assert told == []
    assert {host for host in hosts if not host.startswith("data:")} == {url}


def test_the_files_are_those_that_their_readme_names() -> None:
    named = dict(re.findall(r"^([0-9a-f]{64})  (\S+)$", (VENDORED / "README.md").read_text("utf-8"), re.MULTILINE))
    found = {hashlib.sha256(path.read_bytes()).hexdigest(): path.name for path in VENDORED.glob("swagger-ui*.*s")}
    assert len(found) == 2
    assert found == named


@pytest.mark.parametrize("width", [360, 1440])
def test_every_operation_is_listed_and_the_page_fits(opened: Callable[..., Any], width: int) -> None:
    page = opened(width)
    document = page.evaluate("fetch('/docs/openapi.json').then((answer) => answer.json())")
    operations = sum(len(methods) for methods in document["paths"].values())
    assert operations > 20
    expect(page.locator(".opblock")).to_have_count(operations)
    page.locator("#operations-operate-check_readiness button.opblock-summary-control").click()
    expect(page.get_by_text("503 when the writer does not run")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [360, 1440])
def test_a_decision_is_made_from_the_example_as_it_stands(opened: Callable[..., Any], width: int) -> None:
    page = opened(width)
    box = page.locator(".opblock", has=page.locator("[data-path='/v1/decisions']"))
    box.locator("button.opblock-summary-control").click()
    box.get_by_role("button", name="Try it out").click()
    box.get_by_role("button", name="Execute").click()
    answer = box.locator(".live-responses-table .response").first
    expect(answer.locator(".response-col_status")).to_contain_text("200")
    expect(answer).to_contain_text("propensity")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
