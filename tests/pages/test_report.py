"""A review on a small screen and on a large one: nothing is cut, and the money stands in the first view."""

from pathlib import Path
from typing import Any

import pytest

from experiments.reports import html_report
from tests.experiments.reports.test_review_sections import reviewed

CUT = """[...document.querySelectorAll('body *')].filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0
  && getComputedStyle(e).display !== 'inline' && !e.closest('svg'))
  .map(e => e.tagName + ': ' + e.textContent.slice(0, 60))"""


@pytest.mark.parametrize("width", [390, 1440])
def test_no_table_is_cut_and_the_money_is_in_the_first_view(browser: Any, tmp_path: Path, width: int) -> None:
    (file := tmp_path / "report.html").write_text(html_report.render(reviewed(cost=0.8)), encoding="utf-8")
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(f"file://{file}", wait_until="load")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CUT) == []
    verdict = page.locator(".verdict").bounding_box()
    assert verdict["y"] + verdict["height"] < 900
    words = page.locator(".verdict").inner_text()
    for said in (
        "worse than no nudge",
        "EUR per decision net of costs",
        "it loses money with probability",
        "Gate: hold",
    ):
        assert said in words
    assert "More people convert" in page.locator(".verdict + .note").inner_text()
    page.close()
