"""What a page shows: every format, once, seen for a second, answered once."""

from typing import Any

import pytest
from playwright.sync_api import expect

FORMATS = ("banner", "popup", "inline_widget", "tooltip", "toast", "walkthrough", "scratch_card", "progress_streak", "gamified")


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_is_seen(shop, service, format) -> None:
    from tests.pages.conftest import nudge
    service.decision = nudge(format, image="/v1/browser/images/coat.svg")
    page = shop.page()
    page.evaluate("journey.nudge({progress: 3})")
    expect(page.get_by_role("heading", name="Only 3 left in your size")).to_be_visible()
