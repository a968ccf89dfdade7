"""A service of the shop in a process of its own, with keys, for clients that are not ours."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.http.keys import create
from api.server import free_port
from journey_bandit import processes
from tests.waiting import PATIENCE

HERE = Path(__file__).parent
HOST = "127.0.0.1"


class Running:
    """The service: its address, a key for events, one for all the rest, and a client with that."""

    def __init__(self, port: int, write_key: str, key: str, client: httpx.Client):
        self.port, self.url, self.client = port, f"http://{HOST}:{port}", client
        self.write_key, self.key = write_key, key

    def journey(self, user: str) -> Any:
        return self.client.get(f"/v1/users/{user}/journey").raise_for_status().json()

    def ask(self, user: str) -> Any:
        return self.client.post("/v1/decisions", json={"user_id": user}).raise_for_status().json()

    def receipt(self, decision: str) -> Any:
        return self.client.get(f"/v1/decisions/{decision}").raise_for_status().json()

    def learned(self, stage: str, arm: str) -> Any:
        policies = self.client.get("/v1/policies", params={"wait": True}).raise_for_status().json()["policies"]
        (found,) = [a for p in policies for a in p["arms"] if (p["stage"], a["arm"]) == (stage, arm)]
        return found


@contextmanager
def serving(folder: Path, catalogue: str, loop: str = "", **options: str) -> Iterator[Running]:
    """A service of a catalogue, with keys, in a process of its own."""
    port, app, keys, log = free_port(HOST), folder / "shop.toml", folder / "keys.toml", folder / "serve.log"
    app.write_text(catalogue, encoding="utf-8")
    write_key = create(keys, "web", ["events"])
    key = create(keys, "backend", ["decide", "reward", "read"], loop)
    store = f"sqlite:///{folder / 'shop.db'}"
    more = [word for name, value in options.items() for word in (f"--{name}", value)]
    where = ("--app", str(app), "--store", store, "--port", str(port), "--keys", str(keys), *more)
    with processes.stopping(server := processes.serve(*where, log=log)):
        processes.wait(server, f"http://{HOST}:{port}/health/ready", log)
        with httpx.Client(base_url=f"http://{HOST}:{port}", headers={"X-API-Key": key}) as client:
            yield Running(port, write_key, key, client)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Learned as soon as the reward is there: windows need not pass."""
    text = (HERE.parent / "journey_shop.toml").read_text(encoding="utf-8")
    text = text.replace('window = "24h" }', 'window = "24h", settle = "reward" }')
    with serving(tmp_path_factory.mktemp("clients"), text) as service:
        yield service


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The shop of protocols.toml, open to pages of any origin."""
    text = (HERE / "protocols.toml").read_text(encoding="utf-8")
    with serving(tmp_path_factory.mktemp("protocols"), text, loop="offers", cors="*") as service:
        yield service


@pytest.fixture(scope="session")
def node() -> Callable[..., str]:
    """node(script, *arguments): run an ES module beside the packages of package.json; what it printed."""
    packages = json.loads((HERE / "package.json").read_text())["dependencies"]
    program = shutil.which("node")
    missing = [name for name in packages if not (HERE / "node_modules" / name).is_dir()]
    if program is None or missing:
        pytest.skip(f"needs node and {', '.join(missing) or 'nothing else'}: `make clients` installs the packages")

    def run(script: str, *arguments: str) -> str:
        done = subprocess.run(
            [program, "--input-type=module", "-", *arguments],
            input=script,
            capture_output=True,
            text=True,
            cwd=HERE,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
