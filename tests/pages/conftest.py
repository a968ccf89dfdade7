"""A shop whose pages load journey.js, in Chromium."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.pages.shop_site import (
    APP,
    AXE,
    PAGE,
    STYLE,
    USUAL,
    Service,
    ServiceHandler,
    Shop,
    SiteHandler,
    nudge,
    serving,
)
from tests.waiting import PATIENCE


@pytest.fixture(scope="module")
def shared(browser: Any) -> Any:
    """Context of pages that need no other. Each test has origins of its own, and so its own storage."""
    return browser.new_context(**USUAL)


@pytest.fixture
def service() -> Service:
    made = Service()
    made.decision = nudge()
    return made


@pytest.fixture
def shop(browser: Any, shared: Any, service: Service) -> Iterator[Shop]:
    """The shop. Whatever a test does: the policy is kept, and only these two servers are asked."""
    pages = {"/": PAGE, "/shop.css": STYLE}

    def csp() -> str:
        return (
            f"default-src 'none'; script-src 'self' {service.url}; style-src 'self'; connect-src {service.url};"
            f" img-src {service.url} data:; base-uri 'none'; require-trusted-types-for 'script'"
        )

    service_server = serving(functools.partial(ServiceHandler, service))
    with service_server as service.url, serving(functools.partial(SiteHandler, pages, csp)) as url:
        patience = str(round(PATIENCE * 1000))
        pages["/app.js"] = APP.replace("SERVICE", service.url).replace("PATIENCE", patience)
        made = Shop(browser, shared, service, pages, url)
        yield made
        violations = made.close()
        service.images.set()
        assert violations == []
        assert made.hosts - {"data:,"} <= {url, service.url}


@pytest.fixture
def axe() -> Callable[[Any], list[str]]:
    """axe(page): what axe-core finds of serious or critical impact in the surface of the page."""
    if not AXE.is_file():
        pytest.skip("no axe-core: accessibility is not checked; `make clients` installs it")
    source = AXE.read_text(encoding="utf-8")

    def findings(page: Any) -> list[str]:
        if not page.evaluate("Boolean(window.axe)"):
            page.evaluate(source)
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        serious = [one for one in found if one["impact"] in ("serious", "critical")]
        return [f"{one['id']}: {node['html']} {node['failureSummary']}" for one in serious for node in one["nodes"]]

    return findings
