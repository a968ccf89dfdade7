"""Screenshots of MLflow as a reviewer finds it: `make review`, then `python -m tools.mlflow_screenshots docs/images`,
with Playwright and Chromium (JOURNEY_BANDIT_CHROMIUM names another one). A new profile, at two widths.
"""

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from api.server import free_port
from journey_bandit import mlflow_server, processes
from journey_bandit.registry import ui

HOST, MODEL = "127.0.0.1", "travel-cart"
WIDTHS = {"": 1440, "-narrow": 1024}


def shoot(browser: Any, link: str, ready: str, width: int, path: Path) -> None:
    """One page, once the text `ready` and MLflow's assistant are there."""
    page = browser.new_page(viewport={"width": width, "height": 700}, reduced_motion="reduce")
    page.goto(link, wait_until="load")
    page.get_by_text("MLflow Assistant").wait_for()
    page.get_by_text(ready).first.wait_for()
    page.wait_for_timeout(3000)  # drawings move into place; the page never stops asking
    page.screenshot(path=path)
    page.close()


def main() -> None:
    """Serve the runs of a folder, take the screenshots, stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("review-output/mlflow"))
    wanted = parser.parse_args()
    program = os.environ.get("JOURNEY_BANDIT_CHROMIUM") or shutil.which("chromium")
    port = free_port(HOST)
    url = f"http://{HOST}:{port}"
    server = mlflow_server.start(wanted.runs, HOST, port)
    with processes.stopping(server), sync_playwright() as playwright:
        processes.wait(server, f"{url}/health", wanted.runs / "server.log")
        runs, model = dict(ui.links(url))[MODEL], dict(ui.models(url))[MODEL]
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for suffix, width in WIDTHS.items():
            shoot(browser, runs, "v1 uniform", width, wanted.folder / f"reviewer{suffix}.png")
        shoot(browser, model, "Roll back to", WIDTHS[""], wanted.folder / "model.png")
        browser.close()


if __name__ == "__main__":
    main()
