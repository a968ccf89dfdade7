"""Services of the example apps: one child process for each, with a ledger in a temporary folder and a clock that the
panel drives.
"""

import datetime as dt
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from api.http.keys import PublishableKey, create_publishable
from api.server import free_port
from journey_bandit import processes
from journey_bandit.demos.example_apps.app_specs import APPS, SALT, ExampleApp
from journey_bandit.demos.example_apps.example_catalogues import write_catalogue

HOST = "127.0.0.1"


class AppService(NamedTuple):
    """Service of one example app: its address, its catalogue, and the key that its pages present."""

    app: ExampleApp
    url: str
    catalogue: Path
    key: PublishableKey


@contextmanager
def running(folder: Path, front: int) -> Iterator[list[AppService]]:
    """The five services, ready, for pages of a front server on the port `front`; they end with the block. Files are in
    `folder`. They start side by side. Raises RemoteError, with the end of its log, if one does not start.
    """
    origins = [f"http://{HOST}:{front}", f"http://localhost:{front}"]
    with ExitStack() as stack:
        started = []
        for app in APPS:
            own = folder / app.name
            catalogue, keys, log = write_catalogue(app, own), own / "keys.toml", own / "service.log"
            key = create_publishable(keys, app.name, origins, "signed", dt.datetime.now(dt.UTC))
            port = free_port(HOST)
            process = processes.serve(
                *("--app", str(catalogue), "--keys", str(keys), "--dev", "--store", f"sqlite:///{own / 'ledger.db'}"),
                *("--salt", SALT, "--clock", "driven", "--host", HOST, "--port", str(port)),
                log=log,
            )
            stack.enter_context(processes.stopping(process))
            started.append((process, log, AppService(app, f"http://{HOST}:{port}", catalogue, key)))
        for process, log, service in started:
            processes.wait(process, f"{service.url}/health/ready", log)
        yield [service for _, _, service in started]
