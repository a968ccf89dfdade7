"""Screenshots of the example apps, for the README and to look at: `python -m tools.screenshots docs/images`, with
Playwright and Chromium (JOURNEY_BANDIT_CHROMIUM names another one). `--all FOLDER`: every app, wide and narrow.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import Page, expect, sync_playwright

from api.server import free_port
from journey_bandit import processes

WIDE, NARROW = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
SMALL = {"width": 1280, "height": 780}  # of the README: below 150 kB
README = ("fashion", "subscription")


def fashion(page: Page) -> None:
    """A coat, looked at three times."""
    app = page.frame_locator("#app")
    for n in range(3):
        app.get_by_role("link", name="Nordhem").click()
        app.get_by_role("link", name="Aalto wool coat").first.click()
        done(page, n + 1)


def travel(page: Page) -> None:
    """A flight, chosen and left alone."""
    app = page.frame_locator("#app")
    app.get_by_role("button", name="Search").click()
    app.get_by_role("button", name="Choose 06:40").click()
    done(page, 2)
    pass_time(page)


def subscription(page: Page) -> None:
    """A payment, hesitated at."""
    page.frame_locator("#app").get_by_role("button", name="Choose monthly").click()
    done(page, 1)
    pass_time(page)


def fintech(page: Page) -> None:
    """An account, left in the middle."""
    app = page.frame_locator("#app")
    for n in (1, 2):
        app.get_by_role("button", name="Continue").click()
        expect(app.get_by_text(f"{n} of 6 steps done")).to_be_visible()
    app.get_by_role("link", name="Finish later").click()
    done(page, 2)
    pass_time(page)
    done(page, 3)
    app.get_by_role("link", name="Open the app again").click()


def gaming(page: Page) -> None:
    """A purchase, and a round a week later."""
    app = page.frame_locator("#app")
    app.get_by_role("link", name="Shop", exact=True).click()
    app.get_by_role("button", name="€4.99").click()
    done(page, 2)
    pass_time(page)
    done(page, 3)
    app.get_by_role("link", name="Play").click()
    app.get_by_role("button", name="Play a round").click()


APPS: dict[str, Callable[[Page], None]] = {
    "fashion": fashion,
    "travel": travel,
    "subscription": subscription,
    "fintech": fintech,
    "gaming": gaming,
}


def done(page: Page, steps: int) -> None:
    """Wait until the guide says that so many steps are done."""
    expect(page.locator(".guide li").nth(steps - 1)).to_have_class("done")


def pass_time(page: Page) -> None:
    """Press the next step's button; the panel may be folded."""
    page.locator(".guide .next .go").dispatch_event("click")


def shoot(browser: Any, url: str, name: str, viewport: dict[str, int], path: Path) -> None:
    """One app, once its nudge was seen for a second."""
    page = browser.new_page(viewport=viewport, reduced_motion="reduce")
    page.goto(f"{url}/try/{name}", wait_until="load")
    page.locator(".guide").wait_for(state="attached")
    APPS[name](page)
    expect(page.locator(".line .done", has_text="Seen for a second")).to_be_attached()
    page.screenshot(path=path)
    page.close()


def main() -> None:
    """Start the example apps, take the screenshots, stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--all", action="store_true")
    wanted = parser.parse_args()
    program = os.environ.get("JOURNEY_BANDIT_CHROMIUM") or shutil.which("chromium")
    port = free_port("127.0.0.1")
    url = f"http://127.0.0.1:{port}"
    with TemporaryDirectory() as folder:
        log = Path(folder) / "try.log"
        with log.open("ab") as file:
            command = [sys.executable, "-m", "journey_bandit", "try", "--port", str(port)]
            started = subprocess.Popen(command, stdout=file, stderr=file)
        with processes.stopping(started), sync_playwright() as playwright:
            processes.wait(started, url, log)
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            for name in APPS if wanted.all else README:
                shoot(browser, url, name, WIDE if wanted.all else SMALL, wanted.folder / f"try-{name}.png")
                if wanted.all:
                    shoot(browser, url, name, NARROW, wanted.folder / f"try-{name}-narrow.png")
            browser.close()


if __name__ == "__main__":
    main()
