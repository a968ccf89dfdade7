"""Screenshot of the console, for the README and to look at: `python -m tools.console_screenshot docs/images`, with
Playwright and Chromium (JOURNEY_BANDIT_CHROMIUM names another one). The people of the fashion app are simulated.
"""

import argparse
import os
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from playwright.sync_api import sync_playwright

from api.server import free_port
from journey_bandit import console, processes
from simulations import scenario
from simulations.live.client import ServiceClient

_HOST = "127.0.0.1"


def main() -> None:
    """Start a service, let people use it, stop one nudge, take the screenshot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--users", type=int, default=4000)
    wanted = parser.parse_args()
    program = os.environ.get("JOURNEY_BANDIT_CHROMIUM") or shutil.which("chromium")
    port = free_port(_HOST)
    url = f"http://{_HOST}:{port}"
    with TemporaryDirectory() as folder:
        log = Path(folder) / "serve.log"
        where = ("--app", "fashion", "--store", f"sqlite:///{folder}/l.db", "--port", str(port), "--dev")
        started = processes.serve(*where, "--salt", "demo", "--clock", "driven", log=log)
        with processes.stopping(started), ServiceClient(url) as client, sync_playwright() as playwright:
            processes.wait(started, f"{url}/health/ready", log)
            world = scenario.load("fashion")
            console.simulate(client, world, console.currency_of("fashion"), seed=100, users=wanted.users, again="")
            stages = httpx.get(f"{url}/v1/stages").json()["stages"]
            (stage,) = [one for one in stages if one["stage"] == world.stage]
            body = {"nudge": [*stage["nudges"]][-1], "by": "ana", "reason": "refunds rose"}
            httpx.post(f"{url}/v1/policies/{world.stage}/pause", json=body).raise_for_status()
            while any(words in httpx.get(f"{url}/console").text for words in ("Still counting", "being computed")):
                time.sleep(0.5)
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 780})
            page.goto(f"{url}/console/stages/{world.stage}")
            page.screenshot(path=wanted.folder / "console.png")
            browser.close()


if __name__ == "__main__":
    main()
